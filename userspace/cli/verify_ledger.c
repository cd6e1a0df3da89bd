/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The ledger, read out of its SQLite file. Called by `sluice verify`.
 *
 * Not by way of the daemon, because the daemon is one of those whose word is checked, and because it may be away; and not with the writer's code, which is
 * another. One read transaction is one snapshot: what is in it fits together however busy the writer is, and holds no order up (WAL). Only a writer that opens
 * the ledger meanwhile waits for its end.
 * It knows the tables of schema versions 1 and 2, of which it needs the columns that both have.
 */
#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/verify.h"

#define LEDGER_APPLICATION_ID 0x534c5543 /* "SLUC" */
#define LEDGER_VERSION_MAX 2
#define LEDGER_VERSION_DOCUMENTS 2 /* from which on there are documents, and so leases */
#define BUSY_MS 5000

static int cannot_read(sqlite3 *db, const char *path)
{
	cli_say("cannot read the ledger %s: %s", path, db ? sqlite3_errmsg(db) : "no memory");
	return CLI_FAILED;
}

static int out_of_memory(void)
{
	cli_say("no memory for the orders of the ledger");
	return CLI_FAILED;
}

static int read_number(sqlite3 *db, const char *path, const char *sql, int64_t *value)
{
	sqlite3_stmt *statement = NULL;
	int code = CLI_OK;

	if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) || sqlite3_step(statement) != SQLITE_ROW)
		code = cannot_read(db, path);
	else
		*value = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	return code;
}

/* The file may be of another program, or of a version whose tables mean something else. */
static int check_kind(sqlite3 *db, const char *path, int64_t *kind)
{
	int64_t application = 0, version = 0;
	int code = read_number(db, path, "PRAGMA application_id", &application);

	if (!code)
		code = read_number(db, path, "PRAGMA user_version", &version);
	*kind = version;
	if (code)
		return code;
	if (application != LEDGER_APPLICATION_ID) {
		cli_say("%s is not a ledger", path);
		return CLI_FAILED;
	}
	if (version < 1 || version > LEDGER_VERSION_MAX) {
		cli_say("the ledger %s has schema version %lld, and this program knows 1 to %d", path,
			(long long)version, LEDGER_VERSION_MAX);
		return CLI_FAILED;
	}
	return CLI_OK;
}

static void take_sale(sqlite3_stmt *row, struct verify_sale *sale)
{
	sale->id = (uint32_t)sqlite3_column_int64(row, 0);
	snprintf(sale->slug, sizeof(sale->slug), "%s", (const char *)sqlite3_column_text(row, 1));
	sale->opens_ns = (uint64_t)sqlite3_column_int64(row, 2);
	sale->ends_ns = (uint64_t)sqlite3_column_int64(row, 3);
	sale->per_buyer = (uint32_t)sqlite3_column_int64(row, 4);
	sale->paused = sqlite3_column_int(row, 5);
	sale->ended = sqlite3_column_int(row, 6);
	sale->put_in = sqlite3_column_int64(row, 7);
	sale->held = sqlite3_column_int64(row, 8);
	sale->confirmed = sqlite3_column_int64(row, 9);
	sale->has_sums = true;
	sale->orders = sqlite3_column_int64(row, 10);
	sale->moved = sqlite3_column_int64(row, 11);
	sale->refunded = sqlite3_column_int64(row, 12);
}

static int read_sales(sqlite3 *db, const char *path, struct verify_ledger *ledger)
{
	static const char sql[] =
		"SELECT id, slug, opens_ns, ends_ns, per_buyer, paused, ended, put_in, held, confirmed, orders,"
		" (SELECT coalesce(sum(delta), 0) FROM stock_moves WHERE sale = s.id),"
		" (SELECT coalesce(-sum(delta), 0) FROM stock_moves WHERE sale = s.id AND +key LIKE 'refund:%') FROM sales s";
	sqlite3_stmt *statement = NULL;
	int code = CLI_OK, step = SQLITE_DONE;

	if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL))
		code = cannot_read(db, path);
	while (!code && (step = sqlite3_step(statement)) == SQLITE_ROW) {
		struct verify_sale *sale =
			verify_append(&ledger->sales, &ledger->sale_count, &ledger->sale_capacity, sizeof(*sale));

		if (sale)
			take_sale(statement, sale);
		else
			code = out_of_memory();
	}
	if (!code && step != SQLITE_DONE)
		code = cannot_read(db, path);
	sqlite3_finalize(statement);
	return code;
}

