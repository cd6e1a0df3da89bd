/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Which node a buyer is at home at: one for each buyer and sale, given by Redis to the node that asked first. */
#ifndef SLUICE_DAEMON_FLEET_HOMES_H
#define SLUICE_DAEMON_FLEET_HOMES_H

#include <stdint.h>

#include "daemon/daemon.h"
#include "daemon/sales.h"

struct fleet_part;
struct fleet_homes;

extern const struct fleet_part fleet_homes_part;

/* In a fleet. Returns 0 or negative errno with a sentence. */
int fleet_homes_open(struct daemon *d, char *error, size_t error_size);
/* The daemon stops: every question, waiting or new, is answered HOME_UNKNOWN. Before the listeners stop. */
void fleet_homes_stop(struct daemon *d);
/* When nobody can ask any more. */
void fleet_homes_close(struct daemon *d);

enum home_answer {
	HOME_HERE,
	HOME_ELSEWHERE,
	HOME_UNKNOWN,  /* Redis cannot be asked, or answers too late */
	HOME_SETTLING, /* Redis has lost what it knew, and not all nodes have told what they know */
	HOME_TOO_MANY  /* as many ask as may */
};

struct home_question;

/* Asks, in the next round. `wake` is called once, on the fleet's thread or at a stop, when there is an answer, unless it is NULL: then the asker calls
 * fleet_homes_wait. Returns NULL without memory, or if too many ask.
 */
struct home_question *fleet_homes_ask(
	struct daemon *d, const struct sale *sale, uint64_t buyer, void (*wake)(void *arg), void *arg);
void fleet_homes_wait(struct daemon *d, struct home_question *question);
/* After the answer. `node` gets the home if it is elsewhere. */
enum home_answer fleet_homes_answer(const struct home_question *question, unsigned *node);
/* The asker has done what follows from the answer: his token is in the map "issued". NULL is no question. Until then a buyer who is at home here
 * counts among those whom this node knows. Called after the answer, and not before.
 */
void fleet_homes_release(struct daemon *d, struct home_question *question);

#endif
