/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The registry of sales and the words of the gate that belong to them. Filled by recovery.c from the ledger, changed by the
 * pipeline's thread when the ledger has said yes, read by everybody.
 *
 * Promises: a sale that was learned is never forgotten while the daemon runs, so its counts may be pointed to; each word of the gate
 * is one atomic store, and SLUICE_SALE_CLOSED stands around a change of more than one; a slot's stock is there before its id. The flags of a fleet's
 * leases, the mark of what was swept and the second before which tokens are revoked are the registry's: they are set by other threads than all else, and who
 * writes a slot holds the lock.
 */
#include "daemon/sales.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 1024
/* A sale's pace may run ahead by what it admits in this time; without it, a pace would always stay a little below its figure. */
#define PACE_BURST_NS 100000000ULL
#define NS_PER_S 1000000000ULL

struct entry {
	struct sale sale;
	struct sale_counts counts;
	struct entry *next_slug, *next_id;
	uint64_t read; /* the reading of the ledger that had it last */
};

struct sales {
	struct gate_maps *maps;
	pthread_rwlock_t lock;
	bool start_withheld;
	uint64_t reading;
	struct entry **all;
	unsigned count, capacity;
	struct entry *by_slug[BUCKETS], *by_id[BUCKETS];
};

struct sales *sales_new(struct gate_maps *maps)
{
	struct sales *sales = calloc(1, sizeof(*sales));

	if (!sales)
		return NULL;
	sales->maps = maps;
	pthread_rwlock_init(&sales->lock, NULL);
	return sales;
}

void sales_start_withheld(struct sales *sales)
{
	sales->start_withheld = true;
}

void sales_free(struct sales *sales)
{
	if (!sales)
		return;
	for (unsigned i = 0; i < sales->count; i++)
		free(sales->all[i]);
	free(sales->all);
	pthread_rwlock_destroy(&sales->lock);
	free(sales);
}

bool sales_slug_is_valid(const char *slug)
{
	size_t length = strlen(slug);

	if (!length || length > SALE_SLUG_MAX || slug[0] == '-' || slug[length - 1] == '-')
		return false;
	return strspn(slug, "abcdefghijklmnopqrstuvwxyz0123456789-") == length;
}

static unsigned slug_bucket(const char *slug)
{
	unsigned hash = 2166136261u; /* FNV-1a */

	for (; *slug; slug++)
		hash = (hash ^ (unsigned char)*slug) * 16777619u;
	return hash % BUCKETS;
}

static struct entry *find_slug(struct sales *sales, const char *slug)
{
	struct entry *entry = sales->by_slug[slug_bucket(slug)];

	while (entry && strcmp(entry->sale.slug, slug) != 0)
		entry = entry->next_slug;
	return entry;
}

static struct entry *find_id(struct sales *sales, uint32_t id)
{
	struct entry *entry = sales->by_id[id % BUCKETS];

	while (entry && entry->sale.id != id)
		entry = entry->next_id;
	return entry;
}

static int copy_out(struct entry *entry, struct sale *sale)
{
	if (!entry)
		return -ENOENT;
	*sale = entry->sale;
	return 0;
}

int sales_find(struct sales *sales, const char *slug, struct sale *sale)
{
	int err;

	pthread_rwlock_rdlock(&sales->lock);
	err = copy_out(find_slug(sales, slug), sale);
	pthread_rwlock_unlock(&sales->lock);
	return err;
}

int sales_find_id(struct sales *sales, uint32_t id, struct sale *sale)
{
	int err;

	pthread_rwlock_rdlock(&sales->lock);
	err = copy_out(find_id(sales, id), sale);
	pthread_rwlock_unlock(&sales->lock);
	return err;
}

struct sale_counts *sales_counts(struct sales *sales, uint32_t id)
{
	struct entry *entry;

	pthread_rwlock_rdlock(&sales->lock);
	entry = find_id(sales, id);
	pthread_rwlock_unlock(&sales->lock);
	return entry ? &entry->counts : NULL;
}

int sales_at(struct sales *sales, unsigned index, struct sale *sale)
{
	int err;

	pthread_rwlock_rdlock(&sales->lock);
	err = copy_out(index < sales->count ? sales->all[index] : NULL, sale);
	pthread_rwlock_unlock(&sales->lock);
	return err;
}

