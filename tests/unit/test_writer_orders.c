/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tests of any store: what becomes of orders. Every transition and every refusal of one, what it does to the sums of the
 * sale and of the buyer, that a repetition does nothing, and which holds are over.
 */
#include <time.h>

#include "common/log.h"
#include "ledger_fixture.h"

#define SECOND_NS 1000000000ULL
#define HOLD_S 900
/* fixture_record is admitted a millisecond before NOW_NS. */
#define EXPIRES_NS (NOW_NS - 1000000 + HOLD_S * SECOND_NS)
#define LATER_NS (EXPIRES_NS + SECOND_NS)

static struct store_changed change(struct ledger_fixture *fixture, struct store_change what, uint64_t now_ns)
{
	struct store_changed changed;

	if (fixture->store->ops->orders_change(fixture->store, &what, 1, now_ns, &changed))
		fail_msg("%s", fixture->store->error);
	return changed;
}

/* A sale of `stock` units with one order, of serial 1, in the state. */
static void make_order_in(struct ledger_fixture *fixture, enum wire_order_state state, bool restocked, int64_t stock)
{
	assert_int_equal(fixture_sale(fixture, 1, 2, stock), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 1), 0);
	if (state == WIRE_ORDER_CONFIRMED || state == WIRE_ORDER_REFUNDED)
		assert_int_equal(fixture_change(fixture, 1, STORE_CONFIRM), STORE_CHANGED);
	if (state == WIRE_ORDER_REFUNDED)
		assert_int_equal(fixture_change_at(fixture, 1, STORE_REFUND, restocked, NOW_NS), STORE_CHANGED);
	if (state == WIRE_ORDER_CANCELLED)
		assert_int_equal(fixture_change(fixture, 1, STORE_CANCEL), STORE_CHANGED);
	if (state == WIRE_ORDER_EXPIRED)
		assert_int_equal(fixture_change_at(fixture, 1, STORE_EXPIRE, false, LATER_NS), STORE_CHANGED);
	assert_int_equal(fixture_order(fixture, 1).state, state);
}

/* The table of docs/writer-protocol.md: what each action gives in each state, and the state after it. */
struct transition {
	enum wire_order_state from;
	bool restocked; /* from refunded */
	enum store_action action;
	bool restock;
	enum store_result result;
	enum wire_order_state to;
};

#define STAYS(from, restocked, action, restock, result) \
	{ \
		from, restocked, action, restock, result, from \
	}

static const struct transition transitions[] = {
	{WIRE_ORDER_HELD, false, STORE_CONFIRM, false, STORE_CHANGED, WIRE_ORDER_CONFIRMED},
	{WIRE_ORDER_HELD, false, STORE_CANCEL, false, STORE_CHANGED, WIRE_ORDER_CANCELLED},
	{WIRE_ORDER_HELD, false, STORE_EXPIRE, false, STORE_CHANGED, WIRE_ORDER_EXPIRED},
	STAYS(WIRE_ORDER_HELD, false, STORE_REFUND, true, STORE_CONFLICT),
	STAYS(WIRE_ORDER_HELD, false, STORE_REFUND, false, STORE_CONFLICT),
	STAYS(WIRE_ORDER_CONFIRMED, false, STORE_CONFIRM, false, STORE_SAME),
	STAYS(WIRE_ORDER_CONFIRMED, false, STORE_CANCEL, false, STORE_CONFLICT),
	STAYS(WIRE_ORDER_CONFIRMED, false, STORE_EXPIRE, false, STORE_CONFLICT),
	{WIRE_ORDER_CONFIRMED, false, STORE_REFUND, true, STORE_CHANGED, WIRE_ORDER_REFUNDED},
	{WIRE_ORDER_CONFIRMED, false, STORE_REFUND, false, STORE_CHANGED, WIRE_ORDER_REFUNDED},
	STAYS(WIRE_ORDER_CANCELLED, false, STORE_CONFIRM, false, STORE_CONFLICT),
	STAYS(WIRE_ORDER_CANCELLED, false, STORE_CANCEL, false, STORE_SAME),
	STAYS(WIRE_ORDER_CANCELLED, false, STORE_EXPIRE, false, STORE_CONFLICT),
	STAYS(WIRE_ORDER_CANCELLED, false, STORE_REFUND, true, STORE_CONFLICT),
	STAYS(WIRE_ORDER_CANCELLED, false, STORE_REFUND, false, STORE_CONFLICT),
	{WIRE_ORDER_EXPIRED, false, STORE_CONFIRM, false, STORE_CHANGED, WIRE_ORDER_CONFIRMED},
	STAYS(WIRE_ORDER_EXPIRED, false, STORE_CANCEL, false, STORE_CONFLICT),
	STAYS(WIRE_ORDER_EXPIRED, false, STORE_EXPIRE, false, STORE_SAME),
	STAYS(WIRE_ORDER_EXPIRED, false, STORE_REFUND, true, STORE_CONFLICT),
	STAYS(WIRE_ORDER_EXPIRED, false, STORE_REFUND, false, STORE_CONFLICT),
	STAYS(WIRE_ORDER_REFUNDED, true, STORE_CONFIRM, false, STORE_CONFLICT),
	STAYS(WIRE_ORDER_REFUNDED, true, STORE_CANCEL, false, STORE_CONFLICT),
	STAYS(WIRE_ORDER_REFUNDED, true, STORE_EXPIRE, false, STORE_CONFLICT),
	STAYS(WIRE_ORDER_REFUNDED, true, STORE_REFUND, true, STORE_SAME),
	STAYS(WIRE_ORDER_REFUNDED, true, STORE_REFUND, false, STORE_CONFLICT),
	STAYS(WIRE_ORDER_REFUNDED, false, STORE_REFUND, false, STORE_SAME),
	STAYS(WIRE_ORDER_REFUNDED, false, STORE_REFUND, true, STORE_CONFLICT),
};

