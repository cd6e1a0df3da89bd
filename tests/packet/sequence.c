/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The generator of sequences: a few conversations side by side, each from its SYN to its end with losses, repetitions and crossings, and
 * between their segments whatever else the profile of the sequence likes. See sequence.h.
 */
#include "sequence.h"

#define LENGTH_MIN 20
#define CONVERSATIONS_MAX 8
#define SCENE_MAX 12

static const char *const names[STEP_COUNT] = {
#define X(name, what) [STEP_##name] = what,
	SEQUENCE_STEPS(X)
#undef X
};

const char *step_name(enum step_kind kind)
{
	return names[kind];
}

/* splitmix64 (Steele, Lea, Flood 2014): any seed will do. */
uint64_t dice_word(struct dice *dice)
{
	uint64_t z = dice->state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

struct dice dice_of(uint64_t seed)
{
	return (struct dice){.state = seed};
}

unsigned dice_below(struct dice *dice, unsigned limit)
{
	return (dice_word(dice) >> 16) % limit;
}

bool dice_once_in(struct dice *dice, unsigned n)
{
	return dice_below(dice, n) == 0;
}

/* How often what happens between the segments of the conversations, in parts of the sum; the rest of a sequence is conversation. */
struct profile {
	const char *about;
	unsigned talk;    /* percent that is conversation */
	unsigned mutated; /* percent of the segments that are damaged */
	unsigned tokens;  /* so many different ones */
	struct {
		enum step_kind kind;
		unsigned weight;
	} other[12];
};

static const struct profile profiles[] = {
	{"buyers", 80, 2, 40,
		{{STEP_CALL_ORDER, 6}, {STEP_CALL_LATE, 4}, {STEP_DRAIN, 2}, {STEP_DURABLE, 3}, {STEP_TIME, 2},
			{STEP_STOCK, 1}, {STEP_SALE, 1}, {STEP_FORGET, 1}, {STEP_PLENTY, 1}}},
	{"one token everywhere", 70, 1, 3,
		{{STEP_CALL_ORDER, 6}, {STEP_CALL_LATE, 2}, {STEP_SALE, 1}, {STEP_STOCK, 2}, {STEP_FORGET, 2},
			{STEP_LIMIT, 1}}},
	{"a sale in all its states", 60, 1, 30,
		{{STEP_SALE, 6}, {STEP_STOCK, 2}, {STEP_TIME, 3}, {STEP_CLOCK, 2}, {STEP_HEARTBEAT, 2},
			{STEP_CONTROL, 3}, {STEP_KEY, 2}, {STEP_CALL_ORDER, 6}, {STEP_DURABLE, 1}}},
	{"limits", 70, 1, 12,
		{{STEP_LIMIT, 5}, {STEP_TIME, 4}, {STEP_UNMUTE, 2}, {STEP_CALL_RATE, 4}, {STEP_CALL_ORDER, 3},
			{STEP_LIST, 1}, {STEP_CONTROL, 1}}},
	{"lists", 65, 1, 20,
		{{STEP_LIST, 8}, {STEP_TIME, 2}, {STEP_CLOCK, 1}, {STEP_CONTROL, 1}, {STEP_CALL_RATE, 2},
			{STEP_STRAY, 4}}},
	{"damaged frames", 70, 70, 20, {{STEP_NOISE, 5}, {STEP_STRAY, 6}, {STEP_CONTROL, 1}}},
	{"bytes without a plan", 10, 50, 20, {{STEP_NOISE, 10}}},
	{"leftovers", 60, 2, 10,
		{{STEP_STRAY, 5}, {STEP_TIME, 4}, {STEP_SOCKET, 3}, {STEP_SILENT_FIN, 2}, {STEP_COOKIES, 1}}},
	{"answers", 70, 3, 20, {{STEP_CONTROL, 5}, {STEP_ANSWER, 4}, {STEP_SALE, 3}, {STEP_TIME, 1}}},
	{"a flood of SYNs", 30, 5, 10,
		{{STEP_SYN, 20}, {STEP_LIMIT, 2}, {STEP_TIME, 3}, {STEP_LIST, 1}, {STEP_COOKIES, 1}}},
	{"edges", 5, 0, 30, {{STEP_EDGE, 20}, {STEP_EDGE_SYN, 4}, {STEP_TIME, 1}, {STEP_LIMIT, 1}}},
	{"everything full", 20, 0, SEQUENCE_TOKENS,
		{{STEP_CALL_ORDER, 100}, {STEP_CALL_LATE, 3}, {STEP_PLENTY, 6}, {STEP_FORGET, 2}, {STEP_DURABLE, 2}}},
	{"a gate that only looks", 5, 0, 42, /* three of each buyer */
		{{STEP_SYN, 20}, {STEP_FIRST, 40}, {STEP_LOOK, 3}, {STEP_CALL_ORDER, 10}, {STEP_STOCK, 2},
			{STEP_DURABLE, 1}, {STEP_DRAIN, 1}}},
	{"odd calls", 10, 0, 20, {{STEP_CALL_ODD, 6}, {STEP_CALL_ORDER, 3}, {STEP_CALL_RATE, 3}, {STEP_LIMIT, 1}}},
};

#define PROFILES (sizeof(profiles) / sizeof(profiles[0]))

static const enum step_kind scene[] = {STEP_LIMIT, STEP_LIMIT, STEP_SALE, STEP_STOCK, STEP_CONTROL, STEP_LIST, STEP_KEY,
	STEP_TIME, STEP_RATE_SETS, STEP_RATE_SETS, STEP_STOCK, STEP_ANSWER};

struct conversation {
	unsigned flow, token, stage;
	uint64_t seed[8]; /* so that what is sent again is the same */
};

static const enum step_kind stages[] = {STEP_SYN, STEP_ACK, STEP_FIRST, STEP_NEXT, STEP_FIN, STEP_ACK, STEP_RST};

#define STAGES (sizeof(stages) / sizeof(stages[0]))

static struct conversation conversation_begin(struct dice *dice, unsigned tokens)
{
	struct conversation talk = {.flow = dice_below(dice, SEQUENCE_FLOWS), .token = dice_below(dice, tokens)};

	for (unsigned i = 0; i < STAGES; i++)
		talk.seed[i] = dice_word(dice);
	return talk;
}

/* The next segment of a conversation: mostly in turn, sometimes again, sometimes one is lost. */
static struct step conversation_step(struct dice *dice, struct conversation *talk, const struct profile *profile)
{
	unsigned at = talk->stage;
	struct step step;

	if (at && dice_once_in(dice, 8))
		at = dice_below(dice, at);
	else
		talk->stage += dice_once_in(dice, 12) ? 2 : 1;
	if (at >= STAGES)
		at = STAGES - 1;
	step = (struct step){.kind = stages[at], .flow = talk->flow, .token = talk->token, .seed = talk->seed[at]};
	if (dice_below(dice, 100) < profile->mutated) {
		step.mutations = 1 + dice_below(dice, 3);
		step.seed = dice_word(dice);
	}
	if (talk->stage >= STAGES)
		*talk = conversation_begin(dice, profile->tokens);
	return step;
}

static struct step other_step(struct dice *dice, const struct profile *profile)
{
	struct step step = {.flow = dice_below(dice, SEQUENCE_FLOWS),
		.token = dice_below(dice, profile->tokens),
		.seed = dice_word(dice)};
	unsigned sum = 0, at;

	for (unsigned i = 0; i < 12; i++)
		sum += profile->other[i].weight;
	at = dice_below(dice, sum);
	for (unsigned i = 0; i < 12; i++) {
		step.kind = profile->other[i].kind;
		if (at < profile->other[i].weight)
			break;
		at -= profile->other[i].weight;
	}
	if (step.kind <= STEP_NOISE && dice_below(dice, 100) < profile->mutated)
		step.mutations = 1 + dice_below(dice, 3);
	return step;
}

static const struct profile *profile_of(struct dice *dice)
{
	return &profiles[dice_below(dice, PROFILES)];
}

const char *sequence_about(uint64_t seed)
{
	struct dice dice = dice_of(seed);

	return profile_of(&dice)->about;
}

unsigned sequence_make(uint64_t seed, struct step *steps)
{
	struct dice dice = dice_of(seed);
	const struct profile *profile = profile_of(&dice);
	unsigned length = LENGTH_MIN + dice_below(&dice, SEQUENCE_MAX - LENGTH_MIN);
	unsigned talks = 1 + dice_below(&dice, CONVERSATIONS_MAX), count = 0;
	struct conversation talk[CONVERSATIONS_MAX];

	for (unsigned i = dice_below(&dice, SCENE_MAX); i > 0; i--)
		steps[count++] = (struct step){
			.kind = scene[dice_below(&dice, sizeof(scene) / sizeof(scene[0]))], .seed = dice_word(&dice)};
	for (unsigned i = 0; i < talks; i++)
		talk[i] = conversation_begin(&dice, profile->tokens);
	while (count < length)
		steps[count++] = dice_below(&dice, 100) < profile->talk
			? conversation_step(&dice, &talk[dice_below(&dice, talks)], profile)
			: other_step(&dice, profile);
	return count;
}
