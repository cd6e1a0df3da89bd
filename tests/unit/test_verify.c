/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice verify` over two views that were made up: books that agree give nothing, and each way of disagreeing is named, with its figures, and nothing else
 * with it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cli/verify.h"

#define SALE 7u
#define STOCK 5
#define NOW 1500000000000ULL
#define OPENS 1000000000000ULL
#define ENDS 2000000000000ULL
#define LONG_AGO 60000000000ULL /* ns; longer than anything is on its way */

/* A sale of five units; orders 101 held, 102 confirmed, 103 cancelled, of three buyers. */
struct shop {
	struct verify_ledger ledger;
	struct verify_gate *gate;
	struct verify_accounts accounts;
	struct verify_result result;
};

static struct books_order *add_order(struct shop *shop, uint64_t id, uint64_t buyer, const char *state)
{
	struct verify_ledger *ledger = &shop->ledger;
	struct books_order *order =
		verify_append(&ledger->orders, &ledger->order_count, &ledger->order_capacity, sizeof(*order));

	assert_non_null(order);
	order->id = id;
	order->buyer = buyer;
	order->sale = SALE;
	order->seq = ledger->order_count;
	order->quantity = 1;
	order->admitted_ns = OPENS + ledger->order_count;
	assert_true(books_set_state(order, state));
	return order;
}

static struct verify_admission *add_admission(struct shop *shop, uint64_t serial, uint64_t buyer)
{
	struct verify_gate *gate = shop->gate;
	struct verify_admission *admission =
		verify_append(&gate->admissions, &gate->admission_count, &gate->admission_capacity, sizeof(*admission));

	assert_non_null(admission);
	*admission = (struct verify_admission){.serial = serial,
		.buyer = buyer,
		.admitted_ns = NOW - LONG_AGO,
		.sale = SALE,
		.quantity = 1,
		.state = SLUICE_ADMISSION_DONE};
	return admission;
}

static struct verify_buyer *add_buyer(struct shop *shop, uint64_t name, uint32_t units)
{
	struct verify_gate *gate = shop->gate;
	struct verify_buyer *buyer =
		verify_append(&gate->buyers, &gate->buyer_count, &gate->buyer_capacity, sizeof(*buyer));

	assert_non_null(buyer);
	*buyer = (struct verify_buyer){.buyer = name, .sale = SALE, .units = units};
	return buyer;
}

static int begin(void **state)
{
	struct shop *shop = calloc(1, sizeof(*shop));
	struct verify_ledger *ledger = &shop->ledger;
	struct verify_account *account;
	struct verify_sale *sale;

	shop->gate = calloc(1, sizeof(*shop->gate));
	sale = verify_append(&ledger->sales, &ledger->sale_count, &ledger->sale_capacity, sizeof(*sale));
	*sale = (struct verify_sale){.id = SALE,
		.slug = "drop",
		.opens_ns = OPENS,
		.ends_ns = ENDS,
		.per_buyer = 1,
		.put_in = STOCK,
		.held = 1,
		.confirmed = 1,
		.has_sums = true,
		.orders = 3,
		.moved = STOCK};
	add_order(shop, 101, 11, "held");
	add_order(shop, 102, 12, "confirmed");
	add_order(shop, 103, 13, "cancelled");
	shop->gate->attached = shop->gate->alive = shop->gate->orders_open = true;
	shop->gate->slots[SALE] = (struct verify_slot){
		.id = SALE, .per_buyer = 1, .opens_ns = OPENS, .ends_ns = ENDS, .free = STOCK - 2, .taken = 3};
	for (uint64_t i = 1; i <= 3; i++) {
		add_admission(shop, 100 + i, 10 + i);
		add_buyer(shop, 10 + i, i < 3);
	}
	account = verify_append(&shop->accounts.all, &shop->accounts.count, &shop->accounts.capacity, sizeof(*account));
	*account = (struct verify_account){.sale = SALE, .put_in = STOCK, .free = STOCK - 2, .held = 1, .confirmed = 1};
	*state = shop;
	return 0;
}

static int end(void **state)
{
	struct shop *shop = *state;

	verify_result_free(&shop->result);
	verify_ledger_free(&shop->ledger);
	verify_gate_free(shop->gate);
	free(shop->accounts.all);
	free(shop->gate);
	free(shop);
	return 0;
}

static void compare(struct shop *shop)
{
	verify_result_free(&shop->result);
	assert_int_equal(verify_compare(&shop->ledger, shop->gate, &shop->accounts, NOW, &shop->result), 0);
}

static const struct verify_difference *find(const struct shop *shop, enum verify_kind kind)
{
	for (size_t i = 0; i < shop->result.count; i++)
		if (shop->result.differences[i].kind == kind)
			return &shop->result.differences[i];
	return NULL;
}

/* Compares; the one difference is of this kind, subject and figures. */
static const struct verify_difference *assert_only(
	struct shop *shop, enum verify_kind kind, uint64_t subject, int64_t found, int64_t expected)
{
	const struct verify_difference *difference;

	compare(shop);
	difference = find(shop, kind);
	if (!difference || shop->result.count != 1)
		for (size_t i = 0; i < shop->result.count; i++)
			print_message("found: %s\n", verify_kinds[shop->result.differences[i].kind].name);
	assert_non_null(difference);
	assert_int_equal(shop->result.count, 1);
	assert_int_equal(difference->subject, subject);
	assert_int_equal(difference->found, found);
	assert_int_equal(difference->expected, expected);
	return difference;
}

static struct books_order *order_of(struct shop *shop, uint64_t id)
{
	for (size_t i = 0; i < shop->ledger.order_count; i++)
		if (shop->ledger.orders[i].id == id)
			return &shop->ledger.orders[i];
	fail();
	return NULL;
}

static struct verify_admission *admission_of(struct shop *shop, uint64_t serial)
{
	for (size_t i = 0; i < shop->gate->admission_count; i++)
		if (shop->gate->admissions[i].serial == serial)
			return &shop->gate->admissions[i];
	fail();
	return NULL;
}

/* --- agreement ------------------------------------------------------------------------------------------------------------------- */
static void books_that_agree_give_nothing(void **state)
{
	struct shop *shop = *state;
	const struct verify_line *line;

	compare(shop);
	assert_int_equal(shop->result.count, 0);
	line = &shop->result.lines[0];
	assert_int_equal(line->put_in, line->free + line->held + line->confirmed);
	assert_true(line->in_gate);
}

static void nothing_at_all_agrees_with_itself(void **state)
{
	struct verify_ledger ledger = {0};
	struct shop *shop = *state;
	struct verify_gate *gate = calloc(1, sizeof(*gate));

	assert_int_equal(verify_compare(&ledger, gate, NULL, NOW, &shop->result), 0);
	assert_int_equal(shop->result.count, 0);
	free(gate);
}

static void without_a_gate_the_ledger_alone_is_looked_at(void **state)
{
	struct shop *shop = *state;

	shop->gate->attached = false;
	compare(shop);
	assert_int_equal(shop->result.count, 0);
	shop->ledger.sales[0].held = 2;
	assert_only(shop, VERIFY_HELD_SUM, 0, 2, 1);
}

static void an_older_sale_may_be_forgotten_by_the_gate(void **state)
{
	struct shop *shop = *state;

	shop->gate->admission_count = 0;
	shop->gate->buyer_count = 0;
	verify_result_free(&shop->result);
	assert_int_equal(verify_compare(&shop->ledger, shop->gate, NULL, ENDS + SLUICE_KEEP_NS, &shop->result), 0);
	assert_int_equal(shop->result.count, 0);
	verify_result_free(&shop->result);
	assert_int_equal(verify_compare(&shop->ledger, shop->gate, NULL, ENDS + SLUICE_KEEP_NS - 1, &shop->result), 0);
	assert_non_null(find(shop, VERIFY_ORDER_WITHOUT_ADMISSION));
	assert_non_null(find(shop, VERIFY_BUYER_TOO_LOW));
}

/* --- the ledger alone ------------------------------------------------------------------------------------------------------------ */
static void an_oversold_sale_is_named(void **state)
{
	struct shop *shop = *state;

	shop->ledger.sales[0].put_in = shop->ledger.sales[0].moved = shop->accounts.all[0].put_in = 1;
	shop->gate->slots[SALE].free = 0;
	assert_only(shop, VERIFY_OVERSOLD, 0, 2, 1);
	shop->ledger.sales[0].held = 3; /* by its own sums, whatever the orders say */
	compare(shop);
	assert_int_equal(find(shop, VERIFY_OVERSOLD)->found, 4);
	shop->ledger.sales[0].held = 0;
	shop->ledger.sales[0].confirmed = 0; /* by the orders, whatever the sums say */
	compare(shop);
	assert_int_equal(find(shop, VERIFY_OVERSOLD)->found, 2);
}

static void sums_that_are_not_those_of_the_rows_are_named(void **state)
{
	struct shop *shop = *state;
	struct verify_sale *sale = &shop->ledger.sales[0];

	sale->moved = 6;
	assert_only(shop, VERIFY_PUT_IN_SUM, 0, 5, 6);
	sale->moved = 5;
	sale->orders = 4;
	assert_only(shop, VERIFY_ORDER_COUNT, 0, 4, 3);
	sale->has_sums = false; /* then nobody has said so */
	compare(shop);
	assert_int_equal(shop->result.count, 0);
	sale->held = 0;
	sale->confirmed = 2;
	shop->accounts.count = 0;
	compare(shop);
	assert_int_equal(shop->result.count, 2);
	assert_int_equal(find(shop, VERIFY_HELD_SUM)->expected, 1);
	assert_int_equal(find(shop, VERIFY_CONFIRMED_SUM)->found, 2);
}

static void a_number_that_is_missing_or_there_twice_is_named(void **state)
{
	struct shop *shop = *state;

	order_of(shop, 103)->seq = 4;
	assert_only(shop, VERIFY_SEQ_GAP, 103, 4, 3);
	add_order(shop, 104, 14, "cancelled")->seq = 5; /* one gap, not one for each that follows */
	add_admission(shop, 104, 14);
	shop->ledger.sales[0].orders = 4;
	assert_only(shop, VERIFY_SEQ_GAP, 103, 4, 3);
	shop->ledger.order_count--;
	shop->gate->admission_count--;
	shop->ledger.sales[0].orders = 3;
	order_of(shop, 103)->seq = 2;
	compare(shop);
	assert_int_equal(shop->result.count, 1);
	assert_int_equal(shop->result.differences[0].kind, VERIFY_SEQ_TWICE);
	order_of(shop, 101)->seq = 3; /* 2 2 3: begins with a gap too */
	compare(shop);
	assert_non_null(find(shop, VERIFY_SEQ_GAP));
}

static void two_orders_of_one_token_are_named(void **state)
{
	struct shop *shop = *state;

	order_of(shop, 103)->id = 102;
	shop->gate->admission_count = 2;
	compare(shop);
	assert_non_null(find(shop, VERIFY_SERIAL_TWICE));
	assert_int_equal(find(shop, VERIFY_SERIAL_TWICE)->subject, 102);
}

static void a_buyer_above_the_limit_is_named_and_returned_units_do_not_count(void **state)
{
	struct shop *shop = *state;

	order_of(shop, 103)->buyer = 11;
	admission_of(shop, 103)->buyer = 11;
	compare(shop);
	assert_int_equal(shop->result.count, 0);
	order_of(shop, 102)->buyer = 11;
	admission_of(shop, 102)->buyer = 11;
	shop->gate->buyers[0].units = 2;
	shop->gate->buyers[1].units = 0;
	assert_only(shop, VERIFY_BUYER_ABOVE_LIMIT, 11, 2, 1);
}

static void an_order_outside_the_window_is_named(void **state)
{
	struct shop *shop = *state;

	order_of(shop, 102)->admitted_ns = OPENS - 1;
	assert_only(shop, VERIFY_OUTSIDE_WINDOW, 102, (int64_t)OPENS - 1, (int64_t)OPENS);
	order_of(shop, 102)->admitted_ns = ENDS;
	assert_only(shop, VERIFY_OUTSIDE_WINDOW, 102, (int64_t)ENDS, (int64_t)ENDS);
	order_of(shop, 102)->admitted_ns = ENDS - 1;
	compare(shop);
	assert_int_equal(shop->result.count, 0);
}

static void change_window(struct shop *shop, uint64_t opens_ns, uint64_t ends_ns, uint32_t per_buyer, uint64_t until_ns)
{
	struct verify_sale *sale = &shop->ledger.sales[0];
	struct verify_window *window =
		verify_append(&sale->former, &sale->former_count, &sale->former_capacity, sizeof(*window));

	assert_non_null(window);
	*window = (struct verify_window){
		.opens_ns = opens_ns, .ends_ns = ends_ns, .per_buyer = per_buyer, .until_ns = until_ns};
}

#define A_MINUTE 60000000000ULL

static void an_order_is_judged_by_the_window_of_its_time(void **state)
{
	struct shop *shop = *state;
	struct verify_sale *sale = &shop->ledger.sales[0];

	/* Postponed after these orders had come. */
	change_window(shop, OPENS, ENDS, 1, OPENS + A_MINUTE);
	sale->opens_ns = shop->gate->slots[SALE].opens_ns = OPENS + 10 * A_MINUTE;
	compare(shop);
	assert_int_equal(shop->result.count, 0);
	/* What came in between, long after the change, is early by the new window. */
	order_of(shop, 102)->admitted_ns = OPENS + 5 * A_MINUTE;
	assert_only(
		shop, VERIFY_OUTSIDE_WINDOW, 102, (int64_t)(OPENS + 5 * A_MINUTE), (int64_t)(OPENS + 10 * A_MINUTE));
	/* The gate has the change a moment later than the ledger. */
	order_of(shop, 102)->admitted_ns = OPENS + A_MINUTE + 1;
	compare(shop);
	assert_int_equal(shop->result.count, 0);
	/* A window that was made wider later does not excuse what was outside then. */
	change_window(shop, OPENS + 10 * A_MINUTE, ENDS, 1, OPENS + 20 * A_MINUTE);
	sale->opens_ns = shop->gate->slots[SALE].opens_ns = OPENS;
	order_of(shop, 102)->admitted_ns = OPENS + 5 * A_MINUTE;
	assert_only(
		shop, VERIFY_OUTSIDE_WINDOW, 102, (int64_t)(OPENS + 5 * A_MINUTE), (int64_t)(OPENS + 10 * A_MINUTE));
}

static void a_buyer_is_judged_by_the_limit_of_the_time(void **state)
{
	struct shop *shop = *state;

	order_of(shop, 102)->buyer = 11;
	admission_of(shop, 102)->buyer = 11;
	shop->gate->buyers[0].units = 2;
	shop->gate->buyers[1].units = 0;
	change_window(shop, OPENS, ENDS, 2, OPENS + A_MINUTE);
	compare(shop);
	assert_int_equal(shop->result.count, 0);
	order_of(shop, 101)->admitted_ns = order_of(shop, 102)->admitted_ns = OPENS + 2 * A_MINUTE;
	assert_only(shop, VERIFY_BUYER_ABOVE_LIMIT, 11, 2, 1);
}

static void an_order_of_no_sale_is_named(void **state)
{
	struct shop *shop = *state;
	struct books_order *order = add_order(shop, 104, 14, "cancelled");

	order->sale = 9;
	order->seq = 1;
	assert_only(shop, VERIFY_ORDER_OF_NO_SALE, 104, 0, 0);
}

/* --- ledger and gate --------------------------------------------------------------------------------------------------------------- */
static void an_admission_without_order_is_named_unless_it_waits(void **state)
{
	struct shop *shop = *state;

	add_admission(shop, 104, 14);
	add_buyer(shop, 14, 1);
	shop->gate->slots[SALE].free--;
	shop->gate->in_flight = 1;
	assert_only(shop, VERIFY_ADMISSION_WITHOUT_ORDER, 104, 0, 0);
	assert_int_equal(shop->result.lines[0].on_its_way, 1);
	admission_of(shop, 104)->admitted_ns = NOW - 1000000000; /* a second ago */
	compare(shop);
	assert_int_equal(shop->result.count, 0);
	assert_int_equal(shop->result.on_their_way, 1);
	admission_of(shop, 104)->admitted_ns = NOW - LONG_AGO;
	shop->gate->in_flight = 0; /* the ledger has refused it: it is lost, and not counted as on its way */
	assert_only(shop, VERIFY_ADMISSION_WITHOUT_ORDER, 104, 0, 0);
	shop->gate->in_flight = 1;
	shop->gate->alive = false;
	compare(shop);
	assert_int_equal(shop->result.count, 0);
	shop->gate->alive = true;
	shop->gate->orders_open = false;
	compare(shop);
	assert_int_equal(shop->result.count, 0);
}

static void an_order_without_admission_is_named(void **state)
{
	struct shop *shop = *state;

	*admission_of(shop, 102) = *admission_of(shop, 103);
	shop->gate->admission_count = 2;
	assert_only(shop, VERIFY_ORDER_WITHOUT_ADMISSION, 102, 0, 0);
}

static void an_admission_that_differs_or_is_revoked_is_named(void **state)
{
	struct shop *shop = *state;

	admission_of(shop, 101)->quantity = 2;
	assert_only(shop, VERIFY_ADMISSION_DIFFERS, 101, 0, 0);
	admission_of(shop, 101)->quantity = 1;
	admission_of(shop, 101)->buyer = 12;
	assert_only(shop, VERIFY_ADMISSION_DIFFERS, 101, 0, 0);
	admission_of(shop, 101)->buyer = 11;
	admission_of(shop, 101)->state = SLUICE_ADMISSION_REVOKED;
	assert_only(shop, VERIFY_ADMISSION_REVOKED, 101, 0, 0);
}

static void a_claim_that_was_left_is_named_and_makes_its_sale_uncertain(void **state)
{
	struct shop *shop = *state;

	add_admission(shop, 104, 14)->state = SLUICE_ADMISSION_CLAIMED;
	assert_only(shop, VERIFY_CLAIM_LEFT, 104, 0, 0);
	shop->gate->slots[SALE].free--;
	compare(shop);
	assert_false(find(shop, VERIFY_STOCK_TOO_LOW)->certain);
}

static void a_revoked_token_without_order_is_no_difference(void **state)
{
	struct shop *shop = *state;

	add_admission(shop, 104, 14)->state = SLUICE_ADMISSION_REVOKED;
	compare(shop);
	assert_int_equal(shop->result.count, 0);
}

static void a_stock_word_that_is_off_is_named_and_certain_at_rest(void **state)
{
	struct shop *shop = *state;

	shop->gate->slots[SALE].free = 4;
	assert_true(assert_only(shop, VERIFY_STOCK_TOO_HIGH, 0, 4, 3)->certain);
	shop->gate->slots[SALE].free = 2;
	assert_true(assert_only(shop, VERIFY_STOCK_TOO_LOW, 0, 2, 3)->certain);
	add_admission(shop, 104, 14)->admitted_ns = NOW; /* on its way: the word is right, were it 2 */
	add_buyer(shop, 14, 1);
	shop->gate->in_flight = 1;
	compare(shop);
	assert_int_equal(shop->result.count, 0);
	shop->gate->slots[SALE].free = 1;
	assert_false(assert_only(shop, VERIFY_STOCK_TOO_LOW, 0, 1, 2)->certain);
}

static void a_sale_that_moves_is_not_compared_by_its_words(void **state)
{
	struct shop *shop = *state;

	shop->gate->slots[SALE].free = 0;
	shop->gate->slots[SALE].moving = true;
	shop->gate->buyers[0].units = 9;
	compare(shop);
	assert_int_equal(shop->result.count, 0);
	assert_int_equal(shop->result.moving, 1);
}

static void a_buyers_count_that_is_off_is_named(void **state)
{
	struct shop *shop = *state;

	shop->gate->buyers[2].units = 1; /* whose order was cancelled */
	assert_true(assert_only(shop, VERIFY_BUYER_TOO_HIGH, 13, 1, 0)->certain);
	shop->gate->buyers[2].units = 0;
	shop->gate->buyers[0].units = 0;
	assert_only(shop, VERIFY_BUYER_TOO_LOW, 11, 0, 1);
	shop->gate->buyers[0] = shop->gate->buyers[2];
	shop->gate->buyer_count = 2; /* no entry at all */
	assert_only(shop, VERIFY_BUYER_TOO_LOW, 11, 0, 1);
	add_buyer(shop, 11, 1);
	add_buyer(shop, 99, 2); /* who has never ordered */
	assert_only(shop, VERIFY_BUYER_TOO_HIGH, 99, 2, 0);
}

static void words_of_the_sale_that_differ_are_named(void **state)
{
	struct shop *shop = *state;
	struct verify_slot *slot = &shop->gate->slots[SALE];

	slot->ends_ns = ENDS + 2000000;
	assert_only(shop, VERIFY_WINDOW_DIFFERS, 0, (int64_t)ENDS + 2000000, (int64_t)ENDS);
	slot->ends_ns = ENDS + 1; /* the API tells milliseconds */
	compare(shop);
	assert_int_equal(shop->result.count, 0);
	slot->per_buyer = 3;
	assert_only(shop, VERIFY_LIMIT_DIFFERS, 0, 3, 1);
	slot->per_buyer = 1;
	slot->flags = SLUICE_SALE_PAUSED;
	assert_only(shop, VERIFY_FLAGS_DIFFER, 0, SLUICE_SALE_PAUSED, 0);
	slot->flags = SLUICE_SALE_PAUSED | SLUICE_SALE_MORE;
	assert_only(shop, VERIFY_FLAGS_DIFFER, 0, SLUICE_SALE_PAUSED, 0);
	slot->flags = SLUICE_SALE_MORE | SLUICE_SALE_WITHHELD; /* of a fleet's lease: no matter of the ledger's */
	compare(shop);
	assert_int_equal(shop->result.count, 0);
	slot->flags = SLUICE_SALE_CLOSED; /* being changed */
	compare(shop);
	assert_int_equal(shop->result.count, 0);
}

static void a_sale_that_one_side_does_not_know_is_named(void **state)
{
	struct shop *shop = *state;

	shop->gate->slots[9] = (struct verify_slot){.id = 9};
	compare(shop);
	assert_int_equal(shop->result.count, 1);
	assert_int_equal(find(shop, VERIFY_SALE_NOT_IN_LEDGER)->sale, 9);
	shop->gate->slots[9].flags = SLUICE_SALE_ENDED;
	shop->gate->slots[SALE].id = 0;
	assert_only(shop, VERIFY_SALE_NOT_IN_GATE, 0, 0, 0);
	shop->ledger.sales[0].ended = true;
	compare(shop);
	assert_int_equal(shop->result.count, 0);
}

static void a_count_of_admissions_on_their_way_that_is_off_is_named(void **state)
{
	struct shop *shop = *state;

	shop->gate->in_flight = 4;
	assert_true(assert_only(shop, VERIFY_IN_FLIGHT, 3, 4, 0)->certain);
	shop->gate->in_flight_moves = true;
	compare(shop);
	assert_int_equal(shop->result.count, 0);
	shop->gate->in_flight_moves = false;
	shop->gate->alive = false; /* the next daemon counts anew */
	compare(shop);
	assert_int_equal(shop->result.count, 0);
}

static void what_the_daemon_believes_otherwise_is_named(void **state)
{
	struct shop *shop = *state;
	struct verify_account *account = shop->accounts.all;

	account->put_in = 6;
	assert_only(shop, VERIFY_DAEMON_PUT_IN, 0, 6, 5);
	account->put_in = 5;
	account->held = 2;
	account->confirmed = 0;
	compare(shop);
	assert_int_equal(shop->result.count, 2);
	account->in_flight = 1; /* figures that are between two answers */
	compare(shop);
	assert_int_equal(shop->result.count, 0);
}

/* --- two looks ---------------------------------------------------------------------------------------------------------------------- */
static void only_what_two_looks_agree_on_stays(void **state)
{
	struct shop *shop = *state;
	struct verify_result before;

	shop->gate->slots[SALE].free = 2;
	shop->gate->buyers[2].units = 1;
	compare(shop);
	before = shop->result;
	shop->result = (struct verify_result){0};
	shop->gate->slots[SALE].free = 1; /* another figure: it moves */
	compare(shop);
	assert_int_equal(shop->result.count, 2);
	verify_persisting(&shop->result, &before);
	assert_int_equal(shop->result.count, 1);
	assert_int_equal(shop->result.differences[0].kind, VERIFY_BUYER_TOO_HIGH);
	verify_result_free(&before);
	verify_persisting(&shop->result, &before);
	assert_int_equal(shop->result.count, 0);
}

static void every_kind_has_a_name_of_its_own_and_an_invariant(void **state)
{
	(void)state;
	for (int i = 0; i < VERIFY_KINDS; i++) {
		assert_non_null(verify_kinds[i].name);
		assert_non_null(verify_kinds[i].text);
		assert_int_equal(verify_kinds[i].invariant[0], 'I');
		assert_in_range(verify_kinds[i].invariant[1], '1', '6');
		for (int j = 0; j < i; j++)
			assert_string_not_equal(verify_kinds[i].name, verify_kinds[j].name);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(books_that_agree_give_nothing),
		TEST(nothing_at_all_agrees_with_itself),
		TEST(without_a_gate_the_ledger_alone_is_looked_at),
		TEST(an_older_sale_may_be_forgotten_by_the_gate),
		TEST(an_oversold_sale_is_named),
		TEST(sums_that_are_not_those_of_the_rows_are_named),
		TEST(a_number_that_is_missing_or_there_twice_is_named),
		TEST(two_orders_of_one_token_are_named),
		TEST(a_buyer_above_the_limit_is_named_and_returned_units_do_not_count),
		TEST(an_order_outside_the_window_is_named),
		TEST(an_order_is_judged_by_the_window_of_its_time),
		TEST(a_buyer_is_judged_by_the_limit_of_the_time),
		TEST(an_order_of_no_sale_is_named),
		TEST(an_admission_without_order_is_named_unless_it_waits),
		TEST(an_order_without_admission_is_named),
		TEST(an_admission_that_differs_or_is_revoked_is_named),
		TEST(a_claim_that_was_left_is_named_and_makes_its_sale_uncertain),
		TEST(a_revoked_token_without_order_is_no_difference),
		TEST(a_stock_word_that_is_off_is_named_and_certain_at_rest),
		TEST(a_sale_that_moves_is_not_compared_by_its_words),
		TEST(a_buyers_count_that_is_off_is_named),
		TEST(words_of_the_sale_that_differ_are_named),
		TEST(a_sale_that_one_side_does_not_know_is_named),
		TEST(a_count_of_admissions_on_their_way_that_is_off_is_named),
		TEST(what_the_daemon_believes_otherwise_is_named),
		TEST(only_what_two_looks_agree_on_stays),
		TEST(every_kind_has_a_name_of_its_own_and_an_invariant),
	};

	return cmocka_run_group_tests_name("verify", tests, NULL, NULL);
}
