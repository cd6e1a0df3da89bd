/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Issue of tokens: one live token per buyer and sale. */
#ifndef SLUICE_DAEMON_ISSUE_H
#define SLUICE_DAEMON_ISSUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/daemon.h"
#include "daemon/sales.h"

#define ISSUE_BUYER_MAX 128 /* bytes of a buyer's reference */

enum issue_result {
	ISSUE_NEW,
	ISSUE_SAME, /* the live token of this buyer, byte for byte as before */
	ISSUE_RATE_LIMITED,
	ISSUE_ALREADY_ORDERED,
	ISSUE_SOLD_OUT,
	ISSUE_ENDED,
	ISSUE_QUANTITY,  /* more than a buyer may have */
	ISSUE_EXHAUSTED, /* token_multiplier * stock live tokens */
	ISSUE_FULL,      /* the map of issued tokens */
	ISSUE_NOT_READY, /* the sale has no slot in the gate */
	ISSUE_ROUNDS,    /* the buyer has ordered as often as can be counted */
	ISSUE_REVOKED,   /* this buyer's token was taken back; only the shop may issue another */
	ISSUE_ERROR
};

struct issue_request {
	const char *buyer;
	size_t buyer_length;
	unsigned quantity;
	uint32_t network;   /* 0: not bound */
	bool after_revoked; /* the shop's own issue: a buyer whose token was revoked gets another */
	bool is_checked;    /* issue_check has said yes */
	bool is_here;       /* in a fleet, by issue_is_here: if that is not so any more, ISSUE_NOT_READY */
	bool only_same;     /* the live token again, or ISSUE_NOT_READY: nothing new is made */
};

struct issued_token {
	char text[SLUICE_TOKEN_TEXT + 1];
	uint32_t issued_at_s, expires_at_s;
	unsigned quantity;
	unsigned retry_after_s; /* ISSUE_RATE_LIMITED */
};

struct issuer *issuer_new(const struct config *config);
void issuer_free(struct issuer *issuer);
/* The rate per source, charged before anything of the request is looked at. Returns 0 or the seconds to wait. */
unsigned issue_charge_source(struct daemon *d, const struct sluice_addr *source);
/* The limit of that rate and the source's theoretical arrival time (0 = not remembered); charges nothing. */
uint64_t issue_peek_source(struct daemon *d, const struct sluice_addr *source, struct sluice_limit *limit);
/* What can be said before it is known where the buyer is at home: the state of the sale, the quantity, the buyer's rate (which is charged).
 * Returns ISSUE_NEW if nothing speaks against it.
 */
enum issue_result issue_check(struct daemon *d, const struct sale *sale, const struct issue_request *request,
	uint64_t buyer, struct issued_token *token);
enum issue_result issue_token(
	struct daemon *d, const struct sale *sale, const struct issue_request *request, struct issued_token *token);
/* Counts the live tokens of every sale from the map, once at start. */
void issue_count_live(struct daemon *d);
/* Removes expired tokens, looking at `budget` entries a call. True: it came to the end of the map. */
bool issue_sweep(struct daemon *d, uint64_t wall_ns, unsigned budget);
uint64_t issue_total(struct daemon *d); /* tokens made since the start */
/* No token that is issued now, or was issued before, is valid after this second. */
uint64_t issue_latest_expiry(struct daemon *d);
/* The live token of the shop's buyer in a sale, as it would be given again. Returns false if there is none. */
bool issue_find(struct daemon *d, const struct sale *sale, const char *buyer, size_t buyer_length,
	struct sluice_issued *entry, uint64_t *buyer_hash, uint64_t *serial);
/* Has this node issued a token of the sale to the buyer, which may be live? Then he is at home here. */
bool issue_is_here(struct daemon *d, uint32_t sale, uint64_t buyer);
/* The buyer has turned out to be at home at another node too, where he has a token as well: the one of this node is revoked, and forgotten. */
void issue_take_back(struct daemon *d, uint32_t sale, uint64_t buyer);
/* Copies the key that signs, or the one of that id. Returns 0 or -ENOKEY. */
int issue_key(struct daemon *d, int key_id, struct sluice_key *key);
/* Writes the keys into the gate's map. */
void issue_publish_keys(struct daemon *d);

#endif
