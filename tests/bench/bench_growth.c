/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `make bench`, how cost grows: sales 1 to 1,024, deny entries 1 to 1,000,000, sources 1 to 1,048,576 before a table of rates that has
 * place for as many, and CPUs 1 to all. Writes one JSON document to stdout: series of {x, median_ns, p10_ns, p90_ns}, and the
 * lanes with the hand-over of a cache line. The frames of a million sources take 640 MiB.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "common/timefmt.h"
#include "lanes.h"

#define SOURCES_MAX 1048576
#define ROUNDS 31
#define LANE_ROUNDS 31
#define SALE_FRAMES 16384

static json_t *series_new(json_t *report, const char *id, const char *text, const char *x)
{
	json_t *points = json_array();

	fprintf(stderr, "  BENCH   growth: %s\n", text);
	json_array_append_new(json_object_get(report, "series"),
		json_pack("{s:s, s:s, s:s, s:o}", "id", id, "text", text, "x", x, "points", points));
	return points;
}

static void add_point(json_t *points, unsigned x, const struct figure *figure)
{
	json_array_append_new(points,
		json_pack("{s:i, s:f, s:f, s:f}", "x", (int)x, "median_ns", figure->median, "p10_ns", figure->low,
			"p90_ns", figure->high));
}

/* Runs the frames that are there, and makes sure that every packet left with `reason`. */
static struct figure measure(struct bench *bench, unsigned frames, enum sluice_reason reason)
{
	struct run_plan plan = {.slot = BENCH_SLOT_GATE, .frames = frames, .rounds = ROUNDS};
	uint64_t before, seen;
	struct figure figure;

	bench_warm(bench, &plan);
	bench_warm(bench, &plan);
	before = bench_counter(bench, 0, reason);
	figure = bench_measure(bench, &plan);
	seen = bench_counter(bench, 0, reason) - before;
	if (seen != figure.packets)
		bench_die("%llu of %llu packets did not leave with reason %d",
			(unsigned long long)(figure.packets - seen), (unsigned long long)figure.packets, reason);
	return figure;
}

/* --- sales ------------------------------------------------------------------------------------------------------------ */
static void open_sale(struct gate *gate, uint32_t id)
{
	uint64_t now = time_wall_ns();

	gate->sales[id % SLUICE_MAX_SALES] = (struct sluice_sale){
		.id = id, .opens_wall = now - 1000000000ULL, .ends_wall = now + 3600000000000ULL, .per_buyer = 1};
	gate->stock[id % SLUICE_MAX_SALES].free = 0;
}

static void put_order(struct bench *bench, unsigned index, uint32_t sale)
{
	struct sluice_token token = gate_token(1000000 + index, path_buyer_of(1000000 + index));
	struct frame frame = frame_syn(false);
	char text[SLUICE_TOKEN_TEXT + 1], request[FRAME_MAX], source[16];

	snprintf(source, sizeof(source), "10.9.%u.%u", index >> 8 & 15, index & 255);
	frame.source = source;
	frame.sport = 1024 + index % 60000;
	token.sale = sale;
	gate_token_text(&bench->gate, &token, text);
	bench_connect(bench, &frame, request, gate_order_request(text, request, sizeof(request)));
	bench_put(bench, index, &frame);
}

static void grow_sales(struct bench *bench, json_t *report)
{
	static const unsigned counts[] = {1, 16, 128, 1024};
	json_t *points = series_new(report, "sales", "sold out, answered: orders spread over so many sales", "sales");

	bench_limits(bench, &bench_generous, &bench_generous);
	for (unsigned id = 1; id <= SLUICE_MAX_SALES; id++)
		open_sale(&bench->gate, id);
	for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		struct figure figure;

		for (unsigned n = 0; n < SALE_FRAMES; n++)
			put_order(bench, n, 1 + n % counts[i]);
		figure = measure(bench, SALE_FRAMES, SLUICE_REASON_SOLD_OUT);
		add_point(points, counts[i], &figure);
	}
	memset(bench->gate.sales, 0, SLUICE_MAX_SALES * sizeof(struct sluice_sale));
	open_sale(&bench->gate, GATE_SALE);
}

/* --- lists ------------------------------------------------------------------------------------------------------------ */
static void grow_list(struct bench *bench, json_t *report)
{
	static const unsigned counts[] = {1, 100, 1000, 10000, 100000, 1000000};
	json_t *denied = series_new(report, "denied", "denied: entries of the list", "entries");
	json_t *unlisted = series_new(report, "unlisted", "not denied, dropped behind the list", "entries");
	struct path path = *path_find("denied_10k"), other = *path_find("unlisted_10k");

	for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		struct figure figure;

		path.deny = other.deny = counts[i];
		path_prepare(&path);
		figure = measure(bench, path.frames, path.reason);
		add_point(denied, counts[i], &figure);
		path_prepare(&other);
		figure = measure(bench, other.frames, other.reason);
		add_point(unlisted, counts[i], &figure);
	}
}

/* --- sources ---------------------------------------------------------------------------------------------------------- */
static void grow_sources(struct bench *bench, json_t *report)
{
	static const unsigned counts[] = {1, 16, 256, 4096, 65536, 262144, SOURCES_MAX};
	json_t *points =
		series_new(report, "sources", "page request: sources in turn, rates full with a million", "sources");
	struct path path = *path_find("page");

	path_flood_rates(bench);
	for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		struct figure figure;

		path.frames = counts[i]; /* made anew for each point: their cookies hold for a minute */
		path_prepare(&path);
		figure = measure(bench, counts[i], path.reason);
		add_point(points, counts[i], &figure);
	}
}

/* --- CPUs ------------------------------------------------------------------------------------------------------------- */
static json_t *rounds_json(const struct lanes_figure *figure)
{
	json_t *rounds = json_array();

	for (unsigned i = 0; i < figure->count; i++)
		json_array_append_new(rounds,
			json_pack("{s:f, s:f, s:f}", "alone_ns", figure->rounds[i].alone, "together_ns",
				figure->rounds[i].together, "handover_ns", figure->rounds[i].handover));
	return rounds;
}

static void grow_cpus(struct bench *bench, json_t *report)
{
	static const char *const ids[] = {"denied_1m", "syn", "over_rate", "forged", "sold_out", "admitted"};
	json_t *rows = json_array();

	for (unsigned i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		struct path path = *path_find(ids[i]);
		struct lanes_figure figure;

		fprintf(stderr, "  BENCH   growth: CPUs, %s\n", path.text);
		path.frames = lanes_frames(&path);
		path_prepare(&path);
		figure = lanes_measure(bench, &path, LANE_ROUNDS);
		json_array_append_new(rows,
			json_pack("{s:s, s:s, s:i, s:o}", "id", path.id, "text", path.text, "cpus", (int)figure.lanes,
				"rounds", rounds_json(&figure)));
	}
	json_object_set_new(report, "cpus", rows);
}

int main(void)
{
	json_t *report = json_pack("{s:[], s:i}", "series", "max_sources", SOURCES_MAX);
	struct bench bench;

	bench_open(&bench, SOURCES_MAX, SOURCES_MAX);
	paths_open(&bench);
	grow_list(&bench, report); /* first: the list only grows */
	grow_sales(&bench, report);
	grow_sources(&bench, report);
	grow_cpus(&bench, report);
	json_dumpf(report, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
	putchar('\n');
	json_decref(report);
	paths_close();
	bench_close(&bench);
	return 0;
}
