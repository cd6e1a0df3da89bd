/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Drops every IPv4 frame that does not come from the clients' own network, and does nothing else: the cheapest filter that there can be for a
 * flood of spoofed sources, as it has been told who the buyers are. What buyers wait for behind it is what the machine and its ring make them
 * wait for, with any gate (tests/bench/peers/goodput.py).
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define CLIENTS 0x0a480000 /* 10.72.0.0/16, tests/e2e/world.py */
#define CLIENTS_MASK 0xffff0000

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("xdp")
int drop_strangers(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);

	if ((void *)(ip + 1) > data_end || eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	return (bpf_ntohl(ip->saddr) & CLIENTS_MASK) == CLIENTS ? XDP_PASS : XDP_DROP;
}
