/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Deny and allow lists on real BPF maps (needs root): the index of prefix lengths never lacks a bit for an entry and has none too many
 * once things are quiet; a second opening finds the same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <bpf/bpf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/addr.h"
#include "common/lists.h"

#define SMALL 4096

struct place {
	int lists_fd, index_fd, denials_fd;
	struct lists *lists;
};

static int make_place_of(void **state, uint32_t entries)
{
	struct place *place = calloc(1, sizeof(*place));

	if (!place)
		return -1;
	*state = place;
	place->lists_fd = bpf_map_create(BPF_MAP_TYPE_HASH, "test_lists", sizeof(struct sluice_list_key),
		sizeof(struct sluice_list_entry), entries, NULL);
	place->index_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "test_index", sizeof(uint32_t),
		sizeof(struct sluice_list_index), SLUICE_INDEX_SLOTS, NULL);
	place->denials_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "test_denials", sizeof(uint32_t),
		sizeof(struct sluice_denial), SLUICE_DENIALS_SLOTS + 1, NULL);
	if (place->lists_fd < 0 || place->index_fd < 0 || place->denials_fd < 0)
		return 0; /* no privilege: need_place skips the test */
	place->lists = lists_open(place->lists_fd, place->index_fd, place->denials_fd);
	return place->lists ? 0 : -1;
}

static int make_place(void **state)
{
	return make_place_of(state, SMALL);
}

static int make_large_place(void **state)
{
	return make_place_of(state, 1048576);
}

static int remove_place(void **state)
{
	struct place *place = *state;

	lists_close(place->lists);
	if (place->lists_fd >= 0)
		close(place->lists_fd);
	if (place->index_fd >= 0)
		close(place->index_fd);
	if (place->denials_fd >= 0)
		close(place->denials_fd);
	free(place);
	return 0;
}

static struct place *need_place(void **state)
{
	struct place *place = *state;

	if (!place->lists) {
		print_message("needs root to create BPF maps\n");
		skip();
	}
	return place;
}

static int put(struct place *place, enum sluice_list list, const char *prefix, uint64_t expires)
{
	struct sluice_addr addr;
	unsigned len;

	assert_int_equal(prefix_parse(prefix, &addr, &len), 0);
	return lists_put(place->lists, list, &addr, len, expires, prefix);
}

static int drop(struct place *place, enum sluice_list list, const char *prefix)
{
	struct sluice_addr addr;
	unsigned len;

	assert_int_equal(prefix_parse(prefix, &addr, &len), 0);
	return lists_remove(place->lists, list, &addr, len);
}

/* The slot in which the gate would look for an address, as abi.h describes it. */
static struct sluice_list_index index_of(struct place *place, const char *text, bool short6)
{
	struct sluice_list_index index;
	struct sluice_addr addr;
	uint32_t slot;

	assert_int_equal(addr_parse(text, &addr), 0);
	if (addr_is_ipv4(&addr))
		slot = (uint32_t)addr.lo >> 16;
	else
		slot = short6 ? SLUICE_INDEX_SHORT6 : SLUICE_INDEX_V6 + sluice_index_hash((uint32_t)(addr.hi >> 32));
	assert_int_equal(bpf_map_lookup_elem(place->index_fd, &slot, &index), 0);
	return index;
}

static bool bit(const uint64_t words[2], unsigned len)
{
	return words[(len - 1) / 64] >> (len - 1) % 64 & 1;
}
#define DENY_BIT(place, addr, len) bit((const uint64_t *)index_of(place, addr, false).deny, len)
#define ALLOW_BIT(place, addr, len) bit((const uint64_t *)index_of(place, addr, false).allow, len)

static bool index_is_empty(struct place *place)
{
	static struct sluice_list_index index[SLUICE_INDEX_SLOTS], zero;
	static uint32_t slots[SLUICE_INDEX_SLOTS];
	uint32_t count = SLUICE_INDEX_SLOTS, next;

	bpf_map_lookup_batch(place->index_fd, NULL, &next, slots, index, &count, NULL);
	assert_int_equal(count, SLUICE_INDEX_SLOTS);
	for (uint32_t i = 0; i < count; i++)
		if (memcmp(&index[i], &zero, sizeof(zero)))
			return false;
	return true;
}

static void an_entry_sets_its_bit_and_takes_it_away(void **state)
{
	struct place *place = need_place(state);

	assert_int_equal(put(place, SLUICE_LIST_DENY, "192.0.2.0/24", 0), 0);
	assert_true(DENY_BIT(place, "192.0.77.1", 120));
	assert_false(DENY_BIT(place, "192.1.2.1", 120));
	assert_false(ALLOW_BIT(place, "192.0.2.1", 120));
	assert_int_equal(put(place, SLUICE_LIST_ALLOW, "2001:db8::/48", 0), 0);
	assert_true(ALLOW_BIT(place, "2001:db8:9::1", 48));
	assert_int_equal(lists_count(place->lists, SLUICE_LIST_DENY), 1);
	assert_int_equal(lists_count(place->lists, SLUICE_LIST_ALLOW), 1);
	assert_int_equal(drop(place, SLUICE_LIST_DENY, "192.0.2.0/24"), 0);
	assert_int_equal(drop(place, SLUICE_LIST_DENY, "192.0.2.0/24"), -ENOENT);
	assert_int_equal(drop(place, SLUICE_LIST_ALLOW, "2001:db8::/48"), 0);
	assert_true(index_is_empty(place));
}

