/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate on one CPU and on several at once: what they share costs all of them. */
#ifndef SLUICE_BENCH_LANES_H
#define SLUICE_BENCH_LANES_H

#include "paths.h"

#define LANES_MAX 64

/* ns per packet of one lane: alone, and while all others run the same path over frames of their own. */
struct lanes_figure {
	unsigned lanes;
	double alone, together; /* medians over the rounds, empty program subtracted */
};

/* `path` must be prepared; each lane takes its part of the path's frames. */
struct lanes_figure lanes_measure(struct bench *bench, const struct path *path, unsigned rounds);

#endif
