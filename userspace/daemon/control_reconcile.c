/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* POST /v1/reconcile: gate and ledger compared, and the gate set right, as after a break of the connection to the writer. `sluice verify --repair` asks for it.
 *
 * No other way of setting words: the pipeline's thread goes through recovery.c, with orders closed for the tenth of a second that it takes. Buyers are told
 * to come again; what is on its way is delivered first.
 */
#include <errno.h>

#include "daemon/control.h"

enum MHD_Result control_post_reconcile(struct http_request *request)
{
	struct pipeline_answer answer = {.error = pipeline_compare(request->d->pipeline)};
	struct pipeline_status status;

	if (answer.error)
		return control_send_writer_error(request, &answer);
	pipeline_status(request->d->pipeline, &status);
	return http_send_json(
		request, 200, json_pack("{s:b, s:I}", "reconciled", true, "backlog", (json_int_t)status.backlog));
}
