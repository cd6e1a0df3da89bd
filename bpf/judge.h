/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The judge: the one piece of code that decides on an order, compiled once for the wire and once for the call door.
 *
 * Cheapest refusal first, and nothing is taken before everything that could refuse has been asked. Then the claims, each
 * undone in reverse order if a later one fails:
 *     ring slot -> token (insert if absent) -> buyer (count up to the limit) -> units (compare-and-swap, never below zero)
 * So a unit is neither burned by a double click nor sold twice: not by a retransmission, not by one token on two CPUs, not by
 * a buyer with two tokens.
 *
 * A token that was admitted is told so before window, pause and expiry are looked at: the buyer who lost the answer of the
 * last second, and asks again after the end, has an order (a yes is never taken back).
 *
 * A token of another node is sent home as soon as its MAC is good: here nobody need know its sale, and no daemon need be alive. The one exception
 * is again a token that this node has in its books, which it can have only if its number was another one before.
 *
 * Where a fleet's leases say so, a lack of units is no "sold out" (SLUICE_SALE_MORE), and units that are here are not sold (SLUICE_SALE_WITHHELD). What
 * is refused for that is counted in `wanted`, which is how the daemon learns that its node has buyers and no units.
 */
#ifndef SLUICE_BPF_JUDGE_H
#define SLUICE_BPF_JUDGE_H

#include "sluice/plant.h"
#include "sluice/token.h"
#include "maps.h"
#include "rate.h"

/* Attempts at a compare-and-swap. One fails only if another CPU succeeded, so only a machine with hundreds of CPUs on one
 * word at one instant gets to the end of it; that order is told to come again, and nothing was taken.
 */
#define JUDGE_SWAP_MAX 64

#define JUDGE_DELETE_MAX 4

#define JUDGE_RETRY_PAUSED_S 5
#define JUDGE_RETRY_AWAY_S 2
#define JUDGE_RETRY_FULL_S 1
#define JUDGE_RETRY_ELSEWHERE_S 1
#define ERRNO_E2BIG 7 /* what a full hash says; any other failure is a bucket whose lock could not be had */
#define ERRNO_EEXIST 17

struct judge {
	union {
		char text[SLUICE_TOKEN_TEXT]; /* in */
		struct sluice_token token;    /* decoded in place: writing stays behind reading */
	};
	__u64 now;           /* mono */
	__u32 control;       /* control.flags as the caller saw them */
	__u32 retry_after_s; /* out */
	__u8 door;           /* enum sluice_door */
	__u8 service;
	__u8 only_looks;   /* decide, but take nothing and charge nothing: ADMITTED means that it would have been */
	__u8 serial_known; /* out: the MAC was good */
	__u8 pad[4];
	__u64 paced_ns;                    /* that judge_check_pace has charged */
	struct sluice_admission admission; /* in: source; out: all of it when admitted */
};

static __always_inline __u32 judge_seconds_until(__u64 wall, __u64 then)
{
	__u64 seconds = (then - wall + 999999999ULL) / 1000000000ULL;

	return seconds > SLUICE_RETRY_MAX_S ? SLUICE_RETRY_MAX_S : seconds;
}

static __always_inline enum sluice_reason judge_check_token(struct judge *j)
{
	struct sluice_token *token = &j->token;
	struct sluice_key *key;
	__u32 slot;

	if (sluice_token_decode(j->text, token) || token->version != SLUICE_TOKEN_VERSION || token->flags)
		return SLUICE_REASON_TOKEN_FORM;
	slot = token->key_id & 1;
	key = bpf_map_lookup_elem(&keys, &slot);
	if (!key || !*(volatile __u32 *)&key->valid || key->id != token->key_id)
		return SLUICE_REASON_TOKEN_KEY;
	if (sluice_token_mac(token, key->k0, key->k1) != token->mac)
		return SLUICE_REASON_TOKEN_MAC;
	j->serial_known = 1;
	return SLUICE_REASON_NONE;
}

/* Was this token admitted before? REASON_NONE: no.
 *
 * A claim that another CPU undoes while we read its entry may be used at once for another token (a preallocated hash does not
 * wait for readers). The serial in the value tells: it is the first word to be overwritten, and is looked at last.
 */
