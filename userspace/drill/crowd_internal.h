/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What buyers.c, bots.c and crowd.c share; nobody else includes it. */
#ifndef SLUICE_DRILL_CROWD_INTERNAL_H
#define SLUICE_DRILL_CROWD_INTERNAL_H

#include "drill/crowd.h"

#define NS_PER_MS 1000000ULL
#define NS_PER_S 1000000000ULL

struct drill_buyer {
	char token[SLUICE_TOKEN_TEXT + 1]; /* "" = none yet */
	uint8_t in_flight;                 /* order requests */
	uint8_t flags;                     /* BUYER_* */
	uint16_t tries;
};

struct drill_crowd {
	const struct drill_plan *plan;
	struct drill_record *record;
	struct drill_engine *engine;
	uint64_t random;
	uint64_t begins_ns, opens_ns, ends_ns; /* CLOCK_MONOTONIC */
	struct drill_buyer *buyers;
	uint32_t buyers_done;
	uint32_t second_seen; /* where in record->seen the second tokens of buyers begin */
	uint32_t *winners;    /* buyers who were shown their order; for bots that repeat their tokens */
	uint32_t winner_count;
	uint32_t bots_left; /* attempts that are not over */
	struct drill_bot_line {
		enum drill_bot_kind kind;
		uint32_t count, next;
		uint64_t from_ns, to_ns;
	} line[DRILL_BOT_KIND_COUNT];
	int spoof_fd;
	uint32_t spoofed_due;
	uint64_t spoof_from_ns, spoof_to_ns;
	int stop;
	/* for the progress line */
	uint64_t answers, second_answers, second_start_ns;
	bool tty, shown;
};

/* SplitMix64 (Vigna, public domain): one word of state, so a run can be repeated from its seed. */
uint64_t drill_random(struct drill_crowd *crowd);
/* 0 .. below - 1; `below` > 0. */
uint32_t drill_random_below(struct drill_crowd *crowd, uint32_t below);
/* Fills the target and source of the exchange for somebody who lives there; *source holds the address. */
void drill_crowd_route(const struct drill_crowd *crowd, enum drill_place place, uint32_t n, bool ipv6,
	union drill_address *source, struct drill_exchange *exchange);
bool drill_crowd_ipv6(const struct drill_crowd *crowd, uint32_t n);
/* Writes an order request into `out` (DRILL_REQUEST_MAX). Returns its length. */
size_t drill_order_request(const struct drill_crowd *crowd, const char *agent, const char *token, char *out);
/* Takes `code` and the order's `id` (0 if there is none) out of an answer's body. `code` holds DRILL_CODE_MAX. */
void drill_read_body(const struct drill_result *result, char *code, uint64_t *id);
/* Tells what happened to one order request of token `index` of the record, and counts it. Returns the answer. */
enum drill_answer drill_crowd_note(
	struct drill_crowd *crowd, uint32_t index, const struct drill_result *result, struct drill_tally *tally);
const char *drill_outcome_name(enum drill_outcome outcome);
/* When somebody who was told to wait comes again. */
uint64_t drill_crowd_patience(struct drill_crowd *crowd, const struct drill_result *result);
/* The serial that stands in a token, 0 if it cannot be read. */
uint64_t drill_token_serial(const char *text);
void drill_seen_token(struct drill_seen *seen, const char *token);

void drill_buyers_start(struct drill_crowd *crowd);
void drill_bots_start(struct drill_crowd *crowd, const uint32_t count[DRILL_BOT_KIND_COUNT]);

#endif
