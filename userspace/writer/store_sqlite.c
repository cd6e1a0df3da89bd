/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The SQLite store: opening, transactions, failure, checkpoints. The operations are in the other files store_sqlite_*.c.
 *
 * Durability. Journal mode WAL with synchronous=FULL: COMMIT returns after fsync of the WAL. The store adds two
 * things:
 *
 * 1. A failed write, fsync or COMMIT is never tried again on the same connection. After a failed fsync the kernel may
 * have marked the pages clean, so that a second fsync succeeds without having written them. The transaction is rolled
 * back and the database closed; the next call opens it anew, which lets SQLite find out from the files what is
 * committed.
 * 2. Opening ends with a full checkpoint that must succeed. Recovery can find a transaction in the WAL whose fsync had
 * not happened (killed between write and fsync) or had failed; to a later delivery it would look stored (KNOWN). The
 * checkpoint writes all of it into the database file once more and syncs that, so what is acknowledged is on the disk.
 * A reader with an older snapshot stands against it, and until he ends the ledger stays shut: to sync the WAL again may do
 * nothing (see 1), and to write it anew in place would put at risk what has been acknowledged.
 * 3. A ledger that is not at its path any more is left with all its orders in one place. SQLite would leave those in
 * the WAL behind, to be lost with it or to be mixed into the file that takes the ledger's place.
 *
 * Checkpoints are made in maintain(), after the acknowledgement has been sent, and never by a COMMIT.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "sluice/plant.h"
#include "writer/store_sqlite.h"

/* How long another program (an UPDATE in the sqlite3 shell) may keep the writer waiting. */
#define LEDGER_BUSY_MS 2000
/* WAL pages (4 KiB) between checkpoints: 16 MiB. */
#define WAL_CHECKPOINT_PAGES 4096
/* A WAL of this size (1 GiB) means that some reader has kept an old snapshot open for very long. */
#define WAL_WARN_PAGES (64 * WAL_CHECKPOINT_PAGES)

#define LEDGER_PRAGMAS \
	"PRAGMA synchronous = FULL;" \
	"PRAGMA foreign_keys = ON;" \
	"PRAGMA trusted_schema = OFF;" \
	"PRAGMA cell_size_check = ON;" \
	"PRAGMA temp_store = MEMORY;" \
	"PRAGMA cache_size = -65536" /* KiB */

static const char *const statement_sql[] = {
#define X(name, sql) sql,
	LEDGER_STATEMENTS(X)
#undef X
};

/* Called by SQLite after each commit with the number of pages in the WAL; less than before means that it began anew. */
static int note_wal_pages(void *arg, sqlite3 *db, const char *name, int pages)
{
	struct ledger *ledger = arg;

	(void)db;
	(void)name;
	if (pages < ledger->wal_pages)
		ledger->checkpoint_at = WAL_CHECKPOINT_PAGES;
	ledger->wal_pages = pages;
	return SQLITE_OK;
}

static void reset_statements(struct ledger *ledger)
{
	for (unsigned i = 0; i < LEDGER_STATEMENT_COUNT; i++)
		sqlite3_reset(ledger->statements[i]);
}

static void close_database(struct ledger *ledger)
{
	for (unsigned i = 0; i < LEDGER_STATEMENT_COUNT; i++) {
		sqlite3_finalize(ledger->statements[i]);
		ledger->statements[i] = NULL;
	}
	if (sqlite3_close(ledger->db) != SQLITE_OK)
		log_error("cannot close the ledger %s: %s", ledger->path, sqlite3_errmsg(ledger->db));
	ledger->db = NULL;
	guard_clear(&ledger->guard);
	due_clear(&ledger->due);
}

/* Writes all of the WAL into the database file and syncs it. A reader may keep the WAL from being cut; that is no
 * matter as long as every page was copied.
 */
static int checkpoint_all(struct ledger *ledger, char *error)
{
	int pages = 0, copied = 0;
	int code = sqlite3_wal_checkpoint_v2(ledger->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, &pages, &copied);

	if (code == SQLITE_OK || (code == SQLITE_BUSY && pages >= 0 && pages == copied))
		return 0;
	if ((code & 0xff) == SQLITE_BUSY)
		return store_explain(error, -EBUSY,
			"a reader keeps an old snapshot of the ledger %s open: end it (fuser %s-shm tells which)",
			ledger->path, ledger->path);
	return store_explain(
		error, -EIO, "cannot checkpoint the ledger %s: %s", ledger->path, sqlite3_errmsg(ledger->db));
}

