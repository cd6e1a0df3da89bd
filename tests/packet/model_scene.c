/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The world around the two gates: what operator, daemon, kernel and time do to the one is done to the other. */
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "common/addr.h"
#include "common/lists.h"
#include "common/timefmt.h"
#include "gate.skel.h"
#include "model_run.h"

#define SECOND_NS 1000000000ULL
#define HOUR_NS (3600 * SECOND_NS)
#define PLENTY 200

uint64_t arena_wall_of(const struct arena *arena)
{
	return time_mono_ns() + arena->model.wall_offset;
}

/* --- one word here, one word there ---------------------------------------------------------------------------------------- */
void arena_put_control(struct arena *arena)
{
	const struct model *model = &arena->model;
	struct sluice_control *control = arena->gate.control;
	__u32 flags = 0;

	flags |= model->orders_open ? SLUICE_CONTROL_ORDERS_OPEN : 0;
	flags |= model->deny_all ? SLUICE_CONTROL_DENY_ALL : 0;
	flags |= arena->watched ? SLUICE_CONTROL_WATCH : 0;
	flags |= model->shadow_all ? SLUICE_CONTROL_SHADOW_ALL : 0;
	flags |= model->shadow_deny ? SLUICE_CONTROL_SHADOW_DENY : 0;
	flags |= model->shadow_pace ? SLUICE_CONTROL_SHADOW_PACE : 0;
	for (int id = 0; id < SLUICE_LIMIT_COUNT; id++)
		flags |= model->shadow_limit[id] ? SLUICE_CONTROL_SHADOW_LIMIT(id) : 0;
	control->flags = flags;
	control->grow = (model->grows_head ? SLUICE_GROW_HEAD : 0) | (model->grows_tail ? SLUICE_GROW_TAIL : 0);
	control->answer_banks = model->banks;
	control->node = model->node;
	control->mss4 = model->mss4;
	control->mss6 = model->mss6;
	control->backlog_max = model->backlog_max;
	control->rate_mask = model->rate_mask;
	control->rate_seed = model->rate_seed;
	control->heartbeat_mono = model->heartbeat;
	control->wall_offset_ns = model->wall_offset;
	control->in_flight = model->in_flight;
	control->syn_global_tat = model->syn_global_tat;
}

void arena_put_limit(struct arena *arena, enum sluice_limit_id id, uint64_t interval_ns, unsigned burst)
{
	arena->model.limits[id] =
		(struct sluice_limit){.interval_ns = interval_ns, .tolerance_ns = interval_ns * (burst - 1)};
	gate_limit(&arena->gate, id, interval_ns, burst);
}

void arena_put_sale(struct arena *arena, const struct model_sale *sale)
{
	struct sluice_stock *stock = &arena->gate.stock[sale->slot];

	arena->gate.sales[sale->slot] = (struct sluice_sale){.id = sale->id,
		.flags = sale->flags,
		.opens_wall = sale->opens,
		.ends_wall = sale->ends,
		.pace = {.interval_ns = sale->pace_interval, .tolerance_ns = sale->pace_tolerance},
		.per_buyer = sale->per_buyer,
		.not_before_s = sale->not_before_s};
	stock->free = sale->free;
	stock->pace_tat = sale->pace_tat;
	stock->taken = sale->taken;
	stock->wanted = sale->wanted;
}

void arena_put_key(struct arena *arena, unsigned slot, struct sluice_key key)
{
	arena->model.keys[slot] = key;
	arena->gate.keys[slot] = key;
}

/* --- lists ---------------------------------------------------------------------------------------------------------------- */
void arena_list_remove(struct arena *arena, unsigned index)
{
	struct model_listed *entry = &arena->model.listed[index];
	struct sluice_addr addr = model_addr_number(&entry->addr);

	lists_remove(arena->lists, entry->allow ? SLUICE_LIST_ALLOW : SLUICE_LIST_DENY, &addr, entry->bits);
	*entry = arena->model.listed[--arena->model.listed_count];
}

/* As if the deny entry had been hit before: the gate remembers whom it denies from so many hits on. */
static void list_make_busy(struct arena *arena, struct model_listed *busy)
{
	struct sluice_list_key key = {
		.addr = model_addr_number(&busy->addr), .list = SLUICE_LIST_DENY, .prefix_len = busy->bits};
	int fd = bpf_map__fd(arena->gate.skel->maps.lists);
	struct sluice_list_entry entry;

	if (bpf_map_lookup_elem(fd, &key, &entry))
		return;
	entry.hits = SLUICE_LIST_EXACT_HITS;
	bpf_map_update_elem(fd, &key, &entry, BPF_EXIST);
	model_list_estimate(&arena->model, busy);
}

