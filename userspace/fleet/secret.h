/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The secret that the nodes of a fleet share, and the keys that each of them derives from it: no key ever goes over the network, only the
 * numbers of keys do.
 */
#ifndef SLUICE_FLEET_SECRET_H
#define SLUICE_FLEET_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/token.h"

#define FLEET_SECRET_BYTES 32
#define FLEET_FINGERPRINT_DIGITS 16

struct fleet_secret {
	uint8_t bytes[FLEET_SECRET_BYTES];
};

/* Reads 64 hex digits, and at most one newline after them. Refuses a file that others may read, that is no regular file or is not this user's, and
 * one that is not there: one made here would differ from those of the other nodes. Returns 0 or negative errno with a sentence that
 * says what to do.
 */
int fleet_secret_load(struct fleet_secret *secret, const char *path, char *error, size_t error_size);
/* Tells two secrets apart, and tells nothing of either. `text` holds FLEET_FINGERPRINT_DIGITS + 1. */
void fleet_secret_fingerprint(const struct fleet_secret *secret, char *text);

/* Which signing keys a node uses. Key n lies in slot n & 1 and its id in a token is n & 255, so two that follow each other are in use at a time. */
struct fleet_key_numbers {
	uint32_t current;   /* signs; from 1 */
	uint32_t accepted;  /* current, or the one after it, which may sign elsewhere already */
	uint64_t over_at_s; /* no token that this node signed with a key before `current` is valid after this second */
};

/* Follows the fleet, whose nodes sign with `current` and, in a rotation, are to accept `next` (0 = none). `latest_s`: no token that this node has
 * signed until now is valid after it. Returns true if *numbers is another than before. A number never goes back.
 */
bool fleet_keys_follow(struct fleet_key_numbers *numbers, uint32_t current, uint32_t next, uint64_t latest_s);
/* The highest key whose tokens of this node are all over at `now_s`; nobody needs it or the keys before it on account of this node. */
uint32_t fleet_keys_over(const struct fleet_key_numbers *numbers, uint64_t now_s);
/* The two signing keys in their slots: the current one and the accepted one or, if that is the same, the one before. And the keys of buyers and
 * serials, which never change.
 */
void fleet_keys_derive(
	const struct fleet_secret *secret, const struct fleet_key_numbers *numbers, struct token_keys *keys);

#endif
