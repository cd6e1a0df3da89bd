/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `make bench`, the gate's part: ns per packet for each path of the gate less an empty program in the same run, the same path cut off
 * after each stage, single kernel operations, and what loading the gate costs. Writes one JSON document to stdout; scripts/bench.sh
 * makes build/bench/report.json and the table of it.
 *
 * Exit code 1: a limit that does not depend on the moment is broken (verified instructions, stack, memory), or a packet left the gate
 * with another reason than the path that was to be timed. A missed time is marked, not failed.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cost.h"
#include "paths.h"

static json_t *figure_json(const struct figure *figure, double target_ns)
{
	json_t *json;

	if (!figure->is_valid)
		return json_null();
	json = json_pack("{s:f, s:f, s:f}", "median_ns", figure->median, "p10_ns", figure->low, "p90_ns", figure->high);
	if (target_ns > 0)
		json_object_set_new(json, "ok", json_boolean(figure->median <= target_ns));
	return json;
}

/* Times the path over its first `frames` frames, and makes sure that every packet took it. */
static struct figure measure_path(struct bench *bench, const struct path *path, unsigned frames)
{
	struct run_plan plan = {.slot = BENCH_SLOT_GATE,
		.frames = frames,
		.is_once = path->is_once,
		.rounds = path->rounds,
		.reset = path->reset};
	unsigned service = path->is_unprotected ? SLUICE_MAX_SERVICES : 0;
	uint64_t before = bench_counter(bench, service, path->reason), seen;
	struct figure figure = bench_measure(bench, &plan);

	seen = bench_counter(bench, service, path->reason) - before;
	if (seen != figure.packets)
		bench_die("path %s: %llu of %llu packets left with another reason", path->id,
			(unsigned long long)(figure.packets - seen), (unsigned long long)figure.packets);
	return figure;
}

static void warm_path(struct bench *bench, const struct path *path)
{
	struct run_plan plan = {.slot = BENCH_SLOT_GATE, .frames = path->frames};

	for (unsigned i = 0; i < path->warm; i++)
		bench_warm(bench, &plan);
}

/* Each path over one frame, over as many as stay in the cache, and over all it has. */
static json_t *run_path(struct bench *bench, const struct path *path)
{
	const struct {
		const char *name;
		unsigned frames;
		bool is_wanted;
	} columns[] = {
		{"hot", 1, !path->is_once && !path->is_many_only},
		{"warm", PATH_FRAMES_WARM, path->frames >= PATH_FRAMES_WARM && !path->is_many_only},
		{"many", path->frames, path->frames > PATH_FRAMES_WARM},
	};
	json_t *row;

	path_prepare(path);
	row = json_pack("{s:s, s:s, s:i, s:i}", "id", path->id, "text", path->text, "sources", (int)path->frames,
		"frame_bytes", (int)bench->frames[0].len);
	if (path->target_ns > 0)
		json_object_set_new(row, "target_ns", json_real(path->target_ns));
	for (unsigned i = 0; i < sizeof(columns) / sizeof(columns[0]); i++) {
		struct figure figure = {0};

		if (columns[i].is_wanted) {
			warm_path(bench, path);
			figure = measure_path(bench, path, columns[i].frames);
		}
		json_object_set_new(row, columns[i].name, figure_json(&figure, path->target_ns));
	}
	return row;
}

