/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The protocol between daemon and order writer on a Unix stream socket (same machine, same byte order).
 *
 * The daemon speaks, the writer answers each message once, in order, with the same `id`. Frames are a fixed header and a body of
 * `length` bytes. The hot path (ADMIT) is binary; everything else has a JSON object as body. A frame that is malformed
 * ends the connection: a reader that has lost its place must not guess.
 *
 * Who may open the socket is a matter of its file mode; the writer serves one daemon at a time (a new connection replaces the
 * old one with its first byte, so that a daemon that was killed and restarted is not locked out by its own ghost).
 */
#ifndef SLUICE_COMMON_WIRE_H
#define SLUICE_COMMON_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "sluice/abi.h"

#define WIRE_MAGIC 0x57434c53 /* "SLCW" */
#define WIRE_VERSION 2
#define WIRE_BATCH_MAX 4096      /* records in one ADMIT */
#define WIRE_BODY_MAX (4u << 20) /* bytes */

enum wire_type {
	WIRE_HELLO = 1, /* {"version":2,"node":1} -> {"version":2,"ledger":"…","store":"sqlite","schema":2} */
	WIRE_ADMIT = 2, /* struct wire_admit[n] -> struct wire_ack[n], all durable */
	WIRE_QUERY = 3, /* JSON, see docs/writer-protocol.md -> JSON */
	WIRE_ERROR =
		255 /* answer only: {"code":"conflict","detail":"…"}; what it says of the request: "Failures" there */
};

struct wire_header {
	uint32_t magic;
	uint16_t version;
	uint16_t type; /* enum wire_type; an answer has the type of its question, or WIRE_ERROR */
	uint64_t id;
	uint32_t length; /* of the body */
	uint32_t reserved;
};

struct wire_admit {
	uint64_t serial;
	uint64_t buyer;
	struct sluice_addr source;
	uint64_t admitted_wall_ns;
	uint32_t sale;
	uint32_t network;
	uint32_t quantity;
	uint32_t hold_seconds;
};

enum wire_ack_status {
	WIRE_ACK_STORED = 1,
	WIRE_ACK_KNOWN = 2 /* stored by an earlier delivery */,
	WIRE_ACK_REFUSED = 3 /* would break the ledger's own guard: an alarm */
};

/* What has become of an order. Its units count while it is held or confirmed. */
enum wire_order_state {
	WIRE_ORDER_HELD = 1,
	WIRE_ORDER_CONFIRMED = 2,
	WIRE_ORDER_CANCELLED = 3,
	WIRE_ORDER_EXPIRED = 4,
	WIRE_ORDER_REFUNDED = 5
};

struct wire_ack {
	uint64_t serial;
	uint64_t seq; /* gapless per sale, 1.. */
	uint64_t committed_wall_ns;
	uint32_t status;      /* enum wire_ack_status */
	uint32_t order_state; /* enum wire_order_state, as the ledger has it now; 0 if refused */
};
_Static_assert(sizeof(struct wire_header) == 24, "wire");
_Static_assert(sizeof(struct wire_admit) == 56, "wire");
_Static_assert(sizeof(struct wire_ack) == 32, "wire");

/* Sends header and body whole, on a blocking or non-blocking socket (polls). Returns 0 or negative errno; -ETIMEDOUT after timeout_ms
 * without progress. SIGPIPE is not raised.
 */
int wire_send(int fd, enum wire_type type, uint64_t id, const void *body, uint32_t length, int timeout_ms);
/* Reads one frame into *body (grown with realloc as needed; the caller frees). Returns 0, -ENOTCONN at a clean end, -EPROTO for a malformed
 * header, -ETIMEDOUT, or negative errno. After an error in either direction the place in the stream is lost: close the socket.
 * timeout_ms -1 waits for ever.
 */
int wire_receive(int fd, struct wire_header *header, void **body, size_t *capacity, int timeout_ms);
/* Returns 0, or -EPROTO for a header that is not of this protocol (magic, version, reserved, length): end the connection. */
int wire_header_check(const struct wire_header *header);
/* Connects / listens on a Unix socket path. `mode` is applied to the socket file. A stale socket file is replaced, a live one is -EADDRINUSE.
 * Each returns the fd (close-on-exec, blocking) or negative errno; -EINVAL also if there is no such group, -EEXIST if something that is
 * not a socket is in the way.
 */
int wire_connect(const char *path);
int wire_listen(const char *path, unsigned mode, const char *group);

#endif