static void a_bit_stays_while_a_neighbour_needs_it(void **state)
{
	struct place *place = need_place(state);

	assert_int_equal(put(place, SLUICE_LIST_DENY, "192.0.2.0/24", 0), 0);
	assert_int_equal(put(place, SLUICE_LIST_DENY, "192.0.3.0/24", 0), 0);
	assert_int_equal(drop(place, SLUICE_LIST_DENY, "192.0.2.0/24"), 0);
	assert_true(DENY_BIT(place, "192.0.3.1", 120));
	assert_int_equal(drop(place, SLUICE_LIST_DENY, "192.0.3.0/24"), 0);
	assert_true(index_is_empty(place));
}

static void wide_prefixes_are_in_every_slot_they_cover(void **state)
{
	struct place *place = need_place(state);

	assert_int_equal(put(place, SLUICE_LIST_DENY, "10.0.0.0/8", 0), 0);
	assert_int_equal(put(place, SLUICE_LIST_DENY, "0.0.0.0/0", 0), 0);
	assert_int_equal(put(place, SLUICE_LIST_DENY, "2000::/3", 0), 0);
	assert_true(DENY_BIT(place, "10.0.0.1", 104) && DENY_BIT(place, "10.255.0.1", 104));
	assert_false(DENY_BIT(place, "9.255.0.1", 104) || DENY_BIT(place, "11.0.0.1", 104));
	assert_true(DENY_BIT(place, "0.0.0.1", 96) && DENY_BIT(place, "255.255.0.1", 96));
	assert_true(bit((const uint64_t *)index_of(place, "2001::1", true).deny, 3));
	assert_int_equal(drop(place, SLUICE_LIST_DENY, "0.0.0.0/0"), 0);
	assert_true(DENY_BIT(place, "10.9.0.1", 104));
	assert_false(DENY_BIT(place, "10.9.0.1", 96));
	assert_int_equal(drop(place, SLUICE_LIST_DENY, "10.0.0.0/8"), 0);
	assert_int_equal(drop(place, SLUICE_LIST_DENY, "2000::/3"), 0);
	assert_true(index_is_empty(place));
}

static void replacing_keeps_hits_and_counts_once(void **state)
{
	struct place *place = need_place(state);
	struct sluice_list_key key = {.list = SLUICE_LIST_DENY, .prefix_len = 128};
	struct sluice_list_entry entry;

	assert_int_equal(put(place, SLUICE_LIST_DENY, "192.0.2.1", 0), 0);
	assert_int_equal(addr_parse("192.0.2.1", &key.addr), 0);
	assert_int_equal(bpf_map_lookup_elem(place->lists_fd, &key, &entry), 0);
	assert_string_equal(entry.text, "192.0.2.1");
	entry.hits = 77; /* as the gate counts */
	assert_int_equal(bpf_map_update_elem(place->lists_fd, &key, &entry, BPF_EXIST), 0);
	assert_int_equal(lists_put(place->lists, SLUICE_LIST_DENY, &key.addr, 128, 12345,
				 "a reason that is far longer than the thirty-two bytes that an entry has for it"),
		0);
	assert_int_equal(bpf_map_lookup_elem(place->lists_fd, &key, &entry), 0);
	assert_true(entry.hits == 77 && entry.expires_wall == 12345 && strlen(entry.text) == 31);
	assert_int_equal(lists_count(place->lists, SLUICE_LIST_DENY), 1);
	assert_int_equal(drop(place, SLUICE_LIST_DENY, "192.0.2.1"), 0);
	assert_true(index_is_empty(place));
}

static void what_the_gate_could_not_match_is_refused(void **state)
{
	struct place *place = need_place(state);
	struct sluice_addr addr = {.lo = 0xffffc0000201ULL};

	assert_int_equal(lists_put(place->lists, SLUICE_LIST_DENY, &addr, 0, 0, ""), -EINVAL);
	assert_int_equal(lists_put(place->lists, SLUICE_LIST_DENY, &addr, 129, 0, ""), -EINVAL);
	assert_int_equal(lists_put(place->lists, SLUICE_LIST_DENY, &addr, 120, 0, ""), -EINVAL); /* host bits */
	assert_int_equal(lists_put(place->lists, (enum sluice_list)3, &addr, 128, 0, ""), -EINVAL);
	assert_true(index_is_empty(place));
}

static void a_full_list_refuses_and_leaves_no_bit(void **state)
{
	struct place *place = need_place(state);
	struct sluice_addr addr;

	for (uint32_t i = 0; i < SMALL; i++) {
		addr = (struct sluice_addr){.lo = 0xffff0a000000ULL + i};
		assert_int_equal(lists_put(place->lists, SLUICE_LIST_DENY, &addr, 128, 0, ""), 0);
	}
	assert_int_equal(put(place, SLUICE_LIST_DENY, "203.0.113.0/24", 0), -E2BIG);
	assert_false(DENY_BIT(place, "203.0.113.1", 120));
	assert_int_equal(put(place, SLUICE_LIST_DENY, "10.0.0.7", 99), 0); /* replacing needs no room */
	assert_int_equal(lists_count(place->lists, SLUICE_LIST_DENY), SMALL);
}

