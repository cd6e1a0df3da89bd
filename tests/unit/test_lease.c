/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The lease protocol's texts, and the first steps of a node. What it does under faults is the simulation's (tests/sim). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fleet/lease.h"

#define MS 1000000ull

static struct lease_book book_of_everything(void)
{
	struct lease_book book = {
		.generation = "7-0123abcd1700000000000001",
		.epoch = 1700000000123,
		.seq = 42,
		.op = LEASE_OP_RETURN,
		.units = 3,
		.balance = 17,
		.total = 1000,
		.version = 5,
		.operation = "op.5:a_b-c",
	};

	lease_members_add(&book.members, 1);
	lease_members_add(&book.members, 64);
	lease_members_add(&book.members, LEASE_NODE_MAX);
	return book;
}

static void a_book_is_read_as_it_was_written(void **state)
{
	struct lease_book book = book_of_everything(), read;
	char text[LEASE_BOOK_TEXT_MAX], again[LEASE_BOOK_TEXT_MAX];

	(void)state;
	lease_book_encode(&book, text);
	assert_int_equal(lease_book_decode(&read, text), 0);
	lease_book_encode(&read, again);
	assert_string_equal(text, again);
	assert_true(lease_members_has(&read.members, LEASE_NODE_MAX));
	assert_false(lease_members_has(&read.members, 2));
	assert_int_equal(read.op, LEASE_OP_RETURN);
}

static void the_longest_book_has_room(void **state)
{
	struct lease_book book = {.epoch = LEASE_COUNT_MAX,
		.seq = LEASE_COUNT_MAX,
		.op = LEASE_OP_RETURN,
		.units = LEASE_UNITS_MAX,
		.balance = LEASE_UNITS_MAX,
		.total = LEASE_UNITS_MAX,
		.version = LEASE_COUNT_MAX};
	struct lease_book read;
	char text[LEASE_BOOK_TEXT_MAX];

	(void)state;
	memset(book.generation, '9', sizeof(book.generation) - 1);
	memcpy(book.generation, "1-", 2);
	memset(book.operation, 'x', sizeof(book.operation) - 1);
	for (unsigned node = 1; node <= LEASE_NODE_MAX; node++)
		lease_members_add(&book.members, node);
	lease_book_encode(&book, text);
	assert_int_equal(lease_book_decode(&read, text), 0);
	assert_true(lease_members_cover(&read.members, &book.members));
}

static void a_book_that_is_none_is_refused_and_changes_nothing(void **state)
{
	static const struct {
		const char *from, *to;
	} changes[] = {
		{"{", "["},
		{"\"epoch\":1700000000123", "\"epoch\":-1"},
		{"\"seq\":42", "\"seq\":\"42\""},
		{"\"seq\":42", "\"seq\":42.5"},
		{"\"seq\":42", "\"seq\":9007199254740993"},
		{"\"seq\":42", "\"seq\":42,\"seq\":43"},
		{"\"seq\":42,", ""},
		{"\"op\":\"return\"", "\"op\":\"steal\""},
		{"\"balance\":17", "\"balance\":-17"},
		{"\"balance\":17", "\"balance\":1000000000001"},
		{"\"balance\":17", "\"balance\":null"},
		{"\"version\":5", "\"version\":5,\"more\":1"},
		{"7-0123", "0-0123"},
		{"7-0123", "-0123"},
		{"7-0123", "7 0123"},
		{"op.5:a_b-c", "op\\u00005"},
		{"op.5:a_b-c", "0123456789012345678901234567890123456789012345678901234567890123"},
		{"[1,64,255]", "[1,64,256]"},
		{"[1,64,255]", "[0]"},
		{"[1,64,255]", "[\"1\"]"},
		{"[1,64,255]", "{}"},
	};
	struct lease_book book = book_of_everything(), before = book;
	char text[LEASE_BOOK_TEXT_MAX], hostile[LEASE_BOOK_TEXT_MAX + 128];

	(void)state;
	lease_book_encode(&book, text);
	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		const char *at = strstr(text, changes[i].from);

		assert_non_null(at);
		snprintf(hostile, sizeof(hostile), "%.*s%s%s", (int)(at - text), text, changes[i].to,
			at + strlen(changes[i].from));
		if (lease_book_decode(&book, hostile) != -EINVAL)
			fail_msg("taken: %s", hostile);
	}
	assert_int_equal(lease_book_decode(&book, ""), -EINVAL);
	assert_memory_equal(&book, &before, sizeof(book));
}

