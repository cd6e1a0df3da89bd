/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A sale that is made or changed: the ledger first, then the gate. Called by the routes of sales, and for what other nodes of a fleet have set. */
#ifndef SLUICE_DAEMON_SALE_CHANGE_H
#define SLUICE_DAEMON_SALE_CHANGE_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/pipeline.h"
#include "daemon/sales.h"

/* Here: the other nodes of a fleet are told (fleet_settings_note_sale). */
enum sale_change_where { SALE_CHANGED_HERE, SALE_CHANGED_ELSEWHERE };

/* Stores `sale`, and waits for it; `stock` < 0: a change, else it is made with so many units. The gate's words, and what others are told, follow on the
 * pipeline's thread when the ledger has said yes, however late. Holds no lock of its own: one change at a time (change_lock). Returns answer->error; answer->json is not the caller's.
 */
int sale_change_store(struct daemon *d, const struct sale *sale, int64_t stock, enum sale_change_where where,
	struct pipeline_answer *answer);

/* Is there a change that nobody waits for any more, and that the ledger may still make? A change is all of a sale, so one that is made of what is known
 * now would take that one back. With change_lock held: what is not open then stays so.
 */
bool sale_change_is_open(struct daemon *d);

#endif
