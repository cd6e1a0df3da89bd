/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The answers as the buyer's stack and browser see them: every code, every way a frame can make room, every number in them. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "common/timefmt.h"
#include "expect.h"
#include "gate.skel.h"

#define SECOND_NS 1000000000ULL
#define HOUR_NS (3600 * SECOND_NS)
#define TOKEN_AT 16 /* behind "POST /v1/orders/" */
#define LONG_REQUEST 900
#define DRIVER_ROOM 200 /* head room that XDP leaves at least, less what frames keep there */

/* What makes the gate give an answer: the code, its Retry-After, and the state and the token that lead to it. */
struct cause {
	enum sluice_answer code;
	int retry_s;
	void (*make)(struct gate *gate, struct sluice_token *token);
	bool spoil; /* the token's text */
};

static void as_it_is(struct gate *gate, struct sluice_token *token)
{
	(void)gate;
	(void)token;
}

static void expired(struct gate *gate, struct sluice_token *token)
{
	(void)gate;
	token->expires_at_s = token->issued_at_s;
}

static void from_elsewhere(struct gate *gate, struct sluice_token *token)
{
	(void)gate;
	token->network = 12345;
}

static void for_another_sale(struct gate *gate, struct sluice_token *token)
{
	(void)gate;
	token->sale = 8;
}

static void before_the_opening(struct gate *gate, struct sluice_token *token)
{
	(void)token;
	gate->sales[GATE_SALE].opens_wall = time_wall_ns() + 90 * SECOND_NS;
}

static void sold_out(struct gate *gate, struct sluice_token *token)
{
	(void)token;
	gate->stock[GATE_SALE].free = 0;
}

static void ordered_before(struct gate *gate, struct sluice_token *token)
{
	struct sluice_buyer_key key = {.buyer = token->buyer, .sale = token->sale};
	struct sluice_buyer buyer = {.units = 1};

	assert_int_equal(bpf_map_update_elem(bpf_map__fd(gate->skel->maps.buyers), &key, &buyer, 0), 0);
}

static void ended(struct gate *gate, struct sluice_token *token)
{
	(void)token;
	gate->sales[GATE_SALE].flags = SLUICE_SALE_ENDED;
}

static void over_the_pace(struct gate *gate, struct sluice_token *token)
{
	(void)token;
	gate->sales[GATE_SALE].pace = (struct sluice_limit){.interval_ns = 3 * SECOND_NS};
	gate->stock[GATE_SALE].pace_tat = time_mono_ns() + 42 * SECOND_NS;
}

static void paused(struct gate *gate, struct sluice_token *token)
{
	(void)token;
	gate->sales[GATE_SALE].flags = SLUICE_SALE_PAUSED;
}

static void without_daemon(struct gate *gate, struct sluice_token *token)
{
	(void)token;
	gate->control->heartbeat_mono = time_mono_ns() - 10 * SECOND_NS;
}

static void of_another_node(struct gate *gate, struct sluice_token *token)
{
	gate->control->node = 1;
	token->node = 2;
}

static const struct cause causes[] = {
	{SLUICE_ANSWER_TOKEN_INVALID, -1, as_it_is, true},
	{SLUICE_ANSWER_TOKEN_EXPIRED, -1, expired, false},
	{SLUICE_ANSWER_WRONG_NETWORK, -1, from_elsewhere, false},
	{SLUICE_ANSWER_UNKNOWN_SALE, -1, for_another_sale, false},
	{SLUICE_ANSWER_SALE_NOT_OPEN, 90, before_the_opening, false},
	{SLUICE_ANSWER_SOLD_OUT, -1, sold_out, false},
	{SLUICE_ANSWER_ALREADY_ORDERED, -1, ordered_before, false},
	{SLUICE_ANSWER_SALE_ENDED, -1, ended, false},
	{SLUICE_ANSWER_WRONG_NODE, -1, of_another_node, false},
	{SLUICE_ANSWER_RATE_LIMITED, 42, over_the_pace, false},
	{SLUICE_ANSWER_PAUSED, 5, paused, false},
	{SLUICE_ANSWER_UNAVAILABLE, 2, without_daemon, false},
};

#define CAUSES (sizeof(causes) / sizeof(causes[0]))

static const struct cause *cause_of(enum sluice_answer code)
{
	const struct cause *cause = causes;

	while (cause->code != code)
		cause++;
	return cause;
}

