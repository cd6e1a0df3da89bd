/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Deny and allow lists: entries in the map "lists", in step with the index of prefix lengths (lists_index.c). Called by the daemon, or by
 * a command when no daemon runs.
 *
 * The map is read and written in batches: a system call costs more than the entry it is made for. The index never lacks a bit for an
 * entry that is there: bits are flushed before their entries go in, and cleared after the last entry behind them is gone. What the gate
 * remembers of denials (map "denials") is made void after each change but that of a new deny entry, and before anybody is told of it.
 */
#include "common/lists.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/addr.h"
#include "common/lists_index.h"

#define MAPPED_PREFIX_BITS 96
#define BATCH_ENTRIES 4096

struct batch {
	struct sluice_list_key *keys;
	struct sluice_list_entry *entries;
	uint32_t room;
};

struct lists {
	int lists_fd, denials_fd;
	uint32_t generation; /* of what the gate remembers */
	unsigned capacity;
	unsigned entries[SLUICE_LIST_ALLOW + 1];
	struct lists_index index;
	struct lists_cursor sweep;
};

static bool is_valid(const struct sluice_list_key *key)
{
	unsigned len = key->prefix_len;
	uint64_t host_hi, host_lo;

	if ((key->list != SLUICE_LIST_DENY && key->list != SLUICE_LIST_ALLOW) || len < 1 || len > 128)
		return false;
	host_hi = len >= 64 ? 0 : ~0ULL >> len;
	host_lo = len >= 128 ? 0 : len <= 64 ? ~0ULL : ~0ULL >> (len - 64);
	return !(key->addr.hi & host_hi) && !(key->addr.lo & host_lo);
}

static int make_key(
	struct sluice_list_key *key, enum sluice_list list, const struct sluice_addr *addr, unsigned prefix_len)
{
	memset(key, 0, sizeof(*key));
	key->addr = *addr;
	key->list = (__u8)list;
	key->prefix_len = (__u8)prefix_len;
	return prefix_len <= 128 && is_valid(key) ? 0 : -EINVAL;
}

/* --- texts --------------------------------------------------------------------------------------------------------------- */
/* How many bytes of `text` fit into `room` without cutting a UTF-8 character in two. */
static size_t fitting(const char *text, size_t room)
{
	size_t length = strnlen(text, room + 1);

	if (length <= room)
		return length;
	for (length = room; length && ((unsigned char)text[length] & 0xc0) == 0x80;)
		length--;
	return length;
}

void lists_make_text(char text[LISTS_TEXT_SIZE], const char *label, const char *reason)
{
	size_t used;

	memset(text, 0, LISTS_TEXT_SIZE);
	if (!*label || !strcmp(label, reason)) {
		label = *label ? label : reason;
		reason = "";
	}
	used = fitting(label, LISTS_TEXT_SIZE - 1);
	memcpy(text, label, used);
	if (used + 2 < LISTS_TEXT_SIZE)
		memcpy(text + used + 1, reason, fitting(reason, LISTS_TEXT_SIZE - used - 2));
}

void lists_read_text(const struct sluice_list_entry *entry, char *label, char *reason)
{
	size_t used = strnlen(entry->text, LISTS_TEXT_SIZE - 1);
	const char *second = entry->text + used + 1;
	size_t left = used + 1 < LISTS_TEXT_SIZE ? strnlen(second, LISTS_TEXT_SIZE - used - 1) : 0;

	memcpy(label, entry->text, used);
	label[used] = '\0';
	if (!left || left + used + 2 > LISTS_TEXT_SIZE) {
		memcpy(reason, label, used + 1);
		return;
	}
	memcpy(reason, second, left);
	reason[left] = '\0';
}

bool lists_has_label(const struct sluice_list_entry *entry, const char *label)
{
	return !strncmp(entry->text, label, LISTS_TEXT_SIZE);
}

bool lists_is_wide(const struct sluice_addr *addr, unsigned prefix_len)
{
	if (addr_is_ipv4(addr) && prefix_len >= MAPPED_PREFIX_BITS)
		return prefix_len < MAPPED_PREFIX_BITS + LISTS_WIDE4;
	return prefix_len < LISTS_WIDE6;
}

/* --- what the gate remembers --------------------------------------------------------------------------------------------- */
/* A denial that the gate finds from here on, it finds in the entries as they are now. */
static int forget_denials(struct lists *lists)
{
	struct sluice_denial last = {.stamp = (__u64)++lists->generation << 32};
	uint32_t slot = SLUICE_DENIALS_SLOTS;

	return bpf_map_update_elem(lists->denials_fd, &slot, &last, BPF_ANY);
}

