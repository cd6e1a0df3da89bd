/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice verify --fleet` over an audit that was made up: books that agree give nothing, and each way of disagreeing is named, with its node and figures, and
 * nothing else with it.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cli/verify_fleet.h"

/* A sale of 100: 40 at node 1 (10 sold, one of them refunded), 30 at node 2 (nothing sold), 30 free. */
static const char audit_text[] =
	"{\"nodes\":{"
	"\"1\":{\"node\":1,\"sales\":[{\"id\":1,\"slug\":\"drop\",\"put_in\":39,\"held\":4,\"confirmed\":5,\"refunded\":1,\"free\":28,"
	"\"in_flight\":2,\"in_gate\":true,\"book\":{\"epoch\":3,\"seq\":9,\"balance\":40,\"total\":100,\"version\":2}}]},"
	"\"2\":{\"node\":2,\"sales\":[{\"id\":1,\"slug\":\"drop\",\"put_in\":30,\"held\":0,\"confirmed\":0,\"refunded\":0,\"free\":30,"
	"\"in_flight\":0,\"in_gate\":true,\"book\":{\"epoch\":0,\"seq\":1,\"balance\":30,\"total\":90,\"version\":1}}]}},"
	"\"redis\":{\"drop\":{\"state\":\"open\",\"total\":100,\"version\":2,\"free\":30,\"outside\":58,\"deficit\":0,\"missing\":[],\"nodes\":{"
	"\"1\":{\"balance\":40,\"sold\":10,\"epoch\":3,\"seq\":9,\"fenced\":false,\"settled\":true},"
	"\"2\":{\"balance\":30,\"sold\":0,\"epoch\":0,\"seq\":1,\"fenced\":false,\"settled\":true}}}}}";

static json_t *make_audit(void)
{
	json_t *audit = json_loads(audit_text, 0, NULL);

	assert_non_null(audit);
	return audit;
}

static json_t *account(json_t *audit, const char *node)
{
	return json_array_get(json_object_get(json_object_get(json_object_get(audit, "nodes"), node), "sales"), 0);
}

static json_t *redis(json_t *audit)
{
	return json_object_get(json_object_get(audit, "redis"), "drop");
}

static json_t *row(json_t *audit, const char *node)
{
	return json_object_get(json_object_get(redis(audit), "nodes"), node);
}

/* Releases the audit. */
static void expect(json_t *audit, const char *difference, int node, json_int_t found, json_int_t expected)
{
	struct fleet_look look;
	json_t *only;

	assert_int_equal(fleet_look_compare(audit, &look), 0);
	if (json_array_size(look.differences) != 1)
		fail_msg("%s", json_dumps(look.differences, 0));
	only = json_array_get(look.differences, 0);
	assert_string_equal(json_string_value(json_object_get(only, "difference")), difference);
	assert_string_equal(json_string_value(json_object_get(only, "sale")), "drop");
	assert_int_equal(json_integer_value(json_object_get(only, "node")), node);
	assert_int_equal(json_integer_value(json_object_get(only, "found")), found);
	assert_int_equal(json_integer_value(json_object_get(only, "expected")), expected);
	assert_string_equal(json_string_value(json_object_get(json_array_get(look.sales, 0), "equation")), "broken");
	fleet_look_free(&look);
	json_decref(audit);
}

static void set(json_t *object, const char *name, json_int_t value)
{
	assert_non_null(json_object_get(object, name));
	json_object_set_new(object, name, json_integer(value));
}

static void books_that_agree_give_nothing(void **state)
{
	json_t *audit = make_audit(), *sale;
	struct fleet_look look;

	(void)state;
	assert_int_equal(fleet_look_compare(audit, &look), 0);
	assert_int_equal(json_array_size(look.differences), 0);
	assert_int_equal(json_array_size(look.silent), 0);
	sale = json_array_get(look.sales, 0);
	assert_string_equal(json_string_value(json_object_get(sale, "equation")), "holds");
	assert_int_equal(json_integer_value(json_object_get(sale, "on_nodes")), 58);
	assert_int_equal(json_integer_value(json_object_get(sale, "refunded")), 1);
	fleet_look_free(&look);
	json_decref(audit);
}

static void a_unit_that_redis_has_lost_or_found_breaks_the_total(void **state)
{
	json_t *audit = make_audit();

	(void)state;
	set(redis(audit), "free", 29);
	expect(audit, "total_sum", 0, 99, 100);
	audit = make_audit();
	set(redis(audit), "free", 31);
	expect(audit, "total_sum", 0, 101, 100);
}

static void a_balance_that_redis_has_otherwise_than_the_ledger_is_named_with_its_node(void **state)
{
	json_t *audit = make_audit();

	(void)state;
	set(row(audit, "2"), "balance", 29);
	set(redis(audit), "free", 31);
	expect(audit, "balance", 2, 30, 29);
}

static void a_ledger_that_differs_from_its_own_book_is_named(void **state)
{
	json_t *audit = make_audit();

	(void)state;
	set(account(audit, "1"), "put_in", 41);
	set(account(audit, "1"), "free", 30);
	expect(audit, "book_sum", 1, 42, 40);
}

static void a_gate_whose_units_do_not_add_up_is_named(void **state)
{
	json_t *audit = make_audit();

	(void)state;
	set(account(audit, "2"), "free", 31);
	expect(audit, "gate_sum", 2, 31, 30);
}

static void an_epoch_that_is_another_is_named_unless_the_node_is_fenced(void **state)
{
	json_t *audit = make_audit();
	struct fleet_look look;

	(void)state;
	set(row(audit, "1"), "epoch", 4);
	expect(audit, "epoch", 1, 3, 4);
	/* One that is fenced, and has not come back: Redis knows better, or as well. */
	audit = make_audit();
	set(row(audit, "1"), "epoch", 4);
	set(row(audit, "1"), "balance", 12);
	set(redis(audit), "free", 58);
	json_object_set_new(row(audit, "1"), "fenced", json_true());
	assert_int_equal(fleet_look_compare(audit, &look), 0);
	assert_int_equal(json_array_size(look.differences), 0);
	fleet_look_free(&look);
	json_decref(audit);
}

static void orders_beyond_the_total_are_an_oversell(void **state)
{
	json_t *audit = make_audit();

	(void)state;
	/* Both ledgers agree with themselves and with Redis, and yet. */
	set(redis(audit), "total", 8);
	set(redis(audit), "free", -62);
	set(redis(audit), "version", 3);
	expect(audit, "oversold", 0, 10, 8);
}

static void a_deficit_is_a_difference(void **state)
{
	json_t *audit = make_audit();

	(void)state;
	set(redis(audit), "free", 0);
	set(redis(audit), "deficit", 5);
	set(redis(audit), "total", 65);
	set(redis(audit), "version", 3);
	expect(audit, "deficit", 0, 5, 0);
}

static void totals_of_one_version_must_be_one(void **state)
{
	json_t *audit = make_audit();

	(void)state;
	set(json_object_get(account(audit, "1"), "book"), "total", 101);
	expect(audit, "total_known", 1, 101, 100);
}

static void a_lease_that_only_one_side_knows_is_named(void **state)
{
	json_t *audit = make_audit();

	(void)state;
	json_object_del(json_object_get(redis(audit), "nodes"), "2");
	set(redis(audit), "free", 60);
	expect(audit, "no_member", 2, 30, 0);
	audit = make_audit();
	json_array_clear(json_object_get(json_object_get(json_object_get(audit, "nodes"), "2"), "sales"));
	expect(audit, "no_book", 2, 0, 30);
}

static void a_sale_that_redis_has_forgotten_is_named_and_one_that_nobody_leases_is_none(void **state)
{
	json_t *audit = make_audit();
	struct fleet_look look;

	(void)state;
	json_object_set_new(json_object_get(audit, "redis"), "drop", json_null());
	expect(audit, "not_in_redis", 0, 0, 0);
	audit = make_audit();
	json_object_set_new(json_object_get(audit, "redis"), "old", json_null());
	assert_int_equal(fleet_look_compare(audit, &look), 0);
	assert_int_equal(json_array_size(look.differences), 0);
	assert_int_equal(json_array_size(look.sales), 1);
	fleet_look_free(&look);
	json_decref(audit);
}

static void while_nodes_are_missing_that_is_what_is_said(void **state)
{
	json_t *audit = make_audit();

	(void)state;
	json_object_set_new(redis(audit), "state", json_string("settling"));
	json_object_set_new(row(audit, "2"), "settled", json_false());
	set(row(audit, "2"), "balance", 7);
	expect(audit, "settling", 0, 1, 2);
}

/* Some never come, and nobody can lease of it any more. What the nodes themselves hold must fit together as ever. */
static void of_a_sale_that_is_over_nobody_is_missed(void **state)
{
	json_t *audit = make_audit(), *other;
	struct fleet_look look;

	(void)state;
	json_object_set_new(redis(audit), "state", json_string("settling"));
	json_object_set_new(redis(audit), "over", json_true());
	json_object_set_new(row(audit, "2"), "settled", json_false());
	other = json_deep_copy(audit);
	assert_int_equal(fleet_look_compare(audit, &look), 0);
	assert_int_equal(json_array_size(look.differences), 0);
	fleet_look_free(&look);
	json_decref(audit);
	set(account(other, "1"), "free", 27);
	expect(other, "gate_sum", 1, 38, 39);
}

static void of_a_node_that_does_not_answer_counts_what_it_told_last(void **state)
{
	json_t *audit = make_audit(), *sale;
	struct fleet_look look;

	(void)state;
	json_object_set_new(json_object_get(audit, "nodes"), "1", json_null());
	assert_int_equal(fleet_look_compare(audit, &look), 0);
	assert_int_equal(json_array_size(look.differences), 0);
	assert_int_equal(json_array_size(look.silent), 1);
	assert_int_equal(json_integer_value(json_array_get(look.silent, 0)), 1);
	sale = json_array_get(look.sales, 0);
	assert_int_equal(json_integer_value(json_object_get(sale, "unheard")), 10);
	fleet_look_free(&look);
	json_decref(audit);
}

/* A look in which Redis has so many free units (30 are right), and node 2's gate so many (likewise). */
static void look_at(json_int_t in_redis, json_int_t in_gate, struct fleet_look *look)
{
	json_t *audit = make_audit();

	set(redis(audit), "free", in_redis);
	set(account(audit, "2"), "free", in_gate);
	assert_int_equal(fleet_look_compare(audit, look), 0);
	json_decref(audit);
}

static void look_again(json_int_t in_redis, json_int_t in_gate, struct fleet_look *look)
{
	struct fleet_look before = *look;

	look_at(in_redis, in_gate, look);
	fleet_look_follow(look, &before);
	fleet_look_free(&before);
}

static void only_what_three_looks_in_a_row_found_alike_is_told(void **state)
{
	struct fleet_look look;

	(void)state;
	look_at(29, 31, &look);
	look_again(28, 31, &look);
	assert_true(fleet_look_is_unsure(&look, 3));
	look_again(28, 31, &look);
	assert_true(fleet_look_is_unsure(&look, 3)); /* one found it twice so far */
	fleet_look_judge(&look, 3);
	assert_int_equal(json_array_size(look.differences), 1);
	assert_string_equal(
		json_string_value(json_object_get(json_array_get(look.differences, 0), "difference")), "gate_sum");
	assert_false(fleet_look_is_unsure(&look, 3));
	assert_string_equal(json_string_value(json_object_get(json_array_get(look.sales, 0), "equation")), "broken");
	fleet_look_free(&look);
}

static void what_a_look_in_between_did_not_find_is_counted_anew(void **state)
{
	struct fleet_look look;

	(void)state;
	look_at(29, 30, &look);
	look_again(29, 30, &look);
	look_again(28, 30, &look);
	look_again(29, 30, &look);
	fleet_look_judge(&look, 2);
	assert_int_equal(json_array_size(look.differences), 0);
	fleet_look_free(&look);
}

static void a_sale_of_which_no_difference_is_left_holds(void **state)
{
	struct fleet_look look;

	(void)state;
	look_at(29, 30, &look);
	look_again(28, 30, &look);
	assert_string_equal(json_string_value(json_object_get(json_array_get(look.sales, 0), "equation")), "broken");
	fleet_look_judge(&look, 3);
	assert_int_equal(json_array_size(look.differences), 0);
	assert_string_equal(json_string_value(json_object_get(json_array_get(look.sales, 0), "equation")), "holds");
	fleet_look_free(&look);
}

static void what_is_no_audit_is_refused(void **state)
{
	json_t *audit = json_pack("{s:{}}", "nodes");
	struct fleet_look look;

	(void)state;
	assert_int_equal(fleet_look_compare(audit, &look), -EPROTO);
	json_decref(audit);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(books_that_agree_give_nothing),
		cmocka_unit_test(a_unit_that_redis_has_lost_or_found_breaks_the_total),
		cmocka_unit_test(a_balance_that_redis_has_otherwise_than_the_ledger_is_named_with_its_node),
		cmocka_unit_test(a_ledger_that_differs_from_its_own_book_is_named),
		cmocka_unit_test(a_gate_whose_units_do_not_add_up_is_named),
		cmocka_unit_test(an_epoch_that_is_another_is_named_unless_the_node_is_fenced),
		cmocka_unit_test(orders_beyond_the_total_are_an_oversell),
		cmocka_unit_test(a_deficit_is_a_difference),
		cmocka_unit_test(totals_of_one_version_must_be_one),
		cmocka_unit_test(a_lease_that_only_one_side_knows_is_named),
		cmocka_unit_test(a_sale_that_redis_has_forgotten_is_named_and_one_that_nobody_leases_is_none),
		cmocka_unit_test(while_nodes_are_missing_that_is_what_is_said),
		cmocka_unit_test(of_a_sale_that_is_over_nobody_is_missed),
		cmocka_unit_test(of_a_node_that_does_not_answer_counts_what_it_told_last),
		cmocka_unit_test(only_what_three_looks_in_a_row_found_alike_is_told),
		cmocka_unit_test(what_a_look_in_between_did_not_find_is_counted_anew),
		cmocka_unit_test(a_sale_of_which_no_difference_is_left_holds),
		cmocka_unit_test(what_is_no_audit_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
