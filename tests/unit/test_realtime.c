/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tests of common/realtime.c, each in a child process, since handler and limit are the process's. A child that claims enters by CAP_SYS_NICE and then
 * gives every privilege up, as the daemon has none while it works. Its exit code is the line of the first thing that went otherwise than claimed.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/log.h"
#include "common/realtime.h"
#include "common/timefmt.h"

#define CHILD_SKIPS 255
#define NOBODY 65534
/* Exit codes have eight bits; lines beyond would hide. */
#define CLAIM(what) \
	do { \
		if (!(what)) \
			_exit(__LINE__ % 254 + 1); \
	} while (0)

static atomic_bool helper_over;
static atomic_int helper_id;

static int policy_of(int thread)
{
	return sched_getscheduler(thread) & ~SCHED_RESET_ON_FORK;
}

/* A kernel may refuse it to its control groups even to root. */
static bool may_have_it(void)
{
	const struct sched_param param = {.sched_priority = REALTIME_PRIORITY};
	bool may = !sched_setscheduler(0, SCHED_RR, &param);
	const struct sched_param none = {0};

	sched_setscheduler(0, SCHED_OTHER, &none);
	return may;
}

static void expect_child(void (*run)(void))
{
	int status = -1;
	pid_t child = fork();

	assert_true(child >= 0);
	if (!child) {
		if (!may_have_it())
			_exit(CHILD_SKIPS);
		log_init("test", LOG_ERROR_LEVEL);
		run();
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status)); /* SIGXCPU ends who does not take it */
	if (WEXITSTATUS(status) == CHILD_SKIPS)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void become_nobody(void)
{
	CLAIM(setresgid(NOBODY, NOBODY, NOBODY) == 0);
	CLAIM(setresuid(NOBODY, NOBODY, NOBODY) == 0);
}

static uint64_t used_ns(void)
{
	struct timespec used;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
	return (uint64_t)used.tv_sec * 1000000000ULL + (uint64_t)used.tv_nsec;
}

/* The calling thread computes until it is an ordinary one. The kernel counts in ticks, so it takes longer than the limit says, but not a second. */
static void compute_until_taken(void)
{
	uint64_t began = used_ns();

	while (policy_of(0) == SCHED_RR)
		CLAIM(used_ns() - began < 10 * REALTIME_UNRESTED_US * 1000ULL);
}

static void *rest_often(void *unused)
{
	const struct timespec rest = {.tv_nsec = 1000000};

	realtime_enter();
	atomic_store(&helper_id, (int)syscall(SYS_gettid));
	while (!atomic_load(&helper_over))
		nanosleep(&rest, NULL);
	return unused;
}

static pthread_t start_helper(void)
{
	pthread_t helper;

	CLAIM(pthread_create(&helper, NULL, rest_often, NULL) == 0);
	while (!atomic_load(&helper_id))
		sched_yield();
	return helper;
}

static void claim_taken_from_all_and_given_back(void)
{
	uint64_t now = 5000000000ULL;
	pthread_t helper;

	realtime_start();
	helper = start_helper();
	realtime_enter();
	CLAIM(policy_of(0) == SCHED_RR && policy_of(atomic_load(&helper_id)) == SCHED_RR);
	become_nobody();
	compute_until_taken();
	CLAIM(policy_of(atomic_load(&helper_id)) == SCHED_OTHER);
	realtime_look(now);
	CLAIM(realtime_pauses() == 1);
	realtime_look(now + REALTIME_PAUSE_NS - 1);
	CLAIM(policy_of(0) == SCHED_OTHER && realtime_pauses() == 1);
	atomic_store(&helper_over, true);
	CLAIM(pthread_join(helper, NULL) == 0);
}

/* Without RLIMIT_RTPRIO, which a test can rarely raise, only who has CAP_SYS_NICE may have it back. */
static void claim_again_and_again(void)
{
	uint64_t now = 5000000000ULL;

	realtime_start();
	realtime_enter();
	for (unsigned i = 1; i <= 3; i++) {
		compute_until_taken();
		realtime_look(now);
		CLAIM(realtime_pauses() == i && policy_of(0) == SCHED_OTHER);
		now += REALTIME_PAUSE_NS;
		realtime_look(now);
		CLAIM(policy_of(0) == SCHED_RR);
	}
}

static void claim_rest_keeps_it(void)
{
	const struct timespec rest = {.tv_nsec = 100000};
	uint64_t next = REALTIME_UNRESTED_US / 10 * 1000ULL;

	realtime_start();
	realtime_enter();
	/* Four times as much as may be used at a stretch. */
	do {
		if (used_ns() > next) {
			nanosleep(&rest, NULL);
			next += REALTIME_UNRESTED_US / 10 * 1000ULL;
		}
	} while (used_ns() < 4 * REALTIME_UNRESTED_US * 1000ULL);
	realtime_look(5000000000ULL);
	CLAIM(policy_of(0) == SCHED_RR && realtime_pauses() == 0);
}

static void claim_no_right_no_harm(void)
{
	const struct rlimit none = {0};

	CLAIM(setrlimit(RLIMIT_RTPRIO, &none) == 0);
	become_nobody();
	realtime_start();
	realtime_enter();
	CLAIM(policy_of(0) == SCHED_OTHER);
	while (used_ns() < 4 * REALTIME_UNRESTED_US * 1000ULL)
		;
	realtime_look(5000000000ULL);
	CLAIM(realtime_pauses() == 0);
}

static void claim_children_are_ordinary(void)
{
	int status = -1;
	pid_t child;

	realtime_start();
	realtime_enter();
	child = fork();
	CLAIM(child >= 0);
	if (!child)
		_exit(policy_of(0) == SCHED_OTHER ? 0 : 1);
	CLAIM(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

#define IN_A_CHILD(name, run) \
	static void name(void **state) \
	{ \
		(void)state; \
		expect_child(run); \
	}

IN_A_CHILD(a_thread_that_does_not_rest_takes_it_from_all_without_any_privilege, claim_taken_from_all_and_given_back)
IN_A_CHILD(a_second_later_all_have_it_again_and_the_next_that_does_not_rest_is_found_too, claim_again_and_again)
IN_A_CHILD(a_thread_that_rests_keeps_it, claim_rest_keeps_it)
IN_A_CHILD(without_the_right_everything_stays_as_it_was, claim_no_right_no_harm)
IN_A_CHILD(what_such_a_thread_starts_is_ordinary, claim_children_are_ordinary)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_thread_that_does_not_rest_takes_it_from_all_without_any_privilege),
		cmocka_unit_test(a_second_later_all_have_it_again_and_the_next_that_does_not_rest_is_found_too),
		cmocka_unit_test(a_thread_that_rests_keeps_it),
		cmocka_unit_test(without_the_right_everything_stays_as_it_was),
		cmocka_unit_test(what_such_a_thread_starts_is_ordinary),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
