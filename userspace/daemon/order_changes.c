/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Changes of orders: one question to the ledger, and on the pipeline's thread what follows from its answer. Called by the order routes and, for
 * holds whose time is over, by maintenance.c.
 *
 * The ledger decides on every change, whoever asks and however often. What the gate has to do is told by the order table, which knows whether
 * the gate counts the units of an order as taken (orders.h): so an answer that comes again, late, or after a restart gives nothing back
 * twice. Only a late confirmation works the other way round: it takes the units out of the gate before the ledger is asked, or
 * the judge could sell them meanwhile.
 */
#include "daemon/order_changes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "daemon/maintenance.h"
#include "daemon/order_facts.h"
#include "daemon/orders.h"
#include "daemon/sales.h"
#include "sluice/plant.h"

/* Holds that expire in one transaction: some 10 ms, for which admissions wait. */
#define EXPIRE_MAX 500
/* Another CPU works on the same word; that takes no time. */
#define GATE_TRIES 16

struct item {
	struct order_change change;
	bool begun;
};

struct changes {
	void (*done)(struct daemon *d, void *arg, const struct pipeline_answer *answer);
	void *done_arg;
	bool has_patience; /* `done` need not be told before there is an answer */
	unsigned count;
	struct item items[];
};

static struct changes *changes_new(unsigned count)
{
	struct changes *changes = calloc(1, sizeof(*changes) + count * sizeof(changes->items[0]));

	if (changes)
		changes->count = count;
	return changes;
}

/* --- the gate -------------------------------------------------------------------------------------------------------------- */
static int call_gate(struct daemon *d, const struct order_view *order, enum sluice_call_op op, unsigned flags)
{
	struct sluice_call call;
	int err;

	for (int i = 0; i < GATE_TRIES; i++) {
		memset(&call, 0, sizeof(call));
		call.op = op;
		call.flags = flags;
		call.admission = order->admission;
		err = gate_maps_call(&d->maps, &call);
		if (err)
			return err;
		if (call.reason != SLUICE_REASON_CONTENDED)
			break;
	}
	switch (call.reason) {
	case SLUICE_REASON_NONE:
		return 0;
	case SLUICE_REASON_UNKNOWN_SALE:
		return -ENOENT;
	case SLUICE_REASON_UNITS_ELSEWHERE:
		return -EBUSY;
	case SLUICE_REASON_REQUEST: /* a door of before these operations */
		return -ENOSYS;
	default:
		return -ENOSPC;
	}
}

/* Also in a sale that has long been over, whose stock maintenance sets by the ledger's figures: the clock that says so may be wrong, and back a
 * moment later. Both are done on the pipeline's thread in the order in which the ledger has answered, so that neither spoils the other.
 */
static void give_back(struct daemon *d, const struct order_view *order, enum order_units units)
{
	int err = call_gate(d, order, SLUICE_CALL_RELEASE, units == ORDER_UNITS_LEAVE ? SLUICE_CALL_KEEP : 0);

	if (!err)
		return;
	log_error("the gate could not take the units of an order back (%s): gate and ledger are compared anew%s",
		strerror(-err), err == -ENOSYS ? ". The gate is of an older program: sluice reload" : "");
	pipeline_compare_anew(d->pipeline);
}

/* --- before the ledger is asked -------------------------------------------------------------------------------------------- */
/* An order that is over is paid after all: its units, and its buyer's right to them, are claimed as the judge does it. */
static int reclaim(struct daemon *d, const struct order_view *order)
{
	struct sale sale;
	int err;

	if (sales_find_id(d->sales, order->admission.sale, &sale))
		return 0;
	sale_counts_change_begin(sale.counts);
	err = call_gate(d, order, SLUICE_CALL_RECLAIM, 0);
	if (!err)
		orders_change_reclaimed(d->orders, order->serial, sale.counts);
	sale_counts_change_end(sale.counts);
	/* No slot in the gate: then the books alone decide. */
	return err == -ENOENT ? 0 : err;
}

