/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The keys that the nodes of a fleet share: which of them this node accepts and signs with, and their rotation in two phases. */
#ifndef SLUICE_DAEMON_FLEET_KEYS_H
#define SLUICE_DAEMON_FLEET_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/daemon.h"

struct fleet_part;
struct fleet_keys;

extern const struct fleet_part fleet_keys_part;

/* In a fleet: reads the shared secret and this node's numbers of keys, and fills in d->keys; the key file is not looked at. Before privileges
 * are dropped, as the daemon's user. Returns 0 or negative errno with a sentence.
 */
int fleet_keys_open(struct daemon *d, char *error, size_t error_size);
void fleet_keys_close(struct daemon *d);
/* The daemon stops: who waits for a rotation is told so. Before the listeners stop. */
void fleet_keys_stop(struct daemon *d);

enum fleet_keys_standing {
	FLEET_KEYS_AGREED,
	FLEET_KEYS_UNASKED,     /* this daemon has not yet learned what its fleet uses */
	FLEET_KEYS_OTHER_SECRET /* the fleet has another secret than this node */
};
enum fleet_keys_standing fleet_keys_standing(const struct daemon *d);
/* May this node judge orders and make new tokens? True without a fleet. Once true it stays so. */
static inline bool fleet_keys_agreed(const struct daemon *d)
{
	return !d->fleet_keys || fleet_keys_standing(d) == FLEET_KEYS_AGREED;
}

struct fleet_keys_node {
	unsigned node;
	uint32_t accepted, signs; /* key numbers; 0 = it has never told */
	int64_t seen_ms;          /* ago; -1 = never */
};

struct fleet_keys_view {
	uint32_t current;                       /* the fleet signs with it */
	uint32_t next;                          /* in a rotation: what is to be accepted; 0 = none */
	char waiting[4 * CONFIG_NODES_MAX + 1]; /* nodes that have not accepted it yet: "2,3" */
	unsigned node_count;
	struct fleet_keys_node nodes[CONFIG_NODES_MAX];
};
/* As of the last answer of Redis. Returns 0, or -ENODATA: there was none yet. */
int fleet_keys_view(struct daemon *d, struct fleet_keys_view *view);

struct fleet_keys_refusal {
	unsigned node;    /* because of which node */
	uint64_t until_s; /* -EBUSY: until when it may need the key that would go */
};
/* Begins a rotation, or looks at the one that is under way, and waits for its end, for `wait_ms` at the most. `without`: nodes, with commas
 * between, that are down and need not take part ("" = none). Returns 0 with *view (view->next tells if it still goes on), -EBUSY or -ENODATA with
 * *refusal (that node needs the oldest key, or has not told that it does not), -EACCES (another secret), -ENOTCONN (nothing was begun),
 * -ETIMEDOUT (nobody knows).
 */
int fleet_keys_rotate(struct daemon *d, bool force, const char *without, unsigned wait_ms, struct fleet_keys_view *view,
	struct fleet_keys_refusal *refusal);

#endif
