/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The part of the fleet that appends what becomes of orders and sales to a Redis Stream for each sale (docs/stream.md): exactly in the order of this
 * node's ledger, at least once.
 *
 * The ledger is the queue, and the cursor in Redis, which the script moves that appends, is all that is known of how far a stream is.
 */
#ifndef SLUICE_DAEMON_FLEET_STREAM_H
#define SLUICE_DAEMON_FLEET_STREAM_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "daemon/daemon.h"
#include "daemon/fleet.h"
#include "daemon/ledger_events.h"

/* Does nothing with fleet.stream = false. */
extern const struct fleet_part fleet_stream_part;

struct fleet_stream_status {
	uint64_t appended; /* events, since the start */
	uint64_t waiting;  /* events and orders that are known and not in a stream yet */
	double lag_s;      /* age of the oldest of them, 0 if there is none */
};
/* Any thread. All zero without a stream. */
void fleet_stream_status(struct daemon *d, struct fleet_stream_status *status);
/* Metrics, if there is a stream. Any thread. */
void fleet_stream_render(struct daemon *d, FILE *out);
/* When neither the fleet's thread nor the pipeline runs any more. */
void fleet_stream_free(void);

/* fleet_stream_entry.c: an event as stream_append.lua takes it: a JSON array of names and values, all of them texts. To be freed by the caller; NULL
 * without memory, or if the event's order is none.
 */
char *fleet_stream_entry_text(struct daemon *d, const struct ledger_event *event);

#endif
