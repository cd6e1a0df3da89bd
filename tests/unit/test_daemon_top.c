/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The busiest sources of a sample: weighted by what each verdict stands for, grouped as the rates are, never more rows than asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/addr.h"
#include "daemon/top_rank.h"

#define SAMPLE_MAX 2000

static struct watched sample[SAMPLE_MAX];
static size_t count;

static void add(const char *source, unsigned reason, double stands_for, unsigned times)
{
	struct watched watched = {.stands_for = stands_for, .event = {.reason = (__u8)reason}};

	assert_int_equal(addr_parse(source, &watched.event.source), 0);
	for (unsigned i = 0; i < times; i++) {
		assert_true(count < SAMPLE_MAX);
		sample[count++] = watched;
	}
}

/* So that nothing depends on the order in which verdicts come. */
static void shuffle(void)
{
	for (size_t i = count; i > 1; i--) {
		size_t j = (size_t)rand() % i;
		struct watched held = sample[i - 1];

		sample[i - 1] = sample[j];
		sample[j] = held;
	}
}

static int start(void **state)
{
	(void)state;
	count = 0;
	srand(1);
	return 0;
}

static const char *name_of(const struct top_row *row)
{
	static char text[ADDR_TEXT_MAX];

	return prefix_format(&row->addr, row->len, text);
}

static void sources_are_ranked_by_what_their_verdicts_stand_for(void **state)
{
	struct top_row rows[3];
	unsigned all;

	(void)state;
	add("10.0.0.1", SLUICE_REASON_REQUEST, 1, 30);
	add("10.0.0.2", SLUICE_REASON_DENIED, 100, 2);
	add("10.0.0.3", SLUICE_REASON_RATE_SOURCE, 1, 8);
	add("10.0.0.3", SLUICE_REASON_REQUEST, 1, 5);
	add("10.0.0.4", SLUICE_REASON_REQUEST, 1, 1);
	shuffle();
	assert_int_equal(top_rank(sample, count, false, rows, 3, &all), 3);
	assert_int_equal(all, 4);
	assert_string_equal(name_of(&rows[0]), "10.0.0.2/32");
	assert_true(rows[0].verdicts == 200 && rows[0].refused == 200 && rows[0].reason == SLUICE_REASON_DENIED);
	assert_string_equal(name_of(&rows[1]), "10.0.0.1/32");
	assert_true(rows[1].verdicts == 30 && rows[1].refused == 0);
	assert_string_equal(name_of(&rows[2]), "10.0.0.3/32");
	assert_true(rows[2].verdicts == 13 && rows[2].refused == 8 && rows[2].reason == SLUICE_REASON_RATE_SOURCE);
}

static void of_a_source_that_is_refused_the_reason_is_a_refusal(void **state)
{
	struct top_row rows[1];

	(void)state;
	add("192.0.2.1", SLUICE_REASON_SYN_COOKIE, 1, 9);
	add("192.0.2.1", SLUICE_REASON_TOKEN_MAC, 1, 7);
	add("192.0.2.1", SLUICE_REASON_RATE_SOURCE, 1, 1);
	assert_int_equal(top_rank(sample, count, false, rows, 1, NULL), 1);
	assert_int_equal(rows[0].reason, SLUICE_REASON_TOKEN_MAC);
}

static void prefixes_gather_their_sources(void **state)
{
	struct top_row rows[10];
	unsigned all;

	(void)state;
	for (unsigned host = 1; host <= 100; host++) {
		char text[32];

		snprintf(text, sizeof(text), "10.0.1.%u", host);
		add(text, SLUICE_REASON_REQUEST, 1, 1);
		snprintf(text, sizeof(text), "2001:db8:1:%x::1", host);
		add(text, SLUICE_REASON_REQUEST, 1, 2);
	}
	add("10.0.2.1", SLUICE_REASON_REQUEST, 1, 60);
	shuffle();
	assert_int_equal(top_rank(sample, count, true, rows, 10, &all), 3);
	assert_int_equal(all, 3);
	assert_string_equal(name_of(&rows[0]), "2001:db8:1::/48");
	assert_true(rows[0].verdicts == 200);
	assert_string_equal(name_of(&rows[1]), "10.0.1.0/24");
	assert_true(rows[1].verdicts == 100);
	assert_string_equal(name_of(&rows[2]), "10.0.2.0/24");
	assert_int_equal(top_rank(sample, count, false, rows, 10, &all), 10);
	assert_int_equal(all, 201);
	assert_string_equal(name_of(&rows[0]), "10.0.2.1/32");
}

static void hosts_of_one_ip6_network_are_one_source(void **state)
{
	struct top_row rows[2];

	(void)state;
	add("2001:db8::1", SLUICE_REASON_REQUEST, 1, 1);
	add("2001:db8::ffff:1", SLUICE_REASON_REQUEST, 1, 1);
	assert_int_equal(top_rank(sample, count, false, rows, 2, NULL), 1);
	assert_string_equal(name_of(&rows[0]), "2001:db8::/64");
}

static void nothing_ranks_nobody(void **state)
{
	struct top_row row;
	unsigned all = 7;

	(void)state;
	assert_int_equal(top_rank(sample, 0, false, &row, 1, &all), 0);
	assert_int_equal(all, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(sources_are_ranked_by_what_their_verdicts_stand_for, start),
		cmocka_unit_test_setup(of_a_source_that_is_refused_the_reason_is_a_refusal, start),
		cmocka_unit_test_setup(prefixes_gather_their_sources, start),
		cmocka_unit_test_setup(hosts_of_one_ip6_network_are_one_source, start),
		cmocka_unit_test_setup(nothing_ranks_nobody, start),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
