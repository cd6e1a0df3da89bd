/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tests of what is the PostgreSQL store's own: which databases are accepted as a ledger, and that what is acknowledged is
 * there, once, whatever becomes of the server, the connection and other sessions. What every store must do is tested by
 * test_writer_store and its sisters with SLUICE_TEST_STORE=postgres.
 */
#include <time.h>

#include "common/log.h"
#include "ledger_fixture.h"
#include "writer/consume_store.h"

#define DELIVERIES_MAX 200

/* As the owner of the ledger, and as the server's administrator. */
static const char *owner(const char *sql)
{
	return postgres_sql_as("writer", "ledger", sql);
}

static const char *admin(const char *sql)
{
	return postgres_sql_as(POSTGRES_USER, "ledger", sql);
}

static void reconfigure(const char *sql)
{
	admin(sql);
	admin("SELECT pg_reload_conf()");
}

/* A session of somebody else, to be left open. */
static PGconn *session(const char *user)
{
	char conninfo[128];
	PGconn *conn;

	snprintf(conninfo, sizeof(conninfo), "host=%s user=%s dbname=ledger", postgres_server.directory, user);
	conn = PQconnectdb(conninfo);
	assert_int_equal(PQstatus(conn), CONNECTION_OK);
	return conn;
}

static void say(PGconn *conn, const char *sql)
{
	PGresult *result = PQexec(conn, sql);

	if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK)
		fail_msg("%s: %s", sql, PQerrorMessage(conn));
	PQclear(result);
}

static void expect_sqlstate(PGconn *conn, const char *sql, const char *expected)
{
	PGresult *result = PQexec(conn, sql);
	const char *got = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	if (!got || strcmp(got, expected))
		fail_msg("%s: SQLSTATE %s, expected %s", sql, got ? got : "none", expected);
	PQclear(result);
}

static int writer_backend(void)
{
	return atoi(admin("SELECT pid FROM pg_stat_activity WHERE application_name = 'sluice-writer'"));
}

static void expect_error(const struct ledger_fixture *fixture, int code, int expected, const char *part)
{
	const char *error = fixture->store ? fixture->store->error : fixture->error;

	if (code != expected || !strstr(error, part))
		fail_msg("expected %d with \"%s\", got %d: %s", expected, part, code, code ? error : "no error");
}

static void expect_refused(struct ledger_fixture *fixture, int code, const char *part)
{
	expect_error(fixture, fixture_open(fixture), code, part);
}

/* Delivers until it is acknowledged, as the daemon does. Returns how many attempts failed. */
static unsigned deliver(struct ledger_fixture *fixture, uint64_t first, unsigned count)
{
	unsigned failed = 0;

	while (fixture_admit_range(fixture, 1, first, count)) {
		if (++failed == DELIVERIES_MAX)
			fail_msg("the batch is never stored: %s", fixture->store->error);
		usleep(50000);
	}
	return failed;
}

static void expect_exactly(struct ledger_fixture *fixture, unsigned orders)
{
	char text[32];

	for (unsigned serial = 1; serial <= orders; serial++)
		assert_int_equal(fixture_order(fixture, serial).seq, serial);
	snprintf(text, sizeof(text), "%u", orders);
	assert_string_equal(owner("SELECT count(*) FROM sluice.orders"), text);
	fixture_audit(fixture);
}

/* --- the ledger as people see it */

static void people_can_read_the_ledger_while_it_is_written(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct wire_admit record = fixture_record(1, 0x9f86d081884c7d65);

	record.source = (struct sluice_addr){.hi = 0x20010db800000000, .lo = 1};
	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	assert_int_equal(fixture_admit(fixture, &record, 1), 0);
	assert_int_equal(fixture_change(fixture, record.serial, STORE_CONFIRM), STORE_CHANGED);
	assert_string_equal(
		owner("SELECT concat_ws(' ', id, sale, seq, state, buyer, source, admitted_at, committed_at, expires_at, "
		      "resolved_at, resolved_by) FROM sluice.orders_view"),
		"9f86d081884c7d65 drop-1 1 confirmed 9f86d081884c7d65 2001:db8::1 2025-11-22T12:00:00.249Z "
		"2025-11-22T12:00:00.250Z 2025-11-22T12:15:00.249Z 2025-11-22T12:00:00.250Z shop");
	assert_string_equal(
		owner("SELECT opens_at || ' ' || unsold FROM sluice.sales_view"), "2025-11-22T12:00:00.250Z 99");
	assert_string_equal(owner("SELECT concat_ws(' ', sale, delta, reason, at, key) FROM sluice.stock_moves_view"),
		"drop-1 100 created 2025-11-22T12:00:00.250Z create-1");
	assert_string_equal(owner("SELECT concat_ws(' ', type, sale, id, by) FROM sluice.events_view"),
		"order.confirmed drop-1 9f86d081884c7d65 shop");
}

