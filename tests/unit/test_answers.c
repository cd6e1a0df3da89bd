/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate's answers as a strict HTTP client would read them, and the promises that the gate's checksum arithmetic rests on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/answers.h"
#include "common/maps.h"

static const char *const origins[] = {
	"", "*", "https://shop.example", "https://a.example", "http://[2001:db8::1]:8443"};
#define ORIGINS (sizeof(origins) / sizeof(origins[0]))

static const struct {
	const char *title, *detail;
	int retry;
} texts[SLUICE_ANSWER_COUNT] = {
#define X(name, code, status, title_, retry_, detail_) {title_, detail_, retry_},
	SLUICE_ANSWERS(X)
#undef X
};

/* RFC 1071 written another way than the code: byte by byte, carry folded at each step. */
static uint32_t checksum(const uint8_t *bytes, size_t count)
{
	uint32_t high = 0, low = 0, sum;

	for (size_t i = 0; i < count; i++)
		*(i % 2 ? &low : &high) += bytes[i];
	sum = high * 256 + low;
	while (sum > 0xffff)
		sum = sum % 0x10000 + sum / 0x10000;
	return sum;
}

struct response {
	int status;
	char title[64];
	char headers[16][2][128]; /* name, value */
	int header_count;
	const char *body;
	size_t body_length;
};

/* RFC 9112: a status line, header lines of "name: value", an empty line; every line ends in CRLF. Anything else fails the test. */
static struct response parse(const uint8_t *bytes, size_t length)
{
	static char copy[SLUICE_ANSWER_MAX + 1];
	struct response response = {0};
	char *line, *end, *head_end;

	assert_true(length <= SLUICE_ANSWER_MAX);
	memcpy(copy, bytes, length);
	copy[length] = '\0';
	assert_int_equal(strlen(copy), length);
	head_end = strstr(copy, "\r\n\r\n");
	assert_non_null(head_end);
	response.body = head_end + 4;
	response.body_length = length - (size_t)(response.body - copy);
	head_end[2] = '\0';
	for (line = copy; *line; line = end + 2) {
		end = strstr(line, "\r\n");
		assert_non_null(end);
		*end = '\0';
		assert_null(strpbrk(line, "\r\n\t"));
		if (line == copy) {
			assert_int_equal(sscanf(line, "HTTP/1.1 %3d %63[^\n]", &response.status, response.title), 2);
		} else {
			char(*header)[128] = response.headers[response.header_count++];

			assert_int_equal(sscanf(line, "%127[A-Za-z-]: %127[^\n]", header[0], header[1]), 2);
		}
	}
	return response;
}

static const char *header(const struct response *response, const char *name)
{
	const char *value = NULL;

	for (int i = 0; i < response->header_count; i++) {
		if (strcmp(response->headers[i][0], name))
			continue;
		assert_null(value); /* each at most once */
		value = response->headers[i][1];
	}
	return value;
}

static void assert_json_member(const char *body, size_t length, const char *name, const char *text, int number)
{
	json_t *root = json_loadb(body, length, JSON_REJECT_DUPLICATES, NULL);

	assert_non_null(root);
	if (text)
		assert_string_equal(json_string_value(json_object_get(root, name)), text);
	else
		assert_int_equal(json_integer_value(json_object_get(root, name)), number);
	json_decref(root);
}

