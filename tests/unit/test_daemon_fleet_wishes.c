/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Wishes to Redis: who wishes waits until all items are finished, or leaves, and what was left behind is let go of when nothing is on its way of it. Redis is
 * made up: the kind keeps the items that were asked, and the test answers them.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "daemon/fleet_wishes.h"

#define ITEMS 3
#define LONG_MS 20000
#define SHORT_MS 20

static struct daemon daemon_of_test;
static struct {
	struct fleet_wish_item *asked[8];
	unsigned count, room;
	unsigned phases; /* that each item takes */
} redis;

static bool ask(struct daemon *d, struct fleet_round *round, struct fleet_wish_item *item)
{
	(void)d;
	(void)round;
	if (redis.count == redis.room)
		return false;
	redis.asked[redis.count++] = item;
	return true;
}

static bool take(struct daemon *d, struct fleet_wish_item *item, const redisReply *reply)
{
	(void)d;
	(void)reply;
	return ++item->phase == redis.phases;
}

static const struct fleet_wish_kind kind = {.ask = ask, .take = take};

static int setup(void **state)
{
	memset(&redis, 0, sizeof(redis));
	redis.room = 8;
	redis.phases = 1;
	*state = fleet_wishes_new();
	return *state ? 0 : -1;
}

static int teardown(void **state)
{
	fleet_wishes_free(*state);
	return 0;
}

struct waiter {
	pthread_t thread;
	struct fleet_wishes *wishes;
	struct fleet_wish *wish;
	unsigned timeout_ms;
	int result;
};

static void *wait_for_it(void *arg)
{
	struct waiter *waiter = arg;

	waiter->result = fleet_wish_wait(&daemon_of_test, waiter->wishes, waiter->wish, waiter->timeout_ms);
	return NULL;
}

static void begin(struct waiter *waiter, struct fleet_wishes *wishes, unsigned items, unsigned timeout_ms)
{
	*waiter =
		(struct waiter){.wishes = wishes, .wish = fleet_wish_new(&kind, items, NULL), .timeout_ms = timeout_ms};
	assert_non_null(waiter->wish);
	assert_int_equal(pthread_create(&waiter->thread, NULL, wait_for_it, waiter), 0);
}

