/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* lease.c and the scripts, step by step: how many units a sale has in all, who may say so, and what becomes of it when Redis loses it. Faults of chance
 * are in test_lease.c.
 */
#include "shop.h"

#include <string.h>

#include "fleet/lease_plant.h"

enum lease_plant lease_plant;

static enum lease_answer change(struct shop *by, const char *operation, int64_t delta, struct lease_reply *reply)
{
	struct lease_call call;

	lease_total_call(&by->lease, operation, delta, &call);
	ask(&call, reply);
	return reply->answer;
}

static void a_total_that_no_node_could_read_is_refused_and_nothing_is_changed(void **state)
{
	struct shop one, two;
	struct lease_reply reply;

	(void)state;
	begin(&one, &two);
	assert_int_equal(change(&one, "most", LEASE_UNITS_MAX - TOTAL, &reply), LEASE_OK);
	assert_int_equal(reply.total, LEASE_UNITS_MAX);
	assert_int_equal(change(&one, "more", 1, &reply), LEASE_REFUSED);
	assert_int_equal(reply.total, LEASE_UNITS_MAX);
	wait_for(&one, 4 * SECOND);
	assert_true(sells(&one));
	assert_int_equal(one.book.total, LEASE_UNITS_MAX);
	/* The same operation is done when there is room for it. */
	assert_int_equal(change(&one, "less", -2, &reply), LEASE_OK);
	assert_int_equal(change(&one, "more", 1, &reply), LEASE_OK);
	assert_int_equal(reply.total, LEASE_UNITS_MAX - 1);
}

static void change_at(struct shop *by, const char *operation, int64_t delta)
{
	struct lease_reply reply;

	assert_int_equal(change(by, operation, delta, &reply), LEASE_OK);
	lease_look(&by->lease);
	wait_for(by, 600 * MS);
	assert_string_equal(by->book.operation, operation);
}

/* Node 1 changes the total and is cut off; Redis forgets that; node 1 is fenced, and another change is made at node 2. */
static void change_apart(struct shop *one, struct shop *two, struct shop *three, int64_t first, int64_t second)
{
	struct store before;

	begin(one, two);
	open_shop(three, 3, "yonder");
	wait_for(three, MS);
	before = redis.store;
	change_at(one, "first", first);
	redis.store = before;
	redis.run[0]++;
	for (unsigned i = 0; i < 4; i++) {
		wait_for(two, 300 * MS);
		wait_for(three, 0);
	}
	fence(two, 1, sold(one));
	wait_for(two, 4 * SECOND);
	assert_true(two->lease.last.open);
	change_at(two, "second", second);
	wait_for(three, 4 * SECOND);
	assert_string_equal(three->book.operation, "second");
	assert_int_equal(one->book.version, two->book.version);
}

static void all_settle(struct shop *one, struct shop *two, struct shop *three)
{
	for (unsigned i = 0; i < 6; i++) {
		wait_for(one, 600 * MS);
		wait_for(two, 0);
		wait_for(three, 0);
	}
}

static void assert_all_know(
	const struct shop *one, const struct shop *two, const struct shop *three, const char *operation, int64_t total)
{
	const struct shop *shops[] = {one, two, three};

	for (unsigned i = 0; i < NODES; i++) {
		assert_true(shops[i]->lease.last.open);
		assert_int_equal(shops[i]->lease.last.total, total);
		assert_int_equal(shops[i]->book.total, total);
		assert_string_equal(shops[i]->book.operation, operation);
	}
	assert_int_equal(one->book.balance + two->book.balance + three->book.balance + free_units(two), total);
}

static void of_two_changes_made_apart_the_smaller_total_holds_when_the_node_is_back(void **state)
{
	struct shop one, two, three;

	(void)state;
	change_apart(&one, &two, &three, 50, -10);
	all_settle(&one, &two, &three);
	assert_all_know(&one, &two, &three, "second", TOTAL - 10);
	change_apart(&one, &two, &three, -10, 50);
	all_settle(&one, &two, &three);
	assert_all_know(&one, &two, &three, "first", TOTAL - 10);
}

