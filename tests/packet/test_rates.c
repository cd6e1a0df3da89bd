/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* SYN budgets, the rates of validated sources, and what is left of a source that is over them.
 *
 * The gate reads the real clock. So limits here cost an hour a cell where time must not matter, and where it must, the words in the
 * maps are moved instead of waiting.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <unistd.h>

#include "common/timefmt.h"
#include "expect.h"
#include "gate.skel.h"

#define SECOND_NS 1000000000ULL
#define HOUR_NS (3600 * SECOND_NS)
#define SPOOFED 5000

static const char request[] = "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";

static int syn_from(struct gate *gate, const char *source, uint16_t dport)
{
	struct frame frame = frame_syn(strchr(source, ':') != NULL);
	struct run run;

	frame.source = source;
	frame.dport = dport;
	gate_run_frame(gate, &frame, &run);
	expect_sound(&run, source);
	return run.reason;
}

/* A new connection from `source` that asks for `payload`; `frame` and `run` are those of the first segment. */
static int request_from(struct gate *gate, const char *source, uint16_t dport, struct frame *frame, struct run *run)
{
	static uint16_t sport = 10000;

	*frame = frame_syn(strchr(source, ':') != NULL);
	frame->source = source;
	frame->sport = sport++;
	frame->dport = dport;
	expect(!gate_handshake(gate, frame, request, sizeof(request) - 1), "%s gets no cookie", source);
	gate_run_frame(gate, frame, run);
	expect_sound(run, source);
	return run->reason;
}

static int ask_from(struct gate *gate, const char *source)
{
	struct frame frame;
	struct run run;

	return request_from(gate, source, GATE_PORT, &frame, &run);
}

/* --- SYNs ----------------------------------------------------------------------------------------------------------------- */
static void the_syn_budget_of_a_prefix_is_its_own(void **state)
{
	struct gate *gate = *state;

	gate_limit(gate, SLUICE_LIMIT_SYN_PREFIX, HOUR_NS, 3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(
			syn_from(gate, i % 2 ? "192.0.2.10" : "192.0.2.200", GATE_PORT), SLUICE_REASON_SYN_COOKIE);
	assert_int_equal(syn_from(gate, "192.0.2.10", GATE_PORT), SLUICE_REASON_SYN_PREFIX);
	assert_int_equal(syn_from(gate, "192.0.2.77", GATE_PORT), SLUICE_REASON_SYN_PREFIX);
	assert_int_equal(syn_from(gate, "192.0.3.10", GATE_PORT), SLUICE_REASON_SYN_COOKIE);
	/* A /48 of IPv6. */
	for (int i = 0; i < 3; i++)
		assert_int_equal(syn_from(gate, i % 2 ? "2001:db8:1:5::1" : "2001:db8:1:6::2", GATE_PORT),
			SLUICE_REASON_SYN_COOKIE);
	assert_int_equal(syn_from(gate, "2001:db8:1:ffff::3", GATE_PORT), SLUICE_REASON_SYN_PREFIX);
	assert_int_equal(syn_from(gate, "2001:db8:2::1", GATE_PORT), SLUICE_REASON_SYN_COOKIE);
}

static void the_global_syn_budget_is_one_for_all(void **state)
{
	struct gate *gate = *state;

	gate_limit(gate, SLUICE_LIMIT_SYN_GLOBAL, HOUR_NS, 3);
	assert_int_equal(syn_from(gate, "192.0.2.10", GATE_PORT), SLUICE_REASON_SYN_COOKIE);
	assert_int_equal(syn_from(gate, "2001:db8:1::10", GATE_PORT), SLUICE_REASON_SYN_COOKIE);
	assert_int_equal(syn_from(gate, "198.51.100.1", GATE_TCP_PORT), SLUICE_REASON_SYN_COOKIE);
	assert_int_equal(syn_from(gate, "203.0.113.1", GATE_PORT), SLUICE_REASON_SYN_GLOBAL);
	assert_int_equal(syn_from(gate, "2001:db8:9::10", GATE_TCP_PORT), SLUICE_REASON_SYN_GLOBAL);
}

static void a_source_that_was_proved_real_does_not_stand_behind_strangers(void **state)
{
	static const char *const known[] = {"192.0.2.10", "2001:db8:1::10"};
	struct gate *gate = *state;

	gate_limit(gate, SLUICE_LIMIT_SOURCE, 1, 1000); /* it has the sources remembered */
	for (unsigned i = 0; i < 2; i++)
		ask_from(gate, known[i]);
	gate_limit(gate, SLUICE_LIMIT_SYN_GLOBAL, HOUR_NS, 1);
	assert_int_equal(syn_from(gate, "203.0.113.1", GATE_PORT), SLUICE_REASON_SYN_COOKIE);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(syn_from(gate, "203.0.113.1", GATE_PORT), SLUICE_REASON_SYN_GLOBAL);
		assert_int_equal(syn_from(gate, "2001:db8:9::10", GATE_PORT), SLUICE_REASON_SYN_GLOBAL);
		assert_int_equal(syn_from(gate, known[i % 2], GATE_PORT), SLUICE_REASON_SYN_COOKIE);
	}
	/* Nor does who forges a known address have more than its prefix. */
	gate_limit(gate, SLUICE_LIMIT_SYN_PREFIX, HOUR_NS, 1);
	for (unsigned i = 0; i < 2; i++) {
		syn_from(gate, known[i], GATE_PORT);
		assert_int_equal(syn_from(gate, known[i], GATE_PORT), SLUICE_REASON_SYN_PREFIX);
	}
}

