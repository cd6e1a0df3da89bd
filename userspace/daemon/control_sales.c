/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Sales over the control API: list, show, create, change, pause, resume, end.
 *
 * A change goes to the ledger first; the gate's words follow on the pipeline's thread when the ledger has said yes. One change at a time, and none before
 * the ledger has answered the one before.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/control.h"
#include "daemon/fleet_leases.h"
#include "daemon/fleet_settings.h"
#include "daemon/http_public.h"
#include "daemon/maintenance.h"
#include "daemon/sale_change.h"
#include "daemon/sales.h"
#include "daemon/validate.h"

#define STOCK_MAX 1000000000000LL
#define HOLD_MAX_S 31536000
#define PACE_MAX 1000000000
#define MULTIPLIER_MAX 1000000
#define HOLD_DEFAULT_S 900
#define RETRY_BEHIND_S 1
#define RETRY_OPEN_S 2

struct sale_body {
	int64_t stock, per_buyer, hold_seconds, pace_per_second, token_multiplier;
	uint64_t opens_ns, ends_ns;
	char order_mode[SALE_MODE_MAX];
};

enum {
	FIELD_STOCK,
	FIELD_OPENS,
	FIELD_ENDS,
	FIELD_PER_BUYER,
	FIELD_HOLD,
	FIELD_PACE,
	FIELD_MODE,
	FIELD_MULTIPLIER,
	FIELD_COUNT
};
#define HAS(present, field) (1u & ((present) >> (field)))

static const struct validate_field sale_fields[FIELD_COUNT] = {
	[FIELD_STOCK] = {.name = "stock",
		.kind = VALIDATE_INTEGER,
		.max = STOCK_MAX,
		.offset = offsetof(struct sale_body, stock)},
	[FIELD_OPENS] = {.name = "opens_at", .kind = VALIDATE_TIME, .offset = offsetof(struct sale_body, opens_ns)},
	[FIELD_ENDS] = {.name = "ends_at", .kind = VALIDATE_TIME, .offset = offsetof(struct sale_body, ends_ns)},
	[FIELD_PER_BUYER] = {.name = "per_buyer",
		.kind = VALIDATE_INTEGER,
		.min = 1,
		.max = SLUICE_MAX_QUANTITY,
		.offset = offsetof(struct sale_body, per_buyer)},
	[FIELD_HOLD] = {.name = "hold_seconds",
		.kind = VALIDATE_INTEGER,
		.max = HOLD_MAX_S,
		.offset = offsetof(struct sale_body, hold_seconds)},
	[FIELD_PACE] = {.name = "pace_per_second",
		.kind = VALIDATE_INTEGER,
		.max = PACE_MAX,
		.offset = offsetof(struct sale_body, pace_per_second)},
	[FIELD_MODE] = {.name = "order_mode",
		.kind = VALIDATE_TEXT,
		.min = 1,
		.max = SALE_MODE_MAX - 1,
		.offset = offsetof(struct sale_body, order_mode)},
	[FIELD_MULTIPLIER] = {.name = "token_multiplier",
		.kind = VALIDATE_INTEGER,
		.max = MULTIPLIER_MAX,
		.offset = offsetof(struct sale_body, token_multiplier)},
};

static json_t *sale_json(struct daemon *d, const struct sale *sale)
{
	char opens[TIME_TEXT_MAX], ends[TIME_TEXT_MAX];
	struct stock_view stock;
	json_t *json;

	maintenance_read_stock(d, sale, &stock);
	json = json_pack("{s:s, s:I, s:s, s:I, s:s, s:s, s:I, s:I, s:I, s:s, s:I, s:I, s:I, s:I}", "slug", sale->slug,
		"id", (json_int_t)sale->id, "state", sales_state_name(sales_state(sale, stock.free, time_wall_ns())),
		"stock", (json_int_t)stock.put_in, "opens_at", time_format_rfc3339(sale->opens_ns, opens), "ends_at",
		time_format_rfc3339(sale->ends_ns, ends), "per_buyer", (json_int_t)sale->per_buyer, "hold_seconds",
		(json_int_t)sale->hold_seconds, "pace_per_second", (json_int_t)sale->pace_per_second, "order_mode",
		sale->order_mode, "token_multiplier", (json_int_t)sale->token_multiplier, "free",
		(json_int_t)stock.free, "held", (json_int_t)stock.held, "confirmed", (json_int_t)stock.confirmed);
	fleet_leases_describe(d, sale, stock.put_in, json);
	return json;
}

