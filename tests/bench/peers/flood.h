/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What flood.c and flood.bpf.c share: the constants of a run, a source address with the checksums that it makes, and where the run stands. */
#ifndef SLUICE_PEERS_FLOOD_H
#define SLUICE_PEERS_FLOOD_H

#include <linux/types.h>

#define FLOOD_SOURCES_MAX 65536
#define FLOOD_FRAME 58       /* bytes: Ethernet, IPv4, TCP with one option */
#define FLOOD_LATE_NS 100000 /* more behind than this: the lost time is not made up */

struct flood_config {
	__u32 out_ifindex;
	__u32 sources;
	__u64 interval_ns; /* between two frames; 0 = as fast as the CPU can */
};

struct flood_source { /* both in network byte order */
	__u32 addr;
	__u16 ip_check;
	__u16 tcp_check;
};

struct flood_state {
	__u64 due_ns; /* mono: of the next frame */
	__u64 sent;
	__u32 next; /* source */
	__u8 frame[FLOOD_FRAME];
	__u8 pad[2];
};

#endif