static __always_inline enum sluice_reason judge_check_admitted(struct judge *j)
{
	struct sluice_token *token = &j->token;
	__u64 serial = token->serial;
	struct sluice_admission *before = bpf_map_lookup_elem(&admissions, &serial);
	__u32 state;

	if (!before)
		return SLUICE_REASON_NONE;
	state = *(volatile __u32 *)&before->state;
	if (state != SLUICE_ADMISSION_DONE && state != SLUICE_ADMISSION_REVOKED)
		return SLUICE_REASON_IN_PROGRESS;
	j->admission = *before;
	if (*(volatile __u64 *)&before->serial != serial)
		return SLUICE_REASON_IN_PROGRESS;
	if (j->admission.buyer != token->buyer || j->admission.sale != token->sale)
		return SLUICE_REASON_TOKEN_MAC; /* two tokens with one serial: cannot be ours */
	return state == SLUICE_ADMISSION_REVOKED ? SLUICE_REASON_TOKEN_REVOKED : SLUICE_REASON_ADMITTED_AGAIN;
}

/* Is this a token of another node? A gate of no fleet knows no others. */
static __always_inline int judge_is_foreign(const struct judge *j, const struct sluice_control *ctl)
{
	__u32 node = *(volatile __u32 *)&ctl->node;

	return node && j->token.node != node;
}

static __always_inline int judge_is_in_books(struct judge *j)
{
	__u64 serial = j->token.serial;

	return bpf_map_lookup_elem(&admissions, &serial) != NULL;
}

static __always_inline enum sluice_reason judge_check_window(
	struct judge *j, const struct sluice_sale *sale, __u64 wall)
{
	__u32 flags = *(volatile __u32 *)&sale->flags;

	if (((flags & SLUICE_SALE_ENDED) && !planted(end_not_asked)) || wall >= sale->ends_wall)
		return SLUICE_REASON_ENDED;
	if (flags & (SLUICE_SALE_PAUSED | SLUICE_SALE_CLOSED)) {
		j->retry_after_s = JUDGE_RETRY_PAUSED_S;
		return SLUICE_REASON_PAUSED;
	}
	if (wall < sale->opens_wall) {
		j->retry_after_s = judge_seconds_until(wall, sale->opens_wall);
		return SLUICE_REASON_NOT_OPEN;
	}
	return SLUICE_REASON_NONE;
}

static __always_inline enum sluice_reason judge_check_right(struct judge *j, const struct sluice_sale *sale, __u64 wall)
{
	struct sluice_token *token = &j->token;

	if (token->issued_at_s < *(volatile __u32 *)&sale->not_before_s)
		return SLUICE_REASON_TOKEN_REVOKED;
	if (token->expires_at_s <= wall / 1000000000ULL)
		return SLUICE_REASON_TOKEN_EXPIRED;
	if (token->network && token->network != sluice_network_of(&j->admission.source))
		return SLUICE_REASON_WRONG_NETWORK;
	if (!token->quantity || token->quantity > sale->per_buyer)
		return SLUICE_REASON_TOKEN_QUANTITY;
	return SLUICE_REASON_NONE;
}

/* The rate of one token is only looked at here. It is charged when the attempt is refused (judge_charge_token): an attempt that
 * succeeds spends the token, and a bucket for it would only take the place of one that is needed.
 */
static __always_inline enum sluice_reason judge_check_token_rate(struct judge *j)
{
	struct sluice_rate_key key = {.net = j->token.serial, .kind = SLUICE_RATE_TOKEN};
	struct sluice_limits *lim = limits_get();
	struct sluice_rate *bucket;

	if (!lim || !lim->limit[SLUICE_LIMIT_TOKEN].interval_ns)
		return SLUICE_REASON_NONE;
	bucket = rate_find(&key);
	if (!bucket || gcra_next(&lim->limit[SLUICE_LIMIT_TOKEN], bucket->tat, j->now, 1) ||
		shadow_lets_pass(j->control, SLUICE_CONTROL_SHADOW_LIMIT(SLUICE_LIMIT_TOKEN), SLUICE_REASON_RATE_TOKEN))
		return SLUICE_REASON_NONE;
	j->retry_after_s = gcra_retry_after_s(&lim->limit[SLUICE_LIMIT_TOKEN], bucket->tat, j->now);
	return SLUICE_REASON_RATE_TOKEN;
}

