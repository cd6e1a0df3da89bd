/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The watchers of verdicts, and the thread that serves them. Opened by the routes of control_events.c, control_top.c.
 *
 * While nobody watches, the thread sleeps and the gate tests one bit per packet. While somebody does, the thread merges all filters into the
 * gate's one watch, renews its lease and hands each verdict to the queues of those who want it. A queue that is full counts what it
 * loses. Verdicts beyond WATCH_PER_SECOND are thinned out in the gate: to look at a flood must not cost more than the flood.
 */
#include "daemon/watch.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "common/timefmt.h"

#define QUEUE_EVENTS 4096 /* a fifth of a second of WATCH_PER_SECOND */
#define HISTORY_EVENTS 4096
#define BATCH_EVENTS 512 /* taken from the ring in one go */
#define TICK_MS 100
#define TICKS_PER_S (1000 / TICK_MS)
/* Taken from the ring in a tick, for all watchers and for none: filters that share little make the gate show what nobody wants. */
#define TAKEN_PER_TICK (2 * WATCH_PER_SECOND / TICKS_PER_S)
#define NS_PER_MS 1000000ULL
#define LEASE_NS 3000000000ULL /* so long a killed daemon's watch goes on */
#define RENEW_NS 1000000000ULL

struct watcher {
	struct watch *watch;
	struct watch_filter filter; /* its threshold moves below the one asked for */
	uint32_t threshold_max;     /* asked for */
	uint64_t since_mono;        /* older verdicts were for those before */
	unsigned shown;             /* in this tick */
	pthread_cond_t ready;
	uint64_t lost;
	unsigned head, count;
	struct watched queue[QUEUE_EVENTS];
};

struct watch {
	struct daemon *d;
	struct ring_buffer *ring;
	pthread_t thread;
	pthread_mutex_t lock; /* of everything below */
	pthread_cond_t changed;
	bool stopping;
	bool publish; /* the merged watch has changed */
	struct watcher *watchers[WATCH_MAX];
	unsigned count;
	unsigned batch;
	unsigned taken;     /* in this tick */
	uint32_t threshold; /* the gate is asked for no larger sample */
	uint64_t renew_mono, tick_mono;
	uint32_t random;
	struct watched history[HISTORY_EVENTS];
	uint64_t history_count; /* ever */
};

/* --- pure ---------------------------------------------------------------------------------------------------------------- */
struct sluice_addr watch_mask(unsigned len)
{
	return (struct sluice_addr){
		.hi = len >= 64 ? ~0ULL
			: len   ? ~0ULL << (64 - len)
				: 0,
		.lo = len >= 128   ? ~0ULL
			: len > 64 ? ~0ULL << (128 - len)
				   : 0,
	};
}

static bool is_within(const struct sluice_addr *source, const struct sluice_addr *mask, const struct sluice_addr *addr)
{
	return (source->hi & mask->hi) == addr->hi && (source->lo & mask->lo) == addr->lo;
}

void watch_merge(const struct watch_filter *const *filters, unsigned count, struct sluice_watch *out)
{
	memset(out, 0, sizeof(*out));
	for (unsigned i = 0; i < count; i++) {
		const struct watch_filter *filter = filters[i];

		out->reasons |= filter->reasons;
		if (filter->threshold > out->threshold)
			out->threshold = filter->threshold;
		if (i == 0) {
			out->mask = filter->mask;
			out->addr = filter->addr;
			continue;
		}
		/* The bits that all of them ask for, and in which they agree. */
		out->mask.hi &= filter->mask.hi & ~(out->addr.hi ^ filter->addr.hi);
		out->mask.lo &= filter->mask.lo & ~(out->addr.lo ^ filter->addr.lo);
		out->addr.hi &= out->mask.hi;
		out->addr.lo &= out->mask.lo;
	}
}

bool watch_matches(const struct watch_filter *filter, const struct sluice_event *event)
{
	return event->reason < SLUICE_REASON_COUNT && (filter->reasons >> event->reason & 1) &&
		is_within(&event->source, &filter->mask, &filter->addr) &&
		(!filter->sale || event->sale == filter->sale) && (!filter->door || event->door == filter->door);
}

