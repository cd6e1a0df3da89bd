/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What happens in one run of the differential test: up to SEQUENCE_MAX steps, made from one seed.
 *
 * A step says what is to be done, not with which bytes: each has a seed of its own from which model_frames.c and model_scene.c draw the
 * rest. So a sequence stays meaningful when steps are taken out of it, and the smallest one that still shows a disagreement can be
 * found by leaving out what is not needed.
 */
#ifndef SLUICE_TEST_SEQUENCE_H
#define SLUICE_TEST_SEQUENCE_H

#include <stdbool.h>
#include <stdint.h>

#define SEQUENCE_MAX 400
#define SEQUENCE_FLOWS 40
#define SEQUENCE_TOKENS 96

/* X(NAME, what) */
#define SEQUENCE_STEPS(X) \
	/* segments of one of the flows */ \
	X(SYN, "SYN") \
	X(ACK, "last ACK of the handshake") \
	X(FIRST, "first data") \
	X(NEXT, "data behind the first") \
	X(FIN, "FIN") \
	X(SILENT_FIN, "FIN of a client that said nothing") \
	X(RST, "RST") \
	X(STRAY, "any flags and numbers") \
	X(SOCKET, "segment of a connection that the kernel has") \
	X(NOISE, "bytes without a plan") \
	/* the call door */ \
	X(CALL_ORDER, "call: order") \
	X(CALL_RATE, "call: rate") \
	X(CALL_ODD, "call: anything") \
	X(CALL_LATE, "call: an order is over, or is taken up again") \
	/* an order, or a SYN, at the very instant at which the verdict changes */ \
	X(EDGE, "order at an edge") \
	X(EDGE_SYN, "SYN at an edge") \
	/* the world */ \
	X(TIME, "time passes") \
	X(CLOCK, "the wall clock steps") \
	X(HEARTBEAT, "heartbeat") \
	X(LIMIT, "a limit") \
	X(SALE, "a sale") \
	X(STOCK, "stock") \
	X(PLENTY, "an open sale with plenty of stock") \
	X(CONTROL, "control words") \
	X(DURABLE, "an admission is durable") \
	X(KEY, "a key") \
	X(LIST, "a list entry") \
	X(ANSWER, "an answer") \
	X(DRAIN, "the ring is read") \
	X(FORGET, "an admission or a buyer is removed, or a claim is left") \
	X(UNMUTE, "mutes end") \
	X(COOKIES, "the kernel makes cookies, or none") \
	X(RATE_SETS, "size of the table of rates") \
	X(LOOK, "the gate only looks, or acts")

enum step_kind {
#define X(name, what) STEP_##name,
	SEQUENCE_STEPS(X)
#undef X
		STEP_COUNT
};

struct step {
	enum step_kind kind;
	unsigned flow;      /* 0..SEQUENCE_FLOWS - 1 */
	unsigned token;     /* 0..SEQUENCE_TOKENS - 1 */
	unsigned mutations; /* of the frame's bytes */
	uint64_t seed;
};

const char *step_name(enum step_kind kind);
/* What a sequence of this seed is mostly about. */
const char *sequence_about(uint64_t seed);
/* Makes a sequence. Returns its length, 1..SEQUENCE_MAX. */
unsigned sequence_make(uint64_t seed, struct step *steps);

/* --- chance --------------------------------------------------------------------------------------------------------------- */
struct dice {
	uint64_t state;
};

struct dice dice_of(uint64_t seed);
uint64_t dice_word(struct dice *dice);
/* 0..limit - 1 */
unsigned dice_below(struct dice *dice, unsigned limit);
/* One time in `n`. */
bool dice_once_in(struct dice *dice, unsigned n);

#endif
