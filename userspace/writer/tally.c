/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* See tally.h. Open addressing with linear probing, never more than three eighths full; what was used is noted, so that emptying it after a
 * lone order costs three slots and not the whole table.
 */
#include "writer/tally.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire.h"

#define TALLY_SLOTS 32768 /* a power of two */
_Static_assert(TALLY_KEYS_MAX == 3 * WIRE_BATCH_MAX, "a batch fits");
_Static_assert(TALLY_KEYS_MAX < TALLY_SLOTS / 2, "probing ends soon");

int tally_make(struct tally *tally)
{
	tally->slots = calloc(TALLY_SLOTS, sizeof(*tally->slots));
	tally->used = calloc(TALLY_KEYS_MAX, sizeof(*tally->used));
	tally->count = 0;
	return tally->slots && tally->used ? 0 : -ENOMEM;
}

void tally_free(struct tally *tally)
{
	free(tally->slots);
	free(tally->used);
	memset(tally, 0, sizeof(*tally));
}

void tally_clear(struct tally *tally)
{
	for (unsigned i = 0; i < tally->count; i++)
		tally->slots[tally->used[i]].kind = TALLY_FREE;
	tally->count = 0;
}

int64_t *tally_value(struct tally *tally, enum tally_kind kind, uint32_t sale, uint64_t key)
{
	/* Keys are keyed hashes in life and count upwards in tests; a multiplication (Knuth's, 2^64 / phi) serves both. */
	uint64_t hash = (key + sale + kind) * 0x9e3779b97f4a7c15ULL;
	uint32_t i = (uint32_t)(hash >> 32) & (TALLY_SLOTS - 1);
	struct tally_slot *slot;

	for (;; i = (i + 1) & (TALLY_SLOTS - 1)) {
		slot = &tally->slots[i];
		if (slot->kind == kind && slot->key == key && slot->sale == sale)
			return &slot->value;
		if (slot->kind == TALLY_FREE)
			break;
	}
	*slot = (struct tally_slot){.key = key, .sale = sale, .kind = kind};
	tally->used[tally->count++] = i;
	return &slot->value;
}
