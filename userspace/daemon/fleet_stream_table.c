/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* See fleet_stream_table.h. Called by fleet_stream.c on the fleet's thread. */
#include "daemon/fleet_stream_table.h"

#include <assert.h>
#include <stdlib.h>

#define FIRST_ROOM 64

static void drop_queue(struct stream_table *table, struct stream_sale *sale)
{
	struct stream_event *event;

	while ((event = sale->head)) {
		sale->head = event->next;
		free(event);
	}
	table->events -= sale->count;
	sale->tail = NULL;
	sale->count = 0;
	sale->queued = sale->acked;
}

void stream_table_free(struct stream_table *table)
{
	for (unsigned i = 0; i < table->count; i++) {
		drop_queue(table, table->sales[i]);
		free(table->sales[i]);
	}
	free(table->sales);
	*table = (struct stream_table){.sales = NULL};
}

/* Ids are looked up from the newest down: it is the newest that sell. */
struct stream_sale *stream_table_sale(struct stream_table *table, uint32_t id)
{
	struct stream_sale *sale, **grown;

	for (unsigned i = table->count; i-- > 0;)
		if (table->sales[i]->id == id)
			return table->sales[i];
	if (table->count == table->room) {
		unsigned room = table->room ? 2 * table->room : FIRST_ROOM;

		grown = realloc(table->sales, room * sizeof(struct stream_sale *));
		if (!grown)
			return NULL;
		table->sales = grown;
		table->room = room;
	}
	sale = calloc(1, sizeof(*sale));
	if (sale) {
		sale->id = id;
		table->sales[table->count++] = sale;
	}
	return sale;
}

static bool is_complete(const struct stream_sale *sale)
{
	return sale->queued >= sale->last;
}

void stream_table_begin(struct stream_table *table, uint64_t position)
{
	table->walks[STREAM_LIVE] = (struct stream_walk){.position = position, .is_on = true, .more = true};
	table->end = position;
	for (unsigned i = 0; i < table->count; i++)
		table->sales[i]->is_in_step = table->sales[i]->is_known && is_complete(table->sales[i]);
}

bool stream_table_meet(const struct stream_table *table, enum stream_walk_id walk, struct stream_sale *sale,
	uint64_t position, uint64_t at_ns)
{
	/* Once out of step nothing is taken any more: what is queued must have no gap. */
	bool is_fed = walk == STREAM_LIVE ? sale->is_in_step : sale->is_led;

	assert(table->walks[walk].is_on && position > table->walks[walk].position);
	if (position > sale->last) {
		sale->last = position;
		sale->is_noted = false;
	}
	if (position > sale->acked && !sale->since_ns)
		sale->since_ns = at_ns;
	return is_fed && position > sale->queued;
}

void stream_table_put(struct stream_table *table, struct stream_sale *sale, struct stream_event *event)
{
	assert(event->position > sale->queued);
	event->next = NULL;
	if (sale->tail)
		sale->tail->next = event;
	else
		sale->head = event;
	sale->tail = event;
	sale->queued = event->position;
	sale->count++;
	table->events++;
}

void stream_table_walked(struct stream_table *table, enum stream_walk_id walk, uint64_t next, bool more)
{
	struct stream_walk *behind = &table->walks[STREAM_BEHIND];

	table->walks[walk].position = next;
	table->walks[walk].more = more;
	if (next > table->end)
		table->end = next;
	if (!behind->is_on || behind->position < table->walks[STREAM_LIVE].position)
		return;
	/* The two have met. */
	behind->is_on = false;
	for (unsigned i = 0; i < table->count; i++) {
		struct stream_sale *sale = table->sales[i];

		sale->is_in_step = sale->is_in_step || sale->is_led;
		sale->is_led = false;
	}
}

void stream_table_told(struct stream_table *table, struct stream_sale *sale, uint64_t cursor)
{
	bool is_lost = sale->is_known && cursor < sale->acked, was_known = sale->is_known;
	struct stream_event *event;

	sale->acked = cursor;
	if (cursor < sale->foreign) /* taken away: all of the ledger is appended again */
		sale->foreign = 0;
	sale->is_known = true;
	sale->is_away = false;
	if (is_lost) {
		table->losses++;
		drop_queue(table, sale);
		sale->is_in_step = sale->is_led = false;
	}
	while ((event = sale->head) && event->position <= cursor) {
		sale->head = event->next;
		sale->count--;
		table->events--;
		free(event);
	}
	if (!sale->head) {
		sale->tail = NULL;
		if (sale->queued < cursor)
			sale->queued = cursor;
	}
	if (sale->head)
		sale->since_ns = sale->head->at_ns;
	else if (sale->acked >= sale->last)
		sale->since_ns = 0;
	/* Up to the walk's end `last` is all that there is; and the walk will come by with what is behind it. */
	if ((is_lost || !was_known) && is_complete(sale))
		sale->is_in_step = table->walks[STREAM_LIVE].is_on;
}

void stream_table_drop(struct stream_table *table, struct stream_sale *sale)
{
	drop_queue(table, sale);
	sale->is_in_step = sale->is_led = false;
	sale->is_away = true;
}

void stream_table_lead(struct stream_table *table)
{
	struct stream_walk *live = &table->walks[STREAM_LIVE], *behind = &table->walks[STREAM_BEHIND];
	uint64_t from = live->position;
	bool is_anybody_led = false;

	if (!live->is_on || behind->is_on)
		return;
	for (unsigned i = 0; i < table->count; i++) {
		struct stream_sale *sale = table->sales[i];

		if (!sale->is_known || sale->is_in_step || sale->is_away)
			continue;
		/* Nothing of it lies between: the next event of it is one that the live walk has still to meet. */
		if (is_complete(sale) || sale->queued >= live->position) {
			sale->is_in_step = true;
			continue;
		}
		sale->is_led = is_anybody_led = true;
		if (sale->queued < from)
			from = sale->queued;
	}
	if (is_anybody_led)
		*behind = (struct stream_walk){.position = from, .is_on = true, .more = true};
}

/* Would the live walk read for nobody, because Redis is away or has forgotten all? */
static bool is_live_idle(const struct stream_table *table)
{
	bool is_anybody_out = table->walks[STREAM_BEHIND].is_on;

	for (unsigned i = 0; i < table->count; i++) {
		if (table->sales[i]->is_in_step)
			return false;
		is_anybody_out = is_anybody_out || table->sales[i]->is_away;
	}
	return is_anybody_out;
}

bool stream_table_has_room(const struct stream_table *table, enum stream_walk_id walk)
{
	/* Who is led back does not take all the room from those who are in step. */
	unsigned most = walk == STREAM_LIVE ? STREAM_EVENTS_MAX : STREAM_EVENTS_MAX / 2;

	return table->walks[walk].is_on && !(walk == STREAM_LIVE && is_live_idle(table)) &&
		table->events + STREAM_PAGE <= most;
}

bool stream_table_is_done(const struct stream_table *table)
{
	if (!table->walks[STREAM_LIVE].is_on || table->walks[STREAM_LIVE].more || table->walks[STREAM_BEHIND].is_on)
		return false;
	for (unsigned i = 0; i < table->count; i++)
		if (table->sales[i]->count || !table->sales[i]->is_in_step)
			return false;
	return true;
}
