/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tests of any store: idempotency keys. A question with a key is answered once; a repetition gets the same bytes and
 * changes nothing, after a restart as well; another question may not have the key; old keys are forgotten.
 */
#include "common/log.h"
#include "ledger_fixture.h"
#include "writer/query.h"

#define SALE \
	"\"id\":1,\"slug\":\"drop-1\",\"opens_ns\":1000,\"ends_ns\":2000,\"per_buyer\":2,\"hold_seconds\":900," \
	"\"pace_per_second\":0,\"order_mode\":\"confirm\",\"token_multiplier\":0,\"paused\":false,\"ended\":false"
#define ONCE(key, fingerprint) ",\"once\":{\"key\":\"" key "\",\"fingerprint\":\"" fingerprint "\"}"
#define CONFIRM \
	"{\"op\":\"orders_change\",\"changes\":[{\"id\":\"0000000000000001\",\"action\":\"confirm\",\"by\":\"shop\"}]"
#define REFUND \
	"{\"op\":\"orders_change\",\"changes\":[{\"id\":\"0000000000000001\",\"action\":\"refund\",\"by\":\"shop\"," \
	"\"restock\":false}]"
#define MOVE "{\"op\":\"stock_move\",\"sale\":1,\"delta\":5,\"key\":\"m\""

#define HOUR_NS (3600 * 1000000000ULL)
#define WEEK_NS (7 * 24 * HOUR_NS)

/* The answer, to be freed; fails if it is of another type. */
static char *ask_at(struct ledger_fixture *fixture, const char *question, enum wire_type expected, uint64_t now_ns)
{
	char *text = NULL;
	enum wire_type type = writer_query_answer(fixture->store, question, strlen(question), now_ns, &text);

	assert_non_null(text);
	if (type != expected)
		fail_msg("%s: answered by type %d %s", question, (int)type, text);
	return text;
}

static char *ask(struct ledger_fixture *fixture, const char *question)
{
	return ask_at(fixture, question, WIRE_QUERY, NOW_NS);
}

static void expect(struct ledger_fixture *fixture, const char *question, const char *answer)
{
	char *got = ask(fixture, question);

	assert_string_equal(got, answer);
	free(got);
}

static void expect_error(struct ledger_fixture *fixture, const char *question, const char *code)
{
	char *got = ask_at(fixture, question, WIRE_ERROR, NOW_NS);

	if (!strstr(got, code))
		fail_msg("%s: expected %s, got %s", question, code, got);
	free(got);
}

static void expect_part(struct ledger_fixture *fixture, const char *question, const char *part)
{
	char *got = ask(fixture, question);

	if (!strstr(got, part))
		fail_msg("%s: expected %s in %s", question, part, got);
	free(got);
}

static void make_order(struct ledger_fixture *fixture)
{
	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 1), 0);
}

static void a_repeated_question_gets_the_same_bytes(void **state)
{
	struct ledger_fixture *fixture = *state;
	char *first;

	make_order(fixture);
	first = ask(fixture, CONFIRM ONCE("k", "f") "}");
	assert_non_null(strstr(first, "\"changed\""));
	for (unsigned again = 0; again < 3; again++) {
		expect(fixture, CONFIRM ONCE("k", "f") "}", first);
		fixture_reopen(fixture);
	}
	/* without the key, and with another, it is another question */
	expect_part(fixture, CONFIRM "}", "\"same\"");
	expect_part(fixture, CONFIRM ONCE("l", "f") "}", "\"same\"");
	expect(fixture, CONFIRM ONCE("k", "f") "}", first);
	free(first);
	fixture_audit(fixture);
}

static void the_first_answer_stays_whatever_happens_after_it(void **state)
{
	struct ledger_fixture *fixture = *state;
	char *first;

	make_order(fixture);
	first = ask(fixture, CONFIRM ONCE("k", "f") "}");
	expect_part(fixture, REFUND ONCE("r", "g") "}", "\"changed\"");
	expect(fixture, CONFIRM ONCE("k", "f") "}", first);
	fixture_expect_sums(fixture, 1, 9, 0, 0, 1);
	expect_part(fixture, REFUND ONCE("r", "g") "}", "\"changed\"");
	fixture_expect_sums(fixture, 1, 9, 0, 0, 1);
	free(first);
	fixture_audit(fixture);
}

