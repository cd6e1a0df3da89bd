/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The order table: one admission is one order, whoever hears of it first, and who waits is woken once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "common/wire.h"
#include "daemon/orders.h"

static const struct sluice_admission one_unit = {.sale = 1, .quantity = 1, .state = SLUICE_ADMISSION_DONE};
static const struct sluice_admission two_units = {.sale = 1, .quantity = 2, .state = SLUICE_ADMISSION_DONE};

struct waiting {
	struct order_waiter waiter; /* first */
	unsigned suspended, woken;
};

static void on_suspend(struct order_waiter *waiter)
{
	((struct waiting *)(void *)waiter)->suspended++;
}

static void on_wake(struct order_waiter *waiter)
{
	__atomic_add_fetch(&((struct waiting *)(void *)waiter)->woken, 1, __ATOMIC_SEQ_CST);
}

static struct waiting waiting_until(uint64_t deadline_ns)
{
	return (struct waiting){.waiter = {.deadline_ns = deadline_ns, .wake = on_wake}};
}

static int look(struct orders *orders, uint64_t serial, struct order_view *view, struct waiting *waiting)
{
	return orders_look_or_wait(orders, serial, &one_unit, view, waiting ? &waiting->waiter : NULL, on_suspend);
}

static void settle(struct orders *orders, struct order *order, uint64_t seq, enum order_state state, bool known)
{
	struct order_ack ack = {.order = order, .seq = seq, .committed_ns = 5, .state = state, .known = known};

	orders_settle(orders, &ack, 1);
}

static void an_admission_is_queued_once_however_often_it_arrives(void **state)
{
	struct orders *orders = orders_new();
	int err;

	(void)state;
	assert_non_null(orders_queue(orders, 7, &one_unit, NULL, false, &err));
	assert_null(orders_queue(orders, 7, &one_unit, NULL, false, &err));
	assert_int_equal(err, 0);
	assert_int_equal(orders_count(orders), 1);
	orders_free(orders);
}

static void a_request_that_is_faster_than_the_ring_waits_for_the_same_order(void **state)
{
	struct orders *orders = orders_new();
	struct waiting waiting = waiting_until(100);
	struct order_view view;
	struct order *order;
	int err;

	(void)state;
	assert_int_equal(look(orders, 7, &view, &waiting), 1);
	assert_int_equal(waiting.suspended, 1);
	order = orders_queue(orders, 7, &one_unit, NULL, false, &err);
	assert_non_null(order);
	settle(orders, order, 3, ORDER_HELD, false);
	assert_int_equal(waiting.woken, 1);
	assert_int_equal(look(orders, 7, &view, NULL), 0);
	assert_int_equal(view.state, ORDER_HELD);
	assert_int_equal(view.seq, 3);
	orders_free(orders);
}

static void only_the_first_answer_of_an_order_is_the_first(void **state)
{
	struct orders *orders = orders_new();
	struct order_view view;
	int err;

	(void)state;
	settle(orders, orders_queue(orders, 7, &one_unit, NULL, false, &err), 1, ORDER_HELD, false);
	assert_int_equal(look(orders, 7, &view, NULL), 0);
	assert_true(view.first_answer);
	assert_int_equal(look(orders, 7, &view, NULL), 0);
	assert_false(view.first_answer);
	/* An order of a daemon before this one may have been told already. */
	settle(orders, orders_queue(orders, 8, &one_unit, NULL, true, &err), 2, ORDER_HELD, true);
	assert_int_equal(look(orders, 8, &view, NULL), 0);
	assert_false(view.first_answer);
	orders_free(orders);
}

static void all_who_wait_for_one_order_are_woken_once(void **state)
{
	struct orders *orders = orders_new();
	struct waiting waiting[3] = {waiting_until(10), waiting_until(20), waiting_until(30)};
	struct order_view view;
	int err;

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(look(orders, 7, &view, &waiting[i]), 1);
	settle(orders, orders_queue(orders, 7, &one_unit, NULL, false, &err), 1, ORDER_HELD, false);
	orders_wake_expired(orders, 1000);
	orders_wake_all_and_close(orders);
	for (int i = 0; i < 3; i++)
		assert_int_equal(waiting[i].woken, 1);
	orders_free(orders);
}