static int read_generation(struct lists *lists)
{
	struct sluice_denial last;
	uint32_t slot = SLUICE_DENIALS_SLOTS;
	int err = bpf_map_lookup_elem(lists->denials_fd, &slot, &last);

	if (!err)
		lists->generation = (uint32_t)(last.stamp >> 32);
	return err;
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
static int batch_read(int fd, struct lists_cursor *cursor, struct batch *batch, bool may_grow, bool *end)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts);

	for (;;) {
		uint32_t count = batch->room, next = 0;
		int err = bpf_map_lookup_batch(fd, cursor->started ? &cursor->bucket : NULL, &next, batch->keys,
			batch->entries, &count, &opts);

		if (err == -ENOSPC && may_grow) { /* one bucket holds more than the batch: no position was lost */
			err = batch_resize(batch, batch->room * 2);
			if (err)
				return err;
			continue;
		}
		if (err && err != -ENOENT)
			return err;
		*end = err == -ENOENT;
		cursor->bucket = next;
		cursor->skip = 0;
		cursor->started = !*end;
		return (int)count;
	}
}

int lists_each(struct lists *lists, enum sluice_list list,
	int (*visit)(const struct sluice_list_key *, const struct sluice_list_entry *, void *), void *arg)
{
	struct lists_cursor cursor = {0};
	struct batch batch = {0};
	bool end = false;
	int result = batch_resize(&batch, BATCH_ENTRIES);

	while (!result && !end) {
		int got = batch_read(lists->lists_fd, &cursor, &batch, true, &end);

		if (got < 0)
			result = got;
		for (int i = 0; i < got && !result; i++)
			if (batch.keys[i].list == list)
				result = visit(&batch.keys[i], &batch.entries[i], arg);
	}
	batch_free(&batch);
	return result;
}

int lists_page(int lists_fd, enum sluice_list list, struct lists_cursor *cursor, unsigned limit, unsigned look,
	int (*visit)(const struct sluice_list_key *, const struct sluice_list_entry *, void *), void *arg, bool *end)
{
	struct batch batch = {0};
	unsigned taken = 0, looked = 0;
	int err = 0;

	*end = false;
	while (!err && !*end && taken < limit && looked < look) {
		struct lists_cursor here = *cursor;
		unsigned skip = here.skip;
		int got;

		/* No more than still fits the page: then all that was read fits, and the place is between two buckets. */
		err = batch_resize(&batch, limit - taken < BATCH_ENTRIES ? limit - taken + skip : BATCH_ENTRIES);
		if (err)
			break;
		got = batch_read(lists_fd, cursor, &batch, taken == 0, end);
		if (got == -ENOSPC)
			break; /* the next bucket holds more: a shorter page, then, that ends between two */
		if (got < 0) {
			err = got;
			break;
		}
		/* Unless one bucket alone holds more than a page: the place is then inside it. */
		for (int i = (int)skip; i < got; i++) {
			if (taken == limit) {
				*cursor = (struct lists_cursor){here.started ? here.bucket : 0, (uint32_t)i, true};
				*end = false;
				break;
			}
			looked++;
			taken += batch.keys[i].list == list && visit(&batch.keys[i], &batch.entries[i], arg);
		}
		looked += got == 0; /* so that a long empty stretch ends a page, too */
	}
	batch_free(&batch);
	return err ? err : (int)taken;
}

/* --- opening ------------------------------------------------------------------------------------------------------------- */
static int count_entries(struct lists *lists)
{
	struct lists_cursor cursor = {0};
	struct batch batch = {0};
	bool end = false;
	int err = batch_resize(&batch, BATCH_ENTRIES);

	while (!err && !end) {
		int got = batch_read(lists->lists_fd, &cursor, &batch, true, &end);

		if (got < 0)
			err = got;
		for (int i = 0; i < got && !err; i++) {
			if (!is_valid(&batch.keys[i]))
				continue; /* not from us; the gate cannot match it either */
			err = lists_index_add(&lists->index, &batch.keys[i]);
			lists->entries[batch.keys[i].list]++;
		}
	}
	batch_free(&batch);
	return err;
}

static int read_capacity(struct lists *lists)
{
	struct bpf_map_info info = {0};
	uint32_t size = sizeof(info);

	if (bpf_obj_get_info_by_fd(lists->lists_fd, &info, &size))
		return -errno;
	lists->capacity = info.max_entries;
	return 0;
}

