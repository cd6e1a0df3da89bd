/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Orders and SYNs at the very nanosecond at which a verdict changes: `>` and `>=` differ nowhere else.
 *
 * The clock cannot be held, but it can be met: how long it takes from here until the gate reads it is learnt from the times
 * before, and the edge is put there. One try in some hundreds of calls hits it exactly; the others fall a little before or behind.
 */
#include <string.h>

#include "common/addr.h"
#include "common/timefmt.h"
#include "model_run.h"

#define SECOND_NS 1000000000ULL
#define HOUR_NS (3600 * SECOND_NS)
#define LEAD_STEP_NS 16
#define JITTER_NS 16
#define TRIES 4
#define GOOD_TOKENS 8
#define TELLING_BURST 1000000000

enum edge {
	EDGE_OPENS,
	EDGE_OPENS_IN_SECONDS, /* whole ones: Retry-After is about to change */
	EDGE_ENDS,
	EDGE_CLOCK, /* an expiry of a token, or of a list entry, that stands at a full second */
	EDGE_HEARTBEAT,
	EDGE_PACE,
	EDGE_BUCKETS, /* of sources, prefixes and tokens */
	EDGE_ANSWERS,
	EDGE_SYN_GLOBAL,
	EDGE_COUNT
};

struct words { /* what an edge moves, to put it back */
	struct model_sale sale;
	uint64_t wall_offset, heartbeat;
};

static void put_buckets(struct arena *arena, uint64_t at, bool answers)
{
	for (uint64_t i = 0; i < arena->model.bucket_count; i++) {
		struct model_bucket *bucket = &arena->model.buckets[i];
		struct sluice_rate *rate = arena_bucket(arena, bucket->name);

		if (!rate)
			continue;
		if (answers)
			rate->answer_tat = bucket->answer_tat = at;
		else
			rate->tat = bucket->tat = at;
	}
}

/* Puts the edge of `edge` at `at`. */
static void put_edge(struct arena *arena, enum edge edge, const struct step *step, uint64_t at)
{
	struct model *model = &arena->model;
	struct model_sale *sale = &model->sales[0];
	struct sluice_sale *slot = &arena->gate.sales[sale->slot];
	static const uint8_t ids[] = {SLUICE_LIMIT_SOURCE, SLUICE_LIMIT_PREFIX, SLUICE_LIMIT_TOKEN};
	uint64_t seconds = step->seed % 4 * SECOND_NS, from_full;

	switch (edge) {
	case EDGE_OPENS:
		slot->opens_wall = sale->opens = at + model->wall_offset;
		break;
	case EDGE_OPENS_IN_SECONDS:
		slot->opens_wall = sale->opens = at + model->wall_offset + seconds;
		break;
	case EDGE_ENDS:
		slot->ends_wall = sale->ends = at + model->wall_offset;
		break;
	case EDGE_CLOCK:
		from_full = (at + model->wall_offset) % SECOND_NS;
		arena->gate.control->wall_offset_ns = model->wall_offset += SECOND_NS - from_full;
		break;
	case EDGE_HEARTBEAT:
		arena->gate.control->heartbeat_mono = model->heartbeat = at - SLUICE_HEARTBEAT_MAX_NS;
		break;
	case EDGE_PACE:
		arena->gate.stock[sale->slot].pace_tat = sale->pace_tat = at + sale->pace_tolerance + seconds;
		break;
	case EDGE_BUCKETS:
		put_buckets(arena, at + model->limits[ids[step->seed / 4 % 3]].tolerance_ns + seconds, false);
		break;
	case EDGE_ANSWERS:
		put_buckets(arena, at + model->limits[SLUICE_LIMIT_ANSWER].tolerance_ns, true);
		break;
	default:
		arena->gate.control->syn_global_tat = model->syn_global_tat =
			at + model->limits[SLUICE_LIMIT_SYN_GLOBAL].tolerance_ns;
		break;
	}
}

static void put_back(struct arena *arena, const struct words *words)
{
	struct model_sale *sale = &arena->model.sales[0];
	struct sluice_sale *slot = &arena->gate.sales[sale->slot];

	slot->opens_wall = sale->opens = words->sale.opens;
	slot->ends_wall = sale->ends = words->sale.ends;
	arena->gate.control->wall_offset_ns = arena->model.wall_offset = words->wall_offset;
	arena->gate.control->heartbeat_mono = arena->model.heartbeat = words->heartbeat;
}

/* A list entry whose time ends at the next full second but one. */
static void list_source(struct arena *arena, const struct step *step)
{
	struct model_listed entry = {.bits = 128, .allow = step->seed / 32 & 1};
	struct sluice_addr addr;

	if (addr_parse(arena_source(step->flow), &addr))
		return;
	entry.addr = model_addr_of(&addr);
	entry.expires = (arena_wall_of(arena) / SECOND_NS + 1) * SECOND_NS;
	arena_list_put(arena, &entry);
}

