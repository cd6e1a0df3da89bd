/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The pipeline of the target control; see pipeline.h. Hooks run as daemon/pipeline.h promises. */
#include <errno.h>
#include <string.h>

#include "check.h"
#include "common/timefmt.h"
#include "daemon/orders.h"
#include "daemon/pipeline.h"
#include "memory_store.h"
#include "pipeline.h"
#include "shim.h"
#include "writer/query.h"

struct pipeline {
	struct daemon *d;
	struct store *store;
	enum pipeline_mood mood;
	uint64_t durable;
};

static struct pipeline the_pipeline;

void pipeline_begin(struct daemon *d)
{
	the_pipeline = (struct pipeline){.d = d, .store = memory_store_reset()};
	d->pipeline = &the_pipeline;
	pipeline_set_mood(d, PIPELINE_WELL);
}

void pipeline_close_orders(struct daemon *d)
{
	d->maps.control->flags &= ~SLUICE_CONTROL_ORDERS_OPEN;
}

void pipeline_set_mood(struct daemon *d, enum pipeline_mood mood)
{
	the_pipeline.mood = mood;
	pipeline_close_orders(d);
	if (mood == PIPELINE_WELL)
		d->maps.control->flags |= SLUICE_CONTROL_ORDERS_OPEN;
}

static void read_answer(struct pipeline_answer *answer, enum wire_type type, const char *text)
{
	json_t *json = json_loads(text, 0, NULL);

	CHECK(json, "the writer's answer is no JSON: %s", text);
	if (type != WIRE_ERROR) {
		answer->json = json;
		return;
	}
	answer->error = -EREMOTEIO;
	snprintf(answer->code, sizeof(answer->code), "%s", json_string_value(json_object_get(json, "code")));
	snprintf(answer->detail, sizeof(answer->detail), "%s", json_string_value(json_object_get(json, "detail")));
	CHECK(strcmp(answer->code, "bad_request") != 0, "the daemon asked what no writer understands: %s", text);
	json_decref(json);
}

/* Asks the ledger; -ENOTCONN leaves everything undone. */
static void ask(struct pipeline *p, json_t *question, const struct pipeline_hooks *hooks, void *arg,
	struct pipeline_answer *answer)
{
	char *text = json_dumps(question, JSON_COMPACT), *reply = NULL;
	enum wire_type type;

	CHECK(text, "a question that is no JSON");
	if (hooks && hooks->prepare)
		answer->error = hooks->prepare(p->d, arg);
	if (!answer->error) {
		type = writer_query_answer(p->store, text, strlen(text), time_wall_ns(), &reply);
		read_answer(answer, type, reply);
		free(reply);
	}
	if (hooks && hooks->complete)
		hooks->complete(p->d, arg, answer);
	free(text);
}

int pipeline_ask(struct pipeline *p, json_t *question, const struct pipeline_hooks *hooks, void *arg,
	struct pipeline_answer *answer)
{
	memset(answer, 0, sizeof(*answer));
	CHECK(question, "no question was made");
	if (p->mood == PIPELINE_AWAY)
		answer->error = -ENOTCONN;
	else
		ask(p, question, hooks, arg, answer);
	/* The asker has given up; what it asked for has been done all the same. */
	if (p->mood == PIPELINE_SILENT) {
		json_decref(answer->json);
		memset(answer, 0, sizeof(*answer));
		answer->error = -ETIMEDOUT;
	}
	if (hooks && hooks->release)
		hooks->release(arg);
	json_decref(question);
	return answer->error;
}

/* It is answered as it is asked: what the asker does in between changes nothing here. */
struct question {
	struct pipeline_answer answer;
};

struct question *pipeline_ask_start(
	struct pipeline *p, json_t *question, const struct pipeline_hooks *hooks, void *arg, int *error)
{
	struct question *asked = calloc(1, sizeof(*asked));

	CHECK(asked, "no memory");
	*error = pipeline_ask(p, question, hooks, arg, &asked->answer);
	if (*error != -ENOTCONN) {
		*error = 0;
		return asked;
	}
	free(asked);
	return NULL;
}

