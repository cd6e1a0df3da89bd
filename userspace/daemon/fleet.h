/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* This node as one of many: the thread that talks to Redis, and what takes part in its rounds.
 *
 * Everything that wants Redis is a part (leases, settings, homes of buyers, order stream, presence). Before each round every part
 * may add the calls that are due; their callbacks run on the fleet's thread after the round. No other thread ever waits for Redis: who needs
 * something of it leaves the wish with a part, and calls fleet_wake.
 *
 * Without fleet.redis in the config d->fleet is NULL, and nothing of this exists.
 */
#ifndef SLUICE_DAEMON_FLEET_H
#define SLUICE_DAEMON_FLEET_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/daemon.h"
#include "fleet/redis.h"

struct fleet;
struct fleet_round;

/* `error` and `reply` as in struct redis_call. */
typedef void (*fleet_done)(struct daemon *d, void *arg, int error, const redisReply *reply);

struct fleet_part {
	const char *name;
	/* Called before every round, on the fleet's thread, also while Redis is away: adds what is due (fleet_call), and returns the mono time at
	 * which it wants to be called again at the latest.
	 */
	uint64_t (*step)(struct daemon *d, struct fleet_round *round, uint64_t now_mono_ns);
	/* What messages of this part begin with; NULL: it hears all. */
	const char *topic;
	/* A message came on the fleet's channel: `about` is what stands behind the topic. NULL: it is for all parts, or some may have been missed. May
	 * be NULL.
	 */
	void (*news)(struct daemon *d, const char *about);
	/* The daemon stops: a last chance to add calls; rounds go on until it returns true, or for 2 s. May be NULL. */
	bool (*leave)(struct daemon *d, struct fleet_round *round, uint64_t now_mono_ns);
};

#define FLEET_CALLS_MAX 512
/* Adds a call to the round; calls of one round may be done in any order. All texts are copied. `arguments` are ARGV; `keys` KEYS, of which the first chooses the server. False: the round is full (ask to be
 * called again at once).
 */
bool fleet_script(struct fleet_round *round, const char *script, const char *const *keys, unsigned key_count,
	const char *const *arguments, unsigned argument_count, fleet_done done, void *arg);
/* A plain command, words separated as in argv. `key` chooses the server; NULL = any. */
bool fleet_command(struct fleet_round *round, const char *key, const char *const *words, unsigned count,
	fleet_done done, void *arg);

/* Returns 0 (also without a fleet: then d->fleet stays NULL) or negative errno with a sentence. Before privileges are dropped. */
int fleet_open(struct daemon *d, char *error, size_t error_size);
/* The same with other parts than the daemon's own, for tests; the array is the caller's and must stay. */
int fleet_open_with(
	struct daemon *d, const struct fleet_part *const *parts, unsigned part_count, char *error, size_t error_size);
int fleet_start(struct daemon *d);
void fleet_stop(struct daemon *d);
void fleet_free(struct daemon *d);
/* Something is to be done before the time that the parts named. Any thread. */
void fleet_wake(struct daemon *d);

struct fleet_status {
	bool connected;   /* to Redis, as of the last round: every call was answered by a server that can serve */
	uint64_t away_ns; /* since when not (mono); 0 = connected */
	struct redis_figures redis;
};
void fleet_status(struct daemon *d, struct fleet_status *status);

/* Keys. Those of one sale are in one hash slot: PREFIX:{SLUG}:NAME. Those of the fleet: PREFIX:{fleet}:NAME. */
#define FLEET_KEY_MAX 160
const char *fleet_sale_key(const struct daemon *d, const char *slug, const char *name, char *key);
const char *fleet_key(const struct daemon *d, const char *name, char *key);
/* The channel of the fleet. A message is the topic of a part, and perhaps what it is about ("lease drop-11"); one that is no topic's ("look") is for
 * all.
 */
#define FLEET_CHANNEL_MAX 64
const char *fleet_channel(const struct daemon *d, char *channel);
/* As if that message had come: for a part that learns by other ways what another one should look at. Of the fleet's thread. */
void fleet_hear(struct daemon *d, const char *message);

#endif
