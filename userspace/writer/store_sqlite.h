/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Inside of the SQLite store: the open ledger, its prepared statements and its transactions. Used by store_sqlite*.c
 * only.
 */
#ifndef SLUICE_WRITER_STORE_SQLITE_H
#define SLUICE_WRITER_STORE_SQLITE_H

#include <limits.h>
#include <sqlite3.h>

#include "writer/due.h"
#include "writer/guard.h"
#include "writer/ledger_file.h"
#include "writer/store.h"

/* X(NAME, sql): prepared once per opening, in this order. */
#define LEDGER_STATEMENTS(X) \
	X(BEGIN, "BEGIN IMMEDIATE") \
	X(COMMIT, "COMMIT") \
	X(ROLLBACK, "ROLLBACK") \
	/* orders */ \
	X(LAST_POSITION, \
		"SELECT max(coalesce((SELECT max(position) FROM orders), 0), " \
		"coalesce((SELECT max(position) FROM events), 0))") \
	X(ORDER_INSERT, \
		"INSERT INTO orders(position, serial, sale, seq, state, quantity, buyer, source, network, hold_seconds, " \
		"admitted_ns, committed_ns) VALUES(?1, ?2, ?3, ?4, 'held', ?5, ?6, ?7, ?8, ?9, ?10, ?11)") \
	X(ORDER_GET, "SELECT position, " LEDGER_ORDER_COLUMNS " FROM orders WHERE position = ?1") \
	X(ORDERS_OF_ALL, \
		"SELECT position, " LEDGER_ORDER_COLUMNS " FROM orders WHERE position > ?1 ORDER BY position") \
	X(ORDERS_OF_SALE, \
		"SELECT seq, " LEDGER_ORDER_COLUMNS " FROM orders WHERE sale = ?2 AND seq > ?1 ORDER BY seq") \
	X(ORDER_CHANGE, \
		"UPDATE orders SET state = ?2, resolved_ns = ?3, resolved_by = ?4, restocked = ?5 WHERE position = ?1") \
	/* sales */ \
	X(SALE_GET, "SELECT " LEDGER_SALE_COLUMNS " FROM sales WHERE id = ?1") \
	X(SALES_LIST, "SELECT " LEDGER_SALE_COLUMNS " FROM sales WHERE id > ?1 ORDER BY id LIMIT ?2") \
	X(SALE_BOOKS, \
		"SELECT " LEDGER_SALE_COLUMNS \
		", (SELECT coalesce(-sum(delta), 0) FROM stock_moves WHERE sale = s.id AND " \
		"+key LIKE '" STORE_REFUND_KEY \
		"%'), value FROM sales s LEFT JOIN documents ON name = ?1 || id WHERE id > ?2 " \
		"ORDER BY id LIMIT ?3") \
	X(SALE_OF_SLUG, "SELECT id FROM sales WHERE slug = ?1") \
	X(SALE_INSERT, \
		"INSERT INTO sales(id, slug, opens_ns, ends_ns, per_buyer, hold_seconds, pace_per_second, order_mode, " \
		"token_multiplier, paused, ended, put_in, held, confirmed, orders, created_ns) " \
		"VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 0, 0, 0, 0, ?12)") \
	X(SALE_CHANGE, \
		"UPDATE sales SET opens_ns = ?3, ends_ns = ?4, per_buyer = ?5, hold_seconds = ?6, pace_per_second = ?7, " \
		"order_mode = ?8, token_multiplier = ?9, paused = ?10, ended = ?11 WHERE id = ?1 AND slug = ?2") \
	X(SALE_SET_SUMS, "UPDATE sales SET put_in = ?2, held = ?3, confirmed = ?4, orders = ?5 WHERE id = ?1") \
	X(MOVE_GET, "SELECT sale, delta FROM stock_moves WHERE key = ?1") \
	X(MOVE_INSERT, "INSERT INTO stock_moves(key, sale, delta, reason, at_ns) VALUES(?1, ?2, ?3, ?4, ?5)") \
	/* events */ \
	X(EVENT_INSERT, \
		"INSERT INTO events(position, type, sale, order_position, at_ns, resolved_by, put_in, held, confirmed) " \
		"VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)") \
	X(EVENTS, \
		"SELECT position, type, sale, order_position, at_ns, resolved_by, put_in, held, confirmed FROM events " \
		"WHERE position > ?1 ORDER BY position") \
	X(ANNOUNCED_GET, \
		"SELECT announced_opened, announced_sold_out, announced_ended, put_in, held, confirmed FROM sales " \
		"WHERE id = ?1") \
	X(ANNOUNCED_SET, \
		"UPDATE sales SET announced_opened = ?2, announced_sold_out = ?3, announced_ended = ?4 WHERE id = ?1") \
	/* idempotency keys */ \
	X(ONCE_GET, "SELECT fingerprint, answer FROM idempotency_keys WHERE key = ?1") \
	X(ONCE_INSERT, "INSERT INTO idempotency_keys(key, fingerprint, answer, at_ns) VALUES(?1, ?2, ?3, ?4)") \
	X(ONCE_OLDEST, "SELECT min(at_ns) FROM idempotency_keys") \
	X(ONCE_PRUNE, \
		"DELETE FROM idempotency_keys WHERE position IN (SELECT position FROM idempotency_keys WHERE at_ns < ?1 " \
		"ORDER BY at_ns LIMIT ?2)") \
	/* documents */ \
	X(DOCUMENT_PUT, \
		"INSERT INTO documents(name, value, changed_ns) VALUES(?1, ?2, ?3) " \
		"ON CONFLICT(name) DO UPDATE SET value = excluded.value, changed_ns = excluded.changed_ns") \
	X(DOCUMENT_GET, "SELECT value FROM documents WHERE name = ?1") \
	X(DOCUMENTS_LIST, "SELECT name, changed_ns, length(CAST(value AS BLOB)) FROM documents ORDER BY name") \
	/* lists */ \
	X(ENTRY_PUT, \
		"INSERT INTO list_entries(list, prefix, expires_ns, label, reason) VALUES(?1, ?2, ?3, ?4, ?5) " \
		"ON CONFLICT(list, prefix) DO UPDATE SET expires_ns = excluded.expires_ns, label = excluded.label, " \
		"reason = excluded.reason") \
	X(ENTRY_REMOVE, "DELETE FROM list_entries WHERE list = ?1 AND prefix = ?2") \
	X(ENTRIES_PAGE, \
		"SELECT position, list, prefix, expires_ns, label, reason FROM list_entries WHERE position > ?1 " \
		"ORDER BY position") \
	X(LIST_CLEAR, \
		"DELETE FROM list_entries WHERE position IN (SELECT position FROM list_entries WHERE list = ?1 LIMIT ?2)") \
	X(LABEL_CLEAR, \
		"DELETE FROM list_entries WHERE position IN (SELECT position FROM list_entries WHERE list = ?1 " \
		"AND label = ?3 LIMIT ?2)") \
	X(LIST_HAS, "SELECT 1 FROM list_entries WHERE list = ?1 LIMIT 1") \
	X(LABEL_HAS, "SELECT 1 FROM list_entries WHERE list = ?1 AND label = ?3 LIMIT 1")

