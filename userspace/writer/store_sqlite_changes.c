/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What becomes of orders in the SQLite store: confirmed, cancelled, expired, refunded, each with its event, in one
 * transaction; and which holds are over.
 *
 * Guard and sums follow within the transaction, so that of two changes in one batch the second sees what the first
 * did: the last unit is given to one late payment, not to two. What the transaction did to the guard is thrown away
 * with it (ledger_rollback).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "writer/store_sqlite.h"

struct change {
	struct ledger_batch *batch;
	struct ledger_batch_sale *sale;
	struct store_order *order;
	int64_t position; /* of the order */
};

/* Whether an expired order may have its units again: they must be free, and the buyer below his limit. */
static bool can_reclaim(const struct change *change)
{
	const struct store_sale *sale = &change->sale->sale;
	const struct store_order *order = change->order;

	return order->quantity <= sale->put_in - sale->held - sale->confirmed &&
		(uint64_t)guard_units(&change->batch->ledger->guard, order->sale, order->buyer) + order->quantity <=
		sale->per_buyer;
}

/* Takes the units of a refund that is not restocked out of the stock. */
static int take_out_units(const struct change *change)
{
	const struct store_order *order = change->order;
	struct store_move move = {
		.sale = order->sale, .delta = -(int64_t)order->quantity, .reason = "refunded, not restocked"};

	snprintf(move.key, sizeof(move.key), STORE_REFUND_KEY "%016" PRIx64, order->serial);
	change->sale->sale.put_in += move.delta;
	return ledger_move_insert(change->batch->ledger, &move, change->batch->now_ns);
}

static int write_order(const struct change *change)
{
	const struct store_order *order = change->order;
	sqlite3_stmt *statement = ledger_statement(change->batch->ledger, LEDGER_ORDER_CHANGE);

	sqlite3_bind_int64(statement, 1, change->position);
	sqlite3_bind_text(statement, 2, store_state_word(order->state), -1, SQLITE_STATIC);
	sqlite3_bind_int64(statement, 3, (int64_t)order->resolved_ns);
	sqlite3_bind_text(statement, 4, store_by_word(order->resolved_by), -1, SQLITE_STATIC);
	sqlite3_bind_int(statement, 5, order->restocked);
	return ledger_step_done(statement) ? ledger_fail(change->batch->ledger, "change an order") : 0;
}

/* Brings the order into a state that it may have: sums, guard, row, event. Returns 0 or -EIO. */
static int apply(const struct change *change, const struct store_change *wanted, enum wire_order_state to)
{
	struct ledger_batch *batch = change->batch;
	struct store_sale *sale = &change->sale->sale;
	struct store_order *order = change->order;
	bool was_live = store_state_is_live(order->state), is_live = store_state_is_live(to);
	struct store_event event = {.position = batch->position + 1,
		.type = store_event_of_state(to),
		.sale = order->sale,
		.at_ns = batch->now_ns};
	int code;

	sale->held -= order->state == WIRE_ORDER_HELD ? order->quantity : 0;
	sale->confirmed -= order->state == WIRE_ORDER_CONFIRMED ? order->quantity : 0;
	sale->confirmed += to == WIRE_ORDER_CONFIRMED ? order->quantity : 0;
	change->sale->changed = true;
	if (was_live != is_live) {
		batch->ledger->guard_changed = true;
		guard_change(&batch->ledger->guard, order->sale, order->buyer,
			is_live ? (int64_t)order->quantity : -(int64_t)order->quantity);
	}
	order->state = to;
	order->resolved_ns = batch->now_ns;
	order->resolved_by = wanted->by;
	order->restocked = to == WIRE_ORDER_REFUNDED && wanted->restock;
	code = to == WIRE_ORDER_REFUNDED && !wanted->restock ? take_out_units(change) : 0;
	if (!code)
		code = write_order(change);
	if (!code)
		code = ledger_event_insert(batch->ledger, &event, change->position, wanted->by);
	batch->position++;
	return code;
}

/* Returns 0 with the result, or -EIO. */
static int change_order(struct ledger_batch *batch, const struct store_change *wanted, struct store_changed *changed)
{
	struct ledger *ledger = batch->ledger;
	struct change change = {.batch = batch, .order = &changed->order};
	enum wire_order_state to;
	int code;

	*changed = (struct store_changed){.result = STORE_NOT_FOUND};
	change.position = guard_find(&ledger->guard, wanted->serial);
	if (!change.position)
		return 0;
	code = ledger_order_at(ledger, change.position, change.order);
	if (!code)
		code = ledger_batch_sale(batch, change.order->sale, &change.sale);
	if (code)
		return code;
	changed->result = store_change_judge(change.order, wanted, batch->now_ns, &to);
	if (changed->result != STORE_CHANGED)
		return 0;
	if (change.order->state == WIRE_ORDER_EXPIRED && !can_reclaim(&change)) {
		changed->result = STORE_NO_UNIT;
		return 0;
	}
	return apply(&change, wanted, to);
}

int ledger_orders_change(struct store *store, const struct store_change *changes, unsigned count, uint64_t now_ns,
	struct store_changed *results)
{
	struct ledger *ledger = ledger_of(store);
	struct ledger_batch batch;
	int code;

	if (count > STORE_CHANGES_MAX)
		return store_explain(
			ledger->base.error, -EINVAL, "a question has at most %d changes", STORE_CHANGES_MAX);
	code = ledger_begin(ledger);
	if (!code)
		code = ledger_batch_begin(&batch, ledger, now_ns);
	for (unsigned i = 0; !code && i < count; i++)
		code = change_order(&batch, &changes[i], &results[i]);
	if (!code)
		code = ledger_batch_write_sums(&batch);
	return code ? code : ledger_commit(ledger);
}

/* Takes what is over out of the heap, which is the only way to walk it in order, and puts back what is still held. What
 * is not held any more stays out: it can never be held again.
 */
int ledger_orders_due(
	struct store *store, uint64_t now_ns, unsigned limit, store_order_visit visit, void *arg, bool *more)
{
	struct ledger *ledger = ledger_of(store);
	struct due_entry *kept = calloc(limit, sizeof(*kept));
	const struct due_entry *first = NULL;
	unsigned found = 0;
	bool stop = false;
	int code;

	*more = false;
	if (!kept)
		return store_explain(ledger->base.error, -ENOMEM, "no memory for %u orders", limit);
	code = ledger_begin(ledger);
	for (unsigned looked = 0; !code && !stop; looked++) {
		struct store_order order;

		first = due_first(&ledger->due);
		if (!first || first->at_ns > now_ns)
			break;
		if (found == limit || looked == STORE_LIST_SCAN_MAX) {
			*more = true;
			break;
		}
		code = ledger_order_at(ledger, first->position, &order);
		if (code)
			break;
		kept[found] = due_take(&ledger->due);
		if (order.state != WIRE_ORDER_HELD)
			continue;
		found++;
		stop = visit(&order, arg);
	}
	/* After a failure the heap is empty, and is filled when the ledger is opened again. */
	for (unsigned i = 0; !code && i < found; i++)
		due_add(&ledger->due, kept[i]);
	free(kept);
	return code ? code : ledger_commit(ledger);
}
