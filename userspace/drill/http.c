/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The answer parser of the drill, used by the crowd and by the control client. It promises to survive hostile bytes: the
 * operator may point the drill at anything.
 */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "drill/http.h"

#define HEAD_MAX ((size_t)8 << 10)
#define BODY_MAX ((uint64_t)64 << 20)
#define STATUS_LINE_MIN 12 /* "HTTP/1.1 200" */
#define RETRY_MAX_S 86400u

static bool digit(char c)
{
	return c >= '0' && c <= '9';
}

/* All digits, at least one; saturates at `max`. Returns -EPROTO for anything else. */
static int number(const char *text, size_t length, uint64_t max, uint64_t *value)
{
	*value = 0;
	if (!length)
		return -EPROTO;
	for (size_t i = 0; i < length; i++) {
		if (!digit(text[i]))
			return -EPROTO;
		if (*value <= max)
			*value = *value * 10 + (uint64_t)(text[i] - '0');
	}
	if (*value > max)
		*value = max;
	return 0;
}

static bool named(const char *line, size_t name_length, const char *name)
{
	return name_length == strlen(name) && !strncasecmp(line, name, name_length);
}

/* One header line without its end. */
static int header(const char *line, size_t length, bool *has_length, uint64_t *body, struct drill_http *answer)
{
	const char *colon = memchr(line, ':', length);
	const char *value, *end = line + length;
	uint64_t n;

	if (!colon || colon == line)
		return -EPROTO;
	for (value = colon + 1; value < end && (*value == ' ' || *value == '\t'); value++)
		;
	while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	if (named(line, (size_t)(colon - line), "Content-Length")) {
		if (number(value, (size_t)(end - value), BODY_MAX + 1, &n) || (*has_length && n != *body))
			return -EPROTO;
		if (n > BODY_MAX)
			return -EMSGSIZE;
		*has_length = true;
		*body = n;
	} else if (named(line, (size_t)(colon - line), "Retry-After")) {
		/* an HTTP-date is allowed too; nobody here sends one, and waiting our own time is right then */
		if (!number(value, (size_t)(end - value), RETRY_MAX_S, &n)) {
			answer->has_retry_after = true;
			answer->retry_after_s = (uint32_t)n;
		}
	} else if (named(line, (size_t)(colon - line), "Transfer-Encoding")) {
		return -EPROTO;
	}
	return 0;
}

static int status_line(const char *line, size_t length, struct drill_http *answer)
{
	if (length < STATUS_LINE_MIN || memcmp(line, "HTTP/1.", 7) || !digit(line[7]) || line[8] != ' ')
		return -EPROTO;
	if (!digit(line[9]) || !digit(line[10]) || !digit(line[11]) || (length > STATUS_LINE_MIN && line[12] != ' '))
		return -EPROTO;
	answer->status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
	return answer->status < 200 ? -EPROTO : 0;
}

int drill_http_parse(const char *bytes, size_t length, bool closed, struct drill_http *answer)
{
	bool first = true, has_length = false;
	uint64_t body = 0;
	size_t at = 0;
	int err;

	memset(answer, 0, sizeof(*answer));
	for (;;) {
		const char *line = bytes + at;
		const char *end = at < length ? memchr(line, '\n', length - at) : NULL;
		size_t line_length;

		if (!end) {
			if (length > HEAD_MAX)
				return -EMSGSIZE;
			return closed ? -EPROTO : 0;
		}
		if (end == line || end[-1] != '\r')
			return -EPROTO;
		line_length = (size_t)(end - line) - 1;
		at += line_length + 2;
		if (at > HEAD_MAX)
			return -EMSGSIZE;
		if (!first && !line_length)
			break;
		err = first ? status_line(line, line_length, answer)
			    : header(line, line_length, &has_length, &body, answer);
		if (err)
			return err;
		first = false;
	}
	answer->head_length = at;
	if (answer->status == 204 || answer->status == 304)
		return 1;
	if (has_length) {
		answer->body_length = (size_t)body;
		if (length - at >= body)
			return 1;
		return closed ? -EPROTO : 0;
	}
	if (length - at > BODY_MAX)
		return -EMSGSIZE;
	answer->body_length = length - at;
	return closed ? 1 : 0;
}
