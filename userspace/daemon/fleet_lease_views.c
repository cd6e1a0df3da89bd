/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What this node knows of the fleet's units, for who asks: the control API, the metrics. Written on the fleet's thread, one copy a sale under the lock. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/timefmt.h"
#include "daemon/fleet_leases_impl.h"

#define AWAIT_NS 3000000000ULL
#define AWAIT_CALLS 2ULL /* to Redis, each as slow as it may be */
#define AWAIT_POLL_NS 5000000L

static uint64_t positive(int64_t number)
{
	return number > 0 ? (uint64_t)number : 0;
}

void leases_show(struct daemon *d, struct leased_sale *sale)
{
	const struct lease *lease = &sale->lease;
	const struct lease_reply *last = &lease->last;
	struct fleet_stock shown = {
		.is_known = lease->known,
		.is_settled = lease->settled,
		.is_withheld = sale->flags.withheld,
		.trouble = lease_trouble(lease),
		.version = positive(lease->book.version),
		.balance = positive(lease->book.balance),
		.sold = positive(lease->book.balance - (int64_t)sale->units),
		.epoch = positive(lease->book.epoch),
		.rate = lease->rate,
		.total = positive(
			lease->known && last->version >= lease->book.version ? last->total : lease->book.total),
	};

	memcpy(shown.operation, lease->book.operation, sizeof(shown.operation));
	if (lease->known) {
		shown.is_open = last->open;
		shown.free = positive(last->free);
		shown.deficit = positive(-last->free);
		shown.outside = positive(last->outside);
		shown.missing = last->missing;
		shown.is_fenced = last->row.fenced;
	}
	pthread_mutex_lock(&d->leases->lock);
	sale->shown = shown;
	pthread_mutex_unlock(&d->leases->lock);
}

/* The lock is held, or it is the fleet's thread, which alone changes the array. */
static const struct leased_sale *find(const struct fleet_leases *leases, uint32_t id)
{
	for (unsigned i = 0; i < leases->count; i++)
		if (leases->sales[i]->sale.id == id)
			return leases->sales[i];
	return NULL;
}

int fleet_leases_stock(struct daemon *d, uint32_t sale, struct fleet_stock *stock)
{
	const struct leased_sale *leased;
	int err = -ENOENT;

	if (!d->leases)
		return -ENOENT;
	pthread_mutex_lock(&d->leases->lock);
	leased = find(d->leases, sale);
	if (leased && leased->state == LEASED) {
		*stock = leased->shown;
		err = 0;
	}
	pthread_mutex_unlock(&d->leases->lock);
	return err;
}

void fleet_leases_join_members(struct daemon *d, uint32_t sale, struct lease_members *members)
{
	const struct leased_sale *leased = NULL;

	if (d->leases)
		leased = find(d->leases, sale);
	if (leased && leased->state == LEASED)
		lease_members_join(members, &leased->lease.book.members);
}

void fleet_leases_widen(struct daemon *d, uint32_t sale, uint64_t *total, uint64_t *free_units)
{
	struct fleet_stock stock;

	if (fleet_leases_stock(d, sale, &stock))
		return;
	*total = stock.total;
	*free_units += stock.free + stock.outside;
}

bool fleet_leases_has(struct daemon *d, uint32_t sale)
{
	const struct leased_sale *leased;
	bool has;

	if (!d->leases)
		return false;
	pthread_mutex_lock(&d->leases->lock);
	leased = find(d->leases, sale);
	has = !leased || leased->state != LEASED_NOT;
	pthread_mutex_unlock(&d->leases->lock);
	return has;
}

bool fleet_leases_lacks_total(struct daemon *d, uint32_t sale)
{
	struct fleet_stock stock;

	return !fleet_leases_stock(d, sale, &stock) && !stock.version;
}

static json_t *trouble_json(enum lease_trouble trouble)
{
	return trouble ? json_string(lease_trouble_name(trouble)) : json_null();
}

