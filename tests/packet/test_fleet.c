/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* One of many nodes: tokens that are another node's are sent home, with an address, from every frame that can carry it; and units that are
 * not here, or not to be sold, are no "sold out".
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <pthread.h>
#include <stdatomic.h>

#include "common/addr.h"
#include "common/answers.h"
#include "common/timefmt.h"
#include "common/token.h"
#include "expect.h"
#include "gate.skel.h"

#define SECOND_NS 1000000000ULL
#define HOUR_NS (3600 * SECOND_NS)
#define STOCK 10
#define OWN 1
#define OTHER 2
#define UNLISTED 9
#define HERE "https://shop1.example"
#define THERE "https://shop2.example"
#define SOURCE "192.0.2.10"
#define LONG_REQUEST 900
#define CONFIG_URL_BYTES 127 /* the longest that the config takes */
#define RACERS 2
#define RACE_ORDERS 2000
#define RACE_STOCK 1000
#define NO_RETRY (-1)

static uint16_t next_port(void)
{
	static uint16_t port = 10000;

	return port++;
}

static int setup_node(void **state)
{
	struct gate *gate = *state;

	gate_reset(gate);
	gate->control->node = OWN;
	gate_home(gate, OWN, HERE);
	gate_home(gate, OTHER, THERE);
	return 0;
}

#define node_test(function) cmocka_unit_test_setup(function, setup_node)

/* --- asking --------------------------------------------------------------------------------------------------------------- */
static struct sluice_token token_of_node(uint64_t serial, uint32_t node)
{
	struct sluice_token token = gate_token(serial, serial);

	token.node = node;
	return token;
}

static const char *text_of(struct gate *gate, const struct sluice_token *token)
{
	static char text[SLUICE_TOKEN_TEXT + 1];
	struct sluice_token copy = *token;

	gate_token_text(gate, &copy, text);
	return text;
}

static struct sluice_call call_order(struct gate *gate, const struct sluice_token *token)
{
	struct sluice_call call = {.op = SLUICE_CALL_ORDER};

	assert_int_equal(addr_parse(SOURCE, &call.source), 0);
	memcpy(call.token, text_of(gate, token), SLUICE_TOKEN_TEXT);
	gate_call(gate, &call);
	return call;
}

/* A segment with a good cookie that orders; the request is `length` bytes long, or as curl sends it. */
static struct frame order_frame(
	struct gate *gate, const struct sluice_token *token, bool ip6, int vlans, unsigned length)
{
	static char request[FRAME_MAX];
	struct frame frame = frame_syn(ip6);
	unsigned plain = gate_order_request(text_of(gate, token), request, sizeof(request));

	if (length > plain)
		memset(request + plain, 'x', length - plain);
	frame.vlans = vlans;
	frame.sport = next_port();
	assert_int_equal(gate_handshake(gate, &frame, request, length ? length : plain), 0);
	return frame;
}

static void order(struct gate *gate, const struct sluice_token *token, struct run *run)
{
	struct frame frame = order_frame(gate, token, false, 0, 0);

	gate_run_frame(gate, &frame, run);
}

/* Both doors say `reason`, and nothing is taken. */
static void expect_refused_at(
	const char *file, int line, struct gate *gate, const struct sluice_token *token, int reason, int retry_s)
{
	uint64_t free_units = gate->stock[GATE_SALE].free, in_flight = gate->control->in_flight;
	struct sluice_call call = call_order(gate, token);
	struct frame frame = order_frame(gate, token, false, 0, 0);
	struct run run;

	gate_run_frame(gate, &frame, &run);
	expect_reason_at(file, line, &run, reason, "wire");
	if (call.reason != (unsigned)reason)
		fail_at(file, line, "call door: %s, not %s", reason_label(call.reason), reason_label(reason));
	if (retry_s >= 0 && call.retry_after_s != (unsigned)retry_s)
		fail_at(file, line, "call door: again after %u s, not %d", call.retry_after_s, retry_s);
	if (gate->stock[GATE_SALE].free != free_units || gate->control->in_flight != in_flight)
		fail_at(file, line, "%s took something", reason_label(reason));
	if (reason_answer(reason) != SLUICE_ANSWER_NONE)
		expect_answer(&run, &frame, reason_answer(reason), retry_s);
}

#define expect_refused(gate, token, reason, retry_s) expect_refused_at(__FILE__, __LINE__, gate, token, reason, retry_s)

