/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The order table. HTTP threads look and wait, the pipeline queues, settles and changes, maintenance forgets.
 *
 * One lock, held for a few pointer moves; waiters are woken after it is given back, because waking a connection costs a system call.
 * A waiter is either in the table's lists or on the way to its wake, never in both, so it is woken exactly once.
 */
#include "daemon/orders.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire.h"

#define NS_PER_S 1000000000ULL
#define BUCKETS_MIN 4096

struct orders {
	pthread_mutex_t lock;
	struct order **buckets;
	unsigned bucket_count, count; /* bucket_count: a power of two */
	struct order_waiter_queue
		waiting; /* all have the same patience, so the order of arrival is that of the deadlines */
	bool closed;
};

_Static_assert(SALE_ORDER_STATES == ORDER_STATE_COUNT, "struct sale_counts has a count for each state");

static const struct {
	const char *name;
	uint32_t wire;
} states[ORDER_STATE_COUNT] = {
	[ORDER_SEEN] = {"pending", 0},
	[ORDER_QUEUED] = {"pending", 0},
	[ORDER_REFUSED] = {"refused", 0},
	[ORDER_HELD] = {"held", WIRE_ORDER_HELD},
	[ORDER_EXPIRED] = {"expired", WIRE_ORDER_EXPIRED},
	[ORDER_CONFIRMED] = {"confirmed", WIRE_ORDER_CONFIRMED},
	[ORDER_CANCELLED] = {"cancelled", WIRE_ORDER_CANCELLED},
	[ORDER_REFUNDED] = {"refunded", WIRE_ORDER_REFUNDED},
};

const char *order_state_name(enum order_state state)
{
	return states[state].name;
}

enum order_state order_state_of_word(const char *word)
{
	enum order_state state = ORDER_HELD;

	while (state < ORDER_STATE_COUNT && strcmp(states[state].name, word) != 0)
		state++;
	return state;
}

enum order_state order_state_of_wire(uint32_t wire)
{
	enum order_state state = ORDER_HELD;

	while (state < ORDER_STATE_COUNT && states[state].wire != wire)
		state++;
	return state;
}

struct orders *orders_new(void)
{
	struct orders *orders = calloc(1, sizeof(*orders));

	if (!orders)
		return NULL;
	orders->bucket_count = BUCKETS_MIN;
	orders->buckets = calloc(BUCKETS_MIN, sizeof(struct order *));
	if (!orders->buckets) {
		free(orders);
		return NULL;
	}
	pthread_mutex_init(&orders->lock, NULL);
	TAILQ_INIT(&orders->waiting);
	return orders;
}

void orders_free(struct orders *orders)
{
	if (!orders)
		return;
	for (unsigned i = 0; i < orders->bucket_count; i++) {
		struct order *next, *order = orders->buckets[i];

		for (; order; order = next) {
			next = order->next;
			free(order);
		}
	}
	free(orders->buckets);
	pthread_mutex_destroy(&orders->lock);
	free(orders);
}

/* Serials are keyed hashes: their bits are as good as any mixer's. */
static struct order **bucket_of(struct orders *orders, uint64_t serial)
{
	return &orders->buckets[serial & (orders->bucket_count - 1)];
}

static struct order *find(struct orders *orders, uint64_t serial)
{
	struct order *order = *bucket_of(orders, serial);

	while (order && order->serial != serial)
		order = order->next;
	return order;
}

static void grow(struct orders *orders)
{
	unsigned old_count = orders->bucket_count;
	struct order **old = orders->buckets, **buckets = calloc((size_t)old_count * 2, sizeof(*buckets));

	if (!buckets)
		return; /* longer chains, nothing worse */
	orders->buckets = buckets;
	orders->bucket_count = old_count * 2;
	for (unsigned i = 0; i < old_count; i++) {
		struct order *next, *order = old[i];

		for (; order; order = next) {
			struct order **bucket = bucket_of(orders, order->serial);

			next = order->next;
			order->next = *bucket;
			*bucket = order;
		}
	}
	free(old);
}

static struct order *insert(
	struct orders *orders, uint64_t serial, const struct sluice_admission *admission, enum order_state state)
{
	struct order *order = calloc(1, sizeof(*order)), **bucket;

