/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The public routes: page, public view of a sale, and the table that leads to tokens and orders. Runs on the public listener's event loops, so
 * nothing here may wait.
 */
#include "daemon/http_public.h"

#include <string.h>

#include "common/timefmt.h"
#include "daemon/answers_state.h"
#include "daemon/fleet_leases.h"
#include "daemon/sales.h"
#include "daemon/validate.h"

#define RETRY_UNKNOWN_S 2
/* "few": no more than a tenth of what was put in is left, or no more than a hand can count. */
#define FEW_DIVISOR 10
#define FEW_UNITS 5

bool http_public_admit(struct http_request *request, enum MHD_Result *result)
{
	struct sluice_call call = {.op = SLUICE_CALL_RATE, .source = request->source};

	/* An order is charged with its own call; a door that cannot be called refuses orders, and nothing else. */
	if (request->is_first ||
		(!strcmp(request->method, "POST") && http_match("/v1/orders/{}", request->path, request->captures) > 0))
		return true;
	if (gate_maps_call(&request->d->maps, &call) || reason_action(call.reason) == SLUICE_ACTION_PASS)
		return true;
	*result = http_send_refusal(request, SLUICE_ANSWER_RATE_LIMITED, call.retry_after_s ? call.retry_after_s : 1);
	return false;
}

enum MHD_Result http_public_handle(struct http_request *request)
{
	/* What a buyer asks for before his order (the page reads its sale every few seconds) ends the connection. Else his order would be a later
	 * request of that one, which only the call door can judge: a loser would have cost a socket.
	 */
	if (!strncmp(request->path, "/v1/", 4) && request->route->handle != http_order_post)
		request->must_close = true;
	return request->route->handle(request);
}

bool http_find_sale(struct http_request *request, struct sale *sale, enum MHD_Result *result)
{
	struct daemon *d = request->d;

	if (!sales_find(d->sales, request->captures[0], sale))
		return true;
	if (!atomic_load(&d->sales_known)) /* which sales there are, only the ledger knows */
		*result = http_problem_retry(
			request, 503, "writer_away", RETRY_UNKNOWN_S, "The order writer is not there yet.");
	else
		*result = http_problem(request, 404, "unknown_sale", "There is no such sale here.");
	return false;
}

enum MHD_Result http_send_invalid(struct http_request *request, const struct validate_error *error)
{
	return http_problem_field(request, error->status, error->code, error->field, "%s", error->detail);
}

static enum MHD_Result get_sale(struct http_request *request)
{
	char opens[TIME_TEXT_MAX], ends[TIME_TEXT_MAX], now_text[TIME_TEXT_MAX];
	uint64_t now = time_wall_ns(), free_units, put_in;
	enum MHD_Result result;
	const char *availability = "many";
	struct sale sale;

	if (!http_find_sale(request, &sale, &result))
		return result;
	free_units = sales_free_units(request->d->sales, &sale);
	put_in = atomic_load(&sale.counts->put_in);
	fleet_leases_widen(request->d, sale.id, &put_in, &free_units);
	if (!free_units && !sales_may_get_units(&sale))
		availability = "sold_out";
	else if (free_units <= put_in / FEW_DIVISOR || free_units <= FEW_UNITS)
		availability = "few";
	return http_send_json(request, 200,
		json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:s}", "slug", sale.slug, "state",
			sales_state_name(sales_state(&sale, free_units, now)), "opens_at",
			time_format_rfc3339(sale.opens_ns, opens), "ends_at", time_format_rfc3339(sale.ends_ns, ends),
			"server_time", time_format_rfc3339(now, now_text), "per_buyer", (int)sale.per_buyer,
			"availability", availability));
}

/* Preflight of a page on another origin (fetch standard, CORS protocol). */
static enum MHD_Result options(struct http_request *request)
{
	struct MHD_Response *response =
		MHD_create_response_from_buffer(0, (void *)(uintptr_t) "", MHD_RESPMEM_PERSISTENT);
	char origin[ANSWER_ORIGIN_SIZE];

	answers_origin(origin);
	if (response && *origin) {
		MHD_add_response_header(response, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_ORIGIN, origin);
		MHD_add_response_header(response, "Access-Control-Allow-Methods", "GET, POST, DELETE");
		MHD_add_response_header(response, "Access-Control-Allow-Headers", "Content-Type");
		MHD_add_response_header(response, "Access-Control-Max-Age", "600");
	}
	return http_send(request, 204, response);
}

const struct http_route http_public_routes[] = {
	{"GET", "/", http_page_index, "page"},
	{"GET", "/sales/{}", http_page_index, "page"},
	{"GET", "/assets/{}", http_page_asset, "asset"},
	{"GET", "/v1/sales/{}", get_sale, "sale"},
	{"POST", "/v1/sales/{}/tokens", http_token_post_public, "tokens"},
	{"POST", "/v1/orders/{}", http_order_post, "order"},
	{"GET", "/v1/orders/{}", http_order_get, "order"},
	{"DELETE", "/v1/orders/{}", http_order_delete, "order"},
	{"GET", "/v1/openapi.json", http_openapi, "openapi"},
	{"GET", "/problems", http_problems_index, "problems"},
	{"GET", "/problems/{}", http_problems_page, "problems"},
	{"OPTIONS", "/v1/sales/{}", options, "options"},
	{"OPTIONS", "/v1/sales/{}/tokens", options, "options"},
	{"OPTIONS", "/v1/orders/{}", options, "options"},
	{0},
};
