/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Bench only, never installed. BPF_PROG_TEST_RUN repeats a program over one and the same buffer, so a program that answers in place
 * would see its own answer the second time. This wrapper puts a prepared frame back to its full length and bytes, then goes on by
 * tail call to the program under test: the gate, a stage of it, or the empty program that is subtracted.
 *
 * Successive runs take successive frames of the map, so many sources, tokens and cookies are possible in one test run.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "slots.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, BENCH_FRAMES_MAX);
	__type(key, __u32);
	__type(value, struct bench_frame);
} frames SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, BENCH_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} programs SEC(".maps");

/* Set by the bench before each test run. */
__u32 slot; /* of the program under test */
__u32 mask; /* frames 0 .. mask are used in turn */
__u32 next;
__u64 home; /* where the frame started in the first repetition; 0 = not known yet */
volatile __u64 here;
__u64 lost; /* repetitions that did not reach the program under test */

SEC("xdp")
int bench_wrapper(struct xdp_md *ctx)
{
	__u32 index = next++ & mask;
	struct bench_frame *frame = bpf_map_lookup_elem(&frames, &index);
	__u64 start;
	__u32 len;
	int delta;

	if (!frame)
		goto lost;
	/* Through memory the address becomes a number, which is what the distance to `home` needs. */
	here = (__u64)ctx->data;
	start = here;
	if (!home)
		home = start;
	if (start != home && bpf_xdp_adjust_head(ctx, (int)(home - start)))
		goto lost;
	len = frame->len;
	if (len < 14 || len > BENCH_FRAME_BYTES)
		goto lost;
	delta = (int)len - (int)(ctx->data_end - ctx->data);
	if (delta && bpf_xdp_adjust_tail(ctx, delta))
		goto lost;
	if (bpf_xdp_store_bytes(ctx, 0, frame->bytes, len))
		goto lost;
	bpf_tail_call(ctx, &programs, slot);
lost:
	lost++;
	return XDP_ABORTED;
}

/* What is subtracted. */
SEC("xdp")
int bench_empty(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}
