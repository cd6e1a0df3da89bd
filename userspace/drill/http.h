/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Reading an HTTP/1.1 answer out of a byte buffer, as far as the drill needs it: status, length, Retry-After. */
#ifndef SLUICE_DRILL_HTTP_H
#define SLUICE_DRILL_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct drill_http {
	int status; /* 200..999 */
	bool has_retry_after;
	uint32_t retry_after_s; /* capped at a day */
	size_t head_length;     /* bytes up to and with the empty line */
	size_t body_length;
};

/* Looks at what has arrived so far; `closed` tells that no more will come. Never reads beyond `length`, changes nothing.
 * Returns 1 if the answer is complete, 0 if bytes are missing, -EPROTO if this is not an answer that RFC 9112 allows
 * (or one with Transfer-Encoding, which neither gate nor daemon uses), or was cut off; -EMSGSIZE if its head is longer
 * than 8 KiB or its body longer than 64 MiB.
 */
int drill_http_parse(const char *bytes, size_t length, bool closed, struct drill_http *answer);

#endif