static void each_answer_is_a_whole_http_response(void **state)
{
	(void)state;
	for (unsigned code = 1; code < SLUICE_ANSWER_COUNT; code++) {
		for (size_t i = 0; i < ORIGINS; i++) {
			struct sluice_answer_bytes answer;
			struct response response;
			char length[16];

			assert_int_equal(answer_render((enum sluice_answer)code, origins[i], &answer), 0);
			response = parse(answer.bytes, answer.len);
			assert_int_equal(response.status, answer_status(code));
			assert_string_equal(response.title, texts[code].title);
			snprintf(length, sizeof(length), "%zu", response.body_length);
			assert_string_equal(header(&response, "Content-Length"), length);
			assert_string_equal(header(&response, "Content-Type"), "application/problem+json");
			assert_string_equal(header(&response, "Connection"), "close");
			assert_string_equal(header(&response, "Cache-Control"), "no-store");
			if (texts[code].retry)
				assert_string_equal(header(&response, "Retry-After"), "0000");
			else
				assert_null(header(&response, "Retry-After"));
			if (*origins[i])
				assert_string_equal(header(&response, "Access-Control-Allow-Origin"), origins[i]);
			else
				assert_null(header(&response, "Access-Control-Allow-Origin"));
			assert_json_member(response.body, response.body_length, "code", answer_code(code), 0);
			assert_json_member(response.body, response.body_length, "status", NULL, answer_status(code));
			assert_json_member(response.body, response.body_length, "title", texts[code].title, 0);
			assert_json_member(response.body, response.body_length, "detail", texts[code].detail, 0);
		}
	}
}

static void lengths_are_even_and_sums_are_right(void **state)
{
	(void)state;
	for (unsigned code = 1; code < SLUICE_ANSWER_COUNT; code++) {
		for (size_t i = 0; i < ORIGINS; i++) {
			struct sluice_answer_bytes answer;

			assert_int_equal(answer_render((enum sluice_answer)code, origins[i], &answer), 0);
			assert_true(answer.len > 0 && answer.len % 2 == 0 && answer.len <= SLUICE_ANSWER_MAX);
			assert_true(answer.short_len > 0 && answer.short_len % 2 == 0 &&
				answer.short_len <= SLUICE_ANSWER_SHORT_MAX);
			assert_int_equal(answer.sum, checksum(answer.bytes, answer.len));
			assert_int_equal(answer.short_sum, checksum(answer.short_bytes, answer.short_len));
			assert_true(answer.sum <= 0xffff && answer.short_sum <= 0xffff);
		}
	}
}

/* All lengths of an origin, so that both parities and all ways of padding occur. */
static void every_length_of_origin_keeps_the_promises(void **state)
{
	char origin[128] = "https://";

	(void)state;
	for (size_t length = strlen(origin); length < sizeof(origin) - 1; length++) {
		origin[length] = 'a';
		origin[length + 1] = '\0';
		for (unsigned code = 1; code < SLUICE_ANSWER_COUNT; code++) {
			struct sluice_answer_bytes answer;
			struct response response;

			assert_int_equal(answer_render((enum sluice_answer)code, origin, &answer), 0);
			response = parse(answer.bytes, answer.len);
			assert_int_equal(answer.len % 2, 0);
			assert_int_equal(atoi(header(&response, "Content-Length")), response.body_length);
			assert_int_equal(answer.sum, checksum(answer.bytes, answer.len));
		}
	}
}

static void the_digits_of_retry_after_are_whole_words(void **state)
{
	(void)state;
	for (unsigned code = 1; code < SLUICE_ANSWER_COUNT; code++) {
		struct sluice_answer_bytes answer;

		assert_int_equal(answer_render((enum sluice_answer)code, "", &answer), 0);
		assert_int_equal(answer.retry_at != 0, texts[code].retry);
		if (!answer.retry_at)
			continue;
		assert_int_equal(answer.retry_at % 2, 0);
		assert_memory_equal(answer.bytes + answer.retry_at, "0000\r\n", 6);
	}
}

