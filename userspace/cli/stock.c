/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice stock`: the units of a sale, and the equation that must hold between them. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/table.h"

#define ABOUT_MAX 192
#define LOOKS 5 /* a second apart, before a sum that is off is called moving or broken */

enum move_option { MOVE_REASON, MOVE_KEY };

static const struct cli_option move_options[] = {
	[MOVE_REASON] = {"reason", "TEXT", "why, for the ledger", false},
	[MOVE_KEY] = {"key", "KEY", CLI_KEY_HELP, false},
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

static int ask(const struct cli_call *call, const char *thing, json_t **answer)
{
	return cli_api_ask(call->api, thing, "GET", cli_api_path("/v1/sales/%s/stock", call->operand[0]), NULL, answer);
}

static int64_t sum(const json_t *stock)
{
	return member(stock, "free") + member(stock, "held") + member(stock, "confirmed") + member(stock, "in_flight");
}

/* Units that are neither free nor in an order are a broken promise. But an admission may be between two counters at the moment of a look:
 * only orders beyond the stock, or a sum that stays off while nothing moves, are a breach. *stock becomes the last look.
 */
static int check_balance(const struct cli_call *call, const char *thing, json_t **stock)
{
	for (int look = 1; json_is_false(json_object_get(*stock, "balanced")); look++) {
		bool oversold = member(*stock, "held") + member(*stock, "confirmed") > member(*stock, "put_in");
		bool still = false;
		json_t *before;

		if (!oversold && look < LOOKS) {
			int code;

			before = *stock;
			sleep(1);
			code = ask(call, thing, stock);
			if (code) {
				*stock = before;
				return code;
			}
			still = json_equal(before, *stock) && !member(*stock, "in_flight");
			json_decref(before);
		}
		if (oversold || still) {
			cli_say("%s: BROKEN INVARIANT: put in %" PRId64 ", but free %" PRId64 " + held %" PRId64
				" + confirmed %" PRId64 " + in flight %" PRId64 " = %" PRId64,
				thing, member(*stock, "put_in"), member(*stock, "free"), member(*stock, "held"),
				member(*stock, "confirmed"), member(*stock, "in_flight"), sum(*stock));
			return CLI_INVARIANT;
		}
		if (look >= LOOKS) {
			cli_say("%s: %d looks did not catch it at rest; look again when the rush is over", thing,
				LOOKS);
			return CLI_OK;
		}
	}
	return CLI_OK;
}

static int print_stock(const struct cli_call *call, const char *thing, json_t *answer)
{
	int code = check_balance(call, thing, &answer);

	cli_print_answer(call, answer);
	return code;
}

static int run_show(const struct cli_call *call)
{
	char text[ABOUT_MAX];
	const char *thing = about(call, text);
	json_t *answer;
	int code = ask(call, thing, &answer);

	return code ? code : print_stock(call, thing, answer);
}

static int move(const struct cli_call *call, int sign)
{
	char text[ABOUT_MAX], key[CLI_KEY_MAX + 1];
	const char *thing = about(call, text);
	uint64_t count = 0;
	json_t *body, *answer;
	int code = cli_operand_count(call, 1, 1, CLI_COUNT_MAX, &count);

	if (!code)
		code = cli_option_key(call, MOVE_KEY, key);
	if (code)
		return code;
	body = json_pack("{sI}", "delta", (json_int_t)count * sign);
	if (call->value[MOVE_REASON])
		json_object_set_new(body, "reason", json_string(call->value[MOVE_REASON]));
	cli_api_name_change(call->api, key);
	code = cli_api_ask(
		call->api, thing, "POST", cli_api_path("/v1/sales/%s/stock", call->operand[0]), body, &answer);
	cli_api_say_key(call->api, key);
	if (code)
		return code;
	cli_say("%s: %" PRIu64 " unit%s %s", thing, count, cli_plural(count), sign > 0 ? "put in" : "taken away");
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