static uint16_t next_port(void)
{
	static uint16_t port = 10000;

	return port++;
}

/* The first segment of an order that `cause` refuses, with a good cookie; the request is `length` bytes long. */
static struct frame order_frame(struct gate *gate, const struct cause *cause, bool ip6, int vlans, unsigned length)
{
	static char request[FRAME_MAX];
	static uint64_t serial;
	struct frame frame = frame_syn(ip6);
	struct sluice_token token;
	char text[SLUICE_TOKEN_TEXT + 1];
	unsigned plain;

	gate_reset(gate);
	serial++;
	token = gate_token(serial, serial);
	cause->make(gate, &token);
	gate_token_text(gate, &token, text);
	plain = gate_order_request(text, request, sizeof(request));
	if (cause->spoil)
		request[TOKEN_AT + 5] = '!';
	if (length > plain)
		memset(request + plain, 'x', length - plain);
	frame.vlans = vlans;
	frame.sport = next_port();
	assert_int_equal(gate_handshake(gate, &frame, request, length ? length : plain), 0);
	return frame;
}

/* --- codes ---------------------------------------------------------------------------------------------------------------- */
static void every_answer_is_complete_over_every_network(void **state)
{
	struct gate *gate = *state;
	bool seen[SLUICE_ANSWER_COUNT] = {0};
	struct frame frame;
	struct run run;

	for (unsigned i = 0; i < CAUSES; i++) {
		seen[causes[i].code] = true;
		for (int net = 0; net < 6; net++) {
			frame = order_frame(gate, &causes[i], net & 1, net / 2, 0);
			gate_run_frame(gate, &frame, &run);
			expect_sound(&run, answer_code(causes[i].code));
			expect_answer(&run, &frame, causes[i].code, causes[i].retry_s);
		}
	}
	for (int code = SLUICE_ANSWER_NONE + 1; code < SLUICE_ANSWER_COUNT; code++)
		expect(seen[code], "%s was never asked for", answer_code(code));
}

static void a_request_that_brings_its_fin_has_it_acknowledged(void **state)
{
	struct gate *gate = *state;
	struct frame frame;
	struct run run;

	for (unsigned i = 0; i < CAUSES; i++) {
		for (int ip6 = 0; ip6 < 2; ip6++) {
			frame = order_frame(gate, &causes[i], ip6, 0, 0);
			frame.flags |= F_FIN;
			gate_run_frame(gate, &frame, &run);
			expect_answer(&run, &frame, causes[i].code, causes[i].retry_s);
			assert_int_equal(run.parsed.ack, frame.seq + frame.payload_len + 1);
		}
	}
}

static void options_of_the_request_are_not_in_the_answer(void **state)
{
	struct gate *gate = *state;
	struct frame frame;
	struct run run;

	for (unsigned options = 0; options <= 40; options += 4) {
		frame = order_frame(gate, cause_of(SLUICE_ANSWER_TOKEN_INVALID), options & 4, options % 3, 0);
		frame.tcp_option_bytes = options;
		frame.ip_option_words = options / 4;
		frame.ip6_extensions = options / 5;
		gate_run_frame(gate, &frame, &run);
		expect_answer(&run, &frame, SLUICE_ANSWER_TOKEN_INVALID, -1);
	}
}

static void an_answer_may_cross_the_end_of_the_sequence_space(void **state)
{
	struct gate *gate = *state;
	struct frame frame = frame_syn(false);
	static const char request[] = "GET / HTTP/1.0\r\n\r\n";
	struct run run;

	gate_limit(gate, SLUICE_LIMIT_SOURCE, HOUR_NS, 1);
	for (int i = 0; i < 2; i++) {
		frame.sport = next_port();
		frame.seq = 0xfffffff8;
		assert_int_equal(gate_handshake(gate, &frame, request, sizeof(request) - 1), 0);
		gate_run_frame(gate, &frame, &run);
	}
	expect_answer(&run, &frame, SLUICE_ANSWER_RATE_LIMITED, 3600);
	assert_int_equal(run.parsed.ack, (uint32_t)(0xfffffff8 + sizeof(request)));
}

