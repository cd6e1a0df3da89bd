/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Answers under idempotency keys, the daemon's own and those of changes: the first stays, a key names one question, whatever kind it is of,
 * and that an order is not there is no answer to be kept.
 */
#include <jansson.h>

#include "common/log.h"
#include "ledger_fixture.h"
#include "writer/query.h"

#define PUT(fingerprint, answer) \
	"{\"op\":\"once_put\",\"once\":{\"key\":\"k\",\"fingerprint\":\"" fingerprint "\"},\"answer\":" answer "}"
#define GET(fingerprint) "{\"op\":\"once_get\",\"key\":\"k\",\"fingerprint\":\"" fingerprint "\"}"

static void expect(struct ledger_fixture *fixture, const char *question, enum wire_type type, const char *answer)
{
	char *text = NULL;

	assert_int_equal(writer_query_answer(fixture->store, question, strlen(question), NOW_NS, &text), type);
	assert_non_null(text);
	if (type == WIRE_ERROR)
		assert_non_null(strstr(text, answer));
	else
		assert_string_equal(text, answer);
	free(text);
}

static void the_first_answer_under_a_key_stays(void **state)
{
	expect(*state, GET("one"), WIRE_QUERY, "{\"answer\":null}");
	expect(*state, PUT("one", "{\"status\":200,\"body\":\"a\"}"), WIRE_QUERY, "{\"status\":200,\"body\":\"a\"}");
	expect(*state, GET("one"), WIRE_QUERY, "{\"answer\":{\"status\":200,\"body\":\"a\"}}");
	expect(*state, PUT("one", "{\"status\":409}"), WIRE_QUERY, "{\"status\":200,\"body\":\"a\"}");
	expect(*state, GET("one"), WIRE_QUERY, "{\"answer\":{\"status\":200,\"body\":\"a\"}}");
}

static void a_key_names_one_question_of_any_kind(void **state)
{
	static const char change[] =
		"{\"op\":\"orders_change\",\"changes\":[{\"id\":\"0000000000000001\",\"action\":\"confirm\",\"by\":\"shop\"}],"
		"\"once\":{\"key\":\"k\",\"fingerprint\":\"one\"}}";

	expect(*state, PUT("one", "{\"results\":[]}"), WIRE_QUERY, "{\"results\":[]}");
	expect(*state, GET("two"), WIRE_ERROR, "\"key_reused\"");
	expect(*state, PUT("two", "{}"), WIRE_ERROR, "\"key_reused\"");
	/* A change that asks with the same key and fingerprint gets that answer, and changes nothing. */
	expect(*state, change, WIRE_QUERY, "{\"results\":[]}");
}

#define CONFIRM(serials) \
	"{\"op\":\"orders_change\",\"changes\":[" serials "],\"once\":{\"key\":\"k\",\"fingerprint\":\"f\"}}"
#define ONE(id) "{\"id\":\"000000000000000" id "\",\"action\":\"confirm\",\"by\":\"shop\"}"

static bool answers(struct ledger_fixture *fixture, const char *question, const char *part)
{
	char *text = NULL;
	bool found;

	assert_int_equal(writer_query_answer(fixture->store, question, strlen(question), NOW_NS, &text), WIRE_QUERY);
	found = strstr(text, part);
	free(text);
	return found;
}

/* It was asked before the order came: a machine that broke down, a buyer who sends his token again. */
static void that_an_order_is_not_there_is_not_kept(void **state)
{
	struct ledger_fixture *fixture = *state;

	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	assert_true(answers(fixture, CONFIRM(ONE("1")), "\"not_found\""));
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 1), 0);
	assert_true(answers(fixture, CONFIRM(ONE("1")), "\"changed\""));
	/* this is its answer from now on */
	assert_true(answers(fixture, CONFIRM(ONE("1")), "\"changed\""));
	fixture_expect_sums(fixture, 1, 10, 0, 1, 1);
	fixture_audit(fixture);
}

/* What was changed beside it stays, and is the same when it is asked again. */
static void one_order_that_is_not_there_keeps_the_whole_answer_open(void **state)
{
	struct ledger_fixture *fixture = *state;

	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 1), 0);
	assert_true(answers(fixture, CONFIRM(ONE("2") "," ONE("1")), "\"changed\""));
	assert_int_equal(fixture_admit_range(fixture, 1, 2, 1), 0);
	assert_true(answers(fixture, CONFIRM(ONE("2") "," ONE("1")), "\"same\""));
	fixture_expect_sums(fixture, 1, 10, 0, 2, 2);
	fixture_audit(fixture);
}

static void what_cannot_be_kept_is_refused(void **state)
{
	expect(*state, PUT("one", "\"text\""), WIRE_ERROR, "answer must be an object");
	expect(*state, "{\"op\":\"once_put\",\"answer\":{}}", WIRE_ERROR, "once is missing");
	expect(*state, "{\"op\":\"once_get\",\"key\":\"k\"}", WIRE_ERROR, "fingerprint");
	expect(*state, "{\"op\":\"once_get\",\"key\":\"\",\"fingerprint\":\"f\"}", WIRE_ERROR, "bad_request");
	expect(*state, GET("one"), WIRE_QUERY, "{\"answer\":null}");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_first_answer_under_a_key_stays),
		TEST(a_key_names_one_question_of_any_kind),
		TEST(that_an_order_is_not_there_is_not_kept),
		TEST(one_order_that_is_not_there_keeps_the_whole_answer_open),
		TEST(what_cannot_be_kept_is_refused),
	};

	log_init("test_writer_once", LOG_ERROR_LEVEL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