unsigned fleet_leases_troubled(struct daemon *d, enum lease_trouble trouble)
{
	struct fleet_leases *leases = d->leases;
	unsigned count = 0;

	if (!leases)
		return 0;
	pthread_mutex_lock(&leases->lock);
	for (unsigned i = 0; i < leases->count; i++)
		count += leases->sales[i]->state == LEASED && leases->sales[i]->shown.trouble == trouble &&
			sales_in_gate(d->sales, &leases->sales[i]->sale);
	pthread_mutex_unlock(&leases->lock);
	return count;
}

static json_t *members_json(const struct lease_members *members)
{
	json_t *json = json_array();

	for (unsigned node = 1; node <= LEASE_NODE_MAX; node++)
		if (lease_members_has(members, node))
			json_array_append_new(json, json_integer(node));
	return json;
}

void fleet_leases_describe(struct daemon *d, const struct sale *sale, uint64_t put_in, json_t *json)
{
	/* Before its book was read: it sells nothing, and more is not known. */
	struct fleet_stock stock = {.is_withheld = true};
	bool is_read = !fleet_leases_stock(d, sale->id, &stock);

	if (!json || !d->leases)
		return;
	if (!fleet_leases_has(d, sale->id)) {
		json_object_set_new(json, "fleet", json_null());
		return;
	}
	if (is_read && json_object_get(json, "stock"))
		json_object_set_new(json, "stock", json_integer((json_int_t)stock.total));
	json_object_set_new(json, "fleet",
		json_pack("{s:s, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:b, s:b, s:o}", "state",
			!stock.is_known         ? "unknown"
				: stock.is_open ? "open"
						: "settling",
			"total", (json_int_t)stock.total, "free", (json_int_t)stock.free, "outside",
			(json_int_t)stock.outside, "deficit", (json_int_t)stock.deficit, "missing",
			members_json(&stock.missing), "put_in", (json_int_t)put_in, "balance",
			(json_int_t)stock.balance, "epoch", (json_int_t)stock.epoch, "settled", stock.is_settled,
			"withheld", stock.is_withheld, "trouble", trouble_json(stock.trouble)));
}

int fleet_leases_await(struct daemon *d, const char *slug)
{
	/* A Redis that is slow within its time-out is no failure. */
	uint64_t until = time_mono_ns() + AWAIT_NS + AWAIT_CALLS * d->config.fleet.timeout_ms * 1000000ULL;
	struct fleet_stock stock;
	struct sale sale;

	while (time_mono_ns() < until && !atomic_load(&d->stopping)) {
		if (!sales_find(d->sales, slug, &sale) && !fleet_leases_stock(d, sale.id, &stock) && stock.version)
			return 0;
		nanosleep(&(struct timespec){.tv_nsec = AWAIT_POLL_NS}, NULL);
	}
	return -ETIMEDOUT;
}

json_t *fleet_leases_report(struct daemon *d, unsigned limit)
{
	struct fleet_leases *leases = d->leases;
	json_t *rows;

	if (!leases)
		return NULL;
	rows = json_array();
	pthread_mutex_lock(&leases->lock);
	/* The latest sales first. */
	for (unsigned i = leases->count; i-- > 0 && json_array_size(rows) < limit;) {
		const struct leased_sale *sale = leases->sales[i];

		if (sale->state == LEASED && sales_in_gate(d->sales, &sale->sale))
			json_array_append_new(rows,
				json_pack("{s:s, s:I, s:I, s:I, s:I, s:b, s:o}", "sale", sale->sale.slug, "balance",
					(json_int_t)sale->shown.balance, "sold", (json_int_t)sale->shown.sold, "epoch",
					(json_int_t)sale->shown.epoch, "rate", (json_int_t)(sale->shown.rate + 0.5),
					"fenced", sale->shown.is_fenced, "trouble", trouble_json(sale->shown.trouble)));
	}
	pthread_mutex_unlock(&leases->lock);
	return rows;
}

