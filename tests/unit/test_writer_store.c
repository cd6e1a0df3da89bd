/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tests of any store: what is stored and acknowledged, each refusal of the guard, sales and stock, listings. What becomes
 * of orders is in test_writer_orders.c.
 */
#include <time.h>

#include "common/log.h"
#include "ledger_fixture.h"

static void a_batch_is_stored_in_order_of_arrival(void **state)
{
	struct ledger_fixture *fixture = *state;

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1000, 50), 0);
	for (unsigned i = 0; i < 50; i++) {
		fixture_expect(fixture, i, WIRE_ACK_STORED, i + 1);
		assert_true(fixture->acks[i].serial == 1000 + i);
		assert_true(fixture->acks[i].committed_wall_ns == NOW_NS);
	}
	assert_int_equal(fixture->refused.total, 0);
	fixture_expect_sums(fixture, 1, 100, 50, 0, 50);
	fixture_audit(fixture);
}

static void the_same_batch_twice_is_stored_once(void **state)
{
	struct ledger_fixture *fixture = *state;

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1000, 50), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1000, 50), 0);
	for (unsigned i = 0; i < 50; i++) {
		fixture_expect(fixture, i, WIRE_ACK_KNOWN, i + 1);
		assert_true(fixture->acks[i].committed_wall_ns == NOW_NS);
	}
	fixture_expect_sums(fixture, 1, 100, 50, 0, 50);
	fixture_audit(fixture);
}

static void overlapping_batches_store_what_is_new(void **state)
{
	struct ledger_fixture *fixture = *state;

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1000, 30), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1020, 30), 0);
	for (unsigned i = 0; i < 10; i++)
		fixture_expect(fixture, i, WIRE_ACK_KNOWN, 21 + i);
	for (unsigned i = 10; i < 30; i++)
		fixture_expect(fixture, i, WIRE_ACK_STORED, 21 + i);
	fixture_audit(fixture);
}

static void a_serial_twice_in_one_batch_is_one_order(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct wire_admit records[] = {fixture_record(1, 7), fixture_record(1, 8), fixture_record(1, 7)};

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	assert_int_equal(fixture_admit(fixture, records, 3), 0);
	fixture_expect(fixture, 0, WIRE_ACK_STORED, 1);
	fixture_expect(fixture, 1, WIRE_ACK_STORED, 2);
	fixture_expect(fixture, 2, WIRE_ACK_KNOWN, 1);
	fixture_audit(fixture);
}

static void what_is_known_survives_a_restart(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct wire_admit again = fixture_record(1, 5000);

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1000, 10), 0);
	fixture_reopen(fixture);
	assert_int_equal(fixture_admit_range(fixture, 1, 1005, 10), 0);
	for (unsigned i = 0; i < 5; i++)
		fixture_expect(fixture, i, WIRE_ACK_KNOWN, 6 + i);
	for (unsigned i = 5; i < 10; i++)
		fixture_expect(fixture, i, WIRE_ACK_STORED, 6 + i);
	/* the buyer's units too */
	again.buyer = 1003;
	assert_int_equal(fixture_admit(fixture, &again, 1), 0);
	fixture_expect(fixture, 0, WIRE_ACK_REFUSED, 0);
	fixture_audit(fixture);
}

static void twenty_thousand_orders_later_the_first_is_still_known(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct wire_admit again = fixture_record(1, 1000000);

	/* more than the guard's tables hold at first: they grow several times in between */
	assert_int_equal(fixture_sale(fixture, 1, 1, 100000), 0);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(fixture_admit_range(fixture, 1, 1 + i * WIRE_BATCH_MAX, WIRE_BATCH_MAX), 0);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(fixture_admit_range(fixture, 1, 1 + i * WIRE_BATCH_MAX, WIRE_BATCH_MAX), 0);
		for (unsigned j = 0; j < WIRE_BATCH_MAX; j++)
			fixture_expect(fixture, j, WIRE_ACK_KNOWN, 1 + i * WIRE_BATCH_MAX + j);
	}
	for (again.buyer = 1; again.buyer <= 5 * WIRE_BATCH_MAX; again.buyer += 97) {
		assert_int_equal(fixture_admit(fixture, &again, 1), 0);
		fixture_expect(fixture, 0, WIRE_ACK_REFUSED, 0);
	}
	fixture_audit(fixture);
}

