/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What crowd.c and crowd.bpf.c share: the requests that are sent, what to say, and what was seen. */
#ifndef SLUICE_PEERS_CROWD_H
#define SLUICE_PEERS_CROWD_H

#include <linux/types.h>

#define CROWD_REQUEST_MAX 192
#define CROWD_REQUESTS_MAX 1048576
#define CROWD_TURNS 4096

struct crowd_request {
	__u16 len;
	__u16 pad;
	__u32 sum; /* ones' complement sum of `bytes` as 16-bit words in memory order, folded */
	__u8 bytes[CROWD_REQUEST_MAX];
};

enum crowd_turn_kind { CROWD_ASK, CROWD_HANG_UP };

/* What a client sends next; addresses and ports in network byte order, numbers in host order. */
struct crowd_turn {
	__u32 source;
	__u16 port;
	__u16 kind; /* enum crowd_turn_kind */
	__u32 seq, ack;
};

/* Constants of a run, set before the programs are loaded. */
struct crowd_config {
	__u8 server_mac[6], client_mac[6];
	__u32 server;       /* network byte order */
	__u32 first_source; /* host byte order */
	__u32 sources;
	__u32 out_ifindex;
	__u32 requests;
	__u16 port;   /* network byte order */
	__u16 expect; /* status of a right answer; 0 = closed without one */
	__u32 fire;   /* 1 = no answer is expected: a conversation is done when its request is sent */
	__u32 open;   /* conversations under way at a time */
	__u32 once;   /* 1 = each request once */
	__u32 first; /* a number that decides on the first address and port, so that no run meets what the one before has left */
	__u64 stuck_ns; /* connections of which none went on for so long are given up */
};

/* All written on one CPU, by two threads that do not interrupt each other there, and read by crowd.c. */
struct crowd_seen {
	__u64 started, asked, done, unexpected, resets;
	__u64 last_status;
	__u64 stuck;                              /* given up */
	__u64 filling, idle, last_over, moved_ns; /* of `feed` alone */
};

#endif
