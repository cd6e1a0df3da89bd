/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate: the chain from a frame to its verdict, top to bottom, and the call door to the same judge.
 *
 * sluice_gate stands in the driver's receive path (XDP). It answers SYNs with cookies, keeps no state for anybody until a
 * cookie has proved the source real, judges the first data segment, answers losers from here and lets the rest up.
 * sluice_door is run by the daemon for orders that a first segment did not show.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "packet.h"
#include "maps.h"
#include "parse.h"
#include "lists.h"
#include "rate.h"
#include "handshake.h"
#include "request.h"
#include "judge.h"
#include "verdict.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define DOOR_SHADOW_LIMITS (SLUICE_CONTROL_SHADOW_DENY | SLUICE_CONTROL_SHADOW_PACE | 0xffu << 8)

/* The deny list may cover all traffic of the interface. */
static __always_inline int gate_unprotected(struct packet *pkt)
{
	if ((pkt->control & SLUICE_CONTROL_DENY_ALL) && pkt->is_ip && lists_check(pkt, SLUICE_DOOR_WIRE))
		return SLUICE_REASON_DENIED;
	return SLUICE_REASON_UNPROTECTED;
}

__noinline int gate_judge(struct xdp_md *ctx, struct packet *pkt)
{
	struct judge judge = {};
	int reason;

	if (!pkt)
		return SLUICE_REASON_NONE;
	switch (request_read(pkt, (void *)(long)ctx->data, (void *)(long)ctx->data_end, judge.text)) {
	case REQUEST_OTHER:
		return SLUICE_REASON_REQUEST;
	case REQUEST_ORDER_CUT:
		return SLUICE_REASON_REQUEST_UNREAD;
	case REQUEST_ORDER:
		break;
	}
	judge.now = pkt->now;
	judge.control = pkt->control;
	judge.only_looks = !!(pkt->control & SLUICE_CONTROL_SHADOW_ALL);
	judge.door = SLUICE_DOOR_WIRE;
	judge.service = pkt->service;
	judge.admission.source = pkt->source;
	reason = judge_decide(&judge);
	pkt->retry_after_s = judge.retry_after_s;
	if (judge.serial_known) {
		pkt->sale = judge.token.sale;
		pkt->home = judge.token.node;
	}
	return reason;
}

/* First data of a connection whose cookie is valid: the source is real. */
static __always_inline int gate_first_segment(struct xdp_md *ctx, struct packet *pkt)
{
	struct sluice_rate *bucket = NULL;
	int reason = SLUICE_REASON_NONE;
	__u32 action, mode;

	if (!pkt->allowed)
		bucket = rate_of_source(&pkt->source);
	if (rate_is_muted(bucket))
		return SLUICE_REASON_RATE_DROP;
	/* A retransmission is not charged again. In shadow mode every connection has a socket by now. */
	if (!(pkt->control & SLUICE_CONTROL_SHADOW_ALL) && handshake_find_socket(ctx, pkt) == SOCKET_CONNECTION) {
		pkt->now = bpf_ktime_get_ns();
		handshake_note(pkt, 0); /* made while the gate was in shadow, it may follow one that was answered */
		return SLUICE_REASON_SOCKET;
	}

	pkt->now = bpf_ktime_get_ns();
	mode = pkt->control | (pkt->kind == SLUICE_SERVICE_SALE ? RATE_ANSWERS : 0);
	if (!pkt->allowed)
		reason = rate_check_request(&pkt->source, bucket, pkt->now, mode, &pkt->retry_after_s);
	if (reason == SLUICE_REASON_NONE)
		reason = pkt->kind == SLUICE_SERVICE_SALE ? gate_judge(ctx, pkt) : SLUICE_REASON_TCP_FIRST;
	action = verdict_action[reason & (SLUICE_REASON_ROWS - 1)];
	if (action != SLUICE_ACTION_DROP)
		handshake_note(pkt, action == SLUICE_ACTION_ANSWER && !(pkt->control & SLUICE_CONTROL_SHADOW_ALL));
	if (!pkt->allowed) /* found anew: this packet may have made the bucket, or another has taken its place */
		rate_note_verdict(rate_of_source(&pkt->source), reason);
	return reason;
}

static __always_inline int gate_syn(struct xdp_md *ctx, struct packet *pkt)
{
	if (pkt->flags & TCP_FIN)
		return SLUICE_REASON_SYN_FIN;
	if (pkt->flags & TCP_RST)
		return SLUICE_REASON_SYN_RST;
	if (pkt->payload_len)
		return SLUICE_REASON_SYN_DATA;
	return handshake_syn(ctx, pkt);
}

/* Data, but no keepalive probe: some stacks send one byte before what they have to say (RFC 1122, 4.2.3.6), whose place in the cookie's arithmetic
 * is that of the first data. Taken for that, it would stand in front of a request that comes later. A byte that was written comes with PSH.
 */
static __always_inline int gate_may_be_first(const struct packet *pkt)
{
	return !(pkt->flags & (TCP_SYN | TCP_RST)) &&
		(pkt->payload_len > 1 || (pkt->payload_len && (pkt->flags & TCP_PSH)));
}

