/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Paths, escapes, complete answers and secrets, on what people send and on what nobody should. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/answers.h"
#include "common/maps.h"
#include "daemon/http.h"

static void escapes_are_decoded(void **state)
{
	char out[16];

	(void)state;
	assert_int_equal(http_percent_decode("10.0.0.0%2F8", 12, out, sizeof(out)), 0);
	assert_string_equal(out, "10.0.0.0/8");
	assert_int_equal(http_percent_decode("%c3%A9", 6, out, sizeof(out)), 0);
	assert_string_equal(out, "\xc3\xa9");
	assert_int_equal(http_percent_decode("", 0, out, sizeof(out)), 0);
	assert_string_equal(out, "");
}

static void bad_escapes_are_errors(void **state)
{
	static const char *const bad[] = {"%", "%4", "a%4", "%zz", "%4z", "%z4", "%00", "a%00b", "%%%"};
	char out[16];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(http_percent_decode(bad[i], strlen(bad[i]), out, sizeof(out)), -EINVAL);
}

static void a_text_that_does_not_fit_is_an_error_and_writes_nothing_beyond(void **state)
{
	char out[5] = "....";

	(void)state;
	assert_int_equal(http_percent_decode("abc", 3, out, 4), 0);
	assert_int_equal(out[4], '\0');
	out[4] = '!';
	assert_int_equal(http_percent_decode("abcd", 4, out, 4), -EINVAL);
	assert_int_equal(out[4], '!');
}

static int match(const char *pattern, const char *path, char captures[HTTP_CAPTURES][HTTP_CAPTURE_MAX + 1])
{
	memset(captures, 0, HTTP_CAPTURES * (HTTP_CAPTURE_MAX + 1));
	return http_match(pattern, path, captures);
}

static void patterns_match_whole_paths(void **state)
{
	char captures[HTTP_CAPTURES][HTTP_CAPTURE_MAX + 1];

	(void)state;
	assert_int_equal(match("/", "/", captures), 1);
	assert_int_equal(match("/", "/x", captures), 0);
	assert_int_equal(match("/v1/sales", "/v1/sales", captures), 1);
	assert_int_equal(match("/v1/sales", "/v1/sales/", captures), 0);
	assert_int_equal(match("/v1/sales", "/v1/sale", captures), 0);
	assert_int_equal(match("/v1/sales/{}", "/v1/sales/drop-11", captures), 1);
	assert_string_equal(captures[0], "drop-11");
	assert_int_equal(match("/v1/sales/{}", "/v1/sales/", captures), 0);
	assert_int_equal(match("/v1/sales/{}", "/v1/sales/a/b", captures), 0);
	assert_int_equal(match("/v1/sales/{}/stock", "/v1/sales/a/stock", captures), 1);
	assert_int_equal(match("/v1/sales/{}/stock", "/v1/sales/a/stock/", captures), 0);
	assert_int_equal(match("/v1/sales/{}/stock", "/v1/sales//stock", captures), 0);
	assert_int_equal(match("/v1/sales/{}/stock", "", captures), 0);
}

static void an_escaped_slash_stays_inside_its_segment(void **state)
{
	char captures[HTTP_CAPTURES][HTTP_CAPTURE_MAX + 1];

	(void)state;
	assert_int_equal(match("/v1/lists/{}/{*}", "/v1/lists/deny/10.0.0.0%2f8", captures), 1);
	assert_string_equal(captures[1], "10.0.0.0/8");
	assert_int_equal(match("/v1/lists/{}/{*}", "/v1/lists/deny/2001:db8::/32", captures), 1);
	assert_string_equal(captures[1], "2001:db8::/32");
	assert_int_equal(match("/v1/sales/{}", "/v1/sales/a%2fb", captures), 1);
	assert_string_equal(captures[0], "a/b");
}

