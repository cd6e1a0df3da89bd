/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Shadow mode: what would be refused is counted and goes on, limit by limit and for the whole gate. And revoked tokens, which no
 * shadow lets pass.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "common/addr.h"
#include "common/lists.h"
#include "expect.h"
#include "gate.skel.h"

#define HOUR_NS 3600000000000ULL
#define WIRE_PORT 40000

static uint64_t in_shadow(struct gate *gate, int reason)
{
	int cpus = libbpf_num_possible_cpus();
	__u64 values[256] = {0}, sum = 0;
	__u32 row = reason;

	assert_in_range(cpus, 1, 256);
	assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(gate->skel->maps.shadow), &row, values), 0);
	for (int cpu = 0; cpu < cpus; cpu++)
		sum += values[cpu];
	return sum;
}

static void order(struct gate *gate, uint64_t buyer, struct run *run)
{
	static uint16_t port = WIRE_PORT;
	struct sluice_token token = gate_token(buyer, buyer);
	char text[SLUICE_TOKEN_TEXT + 1];

	gate_token_text(gate, &token, text);
	gate_order(gate, buyer & 1, ++port, text, run);
}

static void call(struct gate *gate, uint64_t buyer, uint32_t flags, struct sluice_call *call)
{
	struct sluice_token token = gate_token(buyer, buyer);
	char text[SLUICE_TOKEN_TEXT + 1];

	*call = (struct sluice_call){.op = SLUICE_CALL_ORDER, .flags = flags, .source = {.lo = 0xffffc0000201ULL}};
	gate_token_text(gate, &token, text);
	memcpy(call->token, text, SLUICE_TOKEN_TEXT);
	gate_call(gate, call);
}

/* The sources that frame_syn gives, and that of call(). */
static void deny_or_not(struct gate *gate, bool deny)
{
	static const char *const prefixes[] = {"192.0.2.0/24", "2001:db8::/32"};
	struct lists *lists = lists_open(bpf_map__fd(gate->skel->maps.lists), bpf_map__fd(gate->skel->maps.list_index),
		bpf_map__fd(gate->skel->maps.denials));

	assert_non_null(lists);
	for (int i = 0; i < 2; i++) {
		struct sluice_addr addr;
		unsigned length;

		assert_int_equal(prefix_parse(prefixes[i], &addr, &length), 0);
		if (deny)
			assert_int_equal(lists_put(lists, SLUICE_LIST_DENY, &addr, length, 0, "test"), 0);
		else
			assert_int_equal(lists_remove(lists, SLUICE_LIST_DENY, &addr, length), 0);
	}
	lists_close(lists);
}

static void a_rate_in_shadow_counts_and_lets_pass(void **state)
{
	static const struct {
		enum sluice_limit_id id;
		int reason;
	} limits[] = {
		{SLUICE_LIMIT_SOURCE, SLUICE_REASON_RATE_SOURCE},
		{SLUICE_LIMIT_PREFIX, SLUICE_REASON_RATE_PREFIX},
	};
	struct gate *gate = *state;
	struct run run;

	for (unsigned i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		uint64_t before = in_shadow(gate, limits[i].reason);

		gate_reset(gate);
		gate_limit(gate, limits[i].id, HOUR_NS, 1);
		gate->control->flags |= SLUICE_CONTROL_SHADOW_LIMIT(limits[i].id);
		order(gate, 1, &run);
		expect_reason(&run, SLUICE_REASON_ADMITTED, "the first");
		order(gate, 3, &run);
		expect_reason(&run, SLUICE_REASON_ADMITTED, "over the rate, in shadow");
		assert_int_equal(in_shadow(gate, limits[i].reason), before + 1);
		gate->control->flags &= ~SLUICE_CONTROL_SHADOW_LIMIT(limits[i].id);
		order(gate, 5, &run);
		expect_reason(&run, limits[i].reason, "over the rate, for real");
		assert_int_equal(in_shadow(gate, limits[i].reason), before + 1);
	}
}

