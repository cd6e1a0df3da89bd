/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate on one CPU and on several at once: what they share costs all of them. */
#ifndef SLUICE_BENCH_LANES_H
#define SLUICE_BENCH_LANES_H

#include "paths.h"

#define LANES_ROUNDS_MAX 63

struct lanes_round {
	/* ns per packet of one lane, empty program subtracted: alone, and while all others run the same path over frames of their own */
	double alone, together;
	/* ns in which a cache line goes from the first CPU to the second, or back: both add to one word in turn, each as soon as the other has.
	 * Measured right before `together`, because a host may move the CPUs of its guests. 0 = there is one CPU.
	 */
	double handover;
};

struct lanes_figure {
	unsigned lanes, count;
	struct lanes_round rounds[LANES_ROUNDS_MAX];
};

/* How many frames the path must have been prepared with: each lane takes its part of them. */
unsigned lanes_frames(const struct path *path);
/* Exits if a packet left with another reason than the path's. */
struct lanes_figure lanes_measure(struct bench *bench, const struct path *path, unsigned rounds);

#endif
