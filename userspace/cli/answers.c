/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice answer`: what buyers are told who do not get through, in the operator's own words. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/table.h"
#include "common/answers.h"

#define ABOUT_MAX 96
#define FILE_MAX (16u << 10) /* far above what an answer can hold: the daemon says by how much it is too long */
/* What a request of a plain client leaves room for on a frame that cannot grow at its tail. */
#define SHORT_ENOUGH 300

enum set_option { SET_FILE, SET_TYPE, SET_HEADERS };

static const struct cli_option set_options[] = {
	[SET_FILE] = {"file", "FILE|-", "the body", true},
	[SET_TYPE] = {"content-type", "TYPE", "its type (application/problem+json)", false},
	[SET_HEADERS] = {"headers", "FILE", "lines \"Name: value\" of headers besides the gate's own", false},
	{NULL, NULL, NULL, false},
};

static const struct cli_column columns[] = {
	{"CODE", "code", false},
	{"STATUS", "status", true},
	{"SOURCE", "source", false},
	{"BYTES", "size", true},
	{"TYPE", "content_type", false},
	{NULL, NULL, false},
};

static const char *about_answer(const struct cli_call *call, char about[ABOUT_MAX])
{
	snprintf(about, ABOUT_MAX, "answer \"%s\"", call->operand[0]);
	return about;
}

static int print_answers(const struct cli_call *call, json_t *answer)
{
	const char *origin = json_string_value(json_object_get(answer, "cors_origin"));
	struct cli_table *table;
	json_t *row;
	size_t i;

	if (call->globals->json)
		return cli_print_answer(call, answer);
	table = cli_table_new(call->out, columns);
	json_array_foreach(json_object_get(answer, "answers"), i, row) {
		cli_table_add_json(table, row);
	}
	cli_table_end(table);
	fprintf(call->out, "\nCORS origin: %s (%s)\n", origin && *origin ? origin : "none",
		json_string_value(json_object_get(answer, "cors_source")) ?: "?");
	json_decref(answer);
	return CLI_OK;
}

static int run_list(const struct cli_call *call)
{
	json_t *answer;
	int code = cli_api_ask(call->api, "answers", "GET", cli_api_path("/v1/answers"), NULL, &answer);

	return code ? code : print_answers(call, answer);
}

/* The bytes as they go out; where they are a template, Retry-After is 0000. */
static int print_answer(const struct cli_call *call, json_t *answer)
{
	const char *http = json_string_value(json_object_get(answer, "http"));
	size_t length = http ? strlen(http) : 0;

	if (call->globals->json || !http)
		return cli_print_answer(call, answer);
	for (const char *c = http; *c; c++)
		if (*c != '\r')
			fputc((unsigned char)*c < ' ' && *c != '\n' && *c != '\t' ? '?' : *c, call->out);
	if (http[length - 1] != '\n')
		fputc('\n', call->out);
	json_decref(answer);
	return CLI_OK;
}

static int run_show(const struct cli_call *call)
{
	char about[ABOUT_MAX];
	json_t *answer;
	int code = cli_api_ask(call->api, about_answer(call, about), "GET",
		cli_api_path("/v1/answers/%s", call->operand[0]), NULL, &answer);

	return code ? code : print_answer(call, answer);
}

/* Reads a whole text; says why not. The caller frees *text. */
static int read_text(const struct cli_call *call, const char *path, char **text)
{
	bool is_stdin = !strcmp(path, "-");
	FILE *in = is_stdin ? call->in : fopen(path, "re");
	size_t length;
	int code = CLI_OK;

	*text = calloc(1, FILE_MAX + 2);
	if (!in || !*text) {
		cli_say("cannot read %s: %s", path, strerror(errno));
		code = CLI_FAILED;
		goto out;
	}
	length = fread(*text, 1, FILE_MAX + 1, in);
	if (ferror(in)) {
		cli_say("cannot read %s: %s", path, strerror(errno));
		code = CLI_FAILED;
	} else if (length > FILE_MAX) {
		code = cli_usage(call, "%s is longer than %u bytes; an answer has %d at most, headers included", path,
			FILE_MAX, SLUICE_ANSWER_MAX);
	} else if (strlen(*text) != length) {
		code = cli_usage(call, "%s has a NUL byte: is it text?", path);
	}
out:
	if (in && !is_stdin)
		fclose(in);
	return code;
}

static int read_headers(const struct cli_call *call, json_t *body)
{
	json_t *headers = json_object();
	char *text = NULL, *rest = NULL;
	int code = read_text(call, call->value[SET_HEADERS], &text);

	json_object_set_new(body, "headers", headers);
	for (char *line = code ? NULL : strtok_r(text, "\r\n", &rest); line; line = strtok_r(NULL, "\r\n", &rest)) {
		char *colon = strchr(line, ':'), *value = colon ? colon + 1 + strspn(colon + 1, " \t") : NULL;

		if (!colon) {
			code = cli_usage(call, "--headers: \"%.60s\" is not \"Name: value\"", line);
			break;
		}
		*colon = '\0';
		if (json_object_get(headers, line) || json_object_set_new(headers, line, json_string(value))) {
			code = cli_usage(call, "--headers: \"%.60s\" is there twice, or is not UTF-8", line);
			break;
		}
	}
	free(text);
	return code;
}

static int set_answer(const struct cli_call *call, json_t *body)
{
	char about[ABOUT_MAX];
	json_t *answer;
	json_int_t size;
	int code = cli_api_ask(call->api, about_answer(call, about), "PUT",
		cli_api_path("/v1/answers/%s", call->operand[0]), body, &answer);

	if (code)
		return code;
	size = json_integer_value(json_object_get(answer, "size"));
	if (size > SHORT_ENOUGH)
		cli_say("%s has %lld bytes: on an interface whose frames cannot grow at the tail, clients with a short request get the "
			"status line without a body (\"sluice attach\" said which it is)",
			about, (long long)size);
	return print_answer(call, answer);
}

static int run_set(const struct cli_call *call)
{
	json_t *body = json_object();
	char *text;
	int code = read_text(call, call->value[SET_FILE], &text);

	if (!code && json_object_set_new(body, "body", json_string(text)))
		code = cli_usage(call, "%s is not UTF-8", call->value[SET_FILE]);
	free(text);
	if (!code && call->value[SET_TYPE])
		json_object_set_new(body, "content_type", json_string(call->value[SET_TYPE]));
	if (!code && call->value[SET_HEADERS])
		code = read_headers(call, body);
	if (code) {
		json_decref(body);
		return code;
	}
	return set_answer(call, body);
}

static int run_reset(const struct cli_call *call)
{
	char about[ABOUT_MAX];
	json_t *answer;
	int code = cli_api_ask(call->api, about_answer(call, about), "DELETE",
		cli_api_path("/v1/answers/%s", call->operand[0]), NULL, &answer);

	return code ? code : print_answer(call, answer);
}

static int run_cors(const struct cli_call *call)
{
	const char *origin = call->operand[0];
	json_t *value = !strcmp(origin, "config") ? json_null() : json_string(!strcmp(origin, "none") ? "" : origin);
	json_t *answer;
	int code;

	if (!value)
		return cli_usage(call, "the origin is not UTF-8");
	code = cli_api_ask(call->api, "CORS origin", "PUT", cli_api_path("/v1/answers"),
		json_pack("{s:o}", "cors_origin", value), &answer);
	return code ? code : print_answers(call, answer);
}

static const struct cli_verb verbs[] = {
	{"list", "", "the answers, and whose they are", 0, 0, NULL, run_list},
	{"show", "CODE", "one answer as it goes out", 1, 1, NULL, run_show},
	{"set", "CODE", "put your own in its place, at both doors, from the next packet on", 1, 1, set_options,
		run_set},
	{"reset", "CODE", "back to the default", 1, 1, NULL, run_reset},
	{"cors", "ORIGIN", "who may read answers: https://shop.example, *, none, or config (what the config file says)",
		1, 1, NULL, run_cors},
	{NULL, NULL, NULL, 0, 0, NULL, NULL},
};

const struct cli_noun cli_noun_answer = {"answer", "What the gate tells those whom it refuses", verbs};
