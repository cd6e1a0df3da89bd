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

/* Who asks says so in a message, and the report of fleet_nodes.c tells of a number that is new. */
#define LOOK_NS 60000000000ULL
#define UNKNOWN_NS 1000000000ULL /* while this node does not know its sales */
#define NUMBER_MAX 33
#define KEPT_S "60"
#define WAIT_NS 2500000000ULL
#define POLL_NS 100000000L

static struct {
	/* the fleet's thread's */
	uint64_t look_ns;
	char seen[NUMBER_MAX]; /* the number that was answered last, or is being answered */
	/* under lock: the answer as it is made */
	pthread_mutex_t lock;
	char number[NUMBER_MAX]; /* "" = none is being made */
	json_t *sales;
	char *ready;  /* to be sent */
	bool expires; /* it was, and is to vanish by itself */
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
		*audit.number = '\0';
	pthread_mutex_unlock(&audit.lock);
	fleet_wake(d);
}

static const struct pipeline_hooks books_hooks = {.complete = on_books};

static void ask_books(struct daemon *d, json_int_t after)
{
	if (!pipeline_tell(d->pipeline, fleet_leases_question((uint32_t)after), &books_hooks, NULL))
		return;
	log_warn("no memory to tell the fleet what this node holds");
	/* Nobody will call: else the next number would wait for this one for ever. */
	pthread_mutex_lock(&audit.lock);
	json_decref(audit.sales);
	audit.sales = NULL;
	*audit.number = '\0';
	pthread_mutex_unlock(&audit.lock);
}

static void on_number(struct daemon *d, void *arg, int error, const redisReply *reply)
{
	(void)arg;
	if (error || reply->type != REDIS_REPLY_STRING || !reply->len || reply->len >= NUMBER_MAX ||
		!strcmp(reply->str, audit.seen))
		return;
	pthread_mutex_lock(&audit.lock);
	if (*audit.number) { /* one after the other */
		pthread_mutex_unlock(&audit.lock);
		return;
	}
	snprintf(audit.seen, sizeof(audit.seen), "%s", reply->str);
	snprintf(audit.number, sizeof(audit.number), "%s", reply->str);
	audit.sales = json_array();
	pthread_mutex_unlock(&audit.lock);
	ask_books(d, 0);
}

static void on_put(struct daemon *d, void *arg, int error, const redisReply *reply)
{
	(void)arg;
	(void)error;
	(void)reply;
	fleet_wake(d);
}

static bool send_answer(struct daemon *d, struct fleet_round *round)
{
	char key[FLEET_KEY_MAX], name[16 + NUMBER_MAX], node[12];
	bool sent = true;

	pthread_mutex_lock(&audit.lock);
	if (audit.ready) {
		const char *put[] = {"HSET", key, node, audit.ready}, *expire[] = {"EXPIRE", key, KEPT_S};

		snprintf(name, sizeof(name), "audit:%s", audit.number);
		snprintf(node, sizeof(node), "%u", d->config.fleet.node);
		fleet_key(d, name, key);
		/* In two rounds: of one the calls may be done in any order. */
		sent = audit.expires ? fleet_command(round, key, expire, 3, NULL, NULL)
				     : fleet_command(round, key, put, 4, on_put, NULL);
		if (sent && audit.expires) {
			free(audit.ready);
			audit.ready = NULL;
			*audit.number = '\0';
			audit.expires = false;
		} else if (sent) {
			audit.expires = true;
		}
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
	if (now_mono_ns < audit.look_ns || !atomic_load(&d->sales_known))
		return audit.look_ns > now_mono_ns ? audit.look_ns : now_mono_ns + UNKNOWN_NS;
	fleet_key(d, "audit", key);
	if (!fleet_command(round, key, words, 2, on_number, NULL))
		return now_mono_ns;
	audit.look_ns = now_mono_ns + LOOK_NS;
	return audit.look_ns;
}

static void news(struct daemon *d, const char *about)
{
	(void)d;
	(void)about;
	audit.look_ns = 0;
}

const struct fleet_part fleet_audit_part = {.name = "audit", .topic = "audit", .step = step, .news = news};

/* --- asking ----------------------------------------------------------------------------------------------------------------------- */
enum phase { PHASE_NUMBER, PHASE_TELL, PHASE_READ };

static bool ask(struct daemon *d, struct fleet_round *round, struct fleet_wish_item *item)
{
	const char *number = json_string_value(json_object_get(item->wish->wanted, "number"));
	char key[FLEET_KEY_MAX], channel[FLEET_CHANNEL_MAX], name[16 + NUMBER_MAX];
	const char *put[] = {"SET", key, number, "EX", KEPT_S}, *tell[] = {"PUBLISH", channel, "audit"},
		   *read[] = {"HGETALL", key};

	switch (item->phase) {
	case PHASE_NUMBER:
		fleet_key(d, "audit", key);
		return fleet_command(round, key, put, 5, fleet_wish_done, item);
	case PHASE_TELL:
		fleet_channel(d, channel);
		return fleet_command(round, NULL, tell, 3, fleet_wish_done, item);
	default:
		snprintf(name, sizeof(name), "audit:%s", number);
		fleet_key(d, name, key);
		return fleet_command(round, key, read, 2, fleet_wish_done, item);
	}
}

static bool take(struct daemon *d, struct fleet_wish_item *item, const redisReply *reply)
{
	(void)d;
	if (item->phase != PHASE_READ)
		return item->phase++ == PHASE_TELL;
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
	while (!err) {
		json_decref(known);
		known = NULL;
		nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
		err = wish(d, number, PHASE_READ, &known, failure, failure_size);
		if (err || json_object_size(known) >= config->node_count || time_mono_ns() >= until)
			break;
	}
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
