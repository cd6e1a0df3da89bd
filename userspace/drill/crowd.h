/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The crowd: what buyers and bots do, when, and what they make of the answers. Runs in the calling thread and network namespace until
 * everybody has had his say or the time is up, and leaves a record of what was seen. It knows the public HTTP interface only.
 */
#ifndef SLUICE_DRILL_CROWD_H
#define SLUICE_DRILL_CROWD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "drill/checks.h"
#include "drill/engine.h"
#include "drill/places.h"
#include "drill/seen.h"
#include "sluice/token.h"

#define DRILL_ACCOUNTS 64u /* bots that have a good token of their own, and use it before the opening */

/* Kinds of bot attempts. X(NAME, label, share in per cent, text) */
#define DRILL_BOT_KINDS(X) \
	X(EARLY, "early", 15, "a good token, before the opening") \
	X(NO_TOKEN, "no_token", 8, "no token in the request") \
	X(MALFORMED, "malformed", 12, "something that is no token") \
	X(FORGED, "forged", 15, "a token with flipped bits") \
	X(EXPIRED, "expired", 5, "a token past its expiry") \
	X(ENDED, "ended_sale", 5, "a token of a sale that is over") \
	X(REPEATED, "repeated", 10, "the token of somebody who has ordered") \
	X(HAMMER, "hammer", 20, "forged tokens, far too fast from few addresses") \
	X(SILENT, "silent", 5, "connects and says nothing") \
	X(DENIED, "denied", 5, "from a network on the deny list")

enum drill_bot_kind {
#define X(name, ...) DRILL_BOT_##name,
	DRILL_BOT_KINDS(X)
#undef X
		DRILL_BOT_KIND_COUNT
};

const char *drill_bot_label(enum drill_bot_kind kind);
const char *drill_bot_text(enum drill_bot_kind kind);

/* How many of `total` attempts each kind gets. `usable` has bit n set if kind n can be played here; the others' shares go to
 * DRILL_BOT_FORGED, MALFORMED or NO_TOKEN, whichever is usable first. The sum is `total`.
 */
void drill_bot_shares(uint32_t total, uint32_t usable, uint32_t count[DRILL_BOT_KIND_COUNT]);

struct drill_plan {
	uint32_t buyers, bots, spoofed, seconds, ipv6_share;
	uint32_t rush_ms; /* bots keep coming this long after the opening; the last buyers after half of it */
	uint64_t seed;
	const char *slug;
	const char *host;                     /* for the Host header */
	union drill_address target4, target6; /* family 0 = none */
	bool own_network;                     /* addresses of places.h can be used as sources */
	uint64_t opens_wall_ns;
	/* tokens for bots; those of a kind that has none are not played */
	char (*account_tokens)[SLUICE_TOKEN_TEXT + 1];
	char (*expired_tokens)[SLUICE_TOKEN_TEXT + 1];
	char (*ended_tokens)[SLUICE_TOKEN_TEXT + 1];
	uint32_t account_count, expired_count, ended_count;
	bool denied;                          /* the denied networks are on the deny list */
	uint8_t server_mac[6], client_mac[6]; /* for spoofed SYNs */
	const char *client_interface;
};

struct drill_bots_seen {
	uint32_t planned, attempts;
	uint32_t unanswered; /* dropped, reset or cut off: whatever is not an answer */
	struct drill_tally answers;
};

struct drill_times {
	float *ms;
	uint32_t count, capacity;
};

/* What is left when the crowd has gone. */
struct drill_record {
	struct drill_seen *seen; /* buyers, accounts, second tokens of buyers */
	uint32_t seen_count;
	uint32_t buyers_with_token, buyers_asked, buyers_answered, buyers_ordered;
	struct drill_tally token_answers; /* at the token desk */
	struct drill_tally buyer_answers; /* to order requests of buyers */
	struct drill_bots_seen bots[DRILL_BOT_KIND_COUNT];
	uint32_t bot_attempts;
	uint64_t spoofed_sent;
	struct drill_intruders intruders;
	struct drill_times admitted,
		refused; /* latency of buyers' order requests, by what they got; accounts and bots are not in it */
	uint32_t lost_answers, double_clicks, second_tries; /* misbehaviour of honest people, as played */
	struct drill_engine_stats net;
	double seconds;    /* from the first request to the last answer */
	double peak_per_s; /* answers in the busiest second */
	bool timed_out, interrupted;
};

/* Returns 0 or negative errno after saying why; in both cases drill_record_free is due. */
int drill_crowd_run(const struct drill_plan *plan, struct drill_record *record);
void drill_record_free(struct drill_record *record);

#endif