bool watch_is_in_sample(const struct watch_filter *filter, const struct sluice_event *event, uint32_t random)
{
	/* A number from 0 to the gate's threshold, as evenly spread as `random` is. */
	return filter->threshold >= event->threshold ||
		(uint64_t)random * ((uint64_t)event->threshold + 1) >> 32 <= filter->threshold;
}

uint32_t watch_threshold(double share)
{
	double chances = share * 4294967296.0;

	return chances >= 4294967296.0 ? WATCH_EVERY : chances < 1 ? 0 : (uint32_t)(chances - 1);
}

double watch_stands_for(uint32_t threshold)
{
	return 4294967296.0 / ((double)threshold + 1);
}

enum watch_action watch_action_of(unsigned reason)
{
	switch (reason) {
	case SLUICE_REASON_SYN_COOKIE:
	case SLUICE_REASON_LEFTOVER:
	case SLUICE_REASON_BARE_ACK:
	case SLUICE_REASON_LEFTOVER_UNKNOWN:
	case SLUICE_REASON_RST_STRAY:
		return WATCH_HANDSHAKE;
	default:
		return reason_action(reason) == SLUICE_ACTION_PASS ? WATCH_PASSED : WATCH_REFUSED;
	}
}

const char *watch_action_name(enum watch_action action)
{
	static const char *const names[] = {
		[WATCH_PASSED] = "passed", [WATCH_REFUSED] = "refused", [WATCH_HANDSHAKE] = "handshake"};

	return names[action];
}

/* --- the gate's watch; under the lock -------------------------------------------------------------------------------------- */
static void set_flag(struct watch *watch, bool on)
{
	__u32 *flags = &watch->d->maps.control->flags;

	if (on)
		__atomic_fetch_or(flags, SLUICE_CONTROL_WATCH, __ATOMIC_SEQ_CST);
	else
		__atomic_fetch_and(flags, ~SLUICE_CONTROL_WATCH, __ATOMIC_SEQ_CST);
}

static void publish(struct watch *watch, uint64_t now)
{
	const struct watch_filter *filters[WATCH_MAX];
	struct sluice_watch asked;
	__u32 zero = 0;
	int err;

	watch->publish = false;
	watch->renew_mono = now + RENEW_NS;
	if (!watch->count) {
		set_flag(watch, false);
		return;
	}
	for (unsigned i = 0; i < watch->count; i++)
		filters[i] = &watch->watchers[i]->filter;
	watch_merge(filters, watch->count, &asked);
	asked.until_mono = now + LEASE_NS;
	if (asked.threshold > watch->threshold)
		asked.threshold = watch->threshold;
	err = bpf_map_update_elem(watch->d->maps.watch, &zero, &asked, BPF_ANY);
	if (err)
		log_error("cannot ask the gate for verdicts: %s", strerror(-err));
	set_flag(watch, !err);
}

/* xorshift32 (Marsaglia): a sample of a sample needs no secret. */
static uint32_t next_random(struct watch *watch)
{
	watch->random ^= watch->random << 13;
	watch->random ^= watch->random >> 17;
	watch->random ^= watch->random << 5;
	return watch->random;
}

static void enqueue(struct watcher *watcher, const struct watched *watched)
{
	if (watcher->count == QUEUE_EVENTS) {
		watcher->lost++;
		return;
	}
	watcher->queue[(watcher->head + watcher->count++) % QUEUE_EVENTS] = *watched;
	pthread_cond_signal(&watcher->ready);
}

/* Halves a sample that has given its share of this tick already. */
static void thin_out(struct watcher *watcher)
{
	if (++watcher->shown <= watcher->filter.per_second / TICKS_PER_S)
		return;
	watcher->shown = 0;
	watcher->filter.threshold /= 2;
	watcher->watch->publish = true;
}

/* Twice the sample if little came, up to `max`. */
static bool restore(uint32_t *threshold, uint32_t max, unsigned came, unsigned budget)
{
	if (*threshold >= max || came >= budget / 4)
		return false;
	*threshold = *threshold > max / 2 ? max : *threshold * 2 + 1;
	return true;
}

