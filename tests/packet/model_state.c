/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The whole state of the gate against the whole state of the model: after each sequence nothing may differ, and nothing may be there that
 * the model does not know of.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "common/maps.h"
#include "gate.skel.h"
#include "model_run.h"

#define CPUS_MAX 256
#define SCAN_EVERY 512 /* sequences between two looks at all slots of "recent" */

static void die(const char *what)
{
	fprintf(stderr, "cannot compare with the model: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* --- single words --------------------------------------------------------------------------------------------------------- */
struct sluice_rate *arena_bucket(struct arena *arena, uint64_t name)
{
	struct sluice_rate_set *set = &arena->gate.rates[name & arena->model.rate_mask];

	for (int way = 0; way < SLUICE_RATE_WAYS; way++)
		if (set->way[way].name == name)
			return &set->way[way];
	return NULL;
}

static bool lies_in(const uint64_t *word, const void *array, size_t size)
{
	return (const char *)word >= (const char *)array && (const char *)word < (const char *)array + size;
}

static bool prefix_tat(struct arena *arena, const struct model_prefix *prefix, uint64_t *tat)
{
	for (unsigned i = 0; i < arena->slot_count; i++)
		if (!memcmp(&arena->slots[i].prefix, &prefix->addr, sizeof(prefix->addr)))
			return !bpf_map_lookup_elem(
				bpf_map__fd(arena->gate.skel->maps.syn_budget), &arena->slots[i].slot, tat);
	return false;
}

static uint64_t shadow_count(struct arena *arena, unsigned reason)
{
	__u64 values[CPUS_MAX], sum = 0;
	int cpus = libbpf_num_possible_cpus();

	if (cpus > CPUS_MAX || bpf_map_lookup_elem(bpf_map__fd(arena->gate.skel->maps.shadow), &reason, values))
		die("shadow");
	for (int cpu = 0; cpu < cpus; cpu++)
		sum += values[cpu];
	return sum;
}

static bool list_entry(struct arena *arena, const struct model_listed *listed, struct sluice_list_entry *entry)
{
	struct sluice_list_key key = {.addr = model_addr_number(&listed->addr),
		.list = listed->allow ? SLUICE_LIST_ALLOW : SLUICE_LIST_DENY,
		.prefix_len = listed->bits};

	return !bpf_map_lookup_elem(bpf_map__fd(arena->gate.skel->maps.lists), &key, entry);
}

uint64_t arena_word(struct arena *arena, const uint64_t *word, bool *found)
{
	struct model *model = &arena->model;
	struct sluice_admission admission;
	struct sluice_rate *rate;
	uint64_t tat = 0;

	*found = true;
	if (word == &model->syn_global_tat)
		return arena->gate.control->syn_global_tat;
	if (lies_in(word, model->shadowed, sizeof(model->shadowed)))
		return shadow_count(arena, word - model->shadowed);
	if (lies_in(word, model->buckets, sizeof(model->buckets))) {
		const struct model_bucket *bucket =
			&model->buckets[((const char *)word - (const char *)model->buckets) / sizeof(*bucket)];

		rate = arena_bucket(arena, bucket->name);
		*found = rate != NULL;
		return !rate                           ? 0
			: word == &bucket->tat         ? rate->tat
			: word == &bucket->answer_tat  ? rate->answer_tat
			: word == &bucket->muted_until ? rate->muted_until
						       : rate->verdicts;
	}
	if (lies_in(word, model->sales, sizeof(model->sales))) {
		const struct model_sale *sale =
			&model->sales[((const char *)word - (const char *)model->sales) / sizeof(*sale)];

		return arena->gate.stock[sale->slot].pace_tat;
	}
	if (lies_in(word, model->recent, sizeof(model->recent))) {
		const struct model_recent *recent =
			&model->recent[((const char *)word - (const char *)model->recent) / sizeof(*recent)];

		return arena->gate.recent[recent->slot] % MODEL_RECENT_TICKS;
	}
	if (lies_in(word, model->prefixes, sizeof(model->prefixes))) {
		const struct model_prefix *prefix =
			&model->prefixes[((const char *)word - (const char *)model->prefixes) / sizeof(*prefix)];

		*found = prefix_tat(arena, prefix, &tat);
		return tat;
	}
	if (lies_in(word, model->listed, sizeof(model->listed))) {
		struct sluice_list_entry entry;
		const struct model_listed *listed =
			&model->listed[((const char *)word - (const char *)model->listed) / sizeof(*listed)];

		*found = list_entry(arena, listed, &entry);
		return *found ? entry.hits : 0;
	}
	if (lies_in(word, model->admissions, sizeof(model->admissions))) {
		const struct model_admission *entry =
			&model->admissions[((const char *)word - (const char *)model->admissions) / sizeof(*entry)];
		__u64 serial = entry->serial;

		*found = !bpf_map_lookup_elem(bpf_map__fd(arena->gate.skel->maps.admissions), &serial, &admission);
		return *found ? admission.admitted_wall : 0;
	}
	*found = false;
	return 0;
}

const char *arena_word_name(const struct arena *arena, const uint64_t *word)
{
	const struct model *model = &arena->model;

	if (lies_in(word, model->buckets, sizeof(model->buckets))) {
		const struct model_bucket *bucket =
			&model->buckets[((const char *)word - (const char *)model->buckets) / sizeof(*bucket)];

		return word == &bucket->tat            ? "a bucket's time"
			: word == &bucket->answer_tat  ? "a bucket's time of answers"
			: word == &bucket->muted_until ? "a bucket's mute"
						       : "a bucket's last verdicts";
	}
	return lies_in(word, model->sales, sizeof(model->sales))              ? "the time of a sale's pace"
		: lies_in(word, model->recent, sizeof(model->recent))         ? "the time of a first segment"
		: lies_in(word, model->prefixes, sizeof(model->prefixes))     ? "the time of a prefix's SYNs"
		: lies_in(word, model->listed, sizeof(model->listed))         ? "the hits of a list entry"
		: lies_in(word, model->admissions, sizeof(model->admissions)) ? "the time of an admission"
		: lies_in(word, model->shadowed, sizeof(model->shadowed))     ? "a count of map shadow"
									      : "the time of all SYNs";
}

/* --- the ring ------------------------------------------------------------------------------------------------------------- */
struct sluice_admission arena_admission(const struct model_admission *from)
{
	return (struct sluice_admission){.serial = from->inner_serial,
		.buyer = from->buyer,
		.source = {.hi = from->source_hi, .lo = from->source_lo},
		.admitted_wall = from->admitted_wall,
		.sale = from->sale,
		.state = from->state,
		.expires_at_s = from->expires_at_s,
		.network = from->network,
		.quantity = from->quantity,
		.door = from->door,
		.service = from->service};
}

void arena_expect_record(struct arena *arena, const struct model_admission *from)
{
	if (arena->expected_count < MODEL_ADMISSIONS)
		arena->expected[arena->expected_count++] =
			(struct sluice_admitted){.serial = from->serial, .admission = arena_admission(from)};
}

bool arena_drain(struct arena *arena)
{
	unsigned wanted = arena->expected_count;

	arena->drained = 0;
	if (ring_buffer__consume(arena->ring) < 0)
		die("the ring");
	arena->expected_count = 0;
	arena->model.ring_used = 0;
	if (arena->drained != wanted)
		return arena_wrong(arena, "%u records on the ring, not %u", arena->drained, wanted);
	for (unsigned i = 0; i < wanted; i++)
		if (memcmp(&arena->expected[i], &arena->drained_records[i], sizeof(arena->expected[i])) != 0)
			return arena_wrong(arena, "record %u of %u on the ring is another", i, wanted);
	return true;
}

/* --- everything ----------------------------------------------------------------------------------------------------------- */
static bool compare_orders(struct arena *arena)
{
	struct model *model = &arena->model;
	int admissions = bpf_map__fd(arena->gate.skel->maps.admissions),
	    buyers = bpf_map__fd(arena->gate.skel->maps.buyers);
	unsigned count = gate_map_count(admissions, sizeof(__u64));

	if (count != model->admission_count)
		return arena_wrong(arena, "%u admissions, not %llu", count, (unsigned long long)model->admission_count);
	for (uint64_t i = 0; i < model->admission_count; i++) {
		struct sluice_admission wanted = arena_admission(&model->admissions[i]), got;
		__u64 serial = model->admissions[i].serial;

		if (bpf_map_lookup_elem(admissions, &serial, &got) || memcmp(&got, &wanted, sizeof(got)) != 0)
			return arena_wrong(arena, "admission %llu is another", (unsigned long long)serial);
	}
	count = gate_map_count(buyers, sizeof(struct sluice_buyer_key));
	if (count != model->buyer_count)
		return arena_wrong(arena, "%u buyers, not %llu", count, (unsigned long long)model->buyer_count);
	for (uint64_t i = 0; i < model->buyer_count; i++) {
		struct sluice_buyer_key key = {.buyer = model->buyers[i].buyer, .sale = model->buyers[i].sale};
		struct sluice_buyer got;

		if (bpf_map_lookup_elem(buyers, &key, &got) || got.units != model->buyers[i].units || got.pad)
			return arena_wrong(arena, "buyer %llu of sale %u has not %llu units",
				(unsigned long long)key.buyer, key.sale, (unsigned long long)model->buyers[i].units);
	}
	return true;
}

static bool compare_stock(struct arena *arena)
{
	for (uint64_t i = 0; i < arena->model.sale_count; i++) {
		const struct model_sale *sale = &arena->model.sales[i];
		const struct sluice_stock *stock = &arena->gate.stock[sale->slot];

		if (stock->free != sale->free || stock->taken != sale->taken || stock->wanted != sale->wanted ||
			stock->pace_tat != sale->pace_tat)
			return arena_wrong(arena,
				"sale %llu: free %llu, taken %llu, wanted %llu; not %llu, %llu, %llu, or another pace",
				(unsigned long long)sale->slot, (unsigned long long)stock->free,
				(unsigned long long)stock->taken, (unsigned long long)stock->wanted,
				(unsigned long long)sale->free, (unsigned long long)sale->taken,
				(unsigned long long)sale->wanted);
		/* This one does not come from the model at all. */
		if (stock->free + stock->taken != arena->put_in[i])
			return arena_wrong(arena, "sale %llu: put in %llu, free %llu, taken %llu",
				(unsigned long long)sale->slot, (unsigned long long)arena->put_in[i],
				(unsigned long long)stock->free, (unsigned long long)stock->taken);
	}
	if (arena->gate.control->in_flight != arena->model.in_flight)
		return arena_wrong(arena, "%llu in flight, not %llu",
			(unsigned long long)arena->gate.control->in_flight, (unsigned long long)arena->model.in_flight);
	return true;
}

static bool compare_rates(struct arena *arena)
{
	const struct model *model = &arena->model;
	unsigned kept = gate_rates_kept(&arena->gate);

	if (kept != model->bucket_count)
		return arena_wrong(arena, "%u buckets, not %llu", kept, (unsigned long long)model->bucket_count);
	for (uint64_t i = 0; i < model->bucket_count; i++) {
		const struct model_bucket *wanted = &model->buckets[i];
		const struct sluice_rate *got = arena_bucket(arena, wanted->name);

		if (!got)
			return arena_wrong(
				arena, "bucket %llu is in no place where it is looked for", (unsigned long long)i);
		if (got->tat != wanted->tat || got->answer_tat != wanted->answer_tat ||
			got->verdicts != wanted->verdicts || (got->muted_until != 0) != (wanted->muted_at != 0))
			return arena_wrong(arena,
				"bucket %llu: time %llu, of answers %llu, verdicts %08x, muted until %u; not %llu, %llu, %08x, %d",
				(unsigned long long)i, (unsigned long long)got->tat,
				(unsigned long long)got->answer_tat, got->verdicts, got->muted_until,
				(unsigned long long)wanted->tat, (unsigned long long)wanted->answer_tat,
				(unsigned)wanted->verdicts, wanted->muted_at != 0);
	}
	if (arena->gate.control->syn_global_tat != model->syn_global_tat)
		return arena_wrong(arena, "another time of the global SYN budget");
	for (uint64_t i = 0; i < model->prefix_count; i++) {
		uint64_t tat;

		if (!prefix_tat(arena, &model->prefixes[i], &tat) || tat != model->prefixes[i].tat)
			return arena_wrong(arena, "another time of a prefix's SYN budget");
	}
	return true;
}

static bool compare_recent(struct arena *arena)
{
	static unsigned scans;
	const struct model *model = &arena->model;
	uint64_t kept = 0, known = 0;

	for (uint64_t i = 0; i < model->recent_count; i++) {
		const struct model_recent *wanted = &model->recent[i];
		uint64_t word = wanted->mark << 41 | wanted->answered << 40 | wanted->acknowledged << 24 | wanted->at;

		if (arena->gate.recent[wanted->slot] != word)
			return arena_wrong(arena, "what became of a first segment: %016llx, not %016llx",
				(unsigned long long)arena->gate.recent[wanted->slot], (unsigned long long)word);
		known += word != 0;
	}
	if (scans++ % SCAN_EVERY)
		return true;
	for (unsigned i = 0; i < SLUICE_RECENT_SLOTS; i++)
		kept += arena->gate.recent[i] != 0;
	if (kept != known)
		return arena_wrong(arena, "%llu connections are remembered, not %llu", (unsigned long long)kept,
			(unsigned long long)known);
	return true;
}

static bool compare_lists(struct arena *arena)
{
	for (unsigned i = 0; i < arena->model.listed_count; i++) {
		const struct model_listed *wanted = &arena->model.listed[i];
		struct sluice_list_entry got;

		if (!list_entry(arena, wanted, &got) || (!wanted->estimated && got.hits != wanted->hits))
			return arena_wrong(arena, "list entry %u (length %u): %llu hits, not %llu", i, wanted->bits,
				(unsigned long long)got.hits, (unsigned long long)wanted->hits);
	}
	return true;
}

bool arena_compare_state(struct arena *arena)
{
	return compare_orders(arena) && compare_stock(arena) && compare_rates(arena) && compare_recent(arena) &&
		compare_lists(arena) && arena_drain(arena);
}

/* --- counters ------------------------------------------------------------------------------------------------------------- */
struct tallies {
	uint64_t packets[ARENA_ROWS], bytes[ARENA_ROWS], calls[SLUICE_REASON_ROWS], shadowed[SLUICE_REASON_ROWS];
};

static void read_counters(struct arena *arena, struct tallies *out)
{
	static struct sluice_counter *values;
	static __u64 *words;
	static __u32 rows[ARENA_ROWS];
	int cpus = libbpf_num_possible_cpus();
	__u32 count = ARENA_ROWS, next;
	LIBBPF_OPTS(bpf_map_batch_opts, opts);
	const int fds[] = {bpf_map__fd(arena->gate.skel->maps.calls), bpf_map__fd(arena->gate.skel->maps.shadow)};

	if (!values)
		values = calloc((size_t)ARENA_ROWS * cpus, sizeof(*values));
	if (!words)
		words = calloc((size_t)SLUICE_REASON_ROWS * cpus, sizeof(*words));
	memset(out, 0, sizeof(*out));
	if (!values || !words ||
		(bpf_map_lookup_batch(
			 bpf_map__fd(arena->gate.skel->maps.counters), NULL, &next, rows, values, &count, &opts) &&
			errno != ENOENT))
		die("counters");
	for (__u32 i = 0; i < count; i++) {
		for (int cpu = 0; cpu < cpus; cpu++) {
			out->packets[rows[i]] += values[i * cpus + cpu].packets;
			out->bytes[rows[i]] += values[i * cpus + cpu].bytes;
		}
	}
	for (int map = 0; map < 2; map++) {
		count = SLUICE_REASON_ROWS;
		if (bpf_map_lookup_batch(fds[map], NULL, &next, rows, words, &count, &opts) && errno != ENOENT)
			die("calls and shadow");
		for (__u32 i = 0; i < count; i++)
			for (int cpu = 0; cpu < cpus; cpu++)
				(map ? out->shadowed : out->calls)[rows[i]] += words[i * cpus + cpu];
	}
}

uint64_t arena_counted(struct arena *arena, unsigned row)
{
	struct sluice_counter values[CPUS_MAX];
	int cpus = libbpf_num_possible_cpus();
	uint64_t sum = 0;

	if (cpus > CPUS_MAX || bpf_map_lookup_elem(bpf_map__fd(arena->gate.skel->maps.counters), &row, values))
		die("a counter");
	for (int cpu = 0; cpu < cpus; cpu++)
		sum += values[cpu].packets;
	return sum;
}

void arena_count_all(struct arena *arena)
{
	static struct tallies now;

	read_counters(arena, &now);
	memcpy(arena->packets, now.packets, sizeof(now.packets));
	memcpy(arena->bytes, now.bytes, sizeof(now.bytes));
	memcpy(arena->calls, now.calls, sizeof(now.calls));
	for (int reason = 0; reason < SLUICE_REASON_COUNT; reason++)
		arena->model.shadowed[reason] = now.shadowed[reason];
}

bool arena_compare_counters(struct arena *arena)
{
	static struct tallies now;

	read_counters(arena, &now);
	for (int row = 0; row < ARENA_ROWS; row++) {
		int reason = row % SLUICE_REASON_ROWS, service = row / SLUICE_REASON_ROWS;

		if (now.packets[row] != arena->packets[row] || now.bytes[row] != arena->bytes[row])
			return arena_wrong(arena, "service %d, %s: %lld packets and %lld bytes too many", service,
				reason_label(reason), (long long)(now.packets[row] - arena->packets[row]),
				(long long)(now.bytes[row] - arena->bytes[row]));
	}
	for (int reason = 0; reason < SLUICE_REASON_COUNT; reason++) {
		if (now.calls[reason] != arena->calls[reason])
			return arena_wrong(arena, "calls, %s: %lld too many", reason_label(reason),
				(long long)(now.calls[reason] - arena->calls[reason]));
		if (now.shadowed[reason] != arena->model.shadowed[reason])
			return arena_wrong(arena, "shadow, %s: %lld too many", reason_label(reason),
				(long long)(now.shadowed[reason] - arena->model.shadowed[reason]));
	}
	return true;
}
