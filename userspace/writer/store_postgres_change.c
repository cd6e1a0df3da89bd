/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* How orders end, in the PostgreSQL store: up to STORE_CHANGES_MAX changes in one transaction.
 *
 * As with a batch of admissions: one round trip for what must be known, then every change is judged in turn on what the ones
 * before it have made, then the orders, the events, the movements of stock and the sums are written, each table by one
 * statement.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "writer/store_postgres.h"

#define REFUND_REASON "refunded, not restocked"

struct changing {
	struct postgres *pg;
	const struct store_change *changes;
	struct store_changed *results;
	unsigned count;
	uint64_t now_ns;
	int64_t position;
	/* one for each change, at most */
	struct {
		struct store_order order; /* as the changes so far have made it */
		bool changed;
	} * orders;
	unsigned order_count;
	unsigned events;
	unsigned moves;
};

enum {
	EVENT_TYPES,
	EVENT_SALES,
	EVENT_SERIALS,
	EVENT_BYS,
	EVENT_RESTOCKED,
	MOVE_KEYS,
	MOVE_SALES,
	MOVE_DELTAS,
	ROW_0,
	ROW_1,
	ROW_2,
	ROW_3,
	ROW_4,
	ARRAYS
};
_Static_assert(ARRAYS <= POSTGRES_ARRAYS, "arrays of the changes");

/* --- what must be known -------------------------------------------------------------------------------------------------- */
static int look_up(struct changing *all)
{
	static const char doing[] = "look up orders";
	struct postgres *pg = all->pg;
	struct link_values serials = {.count = 0};
	PGresult *position = NULL, *sales = NULL, *orders = NULL, *units = NULL;
	int code;

	postgres_begin_arrays(pg, 1, 0);
	for (unsigned i = 0; i < all->count; i++)
		link_array_add_integer(&pg->arrays[0], (int64_t)all->changes[i].serial);
	link_put_array(&serials, &pg->arrays[0]);
	if (postgres_queue(pg, POSTGRES_LAST_POSITION, NULL) ||
		postgres_queue(pg, POSTGRES_SALES_OF_SERIALS, &serials) ||
		postgres_queue(pg, POSTGRES_ORDERS_OF_SERIALS, &serials) ||
		postgres_queue(pg, POSTGRES_UNITS_OF_SERIALS, &serials) || postgres_send(pg))
		return -EIO;
	code = postgres_take(pg, doing, &position);
	if (!code)
		code = postgres_take(pg, doing, &sales);
	if (!code)
		code = postgres_take(pg, doing, &orders);
	if (!code)
		code = postgres_take(pg, doing, &units);
	if (!code)
		code = postgres_finish(pg);
	if (code)
		goto out;
	all->position = link_integer(position, 0, 0);
	postgres_read_sales(pg, sales);
	for (int row = 0; row < PQntuples(orders); row++) {
		struct store_order *order = &all->orders[all->order_count++].order;

		postgres_read_order(orders, row, 0, order);
		*tally_value(&pg->tally, TALLY_SERIAL, 0, order->serial) = all->order_count;
		if (!*tally_value(&pg->tally, TALLY_SALE, 0, order->sale)) {
			code = postgres_fail(pg, doing, "one of them belongs to no sale");
			goto out;
		}
	}
	for (int row = 0; row < PQntuples(units); row++) {
		int64_t ordinal = *tally_value(&pg->tally, TALLY_SERIAL, 0, (uint64_t)link_integer(units, row, 0));
		const struct store_order *order;

		/* Each statement sees what was committed before it. */
		if (!ordinal) {
			code = postgres_fail(pg, doing, "somebody else has put one of them in");
			goto out;
		}
		order = &all->orders[ordinal - 1].order;
		*tally_value(&pg->tally, TALLY_BUYER, order->sale, order->buyer) = link_integer(units, row, 1);
	}
out:
	PQclear(position);
	PQclear(sales);
	PQclear(orders);
	PQclear(units);
	return code;
}