static const char *const good[LEASE_REPLY_TEXTS] = {"ok", "3-abc1", "open", "100", "2", "op1", "-5", "7", "8", "",
	"1,2,3", "9", "10", "grant", "4", "30", "26", "0", "11", "0123456789abcdef0123456789abcdef01234567",
	"1700000000000", "10"};

static int decode(struct lease_reply *reply, const char *const *texts, size_t count)
{
	size_t lengths[LEASE_REPLY_TEXTS + 1];

	for (size_t i = 0; i < count; i++)
		lengths[i] = texts[i] ? strlen(texts[i]) : 0;
	return lease_reply_decode(reply, texts, lengths, count);
}

static void a_reply_is_read(void **state)
{
	struct lease_reply reply;

	(void)state;
	assert_int_equal(decode(&reply, good, LEASE_REPLY_TEXTS), 0);
	assert_int_equal(reply.answer, LEASE_OK);
	assert_true(reply.open);
	assert_int_equal(reply.free, -5);
	assert_int_equal(reply.row.op, LEASE_OP_GRANT);
	assert_int_equal(reply.row.balance, 30);
	assert_int_equal(reply.time_ms, 1700000000000);
	assert_int_equal(reply.row.written, 10);
	assert_true(lease_members_has(&reply.members, 3));
}

static void a_reply_that_is_none_is_refused(void **state)
{
	static const struct {
		unsigned index;
		const char *text;
	} hostile[] = {{0, "yes"}, {0, ""}, {1, "x-1"}, {1, "3"}, {2, "closed"}, {3, "-1"}, {3, "1e3"},
		{3, "99999999999999999999"}, {4, ""}, {5, "a b"}, {6, "--5"}, {7, "-1"}, {9, "0"}, {9, "1,"},
		{10, "256"}, {10, "1,,2"}, {11, "x"}, {12, "4503599627370496"}, {13, "GRANT"}, {14, "-3"}, {15, "-2"},
		{17, "2"}, {19, "0123456789abcdef0123456789abcdef0123456789abcdef"}, {20, "1.5"}, {20, NULL},
		{21, "-1"}};
	const char *texts[LEASE_REPLY_TEXTS + 1];
	size_t lengths[LEASE_REPLY_TEXTS] = {0};
	struct lease_reply reply;

	(void)state;
	for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
		memcpy(texts, good, sizeof(good));
		texts[hostile[i].index] = hostile[i].text;
		if (decode(&reply, texts, LEASE_REPLY_TEXTS) != -EPROTO)
			fail_msg("text %u taken: %s", hostile[i].index, hostile[i].text ? hostile[i].text : "(null)");
	}
	memcpy(texts, good, sizeof(good));
	texts[LEASE_REPLY_TEXTS] = "more";
	assert_int_equal(decode(&reply, texts, LEASE_REPLY_TEXTS + 1), -EPROTO);
	assert_int_equal(decode(&reply, texts, LEASE_REPLY_TEXTS - 1), -EPROTO);
	assert_int_equal(decode(&reply, texts, 0), -EPROTO);
	/* A NUL within a text. */
	for (size_t i = 0; i < LEASE_REPLY_TEXTS; i++)
		lengths[i] = strlen(good[i]);
	lengths[1]++;
	assert_int_equal(lease_reply_decode(&reply, good, lengths, LEASE_REPLY_TEXTS), -EPROTO);
}

/* --- the first steps */

static struct lease_options options_of_two(void)
{
	struct lease_options options = {.node = 1, .lease_ms = 2000, .channel = "look", .origin = "here"};

	lease_members_add(&options.members, 1);
	lease_members_add(&options.members, 2);
	return options;
}

static const char *next_is(
	struct lease *l, const struct lease_view *view, struct lease_action *action, enum lease_action_kind kind)
{
	lease_next(l, view, action);
	assert_int_equal(action->kind, kind);
	return kind == LEASE_CALL ? action->call.script : "";
}