static void expect_admitted_at(
	const char *file, int line, struct gate *gate, const struct sluice_token *token, int first, int second)
{
	struct sluice_call call;
	struct run run;

	order(gate, token, &run);
	expect_reason_at(file, line, &run, first, "wire");
	call = call_order(gate, token);
	if (call.reason != (unsigned)second)
		fail_at(file, line, "call door: %s, not %s", reason_label(call.reason), reason_label(second));
}

#define expect_admitted(gate, token) \
	expect_admitted_at(__FILE__, __LINE__, gate, token, SLUICE_REASON_ADMITTED, SLUICE_REASON_ADMITTED_AGAIN)
#define expect_admitted_again(gate, token) \
	expect_admitted_at(__FILE__, __LINE__, gate, token, SLUICE_REASON_ADMITTED_AGAIN, SLUICE_REASON_ADMITTED_AGAIN)

/* The answer has a Location of that URL and token, and is what the call door's side makes of the same template. */
static void expect_sent_to(struct gate *gate, const struct run *run, unsigned node, const char *url, const char *token)
{
	char text[SLUICE_ANSWER_MAX + 1], wanted[SLUICE_ANSWER_MAX], line[512];

	assert_int_equal(run->parsed.payload_len, gate_home_answer(gate, node, token, wanted));
	assert_memory_equal(run->parsed.payload, wanted, run->parsed.payload_len);
	memcpy(text, run->parsed.payload, run->parsed.payload_len);
	text[run->parsed.payload_len] = '\0';
	snprintf(line, sizeof(line), "\r\nLocation: %s/v1/orders/%s\r\n", url, token);
	if (!strstr(text, line)) /* where one blank would put the token on an odd offset, two */
		snprintf(line, sizeof(line), "\r\nLocation:  %s/v1/orders/%s\r\n", url, token);
	expect(strstr(text, line), "no %s in %s", line, text);
}

static void expect_no_location(const struct run *run)
{
	char text[SLUICE_ANSWER_MAX + 1], value[128];

	memcpy(text, run->parsed.payload, run->parsed.payload_len);
	text[run->parsed.payload_len] = '\0';
	assert_null(http_header(text, "Location", value));
}

/* --- another node's tokens -------------------------------------------------------------------------------------------------- */
static void a_token_of_another_node_is_sent_home_over_every_network(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token;
	struct frame frame;
	struct run run;

	for (int net = 0; net < 6; net++) {
		token = token_of_node(100 + net, OTHER);
		frame = order_frame(gate, &token, net & 1, net / 2, 0);
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_WRONG_NODE, "network %d", net);
		expect_answer(&run, &frame, SLUICE_ANSWER_WRONG_NODE, NO_RETRY);
		expect_sent_to(gate, &run, OTHER, THERE, text_of(gate, &token));
		assert_int_equal(call_order(gate, &token).reason, SLUICE_REASON_WRONG_NODE);
	}
	assert_int_equal(gate->stock[GATE_SALE].free, STOCK);
	assert_true(gate_is_conserved(gate, STOCK));
}

/* The token's sum is made by the gate: of any characters, at whichever offset a URL puts it. */
static void the_checksum_is_right_for_any_token_and_any_address(void **state)
{
	static char url[CONFIG_URL_BYTES + 1] = "http://";
	struct gate *gate = *state;
	struct frame frame;
	struct run run;

	for (unsigned length = strlen(url); length < CONFIG_URL_BYTES; length++) {
		struct sluice_token token = token_of_node(length * 0x9e3779b97f4a7c15ULL, OTHER);

		url[length] = 'a' + length % 26;
		gate_home(gate, OTHER, url);
		frame = order_frame(gate, &token, length & 1, length % 3, 0);
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_WRONG_NODE, "an address of %u characters", length + 1);
		expect_way_back(&run, &frame);
		expect_sent_to(gate, &run, OTHER, url, text_of(gate, &token));
	}
	gate_home(gate, OTHER, THERE);
	for (unsigned i = 0; i < 500; i++) {
		struct sluice_token token = token_of_node(i * 0x2545f4914f6cdd1dULL, OTHER);

		frame = order_frame(gate, &token, i & 1, 0, 0);
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_WRONG_NODE, "token %u", i);
		expect_sent_to(gate, &run, OTHER, THERE, text_of(gate, &token));
	}
}