unsigned sales_count(struct sales *sales)
{
	unsigned count;

	pthread_rwlock_rdlock(&sales->lock);
	count = sales->count;
	pthread_rwlock_unlock(&sales->lock);
	return count;
}

static struct sluice_sale *slot_of(struct sales *sales, uint32_t id)
{
	return &sales->maps->sales[id % SLUICE_MAX_SALES];
}

static struct sluice_stock *stock_of(struct sales *sales, uint32_t id)
{
	return &sales->maps->stock[id % SLUICE_MAX_SALES];
}

static uint32_t slot_id(const struct sluice_sale *slot)
{
	return __atomic_load_n(&slot->id, __ATOMIC_ACQUIRE);
}

/* A slot may be taken over when nothing of its sale can come back: it is over, every token has expired, every order is durable. */
static bool slot_is_reusable(struct sales *sales, uint32_t id, uint64_t wall_ns)
{
	uint32_t owner = slot_id(slot_of(sales, id));
	struct entry *entry;

	if (!owner)
		return true;
	entry = find_id(sales, owner);
	return entry && wall_ns > entry->sale.ends_ns && !atomic_load(&entry->counts.live_tokens) &&
		!atomic_load(&entry->counts.pending) && !atomic_load(&entry->counts.moving);
}

static uint32_t highest_id(const struct sales *sales)
{
	uint32_t last = 0;

	for (unsigned i = 0; i < sales->count; i++)
		if (sales->all[i]->sale.id > last)
			last = sales->all[i]->sale.id;
	return last;
}

bool sales_slot_is_free(struct sales *sales, uint32_t id, uint64_t wall_ns)
{
	bool is_free;

	pthread_rwlock_rdlock(&sales->lock);
	is_free = slot_is_reusable(sales, id, wall_ns);
	pthread_rwlock_unlock(&sales->lock);
	return is_free;
}

void sales_used_slots(struct sales *sales, uint64_t wall_ns, char *text)
{
	pthread_rwlock_rdlock(&sales->lock);
	for (uint32_t slot = 0; slot < SLUICE_MAX_SALES; slot += 4) {
		unsigned digit = 0;

		for (uint32_t i = 0; i < 4; i++)
			digit |= slot_is_reusable(sales, slot + i, wall_ns) ? 0 : 1u << i;
		*text++ = "0123456789abcdef"[digit];
	}
	pthread_rwlock_unlock(&sales->lock);
	*text = '\0';
}

uint32_t sales_highest_id(struct sales *sales)
{
	uint32_t id;

	pthread_rwlock_rdlock(&sales->lock);
	id = highest_id(sales);
	pthread_rwlock_unlock(&sales->lock);
	return id;
}

/* The smallest id above `last` and up to `limit` whose slot may be had, and is not among the others' (NULL: nobody's). 0: there is none. */
static uint32_t reusable_above(
	struct sales *sales, uint32_t last, uint32_t limit, const bool others[SLUICE_MAX_SALES], uint64_t wall_ns)
{
	for (uint32_t i = 1; i <= SLUICE_MAX_SALES && limit >= i && last <= limit - i; i++)
		if ((!others || !others[(last + i) % SLUICE_MAX_SALES]) && slot_is_reusable(sales, last + i, wall_ns))
			return last + i;
	return 0;
}

/* A node that has been in a fleet has sales of higher numbers, which its own must not get: by them a fleet's sales are known. Nor do they get the slot of such
 * a sale, because slots go to higher ids only (recovery.c). Where nothing else is left, it is one above all.
 */
uint32_t sales_next_id(struct sales *sales, uint64_t wall_ns)
{
	bool is_fleets[SLUICE_MAX_SALES] = {0};
	uint32_t last = 0, id;

	pthread_rwlock_rdlock(&sales->lock);
	for (unsigned i = 0; i < sales->count; i++) {
		uint32_t known = sales->all[i]->sale.id;

		if (known > SALES_LAST_LONELY_ID)
			is_fleets[known % SLUICE_MAX_SALES] = true;
		else if (known > last)
			last = known;
	}
	id = reusable_above(sales, last, SALES_LAST_LONELY_ID, is_fleets, wall_ns);
	if (!id)
		id = reusable_above(sales, highest_id(sales), UINT32_MAX, NULL, wall_ns);
	pthread_rwlock_unlock(&sales->lock);
	return id;
}

bool sales_in_gate(struct sales *sales, const struct sale *sale)
{
	return slot_id(slot_of(sales, sale->id)) == sale->id;
}

