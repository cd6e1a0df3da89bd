/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Names asked of a resolver that is silent: whoever asks again and again does not have a thread for each time, and hears the answer when it comes. The
 * resolver is made up: this program's getaddrinfo.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "fleet/redis_lookup.h"

#define PORT 6379
#define TIMES 200
#define PATIENCE_MS 10000

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool is_silent;
	unsigned asked;
} resolver = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
	(void)host;
	(void)service;
	if (hints->ai_flags & AI_NUMERICHOST)
		return EAI_NONAME;
	pthread_mutex_lock(&resolver.lock);
	resolver.asked++;
	pthread_cond_broadcast(&resolver.changed);
	while (resolver.is_silent)
		pthread_cond_wait(&resolver.changed, &resolver.lock);
	pthread_mutex_unlock(&resolver.lock);
	*found = calloc(1, sizeof(**found));
	return *found ? 0 : EAI_MEMORY;
}

void freeaddrinfo(struct addrinfo *found)
{
	free(found);
}

static void be_silent(bool is_silent)
{
	pthread_mutex_lock(&resolver.lock);
	resolver.is_silent = is_silent;
	pthread_cond_broadcast(&resolver.changed);
	pthread_mutex_unlock(&resolver.lock);
}

static unsigned asked(unsigned at_least)
{
	unsigned times;

	pthread_mutex_lock(&resolver.lock);
	while (resolver.asked < at_least)
		pthread_cond_wait(&resolver.changed, &resolver.lock);
	times = resolver.asked;
	pthread_mutex_unlock(&resolver.lock);
	return times;
}

static struct redis_lookup *start(const char *host)
{
	struct addrinfo *known;
	struct redis_lookup *lookup = redis_lookup_start(host, PORT, &known);

	assert_null(known);
	return lookup;
}

/* Takes the answer, and lets go. */
static void expect_answer(struct redis_lookup *lookup)
{
	struct pollfd answered = {.fd = redis_lookup_fd(lookup), .events = POLLIN};
	struct addrinfo *found = NULL;

	assert_int_equal(poll(&answered, 1, PATIENCE_MS), 1);
	assert_int_equal(redis_lookup_take(lookup, &found), 0);
	assert_non_null(found);
	freeaddrinfo(found);
	redis_lookup_drop(lookup);
}

static int setup(void **state)
{
	(void)state;
	resolver.asked = 0;
	be_silent(true);
	return 0;
}

static void a_name_that_is_asked_for_again_is_waited_for_by_the_thread_that_asks(void **state)
{
	struct addrinfo *found;
	struct redis_lookup *lookup;

	(void)state;
	for (unsigned i = 0; i < TIMES; i++) {
		lookup = start("one.test");
		assert_non_null(lookup);
		assert_int_equal(redis_lookup_take(lookup, &found), -EINPROGRESS);
		redis_lookup_drop(lookup);
	}
	lookup = start("one.test");
	be_silent(false);
	expect_answer(lookup);
	assert_int_equal(asked(1), 1);
}

static void two_who_wait_for_one_name_both_get_addresses(void **state)
{
	struct redis_lookup *one = start("two.test"), *other = start("two.test");

	(void)state;
	assert_ptr_not_equal(one, other);
	be_silent(false);
	expect_answer(one);
	expect_answer(other);
}

static void many_names_have_no_more_threads_than_is_bounded(void **state)
{
	struct redis_lookup *lookup;
	unsigned begun = 0;
	char host[32];

	(void)state;
	for (unsigned i = 0; i < TIMES; i++) {
		snprintf(host, sizeof(host), "many-%u.test", i);
		lookup = start(host);
		if (lookup)
			begun++;
		else
			assert_int_equal(errno, EAGAIN);
		redis_lookup_drop(lookup);
	}
	assert_int_equal(begun, REDIS_LOOKUPS_MAX);
	assert_int_equal(asked(begun), begun);
	be_silent(false);
	/* When they have ended there is room again. */
	while (!(lookup = start("again.test")))
		assert_int_equal(errno, EAGAIN);
	expect_answer(lookup);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_name_that_is_asked_for_again_is_waited_for_by_the_thread_that_asks, setup),
		cmocka_unit_test_setup(two_who_wait_for_one_name_both_get_addresses, setup),
		cmocka_unit_test_setup(many_names_have_no_more_threads_than_is_bounded, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