static void the_sweep_removes_what_expired_and_only_that(void **state)
{
	struct place *place = need_place(state);
	struct sluice_addr addr;
	int removed = 0;

	for (uint32_t i = 0; i < 3000; i++) {
		addr = (struct sluice_addr){.lo = 0xffff00000000ULL + ((uint64_t)i << 16)};
		assert_int_equal(lists_put(place->lists, i % 2 ? SLUICE_LIST_DENY : SLUICE_LIST_ALLOW, &addr, 128,
					 i % 3 * 1000, ""),
			0);
	}
	for (int call = 0; call < 200; call++) { /* 100 at a time: two rounds and more through the map */
		int n = lists_sweep(place->lists, 1000, 100);

		assert_in_range(n, 0, 100);
		removed += n;
	}
	assert_int_equal(removed, 1000);
	assert_int_equal(
		lists_count(place->lists, SLUICE_LIST_DENY) + lists_count(place->lists, SLUICE_LIST_ALLOW), 2000);
	/* A call ends at the end of the map; the next one begins at its start. */
	removed = lists_sweep(place->lists, UINT64_MAX, UINT32_MAX);
	removed += lists_sweep(place->lists, UINT64_MAX, UINT32_MAX);
	assert_int_equal(removed, 1000);
	assert_int_equal(
		lists_count(place->lists, SLUICE_LIST_DENY) + lists_count(place->lists, SLUICE_LIST_ALLOW), 1000);
}

static int count_visit(const struct sluice_list_key *key, const struct sluice_list_entry *entry, void *arg)
{
	(void)key;
	(void)entry;
	++*(unsigned *)arg;
	return 0;
}

static int stop_visit(const struct sluice_list_key *key, const struct sluice_list_entry *entry, void *arg)
{
	count_visit(key, entry, arg);
	return 42;
}

static void each_visits_one_list_once(void **state)
{
	struct place *place = need_place(state);
	struct sluice_addr addr;
	unsigned seen = 0;

	for (uint32_t i = 0; i < 1000; i++) {
		addr = (struct sluice_addr){.hi = 0x20010db800000000ULL, .lo = i};
		assert_int_equal(
			lists_put(place->lists, i < 300 ? SLUICE_LIST_DENY : SLUICE_LIST_ALLOW, &addr, 128, 0, ""), 0);
	}
	assert_int_equal(lists_each(place->lists, SLUICE_LIST_DENY, count_visit, &seen), 0);
	assert_int_equal(seen, 300);
	seen = 0;
	assert_int_equal(lists_each(place->lists, SLUICE_LIST_ALLOW, stop_visit, &seen), 42);
	assert_int_equal(seen, 1);
}

/* A model without any index: after each change, the bits of a slot are exactly the lengths of the entries that touch it. */
static void random_changes_keep_index_and_entries_in_step(void **state)
{
	struct place *place = need_place(state);
	const char *seed_text = getenv("SLUICE_SEED");
	unsigned seed = seed_text ? (unsigned)strtoul(seed_text, NULL, 0) : 20261122u;
	enum { ENTRIES = 64 };
	struct {
		struct sluice_addr addr;
		unsigned len;
		enum sluice_list list;
		bool there;
	} model[ENTRIES];

	print_message("seed %u\n", seed);
	srandom(seed);
	for (int i = 0; i < ENTRIES; i++) {
		bool v4 = random() % 2;

		model[i].list = random() % 2 ? SLUICE_LIST_DENY : SLUICE_LIST_ALLOW;
		model[i].there = false;
		/* Few values, so that entries meet in slots; each length once per family and list, so that none are equal. */
		model[i].len = v4 ? 96 + (unsigned)i % 33 : 1 + (unsigned)i * 2;
		model[i].addr.hi = v4 ? 0 : 0x20010db800000000ULL;
		model[i].addr.lo = v4 ? 0xffff00000000ULL |
				(0x0a010000u & ~(model[i].len == 128 ? 0 : 0xffffffffu >> (model[i].len - 96)))
				      : 0;
		if (!v4 && model[i].len < 64)
			model[i].addr.hi &= ~(~0ULL >> model[i].len);
		for (int j = 0; j < i; j++)
			if (model[j].len == model[i].len && model[j].list == model[i].list &&
				model[j].addr.lo == model[i].addr.lo && model[j].addr.hi == model[i].addr.hi)
				model[i].len = 0; /* a twin: not used */
	}
	for (int step = 0; step < 3000; step++) {
		static const char *const probes[] = {"10.1.0.0", "10.0.0.0", "192.0.2.1"};
		int i = (int)(random() % ENTRIES);

		if (!model[i].len)
			continue;
		if (model[i].there)
			assert_int_equal(lists_remove(place->lists, model[i].list, &model[i].addr, model[i].len), 0);
		else
			assert_int_equal(
				lists_put(place->lists, model[i].list, &model[i].addr, model[i].len, 0, ""), 0);
		model[i].there = !model[i].there;
		if (step % 500 == 499) { /* the daemon restarts */
			lists_close(place->lists);
			place->lists = lists_open(place->lists_fd, place->index_fd, place->denials_fd);
			assert_non_null(place->lists);
		}
		for (size_t p = 0; p < sizeof(probes) / sizeof(probes[0]); p++) {
			struct sluice_list_index found = index_of(place, probes[p], false), expected = {0};
			struct sluice_addr addr;

			assert_int_equal(addr_parse(probes[p], &addr), 0);
			for (int j = 0; j < ENTRIES; j++) {
				unsigned slot_len = model[j].len < 112 ? model[j].len : 112;
				uint64_t mask = slot_len < 96 ? 0 : ~0ULL << (128 - slot_len);

				if (!model[j].there || model[j].addr.hi || model[j].len < 96 ||
					(addr.lo & mask) != (model[j].addr.lo & mask))
					continue;
				(model[j].list == SLUICE_LIST_DENY ? expected.deny
								   : expected.allow)[(model[j].len - 1) / 64] |= 1ULL
					<< (model[j].len - 1) % 64;
			}
			assert_memory_equal(&found, &expected, sizeof(found));
		}
	}
}

