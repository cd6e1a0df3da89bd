/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The index of prefix lengths that spares the gate most lookups; see lists_index.h.
 *
 * The counts that decide when a bit may go live in a sparse hash here and are rebuilt from the entries on opening, so a crash between two
 * steps leaves at worst a bit too many, which the next opening repairs.
 */
#include "common/lists_index.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAPPED_PREFIX_BITS 96
#define INDEX_PREFIX4_BITS 16 /* an IPv4 slot stands for so many leading bits */
#define INDEX_PREFIX6_BITS 32
#define COUNTS_MIN 1024
#define BATCH_SLOTS 4096
#define DIRTY_WORDS ((SLUICE_INDEX_SLOTS + 63) / 64)

/* The slots that a prefix must be found in. */
struct range {
	uint32_t first;
	uint32_t count;
};

static bool is_mapped(const struct sluice_list_key *key)
{
	return key->prefix_len >= MAPPED_PREFIX_BITS && key->addr.hi == 0 && key->addr.lo >> 32 == 0xffff;
}

static struct range slots_of(const struct sluice_list_key *key)
{
	struct range range = {.first = SLUICE_INDEX_SHORT6, .count = 1};

	if (is_mapped(key)) {
		unsigned len = key->prefix_len - MAPPED_PREFIX_BITS;

		range.first = (uint32_t)(key->addr.lo >> 16 & 0xffff);
		if (len < INDEX_PREFIX4_BITS)
			range.count = 1u << (INDEX_PREFIX4_BITS - len);
	} else if (key->prefix_len >= INDEX_PREFIX6_BITS) {
		range.first = SLUICE_INDEX_V6 + sluice_index_hash((uint32_t)(key->addr.hi >> 32));
	}
	return range;
}

/* --- counts -------------------------------------------------------------------------------------------------------------- */
static uint32_t count_key(const struct sluice_list_key *key, uint32_t slot)
{
	_Static_assert(SLUICE_INDEX_SLOTS < 1u << 18 && SLUICE_LIST_ALLOW < 4, "list, slot and length fit 32 bits");
	return (uint32_t)key->list << 25 | slot << 7 | (key->prefix_len - 1u);
}

static struct lists_count *find_in(struct lists_count *counts, uint32_t size, uint32_t key)
{
	uint32_t hash = key * 0x9e3779b1u;
	uint32_t i = (hash ^ hash >> 15) & (size - 1);

	while (counts[i].key && counts[i].key != key)
		i = (i + 1) & (size - 1);
	return &counts[i];
}

static struct lists_count *find(const struct lists_index *index, uint32_t key)
{
	return find_in(index->counts, index->counts_size, key);
}

/* Makes room for `more` new keys. */
static int reserve(struct lists_index *index, uint32_t more)
{
	uint32_t size = index->counts_size, used = 0;
	struct lists_count *grown;

	if ((index->counts_used + more) * 2 <= size)
		return 0;
	/* Keys that count nothing are left behind; what is left decides the size. */
	for (uint32_t i = 0; i < size; i++)
		used += index->counts[i].key && index->counts[i].entries;
	while ((used + more) * 4 > size)
		size *= 2;
	grown = calloc(size, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	for (uint32_t i = 0; i < index->counts_size; i++)
		if (index->counts[i].key && index->counts[i].entries)
			*find_in(grown, size, index->counts[i].key) = index->counts[i];
	free(index->counts);
	index->counts = grown;
	index->counts_size = size;
	index->counts_used = used;
	return 0;
}

/* --- bits ---------------------------------------------------------------------------------------------------------------- */
static void mark(struct lists_index *index, const struct sluice_list_key *key, uint32_t slot, bool on)
{
	struct sluice_list_index *bits = &index->bits[slot];
	__u64 *word = (key->list == SLUICE_LIST_DENY ? bits->deny : bits->allow) + (key->prefix_len - 1) / 64;
	__u64 bit = 1ULL << ((key->prefix_len - 1) % 64);

	if (!!(*word & bit) == on)
		return;
	*word ^= bit;
	index->dirty[slot / 64] |= 1ULL << slot % 64;
}

int lists_index_add(struct lists_index *index, const struct sluice_list_key *key)
{
	struct range range = slots_of(key);
	int err = reserve(index, range.count);

	if (err)
		return err;
	for (uint32_t slot = range.first; slot < range.first + range.count; slot++) {
		struct lists_count *count = find(index, count_key(key, slot));

		if (!count->key) {
			count->key = count_key(key, slot);
			index->counts_used++;
		}
		if (count->entries++ == 0)
			mark(index, key, slot, true);
	}
	return 0;
}

void lists_index_drop(struct lists_index *index, const struct sluice_list_key *key)
{
	struct range range = slots_of(key);

	for (uint32_t slot = range.first; slot < range.first + range.count; slot++) {
		struct lists_count *count = find(index, count_key(key, slot));

		if (count->entries && --count->entries == 0)
			mark(index, key, slot, false);
	}
}

/* Writes `count` slots in one system call. What was written is not marked any more. */
static int write_batch(struct lists_index *index, uint32_t count)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts);
	uint32_t written = count;
	int err = bpf_map_update_batch(index->fd, index->batch_slots, index->batch_bits, &written, &opts);

	for (uint32_t i = 0; i < (err ? written : count) && i < count; i++)
		index->dirty[index->batch_slots[i] / 64] &= ~(1ULL << index->batch_slots[i] % 64);
	return err;
}