static void others_may_read_but_not_write(void **state)
{
	struct ledger_fixture *fixture = *state;

	fixture_close(fixture);
	admin("DO $$ BEGIN CREATE ROLE clerk; EXCEPTION WHEN duplicate_object THEN NULL; END $$");
	owner("GRANT USAGE ON SCHEMA sluice TO clerk; GRANT SELECT ON ALL TABLES IN SCHEMA sluice TO clerk");
	assert_int_equal(fixture_open(fixture), 0);
	fixture_close(fixture);
	owner("GRANT UPDATE ON sluice.orders TO clerk");
	expect_refused(fixture, -EPERM, "clerk may change sluice.orders");
	expect_error(fixture, fixture->backend->audit(fixture), -EPERM, "clerk");
	owner("REVOKE UPDATE ON sluice.orders FROM clerk; GRANT DELETE ON sluice.sales TO public");
	expect_refused(fixture, -EPERM, "everybody may change sluice.sales");
	owner("REVOKE DELETE ON sluice.sales FROM public; GRANT SELECT (id), UPDATE (held) ON sluice.sales TO clerk");
	expect_refused(fixture, -EPERM, "clerk may change sluice.sales");
	owner("REVOKE UPDATE (held) ON sluice.sales FROM clerk");
	assert_int_equal(fixture_open(fixture), 0);
}

static void books_that_do_not_balance_are_refused(void **state)
{
	struct ledger_fixture *fixture = *state;
	static const char *const cooked[][2] = {
		{"UPDATE sluice.sales SET held = held - 1", "UPDATE sluice.sales SET held = held + 1"},
		{"UPDATE sluice.sales SET put_in = put_in + 1", "UPDATE sluice.sales SET put_in = put_in - 1"},
		{"UPDATE sluice.sales SET orders = orders + 1", "UPDATE sluice.sales SET orders = orders - 1"},
		{"UPDATE sluice.orders SET seq = 99 WHERE seq = 10",
			"UPDATE sluice.orders SET seq = 10 WHERE seq = 99"},
		{"UPDATE sluice.orders SET state = 'cancelled', resolved_by = 'shop' WHERE seq = 5",
			"UPDATE sluice.orders SET state = 'held', resolved_by = '' WHERE seq = 5"},
		{"UPDATE sluice.orders SET quantity = 2 WHERE seq = 5",
			"UPDATE sluice.orders SET quantity = 1 WHERE seq = 5"},
		{"UPDATE sluice.orders SET sale = 7 WHERE seq = 10; UPDATE sluice.sales SET orders = 9, held = held - 1",
			"UPDATE sluice.orders SET sale = 1 WHERE seq = 10; UPDATE sluice.sales SET orders = 10, held = held + 1"},
		{"UPDATE sluice.events SET position = 3", "UPDATE sluice.events SET position = 11"},
		{"UPDATE sluice.events SET serial = 77", "UPDATE sluice.events SET serial = 1"},
	};

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 10), 0);
	assert_int_equal(fixture_change(fixture, 1, STORE_CONFIRM), STORE_CHANGED);
	fixture_close(fixture);
	for (unsigned i = 0; i < sizeof(cooked) / sizeof(*cooked); i++) {
		owner(cooked[i][0]);
		expect_refused(fixture, -EPROTO, "do not balance");
		assert_int_equal(fixture->backend->audit(fixture), -EPROTO);
		owner(cooked[i][1]);
		fixture_audit(fixture);
	}
	assert_int_equal(fixture_open(fixture), 0);
}

static void the_server_itself_refuses_an_oversell(void **state)
{
	struct ledger_fixture *fixture = *state;
	PGconn *stranger = session("writer");

	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 6), 0);
	expect_sqlstate(stranger, "UPDATE sluice.sales SET held = held + 5", "23514");
	PQfinish(stranger);
}

/* --- which databases are a ledger */

static void a_database_without_a_ledger_has_none_to_be_checked(void **state)
{
	struct ledger_fixture *fixture = *state;

	fixture_close(fixture);
	owner("DROP SCHEMA sluice CASCADE");
	expect_error(fixture, fixture->backend->audit(fixture), -ENOENT, "no ledger");
	assert_string_equal(owner("SELECT count(*) FROM pg_namespace WHERE nspname = 'sluice'"), "0");
}

static void a_schema_that_was_made_beforehand_is_used(void **state)
{
	struct ledger_fixture *fixture = *state;

	fixture_close(fixture);
	owner("DROP SCHEMA sluice CASCADE");
	admin("DO $$ BEGIN CREATE ROLE poor LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$");
	admin("CREATE SCHEMA sluice AUTHORIZATION poor");
	snprintf(fixture->path, sizeof(fixture->path), "host=%s user=poor dbname=ledger", postgres_server.directory);
	assert_int_equal(fixture_open(fixture), 0);
	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	fixture_audit(fixture);
	fixture_close(fixture);
	admin("DROP SCHEMA sluice CASCADE");
	/* and without one, he is told what he lacks */
	expect_refused(fixture, -EIO, "permission denied for database ledger");
}

