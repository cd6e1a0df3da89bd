/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Events in the SQLite store: what has happened to orders and sales, in the order of commit. An admission has no row of
 * its own among the events; the listing merges the orders in by their positions.
 */
#include <errno.h>

#include "writer/store_sqlite.h"

int ledger_event_insert(
	struct ledger *ledger, const struct store_event *event, int64_t order_position, enum store_by by)
{
	sqlite3_stmt *statement = ledger_statement(ledger, LEDGER_EVENT_INSERT);

	sqlite3_bind_int64(statement, 1, event->position);
	sqlite3_bind_text(statement, 2, store_event_word(event->type), -1, SQLITE_STATIC);
	sqlite3_bind_int64(statement, 3, event->sale);
	if (order_position)
		sqlite3_bind_int64(statement, 4, order_position);
	else
		sqlite3_bind_null(statement, 4);
	sqlite3_bind_int64(statement, 5, (int64_t)event->at_ns);
	sqlite3_bind_text(statement, 6, store_by_word(by), -1, SQLITE_STATIC);
	sqlite3_bind_int64(statement, 7, event->put_in);
	sqlite3_bind_int64(statement, 8, event->held);
	sqlite3_bind_int64(statement, 9, event->confirmed);
	return ledger_step_done(statement) ? ledger_fail(ledger, "record an event") : 0;
}

/* One side of the merge: a statement that is stepped by position. */
struct side {
	sqlite3_stmt *rows;
	int64_t position; /* of the current row; INT64_MAX = there is none */
};

/* Returns 0 or -EIO. */
static int side_step(struct ledger *ledger, struct side *side)
{
	switch (sqlite3_step(side->rows)) {
	case SQLITE_ROW:
		side->position = sqlite3_column_int64(side->rows, 0);
		return 0;
	case SQLITE_DONE:
		side->position = INT64_MAX;
		return 0;
	default:
		return ledger_fail(ledger, "list events");
	}
}

static int side_begin(struct ledger *ledger, struct side *side, enum ledger_statement name, int64_t after)
{
	side->rows = ledger_statement(ledger, name);
	sqlite3_bind_int64(side->rows, 1, after);
	return side_step(ledger, side);
}

static void read_admission(const struct side *orders, struct store_event *event)
{
	*event = (struct store_event){.position = orders->position, .type = STORE_ORDER_HELD, .has_order = true};
	ledger_order_read(orders->rows, &event->order);
	event->sale = event->order.sale;
	event->at_ns = event->order.committed_ns;
	event->order.state = WIRE_ORDER_HELD;
	event->order.resolved_ns = 0;
	event->order.resolved_by = STORE_BY_NOBODY;
	event->order.restocked = false;
}

/* Returns 0 or -EIO. */
static int read_event(struct ledger *ledger, const struct side *events, struct store_event *event)
{
	sqlite3_stmt *row = events->rows;
	char word[32];
	int code;

	*event = (struct store_event){.position = events->position,
		.sale = (uint32_t)sqlite3_column_int64(row, 2),
		.has_order = sqlite3_column_type(row, 3) != SQLITE_NULL,
		.at_ns = (uint64_t)sqlite3_column_int64(row, 4),
		.put_in = sqlite3_column_int64(row, 6),
		.held = sqlite3_column_int64(row, 7),
		.confirmed = sqlite3_column_int64(row, 8)};
	ledger_copy_text(word, sizeof(word), row, 1);
	event->type = store_event_of_word(word);
	if (!event->has_order)
		return 0;
	code = ledger_order_at(ledger, sqlite3_column_int64(row, 3), &event->order);
	if (code)
		return code;
	ledger_copy_text(word, sizeof(word), row, 5);
	event->order.state = store_event_state(event->type);
	event->order.resolved_ns = event->at_ns;
	event->order.resolved_by = store_by_of_word(word);
	event->order.restocked &= event->type == STORE_ORDER_REFUNDED;
	return 0;
}

