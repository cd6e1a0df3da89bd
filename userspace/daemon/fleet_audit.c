/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* See fleet_audit.h. The fleet's thread sees the number and sends the answer; the books come to the pipeline's thread, in between two answers of the
 * writer, so that what the gate has free, what is on its way and what the ledger says are of one moment.
 */
#include "daemon/fleet_audit.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/fleet_leases.h"
#include "daemon/fleet_wishes.h"
#include "daemon/maintenance.h"
#include "daemon/pipeline.h"
#include "daemon/sales.h"

/* Who asks says so in a message with the number of his question. One that was not heard stands in Redis, if no other was asked since: the report of
 * fleet_nodes.c tells of a number that is new.
 */
#define LOOK_NS 60000000000ULL
#define UNKNOWN_NS 1000000000ULL /* while this node does not know its sales */
#define NUMBER_MAX 33
#define ASKED_MAX 16 /* questions that wait; the books are told once to all of them */
#define KEPT_S "60"
#define WAIT_NS 2500000000ULL
#define POLL_NS 100000000L

static struct {
	/* the fleet's thread's */
	uint64_t look_ns;
	char heard[ASKED_MAX][NUMBER_MAX]; /* the latest questions, so that none is answered twice */
	unsigned heard_count;              /* of all time */
	char waiting[ASKED_MAX][NUMBER_MAX];
	unsigned waiting_count;
	/* under lock: the answer as it is made */
	pthread_mutex_t lock;
	char numbers[ASKED_MAX][NUMBER_MAX]; /* to which questions */
	unsigned count;                      /* 0 = none is being made */
	json_t *sales;
	char *ready; /* to be sent */
} audit = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* --- answering ------------------------------------------------------------------------------------------------------------------ */
static json_t *sale_json(struct daemon *d, const json_t *book)
{
	const char *text = json_string_value(json_object_get(book, "document"));
	json_t *json = json_copy((json_t *)(uintptr_t)book);
	struct stock_view stock;
	struct sale sale;

	json_object_del(json, "document");
	json_object_set_new(json, "book", text ? json_loads(text, 0, NULL) : json_null());
	if (sales_find_id(d->sales, (uint32_t)json_integer_value(json_object_get(book, "id")), &sale))
		return json;
	maintenance_read_stock(d, &sale, &stock);
	json_object_set_new(json, "free", json_integer((json_int_t)stock.free));
	json_object_set_new(json, "in_flight", json_integer((json_int_t)stock.in_flight));
	json_object_set_new(json, "in_gate", json_boolean(sales_in_gate(d->sales, &sale)));
	return json;
}

static void ask_books(struct daemon *d, json_int_t after);

/* Only sales that were ever leased, or could be: a sale of before the fleet, which is over, is no matter of it. */
static void on_books(struct daemon *d, void *arg, const struct pipeline_answer *answer)
{
	json_t *next = json_object_get(answer->json, "next"), *book;
	size_t i;

	(void)arg;
	pthread_mutex_lock(&audit.lock);
	json_array_foreach(json_object_get(answer->json, "books"), i, book) {
		json_t *sale = sale_json(d, book);

		if (json_is_null(json_object_get(sale, "book")))
			json_decref(sale);
		else
			json_array_append_new(audit.sales, sale);
	}
	if (!answer->error && json_is_integer(next)) {
		pthread_mutex_unlock(&audit.lock);
		ask_books(d, json_integer_value(next));
		return;
	}
	/* The writer is away: no answer is better than half of one. */
	if (!answer->error) {
		json_t *all = json_pack("{s:i, s:O}", "node", (int)d->config.fleet.node, "sales", audit.sales);

		audit.ready = all ? json_dumps(all, JSON_COMPACT) : NULL;
		json_decref(all);
	}
	json_decref(audit.sales);
	audit.sales = NULL;
	if (!audit.ready)
		audit.count = 0;
	pthread_mutex_unlock(&audit.lock);
	fleet_wake(d);
}

static const struct pipeline_hooks books_hooks = {.complete = on_books};