static void opening_repairs_an_index_that_a_crash_left(void **state)
{
	struct place *place = need_place(state);
	struct sluice_list_index wrong = {.deny = {~0ULL, 0}};
	struct sluice_list_index none = {0};
	uint32_t unused_slot = 5, used_slot = 0xc000;

	assert_int_equal(put(place, SLUICE_LIST_DENY, "192.0.2.0/24", 0), 0);
	assert_int_equal(bpf_map_update_elem(place->index_fd, &unused_slot, &wrong, BPF_ANY), 0);
	assert_int_equal(bpf_map_update_elem(place->index_fd, &used_slot, &none, BPF_ANY), 0);
	lists_close(place->lists);
	place->lists = lists_open(place->lists_fd, place->index_fd, place->denials_fd);
	assert_non_null(place->lists);
	assert_true(DENY_BIT(place, "192.0.2.1", 120));
	assert_int_equal(drop(place, SLUICE_LIST_DENY, "192.0.2.0/24"), 0);
	assert_true(index_is_empty(place));
}

/* --- many entries at once ------------------------------------------------------------------------------------------------ */
static struct sluice_list_key key_of(enum sluice_list list, const char *prefix)
{
	struct sluice_list_key key = {.list = (__u8)list};
	unsigned len;

	assert_int_equal(prefix_parse(prefix, &key.addr, &len), 0);
	key.prefix_len = (__u8)len;
	return key;
}

static int put_many(struct place *place, const char *const *prefixes, unsigned count, const char *label,
	uint64_t expires, unsigned flags, struct lists_result *result)
{
	struct sluice_list_key keys[64];
	struct sluice_list_entry entries[64];

	assert_in_range(count, 0, 64);
	memset(entries, 0, sizeof(entries));
	for (unsigned i = 0; i < count; i++) {
		keys[i] = key_of(SLUICE_LIST_DENY, prefixes[i]);
		entries[i].expires_wall = expires;
		lists_make_text(entries[i].text, label, "");
	}
	return lists_put_many(place->lists, keys, entries, count, 1000, flags, result);
}

static struct sluice_list_entry entry_of(struct place *place, const char *prefix)
{
	struct sluice_list_key key = key_of(SLUICE_LIST_DENY, prefix);
	struct sluice_list_entry entry;

	assert_int_equal(bpf_map_lookup_elem(place->lists_fd, &key, &entry), 0);
	return entry;
}

static uint64_t generation_of(struct place *place)
{
	uint32_t slot = SLUICE_DENIALS_SLOTS;
	struct sluice_denial last;

	assert_int_equal(bpf_map_lookup_elem(place->denials_fd, &slot, &last), 0);
	return last.stamp >> 32;
}

/* Expects that what the gate remembers is void after `change`, or (0) that it stays. */
#define expect_forgotten(place, times, change) \
	do { \
		uint64_t before = generation_of(place); \
\
		assert_int_equal(change, 0); \
		assert_int_equal(generation_of(place) - before, times); \
	} while (0)