/* Sources of a new entry may be remembered already, by what another one denied. */
static void list_join_busy(struct arena *arena, struct model_listed *entry)
{
	for (unsigned i = 0; i < arena->model.listed_count; i++) {
		const struct model_listed *other = &arena->model.listed[i];
		unsigned bits = other->bits < entry->bits ? other->bits : entry->bits;

		entry->estimated |= other->estimated && model_addr_covers(&other->addr, bits, &entry->addr);
	}
}

void arena_list_put(struct arena *arena, const struct model_listed *wanted)
{
	struct sluice_addr addr = model_addr_number(&wanted->addr);
	unsigned i = 0;

	while (i < arena->model.listed_count &&
		(arena->model.listed[i].bits != wanted->bits || arena->model.listed[i].allow != wanted->allow ||
			!model_addr_covers(&wanted->addr, wanted->bits, &arena->model.listed[i].addr)))
		i++;
	if (i == MODEL_LISTED)
		return;
	if (lists_put(arena->lists, wanted->allow ? SLUICE_LIST_ALLOW : SLUICE_LIST_DENY, &addr, wanted->bits,
		    wanted->expires, "model"))
		return;
	if (i < arena->model.listed_count) { /* hits are kept */
		arena->model.listed[i].expires = wanted->expires;
		return;
	}
	arena->model.listed[i] = *wanted;
	arena->model.listed_count++;
	if (wanted->estimated)
		list_make_busy(arena, &arena->model.listed[i]);
	else if (!wanted->allow)
		list_join_busy(arena, &arena->model.listed[i]);
}

static void step_list(struct arena *arena, struct dice *dice)
{
	struct model_listed entry = {.allow = dice_once_in(dice, 4)};
	struct sluice_addr addr;

	if (arena->model.listed_count && dice_once_in(dice, 4)) {
		arena_list_remove(arena, dice_below(dice, arena->model.listed_count));
		return;
	}
	if (addr_parse(arena_source(dice_below(dice, SEQUENCE_FLOWS)), &addr))
		return;
	if (dice_once_in(dice, 10))
		addr.lo ^= 1ULL << dice_below(dice, 32);
	entry.addr = model_addr_of(&addr);
	entry.bits = model_addr_is_ip4(&entry.addr) ? 97 + dice_below(dice, 32) : 1 + dice_below(dice, 128);
	if (dice_once_in(dice, 2))
		entry.bits = dice_once_in(dice, 2) ? 128 : model_addr_is_ip4(&entry.addr) ? 120 : 64;
	for (unsigned bit = entry.bits; bit < 128; bit++)
		entry.addr.byte[bit / 8] &= ~(0x80 >> bit % 8);
	if (dice_once_in(dice, 2))
		entry.expires = arena_wall_of(arena) + dice_below(dice, 100) * SECOND_NS - 20 * SECOND_NS;
	entry.estimated = !entry.allow && dice_once_in(dice, 4);
	arena_list_put(arena, &entry);
}

static void unmute(struct arena *arena)
{
	for (unsigned set = 0; set < arena->gate.rate_sets; set++)
		for (int way = 0; way < SLUICE_RATE_WAYS; way++)
			arena->gate.rates[set].way[way].muted_until = 0;
	for (uint64_t i = 0; i < arena->model.bucket_count; i++)
		arena->model.buckets[i].muted_at = 0;
}

/* --- what an operator does ------------------------------------------------------------------------------------------------ */
static void step_limit(struct arena *arena, struct dice *dice)
{
	static const uint64_t intervals[] = {0, 1, 1000, 1000000, SECOND_NS, 7 * SECOND_NS, HOUR_NS, 20000 * SECOND_NS};
	unsigned id = dice_below(dice, SLUICE_LIMIT_COUNT);

	arena_put_limit(
		arena, id, intervals[dice_below(dice, 8)], 1 + dice_below(dice, dice_once_in(dice, 4) ? 1000000 : 4));
	if (dice_once_in(dice, 6)) {
		arena->model.shadow_limit[dice_below(dice, SLUICE_LIMIT_COUNT)] ^= true;
		arena_put_control(arena);
	}
}

