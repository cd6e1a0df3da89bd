/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Deny and allow lists: entries in the map "lists", and the index of prefix lengths in "list_index" that spares the gate most
 * lookups. Called by the daemon, or by a command when no daemon runs.
 *
 * The promise is that the index never lacks a bit for an entry that is there: a bit is set before its entry goes in and cleared only
 * after the last entry of that length near that slot is gone. The counts that decide this live in a sparse hash here and are rebuilt
 * from the map on opening, so a crash between two steps leaves at worst a bit too many, which the next opening repairs.
 */
#include "common/lists.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAPPED_PREFIX_BITS 96
#define INDEX_PREFIX4_BITS 16 /* an IPv4 slot stands for so many leading bits */
#define INDEX_PREFIX6_BITS 32
#define BATCH_ENTRIES 4096
#define COUNTS_MIN 1024 /* a power of two, as all sizes of the hash of counts */

/* Entries that set one bit: key = list, slot and length packed. Linear probing, at most half full. An entry whose count fell to 0 stays
 * until the next growth, which leaves it behind.
 */
struct count {
	uint32_t key; /* 0 = empty */
	uint32_t entries;
};

struct counts {
	struct count *at;
	uint32_t size;
	uint32_t used;
};

struct cursor {
	uint32_t bucket; /* opaque position of the kernel's batch lookup */
	bool started;
};

struct batch {
	struct sluice_list_key *keys;
	struct sluice_list_entry *entries;
	uint32_t room;
};

struct lists {
	int lists_fd;
	int index_fd;
	struct counts counts;
	struct sluice_list_index *index; /* shadow of the map; only we write it */
	unsigned entries[SLUICE_LIST_ALLOW + 1];
	struct cursor sweep;
};

/* The slots that a prefix must be found in. */
struct range {
	uint32_t first;
	uint32_t count;
};

static bool is_mapped(const struct sluice_addr *addr, unsigned prefix_len)
{
	return prefix_len >= MAPPED_PREFIX_BITS && addr->hi == 0 && addr->lo >> 32 == 0xffff;
}

static struct range slots_of(const struct sluice_addr *addr, unsigned prefix_len)
{
	struct range range = {.first = SLUICE_INDEX_SHORT6, .count = 1};

	if (is_mapped(addr, prefix_len)) {
		unsigned len = prefix_len - MAPPED_PREFIX_BITS;

		range.first = (uint32_t)(addr->lo >> 16 & 0xffff);
		if (len < INDEX_PREFIX4_BITS)
			range.count = 1u << (INDEX_PREFIX4_BITS - len);
	} else if (prefix_len >= INDEX_PREFIX6_BITS) {
		range.first = SLUICE_INDEX_V6 + sluice_index_hash((uint32_t)(addr->hi >> 32));
	}
	return range;
}

static bool is_valid(enum sluice_list list, const struct sluice_addr *addr, unsigned len)
{
	uint64_t host_hi, host_lo;

	if ((list != SLUICE_LIST_DENY && list != SLUICE_LIST_ALLOW) || len < 1 || len > 128)
		return false;
	host_hi = len >= 64 ? 0 : ~0ULL >> len;
	host_lo = len >= 128 ? 0 : len <= 64 ? ~0ULL : ~0ULL >> (len - 64);
	return !(addr->hi & host_hi) && !(addr->lo & host_lo);
}

/* --- counts -------------------------------------------------------------------------------------------------------------- */
static uint32_t count_key(enum sluice_list list, uint32_t slot, unsigned prefix_len)
{
	_Static_assert(SLUICE_INDEX_SLOTS < 1u << 18 && SLUICE_LIST_ALLOW < 4, "list, slot and length fit 32 bits");
	return (uint32_t)list << 25 | slot << 7 | (prefix_len - 1);
}

static struct count *counts_find(const struct counts *counts, uint32_t key)
{
	uint32_t hash = key * 0x9e3779b1u;
	uint32_t i = (hash ^ hash >> 15) & (counts->size - 1);

	while (counts->at[i].key && counts->at[i].key != key)
		i = (i + 1) & (counts->size - 1);
	return &counts->at[i];
}

