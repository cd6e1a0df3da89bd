/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate on one CPU and on several at once: what they share costs all of them. */
#ifndef SLUICE_BENCH_LANES_H
#define SLUICE_BENCH_LANES_H

#include "paths.h"

/* ns per packet of one lane, empty program subtracted: alone, and while all others run the same path over frames of their own. */
struct lanes_figure {
	unsigned lanes;
	struct figure alone, together;
	struct figure speedup; /* throughput of all lanes together over that of one alone, paired round by round */
	/* Between the first two CPUs, in the same rounds, because a host may move the CPUs of its guests: one word goes to and fro, and each adds
	 * to it as soon as the other has. From one addition to the next. 0 = there is one CPU.
	 */
	struct figure handover;
};

/* How many frames the path must have been prepared with: each lane takes its part of them. */
unsigned lanes_frames(const struct path *path);
/* Exits if a packet left with another reason than the path's. */
struct lanes_figure lanes_measure(struct bench *bench, const struct path *path, unsigned rounds);

#endif
