/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The tables of a ledger of schema version 1, as the writer made them then, and a ledger's rows: a sale that is put on sale with
 * five units, three of them in two orders. Never to be changed: ledgers like this exist.
 */
#ifndef SLUICE_TESTS_LEDGER_V1_H
#define SLUICE_TESTS_LEDGER_V1_H

/* RFC 3339 with milliseconds, from ns. */
#define V1_TIME_SQL(column, name) \
	" strftime('%Y-%m-%dT%H:%M:%S', " column " / 1000000000, 'unixepoch') || printf('.%03dZ', " column \
	" / 1000000 % 1000) AS " name
#define V1_ADMITTED_AT V1_TIME_SQL("o.admitted_ns", "admitted_at")
#define V1_COMMITTED_AT V1_TIME_SQL("o.committed_ns", "committed_at")
#define V1_OPENS_AT V1_TIME_SQL("opens_ns", "opens_at")
#define V1_ENDS_AT V1_TIME_SQL("ends_ns", "ends_at")
#define V1_MOVED_AT V1_TIME_SQL("m.at_ns", "at")

static const char ledger_v1_schema[] =
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
	" o.state AS state, o.quantity AS quantity, printf('%016x', o.buyer) AS buyer, o.source AS source," V1_ADMITTED_AT
	"," V1_COMMITTED_AT " FROM orders o JOIN sales s ON s.id = o.sale;"
	"CREATE VIEW sales_view AS SELECT id, slug," V1_OPENS_AT "," V1_ENDS_AT ", per_buyer, put_in, held, confirmed,"
	" put_in - held - confirmed AS unsold, orders, paused, ended FROM sales;"
	"CREATE VIEW stock_moves_view AS SELECT s.slug AS sale, m.delta AS delta, m.reason AS reason," V1_MOVED_AT
	", m.key AS key FROM stock_moves m JOIN sales s ON s.id = m.sale;"
	"PRAGMA application_id = 1397511491;"
	"PRAGMA user_version = 1;";

static const char ledger_v1_rows[] =
	"INSERT INTO sales(id, slug, opens_ns, ends_ns, per_buyer, hold_seconds, pace_per_second, order_mode, token_multiplier,"
	" paused, ended, put_in, held, confirmed, orders, created_ns) VALUES(1, 'drop-1', 1763812800250000000, 1763816400250000000,"
	" 2, 900, 0, 'confirm', 0, 0, 0, 5, 3, 0, 2, 1763812800250000000);"
	"INSERT INTO stock_moves(key, sale, delta, reason, at_ns) VALUES('create-1', 1, 5, 'created', 1763812800250000000);"
	"INSERT INTO orders(position, serial, sale, seq, state, quantity, buyer, source, network, hold_seconds, admitted_ns,"
	" committed_ns) VALUES(1, 1, 1, 1, 'held', 1, 1, '192.0.2.1', 5, 900, 1763812800249000000, 1763812800250000000),"
	" (2, -2, 1, 2, 'held', 2, -2, '2001:db8::1', 5, 0, 1763812800249000000, 1763812800250000000);";

#endif
