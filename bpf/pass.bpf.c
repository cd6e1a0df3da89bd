/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Passes everything. On veth, frames that the gate sends with XDP_TX are delivered only if the peer has an XDP program too; drill and
 * tests attach this one there. Also the baseline of the bench.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("xdp")
int sluice_pass(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}
