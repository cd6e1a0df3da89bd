/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A second gate in plain C, written from the documents and from include/sluice alone: what the BPF program must do, said slowly.
 *
 * It keeps its state in plain arrays that are searched from the front, has its own parser, base64url, SipHash and checksums, and takes the
 * time as an argument. model_run.c gives both gates the same frames and calls and compares. See docs/model.md.
 *
 * All that a packet can change is a uint64_t that is written through model_set(), so that a trial can be taken back: the real gate reads a
 * clock that nobody can hold still, and the model tries the instants at which it may have done so.
 */
#ifndef SLUICE_TEST_MODEL_H
#define SLUICE_TEST_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frames.h"
#include "sluice/abi.h"

#define MODEL_SALES 8
#define MODEL_LISTED 64
#define MODEL_BUCKETS 512
#define MODEL_PREFIXES 64
#define MODEL_RECENT 512
#define MODEL_COOKIES 512
#define MODEL_ADMISSIONS 128
#define MODEL_BUYERS 128
#define MODEL_SOCKETS 16
#define MODEL_UNDO 4096
#define MODEL_STAMPS 32
#define MODEL_HOMES 4 /* nodes that may have an address */

#define MODEL_UNPROTECTED SLUICE_MAX_SERVICES

struct model_addr {
	uint8_t byte[16]; /* an IPv4 address is mapped */
};

struct model_service {
	struct model_addr addr;
	bool any;
	uint16_t port;
	bool tcp;      /* kind tcp: nothing is read */
	bool listened; /* somebody listens there */
};

struct model_sale {
	uint64_t slot, id, flags, opens, ends, pace_interval, pace_tolerance, per_buyer, not_before_s;
	uint64_t free, taken, wanted, pace_tat;
};

struct model_listed {
	struct model_addr addr;
	unsigned bits;
	bool allow;
	/* The gate counts its hits by a sample: it, or a deny entry that shares addresses with it, has more than SLUICE_LIST_EXACT_HITS. */
	bool estimated;
	uint64_t expires, hits;
};

struct model_bucket {
	uint64_t name, tat, answer_tat;
	uint64_t muted_at;    /* when it was muted; 0 = it was not */
	uint64_t muted_until; /* the tick that the gate wrote for it: only to see that it does not write another */
	uint64_t verdicts;
};

struct model_prefix {
	struct model_addr addr; /* with the host's bits zero */
	uint64_t tat;
};

struct model_recent {
	uint64_t slot, mark, answered, acknowledged /* by the segment */, at;
};

#define MODEL_RECENT_TICKS (1u << 24) /* after so many its clock begins anew */

/* One cookie that the kernel gave, less the client's number and the index of the MSS: the same for a connection whatever its numbers. */
struct model_cookie {
	struct model_addr source, destination;
	uint16_t sport, dport;
	uint32_t base;
};

struct model_admission {
	uint64_t serial, inner_serial, buyer, sale, state, expires_at_s, network, quantity, door, service,
		admitted_wall;
	uint64_t source_hi, source_lo;
};

struct model_buyer {
	uint64_t buyer, sale, units;
};

struct model_socket { /* a connection that the kernel has */
	struct model_addr source, destination;
	uint16_t sport, dport;
	bool waits; /* in TIME_WAIT */
};

/* What a stamp can tell of the gate's clocks. */
enum model_clock_of { CLOCK_OF_NONE, CLOCK_OF_NOW, CLOCK_OF_STEPS /* of "recent" */, CLOCK_OF_COARSE };

/* A word that was reckoned from the time of this frame, or that would have been if the time had been another. */
struct model_stamp {
	uint64_t *word;
	uint64_t value;
	enum model_clock_of clock;
};

struct model_undo {
	uint64_t *word, old;
};

/* The gate looks at its clocks when it needs them: one frame may see up to three times, some hundred nanoseconds apart. */
struct model_clock {
	uint64_t now;
	uint64_t coarse; /* CLOCK_MONOTONIC_COARSE: for SYNs and for what became of a first segment */
	uint64_t lists;  /* when a list entry's expiry was compared */
};