/* The books of its leases, of a node of a fleet. */
static int read_leases(sqlite3 *db, const char *path, struct verify_ledger *ledger)
{
	static const char sql[] =
		"SELECT s.id, d.value FROM documents d JOIN sales s ON d.name = 'lease.' || s.id ORDER BY s.id";
	sqlite3_stmt *statement = NULL;
	int code = CLI_OK, step = SQLITE_DONE;

	if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL))
		code = cannot_read(db, path);
	while (!code && (step = sqlite3_step(statement)) == SQLITE_ROW) {
		uint32_t id = (uint32_t)sqlite3_column_int64(statement, 0);
		const char *text = (const char *)sqlite3_column_text(statement, 1);

		for (size_t i = 0; text && i < ledger->sale_count; i++)
			if (ledger->sales[i].id == id)
				ledger->sales[i].lease = json_loads(text, 0, NULL);
	}
	if (!code && step != SQLITE_DONE)
		code = cannot_read(db, path);
	sqlite3_finalize(statement);
	return code;
}

static struct verify_sale *sale_of(struct verify_ledger *ledger, uint32_t id)
{
	for (size_t i = 0; i < ledger->sale_count; i++)
		if (ledger->sales[i].id == id)
			return &ledger->sales[i];
	return NULL;
}

/* What windows and limits were before they were changed (query_windows.c). What is not understood is as if it were not there. */
static int take_windows(struct verify_sale *sale, const char *text)
{
	json_t *document = text ? json_loads(text, 0, NULL) : NULL, *item;
	int code = CLI_OK;
	size_t i;

	json_array_foreach(json_object_get(document, "windows"), i, item) {
		struct verify_window *window =
			verify_append(&sale->former, &sale->former_count, &sale->former_capacity, sizeof(*window));

		if (!window) {
			code = out_of_memory();
			break;
		}
		window->opens_ns = (uint64_t)json_integer_value(json_object_get(item, "opens_ns"));
		window->ends_ns = (uint64_t)json_integer_value(json_object_get(item, "ends_ns"));
		window->until_ns = (uint64_t)json_integer_value(json_object_get(item, "until_ns"));
		window->per_buyer = (uint32_t)json_integer_value(json_object_get(item, "per_buyer"));
	}
	json_decref(document);
	return code;
}

static int read_windows(sqlite3 *db, const char *path, struct verify_ledger *ledger)
{
	static const char sql[] =
		"SELECT s.id, d.value FROM documents d JOIN sales s ON d.name = 'windows.' || s.id ORDER BY s.id";
	sqlite3_stmt *statement = NULL;
	int code = CLI_OK, step = SQLITE_DONE;

	if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL))
		code = cannot_read(db, path);
	while (!code && (step = sqlite3_step(statement)) == SQLITE_ROW) {
		struct verify_sale *sale = sale_of(ledger, (uint32_t)sqlite3_column_int64(statement, 0));

		if (sale)
			code = take_windows(sale, (const char *)sqlite3_column_text(statement, 1));
	}
	if (!code && step != SQLITE_DONE)
		code = cannot_read(db, path);
	sqlite3_finalize(statement);
	return code;
}

static int take_order(sqlite3_stmt *row, const char *path, struct books_order *order)
{
	const char *state = (const char *)sqlite3_column_text(row, 3);

	order->id = (uint64_t)sqlite3_column_int64(row, 0);
	order->sale = (uint32_t)sqlite3_column_int64(row, 1);
	order->seq = (uint64_t)sqlite3_column_int64(row, 2);
	order->quantity = (uint32_t)sqlite3_column_int64(row, 4);
	order->buyer = (uint64_t)sqlite3_column_int64(row, 5);
	order->admitted_ns = (uint64_t)sqlite3_column_int64(row, 6);
	if (state && books_set_state(order, state))
		return CLI_OK;
	cli_say("the ledger %s has order %016llx in a state that this program does not know: \"%s\"", path,
		(unsigned long long)order->id, state ? state : "");
	return CLI_FAILED;
}

