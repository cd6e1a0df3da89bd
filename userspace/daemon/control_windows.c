/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* GET /v1/sales/{slug}/windows: what a sale's window and limit of a buyer were before they were changed, as the ledger has kept it. `sluice verify` asks where
 * it cannot read the ledger itself.
 */
#include "common/timefmt.h"
#include "daemon/control.h"
#include "daemon/pipeline.h"
#include "daemon/sales.h"

#define WINDOWS_NAME "windows." /* and the sale's id; the writer makes it */
#define NAME_MAX_BYTES 32

static json_t *time_json(const json_t *window, const char *name)
{
	char text[TIME_TEXT_MAX];

	return json_string(time_format_rfc3339((uint64_t)json_integer_value(json_object_get(window, name)), text));
}

static json_t *windows_json(const char *value)
{
	json_t *document = value ? json_loads(value, 0, NULL) : NULL, *windows = json_array(), *window;
	size_t i;

	json_array_foreach(json_object_get(document, "windows"), i, window)
		json_array_append_new(windows,
			json_pack("{s:o, s:o, s:I, s:o}", "opens_at", time_json(window, "opens_ns"), "ends_at",
				time_json(window, "ends_ns"), "per_buyer",
				json_integer_value(json_object_get(window, "per_buyer")), "until",
				time_json(window, "until_ns")));
	json_decref(document);
	return windows;
}

enum MHD_Result control_get_windows(struct http_request *request)
{
	struct pipeline_answer answer;
	char name[NAME_MAX_BYTES];
	struct sale sale;
	json_t *json;

	if (sales_find(request->d->sales, request->captures[0], &sale))
		return http_problem(request, 404, "unknown_sale", "There is no such sale.");
	snprintf(name, sizeof(name), WINDOWS_NAME "%u", (unsigned)sale.id);
	if (pipeline_ask(request->d->pipeline, json_pack("{s:s, s:s}", "op", "document_get", "name", name), NULL, NULL,
		    &answer))
		return control_send_writer_error(request, &answer);
	json = json_pack("{s:o}", "windows", windows_json(json_string_value(json_object_get(answer.json, "value"))));
	json_decref(answer.json);
	return http_send_json(request, 200, json);
}
