/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The one exit of the gate: a reason becomes an action, and is counted. No packet leaves by another way. */
#ifndef SLUICE_BPF_VERDICT_H
#define SLUICE_BPF_VERDICT_H

#include "answer.h"
#include "maps.h"
#include "packet.h"
#include "shadow.h"
#include "watch.h"

static const __u8 verdict_action[SLUICE_REASON_ROWS] = {
#define X(name, label, action, answer, text) SLUICE_ACTION_##action,
	SLUICE_REASONS(X)
#undef X
};

static const __u8 verdict_answer[SLUICE_REASON_ROWS] = {
#define X(name, label, action, answer, text) SLUICE_ANSWER_##answer,
	SLUICE_REASONS(X)
#undef X
};

static __always_inline int verdict_apply(struct xdp_md *ctx, struct packet *pkt, enum sluice_reason reason)
{
	__u32 action = verdict_action[reason & (SLUICE_REASON_ROWS - 1)];
	struct sluice_counter *counter;
	__u32 row, in_shadow, shown = reason;

	/* The judge has only looked, so what it would have admitted is not admitted either. */
	in_shadow = (pkt->control & SLUICE_CONTROL_SHADOW_ALL) &&
		(action != SLUICE_ACTION_PASS || reason == SLUICE_REASON_ADMITTED);
	if (in_shadow) {
		shadow_count(reason);
		reason = SLUICE_REASON_SHADOWED;
		action = SLUICE_ACTION_PASS;
	}
	if (action == SLUICE_ACTION_ANSWER &&
		answer_send(ctx, pkt, verdict_answer[reason & (SLUICE_REASON_ROWS - 1)])) {
		reason = shown = SLUICE_REASON_ANSWER_FAILED;
		action = SLUICE_ACTION_DROP;
	}
	/* What is shown is what is counted; in shadow, what it would have been. */
	if (pkt->control & SLUICE_CONTROL_WATCH)
		watch_show(pkt, shown, SLUICE_DOOR_WIRE, in_shadow);
	row = pkt->service * SLUICE_REASON_ROWS + reason;
	counter = bpf_map_lookup_elem(&counters, &row);
	if (counter) { /* per CPU, and XDP does not interrupt itself */
		counter->packets++;
		counter->bytes += pkt->bytes;
	}
	if (action == SLUICE_ACTION_PASS)
		return XDP_PASS;
	return action == SLUICE_ACTION_DROP ? XDP_DROP : XDP_TX;
}

#endif
