/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tests of the JSON questions: each operation's answer as docs/writer-protocol.md says it, and every way to ask
 * wrongly.
 */
#include <jansson.h>

#include "common/log.h"
#include "ledger_fixture.h"
#include "writer/query.h"

#define SALE \
	"\"id\":1,\"slug\":\"drop-1\",\"opens_ns\":1000,\"ends_ns\":2000,\"per_buyer\":2,\"hold_seconds\":900," \
	"\"pace_per_second\":0,\"order_mode\":\"confirm\",\"token_multiplier\":0,\"paused\":false,\"ended\":false"
#define SALE_PUT "{\"op\":\"sale_put\",\"sale\":{" SALE "},\"stock\":10,\"key\":\"k\"}"
#define MOVE "{\"op\":\"stock_move\",\"sale\":1,\"delta\":1,\"key\":\"k\","

static json_t *ask_bytes(struct ledger_fixture *fixture, const void *body, size_t length, enum wire_type expected)
{
	char *text = NULL;
	enum wire_type type = writer_query_answer(fixture->store, body, length, NOW_NS, &text);
	json_t *answer;

	assert_non_null(text);
	if (type != expected)
		fail_msg("%.*s: answered by type %d %s", (int)length, (const char *)body, (int)type, text);
	answer = json_loads(text, 0, NULL);
	assert_true(json_is_object(answer));
	free(text);
	return answer;
}

static json_t *ask(struct ledger_fixture *fixture, const char *question)
{
	return ask_bytes(fixture, question, strlen(question), WIRE_QUERY);
}

/* The answer as text with sorted keys, so that all of it is compared. */
static void expect(struct ledger_fixture *fixture, const char *question, const char *answer)
{
	json_t *got = ask(fixture, question), *wanted = json_loads(answer, 0, NULL);

	assert_non_null(wanted);
	if (!json_equal(got, wanted))
		fail_msg("%s: got %s, expected %s", question, json_dumps(got, JSON_SORT_KEYS),
			json_dumps(wanted, JSON_SORT_KEYS));
	json_decref(got);
	json_decref(wanted);
}

static void expect_error(struct ledger_fixture *fixture, const char *question, const char *code, const char *part)
{
	json_t *answer = ask_bytes(fixture, question, strlen(question), WIRE_ERROR);
	const char *got = json_string_value(json_object_get(answer, "code"));
	const char *detail = json_string_value(json_object_get(answer, "detail"));

	if (!got || strcmp(got, code) || !detail || !strstr(detail, part))
		fail_msg("%s: expected %s with \"%s\", got %s: %s", question, code, part, got, detail);
	json_decref(answer);
}

static void a_sale_is_answered_with_what_the_ledger_keeps(void **state)
{
	expect(*state, "{\"op\":\"sales_list\"}", "{\"sales\":[],\"next\":null}");
	expect(*state, SALE_PUT, "{\"sale\":{" SALE ",\"put_in\":10,\"held\":0,\"confirmed\":0,\"orders\":0}}");
	assert_int_equal(fixture_admit_range(*state, 1, 1, 3), 0);
	expect(*state, "{\"op\":\"sales_list\"}",
		"{\"sales\":[{" SALE ",\"put_in\":10,\"held\":3,\"confirmed\":0,\"orders\":3}],\"next\":null}");
	/* the same once more: nothing happens twice */
	expect(*state, SALE_PUT, "{\"sale\":{" SALE ",\"put_in\":10,\"held\":3,\"confirmed\":0,\"orders\":3}}");
}

/* A ledger forgets no sale: the answer must not outgrow a frame. */
static void sales_are_told_by_the_thousand(void **state)
{
	struct ledger_fixture *fixture = *state;
	const struct store_ops *ops = fixture->store->ops;
	json_t *page;

	assert_int_equal(ops->begin(fixture->store), 0);
	for (uint32_t id = 1; id <= 1001; id++)
		assert_int_equal(fixture_sale(fixture, id, 1, 1), 0);
	assert_int_equal(ops->commit(fixture->store), 0);
	page = ask(fixture, "{\"op\":\"sales_list\"}");
	assert_int_equal(json_array_size(json_object_get(page, "sales")), 1000);
	assert_int_equal(json_integer_value(json_object_get(page, "next")), 1000);
	json_decref(page);
	page = ask(fixture, "{\"op\":\"sales_list\",\"after\":1000}");
	assert_int_equal(json_array_size(json_object_get(page, "sales")), 1);
	assert_true(json_is_null(json_object_get(page, "next")));
	json_decref(page);
}

static void a_sale_may_begin_without_stock(void **state)
{
	expect(*state, "{\"op\":\"sale_put\",\"sale\":{" SALE "}}",
		"{\"sale\":{" SALE ",\"put_in\":0,\"held\":0,\"confirmed\":0,\"orders\":0}}");
	expect(*state, "{\"op\":\"stock_move\",\"sale\":1,\"delta\":4,\"key\":\"a\",\"reason\":\"first\"}",
		"{\"put_in\":4}");
}

