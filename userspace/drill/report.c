/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Figures and JSON of the report; report_text.c makes the page. See report.h and docs/drill.md, which explains every field. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "drill/report.h"

#define PATH_SIZE (DRILL_PATH_MAX + 8)

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return x < y ? -1 : x > y;
}

/* The smallest value that at least `permille` of a thousand are not above; `sorted` is not empty. */
static double percentile(const float *sorted, uint32_t count, uint32_t permille)
{
	uint64_t rank = ((uint64_t)count * permille + 999) / 1000;

	return (double)sorted[rank ? rank - 1 : 0];
}

void drill_latency_of(float *ms, uint32_t count, struct drill_latency *latency)
{
	memset(latency, 0, sizeof(*latency));
	if (!count)
		return;
	qsort(ms, count, sizeof(*ms), by_value);
	latency->count = count;
	latency->p50 = percentile(ms, count, 500);
	latency->p99 = percentile(ms, count, 990);
	latency->p999 = percentile(ms, count, 999);
	latency->max = (double)ms[count - 1];
}

int drill_report_fill(struct drill_report *report)
{
	const struct drill_times *yes = &report->record->admitted, *no = &report->record->refused;
	float *ms = malloc(((size_t)yes->count + no->count + 1) * sizeof(*ms));
	struct utsname name;

	if (!ms)
		return -ENOMEM;
	if (yes->count)
		memcpy(ms, yes->ms, yes->count * sizeof(*ms));
	if (no->count)
		memcpy(ms + yes->count, no->ms, no->count * sizeof(*ms));
	drill_latency_of(ms, yes->count + no->count, &report->all);
	free(ms);
	drill_latency_of(yes->ms, yes->count, &report->admitted);
	drill_latency_of(no->ms, no->count, &report->refused);
	if (!uname(&name))
		snprintf(report->kernel, sizeof(report->kernel), "%.70s", name.release);
	report->cpus = sysconf(_SC_NPROCESSORS_ONLN);
	return 0;
}

/* --- JSON ------------------------------------------------------------------------------------------------------------------ */

static json_t *count_of(uint64_t n)
{
	return json_integer((json_int_t)n);
}

/* Three digits after the point are what a clock over a network stack is worth. */
static json_t *rounded(double value)
{
	return json_real((double)(int64_t)(value * 1000 + 0.5) / 1000);
}

static json_t *tally_json(const struct drill_tally *tally)
{
	json_t *object = json_object();

	for (uint32_t row = 0; row < tally->rows; row++)
		json_object_set_new(object, tally->row[row].name, count_of(tally->row[row].count));
	return object;
}

static json_t *latency_json(const struct drill_latency *latency)
{
	json_t *object = json_object();

	json_object_set_new(object, "count", count_of(latency->count));
	json_object_set_new(object, "p50", rounded(latency->p50));
	json_object_set_new(object, "p99", rounded(latency->p99));
	json_object_set_new(object, "p999", rounded(latency->p999));
	json_object_set_new(object, "max", rounded(latency->max));
	return object;
}

static void add_all(struct drill_tally *to, const struct drill_tally *from)
{
	for (uint32_t row = 0; row < from->rows; row++)
		drill_tally_add(to, from->row[row].name, from->row[row].count);
}

/* To order requests of buyers and bots alike; what got no answer is "no_answer". */
static json_t *answers_json(const struct drill_record *record)
{
	struct drill_tally sum = {0};

	add_all(&sum, &record->buyer_answers);
	for (int kind = 0; kind < DRILL_BOT_KIND_COUNT; kind++) {
		if (kind == DRILL_BOT_SILENT)
			continue; /* asked nothing */
		add_all(&sum, &record->bots[kind].answers);
		if (record->bots[kind].unanswered)
			drill_tally_add(&sum, "no_answer", record->bots[kind].unanswered);
	}
	drill_tally_add(&sum, "created", 0);
	drill_tally_add(&sum, "repeated", 0);
	drill_tally_sort(&sum);
	return tally_json(&sum);
}

static json_t *bots_json(const struct drill_record *record)
{
	json_t *object = json_object();

	for (int kind = 0; kind < DRILL_BOT_KIND_COUNT; kind++) {
		const struct drill_bots_seen *seen = &record->bots[kind];

		if (!seen->planned)
			continue;
		json_object_set_new(object, drill_bot_label((enum drill_bot_kind)kind),
			json_pack("{s:o, s:o, s:o}", "attempts", count_of(seen->attempts), "unanswered",
				count_of(seen->unanswered), "answers", tally_json(&seen->answers)));
	}
	return object;
}

static json_t *checks_json(const struct drill_finding *finding)
{
	static const char *const words[] = {
		[DRILL_HOLDS] = "holds", [DRILL_BROKEN] = "broken", [DRILL_UNCHECKED] = "unchecked"};
	json_t *list = json_array();

	for (int i = 0; i < DRILL_CHECKS; i++)
		json_array_append_new(list,
			json_pack("{s:s, s:s, s:s, s:s}", "id", finding[i].id, "name", finding[i].name, "verdict",
				words[finding[i].verdict], "detail", finding[i].detail));
	return list;
}

