/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* One frame, or one call, for both gates.
 *
 * The real gate reads a clock between two instants that are known, `before` and `after`. What it stores tells more: a bucket's time is the
 * time of the frame plus what a request costs, so the model tries the instants that would make the stored words what they are, and then all
 * of them must fit at once. When verdicts are watched, the event tells the instant itself.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <bpf/libbpf.h>
#include <linux/bpf.h>

#include "common/maps.h"
#include "common/timefmt.h"
#include "model_run.h"

#define INSTANTS_MAX 128

bool arena_wrong(struct arena *arena, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(arena->wrong, sizeof(arena->wrong), format, args);
	va_end(args);
	arena->wrong_kind = format;
	return false;
}

static bool stamps_fit(struct arena *arena)
{
	for (unsigned i = 0; i < arena->model.stamp_count; i++) {
		const struct model_stamp *stamp = &arena->model.stamps[i];
		bool found;
		uint64_t got = arena_word(arena, stamp->word, &found);

		if (!found || got != stamp->value)
			return arena_wrong(arena, "%s is %llu, not %llu%s", arena_word_name(arena, stamp->word),
				(unsigned long long)got, (unsigned long long)stamp->value,
				found ? "" : " (it is not there at all)");
	}
	return true;
}

/* --- what must fit --------------------------------------------------------------------------------------------------------- */
static int action_of(int reason)
{
	return model_reason_is(reason, SLUICE_ACTION_PASS)    ? XDP_PASS
		: model_reason_is(reason, SLUICE_ACTION_DROP) ? XDP_DROP
							      : XDP_TX;
}

static unsigned row_of(const struct model_verdict *verdict)
{
	return verdict->service * SLUICE_REASON_ROWS + verdict->reason;
}

static bool verdict_fits(struct arena *arena, const struct model_verdict *verdict)
{
	if (arena->run.action != action_of(verdict->reason))
		return arena_wrong(
			arena, "action %d, and the model says %s", arena->run.action, reason_label(verdict->reason));
	if (arena->watched) {
		bool in_shadow = verdict->reason == SLUICE_REASON_SHADOWED;
		unsigned shown = (unsigned)(in_shadow ? verdict->said : verdict->reason);

		if (arena->event.reason != shown || arena->event.shadow != in_shadow ||
			arena->event.service != verdict->service || arena->event.bytes != arena->in_length)
			return arena_wrong(arena, "%s, and the model says %s", reason_label(arena->event.reason),
				reason_label(shown));
	} else if (arena_counted(arena, row_of(verdict)) != arena->packets[row_of(verdict)] + 1) {
		return arena_wrong(
			arena, "not counted as %s of service %u", reason_label(verdict->reason), verdict->service);
	}
	return stamps_fit(arena);
}

static bool reply_fits(struct arena *arena, const struct model_verdict *verdict)
{
	struct run *run = &arena->run;

	arena->wanted_length = 0;
	if (run->action == XDP_PASS)
		return run->untouched || arena_wrong(arena, "passed as %s, but changed", reason_label(verdict->reason));
	if (run->action != XDP_TX)
		return true;
	arena->wanted_length =
		model_reply(&arena->model, arena->in, arena->in_length, verdict, run->parsed.seq, arena->wanted);
	if (run->parsed.wrong)
		return arena_wrong(arena, "sent back with a wrong %s", run->parsed.wrong);
	if (run->length != arena->wanted_length || memcmp(run->bytes, arena->wanted, run->length) != 0)
		return arena_wrong(arena, "%s: other bytes are sent back", reason_label(verdict->reason));
	return true;
}

/* The ledger's word on an order: no verdict, so neither shown nor counted. */
static bool is_late(const struct sluice_call *call)
{
	return call->op == SLUICE_CALL_RELEASE || call->op == SLUICE_CALL_RECLAIM;
}

/* Units that came back, or were taken once more, without an admission. */
static void note_late(struct arena *arena, const struct sluice_call *asked)
{
	struct model_sale *sale = model_sale_slot(&arena->model, asked->admission.sale % SLUICE_MAX_SALES);

	if (!sale || sale->id != asked->admission.sale)
		return;
	if (asked->op == SLUICE_CALL_RECLAIM)
		arena->put_in[sale - arena->model.sales] -= asked->admission.quantity;
	else if (!(asked->flags & SLUICE_CALL_KEEP))
		arena->put_in[sale - arena->model.sales] += asked->admission.quantity;
}

