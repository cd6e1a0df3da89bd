/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Units of a fleet: the part that leases units from Redis for each sale of this node, and gives them back.
 *
 * What a node may sell is what its ledger has put in; a lease is a stock movement in that ledger, made in one transaction with the book of the
 * sale (fleet/lease.h), a document "lease.<id>". So whatever is lost, the ledger tells what this node holds.
 *
 * fleet_leases_part runs on the fleet's thread. Everything else here may be called by any HTTP thread, with d->fleet set.
 */
#ifndef SLUICE_DAEMON_FLEET_LEASES_H
#define SLUICE_DAEMON_FLEET_LEASES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/daemon.h"
#include "daemon/fleet.h"

struct fleet_leases;

extern const struct fleet_part fleet_leases_part;

/* Returns 0 or -ENOMEM. Safe without a fleet. */
int fleet_leases_open(struct daemon *d);
void fleet_leases_free(struct daemon *d);

/* What this node knows of a sale's units. */
struct fleet_stock {
	bool known;        /* Redis has told of the sale in this daemon's life; else the figures from there are 0 */
	bool settled;      /* this node may sell: Redis has agreed to its book since this daemon began */
	bool withheld;     /* it may not */
	uint64_t total;    /* of the fleet: units put in less taken away */
	uint64_t free;     /* leased to no node */
	uint64_t outside;  /* leased to other nodes and not sold, as they last said */
	uint64_t balance;  /* leased to this node, sold ones included: its book */
	uint64_t epoch;    /* of this node's lease; grows when it is fenced */
	uint64_t deficit;  /* units that are missing in the sum: an alarm */
	unsigned missing;  /* nodes that have not settled since Redis lost its memory */
};

/* Returns 0, or -ENOENT: no lease is known of the sale (yet). */
int fleet_leases_stock(struct daemon *d, uint32_t sale, struct fleet_stock *stock);
/* The same as JSON, for the sale and its stock in the control API. New reference; never NULL but for memory. */
json_t *fleet_leases_json(struct daemon *d, uint32_t sale);

/* The next two wait until Redis has answered, or for some rounds' time at the most; they return 0, or
 * -ENOTCONN: Redis was not asked, nothing has changed; -ETIMEDOUT: nobody knows, ask again with the same words.
 */

/* Makes the sale's total in Redis, with all of it free. The same again is no error. -EEXIST: the sale has another total already, which is *total. */
int fleet_leases_create(struct daemon *d, const char *slug, uint64_t stock, uint64_t *total);
/* Changes the total by `delta`, once per `key`. *total: what it is then. -ENOSPC: fewer units are free than would be taken away (*available
 * are, and idle nodes have been asked to give theirs back).
 */
int fleet_leases_move(struct daemon *d, const char *slug, int64_t delta, const char *key, uint64_t *total, uint64_t *available);

#endif