static void a_node_that_starts_sells_nothing_until_it_has_settled(void **state)
{
	struct lease_book book = {
		.generation = "3-abc1", .seq = 10, .balance = 30, .version = 2, .total = 100, .operation = "op1"};
	struct lease_options options = options_of_two();
	struct lease_view view = {.now_ns = 1000 * MS, .unsold = 4, .order_max = 1};
	struct lease_action action;
	struct lease_flags flags;
	struct lease_reply reply;
	struct lease l;

	(void)state;
	lease_init(&l, &options, &book);
	assert_string_equal(next_is(&l, &view, &action, LEASE_CALL), "settle");
	lease_flags(&l, &flags);
	assert_true(flags.withheld);
	assert_true(flags.more);
	/* One thing at a time. */
	next_is(&l, &view, &action, LEASE_WAIT);
	assert_int_equal(decode(&reply, good, LEASE_REPLY_TEXTS), 0);
	reply.row = (struct lease_row){.seq = 10, .balance = 30, .sold = 26, .op = LEASE_OP_NONE};
	lease_called(&l, LEASE_ANSWERED, &reply, view.now_ns);
	lease_flags(&l, &flags);
	assert_false(flags.withheld);
	/* What the daemon before it may have asked for is asked for again, with its number. */
	assert_string_equal(next_is(&l, &view, &action, LEASE_CALL), "grant");
	assert_string_equal(lease_call_argument(&action.call, 3), "11");
}

static void a_grant_after_numbers_that_the_ledger_does_not_have_is_asked_for_again(void **state)
{
	struct lease_book book = {
		.generation = "3-abc1", .seq = 10, .balance = 30, .version = 2, .total = 100, .operation = "op1"};
	struct lease_options options = options_of_two();
	struct lease_view view = {.now_ns = 1000 * MS, .unsold = 4, .order_max = 1};
	struct lease_action action;
	struct lease_reply reply;
	struct lease l;

	(void)state;
	lease_init(&l, &options, &book);
	next_is(&l, &view, &action, LEASE_CALL);
	assert_int_equal(decode(&reply, good, LEASE_REPLY_TEXTS), 0);
	/* 11 to 14 granted nothing; the daemon before this one may have sent 15. */
	reply.row = (struct lease_row){.seq = 14, .balance = 30, .sold = 26, .op = LEASE_OP_NONE};
	lease_called(&l, LEASE_ANSWERED, &reply, view.now_ns);
	assert_string_equal(next_is(&l, &view, &action, LEASE_CALL), "grant");
	assert_string_equal(lease_call_argument(&action.call, 3), "15");
	reply.row.seq = 15;
	lease_called(&l, LEASE_ANSWERED, &reply, view.now_ns);
	/* Known, and so not asked for again: what is next has another number. */
	view.leaving = true;
	next_is(&l, &view, &action, LEASE_MOVE);
	assert_int_equal(action.units, -4);
	assert_int_equal(action.book.seq, 16);
}

static void a_strange_node_keeps_only_what_it_has_sold_when_redis_has_forgotten(void **state)
{
	struct lease_book book = {
		.generation = "3-abc1", .seq = 10, .balance = 30, .version = 2, .total = 100, .operation = "op1"};
	struct lease_options options = options_of_two();
	struct lease_view view = {.now_ns = 1000 * MS, .unsold = 4, .order_max = 1};
	struct lease_action action;
	struct lease_reply reply;
	struct lease l;

	(void)state;
	lease_init(&l, &options, &book);
	next_is(&l, &view, &action, LEASE_CALL);
	assert_int_equal(decode(&reply, good, LEASE_REPLY_TEXTS), 0);
	reply.answer = LEASE_REGEN;
	strcpy(reply.generation, "4-def2");
	lease_called(&l, LEASE_ANSWERED, &reply, view.now_ns);
	next_is(&l, &view, &action, LEASE_MOVE);
	assert_int_equal(action.units, -4);
	assert_int_equal(action.book.balance, 26);
	assert_string_equal(action.book.generation, "4-def2");
	assert_int_equal(action.book.seq, 11);
	/* The gate had fewer: nothing has happened, and the same is said again. */
	lease_moved(&l, -EAGAIN, view.now_ns);
	next_is(&l, &view, &action, LEASE_MOVE);
	lease_moved(&l, 0, view.now_ns);
	view.unsold = 0;
	assert_string_equal(next_is(&l, &view, &action, LEASE_CALL), "settle");
	assert_string_equal(lease_call_argument(&action.call, 0), "4-def2");
	assert_string_equal(lease_call_argument(&action.call, 4), "26");
}