static void expect_order(const struct store_order *order, const struct store_order *expected)
{
	assert_int_equal(order->serial, expected->serial);
	assert_int_equal(order->state, expected->state);
	assert_int_equal(order->resolved_by, expected->resolved_by);
	assert_true(order->resolved_ns == expected->resolved_ns);
	assert_int_equal(order->restocked, expected->restocked);
	assert_int_equal(order->seq, expected->seq);
	assert_int_equal(order->quantity, expected->quantity);
	assert_true(order->buyer == expected->buyer);
	assert_true(order->admitted_ns == expected->admitted_ns);
	assert_true(order->committed_ns == expected->committed_ns);
	assert_true(order->expires_ns == expected->expires_ns);
	assert_string_equal(order->source, expected->source);
}

/* Does one row of the table, once, again, and once more after a restart. */
static void check_transition(struct ledger_fixture *fixture, const struct transition *row)
{
	struct store_change what = {.serial = 1, .action = row->action, .by = STORE_BY_SHOP, .restock = row->restock};
	struct store_order before, after;
	struct store_changed changed;
	bool is_live = store_state_is_live(row->to);

	make_order_in(fixture, row->from, row->restocked, 10);
	before = fixture_order(fixture, 1);
	changed = change(fixture, what, LATER_NS + 7);
	if (changed.result != row->result)
		fail_msg("%s by action %d: %s", store_state_word(row->from), (int)row->action,
			store_result_word(changed.result));
	after = before;
	if (row->result == STORE_CHANGED) {
		after.state = row->to;
		after.resolved_ns = LATER_NS + 7;
		after.resolved_by = STORE_BY_SHOP;
		after.restocked = row->to == WIRE_ORDER_REFUNDED && row->restock;
	}
	expect_order(&changed.order, &after);
	before = fixture_order(fixture, 1);
	expect_order(&before, &after);
	for (unsigned again = 0; again < 2; again++) {
		changed = change(fixture, what, LATER_NS + 9);
		assert_int_equal(changed.result, row->result == STORE_CHANGED ? STORE_SAME : row->result);
		expect_order(&changed.order, &after);
		fixture_expect_sums(fixture, 1, after.state == WIRE_ORDER_REFUNDED && !after.restocked ? 9 : 10,
			after.state == WIRE_ORDER_HELD, after.state == WIRE_ORDER_CONFIRMED, 1);
		/* what the daemon learns when it delivers the order again */
		assert_int_equal(fixture_admit_range(fixture, 1, 1, 1), 0);
		fixture_expect(fixture, 0, WIRE_ACK_KNOWN, 1);
		assert_int_equal(fixture->acks[0].order_state, after.state);
		fixture_reopen(fixture);
	}
	/* the buyer may have two: so many more as do not count */
	for (unsigned i = 0; i < 2; i++) {
		struct wire_admit more = fixture_record(1, 100 + i);

		more.buyer = 1;
		assert_int_equal(fixture_admit(fixture, &more, 1), 0);
		fixture_expect(fixture, 0, i && is_live ? WIRE_ACK_REFUSED : WIRE_ACK_STORED, i && is_live ? 0 : 2 + i);
	}
	fixture_audit(fixture);
}