static void an_unknown_sale_is_refused_and_the_rest_stored(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct wire_admit records[] = {fixture_record(1, 1), fixture_record(9, 2), fixture_record(0, 3),
		fixture_record(1, 4), fixture_record(9, 5)};

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	assert_int_equal(fixture_admit(fixture, records, 5), 0);
	fixture_expect(fixture, 0, WIRE_ACK_STORED, 1);
	fixture_expect(fixture, 1, WIRE_ACK_REFUSED, 0);
	fixture_expect(fixture, 2, WIRE_ACK_REFUSED, 0);
	fixture_expect(fixture, 3, WIRE_ACK_STORED, 2);
	fixture_expect(fixture, 4, WIRE_ACK_REFUSED, 0);
	assert_int_equal(fixture->refused.total, 3);
	assert_int_equal(fixture->refused.count[STORE_REFUSED_UNKNOWN_SALE], 3);
	assert_true(fixture->refused.first_serial == 2);
	fixture_audit(fixture);
}

static void no_unit_is_sold_that_was_not_put_in(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct wire_admit three = fixture_record(1, 500), two = fixture_record(1, 501);

	assert_int_equal(fixture_sale(fixture, 1, 5, 12), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 10), 0);
	three.quantity = 3;
	two.quantity = 2;
	assert_int_equal(fixture_admit(fixture, (struct wire_admit[]){three, two, fixture_record(1, 502)}, 3), 0);
	fixture_expect(fixture, 0, WIRE_ACK_REFUSED, 0);
	fixture_expect(fixture, 1, WIRE_ACK_STORED, 11);
	fixture_expect(fixture, 2, WIRE_ACK_REFUSED, 0);
	assert_int_equal(fixture->refused.count[STORE_REFUSED_PUT_IN], 2);
	fixture_expect_sums(fixture, 1, 12, 12, 0, 11);
	fixture_audit(fixture);
}

static void a_sold_out_sale_still_knows_its_orders(void **state)
{
	struct ledger_fixture *fixture = *state;

	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 11), 0);
	fixture_expect(fixture, 10, WIRE_ACK_REFUSED, 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 11), 0);
	for (unsigned i = 0; i < 10; i++)
		fixture_expect(fixture, i, WIRE_ACK_KNOWN, i + 1);
	fixture_expect(fixture, 10, WIRE_ACK_REFUSED, 0);
	fixture_audit(fixture);
}

static void no_buyer_has_more_than_the_limit(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct wire_admit records[6];

	assert_int_equal(fixture_sale(fixture, 1, 3, 100), 0);
	assert_int_equal(fixture_sale(fixture, 2, 3, 100), 0);
	for (unsigned i = 0; i < 6; i++) {
		records[i] = fixture_record(1, 10 + i);
		records[i].buyer = 77;
	}
	records[0].quantity = 2;
	records[1].quantity = 2; /* 4 in all: refused */
	records[2].quantity = 1; /* 3 in all */
	records[3].quantity = 1; /* refused */
	records[4].quantity = 4; /* more than anybody may have */
	records[4].buyer = 78;
	records[5].sale = 2; /* each sale counts for itself */
	records[5].quantity = 3;
	assert_int_equal(fixture_admit(fixture, records, 6), 0);
	fixture_expect(fixture, 0, WIRE_ACK_STORED, 1);
	fixture_expect(fixture, 1, WIRE_ACK_REFUSED, 0);
	fixture_expect(fixture, 2, WIRE_ACK_STORED, 2);
	fixture_expect(fixture, 3, WIRE_ACK_REFUSED, 0);
	fixture_expect(fixture, 4, WIRE_ACK_REFUSED, 0);
	fixture_expect(fixture, 5, WIRE_ACK_STORED, 1);
	assert_int_equal(fixture->refused.count[STORE_REFUSED_BUYER_LIMIT], 3);
	/* a refused serial was not taken: with a right quantity it is a new order */
	records[4].quantity = 1;
	assert_int_equal(fixture_admit(fixture, &records[4], 1), 0);
	fixture_expect(fixture, 0, WIRE_ACK_STORED, 3);
	fixture_audit(fixture);
}

