/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The ledger's tables, and the checks that a file is a ledger and that its books balance. Called when the store is
 * opened and by the audit. The tables are meant to be read by people with the sqlite3 shell; the views put times and
 * ids into words.
 *
 * A serial or buyer is a u64; SQLite's integers are signed, so the same 64 bits are stored and show as negative
 * numbers from 2^63 on. The views show them in hex, as the API does.
 */
#include <errno.h>

#include "writer/store_sqlite.h"

#define LEDGER_APPLICATION_ID 0x534c5543 /* "SLUC"; file(1) and the sqlite3 shell show it */
#define LEDGER_SCHEMA_VERSION 1

#define STRING_OF(x) #x
#define NUMBER_TEXT(x) STRING_OF(x)
#define LEDGER_APPLICATION_TEXT NUMBER_TEXT(LEDGER_APPLICATION_ID)
#define LEDGER_VERSION_TEXT NUMBER_TEXT(LEDGER_SCHEMA_VERSION)

/* RFC 3339 with milliseconds, from ns. */
#define TIME_SQL(column, name) \
	" strftime('%Y-%m-%dT%H:%M:%S', " column " / 1000000000, 'unixepoch') || printf('.%03dZ', " column \
	" / 1000000 % 1000) AS " name
#define ADMITTED_AT TIME_SQL("o.admitted_ns", "admitted_at")
#define COMMITTED_AT TIME_SQL("o.committed_ns", "committed_at")
#define OPENS_AT TIME_SQL("opens_ns", "opens_at")
#define ENDS_AT TIME_SQL("ends_ns", "ends_at")
#define MOVED_AT TIME_SQL("m.at_ns", "at")

/* The CHECKs and UNIQUEs repeat what the transactions see to: a defect there ends in an error, not in an oversell.
 * `position` is the order of commit, `seq` the same within a sale: rows and index are only ever appended to.
 */
static const char schema_sql[] =
	"CREATE TABLE sales("
	" id INTEGER PRIMARY KEY CHECK(id BETWEEN 1 AND 4294967295),"
	" slug TEXT NOT NULL UNIQUE,"
	" opens_ns INTEGER NOT NULL,"
	" ends_ns INTEGER NOT NULL,"
	" per_buyer INTEGER NOT NULL CHECK(per_buyer > 0),"
	" hold_seconds INTEGER NOT NULL CHECK(hold_seconds >= 0),"
	" pace_per_second INTEGER NOT NULL CHECK(pace_per_second >= 0),"
	" order_mode TEXT NOT NULL,"
	" token_multiplier INTEGER NOT NULL CHECK(token_multiplier >= 0),"
	" paused INTEGER NOT NULL CHECK(paused = 0 OR paused = 1),"
	" ended INTEGER NOT NULL CHECK(ended = 0 OR ended = 1),"
	" put_in INTEGER NOT NULL,"                /* units: sum of stock_moves.delta */
	" held INTEGER NOT NULL CHECK(held >= 0)," /* units of orders in state held */
	" confirmed INTEGER NOT NULL CHECK(confirmed >= 0),"
	" orders INTEGER NOT NULL CHECK(orders >= 0)," /* number of orders = the last seq */
	" created_ns INTEGER NOT NULL,"
	" CHECK(opens_ns < ends_ns),"
	" CHECK(held + confirmed <= put_in)" /* no oversell */
	") STRICT;"
	"CREATE TABLE stock_moves("
	" position INTEGER PRIMARY KEY,"
	" key TEXT NOT NULL UNIQUE,"
	" sale INTEGER NOT NULL REFERENCES sales(id),"
	" delta INTEGER NOT NULL,"
	" reason TEXT NOT NULL,"
	" at_ns INTEGER NOT NULL"
	") STRICT;"
	"CREATE INDEX stock_moves_by_sale ON stock_moves(sale, delta);"
	"CREATE TABLE orders("
	" position INTEGER PRIMARY KEY,"
	" serial INTEGER NOT NULL," /* unique: see guard.c */
	" sale INTEGER NOT NULL REFERENCES sales(id),"
	" seq INTEGER NOT NULL CHECK(seq > 0),"
	" state TEXT NOT NULL CHECK(state = 'held' OR state = 'confirmed' OR state = 'cancelled' OR state = 'expired'"
	" OR state = 'refunded')," /* IN (…) would build a table for each row: half the speed of an insert */
	" quantity INTEGER NOT NULL CHECK(quantity > 0),"
	" buyer INTEGER NOT NULL,"
	" source TEXT NOT NULL,"
	" network INTEGER NOT NULL,"
	" hold_seconds INTEGER NOT NULL,"
	" admitted_ns INTEGER NOT NULL,"
	" committed_ns INTEGER NOT NULL,"
	" UNIQUE(sale, seq)"
	") STRICT;"
	"CREATE VIEW orders_view AS SELECT printf('%016x', o.serial) AS id, s.slug AS sale, o.seq AS seq,"
	" o.state AS state, o.quantity AS quantity, printf('%016x', o.buyer) AS buyer, o.source AS source," ADMITTED_AT
	"," COMMITTED_AT " FROM orders o JOIN sales s ON s.id = o.sale;"
	"CREATE VIEW sales_view AS SELECT id, slug," OPENS_AT "," ENDS_AT ", per_buyer, put_in, held, confirmed,"
	" put_in - held - confirmed AS unsold, orders, paused, ended FROM sales;"
	"CREATE VIEW stock_moves_view AS SELECT s.slug AS sale, m.delta AS delta, m.reason AS reason," MOVED_AT
	", m.key AS key FROM stock_moves m JOIN sales s ON s.id = m.sale;"
	"PRAGMA application_id = " LEDGER_APPLICATION_TEXT ";"
	"PRAGMA user_version = " LEDGER_VERSION_TEXT ";";

