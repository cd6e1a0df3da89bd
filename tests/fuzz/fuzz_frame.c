/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Fuzz target: bpf/parse.h on any frame, against a second parser that goes byte by byte and shares no code with it.
 *
 * The input is one byte (at which end of its page the frame lies) and the frame. Claims: no byte beside the frame is read; both parsers
 * name the same reason; for a segment to a protected service they agree on every field that later stages use.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "check.h"
#include "parse.h"

#define EXTENSIONS_MAX 8
#define HEADER_OFFSET_MAX 3000

static const struct {
	uint16_t port;
	uint8_t kind;
	struct sluice_addr address;
} listening[] = {
	{8080, SLUICE_SERVICE_SALE, {0, 0xffffc0000201}}, /* 192.0.2.1 */
	{8080, SLUICE_SERVICE_SALE, {0x20010db800000000, 1}},
	{8081, SLUICE_SERVICE_TCP, {0, 0}},
	{8082, SLUICE_SERVICE_UNUSED, {0, 0}},
	{8082, SLUICE_SERVICE_SALE, {0, 0}},
};
#define LISTENING (sizeof(listening) / sizeof(listening[0]))

/* What the second parser found. */
struct found {
	int reason;
	struct packet pkt;
};

static unsigned get16(const uint8_t *at)
{
	return (unsigned)at[0] << 8 | at[1];
}

