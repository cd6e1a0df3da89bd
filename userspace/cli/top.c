/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice top`: what happens now, again and again: verdicts per second by reason, orders, stock, the busiest sources. On a terminal a display that
 * refreshes itself; else blocks of lines.
 */
#include "cli/top.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/screen.h"
#include "cli/table.h"

#define INTERVAL_MAX_S 10
#define ROWS_MAX 100
#define ROWS 10
#define COUNT_MAX 1000000
#define PATIENCE_MS 5000 /* beyond the interval that the daemon looks for */

enum top_option { T_INTERVAL, T_ROWS, T_COUNT };

static const struct cli_option options[] = {
	[T_INTERVAL] = {"interval", "SECONDS", "how long each look takes, 1 to 10 (1)", false},
	[T_ROWS] = {"rows", "N", "so many reasons, sales, sources and prefixes (10)", false},
	[T_COUNT] = {"count", "N", "end after so many (1 if standard output is no terminal)", false},
	{NULL, NULL, NULL, false},
};

static const struct cli_column reason_columns[] = {
	{"SERVICE", "", false},
	{"REASON", "", false},
	{"PACKETS/S", "", true},
	{NULL, NULL, false},
};

static const struct cli_column sale_columns[] = {
	{"SALE", "slug", false},
	{"STATE", "state", false},
	{"PUT IN", "put_in", true},
	{"FREE", "free", true},
	{"HELD", "held", true},
	{"CONFIRMED", "confirmed", true},
	{NULL, NULL, false},
};

#define BUSIEST_COLUMNS(name) \
	{ \
		{name, "", false}, {"VERDICTS/S", "", true}, {"REFUSED/S", "", true}, {"MOSTLY", "", false}, \
		{ \
			NULL, NULL, false \
		} \
	}
static const struct cli_column source_columns[] = BUSIEST_COLUMNS("BUSIEST SOURCE");
static const struct cli_column prefix_columns[] = BUSIEST_COLUMNS("BUSIEST PREFIX");

/* --- printing --------------------------------------------------------------------------------------------------------------- */
struct reason_row {
	const char *service, *reason;
	double per_second;
};

struct reason_rows {
	struct reason_row *at;
	size_t count;
};

static void add_reasons(struct reason_rows *rows, const char *service, const json_t *reasons)
{
	const char *reason;
	json_t *rate;
	struct reason_row *grown = realloc(rows->at, (rows->count + json_object_size(reasons) + 1) * sizeof(*rows->at));

	if (!grown)
		return;
	rows->at = grown;
	json_object_foreach((json_t *)(uintptr_t)reasons, reason, rate)
		rows->at[rows->count++] = (struct reason_row){service, reason, json_number_value(rate)};
}

static int busier(const void *a, const void *b)
{
	const struct reason_row *x = a, *y = b;

	return x->per_second < y->per_second ? 1 : x->per_second > y->per_second ? -1 : strcmp(x->reason, y->reason);
}

static const char *rate_text(double rate, char *text, size_t size)
{
	snprintf(text, size, rate > 0 && rate < 10 ? "%.1f" : "%.0f", rate);
	return text;
}

static void print_reasons(FILE *out, const json_t *top, unsigned max)
{
	struct reason_rows rows = {0};
	struct cli_table *table = cli_table_new(out, reason_columns);
	const char *service;
	json_t *reasons;

	json_object_foreach(json_object_get(top, "packets"), service, reasons)
		add_reasons(&rows, service, reasons);
	add_reasons(&rows, "(call door)", json_object_get(top, "calls"));
	add_reasons(&rows, "(in shadow)", json_object_get(top, "shadow"));
	if (rows.count)
		qsort(rows.at, rows.count, sizeof(*rows.at), busier);
	for (size_t i = 0; i < rows.count && i < max; i++) {
		char rate[32];

		cli_table_add(table,
			(const char *const[]){rows.at[i].service, rows.at[i].reason,
				rate_text(rows.at[i].per_second, rate, sizeof(rate))});
	}
	cli_table_end(table);
	free(rows.at);
}

static void print_sales(FILE *out, const json_t *top)
{
	const json_t *sales = json_object_get(top, "sales"), *sale;
	long long more = json_integer_value(json_object_get(top, "more_sales"));
	struct cli_table *table = cli_table_new(out, sale_columns);
	size_t i;

	json_array_foreach(sales, i, sale)
		cli_table_add_json(table, sale);
	cli_table_end(table);
	if (more)
		fprintf(out, "and %lld more\n", more);
}

static void print_busiest(FILE *out, const json_t *list, const char *name, const struct cli_column *columns)
{
	struct cli_table *table = cli_table_new(out, columns);
	const json_t *row;
	size_t i;

	json_array_foreach(list, i, row) {
		char rate[32], refused[32];

		cli_table_add(table,
			(const char *const[]){json_string_value(json_object_get(row, name)),
				rate_text(json_number_value(json_object_get(row, "per_second")), rate, sizeof(rate)),
				rate_text(json_number_value(json_object_get(row, "refused_per_second")), refused,
					sizeof(refused)),
				json_string_value(json_object_get(row, "reason"))});
	}
	cli_table_end(table);
}

/* Lines of their own, and the first: a narrow terminal cuts the end of a line off, and a low one the last lines. */
static void print_interfaces(FILE *out, const json_t *interfaces)
{
	const json_t *interface;
	size_t i;

	json_array_foreach(interfaces, i, interface)
		if (json_is_false(json_object_get(interface, "attached")))
			fprintf(out, "THE GATE IS NOT ON %s ANY MORE (sluice status)\n",
				json_string_value(json_object_get(interface, "name")));
}

void cli_top_print(FILE *out, const json_t *top, unsigned rows)
{
	const json_t *orders = json_object_get(top, "orders"), *sample = json_object_get(top, "sample");
	const char *time = json_string_value(json_object_get(top, "time"));
	const char *mode = json_string_value(json_object_get(top, "shadow_mode"));
	double seen = json_number_value(json_object_get(sample, "verdicts")),
	       stands_for = json_number_value(json_object_get(sample, "stands_for"));
	unsigned long long sources = (unsigned long long)json_integer_value(json_object_get(sample, "sources"));
	unsigned long long prefixes = (unsigned long long)json_integer_value(json_object_get(sample, "prefixes"));
	char admitted[32], durable[32];

	print_interfaces(out, json_object_get(top, "interfaces"));
	if (mode && !strcmp(mode, "all"))
		fputs("THE WHOLE GATE IS IN SHADOW MODE\n", out);
	else if (mode && strcmp(mode, "off") != 0)
		fputs("some limits in shadow mode\n", out);
	fprintf(out, "%s  orders %s/s admitted, %s/s durable, %lld in flight, %s", time ? time : "-",
		rate_text(
			json_number_value(json_object_get(orders, "admitted_per_second")), admitted, sizeof(admitted)),
		rate_text(json_number_value(json_object_get(orders, "durable_per_second")), durable, sizeof(durable)),
		(long long)json_integer_value(json_object_get(orders, "in_flight")),
		json_is_true(json_object_get(orders, "open")) ? "open" : "CLOSED");
	fputs("\n\n", out);
	print_reasons(out, top, rows);
	fputc('\n', out);
	print_sales(out, top);
	/* The rates above are counted, these are not. */
	fprintf(out,
		"\nsampled: %.0f of about %.0f verdicts, without those of open connections; %llu source%s, %llu prefix%s seen\n",
		seen, stands_for, sources, cli_plural(sources), prefixes, prefixes == 1 ? "" : "es");
	print_busiest(out, json_object_get(top, "sources"), "source", source_columns);
	fputc('\n', out);
	print_busiest(out, json_object_get(top, "prefixes"), "prefix", prefix_columns);
}

/* --- the command ------------------------------------------------------------------------------------------------------------ */
static int show(const struct cli_call *call, const json_t *answer, unsigned rows, bool on_screen, bool is_first)
{
	char *text = NULL;
	size_t size;
	FILE *out;

	if (call->globals->json) {
		json_dumpf(answer, call->out, JSON_COMPACT | JSON_REAL_PRECISION(9));
		fputc('\n', call->out);
	} else if (on_screen) {
		out = open_memstream(&text, &size);
		if (out)
			cli_top_print(out, answer, rows);
		if (out && !fclose(out))
			cli_screen_show(text);
		free(text);
	} else {
		if (!is_first)
			fputc('\n', call->out);
		cli_top_print(call->out, answer, rows);
	}
	return fflush(call->out) ? -errno : 0;
}

static char *top_path(uint64_t interval_s, uint64_t rows)
{
	char interval[32], limit[32];

	snprintf(interval, sizeof(interval), "%llu", (unsigned long long)interval_s * 1000);
	snprintf(limit, sizeof(limit), "%llu", (unsigned long long)rows);
	return cli_api_path("/v1/top?interval_ms=%s&limit=%s", interval, limit);
}

/* What goes wrong is said on the terminal as it was, not on the screen that is given back. */
static int ask(const struct cli_call *call, uint64_t interval_s, uint64_t rows, bool on_screen, json_t **answer)
{
	FILE *terminal = stderr;
	char *said = NULL;
	size_t size;
	int code;

	if (on_screen) {
		stderr = open_memstream(&said, &size);
		if (!stderr)
			stderr = terminal;
	}
	code = cli_api_ask(call->api, "top", "GET", top_path(interval_s, rows), NULL, answer);
	if (stderr != terminal) {
		fclose(stderr);
		stderr = terminal;
	}
	if (code && said) {
		cli_screen_close();
		fputs(said, stderr);
	}
	free(said);
	return code;
}

static int run_top(const struct cli_call *call)
{
	uint64_t interval_s = 1, rows = ROWS, count = 0;
	bool on_screen = false;
	int code = cli_option_count(call, T_INTERVAL, 1, INTERVAL_MAX_S, &interval_s);

	if (!code)
		code = cli_option_count(call, T_ROWS, 1, ROWS_MAX, &rows);
	if (!code)
		code = cli_option_count(call, T_COUNT, 1, COUNT_MAX, &count);
	if (code)
		return code;
	cli_api_set_patience(call->api, (unsigned)interval_s * 1000 + PATIENCE_MS);
	if (!isatty(fileno(call->out)) && !count)
		count = 1;
	for (uint64_t i = 0; !count || i < count; i++) {
		json_t *answer;
		int err;

		code = ask(call, interval_s, rows, on_screen, &answer);
		if (code)
			break;
		if (i == 0 && !call->globals->json && isatty(fileno(call->out)))
			on_screen = cli_screen_open();
		err = show(call, answer, (unsigned)rows, on_screen, i == 0);
		json_decref(answer);
		if (err) {
			cli_say("cannot write the output: %s", strerror(-err));
			code = CLI_FAILED;
			break;
		}
	}
	cli_screen_close();
	return code;
}

static const struct cli_verb verbs[] = {
	{"", "", "verdicts per second, orders, stock, busiest sources, refreshed; q or Ctrl-C ends it", 0, 0, options,
		run_top},
	{NULL, NULL, NULL, 0, 0, NULL, NULL},
};

const struct cli_noun cli_noun_top = {"top", "What happens now", verbs};
