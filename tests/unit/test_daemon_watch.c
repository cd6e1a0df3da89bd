/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Watching: what the gate is asked for is enough for each watcher and no more than all of them want, and a sample of a sample is a fair one. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "common/addr.h"
#include "daemon/watch.h"

#define SOURCE "10.1.2.3"

static struct sluice_addr address(const char *text)
{
	struct sluice_addr addr;

	assert_int_equal(addr_parse(text, &addr), 0);
	return addr;
}

static struct watch_filter filter_of(const char *prefix)
{
	struct watch_filter filter = {.reasons = WATCH_ALL_REASONS, .threshold = WATCH_EVERY, .per_second = 1000};
	unsigned len;

	if (prefix) {
		assert_int_equal(prefix_parse(prefix, &filter.addr, &len), 0);
		filter.mask = watch_mask(len);
	}
	return filter;
}

static struct sluice_event event_of(unsigned reason, const char *source)
{
	return (struct sluice_event){.reason = (__u8)reason,
		.source = address(source),
		.door = SLUICE_DOOR_WIRE,
		.sale = 7,
		.threshold = WATCH_EVERY};
}

static void a_mask_has_as_many_bits_as_the_prefix(void **state)
{
	(void)state;
	for (unsigned len = 0; len <= 128; len++) {
		struct sluice_addr mask = watch_mask(len);

		assert_int_equal(__builtin_popcountll(mask.hi) + __builtin_popcountll(mask.lo), len);
		assert_true(len >= 64 ? mask.hi == ~0ULL : mask.lo == 0);
		if (len && len < 64)
			assert_true(mask.hi >> 63 && !(mask.hi & 1));
	}
}

static void the_gate_is_asked_for_the_union(void **state)
{
	struct watch_filter one = filter_of("10.0.0.0/8"), two = filter_of("10.0.0.0/8"),
			    other = filter_of("10.1.0.0/16");
	const struct watch_filter *filters[] = {&one, &two, &other};
	struct sluice_watch asked;

	(void)state;
	one.reasons = 1ULL << SLUICE_REASON_DENIED;
	one.threshold = watch_threshold(0.01);
	two.reasons = 1ULL << SLUICE_REASON_SOLD_OUT;
	two.threshold = watch_threshold(0.5);
	watch_merge(filters, 2, &asked);
	assert_true(asked.reasons == (one.reasons | two.reasons));
	assert_int_equal(asked.threshold, two.threshold);
	assert_memory_equal(&asked.mask, &one.mask, sizeof(asked.mask));
	assert_memory_equal(&asked.addr, &one.addr, sizeof(asked.addr));
	/* One is within the other: the wider one, and all of them. */
	watch_merge(filters, 3, &asked);
	assert_memory_equal(&asked.mask, &one.mask, sizeof(asked.mask));
	assert_memory_equal(&asked.addr, &one.addr, sizeof(asked.addr));
	assert_int_equal(asked.threshold, WATCH_EVERY);
	/* One wants every source. */
	other = filter_of(NULL);
	watch_merge(filters, 3, &asked);
	assert_true(!asked.mask.hi && !asked.mask.lo && !asked.addr.hi && !asked.addr.lo);
}

/* What a watcher wants, the gate must show, whatever the others want. */
static void no_merge_hides_a_source_that_somebody_wants(void **state)
{
	unsigned seed = 42;

	(void)state;
	srand(seed);
	for (int round = 0; round < 20000; round++) {
		struct watch_filter all[4];
		const struct watch_filter *filters[4];
		unsigned count = 1 + (unsigned)rand() % 4, one = (unsigned)rand() % count;
		struct sluice_watch asked;
		struct sluice_addr source;

		for (unsigned i = 0; i < count; i++) {
			all[i] = filter_of(NULL);
			all[i].mask = watch_mask((unsigned)rand() % 129);
			all[i].addr.hi = ((uint64_t)(rand() % 16) << 60 | (uint64_t)rand()) & all[i].mask.hi;
			all[i].addr.lo = ((uint64_t)rand() << 32 | (uint64_t)rand()) & all[i].mask.lo;
			filters[i] = &all[i];
		}
		watch_merge(filters, count, &asked);
		source.hi = all[one].addr.hi | (((uint64_t)rand() << 33 | (uint64_t)rand()) & ~all[one].mask.hi);
		source.lo = all[one].addr.lo | (((uint64_t)rand() << 33 | (uint64_t)rand()) & ~all[one].mask.lo);
		if ((source.hi & asked.mask.hi) != asked.addr.hi || (source.lo & asked.mask.lo) != asked.addr.lo)
			fail_msg("seed %u, round %d: the gate would not show what watcher %u wants", seed, round, one);
	}
}