static void step_until_asked(struct fleet_wishes *wishes, unsigned count)
{
	while (redis.count < count) {
		fleet_wishes_step(&daemon_of_test, wishes, NULL);
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
}

/* All that were asked; what they ask next comes again by a step. */
static void answer_all(int error)
{
	struct fleet_wish_item *asked[8];
	unsigned count = redis.count;

	memcpy(asked, redis.asked, sizeof(asked));
	redis.count = 0;
	for (unsigned i = 0; i < count; i++)
		fleet_wish_done(&daemon_of_test, asked[i], error, NULL);
}

static void who_wishes_gets_all_items(void **state)
{
	struct waiter waiter;

	begin(&waiter, *state, ITEMS, LONG_MS);
	step_until_asked(*state, ITEMS);
	answer_all(0);
	fleet_wishes_step(&daemon_of_test, *state, NULL);
	pthread_join(waiter.thread, NULL);
	assert_int_equal(waiter.result, 0);
	for (unsigned i = 0; i < ITEMS; i++) {
		assert_true(waiter.wish->items[i].finished);
		assert_int_equal(waiter.wish->items[i].error, 0);
	}
	fleet_wish_free(waiter.wish);
}

static void an_item_is_asked_for_each_of_its_phases_and_never_twice_at_once(void **state)
{
	struct waiter waiter;

	redis.phases = 2;
	begin(&waiter, *state, 1, LONG_MS);
	step_until_asked(*state, 1);
	assert_true(fleet_wishes_step(&daemon_of_test, *state, NULL));
	assert_int_equal(redis.count, 1);
	answer_all(0);
	step_until_asked(*state, 1);
	answer_all(0);
	fleet_wishes_step(&daemon_of_test, *state, NULL);
	pthread_join(waiter.thread, NULL);
	assert_int_equal(waiter.result, 0);
	assert_int_equal(waiter.wish->items[0].phase, 2);
	fleet_wish_free(waiter.wish);
}

static void what_finds_no_room_comes_in_the_next_round(void **state)
{
	struct waiter waiter;

	redis.room = 2;
	begin(&waiter, *state, ITEMS, LONG_MS);
	step_until_asked(*state, 2);
	assert_false(fleet_wishes_step(&daemon_of_test, *state, NULL));
	answer_all(0);
	step_until_asked(*state, 1);
	answer_all(0);
	fleet_wishes_step(&daemon_of_test, *state, NULL);
	pthread_join(waiter.thread, NULL);
	assert_int_equal(waiter.result, 0);
	fleet_wish_free(waiter.wish);
}

static void an_error_finishes_its_item(void **state)
{
	struct waiter waiter;

	redis.phases = 2;
	begin(&waiter, *state, 1, LONG_MS);
	step_until_asked(*state, 1);
	answer_all(-ENOTCONN);
	fleet_wishes_step(&daemon_of_test, *state, NULL);
	pthread_join(waiter.thread, NULL);
	assert_int_equal(waiter.result, 0);
	assert_int_equal(waiter.wish->items[0].error, -ENOTCONN);
	fleet_wish_free(waiter.wish);
}

/* The sanitizers see a wish that is used after it was freed, or never freed. */
static void who_leaves_takes_nothing_away_that_is_on_its_way(void **state)
{
	struct waiter waiter;

	begin(&waiter, *state, 1, SHORT_MS);
	step_until_asked(*state, 1);
	pthread_join(waiter.thread, NULL);
	assert_int_equal(waiter.result, -ETIMEDOUT);
	fleet_wishes_step(&daemon_of_test, *state, NULL);
	assert_int_equal(redis.count, 1);
	assert_ptr_equal(redis.asked[0]->wish, waiter.wish);
	answer_all(0);
	fleet_wishes_step(&daemon_of_test, *state, NULL);
	assert_int_equal(redis.count, 0);
}

static void what_was_never_asked_goes_with_who_leaves(void **state)
{
	struct waiter waiter;

	begin(&waiter, *state, ITEMS, SHORT_MS);
	pthread_join(waiter.thread, NULL);
	assert_int_equal(waiter.result, -ETIMEDOUT);
	fleet_wishes_step(&daemon_of_test, *state, NULL);
	assert_int_equal(redis.count, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static void what_was_done_for_some_is_not_called_undone(void **state)
{
	struct fleet_wish *wish = fleet_wish_new(&kind, 2, NULL);
	char failure[32];

	(void)state;
	assert_int_equal(fleet_wish_error(wish, failure, sizeof(failure)), 0);
	wish->items[0].error = wish->items[1].error = -ENOTCONN;
	assert_int_equal(fleet_wish_error(wish, failure, sizeof(failure)), -ENOTCONN);
	wish->items[1].error = -ETIMEDOUT;
	assert_int_equal(fleet_wish_error(wish, failure, sizeof(failure)), -ETIMEDOUT);
	wish->items[1].error = 0;
	strcpy(wish->items[0].failure, "OOM");
	wish->items[0].error = -EREMOTEIO;
	assert_int_equal(fleet_wish_error(wish, failure, sizeof(failure)), -EINPROGRESS);
	assert_string_equal(failure, "OOM");
	fleet_wish_free(wish);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(who_wishes_gets_all_items),
		TEST(an_item_is_asked_for_each_of_its_phases_and_never_twice_at_once),
		TEST(what_finds_no_room_comes_in_the_next_round),
		TEST(an_error_finishes_its_item),
		TEST(who_leaves_takes_nothing_away_that_is_on_its_way),
		TEST(what_was_never_asked_goes_with_who_leaves),
		cmocka_unit_test(what_was_done_for_some_is_not_called_undone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
