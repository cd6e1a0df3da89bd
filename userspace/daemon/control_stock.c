/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The stock of a sale over the control API: look, put in, take away (stock_change.h). */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/log.h"
#include "common/token.h"
#include "daemon/control.h"
#include "daemon/fleet_leases.h"
#include "daemon/http_public.h"
#include "daemon/maintenance.h"
#include "daemon/problems.h"
#include "daemon/sales.h"
#include "daemon/stock_change.h"
#include "daemon/validate.h"

#define DELTA_MAX 1000000000000LL
#define REASON_MAX 256
#define NAME_KEY 0x736c756963652d33ULL /* any will do, as long as it never changes */

struct stock_body {
	int64_t delta;
	char reason[REASON_MAX + 1];
};

static const struct validate_field stock_fields[] = {
	{.name = "delta",
		.kind = VALIDATE_INTEGER,
		.required = true,
		.min = -DELTA_MAX,
		.max = DELTA_MAX,
		.offset = offsetof(struct stock_body, delta)},
	{.name = "reason", .kind = VALIDATE_TEXT, .max = REASON_MAX, .offset = offsetof(struct stock_body, reason)},
};

static int prepare(struct daemon *d, void *arg)
{
	return stock_change_prepare(d, arg);
}

static void complete(struct daemon *d, void *arg, const struct pipeline_answer *answer)
{
	stock_change_complete(d, arg, answer);
}

static const struct pipeline_hooks stock_hooks = {
	.changes = true, .prepare = prepare, .complete = complete, .release = free};

static enum MHD_Result send_stock(struct http_request *request, const struct sale *sale)
{
	struct stock_view stock;
	json_t *json;

	maintenance_read_stock(request->d, sale, &stock);
	json = json_pack("{s:I, s:I, s:I, s:I, s:I, s:b}", "put_in", (json_int_t)stock.put_in, "free",
		(json_int_t)stock.free, "held", (json_int_t)stock.held, "confirmed", (json_int_t)stock.confirmed,
		"in_flight", (json_int_t)stock.in_flight, "balanced", stock.balanced);
	fleet_leases_describe(request->d, sale, stock.put_in, json);
	return http_send_json(request, 200, json);
}

enum MHD_Result control_get_stock(struct http_request *request)
{
	enum MHD_Result result;
	struct sale sale;

	if (!http_find_sale(request, &sale, &result))
		return result;
	return send_stock(request, &sale);
}

static uint64_t name_part(const char *text, uint64_t part)
{
	return siphash24(text, strlen(text), NAME_KEY, part);
}

/* The ledger moves once for each key: an answer under the caller's key may be lost before it is kept (control_once.c). */
static bool make_key(struct http_request *request, const struct sale *sale, char *key, size_t size)
{
	uint64_t random[2];

	/* The same key names the same change on every node, and Redis takes but short names. */
	if (*request->once_key && fleet_leases_has(request->d, sale->id)) {
		snprintf(key, size, "api:%016" PRIx64 "%016" PRIx64, name_part(request->once_key, 1),
			name_part(request->once_key, 2));
		return true;
	}
	if (*request->once_key) {
		snprintf(key, size, "api:%u:%s", sale->id, request->once_key);
		return true;
	}
	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return false;
	snprintf(key, size, "%016" PRIx64 "%016" PRIx64, random[0], random[1]);
	return true;
}

static enum MHD_Result send_not_enough(struct http_request *request, uint64_t free_units)
{
	json_t *problem = json_pack("{s:s, s:s, s:i, s:s, s:s, s:I}", "type", PROBLEM_TYPE_PREFIX "not_enough_free",
		"title", "Conflict", "status", 409, "code", "not_enough_free", "detail",
		"Fewer units are free than would be taken away.", "free", (json_int_t)free_units);
	char *text = json_dumps(problem, JSON_COMPACT);
	enum MHD_Result result =
		text ? http_send_text(request, 409, "application/problem+json", text, strlen(text)) : MHD_NO;

	json_decref(problem);
	free(text);
	return result;
}

/* The stock of a sale of the fleet is that of all nodes: what changes is the total, in Redis, and what a node has is leased from it. */
static enum MHD_Result move_total(
	struct http_request *request, const struct sale *sale, const struct stock_body *body, const char *key)
{
	uint64_t total, available;
	int err = fleet_leases_move(request->d, sale->slug, body->delta, key, &total, &available);

	if (err == -ENOSPC)
		return send_not_enough(request, available);
	if (err == -ERANGE)
		return http_problem_field(request, 422, "out_of_range", "delta",
			"The sale has %" PRIu64
			" units, and would have more than %lld, the most that a sale can have. Nothing was changed.",
			total, (long long)LEASE_UNITS_MAX);
	if (err == -ENOENT)
		return http_problem_retry(request, 503, "fleet_away", 2,
			"Redis does not know the sale, and no node has told it yet. Nothing was changed. If no node ever does, it was lost while it "
			"was made: make it again, with the same words.");
	if (err)
		return control_send_fleet_error(request, err, "");
	log_info("sale %s: total of the fleet moved by %" PRId64 " to %" PRIu64, sale->slug, body->delta, total);
	return send_stock(request, sale);
}

static enum MHD_Result move_stock(
	struct http_request *request, const struct sale *sale, const struct stock_body *body, const char *key)
{
	struct stock_change *change = calloc(1, sizeof(*change));
	struct pipeline_answer answer;

	if (!change)
		return http_problem(request, 500, "internal_error", "No memory.");
	change->sale = *sale;
	change->wanted = body->delta < 0 ? (uint64_t)-body->delta : 0;
	pipeline_ask(request->d->pipeline,
		json_pack("{s:s, s:I, s:I, s:s, s:s}", "op", "stock_move", "sale", (json_int_t)sale->id, "delta",
			(json_int_t)body->delta, "key", key, "reason", body->reason),
		&stock_hooks, change, &answer);
	json_decref(answer.json);
	if (answer.error == -ENOSPC)
		return send_not_enough(request, sales_free_units(request->d->sales, sale));
	if (answer.error)
		return control_send_writer_error(request, &answer);
	log_info("sale %s: stock moved by %" PRId64, sale->slug, body->delta);
	return send_stock(request, sale);
}

enum MHD_Result control_post_stock(struct http_request *request)
{
	struct stock_body body = {0};
	struct validate_error error;
	enum MHD_Result result;
	struct sale sale;
	uint32_t present;
	char key[128];
	json_t *json;
	int err;

	if (!http_find_sale(request, &sale, &result))
		return result;
	json = http_read_json(request, &result);
	if (!json)
		return result;
	err = validate_object(
		json, stock_fields, sizeof(stock_fields) / sizeof(stock_fields[0]), &body, &present, &error);
	json_decref(json);
	if (err)
		return http_send_invalid(request, &error);
	if (!body.delta)
		return http_problem_field(request, 422, "out_of_range", "delta", "delta must not be 0.");
	if (!make_key(request, &sale, key, sizeof(key)))
		return http_problem(request, 500, "internal_error", "The kernel gives no random numbers.");
	if (fleet_leases_has(request->d, sale.id))
		return move_total(request, &sale, &body, key);
	if (!sales_in_gate(request->d->sales, &sale))
		return http_problem(
			request, 409, "sale_ended", "The sale is over, and the gate does not know it any more.");
	pthread_mutex_lock(&request->d->change_lock);
	result = move_stock(request, &sale, &body, key);
	pthread_mutex_unlock(&request->d->change_lock);
	return result;
}
