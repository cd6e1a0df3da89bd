/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* From bytes to struct packet: Ethernet, up to two VLAN tags, IPv4 with options, IPv6 with extension headers, the service that
 * it is for, TCP.
 *
 * Each returns REASON_NONE ("go on"), or the reason
 * with which the packet leaves. Lengths are checked against the frame and against the IP header, because Ethernet pads.
 */
#ifndef SLUICE_BPF_PARSE_H
#define SLUICE_BPF_PARSE_H

#include "maps.h"
#include "packet.h"

#define PARSE_EXTENSIONS_MAX 8
#define IP4_MORE_FRAGMENTS 0x2000
#define IP4_OFFSET 0x1fff
#define IP6_OFFSET 0xfff8
#define IP6_MORE_FRAGMENTS 0x0001

struct vlan_tag {
	__be16 tci;
	__be16 protocol;
};

struct ip6_extension {
	__u8 next;
	__u8 len;
	__be16 fragment; /* fragment header only */
};

static __always_inline int parse_is_vlan(__be16 protocol)
{
	return protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD);
}

/* A later fragment has no ports, so it cannot be told what it is for: it passes, and waits in vain for its first part if that
 * was for a protected port. One that would overlap the TCP flags of its first part is dropped (RFC 3128 section 4).
 */
static __always_inline enum sluice_reason parse_later_fragment(const struct packet *pkt, __u32 offset)
{
	return pkt->protocol == IPPROTO_TCP && offset == 8 ? SLUICE_REASON_FRAGMENT : SLUICE_REASON_UNPROTECTED;
}

static __always_inline enum sluice_reason parse_ip4(struct packet *pkt, void *at, void *data_end)
{
	struct iphdr *ip = at;
	__u32 header_len, total_len, fragment;

	if ((void *)(ip + 1) > data_end)
		return SLUICE_REASON_IP4_MALFORMED;
	header_len = ip->ihl * 4;
	total_len = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || header_len < sizeof(*ip) || total_len < header_len ||
		total_len > (__u64)(data_end - at))
		return SLUICE_REASON_IP4_MALFORMED;

	pkt->is_ip = 1;
	pkt->source.lo = 0xffff00000000ULL | bpf_ntohl(ip->saddr);
	pkt->tuple.ipv4.saddr = ip->saddr;
	pkt->tuple.ipv4.daddr = ip->daddr;
	pkt->protocol = ip->protocol;
	pkt->l4_off = pkt->l2_len + header_len;
	pkt->l4_len = total_len - header_len;
	fragment = bpf_ntohs(ip->frag_off);
	if (fragment & IP4_OFFSET)
		return parse_later_fragment(pkt, (fragment & IP4_OFFSET) * 8);
	pkt->fragment = !!(fragment & IP4_MORE_FRAGMENTS);
	return SLUICE_REASON_NONE;
}

static __always_inline int parse_is_extension(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS ||
		next == IPPROTO_FRAGMENT || next == IPPROTO_AH;
}

static __always_inline struct sluice_addr parse_addr6(const __be32 *words)
{
	struct sluice_addr addr = {
		.hi = (__u64)bpf_ntohl(words[0]) << 32 | bpf_ntohl(words[1]),
		.lo = (__u64)bpf_ntohl(words[2]) << 32 | bpf_ntohl(words[3]),
	};

	return addr;
}

struct parse_walk {
	struct xdp_md *ctx;
	__u32 off;            /* of the header that `next` names, in the frame */
	__u32 left;           /* of the IP payload */
	__u32 later_fragment; /* offset in bytes, 0 = none */
	__u8 next;
	__u8 fragment;
	__u8 malformed;
};

