/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The drill's verdict on a sale: a sound sale passes every check, and each way of being unsound is found by the check that is
 * there for it and by no other. Also the figures of the report.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "drill/checks.h"
#include "drill/crowd.h"
#include "drill/report.h"

#define OPENS 1000000000000ULL
#define ENDS 2000000000000ULL
#define BUYERS 6
#define STOCK 3

/* Three units; buyers 0..2 have one each (serial 100 + n), 3..5 were told "sold out". */
struct story {
	struct drill_seen seen[BUYERS];
	struct books_order orders[BUYERS];
	struct drill_ledger ledger;
	struct drill_intruders intruders;
	struct drill_finding finding[DRILL_CHECKS];
	struct drill_sums sums;
	uint64_t clock;
};

static void tell(struct story *story, int buyer, enum drill_answer answer, uint64_t order)
{
	uint64_t start = story->clock++, end = story->clock++;
	const struct drill_word word = {.answer = answer,
		.order_id = order,
		.started_mono_ns = start,
		.ended_mono_ns = end,
		.ended_wall_ns = OPENS + end};

	drill_seen_note(&story->seen[buyer], &word);
}

static void begin(struct story *story)
{
	memset(story, 0, sizeof(*story));
	story->clock = 10;
	for (int i = 0; i < BUYERS; i++)
		story->seen[i].serial = 100 + (uint64_t)i;
	for (int i = 0; i < STOCK; i++) {
		tell(story, i, DRILL_CREATED, 100 + (uint64_t)i);
		story->orders[i] = (struct books_order){.id = 100 + (uint64_t)i,
			.buyer = 500 + (uint64_t)i,
			.seq = 1 + (uint64_t)i,
			.admitted_ns = OPENS + (uint64_t)i,
			.quantity = 1,
			.live = true};
	}
	for (int i = STOCK; i < BUYERS; i++)
		tell(story, i, DRILL_SOLD_OUT, 0);
	story->ledger = (struct drill_ledger){.known = true,
		.orders = story->orders,
		.count = STOCK,
		.put_in = STOCK,
		.held = STOCK,
		.balanced = true,
		.opens_ns = OPENS,
		.ends_ns = ENDS,
		.per_buyer = 1};
}

static int judge(struct story *story)
{
	return drill_checks_run(story->seen, BUYERS, &story->ledger, &story->intruders, story->finding, &story->sums);
}

static void assert_only_broken(struct story *story, enum drill_check check)
{
	int broken = judge(story);

	for (int i = 0; i < DRILL_CHECKS; i++) {
		if ((story->finding[i].verdict == DRILL_BROKEN) != (i == (int)check))
			fail_msg("%s %s: %s", story->finding[i].id, story->finding[i].name, story->finding[i].detail);
	}
	assert_int_equal(broken, 1);
}

static void a_sound_sale_passes_every_check(void **state)
{
	struct story story;

	(void)state;
	begin(&story);
	tell(&story, 0, DRILL_REPEATED, 100);
	tell(&story, 1, DRILL_LATER, 0);
	assert_int_equal(judge(&story), 0);
	for (int i = 0; i < DRILL_CHECKS; i++)
		assert_int_equal(story.finding[i].verdict, DRILL_HOLDS);
	assert_int_equal(story.sums.orders, STOCK);
	assert_int_equal(story.sums.units, STOCK);
	assert_int_equal(story.sums.oversold + story.sums.unsold + story.sums.duplicates, 0);
}

static void more_units_in_orders_than_stock_is_oversold(void **state)
{
	struct story story;

	(void)state;
	begin(&story);
	story.ledger.put_in = STOCK - 1;
	story.ledger.free = -1;
	assert_only_broken(&story, DRILL_CHECK_OVERSELL);
	assert_int_equal(story.sums.oversold, 1);
}

static void a_yes_beyond_the_stock_is_oversold_even_if_the_ledger_hides_it(void **state)
{
	struct story story;

	(void)state;
	begin(&story);
	memset(&story.seen[3], 0, sizeof(story.seen[3]));
	story.seen[3].serial = 103;
	tell(&story, 3, DRILL_CREATED, 103);
	judge(&story);
	assert_int_equal(story.finding[DRILL_CHECK_OVERSELL].verdict, DRILL_BROKEN);
	assert_int_equal(story.finding[DRILL_CHECK_DURABLE].verdict, DRILL_BROKEN);
	assert_int_equal(story.sums.oversold, 1);
}