static bool call_fits(struct arena *arena, const struct sluice_call *got, const struct sluice_call *wanted)
{
	bool admitted = wanted->reason == SLUICE_REASON_ADMITTED || wanted->reason == SLUICE_REASON_ADMITTED_AGAIN;

	if (got->reason != wanted->reason)
		return arena_wrong(arena, "call: %s, and the model says %s", reason_label(got->reason),
			reason_label(wanted->reason));
	if (model_answer_waits(model_answer_of(wanted->reason)) && got->retry_after_s != wanted->retry_after_s)
		return arena_wrong(arena, "call, %s: again after %u s, and the model says %u",
			reason_label(got->reason), got->retry_after_s, wanted->retry_after_s);
	if (!stamps_fit(arena))
		return false;
	if (got->serial != wanted->serial)
		return arena_wrong(arena, "call, %s: another serial", reason_label(got->reason));
	if (admitted && memcmp(&got->admission, &wanted->admission, sizeof(got->admission)) != 0)
		return arena_wrong(arena, "call, %s: another admission", reason_label(got->reason));
	if (is_late(wanted))
		return true;
	if (arena->watched && (arena->event.reason != got->reason || arena->event.door != SLUICE_DOOR_CALL))
		return arena_wrong(arena, "call, %s: another event", reason_label(got->reason));
	return true;
}

/* --- when it was ----------------------------------------------------------------------------------------------------------- */
/* One frame, or one call (`asked` is not NULL), that both have had. */
struct trial {
	const struct sluice_call *asked, *got;
	struct sluice_call wanted;
	struct model_verdict verdict;
	uint64_t before, after;
	uint64_t coarse[3];        /* before, after, and perhaps between */
	uint64_t at[INSTANTS_MAX]; /* instants to be tried */
	unsigned count;
	bool mute_holds;
};

static void add_instant(struct trial *trial, uint64_t at)
{
	if (at < trial->before || at > trial->after || trial->count == INSTANTS_MAX)
		return;
	for (unsigned i = 0; i < trial->count; i++)
		if (trial->at[i] == at)
			return;
	trial->at[trial->count++] = at;
}

/* What the model would have done at an instant. It can be taken back. */
static void judge_at(struct arena *arena, struct trial *trial, struct model_clock clock)
{
	model_begin(&arena->model);
	arena->model.mute_holds = trial->mute_holds;
	if (trial->asked) {
		trial->wanted = *trial->asked;
		model_call_judge(&arena->model, &trial->wanted, clock);
		return;
	}
	trial->verdict = model_packet_judge(&arena->model, arena->in, arena->in_length, clock);
}

static bool fits(struct arena *arena, const struct trial *trial)
{
	if (trial->asked)
		return call_fits(arena, trial->got, &trial->wanted);
	return verdict_fits(arena, &trial->verdict) && reply_fits(arena, &trial->verdict);
}

/* The instants that the stored words speak of, seen from a trial by `clock`. */
static void add_instants_of_stamps(struct arena *arena, struct trial *trial, struct model_clock clock)
{
	for (unsigned i = 0; i < arena->model.stamp_count; i++) {
		const struct model_stamp *stamp = &arena->model.stamps[i];
		bool found;
		uint64_t got = arena_word(arena, stamp->word, &found), coarse = clock.coarse + got - stamp->value;
		uint64_t step = (clock.now >> SLUICE_RECENT_SHIFT) + got - stamp->value;

		if (found && stamp->clock == CLOCK_OF_NOW)
			add_instant(trial, clock.now + got - stamp->value);
		if (found && stamp->clock == CLOCK_OF_STEPS) {
			add_instant(trial, step << SLUICE_RECENT_SHIFT);
			add_instant(trial, ((step + 1) << SLUICE_RECENT_SHIFT) - 1);
		}
		/* On a busy machine many ticks may go by. */
		if (found && stamp->clock == CLOCK_OF_COARSE && coarse > trial->coarse[0] && coarse < trial->coarse[1])
			trial->coarse[2] = coarse;
	}
}

/* Tries one instant: with the coarse clock as it was before, behind, or between; with lists that were looked at then, or a little earlier
 * (a call: later); and with a mute that holds, or has just ended.
 */