/* One extension header. A callback of bpf_loop, so that the verifier sees it once and not once per header. */
static long parse_extension(__u64 index, void *arg)
{
	struct parse_walk *walk = arg;
	struct ip6_extension extension;
	__u32 len;

	(void)index;
	if (!parse_is_extension(walk->next))
		return 1;
	if (walk->left < 8 || bpf_xdp_load_bytes(walk->ctx, walk->off, &extension, sizeof(extension))) {
		walk->malformed = 1;
		return 1;
	}
	if (walk->next == IPPROTO_FRAGMENT) {
		len = 8;
		/* Neither an offset nor more to come: an atomic fragment, which is a whole packet (RFC 6946). */
		walk->fragment |= !!(bpf_ntohs(extension.fragment) & (IP6_OFFSET | IP6_MORE_FRAGMENTS));
		walk->later_fragment = bpf_ntohs(extension.fragment) & IP6_OFFSET;
	} else if (walk->next == IPPROTO_AH) {
		len = ((__u32)extension.len + 2) * 4; /* RFC 4302 section 2.2: in 32-bit words less 2 */
	} else {
		len = ((__u32)extension.len + 1) * 8;
	}
	if (len > walk->left) {
		walk->malformed = 1;
		return 1;
	}
	walk->left -= len;
	walk->off += len;
	walk->next = extension.next;
	return walk->later_fragment ? 1 : 0;
}

/* Extension headers are rare, so this stands apart. */
static __noinline enum sluice_reason parse_extensions(struct xdp_md *ctx, struct packet *pkt)
{
	struct parse_walk walk = {.ctx = ctx, .off = pkt->l4_off, .left = pkt->l4_len, .next = pkt->protocol};

	bpf_loop(PARSE_EXTENSIONS_MAX, parse_extension, &walk, 0);
	pkt->protocol = walk.next;
	pkt->l4_off = walk.off;
	pkt->l4_len = walk.left;
	pkt->fragment = walk.fragment;
	if (walk.malformed)
		return SLUICE_REASON_IP6_MALFORMED;
	if (walk.later_fragment)
		return parse_later_fragment(pkt, walk.later_fragment);
	return parse_is_extension(walk.next) ? SLUICE_REASON_IP6_EXTENSIONS : SLUICE_REASON_NONE;
}

static __always_inline enum sluice_reason parse_ip6(struct xdp_md *ctx, struct packet *pkt, void *at, void *data_end)
{
	struct ipv6hdr *ip = at;
	__u32 len;

	if ((void *)(ip + 1) > data_end)
		return SLUICE_REASON_IP6_MALFORMED;
	len = bpf_ntohs(ip->payload_len);
	if (ip->version != 6 || sizeof(*ip) + len > (__u64)(data_end - at))
		return SLUICE_REASON_IP6_MALFORMED;

	pkt->is_ip = 1;
	pkt->is_ip6 = 1;
#pragma GCC unroll 4
	for (int i = 0; i < 4; i++) {
		pkt->tuple.ipv6.saddr[i] = ip->saddr.in6_u.u6_addr32[i];
		pkt->tuple.ipv6.daddr[i] = ip->daddr.in6_u.u6_addr32[i];
	}
	pkt->source = parse_addr6(pkt->tuple.ipv6.saddr);
	pkt->protocol = ip->nexthdr;
	pkt->l4_off = pkt->l2_len + sizeof(*ip);
	pkt->l4_len = len;
	return parse_is_extension(pkt->protocol) ? parse_extensions(ctx, pkt) : SLUICE_REASON_NONE;
}

/* Ethernet, VLAN, IP. What is not IP, or not TCP, is unprotected. */
static __always_inline enum sluice_reason parse_network(
	struct xdp_md *ctx, struct packet *pkt, void *data, void *data_end)
{
	enum sluice_reason reason = SLUICE_REASON_UNPROTECTED;
	struct ethhdr *eth = data;
	void *at = eth + 1;
	__u32 l2_len = sizeof(*eth);
	__be16 protocol;

	if (at > data_end)
		return SLUICE_REASON_ETH_MALFORMED;
	protocol = eth->h_proto;
#pragma GCC unroll 2
	for (int i = 0; i < 2; i++) {
		struct vlan_tag *tag = at;

		if (!parse_is_vlan(protocol))
			break;
		if ((void *)(tag + 1) > data_end)
			return SLUICE_REASON_ETH_MALFORMED;
		protocol = tag->protocol;
		at = tag + 1;
		l2_len += sizeof(*tag);
	}
	if (parse_is_vlan(protocol))
		return SLUICE_REASON_VLAN_DEPTH;

