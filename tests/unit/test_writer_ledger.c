/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tests of the SQLite store's file: which are accepted as a ledger, how one of an older version is brought up to date,
 * what people can read in it, and that the audit sees what is wrong. Failures of the disk and of the process are in
 * test_writer_faults.c.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "common/log.h"
#include "ledger_fixture.h"
#include "ledger_v1.h"

static void people_can_read_the_ledger_while_it_is_written(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct wire_admit record = fixture_record(1, 1);
	sqlite3_stmt *statement;
	sqlite3 *reader;

	record.source = (struct sluice_addr){.hi = 0x20010db800000000, .lo = 1};
	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	assert_int_equal(fixture_admit(fixture, &record, 1), 0);
	assert_string_equal(
		fixture_sql(fixture,
			"SELECT sale || ' ' || source || ' ' || state || ' ' || admitted_at || ' ' || committed_at "
			"FROM orders_view"),
		"drop-1 2001:db8::1 held 2025-11-22T12:00:00.249Z 2025-11-22T12:00:00.250Z");
	assert_string_equal(fixture_sql(fixture, "SELECT opens_at || ' ' || unsold FROM sales_view"),
		"2025-11-22T12:00:00.250Z 99");
	assert_string_equal(fixture_sql(fixture, "SELECT sale || ' ' || delta || ' ' || reason FROM stock_moves_view"),
		"drop-1 100 created");
	/* a reader with an open snapshot neither stops the writer nor sees half of a batch */
	assert_int_equal(sqlite3_open_v2(fixture->path, &reader, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(reader, "BEGIN", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(reader, "SELECT count(*) FROM orders", -1, &statement, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
	assert_int_equal(sqlite3_column_int(statement, 0), 1);
	sqlite3_reset(statement);
	assert_int_equal(fixture_admit_range(fixture, 1, 100, 10), 0);
	fixture->store->ops->maintain(fixture->store, NOW_NS);
	assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
	assert_int_equal(sqlite3_column_int(statement, 0), 1);
	sqlite3_finalize(statement);
	sqlite3_close(reader);
	fixture_audit(fixture);
}

static void a_ledger_has_one_writer(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct store *second = NULL;

	assert_int_equal(store_sqlite_open(fixture->path, &second, fixture->error), -EBUSY);
	assert_null(second);
	fixture_close(fixture);
	assert_int_equal(store_sqlite_open(fixture->path, &second, fixture->error), 0);
	second->ops->close(second);
}

static void expect_refused(struct ledger_fixture *fixture, int code, const char *part)
{
	int got = fixture_open(fixture);

	if (got != code || !strstr(fixture->error, part))
		fail_msg("expected %d with \"%s\", got %d: %s", code, part, got, got ? fixture->error : "opened");
}

static void a_ledger_that_others_can_write_is_refused(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct stat status;

	assert_int_equal(stat(fixture->path, &status), 0);
	assert_int_equal(status.st_mode & 07777, 0600);
	fixture_close(fixture);
	assert_int_equal(chmod(fixture->path, 0620), 0);
	expect_refused(fixture, -EPERM, "others can write");
	assert_int_equal(chmod(fixture->path, 0602), 0);
	expect_refused(fixture, -EPERM, "others can write");
	assert_int_equal(chmod(fixture->path, 0640), 0); /* reading is the operator's choice */
	assert_int_equal(chmod(fixture->directory, 0777), 0);
	expect_refused(fixture, -EPERM, "replace files");
	assert_int_equal(chmod(fixture->directory, 0700), 0);
	if (!geteuid()) {
		assert_int_equal(chown(fixture->path, 12345, 0), 0);
		expect_refused(fixture, -EPERM, "belongs to uid 12345");
		assert_int_equal(chown(fixture->path, 0, 0), 0);
	}
	assert_int_equal(fixture_open(fixture), 0);
}

static void a_ledger_with_a_second_name_is_refused(void **state)
{
	struct ledger_fixture *fixture = *state;
	char other[80];

	fixture_close(fixture);
	snprintf(other, sizeof(other), "%s.away", fixture->path);
	assert_int_equal(link(fixture->path, other), 0);
	expect_refused(fixture, -EPERM, "2 names");
	assert_int_equal(unlink(fixture->path), 0);
	assert_int_equal(symlink(other, fixture->path), 0);
	expect_refused(fixture, -EPERM, "not a regular file");
}

static void a_file_of_another_program_is_refused_and_not_touched(void **state)
{
	struct ledger_fixture *fixture = *state;
	FILE *file;

	fixture_close(fixture);
	unlink(fixture->path);
	fixture_sql(fixture, "CREATE TABLE accounts(id)");
	chmod(fixture->path, 0600);
	expect_refused(fixture, -EPROTO, "another program");
	assert_string_equal(fixture_sql(fixture, "PRAGMA journal_mode"), "delete");
	assert_string_equal(fixture_sql(fixture, "SELECT group_concat(name) FROM sqlite_schema"), "accounts");
	file = fopen(fixture->path, "w");
	for (unsigned i = 0; i < 1000; i++)
		fputs("this is a text, not a database\n", file);
	fclose(file);
	expect_refused(fixture, -EPROTO, "not an SQLite database");
}

static void a_newer_schema_is_refused(void **state)
{
	struct ledger_fixture *fixture = *state;

	fixture_close(fixture);
	fixture_sql(fixture, "PRAGMA user_version = 3");
	expect_refused(fixture, -EPROTO, "schema version 3");
	fixture_sql(fixture, "PRAGMA user_version = 0");
	expect_refused(fixture, -EPROTO, "damaged");
}

static void an_empty_file_becomes_a_ledger(void **state)
{
	struct ledger_fixture *fixture = *state;
	int fd;

	fixture_close(fixture);
	unlink(fixture->path);
	fd = open(fixture->path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	assert_int_equal(fixture_open(fixture), 0);
	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	fixture_audit(fixture);
}

static void books_that_do_not_balance_are_refused(void **state)
{
	struct ledger_fixture *fixture = *state;
	static const char *const cooked[][2] = {
		{"UPDATE sales SET held = held - 1", "UPDATE sales SET held = held + 1"},
		{"UPDATE sales SET put_in = put_in + 1", "UPDATE sales SET put_in = put_in - 1"},
		{"UPDATE sales SET orders = orders + 1", "UPDATE sales SET orders = orders - 1"},
		{"UPDATE orders SET seq = 99 WHERE seq = 10", "UPDATE orders SET seq = 10 WHERE seq = 99"},
		{"UPDATE orders SET state = 'cancelled' WHERE seq = 5",
			"UPDATE orders SET state = 'held' WHERE seq = 5"},
		{"UPDATE orders SET quantity = 2 WHERE seq = 5", "UPDATE orders SET quantity = 1 WHERE seq = 5"},
		{"UPDATE orders SET serial = 1 WHERE seq = 2", "UPDATE orders SET serial = 2 WHERE seq = 2"},
	};

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 10), 0);
	fixture_close(fixture);
	for (unsigned i = 0; i < sizeof(cooked) / sizeof(*cooked); i++) {
		fixture_sql(fixture, cooked[i][0]);
		expect_refused(fixture, -EPROTO, "the ledger");
		assert_int_equal(store_sqlite_audit(fixture->path, fixture->error), -EPROTO);
		fixture_sql(fixture, cooked[i][1]);
		fixture_audit(fixture);
	}
	assert_int_equal(fixture_open(fixture), 0);
}

/* --- an older ledger */

static void make_version_1(struct ledger_fixture *fixture)
{
	fixture_close(fixture);
	unlink(fixture->path);
	fixture_sql(fixture, "PRAGMA journal_mode = WAL");
	fixture_sql(fixture, ledger_v1_schema);
	fixture_sql(fixture, ledger_v1_rows);
	assert_int_equal(chmod(fixture->path, 0600), 0);
}

static void a_ledger_of_version_1_is_brought_up_to_date(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct store_order order;

	make_version_1(fixture);
	fixture_reopen(fixture);
	assert_int_equal(fixture->store->schema, 2);
	assert_string_equal(fixture_sql(fixture, "PRAGMA user_version"), "2");
	fixture_audit(fixture);
	fixture_expect_sums(fixture, 1, 5, 3, 0, 2);
	order = fixture_order(fixture, (uint64_t)-2);
	assert_int_equal(order.state, WIRE_ORDER_HELD);
	assert_int_equal(order.quantity, 2);
	assert_string_equal(order.source, "2001:db8::1");
	assert_true(order.resolved_ns == 0 && order.resolved_by == STORE_BY_NOBODY && order.expires_ns == 0);
	assert_true(fixture_order(fixture, 1).expires_ns == 1763812800249000000 + 900000000000);
	/* and it lives on */
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 2), 0);
	fixture_expect(fixture, 0, WIRE_ACK_KNOWN, 1);
	fixture_expect(fixture, 1, WIRE_ACK_STORED, 3);
	assert_int_equal(fixture_change(fixture, (uint64_t)-2, STORE_CONFIRM), STORE_CHANGED);
	assert_int_equal(
		fixture_change_at(fixture, 1, STORE_EXPIRE, false, 1763812800249000000 + 900000000000), STORE_CHANGED);
	fixture_reopen(fixture);
	fixture_expect_sums(fixture, 1, 5, 1, 2, 3);
	fixture_audit(fixture);
}

static void an_older_ledger_gets_the_tables_of_a_new_one(void **state)
{
	struct ledger_fixture *fixture = *state;
	static const char all[] =
		"SELECT group_concat(sql, ';') FROM (SELECT sql FROM sqlite_schema ORDER BY type, name)";
	char *made = strdup(fixture_sql(fixture, all));

	make_version_1(fixture);
	fixture_reopen(fixture);
	assert_non_null(made);
	assert_string_equal(fixture_sql(fixture, all), made);
	free(made);
}

static void the_audit_reads_an_older_ledger_and_leaves_it_so(void **state)
{
	struct ledger_fixture *fixture = *state;

	make_version_1(fixture);
	fixture_audit(fixture);
	assert_string_equal(fixture_sql(fixture, "PRAGMA user_version"), "1");
	fixture_sql(fixture, "UPDATE sales SET held = 2");
	assert_int_equal(store_sqlite_audit(fixture->path, fixture->error), -EPROTO);
	assert_string_equal(fixture_sql(fixture, "PRAGMA user_version"), "1");
}

/* --- what the audit sees */

static void the_audit_finds_what_does_not_agree(void **state)
{
	struct ledger_fixture *fixture = *state;
	static const struct {
		const char *spoil, *heal, *meaning;
	} cooked[] = {
		{"UPDATE events SET position = 1 WHERE type = 'sale.opened'",
			"UPDATE events SET position = 5 WHERE position = 1", "at the position of an order"},
		{"UPDATE events SET type = 'order.held' WHERE type = 'order.cancelled'",
			"UPDATE events SET type = 'order.cancelled' WHERE type = 'order.held'", "no known type"},
		{"UPDATE events SET type = 'sale.ended' WHERE type = 'order.cancelled'",
			"UPDATE events SET type = 'order.cancelled' WHERE type = 'sale.ended'", "no known type"},
		{"UPDATE events SET order_position = 1 WHERE type = 'sale.opened'",
			"UPDATE events SET order_position = NULL WHERE type = 'sale.opened'", "no known type"},
		{"UPDATE events SET sale = 2 WHERE type = 'order.cancelled'",
			"UPDATE events SET sale = 1 WHERE type = 'order.cancelled'", "of another sale"},
		{"UPDATE events SET type = 'order.refunded' WHERE type = 'order.cancelled'",
			"UPDATE events SET type = 'order.cancelled' WHERE order_position = 2", "cannot follow"},
		{"UPDATE events SET order_position = 1 WHERE order_position = 2",
			"UPDATE events SET order_position = 2 WHERE type = 'order.cancelled'", "cannot follow"},
		{"DELETE FROM events WHERE order_position = 2",
			"INSERT INTO events VALUES(8, 'order.cancelled', 1, 2, 1763812800250000000, 'buyer', 0, 0, 0)",
			"not that of their last event"},
		{"UPDATE orders SET resolved_ns = 7 WHERE position = 2",
			"UPDATE orders SET resolved_ns = 1763812800250000000 WHERE position = 2",
			"not that of their last event"},
		{"UPDATE orders SET resolved_by = 'time' WHERE position = 2",
			"UPDATE orders SET resolved_by = 'buyer' WHERE position = 2", "not that of their last event"},
		{"UPDATE orders SET resolved_ns = 1 WHERE position = 4",
			"UPDATE orders SET resolved_ns = 0 WHERE position = 4", "not that of their last event"},
		{"UPDATE orders SET hold_seconds = 2000 WHERE position = 3",
			"UPDATE orders SET hold_seconds = 900 WHERE position = 3", "before their time"},
		{"UPDATE orders SET hold_seconds = 0 WHERE position = 3",
			"UPDATE orders SET hold_seconds = 900 WHERE position = 3", "before their time"},
		{"UPDATE orders SET restocked = 1 WHERE position = 1",
			"UPDATE orders SET restocked = 0 WHERE position = 1", "refunds"},
		{"UPDATE orders SET restocked = 1 WHERE position = 2",
			"UPDATE orders SET restocked = 0 WHERE position = 2", "refunds"},
		{"UPDATE stock_moves SET key = 'refund:0000000000000002' WHERE delta < 0",
			"UPDATE stock_moves SET key = 'refund:0000000000000001' WHERE delta < 0", "refunds"},
		{"UPDATE sales SET announced_sold_out = 1 WHERE id = 1",
			"UPDATE sales SET announced_sold_out = 0 WHERE id = 1", "something else was said"},
		{"UPDATE sales SET announced_opened = 0 WHERE id = 1",
			"UPDATE sales SET announced_opened = 1 WHERE id = 1", "something else was said"},
		{"INSERT INTO events VALUES(20, 'sale.restocked', 1, NULL, 1, '', 0, 0, 0),"
		 " (21, 'sale.sold_out', 1, NULL, 1, '', 0, 0, 0)",
			"DELETE FROM events WHERE position >= 20", "events of sales"},
		{"UPDATE sales SET announced_ended = 1 WHERE id = 1; INSERT INTO events VALUES"
		 "(20, 'sale.ended', 1, NULL, 1, '', 0, 0, 0), (21, 'sale.sold_out', 1, NULL, 1, '', 0, 0, 0),"
		 " (22, 'sale.restocked', 1, NULL, 1, '', 0, 0, 0)",
			"UPDATE sales SET announced_ended = 0; DELETE FROM events WHERE position >= 20",
			"events of sales"},
	};

	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	assert_int_equal(fixture_sale(fixture, 2, 1, 10), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 4), 0);
	assert_int_equal(fixture->store->ops->sale_event(fixture->store, 1, STORE_SALE_OPENED, NOW_NS, &(bool){false}),
		0); /* position 5 */
	assert_int_equal(fixture_change(fixture, 1, STORE_CONFIRM), STORE_CHANGED);
	assert_int_equal(fixture_change_at(fixture, 1, STORE_REFUND, false, NOW_NS), STORE_CHANGED);
	assert_int_equal(fixture_change(fixture, 2, STORE_CANCEL), STORE_CHANGED); /* position 8 */
	assert_int_equal(
		fixture_change_at(fixture, 3, STORE_EXPIRE, false, NOW_NS + 1000 * 1000000000ULL), STORE_CHANGED);
	fixture_close(fixture);
	fixture_audit(fixture);
	for (unsigned i = 0; i < sizeof(cooked) / sizeof(*cooked); i++) {
		fixture_sql(fixture, cooked[i].spoil);
		if (store_sqlite_audit(fixture->path, fixture->error) != -EPROTO ||
			!strstr(fixture->error, cooked[i].meaning))
			fail_msg("%s: %s", cooked[i].spoil, fixture->error);
		fixture_sql(fixture, cooked[i].heal);
		fixture_audit(fixture);
		strcpy(fixture->error, "found nothing");
	}
	fixture_reopen(fixture);
}