static void one_limit_in_shadow_leaves_the_others_in_force(void **state)
{
	struct gate *gate = *state;
	struct run run;

	gate_limit(gate, SLUICE_LIMIT_SOURCE, HOUR_NS, 1);
	gate_limit(gate, SLUICE_LIMIT_PREFIX, HOUR_NS, 1);
	gate->control->flags |= SLUICE_CONTROL_SHADOW_LIMIT(SLUICE_LIMIT_SOURCE);
	order(gate, 1, &run);
	expect_reason(&run, SLUICE_REASON_ADMITTED, "the first");
	order(gate, 3, &run);
	expect_reason(&run, SLUICE_REASON_RATE_PREFIX, "over both rates, one in shadow");
}

static void a_syn_budget_in_shadow_still_makes_cookies(void **state)
{
	struct gate *gate = *state;
	struct run run;

	gate_limit(gate, SLUICE_LIMIT_SYN_PREFIX, HOUR_NS, 1);
	gate_limit(gate, SLUICE_LIMIT_SYN_GLOBAL, HOUR_NS, 1);
	gate->control->flags |= SLUICE_CONTROL_SHADOW_LIMIT(SLUICE_LIMIT_SYN_PREFIX) |
		SLUICE_CONTROL_SHADOW_LIMIT(SLUICE_LIMIT_SYN_GLOBAL);
	for (int i = 1; i <= 5; i += 2) {
		order(gate, i, &run);
		expect_reason(&run, SLUICE_REASON_ADMITTED, "order %d", i);
	}
	assert_in_range(in_shadow(gate, SLUICE_REASON_SYN_GLOBAL), 2, 2);
	assert_in_range(in_shadow(gate, SLUICE_REASON_SYN_PREFIX), 2, 2);
}

static void token_rate_pace_and_answers_have_a_shadow_too(void **state)
{
	struct gate *gate = *state;
	struct run run;

	gate->sales[GATE_SALE].pace.interval_ns = HOUR_NS;
	gate->control->flags |= SLUICE_CONTROL_SHADOW_PACE;
	order(gate, 1, &run);
	expect_reason(&run, SLUICE_REASON_ADMITTED, "the first");
	order(gate, 2, &run);
	expect_reason(&run, SLUICE_REASON_ADMITTED, "over the pace, in shadow");
	assert_int_equal(in_shadow(gate, SLUICE_REASON_PACE), 1);

	gate->control->flags &= ~SLUICE_CONTROL_SHADOW_PACE;
	gate_limit(gate, SLUICE_LIMIT_TOKEN, HOUR_NS, 1);
	for (int i = 0; i < 2; i++) /* the refusals charge the token */
		order(gate, 3, &run);
	expect_reason(&run, SLUICE_REASON_RATE_TOKEN, "over the token's rate");
	gate->control->flags |= SLUICE_CONTROL_SHADOW_LIMIT(SLUICE_LIMIT_TOKEN);
	order(gate, 3, &run);
	expect_reason(&run, SLUICE_REASON_PACE, "over the token's rate, in shadow");
	assert_int_equal(in_shadow(gate, SLUICE_REASON_RATE_TOKEN), 1);

	gate_limit(gate, SLUICE_LIMIT_SOURCE, HOUR_NS, 1);
	gate_limit(gate, SLUICE_LIMIT_ANSWER, HOUR_NS, 1);
	gate->control->flags |= SLUICE_CONTROL_SHADOW_LIMIT(SLUICE_LIMIT_ANSWER);
	for (int i = 0; i < 4; i++)
		order(gate, 3, &run);
	expect_reason(&run, SLUICE_REASON_RATE_SOURCE, "an answer beyond their budget, in shadow");
	assert_int_equal(in_shadow(gate, SLUICE_REASON_RATE_DROP), 2);
}