/* Everything before and behind the edge lets a good token come to it: the sale is open, and, but for its pace, sold out, which shows, and
 * leaves the token for the next try.
 */
static void clear_the_way(struct arena *arena, enum edge edge)
{
	struct model_sale *sale = &arena->model.sales[0];
	uint64_t before = sale->free;

	arena_open_sale(arena, 0);
	sale->free = edge == EDGE_PACE ? sale->free + 1 : 0;
	arena->put_in[0] += sale->free - before;
	arena_put_sale(arena, sale);
}

/* Makes the edge's limit bite, so that there is an edge at all. */
static enum edge prepare(struct arena *arena, const struct step *step, struct dice *dice, bool syn)
{
	static const enum edge edges[] = {EDGE_OPENS, EDGE_OPENS_IN_SECONDS, EDGE_ENDS, EDGE_CLOCK, EDGE_HEARTBEAT,
		EDGE_PACE, EDGE_BUCKETS, EDGE_BUCKETS, EDGE_ANSWERS};
	enum edge edge = syn ? EDGE_SYN_GLOBAL : edges[dice_below(dice, 9)];
	struct model_sale *sale = &arena->model.sales[0];
	unsigned burst = 1 + dice_below(dice, 3);

	/* A limit that refuses nobody, and whose word tells when the gate read its clock. */
	arena_put_limit(arena, SLUICE_LIMIT_SOURCE, 1, TELLING_BURST);
	if (!dice_once_in(dice, 4))
		clear_the_way(arena, edge);
	switch (edge) {
	case EDGE_PACE:
		sale->pace_interval = SECOND_NS;
		sale->pace_tolerance = (burst - 1) * SECOND_NS;
		arena_put_sale(arena, sale);
		break;
	case EDGE_BUCKETS:
	case EDGE_ANSWERS:
		arena_put_limit(arena, SLUICE_LIMIT_ANSWER, 1, TELLING_BURST);
		arena_put_limit(
			arena, dice_once_in(dice, 2) ? SLUICE_LIMIT_SOURCE : SLUICE_LIMIT_PREFIX, SECOND_NS, burst);
		arena_put_limit(arena, SLUICE_LIMIT_TOKEN, SECOND_NS, burst);
		if (edge == EDGE_ANSWERS)
			arena_put_limit(arena, SLUICE_LIMIT_ANSWER, SECOND_NS, burst);
		break;
	case EDGE_CLOCK:
		if (dice_once_in(dice, 3))
			list_source(arena, step);
		break;
	case EDGE_SYN_GLOBAL:
		arena_put_limit(arena, SLUICE_LIMIT_SYN_GLOBAL, SECOND_NS, burst);
		break;
	default:
		break;
	}
	return edge;
}

bool arena_edge(struct arena *arena, const struct step *step)
{
	static int64_t lead[EDGE_COUNT][2];
	struct dice dice = dice_of(step->seed);
	bool syn = step->kind == STEP_EDGE_SYN, call = !syn && !dice_once_in(&dice, 3), agreed = true;
	enum edge edge = prepare(arena, step, &dice, syn);
	struct step hello = {.kind = STEP_SYN, .flow = step->flow, .seed = step->seed};
	struct words words = {.sale = arena->model.sales[0],
		.wall_offset = arena->model.wall_offset,
		.heartbeat = arena->model.heartbeat};
	static uint8_t bytes[FRAME_MAX];
	unsigned length = 0;
	struct sluice_call asked = {0};

	if (call) {
		struct step order = *step;

		order.kind = STEP_CALL_ORDER;
		order.token = step->token % GOOD_TOKENS * 3 + 1;
		asked = arena_ask(arena, &order);
		asked.flags = SLUICE_CALL_CHARGE;
	} else if (!syn) {
		if (!arena_segment(arena, &hello))
			return false;
	}
	if (!call)
		length = arena_write(arena, step, bytes);
	for (int i = 0; i < TRIES && agreed; i++) {
		int64_t *ahead = &lead[edge][call];
		struct sluice_call copy = asked;
		uint64_t from = time_mono_ns(), at;

		if (edge == EDGE_SYN_GLOBAL)
			at = arena_coarse_ns();
		else
			at = from + *ahead + dice_below(&dice, JITTER_NS);
		put_edge(arena, edge, step, at);
		agreed = call ? arena_call(arena, &copy) : arena_frame(arena, bytes, length);
		if (edge == EDGE_CLOCK) /* it stands a full second, or less, before where it was put */
			arena->on_the_edge += (arena->judged_at + arena->model.wall_offset) % SECOND_NS == 0;
		else
			arena->on_the_edge += edge == EDGE_SYN_GLOBAL || arena->judged_at == at;
		/* Towards the median: a few are very late, and must not count for more than that. */
		*ahead += arena->judged_at > from + *ahead ? LEAD_STEP_NS : -LEAD_STEP_NS;
		put_back(arena, &words);
	}
	return agreed;
}