static void a_prefix_over_its_budget_does_not_spend_the_global_one(void **state)
{
	struct gate *gate = *state;

	gate_limit(gate, SLUICE_LIMIT_SYN_PREFIX, HOUR_NS, 1);
	gate_limit(gate, SLUICE_LIMIT_SYN_GLOBAL, HOUR_NS, 2);
	assert_int_equal(syn_from(gate, "192.0.2.10", GATE_PORT), SLUICE_REASON_SYN_COOKIE);
	for (int i = 0; i < 100; i++)
		assert_int_equal(syn_from(gate, "192.0.2.10", GATE_PORT), SLUICE_REASON_SYN_PREFIX);
	assert_int_equal(syn_from(gate, "198.51.100.1", GATE_PORT), SLUICE_REASON_SYN_COOKIE);
	assert_int_equal(syn_from(gate, "203.0.113.1", GATE_PORT), SLUICE_REASON_SYN_GLOBAL);
}

static void a_syn_budget_comes_back_with_time(void **state)
{
	struct gate *gate = *state;

	gate_limit(gate, SLUICE_LIMIT_SYN_GLOBAL, HOUR_NS, 1);
	assert_int_equal(syn_from(gate, "192.0.2.10", GATE_PORT), SLUICE_REASON_SYN_COOKIE);
	assert_int_equal(syn_from(gate, "192.0.2.10", GATE_PORT), SLUICE_REASON_SYN_GLOBAL);
	gate->control->syn_global_tat -= HOUR_NS;
	assert_int_equal(syn_from(gate, "192.0.2.10", GATE_PORT), SLUICE_REASON_SYN_COOKIE);
	assert_int_equal(syn_from(gate, "192.0.2.10", GATE_PORT), SLUICE_REASON_SYN_GLOBAL);
}

