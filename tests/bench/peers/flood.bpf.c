/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Turns the frame that flood.c keeps feeding in into one of the next source, and sends it out of an interface. Runs in the live frame
 * mode of BPF_PROG_RUN, as xdp-trafficgen does it: no socket and no skb on the sender's side.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <bpf/bpf_helpers.h>

#include "flood.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile struct flood_config config;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FLOOD_SOURCES_MAX);
	__type(key, __u32);
	__type(value, struct flood_source);
} sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flood_state);
} state SEC(".maps");

/* False while the next frame is not due. A sender that was held up does not catch up: that would be a burst. */
static __always_inline int is_due(struct flood_state *flood)
{
	__u64 now;

	if (!config.interval_ns)
		return 1;
	now = bpf_ktime_get_ns();
	if (now < flood->due_ns)
		return 0;
	flood->due_ns = (now - flood->due_ns > FLOOD_LATE_NS ? now : flood->due_ns) + config.interval_ns;
	return 1;
}

SEC("xdp")
int flood(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct tcphdr *tcp;
	struct iphdr *ip;
	struct flood_source *source;
	struct flood_state *flood; /* one CPU sends */
	__u32 index = 0;

	flood = bpf_map_lookup_elem(&state, &index);
	if (!flood || data + FLOOD_FRAME > end)
		return XDP_ABORTED;
	if (!is_due(flood))
		return XDP_DROP;
	index = flood->next;
	flood->next = index + 1 < config.sources ? index + 1 : 0;
	flood->sent++;
	source = bpf_map_lookup_elem(&sources, &index);
	if (!source)
		return XDP_ABORTED;
	/* All of it: the page comes back from who had the frame before, and a gate that answers does so in the frame itself. */
	__builtin_memcpy(data, flood->frame, FLOOD_FRAME);
	ip = data + sizeof(struct ethhdr);
	ip->saddr = source->addr;
	ip->check = source->ip_check;
	tcp = (void *)(ip + 1);
	tcp->check = source->tcp_check;
	return bpf_redirect(config.out_ifindex, 0);
}