static void an_order_without_units_is_refused(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct wire_admit none = fixture_record(1, 1), huge = fixture_record(1, 2);

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	none.quantity = 0;
	huge.quantity = UINT32_MAX;
	assert_int_equal(fixture_admit(fixture, (struct wire_admit[]){none, huge}, 2), 0);
	fixture_expect(fixture, 0, WIRE_ACK_REFUSED, 0);
	fixture_expect(fixture, 1, WIRE_ACK_REFUSED, 0);
	assert_int_equal(fixture->refused.count[STORE_REFUSED_QUANTITY], 1);
	assert_int_equal(fixture->refused.count[STORE_REFUSED_PUT_IN], 1);
	fixture_audit(fixture);
}

static void the_serial_of_another_order_is_refused(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct wire_admit records[4];

	assert_int_equal(fixture_sale(fixture, 1, 5, 100), 0);
	assert_int_equal(fixture_sale(fixture, 2, 5, 100), 0);
	for (unsigned i = 0; i < 4; i++)
		records[i] = fixture_record(1, 42);
	records[1].buyer++;
	records[2].quantity++;
	records[3].sale = 2;
	assert_int_equal(fixture_admit(fixture, records, 4), 0);
	fixture_expect(fixture, 0, WIRE_ACK_STORED, 1);
	for (unsigned i = 1; i < 4; i++)
		fixture_expect(fixture, i, WIRE_ACK_REFUSED, 0);
	assert_int_equal(fixture->refused.count[STORE_REFUSED_MISMATCH], 3);
	fixture_audit(fixture);
}

static void seq_has_no_gaps_whatever_is_refused_or_repeated(void **state)
{
	struct ledger_fixture *fixture = *state;
	uint64_t seed = (uint64_t)time(NULL), random = seed * 2 + 1;
	uint64_t expected[3] = {0};
	unsigned units[3][512] = {{0}};

	printf("seed %llu\n", (unsigned long long)seed);
	assert_int_equal(fixture_sale(fixture, 1, 2, 700), 0);
	assert_int_equal(fixture_sale(fixture, 2, 2, 60), 0);
	for (unsigned batch = 0; batch < 40; batch++) {
		struct wire_admit records[64];

		for (unsigned i = 0; i < 64; i++) {
			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			records[i] = fixture_record(1 + random % 3, random >> 20 & 0x3ff);
			records[i].buyer = random >> 40 & 0x1ff;
			records[i].quantity = random >> 60 & 3;
		}
		assert_int_equal(fixture_admit(fixture, records, 64), 0);
		for (unsigned i = 0; i < 64; i++)
			if (fixture->acks[i].status == WIRE_ACK_STORED) {
				assert_int_equal(fixture->acks[i].seq, ++expected[records[i].sale - 1]);
				units[records[i].sale - 1][records[i].buyer] += records[i].quantity;
			}
	}
	assert_true(expected[0] > 100 && expected[1] > 10 && !expected[2]);
	for (unsigned sale = 0; sale < 2; sale++)
		for (unsigned buyer = 0; buyer < 512; buyer++)
			assert_true(units[sale][buyer] <= 2);
	fixture_audit(fixture);
}

static void a_serial_is_stored_bit_by_bit(void **state)
{
	struct ledger_fixture *fixture = *state;
	static const uint64_t serials[] = {0, 1, INT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX, 0x9f86d081884c7d65};
	struct store_order order;

	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	for (unsigned i = 0; i < sizeof(serials) / sizeof(*serials); i++) {
		struct wire_admit record = fixture_record(1, serials[i]);

		assert_int_equal(fixture_admit(fixture, &record, 1), 0);
		fixture_expect(fixture, 0, WIRE_ACK_STORED, i + 1);
		assert_int_equal(fixture->store->ops->order_get(fixture->store, serials[i], &order), 0);
		assert_true(order.serial == serials[i] && order.buyer == serials[i]);
	}
	fixture_audit(fixture);
}

/* --- sales and stock
 * ---------------------------------------------------------------------------------------------------
 */

