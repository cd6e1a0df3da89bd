/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Webhooks over the control API: how they stand, a test of the receiver, another try of what waits. */
#include "daemon/control.h"
#include "daemon/webhooks.h"

static enum MHD_Result refuse_off(struct http_request *request)
{
	return http_problem(request, 409, "webhooks_off", "The config names no daemon.webhook_url.");
}

enum MHD_Result control_get_webhooks(struct http_request *request)
{
	json_t *status = webhooks_status(request->d);

	return status ? http_send_json(request, 200, status)
		      : http_problem(request, 500, "internal_error", "No memory.");
}

enum MHD_Result control_test_webhooks(struct http_request *request)
{
	json_t *outcome;

	if (!request->d->webhooks)
		return refuse_off(request);
	outcome = webhooks_test(request->d);
	return outcome ? http_send_json(request, 200, outcome)
		       : http_problem(request, 500, "internal_error", "No memory.");
}

enum MHD_Result control_resume_webhooks(struct http_request *request)
{
	if (!request->d->webhooks)
		return refuse_off(request);
	webhooks_resume(request->d);
	return control_get_webhooks(request);
}