/* Of what can be set; the figures are not in it. */
static uint64_t sale_tag(const struct sale *sale)
{
	json_t *settings = sales_to_ledger(sale);
	uint64_t tag = http_etag_of_json(settings);

	json_decref(settings);
	return tag;
}

enum MHD_Result control_get_sales(struct http_request *request)
{
	struct daemon *d = request->d;
	json_t *list;
	struct sale sale;

	if (!atomic_load(&d->sales_known))
		return control_send_writer_error(request, &(struct pipeline_answer){.error = -ENOTCONN});
	list = json_array();
	for (unsigned i = 0; !sales_at(d->sales, i, &sale); i++)
		json_array_append_new(list, sale_json(d, &sale));
	return http_send_json(request, 200, json_pack("{s:o}", "sales", list));
}

enum MHD_Result control_get_sale(struct http_request *request)
{
	enum MHD_Result result;
	struct sale sale;

	if (!http_find_sale(request, &sale, &result))
		return result;
	http_set_etag(request, sale_tag(&sale));
	return http_send_json(request, 200, sale_json(request->d, &sale));
}

/* A sale that may sell faster than the writer drains: buyers will meet a closed gate again and again. */
static void warn_of_pace(struct daemon *d, const struct sale *sale, json_t *json)
{
	struct pipeline_status status;
	char text[192];

	pipeline_status(d->pipeline, &status);
	if (!status.drain_per_second || sale->ended || sale->paused || sale->pace_per_second <= status.drain_per_second)
		return;
	snprintf(text, sizeof(text),
		"The pace of %u a second is above what the order writer drains here (%.0f): orders will close for moments.",
		sale->pace_per_second, status.drain_per_second);
	json_object_set_new(json, "warning", json_string(text));
	log_warn("sale %s: %s", sale->slug, text);
}

static enum MHD_Result send_no_ledger(struct http_request *request, const char *slug)
{
	return http_problem_retry(request, 503, "fleet_away", RETRY_BEHIND_S,
		"The sale %s is made, and its stock is in no ledger yet: if Redis loses it now, it has none. Ask again.",
		slug);
}

/* Stores `sale`, and answers with it as it is afterwards. `stock` < 0: a change. */
static enum MHD_Result store_sale(struct http_request *request, struct sale *sale, int64_t stock)
{
	struct daemon *d = request->d;
	struct pipeline_answer answer;
	bool is_replicated;
	json_t *json;

	if (sale_change_store(d, sale, stock, SALE_CHANGED_HERE, &answer))
		return control_send_writer_error(request, &answer);
	if (sales_find_id(d->sales, sale->id, sale))
		return http_problem(
			request, 500, "internal_error", "The sale was stored, but this daemon has lost sight of it.");
	/* A new sale of the fleet: its total is to be in this node's ledger. */
	if (stock >= 0 && d->fleet && fleet_leases_await(d, sale->slug))
		return send_no_ledger(request, sale->slug);
	is_replicated = fleet_settings_await(d, fleet_settings_change_of_sale(d, sale));
	http_set_etag(request, sale_tag(sale));
	json = sale_json(d, sale);
	warn_of_pace(d, sale, json);
	return http_send_json(request, stock >= 0 ? 201 : 200, fleet_settings_mark(json, is_replicated));
}

/* Takes what the body has over the sale. Returns true if the result is a sale. */
static bool merge(struct http_request *request, struct sale *sale, const struct sale_body *body, uint32_t present,
	enum MHD_Result *result)
{
	if (HAS(present, FIELD_OPENS))
		sale->opens_ns = body->opens_ns;
	if (HAS(present, FIELD_ENDS))
		sale->ends_ns = body->ends_ns;
	if (HAS(present, FIELD_PER_BUYER))
		sale->per_buyer = (uint32_t)body->per_buyer;
	if (HAS(present, FIELD_HOLD))
		sale->hold_seconds = (uint32_t)body->hold_seconds;
	if (HAS(present, FIELD_PACE))
		sale->pace_per_second = (uint32_t)body->pace_per_second;
	if (HAS(present, FIELD_MULTIPLIER))
		sale->token_multiplier = (uint32_t)body->token_multiplier;
	if (HAS(present, FIELD_MODE) && strcmp(body->order_mode, "confirm") != 0) {
		*result = http_problem_field(
			request, 422, "out_of_range", "order_mode", "order_mode must be \"confirm\".");
		return false;
	}
	if (sale->ends_ns <= sale->opens_ns) {
		*result = http_problem_field(
			request, 422, "out_of_range", "ends_at", "ends_at must be later than opens_at.");
		return false;
	}
	if (sale->ends_ns <= time_wall_ns()) {
		*result = http_problem_field(request, 422, "out_of_range", "ends_at",
			"ends_at must not be in the past; a sale is ended now by its own command (end).");
		return false;
	}
	return true;
}

