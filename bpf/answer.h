/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A complete HTTP answer with FIN, in one segment, from the template of its code: no socket, no state, nothing to clean up. */
#ifndef SLUICE_BPF_ANSWER_H
#define SLUICE_BPF_ANSWER_H

#include "maps.h"
#include "reply.h"

/* No status line is shorter. Not 1: from `len != 0` older verifiers learn nothing. */
#define ANSWER_MIN 16

/* Four decimal digits as they stand on the wire. */
static __always_inline __u32 answer_digits(__u32 n)
{
	if (n > SLUICE_RETRY_MAX_S)
		n = SLUICE_RETRY_MAX_S;
	return n / 1000 << 24 | n / 100 % 10 << 16 | n / 10 % 10 << 8 | n % 10;
}

/* Returns 0, or -1 if the frame has no room even for the short form. */
__noinline int answer_send(struct xdp_md *ctx, const struct packet *pkt, __u32 code)
{
	struct sluice_answer_bytes *answer;
	struct sluice_control *ctl = control_get();
	struct reply reply = {.flags = TCP_PSH | TCP_FIN | TCP_ACK};
	__u32 digits = 0, len, retry_at;
	int off;

	if (!ctl || !pkt)
		return -1;
	if (ctl->answer_banks & (1u << (code & 31)))
		code += SLUICE_ANSWER_COUNT;
	answer = bpf_map_lookup_elem(&answers, &code);
	if (!answer)
		return -1;
	len = answer->len;
	retry_at = answer->retry_at;
	if (len > SLUICE_ANSWER_MAX)
		return -1;
	KEEP_BOUND(len);
	if (len < ANSWER_MIN)
		return -1;

	reply.seq = pkt->ack;
	reply.ack = pkt->seq + pkt->payload_len + (pkt->flags & TCP_FIN ? 1 : 0);
	reply.payload_len = len;
	reply.payload_sum = answer->sum;
	if (retry_at) {
		digits = answer_digits(pkt->retry_after_s);
		reply.payload_sum += (digits >> 16) + (digits & 0xffff);
		digits = bpf_htonl(digits | 0x30303030);
	}
	off = reply_write(ctx, pkt, &reply);
	if (off >= 0) {
		if (bpf_xdp_store_bytes(ctx, off, answer->bytes, len))
			return -1;
		if (retry_at && bpf_xdp_store_bytes(ctx, off + retry_at, &digits, 4))
			return -1;
		return 0;
	}

	len = answer->short_len;
	if (len > SLUICE_ANSWER_SHORT_MAX)
		return -1;
	KEEP_BOUND(len);
	if (len < ANSWER_MIN)
		return -1;
	reply.payload_len = len;
	reply.payload_sum = answer->short_sum;
	off = reply_write(ctx, pkt, &reply);
	return off < 0 ? -1 : (int)bpf_xdp_store_bytes(ctx, off, answer->short_bytes, len);
}

#endif