static void a_stock_move_answers_the_new_sum(void **state)
{
	json_decref(ask(*state, SALE_PUT));
	expect(*state, "{\"op\":\"stock_move\",\"sale\":1,\"delta\":5,\"key\":\"a\",\"reason\":\"found\"}",
		"{\"put_in\":15}");
	expect(*state, "{\"op\":\"stock_move\",\"sale\":1,\"delta\":5,\"key\":\"a\",\"reason\":\"found\"}",
		"{\"put_in\":15}");
	expect(*state, "{\"op\":\"stock_move\",\"sale\":1,\"delta\":-12,\"key\":\"b\"}", "{\"put_in\":3}");
	assert_int_equal(fixture_admit_range(*state, 1, 1, 3), 0);
	expect_error(*state, "{\"op\":\"stock_move\",\"sale\":1,\"delta\":-1,\"key\":\"c\"}", "conflict",
		"3 that are ordered");
	expect_error(*state, "{\"op\":\"stock_move\",\"sale\":2,\"delta\":1,\"key\":\"d\"}", "not_found", "id 2");
	expect_error(*state, "{\"op\":\"stock_move\",\"sale\":1,\"delta\":7,\"key\":\"a\"}", "conflict", "key a");
	fixture_audit(*state);
}

#define MOVE_WITH(delta, key, value) \
	"{\"op\":\"stock_move\",\"sale\":1,\"delta\":" delta ",\"key\":\"" key \
	"\",\"document\":{\"name\":\"book\",\"value\":\"" value "\"}}"
#define BOOK "{\"op\":\"document_get\",\"name\":\"book\"}"

static void a_document_is_written_with_the_movement_or_not_at_all(void **state)
{
	json_decref(ask(*state, SALE_PUT));
	expect(*state, MOVE_WITH("5", "a", "one"), "{\"put_in\":15}");
	expect(*state, BOOK, "{\"value\":\"one\"}");
	expect(*state, MOVE_WITH("-15", "b", "two"), "{\"put_in\":0}");
	expect(*state, BOOK, "{\"value\":\"two\"}");
	/* what comes late writes no older one */
	expect(*state, MOVE_WITH("5", "a", "one"), "{\"put_in\":0}");
	expect(*state, BOOK, "{\"value\":\"two\"}");
	expect_error(*state, MOVE_WITH("-1", "c", "three"), "conflict", "0 that are ordered");
	expect_error(*state, MOVE_WITH("6", "a", "three"), "conflict", "key a");
	expect(*state, BOOK, "{\"value\":\"two\"}");
	fixture_reopen(*state);
	expect(*state, BOOK, "{\"value\":\"two\"}");
	fixture_audit(*state);
}

#define WINDOWS "{\"op\":\"document_get\",\"name\":\"windows.1\"}"
#define SALE_OF(opens, per_buyer, paused) \
	"{\"op\":\"sale_put\",\"sale\":{\"id\":1,\"slug\":\"drop-1\",\"opens_ns\":" opens \
	",\"ends_ns\":2000,\"per_buyer\":" per_buyer \
	",\"hold_seconds\":900,\"pace_per_second\":0,\"order_mode\":\"confirm\",\"token_multiplier\":0,\"paused\":" paused \
	",\"ended\":false}}"

static void what_a_window_was_before_a_change_is_kept(void **state)
{
	json_t *answer, *document, *windows;

	json_decref(ask(*state, SALE_PUT));
	json_decref(ask(*state, SALE_OF("1000", "2", "true")));
	expect(*state, WINDOWS, "{\"value\":null}"); /* nothing of it has changed */
	json_decref(ask(*state, SALE_OF("1100", "2", "false")));
	json_decref(ask(*state, SALE_OF("1100", "2", "false")));
	json_decref(ask(*state, SALE_OF("1100", "3", "false")));
	fixture_reopen(*state);
	answer = ask(*state, WINDOWS);
	document = json_loads(json_string_value(json_object_get(answer, "value")), 0, NULL);
	windows = json_object_get(document, "windows");
	assert_int_equal(json_array_size(windows), 2);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(windows, 0), "opens_ns")), 1000);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(windows, 0), "until_ns")), NOW_NS);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(windows, 1), "opens_ns")), 1100);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(windows, 1), "per_buyer")), 2);
	json_decref(document);
	json_decref(answer);
	/* A change that the ledger refuses leaves what it says true. */
	expect_error(*state,
		"{\"op\":\"sale_put\",\"sale\":{\"id\":1,\"slug\":\"other\",\"opens_ns\":1,\"ends_ns\":2000,\"per_buyer\":3,"
		"\"hold_seconds\":900,\"pace_per_second\":0,\"order_mode\":\"confirm\",\"token_multiplier\":0,\"paused\":false,"
		"\"ended\":false}}",
		"conflict", "slug");
	json_decref(ask(*state, SALE_OF("1200", "3", "false")));
	answer = ask(*state, WINDOWS);
	document = json_loads(json_string_value(json_object_get(answer, "value")), 0, NULL);
	assert_int_equal(json_array_size(json_object_get(document, "windows")), 3);
	json_decref(document);
	json_decref(answer);
}

