/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice sale`: the sales of this node and their windows. */
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/table.h"
#include "common/timefmt.h"
#include "sluice/abi.h"

#define ABOUT_MAX 192

enum set_option { SET_OPENS, SET_ENDS, SET_PER_BUYER, SET_HOLD, SET_PACE, SET_MULTIPLIER, SET_COUNT };
enum create_option { CREATE_STOCK = SET_COUNT };

#define TIME_HELP "RFC 3339 (2026-11-22T12:00:00Z), now, or +15m from now"
/* What a sale is created with without an option; `set` leaves what is not given as it is. */
#define SHARED_OPTIONS(is_required, one, hold, none) \
	[SET_OPENS] = {"opens", "TIME", "opening: " TIME_HELP, is_required}, \
	[SET_ENDS] = {"ends", "TIME", "end: " TIME_HELP, is_required}, \
	[SET_PER_BUYER] = {"per-buyer", "N", "units that one buyer may have" one, false}, \
	[SET_HOLD] = {"hold", "DURATION", "how long an order is held; 0 = until it is confirmed or cancelled" hold, \
		false}, \
	[SET_PACE] = {"pace", "N", "units per second that the judge admits at most; 0 = no limit" none, false}, \
	[SET_MULTIPLIER] = {"token-multiplier", "N", \
		"live tokens per unit of stock at most; 0 = as the config file says" none, false}

static const struct cli_option create_options[] = {
	SHARED_OPTIONS(true, " (1)", " (15m)", " (0)"),
	[CREATE_STOCK] = {"stock", "N", "units to put in", true},
	{NULL, NULL, NULL, false},
};

static const struct cli_option set_options[] = {
	SHARED_OPTIONS(false, "", "", ""),
	{NULL, NULL, NULL, false},
};

static const struct cli_column list_columns[] = {
	{"SALE", "slug", false},
	{"STATE", "state", false},
	{"STOCK", "stock", true},
	{"FREE", "free", true},
	{"HELD", "held", true},
	{"CONFIRMED", "confirmed", true},
	{"PER BUYER", "per_buyer", true},
	{"PACE/S", "pace_per_second", true},
	{"OPENS", "opens_at", false},
	{"ENDS", "ends_at", false},
	{NULL, NULL, false},
};

static const char *about(const struct cli_call *call, char *text)
{
	snprintf(text, ABOUT_MAX, "sale \"%s\"", call->operand[0]);
	return text;
}

static int run_list(const struct cli_call *call)
{
	struct cli_table *table;
	json_t *answer, *sale;
	size_t i;
	int code = cli_api_ask(call->api, "sales", "GET", cli_api_path("/v1/sales"), NULL, &answer);

	if (code || call->globals->json)
		return code ? code : cli_print_answer(call, answer);
	table = cli_table_new(call->out, list_columns);
	json_array_foreach(json_object_get(answer, "sales"), i, sale) {
		cli_table_add_json(table, sale);
	}
	cli_table_end(table);
	json_decref(answer);
	return CLI_OK;
}

static int run_show(const struct cli_call *call)
{
	char text[ABOUT_MAX];
	json_t *answer;
	int code = cli_api_ask(
		call->api, about(call, text), "GET", cli_api_path("/v1/sales/%s", call->operand[0]), NULL, &answer);

	return code ? code : cli_print_answer(call, answer);
}

static int option_count(
	const struct cli_call *call, json_t *body, unsigned option, const char *field, uint64_t min, uint64_t max)
{
	uint64_t count;
	int code = cli_option_count(call, option, min, max, &count);

	if (!code && call->value[option])
		json_object_set_new(body, field, json_integer((json_int_t)count));
	return code;
}

static int option_time(const struct cli_call *call, json_t *body, unsigned option, const char *field, uint64_t now_ns,
	uint64_t *wall_ns)
{
	char text[TIME_TEXT_MAX];

	if (!call->value[option])
		return CLI_OK;
	if (cli_parse_when(call->value[option], now_ns, wall_ns))
		return cli_usage(call, "--%s: \"%s\" is not a time like 2026-11-22T12:00:00Z, now or +15m",
			call->verb->options[option].name, call->value[option]);
	json_object_set_new(body, field, json_string(time_format_rfc3339(*wall_ns, text)));
	return CLI_OK;
}

/* What both `create` and `set` can say. */
static int read_options(const struct cli_call *call, json_t *body)
{
	uint64_t now_ns = time_wall_ns(), opens_ns = 0, ends_ns = UINT64_MAX, hold_s;
	int code = option_time(call, body, SET_OPENS, "opens_at", now_ns, &opens_ns);

	if (!code)
		code = option_time(call, body, SET_ENDS, "ends_at", now_ns, &ends_ns);
	if (!code && ends_ns <= opens_ns)
		code = cli_usage(
			call, "--ends: \"%s\" is not after the opening (both count from now)", call->value[SET_ENDS]);
	if (!code)
		code = option_count(call, body, SET_PER_BUYER, "per_buyer", 1, SLUICE_MAX_QUANTITY);
	if (!code)
		code = cli_option_duration_s(call, SET_HOLD, &hold_s);
	if (!code && call->value[SET_HOLD])
		json_object_set_new(body, "hold_seconds", json_integer((json_int_t)hold_s));
	if (!code)
		code = option_count(call, body, SET_PACE, "pace_per_second", 0, CLI_COUNT_MAX);
	if (!code)
		code = option_count(call, body, SET_MULTIPLIER, "token_multiplier", 0, UINT32_MAX);
	return code;
}

/* What the daemon has to say about a change that it made. */
static int print_changed(const struct cli_call *call, const char *thing, json_t *answer)
{
	const char *warning = json_string_value(json_object_get(answer, "warning"));

	if (warning)
		cli_say("%s: warning: %s", thing, warning);
	return cli_print_answer(call, answer);
}

/* PUT also changes a sale that is there; `create` must not, so it looks first. */
static int refuse_existing(const struct cli_call *call, const char *thing)
{
	json_t *answer, *sale;
	bool found = false;
	size_t i;
	int code = cli_api_ask(call->api, thing, "GET", cli_api_path("/v1/sales"), NULL, &answer);

	if (code)
		return code;
	json_array_foreach(json_object_get(answer, "sales"), i, sale) {
		const char *slug = json_string_value(json_object_get(sale, "slug"));

		found = found || (slug && !strcmp(slug, call->operand[0]));
	}
	json_decref(answer);
	if (!found)
		return CLI_OK;
	cli_say("%s: there is such a sale already (\"sluice sale set\" changes it, \"sluice stock add\" adds units)",
		thing);
	return CLI_CONFLICT;
}

static int run_create(const struct cli_call *call)
{
	char text[ABOUT_MAX];
	const char *thing = about(call, text);
	json_t *body = json_object(), *answer;
	int code = option_count(call, body, CREATE_STOCK, "stock", 0, CLI_COUNT_MAX);

	if (!code)
		code = read_options(call, body);
	if (!code)
		code = refuse_existing(call, thing);
	if (code) {
		json_decref(body);
		return code;
	}
	code = cli_api_ask(call->api, thing, "PUT", cli_api_path("/v1/sales/%s", call->operand[0]), body, &answer);
	if (code)
		return code;
	cli_say("%s is created", thing);
	return print_changed(call, thing, answer);
}

static int run_set(const struct cli_call *call)
{
	char text[ABOUT_MAX];
	const char *thing = about(call, text);
	json_t *body = json_object(), *answer;
	int code = read_options(call, body);

	if (!code && !json_object_size(body))
		code = cli_usage(call, "nothing to change: give at least one option");
	/* A slip in the slug must not ask the daemon to create a sale. */
	if (!code)
		code = cli_api_ask(call->api, thing, "GET", cli_api_path("/v1/sales/%s", call->operand[0]), NULL, NULL);
	if (code) {
		json_decref(body);
		return code;
	}
	code = cli_api_ask(call->api, thing, "PUT", cli_api_path("/v1/sales/%s", call->operand[0]), body, &answer);
	return code ? code : print_changed(call, thing, answer);
}

static int change_state(const struct cli_call *call, const char *done)
{
	char text[ABOUT_MAX];
	const char *thing = about(call, text);
	json_t *answer;
	int code = cli_api_ask(call->api, thing, "POST",
		cli_api_path("/v1/sales/%s/%s", call->operand[0], call->verb->name), NULL, &answer);

	if (code)
		return code;
	cli_say("%s %s", thing, done);
	return print_changed(call, thing, answer);
}

enum all_option { ALL_ALL };

/* One sale of all. *state is the caller's; NULL where it failed. */
static int change_one(const struct cli_call *call, const char *slug, json_t **state)
{
	char thing[ABOUT_MAX];
	const char *warning;
	json_t *answer;
	int code;

	*state = NULL;
	snprintf(thing, sizeof(thing), "sale \"%s\"", slug);
	code = cli_api_ask(
		call->api, thing, "POST", cli_api_path("/v1/sales/%s/%s", slug, call->verb->name), NULL, &answer);
	if (code)
		return code;
	warning = json_string_value(json_object_get(answer, "warning"));
	if (warning)
		cli_say("%s: warning: %s", thing, warning);
	*state = json_incref(json_object_get(answer, "state"));
	json_decref(answer);
	return CLI_OK;
}

static void say_how_many_failed(unsigned failed, unsigned count)
{
	if (failed)
		cli_say("%u of %u sale%s could not be changed: the same command tries again", failed, count,
			cli_plural(count));
}

/* Each line goes out at once: on the night when this is needed each may take seconds. Without a daemon the rest is not tried. */
static int change_listed(const struct cli_call *call, const json_t *sales, bool (*concerns)(const char *state))
{
	json_t *done = json_array();
	unsigned count = 0, failed = 0;
	const json_t *sale;
	int code = CLI_OK;
	size_t i;

	json_array_foreach(sales, i, sale) {
		const char *slug = json_string_value(json_object_get(sale, "slug")),
			   *before = json_string_value(json_object_get(sale, "state"));
		json_t *state;
		int one;

		if (!slug || !before || !concerns(before))
			continue;
		one = change_one(call, slug, &state);
		count++;
		failed += one != CLI_OK;
		code = code ? code : one;
		if (!call->globals->json) {
			fprintf(call->out, "%s: %s\n", slug, state ? json_string_value(state) : "failed");
			fflush(call->out);
		}
		json_array_append_new(
			done, json_pack("{s:s, s:o}", "slug", slug, "state", state ? state : json_null()));
		if (one == CLI_UNREACHABLE)
			break;
	}
	if (!count)
		cli_say("there is no sale to %s", call->verb->name);
	say_how_many_failed(failed, count);
	if (call->globals->json)
		cli_print_answer(call, json_pack("{s:o}", "sales", done));
	else
		json_decref(done);
	return code;
}

static int change_all(const struct cli_call *call, bool (*concerns)(const char *state))
{
	json_t *answer;
	int code = cli_api_ask(call->api, "sales", "GET", cli_api_path("/v1/sales"), NULL, &answer);

	if (code)
		return code;
	code = change_listed(call, json_object_get(answer, "sales"), concerns);
	json_decref(answer);
	return code;
}

/* Of one sale, or of all that it concerns. */
static int change_state_of(const struct cli_call *call, const char *done, bool (*concerns)(const char *state))
{
	if (call->value[ALL_ALL] && call->operands)
		return cli_usage(call, "either a SLUG or --all");
	if (!call->value[ALL_ALL] && !call->operands)
		return cli_usage(call, "which sale? SLUG, or --all");
	return call->value[ALL_ALL] ? change_all(call, concerns) : change_state(call, done);
}

static bool is_not_over(const char *state)
{
	return strcmp(state, "ended") != 0;
}

static bool is_paused(const char *state)
{
	return !strcmp(state, "paused");
}

static int run_pause(const struct cli_call *call)
{
	return change_state_of(call, "is paused: orders get 503 until \"sluice sale resume\"", is_not_over);
}

static int run_resume(const struct cli_call *call)
{
	return change_state_of(call, "is no longer paused", is_paused);
}

static const struct cli_option pause_options[] = {
	[ALL_ALL] = {"all", NULL, "every sale that is not over; goes on where one fails", false},
	{NULL, NULL, NULL, false},
};

static const struct cli_option resume_options[] = {
	[ALL_ALL] = {"all", NULL, "every sale that is paused; goes on where one fails", false},
	{NULL, NULL, NULL, false},
};

enum end_option { END_YES };

static const struct cli_option end_options[] = {
	[END_YES] = CLI_YES_OPTION,
	{NULL, NULL, NULL, false},
};

static int run_end(const struct cli_call *call)
{
	int code = CLI_OK;

	if (!call->value[END_YES])
		code = cli_confirm(call->in, "Sale \"%s\" ends for good: it can be neither opened nor created again.",
			call->operand[0]);
	if (code)
		return code;
	return change_state(call, "has ended, for good; its orders stay as they are");
}

static const struct cli_verb verbs[] = {
	{"list", "", "all sales", 0, 0, NULL, run_list},
	{"show", "SLUG", "one sale", 1, 1, NULL, run_show},
	{"create", "SLUG", "a new sale", 1, 1, create_options, run_create},
	{"set", "SLUG", "change window, limits or pace of a sale; what is not given stays", 1, 1, set_options, run_set},
	{"pause", "[SLUG]", "refuse orders until resumed; --all: of every sale", 0, 1, pause_options, run_pause},
	{"resume", "[SLUG]", "take orders again; --all: of every sale, also of those that were paused before", 0, 1,
		resume_options, run_resume},
	{"end", "SLUG", "end a sale now and for good", 1, 1, end_options, run_end},
	{NULL, NULL, NULL, 0, 0, NULL, NULL},
};

const struct cli_noun cli_noun_sale = {"sale", "Sales", verbs};