#define LEDGER_ORDER_COLUMNS \
	"serial, sale, seq, state, quantity, buyer, source, network, admitted_ns, committed_ns, hold_seconds, " \
	"resolved_ns, resolved_by, restocked"

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
	bool changed;
};

struct ledger {
	struct store base;
	char path[PATH_MAX];
	struct ledger_file file;
	sqlite3 *db; /* NULL = closed after a failure; the next transaction opens it anew */
	sqlite3_stmt *statements[LEDGER_STATEMENT_COUNT];
	bool in_bracket;    /* between store_ops.begin and its end */
	bool guard_changed; /* by the transaction that is open: after a rollback guard and due must be read anew */
	struct guard guard; /* of what is in the ledger; empty while it is closed */
	struct due due;     /* every held order that has an end; likewise */
	int wal_pages;      /* in the WAL after the last commit */
	int checkpoint_at;  /* pages at which the next checkpoint is due */
	uint64_t pruned_ns; /* when the idempotency keys were last looked at */
	bool prune_more;    /* and there were more old ones than one look takes */
	struct ledger_batch_sale *batch_sales; /* WIRE_BATCH_MAX of them */
};

static inline struct ledger *ledger_of(struct store *store)
{
	return (struct ledger *)store;
}

/* Ends the transaction after an error of the database: rolls back, closes, notes what `doing` met. Returns -EIO. */
int ledger_fail(struct ledger *ledger, const char *doing);