static void a_schema_of_another_program_is_refused_and_not_touched(void **state)
{
	struct ledger_fixture *fixture = *state;

	fixture_close(fixture);
	owner("DROP SCHEMA sluice CASCADE; CREATE SCHEMA sluice; CREATE TABLE sluice.gates(height integer)");
	expect_refused(fixture, -EPROTO, "another program");
	assert_string_equal(
		owner("SELECT string_agg(relname, ' ') FROM pg_class WHERE relnamespace = 'sluice'::regnamespace"),
		"gates");
}

static void a_newer_schema_is_refused(void **state)
{
	struct ledger_fixture *fixture = *state;

	assert_int_equal(fixture->store->schema, 2);
	fixture_close(fixture);
	owner("UPDATE sluice.ledger SET version = 3");
	expect_refused(fixture, -EPROTO, "schema version 3");
	owner("UPDATE sluice.ledger SET version = 0");
	expect_refused(fixture, -EPROTO, "damaged");
	owner("DELETE FROM sluice.ledger");
	expect_refused(fixture, -EPROTO, "damaged");
}

static void a_database_of_another_encoding_is_refused(void **state)
{
	struct ledger_fixture *fixture = *state;

	fixture_close(fixture);
	admin("CREATE DATABASE latin OWNER writer TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
	snprintf(fixture->path, sizeof(fixture->path), "host=%s user=writer dbname=latin", postgres_server.directory);
	expect_refused(fixture, -EPROTO, "LATIN1");
	admin("DROP DATABASE latin");
}

static void a_session_that_may_only_read_is_no_ledger(void **state)
{
	struct ledger_fixture *fixture = *state;

	fixture_close(fixture);
	admin("ALTER ROLE writer SET default_transaction_read_only = on");
	expect_refused(fixture, -EIO, "read-only");
	admin("ALTER ROLE writer RESET default_transaction_read_only");
	assert_int_equal(fixture_open(fixture), 0);
}

static void a_password_is_not_taken_from_the_config_and_never_shown(void **state)
{
	struct ledger_fixture *fixture = *state;
	static const char *const strings[] = {"host=/nowhere password=hunter2",
		"postgresql://writer:hunter2@localhost/ledger", "host=/nowhere password=correct hunter2",
		"host=/nowhere password='hunter2", "host=/nowhere sslpassword=hunter2",
		"postgresql://writer:hunter2@[::1/ledger"};
	struct store *store;
	char name[256];

	fixture_close(fixture);
	for (unsigned i = 0; i < sizeof(strings) / sizeof(*strings); i++) {
		fixture->error[0] = '\0';
		assert_int_equal(store_postgres_open(strings[i], &store, fixture->error), -EINVAL);
		assert_non_null(strstr(fixture->error, "writer.postgres"));
		assert_null(strstr(fixture->error, "hunter2"));
		assert_int_equal(store_postgres_describe(strings[i], name, sizeof(name), fixture->error), -EINVAL);
		assert_null(strstr(name, "hunter2"));
	}
	assert_int_equal(store_postgres_describe("host=/run/postgresql dbname=shop passfile=/etc/p", name, sizeof(name),
				 fixture->error),
		0);
	assert_string_equal(name, "postgresql passfile=/etc/p dbname=shop host=/run/postgresql");
}

static void a_password_comes_from_a_file(void **state)
{
	struct ledger_fixture *fixture = *state;
	char file[64], text[160];
	FILE *out;

	fixture_close(fixture);
	admin("ALTER ROLE writer PASSWORD 'hunter2'");
	snprintf(text, sizeof(text),
		"sed -i 's/trust$/scram-sha-256/; 1i local all " POSTGRES_USER " trust' %s/pg_hba.conf",
		postgres_server.data);
	assert_int_equal(system(text), 0);
	admin("SELECT pg_reload_conf()");
	expect_refused(fixture, -EIO, "no password");
	snprintf(file, sizeof(file), "%s/pass", postgres_server.directory);
	out = fopen(file, "w");
	assert_non_null(out);
	fputs("*:*:*:writer:hunter2\n", out);
	fclose(out);
	assert_int_equal(chmod(file, 0600), 0);
	snprintf(text, sizeof(text), "%s passfile=%s", fixture->path, file);
	if (store_postgres_open(text, &fixture->store, fixture->error))
		fail_msg("%s", fixture->error);
	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	snprintf(text, sizeof(text), "sed -i 's/scram-sha-256$/trust/' %s/pg_hba.conf", postgres_server.data);
	assert_int_equal(system(text), 0);
	admin("SELECT pg_reload_conf()");
}

static int look_away(const struct store_order *order, void *arg)
{
	(void)order;
	(void)arg;
	return 0;
}

/* Reads of whole tables since pg_stat_reset. A session hands its counts in when it ends, at the latest. */
static int whole_reads(struct ledger_fixture *fixture)
{
	fixture_close(fixture);
	while (writer_backend())
		usleep(10000);
	return atoi(owner(
		"SELECT sum(seq_scan) FROM pg_stat_user_tables WHERE relname IN ('orders', 'events', 'stock_moves', 'once')"));
}

static void every_row_is_found_by_an_index(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct store_order_filter filter = {.sale = 1, .state = WIRE_ORDER_CONFIRMED, .limit = 10};
	struct store_once once = {.key = "k", .fingerprint = "f"};
	int opening;
	int64_t next;
	char *answer;

	/* the books are read once, whole, when the store is opened */
	fixture_close(fixture);
	whole_reads(fixture);
	admin("SELECT pg_stat_reset()");
	assert_int_equal(fixture_open(fixture), 0);
	opening = whole_reads(fixture);
	assert_true(opening > 0);
	admin("SELECT pg_stat_reset()");
	/* and then no table, though it has no statistics yet, as in the first second of a sale */
	assert_int_equal(fixture_open(fixture), 0);
	assert_int_equal(fixture_sale(fixture, 1, 2, 100000), 0);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(fixture_admit_range(fixture, 1, 1 + i * 400, 500), 0);
	for (unsigned i = 1; i < 20; i++)
		assert_int_equal(fixture_change(fixture, i, STORE_CONFIRM), STORE_CHANGED);
	assert_int_equal(fixture->store->ops->orders_list(fixture->store, &filter, look_away, NULL, &next), 0);
	assert_int_equal(fixture->store->ops->once_get(fixture->store, &once, &answer), 0);
	fixture->store->ops->maintain(fixture->store, NOW_NS);
	assert_int_equal(whole_reads(fixture), opening);
	assert_true(atoi(owner("SELECT idx_scan FROM pg_stat_user_tables WHERE relname = 'orders'")) > 100);
}

/* --- one writer */

static void a_ledger_has_one_writer(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct store *second = NULL;

	assert_int_equal(store_postgres_open(fixture->path, &second, fixture->error), -EBUSY);
	assert_non_null(strstr(fixture->error, "another writer has the ledger"));
	assert_null(second);
	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	fixture_close(fixture);
	assert_int_equal(store_postgres_open(fixture->path, &second, fixture->error), 0);
	second->ops->close(second);
}

static void the_ledger_of_a_writer_that_was_killed_is_free(void **state)
{
	struct ledger_fixture *fixture = *state;
	int ends[2], status;
	char byte;
	pid_t child;

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	fixture_close(fixture);
	assert_int_equal(pipe(ends), 0);
	child = postgres_fork();
	if (!child) {
		if (fixture_open(fixture) || fixture->store->ops->begin(fixture->store) ||
			fixture_sale(fixture, 2, 1, 7) || write(ends[1], "x", 1) != 1)
			_exit(1);
		pause();
	}
	assert_int_equal(read(ends[0], &byte, 1), 1);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, &status, 0), child);
	close(ends[0]);
	close(ends[1]);
	if (fixture_open(fixture))
		fail_msg("%s", fixture->error);
	assert_string_equal(owner("SELECT string_agg(slug, ' ') FROM sluice.sales"), "drop-1");
	deliver(fixture, 1, 10);
	expect_exactly(fixture, 10);
}