static void an_admission_that_the_ledger_refused_is_oversold(void **state)
{
	struct story story;

	(void)state;
	begin(&story);
	story.ledger.refused_by_ledger = 1;
	assert_only_broken(&story, DRILL_CHECK_OVERSELL);
}

static void an_order_that_was_shown_and_is_not_in_the_ledger_is_found(void **state)
{
	struct story story;

	(void)state;
	begin(&story);
	story.orders[2].id = 999; /* the units still add up */
	assert_only_broken(&story, DRILL_CHECK_DURABLE);
}

static void a_promise_that_is_not_in_the_ledger_is_found(void **state)
{
	struct story story;

	(void)state;
	begin(&story);
	memset(&story.seen[0], 0, sizeof(story.seen[0]));
	story.seen[0].serial = 100;
	tell(&story, 0, DRILL_PENDING, 0);
	assert_int_equal(judge(&story), 0);
	story.orders[0].id = 999;
	judge(&story);
	assert_int_equal(story.finding[DRILL_CHECK_DURABLE].verdict, DRILL_BROKEN);
}

static void a_unit_that_is_nowhere_is_lost(void **state)
{
	struct story story;

	(void)state;
	begin(&story);
	story.ledger.put_in = STOCK + 1;
	assert_only_broken(&story, DRILL_CHECK_UNDERSELL);
	assert_int_equal(story.sums.unsold, 1);
}

static void sold_out_while_units_stay_free_is_found(void **state)
{
	struct story story;

	(void)state;
	begin(&story);
	story.ledger.put_in = STOCK + 1;
	story.ledger.free = 1;
	assert_only_broken(&story, DRILL_CHECK_UNDERSELL);
	/* the same books are sound if nobody was refused */
	for (int i = STOCK; i < BUYERS; i++)
		memset(&story.seen[i], 0, sizeof(story.seen[i]));
	assert_int_equal(judge(&story), 0);
}

static void units_in_flight_at_rest_are_found(void **state)
{
	struct story story;

	(void)state;
	begin(&story);
	story.ledger.in_flight = 1;
	assert_only_broken(&story, DRILL_CHECK_UNDERSELL);
}

static void a_daemon_that_counts_otherwise_is_found(void **state)
{
	struct story story;

	(void)state;
	begin(&story);
	story.ledger.held = STOCK - 1;
	assert_only_broken(&story, DRILL_CHECK_UNDERSELL);
	begin(&story);
	story.ledger.balanced = false;
	assert_only_broken(&story, DRILL_CHECK_UNDERSELL);
}

static void a_second_order_for_the_same_token_is_found(void **state)
{
	struct story story;

	(void)state;
	begin(&story);
	tell(&story, 0, DRILL_REPEATED, 101);
	assert_only_broken(&story, DRILL_CHECK_ONCE);
	assert_int_equal(story.sums.duplicates, 1);
}

static void one_order_for_two_tokens_is_found(void **state)
{
	struct story story;

	(void)state;
	begin(&story);
	story.seen[1].order_id = 100;
	assert_only_broken(&story, DRILL_CHECK_ONCE);
	assert_int_equal(story.sums.duplicates, 1);
}

static void an_order_with_the_id_of_another_token_is_found(void **state)
{
	struct story story;

	(void)state;
	begin(&story);
	story.seen[1].serial = 777;
	assert_only_broken(&story, DRILL_CHECK_ONCE);
}

static void a_buyer_above_the_limit_is_found(void **state)
{
	struct story story;

	(void)state;
	begin(&story);
	story.orders[1].buyer = story.orders[0].buyer;
	assert_only_broken(&story, DRILL_CHECK_LIMIT);
	assert_int_equal(story.sums.duplicates, 1);
	story.orders[1].live = false; /* cancelled: does not count */
	story.ledger.held--;
	story.ledger.put_in--;
	judge(&story);
	assert_int_equal(story.finding[DRILL_CHECK_LIMIT].verdict, DRILL_HOLDS);
}