static void every_change_that_may_end_a_denial_makes_the_gate_forget(void **state)
{
	struct place *place = need_place(state);
	struct sluice_list_key keys[2] = {
		key_of(SLUICE_LIST_DENY, "192.0.2.0/24"), key_of(SLUICE_LIST_DENY, "198.51.100.1")};
	struct sluice_list_entry entries[2] = {{.text = "feed"}, {.text = "feed"}};
	struct lists_result result;

	assert_true(generation_of(place) > 0); /* opening forgets what a writer that died may have left */
	expect_forgotten(place, 0, put(place, SLUICE_LIST_DENY, "192.0.2.0/24", 0));
	expect_forgotten(place, 1, put(place, SLUICE_LIST_DENY, "192.0.2.0/24", 5000));
	expect_forgotten(place, 1, put(place, SLUICE_LIST_ALLOW, "192.0.2.1", 0));
	expect_forgotten(place, 1, drop(place, SLUICE_LIST_DENY, "192.0.2.0/24"));
	expect_forgotten(place, 0, drop(place, SLUICE_LIST_DENY, "192.0.2.0/24") + ENOENT);
	expect_forgotten(place, 0, lists_put_many(place->lists, keys, entries, 2, 1000, 0, &result));
	expect_forgotten(place, 0, lists_put_many(place->lists, keys, entries, 2, 1000, 0, &result));
	entries[1].expires_wall = 2000;
	expect_forgotten(place, 0, lists_put_many(place->lists, keys, entries, 2, 1000, LISTS_DRY_RUN, &result));
	expect_forgotten(place, 1, lists_put_many(place->lists, keys, entries, 2, 1000, 0, &result));
	expect_forgotten(place, 0, lists_sweep(place->lists, 1000, SMALL));
	expect_forgotten(place, 1, lists_sweep(place->lists, 2000, SMALL) - 1);
	expect_forgotten(place, 1, lists_remove_label(place->lists, SLUICE_LIST_DENY, "feed") - 1);
	keys[0].list = SLUICE_LIST_ALLOW;
	expect_forgotten(place, 1, lists_put_many(place->lists, keys, entries, 2, 1000, 0, &result));
}

static void a_label_keeps_its_entries_unless_told_to_overwrite(void **state)
{
	static const char *const first[] = {"192.0.2.0/24", "198.51.100.0/24"};
	static const char *const second[] = {"198.51.100.0/24", "203.0.113.0/24"};
	struct place *place = need_place(state);
	struct sluice_list_key key = key_of(SLUICE_LIST_DENY, first[1]);
	struct sluice_list_entry entry;
	struct lists_result result;

	assert_int_equal(put_many(place, first, 2, "one", 0, 0, &result), 0);
	assert_true(result.added == 2 && result.needed == 2 && result.room == SMALL - 2);
	entry = entry_of(place, first[1]);
	entry.hits = 9;
	assert_int_equal(bpf_map_update_elem(place->lists_fd, &key, &entry, BPF_EXIST), 0);

	assert_int_equal(put_many(place, second, 2, "two", 0, 0, &result), 0);
	assert_true(result.added == 1 && result.kept == 1 && result.replaced == 0);
	assert_string_equal(entry_of(place, second[0]).text, "one");

	assert_int_equal(put_many(place, second, 2, "two", 5000, LISTS_OVERWRITE, &result), 0);
	assert_true(result.replaced == 1 && result.refreshed == 1 && result.added == 0 && result.needed == 0);
	entry = entry_of(place, second[0]);
	assert_string_equal(entry.text, "two");
	assert_true(entry.hits == 9 && entry.expires_wall == 5000);

	/* The label takes back what it has, and only that. */
	assert_int_equal(lists_remove_label(place->lists, SLUICE_LIST_ALLOW, "two"), 0);
	assert_int_equal(lists_remove_label(place->lists, SLUICE_LIST_DENY, "tw"), 0);
	assert_int_equal(lists_remove_label(place->lists, SLUICE_LIST_DENY, "two"), 2);
	assert_int_equal(lists_count(place->lists, SLUICE_LIST_DENY), 1);
	assert_string_equal(entry_of(place, first[0]).text, "one");
	assert_int_equal(lists_remove_label(place->lists, SLUICE_LIST_DENY, "one"), 1);
	assert_true(index_is_empty(place));
}

static void a_prefix_that_comes_twice_is_put_once(void **state)
{
	static const char *const prefixes[] = {"192.0.2.1", "10.0.0.0/8", "192.0.2.1", "192.0.2.1"};
	struct place *place = need_place(state);
	struct sluice_list_key keys[4];
	struct sluice_list_entry entries[4];
	struct lists_result result;

	memset(entries, 0, sizeof(entries));
	for (unsigned i = 0; i < 4; i++) {
		keys[i] = key_of(SLUICE_LIST_DENY, prefixes[i]);
		snprintf(entries[i].text, sizeof(entries[i].text), "line %u", i);
	}
	assert_int_equal(lists_put_many(place->lists, keys, entries, 4, 1000, 0, &result), 0);
	assert_true(result.added == 2 && result.duplicates == 2);
	assert_string_equal(entry_of(place, "192.0.2.1").text, "line 3");
	assert_int_equal(lists_count(place->lists, SLUICE_LIST_DENY), 2);
	assert_int_equal(drop(place, SLUICE_LIST_DENY, "192.0.2.1"), 0);
	assert_int_equal(drop(place, SLUICE_LIST_DENY, "10.0.0.0/8"), 0);
	assert_true(index_is_empty(place));
}

