/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The registry of sales and its slots in the gate, over maps that are plain memory here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/sales.h"

#define OPENS 1000000000ULL
#define ENDS 2000000000ULL

static struct sluice_sale slots[SLUICE_MAX_SALES];
static struct sluice_stock stocks[SLUICE_MAX_SALES];
static struct gate_maps maps = {.sales = slots, .stock = stocks};

static struct sales *registry(void)
{
	memset(slots, 0, sizeof(slots));
	memset(stocks, 0, sizeof(stocks));
	return sales_new(&maps);
}

static struct sale learn(struct sales *sales, uint32_t id, const char *slug, uint64_t put_in)
{
	json_t *json = json_pack("{s:I, s:s, s:I, s:I, s:i, s:i, s:i, s:s, s:i, s:b, s:b, s:I, s:i, s:i, s:i}", "id",
		(json_int_t)id, "slug", slug, "opens_ns", (json_int_t)OPENS, "ends_ns", (json_int_t)ENDS, "per_buyer",
		2, "hold_seconds", 900, "pace_per_second", 0, "order_mode", "confirm", "token_multiplier", 0, "paused",
		false, "ended", false, "put_in", (json_int_t)put_in, "held", 0, "confirmed", 0, "orders", 0);
	struct sale sale;

	assert_non_null(json);
	assert_int_equal(sales_learn(sales, json, &sale), 0);
	json_decref(json);
	return sale;
}

static void slugs_are_lower_case_words_with_hyphens(void **state)
{
	static const char *const good[] = {
		"a", "drop-11", "0", "a--b", "abcdefghijklmnopqrstuvwxyz0123456789-abcdefghijklmnopqrstuvwxyz"};
	static const char *const bad[] = {"", "-a", "a-", "Drop", "a b", "a/b", "a.b", "a_b", "\xc3\xa9",
		"abcdefghijklmnopqrstuvwxyz0123456789-abcdefghijklmnopqrstuvwxyz0"};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_true(sales_slug_is_valid(good[i]));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(sales_slug_is_valid(bad[i]));
}

static void what_is_learned_is_found_by_slug_and_by_id(void **state)
{
	struct sales *sales = registry();
	struct sale sale, again;

	(void)state;
	sale = learn(sales, 3, "drop", 10);
	assert_int_equal(sales_find(sales, "drop", &again), 0);
	assert_int_equal(again.id, 3);
	assert_int_equal(sales_find_id(sales, 3, &again), 0);
	assert_ptr_equal(again.counts, sale.counts);
	assert_int_equal(sales_find(sales, "drip", &again), -ENOENT);
	assert_int_equal(sales_find_id(sales, 4, &again), -ENOENT);
	learn(sales, 3, "drop", 11);
	assert_int_equal(sales_count(sales), 1);
	assert_int_equal(atomic_load(&sale.counts->put_in), 11);
	sales_free(sales);
}

static void json_that_is_no_sale_is_refused(void **state)
{
	struct sales *sales = registry();
	struct sale sale;
	json_t *json = json_pack("{s:i, s:s}", "id", 1, "slug", "a");

	(void)state;
	assert_int_equal(sales_learn(sales, json, &sale), -EPROTO);
	assert_int_equal(sales_learn(sales, NULL, &sale), -EPROTO);
	assert_int_equal(sales_count(sales), 0);
	json_decref(json);
	sales_free(sales);
}

static void a_filled_slot_has_stock_window_and_id(void **state)
{
	struct sales *sales = registry();
	struct sale sale = learn(sales, 1025, "drop", 10);

	(void)state;
	sale.pace_per_second = 1000;
	assert_false(sales_in_gate(sales, &sale));
	assert_int_equal(sales_free_units(sales, &sale), 0);
	sales_fill_slot(sales, &sale, 10);
	assert_true(sales_in_gate(sales, &sale));
	assert_int_equal(slots[1].id, 1025);
	assert_int_equal(slots[1].flags, 0);
	assert_int_equal(slots[1].opens_wall, OPENS);
	assert_int_equal(slots[1].ends_wall, ENDS);
	assert_int_equal(slots[1].per_buyer, 2);
	assert_int_equal(slots[1].pace.interval_ns, 1000000);
	assert_int_equal(sales_free_units(sales, &sale), 10);
	sales_free(sales);
}