/* --- Retry-After ---------------------------------------------------------------------------------------------------------- */
static void retry_after_tells_the_seconds_to_the_opening(void **state)
{
	static const unsigned seconds[] = {
		1, 2, 9, 10, 59, 99, 100, 101, 999, 1000, 3600, 9998, 9999, 10000, 86400, 315360000};
	struct gate *gate = *state;
	struct frame frame;
	struct run run;

	for (unsigned i = 0; i < sizeof(seconds) / sizeof(seconds[0]); i++) {
		unsigned wanted = seconds[i] > SLUICE_RETRY_MAX_S ? SLUICE_RETRY_MAX_S : seconds[i];

		frame = order_frame(gate, cause_of(SLUICE_ANSWER_SALE_NOT_OPEN), i & 1, i % 3, 0);
		gate->sales[GATE_SALE].opens_wall = time_wall_ns() + seconds[i] * SECOND_NS;
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_NOT_OPEN, "opens in %u s", seconds[i]);
		expect_answer(&run, &frame, SLUICE_ANSWER_SALE_NOT_OPEN, wanted);
	}
	/* The farthest a word can say. */
	frame = order_frame(gate, cause_of(SLUICE_ANSWER_SALE_NOT_OPEN), false, 0, 0);
	gate->sales[GATE_SALE].opens_wall = gate->sales[GATE_SALE].ends_wall = ~0ULL;
	gate_run_frame(gate, &frame, &run);
	expect_answer(&run, &frame, SLUICE_ANSWER_SALE_NOT_OPEN, 9999);
	/* And a part of a second counts as a whole one. */
	frame = order_frame(gate, cause_of(SLUICE_ANSWER_SALE_NOT_OPEN), false, 0, 0);
	gate->sales[GATE_SALE].opens_wall = time_wall_ns() + SECOND_NS / 2;
	gate_run_frame(gate, &frame, &run);
	expect_answer(&run, &frame, SLUICE_ANSWER_SALE_NOT_OPEN, 1);
}

/* --- room ----------------------------------------------------------------------------------------------------------------- */
static void read_answer(struct gate *gate, unsigned row, struct sluice_answer_bytes *answer)
{
	assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(gate->skel->maps.answers), &row, answer), 0);
}

static void write_answer(struct gate *gate, unsigned row, const struct sluice_answer_bytes *answer)
{
	assert_int_equal(bpf_map_update_elem(bpf_map__fd(gate->skel->maps.answers), &row, answer, 0), 0);
}

