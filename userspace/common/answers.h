/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The complete HTTP answers of the gate, rendered once and kept in map "answers"; the daemon sends the same bytes. */
#ifndef SLUICE_COMMON_ANSWERS_H
#define SLUICE_COMMON_ANSWERS_H

#include <stdbool.h>
#include <stddef.h>

#include "sluice/abi.h"

#define ANSWER_TYPE_DEFAULT "application/problem+json"
#define ANSWER_TYPE_MAX 100
#define ANSWER_HEADERS_MAX 8
#define ANSWER_ORIGIN_SIZE 128

/* What an operator has put in the place of a default answer. The texts are the caller's. */
struct answer_custom {
	const char *body; /* UTF-8; may be "" */
	const char *content_type;
	unsigned headers;
	struct {
		const char *name, *value;
	} header[ANSWER_HEADERS_MAX];
};

/* Renders the default answer of `code`: status line, Content-Type application/problem+json, Content-Length, Connection: close,
 * Cache-Control: no-store, [Retry-After: 0000], [Access-Control-Allow-Origin], body. Even length (the body is padded with
 * a space), digits of Retry-After on an even offset. Kept short: on a driver that cannot grow a frame at the tail, what fits
 * is the request's length plus some 200 bytes of head room. `cors_origin` "" = none. Returns 0, -EINVAL, -EMSGSIZE.
 */
int answer_render(enum sluice_answer code, const char *cors_origin, struct sluice_answer_bytes *out);
/* The same with the operator's type, headers and body, which stands there byte for byte; status line and the headers above are the gate's.
 * NULL = the default. *size is what it takes, also if that is too much. Returns 0, -EINVAL (answer_check says why), -EMSGSIZE.
 */
int answer_render_custom(enum sluice_answer code, const char *cors_origin, const struct answer_custom *custom,
	struct sluice_answer_bytes *out, size_t *size);
/* The answer wrong_node to a token whose home has this URL ("https://shop1.example"): as answer_render_custom makes it, with
 * "Location: URL/v1/orders/" and room for the token (out->token_at), which is zeros until it is filled in. Where a page of another origin may read the answer, it may
 * read Location too. Returns 0, -EINVAL, -EMSGSIZE.
 */
int answer_render_home(const char *url, const char *cors_origin, const struct answer_custom *custom,
	struct sluice_answer_bytes *out, size_t *size);
/* Whether these may be an answer of `code`: a type and headers that cannot break out of their lines or contradict the gate's own, a body
 * that is what its type says (JSON parses; a member `code` or `status` of a problem document is this answer's). Returns NULL, or
 * what is wrong, in `error`, and in *field which part of it: "body", "content_type", "headers".
 */
const char *answer_check(enum sluice_answer code, const struct answer_custom *custom, const char **field, char *error,
	size_t error_size);
/* "", "*", or an origin as browsers send it (RFC 6454 section 6.1): scheme, host, perhaps a port; no path, no upper case. */
bool answer_origin_is_valid(const char *origin);
/* The answer of that code ("sold_out"), or SLUICE_ANSWER_NONE. */
enum sluice_answer answer_of_code(const char *code);
bool answer_has_retry(enum sluice_answer code);
/* Renders all and writes them into bank 0 of the map. Returns 0 or negative errno. */
int answers_write_defaults(int answers_fd, const char *cors_origin);
/* Copies the answer in use with its Retry-After filled in. Returns its length. `out` holds SLUICE_ANSWER_MAX. */
size_t answer_fill(const struct sluice_answer_bytes *answer, unsigned retry_after_s, char *out);
/* The same for an answer wrong_node: `token` (SLUICE_TOKEN_TEXT characters) goes into its Location, if it has one. */
size_t answer_fill_home(const struct sluice_answer_bytes *answer, const char *token, char *out);

#endif
