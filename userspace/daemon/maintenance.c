/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The maintenance thread. Started by main.c; works in small steps ten times a second, so that no lock is held for long.
 *
 * Promises: an admission leaves the gate's map only when it is durable, its token has expired and its sale has been over for a while; an admission
 * that is in the map and nowhere else is submitted again; put in = free + held + confirmed + in flight (+ refused) is checked for
 * every sale every second, and a breach is logged and exported.
 */
#include "daemon/maintenance.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/interfaces.h"
#include "daemon/issue.h"
#include "daemon/order_changes.h"
#include "daemon/orders.h"
#include "daemon/pipeline.h"
#include "daemon/revocation.h"

#define STEP_MS 100
#define STEPS_PER_CHECK 10 /* the conservation equation: every second */
#define STEPS_PER_EXPIRY 4 /* holds whose time is over: within half a second */
#define STEPS_PER_LOOK 20  /* the gate's interfaces: every other second */
#define STEPS_OF_REST 20   /* 2 s */
#define STEPS_PER_READ 50  /* the ledger's figures: every five seconds */
#define STEPS_PER_KEEP 300 /* 30 s */
#define SWEEP_BUDGET 512
/* An admission younger than this may still be on its way through the ring. */
#define LOST_AFTER_NS 5000000000ULL
#define READ_TRIES 8

static struct {
	pthread_t thread;
	atomic_bool running;
	__u64 admission_cursor;
	bool has_admission_cursor;
	struct sluice_buyer_key buyer_cursor;
	bool has_buyer_cursor;
} work;

bool maintenance_is_forgotten(const struct sale *sale, uint64_t wall_ns)
{
	return sale->swept || (wall_ns > sale->ends_ns && wall_ns - sale->ends_ns > SLUICE_KEEP_NS);
}

/* `held` is read before `free`: but for changes of orders, which are seen whole or not at all, units only move from free to ordered meanwhile, so a
 * sum above `put_in` is never an artefact of the reading.
 */
static void read_once(struct daemon *d, const struct sale *sale, struct stock_view *view)
{
	view->held = atomic_load(&sale->counts->held);
	view->confirmed = atomic_load(&sale->counts->confirmed);
	view->refused = atomic_load(&sale->counts->refused);
	view->free = sales_free_units(d->sales, sale);
	view->put_in = atomic_load(&sale->counts->put_in);
	view->in_flight = atomic_load(&sale->counts->pending) + atomic_load(&sale->counts->moving);
}

/* A sale that has lost its slot has its free units in the books alone. */
static void read_from_books(struct stock_view *view)
{
	uint64_t gone = view->held + view->confirmed + view->in_flight + view->refused;

	view->free = view->put_in > gone ? view->put_in - gone : 0;
}

void maintenance_read_stock(struct daemon *d, const struct sale *sale, struct stock_view *view)
{
	for (int i = 0; i < READ_TRIES; i++) {
		unsigned changes = atomic_load(&sale->counts->changes);
		uint64_t sum;

		read_once(d, sale, view);
		if (!sales_in_gate(d->sales, sale))
			read_from_books(view);
		sum = view->free + view->held + view->confirmed + view->in_flight + view->refused;
		view->balanced = sum == view->put_in;
		view->whole = !(changes & 1) && atomic_load(&sale->counts->changes) == changes;
		if (view->balanced && view->whole)
			return;
		nanosleep(&(struct timespec){.tv_nsec = 200000L}, NULL);
	}
}

/* A record may be between the judge and the order table for a moment, and a sale under load is never quite at rest; a breach is what
 * two looks a second apart agree on, with nothing in flight.
 */
static void check_balance(struct daemon *d, const struct sale *sale)
{
	uint64_t in_flight = __atomic_load_n(&d->maps.control->in_flight, __ATOMIC_ACQUIRE);
	struct pipeline_status status;
	struct stock_view view;
	bool oversold;

	pipeline_status(d->pipeline, &status);
	if (!status.open)
		return;
	maintenance_read_stock(d, sale, &view);
	if (!view.whole)
		return;
	oversold = view.held + view.confirmed > view.put_in;
	if (view.balanced) {
		atomic_store(&sale->counts->balance, SALE_BALANCED);
		return;
	}
	if (!oversold && (in_flight || view.in_flight || atomic_load(&sale->counts->balance) == SALE_UNBALANCED))
		return;
	if (oversold || atomic_load(&sale->counts->balance) == SALE_SUSPECT) {
		log_error("sale %s: %" PRIu64 " units put in, but %" PRIu64 " free + %" PRIu64 " held + %" PRIu64
			  " confirmed + %" PRIu64 " refused",
			sale->slug, view.put_in, view.free, view.held, view.confirmed, view.refused);
		atomic_store(&sale->counts->balance, SALE_UNBALANCED);
	} else {
		atomic_store(&sale->counts->balance, SALE_SUSPECT);
	}
}

