/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* GCRA against an exact model that is written the other way round: the leaky bucket of ITU-T I.371 with its level as a fraction of a
 * request, in 128-bit rationals, while the code under test keeps one arrival time in ns. Both must agree on every single arrival.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "sluice/gcra.h"

#define SECOND 1000000000ULL

static uint64_t random_state;

static uint64_t random_next(void) /* xorshift64*, Vigna 2016 */
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * 0x2545f4914f6cdd1dULL;
}

static uint64_t random_below(uint64_t bound)
{
	return random_next() % bound;
}

static void seed_random(void)
{
	const char *text = getenv("SLUICE_SEED");

	random_state = text ? strtoull(text, NULL, 0) : 20261122;
	print_message("seed %llu\n", (unsigned long long)random_state);
}

/* The level of the bucket is numerator / limit.interval_ns requests; it leaks one request per interval. A request conforms if no more than
 * tolerance / interval are in the bucket.
 */
struct model {
	unsigned __int128 numerator;
	uint64_t last;
};

static int model_take(struct model *model, const struct sluice_limit *limit, uint64_t now, uint64_t cost)
{
	unsigned __int128 leaked = now - model->last;

	model->numerator = model->numerator > leaked ? model->numerator - leaked : 0;
	model->last = now;
	if (model->numerator > limit->tolerance_ns)
		return 0;
	model->numerator += (unsigned __int128)cost * limit->interval_ns;
	return 1;
}

static struct sluice_limit random_limit(void)
{
	struct sluice_limit limit;

	switch (random_below(4)) {
	case 0: /* fast */
		limit.interval_ns = 1 + random_below(1000);
		break;
	case 1:
		limit.interval_ns = 1 + random_below(SECOND);
		break;
	case 2: /* the slowest that the config allows: 0.001/s */
		limit.interval_ns = 1000 * SECOND;
		break;
	default:
		limit.interval_ns = 20000000;
		break;
	}
	limit.tolerance_ns = random_below(4) ? random_below(1000) * limit.interval_ns : 999999 * limit.interval_ns;
	if (!random_below(3))
		limit.tolerance_ns += random_below(limit.interval_ns); /* tolerances need not be whole requests */
	return limit;
}

static void every_arrival_agrees_with_the_model(void **state)
{
	(void)state;
	seed_random();
	for (int round = 0; round < 2000; round++) {
		struct sluice_limit limit = random_limit();
		uint64_t now = 1 + random_below(1ULL << 60);
		struct model model = {.last = now};
		uint64_t tat = random_below(2) ? 0 : now - random_below(now); /* nothing known, or long ago */

		for (int i = 0; i < 500; i++) {
			uint64_t cost = random_below(8) ? 1 : 1 + random_below(SLUICE_MAX_QUANTITY);
			uint64_t next = gcra_next(&limit, tat, now, cost);

			assert_int_equal(next != 0, model_take(&model, &limit, now, cost));
			if (next)
				tat = next;
			switch (random_below(4)) {
			case 0: /* at once */
				break;
			case 1: /* exactly when the next one conforms, or 1 ns before or after: where an off-by-one would show */
				if (tat > limit.tolerance_ns && tat - limit.tolerance_ns > now)
					now = tat - limit.tolerance_ns - 1 + random_below(3);
				break;
			default:
				now += random_below(limit.interval_ns * 3);
				break;
			}
			if (now < model.last)
				now = model.last;
		}
	}
}

static void a_burst_is_exactly_as_large_as_written(void **state)
{
	(void)state;
	for (uint64_t burst = 1; burst <= 1000; burst++) {
		struct sluice_limit limit = {.interval_ns = 20000000, .tolerance_ns = (burst - 1) * 20000000};
		uint64_t tat = 0, taken = 0, next;

		while ((next = gcra_next(&limit, tat, SECOND, 1)) != 0) {
			tat = next;
			taken++;
		}
		assert_int_equal(taken, burst);
	}
}

static void no_window_has_more_than_burst_and_rate(void **state)
{
	const struct sluice_limit limit = {.interval_ns = SECOND / 50, .tolerance_ns = 99 * (SECOND / 50)};
	enum { ARRIVALS = 20000 };
	static uint64_t taken_at[ARRIVALS];
	uint64_t now = SECOND, tat = 0;
	int taken = 0;

	(void)state;
	seed_random();
	for (int i = 0; i < ARRIVALS; i++) {
		uint64_t next = gcra_next(&limit, tat, now, 1);

		if (next) {
			tat = next;
			taken_at[taken++] = now;
		}
		now += random_below(i / 2000 % 2 ? 100000 : SECOND / 10); /* floods and calm */
	}
	assert_true(taken > 1000);
	for (int first = 0; first < taken; first++) {
		for (int last = first; last < taken; last++) {
			uint64_t allowed = 100 + (taken_at[last] - taken_at[first]) / limit.interval_ns;

			if ((uint64_t)(last - first + 1) > allowed)
				fail_msg("%d requests between %llu and %llu", last - first + 1,
					(unsigned long long)taken_at[first], (unsigned long long)taken_at[last]);
		}
	}
}

static void a_limit_that_is_off_conforms_always(void **state)
{
	const struct sluice_limit off = {0};

	(void)state;
	assert_int_equal(gcra_next(&off, 0, 5, 1), 5);
	assert_int_equal(gcra_next(&off, UINT64_MAX, 5, 100), 5);
}

static void retry_after_is_the_first_second_that_conforms(void **state)
{
	(void)state;
	seed_random();
	for (int i = 0; i < 200000; i++) {
		struct sluice_limit limit = random_limit();
		uint64_t now = 1 + random_below(1ULL << 60);
		uint64_t tat =
			now + limit.tolerance_ns + 1 + random_below(random_below(2) ? 5 * SECOND : 20000 * SECOND);
		uint32_t seconds = gcra_retry_after_s(&limit, tat, now);

		assert_int_equal(gcra_next(&limit, tat, now, 1), 0);
		assert_in_range(seconds, 1, SLUICE_RETRY_MAX_S);
		if (seconds < SLUICE_RETRY_MAX_S)
			assert_int_not_equal(gcra_next(&limit, tat, now + seconds * SECOND, 1), 0);
		assert_int_equal(gcra_next(&limit, tat, now + (seconds - 1) * SECOND, 1), 0);
	}
}

static void retry_after_of_one_who_conforms_is_the_least(void **state)
{
	const struct sluice_limit limit = {.interval_ns = SECOND, .tolerance_ns = SECOND};

	(void)state;
	assert_int_equal(gcra_retry_after_s(&limit, 0, SECOND), 1);
	assert_int_equal(gcra_retry_after_s(&limit, 2 * SECOND, SECOND), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_arrival_agrees_with_the_model),
		cmocka_unit_test(a_burst_is_exactly_as_large_as_written),
		cmocka_unit_test(no_window_has_more_than_burst_and_rate),
		cmocka_unit_test(a_limit_that_is_off_conforms_always),
		cmocka_unit_test(retry_after_is_the_first_second_that_conforms),
		cmocka_unit_test(retry_after_of_one_who_conforms_is_the_least),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
