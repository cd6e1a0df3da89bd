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
#include <unistd.h>

#include "common/addr.h"
#include "common/lists.h"
#include "common/timefmt.h"

#define SMALL 4096

struct place {
	int lists_fd, index_fd;
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
	if (place->lists_fd < 0 || place->index_fd < 0)
		return 0; /* no privilege: need_place skips the test */
	place->lists = lists_open(place->lists_fd, place->index_fd);
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
			place->lists = lists_open(place->lists_fd, place->index_fd);
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
	place->lists = lists_open(place->lists_fd, place->index_fd);
	assert_non_null(place->lists);
	assert_true(DENY_BIT(place, "192.0.2.1", 120));
	assert_int_equal(drop(place, SLUICE_LIST_DENY, "192.0.2.0/24"), 0);
	assert_true(index_is_empty(place));
}

static void a_million_entries_open_within_two_seconds(void **state)
{
	struct place *place = need_place(state);
	uint64_t started;

	for (uint32_t i = 0; i < 1048576; i++) {
		struct sluice_addr addr = {.lo = 0xffff00000000ULL | i * 2654435761u};

		assert_int_equal(lists_put(place->lists, SLUICE_LIST_DENY, &addr, 128, 0, "million"), 0);
	}
	lists_close(place->lists);
	started = time_mono_ns();
	place->lists = lists_open(place->lists_fd, place->index_fd);
	print_message("opened %u entries in %llu ms\n", lists_count(place->lists, SLUICE_LIST_DENY),
		(unsigned long long)((time_mono_ns() - started) / 1000000));
	assert_non_null(place->lists);
	assert_int_equal(lists_count(place->lists, SLUICE_LIST_DENY), 1048576);
	assert_in_range(time_mono_ns() - started, 0, 2000000000ULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(an_entry_sets_its_bit_and_takes_it_away, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_bit_stays_while_a_neighbour_needs_it, make_place, remove_place),
		cmocka_unit_test_setup_teardown(wide_prefixes_are_in_every_slot_they_cover, make_place, remove_place),
		cmocka_unit_test_setup_teardown(replacing_keeps_hits_and_counts_once, make_place, remove_place),
		cmocka_unit_test_setup_teardown(what_the_gate_could_not_match_is_refused, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_full_list_refuses_and_leaves_no_bit, make_place, remove_place),
		cmocka_unit_test_setup_teardown(the_sweep_removes_what_expired_and_only_that, make_place, remove_place),
		cmocka_unit_test_setup_teardown(each_visits_one_list_once, make_place, remove_place),
		cmocka_unit_test_setup_teardown(
			random_changes_keep_index_and_entries_in_step, make_place, remove_place),
		cmocka_unit_test_setup_teardown(opening_repairs_an_index_that_a_crash_left, make_place, remove_place),
		cmocka_unit_test_setup_teardown(
			a_million_entries_open_within_two_seconds, make_large_place, remove_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
