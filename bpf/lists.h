/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Deny and allow lists: is the source in a listed prefix that has not expired?
 *
 * Not an LPM trie. A trie answers only the longest match, so an expired /32 would hide a live /24 above it; it walks some
 * twenty nodes for a million entries; and it cannot be preallocated. Here the index tells which prefix lengths occur near the
 * address (nearly always none or one), and each costs one hash lookup, longest first.
 *
 * Such a lookup is most of what a drop costs, so sources that keep sending are remembered in the map "denials" (sluice/abi.h), which says
 * nothing that the lists do not say: what is not found there, or not any more, is looked for in the lists.
 */
#ifndef SLUICE_BPF_LISTS_H
#define SLUICE_BPF_LISTS_H

#include "maps.h"
#include "packet.h"
#include "shadow.h"

/* Index of the highest set bit of a non-zero word, by de Bruijn multiplication (clang 14 has no count-leading-zeros for BPF). */
/* clang-format off */
static const __u8 list_log2[64] = {
	0, 47, 1, 56, 48, 27, 2, 60, 57, 49, 41, 37, 28, 16, 3, 61,
	54, 58, 35, 52, 50, 42, 21, 44, 38, 32, 29, 23, 17, 11, 4, 62,
	46, 55, 26, 59, 40, 36, 15, 53, 34, 51, 20, 43, 31, 22, 10, 45,
	25, 39, 14, 33, 19, 30, 9, 24, 13, 18, 8, 12, 7, 6, 5, 63,
};
/* clang-format on */

static __always_inline __u32 list_top_bit(__u64 word)
{
	word |= word >> 1;
	word |= word >> 2;
	word |= word >> 4;
	word |= word >> 8;
	word |= word >> 16;
	word |= word >> 32;
	return list_log2[(word * 0x03f79d71b4cb0a89ULL) >> 58];
}

/* Does an entry, or what was found of it, still hold? */
static __always_inline int list_is_live(__u64 expires_wall)
{
	struct sluice_control *ctl;

	if (!expires_wall)
		return 1;
	ctl = control_get();
	return ctl && expires_wall > bpf_ktime_get_ns() + ctl->wall_offset_ns;
}

/* One word of lengths, longest first; `base` is the length that bit 0 stands for. */
static __always_inline struct sluice_list_entry *list_match_word(
	const struct sluice_addr *addr, __u64 lengths, __u32 base, __u32 list)
{
	for (int i = 0; i < 64 && lengths; i++) {
		__u32 bit = list_top_bit(lengths);
		__u32 len = base + bit;
		struct sluice_list_key key = {.list = list, .prefix_len = len};
		struct sluice_list_entry *entry;

		lengths &= ~(1ULL << (bit & 63));
		if (base > 1) { /* 65..128 */
			key.addr.hi = addr->hi;
			key.addr.lo = addr->lo & (~0ULL << ((128 - len) & 63));
		} else { /* 1..64 */
			key.addr.hi = addr->hi & (~0ULL << ((64 - len) & 63));
		}
		entry = bpf_map_lookup_elem(&lists, &key);
		if (entry && list_is_live(entry->expires_wall))
			return entry;
	}
	return NULL;
}

/* --- denials that are remembered ------------------------------------------------------------------------------------------- */
/* What is known of a source: the generation of map "denials", in the upper half, and these. 0: do not remember this one. */
#define DENIAL_ASKED 1ULL
#define DENIAL_KNOWN 2ULL
#define DENIAL_FREE 4ULL   /* one of its places holds nothing that is believed: */
#define DENIAL_SECOND 8ULL /* the second */
#define DENIAL_GENERATION (~0ULL << 32)

/* Is this packet in the sample? By a hash of how many packets this CPU has denied before: an attacker cannot know it, and unlike a draw by
 * the kernel's generator it calls nothing.
 */
static __always_inline int denial_is_drawn(const struct packet *pkt)
{
	__u32 row = pkt->service * SLUICE_REASON_ROWS + SLUICE_REASON_DENIED;
	struct sluice_counter *counter = bpf_map_lookup_elem(&counters, &row);
	__u64 hash;

	if (!counter)
		return 1;
	hash = (counter->packets + 1) * 0x9e3779b97f4a7c15ULL;
	hash = (hash ^ hash >> 32) * 0xff51afd7ed558ccdULL;
	return !(hash >> 32 & (SLUICE_LIST_SAMPLE - 1));
}

static __always_inline __u64 denial_read(const struct sluice_addr *source, __u32 slot, __u64 generation)
{
	struct sluice_denial *denial = bpf_map_lookup_elem(&denials, &slot);
	__u64 stamp;

	if (!denial)
		return 0;
	stamp = *(volatile __u64 *)&denial->stamp;
	if ((stamp & DENIAL_GENERATION) != generation ||
		(stamp & (SLUICE_DENIAL_FILLED | SLUICE_DENIAL_FILLING)) != SLUICE_DENIAL_FILLED)
		return DENIAL_FREE;
	if (denial->source.lo != source->lo || denial->source.hi != source->hi || !list_is_live(denial->expires_wall) ||
		*(volatile __u64 *)&denial->stamp != stamp)
		return 0;
	return DENIAL_KNOWN;
}

