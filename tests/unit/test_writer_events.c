/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tests of any store: events. One sequence of positions with the orders, pages that lose and repeat nothing, each event
 * with the order as it made it, and which events of a sale are news.
 */
#include "common/log.h"
#include "ledger_fixture.h"

#define LATER_NS (NOW_NS + 1000000000000ULL) /* every hold of fixture_record is over */

struct page {
	unsigned count;
	struct store_event events[64];
	int64_t next;
	bool more;
};

static int take(const struct store_event *event, void *arg)
{
	struct page *page = arg;

	page->events[page->count++] = *event;
	return 0;
}

static struct page list(struct ledger_fixture *fixture, uint32_t sale, int64_t after, unsigned limit)
{
	struct store_event_filter filter = {.sale = sale, .after = after, .limit = limit};
	struct page page = {.next = -1};

	if (fixture->store->ops->events_list(fixture->store, &filter, take, &page, &page.next, &page.more))
		fail_msg("%s", fixture->store->error);
	return page;
}

static bool say(struct ledger_fixture *fixture, uint32_t sale, enum store_event_type type)
{
	bool recorded = false;

	if (fixture->store->ops->sale_event(fixture->store, sale, type, NOW_NS + 5, &recorded))
		fail_msg("%s", fixture->store->error);
	return recorded;
}

static void an_empty_ledger_has_no_events(void **state)
{
	struct page page = list(*state, 0, 0, 10);

	assert_int_equal(page.count, 0);
	assert_int_equal(page.next, 0);
	assert_false(page.more);
	page = list(*state, 7, 1234, 10);
	assert_int_equal(page.next, 1234);
	assert_false(page.more);
}

/* Two sales; sale 1: orders 1 to 3, confirmed, cancelled, expired and paid late; sale 2: order 9, refunded. */
static void make_a_story(struct ledger_fixture *fixture)
{
	assert_int_equal(fixture_sale(fixture, 1, 1, 3), 0);
	assert_int_equal(fixture_sale(fixture, 2, 1, 3), 0);
	assert_true(say(fixture, 1, STORE_SALE_OPENED));
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 3), 0);
	assert_true(say(fixture, 1, STORE_SALE_SOLD_OUT));
	assert_int_equal(fixture_admit_range(fixture, 2, 9, 1), 0);
	assert_int_equal(fixture_change_at(fixture, 1, STORE_CONFIRM, false, NOW_NS + 1), STORE_CHANGED);
	assert_int_equal(fixture_change_at(fixture, 2, STORE_CANCEL, false, NOW_NS + 2), STORE_CHANGED);
	assert_int_equal(fixture_change_at(fixture, 9, STORE_CONFIRM, false, NOW_NS + 3), STORE_CHANGED);
	assert_true(say(fixture, 1, STORE_SALE_RESTOCKED));
	assert_int_equal(fixture_change_at(fixture, 3, STORE_EXPIRE, false, LATER_NS), STORE_CHANGED);
	assert_int_equal(fixture_change_at(fixture, 3, STORE_CONFIRM, false, LATER_NS + 1), STORE_CHANGED);
	assert_int_equal(fixture_change_at(fixture, 9, STORE_REFUND, true, LATER_NS + 2), STORE_CHANGED);
	assert_true(say(fixture, 2, STORE_SALE_ENDED));
}

static const struct {
	enum store_event_type type;
	uint32_t sale;
	uint64_t serial; /* 0 = of the sale itself */
	uint64_t at_ns;
	enum store_by by;
} story[] = {
	{STORE_SALE_OPENED, 1, 0, NOW_NS + 5, STORE_BY_NOBODY},
	{STORE_ORDER_HELD, 1, 1, NOW_NS, STORE_BY_NOBODY},
	{STORE_ORDER_HELD, 1, 2, NOW_NS, STORE_BY_NOBODY},
	{STORE_ORDER_HELD, 1, 3, NOW_NS, STORE_BY_NOBODY},
	{STORE_SALE_SOLD_OUT, 1, 0, NOW_NS + 5, STORE_BY_NOBODY},
	{STORE_ORDER_HELD, 2, 9, NOW_NS, STORE_BY_NOBODY},
	{STORE_ORDER_CONFIRMED, 1, 1, NOW_NS + 1, STORE_BY_SHOP},
	{STORE_ORDER_CANCELLED, 1, 2, NOW_NS + 2, STORE_BY_BUYER},
	{STORE_ORDER_CONFIRMED, 2, 9, NOW_NS + 3, STORE_BY_SHOP},
	{STORE_SALE_RESTOCKED, 1, 0, NOW_NS + 5, STORE_BY_NOBODY},
	{STORE_ORDER_EXPIRED, 1, 3, LATER_NS, STORE_BY_TIME},
	{STORE_ORDER_CONFIRMED, 1, 3, LATER_NS + 1, STORE_BY_SHOP},
	{STORE_ORDER_REFUNDED, 2, 9, LATER_NS + 2, STORE_BY_SHOP},
	{STORE_SALE_ENDED, 2, 0, NOW_NS + 5, STORE_BY_NOBODY},
};
#define STORY_LENGTH (sizeof(story) / sizeof(*story))

