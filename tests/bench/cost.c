/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Load-time cost of the gate; see cost.h. */
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "common/config.h"
#include "cost.h"
#include "gate.skel.h"
#include "runner.h"

#define VERIFIED_INSNS_MAX 300000
#define MAPS_BYTES_MAX (256 << 20)
#define STACK_BYTES_MAX 512 /* the kernel's MAX_BPF_STACK, over a chain of calls */
#define STACK_ALIGN 32      /* what kernel 6.1 rounds a function's frame up to; newer ones take 16 with the JIT */
#define LOG_BYTES (1 << 20)
#define LOG_STATS 4 /* the verifier's log level that has statistics only */
#define SUBPROGRAMS_MAX 64

/* A program's functions and who calls whom, from its instructions. */
struct calls {
	unsigned count;
	unsigned start[SUBPROGRAMS_MAX];
	unsigned depth[SUBPROGRAMS_MAX]; /* of the frame, from the verifier */
	bool edge[SUBPROGRAMS_MAX][SUBPROGRAMS_MAX];
};

static bool insn_target(const struct bpf_insn *insns, unsigned at, unsigned *target)
{
	const struct bpf_insn *insn = &insns[at];
	bool is_call = insn->code == (BPF_JMP | BPF_CALL) && insn->src_reg == BPF_PSEUDO_CALL;
	bool is_callback = insn->code == (BPF_LD | BPF_IMM | BPF_DW) && insn->src_reg == BPF_PSEUDO_FUNC;

	*target = at + insn->imm + 1;
	return is_call || is_callback;
}

static unsigned calls_index(const struct calls *calls, unsigned at)
{
	unsigned index = 0;

	while (index + 1 < calls->count && calls->start[index + 1] <= at)
		index++;
	return index;
}

static void calls_add(struct calls *calls, unsigned start)
{
	unsigned at = calls->count;

	for (unsigned i = 0; i < calls->count; i++)
		if (calls->start[i] == start)
			return;
	if (calls->count == SUBPROGRAMS_MAX)
		bench_die("a program has more than %d functions", SUBPROGRAMS_MAX);
	for (; at > 0 && calls->start[at - 1] > start; at--)
		calls->start[at] = calls->start[at - 1];
	calls->start[at] = start;
	calls->count++;
}

/* The verifier numbers functions by where they start, and prints their frames in that order. */
static void calls_read(struct calls *calls, const struct bpf_insn *insns, size_t count)
{
	unsigned target;

	memset(calls, 0, sizeof(*calls));
	calls_add(calls, 0);
	for (size_t i = 0; i < count; i++)
		if (insn_target(insns, i, &target))
			calls_add(calls, target);
	for (size_t i = 0; i < count; i++)
		if (insn_target(insns, i, &target))
			calls->edge[calls_index(calls, i)][calls_index(calls, target)] = true;
}

static unsigned calls_deepest(const struct calls *calls, unsigned from)
{
	unsigned deepest = 0;

	for (unsigned to = 0; to < calls->count; to++) {
		unsigned depth = calls->edge[from][to] ? calls_deepest(calls, to) : 0;

		if (depth > deepest)
			deepest = depth;
	}
	return deepest + (calls->depth[from] + STACK_ALIGN - 1) / STACK_ALIGN * STACK_ALIGN;
}

/* Reads "stack depth 96+40+0". */
static bool calls_read_depths(struct calls *calls, const char *log)
{
	const char *at = strstr(log, "stack depth ");
	unsigned i = 0;
	char *end;

	if (!at)
		return false;
	for (at += strlen("stack depth "); i < calls->count; at = end + 1) {
		calls->depth[i++] = strtoul(at, &end, 10);
		if (*end != '+')
			break;
	}
	return i == calls->count;
}

