/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Answers without a length. */
#ifndef SLUICE_DAEMON_HTTP_STREAM_H
#define SLUICE_DAEMON_HTTP_STREAM_H

#include "daemon/http.h"

#define HTTP_STREAM_TEXT 2048

/* First member of what the caller keeps for its stream. */
struct http_stream {
	/* Puts the next piece into `text`. May block for a second or so, but must then give something. Returns its length, 0 at the end,
	 * -1 to break off.
	 */
	int (*fill)(struct http_stream *stream);
	void (*end)(struct http_stream *stream); /* exactly once, whatever happened; frees */
	size_t at, length;
	char text[HTTP_STREAM_TEXT];
};

/* 200, and then what `fill` gives. Takes `stream` over. */
enum MHD_Result http_send_stream(struct http_request *request, const char *type, struct http_stream *stream);

#endif