	if (!order)
		return NULL;
	if (orders->count >= orders->bucket_count)
		grow(orders);
	order->serial = serial;
	order->admission = *admission;
	order->state = state;
	order->in_gate = true;
	LIST_INIT(&order->waiters);
	bucket = bucket_of(orders, serial);
	order->next = *bucket;
	*bucket = order;
	orders->count++;
	return order;
}

static void view_of(struct order *order, struct order_view *view)
{
	view->serial = order->serial;
	view->seq = order->seq;
	view->committed_ns = order->committed_ns;
	view->expires_ns = order->expires_ns;
	view->resolved_ns = order->resolved_ns;
	view->admission = order->admission;
	view->state = order->state;
	view->has_times = order->has_times;
	view->in_gate = order->in_gate;
	view->first_answer = false;
}

int orders_look_or_wait(struct orders *orders, uint64_t serial, const struct sluice_admission *admission,
	struct order_view *view, struct order_waiter *waiter, void (*suspend)(struct order_waiter *))
{
	struct order *order;
	int waits = 0;

	pthread_mutex_lock(&orders->lock);
	order = find(orders, serial);
	if (!order)
		order = insert(orders, serial, admission, ORDER_SEEN);
	if (!order) {
		pthread_mutex_unlock(&orders->lock);
		return -ENOMEM;
	}
	view_of(order, view);
	if (order_is_durable(order->state)) {
		view->first_answer = !order->answered;
		order->answered = true;
	} else if (order->state != ORDER_REFUSED && waiter && !orders->closed) {
		LIST_INSERT_HEAD(&order->waiters, waiter, by_order);
		TAILQ_INSERT_TAIL(&orders->waiting, waiter, by_deadline);
		suspend(waiter);
		waits = 1;
	}
	pthread_mutex_unlock(&orders->lock);
	return waits;
}

int orders_find(struct orders *orders, uint64_t serial, struct order_view *view)
{
	struct order *order;

	pthread_mutex_lock(&orders->lock);
	order = find(orders, serial);
	if (order)
		view_of(order, view);
	pthread_mutex_unlock(&orders->lock);
	return order ? 0 : -ENOENT;
}

/* Moves a waiter from the table to `woken`. The lock is held. */
static void take_waiter(struct orders *orders, struct order_waiter *waiter, struct order_waiter_queue *woken)
{
	LIST_REMOVE(waiter, by_order);
	TAILQ_REMOVE(&orders->waiting, waiter, by_deadline);
	TAILQ_INSERT_TAIL(woken, waiter, by_deadline);
}

/* Without the lock. A waiter may be gone as soon as it is woken. */
static void wake(struct order_waiter_queue *woken)
{
	struct order_waiter *waiter;

	while ((waiter = TAILQ_FIRST(woken))) {
		TAILQ_REMOVE(woken, waiter, by_deadline);
		waiter->wake(waiter);
	}
}

void orders_wake_expired(struct orders *orders, uint64_t now_mono_ns)
{
	struct order_waiter_queue woken = TAILQ_HEAD_INITIALIZER(woken);
	struct order_waiter *waiter;

	pthread_mutex_lock(&orders->lock);
	while ((waiter = TAILQ_FIRST(&orders->waiting)) && waiter->deadline_ns <= now_mono_ns)
		take_waiter(orders, waiter, &woken);
	pthread_mutex_unlock(&orders->lock);
	wake(&woken);
}

void orders_wake_all_and_close(struct orders *orders)
{
	pthread_mutex_lock(&orders->lock);
	orders->closed = true;
	pthread_mutex_unlock(&orders->lock);
	orders_wake_expired(orders, UINT64_MAX);
}

struct order *orders_queue(struct orders *orders, uint64_t serial, const struct sluice_admission *admission,
	struct sale_counts *counts, bool answered, int *err)
{
	struct order *order;

	*err = 0;
	pthread_mutex_lock(&orders->lock);
	order = find(orders, serial);
	if (!order) {
		order = insert(orders, serial, admission, ORDER_QUEUED);
		if (!order)
			*err = -ENOMEM;
	} else if (order->state == ORDER_SEEN) {
		order->state = ORDER_QUEUED;
	} else {
		order = NULL;
	}
	if (order) {
		order->answered = answered;
		order->counts = counts;
		if (counts)
			atomic_fetch_add(&counts->pending, admission->quantity);
	}
	pthread_mutex_unlock(&orders->lock);
	return order;
}

