/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* SCHED_RR for the order's threads; see realtime.h. Used by sluiced (heartbeat, pipeline, public HTTP) and sluice-writer.
 *
 * The system calls are made directly, because the handler of SIGXCPU makes them, too: it runs on the thread that did not rest, or on any other, and
 * must neither allocate nor lock.
 */
#include "common/realtime.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"

#define SAY_EACH_NS 3600000000000ULL
#define THREADS_MAX 80 /* the public HTTP threads, at most 64, and a few */

static struct {
	bool guarded;                    /* written before the first thread enters */
	atomic_int threads[THREADS_MAX]; /* ids */
	atomic_uint count;
	atomic_bool taken;
	atomic_ullong pauses;
	/* of realtime_look() alone; CLOCK_MONOTONIC, ns */
	uint64_t said_at;  /* 0 = never */
	uint64_t taken_at; /* 0 = not seen yet */
} realtime;

/* Returns 0 or a negative errno. Leaves errno as it was. Who has no privilege may not take SCHED_RESET_ON_FORK back. */
static int set_policy(int thread, int policy)
{
	const struct sched_param param = {.sched_priority = policy == SCHED_RR ? REALTIME_PRIORITY : 0};
	int before = errno,
	    err = syscall(SYS_sched_setscheduler, thread, policy | SCHED_RESET_ON_FORK, &param) ? -errno : 0;

	errno = before;
	return err;
}

/* 0 is a place that is being taken: its thread is about to set its own. */
static void set_all(int policy)
{
	unsigned count = atomic_load(&realtime.count);

	for (unsigned i = 0; i < count && i < THREADS_MAX; i++) {
		int thread = atomic_load(&realtime.threads[i]);

		if (thread)
			set_policy(thread, policy);
	}
}

static void on_unrested(int number)
{
	(void)number;
	set_all(SCHED_OTHER);
	atomic_store(&realtime.taken, true);
}

/* The kernel adds a second to the soft limit with each signal, so it is set again each time. */
static int limit_unrested(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_RTTIME, &limit))
		return -errno;
	if (limit.rlim_max <= 2 * REALTIME_UNRESTED_US) /* the kernel would kill before it tells */
		return -ERANGE;
	limit.rlim_cur = REALTIME_UNRESTED_US;
	return setrlimit(RLIMIT_RTTIME, &limit) ? -errno : 0;
}

void realtime_start(void)
{
	struct sigaction action = {.sa_handler = on_unrested, .sa_flags = SA_RESTART};
	int err = 0;

	sigfillset(&action.sa_mask);
	if (sigaction(SIGXCPU, &action, NULL))
		err = -errno;
	if (!err)
		err = limit_unrested();
	if (err)
		log_warn(
			"no real-time priority for orders: what takes it from a thread that does not rest cannot be set up: %s",
			strerror(-err));
	realtime.guarded = !err;
}

void realtime_enter(void)
{
	int thread = (int)syscall(SYS_gettid), err;
	unsigned place = atomic_load(&realtime.count);
	sigset_t unrested;

	if (!realtime.guarded)
		return;
	do {
		if (place >= THREADS_MAX)
			return;
	} while (!atomic_compare_exchange_weak(&realtime.count, &place, place + 1));
	atomic_store(&realtime.threads[place], thread);

	sigemptyset(&unrested);
	sigaddset(&unrested, SIGXCPU);
	pthread_sigmask(SIG_UNBLOCK, &unrested, NULL);
	err = set_policy(thread, SCHED_RR);
	if (place)
		return;
	if (err)
		log_info("no real-time priority for orders: %s (the units have LimitRTPRIO=%d); floods delay them more",
			strerror(-err), REALTIME_PRIORITY);
	else
		log_info("orders are worked on with real-time priority %d", REALTIME_PRIORITY);
}

void realtime_look(uint64_t now)
{
	if (!atomic_load_explicit(&realtime.taken, memory_order_relaxed))
		return;
	if (!realtime.taken_at) {
		realtime.taken_at = now;
		atomic_fetch_add(&realtime.pauses, 1);
		if (!realtime.said_at || now - realtime.said_at > SAY_EACH_NS) {
			realtime.said_at = now;
			log_warn(
				"a thread computed for %d ms without a rest: no real-time priority for a second (said once an hour)",
				REALTIME_UNRESTED_US / 1000);
		}
	}
	if (now - realtime.taken_at < REALTIME_PAUSE_NS)
		return;
	realtime.taken_at = 0;
	atomic_store(&realtime.taken, false);
	limit_unrested();
	set_all(SCHED_RR);
}

uint64_t realtime_pauses(void)
{
	return atomic_load(&realtime.pauses);
}
