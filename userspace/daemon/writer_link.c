/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Non-blocking frames of wire.h over the writer's Unix socket. Called by pipeline.c and recovery.c, on one thread.
 *
 * Promises: a frame is given out only when all of it is there, in the order of arrival; a header that is not ours ends the
 * connection with -EPROTO, because a reader that lost its place must not guess.
 */
#include "daemon/writer_link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define READ_CHUNK 65536

void writer_link_init(struct writer_link *link)
{
	memset(link, 0, sizeof(*link));
	link->fd = -1;
}

/* Not wire_connect: a writer that hangs, and whose queue of connections is full, would keep a blocking connect waiting for ever. */
int writer_link_open(struct writer_link *link, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address))) {
		int err = -errno;

		close(fd);
		return err;
	}
	link->fd = fd;
	return 0;
}

void writer_link_close(struct writer_link *link)
{
	if (link->fd >= 0)
		close(link->fd);
	link->fd = -1;
	link->out.start = link->out.end = 0;
	link->in.start = link->in.end = 0;
}

void writer_link_free(struct writer_link *link)
{
	writer_link_close(link);
	free(link->out.bytes);
	free(link->in.bytes);
	writer_link_init(link);
}

/* Makes room for `more` bytes behind `end`. */
static int buffer_reserve(struct link_buffer *buffer, size_t more)
{
	size_t used = buffer->end - buffer->start, capacity = buffer->capacity ? buffer->capacity : READ_CHUNK;
	char *bytes;

	if (buffer->start && (buffer->start == buffer->end || buffer->end + more > buffer->capacity)) {
		if (used)
			memmove(buffer->bytes, buffer->bytes + buffer->start, used);
		buffer->start = 0;
		buffer->end = used;
	}
	if (buffer->end + more <= buffer->capacity)
		return 0;
	while (capacity < buffer->end + more)
		capacity *= 2;
	bytes = realloc(buffer->bytes, capacity);
	if (!bytes)
		return -ENOMEM;
	buffer->bytes = bytes;
	buffer->capacity = capacity;
	return 0;
}

static void buffer_append(struct link_buffer *buffer, const void *bytes, size_t count)
{
	if (count)
		memcpy(buffer->bytes + buffer->end, bytes, count);
	buffer->end += count;
}

int writer_link_send(struct writer_link *link, enum wire_type type, const void *body, uint32_t length, uint64_t *id)
{
	struct wire_header header = {
		.magic = WIRE_MAGIC,
		.version = WIRE_VERSION,
		.type = (uint16_t)type,
		.id = ++link->next_id,
		.length = length,
	};

	if (link->fd < 0)
		return -ENOTCONN;
	if (length > WIRE_BODY_MAX)
		return -EMSGSIZE;
	if (buffer_reserve(&link->out, sizeof(header) + length) < 0)
		return -ENOMEM;
	buffer_append(&link->out, &header, sizeof(header));
	buffer_append(&link->out, body, length);
	*id = header.id;
	return writer_link_flush(link);
}

int writer_link_flush(struct writer_link *link)
{
	while (link->out.start < link->out.end) {
		ssize_t n = send(link->fd, link->out.bytes + link->out.start, link->out.end - link->out.start,
			MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		link->out.start += (size_t)n;
	}
	link->out.start = link->out.end = 0;
	return 0;
}

bool writer_link_wants_write(const struct writer_link *link)
{
	return link->out.start < link->out.end;
}

int writer_link_fill(struct writer_link *link)
{
	/* One frame may be as long as WIRE_BODY_MAX; more than one such is left in the socket until it has been worked on. */
	while (link->in.end - link->in.start <= sizeof(struct wire_header) + WIRE_BODY_MAX) {
		ssize_t n;

		if (buffer_reserve(&link->in, READ_CHUNK) < 0)
			return -ENOMEM;
		n = recv(link->fd, link->in.bytes + link->in.end, link->in.capacity - link->in.end, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		if (n == 0)
			return -ENOTCONN;
		link->in.end += (size_t)n;
	}
	return 0;
}

int writer_link_next(struct writer_link *link, struct wire_header *header, const void **body)
{
	size_t available = link->in.end - link->in.start;

	if (available < sizeof(*header))
		return 0;
	memcpy(header, link->in.bytes + link->in.start, sizeof(*header));
	if (header->magic != WIRE_MAGIC || header->version != WIRE_VERSION || header->length > WIRE_BODY_MAX)
		return -EPROTO;
	if (available < sizeof(*header) + header->length)
		return 0;
	*body = link->in.bytes + link->in.start + sizeof(*header);
	link->in.start += sizeof(*header) + header->length;
	return 1;
}
