/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What an event of the ledger is called outside, and what is told of it: to a receiver that hears one node, and to one that hears several. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/ledger_events.h"
#include "daemon/sales.h"

#define OWN_SALE 7
#define FLEET_SALE (SALES_LAST_LONELY_ID + 1)

/* A node of that number; `redis`: "" = alone. */
static struct daemon *node(const char *redis, uint32_t number)
{
	struct daemon *d = calloc(1, sizeof(*d));

	assert_non_null(d);
	config_defaults(&d->config);
	snprintf(d->config.fleet.redis, sizeof(d->config.fleet.redis), "%s", redis);
	d->config.fleet.node = number;
	d->sales = sales_new(&d->maps);
	assert_non_null(d->sales);
	return d;
}

static void node_free(struct daemon *d)
{
	sales_free(d->sales);
	free(d);
}

static const char *name_of(struct daemon *d, uint32_t sale, uint64_t position)
{
	static char id[LEDGER_EVENT_ID_MAX];
	struct ledger_event event = {.sale = sale, .position = position, .type = "sale.opened"};

	ledger_event_id(d, &event, id);
	return id;
}

/* The node that a message names; 0: none. */
static json_int_t told_by(struct daemon *d, uint32_t sale)
{
	json_t *units = json_pack("{s:i, s:i, s:i}", "put_in", 5, "held", 1, "confirmed", 0), *message;
	struct ledger_event event = {.sale = sale, .position = 57, .type = "sale.opened", .data = units};
	json_int_t number;

	message = ledger_event_message(d, &event);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(message, "data"), "put_in")), 5);
	number = json_integer_value(json_object_get(json_object_get(message, "data"), "node"));
	json_decref(message);
	json_decref(units);
	return number;
}

static void a_node_that_is_alone_names_its_events_by_sale_and_position(void **state)
{
	struct daemon *d = node("", 1);

	(void)state;
	assert_string_equal(name_of(d, OWN_SALE, 57), "evt_7_57");
	assert_int_equal(told_by(d, OWN_SALE), 0);
	node_free(d);
}

static void two_nodes_of_a_fleet_have_no_name_in_common(void **state)
{
	struct daemon *first = node("redis:6379", 1), *second = node("redis:6379", 2);

	(void)state;
	assert_string_equal(name_of(first, FLEET_SALE, 57), "evt_1_16777217_57");
	assert_string_equal(name_of(second, FLEET_SALE, 57), "evt_2_16777217_57");
	/* Sales that each made when it was alone have the same numbers. */
	assert_string_equal(name_of(first, OWN_SALE, 57), "evt_1_7_57");
	assert_string_equal(name_of(second, OWN_SALE, 57), "evt_2_7_57");
	assert_int_equal(told_by(second, FLEET_SALE), 2);
	assert_int_equal(told_by(second, OWN_SALE), 2);
	node_free(first);
	node_free(second);
}

static void what_a_fleets_sale_was_called_it_is_called_when_its_node_has_left(void **state)
{
	struct daemon *d = node("", 2);

	(void)state;
	assert_string_equal(name_of(d, FLEET_SALE, 57), "evt_2_16777217_57");
	assert_int_equal(told_by(d, FLEET_SALE), 2);
	assert_string_equal(name_of(d, OWN_SALE, 58), "evt_7_58");
	node_free(d);
}

static void the_longest_name_has_room(void **state)
{
	struct daemon *d = node("redis:6379", UINT32_MAX);

	(void)state;
	assert_string_equal(name_of(d, UINT32_MAX, UINT64_MAX), "evt_4294967295_4294967295_18446744073709551615");
	node_free(d);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_node_that_is_alone_names_its_events_by_sale_and_position),
		cmocka_unit_test(two_nodes_of_a_fleet_have_no_name_in_common),
		cmocka_unit_test(what_a_fleets_sale_was_called_it_is_called_when_its_node_has_left),
		cmocka_unit_test(the_longest_name_has_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
