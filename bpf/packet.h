/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The context that the stages of the gate pass along: what is known of one packet so far.
 *
 * Numbers only, no pointers into the frame: the larger stages are global functions, which the verifier checks once each, by their
 * arguments' types alone. (Inlined, the paths through VLANs, both IP versions and the handshake multiply to more than 400,000
 * verified instructions; this way they add up.)
 */
#ifndef SLUICE_BPF_PACKET_H
#define SLUICE_BPF_PACKET_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "sluice/abi.h"

/* TCP flags as in byte 13 of the header (RFC 9293 section 3.1). */
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_PSH 0x08
#define TCP_ACK 0x10
#define TCP_HEADER_MAX 60

#define L2_MAX (ETH_HLEN + 8) /* Ethernet and two VLAN tags */
#define L4_OFF_MAX 3000       /* no header stands beyond; tells the verifier that sums do not wrap */

/* Keeps the compiler from joining two bound checks into one on a difference, which older verifiers (6.1) cannot follow. */
#define KEEP_BOUND(x) asm volatile("" : "+r"(x))

struct packet {
	struct bpf_sock_tuple tuple; /* network order; ipv4 or ipv6 by is_ip6 */
	__u32 bytes;                 /* of the frame as it came */
	struct sluice_addr source;   /* if is_ip */
	__u64 now;                   /* mono ns; set when a stage needed it */
	__u32 seq;                   /* host order */
	__u32 ack;
	__u32 l2_len;
	__u32 l4_off;     /* of the TCP header in the frame */
	__u32 l4_len;     /* TCP header and payload, by the IP header: Ethernet padding does not count */
	__u32 header_len; /* of TCP, with options */
	__u32 payload_len;
	__u32 retry_after_s;
	__u32 control; /* control.flags when the packet came: one packet is not judged by two settings */
	__u32 sale;    /* of a token whose MAC was good */
	__u32 home;    /* the node that such a token names */
	__u32 pad;
	__u8 is_ip;
	__u8 is_ip6;
	__u8 protocol; /* of the IP payload */
	__u8 fragment; /* has ports, but is a fragment */
	__u8 flags;    /* TCP_* */
	__u8 service;  /* SLUICE_MAX_SERVICES = not protected */
	__u8 kind;     /* enum sluice_service_kind */
	__u8 allowed;  /* on the allow list */
};
_Static_assert(sizeof(struct packet) == 120, "no gaps: a stack that is handed on must be initialised to the last byte");

#endif
