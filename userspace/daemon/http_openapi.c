/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* GET /v1/openapi.json: each listener describes its own routes (docs/openapi-public.json, docs/openapi-control.json, embedded at build time). A test
 * holds both documents against the tables of routes and against a running daemon.
 */
#include <string.h>

#include "api_documents.h"
#include "daemon/http.h"

enum MHD_Result http_openapi(struct http_request *request)
{
	bool is_public = request->listener->kind == METRICS_PUBLIC;
	const char *name = is_public ? "openapi-public.json" : "openapi-control.json";
	const struct web_asset *document = web_assets;

	while (document->name && strcmp(document->name, name) != 0)
		document++;
	if (!document->name)
		return http_problem(request, 500, "internal_error", "The description was not built in.");
	return http_send_text(request, 200, "application/json", (const char *)document->bytes, document->size);
}
