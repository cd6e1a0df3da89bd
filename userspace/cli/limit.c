/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice limit`: the rates of the gate and their shadow mode, changed while it runs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/table.h"
#include "common/config.h"

#define BURST_MAX 1000000

enum set_option { SET_BURST };

static const struct cli_option set_options[] = {
	[SET_BURST] = {"burst", "N", "how many may come at once (as before; if it was off, one second's worth)", false},
	{NULL, NULL, NULL, false},
};

static const struct cli_column columns[] = {
	{"LIMIT", "", false},
	{"RATE/S", "", true},
	{"BURST", "", true},
	{"SHADOW", "", false},
	{"WHAT IT COUNTS", "", false},
	{NULL, NULL, false},
};

static const char *const meaning[SLUICE_LIMIT_COUNT] = {
	[SLUICE_LIMIT_SOURCE] = "requests per IPv4 address or IPv6 /64, after the handshake",
	[SLUICE_LIMIT_PREFIX] = "requests per IPv4 /24 or IPv6 /48, after the handshake",
	[SLUICE_LIMIT_TOKEN] = "order attempts per token",
	[SLUICE_LIMIT_ANSWER] = "429 answers per source; beyond it the gate is silent",
	[SLUICE_LIMIT_SYN_PREFIX] = "SYNs per IPv4 /24 or IPv6 /48",
	[SLUICE_LIMIT_SYN_GLOBAL] = "SYNs in all",
};

/* What has a shadow mode and no rate here. */
static const struct {
	const char *name, *meaning;
} others[] = {
	{"pace", "the pace of every sale (sluice sale set --pace)"},
	{"deny", "the deny list (sluice deny)"},
};

static const char *shadow_text(const json_t *limit)
{
	return json_is_true(json_object_get(limit, "shadow")) ? "on" : "off";
}

static int print_limits(const struct cli_call *call, json_t *answer)
{
	bool all = json_is_true(json_object_get(answer, "shadow"));
	struct cli_table *table;

	/* Also for those who read only standard error. */
	if (all)
		cli_say("warning: the whole gate is in shadow mode: it refuses nobody (\"sluice limit shadow all off\" ends it)");
	if (call->globals->json)
		return cli_print_answer(call, answer);
	table = cli_table_new(call->out, columns);
	for (unsigned i = 0; i < SLUICE_LIMIT_COUNT; i++) {
		const char *name = config_limit_name((enum sluice_limit_id)i);
		const json_t *limit = json_object_get(answer, name);
		double rate = json_number_value(json_object_get(limit, "rate"));
		char rate_text[32], burst_text[32];

		if (!limit)
			continue;
		snprintf(rate_text, sizeof(rate_text), "%.6g", rate);
		snprintf(burst_text, sizeof(burst_text), "%lld",
			(long long)json_integer_value(json_object_get(limit, "burst")));
		cli_table_add(table,
			(const char *const[]){name, rate > 0 ? rate_text : "off", rate > 0 ? burst_text : NULL,
				all ? "ALL" : shadow_text(limit), meaning[i]});
	}
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		const json_t *other = json_object_get(answer, others[i].name);

		if (other)
			cli_table_add(table,
				(const char *const[]){others[i].name, NULL, NULL, all ? "ALL" : shadow_text(other),
					others[i].meaning});
	}
	cli_table_end(table);
	json_decref(answer);
	return CLI_OK;
}

static int run_show(const struct cli_call *call)
{
	json_t *answer;
	int code = cli_api_ask(call->api, "limits", "GET", cli_api_path("/v1/limits"), NULL, &answer);

	return code ? code : print_limits(call, answer);
}

/* The burst that stays if none is given: that in force, or one second's worth where there was no limit. */
static int present_burst(const struct cli_call *call, const char *thing, double rate, uint64_t *burst)
{
	json_t *answer;
	const json_t *limit;
	int code = cli_api_ask(call->api, thing, "GET", cli_api_path("/v1/limits"), NULL, &answer);

	if (code)
		return code;
	limit = json_object_get(answer, call->operand[0]);
	if (json_number_value(json_object_get(limit, "rate")) > 0)
		*burst = (uint64_t)json_integer_value(json_object_get(limit, "burst"));
	else
		*burst = (uint64_t)fmin(BURST_MAX, ceil(rate));
	if (!*burst)
		*burst = 1;
	json_decref(answer);
	return CLI_OK;
}

static int run_set(const struct cli_call *call)
{
	char thing[64];
	double rate;
	uint64_t burst = 1;
	json_t *answer;
	int code;

	if (config_limit_id(call->operand[0]) < 0)
		return cli_usage(call, "there is no limit \"%s\" (\"sluice limit show\" lists them)", call->operand[0]);
	if (cli_parse_rate(call->operand[1], &rate))
		return cli_usage(call, "RATE: \"%s\" is not \"off\" or a number per second from 0.001 to 1000000000",
			call->operand[1]);
	code = cli_option_count(call, SET_BURST, 1, BURST_MAX, &burst);
	if (code)
		return code;
	snprintf(thing, sizeof(thing), "limit \"%s\"", call->operand[0]);
	if (!call->value[SET_BURST] && rate > 0)
		code = present_burst(call, thing, rate, &burst);
	if (code)
		return code;
	code = cli_api_ask(call->api, thing, "PATCH", cli_api_path("/v1/limits"),
		json_pack("{s{sfsI}}", call->operand[0], "rate", rate, "burst", (json_int_t)burst), &answer);
	return code ? code : print_limits(call, answer);
}

static bool has_shadow(const char *name)
{
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (!strcmp(others[i].name, name))
			return true;
	return config_limit_id(name) >= 0;
}

static int run_shadow(const struct cli_call *call)
{
	const char *name = call->operand[0], *word = call->operand[1];
	bool all = !strcmp(name, "all"), on = !strcmp(word, "on");
	char thing[64];
	json_t *answer;
	int code;

	if (!all && !has_shadow(name))
		return cli_usage(call,
			"there is no limit \"%s\" (\"sluice limit show\" lists them; all is the whole gate)", name);
	if (!on && strcmp(word, "off") != 0)
		return cli_usage(call, "\"%s\" is not \"on\" or \"off\"", word);
	snprintf(thing, sizeof(thing), "limit \"%s\"", name);
	code = cli_api_ask(call->api, thing, "PATCH", cli_api_path("/v1/limits"),
		all ? json_pack("{sb}", "shadow", on) : json_pack("{s{sb}}", name, "shadow", on), &answer);
	return code ? code : print_limits(call, answer);
}

static const struct cli_verb verbs[] = {
	{"show", "", "the limits in force, and which of them are in shadow mode", 0, 0, NULL, run_show},
	{"list", "", "the same", 0, 0, NULL, run_show},
	{"set", "LIMIT RATE", "RATE per second, or off; in force from the next packet on", 2, 2, set_options, run_set},
	{"shadow", "LIMIT|all on|off", "on: what is over the limit passes and is only counted; all: the whole gate", 2,
		2, NULL, run_shadow},
	{NULL, NULL, NULL, 0, 0, NULL, NULL},
};

const struct cli_noun cli_noun_limit = {"limit", "Rates", verbs};
