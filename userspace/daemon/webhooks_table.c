/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The table of webhooks_table.h. Called by webhooks.c, under its lock.
 *
 * Why a sale may be forgotten: its events are read to the end of the ledger at a time when the table's position was not beyond that end. So what
 * comes later lies behind the position, and is noted when the position gets there.
 */
#include "daemon/webhooks_table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_S 1000000000ULL
#define BACKOFF_FIRST_S 1
#define BACKOFF_LAST_S 300
#define RETRY_AFTER_MAX_S 3600

const char *webhook_failure_name(enum webhook_failure failure)
{
	static const char *const names[WEBHOOK_FAILURES] = {
		[WEBHOOK_DELIVERED] = "",
		[WEBHOOK_RESOLVE] = "resolve",
		[WEBHOOK_CONNECT] = "connect",
		[WEBHOOK_TLS] = "tls",
		[WEBHOOK_TIMEOUT] = "timeout",
		[WEBHOOK_BROKEN] = "broken",
		[WEBHOOK_REDIRECT] = "3xx",
		[WEBHOOK_REFUSED] = "4xx",
		[WEBHOOK_SERVER] = "5xx",
		[WEBHOOK_GONE] = "gone",
	};

	return names[failure];
}

uint64_t webhook_backoff_ns(unsigned attempts, uint64_t retry_after_s, uint32_t random)
{
	uint64_t wait = BACKOFF_FIRST_S * NS_PER_S, asked;

	for (unsigned i = 1; i < attempts && wait < BACKOFF_LAST_S * NS_PER_S; i++)
		wait *= 2;
	if (wait > BACKOFF_LAST_S * NS_PER_S)
		wait = BACKOFF_LAST_S * NS_PER_S;
	wait = wait / 2 + (uint64_t)((double)(wait / 2) * (random / 4294967296.0));
	asked = (retry_after_s < RETRY_AFTER_MAX_S ? retry_after_s : RETRY_AFTER_MAX_S) * NS_PER_S;
	return wait > asked ? wait : asked;
}

struct webhook_sale *webhook_table_find(struct webhook_table *table, uint32_t id)
{
	for (unsigned i = 0; i < table->count; i++)
		if (table->sales[i].id == id)
			return &table->sales[i];
	return NULL;
}

static struct webhook_sale *add(struct webhook_table *table, uint32_t id, uint64_t cursor)
{
	struct webhook_sale *sale;

	if (table->count == WEBHOOK_SALES_MAX)
		return NULL;
	sale = &table->sales[table->count++];
	*sale = (struct webhook_sale){.id = id, .cursor = cursor, .read_to = cursor, .has_news = true};
	return sale;
}

bool webhook_table_note(struct webhook_table *table, uint32_t id, uint64_t position, uint64_t at_ns)
{
	struct webhook_sale *sale = webhook_table_find(table, id);

	if (!sale) {
		sale = add(table, id, table->position);
		if (!sale)
			return false;
		sale->is_counted = true; /* what is behind the position, this function will be told */
	}
	if (position > sale->read_to) {
		sale->has_news = true;
		sale->known += sale->is_counted;
		if (!sale->oldest_ns)
			sale->oldest_ns = at_ns;
	}
	table->position = position;
	return true;
}

static bool is_done(const struct webhook_table *table, const struct webhook_sale *sale)
{
	return !sale->is_sending && !sale->has_news && sale->cursor <= table->position;
}

static void forget(struct webhook_table *table, struct webhook_sale *sale)
{
	*sale = table->sales[--table->count];
}

void webhook_table_sweep(struct webhook_table *table, uint64_t position)
{
	if (position > table->position)
		table->position = position;
	for (unsigned i = table->count; i-- > 0;)
		if (is_done(table, &table->sales[i]))
			forget(table, &table->sales[i]);
}

