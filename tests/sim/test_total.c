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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_total_that_no_node_could_read_is_refused_and_nothing_is_changed),
	};

	return cmocka_run_group_tests(tests, scripts_open, scripts_close);
}
