/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Answers of the daemon's listeners: JSON, problem+json, the gate's refusals. Called by every route.
 *
 * Promises: every error is a problem document with a code; nothing of the API may be cached; a refusal has the status, headers and body that
 * the gate sends for the same reason, taken from the same map at that moment.
 */
#include "daemon/http.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/answers.h"
#include "common/log.h"
#include "daemon/answers_state.h"
#include "daemon/problems.h"
#include "common/timefmt.h"

#define TYPE_JSON "application/json"
#define TYPE_PROBLEM "application/problem+json"

static void add_header(struct MHD_Response *response, const char *name, const char *value)
{
	if (MHD_add_response_header(response, name, value) == MHD_NO)
		log_debug("cannot add the header %s", name);
}

enum MHD_Result http_send(struct http_request *request, unsigned status, struct MHD_Response *response)
{
	enum MHD_Result result;

	if (!response)
		return MHD_NO;
	request->status = status;
	if (request->must_close)
		add_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
	metrics_count_request(request->d->metrics, request->listener->kind, request->label, status);
	result = MHD_queue_response(request->connection, status, response);
	if (!request->is_stream)
		http_connection_rest(request->place, time_mono_ns());
	MHD_destroy_response(response);
	return result;
}

/* What every answer of the API carries. */
static void add_api_headers(struct http_request *request, struct MHD_Response *response, const char *type)
{
	char origin[ANSWER_ORIGIN_SIZE];

	answers_origin(origin);
	if (type)
		add_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	add_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	add_header(response, "X-Content-Type-Options", "nosniff");
	if (*origin && request->listener->kind == METRICS_PUBLIC) {
		add_header(response, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_ORIGIN, origin);
		add_header(response, "Access-Control-Expose-Headers", "Retry-After, Location");
	}
}

static struct MHD_Response *buffer_response(const char *text, size_t length)
{
	return MHD_create_response_from_buffer(length, (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
}

/* Asked once for each request. */
static bool keep(struct http_request *request, unsigned status, const char *type, const char *text, size_t length,
	enum MHD_Result *result)
{
	bool (*asked)(struct http_request *, const struct http_text *, enum MHD_Result *) = request->keep;
	struct http_text answer = {.status = status, .type = type, .text = text, .length = length};

	request->keep = NULL;
	return !asked || asked(request, &answer, result);
}

static enum MHD_Result send_document(
	struct http_request *request, unsigned status, const char *type, json_t *json, unsigned retry_after_s)
{
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	struct MHD_Response *response;
	enum MHD_Result result;

	json_decref(json);
	if (!text)
		return MHD_NO;
	if (!keep(request, status, type, text, strlen(text), &result)) {
		free(text);
		return result;
	}
	response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
	if (!response) {
		free(text);
		return MHD_NO;
	}
	add_api_headers(request, response, type);
	if (*request->etag)
		add_header(response, MHD_HTTP_HEADER_ETAG, request->etag);
	if (*request->location)
		add_header(response, MHD_HTTP_HEADER_LOCATION, request->location);
	if (status == 401) /* RFC 9110 section 15.5.2 */
		add_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer realm=\"sluice\"");
	if (retry_after_s) {
		char seconds[16];

		snprintf(seconds, sizeof(seconds), "%u", retry_after_s);
		add_header(response, MHD_HTTP_HEADER_RETRY_AFTER, seconds);
	}
	return http_send(request, status, response);
}

enum MHD_Result http_send_json_retry(
	struct http_request *request, unsigned status, json_t *json, unsigned retry_after_s)
{
	return send_document(request, status, TYPE_JSON, json, retry_after_s);
}

enum MHD_Result http_send_json(struct http_request *request, unsigned status, json_t *json)
{
	return http_send_json_retry(request, status, json, 0);
}

enum MHD_Result http_send_empty(struct http_request *request, unsigned status)
{
	struct MHD_Response *response;
	enum MHD_Result result;

	if (!keep(request, status, NULL, "", 0, &result))
		return result;
	response = buffer_response("", 0);
	if (response)
		add_api_headers(request, response, NULL);
	return http_send(request, status, response);
}

enum MHD_Result http_send_text(
	struct http_request *request, unsigned status, const char *type, const char *text, size_t length)
{
	struct MHD_Response *response;
	enum MHD_Result result;

	if (!keep(request, status, type, text, length, &result))
		return result;
	response = buffer_response(text, length);
	if (response)
		add_api_headers(request, response, type);
	return http_send(request, status, response);
}

enum MHD_Result http_send_again(struct http_request *request, const struct http_text *answer)
{
	struct MHD_Response *response = buffer_response(answer->text, answer->length);