static void ask_books(struct daemon *d, json_int_t after)
{
	if (!pipeline_tell(d->pipeline, fleet_leases_question((uint32_t)after), &books_hooks, NULL))
		return;
	log_warn("no memory to tell the fleet what this node holds");
	/* Nobody will call: else the next question would wait for this one for ever. */
	pthread_mutex_lock(&audit.lock);
	json_decref(audit.sales);
	audit.sales = NULL;
	audit.count = 0;
	pthread_mutex_unlock(&audit.lock);
}

static bool is_number(const char *text)
{
	size_t length = strspn(text, "0123456789abcdef");

	return length && length < NUMBER_MAX && !text[length];
}

/* A question is to be answered with what the books say after it was asked. What is beyond the room is not, and its asker hears of a silent node. */
static void hear_number(const char *number)
{
	if (!is_number(number) || audit.waiting_count == ASKED_MAX)
		return;
	for (unsigned i = 0; i < ASKED_MAX; i++)
		if (!strcmp(audit.heard[i], number))
			return;
	snprintf(audit.heard[audit.heard_count++ % ASKED_MAX], NUMBER_MAX, "%s", number);
	snprintf(audit.waiting[audit.waiting_count++], NUMBER_MAX, "%s", number);
}

/* All that wait, when the answer to those before is gone. */
static void begin_answer(struct daemon *d)
{
	bool is_free;

	pthread_mutex_lock(&audit.lock);
	is_free = !audit.count;
	if (is_free && audit.waiting_count) {
		memcpy(audit.numbers, audit.waiting, sizeof(audit.numbers));
		audit.count = audit.waiting_count;
		audit.sales = json_array();
	}
	pthread_mutex_unlock(&audit.lock);
	if (!is_free || !audit.waiting_count)
		return;
	audit.waiting_count = 0;
	ask_books(d, 0);
}

static void on_number(struct daemon *d, void *arg, int error, const redisReply *reply)
{
	(void)arg;
	if (error || reply->type != REDIS_REPLY_STRING)
		return;
	hear_number(reply->str);
	fleet_wake(d);
}

static bool send_answer(struct daemon *d, struct fleet_round *round)
{
	char key[FLEET_KEY_MAX], name[16 + NUMBER_MAX], node[12];
	const char *keys[] = {key}, *arguments[] = {node, NULL, KEPT_S};
	bool sent = true;

	snprintf(node, sizeof(node), "%u", d->config.fleet.node);
	pthread_mutex_lock(&audit.lock);
	arguments[1] = audit.ready;
	while (audit.ready && audit.count && sent) {
		snprintf(name, sizeof(name), "audit:%s", audit.numbers[audit.count - 1]);
		fleet_key(d, name, key);
		sent = fleet_script(round, "audit_answer", keys, 1, arguments, 3, NULL, NULL);
		audit.count -= sent;
	}
	if (!audit.count) {
		free(audit.ready);
		audit.ready = NULL;
	}
	pthread_mutex_unlock(&audit.lock);
	return sent;
}

static uint64_t step(struct daemon *d, struct fleet_round *round, uint64_t now_mono_ns)
{
	char key[FLEET_KEY_MAX];
	const char *words[] = {"GET", key};

	if (!send_answer(d, round))
		return now_mono_ns;
	if (!atomic_load(&d->sales_known))
		return now_mono_ns + UNKNOWN_NS;
	begin_answer(d);
	if (now_mono_ns < audit.look_ns)
		return audit.look_ns;
	fleet_key(d, "audit", key);
	if (!fleet_command(round, key, words, 2, on_number, NULL))
		return now_mono_ns;
	audit.look_ns = now_mono_ns + LOOK_NS;
	return audit.look_ns;
}

static void news(struct daemon *d, const char *about)
{
	(void)d;
	if (about && *about)
		hear_number(about);
	else
		audit.look_ns = 0;
}

const struct fleet_part fleet_audit_part = {.name = "audit", .topic = "audit", .step = step, .news = news};

/* --- asking ----------------------------------------------------------------------------------------------------------------------- */
enum phase { PHASE_NUMBER, PHASE_TELL, PHASE_COUNT, PHASE_READ };

