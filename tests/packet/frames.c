/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Builders of frames and the independent parser; see frames.h. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "frames.h"

static const uint8_t mac_client[6] = {2, 0, 0, 0, 0, 1};
static const uint8_t mac_server[6] = {2, 0, 0, 0, 0, 2};

static void put16(uint8_t *at, unsigned value)
{
	at[0] = value >> 8;
	at[1] = value;
}

static void put32(uint8_t *at, uint32_t value)
{
	put16(at, value >> 16);
	put16(at + 2, value & 0xffff);
}

static unsigned get16(const uint8_t *at)
{
	return at[0] << 8 | at[1];
}

static uint32_t get32(const uint8_t *at)
{
	return (uint32_t)get16(at) << 16 | get16(at + 2);
}

/* RFC 1071, one 16-bit word at a time. */
static uint32_t sum16(const uint8_t *at, unsigned length, uint32_t sum)
{
	for (unsigned i = 0; i + 1 < length; i += 2) {
		sum += get16(at + i);
		sum = (sum & 0xffff) + (sum >> 16);
	}
	if (length & 1) {
		sum += at[length - 1] << 8;
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return sum;
}

static uint32_t pseudo_sum(const uint8_t *ip, bool ip6, unsigned l4_length)
{
	uint32_t sum = ip6 ? sum16(ip + 8, 32, 0) : sum16(ip + 12, 8, 0);

	sum += l4_length + 6;
	return (sum & 0xffff) + (sum >> 16);
}

struct frame frame_syn(bool ip6)
{
	struct frame frame = {
		.ip6 = ip6,
		.source = ip6 ? "2001:db8:1::10" : "192.0.2.10",
		.destination = ip6 ? "::1" : "127.0.0.1",
		.sport = 40000,
		.dport = 8080,
		.seq = 1000,
		.flags = F_SYN,
		.tcp_option_bytes = 20,
	};

	return frame;
}

unsigned frame_ip_offset(const struct frame *frame)
{
	return 14 + 4 * frame->vlans;
}

unsigned frame_tcp_offset(const struct frame *frame)
{
	unsigned off = frame_ip_offset(frame);

	if (!frame->ip6)
		return off + 20 + 4 * frame->ip_option_words;
	return off + 40 + 8 * frame->ip6_extensions + (frame->ip6_fragment_header ? 8 : 0);
}

static unsigned write_ip6_extensions(const struct frame *frame, uint8_t *ip, uint8_t protocol)
{
	uint8_t *next = ip + 6, *at = ip + 40;

	for (unsigned i = 0; i < frame->ip6_extensions; i++) {
		/* Hop-by-hop may stand only first; the others are destination options. */
		*next = i ? 60 : 0;
		memset(at, 0, 8);
		at[2] = 1; /* PadN */
		at[3] = 4;
		next = at;
		at += 8;
	}
	if (frame->ip6_fragment_header) {
		*next = 44;
		memset(at, 0, 8);
		put16(at + 2, frame->fragment);
		put32(at + 4, 0x1234);
		next = at;
		at += 8;
	}
	*next = protocol;
	return at - ip;
}

unsigned frame_write(const struct frame *frame, uint8_t *bytes)
{
	uint8_t protocol = frame->protocol ? frame->protocol : 6;
	unsigned off = 12, l4_length = 20 + frame->tcp_option_bytes + frame->payload_len, header;
	uint8_t *ip, *tcp;

	memset(bytes, 0, FRAME_MAX);
	memcpy(bytes, mac_server, 6);
	memcpy(bytes + 6, mac_client, 6);
	for (int i = 0; i < frame->vlans; i++, off += 4) {
		put16(bytes + off, i + 1 < frame->vlans ? 0x88a8 : 0x8100);
		put16(bytes + off + 2, 100 + i);
	}
	put16(bytes + off, frame->ip6 ? 0x86dd : 0x0800);
	ip = bytes + off + 2;
	if (frame->ip6) {
		ip[0] = 0x60;
		ip[7] = 64;
		if (inet_pton(AF_INET6, frame->source, ip + 8) != 1 ||
			inet_pton(AF_INET6, frame->destination, ip + 24) != 1)
			abort();
		header = write_ip6_extensions(frame, ip, protocol);
		put16(ip + 4, header - 40 + l4_length);
	} else {
		header = 20 + 4 * frame->ip_option_words;
		ip[0] = 0x40 | (header / 4);
		put16(ip + 2, header + l4_length);
		put16(ip + 6, frame->fragment);
		ip[8] = 64;
		ip[9] = protocol;
		memset(ip + 20, 1, 4 * frame->ip_option_words); /* NOP */
		if (inet_pton(AF_INET, frame->source, ip + 12) != 1 ||
			inet_pton(AF_INET, frame->destination, ip + 16) != 1)
			abort();
		put16(ip + 10, ~sum16(ip, header, 0));
	}
	tcp = ip + header;
	put16(tcp, frame->sport);
	put16(tcp + 2, frame->dport);
	put32(tcp + 4, frame->seq);
	put32(tcp + 8, frame->ack);
	tcp[12] = (20 + frame->tcp_option_bytes) / 4 << 4;
	tcp[13] = frame->flags;
	put16(tcp + 14, 64240);
	if (frame->tcp_option_bytes) {
		memset(tcp + 20, 1, frame->tcp_option_bytes);
		tcp[20] = 2;
		tcp[21] = 4;
		put16(tcp + 22, 1460);
	}
	if (frame->payload_len)
		memcpy(tcp + 20 + frame->tcp_option_bytes, frame->payload, frame->payload_len);
	put16(tcp + 16, ~sum16(tcp, l4_length, pseudo_sum(ip, frame->ip6, l4_length)));
	return tcp + l4_length + frame->padding - bytes;
}

static const char *parse_network(
	struct parsed *out, const uint8_t *ip, unsigned length, unsigned *header, unsigned *total)
{
	if (length < 20)
		return "no IP header";
	if (out->ip6) {
		if (length < 40 || ip[0] >> 4 != 6)
			return "IPv6 header";
		*header = 40;
		*total = 40 + get16(ip + 4);
		if (ip[6] != 6)
			return "next header";
		out->ttl = ip[7];
		inet_ntop(AF_INET6, ip + 8, out->source, sizeof(out->source));
		inet_ntop(AF_INET6, ip + 24, out->destination, sizeof(out->destination));
	} else {
		if (ip[0] != 0x45)
			return "IPv4 version or header length";
		*header = 20;
		*total = get16(ip + 2);
		if (ip[9] != 6)
			return "protocol";
		if (sum16(ip, 20, 0) != 0xffff)
			return "IPv4 checksum";
		out->ttl = ip[8];
		inet_ntop(AF_INET, ip + 12, out->source, sizeof(out->source));
		inet_ntop(AF_INET, ip + 16, out->destination, sizeof(out->destination));
	}
	return *total == length ? NULL : "IP length is not the frame's";
}

struct parsed frame_parse(const uint8_t *bytes, unsigned length)
{
	struct parsed out = {0};
	unsigned off = 12, header, total, doff;
	const uint8_t *ip, *tcp;

	if (length < 14) {
		out.wrong = "no Ethernet header";
		return out;
	}
	memcpy(out.mac_destination, bytes, 6);
	memcpy(out.mac_source, bytes + 6, 6);
	while (off + 4 < length && (get16(bytes + off) == 0x8100 || get16(bytes + off) == 0x88a8)) {
		if (out.vlans < 2)
			out.tags[out.vlans] = get16(bytes + off + 2);
		out.vlans++;
		off += 4;
	}
	if (get16(bytes + off) != 0x0800 && get16(bytes + off) != 0x86dd) {
		out.wrong = "ethertype";
		return out;
	}
	out.ip6 = get16(bytes + off) == 0x86dd;
	ip = bytes + off + 2;
	out.wrong = parse_network(&out, ip, length - off - 2, &header, &total);
	if (out.wrong)
		return out;
	tcp = ip + header;
	if (total - header < 20 || (doff = (tcp[12] >> 4) * 4) < 20 || doff > total - header) {
		out.wrong = "TCP header";
		return out;
	}
	if (sum16(tcp, total - header, pseudo_sum(ip, out.ip6, total - header)) != 0xffff)
		out.wrong = "TCP checksum";
	out.sport = get16(tcp);
	out.dport = get16(tcp + 2);
	out.seq = get32(tcp + 4);
	out.ack = get32(tcp + 8);
	out.flags = tcp[13];
	out.window = get16(tcp + 14);
	out.option_bytes = doff - 20;
	if (doff >= 24 && tcp[20] == 2 && tcp[21] == 4)
		out.mss = get16(tcp + 22);
	out.payload = tcp + doff;
	out.payload_len = total - header - doff;
	return out;
}