static void check_balances(struct daemon *d)
{
	struct sale sale;

	for (unsigned i = 0; !sales_at(d->sales, i, &sale); i++)
		if (sales_in_gate(d->sales, &sale))
			check_balance(d, &sale);
}

/* 1: the entry may go. */
static int review_admission(struct daemon *d, __u64 serial, const struct sluice_admission *admission, uint64_t wall_ns)
{
	struct order_view order;
	struct sale sale;

	if (admission->state == SLUICE_ADMISSION_REVOKED)
		return admission->serial == serial && revocation_is_over(d, admission, wall_ns);
	/* Another serial: the entry was used anew while it was copied. */
	if (admission->state != SLUICE_ADMISSION_DONE || admission->serial != serial)
		return 0;
	if (orders_find(d->orders, serial, &order) || order.state == ORDER_SEEN) {
		if (wall_ns > admission->admitted_wall && wall_ns - admission->admitted_wall > LOST_AFTER_NS) {
			log_warn("an admission of sale %u had not come through the ring; it is delivered now",
				admission->sale);
			pipeline_submit(d->pipeline, serial, admission);
		}
		return 0;
	}
	if (!order_is_durable(order.state) || (uint64_t)admission->expires_at_s * 1000000000ULL > wall_ns)
		return 0;
	if (sales_find_id(d->sales, admission->sale, &sale) || !maintenance_is_forgotten(&sale, wall_ns))
		return 0;
	/* Ended for good before the first trace of it goes, whatever the clock may do. */
	sales_mark_ended(d->sales, &sale);
	return orders_forget(d->orders, serial, sale.counts) == 0;
}

/* These look at `budget` entries a call and go on where they stopped. True: they came to the end. */
static bool sweep_admissions(struct daemon *d, uint64_t wall_ns, unsigned budget)
{
	struct sluice_admission admission;
	__u64 next;

	while (budget--) {
		bool at_end = bpf_map_get_next_key(d->maps.admissions,
				      work.has_admission_cursor ? &work.admission_cursor : NULL, &next) != 0;

		if (work.has_admission_cursor &&
			!bpf_map_lookup_elem(d->maps.admissions, &work.admission_cursor, &admission) &&
			review_admission(d, work.admission_cursor, &admission, wall_ns))
			bpf_map_delete_elem(d->maps.admissions, &work.admission_cursor);
		work.has_admission_cursor = !at_end;
		if (at_end)
			return true;
		work.admission_cursor = next;
	}
	return false;
}

static bool buyer_may_go(struct daemon *d, const struct sluice_buyer_key *key, uint64_t wall_ns)
{
	struct sale sale;

	if (sales_find_id(d->sales, key->sale, &sale) || !maintenance_is_forgotten(&sale, wall_ns) ||
		atomic_load(&sale.counts->pending))
		return false;
	sales_mark_ended(d->sales, &sale);
	return true;
}

static bool sweep_buyers(struct daemon *d, uint64_t wall_ns, unsigned budget)
{
	struct sluice_buyer_key next;

	while (budget--) {
		bool at_end = bpf_map_get_next_key(
				      d->maps.buyers, work.has_buyer_cursor ? &work.buyer_cursor : NULL, &next) != 0;

		if (work.has_buyer_cursor && buyer_may_go(d, &work.buyer_cursor, wall_ns))
			bpf_map_delete_elem(d->maps.buyers, &work.buyer_cursor);
		work.has_buyer_cursor = !at_end;
		if (at_end)
			return true;
		work.buyer_cursor = next;
	}
	return false;
}

static void ask_figures(struct daemon *d, json_int_t after);

/* The ledger's own figures are read now and then. On the pipeline's thread, between two answers, so they fit what has been acknowledged. A sale that
 * is over for good has orders that only the ledger knows, and a judge that takes nothing: its free units follow the figures.
 */
static void learn_figures(struct daemon *d, void *arg, const struct pipeline_answer *answer)
{
	json_int_t next = json_integer_value(json_object_get(answer->json, "next"));
	json_t *list = json_object_get(answer->json, "sales"), *item;
	struct sale sale;
	size_t i;

	(void)arg;
	json_array_foreach(list, i, item) {
		if (sales_learn(d->sales, item, &sale))
			log_error("the order writer describes a sale in a way that this daemon does not understand");
		else if (maintenance_is_forgotten(&sale, time_wall_ns()))
			sales_follow_books(d->sales, &sale);
	}
	if (next)
		ask_figures(d, next);
}

