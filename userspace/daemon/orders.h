/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The order table: every admission the daemon knows of, by serial, what has become of it, and the connections that wait for one to be durable. */
#ifndef SLUICE_DAEMON_ORDERS_H
#define SLUICE_DAEMON_ORDERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "daemon/sales.h"
#include "sluice/abi.h"

/* held -> confirmed | cancelled | expired, confirmed -> refunded, expired -> confirmed (paid late). Each step leads further down this list and
 * none back, so of two answers of the ledger the one further down is the later: an old answer that is told again (Idempotency-Key)
 * changes nothing here.
 */
enum order_state {
	ORDER_SEEN,    /* an HTTP request knows of it; its record has not come through the ring yet */
	ORDER_QUEUED,  /* on its way to the ledger */
	ORDER_REFUSED, /* the ledger's own guard said no: an alarm */
	ORDER_HELD,    /* from here on: durable */
	ORDER_EXPIRED,
	ORDER_CONFIRMED,
	ORDER_CANCELLED,
	ORDER_REFUNDED,
	ORDER_STATE_COUNT
};

static inline bool order_is_durable(enum order_state state)
{
	return state >= ORDER_HELD;
}

/* Do its units count, for the sale and for the buyer? */
static inline bool order_is_live(enum order_state state)
{
	return state == ORDER_HELD || state == ORDER_CONFIRMED;
}

/* As the API says it; "pending" for what is not durable. */
const char *order_state_name(enum order_state state);
/* The ledger's word, or its number (enum wire_order_state). Returns ORDER_STATE_COUNT for what is none. */
enum order_state order_state_of_word(const char *word);
enum order_state order_state_of_wire(uint32_t state);

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
	uint64_t queued_ns; /* mono; the pipeline's thread alone */
	uint64_t seq, committed_ns;
	uint64_t expires_ns, resolved_ns; /* 0 = never, not; right only with has_times */
	uint32_t hold_seconds;            /* as it was sent */
	enum order_state state;
	unsigned asked;             /* changes that the ledger was asked for and has not answered */
	bool answered;              /* a 201 has been given, or a daemon before this one may have given it */
	bool has_times;             /* else only the ledger knows when it expires: ask it */
	bool restocked;             /* refunded, and its units are for sale again */
	bool in_gate;               /* the gate counts its units as taken, and as its buyer's */
	bool moving;                /* its units are counted in `moving` of the sale */
	struct sale_counts *counts; /* in whose `pending` this order is counted; NULL: in none */
	LIST_HEAD(, order_waiter) waiters;
};

/* What an HTTP thread gets to see. */
struct order_view {
	uint64_t serial, seq, committed_ns, expires_ns, resolved_ns;
	struct sluice_admission admission;
	enum order_state state;
	bool has_times;    /* expires_ns and resolved_ns are known */
	bool in_gate;      /* see struct order */
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
	enum order_state state;     /* durable, or REFUSED */
	bool known;                 /* it was in the ledger before */
	struct sale_counts *counts; /* of its sale; NULL: none that is known */
};
/* Settles orders and wakes who waited for them. */
void orders_settle(struct orders *orders, const struct order_ack *acks, unsigned count);

/* What the ledger says of an order. */
struct order_facts {
	enum order_state state;
	uint64_t seq, committed_ns, expires_ns, resolved_ns;
	bool restocked;
};
/* Enters an order that the ledger has. Returns 0 or -ENOMEM. */
int orders_put_durable(struct orders *orders, uint64_t serial, const struct sluice_admission *admission,
	const struct order_facts *facts, struct sale_counts *counts);
/* Takes the times of an order over, if it is still in the state that `facts` speak of. */
void orders_learn_times(struct orders *orders, uint64_t serial, const struct order_facts *facts);

/* A change of an order, on the pipeline's thread: begin, the question to the ledger, end. The units of an order are given back to the gate when the
 * ledger has said that it is over, and not before every change that was asked for has been answered: so nothing is given back while
 * another answer may still claim it, and nothing twice, whatever comes again or late.
 */
/* Returns 0 with *view, -ENOENT: the table has no such order (any more), -EAGAIN: it is not durable yet. After 0, `end` must follow. */
int orders_change_begin(struct orders *orders, uint64_t serial, struct order_view *view);
/* Its units were taken out of the gate again, for a confirmation that comes late. */
void orders_change_reclaimed(struct orders *orders, uint64_t serial, struct sale_counts *counts);
enum order_units {
	ORDER_UNITS_STAY,
	ORDER_UNITS_RETURN, /* the caller gives units and buyer's count back */
	ORDER_UNITS_LEAVE,  /* the caller gives only the buyer's count back: the units have left the stock */
};
/* `facts` NULL: the ledger has not changed it. `counts` follow (may be NULL); call it between sale_counts_change_begin and _end, with what
 * is to be done in the gate.
 */
enum order_units orders_change_end(
	struct orders *orders, uint64_t serial, const struct order_facts *facts, struct sale_counts *counts);
/* Calls `visit` for every order, under the table's lock. */
void orders_walk(struct orders *orders, void (*visit)(const struct order *order, void *arg), void *arg);
/* The gate's words have just been set by what the table says: live and refused orders are in the gate, the others are not. */
void orders_align(struct orders *orders);
/* Units of a sale that the ledger refused. Walks the table; only of use after a refusal. */
uint64_t orders_refused_units(struct orders *orders, uint32_t sale);

/* Maintenance. Forgets a settled order. Returns 0, -ENOENT, or -EBUSY if it is not settled, is being changed, or somebody waits. */
int orders_forget(struct orders *orders, uint64_t serial, struct sale_counts *counts);
unsigned orders_count(struct orders *orders);

#endif