static __always_inline void judge_charge_token(struct judge *j)
{
	struct sluice_rate_key key = {.net = j->token.serial, .kind = SLUICE_RATE_TOKEN};
	struct sluice_limits *lim = limits_get();
	__u32 unused;

	if (lim)
		rate_charge(&key, &lim->limit[SLUICE_LIMIT_TOKEN], j->now, &unused);
}

static __always_inline enum sluice_reason judge_check_pace(
	struct judge *j, struct sluice_sale *sale, struct sluice_stock *units)
{
	struct sluice_limit pace = sale->pace;

	if (!pace.interval_ns)
		return SLUICE_REASON_NONE;
	for (int i = 0; i < JUDGE_SWAP_MAX; i++) {
		__u64 old = *(volatile __u64 *)&units->pace_tat;
		__u64 next = gcra_next(&pace, old, j->now, j->token.quantity);

		if (!next) {
			if (shadow_lets_pass(j->control, SLUICE_CONTROL_SHADOW_PACE, SLUICE_REASON_PACE))
				return SLUICE_REASON_NONE;
			j->retry_after_s = gcra_retry_after_s(&pace, old, j->now);
			return SLUICE_REASON_PACE;
		}
		if (j->only_looks)
			return SLUICE_REASON_NONE;
		if (__sync_val_compare_and_swap(&units->pace_tat, old, next) == old) {
			j->paced_ns = j->token.quantity * pace.interval_ns;
			return SLUICE_REASON_NONE;
		}
	}
	return SLUICE_REASON_CONTENDED;
}

/* Inserts if absent: 0 or a negative errno, of which only 32 bits are good. Before Linux 6.4 maps return an int, and the upper half of the
 * register is zero, so that a long would read -EEXIST as 4294967279.
 */
static __always_inline int judge_insert(void *map, const void *key, const void *value)
{
	return (int)bpf_map_update_elem(map, key, value, BPF_NOEXIST);
}

static __always_inline enum sluice_reason judge_claim_token(struct judge *j, const struct sluice_admission *claim)
{
	__u64 serial = j->token.serial;
	enum sluice_reason reason;
	int err = judge_insert(&admissions, &serial, claim);

	if (!err)
		return SLUICE_REASON_NONE;
	if (err != -ERRNO_EEXIST)
		return err == -ERRNO_E2BIG ? SLUICE_REASON_ADMISSIONS_FULL : SLUICE_REASON_CONTENDED;
	/* Another CPU has it. If it is gone again by now, that one's claim was undone: this client comes again. */
	reason = judge_check_admitted(j);
	return reason == SLUICE_REASON_NONE ? SLUICE_REASON_IN_PROGRESS : reason;
}

static __always_inline enum sluice_reason judge_count_buyer(struct judge *j, __u32 limit)
{
	struct sluice_buyer_key key = {.buyer = j->token.buyer, .sale = j->token.sale};
	struct sluice_buyer fresh = {.units = j->token.quantity};
	struct sluice_buyer *buyer;
	int err;

	/* Nearly every buyer is new, so the insert comes first. */
	err = judge_insert(&buyers, &key, &fresh);
	if (!err)
		return SLUICE_REASON_NONE;
	if (err != -ERRNO_EEXIST)
		return err == -ERRNO_E2BIG ? SLUICE_REASON_BUYERS_FULL : SLUICE_REASON_CONTENDED;
	buyer = bpf_map_lookup_elem(&buyers, &key);
	if (!buyer)
		return SLUICE_REASON_CONTENDED; /* the daemon removed it just now */
	for (int i = 0; i < JUDGE_SWAP_MAX; i++) {
		__u32 old = *(volatile __u32 *)&buyer->units;

		if (old + j->token.quantity > limit)
			return SLUICE_REASON_BUYER_LIMIT;
		if (__sync_val_compare_and_swap(&buyer->units, old, old + j->token.quantity) == old)
			return SLUICE_REASON_NONE;
	}
	return SLUICE_REASON_CONTENDED;
}