static void every_transition_is_as_the_table_has_it(void **state)
{
	struct ledger_fixture *fixture = *state;

	for (unsigned i = 0; i < sizeof(transitions) / sizeof(*transitions); i++) {
		fixture_close(fixture);
		fixture->backend->destroy(fixture);
		fixture->backend->create(fixture);
		fixture_reopen(fixture);
		check_transition(fixture, &transitions[i]);
	}
}

static void an_order_that_is_not_there_is_told_and_stops_nothing(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct store_change changes[] = {{.serial = 1, .action = STORE_CONFIRM, .by = STORE_BY_SHOP},
		{.serial = 77, .action = STORE_CONFIRM, .by = STORE_BY_SHOP},
		{.serial = 2, .action = STORE_REFUND, .by = STORE_BY_SHOP},
		{.serial = 3, .action = STORE_CANCEL, .by = STORE_BY_BUYER}};
	struct store_changed results[4];

	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 3), 0);
	assert_int_equal(fixture->store->ops->orders_change(fixture->store, changes, 4, NOW_NS, results), 0);
	assert_int_equal(results[0].result, STORE_CHANGED);
	assert_int_equal(results[1].result, STORE_NOT_FOUND);
	assert_int_equal(results[2].result, STORE_CONFLICT);
	assert_int_equal(results[2].order.state, WIRE_ORDER_HELD);
	assert_int_equal(results[3].result, STORE_CHANGED);
	assert_int_equal(results[3].order.resolved_by, STORE_BY_BUYER);
	fixture_expect_sums(fixture, 1, 10, 1, 1, 3);
	fixture_audit(fixture);
}

static void an_order_twice_in_one_question_is_changed_in_turn(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct store_change changes[] = {{.serial = 1, .action = STORE_CONFIRM, .by = STORE_BY_SHOP},
		{.serial = 1, .action = STORE_CONFIRM, .by = STORE_BY_SHOP},
		{.serial = 1, .action = STORE_CANCEL, .by = STORE_BY_BUYER},
		{.serial = 1, .action = STORE_REFUND, .by = STORE_BY_SHOP, .restock = true}};
	struct store_changed results[4];

	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 1), 0);
	assert_int_equal(fixture->store->ops->orders_change(fixture->store, changes, 4, NOW_NS, results), 0);
	assert_int_equal(results[0].result, STORE_CHANGED);
	assert_int_equal(results[1].result, STORE_SAME);
	assert_int_equal(results[2].result, STORE_CONFLICT);
	assert_int_equal(results[2].order.state, WIRE_ORDER_CONFIRMED);
	assert_int_equal(results[3].result, STORE_CHANGED);
	fixture_expect_sums(fixture, 1, 10, 0, 0, 1);
	fixture_audit(fixture);
}

static void a_hold_expires_at_its_time_and_not_before(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct wire_admit for_ever = fixture_record(1, 2);

	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	for_ever.hold_seconds = 0;
	assert_int_equal(fixture_admit(fixture, (struct wire_admit[]){fixture_record(1, 1), for_ever}, 2), 0);
	assert_true(fixture_order(fixture, 1).expires_ns == EXPIRES_NS);
	assert_true(fixture_order(fixture, 2).expires_ns == 0);
	assert_int_equal(fixture_change_at(fixture, 1, STORE_EXPIRE, false, EXPIRES_NS - 1), STORE_CONFLICT);
	assert_int_equal(fixture_change_at(fixture, 2, STORE_EXPIRE, false, INT64_MAX), STORE_CONFLICT);
	/* its time being over does not end it: it can be paid until its end is recorded */
	assert_int_equal(fixture_change_at(fixture, 1, STORE_EXPIRE, false, EXPIRES_NS), STORE_CHANGED);
	assert_int_equal(fixture_change_at(fixture, 2, STORE_CONFIRM, false, LATER_NS), STORE_CHANGED);
	fixture_audit(fixture);
}