static const struct pipeline_hooks figures_hooks = {.complete = learn_figures};

static void ask_figures(struct daemon *d, json_int_t after)
{
	if (pipeline_tell(
		    d->pipeline, json_pack("{s:s, s:I}", "op", "sales_list", "after", after), &figures_hooks, NULL))
		log_warn("no memory to ask for the ledger's figures");
}

void maintenance_ask_figures(struct daemon *d)
{
	ask_figures(d, 0);
}

/* To walk through a map costs a look at every bucket of it, also at the empty ones; nothing here is urgent. So after each walk comes a rest. */
static void sweep_maps(struct daemon *d, unsigned count, uint64_t wall_ns)
{
	static bool (*const sweeps[])(struct daemon *, uint64_t, unsigned) = {
		issue_sweep, sweep_admissions, sweep_buyers};
	static unsigned rests_until[sizeof(sweeps) / sizeof(sweeps[0])];

	for (unsigned i = 0; i < sizeof(sweeps) / sizeof(sweeps[0]); i++)
		if ((int)(count - rests_until[i]) >= 0 && sweeps[i](d, wall_ns, SWEEP_BUDGET))
			rests_until[i] = count + STEPS_OF_REST;
}

/* The call door would go on judging in maps that no packet meets any more, beside those of the gate that may be attached by now. */
static void check_gate(struct daemon *d)
{
	if (!gate_maps_are_orphans(&d->maps) || atomic_exchange(&d->gate_is_gone, true))
		return;
	log_error(
		"the gate was detached from under this daemon (pin directory %s), which ends; started again, it works with the gate that is attached then",
		d->maps.pin_dir);
	pipeline_close_orders(d);
	kill(getpid(), SIGTERM); /* to main, which waits for it */
}

/* What the writer drains is known again after a restart. Of use to tenths only. */
static void keep_drain(struct daemon *d)
{
	static double kept;
	struct pipeline_status status;
	char text[32];

	pipeline_status(d->pipeline, &status);
	if (!status.drain_per_second || !status.open ||
		(status.drain_per_second > kept * 0.9 && status.drain_per_second < kept * 1.1))
		return;
	kept = status.drain_per_second;
	snprintf(text, sizeof(text), "%.0f", kept);
	if (pipeline_tell(d->pipeline,
		    json_pack("{s:s, s:s, s:s}", "op", "document_put", "name", PIPELINE_DRAIN, "value", text), NULL,
		    NULL))
		log_warn("no memory to keep what the writer drains");
}

static void step(struct daemon *d, unsigned count)
{
	uint64_t wall = time_wall_ns();
	int err;

	check_gate(d);
	if (count % STEPS_PER_LOOK == 0)
		interfaces_look(d);
	orders_wake_expired(d->orders, time_mono_ns());
	err = gate_maps_refresh(&d->maps);
	if (err && count % STEPS_PER_READ == 0)
		log_warn(
			"the gate was replaced, and its new call door cannot be opened (%s): the one before goes on judging; restart sluiced to change",
			strerror(-err));
	/* What waits for orders here must not wait for an import of a list. */
	if (!pthread_mutex_trylock(&d->lists_lock)) {
		lists_sweep(d->lists, wall, SWEEP_BUDGET);
		pthread_mutex_unlock(&d->lists_lock);
	}
	if (!atomic_load(&d->sales_known))
		return;
	sweep_maps(d, count, wall);
	if (count % STEPS_PER_CHECK == 0)
		check_balances(d);
	if (count % STEPS_PER_EXPIRY == 0)
		order_expiry_step(d);
	if (count % STEPS_PER_READ == 0)
		maintenance_ask_figures(d);
	if (count % STEPS_PER_KEEP == 0)
		keep_drain(d);
}

static void *maintenance_run(void *arg)
{
	struct daemon *d = arg;

	pthread_setname_np(pthread_self(), "maintenance");
	for (unsigned count = 1; atomic_load(&work.running); count++) {
		step(d, count);
		nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000L}, NULL);
	}
	return NULL;
}

int maintenance_start(struct daemon *d)
{
	int err;

	atomic_store(&work.running, true);
	err = pthread_create(&work.thread, NULL, maintenance_run, d);
	if (err)
		atomic_store(&work.running, false);
	return -err;
}

void maintenance_stop(void)
{
	if (atomic_exchange(&work.running, false))
		pthread_join(work.thread, NULL);
}
