/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Units of a fleet: the part that leases units from Redis for each sale of this node, and gives them back.
 *
 * What a node may sell is what its ledger has put in; a lease is a stock movement in that ledger, made in one transaction with the book of the
 * sale (fleet/lease_book.h), a document "lease.<id>". So whatever is lost, the ledger tells what this node holds.
 *
 * fleet_leases_part runs on the fleet's thread. Everything else here may be called by any HTTP thread, with d->fleet set.
 */
#ifndef SLUICE_DAEMON_FLEET_LEASES_H
#define SLUICE_DAEMON_FLEET_LEASES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "daemon/daemon.h"
#include "daemon/fleet.h"
#include "fleet/lease.h"

#define FLEET_BOOK_PREFIX "lease."

struct fleet_wish;
struct sale;

extern const struct fleet_part fleet_leases_part;

/* Returns 0 or -ENOMEM. Both are safe without a fleet; freeing after the pipeline was stopped. */
int fleet_leases_open(struct daemon *d);
void fleet_leases_free(struct daemon *d);

/* What this node knows of a sale's units. */
struct fleet_stock {
	bool is_known;    /* Redis has told of the sale in this daemon's life; else what is of Redis is 0 */
	bool is_open;     /* Redis leases units; else it waits for nodes that have not told it what they hold */
	bool is_settled;  /* and has agreed to this node's book */
	bool is_withheld; /* this node may not sell */
	enum lease_trouble trouble;
	uint64_t total;   /* units of the sale on all nodes: put in less taken away */
	uint64_t version; /* of the total, as this node's ledger has it */
	/* what made that version */
	char operation[LEASE_OPERATION_MAX];
	uint64_t free;    /* leased to no node */
	uint64_t outside; /* leased to other nodes and not sold, as they last said */
	uint64_t deficit; /* units that are leased beyond the total: an alarm */
	uint64_t balance; /* leased to this node, sold ones included: its book */
	uint64_t sold;    /* of these */
	uint64_t epoch;   /* of this node's lease; grows when it is fenced */
	bool is_fenced;   /* as Redis said last */
	double rate;      /* units that this node sells in a second */
	struct lease_members missing;
};

/* Returns 0, or -ENOENT: the sale has no lease (yet), or none at all: it is older than the fleet. */
int fleet_leases_stock(struct daemon *d, uint32_t sale, struct fleet_stock *stock);
/* Adds the nodes that may hold units of the sale by this node's ledger; nobody where it has no lease. On the fleet's thread. */
void fleet_leases_join_members(struct daemon *d, uint32_t sale, struct lease_members *members);
/* Completes the JSON of a sale of the fleet: "stock" becomes the total of all nodes, and "fleet" tells the rest; it is null for a sale that is this node's own. Without a
 * fleet it does nothing.
 */
void fleet_leases_describe(struct daemon *d, const struct sale *sale, uint64_t put_in, json_t *json);
/* For a sale of the fleet: *total becomes that of all nodes, and to *free_units comes what is free elsewhere, as was heard last. Else they stay as they are. */
void fleet_leases_widen(struct daemon *d, uint32_t sale, uint64_t *total, uint64_t *free_units);
/* Is the stock of the sale the fleet's? Else it is moved on this node alone. */
bool fleet_leases_has(struct daemon *d, uint32_t sale);

/* These wait until Redis has answered, or for some rounds' time at the most; they return 0, or -ENOTCONN: Redis was not asked, nothing has changed;
 * -EREMOTEIO: it refused, nothing has changed; -ETIMEDOUT: nobody knows, ask again with the same words; -EAGAIN: it waits for nodes that have not told
 * it what they hold; -EINPROGRESS: it was done for some sales and not for others, ask again; -ENOMEM.
 */

/* Makes the sale's total in Redis, with all of it free. The same again is no error. -EEXIST: the sale has another total already, which is *total.
 * `may_be_sold`: it may have been made before, and sold from, and lost with Redis, so all nodes tell what they hold before a unit is leased. So do
 * they after a call of this node whose answer was lost.
 */
int fleet_leases_create(struct daemon *d, const char *slug, uint64_t stock, bool may_be_sold, uint64_t *total);
/* Is it a sale of the fleet of which this node's ledger has no total? Then there may be none anywhere: Redis can lose a sale before a ledger has it. */
bool fleet_leases_lacks_total(struct daemon *d, uint32_t sale);
/* Waits until the total that was made is in this node's ledger, so that it is not lost with Redis: after the ledger has the sale. -ETIMEDOUT: it will be. */
int fleet_leases_await(struct daemon *d, const char *slug);
/* Changes the total by `delta`, once per `key` (1..63 of A-Z a-z 0-9 . _ : -), and waits until this node's ledger has it. *total: what it is then.
 * -ENOSPC: fewer units are free than would be taken away (*available are, and the nodes have been asked to give back what they do not need). -ERANGE:
 * there would be more than LEASE_UNITS_MAX.
 */
int fleet_leases_move(
	struct daemon *d, const char *slug, int64_t delta, const char *key, uint64_t *total, uint64_t *available);

/* What the operator says of a node that is gone. */
struct fleet_fence {
	unsigned node;
	const char *slug; /* NULL: every sale */
	int64_t sold;     /* units; -1: nobody knows, so all that it may hold counts as sold */
	bool is_exact;    /* that was read in its ledger, and may be less than it last told */
	int64_t heard;    /* what "heard" was (fleet_leases_read) before the ledger was read; -1: not looked at */
};

/* `rows` gets of each sale {"sale","result","balance","sold","given_back","epoch"}: what it held, what counts as sold. result is "fenced", "heard_of" (it has
 * spoken since then, so it is alive), "unknown" (Redis does not know the sale, or the node in it) or "out_of_range" (sold is more than it
 * holds, or less than it has told).
 */
int fleet_leases_fence(
	struct daemon *d, const struct fleet_fence *fence, json_t *rows, char *failure, size_t failure_size);
/* Redis forgets what it knows of leases, and all nodes tell it anew. `rows` gets {"sale","free_before"} of each. */
int fleet_leases_rebuild(struct daemon *d, json_t *rows, char *failure, size_t failure_size);
/* What Redis says of each sale, and of each node in it: {"SLUG":{"state","over","total","version","free","outside","deficit","missing":[1,…],"nodes":{"1":
 * {"balance","sold","epoch","seq","heard","fenced","settled"}}} or null}.
 */
int fleet_leases_read(struct daemon *d, json_t **sales, char *failure, size_t failure_size);

/* Waits for a wish (fleet_wishes.h) as long as a control request may. Returns as fleet_wish_wait. */
int fleet_leases_wish(struct daemon *d, struct fleet_wish *wish);
/* The question to the order writer for what this node holds of the sales with ids above `after`. */
json_t *fleet_leases_question(uint32_t after);
/* What this node holds of the sales that are in its gate, the latest `limit` of them: [{"sale","balance","sold","epoch","rate","fenced","trouble"}]. Any thread.
 * NULL: no leases, or no memory.
 */
json_t *fleet_leases_report(struct daemon *d, unsigned limit);
/* In how many of the sales that are in the gate is there this trouble? 0 without a fleet. */
unsigned fleet_leases_troubled(struct daemon *d, enum lease_trouble trouble);
/* Writes the metrics. */
void fleet_leases_render(struct daemon *d, FILE *out);

#endif