/* Makes room for `more` new keys. */
static int counts_reserve(struct counts *counts, uint32_t more)
{
	struct counts grown = {.size = counts->size};

	if ((counts->used + more) * 2 <= counts->size)
		return 0;
	/* Keys that count nothing are left behind; what is left decides the size. */
	for (uint32_t i = 0; i < counts->size; i++)
		grown.used += counts->at[i].key && counts->at[i].entries;
	while ((grown.used + more) * 4 > grown.size)
		grown.size *= 2;
	grown.at = calloc(grown.size, sizeof(*grown.at));
	if (!grown.at)
		return -ENOMEM;
	for (uint32_t i = 0; i < counts->size; i++)
		if (counts->at[i].key && counts->at[i].entries)
			*counts_find(&grown, counts->at[i].key) = counts->at[i];
	free(counts->at);
	*counts = grown;
	return 0;
}

/* Returns how many entries there were before. The caller has reserved the room. */
static uint32_t counts_add(struct counts *counts, uint32_t key)
{
	struct count *count = counts_find(counts, key);

	if (!count->key) {
		count->key = key;
		counts->used++;
	}
	return count->entries++;
}

/* Returns how many are left. */
static uint32_t counts_drop(struct counts *counts, uint32_t key)
{
	struct count *count = counts_find(counts, key);

	return count->entries ? --count->entries : 0;
}

/* --- index --------------------------------------------------------------------------------------------------------------- */
static void index_set(struct sluice_list_index *index, enum sluice_list list, unsigned prefix_len, bool on)
{
	__u64 *words = list == SLUICE_LIST_DENY ? index->deny : index->allow;
	__u64 bit = 1ULL << ((prefix_len - 1) % 64);

	if (on)
		words[(prefix_len - 1) / 64] |= bit;
	else
		words[(prefix_len - 1) / 64] &= ~bit;
}

static int index_write(struct lists *lists, uint32_t slot)
{
	return bpf_map_update_elem(lists->index_fd, &slot, &lists->index[slot], BPF_ANY);
}

/* Drops one entry's share in its bits. A bit that cannot be cleared is a bit too many: allowed. */
static void index_drop(struct lists *lists, const struct sluice_list_key *key, struct range range)
{
	enum sluice_list list = (enum sluice_list)key->list;

	for (uint32_t slot = range.first; slot < range.first + range.count; slot++) {
		if (counts_drop(&lists->counts, count_key(list, slot, key->prefix_len)) > 0)
			continue;
		index_set(&lists->index[slot], list, key->prefix_len, false);
		index_write(lists, slot);
	}
}

static int index_add(struct lists *lists, const struct sluice_list_key *key, struct range range)
{
	enum sluice_list list = (enum sluice_list)key->list;
	int err = counts_reserve(&lists->counts, range.count);

	if (err)
		return err;
	for (uint32_t slot = range.first; slot < range.first + range.count; slot++) {
		if (counts_add(&lists->counts, count_key(list, slot, key->prefix_len)) > 0)
			continue;
		index_set(&lists->index[slot], list, key->prefix_len, true);
		err = index_write(lists, slot);
		if (err) {
			index_drop(lists, key, (struct range){.first = range.first, .count = slot - range.first + 1});
			return err;
		}
	}
	return 0;
}

