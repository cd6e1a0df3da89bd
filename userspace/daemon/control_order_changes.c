/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The shop's word on an order over the control API: confirm, cancel, refund. The ledger decides; with an Idempotency-Key it also keeps its answer, and
 * what is said here is made of nothing else, so that it is the same when it is said again.
 */
#include <errno.h>
#include <string.h>

#include "daemon/control.h"
#include "daemon/http_public.h"
#include "daemon/order_changes.h"
#include "daemon/order_facts.h"
#include "daemon/validate.h"

#define RETRY_PENDING_S 1

static enum MHD_Result send_no_unit(struct http_request *request)
{
	return http_problem(request, 409, "hold_expired",
		"The hold of this order has expired, and it can have no unit again: none is free, or its buyer has as many as a buyer may have.");
}

static enum MHD_Result send_result(struct http_request *request, const json_t *answer)
{
	const json_t *result = json_array_get(json_object_get(answer, "results"), 0);
	const char *word = json_string_value(json_object_get(result, "result"));
	json_t *order = order_facts_control_json(request->d, json_object_get(result, "order"));
	enum MHD_Result sent;

	if (word && order && (!strcmp(word, "changed") || !strcmp(word, "same")))
		return http_send_json(request, 200, order);
	if (word && !strcmp(word, "not_found"))
		sent = http_problem(request, 404, "no_order", "The ledger has no such order.");
	else if (word && !strcmp(word, "no_unit"))
		sent = send_no_unit(request);
	else if (word && order && !strcmp(word, "conflict"))
		sent = http_problem(request, 409, "order_state", "The order is %s.",
			json_string_value(json_object_get(order, "state")));
	else
		sent = http_problem(request, 500, "internal_error", "The writer's answer cannot be read.");
	json_decref(order);
	return sent;
}

/* A late confirmation that the gate had no unit for. With a key, that is its answer from now on, also if a unit comes back: the shop may have given the
 * payment back by then. The ledger has it as the answer to a change that it refused.
 */
static enum MHD_Result refuse_late(struct http_request *request, const char *id)
{
	struct pipeline_answer answer;
	enum MHD_Result result;
	struct order_once once;

	if (!control_once(request, &once))
		return send_no_unit(request);
	pipeline_ask(request->d->pipeline,
		json_pack("{s:s, s:{s:[{s:s, s:s, s:n}]}, s:{s:s, s:s}}", "op", "once_put", "answer", "results", "id",
			id, "result", "no_unit", "order", "once", "key", once.key, "fingerprint", once.fingerprint),
		NULL, NULL, &answer);
	/* The first answer under the key, which may be that of another request that was as late. */
	result = answer.error ? control_send_writer_error(request, &answer) : send_result(request, answer.json);
	json_decref(answer.json);
	return result;
}

static enum MHD_Result change(struct http_request *request, enum order_action action, bool restock)
{
	struct order_change wanted = {.action = action, .restock = restock};
	const char *id = request->captures[0];
	struct pipeline_answer answer;
	enum MHD_Result result;
	struct order_once once;

	if (order_id_parse(id, &wanted.serial))
		return http_problem(request, 404, "no_order", "An order's id has 16 hex digits.");
	order_change_ask(request->d, &wanted, control_once(request, &once), &answer);
	switch (answer.error) {
	case 0:
		result = send_result(request, answer.json);
		break;
	case -EAGAIN:
		result = http_problem_retry(request, 503, "unavailable", RETRY_PENDING_S,
			"The order is on its way to the ledger. Nothing was changed.");
		break;
	case -EBUSY:
		result = http_problem_retry(request, 503, "unavailable", RETRY_PENDING_S,
			"The order's hold has expired, and its units may still come from another node. Nothing was changed.");
		break;
	case -ENOSPC:
		result = refuse_late(request, id);
		break;
	default:
		result = control_send_writer_error(request, &answer);
	}
	json_decref(answer.json);
	return result;
}

/* These have no fields. False after having answered. */
static bool check_empty(struct http_request *request, enum MHD_Result *result)
{
	struct validate_error error;
	uint32_t present;
	json_t *json = http_read_json(request, result);
	int err;

	if (!json)
		return false;
	err = validate_object(json, NULL, 0, NULL, &present, &error);
	json_decref(json);
	if (err)
		*result = http_send_invalid(request, &error);
	return !err;
}

enum MHD_Result control_confirm_order(struct http_request *request)
{
	enum MHD_Result result;

	return check_empty(request, &result) ? change(request, ORDER_CONFIRM, false) : result;
}

enum MHD_Result control_cancel_order(struct http_request *request)
{
	enum MHD_Result result;

	return check_empty(request, &result) ? change(request, ORDER_CANCEL, false) : result;
}

struct refund_body {
	bool restock;
};

static const struct validate_field refund_fields[] = {
	{.name = "restock", .kind = VALIDATE_BOOLEAN, .offset = offsetof(struct refund_body, restock)},
};

enum MHD_Result control_refund_order(struct http_request *request)
{
	struct refund_body body = {.restock = true};
	struct validate_error error;
	enum MHD_Result result;
	uint32_t present;
	json_t *json = http_read_json(request, &result);
	int err;

	if (!json)
		return result;
	err = validate_object(json, refund_fields, 1, &body, &present, &error);
	json_decref(json);
	return err ? http_send_invalid(request, &error) : change(request, ORDER_REFUND, body.restock);
}
