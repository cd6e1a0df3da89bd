/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The daemon's end of the connection to the order writer: frames in, frames out, never blocking.
 *
 * Only the pipeline's thread uses it. Both directions are buffered here because neither side may wait for the other to read: a
 * batch on its way out and a long answer on its way in could otherwise stop each other.
 */
#ifndef SLUICE_DAEMON_WRITER_LINK_H
#define SLUICE_DAEMON_WRITER_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire.h"

struct link_buffer {
	char *bytes;
	size_t start, end, capacity; /* start..end is what is still to be sent or read */
};

struct writer_link {
	int fd; /* -1: not connected */
	uint64_t next_id;
	struct link_buffer out, in;
};

void writer_link_init(struct writer_link *link);
/* Returns 0 or negative errno; -EAGAIN: the writer is there and does not take connections. Never waits. */
int writer_link_open(struct writer_link *link, const char *path);
void writer_link_close(struct writer_link *link); /* keeps the buffers' memory; writer_link_free gives it back */
void writer_link_free(struct writer_link *link);

/* Queues one frame and starts to send. *id is its number. Returns 0 or negative errno (the link is broken then). */
int writer_link_send(struct writer_link *link, enum wire_type type, const void *body, uint32_t length, uint64_t *id);
/* Sends what the socket takes. Returns 0 or negative errno. */
int writer_link_flush(struct writer_link *link);
bool writer_link_wants_write(const struct writer_link *link);

/* Reads what has arrived. Returns 0, -ENOTCONN when the writer has hung up, or negative errno. */
int writer_link_fill(struct writer_link *link);
/* The next whole frame: 1, 0 (none yet) or -EPROTO. *body stays valid until the next fill; it is not aligned. */
int writer_link_next(struct writer_link *link, struct wire_header *header, const void **body);

#endif