static void a_resolved_order_that_counts_is_seen_when_the_ledger_is_opened(void **state)
{
	struct ledger_fixture *fixture = *state;

	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 2), 0);
	assert_int_equal(fixture_change(fixture, 1, STORE_CONFIRM), STORE_CHANGED);
	fixture_close(fixture);
	fixture_sql(fixture, "UPDATE sales SET held = 0, confirmed = 2");
	expect_refused(fixture, -EPROTO, "do not balance");
	fixture_sql(fixture, "UPDATE sales SET held = 1, confirmed = 1");
	assert_int_equal(fixture_open(fixture), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup_sqlite, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(people_can_read_the_ledger_while_it_is_written),
		TEST(a_ledger_has_one_writer),
		TEST(a_ledger_that_others_can_write_is_refused),
		TEST(a_ledger_with_a_second_name_is_refused),
		TEST(a_file_of_another_program_is_refused_and_not_touched),
		TEST(a_newer_schema_is_refused),
		TEST(an_empty_file_becomes_a_ledger),
		TEST(books_that_do_not_balance_are_refused),
		TEST(a_ledger_of_version_1_is_brought_up_to_date),
		TEST(an_older_ledger_gets_the_tables_of_a_new_one),
		TEST(the_audit_reads_an_older_ledger_and_leaves_it_so),
		TEST(the_audit_finds_what_does_not_agree),
		TEST(a_resolved_order_that_counts_is_seen_when_the_ledger_is_opened),
	};

	log_init("test_writer_ledger", LOG_ERROR_LEVEL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
