/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A movement of a sale's stock on its way to the ledger, and what it does in the gate meanwhile.
 *
 * Put in: the ledger first, then the gate. Taken away: out of the gate first (all or none, never what is ordered), then out of the ledger; if the
 * ledger refuses, back into the gate. So at no moment can more be sold than the ledger has. Whatever a crash cuts off in between,
 * recovery.c finds by comparing the two.
 */
#ifndef SLUICE_DAEMON_STOCK_CHANGE_H
#define SLUICE_DAEMON_STOCK_CHANGE_H

#include <stdint.h>

#include "daemon/pipeline.h"
#include "daemon/sales.h"

/* The pipeline's thread owns it once the question has been asked. */
struct stock_change {
	struct sale sale;
	uint64_t wanted; /* units to take out of the gate before the ledger is asked; 0 = none */
	uint64_t taken;
};

/* For the hooks of a stock_move (pipeline.h). Returns 0, or -ENOSPC: fewer units are free. */
int stock_change_prepare(struct daemon *d, struct stock_change *change);
/* The ledger has spoken, or never will. */
void stock_change_complete(struct daemon *d, struct stock_change *change, const struct pipeline_answer *answer);

#endif