static void books_are_told_with_their_documents_and_what_was_refunded(void **state)
{
	json_decref(ask(*state, SALE_PUT));
	json_decref(ask(*state,
		"{\"op\":\"sale_put\",\"sale\":{\"id\":12,\"slug\":\"drop-12\",\"opens_ns\":1000,\"ends_ns\":2000,"
		"\"per_buyer\":2,\"hold_seconds\":900,\"pace_per_second\":0,\"order_mode\":\"confirm\","
		"\"token_multiplier\":0,\"paused\":false,\"ended\":false}}"));
	assert_int_equal(fixture_admit_range(*state, 1, 1, 3), 0);
	json_decref(ask(*state,
		"{\"op\":\"orders_change\",\"changes\":[{\"id\":\"0000000000000001\",\"action\":\"confirm\",\"by\":\"shop\"},"
		"{\"id\":\"0000000000000001\",\"action\":\"refund\",\"by\":\"shop\",\"restock\":false}]}"));
	json_decref(ask(*state, "{\"op\":\"document_put\",\"name\":\"lease.1\",\"value\":\"{}\"}"));
	json_decref(ask(*state, "{\"op\":\"document_put\",\"name\":\"lease.2\",\"value\":\"of no sale\"}"));
	expect(*state, "{\"op\":\"sale_books\",\"documents\":\"lease.\",\"after\":0,\"limit\":1}",
		"{\"books\":[{\"id\":1,\"slug\":\"drop-1\",\"put_in\":9,\"held\":2,\"confirmed\":0,\"refunded\":1,"
		"\"document\":\"{}\"}],\"next\":1}");
	expect(*state, "{\"op\":\"sale_books\",\"documents\":\"lease.\",\"after\":1,\"limit\":1}",
		"{\"books\":[{\"id\":12,\"slug\":\"drop-12\",\"put_in\":0,\"held\":0,\"confirmed\":0,\"refunded\":0,"
		"\"document\":null}],\"next\":null}");
	expect(*state, "{\"op\":\"sale_books\",\"documents\":\"lease.\",\"after\":12,\"limit\":200}",
		"{\"books\":[],\"next\":null}");
	expect_error(*state, "{\"op\":\"sale_books\",\"documents\":\"Lease\",\"after\":0,\"limit\":1}", "bad_request",
		"documents may have");
}

static void an_order_is_answered_in_full(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct wire_admit record = fixture_record(1, 0x9f86d081884c7d65);

	json_decref(ask(fixture, SALE_PUT));
	record.buyer = 0xff;
	record.network = UINT32_MAX;
	record.quantity = 2;
	assert_int_equal(fixture_admit(fixture, &record, 1), 0);
	expect(fixture, "{\"op\":\"order_get\",\"id\":\"9f86d081884c7d65\"}",
		"{\"order\":{\"id\":\"9f86d081884c7d65\",\"sale\":1,\"seq\":1,\"state\":\"held\",\"quantity\":2,"
		"\"buyer\":\"00000000000000ff\",\"source\":\"192.0.2.1\",\"network\":4294967295,"
		"\"admitted_ns\":1763812800249000000,\"committed_ns\":1763812800250000000,\"hold_seconds\":900,"
		"\"expires_ns\":1763813700249000000,\"resolved_ns\":0,\"resolved_by\":\"\",\"restocked\":false}}");
	expect_error(fixture, "{\"op\":\"order_get\",\"id\":\"9f86d081884c7d66\"}", "not_found", "9f86d081884c7d66");
}

#define ORDER(id, seq, state, resolved) \
	"{\"id\":\"000000000000000" id "\",\"sale\":1,\"seq\":" seq ",\"state\":\"" state "\",\"quantity\":1," \
	"\"buyer\":\"000000000000000" id \
	"\",\"source\":\"192.0.2.1\",\"network\":5,\"admitted_ns\":1763812800249000000," \
	"\"committed_ns\":1763812800250000000,\"hold_seconds\":900,\"expires_ns\":1763813700249000000," resolved "}"
#define HELD "\"resolved_ns\":0,\"resolved_by\":\"\",\"restocked\":false"
#define BY(who) "\"resolved_ns\":1763812800250000000,\"resolved_by\":\"" who "\",\"restocked\":false"
#define CHANGE(id, action, by) "{\"id\":\"000000000000000" id "\",\"action\":\"" action "\",\"by\":\"" by "\"}"
#define CHANGES(list) "{\"op\":\"orders_change\",\"changes\":[" list "]}"

static void changes_are_answered_in_their_order(void **state)
{
	json_decref(ask(*state, SALE_PUT));
	assert_int_equal(fixture_admit_range(*state, 1, 1, 3), 0);
	expect(*state,
		CHANGES(CHANGE("2", "cancel", "buyer") "," CHANGE("9", "confirm", "shop") "," CHANGE(
			"1", "confirm", "shop") "," CHANGE("1", "confirm", "shop") "," CHANGE("3", "expire", "time")),
		"{\"results\":[{\"id\":\"0000000000000002\",\"result\":\"changed\",\"order\":" ORDER("2", "2",
			"cancelled",
			BY("buyer")) "},"
				     "{\"id\":\"0000000000000009\",\"result\":\"not_found\",\"order\":null},"
				     "{\"id\":\"0000000000000001\",\"result\":\"changed\",\"order\":" ORDER("1", "1",
					     "confirmed",
					     BY("shop")) "},"
							 "{\"id\":\"0000000000000001\",\"result\":\"same\",\"order\":" ORDER(
								 "1", "1", "confirmed",
								 BY("shop")) "},"
									     "{\"id\":\"0000000000000003\",\"result\":\"conflict\",\"order\":" ORDER(
										     "3", "3", "held", HELD) "}]}");
	expect(*state, "{\"op\":\"sales_list\"}",
		"{\"sales\":[{" SALE ",\"put_in\":10,\"held\":1,\"confirmed\":1,\"orders\":3}],\"next\":null}");
	fixture_audit(*state);
}

