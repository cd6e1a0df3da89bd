/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The ledger's books: what must agree with what, and the guard's memory as it is read from them. Called when the store is
 * opened and by the audit.
 *
 * The sums of the sales are compared with the orders each time the ledger is opened, because all that follows builds on
 * them. What only a defect in this program or a hand in the file could break (the order of events, their agreement with
 * the orders) is for the audit: it takes a pass over every event.
 */
#include <errno.h>

#include "writer/store_sqlite.h"

int ledger_read_integer(sqlite3 *db, const char *sql, int64_t *value)
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

int ledger_read_failed(sqlite3 *db, const char *path, char *error)
{
	int code = sqlite3_errcode(db) & 0xff;

	if (code == SQLITE_NOTADB)
		return store_explain(error, -EPROTO,
			"%s is not an SQLite database: give the path of a ledger, or of a new file", path);
	return store_explain(error, -EIO, "cannot read the ledger %s: %s", path, sqlite3_errmsg(db));
}

/* Each counts what must not be; 0 is well. */
struct books_check {
	int64_t since; /* schema version */
	const char *sql;
	const char *meaning;
};

static const struct books_check books_checks[] = {
	{1, "SELECT count(*) FROM sales WHERE held + confirmed > put_in OR held < 0 OR confirmed < 0",
		"sales that are oversold"},
	{1, "SELECT count(*) FROM sales s WHERE put_in <> (SELECT coalesce(sum(delta), 0) FROM stock_moves WHERE sale = s.id)",
		"sales whose stock is not the sum of its movements"},
	{1,
		"SELECT count(*) FROM sales s LEFT JOIN (SELECT sale, count(*) AS orders, max(seq) AS last,"
		" sum(iif(state = 'held', quantity, 0)) AS held, sum(iif(state = 'confirmed', quantity, 0)) AS confirmed"
		" FROM orders GROUP BY sale) o ON o.sale = s.id"
		" WHERE s.orders <> coalesce(o.orders, 0) OR s.orders <> coalesce(o.last, 0)"
		" OR s.held <> coalesce(o.held, 0) OR s.confirmed <> coalesce(o.confirmed, 0)",
		"sales whose sums are not those of their orders, or with gaps in seq"},
};

#define OF_ORDERS "order_position IS NOT NULL"

/* The type of the event before in the life of the same order, or among those of the same sale; NULL if there is none. */
#define ORDER_BEFORE "lag(type) OVER (PARTITION BY order_position ORDER BY position)"
#define SALE_BEFORE "lag(type) OVER (PARTITION BY sale ORDER BY position)"
#define STOCK_BEFORE "lag(type) OVER (PARTITION BY sale, type IN ('sale.sold_out', 'sale.restocked') ORDER BY position)"

static const struct books_check structure_checks[] = {
	{1, "SELECT count(*) - count(DISTINCT serial) FROM orders", "orders with the serial of another"},
	{1, "SELECT count(*) FROM pragma_foreign_key_check", "rows that belong to no sale or order"},
	{2, "SELECT count(*) FROM events e JOIN orders o ON o.position = e.position",
		"events at the position of an order"},
	{2,
		"SELECT count(*) FROM events WHERE (type LIKE 'order.%') <> (" OF_ORDERS
		") OR type NOT IN ('order.confirmed',"
		" 'order.cancelled', 'order.expired', 'order.refunded', 'sale.opened', 'sale.sold_out', 'sale.restocked',"
		" 'sale.ended')",
		"events of no known type, or of none that an order or a sale has"},
	{2,
		"SELECT count(*) FROM events e JOIN orders o ON o.position = e.order_position WHERE e.position < o.position"
		" OR e.sale <> o.sale",
		"events before their order, or of another sale"},
	{2,
		"SELECT count(*) FROM (SELECT type, " ORDER_BEFORE " AS before FROM events WHERE " OF_ORDERS
		") WHERE NOT"
		" CASE type WHEN 'order.confirmed' THEN before IS NULL OR before = 'order.expired'"
		" WHEN 'order.refunded' THEN before IS 'order.confirmed' ELSE before IS NULL END",
		"events that cannot follow the one before in the life of their order"},
	{2,
		"SELECT count(*) FROM orders o LEFT JOIN (SELECT order_position, type, at_ns, resolved_by, max(position)"
		" FROM events WHERE " OF_ORDERS " GROUP BY order_position) e ON e.order_position = o.position"
		" WHERE o.state <> coalesce(substr(e.type, 7), 'held') OR o.resolved_ns <> coalesce(e.at_ns, 0)"
		" OR o.resolved_by <> coalesce(e.resolved_by, '')",
		"orders whose state is not that of their last event"},
	{2,
		"SELECT count(*) FROM events e JOIN orders o ON o.position = e.order_position WHERE e.type = 'order.expired'"
		" AND (o.hold_seconds = 0 OR (e.at_ns - o.admitted_ns) / 1000000000 < o.hold_seconds)",
		"orders that expired before their time"},
	{2,
		"SELECT count(*) FROM orders o LEFT JOIN stock_moves m ON m.key = '" STORE_REFUND_KEY
		"' || printf('%016x', o.serial) WHERE (o.state = 'refunded' AND NOT o.restocked) <> (m.key IS NOT NULL)"
		" OR m.sale <> o.sale OR m.delta <> -o.quantity OR (o.restocked AND o.state <> 'refunded')",
		"refunds that do not agree with the movements of the stock"},
	{2,
		"SELECT count(*) FROM sales s LEFT JOIN (SELECT sale, sum(type = 'sale.opened') AS opened,"
		" sum(type = 'sale.sold_out') - sum(type = 'sale.restocked') AS sold_out, sum(type = 'sale.ended') AS ended"
		" FROM events WHERE NOT " OF_ORDERS " GROUP BY sale) e ON e.sale = s.id"
		" WHERE s.announced_opened <> coalesce(e.opened, 0) OR s.announced_sold_out <> coalesce(e.sold_out, 0)"
		" OR s.announced_ended <> coalesce(e.ended, 0)",
		"sales of which something else was said than their events say"},
	{2,
		"SELECT count(*) FROM (SELECT type, " SALE_BEFORE " AS before, " STOCK_BEFORE
		" AS stock FROM events WHERE NOT " OF_ORDERS
		") WHERE before = 'sale.ended' OR CASE type WHEN 'sale.sold_out' THEN before IS NULL"
		" OR stock = 'sale.sold_out' WHEN 'sale.restocked' THEN stock IS NOT 'sale.sold_out' ELSE 0 END",
		"events of sales that cannot follow the one before"},
};

