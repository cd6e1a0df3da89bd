/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate under test: loaded into a network namespace of its own, with a listener, a sale and a key, and run one frame at a
 * time by BPF_PROG_TEST_RUN. Nothing is pinned or attached, so nothing can be left behind.
 */
#ifndef SLUICE_TEST_GATE_H
#define SLUICE_TEST_GATE_H

#include "frames.h"
#include "sluice/abi.h"
#include "sluice/token.h"

#define GATE_PORT 8080     /* service 0, kind sale, any address; a listener on [::] */
#define GATE_TCP_PORT 8081 /* service 1, kind tcp; a listener */
#define GATE_DEAD_PORT 8082 /* service 2, kind sale; nobody listens */
#define GATE_SALE 7

struct gate_bpf;

struct gate {
	struct gate_bpf *skel;
	struct sluice_control *control;
	struct sluice_sale *sales;
	struct sluice_stock *stock;
	struct sluice_key *keys;
	int prog, door;
	int listeners[2];
};

/* Sizes of maps for a test; 0 = a small default. */
struct gate_sizes {
	unsigned admissions, buyers, ring_bytes, rates, lists;
};

/* Enters a new network namespace, loads and fills everything: sale GATE_SALE open with 10 units, per_buyer 1, limits off,
 * heartbeat now, orders open. Exits the process with a sentence on failure (a test without its gate is no test).
 */
void gate_open(struct gate *gate, const struct gate_sizes *sizes);
void gate_close(struct gate *gate);
/* Heartbeat and offset as the daemon writes them. */
void gate_alive(struct gate *gate);

struct run {
	int action; /* XDP_* */
	unsigned length;
	uint8_t bytes[FRAME_MAX];
	struct parsed parsed; /* of `bytes` if action is XDP_TX */
	int reason; /* whose counter went up by exactly one; -1 if none or several did */
	int service; /* its row */
};

/* Runs one frame. */
void gate_run(struct gate *gate, const uint8_t *bytes, unsigned length, struct run *run);
void gate_run_frame(struct gate *gate, const struct frame *frame, struct run *run);
/* SYN, reads the cookie out of the SYN-ACK: `frame` becomes the first data segment (seq, ack, flags set) with `payload`. Returns 0, or -1
 * if there was no SYN-ACK.
 */
int gate_handshake(struct gate *gate, struct frame *frame, const void *payload, unsigned length);
/* The call door. */
void gate_call(struct gate *gate, struct sluice_call *call);

/* A good token of GATE_SALE: quantity 1, valid for an hour, signed with key 1. */
struct sluice_token gate_token(uint64_t serial, uint64_t buyer);
/* Signs and encodes; `text` holds SLUICE_TOKEN_TEXT + 1. */
void gate_token_text(struct gate *gate, struct sluice_token *token, char *text);
/* "POST /v1/orders/<token> HTTP/1.1\r\nHost: …". Returns the length. */
unsigned gate_order_request(const char *token, char *out, unsigned size);
/* Handshake and order in one: the run of the order's segment. */
void gate_order(struct gate *gate, bool ip6, uint16_t sport, const char *token, struct run *run);

/* Entries of a hash map, by iterating. */
unsigned gate_map_count(int fd, unsigned key_size);
/* put in = free + admitted, buyers' units = admitted units, no claim left half-done. Prints what differs; returns true if whole. */
bool gate_is_conserved(struct gate *gate, unsigned put_in);

#endif