static void a_node_that_nobody_knows_has_no_address(void **state)
{
	static const uint32_t nodes[] = {0, UNLISTED, SLUICE_NODES_MAX, SLUICE_NODES_MAX + 1, SLUICE_HOMES + OTHER,
		2 * SLUICE_HOMES + OTHER, 0x80000000 | OTHER, 0xffffffff};
	struct gate *gate = *state;

	for (unsigned i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++) {
		struct sluice_token token = token_of_node(i + 1, nodes[i]);
		struct frame frame = order_frame(gate, &token, i & 1, 0, 0);
		struct run run;

		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_WRONG_NODE, "node %u", nodes[i]);
		expect_answer(&run, &frame, SLUICE_ANSWER_WRONG_NODE, NO_RETRY);
		expect_no_location(&run);
		assert_int_equal(call_order(gate, &token).reason, SLUICE_REASON_WRONG_NODE);
	}
}

/* What only its home can know is not asked of it here, nor who is alive. A forged one is still told that it is forged. */
static void nothing_but_its_mac_is_asked_of_a_token_of_another_node(void **state)
{
	struct gate *gate = *state;
	struct sluice_token good = token_of_node(1, OTHER);

	for (int change = 0; change < 10; change++) {
		struct sluice_token token = good;

		setup_node(state);
		switch (change) {
		case 0:
			token.sale = GATE_SALE + 1;
			break;
		case 1:
			gate->control->heartbeat_mono = 0;
			break;
		case 2:
			gate->control->flags = 0;
			break;
		case 3:
			token.expires_at_s = 1;
			break;
		case 4:
			token.network = 12345;
			break;
		case 5:
			token.quantity = 0;
			break;
		case 6:
			gate->sales[GATE_SALE].flags = SLUICE_SALE_ENDED;
			break;
		case 7:
			gate->stock[GATE_SALE].free = 0;
			break;
		case 8:
			gate->sales[GATE_SALE].flags = SLUICE_SALE_WITHHELD;
			break;
		case 9:
			gate->sales[GATE_SALE].id = 0;
			gate->control->flags = 0;
			break;
		}
		expect_refused(gate, &token, SLUICE_REASON_WRONG_NODE, NO_RETRY);
		assert_int_equal(gate->stock[GATE_SALE].wanted, 0);
	}
	setup_node(state);
	good.key_id = 2;
	expect_refused(gate, &good, SLUICE_REASON_TOKEN_KEY, NO_RETRY);
	good.key_id = 1;
	gate->keys[0] = (struct sluice_key){.k0 = 1, .k1 = 2, .id = 2, .valid = 1};
	{
		char text[SLUICE_TOKEN_TEXT + 1];
		struct run run;

		gate_token_text(gate, &good, text);
		text[40] = text[40] == 'A' ? 'B' : 'A';
		gate_order(gate, false, next_port(), text, &run);
		expect_reason(&run, SLUICE_REASON_TOKEN_MAC, "a forged token of another node");
	}
}

static void a_gate_of_no_fleet_judges_tokens_of_every_node(void **state)
{
	static const uint32_t nodes[] = {0, 1, 2, 255, 256, 0xffffffff};
	struct gate *gate = *state;

	gate->control->node = 0;
	for (unsigned i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++) {
		struct sluice_token token = token_of_node(i + 1, nodes[i]);

		expect_admitted(gate, &token);
	}
	assert_true(gate_is_conserved(gate, STOCK));
}

static void a_token_of_this_node_is_judged_as_ever(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = token_of_node(1, OWN);

	expect_admitted(gate, &token);
	token = token_of_node(2, OWN);
	token.expires_at_s = 1;
	expect_refused(gate, &token, SLUICE_REASON_TOKEN_EXPIRED, NO_RETRY);
	assert_true(gate_is_conserved(gate, STOCK));
}

/* A node that was given another number has orders under the old one, and a yes is never taken back. */
static void what_is_in_the_books_here_stays_here(void **state)
{
	struct gate *gate = *state;
	struct sluice_token ordered = token_of_node(1, OWN), revoked = token_of_node(2, OWN),
			    claimed = token_of_node(3, OWN), fresh = token_of_node(4, OWN);
	struct sluice_admission entry = {.buyer = 2, .sale = GATE_SALE, .serial = 2, .state = SLUICE_ADMISSION_REVOKED};
	int admissions = bpf_map__fd(gate->skel->maps.admissions);
	uint64_t serial = 2;

	expect_admitted(gate, &ordered);
	assert_int_equal(bpf_map_update_elem(admissions, &serial, &entry, 0), 0);
	entry = (struct sluice_admission){
		.buyer = 3, .sale = GATE_SALE, .serial = 3, .state = SLUICE_ADMISSION_CLAIMED, .quantity = 1};
	serial = 3;
	assert_int_equal(bpf_map_update_elem(admissions, &serial, &entry, 0), 0);
	gate->control->node = OTHER;
	expect_admitted_again(gate, &ordered);
	expect_refused(gate, &revoked, SLUICE_REASON_TOKEN_REVOKED, NO_RETRY);
	expect_refused(gate, &claimed, SLUICE_REASON_IN_PROGRESS, NO_RETRY);
	expect_refused(gate, &fresh, SLUICE_REASON_WRONG_NODE, NO_RETRY);
	gate->sales[GATE_SALE].flags = SLUICE_SALE_ENDED;
	expect_admitted_again(gate, &ordered);
}