static void pausing_and_ending_are_flags(void **state)
{
	struct sales *sales = registry();
	struct sale sale = learn(sales, 1, "drop", 10);

	(void)state;
	sales_fill_slot(sales, &sale, 10);
	sale.paused = true;
	sales_write_words(sales, &sale);
	assert_int_equal(slots[1].flags, SLUICE_SALE_PAUSED);
	sale.paused = false;
	sale.ends_ns = ENDS + 1;
	sales_write_words(sales, &sale);
	assert_int_equal(slots[1].flags, 0);
	assert_int_equal(slots[1].ends_wall, ENDS + 1);
	sales_mark_ended(sales, &sale);
	assert_int_equal(slots[1].flags, SLUICE_SALE_ENDED);
	sales_free(sales);
}

/* The gate may have forgotten who has ordered. */
static void a_sale_that_was_swept_stays_ended_whatever_is_written(void **state)
{
	struct sales *sales = registry();
	struct sale sale = learn(sales, 1, "drop", 10), stale = sale;

	(void)state;
	sales_fill_slot(sales, &sale, 10);
	sales_mark_ended(sales, &sale);
	sales_write_words(sales, &stale);
	assert_int_equal(slots[1].flags, SLUICE_SALE_ENDED);
	/* A new window, a pause and its end, what the ledger says: */
	stale.ends_ns = ENDS + 1;
	stale.paused = true;
	sales_write_words(sales, &stale);
	assert_int_equal(slots[1].flags, SLUICE_SALE_PAUSED | SLUICE_SALE_ENDED);
	sale = learn(sales, 1, "drop", 10);
	sales_write_words(sales, &sale);
	assert_int_equal(slots[1].flags, SLUICE_SALE_ENDED);
	sales_fill_slot(sales, &sale, 10);
	assert_int_equal(slots[1].flags, SLUICE_SALE_ENDED);
	/* So is what is said of it. */
	assert_int_equal(sales_state(&sale, 10, OPENS), SALE_ENDED);
	sales_free(sales);
}

static void revoked_tokens_stay_so_whoever_writes_what_he_read_before(void **state)
{
	struct sales *sales = registry();
	struct sale sale = learn(sales, 1, "drop", 10), stale = sale;

	(void)state;
	/* While it is rebuilt and has no slot: */
	sales_set_not_before(sales, 1, 1700000000);
	assert_int_equal(slots[1].not_before_s, 0);
	sales_fill_slot(sales, &stale, 10);
	assert_int_equal(slots[1].not_before_s, 1700000000);
	/* and when it has one. An earlier second takes a later one back. */
	sales_set_not_before(sales, 1, 1600000000);
	assert_int_equal(slots[1].not_before_s, 1600000000);
	stale.not_before_s = 1700000000;
	sales_write_words(sales, &stale);
	assert_int_equal(slots[1].not_before_s, 1600000000);
	sales_free(sales);
}

static void units_are_taken_all_or_none(void **state)
{
	struct sales *sales = registry();
	struct sale sale = learn(sales, 1, "drop", 10), other = learn(sales, 2, "other", 10);

	(void)state;
	sales_fill_slot(sales, &sale, 10);
	assert_int_equal(sales_take_units(sales, &sale, 11), -ENOSPC);
	assert_int_equal(sales_free_units(sales, &sale), 10);
	assert_int_equal(sales_take_units(sales, &sale, 10), 0);
	assert_int_equal(sales_take_units(sales, &sale, 1), -ENOSPC);
	sales_give_units(sales, &sale, 4);
	assert_int_equal(sales_free_units(sales, &sale), 4);
	/* A sale without a slot has nothing, and nothing can be put into a stranger's slot. */
	assert_int_equal(sales_take_units(sales, &other, 0), -ENOSPC);
	sales_give_units(sales, &other, 5);
	assert_int_equal(stocks[2].free, 0);
	sales_free(sales);
}