static void a_sale_is_created_once_and_then_changed(void **state)
{
	struct ledger_fixture *fixture = *state;
	const struct store_ops *ops = fixture->store->ops;
	struct store_sale sale = {.id = 3,
		.slug = "drop-3",
		.opens_ns = NOW_NS,
		.ends_ns = NOW_NS + 1,
		.per_buyer = 2,
		.hold_seconds = 60,
		.pace_per_second = 7,
		.order_mode = "confirm",
		.token_multiplier = 4};
	struct store_move first = {.sale = 3, .delta = 50, .key = "k", .reason = "created"};

	assert_int_equal(ops->sale_put(fixture->store, &sale, &first, NOW_NS), 0);
	assert_int_equal(sale.put_in, 50);
	/* the same question again, its answer having been lost */
	assert_int_equal(ops->sale_put(fixture->store, &sale, &first, NOW_NS), 0);
	assert_int_equal(sale.put_in, 50);
	sale.per_buyer = 5;
	sale.paused = true;
	assert_int_equal(ops->sale_put(fixture->store, &sale, NULL, NOW_NS), 0);
	assert_int_equal(sale.per_buyer, 5);
	assert_true(sale.paused);
	assert_int_equal(sale.put_in, 50);
	assert_int_equal(sale.pace_per_second, 7);
	assert_int_equal(sale.token_multiplier, 4);
	/* stock comes with the creation or by a movement */
	strcpy(first.key, "other");
	assert_int_equal(ops->sale_put(fixture->store, &sale, &first, NOW_NS), -EEXIST);
	strcpy(first.key, "k");
	first.delta = 51;
	assert_int_equal(ops->sale_put(fixture->store, &sale, &first, NOW_NS), -EEXIST);
	fixture_expect_sums(fixture, 3, 50, 0, 0, 0);
	fixture_audit(fixture);
}

static void slug_and_id_stay_paired(void **state)
{
	struct ledger_fixture *fixture = *state;
	const struct store_ops *ops = fixture->store->ops;
	struct store_sale sale = {
		.id = 1, .slug = "other", .opens_ns = 1, .ends_ns = 2, .per_buyer = 1, .order_mode = "confirm"};

	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	assert_int_equal(ops->sale_put(fixture->store, &sale, NULL, NOW_NS), -EEXIST);
	sale.id = 2;
	strcpy(sale.slug, "drop-1");
	assert_int_equal(ops->sale_put(fixture->store, &sale, NULL, NOW_NS), -EEXIST);
	assert_non_null(strstr(fixture->store->error, "drop-1"));
	fixture_expect_sums(fixture, 1, 10, 0, 0, 0);
	fixture_expect_sums(fixture, 2, -1, 0, 0, 0); /* there is none */
	fixture_audit(fixture);
}

static void an_end_is_final(void **state)
{
	struct ledger_fixture *fixture = *state;
	const struct store_ops *ops = fixture->store->ops;
	struct store_sale sale = {.id = 1,
		.slug = "drop-1",
		.opens_ns = 1,
		.ends_ns = 2,
		.per_buyer = 1,
		.order_mode = "confirm",
		.ended = true};

	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	assert_int_equal(ops->sale_put(fixture->store, &sale, NULL, NOW_NS), 0);
	assert_int_equal(ops->sale_put(fixture->store, &sale, NULL, NOW_NS), 0);
	sale.ended = false;
	assert_int_equal(ops->sale_put(fixture->store, &sale, NULL, NOW_NS), -EEXIST);
	assert_int_equal(ops->sales_list(fixture->store, 0, UINT_MAX, fixture_find_sale, &sale), 0);
	assert_true(sale.ended);
}

static int move(struct ledger_fixture *fixture, uint32_t sale, int64_t delta, const char *key, int64_t *put_in)
{
	struct store_move what = {.sale = sale, .delta = delta, .reason = "test"};

	strcpy(what.key, key);
	return fixture->store->ops->stock_move(fixture->store, &what, NOW_NS, put_in);
}

