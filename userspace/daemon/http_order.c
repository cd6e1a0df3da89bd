/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* POST and GET /v1/orders/{token}: what the buyer hears.
 *
 * A POST always goes through the call door: for what the gate admitted on the wire the judge says "admitted again", for what XDP could not
 * read it judges now. Then the connection is suspended until the order is durable. Promises: 201 only after the writer's acknowledgement; a
 * refusal with the gate's own bytes; nobody waits longer than WAIT_NS, and a unit that was admitted stays the buyer's.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/timefmt.h"
#include "daemon/http_public.h"
#include "daemon/pipeline.h"

#define WAIT_NS 10000000000ULL
#define ORDER_PATH "/v1/orders/"
#define RETRY_PENDING_S 1
#define RETRY_BUSY_S 1
/* Another CPU judges the same token: that takes microseconds. */
#define PROGRESS_TRIES 5
#define PROGRESS_NS 200000L
#define NS_PER_S 1000000000ULL

static json_t *order_json(struct daemon *d, const struct order_view *order)
{
	char id[17], admitted[TIME_TEXT_MAX], committed[TIME_TEXT_MAX];
	struct sale sale;
	json_t *json;

	if (sales_find_id(d->sales, order->admission.sale, &sale))
		sale.slug[0] = '\0';
	snprintf(id, sizeof(id), "%016" PRIx64, order->serial);
	json = json_pack("{s:s, s:s, s:s, s:i, s:s}", "id", id, "sale", sale.slug, "state",
		order->state == ORDER_DURABLE ? "held" : "pending", "quantity", (int)order->admission.quantity,
		"admitted_at", time_format_rfc3339(order->admission.admitted_wall, admitted));
	if (json && order->state == ORDER_DURABLE) {
		json_object_set_new(json, "seq", json_integer((json_int_t)order->seq));
		json_object_set_new(
			json, "committed_at", json_string(time_format_rfc3339(order->committed_ns, committed)));
	}
	return json;
}

static struct http_request *request_of(struct order_waiter *waiter)
{
	return (struct http_request *)(void *)((char *)waiter - offsetof(struct http_request, waiter));
}

static void suspend(struct order_waiter *waiter)
{
	MHD_suspend_connection(request_of(waiter)->connection);
}

static void resume(struct order_waiter *waiter)
{
	MHD_resume_connection(request_of(waiter)->connection);
}

static enum MHD_Result send_order(struct http_request *request, const struct order_view *order)
{
	switch (order->state) {
	case ORDER_DURABLE:
		return http_send_json(request, order->first_answer ? 201 : 200, order_json(request->d, order));
	case ORDER_REFUSED:
		return http_send_refusal(request, SLUICE_ANSWER_UNAVAILABLE, RETRY_BUSY_S);
	case ORDER_SEEN:
	case ORDER_QUEUED:
		break;
	}
	return http_send_json_retry(request, 202, order_json(request->d, order), RETRY_PENDING_S);
}

/* Answers with the order, or suspends the connection until there is one to answer with. */
static enum MHD_Result answer_admitted(
	struct http_request *request, uint64_t serial, const struct sluice_admission *admission)
{
	struct order_view order;
	int waits;

	request->waiter.deadline_ns = time_mono_ns() + WAIT_NS;
	request->waiter.wake = resume;
	request->serial = serial;
	request->has_waited = true; /* before it can be woken */
	waits = orders_look_or_wait(request->d->orders, serial, admission, &order, &request->waiter, suspend);
	if (waits < 0) {
		request->has_waited = false;
		return http_send_refusal(request, SLUICE_ANSWER_UNAVAILABLE, RETRY_BUSY_S);
	}
	return waits ? MHD_YES : send_order(request, &order);
}

/* After the wake: the order was settled, or time is up. */
static enum MHD_Result answer_after_wait(struct http_request *request)
{
	struct order_view order;

	if (orders_find(request->d->orders, request->serial, &order) ||
		orders_look_or_wait(request->d->orders, request->serial, &order.admission, &order, NULL, NULL) < 0)
		return http_send_refusal(request, SLUICE_ANSWER_UNAVAILABLE, RETRY_BUSY_S);
	return send_order(request, &order);
}

static int ask_judge(struct http_request *request, struct sluice_call *call)
{
	/* As sent: the gate reads no escapes either, and the two doors shall not differ. */
	const char *token = request->path + strlen(ORDER_PATH);
	size_t length = strlen(token);

	for (int i = 0;; i++) {
		int err;

		memset(call, 0, sizeof(*call));
		call->op = SLUICE_CALL_ORDER;
		call->flags = request->is_first || i ? 0 : SLUICE_CALL_CHARGE;
		call->source = request->source;
		/* A text of another length is no token; the judge shall say so, and count it. */
		memcpy(call->token, token, length == SLUICE_TOKEN_TEXT ? length : 0);
		err = gate_maps_call(&request->d->maps, call);
		if (err || call->reason != SLUICE_REASON_IN_PROGRESS || i == PROGRESS_TRIES)
			return err;
		nanosleep(&(struct timespec){.tv_nsec = PROGRESS_NS}, NULL);
	}
}