static void the_same_segment_again_gets_the_same_answer_and_then_closes(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = token_of_node(1, OTHER);
	struct run first, again;

	for (int ip6 = 0; ip6 < 2; ip6++) {
		struct frame frame = order_frame(gate, &token, ip6, 1, 0);

		gate_run_frame(gate, &frame, &first);
		for (int i = 0; i < 3; i++) {
			gate_run_frame(gate, &frame, &again);
			expect_reason(&again, SLUICE_REASON_WRONG_NODE, "retransmission %d", i);
			assert_int_equal(again.length, first.length);
			assert_memory_equal(again.bytes, first.bytes, first.length);
		}
		frame.flags = F_ACK | F_FIN;
		frame.seq += frame.payload_len;
		frame.ack += again.parsed.payload_len + 1;
		frame.payload_len = 0;
		gate_run_frame(gate, &frame, &again);
		expect_reason(&again, SLUICE_REASON_LEFTOVER, "the client closes");
	}
}

/* As expect_sent_to, for the form of a frame that could not grow by all of it. */
static void expect_sent_to_shortly(struct gate *gate, const struct run *run, unsigned node, const char *token)
{
	struct sluice_answer_bytes answer;

	assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(gate->skel->maps.homes), &node, &answer), 0);
	assert_int_equal(run->parsed.payload_len, answer.short_len);
	memcpy(answer.short_bytes + answer.token_at, token, SLUICE_TOKEN_TEXT);
	assert_memory_equal(run->parsed.payload, answer.short_bytes, answer.short_len);
}

static void a_frame_makes_room_for_the_address_or_goes_without_a_body(void **state)
{
	static const uint32_t rooms[] = {0, SLUICE_GROW_HEAD, SLUICE_GROW_TAIL, SLUICE_GROW_HEAD | SLUICE_GROW_TAIL};
	struct gate *gate = *state;

	for (unsigned i = 0; i < 4 * 2 * 3; i++) {
		struct sluice_token token = token_of_node(i + 1, OTHER);
		unsigned lengths[] = {16 + SLUICE_TOKEN_TEXT + 1, 0, LONG_REQUEST}, length = lengths[i % 3];
		struct frame frame = order_frame(gate, &token, i / 3 & 1, 0, length);
		struct run run;

		gate->control->grow = rooms[i / 6];
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_WRONG_NODE, "%u bytes, room %u", frame.payload_len, rooms[i / 6]);
		expect_way_back(&run, &frame);
		assert_memory_equal(run.parsed.payload, "HTTP/1.1 421 Misdirected Request\r\n", 34);
		/* The smallest request is some 80 bytes long, the head room 216, the whole answer 400, the short one 190. */
		if (length == LONG_REQUEST || rooms[i / 6] & SLUICE_GROW_TAIL)
			expect_sent_to(gate, &run, OTHER, THERE, text_of(gate, &token));
		else if (!rooms[i / 6])
			expect_no_location(&run);
		else if (length)
			expect_sent_to_shortly(gate, &run, OTHER, text_of(gate, &token));
	}
	{ /* whatever the address: a frame as small as can be has the head room for the longest */
		static char url[CONFIG_URL_BYTES + 1];
		struct sluice_token token = token_of_node(999, OTHER);
		struct frame frame = order_frame(gate, &token, true, 0, 16 + SLUICE_TOKEN_TEXT + 1);
		struct run run;

		memset(url, 'a', CONFIG_URL_BYTES);
		gate_home(gate, OTHER, url);
		gate->control->grow = SLUICE_GROW_HEAD;
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_WRONG_NODE, "the longest address");
		expect_sent_to_shortly(gate, &run, OTHER, text_of(gate, &token));
		gate_home(gate, OTHER, THERE);
	}
	{ /* as on native veth, a plain request and a plain address */
		struct sluice_token token = token_of_node(1000, OTHER);
		struct frame frame = order_frame(gate, &token, true, 2, 0);
		struct run run;

		gate->control->grow = SLUICE_GROW_HEAD;
		gate_run_frame(gate, &frame, &run);
		expect_sent_to(gate, &run, OTHER, THERE, text_of(gate, &token));
	}
}