static void syn_budgets_change_at_run_time_and_zero_is_off(void **state)
{
	struct gate *gate = *state;

	for (int i = 0; i < 200; i++)
		assert_int_equal(syn_from(gate, "192.0.2.10", GATE_PORT), SLUICE_REASON_SYN_COOKIE);
	gate_limit(gate, SLUICE_LIMIT_SYN_PREFIX, HOUR_NS, 1);
	assert_int_equal(syn_from(gate, "192.0.2.10", GATE_PORT), SLUICE_REASON_SYN_COOKIE);
	assert_int_equal(syn_from(gate, "192.0.2.10", GATE_PORT), SLUICE_REASON_SYN_PREFIX);
	gate_limit(gate, SLUICE_LIMIT_SYN_PREFIX, HOUR_NS, 3);
	assert_int_equal(syn_from(gate, "192.0.2.10", GATE_PORT), SLUICE_REASON_SYN_COOKIE);
	assert_int_equal(syn_from(gate, "192.0.2.10", GATE_PORT), SLUICE_REASON_SYN_COOKIE);
	assert_int_equal(syn_from(gate, "192.0.2.10", GATE_PORT), SLUICE_REASON_SYN_PREFIX);
	gate_limit(gate, SLUICE_LIMIT_SYN_PREFIX, 0, 1);
	assert_int_equal(syn_from(gate, "192.0.2.10", GATE_PORT), SLUICE_REASON_SYN_COOKIE);
}

/* --- state ---------------------------------------------------------------------------------------------------------------- */
static void sources_that_no_cookie_proved_get_no_entry(void **state)
{
	static const uint8_t flags[] = {F_SYN, F_ACK, F_ACK | F_PSH, F_ACK | F_FIN, F_RST, F_SYN | F_ACK, 0};
	struct gate *gate = *state;
	uint8_t bytes[FRAME_MAX];
	struct frame frame;
	struct run run;
	char source[64];

	for (int id = 0; id < SLUICE_LIMIT_COUNT; id++)
		gate_limit(gate, id, 1000, 1000);
	for (int i = 0; i < SPOOFED; i++) {
		frame = frame_syn(i & 1);
		if (frame.ip6)
			snprintf(source, sizeof(source), "2001:db8:%x:%x::%x", i * 7 & 0xffff, i, i);
		else
			snprintf(source, sizeof(source), "%d.%d.%d.%d", 1 + i % 99, i / 256 % 256, i % 256, i % 251);
		frame.source = source;
		frame.flags = flags[i / 2 % sizeof(flags)];
		frame.ack = i * 2654435761u;
		if (frame.flags & F_PSH) {
			frame.payload = request;
			frame.payload_len = sizeof(request) - 1;
		}
		gate_run_raw(gate, bytes, frame_write(&frame, bytes), &run);
	}
	assert_int_equal(gate_rates_kept(gate), 0);
	assert_int_equal(gate_map_count(bpf_map__fd(gate->skel->maps.admissions), sizeof(__u64)), 0);
	assert_int_equal(gate_map_count(bpf_map__fd(gate->skel->maps.buyers), sizeof(struct sluice_buyer_key)), 0);
	/* The handshake's last ACK is no request yet. */
	frame = frame_syn(false);
	assert_int_equal(gate_handshake(gate, &frame, "", 0), 0);
	gate_run_frame(gate, &frame, &run);
	assert_int_equal(gate_rates_kept(gate), 0);
	/* And a request is what makes them: its source and its prefix. */
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
	assert_int_equal(gate_rates_kept(gate), 2);
}

/* --- requests ------------------------------------------------------------------------------------------------------------- */
static void a_source_has_its_burst_and_then_429(void **state)
{
	struct gate *gate = *state;
	struct frame frame;
	struct run run;

	gate_limit(gate, SLUICE_LIMIT_SOURCE, 7 * SECOND_NS, 3);
	for (int ip6 = 0; ip6 < 2; ip6++) {
		const char *source = ip6 ? "2001:db8:1::10" : "192.0.2.10";

		for (int i = 0; i < 3; i++)
			assert_int_equal(ask_from(gate, source), SLUICE_REASON_REQUEST);
		assert_int_equal(request_from(gate, source, GATE_PORT, &frame, &run), SLUICE_REASON_RATE_SOURCE);
		expect_answer(&run, &frame, SLUICE_ANSWER_RATE_LIMITED, 7);
	}
	assert_int_equal(ask_from(gate, "192.0.2.11"), SLUICE_REASON_REQUEST);
}