/* The entry stays, with fewer units: another CPU may be counting in it. */
static __always_inline void judge_uncount_buyer(struct judge *j)
{
	struct sluice_buyer_key key = {.buyer = j->token.buyer, .sale = j->token.sale};
	struct sluice_buyer *buyer = bpf_map_lookup_elem(&buyers, &key);

	if (buyer)
		__sync_fetch_and_add(&buyer->units, -(__u32)j->token.quantity);
}

/* Too few units are left, or none may be sold: SOLD_OUT only if nothing says that it may be another thing in a moment. `flags` are the sale's. */
static __always_inline enum sluice_reason judge_lack_units(struct judge *j, struct sluice_stock *units, __u32 flags)
{
	if (!(flags & (SLUICE_SALE_MORE | SLUICE_SALE_WITHHELD)))
		return SLUICE_REASON_SOLD_OUT;
	if (!j->only_looks)
		__sync_fetch_and_add(&units->wanted, (__u64)j->token.quantity);
	j->retry_after_s = JUDGE_RETRY_ELSEWHERE_S;
	return SLUICE_REASON_UNITS_ELSEWHERE;
}

static __always_inline int judge_has_units(const struct judge *j, __u64 free_units, __u32 flags)
{
	return !(flags & SLUICE_SALE_WITHHELD) && free_units + planted(off_by_one) >= j->token.quantity;
}

/* Flags before units, here and below: units that come are there before the flag says that no more will come. */
static __always_inline enum sluice_reason judge_check_units(
	struct judge *j, const struct sluice_sale *sale, struct sluice_stock *units)
{
	__u32 flags = *(volatile __u32 *)&sale->flags;

	return judge_has_units(j, *(volatile __u64 *)&units->free, flags) ? SLUICE_REASON_NONE
									  : judge_lack_units(j, units, flags);
}

static __always_inline enum sluice_reason judge_take_units(
	struct judge *j, const struct sluice_sale *sale, struct sluice_stock *units)
{
	__u64 quantity = j->token.quantity;

	for (int i = 0; i < JUDGE_SWAP_MAX; i++) {
		__u32 flags = *(volatile __u32 *)&sale->flags;
		__u64 old = *(volatile __u64 *)&units->free;

		if (!judge_has_units(j, old, flags))
			return judge_lack_units(j, units, flags);
		if (__sync_val_compare_and_swap(&units->free, old, old - quantity) == old)
			return SLUICE_REASON_NONE;
	}
	return SLUICE_REASON_CONTENDED;
}

static __always_inline void judge_record_done(struct judge *j)
{
	__u64 serial = j->token.serial;
	struct sluice_admission *admission = bpf_map_lookup_elem(&admissions, &serial);

	/* The exchange is also the barrier: who sees DONE sees the unit taken. */
	if (admission)
		__sync_lock_test_and_set(&admission->state, SLUICE_ADMISSION_DONE);
}