static void a_deny_list_in_shadow_counts_and_lets_pass(void **state)
{
	struct gate *gate = *state;
	struct sluice_call asked;
	struct run run;

	deny_or_not(gate, true);
	gate->control->flags |= SLUICE_CONTROL_SHADOW_DENY;
	order(gate, 1, &run);
	expect_reason(&run, SLUICE_REASON_ADMITTED, "denied, in shadow, IPv6");
	order(gate, 2, &run);
	expect_reason(&run, SLUICE_REASON_ADMITTED, "denied, in shadow, IPv4");
	assert_int_equal(in_shadow(gate, SLUICE_REASON_DENIED), 4); /* of each, the SYN and the order */
	call(gate, 3, 0, &asked);
	assert_int_equal(asked.reason, SLUICE_REASON_ADMITTED);
	gate->control->flags &= ~SLUICE_CONTROL_SHADOW_DENY;
	call(gate, 4, 0, &asked);
	assert_int_equal(asked.reason, SLUICE_REASON_DENIED);
	deny_or_not(gate, false);
}

/* In whole shadow mode a frame goes up as it came: no handshake of ours, so the test gives cookies out before it begins. */
static void the_whole_gate_in_shadow_sends_every_frame_up(void **state)
{
	struct gate *gate = *state;
	struct frame frame = frame_syn(false), first;
	struct sluice_token token = gate_token(9, 9);
	char text[SLUICE_TOKEN_TEXT + 1], request[256];
	uint64_t judged = in_shadow(gate, SLUICE_REASON_ADMITTED), refused = in_shadow(gate, SLUICE_REASON_SOLD_OUT);
	struct sluice_call asked;
	struct run run;

	gate_token_text(gate, &token, text);
	first = frame;
	assert_int_equal(gate_handshake(gate, &first, request, gate_order_request(text, request, sizeof(request))), 0);

	gate->control->flags |= SLUICE_CONTROL_SHADOW_ALL;
	gate_run_frame(gate, &frame, &run);
	expect_reason(&run, SLUICE_REASON_SHADOWED, "SYN");
	gate_run_frame(gate, &first, &run);
	expect_reason(&run, SLUICE_REASON_SHADOWED, "an order that would win");
	assert_int_equal(in_shadow(gate, SLUICE_REASON_ADMITTED), judged + 1);
	assert_int_equal(gate->stock[GATE_SALE].free, 10);
	assert_int_equal(gate_map_count(bpf_map__fd(gate->skel->maps.admissions), 8), 0);

	gate->stock[GATE_SALE].free = 0;
	gate_run_frame(gate, &first, &run);
	expect_reason(&run, SLUICE_REASON_SHADOWED, "an order that would lose");
	assert_int_equal(in_shadow(gate, SLUICE_REASON_SOLD_OUT), refused + 1);
	call(gate, 9, 0, &asked);
	assert_int_equal(asked.reason, SLUICE_REASON_SOLD_OUT); /* stock is no limit: the call door holds it as ever */

	gate->stock[GATE_SALE].free = 10;
	gate_limit(gate, SLUICE_LIMIT_SOURCE, HOUR_NS, 1);
	for (uint64_t buyer = 10; buyer < 13; buyer++) {
		call(gate, buyer, SLUICE_CALL_CHARGE, &asked);
		assert_int_equal(asked.reason, SLUICE_REASON_ADMITTED);
	}
	assert_true(gate_is_conserved(gate, 10));
}