static void a_refund_says_what_becomes_of_the_units(void **state)
{
	json_decref(ask(*state, SALE_PUT));
	assert_int_equal(fixture_admit_range(*state, 1, 1, 1), 0);
	json_decref(ask(*state, CHANGES(CHANGE("1", "confirm", "shop"))));
	expect_error(*state, CHANGES(CHANGE("1", "refund", "shop")), "bad_request", "restock is missing");
	expect(*state, CHANGES("{\"id\":\"0000000000000001\",\"action\":\"refund\",\"by\":\"shop\",\"restock\":true}"),
		"{\"results\":[{\"id\":\"0000000000000001\",\"result\":\"changed\",\"order\":" ORDER("1", "1",
			"refunded",
			"\"resolved_ns\":1763812800250000000,\"resolved_by\":\"shop\",\"restocked\":true") "}]}");
	expect_error(*state, "{\"op\":\"stock_move\",\"sale\":1,\"delta\":1,\"key\":\"refund:0000000000000001\"}",
		"conflict", "the ledger's own");
}

static void a_question_with_one_wrong_change_changes_nothing(void **state)
{
	static const char *const bad[][2] = {{"7", "object"}, {"{}", "id is missing"},
		{CHANGE("g", "confirm", "shop"), "hex"}, {CHANGE("1", "confirmed", "shop"), "action must be"},
		{CHANGE("1", "", "shop"), "action must be"}, {CHANGE("1", "confirm", ""), "by must be"},
		{CHANGE("1", "confirm", "daemon"), "by must be"},
		{"{\"id\":\"0000000000000001\",\"action\":\"confirm\",\"by\":\"shop\",\"restock\":true}",
			"unknown field restock"},
		{"{\"id\":\"0000000000000001\",\"action\":\"refund\",\"by\":\"shop\",\"restock\":1}", "restock"}};
	char question[512];

	json_decref(ask(*state, SALE_PUT));
	assert_int_equal(fixture_admit_range(*state, 1, 1, 2), 0);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		snprintf(question, sizeof(question), CHANGES("%s,%s"), CHANGE("2", "confirm", "shop"), bad[i][0]);
		expect_error(*state, question, "bad_request", bad[i][1]);
	}
	expect_error(*state, CHANGES(""), "bad_request", "1 to 1000");
	expect_error(*state, "{\"op\":\"orders_change\",\"changes\":{}}", "bad_request", "changes");
	expect_error(*state, "{\"op\":\"orders_change\"}", "bad_request", "changes is missing");
	fixture_expect_sums(*state, 1, 10, 2, 0, 2);
}

static void what_is_over_is_told_by_the_clock_of_the_writer(void **state)
{
	struct wire_admit record = fixture_record(1, 2);

	json_decref(ask(*state, SALE_PUT));
	assert_int_equal(fixture_admit_range(*state, 1, 1, 1), 0);
	record.hold_seconds = 1;
	record.admitted_wall_ns = NOW_NS - 1000000000;
	assert_int_equal(fixture_admit(*state, &record, 1), 0);
	expect(*state, "{\"op\":\"orders_due\",\"limit\":10}",
		"{\"orders\":[{\"id\":\"0000000000000002\",\"sale\":1,\"seq\":2,\"state\":\"held\",\"quantity\":1,"
		"\"buyer\":\"0000000000000002\",\"source\":\"192.0.2.1\",\"network\":5,\"admitted_ns\":1763812799250000000,"
		"\"committed_ns\":1763812800250000000,\"hold_seconds\":1,\"expires_ns\":1763812800250000000," HELD
		"}],\"more\":false}");
	json_decref(ask(*state, CHANGES(CHANGE("2", "expire", "time"))));
	expect(*state, "{\"op\":\"orders_due\",\"limit\":10}", "{\"orders\":[],\"more\":false}");
}

static void events_are_answered_with_the_order_as_it_was(void **state)
{
	json_decref(ask(*state, SALE_PUT));
	expect(*state, "{\"op\":\"events_list\",\"sale\":0,\"after\":0,\"limit\":10}",
		"{\"events\":[],\"next\":0,\"more\":false}");
	assert_int_equal(fixture_admit_range(*state, 1, 1, 1), 0);
	expect(*state, "{\"op\":\"sale_event\",\"sale\":1,\"type\":\"sale.opened\"}", "{\"recorded\":true}");
	expect(*state, "{\"op\":\"sale_event\",\"sale\":1,\"type\":\"sale.opened\"}", "{\"recorded\":false}");
	json_decref(ask(*state, CHANGES(CHANGE("1", "confirm", "shop"))));
	expect(*state, "{\"op\":\"events_list\",\"sale\":1,\"after\":0,\"limit\":2}",
		"{\"events\":[{\"position\":1,\"type\":\"order.held\",\"sale\":1,\"at_ns\":1763812800250000000,\"order\":" ORDER(
			"1", "1", "held",
			HELD) ",\"data\":{}},"
			      "{\"position\":2,\"type\":\"sale.opened\",\"sale\":1,\"at_ns\":1763812800250000000,\"order\":null,"
			      "\"data\":{\"put_in\":10,\"held\":1,\"confirmed\":0}}],\"next\":2,\"more\":true}");
	expect(*state, "{\"op\":\"events_list\",\"sale\":0,\"after\":2,\"limit\":2}",
		"{\"events\":[{\"position\":3,\"type\":\"order.confirmed\",\"sale\":1,\"at_ns\":1763812800250000000,\"order\":" ORDER(
			"1", "1", "confirmed", BY("shop")) ",\"data\":{}}],\"next\":3,\"more\":false}");
}

