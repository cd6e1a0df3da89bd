/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Which events go into which stream: whatever Redis forgets and whenever it is away, each stream gets all events of its sale in their order, and what is
 * queued for it has no gap. The last test is random: a ledger that grows, and a Redis that loses, refuses and goes away.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/fleet_stream_table.h"

#define LEDGER_MAX 4000
#define SALES 5
#define SEEDS 400

/* The ledger: the event at position p is of sale ledger[p]. Redis: what is in the stream of each sale. */
struct shop {
	uint32_t ledger[LEDGER_MAX + 1];
	uint64_t end;
	uint64_t stream[SALES + 1][LEDGER_MAX + 1];
	unsigned length[SALES + 1];
	uint64_t cursor[SALES + 1];
	struct stream_table table;
};

static struct shop shop;

static void reset(void)
{
	stream_table_free(&shop.table);
	memset(&shop, 0, sizeof(shop));
}

static void happen(uint32_t sale)
{
	assert_true(shop.end < LEDGER_MAX);
	shop.ledger[++shop.end] = sale;
}

static void read_page(enum stream_walk_id walk, unsigned limit)
{
	uint64_t at = shop.table.walks[walk].position, end = at + limit < shop.end ? at + limit : shop.end;

	while (at < end) {
		struct stream_sale *sale = stream_table_sale(&shop.table, shop.ledger[++at]);
		struct stream_event *event;

		if (!stream_table_meet(&shop.table, walk, sale, at, at))
			continue;
		event = calloc(1, sizeof(*event));
		assert_non_null(event);
		event->position = event->at_ns = at;
		stream_table_put(&shop.table, sale, event);
	}
	if (end < shop.table.walks[walk].position)
		end = shop.table.walks[walk].position;
	stream_table_walked(&shop.table, walk, end, end < shop.end);
}

/* What stream_append.lua does. */
static void append(struct stream_sale *sale, unsigned limit)
{
	uint64_t *cursor = &shop.cursor[sale->id];

	if (*cursor >= sale->acked) {
		for (struct stream_event *event = sale->head; event && limit--; event = event->next)
			if (event->position > *cursor)
				shop.stream[sale->id][shop.length[sale->id]++] = *cursor = event->position;
	}
	stream_table_told(&shop.table, sale, *cursor);
}

static void ask_all(void)
{
	for (uint32_t id = 1; id <= SALES; id++)
		stream_table_told(&shop.table, stream_table_sale(&shop.table, id), shop.cursor[id]);
}

static void work(void)
{
	stream_table_lead(&shop.table);
	for (int walk = 0; walk < STREAM_WALKS; walk++)
		if (stream_table_has_room(&shop.table, walk))
			read_page(walk, 50);
	for (unsigned i = 0; i < shop.table.count; i++)
		if (shop.table.sales[i]->head)
			append(shop.table.sales[i], 1000);
}

static void work_until_done(void)
{
	for (unsigned turn = 0; turn < 2000 &&
		!(stream_table_is_done(&shop.table) && shop.table.walks[STREAM_LIVE].position == shop.end);
		turn++)
		work();
	assert_true(stream_table_is_done(&shop.table));
	assert_int_equal(shop.table.events, 0);
}

static void assert_streams_are_the_ledger(void)
{
	for (uint32_t id = 1; id <= SALES; id++) {
		unsigned at = 0;

		for (uint64_t position = 1; position <= shop.end; position++)
			if (shop.ledger[position] == id) {
				assert_true(at < shop.length[id]);
				assert_int_equal(shop.stream[id][at++], position);
			}
		assert_int_equal(at, shop.length[id]);
	}
}

/* Back to what was appended up to some position. */
static void lose(uint32_t id, uint64_t to)
{
	while (shop.length[id] && shop.stream[id][shop.length[id] - 1] > to)
		shop.length[id]--;
	shop.cursor[id] = shop.length[id] ? shop.stream[id][shop.length[id] - 1] : 0;
}

static void every_event_goes_into_the_stream_of_its_sale_once(void **state)
{
	(void)state;
	reset();
	stream_table_begin(&shop.table, 0);
	for (unsigned i = 0; i < 300; i++)
		happen(1 + i * i % SALES);
	ask_all();
	work_until_done();
	assert_streams_are_the_ledger();
}

static void a_sale_that_lost_its_stream_gets_it_again_and_the_others_wait_for_nothing(void **state)
{
	struct stream_sale *lost, *kept;

	(void)state;
	reset();
	stream_table_begin(&shop.table, 0);
	ask_all();
	for (unsigned i = 0; i < 1000; i++)
		happen(1 + i % 2);
	work_until_done();
	lost = stream_table_sale(&shop.table, 1);
	kept = stream_table_sale(&shop.table, 2);
	lose(1, 0);
	stream_table_told(&shop.table, lost, 0);
	assert_int_equal(shop.table.losses, 1);
	happen(2);
	work();
	assert_true(shop.table.walks[STREAM_BEHIND].is_on && !lost->is_in_step);
	assert_int_equal(kept->acked, shop.end);
	work_until_done();
	assert_streams_are_the_ledger();
}

