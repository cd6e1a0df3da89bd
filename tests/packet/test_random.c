/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Frames that nobody meant: random ones, good ones with random changes, and texts at the call door.
 *
 * Whatever comes, the program ends with PASS, DROP or TX, one counter goes up by one, a frame that passes is untouched, one that is sent
 * back is a valid packet to where the frame came from, and no unit is lost or sold twice. The seed is printed; SLUICE_SEED
 * repeats a run.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "common/timefmt.h"
#include "expect.h"
#include "gate.skel.h"

#define SECOND_NS 1000000000ULL
#define RANDOM_RUNS 100000
#define MUTANT_RUNS 200000
#define CALLS 20000
#define BATCH 50 /* runs between two looks at the counters */
#define STOCK 1000000
#define LENGTH_MAX 1514
#define MUTATIONS 4

static uint64_t seed;

/* xorshift64 (Marsaglia 2003). */
static uint64_t random64(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static unsigned below(unsigned limit)
{
	return (random64() >> 16) % limit;
}

/* The packet's addresses and MACs have changed places. The answer is a good packet, so both have them in one place. */
static bool goes_back(const uint8_t *bytes, const struct run *run)
{
	unsigned ip = 14 + 4 * run->parsed.vlans, at = ip + (run->parsed.ip6 ? 8 : 12), size = run->parsed.ip6 ? 16 : 4;

	return !memcmp(run->bytes, bytes + 6, 6) && !memcmp(run->bytes + 6, bytes, 6) &&
		!memcmp(run->bytes + at, bytes + at + size, size) && !memcmp(run->bytes + at + size, bytes + at, size);
}

struct tally {
	unsigned passed, dropped, sent;
};

static void dump(const uint8_t *bytes, unsigned length)
{
	for (unsigned i = 0; i < length && i < 128; i++)
		print_error("%02x%s", bytes[i], i % 32 == 31 ? "\n" : "");
	print_error("\n%u bytes\n", length);
}

static void run_one(struct gate *gate, const uint8_t *bytes, unsigned length, struct tally *tally)
{
	struct run run;
	const char *wrong = NULL;

	gate_run_raw(gate, bytes, length, &run);
	switch (run.action) {
	case XDP_PASS:
		tally->passed++;
		wrong = run.untouched ? NULL : "passed, but changed";
		break;
	case XDP_DROP:
		tally->dropped++;
		break;
	case XDP_TX:
		tally->sent++;
		/* Valid, back to where it came from, no longer than a SYN if it answers one, and a body only with the end. */
		if (run.parsed.wrong)
			wrong = run.parsed.wrong;
		else if (!goes_back(bytes, &run))
			wrong = "addresses";
		else if (run.parsed.flags == (F_SYN | F_ACK) ? run.length > length : !(run.parsed.flags & F_ACK))
			wrong = "flags or length";
		else if (run.parsed.payload_len && run.parsed.flags != (F_FIN | F_PSH | F_ACK))
			wrong = "payload";
		break;
	default:
		wrong = "action";
	}
	if (wrong) {
		dump(bytes, length);
		dump(run.bytes, run.length);
		expect(false, "action %d: wrong %s", run.action, wrong);
	}
}

/* Counters go up by one for each run, and never under "none". */
static void expect_counted(struct gate *gate, uint64_t *counted, unsigned runs)
{
	uint64_t now = gate_counted_all(gate);

	expect(now - *counted == runs, "%u runs, %llu counted", runs, (unsigned long long)(now - *counted));
	*counted = now;
}

/* --- frames --------------------------------------------------------------------------------------------------------------- */
/* Bytes without a plan, but for what leads past the first checks, sometimes. */
static unsigned random_frame(uint8_t *bytes)
{
	static const uint16_t types[] = {0x0800, 0x86dd, 0x8100, 0x88a8};
	unsigned length = 14 + below(random64() & 1 ? 100 : LENGTH_MAX - 14), off = 12;

	for (unsigned i = 0; i < length; i++)
		bytes[i] = random64();
	for (unsigned i = 0; i < 3 && off + 2 <= length && below(8); i++) {
		uint16_t type = types[below(4)];

		bytes[off] = type >> 8;
		bytes[off + 1] = type & 0xff;
		if (type == 0x0800 && off + 26 < length) {
			bytes[off + 2] = 0x40 | (below(4) ? 5 : below(16));
			bytes[off + 4] = 0;
			bytes[off + 5] = below(256);
			bytes[off + 8] = bytes[off + 9] = 0;
			bytes[off + 11] = below(4) ? 6 : below(256);
		} else if (type == 0x86dd && off + 10 < length) {
			bytes[off + 2] = 0x60;
			bytes[off + 6] = 0;
			bytes[off + 7] = below(256);
			bytes[off + 8] = (const uint8_t[]){6, 6, 0, 43, 44, 51, 60, 59}[below(8)];
		}
		off += 4;
	}
	return length;
}

/* A frame as clients send them. */
static unsigned good_frame(struct gate *gate, uint8_t *bytes)
{
	static const uint8_t flags[] = {F_SYN, F_ACK, F_ACK | F_PSH, F_ACK | F_FIN, F_RST, F_RST | F_ACK};
	static const uint16_t ports[] = {GATE_PORT, GATE_PORT, GATE_PORT, GATE_TCP_PORT, GATE_DEAD_PORT, 22};
	static char request[512];
	struct frame frame = frame_syn(below(2));
	struct sluice_token token = gate_token(1 + below(1000), 1 + below(500));
	char text[SLUICE_TOKEN_TEXT + 1];
	uint8_t syn[FRAME_MAX];
	struct run run;

	frame.vlans = below(3);
	frame.sport = 1024 + below(60000);
	frame.dport = ports[below(6)];
	frame.seq = random64();
	frame.ack = random64();
	frame.tcp_option_bytes = 4 * below(11);
	frame.ip_option_words = below(4) ? 0 : below(11);
	frame.ip6_extensions = below(4) ? 0 : below(10);
	frame.padding = below(4) ? 0 : below(50);
	if (below(2)) {
		frame.flags = flags[below(6)];
		if (frame.flags != F_SYN && below(2)) {
			frame.payload = request;
			frame.payload_len = below(sizeof(request));
		}
		return frame_write(&frame, bytes);
	}
	/* Half of them behind a good cookie. */
	frame.dport = below(4) ? GATE_PORT : GATE_TCP_PORT;
	frame.ip6_extensions %= 9;
	gate_run_raw(gate, syn, frame_write(&frame, syn), &run);
	if (run.action == XDP_TX) {
		frame.ack = run.parsed.seq + 1;
		frame.seq++;
	}
	token.quantity = below(5);
	token.network = below(8) ? 0 : random64();
	token.key_id = below(8) ? 1 : below(4);
	gate_token_text(gate, &token, text);
	frame.flags = F_ACK | F_PSH | (below(4) ? 0 : F_FIN);
	frame.payload_len = gate_order_request(text, request, sizeof(request));
	frame.payload = below(4) ? request : request + below(frame.payload_len);
	frame.payload_len -= (const char *)frame.payload - request;
	if (!below(4))
		frame.payload_len = below(frame.payload_len + 1);
	return frame_write(&frame, bytes);
}

/* Changes a few bytes, mostly in the headers, or the length. */
static unsigned mutate(uint8_t *bytes, unsigned length)
{
	for (unsigned i = below(MUTATIONS + 1); i > 0; i--) {
		unsigned at = below(below(4) ? (length < 90 ? length : 90) : length);

		switch (below(6)) {
		case 0:
			bytes[at] = random64();
			break;
		case 1:
			bytes[at] ^= 1 << below(8);
			break;
		case 2:
			bytes[at] = (const uint8_t[]){0, 1, 0x7f, 0x80, 0xff}[below(5)];
			break;
		case 3: /* cut */
			length = 14 + below(length - 13);
			break;
		case 4: /* more */
			if (length + 64 < LENGTH_MAX)
				length += below(64);
			break;
		case 5: /* a piece in another place */
			memmove(bytes + at, bytes + below(length), below(length - at < 16 ? length - at : 16));
			break;
		}
	}
	return length;
}

static void shuffle_state(struct gate *gate)
{
	struct sluice_sale *sale = &gate->sales[GATE_SALE];
	uint64_t now = time_wall_ns();

	gate_alive(gate);
	gate->control->grow = below(4);
	gate->control->flags = below(8) ? SLUICE_CONTROL_ORDERS_OPEN : below(4);
	gate->control->backlog_max = below(8) ? 0 : 1;
	sale->flags = below(8) ? 0 : below(8);
	sale->per_buyer = 1 + below(4);
	sale->opens_wall = below(8) ? now - SECOND_NS : now + below(100000) * SECOND_NS;
	sale->ends_wall = below(8) ? now + 3600 * SECOND_NS : now - 1;
	sale->pace.interval_ns = below(8) ? 0 : random64() >> (20 + below(40));
	sale->pace.tolerance_ns = below(2) ? 0 : random64() >> (20 + below(40));
	for (int id = 0; id < SLUICE_LIMIT_COUNT; id++)
		gate_limit(gate, id, below(8) ? 0 : random64() >> (30 + below(30)), 1 + below(4));
	if (!below(8))
		gate->control->heartbeat_mono = below(2) ? 0 : random64();
	gate_ring_drain(gate, NULL, 0);
}

static void random_frames_never_abort(void **state)
{
	struct gate *gate = *state;
	static uint8_t bytes[FRAME_MAX];
	struct tally tally = {0};
	uint64_t counted = gate_counted_all(gate);

	for (unsigned i = 0; i < RANDOM_RUNS; i++) {
		run_one(gate, bytes, random_frame(bytes), &tally);
		if (i % BATCH == BATCH - 1)
			expect_counted(gate, &counted, BATCH);
	}
	print_message("           %u passed, %u dropped, %u sent back\n", tally.passed, tally.dropped, tally.sent);
	assert_true(tally.passed > 0 && tally.dropped > 0);
	assert_int_equal(gate_counted(gate, SLUICE_REASON_NONE), 0);
}

static void mutated_frames_never_abort_and_lose_no_unit(void **state)
{
	struct gate *gate = *state;
	static uint8_t bytes[FRAME_MAX];
	struct tally tally = {0};
	uint64_t admitted = gate_counted(gate, SLUICE_REASON_ADMITTED);

	gate->stock[GATE_SALE].free = STOCK;
	for (unsigned i = 0; i < MUTANT_RUNS; i += BATCH) {
		static uint8_t frames[BATCH][FRAME_MAX];
		unsigned lengths[BATCH];
		uint64_t counted;

		shuffle_state(gate);
		for (unsigned k = 0; k < BATCH; k++) {
			lengths[k] = mutate(bytes, good_frame(gate, bytes));
			memcpy(frames[k], bytes, lengths[k]);
		}
		counted = gate_counted_all(gate);
		for (unsigned k = 0; k < BATCH; k++)
			run_one(gate, frames[k], lengths[k], &tally);
		expect_counted(gate, &counted, BATCH);
	}
	admitted = gate_counted(gate, SLUICE_REASON_ADMITTED) - admitted;
	print_message("           %u passed (%llu admitted), %u dropped, %u sent back\n", tally.passed,
		(unsigned long long)admitted, tally.dropped, tally.sent);
	assert_true(admitted > 0 && tally.sent > 0);
	assert_int_equal(gate_counted(gate, SLUICE_REASON_NONE), 0);
	assert_int_equal(gate_map_count(bpf_map__fd(gate->skel->maps.admissions), sizeof(__u64)), admitted);
	assert_true(gate_is_conserved(gate, STOCK));
}

static void random_calls_are_answered_and_lose_no_unit(void **state)
{
	struct gate *gate = *state;
	uint64_t reasons[SLUICE_REASON_ROWS] = {0};

	gate->stock[GATE_SALE].free = STOCK;
	for (unsigned i = 0; i < CALLS; i++) {
		struct sluice_token token = gate_token(1 + below(1000), 1 + below(500));
		struct sluice_call call = {.op = SLUICE_CALL_ORDER};
		char text[SLUICE_TOKEN_TEXT + 1];

		if (i % BATCH == 0)
			shuffle_state(gate);
		token.quantity = below(5);
		gate_token_text(gate, &token, text);
		memcpy(call.token, text, SLUICE_TOKEN_TEXT);
		for (unsigned n = below(3); n > 0; n--)
			call.token[below(SLUICE_TOKEN_TEXT)] = random64();
		call.op = below(4) ? SLUICE_CALL_ORDER : random64();
		call.flags = below(4) ? 0 : random64();
		call.source.hi = random64() & random64();
		call.source.lo = random64();
		gate_call(gate, &call);
		assert_in_range(call.reason, 1, SLUICE_REASON_COUNT - 1);
		assert_true(call.retry_after_s <= SLUICE_RETRY_MAX_S);
		reasons[call.reason]++;
	}
	print_message("           %llu admitted, %llu without a good token\n",
		(unsigned long long)reasons[SLUICE_REASON_ADMITTED],
		(unsigned long long)(reasons[SLUICE_REASON_TOKEN_MAC] + reasons[SLUICE_REASON_TOKEN_FORM]));
	assert_int_equal(gate_map_count(bpf_map__fd(gate->skel->maps.admissions), sizeof(__u64)),
		reasons[SLUICE_REASON_ADMITTED]);
	assert_true(gate_is_conserved(gate, STOCK));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		gate_test(random_frames_never_abort),
		gate_test(mutated_frames_never_abort_and_lose_no_unit),
		gate_test(random_calls_are_answered_and_lose_no_unit),
	};
	const char *given = getenv("SLUICE_SEED");

	seed = given ? strtoull(given, NULL, 0) : time_wall_ns();
	printf("SLUICE_SEED=%llu\n", (unsigned long long)seed);
	seed = seed ? seed : 1;
	return cmocka_run_group_tests_name("random", tests, setup_gate, close_gate);
}