/* The first integer that `sql` gives. */
static int read_integer(sqlite3 *db, const char *sql, int64_t *value)
{
	sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);

	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	if (code == SQLITE_ROW) {
		*value = sqlite3_column_int64(statement, 0);
		code = SQLITE_OK;
	} else if (code == SQLITE_DONE) {
		code = SQLITE_CORRUPT;
	}
	sqlite3_finalize(statement);
	return code;
}

static int read_failed(sqlite3 *db, const char *path, char *error)
{
	int code = sqlite3_errcode(db) & 0xff;

	if (code == SQLITE_NOTADB)
		return store_explain(error, -EPROTO,
			"%s is not an SQLite database: give the path of a ledger, or of a new file", path);
	return store_explain(error, -EIO, "cannot read the ledger %s: %s", path, sqlite3_errmsg(db));
}

static int create(sqlite3 *db, const char *path, char *error)
{
	/* One transaction, version number included: a crash leaves an empty database or a whole one. */
	if (sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) || sqlite3_exec(db, schema_sql, NULL, NULL, NULL) ||
		sqlite3_exec(db, "COMMIT", NULL, NULL, NULL))
		return store_explain(
			error, -EIO, "cannot make the tables of the ledger %s: %s", path, sqlite3_errmsg(db));
	return 0;
}

int ledger_schema_open(sqlite3 *db, const char *path, char *error)
{
	int64_t application, version, objects;

	if (read_integer(db, "PRAGMA application_id", &application) ||
		read_integer(db, "PRAGMA user_version", &version) ||
		read_integer(db, "SELECT count(*) FROM sqlite_schema", &objects))
		return read_failed(db, path, error);
	if (!application && !version && !objects)
		return sqlite3_db_readonly(db, "main") ? store_explain(error, -ENOENT, "the ledger %s is empty", path)
						       : create(db, path, error);
	if (application != LEDGER_APPLICATION_ID)
		return store_explain(error, -EPROTO, "%s is a database of another program, not a ledger", path);
	if (version > LEDGER_SCHEMA_VERSION)
		return store_explain(error, -EPROTO,
			"the ledger %s has schema version %lld, this program knows up to %d: use the newer program",
			path, (long long)version, LEDGER_SCHEMA_VERSION);
	if (version < 1)
		return store_explain(error, -EPROTO, "the ledger %s has no valid schema version (%lld): it is damaged",
			path, (long long)version);
	return 0;
}

/* Each counts what must not be; 0 is well. */
struct books_check {
	const char *sql;
	const char *meaning;
};