/* An operation begins and ends its transaction by these three. In a bracket they leave the transaction to it.
 *
 * Opens the database anew if need be and begins. Returns 0 or -EIO.
 */
int ledger_begin(struct ledger *ledger);
/* Returns 0 when everything is on the disk, or -EIO. */
int ledger_commit(struct ledger *ledger);
/* Takes the transaction back for a reason that is not the database's: returns `code`, or -EIO. */
int ledger_rollback(struct ledger *ledger, int code);
/* Ends a transaction whose work gave `code`: commits on 0, rolls back on a refusal; after -EIO it is gone already. */
int ledger_end(struct ledger *ledger, int code);

/* The statement, reset, with its first parameters bound; more by sqlite3_bind_*. Binding integers to a statement in
 * this state cannot fail; texts can for lack of memory only, which the step then reports as a NOT NULL violation.
 */
sqlite3_stmt *ledger_statement(struct ledger *ledger, enum ledger_statement name);
/* Steps a statement that gives no rows and resets it. Returns 0 or an SQLite code. */
int ledger_step_done(sqlite3_stmt *statement);
/* Copies a column of the current row, cut to `size`; NULL gives "". */
void ledger_copy_text(char *to, size_t size, sqlite3_stmt *row, int column);
/* The text of a column as a copy of its own, to be freed by the caller; NULL if memory is out. */
char *ledger_dup_text(sqlite3_stmt *row, int column);

/* --- store_sqlite_schema.c */

/* Makes the tables in an empty database, or checks that it is a ledger of a version that this program knows and brings
 * an older one to the present version, unless it was opened for reading only. *version: what it then has. Returns 0,
 * -EPROTO or -EIO with a sentence in `error`; -ENOENT for an empty database that cannot be written.
 */
int ledger_schema_open(sqlite3 *db, const char *path, int64_t *version, char *error);

/* --- store_sqlite_books.c */

/* Compares the sums with the orders and movements they are made of; `structure`: also every page of the file, and every
 * event with the order or sale it is of. Returns as above.
 */
int ledger_books_check(sqlite3 *db, const char *path, int64_t version, bool structure, char *error);
/* Fills guard and due from the orders. Returns as above, or -ENOMEM. */
int ledger_guard_load(sqlite3 *db, const char *path, struct guard *guard, struct due *due, char *error);
/* The first integer that `sql` gives. Returns an SQLite code. */
int ledger_read_integer(sqlite3 *db, const char *sql, int64_t *value);
/* Says that the ledger cannot be read, and why. Returns -EPROTO if it is no database, else -EIO. */
int ledger_read_failed(sqlite3 *db, const char *path, char *error);

/* --- store_sqlite_batch.c: what admissions and changes have in common. */

struct ledger_batch {
	struct ledger *ledger;
	unsigned sale_count;
	struct ledger_batch_sale *last; /* nearly always the next record's too */
	int64_t position;               /* of the last order or event in the ledger */
	uint64_t now_ns;
};

/* Inside a transaction. Returns 0 or -EIO. */
int ledger_batch_begin(struct ledger_batch *batch, struct ledger *ledger, uint64_t now_ns);
/* The sale with this id, read from the ledger at its first use in the batch. Returns 0 or -EIO. */
int ledger_batch_sale(struct ledger_batch *batch, uint32_t id, struct ledger_batch_sale **found);
/* Writes the sums of the sales that were marked as changed. Returns 0 or -EIO. */
int ledger_batch_write_sums(struct ledger_batch *batch);

