/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Who is there: each node reports itself every four seconds, and hears of the others (PREFIX:{fleet}:nodes, scripts/node_report.lua).
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

#endif
