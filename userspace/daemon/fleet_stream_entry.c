/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* An event of the ledger as the fields of a stream's entry (docs/stream.md). Called by fleet_stream.c.
 *
 * Flat, with the names of the control API, and always the same fields in the same order for an order and for a sale: Redis keeps the names of
 * an entry once for all entries that have the same. A null of the API is an empty text.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/timefmt.h"
#include "daemon/fleet_stream.h"
#include "daemon/order_facts.h"
#include "daemon/sales.h"

static const char *const order_fields[] = {"id", "seq", "state", "quantity", "buyer", "source", "network",
	"admitted_at", "committed_at", "expires_at", "resolved_at", "resolved_by", "restocked"};
static const char *const sale_fields[] = {"put_in", "held", "confirmed"};

static void add_text(json_t *entry, const char *name, const char *value)
{
	json_array_append_new(entry, json_string(name));
	json_array_append_new(entry, json_string(value));
}

static void add_number(json_t *entry, const char *name, uint64_t value)
{
	json_array_append_new(entry, json_string(name));
	json_array_append_new(entry, json_sprintf("%llu", (unsigned long long)value));
}

static void add_value(json_t *entry, const char *name, const json_t *value)
{
	if (json_is_integer(value)) {
		json_array_append_new(entry, json_string(name));
		json_array_append_new(entry, json_sprintf("%" JSON_INTEGER_FORMAT, json_integer_value(value)));
	} else if (json_is_boolean(value)) {
		add_text(entry, name, json_is_true(value) ? "true" : "false");
	} else {
		add_text(entry, name, json_is_string(value) ? json_string_value(value) : "");
	}
}

char *fleet_stream_entry_text(struct daemon *d, const struct ledger_event *event)
{
	const char *const *fields = event->order ? order_fields : sale_fields;
	size_t count = event->order ? sizeof(order_fields) / sizeof(*order_fields)
				    : sizeof(sale_fields) / sizeof(*sale_fields);
	json_t *facts = event->order ? order_facts_control_json(d, event->order)
				     : json_incref((json_t *)(uintptr_t)event->data);
	json_t *entry = json_array();
	char at[TIME_TEXT_MAX];
	struct sale sale;
	char *text = NULL;
	size_t common;

	if (!facts || !entry || sales_find_id(d->sales, event->sale, &sale))
		goto out;
	add_text(entry, "type", event->type);
	add_text(entry, "sale", sale.slug);
	add_number(entry, "node", d->config.fleet.node);
	add_number(entry, "position", event->position);
	add_text(entry, "at", time_format_rfc3339(event->at_ns, at));
	common = json_array_size(entry);
	for (size_t i = 0; i < count; i++)
		add_value(entry, fields[i], json_object_get(facts, fields[i]));
	/* Without memory one of them is missing. */
	if (common == 10 && json_array_size(entry) == common + 2 * count)
		text = json_dumps(entry, JSON_COMPACT);
out:
	json_decref(facts);
	json_decref(entry);
	return text;
}
