/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The ledger's tables, how an older ledger gets them, and the check that a file is a ledger. Called when the store is
 * opened and by the audit. The tables are meant to be read by people with the sqlite3 shell; the views put times and
 * ids into words.
 *
 * A new ledger is made the way an old one is brought up to date, step by step: so there is one form of each version,
 * however a ledger came to it.
 *
 * A serial or buyer is a u64; SQLite's integers are signed, so the same 64 bits are stored and show as negative
 * numbers from 2^63 on. The views show them in hex, as the API does.
 */
#include <errno.h>

#include "common/log.h"
#include "writer/store_sqlite.h"

#define LEDGER_APPLICATION_ID 0x534c5543 /* "SLUC"; file(1) and the sqlite3 shell show it */
#define LEDGER_SCHEMA_VERSION 2

#define STRING_OF(x) #x
#define NUMBER_TEXT(x) STRING_OF(x)
#define LEDGER_APPLICATION_TEXT NUMBER_TEXT(LEDGER_APPLICATION_ID)

/* RFC 3339 with milliseconds, from ns. */
#define TIME_TEXT_SQL(column) \
	" strftime('%Y-%m-%dT%H:%M:%S', " column " / 1000000000, 'unixepoch') || printf('.%03dZ', " column \
	" / 1000000 % 1000)"
#define TIME_SQL(column, name) TIME_TEXT_SQL(column) " AS " name
#define ADMITTED_AT TIME_SQL("o.admitted_ns", "admitted_at")
#define COMMITTED_AT TIME_SQL("o.committed_ns", "committed_at")
#define RESOLVED_AT_SQL TIME_TEXT_SQL("o.resolved_ns")
#define OPENS_AT TIME_SQL("opens_ns", "opens_at")
#define ENDS_AT TIME_SQL("ends_ns", "ends_at")
#define MOVED_AT TIME_SQL("m.at_ns", "at")
#define HAPPENED_AT TIME_SQL("e.at_ns", "at")

/* The CHECKs and UNIQUEs repeat what the transactions see to: a defect there ends in an error, not in an oversell.
 * `position` is the order of commit, `seq` the same within a sale: rows and index are only ever appended to.
 */
static const char version_1_sql[] =
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
	"PRAGMA user_version = 1;";

/* The life of orders after their admission. An event's position is of one sequence with those of orders. The orders'
 * state and when and by whom it was made are those of their last event. Columns that an admission does not name cost it
 * a byte each.
 */
