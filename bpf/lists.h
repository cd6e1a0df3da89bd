/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Deny and allow lists: is the source in a listed prefix that has not expired?
 *
 * Not an LPM trie. A trie answers only the longest match, so an expired /32 would hide a live /24 above it; it walks some
 * twenty nodes for a million entries; and it cannot be preallocated. Here the index tells which prefix lengths occur near the
 * address (nearly always none or one), and each costs one hash lookup, longest first.
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

static __always_inline int list_entry_live(struct sluice_list_entry *entry)
{
	struct sluice_control *ctl;

	if (entry->expires_wall) {
		ctl = control_get();
		if (!ctl || entry->expires_wall <= bpf_ktime_get_ns() + ctl->wall_offset_ns)
			return 0;
	}
	__sync_fetch_and_add(&entry->hits, 1);
	return 1;
}

/* One word of lengths, longest first; `base` is the length that bit 0 stands for. */
static __always_inline int list_match_word(const struct sluice_addr *addr, __u64 lengths, __u32 base, __u32 list)
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
		if (entry && list_entry_live(entry))
			return 1;
	}
	return 0;
}

/* `short_lengths` and `long_lengths`: the two words of struct sluice_list_index. */
__noinline int list_match(const struct packet *pkt, __u64 short_lengths, __u64 long_lengths, __u32 list)
{
	if (!pkt)
		return 0;
	return list_match_word(&pkt->source, long_lengths, 65, list) ||
		list_match_word(&pkt->source, short_lengths, 1, list);
}

/* Returns 1 if the source is denied, and denied sources are refused. Sets pkt->allowed if it is on the allow list, which beats deny list and rates. */
static __always_inline int lists_check(struct packet *pkt)
{
	struct sluice_list_index *near, *wide = NULL;
	__u64 short_lengths;
	__u32 slot;

	if (!pkt)
		return 0;
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
	if ((short_lengths | near->allow[1]) && list_match(pkt, short_lengths, near->allow[1], SLUICE_LIST_ALLOW)) {
		pkt->allowed = 1;
		return 0;
	}
	short_lengths = near->deny[0] | (wide ? wide->deny[0] : 0);
	return (short_lengths | near->deny[1]) && list_match(pkt, short_lengths, near->deny[1], SLUICE_LIST_DENY) &&
		!shadow_lets_pass(pkt->control, SLUICE_CONTROL_SHADOW_DENY, SLUICE_REASON_DENIED);
}

#endif