static void a_list_of_orders_can_be_narrowed(void **state)
{
	static const struct {
		const char *filter;
		unsigned count;
	} cases[] = {
		{"\"state\":\"\"", 6},
		{"\"state\":\"confirmed\"", 1},
		{"\"state\":\"\",\"buyer\":\"00000000000000bb\"", 2},
		{"\"state\":\"held\",\"buyer\":\"00000000000000bb\"", 1},
		{"\"state\":\"\",\"buyer\":\"0000000000000000\"", 0},
		{"\"state\":\"\",\"from_ns\":1763812800250000000", 6},
		{"\"state\":\"\",\"from_ns\":1763812800250000001", 2},
		{"\"state\":\"\",\"to_ns\":1763812800250000000", 0},
		{"\"state\":\"\",\"to_ns\":1763812800250000001", 4},
		{"\"state\":\"\",\"from_ns\":1,\"to_ns\":1763812800250000005", 4},
		{"\"state\":\"\",\"from_ns\":1763812800250000001,\"to_ns\":1763812800250000006", 2},
	};
	struct ledger_fixture *fixture = *state;
	struct wire_admit records[2] = {fixture_record(1, 20), fixture_record(1, 21)};
	char question[256];

	json_decref(ask(fixture, SALE_PUT));
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 4), 0);
	records[0].buyer = records[1].buyer = 0xbb;
	assert_int_equal(
		fixture->store->ops->admit(fixture->store, records, 2, NOW_NS + 5, fixture->acks, &fixture->refused),
		0);
	assert_int_equal(fixture_change(fixture, 21, STORE_CONFIRM), STORE_CHANGED);
	for (unsigned sale = 0; sale < 2; sale++) {
		for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
			json_t *answer;

			snprintf(question, sizeof(question),
				"{\"op\":\"orders_list\",\"sale\":%u,\"after\":0,\"limit\":100,%s}", sale,
				cases[i].filter);
			answer = ask(fixture, question);
			if (json_array_size(json_object_get(answer, "orders")) != cases[i].count)
				fail_msg(
					"%s: %zu orders", question, json_array_size(json_object_get(answer, "orders")));
			json_decref(answer);
		}
	}
}

static void documents_and_entries_are_kept_for_the_daemon(void **state)
{
	json_t *list, *document;

	expect(*state, "{\"op\":\"document_get\",\"name\":\"a\"}", "{\"value\":null}");
	expect(*state, "{\"op\":\"document_put\",\"name\":\"a\",\"value\":\"{\\\"x\\\":\\u00e4}\"}", "{}");
	expect(*state, "{\"op\":\"document_get\",\"name\":\"a\"}", "{\"value\":\"{\\\"x\\\":\xc3\xa4}\"}");
	list = ask(*state, "{\"op\":\"documents_list\"}");
	document = json_array_get(json_object_get(list, "documents"), 0);
	assert_string_equal(json_string_value(json_object_get(document, "name")), "a");
	assert_int_equal(json_integer_value(json_object_get(document, "size")), 8);
	assert_true(json_integer_value(json_object_get(document, "changed_ns")) == NOW_NS);
	json_decref(list);

	expect(*state,
		"{\"op\":\"list_put\",\"entries\":[{\"list\":\"deny\",\"prefix\":\"192.0.2.0/24\",\"expires_ns\":0,"
		"\"label\":\"x\",\"reason\":\"y\"},{\"list\":\"allow\",\"prefix\":\"192.0.2.1/32\",\"expires_ns\":7,\"label\":\"\","
		"\"reason\":\"\"}]}",
		"{\"count\":2}");
	list = ask(*state, "{\"op\":\"list_page\",\"after\":0,\"limit\":1}");
	assert_int_equal(json_array_size(json_object_get(list, "entries")), 1);
	assert_true(json_is_integer(json_object_get(list, "next")));
	json_decref(list);
	expect(*state, "{\"op\":\"list_remove\",\"entries\":[{\"list\":\"deny\",\"prefix\":\"192.0.2.0/24\"}]}",
		"{\"count\":1}");
	expect(*state, "{\"op\":\"list_page\",\"after\":0,\"limit\":10}",
		"{\"entries\":[{\"list\":\"allow\",\"prefix\":\"192.0.2.1/32\",\"expires_ns\":7,\"label\":\"\",\"reason\":\"\"}],"
		"\"next\":null}");
	expect(*state, "{\"op\":\"list_clear\",\"list\":\"allow\",\"label\":\"x\"}", "{\"count\":0,\"more\":false}");
	expect(*state, "{\"op\":\"list_clear\",\"list\":\"allow\",\"label\":\"\",\"all\":true}",
		"{\"count\":1,\"more\":false}");
}

/* The memory of jansson, in which answers are made: the nth allocation from now fails, and all behind it. */
static unsigned allocations_left;

static void *allocate_some(size_t size)
{
	if (!allocations_left)
		return NULL;
	allocations_left--;
	return malloc(size);
}

