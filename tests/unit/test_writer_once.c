/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Answers that the daemon keeps under its idempotency keys: the first stays, and a key names one question, whatever kind it is of. */
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
		TEST(what_cannot_be_kept_is_refused),
	};

	log_init("test_writer_once", LOG_ERROR_LEVEL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