static void filling_changes_the_four_digits_and_nothing_else(void **state)
{
	static const struct {
		unsigned seconds;
		const char *digits;
	} cases[] = {{0, "0000"}, {5, "0005"}, {120, "0120"}, {9999, "9999"}, {10000, "9999"}, {UINT32_MAX, "9999"}};
	struct sluice_answer_bytes answer;
	char out[SLUICE_ANSWER_MAX];

	(void)state;
	assert_int_equal(answer_render(SLUICE_ANSWER_RATE_LIMITED, "", &answer), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint32_t patched = answer.sum;

		assert_int_equal(answer_fill(&answer, cases[i].seconds, out), answer.len);
		assert_memory_equal(out + answer.retry_at, cases[i].digits, 4);
		assert_memory_equal(out, answer.bytes, answer.retry_at);
		assert_memory_equal(out + answer.retry_at + 4, answer.bytes + answer.retry_at + 4,
			(size_t)(answer.len - answer.retry_at - 4));
		/* What the gate does: take the words "00" "00" off the sum and add the new ones. */
		for (int word = 0; word < 2; word++) {
			patched += 0xffff - 0x3030;
			patched += (uint32_t)(uint8_t)cases[i].digits[word * 2] << 8 |
				(uint8_t)cases[i].digits[word * 2 + 1];
		}
		while (patched >> 16)
			patched = (patched & 0xffff) + (patched >> 16);
		assert_int_equal(patched, checksum((const uint8_t *)out, answer.len));
	}
	assert_int_equal(answer_render(SLUICE_ANSWER_SOLD_OUT, "", &answer), 0);
	assert_int_equal(answer_fill(&answer, 17, out), answer.len);
	assert_memory_equal(out, answer.bytes, answer.len);
}

static void the_short_form_is_a_whole_response_too(void **state)
{
	(void)state;
	for (unsigned code = 1; code < SLUICE_ANSWER_COUNT; code++) {
		struct sluice_answer_bytes answer;
		struct response response;

		assert_int_equal(answer_render((enum sluice_answer)code, "https://shop.example", &answer), 0);
		response = parse(answer.short_bytes, answer.short_len);
		assert_int_equal(response.status, answer_status(code));
		assert_string_equal(header(&response, "Content-Length"), "0");
		assert_string_equal(header(&response, "Connection"), "close");
		assert_int_equal(response.body_length, 0);
	}
}

/* A request of a plain client has some 150 bytes; on a frame that cannot grow at the tail there are about 200 bytes of head room more. */
static void default_answers_are_short(void **state)
{
	(void)state;
	for (unsigned code = 1; code < SLUICE_ANSWER_COUNT; code++) {
		struct sluice_answer_bytes answer;

		assert_int_equal(answer_render((enum sluice_answer)code, "", &answer), 0);
		assert_in_range(answer.len, 1, 300);
	}
}

static void what_cannot_be_an_answer_is_refused(void **state)
{
	static const char *const bad[] = {"https://a.example\r\nSet-Cookie: x", "https://a.example b", "\x01",
		"https://\xc3\xa4.example", "\x7f"};
	struct sluice_answer_bytes answer;
	char longest[SLUICE_ANSWER_MAX + 1];

	(void)state;
	assert_int_equal(answer_render(SLUICE_ANSWER_NONE, "", &answer), -EINVAL);
	assert_int_equal(answer_render(SLUICE_ANSWER_COUNT, "", &answer), -EINVAL);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(answer_render(SLUICE_ANSWER_SOLD_OUT, bad[i], &answer), -EINVAL);
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	assert_int_equal(answer_render(SLUICE_ANSWER_SOLD_OUT, longest, &answer), -EMSGSIZE);
}

static void reasons_and_answers_have_their_names(void **state)
{
	(void)state;
	assert_string_equal(reason_label(SLUICE_REASON_SOLD_OUT), "sold_out");
	assert_int_equal(reason_action(SLUICE_REASON_SOLD_OUT), SLUICE_ACTION_ANSWER);
	assert_string_equal(answer_code(reason_answer(SLUICE_REASON_BUYER_LIMIT)), "already_ordered");
	assert_int_equal(answer_status(SLUICE_ANSWER_RATE_LIMITED), 429);
	assert_string_equal(reason_label(SLUICE_REASON_COUNT), "?");
	assert_null(reason_text(SLUICE_REASON_COUNT));
	for (unsigned reason = 0; reason < SLUICE_REASON_COUNT; reason++) {
		assert_int_equal(
			reason_action(reason) == SLUICE_ACTION_ANSWER, reason_answer(reason) != SLUICE_ANSWER_NONE);
		for (unsigned other = 0; other < reason; other++)
			assert_string_not_equal(reason_label(reason), reason_label(other));
	}
}

