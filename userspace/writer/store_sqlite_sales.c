/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Sales and their stock in the SQLite store. A sale's put_in is the sum of its movements, kept in the sale's row by
 * the same transaction that records the movement; a movement is done once per key, whatever is repeated.
 */
#include <errno.h>
#include <string.h>

#include "writer/store_sqlite.h"

/* Columns as in LEDGER_SALE_COLUMNS. */
static void read_sale(sqlite3_stmt *row, struct store_sale *sale)
{
	sale->id = (uint32_t)sqlite3_column_int64(row, 0);
	ledger_copy_text(sale->slug, sizeof(sale->slug), row, 1);
	sale->opens_ns = (uint64_t)sqlite3_column_int64(row, 2);
	sale->ends_ns = (uint64_t)sqlite3_column_int64(row, 3);
	sale->per_buyer = (uint32_t)sqlite3_column_int64(row, 4);
	sale->hold_seconds = (uint32_t)sqlite3_column_int64(row, 5);
	sale->pace_per_second = (uint32_t)sqlite3_column_int64(row, 6);
	ledger_copy_text(sale->order_mode, sizeof(sale->order_mode), row, 7);
	sale->token_multiplier = (uint32_t)sqlite3_column_int64(row, 8);
	sale->paused = sqlite3_column_int(row, 9);
	sale->ended = sqlite3_column_int(row, 10);
	sale->put_in = sqlite3_column_int64(row, 11);
	sale->held = sqlite3_column_int64(row, 12);
	sale->confirmed = sqlite3_column_int64(row, 13);
	sale->orders = sqlite3_column_int64(row, 14);
}

int ledger_sale_get(struct ledger *ledger, uint32_t id, struct store_sale *sale)
{
	sqlite3_stmt *statement = ledger_statement(ledger, LEDGER_SALE_GET);
	int code;

	sqlite3_bind_int64(statement, 1, id);
	code = sqlite3_step(statement);
	if (code == SQLITE_ROW)
		read_sale(statement, sale);
	else if (code != SQLITE_DONE)
		return ledger_fail(ledger, "look up a sale");
	sqlite3_reset(statement);
	return code == SQLITE_ROW ? 0 : -ENOENT;
}

int ledger_sales_list(struct store *store, uint32_t after, unsigned limit, store_sale_visit visit, void *arg)
{
	struct ledger *ledger = ledger_of(store);
	sqlite3_stmt *statement;
	struct store_sale sale;
	int step;
	int code = ledger_begin(ledger);

	if (code)
		return code;
	statement = ledger_statement(ledger, LEDGER_SALES_LIST);
	sqlite3_bind_int64(statement, 1, after);
	sqlite3_bind_int64(statement, 2, limit);
	while ((step = sqlite3_step(statement)) == SQLITE_ROW) {
		read_sale(statement, &sale);
		if (visit(&sale, arg))
			break;
	}
	if (step != SQLITE_ROW && step != SQLITE_DONE)
		return ledger_fail(ledger, "list sales");
	sqlite3_reset(statement);
	return ledger_commit(ledger);
}

int ledger_sale_books(
	struct store *store, const char *prefix, uint32_t after, unsigned limit, store_book_visit visit, void *arg)
{
	struct ledger *ledger = ledger_of(store);
	sqlite3_stmt *statement;
	int step;
	int code = ledger_begin(ledger);

	if (code)
		return code;
	statement = ledger_statement(ledger, LEDGER_SALE_BOOKS);
	sqlite3_bind_text(statement, 1, prefix, -1, SQLITE_STATIC);
	sqlite3_bind_int64(statement, 2, after);
	sqlite3_bind_int64(statement, 3, limit);
	while ((step = sqlite3_step(statement)) == SQLITE_ROW) {
		struct store_book book;

		read_sale(statement, &book.sale);
		book.refunded = sqlite3_column_int64(statement, 15);
		book.document = (const char *)sqlite3_column_text(statement, 16);
		if (visit(&book, arg))
			break;
	}
	if (step != SQLITE_ROW && step != SQLITE_DONE)
		return ledger_fail(ledger, "list sales with their documents");
	sqlite3_reset(statement);
	return ledger_commit(ledger);
}