/* What a writer would do that came while this one was cut off. */
static void a_writer_whose_turn_is_over_cannot_commit(void **state)
{
	struct ledger_fixture *fixture = *state;

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	owner("UPDATE sluice.ledger SET epoch = epoch + 1");
	expect_error(fixture, fixture_admit_range(fixture, 1, 1, 5), -EIO, "another writer has taken it over");
	assert_string_equal(owner("SELECT count(*) FROM sluice.orders"), "0");
	assert_int_equal(deliver(fixture, 1, 5), 0);
	expect_exactly(fixture, 5);
}

static void nobody_takes_over_in_the_middle_of_a_transaction(void **state)
{
	struct ledger_fixture *fixture = *state;
	PGconn *stranger = session("writer");

	assert_int_equal(fixture->store->ops->begin(fixture->store), 0);
	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	say(stranger, "SET lock_timeout = 100");
	expect_sqlstate(stranger, "UPDATE sluice.ledger SET epoch = epoch + 1", "55P03");
	assert_int_equal(fixture->store->ops->commit(fixture->store), 0);
	say(stranger, "UPDATE sluice.ledger SET epoch = epoch + 1");
	PQfinish(stranger);
}

/* --- other sessions */

static void a_row_that_somebody_holds_is_an_error_and_not_a_wait_without_end(void **state)
{
	struct ledger_fixture *fixture = *state;
	PGconn *stranger;

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	stranger = session("writer");
	say(stranger, "BEGIN");
	say(stranger, "UPDATE sluice.sales SET paused = false");
	expect_error(fixture, fixture_admit_range(fixture, 1, 1, 5), -EIO, "lock timeout");
	say(stranger, "ROLLBACK");
	PQfinish(stranger);
	assert_int_equal(deliver(fixture, 1, 5), 0);
	expect_exactly(fixture, 5);
}

