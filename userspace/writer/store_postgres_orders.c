/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Reading orders and events back from the PostgreSQL store.
 *
 * A page looks at no more than STORE_LIST_SCAN_MAX rows: the inner LIMIT of the statements. When it finds fewer than it may hold, a second
 * statement asks whether there are rows beyond those it looked at, and where to go on.
 */
#include <errno.h>

#include "writer/store_postgres.h"

void postgres_read_order(const PGresult *result, int row, int column, struct store_order *order)
{
	order->serial = (uint64_t)link_integer(result, row, column);
	order->sale = (uint32_t)link_integer(result, row, column + 1);
	order->quantity = (uint32_t)link_integer(result, row, column + 2);
	order->network = (uint32_t)link_integer(result, row, column + 3);
	order->hold_seconds = (uint32_t)link_integer(result, row, column + 4);
	order->seq = link_integer(result, row, column + 5);
	order->buyer = (uint64_t)link_integer(result, row, column + 6);
	order->admitted_ns = (uint64_t)link_integer(result, row, column + 7);
	order->committed_ns = (uint64_t)link_integer(result, row, column + 8);
	order->expires_ns = (uint64_t)link_integer(result, row, column + 9);
	order->resolved_ns = (uint64_t)link_integer(result, row, column + 10);
	order->state = (enum wire_order_state)store_state_of_word(link_text(result, row, column + 11));
	order->resolved_by = (enum store_by)store_by_of_word(link_text(result, row, column + 12));
	order->restocked = link_bool(result, row, column + 13);
	link_copy_text(order->source, sizeof(order->source), result, row, column + 14);
}

static bool is_filtered(const struct store_order_filter *filter)
{
	return filter->state || filter->of_buyer || filter->from_ns || filter->to_ns;
}

/* Where a page goes on that found fewer than it may hold; 0 = it is the last. */
static int find_beyond(struct postgres *pg, const struct store_order_filter *filter, int64_t *next)
{
	struct link_values values = {.count = 0};
	PGresult *rows;
	int code;

	link_put_integer(&values, filter->after);
	link_put_integer(&values, STORE_LIST_SCAN_MAX);
	if (filter->sale)
		link_put_integer(&values, filter->sale);
	code = postgres_run(
		pg, filter->sale ? POSTGRES_BEYOND_OF_SALE : POSTGRES_BEYOND_OF_ALL, &values, "list orders", &rows);
	if (!code && PQntuples(rows) == 2)
		*next = link_integer(rows, 0, 0);
	PQclear(rows);
	return code;
}

int postgres_orders_list(
	struct store *store, const struct store_order_filter *filter, store_order_visit visit, void *arg, int64_t *next)
{
	struct postgres *pg = postgres_of(store);
	struct link_values values = {.count = 0};
	PGresult *rows = NULL;
	int code = postgres_begin_reading(pg);
	int found, shown;

	*next = 0;
	if (code)
		return code;
	link_put_integer(&values, filter->after);
	link_put_integer(&values, STORE_LIST_SCAN_MAX);
	link_put_text(&values, store_state_word((enum wire_order_state)filter->state));
	link_put_integer(&values, filter->of_buyer);
	link_put_integer(&values, (int64_t)filter->buyer);
	link_put_integer(&values, (int64_t)filter->from_ns);
	link_put_integer(&values, filter->to_ns ? (int64_t)filter->to_ns : INT64_MAX);
	link_put_integer(&values, (int64_t)filter->limit + 1);
	if (filter->sale)
		link_put_integer(&values, filter->sale);
	code = postgres_run(
		pg, filter->sale ? POSTGRES_ORDERS_OF_SALE : POSTGRES_ORDERS_OF_ALL, &values, "list orders", &rows);
	if (code)
		return code;
	found = PQntuples(rows);
	shown = found > (int)filter->limit ? (int)filter->limit : found;
	if (found > shown)
		*next = link_integer(rows, shown - 1, 0);
	else if (is_filtered(filter))
		code = find_beyond(pg, filter, next);
	code = postgres_end(pg, code);
	for (int row = 0; !code && row < shown; row++) {
		struct store_order order;

		postgres_read_order(rows, row, 1, &order);
		if (visit(&order, arg))
			break;
	}
	PQclear(rows);
	return code;
}

int postgres_orders_due(
	struct store *store, uint64_t now_ns, unsigned limit, store_order_visit visit, void *arg, bool *more)
{
	struct postgres *pg = postgres_of(store);
	struct link_values values = {.count = 0};
	PGresult *rows = NULL;
	int code = postgres_begin_reading(pg);