int ledger_move_find(struct ledger *ledger, const struct store_move *move)
{
	sqlite3_stmt *statement = ledger_statement(ledger, LEDGER_MOVE_GET);
	int64_t sale = 0, delta = 0;
	int step;

	sqlite3_bind_text(statement, 1, move->key, -1, SQLITE_STATIC);
	step = sqlite3_step(statement);
	if (step == SQLITE_ROW) {
		sale = sqlite3_column_int64(statement, 0);
		delta = sqlite3_column_int64(statement, 1);
	} else if (step != SQLITE_DONE) {
		return ledger_fail(ledger, "look up a stock movement");
	}
	sqlite3_reset(statement);
	if (step == SQLITE_DONE)
		return 0;
	if (sale != move->sale || delta != move->delta)
		return store_explain(ledger->base.error, -EEXIST, "key %s moved %+lld units of sale %lld before",
			move->key, (long long)delta, (long long)sale);
	return 1;
}

int ledger_move_insert(struct ledger *ledger, const struct store_move *move, uint64_t now_ns)
{
	sqlite3_stmt *statement = ledger_statement(ledger, LEDGER_MOVE_INSERT);

	sqlite3_bind_text(statement, 1, move->key, -1, SQLITE_STATIC);
	sqlite3_bind_int64(statement, 2, move->sale);
	sqlite3_bind_int64(statement, 3, move->delta);
	sqlite3_bind_text(statement, 4, move->reason, -1, SQLITE_STATIC);
	sqlite3_bind_int64(statement, 5, (int64_t)now_ns);
	return ledger_step_done(statement) ? ledger_fail(ledger, "record a stock movement") : 0;
}

/* Records a movement that ledger_move_find does not know and keeps the sale's sum. */
static int apply_move(struct ledger *ledger, struct store_sale *sale, const struct store_move *move, uint64_t now_ns)
{
	int64_t ordered = sale->held + sale->confirmed;
	sqlite3_stmt *statement;
	int64_t put_in;
	int code;

	if (__builtin_add_overflow(sale->put_in, move->delta, &put_in))
		return store_explain(ledger->base.error, -EINVAL, "a stock of %lld%+lld units cannot be counted",
			(long long)sale->put_in, (long long)move->delta);
	if (put_in < ordered)
		return store_explain(ledger->base.error, -EEXIST,
			"a stock of %lld units is less than the %lld that are ordered", (long long)put_in,
			(long long)ordered);
	code = ledger_move_insert(ledger, move, now_ns);
	if (code)
		return code;
	statement = ledger_statement(ledger, LEDGER_SALE_SET_SUMS);
	sqlite3_bind_int64(statement, 1, sale->id);
	sqlite3_bind_int64(statement, 2, put_in);
	sqlite3_bind_int64(statement, 3, sale->held);
	sqlite3_bind_int64(statement, 4, sale->confirmed);
	sqlite3_bind_int64(statement, 5, sale->orders);
	if (ledger_step_done(statement))
		return ledger_fail(ledger, "write the stock of a sale");
	sale->put_in = put_in;
	return 0;
}

/* 1 (the key has moved before) leaves all as it is, the document too. */
int ledger_stock_move(struct store *store, const struct store_move *move, uint64_t now_ns, int64_t *put_in)
{
	struct ledger *ledger = ledger_of(store);
	struct store_sale sale;
	int code = ledger_begin(ledger);

	if (code)
		return code;
	code = ledger_sale_get(ledger, move->sale, &sale);
	if (code == -ENOENT)
		store_explain(ledger->base.error, code, "no sale with id %u", (unsigned)move->sale);
	if (!code)
		code = ledger_move_find(ledger, move);
	if (!code)
		code = apply_move(ledger, &sale, move, now_ns);
	if (!code && move->document)
		code = ledger_document_write(ledger, move->document, move->value, now_ns);
	code = ledger_end(ledger, code == 1 ? 0 : code);
	if (!code)
		*put_in = sale.put_in;
	return code;
}