static void patience_ends_at_the_deadline_and_the_order_stays(void **state)
{
	struct orders *orders = orders_new();
	struct waiting first = waiting_until(10), second = waiting_until(20);
	struct order_view view;
	int err;

	(void)state;
	assert_int_equal(look(orders, 7, &view, &first), 1);
	assert_int_equal(look(orders, 7, &view, &second), 1);
	orders_wake_expired(orders, 9);
	assert_int_equal(first.woken, 0);
	orders_wake_expired(orders, 10);
	assert_int_equal(first.woken, 1);
	assert_int_equal(second.woken, 0);
	settle(orders, orders_queue(orders, 7, &one_unit, NULL, false, &err), 1, ORDER_HELD, false);
	assert_int_equal(first.woken, 1);
	assert_int_equal(second.woken, 1);
	orders_free(orders);
}

static void nobody_waits_after_the_table_was_closed(void **state)
{
	struct orders *orders = orders_new();
	struct waiting waiting = waiting_until(10);
	struct order_view view;

	(void)state;
	orders_wake_all_and_close(orders);
	assert_int_equal(look(orders, 7, &view, &waiting), 0);
	assert_int_equal(waiting.suspended, 0);
	orders_free(orders);
}

static void units_move_from_pending_to_held_or_refused(void **state)
{
	struct orders *orders = orders_new();
	struct sale_counts counts = {0};
	struct order *stored, *refused;
	int err;

	(void)state;
	stored = orders_queue(orders, 7, &two_units, &counts, false, &err);
	refused = orders_queue(orders, 8, &one_unit, &counts, false, &err);
	assert_int_equal(atomic_load(&counts.pending), 3);
	settle(orders, stored, 1, ORDER_HELD, false);
	assert_int_equal(atomic_load(&counts.pending), 1);
	assert_int_equal(atomic_load(&counts.held), 2);
	settle(orders, refused, 0, ORDER_REFUSED, false);
	assert_int_equal(atomic_load(&counts.pending), 0);
	assert_int_equal(atomic_load(&counts.held), 2);
	assert_int_equal(atomic_load(&counts.refused), 1);
	assert_int_equal(orders_refused_units(orders, 1), 1);
	assert_int_equal(orders_refused_units(orders, 2), 0);
	orders_free(orders);
}

static void what_the_ledger_had_already_is_not_counted_twice(void **state)
{
	struct orders *orders = orders_new();
	struct sale_counts counts = {.held = 5};
	int err;

	(void)state;
	settle(orders, orders_queue(orders, 7, &two_units, &counts, true, &err), 1, ORDER_HELD, true);
	assert_int_equal(atomic_load(&counts.held), 5);
	assert_int_equal(atomic_load(&counts.pending), 0);
	orders_free(orders);
}

static void only_settled_orders_can_be_forgotten(void **state)
{
	struct orders *orders = orders_new();
	struct order_view view;
	struct order *order;
	int err;

	(void)state;
	assert_int_equal(orders_forget(orders, 7, NULL), -ENOENT);
	look(orders, 7, &view, NULL);
	assert_int_equal(orders_forget(orders, 7, NULL), -EBUSY);
	order = orders_queue(orders, 7, &one_unit, NULL, false, &err);
	assert_int_equal(orders_forget(orders, 7, NULL), -EBUSY);
	settle(orders, order, 1, ORDER_HELD, false);
	assert_int_equal(orders_forget(orders, 7, NULL), 0);
	assert_int_equal(orders_find(orders, 7, &view), -ENOENT);
	orders_free(orders);
}

static void a_full_table_grows_and_loses_nothing(void **state)
{
	struct orders *orders = orders_new();
	struct order_view view;
	int err;

	(void)state;
	for (uint64_t serial = 1; serial <= 20000; serial++)
		assert_non_null(orders_queue(orders, serial * 0x9e3779b97f4a7c15ULL, &one_unit, NULL, false, &err));
	for (uint64_t serial = 1; serial <= 20000; serial++)
		assert_int_equal(orders_find(orders, serial * 0x9e3779b97f4a7c15ULL, &view), 0);
	assert_int_equal(orders_count(orders), 20000);
	orders_free(orders);
}

/* --- changes ------------------------------------------------------------------------------------------------------------- */
static struct orders *with_order(uint64_t serial, const struct sluice_admission *admission, struct sale_counts *counts)
{
	struct orders *orders = orders_new();
	struct order_ack ack = {.seq = 1, .committed_ns = 5, .state = ORDER_HELD, .counts = counts};
	int err;

	ack.order = orders_queue(orders, serial, admission, counts, false, &err);
	orders_settle(orders, &ack, 1);
	return orders;
}

