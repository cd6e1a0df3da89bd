/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The daemon's bounded table of rates: exact while a key is remembered, bounded whatever comes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "daemon/rate_table.h"

#define S 1000000000ULL

/* One per second, burst three. */
static const struct sluice_limit limit = {.interval_ns = S, .tolerance_ns = 2 * S};

static void a_burst_passes_and_then_one_a_second(void **state)
{
	struct rate_table *table = rate_table_new(1024);

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(rate_table_take(table, &limit, 42, 10 * S), 0);
	assert_int_equal(rate_table_take(table, &limit, 42, 10 * S), 1);
	assert_int_equal(rate_table_take(table, &limit, 42, 11 * S), 0);
	assert_int_equal(rate_table_take(table, &limit, 42, 11 * S), 1);
	rate_table_free(table);
}

static void keys_do_not_spend_each_others_rate(void **state)
{
	struct rate_table *table = rate_table_new(1024);

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(rate_table_take(table, &limit, 1, 10 * S), 0);
	assert_int_not_equal(rate_table_take(table, &limit, 1, 10 * S), 0);
	assert_int_equal(rate_table_take(table, &limit, 2, 10 * S), 0);
	rate_table_free(table);
}

static void no_limit_lets_everything_pass(void **state)
{
	static const struct sluice_limit off = {0};
	struct rate_table *table = rate_table_new(1024);

	(void)state;
	for (int i = 0; i < 1000; i++)
		assert_int_equal(rate_table_take(table, &off, 1, 10 * S), 0);
	rate_table_free(table);
}

static void the_one_furthest_back_in_time_is_forgotten(void **state)
{
	struct rate_table *table = rate_table_new(1);

	(void)state;
	/* Keys that differ by a multiple of the number of sets meet in one set; a spent bucket outlives a fresh one. */
	for (int i = 0; i < 3; i++)
		assert_int_equal(rate_table_take(table, &limit, 1, 10 * S), 0);
	for (uint64_t i = 1; i <= 3; i++)
		assert_int_equal(rate_table_take(table, &limit, 1 + i * 64, 10 * S), 0);
	assert_int_equal(rate_table_take(table, &limit, 1 + 4 * 64, 10 * S), 0);
	assert_int_not_equal(rate_table_take(table, &limit, 1, 10 * S), 0);
	rate_table_free(table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_burst_passes_and_then_one_a_second),
		cmocka_unit_test(keys_do_not_spend_each_others_rate),
		cmocka_unit_test(no_limit_lets_everything_pass),
		cmocka_unit_test(the_one_furthest_back_in_time_is_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
