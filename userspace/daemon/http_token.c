/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* POST /v1/sales/{slug}/tokens at both listeners: the public route is limited per source and can be closed by config; the control
 * route is the shop's own issue and may bind a token to a network that it names. In a fleet a buyer gets his tokens of a sale from one node alone, his
 * home; elsewhere he is told where that is.
 */
#include <stdio.h>
#include <string.h>

#include "common/addr.h"
#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/fleet_homes.h"
#include "daemon/fleet_keys.h"
#include "daemon/http_public.h"
#include "daemon/validate.h"

#define RETRY_EXHAUSTED_S 10
#define RETRY_FULL_S 10
#define RETRY_NOT_READY_S 1
#define NS_PER_S 1000000000ULL

struct token_body {
	char buyer[ISSUE_BUYER_MAX + 1];
	int64_t quantity;
	char network[ADDR_TEXT_MAX + 1];
};

static const struct validate_field token_fields[] = {
	{.name = "buyer",
		.kind = VALIDATE_TEXT,
		.required = true,
		.min = 1,
		.max = ISSUE_BUYER_MAX,
		.offset = offsetof(struct token_body, buyer)},
	{.name = "quantity",
		.kind = VALIDATE_INTEGER,
		.min = 1,
		.max = SLUICE_MAX_QUANTITY,
		.offset = offsetof(struct token_body, quantity)},
	{.name = "network",
		.kind = VALIDATE_TEXT,
		.min = 1,
		.max = ADDR_TEXT_MAX,
		.offset = offsetof(struct token_body, network)},
};
#define PUBLIC_FIELDS 2 /* without network */
#define CONTROL_FIELDS 3

static enum MHD_Result send_token(
	struct http_request *request, const struct sale *sale, const struct issued_token *token, bool is_new)
{
	char issued[TIME_TEXT_MAX], expires[TIME_TEXT_MAX], opens[TIME_TEXT_MAX], now[TIME_TEXT_MAX];
	char url[sizeof("/v1/orders/") + SLUICE_TOKEN_TEXT];

	snprintf(url, sizeof(url), "/v1/orders/%s", token->text);
	return http_send_json(request, is_new ? 201 : 200,
		json_pack("{s:s, s:s, s:i, s:s, s:s, s:s, s:s, s:s}", "token", token->text, "sale", sale->slug,
			"quantity", (int)token->quantity, "order_url", url, "issued_at",
			time_format_rfc3339(token->issued_at_s * NS_PER_S, issued), "expires_at",
			time_format_rfc3339(token->expires_at_s * NS_PER_S, expires), "opens_at",
			time_format_rfc3339(sale->opens_ns, opens), "server_time",
			time_format_rfc3339(time_wall_ns(), now)));
}

static enum MHD_Result send_result(struct http_request *request, const struct sale *sale, enum issue_result result,
	const struct issued_token *token)
{
	switch (result) {
	case ISSUE_NEW:
	case ISSUE_SAME:
		return send_token(request, sale, token, result == ISSUE_NEW);
	case ISSUE_RATE_LIMITED:
		return http_problem_retry(
			request, 429, "rate_limited", token->retry_after_s, "Too many token requests for this buyer.");
	case ISSUE_ALREADY_ORDERED:
		return http_problem(
			request, 409, "already_ordered", "This buyer has as many units as a buyer may have.");
	case ISSUE_ROUNDS:
		return http_problem(request, 409, "already_ordered",
			"This buyer has ordered as often as a buyer may in one sale, cancelled orders included.");
	case ISSUE_SOLD_OUT:
		return http_problem(request, 409, "sold_out", "All units are taken.");
	case ISSUE_ENDED:
		return http_problem(request, 410, "sale_ended", "The sale is over.");
	case ISSUE_QUANTITY:
		return http_problem_field(request, 422, "out_of_range", "quantity",
			"quantity must be from 1 to %u, which is what one buyer may have.", sale->per_buyer);
	case ISSUE_EXHAUSTED:
		return http_problem_retry(request, 429, "tokens_exhausted", RETRY_EXHAUSTED_S,
			"As many tokens as this sale may have are out.");
	case ISSUE_FULL:
		return http_problem_retry(
			request, 503, "tokens_full", RETRY_FULL_S, "There is no room for another token at the moment.");
	case ISSUE_NOT_READY:
		return http_problem_retry(request, 503, "unavailable", RETRY_NOT_READY_S,
			"The sale is being set up, or all its tokens were revoked this second.");
	case ISSUE_REVOKED:
		return http_problem(request, 403, "token_revoked", "The token of this buyer was revoked.");
	case ISSUE_ERROR:
		break;
	}
	return http_problem(request, 500, "internal_error", "The token could not be made.");
}

/* --- one of many nodes ------------------------------------------------------------------------------------------------------------ */
static enum MHD_Result send_elsewhere(struct http_request *request, const struct sale *sale, unsigned node)
{
	const struct config_node *home = config_node(&request->d->config, node);

	if (home)
		snprintf(request->location, sizeof(request->location), "%s/v1/sales/%s/tokens", home->url, sale->slug);
	else
		log_warn("buyers are at home at node %u, and the config does not say where that is: add it to `nodes`",
			node);
	return http_problem(request, 421, "wrong_node", "This buyer is at home at node %u.", node);
}