	if (response)
		add_api_headers(request, response, answer->type);
	if (response && *request->etag)
		add_header(response, MHD_HTTP_HEADER_ETAG, request->etag);
	return http_send(request, answer->status, response);
}

static const char *title_of(unsigned status)
{
	const char *title = MHD_get_reason_phrase_for(status);

	return title ? title : "Error";
}

static enum MHD_Result problem(struct http_request *request, unsigned status, const char *code, const char *field,
	unsigned retry_after_s, const char *format, va_list args)
{
	char detail[512];
	json_t *json;

	vsnprintf(detail, sizeof(detail), format, args);
	json = json_pack("{s:s+, s:s, s:i, s:s}", "type", PROBLEM_TYPE_PREFIX, code, "title", title_of(status),
		"status", (int)status, "code", code);
	/* A detail may quote what was sent: bytes that are not UTF-8 are no reason to give no answer. */
	if (json_object_set_new(json, "detail", json_string(detail)))
		json_object_set_new(json, "detail", json_string("The request has a text that is not UTF-8."));
	if (field)
		json_object_set_new(json, "field", json_string(field));
	return send_document(request, status, TYPE_PROBLEM, json, retry_after_s);
}

enum MHD_Result http_problem(struct http_request *request, unsigned status, const char *code, const char *format, ...)
{
	enum MHD_Result result;
	va_list args;

	va_start(args, format);
	result = problem(request, status, code, NULL, 0, format, args);
	va_end(args);
	return result;
}

enum MHD_Result http_problem_field(
	struct http_request *request, unsigned status, const char *code, const char *field, const char *format, ...)
{
	enum MHD_Result result;
	va_list args;

	va_start(args, format);
	result = problem(request, status, code, field, 0, format, args);
	va_end(args);
	return result;
}

enum MHD_Result http_problem_retry(struct http_request *request, unsigned status, const char *code,
	unsigned retry_after_s, const char *format, ...)
{
	enum MHD_Result result;
	va_list args;

	va_start(args, format);
	result = problem(request, status, code, NULL, retry_after_s, format, args);
	va_end(args);
	return result;
}

/* Sends an answer of the gate. `bytes` is taken apart; a length of 0 stands for an answer that could not be read. */
static enum MHD_Result send_answer(
	struct http_request *request, enum sluice_answer answer, char bytes[SLUICE_ANSWER_MAX], size_t length)
{
	struct MHD_Response *response;
	struct http_parsed parsed;

	if (!length || http_parse_answer(bytes, length, &parsed))
		return http_problem(
			request, (unsigned)answer_status(answer), answer_code(answer), "The order was refused.");
	response = buffer_response(parsed.body, parsed.body_length);
	for (unsigned i = 0; response && i < parsed.header_count; i++)
		if (strcasecmp(parsed.headers[i].name, MHD_HTTP_HEADER_CONTENT_LENGTH) != 0)
			add_header(response, parsed.headers[i].name, parsed.headers[i].value);
	return http_send(request, parsed.status, response);
}

enum MHD_Result http_send_refusal(struct http_request *request, enum sluice_answer answer, unsigned retry_after_s)
{
	struct sluice_answer_bytes template;
	char bytes[SLUICE_ANSWER_MAX];
	size_t length = 0;

	if (!answers_read(&request->d->maps, answer, &template) && template.len <= sizeof(bytes))
		length = answer_fill(&template, retry_after_s, bytes);
	return send_answer(request, answer, bytes, length);
}

enum MHD_Result http_send_home(struct http_request *request, uint32_t node, const char *token)
{
	struct sluice_answer_bytes template;
	char bytes[SLUICE_ANSWER_MAX];
	size_t length = 0;

	if (!answers_read_home(&request->d->maps, node, &template) && template.len <= sizeof(bytes))
		length = answer_fill_home(&template, token, bytes);
	return send_answer(request, SLUICE_ANSWER_WRONG_NODE, bytes, length);
}

json_t *http_read_json(struct http_request *request, enum MHD_Result *result)
{
	json_error_t error;
	json_t *json;

	if (!request->body_length)
		return json_object();
	json = json_loadb(request->body, request->body_length, JSON_REJECT_DUPLICATES, &error);
	if (json_is_object(json))
		return json;
	if (json)
		*result = http_problem(request, 400, "malformed_json", "The body must be a JSON object.");
	else
		*result = http_problem(request, 400, "malformed_json", "The body is not JSON: %s (line %d, column %d).",
			error.text, error.line, error.column);
	json_decref(json);
	return NULL;
}

int http_argument(struct http_request *request, const char *name, char *out, size_t size)
{
	const char *value = MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);

	if (!value)
		return 0;
	return http_percent_decode(value, strlen(value), out, size) ? -EINVAL : 1;
}

struct argument_search {
	const char *const *known;
	const char *unknown;
};

static enum MHD_Result find_unknown(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct argument_search *search = arg;

	(void)kind;
	(void)value;
	for (const char *const *known = search->known; *known; known++)
		if (!strcmp(*known, name))
			return MHD_YES;
	search->unknown = name;
	return MHD_NO;
}

bool http_check_arguments(struct http_request *request, const char *const *known, enum MHD_Result *result)
{
	struct argument_search search = {.known = known};

	MHD_get_connection_values(request->connection, MHD_GET_ARGUMENT_KIND, find_unknown, &search);
	if (!search.unknown)
		return true;
	*result = http_problem_field(
		request, 400, "unknown_field", search.unknown, "There is no argument \"%.64s\" here.", search.unknown);
	return false;
}

const char *http_header(const struct http_request *request, const char *name)
{
	return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}