static void step_sale(struct arena *arena, struct dice *dice)
{
	static const uint64_t paces[] = {0, 1, 1000000, SECOND_NS, 20 * SECOND_NS};
	unsigned index = dice_once_in(dice, 4);
	struct model_sale *sale = &arena->model.sales[index];
	uint64_t wall = arena_wall_of(arena);

	switch (dice_below(dice, 11)) {
	case 0:
		sale->flags = dice_below(dice, 2) ? 1u << dice_below(dice, 5) : dice_below(dice, 32);
		break;
	case 7:
		sale->flags ^= SLUICE_SALE_MORE;
		break;
	case 8:
		sale->flags ^= SLUICE_SALE_WITHHELD;
		break;
	case 1:
		sale->opens = dice_once_in(dice, 3) ? wall + dice_below(dice, 20000) * SECOND_NS : 0;
		break;
	case 2:
		sale->ends = wall + dice_below(dice, 100) * SECOND_NS - SECOND_NS;
		break;
	case 3:
		sale->per_buyer = dice_below(dice, 6);
		break;
	case 4:
		sale->pace_interval = paces[dice_below(dice, 5)];
		sale->pace_tolerance = dice_below(dice, 3) * sale->pace_interval;
		break;
	case 5:
		sale->id = dice_once_in(dice, 4) ? 0 : sale->slot + dice_below(dice, 2) * SLUICE_MAX_SALES;
		break;
	case 6:
		sale->not_before_s = dice_once_in(dice, 2) ? 0 : ARENA_START_S - dice_below(dice, 20);
		break;
	default: /* open again */
		sale->id = sale->slot;
		sale->flags = 0;
		sale->opens = 0;
		sale->ends = wall + HOUR_NS;
		sale->per_buyer = 1 + dice_below(dice, 4);
		break;
	}
	arena_put_sale(arena, sale);
}

static void step_stock(struct arena *arena, struct dice *dice)
{
	unsigned index = dice_once_in(dice, 4);
	struct model_sale *sale = &arena->model.sales[index];
	uint64_t before = sale->free;

	if (dice_once_in(dice, 3))
		sale->free = dice_below(dice, 4);
	else
		sale->free += dice_below(dice, 60);
	arena->put_in[index] += sale->free - before;
	arena_put_sale(arena, sale);
}

void arena_open_sale(struct arena *arena, unsigned index)
{
	struct model_sale *sale = &arena->model.sales[index];

	sale->id = sale->slot;
	sale->flags = sale->opens = sale->not_before_s = 0;
	sale->ends = arena_wall_of(arena) + HOUR_NS;
	sale->per_buyer = 4;
	arena_put_sale(arena, sale);
	if (arena->model.node > 1) { /* most tokens are of node 1 */
		arena->model.node = 1;
		arena_put_control(arena);
	}
	arena_put_key(arena, 1,
		(struct sluice_key){.k0 = 0x0706050403020100ULL, .k1 = 0x0f0e0d0c0b0a0908ULL, .id = 1, .valid = 1});
}

static void step_plenty(struct arena *arena, struct dice *dice)
{
	unsigned index = dice_once_in(dice, 4);
	struct model_sale *sale = &arena->model.sales[index];

	arena_open_sale(arena, index);
	arena->put_in[index] += PLENTY - sale->free;
	sale->free = PLENTY;
	arena_put_sale(arena, sale);
}

static void step_control(struct arena *arena, struct dice *dice)
{
	struct model *model = &arena->model;

	switch (dice_below(dice, 10)) {
	case 0:
		model->orders_open = !dice_once_in(dice, 3);
		break;
	case 1:
		model->deny_all = dice_below(dice, 2);
		break;
	case 2:
		model->grows_head = dice_below(dice, 2);
		model->grows_tail = dice_below(dice, 2);
		break;
	case 3:
		model->backlog_max = dice_once_in(dice, 2) ? 0 : model->in_flight + dice_below(dice, 4);
		break;
	case 4:
		model->banks = dice_once_in(dice, 2) ? 0 : dice_word(dice);
		break;
	case 5:
		model->mss4 = 500 + dice_below(dice, 9000);
		model->mss6 = 1220 + dice_below(dice, 8000);
		break;
	case 6:
		model->shadow_all = dice_once_in(dice, 2);
		break;
	case 7:
		model->shadow_deny = dice_below(dice, 2);
		model->shadow_pace = dice_below(dice, 2);
		break;
	case 9:
		model->node = (const uint32_t[]){0, 1, 1, 2, 300}[dice_below(dice, 5)];
		break;
	case 8: /* back to where it works */
		model->orders_open = model->grows_head = model->grows_tail = true;
		model->deny_all = model->shadow_all = false;
		model->backlog_max = 0;
		break;
	}
	arena_put_control(arena);
}

