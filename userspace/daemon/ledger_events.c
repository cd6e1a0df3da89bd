/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Reads the ledger's events through the writer; see ledger_events.h. Called by webhooks.c, control_ledger.c and fleet_stream.c, each with a cursor of its own, so
 * that a slow reader costs a cursor and nothing else.
 */
#include "daemon/ledger_events.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/timefmt.h"
#include "daemon/order_facts.h"
#include "daemon/pipeline.h"
#include "daemon/sales.h"

/* The highest position that was seen: where the search for the end begins. */
static atomic_ullong newest;

static void note_position(uint64_t position)
{
	unsigned long long seen = atomic_load(&newest);

	while (seen < position && !atomic_compare_exchange_weak(&newest, &seen, position))
		;
}

int ledger_event_decode(const json_t *json, struct ledger_event *event)
{
	json_int_t position, sale, at;
	json_t *order, *data;
	const char *type;

	if (json_unpack((json_t *)(uintptr_t)json, "{s:I, s:s, s:I, s:I, s:o, s:o}", "position", &position, "type",
		    &type, "sale", &sale, "at_ns", &at, "order", &order, "data", &data) < 0 ||
		position < 1 || sale < 1 || sale > UINT32_MAX || at < 0)
		return -EPROTO;
	*event = (struct ledger_event){.position = (uint64_t)position,
		.type = type,
		.sale = (uint32_t)sale,
		.at_ns = (uint64_t)at,
		.order = json_is_object(order) ? order : NULL,
		.data = data};
	return 0;
}

/* Every element can be decoded, and they are in order. */
static int check_page(const json_t *events, uint64_t after, uint64_t next, uint64_t *end)
{
	struct ledger_event event;
	uint64_t last = after;
	json_t *json;
	size_t i;

	json_array_foreach(events, i, json) {
		if (ledger_event_decode(json, &event) || event.position <= last)
			return -EPROTO;
		last = event.position;
	}
	if (last > next)
		return -EPROTO;
	if (last > after)
		note_position(last);
	*end = last;
	return 0;
}

json_t *ledger_events_question(uint32_t sale, uint64_t after, unsigned limit)
{
	return json_pack("{s:s, s:I, s:I, s:I}", "op", "events_list", "sale", (json_int_t)sale, "after",
		(json_int_t)after, "limit", (json_int_t)limit);
}

int ledger_events_take(const json_t *answer, uint64_t after, struct ledger_page *page)
{
	json_t *events;
	json_int_t next;
	int more;

	memset(page, 0, sizeof(*page));
	if (json_unpack((json_t *)(uintptr_t)answer, "{s:o, s:I, s:b}", "events", &events, "next", &next, "more",
		    &more) < 0 ||
		!json_is_array(events) || next < 0 || check_page(events, after, (uint64_t)next, &page->last))
		return -EPROTO;
	page->events = json_incref(events);
	page->next = (uint64_t)next;
	page->more = more;
	return 0;
}

int ledger_events_read(struct daemon *d, uint32_t sale, uint64_t after, unsigned limit, struct ledger_page *page)
{
	struct pipeline_answer answer;
	int err;

	memset(page, 0, sizeof(*page));
	err = pipeline_ask(d->pipeline, ledger_events_question(sale, after, limit), NULL, NULL, &answer);
	if (err)
		return err;
	err = ledger_events_take(answer.json, after, page);
	json_decref(answer.json);
	return err;
}

/* The position of the first event after `after` if it happened before `before_ns`, else 0. */
static int find_after(struct daemon *d, uint64_t after, uint64_t before_ns, uint64_t *position)
{
	struct ledger_event event;
	struct ledger_page page;
	int err = ledger_events_read(d, 0, after, 1, &page);

	*position = 0;
	if (!err && json_array_size(page.events)) {
		err = ledger_event_decode(json_array_get(page.events, 0), &event);
		if (!err && event.at_ns < before_ns)
			*position = event.position;
	}
	json_decref(page.events);
	return err;
}

/* "Is there such an event after x" is true up to the one that is looked for and false from there on: it is found by doubling steps, and then by
 * halving.
 */
int ledger_events_find_end(struct daemon *d, uint64_t before_ns, uint64_t *position)
{
	uint64_t low = before_ns == UINT64_MAX ? atomic_load(&newest) : 0, high = low, step = 1, found = 0;
	int err = find_after(d, high, before_ns, &found);

	while (!err && found) {
		low = found;
		high = step < INT64_MAX - low ? low + step : INT64_MAX;
		step *= 2;
		err = find_after(d, high, before_ns, &found);
	}
	while (!err && low < high) {
		uint64_t middle = low + (high - low) / 2;

		err = find_after(d, middle, before_ns, &found);
		if (found)
			low = found;
		else
			high = middle;
	}
	*position = low;
	return err;
}

/* --- what is told -------------------------------------------------------------------------------------------------------------- */
/* The number of this node, if others may tell an event of the same sale and position: positions are each ledger's own, and so are the numbers of sales that
 * were made alone. A sale of a fleet is one of several nodes for ever, also when its node has left the fleet. 0: there is nobody else.
 */
static uint32_t node_to_name(const struct daemon *d, uint32_t sale)
{
	return config_is_fleet(&d->config) || sale > SALES_LAST_LONELY_ID ? d->config.fleet.node : 0;
}

void ledger_event_id(const struct daemon *d, const struct ledger_event *event, char id[LEDGER_EVENT_ID_MAX])
{
	uint32_t node = node_to_name(d, event->sale);
	unsigned long long position = event->position;

	if (node)
		snprintf(id, LEDGER_EVENT_ID_MAX, "evt_%u_%u_%llu", node, event->sale, position);
	else
		snprintf(id, LEDGER_EVENT_ID_MAX, "evt_%u_%llu", event->sale, position);
}

json_t *ledger_event_message(struct daemon *d, const struct ledger_event *event)
{
	char time_text[TIME_TEXT_MAX];
	uint32_t node = node_to_name(d, event->sale);
	struct sale sale;
	json_t *data;

	/* Every sale of the ledger is known before the first event of it is read. */
	if (sales_find_id(d->sales, event->sale, &sale))
		sale.slug[0] = '\0';
	data = json_pack("{s:s, s:I}", "sale", sale.slug, "sale_id", (json_int_t)event->sale);
	if (node)
		json_object_set_new(data, "node", json_integer(node));
	json_object_update(data, (json_t *)(uintptr_t)event->data);
	if (event->order)
		json_object_set_new(data, "order", order_facts_control_json(d, event->order));
	return json_pack("{s:s, s:s, s:o}", "type", event->type, "timestamp",
		time_format_rfc3339(event->at_ns, time_text), "data", data);
}
