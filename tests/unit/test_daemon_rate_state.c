/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What is read back from a GCRA word is what the gate will do: as many requests conform as are said to be left, and not one sooner than said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "daemon/rate_state.h"
#include "daemon/rate_table.h"
#include "sluice/gcra.h"

#define MS 1000000ULL
#define NOW (1000000 * MS)

static const struct sluice_limit ten_burst_five = {.interval_ns = 100 * MS, .tolerance_ns = 400 * MS};

/* How many conform at `now`. */
static unsigned spend(const struct sluice_limit *limit, uint64_t *tat, uint64_t now)
{
	unsigned conforming = 0;
	uint64_t next;

	while ((next = gcra_next(limit, *tat, now, 1)) != 0) {
		*tat = next;
		conforming++;
	}
	return conforming;
}

static void an_unused_bucket_has_its_whole_burst(void **state)
{
	struct rate_state read;

	(void)state;
	rate_state_read(&ten_burst_five, 0, NOW, &read);
	assert_true(read.is_limited);
	assert_int_equal(read.left, 5);
	assert_int_equal(read.next_allowed_ns, 0);
	assert_int_equal(read.idle_ns, 0);
}

static void a_limit_that_is_off_says_so(void **state)
{
	static const struct sluice_limit off = {0};
	struct rate_state read;

	(void)state;
	rate_state_read(&off, NOW + 7, NOW, &read);
	assert_false(read.is_limited);
	assert_int_equal(read.next_allowed_ns, 0);
}

static void what_is_left_conforms_and_the_next_one_when_it_was_said(void **state)
{
	unsigned seed = 20240229;

	(void)state;
	srand(seed);
	for (int i = 0; i < 2000; i++) {
		struct sluice_limit limit = {.interval_ns = 1 + (uint64_t)rand() % (500 * MS)};
		uint64_t tat, later;
		struct rate_state read;

		limit.tolerance_ns = limit.interval_ns * ((uint64_t)rand() % 50);
		tat = NOW - 100 * MS + (uint64_t)rand() % (limit.tolerance_ns + 3 * limit.interval_ns + 200 * MS);
		rate_state_read(&limit, tat, NOW, &read);
		if (read.next_allowed_ns) {
			assert_int_equal(read.left, 0);
			assert_int_equal(gcra_next(&limit, tat, NOW, 1), 0);
			later = NOW + read.next_allowed_ns;
			assert_int_equal(gcra_next(&limit, tat, later - 1, 1), 0);
			assert_int_not_equal(gcra_next(&limit, tat, later, 1), 0);
		} else if (spend(&limit, &tat, NOW) != read.left) {
			fail_msg("seed %u, round %d: %llu are said to be left", seed, i, (unsigned long long)read.left);
		}
	}
}

static void idle_time_is_never_too_long(void **state)
{
	struct rate_state read;
	uint64_t tat = gcra_next(&ten_burst_five, 0, NOW, 1);

	(void)state;
	rate_state_read(&ten_burst_five, tat, NOW + 50 * MS, &read);
	assert_int_equal(read.idle_ns, 0);
	rate_state_read(&ten_burst_five, tat, NOW + 1000 * MS, &read);
	assert_in_range(read.idle_ns, 1, 1000 * MS);
}

static void a_look_at_the_table_of_rates_charges_nothing(void **state)
{
	struct rate_table *table = rate_table_new(64);

	(void)state;
	assert_int_equal(rate_table_peek(table, 7), 0);
	assert_int_equal(rate_table_take(table, &ten_burst_five, 7, NOW), 0);
	for (int i = 0; i < 10; i++)
		assert_true(rate_table_peek(table, 7) == NOW + ten_burst_five.interval_ns);
	assert_int_equal(rate_table_peek(table, 8), 0);
	rate_table_free(table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_unused_bucket_has_its_whole_burst),
		cmocka_unit_test(a_limit_that_is_off_says_so),
		cmocka_unit_test(what_is_left_conforms_and_the_next_one_when_it_was_said),
		cmocka_unit_test(idle_time_is_never_too_long),
		cmocka_unit_test(a_look_at_the_table_of_rates_charges_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