static uint32_t get32(const uint8_t *at)
{
	return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static uint64_t get64(const uint8_t *at)
{
	return (uint64_t)get32(at) << 32 | get32(at + 4);
}

static int later_fragment(uint8_t protocol, unsigned offset)
{
	return protocol == 6 && offset == 8 ? SLUICE_REASON_FRAGMENT : SLUICE_REASON_UNPROTECTED;
}

/* Each gives a reason, or NONE and where the payload of IP is. */
static int find_ip4(struct packet *pkt, const uint8_t *ip, size_t left, struct sluice_addr *destination)
{
	unsigned header, total, fragment;

	if (left < 20)
		return SLUICE_REASON_IP4_MALFORMED;
	header = (ip[0] & 15) * 4u;
	total = get16(ip + 2);
	if (ip[0] >> 4 != 4 || header < 20 || header > total || total > left)
		return SLUICE_REASON_IP4_MALFORMED;
	pkt->is_ip = 1;
	pkt->source = (struct sluice_addr){0, 0xffff00000000 | get32(ip + 12)};
	*destination = (struct sluice_addr){0, 0xffff00000000 | get32(ip + 16)};
	pkt->protocol = ip[9];
	pkt->l4_off = pkt->l2_len + header;
	pkt->l4_len = total - header;
	fragment = get16(ip + 6);
	if (fragment & 0x1fff)
		return later_fragment(ip[9], (fragment & 0x1fff) * 8);
	pkt->fragment = fragment >> 13 & 1;
	return SLUICE_REASON_NONE;
}

static int find_ip6(struct packet *pkt, const uint8_t *ip, size_t left, struct sluice_addr *destination)
{
	const uint8_t *at = ip + 40;
	unsigned payload, next, length;

	if (left < 40 || ip[0] >> 4 != 6)
		return SLUICE_REASON_IP6_MALFORMED;
	payload = get16(ip + 4);
	if (payload > left - 40)
		return SLUICE_REASON_IP6_MALFORMED;
	pkt->is_ip = pkt->is_ip6 = 1;
	pkt->source = (struct sluice_addr){get64(ip + 8), get64(ip + 16)};
	*destination = (struct sluice_addr){get64(ip + 24), get64(ip + 32)};
	next = ip[6];
	for (unsigned i = 0; next == 0 || next == 43 || next == 44 || next == 51 || next == 60; i++) {
		if (i == EXTENSIONS_MAX)
			return SLUICE_REASON_IP6_EXTENSIONS;
		if (payload < 8)
			return SLUICE_REASON_IP6_MALFORMED;
		length = next == 44 ? 8 : next == 51 ? (at[1] + 2u) * 4 : (at[1] + 1u) * 8;
		if (length > payload)
			return SLUICE_REASON_IP6_MALFORMED;
		if (next == 44 && get16(at + 2) & 0xfff8)
			return later_fragment(at[0], get16(at + 2) & 0xfff8);
		pkt->fragment |= next == 44 && get16(at + 2) & 1;
		next = at[0];
		payload -= length;
		at += length;
	}
	pkt->protocol = (uint8_t)next;
	pkt->l4_off = pkt->l2_len + (unsigned)(at - ip);
	pkt->l4_len = payload;
	return SLUICE_REASON_NONE;
}

static void find_service(struct packet *pkt, unsigned port, struct sluice_addr to)
{
	for (unsigned i = 0; i < LISTENING; i++) {
		const struct sluice_addr *address = &listening[i].address;

		if (pkt->service < SLUICE_MAX_SERVICES || listening[i].port != port || !listening[i].kind)
			continue;
		if ((address->hi || address->lo) && (address->hi != to.hi || address->lo != to.lo))
			continue;
		pkt->service = (uint8_t)i;
		pkt->kind = listening[i].kind;
	}
}

static int find_tcp(struct packet *pkt, const uint8_t *tcp)
{
	if (pkt->l4_len < 20)
		return SLUICE_REASON_TCP_MALFORMED;
	pkt->header_len = (tcp[12] >> 4) * 4u;
	if (pkt->header_len < 20 || pkt->header_len > pkt->l4_len)
		return SLUICE_REASON_TCP_MALFORMED;
	pkt->seq = get32(tcp + 4);
	pkt->ack = get32(tcp + 8);
	pkt->flags = tcp[13];
	pkt->payload_len = pkt->l4_len - pkt->header_len;
	return SLUICE_REASON_NONE;
}

static int find(struct packet *pkt, const uint8_t *frame, size_t length)
{
	struct sluice_addr destination = {0, 0};
	unsigned type, off = 14;
	int reason;

	pkt->service = SLUICE_MAX_SERVICES;
	if (length < 14)
		return SLUICE_REASON_ETH_MALFORMED;
	type = get16(frame + 12);
	for (unsigned tags = 0; type == 0x8100 || type == 0x88a8; tags++) {
		if (tags == 2)
			return SLUICE_REASON_VLAN_DEPTH;
		if (length < off + 4)
			return SLUICE_REASON_ETH_MALFORMED;
		type = get16(frame + off + 2);
		off += 4;
	}
	pkt->l2_len = off;
	if (type != 0x0800 && type != 0x86dd)
		return SLUICE_REASON_UNPROTECTED;
	reason = type == 0x0800 ? find_ip4(pkt, frame + off, length - off, &destination)
				: find_ip6(pkt, frame + off, length - off, &destination);
	if (reason != SLUICE_REASON_NONE)
		return reason;
	if (pkt->protocol != 6)
		return SLUICE_REASON_UNPROTECTED;
	if (pkt->l4_len < 4 || pkt->l4_off > HEADER_OFFSET_MAX)
		return SLUICE_REASON_TCP_MALFORMED;
	find_service(pkt, get16(frame + pkt->l4_off + 2), destination);
	if (pkt->service == SLUICE_MAX_SERVICES)
		return SLUICE_REASON_UNPROTECTED;
	return pkt->fragment ? SLUICE_REASON_NONE : find_tcp(pkt, frame + pkt->l4_off);
}

#define SAME(field) \
	CHECK(pkt.field == found.field, #field " is %llu, not %llu", (unsigned long long)pkt.field, \
		(unsigned long long)found.field)

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	for (__u32 i = 0; i < LISTENING; i++) {
		struct sluice_service service = {
			.addr = listening[i].address, .port = listening[i].port, .kind = listening[i].kind};
		__u32 port = listening[i].port;
		__u64 *bits = bpf_map_lookup_elem(&ports, &port);

		*bits |= 1ULL << i;
		bpf_map_update_elem(&services, &i, &service, BPF_ANY);
	}
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct input input = {bytes, size};
	bool at_end = input_u8(&input) & 1;
	struct packet pkt = {}, found = {};
	struct xdp_md *ctx;
	int reason, wanted;

	if (input.left > SHIM_FRAME_MAX)
		return -1;
	ctx = shim_frame_put(input.at, (uint32_t)input.left, at_end);
	reason = parse_frame(ctx, &pkt);
	wanted = find(&found, input.at, input.left);
	CHECK(reason == wanted, "reason %d, not %d", reason, wanted);
	SAME(service);
	SAME(is_ip);
	SAME(is_ip6);
	SAME(source.hi);
	SAME(source.lo);
	CHECK(pkt.bytes == input.left, "%u bytes of %zu", pkt.bytes, input.left);
	if (reason != SLUICE_REASON_NONE)
		return 0;
	SAME(l2_len);
	SAME(l4_off);
	SAME(l4_len);
	SAME(kind);
	SAME(fragment);
	SAME(header_len);
	SAME(payload_len);
	SAME(flags);
	SAME(seq);
	SAME(ack);
	return 0;
}