static void count_state(struct sale_counts *counts, enum order_state state, int by)
{
	if (counts)
		atomic_fetch_add(&counts->orders[state], (unsigned long long)by);
}

static void settle_counts(struct order *order, const struct order_ack *ack)
{
	count_state(ack->counts, ack->state, 1);
	sale_counts_ordered(ack->counts, ack->state == ORDER_REFUSED ? 0 : ack->seq);
	if (!order->counts)
		return;
	/* What is durable is counted before it stops being pending, so that the sum never falls short in between. */
	if (ack->state == ORDER_REFUSED)
		atomic_fetch_add(&order->counts->refused, order->admission.quantity);
	else if (!ack->known)
		atomic_fetch_add(&order->counts->held, order->admission.quantity);
	atomic_fetch_sub(&order->counts->pending, order->admission.quantity);
	order->counts = NULL;
}

void orders_settle(struct orders *orders, const struct order_ack *acks, unsigned count)
{
	struct order_waiter_queue woken = TAILQ_HEAD_INITIALIZER(woken);

	pthread_mutex_lock(&orders->lock);
	for (unsigned i = 0; i < count; i++) {
		struct order *order = acks[i].order;
		struct order_waiter *waiter;

		order->seq = acks[i].seq;
		order->committed_ns = acks[i].committed_ns;
		order->state = acks[i].state;
		/* An earlier delivery may have been sent with another time to hold. */
		order->has_times = !acks[i].known;
		order->expires_ns =
			order->hold_seconds ? order->admission.admitted_wall + order->hold_seconds * NS_PER_S : 0;
		settle_counts(order, &acks[i]);
		while ((waiter = LIST_FIRST(&order->waiters)))
			take_waiter(orders, waiter, &woken);
	}
	pthread_mutex_unlock(&orders->lock);
	wake(&woken);
}

static void take_facts(struct order *order, const struct order_facts *facts)
{
	order->state = facts->state;
	order->expires_ns = facts->expires_ns;
	order->resolved_ns = facts->resolved_ns;
	order->restocked = facts->restocked;
	order->has_times = true;
}

int orders_put_durable(struct orders *orders, uint64_t serial, const struct sluice_admission *admission,
	const struct order_facts *facts, struct sale_counts *counts)
{
	struct order *order;

	pthread_mutex_lock(&orders->lock);
	order = find(orders, serial);
	if (!order)
		order = insert(orders, serial, admission, ORDER_SEEN);
	if (order && order->state != ORDER_QUEUED) {
		if (order_is_durable(order->state))
			count_state(counts, order->state, -1);
		order->seq = facts->seq;
		order->committed_ns = facts->committed_ns;
		take_facts(order, facts);
		count_state(counts, order->state, 1);
		order->answered = true;
	}
	pthread_mutex_unlock(&orders->lock);
	return order ? 0 : -ENOMEM;
}

void orders_learn_times(struct orders *orders, uint64_t serial, const struct order_facts *facts)
{
	struct order *order;

	pthread_mutex_lock(&orders->lock);
	order = find(orders, serial);
	if (order && order->state == facts->state)
		take_facts(order, facts);
	pthread_mutex_unlock(&orders->lock);
}

/* --- changes --------------------------------------------------------------------------------------------------------------- */
int orders_change_begin(struct orders *orders, uint64_t serial, struct order_view *view)
{
	struct order *order;
	int err = 0;

	pthread_mutex_lock(&orders->lock);
	order = find(orders, serial);
	if (!order || order->state == ORDER_REFUSED)
		err = -ENOENT;
	else if (!order_is_durable(order->state))
		err = -EAGAIN;
	if (!err) {
		order->asked++;
		view_of(order, view);
	}
	pthread_mutex_unlock(&orders->lock);
	return err;
}

/* Units that are neither free in the gate nor in an order of the ledger. */
static void set_moving(struct order *order, struct sale_counts *counts, bool moving)
{
	if (order->moving == moving)
		return;
	order->moving = moving;
	if (counts && moving)
		atomic_fetch_add(&counts->moving, order->admission.quantity);
	else if (counts)
		atomic_fetch_sub(&counts->moving, order->admission.quantity);
}