static int sync_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	int code = fd < 0 || fsync(fd) ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return code;
}

/* Writes all that is in the ledger into a new file beside it. */
static int put_aside(struct ledger *ledger, char *error)
{
	char path[PATH_MAX];
	char *sql = NULL;
	int code;

	if (snprintf(path, sizeof(path), "%s.rescued-%" PRIu64, ledger->path, time_wall_ns()) >= (int)sizeof(path))
		return store_explain(error, -ENAMETOOLONG, "the path of the ledger is too long: %s", ledger->path);
	code = ledger_file_create(path, error);
	if (code)
		return code;
	reset_statements(ledger);
	sql = sqlite3_mprintf("VACUUM INTO %Q", path);
	if (!sql || sqlite3_exec(ledger->db, sql, NULL, NULL, NULL) || sync_file(path)) {
		code = store_explain(error, -EIO, "cannot write %s: %s", path, sqlite3_errmsg(ledger->db));
		unlink(path);
	} else {
		log_error("all that was in the ledger %s is now in %s", ledger->path, path);
	}
	sqlite3_free(sql);
	return code;
}

/* Before a file is closed that its path does not name any more. If it was renamed, the checkpoint makes it whole where it is now. If it has
 * no name left (it was replaced, or moved to another file system, which is a copy and a removal) it ends with its last descriptor; then the
 * WAL may be emptied only when all is in a file of its own.
 */
static void leave_moved(struct ledger *ledger)
{
	char error[STORE_ERROR_MAX];
	int code = 0;

	log_error("the ledger %s was moved or replaced while it was in use", ledger->path);
	if (!ledger_file_has_name(&ledger->file))
		code = put_aside(ledger, error);
	if (!code)
		code = checkpoint_all(ledger, error);
	if (code)
		log_error("%s. The last orders are only in %s-wal: leave it there, and put the ledger back beside it",
			error, ledger->path);
}

static int use_wal(struct ledger *ledger, char *error)
{
	sqlite3_stmt *statement = NULL;
	const char *mode = NULL;
	int code = 0;

	if (!sqlite3_prepare_v2(ledger->db, "PRAGMA journal_mode = WAL", -1, &statement, NULL) &&
		sqlite3_step(statement) == SQLITE_ROW)
		mode = (const char *)sqlite3_column_text(statement, 0);
	if (!mode || strcmp(mode, "wal"))
		code = store_explain(error, -EIO,
			"cannot switch the ledger %s to WAL: %s (is it on a local file system?)", ledger->path,
			sqlite3_errmsg(ledger->db));
	sqlite3_finalize(statement);
	return code;
}

static int prepare_statements(struct ledger *ledger, char *error)
{
	for (unsigned i = 0; i < LEDGER_STATEMENT_COUNT; i++)
		if (sqlite3_prepare_v3(
			    ledger->db, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT, &ledger->statements[i], NULL))
			return store_explain(error, -EPROTO, "the ledger %s lacks something: %s", ledger->path,
				sqlite3_errmsg(ledger->db));
	return 0;
}

