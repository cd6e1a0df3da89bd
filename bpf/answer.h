/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A complete HTTP answer with FIN, in one segment, from the template of its code: no socket, no state, nothing to clean up.
 *
 * The answer to a token of another node has a template for each node, with the address of that one and room for the token, which is copied out of
 * the request.
 */
#ifndef SLUICE_BPF_ANSWER_H
#define SLUICE_BPF_ANSWER_H

#include "maps.h"
#include "reply.h"
#include "request.h"

/* No status line is shorter. Not 1: from `len != 0` older verifiers learn nothing. */
#define ANSWER_MIN 16

/* Four decimal digits as they stand on the wire. */
static __always_inline __u32 answer_digits(__u32 n)
{
	if (n > SLUICE_RETRY_MAX_S)
		n = SLUICE_RETRY_MAX_S;
	return n / 1000 << 24 | n / 100 % 10 << 16 | n / 10 % 10 << 8 | n % 10;
}

/* The template in use. A node that is not known has none of its own: its tokens get the answer that has no Location. */
static __always_inline struct sluice_answer_bytes *answer_find(
	const struct sluice_control *ctl, const struct packet *pkt, __u32 code)
{
	__u32 bank = *(volatile __u32 *)&ctl->answer_banks >> (code & 31) & 1, index = pkt->home;
	struct sluice_answer_bytes *answer;

	if (code == SLUICE_ANSWER_WRONG_NODE && index < SLUICE_HOMES) {
		index += bank * SLUICE_HOMES;
		answer = bpf_map_lookup_elem(&homes, &index);
		if (answer && answer->len)
			return answer;
	}
	index = bank * SLUICE_ANSWER_COUNT + code;
	return bpf_map_lookup_elem(&answers, &index);
}

/* Returns 0, or -1 if the frame has no room even for the short form. */
__noinline int answer_send(struct xdp_md *ctx, const struct packet *pkt, __u32 code)
{
	struct sluice_answer_bytes *answer;
	struct sluice_control *ctl = control_get();
	struct reply reply = {.flags = TCP_PSH | TCP_FIN | TCP_ACK};
	__u32 token[SLUICE_TOKEN_TEXT / 4];
	__u32 digits = 0, len, retry_at, token_at;
	int off;

	if (!ctl || !pkt)
		return -1;
	answer = answer_find(ctl, pkt, code);
	if (!answer)
		return -1;
	len = answer->len;
	retry_at = answer->retry_at;
	token_at = answer->token_at;
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
	if (token_at) {
		__u64 sum = 0;

		if (bpf_xdp_load_bytes(ctx, pkt->l4_off + pkt->header_len + REQUEST_PREFIX_LEN, token, sizeof(token)))
			return -1;
#pragma GCC unroll 16
		for (int i = 0; i < SLUICE_TOKEN_TEXT / 4; i++)
			sum += token[i];
		/* Summed as it lies in memory; the order of the bytes can be put right afterwards (RFC 1071 section 2B). */
		reply.payload_sum += bpf_ntohs(reply_fold(sum));
	}
	off = reply_write(ctx, pkt, &reply);
	if (off >= 0) {
		if (bpf_xdp_store_bytes(ctx, off, answer->bytes, len))
			return -1;
		if (retry_at && bpf_xdp_store_bytes(ctx, off + retry_at, &digits, 4))
			return -1;
		if (token_at && bpf_xdp_store_bytes(ctx, off + token_at, token, sizeof(token)))
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
