/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Proves: what a part asks for in a round is asked once, with what it was given then, and answered on the fleet's thread; whoever wakes the thread or
 * says something on the channel does not wait for the next round's time; and a daemon that stops hears the parts out, but not for long.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "common/timefmt.h"
#include "daemon/fleet.h"
#include "redis_server.h"

#define MS 1000000ULL
#define PATIENCE_MS 10000
#define NEVER UINT64_MAX

static struct redis_server server;
static struct daemon d;

/* --- a part that does as it is told ------------------------------------------------------------------------------------------------ */
static struct {
	atomic_uint wanted;  /* calls of the next step */
	atomic_uint refused; /* by a full round */
	atomic_uint done, failed, steps, news;
	atomic_uint leaves; /* calls of leave until it is done */
	atomic_uint left;
	atomic_int error;
	bool sums_up; /* every answer is larger than the one before: none was mixed up */
	long long last;
	pthread_t thread;
} part;

static void done(struct daemon *daemon, void *arg, int error, const redisReply *reply)
{
	assert_ptr_equal(daemon, &d);
	assert_ptr_equal(arg, &part);
	if (error) {
		atomic_store(&part.error, error);
		atomic_fetch_add(&part.failed, 1);
		return;
	}
	part.sums_up = part.sums_up && reply->integer > part.last;
	part.last = reply->integer;
	part.thread = pthread_self();
	atomic_fetch_add(&part.done, 1);
}

static bool add(struct fleet_round *round)
{
	char key[FLEET_KEY_MAX];
	char word[16] = "INCR";
	const char *words[] = {word, key};
	bool has_room;

	fleet_key(&d, "number", key);
	has_room = fleet_command(round, key, words, 2, done, &part);
	/* They were copied. */
	memset(key, 'x', sizeof(key) - 1);
	memset(word, 'x', sizeof(word) - 1);
	return has_room;
}

static uint64_t step(struct daemon *daemon, struct fleet_round *round, uint64_t now_mono_ns)
{
	(void)daemon;
	(void)now_mono_ns;
	atomic_fetch_add(&part.steps, 1);
	while (atomic_load(&part.wanted)) {
		if (!add(round)) {
			atomic_fetch_add(&part.refused, 1);
			break;
		}
		atomic_fetch_sub(&part.wanted, 1);
	}
	return NEVER;
}

static void news(struct daemon *daemon, const char *about)
{
	(void)daemon;
	(void)about;
	atomic_fetch_add(&part.news, 1);
}

/* What a part with a topic heard: each message in brackets. */
static char told[256];

static void hear(struct daemon *daemon, const char *about)
{
	size_t used = strlen(told);

	(void)daemon;
	snprintf(told + used, sizeof(told) - used, "[%s]", about ? about : "all");
}

static uint64_t never(struct daemon *daemon, struct fleet_round *round, uint64_t now_mono_ns)
{
	(void)daemon;
	(void)round;
	(void)now_mono_ns;
	return NEVER;
}

static bool leave(struct daemon *daemon, struct fleet_round *round, uint64_t now_mono_ns)
{
	(void)daemon;
	(void)now_mono_ns;
	assert_true(add(round));
	return atomic_fetch_add(&part.left, 1) + 1 >= atomic_load(&part.leaves);
}

static const struct fleet_part test_part = {.name = "test", .step = step, .news = news, .leave = leave};
/* Before the part of the test: what that one has heard, this one has. */
static const struct fleet_part topic_part = {.name = "topic", .topic = "lease", .step = never, .news = hear};
static const struct fleet_part *const parts[] = {&topic_part, &test_part};

static void until(atomic_uint *count, unsigned least)
{
	for (unsigned ms = 0; atomic_load(count) < least; ms++) {
		assert_true(ms < PATIENCE_MS);
		usleep(1000);
	}
}

static void until_connected(bool connected)
{
	struct fleet_status status;

	for (unsigned ms = 0;; ms++) {
		fleet_status(&d, &status);
		if (status.connected == connected && !status.away_ns == connected)
			return;
		assert_true(ms < PATIENCE_MS);
		usleep(1000);
	}
}