static int read_orders(sqlite3 *db, const char *path, struct verify_ledger *ledger)
{
	static const char sql[] = "SELECT serial, sale, seq, state, quantity, buyer, admitted_ns FROM orders";
	sqlite3_stmt *statement = NULL;
	int code = CLI_OK, step = SQLITE_DONE;

	if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL))
		code = cannot_read(db, path);
	while (!code && (step = sqlite3_step(statement)) == SQLITE_ROW) {
		struct books_order *order =
			verify_append(&ledger->orders, &ledger->order_count, &ledger->order_capacity, sizeof(*order));

		code = order ? take_order(statement, path, order) : out_of_memory();
	}
	if (!code && step != SQLITE_DONE)
		code = cannot_read(db, path);
	sqlite3_finalize(statement);
	return code;
}

/* Opens and reads the first page, which is when SQLite finds out what it lacks. *db is to be closed in either case. */
static int open_by(const char *name, int flags, sqlite3 **db)
{
	int code = sqlite3_open_v2(name, db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | flags, NULL);

	if (code)
		return code;
	sqlite3_busy_timeout(*db, BUSY_MS);
	return sqlite3_exec(*db, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
}

/* The path as a URI: every byte that could mean something in one is escaped. */
static int open_immutable(const char *path, sqlite3 **db)
{
	sqlite3_str *uri = sqlite3_str_new(NULL);
	char *text;
	int code;

	sqlite3_str_appendall(uri, *path == '/' ? "file://" : "file:");
	for (; *path; path++)
		sqlite3_str_appendf(uri, strchr("%?#", *path) ? "%%%02X" : "%c", (unsigned char)*path);
	sqlite3_str_appendall(uri, "?immutable=1");
	text = sqlite3_str_finish(uri);
	code = text ? open_by(text, SQLITE_OPEN_URI, db) : SQLITE_NOMEM;
	sqlite3_free(text);
	return code;
}

/* Bytes in the WAL beside a ledger; -1 if there is none. */
static off_t wal_size(const char *path)
{
	char *wal = sqlite3_mprintf("%s-wal", path);
	struct stat status;
	off_t size = wal && !stat(wal, &status) ? status.st_size : -1;

	sqlite3_free(wal);
	return size;
}

/* A ledger whose writer was stopped has no WAL, and yet says that it is one of that kind: SQLite would make a WAL and its index to read it,
 * where nothing is to be written, or can be. Told that nobody changes it, it makes none; nor does it look at a WAL, so it is never told so
 * where one has something. An empty one is what a writer that has just begun has too: there it is the last resort.
 */
static int open_of_another(const char *path, sqlite3 **db)
{
	off_t wal = wal_size(path);
	int code = wal < 0 ? open_immutable(path, db) : open_by(path, 0, db);

	if (!wal && (code == SQLITE_CANTOPEN || code == SQLITE_READONLY)) {
		sqlite3_close(*db);
		code = open_immutable(path, db);
	}
	if (wal > 0 && (code == SQLITE_CANTOPEN || code == SQLITE_READONLY))
		cli_say("its last orders are in %s-wal, which cannot be read without writing: mount the disk writable, or copy %s, -wal and -shm together",
			path, path);
	return code;
}

int verify_read_file(const char *path, enum verify_whose whose, struct verify_ledger *ledger)
{
	sqlite3 *db = NULL;
	int64_t version;
	int code;

	memset(ledger, 0, sizeof(*ledger));
	if (access(path, R_OK)) {
		cli_say("cannot read the ledger %s: %s", path, strerror(errno));
		return errno == ENOENT                      ? CLI_NOT_FOUND
			: errno == EACCES || errno == EPERM ? CLI_NOT_ALLOWED
							    : CLI_FAILED;
	}
	if (whose == VERIFY_OF_ANOTHER ? open_of_another(path, &db) : open_by(path, 0, &db)) {
		code = cannot_read(db, path);
		goto out;
	}
	code = check_kind(db, path, &version);
	if (!code && sqlite3_exec(db, "BEGIN", NULL, NULL, NULL))
		code = cannot_read(db, path);
	if (!code)
		code = read_sales(db, path, ledger);
	if (!code && version >= LEDGER_VERSION_DOCUMENTS)
		code = read_leases(db, path, ledger);
	if (!code && version >= LEDGER_VERSION_DOCUMENTS)
		code = read_windows(db, path, ledger);
	if (!code)
		code = read_orders(db, path, ledger);
	if (code)
		verify_ledger_free(ledger);
out:
	sqlite3_close(db);
	return code;
}
