/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Plays sequences on both gates, and makes the smallest one that still shows a disagreement. */
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/maps.h"
#include "model_run.h"

#define SHRINK_PLAYS 3000
#define DUMP_LINE 32

bool arena_segment(struct arena *arena, const struct step *step)
{
	static uint8_t bytes[FRAME_MAX];
	struct arena_flow *flow = &arena->flows[step->flow];
	unsigned length = arena_write(arena, step, bytes);
	bool agreed = arena_frame(arena, bytes, length);

	if (agreed && arena->verdict.reason == SLUICE_REASON_SYN_COOKIE && !step->mutations) {
		flow->isn = arena->run.parsed.ack - 1;
		flow->cookie = arena->run.parsed.seq;
	}
	if (agreed && step->kind == STEP_FIRST)
		flow->answer_len = arena->run.action == XDP_TX ? arena->run.parsed.payload_len + 1 : 0;
	return agreed;
}

static bool play_step(struct arena *arena, const struct step *step)
{
	struct sluice_call call;

	arena->in_length = 0;
	arena->last_reason = -1;
	switch (step->kind) {
	case STEP_EDGE:
	case STEP_EDGE_SYN:
		return arena_edge(arena, step);
	case STEP_CALL_ORDER:
	case STEP_CALL_RATE:
	case STEP_CALL_ODD:
	case STEP_CALL_LATE:
		call = arena_ask(arena, step);
		return arena_call(arena, &call);
	default:
		return step->kind <= STEP_NOISE ? arena_segment(arena, step) : arena_world(arena, step);
	}
}

static void tell(const struct arena *arena, const struct step *step, unsigned number, bool agreed)
{
	printf("  %3u  %-40s flow %2u, token %2u, seed %016llx%s", number, step_name(step->kind), step->flow,
		step->token, (unsigned long long)step->seed, step->mutations ? ", damaged" : "");
	if (arena->last_reason >= 0 || !agreed)
		printf(": %s", agreed ? reason_label(arena->last_reason) : "?");
	printf("\n");
}

unsigned arena_play(struct arena *arena, uint64_t seed, const struct step *steps, unsigned count, bool *after)
{
	*after = false;
	arena_reset(arena, seed);
	for (unsigned i = 0; i < count; i++) {
		bool agreed = play_step(arena, &steps[i]);

		if (arena->talk)
			tell(arena, &steps[i], i, agreed);
		if (!agreed)
			return i;
	}
	*after = !arena_compare_state(arena) || !arena_compare_counters(arena);
	return count;
}

/* In the same way as before (`kind`), so that the shortest sequence is not one of another disagreement. */
static bool disagrees(struct arena *arena, uint64_t seed, const struct step *steps, unsigned *count, const char *kind)
{
	bool after;
	unsigned at;

	arena_count_all(arena);
	at = arena_play(arena, seed, steps, *count, &after);
	if (at < *count)
		*count = at + 1;
	else if (!after)
		return false;
	return arena->wrong_kind == kind;
}

static void dump(const char *what, const uint8_t *bytes, unsigned length)
{
	printf("%s, %u bytes:\n", what, length);
	for (unsigned i = 0; i < length; i++)
		printf("%02x%s", bytes[i], i % DUMP_LINE == DUMP_LINE - 1 || i + 1 == length ? "\n" : "");
}

void arena_explain(struct arena *arena, uint64_t seed, struct step *steps, unsigned count)
{
	struct step *fewer = malloc(SEQUENCE_MAX * sizeof(*fewer));
	const char *kind = arena->wrong_kind;
	unsigned plays = 0;

	if (!fewer)
		return;
	printf("the gates disagree: %s\n", arena->wrong);
	for (unsigned piece = count; piece >= 1; piece = piece > 1 ? (piece + 1) / 2 : 0) {
		for (unsigned at = 0; at < count && plays < SHRINK_PLAYS; plays++) {
			unsigned gone = piece < count - at ? piece : count - at, left = count - gone;

			memcpy(fewer, steps, at * sizeof(*fewer));
			memcpy(fewer + at, steps + at + gone, (left - at) * sizeof(*fewer));
			if (left && disagrees(arena, seed, fewer, &left, kind)) {
				memcpy(steps, fewer, left * sizeof(*steps));
				count = left;
			} else {
				at += gone;
			}
		}
	}
	free(fewer);
	printf("the shortest sequence that shows it (%u steps, found in %u plays):\n", count, plays);
	arena->talk = true;
	if (!disagrees(arena, seed, steps, &count, kind))
		printf("this time they agreed: it depends on the clock\n");
	arena->talk = false;
	printf("%s\n", arena->wrong);
	if (arena->in_length) {
		dump("the frame", arena->in, arena->in_length);
		dump("the gate's", arena->run.bytes, arena->run.length);
		if (arena->wanted_length)
			dump("the model's", arena->wanted, arena->wanted_length);
	}
}
