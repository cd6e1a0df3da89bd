/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The model's rates: GCRA in wide numbers, buckets that stand in sets of four, and the SYN budgets. Which set a key belongs to follows
 * sluice_rate_name() of abi.h; a fifth key takes the place of the one that was idle longest, which is the one with the earliest time.
 */
#include <string.h>

#include "model_inside.h"

typedef unsigned __int128 wide;

#define WAYS 4
#define MUTE_TICKS_MAX 50

static wide later_of(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

bool model_limit_allows(const struct sluice_limit *limit, uint64_t tat, uint64_t now)
{
	return limit->interval_ns == 0 || later_of(tat, now) <= (wide)now + limit->tolerance_ns;
}

uint64_t model_limit_after(const struct sluice_limit *limit, uint64_t tat, uint64_t now, uint64_t cost)
{
	if (limit->interval_ns == 0)
		return now;
	return (uint64_t)(later_of(tat, now) + (wide)cost * limit->interval_ns);
}

unsigned model_limit_wait_s(const struct sluice_limit *limit, uint64_t tat, uint64_t now)
{
	wide from = (wide)now + limit->tolerance_ns, wait, seconds;

	wait = tat > from ? tat - from : 0;
	seconds = (wait + SECOND_NS - 1) / SECOND_NS;
	if (seconds < 1)
		return 1;
	return seconds > SLUICE_RETRY_MAX_S ? SLUICE_RETRY_MAX_S : (unsigned)seconds;
}

/* --- buckets -------------------------------------------------------------------------------------------------------------- */
static struct model_bucket *find(struct model *model, uint64_t name)
{
	for (uint64_t i = 0; i < model->bucket_count; i++)
		if (model->buckets[i].name == name)
			return &model->buckets[i];
	return NULL;
}

static struct model_bucket *find_or_make(struct model *model, uint64_t name, uint64_t now)
{
	struct model_bucket *bucket = find(model, name), *idle = NULL;
	unsigned in_set = 0;

	if (bucket)
		return bucket;
	for (uint64_t i = 0; i < model->bucket_count; i++) {
		bucket = &model->buckets[i];
		if ((bucket->name & model->rate_mask) != (name & model->rate_mask))
			continue;
		in_set++;
		if (!idle || bucket->tat < idle->tat)
			idle = bucket;
	}
	if (in_set < WAYS) {
		if (model->bucket_count == MODEL_BUCKETS) {
			model->overflow = true;
			return &model->buckets[0];
		}
		idle = &model->buckets[model->bucket_count];
		model_set(model, &model->bucket_count, model->bucket_count + 1);
	}
	model_set(model, &idle->name, name);
	model_set_time(model, &idle->tat, now);
	model_set_time(model, &idle->answer_tat, now);
	model_set(model, &idle->muted_at, 0);
	model_set(model, &idle->verdicts, 0);
	return idle;
}

static uint64_t name_of(const struct model *model, uint64_t net, enum sluice_rate_kind kind)
{
	struct sluice_rate_key key = {.net = net, .kind = kind};

	return sluice_rate_name(&key, model->rate_seed);
}

/* Rates and budgets take an address whose upper half is zero for an IPv4 one; no other of ::/64 is ever seen on a wire. */
static bool is_short(const struct model_addr *source)
{
	return model_addr_number(source).hi == 0;
}

static uint64_t source_name(const struct model *model, const struct model_addr *source)
{
	struct sluice_addr number = model_addr_number(source);

	if (is_short(source))
		return name_of(model, number.lo, SLUICE_RATE_SOURCE4);
	return name_of(model, number.hi, SLUICE_RATE_SOURCE6);
}

static uint64_t prefix_name(const struct model *model, const struct model_addr *source)
{
	struct sluice_addr number = model_addr_number(source);

	if (is_short(source))
		return name_of(model, number.lo / 256, SLUICE_RATE_PREFIX4);
	return name_of(model, number.hi / 65536, SLUICE_RATE_PREFIX6);
}

struct model_bucket *model_rate_bucket(struct model *model, const struct model_addr *source)
{
	return find(model, source_name(model, source));
}

/* Muted for a tick or two. Ticks may come late and then several at once, so nothing is certain until long after. */
bool model_rate_muted(struct model *model, const struct model_addr *source, uint64_t now)
{
	static const int counted[] = {SLUICE_REASON_RATE_SOURCE, SLUICE_REASON_RATE_PREFIX, SLUICE_REASON_RATE_DROP};
	struct model_bucket *bucket = model_rate_bucket(model, source);
	uint64_t age;

	if (!bucket || !bucket->muted_at)
		return false;
	age = now - bucket->muted_at;
	if (age > MUTE_TICKS_MAX * model->tick_ns)
		return false;
	model->mute_met = true;
	model->mute_young = age < model->tick_ns / 2;
	if (!model->mute_holds)
		return false;
	/* Then nothing was charged, and nothing counted. */
	model_set_time(model, &bucket->tat, bucket->tat);
	model_set_time(model, &bucket->answer_tat, bucket->answer_tat);
	model_set_checked(model, &bucket->muted_until, bucket->muted_until);
	model_set_checked(model, &bucket->verdicts, bucket->verdicts);
	bucket = find(model, prefix_name(model, source));
	if (bucket)
		model_set_time(model, &bucket->tat, bucket->tat);
	for (unsigned i = 0; i < sizeof(counted) / sizeof(counted[0]); i++)
		model_set_checked(model, &model->shadowed[counted[i]], model->shadowed[counted[i]]);
	return true;
}

void model_rate_remember(struct model *model, const struct model_addr *source, int reason)
{
	struct model_bucket *bucket = model_rate_bucket(model, source);

	if (bucket)
		model_set_checked(model, &bucket->verdicts, (bucket->verdicts << 8 | reason) & 0xffffffff);
}

/* Over a rate: is there an answer left for this source? A bucket that no rate needed is made for its budget of answers. */
static int refuse(struct model *model, const struct model_addr *source, int reason, bool may_answer, uint64_t now)
{
	const struct sluice_limit *answers = &model->limits[SLUICE_LIMIT_ANSWER];
	struct model_bucket *bucket = find_or_make(model, source_name(model, source), now);

	if (model_limit_allows(answers, bucket->answer_tat, now)) {
		if (answers->interval_ns)
			model_set_time(
				model, &bucket->answer_tat, model_limit_after(answers, bucket->answer_tat, now, 1));
		return may_answer ? reason : SLUICE_REASON_RATE_DROP;
	}
	model_set_time(model, &bucket->answer_tat, bucket->answer_tat); /* as it was, and that is looked at too */
	if (model_shadow(model, model->shadow_limit[SLUICE_LIMIT_ANSWER], SLUICE_REASON_RATE_DROP))
		return may_answer ? reason : SLUICE_REASON_RATE_DROP;
	model_set(model, &bucket->muted_at, now);
	return SLUICE_REASON_RATE_DROP;
}

/* One cell of a rate. Returns false if it does not conform, and the rate is not in shadow. */
static bool charge(
	struct model *model, enum sluice_limit_id id, uint64_t name, int reason, uint64_t now, unsigned *retry_s)
{
	const struct sluice_limit *limit = &model->limits[id];
	struct model_bucket *bucket;

	if (!limit->interval_ns)
		return true;
	bucket = find_or_make(model, name, now);
	if (model_limit_allows(limit, bucket->tat, now)) {
		model_set_time(model, &bucket->tat, model_limit_after(limit, bucket->tat, now, 1));
		return true;
	}
	model_set_time(model, &bucket->tat, bucket->tat);
	if (model_shadow(model, model->shadow_limit[id], reason))
		return true;
	*retry_s = model_limit_wait_s(limit, bucket->tat, now);
	return false;
}

int model_rate_source(
	struct model *model, const struct model_addr *source, bool may_answer, uint64_t now, unsigned *retry_s)
{
	if (!charge(model, SLUICE_LIMIT_SOURCE, source_name(model, source), SLUICE_REASON_RATE_SOURCE, now, retry_s))
		return refuse(model, source, SLUICE_REASON_RATE_SOURCE, may_answer, now);
	if (!charge(model, SLUICE_LIMIT_PREFIX, prefix_name(model, source), SLUICE_REASON_RATE_PREFIX, now, retry_s))
		return refuse(model, source, SLUICE_REASON_RATE_PREFIX, may_answer, now);
	return GO_ON;
}

/* --- tokens --------------------------------------------------------------------------------------------------------------- */
bool model_rate_token_over(struct model *model, uint64_t serial, uint64_t now, unsigned *retry_s)
{
	const struct sluice_limit *limit = &model->limits[SLUICE_LIMIT_TOKEN];
	struct model_bucket *bucket = find(model, name_of(model, serial, SLUICE_RATE_TOKEN));
	bool over;

	if (!limit->interval_ns || !bucket)
		return false;
	over = !model_limit_allows(limit, bucket->tat, now);
	if (model_shadow_checked(model, over, model->shadow_limit[SLUICE_LIMIT_TOKEN], SLUICE_REASON_RATE_TOKEN) ||
		!over)
		return false;
	*retry_s = model_limit_wait_s(limit, bucket->tat, now);
	return true;
}

void model_rate_token_charge(struct model *model, uint64_t serial, uint64_t now)
{
	const struct sluice_limit *limit = &model->limits[SLUICE_LIMIT_TOKEN];
	struct model_bucket *bucket;

	if (!limit->interval_ns)
		return;
	bucket = find_or_make(model, name_of(model, serial, SLUICE_RATE_TOKEN), now);
	if (model_limit_allows(limit, bucket->tat, now))
		model_set_time(model, &bucket->tat, model_limit_after(limit, bucket->tat, now, 1));
}

/* --- SYNs ----------------------------------------------------------------------------------------------------------------- */
static struct model_prefix *prefix_of(struct model *model, const struct model_addr *source)
{
	struct model_addr net = *source;
	struct model_prefix *prefix;

	if (is_short(source))
		net.byte[15] = 0;
	else
		memset(net.byte + 6, 0, 10);
	for (uint64_t i = 0; i < model->prefix_count; i++)
		if (!memcmp(&model->prefixes[i].addr, &net, sizeof(net)))
			return &model->prefixes[i];
	if (model->prefix_count == MODEL_PREFIXES) {
		model->overflow = true;
		return &model->prefixes[0];
	}
	prefix = &model->prefixes[model->prefix_count];
	model_set(model, &model->prefix_count, model->prefix_count + 1);
	prefix->addr = net;
	model_set(model, &prefix->tat, 0);
	return prefix;
}

/* `exempt`: what is beyond the budget passes. */
static int charge_syn(struct model *model, enum sluice_limit_id id, uint64_t *tat, int reason, bool exempt)
{
	const struct sluice_limit *limit = &model->limits[id];
	uint64_t now = model->clock.coarse;
	bool conforms = model_limit_allows(limit, *tat, now);

	model_set_coarse_time(model, tat, conforms ? model_limit_after(limit, *tat, now, 1) : *tat);
	return conforms || exempt || model_shadow(model, model->shadow_limit[id], reason) ? GO_ON : reason;
}

int model_rate_syn(struct model *model, const struct model_addr *source)
{
	int reason = GO_ON;

	if (model->limits[SLUICE_LIMIT_SYN_PREFIX].interval_ns)
		reason = charge_syn(model, SLUICE_LIMIT_SYN_PREFIX, &prefix_of(model, source)->tat,
			SLUICE_REASON_SYN_PREFIX, false);
	if (reason == GO_ON && model->limits[SLUICE_LIMIT_SYN_GLOBAL].interval_ns)
		reason = charge_syn(model, SLUICE_LIMIT_SYN_GLOBAL, &model->syn_global_tat, SLUICE_REASON_SYN_GLOBAL,
			model_rate_bucket(model, source) != NULL);
	return reason;
}