static enum order_units end_change(
	struct orders *orders, enum order_state to, bool restocked, struct sale_counts *counts)
{
	struct order_facts facts = {.state = to, .resolved_ns = 9, .restocked = restocked};

	return orders_change_end(orders, 7, &facts, counts);
}

static enum order_units change(struct orders *orders, enum order_state to, bool restocked, struct sale_counts *counts)
{
	struct order_view view;

	assert_int_equal(orders_change_begin(orders, 7, &view), 0);
	return end_change(orders, to, restocked, counts);
}

static enum order_state state_of(struct orders *orders)
{
	struct order_view view;

	assert_int_equal(orders_find(orders, 7, &view), 0);
	return view.state;
}

static void units_come_back_once_however_often_the_ledger_says_it(void **state)
{
	static const enum order_state ends[] = {ORDER_CANCELLED, ORDER_EXPIRED};

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct sale_counts counts = {.put_in = 10};
		struct orders *orders = with_order(7, &two_units, &counts);

		assert_int_equal(atomic_load(&counts.held), 2);
		assert_int_equal(change(orders, ends[i], false, &counts), ORDER_UNITS_RETURN);
		assert_int_equal(change(orders, ends[i], false, &counts), ORDER_UNITS_STAY);
		assert_int_equal(change(orders, ORDER_HELD, false, &counts), ORDER_UNITS_STAY);
		assert_int_equal(state_of(orders), ends[i]);
		assert_int_equal(atomic_load(&counts.held), 0);
		assert_int_equal(atomic_load(&counts.moving), 0);
		assert_int_equal(atomic_load(&counts.orders[ends[i]]), 1);
		assert_int_equal(atomic_load(&counts.orders[ORDER_HELD]), 0);
		orders_free(orders);
	}
}

static void an_old_answer_that_is_told_again_takes_nothing_back(void **state)
{
	struct sale_counts counts = {.put_in = 10};
	struct orders *orders = with_order(7, &two_units, &counts);

	(void)state;
	assert_int_equal(change(orders, ORDER_CONFIRMED, false, &counts), ORDER_UNITS_STAY);
	assert_int_equal(atomic_load(&counts.confirmed), 2);
	assert_int_equal(change(orders, ORDER_REFUNDED, true, &counts), ORDER_UNITS_RETURN);
	/* The first answer to the confirmation, by its key. */
	assert_int_equal(change(orders, ORDER_CONFIRMED, false, &counts), ORDER_UNITS_STAY);
	assert_int_equal(state_of(orders), ORDER_REFUNDED);
	assert_int_equal(atomic_load(&counts.confirmed), 0);
	assert_int_equal(atomic_load(&counts.put_in), 10);
	orders_free(orders);
}

static void units_that_leave_take_the_stock_with_them(void **state)
{
	struct sale_counts counts = {.put_in = 10};
	struct orders *orders = with_order(7, &two_units, &counts);

	(void)state;
	change(orders, ORDER_CONFIRMED, false, &counts);
	assert_int_equal(change(orders, ORDER_REFUNDED, false, &counts), ORDER_UNITS_LEAVE);
	assert_int_equal(change(orders, ORDER_REFUNDED, false, &counts), ORDER_UNITS_STAY);
	assert_int_equal(atomic_load(&counts.put_in), 8);
	assert_int_equal(atomic_load(&counts.confirmed), 0);
	assert_int_equal(atomic_load(&counts.moving), 0);
	orders_free(orders);
}

/* An expiry and a confirmation on their way at the same time: the ledger lets the order expire, and takes it up again. */
static void nothing_comes_back_while_another_answer_may_claim_it(void **state)
{
	struct sale_counts counts = {.put_in = 10};
	struct orders *orders = with_order(7, &two_units, &counts);
	struct order_view view;

	(void)state;
	assert_int_equal(orders_change_begin(orders, 7, &view), 0);
	assert_int_equal(orders_change_begin(orders, 7, &view), 0);
	assert_true(view.in_gate);
	assert_int_equal(end_change(orders, ORDER_EXPIRED, false, &counts), ORDER_UNITS_STAY);
	assert_int_equal(atomic_load(&counts.moving), 2);
	assert_int_equal(end_change(orders, ORDER_CONFIRMED, false, &counts), ORDER_UNITS_STAY);
	assert_int_equal(atomic_load(&counts.moving), 0);
	assert_int_equal(atomic_load(&counts.held), 0);
	assert_int_equal(atomic_load(&counts.confirmed), 2);
	/* Had the ledger refused, they would have come back with the second answer. */
	assert_int_equal(change(orders, ORDER_REFUNDED, true, &counts), ORDER_UNITS_RETURN);
	orders_free(orders);
}