uint64_t sales_free_units(struct sales *sales, const struct sale *sale)
{
	return sales_in_gate(sales, sale) ? __atomic_load_n(&stock_of(sales, sale->id)->free, __ATOMIC_ACQUIRE) : 0;
}

uint64_t sales_wanted_units(struct sales *sales, const struct sale *sale)
{
	return sales_in_gate(sales, sale) ? __atomic_load_n(&stock_of(sales, sale->id)->wanted, __ATOMIC_ACQUIRE) : 0;
}

enum sale_state sales_state(const struct sale *sale, uint64_t free_units, uint64_t wall_ns)
{
	if (sale->ended || sale->swept || wall_ns >= sale->ends_ns)
		return SALE_ENDED;
	if (sale->paused)
		return SALE_PAUSED;
	if (wall_ns < sale->opens_ns)
		return SALE_SCHEDULED;
	return free_units || sales_may_get_units(sale) ? SALE_OPEN : SALE_SOLD_OUT;
}

const char *sales_state_name(enum sale_state state)
{
	static const char *const names[] = {
		[SALE_SCHEDULED] = "scheduled",
		[SALE_OPEN] = "open",
		[SALE_PAUSED] = "paused",
		[SALE_SOLD_OUT] = "sold_out",
		[SALE_ENDED] = "ended",
	};

	return names[state];
}

static struct entry *add_entry(struct sales *sales, const char *slug, uint32_t id)
{
	struct entry *entry;

	if (sales->count == sales->capacity) {
		unsigned capacity = sales->capacity ? sales->capacity * 2 : 64;
		struct entry **all = realloc(sales->all, capacity * sizeof(*all));

		if (!all)
			return NULL;
		sales->all = all;
		sales->capacity = capacity;
	}
	entry = calloc(1, sizeof(*entry));
	if (!entry)
		return NULL;
	snprintf(entry->sale.slug, sizeof(entry->sale.slug), "%s", slug);
	entry->sale.id = id;
	entry->sale.counts = &entry->counts;
	entry->sale.withheld = sales->start_withheld;
	entry->next_slug = sales->by_slug[slug_bucket(slug)];
	sales->by_slug[slug_bucket(slug)] = entry;
	entry->next_id = sales->by_id[id % BUCKETS];
	sales->by_id[id % BUCKETS] = entry;
	sales->all[sales->count++] = entry;
	return entry;
}

void sales_begin_reading(struct sales *sales)
{
	pthread_rwlock_wrlock(&sales->lock);
	sales->reading++;
	pthread_rwlock_unlock(&sales->lock);
}

bool sales_was_read(struct sales *sales, uint32_t id)
{
	const struct entry *entry;
	bool was_read;

	pthread_rwlock_rdlock(&sales->lock);
	entry = find_id(sales, id);
	was_read = entry && entry->read == sales->reading;
	pthread_rwlock_unlock(&sales->lock);
	return was_read;
}

int sales_learn(struct sales *sales, const json_t *json, struct sale *sale)
{
	json_int_t id, opens, ends, per_buyer, hold, pace, multiplier, put_in, held, confirmed;
	struct entry *entry;
	const char *slug, *mode;
	int paused, ended;

	if (json_unpack((json_t *)json, "{s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:b, s:b, s:I, s:I, s:I}", "id",
		    &id, "slug", &slug, "opens_ns", &opens, "ends_ns", &ends, "per_buyer", &per_buyer, "hold_seconds",
		    &hold, "pace_per_second", &pace, "order_mode", &mode, "token_multiplier", &multiplier, "paused",
		    &paused, "ended", &ended, "put_in", &put_in, "held", &held, "confirmed", &confirmed) < 0)
		return -EPROTO;
	if (id < 1 || id > UINT32_MAX || strlen(slug) > SALE_SLUG_MAX || put_in < 0 || held < 0 || confirmed < 0)
		return -EPROTO;

	pthread_rwlock_wrlock(&sales->lock);
	entry = find_id(sales, (uint32_t)id);
	if (!entry)
		entry = add_entry(sales, slug, (uint32_t)id);
	if (!entry) {
		pthread_rwlock_unlock(&sales->lock);
		return -ENOMEM;
	}
	snprintf(entry->sale.order_mode, sizeof(entry->sale.order_mode), "%s", mode);
	entry->sale.opens_ns = (uint64_t)opens;
	entry->sale.ends_ns = (uint64_t)ends;
	entry->sale.per_buyer = (uint32_t)per_buyer;
	entry->sale.hold_seconds = (uint32_t)hold;
	entry->sale.pace_per_second = (uint32_t)pace;
	entry->sale.token_multiplier = (uint32_t)multiplier;
	entry->sale.paused = paused;
	entry->sale.ended = ended;
	entry->read = sales->reading;
	atomic_store(&entry->counts.put_in, (unsigned long long)put_in);
	atomic_store(&entry->counts.held, (unsigned long long)held);
	atomic_store(&entry->counts.confirmed, (unsigned long long)confirmed);
	sale_counts_ordered(&entry->counts, (uint64_t)json_integer_value(json_object_get(json, "orders")));
	*sale = entry->sale;
	pthread_rwlock_unlock(&sales->lock);
	return 0;
}