/* --- the operator's own ---------------------------------------------------------------------------------------------------------- */
static struct answer_custom own(const char *type, const char *body)
{
	return (struct answer_custom){.body = body, .content_type = type};
}

/* All lengths of a body, so that both parities and every number of digits of Content-Length occur. */
static void an_own_body_is_sent_byte_for_byte(void **state)
{
	static const enum sluice_answer codes[] = {SLUICE_ANSWER_SOLD_OUT, SLUICE_ANSWER_RATE_LIMITED};
	char body[SLUICE_ANSWER_MAX + 2] = "";

	(void)state;
	for (size_t c = 0; c < 2; c++) {
		size_t most = 0;

		for (size_t length = 0; length <= SLUICE_ANSWER_MAX; length++) {
			struct answer_custom custom = own("text/plain", body);
			struct sluice_answer_bytes answer;
			struct response response;
			size_t size;
			int err;

			memset(body, 'a' + (int)(length % 26), length);
			body[length] = '\0';
			custom.headers = 1;
			custom.header[0].name = "X-Shop";
			custom.header[0].value = "drop 11";
			err = answer_render_custom(codes[c], "https://shop.example", &custom, &answer, &size);
			if (err) {
				assert_int_equal(err, -EMSGSIZE);
				assert_true(size > SLUICE_ANSWER_MAX && size % 2 == 0);
				continue;
			}
			most = length;
			assert_int_equal(size, answer.len);
			assert_true(answer.len % 2 == 0 && answer.len <= SLUICE_ANSWER_MAX);
			assert_int_equal(answer.sum, checksum(answer.bytes, answer.len));
			assert_int_equal(answer.short_sum, checksum(answer.short_bytes, answer.short_len));
			assert_int_equal(answer.retry_at % 2, 0);
			assert_int_equal(answer.retry_at != 0, codes[c] == SLUICE_ANSWER_RATE_LIMITED);
			if (answer.retry_at)
				assert_memory_equal(answer.bytes + answer.retry_at, "0000\r\n", 6);
			response = parse(answer.bytes, answer.len);
			assert_int_equal(response.status, answer_status(codes[c]));
			assert_int_equal(atoi(header(&response, "Content-Length")), (int)length);
			assert_int_equal(response.body_length, length);
			assert_memory_equal(response.body, body, length);
			assert_string_equal(header(&response, "Content-Type"), "text/plain");
			assert_string_equal(header(&response, "X-Shop"), "drop 11");
			assert_string_equal(header(&response, "Connection"), "close");
			assert_string_equal(header(&response, "Cache-Control"), "no-store");
			assert_string_equal(header(&response, "Access-Control-Allow-Origin"), "https://shop.example");
		}
		assert_in_range(most, 700, SLUICE_ANSWER_MAX);
	}
}

static void no_custom_is_the_default(void **state)
{
	struct sluice_answer_bytes custom, plain;
	size_t size;

	(void)state;
	for (unsigned code = 1; code < SLUICE_ANSWER_COUNT; code++) {
		assert_int_equal(answer_render((enum sluice_answer)code, "*", &plain), 0);
		assert_int_equal(answer_render_custom((enum sluice_answer)code, "*", NULL, &custom, &size), 0);
		assert_memory_equal(&custom, &plain, sizeof(plain));
		assert_int_equal(size, plain.len);
	}
}

