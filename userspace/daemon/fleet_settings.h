/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What is set on one node reaches all: limits, shadow switches, answers, the CORS origin, deny and allow lists, sales.
 *
 * A route that has changed something calls the function for it below, while it holds the lock under which it changed it, and later waits
 * (fleet_settings_await) for Redis to have it. What others have set is done here by a thread of this part, under the same locks and by the same
 * functions as the routes', and is not told again.
 *
 * Without a fleet all of this does nothing, and awaiting says yes.
 */
#ifndef SLUICE_DAEMON_FLEET_SETTINGS_H
#define SLUICE_DAEMON_FLEET_SETTINGS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "daemon/answers_state.h"
#include "daemon/daemon.h"
#include "daemon/fleet.h"
#include "daemon/sales.h"

extern const struct fleet_part fleet_settings_part;

/* Reads what this node knows of the fleet's settings, from the file "settings" in the state directory. As the user that the daemon will be. Returns 0 or negative
 * errno with a sentence.
 */
int fleet_settings_open(struct daemon *d, char *error, size_t error_size);
/* Starts the thread. Returns 0 or negative errno. */
int fleet_settings_start(struct daemon *d);
void fleet_settings_stop(struct daemon *d); /* before pipeline and kept.c stop */
void fleet_settings_free(struct daemon *d);

/* These look at what is in force now, and tell the others if it is news. They return the number of the change, for fleet_settings_await; 0: none. */
uint64_t fleet_settings_note_limits(struct daemon *d, uint64_t set);            /* SLUICE_KEPT_*; under change_lock */
uint64_t fleet_settings_note_answer(struct daemon *d, enum sluice_answer code); /* under answers_lock */
uint64_t fleet_settings_note_origin(struct daemon *d);                          /* under answers_lock */
uint64_t fleet_settings_note_entries(
	struct daemon *d, const struct sluice_list_key *keys, unsigned count); /* under kept_lists_lock */
/* A sale was made or changed here, and the ledger has it so; on the pipeline's thread, or under change_lock. Nothing for one that is not the fleet's: it is from
 * before this node belonged to it, and its own.
 */
void fleet_settings_note_sale(struct daemon *d, const struct sale *sale);
/* The number of what was noted of the sale last. */
uint64_t fleet_settings_change_of_sale(struct daemon *d, const struct sale *sale);

/* Waits until Redis has the change. False at once if Redis is known to be away, and when it has not answered for a second: it goes out later. */
bool fleet_settings_await(struct daemon *d, uint64_t change);
/* Adds "not_replicated":true to an answer if it is not. */
json_t *fleet_settings_mark(json_t *answer, bool is_replicated);

/* Gives a new sale its number, which no node knows already. Waits for Redis. Returns 0; -EEXIST: the fleet has a sale of that name, which
 * is on its way to this node; -ESTALE: it has one that is over, which does not come any more; -ENOTCONN: Redis cannot be asked; -ENOSPC: there is no room for one more sale. *is_again: somebody has asked before, and
 * may have made its stock.
 */
int fleet_settings_new_sale(struct daemon *d, const char *slug, uint32_t *id, bool *is_again);

struct fleet_settings_status {
	uint64_t settings, removed; /* that this node knows of, and of these those that were removed */
	uint64_t place,
		behind;   /* in the order in which Redis has them: where this node is, and how many come after it */
	uint64_t unsent;  /* changed here, and not with Redis */
	uint64_t due;     /* known, and not in force here yet */
	uint64_t refused; /* that cannot be in force here: see the log */
	uint64_t published, pulled; /* changes, since the start */
	uint64_t losses;            /* times that Redis had lost its memory, or may have */
};
void fleet_settings_status(struct daemon *d, struct fleet_settings_status *status);
/* The member `settings` of what is told of the fleet; with d->settings. New reference. */
json_t *fleet_settings_json(struct daemon *d);
/* Lines of /metrics, and the line of GET /readyz?verbose with its newline; nothing where this node is alone. */
void fleet_settings_render(struct daemon *d, FILE *out);
void fleet_settings_ready(struct daemon *d, char *text, size_t size);

#endif