int lists_index_flush(struct lists_index *index)
{
	uint32_t count = 0;
	int err;

	for (uint32_t word = 0; word < DIRTY_WORDS; word++) {
		for (uint64_t bits = index->dirty[word]; bits; bits &= bits - 1) {
			uint32_t slot = word * 64 + (uint32_t)__builtin_ctzll(bits);

			index->batch_slots[count] = slot;
			index->batch_bits[count++] = index->bits[slot];
			if (count < BATCH_SLOTS)
				continue;
			err = write_batch(index, count);
			if (err)
				return err;
			count = 0;
		}
	}
	return count ? write_batch(index, count) : 0;
}

/* --- opening ------------------------------------------------------------------------------------------------------------- */
static int read_bits(struct lists_index *index)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts);
	uint32_t *slots = calloc(SLUICE_INDEX_SLOTS, sizeof(*slots));
	uint32_t count = SLUICE_INDEX_SLOTS, next;
	int err;

	if (!slots)
		return -ENOMEM;
	err = bpf_map_lookup_batch(index->fd, NULL, &next, slots, index->bits, &count, &opts);
	free(slots);
	if (err && err != -ENOENT)
		return err;
	return count == SLUICE_INDEX_SLOTS ? 0 : -EPROTO;
}

int lists_index_open(struct lists_index *index, int fd)
{
	memset(index, 0, sizeof(*index));
	index->fd = fd;
	index->counts_size = COUNTS_MIN;
	index->counts = calloc(COUNTS_MIN, sizeof(*index->counts));
	index->bits = calloc(SLUICE_INDEX_SLOTS, sizeof(*index->bits));
	index->dirty = calloc(DIRTY_WORDS, sizeof(*index->dirty));
	index->batch_slots = calloc(BATCH_SLOTS, sizeof(*index->batch_slots));
	index->batch_bits = calloc(BATCH_SLOTS, sizeof(*index->batch_bits));
	if (!index->counts || !index->bits || !index->dirty || !index->batch_slots || !index->batch_bits)
		return -ENOMEM;
	return read_bits(index);
}

void lists_index_close(struct lists_index *index)
{
	free(index->counts);
	free(index->bits);
	free(index->dirty);
	free(index->batch_slots);
	free(index->batch_bits);
	memset(index, 0, sizeof(*index));
}

int lists_index_repair(struct lists_index *index)
{
	for (uint32_t slot = 0; slot < SLUICE_INDEX_SLOTS; slot++) {
		for (unsigned list = SLUICE_LIST_DENY; list <= SLUICE_LIST_ALLOW; list++) {
			for (unsigned len = 1; len <= 128; len++) {
				struct sluice_list_key key = {.list = (__u8)list, .prefix_len = (__u8)len};
				const struct sluice_list_index *bits = &index->bits[slot];
				const __u64 *words = list == SLUICE_LIST_DENY ? bits->deny : bits->allow;

				if (!words[(len - 1) / 64]) {
					len = (len - 1) / 64 * 64 + 64; /* none of this word */
					continue;
				}
				if (words[(len - 1) / 64] >> (len - 1) % 64 & 1 &&
					!find(index, count_key(&key, slot))->entries)
					mark(index, &key, slot, false);
			}
		}
	}
	return lists_index_flush(index);
}
