/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Renders the gate's HTTP answers. Called by the loader at attach and by the daemon when an operator replaces one.
 *
 * Promises for each answer: a valid HTTP/1.1 response, even length, digits of Retry-After and the token in Location on even offsets (so that
 * patching them changes whole 16-bit words of the checksum), and the ones' complement sum of the bytes. Evenness comes from an optional
 * space where HTTP allows white space (RFC 9110 section 5.6.3) and JSON does (RFC 8259 section 2).
 * The problem documents carry no "type": absent means "about:blank" (RFC 9457 section 3.1.1), and on a frame that cannot
 * grow each byte counts.
 */
#include "common/answers.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define RETRY_DIGITS 4
#define ROOM_FOR_COUNTING 8192 /* more than all headers that answer_check lets through */
#define LENGTH_FORMAT "Content-Length: %zu\r\n\r\n"

static const struct {
	const char *code;
	const char *title;
	const char *detail;
	int status;
	bool retry;
} texts[SLUICE_ANSWER_COUNT] = {
#define X(name, code_, status_, title_, retry_, detail_) \
	[SLUICE_ANSWER_##name] = { \
		.code = code_, .title = title_, .detail = detail_, .status = status_, .retry = retry_},
	SLUICE_ANSWERS(X)
#undef X
};

/* A text that grows in a buffer of fixed size; `full` stays set once something did not fit. */
struct text {
	char *at;
	size_t used;
	size_t size;
	bool full;
};

static __attribute__((format(printf, 2, 3))) void text_add(struct text *text, const char *format, ...)
{
	size_t room = text->size - text->used;
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text->at + text->used, room, format, args);
	va_end(args);
	if (n < 0 || (size_t)n >= room)
		text->full = true;
	else
		text->used += (size_t)n;
}

