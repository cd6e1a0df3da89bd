/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Which events of the ledger go into which stream next. Pure: no clock, no ledger, no Redis; fleet_stream.c has those.
 *
 * Two walks go over the ledger's events of all sales, page by page. The live walk feeds the sales that are in step: all of their events up to
 * the walk are in Redis or in the sale's queue. Whoever falls out of step (Redis knows less than it did, or could not be reached) loses its
 * queue, and the other walk goes back to the smallest cursor of those and leads them up to the live walk. So one sale that has
 * to begin anew does not hold up the others, and no sale costs more than its queue.
 *
 * How far a sale is in its stream is known from Redis alone (`acked`). How far it should be at a restart, without reading the whole ledger, is what
 * the walks noted on their way: `last`, its last event up to `end`. That is true of the ledger whatever Redis has lost, so a
 * sale whose cursor is below it is out of step.
 *
 * One thread.
 */
#ifndef SLUICE_DAEMON_FLEET_STREAM_TABLE_H
#define SLUICE_DAEMON_FLEET_STREAM_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Events in memory, of all sales; some 600 bytes each. */
#define STREAM_EVENTS_MAX 8000
/* Events of one question to the ledger. */
#define STREAM_PAGE 500

struct stream_event {
	struct stream_event *next;
	uint64_t position;
	uint64_t at_ns;  /* wall: when it happened */
	uint64_t got_ns; /* mono: when it was read */
	char fields[];   /* as stream_append.lua takes them */
};

struct stream_sale {
	uint32_t id;
	bool is_known;     /* Redis has told `acked` */
	bool is_in_step;   /* the live walk feeds it */
	bool is_led;       /* the other walk feeds it */
	bool is_away;      /* Redis could not be asked for it the last time */
	bool is_announced; /* the set of streams has it */
	bool is_noted;     /* `last` is written down as it is */
	uint64_t acked;    /* position of its last event in the stream */
	uint64_t foreign;  /* `acked` when it was found beyond this node's ledger, until Redis has less; 0: never */
	uint64_t queued;   /* position of the last event of the queue; `acked` if there is none */
	uint64_t last;     /* position of its last event in the ledger, as far as the walks have come; 0: none */
	uint64_t since_ns; /* wall: of the oldest event that is known and not in the stream; 0: none */
	struct stream_event *head, *tail;
	unsigned count;
	/* for fleet_stream.c */
	uint64_t look_ns;                 /* mono: when Redis is asked again how far it is */
	uint64_t length, waiting, groups; /* of the stream, as of the last look */
	bool is_warned;
};

enum stream_walk_id { STREAM_LIVE, STREAM_BEHIND, STREAM_WALKS };

struct stream_walk {
	uint64_t position; /* everything up to here was looked at */
	bool is_on;
	bool more; /* there was something behind the last page */
};

struct stream_table {
	struct stream_sale **sales;
	unsigned count, room;
	unsigned events; /* in all queues */
	uint64_t end;    /* the highest position that was looked at */
	uint64_t losses; /* times that Redis knew less than before */
	struct stream_walk walks[STREAM_WALKS];
};

void stream_table_free(struct stream_table *table);
/* The sale of that id, which is made if it is not there. NULL without memory. Pointers stay valid. */
struct stream_sale *stream_table_sale(struct stream_table *table, uint32_t id);
/* The live walk begins behind `position`; every sale's `last` up to there has been set. */
void stream_table_begin(struct stream_table *table, uint64_t position);
/* An event of a page of this walk: notes it, and says whether it is wanted; then stream_table_put. */
bool stream_table_meet(const struct stream_table *table, enum stream_walk_id walk, struct stream_sale *sale,
	uint64_t position, uint64_t at_ns);
/* Queues an event; takes it over. */
void stream_table_put(struct stream_table *table, struct stream_sale *sale, struct stream_event *event);
/* The page is done. `next`, `more`: as ledger_events_read gives them. */
void stream_table_walked(struct stream_table *table, enum stream_walk_id walk, uint64_t next, bool more);
/* Redis says how far the sale is: forgets what is in the stream, and finds out whether the sale is in step. */
void stream_table_told(struct stream_table *table, struct stream_sale *sale, uint64_t cursor);
/* Redis could not be asked: the queue goes, the sale is out of step until Redis has told its cursor and the other walk has led it back. */
void stream_table_drop(struct stream_table *table, struct stream_sale *sale);
/* Sends the other walk on its way if somebody waits for it whom Redis can be asked for. */
void stream_table_lead(struct stream_table *table);
/* May a page of this walk be read now? */
bool stream_table_has_room(const struct stream_table *table, enum stream_walk_id walk);
/* Is everything that the ledger had at the last look in the streams? */
bool stream_table_is_done(const struct stream_table *table);

#endif
