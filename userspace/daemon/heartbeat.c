/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The thread that keeps the gate's idea of time and of the daemon. Started by main.c before anything else of the daemon.
 *
 * Every 5 ms it stores control->wall_offset_ns (CLOCK_REALTIME - CLOCK_MONOTONIC), so a sale's window follows a step of the
 * clock within 10 ms, and control->heartbeat_mono. The heartbeat is a promise that an admission made now will be worked on, so it is
 * withheld when the pipeline has not come round for a second, or a public HTTP handler has hung for as long: two seconds later the
 * judge closes orders by itself.
 */
#include "daemon/heartbeat.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "common/log.h"
#include "common/realtime.h"
#include "common/timefmt.h"

#define TICK_NS 5000000L
/* A pair of clock readings that was interrupted is read again, this often at the most. */
#define READ_TRIES 4
#define READ_SPREAD_NS 20000ULL
#define HANDLER_SLOTS 64 /* public HTTP threads, as many as the config allows */

static struct {
	pthread_t thread;
	atomic_bool running;
	atomic_ullong pipeline_mono_ns;
	atomic_ullong handler_since_ns[HANDLER_SLOTS]; /* 0 = idle */
	atomic_uint handler_count;
} watch;

static _Thread_local unsigned handler_slot; /* slot + 1; 0 = none yet */
static _Thread_local unsigned handler_depth;

void heartbeat_pipeline_alive(void)
{
	atomic_store_explicit(&watch.pipeline_mono_ns, time_mono_ns(), memory_order_release);
}

void heartbeat_handler_enter(void)
{
	if (!handler_slot) {
		handler_slot = atomic_fetch_add(&watch.handler_count, 1) % HANDLER_SLOTS + 1;
		realtime_enter();
	}
	if (handler_depth++ == 0)
		atomic_store_explicit(&watch.handler_since_ns[handler_slot - 1], time_mono_ns(), memory_order_release);
}

void heartbeat_handler_leave(void)
{
	if (--handler_depth == 0)
		atomic_store_explicit(&watch.handler_since_ns[handler_slot - 1], 0, memory_order_release);
}

static bool is_stalled(uint64_t since, uint64_t now)
{
	return since && since < now && now - since > HEARTBEAT_STALL_NS;
}

bool heartbeat_is_healthy(uint64_t now)
{
	if (is_stalled(atomic_load_explicit(&watch.pipeline_mono_ns, memory_order_acquire), now))
		return false;
	for (unsigned i = 0; i < HANDLER_SLOTS; i++)
		if (is_stalled(atomic_load_explicit(&watch.handler_since_ns[i], memory_order_acquire), now))
			return false;
	return true;
}

/* The wall clock is read between two readings of the other one; their middle is its time, and a wide pair was interrupted. */
static uint64_t read_offset(uint64_t *mono_ns)
{
	uint64_t before = 0, after = 0, wall = 0;

	for (int i = 0; i < READ_TRIES; i++) {
		before = time_mono_ns();
		wall = time_wall_ns();
		after = time_mono_ns();
		if (after - before <= READ_SPREAD_NS)
			break;
	}
	*mono_ns = after;
	return wall - (before + (after - before) / 2);
}

static void *heartbeat_run(void *arg)
{
	struct daemon *d = arg;
	struct sluice_control *control = d->maps.control;
	struct timespec next;
	bool was_healthy = true;

	pthread_setname_np(pthread_self(), "heartbeat");
	realtime_enter();
	clock_gettime(CLOCK_MONOTONIC, &next);
	while (atomic_load(&watch.running)) {
		uint64_t now, offset = read_offset(&now);
		bool healthy = heartbeat_is_healthy(now);

		__atomic_store_n(&control->wall_offset_ns, offset, __ATOMIC_RELEASE);
		if (healthy)
			__atomic_store_n(&control->heartbeat_mono, now, __ATOMIC_RELEASE);
		if (healthy != was_healthy)
			healthy ? log_info("the daemon is alive again: the heartbeat goes on")
				: log_error(
					  "a part of the daemon hangs: the heartbeat is withheld, the gate will close orders");
		was_healthy = healthy;
		realtime_look(now);

		next.tv_nsec += TICK_NS;
		if (next.tv_nsec >= 1000000000L) {
			next.tv_nsec -= 1000000000L;
			next.tv_sec++;
		}
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL) == EINTR)
			;
	}
	return NULL;
}

int heartbeat_start(struct daemon *d)
{
	int err;

	atomic_store(&watch.running, true);
	heartbeat_pipeline_alive();
	err = pthread_create(&watch.thread, NULL, heartbeat_run, d);
	if (err)
		atomic_store(&watch.running, false);
	return -err;
}

void heartbeat_stop(void)
{
	if (atomic_exchange(&watch.running, false))
		pthread_join(watch.thread, NULL);
}
