/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* How fast the order writer can make orders durable, estimated from the batches it has acknowledged. Pure: times are arguments. */
#ifndef SLUICE_DAEMON_DRAIN_H
#define SLUICE_DAEMON_DRAIN_H

#include <stdbool.h>
#include <stdint.h>

/* A batch takes the writer a fixed time (its fsync) and a time for each order; both are fitted by least squares with fading memory, and what drains
 * is reckoned for the largest batch. Batches grow with the load, so the time of an order only shows when some of them were large:
 * until one had DRAIN_BATCH_MIN orders, the rate is not known.
 */
#define DRAIN_BATCH_MIN 64
#define DRAIN_FADE 0.99 /* what a batch counts for less, with each later one */

struct drain {
	double weight, orders, orders2, ns, orders_ns; /* faded sums over batches: 1, n, n^2, t, n*t */
	double per_second;                             /* 0 = not known */
	double commit_ns;                              /* faded mean from sending to acknowledgement; 0 = none yet */
	uint64_t answered_ns;                          /* when the last batch was */
};

/* A batch of `orders` that was sent at `sent_ns` has been acknowledged (both on one monotonic clock). `largest`: orders that a batch may have. */
void drain_acknowledged(struct drain *drain, unsigned orders, uint64_t sent_ns, uint64_t now_ns, unsigned largest);
/* What an earlier daemon found, until there is something newer. */
void drain_start_with(struct drain *drain, double per_second);

#define DRAIN_SLOW_NS 2000000000ULL /* unanswered, or not even sent, for so long: orders close */

/* Is the writer behind? `unanswered_ns`: age of the oldest question without an answer; `queued_ns`: how long the oldest admission has waited to be
 * sent, because more come than it drains; 0 = there is none. Once it is (`behind`), the queue must be half as old again, so that the gate does not
 * flutter.
 */
bool drain_is_behind(bool behind, uint64_t unanswered_ns, uint64_t queued_ns);

#endif
