/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The index of prefix lengths (map "list_index"), as its only writer keeps it: how many entries stand behind each bit, and the bits.
 * Called by lists.c alone.
 *
 * The promise is that the map never lacks a bit for an entry that is there: lists.c adds entries here, flushes, and only then puts them into
 * their map; it removes them from their map, drops them here, and only then flushes.
 */
#ifndef SLUICE_COMMON_LISTS_INDEX_H
#define SLUICE_COMMON_LISTS_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "sluice/abi.h"

/* Entries that set one bit: key = list, slot and length packed. Linear probing, at most half full. An entry whose count fell to 0 stays
 * until the next growth, which leaves it behind.
 */
struct lists_count {
	uint32_t key; /* 0 = empty */
	uint32_t entries;
};

struct lists_index {
	int fd;
	struct lists_count *counts;
	uint32_t counts_size; /* a power of two */
	uint32_t counts_used;
	struct sluice_list_index *bits; /* by slot; what the map has, but for the slots that are marked */
	uint64_t *dirty;                /* slots to be written by the next flush, one bit each */
	uint32_t *batch_slots;
	struct sluice_list_index *batch_bits;
};

/* Empty counts over what the map has. Returns 0 or negative errno; lists_index_close is due in any case. */
int lists_index_open(struct lists_index *index, int fd);
void lists_index_close(struct lists_index *index);
/* Once every entry of the map was added: takes the bits away that none of them stands behind, and flushes. */
int lists_index_repair(struct lists_index *index);
/* Counts an entry in; its bits are set with the next flush. Returns 0 or -ENOMEM (nothing was counted). */
int lists_index_add(struct lists_index *index, const struct sluice_list_key *key);
/* Counts an entry out; bits that nothing stands behind are cleared with the next flush. */
void lists_index_drop(struct lists_index *index, const struct sluice_list_key *key);
/* Writes what changed. On an error what could not be written stays marked for the next one. */
int lists_index_flush(struct lists_index *index);

#endif
