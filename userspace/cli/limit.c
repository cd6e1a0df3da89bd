/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice limit`: the rates of the gate, changed while it runs. */
#include <math.h>
#include <stdlib.h>

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

static int print_limits(const struct cli_call *call, json_t *answer)
{
	struct cli_table *table;

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
			(const char *const[]){
				name, rate > 0 ? rate_text : "off", rate > 0 ? burst_text : NULL, meaning[i]});
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

static const struct cli_verb verbs[] = {
	{"show", "", "the limits in force", 0, 0, NULL, run_show},
	{"set", "LIMIT RATE", "RATE per second, or off; in force from the next packet on", 2, 2, set_options, run_set},
	{NULL, NULL, NULL, 0, 0, NULL, NULL},
};

const struct cli_noun cli_noun_limit = {"limit", "Rates", verbs};