static void the_state_follows_clock_flags_and_stock(void **state)
{
	struct sales *sales = registry();
	struct sale sale = learn(sales, 1, "drop", 10);

	(void)state;
	assert_int_equal(sales_state(&sale, 10, OPENS - 1), SALE_SCHEDULED);
	assert_int_equal(sales_state(&sale, 10, OPENS), SALE_OPEN);
	assert_int_equal(sales_state(&sale, 0, OPENS), SALE_SOLD_OUT);
	assert_int_equal(sales_state(&sale, 10, ENDS - 1), SALE_OPEN);
	assert_int_equal(sales_state(&sale, 10, ENDS), SALE_ENDED);
	sale.paused = true;
	assert_int_equal(sales_state(&sale, 10, OPENS), SALE_PAUSED);
	sale.ended = true;
	assert_int_equal(sales_state(&sale, 10, OPENS), SALE_ENDED);
	sales_free(sales);
}

/* --- leases ------------------------------------------------------------------------------------------------------------------ */
static void leases_are_flags_that_no_other_change_touches(void **state)
{
	struct sales *sales = registry();
	struct sale sale = learn(sales, 1, "drop", 10), stale = sale;

	(void)state;
	sales_fill_slot(sales, &sale, 10);
	assert_int_equal(slots[1].flags, 0);
	sales_set_lease_flags(sales, 1, true, false);
	assert_int_equal(slots[1].flags, SLUICE_SALE_MORE);
	/* Whoever changes the sale has a copy of before. */
	stale.paused = true;
	sales_write_words(sales, &stale);
	assert_int_equal(slots[1].flags, SLUICE_SALE_PAUSED | SLUICE_SALE_MORE);
	stale.ends_ns = ENDS + 1;
	sales_write_words(sales, &stale);
	assert_int_equal(slots[1].flags, SLUICE_SALE_PAUSED | SLUICE_SALE_MORE);
	sales_mark_ended(sales, &sale);
	sales_set_lease_flags(sales, 1, false, true);
	assert_int_equal(slots[1].flags, SLUICE_SALE_PAUSED | SLUICE_SALE_ENDED | SLUICE_SALE_WITHHELD);
	sales_set_lease_flags(sales, 1, false, false);
	assert_int_equal(slots[1].flags, SLUICE_SALE_PAUSED | SLUICE_SALE_ENDED);
	sales_set_lease_flags(sales, 2, true, true); /* nobody's */
	assert_int_equal(slots[2].flags, 0);
	sales_free(sales);
}

static void a_slot_starts_with_what_the_leases_said_before(void **state)
{
	struct sales *sales = registry();
	struct sale sale = learn(sales, 1, "drop", 10), other = learn(sales, 1025, "other", 10);

	(void)state;
	stocks[1].wanted = 99;
	sales_set_lease_flags(sales, 1, true, true);
	assert_int_equal(slots[1].flags, 0); /* not its slot yet */
	assert_int_equal(sales_wanted_units(sales, &sale), 0);
	sales_fill_slot(sales, &sale, 10);
	assert_int_equal(slots[1].flags, SLUICE_SALE_MORE | SLUICE_SALE_WITHHELD);
	assert_int_equal(sales_wanted_units(sales, &sale), 0);
	stocks[1].wanted = 3;
	assert_int_equal(sales_wanted_units(sales, &sale), 3);
	/* The slot's next owner has none of it. */
	sales_fill_slot(sales, &other, 10);
	assert_int_equal(slots[1].flags, 0);
	sales_set_lease_flags(sales, 1, false, false);
	assert_int_equal(slots[1].flags, 0);
	sales_free(sales);
}