static enum MHD_Result send_too_many(struct http_request *request)
{
	return http_problem(request, 409, "too_many_sales",
		"The gate holds %d sales, and none of them is over for good.", SLUICE_MAX_SALES);
}

static enum MHD_Result send_over(struct http_request *request)
{
	return http_problem(request, 409, "sale_ended", "The sale is over; that is final. Create another one.");
}

/* Puts its units into Redis. Returns false with *result if that could not be. */
static bool make_total(struct http_request *request, const struct sale *sale, uint64_t stock, bool may_be_sold,
	enum MHD_Result *result)
{
	uint64_t total = 0;
	int err = fleet_leases_create(request->d, sale->slug, stock, may_be_sold, &total);

	if (err == -EEXIST)
		*result = http_problem_field(request, 409, "stock_is_moved", "stock",
			"Redis has a sale %s of %llu units, which was being made on another node, or before. Make it with as many, and move the stock then.",
			sale->slug, (unsigned long long)total);
	else if (err)
		*result = control_send_fleet_error(request, err, NULL);
	return !err;
}

/* Asks Redis for its number, and puts its units there. What was done before a failure is found by the same request again, and is not done twice. */
static enum MHD_Result create_fleet_sale(struct http_request *request, struct sale *sale, uint64_t stock)
{
	enum MHD_Result result;
	bool is_again = false;
	int err = fleet_settings_new_sale(request->d, sale->slug, &sale->id, &is_again);

	if (err == -ESTALE)
		return send_over(request);
	if (err == -EEXIST)
		return http_problem_retry(request, 503, "fleet_behind", RETRY_BEHIND_S,
			"The fleet has a sale %s already, which is on its way to this node: ask again. Nothing was changed.",
			sale->slug);
	if (err == -ENOSPC)
		return send_too_many(request);
	if (err)
		return control_send_fleet_error(request, err, NULL);
	return make_total(request, sale, stock, is_again, &result) ? store_sale(request, sale, 0) : result;
}

static enum MHD_Result create_sale(struct http_request *request, const struct sale_body *body, uint32_t present)
{
	static const unsigned required[] = {FIELD_STOCK, FIELD_OPENS, FIELD_ENDS};
	struct sale sale = {.per_buyer = 1, .hold_seconds = HOLD_DEFAULT_S, .order_mode = "confirm"};
	enum MHD_Result result;

	if (!sales_slug_is_valid(request->captures[0]))
		return http_problem_field(request, 422, "out_of_range", "slug",
			"A slug has 1 to %d of a-z, 0-9 and hyphen, and neither begins nor ends with a hyphen.",
			SALE_SLUG_MAX);
	for (unsigned i = 0; i < sizeof(required) / sizeof(required[0]); i++)
		if (!HAS(present, required[i]))
			return http_problem_field(request, 400, "missing_field", sale_fields[required[i]].name,
				"A new sale needs %s.", sale_fields[required[i]].name);
	if (!merge(request, &sale, body, present, &result))
		return result;
	if (!atomic_load(&request->d->sales_known))
		return control_send_writer_error(request, &(struct pipeline_answer){.error = -ENOTCONN});
	snprintf(sale.slug, sizeof(sale.slug), "%.*s", SALE_SLUG_MAX, request->captures[0]);
	if (request->d->fleet)
		return create_fleet_sale(request, &sale, (uint64_t)body->stock);
	sale.id = sales_next_id(request->d->sales, time_wall_ns());
	if (!sale.id)
		return send_too_many(request);
	return store_sale(request, &sale, body->stock);
}

/* Returns true with *result if what the sales will be is not known yet, which is what a change is made of. */
static bool is_change_open(struct http_request *request, enum MHD_Result *result)
{
	if (!sale_change_is_open(request->d))
		return false;
	*result = http_problem_retry(request, 503, "writer_away", RETRY_OPEN_S,
		"The order writer has not answered an earlier change of a sale, which may still take effect. Nothing else was changed: ask again.");
	return true;
}

