/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the bench shares with its BPF programs: the prepared frames and the slots of the program array. */
#ifndef SLUICE_BENCH_SLOTS_H
#define SLUICE_BENCH_SLOTS_H

#include <linux/types.h>

/* Ten cache lines hold the longest request of the bench (a browser's). */
#define BENCH_FRAME_BYTES 632
#define BENCH_FRAMES_MAX 65536 /* unless bench_open() was asked for more */

struct bench_frame {
	__u32 len;
	__u32 pad;
	__u8 bytes[BENCH_FRAME_BYTES];
};
_Static_assert(sizeof(struct bench_frame) == 640, "frames start on cache lines");

/* Map "programs": what the wrapper ends in. Stages follow the gate, one slot each. */
#define BENCH_SLOT_EMPTY 0
#define BENCH_SLOT_GATE 1
#define BENCH_SLOT_STAGE 2
#define BENCH_SLOTS 64

#endif
