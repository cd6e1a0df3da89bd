/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Watching verdicts: what is asked for is shown, once and truly; nothing is shown to nobody; and no verdict changes for it. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "common/addr.h"
#include "common/timefmt.h"
#include "expect.h"
#include "gate.skel.h"

#define EVENTS_MAX 64
#define ALL (~0ULL)
#define SOON_NS 3600000000000ULL

struct events {
	struct sluice_event all[EVENTS_MAX];
	unsigned count;
};

static int on_event(void *arg, void *data, size_t size)
{
	struct events *events = arg;

	assert_int_equal(size, sizeof(struct sluice_event));
	if (events->count < EVENTS_MAX)
		memcpy(&events->all[events->count], data, size);
	events->count++;
	return 0;
}

static unsigned drain(struct gate *gate, struct events *events)
{
	struct ring_buffer *ring = ring_buffer__new(bpf_map__fd(gate->skel->maps.events), on_event, events, NULL);

	assert_non_null(ring);
	events->count = 0;
	assert_true(ring_buffer__consume(ring) >= 0);
	ring_buffer__free(ring);
	return events->count;
}

static void ask_for(struct gate *gate, uint64_t reasons, const char *source, uint32_t threshold, uint64_t until_mono)
{
	struct sluice_watch asked = {.reasons = reasons, .threshold = threshold, .until_mono = until_mono};
	__u32 zero = 0;

	if (source) {
		assert_int_equal(addr_parse(source, &asked.addr), 0);
		asked.mask = (struct sluice_addr){.hi = ~0ULL, .lo = ~0ULL};
	}
	assert_int_equal(bpf_map_update_elem(bpf_map__fd(gate->skel->maps.watch), &zero, &asked, 0), 0);
	gate->control->flags |= SLUICE_CONTROL_WATCH;
}

static void syn_from(struct gate *gate, const char *source)
{
	struct frame frame = frame_syn(strchr(source, ':') != NULL);
	struct run run;

	frame.source = source;
	gate_run_frame(gate, &frame, &run);
	expect_reason(&run, SLUICE_REASON_SYN_COOKIE, "%s", source);
}

static void nothing_is_shown_to_nobody(void **state)
{
	struct gate *gate = *state;
	struct events events;

	ask_for(gate, ALL, NULL, ~0U, time_mono_ns() + SOON_NS);
	gate->control->flags &= ~SLUICE_CONTROL_WATCH;
	syn_from(gate, "192.0.2.1");
	assert_int_equal(drain(gate, &events), 0);
	/* A watcher that was killed: its time runs out. */
	ask_for(gate, ALL, NULL, ~0U, time_mono_ns() - 1);
	syn_from(gate, "192.0.2.1");
	assert_int_equal(drain(gate, &events), 0);
}

static void an_order_is_shown_with_source_sale_and_door(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(5, 5);
	struct sluice_call call = {.op = SLUICE_CALL_ORDER, .source = {.lo = 0xffffc0000209ULL}};
	char text[SLUICE_TOKEN_TEXT + 1];
	struct sluice_addr source;
	struct events events;
	struct run run;
	uint64_t before = time_mono_ns();

	ask_for(gate, ALL, NULL, ~0U, before + SOON_NS);
	gate_token_text(gate, &token, text);
	gate_order(gate, true, 42000, text, &run);
	assert_int_equal(drain(gate, &events), 2);
	assert_int_equal(events.all[0].reason, SLUICE_REASON_SYN_COOKIE);
	assert_int_equal(events.all[0].sale, 0);
	assert_int_equal(events.all[1].reason, SLUICE_REASON_ADMITTED);
	assert_int_equal(events.all[1].sale, GATE_SALE);
	assert_int_equal(events.all[1].door, SLUICE_DOOR_WIRE);
	assert_int_equal(events.all[1].sport, 42000);
	assert_int_equal(events.all[1].dport, GATE_PORT);
	assert_int_equal(events.all[1].service, 0);

	assert_int_equal(events.all[1].shadow, 0);
	assert_in_range(events.all[1].mono, before, time_mono_ns());
	assert_int_equal(addr_parse(frame_syn(true).source, &source), 0);
	assert_memory_equal(&events.all[1].source, &source, sizeof(source));

	memcpy(call.token, text, SLUICE_TOKEN_TEXT);
	gate_call(gate, &call);
	assert_int_equal(drain(gate, &events), 1);
	assert_int_equal(events.all[0].reason, SLUICE_REASON_ADMITTED_AGAIN);
	assert_int_equal(events.all[0].door, SLUICE_DOOR_CALL);
	assert_int_equal(events.all[0].sale, GATE_SALE);
	assert_int_equal(events.all[0].sport, 0);
}