static void a_promise_takes_the_number_of_grants_of_nothing_into_the_ledger(void **state)
{
	struct lease_book book = {
		.generation = "3-abc1", .seq = 10, .balance = 30, .version = 2, .total = 100, .operation = "op1"};
	struct lease_options options = options_of_two();
	struct lease_view view = {.now_ns = 1000 * MS, .unsold = 4, .order_max = 1};
	struct lease_action action;
	struct lease_reply reply;
	struct lease l;

	(void)state;
	lease_init(&l, &options, &book);
	next_is(&l, &view, &action, LEASE_CALL);
	assert_int_equal(decode(&reply, good, LEASE_REPLY_TEXTS), 0);
	reply.row = (struct lease_row){.seq = 14, .balance = 30, .sold = 26, .op = LEASE_OP_NONE};
	lease_called(&l, LEASE_ANSWERED, &reply, view.now_ns);
	next_is(&l, &view, &action, LEASE_CALL);
	reply.answer = LEASE_REGEN;
	strcpy(reply.generation, "4-def2");
	lease_called(&l, LEASE_ANSWERED, &reply, view.now_ns);
	next_is(&l, &view, &action, LEASE_MOVE);
	assert_int_equal(action.units, 0);
	assert_int_equal(action.book.seq, 14);
}

static void a_ledger_that_knows_less_than_redis_sells_nothing(void **state)
{
	struct lease_book book = {
		.generation = "3-abc1", .seq = 3, .balance = 5, .version = 2, .total = 100, .operation = "op1"};
	struct lease_options options = options_of_two();
	struct lease_view view = {.now_ns = 1000 * MS, .unsold = 5, .order_max = 1};
	struct lease_action action;
	struct lease_flags flags;
	struct lease_reply reply;
	struct lease l;

	(void)state;
	lease_init(&l, &options, &book);
	next_is(&l, &view, &action, LEASE_CALL);
	assert_int_equal(decode(&reply, good, LEASE_REPLY_TEXTS), 0);
	lease_called(&l, LEASE_ANSWERED, &reply, view.now_ns); /* grant 10 of 4 made 30, which is not 5 + 4 */
	lease_flags(&l, &flags);
	assert_true(lease_trouble(&l) == LEASE_TROUBLE_SET_BACK);
	assert_true(flags.withheld);
}

static void a_node_without_redis_closes_in_time_to_be_fenced(void **state)
{
	struct lease_book book = {
		.generation = "3-abc1", .seq = 10, .balance = 30, .version = 2, .total = 100, .operation = "op1"};
	struct lease_options options = options_of_two();
	struct lease_view view = {.now_ns = 1000 * MS, .unsold = 4, .order_max = 1};
	struct lease_action action;
	struct lease_flags flags;
	struct lease_reply reply;
	struct lease l;

	(void)state;
	options.fence_after_ms = 3000;
	lease_init(&l, &options, &book);
	next_is(&l, &view, &action, LEASE_CALL);
	assert_int_equal(decode(&reply, good, LEASE_REPLY_TEXTS), 0);
	reply.row = (struct lease_row){.seq = 10, .balance = 30, .sold = 26};
	lease_called(&l, LEASE_ANSWERED, &reply, view.now_ns + 900 * MS);
	/* It counts from when the call was sent. */
	view.now_ns += 3000 * MS;
	lease_next(&l, &view, &action);
	lease_flags(&l, &flags);
	assert_false(flags.withheld);
	view.now_ns += MS;
	lease_next(&l, &view, &action);
	lease_flags(&l, &flags);
	assert_true(flags.withheld);
}

