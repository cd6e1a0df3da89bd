/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What redis.c (rounds) and redis_news.c (the subscription) share. */
#ifndef SLUICE_FLEET_REDIS_IMPL_H
#define SLUICE_FLEET_REDIS_IMPL_H

#include <stdatomic.h>

#include "fleet/redis.h"
#include "fleet/redis_connection.h"
#include "fleet/redis_script.h"
#include "fleet/redis_slots.h"

#define REDIS_SEEDS_MAX 16
/* Masters and seeds that are known at a time. */
#define REDIS_NODES_MAX 128
#define REDIS_CHANNEL_MAX 128
#define REDIS_TEXTS_MAX 32
#define REDIS_MS 1000000ULL

enum redis_kind {
	REDIS_UNKNOWN, /* nobody has been asked yet */
	REDIS_SINGLE,
	REDIS_CLUSTER
};

/* An answer that is awaited: of a call, or one of these. */
#define REDIS_AWAIT_SLOTS (-1)
#define REDIS_AWAIT_ASKING (-2) /* the OK to ASKING, which stands before the call itself */

struct redis_await {
	int call;
	uint64_t start; /* where its bytes begin, as redis_connection_append says */
};

struct redis_node {
	struct redis_connection connection;
	struct redis_await *awaits; /* in the order of sending */
	unsigned await_first, await_count, await_size;
	const struct redis_script *texts
		[REDIS_TEXTS_MAX]; /* scripts whose text was sent in this round: those after it need not carry it */
	unsigned text_count;
	bool is_seed;
	bool is_master;  /* the slots name it */
	bool was_ready;  /* in this round or before: then being ready anew is a reconnection */
	bool told_slots; /* was asked for them in this round */
	bool is_counted; /* its being ready */
	bool is_replica; /* as it has just said */
	uint64_t slots_asked_ns;
};

struct redis_flight;

struct redis_link {
	struct redis_options options; /* its texts are the link's own */
	char *texts;
	struct redis_address seeds[REDIS_SEEDS_MAX];
	unsigned seed_count;
	enum redis_kind kind;
	struct redis_node *nodes[REDIS_NODES_MAX];
	unsigned node_count;
	struct redis_node *owners[REDIS_SLOTS]; /* NULL: nobody, as far as is known */
	bool is_stale;                          /* the slots are to be asked for at the next chance */
	/* the round */
	struct redis_call *calls;
	struct redis_flight *flights;
	unsigned count, size, left;
	uint64_t deadline_ns;
	uint64_t slots_asked_ns; /* 0 = not in this round */
	bool slots_told;
	bool was_late, was_unfit;
	atomic_ullong finish_by_ns;
	struct redis_figures figures;
	/* the subscription */
	char channel[REDIS_CHANNEL_MAX]; /* "" = none */
	redis_hear hear;
	void *hear_arg;
	struct redis_connection news;
	bool news_asked;        /* SUBSCRIBE was sent */
	bool news_on;           /* and confirmed */
	bool news_pinged;       /* PING was sent, and nothing has come since */
	uint64_t news_heard_ns; /* when something came last, or PING was sent */
	unsigned news_turn;     /* which server is next */
};

/* The server of that address, known or made. NULL: no memory, or too many. */
struct redis_node *redis_link_node(struct redis_link *link, const char *host, unsigned port);
/* Counts a connection that has become ready, once. */
void redis_link_note_ready(struct redis_link *link, struct redis_node *node);

#endif
