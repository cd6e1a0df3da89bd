/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Builders of frames, and a parser of what the gate sends back that shares no code with the gate.
 *
 * A frame is described (struct frame), then written (frame_write); tests change one thing of a good description, or bytes
 * of the written frame. Checksums of built frames are right, those of answers are verified word by word as RFC 1071 says.
 */
#ifndef SLUICE_TEST_FRAMES_H
#define SLUICE_TEST_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_MAX 2048

enum { F_FIN = 1, F_SYN = 2, F_RST = 4, F_PSH = 8, F_ACK = 16 };

struct frame {
	int vlans; /* 0..3 tags */
	bool ip6;
	const char *source; /* "192.0.2.1" or "2001:db8::1" */
	const char *destination;
	uint16_t sport, dport;
	uint32_t seq, ack;
	uint8_t flags;
	uint8_t protocol;         /* 0 = TCP */
	unsigned ip_option_words; /* IPv4 options, in 32-bit words (NOPs) */
	unsigned ip6_extensions;  /* hop-by-hop headers of 8 bytes each */
	bool ip6_fragment_header; /* the offset and flag are `fragment` */
	uint16_t fragment;        /* raw: frag_off of IPv4 (0x2000 = more), or of the IPv6 fragment header (1 = more) */
	unsigned tcp_option_bytes; /* multiple of 4; starts with an MSS option, then NOPs */
	const void *payload;
	unsigned payload_len;
	unsigned padding; /* bytes behind the IP packet, as Ethernet pads */
};

/* A SYN of an IPv4 or IPv6 client to the test service. */
struct frame frame_syn(bool ip6);
/* Writes it. Returns the length. `bytes` holds FRAME_MAX. */
unsigned frame_write(const struct frame *frame, uint8_t *bytes);
/* Offset of the IP header, of the TCP header, in a written frame. */
unsigned frame_ip_offset(const struct frame *frame);
unsigned frame_tcp_offset(const struct frame *frame);

struct parsed {
	int vlans;
	bool ip6;
	uint8_t mac_destination[6], mac_source[6];
	uint16_t tags[2];
	char source[64], destination[64];
	uint16_t sport, dport;
	uint32_t seq, ack;
	uint8_t flags;
	uint8_t ttl;
	uint16_t window;
	unsigned mss; /* 0 = no option */
	unsigned option_bytes;
	unsigned payload_len;
	const uint8_t *payload;
	const char *wrong; /* NULL, or what is not as it must be (length, checksum, version …) */
};

/* Takes a frame apart and verifies every length and checksum in it. */
struct parsed frame_parse(const uint8_t *bytes, unsigned length);

#endif
