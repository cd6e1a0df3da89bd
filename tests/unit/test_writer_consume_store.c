/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The consumer's tables in a real PostgreSQL: a row for each order of each node, whatever comes twice or late; and tables of an earlier version, which
 * had one row for an id.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "postgres_server.h"
#include "writer/consume_store.h"

#define ID "00000000000000aa"
/* As a version before the key (id, node) made it. */
#define OLD_TABLE \
	"CREATE TABLE sluice_fleet_orders(id text PRIMARY KEY, sale text NOT NULL, node bigint NOT NULL, position bigint NOT NULL, " \
	"seq bigint NOT NULL, state text NOT NULL, quantity bigint NOT NULL, buyer text NOT NULL, source text NOT NULL, " \
	"network bigint NOT NULL, admitted_at timestamptz NOT NULL, committed_at timestamptz NOT NULL, expires_at timestamptz, " \
	"resolved_at timestamptz, resolved_by text, restocked boolean NOT NULL)"
#define OLD_ROWS \
	"INSERT INTO sluice_fleet_orders SELECT lpad(to_hex(n), 16, '0'), 'drop-11', 1, n, n, 'held', 1, 'b', '192.0.2.1', 0, now(), now(), " \
	"NULL, NULL, NULL, false FROM generate_series(1, 300) n"
#define KEY_SQL \
	"SELECT string_agg(a.attname, ',' ORDER BY k.place) FROM pg_constraint c, unnest(c.conkey) WITH ORDINALITY k(number, place), " \
	"pg_attribute a WHERE c.conrelid = 'sluice_fleet_orders'::regclass AND c.contype = 'p' AND a.attrelid = c.conrelid AND a.attnum = k.number"
#define TABLES_SQL "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'sluice_fleet_%'"

static struct consume_store store;
static char conninfo[96];

static const char *ask(const char *sql)
{
	return postgres_sql_as("writer", "ledger", sql);
}

