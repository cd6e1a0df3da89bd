/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice token` and `sluice key`: issuing tokens from a shop's own scripts, reading one, taking them back, rotating the key that signs them. Tokens and
 * buyers' references are worth money to whoever reads a process list, so both can come from standard input.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/table.h"
#include "common/timefmt.h"
#include "sluice/abi.h"

#define ABOUT_MAX 192
#define BUYER_MAX 128
#define TOKEN_LINE_MAX 256 /* longer than any token, so that the daemon says what is wrong with one that is too long */
#define NS_PER_S 1000000000ULL
#define WAIT_DEFAULT_S 60
#define WAIT_MAX_S 86400

enum issue_option { ISSUE_BUYER, ISSUE_QUANTITY, ISSUE_NETWORK };

static const struct cli_option issue_options[] = {
	[ISSUE_BUYER] = {"buyer", "REF", "the shop's opaque reference of the buyer; - reads it from standard input",
		true},
	[ISSUE_QUANTITY] = {"quantity", "N", "units that the token asks for (1)", false},
	[ISSUE_NETWORK] = {"network", "IP", "valid only from the network (/24, /64) of this address", false},
	{NULL, NULL, NULL, false},
};

static int run_issue(const struct cli_call *call)
{
	char about[ABOUT_MAX], line[BUYER_MAX + 1];
	const char *buyer = call->value[ISSUE_BUYER];
	uint64_t quantity = 1;
	json_t *body, *answer;
	int code = cli_option_count(call, ISSUE_QUANTITY, 1, SLUICE_MAX_QUANTITY, &quantity);

	if (code)
		return code;
	if (!strcmp(buyer, "-")) {
		code = cli_read_line(call, "buyer's reference", line, sizeof(line));
		if (code)
			return code;
		buyer = line;
	}
	snprintf(about, sizeof(about), "token for sale \"%s\"", call->operand[0]);
	body = json_pack("{sssI}", "buyer", buyer, "quantity", (json_int_t)quantity);
	if (!body)
		return cli_usage(call, "--buyer: the reference is not UTF-8");
	if (call->value[ISSUE_NETWORK])
		json_object_set_new(body, "network", json_string(call->value[ISSUE_NETWORK]));
	code = cli_api_ask(
		call->api, about, "POST", cli_api_path("/v1/sales/%s/tokens", call->operand[0]), body, &answer);
	return code ? code : cli_print_answer(call, answer);
}

static int run_inspect(const struct cli_call *call)
{
	char line[TOKEN_LINE_MAX + 1];
	const char *token = call->operands ? call->operand[0] : "-";
	json_t *body, *answer;
	int code;

	if (!strcmp(token, "-")) {
		code = cli_read_line(call, "token", line, sizeof(line));
		if (code)
			return code;
		token = line;
	}
	body = json_pack("{ss}", "token", token);
	if (!body)
		return cli_usage(call, "the token is not text");
	code = cli_api_ask(call->api, "token", "POST", cli_api_path("/v1/tokens/inspect"), body, &answer);
	return code ? code : cli_print_answer(call, answer);
}

enum revoke_option { REVOKE_SALE, REVOKE_BUYER };

static const struct cli_option revoke_options[] = {
	[REVOKE_SALE] = {"sale", "SLUG", "with --buyer: the live token of a buyer instead", false},
	[REVOKE_BUYER] = {"buyer", "REF", "the shop's reference of that buyer; - reads it from standard input", false},
	{NULL, NULL, NULL, false},
};

static int run_revoke(const struct cli_call *call)
{
	char line[TOKEN_LINE_MAX + 1];
	const char *sale = call->value[REVOKE_SALE], *buyer = call->value[REVOKE_BUYER];
	const char *secret = buyer ? buyer : call->operands ? call->operand[0] : "-";
	json_t *body, *answer;
	int code;

	if (!sale != !buyer)
		return cli_usage(call, "--sale and --buyer go together");
	if (buyer && call->operands)
		return cli_usage(call, "give a token, or --sale and --buyer");
	if (!strcmp(secret, "-")) {
		code = cli_read_line(call, buyer ? "buyer's reference" : "token", line, sizeof(line));
		if (code)
			return code;
		secret = line;
	}
	body = buyer ? json_pack("{ssss}", "sale", sale, "buyer", secret) : json_pack("{ss}", "token", secret);
	if (!body)
		return cli_usage(call, "the %s is not UTF-8", buyer ? "reference" : "token");
	code = cli_api_ask(call->api, "token", "POST", cli_api_path("/v1/tokens/revoke"), body, &answer);
	return code ? code : cli_print_answer(call, answer);
}

enum revoke_all_option { REVOKE_BEFORE, REVOKE_ALL_YES };

static const struct cli_option revoke_all_options[] = {
	[REVOKE_BEFORE] = {"issued-before", "WHEN", "now, or a time like 2026-11-22T12:00:00Z", true},
	[REVOKE_ALL_YES] = CLI_YES_OPTION,
	{NULL, NULL, NULL, false},
};

static void say_taken_back(const char *about, const json_t *live)
{
	long long count = json_integer_value(live);

	if (json_is_integer(live))
		cli_say("%s: %lld token%s out at this node, and now refused, with which orders may have been made already (those stay)",
			about, count, count == 1 ? " was" : "s were");
}

static int run_revoke_all(const struct cli_call *call)
{
	char about[ABOUT_MAX], text[TIME_TEXT_MAX];
	uint64_t when_ns;
	json_t *answer;
	int code;

	if (cli_parse_when(call->value[REVOKE_BEFORE], time_wall_ns(), &when_ns))
		return cli_usage(call, "--issued-before: \"%s\" is neither now nor a time like 2026-11-22T12:00:00Z",
			call->value[REVOKE_BEFORE]);
	code = call->value[REVOKE_ALL_YES]
		? CLI_OK
		: cli_confirm(call->in,
			  "Every token of sale \"%s\" that was issued before %s is taken back for good; its buyers need new ones.",
			  call->operand[0], time_format_rfc3339(when_ns, text));
	if (code)
		return code;
	snprintf(about, sizeof(about), "sale \"%s\"", call->operand[0]);
	code = cli_api_ask(call->api, about, "POST", cli_api_path("/v1/sales/%s/tokens/revoke", call->operand[0]),
		json_pack("{ss}", "issued_before", time_format_rfc3339(when_ns, text)), &answer);
	if (code)
		return code;
	say_taken_back(about, json_object_get(answer, "live_tokens"));
	return cli_print_answer(call, answer);
}

enum rotate_option { ROTATE_FORCE, ROTATE_WITHOUT, ROTATE_WAIT };

static const struct cli_option rotate_options[] = {
	[ROTATE_FORCE] = {"force", NULL, "also if tokens of the key before the current one are refused by it", false},
	[ROTATE_WITHOUT] = {"without", "NODES", "in a fleet: nodes that are down and need not take part, as 2,5",
		false},
	[ROTATE_WAIT] = {"wait", "SECONDS", "in a fleet: for all nodes to take part (60)", false},
	{NULL, NULL, NULL, false},
};

/* "2,5" as an array; NULL if it is none. */
static json_t *read_nodes(const char *text)
{
	json_t *list = json_array();

	for (;;) {
		char *end;
		long node = strtol(text, &end, 10);

		if (end == text || node < 1 || node > SLUICE_NODES_MAX || (*end && *end != ',')) {
			json_decref(list);
			return NULL;
		}
		json_array_append_new(list, json_integer(node));
		if (!*end)
			return list;
		text = end + 1;
	}
}

static bool is_accepting(const json_t *answer)
{
	const char *phase = json_string_value(json_object_get(answer, "phase"));

	return phase && !strcmp(phase, "accepting");
}

static void say_waiting(const json_t *answer)
{
	char *nodes = json_dumps(json_object_get(answer, "waiting_for"), JSON_COMPACT);

	cli_say("waiting until nodes %s accept the next key", nodes ? nodes : "");
	free(nodes);
}

/* Asks how far the rotation is, until it is over. *answer is the last that was told. */
static int wait_for_rotation(const struct cli_call *call, uint64_t wait_s, json_t **answer)
{
	uint64_t until_ns = time_mono_ns() + wait_s * NS_PER_S;
	int code = CLI_OK;

	say_waiting(*answer);
	while (!code && is_accepting(*answer)) {
		if (time_mono_ns() >= until_ns) {
			say_waiting(*answer);
			cli_say("the rotation goes on by itself when they do; leave out those that are down: --without");
			return CLI_FAILED;
		}
		nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
		json_decref(*answer);
		*answer = NULL;
		code = cli_api_ask(call->api, "key", "GET", cli_api_path("/v1/keys"), NULL, answer);
	}
	return code;
}

static int run_rotate(const struct cli_call *call)
{
	json_t *answer = NULL, *body = json_object(), *nodes = NULL;
	uint64_t wait_s = WAIT_DEFAULT_S;
	int code = cli_option_count(call, ROTATE_WAIT, 1, WAIT_MAX_S, &wait_s);

	if (!code && call->value[ROTATE_WITHOUT]) {
		nodes = read_nodes(call->value[ROTATE_WITHOUT]);
		if (!nodes)
			code = cli_usage(call, "--without: \"%s\" are not numbers of nodes, as 2,5",
				call->value[ROTATE_WITHOUT]);
	}
	if (code) {
		json_decref(body);
		return code;
	}
	if (call->value[ROTATE_FORCE])
		json_object_set_new(body, "force", json_true());
	if (nodes)
		json_object_set_new(body, "without", nodes);
	if (!json_object_size(body)) {
		json_decref(body);
		body = NULL;
	}
	code = cli_api_ask(call->api, "key", "POST", cli_api_path("/v1/keys/rotate"), body, &answer);
	if (!code && is_accepting(answer))
		code = wait_for_rotation(call, wait_s, &answer);
	if (code) {
		json_decref(answer);
		return code;
	}
	cli_say("new tokens are signed with a new key; those of the key before stay valid, those of the one before that do not");
	return cli_print_answer(call, answer);
}

static int run_show(const struct cli_call *call)
{
	json_t *answer;
	int code = cli_api_ask(call->api, "key", "GET", cli_api_path("/v1/keys"), NULL, &answer);

	return code ? code : cli_print_answer(call, answer);
}

static const struct cli_verb token_verbs[] = {
	{"issue", "SLUG", "a token for a buyer; asking again gives the same one", 1, 1, issue_options, run_issue},
	{"inspect", "[TOKEN]", "what a token says and whether it holds; from standard input if not given", 0, 1, NULL,
		run_inspect},
	{"revoke", "[TOKEN]", "take a token back before it is used; from standard input if not given", 0, 1,
		revoke_options, run_revoke},
	{"revoke-all", "SLUG", "take back all tokens of a sale that were issued before a time", 1, 1,
		revoke_all_options, run_revoke_all},
	{NULL, NULL, NULL, 0, 0, NULL, NULL},
};

static const struct cli_verb key_verbs[] = {
	{"show", "", "which key signs, and in a fleet how far a rotation is", 0, 0, NULL, run_show},
	{"rotate", "", "sign new tokens with a fresh key, once no valid token needs the one it replaces", 0, 0,
		rotate_options, run_rotate},
	{NULL, NULL, NULL, 0, 0, NULL, NULL},
};

const struct cli_noun cli_noun_token = {"token", "Tokens", token_verbs};
const struct cli_noun cli_noun_key = {"key", "The key that signs tokens", key_verbs};