static void end_item(struct daemon *d, struct item *item, const struct order_facts *facts);

/* Runs just before the question goes out. Only a question with one change can be refused here. */
static int prepare(struct daemon *d, void *arg)
{
	struct changes *changes = arg;

	for (unsigned i = 0; i < changes->count; i++) {
		struct item *item = &changes->items[i];
		struct order_view order;
		int err = orders_change_begin(d->orders, item->change.serial, &order);

		item->begun = !err;
		if (err == -EAGAIN && changes->count == 1)
			return err;
		if (err || item->change.action != ORDER_CONFIRM || order.state != ORDER_EXPIRED || order.in_gate)
			continue;
		err = planted(late_payment_takes_no_unit) ? 0 : reclaim(d, &order);
		if (err) {
			end_item(d, item, NULL);
			return err;
		}
	}
	return 0;
}

/* --- the ledger's answer --------------------------------------------------------------------------------------------------- */
static void end_item(struct daemon *d, struct item *item, const struct order_facts *facts)
{
	struct order_view order;
	enum order_units units;
	struct sale sale;
	bool known;

	item->begun = false;
	if (orders_find(d->orders, item->change.serial, &order))
		return;
	known = !sales_find_id(d->sales, order.admission.sale, &sale);
	sale_counts_change_begin(known ? sale.counts : NULL);
	units = orders_change_end(d->orders, item->change.serial, facts, known ? sale.counts : NULL);
	if (planted(double_release) && facts && facts->state == ORDER_CANCELLED)
		units = ORDER_UNITS_RETURN;
	if (units != ORDER_UNITS_STAY && known)
		give_back(d, &order, units);
	sale_counts_change_end(known ? sale.counts : NULL);
}

static void complete(struct daemon *d, void *arg, const struct pipeline_answer *answer)
{
	struct changes *changes = arg;
	json_t *results = json_object_get(answer->json, "results");
	bool told = !answer->error, unknown = false;

	for (unsigned i = 0; i < changes->count; i++) {
		json_t *json = json_object_get(json_array_get(results, i), "order");
		struct told_order order;
		bool has_order =
			told && !order_facts_read(json, &order) && order.serial == changes->items[i].change.serial;

		/* What an answer that cannot be read has changed, only the ledger can tell. */
		if (told && !has_order && !json_is_null(json)) {
			log_error("the order writer's answer to a change of orders cannot be read");
			pipeline_compare_anew(d->pipeline);
		}
		unknown |= has_order && !changes->items[i].begun;
		if (changes->items[i].begun)
			end_item(d, &changes->items[i], has_order ? &order.facts : NULL);
	}
	/* Orders that are in the ledger alone: the figures of their sales are, too. */
	if (unknown)
		maintenance_ask_figures(d);
	if (changes->done)
		changes->done(d, changes->done_arg, answer);
}

/* The buyer goes; table and gate wait for what the ledger says. */
static void late(struct daemon *d, void *arg)
{
	const struct pipeline_answer answer = {.error = -ETIMEDOUT};
	struct changes *changes = arg;

	if (!changes->done || changes->has_patience)
		return;
	changes->done(d, changes->done_arg, &answer);
	changes->done = NULL;
}

static const struct pipeline_hooks change_hooks = {
	.changes = true, .prepare = prepare, .late = late, .complete = complete, .release = free};

/* --- asking ---------------------------------------------------------------------------------------------------------------- */
static json_t *change_json(const struct order_change *change, const char *by)
{
	static const char *const actions[] = {
		[ORDER_CONFIRM] = "confirm",
		[ORDER_CANCEL] = "cancel",
		[ORDER_EXPIRE] = "expire",
		[ORDER_REFUND] = "refund",
	};
	char id[ORDER_ID_DIGITS + 1];
	json_t *json = json_pack("{s:s, s:s, s:s}", "id", order_id_text(change->serial, id), "action",
		actions[change->action], "by", by);

	if (change->action == ORDER_REFUND)
		json_object_set_new(json, "restock", json_boolean(change->restock));
	return json;
}

