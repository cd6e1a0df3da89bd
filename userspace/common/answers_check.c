/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What an operator may put into an answer. Called by the daemon for what comes over the control API and for what its state file says,
 * and by answer_render_custom, so that nothing unchecked is ever rendered.
 *
 * The promise is that status, length, end of connection, caching, Retry-After and CORS of an answer are the gate's alone, and that no text
 * can end its line (RFC 9110 section 5.5, RFC 9112 section 11.1: response splitting).
 */
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/answers.h"
#include "common/maps.h"

#define NAME_MAX_BYTES 64
#define VALUE_MAX_BYTES 400

static __attribute__((format(printf, 3, 4))) const char *say(char *error, size_t size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error, size, format, args);
	va_end(args);
	return error;
}

/* RFC 9110 section 5.6.2 */
static bool is_token(const char *text, size_t length)
{
	if (!length)
		return false;
	for (size_t i = 0; i < length; i++)
		if (!isalnum((unsigned char)text[i]) && (!text[i] || !strchr("!#$%&'*+-.^_`|~", text[i])))
			return false;
	return true;
}

/* Visible ASCII with blanks between: what every client reads the same. */
static bool is_value(const char *text, size_t max)
{
	size_t length = strlen(text);

	if (!length || length > max || *text == ' ' || text[length - 1] == ' ')
		return false;
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			return false;
	return true;
}

/* type "/" subtype, perhaps with parameters (RFC 9110 section 8.3.1). */
static bool is_content_type(const char *text)
{
	const char *slash = strchr(text, '/');
	size_t subtype = slash ? strcspn(slash + 1, "; ") : 0;

	return is_value(text, ANSWER_TYPE_MAX) && slash && is_token(text, (size_t)(slash - text)) &&
		is_token(slash + 1, subtype) && strchr("; ", slash[1 + subtype]);
}

static bool is_allowed_header(const char *name)
{
	static const char *const names[] = {"Content-Language", "Content-Security-Policy", "Link", "Refresh", "Server",
		"Strict-Transport-Security", "Vary"};

	if (!strncasecmp(name, "X-", 2))
		return name[2] != '\0';
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcasecmp(name, names[i]))
			return true;
	return false;
}

static const char *check_headers(const struct answer_custom *custom, char *error, size_t size)
{
	if (custom->headers > ANSWER_HEADERS_MAX)
		return say(error, size, "an answer may have up to %d headers of yours", ANSWER_HEADERS_MAX);
	for (unsigned i = 0; i < custom->headers; i++) {
		const char *name = custom->header[i].name;

		if (strlen(name) > NAME_MAX_BYTES || !is_token(name, strlen(name)))
			return say(error, size, "\"%.40s\" is not the name of a header", name);
		if (!is_allowed_header(name))
			return say(error, size,
				"%.40s is not yours to set; Content-Language, Content-Security-Policy, Link, Refresh, Server, "
				"Strict-Transport-Security, Vary and X-… are",
				name);
		if (!is_value(custom->header[i].value, VALUE_MAX_BYTES))
			return say(error, size,
				"%.40s must have 1 to %d visible ASCII characters, with blanks only between them", name,
				VALUE_MAX_BYTES);
		for (unsigned j = 0; j < i; j++)
			if (!strcasecmp(name, custom->header[j].name))
				return say(error, size, "%.40s is there twice", name);
	}
	return NULL;
}

static bool is_type(const char *content_type, const char *wanted)
{
	size_t length = strcspn(content_type, "; ");

	return length == strlen(wanted) && !strncasecmp(content_type, wanted, length);
}

static bool is_json_type(const char *content_type)
{
	size_t length = strcspn(content_type, "; ");

	return is_type(content_type, "application/json") ||
		(length > 5 && !strncasecmp(content_type + length - 5, "+json", 5));
}

static const char *check_problem(enum sluice_answer code, const json_t *json, char *error, size_t size)
{
	const json_t *its_code = json_object_get(json, "code"), *status = json_object_get(json, "status");

	if (!json_is_object(json))
		return say(error, size, "a problem document is a JSON object (RFC 9457)");
	if (its_code && (!json_is_string(its_code) || strcmp(json_string_value(its_code), answer_code(code)) != 0))
		return say(error, size, "the member code must be \"%s\", or be left out: clients go by it",
			answer_code(code));
	if (status && (!json_is_integer(status) || json_integer_value(status) != answer_status(code)))
		return say(error, size, "the member status must be %d, or be left out", answer_status(code));
	return NULL;
}

static const char *check_body(enum sluice_answer code, const struct answer_custom *custom, char *error, size_t size)
{
	const char *wrong = NULL;
	json_error_t at;
	json_t *json;

	if (!is_json_type(custom->content_type))
		return NULL;
	json = json_loads(custom->body, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &at);
	if (!json)
		return say(error, size, "it is to be %.60s, but is not JSON: %s (line %d, column %d)",
			custom->content_type, at.text, at.line, at.column);
	if (is_type(custom->content_type, ANSWER_TYPE_DEFAULT))
		wrong = check_problem(code, json, error, size);
	json_decref(json);
	return wrong;
}

const char *answer_check(
	enum sluice_answer code, const struct answer_custom *custom, const char **field, char *error, size_t size)
{
	const char *wrong;

	*field = "content_type";
	if (!is_content_type(custom->content_type))
		return say(error, size,
			"not a media type such as text/html; charset=utf-8, of up to %d visible ASCII characters",
			ANSWER_TYPE_MAX);
	*field = "headers";
	wrong = check_headers(custom, error, size);
	if (wrong)
		return wrong;
	*field = "body";
	return check_body(code, custom, error, size);
}

static bool is_host(const char *text, size_t length)
{
	if (!length)
		return false;
	if (*text == '[') /* an IPv6 address */
		return length > 2 && text[length - 1] == ']' && strspn(text + 1, "0123456789abcdef:.") == length - 2;
	return strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-._") >= length;
}

bool answer_origin_is_valid(const char *origin)
{
	const char *host, *port;
	size_t scheme = strspn(origin, "abcdefghijklmnopqrstuvwxyz0123456789+-."), length;

	if (!*origin || !strcmp(origin, "*"))
		return true;
	if (strlen(origin) >= ANSWER_ORIGIN_SIZE || !islower((unsigned char)*origin) ||
		strncmp(origin + scheme, "://", 3) != 0)
		return false;
	host = origin + scheme + 3;
	length = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
	if (length > strlen(host) || !is_host(host, length))
		return false;
	port = host + length;
	return !*port || (*port == ':' && port[1] && strlen(port) <= 6 && !port[1 + strspn(port + 1, "0123456789")]);
}
