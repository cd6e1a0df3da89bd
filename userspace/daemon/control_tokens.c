/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tokens over the control API: what a token says, and taking tokens back. (Issue is in http_token.c.) */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/control.h"
#include "daemon/http_public.h"
#include "daemon/issue.h"
#include "daemon/revocation.h"
#include "daemon/validate.h"

#define NS_PER_S 1000000000ULL

struct inspect_body {
	char token[SLUICE_TOKEN_TEXT + 1];
};

static const struct validate_field inspect_fields[] = {
	{.name = "token",
		.kind = VALIDATE_TEXT,
		.required = true,
		.min = SLUICE_TOKEN_TEXT,
		.max = SLUICE_TOKEN_TEXT,
		.offset = offsetof(struct inspect_body, token)},
};

static json_t *token_json(struct daemon *d, const struct sluice_token *token, bool mac_valid)
{
	char id[17], buyer[17], issued[TIME_TEXT_MAX], expires[TIME_TEXT_MAX];
	struct order_view order;
	struct sale sale;
	bool has_sale = !sales_find_id(d->sales, token->sale, &sale);
	json_t *json;

	snprintf(id, sizeof(id), "%016" PRIx64, (uint64_t)token->serial);
	snprintf(buyer, sizeof(buyer), "%016" PRIx64, (uint64_t)token->buyer);
	json = json_pack("{s:i, s:i, s:i, s:I, s:s, s:s, s:s, s:s, s:I, s:I, s:b, s:b, s:b, s:b}", "version",
		token->version, "key_id", token->key_id, "quantity", token->quantity, "sale_id",
		(json_int_t)token->sale, "issued_at", time_format_rfc3339(token->issued_at_s * NS_PER_S, issued),
		"expires_at", time_format_rfc3339(token->expires_at_s * NS_PER_S, expires), "buyer", buyer, "id", id,
		"network", (json_int_t)token->network, "node", (json_int_t)token->node, "mac_valid", mac_valid,
		"admitted", mac_valid && !orders_find(d->orders, token->serial, &order), "expired",
		token->expires_at_s * NS_PER_S <= time_wall_ns(), "revoked",
		mac_valid &&
			(revocation_has(d, token->serial) || (has_sale && token->issued_at_s < sale.not_before_s)));
	if (json)
		json_object_set_new(json, "sale", has_sale ? json_string(sale.slug) : json_null());
	return json;
}

enum MHD_Result control_inspect_token(struct http_request *request)
{
	struct daemon *d = request->d;
	struct inspect_body body;
	struct validate_error error;
	struct sluice_token token;
	enum MHD_Result result;
	uint32_t present;
	json_t *json = http_read_json(request, &result);
	int err;

	if (!json)
		return result;
	err = validate_object(json, inspect_fields, 1, &body, &present, &error);
	json_decref(json);
	if (err)
		return http_send_invalid(request, &error);
	pthread_rwlock_rdlock(&d->keys_lock);
	err = token_open(&d->keys, body.token, strlen(body.token), &token);
	pthread_rwlock_unlock(&d->keys_lock);
	if (err == -EINVAL)
		return http_problem_field(request, 422, "out_of_range", "token",
			"This is not a token: a character, or the version, is wrong.");
	return http_send_json(request, 200, token_json(d, &token, !err));
}

/* --- taking back ---------------------------------------------------------------------------------------------------------------- */
struct revoke_body {
	char token[SLUICE_TOKEN_TEXT + 1];
	char sale[SALE_SLUG_MAX + 1];
	char buyer[ISSUE_BUYER_MAX + 1];
};

enum { REVOKE_TOKEN, REVOKE_SALE, REVOKE_BUYER, REVOKE_FIELDS };

static const struct validate_field revoke_fields[REVOKE_FIELDS] = {
	[REVOKE_TOKEN] = {.name = "token",
		.kind = VALIDATE_TEXT,
		.min = SLUICE_TOKEN_TEXT,
		.max = SLUICE_TOKEN_TEXT,
		.offset = offsetof(struct revoke_body, token)},
	[REVOKE_SALE] = {.name = "sale",
		.kind = VALIDATE_TEXT,
		.min = 1,
		.max = SALE_SLUG_MAX,
		.offset = offsetof(struct revoke_body, sale)},
	[REVOKE_BUYER] = {.name = "buyer",
		.kind = VALIDATE_TEXT,
		.min = 1,
		.max = ISSUE_BUYER_MAX,
		.offset = offsetof(struct revoke_body, buyer)},
};

static enum MHD_Result send_revoked(struct http_request *request, uint64_t serial, const char *slug, int err)
{
	char id[17];

	snprintf(id, sizeof(id), "%016" PRIx64, serial);
	switch (err) {
	case 0:
		log_info("token %s of sale %s is revoked", id, slug);
		return http_send_json(
			request, 200, json_pack("{s:s, s:s, s:b}", "id", id, "sale", slug, "revoked", true));
	case -EEXIST:
		return http_problem(request, 409, "already_ordered",
			"Order %s was admitted with this token; an order is taken back by its own route, not with its token.",
			id);
	case -EBUSY:
		return http_problem_retry(request, 503, "unavailable", 1, "The token is being judged at this moment.");
	case -E2BIG:
		return http_problem(request, 507, "admissions_full",
			"The gate's map of admissions is full (gate.max_admissions); the token was not revoked.");
	default:
		return http_problem(request, 500, "internal_error",
			"The token is revoked, but that could not be written down (see the log): it would be good again after a reboot. Ask again.");
	}
}