static void step_heartbeat(struct arena *arena, struct dice *dice)
{
	uint64_t now = time_mono_ns();
	const uint64_t beats[] = {
		now + 3 * HOUR_NS, now + 3 * HOUR_NS, now + HOUR_NS, now, now - SECOND_NS, now - 3 * SECOND_NS, 0};

	arena->model.heartbeat = beats[dice_below(dice, 7)];
	arena_put_control(arena);
}

static void step_key(struct arena *arena, struct dice *dice)
{
	struct sluice_key key = {.k0 = dice_below(dice, 2) ? 11 : 0x0706050403020100ULL,
		.k1 = dice_below(dice, 2) ? 12 : 0x0f0e0d0c0b0a0908ULL,
		.id = dice_below(dice, 4),
		.valid = !dice_once_in(dice, 4)};

	arena_put_key(arena, key.id & 1, key);
}

static uint32_t sum_of(const uint8_t *bytes, unsigned length)
{
	uint32_t sum = 0;

	for (unsigned i = 0; i < length; i += 2)
		sum += bytes[i] << 8 | bytes[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Any bytes of any even length, or none, or of a length that cannot be. */
static void make_answer(struct dice *dice, bool waits, bool has_token, struct sluice_answer_bytes *answer)
{
	memset(answer, 0, sizeof(*answer));
	answer->len = 2 * (40 + dice_below(dice, 461));
	for (unsigned i = 0; i < answer->len; i++)
		answer->bytes[i] = dice_word(dice);
	if (has_token) {
		unsigned room = answer->len < SLUICE_ANSWER_SHORT_MAX ? answer->len : SLUICE_ANSWER_SHORT_MAX;

		answer->token_at = 2 * (1 + dice_below(dice, (room - SLUICE_TOKEN_TEXT) / 2));
		memset(answer->bytes + answer->token_at, 0, SLUICE_TOKEN_TEXT);
	}
	if (waits) {
		answer->retry_at = 2 * (1 + dice_below(dice, answer->len / 2 - 2));
		memcpy(answer->bytes + answer->retry_at, "0000", 4);
	}
	answer->short_len = 2 * (8 + dice_below(dice, SLUICE_ANSWER_SHORT_MAX / 2 - 7));
	if (has_token && answer->short_len < answer->token_at + SLUICE_TOKEN_TEXT)
		answer->short_len = answer->token_at + SLUICE_TOKEN_TEXT;
	memset(answer->short_bytes, 's', answer->short_len);
	if (has_token)
		memset(answer->short_bytes + answer->token_at, 0, SLUICE_TOKEN_TEXT);
	answer->sum = sum_of(answer->bytes, answer->len);
	answer->short_sum = sum_of(answer->short_bytes, answer->short_len);
	if (dice_once_in(dice, 12))
		answer->len = dice_once_in(dice, 2) ? 0 : SLUICE_ANSWER_MAX + 2;
}

/* An operator's answer in the second bank; for tokens of other nodes, one with an address too. */
static void step_answer(struct arena *arena, struct dice *dice)
{
	unsigned code = 1 + dice_below(dice, SLUICE_ANSWER_COUNT - 1), row = SLUICE_ANSWER_COUNT + code;
	struct sluice_answer_bytes *answer = &arena->model.answers[1][code];

	make_answer(dice, model_answer_waits(code), false, answer);
	if (code == SLUICE_ANSWER_WRONG_NODE) {
		unsigned node = dice_below(dice, MODEL_HOMES), place = SLUICE_HOMES + node;

		make_answer(dice, false, !dice_once_in(dice, 8), &arena->model.homes[1][node]);
		bpf_map_update_elem(bpf_map__fd(arena->gate.skel->maps.homes), &place, &arena->model.homes[1][node], 0);
	}
	arena->dirty_answers[code] = true;
	bpf_map_update_elem(bpf_map__fd(arena->gate.skel->maps.answers), &row, answer, 0);
	arena->model.banks |= 1u << code;
	arena_put_control(arena);
}

/* --- orders --------------------------------------------------------------------------------------------------------------- */
static void step_durable(struct arena *arena)
{
	if (!arena->model.in_flight)
		return;
	arena->model.in_flight--;
	__atomic_fetch_sub(&arena->gate.control->in_flight, 1, __ATOMIC_SEQ_CST);
}

static void put_admission(struct arena *arena, const struct model_admission *from)
{
	struct sluice_admission admission = arena_admission(from);
	__u64 serial = from->serial;

	bpf_map_update_elem(bpf_map__fd(arena->gate.skel->maps.admissions), &serial, &admission, 0);
}

/* The record of an order that is long over goes; units of a buyer come back; a token is revoked; a judge died over its claim. */
static void step_forget(struct arena *arena, struct dice *dice)
{
	struct model *model = &arena->model;
	int admissions = bpf_map__fd(arena->gate.skel->maps.admissions),
	    buyers = bpf_map__fd(arena->gate.skel->maps.buyers);
	unsigned choice = dice_below(dice, 6);

	if (choice < 2 && model->admission_count) {
		struct model_admission *gone = &model->admissions[dice_below(dice, model->admission_count)];
		__u64 serial = gone->serial;

		bpf_map_delete_elem(admissions, &serial);
		*gone = model->admissions[--model->admission_count];
	} else if (choice < 4 && model->buyer_count) {
		struct model_buyer *buyer = &model->buyers[dice_below(dice, model->buyer_count)];
		struct sluice_buyer_key key = {.buyer = buyer->buyer, .sale = buyer->sale};
		struct sluice_buyer units = {0};

		if (choice == 2 && buyer->units) {
			units.units = --buyer->units;
			bpf_map_update_elem(buyers, &key, &units, 0);
		} else {
			bpf_map_delete_elem(buyers, &key);
			*buyer = model->buyers[--model->buyer_count];
		}
	} else if (choice >= 4 && model->admission_count < model->admissions_max) {
		uint64_t serial = 1000 + dice_below(dice, SEQUENCE_TOKENS);
		struct model_admission entry = {.serial = serial,
			.inner_serial = dice_once_in(dice, 4) ? serial + 1 : serial,
			.buyer = 1,
			.sale = GATE_SALE,
			.state = choice == 4 ? SLUICE_ADMISSION_REVOKED : SLUICE_ADMISSION_CLAIMED};

		if (model_admission_find(model, serial))
			return;
		model->admissions[model->admission_count++] = entry;
		put_admission(arena, &entry);
	}
}

bool arena_world(struct arena *arena, const struct step *step)
{
	struct dice dice = dice_of(step->seed);

	switch (step->kind) {
	case STEP_TIME:
		arena_time(arena, &dice);
		break;
	case STEP_CLOCK:
		arena->model.wall_offset += dice_below(&dice, 100) * SECOND_NS - 50 * SECOND_NS;
		arena_put_control(arena);
		break;
	case STEP_HEARTBEAT:
		step_heartbeat(arena, &dice);
		break;
	case STEP_LIMIT:
		step_limit(arena, &dice);
		break;
	case STEP_SALE:
		step_sale(arena, &dice);
		break;
	case STEP_STOCK:
		step_stock(arena, &dice);
		break;
	case STEP_PLENTY:
		step_plenty(arena, &dice);
		break;
	case STEP_CONTROL:
		step_control(arena, &dice);
		break;
	case STEP_LOOK:
		arena->model.shadow_all = !arena->model.shadow_all;
		arena_put_control(arena);
		break;
	case STEP_DURABLE:
		step_durable(arena);
		break;
	case STEP_KEY:
		step_key(arena, &dice);
		break;
	case STEP_LIST:
		step_list(arena, &dice);
		break;
	case STEP_ANSWER:
		step_answer(arena, &dice);
		break;
	case STEP_DRAIN:
		return arena_drain(arena);
	case STEP_FORGET:
		step_forget(arena, &dice);
		break;
	case STEP_UNMUTE:
		unmute(arena);
		break;
	case STEP_COOKIES:
		arena_cookies(arena, &dice);
		break;
	case STEP_RATE_SETS:
		if (!arena->model.bucket_count) {
			arena->model.rate_mask = (1u << dice_below(&dice, 7)) - 1;
			arena_put_control(arena);
		}
		break;
	default:
		break;
	}
	return true;
}