/* --- store_sqlite_orders.c, _changes.c, _sales.c, _events.c, _once.c, _documents.c, _lists.c: the operations */

int ledger_admit(struct store *store, const struct wire_admit *records, unsigned count, uint64_t now_ns,
	struct wire_ack *acks, struct store_refused *refused);
int ledger_orders_list(struct store *store, const struct store_order_filter *filter, store_order_visit visit, void *arg,
	int64_t *next);
int ledger_order_get(struct store *store, uint64_t serial, struct store_order *order);
/* A row of cursor and LEDGER_ORDER_COLUMNS. */
void ledger_order_read(sqlite3_stmt *row, struct store_order *order);
/* Inside a transaction, for a position that there is. Returns 0 or -EIO. */
int ledger_order_at(struct ledger *ledger, int64_t position, struct store_order *order);

int ledger_orders_change(struct store *store, const struct store_change *changes, unsigned count, uint64_t now_ns,
	struct store_changed *results);
int ledger_orders_due(
	struct store *store, uint64_t now_ns, unsigned limit, store_order_visit visit, void *arg, bool *more);

int ledger_sales_list(struct store *store, uint32_t after, unsigned limit, store_sale_visit visit, void *arg);
int ledger_sale_books(
	struct store *store, const char *prefix, uint32_t after, unsigned limit, store_book_visit visit, void *arg);
int ledger_sale_put(struct store *store, struct store_sale *sale, const struct store_move *first, uint64_t now_ns);
int ledger_stock_move(struct store *store, const struct store_move *move, uint64_t now_ns, int64_t *put_in);
/* Inside a transaction. Returns 0, -ENOENT, or -EIO after ledger_fail. */
int ledger_sale_get(struct ledger *ledger, uint32_t id, struct store_sale *sale);
/* Inside a transaction. 0 if nothing was moved under the key yet, 1 if just this was, -EEXIST if something else was,
 * -EIO.
 */
int ledger_move_find(struct ledger *ledger, const struct store_move *move);
/* Inside a transaction: records a movement whose key is new, and does not touch the sums. Returns 0 or -EIO. */
int ledger_move_insert(struct ledger *ledger, const struct store_move *move, uint64_t now_ns);

/* Inside a transaction; order_position 0 = none. The sums are those of `event`. Returns 0 or -EIO. */
int ledger_event_insert(
	struct ledger *ledger, const struct store_event *event, int64_t order_position, enum store_by by);
int ledger_events_list(struct store *store, const struct store_event_filter *filter, store_event_visit visit, void *arg,
	int64_t *next, bool *more);
int ledger_sale_event(struct store *store, uint32_t sale, enum store_event_type type, uint64_t now_ns, bool *recorded);

int ledger_once_get(struct store *store, const struct store_once *once, char **answer);
int ledger_once_put(struct store *store, const struct store_once *once, const char *answer, uint64_t now_ns);
/* For maintain(): looks for old keys at most once a minute, and removes a bounded number of them. */
void ledger_once_prune(struct ledger *ledger, uint64_t now_ns);

/* Within a transaction. Returns 0 or -EIO. */
int ledger_document_write(struct ledger *ledger, const char *name, const char *value, uint64_t now_ns);
int ledger_document_put(struct store *store, const char *name, const char *value, uint64_t now_ns);
int ledger_document_get(struct store *store, const char *name, char **value);
int ledger_documents_list(struct store *store, store_document_visit visit, void *arg);

int ledger_list_put(struct store *store, const struct store_entry *entries, unsigned count);
int ledger_list_remove(struct store *store, const struct store_entry *entries, unsigned count, unsigned *removed);
int ledger_list_page(
	struct store *store, int64_t after, unsigned limit, store_entry_visit visit, void *arg, int64_t *next);
int ledger_list_clear(struct store *store, enum store_list list, const char *label, unsigned *removed, bool *more);

#endif
