/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* lease.c and the scripts, step by step: who speaks for a node, and who for one that is gone? One number on two machines, a ledger that was set back,
 * a new one under an old number, nodes that nobody knows of. Faults of chance are in test_lease.c.
 */
#include "shop.h"

#include <string.h>

#include "fleet/lease_plant.h"

enum lease_plant lease_plant;

static void the_second_daemon_with_a_number_sells_nothing_while_the_first_is_heard_of(void **state)
{
	struct shop one, two, twin;

	(void)state;
	begin(&one, &two);
	sell(&one, 1);
	wait_for(&one, 20 * MS);
	twin = one; /* a copy of the whole disk, as it is */
	strcpy(twin.options.origin, "elsewhere");
	start(&twin);
	for (unsigned i = 0; i < 30; i++) {
		wait_for(&one, SECOND);
		wait_for(&twin, 0);
		assert_int_equal(lease_trouble(&twin.lease), LEASE_TROUBLE_DOUBLED);
		assert_false(sells(&twin));
		assert_true(sells(&one));
	}
}

static void a_new_ledger_under_a_number_in_use_sells_nothing(void **state)
{
	struct shop one, two, twin;

	(void)state;
	begin(&one, &two);
	open_shop(&twin, 1, "elsewhere");
	wait_for(&twin, 0);
	assert_false(sells(&twin));
	/* Nor later, when nobody else speaks for the node: it does not know what was sold. */
	wait_for(&twin, 2 * SILENT);
	assert_int_equal(lease_trouble(&twin.lease), LEASE_TROUBLE_SET_BACK);
	assert_false(sells(&twin));
}

static void a_daemon_that_starts_again_at_its_place_goes_on_at_once(void **state)
{
	struct shop one, two;

	(void)state;
	begin(&one, &two);
	start(&one);
	wait_for(&one, MS);
	assert_true(sells(&one));
	assert_int_equal(lease_trouble(&one.lease), LEASE_TROUBLE_NONE);
}

static void a_node_that_has_moved_goes_on_when_its_old_place_is_silent(void **state)
{
	struct shop one, two;

	(void)state;
	begin(&one, &two);
	wait_for(&one, 4 * SECOND); /* has told what its ledger has */
	strcpy(one.options.origin, "elsewhere");
	start(&one);
	wait_for(&one, MS);
	assert_int_equal(lease_trouble(&one.lease), LEASE_TROUBLE_DOUBLED);
	wait_for(&one, SILENT);
	assert_true(sells(&one));
	assert_int_equal(lease_trouble(&one.lease), LEASE_TROUBLE_NONE);
}

/* A daemon that is stopped gives back what it has, so that is the last operation of its book; then the machine is started anew. */
static void a_node_that_gave_its_units_back_sells_again_after_a_reboot(void **state)
{
	struct shop one, two;

	(void)state;
	begin(&one, &two);
	wait_for(&one, 2 * SECOND);
	one.leaving = true;
	wait_for(&one, 600 * MS);
	assert_int_equal(one.book.op, LEASE_OP_RETURN);
	assert_int_equal(one.unsold, 0);
	one.leaving = false;
	strcpy(one.options.origin, "elsewhere");
	start(&one);
	wait_for(&one, MS);
	assert_int_equal(lease_trouble(&one.lease), LEASE_TROUBLE_DOUBLED);
	wait_for(&one, SILENT);
	assert_int_equal(lease_trouble(&one.lease), LEASE_TROUBLE_NONE);
	assert_true(sells(&one));
	wait_for(&one, 600 * MS);
	assert_true(one.unsold > 0);
}

static void the_daemon_at_the_old_place_stops_when_another_has_gone_on(void **state)
{
	struct shop one, two, moved;

	(void)state;
	begin(&one, &two);
	wait_for(&one, 4 * SECOND);
	moved = one;
	strcpy(moved.options.origin, "elsewhere");
	start(&moved);
	wait_for(&moved, SILENT);
	assert_true(sells(&moved));
	/* It was cut off so long. */
	wait_for(&one, 0);
	assert_false(sells(&one));
	assert_int_equal(lease_trouble(&one.lease), LEASE_TROUBLE_DOUBLED);
}