static void what_could_break_an_answer_is_refused(void **state)
{
	static const struct {
		const char *type, *body, *name, *value, *field;
	} cases[] = {
		{"text/plain\r\nX: y", "", NULL, NULL, "content_type"},
		{"text", "", NULL, NULL, "content_type"},
		{"", "", NULL, NULL, "content_type"},
		{"/plain", "", NULL, NULL, "content_type"},
		{"text/ plain", "", NULL, NULL, "content_type"},
		{"text/pl\xc3\xa4in", "", NULL, NULL, "content_type"},
		{"text/plain", "", "X-A", "a\r\nSet-Cookie: b", "headers"},
		{"text/plain", "", "X-A", "a\nb", "headers"},
		{"text/plain", "", "X-A", "", "headers"},
		{"text/plain", "", "X-A", " a", "headers"},
		{"text/plain", "", "X-A", "a\t", "headers"},
		{"text/plain", "", "X-A\r\nX-B", "a", "headers"},
		{"text/plain", "", "X-A:", "a", "headers"},
		{"text/plain", "", "X-", "a", "headers"},
		{"text/plain", "", "", "a", "headers"},
		{"text/plain", "", "Content-Length", "5", "headers"},
		{"text/plain", "", "transfer-encoding", "chunked", "headers"},
		{"text/plain", "", "Connection", "keep-alive", "headers"},
		{"text/plain", "", "Cache-Control", "public", "headers"},
		{"text/plain", "", "Retry-After", "1", "headers"},
		{"text/plain", "", "Set-Cookie", "a=b", "headers"},
		{"text/plain", "", "Content-Type", "text/html", "headers"},
		{"text/plain", "", "Content-Encoding", "gzip", "headers"},
		{"text/plain", "", "Access-Control-Allow-Origin", "*", "headers"},
		{"application/json", "", NULL, NULL, "body"},
		{"application/json", "{", NULL, NULL, "body"},
		{"application/json; charset=utf-8", "{\"a\":1,\"a\":2}", NULL, NULL, "body"},
		{"application/vnd.shop+json", "nope", NULL, NULL, "body"},
		{"application/problem+json", "[]", NULL, NULL, "body"},
		{"application/problem+json", "{\"code\":\"paused\"}", NULL, NULL, "body"},
		{"application/problem+json", "{\"status\":200}", NULL, NULL, "body"},
		{"application/problem+json", "{\"status\":\"409\"}", NULL, NULL, "body"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct answer_custom custom = own(cases[i].type, cases[i].body);
		struct sluice_answer_bytes answer;
		const char *field = NULL;
		char error[256] = "";
		size_t size;

		if (cases[i].name) {
			custom.headers = 1;
			custom.header[0].name = cases[i].name;
			custom.header[0].value = cases[i].value;
		}
		assert_ptr_equal(answer_check(SLUICE_ANSWER_SOLD_OUT, &custom, &field, error, sizeof(error)), error);
		assert_string_equal(field, cases[i].field);
		assert_string_not_equal(error, "");
		assert_int_equal(answer_render_custom(SLUICE_ANSWER_SOLD_OUT, "", &custom, &answer, &size), -EINVAL);
	}
}

static void what_is_good_is_taken(void **state)
{
	static const struct {
		const char *type, *body;
	} cases[] = {
		{"application/problem+json", "{}"},
		{"application/problem+json",
			"{\"code\":\"sold_out\",\"status\":409,\"detail\":\"Ausverkauft \xe2\x80\x93 danke!\"}"},
		{"application/json", "\"sold out\""},
		{"text/html; charset=utf-8", "<!doctype html>\r\n\r\n<p>Gone</p>"},
		{"text/plain", ""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct answer_custom custom = own(cases[i].type, cases[i].body);
		struct sluice_answer_bytes answer;
		const char *field;
		char error[256];
		size_t size;

		custom.headers = 2;
		custom.header[0].name = "link";
		custom.header[0].value = "<https://shop.example/>; rel=\"help\"";
		custom.header[1].name = "X-A";
		custom.header[1].value = "b";
		assert_null(answer_check(SLUICE_ANSWER_SOLD_OUT, &custom, &field, error, sizeof(error)));
		assert_int_equal(answer_render_custom(SLUICE_ANSWER_SOLD_OUT, "", &custom, &answer, &size), 0);
		custom.header[1].name = "LINK";
		assert_non_null(answer_check(SLUICE_ANSWER_SOLD_OUT, &custom, &field, error, sizeof(error)));
		custom.headers = ANSWER_HEADERS_MAX + 1;
		assert_non_null(answer_check(SLUICE_ANSWER_SOLD_OUT, &custom, &field, error, sizeof(error)));
	}
}

/* --- where another node's tokens belong ------------------------------------------------------------------------------------ */
#define URL_MAX 127 /* of the config */

/* A home of that URL, as the gate would send it for a token: checked to be whole, and copied to `text`. */
static void render_home(const char *url, const char *origin, const struct answer_custom *custom, char *text)
{
	static const char token[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
	struct sluice_answer_bytes answer, plain;
	char location[URL_MAX + 128];
	size_t size;

	assert_int_equal(answer_render_home(url, origin, custom, &answer, &size), 0);
	assert_int_equal(size, answer.len);
	assert_int_equal(answer.len % 2, 0);
	assert_int_equal(answer.token_at % 2, 0);
	assert_int_equal(answer.retry_at, 0);
	assert_int_equal(answer.sum, checksum(answer.bytes, answer.len));
	for (unsigned i = 0; i < SLUICE_TOKEN_TEXT; i++)
		assert_int_equal(answer.bytes[answer.token_at + i], 0);
	assert_int_equal(answer_fill_home(&answer, token, text), answer.len);
	text[answer.len] = '\0';
	assert_int_equal(strlen(text), answer.len);
	/* Two blanks where one would put the token on an odd offset. */
	snprintf(location, sizeof(location), "%s/v1/orders/%s\r\n", url, token);
	assert_non_null(strstr(text, location));
	assert_int_equal(*(strstr(text, location) - 1), ' ');
	/* The short form has it too, at the same place. */
	assert_int_equal(answer.short_len % 2, 0);
	assert_int_equal(answer.short_sum, checksum(answer.short_bytes, answer.short_len));
	assert_memory_equal(answer.short_bytes, answer.bytes, answer.token_at + SLUICE_TOKEN_TEXT + 2);
	assert_memory_equal(answer.short_bytes + answer.token_at + SLUICE_TOKEN_TEXT + 2, "Content-Length: 0\r\n", 19);
	assert_memory_equal(answer.short_bytes + answer.short_len - 9, "close\r\n\r\n", 9);
	assert_int_equal(answer_render(SLUICE_ANSWER_WRONG_NODE, origin, &plain), 0);
	assert_int_equal(plain.token_at, 0);
}

static void a_home_of_every_length_of_url_is_a_whole_answer(void **state)
{
	char url[URL_MAX + 1] = "https://", text[SLUICE_ANSWER_MAX + 1];

	(void)state;
	for (size_t length = strlen(url); length < URL_MAX; length++) {
		url[length] = 'a';
		url[length + 1] = '\0';
		for (size_t i = 0; i < ORIGINS; i++) {
			const char *exposed;

			render_home(url, origins[i], NULL, text);
			assert_int_equal(strncmp(text, "HTTP/1.1 421 Misdirected Request\r\nLocation: ", 44), 0);
			assert_non_null(strstr(text,
				"\r\n\r\n{\"title\":\"Misdirected Request\",\"status\":421,"
				"\"code\":\"wrong_node\","));
			/* A page of another origin may read no header that it is not told of. */
			exposed = strstr(text, "\r\nAccess-Control-Expose-Headers: Location\r\n");
			assert_true(*origins[i] ? exposed != NULL : exposed == NULL);
		}
	}
}

static void the_operators_answer_gets_the_address_too(void **state)
{
	struct answer_custom custom = own("text/html", "<p>You are at the wrong counter.</p>");
	char text[SLUICE_ANSWER_MAX + 1], body[SLUICE_ANSWER_MAX + 1];
	struct sluice_answer_bytes answer;
	size_t size;

	(void)state;
	render_home("https://shop2.example", "", &custom, text);
	assert_non_null(strstr(text, "\r\n\r\n<p>You are at the wrong counter.</p>"));
	/* What fits without an address need not fit with one. */
	memset(body, 'x', sizeof(body));
	body[780] = '\0';
	custom = own("text/plain", body);
	assert_int_equal(answer_render_custom(SLUICE_ANSWER_WRONG_NODE, "", &custom, &answer, &size), 0);
	assert_int_equal(answer_render_home("https://shop2.example", "", &custom, &answer, &size), -EMSGSIZE);
	assert_in_range(size, SLUICE_ANSWER_MAX + 1, SLUICE_ANSWER_MAX + 200);
}

static void the_address_is_the_gates_alone(void **state)
{
	static const char *const bad[] = {"", "https://shop2.example\r\nX: y", "https://shop 2.example"};
	struct answer_custom custom = own("text/plain", "");
	struct sluice_answer_bytes answer;
	const char *field;
	char error[256];
	size_t size;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(answer_render_home(bad[i], "", NULL, &answer, &size), -EINVAL);
	custom.headers = 1;
	custom.header[0].name = "Location";
	custom.header[0].value = "https://evil.example/";
	assert_non_null(answer_check(SLUICE_ANSWER_WRONG_NODE, &custom, &field, error, sizeof(error)));
	assert_string_equal(field, "headers");
}

static void origins_are_as_browsers_send_them(void **state)
{
	static const char *const good[] = {"", "*", "https://shop.example", "http://localhost:3000",
		"http://[2001:db8::1]:8443", "http://192.0.2.1", "app-1+x.y://host_1"};
	static const char *const bad[] = {"null", "shop.example", "https://", "https://shop.example/",
		"https://shop.example/x", "HTTPS://shop.example", "https://Shop.example",
		"https://shop.example:", "https://shop.example:x", "https://shop.example:123456", "https://a b",
		"https://a\r\nX: y", "://a", "https://[::1", "https://[]", "https://user@shop.example",
		"https://a,https://b", "1http://a", "https://a.example?x", "**"};
	char longest[ANSWER_ORIGIN_SIZE + 8] = "https://";

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_true(answer_origin_is_valid(good[i]));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(answer_origin_is_valid(bad[i]));
	memset(longest + 8, 'a', ANSWER_ORIGIN_SIZE - 9);
	assert_true(answer_origin_is_valid(longest));
	longest[ANSWER_ORIGIN_SIZE - 1] = 'a';
	assert_false(answer_origin_is_valid(longest));
}

static void codes_are_found_by_name(void **state)
{
	(void)state;
	assert_int_equal(answer_of_code("sold_out"), SLUICE_ANSWER_SOLD_OUT);
	assert_int_equal(answer_of_code("none"), SLUICE_ANSWER_NONE);
	assert_int_equal(answer_of_code(""), SLUICE_ANSWER_NONE);
	assert_int_equal(answer_of_code("SOLD_OUT"), SLUICE_ANSWER_NONE);
	for (unsigned code = 1; code < SLUICE_ANSWER_COUNT; code++) {
		assert_int_equal(answer_of_code(answer_code(code)), code);
		assert_int_equal(answer_has_retry((enum sluice_answer)code), texts[code].retry);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_answer_is_a_whole_http_response),
		cmocka_unit_test(lengths_are_even_and_sums_are_right),
		cmocka_unit_test(every_length_of_origin_keeps_the_promises),
		cmocka_unit_test(the_digits_of_retry_after_are_whole_words),
		cmocka_unit_test(filling_changes_the_four_digits_and_nothing_else),
		cmocka_unit_test(the_short_form_is_a_whole_response_too),
		cmocka_unit_test(default_answers_are_short),
		cmocka_unit_test(what_cannot_be_an_answer_is_refused),
		cmocka_unit_test(reasons_and_answers_have_their_names),
		cmocka_unit_test(an_own_body_is_sent_byte_for_byte),
		cmocka_unit_test(no_custom_is_the_default),
		cmocka_unit_test(what_could_break_an_answer_is_refused),
		cmocka_unit_test(what_is_good_is_taken),
		cmocka_unit_test(a_home_of_every_length_of_url_is_a_whole_answer),
		cmocka_unit_test(the_operators_answer_gets_the_address_too),
		cmocka_unit_test(the_address_is_the_gates_alone),
		cmocka_unit_test(origins_are_as_browsers_send_them),
		cmocka_unit_test(codes_are_found_by_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
