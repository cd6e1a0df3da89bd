/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Every map of the gate, the one place where they are defined. Keys and values are in sluice/abi.h.
 *
 * For each: what it is for, who writes it, what happens when it is full. Sizes marked (config) are set by the loader. All hashes
 * are preallocated: memory is taken at attach and no packet makes the kernel allocate.
 */
#ifndef SLUICE_BPF_MAPS_H
#define SLUICE_BPF_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "sluice/abi.h"

/* The protected services. Written by the loader. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLUICE_MAX_SERVICES);
	__type(key, __u32);
	__type(value, struct sluice_service);
} services SEC(".maps");

/* Destination port -> services on it, as bits: one read tells that a packet is none of our business. Written by the loader. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u64);
} ports SEC(".maps");

/* Rates and bursts. Written by loader and daemon at run time. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sluice_limits);
} limits SEC(".maps");

/* Heartbeat, clock offset, switches. Written by daemon and loader; the judge counts admissions in flight. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sluice_control);
} control SEC(".maps");

/* Windows and limits of the sales. Written by the daemon. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLUICE_MAX_SALES);
	__type(key, __u32);
	__type(value, struct sluice_sale);
} sales SEC(".maps");

/* Free units. The judge takes, the daemon adds and takes away; both by atomic operations. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLUICE_MAX_SALES);
	__type(key, __u32);
	__type(value, struct sluice_stock);
} stock SEC(".maps");

/* Token keys. Written by the daemon; root only, as all pins. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct sluice_key);
} keys SEC(".maps");

/* Token serial -> admission. The judge inserts, the daemon removes what no token can ask for any more. Full: admissions_full. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072); /* (config) */
	__type(key, __u64);
	__type(value, struct sluice_admission);
} admissions SEC(".maps");

/* Admissions on their way to the daemon. Full: ring_full, before anything is taken. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4194304); /* (config) bytes */
} ring SEC(".maps");

/* Units per buyer and sale. The judge counts, and the call door for orders that end; the daemon counts anew at its start, while orders are closed,
 * and removes those of dead sales. Full: buyers_full.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072); /* (config) */
	__type(key, struct sluice_buyer_key);
	__type(value, struct sluice_buyer);
} buyers SEC(".maps");

/* Live tokens. Only the daemon uses it; it stands here because it must outlive the daemon. Full: no new tokens. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144); /* (config) */
	__type(key, struct sluice_buyer_key);
	__type(value, struct sluice_issued);
} issued SEC(".maps");

/* Rates of validated sources, their prefixes, and tokens, in sets of four. The only map that forgets when it is full, and what it forgets is a
 * rate. Not an LRU hash: that takes ten times as long to find a key, four times to replace one, and cannot tell an idle source from a busy one.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 131072); /* (config) a power of two */
	__type(key, __u32);
	__type(value, struct sluice_rate_set);
} rates SEC(".maps");

/* What became of the first segment of a connection, by hash of the flow. Fixed, and only validated sources are noted; who comes later takes
 * the slot, and the earlier connection's last segments are then dropped until the client gives up sending them.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLUICE_RECENT_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} recent SEC(".maps");

/* SYN budget by hashed prefix. Fixed: sources that nothing has validated get no memory of their own. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLUICE_SYN_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} syn_budget SEC(".maps");

/* Deny and allow entries. Written by the daemon; the gate counts hits. Full: the daemon refuses the entry. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1048576); /* (config) */
	__type(key, struct sluice_list_key);
	__type(value, struct sluice_list_entry);
} lists SEC(".maps");

/* Which prefix lengths occur near an address. Written with `lists`. Mappable only because that puts it at the beginning of a page, where no
 * entry lies across two cache lines.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLUICE_INDEX_SLOTS);
	__type(key, __u32);
	__type(value, struct sluice_list_index);
} list_index SEC(".maps");

/* Sources that are denied and send much, so that they need not be looked for in `lists` each time. Fixed, and holds nothing but what can be
 * found there: who comes later takes the slot, which costs the former one a few looks. Filled by the gate, made void by the writer of the
 * lists. Mappable for the same reason as `list_index`.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLUICE_DENIALS_SLOTS + 1);
	__type(key, __u32);
	__type(value, struct sluice_denial);
} denials SEC(".maps");

/* Answers, two banks. Written by loader and daemon: the bank not in use, then the bit in control.answer_banks. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * SLUICE_ANSWER_COUNT);
	__type(key, __u32);
	__type(value, struct sluice_answer_bytes);
} answers SEC(".maps");

/* Where the tokens of other nodes belong: the answer wrong_node with a Location, by node. Written by the daemon like `answers`, and switched with its
 * bank of that answer, so that nobody is sent half here and half there.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * SLUICE_HOMES);
	__type(key, __u32);
	__type(value, struct sluice_answer_bytes);
} homes SEC(".maps");

/* Packets and bytes by service and reason. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, (SLUICE_MAX_SERVICES + 1) * SLUICE_REASON_ROWS);
	__type(key, __u32);
	__type(value, struct sluice_counter);
} counters SEC(".maps");

/* Verdicts of the call door by reason. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLUICE_REASON_ROWS);
	__type(key, __u32);
	__type(value, __u64);
} calls SEC(".maps");

/* What would have been refused, by reason. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLUICE_REASON_ROWS);
	__type(key, __u32);
	__type(value, __u64);
} shadow SEC(".maps");

/* Which verdicts somebody wants to see. Written by the daemon. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sluice_watch);
} watch SEC(".maps");

/* Verdicts on their way to those who watch. Full: they miss some. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 262144);
} events SEC(".maps");

static __always_inline struct sluice_control *control_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&control, &zero);
}

#endif