/* IP options and extension headers move the token in the frame. */
static void the_token_is_found_wherever_the_headers_put_it(void **state)
{
	struct gate *gate = *state;

	for (unsigned options = 0; options <= 40; options += 4) {
		struct sluice_token token = token_of_node(options + 1, OTHER);
		struct frame frame = order_frame(gate, &token, options & 4, options % 3, 0);
		struct run run;

		frame.tcp_option_bytes = options;
		frame.ip_option_words = options / 4;
		frame.ip6_extensions = options / 5;
		frame.flags |= options & 8 ? F_FIN : 0;
		frame.padding = options / 2;
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_WRONG_NODE, "%u bytes of options", options);
		expect_answer(&run, &frame, SLUICE_ANSWER_WRONG_NODE, NO_RETRY);
		expect_sent_to(gate, &run, OTHER, THERE, text_of(gate, &token));
	}
}

static void addresses_switch_with_the_bank_of_their_answer(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = token_of_node(1, OTHER);
	int homes = bpf_map__fd(gate->skel->maps.homes), answers = bpf_map__fd(gate->skel->maps.answers);
	__u32 place = SLUICE_HOMES + OTHER, code = SLUICE_ANSWER_WRONG_NODE;
	static const struct sluice_answer_bytes none;
	struct sluice_answer_bytes answer;
	char wanted[SLUICE_ANSWER_MAX];
	struct run run;
	size_t size;

	assert_int_equal(answer_render_home("http://192.0.2.2:8080", "*", NULL, &answer, &size), 0);
	assert_int_equal(bpf_map_update_elem(homes, &place, &answer, 0), 0);
	gate->control->answer_banks = ~(1u << SLUICE_ANSWER_WRONG_NODE);
	order(gate, &token, &run);
	expect_sent_to(gate, &run, OTHER, THERE, text_of(gate, &token));
	gate->control->answer_banks = 1u << SLUICE_ANSWER_WRONG_NODE;
	order(gate, &token, &run);
	assert_int_equal(run.parsed.payload_len, answer_fill_home(&answer, text_of(gate, &token), wanted));
	assert_memory_equal(run.parsed.payload, wanted, run.parsed.payload_len);
	/* Nobody there in this bank: its answer without an address. */
	assert_int_equal(bpf_map_update_elem(homes, &place, &none, 0), 0);
	assert_int_equal(bpf_map_lookup_elem(answers, &code, &answer), 0);
	code += SLUICE_ANSWER_COUNT;
	assert_int_equal(bpf_map_update_elem(answers, &code, &answer, 0), 0);
	order(gate, &token, &run);
	expect_reason(&run, SLUICE_REASON_WRONG_NODE, "an empty place");
	expect_no_location(&run);
	assert_int_equal(bpf_map_update_elem(answers, &code, &none, 0), 0);
}

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

static void in_shadow_a_token_of_another_node_goes_up_and_is_counted(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = token_of_node(1, OTHER);
	struct frame frame = order_frame(gate, &token, false, 0, 0);
	uint64_t before = in_shadow(gate, SLUICE_REASON_WRONG_NODE);
	struct run run;

	gate->control->flags |= SLUICE_CONTROL_SHADOW_ALL;
	gate_run_frame(gate, &frame, &run);
	expect_reason(&run, SLUICE_REASON_SHADOWED, "in shadow");
	assert_int_equal(in_shadow(gate, SLUICE_REASON_WRONG_NODE), before + 1);
	/* At the call door there is nowhere to go up to. */
	assert_int_equal(call_order(gate, &token).reason, SLUICE_REASON_WRONG_NODE);
}

/* --- units that are not here ------------------------------------------------------------------------------------------------ */
static void no_unit_here_is_not_sold_out_while_more_may_come(void **state)
{
	struct gate *gate = *state;
	struct sluice_sale *sale = &gate->sales[GATE_SALE];
	struct sluice_stock *stock = &gate->stock[GATE_SALE];
	struct sluice_token three = token_of_node(1, OWN), one = token_of_node(2, OWN), late = token_of_node(3, OWN);

	sale->per_buyer = 3;
	three.quantity = 3;
	stock->free = 2;
	sale->flags = SLUICE_SALE_MORE;
	expect_refused(gate, &three, SLUICE_REASON_UNITS_ELSEWHERE, 1);
	assert_int_equal(stock->wanted, 2 * 3); /* both doors have refused three */
	expect_admitted(gate, &one);
	stock->free = 0;
	expect_refused(gate, &late, SLUICE_REASON_UNITS_ELSEWHERE, 1);
	assert_int_equal(stock->wanted, 2 * 3 + 2);
	sale->flags = 0;
	expect_refused(gate, &late, SLUICE_REASON_SOLD_OUT, NO_RETRY);
	assert_int_equal(stock->wanted, 2 * 3 + 2);
	/* And the units come. */
	sale->flags = SLUICE_SALE_MORE;
	stock->free = 4;
	expect_admitted(gate, &late);
	expect_admitted(gate, &three);
	assert_int_equal(stock->free, 0);
	assert_int_equal(stock->wanted, 2 * 3 + 2);
	assert_true(gate_is_conserved(gate, 5));
}