/* --- one change ---------------------------------------------------------------------------------------------------------- */
static void add_units(struct postgres_sale *entry, enum wire_order_state state, int64_t units)
{
	if (state == WIRE_ORDER_HELD) {
		entry->held += units;
		entry->sale.held += units;
	} else if (state == WIRE_ORDER_CONFIRMED) {
		entry->confirmed += units;
		entry->sale.confirmed += units;
	}
}

/* A refund whose units do not come back takes them out of the stock, so that what is free stays as it is. */
static void take_out_of_stock(struct changing *all, struct postgres_sale *entry, const struct store_order *order)
{
	struct link_array *arrays = all->pg->arrays;
	char key[STORE_KEY_MAX + 1];

	snprintf(key, sizeof(key), STORE_REFUND_KEY "%016" PRIx64, order->serial);
	entry->put_in -= order->quantity;
	entry->sale.put_in -= order->quantity;
	link_array_add_text(&arrays[MOVE_KEYS], key);
	link_array_add_integer(&arrays[MOVE_SALES], order->sale);
	link_array_add_integer(&arrays[MOVE_DELTAS], -(int64_t)order->quantity);
	all->moves++;
}

static void note_event(struct changing *all, const struct store_order *order)
{
	struct link_array *arrays = all->pg->arrays;

	link_array_add_text(&arrays[EVENT_TYPES], store_event_word(store_event_of_state(order->state)));
	link_array_add_integer(&arrays[EVENT_SALES], order->sale);
	link_array_add_integer(&arrays[EVENT_SERIALS], (int64_t)order->serial);
	link_array_add_text(&arrays[EVENT_BYS], store_by_word(order->resolved_by));
	link_array_add_integer(&arrays[EVENT_RESTOCKED], order->restocked);
	all->events++;
}

static enum store_result change_order(
	struct changing *all, const struct store_change *change, struct store_order *order)
{
	struct tally *tally = &all->pg->tally;
	struct postgres_sale *entry = &all->pg->sales[*tally_value(tally, TALLY_SALE, 0, order->sale) - 1];
	int64_t *units = tally_value(tally, TALLY_BUYER, order->sale, order->buyer);
	bool was_live = store_state_is_live(order->state), is_live;
	enum wire_order_state to;
	enum store_result result = store_change_judge(order, change, all->now_ns, &to);

	if (result != STORE_CHANGED)
		return result;
	is_live = store_state_is_live(to);
	if (is_live && !was_live &&
		(entry->sale.put_in - entry->sale.held - entry->sale.confirmed < order->quantity ||
			*units + order->quantity > entry->sale.per_buyer))
		return STORE_NO_UNIT;
	*units += ((int64_t)is_live - (int64_t)was_live) * order->quantity;
	add_units(entry, order->state, -(int64_t)order->quantity);
	add_units(entry, to, order->quantity);
	order->state = to;
	order->resolved_ns = all->now_ns;
	order->resolved_by = change->by;
	order->restocked = to == WIRE_ORDER_REFUNDED && change->restock;
	if (to == WIRE_ORDER_REFUNDED && !change->restock)
		take_out_of_stock(all, entry, order);
	note_event(all, order);
	return STORE_CHANGED;
}

static void judge_all(struct changing *all)
{
	postgres_begin_arrays(
		all->pg, ARRAYS, 1u << EVENT_TYPES | 1u << EVENT_BYS | 1u << MOVE_KEYS | 1u << ROW_1 | 1u << ROW_3);
	for (unsigned i = 0; i < all->count; i++) {
		int64_t ordinal = *tally_value(&all->pg->tally, TALLY_SERIAL, 0, all->changes[i].serial);

		all->results[i] = (struct store_changed){.result = STORE_NOT_FOUND};
		if (!ordinal)
			continue;
		all->results[i].result = change_order(all, &all->changes[i], &all->orders[ordinal - 1].order);
		all->results[i].order = all->orders[ordinal - 1].order;
		all->orders[ordinal - 1].changed |= all->results[i].result == STORE_CHANGED;
	}
}

