/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The PostgreSQL store: connecting, the one writer, transactions, failure. The operations are in store_postgres_admit.c,
 * _change.c, _orders.c, _sales.c and _keep.c.
 *
 * Nothing of the ledger is remembered between two calls: each reads what it needs in its own transaction. So there is
 * nothing to be read anew after a failure, and a server that was restarted, or another that took its place, is believed
 * as it is.
 *
 * One writer. An advisory lock, which the server gives back when the session ends, keeps a second writer out. A session may live on
 * without its writer (a network that is cut), so there is a fence too: whoever gets the lock raises `epoch` in the
 * ledger's row, and each transaction holds that row, with the epoch that its connection began with, until it ends. A
 * transaction of an older epoch cannot commit after that.
 *
 * An outcome that is not known. When a connection breaks, or the server is silent for too long, a COMMIT may have
 * happened or not. The call gives -EIO, and the next one connects anew. It gets the lock when the old session has ended
 * and with it its transaction; then the ledger says what happened. Raising the epoch is also a commit that is waited
 * for: what stands before it in the server's log, known or unknown, is then as durable as itself (on the disk, and on
 * the synchronous standbys if there are any), so an order that is found is not acknowledged too early.
 */
#include "writer/store_postgres.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

#define POSTGRES_LOCK_KEY 0x534c554345LL /* "SLUCE" */
#define SERVER_VERSION_MIN 140000
#define LOCK_NOT_AVAILABLE "55P03"
/* How long the server may be silent; its own bound on a statement (statement_timeout below) comes first. */
#define WAIT_MS 12000

/* A person in psql who holds a row for 2 s, or a statement that takes 8, is an error and not a wait without end. The rest makes the server
 * notice within seconds that we are gone, so that the lock is free for the next. off is the one setting of synchronous_commit under which
 * COMMIT promises nothing; which of the others is the operator's choice.
 */
#define SETTINGS_SQL \
	"SELECT set_config('lock_timeout', '2000', false), set_config('statement_timeout', '8000', false), " \
	"set_config('idle_in_transaction_session_timeout', '15000', false), set_config('idle_session_timeout', '0', false), " \
	"set_config('client_connection_check_interval', '1000', false), set_config('tcp_keepalives_idle', '5', false), " \
	"set_config('tcp_keepalives_interval', '3', false), set_config('tcp_keepalives_count', '3', false), " \
	"set_config('tcp_user_timeout', '15000', false), set_config('search_path', 'pg_catalog', false), " \
	"set_config('default_transaction_isolation', 'read committed', false), " \
	"set_config('default_transaction_read_only', 'off', false), " LINK_DURABLE_SQL
/* Every statement finds its rows by an index. Without statistics (a new table in the first second of a sale) the planner might read the whole
 * table instead, for each record, and would keep to that plan.
 */
#define PLANNER_SQL \
	"SELECT set_config('enable_seqscan', 'off', false), set_config('enable_hashjoin', 'off', false), " \
	"set_config('enable_mergejoin', 'off', false), set_config('jit', 'off', false), " \
	"set_config('plan_cache_mode', 'force_generic_plan', false)"
#define FACTS_SQL \
	"SELECT current_setting('server_version_num')::bigint, pg_is_in_recovery(), current_setting('server_encoding'), " \
	"current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes')"

static const struct {
	const char *name;
	const char *sql;
} statements[] = {
#define X(name, sql) {#name, sql},
	POSTGRES_STATEMENTS(X)
#undef X
};

/* --- connecting ---------------------------------------------------------------------------------------------------------- */
static int check_version(struct link *link)
{
	int version = PQserverVersion(link->conn);

	if (version >= SERVER_VERSION_MIN)
		return 0;
	return store_explain(link->error, -EPROTO,
		"the server of the ledger %s is PostgreSQL %d: it must be 14 or newer", link->name, version / 10000);
}

static int set_up_session(struct link *link)
{
	int code = check_version(link);

	return code ? code : link_run_sql(link, SETTINGS_SQL, NULL, "set up the session", NULL);
}

