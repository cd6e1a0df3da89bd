/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tries on real frames whether this interface's driver lets a program grow them at the head and at the tail, and passes each frame
 * untouched. `sluice attach` puts it on the interface for a moment before the gate: what a driver says about itself is not to
 * be trusted (two bytes of head room, a wrong frame size), and the gate chooses from this how it makes room for an answer.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define PROBE_FRAMES_MAX 16  /* after these every frame just passes */
#define PROBE_HEAD_BYTES 128 /* about what an answer is longer than a short request */
#define PROBE_TAIL_BYTES 64

/* Read by the loader. Frames come in on several CPUs, so atomic. */
__u32 probe_frames;
__u32 probe_head_grew;
__u32 probe_tail_grew;

SEC("xdp")
int sluice_probe(struct xdp_md *ctx)
{
	if (__sync_fetch_and_add(&probe_frames, 1) >= PROBE_FRAMES_MAX)
		return XDP_PASS;
	if (!bpf_xdp_adjust_head(ctx, -PROBE_HEAD_BYTES)) {
		if (bpf_xdp_adjust_head(ctx, PROBE_HEAD_BYTES))
			return XDP_ABORTED; /* cannot happen: the bytes have just been made; the frame is no longer what came in */
		__sync_fetch_and_add(&probe_head_grew, 1);
	}
	if (!bpf_xdp_adjust_tail(ctx, PROBE_TAIL_BYTES)) {
		if (bpf_xdp_adjust_tail(ctx, -PROBE_TAIL_BYTES))
			return XDP_ABORTED;
		__sync_fetch_and_add(&probe_tail_grew, 1);
	}
	return XDP_PASS;
}