static bool is_over(struct http_request *request, const struct sale *sale, enum MHD_Result *result)
{
	if (sales_state(sale, 1, time_wall_ns()) != SALE_ENDED)
		return false;
	*result = send_over(request);
	return true;
}

/* Units that were put in: on all nodes, for a sale of the fleet. */
static uint64_t stock_of(struct daemon *d, const struct sale *sale)
{
	struct fleet_stock stock;

	if (d->fleet && !fleet_leases_stock(d, sale->id, &stock))
		return stock.total;
	return atomic_load(&sale->counts->put_in);
}

/* A sale of the fleet that this node has heard of just now: not even its ledger was asked what it knows of the units. */
static bool is_unread(struct daemon *d, const struct sale *sale)
{
	struct fleet_stock stock;

	return fleet_leases_has(d, sale->id) && fleet_leases_stock(d, sale->id, &stock) != 0;
}

static enum MHD_Result change_sale(
	struct http_request *request, struct sale *sale, const struct sale_body *body, uint32_t present)
{
	enum MHD_Result result;
	bool is_remade;

	if (is_over(request, sale, &result))
		return result;
	if (HAS(present, FIELD_STOCK) && is_unread(request->d, sale))
		return http_problem_retry(request, 503, "fleet_behind", RETRY_BEHIND_S,
			"What the ledger of this node has of the stock of %s is not known here yet: ask again. Nothing was changed.",
			sale->slug);
	is_remade = HAS(present, FIELD_STOCK) && fleet_leases_lacks_total(request->d, sale->id);
	/* The same creation again is no error: its answer may have been lost. */
	if (HAS(present, FIELD_STOCK) && !is_remade && (uint64_t)body->stock != stock_of(request->d, sale))
		return http_problem_field(request, 409, "stock_is_moved", "stock",
			"The stock of a sale that exists is changed by POST /v1/sales/%s/stock.", sale->slug);
	if (!merge(request, sale, body, present, &result))
		return result;
	if (is_remade) {
		if (!make_total(request, sale, (uint64_t)body->stock, true, &result))
			return result;
		if (fleet_leases_await(request->d, sale->slug))
			return send_no_ledger(request, sale->slug);
	}
	return store_sale(request, sale, -1);
}

enum MHD_Result control_put_sale(struct http_request *request)
{
	struct validate_error error;
	struct sale_body body;
	enum MHD_Result result;
	struct sale sale;
	uint32_t present;
	json_t *json = http_read_json(request, &result);
	bool exists;
	int err;

	if (!json)
		return result;
	err = validate_object(json, sale_fields, FIELD_COUNT, &body, &present, &error);
	json_decref(json);
	if (err)
		return http_send_invalid(request, &error);
	pthread_mutex_lock(&request->d->change_lock);
	if (!is_change_open(request, &result)) {
		exists = !sales_find(request->d->sales, request->captures[0], &sale);
		if (http_check_etag(request, exists, exists ? sale_tag(&sale) : 0, &result))
			result = exists ? change_sale(request, &sale, &body, present)
					: create_sale(request, &body, present);
	}
	pthread_mutex_unlock(&request->d->change_lock);
	return result;
}

enum sale_action { ACTION_PAUSE, ACTION_RESUME, ACTION_END };

static enum MHD_Result act(struct http_request *request, enum sale_action action)
{
	enum MHD_Result result;
	struct sale sale;

	pthread_mutex_lock(&request->d->change_lock);
	if (!is_change_open(request, &result) && http_find_sale(request, &sale, &result) &&
		http_check_etag(request, true, sale_tag(&sale), &result) &&
		(action == ACTION_END || !is_over(request, &sale, &result))) {
		if (action == ACTION_END)
			sale.ended = true;
		else
			sale.paused = action == ACTION_PAUSE;
		result = store_sale(request, &sale, -1);
	}
	pthread_mutex_unlock(&request->d->change_lock);
	return result;
}

enum MHD_Result control_pause_sale(struct http_request *request)
{
	return act(request, ACTION_PAUSE);
}

enum MHD_Result control_resume_sale(struct http_request *request)
{
	return act(request, ACTION_RESUME);
}

enum MHD_Result control_end_sale(struct http_request *request)
{
	return act(request, ACTION_END);
}