static void a_hold_that_is_over_can_be_confirmed_until_its_end_is_recorded(void **state)
{
	struct ledger_fixture *fixture = *state;

	assert_int_equal(fixture_sale(fixture, 1, 1, 1), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 1), 0);
	assert_int_equal(fixture_change_at(fixture, 1, STORE_CONFIRM, false, LATER_NS), STORE_CHANGED);
	assert_int_equal(fixture_change_at(fixture, 1, STORE_EXPIRE, false, LATER_NS), STORE_CONFLICT);
	fixture_expect_sums(fixture, 1, 1, 0, 1, 1);
	fixture_audit(fixture);
}

static void a_late_payment_takes_a_unit_only_if_one_is_free(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct store_change both[] = {{.serial = 1, .action = STORE_CONFIRM, .by = STORE_BY_SHOP},
		{.serial = 2, .action = STORE_CONFIRM, .by = STORE_BY_SHOP}};
	struct store_changed results[2];

	assert_int_equal(fixture_sale(fixture, 1, 1, 2), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 2), 0);
	assert_int_equal(fixture_change_at(fixture, 1, STORE_EXPIRE, false, LATER_NS), STORE_CHANGED);
	assert_int_equal(fixture_change_at(fixture, 2, STORE_EXPIRE, false, LATER_NS), STORE_CHANGED);
	/* one unit goes to another buyer; of two late payments in one question the first gets the last */
	assert_int_equal(fixture_admit_range(fixture, 1, 3, 1), 0);
	fixture_expect(fixture, 0, WIRE_ACK_STORED, 3);
	assert_int_equal(fixture->store->ops->orders_change(fixture->store, both, 2, LATER_NS, results), 0);
	assert_int_equal(results[0].result, STORE_CHANGED);
	assert_int_equal(results[1].result, STORE_NO_UNIT);
	assert_int_equal(results[1].order.state, WIRE_ORDER_EXPIRED);
	fixture_expect_sums(fixture, 1, 2, 1, 1, 3);
	/* with the other's unit back it can be paid after all */
	assert_int_equal(fixture_change(fixture, 3, STORE_CANCEL), STORE_CHANGED);
	assert_int_equal(fixture_change_at(fixture, 2, STORE_CONFIRM, false, LATER_NS), STORE_CHANGED);
	fixture_expect_sums(fixture, 1, 2, 0, 2, 3);
	assert_int_equal(fixture_admit_range(fixture, 1, 4, 1), 0);
	fixture_expect(fixture, 0, WIRE_ACK_REFUSED, 0);
	fixture_audit(fixture);
}

static void a_late_payment_stops_at_the_buyers_limit(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct wire_admit again = fixture_record(1, 50);

	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 1), 0);
	assert_int_equal(fixture_change_at(fixture, 1, STORE_EXPIRE, false, LATER_NS), STORE_CHANGED);
	again.buyer = 1; /* the same buyer, in the next round */
	assert_int_equal(fixture_admit(fixture, &again, 1), 0);
	fixture_expect(fixture, 0, WIRE_ACK_STORED, 2);
	fixture_reopen(fixture);
	assert_int_equal(fixture_change_at(fixture, 1, STORE_CONFIRM, false, LATER_NS), STORE_NO_UNIT);
	assert_int_equal(fixture_change(fixture, 50, STORE_CANCEL), STORE_CHANGED);
	assert_int_equal(fixture_change_at(fixture, 1, STORE_CONFIRM, false, LATER_NS), STORE_CHANGED);
	fixture_expect_sums(fixture, 1, 10, 0, 1, 2);
	fixture_audit(fixture);
}

