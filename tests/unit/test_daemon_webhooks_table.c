/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* How far webhooks have come: against a made-up ledger with a made-up clock, every event is delivered, in order per sale, whatever fails and whenever the
 * daemon is killed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/webhooks_table.h"

#define S 1000000000ULL

static struct webhook_table table;

static int clear(void **state)
{
	(void)state;
	memset(&table, 0, sizeof(table));
	return 0;
}

/* --- waiting ------------------------------------------------------------------------------------------------------------------- */
static void waits_double_from_one_second_to_five_minutes(void **state)
{
	static const uint64_t whole_s[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300};

	(void)state;
	for (unsigned i = 0; i < sizeof(whole_s) / sizeof(whole_s[0]); i++) {
		assert_int_equal(webhook_backoff_ns(i + 1, 0, 0), whole_s[i] * S / 2);
		assert_in_range(webhook_backoff_ns(i + 1, 0, UINT32_MAX), whole_s[i] * S * 999 / 1000, whole_s[i] * S);
		assert_in_range(
			webhook_backoff_ns(i + 1, 0, 1u << 31), whole_s[i] * S * 3 / 4 - 1, whole_s[i] * S * 3 / 4 + 1);
	}
	assert_int_equal(webhook_backoff_ns(UINT32_MAX, 0, 0), 150 * S);
}

static void who_asks_for_more_time_gets_it_up_to_an_hour(void **state)
{
	(void)state;
	assert_int_equal(webhook_backoff_ns(1, 120, 0), 120 * S);
	assert_int_equal(webhook_backoff_ns(1, 3600, 0), 3600 * S);
	assert_int_equal(webhook_backoff_ns(1, UINT64_MAX, UINT32_MAX), 3600 * S);
	assert_int_equal(webhook_backoff_ns(10, 5, 0), 150 * S); /* less than the wait itself shortens nothing */
}

/* --- the table ------------------------------------------------------------------------------------------------------------------ */
static void a_sale_that_fails_waits_and_the_others_do_not(void **state)
{
	struct webhook_sale *sale;

	(void)state;
	assert_true(webhook_table_note(&table, 7, 1, 100));
	assert_true(webhook_table_note(&table, 8, 2, 200));
	sale = webhook_table_take(&table, 10 * S);
	assert_int_equal(sale->id, 7);
	assert_int_equal(sale->cursor, 0);
	assert_int_equal(webhook_table_limit(sale, 16), 1);
	webhook_table_read(&table, sale, 1, 1, 1);
	webhook_table_failed(sale, 1, WEBHOOK_SERVER, 503, 30 * S);
	webhook_table_put_back(&table, sale);
	sale = webhook_table_take(&table, 10 * S);
	assert_int_equal(sale->id, 8);
	assert_null(webhook_table_take(&table, 10 * S));
	assert_null(webhook_table_take(&table, 30 * S - 1));
	sale = webhook_table_take(&table, 30 * S);
	assert_int_equal(sale->id, 7);
	assert_int_equal(sale->attempts, 1);
	assert_int_equal(sale->status, 503);
	assert_int_equal(sale->cursor, 0); /* its event will be read again */
	assert_int_equal(sale->oldest_ns, 100);
}

static void sales_have_their_turn(void **state)
{
	unsigned seen[4] = {0};

	(void)state;
	for (uint32_t id = 1; id <= 3; id++)
		assert_true(webhook_table_note(&table, id, id, 1));
	for (unsigned i = 0; i < 9; i++) { /* each always has more */
		struct webhook_sale *sale = webhook_table_take(&table, 0);

		seen[sale->id]++;
		webhook_table_put_back(&table, sale);
	}
	assert_true(seen[1] == 3 && seen[2] == 3 && seen[3] == 3);
}

static void a_full_table_holds_the_position_and_forgets_nothing(void **state)
{
	struct webhook_sale *sale;

	(void)state;
	for (uint32_t id = 1; id <= WEBHOOK_SALES_MAX; id++)
		assert_true(webhook_table_note(&table, id, id, 1));
	assert_false(webhook_table_note(&table, 5000, 2000, 1));
	assert_int_equal(table.position, WEBHOOK_SALES_MAX);
	assert_true(webhook_table_note(&table, 3, 1500, 1)); /* of one that is there */
	sale = webhook_table_take(&table, 0);
	webhook_table_read(&table, sale, 1, sale->id, sale->id);
	webhook_table_put_back(&table, sale);
	assert_int_equal(table.count, WEBHOOK_SALES_MAX - 1);
	assert_true(webhook_table_note(&table, 5000, 2000, 1));
	assert_int_equal(webhook_table_find(&table, 5000)->cursor, 1500);
}