/* What the gate kept from a daemon of before may be wrong by now: this daemon has not heard from the fleet yet. */
static void in_a_fleet_nothing_is_sold_until_the_leases_say_so(void **state)
{
	struct sales *sales = registry();
	struct sale sale;

	(void)state;
	sales_start_withheld(sales);
	sale = learn(sales, 1, "drop", 10);
	assert_true(sale.withheld);
	slots[1].id = 1;
	slots[1].flags = SLUICE_SALE_MORE;
	sales_write_words(sales, &sale);
	assert_int_equal(slots[1].flags, SLUICE_SALE_WITHHELD);
	sales_set_lease_flags(sales, 1, true, false);
	assert_int_equal(slots[1].flags, SLUICE_SALE_MORE);
	/* To learn of it again changes nothing of it. */
	sale = learn(sales, 1, "drop", 11);
	assert_true(sale.more);
	assert_false(sale.withheld);
	sales_free(sales);
	/* And a node that has left its fleet sells again. */
	sales = sales_new(&maps);
	sale = learn(sales, 1, "drop", 10);
	sales_write_words(sales, &sale);
	assert_int_equal(slots[1].flags, 0);
	sales_free(sales);
}

static void a_sale_is_not_sold_out_while_units_may_come(void **state)
{
	struct sales *sales = registry();
	struct sale sale = learn(sales, 1, "drop", 10);

	(void)state;
	sales_set_lease_flags(sales, 1, true, false);
	assert_int_equal(sales_find(sales, "drop", &sale), 0);
	assert_int_equal(sales_state(&sale, 0, OPENS), SALE_OPEN);
	assert_int_equal(sales_state(&sale, 0, OPENS - 1), SALE_SCHEDULED);
	assert_int_equal(sales_state(&sale, 0, ENDS), SALE_ENDED);
	sales_set_lease_flags(sales, 1, false, true);
	assert_int_equal(sales_find(sales, "drop", &sale), 0);
	assert_int_equal(sales_state(&sale, 0, OPENS), SALE_OPEN);
	sales_set_lease_flags(sales, 1, false, false);
	assert_int_equal(sales_find(sales, "drop", &sale), 0);
	assert_int_equal(sales_state(&sale, 0, OPENS), SALE_SOLD_OUT);
	sales_free(sales);
}

static void ids_go_up_and_a_slot_is_reused_only_when_nothing_of_its_sale_can_come_back(void **state)
{
	struct sales *sales = registry();
	struct sale first, sale;
	char slug[16], used[SLUICE_MAX_SALES / 4 + 1];

	(void)state;
	assert_int_equal(sales_next_id(sales, OPENS), 1);
	assert_int_equal(sales_highest_id(sales), 0);
	first = learn(sales, 1, "sale-1", 1);
	sales_fill_slot(sales, &first, 1);
	for (uint32_t id = 2; id <= SLUICE_MAX_SALES; id++) {
		snprintf(slug, sizeof(slug), "sale-%u", id);
		sale = learn(sales, id, slug, 1);
		sales_fill_slot(sales, &sale, 1);
		atomic_store(&sale.counts->live_tokens, 1);
	}
	/* Every slot is in use. */
	assert_int_equal(sales_next_id(sales, OPENS), 0);
	assert_int_equal(sales_highest_id(sales), SLUICE_MAX_SALES);
	assert_false(sales_slot_is_free(sales, SLUICE_MAX_SALES + 1, OPENS));
	sales_used_slots(sales, OPENS, used);
	assert_int_equal(strspn(used, "f"), SLUICE_MAX_SALES / 4);
	/* Over, but a token is alive; then an order is not durable; then nothing is left of it. */
	atomic_store(&first.counts->live_tokens, 1);
	assert_int_equal(sales_next_id(sales, ENDS + 1), 0);
	atomic_store(&first.counts->live_tokens, 0);
	atomic_store(&first.counts->pending, 1);
	assert_int_equal(sales_next_id(sales, ENDS + 1), 0);
	atomic_store(&first.counts->pending, 0);
	assert_int_equal(sales_next_id(sales, ENDS), 0);
	assert_int_equal(sales_next_id(sales, ENDS + 1), SLUICE_MAX_SALES + 1);
	/* Of the lowest four slots only that of id 1 is free. */
	assert_true(sales_slot_is_free(sales, SLUICE_MAX_SALES + 1, ENDS + 1));
	assert_false(sales_slot_is_free(sales, SLUICE_MAX_SALES + 2, ENDS + 1));
	sales_used_slots(sales, ENDS + 1, used);
	assert_int_equal(used[0], 'd');
	assert_int_equal(strspn(used + 1, "f"), SLUICE_MAX_SALES / 4 - 1);
	/* The new owner takes the slot; the old sale has lost it. */
	sale = learn(sales, SLUICE_MAX_SALES + 1, "next", 5);
	sales_fill_slot(sales, &sale, 5);
	assert_false(sales_in_gate(sales, &first));
	assert_int_equal(sales_free_units(sales, &first), 0);
	assert_int_equal(sales_free_units(sales, &sale), 5);
	sales_free(sales);
}