static void a_key_names_one_question(void **state)
{
	struct ledger_fixture *fixture = *state;

	make_order(fixture);
	free(ask(fixture, CONFIRM ONCE("k", "f") "}"));
	expect_error(fixture, CONFIRM ONCE("k", "F") "}", "\"key_reused\"");
	expect_error(fixture, MOVE ONCE("k", "move") "}", "\"key_reused\"");
	fixture_reopen(fixture);
	expect_error(fixture, REFUND ONCE("k", "g") "}", "\"key_reused\"");
	fixture_expect_sums(fixture, 1, 10, 0, 1, 1);
	fixture_audit(fixture);
}

static void sales_and_stock_are_asked_once_too(void **state)
{
	struct ledger_fixture *fixture = *state;
	static const char put[] =
		"{\"op\":\"sale_put\",\"sale\":{" SALE "},\"stock\":10,\"key\":\"c\"" ONCE("p", "f") "}";
	char *created = ask(fixture, put), *moved;

	moved = ask(fixture, MOVE ONCE("k", "f") "}");
	assert_string_equal(moved, "{\"put_in\":15}");
	expect(fixture, "{\"op\":\"stock_move\",\"sale\":1,\"delta\":1,\"key\":\"n\"}", "{\"put_in\":16}");
	for (unsigned again = 0; again < 2; again++) {
		expect(fixture, put, created);
		expect(fixture, MOVE ONCE("k", "f") "}", "{\"put_in\":15}");
		expect(fixture, MOVE "}", "{\"put_in\":16}"); /* the movement's own key */
		fixture_reopen(fixture);
	}
	fixture_expect_sums(fixture, 1, 16, 0, 0, 0);
	free(created);
	free(moved);
	fixture_audit(fixture);
}

static void an_error_is_not_kept(void **state)
{
	struct ledger_fixture *fixture = *state;

	/* the sale comes into being between the two: the key is still free */
	expect_error(fixture, MOVE ONCE("k", "f") "}", "\"not_found\"");
	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	expect(fixture, MOVE ONCE("k", "f") "}", "{\"put_in\":15}");
	expect_error(fixture, "{\"op\":\"stock_move\",\"sale\":1,\"delta\":-16,\"key\":\"x\"" ONCE("l", "f") "}",
		"\"conflict\"");
	expect_error(fixture, "{\"op\":\"stock_move\",\"sale\":1,\"delta\":0,\"key\":\"x\"" ONCE("m", "f") "}",
		"\"bad_request\"");
	expect(fixture, "{\"op\":\"stock_move\",\"sale\":1,\"delta\":1,\"key\":\"x\"" ONCE("m", "f") "}",
		"{\"put_in\":16}");
	fixture_audit(fixture);
}

static void a_key_has_its_form_and_its_places(void **state)
{
	struct ledger_fixture *fixture = *state;
	static const char *const bad[] = {
		MOVE ",\"once\":\"k\"}",
		MOVE ",\"once\":{}}",
		MOVE ",\"once\":{\"key\":\"k\"}}",
		MOVE ",\"once\":{\"fingerprint\":\"f\"}}",
		MOVE ",\"once\":{\"key\":\"\",\"fingerprint\":\"f\"}}",
		MOVE ",\"once\":{\"key\":\"k\",\"fingerprint\":7}}",
		MOVE ",\"once\":{\"key\":\"k\",\"fingerprint\":\"f\",\"more\":1}}",
		"{\"op\":\"sales_list\"" ONCE("k", "f") "}",
		"{\"op\":\"document_put\",\"name\":\"a\",\"value\":\"\"" ONCE("k", "f") "}",
	};
	char key[STORE_KEY_MAX + 2], question[512];

	make_order(fixture);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		expect_error(fixture, bad[i], "\"bad_request\"");
	memset(key, 'k', sizeof(key));
	key[STORE_KEY_MAX + 1] = '\0';
	snprintf(question, sizeof(question), MOVE ",\"once\":{\"key\":\"%s\",\"fingerprint\":\"f\"}}", key);
	expect_error(fixture, question, "\"bad_request\"");
	key[STORE_KEY_MAX] = '\0';
	snprintf(question, sizeof(question), MOVE ",\"once\":{\"key\":\"%s\",\"fingerprint\":\"%s\"}}", key, key);
	expect(fixture, question, "{\"put_in\":15}");
	expect(fixture, question, "{\"put_in\":15}");
}

