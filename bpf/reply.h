/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Turns the packet in hand into one that goes back: addresses swapped, headers written anew, checksums complete.
 *
 * The new frame is built from scratch at its final size: IP options and extension headers of the request are gone, VLAN
 * tags stay. A frame that must grow grows at the head where the driver allows it, else at the tail (native veth refuses
 * the tail, some drivers have no head room). Amplifies nothing: a SYN-ACK is never longer than its SYN, and bodies go only to
 * sources that a cookie has validated.
 */
#ifndef SLUICE_BPF_REPLY_H
#define SLUICE_BPF_REPLY_H

#include "maps.h"
#include "packet.h"

/* A frame begins behind 256 bytes (XDP_PACKET_HEADROOM), of which the kernel keeps 40 when it is sent. virtio_net puts its own header in front, of 12
 * to 24 bytes, and drops the frame if there is no room for it, when all is counted. So what needs more than this grows at the tail, if it can.
 */
#define REPLY_HEAD_GROWTH 192
#define REPLY_TTL 64
#define REPLY_WINDOW 65535 /* a real window: zero would delay the client */
#define TCP_OPTION_MSS 2

struct reply {
	__u32 seq; /* host order */
	__u32 ack;
	__u32 mss;         /* 0 = no option */
	__u32 payload_len; /* room that is left behind the TCP header */
	__u64 payload_sum; /* of the payload, as big-endian 16-bit words */
	__u32 flags;
	__u32 pad;
};

static __always_inline __u16 reply_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Makes the frame `want` bytes long. The bytes that matter are written afterwards, so it does not matter which end moves. */
static __always_inline int reply_resize(struct xdp_md *ctx, __u32 have, __u32 want)
{
	int delta = (int)want - (int)have;
	struct sluice_control *ctl;

	if (delta <= 0)
		return delta ? bpf_xdp_adjust_tail(ctx, delta) : 0;
	ctl = control_get();
	if (!ctl)
		return -1;
	if ((ctl->grow & SLUICE_GROW_HEAD) && (delta <= REPLY_HEAD_GROWTH || !(ctl->grow & SLUICE_GROW_TAIL)) &&
		!bpf_xdp_adjust_head(ctx, -delta))
		return 0;
	if ((ctl->grow & SLUICE_GROW_TAIL) && !bpf_xdp_adjust_tail(ctx, delta))
		return 0;
	return -1;
}

/* Rewrites the packet into `reply`. Returns the offset of the payload, or -1 if the frame has no room; then it is untouched. */
__noinline int reply_write(struct xdp_md *ctx, const struct packet *pkt, const struct reply *reply)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	__u16 l2[L2_MAX / 2];
	struct tcphdr *tcp;
	__u32 l2_len, l3_len, l4_len, ports, seq, ack, flags;
	__u64 sum;

	if (!pkt || !reply || data + L2_MAX > data_end)
		return -1;
	l2_len = pkt->l2_len;
	l3_len = pkt->is_ip6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	l4_len = sizeof(struct tcphdr) + (reply->mss ? 4 : 0);
	if (l2_len > L2_MAX || reply->payload_len > SLUICE_ANSWER_MAX)
		return -1;
#pragma GCC unroll 11
	for (int i = 0; i < L2_MAX / 2; i++)
		l2[i] = ((__u16 *)data)[i];

	if (reply_resize(ctx, data_end - data, l2_len + l3_len + l4_len + reply->payload_len))
		return -1;
	data = (void *)(long)ctx->data;
	data_end = (void *)(long)ctx->data_end;

	/* Again, because a verifier that does not follow spilled numbers (6.1) has forgotten it by now. */
	KEEP_BOUND(l2_len);
	if (l2_len > L2_MAX || data + L2_MAX > data_end)
		return -1;
		/* Destination and source MAC change places; type and tags follow. */
#pragma GCC unroll 3
	for (int i = 0; i < 3; i++) {
		((__u16 *)data)[i] = l2[3 + i];
		((__u16 *)data)[3 + i] = l2[i];
	}
#pragma GCC unroll 5
	for (int i = 6; i < L2_MAX / 2; i++)
		((__u16 *)data)[i] = l2[i];

	if (pkt->is_ip6) {
		struct ipv6hdr *ip = data + l2_len;

		tcp = (void *)(ip + 1);
		if ((void *)(tcp + 1) > data_end)
			return -1;
		*(__u32 *)ip = bpf_htonl(0x60000000);
		ip->payload_len = bpf_htons(l4_len + reply->payload_len);
		ip->nexthdr = IPPROTO_TCP;
		ip->hop_limit = REPLY_TTL;
		sum = 0;
#pragma GCC unroll 4
		for (int i = 0; i < 4; i++) {
			((__u32 *)ip)[2 + i] = pkt->tuple.ipv6.daddr[i];
			((__u32 *)ip)[6 + i] = pkt->tuple.ipv6.saddr[i];
			sum += (__u64)pkt->tuple.ipv6.daddr[i] + pkt->tuple.ipv6.saddr[i];
		}
		ports = (__u32)pkt->tuple.ipv6.sport << 16 | pkt->tuple.ipv6.dport;
	} else {
		struct iphdr *ip = data + l2_len;
		__u32 first, second, third;

		tcp = (void *)(ip + 1);
		if ((void *)(tcp + 1) > data_end)
			return -1;
		first = bpf_htonl(0x45000000 | (l3_len + l4_len + reply->payload_len));
		second = bpf_htonl(0x00004000); /* no id, do not fragment */
		third = bpf_htonl(REPLY_TTL << 24 | IPPROTO_TCP << 16);
		sum = (__u64)pkt->tuple.ipv4.saddr + pkt->tuple.ipv4.daddr;
		((__u32 *)ip)[0] = first;
		((__u32 *)ip)[1] = second;
		((__u32 *)ip)[2] = third;
		ip->saddr = pkt->tuple.ipv4.daddr;
		ip->daddr = pkt->tuple.ipv4.saddr;
		ip->check = ~reply_fold(sum + first + second + third);
		ports = (__u32)pkt->tuple.ipv4.sport << 16 | pkt->tuple.ipv4.dport;
	}

	seq = bpf_htonl(reply->seq);
	ack = bpf_htonl(reply->ack);
	flags = bpf_htonl((l4_len / 4) << 28 | (__u32)reply->flags << 16 | REPLY_WINDOW);
	tcp->source = (__u16)ports;
	tcp->dest = ports >> 16;
	tcp->seq = seq;
	tcp->ack_seq = ack;
	((__u32 *)tcp)[3] = flags;
	((__u32 *)tcp)[4] = 0;
	/* RFC 9293 section 3.1; the pseudo header's length and protocol are added as numbers in network order. Nothing is read back: a word that was written
	 * in two halves could only be had when both have reached the cache, and the line is still the CPU's that sent the frame.
	 */
	sum += bpf_htonl(l4_len + reply->payload_len);
	sum += bpf_htonl(IPPROTO_TCP);
	sum += (__u64)ports + seq + ack + flags;
	if (reply->mss) {
		__u32 option = bpf_htonl(TCP_OPTION_MSS << 24 | 4 << 16 | (reply->mss & 0xffff));

		if ((void *)(tcp + 1) + sizeof(option) > data_end)
			return -1;
		*(__u32 *)(tcp + 1) = option;
		sum += option;
	}
	sum += bpf_htons(reply_fold(reply->payload_sum));
	tcp->check = ~reply_fold(sum);
	return l2_len + l3_len + l4_len;
}

#endif