/* `now`: its entry, for what other threads set. */
static uint32_t gate_flags(const struct sale *sale, const struct sale *now)
{
	return (sale->paused ? SLUICE_SALE_PAUSED : 0) | (sale->ended || now->swept ? SLUICE_SALE_ENDED : 0) |
		(now->more ? SLUICE_SALE_MORE : 0) | (now->withheld ? SLUICE_SALE_WITHHELD : 0);
}

/* The lock is held for writing. `sale` is what is to be, and may be older than what other threads have set in its entry. */
static void write_words(struct sales *sales, const struct sale *sale)
{
	const struct entry *entry = find_id(sales, sale->id);
	const struct sale *now = entry ? &entry->sale : sale;
	struct sluice_sale *slot = slot_of(sales, sale->id);
	uint32_t flags = gate_flags(sale, now);
	struct sluice_limit pace = {0};
	bool same;

	if (sale->pace_per_second) {
		pace.interval_ns = NS_PER_S / sale->pace_per_second;
		pace.tolerance_ns = pace.interval_ns < PACE_BURST_NS ? PACE_BURST_NS - pace.interval_ns : 0;
	}
	/* Only flags differ: one store, and the sale is never seen closed. */
	same = slot->opens_wall == sale->opens_ns && slot->ends_wall == sale->ends_ns &&
		slot->per_buyer == sale->per_buyer && slot->pace.interval_ns == pace.interval_ns &&
		slot->pace.tolerance_ns == pace.tolerance_ns;
	if (!same) {
		__atomic_store_n(&slot->flags, flags | SLUICE_SALE_CLOSED, __ATOMIC_SEQ_CST);
		__atomic_store_n(&slot->opens_wall, sale->opens_ns, __ATOMIC_SEQ_CST);
		__atomic_store_n(&slot->ends_wall, sale->ends_ns, __ATOMIC_SEQ_CST);
		__atomic_store_n(&slot->pace.interval_ns, pace.interval_ns, __ATOMIC_SEQ_CST);
		__atomic_store_n(&slot->pace.tolerance_ns, pace.tolerance_ns, __ATOMIC_SEQ_CST);
		__atomic_store_n(&slot->per_buyer, sale->per_buyer, __ATOMIC_SEQ_CST);
	}
	__atomic_store_n(&slot->not_before_s, now->not_before_s, __ATOMIC_SEQ_CST);
	__atomic_store_n(&slot->flags, flags, __ATOMIC_SEQ_CST);
}

void sales_write_words(struct sales *sales, const struct sale *sale)
{
	pthread_rwlock_wrlock(&sales->lock);
	write_words(sales, sale);
	pthread_rwlock_unlock(&sales->lock);
}

void sales_set_lease_flags(struct sales *sales, uint32_t id, bool more, bool withheld)
{
	struct sluice_sale *slot = slot_of(sales, id);
	struct entry *entry;
	uint32_t flags;

	pthread_rwlock_wrlock(&sales->lock);
	entry = find_id(sales, id);
	if (entry) {
		entry->sale.more = more;
		entry->sale.withheld = withheld;
	}
	if (entry && slot_id(slot) == id) {
		/* sales_leave_gate holds no lock. */
		flags = __atomic_load_n(&slot->flags, __ATOMIC_ACQUIRE);
		while (!__atomic_compare_exchange_n(&slot->flags, &flags,
			(flags & ~(SLUICE_SALE_MORE | SLUICE_SALE_WITHHELD)) | (more ? SLUICE_SALE_MORE : 0) |
				(withheld ? SLUICE_SALE_WITHHELD : 0),
			false, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE))
			;
	}
	pthread_rwlock_unlock(&sales->lock);
}