/* Sum of 16-bit words as abi.h wants it. */
static uint32_t sum_of(const uint8_t *bytes, unsigned length)
{
	uint32_t sum = 0;

	for (unsigned i = 0; i < length; i += 2)
		sum += bytes[i] << 8 | bytes[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* An operator's answer of `length` bytes with Retry-After; text as far as it matters here. */
static struct sluice_answer_bytes long_answer(unsigned length)
{
	static const char head[] = "HTTP/1.1 410 Gone\r\nRetry-After: 0000\r\nX: ";
	struct sluice_answer_bytes answer = {.len = length, .retry_at = 32};

	memset(answer.bytes, 'y', length);
	memcpy(answer.bytes, head, sizeof(head) - 1);
	assert_memory_equal(answer.bytes + answer.retry_at, "0000", 4);
	answer.sum = sum_of(answer.bytes, length);
	answer.short_len = 20;
	memcpy(answer.short_bytes, "HTTP/1.1 410 Gone\r\n\r", 20);
	answer.short_sum = sum_of(answer.short_bytes, 20);
	return answer;
}

static void a_request_longer_than_its_answer_shrinks_without_any_room(void **state)
{
	struct gate *gate = *state;
	struct frame frame;
	struct run run;

	for (unsigned i = 0; i < CAUSES; i++) {
		for (int net = 0; net < 6; net++) {
			frame = order_frame(gate, &causes[i], net & 1, net / 2, LONG_REQUEST);
			gate->control->grow = 0;
			gate_run_frame(gate, &frame, &run);
			expect_answer(&run, &frame, causes[i].code, causes[i].retry_s);
		}
	}
}

static void a_frame_grows_at_whichever_end_the_driver_allows(void **state)
{
	static const unsigned ends[] = {SLUICE_GROW_HEAD, SLUICE_GROW_TAIL, SLUICE_GROW_HEAD | SLUICE_GROW_TAIL};
	struct gate *gate = *state;
	struct sluice_answer_bytes answer;
	struct frame frame;
	struct run run;

	for (unsigned i = 0; i < CAUSES * 6 * 3; i++) {
		const struct cause *cause = &causes[i % CAUSES];
		int net = i / CAUSES % 6;

		read_answer(gate, cause->code, &answer);
		frame = order_frame(gate, cause, net & 1, net / 2, 0);
		expect(answer.len > frame.payload_len, "%s needs no growth", answer_code(cause->code));
		expect(answer.len - frame.payload_len <= DRIVER_ROOM, "%s needs more room than drivers have",
			answer_code(cause->code));
		gate->control->grow = ends[i / CAUSES / 6];
		gate_run_frame(gate, &frame, &run);
		expect_answer(&run, &frame, cause->code, cause->retry_s);
	}
}

static void a_frame_that_cannot_grow_carries_the_short_form(void **state)
{
	struct gate *gate = *state;
	char text[SLUICE_ANSWER_SHORT_MAX + 1], wanted[64], value[128];
	struct frame frame;
	struct run run;

	for (unsigned i = 0; i < CAUSES; i++) {
		for (int net = 0; net < 6; net++) {
			frame = order_frame(gate, &causes[i], net & 1, net / 2, 0);
			gate->control->grow = 0;
			gate_run_frame(gate, &frame, &run);
			expect_sound(&run, "short form");
			expect_way_back(&run, &frame);
			expect_acknowledges(&run, &frame);
			assert_int_equal(run.parsed.flags, F_FIN | F_PSH | F_ACK);
			assert_int_equal(run.parsed.seq, frame.ack);
			assert_in_range(run.parsed.payload_len, 1, SLUICE_ANSWER_SHORT_MAX);
			memcpy(text, run.parsed.payload, run.parsed.payload_len);
			text[run.parsed.payload_len] = '\0';
			snprintf(wanted, sizeof(wanted), "HTTP/1.1 %d ", answer_status(causes[i].code));
			expect(!strncmp(text, wanted, strlen(wanted)), "%s: %s", answer_code(causes[i].code), text);
			assert_string_equal(http_header(text, "Content-Length", value), "0");
			assert_string_equal(http_header(text, "Connection", value), "close");
			assert_string_equal(text + strlen(text) - 4, "\r\n\r\n");
		}
	}
}

static void a_frame_with_a_little_room_carries_the_short_form_too(void **state)
{
	static const char request[] = "GET / HTTP/1.0\r\n\r\n";
	struct gate *gate = *state;
	struct sluice_answer_bytes answer = long_answer(SLUICE_ANSWER_MAX), before;
	struct frame frame;
	struct run run;

	read_answer(gate, SLUICE_ANSWER_RATE_LIMITED, &before);
	answer.short_len = before.short_len;
	answer.short_sum = before.short_sum;
	memcpy(answer.short_bytes, before.short_bytes, sizeof(answer.short_bytes));
	write_answer(gate, SLUICE_ANSWER_RATE_LIMITED, &answer);
	assert_true(answer.short_len > sizeof(request));
	gate_limit(gate, SLUICE_LIMIT_SOURCE, HOUR_NS, 1);
	gate->control->grow = SLUICE_GROW_HEAD;
	for (int i = 0; i < 2; i++) {
		frame = frame_syn(false);
		frame.sport = next_port();
		assert_int_equal(gate_handshake(gate, &frame, request, sizeof(request) - 1), 0);
		gate_run_frame(gate, &frame, &run);
	}
	expect_reason(&run, SLUICE_REASON_RATE_SOURCE, "short request, long answer");
	expect_way_back(&run, &frame);
	expect_acknowledges(&run, &frame);
	assert_int_equal(run.parsed.payload_len, answer.short_len);
	assert_memory_equal(run.parsed.payload, answer.short_bytes, answer.short_len);
}

static void without_room_for_the_short_form_the_answer_fails_and_is_counted(void **state)
{
	struct gate *gate = *state;
	struct frame frame;
	struct run run;

	gate_limit(gate, SLUICE_LIMIT_SOURCE, HOUR_NS, 1);
	gate->control->grow = 0;
	for (int i = 0; i < 2; i++) {
		frame = frame_syn(i);
		frame.sport = next_port();
		assert_int_equal(gate_handshake(gate, &frame, "x", 1), 0);
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_REQUEST, "first");
		frame = frame_syn(i);
		frame.sport = next_port();
		assert_int_equal(gate_handshake(gate, &frame, "x", 1), 0);
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_ANSWER_FAILED, "second");
		assert_true(run.untouched);
	}
}

