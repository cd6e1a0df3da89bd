/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Shows verdicts to who asked for them, through a ring of their own. Nobody asking costs the test of one bit. */
#ifndef SLUICE_BPF_WATCH_H
#define SLUICE_BPF_WATCH_H

#include "maps.h"
#include "packet.h"

__noinline int watch_show(const struct packet *pkt, __u32 reason, __u32 door, __u32 in_shadow)
{
	struct sluice_event *event;
	struct sluice_watch *asked;
	__u32 zero = 0;
	__u64 now;

	asked = bpf_map_lookup_elem(&watch, &zero);
	if (!asked || !pkt || !(asked->reasons >> (reason & (SLUICE_REASON_ROWS - 1)) & 1))
		return 0;
	if ((pkt->source.hi & asked->mask.hi) != asked->addr.hi || (pkt->source.lo & asked->mask.lo) != asked->addr.lo)
		return 0;
	if (bpf_get_prandom_u32() > asked->threshold)
		return 0;
	now = bpf_ktime_get_ns();
	if (now > asked->until_mono)
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return 0;
	event->mono = now;
	event->source = pkt->source;
	event->sale = pkt->sale;
	event->bytes = pkt->bytes;
	event->threshold = asked->threshold;
	event->sport = bpf_ntohs(pkt->is_ip6 ? pkt->tuple.ipv6.sport : pkt->tuple.ipv4.sport);
	event->dport = bpf_ntohs(pkt->is_ip6 ? pkt->tuple.ipv6.dport : pkt->tuple.ipv4.dport);
	event->reason = reason;
	event->door = door;
	event->service = pkt->service;
	event->shadow = in_shadow;
	event->pad = 0;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

#endif