static void a_refusal_after_a_yes_is_found_but_not_one_that_was_overtaken(void **state)
{
	struct drill_word refusal = {.answer = DRILL_SOLD_OUT, .started_mono_ns = 5, .ended_mono_ns = 1000};
	struct story story;

	(void)state;
	begin(&story);
	drill_seen_note(&story.seen[0], &refusal); /* began before the yes of time 11 arrived */
	assert_int_equal(judge(&story), 0);
	assert_false(story.seen[0].sold_out);
	refusal.started_mono_ns = 900;
	drill_seen_note(&story.seen[0], &refusal);
	assert_only_broken(&story, DRILL_CHECK_STANDS);
}

static void orders_outside_the_window_are_found(void **state)
{
	struct story story;

	(void)state;
	begin(&story);
	story.orders[0].admitted_ns = OPENS - 1;
	assert_only_broken(&story, DRILL_CHECK_WINDOW);
	begin(&story);
	story.orders[0].admitted_ns = ENDS;
	assert_only_broken(&story, DRILL_CHECK_WINDOW);
	begin(&story);
	story.seen[0].first_yes_wall_ns = OPENS - 1; /* the order's own time may lie */
	assert_only_broken(&story, DRILL_CHECK_WINDOW);
}

static void bots_that_get_in_and_good_tokens_called_bad_are_found(void **state)
{
	struct story story;

	(void)state;
	begin(&story);
	story.intruders.admitted = 1;
	assert_only_broken(&story, DRILL_CHECK_RIGHT);
	begin(&story);
	story.intruders.denied_answered = 1;
	assert_only_broken(&story, DRILL_CHECK_RIGHT);
	begin(&story);
	memset(&story.seen[4], 0, sizeof(story.seen[4]));
	tell(&story, 4, DRILL_REJECTED, 0);
	assert_only_broken(&story, DRILL_CHECK_RIGHT);
}

static void without_a_ledger_nothing_is_claimed_about_it(void **state)
{
	struct story story;

	(void)state;
	begin(&story);
	memset(&story.ledger, 0, sizeof(story.ledger));
	story.ledger.opens_ns = OPENS;
	assert_int_equal(judge(&story), 0);
	assert_int_equal(story.finding[DRILL_CHECK_OVERSELL].verdict, DRILL_UNCHECKED);
	assert_int_equal(story.finding[DRILL_CHECK_UNDERSELL].verdict, DRILL_UNCHECKED);
	assert_int_equal(story.finding[DRILL_CHECK_DURABLE].verdict, DRILL_UNCHECKED);
	assert_int_equal(story.finding[DRILL_CHECK_LIMIT].verdict, DRILL_UNCHECKED);
	assert_int_equal(story.finding[DRILL_CHECK_WINDOW].verdict, DRILL_UNCHECKED);
	assert_int_equal(story.finding[DRILL_CHECK_ONCE].verdict, DRILL_HOLDS);
	assert_int_equal(story.sums.orders, STOCK);
}

static void pending_is_a_yes_but_not_the_last_word(void **state)
{
	struct drill_seen seen = {.serial = 100};
	const struct drill_word pending = {
		.answer = DRILL_PENDING, .started_mono_ns = 1, .ended_mono_ns = 2, .ended_wall_ns = OPENS + 2};
	const struct drill_word sold_out = {.answer = DRILL_SOLD_OUT, .started_mono_ns = 3, .ended_mono_ns = 4};

	(void)state;
	drill_seen_note(&seen, &pending);
	assert_false(seen.answered);
	assert_int_equal(seen.first_yes_mono_ns, 2);
	drill_seen_note(&seen, &sold_out);
	assert_int_equal(seen.taken_back, 1);
	assert_false(seen.sold_out);
}

static void answers_are_what_the_documents_say(void **state)
{
	char name[DRILL_CODE_MAX];

	(void)state;
	assert_int_equal(drill_answer_of(201, ""), DRILL_CREATED);
	assert_int_equal(drill_answer_of(200, ""), DRILL_REPEATED);
	assert_int_equal(drill_answer_of(202, ""), DRILL_PENDING);
	assert_int_equal(drill_answer_of(409, "sold_out"), DRILL_SOLD_OUT);
	assert_int_equal(drill_answer_of(409, "sale_not_open"), DRILL_LATER);
	assert_int_equal(drill_answer_of(409, ""), DRILL_STRANGE);
	assert_int_equal(drill_answer_of(500, "internal"), DRILL_STRANGE);
	assert_string_equal(drill_answer_name(201, "", name), "created");
	assert_string_equal(drill_answer_name(429, "rate_limited", name), "rate_limited");
	assert_string_equal(drill_answer_name(502, "", name), "http_502");
}

