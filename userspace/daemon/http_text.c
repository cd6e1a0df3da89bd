/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The pure parts of HTTP handling: paths, percent escapes, complete answers as bytes, the end of a request, secrets. No state, no I/O; called by the rest of
 * http*.c and by unit tests with hostile bytes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/http.h"

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int http_percent_decode(const char *text, size_t length, char *out, size_t size)
{
	size_t used = 0;

	for (size_t i = 0; i < length; i++) {
		int c = (unsigned char)text[i];

		if (c == '%') {
			int high = i + 2 < length ? hex_value(text[i + 1]) : -1;
			int low = i + 2 < length ? hex_value(text[i + 2]) : -1;

			if (high < 0 || low < 0)
				return -EINVAL;
			c = high * 16 + low;
			i += 2;
		}
		if (!c || used + 1 >= size)
			return -EINVAL;
		out[used++] = (char)c;
	}
	if (!size)
		return -EINVAL;
	out[used] = '\0';
	return 0;
}

int http_match(const char *pattern, const char *path, char captures[HTTP_CAPTURES][HTTP_CAPTURE_MAX + 1])
{
	unsigned capture = 0;

	while (*pattern) {
		bool rest = !strncmp(pattern, "{*}", 3);

		if (rest || !strncmp(pattern, "{}", 2)) {
			size_t length = rest ? strlen(path) : strcspn(path, "/");

			if (!length || capture == HTTP_CAPTURES)
				return 0;
			/* A path that does not match further on is somebody else's, whatever its escapes are. */
			if (!rest && strcspn(pattern + 2, "{") == strlen(pattern + 2) &&
				strcmp(pattern + 2, path + length) != 0)
				return 0;
			if (http_percent_decode(path, length, captures[capture++], HTTP_CAPTURE_MAX + 1))
				return -EINVAL;
			pattern += rest ? 3 : 2;
			path += length;
		} else if (*pattern++ != *path++) {
			return 0;
		}
	}
	return *path == '\0';
}

/* Cuts the text up to CRLF out of *at and steps over it. NULL if there is no CRLF before `end`, or before it a NUL, CR or LF alone: readers
 * differ in what they take those for (RFC 9112 section 2.2).
 */
static char *cut_line(char **at, char *end)
{
	char *line = *at, *cr;

	for (cr = line; cr + 1 < end; cr++) {
		if (cr[0] == '\r' && cr[1] == '\n') {
			*cr = '\0';
			*at = cr + 2;
			return line;
		}
		if (!*cr || *cr == '\r' || *cr == '\n')
			return NULL;
	}
	return NULL;
}

int http_parse_answer(char *bytes, size_t length, struct http_parsed *parsed)
{
	char *at = bytes, *end = bytes + length, *line = cut_line(&at, end), *stop;

	memset(parsed, 0, sizeof(*parsed));
	if (!line || strncmp(line, "HTTP/1.1 ", 9) != 0)
		return -EINVAL;
	parsed->status = (unsigned)strtoul(line + 9, &stop, 10);
	if (stop != line + 12 || parsed->status < 200 || parsed->status > 599)
		return -EINVAL;
	while ((line = cut_line(&at, end)) && *line) {
		char *colon = strchr(line, ':'), *tail;

		if (!colon || colon == line ||
			parsed->header_count == sizeof(parsed->headers) / sizeof(parsed->headers[0]))
			return -EINVAL;
		*colon++ = '\0';
		colon += strspn(colon, " \t");
		for (tail = colon + strlen(colon); tail > colon && (tail[-1] == ' ' || tail[-1] == '\t');)
			*--tail = '\0';
		parsed->headers[parsed->header_count].name = line;
		parsed->headers[parsed->header_count++].value = colon;
	}
	if (!line)
		return -EINVAL;
	parsed->body = at;
	parsed->body_length = (size_t)(end - at);
	return 0;
}

static bool is_named(const char *name, size_t size, const char *wanted)
{
	return size == strlen(wanted) && !strncasecmp(name, wanted, size);
}

/* RFC 9110 section 5.1: a token. A blank before the colon hides a header from one reader and shows it to another. */
static bool is_field_name(const char *name, size_t size)
{
	static const char others[] = "!#$%&'*+-.^_`|~";

	for (size_t i = 0; i < size; i++)
		if (!(name[i] >= '0' && name[i] <= '9') && !((name[i] | 0x20) >= 'a' && (name[i] | 0x20) <= 'z') &&
			!(name[i] && strchr(others, name[i])))
			return false;
	return size > 0;
}

void http_framing_add(
	struct http_framing *framing, const char *name, size_t name_size, const char *value, size_t value_size)
{
	if (!is_field_name(name, name_size) || (value_size && memchr(value, '\0', value_size)))
		framing->is_malformed = true;
	if (is_named(name, name_size, "Transfer-Encoding")) {
		/* Anything but one "chunked" has an end that we do not find. */
		if (framing->is_chunked || !is_named(value, value_size, "chunked"))
			framing->is_malformed = true;
		framing->is_chunked = true;
	}
	if (is_named(name, name_size, "Content-Length")) {
		if (framing->length &&
			(framing->length_size != value_size ||
				(value_size && memcmp(framing->length, value, value_size) != 0)))
			framing->is_malformed = true;
		framing->length = value;
		framing->length_size = value_size;
	}
}

bool http_secret_equals(const char *given, const char *secret)
{
	size_t given_length = strlen(given), length = strlen(secret);
	unsigned char difference = given_length != length;

	for (size_t i = 0; i < length; i++)
		difference |= (unsigned char)((i < given_length ? given[i] : 0) ^ secret[i]);
	return !difference;
}