struct lists *lists_open(int lists_fd, int index_fd, int denials_fd)
{
	struct lists *lists = calloc(1, sizeof(*lists));
	int err;

	if (!lists) {
		errno = ENOMEM;
		return NULL;
	}
	lists->lists_fd = lists_fd;
	lists->denials_fd = denials_fd;
	err = lists_index_open(&lists->index, index_fd);
	if (!err)
		err = read_capacity(lists);
	if (!err)
		err = count_entries(lists);
	if (!err)
		err = lists_index_repair(&lists->index);
	if (!err)
		err = read_generation(lists);
	if (!err) /* whoever wrote before may have gone between a change and this */
		err = forget_denials(lists);
	if (!err)
		return lists;
	lists_close(lists);
	errno = -err;
	return NULL;
}

void lists_close(struct lists *lists)
{
	if (!lists)
		return;
	lists_index_close(&lists->index);
	free(lists);
}

/* --- one entry ----------------------------------------------------------------------------------------------------------- */
int lists_put(struct lists *lists, enum sluice_list list, const struct sluice_addr *addr, unsigned prefix_len,
	__u64 expires_wall, const char *text)
{
	struct sluice_list_entry entry = {.expires_wall = expires_wall}, old;
	struct sluice_list_key key;
	int err;

	if (make_key(&key, list, addr, prefix_len))
		return -EINVAL;
	lists_make_text(entry.text, text ? text : "", "");
	/* A new entry is the common case: one system call where its bits are set already. */
	err = lists_index_add(&lists->index, &key);
	if (err)
		return err;
	err = lists_index_flush(&lists->index);
	if (!err)
		err = bpf_map_update_elem(lists->lists_fd, &key, &entry, BPF_NOEXIST);
	if (!err) {
		lists->entries[list]++;
		return list == SLUICE_LIST_ALLOW ? forget_denials(lists) : 0;
	}
	/* A bit that cannot be cleared is a bit too many: allowed. */
	lists_index_drop(&lists->index, &key);
	lists_index_flush(&lists->index);
	if (err != -EEXIST)
		return err;
	/* Hits that the gate counts between reading and writing are lost: a handful in a figure for people. */
	if (bpf_map_lookup_elem(lists->lists_fd, &key, &old) == 0)
		entry.hits = old.hits;
	err = bpf_map_update_elem(lists->lists_fd, &key, &entry, BPF_EXIST);
	return err ? err : forget_denials(lists);
}

static void count_out(struct lists *lists, const struct sluice_list_key *key)
{
	lists->entries[key->list]--;
	lists_index_drop(&lists->index, key);
}

int lists_remove(struct lists *lists, enum sluice_list list, const struct sluice_addr *addr, unsigned prefix_len)
{
	struct sluice_list_key key;
	int err;

	if (make_key(&key, list, addr, prefix_len))
		return -ENOENT;
	err = bpf_map_delete_elem(lists->lists_fd, &key);
	if (err)
		return err;
	count_out(lists, &key);
	lists_index_flush(&lists->index);
	return forget_denials(lists);
}

/* --- many entries: removing ---------------------------------------------------------------------------------------------- */
/* Removes keys that are there. Returns how many were, or negative errno. */
static int remove_many(struct lists *lists, const struct sluice_list_key *keys, uint32_t count)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts);
	uint32_t at = 0;
	int removed = 0, err = 0;

	while (at < count && !err) {
		uint32_t done = count - at;

		err = bpf_map_delete_batch(lists->lists_fd, keys + at, &done, &opts);
		if (err && done == count - at)
			done = 0; /* it failed before the first one */
		for (uint32_t i = 0; i < done; i++)
			count_out(lists, &keys[at + i]);
		removed += (int)done;
		at += done;
		if (err == -ENOENT) { /* the batch stops at a key that is not there */
			at++;
			err = 0;
		}
	}
	lists_index_flush(&lists->index);
	if (removed) {
		int forgot = forget_denials(lists);

		return forgot ? forgot : removed;
	}
	return err;
}

/* Reads one batch from `cursor` and removes what `condemned` says of it. Returns how many were read, or negative errno. */
static int remove_from_batch(struct lists *lists, struct lists_cursor *cursor, struct batch *batch, bool *end,
	bool (*condemned)(const struct sluice_list_key *, const struct sluice_list_entry *, const void *),
	const void *arg, int *removed)
{
	int got = batch_read(lists->lists_fd, cursor, batch, true, end), done;
	uint32_t doomed = 0;

	for (int i = 0; i < got; i++)
		if (is_valid(&batch->keys[i]) && condemned(&batch->keys[i], &batch->entries[i], arg))
			batch->keys[doomed++] = batch->keys[i];
	done = doomed ? remove_many(lists, batch->keys, doomed) : 0;
	if (done < 0)
		return done;
	*removed += done;
	return got;
}