static json_t *question_of(const struct changes *changes, const char *by)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < changes->count; i++)
		json_array_append_new(list, change_json(&changes->items[i].change, by));
	return json_pack("{s:s, s:o}", "op", "orders_change", "changes", list);
}

int order_change_ask(struct daemon *d, const struct order_change *change, const struct order_once *once,
	struct pipeline_answer *answer)
{
	struct changes *changes = changes_new(1);
	json_t *question;

	memset(answer, 0, sizeof(*answer));
	if (!changes)
		return answer->error = -ENOMEM;
	changes->items[0].change = *change;
	question = question_of(changes, "shop");
	if (once)
		json_object_set_new(
			question, "once", json_pack("{s:s, s:s}", "key", once->key, "fingerprint", once->fingerprint));
	return pipeline_ask(d->pipeline, question, &change_hooks, changes, answer);
}

int order_cancel_tell(struct daemon *d, uint64_t serial,
	void (*done)(struct daemon *d, void *arg, const struct pipeline_answer *answer), void *arg)
{
	struct changes *changes = changes_new(1);

	if (!changes)
		return -ENOMEM;
	changes->items[0].change = (struct order_change){.serial = serial, .action = ORDER_CANCEL};
	changes->done = done;
	changes->done_arg = arg;
	return pipeline_tell(d->pipeline, question_of(changes, "buyer"), &change_hooks, changes);
}

/* --- holds whose time is over ---------------------------------------------------------------------------------------------- */
static atomic_bool expiring; /* a question or a change of this kind is on its way */

static void ask_due(struct daemon *d);

/* What was more than one transaction could take goes on at once; what could not be expired waits for the next step. */
static void on_expired(struct daemon *d, void *arg, const struct pipeline_answer *answer)
{
	json_t *result;
	bool moved = false;
	size_t i;

	(void)arg;
	json_array_foreach(json_object_get(answer->json, "results"), i, result) {
		const char *word = json_string_value(json_object_get(result, "result"));

		moved |= word && !strcmp(word, "changed");
	}
	if (moved)
		ask_due(d);
	else
		atomic_store(&expiring, false);
}

static void on_due(struct daemon *d, void *arg, const struct pipeline_answer *answer)
{
	json_t *list = json_object_get(answer->json, "orders"), *json;
	struct changes *changes = json_array_size(list) ? changes_new((unsigned)json_array_size(list)) : NULL;
	unsigned count = 0;
	size_t i;

	(void)arg;
	json_array_foreach(list, i, json) {
		struct told_order order;

		if (changes && !order_facts_read(json, &order))
			changes->items[count++].change =
				(struct order_change){.serial = order.serial, .action = ORDER_EXPIRE};
	}
	if (!count) {
		free(changes);
		/* A question looks at so many orders only, and all of them may have been confirmed. The ledger does not look at those again, so this ends. */
		if (!json_array_size(list) && json_is_true(json_object_get(answer->json, "more")))
			ask_due(d);
		else
			atomic_store(&expiring, false);
		return;
	}
	changes->count = count;
	changes->done = on_expired;
	changes->has_patience = true;
	if (pipeline_tell(d->pipeline, question_of(changes, "time"), &change_hooks, changes))
		atomic_store(&expiring, false);
}

static const struct pipeline_hooks due_hooks = {.complete = on_due};

static void ask_due(struct daemon *d)
{
	if (pipeline_tell(
		    d->pipeline, json_pack("{s:s, s:i}", "op", "orders_due", "limit", EXPIRE_MAX), &due_hooks, NULL))
		atomic_store(&expiring, false);
}

void order_expiry_step(struct daemon *d)
{
	if (!atomic_exchange(&expiring, true))
		ask_due(d);
}
