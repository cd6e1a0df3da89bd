/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Rates: the SYN budget of sources that nobody has validated, and the rates of those that a SYN cookie has proved real.
 *
 * Per-source state is made only after that proof: a spoofed flood must not be able to push honest buyers out of the table.
 */
#ifndef SLUICE_BPF_RATE_H
#define SLUICE_BPF_RATE_H

#include "sluice/gcra.h"
#include "maps.h"
#include "packet.h"
#include "shadow.h"

/* In the upper bit of what is handed on as `control`: a refused request may be answered at all. */
#define RATE_ANSWERS (1u << 31)

/* Takes one cell from a shared word. Two CPUs that meet may let one cell too many pass: the loser of the exchange tries
 * once more and then passes, so the error is at most one cell per CPU and collision, and no packet waits.
 */
static __always_inline int rate_take(const struct sluice_limit *limit, __u64 *tat, __u64 now)
{
	for (int i = 0; i < 2; i++) {
		__u64 old = *(volatile __u64 *)tat;
		__u64 next = gcra_next(limit, old, now, 1);

		if (!next)
			return 0;
		if (!limit->interval_ns || __sync_val_compare_and_swap(tat, old, next) == old)
			return 1;
	}
	return 1;
}

static __always_inline struct sluice_limits *limits_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&limits, &zero);
}

static __always_inline void rate_key_source(struct sluice_rate_key *key, const struct sluice_addr *source)
{
	key->net = source->hi ?: source->lo;
	key->kind = source->hi ? SLUICE_RATE_SOURCE6 : SLUICE_RATE_SOURCE4;
	key->pad = 0;
}

static __always_inline void rate_key_prefix(struct sluice_rate_key *key, const struct sluice_addr *source)
{
	key->net = source->hi ? source->hi >> 16 : source->lo >> 8;
	key->kind = source->hi ? SLUICE_RATE_PREFIX6 : SLUICE_RATE_PREFIX4;
	key->pad = 0;
}

static __always_inline struct sluice_rate_set *rate_set_of(const struct sluice_rate_key *key, __u64 *name)
{
	struct sluice_control *ctl = control_get();
	__u32 slot;

	if (!ctl)
		return NULL;
	*name = sluice_rate_name(key, ctl->rate_seed);
	slot = *name & ctl->rate_mask;
	return bpf_map_lookup_elem(&rates, &slot);
}

/* The bucket of a key, NULL if it has none. A packet looks it up once: should it go to another key meanwhile, that one is
 * charged a cell too many.
 */
static __always_inline struct sluice_rate *rate_find(const struct sluice_rate_key *key)
{
	__u64 name;
	struct sluice_rate_set *set = rate_set_of(key, &name);

	if (!set)
		return NULL;
#pragma GCC unroll 4
	for (int i = 0; i < SLUICE_RATE_WAYS; i++)
		if (*(volatile __u64 *)&set->way[i].name == name)
			return &set->way[i];
	return NULL;
}

/* Makes a bucket in the place of the one that was idle longest. NULL if another CPU was quicker there. Two CPUs may make one each for the same
 * key; the second is never found and gives way in its turn, so a key gains one cell at most.
 */
static __always_inline struct sluice_rate *rate_make(const struct sluice_rate_key *key, __u64 now)
{
	__u64 name, idle_since = ~0ULL, old;
	struct sluice_rate_set *set = rate_set_of(key, &name);
	struct sluice_rate *bucket;
	__u32 way = 0;

	if (!set)
		return NULL;
#pragma GCC unroll 4
	for (__u32 i = 0; i < SLUICE_RATE_WAYS; i++) {
		__u64 since = set->way[i].name ? set->way[i].tat : 0;

		if (since < idle_since) {
			idle_since = since;
			way = i;
		}
	}
	KEEP_BOUND(way);
	bucket = &set->way[way & (SLUICE_RATE_WAYS - 1)];
	old = *(volatile __u64 *)&bucket->name;
	if (__sync_val_compare_and_swap(&bucket->name, old, name) != old)
		return NULL;
	bucket->tat = now;
	bucket->answer_tat = now;
	bucket->muted_until = 0;
	bucket->verdicts = 0;
	return bucket;
}

static __always_inline struct sluice_rate *rate_of_source(const struct sluice_addr *source)
{
	struct sluice_rate_key key;

	rate_key_source(&key, source);
	return rate_find(&key);
}

/* The budget of SYNs, before a cookie is made. The coarse clock moves by ticks; a budget is not finer than that.
 *
 * A source that a cookie proved real before does not stand behind strangers: beyond the global budget it is answered all the same. Who forges such
 * addresses is bounded by their prefix' budgets.
 */
