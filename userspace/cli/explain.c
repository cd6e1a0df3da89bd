/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice explain IP`: why a source was refused, or would be: list entries, rates, its last verdicts. With --watch, then each of its verdicts as
 * it falls.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/table.h"
#include "cli/verdict_line.h"

#define WATCH_MAX_S 86400

enum explain_option { E_WATCH };

static const struct cli_option options[] = {
	[E_WATCH] = {"watch", "SECONDS", "afterwards, show its verdicts for so long", false},
	{NULL, NULL, NULL, false},
};

static const struct cli_column entry_columns[] = {
	{"LIST", "list", false},
	{"PREFIX", "prefix", false},
	{"STATE", "", false},
	{"HITS", "hits", true},
	{"EXPIRES", "expires_at", false},
	{"LABEL", "label", false},
	{"REASON", "reason", false},
	{NULL, NULL, false},
};

static const struct cli_column rate_columns[] = {
	{"LIMIT", "", false},
	{"RATE/S", "", true},
	{"BURST", "", true},
	{"LEFT", "", true},
	{"NEXT IN MS", "", true},
	{"IDLE MS", "", true},
	{"SHADOW", "", false},
	{NULL, NULL, false},
};

static const struct cli_column verdict_columns[] = {
	{"LAST VERDICTS", "reason", false},
	{"ACTION", "action", false},
	{"MEANING", "text", false},
	{NULL, NULL, false},
};

static const char *text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "-";
}

static const char *state_of(const json_t *entry)
{
	if (json_is_true(json_object_get(entry, "decides")))
		return "decides";
	return json_is_true(json_object_get(entry, "live")) ? "live" : "expired";
}

static void print_entries(FILE *out, const json_t *entries)
{
	struct cli_table *table;
	const json_t *entry;
	size_t i;

	if (!json_array_size(entries)) {
		fputs("It is on no list.\n", out);
		return;
	}
	table = cli_table_new(out, entry_columns);
	json_array_foreach(entries, i, entry) {
		const char *label = text_of(entry, "label"), *reason = text_of(entry, "reason");
		char hits[32], expires[64];

		cli_table_add(table,
			(const char *const[]){text_of(entry, "list"), text_of(entry, "prefix"), state_of(entry),
				cli_json_text(json_object_get(entry, "hits"), hits, sizeof(hits)),
				json_is_null(json_object_get(entry, "expires_at"))
					? "never"
					: cli_json_text(json_object_get(entry, "expires_at"), expires, sizeof(expires)),
				*label ? label : NULL, *reason ? reason : NULL});
	}
	cli_table_end(table);
}

static void print_rates(FILE *out, json_t *rates, const json_t *issue)
{
	struct cli_table *table = cli_table_new(out, rate_columns);
	const char *name;
	json_t *rate, *all = json_copy(rates);

	json_object_set_new(all, "token issue", json_copy((json_t *)(uintptr_t)issue));
	json_object_foreach(all, name, rate) {
		const json_t *shadow = json_object_get(rate, "shadow"), *left = json_object_get(rate, "left");
		const json_t *idle = json_object_get(rate, "idle_at_least_ms");
		bool off = json_is_null(left);
		char per_second[32], burst[32], left_text[32], next[32], idle_text[32];

		snprintf(per_second, sizeof(per_second), "%.6g", json_number_value(json_object_get(rate, "rate")));
		cli_table_add(table,
			(const char *const[]){name, off ? "off" : per_second,
				off ? NULL : cli_json_text(json_object_get(rate, "burst"), burst, sizeof(burst)),
				off ? NULL : cli_json_text(left, left_text, sizeof(left_text)),
				off ? NULL
				    : cli_json_text(json_object_get(rate, "next_allowed_ms"), next, sizeof(next)),
				json_is_integer(idle) ? cli_json_text(idle, idle_text, sizeof(idle_text)) : NULL,
				!shadow                        ? NULL
					: json_is_true(shadow) ? "on"
							       : "off"});
	}
	cli_table_end(table);
	json_decref(all);
}

static void print_verdicts(FILE *out, const json_t *verdicts)
{
	struct cli_table *table;
	const json_t *verdict;
	size_t i;

	if (!json_array_size(verdicts)) {
		fputs("No verdict on it is kept.\n", out);
		return;
	}
	table = cli_table_new(out, verdict_columns);
	json_array_foreach(verdicts, i, verdict)
		cli_table_add_json(table, verdict);
	cli_table_end(table);
}

static void print_explanation(FILE *out, const json_t *answer)
{
	const json_t *now = json_object_get(answer, "now"), *refusal = json_object_get(answer, "last_refusal");
	const json_t *shadowed = json_object_get(now, "shadowed"), *events = json_object_get(answer, "events"), *item;
	const char *reason = json_string_value(json_object_get(now, "reason"));
	size_t i;

	fprintf(out, "%s: counted as %s, in the prefix %s\n", text_of(answer, "ip"), text_of(answer, "source"),
		text_of(answer, "prefix"));
	fprintf(out, "A connection now %s%s%s%s: %s\n", reason ? "is refused" : "passes", reason ? " (" : "",
		reason ? reason : "", reason ? ")" : "", text_of(now, "text"));
	if (json_is_object(refusal))
		fprintf(out, "Last refusal: %s: %s\n", text_of(refusal, "reason"), text_of(refusal, "text"));
	json_array_foreach(shadowed, i, item)
		fprintf(out, "In shadow mode: it would be refused (%s), and passes\n",
			json_string_value(item) ? json_string_value(item) : "-");
	if (!strcmp(text_of(answer, "shadow"), "all"))
		fputs("THE WHOLE GATE IS IN SHADOW MODE: it refuses nobody\n", out);
	fputc('\n', out);
	print_entries(out, json_object_get(answer, "entries"));
	fputc('\n', out);
	print_rates(out, json_object_get(answer, "rates"), json_object_get(answer, "issue"));
	fputc('\n', out);
	print_verdicts(out, json_object_get(answer, "verdicts"));
	if (json_array_size(events)) {
		fputs("\nSeen while somebody watched, latest first\n", out);
		cli_verdict_header(out);
		json_array_foreach(events, i, item)
			cli_verdict_line(out, item);
	}
	fputs("\nWhat is not kept\n", out);
	json_array_foreach(json_object_get(answer, "not_kept"), i, item)
		fprintf(out, "- %s\n", json_string_value(item) ? json_string_value(item) : "");
}

struct watching {
	const struct cli_call *call;
	json_t *seen; /* with -o json */
	uint64_t count;
};

static int on_event(const char *name, const json_t *data, void *arg)
{
	struct watching *watching = arg;

	if (strcmp(name, "message") != 0)
		return 0;
	watching->count++;
	if (watching->seen) {
		json_array_append(watching->seen, (json_t *)(uintptr_t)data);
		return 0;
	}
	cli_verdict_line(watching->call->out, data);
	return fflush(watching->call->out) != 0;
}

static int watch(const struct cli_call *call, const char *source, unsigned seconds, struct watching *watching)
{
	struct cli_api_stream stream = {.about = "watch", .seconds = seconds, .on_event = on_event, .arg = watching};

	if (!call->globals->json) {
		fprintf(call->out, "\nWatching %s for %u s\n", source, seconds);
		cli_verdict_header(call->out);
		fflush(call->out);
	}
	return cli_api_stream(call->api, cli_api_path("/v1/events?source=%s", source), &stream);
}

static int run_explain(const struct cli_call *call)
{
	struct watching watching = {.call = call};
	char about[96], source[64];
	uint64_t seconds = 0;
	json_t *answer;
	int code = cli_option_count(call, E_WATCH, 1, WATCH_MAX_S, &seconds);

	if (code)
		return code;
	snprintf(about, sizeof(about), "explain %.64s", call->operand[0]);
	code = cli_api_ask(call->api, about, "GET", cli_api_path("/v1/explain?ip=%s", call->operand[0]), NULL, &answer);
	if (code)
		return code;
	if (!call->globals->json)
		print_explanation(call->out, answer);
	if (seconds) {
		snprintf(source, sizeof(source), "%s", text_of(answer, "source"));
		if (call->globals->json)
			watching.seen = json_array();
		code = watch(call, source, (unsigned)seconds, &watching);
		if (!code && !watching.seen && !watching.count)
			fputs("nothing came from there\n", call->out);
		json_object_set_new(answer, "watched", watching.seen);
	}
	if (call->globals->json && !code)
		return cli_print_answer(call, answer);
	json_decref(answer);
	return code;
}

static const struct cli_verb verbs[] = {
	{"", "IP", "lists, rates and last verdicts of a source: why it was refused, or would be", 1, 1, options,
		run_explain},
	{NULL, NULL, NULL, 0, 0, NULL, NULL},
};

const struct cli_noun cli_noun_explain = {"explain", "Why a source is refused", verbs};
