/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* See drain.h. Called by batches.c for each acknowledgement, and by pipeline.c to see whether the writer keeps pace. */
#include "daemon/drain.h"

#define COMMIT_FADE 0.9
#define NS_PER_S 1e9

/* Time of one order and of a batch as such. Where batches were all alike, or noise has the upper hand, the whole time is laid to the orders: then what
 * comes out is too little rather than too much.
 */
static double rate_of(const struct drain *drain, unsigned largest)
{
	double mean_orders = drain->orders / drain->weight, mean_ns = drain->ns / drain->weight;
	double variance = drain->orders2 / drain->weight - mean_orders * mean_orders;
	double covariance = drain->orders_ns / drain->weight - mean_orders * mean_ns;
	double order_ns = variance > mean_orders ? covariance / variance : 0, batch_ns;

	if (order_ns <= 0 || order_ns > mean_ns / mean_orders)
		order_ns = mean_ns / mean_orders;
	batch_ns = mean_ns - order_ns * mean_orders;
	return largest * NS_PER_S / (batch_ns + order_ns * largest);
}

void drain_acknowledged(struct drain *drain, unsigned orders, uint64_t sent_ns, uint64_t now_ns, unsigned largest)
{
	/* The writer works at one batch after the other: this one's turn came when the one before was answered. */
	uint64_t began_ns = sent_ns > drain->answered_ns ? sent_ns : drain->answered_ns;
	double took_ns = now_ns > began_ns ? (double)(now_ns - began_ns) : 1;
	double commit_ns = now_ns > sent_ns ? (double)(now_ns - sent_ns) : 1;

	drain->answered_ns = now_ns;
	drain->commit_ns =
		drain->commit_ns ? drain->commit_ns * COMMIT_FADE + commit_ns * (1 - COMMIT_FADE) : commit_ns;
	drain->weight = drain->weight * DRAIN_FADE + 1;
	drain->orders = drain->orders * DRAIN_FADE + orders;
	drain->orders2 = drain->orders2 * DRAIN_FADE + (double)orders * orders;
	drain->ns = drain->ns * DRAIN_FADE + took_ns;
	drain->orders_ns = drain->orders_ns * DRAIN_FADE + orders * took_ns;
	if (orders >= DRAIN_BATCH_MIN)
		drain->per_second = rate_of(drain, largest);
}

void drain_start_with(struct drain *drain, double per_second)
{
	if (!drain->per_second)
		drain->per_second = per_second;
}

bool drain_is_behind(bool behind, uint64_t unanswered_ns, uint64_t queued_ns)
{
	return unanswered_ns > DRAIN_SLOW_NS || queued_ns > (behind ? DRAIN_SLOW_NS / 2 : DRAIN_SLOW_NS);
}