static __always_inline enum sluice_reason rate_check_syn(const struct sluice_addr *source, __u32 control)
{
	struct sluice_limits *lim = limits_get();
	struct sluice_control *ctl = control_get();
	__u64 now, prefix, *tat;
	__u32 slot;

	if (!lim || !ctl)
		return SLUICE_REASON_COOKIE_FAILED;
	if (!lim->limit[SLUICE_LIMIT_SYN_PREFIX].interval_ns && !lim->limit[SLUICE_LIMIT_SYN_GLOBAL].interval_ns)
		return SLUICE_REASON_NONE;
	now = bpf_ktime_get_coarse_ns();
	prefix = source->hi ? source->hi >> 16 : source->lo >> 8;
	slot = (prefix * 0x9e3779b97f4a7c15ULL) >> 48; /* Fibonacci hashing to SLUICE_SYN_SLOTS */
	tat = bpf_map_lookup_elem(&syn_budget, &slot);
	if (tat && !rate_take(&lim->limit[SLUICE_LIMIT_SYN_PREFIX], tat, now) &&
		!shadow_lets_pass(
			control, SLUICE_CONTROL_SHADOW_LIMIT(SLUICE_LIMIT_SYN_PREFIX), SLUICE_REASON_SYN_PREFIX))
		return SLUICE_REASON_SYN_PREFIX;
	if (!rate_take(&lim->limit[SLUICE_LIMIT_SYN_GLOBAL], &ctl->syn_global_tat, now) && !rate_of_source(source) &&
		!shadow_lets_pass(
			control, SLUICE_CONTROL_SHADOW_LIMIT(SLUICE_LIMIT_SYN_GLOBAL), SLUICE_REASON_SYN_GLOBAL))
		return SLUICE_REASON_SYN_GLOBAL;
	return SLUICE_REASON_NONE;
}

/* Over its rate and out of answers: known from the source's own words alone, without a clock. Half of jiffies is enough, as a mute is
 * never more than a tick ahead.
 */
static __always_inline int rate_is_muted(const struct sluice_rate *bucket)
{
	return bucket && bucket->muted_until && bucket->muted_until - (__u32)bpf_jiffies64() <= 1;
}

static __always_inline void rate_mute(struct sluice_rate *bucket)
{
	__u32 until = (__u32)bpf_jiffies64() + 1;

	bucket->muted_until = until ?: 1;
}

/* What was said to a first segment, for who wants to know later why. */
static __always_inline void rate_note_verdict(struct sluice_rate *bucket, enum sluice_reason reason)
{
	if (bucket)
		bucket->verdicts = bucket->verdicts << 8 | reason;
}

/* Charges one cell to `bucket`, which is made for `key` if it is NULL. Returns 0 if it does not conform, with *retry_after_s. */
static __always_inline int rate_charge_bucket(struct sluice_rate *bucket, const struct sluice_rate_key *key,
	const struct sluice_limit *limit, __u64 now, __u32 *retry_after_s)
{
	if (!limit->interval_ns)
		return 1;
	if (!bucket)
		bucket = rate_make(key, now);
	/* None: lost against another CPU, this one cell is free. */
	if (!bucket || rate_take(limit, &bucket->tat, now))
		return 1;
	*retry_after_s = gcra_retry_after_s(limit, bucket->tat, now);
	return 0;
}

/* The same for the bucket that `key` has. */
static __always_inline int rate_charge(
	const struct sluice_rate_key *key, const struct sluice_limit *limit, __u64 now, __u32 *retry_after_s)
{
	if (!limit->interval_ns)
		return 1;
	return rate_charge_bucket(rate_find(key), key, limit, now, retry_after_s);
}

/* May this source have another 429? If not, it is muted for the rest of this tick and the next. */
static __always_inline int rate_may_answer(
	const struct sluice_addr *source, const struct sluice_limit *limit, __u64 now, __u32 control)
{
	struct sluice_rate *bucket;
	struct sluice_rate_key key;

	rate_key_source(&key, source);
	bucket = rate_find(&key); /* this very packet may have made it */
	if (!bucket)              /* the rate per source is off, but its budget of answers needs one */
		bucket = rate_make(&key, now);
	if (!bucket)
		return 1;
	if (rate_take(limit, &bucket->answer_tat, now) ||
		shadow_lets_pass(control, SLUICE_CONTROL_SHADOW_LIMIT(SLUICE_LIMIT_ANSWER), SLUICE_REASON_RATE_DROP))
		return 1;
	rate_mute(bucket);
	return 0;
}

/* Charges source and prefix for one request; `bucket` is that of the source, or NULL. `control` has the flags of shadow mode and
 * RATE_ANSWERS.
 */
__noinline int rate_check_request(
	const struct sluice_addr *source, struct sluice_rate *bucket, __u64 now, __u32 control, __u32 *retry_after_s)
{
	struct sluice_limits *lim = limits_get();
	enum sluice_reason reason = SLUICE_REASON_NONE;
	struct sluice_rate_key key;

	if (!lim || !source || !retry_after_s)
		return SLUICE_REASON_NONE;
	rate_key_source(&key, source);
	if (!rate_charge_bucket(bucket, &key, &lim->limit[SLUICE_LIMIT_SOURCE], now, retry_after_s) &&
		!shadow_lets_pass(
			control, SLUICE_CONTROL_SHADOW_LIMIT(SLUICE_LIMIT_SOURCE), SLUICE_REASON_RATE_SOURCE)) {
		reason = SLUICE_REASON_RATE_SOURCE;
	} else {
		rate_key_prefix(&key, source);
		if (!rate_charge(&key, &lim->limit[SLUICE_LIMIT_PREFIX], now, retry_after_s) &&
			!shadow_lets_pass(
				control, SLUICE_CONTROL_SHADOW_LIMIT(SLUICE_LIMIT_PREFIX), SLUICE_REASON_RATE_PREFIX))
			reason = SLUICE_REASON_RATE_PREFIX;
	}
	if (reason == SLUICE_REASON_NONE)
		return reason;
	return rate_may_answer(source, &lim->limit[SLUICE_LIMIT_ANSWER], now, control) && (control & RATE_ANSWERS)
		? reason
		: SLUICE_REASON_RATE_DROP;
}

#endif
