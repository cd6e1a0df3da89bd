/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Turns the frame that flood.c keeps feeding in into one of the next source, and sends it out of an interface. Runs in the live frame
 * mode of BPF_PROG_RUN, as xdp-trafficgen does it: no socket and no skb on the sender's side.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
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

__u32 next; /* one CPU sends */

SEC("xdp")
int flood(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct flood_source *source;
	__u32 index = next;

	if ((void *)(ip + 1) > end)
		return XDP_ABORTED;
	next = index + 1 < config.sources ? index + 1 : 0;
	source = bpf_map_lookup_elem(&sources, &index);
	if (!source)
		return XDP_ABORTED;
	ip->saddr = source->addr;
	ip->check = source->check;
	return bpf_redirect(config.out_ifindex, 0);
}