static bool has_expired(const struct sluice_list_key *key, const struct sluice_list_entry *entry, const void *arg)
{
	(void)key;
	return entry->expires_wall && entry->expires_wall <= *(const __u64 *)arg;
}

int lists_sweep(struct lists *lists, __u64 wall_ns, unsigned budget)
{
	struct batch batch = {0};
	int removed = 0, err = 0;
	bool end = false;

	while (!err && !end && budget > 0) {
		int got = batch_resize(&batch, budget < BATCH_ENTRIES ? budget : BATCH_ENTRIES);

		if (!got)
			got = remove_from_batch(lists, &lists->sweep, &batch, &end, has_expired, &wall_ns, &removed);
		if (got < 0) {
			lists->sweep.started = false;
			err = got;
		} else {
			budget -= (unsigned)got < budget ? (unsigned)got : budget;
		}
	}
	batch_free(&batch);
	return removed ? removed : err;
}

struct label {
	enum sluice_list list;
	const char *text;
};

static bool is_labelled(const struct sluice_list_key *key, const struct sluice_list_entry *entry, const void *arg)
{
	const struct label *label = arg;

	return key->list == label->list && lists_has_label(entry, label->text);
}

int lists_remove_label(struct lists *lists, enum sluice_list list, const char *label)
{
	struct label wanted = {list, label};
	struct lists_cursor cursor = {0};
	struct batch batch = {0};
	bool end = false;
	int removed = 0, got = batch_resize(&batch, BATCH_ENTRIES);

	while (got >= 0 && !end)
		got = remove_from_batch(lists, &cursor, &batch, &end, is_labelled, &wanted, &removed);
	batch_free(&batch);
	return got < 0 ? got : removed;
}

/* --- many entries: putting ----------------------------------------------------------------------------------------------- */
enum fate { FATE_NEW, FATE_WRITE, FATE_LEAVE };

struct order {
	uint32_t at;
	uint8_t fate; /* enum fate */
};

static int compare_keys(const void *left, const void *right, void *arg)
{
	const struct sluice_list_key *keys = arg;
	uint32_t a = ((const struct order *)left)->at, b = ((const struct order *)right)->at;
	int difference = memcmp(&keys[a], &keys[b], sizeof(keys[a]));

	return difference ? difference : a < b ? -1 : a > b;
}

/* What becomes of one entry; counts it in `result`. */
static int decide(struct lists *lists, const struct sluice_list_key *key, struct sluice_list_entry *entry,
	__u64 wall_ns, unsigned flags, struct lists_result *result)
{
	struct sluice_list_entry old;
	int err = bpf_map_lookup_elem(lists->lists_fd, key, &old);

	entry->hits = 0;
	if (err == -ENOENT) {
		result->added++;
		result->needed++;
		return FATE_NEW;
	}
	if (err)
		return err;
	if (old.expires_wall && old.expires_wall <= wall_ns) {
		result->added++;
		return FATE_WRITE;
	}
	/* Hits that the gate counts between here and the writing are lost: a handful in a figure for people. */
	entry->hits = old.hits;
	old.text[sizeof(old.text) - 1] = '\0';
	if (lists_has_label(entry, old.text)) {
		result->refreshed++;
		return memcmp(&old, entry, sizeof(old)) ? FATE_WRITE : FATE_LEAVE;
	}
	if (!(flags & LISTS_OVERWRITE)) {
		result->kept++;
		return FATE_LEAVE;
	}
	result->replaced++;
	return FATE_WRITE;
}

static int decide_all(struct lists *lists, const struct sluice_list_key *keys, struct sluice_list_entry *entries,
	struct order *order, unsigned count, __u64 wall_ns, unsigned flags, struct lists_result *result)
{
	memset(result, 0, sizeof(*result));
	for (unsigned i = 0; i < count; i++) {
		const struct sluice_list_key *key = &keys[order[i].at];
		int fate;

		order[i].fate = FATE_LEAVE;
		if (i + 1 < count && !memcmp(key, &keys[order[i + 1].at], sizeof(*key))) {
			result->duplicates++;
			continue;
		}
		fate = decide(lists, key, &entries[order[i].at], wall_ns, flags, result);
		if (fate < 0)
			return fate;
		order[i].fate = (uint8_t)fate;
	}
	result->room = lists_room(lists);
	return 0;
}