static int open_fleet(void **state)
{
	char error[256] = "";

	(void)state;
	if (!server.pid)
		redis_server_start(&server);
	redis_server_do(&server, "FLUSHALL");
	memset(&part, 0, sizeof(part));
	part.sums_up = true;
	atomic_store(&part.leaves, 1);
	config_defaults(&d.config);
	snprintf(d.config.fleet.redis, sizeof(d.config.fleet.redis), "%s", server.address);
	d.config.fleet.timeout_ms = 500;
	assert_int_equal(fleet_open_with(&d, parts, 2, error, sizeof(error)), 0);
	return 0;
}

static int close_fleet(void **state)
{
	(void)state;
	fleet_stop(&d);
	fleet_free(&d);
	assert_null(d.fleet);
	return 0;
}

/* --- the tests ---------------------------------------------------------------------------------------------------------------------- */
static void keys_of_a_sale_share_a_slot_and_no_sale_has_those_of_the_fleet(void **state)
{
	char key[FLEET_KEY_MAX], channel[FLEET_CHANNEL_MAX];

	(void)state;
	assert_string_equal(fleet_sale_key(&d, "drop-11", "stock", key), "sluice:{drop-11}:stock");
	assert_string_equal(fleet_key(&d, "nodes", key), "sluice:{fleet}:nodes");
	assert_string_equal(fleet_channel(&d, channel), "sluice:news");
}

static void what_is_wished_is_asked_once_and_answered_in_order_however_much_it_is(void **state)
{
	const unsigned wanted = 3 * FLEET_CALLS_MAX + 7;

	(void)state;
	atomic_store(&part.wanted, wanted);
	assert_int_equal(fleet_start(&d), 0);
	until(&part.done, wanted);
	assert_int_equal(atomic_load(&part.failed), 0);
	assert_true(atomic_load(&part.refused) >= 3);
	assert_true(part.sums_up);
	assert_false(pthread_equal(part.thread, pthread_self()));
	until_connected(true);
	fleet_stop(&d);
	assert_int_equal(atoi(redis_server_do(&server, "GET sluice:{fleet}:number")), wanted + 1); /* and the leave */
}

static void who_wakes_the_thread_or_says_something_does_not_wait(void **state)
{
	unsigned heard;

	(void)state;
	assert_int_equal(fleet_start(&d), 0);
	until(&part.news, 1); /* the subscription */
	for (unsigned i = 1; i <= 20; i++) {
		atomic_store(&part.wanted, 1);
		fleet_wake(&d);
		until(&part.done, i); /* twenty seconds by the clock of rounds alone; PATIENCE_MS is less */
	}
	heard = atomic_load(&part.news);
	redis_server_do(&server, "PUBLISH sluice:news look");
	until(&part.news, heard + 1);
}

static void a_part_hears_of_its_topic_and_what_is_of_none(void **state)
{
	static const char *const messages[] = {"lease drop-11", "leases", "lease", "homes", "look"};

	(void)state;
	told[0] = '\0';
	assert_int_equal(fleet_start(&d), 0);
	until(&part.news, 1);
	for (unsigned i = 0; i < sizeof(messages) / sizeof(*messages); i++) {
		char publish[128];

		snprintf(publish, sizeof(publish), "PUBLISH sluice:news %s", messages[i]);
		/* redis_server_do splits at spaces. */
		if (strchr(messages[i], ' '))
			snprintf(publish, sizeof(publish),
				"EVAL return(redis.call('PUBLISH','sluice:news','lease'..string.char(32)..'drop-11')) 0");
		redis_server_do(&server, publish);
		until(&part.news, 2 + i);
	}
	fleet_stop(&d);
	/* "leases" and "homes" are nobody's topic here: they are for all. */
	assert_string_equal(told, "[all][drop-11][all][][all][all]");
}