/* One path, cut off after each stage of the gate; what a stage costs is the difference to the one before. */
static json_t *run_steps(struct bench *bench, const char *id)
{
	static const char *const names[] = {"hot", "many"};
	const struct path *path = path_find(id);
	struct run_plan plans[BENCH_SET_MAX];
	struct figure figures[2][BENCH_SET_MAX];
	unsigned count = bench_step_count + 1, from = path->is_once ? 1 : 0;
	json_t *steps = json_array();

	path_prepare(path);
	for (unsigned many = from; many < 2; many++) {
		for (unsigned i = 0; i < count; i++)
			plans[i] =
				(struct run_plan){.slot = i < bench_step_count ? BENCH_SLOT_STAGE + i : BENCH_SLOT_GATE,
					.frames = many ? path->frames : 1,
					.is_once = path->is_once,
					.reset = path->reset};
		warm_path(bench, path);
		bench_measure_set(bench, plans, count, figures[many]);
	}
	for (unsigned i = 0; i < count; i++) {
		json_t *step = json_pack(
			"{s:s}", "text", i < bench_step_count ? bench_steps[i].text : "answer, counter, exit");

		for (unsigned many = from; many < 2; many++) {
			double before = i ? figures[many][i - 1].median : 0;

			json_object_set_new(step, names[many],
				json_pack("{s:f, s:f}", "step_ns", figures[many][i].median - before, "sum_ns",
					figures[many][i].median));
		}
		json_array_append_new(steps, step);
	}
	return json_pack("{s:s, s:s, s:o}", "id", id, "text", path->text, "steps", steps);
}

static json_t *run_operations(struct bench *bench)
{
	/* Frames with a cookie, a token and a known source; the table of rates full, as after some time of operation. */
	const struct path *path = path_find("sold_out");
	json_t *rows = json_array();

	path_prepare(path);
	path_flood_rates(bench);
	warm_path(bench, path);
	for (unsigned i = 0; i < bench_operation_count; i++) {
		struct run_plan plan = {.slot = BENCH_SLOT_STAGE + bench_step_count + i, .frames = 1, .rounds = 15};
		struct figure hot, many;

		hot = bench_measure(bench, &plan);
		plan.frames = path->frames;
		if (!strcmp(bench_operations[i].name, "op_rate_hit"))
			warm_path(bench, path); /* others may have pushed the sources out */
		many = bench_measure(bench, &plan);
		json_array_append_new(rows,
			json_pack("{s:s, s:s, s:o, s:o}", "id", bench_operations[i].name, "text",
				bench_operations[i].text, "hot", figure_json(&hot, 0), "many", figure_json(&many, 0)));
	}
	return rows;
}

static json_t *describe_machine(void)
{
	char model[128] = "unknown", line[256];
	FILE *file = fopen("/proc/cpuinfo", "r");
	struct utsname name;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "model name : %127[^\n]", model) == 1)
			break;
	if (file)
		fclose(file);
	uname(&name);
	return json_pack("{s:s, s:i, s:s, s:s}", "cpu", model, "cpus", (int)sysconf(_SC_NPROCESSORS_ONLN), "kernel",
		name.release, "machine", name.machine);
}

int main(int argc, char **argv)
{
	json_t *report = json_object(), *rows = json_array(), *steps = json_array();
	struct bench bench;
	bool ok;

	if (argc > 2) {
		fprintf(stderr, "usage: bench_gate [PATH-ID|steps]\n");
		return 2;
	}
	json_object_set_new(report, "machine", describe_machine());
	ok = cost_measure(report);
	bench_open(&bench, 0, 0);
	paths_open(&bench);
	json_object_set_new(report, "rounds", json_integer(bench.rounds));
	json_object_set_new(report, "packets_per_round", json_integer(BENCH_ROUND_PACKETS));
	json_object_set_new(report, "deny_mix", json_string(deny_mix));
	for (unsigned i = 0; i < bench_path_count; i++) {
		if (argc == 2 && strcmp(argv[1], bench_paths[i].id))
			continue;
		fprintf(stderr, "  BENCH   %s\n", bench_paths[i].text);
		json_array_append_new(rows, run_path(&bench, &bench_paths[i]));
	}
	json_object_set_new(report, "paths", rows);
	if (argc == 1 || !strcmp(argv[1], "steps")) {
		fprintf(stderr, "  BENCH   stages and operations\n");
		json_array_append_new(steps, run_steps(&bench, "sold_out"));
		json_array_append_new(steps, run_steps(&bench, "admitted"));
		json_object_set_new(report, "operations", run_operations(&bench));
	}
	json_object_set_new(report, "steps", steps);
	json_object_set_new(report, "ok", json_boolean(ok));
	json_dumpf(report, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
	putchar('\n');
	json_decref(report);
	paths_close();
	bench_close(&bench);
	return ok ? 0 : 1;
}
