/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tries on real frames whether this interface's driver lets a program grow them at the head and at the tail, and passes each frame
 * untouched. `sluice attach` puts it on the interface for a moment before the gate: what a driver says about itself is not to
 * be trusted (two bytes of head room, a wrong frame size), and the gate chooses from this how it makes room for an answer.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "sluice/abi.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define PROBE_FRAMES_MAX 16  /* after these every frame just passes */
#define PROBE_HEAD_BYTES 128 /* about what an answer is longer than a short request */
#define PROBE_TAIL_BYTES 64
#define PROBE_SHORT_BYTES \
	600 /* of a frame with a request; what is behind a full one says nothing of the room behind those */

/* Read by the loader. Frames come in on several CPUs, so atomic. `ample` is room for any answer behind a short frame: one of a veth has none but by luck,
 * where it is the last in its page.
 */
__u32 probe_frames;
__u32 probe_tried; /* of these; written last */
__u32 probe_short; /* of these, short ones */
__u32 probe_head_grew;
__u32 probe_tail_grew;
__u32 probe_tail_ample;

/* Grows the frame and takes it back. Returns 1, 0 if it cannot grow, or -1: it is no longer what came in (cannot happen, since the bytes have just
 * been made).
 */
static __always_inline int try_tail(struct xdp_md *ctx, int bytes)
{
	if (bpf_xdp_adjust_tail(ctx, bytes))
		return 0;
	return bpf_xdp_adjust_tail(ctx, -bytes) ? -1 : 1;
}

SEC("xdp")
int sluice_probe(struct xdp_md *ctx)
{
	int grew;

	if (__sync_fetch_and_add(&probe_frames, 1) >= PROBE_FRAMES_MAX)
		return XDP_PASS;
	if (!bpf_xdp_adjust_head(ctx, -PROBE_HEAD_BYTES)) {
		if (bpf_xdp_adjust_head(ctx, PROBE_HEAD_BYTES))
			return XDP_ABORTED; /* as in try_tail */
		__sync_fetch_and_add(&probe_head_grew, 1);
	}
	grew = try_tail(ctx, PROBE_TAIL_BYTES);
	if (grew < 0)
		return XDP_ABORTED;
	if (grew)
		__sync_fetch_and_add(&probe_tail_grew, 1);
	if ((long)ctx->data_end - (long)ctx->data <= PROBE_SHORT_BYTES) {
		grew = try_tail(ctx, SLUICE_ANSWER_MAX);
		if (grew < 0)
			return XDP_ABORTED;
		if (grew)
			__sync_fetch_and_add(&probe_tail_ample, 1);
		__sync_fetch_and_add(&probe_short, 1);
	}
	__sync_fetch_and_add(&probe_tried, 1);
	return XDP_PASS;
}
