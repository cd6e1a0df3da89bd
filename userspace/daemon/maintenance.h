/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What has to be done now and then: expired tokens, list entries and admissions, late waiters, the conservation equation. */
#ifndef SLUICE_DAEMON_MAINTENANCE_H
#define SLUICE_DAEMON_MAINTENANCE_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/daemon.h"
#include "daemon/sales.h"

int maintenance_start(struct daemon *d);
void maintenance_stop(void);
/* Is the sale over for so long that the gate may forget its admissions and buyers? */
bool maintenance_is_forgotten(const struct sale *sale, uint64_t wall_ns);

/* Asks the ledger for the figures of all sales, which it counts itself. Pipeline's and maintenance's threads. */
void maintenance_ask_figures(struct daemon *d);

/* Units of a sale, read so that they fit together. */
struct stock_view {
	uint64_t put_in, free, held, confirmed, in_flight, refused;
	bool balanced;
	bool whole; /* no change of orders was under way while it was read */
};
void maintenance_read_stock(struct daemon *d, const struct sale *sale, struct stock_view *view);

#endif