static const struct books_check books_checks[] = {
	{"SELECT count(*) FROM sales WHERE held + confirmed > put_in OR held < 0 OR confirmed < 0",
		"sales that are oversold"},
	{"SELECT count(*) FROM sales s WHERE put_in <> (SELECT coalesce(sum(delta), 0) FROM stock_moves WHERE sale = s.id)",
		"sales whose stock is not the sum of its movements"},
	{"SELECT count(*) FROM sales s LEFT JOIN (SELECT sale, count(*) AS orders, max(seq) AS last,"
	 " sum(iif(state = 'held', quantity, 0)) AS held, sum(iif(state = 'confirmed', quantity, 0)) AS confirmed"
	 " FROM orders GROUP BY sale) o ON o.sale = s.id"
	 " WHERE s.orders <> coalesce(o.orders, 0) OR s.orders <> coalesce(o.last, 0)"
	 " OR s.held <> coalesce(o.held, 0) OR s.confirmed <> coalesce(o.confirmed, 0)",
		"sales whose sums are not those of their orders, or with gaps in seq"},
};

static const struct books_check structure_checks[] = {
	{"SELECT count(*) - count(DISTINCT serial) FROM orders", "orders with the serial of another"},
	{"SELECT count(*) FROM pragma_foreign_key_check", "rows that belong to no sale"},
};

static int run_checks(sqlite3 *db, const char *path, const struct books_check *checks, unsigned count, char *error)
{
	for (unsigned i = 0; i < count; i++) {
		int64_t wrong;

		if (read_integer(db, checks[i].sql, &wrong))
			return read_failed(db, path, error);
		if (wrong)
			return store_explain(error, -EPROTO,
				"the books of the ledger %s do not balance: %lld %s; keep the file, restore a backup or repair it",
				path, (long long)wrong, checks[i].meaning);
	}
	return 0;
}

/* PRAGMA integrity_check gives one row "ok", or the first damage in words. */
static int check_structure(sqlite3 *db, const char *path, char *error)
{
	sqlite3_stmt *statement = NULL;
	int result = 0;

	if (sqlite3_prepare_v2(db, "PRAGMA integrity_check(1)", -1, &statement, NULL) ||
		sqlite3_step(statement) != SQLITE_ROW) {
		result = read_failed(db, path, error);
	} else {
		const char *text = (const char *)sqlite3_column_text(statement, 0);

		if (!text || sqlite3_stricmp(text, "ok"))
			result = store_explain(error, -EPROTO,
				"the ledger %s is damaged: %s; keep the file and restore a backup", path,
				text ? text : "?");
	}
	sqlite3_finalize(statement);
	return result;
}

int ledger_books_check(sqlite3 *db, const char *path, bool structure, char *error)
{
	int code = structure ? check_structure(db, path, error) : 0;

	if (!code)
		code = run_checks(db, path, books_checks, sizeof(books_checks) / sizeof(*books_checks), error);
	if (!code && structure)
		code = run_checks(
			db, path, structure_checks, sizeof(structure_checks) / sizeof(*structure_checks), error);
	return code;
}

int ledger_guard_load(sqlite3 *db, const char *path, struct guard *guard, char *error)
{
	sqlite3_stmt *statement = NULL;
	int64_t orders;
	int step = SQLITE_DONE;
	int code = 0;

	if (read_integer(db, "SELECT coalesce(sum(orders), 0) FROM sales", &orders) ||
		sqlite3_prepare_v2(db,
			"SELECT serial, position, sale, buyer, iif(state IN ('held', 'confirmed'), quantity, 0) FROM orders",
			-1, &statement, NULL))
		return read_failed(db, path, error);
	if (guard_reserve(guard, (size_t)orders))
		code = store_explain(
			error, -ENOMEM, "no memory for the %lld orders of the ledger %s", (long long)orders, path);
	while (!code && (step = sqlite3_step(statement)) == SQLITE_ROW) {
		uint64_t serial = (uint64_t)sqlite3_column_int64(statement, 0);

		/* The books have been checked: there are as many rows as room was reserved for. */
		if (guard_find(guard, serial))
			code = store_explain(error, -EPROTO,
				"the ledger %s has order %016llx twice; keep the file, restore a backup or repair it",
				path, (unsigned long long)serial);
		else
			guard_add(guard, serial, sqlite3_column_int64(statement, 1),
				(uint32_t)sqlite3_column_int64(statement, 2),
				(uint64_t)sqlite3_column_int64(statement, 3),
				(uint32_t)sqlite3_column_int64(statement, 4));
	}
	if (!code && step != SQLITE_DONE)
		code = read_failed(db, path, error);
	sqlite3_finalize(statement);
	return code;
}
