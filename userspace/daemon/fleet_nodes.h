/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Who is there: each node reports itself once a second, and hears of the others (PREFIX:{fleet}:nodes, scripts/node_report.lua).
 *
 * It is for people to look at; nothing is decided by it.
 */
#ifndef SLUICE_DAEMON_FLEET_NODES_H
#define SLUICE_DAEMON_FLEET_NODES_H

#include <jansson.h>
#include <stdint.h>

#include "daemon/fleet.h"

extern const struct fleet_part fleet_nodes_part;

/* Returns 0 or -ENOMEM. */
int fleet_nodes_open(struct daemon *d);
void fleet_nodes_free(struct daemon *d);

/* {"nodes":[…],"redis":{…}} as GET /v1/nodes has it, of what was heard last: every node of the config, and others that have reported. Any thread. NULL: no
 * memory.
 */
json_t *fleet_nodes_json(struct daemon *d);

/* Events of the ledger that this node has not yet appended to the streams of its sales; told with the next report. Any thread. */
void fleet_nodes_set_stream_lag(struct daemon *d, uint64_t events);

/* What a node holds of each sale: [{"sale","balance","sold","epoch","rate","fenced"}]. Set by the part that knows, before the start; called by
 * HTTP threads. Where it returns NULL, or is not set, nothing is known.
 */
typedef json_t *(*fleet_nodes_leases_fn)(struct daemon *d, uint32_t node);
void fleet_nodes_set_leases(struct daemon *d, fleet_nodes_leases_fn leases);

#endif