	*more = false;
	if (code)
		return code;
	link_put_integer(&values, (int64_t)now_ns);
	link_put_integer(&values, (int64_t)limit + 1);
	code = postgres_run(pg, POSTGRES_ORDERS_DUE, &values, "look for orders whose time is over", &rows);
	code = postgres_end(pg, code);
	if (!code)
		*more = PQntuples(rows) > (int)limit;
	for (int row = 0; !code && row < PQntuples(rows) && row < (int)limit; row++) {
		struct store_order order;

		postgres_read_order(rows, row, 0, &order);
		if (visit(&order, arg))
			break;
	}
	PQclear(rows);
	return code;
}

int postgres_order_get(struct store *store, uint64_t serial, struct store_order *order)
{
	struct postgres *pg = postgres_of(store);
	struct link_values values = {.count = 0};
	PGresult *rows = NULL;
	int code = postgres_begin_reading(pg);

	if (code)
		return code;
	postgres_begin_arrays(pg, 1, 0);
	link_array_add_integer(&pg->arrays[0], (int64_t)serial);
	link_put_array(&values, &pg->arrays[0]);
	code = postgres_run(pg, POSTGRES_ORDERS_OF_SERIALS, &values, "look up an order", &rows);
	if (!code && PQntuples(rows))
		postgres_read_order(rows, 0, 0, order);
	else if (!code)
		code = store_explain(pg->base.error, -ENOENT, "no order %016llx", (unsigned long long)serial);
	PQclear(rows);
	return postgres_end(pg, code);
}

/* --- events -------------------------------------------------------------------------------------------------------------- */
static void read_event(const PGresult *result, int row, struct store_event *event)
{
	*event = (struct store_event){
		.position = link_integer(result, row, 0),
		.type = (enum store_event_type)store_event_of_word(link_text(result, row, 1)),
		.sale = (uint32_t)link_integer(result, row, 2),
		.at_ns = (uint64_t)link_integer(result, row, 3),
		.put_in = link_integer(result, row, 6),
		.held = link_integer(result, row, 7),
		.confirmed = link_integer(result, row, 8),
		.has_order = link_bool(result, row, 9),
	};
	if (!event->has_order)
		return;
	postgres_read_order(result, row, 10, &event->order);
	event->order.state = store_event_state(event->type);
	event->order.resolved_ns = event->type == STORE_ORDER_HELD ? 0 : event->at_ns;
	event->order.resolved_by = (enum store_by)store_by_of_word(link_text(result, row, 4));
	event->order.restocked = link_bool(result, row, 5);
}

/* Where a page ends that found fewer events than it may hold. */
static int find_events_beyond(struct postgres *pg, const struct store_event_filter *filter, int64_t *next, bool *more)
{
	struct link_values values = {.count = 0};
	PGresult *rows = NULL, *last = NULL;
	int code;

	link_put_integer(&values, filter->after);
	link_put_integer(&values, STORE_LIST_SCAN_MAX);
	code = postgres_run(pg, POSTGRES_EVENTS_BEYOND, &values, "list events", &rows);
	if (!code && PQntuples(rows)) {
		*more = PQntuples(rows) == 2;
		*next = link_integer(rows, 0, 0);
	} else if (!code) {
		code = postgres_run(pg, POSTGRES_LAST_POSITION, NULL, "list events", &last);
		if (!code && link_integer(last, 0, 0) > *next)
			*next = link_integer(last, 0, 0);
	}
	PQclear(rows);
	PQclear(last);
	return code;
}

int postgres_events_list(struct store *store, const struct store_event_filter *filter, store_event_visit visit,
	void *arg, int64_t *next, bool *more)
{
	struct postgres *pg = postgres_of(store);
	struct link_values values = {.count = 0};
	PGresult *rows = NULL;
	int code = postgres_begin_reading(pg);
	int found, shown;

	*next = filter->after;
	*more = false;
	if (code)
		return code;
	link_put_integer(&values, filter->after);
	link_put_integer(&values, STORE_LIST_SCAN_MAX);
	link_put_integer(&values, filter->sale);
	link_put_integer(&values, (int64_t)filter->limit + 1);
	code = postgres_run(pg, POSTGRES_EVENTS_LIST, &values, "list events", &rows);
	if (code)
		return code;
	found = PQntuples(rows);
	shown = found > (int)filter->limit ? (int)filter->limit : found;
	if (found > shown) {
		*next = link_integer(rows, shown - 1, 0);
		*more = true;
	} else {
		code = find_events_beyond(pg, filter, next, more);
	}
	code = postgres_end(pg, code);
	for (int row = 0; !code && row < shown; row++) {
		struct store_event event;

		read_event(rows, row, &event);
		if (visit(&event, arg))
			break;
	}
	PQclear(rows);
	return code;
}