static void restore_samples(struct watch *watch)
{
	watch->publish |= restore(&watch->threshold, WATCH_EVERY, watch->taken, TAKEN_PER_TICK);
	watch->taken = 0;
	for (unsigned i = 0; i < watch->count; i++) {
		struct watcher *watcher = watch->watchers[i];

		watch->publish |= restore(&watcher->filter.threshold, watcher->threshold_max, watcher->shown,
			watcher->filter.per_second / TICKS_PER_S);
		watcher->shown = 0;
	}
}

static int on_event(void *arg, void *data, size_t size)
{
	struct watch *watch = arg;
	const struct sluice_event *event = data;
	struct watched watched;
	bool wanted = false;

	if (size < sizeof(*event))
		return 0;
	watched.event = *event;
	for (unsigned i = 0; i < watch->count; i++) {
		struct watcher *watcher = watch->watchers[i];
		uint32_t threshold = watcher->filter.threshold;

		if (event->mono < watcher->since_mono || !watch_matches(&watcher->filter, event) ||
			!watch_is_in_sample(&watcher->filter, event, next_random(watch)))
			continue;
		watched.stands_for = watch_stands_for(threshold < event->threshold ? threshold : event->threshold);
		enqueue(watcher, &watched);
		thin_out(watcher);
		wanted = true;
	}
	if (wanted) {
		watched.stands_for = watch_stands_for(event->threshold);
		watch->history[watch->history_count++ % HISTORY_EVENTS] = watched;
	}
	if (++watch->taken > TAKEN_PER_TICK) {
		watch->taken = 0;
		watch->threshold /= 2;
		watch->publish = true;
	}
	return ++watch->batch >= BATCH_EVENTS ? -EAGAIN : 0;
}

/* --- the thread ------------------------------------------------------------------------------------------------------------ */
/* One round. While the ring has more than a batch, the kernel does not wake who waits for it. */
static void serve(struct watch *watch)
{
	struct pollfd wake = {.fd = ring_buffer__epoll_fd(watch->ring), .events = POLLIN};
	bool more = watch->batch >= BATCH_EVENTS;
	uint64_t now = time_mono_ns();

	if (watch->publish || now >= watch->renew_mono)
		publish(watch, now);
	pthread_mutex_unlock(&watch->lock);
	poll(&wake, 1, more ? 0 : TICK_MS); /* also where the readers of the queues get the lock */
	pthread_mutex_lock(&watch->lock);
	watch->batch = 0;
	ring_buffer__consume(watch->ring);
	now = time_mono_ns();
	if (now >= watch->tick_mono) {
		watch->tick_mono = now + TICK_MS * NS_PER_MS;
		restore_samples(watch);
	}
}

static void *watch_run(void *arg)
{
	struct watch *watch = arg;

	pthread_setname_np(pthread_self(), "watch");
	pthread_mutex_lock(&watch->lock);
	while (!watch->stopping) {
		if (watch->count)
			serve(watch);
		else
			pthread_cond_wait(&watch->changed, &watch->lock);
	}
	pthread_mutex_unlock(&watch->lock);
	return NULL;
}

int watch_start(struct daemon *d)
{
	struct watch *watch = calloc(1, sizeof(*watch));
	int err;

	if (!watch)
		return -ENOMEM;
	watch->d = d;
	watch->random = (uint32_t)time_mono_ns() | 1;
	watch->threshold = WATCH_EVERY;
	pthread_mutex_init(&watch->lock, NULL);
	pthread_cond_init(&watch->changed, NULL);
	set_flag(watch, false);
	watch->ring = ring_buffer__new(d->maps.events, on_event, watch, NULL);
	err = watch->ring ? pthread_create(&watch->thread, NULL, watch_run, watch) : errno;
	if (!err) {
		d->watch = watch;
		return 0;
	}
	ring_buffer__free(watch->ring);
	free(watch);
	return -err;
}

void watch_stop(struct daemon *d)
{
	struct watch *watch = d->watch;

	if (!watch)
		return;
	pthread_mutex_lock(&watch->lock);
	watch->stopping = true;
	set_flag(watch, false);
	pthread_cond_signal(&watch->changed);
	for (unsigned i = 0; i < watch->count; i++)
		pthread_cond_signal(&watch->watchers[i]->ready);
	pthread_mutex_unlock(&watch->lock);
	pthread_join(watch->thread, NULL);
}