static void what_is_withheld_is_sold_to_nobody(void **state)
{
	struct gate *gate = *state;
	struct sluice_sale *sale = &gate->sales[GATE_SALE];
	struct sluice_stock *stock = &gate->stock[GATE_SALE];
	struct sluice_token before = token_of_node(1, OWN), token = token_of_node(2, OWN);

	expect_admitted(gate, &before);
	sale->flags = SLUICE_SALE_WITHHELD;
	expect_refused(gate, &token, SLUICE_REASON_UNITS_ELSEWHERE, 1);
	assert_int_equal(stock->wanted, 2);
	sale->flags = SLUICE_SALE_WITHHELD | SLUICE_SALE_MORE;
	expect_refused(gate, &token, SLUICE_REASON_UNITS_ELSEWHERE, 1);
	stock->free = 0;
	sale->flags = SLUICE_SALE_WITHHELD;
	expect_refused(gate, &token, SLUICE_REASON_UNITS_ELSEWHERE, 1);
	stock->free = STOCK - 1;
	assert_int_equal(stock->wanted, 6);
	/* Who was admitted before has his order. */
	expect_admitted_again(gate, &before);
	sale->flags = 0;
	expect_admitted(gate, &token);
	assert_true(gate_is_conserved(gate, STOCK));
}

/* What is wrong with the sale or the token is said first; that the writer is away, later. */
static void a_lack_of_units_is_said_where_sold_out_would_be(void **state)
{
	struct gate *gate = *state;
	struct sluice_sale *sale = &gate->sales[GATE_SALE], was;
	struct sluice_token token = token_of_node(1, OWN), wrong;

	for (int withheld = 0; withheld < 2; withheld++) {
		uint32_t flag = withheld ? SLUICE_SALE_WITHHELD : SLUICE_SALE_MORE;

		setup_node(state);
		gate->stock[GATE_SALE].free = withheld ? STOCK : 0;
		sale->flags = flag;
		was = *sale;
		sale->flags = flag | SLUICE_SALE_PAUSED;
		expect_refused(gate, &token, SLUICE_REASON_PAUSED, 5);
		sale->flags = flag | SLUICE_SALE_CLOSED;
		expect_refused(gate, &token, SLUICE_REASON_PAUSED, 5);
		sale->flags = flag | SLUICE_SALE_ENDED;
		expect_refused(gate, &token, SLUICE_REASON_ENDED, NO_RETRY);
		*sale = was;
		sale->opens_wall = time_wall_ns() + 90 * SECOND_NS - SECOND_NS / 2;
		expect_refused(gate, &token, SLUICE_REASON_NOT_OPEN, 90);
		*sale = was;
		sale->not_before_s = ~0U;
		expect_refused(gate, &token, SLUICE_REASON_TOKEN_REVOKED, NO_RETRY);
		*sale = was;
		wrong = token;
		wrong.expires_at_s = 1;
		expect_refused(gate, &wrong, SLUICE_REASON_TOKEN_EXPIRED, NO_RETRY);
		wrong = token;
		wrong.network = 12345;
		expect_refused(gate, &wrong, SLUICE_REASON_WRONG_NETWORK, NO_RETRY);
		wrong = token;
		wrong.quantity = 2;
		expect_refused(gate, &wrong, SLUICE_REASON_TOKEN_QUANTITY, NO_RETRY);
		assert_int_equal(gate->stock[GATE_SALE].wanted, 0);
		gate->control->flags = 0;
		expect_refused(gate, &token, SLUICE_REASON_UNITS_ELSEWHERE, 1);
		assert_int_equal(gate->stock[GATE_SALE].wanted, 2);
	}
}