/* --- reading in batches -------------------------------------------------------------------------------------------------- */
static int batch_resize(struct batch *batch, uint32_t room)
{
	struct sluice_list_key *keys = realloc(batch->keys, room * sizeof(*keys));
	struct sluice_list_entry *entries;

	if (!keys)
		return -ENOMEM;
	batch->keys = keys;
	entries = realloc(batch->entries, room * sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	batch->entries = entries;
	batch->room = room;
	return 0;
}

static void batch_free(struct batch *batch)
{
	free(batch->keys);
	free(batch->entries);
}

/* Reads on from `cursor`. Returns how many entries it got (0 is possible in the middle), or negative errno; *end tells that the map
 * is through. The kernel hands out whole buckets, so entries that come or go meanwhile cost neither repeats nor gaps of others.
 */
static int batch_read(struct lists *lists, struct cursor *cursor, struct batch *batch, bool *end)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts);

	for (;;) {
		uint32_t count = batch->room, next = 0;
		int err = bpf_map_lookup_batch(lists->lists_fd, cursor->started ? &cursor->bucket : NULL, &next,
			batch->keys, batch->entries, &count, &opts);

		if (err == -ENOSPC) { /* one bucket holds more than the batch: no position was lost */
			err = batch_resize(batch, batch->room * 2);
			if (err)
				return err;
			continue;
		}
		if (err && err != -ENOENT)
			return err;
		*end = err == -ENOENT;
		cursor->bucket = next;
		cursor->started = !*end;
		return (int)count;
	}
}

/* --- opening ------------------------------------------------------------------------------------------------------------- */
static int count_entries(struct lists *lists, struct sluice_list_index *wanted)
{
	struct cursor cursor = {0};
	struct batch batch = {0};
	bool end = false;
	int err = batch_resize(&batch, BATCH_ENTRIES);

	while (!err && !end) {
		int got = batch_read(lists, &cursor, &batch, &end);

		if (got < 0) {
			err = got;
			break;
		}
		for (int i = 0; i < got && !err; i++) {
			const struct sluice_list_key *key = &batch.keys[i];
			enum sluice_list list = (enum sluice_list)key->list;
			struct range range = slots_of(&key->addr, key->prefix_len);

			if (!is_valid(list, &key->addr, key->prefix_len))
				continue; /* not from us; the gate cannot match it either */
			err = counts_reserve(&lists->counts, range.count);
			for (uint32_t slot = range.first; !err && slot < range.first + range.count; slot++) {
				counts_add(&lists->counts, count_key(list, slot, key->prefix_len));
				index_set(&wanted[slot], list, key->prefix_len, true);
			}
			lists->entries[list]++;
		}
	}
	batch_free(&batch);
	return err;
}

static int read_index(struct lists *lists)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts);
	uint32_t *slots = calloc(SLUICE_INDEX_SLOTS, sizeof(*slots));
	uint32_t count = SLUICE_INDEX_SLOTS, next;
	int err;

	if (!slots)
		return -ENOMEM;
	err = bpf_map_lookup_batch(lists->index_fd, NULL, &next, slots, lists->index, &count, &opts);
	free(slots);
	if (err && err != -ENOENT)
		return err;
	return count == SLUICE_INDEX_SLOTS ? 0 : -EPROTO;
}

struct lists *lists_open(int lists_fd, int index_fd)
{
	struct lists *lists = calloc(1, sizeof(*lists));
	struct sluice_list_index *wanted = calloc(SLUICE_INDEX_SLOTS, sizeof(*wanted));
	int err = -ENOMEM;

	if (!lists || !wanted)
		goto out_free;
	lists->lists_fd = lists_fd;
	lists->index_fd = index_fd;
	lists->index = calloc(SLUICE_INDEX_SLOTS, sizeof(*lists->index));
	lists->counts.size = COUNTS_MIN;
	lists->counts.at = calloc(COUNTS_MIN, sizeof(*lists->counts.at));
	if (!lists->index || !lists->counts.at)
		goto out_free;
	err = read_index(lists);
	if (!err)
		err = count_entries(lists, wanted);
	for (uint32_t slot = 0; !err && slot < SLUICE_INDEX_SLOTS; slot++) {
		if (!memcmp(&wanted[slot], &lists->index[slot], sizeof(*wanted)))
			continue;
		lists->index[slot] = wanted[slot];
		err = index_write(lists, slot);
	}
	if (!err) {
		free(wanted);
		return lists;
	}
out_free:
	free(wanted);
	lists_close(lists);
	errno = -err;
	return NULL;
}

void lists_close(struct lists *lists)
{
	if (!lists)
		return;
	free(lists->counts.at);
	free(lists->index);
	free(lists);
}

