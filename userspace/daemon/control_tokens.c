/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tokens and keys over the control API: what a token says, and a fresh signing key. (Issue is in http_token.c.) */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/control.h"
#include "daemon/http_public.h"
#include "daemon/issue.h"
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
	json_t *json;

	snprintf(id, sizeof(id), "%016" PRIx64, (uint64_t)token->serial);
	snprintf(buyer, sizeof(buyer), "%016" PRIx64, (uint64_t)token->buyer);
	json = json_pack("{s:i, s:i, s:i, s:I, s:s, s:s, s:s, s:s, s:I, s:I, s:b, s:b, s:b}", "version", token->version,
		"key_id", token->key_id, "quantity", token->quantity, "sale_id", (json_int_t)token->sale, "issued_at",
		time_format_rfc3339(token->issued_at_s * NS_PER_S, issued), "expires_at",
		time_format_rfc3339(token->expires_at_s * NS_PER_S, expires), "buyer", buyer, "id", id, "network",
		(json_int_t)token->network, "node", (json_int_t)token->node, "mac_valid", mac_valid, "admitted",
		mac_valid && !orders_find(d->orders, token->serial, &order), "expired",
		token->expires_at_s * NS_PER_S <= time_wall_ns());
	if (json)
		json_object_set_new(json, "sale",
			sales_find_id(d->sales, token->sale, &sale) ? json_null() : json_string(sale.slug));
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

enum MHD_Result control_rotate_keys(struct http_request *request)
{
	struct daemon *d = request->d;
	struct token_keys keys;
	char error[512];
	unsigned id;
	int err;

	pthread_rwlock_wrlock(&d->keys_lock);
	keys = d->keys;
	err = token_keys_rotate(&keys, d->keys_path, error, sizeof(error));
	if (!err)
		d->keys = keys;
	id = d->keys.slot[d->keys.current].id;
	pthread_rwlock_unlock(&d->keys_lock);
	memset(&keys, 0, sizeof(keys));
	if (err) {
		log_error("%s", error);
		return http_problem(
			request, 500, "internal_error", "The key file could not be written; the key in use stays.");
	}
	issue_publish_keys(d);
	log_info("tokens are signed with key %u from now on", id);
	return http_send_json(request, 200, json_pack("{s:i}", "key_id", (int)id));
}