/* The claims. Everything that could refuse without taking has been asked. */
static __always_inline enum sluice_reason judge_admit(
	struct judge *j, struct sluice_sale *sale, struct sluice_stock *units, struct sluice_control *ctl, __u64 wall)
{
	__u64 serial = j->token.serial;
	struct sluice_admitted *record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);
	enum sluice_reason reason;

	if (!record) {
		if (planted(ring_full_after_take))
			judge_take_units(j, sale, units);
		j->retry_after_s = JUDGE_RETRY_FULL_S;
		return SLUICE_REASON_RING_FULL;
	}
	/* On the stack: kernel 6.1 does not let a map be updated from memory that a global function got as an argument. */
	struct sluice_admission claim = {
		.serial = serial,
		.buyer = j->token.buyer,
		.source = j->admission.source,
		.admitted_wall = wall,
		.sale = j->token.sale,
		.state = SLUICE_ADMISSION_CLAIMED,
		.expires_at_s = j->token.expires_at_s,
		.network = j->token.network,
		.quantity = j->token.quantity,
		.door = j->door,
		.service = j->service,
	};

	reason = judge_claim_token(j, &claim);
	if (reason != SLUICE_REASON_NONE)
		goto discard;
	reason = judge_count_buyer(j, sale->per_buyer);
	if (reason != SLUICE_REASON_NONE)
		goto unclaim;
	reason = judge_take_units(j, sale, units);
	if (reason != SLUICE_REASON_NONE)
		goto uncount;

	/* In flight before it is visible: the daemon subtracts when it is durable. */
	__sync_fetch_and_add(&ctl->in_flight, 1);
	__sync_fetch_and_add(&units->taken, j->token.quantity);
	judge_record_done(j);
	claim.state = SLUICE_ADMISSION_DONE;
	j->admission = claim;
	record->serial = serial;
	record->admission = claim;
	bpf_ringbuf_submit(record, 0);
	return SLUICE_REASON_ADMITTED;

uncount:
	judge_uncount_buyer(j);
unclaim:
	/* A bucket's lock may be refused (-EBUSY on 6.1, a time-out since 6.15). A claim that stays would keep its token waiting for good. */
	for (int i = 0; i < JUDGE_DELETE_MAX; i++)
		if (!bpf_map_delete_elem(&admissions, &serial))
			break;
discard:
	/* Not silently: the ring wakes a reader only for the very record that it is at, so it must get past this one to hear of the next. */
	bpf_ringbuf_discard(record, 0);
	j->retry_after_s = JUDGE_RETRY_FULL_S;
	return reason;
}

/* What is asked of an attempt that may win: it stands between "units are left" and the claims. */
static __always_inline enum sluice_reason judge_check_flow(
	struct judge *j, struct sluice_sale *sale, struct sluice_stock *units, struct sluice_control *ctl)
{
	enum sluice_reason reason = judge_check_token_rate(j);

	if (reason != SLUICE_REASON_NONE)
		return reason;
	if (ctl->backlog_max && *(volatile __u64 *)&ctl->in_flight >= ctl->backlog_max) {
		j->retry_after_s = JUDGE_RETRY_FULL_S;
		return SLUICE_REASON_BACKLOG;
	}
	return judge_check_pace(j, sale, units);
}

/* --- after the admission ----------------------------------------------------------------------------------------------------
 * An order that the ledger ends, or takes up again, changes the same words as the claims above, by the same functions: a count of a buyer
 * that userspace wrote could lose what another CPU's judge counts at that moment. The record of the admission stays: the token is spent.
 * In both, the caller has set sale, buyer and quantity of j->token.
 */
static __always_inline struct sluice_stock *judge_stock_of(struct judge *j, struct sluice_sale **sale)
{
	__u32 slot = j->token.sale % SLUICE_MAX_SALES;

	*sale = bpf_map_lookup_elem(&sales, &slot);
	if (!*sale || !j->token.sale || *(volatile __u32 *)&(*sale)->id != j->token.sale)
		return NULL; /* the slot is another sale's by now: its units are in the books alone */
	return bpf_map_lookup_elem(&stock, &slot);
}

__noinline int judge_release(struct judge *j, __u32 keep_units)
{
	struct sluice_stock *units;
	struct sluice_sale *sale;

	if (!j)
		return SLUICE_REASON_UNKNOWN_SALE;
	units = judge_stock_of(j, &sale);
	if (units && !keep_units)
		__sync_fetch_and_add(&units->free, (__u64)j->token.quantity);
	judge_uncount_buyer(j);
	return SLUICE_REASON_NONE;
}