static void a_dry_run_counts_and_changes_nothing(void **state)
{
	static const char *const prefixes[] = {"192.0.2.0/24", "198.51.100.0/24"};
	struct place *place = need_place(state);
	struct lists_result result;

	assert_int_equal(put(place, SLUICE_LIST_DENY, prefixes[0], 0), 0);
	assert_int_equal(put_many(place, prefixes, 2, "dry", 0, LISTS_OVERWRITE | LISTS_DRY_RUN, &result), 0);
	assert_true(result.added == 1 && result.replaced == 1 && result.room == SMALL - 1);
	assert_int_equal(lists_count(place->lists, SLUICE_LIST_DENY), 1);
	assert_string_equal(entry_of(place, prefixes[0]).text, prefixes[0]);
	assert_false(DENY_BIT(place, "198.51.100.1", 120));
}

/* Fills `count` /32 of 10.0.0.0/8 from `first` on. */
static int put_hosts(struct place *place, uint32_t first, unsigned count, uint64_t expires, uint64_t wall_ns,
	struct lists_result *result)
{
	struct sluice_list_key *keys = calloc(count, sizeof(*keys));
	struct sluice_list_entry *entries = calloc(count, sizeof(*entries));
	int err;

	assert_true(keys && entries);
	for (unsigned i = 0; i < count; i++) {
		keys[i] = (struct sluice_list_key){
			.addr.lo = 0xffff0a000000ULL + first + i, .list = SLUICE_LIST_DENY, .prefix_len = 128};
		entries[i].expires_wall = expires;
		strcpy(entries[i].text, "hosts");
	}
	err = lists_put_many(place->lists, keys, entries, count, wall_ns, 0, result);
	free(keys);
	free(entries);
	return err;
}

static void what_does_not_fit_whole_is_refused_whole(void **state)
{
	struct place *place = need_place(state);
	struct lists_result result;

	assert_int_equal(put_hosts(place, 0, SMALL - 10, 0, 1000, &result), 0);
	assert_int_equal(put_hosts(place, 100000, 11, 0, 1000, &result), -E2BIG);
	assert_true(result.needed == 11 && result.room == 10);
	assert_int_equal(lists_count(place->lists, SLUICE_LIST_DENY), SMALL - 10);
	assert_false(DENY_BIT(place, "10.1.134.160", 128));
	/* What is there already needs no room. */
	assert_int_equal(put_hosts(place, SMALL - 100, 100, 0, 1000, &result), 0);
	assert_true(result.refreshed == 90 && result.added == 10 && result.room == 0);
}

static void expired_entries_make_room_when_it_is_short(void **state)
{
	struct place *place = need_place(state);
	struct lists_result result;

	assert_int_equal(put_hosts(place, 0, SMALL / 2, 5000, 1000, &result), 0);
	assert_int_equal(put_hosts(place, SMALL / 2, SMALL / 2, 9000, 1000, &result), 0);
	assert_int_equal(put_hosts(place, SMALL, 1, 0, 4999, &result), -E2BIG);
	assert_int_equal(put_hosts(place, SMALL, SMALL / 2, 0, 5000, &result), 0);
	assert_int_equal(result.added, SMALL / 2);
	assert_int_equal(lists_count(place->lists, SLUICE_LIST_DENY), SMALL);
	assert_int_equal(put_hosts(place, 2 * SMALL, 1, 0, 5000, &result), -E2BIG);
	/* An expired entry that comes again is a new one, in the same place. */
	assert_int_equal(put_hosts(place, SMALL / 2, SMALL / 2, 0, 9000, &result), 0);
	assert_true(result.added == SMALL / 2 && result.needed == 0);
	assert_int_equal(lists_remove_label(place->lists, SLUICE_LIST_DENY, "hosts"), SMALL);
	assert_true(index_is_empty(place));
}

/* Two dry runs that fit one by one and not together: only what was swept out tells whether they do. */
static void the_room_of_several_calls_is_known_after_a_sweep(void **state)
{
	struct place *place = need_place(state);
	struct sluice_list_entry entry = {.text = "new"};
	struct sluice_list_key key = {.addr.lo = 0xffff0b000001ULL, .list = SLUICE_LIST_DENY, .prefix_len = 128};
	struct lists_result result;

	assert_int_equal(put_hosts(place, 0, SMALL - 10, 5000, 1000, &result), 0);
	assert_int_equal(lists_put_many(place->lists, &key, &entry, 1, 5000, LISTS_DRY_RUN, &result), 0);
	assert_true(result.needed == 1 && result.room == 10);
	assert_int_equal(lists_put_many(place->lists, &key, &entry, 1, 4999, LISTS_DRY_RUN | LISTS_SWEEP, &result), 0);
	assert_int_equal(result.room, 10);
	assert_int_equal(lists_put_many(place->lists, &key, &entry, 1, 5000, LISTS_DRY_RUN | LISTS_SWEEP, &result), 0);
	assert_true(result.needed == 1 && result.room == SMALL);
	assert_int_equal(lists_count(place->lists, SLUICE_LIST_DENY), 0);
	assert_true(index_is_empty(place));
}

