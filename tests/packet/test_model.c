/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate against a model of it that shares no code with it: generated sequences of frames, calls and changes of the world, and after each
 * step both must have said and done the same. See docs/model.md.
 *
 * Environment: SLUICE_MODEL_PACKETS (frames and calls to compare), SLUICE_SEED (repeats a run), SLUICE_MODEL_REASONS (prints how often
 * each reason was met).
 */
#include "common/timefmt.h"
#include "expect.h"
#include "model_run.h"

#define PACKETS_DEFAULT 2000000
#define PACKETS_FOR_ALL 300000 /* with fewer, a rare reason may be missed by chance */
#define MUTES_HELD 10          /* for each that was over within half a tick */
#define EITHER_PARTS 100       /* at most one in so many may be undecided */

static struct arena arena;
static uint64_t seed, packets;

static int open_arena(void **state)
{
	(void)state;
	arena_open(&arena);
	return 0;
}

static int close_arena(void **state)
{
	(void)state;
	arena_close(&arena);
	return 0;
}

static void the_gate_and_the_model_agree_on_every_packet(void **state)
{
	static struct step steps[SEQUENCE_MAX];
	struct dice dice = dice_of(seed);
	uint64_t sequences = 0;

	(void)state;
	while (arena.frames + arena.asked < packets) {
		uint64_t own = dice_word(&dice);
		unsigned count = sequence_make(own, steps), at;
		bool after;

		at = arena_play(&arena, own, steps, count, &after);
		if (at < count || after) {
			print_error("SLUICE_SEED=%llu, sequence %llu (%s), %s %u of %u\n", (unsigned long long)seed,
				(unsigned long long)sequences, sequence_about(own), after ? "after step" : "step", at,
				count);
			arena_explain(&arena, own, steps, at < count ? at + 1 : count);
			fail_msg("the gate and the model disagree");
		}
		sequences++;
	}
	print_message(
		"           %llu frames and %llu calls in %llu sequences; %llu undecided, %llu at the very edge\n",
		(unsigned long long)arena.frames, (unsigned long long)arena.asked, (unsigned long long)sequences,
		(unsigned long long)arena.either, (unsigned long long)arena.on_the_edge);
}

static void few_verdicts_could_have_been_either(void **state)
{
	(void)state;
	assert_true(arena.either * EITHER_PARTS <= arena.frames + arena.asked);
}

/* One by one a mute may be over: ticks come late, and several at once. */
static void a_mute_outlives_its_first_half_tick(void **state)
{
	(void)state;
	print_message("           %llu of %llu held\n", (unsigned long long)arena.mutes[1],
		(unsigned long long)(arena.mutes[0] + arena.mutes[1]));
	assert_true(arena.mutes[1] >= MUTES_HELD * arena.mutes[0]);
}

/* Two need a second CPU at the very same moment, and one is what no packet may ever have. */
static bool is_out_of_reach(int reason)
{
	return reason == SLUICE_REASON_NONE || reason == SLUICE_REASON_CONTENDED ||
		reason == SLUICE_REASON_COOKIE_FAILED;
}

static void every_reason_that_one_cpu_can_reach_was_met(void **state)
{
	static const int looked_at[] = {SLUICE_REASON_ADMITTED, SLUICE_REASON_BUYER_LIMIT, SLUICE_REASON_SOLD_OUT,
		SLUICE_REASON_RATE_SOURCE, SLUICE_REASON_SYN_COOKIE};
	bool print = getenv("SLUICE_MODEL_REASONS") != NULL;

	(void)state;
	for (int reason = 0; reason < SLUICE_REASON_COUNT; reason++) {
		if (print)
			print_message("           %10llu  %10llu  %s\n", (unsigned long long)arena.reasons[reason],
				(unsigned long long)arena.looked[reason], reason_label(reason));
		if (!is_out_of_reach(reason) && packets >= PACKETS_FOR_ALL)
			expect(arena.reasons[reason], "%s was never met", reason_label(reason));
	}
	for (unsigned i = 0; i < sizeof(looked_at) / sizeof(looked_at[0]) && packets >= PACKETS_DEFAULT; i++)
		expect(arena.looked[looked_at[i]], "%s was never what a gate would have said that only looks",
			reason_label(looked_at[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_gate_and_the_model_agree_on_every_packet),
		cmocka_unit_test(few_verdicts_could_have_been_either),
		cmocka_unit_test(a_mute_outlives_its_first_half_tick),
		cmocka_unit_test(every_reason_that_one_cpu_can_reach_was_met),
	};
	const char *given = getenv("SLUICE_SEED"), *asked = getenv("SLUICE_MODEL_PACKETS");

	seed = given ? strtoull(given, NULL, 0) : time_wall_ns();
	packets = asked ? strtoull(asked, NULL, 0) : PACKETS_DEFAULT;
	printf("SLUICE_SEED=%llu\n", (unsigned long long)seed);
	return cmocka_run_group_tests_name("model", tests, open_arena, close_arena);
}