static void a_gate_that_only_looks_wants_no_units(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = token_of_node(1, OWN);
	struct frame frame = order_frame(gate, &token, false, 0, 0);
	struct run run;

	for (int withheld = 0; withheld < 2; withheld++) {
		uint64_t before = in_shadow(gate, SLUICE_REASON_UNITS_ELSEWHERE);

		gate->sales[GATE_SALE].flags = withheld ? SLUICE_SALE_WITHHELD : SLUICE_SALE_MORE;
		gate->stock[GATE_SALE].free = withheld ? STOCK : 0;
		gate->control->flags |= SLUICE_CONTROL_SHADOW_ALL;
		gate_run_frame(gate, &frame, &run);
		expect_reason(&run, SLUICE_REASON_SHADOWED, "in shadow");
		assert_int_equal(in_shadow(gate, SLUICE_REASON_UNITS_ELSEWHERE), before + 1);
		assert_int_equal(gate->stock[GATE_SALE].wanted, 0);
	}
	/* The call door judges for real then. */
	assert_int_equal(call_order(gate, &token).reason, SLUICE_REASON_UNITS_ELSEWHERE);
	assert_int_equal(gate->stock[GATE_SALE].wanted, 1);
}

static struct sluice_call call_late(struct gate *gate, enum sluice_call_op op, uint64_t buyer, unsigned quantity)
{
	struct sluice_call call = {.op = op, .admission = {.sale = GATE_SALE, .buyer = buyer, .quantity = quantity}};

	gate_call(gate, &call);
	return call;
}

static uint32_t units_of_buyer(struct gate *gate, uint64_t buyer)
{
	struct sluice_buyer_key key = {.buyer = buyer, .sale = GATE_SALE};
	struct sluice_buyer units;

	return bpf_map_lookup_elem(bpf_map__fd(gate->skel->maps.buyers), &key, &units) ? 0 : units.units;
}

static void a_late_payment_finds_its_units_elsewhere_and_has_taken_nothing(void **state)
{
	struct gate *gate = *state;
	struct sluice_stock *stock = &gate->stock[GATE_SALE];

	stock->free = 0;
	gate->sales[GATE_SALE].flags = SLUICE_SALE_MORE;
	assert_int_equal(call_late(gate, SLUICE_CALL_RECLAIM, 1, 1).reason, SLUICE_REASON_UNITS_ELSEWHERE);
	assert_int_equal(stock->wanted, 1);
	assert_int_equal(units_of_buyer(gate, 1), 0);
	stock->free = 5;
	gate->sales[GATE_SALE].flags = SLUICE_SALE_WITHHELD;
	assert_int_equal(call_late(gate, SLUICE_CALL_RECLAIM, 1, 1).reason, SLUICE_REASON_UNITS_ELSEWHERE);
	assert_int_equal(stock->wanted, 2);
	assert_int_equal(stock->free, 5);
	assert_int_equal(units_of_buyer(gate, 1), 0);
	/* What comes back comes back, withheld or not. */
	gate->sales[GATE_SALE].flags = SLUICE_SALE_MORE;
	assert_int_equal(call_late(gate, SLUICE_CALL_RECLAIM, 1, 1).reason, SLUICE_REASON_NONE);
	assert_int_equal(units_of_buyer(gate, 1), 1);
	gate->sales[GATE_SALE].flags = SLUICE_SALE_WITHHELD;
	assert_int_equal(call_late(gate, SLUICE_CALL_RELEASE, 1, 1).reason, SLUICE_REASON_NONE);
	assert_int_equal(stock->free, 5);
	assert_int_equal(units_of_buyer(gate, 1), 0);
	assert_int_equal(stock->wanted, 2);
}

#define FLICKERS 50000

static atomic_bool flicker_is_over;

/* The daemon takes a token back, and forgets it, as fast as it can. */
static void *flicker(void *arg)
{
	struct gate *gate = arg;
	struct sluice_admission entry = {.buyer = 1, .sale = GATE_SALE, .serial = 1, .state = SLUICE_ADMISSION_REVOKED};
	int admissions = bpf_map__fd(gate->skel->maps.admissions);
	uint64_t serial = 1;

	while (!atomic_load(&flicker_is_over)) {
		bpf_map_update_elem(admissions, &serial, &entry, 0);
		bpf_map_delete_elem(admissions, &serial);
	}
	return NULL;
}