struct model {
	/* what an operator, the daemon and the kernel set */
	struct model_service services[SLUICE_MAX_SERVICES];
	unsigned service_count;
	struct sluice_limit limits[SLUICE_LIMIT_COUNT];
	struct sluice_key keys[2];
	struct sluice_answer_bytes answers[2][SLUICE_ANSWER_COUNT];
	struct sluice_answer_bytes homes[2][MODEL_HOMES]; /* where tokens of other nodes belong; empty: nobody knows */
	uint32_t node;                                    /* which this one is; 0 = it is alone */
	struct model_listed listed[MODEL_LISTED];
	unsigned listed_count;
	struct model_socket sockets[MODEL_SOCKETS];
	unsigned socket_count;
	struct model_cookie cookies[MODEL_COOKIES];
	unsigned cookie_count;
	bool orders_open, deny_all, grows_head, grows_tail, cookies_made;
	bool queue_full; /* of who listens for service 0 */
	bool shadow_all, shadow_deny, shadow_pace, shadow_limit[SLUICE_LIMIT_COUNT];
	uint32_t banks, rate_mask, rate_seed;
	uint16_t mss4, mss6;
	uint64_t wall_offset, heartbeat, backlog_max;
	uint64_t admissions_max, buyers_max, ring_bytes;
	uint64_t tick_ns; /* of the kernel's timer */
	/* what packets change, too */
	struct model_sale sales[MODEL_SALES];
	uint64_t sale_count;
	struct model_bucket buckets[MODEL_BUCKETS];
	uint64_t bucket_count;
	struct model_prefix prefixes[MODEL_PREFIXES];
	uint64_t prefix_count;
	struct model_recent recent[MODEL_RECENT];
	uint64_t recent_count;
	struct model_admission admissions[MODEL_ADMISSIONS];
	uint64_t admission_count;
	struct model_buyer buyers[MODEL_BUYERS];
	uint64_t buyer_count;
	uint64_t syn_global_tat, in_flight, ring_used;
	uint64_t shadowed[SLUICE_REASON_COUNT]; /* what would have been refused */
	/* of the trial at hand */
	struct model_clock clock;
	struct model_undo undo[MODEL_UNDO];
	unsigned undo_count;
	struct model_stamp stamps[MODEL_STAMPS];
	unsigned stamp_count;
	/* A mute ends with a tick of the kernel's timer, which cannot be seen from here. Where it may have ended, the model says so
	 * (mute_met; mute_young: less than half a tick ago it began) and believes what it is told (mute_holds).
	 */
	bool mute_met, mute_young, mute_holds;
	bool overflow; /* a plain array was too small: the trial means nothing */
};

struct model_packet {
	const uint8_t *bytes;
	unsigned length;
	bool ip6;
	unsigned vlans, ip_at, tcp_at, data_at, data_len, option_bytes;
	unsigned end; /* of the IP packet in the frame */
	unsigned protocol;
	bool fragment, later_fragment;
	unsigned fragment_offset; /* in words of 8 bytes */
	struct model_addr source, destination;
	uint16_t sport, dport;
	uint32_t seq, ack;
	uint8_t flags;
	unsigned service;
};

struct model_verdict {
	int reason;
	int said; /* the reason before shadow mode, or want of room, made another of it */
	unsigned service;
	unsigned retry_after_s;
	uint64_t home;   /* the node that the token names */
	bool short_form; /* an answer that had no room for the whole */
	bool homeless;   /* one that has no address, or no room for it */
};

/* Judges one frame. Trials: model_begin, this, then model_take_back or model_keep. */
struct model_verdict model_packet_judge(
	struct model *model, const uint8_t *bytes, unsigned length, struct model_clock clock);
/* The call door: fills in what it gives out. */
void model_call_judge(struct model *model, struct sluice_call *call, struct model_clock clock);
/* The frame that goes back after `verdict` (its action is TX or ANSWER). `cookie` is the SYN-ACK's sequence number. Returns the length. */
unsigned model_reply(const struct model *model, const uint8_t *bytes, unsigned length,
	const struct model_verdict *verdict, uint32_t cookie, uint8_t *out);
/* The kernel gave `cookie` for this SYN. */
void model_cookie_learn(struct model *model, const uint8_t *syn, unsigned length, uint32_t cookie);

void model_begin(struct model *model);
void model_take_back(struct model *model);

/* --- for those who set the scene ------------------------------------------------------------------------------------------ */
int model_answer_of(int reason);
bool model_answer_waits(int code); /* it has a Retry-After */
bool model_reason_is(int reason, enum sluice_action action);
struct model_addr model_addr_of(const struct sluice_addr *addr);
struct sluice_addr model_addr_number(const struct model_addr *addr);
bool model_addr_is_ip4(const struct model_addr *addr);
bool model_addr_covers(const struct model_addr *prefix, unsigned bits, const struct model_addr *addr);
/* From here on the hits of this deny entry, and of all that share addresses with it, are estimates of the gate. */
void model_list_estimate(struct model *model, struct model_listed *busy);
struct model_sale *model_sale_slot(struct model *model, uint64_t slot); /* NULL if it was never filled */
struct model_admission *model_admission_find(struct model *model, uint64_t serial);
struct model_buyer *model_buyer_find(struct model *model, uint64_t buyer, uint64_t sale);

#endif