static void percentiles_are_measured_values_by_nearest_rank(void **state)
{
	float ms[1000];
	struct drill_latency latency;

	(void)state;
	for (int i = 0; i < 1000; i++)
		ms[i] = (float)(1000 - i); /* 1..1000, backwards */
	drill_latency_of(ms, 1000, &latency);
	assert_int_equal(latency.count, 1000);
	assert_float_equal(latency.p50, 500, 0);
	assert_float_equal(latency.p99, 990, 0);
	assert_float_equal(latency.p999, 999, 0);
	assert_float_equal(latency.max, 1000, 0);
	drill_latency_of(ms, 1, &latency);
	assert_float_equal(latency.p50, 1, 0);
	assert_float_equal(latency.p999, 1, 0);
	drill_latency_of(ms, 3, &latency); /* 1 2 3 */
	assert_float_equal(latency.p50, 2, 0);
	assert_float_equal(latency.p99, 3, 0);
	drill_latency_of(ms, 0, &latency);
	assert_float_equal(latency.max, 0, 0);
}

static void a_full_tally_loses_no_count(void **state)
{
	static struct drill_tally tally;
	char name[24];

	(void)state;
	memset(&tally, 0, sizeof(tally));
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "code-%d", i);
		drill_tally_add(&tally, name, 2);
	}
	assert_int_equal(drill_tally_sum(&tally), 200);
	assert_int_equal(drill_tally_get(&tally, "code-7"), 2);
	assert_int_equal(drill_tally_get(&tally, "other"), 2 * (100 - (DRILL_TALLY_MAX - 1)));
	drill_tally_sort(&tally);
	assert_string_equal(tally.row[0].name, "other");
}

static void bot_shares_always_add_up(void **state)
{
	uint32_t count[DRILL_BOT_KIND_COUNT], all = (1u << DRILL_BOT_KIND_COUNT) - 1;

	(void)state;
	for (uint32_t total = 0; total < 2500; total += 7) {
		for (uint32_t without = 0; without < DRILL_BOT_KIND_COUNT; without++) {
			uint32_t sum = 0;

			drill_bot_shares(total, all & ~(1u << without), count);
			assert_int_equal(count[without], 0);
			for (int i = 0; i < DRILL_BOT_KIND_COUNT; i++)
				sum += count[i];
			assert_int_equal(sum, total);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sound_sale_passes_every_check),
		cmocka_unit_test(more_units_in_orders_than_stock_is_oversold),
		cmocka_unit_test(a_yes_beyond_the_stock_is_oversold_even_if_the_ledger_hides_it),
		cmocka_unit_test(an_admission_that_the_ledger_refused_is_oversold),
		cmocka_unit_test(an_order_that_was_shown_and_is_not_in_the_ledger_is_found),
		cmocka_unit_test(a_promise_that_is_not_in_the_ledger_is_found),
		cmocka_unit_test(a_unit_that_is_nowhere_is_lost),
		cmocka_unit_test(sold_out_while_units_stay_free_is_found),
		cmocka_unit_test(units_in_flight_at_rest_are_found),
		cmocka_unit_test(a_daemon_that_counts_otherwise_is_found),
		cmocka_unit_test(a_second_order_for_the_same_token_is_found),
		cmocka_unit_test(one_order_for_two_tokens_is_found),
		cmocka_unit_test(an_order_with_the_id_of_another_token_is_found),
		cmocka_unit_test(a_buyer_above_the_limit_is_found),
		cmocka_unit_test(a_refusal_after_a_yes_is_found_but_not_one_that_was_overtaken),
		cmocka_unit_test(orders_outside_the_window_are_found),
		cmocka_unit_test(bots_that_get_in_and_good_tokens_called_bad_are_found),
		cmocka_unit_test(without_a_ledger_nothing_is_claimed_about_it),
		cmocka_unit_test(pending_is_a_yes_but_not_the_last_word),
		cmocka_unit_test(answers_are_what_the_documents_say),
		cmocka_unit_test(percentiles_are_measured_values_by_nearest_rank),
		cmocka_unit_test(a_full_tally_loses_no_count),
		cmocka_unit_test(bot_shares_always_add_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