static void the_last_answer_gives_back_what_the_first_left(void **state)
{
	struct sale_counts counts = {.put_in = 10};
	struct orders *orders = with_order(7, &two_units, &counts);
	struct order_view view;

	(void)state;
	orders_change_begin(orders, 7, &view);
	orders_change_begin(orders, 7, &view);
	assert_int_equal(end_change(orders, ORDER_CANCELLED, false, &counts), ORDER_UNITS_STAY);
	assert_int_equal(orders_change_end(orders, 7, NULL, &counts), ORDER_UNITS_RETURN);
	assert_int_equal(atomic_load(&counts.moving), 0);
	orders_free(orders);
}

static void units_that_were_reclaimed_in_vain_come_back(void **state)
{
	struct sale_counts counts = {.put_in = 10};
	struct orders *orders = with_order(7, &two_units, &counts);
	struct order_view view;

	(void)state;
	change(orders, ORDER_EXPIRED, false, &counts);
	for (int tries = 0; tries < 2; tries++) {
		assert_int_equal(orders_change_begin(orders, 7, &view), 0);
		assert_false(view.in_gate);
		orders_change_reclaimed(orders, 7, &counts);
		assert_int_equal(atomic_load(&counts.moving), 2);
		assert_int_equal(end_change(orders, ORDER_EXPIRED, false, &counts), ORDER_UNITS_RETURN);
		assert_int_equal(atomic_load(&counts.moving), 0);
	}
	orders_change_begin(orders, 7, &view);
	orders_change_reclaimed(orders, 7, &counts);
	assert_int_equal(end_change(orders, ORDER_CONFIRMED, false, &counts), ORDER_UNITS_STAY);
	assert_int_equal(atomic_load(&counts.moving), 0);
	assert_int_equal(atomic_load(&counts.confirmed), 2);
	orders_free(orders);
}

static void what_is_not_durable_cannot_be_changed(void **state)
{
	struct orders *orders = orders_new();
	struct order_view view;
	int err;

	(void)state;
	assert_int_equal(orders_change_begin(orders, 7, &view), -ENOENT);
	look(orders, 7, &view, NULL);
	assert_int_equal(orders_change_begin(orders, 7, &view), -EAGAIN);
	settle(orders, orders_queue(orders, 7, &one_unit, NULL, false, &err), 0, ORDER_REFUSED, false);
	assert_int_equal(orders_change_begin(orders, 7, &view), -ENOENT);
	orders_free(orders);
}

static void an_order_that_is_being_changed_is_not_forgotten(void **state)
{
	struct orders *orders = with_order(7, &one_unit, NULL);
	struct order_view view;

	(void)state;
	orders_change_begin(orders, 7, &view);
	assert_int_equal(orders_forget(orders, 7, NULL), -EBUSY);
	end_change(orders, ORDER_CONFIRMED, false, NULL);
	assert_int_equal(orders_forget(orders, 7, NULL), 0);
	orders_free(orders);
}

static void times_are_told_only_when_they_are_known(void **state)
{
	struct order_facts facts = {.state = ORDER_CANCELLED, .expires_ns = 5, .resolved_ns = 6};
	struct orders *orders = orders_new();
	struct order_view view;
	int err;

	(void)state;
	/* An earlier daemon delivered it, perhaps with another time to hold. */
	settle(orders, orders_queue(orders, 7, &one_unit, NULL, true, &err), 1, ORDER_HELD, true);
	orders_find(orders, 7, &view);
	assert_false(view.has_times);
	orders_learn_times(orders, 7, &facts);
	orders_find(orders, 7, &view);
	assert_false(view.has_times);
	facts.state = ORDER_HELD;
	orders_learn_times(orders, 7, &facts);
	orders_find(orders, 7, &view);
	assert_true(view.has_times);
	assert_int_equal(view.expires_ns, 5);
	orders_free(orders);
}

static void after_a_comparison_live_orders_are_in_the_gate_and_others_are_not(void **state)
{
	struct sale_counts counts = {.put_in = 10};
	struct orders *orders = orders_new();
	struct order_view view;
	int err;

	(void)state;
	settle(orders, orders_queue(orders, 7, &two_units, NULL, true, &err), 1, ORDER_CANCELLED, true);
	settle(orders, orders_queue(orders, 8, &two_units, NULL, true, &err), 2, ORDER_CONFIRMED, true);
	settle(orders, orders_queue(orders, 9, &two_units, NULL, true, &err), 0, ORDER_REFUSED, true);
	orders_align(orders);
	orders_find(orders, 7, &view);
	assert_false(view.in_gate);
	orders_find(orders, 8, &view);
	assert_true(view.in_gate);
	orders_find(orders, 9, &view);
	assert_true(view.in_gate);
	assert_int_equal(change(orders, ORDER_CANCELLED, false, &counts), ORDER_UNITS_STAY);
	orders_free(orders);
}

