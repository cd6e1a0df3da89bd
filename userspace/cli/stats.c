/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice stats`: what the gate did, by service and reason, each reason with its meaning; what it would have done, but for shadow
 * mode; then admissions and tokens. Rows that are
 * zero are left out.
 */
#include <string.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/table.h"
#include "common/maps.h"

#define SECTION_MAX 64

static const struct cli_column packet_columns[] = {
	{"SERVICE", "", false},
	{"REASON", "", false},
	{"PACKETS", "", true},
	{"BYTES", "", true},
	{"MEANING", "", false},
	{NULL, NULL, false},
};

static const struct cli_column call_columns[] = {
	{"CALL DOOR", "", false},
	{"REQUESTS", "", true},
	{"MEANING", "", false},
	{NULL, NULL, false},
};

static const struct cli_column shadow_columns[] = {
	{"IN SHADOW", "", false},
	{"WOULD HAVE", "", true},
	{"MEANING", "", false},
	{NULL, NULL, false},
};

static const struct cli_column count_columns[] = {
	{"COUNT", "", false},
	{"VALUE", "", true},
	{NULL, NULL, false},
};

static const char *meaning_of(const char *label)
{
	for (unsigned reason = 0; reason < SLUICE_REASON_COUNT; reason++)
		if (!strcmp(reason_label(reason), label))
			return reason_text(reason);
	return NULL; /* of a newer daemon */
}

static void print_packets(const struct cli_call *call, json_t *packets)
{
	struct cli_table *table = cli_table_new(call->out, packet_columns);
	const char *service, *reason;
	json_t *reasons, *counter;
	char count[32], bytes[32];

	json_object_foreach(packets, service, reasons) {
		json_object_foreach(reasons, reason, counter) {
			const json_t *number = json_object_get(counter, "packets");

			if (!json_integer_value(number))
				continue;
			cli_table_add(table,
				(const char *const[]){service, reason, cli_json_text(number, count, sizeof(count)),
					cli_json_text(json_object_get(counter, "bytes"), bytes, sizeof(bytes)),
					meaning_of(reason)});
		}
	}
	cli_table_end(table);
}

static void print_reasons(const struct cli_call *call, const struct cli_column *columns, json_t *reasons)
{
	struct cli_table *table = cli_table_new(call->out, columns);
	const char *reason;
	json_t *number;
	char count[32];

	json_object_foreach(reasons, reason, number) {
		if (json_integer_value(number))
			cli_table_add(table,
				(const char *const[]){
					reason, cli_json_text(number, count, sizeof(count)), meaning_of(reason)});
	}
	cli_table_end(table);
}

static void add_counts(struct cli_table *table, const char *section, json_t *counts)
{
	const char *name;
	json_t *number;
	char title[SECTION_MAX], count[32];

	json_object_foreach(counts, name, number) {
		snprintf(title, sizeof(title), "%s %s", section, name);
		cli_table_add(table, (const char *const[]){title, cli_json_text(number, count, sizeof(count))});
	}
}

static int run_stats(const struct cli_call *call)
{
	struct cli_table *table;
	json_t *answer;
	int code = cli_api_ask(call->api, "stats", "GET", cli_api_path("/v1/stats"), NULL, &answer);

	if (code || call->globals->json)
		return code ? code : cli_print_answer(call, answer);
	print_packets(call, json_object_get(answer, "packets"));
	fputc('\n', call->out);
	print_reasons(call, call_columns, json_object_get(answer, "calls"));
	fputc('\n', call->out);
	if (json_object_size(json_object_get(answer, "shadow"))) {
		print_reasons(call, shadow_columns, json_object_get(answer, "shadow"));
		fputc('\n', call->out);
	}
	table = cli_table_new(call->out, count_columns);
	add_counts(table, "orders", json_object_get(answer, "orders"));
	add_counts(table, "tokens", json_object_get(answer, "tokens"));
	cli_table_end(table);
	json_decref(answer);
	return CLI_OK;
}

static const struct cli_verb verbs[] = {
	{"", "", "packets by service and reason, admissions, tokens", 0, 0, NULL, run_stats},
	{NULL, NULL, NULL, 0, 0, NULL, NULL},
};

const struct cli_noun cli_noun_stats = {"stats", "Counters", verbs};
