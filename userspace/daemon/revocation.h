/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tokens that were taken back, and until when a key must stay. Used by the token routes, by start and by recovery.
 *
 * A revoked token is an entry in the gate's map of admissions that nobody can claim; all tokens of a sale that were issued before a second are
 * revoked by a word of the sale. Both, and how long each key may still be asked for, are in the file `revoked` of the state directory, so that they
 * hold after a reboot.
 */
#ifndef SLUICE_DAEMON_REVOCATION_H
#define SLUICE_DAEMON_REVOCATION_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/daemon.h"
#include "daemon/sales.h"

struct revocations;

/* Reads the file, puts what still matters into the gate's map, and rewrites the file without the rest. The gate must be open, orders must not.
 * Returns NULL and a sentence in `error`: a file that cannot be understood must not be read as "nothing is revoked".
 */
struct revocations *revocation_open(struct daemon *d, char *error, size_t error_size);
void revocation_close(struct revocations *revocations);
/* Sets the second of every sale that the registry knows. Called by recovery before the gate's words are written. */
void revocation_apply(struct daemon *d);

/* The second after which no token of the sale is good: so long one that is taken back stays so. */
uint32_t revocation_until(const struct sale *sale);
/* Returns 0 (also if it was revoked before), -EEXIST: it was admitted, and a yes is never taken back; -EBUSY: it is being judged, ask again;
 * -E2BIG: the gate's map is full; -EIO: revoked, but the file could not be written, so it will not outlive a reboot: the same again tries to
 * write it again.
 */
int revocation_token(struct daemon *d, uint64_t serial, uint64_t buyer, uint32_t sale, uint32_t expires_at_s);
/* Revokes all tokens of the sale that were issued before `not_before_s`; 0 = none. Returns 0, or -EIO: nothing was changed. */
int revocation_before(struct daemon *d, uint32_t sale, uint32_t not_before_s);
/* May the entry of a revoked token go? Where its sale ends later than it did, entry and line are prolonged instead, which waits for the disk. */
bool revocation_is_over(struct daemon *d, const struct sluice_admission *entry, uint64_t wall_ns);
/* Is this serial revoked by itself? */
bool revocation_has(struct daemon *d, uint64_t serial);

/* No token of key `id` is valid after `until_s`. Returns 0 or -EIO. */
int revocation_note_key(struct daemon *d, unsigned id, uint64_t until_s);
/* What was noted of the key; 0 = nothing. */
uint64_t revocation_key_until(struct daemon *d, unsigned id);

#endif