static void without_redis_calls_fail_at_once_and_it_is_found_again(void **state)
{
	struct fleet_status status;
	unsigned failed;

	(void)state;
	atomic_store(&part.wanted, 1);
	assert_int_equal(fleet_start(&d), 0);
	until(&part.done, 1);
	until_connected(true);
	redis_server_stop(&server, SIGKILL);
	for (unsigned i = 1; i <= 5; i++) {
		atomic_store(&part.wanted, 1);
		fleet_wake(&d);
		until(&part.failed, i);
		assert_int_equal(atomic_load(&part.error), -ENOTCONN);
	}
	until_connected(false);
	fleet_status(&d, &status);
	assert_non_null(strstr(status.redis.failure, "refused"));
	redis_server_start(&server);
	failed = atomic_load(&part.failed);
	for (unsigned i = 0; atomic_load(&part.done) < 2; i++) {
		atomic_store(&part.wanted, 1);
		fleet_wake(&d);
		usleep(10000);
		assert_true(i < PATIENCE_MS / 10);
	}
	assert_true(atomic_load(&part.failed) - failed < 200);
	until_connected(true);
}

static void a_part_may_take_its_leave_in_some_rounds(void **state)
{
	(void)state;
	atomic_store(&part.leaves, 5);
	assert_int_equal(fleet_start(&d), 0);
	until(&part.steps, 1);
	fleet_stop(&d);
	assert_int_equal(atomic_load(&part.left), 5);
	assert_string_equal(redis_server_do(&server, "GET sluice:{fleet}:number"), "5");
}

static void a_part_that_does_not_come_to_an_end_is_not_waited_for(void **state)
{
	uint64_t began;

	(void)state;
	atomic_store(&part.leaves, UINT32_MAX);
	assert_int_equal(fleet_start(&d), 0);
	until(&part.steps, 1);
	began = time_mono_ns();
	fleet_stop(&d);
	assert_true(time_mono_ns() - began < PATIENCE_MS * MS);
	assert_true(atomic_load(&part.left) > 1);
}

static void a_server_that_hangs_does_not_hold_up_the_stop(void **state)
{
	uint64_t began;

	(void)state;
	atomic_store(&part.leaves, UINT32_MAX);
	assert_int_equal(fleet_start(&d), 0);
	atomic_store(&part.wanted, 1);
	fleet_wake(&d);
	until(&part.done, 1);
	kill(server.pid, SIGSTOP);
	began = time_mono_ns();
	fleet_stop(&d);
	assert_true(time_mono_ns() - began < PATIENCE_MS * MS);
	kill(server.pid, SIGCONT);
}

static void without_a_fleet_there_is_nothing(void **state)
{
	static struct daemon alone;
	char error[64];

	(void)state;
	config_defaults(&alone.config);
	assert_int_equal(fleet_open(&alone, error, sizeof(error)), 0);
	assert_null(alone.fleet);
	assert_int_equal(fleet_start(&alone), 0);
	fleet_wake(&alone);
	fleet_stop(&alone);
	fleet_free(&alone);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			keys_of_a_sale_share_a_slot_and_no_sale_has_those_of_the_fleet, open_fleet, close_fleet),
		cmocka_unit_test_setup_teardown(
			what_is_wished_is_asked_once_and_answered_in_order_however_much_it_is, open_fleet, close_fleet),
		cmocka_unit_test_setup_teardown(a_part_hears_of_its_topic_and_what_is_of_none, open_fleet, close_fleet),
		cmocka_unit_test_setup_teardown(
			who_wakes_the_thread_or_says_something_does_not_wait, open_fleet, close_fleet),
		cmocka_unit_test_setup_teardown(
			without_redis_calls_fail_at_once_and_it_is_found_again, open_fleet, close_fleet),
		cmocka_unit_test_setup_teardown(a_part_may_take_its_leave_in_some_rounds, open_fleet, close_fleet),
		cmocka_unit_test_setup_teardown(
			a_part_that_does_not_come_to_an_end_is_not_waited_for, open_fleet, close_fleet),
		cmocka_unit_test_setup_teardown(a_server_that_hangs_does_not_hold_up_the_stop, open_fleet, close_fleet),
		cmocka_unit_test(without_a_fleet_there_is_nothing),
	};
	int failed;

	signal(SIGPIPE, SIG_IGN);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	redis_server_stop(&server, SIGKILL);
	return failed;
}