static void a_large_answer_is_kept_whole(void **state)
{
	struct ledger_fixture *fixture = *state;
	char *question = malloc(STORE_CHANGES_MAX * 80 + 256), *end = question, *first, *second;

	assert_non_null(question);
	assert_int_equal(fixture_sale(fixture, 1, 1, STORE_CHANGES_MAX), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, STORE_CHANGES_MAX), 0);
	end += sprintf(end, "{\"op\":\"orders_change\",\"changes\":[");
	for (unsigned i = 1; i <= STORE_CHANGES_MAX; i++)
		end += sprintf(end, "%s{\"id\":\"%016x\",\"action\":\"confirm\",\"by\":\"shop\"}", i > 1 ? "," : "", i);
	sprintf(end, "]" ONCE("k", "f") "}");
	first = ask(fixture, question);
	assert_true(strlen(first) > 200000);
	fixture_reopen(fixture);
	second = ask(fixture, question);
	assert_string_equal(first, second);
	free(first);
	free(second);
	free(question);
	fixture_audit(fixture);
}

static bool is_known(struct ledger_fixture *fixture, const char *key)
{
	struct store_once once = {.fingerprint = "f"};
	char *answer = NULL;

	strcpy(once.key, key);
	assert_int_equal(fixture->store->ops->once_get(fixture->store, &once, &answer), 0);
	free(answer);
	return answer;
}

static void keep_at(struct ledger_fixture *fixture, const char *key, uint64_t now_ns)
{
	struct store_once once = {.fingerprint = "f"};

	strcpy(once.key, key);
	if (fixture->store->ops->once_put(fixture->store, &once, "{}", now_ns))
		fail_msg("%s", fixture->store->error);
}

static void keys_are_forgotten_after_a_week(void **state)
{
	struct ledger_fixture *fixture = *state;

	keep_at(fixture, "old", NOW_NS);
	keep_at(fixture, "young", NOW_NS + HOUR_NS);
	fixture->store->ops->maintain(fixture->store, NOW_NS + WEEK_NS);
	assert_true(is_known(fixture, "old"));
	fixture->store->ops->maintain(fixture->store, NOW_NS + WEEK_NS + HOUR_NS / 2);
	assert_false(is_known(fixture, "old"));
	assert_true(is_known(fixture, "young"));
	/* the key may then name another question */
	keep_at(fixture, "old", NOW_NS + WEEK_NS + HOUR_NS);
	fixture_reopen(fixture);
	assert_true(is_known(fixture, "old"));
	assert_true(is_known(fixture, "young"));
	fixture_audit(fixture);
}

static void many_old_keys_are_forgotten_bit_by_bit(void **state)
{
	struct ledger_fixture *fixture = *state;
	const struct store_ops *ops = fixture->store->ops;
	unsigned total = 3000, calls = 0;
	uint64_t now = NOW_NS + 2 * WEEK_NS;
	char key[16];

	assert_int_equal(ops->begin(fixture->store), 0);
	for (unsigned i = 0; i < total; i++) {
		snprintf(key, sizeof(key), "old-%u", i);
		keep_at(fixture, key, NOW_NS + i);
	}
	assert_int_equal(ops->commit(fixture->store), 0);
	keep_at(fixture, "young", now);
	/* the last of the old goes too, in more than one call and without one that would take all */
	snprintf(key, sizeof(key), "old-%u", total - 1);
	for (; is_known(fixture, key) && calls < 100; calls++, now += 1000000000)
		ops->maintain(fixture->store, now);
	assert_false(is_known(fixture, key));
	assert_false(is_known(fixture, "old-0"));
	assert_true(is_known(fixture, "young"));
	assert_true(calls > 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_repeated_question_gets_the_same_bytes),
		TEST(the_first_answer_stays_whatever_happens_after_it),
		TEST(a_key_names_one_question),
		TEST(sales_and_stock_are_asked_once_too),
		TEST(an_error_is_not_kept),
		TEST(a_key_has_its_form_and_its_places),
		TEST(a_large_answer_is_kept_whole),
		TEST(keys_are_forgotten_after_a_week),
		TEST(many_old_keys_are_forgotten_bit_by_bit),
	};

	log_init("test_writer_once", LOG_ERROR_LEVEL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
