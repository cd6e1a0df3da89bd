/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What is done to a fleet as a whole over the control API of any of its nodes: a node fenced, Redis rebuilt, all books told. These wait for Redis, as long as
 * a control request may.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "daemon/control.h"
#include "daemon/fleet_audit.h"
#include "daemon/fleet_leases.h"
#include "daemon/fleet_nodes.h"
#include "daemon/http_public.h"
#include "daemon/sales.h"
#include "daemon/validate.h"

#define RETRY_AWAY_S 2
#define SOLD_MAX 1000000000000LL
/* A node that was heard of since then may be alive. */
#define ALIVE_S 5.0

enum MHD_Result control_send_fleet_error(struct http_request *request, int error, const char *failure)
{
	switch (error) {
	case -ENOTCONN:
		return http_problem_retry(
			request, 503, "fleet_away", RETRY_AWAY_S, "Redis cannot be asked now. Nothing was changed.");
	case -EAGAIN:
		return http_problem_retry(request, 503, "fleet_settling", RETRY_AWAY_S,
			"Redis has lost its memory and waits until every node has told it what it holds. Nothing was changed. "
			"A node that does not come back is fenced: sluice node fence.");
	case -ETIMEDOUT:
		return http_problem_retry(request, 503, "fleet_away", RETRY_AWAY_S,
			"Redis has not answered in time. The change may still take effect: look before you ask again, or send "
			"the same " HTTP_ONCE_KEY " again.");
	case -EINPROGRESS:
		return http_problem_retry(request, 503, "fleet_away", RETRY_AWAY_S,
			"Redis could be asked for some sales, and for others not%s%s. What was asked for is done where it could be: ask again, "
			"the same again does no harm.",
			failure && *failure ? ": " : "", failure ? failure : "");
	case -EREMOTEIO:
		return http_problem_retry(request, 503, "fleet_away", RETRY_AWAY_S,
			"Redis could not (%s). Nothing was changed.",
			failure && *failure ? failure : "it does not know the sale");
	default:
		return http_problem(request, 500, "internal_error", "Failed: %s.", strerror(-error));
	}
}

/* --- a node that is gone ------------------------------------------------------------------------------------------------------------- */
struct fence_body {
	char sale[SALE_SLUG_MAX + 1];
	int64_t sold, heard;
	bool exact, nothing, force;
};

enum { FIELD_SALE, FIELD_SOLD, FIELD_HEARD, FIELD_EXACT, FIELD_NOTHING, FIELD_FORCE, FIELD_COUNT };

static const struct validate_field fence_fields[FIELD_COUNT] = {
	[FIELD_SALE] = {.name = "sale",
		.kind = VALIDATE_TEXT,
		.min = 1,
		.max = SALE_SLUG_MAX,
		.offset = offsetof(struct fence_body, sale)},
	[FIELD_SOLD] = {.name = "sold",
		.kind = VALIDATE_INTEGER,
		.max = SOLD_MAX,
		.offset = offsetof(struct fence_body, sold)},
	[FIELD_HEARD] = {.name = "heard",
		.kind = VALIDATE_INTEGER,
		.max = INT64_MAX,
		.offset = offsetof(struct fence_body, heard)},
	[FIELD_EXACT] = {.name = "exact", .kind = VALIDATE_BOOLEAN, .offset = offsetof(struct fence_body, exact)},
	[FIELD_NOTHING] = {.name = "nothing", .kind = VALIDATE_BOOLEAN, .offset = offsetof(struct fence_body, nothing)},
	[FIELD_FORCE] = {.name = "force", .kind = VALIDATE_BOOLEAN, .offset = offsetof(struct fence_body, force)},
};

/* Whether it was heard of just now; a node of which nobody knows is not. */
static bool seems_alive(struct daemon *d, unsigned node)
{
	json_t *all = fleet_nodes_json(d), *row;
	bool alive = false;
	size_t i;

	json_array_foreach(json_object_get(all, "nodes"), i, row) {
		const json_t *seen = json_object_get(row, "seen_seconds_ago");

		if (json_integer_value(json_object_get(row, "id")) == (json_int_t)node)
			alive = json_is_number(seen) && json_number_value(seen) < ALIVE_S;
	}
	json_decref(all);
	return alive;
}

static enum MHD_Result send_no_node(struct http_request *request, const char *node)
{
	return http_problem(
		request, 404, "no_node", "Neither the config of this node nor Redis knows a node %.16s.", node);
}

/* Of the config or not: one that was taken out of it may still hold units, which the ledgers of the others remember. */
static bool read_node(struct http_request *request, unsigned *node, enum MHD_Result *result)
{
	const char *text = request->captures[0];
	char *end;
	unsigned long number = strtoul(text, &end, 10);

	*node = (unsigned)number;
	if (*text >= '1' && *text <= '9' && !*end && number <= CONFIG_NODES_MAX)
		return true;
	*result = send_no_node(request, text);
	return false;
}

static bool read_fence(struct http_request *request, struct fence_body *body, enum MHD_Result *result)
{
	struct validate_error error;
	uint32_t present;
	json_t *json = http_read_json(request, result);
	bool sold;
	int err;

	if (!json)
		return false;
	err = validate_object(json, fence_fields, FIELD_COUNT, body, &present, &error);
	json_decref(json);
	if (err) {
		*result = http_send_invalid(request, &error);
		return false;
	}
	sold = present >> FIELD_SOLD & 1u;
	if (!(present >> FIELD_HEARD & 1u))
		body->heard = -1;
	if (sold == body->nothing) {
		*result = http_problem_field(request, 400, "missing_field", "sold",
			"Say what the node has sold: {\"sale\":…,\"sold\":n}, or {\"nothing\":true} if nobody knows.");
		return false;
	}
	if (sold && !*body->sale) {
		*result = http_problem_field(
			request, 400, "missing_field", "sale", "sold is a number of one sale: name it.");
		return false;
	}
	if (body->nothing)
		body->sold = -1;
	return true;
}

