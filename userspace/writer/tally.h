/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A hash table for the length of one call: which serials, buyers and sales the call has met, and a number for each. Used by the PostgreSQL
 * store, whose knowledge of what was before the call is in the database.
 */
#ifndef SLUICE_WRITER_TALLY_H
#define SLUICE_WRITER_TALLY_H

#include <stdint.h>

enum tally_kind { TALLY_FREE, TALLY_SERIAL, TALLY_BUYER, TALLY_SALE };

struct tally_slot {
	uint64_t key;
	int64_t value;
	uint32_t sale; /* of a buyer */
	uint32_t kind; /* enum tally_kind */
};

/* All zero is an empty one without memory. */
struct tally {
	struct tally_slot *slots;
	uint32_t *used; /* numbers of the slots that are not free */
	unsigned count;
};

/* Returns 0 or -ENOMEM. */
int tally_make(struct tally *tally);
void tally_free(struct tally *tally);
void tally_clear(struct tally *tally);
/* The number of a key, 0 at first; stays where it is until tally_clear. At most TALLY_KEYS_MAX keys. `sale` is 0 but for a buyer. */
int64_t *tally_value(struct tally *tally, enum tally_kind kind, uint32_t sale, uint64_t key);

/* A serial, a buyer and a sale for each record of a batch. */
#define TALLY_KEYS_MAX (3 * 4096)

#endif
