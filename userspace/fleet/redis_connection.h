/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* One connection to one Redis server, never waited for: the caller polls, and lets it work.
 *
 * It is greeted first (AUTH, CLIENT SETNAME), and only then carries commands: so a command that was not sent because the password is wrong
 * is known not to have been done. A server that failed is left alone for a while that grows from 50 ms to 2 s, jittered, so that a fleet
 * does not come back all at once.
 */
#ifndef SLUICE_FLEET_REDIS_CONNECTION_H
#define SLUICE_FLEET_REDIS_CONNECTION_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fleet/redis.h"
#include "fleet/redis_lookup.h"

#define REDIS_HOST_MAX 256
/* What one server may send in one round: far above what is ever asked for, far below what would hurt. */
#define REDIS_REPLY_BYTES_MAX (64u << 20)
#define REDIS_REPLY_OBJECTS_MAX (2u << 20)

enum redis_connection_state {
	REDIS_CLOSED,
	REDIS_LOOKING_UP,
	REDIS_CONNECTING,
	REDIS_GREETING, /* the answers to AUTH and CLIENT SETNAME are awaited */
	REDIS_READY
};

struct redis_connection {
	char host[REDIS_HOST_MAX];
	unsigned port;
	enum redis_connection_state state;
	redisContext *context;
	struct redis_lookup *lookup;
	struct addrinfo *addresses, *address; /* all of the host, and the one that is tried */
	uint64_t deadline_ns;                 /* for becoming ready */
	unsigned greetings;                   /* answers still to come */
	bool authenticates;                   /* the first of them is that to AUTH */
	uint64_t appended;                    /* bytes of commands that were given to it */
	uint64_t handed;                      /* of them to the kernel; stays when it is closed */
	size_t bytes, objects;                /* of replies since redis_connection_begin_round */
	unsigned failures;                    /* in a row */
	uint64_t resting_until_ns;
	uint64_t random;
	char failure[256]; /* the last one: "redis.example:6379: Connection refused" */
};

#define REDIS_PASSWORD_MAX 512
/* The first line of the file. Refuses one that others may read, as with every secret of Sluice. Returns 0 or negative errno; *why says what is wrong with the file.
 */
int redis_password_read(const char *path, char password[REDIS_PASSWORD_MAX], const char **why);

void redis_connection_init(struct redis_connection *connection, const char *host, unsigned port);
/* "host:port", with brackets around an IPv6 address. */
const char *redis_connection_name(const struct redis_connection *connection, char name[REDIS_HOST_MAX + 16]);
/* Starts to connect. Returns 0, or negative errno after having failed (redis_connection_fail). */
int redis_connection_open(struct redis_connection *connection, const struct redis_options *options, uint64_t now);
/* What to poll for, -1 if closed. */
int redis_connection_fd(const struct redis_connection *connection);
short redis_connection_events(const struct redis_connection *connection);
/* Goes on as far as it can. Returns 0, or negative errno after having failed. */
int redis_connection_work(
	struct redis_connection *connection, const struct redis_options *options, short revents, uint64_t now);
/* Adds a command to what is to be sent; *start is where it begins (against `handed`). Returns 0 or -ENOMEM. */
int redis_connection_append(
	struct redis_connection *connection, int argc, const char *const *argv, const size_t *lengths, uint64_t *start);
/* The next reply that has come (freeReplyObject), or NULL. Negative errno: what came is no reply; the caller lets the connection fail. */
int redis_connection_reply(struct redis_connection *connection, redisReply **reply);
void redis_connection_begin_round(struct redis_connection *connection);
/* Is anything there that nobody asked for: an end, or bytes? Then it is of no use any more. */
bool redis_connection_is_stale(const struct redis_connection *connection);
void redis_connection_close(struct redis_connection *connection);
/* Closes, remembers why, and rests. */
void redis_connection_fail(struct redis_connection *connection, uint64_t now, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Rests without closing: a server that answers, but cannot serve now. */
void redis_connection_rest(struct redis_connection *connection, uint64_t now, const char *why);
static inline bool redis_connection_is_resting(const struct redis_connection *connection, uint64_t now)
{
	return now < connection->resting_until_ns;
}

#endif