static void a_bad_key_among_good_ones_stops_them_all(void **state)
{
	struct place *place = need_place(state);
	struct sluice_list_key keys[2] = {
		key_of(SLUICE_LIST_DENY, "192.0.2.0/24"), key_of(SLUICE_LIST_DENY, "10.0.0.0/8")};
	struct sluice_list_entry entries[2];
	struct lists_result result;

	memset(entries, 0, sizeof(entries));
	keys[1].addr.lo |= 1;
	assert_int_equal(lists_put_many(place->lists, keys, entries, 2, 1000, 0, &result), -EINVAL);
	assert_int_equal(lists_count(place->lists, SLUICE_LIST_DENY), 0);
	assert_true(index_is_empty(place));
	assert_int_equal(lists_put_many(place->lists, keys, entries, 0, 1000, 0, &result), 0);
}

static void label_and_reason_share_the_text(void **state)
{
	static const struct {
		const char *label, *reason, *label_read, *reason_read;
	} cases[] = {
		{"feed", "", "feed", "feed"}, {"", "scanner", "scanner", "scanner"}, {"", "", "", ""},
		{"feed", "feed", "feed", "feed"}, {"feed", "port scan", "feed", "port scan"},
		{"feed", "a reason far longer than what is left", "feed", "a reason far longer than w"},
		{"1234567890123456789012345678901", "no room", "1234567890123456789012345678901",
			"1234567890123456789012345678901"},
		{"12345678901234567890123456789", "x", "12345678901234567890123456789", "x"},
		{"123456789012345678901234567890", "x", "123456789012345678901234567890",
			"123456789012345678901234567890"},
		{"1234567890123456789012345678901234567890", "", "1234567890123456789012345678901",
			"1234567890123456789012345678901"},
		{"123456789012345678901234567890\xc3\xa4", "", "123456789012345678901234567890",
			"123456789012345678901234567890"}, /* no half of a character */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char label[LISTS_TEXT_SIZE], reason[LISTS_TEXT_SIZE];
		struct sluice_list_entry entry = {0};

		lists_make_text(entry.text, cases[i].label, cases[i].reason);
		lists_read_text(&entry, label, reason);
		assert_string_equal(label, cases[i].label_read);
		assert_string_equal(reason, cases[i].reason_read);
		assert_true(lists_has_label(&entry, cases[i].label_read));
		assert_false(lists_has_label(&entry, "another"));
	}
}

struct pages {
	struct place *place;
	unsigned taken;
	unsigned visits[2000]; /* by the last bits of the address */
	unsigned refuse;       /* every so manieth is not taken; 0 = none */
};

static int page_visit(const struct sluice_list_key *key, const struct sluice_list_entry *entry, void *arg)
{
	struct pages *pages = arg;

	(void)entry;
	if (pages->refuse && key->addr.lo % pages->refuse == 0)
		return 0;
	pages->visits[key->addr.lo & 0xffff]++;
	pages->taken++;
	return 1;
}

static void pages_have_every_entry_once_whatever_their_size(void **state)
{
	static const struct {
		unsigned limit, look, refuse;
	} cases[] = {{1, 1000, 0}, {2, 1000, 0}, {7, 1000, 0}, {100, 50, 0}, {1000, 100000, 0}, {3, 1000, 3},
		{5000, 100000, 2}};
	struct place *place = need_place(state);
	struct lists_result result;

	assert_int_equal(put_hosts(place, 0, 2000, 0, 1000, &result), 0);
	assert_int_equal(put(place, SLUICE_LIST_ALLOW, "10.0.0.1", 0), 0);
	for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
		struct pages pages = {.place = place, .refuse = cases[c].refuse};
		struct lists_cursor cursor = {0};
		bool end = false;

		while (!end) {
			unsigned before = pages.taken;
			int taken = lists_page(place->lists_fd, SLUICE_LIST_DENY, &cursor, cases[c].limit,
				cases[c].look, page_visit, &pages, &end);

			assert_in_range(taken, 0, cases[c].limit);
			assert_int_equal(pages.taken - before, taken);
		}
		for (unsigned i = 0; i < 2000; i++)
			assert_int_equal(
				pages.visits[i], !cases[c].refuse || (0xffff0a000000ULL + i) % cases[c].refuse != 0);
	}
}

/* A key as a place would send the reader back to the beginning when it is removed. */
static void a_page_goes_on_where_entries_were_removed(void **state)
{
	struct place *place = need_place(state);
	struct pages pages = {.place = place};
	struct lists_cursor cursor = {0};
	struct lists_result result;
	bool end = false;

	assert_int_equal(put_hosts(place, 0, 2000, 0, 1000, &result), 0);
	while (!end) {
		assert_return_code(
			lists_page(place->lists_fd, SLUICE_LIST_DENY, &cursor, 100, 1000, page_visit, &pages, &end), 0);
		for (unsigned i = 0; i < 2000; i++) {
			struct sluice_addr addr = {.lo = 0xffff0a000000ULL + i};

			if (pages.visits[i])
				lists_remove(place->lists, SLUICE_LIST_DENY, &addr, 128);
		}
	}
	for (unsigned i = 0; i < 2000; i++)
		assert_int_equal(pages.visits[i], 1);
	assert_int_equal(lists_count(place->lists, SLUICE_LIST_DENY), 0);
	assert_true(index_is_empty(place));
}

