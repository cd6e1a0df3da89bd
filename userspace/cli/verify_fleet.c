/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* See verify_fleet.h. Every node is asked by way of Redis, and answers out of its own ledger; so this runs on any node.
 *
 * A difference counts if three looks in a row find it with the same figures: in a sale that runs, some lease is always between two books.
 */
#include "cli/verify_fleet.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/table.h"

#define LOOKS_SURE 3
#define LOOKS_MAX 8
#define PAUSE_US 500000

static int look_once(struct cli_api *api, struct fleet_look *look)
{
	json_t *audit;
	int code;

	*look = (struct fleet_look){0};
	code = cli_api_ask(api, "the fleet's books", "GET", cli_api_path("/v1/cluster/audit"), NULL, &audit);
	if (code)
		return code;
	if (fleet_look_compare(audit, look)) {
		cli_say("the daemon describes the fleet's books in a way that this program does not understand");
		code = CLI_FAILED;
	}
	json_decref(audit);
	return code;
}

/* *look is the last one, with those differences that it and the two before it had. */
static int look_until_sure(struct cli_api *api, struct fleet_look *look, unsigned *looks)
{
	int code = look_once(api, look);

	for (*looks = 1; !code && fleet_look_is_unsure(look, LOOKS_SURE) && *looks < LOOKS_MAX; ++*looks) {
		struct fleet_look before = *look;

		usleep(PAUSE_US);
		code = look_once(api, look);
		if (!code)
			fleet_look_follow(look, &before);
		fleet_look_free(&before);
	}
	if (!code)
		fleet_look_judge(look, LOOKS_SURE);
	return code;
}

static void print_rows(const char *title, const json_t *rows, const struct cli_column *columns)
{
	struct cli_table *table = cli_table_new(stdout, columns);
	const json_t *row;
	size_t i;

	if (title)
		printf("\n%s\n", title);
	json_array_foreach(rows, i, row)
		cli_table_add_json(table, row);
	cli_table_end(table);
}

static void print(const struct fleet_look *look)
{
	static const struct cli_column sale_columns[] = {{"SALE", "sale", false}, {"STATE", "state", false},
		{"TOTAL", "total", true}, {"FREE", "free", true}, {"ON NODES", "on_nodes", true},
		{"HELD", "held", true}, {"CONFIRMED", "confirmed", true}, {"REFUNDED", "refunded", true},
		{"UNHEARD", "unheard", true}, {"EQUATION", "equation", false}, {NULL, NULL, false}};
	static const struct cli_column difference_columns[] = {{"INVARIANT", "invariant", false},
		{"DIFFERENCE", "difference", false}, {"SALE", "sale", false}, {"NODE", "node", true},
		{"FOUND", "found", true}, {"EXPECTED", "expected", true}, {"WHAT", "detail", false},
		{NULL, NULL, false}};

	print_rows(NULL, look->sales, sale_columns);
	if (json_array_size(look->differences))
		print_rows("differences", look->differences, difference_columns);
}

int verify_fleet(struct cli_api *api, bool as_json)
{
	struct fleet_look look = {0};
	unsigned looks;
	json_t *node;
	size_t i, silent, differences;
	int code = look_until_sure(api, &look, &looks);

	if (code) {
		fleet_look_free(&look);
		return code;
	}
	silent = json_array_size(look.silent);
	differences = json_array_size(look.differences);
	if (as_json) {
		json_t *report = json_pack("{s:b, s:i, s:O, s:O, s:O}", "clean", !differences && !silent, "looks",
			(int)looks, "silent", look.silent, "sales", look.sales, "differences", look.differences);

		cli_json_print(stdout, report);
		json_decref(report);
	} else {
		print(&look);
	}
	json_array_foreach(look.silent, i, node)
		cli_say("node %lld has not answered: of it counts what it last told Redis",
			(long long)json_integer_value(node));
	fleet_look_free(&look);
	return differences ? CLI_INVARIANT : silent ? CLI_FAILED : CLI_OK;
}