static void expect_event(const struct store_event *event, unsigned of_story)
{
	if (event->type != story[of_story].type)
		fail_msg("event %u is %s", of_story, store_event_word(event->type));
	assert_int_equal(event->sale, story[of_story].sale);
	assert_true(event->at_ns == story[of_story].at_ns);
	assert_int_equal(event->has_order, story[of_story].serial != 0);
	if (!event->has_order)
		return;
	/* the order as it was then */
	assert_int_equal(event->order.serial, story[of_story].serial);
	assert_int_equal(event->order.state, store_event_state(event->type));
	assert_int_equal(event->order.resolved_by, story[of_story].by);
	assert_true(event->order.resolved_ns == (event->type == STORE_ORDER_HELD ? 0 : event->at_ns));
	assert_int_equal(event->order.restocked, event->type == STORE_ORDER_REFUNDED);
	assert_int_equal(event->order.quantity, 1);
	assert_int_equal(event->put_in + event->held + event->confirmed, 0);
}

static void events_tell_the_story_in_the_order_of_commit(void **state)
{
	struct ledger_fixture *fixture = *state;

	make_a_story(fixture);
	for (unsigned again = 0; again < 2; again++) {
		struct page page = list(fixture, 0, 0, 64);
		int64_t before = 0;

		assert_int_equal(page.count, STORY_LENGTH);
		assert_false(page.more);
		for (unsigned i = 0; i < page.count; i++) {
			expect_event(&page.events[i], i);
			assert_true(page.events[i].position > before);
			before = page.events[i].position;
		}
		assert_int_equal(page.next, before);
		/* what a sale's own events say of its sums */
		assert_int_equal(page.events[0].put_in, 3);
		assert_int_equal(page.events[0].held, 0);
		assert_int_equal(page.events[4].held, 3);
		assert_int_equal(page.events[9].held, 1);
		assert_int_equal(page.events[9].confirmed, 1);
		fixture_reopen(fixture);
	}
	fixture_audit(fixture);
}

static void pages_of_events_lose_and_repeat_nothing(void **state)
{
	struct ledger_fixture *fixture = *state;

	make_a_story(fixture);
	for (unsigned limit = 1; limit <= STORY_LENGTH + 1; limit++) {
		unsigned total = 0;
		struct page page = {.more = true};

		while (page.more) {
			page = list(fixture, 0, page.next, limit);
			assert_true(page.count == limit || !page.more);
			for (unsigned i = 0; i < page.count; i++)
				expect_event(&page.events[i], total++);
		}
		assert_int_equal(total, STORY_LENGTH);
		assert_int_equal(list(fixture, 0, page.next, limit).count, 0);
	}
}

static void the_events_of_one_sale_leave_the_others_out(void **state)
{
	struct ledger_fixture *fixture = *state;

	make_a_story(fixture);
	for (uint32_t sale = 1; sale <= 3; sale++) {
		struct page page = list(fixture, sale, 0, 64);
		unsigned found = 0;

		for (unsigned i = 0; i < STORY_LENGTH; i++)
			if (story[i].sale == sale)
				expect_event(&page.events[found++], i);
		assert_int_equal(page.count, found);
		assert_false(page.more);
		/* the cursor is behind what was looked at, of whatever sale */
		assert_int_equal(page.next, list(fixture, 0, 0, 64).next);
	}
}

static void new_events_come_behind_the_cursor(void **state)
{
	struct ledger_fixture *fixture = *state;
	int64_t cursor;
	struct page page;

	make_a_story(fixture);
	cursor = list(fixture, 0, 0, 64).next;
	assert_int_equal(fixture_admit_range(fixture, 2, 10, 1), 0);
	assert_int_equal(fixture_change(fixture, 10, STORE_CONFIRM), STORE_CHANGED);
	/* what changes nothing is no event */
	assert_int_equal(fixture_change(fixture, 10, STORE_CONFIRM), STORE_SAME);
	assert_int_equal(fixture_change(fixture, 10, STORE_CANCEL), STORE_CONFLICT);
	assert_int_equal(fixture_admit_range(fixture, 2, 10, 1), 0);
	page = list(fixture, 0, cursor, 64);
	assert_int_equal(page.count, 2);
	assert_int_equal(page.events[0].type, STORE_ORDER_HELD);
	assert_int_equal(page.events[1].type, STORE_ORDER_CONFIRMED);
	assert_int_equal(page.events[1].order.serial, 10);
	fixture_reopen(fixture);
	assert_int_equal(list(fixture, 0, cursor, 64).count, 2);
}