static void a_deadlock_is_an_error_and_the_repetition_succeeds(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct store_move move = {.sale = 1, .delta = 5, .key = "more", .reason = "test"};
	int64_t put_in = 0;
	PGconn *stranger;
	PGresult *result;

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	stranger = session(POSTGRES_USER);
	say(stranger, "SET deadlock_timeout = '20s'"); /* so that it is not the one who notices */
	say(stranger, "BEGIN");
	say(stranger, "UPDATE sluice.sales SET paused = false WHERE id = 1");
	assert_int_equal(fixture->store->ops->begin(fixture->store), 0);
	assert_int_equal(fixture_sale(fixture, 2, 1, 100), 0);
	assert_int_equal(PQsendQuery(stranger, "UPDATE sluice.ledger SET epoch = epoch"), 1);
	while (strcmp(admin("SELECT count(*) FROM pg_locks WHERE NOT granted"), "1"))
		usleep(10000);
	expect_error(fixture, fixture->store->ops->stock_move(fixture->store, &move, NOW_NS, &put_in), -EIO, "40P01");
	/* the bracket is broken until it is ended, and brings nothing */
	assert_int_equal(fixture_sale(fixture, 3, 1, 100), -EIO);
	assert_int_equal(fixture->store->ops->rollback(fixture->store, -EIO), -EIO);
	while ((result = PQgetResult(stranger)))
		PQclear(result);
	say(stranger, "ROLLBACK");
	PQfinish(stranger);
	assert_int_equal(fixture->store->ops->stock_move(fixture->store, &move, NOW_NS, &put_in), 0);
	assert_int_equal(put_in, 105);
	assert_string_equal(owner("SELECT string_agg(slug, ' ') FROM sluice.sales"), "drop-1");
	fixture_audit(fixture);
}

static void a_row_that_did_not_get_in_takes_its_batch_with_it(void **state)
{
	struct ledger_fixture *fixture = *state;

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	owner("CREATE FUNCTION sluice.swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
	      "CREATE TRIGGER swallow BEFORE INSERT ON sluice.orders FOR EACH ROW WHEN (NEW.serial = 3) "
	      "EXECUTE FUNCTION sluice.swallow()");
	expect_error(fixture, fixture_admit_range(fixture, 1, 1, 5), -EIO, "23502");
	assert_string_equal(owner("SELECT count(*) FROM sluice.orders"), "0");
	owner("DROP TRIGGER swallow ON sluice.orders");
	assert_int_equal(deliver(fixture, 1, 5), 0);
	expect_exactly(fixture, 5);
}

static void an_order_whose_sale_was_taken_away_is_an_error(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct store_change change = {.serial = 1, .action = STORE_CONFIRM, .by = STORE_BY_SHOP};
	struct store_changed changed;

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 5), 0);
	owner("DELETE FROM sluice.stock_moves; DELETE FROM sluice.sales");
	expect_error(fixture, fixture->store->ops->orders_change(fixture->store, &change, 1, NOW_NS, &changed), -EIO,
		"belongs to no sale");
	fixture_close(fixture);
	expect_error(fixture, fixture->backend->audit(fixture), -EPROTO, "belong to no sale");
}

static void a_session_that_is_terminated_loses_its_transaction(void **state)
{
	struct ledger_fixture *fixture = *state;

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	assert_int_equal(fixture->store->ops->begin(fixture->store), 0);
	assert_int_equal(fixture_sale(fixture, 2, 1, 100), 0);
	admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sluice-writer'");
	assert_int_equal(fixture->store->ops->commit(fixture->store), -EIO);
	assert_int_equal(deliver(fixture, 1, 5), 0);
	assert_string_equal(owner("SELECT string_agg(slug, ' ') FROM sluice.sales"), "drop-1");
	expect_exactly(fixture, 5);
}

/* --- the server fails */

static void a_server_that_was_restarted_meanwhile_costs_no_call(void **state)
{
	struct ledger_fixture *fixture = *state;

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 5), 0);
	postgres_stop(SIGINT);
	postgres_start();
	assert_int_equal(fixture_admit_range(fixture, 1, 4, 5), 0);
	for (unsigned i = 0; i < 5; i++)
		fixture_expect(fixture, i, i < 2 ? WIRE_ACK_KNOWN : WIRE_ACK_STORED, 4 + i);
	expect_exactly(fixture, 8);
}

static void without_a_server_every_call_fails_until_it_is_back(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct store_order order;

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 5), 0);
	postgres_stop(SIGINT);
	for (unsigned i = 0; i < 3; i++) {
		expect_error(fixture, fixture_admit_range(fixture, 1, 6, 5), -EIO, "cannot connect");
		expect_error(
			fixture, fixture->store->ops->order_get(fixture->store, 1, &order), -EIO, "cannot connect");
		expect_error(fixture, fixture->store->ops->begin(fixture->store), -EIO, "cannot connect");
		fixture->store->ops->maintain(fixture->store, NOW_NS);
	}
	postgres_start();
	assert_int_equal(deliver(fixture, 6, 5), 0);
	expect_exactly(fixture, 10);
}

