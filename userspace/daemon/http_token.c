/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* POST /v1/sales/{slug}/tokens at both listeners: the public route is limited per source and can be closed by config; the control
 * route is the shop's own issue and may bind a token to a network that it names.
 */
#include <stdio.h>
#include <string.h>

#include "common/addr.h"
#include "common/timefmt.h"
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
	return send_result(request, &sale, issue_token(request->d, &sale, &issue_request, &token), &token);
}

enum MHD_Result http_token_post_public(struct http_request *request)
{
	const struct config *config = &request->d->config;
	unsigned wait_s;

	if (!config->daemon.public_tokens)
		return http_problem(request, 403, "tokens_closed", "Tokens for this sale come from the shop.");
	wait_s = issue_charge_source(request->d, &request->source);
	if (wait_s)
		return http_problem_retry(
			request, 429, "rate_limited", wait_s, "Too many token requests from this address.");
	return issue(request, PUBLIC_FIELDS, config->daemon.token_bind_network, false);
}

enum MHD_Result http_token_post_control(struct http_request *request)
{
	return issue(request, CONTROL_FIELDS, false, true);
}