static void a_source_of_ip6_is_a_64(void **state)
{
	struct gate *gate = *state;

	gate_limit(gate, SLUICE_LIMIT_SOURCE, HOUR_NS, 2);
	assert_int_equal(ask_from(gate, "2001:db8:1:1::1"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "2001:db8:1:1:ffff::2"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "2001:db8:1:1:8000::3"), SLUICE_REASON_RATE_SOURCE);
	assert_int_equal(ask_from(gate, "2001:db8:1:2::1"), SLUICE_REASON_REQUEST);
}

static void a_prefix_is_a_24_of_ip4_and_a_48_of_ip6(void **state)
{
	struct gate *gate = *state;
	struct frame frame;
	struct run run;

	gate_limit(gate, SLUICE_LIMIT_PREFIX, 9 * SECOND_NS, 2);
	assert_int_equal(ask_from(gate, "192.0.2.1"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "192.0.2.254"), SLUICE_REASON_REQUEST);
	assert_int_equal(request_from(gate, "192.0.2.7", GATE_PORT, &frame, &run), SLUICE_REASON_RATE_PREFIX);
	expect_answer(&run, &frame, SLUICE_ANSWER_RATE_LIMITED, 9);
	assert_int_equal(ask_from(gate, "192.0.3.7"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "2001:db8:1:1::1"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "2001:db8:1:ffff::1"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "2001:db8:1:8000::1"), SLUICE_REASON_RATE_PREFIX);
	assert_int_equal(ask_from(gate, "2001:db8:2:1::1"), SLUICE_REASON_REQUEST);
}

static void a_source_over_its_rate_does_not_spend_its_neighbours(void **state)
{
	struct gate *gate = *state;

	gate_limit(gate, SLUICE_LIMIT_SOURCE, HOUR_NS, 1);
	gate_limit(gate, SLUICE_LIMIT_PREFIX, HOUR_NS, 2);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
	for (int i = 0; i < 20; i++)
		assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_RATE_SOURCE);
	assert_int_equal(ask_from(gate, "192.0.2.11"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "192.0.2.12"), SLUICE_REASON_RATE_PREFIX);
}

static void rates_change_at_run_time_and_zero_is_off(void **state)
{
	struct gate *gate = *state;

	for (int i = 0; i < 50; i++)
		assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
	assert_int_equal(gate_rates_kept(gate), 0);
	gate_limit(gate, SLUICE_LIMIT_SOURCE, HOUR_NS, 1);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_RATE_SOURCE);
	gate_limit(gate, SLUICE_LIMIT_SOURCE, HOUR_NS, 2);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_RATE_SOURCE);
	gate_limit(gate, SLUICE_LIMIT_SOURCE, 0, 1);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
}

static struct sluice_rate *bucket_of(struct gate *gate)
{
	struct sluice_rate_key key = {
		.net = 0xffff00000000ULL | 0xc000020a /* 192.0.2.10 */, .kind = SLUICE_RATE_SOURCE4};
	struct sluice_rate *bucket = gate_rate_of(gate, &key);

	assert_non_null(bucket);
	return bucket;
}

static void a_rate_comes_back_with_time(void **state)
{
	struct gate *gate = *state;
	struct sluice_rate *bucket;

	gate_limit(gate, SLUICE_LIMIT_SOURCE, HOUR_NS, 2);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_RATE_SOURCE);
	bucket = bucket_of(gate);
	bucket->tat -= HOUR_NS; /* as if an hour had gone by: one more */
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_RATE_SOURCE);
	bucket = bucket_of(gate);
	bucket->tat = 1; /* idleness saves up no more than the burst */
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_RATE_SOURCE);
}

