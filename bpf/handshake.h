/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The stateless handshake: SYN cookies from XDP that the kernel's own listener accepts, and the orderly end of connections
 * that never became a socket.
 *
 * The cookie comes from bpf_tcp_gen_syncookie with the listener: that stamps the listener's overflow time, without which the
 * kernel would refuse its own cookie. The SYN-ACK carries the MSS and no other option: timestamps would need a
 * per-connection offset that BPF cannot know, and the kernel would read window scale, SACK and ECN out of them.
 */
#ifndef SLUICE_BPF_HANDSHAKE_H
#define SLUICE_BPF_HANDSHAKE_H

#include "parse.h"
#include "rate.h"
#include "reply.h"

/* How far the coarse clock may be behind, in units of SLUICE_RECENT_SHIFT; a tick is 10 ms at most. */
#define HANDSHAKE_CLOCK_SLACK 32u

#define ERRNO_ENOENT 2 /* linux/errno.h is not for BPF */

enum handshake_socket { SOCKET_NONE, SOCKET_LISTENER, SOCKET_CONNECTION };

static __always_inline struct bpf_sock *handshake_lookup(struct xdp_md *ctx, struct packet *pkt)
{
	if (pkt->is_ip6)
		return bpf_skc_lookup_tcp(ctx, &pkt->tuple, sizeof(pkt->tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	return bpf_skc_lookup_tcp(ctx, &pkt->tuple, sizeof(pkt->tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
}

static __always_inline int handshake_find_socket(struct xdp_md *ctx, struct packet *pkt)
{
	struct bpf_sock *sk;
	enum handshake_socket found;

	sk = handshake_lookup(ctx, pkt);
	if (!sk)
		return SOCKET_NONE;
	found = sk->state == BPF_TCP_LISTEN ? SOCKET_LISTENER : SOCKET_CONNECTION;
	bpf_sk_release(sk);
	return found;
}

/* True for the ACK of the handshake, the first data segment and its retransmissions; for nothing later. */
static __always_inline int handshake_cookie_valid(struct xdp_md *ctx, const struct packet *pkt)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end, *ip;
	struct tcphdr *tcp;

	if (!pkt || pkt->l2_len > L2_MAX || pkt->l4_off > L4_OFF_MAX)
		return 0;
	ip = data + pkt->l2_len;
	tcp = data + pkt->l4_off;
	if ((void *)(tcp + 1) > data_end)
		return 0;
	if (pkt->is_ip6) {
		if (ip + sizeof(struct ipv6hdr) > data_end)
			return 0;
		return !bpf_tcp_raw_check_syncookie_ipv6(ip, tcp);
	}
	if (ip + sizeof(struct iphdr) > data_end)
		return 0;
	return !bpf_tcp_raw_check_syncookie_ipv4(ip, tcp);
}

/* Low 32 bits: the sequence number. Negative: an error of the helper. */
static __always_inline __s64 handshake_make_cookie(struct xdp_md *ctx, const struct packet *pkt, struct bpf_sock *sk)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end, *ip;
	__u8 header[TCP_HEADER_MAX];
	__u32 len = pkt->header_len;

	/* The helper wants exactly the header, options included, in memory of a known size. */
	if (len > TCP_HEADER_MAX)
		return -1;
	KEEP_BOUND(len);
	if (len < sizeof(struct tcphdr) || bpf_xdp_load_bytes(ctx, pkt->l4_off, header, len) || pkt->l2_len > L2_MAX)
		return -1;
	ip = data + pkt->l2_len;
	if (pkt->is_ip6) {
		if (ip + sizeof(struct ipv6hdr) > data_end)
			return -1;
		return bpf_tcp_gen_syncookie(sk, ip, sizeof(struct ipv6hdr), (void *)header, len);
	}
	if (ip + sizeof(struct iphdr) > data_end)
		return -1;
	return bpf_tcp_gen_syncookie(sk, ip, sizeof(struct iphdr), (void *)header, len);
}

/* A client comes again from a port that the kernel still knows the last connection of. The kernel makes this one without a cookie, so nothing of
 * it will ever be a first segment: its first request is charged now. (Of whom it comes is known: the connection before was his, a minute ago
 * at the most.) There is nothing yet that could be answered.
 */
static __always_inline int handshake_again(struct packet *pkt)
{
	struct sluice_rate *bucket = rate_of_source(&pkt->source);
	int reason;

	if (rate_is_muted(bucket))
		return SLUICE_REASON_RATE_DROP;
	pkt->now = bpf_ktime_get_ns();
	reason = rate_check_request(&pkt->source, bucket, pkt->now, pkt->control, &pkt->retry_after_s);
	if (reason == SLUICE_REASON_NONE)
		return SLUICE_REASON_SOCKET;
	rate_note_verdict(rate_of_source(&pkt->source), reason);
	return reason;
}

__noinline int handshake_syn(struct xdp_md *ctx, struct packet *pkt)
{
	struct sluice_control *ctl = control_get();
	struct reply reply = {.flags = TCP_SYN | TCP_ACK};
	enum sluice_reason reason = SLUICE_REASON_NONE;
	struct bpf_sock *sk;
	__s64 cookie;
	int again;

	if (!pkt || !ctl)
		return SLUICE_REASON_COOKIE_FAILED;
	if (!pkt->allowed)
		reason = rate_check_syn(&pkt->source, pkt->control);
	if (reason != SLUICE_REASON_NONE)
		return reason;
	sk = handshake_lookup(ctx, pkt);
	if (!sk)
		return SLUICE_REASON_NO_LISTENER;
	if (sk->state != BPF_TCP_LISTEN) { /* the kernel knows best */
		again = sk->state == BPF_TCP_TIME_WAIT && !pkt->allowed && !(pkt->control & SLUICE_CONTROL_SHADOW_ALL);
		bpf_sk_release(sk);
		return again ? handshake_again(pkt) : SLUICE_REASON_SOCKET;
	}
	if (pkt->control &
		SLUICE_CONTROL_SHADOW_ALL) { /* the frame stays as it is, and the kernel makes its own cookie */
		bpf_sk_release(sk);
		return SLUICE_REASON_SYN_COOKIE;
	}
	cookie = handshake_make_cookie(ctx, pkt, sk);
	bpf_sk_release(sk);
	if (cookie < 0)
		return cookie == -ERRNO_ENOENT ? SLUICE_REASON_ACCEPT_FULL : SLUICE_REASON_COOKIE_FAILED;

	reply.seq = (__u32)cookie;
	reply.ack = pkt->seq + 1;
	if (pkt->header_len > sizeof(struct tcphdr)) /* never longer than the SYN */
		reply.mss = pkt->is_ip6 ? ctl->mss6 : ctl->mss4;
	return reply_write(ctx, pkt, &reply) < 0 ? SLUICE_REASON_ANSWER_FAILED : SLUICE_REASON_SYN_COOKIE;
}

static __always_inline __u64 *handshake_recent(const struct packet *pkt, __u64 *hash)
{
	__u16 sport = pkt->is_ip6 ? pkt->tuple.ipv6.sport : pkt->tuple.ipv4.sport;
	__u16 dport = pkt->is_ip6 ? pkt->tuple.ipv6.dport : pkt->tuple.ipv4.dport;
	struct sluice_addr destination = parse_destination(pkt);
	struct sluice_control *ctl = control_get();
	__u32 slot;

	if (!ctl)
		return NULL;
	*hash = sluice_flow_hash(&pkt->source, &destination, bpf_ntohs(sport), bpf_ntohs(dport), ctl->rate_seed);
	slot = *hash & (SLUICE_RECENT_SLOTS - 1);
	return bpf_map_lookup_elem(&recent, &slot);
}

/* Remembers what became of a first segment. A function of its own for the sake of the stack of its caller. */
__noinline int handshake_note(const struct packet *pkt, __u32 answered)
{
	__u64 hash, *word;

	if (!pkt)
		return 0;
	word = handshake_recent(pkt, &hash);
	if (word)
		*(volatile __u64 *)word = sluice_recent_word(hash, answered, pkt->ack, pkt->now);
	return 0;
}

enum handshake_past { PAST_UNKNOWN, PAST_PASSED, PAST_ANSWERED };

/* What became of the first segment of this connection, as far as it is remembered. */
static __always_inline int handshake_past_of(const struct packet *pkt)
{
	__u64 hash, *word, noted;
	__u32 age;
	__u16 seen;

	word = handshake_recent(pkt, &hash);
	if (!word)
		return PAST_UNKNOWN;
	noted = *(volatile __u64 *)word;
	if (!noted || (noted ^ hash) >> SLUICE_RECENT_FLOW_SHIFT)
		return PAST_UNKNOWN;
	/* The coarse clock costs half, and may be up to a tick behind the one of the note. */
	age = (__u32)(bpf_ktime_get_coarse_ns() >> SLUICE_RECENT_SHIFT) - (__u32)noted + HANDSHAKE_CLOCK_SLACK;
	age &= SLUICE_RECENT_TIME_MASK;
	if (!(noted & SLUICE_RECENT_ANSWERED_BIT))
		return age <= SLUICE_RECENT_PASSED + HANDSHAKE_CLOCK_SLACK ? PAST_PASSED : PAST_UNKNOWN;
	/* Of the answer, its FIN included, as much has come as the client acknowledges more than in its first segment: none of it, if the answer
	 * was lost; anything, if this is another connection with the same name.
	 */
	seen = (__u16)pkt->ack - (__u16)(noted >> SLUICE_RECENT_ACK_SHIFT);
	if (!seen || seen > SLUICE_ANSWER_MAX + 1)
		return PAST_UNKNOWN;
	return age <= SLUICE_RECENT_ANSWERED + HANDSHAKE_CLOCK_SLACK ? PAST_ANSWERED : PAST_UNKNOWN;
}

/* Data or FIN without a socket. A connection whose answer has arrived gets a bare ACK, so that the client can close; as we never answer a
 * bare ACK, this cannot loop. So does a client that connected, said nothing and closes: its FIN has a valid cookie. Nothing else
 * is acknowledged: an ACK is cumulative, and what stands before this segment, or the answer to it, may never have arrived.
 */
__noinline int handshake_leftover(struct xdp_md *ctx, struct packet *pkt, __u32 past)
{
	struct reply reply = {.flags = TCP_ACK};

	if (!pkt)
		return SLUICE_REASON_ANSWER_FAILED;
	if (past == PAST_PASSED)
		return SLUICE_REASON_FOLLOWS;
	if (past == PAST_UNKNOWN && (pkt->payload_len || !handshake_cookie_valid(ctx, pkt)))
		return SLUICE_REASON_LEFTOVER_UNKNOWN;
	if (pkt->control & SLUICE_CONTROL_SHADOW_ALL)
		return SLUICE_REASON_LEFTOVER;
	reply.seq = pkt->ack;
	reply.ack = pkt->seq + pkt->payload_len + (pkt->flags & TCP_FIN ? 1 : 0);
	return reply_write(ctx, pkt, &reply) < 0 ? SLUICE_REASON_ANSWER_FAILED : SLUICE_REASON_LEFTOVER;
}

#endif
