/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The order table: every admission the daemon knows of, by serial, and the connections that wait for one to be durable. */
#ifndef SLUICE_DAEMON_ORDERS_H
#define SLUICE_DAEMON_ORDERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "daemon/sales.h"
#include "sluice/abi.h"

enum order_state {
	ORDER_SEEN,   /* an HTTP request knows of it; its record has not come through the ring yet */
	ORDER_QUEUED, /* on its way to the ledger */
	ORDER_DURABLE,
	ORDER_REFUSED, /* the ledger's own guard said no: an alarm */
};

/* A connection that waits. Lives in the HTTP request; `wake` resumes it, outside of any lock of the table. */
struct order_waiter {
	TAILQ_ENTRY(order_waiter) by_deadline;
	LIST_ENTRY(order_waiter) by_order;
	uint64_t deadline_ns; /* mono */
	void (*wake)(struct order_waiter *waiter);
};
TAILQ_HEAD(order_waiter_queue, order_waiter);

struct order {
	struct order *next;          /* in the hash chain */
	STAILQ_ENTRY(order) pending; /* in the pipeline's queue; its thread alone */
	uint64_t serial;
	struct sluice_admission admission;
	uint64_t seq, committed_ns;
	enum order_state state;
	bool answered;              /* a 201 has been given, or a daemon before this one may have given it */
	struct sale_counts *counts; /* in whose `pending` this order is counted; NULL: in none */
	LIST_HEAD(, order_waiter) waiters;
};

/* What an HTTP thread gets to see. */
struct order_view {
	uint64_t serial, seq, committed_ns;
	struct sluice_admission admission;
	enum order_state state;
	bool first_answer; /* durable, and this is the first time it is told */
};

struct orders;

struct orders *orders_new(void);
void orders_free(struct orders *orders);

/* HTTP side. Looks at the order of `serial`, which the judge has admitted, and makes its entry if the ring's record has not come
 * yet. If it is not decided and `waiter` is given, the waiter is registered for `deadline_ns`, and `suspend` is called for it under the
 * table's lock, so that it cannot be woken before. Returns 1 if it waits now, 0 if not, -ENOMEM.
 */
int orders_look_or_wait(struct orders *orders, uint64_t serial, const struct sluice_admission *admission,
	struct order_view *view, struct order_waiter *waiter, void (*suspend)(struct order_waiter *));
/* Copies what is known. Returns 0 or -ENOENT. */
int orders_find(struct orders *orders, uint64_t serial, struct order_view *view);
/* Wakes the waiters whose time is up, or all of them, for good: nobody waits any more after `all`. */
void orders_wake_expired(struct orders *orders, uint64_t now_mono_ns);
void orders_wake_all_and_close(struct orders *orders);

/* Pipeline side. The order to be sent for a record, or NULL if it was queued before (or -ENOMEM in *err). `answered`: a daemon before this
 * one may have told the buyer.
 */
struct order *orders_queue(struct orders *orders, uint64_t serial, const struct sluice_admission *admission,
	struct sale_counts *counts, bool answered, int *err);
struct order_ack {
	struct order *order;
	uint64_t seq, committed_ns;
	enum order_state state; /* DURABLE or REFUSED */
	bool known;             /* it was in the ledger before */
};
/* Settles orders and wakes who waited for them. */
void orders_settle(struct orders *orders, const struct order_ack *acks, unsigned count);
/* Enters an order that the ledger has. Returns 0 or -ENOMEM. */
int orders_put_durable(struct orders *orders, uint64_t serial, const struct sluice_admission *admission, uint64_t seq,
	uint64_t committed_ns);
/* Units of a sale that the ledger refused. Walks the table; only of use after a refusal. */
uint64_t orders_refused_units(struct orders *orders, uint32_t sale);

/* Maintenance. Forgets a settled order. Returns 0, -ENOENT, or -EBUSY if it is not settled or somebody waits. */
int orders_forget(struct orders *orders, uint64_t serial);
unsigned orders_count(struct orders *orders);

#endif
