/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the holders of one token saw, in the order in which they saw it. The drill judges the sale by this, not by what the server
 * says about itself. Plain bookkeeping over values, so the unit tests can tell it any story.
 */
#ifndef SLUICE_DRILL_SEEN_H
#define SLUICE_DRILL_SEEN_H

#include <stdbool.h>
#include <stdint.h>

#include "sluice/abi.h"

#define DRILL_CODE_MAX 32
#define DRILL_TALLY_MAX 64

/* Answers to an order request, as far as they differ for a buyer. */
enum drill_answer {
	DRILL_CREATED,  /* 201 */
	DRILL_REPEATED, /* 200: the same order again */
	DRILL_PENDING,  /* 202: the unit is yours, ask again */
	DRILL_SOLD_OUT,
	DRILL_HAS_ORDERED, /* already_ordered: the buyer's limit */
	DRILL_ENDED,
	DRILL_LATER,    /* sale_not_open, rate_limited, paused, unavailable: worth another try */
	DRILL_REJECTED, /* token_invalid and the like: final */
	DRILL_STRANGE   /* none of the documented ones */
};

struct drill_seen {
	uint64_t serial;                               /* of the token; its order's id */
	uint64_t order_id;                             /* of the first order seen */
	uint64_t first_yes_wall_ns, first_yes_mono_ns; /* 0 = none */
	uint32_t created, repeated, pending;
	uint32_t other_orders; /* yeses that named another order than the first */
	uint32_t taken_back;   /* sold_out, already_ordered or a rejection to a request that began after a yes */
	uint32_t rejected;
	bool sold_out; /* the last final word was "sold out", and there was no yes */
	bool answered; /* there was a final word */
};

struct drill_word {
	enum drill_answer answer;
	uint64_t order_id;        /* for CREATED and REPEATED */
	uint64_t started_mono_ns; /* when the request began */
	uint64_t ended_mono_ns, ended_wall_ns;
};

enum drill_answer drill_answer_of(int status, const char *code);
/* What the tally calls it: "created", "repeated", "pending", else the problem's code, else "http_NNN". `out` holds DRILL_CODE_MAX. */
const char *drill_answer_name(int status, const char *code, char *out);
bool drill_answer_is_final(enum drill_answer answer);

void drill_seen_note(struct drill_seen *seen, const struct drill_word *word);

/* Counts by name. */
struct drill_tally {
	struct {
		char name[DRILL_CODE_MAX];
		uint64_t count;
	} row[DRILL_TALLY_MAX];
	uint32_t rows;
};
/* The last row collects what no longer fits, as "other". */
void drill_tally_add(struct drill_tally *tally, const char *name, uint64_t count);
uint64_t drill_tally_get(const struct drill_tally *tally, const char *name);
uint64_t drill_tally_sum(const struct drill_tally *tally);
void drill_tally_sort(struct drill_tally *tally); /* largest first, then by name */

#endif
