/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate on several CPUs at once; see lanes.h.
 *
 * Each lane is a thread that is bound to a CPU, with a wrapper and frames of its own before the one gate. In a round every lane runs alone,
 * then all run together, from when the last has come; the empty program is timed beside both. What is timed comes right after a run of the same that is
 * not, from one system call to the next: what a CPU has to fetch from memory when it comes from elsewhere is no matter of how many there are,
 * and would hide what they fetch from each other.
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

#include "common/timefmt.h"
#include "gate.skel.h"
#include "lanes.h"
#include "restore.skel.h"

#define LANES_MAX 64
#define LANES_ONCE_MAX 32 /* their records stay in the ring until the next reset */
#define WARM_PACKETS 2048
#define TIMED_PACKETS 8192
/* A frame that may be used once is warmed by others of its kind; both sets, and what is kept of them, stay in the second-level cache. */
#define ONCE_PACKETS 256
#define ONCE_FRAMES (2 * ONCE_PACKETS)
#define LANE_FRAMES_MAX ONCE_FRAMES

struct lane {
	struct bench *bench;
	const struct path *path;
	struct restore_bpf *restore;
	struct bench_frame *frames;
	unsigned cpu, frame_count, warm_packets, timed_packets;
	unsigned slot, round; /* of the next run */
	int tap; /* keeps the wrapper in use: a run that waits leaves its CPU to others, and comes back to cold caches */
	unsigned *meetings; /* of the lanes that run together: how many have come to each; NULL = alone */
	unsigned lanes;
	double ns;
};

/* Waits until all have come. Whoever slept would start some ten us late, which is much of a short run. */
static void meet(unsigned *come, unsigned all)
{
	__atomic_fetch_add(come, 1, __ATOMIC_ACQ_REL);
	while (__atomic_load_n(come, __ATOMIC_ACQUIRE) < all)
		;
}

static void bind_to(unsigned cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		bench_die("cannot run on CPU %u: %s", cpu, strerror(errno));
}

static unsigned frames_of(const struct path *path)
{
	return path->is_once ? ONCE_FRAMES : PATH_FRAMES_WARM;
}

static unsigned lanes_of(const struct path *path)
{
	unsigned most = path->is_once ? LANES_ONCE_MAX : LANES_MAX;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	return cpus > (long)most ? most : (unsigned)cpus;
}

unsigned lanes_frames(const struct path *path)
{
	return lanes_of(path) * frames_of(path);
}

/* The frames are copied from the bench's, where the path has put those of all lanes. */
static void lane_open(struct lane *lane, struct bench *bench, const struct path *path, unsigned cpu)
{
	int gate = bench->gate.prog, empty;
	__u32 slot = BENCH_SLOT_GATE;

	*lane = (struct lane){.bench = bench,
		.path = path,
		.cpu = cpu,
		.frame_count = frames_of(path),
		.warm_packets = path->is_once ? ONCE_PACKETS : WARM_PACKETS,
		.timed_packets = path->is_once ? ONCE_PACKETS : TIMED_PACKETS};
	lane->restore = restore_bpf__open();
	if (!lane->restore || bpf_map__set_max_entries(lane->restore->maps.frames, LANE_FRAMES_MAX) ||
		restore_bpf__load(lane->restore))
		bench_die("cannot load a wrapper for CPU %u: %s", cpu, strerror(errno));
	lane->frames = mmap(NULL, LANE_FRAMES_MAX * sizeof(struct bench_frame), PROT_READ | PROT_WRITE, MAP_SHARED,
		bpf_map__fd(lane->restore->maps.frames), 0);
	if (lane->frames == MAP_FAILED)
		bench_die("cannot map the frames of CPU %u: %s", cpu, strerror(errno));
	lane->tap = bench_keep_in_use(bpf_program__fd(lane->restore->progs.bench_wrapper));
	memcpy(lane->frames, &bench->frames[cpu * lane->frame_count], lane->frame_count * sizeof(struct bench_frame));
	empty = bpf_program__fd(lane->restore->progs.bench_empty);
	if (bpf_map_update_elem(bpf_map__fd(lane->restore->maps.programs), &slot, &gate, 0))
		bench_die("cannot put the gate into the array: %s", strerror(errno));
	slot = BENCH_SLOT_EMPTY;
	if (bpf_map_update_elem(bpf_map__fd(lane->restore->maps.programs), &slot, &empty, 0))
		bench_die("cannot put the empty program into the array: %s", strerror(errno));
}

static void lane_close(struct lane *lane)
{
	if (lane->tap >= 0)
		close(lane->tap);
	munmap(lane->frames, LANE_FRAMES_MAX * sizeof(struct bench_frame));
	restore_bpf__destroy(lane->restore);
}

/* ns per packet of frames `first`, `first` + 1 …, round and round. */
static double lane_test(struct lane *lane, unsigned first, unsigned packets)
{
	const struct bench_frame *frame = &lane->frames[0];
	LIBBPF_OPTS(
		bpf_test_run_opts, opts, .data_in = frame->bytes, .data_size_in = frame->len, .repeat = (int)packets);
	struct restore_bpf__bss *bss = lane->restore->bss;

	bss->slot = lane->slot;
	bss->mask = lane->frame_count - 1;
	bss->next = first;
	bss->home = 0;
	bss->lost = 0;
	if (bpf_prog_test_run_opts(bpf_program__fd(lane->restore->progs.bench_wrapper), &opts) || bss->lost)
		bench_die("a run on CPU %u failed: %s", lane->cpu, strerror(errno));
	return opts.duration;
}