/* One grant: the row fits then, as it does for a daemon that died before its ledger had the grant. */
static void set_back(unsigned grants)
{
	struct shop one, two, before;

	begin(&one, &two);
	before = one;
	while (grants--)
		sell_into_the_next_lease(&one);
	wait_for(&one, 4 * SECOND);
	assert_true(before.book.balance < sold(&one) + one.unsold);
	start(&before);
	wait_for(&before, SECOND);
	assert_false(sells(&before));
	assert_int_equal(lease_trouble(&before.lease), LEASE_TROUBLE_SET_BACK);
}

static void a_ledger_that_was_set_back_by_one_grant_sells_nothing(void **state)
{
	(void)state;
	set_back(1);
}

static void a_ledger_that_was_set_back_by_more_sells_nothing(void **state)
{
	(void)state;
	set_back(3);
}

/* A lease that lasts for long: what was sold of it is in no operation of the lease. */
static void a_ledger_that_was_set_back_to_its_last_grant_sells_nothing(void **state)
{
	struct shop one, two, before;

	(void)state;
	begin(&one, &two);
	wait_for(&one, 4 * SECOND);
	before = one;
	sell(&one, 1);
	wait_for(&one, 4 * SECOND);
	assert_int_equal(before.book.seq, one.book.seq);
	start(&before);
	wait_for(&before, SECOND);
	assert_false(sells(&before));
	assert_int_equal(lease_trouble(&before.lease), LEASE_TROUBLE_SET_BACK);
	start(&one);
	wait_for(&one, MS);
	assert_true(sells(&one));
}

static void what_a_lost_ledger_had_sold_stays_sold_when_another_comes_under_its_number(void **state)
{
	struct shop one, two, fresh;
	int64_t gone, before;

	(void)state;
	begin(&one, &two);
	sell_into_the_next_lease(&one);
	sell(&one, 1);
	wait_for(&one, 4 * SECOND);
	gone = sold(&one);
	fence(&two, 1, gone);
	wait_for(&two, 4 * SECOND);
	before = two.book.balance + free_units(&two);
	assert_int_equal(before, TOTAL - gone);

	open_shop(&fresh, 1, "here");
	wait_for(&fresh, MS);
	assert_false(sells(&fresh));
	assert_int_equal(lease_trouble(&fresh.lease), LEASE_TROUBLE_SET_BACK);
	wait_for(&two, 4 * SECOND);
	assert_int_equal(two.book.balance + free_units(&two), before);

	/* The right ledger is heard as ever. */
	start(&one);
	wait_for(&one, MS);
	assert_true(sells(&one));
	wait_for(&two, 4 * SECOND);
	assert_int_equal(one.book.balance + two.book.balance + free_units(&two), TOTAL);
}

static enum lease_answer fence_again(struct shop *by, unsigned node, int64_t units)
{
	struct lease_reply reply;
	struct lease_call call;

	lease_show_call(&by->lease, node, &call);
	assert_true(ask(&call, &reply));
	lease_fence_call(&by->lease, node, &reply.row, units, true, &call);
	ask(&call, &reply);
	return reply.answer;
}

static void a_fence_that_counted_too_few_as_sold_can_be_said_again_with_more(void **state)
{
	struct shop one, two;
	int64_t left;

	(void)state;
	begin(&one, &two);
	sell_into_the_next_lease(&one);
	wait_for(&two, 4 * SECOND);
	fence(&two, 1, 1);
	wait_for(&two, 4 * SECOND);
	left = free_units(&two);
	assert_in_range(left, 10, TOTAL);
	assert_int_equal(fence_again(&two, 1, 1 + left + 1), LEASE_REFUSED);
	assert_int_equal(fence_again(&two, 1, 8), LEASE_OK);
	wait_for(&two, 4 * SECOND);
	assert_int_equal(two.book.balance + free_units(&two), TOTAL - 8);
	assert_int_equal(fence_again(&two, 1, 3), LEASE_OK);
	wait_for(&two, 4 * SECOND);
	assert_int_equal(two.book.balance + free_units(&two), TOTAL - 3);
}

/* Who has not settled may not have heard the first message. */
static void who_is_missing_is_called_again_also_when_the_clock_of_redis_goes_back(void **state)
{
	struct shop one, two;
	unsigned times = 0;

	(void)state;
	begin(&one, &two);
	redis.store.count = 0;
	wait_for(&two, 4 * SECOND);
	assert_false(two.lease.last.open);
	for (unsigned i = 0; i < 20; i++) {
		if (i == 10) {
			assert_true(times >= 2);
			redis.clock_us -= 60000000;
			times = 0;
		}
		now += 200 * MS;
		said = false;
		go_on(&two, 1);
		times += said;
	}
	assert_true(times >= 2);
}