static __always_inline __u64 denial_find(const struct sluice_addr *source)
{
	__u32 slot = SLUICE_DENIALS_SLOTS;
	struct sluice_denial *last = bpf_map_lookup_elem(&denials, &slot);
	__u64 generation, first, second;

	if (!last)
		return 0;
	generation = *(volatile __u64 *)&last->stamp;
	if (!(generation & SLUICE_DENIAL_FILLED)) /* nothing is remembered: no slot need be read */
		return generation | DENIAL_ASKED | DENIAL_FREE;
	generation &= DENIAL_GENERATION;
	slot = sluice_denial_slot(source);
	first = denial_read(source, slot, generation);
	if (first & DENIAL_KNOWN)
		return generation | DENIAL_ASKED | first;
	second = denial_read(source, slot | 1, generation);
	if ((second & DENIAL_FREE) && !first)
		second |= DENIAL_SECOND;
	return generation | DENIAL_ASKED | first | second;
}

/* `known` was found before the entry was looked up. If the lists have changed since, the generation is not the map's any more, and what is
 * written here counts for nothing.
 */
static __always_inline void denial_keep(const struct sluice_addr *source, __u64 expires_wall, __u64 known)
{
	struct sluice_denial *last, *denial;
	__u32 slot = SLUICE_DENIALS_SLOTS;
	__u64 generation = known & DENIAL_GENERATION, stamp;

	last = bpf_map_lookup_elem(&denials, &slot);
	slot = sluice_denial_slot(source) | !!(known & DENIAL_SECOND);
	denial = bpf_map_lookup_elem(&denials, &slot);
	if (!last || !denial)
		return;
	stamp = *(volatile __u64 *)&denial->stamp;
	if ((stamp & SLUICE_DENIAL_FILLING) ||
		__sync_val_compare_and_swap(&denial->stamp, stamp, stamp | SLUICE_DENIAL_FILLING) != stamp)
		return; /* another CPU is at it, or the door that this packet interrupts */
	denial->source = *source;
	denial->expires_wall = expires_wall;
	stamp = (__u32)(stamp + 4) & ~SLUICE_DENIAL_FILLING;
	__sync_lock_test_and_set(&denial->stamp, generation | stamp | SLUICE_DENIAL_FILLED);
	if (*(volatile __u64 *)&last->stamp == generation) /* the first of this generation */
		__sync_val_compare_and_swap(&last->stamp, generation, generation | SLUICE_DENIAL_FILLED);
}

/* --- the lists ------------------------------------------------------------------------------------------------------------- */
/* `short_lengths` and `long_lengths`: the two words of struct sluice_list_index. `known`: DENIAL_*, 0 for the allow list. */
__noinline int list_match(const struct packet *pkt, __u64 short_lengths, __u64 long_lengths, __u32 list, __u64 known)
{
	struct sluice_list_entry *entry;
	__u64 hits;

	if (!pkt)
		return 0;
	entry = list_match_word(&pkt->source, long_lengths, 65, list);
	if (!entry)
		entry = list_match_word(&pkt->source, short_lengths, 1, list);
	if (!entry)
		return 0;
	hits = __sync_fetch_and_add(&entry->hits, known & DENIAL_KNOWN ? SLUICE_LIST_SAMPLE : 1);
	if ((known & (DENIAL_ASKED | DENIAL_KNOWN)) != DENIAL_ASKED || hits < SLUICE_LIST_EXACT_HITS)
		return 1;
	/* A free place is taken at once. Who has one is driven out by a draw: of more sources than there are places, most would else be driven out
	 * before they come again.
	 */
	if (!(known & DENIAL_FREE)) {
		if (!denial_is_drawn(pkt))
			return 1;
		known |= hits & 1 ? DENIAL_SECOND : 0;
	}
	denial_keep(&pkt->source, entry->expires_wall, known);
	return 1;
}

/* Returns 1 if the source is denied, and denied sources are refused. Sets pkt->allowed if it is on the allow list, which beats deny list and rates.
 * Denials are remembered only where each counts as denied, which the sample is drawn by: at the wire, outside shadow mode.
 */
static __always_inline int lists_check(struct packet *pkt, enum sluice_door door)
{
	struct sluice_list_index *near, *wide = NULL;
	__u64 short_lengths, known = 0;
	__u32 slot;

	if (!pkt)
		return 0;
	if (door == SLUICE_DOOR_WIRE && !(pkt->control & (SLUICE_CONTROL_SHADOW_ALL | SLUICE_CONTROL_SHADOW_DENY))) {
		known = denial_find(&pkt->source);
		if ((known & DENIAL_KNOWN) && !denial_is_drawn(pkt))
			return 1;
	}
	if (pkt->is_ip6) {
		slot = SLUICE_INDEX_SHORT6;
		wide = bpf_map_lookup_elem(&list_index, &slot);
		slot = SLUICE_INDEX_V6 + sluice_index_hash(pkt->source.hi >> 32);
	} else {
		slot = (__u32)pkt->source.lo >> 16;
	}
	near = bpf_map_lookup_elem(&list_index, &slot);
	if (!near)
		return 0;

	short_lengths = near->allow[0] | (wide ? wide->allow[0] : 0);
	if (short_lengths | near->allow[1]) {
		known = 0; /* an entry that has expired may hold again when the clock is set back */
		if (list_match(pkt, short_lengths, near->allow[1], SLUICE_LIST_ALLOW, 0)) {
			pkt->allowed = 1;
			return 0;
		}
	}
	short_lengths = near->deny[0] | (wide ? wide->deny[0] : 0);
	return (short_lengths | near->deny[1]) &&
		list_match(pkt, short_lengths, near->deny[1], SLUICE_LIST_DENY, known) &&
		!shadow_lets_pass(pkt->control, SLUICE_CONTROL_SHADOW_DENY, SLUICE_REASON_DENIED);
}

#endif