static enum MHD_Result send_homeless(struct http_request *request, enum home_answer answer)
{
	return http_problem_retry(request, 503, "unavailable", RETRY_NOT_READY_S, "%s",
		answer == HOME_SETTLING ? "Which buyers the other nodes have is being found out. No token was made."
			: answer == HOME_TOO_MANY
			? "Too many ask for a token at once. None was made."
			: "The other nodes of the fleet cannot be asked at the moment. No token was made.");
}

/* The rest, when it is known where the buyer is at home. */
static enum MHD_Result issue_at_home(
	struct http_request *request, const struct sale *sale, struct issue_request *issue_request)
{
	struct issued_token token;
	enum issue_result result;
	unsigned node = 0;
	enum home_answer answer = request->home ? fleet_homes_answer(request->home, &node) : HOME_TOO_MANY;

	if (answer == HOME_ELSEWHERE)
		return send_elsewhere(request, sale, node);
	if (answer != HOME_HERE)
		return send_homeless(request, answer);
	issue_request->is_checked = true;
	result = issue_token(request->d, sale, issue_request, &token);
	fleet_homes_release(request->d, request->home);
	request->home = NULL;
	return send_result(request, sale, result, &token);
}

/* On the fleet's thread. The connection stays suspended until then, so the request is there. */
static void on_home(void *arg)
{
	struct http_request *request = arg;

	MHD_resume_connection(request->connection);
}

/* A buyer whose live token this node has issued is at home here, whoever is away. For everybody else Redis is asked: by the public listener without
 * a thread that waits.
 */
static enum MHD_Result issue_in_fleet(
	struct http_request *request, const struct sale *sale, struct issue_request *issue_request)
{
	struct daemon *d = request->d;
	bool may_suspend = request->listener->kind == METRICS_PUBLIC;
	uint64_t buyer = token_buyer_hash(&d->keys, issue_request->buyer, issue_request->buyer_length);
	struct issued_token token = {0};
	enum issue_result result;

	if (request->has_waited)
		return issue_at_home(request, sale, issue_request);
	if (issue_is_here(d, sale->id, buyer)) {
		issue_request->is_here = true;
		issue_request->only_same = !fleet_keys_agreed(d);
		return send_result(request, sale, issue_token(d, sale, issue_request, &token), &token);
	}
	result = issue_check(d, sale, issue_request, buyer, &token);
	if (result != ISSUE_NEW)
		return send_result(request, sale, result, &token);
	if (!fleet_keys_agreed(d))
		return send_homeless(request, HOME_UNKNOWN);
	if (!may_suspend) {
		request->home = fleet_homes_ask(d, sale, buyer, NULL, NULL);
		if (request->home)
			fleet_homes_wait(d, request->home);
		return issue_at_home(request, sale, issue_request);
	}
	request->has_waited = true;
	MHD_suspend_connection(request->connection);
	request->home = fleet_homes_ask(d, sale, buyer, on_home, request);
	if (!request->home)
		MHD_resume_connection(request->connection);
	return MHD_YES;
}

static enum MHD_Result issue(struct http_request *request, unsigned field_count, bool bind_source, bool after_revoked)
{
	struct token_body body = {.quantity = 1};
	struct validate_error error;
	struct issue_request issue_request;
	struct issued_token token;
	struct sluice_addr bound = request->source;
	enum MHD_Result result;
	struct sale sale;
	uint32_t present;
	json_t *json;
	int err;

	if (!http_find_sale(request, &sale, &result))
		return result;
	/* The first recovery knows the sale already, and has not counted the live tokens: this one would count twice. */
	if (!atomic_load(&request->d->sales_known))
		return http_problem_retry(request, 503, "writer_away", RETRY_NOT_READY_S,
			"The order writer is not there yet. No token was made.");
	json = http_read_json(request, &result);
	if (!json)
		return result;
	err = validate_object(json, token_fields, field_count, &body, &present, &error);
	json_decref(json);
	if (err)
		return http_send_invalid(request, &error);
	if (*body.network) {
		if (addr_parse(body.network, &bound))
			return http_problem_field(
				request, 422, "out_of_range", "network", "network must be an IPv4 or IPv6 address.");
		bind_source = true;
	}
	issue_request = (struct issue_request){
		.buyer = body.buyer,
		.buyer_length = strlen(body.buyer),
		.quantity = (unsigned)body.quantity,
		.network = bind_source ? sluice_network_of(&bound) : 0,
		.after_revoked = after_revoked,
	};
	if (request->d->fleet_homes)
		return issue_in_fleet(request, &sale, &issue_request);
	return send_result(request, &sale, issue_token(request->d, &sale, &issue_request, &token), &token);
}

enum MHD_Result http_token_post_public(struct http_request *request)
{
	const struct config *config = &request->d->config;
	unsigned wait_s;

	if (!config->daemon.public_tokens)
		return http_problem(request, 403, "tokens_closed", "Tokens for this sale come from the shop.");
	wait_s = request->has_waited ? 0 : issue_charge_source(request->d, &request->source);
	if (wait_s)
		return http_problem_retry(
			request, 429, "rate_limited", wait_s, "Too many token requests from this address.");
	return issue(request, PUBLIC_FIELDS, config->daemon.token_bind_network, false);
}

enum MHD_Result http_token_post_control(struct http_request *request)
{
	return issue(request, CONTROL_FIELDS, false, true);
}
