/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* POST, GET and DELETE /v1/orders/{token}: what the buyer hears.
 *
 * A POST always goes through the call door: for what the gate admitted on the wire the judge says "admitted again", for what XDP could not
 * read it judges now. Then the connection is suspended until the order is durable. Promises: 201 only after the writer's acknowledgement; a
 * refusal with the gate's own bytes; nobody waits longer than WAIT_NS for his order to be durable, nor longer than the pipeline has patience
 * (pipeline.h, `late`) for what only the ledger knows; and a unit that was admitted stays the buyer's until the ledger says otherwise.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/timefmt.h"
#include "daemon/http_public.h"
#include "daemon/order_changes.h"
#include "daemon/order_facts.h"
#include "daemon/pipeline.h"

#define WAIT_NS 10000000000ULL
#define ORDER_PATH "/v1/orders/"
#define RETRY_PENDING_S 1
#define RETRY_BUSY_S 1
/* Another CPU judges the same token: that takes microseconds. */
#define PROGRESS_TRIES 5
#define PROGRESS_NS 200000L
#define NS_PER_S 1000000000ULL

/* What the table knows of an order, as orders of the ledger are told. */
static json_t *order_json(struct daemon *d, const struct order_view *view)
{
	struct told_order order = {
		.serial = view->serial,
		.admitted_ns = view->admission.admitted_wall,
		.facts = {.state = view->state,
			.seq = view->seq,
			.committed_ns = view->committed_ns,
			.expires_ns = view->expires_ns,
			.resolved_ns = view->resolved_ns},
		.sale = view->admission.sale,
		.quantity = view->admission.quantity,
	};
	static const char *const only_durable[] = {"seq", "committed_at", "expires_at", "resolved_at"};
	json_t *json = order_facts_public_json(d, &order);
	unsigned first = order_is_durable(view->state) ? view->has_times ? 4 : 2 : 0;

	for (unsigned i = first; json && i < sizeof(only_durable) / sizeof(only_durable[0]); i++)
		json_object_del(json, only_durable[i]);
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

static enum MHD_Result ask_ledger(struct http_request *request, uint64_t serial);

static enum MHD_Result send_order(struct http_request *request, const struct order_view *order)
{
	if (order->state == ORDER_REFUSED)
		return http_send_refusal(request, SLUICE_ANSWER_UNAVAILABLE, RETRY_BUSY_S);
	if (!order_is_durable(order->state))
		return http_send_json_retry(request, 202, order_json(request->d, order), RETRY_PENDING_S);
	/* Durable since before this daemon: its times are in the ledger. */
	if (!order->has_times && !request->has_asked)
		return ask_ledger(request, order->serial);
	return http_send_json(request, order->first_answer ? 201 : 200, order_json(request->d, order));
}

/* Of another node of the fleet, which has its sale, its buyer's count and, perhaps, its order. */
static bool is_foreign(const struct http_request *request, const struct sluice_token *token)
{
	uint32_t own = config_own_node(&request->d->config);

	return own && token->node != own;
}

/* --- what only the ledger knows ------------------------------------------------------------------------------------------------------------- */
static enum MHD_Result send_no_order(struct http_request *request)
{
	return http_problem(request, 404, "no_order", "This token has not been admitted.");
}

static enum MHD_Result send_writer_away(struct http_request *request)
{
	return http_problem_retry(
		request, 503, "writer_away", RETRY_PENDING_S, "The order writer cannot be asked at the moment.");
}

/* A question to the ledger outlives a request that has waited long enough. */
struct ledger_question {
	struct http_request *request; /* NULL: answered without it */
};

/* On the pipeline's thread. The connection stays suspended until the resume, so the request is there. */
static void on_ledger_answer(struct daemon *d, void *arg, const struct pipeline_answer *answer)
{
	struct http_request *request = ((struct ledger_question *)arg)->request;
	json_t *json = json_object_get(answer->json, "order");
	struct told_order order;

	if (json && !order_facts_read(json, &order))
		orders_learn_times(d->orders, order.serial, &order.facts);
	if (!request)
		return;
	request->later_error = answer->error;
	if (answer->error == -EREMOTEIO && !strcmp(answer->code, "not_found"))
		request->later_error = -ENOENT;
	request->later = json_incref(json);
	MHD_resume_connection(request->connection);
}

/* Likewise. */
static void on_ledger_late(struct daemon *d, void *arg)
{
	struct ledger_question *question = arg;

	(void)d;
	question->request->later_error = -ETIMEDOUT;
	MHD_resume_connection(question->request->connection);
	question->request = NULL;
}

static const struct pipeline_hooks ledger_hooks = {
	.late = on_ledger_late, .complete = on_ledger_answer, .release = free};

static enum MHD_Result ask_ledger(struct http_request *request, uint64_t serial)
{
	struct ledger_question *question = calloc(1, sizeof(*question));
	char id[ORDER_ID_DIGITS + 1];

	request->has_waited = request->has_asked = true;
	request->serial = serial;
	if (question)
		question->request = request;
	MHD_suspend_connection(request->connection);
	if (!question ||
		pipeline_tell(request->d->pipeline,
			json_pack("{s:s, s:s}", "op", "order_get", "id", order_id_text(serial, id)), &ledger_hooks,
			question)) {
		request->later_error = -ENOMEM;
		MHD_resume_connection(request->connection);
	}
	return MHD_YES;
}

static enum MHD_Result answer_from_ledger(struct http_request *request)
{
	struct told_order order;
	struct order_view view;

	/* What the table knows is told, whoever is away: a yes is never taken back. */
	if (!orders_find(request->d->orders, request->serial, &view))
		return send_order(request, &view);
	if (request->later_error == -ENOENT)
		return send_no_order(request);
	if (request->later_error || order_facts_read(request->later, &order))
		return send_writer_away(request);
	return http_send_json(request, 200, order_facts_public_json(request->d, &order));
}

/* --- POST ------------------------------------------------------------------------------------------------------------------------------- */
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
	struct sluice_token token;
	enum sluice_answer answer;

	if (request->has_asked)
		return answer_from_ledger(request);
	if (request->has_waited)
		return answer_after_wait(request);
	if (ask_judge(request, &call))
		return http_send_refusal(request, SLUICE_ANSWER_UNAVAILABLE, RETRY_BUSY_S);
	if (call.reason == SLUICE_REASON_ADMITTED || call.reason == SLUICE_REASON_ADMITTED_AGAIN)
		return answer_admitted(request, call.serial, &call.admission);
	answer = reason_answer(call.reason);
	if (answer == SLUICE_ANSWER_WRONG_NODE && !sluice_token_decode(call.token, &token))
		return http_send_home(request, token.node, call.token);
	/* Drops have no answer: over the rate and out of answers on the wire is a 429 here, a busy token is told to come again. */
	if (answer == SLUICE_ANSWER_NONE)
		answer =
			call.reason == SLUICE_REASON_RATE_DROP ? SLUICE_ANSWER_RATE_LIMITED : SLUICE_ANSWER_UNAVAILABLE;
	return http_send_refusal(request, answer, call.retry_after_s ? call.retry_after_s : RETRY_BUSY_S);
}