static bool try_instant(struct arena *arena, struct trial *trial, uint64_t now, bool ask_stamps)
{
	const uint64_t lists[] = {now, trial->asked ? trial->after : trial->before};
	int looks = arena->model.listed_count ? 2 : 1;

	for (int i = 0; i < 3 * looks * 2; i++) {
		struct model_clock clock = {now, trial->coarse[i / 2 / looks], lists[i / 2 % looks]};

		trial->mute_holds = !(i % 2);
		if ((!trial->mute_holds && !arena->model.mute_met) ||
			(i / 2 / looks && clock.coarse == trial->coarse[0]))
			continue;
		judge_at(arena, trial, clock);
		if (fits(arena, trial)) {
			arena->judged_at = now;
			return true;
		}
		if (ask_stamps)
			add_instants_of_stamps(arena, trial, clock);
		model_take_back(&arena->model);
	}
	return false;
}

/* In what the model at an instant is like the gate, as a number: where it changes, there is an edge. */
static uint64_t likeness_at(struct arena *arena, struct trial *trial, uint64_t now)
{
	uint64_t likeness;

	judge_at(arena, trial, (struct model_clock){now, trial->coarse[1], now});
	likeness = trial->asked ? trial->wanted.reason * 10000ULL + trial->wanted.retry_after_s
				: trial->verdict.reason * 10000ULL + trial->verdict.retry_after_s;
	for (unsigned i = 0; i < arena->model.stamp_count; i++) {
		bool found;

		likeness = likeness * 2 +
			(arena_word(arena, arena->model.stamps[i].word, &found) == arena->model.stamps[i].value);
	}
	model_take_back(&arena->model);
	return likeness;
}

/* An instant between every two edges in (from, to): the true one may lie between two that are close together. */
static void add_between_edges(struct arena *arena, struct trial *trial, uint64_t from, uint64_t to)
{
	uint64_t middle = from + (to - from) / 2;

	if (to - from < 2 || likeness_at(arena, trial, from) == likeness_at(arena, trial, to))
		return;
	add_instant(trial, middle);
	add_between_edges(arena, trial, from, middle);
	add_between_edges(arena, trial, middle, to);
}

/* First what is known without asking: both ends. Then what the words say that were stored. Then what lies between edges that are close
 * together.
 */
static bool find_instant(struct arena *arena, struct trial *trial)
{
	char wrong[ARENA_WRONG] = "";
	const char *kind = NULL;
	unsigned tried = 0;

	add_instant(trial, trial->after);
	add_instant(trial, trial->before);
	for (int round = 0; round < 4; round++) {
		unsigned count = trial->count;

		for (; tried < count; tried++) {
			if (try_instant(arena, trial, trial->at[tried], round % 2 == 0))
				return true;
			if (!kind) {
				memcpy(wrong, arena->wrong, sizeof(wrong));
				kind = arena->wrong_kind;
			}
		}
		trial->mute_holds = true;
		if (round == 1)
			add_between_edges(arena, trial, trial->before, trial->after);
	}
	memcpy(arena->wrong, wrong, sizeof(wrong));
	arena->wrong_kind = kind;
	return false;
}

/* Does the verdict change between the two ends of what is known of the clocks? */
static bool is_either(struct arena *arena, struct trial *trial)
{
	const struct model_clock ends[] = {
		{trial->before, trial->coarse[0], trial->before}, {trial->after, trial->coarse[1], trial->after}};
	uint64_t verdicts[2];

	for (int end = 0; end < 2; end++) {
		judge_at(arena, trial, ends[end]);
		verdicts[end] = trial->asked ? trial->wanted.reason * 10000ULL + trial->wanted.retry_after_s
					     : trial->verdict.reason * 10000ULL + trial->verdict.retry_after_s;
		model_take_back(&arena->model);
	}
	return verdicts[0] != verdicts[1];
}

/* The tick that a mute ends with is not for the model to say. */
static void adopt_mutes(struct arena *arena)
{
	struct model *model = &arena->model;

	for (uint64_t i = 0; i < model->bucket_count; i++) {
		struct sluice_rate *rate =
			model->buckets[i].muted_at ? arena_bucket(arena, model->buckets[i].name) : NULL;

		if (rate)
			model->buckets[i].muted_until = rate->muted_until;
	}
}

