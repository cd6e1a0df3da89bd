/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What flood.c and flood.bpf.c share: the constants of a run, and a source address with the checksum of its IP header. */
#ifndef SLUICE_PEERS_FLOOD_H
#define SLUICE_PEERS_FLOOD_H

#include <linux/types.h>

#define FLOOD_SOURCES_MAX 16384

struct flood_config {
	__u32 out_ifindex;
	__u32 sources;
};

struct flood_source { /* both in network byte order */
	__u32 addr;
	__u16 check;
	__u16 pad;
};

#endif
