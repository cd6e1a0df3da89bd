/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The control listeners' table of routes, and who may use them: on the Unix socket whoever may open it, over TCP who knows the secret.
 * Handlers have a thread of their own and may wait for the order writer.
 */
#include "daemon/control.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "daemon/http_public.h"

#define RETRY_WRITER_S 2
#define BEARER "Bearer "
#define BULK_BODY_MAX (1u << 20) /* some 50,000 prefixes; a longer list comes in pieces, so that memory stays bounded */

bool control_admit(struct http_request *request, enum MHD_Result *result)
{
	const char *given;

	/* Whether the daemon lives is no secret, and who asks for it is often not trusted with one. */
	if (!request->listener->needs_secret || !strcmp(request->path, "/livez") || !strcmp(request->path, "/readyz"))
		return true;
	given = http_header(request, MHD_HTTP_HEADER_AUTHORIZATION);
	if (given && !strncasecmp(given, BEARER, strlen(BEARER)) &&
		http_secret_equals(given + strlen(BEARER), request->d->secret))
		return true;
	if (given)
		*result = http_problem(request, 401, "wrong_secret", "This is not the control secret.");
	else
		*result = http_problem(request, 401, "no_secret",
			"Send the control secret as \"Authorization: Bearer\"; it is in control.secret in the state directory.");
	return false;
}

/* Who has no secret does not come so far. */
size_t control_body_max(const struct http_request *request)
{
	bool bulk = !strcmp(request->method, "POST") && !strncmp(request->path, "/v1/lists/", strlen("/v1/lists/"));

	return bulk ? BULK_BODY_MAX : request->listener->body_max;
}

/* What the question was for: a read changes nothing anyhow, and needs no word of it. */
enum question_kind { QUESTION_READS, QUESTION_COMES_FIRST, QUESTION_CHANGES };

static const char *unchanged(enum question_kind kind)
{
	return kind == QUESTION_READS ? "" : " Nothing was changed.";
}

static enum MHD_Result send_away(struct http_request *request, const char *what, const char *then)
{
	struct pipeline_status status;

	pipeline_status(request->d->pipeline, &status);
	if (*status.failure)
		return http_problem_retry(request, 503, "writer_away", RETRY_WRITER_S,
			"The order writer's store fails: %s.%s", status.failure, then);
	return http_problem_retry(request, 503, "writer_away", RETRY_WRITER_S, "%s%s", what, then);
}

static enum MHD_Result send_refused(
	struct http_request *request, const struct pipeline_answer *answer, enum question_kind kind)
{
	if (!strcmp(answer->code, "key_reused"))
		return http_problem(request, 422, "key_reused",
			"This " HTTP_ONCE_KEY " came before with another request. Nothing was changed.");
	if (!strcmp(answer->code, "conflict"))
		return http_problem(request, 409, "conflict", "The ledger refused: %s", answer->detail);
	if (!strcmp(answer->code, PIPELINE_STORE_ERROR))
		return http_problem_retry(request, 503, "writer_away", RETRY_WRITER_S,
			"The order writer's store has failed: %s.%s", answer->detail,
			kind == QUESTION_CHANGES
				? " What was to be changed may be changed all the same: look before you ask again."
				: unchanged(kind));
	return http_problem_retry(request, 503, "writer_away", RETRY_WRITER_S, "The order writer could not (%s: %s).%s",
		answer->code, answer->detail, unchanged(kind));
}

static enum MHD_Result send_error(
	struct http_request *request, const struct pipeline_answer *answer, enum question_kind kind)
{
	switch (answer->error) {
	case -ENOTCONN:
		return send_away(request, "The order writer is not there.", unchanged(kind));
	case -ETIMEDOUT:
		return send_away(request, "The order writer has not answered in time.",
			kind == QUESTION_CHANGES ? " The change may still take effect: look before you ask again."
						 : unchanged(kind));
	case -EREMOTEIO:
		return send_refused(request, answer, kind);
	default:
		return http_problem(request, 500, "internal_error", "Failed: %s.", strerror(-answer->error));
	}
}

enum MHD_Result control_send_writer_error(struct http_request *request, const struct pipeline_answer *answer)
{
	return send_error(request, answer, strcmp(request->method, "GET") ? QUESTION_CHANGES : QUESTION_READS);
}

enum MHD_Result control_send_first_error(struct http_request *request, const struct pipeline_answer *answer)
{
	return send_error(request, answer, QUESTION_COMES_FIRST);
}