void sales_set_not_before(struct sales *sales, uint32_t id, uint32_t not_before_s)
{
	struct entry *entry;

	pthread_rwlock_wrlock(&sales->lock);
	entry = find_id(sales, id);
	if (entry) {
		entry->sale.not_before_s = not_before_s;
		if (slot_id(slot_of(sales, id)) == id)
			__atomic_store_n(&slot_of(sales, id)->not_before_s, not_before_s, __ATOMIC_SEQ_CST);
	}
	pthread_rwlock_unlock(&sales->lock);
}

void sales_fill_slot(struct sales *sales, const struct sale *sale, uint64_t free_units)
{
	struct sluice_sale *slot = slot_of(sales, sale->id);
	struct sluice_stock *stock = stock_of(sales, sale->id);

	pthread_rwlock_wrlock(&sales->lock);
	__atomic_store_n(&slot->id, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&slot->flags, SLUICE_SALE_CLOSED, __ATOMIC_SEQ_CST);
	__atomic_store_n(&stock->pace_tat, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&stock->taken, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&stock->wanted, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&stock->free, free_units, __ATOMIC_SEQ_CST);
	write_words(sales, sale);
	__atomic_store_n(&slot->id, sale->id, __ATOMIC_SEQ_CST);
	pthread_rwlock_unlock(&sales->lock);
}

void sales_leave_gate(struct sales *sales, const struct sale *sale)
{
	struct sluice_sale *slot = slot_of(sales, sale->id);

	if (slot_id(slot) != sale->id)
		return;
	__atomic_store_n(&slot->flags, SLUICE_SALE_CLOSED, __ATOMIC_SEQ_CST);
	__atomic_store_n(&slot->id, 0, __ATOMIC_SEQ_CST);
}

json_t *sales_to_ledger(const struct sale *sale)
{
	return json_pack("{s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:b, s:b}", "id", (json_int_t)sale->id, "slug",
		sale->slug, "opens_ns", (json_int_t)sale->opens_ns, "ends_ns", (json_int_t)sale->ends_ns, "per_buyer",
		(json_int_t)sale->per_buyer, "hold_seconds", (json_int_t)sale->hold_seconds, "pace_per_second",
		(json_int_t)sale->pace_per_second, "order_mode", sale->order_mode, "token_multiplier",
		(json_int_t)sale->token_multiplier, "paused", sale->paused, "ended", sale->ended);
}

int sales_take_units(struct sales *sales, const struct sale *sale, uint64_t units)
{
	__u64 *free_units = &stock_of(sales, sale->id)->free;
	__u64 old = __atomic_load_n(free_units, __ATOMIC_ACQUIRE);

	if (!sales_in_gate(sales, sale))
		return -ENOSPC;
	do {
		if (old < units)
			return -ENOSPC;
	} while (
		!__atomic_compare_exchange_n(free_units, &old, old - units, false, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE));
	return 0;
}

void sales_give_units(struct sales *sales, const struct sale *sale, uint64_t units)
{
	if (sales_in_gate(sales, sale))
		__atomic_add_fetch(&stock_of(sales, sale->id)->free, units, __ATOMIC_SEQ_CST);
}

void sales_mark_ended(struct sales *sales, const struct sale *sale)
{
	struct entry *entry;

	pthread_rwlock_wrlock(&sales->lock);
	entry = find_id(sales, sale->id);
	if (entry)
		entry->sale.swept = true;
	if (sales_in_gate(sales, sale))
		__atomic_fetch_or(&slot_of(sales, sale->id)->flags, SLUICE_SALE_ENDED, __ATOMIC_SEQ_CST);
	pthread_rwlock_unlock(&sales->lock);
}

void sales_follow_books(struct sales *sales, const struct sale *sale)
{
	uint64_t put_in = atomic_load(&sale->counts->put_in);
	uint64_t gone = atomic_load(&sale->counts->held) + atomic_load(&sale->counts->confirmed) +
		atomic_load(&sale->counts->refused) + atomic_load(&sale->counts->pending) +
		atomic_load(&sale->counts->moving);

	sales_mark_ended(sales, sale);
	if (sales_in_gate(sales, sale))
		__atomic_store_n(&stock_of(sales, sale->id)->free, put_in > gone ? put_in - gone : 0, __ATOMIC_SEQ_CST);
}
