/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Faults of the SQLite store's disk in the life of orders: a write or an fsync that fails at any point leaves all of a
 * transaction or nothing, a question with a key has one answer across it, and what the store remembers is what is on the
 * disk. Also while an older ledger is brought up to date.
 */
#include <sys/stat.h>

#include "common/log.h"
#include "disk_faults.h"
#include "ledger_v1.h"
#include "writer/query.h"

#define LIFE_ORDERS 12
#define LATER_NS (NOW_NS + 1000000000000ULL)

/* Asks again until there is an answer, as the daemon does. Returns how often it failed. */
static unsigned ask_until_answered(struct ledger_fixture *fixture, const char *question, char **answer)
{
	unsigned failed = 0;

	for (;; failed++) {
		enum wire_type type = writer_query_answer(fixture->store, question, strlen(question), LATER_NS, answer);

		assert_non_null(*answer);
		if (type == WIRE_QUERY)
			return failed;
		if (!strstr(*answer, "store_error") || failed > 3)
			fail_msg("%s: %s", question, *answer);
		free(*answer);
	}
}

/* Each step is a question of its own. */
static const struct {
	const char *question;
	const char *part; /* of the answer, however often it was asked */
} life[] = {
	{"{\"op\":\"orders_change\",\"changes\":[{\"id\":\"0000000000000001\",\"action\":\"confirm\",\"by\":\"shop\"},"
	 "{\"id\":\"0000000000000002\",\"action\":\"confirm\",\"by\":\"shop\"},"
	 "{\"id\":\"0000000000000003\",\"action\":\"cancel\",\"by\":\"buyer\"}],\"once\":{\"key\":\"a\",\"fingerprint\":\"1\"}}",
		"\"changed\""},
	{"{\"op\":\"orders_change\",\"changes\":[{\"id\":\"0000000000000004\",\"action\":\"expire\",\"by\":\"time\"}],"
	 "\"once\":{\"key\":\"b\",\"fingerprint\":\"2\"}}",
		"\"changed\""},
	{"{\"op\":\"orders_change\",\"changes\":[{\"id\":\"0000000000000001\",\"action\":\"refund\",\"by\":\"shop\","
	 "\"restock\":false}],\"once\":{\"key\":\"c\",\"fingerprint\":\"3\"}}",
		"\"changed\""},
	{"{\"op\":\"orders_change\",\"changes\":[{\"id\":\"0000000000000002\",\"action\":\"refund\",\"by\":\"shop\","
	 "\"restock\":true}],\"once\":{\"key\":\"d\",\"fingerprint\":\"4\"}}",
		"\"changed\""},
	{"{\"op\":\"orders_change\",\"changes\":[{\"id\":\"0000000000000004\",\"action\":\"confirm\",\"by\":\"shop\"}],"
	 "\"once\":{\"key\":\"e\",\"fingerprint\":\"5\"}}",
		"\"changed\""},
	{"{\"op\":\"stock_move\",\"sale\":1,\"delta\":4,\"key\":\"m\",\"once\":{\"key\":\"f\",\"fingerprint\":\"6\"}}",
		"{\"put_in\":15}"},
	{"{\"op\":\"sale_event\",\"sale\":1,\"type\":\"sale.opened\"}", "recorded"},
	{"{\"op\":\"document_put\",\"name\":\"limits\",\"value\":\"{}\"}", "{}"},
	{"{\"op\":\"list_put\",\"entries\":[{\"list\":\"deny\",\"prefix\":\"192.0.2.1/32\",\"expires_ns\":0,\"label\":\"\","
	 "\"reason\":\"\"}]}",
		"{\"count\":1}"},
	{"{\"op\":\"orders_due\",\"limit\":100}", "\"more\":false"},
};
#define LIFE_STEPS (sizeof(life) / sizeof(*life))

/* All of a transaction or nothing of it, at every step: the books balance, and the sums are those of some step's beginning
 * or end.
 */
static bool live_on_with_fault(struct ledger_fixture *fixture, enum fault kind, unsigned nth, unsigned *failures)
{
	static const int64_t sums[LIFE_STEPS + 1][3] = {{12, 12, 0}, {12, 9, 2}, {12, 8, 2}, {11, 8, 1}, {11, 8, 0},
		{11, 8, 1}, {15, 8, 1}, {15, 8, 1}, {15, 8, 1}, {15, 8, 1}, {15, 8, 1}};
	bool reached;

	remove_ledger(fixture);
	assert_int_equal(fixture_open(fixture), 0);
	assert_int_equal(fixture_sale(fixture, 1, 1, LIFE_ORDERS), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, LIFE_ORDERS), 0);
	arm(kind, nth, false);
	for (unsigned step = 0; step < LIFE_STEPS; step++) {
		char *first = NULL, *second = NULL;

		*failures += ask_until_answered(fixture, life[step].question, &first);
		if (!strstr(first, life[step].part))
			fail_msg("%s: %s", life[step].question, first);
		fixture->store->ops->maintain(fixture->store, LATER_NS + step * 100000000000ULL);
		if (step == LIFE_STEPS / 2) {
			fixture_close(fixture);
			if (fixture_open(fixture))
				assert_int_equal(fixture_open(fixture), 0);
		}
		if (strstr(life[step].question, "once")) {
			ask_until_answered(fixture, life[step].question, &second);
			assert_string_equal(first, second);
			free(second);
		}
		free(first);
		reached = fault_kind == FAULT_NONE;
		disarm();
		fixture_expect_sums(fixture, 1, sums[step + 1][0], sums[step + 1][1], sums[step + 1][2], LIFE_ORDERS);
		fixture_audit(fixture);
		if (!reached)
			arm_again(kind);
	}
	disarm();
	fixture_reopen(fixture);
	fixture_expect_sums(fixture, 1, sums[LIFE_STEPS][0], sums[LIFE_STEPS][1], sums[LIFE_STEPS][2], LIFE_ORDERS);
	fixture_audit(fixture);
	return reached;
}