static void words_and_numbers_of_the_ledger_name_the_same_states(void **state)
{
	(void)state;
	for (uint32_t wire = WIRE_ORDER_HELD; wire <= WIRE_ORDER_REFUNDED; wire++) {
		enum order_state found = order_state_of_wire(wire);

		assert_true(order_is_durable(found));
		assert_int_equal(order_state_of_word(order_state_name(found)), found);
	}
	assert_int_equal(order_state_of_wire(WIRE_ORDER_CONFIRMED), ORDER_CONFIRMED);
	assert_int_equal(order_state_of_wire(0), ORDER_STATE_COUNT);
	assert_int_equal(order_state_of_wire(WIRE_ORDER_REFUNDED + 1), ORDER_STATE_COUNT);
	assert_int_equal(order_state_of_word("refused"), ORDER_STATE_COUNT);
	assert_int_equal(order_state_of_word("pending"), ORDER_STATE_COUNT);
}

#define RACE_ORDERS 20000

static struct {
	struct orders *orders;
	struct waiting waiting[RACE_ORDERS];
} race;

static void *race_waits(void *arg)
{
	(void)arg;
	for (uint64_t i = 0; i < RACE_ORDERS; i++) {
		struct order_view view;

		race.waiting[i] = waiting_until(UINT64_MAX);
		look(race.orders, i + 1, &view, &race.waiting[i]);
	}
	return NULL;
}

static void a_waiter_and_an_acknowledgement_that_meet_never_miss_each_other(void **state)
{
	pthread_t thread;
	int err;

	(void)state;
	race.orders = orders_new();
	assert_int_equal(pthread_create(&thread, NULL, race_waits, NULL), 0);
	for (uint64_t i = 0; i < RACE_ORDERS; i++)
		settle(race.orders, orders_queue(race.orders, i + 1, &one_unit, NULL, false, &err), i + 1, ORDER_HELD,
			false);
	pthread_join(thread, NULL);
	/* Who was suspended has been woken, exactly once; who was not found the order durable. */
	for (uint64_t i = 0; i < RACE_ORDERS; i++)
		assert_int_equal(race.waiting[i].woken, race.waiting[i].suspended);
	orders_free(race.orders);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_admission_is_queued_once_however_often_it_arrives),
		cmocka_unit_test(a_request_that_is_faster_than_the_ring_waits_for_the_same_order),
		cmocka_unit_test(only_the_first_answer_of_an_order_is_the_first),
		cmocka_unit_test(all_who_wait_for_one_order_are_woken_once),
		cmocka_unit_test(patience_ends_at_the_deadline_and_the_order_stays),
		cmocka_unit_test(nobody_waits_after_the_table_was_closed),
		cmocka_unit_test(units_move_from_pending_to_held_or_refused),
		cmocka_unit_test(what_the_ledger_had_already_is_not_counted_twice),
		cmocka_unit_test(only_settled_orders_can_be_forgotten),
		cmocka_unit_test(units_come_back_once_however_often_the_ledger_says_it),
		cmocka_unit_test(an_old_answer_that_is_told_again_takes_nothing_back),
		cmocka_unit_test(units_that_leave_take_the_stock_with_them),
		cmocka_unit_test(nothing_comes_back_while_another_answer_may_claim_it),
		cmocka_unit_test(the_last_answer_gives_back_what_the_first_left),
		cmocka_unit_test(units_that_were_reclaimed_in_vain_come_back),
		cmocka_unit_test(what_is_not_durable_cannot_be_changed),
		cmocka_unit_test(an_order_that_is_being_changed_is_not_forgotten),
		cmocka_unit_test(times_are_told_only_when_they_are_known),
		cmocka_unit_test(after_a_comparison_live_orders_are_in_the_gate_and_others_are_not),
		cmocka_unit_test(words_and_numbers_of_the_ledger_name_the_same_states),
		cmocka_unit_test(a_full_table_grows_and_loses_nothing),
		cmocka_unit_test(a_waiter_and_an_acknowledgement_that_meet_never_miss_each_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
