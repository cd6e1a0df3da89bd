/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate's answers over the control API: what they are, and the operator's own in their place. A change is checked whole, kept over
 * restarts, and in force at both doors when its 200 is sent; see answers_state.c for how.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/answers.h"
#include "common/log.h"
#include "common/maps.h"
#include "daemon/answers_state.h"
#include "daemon/control.h"
#include "daemon/fleet_settings.h"
#include "daemon/http_public.h"
#include "daemon/kept.h"
#include "daemon/problems.h"

static bool find_answer(struct http_request *request, enum sluice_answer *code, enum MHD_Result *result)
{
	*code = answer_of_code(request->captures[0]);
	if (*code != SLUICE_ANSWER_NONE)
		return true;
	*result = http_problem(request, 404, "no_answer", "There is no answer \"%.64s\"; GET /v1/answers lists them.",
		request->captures[0]);
	return false;
}

static uint64_t answer_tag(enum sluice_answer code)
{
	const json_t *custom = answers_custom(code);

	return custom ? http_etag_of_json(custom) : http_etag_of("default", strlen("default"));
}

static uint64_t origin_tag(void)
{
	char origin[ANSWER_ORIGIN_SIZE];

	answers_origin(origin);
	return http_etag_of(origin, strlen(origin));
}

/* NULL for bytes in the gate that are not one of our answers. Type, headers and body are read out of the bytes in use: what is told is what
 * is sent. The headers shown are the operator's own.
 */
static json_t *answer_json(struct http_request *request, enum sluice_answer code, bool whole)
{
	const json_t *custom = answers_custom(code), *headers = json_object_get(custom, "headers");
	struct sluice_answer_bytes bytes;
	char text[SLUICE_ANSWER_MAX], copy[SLUICE_ANSWER_MAX];
	struct http_parsed parsed;
	const char *type = NULL;
	json_t *json;
	size_t length;

	if (answers_read(&request->d->maps, code, &bytes) || bytes.len > SLUICE_ANSWER_MAX)
		return NULL;
	length = answer_fill(&bytes, 0, text);
	memcpy(copy, text, length);
	if (http_parse_answer(copy, length, &parsed))
		return NULL;
	for (unsigned i = 0; i < parsed.header_count; i++)
		if (!strcasecmp(parsed.headers[i].name, MHD_HTTP_HEADER_CONTENT_TYPE))
			type = parsed.headers[i].value;
	json = json_pack("{s:s, s:i, s:s, s:s?, s:b, s:I, s:i}", "code", answer_code(code), "status",
		answer_status(code), "source", custom ? "operator" : "default", "content_type", type, "retry_after",
		answer_has_retry(code), "size", (json_int_t)length, "limit", SLUICE_ANSWER_MAX);
	if (!json || !whole)
		return json;
	json_object_set_new(json, "headers", headers ? json_deep_copy(headers) : json_object());
	json_object_set_new(json, "body", json_stringn(parsed.body, parsed.body_length));
	json_object_set_new(json, "http", json_stringn(text, length));
	return json;
}

static enum MHD_Result send_answer(
	struct http_request *request, enum sluice_answer code, bool is_durable, bool is_replicated)
{
	json_t *json = answer_json(request, code, true);

	if (!json)
		return http_problem(request, 500, "internal_error", "The answer in the gate cannot be read.");
	http_set_etag(request, answer_tag(code));
	return http_send_json(request, 200, fleet_settings_mark(kept_note(json, is_durable), is_replicated));
}

static enum MHD_Result send_answers(struct http_request *request, bool is_durable, bool is_replicated)
{
	char origin[ANSWER_ORIGIN_SIZE];
	json_t *answers = json_array();

	for (unsigned code = SLUICE_ANSWER_NONE + 1; code < SLUICE_ANSWER_COUNT; code++) {
		json_t *answer = answer_json(request, (enum sluice_answer)code, false);

		if (!answer) {
			json_decref(answers);
			return http_problem(request, 500, "internal_error", "The answers in the gate cannot be read.");
		}
		json_array_append_new(answers, answer);
	}
	answers_origin(origin);
	http_set_etag(request, origin_tag());
	return http_send_json(request, 200,
		fleet_settings_mark(
			kept_note(json_pack("{s:s, s:s, s:o}", "cors_origin", origin, "cors_source",
					  answers_origin_is_set() ? "operator" : "config", "answers", answers),
				is_durable),
			is_replicated));
}

static enum MHD_Result send_not_set(struct http_request *request, int err, const struct answers_fault *fault)
{
	json_t *problem;
	char detail[192], *text;
	enum MHD_Result result;