struct webhook_sale *webhook_table_take(struct webhook_table *table, uint64_t now_ns)
{
	for (unsigned i = 0; i < table->count; i++) {
		unsigned at = (table->turn + i) % table->count;
		struct webhook_sale *sale = &table->sales[at];

		if (sale->is_sending || !sale->has_news || sale->next_ns > now_ns)
			continue;
		table->turn = at + 1;
		sale->is_sending = true;
		return sale;
	}
	return NULL;
}

unsigned webhook_table_limit(const struct webhook_sale *sale, unsigned most)
{
	if (sale->attempts)
		return 1;
	return sale->is_counted && sale->known < most ? sale->known : most;
}

void webhook_table_read(
	const struct webhook_table *table, struct webhook_sale *sale, unsigned count, uint64_t last, uint64_t next)
{
	if (sale->is_counted && count && count <= sale->known) {
		sale->read_to = last;
		sale->known -= count;
		sale->has_news = sale->known;
		return;
	}
	sale->read_to = next;
	sale->known = 0;
	sale->is_counted = next >= table->position; /* there is nothing between that has not been read */
	sale->has_news = !sale->is_counted;
}

void webhook_table_delivered(struct webhook_sale *sale, uint64_t position)
{
	sale->cursor = position;
	sale->attempts = 0;
	sale->failure = WEBHOOK_DELIVERED;
}

void webhook_table_failed(
	struct webhook_sale *sale, uint64_t position, enum webhook_failure failure, int status, uint64_t next_ns)
{
	sale->attempts++;
	sale->failure = failure;
	sale->status = status;
	sale->next_ns = next_ns;
	sale->cursor = position - 1; /* so that it is found again at once */
	webhook_table_drop(sale);
}

void webhook_table_drop(struct webhook_sale *sale)
{
	sale->read_to = sale->cursor;
	sale->known = 0;
	sale->is_counted = false;
	sale->has_news = true;
}

void webhook_table_put_back(struct webhook_table *table, struct webhook_sale *sale)
{
	sale->is_sending = false;
	sale->cursor = sale->read_to;
	if (!sale->has_news)
		sale->oldest_ns = 0;
	if (is_done(table, sale))
		forget(table, sale);
}

void webhook_table_hurry(struct webhook_table *table)
{
	for (unsigned i = 0; i < table->count; i++) {
		table->sales[i].next_ns = 0;
		table->sales[i].attempts = 0;
	}
}

json_t *webhook_table_save(const struct webhook_table *table)
{
	json_t *sales = json_object();

	for (unsigned i = 0; i < table->count; i++) {
		char id[16];

		snprintf(id, sizeof(id), "%u", table->sales[i].id);
		json_object_set_new(sales, id, json_integer((json_int_t)table->sales[i].cursor));
	}
	return json_pack("{s:I, s:o}", "position", (json_int_t)table->position, "sales", sales);
}

static int load_sale(struct webhook_table *table, const char *key, const json_t *value)
{
	json_int_t cursor = json_integer_value(value);
	unsigned long id;
	char *end;

	errno = 0;
	id = strtoul(key, &end, 10);
	if (errno || *end || id < 1 || id > UINT32_MAX || !json_is_integer(value) || cursor < 0)
		return -EPROTO;
	return add(table, (uint32_t)id, (uint64_t)cursor) ? 0 : -EPROTO;
}

int webhook_table_load(struct webhook_table *table, const json_t *json)
{
	json_t *sales = json_object_get(json, "sales"), *position = json_object_get(json, "position"), *value;
	int err = json_is_object(sales) && json_is_integer(position) && json_integer_value(position) >= 0 ? 0 : -EPROTO;
	const char *key;

	memset(table, 0, sizeof(*table));
	json_object_foreach(sales, key, value)
		if (!err)
			err = load_sale(table, key, value);
	if (err)
		memset(table, 0, sizeof(*table));
	else
		table->position = (uint64_t)json_integer_value(position);
	return err;
}