/* Another generation by the operator's word: nothing is forgotten by it. */
static void a_ledger_that_was_set_back_is_not_listened_to_in_another_generation(void **state)
{
	struct shop one, two, before;
	struct lease_reply reply;
	struct lease_call call;

	(void)state;
	begin(&one, &two);
	before = one;
	sell_into_the_next_lease(&one);
	wait_for(&one, 4 * SECOND);
	wait_for(&two, 0);
	lease_rebuild_call(&two.lease, &call);
	ask(&call, &reply);
	assert_int_equal(reply.answer, LEASE_REGEN);
	start(&before);
	wait_for(&before, MS);
	assert_int_equal(lease_trouble(&before.lease), LEASE_TROUBLE_SET_BACK);
	wait_for(&two, SECOND);
	assert_false(two.lease.last.open);
	assert_true(lease_members_has(&two.lease.last.missing, 1));
}

/* Redis has lost everything, and two of three nodes are fenced with not a word of what they hold. Then one is back: the other may hold the rest. */
static void what_one_of_two_unknown_nodes_does_not_hold_the_other_may(void **state)
{
	struct shop one, two, three;

	(void)state;
	begin(&one, &two);
	sell(&one, 2);
	sell(&two, 3);
	open_shop(&three, 3, "yonder");
	wait_for(&three, MS);
	wait_for(&three, SECOND);
	redis.store.count = 0;
	wait_for(&three, 4 * SECOND);
	assert_false(three.lease.last.open);
	fence(&three, 1, -1);
	fence(&three, 2, -1);
	wait_for(&three, SECOND);
	assert_true(three.lease.last.open);
	assert_int_equal(free_units(&three), 0);
	/* Twice the same word changes nothing. */
	fence(&three, 1, -1);

	wait_for(&two, MS);
	wait_for(&two, SECOND);
	wait_for(&three, 4 * SECOND);
	assert_int_equal(free_units(&three), 0);
	wait_for(&one, MS);
	wait_for(&one, SECOND);
	wait_for(&three, 4 * SECOND);
	assert_int_equal(one.book.balance + two.book.balance + three.book.balance + free_units(&three), TOTAL);
	assert_true(sells(&one) && sells(&two));
}

static void a_row_of_an_earlier_version_is_read(void **state)
{
	struct shop one, two;

	(void)state;
	begin(&one, &two);
	for (unsigned i = 0; i < redis.store.count; i++) {
		char *value = redis.store.fields[i].value;

		if (redis.store.fields[i].name[0] != 'n')
			continue;
		for (unsigned words = 0; words < 2; words++)
			*strrchr(value, ' ') = '\0';
	}
	start(&one);
	wait_for(&one, MS);
	assert_true(sells(&one));
	assert_int_equal(one.book.balance + two.book.balance + free_units(&one), TOTAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_second_daemon_with_a_number_sells_nothing_while_the_first_is_heard_of),
		cmocka_unit_test(a_new_ledger_under_a_number_in_use_sells_nothing),
		cmocka_unit_test(a_daemon_that_starts_again_at_its_place_goes_on_at_once),
		cmocka_unit_test(a_node_that_has_moved_goes_on_when_its_old_place_is_silent),
		cmocka_unit_test(a_node_that_gave_its_units_back_sells_again_after_a_reboot),
		cmocka_unit_test(the_daemon_at_the_old_place_stops_when_another_has_gone_on),
		cmocka_unit_test(a_ledger_that_was_set_back_by_one_grant_sells_nothing),
		cmocka_unit_test(a_ledger_that_was_set_back_by_more_sells_nothing),
		cmocka_unit_test(a_ledger_that_was_set_back_to_its_last_grant_sells_nothing),
		cmocka_unit_test(what_a_lost_ledger_had_sold_stays_sold_when_another_comes_under_its_number),
		cmocka_unit_test(a_fence_that_counted_too_few_as_sold_can_be_said_again_with_more),
		cmocka_unit_test(who_is_missing_is_called_again_also_when_the_clock_of_redis_goes_back),
		cmocka_unit_test(a_ledger_that_was_set_back_is_not_listened_to_in_another_generation),
		cmocka_unit_test(what_one_of_two_unknown_nodes_does_not_hold_the_other_may),
		cmocka_unit_test(a_row_of_an_earlier_version_is_read),
	};

	return cmocka_run_group_tests(tests, scripts_open, scripts_close);
}