/* Both have had it: finds out when, and leaves the model as it was then. */
static bool settle(struct arena *arena, struct trial *trial)
{
	bool either = is_either(arena, trial);
	int reason;

	if (!find_instant(arena, trial))
		return false;
	reason = trial->asked ? (int)trial->wanted.reason : trial->verdict.said;
	arena->last_reason = reason;
	if (reason == SLUICE_REASON_RATE_DROP)
		adopt_mutes(arena);
	if (reason == SLUICE_REASON_ADMITTED && (trial->asked || trial->verdict.reason == reason))
		arena_expect_record(arena, &arena->model.admissions[arena->model.admission_count - 1]);
	if (arena->model.mute_met && arena->model.mute_young)
		arena->mutes[trial->mute_holds]++;
	arena->either += either && !arena->model.stamp_count;
	return !arena->model.overflow || arena_wrong(arena, "the model's arrays are too small");
}

/* A prefix of the SYN budget whose slot was not found out: nobody could say what it shares. */
static bool is_for_an_unknown_prefix(struct arena *arena)
{
	uint64_t count = arena->model.prefix_count, now = time_mono_ns();
	bool unknown = false;

	if (!arena->model.limits[SLUICE_LIMIT_SYN_PREFIX].interval_ns)
		return false;
	model_begin(&arena->model);
	model_packet_judge(&arena->model, arena->in, arena->in_length, (struct model_clock){now, now, now});
	if (arena->model.prefix_count > count) {
		unknown = true;
		for (unsigned i = 0; i < arena->slot_count; i++)
			if (!memcmp(&arena->slots[i].prefix, &arena->model.prefixes[count].addr,
				    sizeof(arena->slots[i].prefix)))
				unknown = false;
	}
	model_take_back(&arena->model);
	return unknown;
}

uint64_t arena_coarse_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

bool arena_frame(struct arena *arena, const uint8_t *bytes, unsigned length)
{
	struct trial trial = {0};
	unsigned row;

	memcpy(arena->in, bytes, length);
	arena->in_length = length;
	arena->verdict = (struct model_verdict){0};
	if (is_for_an_unknown_prefix(arena))
		return true;
	arena->event_mono = 0;
	trial.coarse[0] = arena_coarse_ns();
	trial.before = time_mono_ns();
	gate_run_raw(&arena->gate, bytes, length, &arena->run);
	trial.after = time_mono_ns();
	trial.coarse[1] = trial.coarse[2] = arena_coarse_ns();
	if (arena->watched)
		ring_buffer__consume(arena->events);
	arena->frames++;
	if (arena->watched && !arena->event_mono)
		return arena_wrong(arena, "verdicts are watched, and this one was not shown");
	if (!settle(arena, &trial)) {
		arena->verdict = trial.verdict;
		return false;
	}
	arena->verdict = trial.verdict;
	row = row_of(&trial.verdict);
	arena->reasons[trial.verdict.reason]++;
	if (trial.verdict.reason == SLUICE_REASON_SHADOWED)
		arena->looked[trial.verdict.said]++;
	arena->packets[row]++;
	arena->bytes[row] += length;
	if (trial.verdict.reason == SLUICE_REASON_SYN_COOKIE)
		model_cookie_learn(&arena->model, bytes, length, arena->run.parsed.seq);
	return true;
}

bool arena_call(struct arena *arena, struct sluice_call *call)
{
	const struct sluice_call asked = *call;
	struct trial trial = {.asked = &asked, .got = call};

	arena->event_mono = 0;
	arena->in_length = 0;
	trial.before = time_mono_ns();
	gate_call(&arena->gate, call);
	trial.after = time_mono_ns();
	if (arena->watched)
		ring_buffer__consume(arena->events);
	arena->asked++;
	if (arena->watched && !arena->event_mono && !is_late(&asked))
		return arena_wrong(arena, "verdicts are watched, and this call's was not shown");
	if (!settle(arena, &trial))
		return false;
	if (is_late(&asked)) {
		if (trial.wanted.reason == SLUICE_REASON_NONE)
			note_late(arena, &asked);
		return true;
	}
	arena->calls[trial.wanted.reason]++;
	arena->reasons[trial.wanted.reason]++;
	return true;
}
