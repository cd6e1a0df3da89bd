/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice deny` and `sluice allow`: the two lists of prefixes, the same verbs for both. A list may have a million entries, so it is
 * printed as its pages come.
 */
#include <stdlib.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/table.h"

#define ABOUT_MAX 128
#define PAGE "1000"

enum add_option { ADD_TTL, ADD_REASON };

static const struct cli_option add_options[] = {
	[ADD_TTL] = {"ttl", "DURATION", "until when: 90, 90s, 15m, 2h, 7d from now (for ever)", false},
	[ADD_REASON] = {"reason", "TEXT", "why, for those who read the list", false},
	{NULL, NULL, NULL, false},
};

static const struct cli_column columns[] = {
	{"PREFIX", "prefix", false},
	{"HITS", "hits", true},
	{"EXPIRES", "expires_at", false},
	{"REASON", "reason", false},
	{NULL, NULL, false},
};

struct printing {
	struct cli_table *table; /* NULL with -o json */
	struct cli_json_list json;
};

static int print_entry(const json_t *entry, void *arg)
{
	struct printing *printing = arg;

	if (printing->table)
		cli_table_add_json(printing->table, entry);
	else
		cli_json_list_add(&printing->json, entry);
	return 0;
}

static int print_page(const json_t *next, void *arg)
{
	struct printing *printing = arg;

	(void)next;
	if (printing->table)
		cli_table_flush(printing->table);
	return 0;
}

static int run_list(const struct cli_call *call)
{
	struct printing printing = {.json = {.out = call->out, .name = "entries"}};
	char about[ABOUT_MAX];
	struct cli_api_walk walk = {about, "entries", print_entry, print_page, &printing};
	int code;

	snprintf(about, sizeof(about), "%s list", call->noun->name);
	if (!call->globals->json)
		printing.table = cli_table_new(call->out, columns);
	code = cli_api_walk(call->api, cli_api_path("/v1/lists/%s?limit=" PAGE, call->noun->name), &walk);
	cli_table_free(printing.table); /* its pages are printed */
	/* After a failure in the middle the JSON stays open: half a list must not parse as a whole one. */
	if (!printing.table && !code)
		cli_json_list_end(&printing.json, NULL);
	return code;
}

static int run_add(const struct cli_call *call)
{
	char about[ABOUT_MAX];
	uint64_t ttl_s = 0;
	json_t *body, *answer;
	int code = cli_option_duration_s(call, ADD_TTL, &ttl_s);

	if (code)
		return code;
	if (call->value[ADD_TTL] && !ttl_s)
		return cli_usage(call,
			"--ttl: an entry must last at least one second (leave --ttl out for one that never expires)");
	snprintf(about, sizeof(about), "%s list, %s", call->noun->name, call->operand[0]);
	body = json_object();
	if (call->value[ADD_TTL])
		json_object_set_new(body, "ttl_seconds", json_integer((json_int_t)ttl_s));
	if (call->value[ADD_REASON])
		json_object_set_new(body, "reason", json_string(call->value[ADD_REASON]));
	code = cli_api_ask(call->api, about, "PUT", cli_api_path("/v1/lists/%s/%s", call->noun->name, call->operand[0]),
		body, &answer);
	return code ? code : cli_print_answer(call, answer);
}

static int run_rm(const struct cli_call *call)
{
	char about[ABOUT_MAX];
	int code;

	snprintf(about, sizeof(about), "%s list, %s", call->noun->name, call->operand[0]);
	code = cli_api_ask(call->api, about, "DELETE",
		cli_api_path("/v1/lists/%s/%s", call->noun->name, call->operand[0]), NULL, NULL);
	if (!code)
		cli_say("%s: removed", about);
	return code;
}

static const struct cli_verb verbs[] = {
	{"add", "PREFIX", "192.0.2.0/24, 2001:db8::/32 or one address; an entry that is there is replaced", 1, 1,
		add_options, run_add},
	{"rm", "PREFIX", "remove an entry", 1, 1, NULL, run_rm},
	{"list", "", "all entries", 0, 0, NULL, run_list},
	{NULL, NULL, NULL, 0, 0, NULL, NULL},
};

const struct cli_noun cli_noun_deny = {"deny", "Sources that are dropped", verbs};
const struct cli_noun cli_noun_allow = {"allow", "Sources that are beyond deny list and rates", verbs};
