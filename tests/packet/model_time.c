/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Time passes in the differential test: the gate's clock cannot be moved, so everything that is stored is moved back, in the gate
 * and in the model, and the wall clock's offset forward. Spans are whole steps of "recent", so that nothing is lost in them.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "gate.skel.h"
#include "model_run.h"

#define SECOND_NS 1000000000ULL
#define HOUR_NS (3600 * SECOND_NS)
#define TICK_NS (1ULL << SLUICE_RECENT_SHIFT)

static uint64_t back(uint64_t word, uint64_t ns)
{
	return !word ? 0 : word > ns ? word - ns : 1;
}

static void time_in_gate(struct arena *arena, uint64_t ns)
{
	struct gate *gate = &arena->gate;
	const struct model *model = &arena->model;
	int budget = bpf_map__fd(gate->skel->maps.syn_budget);

	for (unsigned set = 0; set < gate->rate_sets; set++) {
		for (int way = 0; way < SLUICE_RATE_WAYS; way++) {
			struct sluice_rate *rate = &gate->rates[set].way[way];

			rate->tat = back(rate->tat, ns);
			rate->answer_tat = back(rate->answer_tat, ns);
			rate->muted_until = 0;
		}
	}
	for (uint64_t i = 0; i < model->recent_count; i++) {
		__u64 *word = &gate->recent[model->recent[i].slot];

		*word = *word / MODEL_RECENT_TICKS * MODEL_RECENT_TICKS | (*word - ns / TICK_NS) % MODEL_RECENT_TICKS;
	}
	for (uint64_t i = 0; i < model->sale_count; i++) {
		struct sluice_stock *stock = &gate->stock[model->sales[i].slot];

		stock->pace_tat = back(stock->pace_tat, ns);
	}
	gate->control->syn_global_tat = back(gate->control->syn_global_tat, ns);
	for (unsigned i = 0; gate->syn_limited && i < arena->slot_count; i++) {
		__u64 tat;

		if (!bpf_map_lookup_elem(budget, &arena->slots[i].slot, &tat) && tat) {
			tat = back(tat, ns);
			bpf_map_update_elem(budget, &arena->slots[i].slot, &tat, 0);
		}
	}
}

static void time_in_model(struct model *model, uint64_t ns)
{
	for (uint64_t i = 0; i < model->bucket_count; i++) {
		model->buckets[i].tat = back(model->buckets[i].tat, ns);
		model->buckets[i].answer_tat = back(model->buckets[i].answer_tat, ns);
		model->buckets[i].muted_at = 0;
	}
	for (uint64_t i = 0; i < model->recent_count; i++)
		model->recent[i].at = (model->recent[i].at - ns / TICK_NS) % MODEL_RECENT_TICKS;
	for (uint64_t i = 0; i < model->sale_count; i++)
		model->sales[i].pace_tat = back(model->sales[i].pace_tat, ns);
	for (uint64_t i = 0; i < model->prefix_count; i++)
		model->prefixes[i].tat = back(model->prefixes[i].tat, ns);
	model->syn_global_tat = back(model->syn_global_tat, ns);
}

static void pass(struct arena *arena, uint64_t ns)
{
	ns = ns / TICK_NS * TICK_NS;
	time_in_gate(arena, ns);
	time_in_model(&arena->model, ns);
	arena->model.wall_offset += ns;
	arena_put_control(arena);
}

void arena_time(struct arena *arena, struct dice *dice)
{
	static const uint64_t spans[] = {TICK_NS, 10 * TICK_NS, SLUICE_RECENT_PASSED * TICK_NS,
		(SLUICE_RECENT_PASSED - 1) * TICK_NS, SECOND_NS, 7 * SECOND_NS, SLUICE_RECENT_ANSWERED * TICK_NS,
		(SLUICE_RECENT_ANSWERED - 1) * TICK_NS, 60 * SECOND_NS, HOUR_NS};

	pass(arena, spans[dice_below(dice, sizeof(spans) / sizeof(spans[0]))]);
}
