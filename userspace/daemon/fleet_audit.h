/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What every node holds, told by every node out of its own ledger: somebody asks with a number, in a message ("audit NUMBER") and in Redis, and each
 * node that hears of it answers with its books. Several may ask at once. For `sluice verify --fleet`.
 *
 * PREFIX:{fleet}:audit is the number that was asked for last; PREFIX:{fleet}:audit:NUMBER has a field for each node that has answered. Both
 * vanish by themselves.
 */
#ifndef SLUICE_DAEMON_FLEET_AUDIT_H
#define SLUICE_DAEMON_FLEET_AUDIT_H

#include <jansson.h>

#include "daemon/fleet.h"

extern const struct fleet_part fleet_audit_part;

/* Asks, and waits until every node of the config has answered, 2.5 s at most. Returns 0 with *answer, {"nodes":{"1":{…} or null,…}}, or -ENOTCONN,
 * -ETIMEDOUT, -EREMOTEIO (*failure says what Redis said), -ENOMEM. HTTP threads.
 */
int fleet_audit_ask(struct daemon *d, json_t **answer, char *failure, size_t failure_size);

#endif
