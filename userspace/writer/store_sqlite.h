/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Inside of the SQLite store: the open ledger, its prepared statements and its transactions. Used by store_sqlite*.c
 * only.
 */
#ifndef SLUICE_WRITER_STORE_SQLITE_H
#define SLUICE_WRITER_STORE_SQLITE_H

#include <limits.h>
#include <sqlite3.h>

#include "writer/guard.h"
#include "writer/ledger_file.h"
#include "writer/store.h"

/* X(NAME, sql): prepared once per opening, in this order. */
#define LEDGER_STATEMENTS(X) \
	X(BEGIN, "BEGIN IMMEDIATE") \
	X(COMMIT, "COMMIT") \
	X(ROLLBACK, "ROLLBACK") \
	X(LAST_POSITION, "SELECT coalesce(max(position), 0) FROM orders") \
	X(ORDER_INSERT, \
		"INSERT INTO orders(position, serial, sale, seq, state, quantity, buyer, source, network, hold_seconds, " \
		"admitted_ns, committed_ns) VALUES(?1, ?2, ?3, ?4, 'held', ?5, ?6, ?7, ?8, ?9, ?10, ?11)") \
	X(ORDER_GET, \
		"SELECT position, serial, sale, seq, state, quantity, buyer, source, network, admitted_ns, committed_ns " \
		"FROM orders WHERE position = ?1") \
	X(ORDERS_OF_ALL, \
		"SELECT position, serial, sale, seq, state, quantity, buyer, source, network, admitted_ns, committed_ns " \
		"FROM orders WHERE position > ?1 ORDER BY position") \
	X(ORDERS_OF_SALE, \
		"SELECT seq, serial, sale, seq, state, quantity, buyer, source, network, admitted_ns, committed_ns " \
		"FROM orders WHERE sale = ?2 AND seq > ?1 ORDER BY seq") \
	X(SALE_GET, "SELECT " LEDGER_SALE_COLUMNS " FROM sales WHERE id = ?1") \
	X(SALES_LIST, "SELECT " LEDGER_SALE_COLUMNS " FROM sales ORDER BY id") \
	X(SALE_OF_SLUG, "SELECT id FROM sales WHERE slug = ?1") \
	X(SALE_INSERT, \
		"INSERT INTO sales(id, slug, opens_ns, ends_ns, per_buyer, hold_seconds, pace_per_second, order_mode, " \
		"token_multiplier, paused, ended, put_in, held, confirmed, orders, created_ns) " \
		"VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 0, 0, 0, 0, ?12)") \
	X(SALE_CHANGE, \
		"UPDATE sales SET opens_ns = ?3, ends_ns = ?4, per_buyer = ?5, hold_seconds = ?6, pace_per_second = ?7, " \
		"order_mode = ?8, token_multiplier = ?9, paused = ?10, ended = ?11 WHERE id = ?1 AND slug = ?2") \
	X(SALE_ADD_ORDERS, "UPDATE sales SET held = held + ?2, orders = ?3 WHERE id = ?1") \
	X(SALE_SET_PUT_IN, "UPDATE sales SET put_in = ?2 WHERE id = ?1") \
	X(MOVE_GET, "SELECT sale, delta FROM stock_moves WHERE key = ?1") \
	X(MOVE_INSERT, "INSERT INTO stock_moves(key, sale, delta, reason, at_ns) VALUES(?1, ?2, ?3, ?4, ?5)")

#define LEDGER_SALE_COLUMNS \
	"id, slug, opens_ns, ends_ns, per_buyer, hold_seconds, pace_per_second, order_mode, token_multiplier, paused, " \
	"ended, put_in, held, confirmed, orders"

enum ledger_statement {
#define X(name, sql) LEDGER_##name,
	LEDGER_STATEMENTS(X)
#undef X
		LEDGER_STATEMENT_COUNT
};

/* A sale as one batch sees it: read at its first record, written back once at the end. */
struct ledger_batch_sale {
	struct store_sale sale;
	bool known;
	int64_t added_units;
};

struct ledger {
	struct store base;
	char path[PATH_MAX];
	struct ledger_file file;
	sqlite3 *db; /* NULL = closed after a failure; the next transaction opens it anew */
	sqlite3_stmt *statements[LEDGER_STATEMENT_COUNT];
	struct guard guard;                    /* of what is in the ledger; empty while it is closed */
	int wal_pages;                         /* in the WAL after the last commit */
	int checkpoint_at;                     /* pages at which the next checkpoint is due */
	struct ledger_batch_sale *batch_sales; /* WIRE_BATCH_MAX of them */
};

static inline struct ledger *ledger_of(struct store *store)
{
	return (struct ledger *)store;
}

/* Ends the transaction after an error of the database: rolls back, closes, notes what `doing` met. Returns -EIO. */
int ledger_fail(struct ledger *ledger, const char *doing);

/* Opens the database anew if need be and begins. Returns 0 or -EIO. */
int ledger_begin(struct ledger *ledger);
/* Returns 0 when everything is on the disk, or -EIO. */
int ledger_commit(struct ledger *ledger);
/* Takes the transaction back for a reason that is not the database's: returns `code`, or -EIO. */
int ledger_rollback(struct ledger *ledger, int code);

/* The statement, reset, with its first parameters bound; more by sqlite3_bind_*. Binding integers to a statement in
 * this state cannot fail; texts can for lack of memory only, which the step then reports as a NOT NULL violation.
 */
sqlite3_stmt *ledger_statement(struct ledger *ledger, enum ledger_statement name);
/* Steps a statement that gives no rows and resets it. Returns 0 or an SQLite code. */
int ledger_step_done(sqlite3_stmt *statement);
/* Copies a column of the current row, cut to `size`; NULL gives "". */
void ledger_copy_text(char *to, size_t size, sqlite3_stmt *row, int column);

/* --- store_sqlite_schema.c
 * ------------------------------------------------------------------------------------------------
 */

/* Makes the tables in an empty database, or checks that it is a ledger of a version that this program knows. Returns 0,
 * -EPROTO or -EIO with a sentence in `error`.
 */
int ledger_schema_open(sqlite3 *db, const char *path, char *error);
/* Compares the sums with the orders and movements they are made of; `structure`: also every page of the file. Returns
 * as above.
 */
int ledger_books_check(sqlite3 *db, const char *path, bool structure, char *error);
/* Fills the guard from the orders. Returns as above, or -ENOMEM. */
int ledger_guard_load(sqlite3 *db, const char *path, struct guard *guard, char *error);

/* --- store_sqlite_orders.c, store_sqlite_sales.c: the operations
 * ----------------------------------------------------------
 */

int ledger_admit(struct store *store, const struct wire_admit *records, unsigned count, uint64_t now_ns,
	struct wire_ack *acks, struct store_refused *refused);
int ledger_orders_list(struct store *store, const struct store_order_filter *filter, store_order_visit visit, void *arg,
	int64_t *next);
int ledger_order_get(struct store *store, uint64_t serial, struct store_order *order);

int ledger_sales_list(struct store *store, store_sale_visit visit, void *arg);
int ledger_sale_put(struct store *store, struct store_sale *sale, const struct store_move *first, uint64_t now_ns);
int ledger_stock_move(struct store *store, const struct store_move *move, uint64_t now_ns, int64_t *put_in);
/* Inside a transaction. Returns 0, -ENOENT, or -EIO after ledger_fail. */
int ledger_sale_get(struct ledger *ledger, uint32_t id, struct store_sale *sale);

#endif