	if (err != -EMSGSIZE)
		return http_problem(request, 500, "internal_error",
			"The answer could not be kept or put into the gate: %s. Nothing was changed.", strerror(-err));
	snprintf(detail, sizeof(detail),
		"With its headers the answer %s would have %zu bytes; one segment holds %d. Nothing was changed.",
		answer_code(fault->code), fault->size, SLUICE_ANSWER_MAX);
	problem = json_pack("{s:s, s:s, s:i, s:s, s:s, s:s, s:I, s:i}", "type", PROBLEM_TYPE_PREFIX "answer_too_long",
		"title", "Unprocessable Content", "status", 422, "code", "answer_too_long", "detail", detail, "answer",
		answer_code(fault->code), "size", (json_int_t)fault->size, "limit", SLUICE_ANSWER_MAX);
	text = json_dumps(problem, JSON_COMPACT);
	result = text ? http_send_text(request, 422, "application/problem+json", text, strlen(text)) : MHD_NO;
	json_decref(problem);
	free(text);
	return result;
}

enum MHD_Result control_get_answers(struct http_request *request)
{
	enum MHD_Result result;

	answers_lock();
	result = send_answers(request, true, true);
	answers_unlock();
	return result;
}

enum MHD_Result control_get_answer(struct http_request *request)
{
	enum sluice_answer code;
	enum MHD_Result result;

	if (!find_answer(request, &code, &result))
		return result;
	answers_lock();
	result = send_answer(request, code, true, true);
	answers_unlock();
	return result;
}

/* Takes `custom` over; NULL is the default. */
static enum MHD_Result set_answer(struct http_request *request, enum sluice_answer code, json_t *custom)
{
	struct answers_fault fault = {0};
	enum MHD_Result result;
	int err;

	answers_lock();
	if (!http_check_etag(request, true, answer_tag(code), &result)) {
		json_decref(custom);
		goto out;
	}
	err = answers_set(request->d, code, custom, &fault);
	if (!err)
		log_info("the answer %s is %s", answer_code(code), custom ? "the operator's now" : "the default again");
	result = err ? send_not_set(request, err, &fault)
		     : send_answer(request, code, answers_are_durable(),
			       fleet_settings_await(request->d, fleet_settings_note_answer(request->d, code)));
out:
	answers_unlock();
	return result;
}

static const char *fault_code(const json_t *json, const char *field, unsigned status)
{
	if (status == 422)
		return "out_of_range";
	if (!json_object_get(json, field))
		return "missing_field";
	return !strcmp(field, "body") || !strcmp(field, "content_type") || !strcmp(field, "headers") ? "wrong_type"
												     : "unknown_field";
}

enum MHD_Result control_put_answer(struct http_request *request)
{
	const char *wrong, *field = "body";
	struct answer_custom custom;
	enum sluice_answer code;
	enum MHD_Result result;
	unsigned status;
	char error[320];
	json_t *json;

	if (!find_answer(request, &code, &result))
		return result;
	json = http_read_json(request, &result);
	if (!json)
		return result;
	wrong = answers_read_custom(code, json, &custom, &field, &status, error, sizeof(error));
	if (!wrong)
		return set_answer(request, code, json);
	result = http_problem_field(
		request, status, fault_code(json, field, status), field, "%s: %s. Nothing was changed.", field, wrong);
	json_decref(json);
	return result;
}

enum MHD_Result control_delete_answer(struct http_request *request)
{
	enum sluice_answer code;
	enum MHD_Result result;

	return find_answer(request, &code, &result) ? set_answer(request, code, NULL) : result;
}

/* The one setting of them all. Returns false after having answered; *origin NULL: back to the config's. */
static bool read_origin(struct http_request *request, const json_t *json, const char **origin, enum MHD_Result *result)
{
	const json_t *value = json_object_get(json, "cors_origin");
	const char *name;
	json_t *any;

	json_object_foreach((json_t *)(uintptr_t)json, name, any) {
		if (!strcmp(name, "cors_origin"))
			continue;
		*result = http_problem_field(
			request, 400, "unknown_field", name, "There is no field \"%.64s\" here.", name);
		return false;
	}
	if (!value || (!json_is_string(value) && !json_is_null(value))) {
		*result = http_problem_field(request, 400, value ? "wrong_type" : "missing_field", "cors_origin",
			"cors_origin must be a text such as \"https://shop.example\", \"*\", \"\" for none, or null for the config file's.");
		return false;
	}
	*origin = json_string_value(value);
	if (!*origin || answer_origin_is_valid(*origin))
		return true;
	*result = http_problem_field(request, 422, "out_of_range", "cors_origin",
		"cors_origin must be an origin as browsers send it (https://shop.example: scheme, host, perhaps a port, lower case, "
		"no path), \"*\", or \"\".");
	return false;
}

enum MHD_Result control_put_answers(struct http_request *request)
{
	struct answers_fault fault = {0};
	const char *origin;
	enum MHD_Result result;
	json_t *json = http_read_json(request, &result);
	int err;

	if (!json)
		return result;
	if (!read_origin(request, json, &origin, &result))
		goto out;
	answers_lock();
	if (http_check_etag(request, true, origin_tag(), &result)) {
		err = answers_set_origin(request->d, origin, &fault);
		result = err ? send_not_set(request, err, &fault)
			     : send_answers(request, answers_are_durable(),
				       fleet_settings_await(request->d, fleet_settings_note_origin(request->d)));
	}
	answers_unlock();
out:
	json_decref(json);
	return result;
}
