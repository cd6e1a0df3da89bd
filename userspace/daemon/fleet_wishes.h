/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What somebody else than the fleet's thread wants of Redis, and waits for: for one sale or for several, each with the calls that it needs.
 *
 * The wish is made by an HTTP thread, asked on the fleet's thread in the rounds that go anyway, and taken back when it has lasted too long. What was
 * on its way then may still happen, so whatever is wished must be safe to wish again.
 */
#ifndef SLUICE_DAEMON_FLEET_WISHES_H
#define SLUICE_DAEMON_FLEET_WISHES_H

#include <jansson.h>

#include "daemon/fleet.h"
#include "daemon/sales.h"
#include "fleet/lease.h"

struct fleet_wish;

struct fleet_wish_item {
	struct fleet_wish *wish;
	char slug[SALE_SLUG_MAX + 1]; /* "": of no sale */
	unsigned phase;               /* of the calls that it takes; 0 at first, counted by `take` */
	unsigned tries;               /* of one phase, where `take` counts them */
	bool asked, finished;
	int error;                 /* when it is finished: 0, or as in struct redis_call */
	json_t *known;             /* what the phases have found out; the wish's */
	struct lease_reply answer; /* the last one, of who asks the scripts of leases */
	char failure[128];
};

struct fleet_wish_kind {
	/* Adds the call of the item's phase to the round, with fleet_wish_done and the item. False: the round is full. */
	bool (*ask)(struct daemon *d, struct fleet_round *round, struct fleet_wish_item *item);
	/* Takes an answer that is no error. Returns true if the item is finished. */
	bool (*take)(struct daemon *d, struct fleet_wish_item *item, const redisReply *reply);
};

struct fleet_wish {
	const struct fleet_wish_kind *kind;
	json_t *wanted; /* for `ask`; the wish's */
	unsigned count;
	struct fleet_wish_item *items;
	/* the rest is of fleet_wishes.c */
	struct fleet_wish *next;
	unsigned on_way; /* calls */
	bool over, left; /* under lock: all items are finished; who wished has gone */
};

struct fleet_wishes;

struct fleet_wishes *fleet_wishes_new(void);
void fleet_wishes_free(struct fleet_wishes *wishes);

/* A wish for `count` items, zeroed but for their wish. Takes `wanted` over. NULL without memory. */
struct fleet_wish *fleet_wish_new(const struct fleet_wish_kind *kind, unsigned count, json_t *wanted);
/* Waits until all items are finished. Returns 0: look at the items, then fleet_wish_free; or -ETIMEDOUT: the wish is gone, and so are its items. */
int fleet_wish_wait(struct daemon *d, struct fleet_wishes *wishes, struct fleet_wish *wish, unsigned timeout_ms);
/* What became of all items of a wish that is over: 0; the error that they have in common or that left most open, with *failure; or -EINPROGRESS: some were
 * done, and others surely not.
 */
int fleet_wish_error(const struct fleet_wish *wish, char *failure, size_t failure_size);
void fleet_wish_free(struct fleet_wish *wish);

/* On the fleet's thread. Returns false if the round was too full for all. */
bool fleet_wishes_step(struct daemon *d, struct fleet_wishes *wishes, struct fleet_round *round);
/* The callback of every call of an item, which is its `arg`. */
void fleet_wish_done(struct daemon *d, void *arg, int error, const redisReply *reply);

#endif
