/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* An answer that goes on until one side ends it. Only for the control listeners: `read` may block the connection's own thread.
 *
 * A client that is gone is noticed because `read` gives something every second: over the Unix socket at once, over TCP when the kernel has had no
 * acknowledgement for STREAM_DEAD_MS.
 */
#include "daemon/http_stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/log.h"

#define STREAM_BLOCK 4096
#define STREAM_DEAD_MS 5000u

static ssize_t on_read(void *arg, uint64_t at, char *buffer, size_t size)
{
	struct http_stream *stream = arg;

	(void)at;
	if (stream->at == stream->length) {
		int got = stream->fill(stream);

		if (got <= 0)
			return got ? MHD_CONTENT_READER_END_WITH_ERROR : MHD_CONTENT_READER_END_OF_STREAM;
		stream->at = 0;
		stream->length = (size_t)got;
	}
	if (size > stream->length - stream->at)
		size = stream->length - stream->at;
	memcpy(buffer, stream->text + stream->at, size);
	stream->at += size;
	return (ssize_t)size;
}

static void on_end(void *arg)
{
	struct http_stream *stream = arg;

	stream->end(stream);
}

static void notice_death(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	unsigned dead_ms = STREAM_DEAD_MS;

	if (info && setsockopt(info->connect_fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead_ms, sizeof(dead_ms)) &&
		errno != EOPNOTSUPP && errno != ENOPROTOOPT) /* a Unix socket */
		log_debug("cannot bound how long a lost watcher is kept: %s", strerror(errno));
}

enum MHD_Result http_send_stream(struct http_request *request, const char *type, struct http_stream *stream)
{
	struct MHD_Response *response =
		MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, on_read, stream, on_end);

	if (!response) {
		stream->end(stream);
		return MHD_NO;
	}
	notice_death(request->connection);
	request->is_stream = true;
	if (MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type) == MHD_NO ||
		MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store") == MHD_NO ||
		MHD_add_response_header(response, "X-Content-Type-Options", "nosniff") == MHD_NO)
		log_debug("cannot add a header");
	return http_send(request, 200, response);
}
