/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice stock`: the units of a sale, and the equation that must hold between them. */
#include <stdlib.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/table.h"

#define ABOUT_MAX 192

enum move_option { MOVE_REASON };

static const struct cli_option move_options[] = {
	[MOVE_REASON] = {"reason", "TEXT", "why, for the ledger", false},
	{NULL, NULL, NULL, false},
};

static const char *about(const struct cli_call *call, char *text)
{
	snprintf(text, ABOUT_MAX, "stock of \"%s\"", call->operand[0]);
	return text;
}

static int64_t member(const json_t *answer, const char *name)
{
	return json_integer_value(json_object_get(answer, name));
}

/* Units that are neither free nor in an order are a broken promise, once nothing is on its way to the ledger. */
static int check_balance(const char *thing, const json_t *answer)
{
	if (!json_is_false(json_object_get(answer, "balanced")))
		return CLI_OK;
	if (member(answer, "in_flight")) {
		cli_say("%s: %lld admissions are on their way to the ledger; the sum is complete when they are there",
			thing, (long long)member(answer, "in_flight"));
		return CLI_OK;
	}
	cli_say("%s: BROKEN INVARIANT: put in %lld, but free %lld + held %lld + confirmed %lld = %lld", thing,
		(long long)member(answer, "put_in"), (long long)member(answer, "free"),
		(long long)member(answer, "held"), (long long)member(answer, "confirmed"),
		(long long)(member(answer, "free") + member(answer, "held") + member(answer, "confirmed")));
	return CLI_INVARIANT;
}

static int print_stock(const struct cli_call *call, const char *thing, json_t *answer)
{
	int code = check_balance(thing, answer);

	cli_print_answer(call, answer);
	return code;
}

static int run_show(const struct cli_call *call)
{
	char text[ABOUT_MAX];
	const char *thing = about(call, text);
	json_t *answer;
	int code = cli_api_ask(
		call->api, thing, "GET", cli_api_path("/v1/sales/%s/stock", call->operand[0]), NULL, &answer);

	return code ? code : print_stock(call, thing, answer);
}

static int move(const struct cli_call *call, int sign)
{
	char text[ABOUT_MAX];
	const char *thing = about(call, text);
	uint64_t count = 0;
	json_t *body, *answer;
	int code = cli_operand_count(call, 1, 1, CLI_COUNT_MAX, &count);

	if (code)
		return code;
	body = json_pack("{sI}", "delta", (json_int_t)count * sign);
	if (call->value[MOVE_REASON])
		json_object_set_new(body, "reason", json_string(call->value[MOVE_REASON]));
	code = cli_api_ask(
		call->api, thing, "POST", cli_api_path("/v1/sales/%s/stock", call->operand[0]), body, &answer);
	if (code)
		return code;
	cli_say("%s: %llu units %s", thing, (unsigned long long)count, sign > 0 ? "put in" : "taken away");
	return print_stock(call, thing, answer);
}

static int run_add(const struct cli_call *call)
{
	return move(call, 1);
}

static int run_remove(const struct cli_call *call)
{
	return move(call, -1);
}

static const struct cli_verb verbs[] = {
	{"show", "SLUG", "units put in, free, held, confirmed; exit code 7 if they do not add up", 1, 1, NULL,
		run_show},
	{"add", "SLUG N", "put N units in", 2, 2, move_options, run_add},
	{"remove", "SLUG N", "take N free units away; all of them or none", 2, 2, move_options, run_remove},
	{NULL, NULL, NULL, 0, 0, NULL, NULL},
};

const struct cli_noun cli_noun_stock = {"stock", "Stock of a sale", verbs};
