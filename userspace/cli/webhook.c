/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice webhook`: whether the shop gets its events, a test of the receiver, another try. */
#include <stdlib.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/table.h"

static const struct cli_column columns[] = {
	{"SALE", "sale", false},
	{"STATE", "state", false},
	{"POSITION", "position", true},
	{"LAG s", "lag_seconds", true},
	{"FAILURES", "failures", true},
	{"STATUS", "last_status", true},
	{"FAILURE", "last_failure", false},
	{"NEXT ATTEMPT", "next_attempt_at", false},
	{NULL, NULL, false},
};

static int print_status(const struct cli_call *call, json_t *answer)
{
	json_t *sales = json_object_get(answer, "sales"), *row;
	const char *url = json_string_value(json_object_get(answer, "url"));
	struct cli_table *table;
	size_t i;

	if (call->globals->json)
		return cli_print_answer(call, answer);
	if (json_array_size(sales)) {
		table = cli_table_new(call->out, columns);
		json_array_foreach(sales, i, row) {
			cli_table_add_json(table, row);
		}
		cli_table_end(table);
		fputc('\n', call->out);
	}
	fprintf(call->out, "%s: %s, %lld delivered and %lld failed since the start, %zu sale%s outstanding\n",
		url ? url : "no webhook_url", json_string_value(json_object_get(answer, "state")) ?: "?",
		(long long)json_integer_value(json_object_get(answer, "delivered")),
		(long long)json_integer_value(json_object_get(answer, "failed")), json_array_size(sales),
		cli_plural(json_array_size(sales)));
	json_decref(answer);
	return CLI_OK;
}

static int run_status(const struct cli_call *call)
{
	json_t *answer;
	int code = cli_api_ask(call->api, "webhooks", "GET", cli_api_path("/v1/webhooks"), NULL, &answer);

	return code ? code : print_status(call, answer);
}

static int run_resume(const struct cli_call *call)
{
	json_t *answer;
	int code = cli_api_ask(call->api, "webhooks", "POST", cli_api_path("/v1/webhooks/resume"), NULL, &answer);

	return code ? code : print_status(call, answer);
}

static int run_test(const struct cli_call *call)
{
	json_t *answer;
	int code = cli_api_ask(call->api, "webhooks", "POST", cli_api_path("/v1/webhooks/test"), NULL, &answer);
	bool delivered;

	if (code)
		return code;
	delivered = json_is_true(json_object_get(answer, "delivered"));
	cli_print_answer(call, answer);
	if (!delivered)
		cli_say("the receiver has not taken it");
	return delivered ? CLI_OK : CLI_FAILED;
}

static const struct cli_verb verbs[] = {
	{"status", "", "how far each sale's events have come; sales without any outstanding are left out", 0, 0, NULL,
		run_status},
	{"test", "", "post a signed test event now; exit code 1 if the receiver does not take it", 0, 0, NULL,
		run_test},
	{"resume", "", "try everything that waits at once, also after the receiver has said 410", 0, 0, NULL,
		run_resume},
	{NULL, NULL, NULL, 0, 0, NULL, NULL},
};

const struct cli_noun cli_noun_webhook = {"webhook", "Events posted to the shop", verbs};