static void stock_moves_once_per_key(void **state)
{
	struct ledger_fixture *fixture = *state;
	int64_t put_in = 0;

	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	assert_int_equal(fixture_sale(fixture, 2, 1, 10), 0);
	assert_int_equal(move(fixture, 1, 5, "a", &put_in), 0);
	assert_int_equal(put_in, 15);
	assert_int_equal(move(fixture, 1, 5, "a", &put_in), 0);
	assert_int_equal(put_in, 15);
	assert_int_equal(move(fixture, 1, -3, "b", &put_in), 0);
	assert_int_equal(put_in, 12);
	assert_int_equal(move(fixture, 1, 5, "a", &put_in), 0);
	assert_int_equal(put_in, 12);
	/* a key names one movement */
	assert_int_equal(move(fixture, 1, 6, "a", &put_in), -EEXIST);
	assert_int_equal(move(fixture, 2, 5, "a", &put_in), -EEXIST);
	assert_int_equal(move(fixture, 9, 5, "c", &put_in), -ENOENT);
	fixture_expect_sums(fixture, 1, 12, 0, 0, 0);
	fixture_expect_sums(fixture, 2, 10, 0, 0, 0);
	fixture_audit(fixture);
}

static void stock_that_is_ordered_cannot_be_taken_away(void **state)
{
	struct ledger_fixture *fixture = *state;
	int64_t put_in = 0;

	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 6), 0);
	assert_int_equal(move(fixture, 1, -5, "a", &put_in), -EEXIST);
	assert_int_equal(move(fixture, 1, -4, "a", &put_in), 0);
	assert_int_equal(put_in, 6);
	assert_int_equal(move(fixture, 1, -1, "b", &put_in), -EEXIST);
	assert_int_equal(fixture_admit_range(fixture, 1, 7, 1), 0);
	fixture_expect(fixture, 0, WIRE_ACK_REFUSED, 0);
	assert_int_equal(move(fixture, 1, 1, "c", &put_in), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 7, 1), 0);
	fixture_expect(fixture, 0, WIRE_ACK_STORED, 7);
	fixture_audit(fixture);
}

static void stock_cannot_overflow(void **state)
{
	struct ledger_fixture *fixture = *state;
	int64_t put_in = 0;

	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	assert_int_equal(move(fixture, 1, INT64_MAX, "a", &put_in), -EINVAL);
	assert_int_equal(move(fixture, 1, INT64_MAX - 10, "b", &put_in), 0);
	assert_true(put_in == INT64_MAX);
	assert_int_equal(move(fixture, 1, -INT64_MAX, "c", &put_in), 0);
	assert_true(put_in == 0);
	fixture_audit(fixture);
}

/* --- listings
 * ----------------------------------------------------------------------------------------------------------
 */

struct page {
	unsigned count;
	uint64_t serials[STORE_LIST_MAX];
};

static int take(const struct store_order *order, void *arg)
{
	struct page *page = arg;

	page->serials[page->count++] = order->serial;
	return 0;
}

static void pages_hold_every_order_once_in_order_of_commit(void **state)
{
	struct ledger_fixture *fixture = *state;
	static const uint32_t sales[] = {0, 1, 2};

	assert_int_equal(fixture_sale(fixture, 1, 1, 1000), 0);
	assert_int_equal(fixture_sale(fixture, 2, 1, 1000), 0);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(fixture_admit_range(fixture, 1 + i % 2, 10 + i * 2, 2), 0);
	for (unsigned s = 0; s < 3; s++) {
		struct store_order_filter filter = {.sale = sales[s], .limit = 7};
		uint64_t expected = sales[s] == 2 ? 12 : 10;
		unsigned total = 0;
		int64_t next;

		do {
			struct page page = {.count = 0};

			assert_int_equal(
				fixture->store->ops->orders_list(fixture->store, &filter, take, &page, &next), 0);
			for (unsigned i = 0; i < page.count; i++, total++) {
				assert_int_equal(page.serials[i], expected);
				expected += sales[s] && expected % 2 ? 3 : 1;
			}
			assert_true(page.count == 7 || !next);
			filter.after = next;
		} while (next);
		assert_int_equal(total, sales[s] ? 100 : 200);
	}
}