/* --- metrics ------------------------------------------------------------------------------------------------------------------------ */
static void family(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void render_counters(const struct fleet_leases *leases, FILE *out)
{
	family(out, "sluice_lease_moves_total", "counter",
		"Leases that the ledger has taken, and those that it has given back.");
	fprintf(out, "sluice_lease_moves_total{kind=\"grant\"} %llu\nsluice_lease_moves_total{kind=\"return\"} %llu\n",
		atomic_load(&leases->grants), atomic_load(&leases->returns));
	family(out, "sluice_lease_moved_units_total", "counter", "Units of these.");
	fprintf(out,
		"sluice_lease_moved_units_total{kind=\"grant\"} %llu\nsluice_lease_moved_units_total{kind=\"return\"} %llu\n",
		atomic_load(&leases->granted), atomic_load(&leases->returned));
	family(out, "sluice_lease_fenced_total", "counter",
		"Leases of this node that others had fenced, as it found when it came back.");
	fprintf(out, "sluice_lease_fenced_total %llu\n", atomic_load(&leases->fences));
}

/* One line a sale: `name`{sale="…"`more`} and what `figure` reads. The lock is held. */
static void render_each(struct daemon *d, FILE *out, const char *name, const char *more,
	uint64_t (*figure)(struct daemon *d, const struct leased_sale *sale))
{
	const struct fleet_leases *leases = d->leases;

	for (unsigned i = 0; i < leases->count; i++) {
		const struct leased_sale *sale = leases->sales[i];

		if (sale->state == LEASED && sales_in_gate(d->sales, &sale->sale))
			fprintf(out, "%s{sale=\"%s\"%s} %" PRIu64 "\n", name, sale->sale.slug, more, figure(d, sale));
	}
}

#define FIGURE(name, value) \
	static uint64_t name(struct daemon *d, const struct leased_sale *sale) \
	{ \
		(void)d; \
		return value; \
	}
FIGURE(figure_total, sale->shown.total)
FIGURE(figure_free, sale->shown.free)
FIGURE(figure_outside, sale->shown.outside)
FIGURE(figure_balance, sale->shown.balance)
FIGURE(figure_deficit, sale->shown.deficit)
FIGURE(figure_withheld, sale->shown.is_withheld)
FIGURE(figure_wanted, __atomic_load_n(&d->maps.stock[sale->sale.id % SLUICE_MAX_SALES].wanted, __ATOMIC_RELAXED))

void fleet_leases_render(struct daemon *d, FILE *out)
{
	struct fleet_leases *leases = d->leases;

	if (!leases)
		return;
	render_counters(leases, out);
	pthread_mutex_lock(&leases->lock);
	family(out, "sluice_fleet_units", "gauge",
		"Units of a sale: total of the fleet, free (leased to no node), outside (unsold on other nodes), balance (leased to this node, sold ones "
		"included), deficit (leased beyond the total: an alarm).");
	render_each(d, out, "sluice_fleet_units", ",state=\"total\"", figure_total);
	render_each(d, out, "sluice_fleet_units", ",state=\"free\"", figure_free);
	render_each(d, out, "sluice_fleet_units", ",state=\"outside\"", figure_outside);
	render_each(d, out, "sluice_fleet_units", ",state=\"balance\"", figure_balance);
	render_each(d, out, "sluice_fleet_units", ",state=\"deficit\"", figure_deficit);
	family(out, "sluice_lease_units_wanted_total", "counter",
		"Units of a sale that buyers of this node did not get although they may have been on another: misses of the low-water mark.");
	render_each(d, out, "sluice_lease_units_wanted_total", "", figure_wanted);
	family(out, "sluice_lease_withheld", "gauge", "1 while this node may not sell units of the sale.");
	render_each(d, out, "sluice_lease_withheld", "", figure_withheld);
	pthread_mutex_unlock(&leases->lock);
}
