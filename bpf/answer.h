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
#define ANSWER_NO_HOME SLUICE_HOMES
#define ANSWER_NO_ROOM 1

/* Four decimal digits as they stand on the wire. */
static __always_inline __u32 answer_digits(__u32 n)
{
	if (n > SLUICE_RETRY_MAX_S)
		n = SLUICE_RETRY_MAX_S;
	return n / 1000 << 24 | n / 100 % 10 << 16 | n / 10 % 10 << 8 | n % 10;
}

/* The template in use of a code, or, where `home` is a node, of what its tokens are told. */
static __always_inline struct sluice_answer_bytes *answer_find(__u32 banks, __u32 code, __u32 home)
{
	__u32 bank = banks >> (code & 31) & 1, index;

	if (home < SLUICE_HOMES) {
		index = bank * SLUICE_HOMES + home;
		return bpf_map_lookup_elem(&homes, &index);
	}
	index = bank * SLUICE_ANSWER_COUNT + code;
	return bpf_map_lookup_elem(&answers, &index);
}

/* The request's token, and its sum as it lies in memory. The order of the bytes can be put right afterwards (RFC 1071 section 2B). */
static __always_inline int answer_read_token(struct xdp_md *ctx, const struct packet *pkt, __u32 *token, __u64 *sum)
{
	if (bpf_xdp_load_bytes(ctx, pkt->l4_off + pkt->header_len + REQUEST_PREFIX_LEN, token, SLUICE_TOKEN_TEXT))
		return -1;
#pragma GCC unroll 16
	for (int i = 0; i < SLUICE_TOKEN_TEXT / 4; i++)
		*sum += token[i];
	return 0;
}

/* `home`: see answer_find. Returns 0, ANSWER_NO_ROOM if the frame has none even for the short form (or if there is no such template), and is as it
 * was, or -1.
 */
__noinline int answer_try(struct xdp_md *ctx, const struct packet *pkt, __u32 code, __u32 home)
{
	struct sluice_answer_bytes *answer;
	struct sluice_control *ctl = control_get();
	struct reply reply = {.flags = TCP_PSH | TCP_FIN | TCP_ACK};
	__u32 token[SLUICE_TOKEN_TEXT / 4];
	__u32 digits = 0, len, retry_at, token_at;
	__u64 token_sum = 0;
	int off;

	if (!ctl || !pkt)
		return -1;
	answer = answer_find(*(volatile __u32 *)&ctl->answer_banks, code, home);
	if (!answer)
		return -1;
	len = answer->len;
	retry_at = answer->retry_at;
	token_at = answer->token_at;
	if (len > SLUICE_ANSWER_MAX)
		return ANSWER_NO_ROOM;
	KEEP_BOUND(len);
	if (len < ANSWER_MIN)
		return ANSWER_NO_ROOM;
	if (token_at) {
		if (answer_read_token(ctx, pkt, token, &token_sum))
			return -1;
		token_sum = bpf_ntohs(reply_fold(token_sum));
	}

	reply.seq = pkt->ack;
	reply.ack = pkt->seq + pkt->payload_len + (pkt->flags & TCP_FIN ? 1 : 0);
	reply.payload_len = len;
	reply.payload_sum = answer->sum + token_sum;
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
		return token_at ? (int)bpf_xdp_store_bytes(ctx, off + token_at, token, sizeof(token)) : 0;
	}

	len = answer->short_len;
	if (len > SLUICE_ANSWER_SHORT_MAX)
		return ANSWER_NO_ROOM;
	KEEP_BOUND(len);
	if (len < ANSWER_MIN)
		return ANSWER_NO_ROOM;
	reply.payload_len = len;
	reply.payload_sum = answer->short_sum + token_sum;
	off = reply_write(ctx, pkt, &reply);
	if (off < 0)
		return ANSWER_NO_ROOM;
	if (bpf_xdp_store_bytes(ctx, off, answer->short_bytes, len))
		return -1;
	return token_at ? (int)bpf_xdp_store_bytes(ctx, off + token_at, token, sizeof(token)) : 0;
}

/* Returns 0, or something else if the frame has no room for any form. Who is sent home without an address may still ask where it is; so that is better than
 * silence.
 */
static __always_inline int answer_send(struct xdp_md *ctx, const struct packet *pkt, __u32 code)
{
	int err = ANSWER_NO_ROOM;

	if (code == SLUICE_ANSWER_WRONG_NODE && pkt->home < SLUICE_HOMES)
		err = answer_try(ctx, pkt, code, pkt->home);
	return err == ANSWER_NO_ROOM ? answer_try(ctx, pkt, code, ANSWER_NO_HOME) : err;
}

#endif