static const char version_2_sql[] =
	"ALTER TABLE orders ADD COLUMN resolved_ns INTEGER NOT NULL DEFAULT 0;" /* 0 = held */
	"ALTER TABLE orders ADD COLUMN resolved_by TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE orders ADD COLUMN restocked INTEGER NOT NULL DEFAULT 0 CHECK(restocked = 0 OR restocked = 1);"
	"ALTER TABLE sales ADD COLUMN announced_opened INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE sales ADD COLUMN announced_sold_out INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE sales ADD COLUMN announced_ended INTEGER NOT NULL DEFAULT 0;"
	"CREATE TABLE events("
	" position INTEGER PRIMARY KEY,"
	" type TEXT NOT NULL,"
	" sale INTEGER NOT NULL REFERENCES sales(id),"
	" order_position INTEGER REFERENCES orders(position)," /* NULL = of the sale itself */
	" at_ns INTEGER NOT NULL,"
	" resolved_by TEXT NOT NULL,"
	" put_in INTEGER NOT NULL," /* the sale's sums at that moment, if it is of the sale itself */
	" held INTEGER NOT NULL,"
	" confirmed INTEGER NOT NULL"
	") STRICT;"
	"CREATE TABLE idempotency_keys("
	" position INTEGER PRIMARY KEY,"
	" key TEXT NOT NULL UNIQUE,"
	" fingerprint TEXT NOT NULL,"
	" answer TEXT NOT NULL,"
	" at_ns INTEGER NOT NULL"
	") STRICT;"
	"CREATE INDEX idempotency_keys_by_time ON idempotency_keys(at_ns);"
	"CREATE TABLE documents("
	" name TEXT PRIMARY KEY NOT NULL,"
	" value TEXT NOT NULL,"
	" changed_ns INTEGER NOT NULL"
	") STRICT;"
	"CREATE TABLE list_entries("
	" position INTEGER PRIMARY KEY,"
	" list TEXT NOT NULL CHECK(list = 'deny' OR list = 'allow'),"
	" prefix TEXT NOT NULL,"
	" expires_ns INTEGER NOT NULL," /* 0 = never */
	" label TEXT NOT NULL,"
	" reason TEXT NOT NULL,"
	" UNIQUE(list, prefix)"
	") STRICT;"
	"CREATE INDEX list_entries_by_label ON list_entries(list, label);"
	"DROP VIEW orders_view;"
	"CREATE VIEW orders_view AS SELECT printf('%016x', o.serial) AS id, s.slug AS sale, o.seq AS seq,"
	" o.state AS state, o.quantity AS quantity, printf('%016x', o.buyer) AS buyer, o.source AS source," ADMITTED_AT
	"," COMMITTED_AT ", iif(o.resolved_ns," RESOLVED_AT_SQL ", '') AS resolved_at, o.resolved_by AS resolved_by,"
	" o.restocked AS restocked FROM orders o JOIN sales s ON s.id = o.sale;"
	"CREATE VIEW events_view AS SELECT e.position AS position, e.type AS type, s.slug AS sale,"
	" printf('%016x', o.serial) AS id, e.resolved_by AS resolved_by," HAPPENED_AT
	" FROM events e JOIN sales s ON s.id = e.sale LEFT JOIN orders o ON o.position = e.order_position;"
	"PRAGMA user_version = 2;";

/* version_sql[n] leads from version n to n + 1. */
static const char *const version_sql[LEDGER_SCHEMA_VERSION] = {version_1_sql, version_2_sql};

/* One transaction, version number included: a crash leaves the ledger as it was, or as it is to be. */
static int make_version(sqlite3 *db, const char *path, int64_t version, char *error)
{
	int code = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);

	for (; !code && version < LEDGER_SCHEMA_VERSION; version++)
		code = sqlite3_exec(db, version_sql[version], NULL, NULL, NULL);
	if (!code)
		code = sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
	if (code)
		return store_explain(
			error, -EIO, "cannot make the tables of the ledger %s: %s", path, sqlite3_errmsg(db));
	return 0;
}

int ledger_schema_open(sqlite3 *db, const char *path, int64_t *version, char *error)
{
	int64_t application, objects;
	int code;

	if (ledger_read_integer(db, "PRAGMA application_id", &application) ||
		ledger_read_integer(db, "PRAGMA user_version", version) ||
		ledger_read_integer(db, "SELECT count(*) FROM sqlite_schema", &objects))
		return ledger_read_failed(db, path, error);
	if (!application && !*version && !objects) {
		if (sqlite3_db_readonly(db, "main"))
			return store_explain(error, -ENOENT, "the ledger %s is empty", path);
	} else if (application != LEDGER_APPLICATION_ID) {
		return store_explain(error, -EPROTO, "%s is a database of another program, not a ledger", path);
	} else if (*version > LEDGER_SCHEMA_VERSION) {
		return store_explain(error, -EPROTO,
			"the ledger %s has schema version %lld, this program knows up to %d: use the newer program",
			path, (long long)*version, LEDGER_SCHEMA_VERSION);
	} else if (*version < 1) {
		return store_explain(error, -EPROTO, "the ledger %s has no valid schema version (%lld): it is damaged",
			path, (long long)*version);
	}
	if (*version == LEDGER_SCHEMA_VERSION || sqlite3_db_readonly(db, "main"))
		return 0;
	code = make_version(db, path, *version, error);
	if (code)
		return code;
	if (*version)
		log_info("the ledger %s was brought from schema version %lld to %d", path, (long long)*version,
			LEDGER_SCHEMA_VERSION);
	*version = LEDGER_SCHEMA_VERSION;
	return 0;
}
