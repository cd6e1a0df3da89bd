/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The questions about orders and events, as docs/writer-protocol.md has them. Called by query.c. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "writer/query_inside.h"

#define HEX_ROOM 17 /* a u64 in hex, and the NUL */

json_t *order_json(const struct store_order *order)
{
	char id[HEX_ROOM], buyer[HEX_ROOM];

	snprintf(id, sizeof(id), "%016" PRIx64, order->serial);
	snprintf(buyer, sizeof(buyer), "%016" PRIx64, order->buyer);
	return json_pack("{s:s, s:I, s:I, s:s, s:I, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:b}", "id", id,
		"sale", (json_int_t)order->sale, "seq", (json_int_t)order->seq, "state", store_state_word(order->state),
		"quantity", (json_int_t)order->quantity, "buyer", buyer, "source", order->source, "network",
		(json_int_t)order->network, "admitted_ns", (json_int_t)order->admitted_ns, "committed_ns",
		(json_int_t)order->committed_ns, "hold_seconds", (json_int_t)order->hold_seconds, "expires_ns",
		(json_int_t)order->expires_ns, "resolved_ns", (json_int_t)order->resolved_ns, "resolved_by",
		store_by_word(order->resolved_by), "restocked", order->restocked);
}

static int append_order(const struct store_order *order, void *arg)
{
	return listing_append(arg, order_json(order));
}

int ask_orders_list(struct question *question)
{
	struct fields *fields = &question->fields;
	struct store_order_filter filter = {.sale = (uint32_t)fields_integer(fields, "sale", 0, UINT32_MAX)};
	struct listing orders = {.failed = false};
	char state[STORE_STATE_MAX + 1];
	int64_t next = 0;
	int error;

	fields_text(fields, "state", true, 0, STORE_STATE_MAX, state);
	filter.state = store_state_of_word(state);
	if (state[0] && !filter.state)
		fields_fail(fields, "state must be held, confirmed, cancelled, expired, refunded, or empty for any");
	filter.after = fields_integer(fields, "after", 0, INT64_MAX);
	filter.limit = (unsigned)fields_integer(fields, "limit", 1, STORE_LIST_MAX);
	filter.of_buyer = fields_has(fields, "buyer");
	if (filter.of_buyer)
		filter.buyer = fields_hex(fields, "buyer");
	if (fields_has(fields, "from_ns"))
		filter.from_ns = (uint64_t)fields_integer(fields, "from_ns", 0, INT64_MAX);
	/* Nothing was committed before time began: a `to` of 0 would mean "to the end" to the store. */
	if (fields_has(fields, "to_ns"))
		filter.to_ns = (uint64_t)fields_integer(fields, "to_ns", 1, INT64_MAX);
	error = fields_end(fields);
	if (error)
		return error;
	orders.array = json_array();
	error = question->store->ops->orders_list(question->store, &filter, append_order, &orders, &next);
	error = listing_answer(question, &orders, "orders", error);
	answer_add(question, "next", next ? json_integer(next) : json_null());
	return error;
}

int ask_order_get(struct question *question)
{
	struct fields *fields = &question->fields;
	uint64_t serial = fields_hex(fields, "id");
	struct store_order order;
	int error = fields_end(fields);

	if (!error)
		error = question->store->ops->order_get(question->store, serial, &order);
	if (!error)
		question->answer = json_pack("{s:o}", "order", order_json(&order));
	return error;
}

static void read_change(struct fields *fields, struct store_change *change)
{
	change->serial = fields_hex(fields, "id");
	change->action = fields_word(fields, "action", store_action_of_word, "confirm, cancel, expire or refund");
	change->by = fields_word(fields, "by", store_by_of_word, "buyer, shop or time");
	if (change->action == STORE_REFUND)
		change->restock = fields_bool(fields, "restock");
	fields_end(fields);
}

static json_t *result_json(const struct store_change *change, const struct store_changed *changed)
{
	char id[HEX_ROOM];

	snprintf(id, sizeof(id), "%016" PRIx64, change->serial);
	return json_pack("{s:s, s:s, s:o}", "id", id, "result", store_result_word(changed->result), "order",
		changed->result == STORE_NOT_FOUND ? json_null() : order_json(&changed->order));
}

int ask_orders_change(struct question *question)
{
	struct fields *fields = &question->fields;
	const json_t *array = fields_array(fields, "changes", STORE_CHANGES_MAX);
	unsigned count = (unsigned)json_array_size(array);
	struct store_change *changes = calloc(count + 1, sizeof(*changes));
	struct store_changed *results = calloc(count + 1, sizeof(*results));
	struct listing listing = {.array = json_array()};
	int error = changes && results ? 0 : store_explain(fields->error, -ENOMEM, "out of memory");

	for (unsigned i = 0; !error && i < count && !fields->error[0]; i++) {
		struct fields element = fields_element(fields, array, i, "changes");

		read_change(&element, &changes[i]);
	}
	if (!error)
		error = fields_end(fields);
	if (!error)
		error = question->store->ops->orders_change(question->store, changes, count, question->now_ns, results);
	for (unsigned i = 0; !error && i < count; i++) {
		question->passing |= results[i].result == STORE_NOT_FOUND;
		listing_append(&listing, result_json(&changes[i], &results[i]));
	}
	error = listing_answer(question, &listing, "results", error);
	free(changes);
	free(results);
	return error;
}

int ask_orders_due(struct question *question)
{
	struct fields *fields = &question->fields;
	unsigned limit = (unsigned)fields_integer(fields, "limit", 1, STORE_LIST_MAX);
	struct listing orders = {.failed = false};
	bool more = false;
	int error = fields_end(fields);

	if (error)
		return error;
	orders.array = json_array();
	error = question->store->ops->orders_due(
		question->store, question->now_ns, limit, append_order, &orders, &more);
	error = listing_answer(question, &orders, "orders", error);
	answer_add(question, "more", json_boolean(more));
	return error;
}

static int append_event(const struct store_event *event, void *arg)
{
	json_t *data = event->has_order ? json_object()
					: json_pack("{s:I, s:I, s:I}", "put_in", (json_int_t)event->put_in, "held",
						  (json_int_t)event->held, "confirmed", (json_int_t)event->confirmed);

	return listing_append(arg,
		json_pack("{s:I, s:s, s:I, s:I, s:o, s:o}", "position", (json_int_t)event->position, "type",
			store_event_word(event->type), "sale", (json_int_t)event->sale, "at_ns",
			(json_int_t)event->at_ns, "order", event->has_order ? order_json(&event->order) : json_null(),
			"data", data));
}

int ask_events_list(struct question *question)
{
	struct fields *fields = &question->fields;
	struct store_event_filter filter = {.sale = (uint32_t)fields_integer(fields, "sale", 0, UINT32_MAX)};
	struct listing events = {.failed = false};
	int64_t next = 0;
	bool more = false;
	int error;

	filter.after = fields_integer(fields, "after", 0, INT64_MAX);
	filter.limit = (unsigned)fields_integer(fields, "limit", 1, STORE_LIST_MAX);
	error = fields_end(fields);
	if (error)
		return error;
	events.array = json_array();
	error = question->store->ops->events_list(question->store, &filter, append_event, &events, &next, &more);
	error = listing_answer(question, &events, "events", error);
	answer_add(question, "next", json_integer(next));
	answer_add(question, "more", json_boolean(more));
	return error;
}