/* It is in the books at one look and not at the next: no reason to sell to another node's buyer. */
static void a_token_that_leaves_the_books_meanwhile_is_not_admitted(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = token_of_node(1, OTHER);
	struct sluice_call call;
	pthread_t daemon;
	unsigned revoked = 0;

	atomic_store(&flicker_is_over, false);
	assert_int_equal(pthread_create(&daemon, NULL, flicker, gate), 0);
	for (int i = 0; i < FLICKERS; i++) {
		call = call_order(gate, &token);
		revoked += call.reason == SLUICE_REASON_TOKEN_REVOKED;
		/* An entry that is written or removed while it is read is in progress. */
		if (call.reason != SLUICE_REASON_WRONG_NODE && call.reason != SLUICE_REASON_TOKEN_REVOKED &&
			call.reason != SLUICE_REASON_IN_PROGRESS)
			break;
	}
	atomic_store(&flicker_is_over, true);
	pthread_join(daemon, NULL);
	expect(call.reason == SLUICE_REASON_WRONG_NODE || call.reason == SLUICE_REASON_TOKEN_REVOKED ||
			call.reason == SLUICE_REASON_IN_PROGRESS,
		"another node's token: %s", reason_label(call.reason));
	print_message("           %u of %d were met in the books\n", revoked, FLICKERS);
}

struct racer {
	struct gate *gate;
	unsigned number;
	uint64_t admitted, elsewhere, others;
};

static void *race(void *arg)
{
	struct racer *racer = arg;

	for (uint64_t i = 0; i < RACE_ORDERS; i++) {
		uint64_t serial = 1 + RACERS * i + racer->number;
		struct sluice_token token = token_of_node(serial, OWN);
		struct sluice_call call = {.op = SLUICE_CALL_ORDER, .source = {.lo = 0xffffc0000201ULL}};
		char text[SLUICE_TOKEN_TEXT + 1];

		gate_token_text(racer->gate, &token, text);
		memcpy(call.token, text, SLUICE_TOKEN_TEXT);
		gate_call(racer->gate, &call);
		racer->admitted += call.reason == SLUICE_REASON_ADMITTED;
		racer->elsewhere += call.reason == SLUICE_REASON_UNITS_ELSEWHERE;
		racer->others += call.reason != SLUICE_REASON_ADMITTED && call.reason != SLUICE_REASON_UNITS_ELSEWHERE;
	}
	return NULL;
}

/* The last units may go between the look and the claim: nobody is told that it is over, and each refusal is counted once. */
static void cpus_that_race_for_the_last_units_count_what_they_want(void **state)
{
	struct gate *gate = *state;
	struct racer racers[RACERS] = {0};
	uint64_t admitted = 0, elsewhere = 0;
	pthread_t threads[RACERS];

	gate->stock[GATE_SALE].free = RACE_STOCK;
	gate->sales[GATE_SALE].flags = SLUICE_SALE_MORE;
	for (unsigned i = 0; i < RACERS; i++) {
		racers[i] = (struct racer){.gate = gate, .number = i};
		assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
	}
	for (unsigned i = 0; i < RACERS; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(racers[i].others, 0);
		admitted += racers[i].admitted;
		elsewhere += racers[i].elsewhere;
	}
	assert_int_equal(admitted, RACE_STOCK);
	assert_int_equal(elsewhere, RACERS * RACE_ORDERS - RACE_STOCK);
	assert_int_equal(gate->stock[GATE_SALE].wanted, elsewhere);
	assert_true(gate_is_conserved(gate, RACE_STOCK));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		node_test(a_token_of_another_node_is_sent_home_over_every_network),
		node_test(the_checksum_is_right_for_any_token_and_any_address),
		node_test(a_node_that_nobody_knows_has_no_address),
		node_test(nothing_but_its_mac_is_asked_of_a_token_of_another_node),
		node_test(a_gate_of_no_fleet_judges_tokens_of_every_node),
		node_test(a_token_of_this_node_is_judged_as_ever),
		node_test(what_is_in_the_books_here_stays_here),
		node_test(the_same_segment_again_gets_the_same_answer_and_then_closes),
		node_test(a_frame_makes_room_for_the_address_or_goes_without_a_body),
		node_test(the_token_is_found_wherever_the_headers_put_it),
		node_test(addresses_switch_with_the_bank_of_their_answer),
		node_test(in_shadow_a_token_of_another_node_goes_up_and_is_counted),
		node_test(no_unit_here_is_not_sold_out_while_more_may_come),
		node_test(what_is_withheld_is_sold_to_nobody),
		node_test(a_lack_of_units_is_said_where_sold_out_would_be),
		node_test(a_gate_that_only_looks_wants_no_units),
		node_test(a_late_payment_finds_its_units_elsewhere_and_has_taken_nothing),
		node_test(a_token_that_leaves_the_books_meanwhile_is_not_admitted),
		node_test(cpus_that_race_for_the_last_units_count_what_they_want),
	};

	return cmocka_run_group_tests_name("fleet", tests, setup_gate, close_gate);
}