static void memory_that_runs_out_at_any_point_changes_all_or_nothing(void **state)
{
	struct ledger_fixture *fixture = *state;
	static const char *const questions[] = {
		CHANGES(CHANGE("1", "confirm", "shop") "," CHANGE("2", "cancel", "buyer")),
		"{\"op\":\"orders_change\",\"changes\":[" CHANGE(
			"3", "confirm", "shop") "],\"once\":{\"key\":\"k\",\"fingerprint\":\"f\"}}",
		"{\"op\":\"stock_move\",\"sale\":1,\"delta\":5,\"key\":\"m\"}"};
	static const int64_t sums[][3] = {{10, 3, 0}, {10, 1, 1}, {10, 0, 2}, {15, 0, 2}};

	json_decref(ask(fixture, SALE_PUT));
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 3), 0);
	for (unsigned i = 0; i < sizeof(questions) / sizeof(*questions); i++) {
		enum wire_type type = WIRE_ERROR;
		unsigned failures = 0;

		for (; type == WIRE_ERROR; failures++) {
			char *text = NULL;

			fixture_expect_sums(fixture, 1, sums[i][0], sums[i][1], sums[i][2], 3);
			assert_true(failures < 1000);
			allocations_left = failures;
			json_set_alloc_funcs(allocate_some, free);
			type = writer_query_answer(fixture->store, questions[i], strlen(questions[i]), NOW_NS, &text);
			json_set_alloc_funcs(malloc, free);
			assert_true(type == WIRE_ERROR || text);
			free(text);
		}
		assert_true(failures > 20);
		fixture_expect_sums(fixture, 1, sums[i + 1][0], sums[i + 1][1], sums[i + 1][2], 3);
	}
	fixture_audit(fixture);
}

static void orders_come_in_pages(void **state)
{
	char question[128];
	json_int_t after = 0;
	unsigned total = 0;

	json_decref(ask(*state, SALE_PUT));
	assert_int_equal(fixture_admit_range(*state, 1, 1, 10), 0);
	for (;;) {
		json_t *answer, *next;

		snprintf(question, sizeof(question),
			"{\"op\":\"orders_list\",\"sale\":1,\"state\":\"held\",\"after\":%lld,\"limit\":4}",
			(long long)after);
		answer = ask(*state, question);
		total += json_array_size(json_object_get(answer, "orders"));
		next = json_object_get(answer, "next");
		after = json_integer_value(next);
		if (json_is_null(next)) {
			json_decref(answer);
			break;
		}
		assert_true(json_is_integer(next));
		assert_int_equal(json_array_size(json_object_get(answer, "orders")), 4);
		json_decref(answer);
	}
	assert_int_equal(total, 10);
	expect(*state, "{\"op\":\"orders_list\",\"sale\":0,\"state\":\"refunded\",\"after\":0,\"limit\":1000}",
		"{\"orders\":[],\"next\":null}");
	expect(*state, "{\"op\":\"orders_list\",\"sale\":77,\"state\":\"\",\"after\":0,\"limit\":1}",
		"{\"orders\":[],\"next\":null}");
}

static void conflicts_of_sales_are_told_apart_from_bad_requests(void **state)
{
	json_decref(ask(*state, SALE_PUT));
	expect_error(*state,
		"{\"op\":\"sale_put\",\"sale\":{\"id\":2,\"slug\":\"drop-1\",\"opens_ns\":1,\"ends_ns\":2,\"per_buyer\":1,"
		"\"hold_seconds\":0,\"pace_per_second\":0,\"order_mode\":\"confirm\",\"token_multiplier\":0,\"paused\":true,"
		"\"ended\":true}}",
		"conflict", "id 1");
	expect_error(
		*state, "{\"op\":\"sale_put\",\"sale\":{" SALE "},\"stock\":11,\"key\":\"k\"}", "conflict", "key k");
	expect_error(
		*state, "{\"op\":\"sale_put\",\"sale\":{" SALE "},\"stock\":10,\"key\":\"l\"}", "conflict", "movement");
}

/* Replaces the value of one field of a good sale. */
static void expect_bad_sale(struct ledger_fixture *fixture, const char *field, const char *value)
{
	json_t *question = json_loads(SALE_PUT, 0, NULL);
	json_t *sale = json_object_get(question, "sale");
	char *text;

	assert_non_null(json_object_get(sale, field));
	if (value)
		assert_int_equal(json_object_set_new(sale, field, json_loads(value, JSON_DECODE_ANY, NULL)), 0);
	else
		json_object_del(sale, field);
	text = json_dumps(question, 0);
	expect_error(fixture, text, "bad_request", field);
	free(text);
	json_decref(question);
}

static void each_field_of_a_sale_has_one_type_and_a_range(void **state)
{
	static const char *const bad[][2] = {{"id", "0"}, {"id", "4294967296"}, {"id", "\"1\""}, {"id", "1.0"},
		{"id", "-1"}, {"id", "null"}, {"slug", "7"}, {"slug", "\"Drop\""}, {"slug", "\"-a\""},
		{"slug", "\"a-\""}, {"slug", "\"\""}, {"slug", "\"a b\""}, {"slug", "\"\\u00e4\""},
		{"slug", "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\""}, {"opens_ns", "-1"},
		{"opens_ns", "\"2026-11-22T12:00:00Z\""}, {"opens_ns", "2000"}, {"opens_ns", "[]"}, {"ends_ns", "1.5"},
		{"ends_ns", "true"}, {"per_buyer", "0"}, {"per_buyer", "101"}, {"hold_seconds", "4294967296"},
		{"hold_seconds", "-1"}, {"pace_per_second", "1000000001"}, {"order_mode", "\"other\""},
		{"order_mode", "\"\""}, {"order_mode", "1"}, {"token_multiplier", "1000001"}, {"paused", "0"},
		{"paused", "\"false\""}, {"ended", "null"}, {"ended", "{}"}};
	static const char *const fields[] = {"id", "slug", "opens_ns", "ends_ns", "per_buyer", "hold_seconds",
		"pace_per_second", "order_mode", "token_multiplier", "paused", "ended"};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		expect_bad_sale(*state, bad[i][0], bad[i][1]);
	for (unsigned i = 0; i < sizeof(fields) / sizeof(*fields); i++)
		expect_bad_sale(*state, fields[i], NULL);
	expect(*state, "{\"op\":\"sales_list\"}", "{\"sales\":[],\"next\":null}");
}

