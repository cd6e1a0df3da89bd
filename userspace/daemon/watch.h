/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Watchers of verdicts: what each wants to see, and one thread that reads the gate's ring while there is a watcher. */
#ifndef SLUICE_DAEMON_WATCH_H
#define SLUICE_DAEMON_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/daemon.h"

#define WATCH_MAX 16           /* watchers at a time */
#define WATCH_PER_SECOND 20000 /* verdicts that one watcher is shown at the most; more are thinned out in the gate */
#define WATCH_ALL_REASONS (~0ULL >> (64 - SLUICE_REASON_COUNT))
#define WATCH_EVERY 0xffffffffu /* threshold of a watch that is not a sample */

struct watch;
struct watcher;

struct watch_filter {
	uint64_t reasons; /* bit n: reason n */
	struct sluice_addr mask, addr;
	uint32_t sale;       /* 0 = any */
	uint32_t threshold;  /* as in struct sluice_watch */
	unsigned per_second; /* no more than so many on average, by a smaller sample; 1..WATCH_PER_SECOND */
	uint8_t door;        /* enum sluice_door; 0 = both */
};

struct watched {
	struct sluice_event event;
	double stands_for; /* so many verdicts, by the sample */
};

/* What becomes of who sent the packet. Segments of the handshake and of closed connections are neither the one nor the other. */
enum watch_action { WATCH_PASSED, WATCH_REFUSED, WATCH_HANDSHAKE };

/* Starts the thread, which sleeps while nobody watches. Takes back what a daemon that was killed had asked of the gate.
 * Returns 0 or negative errno.
 */
int watch_start(struct daemon *d);
/* Ends every watcher's waiting and the thread; from then on nobody can watch. */
void watch_stop(struct daemon *d);
/* When no watcher is open any more. Both are safe without a watch_start. */
void watch_free(struct daemon *d);

/* NULL with errno: EUSERS (WATCH_MAX are there), ESHUTDOWN (also without a watch_start), ENOMEM. */
struct watcher *watch_open(struct daemon *d, const struct watch_filter *filter);
void watch_close(struct watcher *watcher);
/* Waits for the next verdict. Returns 1, 0 when the time is over, -ESHUTDOWN when the daemon stops. */
int watch_next(struct watcher *watcher, unsigned timeout_ms, struct watched *out);
/* How many verdicts this watcher was too slow for, since it was last asked. */
uint64_t watch_take_lost(struct watcher *watcher);
/* The latest verdicts on sources with (source & mask) == addr that any watcher has been shown, latest first. Returns how many. */
unsigned watch_recent(struct daemon *d, const struct sluice_addr *mask, const struct sluice_addr *addr,
	struct watched *out, unsigned max);

/* --- pure ---------------------------------------------------------------------------------------------------------------- */
/* The smallest watch of the gate that shows each of them what it wants. */
void watch_merge(const struct watch_filter *const *filters, unsigned count, struct sluice_watch *out);
bool watch_matches(const struct watch_filter *filter, const struct sluice_event *event);
/* Of a verdict that the gate shows with one chance, `filter` wants a smaller one: does `random` let it see this? */
bool watch_is_in_sample(const struct watch_filter *filter, const struct sluice_event *event, uint32_t random);
/* The threshold of a sample (0 < share <= 1), and how many verdicts one that is shown stands for. */
uint32_t watch_threshold(double share);
double watch_stands_for(uint32_t threshold);
/* The mask of the first `len` bits. */
struct sluice_addr watch_mask(unsigned len);
enum watch_action watch_action_of(unsigned reason);
const char *watch_action_name(enum watch_action action);

#endif