static void a_sale_that_ran_ahead_of_the_position_is_not_forgotten_before_it(void **state)
{
	struct webhook_sale *sale;

	(void)state;
	assert_true(webhook_table_note(&table, 7, 1, 1));
	sale = webhook_table_take(&table, 0);
	webhook_table_drop(sale);                  /* as after a failure: nobody has counted */
	webhook_table_read(&table, sale, 2, 5, 5); /* its page had events that the reader has not seen yet */
	webhook_table_delivered(sale, 5);
	webhook_table_put_back(&table, sale);
	webhook_table_sweep(&table, 3);
	assert_int_equal(table.count, 1);
	assert_true(webhook_table_note(&table, 7, 5, 1));
	assert_null(webhook_table_take(&table, 0)); /* that one is delivered */
	webhook_table_sweep(&table, 5);
	assert_int_equal(table.count, 0);
}

/* The writer looks at so many rows in one question, and none of them may be of this sale. */
static void a_page_without_events_moves_the_cursor_all_the_same(void **state)
{
	struct webhook_sale *sale;

	(void)state;
	assert_true(webhook_table_note(&table, 7, 50000, 1));
	sale = webhook_table_take(&table, 0);
	webhook_table_read(&table, sale, 0, 0, 20000);
	webhook_table_put_back(&table, sale);
	sale = webhook_table_take(&table, 0);
	assert_int_equal(sale->cursor, 20000);
	assert_int_equal(sale->oldest_ns, 1);
}

/* Beyond the last event of a quiet sale there may be a million of a busy one. */
static void no_more_is_read_than_was_counted(void **state)
{
	struct webhook_sale *sale;

	(void)state;
	for (uint64_t position = 1; position <= 5; position++)
		assert_true(webhook_table_note(&table, 7, position * 1000, 1));
	sale = webhook_table_take(&table, 0);
	assert_int_equal(webhook_table_limit(sale, 2), 2);
	assert_int_equal(webhook_table_limit(sale, 16), 5);
	webhook_table_read(&table, sale, 5, 5000, 5000);
	assert_true(webhook_table_note(&table, 7, 6000, 1));
	webhook_table_delivered(sale, 1000);
	webhook_table_failed(sale, 2000, WEBHOOK_TIMEOUT, 0, 0);
	webhook_table_put_back(&table, sale);
	sale = webhook_table_take(&table, 0);
	assert_int_equal(sale->cursor, 1999); /* the next row is the one that failed */
	assert_int_equal(webhook_table_limit(sale, 16), 1);
	webhook_table_read(&table, sale, 1, 2000, 2000);
	webhook_table_delivered(sale, 2000);
	webhook_table_put_back(&table, sale);
	sale = webhook_table_take(&table, 0);
	assert_int_equal(webhook_table_limit(sale, 16), 16); /* nobody knows how many */
	webhook_table_read(&table, sale, 4, 6000, 6500);
	webhook_table_delivered(sale, 6000);
	webhook_table_put_back(&table, sale);
	assert_null(webhook_table_take(&table, 0));
	assert_true(webhook_table_note(&table, 7, 7000, 1));
	sale = webhook_table_take(&table, 0);
	assert_int_equal(webhook_table_limit(sale, 16), 1);
}

static void what_is_kept_comes_back(void **state)
{
	static struct webhook_table back;
	json_t *json;

	(void)state;
	assert_true(webhook_table_note(&table, 4294967295u, 9, 1));
	assert_true(webhook_table_note(&table, 1, 9007199254740993, 1));
	json = webhook_table_save(&table);
	assert_int_equal(webhook_table_load(&back, json), 0);
	assert_int_equal(back.position, 9007199254740993);
	assert_int_equal(back.count, 2);
	assert_int_equal(webhook_table_find(&back, 1)->cursor, 9);
	assert_int_equal(webhook_table_find(&back, 4294967295u)->cursor, 0);
	assert_true(webhook_table_find(&back, 1)->has_news);
	json_decref(json);
}

static void what_was_not_written_by_us_is_not_read(void **state)
{
	static const char *const bad[] = {"{}", "[]", "{\"position\":1}", "{\"position\":-1,\"sales\":{}}",
		"{\"position\":\"1\",\"sales\":{}}", "{\"position\":1,\"sales\":{\"0\":1}}",
		"{\"position\":1,\"sales\":{\"x\":1}}", "{\"position\":1,\"sales\":{\"4294967296\":1}}",
		"{\"position\":1,\"sales\":{\"7\":-1}}", "{\"position\":1,\"sales\":{\"7\":\"1\"}}"};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		json_t *json = json_loads(bad[i], 0, NULL);

		assert_non_null(json);
		assert_int_equal(webhook_table_load(&table, json), -EPROTO);
		assert_true(!table.count && !table.position);
		json_decref(json);
	}
	assert_int_equal(webhook_table_load(&table, NULL), -EPROTO);
}

/* --- against a ledger -------------------------------------------------------------------------------------------------------------- */
#define SALES 5
#define EVENTS 2000
#define PAGE 4
#define LOOK 9