static int run_checks(
	sqlite3 *db, const char *path, int64_t version, const struct books_check *checks, unsigned count, char *error)
{
	for (unsigned i = 0; i < count; i++) {
		int64_t wrong;

		if (checks[i].since > version)
			continue;
		if (ledger_read_integer(db, checks[i].sql, &wrong))
			return ledger_read_failed(db, path, error);
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
		result = ledger_read_failed(db, path, error);
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

int ledger_books_check(sqlite3 *db, const char *path, int64_t version, bool structure, char *error)
{
	int code = structure ? check_structure(db, path, error) : 0;

	if (!code)
		code = run_checks(db, path, version, books_checks, sizeof(books_checks) / sizeof(*books_checks), error);
	if (!code && structure)
		code = run_checks(db, path, version, structure_checks,
			sizeof(structure_checks) / sizeof(*structure_checks), error);
	return code;
}

/* Adds the order of a row to guard and due. Returns 0 or -ENOMEM. */
static int load_order(sqlite3_stmt *row, struct guard *guard, struct due *due)
{
	bool is_held = sqlite3_column_int(row, 5);
	int64_t position = sqlite3_column_int64(row, 1);
	uint64_t expires_ns =
		store_expires_ns((uint64_t)sqlite3_column_int64(row, 6), (uint32_t)sqlite3_column_int64(row, 7));

	/* The books have been checked: there are as many rows as room was reserved for. */
	guard_add(guard, (uint64_t)sqlite3_column_int64(row, 0), position, (uint32_t)sqlite3_column_int64(row, 2),
		(uint64_t)sqlite3_column_int64(row, 3), (uint32_t)sqlite3_column_int64(row, 4));
	if (!is_held || !expires_ns)
		return 0;
	if (due_reserve(due, 1))
		return -ENOMEM;
	due_add(due, (struct due_entry){.at_ns = expires_ns, .position = position});
	return 0;
}

int ledger_guard_load(sqlite3 *db, const char *path, struct guard *guard, struct due *due, char *error)
{
	sqlite3_stmt *statement = NULL;
	int64_t orders;
	int step = SQLITE_DONE;
	int code = 0;

	if (ledger_read_integer(db, "SELECT coalesce(sum(orders), 0) FROM sales", &orders) ||
		sqlite3_prepare_v2(db,
			"SELECT serial, position, sale, buyer, iif(state IN ('held', 'confirmed'), quantity, 0), "
			"state = 'held', admitted_ns, hold_seconds FROM orders",
			-1, &statement, NULL))
		return ledger_read_failed(db, path, error);
	if (guard_reserve(guard, (size_t)orders))
		code = store_explain(
			error, -ENOMEM, "no memory for the %lld orders of the ledger %s", (long long)orders, path);
	while (!code && (step = sqlite3_step(statement)) == SQLITE_ROW) {
		uint64_t serial = (uint64_t)sqlite3_column_int64(statement, 0);

		if (guard_find(guard, serial))
			code = store_explain(error, -EPROTO,
				"the ledger %s has order %016llx twice; keep the file, restore a backup or repair it",
				path, (unsigned long long)serial);
		else if (load_order(statement, guard, due))
			code = store_explain(error, -ENOMEM, "no memory for the orders of the ledger %s", path);
	}
	if (!code && step != SQLITE_DONE)
		code = ledger_read_failed(db, path, error);
	sqlite3_finalize(statement);
	return code;
}