static void a_refund_gives_units_back_or_takes_them_out(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct wire_admit records[] = {fixture_record(1, 1), fixture_record(1, 0xfedcba9876543210)};
	int64_t put_in = 0;
	struct store_move move = {.sale = 1, .delta = -3, .key = "take", .reason = "damaged"};

	assert_int_equal(fixture_sale(fixture, 1, 3, 6), 0);
	records[0].quantity = records[1].quantity = 3;
	assert_int_equal(fixture_admit(fixture, records, 2), 0);
	assert_int_equal(fixture_change(fixture, records[0].serial, STORE_CONFIRM), STORE_CHANGED);
	assert_int_equal(fixture_change(fixture, records[1].serial, STORE_CONFIRM), STORE_CHANGED);
	fixture_expect_sums(fixture, 1, 6, 0, 6, 2);
	assert_int_equal(fixture_change_at(fixture, records[0].serial, STORE_REFUND, true, NOW_NS), STORE_CHANGED);
	fixture_expect_sums(fixture, 1, 6, 0, 3, 2); /* 3 are free */
	assert_true(fixture_order(fixture, records[0].serial).restocked);
	assert_int_equal(fixture_change_at(fixture, records[1].serial, STORE_REFUND, false, NOW_NS), STORE_CHANGED);
	fixture_expect_sums(fixture, 1, 3, 0, 0, 2); /* and still are */
	assert_false(fixture_order(fixture, records[1].serial).restocked);
	fixture_reopen(fixture);
	fixture_audit(fixture);
	assert_int_equal(fixture->store->ops->stock_move(fixture->store, &move, NOW_NS, &put_in), 0);
	assert_int_equal(put_in, 0);
	fixture_audit(fixture);
}

static void stock_and_changes_keep_the_equation_whatever_happens(void **state)
{
	struct ledger_fixture *fixture = *state;
	uint64_t seed = (uint64_t)time(NULL), random = seed * 2 + 1, now = NOW_NS;
	int64_t put_in = 0;

	printf("seed %llu\n", (unsigned long long)seed);
	assert_int_equal(fixture_sale(fixture, 1, 2, 40), 0);
	assert_int_equal(fixture_sale(fixture, 2, 3, 25), 0);
	for (unsigned round = 0; round < 60; round++) {
		struct wire_admit records[16];
		struct store_change changes[32];
		struct store_changed results[32];

		for (unsigned i = 0; i < 32; i++) {
			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			changes[i] = (struct store_change){.serial = random >> 8 & 0xff,
				.action = 1 + (random >> 20) % 4,
				.by = 1 + (random >> 24) % 3,
				.restock = random >> 30 & 1};
			if (i >= 16)
				continue;
			records[i] = fixture_record(1 + (random >> 33) % 2, random >> 40 & 0xff);
			records[i].buyer = random >> 50 & 0x1f;
			records[i].quantity = 1 + (random >> 58 & 1);
			records[i].hold_seconds = random >> 60;
			records[i].admitted_wall_ns = now;
		}
		assert_int_equal(fixture_admit(fixture, records, 16), 0);
		now += SECOND_NS;
		assert_int_equal(fixture->store->ops->orders_change(fixture->store, changes, 32, now, results), 0);
		if (round % 20 == 19)
			fixture_reopen(fixture);
		if (round % 7 == 6) {
			struct store_move move = {.sale = 1, .delta = 5};

			snprintf(move.key, sizeof(move.key), "more-%u", round);
			assert_int_equal(fixture->store->ops->stock_move(fixture->store, &move, now, &put_in), 0);
		}
		fixture_audit(fixture);
	}
}

/* --- holds that are over */

struct due_page {
	unsigned count;
	uint64_t serials[STORE_LIST_MAX];
	bool more;
};

static int take_due(const struct store_order *order, void *arg)
{
	struct due_page *page = arg;

	assert_int_equal(order->state, WIRE_ORDER_HELD);
	page->serials[page->count++] = order->serial;
	return 0;
}

static struct due_page due(struct ledger_fixture *fixture, uint64_t now_ns, unsigned limit)
{
	struct due_page page = {.count = 0};

	if (fixture->store->ops->orders_due(fixture->store, now_ns, limit, take_due, &page, &page.more))
		fail_msg("%s", fixture->store->error);
	return page;
}

/* Serials 1..count; serial n is over n seconds after NOW_NS, but they are admitted in another order. */
static void admit_with_ends(struct ledger_fixture *fixture, unsigned count)
{
	assert_int_equal(fixture_sale(fixture, 1, 1, count), 0);
	for (unsigned i = 0; i < count; i++) {
		unsigned serial = 1 + (i * 37 + 11) % count; /* 37 and count have no common divisor */
		struct wire_admit record = fixture_record(1, serial);

		record.admitted_wall_ns = NOW_NS;
		record.hold_seconds = serial;
		assert_int_equal(fixture_admit(fixture, &record, 1), 0);
	}
}

