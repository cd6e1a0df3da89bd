/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice order`: what the ledger holds. One page unless --all is given, which streams them all. */
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/table.h"

#define ABOUT_MAX 128
#define PAGE "1000"

enum list_option { LIST_SALE, LIST_STATE, LIST_ALL };

static const struct cli_option list_options[] = {
	[LIST_SALE] = {"sale", "SLUG", "only of this sale", false},
	[LIST_STATE] = {"state", "STATE", "only in this state: held, confirmed, cancelled, expired or refunded", false},
	[LIST_ALL] = {"all", NULL, "every order, not just the first " PAGE, false},
	{NULL, NULL, NULL, false},
};

static const struct cli_column columns[] = {
	{"ID", "id", false},
	{"SALE", "sale", false},
	{"SEQ", "seq", true},
	{"STATE", "state", false},
	{"QUANTITY", "quantity", true},
	{"BUYER", "buyer", false},
	{"SOURCE", "source", false},
	{"ADMITTED", "admitted_at", false},
	{"COMMITTED", "committed_at", false},
	{NULL, NULL, false},
};

struct printing {
	struct cli_table *table; /* NULL with -o json */
	struct cli_json_list json;
	bool all;
};

static int print_order(const json_t *order, void *arg)
{
	struct printing *printing = arg;

	if (printing->table)
		cli_table_add_json(printing->table, order);
	else
		cli_json_list_add(&printing->json, order);
	return 0;
}

static int print_page(const json_t *next, void *arg)
{
	struct printing *printing = arg;
	bool stop = next && !printing->all;

	if (printing->table)
		cli_table_flush(printing->table);
	else if (stop || !next)
		cli_json_list_end(&printing->json, next);
	if (stop)
		cli_say("these are the first " PAGE " orders: --all lists every one");
	return stop;
}

static int run_list(const struct cli_call *call)
{
	struct printing printing = {.json = {.out = call->out, .name = "orders"}, .all = call->value[LIST_ALL] != NULL};
	struct cli_api_walk walk = {"orders", "orders", print_order, print_page, &printing};
	const char *sale = call->value[LIST_SALE], *state = call->value[LIST_STATE];
	char *path;
	int code;

	if (sale && state)
		path = cli_api_path("/v1/orders?limit=" PAGE "&sale=%s&state=%s", sale, state);
	else if (sale)
		path = cli_api_path("/v1/orders?limit=" PAGE "&sale=%s", sale);
	else if (state)
		path = cli_api_path("/v1/orders?limit=" PAGE "&state=%s", state);
	else
		path = cli_api_path("/v1/orders?limit=" PAGE);
	if (!call->globals->json)
		printing.table = cli_table_new(call->out, columns);
	code = cli_api_walk(call->api, path, &walk);
	cli_table_free(printing.table); /* its pages are printed */
	return code;
}

static int run_show(const struct cli_call *call)
{
	char about[ABOUT_MAX];
	json_t *answer;
	int code;

	snprintf(about, sizeof(about), "order \"%s\"", call->operand[0]);
	code = cli_api_ask(call->api, about, "GET", cli_api_path("/v1/orders/%s", call->operand[0]), NULL, &answer);
	return code ? code : cli_print_answer(call, answer);
}

static const struct cli_verb verbs[] = {
	{"list", "", "orders as they were made durable", 0, 0, list_options, run_list},
	{"show", "ID", "one order", 1, 1, NULL, run_show},
	{NULL, NULL, NULL, 0, 0, NULL, NULL},
};

const struct cli_noun cli_noun_order = {"order", "Orders", verbs};