static bool is_known(struct daemon *d, unsigned node, const json_t *rows)
{
	const json_t *row;
	size_t i;

	json_array_foreach(rows, i, row)
		if (strcmp(json_string_value(json_object_get(row, "result")) ?: "", "unknown") != 0)
			return true;
	return config_node(&d->config, node) != NULL;
}

static bool has_result(const json_t *rows, const char *result)
{
	const json_t *row;
	size_t i;

	json_array_foreach(rows, i, row)
		if (!strcmp(json_string_value(json_object_get(row, "result")) ?: "", result))
			return true;
	return false;
}

enum MHD_Result control_fence_node(struct http_request *request)
{
	struct fence_body body = {.sold = 0};
	enum MHD_Result result;
	struct sale sale;
	char failure[128];
	unsigned node;
	json_t *rows;
	int err;

	if (!control_needs_fleet(request, &result) || !read_node(request, &node, &result) ||
		!read_fence(request, &body, &result))
		return result;
	if (node == request->d->config.fleet.node)
		return http_problem(request, 409, "node_is_alive", "This is node %u itself. Ask another one.", node);
	if (*body.sale && sales_find(request->d->sales, body.sale, &sale))
		return http_problem(request, 404, "unknown_sale", "There is no sale \"%s\".", body.sale);
	if (!body.force && seems_alive(request->d, node))
		return http_problem(request, 409, "node_is_alive",
			"Node %u was heard of less than %.0f s ago, and may be selling. Stop it first; or send \"force\":true if you know better.",
			node, ALIVE_S);
	rows = json_array();
	err = fleet_leases_fence(request->d,
		&(struct fleet_fence){.node = node,
			.slug = *body.sale ? body.sale : NULL,
			.sold = body.sold,
			.is_exact = body.exact,
			.heard = body.heard},
		rows, failure, sizeof(failure));
	if (err) {
		json_decref(rows);
		return control_send_fleet_error(request, err, failure);
	}
	if (!is_known(request->d, node, rows)) {
		json_decref(rows);
		return send_no_node(request, request->captures[0]);
	}
	if (has_result(rows, "heard_of")) {
		json_decref(rows);
		return http_problem(request, 409, "node_is_alive",
			"Node %u has spoken meanwhile, so it is alive. It was not fenced in every sale: stop it, and ask again.",
			node);
	}
	if (*body.sale && has_result(rows, "out_of_range")) {
		const json_t *row = json_array_get(rows, 0);
		json_int_t told = json_integer_value(json_object_get(row, "sold")),
			   held = json_integer_value(json_object_get(row, "balance"));

		json_decref(rows);
		return http_problem_field(request, 422, "out_of_range", "sold",
			"Node %u holds %lld units of the sale and has told of %lld sold: sold must be between the two; of a node that was fenced before, it may be more by what is free.",
			node, (long long)held, (long long)told);
	}
	log_warn("node %u was fenced by the operator: %s%s", node, *body.sale ? "sale " : "every sale", body.sale);
	return http_send_json(request, 200, json_pack("{s:i, s:o}", "node", (int)node, "sales", rows));
}

/* --- Redis -------------------------------------------------------------------------------------------------------------------------------- */
enum MHD_Result control_rebuild_cluster(struct http_request *request)
{
	enum MHD_Result result;
	char failure[128];
	json_t *rows;
	int err;

	if (!control_needs_fleet(request, &result))
		return result;
	rows = json_array();
	err = fleet_leases_rebuild(request->d, rows, failure, sizeof(failure));
	if (err) {
		json_decref(rows);
		return control_send_fleet_error(request, err, failure);
	}
	log_warn("Redis is being rebuilt from the ledgers of all nodes, by the operator's word");
	return http_send_json(request, 200, json_pack("{s:o}", "sales", rows));
}

/* An array in which each has its name in it. */
static json_t *as_rows(json_t *sales)
{
	json_t *rows = json_array(), *sale;
	const char *slug;

	json_object_foreach(sales, slug, sale) {
		json_t *row = json_is_object(sale) ? json_copy(sale) : json_pack("{s:s}", "state", "unknown");

		json_object_set_new(row, "sale", json_string(slug));
		json_array_append_new(rows, row);
	}
	return rows;
}

enum MHD_Result control_get_cluster_sales(struct http_request *request)
{
	enum MHD_Result result;
	char failure[128];
	json_t *sales, *rows;
	int err;

	if (!control_needs_fleet(request, &result))
		return result;
	err = fleet_leases_read(request->d, &sales, failure, sizeof(failure));
	if (err)
		return control_send_fleet_error(request, err, failure);
	rows = as_rows(sales);
	json_decref(sales);
	return http_send_json(request, 200, json_pack("{s:o}", "sales", rows));
}

enum MHD_Result control_get_audit(struct http_request *request)
{
	json_t *audit, *sales = NULL;
	enum MHD_Result result;
	char failure[128];
	int err;

	if (!control_needs_fleet(request, &result))
		return result;
	err = fleet_audit_ask(request->d, &audit, failure, sizeof(failure));
	if (err)
		return control_send_fleet_error(request, err, failure);
	err = fleet_leases_read(request->d, &sales, failure, sizeof(failure));
	if (err) {
		json_decref(audit);
		return control_send_fleet_error(request, err, failure);
	}
	json_object_set_new(audit, "redis", sales);
	return http_send_json(request, 200, audit);
}