/* --- GET -------------------------------------------------------------------------------------------------------------------------------- */
/* Opens the token of the path. False after having answered. */
static bool open_token(struct http_request *request, struct sluice_token *token, enum MHD_Result *result)
{
	int err;

	pthread_rwlock_rdlock(&request->d->keys_lock);
	err = token_open(&request->d->keys, request->captures[0], strlen(request->captures[0]), token);
	pthread_rwlock_unlock(&request->d->keys_lock);
	if (err)
		*result = http_send_refusal(request, SLUICE_ANSWER_TOKEN_INVALID, 0);
	return !err;
}

/* The table has every admission of a token that is still valid; only those of long ago are in the ledger alone. */
static bool may_be_in_ledger(const struct sluice_token *token)
{
	return (uint64_t)token->expires_at_s * NS_PER_S <= time_wall_ns();
}

enum MHD_Result http_order_get(struct http_request *request)
{
	struct sluice_token token;
	struct order_view order;
	enum MHD_Result result;

	if (request->has_waited)
		return answer_from_ledger(request);
	if (!open_token(request, &token, &result))
		return result;
	if (!orders_find(request->d->orders, token.serial, &order)) {
		if (order.state == ORDER_REFUSED)
			return send_no_order(request);
		if (!order_is_durable(order.state))
			return http_send_json(request, 200, order_json(request->d, &order));
		return send_order(request, &order);
	}
	if (is_foreign(request, &token))
		return http_send_home(request, token.node, request->captures[0]);
	if (!atomic_load(&request->d->sales_known))
		return send_writer_away(request);
	return may_be_in_ledger(&token) ? ask_ledger(request, token.serial) : send_no_order(request);
}

