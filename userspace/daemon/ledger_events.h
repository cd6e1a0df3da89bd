/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The ledger's events (docs/writer-protocol.md, "Events"), page by page, and what the world outside is told of one. */
#ifndef SLUICE_DAEMON_LEDGER_EVENTS_H
#define SLUICE_DAEMON_LEDGER_EVENTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/daemon.h"

struct ledger_event {
	uint64_t position;
	const char *type; /* "order.held" and so on */
	uint32_t sale;
	uint64_t at_ns;      /* wall */
	const json_t *order; /* NULL for events of the sale itself */
	const json_t *data;
};

struct ledger_page {
	json_t *events; /* an array; the caller releases it */
	uint64_t last;  /* position of the last one, `after` if there is none */
	uint64_t next;  /* cursor to read on from: the last position that was looked at */
	bool more;      /* there is something behind it */
};

/* At most `limit` (1..1000) events after the position `after`, of one sale or (0) of all. Asks the writer, so it may wait. Returns 0, or what
 * pipeline_ask returns, or -EPROTO.
 */
int ledger_events_read(struct daemon *d, uint32_t sale, uint64_t after, unsigned limit, struct ledger_page *page);

/* The same in two steps, for who must not wait: what to ask the writer (NULL without memory), and its answer. Returns 0 or -EPROTO. */
json_t *ledger_events_question(uint32_t sale, uint64_t after, unsigned limit);
int ledger_events_take(const json_t *answer, uint64_t after, struct ledger_page *page);

/* The position of the last event that happened before `before_ns` (wall; UINT64_MAX: the last that there is), 0 if there is none. Some 100 short
 * questions; few for the last, once it is about known. Errors as above.
 */
int ledger_events_find_end(struct daemon *d, uint64_t before_ns, uint64_t *position);

/* Takes an element of `events` apart; *event points into it. Returns 0 or -EPROTO. */
int ledger_event_decode(const json_t *json, struct ledger_event *event);

#define LEDGER_EVENT_ID_MAX 64

/* What an event is called by who posts it: "evt_SALE_POSITION" of a node that is alone; "evt_NODE_SALE_POSITION" in a fleet. The same for the same event,
 * always, but for the events of its own sales when a node joins a fleet or leaves it.
 */
void ledger_event_id(const struct daemon *d, const struct ledger_event *event, char id[LEDGER_EVENT_ID_MAX]);
/* {"type","timestamp","data"} as webhooks and the event stream have it: the same text for the same event, always. New reference, NULL without memory. */
json_t *ledger_event_message(struct daemon *d, const struct ledger_event *event);

#endif