static void a_gate_that_only_looks_knows_who_has_used_up_his_limit(void **state)
{
	struct gate *gate = *state;
	static const struct {
		uint64_t buyer;
		uint32_t per_buyer;
		enum sluice_reason would_be;
	} orders[] = {{9, 1, SLUICE_REASON_BUYER_LIMIT}, {8, 1, SLUICE_REASON_ADMITTED}, {9, 2, SLUICE_REASON_ADMITTED},
		{9, 1, SLUICE_REASON_BUYER_LIMIT}};
	struct sluice_call asked;

	call(gate, 9, 0, &asked);
	assert_int_equal(asked.reason, SLUICE_REASON_ADMITTED);
	for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
		struct sluice_token token = gate_token(100 + i, orders[i].buyer);
		uint64_t before = in_shadow(gate, orders[i].would_be);
		char text[SLUICE_TOKEN_TEXT + 1], request[256];
		struct frame frame = frame_syn(false);
		struct run run;

		frame.sport = (uint16_t)(WIRE_PORT + i);
		gate->control->flags &= ~SLUICE_CONTROL_SHADOW_ALL;
		gate_token_text(gate, &token, text);
		assert_int_equal(
			gate_handshake(gate, &frame, request, gate_order_request(text, request, sizeof(request))), 0);
		gate->control->flags |= SLUICE_CONTROL_SHADOW_ALL;
		gate->sales[GATE_SALE].per_buyer = orders[i].per_buyer;
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_SHADOWED, "only looked at");
		assert_int_equal(in_shadow(gate, orders[i].would_be), before + 1);
	}
	assert_int_equal(gate_map_count(bpf_map__fd(gate->skel->maps.buyers), sizeof(struct sluice_buyer_key)), 1);
	assert_true(gate_is_conserved(gate, 10));
}

static void a_revoked_token_is_refused_at_both_doors(void **state)
{
	struct gate *gate = *state;
	struct sluice_admission revoked = {
		.serial = 4, .buyer = 4, .sale = GATE_SALE, .state = SLUICE_ADMISSION_REVOKED};
	struct sluice_call asked;
	struct run run;

	assert_int_equal(
		bpf_map_update_elem(bpf_map__fd(gate->skel->maps.admissions), &revoked.serial, &revoked, BPF_NOEXIST),
		0);
	gate->control->flags |= SLUICE_CONTROL_SHADOW_DENY | SLUICE_CONTROL_SHADOW_PACE | 0xff00;
	order(gate, 4, &run);
	expect_reason(&run, SLUICE_REASON_TOKEN_REVOKED, "a revoked token");
	expect_http(run.parsed.payload, run.parsed.payload_len, SLUICE_ANSWER_TOKEN_INVALID, -1);
	call(gate, 4, 0, &asked);
	assert_int_equal(asked.reason, SLUICE_REASON_TOKEN_REVOKED);
	order(gate, 6, &run);
	expect_reason(&run, SLUICE_REASON_ADMITTED, "another token");
	assert_int_equal(gate->stock[GATE_SALE].free, 9);
}

static void tokens_issued_before_a_time_are_revoked_and_admitted_ones_are_not(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(2, 2);
	struct run run;

	order(gate, 2, &run);
	expect_reason(&run, SLUICE_REASON_ADMITTED, "before");
	gate->sales[GATE_SALE].not_before_s = token.issued_at_s + 1;
	order(gate, 2, &run);
	expect_reason(&run, SLUICE_REASON_ADMITTED_AGAIN, "a yes is never taken back");
	order(gate, 4, &run);
	expect_reason(&run, SLUICE_REASON_TOKEN_REVOKED, "issued a second too early");
	gate->sales[GATE_SALE].not_before_s = token.issued_at_s;
	order(gate, 4, &run);
	expect_reason(&run, SLUICE_REASON_ADMITTED, "issued in that very second");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		gate_test(a_rate_in_shadow_counts_and_lets_pass),
		gate_test(one_limit_in_shadow_leaves_the_others_in_force),
		gate_test(a_syn_budget_in_shadow_still_makes_cookies),
		gate_test(token_rate_pace_and_answers_have_a_shadow_too),
		gate_test(a_deny_list_in_shadow_counts_and_lets_pass),
		gate_test(the_whole_gate_in_shadow_sends_every_frame_up),
		gate_test(a_gate_that_only_looks_knows_who_has_used_up_his_limit),
		gate_test(a_revoked_token_is_refused_at_both_doors),
		gate_test(tokens_issued_before_a_time_are_revoked_and_admitted_ones_are_not),
	};

	return cmocka_run_group_tests_name("shadow", tests, setup_gate, close_gate);
}