static void a_slot_of_a_sale_that_nobody_knows_is_left_alone(void **state)
{
	struct sales *sales = registry();

	(void)state;
	slots[1].id = 1;
	assert_int_equal(sales_next_id(sales, ENDS + 1), 2);
	sales_free(sales);
}

/* A slot goes to higher ids only (recovery.c), so one that a fleet's sale has had is nothing for a lower id, whatever has become of that sale. */
static void a_node_that_has_left_its_fleet_gives_no_numbers_of_the_fleet(void **state)
{
	struct sales *sales = registry();
	char slug[16];

	(void)state;
	learn(sales, 6, "own", 1);
	learn(sales, SALES_LAST_LONELY_ID + 7, "of-the-fleet", 1);
	assert_int_equal(sales_highest_id(sales), SALES_LAST_LONELY_ID + 7);
	assert_int_equal(sales_next_id(sales, ENDS + 1), 8);
	sales_free(sales);
	/* Where every slot was a fleet's, it is one above all, as ever. */
	sales = registry();
	for (uint32_t i = 1; i <= SLUICE_MAX_SALES; i++) {
		snprintf(slug, sizeof(slug), "sale-%u", i);
		learn(sales, SALES_LAST_LONELY_ID + i, slug, 1);
	}
	assert_int_equal(sales_next_id(sales, ENDS + 1), SALES_LAST_LONELY_ID + SLUICE_MAX_SALES + 1);
	sales_free(sales);
	/* And of its own numbers the last is the last. */
	sales = registry();
	learn(sales, SALES_LAST_LONELY_ID - 1, "own", 1);
	assert_int_equal(sales_next_id(sales, ENDS + 1), SALES_LAST_LONELY_ID);
	sales_free(sales);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slugs_are_lower_case_words_with_hyphens),
		cmocka_unit_test(what_is_learned_is_found_by_slug_and_by_id),
		cmocka_unit_test(json_that_is_no_sale_is_refused),
		cmocka_unit_test(a_filled_slot_has_stock_window_and_id),
		cmocka_unit_test(pausing_and_ending_are_flags),
		cmocka_unit_test(a_sale_that_was_swept_stays_ended_whatever_is_written),
		cmocka_unit_test(revoked_tokens_stay_so_whoever_writes_what_he_read_before),
		cmocka_unit_test(units_are_taken_all_or_none),
		cmocka_unit_test(the_state_follows_clock_flags_and_stock),
		cmocka_unit_test(leases_are_flags_that_no_other_change_touches),
		cmocka_unit_test(a_slot_starts_with_what_the_leases_said_before),
		cmocka_unit_test(in_a_fleet_nothing_is_sold_until_the_leases_say_so),
		cmocka_unit_test(a_sale_is_not_sold_out_while_units_may_come),
		cmocka_unit_test(ids_go_up_and_a_slot_is_reused_only_when_nothing_of_its_sale_can_come_back),
		cmocka_unit_test(a_node_that_has_left_its_fleet_gives_no_numbers_of_the_fleet),
		cmocka_unit_test(a_slot_of_a_sale_that_nobody_knows_is_left_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