__noinline int judge_reclaim(struct judge *j)
{
	struct sluice_stock *units;
	struct sluice_sale *sale;
	enum sluice_reason reason;

	if (!j)
		return SLUICE_REASON_UNKNOWN_SALE;
	units = judge_stock_of(j, &sale);
	if (!units || !sale)
		return SLUICE_REASON_UNKNOWN_SALE;
	if (j->token.quantity > sale->per_buyer) /* which a first order's count does not ask */
		return SLUICE_REASON_BUYER_LIMIT;
	reason = judge_count_buyer(j, sale->per_buyer);
	if (reason != SLUICE_REASON_NONE)
		return reason;
	reason = judge_take_units(j, sale, units);
	if (reason != SLUICE_REASON_NONE)
		judge_uncount_buyer(j);
	return reason;
}

/* Decides on the token in j->text. Fills j->admission if the answer is yes or was yes before. */
__noinline int judge_decide(struct judge *j)
{
	struct sluice_control *ctl = control_get();
	struct sluice_stock *units;
	struct sluice_sale *sale;
	enum sluice_reason reason;
	__u64 wall;
	__u32 slot;
	int foreign;

	if (!ctl || !j)
		return SLUICE_REASON_DAEMON_AWAY;
	wall = j->now + *(volatile __u64 *)&ctl->wall_offset_ns;

	reason = judge_check_token(j);
	if (reason != SLUICE_REASON_NONE)
		return reason;
	foreign = judge_is_foreign(j, ctl);
	if (foreign && !judge_is_in_books(j))
		return SLUICE_REASON_WRONG_NODE;

	slot = j->token.sale % SLUICE_MAX_SALES;
	sale = bpf_map_lookup_elem(&sales, &slot);
	units = bpf_map_lookup_elem(&stock, &slot);
	if (!sale || !units || !j->token.sale || *(volatile __u32 *)&sale->id != j->token.sale) {
		/* After a reboot the sales are not here until the ledger has been read: who has an order in one of them must not hear that
		 * there is no such sale.
		 */
		if (ctl->flags & SLUICE_CONTROL_ORDERS_OPEN)
			return SLUICE_REASON_UNKNOWN_SALE;
		j->retry_after_s = JUDGE_RETRY_AWAY_S;
		return SLUICE_REASON_WRITER_AWAY;
	}

	j->retry_after_s = JUDGE_RETRY_AWAY_S;
	/* Signed: another CPU's heartbeat may be a moment younger than our clock. */
	if ((__s64)(j->now - *(volatile __u64 *)&ctl->heartbeat_mono) > (__s64)SLUICE_HEARTBEAT_MAX_NS)
		return SLUICE_REASON_DAEMON_AWAY;

	reason = planted(window_before_duplicate) ? judge_check_window(j, sale, wall) : SLUICE_REASON_NONE;
	if (reason != SLUICE_REASON_NONE)
		return reason;
	reason = judge_check_admitted(j);
	if (planted(take_before_duplicate) && reason == SLUICE_REASON_ADMITTED_AGAIN)
		judge_take_units(j, sale, units);
	if (reason != SLUICE_REASON_NONE)
		return reason;
	if (foreign) /* it was in the books a moment ago */
		return SLUICE_REASON_WRONG_NODE;
	reason = judge_check_window(j, sale, wall);
	if (reason != SLUICE_REASON_NONE)
		return reason;
	reason = judge_check_right(j, sale, wall);
	if (reason != SLUICE_REASON_NONE)
		return reason;
	reason = judge_check_units(j, sale, units);
	if (reason != SLUICE_REASON_NONE)
		return reason;
	if (!(ctl->flags & SLUICE_CONTROL_ORDERS_OPEN))
		return SLUICE_REASON_WRITER_AWAY;

	reason = judge_check_flow(j, sale, units, ctl);
	if (j->only_looks)
		return reason == SLUICE_REASON_NONE ? SLUICE_REASON_ADMITTED : reason;
	if (reason == SLUICE_REASON_NONE) {
		reason = judge_admit(j, sale, units, ctl, wall);
		/* The pace is a claim too: who was not admitted gives it back. */
		if (reason != SLUICE_REASON_ADMITTED && j->paced_ns)
			__sync_fetch_and_add(&units->pace_tat, -j->paced_ns);
	}
	if (reason != SLUICE_REASON_ADMITTED && reason != SLUICE_REASON_ADMITTED_AGAIN)
		judge_charge_token(j);
	return reason;
}

#endif