/* RFC 1071, without the final inversion: bytes as big-endian 16-bit words. `count` is even. */
static __u32 ones_sum(const __u8 *bytes, size_t count)
{
	__u32 sum = 0;

	for (size_t i = 0; i + 1 < count; i += 2)
		sum += (__u32)bytes[i] << 8 | bytes[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* What may stand in a header value unescaped: visible ASCII. An origin has no blanks (RFC 6454 section 6.1). */
static bool is_header_token(const char *text)
{
	for (; *text; text++)
		if (*text <= ' ' || *text > '~')
			return false;
	return true;
}

/* What an answer consists of. */
struct content {
	enum sluice_answer code;
	const char *cors_origin;            /* "" = none */
	const char *home;                   /* URL of the node to go to; NULL = none */
	const struct answer_custom *custom; /* NULL = the default */
};

/* Evenness here, too, comes from a second blank. The token's place is counted as zeros. */
static void render_location(const char *home, struct text *head, struct sluice_answer_bytes *out)
{
	static const char name[] = "Location:", path[] = "/v1/orders/";
	bool odd = (head->used + strlen(name) + strlen(" ") + strlen(home) + strlen(path)) % 2;

	text_add(head, "%s%s%s%s", name, odd ? "  " : " ", home, path);
	out->token_at = (__u16)head->used;
	text_add(head, "%*s\r\n", SLUICE_TOKEN_TEXT, "");
}

/* Status line and the headers that are the gate's in every answer. */
static void render_head(
	const struct content *content, const char *content_type, struct text *head, struct sluice_answer_bytes *out)
{
	static const char retry_name[] = "Retry-After:";
	enum sluice_answer code = content->code;

	text_add(head, "HTTP/1.1 %d %s\r\n", texts[code].status, texts[code].title);
	if (texts[code].retry) {
		/* Where one blank would put the digits on an odd offset, two. */
		bool odd = (head->used + sizeof(retry_name) - 1) % 2 == 0;

		text_add(head, "%s%s", retry_name, odd ? "  " : " ");
		out->retry_at = (__u16)head->used;
		text_add(head, "%0*d\r\n", RETRY_DIGITS, 0);
	}
	if (content->home)
		render_location(content->home, head, out);
	text_add(head, "Content-Type: %s\r\n", content_type);
	text_add(head, "Connection: close\r\nCache-Control: no-store\r\n");
	if (*content->cors_origin)
		text_add(head, "Access-Control-Allow-Origin: %s\r\n", content->cors_origin);
	if (*content->cors_origin && content->home)
		text_add(head, "Access-Control-Expose-Headers: Location\r\n");
}

/* Returns the length of both, however long. */
static size_t put_together(const struct text *head, const struct text *body, struct sluice_answer_bytes *out)
{
	size_t size = head->used + body->used;

	if (head->full || body->full || size > SLUICE_ANSWER_MAX)
		return size;
	memcpy(out->bytes, head->at, head->used);
	memcpy(out->bytes + head->used, body->at, body->used);
	if (out->token_at)
		memset(out->bytes + out->token_at, 0, SLUICE_TOKEN_TEXT);
	out->len = (__u16)size;
	out->sum = ones_sum(out->bytes, out->len);
	return size;
}

/* Returns the length, however long; 0 if not even the parts fit. */
static size_t render_default(const struct content *content, struct sluice_answer_bytes *out)
{
	enum sluice_answer code = content->code;
	char body[SLUICE_ANSWER_MAX + 1] = "", head[SLUICE_ANSWER_MAX + 1] = "";
	struct text head_text = {.at = head, .size = sizeof(head)};
	struct text body_text = {.at = body, .size = sizeof(body)};

	text_add(&body_text, "{\"title\":\"%s\",\"status\":%d,\"code\":\"%s\",\"detail\":\"%s\"}", texts[code].title,
		texts[code].status, texts[code].code, texts[code].detail);
	render_head(content, ANSWER_TYPE_DEFAULT, &head_text, out);
	/* One blank makes it even; two where the first one takes Content-Length from 99 to 100. */
	while ((head_text.used + (size_t)snprintf(NULL, 0, LENGTH_FORMAT, body_text.used) + body_text.used) % 2)
		text_add(&body_text, " ");
	text_add(&head_text, LENGTH_FORMAT, body_text.used);
	return put_together(&head_text, &body_text, out);
}

/* Nothing of an operator's body is ours to change, so the blank that makes it even stands in the header. */
static size_t render_operators(const struct content *content, struct sluice_answer_bytes *out)
{
	const struct answer_custom *custom = content->custom;
	char head[ROOM_FOR_COUNTING] = "";
	struct text head_text = {.at = head, .size = sizeof(head)};
	size_t length = strlen(custom->body);
	struct text body_text = {.at = (char *)(uintptr_t)custom->body, .used = length, .size = length + 1};
	bool odd;

	render_head(content, custom->content_type, &head_text, out);
	for (unsigned i = 0; i < custom->headers; i++)
		text_add(&head_text, "%s: %s\r\n", custom->header[i].name, custom->header[i].value);
	odd = (head_text.used + (size_t)snprintf(NULL, 0, LENGTH_FORMAT, length) + length) % 2;
	text_add(&head_text, "Content-Length: %s%zu\r\n\r\n", odd ? " " : "", length);
	return put_together(&head_text, &body_text, out);
}

/* Location stands where it does in the whole answer, so that the token has one place. */
static bool render_short(const struct content *content, struct sluice_answer_bytes *out)
{
	char bytes[SLUICE_ANSWER_SHORT_MAX + 1] = "";
	struct text text = {.at = bytes, .size = sizeof(bytes)};

	text_add(&text, "HTTP/1.1 %d %s\r\n", texts[content->code].status, texts[content->code].title);
	if (content->home)
		render_location(content->home, &text, out);
	text_add(&text, "Content-Length: 0\r\nConnection: ");
	text_add(&text, "%sclose\r\n\r\n", (text.used + strlen("close\r\n\r\n")) % 2 ? " " : "");
	if (text.full)
		return false;
	memcpy(out->short_bytes, bytes, text.used);
	if (out->token_at)
		memset(out->short_bytes + out->token_at, 0, SLUICE_TOKEN_TEXT);
	out->short_len = (__u16)text.used;
	out->short_sum = ones_sum(out->short_bytes, out->short_len);
	return true;
}

static int render(const struct content *content, struct sluice_answer_bytes *out, size_t *size)
{
	enum sluice_answer code = content->code;
	const char *field;
	char error[256];

	*size = 0;
	if ((unsigned)code >= SLUICE_ANSWER_COUNT || code == SLUICE_ANSWER_NONE ||
		!is_header_token(content->cors_origin) ||
		(content->home && (!*content->home || !is_header_token(content->home))) ||
		(content->custom && answer_check(code, content->custom, &field, error, sizeof(error))))
		return -EINVAL;
	memset(out, 0, sizeof(*out));
	*size = content->custom ? render_operators(content, out) : render_default(content, out);
	return out->len && render_short(content, out) ? 0 : -EMSGSIZE;
}

int answer_render(enum sluice_answer code, const char *cors_origin, struct sluice_answer_bytes *out)
{
	size_t size;

	return render(&(struct content){.code = code, .cors_origin = cors_origin}, out, &size);
}

int answer_render_custom(enum sluice_answer code, const char *cors_origin, const struct answer_custom *custom,
	struct sluice_answer_bytes *out, size_t *size)
{
	return render(&(struct content){.code = code, .cors_origin = cors_origin, .custom = custom}, out, size);
}

int answer_render_home(const char *url, const char *cors_origin, const struct answer_custom *custom,
	struct sluice_answer_bytes *out, size_t *size)
{
	struct content content = {
		.code = SLUICE_ANSWER_WRONG_NODE, .cors_origin = cors_origin, .home = url, .custom = custom};

	return render(&content, out, size);
}

enum sluice_answer answer_of_code(const char *code)
{
	for (unsigned i = SLUICE_ANSWER_NONE + 1; i < SLUICE_ANSWER_COUNT; i++)
		if (!strcmp(texts[i].code, code))
			return (enum sluice_answer)i;
	return SLUICE_ANSWER_NONE;
}

bool answer_has_retry(enum sluice_answer code)
{
	return (unsigned)code < SLUICE_ANSWER_COUNT && texts[code].retry;
}

int answers_write_defaults(int answers_fd, const char *cors_origin)
{
	struct sluice_answer_bytes answer;

	for (__u32 code = SLUICE_ANSWER_NONE + 1; code < SLUICE_ANSWER_COUNT; code++) {
		int err = answer_render((enum sluice_answer)code, cors_origin, &answer);

		if (!err && bpf_map_update_elem(answers_fd, &code, &answer, BPF_ANY) < 0)
			err = -errno;
		if (err)
			return err;
	}
	return 0;
}

size_t answer_fill(const struct sluice_answer_bytes *answer, unsigned retry_after_s, char *out)
{
	char digits[RETRY_DIGITS + 1];

	memcpy(out, answer->bytes, answer->len);
	if (answer->retry_at) {
		if (retry_after_s > SLUICE_RETRY_MAX_S)
			retry_after_s = SLUICE_RETRY_MAX_S;
		snprintf(digits, sizeof(digits), "%0*u", RETRY_DIGITS, retry_after_s % 10000);
		memcpy(out + answer->retry_at, digits, RETRY_DIGITS);
	}
	return answer->len;
}

size_t answer_fill_home(const struct sluice_answer_bytes *answer, const char *token, char *out)
{
	size_t length = answer_fill(answer, 0, out);

	if (answer->token_at)
		memcpy(out + answer->token_at, token, SLUICE_TOKEN_TEXT);
	return length;
}