/* Opens and trusts nothing: what the file is is checked before anything in it is changed. */
static int open_database(struct ledger *ledger, char *error)
{
	int64_t version = 0;
	int code;

	if (!ledger_file_same(ledger->path, &ledger->file))
		return store_explain(error, -EIO,
			"the ledger %s was moved or replaced: put it back; if it comes back as a copy, restart the writer then",
			ledger->path);
	code = sqlite3_open_v2(ledger->path, &ledger->db,
		SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_EXRESCODE, NULL);
	if (code == SQLITE_OK) {
		sqlite3_busy_timeout(ledger->db, LEDGER_BUSY_MS);
		sqlite3_db_config(ledger->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
		code = sqlite3_exec(ledger->db, LEDGER_PRAGMAS, NULL, NULL, NULL);
		if (planted(no_sync))
			sqlite3_exec(ledger->db, "PRAGMA synchronous = OFF", NULL, NULL, NULL);
	}
	/* Pragmas may be the first to read the file. */
	if (code && (code & 0xff) != SQLITE_NOTADB) {
		code = store_explain(
			error, -EIO, "cannot open the ledger %s: %s", ledger->path, sqlite3_errmsg(ledger->db));
		goto out;
	}
	code = ledger_schema_open(ledger->db, ledger->path, &version, error);
	if (!code)
		code = use_wal(ledger, error);
	if (!code)
		code = ledger_books_check(ledger->db, ledger->path, version, false, error);
	if (!code)
		code = checkpoint_all(ledger, error);
	if (!code)
		code = ledger_guard_load(ledger->db, ledger->path, &ledger->guard, &ledger->due, error);
	if (!code)
		code = prepare_statements(ledger, error);
	if (code)
		goto out;
	ledger->base.schema = (unsigned)version;
	ledger->wal_pages = 0;
	ledger->checkpoint_at = WAL_CHECKPOINT_PAGES;
	sqlite3_wal_hook(ledger->db, note_wal_pages, ledger); /* also turns SQLite's own checkpoints off */
out:
	/* The WAL of another ledger may lie beside this one, and the books object: then the file stays what it is. */
	if (code && ledger->db)
		sqlite3_db_config(ledger->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	if (code)
		close_database(ledger);
	return code;
}

int ledger_fail(struct ledger *ledger, const char *doing)
{
	store_explain(ledger->base.error, -EIO, "cannot %s in the ledger %s: %s (SQLite code %d)", doing, ledger->path,
		sqlite3_errmsg(ledger->db), sqlite3_extended_errcode(ledger->db));
	log_error("%s; it is closed, and opened anew before the next transaction", ledger->base.error);
	reset_statements(ledger);
	/* Closing would roll back as well; SQLite has often done so by itself. */
	if (!sqlite3_get_autocommit(ledger->db))
		ledger_step_done(ledger->statements[LEDGER_ROLLBACK]);
	close_database(ledger);
	return -EIO;
}

int ledger_begin(struct ledger *ledger)
{
	if (ledger->in_bracket)
		return ledger->db ? 0 : store_explain(ledger->base.error, -EIO, "the transaction has failed before");
	if (ledger->db && !ledger_file_same(ledger->path, &ledger->file)) {
		leave_moved(ledger);
		close_database(ledger);
	}
	if (!ledger->db) {
		if (open_database(ledger, ledger->base.error)) {
			log_error("%s", ledger->base.error);
			return -EIO;
		}
		log_info("the ledger %s is open again", ledger->path);
	}
	if (planted(acknowledge_before_commit) && !sqlite3_get_autocommit(ledger->db))
		ledger_step_done(ledger->statements[LEDGER_COMMIT]);
	ledger->guard_changed = false;
	return ledger_step_done(ledger->statements[LEDGER_BEGIN]) ? ledger_fail(ledger, "begin a transaction") : 0;
}

int ledger_commit(struct ledger *ledger)
{
	if (ledger->in_bracket || planted(acknowledge_before_commit))
		return 0;
	return ledger_step_done(ledger->statements[LEDGER_COMMIT]) ? ledger_fail(ledger, "commit") : 0;
}

int ledger_rollback(struct ledger *ledger, int code)
{
	if (ledger->in_bracket)
		return code;
	if (ledger_step_done(ledger->statements[LEDGER_ROLLBACK]))
		return ledger_fail(ledger, "roll back");
	if (ledger->guard_changed) {
		log_warn("changes of orders were taken back: the ledger %s is read anew", ledger->path);
		close_database(ledger);
	}
	return code;
}

int ledger_end(struct ledger *ledger, int code)
{
	if (!code)
		return ledger_commit(ledger);
	return code == -EIO ? code : ledger_rollback(ledger, code);
}

static int bracket_begin(struct store *store)
{
	struct ledger *ledger = ledger_of(store);
	int code = ledger_begin(ledger);

	ledger->in_bracket = !code;
	return code;
}

static int bracket_commit(struct store *store)
{
	struct ledger *ledger = ledger_of(store);

	ledger->in_bracket = false;
	return ledger->db ? ledger_commit(ledger) : -EIO;
}

static int bracket_rollback(struct store *store, int code)
{
	struct ledger *ledger = ledger_of(store);

	ledger->in_bracket = false;
	return ledger->db ? ledger_rollback(ledger, code) : -EIO;
}

sqlite3_stmt *ledger_statement(struct ledger *ledger, enum ledger_statement name)
{
	sqlite3_reset(ledger->statements[name]);
	return ledger->statements[name];
}

int ledger_step_done(sqlite3_stmt *statement)
{
	int code = sqlite3_step(statement);

	sqlite3_reset(statement);
	return code == SQLITE_DONE ? 0 : code;
}

void ledger_copy_text(char *to, size_t size, sqlite3_stmt *row, int column)
{
	const char *text = (const char *)sqlite3_column_text(row, column);

	snprintf(to, size, "%s", text ? text : "");
}

char *ledger_dup_text(sqlite3_stmt *row, int column)
{
	const char *text = (const char *)sqlite3_column_text(row, column);

	return text ? strdup(text) : NULL;
}

/* Copies the WAL into the database file when it has grown by WAL_CHECKPOINT_PAGES. PASSIVE waits for nobody; what a
 * reader still needs stays for the next time.
 */
static void checkpoint_if_due(struct ledger *ledger)
{
	if (!ledger->db || ledger->wal_pages < ledger->checkpoint_at)
		return;
	switch (sqlite3_wal_checkpoint_v2(ledger->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL) & 0xff) {
	case SQLITE_OK:
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		break;
	default:
		ledger_fail(ledger, "checkpoint");
		return;
	}
	ledger->checkpoint_at = ledger->wal_pages + WAL_CHECKPOINT_PAGES;
	if (ledger->wal_pages >= WAL_WARN_PAGES)
		log_warn("the WAL of the ledger %s has %d MiB: a reader keeps an old snapshot open", ledger->path,
			ledger->wal_pages / 256);
}

static void sqlite_maintain(struct store *store, uint64_t now_ns)
{
	struct ledger *ledger = ledger_of(store);

	if (ledger->db)
		ledger_once_prune(ledger, now_ns);
	checkpoint_if_due(ledger);
}

static void sqlite_close(struct store *store)
{
	struct ledger *ledger = ledger_of(store);
	char error[STORE_ERROR_MAX];

	if (ledger->db && !ledger_file_same(ledger->path, &ledger->file))
		leave_moved(ledger);
	else if (ledger->db && checkpoint_all(ledger, error))
		log_warn("%s; nothing is lost, the next start does it", error);
	close_database(ledger);
	ledger_file_release(&ledger->file);
	free(ledger->batch_sales);
	free(ledger);
}

static const struct store_ops sqlite_ops = {
	.name = "sqlite",
	.begin = bracket_begin,
	.commit = bracket_commit,
	.rollback = bracket_rollback,
	.admit = ledger_admit,
	.orders_change = ledger_orders_change,
	.orders_due = ledger_orders_due,
	.orders_list = ledger_orders_list,
	.order_get = ledger_order_get,
	.sales_list = ledger_sales_list,
	.sale_books = ledger_sale_books,
	.sale_put = ledger_sale_put,
	.stock_move = ledger_stock_move,
	.sale_event = ledger_sale_event,
	.events_list = ledger_events_list,
	.once_get = ledger_once_get,
	.once_put = ledger_once_put,
	.document_put = ledger_document_put,
	.document_get = ledger_document_get,
	.documents_list = ledger_documents_list,
	.list_put = ledger_list_put,
	.list_remove = ledger_list_remove,
	.list_page = ledger_list_page,
	.list_clear = ledger_list_clear,
	.maintain = sqlite_maintain,
	.close = sqlite_close,
};

int store_sqlite_open(const char *path, struct store **store, char *error)
{
	struct ledger *ledger;
	int code;

	if (strlen(path) >= sizeof(ledger->path))
		return store_explain(error, -ENAMETOOLONG, "the path of the ledger is too long: %s", path);
	/* Statistics that nobody reads take a lock at each allocation. Has no effect, and does no harm, once SQLite is
	 * in use.
	 */
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
	ledger = calloc(1, sizeof(*ledger));
	if (!ledger)
		return store_explain(error, -ENOMEM, "out of memory");
	ledger->base.ops = &sqlite_ops;
	ledger->file.lock_fd = -1;
	ledger->file.name_fd = -1;
	strcpy(ledger->path, path);
	ledger->batch_sales = calloc(WIRE_BATCH_MAX, sizeof(*ledger->batch_sales));
	code = ledger->batch_sales ? ledger_file_claim(path, &ledger->file, error)
				   : store_explain(error, -ENOMEM, "out of memory");
	if (!code)
		code = open_database(ledger, error);
	if (code)
		sqlite_close(&ledger->base);
	else
		*store = &ledger->base;
	return code;
}

int store_sqlite_audit(const char *path, char *error)
{
	struct ledger_file file = {.lock_fd = -1, .name_fd = -1};
	int64_t version = 0;
	sqlite3 *db = NULL;
	int code = ledger_file_inspect(path, &file, error);

	if (code)
		return code;
	if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW, NULL)) {
		code = store_explain(error, -EIO, "cannot open the ledger %s: %s", path, sqlite3_errmsg(db));
	} else {
		sqlite3_busy_timeout(db, LEDGER_BUSY_MS);
		code = ledger_schema_open(db, path, &version, error);
		if (!code)
			code = ledger_books_check(db, path, version, true, error);
	}
	sqlite3_close(db);
	return code;
}