static void what_the_gate_shows_for_others_is_filtered_out(void **state)
{
	struct sluice_event event = event_of(SLUICE_REASON_SOLD_OUT, SOURCE);
	struct watch_filter filter = filter_of("10.1.0.0/16");

	(void)state;
	assert_true(watch_matches(&filter, &event));
	event.source = address("10.2.2.3");
	assert_false(watch_matches(&filter, &event));
	event.source = address("2001:db8::1");
	assert_false(watch_matches(&filter, &event));
	event.source = address(SOURCE);
	filter.reasons = 1ULL << SLUICE_REASON_DENIED;
	assert_false(watch_matches(&filter, &event));
	filter.reasons = 1ULL << SLUICE_REASON_SOLD_OUT;
	filter.sale = 8;
	assert_false(watch_matches(&filter, &event));
	filter.sale = 7;
	filter.door = SLUICE_DOOR_CALL;
	assert_false(watch_matches(&filter, &event));
	filter.door = SLUICE_DOOR_WIRE;
	assert_true(watch_matches(&filter, &event));
	event.reason = SLUICE_REASON_COUNT; /* of a newer gate */
	assert_false(watch_matches(&filter, &event));
}

static void a_share_becomes_a_threshold_and_stands_for_its_inverse(void **state)
{
	static const double shares[] = {1, 0.5, 0.01, 1e-6};

	(void)state;
	assert_int_equal(watch_threshold(1), WATCH_EVERY);
	assert_int_equal(watch_threshold(1e-20), 0);
	for (unsigned i = 0; i < sizeof(shares) / sizeof(shares[0]); i++)
		assert_true(fabs(watch_stands_for(watch_threshold(shares[i])) * shares[i] - 1) < 0.001);
}

/* Every random number there can be is as likely as another, so counting a spread of them is exact enough. */
static void a_sample_of_a_sample_has_the_share_that_was_asked_for(void **state)
{
	static const double of_gate[] = {1, 0.5, 0.1}, of_watcher[] = {1, 0.5, 0.25, 0.05};
	enum { NUMBERS = 100000 };

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		for (unsigned j = 0; j < 4; j++) {
			struct sluice_event event = event_of(SLUICE_REASON_DENIED, SOURCE);
			struct watch_filter filter = filter_of(NULL);
			unsigned seen = 0;
			double expected = of_watcher[j] / of_gate[i];

			event.threshold = watch_threshold(of_gate[i]);
			filter.threshold = watch_threshold(of_watcher[j]);
			for (unsigned n = 0; n < NUMBERS; n++)
				seen += watch_is_in_sample(&filter, &event, (uint32_t)(n * (4294967296.0 / NUMBERS)));
			assert_true(fabs(seen / (double)NUMBERS - (expected < 1 ? expected : 1)) < 0.001);
		}
}

static void ends_of_handshakes_are_no_refusals(void **state)
{
	(void)state;
	assert_int_equal(watch_action_of(SLUICE_REASON_BARE_ACK), WATCH_HANDSHAKE);
	assert_int_equal(watch_action_of(SLUICE_REASON_SYN_COOKIE), WATCH_HANDSHAKE);
	assert_int_equal(watch_action_of(SLUICE_REASON_DENIED), WATCH_REFUSED);
	assert_int_equal(watch_action_of(SLUICE_REASON_SOLD_OUT), WATCH_REFUSED);
	assert_int_equal(watch_action_of(SLUICE_REASON_ADMITTED), WATCH_PASSED);
	assert_int_equal(watch_action_of(SLUICE_REASON_SHADOWED), WATCH_PASSED);
	for (unsigned reason = 0; reason < SLUICE_REASON_COUNT; reason++) {
		enum sluice_action action = reason_action(reason);

		if (action == SLUICE_ACTION_PASS)
			assert_int_equal(watch_action_of(reason), WATCH_PASSED);
		if (action == SLUICE_ACTION_ANSWER)
			assert_int_equal(watch_action_of(reason), WATCH_REFUSED);
		if (action == SLUICE_ACTION_TX)
			assert_int_equal(watch_action_of(reason), WATCH_HANDSHAKE);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_mask_has_as_many_bits_as_the_prefix),
		cmocka_unit_test(the_gate_is_asked_for_the_union),
		cmocka_unit_test(no_merge_hides_a_source_that_somebody_wants),
		cmocka_unit_test(what_the_gate_shows_for_others_is_filtered_out),
		cmocka_unit_test(a_share_becomes_a_threshold_and_stands_for_its_inverse),
		cmocka_unit_test(a_sample_of_a_sample_has_the_share_that_was_asked_for),
		cmocka_unit_test(ends_of_handshakes_are_no_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