static void a_capture_that_cannot_be_read_is_an_error_only_where_the_path_matches(void **state)
{
	char captures[HTTP_CAPTURES][HTTP_CAPTURE_MAX + 1], path[HTTP_CAPTURE_MAX + 32];

	(void)state;
	assert_int_equal(match("/v1/sales/{}", "/v1/sales/%zz", captures), -EINVAL);
	assert_int_equal(match("/v1/sales/{}", "/v1/sales/%zz/stock", captures), 0);
	memset(path, 'a', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	memcpy(path, "/v1/sales/", 10);
	assert_int_equal(match("/v1/sales/{}", path, captures), -EINVAL);
}

static void every_default_answer_comes_apart_and_says_the_same(void **state)
{
	(void)state;
	for (unsigned code = SLUICE_ANSWER_NONE + 1; code < SLUICE_ANSWER_COUNT; code++) {
		struct sluice_answer_bytes answer;
		struct http_parsed parsed;
		char bytes[SLUICE_ANSWER_MAX], length[16];
		unsigned found = 0;

		assert_int_equal(answer_render(code, "https://shop.example", &answer), 0);
		assert_int_equal(http_parse_answer(bytes, answer_fill(&answer, 5, bytes), &parsed), 0);
		assert_int_equal(parsed.status, answer_status(code));
		snprintf(length, sizeof(length), "%zu", parsed.body_length);
		for (unsigned i = 0; i < parsed.header_count; i++) {
			if (!strcmp(parsed.headers[i].name, "Content-Length") &&
				!strcmp(parsed.headers[i].value, length))
				found++;
			if (!strcmp(parsed.headers[i].name, "Connection") && !strcmp(parsed.headers[i].value, "close"))
				found++;
		}
		assert_int_equal(found, 2);
		assert_int_equal(parsed.body[0], '{');
	}
}

static void hostile_answers_are_refused_or_survived(void **state)
{
	static const char *const bad[] = {"", "HTTP/1.1", "HTTP/1.1 \r\n\r\n", "HTTP/1.1 20\r\n\r\n",
		"HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 099 x\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "HTTP/1.1 200 OK\r\n: x\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b"};
	unsigned seed = 1;
	struct http_parsed parsed;
	char bytes[256];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		memcpy(bytes, bad[i], strlen(bad[i]));
		assert_int_equal(http_parse_answer(bytes, strlen(bad[i]), &parsed), -EINVAL);
	}
	for (unsigned round = 0; round < 20000; round++) {
		/* Exactly as much memory as there are bytes: a sanitizer sees a step too far. */
		size_t size = (unsigned)rand_r(&seed) % 64;
		char *random = malloc(size + 1);

		for (size_t i = 0; i < size; i++)
			random[i] = "HTTP/1. 20:\r\n"[(unsigned)rand_r(&seed) % 13];
		if (size > 17)
			memcpy(random, "HTTP/1.1 200 OK\r\n", 17);
		if (!http_parse_answer(random, size, &parsed))
			assert_true(parsed.body >= random && parsed.body + parsed.body_length == random + size);
		free(random);
	}
}

static void a_line_end_that_is_none_makes_no_answer(void **state)
{
#define BYTES(text) \
	{ \
		text, sizeof(text) - 1 \
	}
	static const struct {
		const char *bytes;
		size_t length;
	} bad[] = {
		BYTES("HTTP/1.1 200 OK\r\nA\n: b\r\n\r\n"),
		BYTES("HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n"),
		BYTES("HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n"),
		BYTES("HTTP/1.1 200 OK\r\nA: b\0C: d\r\n\r\n"),
		BYTES("HTTP/1.1 200 O\nK\r\nA: b\r\n\r\n"),
	};
#undef BYTES
	struct http_parsed parsed;
	char bytes[64];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		memcpy(bytes, bad[i].bytes, bad[i].length);
		assert_int_equal(http_parse_answer(bytes, bad[i].length, &parsed), -EINVAL);
	}
}