static bool ask(struct daemon *d, struct fleet_round *round, struct fleet_wish_item *item)
{
	const char *number = json_string_value(json_object_get(item->wish->wanted, "number"));
	char key[FLEET_KEY_MAX], channel[FLEET_CHANNEL_MAX], name[16 + NUMBER_MAX];
	const char *put[] = {"SET", key, number, "EX", KEPT_S}, *tell[] = {"PUBLISH", channel, name},
		   *count[] = {"HLEN", key}, *read[] = {"HGETALL", key};

	switch (item->phase) {
	case PHASE_NUMBER:
		fleet_key(d, "audit", key);
		return fleet_command(round, key, put, 5, fleet_wish_done, item);
	case PHASE_TELL:
		snprintf(name, sizeof(name), "audit %s", number);
		fleet_channel(d, channel);
		return fleet_command(round, NULL, tell, 3, fleet_wish_done, item);
	default:
		snprintf(name, sizeof(name), "audit:%s", number);
		fleet_key(d, name, key);
		return fleet_command(round, key, item->phase == PHASE_COUNT ? count : read, 2, fleet_wish_done, item);
	}
}

static bool take(struct daemon *d, struct fleet_wish_item *item, const redisReply *reply)
{
	(void)d;
	if (item->phase == PHASE_NUMBER) {
		item->phase = PHASE_TELL;
		return false;
	}
	if (item->phase == PHASE_COUNT)
		item->known = json_integer(reply->type == REDIS_REPLY_INTEGER ? reply->integer : 0);
	if (item->phase != PHASE_READ)
		return true;
	item->known = json_object();
	for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i + 1 < reply->elements; i += 2)
		if (reply->element[i]->type == REDIS_REPLY_STRING && reply->element[i + 1]->type == REDIS_REPLY_STRING)
			json_object_set_new(item->known, reply->element[i]->str,
				json_loadb(reply->element[i + 1]->str, reply->element[i + 1]->len, 0, NULL));
	return true;
}

static const struct fleet_wish_kind audit_kind = {.ask = ask, .take = take};

/* One wish from `phase` on. Returns 0 with *known (new reference, NULL for none), or as fleet_audit_ask. */
static int wish(
	struct daemon *d, const char *number, enum phase phase, json_t **known, char *failure, size_t failure_size)
{
	struct fleet_wish *asked = fleet_wish_new(&audit_kind, 1, json_pack("{s:s}", "number", number));
	int err;

	if (!asked)
		return -ENOMEM;
	asked->items[0].phase = phase;
	err = fleet_leases_wish(d, asked);
	if (err)
		return err;
	err = asked->items[0].error;
	snprintf(failure, failure_size, "%s", asked->items[0].failure);
	*known = json_incref(asked->items[0].known);
	fleet_wish_free(asked);
	return err;
}

int fleet_audit_ask(struct daemon *d, json_t **answer, char *failure, size_t failure_size)
{
	uint64_t random[2], until = time_mono_ns() + WAIT_NS;
	const struct config *config = &d->config;
	json_t *known = NULL, *nodes;
	char number[NUMBER_MAX];
	int err;

	*failure = '\0';
	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return -ENOMEM;
	snprintf(number, sizeof(number), "%016" PRIx64 "%016" PRIx64, random[0], random[1]);
	err = wish(d, number, PHASE_NUMBER, &known, failure, failure_size);
	/* The answers themselves are fetched once: those of many nodes are long. */
	while (!err && json_integer_value(known) < config->node_count && time_mono_ns() < until) {
		json_decref(known);
		known = NULL;
		nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
		err = wish(d, number, PHASE_COUNT, &known, failure, failure_size);
	}
	json_decref(known);
	known = NULL;
	if (!err)
		err = wish(d, number, PHASE_READ, &known, failure, failure_size);
	if (err) {
		json_decref(known);
		return err;
	}
	nodes = json_object();
	for (unsigned i = 0; i < config->node_count; i++) {
		char id[12];
		json_t *said;

		snprintf(id, sizeof(id), "%u", config->nodes[i].id);
		said = json_object_get(known, id);
		json_object_set(nodes, id, said ? said : json_null());
	}
	json_decref(known);
	*answer = json_pack("{s:o}", "nodes", nodes);
	return *answer ? 0 : -ENOMEM;
}
