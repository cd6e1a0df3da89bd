/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* GET /v1/orders/export: every order that a filter finds, as CSV (RFC 4180) or JSON lines, one after the other as it is read. The ledger is asked for a
 * page at a time while the client reads, so an export of any length takes the memory of one page, and admissions wait for no more than
 * one. An order that changes while it runs is told as it was when its page was read; none is told twice or left out.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/control.h"
#include "daemon/http_stream.h"
#include "daemon/order_facts.h"

#define PAGE 1000
/* Attempts at a page while the writer is away for a moment; each waits as long as pipeline_ask does, or this long. */
#define TRIES 20
#define RETRY_NS 250000000L

/* No value has a comma, a quote or a line end in it. */
static const char *const columns[] = {"id", "sale", "seq", "state", "quantity", "buyer", "source", "network",
	"admitted_at", "committed_at", "expires_at", "resolved_at", "resolved_by", "restocked"};
#define COLUMNS (sizeof(columns) / sizeof(columns[0]))

struct export
{
	struct http_stream stream; /* first */
	struct daemon *d;
	json_t *question, *page;
	size_t at; /* in the page */
	bool csv, has_headed;
};

static int ask_page(struct export *export, struct pipeline_answer *answer)
{
	json_decref(export->page);
	export->at = 0;
	export->page = NULL;
	if (!pipeline_ask(export->d->pipeline, json_deep_copy(export->question), NULL, NULL, answer))
		export->page = answer->json;
	return answer->error;
}

static int ask_next_page(struct export *export)
{
	struct pipeline_answer answer;
	json_t *next = json_object_get(export->page, "next");

	json_object_set(export->question, "after", next);
	for (int i = 0; i < TRIES && !atomic_load(&export->d->stopping); i++) {
		if (!ask_page(export, &answer))
			return 0;
		nanosleep(&(struct timespec){.tv_nsec = RETRY_NS}, NULL);
	}
	return -1;
}

static int write_cell(char *to, size_t size, const json_t *value)
{
	if (json_is_string(value))
		return snprintf(to, size, "%s", json_string_value(value));
	if (json_is_integer(value))
		return snprintf(to, size, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	if (json_is_boolean(value))
		return snprintf(to, size, "%s", json_is_true(value) ? "true" : "false");
	return snprintf(to, size, "%s", "");
}

static int write_order(struct export *export, const json_t *from)
{
	json_t *order = order_facts_control_json(export->d, from);
	char *text = export->stream.text;
	size_t length = 0;

	if (!order)
		return -1;
	if (export->csv) {
		for (size_t i = 0; i < COLUMNS && length < HTTP_STREAM_TEXT; i++) {
			length += (size_t)write_cell(
				text + length, HTTP_STREAM_TEXT - length, json_object_get(order, columns[i]));
			if (length < HTTP_STREAM_TEXT)
				length += (size_t)snprintf(
					text + length, HTTP_STREAM_TEXT - length, "%s", i + 1 < COLUMNS ? "," : "\r\n");
		}
	} else {
		length = json_dumpb(order, text, HTTP_STREAM_TEXT - 1, JSON_COMPACT);
		if (length < HTTP_STREAM_TEXT - 1)
			text[length++] = '\n';
	}
	json_decref(order);
	return length < HTTP_STREAM_TEXT ? (int)length : -1;
}

static int write_head(struct export *export)
{
	size_t length = 0;

	for (size_t i = 0; i < COLUMNS; i++)
		length += (size_t)snprintf(export->stream.text + length, HTTP_STREAM_TEXT - length, "%s%s", columns[i],
			i + 1 < COLUMNS ? "," : "\r\n");
	return (int)length;
}

static int fill(struct http_stream *stream)
{
	struct export *export = (struct export *)stream;
	json_t *order;

	if (export->csv && !export->has_headed) {
		export->has_headed = true;
		return write_head(export);
	}
	while (!(order = json_array_get(json_object_get(export->page, "orders"), export->at))) {
		if (!json_is_integer(json_object_get(export->page, "next")))
			return 0;
		if (ask_next_page(export))
			return -1; /* the client sees that the end is missing */
	}
	export->at++;
	return write_order(export, order);
}

static void end(struct http_stream *stream)
{
	struct export *export = (struct export *)stream;

	json_decref(export->question);
	json_decref(export->page);
	free(export);
}

/* False after having answered. */
static bool read_format(struct http_request *request, bool *csv, enum MHD_Result *result)
{
	char format[8] = "csv";
	int has = http_argument(request, "format", format, sizeof(format));

	*csv = !strcmp(format, "csv");
	if (has >= 0 && (*csv || !strcmp(format, "jsonl")))
		return true;
	*result = http_problem_field(request, 422, "out_of_range", "format", "format must be csv or jsonl.");
	return false;
}

enum MHD_Result control_export_orders(struct http_request *request)
{
	static const char *const known[] = {"sale", "state", "buyer", "buyer_reference", "from", "to", "format", NULL};
	struct export *export = calloc(1, sizeof(*export));
	struct pipeline_answer answer;
	enum MHD_Result result;

	if (!export)
		return http_problem(request, 500, "internal_error", "No memory.");
	export->d = request->d;
	export->stream.fill = fill;
	export->stream.end = end;
	if (!read_format(request, &export->csv, &result) ||
		!(export->question = control_orders_question(request, known, PAGE, &result))) {
		end(&export->stream);
		return result;
	}
	/* The first page before the first byte: what cannot be had shall be an error, and not a broken file. */
	if (ask_page(export, &answer)) {
		end(&export->stream);
		return control_send_writer_error(request, &answer);
	}
	return http_send_stream(request, export->csv ? "text/csv; charset=utf-8; header=present" : "application/jsonl",
		&export->stream);
}
