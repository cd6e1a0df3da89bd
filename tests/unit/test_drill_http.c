/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The drill's reader of HTTP answers: what is whole, what is missing, what is no answer; and that hostile bytes never hurt it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "drill/http.h"

static const char sold_out[] =
	"HTTP/1.1 409 Conflict\r\nContent-Type: application/problem+json\r\nContent-Length: 19\r\n"
	"Connection: close\r\n\r\n{\"code\":\"sold_out\"}";

static int parse(const char *text, bool closed, struct drill_http *answer)
{
	return drill_http_parse(text, strlen(text), closed, answer);
}

static void an_answer_is_complete_with_its_last_byte_and_not_before(void **state)
{
	struct drill_http answer;
	size_t length = sizeof(sold_out) - 1;

	(void)state;
	for (size_t cut = 0; cut < length; cut++) {
		/* a copy of exact size, so that a read beyond it is seen by the sanitizer */
		char *part = malloc(cut + 1);

		memcpy(part, sold_out, cut);
		part = realloc(part, cut ? cut : 1);
		assert_int_equal(drill_http_parse(part, cut, false, &answer), 0);
		assert_int_equal(drill_http_parse(part, cut, true, &answer), -EPROTO);
		free(part);
	}
	assert_int_equal(drill_http_parse(sold_out, length, false, &answer), 1);
	assert_int_equal(answer.status, 409);
	assert_int_equal(answer.body_length, 19);
	assert_string_equal(sold_out + answer.head_length, "{\"code\":\"sold_out\"}");
	assert_false(answer.has_retry_after);
}

static void retry_after_is_read_with_leading_zeros_and_any_case(void **state)
{
	struct drill_http answer;

	(void)state;
	assert_int_equal(parse("HTTP/1.1 429 Too Many Requests\r\nretry-AFTER: \t0007 \r\nContent-Length: 0\r\n\r\n",
				 false, &answer),
		1);
	assert_true(answer.has_retry_after);
	assert_int_equal(answer.retry_after_s, 7);
	assert_int_equal(parse("HTTP/1.1 503 x\r\nRetry-After: 99999999999999999999\r\nContent-Length: 0\r\n\r\n",
				 false, &answer),
		1);
	assert_int_equal(answer.retry_after_s, 86400);
	assert_int_equal(
		parse("HTTP/1.1 503 x\r\nRetry-After: Sun, 22 Nov 2026 12:00:00 GMT\r\nContent-Length: 0\r\n\r\n",
			false, &answer),
		1);
	assert_false(answer.has_retry_after);
}

static void without_a_length_the_body_ends_with_the_connection(void **state)
{
	struct drill_http answer;

	(void)state;
	assert_int_equal(parse("HTTP/1.1 200 OK\r\n\r\nabc", false, &answer), 0);
	assert_int_equal(parse("HTTP/1.1 200 OK\r\n\r\nabc", true, &answer), 1);
	assert_int_equal(answer.body_length, 3);
	assert_int_equal(parse("HTTP/1.1 204 No Content\r\n\r\n", false, &answer), 1);
	assert_int_equal(answer.body_length, 0);
}

static void what_is_no_answer_is_refused(void **state)
{
	static const char *const bad[] = {
		"\r\n\r\n",
		"\n",
		"HTTP/2.0 200 OK\r\n\r\n",
		"HTTP/1.1 20 OK\r\n\r\n",
		"HTTP/1.1 2000 OK\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\n",
		"HTTP/1.1 200 OK\n\n",
		"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
		"HTTP/1.1 200 OK\r\n: empty name\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 0x10\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.1\r\n\r\n",
	};
	struct drill_http answer;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (parse(bad[i], false, &answer) != -EPROTO)
			fail_msg("accepted: %s", bad[i]);
	}
	assert_int_equal(
		parse("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551617\r\n\r\n", false, &answer), -EMSGSIZE);
}

static void an_endless_head_is_refused(void **state)
{
	char *head = malloc(10000);
	struct drill_http answer;

	(void)state;
	memset(head, 'a', 10000);
	memcpy(head, "HTTP/1.1 200 OK\r\nX: ", 20);
	assert_int_equal(drill_http_parse(head, 8000, false, &answer), 0);
	assert_int_equal(drill_http_parse(head, 10000, false, &answer), -EMSGSIZE);
	free(head);
}

static void random_changes_of_an_answer_never_hurt(void **state)
{
	static const char base[] =
		"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0005\r\nContent-Length: 5\r\n\r\nabcde";
	unsigned seed = 20261122;
	size_t length = sizeof(base) - 1;

	(void)state;
	print_message("seed %u\n", seed);
	for (int round = 0; round < 200000; round++) {
		size_t cut = (size_t)rand_r(&seed) % (length + 1);
		char *bytes = malloc(cut ? cut : 1);
		struct drill_http answer;
		int result;

		memcpy(bytes, base, cut);
		for (int change = 0; cut && change < 3; change++)
			bytes[(size_t)rand_r(&seed) % cut] = (char)rand_r(&seed);
		result = drill_http_parse(bytes, cut, rand_r(&seed) & 1, &answer);
		if (result == 1) {
			assert_true(answer.status >= 200 && answer.status <= 999);
			assert_true(answer.head_length + answer.body_length <= cut);
		}
		free(bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_answer_is_complete_with_its_last_byte_and_not_before),
		cmocka_unit_test(retry_after_is_read_with_leading_zeros_and_any_case),
		cmocka_unit_test(without_a_length_the_body_ends_with_the_connection),
		cmocka_unit_test(what_is_no_answer_is_refused),
		cmocka_unit_test(an_endless_head_is_refused),
		cmocka_unit_test(random_changes_of_an_answer_never_hurt),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
