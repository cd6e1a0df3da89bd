/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice deny` and `sluice allow`: the two lists of prefixes, the same verbs for both. A list may have a million entries, so it is
 * printed as its pages come.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/list.h"
#include "cli/table.h"
#include "common/addr.h"
#include "common/lists.h"

#define ABOUT_MAX 128
#define PAGE "1000"

enum add_option { ADD_TTL, ADD_REASON, ADD_FORCE };

static const struct cli_option add_options[] = {
	[ADD_TTL] = {"ttl", "DURATION", "until when: 90, 90s, 15m, 2h, 7d from now (for ever)", false},
	[ADD_REASON] = {"reason", "TEXT", "why, for those who read the list; cut after 31 bytes", false},
	[ADD_FORCE] = {"force", NULL, "also if wider than an IPv4 /8 or an IPv6 /16", false},
	{NULL, NULL, NULL, false},
};

enum list_option { LIST_LABEL };

static const struct cli_option list_options[] = {
	[LIST_LABEL] = {"label", "TEXT", "only entries with this label", false},
	{NULL, NULL, NULL, false},
};

enum export_option { EXPORT_LABEL, EXPORT_FORMAT };

static const struct cli_option export_options[] = {
	[EXPORT_LABEL] = {"label", "TEXT", "only entries with this label", false},
	[EXPORT_FORMAT] = {"format", "FORMAT", "csv (all there is to an entry but its hits) or netset (prefixes alone)",
		false},
	{NULL, NULL, NULL, false},
};

static const struct cli_column columns[] = {
	{"PREFIX", "prefix", false},
	{"HITS", "hits", true},
	{"EXPIRES", "expires_at", false},
	{"LABEL", "label", false},
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

static char *list_path(const struct cli_call *call, const char *label)
{
	return label ? cli_api_path("/v1/lists/%s?limit=" PAGE "&label=%s", call->noun->name, label)
		     : cli_api_path("/v1/lists/%s?limit=" PAGE, call->noun->name);
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
	code = cli_api_walk(call->api, list_path(call, call->value[LIST_LABEL]), &walk);
	cli_table_free(printing.table); /* its pages are printed */
	/* After a failure in the middle the JSON stays open: half a list must not parse as a whole one. */
	if (!printing.table && !code)
		cli_json_list_end(&printing.json, NULL);
	return code;
}

/* A text of the gate is not always one of ours: a control character would be a bad line for the import, so it becomes a blank. */
static void print_quoted(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text; text++) {
		if (*text == '"')
			fputc('"', out);
		fputc(iscntrl((unsigned char)*text) ? ' ' : *text, out);
	}
	fputc('"', out);
}

static const char *text_of(const json_t *entry, const char *name)
{
	const char *text = json_string_value(json_object_get(entry, name));

	return text ? text : "";
}

static int export_csv(const json_t *entry, void *arg)
{
	FILE *out = arg;
	const char *label = text_of(entry, "label"), *reason = text_of(entry, "reason");

	fprintf(out, "%s,%s,", text_of(entry, "prefix"), text_of(entry, "expires_at"));
	print_quoted(out, label);
	fputc(',', out);
	print_quoted(out, strcmp(reason, label) ? reason : "");
	fputc('\n', out);
	return 0;
}

static int export_prefix(const json_t *entry, void *arg)
{
	fprintf(arg, "%s\n", text_of(entry, "prefix"));
	return 0;
}

/* What comes out goes in again by `import --force`: an entry may be as wide as somebody meant it to be. */
static int run_export(const struct cli_call *call)
{
	const char *format = call->value[EXPORT_FORMAT] ? call->value[EXPORT_FORMAT] : "csv";
	bool csv = !strcmp(format, "csv");
	char about[ABOUT_MAX];
	struct cli_api_walk walk = {about, "entries", csv ? export_csv : export_prefix, NULL, call->out};

	if (!csv && strcmp(format, "netset") != 0)
		return cli_usage(call, "--format is csv or netset, not \"%s\"", format);
	if (call->globals->json)
		return cli_usage(call, "an export is CSV or netset (\"list -o json\" prints JSON)");
	snprintf(about, sizeof(about), "%s list", call->noun->name);
	if (csv)
		fputs("prefix,expires_at,label,reason\n", call->out);
	return cli_api_walk(call->api, list_path(call, call->value[EXPORT_LABEL]), &walk);
}

static const struct cli_column label_columns[] = {
	{"LABEL", "label", false},
	{"ENTRIES", "entries", true},
	{"HITS", "hits", true},
	{"LAST EXPIRES", "last_expires_at", false},
	{NULL, NULL, false},
};

static int run_labels(const struct cli_call *call)
{
	struct cli_table *table;
	char about[ABOUT_MAX];
	json_t *answer, *label;
	json_int_t others;
	size_t i;
	int code;

	snprintf(about, sizeof(about), "%s list", call->noun->name);
	code = cli_api_ask(
		call->api, about, "GET", cli_api_path("/v1/lists/%s/labels", call->noun->name), NULL, &answer);
	if (code || call->globals->json)
		return code ? code : cli_print_answer(call, answer);
	table = cli_table_new(call->out, label_columns);
	json_array_foreach(json_object_get(answer, "labels"), i, label) {
		cli_table_add_json(table, label);
	}
	cli_table_end(table);
	others = json_integer_value(json_object_get(answer, "others"));
	if (others)
		cli_say(others == 1 ? "%lld entry has another label" : "%lld entries have other labels",
			(long long)others);
	json_decref(answer);
	return CLI_OK;
}

static int run_undo(const struct cli_call *call)
{
	char about[ABOUT_MAX];
	json_t *answer;
	int code;

	snprintf(about, sizeof(about), "%s list, label %s", call->noun->name, call->operand[0]);
	code = cli_api_ask(call->api, about, "DELETE",
		cli_api_path("/v1/lists/%s?label=%s", call->noun->name, call->operand[0]), NULL, &answer);
	return code ? code : cli_print_answer(call, answer);
}

/* One slip would shut everybody out, or let everybody past the rates. What cannot be read as a prefix is for the daemon to refuse. */
static bool is_wide(const char *text)
{
	struct sluice_addr addr;
	unsigned len;

	return !prefix_parse(text, &addr, &len) && lists_is_wide(&addr, len);
}

/* In the middle of an attack an entry with half a reason is better than none. */
static json_t *reason_that_fits(const char *reason)
{
	size_t length = strlen(reason);

	if (length <= LISTS_LABEL_MAX)
		return json_string(reason);
	length = LISTS_LABEL_MAX;
	while (length && ((unsigned char)reason[length] & 0xc0) == 0x80) /* not within a character of UTF-8 */
		length--;
	cli_say("the reason is cut after %zu bytes", length);
	return json_stringn(reason, length);
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
	if (!call->value[ADD_FORCE] && is_wide(call->operand[0]))
		return cli_usage(call, "%s is wider than an IPv4 /8 or an IPv6 /16: --force, if that is meant",
			call->operand[0]);
	snprintf(about, sizeof(about), "%s list, %s", call->noun->name, call->operand[0]);
	body = json_object();
	if (call->value[ADD_TTL])
		json_object_set_new(body, "ttl_seconds", json_integer((json_int_t)ttl_s));
	if (call->value[ADD_REASON])
		json_object_set_new(body, "reason", reason_that_fits(call->value[ADD_REASON]));
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
	{"list", "", "all entries", 0, 0, list_options, run_list},
	{"import", "[FILE|-]", "entries from a file, or standard input: netset, ipset save, CSV, ranges", 0, 1,
		cli_list_import_options, cli_list_import},
	{"export", "", "all entries, for another machine or tool (import --force)", 0, 0, export_options, run_export},
	{"undo", "LABEL", "remove all entries with this label", 1, 1, NULL, run_undo},
	{"labels", "", "how many entries each label has", 0, 0, NULL, run_labels},
	{NULL, NULL, NULL, 0, 0, NULL, NULL},
};

const struct cli_noun cli_noun_deny = {"deny", "Sources that are dropped", verbs};
const struct cli_noun cli_noun_allow = {"allow", "Sources that are beyond deny list and rates", verbs};