/* Whether this server can keep the promise. Returns 0, -EPROTO or -EIO. */
static int check_server(struct link *link)
{
	PGresult *facts = NULL;
	int code = link_run_sql(link, FACTS_SQL, NULL, "look at the server", &facts);

	if (code)
		return code;
	if (link_bool(facts, 0, 1))
		code = store_explain(link->error, -EIO,
			"the server of the ledger %s is a standby: name the primary, or all of them", link->name);
	else if (strcmp(link_text(facts, 0, 2), "UTF8"))
		code = store_explain(link->error, -EPROTO,
			"the database of the ledger %s has the encoding %s: it must be UTF8", link->name,
			link_text(facts, 0, 2));
	else if (!strcmp(link_text(facts, 0, 3), "off"))
		code = store_explain(link->error, -EPROTO,
			"synchronous_commit is off for the ledger %s: orders would be acknowledged before they are durable",
			link->name);
	if (!code && strcmp(link_text(facts, 0, 4), "on"))
		log_warn(
			"fsync is off on the server of the ledger %s: a power failure can lose acknowledged orders and the database",
			link->name);
	if (!code && strcmp(link_text(facts, 0, 5), "on"))
		log_warn(
			"full_page_writes is off on the server of the ledger %s: a power failure can damage the database unless its "
			"file system writes whole pages",
			link->name);
	PQclear(facts);
	return code;
}

/* Waits for lock_timeout: the last writer's session may need a moment to end. Returns 0, -EBUSY or -EIO. */
static int take_lock(struct link *link)
{
	struct link_values values = {.count = 0};
	int code;

	link_put_integer(&values, POSTGRES_LOCK_KEY);
	code = link_run_sql(link, "SELECT pg_advisory_lock($1::bigint)", &values, "lock", NULL);
	if (code && !strcmp(link->sqlstate, LOCK_NOT_AVAILABLE))
		return store_explain(link->error, -EBUSY,
			"another writer has the ledger %s (an advisory lock; see pg_locks)", link->name);
	return code;
}

/* Begins a new epoch. Its COMMIT is waited for like any other: see the head of this file. */
static int raise_epoch(struct postgres *pg)
{
	static const char doing[] = "take over";
	struct link *link = &pg->link;
	PGresult *epoch = NULL, *end = NULL;
	int code = link_run_sql(link, "BEGIN", NULL, doing, NULL);

	if (!code)
		code = link_run_sql(
			link, "UPDATE sluice.ledger SET epoch = epoch + 1 RETURNING epoch", NULL, doing, &epoch);
	if (!code && PQntuples(epoch) != 1)
		code = store_explain(link->error, -EPROTO,
			"sluice.ledger of the ledger %s has %d rows instead of one: it is damaged", link->name,
			PQntuples(epoch));
	if (!code)
		code = link_run_sql(link, "COMMIT", NULL, doing, &end);
	if (!code && link->warned)
		code = link_fail(link, doing, "the server gave a warning instead of waiting for the commit");
	if (!code)
		pg->epoch = link_integer(epoch, 0, 0);
	PQclear(epoch);
	PQclear(end);
	return code;
}

static int prepare_statements(struct link *link)
{
	int code = 0;

	for (unsigned i = 0; !code && i < POSTGRES_STATEMENT_COUNT; i++)
		code = link_prepare(link, statements[i].name, statements[i].sql);
	if (!code)
		code = link_send(link);
	for (unsigned i = 0; !code && i < POSTGRES_STATEMENT_COUNT; i++)
		code = link_take(link, "prepare a statement", NULL);
	if (!code)
		code = link_finish(link);
	return code ? code : link_run_sql(link, PLANNER_SQL, NULL, "set up the session", NULL);
}

/* `opening`: also reads the books. Later connections do not: a server brings back transactions whole or not at all, and reading a long ledger
 * in the middle of a sale would cost it more than a check that found nothing at the start.
 */
static int connect_ledger(struct postgres *pg, bool opening)
{
	struct link *link = &pg->link;
	int code = link_open(link);

	if (!code)
		code = set_up_session(link);
	if (!code)
		code = take_lock(link);
	if (!code)
		code = check_server(link);
	if (!code)
		code = postgres_schema_open(link, true, &pg->base.schema);
	if (!code)
		code = postgres_rights_check(link);
	if (!code)
		code = raise_epoch(pg);
	if (!code && opening)
		code = postgres_books_check(link);
	if (!code)
		code = prepare_statements(link);
	if (code)
		link_close(link);
	return code;
}

/* --- statements ---------------------------------------------------------------------------------------------------------- */
static int note_failure(struct postgres *pg, int code)
{
	if (code) {
		pg->begun = false;
		log_error("%s; the connection is given up, and made anew before the next transaction", pg->base.error);
	}
	return code;
}

int postgres_fail(struct postgres *pg, const char *doing, const char *why)
{
	return note_failure(pg, link_fail(&pg->link, doing, why));
}