int ledger_events_list(struct store *store, const struct store_event_filter *filter, store_event_visit visit, void *arg,
	int64_t *next, bool *more)
{
	struct ledger *ledger = ledger_of(store);
	struct side orders, events;
	unsigned found = 0;
	bool stop = false;
	int code = ledger_begin(ledger);

	if (code)
		return code;
	*next = filter->after;
	*more = false;
	code = side_begin(ledger, &orders, LEDGER_ORDERS_OF_ALL, filter->after);
	if (!code)
		code = side_begin(ledger, &events, LEDGER_EVENTS, filter->after);
	for (unsigned looked = 0; !code && !stop; looked++) {
		bool is_order = orders.position < events.position;
		struct side *side = is_order ? &orders : &events;
		struct store_event event;

		if (side->position == INT64_MAX)
			break;
		if (found == filter->limit || looked == STORE_LIST_SCAN_MAX) {
			*more = true;
			break;
		}
		*next = side->position;
		/* The sale stands in column 2 of both; what is of another need not be read whole. */
		if (!filter->sale || sqlite3_column_int64(side->rows, 2) == filter->sale) {
			if (is_order)
				read_admission(side, &event);
			else
				code = read_event(ledger, side, &event);
			found++;
			stop = !code && visit(&event, arg);
		}
		if (!code)
			code = side_step(ledger, side);
	}
	if (code)
		return code;
	sqlite3_reset(orders.rows);
	sqlite3_reset(events.rows);
	return ledger_commit(ledger);
}

/* Returns 0, -ENOENT or -EIO. */
static int read_announced(
	struct ledger *ledger, uint32_t sale, struct store_announced *announced, struct store_event *event)
{
	sqlite3_stmt *statement = ledger_statement(ledger, LEDGER_ANNOUNCED_GET);
	int step;

	sqlite3_bind_int64(statement, 1, sale);
	step = sqlite3_step(statement);
	if (step == SQLITE_ROW) {
		announced->opened = sqlite3_column_int(statement, 0);
		announced->sold_out = sqlite3_column_int(statement, 1);
		announced->ended = sqlite3_column_int(statement, 2);
		event->put_in = sqlite3_column_int64(statement, 3);
		event->held = sqlite3_column_int64(statement, 4);
		event->confirmed = sqlite3_column_int64(statement, 5);
	} else if (step != SQLITE_DONE) {
		return ledger_fail(ledger, "look up a sale");
	}
	sqlite3_reset(statement);
	return step == SQLITE_ROW ? 0
				  : store_explain(ledger->base.error, -ENOENT, "no sale with id %u", (unsigned)sale);
}

/* Returns 0 or -EIO. */
static int record(struct ledger *ledger, struct store_event *event, const struct store_announced *announced)
{
	struct ledger_batch batch;
	sqlite3_stmt *statement;
	int code = ledger_batch_begin(&batch, ledger, event->at_ns);

	if (code)
		return code;
	event->position = batch.position + 1;
	code = ledger_event_insert(ledger, event, 0, STORE_BY_NOBODY);
	if (code)
		return code;
	statement = ledger_statement(ledger, LEDGER_ANNOUNCED_SET);
	sqlite3_bind_int64(statement, 1, event->sale);
	sqlite3_bind_int(statement, 2, announced->opened);
	sqlite3_bind_int(statement, 3, announced->sold_out);
	sqlite3_bind_int(statement, 4, announced->ended);
	return ledger_step_done(statement) ? ledger_fail(ledger, "write what was said of a sale") : 0;
}

int ledger_sale_event(struct store *store, uint32_t sale, enum store_event_type type, uint64_t now_ns, bool *recorded)
{
	struct ledger *ledger = ledger_of(store);
	struct store_event event = {.type = type, .sale = sale, .at_ns = now_ns};
	struct store_announced announced = {.opened = false};
	int code = ledger_begin(ledger);

	if (code)
		return code;
	code = read_announced(ledger, sale, &announced, &event);
	*recorded = !code && store_sale_event_is_news(&announced, type);
	if (*recorded) {
		store_sale_event_apply(&announced, type);
		code = record(ledger, &event, &announced);
	}
	return ledger_end(ledger, code);
}