static int setup(void **state)
{
	(void)state;
	postgres_server_need();
	ask("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
	snprintf(conninfo, sizeof(conninfo), "host=%s user=writer dbname=ledger", postgres_server.directory);
	assert_int_equal(consume_store_init(&store, conninfo), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	consume_store_close(&store);
	return 0;
}

static struct consume_entry order(int64_t node, int64_t position, const char *state)
{
	return (struct consume_entry){.stream = "sluice:{drop-11}:orders",
		.slug = "drop-11",
		.entry = "1-1",
		.is_order = true,
		.node = node,
		.position = position,
		.type = strcmp(state, "held") ? "order.confirmed" : "order.held",
		.at = "2026-11-27T12:00:00.000Z",
		.id = ID,
		.state = state,
		.buyer = "292ba9cae15e9a96",
		.source = "203.0.113.7",
		.admitted_at = "2026-11-27T12:00:00.000Z",
		.committed_at = "2026-11-27T12:00:00.000Z",
		.expires_at = "",
		.resolved_at = "",
		.resolved_by = "",
		.seq = 1,
		.quantity = 1};
}

static void write_all(struct consume_entry *entries, unsigned count)
{
	if (consume_store_write(&store, entries, count))
		fail_msg("%s", store.error);
	for (unsigned i = 0; i < count; i++)
		assert_string_equal(entries[i].reason, "");
}

/* "node:position:state" of every order. */
static const char *orders(void)
{
	return ask(
		"SELECT coalesce(string_agg(node || ':' || position || ':' || state, ' ' ORDER BY node, id), '') FROM sluice_fleet_orders");
}

static void the_same_id_of_two_nodes_is_two_orders(void **state)
{
	struct consume_entry entries[] = {order(1, 5, "held"), order(2, 9, "held")};

	(void)state;
	write_all(entries, 2);
	assert_string_equal(orders(), "1:5:held 2:9:held");
	/* The shop confirms the second, at a position that the first has not reached and one that it has passed. */
	entries[0] = order(2, 10, "confirmed");
	entries[1] = order(1, 70, "confirmed");
	write_all(entries, 2);
	assert_string_equal(orders(), "1:70:confirmed 2:10:confirmed");
	assert_string_equal(ask("SELECT count(*) FROM sluice_fleet_rejected"), "0");
}

static void what_comes_twice_or_late_changes_nothing(void **state)
{
	struct consume_entry entries[] = {order(1, 8, "confirmed"), order(1, 5, "held"), order(1, 8, "confirmed")};

	(void)state;
	write_all(entries, 3);
	write_all(entries, 3);
	assert_string_equal(orders(), "1:8:confirmed");
	assert_string_equal(ask("SELECT count(*) FROM sluice_fleet_events"), "2");
}

static void an_earlier_table_gets_the_new_key_and_keeps_its_rows(void **state)
{
	struct consume_entry entries[] = {order(1, 170, "held"), order(1, 400, "confirmed"), order(2, 7, "held")};

	(void)state;
	ask(OLD_TABLE);
	ask(OLD_ROWS);
	/* Somebody has named it as he likes, and reads it by a view. */
	ask("ALTER TABLE sluice_fleet_orders RENAME CONSTRAINT sluice_fleet_orders_pkey TO \"the shop's key\"");
	ask("CREATE VIEW living AS SELECT * FROM sluice_fleet_orders WHERE state = 'held'");
	write_all(entries, 3);
	assert_string_equal(ask(KEY_SQL), "id,node");
	assert_string_equal(ask("SELECT count(*) FROM sluice_fleet_orders"), "301");
	assert_string_equal(ask("SELECT string_agg(node || ':' || position || ':' || state, ' ' ORDER BY node) FROM "
				"sluice_fleet_orders WHERE id = '" ID "'"),
		"1:400:confirmed 2:7:held");
	assert_string_equal(ask("SELECT count(*) FROM living"), "300");
}

static void a_table_that_has_the_new_key_is_left_alone(void **state)
{
	static char before[512];

	(void)state;
	assert_int_equal(consume_store_open(&store), 0);
	snprintf(before, sizeof(before), "%s",
		ask("SELECT oid FROM pg_constraint WHERE conrelid = 'sluice_fleet_orders'::regclass AND contype = 'p'"));
	consume_store_close(&store);
	assert_int_equal(consume_store_open(&store), 0);
	assert_string_equal(
		ask("SELECT oid FROM pg_constraint WHERE conrelid = 'sluice_fleet_orders'::regclass AND contype = 'p'"),
		before);
}

/* The tables and the key are one transaction: nothing is half done, nothing is acknowledged, and the sentence says which key it is about. */
static void a_key_that_cannot_be_renewed_leaves_all_as_it_was(void **state)
{
	struct consume_entry entries[] = {order(2, 7, "held")};

	(void)state;
	ask(OLD_TABLE);
	ask(OLD_ROWS);
	ask("CREATE TABLE invoices(id text REFERENCES sluice_fleet_orders(id))");
	assert_int_not_equal(consume_store_write(&store, entries, 1), 0);
	assert_non_null(strstr(store.error, "give sluice_fleet_orders the key (id, node)"));
	assert_non_null(strstr(store.error, "depend"));
	assert_string_equal(entries[0].reason, "");
	assert_string_equal(ask(KEY_SQL), "id");
	assert_string_equal(ask("SELECT count(*) FROM sluice_fleet_orders"), "300");
	assert_string_equal(ask(TABLES_SQL), "1");
	/* And when that is out of the way it goes on by itself. */
	ask("DROP TABLE invoices");
	write_all(entries, 1);
	assert_string_equal(ask(KEY_SQL), "id,node");
	assert_string_equal(ask("SELECT count(*) FROM sluice_fleet_orders"), "301");
}

static void those_that_start_at_once_renew_it_once(void **state)
{
	enum { CONSUMERS = 4 };
	pid_t pids[CONSUMERS];
	int status;

	(void)state;
	ask(OLD_TABLE);
	ask(OLD_ROWS);
	for (unsigned i = 0; i < CONSUMERS; i++) {
		pids[i] = postgres_fork();
		if (!pids[i]) {
			struct consume_entry entry = order(2 + i, 7, "held");

			_exit(consume_store_write(&store, &entry, 1) ? 1 : 0);
		}
	}
	for (unsigned i = 0; i < CONSUMERS; i++) {
		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
	}
	assert_string_equal(ask(KEY_SQL), "id,node");
	assert_string_equal(ask("SELECT count(*) FROM sluice_fleet_orders"), "304");
}

#define test_of(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		test_of(the_same_id_of_two_nodes_is_two_orders),
		test_of(what_comes_twice_or_late_changes_nothing),
		test_of(an_earlier_table_gets_the_new_key_and_keeps_its_rows),
		test_of(a_table_that_has_the_new_key_is_left_alone),
		test_of(a_key_that_cannot_be_renewed_leaves_all_as_it_was),
		test_of(those_that_start_at_once_renew_it_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