int postgres_queue(struct postgres *pg, enum postgres_statement name, const struct link_values *values)
{
	return note_failure(pg, link_queue(&pg->link, statements[name].name, values));
}

int postgres_send(struct postgres *pg)
{
	return note_failure(pg, link_send(&pg->link));
}

/* The answers of BEGIN and the fence come before all others. */
static int take_fence(struct postgres *pg)
{
	PGresult *fence = NULL;
	int code;

	pg->begun = false;
	code = link_take(&pg->link, "begin a transaction", NULL);
	if (!code)
		code = link_take(&pg->link, "begin a transaction", &fence);
	if (!code && PQntuples(fence) != 1)
		code = link_fail(&pg->link, "begin a transaction", "another writer has taken it over");
	PQclear(fence);
	return code;
}

int postgres_take(struct postgres *pg, const char *doing, PGresult **result)
{
	int code = pg->begun ? take_fence(pg) : 0;

	if (result)
		*result = NULL;
	return note_failure(pg, code ? code : link_take(&pg->link, doing, result));
}

int postgres_finish(struct postgres *pg)
{
	return note_failure(pg, link_finish(&pg->link));
}

int postgres_run(struct postgres *pg, enum postgres_statement name, const struct link_values *values, const char *doing,
	PGresult **result)
{
	int code = postgres_queue(pg, name, values);

	if (result)
		*result = NULL;
	if (!code)
		code = postgres_send(pg);
	if (!code)
		code = postgres_take(pg, doing, result);
	if (!code)
		code = postgres_finish(pg);
	if (code && result) {
		PQclear(*result);
		*result = NULL;
	}
	return code;
}

int postgres_change(struct postgres *pg, enum postgres_statement name, const struct link_values *values,
	const char *doing, unsigned rows)
{
	PGresult *result;
	int code = postgres_run(pg, name, values, doing, &result);

	if (!code && strtoul(PQcmdTuples(result), NULL, 10) != rows)
		code = postgres_fail(pg, doing, "somebody else changes its rows");
	PQclear(result);
	return code;
}

void postgres_begin_arrays(struct postgres *pg, unsigned count, unsigned texts)
{
	for (unsigned i = 0; i < count; i++)
		if (texts & 1u << i)
			link_array_begin_texts(&pg->arrays[i]);
		else
			link_array_begin_integers(&pg->arrays[i]);
}

/* --- transactions -------------------------------------------------------------------------------------------------------- */
static int begin(struct postgres *pg, enum postgres_statement first, enum postgres_statement fence)
{
	struct link_values values = {.count = 0};

	tally_clear(&pg->tally);
	pg->sale_count = 0;
	if (pg->bracket)
		return pg->link.conn ? 0
				     : store_explain(pg->base.error, -EIO,
					       "the transaction in the ledger %s has failed already", pg->link.name);
	link_check(&pg->link);
	if (!pg->link.conn) {
		if (connect_ledger(pg, false)) {
			log_error("%s", pg->base.error);
			return -EIO;
		}
		log_info("the ledger %s is open again", pg->link.name);
	}
	link_put_integer(&values, pg->epoch);
	if (postgres_queue(pg, first, NULL) || postgres_queue(pg, fence, &values))
		return -EIO;
	pg->begun = true;
	return 0;
}

int postgres_begin(struct postgres *pg)
{
	return begin(pg, POSTGRES_BEGIN, POSTGRES_FENCE);
}

int postgres_begin_reading(struct postgres *pg)
{
	return begin(pg, POSTGRES_BEGIN_READING, POSTGRES_FENCE_READING);
}

int postgres_queue_commit(struct postgres *pg)
{
	return postgres_queue(pg, POSTGRES_COMMIT, NULL);
}

/* A COMMIT of a transaction that had failed answers ROLLBACK. One that was not waited for to the end (an administrator cancelled the wait for a
 * standby) answers COMMIT and a warning; what is durable then is for the next connection to find out.
 */
int postgres_take_commit(struct postgres *pg)
{
	PGresult *result;
	int code = postgres_take(pg, "commit", &result);

	if (!code)
		code = postgres_finish(pg);
	if (!code && strcmp(PQcmdStatus(result), "COMMIT"))
		code = postgres_fail(pg, "commit", "the server rolled the transaction back");
	if (!code && pg->link.warned)
		code = postgres_fail(pg, "commit", "the server gave a warning with it");
	PQclear(result);
	return code;
}