static void reasons_and_sources_are_chosen_in_the_gate(void **state)
{
	struct gate *gate = *state;
	struct events events;

	ask_for(gate, 1ULL << SLUICE_REASON_SOLD_OUT, NULL, ~0U, time_mono_ns() + SOON_NS);
	syn_from(gate, "192.0.2.1");
	assert_int_equal(drain(gate, &events), 0);
	ask_for(gate, 1ULL << SLUICE_REASON_SYN_COOKIE, "192.0.2.7", ~0U, time_mono_ns() + SOON_NS);
	syn_from(gate, "192.0.2.6");
	syn_from(gate, "192.0.2.7");
	syn_from(gate, "2001:db8::7");
	assert_int_equal(drain(gate, &events), 1);
	assert_int_equal(events.all[0].source.lo & 0xffffffff, 0xc0000207);
}

static void a_sample_is_about_the_part_asked_for(void **state)
{
	enum { PACKETS = 4000 };
	struct gate *gate = *state;
	struct events events;

	ask_for(gate, ALL, NULL, ~0U / 8, time_mono_ns() + SOON_NS);
	for (int i = 0; i < PACKETS; i++)
		syn_from(gate, "192.0.2.1");
	drain(gate, &events);
	/* Binomial, 500 expected, deviation 21: ten deviations to each side. */
	assert_in_range(events.count, 290, 710);
	assert_int_equal(events.all[0].threshold, ~0U / 8);
}

static void a_refusal_that_could_not_be_answered_is_shown_as_it_is_counted(void **state)
{
	struct gate *gate = *state;
	struct sluice_answer_bytes none = {0};
	__u32 spare = SLUICE_ANSWER_COUNT + SLUICE_ANSWER_TOKEN_INVALID;
	char text[SLUICE_TOKEN_TEXT + 1], request[512];
	struct frame frame = frame_syn(false);
	struct events events;
	struct run run;

	memset(text, 'A', SLUICE_TOKEN_TEXT);
	text[SLUICE_TOKEN_TEXT] = '\0';
	assert_int_equal(bpf_map_update_elem(bpf_map__fd(gate->skel->maps.answers), &spare, &none, 0), 0);
	gate->control->answer_banks = 1u << SLUICE_ANSWER_TOKEN_INVALID;
	ask_for(gate, ALL, NULL, ~0U, time_mono_ns() + SOON_NS);
	frame.sport = 42002;
	assert_int_equal(gate_handshake(gate, &frame, request, gate_order_request(text, request, sizeof(request))), 0);
	drain(gate, &events);
	gate_run_frame(gate, &frame, &run);
	expect_reason(&run, SLUICE_REASON_ANSWER_FAILED, "an answer that is not there");
	assert_int_equal(drain(gate, &events), 1);
	assert_int_equal(events.all[0].reason, SLUICE_REASON_ANSWER_FAILED);
	assert_int_equal(events.all[0].shadow, 0);

	/* In shadow nothing is answered, so nothing fails: shown is what would have been refused. */
	gate->control->flags |= SLUICE_CONTROL_SHADOW_ALL;
	gate_run_frame(gate, &frame, &run);
	expect_reason(&run, SLUICE_REASON_SHADOWED, "in shadow");
	assert_int_equal(drain(gate, &events), 1);
	assert_int_equal(events.all[0].reason, SLUICE_REASON_TOKEN_FORM);
	assert_int_equal(events.all[0].shadow, 1);
}

static void a_full_ring_loses_events_and_nothing_else(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(6, 6);
	char text[SLUICE_TOKEN_TEXT + 1];
	struct events events;
	struct run run;

	ask_for(gate, ALL, NULL, ~0U, time_mono_ns() + SOON_NS);
	for (int i = 0; i < 6000; i++) /* 56 bytes each into 256 KiB */
		syn_from(gate, "192.0.2.1");
	gate_token_text(gate, &token, text);
	gate_order(gate, false, 42001, text, &run);
	expect_reason(&run, SLUICE_REASON_ADMITTED, "an order while the ring is full");
	assert_in_range(drain(gate, &events), 4000, 6000);
	assert_true(gate_is_conserved(gate, 10));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		gate_test(nothing_is_shown_to_nobody),
		gate_test(an_order_is_shown_with_source_sale_and_door),
		gate_test(reasons_and_sources_are_chosen_in_the_gate),
		gate_test(a_sample_is_about_the_part_asked_for),
		gate_test(a_refusal_that_could_not_be_answered_is_shown_as_it_is_counted),
		gate_test(a_full_ring_loses_events_and_nothing_else),
	};

	return cmocka_run_group_tests_name("watch", tests, setup_gate, close_gate);
}