static void *lane_run(void *arg)
{
	struct lane *lane = arg;

	bind_to(lane->cpu);
	if (lane->meetings)
		meet(&lane->meetings[0], lane->lanes);
	lane_test(lane, 0, lane->warm_packets);
	if (lane->meetings)
		meet(&lane->meetings[1], lane->lanes);
	lane->ns = lane_test(lane, lane->warm_packets, lane->timed_packets);
	return NULL;
}

/* On the lane's own CPU: what is freed there is taken there the next time. */
static void *lane_reset(void *arg)
{
	struct lane *lane = arg;

	bind_to(lane->cpu);
	lane->path->reset(lane->bench, lane->round, lane->cpu * lane->frame_count, lane->frame_count);
	return NULL;
}

/* All lanes, one after another or all at once. Returns the mean of what they took. */
static double run(struct lane *lanes, unsigned count, void *(*body)(void *), bool together)
{
	pthread_t threads[LANES_MAX];
	unsigned meetings[2] = {0};
	double sum = 0;

	for (unsigned i = 0; i < count; i++) {
		lanes[i].meetings = together ? meetings : NULL;
		lanes[i].lanes = count;
		if (pthread_create(&threads[i], NULL, body, &lanes[i]))
			bench_die("cannot start a thread");
		if (!together)
			pthread_join(threads[i], NULL);
	}
	for (unsigned i = 0; i < count; i++) {
		if (together)
			pthread_join(threads[i], NULL);
		sum += lanes[i].ns;
	}
	return sum / count;
}

/* --- one word ----------------------------------------------------------------------------------------------------------------- */
#define HANDOVERS 20000

/* A line of its own, and none beside it that a prefetcher would bring along. */
struct word {
	uint64_t value __attribute__((aligned(256)));
	uint8_t end __attribute__((aligned(256)));
};

struct hand {
	struct word *word;
	unsigned *come;
	unsigned cpu;
	uint64_t ns;
};

/* Each adds when the other has. */
static void *pass_on(void *arg)
{
	struct hand *hand = arg;
	uint64_t *value = &hand->word->value, began;

	bind_to(hand->cpu);
	meet(hand->come, 2);
	began = time_mono_ns();
	for (uint64_t turn = hand->cpu; turn < HANDOVERS; turn += 2) {
		while (__atomic_load_n(value, __ATOMIC_ACQUIRE) != turn)
			;
		__atomic_fetch_add(value, 1, __ATOMIC_SEQ_CST);
	}
	hand->ns = time_mono_ns() - began;
	return NULL;
}

/* ns from one CPU's addition to the other's next. */
static double hand_over(void)
{
	struct word word = {.value = 0};
	struct hand hands[2];
	pthread_t threads[2];
	unsigned come = 0;

	for (unsigned i = 0; i < 2; i++) {
		hands[i] = (struct hand){.word = &word, .come = &come, .cpu = i};
		if (pthread_create(&threads[i], NULL, pass_on, &hands[i]))
			bench_die("cannot start a thread");
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	return (double)(hands[0].ns > hands[1].ns ? hands[0].ns : hands[1].ns) / HANDOVERS;
}

/* --- rounds ------------------------------------------------------------------------------------------------------------------- */
/* ns per packet above the empty program. */
static double run_round(struct lane *lanes, unsigned count, unsigned round, bool together)
{
	const struct path *path = lanes->path;
	double empty;

	for (unsigned i = 0; i < count; i++) {
		lanes[i].slot = BENCH_SLOT_EMPTY;
		lanes[i].round = round + together; /* only the very first has no round before it */
	}
	empty = run(lanes, count, lane_run, together);
	if (path->reset)
		run(lanes, count, lane_reset, false);
	gate_alive(&lanes->bench->gate);
	for (unsigned i = 0; i < count; i++)
		lanes[i].slot = BENCH_SLOT_GATE;
	return run(lanes, count, lane_run, together) - empty;
}

struct lanes_figure lanes_measure(struct bench *bench, const struct path *path, unsigned rounds)
{
	struct lanes_figure figure = {.lanes = lanes_of(path), .count = rounds};
	struct lane lanes[LANES_MAX];
	unsigned count = figure.lanes;
	uint64_t before, seen, wanted;

	if (rounds > LANES_ROUNDS_MAX || lanes_frames(path) > path->frames)
		bench_die("path %s: %u rounds, %u frames for %u CPUs", path->id, rounds, path->frames, count);
	for (unsigned i = 0; i < count; i++)
		lane_open(&lanes[i], bench, path, i);
	run_round(lanes, count, 0, false);
	run_round(lanes, count, 0, true);
	before = bench_counter(bench, 0, path->reason);
	for (unsigned round = 0; round < rounds; round++) {
		figure.rounds[round].alone = run_round(lanes, count, round + 1, false);
		figure.rounds[round].handover = count > 1 ? hand_over() : 0;
		figure.rounds[round].together = run_round(lanes, count, round + 1, true);
	}
	wanted = 2ULL * rounds * count * (lanes->warm_packets + lanes->timed_packets);
	seen = bench_counter(bench, 0, path->reason) - before;
	if (seen != wanted)
		bench_die("path %s on %u CPUs: %llu of %llu packets left with another reason", path->id, count,
			(unsigned long long)(wanted - seen), (unsigned long long)wanted);
	for (unsigned i = 0; i < count; i++)
		lane_close(&lanes[i]);
	return figure;
}
