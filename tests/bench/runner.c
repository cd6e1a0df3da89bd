/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The bench's runs; see runner.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "common/config.h"
#include "restore.skel.h"
#include "stages.skel.h"
#include "gate.skel.h"
#include "runner.h"

#define ROUNDS 63
#define ROUNDS_QUICK 5
#define PRIORITY (-20)

const struct stage bench_steps[] = {
	{"step_0_parse", "parse: Ethernet, IP, service, TCP"},
	{"step_1_lists", "deny and allow list"},
	{"step_2_cookie", "SYN cookie proves the source"},
	{"step_3_muted", "is the source muted?"},
	{"step_4_socket", "is there a socket?"},
	{"step_5_rates", "clock, rates of source and prefix"},
	{"step_6_token", "request line, base64url, SipHash"},
	{"step_7_judge", "the rest of the judge"},
};
const unsigned bench_step_count = sizeof(bench_steps) / sizeof(bench_steps[0]);

const struct stage bench_operations[] = {
	{"op_array", "lookup in an array of one"},
	{"op_jiffies", "bpf_jiffies64"},
	{"op_clock", "bpf_ktime_get_ns"},
	{"op_coarse_clock", "bpf_ktime_get_coarse_ns"},
	{"op_counter", "one counter row"},
	{"op_rate_hit", "rates: key is there"},
	{"op_rate_miss", "rates: key is not there"},
	{"op_rate_make", "rates: new key in a full set"},
	{"op_hash_insert_delete", "hash of 56-byte values: insert and delete"},
	{"op_ring", "ring: reserve and discard 64 bytes"},
	{"op_cookie_check", "bpf_tcp_raw_check_syncookie_ipv4, valid"},
	{"op_socket_lookup", "bpf_skc_lookup_tcp finds the listener, release"},
	{"op_store_300", "bpf_xdp_store_bytes of 300 bytes"},
	{"op_tail_16", "bpf_xdp_adjust_tail, 16 bytes off and (wrapper) on"},
	{"op_head_100", "bpf_xdp_adjust_head, 100 bytes on and (wrapper) off"},
	{"op_decode", "64 characters of base64url: load and decode"},
	{"op_siphash", "40 bytes of SipHash-2-4: load and hash"},
};
const unsigned bench_operation_count = sizeof(bench_operations) / sizeof(bench_operations[0]);

const struct sluice_limit bench_generous = {.interval_ns = 1, .tolerance_ns = 1ULL << 60};