/* --- changes ------------------------------------------------------------------------------------------------------------- */
static void make_key(
	struct sluice_list_key *key, enum sluice_list list, const struct sluice_addr *addr, unsigned prefix_len)
{
	memset(key, 0, sizeof(*key));
	key->addr = *addr;
	key->list = (__u8)list;
	key->prefix_len = (__u8)prefix_len;
}

int lists_put(struct lists *lists, enum sluice_list list, const struct sluice_addr *addr, unsigned prefix_len,
	__u64 expires_wall, const char *text)
{
	struct sluice_list_entry entry = {.expires_wall = expires_wall}, old;
	struct sluice_list_key key;
	struct range range;
	int err;

	if (!is_valid(list, addr, prefix_len))
		return -EINVAL;
	make_key(&key, list, addr, prefix_len);
	range = slots_of(addr, prefix_len);
	if (text)
		memcpy(entry.text, text, strnlen(text, sizeof(entry.text) - 1));

	/* A new entry is the common case (bulk loads): one system call where its bits are set already. */
	err = index_add(lists, &key, range);
	if (err)
		return err;
	err = bpf_map_update_elem(lists->lists_fd, &key, &entry, BPF_NOEXIST);
	if (!err) {
		lists->entries[list]++;
		return 0;
	}
	index_drop(lists, &key, range);
	if (err != -EEXIST)
		return err;
	/* Hits that the gate counts between reading and writing are lost: a handful in a figure for people. */
	if (bpf_map_lookup_elem(lists->lists_fd, &key, &old) == 0)
		entry.hits = old.hits;
	return bpf_map_update_elem(lists->lists_fd, &key, &entry, BPF_EXIST);
}

int lists_remove(struct lists *lists, enum sluice_list list, const struct sluice_addr *addr, unsigned prefix_len)
{
	struct sluice_list_key key;
	int err;

	if (!is_valid(list, addr, prefix_len))
		return -ENOENT;
	make_key(&key, list, addr, prefix_len);
	err = bpf_map_delete_elem(lists->lists_fd, &key);
	if (err)
		return err;
	lists->entries[list]--;
	index_drop(lists, &key, slots_of(addr, prefix_len));
	return 0;
}

int lists_each(struct lists *lists, enum sluice_list list,
	int (*visit)(const struct sluice_list_key *, const struct sluice_list_entry *, void *), void *arg)
{
	struct cursor cursor = {0};
	struct batch batch = {0};
	bool end = false;
	int result = batch_resize(&batch, BATCH_ENTRIES);

	while (!result && !end) {
		int got = batch_read(lists, &cursor, &batch, &end);

		if (got < 0)
			result = got;
		for (int i = 0; i < got && !result; i++)
			if (batch.keys[i].list == list)
				result = visit(&batch.keys[i], &batch.entries[i], arg);
	}
	batch_free(&batch);
	return result;
}

int lists_sweep(struct lists *lists, __u64 wall_ns, unsigned budget)
{
	struct batch batch = {0};
	int removed = 0;
	bool end = false;
	int err;

	if (budget == 0)
		return 0;
	err = batch_resize(&batch, budget < BATCH_ENTRIES ? budget : BATCH_ENTRIES);
	if (err)
		return err;
	while (!end && budget > 0) {
		int got = batch_read(lists, &lists->sweep, &batch, &end);

		if (got < 0) {
			lists->sweep.started = false;
			err = got;
			break;
		}
		for (int i = 0; i < got; i++) {
			const struct sluice_list_key *key = &batch.keys[i];

			if (!batch.entries[i].expires_wall || batch.entries[i].expires_wall > wall_ns)
				continue;
			if (lists_remove(lists, (enum sluice_list)key->list, &key->addr, key->prefix_len) == 0)
				removed++;
		}
		budget -= (unsigned)got < budget ? (unsigned)got : budget;
		if (budget > 0 && budget < batch.room)
			batch.room = budget;
	}
	batch_free(&batch);
	return removed ? removed : err;
}

unsigned lists_count(const struct lists *lists, enum sluice_list list)
{
	return list == SLUICE_LIST_DENY || list == SLUICE_LIST_ALLOW ? lists->entries[list] : 0;
}
