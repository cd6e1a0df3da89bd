/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Who holds a place at a listener, and who gives it up. */
#ifndef SLUICE_DAEMON_HTTP_CONNECTIONS_H
#define SLUICE_DAEMON_HTTP_CONNECTIONS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "sluice/abi.h"

struct http_connections;
struct http_connection;

/* Counted here, kept by whoever renders the metrics; several listeners may share one. */
struct http_connections_counts {
	atomic_uint open;
	/* closed from here: for a newcomer, for a newcomer of the same source, and for taking too long */
	atomic_ullong crowded, crowded_source, late;
};

struct http_connections_options {
	unsigned places;     /* connections at most; some of them stay free for who comes next */
	unsigned per_source; /* of one IPv4 address or IPv6 /64; 0 = no limit */
	unsigned
		patience_s; /* from one answer (or the accept) to the next whole request, and to the taking of that answer */
	/* Who has waited for less keeps the place: the newcomer waits, and with it the thread that accepts. 0 where that thread does other work. */
	unsigned grace_ms;
	struct http_connections_counts *counts;
};

struct http_connections *http_connections_new(const struct http_connections_options *options);
void http_connections_free(struct http_connections *list); /* when all its connections are closed */

/* A connection was accepted; it waits for its first request. `source`: NULL for a Unix socket. NULL if there is no memory: such a connection is
 * served and belongs to nobody; all functions below take it.
 */
struct http_connection *http_connection_open(
	struct http_connections *list, int fd, const struct sluice_addr *source, uint64_t now_ns);
/* Its request is whole and is being worked on: nobody takes its place. */
void http_connection_work(struct http_connection *connection);
/* Its answer is on the way: it waits again. Nothing if it waits already. */
void http_connection_rest(struct http_connection *connection, uint64_t now_ns);
/* Before its fd is closed. */
void http_connection_close(struct http_connection *connection);
/* True for the first call only: the request is the first of its connection. */
bool http_connection_first(struct http_connection *connection);

/* Closes those that have waited longer than their patience. The list's own thread calls it; tests do it with a clock of their own. */
void http_connections_expire(struct http_connections *list, uint64_t now_ns);
/* Starts that thread. Returns 0 or negative errno. */
int http_connections_watch(struct http_connections *list);

#endif