bool http_order_ignores_body(const struct http_request *request)
{
	return !strcmp(request->method, "POST") && !strncmp(request->path, ORDER_PATH, strlen(ORDER_PATH));
}

enum MHD_Result http_order_post(struct http_request *request)
{
	struct sluice_call call;
	enum sluice_answer answer;

	if (request->has_waited)
		return answer_after_wait(request);
	if (ask_judge(request, &call))
		return http_send_refusal(request, SLUICE_ANSWER_UNAVAILABLE, RETRY_BUSY_S);
	if (call.reason == SLUICE_REASON_ADMITTED || call.reason == SLUICE_REASON_ADMITTED_AGAIN)
		return answer_admitted(request, call.serial, &call.admission);
	answer = reason_answer(call.reason);
	/* Drops have no answer: over the rate and out of answers on the wire is a 429 here, a busy token is told to come again. */
	if (answer == SLUICE_ANSWER_NONE)
		answer =
			call.reason == SLUICE_REASON_RATE_DROP ? SLUICE_ANSWER_RATE_LIMITED : SLUICE_ANSWER_UNAVAILABLE;
	return http_send_refusal(request, answer, call.retry_after_s ? call.retry_after_s : RETRY_BUSY_S);
}

/* --- GET -------------------------------------------------------------------------------------------------------------------------------- */
static enum MHD_Result send_no_order(struct http_request *request)
{
	return http_problem(request, 404, "no_order", "This token has not been admitted.");
}

/* On the pipeline's thread. The connection stays suspended until the resume, so the request is there. */
static void on_ledger_answer(struct daemon *d, void *arg, const struct pipeline_answer *answer)
{
	struct http_request *request = arg;

	(void)d;
	request->later_error = answer->error;
	if (answer->error == -EREMOTEIO && !strcmp(answer->code, "not_found"))
		request->later_error = -ENOENT;
	request->later = json_incref(json_object_get(answer->json, "order"));
	MHD_resume_connection(request->connection);
}

static const struct pipeline_hooks ledger_hooks = {.complete = on_ledger_answer};

static enum MHD_Result answer_from_ledger(struct http_request *request)
{
	char admitted_text[TIME_TEXT_MAX], committed_text[TIME_TEXT_MAX];
	json_int_t sale_id, seq, quantity, admitted, committed;
	const char *id, *state;
	struct sale sale;

	if (request->later_error == -ENOENT)
		return send_no_order(request);
	if (request->later_error ||
		json_unpack(request->later, "{s:s, s:I, s:I, s:s, s:I, s:I, s:I}", "id", &id, "sale", &sale_id, "seq",
			&seq, "state", &state, "quantity", &quantity, "admitted_ns", &admitted, "committed_ns",
			&committed) < 0)
		return http_problem_retry(request, 503, "writer_away", RETRY_PENDING_S,
			"The order writer cannot be asked at the moment.");
	if (sales_find_id(request->d->sales, (uint32_t)sale_id, &sale))
		return send_no_order(request);
	return http_send_json(request, 200,
		json_pack("{s:s, s:s, s:I, s:s, s:I, s:s, s:s}", "id", id, "sale", sale.slug, "seq", seq, "state",
			state, "quantity", quantity, "admitted_at",
			time_format_rfc3339((uint64_t)admitted, admitted_text), "committed_at",
			time_format_rfc3339((uint64_t)committed, committed_text)));
}

static enum MHD_Result ask_ledger(struct http_request *request, uint64_t serial)
{
	char id[17];

	snprintf(id, sizeof(id), "%016" PRIx64, serial);
	request->has_waited = true;
	MHD_suspend_connection(request->connection);
	if (pipeline_tell(request->d->pipeline, json_pack("{s:s, s:s}", "op", "order_get", "id", id), &ledger_hooks,
		    request)) {
		request->later_error = -ENOMEM;
		MHD_resume_connection(request->connection);
	}
	return MHD_YES;
}

enum MHD_Result http_order_get(struct http_request *request)
{
	struct sluice_token token;
	struct order_view order;
	int err;

	if (request->has_waited)
		return answer_from_ledger(request);
	pthread_rwlock_rdlock(&request->d->keys_lock);
	err = token_open(&request->d->keys, request->captures[0], strlen(request->captures[0]), &token);
	pthread_rwlock_unlock(&request->d->keys_lock);
	if (err)
		return http_send_refusal(request, SLUICE_ANSWER_TOKEN_INVALID, 0);
	if (!orders_find(request->d->orders, token.serial, &order))
		return order.state == ORDER_REFUSED ? send_no_order(request)
						    : http_send_json(request, 200, order_json(request->d, &order));
	if (!atomic_load(&request->d->sales_known))
		return http_problem_retry(
			request, 503, "writer_away", RETRY_PENDING_S, "The order writer is not there yet.");
	/* The table has every admission of a token that is still valid; only those of long ago are in the ledger alone. */
	return (uint64_t)token.expires_at_s * NS_PER_S > time_wall_ns() ? send_no_order(request)
									: ask_ledger(request, token.serial);
}