/* A TCP segment to a protected service. */
static __always_inline int gate_segment(struct xdp_md *ctx, struct packet *pkt)
{
	__u8 flags = pkt->flags;
	int past = PAST_UNKNOWN;

	if (!(flags & (TCP_SYN | TCP_ACK | TCP_RST)))
		return SLUICE_REASON_TCP_FLAGS;
	if ((flags & TCP_SYN) && (!(flags & TCP_ACK) || (flags & (TCP_FIN | TCP_RST))))
		return gate_syn(ctx, pkt);
	if (gate_may_be_first(pkt) && handshake_cookie_valid(ctx, pkt))
		return gate_first_segment(ctx, pkt);
	/* What was answered from here has no socket: cheaper known than looked for. (Of a bare ACK, that it has none is all that matters.) */
	if ((pkt->payload_len || (flags & TCP_FIN)) && !(flags & (TCP_SYN | TCP_RST)))
		past = handshake_past_of(pkt);
	if (past != PAST_ANSWERED && handshake_find_socket(ctx, pkt) == SOCKET_CONNECTION)
		return SLUICE_REASON_SOCKET;
	if (flags & TCP_RST)
		return SLUICE_REASON_RST_STRAY;
	if (flags & TCP_SYN)
		return SLUICE_REASON_TCP_FLAGS; /* SYN-ACK that nobody asked for */
	if (pkt->payload_len || (flags & TCP_FIN))
		return handshake_leftover(ctx, pkt, past);
	return SLUICE_REASON_BARE_ACK;
}

static __always_inline int gate_decide(struct xdp_md *ctx, struct packet *pkt)
{
	int reason = parse_frame(ctx, pkt);

	if (reason == SLUICE_REASON_UNPROTECTED)
		return gate_unprotected(pkt);
	/* A malformed segment to a protected port is still counted as denied, if it is. */
	if (pkt->service < SLUICE_MAX_SERVICES && lists_check(pkt, SLUICE_DOOR_WIRE))
		return SLUICE_REASON_DENIED;
	if (reason != SLUICE_REASON_NONE)
		return reason;
	if (pkt->fragment)
		return SLUICE_REASON_FRAGMENT;
	return gate_segment(ctx, pkt);
}

SEC("xdp")
int sluice_gate(struct xdp_md *ctx)
{
	struct sluice_control *ctl = control_get();
	struct packet pkt = {};

	if (ctl)
		pkt.control = *(volatile __u32 *)&ctl->flags;
	return verdict_apply(ctx, &pkt, gate_decide(ctx, &pkt));
}

/* Runs in the daemon's context (BPF_PROG_TEST_RUN); `call` is copied in and out. */
SEC("syscall")
int sluice_door(struct sluice_call *call)
{
	int reason = SLUICE_REASON_REQUEST;
	struct judge judge = {.now = bpf_ktime_get_ns(), .door = SLUICE_DOOR_CALL, .service = SLUICE_MAX_SERVICES};
	struct packet pkt = {.service = SLUICE_MAX_SERVICES}; /* of which only the source is known */
	struct sluice_control *ctl = control_get();
	__u64 *count;
	__u32 row;

	if (call->op == SLUICE_CALL_RELEASE || call->op == SLUICE_CALL_RECLAIM) {
		judge.token.sale = call->admission.sale;
		judge.token.buyer = call->admission.buyer;
		judge.token.quantity = call->admission.quantity;
		call->reason = call->op == SLUICE_CALL_RELEASE ? judge_release(&judge, call->flags & SLUICE_CALL_KEEP)
							       : judge_reclaim(&judge);
		return 0;
	}
	judge.admission.source.hi = call->source.hi;
	judge.admission.source.lo = call->source.lo;
	pkt.source = judge.admission.source;
	pkt.is_ip6 = pkt.source.hi || pkt.source.lo >> 32 != 0xffff;
	if (ctl)
		pkt.control = ctl->flags;
	if (pkt.control &
		SLUICE_CONTROL_SHADOW_ALL) /* here there is no way around the verdict, so every limit only counts */
		pkt.control |= DOOR_SHADOW_LIMITS;
	judge.control = pkt.control;
	if (lists_check(&pkt, SLUICE_DOOR_CALL)) {
		reason = SLUICE_REASON_DENIED;
	} else if (!pkt.allowed && (call->op == SLUICE_CALL_RATE || (call->flags & SLUICE_CALL_CHARGE))) {
		reason = rate_check_request(&judge.admission.source, rate_of_source(&judge.admission.source), judge.now,
			pkt.control | RATE_ANSWERS, &judge.retry_after_s);
		if (reason == SLUICE_REASON_NONE)
			reason = SLUICE_REASON_REQUEST;
	}
	if (reason == SLUICE_REASON_REQUEST && call->op == SLUICE_CALL_ORDER) {
#pragma GCC unroll 8
		for (int i = 0; i < SLUICE_TOKEN_TEXT / 8; i++)
			((__u64 *)judge.text)[i] = ((__u64 *)call->token)[i];
		reason = judge_decide(&judge);
	}
	call->reason = reason;
	call->retry_after_s = judge.retry_after_s;
	call->serial = judge.serial_known ? judge.token.serial : 0;
	call->admission = judge.admission;
	if (!pkt.allowed && reason != SLUICE_REASON_DENIED)
		rate_note_verdict(rate_of_source(&pkt.source), reason);
	if (judge.serial_known)
		pkt.sale = judge.token.sale;
	if (pkt.control & SLUICE_CONTROL_WATCH)
		watch_show(&pkt, reason, SLUICE_DOOR_CALL, 0);

	row = reason;
	count = bpf_map_lookup_elem(&calls, &row);
	if (count)
		__sync_fetch_and_add(count, 1); /* the door may be run by two threads that share a CPU */
	return 0;
}