void orders_change_reclaimed(struct orders *orders, uint64_t serial, struct sale_counts *counts)
{
	struct order *order;

	pthread_mutex_lock(&orders->lock);
	order = find(orders, serial);
	if (order) {
		order->in_gate = true;
		set_moving(order, counts, true);
	}
	pthread_mutex_unlock(&orders->lock);
}

/* From one state of the ledger to another: its figures follow. */
static void move_units(struct order *order, const struct order_facts *facts, struct sale_counts *counts)
{
	uint64_t units = order->admission.quantity;
	bool leaves = facts->state == ORDER_REFUNDED && !facts->restocked;

	count_state(counts, order->state, -1);
	count_state(counts, facts->state, 1);
	if (counts && order_is_live(order->state))
		atomic_fetch_sub(order->state == ORDER_HELD ? &counts->held : &counts->confirmed, units);
	if (counts && order_is_live(facts->state))
		atomic_fetch_add(facts->state == ORDER_HELD ? &counts->held : &counts->confirmed, units);
	if (counts && leaves)
		atomic_fetch_sub(&counts->put_in, units);
	set_moving(order, counts, order->in_gate && !order_is_live(facts->state) && !leaves);
}

enum order_units orders_change_end(
	struct orders *orders, uint64_t serial, const struct order_facts *facts, struct sale_counts *counts)
{
	enum order_units units = ORDER_UNITS_STAY;
	struct order *order;

	pthread_mutex_lock(&orders->lock);
	order = find(orders, serial);
	if (order && facts && facts->state > order->state) {
		move_units(order, facts, counts);
		take_facts(order, facts);
	}
	if (order && order->asked)
		order->asked--;
	if (order && !order->asked && order->in_gate && !order_is_live(order->state)) {
		units = order->state == ORDER_REFUNDED && !order->restocked ? ORDER_UNITS_LEAVE : ORDER_UNITS_RETURN;
		order->in_gate = false;
		set_moving(order, counts, false);
	}
	pthread_mutex_unlock(&orders->lock);
	return units;
}

void orders_walk(struct orders *orders, void (*visit)(const struct order *order, void *arg), void *arg)
{
	pthread_mutex_lock(&orders->lock);
	for (unsigned i = 0; i < orders->bucket_count; i++)
		for (struct order *order = orders->buckets[i]; order; order = order->next)
			visit(order, arg);
	pthread_mutex_unlock(&orders->lock);
}

void orders_align(struct orders *orders)
{
	pthread_mutex_lock(&orders->lock);
	for (unsigned i = 0; i < orders->bucket_count; i++)
		for (struct order *order = orders->buckets[i]; order; order = order->next)
			order->in_gate = !order_is_durable(order->state) || order_is_live(order->state);
	pthread_mutex_unlock(&orders->lock);
}

uint64_t orders_refused_units(struct orders *orders, uint32_t sale)
{
	uint64_t units = 0;

	pthread_mutex_lock(&orders->lock);
	for (unsigned i = 0; i < orders->bucket_count; i++)
		for (struct order *order = orders->buckets[i]; order; order = order->next)
			if (order->state == ORDER_REFUSED && order->admission.sale == sale)
				units += order->admission.quantity;
	pthread_mutex_unlock(&orders->lock);
	return units;
}

int orders_forget(struct orders *orders, uint64_t serial, struct sale_counts *counts)
{
	struct order **at, *order;
	int err = 0;

	pthread_mutex_lock(&orders->lock);
	at = bucket_of(orders, serial);
	while (*at && (*at)->serial != serial)
		at = &(*at)->next;
	order = *at;
	if (!order) {
		err = -ENOENT;
	} else if (order->state == ORDER_SEEN || order->state == ORDER_QUEUED || order->asked ||
		!LIST_EMPTY(&order->waiters)) {
		err = -EBUSY;
	} else {
		count_state(counts, order->state, -1);
		*at = order->next;
		orders->count--;
		free(order);
	}
	pthread_mutex_unlock(&orders->lock);
	return err;
}

unsigned orders_count(struct orders *orders)
{
	unsigned count;

	pthread_mutex_lock(&orders->lock);
	count = orders->count;
	pthread_mutex_unlock(&orders->lock);
	return count;
}
