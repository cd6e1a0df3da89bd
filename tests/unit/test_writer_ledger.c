/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tests of the SQLite store's file: which are accepted as a ledger, how one of an older version is brought up to date,
 * what people can read in it, and that the audit sees what is wrong. Failures of the disk and of the process are in
 * test_writer_faults.c.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "common/log.h"
#include "ledger_fixture.h"

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
	};

	log_init("test_writer_ledger", LOG_ERROR_LEVEL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