/* --- DELETE ----------------------------------------------------------------------------------------------------------------------------- */
/* On the pipeline's thread, as on_ledger_answer. */
static void on_cancel_answer(struct daemon *d, void *arg, const struct pipeline_answer *answer)
{
	struct http_request *request = arg;

	(void)d;
	request->later_error = answer->error;
	request->later = json_incref(json_array_get(json_object_get(answer->json, "results"), 0));
	MHD_resume_connection(request->connection);
}

static enum MHD_Result send_not_durable(struct http_request *request)
{
	return http_problem_retry(
		request, 409, "order_state", RETRY_PENDING_S, "The order is pending: it is not durable yet.");
}

static enum MHD_Result send_not_held(struct http_request *request, enum order_state state)
{
	return http_problem(request, 409, "order_state", "The order is %s.", order_state_name(state));
}

static enum MHD_Result answer_cancelled(struct http_request *request)
{
	const char *word = json_string_value(json_object_get(request->later, "result"));
	struct told_order order;

	if (request->later_error == -EAGAIN)
		return send_not_durable(request);
	if (request->later_error == -ETIMEDOUT)
		return http_problem_retry(request, 503, "writer_away", RETRY_PENDING_S,
			"The order writer has not answered in time. The order may still be cancelled: ask again.");
	if (request->later_error || !word)
		return send_writer_away(request);
	if (!strcmp(word, "not_found"))
		return send_no_order(request);
	if (order_facts_read(json_object_get(request->later, "order"), &order))
		return send_writer_away(request);
	if (strcmp(word, "changed") != 0 && strcmp(word, "same") != 0)
		return send_not_held(request, order.facts.state);
	return http_send_json(request, 200, order_facts_public_json(request->d, &order));
}

enum MHD_Result http_order_delete(struct http_request *request)
{
	struct sluice_token token;
	struct order_view order;
	enum MHD_Result result;

	if (request->has_waited)
		return answer_cancelled(request);
	if (!open_token(request, &token, &result))
		return result;
	if (orders_find(request->d->orders, token.serial, &order)) {
		if (is_foreign(request, &token))
			return http_send_home(request, token.node, request->captures[0]);
		if (!atomic_load(&request->d->sales_known))
			return send_writer_away(request);
		if (!may_be_in_ledger(&token))
			return send_no_order(request);
	} else if (order.state == ORDER_REFUSED) {
		return send_no_order(request);
	} else if (!order_is_durable(order.state)) {
		return send_not_durable(request);
	} else if (order.state == ORDER_CANCELLED && order.has_times) {
		return http_send_json(request, 200, order_json(request->d, &order));
	} else if (order.state != ORDER_HELD && order.state != ORDER_CANCELLED) {
		return send_not_held(request, order.state); /* and cannot become held again: no need to ask */
	}
	request->has_waited = true;
	MHD_suspend_connection(request->connection);
	if (order_cancel_tell(request->d, token.serial, on_cancel_answer, request)) {
		request->later_error = -ENOMEM;
		MHD_resume_connection(request->connection);
	}
	return MHD_YES;
}