static void secrets_are_equal_only_if_they_are(void **state)
{
	(void)state;
	assert_true(http_secret_equals("0123456789abcdef", "0123456789abcdef"));
	assert_false(http_secret_equals("0123456789abcdee", "0123456789abcdef"));
	assert_false(http_secret_equals("1123456789abcdef", "0123456789abcdef"));
	assert_false(http_secret_equals("0123456789abcde", "0123456789abcdef"));
	assert_false(http_secret_equals("0123456789abcdef0", "0123456789abcdef"));
	assert_false(http_secret_equals("", "0123456789abcdef"));
}

/* Headers as "Name:value" in one list, each with exactly its bytes in memory. */
static struct http_framing framing_of(const char *const *headers)
{
	struct http_framing framing = {0};
	static char bytes[8][64];

	for (unsigned i = 0; headers[i]; i++) {
		size_t name_size = strcspn(headers[i], ":");

		assert_true(i < 8 && strlen(headers[i]) < sizeof(bytes[0]));
		memcpy(bytes[i], headers[i], strlen(headers[i]));
		http_framing_add(
			&framing, bytes[i], name_size, bytes[i] + name_size + 1, strlen(headers[i]) - name_size - 1);
	}
	return framing;
}

static void a_request_with_one_end_is_well_framed(void **state)
{
	static const char *const good[][4] = {{NULL}, {"Host:a", NULL}, {"Content-Length:5", NULL},
		{"Content-Length:5", "content-length:5", NULL}, {"Transfer-Encoding:chunked", NULL},
		{"transfer-encoding:Chunked", "Content-Length:5", NULL}, {"X-0_a.b~c!:\xff\x01", "Empty:", NULL}};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_false(framing_of(good[i]).is_malformed);
	assert_true(framing_of(good[4]).is_chunked && !framing_of(good[4]).length);
	assert_true(framing_of(good[5]).is_chunked && framing_of(good[5]).length);
	assert_false(framing_of(good[2]).is_chunked);
}

static void a_request_with_two_ends_or_none_is_not(void **state)
{
	static const char *const bad[][4] = {{"Content-Length:5", "Content-Length:6", NULL},
		{"Content-Length:5", "Content-Length:05", NULL}, {"Content-Length:", "Content-Length:5", NULL},
		{"Transfer-Encoding:gzip", NULL}, {"Transfer-Encoding:gzip, chunked", NULL},
		{"Transfer-Encoding:", NULL}, {"Transfer-Encoding:chunked", "Transfer-Encoding:chunked", NULL},
		{"Transfer-Encoding:chunked ", NULL}, {"Content-Length :5", NULL}, {"Content-Length\t:5", NULL},
		{":5", NULL}, {"A(b):5", NULL}, {"\xc3\xa4:5", NULL}};
	struct http_framing framing = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_true(framing_of(bad[i]).is_malformed);
	http_framing_add(&framing, "X", 1, "a\0b", 3);
	assert_true(framing.is_malformed);
	framing = (struct http_framing){0};
	http_framing_add(&framing, "X\0Y", 3, "a", 1);
	assert_true(framing.is_malformed);
	framing = (struct http_framing){0};
	http_framing_add(&framing, "Empty", 5, NULL, 0);
	assert_false(framing.is_malformed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(escapes_are_decoded),
		cmocka_unit_test(bad_escapes_are_errors),
		cmocka_unit_test(a_text_that_does_not_fit_is_an_error_and_writes_nothing_beyond),
		cmocka_unit_test(patterns_match_whole_paths),
		cmocka_unit_test(an_escaped_slash_stays_inside_its_segment),
		cmocka_unit_test(a_capture_that_cannot_be_read_is_an_error_only_where_the_path_matches),
		cmocka_unit_test(every_default_answer_comes_apart_and_says_the_same),
		cmocka_unit_test(hostile_answers_are_refused_or_survived),
		cmocka_unit_test(a_line_end_that_is_none_makes_no_answer),
		cmocka_unit_test(secrets_are_equal_only_if_they_are),
		cmocka_unit_test(a_request_with_one_end_is_well_framed),
		cmocka_unit_test(a_request_with_two_ends_or_none_is_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
