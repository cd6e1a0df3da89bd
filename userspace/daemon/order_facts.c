/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Reads the writer's orders and writes those of the API. Pure but for the sale's name; called by the order routes, order_changes.c and recovery.c. */
#include "daemon/order_facts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/timefmt.h"
#include "daemon/sales.h"

const char *order_id_text(uint64_t serial, char id[ORDER_ID_DIGITS + 1])
{
	snprintf(id, ORDER_ID_DIGITS + 1, "%016" PRIx64, serial);
	return id;
}

int order_id_parse(const char *text, uint64_t *serial)
{
	if (strlen(text) != ORDER_ID_DIGITS || strspn(text, "0123456789abcdef") != ORDER_ID_DIGITS)
		return -EINVAL;
	*serial = strtoull(text, NULL, 16);
	return 0;
}

int order_facts_read(const json_t *json, struct told_order *order)
{
	json_int_t sale, seq, quantity, network, admitted, committed, expires, resolved;
	const char *id, *state, *buyer;
	int restocked;

	if (json_unpack((json_t *)(uintptr_t)json,
		    "{s:s, s:I, s:I, s:s, s:I, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:s, s:b}", "id", &id, "sale", &sale,
		    "seq", &seq, "state", &state, "quantity", &quantity, "buyer", &buyer, "source", &order->source,
		    "network", &network, "admitted_ns", &admitted, "committed_ns", &committed, "expires_ns", &expires,
		    "resolved_ns", &resolved, "resolved_by", &order->resolved_by, "restocked", &restocked) < 0)
		return -EPROTO;
	if (order_id_parse(id, &order->serial) || order_id_parse(buyer, &order->buyer))
		return -EPROTO;
	if (sale < 1 || sale > UINT32_MAX || quantity < 1 || quantity > UINT8_MAX)
		return -EPROTO;
	order->sale = (uint32_t)sale;
	order->quantity = (uint8_t)quantity;
	order->network = (uint32_t)network;
	order->admitted_ns = (uint64_t)admitted;
	order->facts = (struct order_facts){
		.state = order_state_of_word(state),
		.seq = (uint64_t)seq,
		.committed_ns = (uint64_t)committed,
		.expires_ns = (uint64_t)expires,
		.resolved_ns = (uint64_t)resolved,
		.restocked = restocked,
	};
	return order->facts.state == ORDER_STATE_COUNT ? -EPROTO : 0;
}

/* 0 is never, or not yet. */
static json_t *time_or_null(uint64_t wall_ns)
{
	char text[TIME_TEXT_MAX];

	return wall_ns ? json_string(time_format_rfc3339(wall_ns, text)) : json_null();
}

json_t *order_facts_public_json(struct daemon *d, const struct told_order *order)
{
	char id[ORDER_ID_DIGITS + 1], admitted[TIME_TEXT_MAX], committed[TIME_TEXT_MAX];
	struct sale sale;

	if (sales_find_id(d->sales, order->sale, &sale))
		sale.slug[0] = '\0';
	return json_pack("{s:s, s:s, s:s, s:i, s:s, s:I, s:s, s:o, s:o}", "id", order_id_text(order->serial, id),
		"sale", sale.slug, "state", order_state_name(order->facts.state), "quantity", (int)order->quantity,
		"admitted_at", time_format_rfc3339(order->admitted_ns, admitted), "seq", (json_int_t)order->facts.seq,
		"committed_at", time_format_rfc3339(order->facts.committed_ns, committed), "expires_at",
		time_or_null(order->facts.expires_ns), "resolved_at", time_or_null(order->facts.resolved_ns));
}

json_t *order_facts_control_json(struct daemon *d, const json_t *from)
{
	struct told_order order;
	json_t *json;

	if (order_facts_read(from, &order))
		return NULL;
	json = order_facts_public_json(d, &order);
	if (!json)
		return NULL;
	json_object_set_new(json, "resolved_by", *order.resolved_by ? json_string(order.resolved_by) : json_null());
	json_object_set_new(json, "restocked", json_boolean(order.facts.restocked));
	json_object_set(json, "buyer", json_object_get(from, "buyer"));
	json_object_set(json, "source", json_object_get(from, "source"));
	json_object_set(json, "network", json_object_get(from, "network"));
	return json;
}