static json_t *measure_program(struct bpf_program *program, const char *log, bool *ok)
{
	struct bpf_prog_info info = {0};
	__u32 length = sizeof(info);
	struct calls calls;
	unsigned stack;

	if (bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &length))
		bench_die("cannot ask for %s: %s", bpf_program__name(program), strerror(errno));
	calls_read(&calls, bpf_program__insns(program), bpf_program__insn_cnt(program));
	if (!calls_read_depths(&calls, log))
		bench_die("the verifier's log of %s has no stack depth for each of %u functions:\n%s",
			bpf_program__name(program), calls.count, log);
	stack = calls_deepest(&calls, 0);
	if (info.verified_insns >= VERIFIED_INSNS_MAX || stack > STACK_BYTES_MAX)
		*ok = false;
	return json_pack("{s:s, s:I, s:I, s:i, s:I, s:I, s:I, s:b}", "name", bpf_program__name(program),
		"verified_insns", (json_int_t)info.verified_insns, "stack_bytes", (json_int_t)stack, "functions",
		(int)calls.count, "insns", (json_int_t)bpf_program__insn_cnt(program), "xlated_bytes",
		(json_int_t)info.xlated_prog_len, "jited_bytes", (json_int_t)info.jited_prog_len, "ok",
		info.verified_insns < VERIFIED_INSNS_MAX && stack <= STACK_BYTES_MAX);
}

/* What the kernel accounts for a map. Without CONFIG_MEMCG it is an estimate of the same quantity. */
static long long map_bytes(int fd)
{
	char path[64], line[128];
	long long bytes = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "r");
	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "memlock: %lld", &bytes) == 1)
			break;
	fclose(file);
	return bytes;
}

static void measure_maps(struct gate_bpf *skel, json_t *report, bool *ok)
{
	json_t *rows = json_array();
	long long total = 0;
	struct bpf_map *map;

	bpf_object__for_each_map(map, skel->obj)
	{
		long long bytes = map_bytes(bpf_map__fd(map));

		if (bytes < 0)
			bench_die("the kernel does not tell the memory of map %s", bpf_map__name(map));
		total += bytes;
		json_array_append_new(rows,
			json_pack("{s:s, s:I, s:I}", "name", bpf_map__name(map), "entries",
				(json_int_t)bpf_map__max_entries(map), "bytes", (json_int_t)bytes));
	}
	json_object_set_new(report, "maps", rows);
	json_object_set_new(report, "maps_bytes", json_integer(total));
	json_object_set_new(report, "maps_bytes_limit", json_integer(MAPS_BYTES_MAX));
	if (total > MAPS_BYTES_MAX)
		*ok = false;
}

/* As the loader sizes them. */
static void set_default_sizes(struct gate_bpf *skel)
{
	struct config config;

	config_defaults(&config);
	bpf_map__set_max_entries(skel->maps.admissions, config.gate.max_admissions);
	bpf_map__set_max_entries(skel->maps.buyers, config.gate.max_admissions);
	bpf_map__set_max_entries(skel->maps.issued, config.gate.max_tokens);
	bpf_map__set_max_entries(skel->maps.ring, config.gate.ring_bytes);
	bpf_map__set_max_entries(skel->maps.rates, config_rate_sets(config.gate.max_sources));
	bpf_map__set_max_entries(skel->maps.lists, config.gate.max_prefixes);
}

bool cost_measure(json_t *report)
{
	struct gate_bpf *skel = gate_bpf__open();
	char *logs[2] = {calloc(1, LOG_BYTES), calloc(1, LOG_BYTES)};
	json_t *rows = json_array();
	bool ok = true;

	if (!skel || !logs[0] || !logs[1])
		bench_die("cannot open the gate: %s", strerror(errno));
	struct bpf_program *programs[2] = {skel->progs.sluice_gate, skel->progs.sluice_door};

	set_default_sizes(skel);
	for (int i = 0; i < 2; i++) {
		bpf_program__set_log_level(programs[i], LOG_STATS);
		bpf_program__set_log_buf(programs[i], logs[i], LOG_BYTES);
	}
	if (gate_bpf__load(skel))
		bench_die("cannot load the gate at the default config: %s", strerror(errno));
	for (int i = 0; i < 2; i++)
		json_array_append_new(rows, measure_program(programs[i], logs[i], &ok));
	json_object_set_new(report, "programs", rows);
	json_object_set_new(report, "verified_insns_limit", json_integer(VERIFIED_INSNS_MAX));
	json_object_set_new(report, "stack_bytes_limit", json_integer(STACK_BYTES_MAX));
	measure_maps(skel, report, &ok);
	gate_bpf__destroy(skel);
	free(logs[0]);
	free(logs[1]);
	return ok;
}
