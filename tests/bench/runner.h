/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Times one program over prepared frames, less an empty program, in the same run: both stand behind the same wrapper, which restores
 * the frame (restore.bpf.c), and they take turns round by round, so that a slower moment of the machine meets both.
 */
#ifndef SLUICE_BENCH_RUNNER_H
#define SLUICE_BENCH_RUNNER_H

#include "../packet/gate.h"
#include "slots.h"

struct restore_bpf;
struct stages_bpf;

/* Steps of the chain and single operations, in the order of their slots. */
struct stage {
	const char *name; /* of the program in stages.bpf.c */
	const char *text;
};
extern const struct stage bench_steps[], bench_operations[];
extern const unsigned bench_step_count, bench_operation_count;

struct bench {
	struct gate gate;
	struct restore_bpf *restore;
	struct stages_bpf *stages;
	struct bench_frame *frames; /* frames_max */
	unsigned frames_max;
	unsigned rounds;
	unsigned last_first, last_used; /* frames of the last round */
	int tap;                        /* interface that keeps the wrapper in use; see runner.c */
};

/* ns per packet above the empty program, over the rounds. */
struct figure {
	bool is_valid;
	double median, low, high; /* low and high: 10th and 90th percentile */
	uint64_t packets;         /* that went through the program under test */
};

struct run_plan {
	unsigned slot;   /* BENCH_SLOT_* */
	unsigned frames; /* from the first on; a power of two */
	bool is_once;    /* a frame may be used once between resets */
	unsigned rounds; /* 0 = the bench's */
	/* Before each round; may be NULL. `used` frames from `first` on were run since the last time; in round 0 it may be any number. */
	void (*reset)(struct bench *bench, unsigned round, unsigned first, unsigned used);
};

/* A round is short, so that the two sides of a difference are close in time. More frames than this take their turn over the rounds. */
#define BENCH_ROUND_PACKETS 4096

/* Loads gate, wrapper and stages with map sizes of the default config. Exits with a sentence on failure. 0 for sources or frames: the default. */
void bench_open(struct bench *bench, unsigned max_sources, unsigned frames_max);
void bench_close(struct bench *bench);
__attribute__((noreturn, format(printf, 1, 2))) void bench_die(const char *format, ...);

/* Runs the plan's program once over its frames, untimed. */
void bench_warm(struct bench *bench, const struct run_plan *plan);
struct figure bench_measure(struct bench *bench, const struct run_plan *plan);
/* The same for several programs over the same frames, taking turns, so that their figures may be compared with each other. Only slots
 * differ between the plans.
 */
void bench_measure_set(struct bench *bench, const struct run_plan *plans, unsigned count, struct figure *figures);
#define BENCH_SET_MAX 16
/* Packets of a service's row in the gate's counters. */
uint64_t bench_counter(struct bench *bench, unsigned service, enum sluice_reason reason);

/* Attaches a wrapper to an interface of its own, so that a test run of it need not wait for others; see runner.c. Returns what to close after it. */
int bench_keep_in_use(int program);

/* Writes a frame into a slot. */
void bench_put(struct bench *bench, unsigned index, const struct frame *frame);
/* Turns a SYN's description into the first data segment of its connection, with the cookie that the gate gives. */
void bench_connect(struct bench *bench, struct frame *frame, const void *payload, unsigned length);
/* A limit that is on, so that its code runs, but refuses nobody. */
extern const struct sluice_limit bench_generous;
void bench_limits(struct bench *bench, const struct sluice_limit *source, const struct sluice_limit *answer);

#endif
