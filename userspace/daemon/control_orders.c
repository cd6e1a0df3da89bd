/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Orders over the control API: read from the ledger, through the writer. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/timefmt.h"
#include "daemon/control.h"
#include "daemon/http_public.h"

#define LIMIT_DEFAULT 100
#define LIMIT_MAX 1000
#define ID_DIGITS 16

/* The writer's order, in the words of the API. NULL if it is not one. */
static json_t *order_json(struct daemon *d, const json_t *from)
{
	char admitted_text[TIME_TEXT_MAX], committed_text[TIME_TEXT_MAX];
	json_int_t sale_id, seq, quantity, network, admitted, committed;
	const char *id, *state, *buyer, *source;
	struct sale sale;

	if (json_unpack((json_t *)(uintptr_t)from, "{s:s, s:I, s:I, s:s, s:I, s:s, s:s, s:I, s:I, s:I}", "id", &id,
		    "sale", &sale_id, "seq", &seq, "state", &state, "quantity", &quantity, "buyer", &buyer, "source",
		    &source, "network", &network, "admitted_ns", &admitted, "committed_ns", &committed) < 0)
		return NULL;
	if (sales_find_id(d->sales, (uint32_t)sale_id, &sale))
		sale.slug[0] = '\0';
	return json_pack("{s:s, s:s, s:I, s:s, s:I, s:s, s:s, s:s, s:s, s:I}", "id", id, "sale", sale.slug, "seq", seq,
		"state", state, "quantity", quantity, "admitted_at",
		time_format_rfc3339((uint64_t)admitted, admitted_text), "committed_at",
		time_format_rfc3339((uint64_t)committed, committed_text), "buyer", buyer, "source", source, "network",
		network);
}

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

/* What to ask the writer, from the arguments. NULL after having answered. */
static json_t *read_question(struct http_request *request, enum MHD_Result *result)
{
	static const char *const states[] = {"", "held", "confirmed", "cancelled", "expired", "refunded"};
	char slug[SALE_SLUG_MAX + 1] = "", state[16] = "";
	int has_sale = http_argument(request, "sale", slug, sizeof(slug)),
	    has_state = http_argument(request, "state", state, sizeof(state));
	struct sale sale = {0};
	long long limit, after;
	unsigned i = 0;

	if (has_sale < 0 || (*slug && sales_find(request->d->sales, slug, &sale))) {
		*result = http_problem(request, 404, "unknown_sale", "There is no such sale here.");
		return NULL;
	}
	while (i < sizeof(states) / sizeof(states[0]) && strcmp(states[i], state) != 0)
		i++;
	if (has_state < 0 || i == sizeof(states) / sizeof(states[0])) {
		*result = http_problem_field(request, 422, "out_of_range", "state",
			"state must be held, confirmed, cancelled, expired or refunded.");
		return NULL;
	}
	if (!read_number(request, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX, &limit, result) ||
		!read_number(request, "after", 0, 0, INT64_MAX, &after, result))
		return NULL;
	return json_pack("{s:s, s:I, s:s, s:I, s:I}", "op", "orders_list", "sale", (json_int_t)sale.id, "state", state,
		"after", (json_int_t)after, "limit", (json_int_t)limit);
}

enum MHD_Result control_get_orders(struct http_request *request)
{
	struct pipeline_answer answer;
	enum MHD_Result result = MHD_NO;
	json_t *question = read_question(request, &result), *orders, *order, *next;
	size_t i;

	if (!question)
		return result;
	if (pipeline_ask(request->d->pipeline, question, NULL, NULL, &answer))
		return control_send_writer_error(request, &answer);
	orders = json_array();
	json_array_foreach(json_object_get(answer.json, "orders"), i, order)
		json_array_append_new(orders, order_json(request->d, order));
	next = json_incref(json_object_get(answer.json, "next"));
	json_decref(answer.json);
	return http_send_json(
		request, 200, json_pack("{s:o, s:o}", "orders", orders, "next", next ? next : json_null()));
}

enum MHD_Result control_get_order(struct http_request *request)
{
	const char *id = request->captures[0];
	struct pipeline_answer answer;
	json_t *order;

	if (strlen(id) != ID_DIGITS || strspn(id, "0123456789abcdef") != ID_DIGITS)
		return http_problem(request, 404, "no_order", "An order's id has 16 hex digits.");
	if (pipeline_ask(
		    request->d->pipeline, json_pack("{s:s, s:s}", "op", "order_get", "id", id), NULL, NULL, &answer)) {
		if (answer.error == -EREMOTEIO && !strcmp(answer.code, "not_found"))
			return http_problem(request, 404, "no_order", "The ledger has no such order.");
		return control_send_writer_error(request, &answer);
	}
	order = order_json(request->d, json_object_get(answer.json, "order"));
	json_decref(answer.json);
	return order ? http_send_json(request, 200, order)
		     : http_problem(request, 500, "internal_error", "The writer's answer cannot be read.");
}