void bench_die(const char *format, ...)
{
	va_list args;

	fputs("bench: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static void put_program(struct bench *bench, __u32 slot, int fd)
{
	if (bpf_map_update_elem(bpf_map__fd(bench->restore->maps.programs), &slot, &fd, 0))
		bench_die("cannot put a program into the array: %s", strerror(errno));
}

/* The kernel patches a dispatcher when an XDP program comes into use or goes out of it, and each test run would do that twice and wait for
 * RCU. Attached to an interface on which nothing ever arrives, the wrapper stays in use.
 */
int bench_keep_in_use(int program)
{
	struct ifreq request = {.ifr_name = "bench%d", .ifr_flags = IFF_TAP | IFF_NO_PI};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	if (fd >= 0 && !ioctl(fd, TUNSETIFF, &request))
		bpf_xdp_attach((int)if_nametoindex(request.ifr_name), program, XDP_FLAGS_SKB_MODE, NULL);
	return fd; /* without it all is slower and nothing else */
}

static void load_restore(struct bench *bench)
{
	bench->restore = restore_bpf__open();
	if (!bench->restore || bpf_map__set_max_entries(bench->restore->maps.frames, bench->frames_max) ||
		restore_bpf__load(bench->restore))
		bench_die("cannot load the wrapper with %u frames of %zu bytes: %s", bench->frames_max,
			sizeof(struct bench_frame), strerror(errno));
	bench->frames = mmap(NULL, bench->frames_max * sizeof(struct bench_frame), PROT_READ | PROT_WRITE, MAP_SHARED,
		bpf_map__fd(bench->restore->maps.frames), 0);
	if (bench->frames == MAP_FAILED)
		bench_die("cannot map the frames: %s", strerror(errno));
	bench->tap = bench_keep_in_use(bpf_program__fd(bench->restore->progs.bench_wrapper));
	put_program(bench, BENCH_SLOT_EMPTY, bpf_program__fd(bench->restore->progs.bench_empty));
	put_program(bench, BENCH_SLOT_GATE, bench->gate.prog);
}

static void put_stages(struct bench *bench, const struct stage *stages, unsigned count, __u32 slot)
{
	for (unsigned i = 0; i < count; i++) {
		struct bpf_program *program = bpf_object__find_program_by_name(bench->stages->obj, stages[i].name);

		if (!program)
			bench_die("no program %s", stages[i].name);
		put_program(bench, slot + i, bpf_program__fd(program));
	}
}

/* The stages work on the gate's own maps. */
static void load_stages(struct bench *bench)
{
	struct bpf_map *map;

	bench->stages = stages_bpf__open();
	if (!bench->stages)
		bench_die("cannot open the stages: %s", strerror(errno));
	bpf_object__for_each_map(map, bench->stages->obj)
	{
		struct bpf_map *of_gate = bpf_object__find_map_by_name(bench->gate.skel->obj, bpf_map__name(map));

		if (bpf_map__is_internal(map) || !of_gate)
			continue;
		if (bpf_map__reuse_fd(map, bpf_map__fd(of_gate)))
			bench_die("cannot share map %s: %s", bpf_map__name(map), strerror(errno));
	}
	if (stages_bpf__load(bench->stages))
		bench_die("cannot load the stages: %s", strerror(errno));
	put_stages(bench, bench_steps, bench_step_count, BENCH_SLOT_STAGE);
	put_stages(bench, bench_operations, bench_operation_count, BENCH_SLOT_STAGE + bench_step_count);
}

void bench_open(struct bench *bench, unsigned max_sources, unsigned frames_max)
{
	struct gate_sizes sizes = {0};
	struct config config;
	cpu_set_t cpus;

	memset(bench, 0, sizeof(*bench));
	bench->frames_max = frames_max ? frames_max : BENCH_FRAMES_MAX;
	/* One CPU for all of it: per-CPU free lists and the counters stay the same ones. */
	CPU_ZERO(&cpus);
	CPU_SET(sched_getcpu(), &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus) || setpriority(PRIO_PROCESS, 0, PRIORITY))
		bench_die("cannot keep one CPU to itself: %s", strerror(errno));

	config_defaults(&config);
	sizes.admissions = config.gate.max_admissions;
	sizes.buyers = config.gate.max_admissions;
	sizes.ring_bytes = config.gate.ring_bytes;
	sizes.rate_sets = config_rate_sets(max_sources ? max_sources : config.gate.max_sources);
	sizes.lists = config.gate.max_prefixes;
	gate_open(&bench->gate, &sizes);
	load_restore(bench);
	load_stages(bench);
	bench->rounds = ROUNDS;
	if (getenv("SLUICE_BENCH_QUICK"))
		bench->rounds = ROUNDS_QUICK;
}

void bench_close(struct bench *bench)
{
	if (bench->tap >= 0)
		close(bench->tap);
	munmap(bench->frames, bench->frames_max * sizeof(struct bench_frame));
	stages_bpf__destroy(bench->stages);
	restore_bpf__destroy(bench->restore);
	gate_close(&bench->gate);
}

/* Runs `slot` over the frames first, first + 1 … of the plan, round and round. */
static unsigned test_run(
	struct bench *bench, const struct run_plan *plan, unsigned slot, unsigned first, unsigned repeat)
{
	const struct bench_frame *frame = &bench->frames[0];
	LIBBPF_OPTS(
		bpf_test_run_opts, opts, .data_in = frame->bytes, .data_size_in = frame->len, .repeat = (int)repeat);
	struct restore_bpf__bss *bss = bench->restore->bss;

	bss->slot = slot;
	bss->mask = plan->frames - 1;
	bss->next = first;
	bss->home = 0;
	bss->lost = 0;
	gate_alive(&bench->gate);
	if (bpf_prog_test_run_opts(bpf_program__fd(bench->restore->progs.bench_wrapper), &opts))
		bench_die("BPF_PROG_TEST_RUN: %s", strerror(errno));
	if (bss->lost || bss->next != first + repeat)
		bench_die("%llu of %u repetitions did not reach the program", (unsigned long long)bss->lost, repeat);
	return opts.duration;
}

void bench_warm(struct bench *bench, const struct run_plan *plan)
{
	test_run(bench, plan, plan->slot, 0, plan->frames);
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* One round of one program: prepared, run, remembered. */
static unsigned run_round(
	struct bench *bench, const struct run_plan *plan, unsigned round, unsigned turn, unsigned packets)
{
	unsigned first = turn * packets % plan->frames, duration;

	if (plan->reset)
		plan->reset(bench, round, bench->last_first, bench->last_used);
	duration = test_run(bench, plan, plan->slot, first, packets);
	bench->last_first = first;
	bench->last_used = packets;
	return duration;
}

static struct figure figure_of(double *above, unsigned rounds)
{
	struct figure figure = {.is_valid = true};

	qsort(above, rounds, sizeof(above[0]), compare_doubles);
	figure.median = above[rounds / 2];
	figure.low = above[rounds / 10];
	figure.high = above[rounds - 1 - rounds / 10];
	return figure;
}

void bench_measure_set(struct bench *bench, const struct run_plan *plans, unsigned count, struct figure *figures)
{
	unsigned rounds = plans->rounds ? plans->rounds : bench->rounds, packets = BENCH_ROUND_PACKETS;
	static double above[BENCH_SET_MAX][ROUNDS];

	if (count > BENCH_SET_MAX)
		bench_die("%u programs at once", count);
	if (rounds > bench->rounds)
		rounds = bench->rounds;
	if (plans->is_once && plans->frames < packets)
		packets = plans->frames;
	for (unsigned round = 0; round < rounds; round++) {
		double empty = 0;

		/* Who goes first changes, so that what the first leaves in the caches favours neither. */
		if (!(round & 1))
			empty = test_run(bench, plans, BENCH_SLOT_EMPTY, round * packets % plans->frames, packets);
		for (unsigned i = 0; i < count; i++)
			above[i][round] = run_round(bench, &plans[i], round, round + i, packets);
		if (round & 1)
			empty = test_run(bench, plans, BENCH_SLOT_EMPTY, round * packets % plans->frames, packets);
		for (unsigned i = 0; i < count; i++)
			above[i][round] -= empty;
	}
	for (unsigned i = 0; i < count; i++) {
		figures[i] = figure_of(above[i], rounds);
		figures[i].packets = (uint64_t)rounds * packets;
	}
}

struct figure bench_measure(struct bench *bench, const struct run_plan *plan)
{
	struct figure figure;

	bench_measure_set(bench, plan, 1, &figure);
	return figure;
}

uint64_t bench_counter(struct bench *bench, unsigned service, enum sluice_reason reason)
{
	__u32 row = service * SLUICE_REASON_ROWS + reason;
	int cpus = libbpf_num_possible_cpus();
	struct sluice_counter *values;
	uint64_t packets = 0;

	values = calloc(cpus > 0 ? cpus : 1, sizeof(*values));
	if (cpus < 0 || !values || bpf_map_lookup_elem(bpf_map__fd(bench->gate.skel->maps.counters), &row, values))
		bench_die("cannot read the counters: %s", strerror(errno));
	for (int cpu = 0; cpu < cpus; cpu++)
		packets += values[cpu].packets;
	free(values);
	return packets;
}

void bench_put(struct bench *bench, unsigned index, const struct frame *frame)
{
	uint8_t bytes[FRAME_MAX];
	unsigned length = frame_write(frame, bytes);

	if (index >= bench->frames_max || length > BENCH_FRAME_BYTES)
		bench_die("frame %u of %u bytes does not fit", index, length);
	bench->frames[index].len = length;
	memcpy(bench->frames[index].bytes, bytes, length);
}

void bench_connect(struct bench *bench, struct frame *frame, const void *payload, unsigned length)
{
	uint8_t bytes[FRAME_MAX], answer[FRAME_MAX];
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = bytes, .data_out = answer, .data_size_out = sizeof(answer));
	struct parsed parsed;

	frame->flags = F_SYN;
	frame->payload_len = 0;
	opts.data_size_in = frame_write(frame, bytes);
	if (bpf_prog_test_run_opts(bench->gate.prog, &opts))
		bench_die("BPF_PROG_TEST_RUN of a SYN: %s", strerror(errno));
	parsed = frame_parse(answer, opts.data_size_out);
	if (parsed.wrong || parsed.flags != (F_SYN | F_ACK))
		bench_die(
			"no SYN-ACK for a SYN from %s: %s", frame->source, parsed.wrong ? parsed.wrong : "other flags");
	frame->flags = F_ACK | F_PSH;
	frame->ack = parsed.seq + 1;
	frame->seq += 1;
	frame->tcp_option_bytes = 0;
	frame->payload = payload;
	frame->payload_len = length;
}

void bench_limits(struct bench *bench, const struct sluice_limit *source, const struct sluice_limit *answer)
{
	struct sluice_limits limits = {0};
	__u32 zero = 0;

	limits.limit[SLUICE_LIMIT_SOURCE] = *source;
	limits.limit[SLUICE_LIMIT_PREFIX] = bench_generous;
	limits.limit[SLUICE_LIMIT_TOKEN] = bench_generous;
	limits.limit[SLUICE_LIMIT_ANSWER] = *answer;
	limits.limit[SLUICE_LIMIT_SYN_PREFIX] = bench_generous;
	if (bpf_map_update_elem(bpf_map__fd(bench->gate.skel->maps.limits), &zero, &limits, 0))
		bench_die("cannot set limits: %s", strerror(errno));
}
