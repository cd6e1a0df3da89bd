/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate under test: loaded into a network namespace of its own, with a listener, a sale and a key, and run one frame at a
 * time by BPF_PROG_TEST_RUN. Nothing is pinned or attached, so nothing can be left behind.
 */
#ifndef SLUICE_TEST_GATE_H
#define SLUICE_TEST_GATE_H

#include "frames.h"
#include "sluice/abi.h"
#include "sluice/token.h"

#define GATE_PORT 8080      /* service 0, kind sale, any address; a listener on [::] */
#define GATE_TCP_PORT 8081  /* service 1, kind tcp; a listener */
#define GATE_DEAD_PORT 8082 /* service 2, kind sale; nobody listens */
#define GATE_SERVICES 4     /* counters of so many services are watched; a test may add service 3 */
#define GATE_SALE 7

struct gate_bpf;

struct gate {
	struct gate_bpf *skel;
	struct sluice_control *control;
	struct sluice_sale *sales;
	struct sluice_stock *stock;
	struct sluice_key *keys;
	struct sluice_rate_set *rates;
	unsigned rate_sets;
	__u64 *recent;
	int prog, door;
	int listeners[2];
	uint32_t homes;   /* bit n: node n has an address */
	bool syn_limited; /* the SYN budget may have been written to */
};

/* Sizes of maps for a test; 0 = a small default. */
struct gate_sizes {
	unsigned admissions, buyers, ring_bytes, rate_sets /* a power of two */, lists;
};

/* Enters a new network namespace, loads and fills everything: sale GATE_SALE open with 10 units, per_buyer 1, limits off,
 * daemon alive for hours, orders open. Exits the process with a sentence on failure (a test without its gate is no test).
 */
void gate_open(struct gate *gate, const struct gate_sizes *sizes);
void gate_close(struct gate *gate);
/* Another service; `address` "" = any. */
void gate_add_service(struct gate *gate, unsigned index, const char *address, unsigned port, unsigned kind);
/* Puts back what gate_open filled in and empties every hash, the SYN budget and the ring. Services, lists and counters stay. */
void gate_reset(struct gate *gate);
/* Heartbeat and offset as the daemon writes them. */
void gate_alive(struct gate *gate);
/* One request per `interval_ns`, `burst` of them at once; interval 0 = off. */
void gate_limit(struct gate *gate, enum sluice_limit_id id, uint64_t interval_ns, unsigned burst);

/* Node `node` (1..31) has this address: map "homes", first bank. Until the next gate_reset. */
void gate_home(struct gate *gate, unsigned node, const char *url);
/* What the answer to that node's `token` must be, with its place in the map. Returns the length. `out` holds SLUICE_ANSWER_MAX. */
unsigned gate_home_answer(struct gate *gate, unsigned node, const char *token, char *out);

struct run {
	int action; /* XDP_* */
	unsigned length;
	uint8_t bytes[FRAME_MAX];
	bool untouched;       /* the frame came out byte for byte as it went in */
	struct parsed parsed; /* of `bytes` if action is XDP_TX */
	int reason;           /* whose counter went up by exactly one; -1 if none or several did */
	int service;          /* its row */
};

/* Runs one frame. */
void gate_run(struct gate *gate, const uint8_t *bytes, unsigned length, struct run *run);
void gate_run_frame(struct gate *gate, const struct frame *frame, struct run *run);
/* The same without looking at counters (reason is -1): quick, and threads may do it at once. */
void gate_run_raw(struct gate *gate, const uint8_t *bytes, unsigned length, struct run *run);
/* Packets counted since the gate was loaded, under all services: of one reason, and of all. */
uint64_t gate_counted(struct gate *gate, int reason);
uint64_t gate_counted_all(struct gate *gate);
/* Verdicts of the call door since the gate was loaded. */
uint64_t gate_called(struct gate *gate, int reason);
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

/* Takes what is on the ring, as the daemon would; keeps the first `max` records. Returns how many there were. */
unsigned gate_ring_drain(struct gate *gate, struct sluice_admitted *out, unsigned max);
/* As if the first segment of the frame's connection had been answered, or had gone up, `age_ns` ago. Returns false, and changes nothing, if the
 * slot is another connection's.
 */
bool gate_note(struct gate *gate, const struct frame *frame, bool answered, uint64_t age_ns);
/* Buckets that map "rates" holds, and the one of a key, NULL if there is none. */
unsigned gate_rates_kept(struct gate *gate);
struct sluice_rate *gate_rate_of(struct gate *gate, const struct sluice_rate_key *key);
/* Entries of a hash map, by iterating. */
unsigned gate_map_count(int fd, unsigned key_size);
/* put in = free + admitted, buyers' units = admitted units, no claim left half-done. Prints what differs; returns true if whole. */
bool gate_is_conserved(struct gate *gate, unsigned put_in);

#endif