/* Node 1, with 4 of 30 units unsold and 10 free, at the moment `view->now_ns`: it has settled, and nobody buys. */
static void settle_and_rest(struct lease *l, struct lease_view *view, struct lease_reply *reply)
{
	struct lease_action action;

	assert_int_equal(decode(reply, good, LEASE_REPLY_TEXTS), 0);
	reply->free = 10;
	reply->demand = 0;
	reply->row = (struct lease_row){.seq = 10, .balance = 30, .sold = 26};
	assert_string_equal(next_is(l, view, &action, LEASE_CALL), "settle");
	lease_called(l, LEASE_ANSWERED, reply, view->now_ns);
	assert_string_equal(next_is(l, view, &action, LEASE_CALL), "grant");
	reply->row.seq = 11;
	lease_called(l, LEASE_ANSWERED, reply, view->now_ns);
	next_is(l, view, &action, LEASE_WAIT);
	view->now_ns += 1500 * MS;
}

static void a_sale_at_rest_is_told_of_seldom_and_one_that_changes_soon(void **state)
{
	struct lease_book book = {
		.generation = "3-abc1", .seq = 10, .balance = 30, .version = 2, .total = 100, .operation = "op1"};
	struct lease_options options = options_of_two();
	struct lease_view view = {.now_ns = 1000 * MS, .unsold = 4, .order_max = 1, .rest_ns = 16000 * MS};
	struct lease_action action;
	struct lease_reply reply;
	struct lease l;

	(void)state;
	lease_init(&l, &options, &book);
	settle_and_rest(&l, &view, &reply);
	next_is(&l, &view, &action, LEASE_WAIT);
	assert_int_equal(action.until_ns, 17000 * MS);
	/* An order was cancelled: the others are to know. */
	view.unsold = 5;
	assert_string_equal(next_is(&l, &view, &action, LEASE_CALL), "settle");
	lease_called(&l, LEASE_ANSWERED, &reply, view.now_ns);
	next_is(&l, &view, &action, LEASE_WAIT);
	assert_int_equal(action.until_ns, view.now_ns + view.rest_ns);
	/* Others want units. */
	lease_look(&l);
	view.now_ns += 200 * MS;
	assert_string_equal(next_is(&l, &view, &action, LEASE_CALL), "settle");
	lease_called(&l, LEASE_ANSWERED, &reply, view.now_ns);
	/* It is over, and its units are to go back. */
	view.over = true;
	view.now_ns += 5001 * MS;
	assert_string_equal(next_is(&l, &view, &action, LEASE_CALL), "settle");
}

static void a_sale_at_rest_is_told_of_before_it_is_fenced(void **state)
{
	struct lease_book book = {
		.generation = "3-abc1", .seq = 10, .balance = 30, .version = 2, .total = 100, .operation = "op1"};
	struct lease_options options = options_of_two();
	struct lease_view view = {.now_ns = 1000 * MS, .unsold = 4, .order_max = 1, .rest_ns = 16000 * MS};
	struct lease_action action;
	struct lease_reply reply;
	struct lease l;

	(void)state;
	options.fence_after_ms = 8000;
	lease_init(&l, &options, &book);
	settle_and_rest(&l, &view, &reply);
	next_is(&l, &view, &action, LEASE_WAIT);
	assert_int_equal(action.until_ns, 3000 * MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_book_is_read_as_it_was_written),
		cmocka_unit_test(the_longest_book_has_room),
		cmocka_unit_test(a_book_that_is_none_is_refused_and_changes_nothing),
		cmocka_unit_test(a_reply_is_read),
		cmocka_unit_test(a_reply_that_is_none_is_refused),
		cmocka_unit_test(a_node_that_starts_sells_nothing_until_it_has_settled),
		cmocka_unit_test(a_grant_after_numbers_that_the_ledger_does_not_have_is_asked_for_again),
		cmocka_unit_test(a_strange_node_keeps_only_what_it_has_sold_when_redis_has_forgotten),
		cmocka_unit_test(a_promise_takes_the_number_of_grants_of_nothing_into_the_ledger),
		cmocka_unit_test(a_ledger_that_knows_less_than_redis_sells_nothing),
		cmocka_unit_test(a_node_without_redis_closes_in_time_to_be_fenced),
		cmocka_unit_test(a_sale_at_rest_is_told_of_seldom_and_one_that_changes_soon),
		cmocka_unit_test(a_sale_at_rest_is_told_of_before_it_is_fenced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
