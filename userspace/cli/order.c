/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice order`: what the ledger holds, and the shop's word on it. A list is one page unless --all is given, which streams them all; an export is
 * written as it comes.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/table.h"
#include "common/timefmt.h"

#define ABOUT_MAX 128
#define PAGE "1000"

enum filter_option { FILTER_SALE, FILTER_STATE, FILTER_BUYER, FILTER_FROM, FILTER_TO, FILTER_COUNT };
enum list_option { LIST_ALL = FILTER_COUNT };
enum export_option { EXPORT_FORMAT = FILTER_COUNT };
enum change_option { CHANGE_KEY };
enum refund_option { REFUND_KEY, REFUND_NO_RESTOCK };

#define FILTER_OPTIONS \
	[FILTER_SALE] = {"sale", "SLUG", "only of this sale", false}, \
	[FILTER_STATE] = {"state", "STATE", "only in this state: held, confirmed, cancelled, expired or refunded", \
		false}, \
	[FILTER_BUYER] = {"buyer", "REFERENCE", "only of this buyer, by the shop's own reference", false}, \
	[FILTER_FROM] = {"from", "TIME", "only made durable at or after this time (RFC 3339)", false}, \
	[FILTER_TO] = {"to", "TIME", "only made durable before this time (RFC 3339)", false}

static const struct cli_option list_options[] = {
	FILTER_OPTIONS,
	[LIST_ALL] = {"all", NULL, "every order, not just the first " PAGE, false},
	{NULL, NULL, NULL, false},
};

static const struct cli_option export_options[] = {
	FILTER_OPTIONS,
	[EXPORT_FORMAT] = {"format", "csv|jsonl", "CSV with a line of names, or one JSON object a line (csv)", false},
	{NULL, NULL, NULL, false},
};

static const struct cli_option change_options[] = {
	[CHANGE_KEY] = {"key", "KEY", CLI_KEY_HELP, false},
	{NULL, NULL, NULL, false},
};

static const struct cli_option refund_options[] = {
	[REFUND_KEY] = {"key", "KEY", CLI_KEY_HELP, false},
	[REFUND_NO_RESTOCK] = {"no-restock", NULL, "the units do not come back into the sale", false},
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
	{"EXPIRES", "expires_at", false},
	{"RESOLVED", "resolved_at", false},
	{"BY", "resolved_by", false},
	{NULL, NULL, false},
};

static char *append(char *path, const char *format, const char *value)
{
	char *more = cli_api_path(format, value);
	char *whole = malloc(strlen(path) + strlen(more) + 1);

	if (!whole) {
		cli_say("out of memory");
		exit(CLI_FAILED);
	}
	strcpy(whole, path);
	strcat(whole, more);
	free(path);
	free(more);
	return whole;
}

/* Adds the filter to `*path`, which has a query already. */
static int add_filter(const struct cli_call *call, char **path)
{
	static const char *const arguments[FILTER_COUNT] = {
		[FILTER_SALE] = "&sale=%s",
		[FILTER_STATE] = "&state=%s",
		[FILTER_BUYER] = "&buyer_reference=%s",
		[FILTER_FROM] = "&from=%s",
		[FILTER_TO] = "&to=%s",
	};

	for (unsigned i = 0; i < FILTER_COUNT; i++) {
		uint64_t wall_ns;

		if (!call->value[i])
			continue;
		if ((i == FILTER_FROM || i == FILTER_TO) && time_parse_rfc3339(call->value[i], &wall_ns))
			return cli_usage(call, "--%s: \"%s\" is not a time like 2026-11-22T12:00:00Z",
				call->verb->options[i].name, call->value[i]);
		*path = append(*path, arguments[i], call->value[i]);
	}
	return CLI_OK;
}

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
	char *path = cli_api_path("/v1/orders?limit=" PAGE);
	int code = add_filter(call, &path);

	if (code) {
		free(path);
		return code;
	}
	if (!call->globals->json)
		printing.table = cli_table_new(call->out, columns);
	code = cli_api_walk(call->api, path, &walk);
	cli_table_free(printing.table); /* its pages are printed */
	return code;
}

static int run_export(const struct cli_call *call)
{
	const char *format = call->value[EXPORT_FORMAT] ? call->value[EXPORT_FORMAT] : "csv";
	char *path;
	int code;

	if (strcmp(format, "csv") != 0 && strcmp(format, "jsonl") != 0)
		return cli_usage(call, "--format: \"%s\" is neither csv nor jsonl", format);
	path = cli_api_path("/v1/orders/export?format=%s", format);
	code = add_filter(call, &path);
	if (!code)
		return cli_api_save(call->api, "orders", path, call->out);
	free(path);
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

/* A change that is asked for twice is made once: its key is said when nobody knows whether it was. */
static int change(const struct cli_call *call, const char *verb, json_t *body)
{
	char about[ABOUT_MAX], key[CLI_KEY_MAX + 1];
	json_t *answer;
	int code = cli_option_key(call, CHANGE_KEY, key);

	if (code) {
		json_decref(body);
		return code;
	}
	snprintf(about, sizeof(about), "order \"%s\"", call->operand[0]);
	cli_api_name_change(call->api, key);
	code = cli_api_ask(call->api, about, "POST",
		append(cli_api_path("/v1/orders/%s", call->operand[0]), "/%s", verb), body, &answer);
	cli_api_say_key(call->api, key);
	return code ? code : cli_print_answer(call, answer);
}

static int run_confirm(const struct cli_call *call)
{
	return change(call, "confirm", NULL);
}

static int run_cancel(const struct cli_call *call)
{
	return change(call, "cancel", NULL);
}

_Static_assert((int)REFUND_KEY == (int)CHANGE_KEY, "change() reads the key of both");

static int run_refund(const struct cli_call *call)
{
	return change(call, "refund", json_pack("{s:b}", "restock", !call->value[REFUND_NO_RESTOCK]));
}

static const struct cli_verb verbs[] = {
	{"list", "", "orders as they were made durable", 0, 0, list_options, run_list},
	{"show", "ID", "one order", 1, 1, NULL, run_show},
	{"confirm", "ID", "it is paid; also after its hold, if a unit is free", 1, 1, change_options, run_confirm},
	{"cancel", "ID", "it will not be paid: its units are for sale again", 1, 1, change_options, run_cancel},
	{"refund", "ID", "a confirmed order is given back", 1, 1, refund_options, run_refund},
	{"export", "", "every order, as a file on standard output", 0, 0, export_options, run_export},
	{NULL, NULL, NULL, 0, 0, NULL, NULL},
};

const struct cli_noun cli_noun_order = {"order", "Orders", verbs};