static void a_wild_cursor_ends_the_list(void **state)
{
	struct place *place = need_place(state);
	struct lists_cursor cursor = {.bucket = UINT32_MAX, .skip = 20000, .started = true};
	struct pages pages = {.place = place};
	struct lists_result result;
	bool end = false;

	assert_int_equal(put_hosts(place, 0, 10, 0, 1000, &result), 0);
	assert_int_equal(
		lists_page(place->lists_fd, SLUICE_LIST_DENY, &cursor, 100, 1000, page_visit, &pages, &end), 0);
	assert_true(end && pages.taken == 0);
}

static void wide_prefixes_are_told(void **state)
{
	static const struct {
		const char *prefix;
		bool wide;
	} cases[] = {{"0.0.0.0/0", true}, {"10.0.0.0/7", true}, {"10.0.0.0/8", false}, {"2000::/3", true},
		{"2000::/15", true}, {"2001::/16", false}, {"192.0.2.1", false}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct sluice_list_key key = key_of(SLUICE_LIST_DENY, cases[i].prefix);

		assert_int_equal(lists_is_wide(&key.addr, key.prefix_len), cases[i].wide);
	}
}

/* CPU time, not the clock's: others may be at work on the machine. */
static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

/* A daemon that starts again reads the lists before it serves: in batches, or that would take many times what putting them takes. */
static void a_million_entries_open_at_no_more_than_they_cost_to_put(void **state)
{
	enum { BATCH = 16384 };
	static struct sluice_list_key keys[BATCH];
	static struct sluice_list_entry entries[BATCH];
	struct place *place = need_place(state);
	struct lists_result result;
	uint64_t started = cpu_ns(), put_ns, open_ns;

	for (uint32_t i = 0; i < 1048576; i += BATCH) {
		for (uint32_t j = 0; j < BATCH; j++)
			keys[j] = (struct sluice_list_key){.addr.lo = 0xffff00000000ULL | (i + j) * 2654435761u,
				.list = SLUICE_LIST_DENY,
				.prefix_len = 128};
		assert_int_equal(lists_put_many(place->lists, keys, entries, BATCH, 1000, 0, &result), 0);
		assert_int_equal(result.added, BATCH);
	}
	put_ns = cpu_ns() - started;
	lists_close(place->lists);
	started = cpu_ns();
	place->lists = lists_open(place->lists_fd, place->index_fd, place->denials_fd);
	open_ns = cpu_ns() - started;
	assert_non_null(place->lists);
	assert_int_equal(lists_count(place->lists, SLUICE_LIST_DENY), 1048576);
	print_message("CPU time of 1048576 entries: %llu ms to put, %llu ms to open\n",
		(unsigned long long)(put_ns / 1000000), (unsigned long long)(open_ns / 1000000));
	assert_true(open_ns <= put_ns);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(an_entry_sets_its_bit_and_takes_it_away, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_bit_stays_while_a_neighbour_needs_it, make_place, remove_place),
		cmocka_unit_test_setup_teardown(wide_prefixes_are_in_every_slot_they_cover, make_place, remove_place),
		cmocka_unit_test_setup_teardown(replacing_keeps_hits_and_counts_once, make_place, remove_place),
		cmocka_unit_test_setup_teardown(
			every_change_that_may_end_a_denial_makes_the_gate_forget, make_place, remove_place),
		cmocka_unit_test_setup_teardown(what_the_gate_could_not_match_is_refused, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_full_list_refuses_and_leaves_no_bit, make_place, remove_place),
		cmocka_unit_test_setup_teardown(the_sweep_removes_what_expired_and_only_that, make_place, remove_place),
		cmocka_unit_test_setup_teardown(each_visits_one_list_once, make_place, remove_place),
		cmocka_unit_test_setup_teardown(
			random_changes_keep_index_and_entries_in_step, make_place, remove_place),
		cmocka_unit_test_setup_teardown(opening_repairs_an_index_that_a_crash_left, make_place, remove_place),
		cmocka_unit_test_setup_teardown(
			a_label_keeps_its_entries_unless_told_to_overwrite, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_prefix_that_comes_twice_is_put_once, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_dry_run_counts_and_changes_nothing, make_place, remove_place),
		cmocka_unit_test_setup_teardown(what_does_not_fit_whole_is_refused_whole, make_place, remove_place),
		cmocka_unit_test_setup_teardown(expired_entries_make_room_when_it_is_short, make_place, remove_place),
		cmocka_unit_test_setup_teardown(
			the_room_of_several_calls_is_known_after_a_sweep, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_bad_key_among_good_ones_stops_them_all, make_place, remove_place),
		cmocka_unit_test_setup_teardown(
			pages_have_every_entry_once_whatever_their_size, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_page_goes_on_where_entries_were_removed, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_wild_cursor_ends_the_list, make_place, remove_place),
		cmocka_unit_test(label_and_reason_share_the_text),
		cmocka_unit_test(wide_prefixes_are_told),
		cmocka_unit_test_setup_teardown(
			a_million_entries_open_at_no_more_than_they_cost_to_put, make_large_place, remove_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