static void a_page_that_ends_exactly_at_the_end_says_so(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct store_order_filter filter = {.limit = 10};
	struct page page = {.count = 0};
	int64_t next = 1;

	assert_int_equal(fixture_sale(fixture, 1, 1, 1000), 0);
	assert_int_equal(fixture->store->ops->orders_list(fixture->store, &filter, take, &page, &next), 0);
	assert_int_equal(page.count, 0);
	assert_int_equal(next, 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 10), 0);
	assert_int_equal(fixture->store->ops->orders_list(fixture->store, &filter, take, &page, &next), 0);
	assert_int_equal(page.count, 10);
	assert_int_equal(next, 0);
}

static void a_search_for_a_rare_state_is_cut_into_bounded_pages(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct store_order_filter filter = {.state = WIRE_ORDER_CONFIRMED, .limit = 10};
	unsigned total = STORE_LIST_SCAN_MAX + 1000, pages = 0, found = 0;
	int64_t next;

	assert_int_equal(fixture_sale(fixture, 1, 1, total), 0);
	for (unsigned i = 0; i < total; i += 3000)
		assert_int_equal(fixture_admit_range(fixture, 1, 1 + i, total - i < 3000 ? total - i : 3000), 0);
	assert_int_equal(fixture_change(fixture, 20500, STORE_CONFIRM), STORE_CHANGED);
	do {
		struct page page = {.count = 0};

		assert_int_equal(fixture->store->ops->orders_list(fixture->store, &filter, take, &page, &next), 0);
		found += page.count;
		filter.after = next;
		pages++;
	} while (next);
	assert_int_equal(found, 1);
	assert_int_equal(pages, 2);
	fixture_audit(fixture);
}

static int count_sales(const struct store_sale *sale, void *arg)
{
	unsigned *count = arg;

	assert_int_equal(sale->id, ++*count);
	return 0;
}

static void sales_are_listed_by_id(void **state)
{
	struct ledger_fixture *fixture = *state;
	unsigned count = 0;

	assert_int_equal(fixture_sale(fixture, 2, 1, 1), 0);
	assert_int_equal(fixture_sale(fixture, 3, 1, 1), 0);
	assert_int_equal(fixture_sale(fixture, 1, 1, 1), 0);
	assert_int_equal(fixture->store->ops->sales_list(fixture->store, 0, 2, count_sales, &count), 0);
	assert_int_equal(count, 2);
	assert_int_equal(fixture->store->ops->sales_list(fixture->store, 2, 2, count_sales, &count), 0);
	assert_int_equal(count, 3);
}

static void an_order_that_is_not_there_is_not_found(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct store_order order;

	assert_int_equal(fixture->store->ops->order_get(fixture->store, 7, &order), -ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_batch_is_stored_in_order_of_arrival),
		TEST(the_same_batch_twice_is_stored_once),
		TEST(overlapping_batches_store_what_is_new),
		TEST(a_serial_twice_in_one_batch_is_one_order),
		TEST(what_is_known_survives_a_restart),
		TEST(twenty_thousand_orders_later_the_first_is_still_known),
		TEST(an_unknown_sale_is_refused_and_the_rest_stored),
		TEST(no_unit_is_sold_that_was_not_put_in),
		TEST(a_sold_out_sale_still_knows_its_orders),
		TEST(no_buyer_has_more_than_the_limit),
		TEST(an_order_without_units_is_refused),
		TEST(the_serial_of_another_order_is_refused),
		TEST(seq_has_no_gaps_whatever_is_refused_or_repeated),
		TEST(a_serial_is_stored_bit_by_bit),
		TEST(a_sale_is_created_once_and_then_changed),
		TEST(slug_and_id_stay_paired),
		TEST(an_end_is_final),
		TEST(stock_moves_once_per_key),
		TEST(stock_that_is_ordered_cannot_be_taken_away),
		TEST(stock_cannot_overflow),
		TEST(pages_hold_every_order_once_in_order_of_commit),
		TEST(a_page_that_ends_exactly_at_the_end_says_so),
		TEST(a_search_for_a_rare_state_is_cut_into_bounded_pages),
		TEST(sales_are_listed_by_id),
		TEST(an_order_that_is_not_there_is_not_found),
	};

	log_init("test_writer_store", LOG_ERROR_LEVEL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