static void sweep_life(struct ledger_fixture *fixture, enum fault kind, unsigned least)
{
	unsigned nth = 1, failures = 0;

	while (live_on_with_fault(fixture, kind, nth, &failures))
		nth++;
	printf("%u points of failure, %u questions failed\n", nth - 1, failures);
	assert_true(nth > least && failures > least / 2);
}

static void a_write_that_fails_at_any_point_changes_all_or_nothing(void **state)
{
	sweep_life(*state, FAULT_WRITE, 30);
}

static void an_fsync_that_fails_at_any_point_changes_all_or_nothing(void **state)
{
	sweep_life(*state, FAULT_SYNC, LIFE_STEPS);
}

static void the_guard_follows_what_is_on_the_disk_after_a_failed_change(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct store_change cancel = {.serial = 1, .action = STORE_CANCEL, .by = STORE_BY_BUYER};
	struct wire_admit again = fixture_record(1, 100);
	struct store_changed changed;

	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 2), 0);
	again.buyer = 1;
	arm(FAULT_WRITE, 1, true);
	assert_int_equal(fixture->store->ops->orders_change(fixture->store, &cancel, 1, NOW_NS, &changed), -EIO);
	disarm();
	/* the order is held still, so the buyer may not have another */
	assert_int_equal(fixture_admit(fixture, &again, 1), 0);
	fixture_expect(fixture, 0, WIRE_ACK_REFUSED, 0);
	assert_int_equal(fixture->store->ops->orders_change(fixture->store, &cancel, 1, NOW_NS, &changed), 0);
	assert_int_equal(changed.result, STORE_CHANGED);
	assert_int_equal(fixture_admit(fixture, &again, 1), 0);
	fixture_expect(fixture, 0, WIRE_ACK_STORED, 3);
	fixture_audit(fixture);
}

static void a_bracket_whose_store_fails_is_over_when_it_is_rolled_back(void **state)
{
	struct ledger_fixture *fixture = *state;
	const struct store_ops *ops = fixture->store->ops;
	struct store_move first = {.sale = 1, .delta = 1, .key = "a"}, second = {.sale = 1, .delta = 2, .key = "b"};
	struct store_once once = {.key = "k", .fingerprint = "f"};
	int64_t put_in;

	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	assert_int_equal(ops->begin(fixture->store), 0);
	assert_int_equal(ops->stock_move(fixture->store, &first, NOW_NS, &put_in), 0);
	arm(FAULT_SYNC, 1, true);
	assert_int_equal(ops->commit(fixture->store), -EIO);
	disarm();
	/* the store goes on by itself, from what is on the disk */
	assert_int_equal(ops->begin(fixture->store), 0);
	assert_int_equal(ops->stock_move(fixture->store, &second, NOW_NS, &put_in), 0);
	assert_int_equal(ops->once_put(fixture->store, &once, "{}", NOW_NS), 0);
	assert_int_equal(ops->rollback(fixture->store, -EINVAL), -EINVAL);
	assert_int_equal(ops->stock_move(fixture->store, &first, NOW_NS, &put_in), 0);
	assert_int_equal(put_in, 11);
	fixture_audit(fixture);
}

/* --- an older ledger */

static void a_ledger_of_version_1_survives_any_failure_of_being_brought_up_to_date(void **state)
{
	struct ledger_fixture *fixture = *state;
	static const enum fault kinds[] = {FAULT_WRITE, FAULT_SYNC};
	unsigned points = 0;

	for (unsigned kind = 0; kind < 2; kind++) {
		bool reached = true;

		for (unsigned nth = 1; reached; nth++) {
			remove_ledger(fixture);
			fixture_sql(fixture, "PRAGMA journal_mode = WAL");
			fixture_sql(fixture, ledger_v1_schema);
			fixture_sql(fixture, ledger_v1_rows);
			chmod(fixture->path, 0600);
			arm(kinds[kind], nth, false);
			if (fixture_open(fixture)) {
				fixture_audit(fixture); /* whichever version it has, it is whole */
				points++;
				assert_int_equal(fixture_open(fixture), 0);
			}
			reached = fault_kind == FAULT_NONE;
			disarm();
			fixture_expect_sums(fixture, 1, 5, 3, 0, 2);
			fixture_close(fixture);
			fixture_audit(fixture);
			assert_string_equal(fixture_sql(fixture, "PRAGMA user_version"), "2");
		}
	}
	printf("%u points of failure\n", points);
	assert_true(points > 10);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, quiet_setup, quiet_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_write_that_fails_at_any_point_changes_all_or_nothing),
		TEST(an_fsync_that_fails_at_any_point_changes_all_or_nothing),
		TEST(the_guard_follows_what_is_on_the_disk_after_a_failed_change),
		TEST(a_bracket_whose_store_fails_is_over_when_it_is_rolled_back),
		TEST(a_ledger_of_version_1_survives_any_failure_of_being_brought_up_to_date),
	};

	log_init("test_writer_faults_life", LOG_ERROR_LEVEL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
