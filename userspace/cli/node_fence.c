/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice node fence`: a node that does not come back, or not soon, and what it has sold.
 *
 * Its unsold units go back to the others, but never more than is known: units that it may have sold count as sold. Its ledger knows, where it can
 * still be read.
 */
#include "cli/node_fence.h"

#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/table.h"
#include "cli/verify.h"
#include "common/config.h"

#define ABOUT_MAX 96

enum fence_option { FENCE_SALE, FENCE_SOLD, FENCE_LEDGER, FENCE_NOTHING, FENCE_FORCE };

const struct cli_option node_fence_options[] = {
	[FENCE_SALE] = {"sale", "SLUG", "only this sale (every one)", false},
	[FENCE_SOLD] = {"sold", "N",
		"with --sale: units that the node has sold; the rest of what it held goes to the others", false},
	[FENCE_LEDGER] = {"ledger", "FILE",
		"the node's ledger (SQLite), which is only read: what it has sold stands there", false},
	[FENCE_NOTHING] = {"nothing", NULL, "nothing is known: all that it held counts as sold until it comes back",
		false},
	[FENCE_FORCE] = {"force", NULL, "also a node that has been heard of in the last seconds", false},
	{NULL, NULL, NULL, false},
};

static const struct cli_column columns[] = {
	{"SALE", "sale", false},
	{"RESULT", "result", false},
	{"HELD", "balance", true},
	{"SOLD", "sold", true},
	{"GIVEN BACK", "given_back", true},
	{"EPOCH", "epoch", true},
	{NULL, NULL, false},
};

static int check_options(const struct cli_call *call)
{
	bool sold = call->value[FENCE_SOLD], ledger = call->value[FENCE_LEDGER], nothing = call->value[FENCE_NOTHING];

	if (sold + ledger + nothing != 1)
		return cli_usage(call, "say what the node has sold: one of --sold N, --ledger FILE, --nothing");
	if (sold && !call->value[FENCE_SALE])
		return cli_usage(call, "--sold is a number of one sale: name it with --sale");
	return CLI_OK;
}

/* Asks for one sale, or with `slug` NULL for all, and adds what came to `rows`. */
static int fence(const struct cli_call *call, uint64_t node, const char *slug, const uint64_t *sold,
	const json_t *heard, json_t *rows)
{
	char text[ABOUT_MAX], id[24];
	json_t *body = json_object(), *answer;
	int code;

	snprintf(text, sizeof(text), "node %s%s%.63s", call->operand[0], slug ? ", sale " : "", slug ? slug : "");
	snprintf(id, sizeof(id), "%llu", (unsigned long long)node);
	if (slug)
		json_object_set_new(body, "sale", json_string(slug));
	if (sold)
		json_object_set_new(body, "sold", json_integer((json_int_t)*sold));
	else
		json_object_set_new(body, "nothing", json_true());
	if (call->value[FENCE_LEDGER])
		json_object_set_new(body, "exact", json_true());
	if (heard)
		json_object_set(body, "heard", (json_t *)(uintptr_t)heard);
	if (call->value[FENCE_FORCE])
		json_object_set_new(body, "force", json_true());
	code = cli_api_ask(call->api, text, "POST", cli_api_path("/v1/nodes/%s/fence", id), body, &answer);
	if (!code)
		json_array_extend(rows, json_object_get(answer, "sales"));
	if (!code)
		json_decref(answer);
	return code;
}

/* What Redis has of the node in a sale, NULL if nothing. */
static const json_t *row_of(const json_t *fleet, const char *node, const char *slug)
{
	json_t *sale;
	size_t i;

	json_array_foreach(json_object_get(fleet, "sales"), i, sale) {
		const char *name = json_string_value(json_object_get(sale, "sale"));

		if (name && !strcmp(name, slug))
			return json_object_get(json_object_get(sale, "nodes"), node);
	}
	return NULL;
}

static const struct verify_sale *sale_of(const struct verify_ledger *ledger, const char *slug)
{
	for (size_t i = 0; i < ledger->sale_count; i++)
		if (!strcmp(ledger->sales[i].slug, slug))
			return &ledger->sales[i];
	return NULL;
}

/* What has left the stock for good, or may: units in live orders, and those that a refund took out of it. */
static uint64_t sold_of(const struct verify_sale *sale)
{
	return (uint64_t)(sale->held + sale->confirmed + sale->refunded);
}

static json_int_t number(const json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

/* Whether the book can be the last one of the node of which Redis has that row. Redis does a grant before the ledger has it, and a return
 * after, one at a time; so what differs is that one operation. Another node's book, or that of an older copy, differs by more.
 */
static bool is_last_book(const struct verify_sale *sale, const json_t *row)
{
	const json_t *book = sale ? sale->lease : NULL;
	json_int_t ahead = number(book, "seq") - number(row, "seq"), balance = number(book, "balance");

	/* It lacks operations or orders that the node has said that its ledger has. That is so whatever was lost or fenced since. */
	if (!book || number(book, "seq") + sale->orders < number(row, "written"))
		return false;
	/* Redis has lost its data, and what the row says is of before; or it was fenced, and what it sells since then nobody counts. */
	if (!json_is_true(json_object_get(row, "settled")) || json_is_true(json_object_get(row, "fenced")))
		return true;
	if (number(book, "epoch") != number(row, "epoch"))
		return false;
	if (ahead > 0)
		return ahead == 1 && balance == number(row, "balance") - number(book, "units");
	return balance == number(row, "balance") - (ahead ? number(row, "granted") : 0);
}

/* Looks at all that would be fenced before anything is. */
static int check_ledger(const struct cli_call *call, const json_t *fleet, const struct verify_ledger *ledger)
{
	const char *only = call->value[FENCE_SALE], *file = call->value[FENCE_LEDGER], *node = call->operand[0];
	bool found = false;
	json_t *sale;
	size_t i;

	json_array_foreach(json_object_get(fleet, "sales"), i, sale) {
		const char *slug = json_string_value(json_object_get(sale, "sale"));
		const json_t *row = json_object_get(json_object_get(sale, "nodes"), node);
		const struct verify_sale *in_ledger = slug ? sale_of(ledger, slug) : NULL;

		if (!slug || !row || (only && strcmp(only, slug) != 0) || (!in_ledger && !number(row, "balance")))
			continue;
		found = true;
		if (is_last_book(in_ledger, row))
			continue;
		cli_say("sale %s: %s is not the ledger that node %s wrote last: it is another node's, or an older copy. Its lease there is "
			"operation %lld of epoch %lld with %lld units; Redis has operation %lld of epoch %lld with %lld units. Nothing was "
			"fenced: take the right file, or --nothing",
			slug, file, node, (long long)number(in_ledger ? in_ledger->lease : NULL, "seq"),
			(long long)number(in_ledger ? in_ledger->lease : NULL, "epoch"),
			(long long)number(in_ledger ? in_ledger->lease : NULL, "balance"),
			(long long)number(row, "seq"), (long long)number(row, "epoch"),
			(long long)number(row, "balance"));
		return CLI_CONFLICT;
	}
	if (found)
		return CLI_OK;
	if (only)
		cli_say("the ledger %s has no sale \"%s\" in which Redis knows node %s", file, only, node);
	else
		cli_say("the ledger %s has no sale in which Redis knows node %s", file, node);
	return CLI_NOT_FOUND;
}

static int fence_by_ledger(const struct cli_call *call, uint64_t node, json_t *rows)
{
	const char *only = call->value[FENCE_SALE];
	struct verify_ledger ledger;
	json_t *fleet;
	/* Looked at before the ledger is read: if the node has spoken since then it is not gone, and what was read is old. */
	int code = cli_api_ask(call->api, "the fleet's sales", "GET", cli_api_path("/v1/cluster/sales"), NULL, &fleet);

	if (code)
		return code;
	code = verify_read_file(call->value[FENCE_LEDGER], VERIFY_OF_ANOTHER, &ledger);
	if (code) {
		json_decref(fleet);
		return code;
	}
	code = check_ledger(call, fleet, &ledger);
	for (size_t i = 0; !code && i < ledger.sale_count; i++) {
		const struct verify_sale *sale = &ledger.sales[i];
		const json_t *row = row_of(fleet, call->operand[0], sale->slug);
		uint64_t sold = sold_of(sale);

		/* Its ledger may have sales of before the fleet, or that were never its own. */
		if ((!only || !strcmp(only, sale->slug)) && row)
			code = fence(call, node, sale->slug, &sold, json_object_get(row, "heard"), rows);
	}
	json_decref(fleet);
	verify_ledger_free(&ledger);
	return code;
}

/* Redis knows the node in none of the sales that were asked for. */
static int check_fenced(const struct cli_call *call, const json_t *rows)
{
	const json_t *row;
	size_t i;

	json_array_foreach(rows, i, row)
		if (strcmp(json_string_value(json_object_get(row, "result")) ?: "", "unknown") != 0)
			return CLI_OK;
	cli_say("nothing was fenced: Redis knows node %s in no sale%s%s", call->operand[0],
		call->value[FENCE_SALE] ? " of the name " : "", call->value[FENCE_SALE] ? call->value[FENCE_SALE] : "");
	return CLI_NOT_FOUND;
}

int node_fence_run(const struct cli_call *call)
{
	uint64_t node = 0, sold = 0;
	json_t *rows, *row;
	struct cli_table *table;
	size_t i;
	int code = cli_operand_count(call, 0, 1, CONFIG_NODES_MAX, &node);

	if (!code)
		code = check_options(call);
	if (!code)
		code = cli_option_count(call, FENCE_SOLD, 0, CLI_COUNT_MAX, &sold);
	if (code)
		return code;
	rows = json_array();
	code = call->value[FENCE_LEDGER]
		? fence_by_ledger(call, node, rows)
		: fence(call, node, call->value[FENCE_SALE], call->value[FENCE_SOLD] ? &sold : NULL, NULL, rows);
	/* What was done before something failed is told all the same. */
	if (call->globals->json && (!code || json_array_size(rows))) {
		json_t *all = json_pack("{s:I, s:O}", "node", (json_int_t)node, "sales", rows);

		cli_json_print(call->out, all);
		json_decref(all);
	} else if (json_array_size(rows)) {
		table = cli_table_new(call->out, columns);
		json_array_foreach(rows, i, row)
			cli_table_add_json(table, row);
		cli_table_end(table);
	}
	if (!code)
		code = check_fenced(call, rows);
	json_decref(rows);
	return code;
}