	pkt->l2_len = l2_len;
	if (protocol == bpf_htons(ETH_P_IP))
		reason = parse_ip4(pkt, at, data_end);
	else if (protocol == bpf_htons(ETH_P_IPV6))
		reason = parse_ip6(ctx, pkt, at, data_end);
	if (reason == SLUICE_REASON_NONE && pkt->protocol != IPPROTO_TCP)
		return SLUICE_REASON_UNPROTECTED;
	return reason;
}

static __always_inline struct sluice_addr parse_destination(const struct packet *pkt)
{
	struct sluice_addr destination = {};

	if (pkt->is_ip6)
		return parse_addr6(pkt->tuple.ipv6.daddr);
	destination.lo = 0xffff00000000ULL | bpf_ntohl(pkt->tuple.ipv4.daddr);
	return destination;
}

/* The service that this address and port belong to. */
static __always_inline enum sluice_reason parse_service(struct packet *pkt, void *data, void *data_end)
{
	struct sluice_addr destination;
	__be16 *ports_at, sport, dport;
	__u64 *candidates;
	__u32 key;

	if (pkt->l4_len < 4 || pkt->l4_off > L4_OFF_MAX)
		return SLUICE_REASON_TCP_MALFORMED;
	ports_at = data + pkt->l4_off;
	if ((void *)(ports_at + 2) > data_end)
		return SLUICE_REASON_TCP_MALFORMED;
	sport = ports_at[0];
	dport = ports_at[1];
	key = bpf_ntohs(dport);
	candidates = bpf_map_lookup_elem(&ports, &key);
	if (!candidates || !*candidates)
		return SLUICE_REASON_UNPROTECTED;

	destination = parse_destination(pkt);
	if (pkt->is_ip6) {
		pkt->tuple.ipv6.sport = sport;
		pkt->tuple.ipv6.dport = dport;
	} else {
		pkt->tuple.ipv4.sport = sport;
		pkt->tuple.ipv4.dport = dport;
	}
	for (__u32 i = 0; i < SLUICE_MAX_SERVICES; i++) {
		struct sluice_service *service;

		if (!(*candidates >> i & 1))
			continue;
		key = i;
		service = bpf_map_lookup_elem(&services, &key);
		if (!service || !service->kind)
			continue;
		if ((service->addr.hi | service->addr.lo) &&
			(service->addr.hi != destination.hi || service->addr.lo != destination.lo))
			continue;
		pkt->service = i;
		pkt->kind = service->kind;
		return SLUICE_REASON_NONE;
	}
	return SLUICE_REASON_UNPROTECTED;
}

static __always_inline enum sluice_reason parse_tcp(struct packet *pkt, void *data, void *data_end)
{
	struct tcphdr *tcp;

	if (pkt->l4_len < sizeof(*tcp) || pkt->l4_off > L4_OFF_MAX)
		return SLUICE_REASON_TCP_MALFORMED;
	tcp = data + pkt->l4_off;
	if ((void *)(tcp + 1) > data_end)
		return SLUICE_REASON_TCP_MALFORMED;
	pkt->header_len = tcp->doff * 4;
	if (pkt->header_len < sizeof(*tcp) || pkt->header_len > pkt->l4_len)
		return SLUICE_REASON_TCP_MALFORMED;

	pkt->flags = ((__u8 *)tcp)[13];
	pkt->seq = bpf_ntohl(tcp->seq);
	pkt->ack = bpf_ntohl(tcp->ack_seq);
	pkt->payload_len = pkt->l4_len - pkt->header_len;
	return SLUICE_REASON_NONE;
}

/* Fills a zeroed `pkt`. REASON_NONE: a TCP segment to a protected service, whole or (pkt->fragment) not. Inlined, unlike the other large
 * stages: it is on the way of every packet, where a call and its way back cost some 8 ns, and what comes after it is functions.
 */
static __always_inline int parse_frame(struct xdp_md *ctx, struct packet *pkt)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	enum sluice_reason reason;

	pkt->bytes = data_end - data;
	pkt->service = SLUICE_MAX_SERVICES;
	reason = parse_network(ctx, pkt, data, data_end);
	if (reason == SLUICE_REASON_NONE)
		reason = parse_service(pkt, data, data_end);
	if (reason == SLUICE_REASON_NONE && !pkt->fragment)
		reason = parse_tcp(pkt, data, data_end);
	return reason;
}

#endif