static json_t *net_json(const struct drill_record *record)
{
	const struct drill_engine_stats *net = &record->net;
	json_t *object = json_object();

	json_object_set_new(object, "connections", count_of(net->connections));
	json_object_set_new(object, "open_peak", count_of(net->open_peak));
	json_object_set_new(object, "answered", count_of(net->outcomes[DRILL_ANSWERED]));
	json_object_set_new(object, "no_answer", count_of(net->outcomes[DRILL_TIMED_OUT]));
	json_object_set_new(object, "reset", count_of(net->outcomes[DRILL_RESET]));
	json_object_set_new(object, "refused", count_of(net->outcomes[DRILL_REFUSED]));
	json_object_set_new(object, "cut_off", count_of(net->outcomes[DRILL_CUT_OFF]));
	json_object_set_new(object, "not_http", count_of(net->outcomes[DRILL_NOT_HTTP]));
	json_object_set_new(object, "left_by_us", count_of(net->outcomes[DRILL_LEFT]));
	json_object_set_new(object, "local_errors", count_of(net->outcomes[DRILL_LOCAL]));
	json_object_set_new(object, "answers_per_second_peak", rounded(record->peak_per_s));
	return object;
}

json_t *drill_report_json(const struct drill_report *report)
{
	const struct drill_options *options = report->options;
	const struct drill_record *record = report->record;
	const struct drill_ledger *ledger = report->ledger;
	json_t *json = json_object();

	if (!json)
		return NULL;
	json_object_set_new(json, "tool", json_string("sluice drill " SLUICE_VERSION));
	json_object_set_new(json, "kernel", json_string(report->kernel));
	json_object_set_new(json, "cpus", json_integer(report->cpus));
	json_object_set_new(json, "mode", json_string(report->mode));
	json_object_set_new(json, "seed", count_of(options->seed));
	json_object_set_new(json, "seconds", rounded(report->seconds));
	json_object_set_new(json, "crowd_seconds", rounded(record->seconds));
	json_object_set_new(json, "timed_out", json_boolean(record->timed_out));
	json_object_set_new(json, "sale", json_string(report->slug));
	json_object_set_new(json, "stock", ledger->known ? json_integer(ledger->put_in) : json_null());
	json_object_set_new(json, "orders", count_of(report->sums->orders));
	json_object_set_new(json, "units_ordered", count_of(report->sums->units));
	json_object_set_new(json, "free", ledger->known ? json_integer(ledger->free) : json_null());
	json_object_set_new(json, "oversold", ledger->known ? count_of(report->sums->oversold) : json_null());
	json_object_set_new(json, "unsold", ledger->known ? count_of(report->sums->unsold) : json_null());
	json_object_set_new(json, "duplicates", count_of(report->sums->duplicates));
	json_object_set_new(json, "buyers", count_of(options->buyers));
	json_object_set_new(json, "buyers_with_token", count_of(record->buyers_with_token));
	json_object_set_new(json, "buyers_asked", count_of(record->buyers_asked));
	json_object_set_new(json, "buyers_answered", count_of(record->buyers_answered));
	json_object_set_new(json, "buyers_ordered", count_of(record->buyers_ordered));
	json_object_set_new(json, "lost_answers", count_of(record->lost_answers));
	json_object_set_new(json, "double_clicks", count_of(record->double_clicks));
	json_object_set_new(json, "second_tries", count_of(record->second_tries));
	json_object_set_new(json, "bots", count_of(record->bot_attempts));
	json_object_set_new(json, "spoofed_syns", count_of(record->spoofed_sent));
	json_object_set_new(json, "answers", answers_json(record));
	json_object_set_new(json, "answers_to_buyers", tally_json(&record->buyer_answers));
	json_object_set_new(json, "answers_to_bots", bots_json(record));
	json_object_set_new(json, "token_answers", tally_json(&record->token_answers));
	json_object_set_new(json, "refused", report->gate ? tally_json(&report->gate->refused) : json_null());
	json_object_set_new(json, "gate_reasons", report->gate ? tally_json(&report->gate->all) : json_null());
	json_object_set_new(json, "latency_ms", latency_json(&report->all));
	json_object_set_new(json, "latency_admitted_ms", latency_json(&report->admitted));
	json_object_set_new(json, "latency_refused_ms", latency_json(&report->refused));
	json_object_set_new(json, "network", net_json(record));
	json_object_set_new(json, "checks", checks_json(report->finding));
	json_object_set_new(json, "broken", json_integer(report->broken));
	json_object_set_new(json, "ledger", report->ledger_path[0] ? json_string(report->ledger_path) : json_null());
	return json;
}

int drill_report_save(const char *path, const json_t *json)
{
	char temporary[PATH_SIZE];
	int err;

	snprintf(temporary, sizeof(temporary), "%s.new", path);
	if (json_dump_file(json, temporary, JSON_INDENT(2) | JSON_REAL_PRECISION(15)))
		return errno ? -errno : -EIO;
	if (!rename(temporary, path))
		return 0;
	err = -errno;
	unlink(temporary);
	return err;
}