/* SIGKILL to the server and all its processes, as the machine's OOM killer or a power switch would. */
static void kill_server(void)
{
	char path[64];
	FILE *file;
	int child;

	kill(postgres_server.pid, SIGSTOP); /* so that it starts none in the place of those that die */
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)postgres_server.pid, (int)postgres_server.pid);
	file = fopen(path, "r");
	while (file && fscanf(file, "%d", &child) == 1)
		kill(child, SIGKILL);
	if (file)
		fclose(file);
	kill(postgres_server.pid, SIGKILL);
}

static void whatever_a_server_was_killed_in_is_there_once_or_not_at_all(void **state)
{
	enum { ROUNDS = 12, BATCH = 64 };
	struct ledger_fixture *fixture = *state;
	unsigned seed = (unsigned)time(NULL), failures = 0;
	uint64_t next = 1;

	printf("seed %u\n", seed);
	srand(seed);
	assert_int_equal(fixture_sale(fixture, 1, 1, 1000000), 0);
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned delay_us = (unsigned)rand() % 30000;
		pid_t killer = postgres_fork();
		bool killed = false;

		if (!killer) {
			usleep(delay_us);
			kill_server();
			_exit(0);
		}
		while (!killed) {
			int code = fixture_admit_range(fixture, 1, next, BATCH);

			for (unsigned i = 0; !code && i < BATCH; i++)
				assert_int_equal(fixture->acks[i].seq, next + i);
			if (code)
				failures++;
			else
				next += BATCH;
			killed = waitpid(killer, NULL, WNOHANG) == killer;
		}
		assert_int_equal(waitpid(postgres_server.pid, NULL, 0), postgres_server.pid);
		postgres_start();
		failures += deliver(fixture, next, BATCH);
		for (unsigned i = 0; i < BATCH; i++)
			assert_int_equal(fixture->acks[i].seq, next + i);
		next += BATCH;
	}
	print_message("%u rounds, %u orders, %u failed deliveries\n", (unsigned)ROUNDS, (unsigned)next - 1, failures);
	expect_exactly(fixture, (unsigned)next - 1);
}

/* Commits that nobody waits for are lost when the server is killed: its log is written by and by. */
static void an_acknowledged_order_survives_though_its_role_waits_for_no_commit(void **state)
{
	struct ledger_fixture *fixture = *state;

	fixture_close(fixture);
	reconfigure("ALTER SYSTEM SET wal_writer_delay = '10s'");
	admin("ALTER ROLE writer SET synchronous_commit = off");
	if (fixture_open(fixture))
		fail_msg("%s", fixture->error);
	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(fixture_admit_range(fixture, 1, 1 + i, 1), 0);
	kill_server();
	assert_int_equal(waitpid(postgres_server.pid, NULL, 0), postgres_server.pid);
	postgres_start();
	expect_exactly(fixture, 5);
	admin("ALTER ROLE writer RESET synchronous_commit");
	reconfigure("ALTER SYSTEM RESET wal_writer_delay");
}

/* What it has stored it acknowledges to Redis, which then gives it to nobody else. */
static void the_consumer_waits_for_its_commits_though_its_role_does_not(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct consume_store store;
	PGresult *result = NULL;

	admin("ALTER ROLE writer SET synchronous_commit = off");
	assert_int_equal(consume_store_init(&store, fixture->path), 0);
	if (consume_store_open(&store) ||
		link_run_sql(&store.link, "SELECT current_setting('synchronous_commit')", NULL, "look", &result))
		fail_msg("%s", store.error);
	assert_string_equal(link_text(result, 0, 0), "on");
	PQclear(result);
	link_run_sql(&store.link, "DROP TABLE sluice_fleet_events, sluice_fleet_orders, sluice_fleet_rejected", NULL,
		"drop", NULL);
	consume_store_close(&store);
	admin("ALTER ROLE writer RESET synchronous_commit");
}