static void what_is_over_comes_earliest_first_and_again(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct due_page page;

	admit_with_ends(fixture, 50);
	assert_int_equal(due(fixture, NOW_NS + SECOND_NS - 1, 10).count, 0);
	page = due(fixture, NOW_NS + SECOND_NS, 10);
	assert_int_equal(page.count, 1);
	assert_false(page.more);
	for (unsigned again = 0; again < 3; again++) {
		page = due(fixture, NOW_NS + 30 * SECOND_NS, 20);
		assert_int_equal(page.count, 20);
		assert_true(page.more);
		for (unsigned i = 0; i < page.count; i++)
			assert_int_equal(page.serials[i], 1 + i);
		page = due(fixture, NOW_NS + 30 * SECOND_NS, 30);
		assert_int_equal(page.count, 30);
		assert_false(page.more);
		if (again == 1)
			fixture_reopen(fixture);
	}
	assert_int_equal(due(fixture, NOW_NS, 1000).count, 0); /* the clock was put back */
	assert_int_equal(due(fixture, NOW_NS + 100 * SECOND_NS, 1000).count, 50);
}

static void what_is_resolved_is_not_over_any_more(void **state)
{
	struct ledger_fixture *fixture = *state;
	uint64_t now = NOW_NS + 50 * SECOND_NS;
	struct due_page page;

	admit_with_ends(fixture, 50);
	for (unsigned serial = 1; serial <= 50; serial += 2)
		assert_int_equal(
			fixture_change_at(fixture, serial, serial % 3 ? STORE_CONFIRM : STORE_CANCEL, true, now),
			STORE_CHANGED);
	page = due(fixture, now, 25);
	assert_int_equal(page.count, 25);
	for (unsigned i = 0; i < 25; i++)
		assert_int_equal(page.serials[i], 2 + 2 * i);
	fixture_reopen(fixture);
	page = due(fixture, now, 1000);
	assert_int_equal(page.count, 25);
	assert_false(page.more);
	for (unsigned i = 0; i < 25; i++)
		assert_int_equal(fixture_change_at(fixture, page.serials[i], STORE_EXPIRE, false, now), STORE_CHANGED);
	assert_int_equal(due(fixture, INT64_MAX, 1000).count, 0);
	/* an expired order that was paid late is not over a second time */
	assert_int_equal(fixture_change_at(fixture, 2, STORE_CONFIRM, false, now), STORE_CHANGED);
	assert_int_equal(due(fixture, INT64_MAX, 1000).count, 0);
	fixture_audit(fixture);
}

static void a_search_for_what_is_over_is_bounded(void **state)
{
	struct ledger_fixture *fixture = *state;
	unsigned total = STORE_LIST_SCAN_MAX + 500, pages = 0, found = 0;
	bool more;

	/* all but the last were confirmed in time, and their time is over */
	assert_int_equal(fixture_sale(fixture, 1, 1, total), 0);
	for (unsigned i = 0; i < total; i += 500) {
		struct store_change changes[500];
		static struct store_changed results[500];

		assert_int_equal(fixture_admit_range(fixture, 1, 1 + i, 500), 0);
		for (unsigned j = 0; j < 500; j++)
			changes[j] = (struct store_change){
				.serial = 1 + i + j, .action = STORE_CONFIRM, .by = STORE_BY_SHOP};
		assert_int_equal(fixture->store->ops->orders_change(
					 fixture->store, changes, i + 500 == total ? 499 : 500, NOW_NS, results),
			0);
	}
	do {
		struct due_page page = due(fixture, LATER_NS, 10);

		found += page.count;
		more = page.more;
		pages++;
	} while (more && pages < 10);
	assert_int_equal(found, 1);
	/* a store that has an index of what is held need not look at the others */
	assert_true(pages == 2 || strcmp(fixture->backend->name, "sqlite"));
}

/* --- brackets */