/* With one set, the table holds four keys. */
static void a_full_set_forgets_who_was_idle_longest(void **state)
{
	struct gate *gate = *state;

	gate->control->rate_mask = 0;
	gate_limit(gate, SLUICE_LIMIT_SOURCE, HOUR_NS, 2);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST); /* two hours ahead: the busiest */
	assert_int_equal(ask_from(gate, "192.0.2.11"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "192.0.2.12"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "192.0.2.13"), SLUICE_REASON_REQUEST);
	assert_int_equal(gate_rates_kept(gate), 4);
	assert_int_equal(ask_from(gate, "192.0.2.14"), SLUICE_REASON_REQUEST); /* in the place of .11 */
	assert_int_equal(gate_rates_kept(gate), 4);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_RATE_SOURCE);
	assert_int_equal(ask_from(gate, "192.0.2.12"), SLUICE_REASON_REQUEST); /* its second: remembered */
	assert_int_equal(ask_from(gate, "192.0.2.12"), SLUICE_REASON_RATE_SOURCE);
	assert_int_equal(ask_from(gate, "192.0.2.11"), SLUICE_REASON_REQUEST); /* as if it were new */
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_RATE_SOURCE);
}

static void retry_after_is_the_time_until_the_next_cell(void **state)
{
	static const struct {
		uint64_t interval_ns;
		int retry_s;
	} cases[] = {{SECOND_NS / 10, 1}, {SECOND_NS, 1}, {2 * SECOND_NS, 2}, {60 * SECOND_NS, 60},
		{999 * SECOND_NS, 999}, {9999 * SECOND_NS, 9999}, {10000 * SECOND_NS, 9999},
		{1000000 * SECOND_NS, 9999}};
	struct gate *gate = *state;
	struct frame frame;
	struct run run;

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		gate_reset(gate);
		gate_limit(gate, SLUICE_LIMIT_SOURCE, cases[i].interval_ns, 1);
		assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
		assert_int_equal(request_from(gate, "192.0.2.10", GATE_PORT, &frame, &run), SLUICE_REASON_RATE_SOURCE);
		expect_answer(&run, &frame, SLUICE_ANSWER_RATE_LIMITED, cases[i].retry_s);
	}
}

/* --- the answer budget ---------------------------------------------------------------------------------------------------- */
static void answers_run_out_and_then_there_is_silence(void **state)
{
	struct gate *gate = *state;

	gate_limit(gate, SLUICE_LIMIT_SOURCE, HOUR_NS, 1);
	gate_limit(gate, SLUICE_LIMIT_ANSWER, HOUR_NS, 3);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
	for (int i = 0; i < 3; i++)
		assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_RATE_SOURCE);
	for (int i = 0; i < 20; i++)
		assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_RATE_DROP);
	/* Another source has a budget of its own. */
	assert_int_equal(ask_from(gate, "192.0.2.11"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "192.0.2.11"), SLUICE_REASON_RATE_SOURCE);
}

static void the_answer_budget_holds_for_a_prefix_over_its_rate_too(void **state)
{
	struct gate *gate = *state;

	gate_limit(gate, SLUICE_LIMIT_PREFIX, HOUR_NS, 1);
	gate_limit(gate, SLUICE_LIMIT_ANSWER, HOUR_NS, 2);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_RATE_PREFIX);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_RATE_PREFIX);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_RATE_DROP);
	assert_int_equal(ask_from(gate, "192.0.2.11"), SLUICE_REASON_RATE_PREFIX);
}

static void a_muted_source_is_silent_for_its_ticks_and_no_longer(void **state)
{
	struct gate *gate = *state;
	struct sluice_rate *bucket;

	gate_limit(gate, SLUICE_LIMIT_SOURCE, HOUR_NS, 1);
	gate_limit(gate, SLUICE_LIMIT_ANSWER, HOUR_NS, 1);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_RATE_SOURCE);
	assert_int_equal(bucket_of(gate)->muted_until, 0);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_RATE_DROP);
	bucket = bucket_of(gate);
	assert_true(bucket->muted_until > 0);
	/* The rate is off; only the mute is left, for as long as it lasts: its own tick, and never more than one ahead. */
	gate_limit(gate, SLUICE_LIMIT_SOURCE, 0, 1);
	usleep(50000);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
	bucket->muted_until += 1000000000; /* nonsense, or the lower half of jiffies has gone round since */
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
}