static void a_search_for_a_quiet_sale_is_cut_into_bounded_pages(void **state)
{
	struct ledger_fixture *fixture = *state;
	unsigned total = STORE_LIST_SCAN_MAX + 1000, found = 0, pages = 0;
	struct page page = {.more = true};

	assert_int_equal(fixture_sale(fixture, 1, 1, total), 0);
	assert_int_equal(fixture_sale(fixture, 2, 1, 10), 0);
	for (unsigned i = 0; i < total; i += 3000)
		assert_int_equal(fixture_admit_range(fixture, 1, 1 + i, total - i < 3000 ? total - i : 3000), 0);
	assert_true(say(fixture, 2, STORE_SALE_OPENED));
	for (; page.more; pages++) {
		page = list(fixture, 2, page.next, 10);
		found += page.count;
	}
	assert_int_equal(found, 1);
	assert_int_equal(pages, 2);
}

/* --- what is news of a sale */

static void a_sale_opens_and_ends_once(void **state)
{
	struct ledger_fixture *fixture = *state;

	assert_int_equal(fixture_sale(fixture, 1, 1, 1), 0);
	assert_int_equal(fixture_sale(fixture, 2, 1, 1), 0);
	assert_true(say(fixture, 1, STORE_SALE_OPENED));
	assert_false(say(fixture, 1, STORE_SALE_OPENED));
	fixture_reopen(fixture);
	assert_false(say(fixture, 1, STORE_SALE_OPENED));
	assert_true(say(fixture, 1, STORE_SALE_ENDED));
	for (enum store_event_type type = STORE_SALE_OPENED; type <= STORE_SALE_ENDED; type++)
		assert_false(say(fixture, 1, type));
	/* one that is ended before it opened never opens */
	assert_true(say(fixture, 2, STORE_SALE_ENDED));
	for (enum store_event_type type = STORE_SALE_OPENED; type <= STORE_SALE_ENDED; type++)
		assert_false(say(fixture, 2, type));
	assert_int_equal(list(fixture, 0, 0, 64).count, 3);
	fixture_audit(fixture);
}

static void sold_out_and_restocked_take_turns(void **state)
{
	struct ledger_fixture *fixture = *state;

	assert_int_equal(fixture_sale(fixture, 1, 1, 1), 0);
	assert_false(say(fixture, 1, STORE_SALE_SOLD_OUT)); /* not open yet */
	assert_false(say(fixture, 1, STORE_SALE_RESTOCKED));
	assert_true(say(fixture, 1, STORE_SALE_OPENED));
	assert_false(say(fixture, 1, STORE_SALE_RESTOCKED));
	for (unsigned i = 0; i < 3; i++) {
		assert_true(say(fixture, 1, STORE_SALE_SOLD_OUT));
		assert_false(say(fixture, 1, STORE_SALE_SOLD_OUT));
		fixture_reopen(fixture);
		assert_true(say(fixture, 1, STORE_SALE_RESTOCKED));
		assert_false(say(fixture, 1, STORE_SALE_RESTOCKED));
	}
	assert_true(say(fixture, 1, STORE_SALE_ENDED));
	assert_int_equal(list(fixture, 1, 0, 64).count, 8);
	fixture_audit(fixture);
}

static void an_unknown_sale_has_no_news(void **state)
{
	struct ledger_fixture *fixture = *state;
	bool recorded = true;

	assert_int_equal(
		fixture->store->ops->sale_event(fixture->store, 3, STORE_SALE_OPENED, NOW_NS, &recorded), -ENOENT);
	assert_non_null(strstr(fixture->store->error, "id 3"));
	assert_int_equal(list(fixture, 0, 0, 64).count, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_empty_ledger_has_no_events),
		TEST(events_tell_the_story_in_the_order_of_commit),
		TEST(pages_of_events_lose_and_repeat_nothing),
		TEST(the_events_of_one_sale_leave_the_others_out),
		TEST(new_events_come_behind_the_cursor),
		TEST(a_search_for_a_quiet_sale_is_cut_into_bounded_pages),
		TEST(a_sale_opens_and_ends_once),
		TEST(sold_out_and_restocked_take_turns),
		TEST(an_unknown_sale_has_no_news),
	};

	log_init("test_writer_events", LOG_ERROR_LEVEL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