static void what_is_not_a_question_is_a_bad_request(void **state)
{
	static const struct {
		const char *question;
		const char *part;
	} bad[] = {
		{"", "not JSON"},
		{"{", "not JSON"},
		{"[]", "object"},
		{"{}", "op"},
		{"{\"op\":7}", "op"},
		{"{\"op\":\"drop_table\"}", "op"},
		{"{\"op\":\"sales_list\",\"op\":\"sales_list\"}", "duplicate"},
		{"{\"op\":\"sales_list\",\"since\":1}", "unknown field since"},
		{"{\"op\":\"sales_list\",\"\xc3\xa4\":1}", "unknown field"},
		{"{\"op\":\"sale_put\"}", "sale is missing"},
		{"{\"op\":\"sale_put\",\"sale\":[]}", "sale must be an object"},
		{"{\"op\":\"sale_put\",\"sale\":{" SALE ",\"colour\":\"red\"}}", "unknown field colour"},
		{"{\"op\":\"sale_put\",\"sale\":{" SALE ",\"put_in\":5}}", "unknown field put_in"},
		{"{\"op\":\"sale_put\",\"sale\":{" SALE "},\"stock\":10}", "key is missing"},
		{"{\"op\":\"sale_put\",\"sale\":{" SALE "},\"key\":\"k\"}", "unknown field key"},
		{"{\"op\":\"sale_put\",\"sale\":{" SALE "},\"stock\":-1,\"key\":\"k\"}", "stock"},
		{"{\"op\":\"sale_put\",\"sale\":{" SALE "},\"stock\":\"10\",\"key\":\"k\"}", "stock"},
		{"{\"op\":\"stock_move\",\"sale\":1,\"delta\":0,\"key\":\"k\"}", "delta"},
		{"{\"op\":\"stock_move\",\"sale\":1,\"delta\":1.5,\"key\":\"k\"}", "delta"},
		{"{\"op\":\"stock_move\",\"sale\":1,\"delta\":9223372036854775808,\"key\":\"k\"}", "not JSON"},
		{"{\"op\":\"stock_move\",\"sale\":1,\"delta\":1,\"key\":\"\"}", "key"},
		{"{\"op\":\"stock_move\",\"sale\":1,\"delta\":1,\"key\":\"a\\u0000b\"}", "not JSON"},
		{"{\"op\":\"stock_move\",\"sale\":1,\"delta\":1}", "key"},
		{"{\"op\":\"stock_move\",\"sale\":1,\"delta\":1,\"key\":\"k\",\"reason\":1}", "reason"},
		{MOVE "\"document\":\"book\"}", "document must be an object"},
		{MOVE "\"document\":{\"name\":\"book\"}}", "value is missing"},
		{MOVE "\"document\":{\"name\":\"Book\",\"value\":\"\"}}", "name may have"},
		{MOVE "\"document\":{\"name\":\"book\",\"value\":\"\",\"size\":1}}", "unknown field size"},
		{"{\"op\":\"orders_list\",\"sale\":0,\"state\":\"\",\"after\":0,\"limit\":0}", "limit"},
		{"{\"op\":\"orders_list\",\"sale\":0,\"state\":\"\",\"after\":0,\"limit\":1001}", "limit"},
		{"{\"op\":\"orders_list\",\"sale\":0,\"state\":\"open\",\"after\":0,\"limit\":1}", "state"},
		{"{\"op\":\"orders_list\",\"sale\":0,\"state\":\"\",\"after\":-1,\"limit\":1}", "after"},
		{"{\"op\":\"orders_list\",\"sale\":0,\"state\":\"\",\"limit\":1}", "after"},
		{"{\"op\":\"order_get\",\"id\":\"9F86D081884C7D65\"}", "hex"},
		{"{\"op\":\"order_get\",\"id\":\"9f86\"}", "hex"},
		{"{\"op\":\"order_get\",\"id\":\"0x86d081884c7d65\"}", "hex"},
		{"{\"op\":\"order_get\",\"id\":7}", "id"},
		{"{\"op\":\"order_get\"}", "id"},
		{"{\"op\":\"orders_list\",\"sale\":0,\"state\":\"\",\"after\":0,\"limit\":1,\"buyer\":\"7\"}", "buyer"},
		{"{\"op\":\"orders_list\",\"sale\":0,\"state\":\"\",\"after\":0,\"limit\":1,\"from_ns\":-1}",
			"from_ns"},
		{"{\"op\":\"orders_list\",\"sale\":0,\"state\":\"\",\"after\":0,\"limit\":1,\"to_ns\":0}", "to_ns"},
		{"{\"op\":\"orders_due\",\"limit\":1001}", "limit"},
		{"{\"op\":\"orders_due\"}", "limit"},
		{"{\"op\":\"events_list\",\"sale\":0,\"after\":-1,\"limit\":1}", "after"},
		{"{\"op\":\"events_list\",\"after\":0,\"limit\":1}", "sale"},
		{"{\"op\":\"sale_event\",\"sale\":1,\"type\":\"order.held\"}", "type"},
		{"{\"op\":\"sale_event\",\"sale\":1,\"type\":\"sale.paused\"}", "type"},
		{"{\"op\":\"sale_event\",\"sale\":0,\"type\":\"sale.opened\"}", "sale"},
		{"{\"op\":\"document_put\",\"name\":\"A\",\"value\":\"\"}", "name"},
		{"{\"op\":\"document_put\",\"name\":\"\",\"value\":\"\"}", "name"},
		{"{\"op\":\"document_put\",\"name\":\"a/b\",\"value\":\"\"}", "name"},
		{"{\"op\":\"document_put\",\"name\":\"a\"}", "value"},
		{"{\"op\":\"document_put\",\"name\":\"a\",\"value\":{}}", "value"},
		{"{\"op\":\"list_put\",\"entries\":[]}", "entries"},
		{"{\"op\":\"list_put\",\"entries\":[{\"list\":\"mute\",\"prefix\":\"::1\",\"expires_ns\":0,\"label\":\"\","
		 "\"reason\":\"\"}]}",
			"list"},
		{"{\"op\":\"list_put\",\"entries\":[{\"list\":\"deny\",\"prefix\":\"\",\"expires_ns\":0,\"label\":\"\","
		 "\"reason\":\"\"}]}",
			"prefix"},
		{"{\"op\":\"list_put\",\"entries\":[{\"list\":\"deny\",\"prefix\":\"::1\"}]}", "expires_ns"},
		{"{\"op\":\"list_remove\",\"entries\":[{\"list\":\"deny\",\"prefix\":\"::1\",\"label\":\"\"}]}",
			"unknown field label"},
		{"{\"op\":\"list_page\",\"after\":0,\"limit\":2001}", "limit"},
		{"{\"op\":\"list_clear\",\"list\":\"deny\"}", "label"},
		{"{\"op\":\"list_clear\",\"list\":\"deny\",\"label\":\"x\",\"all\":true}", "label"},
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		expect_error(*state, bad[i].question, "bad_request", bad[i].part);
	expect(*state, "{\"op\":\"sales_list\"}", "{\"sales\":[],\"next\":null}");
}

static void hostile_bytes_get_an_answer(void **state)
{
	struct ledger_fixture *fixture = *state;
	static const char good[] = SALE_PUT;
	char bytes[sizeof(good)];

	/* every cut, and every byte turned: never a crash, and an answer that is JSON */
	for (size_t cut = 0; cut < sizeof(good) - 1; cut++)
		json_decref(ask_bytes(*state, good, cut, WIRE_ERROR));
	for (size_t i = 0; i < sizeof(good) - 1; i++) {
		char *text = NULL;

		memcpy(bytes, good, sizeof(good));
		bytes[i] ^= (char)0x80;
		assert_int_equal(
			writer_query_answer(fixture->store, bytes, sizeof(good) - 1, NOW_NS, &text), WIRE_ERROR);
		assert_non_null(text);
		free(text);
	}
	memset(bytes, '[', sizeof(bytes));
	json_decref(ask_bytes(*state, bytes, sizeof(bytes), WIRE_ERROR));
}

static void hello_tells_ledger_and_store(void **state)
{
	struct ledger_fixture *fixture = *state;
	static const char *const bad[] = {"{}", "{\"version\":1,\"node\":1}", "{\"version\":2}",
		"{\"version\":2,\"node\":1,\"x\":1}", "{\"version\":2,\"node\":\"1\"}", "hello"};
	static const char good[] = "{\"version\":2,\"node\":1}";
	char expected[128];
	char *text;

	assert_int_equal(writer_query_hello(fixture->store, "/var/lib/sluice/ledger.db", good, sizeof(good) - 1, &text),
		WIRE_HELLO);
	snprintf(expected, sizeof(expected),
		"{\"version\":2,\"ledger\":\"/var/lib/sluice/ledger.db\",\"store\":\"%s\",\"schema\":%u}",
		fixture->store->ops->name, fixture->store->schema);
	assert_string_equal(text, expected);
	free(text);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(writer_query_hello(fixture->store, "l", bad[i], strlen(bad[i]), &text), WIRE_ERROR);
		assert_non_null(strstr(text, "bad_request"));
		free(text);
	}
	/* a path that JSON cannot carry is still an answer */
	assert_int_equal(writer_query_hello(fixture->store, "/\xff", good, sizeof(good) - 1, &text), WIRE_ERROR);
	assert_non_null(text);
	free(text);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_sale_is_answered_with_what_the_ledger_keeps),
		TEST(sales_are_told_by_the_thousand),
		TEST(a_sale_may_begin_without_stock),
		TEST(a_stock_move_answers_the_new_sum),
		TEST(what_a_window_was_before_a_change_is_kept),
		TEST(books_are_told_with_their_documents_and_what_was_refunded),
		TEST(a_document_is_written_with_the_movement_or_not_at_all),
		TEST(an_order_is_answered_in_full),
		TEST(orders_come_in_pages),
		TEST(memory_that_runs_out_at_any_point_changes_all_or_nothing),
		TEST(changes_are_answered_in_their_order),
		TEST(a_refund_says_what_becomes_of_the_units),
		TEST(a_question_with_one_wrong_change_changes_nothing),
		TEST(what_is_over_is_told_by_the_clock_of_the_writer),
		TEST(events_are_answered_with_the_order_as_it_was),
		TEST(a_list_of_orders_can_be_narrowed),
		TEST(documents_and_entries_are_kept_for_the_daemon),
		TEST(conflicts_of_sales_are_told_apart_from_bad_requests),
		TEST(each_field_of_a_sale_has_one_type_and_a_range),
		TEST(what_is_not_a_question_is_a_bad_request),
		TEST(hostile_bytes_get_an_answer),
		TEST(hello_tells_ledger_and_store),
	};

	log_init("test_writer_query", LOG_ERROR_LEVEL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
