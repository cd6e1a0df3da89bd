/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The control API's routes: one file a resource. */
#ifndef SLUICE_DAEMON_CONTROL_H
#define SLUICE_DAEMON_CONTROL_H

#include "daemon/http.h"
#include "daemon/pipeline.h"

extern const struct http_route control_routes[];

/* Checks the secret where the listener wants one. */
bool control_admit(struct http_request *request, enum MHD_Result *result);
/* How long a body may be: longer for a bulk load by somebody who may do it. */
size_t control_body_max(const struct http_request *request);
/* Runs the route's handler; what a request with an Idempotency-Key changes is changed once, and its first answer given again. */
enum MHD_Result control_handle(struct http_request *request);
/* Tells the log of a change that was made, or of which nobody knows whether it was. After the answer; not for orders and tokens, which come by the thousand
 * and are in the ledger and the gate.
 */
void control_log_change(const struct http_request *request);
/* Names a request's change for order_changes.h, whose answer the ledger keeps by itself. Called before the handler asks for anything. */
struct order_once;
const struct order_once *control_once(struct http_request *request, struct order_once *once);
/* The writer could not, or would not. The words are those of a change, unless the request is a GET. */
enum MHD_Result control_send_writer_error(struct http_request *request, const struct pipeline_answer *answer);
/* The same, of a question that comes before the change is begun. */
enum MHD_Result control_send_first_error(struct http_request *request, const struct pipeline_answer *answer);

/* control_windows.c */
enum MHD_Result control_get_windows(struct http_request *request);

/* control_status.c */
enum MHD_Result control_get_status(struct http_request *request);
enum MHD_Result control_get_stats(struct http_request *request);
enum MHD_Result control_get_metrics(struct http_request *request);
enum MHD_Result control_get_livez(struct http_request *request);
enum MHD_Result control_get_readyz(struct http_request *request);

/* control_reconcile.c */
enum MHD_Result control_post_reconcile(struct http_request *request);

/* control_sales.c */
enum MHD_Result control_get_sales(struct http_request *request);
enum MHD_Result control_get_sale(struct http_request *request);
enum MHD_Result control_put_sale(struct http_request *request);
enum MHD_Result control_pause_sale(struct http_request *request);
enum MHD_Result control_resume_sale(struct http_request *request);
enum MHD_Result control_end_sale(struct http_request *request);

/* control_cluster.c */
/* Redis could not, or would not: an error of fleet_leases.h. */
enum MHD_Result control_send_fleet_error(struct http_request *request, int error, const char *failure);
enum MHD_Result control_fence_node(struct http_request *request);
enum MHD_Result control_rebuild_cluster(struct http_request *request);
enum MHD_Result control_get_cluster_sales(struct http_request *request);
enum MHD_Result control_get_audit(struct http_request *request);

/* control_stock.c */
enum MHD_Result control_get_stock(struct http_request *request);
enum MHD_Result control_post_stock(struct http_request *request);

/* control_limits.c */
enum MHD_Result control_get_limits(struct http_request *request);
enum MHD_Result control_patch_limits(struct http_request *request);

/* control_explain.c */
enum MHD_Result control_get_explain(struct http_request *request);

/* control_events.c */
struct watch_filter;
struct watched;
struct watcher;
enum MHD_Result control_get_events(struct http_request *request);
/* One verdict as the API tells it. */
json_t *control_verdict_json(struct daemon *d, const struct watched *watched);
/* watch_open, or NULL after having answered. */
struct watcher *control_open_watcher(
	struct http_request *request, const struct watch_filter *filter, enum MHD_Result *result);

/* control_ledger.c */
enum MHD_Result control_get_ledger_events(struct http_request *request);

/* control_top.c */
enum MHD_Result control_get_top(struct http_request *request);

/* control_nodes.c */
/* Is this node one of a fleet? False after having answered that it is not. */
bool control_needs_fleet(struct http_request *request, enum MHD_Result *result);
enum MHD_Result control_get_nodes(struct http_request *request);

/* control_webhooks.c */
enum MHD_Result control_get_webhooks(struct http_request *request);
enum MHD_Result control_test_webhooks(struct http_request *request);
enum MHD_Result control_resume_webhooks(struct http_request *request);

/* control_lists.c */
bool control_find_list(struct http_request *request, enum sluice_list *list, enum MHD_Result *result);
enum MHD_Result control_get_labels(struct http_request *request);
enum MHD_Result control_delete_label(struct http_request *request);
enum MHD_Result control_get_list(struct http_request *request);
enum MHD_Result control_put_entry(struct http_request *request);
enum MHD_Result control_delete_entry(struct http_request *request);

/* control_lists_bulk.c */
enum MHD_Result control_post_list(struct http_request *request);

/* control_answers.c */
enum MHD_Result control_get_answers(struct http_request *request);
enum MHD_Result control_put_answers(struct http_request *request);
enum MHD_Result control_get_answer(struct http_request *request);
enum MHD_Result control_put_answer(struct http_request *request);
enum MHD_Result control_delete_answer(struct http_request *request);

/* control_tokens.c */
enum MHD_Result control_inspect_token(struct http_request *request);
enum MHD_Result control_revoke_token(struct http_request *request);
enum MHD_Result control_revoke_before(struct http_request *request);
/* control_keys.c */
enum MHD_Result control_get_keys(struct http_request *request);
enum MHD_Result control_rotate_keys(struct http_request *request);

/* control_orders.c */
/* The filter of the arguments, as a question to the writer with cursor `after`. NULL after having answered. */
json_t *control_orders_question(
	struct http_request *request, const char *const *known, long long limit_default, enum MHD_Result *result);
enum MHD_Result control_get_orders(struct http_request *request);
enum MHD_Result control_get_order(struct http_request *request);

/* control_order_export.c */
enum MHD_Result control_export_orders(struct http_request *request);

/* control_order_changes.c */
enum MHD_Result control_confirm_order(struct http_request *request);
enum MHD_Result control_cancel_order(struct http_request *request);
enum MHD_Result control_refund_order(struct http_request *request);

#endif
