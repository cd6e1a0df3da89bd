/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice node`: the nodes of the fleet, as this one has heard of them. */
#include "cli/api.h"
#include "cli/cli.h"
#include "cli/node_fence.h"
#include "cli/table.h"

static const struct cli_column columns[] = {
	{"ID", "id", true},
	{"URL", "url", false},
	{"STATE", "state", false},
	{"SEEN s", "seen_seconds_ago", true},
	{"VERSION", "version", false},
	{"LEDGER", "ledger", false},
	{"SALES", "sales", true},
	{"ORDERS", "orders_durable", true},
	{"PER s", "orders_per_second", true},
	{"LAG", "stream_lag", true},
	{NULL, NULL, false},
};

static const struct cli_column lease_columns[] = {
	{"NODE", "node", true},
	{"SALE", "sale", false},
	{"LEASED", "balance", true},
	{"SOLD", "sold", true},
	{"EPOCH", "epoch", true},
	{"PER s", "rate", true},
	{"FENCED", "fenced", false},
	{"TROUBLE", "trouble", false},
	{NULL, NULL, false},
};

static void print_leases(FILE *out, json_t *nodes)
{
	struct cli_table *table = NULL;
	json_t *node, *lease;
	size_t i, k;

	json_array_foreach(nodes, i, node) {
		json_array_foreach(json_object_get(node, "leases"), k, lease) {
			if (!table) {
				fputc('\n', out);
				table = cli_table_new(out, lease_columns);
			}
			json_object_set(lease, "node", json_object_get(node, "id"));
			cli_table_add_json(table, lease);
		}
	}
	if (table)
		cli_table_end(table);
}

static void print_redis(FILE *out, const json_t *redis)
{
	const char *failure = json_string_value(json_object_get(redis, "failure"));

	if (json_is_true(json_object_get(redis, "connected")))
		fprintf(out, "\nredis: connected\n");
	else
		fprintf(out, "\nredis: away for %lld s: %s\n",
			(long long)json_integer_value(json_object_get(redis, "away_seconds")),
			failure ? failure : "not asked yet");
}

static int run_list(const struct cli_call *call)
{
	json_t *answer, *nodes, *row;
	struct cli_table *table;
	size_t i;
	int code = cli_api_ask(call->api, "nodes", "GET", cli_api_path("/v1/nodes"), NULL, &answer);

	if (code || call->globals->json)
		return code ? code : cli_print_answer(call, answer);
	nodes = json_object_get(answer, "nodes");
	table = cli_table_new(call->out, columns);
	json_array_foreach(nodes, i, row) {
		cli_table_add_json(table, row);
	}
	cli_table_end(table);
	print_leases(call->out, nodes);
	print_redis(call->out, json_object_get(answer, "redis"));
	json_decref(answer);
	return CLI_OK;
}

static const struct cli_verb verbs[] = {
	{"list", "", "every node: when it was heard of last, what it sells, what it holds", 0, 0, NULL, run_list},
	NODE_FENCE_VERB,
	{NULL, NULL, NULL, 0, 0, NULL, NULL},
};

const struct cli_noun cli_noun_node = {"node", "Nodes of a fleet", verbs};