static enum MHD_Result revoke_by_token(struct http_request *request, const char *text)
{
	struct daemon *d = request->d;
	struct sluice_token token;
	struct sale sale;
	int err;

	pthread_rwlock_rdlock(&d->keys_lock);
	err = token_open(&d->keys, text, strlen(text), &token);
	pthread_rwlock_unlock(&d->keys_lock);
	if (err)
		return http_problem_field(request, 422, "out_of_range", "token",
			"This is not a token that is signed with a key in use; nobody can order with it.");
	/* Only there is it judged: revoked here, it would stay good. */
	if (config_own_node(&d->config) && token.node != config_own_node(&d->config))
		return http_problem(request, 421, "wrong_node",
			"This token is at home at node %u: revoke it over the control API of that node.", token.node);
	if (sales_find_id(d->sales, token.sale, &sale))
		return http_problem(request, 404, "unknown_sale", "The sale of this token is not known here.");
	/* For as long as any token of its round may be good, and the public route shall issue no other. */
	return send_revoked(request, token.serial, sale.slug,
		revocation_token(d, token.serial, token.buyer, token.sale, revocation_until(&sale)));
}

static enum MHD_Result revoke_by_buyer(struct http_request *request, const char *slug, const char *buyer)
{
	struct daemon *d = request->d;
	struct sluice_issued entry;
	uint64_t hash, serial;
	struct sale sale;

	if (sales_find(d->sales, slug, &sale))
		return http_problem(request, 404, "unknown_sale", "There is no such sale.");
	if (!issue_find(d, &sale, buyer, strlen(buyer), &entry, &hash, &serial))
		return http_problem(request, 404, "no_token", "This buyer has no live token of this sale%s.",
			d->fleet_homes ? " here; he may have one at another node" : "");
	/* Tokens of one round share the serial; none of them can outlive the sale. */
	return send_revoked(
		request, serial, sale.slug, revocation_token(d, serial, hash, sale.id, revocation_until(&sale)));
}

enum MHD_Result control_revoke_token(struct http_request *request)
{
	struct revoke_body body = {0};
	struct validate_error error;
	enum MHD_Result result;
	uint32_t present;
	json_t *json = http_read_json(request, &result);
	int err;

	if (!json)
		return result;
	err = validate_object(json, revoke_fields, REVOKE_FIELDS, &body, &present, &error);
	json_decref(json);
	if (err)
		return http_send_invalid(request, &error);
	if (present == 1u << REVOKE_TOKEN)
		return revoke_by_token(request, body.token);
	if (present == (1u << REVOKE_SALE | 1u << REVOKE_BUYER))
		return revoke_by_buyer(request, body.sale, body.buyer);
	return http_problem(request, 400, "missing_field", "Name a token, or a sale and a buyer.");
}

struct before_body {
	uint64_t issued_before_ns;
};

static const struct validate_field before_fields[] = {
	{.name = "issued_before",
		.kind = VALIDATE_TIME,
		.required = true,
		.offset = offsetof(struct before_body, issued_before_ns)},
};

/* Tokens know the second of their issue, so a time is rounded up: what was issued in that very second is taken back too. */
enum MHD_Result control_revoke_before(struct http_request *request)
{
	struct daemon *d = request->d;
	char text[TIME_TEXT_MAX];
	struct before_body body;
	struct validate_error error;
	uint64_t second, now_ns = time_wall_ns();
	enum MHD_Result result;
	uint32_t present;
	struct sale sale;
	json_t *json;
	int err;

	if (!http_find_sale(request, &sale, &result))
		return result;
	json = http_read_json(request, &result);
	if (!json)
		return result;
	err = validate_object(json, before_fields, 1, &body, &present, &error);
	json_decref(json);
	if (err)
		return http_send_invalid(request, &error);
	if (body.issued_before_ns > now_ns)
		return http_problem_field(
			request, 422, "out_of_range", "issued_before", "issued_before must not be in the future.");
	second = (body.issued_before_ns + NS_PER_S - 1) / NS_PER_S;
	if (revocation_before(d, sale.id, (uint32_t)second))
		return http_problem(request, 500, "internal_error",
			"The time could not be written down (see the log). Nothing was changed.");
	log_info("sale %s: tokens issued before %s are revoked", sale.slug,
		time_format_rfc3339(second * NS_PER_S, text));
	/* Only if it is all that are out: of what was issued before an earlier second there is no count. */
	return http_send_json(request, 200,
		json_pack("{s:s, s:s, s:o}", "sale", sale.slug, "issued_before",
			time_format_rfc3339(second * NS_PER_S, text), "live_tokens",
			second >= now_ns / NS_PER_S ? json_integer((json_int_t)atomic_load(&sale.counts->live_tokens))
						    : json_null()));
}
