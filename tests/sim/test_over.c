/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* lease.c and the scripts, step by step: a sale that is over costs Redis next to nothing, also when a node that is in the books never speaks of it (it was
 * taken out of the fleet, or slept through the sale, or came when it was over), and nothing of it is lost for that.
 */
#include "shop.h"

#include <string.h>

#include "fleet/lease_plant.h"

#define TURN (20 * MS)        /* of the daemon */
#define OVER_S 5              /* between reports of a sale that is over */
#define A_WHILE (60 * SECOND) /* of rest */
#define NEW_NODE 4            /* NODES are in the config from the beginning */

enum lease_plant lease_plant;

/* Nodes one and two take turns, and hear what is said; `calls` is of both. */
static void pass(struct shop *one, struct shop *two, uint64_t ns)
{
	for (uint64_t until = now + ns; now < until;) {
		unsigned before = calls;
		bool told = false;

		now += TURN;
		go_on(one, STEPS_MAX);
		told = calls > before && said;
		before = calls;
		go_on(two, STEPS_MAX);
		if (told || (calls > before && said)) {
			lease_look(&one->lease);
			lease_look(&two->lease);
		}
	}
}

/* The sale is over for one and two, all units are free, and the third of the config has never spoken of it. */
static void end_sale(struct shop *one, struct shop *two)
{
	begin(one, two);
	sell(one, 2);
	one->over = two->over = true;
	pass(one, two, 10 * SECOND);
	assert_int_equal(free_units(one), TOTAL - 2);
}

static void a_node_that_is_new_in_the_config_begins_no_generation_in_a_sale_that_is_over(void **state)
{
	char generation[LEASE_GENERATION_MAX];
	struct lease_reply reply;
	struct lease_call call;
	struct shop one, two;

	(void)state;
	end_sale(&one, &two);
	strcpy(generation, one.book.generation);
	lease_members_add(&one.options.members, NEW_NODE);
	start(&one);
	pass(&one, &two, 10 * SECOND);
	/* Nor does who looks at it. */
	lease_show_call(&one.lease, 2, &call);
	assert_true(ask(&call, &reply));
	assert_string_equal(reply.generation, generation);
	assert_true(one.lease.last.open && two.lease.last.open);
	/* It goes on: now the new one may come to hold units, and the ledgers of all must know of it. */
	one.over = two.over = false;
	pass(&one, &two, 2 * SECOND);
	assert_string_not_equal(one.book.generation, generation);
	assert_true(lease_members_has(&one.book.members, NEW_NODE) && lease_members_has(&two.book.members, NEW_NODE));
}

/* Who wishes something of it waits for that. */
static void a_node_that_is_to_settle_now_does_so_in_a_sale_that_is_over_too(void **state)
{
	struct lease_reply reply;
	struct lease_call call;
	struct shop one, two;

	(void)state;
	end_sale(&one, &two);
	redis.store.count = 0;
	pass(&one, &two, 13 * SECOND); /* between two reports */
	assert_false(one.lease.last.open);
	redis.store.count = 0;
	lease_show_call(&one.lease, 2, &call);
	ask(&call, &reply);
	assert_int_equal(reply.answer, LEASE_REGEN);
	assert_string_not_equal(one.book.generation, reply.generation);
	lease_look(&one.lease);
	pass(&one, &two, 5 * TURN);
	assert_string_not_equal(one.book.generation, reply.generation);
	lease_settle_now(&one.lease);
	pass(&one, &two, 5 * TURN);
	assert_string_equal(one.book.generation, reply.generation);
}

static void a_sale_that_is_over_and_waits_for_a_node_is_told_of_as_seldom_as_others(void **state)
{
	struct shop one, two;
	unsigned before;

	(void)state;
	end_sale(&one, &two);
	redis.store.count = 0;
	pass(&one, &two, 10 * SECOND);
	assert_false(one.lease.last.open);
	assert_true(lease_members_has(&one.lease.last.missing, NODES));
	before = calls;
	pass(&one, &two, A_WHILE);
	assert_in_range(calls - before, 2, 2 * (A_WHILE / (OVER_S * SECOND)) + 2);
	/* Of many sales still more seldom. */
	one.rest_ns = two.rest_ns = 16 * SECOND;
	pass(&one, &two, A_WHILE);
	before = calls;
	pass(&one, &two, A_WHILE);
	assert_in_range(calls - before, 2, 8);
}

static void what_is_unsold_when_a_sale_ends_goes_back_when_the_last_node_has_spoken(void **state)
{
	struct shop one, two, three;

	(void)state;
	begin(&one, &two);
	sell(&one, 2);
	redis.store.count = 0;
	pass(&one, &two, 2 * SECOND);
	assert_false(one.lease.last.open);
	one.over = two.over = true;
	pass(&one, &two, 20 * SECOND);
	assert_true(one.unsold > 0 && two.unsold > 0);
	open_shop(&three, 3, "yonder");
	three.over = true;
	wait_for(&three, MS);
	wait_for(&three, MS);
	pass(&one, &two, 2 * OVER_S * SECOND);
	assert_int_equal(one.unsold + two.unsold, 0);
	assert_int_equal(free_units(&one), TOTAL - 2);
}

static void a_sale_that_goes_on_waits_for_nobody_longer_than_others(void **state)
{
	struct shop one, two;
	unsigned before;

	(void)state;
	end_sale(&one, &two);
	redis.store.count = 0;
	pass(&one, &two, 10 * SECOND);
	one.over = two.over = false;
	pass(&one, &two, SECOND);
	before = calls;
	pass(&one, &two, SECOND);
	assert_in_range(calls - before, 8, 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_node_that_is_new_in_the_config_begins_no_generation_in_a_sale_that_is_over),
		cmocka_unit_test(a_node_that_is_to_settle_now_does_so_in_a_sale_that_is_over_too),
		cmocka_unit_test(a_sale_that_is_over_and_waits_for_a_node_is_told_of_as_seldom_as_others),
		cmocka_unit_test(what_is_unsold_when_a_sale_ends_goes_back_when_the_last_node_has_spoken),
		cmocka_unit_test(a_sale_that_goes_on_waits_for_nobody_longer_than_others),
	};

	return cmocka_run_group_tests(tests, scripts_open, scripts_close);
}
