/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The last part of a recovery: what the gate counts for each buyer is made what the order table says. Called with orders closed, nothing in flight,
 * every stock set and every question answered; then table, gate and ledger agree, and orders_align says so in the table.
 *
 * A daemon that was killed between an answer of the ledger and the gate's word of it leaves a count that is too high: that buyer could never
 * order again. Cost: one look at the map for each order, and one for each buyer that the gate knows.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/maintenance.h"
#include "daemon/pipeline_impl.h"
#include "sluice/plant.h"

struct census {
	struct daemon *d;
	struct tally {
		struct sluice_buyer_key key; /* first: compare() */
		uint32_t units;
	} * all; /* in the end sorted, one for each buyer with units */
	size_t count, capacity;
	uint32_t last_sale; /* the orders of one sale often follow one another in the map, and here */
	bool last_counts, no_memory;
	unsigned corrected;
};

/* Only sales of which the gate still has the buyers. */
static bool is_counted(struct census *census, uint32_t id)
{
	struct sale sale;

	if (id == census->last_sale)
		return census->last_counts;
	census->last_sale = id;
	census->last_counts = !sales_find_id(census->d->sales, id, &sale) && sales_in_gate(census->d->sales, &sale) &&
		!maintenance_is_forgotten(&sale, time_wall_ns());
	return census->last_counts;
}

static void visit_order(const struct order *order, void *arg)
{
	struct census *census = arg;

	if ((order_is_durable(order->state) && !order_is_live(order->state)) ||
		!is_counted(census, order->admission.sale))
		return;
	if (census->count == census->capacity) {
		size_t capacity = census->capacity ? census->capacity * 2 : 1024;
		struct tally *all = realloc(census->all, capacity * sizeof(*all));

		census->no_memory |= !all;
		if (!all)
			return;
		census->all = all;
		census->capacity = capacity;
	}
	census->all[census->count++] = (struct tally){
		.key = {.buyer = order->admission.buyer, .sale = order->admission.sale},
		.units = order->admission.quantity,
	};
}

static int compare(const void *a, const void *b)
{
	const struct sluice_buyer_key *left = a, *right = b; /* first member of a tally */

	if (left->sale != right->sale)
		return left->sale < right->sale ? -1 : 1;
	return left->buyer < right->buyer ? -1 : left->buyer > right->buyer;
}

/* One tally for each buyer. */
static void add_up(struct census *census)
{
	size_t kept = 0;

	if (census->count)
		qsort(census->all, census->count, sizeof(*census->all), compare);
	for (size_t i = 0; i < census->count; i++) {
		if (kept && !compare(&census->all[kept - 1], &census->all[i]))
			census->all[kept - 1].units += census->all[i].units;
		else
			census->all[kept++] = census->all[i];
	}
	census->count = kept;
}

static int write_count(struct census *census, const struct sluice_buyer_key *key, uint32_t units)
{
	struct sluice_buyer buyer = {0};
	int fd = census->d->maps.buyers;

	if (!bpf_map_lookup_elem(fd, key, &buyer) && buyer.units == units)
		return 0;
	census->corrected++;
	buyer.units = units;
	return bpf_map_update_elem(fd, key, &buyer, BPF_ANY);
}

static int write_tallies(struct census *census)
{
	uint32_t closed = 0;

	for (size_t i = 0; i < census->count; i++) {
		const struct tally *tally = &census->all[i];
		struct sale sale;
		int err;

		if (tally->key.sale == closed)
			continue;
		err = write_count(census, &tally->key, tally->units);
		if (err && err != -E2BIG)
			return err;
		if (!err || sales_find_id(census->d->sales, tally->key.sale, &sale))
			continue;
		closed = tally->key.sale;
		sales_leave_gate(census->d->sales, &sale);
		log_error(
			"sale %s: its buyers do not fit the gate's maps; raise gate.max_admissions and attach again. The sale stays closed",
			sale.slug);
	}
	return 0;
}

/* Buyers that the gate counts units for, and who have none. */
static int clear_others(struct census *census)
{
	struct sluice_buyer_key key, next, *cursor = NULL;
	struct sluice_buyer buyer;
	int err = 0;

	while (!err && !bpf_map_get_next_key(census->d->maps.buyers, cursor, &next)) {
		key = next;
		cursor = &key;
		if (!is_counted(census, key.sale) || bpf_map_lookup_elem(census->d->maps.buyers, &key, &buyer) ||
			!buyer.units || bsearch(&key, census->all, census->count, sizeof(*census->all), compare))
			continue;
		err = write_count(census, &key, 0);
	}
	return err;
}

int recovery_recount_buyers(struct pipeline *p)
{
	struct census census = {.d = p->d};
	int err;

	if (!atomic_exchange(&p->compare, false) || planted(buyers_not_rebuilt))
		return 0;
	orders_walk(p->d->orders, visit_order, &census);
	err = census.no_memory ? -ENOMEM : 0;
	if (!err) {
		add_up(&census);
		err = write_tallies(&census);
	}
	if (!err)
		err = clear_others(&census);
	if (err)
		atomic_store(&p->compare, true);
	else
		orders_align(p->d->orders);
	if (census.corrected)
		log_info("%u counts of buyers in the gate were set by the ledger's orders", census.corrected);
	free(census.all);
	return err;
}
