/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The way to Redis: one server, or the masters of a Redis Cluster, asked in rounds.
 *
 * A round sends everything that is due, pipelined to the server that each key belongs to, and waits for all answers, for `timeout_ms` at
 * the most. So a slow Redis costs one wait for many calls, and nothing but the thread that calls waits for it. A connection on which an
 * answer is late is closed: what comes late is never taken for something else.
 *
 * One link belongs to one thread. The program ignores SIGPIPE.
 */
#ifndef SLUICE_FLEET_REDIS_H
#define SLUICE_FLEET_REDIS_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The scripts of userspace/fleet/scripts/, by file name without ".lua". Each is sent with prelude.lua before it. */
struct redis_script;

struct redis_options {
	const char *servers;       /* "host:port", or several of one cluster with commas between them */
	const char *user;          /* "" = the default user */
	const char *password_file; /* "" = none; read anew at each connection, so that it can be changed */
	const char *name;          /* how the server's CLIENT LIST shows this program; NULL = "sluice" */
	unsigned timeout_ms;       /* of a round, and of a connection */
};

struct redis_link;

struct redis_call {
	const char *key; /* whose server is asked; NULL: any master (a single server: that one) */
	const struct redis_script *
		script; /* NULL: argv is a command as it stands; else argv are the arguments of EVALSHA behind the digest: number of keys, keys, arguments */
	int argc;
	const char *const *argv;
	const size_t *lengths; /* NULL: strings */
	/* out */
	/* 0; -ENOTCONN: not sent, so surely not done; -ETIMEDOUT: sent, and nobody knows whether it was or will be done; -EREMOTEIO: an error reply
	 * (reply->str says which)
	 */
	int error;
	redisReply *reply; /* belongs to the link until the next round */
};

struct redis_figures {
	uint64_t rounds; /* that went to at least one server */
	uint64_t calls;
	uint64_t errors;     /* error replies, without NOSCRIPT, MOVED and ASK that were followed */
	uint64_t timeouts;   /* rounds in which an answer was late */
	uint64_t reconnects; /* connections made after the first */
	uint64_t redirects;  /* MOVED and ASK */
	uint64_t round_ns;   /* of the last round in which every call was answered */
	uint64_t whole;      /* such rounds, */
	uint64_t whole_ns;   /* and how long they took together */
	bool connected;      /* the last round reached every server that it needed */
	char failure[256];   /* why not, if not */
	bool subscribed;     /* messages are heard */
	char deaf[256];      /* why not, if not */
};

/* Returns NULL without memory. Connects to nobody yet. */
struct redis_link *redis_link_new(const struct redis_options *options);
void redis_link_free(struct redis_link *link);
/* NULL: there is no script of that name. */
const struct redis_script *redis_script_find(const char *name);
/* Asks. Fills in every call's `error` and `reply`. Calls of one round may be done in any order, and one may be done without another. A server that could not be reached is left alone for a while, with a backoff that grows and is
 * jittered; until then its calls fail at once with -ENOTCONN.
 */
void redis_link_round(struct redis_link *link, struct redis_call *calls, unsigned count);
/* No round goes on beyond that time, one that is under way included (to a tenth of a second). The one function for any thread. */
void redis_link_finish_by(struct redis_link *link, uint64_t mono_ns);
/* A message; NULL: some may have been missed (the subscription was made anew). Called inside redis_link_wait. */
typedef void (*redis_hear)(void *arg, const char *message);
/* Subscribes to a channel on a connection of its own (any server; a cluster carries messages to all). Kept up by redis_link_wait. `hear` may be NULL. */
int redis_link_subscribe(struct redis_link *link, const char *channel, redis_hear hear, void *arg);
/* Waits until `wake_fd` can be read, a message has come, or `until_mono_ns`. Returns true if messages came or may have been missed. */
bool redis_link_wait(struct redis_link *link, int wake_fd, uint64_t until_mono_ns);
void redis_link_figures(const struct redis_link *link, struct redis_figures *figures);
/* Mono time before which no server would be tried again; 0 = now. */
uint64_t redis_link_resting_until(const struct redis_link *link);

#endif