static void events_behind_a_gap_are_never_queued(void **state)
{
	struct stream_sale *sale;

	(void)state;
	reset();
	stream_table_begin(&shop.table, 0);
	ask_all();
	happen(1);
	read_page(STREAM_LIVE, 10);
	sale = stream_table_sale(&shop.table, 1);
	stream_table_drop(&shop.table, sale);
	happen(1);
	read_page(STREAM_LIVE, 10);
	assert_null(sale->head);
	assert_int_equal(sale->last, 2);
	stream_table_told(&shop.table, sale, 0);
	work_until_done();
	assert_streams_are_the_ledger();
}

static void while_redis_is_away_the_ledger_is_not_read(void **state)
{
	(void)state;
	reset();
	stream_table_begin(&shop.table, 0);
	ask_all();
	happen(1);
	work_until_done();
	for (unsigned i = 0; i < shop.table.count; i++)
		stream_table_drop(&shop.table, shop.table.sales[i]);
	assert_false(stream_table_has_room(&shop.table, STREAM_LIVE));
	ask_all();
	stream_table_lead(&shop.table);
	assert_true(stream_table_has_room(&shop.table, STREAM_LIVE));
}

static void after_a_restart_a_sale_whose_cursor_is_where_its_last_event_is_is_not_read_again(void **state)
{
	(void)state;
	reset();
	for (unsigned i = 0; i < 100; i++)
		happen(1 + i % 2);
	stream_table_sale(&shop.table, 1)->last = 99;
	stream_table_sale(&shop.table, 2)->last = 100;
	for (uint64_t p = 1; p <= 100; p++)
		shop.stream[shop.ledger[p]][shop.length[shop.ledger[p]]++] = shop.cursor[shop.ledger[p]] = p;
	lose(2, 50); /* while the daemon was away */
	stream_table_begin(&shop.table, 100);
	ask_all();
	stream_table_lead(&shop.table);
	assert_true(stream_table_sale(&shop.table, 1)->is_in_step);
	assert_true(stream_table_sale(&shop.table, 2)->is_led);
	assert_int_equal(shop.table.walks[STREAM_BEHIND].position, 50);
	work_until_done();
	assert_streams_are_the_ledger();
}

static void whatever_redis_does_the_streams_become_the_ledger(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= SEEDS; seed++) {
		reset();
		srand(seed);
		stream_table_begin(&shop.table, 0);
		for (unsigned turn = 0; turn < 300; turn++) {
			uint32_t id = 1 + (uint32_t)rand() % SALES;
			struct stream_sale *sale = stream_table_sale(&shop.table, id);

			switch (rand() % 8) {
			case 0:
				lose(id, shop.end ? (uint64_t)rand() % shop.end : 0);
				break;
			case 1:
				stream_table_drop(&shop.table, sale);
				break;
			case 2: /* done, and the answer is lost */
				if (sale->is_known && shop.cursor[id] >= sale->acked && sale->head &&
					sale->head->position > shop.cursor[id])
					shop.stream[id][shop.length[id]++] = shop.cursor[id] = sale->head->position;
				stream_table_drop(&shop.table, sale);
				break;
			case 3:
				stream_table_told(&shop.table, sale, shop.cursor[id]);
				break;
			case 4:
				work();
				break;
			case 5:
				stream_table_lead(&shop.table);
				for (int walk = 0; walk < STREAM_WALKS; walk++)
					if (stream_table_has_room(&shop.table, walk))
						read_page(walk, 1 + (unsigned)rand() % 9);
				break;
			default:
				happen(id);
			}
		}
		ask_all();
		work_until_done();
		ask_all(); /* what was lost last is found by a look */
		work_until_done();
		assert_streams_are_the_ledger();
	}
	reset();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_event_goes_into_the_stream_of_its_sale_once),
		cmocka_unit_test(a_sale_that_lost_its_stream_gets_it_again_and_the_others_wait_for_nothing),
		cmocka_unit_test(events_behind_a_gap_are_never_queued),
		cmocka_unit_test(while_redis_is_away_the_ledger_is_not_read),
		cmocka_unit_test(after_a_restart_a_sale_whose_cursor_is_where_its_last_event_is_is_not_read_again),
		cmocka_unit_test(whatever_redis_does_the_streams_become_the_ledger),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
