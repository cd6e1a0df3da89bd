/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What is news of a sale: by a made-up clock and a made-up stock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "daemon/sale_news.h"

#define OPENS 1000
#define ENDS 2000

static const struct sale sale = {.id = 7, .slug = "drop-11", .opens_ns = OPENS, .ends_ns = ENDS};

/* Tells one after the other until nothing is left; returns how many, and what in `seen`. */
static unsigned tell_all(
	const struct sale *which, struct sale_sight sight, struct sale_told *told, enum sale_news *seen)
{
	unsigned count = 0;
	enum sale_news news;

	while ((news = sale_news_next(which, &sight, told)) < SALE_NEWS_COUNT) {
		assert_true(count < 4);
		seen[count++] = news;
		sale_news_told(told, news);
	}
	return count;
}

static struct sale_sight at(uint64_t wall_ns, uint64_t free_units)
{
	return (struct sale_sight){.wall_ns = wall_ns, .free = free_units, .stock_counts = true};
}

static void before_it_opens_there_is_nothing_to_tell(void **state)
{
	struct sale_told told = {0};
	enum sale_news seen[4];

	(void)state;
	assert_int_equal(tell_all(&sale, at(OPENS - 1, 0), &told, seen), 0);
}

static void a_sale_opens_sells_out_has_units_again_and_ends(void **state)
{
	/* After a daemon's start the ledger is asked how the stock was told last: its answer to "restocked" is no. */
	static const enum sale_news expected[] = {SALE_NEWS_OPENED, SALE_NEWS_RESTOCKED, SALE_NEWS_SOLD_OUT,
		SALE_NEWS_RESTOCKED, SALE_NEWS_SOLD_OUT, SALE_NEWS_ENDED};
	struct sale_told told = {0};
	enum sale_news seen[8];
	unsigned count = 0;

	(void)state;
	count += tell_all(&sale, at(OPENS, 5), &told, seen + count);
	count += tell_all(&sale, at(OPENS + 1, 5), &told, seen + count);
	count += tell_all(&sale, at(OPENS + 2, 0), &told, seen + count);
	count += tell_all(&sale, at(OPENS + 3, 0), &told, seen + count);
	count += tell_all(&sale, at(OPENS + 4, 1), &told, seen + count);
	count += tell_all(&sale, at(OPENS + 5, 0), &told, seen + count);
	count += tell_all(&sale, at(ENDS, 0), &told, seen + count);
	count += tell_all(&sale, at(ENDS + 1, 3), &told, seen + count);
	assert_int_equal(count, sizeof(expected) / sizeof(expected[0]));
	assert_memory_equal(seen, expected, sizeof(expected));
}

static void units_on_their_way_keep_a_sale_from_being_sold_out(void **state)
{
	struct sale_told told = {.opened = true, .stock_known = true};
	struct sale_sight sight = at(OPENS + 1, 0);

	(void)state;
	sight.unsettled = 1;
	assert_int_equal(sale_news_next(&sale, &sight, &told), SALE_NEWS_COUNT);
	sight.unsettled = 0;
	assert_int_equal(sale_news_next(&sale, &sight, &told), SALE_NEWS_SOLD_OUT);
}

static void units_of_other_nodes_keep_a_sale_from_being_sold_out(void **state)
{
	struct sale_told told = {.opened = true, .stock_known = true};
	struct sale_sight sight = at(OPENS + 1, 0);
	struct sale leased = sale;

	(void)state;
	leased.more = true;
	assert_int_equal(sale_news_next(&leased, &sight, &told), SALE_NEWS_COUNT);
	leased.more = false;
	leased.withheld = true;
	assert_int_equal(sale_news_next(&leased, &sight, &told), SALE_NEWS_COUNT);
	leased.withheld = false;
	assert_int_equal(sale_news_next(&leased, &sight, &told), SALE_NEWS_SOLD_OUT);
}

static void a_stock_that_nobody_can_vouch_for_is_no_news(void **state)
{
	struct sale_told told = {.opened = true, .stock_known = true};
	struct sale_sight sight = at(OPENS + 1, 0);

	(void)state;
	sight.stock_counts = false;
	assert_int_equal(sale_news_next(&sale, &sight, &told), SALE_NEWS_COUNT);
}

static void one_that_is_ended_before_its_time_never_opens(void **state)
{
	struct sale early = sale;
	struct sale_told told = {0};
	enum sale_news seen[4];

	(void)state;
	early.ended = true;
	assert_int_equal(tell_all(&early, at(OPENS - 1, 5), &told, seen), 1);
	assert_int_equal(seen[0], SALE_NEWS_ENDED);
	assert_int_equal(tell_all(&early, at(OPENS + 1, 5), &told, seen), 0);
}

static void one_that_passed_while_nobody_looked_opened_and_ended(void **state)
{
	struct sale_told told = {0};
	enum sale_news seen[4];

	(void)state;
	assert_int_equal(tell_all(&sale, at(ENDS + 1, 0), &told, seen), 2);
	assert_true(seen[0] == SALE_NEWS_OPENED && seen[1] == SALE_NEWS_ENDED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(before_it_opens_there_is_nothing_to_tell),
		cmocka_unit_test(a_sale_opens_sells_out_has_units_again_and_ends),
		cmocka_unit_test(units_on_their_way_keep_a_sale_from_being_sold_out),
		cmocka_unit_test(units_of_other_nodes_keep_a_sale_from_being_sold_out),
		cmocka_unit_test(a_stock_that_nobody_can_vouch_for_is_no_news),
		cmocka_unit_test(one_that_is_ended_before_its_time_never_opens),
		cmocka_unit_test(one_that_passed_while_nobody_looked_opened_and_ended),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