const struct http_route control_routes[] = {
	{"GET", "/v1/status", control_get_status, "status"},
	{"POST", "/v1/reconcile", control_post_reconcile, "reconcile"},
	{"GET", "/v1/sales", control_get_sales, "sales"},
	{"GET", "/v1/sales/{}", control_get_sale, "sale"},
	{"PUT", "/v1/sales/{}", control_put_sale, "sale"},
	{"POST", "/v1/sales/{}/pause", control_pause_sale, "sale_pause"},
	{"POST", "/v1/sales/{}/resume", control_resume_sale, "sale_resume"},
	{"POST", "/v1/sales/{}/end", control_end_sale, "sale_end"},
	{"GET", "/v1/sales/{}/windows", control_get_windows, "sale_windows"},
	{"GET", "/v1/sales/{}/stock", control_get_stock, "stock"},
	{"POST", "/v1/sales/{}/stock", control_post_stock, "stock"},
	{"POST", "/v1/sales/{}/tokens", http_token_post_control, "tokens"},
	{"GET", "/v1/limits", control_get_limits, "limits"},
	{"PATCH", "/v1/limits", control_patch_limits, "limits"},
	{"GET", "/v1/lists/{}", control_get_list, "list"},
	{"POST", "/v1/lists/{}", control_post_list, "list_bulk"},
	{"DELETE", "/v1/lists/{}", control_delete_label, "list_label"},
	{"GET", "/v1/lists/{}/labels", control_get_labels, "list_labels"},
	{"PUT", "/v1/lists/{}/{*}", control_put_entry, "list_entry"},
	{"DELETE", "/v1/lists/{}/{*}", control_delete_entry, "list_entry"},
	{"GET", "/v1/answers", control_get_answers, "answers"},
	{"PUT", "/v1/answers", control_put_answers, "answers"},
	{"GET", "/v1/answers/{}", control_get_answer, "answer"},
	{"PUT", "/v1/answers/{}", control_put_answer, "answer"},
	{"DELETE", "/v1/answers/{}", control_delete_answer, "answer"},
	{"POST", "/v1/tokens/inspect", control_inspect_token, "token_inspect"},
	{"POST", "/v1/tokens/revoke", control_revoke_token, "token_revoke"},
	{"POST", "/v1/sales/{}/tokens/revoke", control_revoke_before, "tokens_revoke"},
	{"GET", "/v1/keys", control_get_keys, "keys"},
	{"POST", "/v1/keys/rotate", control_rotate_keys, "keys_rotate"},
	{"GET", "/v1/orders", control_get_orders, "orders"},
	{"GET", "/v1/orders/export", control_export_orders, "orders_export"},
	{"POST", "/v1/orders/{}/confirm", control_confirm_order, "order_confirm"},
	{"POST", "/v1/orders/{}/cancel", control_cancel_order, "order_cancel"},
	{"POST", "/v1/orders/{}/refund", control_refund_order, "order_refund"},
	{"GET", "/v1/orders/{}", control_get_order, "order"},
	{"GET", "/v1/stats", control_get_stats, "stats"},
	{"GET", "/v1/openapi.json", http_openapi, "openapi"},
	{"GET", "/problems", http_problems_index, "problems"},
	{"GET", "/problems/{}", http_problems_page, "problems"},
	{"GET", "/v1/explain", control_get_explain, "explain"},
	{"GET", "/v1/events", control_get_events, "events"},
	{"GET", "/v1/events/ledger", control_get_ledger_events, "events_ledger"},
	{"GET", "/v1/top", control_get_top, "top"},
	{"GET", "/v1/nodes", control_get_nodes, "nodes"},
	{"POST", "/v1/nodes/{}/fence", control_fence_node, "node_fence"},
	{"POST", "/v1/cluster/rebuild", control_rebuild_cluster, "cluster_rebuild"},
	{"GET", "/v1/cluster/sales", control_get_cluster_sales, "cluster_sales"},
	{"GET", "/v1/cluster/audit", control_get_audit, "cluster_audit"},
	{"GET", "/v1/webhooks", control_get_webhooks, "webhooks"},
	{"POST", "/v1/webhooks/test", control_test_webhooks, "webhooks_test"},
	{"POST", "/v1/webhooks/resume", control_resume_webhooks, "webhooks_resume"},
	{"GET", "/metrics", control_get_metrics, "metrics"},
	{"GET", "/livez", control_get_livez, "livez"},
	{"GET", "/readyz", control_get_readyz, "readyz"},
	{0},
};
