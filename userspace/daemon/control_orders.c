/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Orders over the control API: read from the ledger, through the writer. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/timefmt.h"
#include "common/token.h"
#include "daemon/control.h"
#include "daemon/http_public.h"
#include "daemon/issue.h"
#include "daemon/order_facts.h"

#define LIMIT_DEFAULT 100
#define LIMIT_MAX 1000

static bool read_number(struct http_request *request, const char *name, long long fallback, long long min,
	long long max, long long *value, enum MHD_Result *result)
{
	char text[24], *end;
	int has = http_argument(request, name, text, sizeof(text));

	*value = fallback;
	if (!has)
		return true;
	errno = 0;
	*value = has > 0 ? strtoll(text, &end, 10) : 0;
	if (has > 0 && *text && !*end && !errno && *value >= min && *value <= max)
		return true;
	*result = http_problem_field(
		request, 422, "out_of_range", name, "%s must be a number from %lld to %lld.", name, min, max);
	return false;
}

static bool read_sale(struct http_request *request, json_t *question, enum MHD_Result *result)
{
	char slug[SALE_SLUG_MAX + 1] = "";
	int has = http_argument(request, "sale", slug, sizeof(slug));
	struct sale sale = {0};

	if (has && (has < 0 || sales_find(request->d->sales, slug, &sale))) {
		*result = http_problem(request, 404, "unknown_sale", "There is no such sale here.");
		return false;
	}
	json_object_set_new(question, "sale", json_integer((json_int_t)sale.id));
	return true;
}

static bool read_state(struct http_request *request, json_t *question, enum MHD_Result *result)
{
	char state[16] = "";
	int has = http_argument(request, "state", state, sizeof(state));

	if (has && (has < 0 || order_state_of_word(state) == ORDER_STATE_COUNT)) {
		*result = http_problem_field(request, 422, "out_of_range", "state",
			"state must be held, confirmed, cancelled, expired or refunded.");
		return false;
	}
	json_object_set_new(question, "state", json_string(state));
	return true;
}

/* Either the hash that orders show, or the shop's own reference, of which it is made. */
static bool read_buyer(struct http_request *request, json_t *question, enum MHD_Result *result)
{
	char hash[ORDER_ID_DIGITS + 1] = "", reference[ISSUE_BUYER_MAX + 1] = "";
	int has_hash = http_argument(request, "buyer", hash, sizeof(hash));
	int has_reference = http_argument(request, "buyer_reference", reference, sizeof(reference));
	uint64_t buyer;

	if (has_hash && (has_hash < 0 || order_id_parse(hash, &buyer))) {
		*result = http_problem_field(request, 422, "out_of_range", "buyer",
			"buyer must be the 16 hex digits that orders show; the shop's own reference is buyer_reference.");
		return false;
	}
	if (has_reference && (has_reference < 0 || !*reference || has_hash)) {
		*result = http_problem_field(request, 422, "out_of_range", "buyer_reference",
			"buyer_reference must have 1 to %d bytes, and stand without buyer.", ISSUE_BUYER_MAX);
		return false;
	}
	if (has_reference)
		order_id_text(token_buyer_hash(&request->d->keys, reference, strlen(reference)), hash);
	if (*hash)
		json_object_set_new(question, "buyer", json_string(hash));
	return true;
}

static bool read_time(
	struct http_request *request, const char *name, json_t *question, const char *member, enum MHD_Result *result)
{
	char text[TIME_TEXT_MAX + 16];
	int has = http_argument(request, name, text, sizeof(text));
	uint64_t wall_ns;

	if (!has)
		return true;
	if (has < 0 || time_parse_rfc3339(text, &wall_ns)) {
		*result = http_problem_field(request, 422, "out_of_range", name,
			"%s must be an RFC 3339 time such as \"2026-11-22T12:00:00Z\".", name);
		return false;
	}
	json_object_set_new(question, member, json_integer((json_int_t)wall_ns));
	return true;
}

json_t *control_orders_question(
	struct http_request *request, const char *const *known, long long limit_default, enum MHD_Result *result)
{
	json_t *question = json_pack("{s:s}", "op", "orders_list");
	long long limit, after;

	if (http_check_arguments(request, known, result) && read_sale(request, question, result) &&
		read_state(request, question, result) && read_buyer(request, question, result) &&
		read_time(request, "from", question, "from_ns", result) &&
		read_time(request, "to", question, "to_ns", result) &&
		read_number(request, "limit", limit_default, 1, LIMIT_MAX, &limit, result) &&
		read_number(request, "after", 0, 0, INT64_MAX, &after, result)) {
		json_object_set_new(question, "limit", json_integer((json_int_t)limit));
		json_object_set_new(question, "after", json_integer((json_int_t)after));
		return question;
	}
	json_decref(question);
	return NULL;
}

enum MHD_Result control_get_orders(struct http_request *request)
{
	static const char *const known[] = {
		"sale", "state", "buyer", "buyer_reference", "from", "to", "limit", "after", NULL};
	struct pipeline_answer answer;
	enum MHD_Result result = MHD_NO;
	json_t *question = control_orders_question(request, known, LIMIT_DEFAULT, &result), *orders, *order, *next;
	size_t i;

	if (!question)
		return result;
	if (pipeline_ask(request->d->pipeline, question, NULL, NULL, &answer))
		return control_send_writer_error(request, &answer);
	orders = json_array();
	json_array_foreach(json_object_get(answer.json, "orders"), i, order)
		json_array_append_new(orders, order_facts_control_json(request->d, order));
	next = json_incref(json_object_get(answer.json, "next"));
	json_decref(answer.json);
	return http_send_json(
		request, 200, json_pack("{s:o, s:o}", "orders", orders, "next", next ? next : json_null()));
}

enum MHD_Result control_get_order(struct http_request *request)
{
	const char *id = request->captures[0];
	struct pipeline_answer answer;
	uint64_t serial;
	json_t *order;

	if (order_id_parse(id, &serial))
		return http_problem(request, 404, "no_order", "An order's id has 16 hex digits.");
	if (pipeline_ask(
		    request->d->pipeline, json_pack("{s:s, s:s}", "op", "order_get", "id", id), NULL, NULL, &answer)) {
		if (answer.error == -EREMOTEIO && !strcmp(answer.code, "not_found"))
			return http_problem(request, 404, "no_order", "The ledger has no such order.");
		return control_send_writer_error(request, &answer);
	}
	order = order_facts_control_json(request->d, json_object_get(answer.json, "order"));
	json_decref(answer.json);
	return order ? http_send_json(request, 200, order)
		     : http_problem(request, 500, "internal_error", "The writer's answer cannot be read.");
}