/* The bits of what is new; on an error none of them stays counted. */
static int add_to_index(
	struct lists *lists, const struct sluice_list_key *keys, const struct order *order, unsigned count)
{
	unsigned i;
	int err = 0;

	for (i = 0; i < count && !err; i++)
		if (order[i].fate == FATE_NEW)
			err = lists_index_add(&lists->index, &keys[order[i].at]);
	if (!err)
		err = lists_index_flush(&lists->index);
	else
		i--; /* the one that failed */
	if (!err)
		return 0;
	while (i-- > 0)
		if (order[i].fate == FATE_NEW)
			lists_index_drop(&lists->index, &keys[order[i].at]);
	lists_index_flush(&lists->index);
	return err;
}

static int write_slice(struct lists *lists, const struct sluice_list_key *keys, const struct sluice_list_entry *entries,
	const struct order *order, unsigned count, struct batch *batch)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts);
	uint32_t written, filled = 0;
	bool changed = false;
	int err = add_to_index(lists, keys, order, count);

	if (err)
		return err;
	for (unsigned i = 0; i < count; i++) {
		if (order[i].fate == FATE_LEAVE)
			continue;
		batch->keys[filled] = keys[order[i].at];
		batch->entries[filled++] = entries[order[i].at];
	}
	written = filled;
	err = filled ? bpf_map_update_batch(lists->lists_fd, batch->keys, batch->entries, &written, &opts) : 0;
	if (err && written == filled)
		written = 0; /* it failed before the first one */
	filled = 0;
	for (unsigned i = 0; i < count; i++) {
		if (order[i].fate == FATE_LEAVE)
			continue;
		changed |= order[i].fate == FATE_WRITE || keys[order[i].at].list == SLUICE_LIST_ALLOW;
		if (order[i].fate == FATE_NEW && filled < written)
			lists->entries[keys[order[i].at].list]++;
		else if (order[i].fate == FATE_NEW)
			lists_index_drop(&lists->index, &keys[order[i].at]);
		filled++;
	}
	if (err)
		lists_index_flush(&lists->index);
	if (changed) {
		int forgot = forget_denials(lists);

		err = err ? err : forgot;
	}
	return err;
}

int lists_put_many(struct lists *lists, const struct sluice_list_key *keys, struct sluice_list_entry *entries,
	unsigned count, __u64 wall_ns, unsigned flags, struct lists_result *result)
{
	struct order *order = calloc(count ? count : 1, sizeof(*order));
	struct batch batch = {0};
	int err = order ? batch_resize(&batch, BATCH_ENTRIES) : -ENOMEM;

	memset(result, 0, sizeof(*result));
	for (unsigned i = 0; i < count && !err; i++) {
		order[i].at = i;
		err = is_valid(&keys[i]) ? 0 : -EINVAL;
	}
	if (err)
		goto out_free;
	qsort_r(order, count, sizeof(*order), compare_keys, (void *)(uintptr_t)keys);
	err = decide_all(lists, keys, entries, order, count, wall_ns, flags, result);
	if (!err && (result->needed > result->room || flags & LISTS_SWEEP)) {
		lists->sweep.started = false;
		lists_sweep(lists, wall_ns, UINT32_MAX);
		err = decide_all(lists, keys, entries, order, count, wall_ns, flags, result);
	}
	if (!err && result->needed > result->room)
		err = -E2BIG;
	for (unsigned at = 0; at < count && !err && !(flags & LISTS_DRY_RUN); at += BATCH_ENTRIES) {
		unsigned left = count - at;

		err = write_slice(
			lists, keys, entries, order + at, left < BATCH_ENTRIES ? left : BATCH_ENTRIES, &batch);
		result->room = lists_room(lists);
	}
out_free:
	batch_free(&batch);
	free(order);
	return err;
}

unsigned lists_count(const struct lists *lists, enum sluice_list list)
{
	return list == SLUICE_LIST_DENY || list == SLUICE_LIST_ALLOW ? lists->entries[list] : 0;
}

unsigned lists_room(const struct lists *lists)
{
	unsigned used = lists->entries[SLUICE_LIST_DENY] + lists->entries[SLUICE_LIST_ALLOW];

	return used < lists->capacity ? lists->capacity - used : 0;
}
