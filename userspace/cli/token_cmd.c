/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice token` and `sluice key`: issuing tokens from a shop's own scripts, reading one, rotating the key that signs them. Tokens and
 * buyers' references are worth money to whoever reads a process list, so both can come from standard input.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/table.h"
#include "sluice/abi.h"

#define ABOUT_MAX 192
#define BUYER_MAX 128
#define TOKEN_LINE_MAX 256 /* longer than any token, so that the daemon says what is wrong with one that is too long */

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

static int run_rotate(const struct cli_call *call)
{
	json_t *answer;
	int code = cli_api_ask(call->api, "key", "POST", cli_api_path("/v1/keys/rotate"), NULL, &answer);

	if (code)
		return code;
	cli_say("new tokens are signed with a new key; those of the key before stay valid, those of the one before that do not");
	return cli_print_answer(call, answer);
}

static const struct cli_verb token_verbs[] = {
	{"issue", "SLUG", "a token for a buyer; asking again gives the same one", 1, 1, issue_options, run_issue},
	{"inspect", "[TOKEN]", "what a token says and whether it holds; from standard input if not given", 0, 1, NULL,
		run_inspect},
	{NULL, NULL, NULL, 0, 0, NULL, NULL},
};

static const struct cli_verb key_verbs[] = {
	{"rotate", "", "sign new tokens with a fresh key", 0, 0, NULL, run_rotate},
	{NULL, NULL, NULL, 0, 0, NULL, NULL},
};

const struct cli_noun cli_noun_token = {"token", "Tokens", token_verbs};
const struct cli_noun cli_noun_key = {"key", "The key that signs tokens", key_verbs};