/* The event at position i+1, and how often it was delivered. */
static struct {
	uint32_t sale;
	unsigned delivered;
} ledger[EVENTS];
static unsigned written;
static uint64_t last_delivered[SALES + 1]; /* by sale */
static json_t *kept;

/* As webhooks.c reads: a short page of one sale. As the writer answers: it looks at LOOK rows and no more. */
static unsigned read_page(struct webhook_sale *sale, uint64_t *positions)
{
	unsigned count = 0, limit = webhook_table_limit(sale, PAGE);
	uint64_t next = sale->cursor;

	assert_true(limit);
	for (uint64_t position = next + 1; position <= written && count < limit && position <= sale->cursor + LOOK;
		position++) {
		if (ledger[position - 1].sale == sale->id)
			positions[count++] = position;
		next = position;
	}
	webhook_table_read(&table, sale, count, count ? positions[count - 1] : 0, next);
	return count;
}

static void write_some(void)
{
	for (long i = random() % 8; i > 0 && written < EVENTS; i--)
		ledger[written++].sale = 1 + (uint32_t)random() % SALES;
}

static void scan_some(void)
{
	uint64_t position = table.position;

	for (long i = random() % 6; i > 0 && position < written; i--, position++)
		assert_true(webhook_table_note(&table, ledger[position].sale, position + 1, 1));
	webhook_table_sweep(&table, position);
}

static void deliver_some(uint64_t now)
{
	struct webhook_sale *sale = webhook_table_take(&table, now);
	uint64_t positions[PAGE];
	unsigned count = sale ? read_page(sale, positions) : 0;

	for (unsigned i = 0; i < count; i++) {
		if (random() % 4 == 0) {
			/* It may have been delivered all the same. */
			ledger[positions[i] - 1].delivered += random() % 2;
			webhook_table_failed(sale, positions[i], WEBHOOK_TIMEOUT, 0, now + (uint64_t)random() % 10);
			break;
		}
		for (uint64_t before = 1; before < positions[i]; before++)
			if (ledger[before - 1].sale == sale->id)
				assert_true(ledger[before - 1].delivered);
		/* Never back but after a crash. */
		assert_true(positions[i] > last_delivered[sale->id]);
		last_delivered[sale->id] = positions[i];
		ledger[positions[i] - 1].delivered++;
		webhook_table_delivered(sale, positions[i]);
		if (random() % 3 == 0) { /* the reader goes on while an event is on its way */
			uint32_t id = sale->id;

			write_some();
			scan_some();
			sale = webhook_table_find(&table, id);
		}
	}
	if (sale)
		webhook_table_put_back(&table, sale);
}

static void crash(void)
{
	memset(&table, 0xff, sizeof(table));
	assert_int_equal(webhook_table_load(&table, kept), 0);
	memset(last_delivered, 0, sizeof(last_delivered));
}

static void nothing_is_lost_and_order_is_kept_through_failures_and_crashes(void **state)
{
	const char *seed_text = getenv("SLUICE_SEED");
	unsigned seed = seed_text ? (unsigned)strtoul(seed_text, NULL, 0) : 20261127u;

	(void)state;
	print_message("seed %u\n", seed);
	srandom(seed);
	kept = webhook_table_save(&table);
	for (uint64_t now = 1; now < 20000; now++) {
		write_some();
		scan_some();
		deliver_some(now);
		if (random() % 7 == 0) {
			json_decref(kept);
			kept = webhook_table_save(&table);
		}
		if (now < 15000 && random() % 50 == 0)
			crash();
	}
	assert_int_equal(written, EVENTS);
	for (unsigned i = 0; i < EVENTS; i++)
		assert_true(ledger[i].delivered);
	assert_int_equal(table.position, EVENTS);
	assert_int_equal(table.count, 0); /* and nothing is remembered of it */
	json_decref(kept);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(waits_double_from_one_second_to_five_minutes),
		cmocka_unit_test(who_asks_for_more_time_gets_it_up_to_an_hour),
		cmocka_unit_test_setup(a_sale_that_fails_waits_and_the_others_do_not, clear),
		cmocka_unit_test_setup(sales_have_their_turn, clear),
		cmocka_unit_test_setup(a_full_table_holds_the_position_and_forgets_nothing, clear),
		cmocka_unit_test_setup(a_sale_that_ran_ahead_of_the_position_is_not_forgotten_before_it, clear),
		cmocka_unit_test_setup(a_page_without_events_moves_the_cursor_all_the_same, clear),
		cmocka_unit_test_setup(no_more_is_read_than_was_counted, clear),
		cmocka_unit_test_setup(what_is_kept_comes_back, clear),
		cmocka_unit_test_setup(what_was_not_written_by_us_is_not_read, clear),
		cmocka_unit_test_setup(nothing_is_lost_and_order_is_kept_through_failures_and_crashes, clear),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