/* --- the operator's answers ----------------------------------------------------------------------------------------------- */
static void an_answer_of_a_thousand_bytes_goes_out_whole(void **state)
{
	struct gate *gate = *state;
	struct sluice_answer_bytes answer;
	struct frame frame;
	struct run run;

	for (unsigned length = 100; length <= SLUICE_ANSWER_MAX; length += 100) {
		for (int net = 0; net < 6; net++) {
			frame = order_frame(gate, cause_of(SLUICE_ANSWER_SALE_NOT_OPEN), net & 1, net / 2,
				0); /* before the opening: 90 */
			answer = long_answer(length);
			write_answer(gate, SLUICE_ANSWER_SALE_NOT_OPEN, &answer);
			gate_run_frame(gate, &frame, &run);
			expect_reason(&run, SLUICE_REASON_NOT_OPEN, "%u bytes", length);
			expect_way_back(&run, &frame);
			assert_int_equal(run.parsed.payload_len, length);
			memcpy(answer.bytes + answer.retry_at, "0090", 4);
			assert_memory_equal(run.parsed.payload, answer.bytes, length);
		}
	}
}

static void each_code_switches_its_bank_alone(void **state)
{
	struct gate *gate = *state;
	struct sluice_answer_bytes answer = long_answer(400);
	struct frame frame;
	struct run run;

	write_answer(gate, SLUICE_ANSWER_COUNT + SLUICE_ANSWER_SOLD_OUT, &answer);
	for (int i = 0; i < 6; i++) {
		bool second = i & 1;

		frame = order_frame(gate, cause_of(SLUICE_ANSWER_SOLD_OUT), false, 0, 0);
		gate->control->answer_banks = second ? 1u << SLUICE_ANSWER_SOLD_OUT : 0;
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_SOLD_OUT, "bank %d", second);
		if (second)
			assert_int_equal(run.parsed.payload_len, 400);
		else
			expect_answer(&run, &frame, SLUICE_ANSWER_SOLD_OUT, -1);
		frame = order_frame(gate, cause_of(SLUICE_ANSWER_SALE_ENDED), false, 0, 0);
		gate->control->answer_banks = second ? 1u << SLUICE_ANSWER_SOLD_OUT : 0;
		gate_run_frame(gate, &frame, &run);
		expect_answer(&run, &frame, SLUICE_ANSWER_SALE_ENDED, -1);
	}
}

static void an_answer_that_is_not_there_is_never_sent(void **state)
{
	struct gate *gate = *state;
	struct sluice_answer_bytes answer;
	struct frame frame;
	struct run run;

	frame = order_frame(gate, cause_of(SLUICE_ANSWER_SOLD_OUT), false, 0, 0);
	memset(&answer, 0, sizeof(answer));
	write_answer(gate, SLUICE_ANSWER_COUNT + SLUICE_ANSWER_SOLD_OUT, &answer);
	gate->control->answer_banks = 1u << SLUICE_ANSWER_SOLD_OUT;
	gate_run_frame(gate, &frame, &run);
	expect_reason(&run, SLUICE_REASON_ANSWER_FAILED, "an empty bank");
	answer.len = SLUICE_ANSWER_MAX + 2;
	write_answer(gate, SLUICE_ANSWER_COUNT + SLUICE_ANSWER_SOLD_OUT, &answer);
	gate_run_frame(gate, &frame, &run);
	expect_reason(&run, SLUICE_REASON_ANSWER_FAILED, "a length that cannot be");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		gate_test(every_answer_is_complete_over_every_network),
		gate_test(a_request_that_brings_its_fin_has_it_acknowledged),
		gate_test(options_of_the_request_are_not_in_the_answer),
		gate_test(an_answer_may_cross_the_end_of_the_sequence_space),
		gate_test(retry_after_tells_the_seconds_to_the_opening),
		gate_test(a_request_longer_than_its_answer_shrinks_without_any_room),
		gate_test(a_frame_grows_at_whichever_end_the_driver_allows),
		gate_test(a_frame_that_cannot_grow_carries_the_short_form),
		gate_test(a_frame_with_a_little_room_carries_the_short_form_too),
		gate_test(without_room_for_the_short_form_the_answer_fails_and_is_counted),
		gate_test(an_answer_of_a_thousand_bytes_goes_out_whole),
		gate_test(each_code_switches_its_bank_alone),
		gate_test(an_answer_that_is_not_there_is_never_sent),
	};

	return cmocka_run_group_tests_name("replies", tests, setup_gate, close_gate);
}