/* Waits until the writer's COMMIT waits for a standby that is not there; then `sql` meets it, and the standby is no longer asked for. */
static pid_t disturb_commit(const char *sql)
{
	static const char waiting[] = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sluice-writer' "
				      "AND wait_event = 'SyncRep'";
	char text[64];
	unsigned looks = 3000; /* half a minute: no child outlives a test that has failed for good */
	pid_t child;
	bool done;

	reconfigure("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
	while (strcmp(admin("SHOW synchronous_standby_names"), "nobody"))
		usleep(10000);
	admin("CHECKPOINT"); /* whether a COMMIT waits is for the checkpointer to say, which reads the setting before it does this */
	child = postgres_fork();
	if (child)
		return child;
	do {
		usleep(10000);
		done = postgres_try(POSTGRES_USER, "ledger", waiting, text, sizeof(text));
	} while (done && strcmp(text, "1") && --looks);
	done = done && looks && postgres_try(POSTGRES_USER, "ledger", sql, text, sizeof(text));
	usleep(300000); /* for the answer to be seen; a slow machine may see it later, which is no other outcome */
	done = postgres_try(
		       POSTGRES_USER, "ledger", "ALTER SYSTEM RESET synchronous_standby_names", text, sizeof(text)) &&
		done;
	done = postgres_try(POSTGRES_USER, "ledger", "SELECT pg_reload_conf()", text, sizeof(text)) && done;
	_exit(!done);
}

static void expect_known(struct ledger_fixture *fixture, pid_t child)
{
	int status;

	deliver(fixture, 1, 5);
	for (unsigned i = 0; i < 5; i++)
		fixture_expect(fixture, i, WIRE_ACK_KNOWN, i + 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	expect_exactly(fixture, 5);
}

static void a_commit_whose_wait_was_cancelled_is_not_acknowledged(void **state)
{
	struct ledger_fixture *fixture = *state;
	pid_t child;

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	child = disturb_commit(
		"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'sluice-writer'");
	expect_error(fixture, fixture_admit_range(fixture, 1, 1, 5), -EIO, "warning");
	expect_known(fixture, child);
}

static void a_commit_whose_answer_was_lost_is_found_again(void **state)
{
	struct ledger_fixture *fixture = *state;
	pid_t child;

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	child = disturb_commit(
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sluice-writer'");
	expect_error(fixture, fixture_admit_range(fixture, 1, 1, 5), -EIO, "cannot commit");
	expect_known(fixture, child);
}

/* A standby of the server, on which every commit waits. */
static pid_t start_standby(const char *directory)
{
	const char *const argv[] = {POSTGRES_BIN "pg_basebackup", "-h", postgres_server.directory, "-U", POSTGRES_USER,
		"-D", directory, "-R", "-X", "stream", "-c", "fast", "--no-sync", NULL};
	int status;
	pid_t pid;

	assert_true(waitpid(postgres_spawn(argv), &status, 0) > 0);
	assert_int_equal(status, 0);
	pid = postgres_start_at(directory, directory, "cluster_name=second");
	reconfigure("ALTER SYSTEM SET synchronous_standby_names = 'second'");
	while (strcmp(admin("SELECT coalesce(max(sync_state), '') FROM pg_stat_replication"), "sync"))
		usleep(10000);
	return pid;
}

static void a_failover_to_a_synchronous_standby_loses_nothing(void **state)
{
	enum { BATCH = 16 };
	struct ledger_fixture *fixture = *state;
	char directory[48], conninfo[160], text[64];
	struct store_order order;
	uint64_t acknowledged;
	pid_t standby, killer;
	uint64_t next = 1;

	snprintf(directory, sizeof(directory), "%s/" POSTGRES_STANDBY, postgres_server.directory);
	standby = start_standby(directory);
	fixture_close(fixture);
	snprintf(conninfo, sizeof(conninfo), "host=%s,%s user=writer dbname=ledger", postgres_server.directory,
		directory);
	if (store_postgres_open(conninfo, &fixture->store, fixture->error))
		fail_msg("%s", fixture->error);
	assert_int_equal(fixture_sale(fixture, 1, 1, 1000000), 0);
	killer = postgres_fork();
	if (!killer) {
		usleep(200000);
		kill_server();
		_exit(0);
	}
	while (!fixture_admit_range(fixture, 1, next, BATCH))
		next += BATCH;
	acknowledged = next - 1;
	assert_true(acknowledged > 0);
	assert_int_equal(waitpid(killer, NULL, 0), killer);
	assert_int_equal(waitpid(postgres_server.pid, NULL, 0), postgres_server.pid);
	/* the standby alone is no ledger */
	expect_error(fixture, fixture_admit_range(fixture, 1, next, BATCH), -EIO, "cannot connect");
	assert_true(postgres_try_at(directory, POSTGRES_USER, "ledger", "SELECT pg_promote()", text, sizeof(text)));
	deliver(fixture, next, BATCH);
	for (uint64_t serial = 1; serial <= acknowledged + BATCH; serial++) {
		assert_int_equal(fixture->store->ops->order_get(fixture->store, serial, &order), 0);
		assert_int_equal(order.seq, serial);
	}
	assert_true(postgres_try_at(
		directory, "writer", "ledger", "SELECT count(*) FROM sluice.orders", text, sizeof(text)));
	assert_int_equal(strtoull(text, NULL, 10), acknowledged + BATCH);
	fixture_close(fixture);
	kill(standby, SIGQUIT);
	assert_int_equal(waitpid(standby, NULL, 0), standby);
	postgres_start();
	reconfigure("ALTER SYSTEM RESET synchronous_standby_names");
}

static void a_server_that_stands_still_is_an_error(void **state)
{
	struct ledger_fixture *fixture = *state;
	int backend;

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	backend = writer_backend();
	kill(backend, SIGSTOP);
	expect_error(fixture, fixture_admit_range(fixture, 1, 1, 5), -EIO, "does not answer");
	/* its session is still there, so nobody may write */
	expect_error(fixture, fixture_admit_range(fixture, 1, 1, 5), -EIO, "another writer has the ledger");
	kill(backend, SIGCONT);
	deliver(fixture, 1, 5);
	expect_exactly(fixture, 5);
}

static void a_full_disk_is_an_error_and_space_cures_it(void **state)
{
	struct ledger_fixture *fixture = *state;
	char directory[64], options[64], sql[128];
	unsigned stored = 0, failed = 0;

	if (geteuid())
		skip(); /* only root can mount a small disk */
	snprintf(directory, sizeof(directory), "%s/" POSTGRES_SMALL_DISK, postgres_server.directory);
	snprintf(options, sizeof(options), "size=1m,mode=0700,uid=%u", (unsigned)getpwnam(POSTGRES_USER)->pw_uid);
	assert_int_equal(mkdir(directory, 0700), 0);
	assert_int_equal(mount("tmpfs", directory, "tmpfs", 0, options), 0);
	assert_int_equal(fixture_sale(fixture, 1, 1, 100000), 0);
	snprintf(sql, sizeof(sql), "CREATE TABLESPACE small OWNER writer LOCATION '%s'", directory);
	admin(sql);
	fixture_close(fixture);
	owner("ALTER TABLE sluice.orders SET TABLESPACE small");
	assert_int_equal(fixture_open(fixture), 0);
	while (!failed && stored < 50000) {
		failed = fixture_admit_range(fixture, 1, 1 + stored, 500) != 0;
		if (!failed)
			stored += 500;
	}
	expect_error(fixture, fixture_admit_range(fixture, 1, 1 + stored, 500), -EIO, "No space left on device");
	assert_int_equal(mount("tmpfs", directory, "tmpfs", MS_REMOUNT, "size=64m"), 0);
	assert_int_equal(deliver(fixture, 1 + stored, 500), 0);
	expect_exactly(fixture, stored + 500);
	fixture_close(fixture);
	owner("DROP SCHEMA sluice CASCADE");
	admin("CHECKPOINT");
	admin("DROP TABLESPACE small");
	assert_int_equal(umount(directory), 0);
	assert_int_equal(rmdir(directory), 0);
}

static int postgres_setup(void **state)
{
	return fixture_setup_with(state, &fixture_postgres);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, postgres_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(people_can_read_the_ledger_while_it_is_written),
		TEST(others_may_read_but_not_write),
		TEST(books_that_do_not_balance_are_refused),
		TEST(the_server_itself_refuses_an_oversell),
		TEST(a_database_without_a_ledger_has_none_to_be_checked),
		TEST(a_schema_that_was_made_beforehand_is_used),
		TEST(a_schema_of_another_program_is_refused_and_not_touched),
		TEST(a_newer_schema_is_refused),
		TEST(a_database_of_another_encoding_is_refused),
		TEST(a_session_that_may_only_read_is_no_ledger),
		TEST(a_password_is_not_taken_from_the_config_and_never_shown),
		TEST(a_password_comes_from_a_file),
		TEST(every_row_is_found_by_an_index),
		TEST(a_ledger_has_one_writer),
		TEST(the_ledger_of_a_writer_that_was_killed_is_free),
		TEST(a_writer_whose_turn_is_over_cannot_commit),
		TEST(nobody_takes_over_in_the_middle_of_a_transaction),
		TEST(a_row_that_somebody_holds_is_an_error_and_not_a_wait_without_end),
		TEST(a_deadlock_is_an_error_and_the_repetition_succeeds),
		TEST(a_row_that_did_not_get_in_takes_its_batch_with_it),
		TEST(an_order_whose_sale_was_taken_away_is_an_error),
		TEST(a_session_that_is_terminated_loses_its_transaction),
		TEST(a_server_that_was_restarted_meanwhile_costs_no_call),
		TEST(without_a_server_every_call_fails_until_it_is_back),
		TEST(whatever_a_server_was_killed_in_is_there_once_or_not_at_all),
		TEST(an_acknowledged_order_survives_though_its_role_waits_for_no_commit),
		TEST(the_consumer_waits_for_its_commits_though_its_role_does_not),
		TEST(a_commit_whose_wait_was_cancelled_is_not_acknowledged),
		TEST(a_commit_whose_answer_was_lost_is_found_again),
		TEST(a_failover_to_a_synchronous_standby_loses_nothing),
		TEST(a_server_that_stands_still_is_an_error),
		TEST(a_full_disk_is_an_error_and_space_cures_it),
	};

	log_init("test_writer_postgres", getenv("SLUICE_TEST_VERBOSE") ? LOG_DEBUG_LEVEL : LOG_ERROR_LEVEL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