static void of_two_changes_made_apart_the_smaller_total_holds_whoever_tells_first(void **state)
{
	struct shop one, two, three;
	struct lease_reply reply;
	struct lease_call call;

	(void)state;
	for (unsigned order = 0; order < 2; order++) {
		change_apart(&one, &two, &three, 50, -10);
		lease_rebuild_call(&two.lease, &call);
		ask(&call, &reply);
		assert_int_equal(reply.answer, LEASE_REGEN);
		if (order)
			wait_for(&one, SECOND);
		wait_for(&three, SECOND);
		wait_for(&two, SECOND);
		wait_for(&one, 0);
		all_settle(&one, &two, &three);
		assert_all_know(&one, &two, &three, "second", TOTAL - 10);
	}
}

/* What is taken away may be leased: it is asked for. */
static void a_smaller_total_that_comes_back_asks_the_nodes_for_what_is_too_much(void **state)
{
	struct shop one, two, three;

	(void)state;
	change_apart(&one, &two, &three, -TOTAL / 2, 0);
	while (one.book.balance + two.book.balance + three.book.balance < TOTAL / 2 + 10)
		sell_into_the_next_lease(&two);
	assert_in_range(sold(&one) + sold(&two) + sold(&three), 0, TOTAL / 2);
	all_settle(&one, &two, &three);
	assert_all_know(&one, &two, &three, "first", TOTAL / 2);
	assert_true(free_units(&two) >= 0);
}

static void a_node_that_knows_another_history_changes_no_total_before_it_has_settled(void **state)
{
	struct shop one, two, three;
	struct lease_reply reply;

	(void)state;
	change_apart(&one, &two, &three, 50, -10);
	for (unsigned i = 0; strcmp(one.book.generation, two.book.generation) != 0; i++) {
		assert_true(i < STEPS_MAX);
		go_on(&one, 1);
	}
	assert_int_equal(change(&one, "third", 1, &reply), LEASE_SETTLING);
	all_settle(&one, &two, &three);
	assert_int_equal(change(&one, "third", 1, &reply), LEASE_OK);
	assert_int_equal(reply.total, TOTAL - 9);
}

/* Node 1 asks for the sale, and hears nothing; node 2 has heard of it and sells from it; Redis loses all that it has. To node 1 that is as before its first call. */
static void a_sale_that_may_have_been_sold_from_is_made_again_and_leased_when_all_have_told(void **state)
{
	struct shop one, two, three;
	struct lease_reply reply;
	struct lease_call call;

	(void)state;
	begin(&one, &two);
	sell(&two, two.unsold);
	memset(&redis.store, 0, sizeof(redis.store));
	redis.run[0]++;
	open_shop(&one, 1, "here");
	open_shop(&three, 3, "yonder");
	lease_show_call(&one.lease, 1, &call);
	ask(&call, &reply);
	assert_int_equal(reply.answer, LEASE_ABSENT);
	lease_create_call(&one.lease, "again", TOTAL, NULL, &call);
	assert_true(ask(&call, &reply));
	for (unsigned i = 0; i < 6; i++) {
		wait_for(&one, 600 * MS);
		wait_for(&three, 0);
	}
	assert_false(one.lease.last.open);
	assert_true(lease_members_has(&one.lease.last.missing, 2));
	assert_int_equal(one.book.balance + three.book.balance, 0);
	all_settle(&one, &two, &three);
	assert_true(one.lease.last.open && sells(&one) && one.unsold > 0);
	assert_int_equal(one.book.balance + two.book.balance + three.book.balance + free_units(&two), TOTAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_total_that_no_node_could_read_is_refused_and_nothing_is_changed),
		cmocka_unit_test(of_two_changes_made_apart_the_smaller_total_holds_when_the_node_is_back),
		cmocka_unit_test(of_two_changes_made_apart_the_smaller_total_holds_whoever_tells_first),
		cmocka_unit_test(a_smaller_total_that_comes_back_asks_the_nodes_for_what_is_too_much),
		cmocka_unit_test(a_node_that_knows_another_history_changes_no_total_before_it_has_settled),
		cmocka_unit_test(a_sale_that_may_have_been_sold_from_is_made_again_and_leased_when_all_have_told),
	};

	return cmocka_run_group_tests(tests, scripts_open, scripts_close);
}