static void the_last_four_verdicts_of_a_source_are_kept(void **state)
{
	struct gate *gate = *state;

	gate_limit(gate, SLUICE_LIMIT_SOURCE, HOUR_NS, 2);
	gate_limit(gate, SLUICE_LIMIT_ANSWER, HOUR_NS, 1);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
	assert_int_equal(bucket_of(gate)->verdicts, SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_RATE_SOURCE);
	assert_int_equal(ask_from(gate, "192.0.2.11"), SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_RATE_DROP);
	assert_int_equal(bucket_of(gate)->verdicts,
		SLUICE_REASON_REQUEST << 24 | SLUICE_REASON_REQUEST << 16 | SLUICE_REASON_RATE_SOURCE << 8 |
			SLUICE_REASON_RATE_DROP);
}

static void a_service_of_kind_tcp_is_limited_without_an_answer(void **state)
{
	struct gate *gate = *state;
	struct frame frame;
	struct run run;

	gate_limit(gate, SLUICE_LIMIT_SOURCE, HOUR_NS, 2);
	for (int ip6 = 0; ip6 < 2; ip6++) {
		const char *source = ip6 ? "2001:db8:1::10" : "192.0.2.10";

		for (int i = 0; i < 2; i++)
			assert_int_equal(
				request_from(gate, source, GATE_TCP_PORT, &frame, &run), SLUICE_REASON_TCP_FIRST);
		for (int i = 0; i < 5; i++)
			assert_int_equal(
				request_from(gate, source, GATE_TCP_PORT, &frame, &run), SLUICE_REASON_RATE_DROP);
	}
}

/* --- tokens --------------------------------------------------------------------------------------------------------------- */
static void attempts_with_one_token_are_limited(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(1, 1), other = gate_token(2, 2);
	char text[SLUICE_TOKEN_TEXT + 1], other_text[SLUICE_TOKEN_TEXT + 1];
	struct run run;

	gate_limit(gate, SLUICE_LIMIT_TOKEN, 11 * SECOND_NS, 2);
	gate->control->backlog_max = 1; /* so that attempts are refused and count */
	gate->control->in_flight = 1;
	gate_token_text(gate, &token, text);
	gate_token_text(gate, &other, other_text);
	for (int i = 0; i < 2; i++) {
		gate_order(gate, false, 20000 + i, text, &run);
		expect_reason(&run, SLUICE_REASON_BACKLOG, "attempt %d", i);
	}
	gate_order(gate, false, 20002, text, &run);
	expect_reason(&run, SLUICE_REASON_RATE_TOKEN, "third attempt");
	expect_http(run.parsed.payload, run.parsed.payload_len, SLUICE_ANSWER_RATE_LIMITED, 11);
	gate_order(gate, true, 20003, text, &run);
	expect_reason(&run, SLUICE_REASON_RATE_TOKEN, "from another address");
	gate_order(gate, false, 20004, other_text, &run);
	expect_reason(&run, SLUICE_REASON_BACKLOG, "another token");
	/* At run time: off, and the token is as good as ever. */
	gate_limit(gate, SLUICE_LIMIT_TOKEN, 0, 1);
	gate->control->in_flight = 0;
	gate_order(gate, false, 20005, text, &run);
	expect_reason(&run, SLUICE_REASON_ADMITTED, "when the backlog is gone");
	assert_true(gate_is_conserved(gate, 10));
}

static void an_admitted_token_is_never_over_its_rate(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(1, 1);
	char text[SLUICE_TOKEN_TEXT + 1];
	struct run run;

	gate_limit(gate, SLUICE_LIMIT_TOKEN, HOUR_NS, 1);
	gate_token_text(gate, &token, text);
	for (int i = 0; i < 20; i++) {
		gate_order(gate, i & 1, 20000 + i, text, &run);
		expect_reason(&run, i ? SLUICE_REASON_ADMITTED_AGAIN : SLUICE_REASON_ADMITTED, "attempt %d", i);
	}
	assert_true(gate_is_conserved(gate, 10));
}

