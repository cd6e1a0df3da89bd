/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Drops every frame and does nothing else: what a drop costs on this interface before anybody has looked at a packet. The floor of the
 * comparison of deny lists (tests/bench/peers/drops.py).
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("xdp")
int drop_all(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_DROP;
}