static int bind_and_put(
	struct ledger *ledger, enum ledger_statement name, const struct store_sale *sale, const uint64_t *created_ns)
{
	sqlite3_stmt *statement = ledger_statement(ledger, name);

	sqlite3_bind_int64(statement, 1, sale->id);
	sqlite3_bind_text(statement, 2, sale->slug, -1, SQLITE_STATIC);
	sqlite3_bind_int64(statement, 3, (int64_t)sale->opens_ns);
	sqlite3_bind_int64(statement, 4, (int64_t)sale->ends_ns);
	sqlite3_bind_int64(statement, 5, sale->per_buyer);
	sqlite3_bind_int64(statement, 6, sale->hold_seconds);
	sqlite3_bind_int64(statement, 7, sale->pace_per_second);
	sqlite3_bind_text(statement, 8, sale->order_mode, -1, SQLITE_STATIC);
	sqlite3_bind_int64(statement, 9, sale->token_multiplier);
	sqlite3_bind_int(statement, 10, sale->paused);
	sqlite3_bind_int(statement, 11, sale->ended);
	if (created_ns)
		sqlite3_bind_int64(statement, 12, (int64_t)*created_ns);
	return ledger_step_done(statement) ? ledger_fail(ledger, "write a sale") : 0;
}

static int create_sale(
	struct ledger *ledger, const struct store_sale *sale, const struct store_move *first, uint64_t now_ns)
{
	sqlite3_stmt *statement = ledger_statement(ledger, LEDGER_SALE_OF_SLUG);
	struct store_sale fresh = {.id = sale->id};
	int64_t other = 0;
	int step, code;

	sqlite3_bind_text(statement, 1, sale->slug, -1, SQLITE_STATIC);
	step = sqlite3_step(statement);
	if (step == SQLITE_ROW)
		other = sqlite3_column_int64(statement, 0);
	else if (step != SQLITE_DONE)
		return ledger_fail(ledger, "look up a sale");
	sqlite3_reset(statement);
	if (other)
		return store_explain(ledger->base.error, -EEXIST, "%s is the slug of the sale with id %lld", sale->slug,
			(long long)other);
	if (first) {
		code = ledger_move_find(ledger, first);
		if (code > 0) /* a movement of a sale that is not there cannot be */
			code = store_explain(ledger->base.error, -EEXIST, "key %s was used before", first->key);
		if (code)
			return code;
	}
	code = bind_and_put(ledger, LEDGER_SALE_INSERT, sale, &now_ns);
	return !code && first ? apply_move(ledger, &fresh, first, now_ns) : code;
}

static int change_sale(struct ledger *ledger, const struct store_sale *stored, const struct store_sale *sale,
	const struct store_move *first)
{
	if (strcmp(stored->slug, sale->slug))
		return store_explain(ledger->base.error, -EEXIST, "the sale with id %u has the slug %s",
			(unsigned)sale->id, stored->slug);
	if (stored->ended && !sale->ended)
		return store_explain(ledger->base.error, -EEXIST, "the sale %s has been ended", sale->slug);
	if (first) {
		/* A repetition of the question that created the sale brings its stock along; anything else must not. */
		int code = ledger_move_find(ledger, first);

		if (code <= 0)
			return code ? code
				    : store_explain(ledger->base.error, -EEXIST,
					      "the sale %s exists: change its stock by a movement", sale->slug);
	}
	return bind_and_put(ledger, LEDGER_SALE_CHANGE, sale, NULL);
}

int ledger_sale_put(struct store *store, struct store_sale *sale, const struct store_move *first, uint64_t now_ns)
{
	struct ledger *ledger = ledger_of(store);
	struct store_sale stored;
	int code = ledger_begin(ledger);

	if (code)
		return code;
	code = ledger_sale_get(ledger, sale->id, &stored);
	if (code == -ENOENT)
		code = create_sale(ledger, sale, first, now_ns);
	else if (!code)
		code = change_sale(ledger, &stored, sale, first);
	if (!code)
		code = ledger_sale_get(ledger, sale->id, &stored);
	code = ledger_end(ledger, code);
	if (!code)
		*sale = stored;
	return code;
}