/* --- the call door -------------------------------------------------------------------------------------------------------- */
static void both_doors_charge_one_bucket(void **state)
{
	struct gate *gate = *state;
	struct sluice_call call = {.op = SLUICE_CALL_RATE, .source = {.lo = 0xffff00000000ULL | 0xc000020a}};

	gate_limit(gate, SLUICE_LIMIT_SOURCE, 13 * SECOND_NS, 4);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
	gate_call(gate, &call);
	assert_int_equal(call.reason, SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_REQUEST);
	gate_call(gate, &call);
	assert_int_equal(call.reason, SLUICE_REASON_REQUEST);
	assert_int_equal(ask_from(gate, "192.0.2.10"), SLUICE_REASON_RATE_SOURCE);
	gate_call(gate, &call);
	assert_int_equal(call.reason, SLUICE_REASON_RATE_SOURCE);
	assert_int_equal(call.retry_after_s, 13);
}

static void an_order_at_the_call_door_is_charged_only_when_asked(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(1, 1);
	char text[SLUICE_TOKEN_TEXT + 1];
	struct sluice_call call;

	gate_limit(gate, SLUICE_LIMIT_SOURCE, HOUR_NS, 1);
	gate_token_text(gate, &token, text);
	for (int i = 0; i < 6; i++) {
		call = (struct sluice_call){.op = SLUICE_CALL_ORDER, .source = {.lo = 0xffff00000000ULL | 0xc000020a}};
		call.flags = i >= 3 ? SLUICE_CALL_CHARGE : 0;
		memcpy(call.token, text, SLUICE_TOKEN_TEXT);
		gate_call(gate, &call);
		assert_int_equal(call.reason,
			i == 0           ? SLUICE_REASON_ADMITTED
				: i <= 3 ? SLUICE_REASON_ADMITTED_AGAIN
					 : SLUICE_REASON_RATE_SOURCE);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		gate_test(the_syn_budget_of_a_prefix_is_its_own),
		gate_test(the_global_syn_budget_is_one_for_all),
		gate_test(a_source_that_was_proved_real_does_not_stand_behind_strangers),
		gate_test(a_prefix_over_its_budget_does_not_spend_the_global_one),
		gate_test(a_syn_budget_comes_back_with_time),
		gate_test(syn_budgets_change_at_run_time_and_zero_is_off),
		gate_test(sources_that_no_cookie_proved_get_no_entry),
		gate_test(a_source_has_its_burst_and_then_429),
		gate_test(a_source_of_ip6_is_a_64),
		gate_test(a_prefix_is_a_24_of_ip4_and_a_48_of_ip6),
		gate_test(a_source_over_its_rate_does_not_spend_its_neighbours),
		gate_test(rates_change_at_run_time_and_zero_is_off),
		gate_test(a_rate_comes_back_with_time),
		gate_test(a_full_set_forgets_who_was_idle_longest),
		gate_test(retry_after_is_the_time_until_the_next_cell),
		gate_test(answers_run_out_and_then_there_is_silence),
		gate_test(the_answer_budget_holds_for_a_prefix_over_its_rate_too),
		gate_test(a_muted_source_is_silent_for_its_ticks_and_no_longer),
		gate_test(the_last_four_verdicts_of_a_source_are_kept),
		gate_test(a_service_of_kind_tcp_is_limited_without_an_answer),
		gate_test(attempts_with_one_token_are_limited),
		gate_test(an_admitted_token_is_never_over_its_rate),
		gate_test(both_doors_charge_one_bucket),
		gate_test(an_order_at_the_call_door_is_charged_only_when_asked),
	};

	return cmocka_run_group_tests_name("rates", tests, setup_gate, close_gate);
}