void watch_free(struct daemon *d)
{
	if (!d->watch)
		return;
	ring_buffer__free(d->watch->ring);
	pthread_cond_destroy(&d->watch->changed);
	pthread_mutex_destroy(&d->watch->lock);
	free(d->watch);
	d->watch = NULL;
}

/* --- watchers -------------------------------------------------------------------------------------------------------------- */
struct watcher *watch_open(struct daemon *d, const struct watch_filter *filter)
{
	struct watch *watch = d->watch;
	struct watcher *watcher = watch ? calloc(1, sizeof(*watcher)) : NULL;
	pthread_condattr_t clock;
	int err = 0;

	if (!watcher) {
		errno = watch ? ENOMEM : ESHUTDOWN;
		return NULL;
	}
	watcher->watch = watch;
	watcher->filter = *filter;
	watcher->threshold_max = filter->threshold;
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&watcher->ready, &clock);
	pthread_condattr_destroy(&clock);
	pthread_mutex_lock(&watch->lock);
	if (watch->stopping || watch->count == WATCH_MAX) {
		err = watch->stopping ? ESHUTDOWN : EUSERS;
	} else {
		uint64_t now = time_mono_ns();

		watcher->since_mono = now;
		watch->watchers[watch->count++] = watcher;
		publish(watch, now); /* what comes from now on is shown */
		pthread_cond_signal(&watch->changed);
	}
	pthread_mutex_unlock(&watch->lock);
	if (!err)
		return watcher;
	pthread_cond_destroy(&watcher->ready);
	free(watcher);
	errno = err;
	return NULL;
}

void watch_close(struct watcher *watcher)
{
	struct watch *watch = watcher->watch;
	unsigned i = 0;

	pthread_mutex_lock(&watch->lock);
	while (watch->watchers[i] != watcher)
		i++;
	watch->watchers[i] = watch->watchers[--watch->count];
	if (!watch->stopping)
		publish(watch, time_mono_ns());
	pthread_mutex_unlock(&watch->lock);
	pthread_cond_destroy(&watcher->ready);
	free(watcher);
}

int watch_next(struct watcher *watcher, unsigned timeout_ms, struct watched *out)
{
	struct watch *watch = watcher->watch;
	struct timespec until;
	int got = 0, err = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += (long)(timeout_ms % 1000) * (long)NS_PER_MS;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_nsec -= 1000000000L;
		until.tv_sec++;
	}
	pthread_mutex_lock(&watch->lock);
	while (!watcher->count && !watch->stopping && !err)
		err = pthread_cond_timedwait(&watcher->ready, &watch->lock, &until);
	if (watch->stopping) {
		got = -ESHUTDOWN;
	} else if (watcher->count) {
		*out = watcher->queue[watcher->head];
		watcher->head = (watcher->head + 1) % QUEUE_EVENTS;
		watcher->count--;
		got = 1;
	}
	pthread_mutex_unlock(&watch->lock);
	return got;
}

uint64_t watch_take_lost(struct watcher *watcher)
{
	uint64_t lost;

	pthread_mutex_lock(&watcher->watch->lock);
	lost = watcher->lost;
	watcher->lost = 0;
	pthread_mutex_unlock(&watcher->watch->lock);
	return lost;
}

unsigned watch_recent(struct daemon *d, const struct sluice_addr *mask, const struct sluice_addr *addr,
	struct watched *out, unsigned max)
{
	struct watch *watch = d->watch;
	uint64_t kept;
	unsigned found = 0;

	if (!watch)
		return 0;
	pthread_mutex_lock(&watch->lock);
	kept = watch->history_count < HISTORY_EVENTS ? watch->history_count : HISTORY_EVENTS;
	for (uint64_t i = 1; i <= kept && found < max; i++) {
		const struct watched *at = &watch->history[(watch->history_count - i) % HISTORY_EVENTS];

		if (is_within(&at->event.source, mask, addr))
			out[found++] = *at;
	}
	pthread_mutex_unlock(&watch->lock);
	return found;
}
