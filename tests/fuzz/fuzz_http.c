/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Fuzz target: userspace/daemon/http_text.c: percent escapes, matching of paths, complete answers, secrets.
 *
 * The input is one byte (what is done) and a text. Each text lies in a piece of memory of exactly its size. Claims: nothing beside it is
 * read or written; what decodes is what a decoder that shares no code says; a capture is a part of the path, and only a path that fits the
 * pattern matches; the parts of an answer are parts of its bytes.
 */
#include <errno.h>

#include "check.h"
#include "daemon/http.h"

#define OUT_MAX 300

static int digit(uint8_t c)
{
	static const char digits[] = "0123456789abcdef0123456789ABCDEF";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)((at - digits) % 16) : -1;
}

/* Returns the length, or -1. */
static int reference_decode(const uint8_t *text, size_t length, char *out, size_t size)
{
	size_t used = 0;

	while (length) {
		size_t step = *text == '%' ? 3 : 1;
		int value = *text;

		if (step > length)
			return -1;
		if (step == 3) {
			if (digit(text[1]) < 0 || digit(text[2]) < 0)
				return -1;
			value = digit(text[1]) << 4 | digit(text[2]);
		}
		if (!value || used + 2 > size)
			return -1;
		out[used++] = (char)value;
		text += step;
		length -= step;
	}
	if (!size)
		return -1;
	out[used] = '\0';
	return (int)used;
}

static void try_decode(struct input *input)
{
	char wanted[OUT_MAX], *out, *text;
	size_t size = input_u16(input) % OUT_MAX;
	int length, err;

	text = malloc(input->left + 1); /* its last byte is not part of the text */
	out = malloc(size + 1);
	CHECK(text && out, "memory");
	if (input->left)
		memcpy(text, input->at, input->left);
	text[input->left] = 'a';
	out[size] = 'x';
	length = reference_decode(input->at, input->left, wanted, size);
	err = http_percent_decode(text, input->left, out, size);
	CHECK((length >= 0) == !err, "error %d, length %d", err, length);
	CHECK(err || !memcmp(out, wanted, (size_t)length + 1), "another text");
	CHECK(out[size] == 'x', "written behind the end");
	free(text);
	free(out);
}

/* Does the pattern's text, with captures for holes, make a path that decodes like `path`? */
static void check_match(const char *pattern, const char *path, char captures[HTTP_CAPTURES][HTTP_CAPTURE_MAX + 1])
{
	unsigned capture = 0;

	while (*pattern) {
		bool rest = !strncmp(pattern, "{*}", 3), one = !strncmp(pattern, "{}", 2);
		char wanted[HTTP_CAPTURE_MAX + 1];
		size_t length;

		if (!rest && !one) {
			CHECK(*pattern == *path, "a character that is not in the pattern");
			pattern++;
			path++;
			continue;
		}
		length = rest ? strlen(path) : strcspn(path, "/");
		CHECK(length, "an empty capture");
		CHECK(reference_decode((const uint8_t *)path, length, wanted, sizeof(wanted)) >= 0, "a capture");
		CHECK(!strcmp(wanted, captures[capture]), "another capture");
		capture++;
		path += length;
		pattern += rest ? 3 : 2;
	}
	CHECK(!*path, "the path goes on");
}

static void try_match(struct input *input)
{
	static const char *const patterns[] = {"/", "/v1/sales/{}", "/v1/sales/{}/stock", "/v1/lists/{}/{*}",
		"/v1/orders/{}", "/{}/{}/{}", "{}{}", "/v1/sales/{}/tokens", "/{}/{}/{}/{}"};
	const char *pattern = patterns[(uint8_t)(input_u8(input) - '0') % (sizeof(patterns) / sizeof(patterns[0]))];
	char captures[HTTP_CAPTURES][HTTP_CAPTURE_MAX + 1];
	char *path = malloc(input->left + 1);
	int match;

	CHECK(path, "memory");
	if (input->left)
		memcpy(path, input->at, input->left);
	path[input->left] = '\0';
	match = http_match(pattern, path, captures);
	CHECK(match == 0 || match == 1 || match == -EINVAL, "match %d", match);
	if (match == 1)
		check_match(pattern, path, captures);
	free(path);
}

static void try_answer(struct input *input)
{
	size_t length = input->left;
	char *bytes = malloc(length ? length : 1);
	struct http_parsed parsed;

	CHECK(bytes, "memory");
	if (length)
		memcpy(bytes, input->at, length);
	if (!http_parse_answer(bytes, length, &parsed)) {
		CHECK(parsed.status >= 200 && parsed.status <= 599, "status %u", parsed.status);
		CHECK(parsed.header_count <= 16, "%u headers", parsed.header_count);
		CHECK(parsed.body >= bytes && parsed.body + parsed.body_length == bytes + length, "the body");
		for (unsigned i = 0; i < parsed.header_count; i++) {
			const char *name = parsed.headers[i].name, *value = parsed.headers[i].value;

			CHECK(*name && name >= bytes && value > name && value + strlen(value) < parsed.body,
				"a header");
			CHECK(!strpbrk(name, ":\r\n") && !strpbrk(value, "\r\n"), "a header with an end of line in it");
		}
	}
	free(bytes);
}

static void try_secret(struct input *input)
{
	static const char secret[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
	char *given = malloc(input->left + 1);

	CHECK(given, "memory");
	if (input->left)
		memcpy(given, input->at, input->left);
	given[input->left] = '\0';
	CHECK(http_secret_equals(given, secret) == !strcmp(given, secret), "\"%s\"", given);
	CHECK(http_secret_equals(given, given), "itself");
	free(given);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct input input = {bytes, size};

	switch (input_u8(&input) & 3) {
	case 0:
		try_decode(&input);
		break;
	case 1:
		try_match(&input);
		break;
	case 2:
		try_answer(&input);
		break;
	default:
		try_secret(&input);
	}
	return 0;
}
