/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate on several CPUs at once; see lanes.h.
 *
 * Each lane is a thread that is bound to a CPU, with a wrapper and frames of its own before the one gate. In a round every lane runs alone,
 * then all run together from a barrier on; the empty program is timed beside both.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "gate.skel.h"
#include "lanes.h"
#include "restore.skel.h"

#define LANE_FRAMES 2048 /* twice that is what one reset of orders can undo */
#define ROUNDS_MAX 63

struct lane {
	struct bench *bench;
	struct restore_bpf *restore;
	struct bench_frame *frames;
	unsigned cpu, slot;
	pthread_barrier_t *barrier;
	double ns;
};

static void lane_open(struct lane *lane, struct bench *bench, unsigned cpu)
{
	int gate = bench->gate.prog, empty;
	__u32 slot = BENCH_SLOT_GATE;

	lane->bench = bench;
	lane->cpu = cpu;
	lane->restore = restore_bpf__open_and_load();
	if (!lane->restore)
		bench_die("cannot load a wrapper for CPU %u: %s", cpu, strerror(errno));
	lane->frames = mmap(NULL, BENCH_FRAMES_MAX * sizeof(struct bench_frame), PROT_READ | PROT_WRITE, MAP_SHARED,
		bpf_map__fd(lane->restore->maps.frames), 0);
	if (lane->frames == MAP_FAILED)
		bench_die("cannot map the frames of CPU %u: %s", cpu, strerror(errno));
	empty = bpf_program__fd(lane->restore->progs.bench_empty);
	if (bpf_map_update_elem(bpf_map__fd(lane->restore->maps.programs), &slot, &gate, 0))
		bench_die("cannot put the gate into the array: %s", strerror(errno));
	slot = BENCH_SLOT_EMPTY;
	if (bpf_map_update_elem(bpf_map__fd(lane->restore->maps.programs), &slot, &empty, 0))
		bench_die("cannot put the empty program into the array: %s", strerror(errno));
}

static void lane_close(struct lane *lane)
{
	munmap(lane->frames, BENCH_FRAMES_MAX * sizeof(struct bench_frame));
	restore_bpf__destroy(lane->restore);
}

static void *lane_run(void *arg)
{
	struct lane *lane = arg;
	const struct bench_frame *frame = &lane->frames[0];
	LIBBPF_OPTS(
		bpf_test_run_opts, opts, .data_in = frame->bytes, .data_size_in = frame->len, .repeat = LANE_FRAMES);
	struct restore_bpf__bss *bss = lane->restore->bss;
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(lane->cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		bench_die("cannot run on CPU %u: %s", lane->cpu, strerror(errno));
	bss->slot = lane->slot;
	bss->mask = LANE_FRAMES - 1;
	bss->next = 0;
	bss->home = 0;
	bss->lost = 0;
	if (lane->barrier)
		pthread_barrier_wait(lane->barrier);
	if (bpf_prog_test_run_opts(bpf_program__fd(lane->restore->progs.bench_wrapper), &opts) || bss->lost)
		bench_die("a run on CPU %u failed: %s", lane->cpu, strerror(errno));
	lane->ns = opts.duration;
	return NULL;
}

/* Mean over the lanes, run one after another or all at once. */
static double run(struct lane *lanes, unsigned count, unsigned slot, bool together)
{
	pthread_barrier_t barrier;
	pthread_t threads[LANES_MAX];
	double sum = 0;

	pthread_barrier_init(&barrier, NULL, count);
	for (unsigned i = 0; i < count; i++) {
		lanes[i].slot = slot;
		lanes[i].barrier = together ? &barrier : NULL;
		if (pthread_create(&threads[i], NULL, lane_run, &lanes[i]))
			bench_die("cannot start a thread");
		if (!together)
			pthread_join(threads[i], NULL);
	}
	for (unsigned i = 0; i < count; i++) {
		if (together)
			pthread_join(threads[i], NULL);
		sum += lanes[i].ns;
	}
	pthread_barrier_destroy(&barrier);
	return sum / count;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct lanes_figure lanes_measure(struct bench *bench, const struct path *path, unsigned rounds)
{
	struct lane lanes[LANES_MAX];
	double figures[2][ROUNDS_MAX];
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned count = cpus > LANES_MAX ? LANES_MAX : (unsigned)cpus;

	if (count * LANE_FRAMES > path->frames)
		count = path->frames / LANE_FRAMES;
	if (rounds > ROUNDS_MAX)
		rounds = ROUNDS_MAX;
	for (unsigned i = 0; i < count; i++) {
		lane_open(&lanes[i], bench, i);
		memcpy(lanes[i].frames, &bench->frames[i * LANE_FRAMES], LANE_FRAMES * sizeof(struct bench_frame));
	}
	/* Round 0 only warms. Resets undo what was run since the last, which is the frames of all lanes in every case. */
	for (unsigned round = 0; round <= rounds; round++)
		for (unsigned together = 0; together < 2; together++) {
			double empty = run(lanes, count, BENCH_SLOT_EMPTY, together);

			gate_alive(&bench->gate);
			if (path->reset)
				path->reset(bench, round + together, 0, count * LANE_FRAMES);
			if (round)
				figures[together][round - 1] = run(lanes, count, BENCH_SLOT_GATE, together) - empty;
			else
				run(lanes, count, BENCH_SLOT_GATE, together);
		}
	for (unsigned i = 0; i < count; i++)
		lane_close(&lanes[i]);
	for (unsigned together = 0; together < 2; together++)
		qsort(figures[together], rounds, sizeof(double), compare);
	return (struct lanes_figure){
		.lanes = count, .alone = figures[0][rounds / 2], .together = figures[1][rounds / 2]};
}