/* --- what is written ----------------------------------------------------------------------------------------------------- */
static int write_orders(struct changing *all)
{
	struct link_array *rows = &all->pg->arrays[ROW_0];
	struct link_values values = {.count = 0};
	unsigned changed = 0;

	for (unsigned i = 0; i < all->order_count; i++) {
		const struct store_order *order = &all->orders[i].order;

		if (!all->orders[i].changed)
			continue;
		link_array_add_integer(&rows[0], (int64_t)order->serial);
		link_array_add_text(&rows[1], store_state_word(order->state));
		link_array_add_integer(&rows[2], (int64_t)order->resolved_ns);
		link_array_add_text(&rows[3], store_by_word(order->resolved_by));
		link_array_add_integer(&rows[4], order->restocked);
		changed++;
	}
	for (unsigned i = 0; i < 5; i++)
		link_put_array(&values, &rows[i]);
	return postgres_change(all->pg, POSTGRES_ORDERS_RESOLVE, &values, "change orders", changed);
}

static int write_events(struct changing *all)
{
	struct link_values values = {.count = 0};

	link_put_integer(&values, all->position);
	link_put_integer(&values, (int64_t)all->now_ns);
	for (unsigned i = EVENT_TYPES; i <= EVENT_RESTOCKED; i++)
		link_put_array(&values, &all->pg->arrays[i]);
	return postgres_change(all->pg, POSTGRES_EVENTS_ADD, &values, "record events", all->events);
}

static int write_moves(struct changing *all)
{
	struct link_values values = {.count = 0};

	for (unsigned i = MOVE_KEYS; i <= MOVE_DELTAS; i++)
		link_put_array(&values, &all->pg->arrays[i]);
	link_put_integer(&values, (int64_t)all->now_ns);
	link_put_text(&values, REFUND_REASON);
	return postgres_change(all->pg, POSTGRES_MOVES_ADD, &values, "record stock movements", all->moves);
}

static int write_sums(struct changing *all)
{
	struct postgres *pg = all->pg;
	struct link_values values = {.count = 0};
	unsigned changed = 0;

	postgres_begin_arrays(pg, 4, 0);
	for (unsigned i = 0; i < pg->sale_count; i++) {
		const struct postgres_sale *entry = &pg->sales[i];

		if (!entry->put_in && !entry->held && !entry->confirmed)
			continue;
		link_array_add_integer(&pg->arrays[0], entry->sale.id);
		link_array_add_integer(&pg->arrays[1], entry->put_in);
		link_array_add_integer(&pg->arrays[2], entry->held);
		link_array_add_integer(&pg->arrays[3], entry->confirmed);
		changed++;
	}
	for (unsigned i = 0; i < 4; i++)
		link_put_array(&values, &pg->arrays[i]);
	return postgres_change(pg, POSTGRES_SALES_ADJUST, &values, "write the sums of sales", changed);
}

int postgres_orders_change(struct store *store, const struct store_change *changes, unsigned count, uint64_t now_ns,
	struct store_changed *results)
{
	struct postgres *pg = postgres_of(store);
	struct changing all = {.pg = pg, .changes = changes, .results = results, .count = count, .now_ns = now_ns};
	int code;

	if (count > STORE_CHANGES_MAX)
		return store_explain(
			pg->base.error, -EINVAL, "at most %d orders are changed at once", STORE_CHANGES_MAX);
	all.orders = calloc(count ? count : 1, sizeof(*all.orders));
	if (!all.orders)
		return store_explain(pg->base.error, -EIO, "no memory for %u changes", count);
	code = postgres_begin(pg);
	if (!code)
		code = look_up(&all);
	if (!code) {
		judge_all(&all);
		if (all.events)
			code = write_orders(&all);
		if (!code && all.events)
			code = write_events(&all);
		if (!code && all.moves)
			code = write_moves(&all);
		if (!code && all.events)
			code = write_sums(&all);
	}
	free(all.orders);
	return postgres_end(pg, code);
}