static int commit(struct postgres *pg)
{
	int code = postgres_queue_commit(pg);

	if (!code)
		code = postgres_send(pg);
	return code ? code : postgres_take_commit(pg);
}

int postgres_end(struct postgres *pg, int code)
{
	if (pg->bracket || code == -EIO)
		return code;
	if (!code)
		return commit(pg);
	return postgres_run(pg, POSTGRES_ROLLBACK, NULL, "roll back", NULL) ? -EIO : code;
}

static int bracket_begin(struct store *store)
{
	struct postgres *pg = postgres_of(store);
	int code = postgres_begin(pg);

	pg->bracket = !code;
	return code;
}

static int bracket_commit(struct store *store)
{
	struct postgres *pg = postgres_of(store);
	int code = postgres_begin(pg); /* -EIO if it has failed */

	pg->bracket = false;
	return code ? code : commit(pg);
}

static int bracket_rollback(struct store *store, int code)
{
	struct postgres *pg = postgres_of(store);

	pg->bracket = false;
	if (!pg->link.conn)
		return -EIO;
	return postgres_run(pg, POSTGRES_ROLLBACK, NULL, "roll back", NULL) ? -EIO : code;
}

/* --- life ---------------------------------------------------------------------------------------------------------------- */
static void postgres_close(struct store *store)
{
	struct postgres *pg = postgres_of(store);

	link_close(&pg->link); /* gives the lock back */
	for (unsigned i = 0; i < POSTGRES_ARRAYS; i++)
		link_array_free(&pg->arrays[i]);
	tally_free(&pg->tally);
	free(pg->sales);
	free(pg->conninfo);
	free(pg);
}

static const struct store_ops postgres_ops = {
	.name = "postgres",
	.begin = bracket_begin,
	.commit = bracket_commit,
	.rollback = bracket_rollback,
	.admit = postgres_admit,
	.orders_change = postgres_orders_change,
	.orders_due = postgres_orders_due,
	.orders_list = postgres_orders_list,
	.order_get = postgres_order_get,
	.sales_list = postgres_sales_list,
	.sale_books = postgres_sale_books,
	.sale_put = postgres_sale_put,
	.stock_move = postgres_stock_move,
	.sale_event = postgres_sale_event,
	.events_list = postgres_events_list,
	.once_get = postgres_once_get,
	.once_put = postgres_once_put,
	.document_put = postgres_document_put,
	.document_get = postgres_document_get,
	.documents_list = postgres_documents_list,
	.list_put = postgres_list_put,
	.list_remove = postgres_list_remove,
	.list_page = postgres_list_page,
	.list_clear = postgres_list_clear,
	.maintain = postgres_maintain,
	.close = postgres_close,
};

int store_postgres_open(const char *conninfo, struct store **store, char *error)
{
	struct postgres *pg = calloc(1, sizeof(*pg));
	int code;

	if (!pg)
		return store_explain(error, -ENOMEM, "out of memory");
	pg->base.ops = &postgres_ops;
	pg->link.wait_ms = WAIT_MS;
	pg->conninfo = strdup(conninfo);
	pg->sales = calloc(WIRE_BATCH_MAX, sizeof(*pg->sales));
	if (!pg->conninfo || !pg->sales || tally_make(&pg->tally)) {
		postgres_close(&pg->base);
		return store_explain(error, -ENOMEM, "out of memory");
	}
	code = link_init(&pg->link, pg->conninfo, pg->base.error);
	if (!code)
		code = connect_ledger(pg, true);
	if (code) {
		strcpy(error, pg->base.error);
		postgres_close(&pg->base);
	} else {
		*store = &pg->base;
	}
	return code;
}

int store_postgres_audit(const char *conninfo, char *error)
{
	struct link link = {.wait_ms = WAIT_MS};
	unsigned version;
	int code = link_init(&link, conninfo, error);

	if (!code)
		code = link_open(&link);
	if (!code)
		code = set_up_session(&link);
	if (!code)
		code = check_server(&link);
	if (!code)
		code = postgres_schema_open(&link, false, &version);
	if (!code)
		code = postgres_rights_check(&link);
	if (!code)
		code = postgres_books_check(&link);
	link_close(&link);
	return code;
}

int store_postgres_describe(const char *conninfo, char *name, size_t size, char *error)
{
	struct link link = {.conn = NULL};
	int code = link_init(&link, conninfo, error);

	snprintf(name, size, "%s", link.name);
	return code;
}
