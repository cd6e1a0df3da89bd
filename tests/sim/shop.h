/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* For tests that go step by step: one Redis, and daemons with their ledgers that do what lease.c says, without faults and without chance. Time is what the
 * test says. A test whose step cannot be done fails.
 */
#ifndef SLUICE_SIM_SHOP_H
#define SLUICE_SIM_SHOP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "coordinator.h"
#include "fleet/lease.h"

#define MS 1000000ull
#define SECOND (1000 * MS)
#define TOTAL 100
#define NODES 3
#define STEPS_MAX 64
#define SILENT (20 * SECOND) /* LEASE_SILENT_MS of prelude.lua */

extern struct process redis;
extern uint64_t now;
extern bool said;      /* the last call has published "look" */
extern unsigned calls; /* so far */

/* A daemon with its ledger; a copy of it is a copy of both. */
struct shop {
	struct lease_options options;
	struct lease lease;
	struct lease_book book;
	int64_t unsold;
	uint64_t admitted; /* by this ledger, orders of one unit */
	bool leaving, over;
	uint64_t rest_ns;
};

/* Setup and teardown of a group. */
int scripts_open(void **state);
int scripts_close(void **state);

/* One call. Returns whether the answer is "ok". */
bool ask(const struct lease_call *call, struct lease_reply *reply);
/* The daemon, with the ledger that is there. */
void start(struct shop *shop);
/* A new ledger, and its daemon. */
void open_shop(struct shop *shop, unsigned node, const char *origin);
/* Until it has nothing to do, or has done so many steps. */
void go_on(struct shop *shop, unsigned steps);
void wait_for(struct shop *shop, uint64_t ns);
bool sells(const struct shop *shop);
void sell(struct shop *shop, int64_t units);
/* Goes on selling until it has units of another grant. */
void sell_into_the_next_lease(struct shop *shop);
int64_t sold(const struct shop *shop);
int64_t free_units(const struct shop *shop);
/* An empty Redis. */
void begin_redis(void);
/* The sale is there, and both nodes have a lease; the third may come. */
void begin(struct shop *one, struct shop *two);
/* units -1: nobody knows what it has sold. */
void fence(struct shop *by, unsigned node, int64_t units);

#endif