int pipeline_ask_wait(struct pipeline *p, struct question *question, struct pipeline_answer *answer)
{
	(void)p;
	*answer = question->answer;
	free(question);
	return answer->error;
}

int pipeline_tell(struct pipeline *p, json_t *question, const struct pipeline_hooks *hooks, void *arg)
{
	struct pipeline_answer answer = {.error = p->mood == PIPELINE_AWAY ? -ENOTCONN : 0};

	CHECK(question, "no question was made");
	if (!answer.error)
		ask(p, question, hooks, arg, &answer);
	else if (hooks && hooks->complete)
		hooks->complete(p->d, arg, &answer);
	if (hooks && hooks->release)
		hooks->release(arg);
	json_decref(answer.json);
	json_decref(question);
	return 0;
}

static void store_order(struct pipeline *p, const struct sluice_admitted *record)
{
	const struct sluice_admission *admission = &record->admission;
	struct sale_counts *counts = sales_counts(p->d->sales, admission->sale);
	struct wire_admit wire = {.serial = record->serial,
		.buyer = admission->buyer,
		.source = admission->source,
		.admitted_wall_ns = admission->admitted_wall,
		.sale = admission->sale,
		.network = admission->network,
		.quantity = admission->quantity};
	struct store_refused refused;
	struct order_ack settled;
	struct wire_ack ack;
	struct sale sale;
	int err;

	settled.order = orders_queue(p->d->orders, record->serial, admission, counts, false, &err);
	CHECK(settled.order && !err, "an admission came twice");
	CHECK(!sales_find_id(p->d->sales, admission->sale, &sale), "an admission of no sale");
	wire.hold_seconds = settled.order->hold_seconds = sale.hold_seconds;
	CHECK(!p->store->ops->admit(p->store, &wire, 1, time_wall_ns(), &ack, &refused), "%s", p->store->error);
	CHECK(ack.status == WIRE_ACK_STORED, "status %u", ack.status);
	settled.seq = ack.seq;
	settled.committed_ns = ack.committed_wall_ns;
	settled.state = order_state_of_wire(ack.order_state);
	settled.known = false;
	settled.counts = counts;
	p->durable++;
	p->d->maps.control->in_flight--;
	orders_settle(p->d->orders, &settled, 1);
}

void pipeline_step(struct daemon *d)
{
	struct sluice_admitted record;

	while (shim_ring_take(shim_map_find("ring"), &record, sizeof(record)))
		store_order(d->pipeline, &record);
}

void pipeline_submit(struct pipeline *p, uint64_t serial, const struct sluice_admission *admission)
{
	(void)p;
	(void)admission;
	CHECK(false, "admission %llx was lost", (unsigned long long)serial);
}

void pipeline_compare_anew(struct pipeline *p)
{
	(void)p;
	CHECK(false, "gate and ledger must be compared anew");
}

void pipeline_status(struct pipeline *p, struct pipeline_status *status)
{
	memset(status, 0, sizeof(*status));
	status->connected = status->open = p->mood != PIPELINE_AWAY;
	snprintf(status->ledger, sizeof(status->ledger), "/ledger.db");
	snprintf(status->store, sizeof(status->store), "memory");
	status->backlog = p->d->maps.control->in_flight;
	status->durable = p->durable;
}

int pipeline_compare(struct pipeline *p)
{
	return p->mood == PIPELINE_WELL ? 0 : -ENOTCONN;
}

/* Start and stop, of which main.c has the calls; a fuzz target does neither. */
int pipeline_start(struct daemon *d, char *error, size_t error_size)
{
	(void)d;
	(void)error;
	(void)error_size;
	return -ENOSYS;
}

void pipeline_drain(struct daemon *d, unsigned drain_ms)
{
	(void)d;
	(void)drain_ms;
}

void pipeline_stop(struct daemon *d)
{
	(void)d;
}

void pipeline_free(struct daemon *d)
{
	(void)d;
}
