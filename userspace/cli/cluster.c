/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice cluster`: what is the fleet's and no node's. Rebuilding: Redis forgets what it knows of leases, and every node tells it anew out of its
 * ledger.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/table.h"
#include "common/timefmt.h"

#define WAIT_DEFAULT_S 30
#define WAIT_MAX_S 3600
#define LOOK_US 200000

enum rebuild_option { REBUILD_WAIT };

static const struct cli_option rebuild_options[] = {
	[REBUILD_WAIT] = {"wait", "SECONDS", "how long to wait until every sale that is not over is open again (30)",
		false},
	{NULL, NULL, NULL, false},
};

static const struct cli_column columns[] = {
	{"SALE", "sale", false},
	{"STATE", "state", false},
	{"TOTAL", "total", true},
	{"FREE BEFORE", "free_before", true},
	{"FREE", "free", true},
	{"MISSING NODES", "missing", false},
	{NULL, NULL, false},
};

/* Sales that are over are not waited for: nothing is to be leased of them, and a node that never spoke of one may be gone for good. */
static bool is_open_or_over(const json_t *sale)
{
	const char *state = json_string_value(json_object_get(sale, "state"));

	return json_is_true(json_object_get(sale, "over")) || (state && !strcmp(state, "open"));
}

/* Puts what is now beside what was before. True: every sale that was begun anew, and is not over, is open again. */
static bool take_look(const json_t *look, json_t *rows)
{
	json_t *now, *row;
	bool all = true;
	size_t i, j;

	json_array_foreach(rows, i, row) {
		const char *slug = json_string_value(json_object_get(row, "sale"));

		json_array_foreach(json_object_get(look, "sales"), j, now)
			if (!strcmp(json_string_value(json_object_get(now, "sale")) ?: "", slug ?: "?")) {
				json_object_set(row, "state", json_object_get(now, "state"));
				json_object_set(row, "over", json_object_get(now, "over"));
				json_object_set(row, "total", json_object_get(now, "total"));
				json_object_set(row, "free", json_object_get(now, "free"));
				json_object_set(row, "missing", json_object_get(now, "missing"));
			}
		all = all && is_open_or_over(row);
	}
	return all;
}

static int wait_until_open(const struct cli_call *call, uint64_t wait_s, json_t *rows, bool *all)
{
	uint64_t until = time_mono_ns() + wait_s * 1000000000ULL;
	int code = CLI_OK;

	for (*all = false; !code;) {
		json_t *look;

		code = cli_api_ask(
			call->api, "the fleet's sales", "GET", cli_api_path("/v1/cluster/sales"), NULL, &look);
		if (code)
			break;
		*all = take_look(look, rows);
		json_decref(look);
		if (*all || time_mono_ns() >= until)
			break;
		usleep(LOOK_US);
	}
	return code;
}

static void print(const struct cli_call *call, json_t *rows)
{
	struct cli_table *table;
	json_t *row;
	size_t i;

	if (call->globals->json) {
		json_t *all = json_pack("{s:O}", "sales", rows);

		cli_json_print(call->out, all);
		json_decref(all);
		return;
	}
	table = cli_table_new(call->out, columns);
	json_array_foreach(rows, i, row)
		cli_table_add_json(table, row);
	cli_table_end(table);
}

static int run_rebuild(const struct cli_call *call)
{
	uint64_t wait_s = WAIT_DEFAULT_S;
	json_t *answer, *rows;
	bool all = false;
	int code = cli_option_count(call, REBUILD_WAIT, 0, WAIT_MAX_S, &wait_s);

	if (code)
		return code;
	code = cli_api_ask(call->api, "the fleet", "POST", cli_api_path("/v1/cluster/rebuild"), NULL, &answer);
	if (code)
		return code;
	rows = json_incref(json_object_get(answer, "sales"));
	json_decref(answer);
	code = wait_until_open(call, wait_s, rows, &all);
	print(call, rows);
	json_decref(rows);
	if (!code && !all) {
		cli_say("not every sale is open again: a node that is missing must come back, or be fenced (sluice node fence)");
		code = CLI_FAILED;
	}
	return code;
}

static const struct cli_verb verbs[] = {
	{"rebuild", "", "make Redis learn from the ledgers of all nodes what it knows of leases", 0, 0, rebuild_options,
		run_rebuild},
	{NULL, NULL, NULL, 0, 0, NULL, NULL},
};

const struct cli_noun cli_noun_cluster = {"cluster", "The fleet as a whole", verbs};
