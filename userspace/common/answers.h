/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The complete HTTP answers of the gate, rendered once and kept in map "answers"; the daemon sends the same bytes. */
#ifndef SLUICE_COMMON_ANSWERS_H
#define SLUICE_COMMON_ANSWERS_H

#include <stddef.h>

#include "sluice/abi.h"

/* Renders the default answer of `code`: status line, Content-Type application/problem+json, Content-Length, Connection: close,
 * Cache-Control: no-store, [Retry-After: 0000], [Access-Control-Allow-Origin], body. Even length (the body is padded with
 * a space), digits of Retry-After on an even offset. Kept short: on a driver that cannot grow a frame at the tail, what fits
 * is the request's length plus some 200 bytes of head room. `cors_origin` "" = none. Returns 0, -EINVAL, -EMSGSIZE.
 */
int answer_render(enum sluice_answer code, const char *cors_origin, struct sluice_answer_bytes *out);
/* Renders all and writes them into bank 0 of the map. Returns 0 or negative errno. */
int answers_write_defaults(int answers_fd, const char *cors_origin);
/* Copies the answer in use with its Retry-After filled in. Returns its length. `out` holds SLUICE_ANSWER_MAX. */
size_t answer_fill(const struct sluice_answer_bytes *answer, unsigned retry_after_s, char *out);

#endif