static void what_is_taken_back_was_never_so(void **state)
{
	struct ledger_fixture *fixture = *state;
	const struct store_ops *ops = fixture->store->ops;
	struct store_change changes[] = {{.serial = 1, .action = STORE_CONFIRM, .by = STORE_BY_SHOP},
		{.serial = 2, .action = STORE_CANCEL, .by = STORE_BY_BUYER}};
	struct store_changed results[2];
	struct store_move move = {.sale = 1, .delta = 9, .key = "m"};
	struct wire_admit again = fixture_record(1, 90);
	struct due_page page;
	int64_t put_in;

	assert_int_equal(fixture_sale(fixture, 1, 1, 3), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 2), 0);
	assert_int_equal(ops->begin(fixture->store), 0);
	assert_int_equal(ops->orders_change(fixture->store, changes, 2, NOW_NS, results), 0);
	assert_int_equal(results[1].result, STORE_CHANGED);
	assert_int_equal(ops->stock_move(fixture->store, &move, NOW_NS, &put_in), 0);
	/* within the bracket it is so */
	assert_int_equal(due(fixture, LATER_NS, 10).count, 0);
	assert_int_equal(ops->rollback(fixture->store, -EINVAL), -EINVAL);
	fixture_expect_sums(fixture, 1, 3, 2, 0, 2);
	page = due(fixture, LATER_NS, 10);
	assert_int_equal(page.count, 2);
	/* the buyer of order 2 has his unit still */
	again.buyer = 2;
	assert_int_equal(fixture_admit(fixture, &again, 1), 0);
	fixture_expect(fixture, 0, WIRE_ACK_REFUSED, 0);
	/* and the same once more, to stay */
	assert_int_equal(ops->begin(fixture->store), 0);
	assert_int_equal(ops->orders_change(fixture->store, changes, 2, NOW_NS, results), 0);
	assert_int_equal(ops->stock_move(fixture->store, &move, NOW_NS, &put_in), 0);
	assert_int_equal(ops->commit(fixture->store), 0);
	fixture_expect_sums(fixture, 1, 12, 0, 1, 2);
	assert_int_equal(fixture_admit(fixture, &again, 1), 0);
	fixture_expect(fixture, 0, WIRE_ACK_STORED, 3);
	fixture_audit(fixture);
}

static void a_refusal_in_a_bracket_keeps_its_reason(void **state)
{
	struct ledger_fixture *fixture = *state;
	const struct store_ops *ops = fixture->store->ops;
	struct store_move good = {.sale = 1, .delta = 1, .key = "a"}, bad = {.sale = 9, .delta = 1, .key = "b"};
	int64_t put_in;

	assert_int_equal(fixture_sale(fixture, 1, 1, 3), 0);
	assert_int_equal(ops->begin(fixture->store), 0);
	assert_int_equal(ops->stock_move(fixture->store, &good, NOW_NS, &put_in), 0);
	assert_int_equal(ops->stock_move(fixture->store, &bad, NOW_NS, &put_in), -ENOENT);
	assert_int_equal(ops->rollback(fixture->store, -ENOENT), -ENOENT);
	assert_non_null(strstr(fixture->store->error, "id 9"));
	fixture_expect_sums(fixture, 1, 3, 0, 0, 0);
	assert_int_equal(ops->begin(fixture->store), 0);
	assert_int_equal(ops->commit(fixture->store), 0);
	fixture_audit(fixture);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_transition_is_as_the_table_has_it),
		TEST(an_order_that_is_not_there_is_told_and_stops_nothing),
		TEST(an_order_twice_in_one_question_is_changed_in_turn),
		TEST(a_hold_expires_at_its_time_and_not_before),
		TEST(a_hold_that_is_over_can_be_confirmed_until_its_end_is_recorded),
		TEST(a_late_payment_takes_a_unit_only_if_one_is_free),
		TEST(a_late_payment_stops_at_the_buyers_limit),
		TEST(a_refund_gives_units_back_or_takes_them_out),
		TEST(stock_and_changes_keep_the_equation_whatever_happens),
		TEST(what_is_over_comes_earliest_first_and_again),
		TEST(what_is_resolved_is_not_over_any_more),
		TEST(a_search_for_what_is_over_is_bounded),
		TEST(what_is_taken_back_was_never_so),
		TEST(a_refusal_in_a_bracket_keeps_its_reason),
	};

	log_init("test_writer_orders", LOG_ERROR_LEVEL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
