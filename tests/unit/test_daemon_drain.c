/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The estimate of what the writer drains: told by large batches only, and never far above what a writer of that speed could do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "daemon/drain.h"

#define LARGEST 4096
#define MS 1000000ULL

/* A writer that takes `batch_ns` for a batch and `order_ns` for each order, always busy. Returns the time afterwards. */
static uint64_t work(struct drain *drain, uint64_t now, unsigned orders, uint64_t batch_ns, uint64_t order_ns)
{
	uint64_t done = now + batch_ns + orders * order_ns;

	drain_acknowledged(drain, orders, now, done, LARGEST);
	return done;
}

static void lone_orders_tell_the_time_of_a_commit_and_no_rate(void **state)
{
	struct drain drain = {0};
	uint64_t now = 1;

	(void)state;
	for (int i = 0; i < 1000; i++)
		now = work(&drain, now, 1, MS, 2000);
	assert_true(drain.per_second == 0);
	assert_in_range((uint64_t)drain.commit_ns, MS, MS + 10000);
}

static void batches_of_all_sizes_tell_what_the_largest_would_drain(void **state)
{
	static const unsigned sizes[] = {1, 700, 3, 64, 2000, 15, 250};
	struct drain drain = {0};
	uint64_t now = 1;

	(void)state;
	for (int i = 0; i < 700; i++)
		now = work(&drain, now, sizes[i % 7], MS, 4000);
	/* 4096 orders in 1 ms + 4096 * 4 us */
	assert_in_range((uint64_t)drain.per_second, 230000, 237000);
}

static void batches_of_one_size_tell_what_they_drained_and_no_more(void **state)
{
	struct drain drain = {0};
	uint64_t now = 1;

	(void)state;
	for (int i = 0; i < 300; i++)
		now = work(&drain, now, 100, 10 * MS, 0);
	assert_in_range((uint64_t)drain.per_second, 9900, 10100);
}

static void a_batch_that_waited_for_its_turn_is_not_called_slow(void **state)
{
	struct drain drain = {0};
	uint64_t now = 1;

	(void)state;
	/* Two are on their way all the time: each is sent while the one before is worked at. */
	for (int i = 0; i < 300; i++) {
		uint64_t sent = now > 5 * MS ? now - 5 * MS : 0;

		now += 5 * MS;
		drain_acknowledged(&drain, 1000, sent, now, LARGEST);
	}
	assert_in_range((uint64_t)drain.per_second, 199000, 201000);
	assert_in_range((uint64_t)drain.commit_ns, 9 * MS, 10 * MS);
}

static void a_writer_that_becomes_slow_is_found_slow(void **state)
{
	struct drain drain = {0};
	uint64_t now = 1;

	(void)state;
	for (int i = 0; i < 300; i++)
		now = work(&drain, now, 100 + i % 400, MS, 4000);
	assert_true(drain.per_second > 200000);
	for (int i = 0; i < 600; i++)
		now = work(&drain, now, 100 + i % 400, 100 * MS, 40000);
	assert_true(drain.per_second < 25000);
}

static void what_was_known_before_stands_until_there_is_something_newer(void **state)
{
	struct drain drain = {0};

	(void)state;
	drain_start_with(&drain, 1234);
	assert_true(drain.per_second == 1234);
	work(&drain, 1, 100, MS, 9000);
	assert_true(drain.per_second > 1234);
	drain_start_with(&drain, 1234);
	assert_true(drain.per_second > 1234);
}

static void a_queue_that_gets_old_closes_orders_and_half_as_old_opens_them(void **state)
{
	(void)state;
	assert_false(drain_is_behind(false, 0, 0));
	assert_false(drain_is_behind(false, DRAIN_SLOW_NS, DRAIN_SLOW_NS));
	assert_true(drain_is_behind(false, DRAIN_SLOW_NS + 1, 0));
	assert_true(drain_is_behind(false, 0, DRAIN_SLOW_NS + 1));
	assert_true(drain_is_behind(true, 0, DRAIN_SLOW_NS));
	assert_false(drain_is_behind(true, 0, DRAIN_SLOW_NS / 2));
	assert_false(drain_is_behind(true, DRAIN_SLOW_NS, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lone_orders_tell_the_time_of_a_commit_and_no_rate),
		cmocka_unit_test(batches_of_all_sizes_tell_what_the_largest_would_drain),
		cmocka_unit_test(batches_of_one_size_tell_what_they_drained_and_no_more),
		cmocka_unit_test(a_batch_that_waited_for_its_turn_is_not_called_slow),
		cmocka_unit_test(a_writer_that_becomes_slow_is_found_slow),
		cmocka_unit_test(a_queue_that_gets_old_closes_orders_and_half_as_old_opens_them),
		cmocka_unit_test(what_was_known_before_stands_until_there_is_something_newer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
