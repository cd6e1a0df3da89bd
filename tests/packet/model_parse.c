/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The model's parser: Ethernet (802.1Q, 802.1ad), IPv4 (RFC 791), IPv6 (RFC 8200) with its chain of headers, TCP (RFC 9293). Each header is
 * read as its RFC draws it, one byte after another; nothing is trusted before its length was compared with what is left.
 */
#include <string.h>

#include "model_inside.h"

#define TYPE_IP4 0x0800
#define TYPE_IP6 0x86dd
#define TYPE_VLAN 0x8100
#define TYPE_VLAN_OUTER 0x88a8
#define VLANS_MAX 2
#define EXTENSIONS_MAX 8
#define PROTO_TCP 6

unsigned model_get16(const uint8_t *at)
{
	return at[0] * 256u + at[1];
}

uint32_t model_get32(const uint8_t *at)
{
	return model_get16(at) * 65536u + model_get16(at + 2);
}

static int read_link(struct model_packet *packet, unsigned *type)
{
	unsigned at = 12;

	if (packet->length < 14)
		return SLUICE_REASON_ETH_MALFORMED;
	*type = model_get16(packet->bytes + at);
	at += 2;
	while (*type == TYPE_VLAN || *type == TYPE_VLAN_OUTER) {
		if (packet->vlans == VLANS_MAX)
			return SLUICE_REASON_VLAN_DEPTH;
		if (packet->length - at < 4)
			return SLUICE_REASON_ETH_MALFORMED;
		packet->vlans++;
		*type = model_get16(packet->bytes + at + 2);
		at += 4;
	}
	packet->ip_at = at;
	return GO_ON;
}

static int read_ip4(struct model_packet *packet)
{
	const uint8_t *ip = packet->bytes + packet->ip_at;
	unsigned left = packet->length - packet->ip_at, header, total, fragment;

	if (left < 20)
		return SLUICE_REASON_IP4_MALFORMED;
	header = (ip[0] & 15) * 4;
	total = model_get16(ip + 2);
	if (ip[0] >> 4 != 4 || header < 20 || total < header || total > left)
		return SLUICE_REASON_IP4_MALFORMED;
	memset(&packet->source, 0, 10);
	memset(packet->source.byte + 10, 0xff, 2);
	packet->destination = packet->source;
	memcpy(packet->source.byte + 12, ip + 12, 4);
	memcpy(packet->destination.byte + 12, ip + 16, 4);
	fragment = model_get16(ip + 6);
	packet->fragment = fragment & 0x3fff; /* more, or an offset */
	packet->fragment_offset = fragment & 0x1fff;
	packet->later_fragment = packet->fragment_offset;
	packet->protocol = ip[9];
	packet->tcp_at = packet->ip_at + header;
	packet->end = packet->ip_at + total;
	return GO_ON;
}

static int read_ip6(struct model_packet *packet)
{
	const uint8_t *ip = packet->bytes + packet->ip_at;
	unsigned left = packet->length - packet->ip_at, at, end, next, extensions = 0;

	if (left < 40 || ip[0] >> 4 != 6 || model_get16(ip + 4) > left - 40)
		return SLUICE_REASON_IP6_MALFORMED;
	memcpy(packet->source.byte, ip + 8, 16);
	memcpy(packet->destination.byte, ip + 24, 16);
	next = ip[6];
	at = packet->ip_at + 40;
	end = at + model_get16(ip + 4);
	packet->end = end;
	for (;;) {
		const uint8_t *header = packet->bytes + at;
		unsigned size;

		packet->protocol = next;
		packet->tcp_at = at;
		if (next != 0 && next != 43 && next != 44 && next != 51 && next != 60)
			return GO_ON;
		if (extensions++ == EXTENSIONS_MAX)
			return SLUICE_REASON_IP6_EXTENSIONS;
		if (end - at < 8)
			return SLUICE_REASON_IP6_MALFORMED;
		size = next == 44 ? 8 : next == 51 ? (header[1] + 2) * 4 : (header[1] + 1) * 8;
		if (size > end - at)
			return SLUICE_REASON_IP6_MALFORMED;
		if (next == 44) {
			packet->fragment_offset = model_get16(header + 2) >> 3;
			packet->later_fragment = packet->fragment_offset;
			packet->fragment |= packet->fragment_offset || header[3] & 1;
		}
		next = header[0];
		at += size;
		if (packet->later_fragment) { /* what follows is the middle of something */
			packet->protocol = next;
			return GO_ON;
		}
	}
}

int model_parse_network(struct model_packet *packet)
{
	unsigned type;
	int reason = read_link(packet, &type);

	if (reason != GO_ON)
		return reason;
	if (type != TYPE_IP4 && type != TYPE_IP6)
		return SLUICE_REASON_UNPROTECTED;
	packet->ip6 = type == TYPE_IP6;
	reason = packet->ip6 ? read_ip6(packet) : read_ip4(packet);
	if (reason != GO_ON || packet->protocol != PROTO_TCP)
		return reason;
	if (packet->later_fragment) {
		if (packet->fragment_offset == 1) /* RFC 3128: over the flags of the first */
			return SLUICE_REASON_FRAGMENT;
		packet->protocol = 0;
		return GO_ON;
	}
	if (packet->end - packet->tcp_at < 4)
		return SLUICE_REASON_TCP_MALFORMED;
	packet->sport = model_get16(packet->bytes + packet->tcp_at);
	packet->dport = model_get16(packet->bytes + packet->tcp_at + 2);
	return GO_ON;
}

int model_parse_tcp(struct model_packet *packet)
{
	const uint8_t *tcp = packet->bytes + packet->tcp_at;
	unsigned left = packet->end - packet->tcp_at, header;

	if (left < 20)
		return SLUICE_REASON_TCP_MALFORMED;
	header = (tcp[12] >> 4) * 4;
	if (header < 20 || header > left)
		return SLUICE_REASON_TCP_MALFORMED;
	packet->seq = model_get32(tcp + 4);
	packet->ack = model_get32(tcp + 8);
	packet->flags = tcp[13];
	packet->option_bytes = header - 20;
	packet->data_at = packet->tcp_at + header;
	packet->data_len = left - header;
	return GO_ON;
}
