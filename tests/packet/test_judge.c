/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The judge at both doors: what it refuses and why, when it admits, and that nothing is lost or made on the way.
 *
 * expect_refused asks the call door and the wire the same question and wants the same answer, byte for byte.
 */
#include <poll.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "common/addr.h"
#include "common/answers.h"
#include "common/timefmt.h"
#include "common/token.h"
#include "expect.h"
#include "gate.skel.h"

#define SECOND_NS 1000000000ULL
#define MS_NS 1000000ULL
#define HOUR_NS (3600 * SECOND_NS)
#define STOCK 10
#define AHEAD_NS (150 * MS_NS) /* of an edge: longer than a busy machine keeps a thread waiting */
#define EDGE_CALLS 500
#define ROOM 1024
#define RING_BYTES 65536
#define NO_RETRY (-1)
#define WAKE_MS 1000 /* more than a wake-up takes on a busy machine; waited for in vain only where there is none */
#define SOURCE "192.0.2.10"
#define PATH_LENGTH 16 /* "POST /v1/orders/" */

/* --- asking --------------------------------------------------------------------------------------------------------------- */
static struct sluice_call call_text(struct gate *gate, const char *source, const char *text)
{
	struct sluice_call call = {.op = SLUICE_CALL_ORDER};

	assert_int_equal(addr_parse(source, &call.source), 0);
	memcpy(call.token, text, SLUICE_TOKEN_TEXT);
	gate_call(gate, &call);
	return call;
}

/* A new connection from `source` whose first segment is `request`. */
static int wire_request(struct gate *gate, const char *source, const char *request, unsigned length,
	struct frame *frame, struct run *run)
{
	static uint16_t sport = 10000;

	*frame = frame_syn(strchr(source, ':') != NULL);
	frame->source = source;
	frame->sport = sport++;
	assert_int_equal(gate_handshake(gate, frame, request, length), 0);
	gate_run_frame(gate, frame, run);
	expect_sound(run, "an order");
	return run->reason;
}

static int wire_text(struct gate *gate, const char *source, const char *text, struct frame *frame, struct run *run)
{
	static char request[512];

	return wire_request(gate, source, request, gate_order_request(text, request, sizeof(request)), frame, run);
}

static int ask(struct gate *gate, enum sluice_door door, const struct sluice_token *token)
{
	struct sluice_token copy = *token;
	char text[SLUICE_TOKEN_TEXT + 1];
	struct frame frame;
	struct run run;

	gate_token_text(gate, &copy, text);
	if (door == SLUICE_DOOR_WIRE)
		return wire_text(gate, SOURCE, text, &frame, &run);
	return call_text(gate, SOURCE, text).reason;
}

static void expect_text_refused_at(
	const char *file, int line, struct gate *gate, const char *source, const char *text, int reason, int retry_s)
{
	uint64_t free_before = gate->stock[GATE_SALE].free, in_flight = gate->control->in_flight;
	struct sluice_answer_bytes answer;
	char bytes[SLUICE_ANSWER_MAX];
	__u32 code = reason_answer(reason);
	struct sluice_call call = call_text(gate, source, text);
	struct frame frame;
	struct run run;
	int wire;

	if (call.reason != (unsigned)reason)
		fail_at(file, line, "call door: %s, not %s", reason_label(call.reason), reason_label(reason));
	if (retry_s >= 0 && call.retry_after_s != (unsigned)retry_s)
		fail_at(file, line, "call door: %s again after %u s, not %d", reason_label(reason), call.retry_after_s,
			retry_s);
	wire = wire_text(gate, source, text, &frame, &run);
	if (wire != reason)
		fail_at(file, line, "wire: %s, not %s", reason_label(wire), reason_label(reason));
	if (gate->stock[GATE_SALE].free != free_before || gate->control->in_flight != in_flight)
		fail_at(file, line, "%s took something", reason_label(reason));
	if (code == SLUICE_ANSWER_NONE)
		return;
	expect_answer(&run, &frame, code, retry_s);
	assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(gate->skel->maps.answers), &code, &answer), 0);
	assert_int_equal(run.parsed.payload_len, answer_fill(&answer, call.retry_after_s, bytes));
	assert_memory_equal(run.parsed.payload, bytes, run.parsed.payload_len);
}

static void expect_refused_at(
	const char *file, int line, struct gate *gate, const struct sluice_token *token, int reason, int retry_s)
{
	struct sluice_token copy = *token;
	char text[SLUICE_TOKEN_TEXT + 1];

	gate_token_text(gate, &copy, text);
	expect_text_refused_at(file, line, gate, SOURCE, text, reason, retry_s);
}

#define expect_refused(gate, token, reason, retry_s) expect_refused_at(__FILE__, __LINE__, gate, token, reason, retry_s)
#define expect_text_refused(gate, source, text, reason, retry_s) \
	expect_text_refused_at(__FILE__, __LINE__, gate, source, text, reason, retry_s)
#define expect_asked(gate, door, token, reason) \
	do { \
		int got_ = ask(gate, door, token); \
		expect(got_ == (reason), "%s, not %s", reason_label(got_), reason_label(reason)); \
	} while (0)

/* --- yes ------------------------------------------------------------------------------------------------------------------ */
static void an_admission_is_recorded_once_with_all_that_is_known(void **state)
{
	static const char *const sources[] = {"192.0.2.10", "2001:db8:1::10"};
	struct gate *gate = *state;
	struct sluice_admission admission;
	struct sluice_admitted records[8];
	char text[SLUICE_TOKEN_TEXT + 1];
	struct sluice_addr source;
	struct frame frame;
	struct run run;

	gate->sales[GATE_SALE].per_buyer = 4;
	for (unsigned i = 0; i < 4; i++) {
		struct sluice_token token = gate_token(100 + i, 200 + i);
		uint64_t before = time_mono_ns() + gate->control->wall_offset_ns, serial = token.serial;

		token.quantity = 1 + i % 2;
		assert_int_equal(addr_parse(sources[i % 2], &source), 0);
		token.network = i / 2 ? sluice_network_of(&source) : 0;
		gate_token_text(gate, &token, text);
		if (i < 2)
			assert_int_equal(wire_text(gate, sources[i % 2], text, &frame, &run), SLUICE_REASON_ADMITTED);
		else
			assert_int_equal(call_text(gate, sources[i % 2], text).reason, SLUICE_REASON_ADMITTED);
		assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(gate->skel->maps.admissions), &serial, &admission), 0);
		assert_int_equal(admission.buyer, token.buyer);
		assert_int_equal(admission.sale, GATE_SALE);
		assert_int_equal(admission.state, SLUICE_ADMISSION_DONE);
		assert_int_equal(admission.quantity, token.quantity);
		assert_int_equal(admission.expires_at_s, token.expires_at_s);
		assert_int_equal(admission.network, token.network);
		assert_int_equal(admission.door, i < 2 ? SLUICE_DOOR_WIRE : SLUICE_DOOR_CALL);
		assert_int_equal(admission.service, i < 2 ? 0 : SLUICE_MAX_SERVICES);
		assert_memory_equal(&admission.source, &source, sizeof(source));
		assert_in_range(admission.admitted_wall, before, time_mono_ns() + gate->control->wall_offset_ns);
		assert_int_equal(gate->control->in_flight, i + 1);
		assert_int_equal(gate_ring_drain(gate, records, 8), 1);
		assert_int_equal(records[0].serial, serial);
		assert_memory_equal(&records[0].admission, &admission, sizeof(admission));
	}
	assert_int_equal(gate->stock[GATE_SALE].free, STOCK - 6);
	assert_true(gate_is_conserved(gate, STOCK));
}

static void one_token_a_thousand_times_is_one_unit(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(1, 1);
	struct sluice_admitted records[2];

	for (int i = 0; i < 1000; i++)
		expect_asked(gate, i % 3 ? SLUICE_DOOR_CALL : SLUICE_DOOR_WIRE, &token,
			i ? SLUICE_REASON_ADMITTED_AGAIN : SLUICE_REASON_ADMITTED);
	assert_int_equal(gate->stock[GATE_SALE].free, STOCK - 1);
	assert_int_equal(gate->control->in_flight, 1);
	assert_int_equal(gate_ring_drain(gate, records, 2), 1);
	assert_true(gate_is_conserved(gate, STOCK));
}

static void the_call_door_gives_the_admission_again(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(1, 1);
	struct sluice_call first, again;
	char text[SLUICE_TOKEN_TEXT + 1];

	gate_token_text(gate, &token, text);
	first = call_text(gate, SOURCE, text);
	again = call_text(gate, "198.51.100.99", text); /* the client's address may have changed */
	assert_int_equal(first.reason, SLUICE_REASON_ADMITTED);
	assert_int_equal(again.reason, SLUICE_REASON_ADMITTED_AGAIN);
	assert_int_equal(first.serial, 1);
	assert_int_equal(again.serial, 1);
	assert_memory_equal(&first.admission, &again.admission, sizeof(first.admission));
}

static void the_stock_is_sold_to_the_last_unit_and_not_beyond(void **state)
{
	struct gate *gate = *state;
	struct sluice_token late;

	for (unsigned i = 0; i < 3 * STOCK; i++) {
		struct sluice_token token = gate_token(i + 1, i + 1);

		if (i < STOCK)
			expect_asked(gate, i & 1 ? SLUICE_DOOR_CALL : SLUICE_DOOR_WIRE, &token, SLUICE_REASON_ADMITTED);
		else
			expect_refused(gate, &token, SLUICE_REASON_SOLD_OUT, NO_RETRY);
	}
	assert_int_equal(gate->stock[GATE_SALE].free, 0);
	assert_true(gate_is_conserved(gate, STOCK));
	/* A unit that comes back is sold, and to a token that was refused before. */
	__atomic_fetch_add(&gate->stock[GATE_SALE].free, 1, __ATOMIC_SEQ_CST);
	late = gate_token(3 * STOCK, 3 * STOCK);
	expect_asked(gate, SLUICE_DOOR_WIRE, &late, SLUICE_REASON_ADMITTED);
	assert_true(gate_is_conserved(gate, STOCK + 1));
}

/* A yes is never taken back. */
static void an_admitted_token_is_told_so_whatever_has_changed_since(void **state)
{
	struct gate *gate = *state;
	struct sluice_sale *sale = &gate->sales[GATE_SALE], was = *sale;
	struct sluice_token token = gate_token(1, 1);
	uint64_t offset = gate->control->wall_offset_ns;

	expect_asked(gate, SLUICE_DOOR_WIRE, &token, SLUICE_REASON_ADMITTED);
	for (int change = 0; change < 9; change++) {
		*sale = was;
		gate->stock[GATE_SALE].free = STOCK - 1;
		gate->control->flags = SLUICE_CONTROL_ORDERS_OPEN;
		gate->control->wall_offset_ns = offset;
		gate->control->backlog_max = 0;
		switch (change) {
		case 0:
			sale->flags = SLUICE_SALE_PAUSED;
			break;
		case 1:
			sale->flags = SLUICE_SALE_ENDED;
			break;
		case 2:
			sale->flags = SLUICE_SALE_CLOSED;
			break;
		case 3:
			sale->ends_wall = sale->opens_wall + 1;
			break;
		case 4:
			sale->opens_wall = ~0ULL;
			break;
		case 5:
			gate->stock[GATE_SALE].free = 0;
			break;
		case 6:
			gate->control->flags = 0;
			break;
		case 7:
			gate->control->wall_offset_ns = offset + 365 * 24 * HOUR_NS; /* token and sale are long over */
			break;
		case 8:
			gate->control->backlog_max = 1;
			break;
		}
		expect_asked(gate, SLUICE_DOOR_WIRE, &token, SLUICE_REASON_ADMITTED_AGAIN);
		expect_asked(gate, SLUICE_DOOR_CALL, &token, SLUICE_REASON_ADMITTED_AGAIN);
	}
	gate->stock[GATE_SALE].free = STOCK - 1;
	assert_true(gate_is_conserved(gate, STOCK));
}

/* --- window --------------------------------------------------------------------------------------------------------------- */
/* Asks across `edge` without a pause, with the gate's own clock read before and after each call. */
static void expect_edge(struct gate *gate, const struct sluice_token *token, uint64_t edge, int before, int after)
{
	struct sluice_token copy = *token;
	char text[SLUICE_TOKEN_TEXT + 1];
	unsigned seen_before = 0, seen_after = 0;
	uint64_t from, to;

	gate_token_text(gate, &copy, text);
	do {
		int reason;

		from = time_mono_ns() + gate->control->wall_offset_ns;
		reason = call_text(gate, SOURCE, text).reason;
		to = time_mono_ns() + gate->control->wall_offset_ns;
		if (to < edge) {
			expect(reason == before, "%llu ns before the edge: %s", (unsigned long long)(edge - to),
				reason_label(reason));
			seen_before++;
		} else if (from >= edge) {
			expect(reason == after, "%llu ns behind the edge: %s", (unsigned long long)(from - edge),
				reason_label(reason));
			seen_after++;
		}
	} while (seen_after < EDGE_CALLS);
	assert_true(seen_before > 0);
}

static void the_window_opens_and_closes_to_the_call(void **state)
{
	struct gate *gate = *state;
	struct sluice_sale *sale = &gate->sales[GATE_SALE];
	struct sluice_token token = gate_token(1, 1);
	uint64_t now = time_mono_ns() + gate->control->wall_offset_ns;

	sale->opens_wall = now + AHEAD_NS;
	gate->stock[GATE_SALE].free = 0; /* open shows as sold out, so that one token can ask often */
	expect_edge(gate, &token, sale->opens_wall, SLUICE_REASON_NOT_OPEN, SLUICE_REASON_SOLD_OUT);
	sale->ends_wall = time_mono_ns() + gate->control->wall_offset_ns + AHEAD_NS;
	expect_edge(gate, &token, sale->ends_wall, SLUICE_REASON_SOLD_OUT, SLUICE_REASON_ENDED);
}

static void a_token_expires_to_the_call(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(1, 1);
	/* The gate's clock stands shortly before a full second. */
	uint64_t second = time_wall_ns() / SECOND_NS + 5;

	gate->control->wall_offset_ns = second * SECOND_NS - AHEAD_NS - time_mono_ns();
	token.expires_at_s = second;
	gate->stock[GATE_SALE].free = 0;
	expect_edge(gate, &token, second * SECOND_NS, SLUICE_REASON_SOLD_OUT, SLUICE_REASON_TOKEN_EXPIRED);
}

static void a_step_of_the_clock_moves_the_window_at_once(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(1, 1);
	uint64_t offset = gate->control->wall_offset_ns;

	gate->control->wall_offset_ns = offset - HOUR_NS + SECOND_NS / 2;
	expect_refused(gate, &token, SLUICE_REASON_NOT_OPEN, 3599);
	gate->control->wall_offset_ns = offset + HOUR_NS + SECOND_NS;
	expect_refused(gate, &token, SLUICE_REASON_ENDED, NO_RETRY);
	gate->control->wall_offset_ns = offset;
	expect_asked(gate, SLUICE_DOOR_CALL, &token, SLUICE_REASON_ADMITTED);
}

static void states_of_the_sale_refuse_in_their_order(void **state)
{
	struct gate *gate = *state;
	struct sluice_sale *sale = &gate->sales[GATE_SALE];
	struct sluice_token token = gate_token(1, 1);

	sale->flags = SLUICE_SALE_PAUSED;
	expect_refused(gate, &token, SLUICE_REASON_PAUSED, 5);
	sale->flags = SLUICE_SALE_CLOSED; /* its words are being changed */
	expect_refused(gate, &token, SLUICE_REASON_PAUSED, 5);
	sale->flags = SLUICE_SALE_ENDED;
	expect_refused(gate, &token, SLUICE_REASON_ENDED, NO_RETRY);
	sale->flags = SLUICE_SALE_ENDED | SLUICE_SALE_PAUSED;
	expect_refused(gate, &token, SLUICE_REASON_ENDED, NO_RETRY);
	sale->flags = SLUICE_SALE_PAUSED;
	sale->opens_wall = time_wall_ns() + HOUR_NS;
	expect_refused(gate, &token, SLUICE_REASON_PAUSED, 5);
	sale->flags = 0;
	sale->opens_wall = time_wall_ns() + 90 * SECOND_NS - SECOND_NS / 2;
	expect_refused(gate, &token, SLUICE_REASON_NOT_OPEN, 90);
	gate->stock[GATE_SALE].free = 0; /* nobody learns before the opening what is left */
	expect_refused(gate, &token, SLUICE_REASON_NOT_OPEN, 90);
	gate->control->flags = 0;
	expect_refused(gate, &token, SLUICE_REASON_NOT_OPEN, 90);
	sale->opens_wall = 0;
	expect_refused(gate, &token, SLUICE_REASON_SOLD_OUT, NO_RETRY); /* final, so said although the writer is away */
	gate->stock[GATE_SALE].free = STOCK;
	expect_refused(gate, &token, SLUICE_REASON_WRITER_AWAY, 2);
	assert_true(gate_is_conserved(gate, STOCK));
}

/* --- daemon and writer ---------------------------------------------------------------------------------------------------- */
static void orders_close_when_the_heartbeat_is_two_seconds_old(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(1, 1);

	for (int i = 0; i < 2; i++) {
		gate->control->heartbeat_mono = time_mono_ns() - 2 * SECOND_NS - MS_NS;
		expect_refused(gate, &token, SLUICE_REASON_DAEMON_AWAY, 2);
		gate->control->heartbeat_mono = 0;
		expect_refused(gate, &token, SLUICE_REASON_DAEMON_AWAY, 2);
		gate->sales[GATE_SALE].flags = SLUICE_SALE_ENDED; /* what it says may be old: not repeated */
	}
	gate->sales[GATE_SALE].flags = 0;
	gate->control->heartbeat_mono = time_mono_ns() - 2 * SECOND_NS + 500 * MS_NS;
	expect_asked(gate, SLUICE_DOOR_WIRE, &token, SLUICE_REASON_ADMITTED);
	gate->control->heartbeat_mono = time_mono_ns() - 3 * SECOND_NS;
	expect_refused(gate, &token, SLUICE_REASON_DAEMON_AWAY, 2); /* the daemon would have to answer it */
}

static void a_heartbeat_from_the_near_future_is_alive(void **state)
{
	struct gate *gate = *state;

	for (unsigned i = 0; i < 4; i++) {
		struct sluice_token token = gate_token(i + 1, i + 1);

		gate->control->heartbeat_mono = time_mono_ns() + i * SECOND_NS;
		expect_asked(gate, i & 1 ? SLUICE_DOOR_CALL : SLUICE_DOOR_WIRE, &token, SLUICE_REASON_ADMITTED);
	}
}

static void orders_close_and_open_with_the_writer(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(1, 1);

	gate->control->flags &= ~SLUICE_CONTROL_ORDERS_OPEN;
	expect_refused(gate, &token, SLUICE_REASON_WRITER_AWAY, 2);
	gate->control->flags |= SLUICE_CONTROL_ORDERS_OPEN;
	expect_asked(gate, SLUICE_DOOR_WIRE, &token, SLUICE_REASON_ADMITTED);
	assert_true(gate_is_conserved(gate, STOCK));
}

/* --- tokens --------------------------------------------------------------------------------------------------------------- */
static void a_token_with_any_bit_changed_is_refused(void **state)
{
	struct gate *gate = *state;
	struct sluice_token good = gate_token(1, 1);
	uint8_t bytes[sizeof(good)];
	char text[SLUICE_TOKEN_TEXT + 1];

	gate_token_text(gate, &good, text);
	for (unsigned bit = 0; bit < 8 * sizeof(good); bit++) {
		struct sluice_token token = good;
		static const int reasons[4] = {SLUICE_REASON_TOKEN_FORM, SLUICE_REASON_TOKEN_KEY,
			SLUICE_REASON_TOKEN_MAC, SLUICE_REASON_TOKEN_FORM};
		int reason = bit / 8 < 4 ? reasons[bit / 8] : SLUICE_REASON_TOKEN_MAC;

		memcpy(bytes, &token, sizeof(token));
		bytes[bit / 8] ^= 1 << bit % 8;
		base64url_encode(bytes, sizeof(bytes), text);
		expect_text_refused(gate, SOURCE, text, reason, NO_RETRY);
	}
	assert_true(gate_is_conserved(gate, STOCK));
	expect_asked(gate, SLUICE_DOOR_WIRE, &good, SLUICE_REASON_ADMITTED);
}

static void a_character_outside_the_alphabet_is_no_token(void **state)
{
	static const char outside[] = "+/=.~!%\n \"\\\x7f\x80\xff";
	struct gate *gate = *state;
	struct sluice_token token = gate_token(1, 1);
	char text[SLUICE_TOKEN_TEXT + 1], spoilt[SLUICE_TOKEN_TEXT + 1];

	gate_token_text(gate, &token, text);
	for (unsigned i = 0; i < SLUICE_TOKEN_TEXT; i++) {
		memcpy(spoilt, text, sizeof(text));
		spoilt[i] = outside[i % (sizeof(outside) - 1)];
		expect_text_refused(gate, SOURCE, spoilt, SLUICE_REASON_TOKEN_FORM, NO_RETRY);
		spoilt[i] = text[i] == 'A' ? 'B' : 'A'; /* of the alphabet, but another */
		assert_int_not_equal(call_text(gate, SOURCE, spoilt).reason, SLUICE_REASON_ADMITTED);
	}
	memset(spoilt, 0, sizeof(spoilt));
	assert_int_equal(call_text(gate, SOURCE, spoilt).reason, SLUICE_REASON_TOKEN_FORM);
	assert_true(gate_is_conserved(gate, STOCK));
}

static void keys_rotate_without_refusing_what_was_issued_before(void **state)
{
	struct gate *gate = *state;
	struct sluice_token old = gate_token(1, 1), new = gate_token(2, 2), newer = gate_token(3, 3),
			    late = gate_token(4, 4);
	char late_text[SLUICE_TOKEN_TEXT + 1];

	new.key_id = 2;
	newer.key_id = 3;
	gate_token_text(gate, &late, late_text);
	expect_refused(gate, &new, SLUICE_REASON_TOKEN_KEY, NO_RETRY); /* the slot is empty */
	gate->keys[0] = (struct sluice_key){.k0 = 11, .k1 = 12, .id = 2, .valid = 1};
	expect_asked(gate, SLUICE_DOOR_WIRE, &new, SLUICE_REASON_ADMITTED);
	expect_asked(gate, SLUICE_DOOR_CALL, &old, SLUICE_REASON_ADMITTED);
	/* The next rotation takes the first key's slot. */
	gate->keys[1] = (struct sluice_key){.k0 = 13, .k1 = 14, .id = 3, .valid = 1};
	expect_asked(gate, SLUICE_DOOR_CALL, &newer, SLUICE_REASON_ADMITTED);
	expect_text_refused(gate, SOURCE, late_text, SLUICE_REASON_TOKEN_KEY, NO_RETRY);
	/* The same key id with another key is a forgery. */
	late.key_id = 3;
	late.mac = sluice_token_mac(&late, 11, 12);
	base64url_encode((const uint8_t *)&late, sizeof(late), late_text);
	expect_text_refused(gate, SOURCE, late_text, SLUICE_REASON_TOKEN_MAC, NO_RETRY);
	/* A key that is withdrawn. */
	gate->keys[0].valid = 0;
	expect_refused(gate, &new, SLUICE_REASON_TOKEN_KEY, NO_RETRY);
	assert_true(gate_is_conserved(gate, STOCK));
}

static void quantity_is_one_to_what_a_buyer_may_have(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(1, 1);

	token.quantity = 0;
	expect_refused(gate, &token, SLUICE_REASON_TOKEN_QUANTITY, NO_RETRY);
	token.quantity = 2;
	expect_refused(gate, &token, SLUICE_REASON_TOKEN_QUANTITY, NO_RETRY);
	gate->sales[GATE_SALE].per_buyer = 3;
	token.quantity = 4;
	expect_refused(gate, &token, SLUICE_REASON_TOKEN_QUANTITY, NO_RETRY);
	token.quantity = 255;
	expect_refused(gate, &token, SLUICE_REASON_TOKEN_QUANTITY, NO_RETRY);
	token.quantity = 3;
	expect_asked(gate, SLUICE_DOOR_WIRE, &token, SLUICE_REASON_ADMITTED);
	assert_int_equal(gate->stock[GATE_SALE].free, STOCK - 3);
	assert_true(gate_is_conserved(gate, STOCK));
}

static void an_order_for_more_than_is_left_takes_nothing(void **state)
{
	struct gate *gate = *state;
	struct sluice_token three = gate_token(1, 1), two = gate_token(2, 2);

	gate->sales[GATE_SALE].per_buyer = 3;
	gate->stock[GATE_SALE].free = 2;
	three.quantity = 3;
	two.quantity = 2;
	expect_refused(gate, &three, SLUICE_REASON_SOLD_OUT, NO_RETRY);
	expect_asked(gate, SLUICE_DOOR_CALL, &two, SLUICE_REASON_ADMITTED);
	assert_int_equal(gate->stock[GATE_SALE].free, 0);
	assert_true(gate_is_conserved(gate, 2));
}

static void a_bound_token_is_good_in_its_network_alone(void **state)
{
	static const struct {
		const char *bound, *inside, *outside;
	} cases[] = {{"192.0.2.10", "192.0.2.250", "192.0.3.10"}, {"192.0.2.10", "192.0.2.1", "2001:db8:1::10"},
		{"2001:db8:1:7::1", "2001:db8:1:7:ffff::9", "2001:db8:1:8::1"},
		{"2001:db8:1:7::1", "2001:db8:1:7::2", "192.0.2.1"}};
	struct gate *gate = *state;
	char text[SLUICE_TOKEN_TEXT + 1];
	struct sluice_addr addr;
	struct frame frame;
	struct run run;

	for (unsigned i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
		struct sluice_token token = gate_token(i + 1, i + 1);

		assert_int_equal(addr_parse(cases[i / 2].bound, &addr), 0);
		token.network = sluice_network_of(&addr);
		gate_token_text(gate, &token, text);
		expect_text_refused(gate, cases[i / 2].outside, text, SLUICE_REASON_WRONG_NETWORK, NO_RETRY);
		if (i % 2)
			assert_int_equal(
				wire_text(gate, cases[i / 2].inside, text, &frame, &run), SLUICE_REASON_ADMITTED);
		else
			assert_int_equal(call_text(gate, cases[i / 2].inside, text).reason, SLUICE_REASON_ADMITTED);
	}
	assert_true(gate_is_conserved(gate, STOCK));
}

static void a_token_of_another_sale_is_not_for_this_one(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(1, 1);

	for (uint32_t i = 0; i < 4; i++) {
		static const uint32_t sales[] = {0, GATE_SALE + 1, GATE_SALE + SLUICE_MAX_SALES, 0xffffffff};

		token.sale = sales[i];
		expect_refused(gate, &token, SLUICE_REASON_UNKNOWN_SALE, NO_RETRY);
	}
	/* The slot goes to a sale whose id is the same modulo 1,024. */
	gate->sales[GATE_SALE].id = GATE_SALE + SLUICE_MAX_SALES;
	token.sale = GATE_SALE;
	expect_refused(gate, &token, SLUICE_REASON_UNKNOWN_SALE, NO_RETRY);
	token.sale = GATE_SALE + SLUICE_MAX_SALES;
	expect_asked(gate, SLUICE_DOOR_WIRE, &token, SLUICE_REASON_ADMITTED);
	/* And an empty slot is no sale 0. */
	gate->sales[GATE_SALE].id = 0;
	expect_refused(gate, &token, SLUICE_REASON_UNKNOWN_SALE, NO_RETRY);
}

static void no_sale_is_unknown_while_orders_are_closed(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(1, 1);

	gate->sales[GATE_SALE].id = 0;
	gate->control->flags &= ~SLUICE_CONTROL_ORDERS_OPEN;
	expect_refused(gate, &token, SLUICE_REASON_WRITER_AWAY, 2);
	gate->sales[GATE_SALE].id = GATE_SALE;
	gate->control->flags |= SLUICE_CONTROL_ORDERS_OPEN;
	expect_asked(gate, SLUICE_DOOR_WIRE, &token, SLUICE_REASON_ADMITTED);
}

static void a_serial_that_another_token_spent_is_not_an_admission(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(1, 1), twin = gate_token(1, 2);

	expect_asked(gate, SLUICE_DOOR_WIRE, &token, SLUICE_REASON_ADMITTED);
	expect_refused(gate, &twin, SLUICE_REASON_TOKEN_MAC, NO_RETRY);
	assert_true(gate_is_conserved(gate, STOCK));
}

static void a_token_that_is_being_judged_elsewhere_waits(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(1, 1);
	struct sluice_admission claim = {
		.buyer = 1, .sale = GATE_SALE, .state = SLUICE_ADMISSION_CLAIMED, .quantity = 1};
	uint64_t serial = 1;

	assert_int_equal(bpf_map_update_elem(bpf_map__fd(gate->skel->maps.admissions), &serial, &claim, 0), 0);
	expect_refused(gate, &token, SLUICE_REASON_IN_PROGRESS, NO_RETRY);
	/* What a reader sees of an entry whose claim was undone and which another token of the same buyer has now. */
	claim.serial = 2;
	claim.state = SLUICE_ADMISSION_DONE;
	assert_int_equal(bpf_map_update_elem(bpf_map__fd(gate->skel->maps.admissions), &serial, &claim, 0), 0);
	expect_refused(gate, &token, SLUICE_REASON_IN_PROGRESS, NO_RETRY);
	assert_int_equal(bpf_map_delete_elem(bpf_map__fd(gate->skel->maps.admissions), &serial), 0);
	expect_asked(gate, SLUICE_DOOR_WIRE, &token, SLUICE_REASON_ADMITTED);
	assert_true(gate_is_conserved(gate, STOCK));
}

/* --- the request ---------------------------------------------------------------------------------------------------------- */
static void expect_wire(struct gate *gate, const char *request, unsigned length, int reason)
{
	struct frame frame;
	struct run run;
	int got = wire_request(gate, SOURCE, request, length, &frame, &run);

	expect(got == reason, "'%.40s' (%u bytes): %s, not %s", request, length, reason_label(got),
		reason_label(reason));
}

static void what_is_not_an_order_to_the_letter_goes_up(void **state)
{
	static const char *const others[] = {"post /v1/orders/%s HTTP/1.1\r\n\r\n",
		"GET /v1/orders/%s HTTP/1.1\r\n\r\n", "DELETE /v1/orders/%s HTTP/1.1\r\n\r\n",
		"POST  /v1/orders/%s HTTP/1.1\r\n\r\n", "POST /v1/order/%s HTTP/1.1\r\n\r\n",
		"POST /V1/orders/%s HTTP/1.1\r\n\r\n", "POST //v1/orders/%s HTTP/1.1\r\n\r\n",
		"POST /v2/orders/%s HTTP/1.1\r\n\r\n", "POST http://shop.example/v1/orders/%s HTTP/1.1\r\n\r\n",
		"\r\nPOST /v1/orders/%s HTTP/1.1\r\n\r\n", "POST /v1/sales/drop-11/tokens HTTP/1.1\r\nX: %s\r\n\r\n"};
	struct gate *gate = *state;
	struct sluice_token token = gate_token(1, 1);
	char text[SLUICE_TOKEN_TEXT + 1], request[512];

	gate_token_text(gate, &token, text);
	for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(request, sizeof(request), others[i], text);
#pragma GCC diagnostic pop
		expect_wire(gate, request, strlen(request), SLUICE_REASON_REQUEST);
	}
	assert_int_equal(gate->stock[GATE_SALE].free, STOCK);
}

static void a_token_of_another_length_is_no_token(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(1, 1);
	char text[SLUICE_TOKEN_TEXT + 1], request[512];
	unsigned length;

	gate_token_text(gate, &token, text);
	for (int keep = 0; keep < SLUICE_TOKEN_TEXT; keep++) {
		length = snprintf(request, sizeof(request),
			"POST /v1/orders/%.*s HTTP/1.1\r\nHost: shop.example\r\n\r\n%64s", keep, text, "");
		expect_wire(gate, request, length, SLUICE_REASON_TOKEN_FORM);
	}
	length = snprintf(request, sizeof(request), "POST /v1/orders/%sA HTTP/1.1\r\n\r\n", text);
	expect_wire(gate, request, length, SLUICE_REASON_TOKEN_FORM);
	length = snprintf(request, sizeof(request), "POST /v1/orders/%s/ HTTP/1.1\r\n\r\n", text);
	expect_wire(gate, request, length, SLUICE_REASON_TOKEN_FORM);
	assert_true(gate_is_conserved(gate, STOCK));
	length = snprintf(request, sizeof(request), "POST /v1/orders/%s?ref=mail HTTP/1.1\r\n\r\n", text);
	expect_wire(gate, request, length, SLUICE_REASON_ADMITTED);
	assert_true(gate_is_conserved(gate, STOCK));
}

static void an_order_cut_before_the_end_of_its_token_is_for_the_call_door(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(1, 1);
	char text[SLUICE_TOKEN_TEXT + 1], request[512];
	unsigned length;

	gate_token_text(gate, &token, text);
	length = gate_order_request(text, request, sizeof(request));
	for (unsigned cut = 1; cut <= PATH_LENGTH + SLUICE_TOKEN_TEXT; cut++)
		expect_wire(gate, request, cut, cut < 8 ? SLUICE_REASON_REQUEST : SLUICE_REASON_REQUEST_UNREAD);
	assert_true(gate_is_conserved(gate, STOCK));
	assert_int_equal(gate->stock[GATE_SALE].free, STOCK);
	assert_int_equal(call_text(gate, SOURCE, text).reason, SLUICE_REASON_ADMITTED);
	for (unsigned cut = PATH_LENGTH + SLUICE_TOKEN_TEXT + 1; cut <= length; cut++)
		expect_wire(gate, request, cut, SLUICE_REASON_ADMITTED_AGAIN);
	assert_true(gate_is_conserved(gate, STOCK));
}

/* --- flow ----------------------------------------------------------------------------------------------------------------- */
static void the_pace_of_a_sale_counts_units(void **state)
{
	struct gate *gate = *state;
	struct sluice_sale *sale = &gate->sales[GATE_SALE];
	struct sluice_token late;

	sale->per_buyer = 3;
	sale->pace = (struct sluice_limit){.interval_ns = 20 * SECOND_NS};
	for (unsigned i = 1; i <= 3; i++) {
		struct sluice_token token = gate_token(i, i), next = gate_token(10 + i, 10 + i);

		gate->stock[GATE_SALE].pace_tat = 0;
		token.quantity = i;
		expect_asked(gate, i & 1 ? SLUICE_DOOR_CALL : SLUICE_DOOR_WIRE, &token, SLUICE_REASON_ADMITTED);
		expect_refused(gate, &next, SLUICE_REASON_PACE, 20 * i);
	}
	sale->pace.interval_ns = 0; /* off */
	late = gate_token(11, 11);
	expect_asked(gate, SLUICE_DOOR_WIRE, &late, SLUICE_REASON_ADMITTED);
	assert_true(gate_is_conserved(gate, STOCK));
}

static void one_sales_pace_and_stock_are_not_anothers(void **state)
{
	struct gate *gate = *state;
	struct sluice_token first = gate_token(1, 1), second = gate_token(2, 1), third = gate_token(3, 3);

	gate->sales[8] = gate->sales[GATE_SALE];
	gate->sales[8].id = 8;
	gate->stock[8].free = 1;
	gate->sales[GATE_SALE].pace = (struct sluice_limit){.interval_ns = HOUR_NS};
	second.sale = third.sale = 8;
	expect_asked(gate, SLUICE_DOOR_WIRE, &first, SLUICE_REASON_ADMITTED);
	expect_asked(gate, SLUICE_DOOR_WIRE, &second, SLUICE_REASON_ADMITTED); /* the same buyer, another sale */
	assert_int_equal(ask(gate, SLUICE_DOOR_CALL, &third), SLUICE_REASON_SOLD_OUT);
	assert_int_equal(gate->stock[GATE_SALE].free, STOCK - 1);
	assert_int_equal(gate->stock[8].free, 0);
	assert_int_equal(gate->stock[GATE_SALE].taken, 1);
	assert_int_equal(gate->stock[8].taken, 1);
}

static void orders_close_while_the_backlog_is_full(void **state)
{
	struct gate *gate = *state;
	struct sluice_token last = gate_token(9, 9);

	gate->control->backlog_max = 3;
	for (unsigned i = 1; i <= 3; i++) {
		struct sluice_token token = gate_token(i, i);

		expect_asked(gate, i & 1 ? SLUICE_DOOR_CALL : SLUICE_DOOR_WIRE, &token, SLUICE_REASON_ADMITTED);
	}
	expect_refused(gate, &last, SLUICE_REASON_BACKLOG, 1);
	__atomic_fetch_sub(&gate->control->in_flight, 1, __ATOMIC_SEQ_CST); /* one is durable */
	expect_asked(gate, SLUICE_DOOR_WIRE, &last, SLUICE_REASON_ADMITTED);
	assert_true(gate_is_conserved(gate, STOCK));
}

static void a_buyer_has_no_more_units_than_allowed_with_any_number_of_tokens(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token;

	gate->sales[GATE_SALE].per_buyer = 3;
	token = gate_token(1, 77);
	token.quantity = 2;
	expect_asked(gate, SLUICE_DOOR_WIRE, &token, SLUICE_REASON_ADMITTED);
	for (unsigned i = 2; i < 20; i++) {
		token = gate_token(i, 77);
		token.quantity = 2 + i % 2;
		expect_refused(gate, &token, SLUICE_REASON_BUYER_LIMIT, NO_RETRY);
		assert_true(gate_is_conserved(gate, STOCK));
	}
	token = gate_token(20, 77);
	expect_asked(gate, SLUICE_DOOR_CALL, &token, SLUICE_REASON_ADMITTED);
	token = gate_token(21, 77);
	expect_refused(gate, &token, SLUICE_REASON_BUYER_LIMIT, NO_RETRY);
	token = gate_token(22, 78);
	expect_asked(gate, SLUICE_DOOR_CALL, &token, SLUICE_REASON_ADMITTED);
	assert_true(gate_is_conserved(gate, STOCK));
}

/* A token that was refused is not spent: the limit may be raised. */
static void a_refused_claim_leaves_the_token_as_it_was(void **state)
{
	struct gate *gate = *state;
	struct sluice_token first = gate_token(1, 77), second = gate_token(2, 77);

	expect_asked(gate, SLUICE_DOOR_WIRE, &first, SLUICE_REASON_ADMITTED);
	expect_refused(gate, &second, SLUICE_REASON_BUYER_LIMIT, NO_RETRY);
	gate->sales[GATE_SALE].per_buyer = 2;
	expect_asked(gate, SLUICE_DOOR_WIRE, &second, SLUICE_REASON_ADMITTED);
	assert_true(gate_is_conserved(gate, STOCK));
}

static int pass_over(void *context, void *data, size_t size)
{
	(void)context;
	(void)data;
	(void)size;
	return 0;
}

/* The daemon sleeps until the ring wakes it. What it was not woken for lies in its way: the ring calls only who is at the record that is new. */
static void a_refused_claim_keeps_nobody_from_hearing_of_the_next_admission(void **state)
{
	struct gate *gate = *state;
	struct ring_buffer *reader = ring_buffer__new(bpf_map__fd(gate->skel->maps.ring), pass_over, NULL, NULL);
	struct pollfd ring = {.fd = reader ? ring_buffer__epoll_fd(reader) : -1, .events = POLLIN};
	struct sluice_token token = gate_token(1, 77);

	assert_non_null(reader);
	expect_asked(gate, SLUICE_DOOR_WIRE, &token, SLUICE_REASON_ADMITTED);
	assert_int_equal(ring_buffer__consume(reader), 1);
	assert_int_equal(poll(&ring, 1, 0), 0);
	for (unsigned i = 0; i < 3; i++) {
		token = gate_token(10 + i, 77);
		expect_refused(gate, &token, SLUICE_REASON_BUYER_LIMIT, NO_RETRY);
		if (poll(&ring, 1, WAKE_MS) > 0)
			assert_int_equal(ring_buffer__consume(reader), 0);
		token = gate_token(20 + i, 100 + i);
		expect_asked(gate, SLUICE_DOOR_CALL, &token, SLUICE_REASON_ADMITTED);
		assert_int_equal(poll(&ring, 1, WAKE_MS), 1);
		assert_int_equal(ring_buffer__consume(reader), 1);
	}
	ring_buffer__free(reader);
}

/* --- full ----------------------------------------------------------------------------------------------------------------- */
static void a_full_ring_refuses_and_takes_nothing(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token;
	unsigned i, records = RING_BYTES / (sizeof(struct sluice_admitted) + 8);

	gate->stock[GATE_SALE].free = 2 * records;
	for (i = 1; i <= records; i++) {
		token = gate_token(i, i);
		if (ask(gate, SLUICE_DOOR_CALL, &token) != SLUICE_REASON_ADMITTED)
			break;
	}
	assert_true(i > records - 3);
	for (; i < records + 5; i++) {
		token = gate_token(i, i);
		expect_refused(gate, &token, SLUICE_REASON_RING_FULL, 1);
	}
	assert_true(gate_is_conserved(gate, 2 * records));
	assert_int_equal(gate_ring_drain(gate, NULL, 0), gate->stock[GATE_SALE].taken);
	expect_asked(gate, SLUICE_DOOR_WIRE, &token, SLUICE_REASON_ADMITTED);
	assert_true(gate_is_conserved(gate, 2 * records));
}

static void full_maps_refuse_and_take_nothing(void **state)
{
	struct gate *gate = *state;
	int admissions = bpf_map__fd(gate->skel->maps.admissions), buyers = bpf_map__fd(gate->skel->maps.buyers);
	struct sluice_admission other = {.sale = 99, .state = SLUICE_ADMISSION_DONE};
	struct sluice_buyer_key key = {.sale = 99};
	struct sluice_buyer none = {0};
	struct sluice_token token = gate_token(1, 1);
	uint64_t serial;

	/* Admissions of other sales fill the map; then buyers do. */
	for (serial = 1000; !bpf_map_update_elem(admissions, &serial, &other, BPF_NOEXIST); serial++)
		;
	assert_int_equal(serial, 1000 + ROOM);
	expect_refused(gate, &token, SLUICE_REASON_ADMISSIONS_FULL, 1);
	assert_true(gate_is_conserved(gate, STOCK));
	serial = 1000;
	assert_int_equal(bpf_map_delete_elem(admissions, &serial), 0);
	for (key.buyer = 1000; !bpf_map_update_elem(buyers, &key, &none, BPF_NOEXIST); key.buyer++)
		;
	assert_int_equal(key.buyer, 1000 + ROOM);
	expect_refused(gate, &token, SLUICE_REASON_BUYERS_FULL, 1);
	assert_true(gate_is_conserved(gate, STOCK));
	/* The claim of the token was undone: there is room for one admission, and no more. */
	key.buyer = 1000;
	assert_int_equal(bpf_map_delete_elem(buyers, &key), 0);
	expect_asked(gate, SLUICE_DOOR_WIRE, &token, SLUICE_REASON_ADMITTED);
	expect_asked(gate, SLUICE_DOOR_CALL, &token, SLUICE_REASON_ADMITTED_AGAIN);
	token = gate_token(2, 2);
	expect_refused(gate, &token, SLUICE_REASON_ADMISSIONS_FULL, 1);
	assert_true(gate_is_conserved(gate, STOCK));
}

static void calls_are_counted_under_their_reason_and_not_among_packets(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(1, 1);
	uint64_t admitted = gate_called(gate, SLUICE_REASON_ADMITTED),
		 again = gate_called(gate, SLUICE_REASON_ADMITTED_AGAIN);
	uint64_t packets = gate_counted_all(gate);

	for (int i = 0; i < 5; i++)
		ask(gate, SLUICE_DOOR_CALL, &token);
	assert_int_equal(gate_called(gate, SLUICE_REASON_ADMITTED) - admitted, 1);
	assert_int_equal(gate_called(gate, SLUICE_REASON_ADMITTED_AGAIN) - again, 4);
	assert_int_equal(gate_counted_all(gate), packets);
}

static int setup_small_gate(void **state)
{
	static struct gate gate;

	gate_open(&gate, &(struct gate_sizes){.admissions = ROOM, .buyers = ROOM, .ring_bytes = RING_BYTES});
	*state = &gate;
	return 0;
}

static void who_is_not_admitted_gives_the_pace_back(void **state)
{
	struct gate *gate = *state;
	struct sluice_token tokens[] = {gate_token(1, 1), gate_token(2, 1), gate_token(3, 3)};
	static const int reasons[] = {SLUICE_REASON_ADMITTED, SLUICE_REASON_BUYER_LIMIT, SLUICE_REASON_ADMITTED};

	gate->sales[GATE_SALE].pace =
		(struct sluice_limit){.interval_ns = 3600000000000ULL, .tolerance_ns = 3600000000000ULL};
	for (int i = 0; i < 3; i++) {
		char text[SLUICE_TOKEN_TEXT + 1];
		struct run run;

		gate_token_text(gate, &tokens[i], text);
		gate_order(gate, i & 1, (uint16_t)(43000 + i), text, &run);
		expect_reason(&run, reasons[i], "order %d of a sale whose pace allows two", i + 1);
	}
}

/* --- what becomes of an admission ------------------------------------------------------------------------------------------- */
static int late(struct gate *gate, unsigned op, unsigned flags, uint32_t sale, uint64_t buyer, unsigned quantity)
{
	struct sluice_call call = {
		.op = op, .flags = flags, .admission = {.sale = sale, .buyer = buyer, .quantity = (__u8)quantity}};

	gate_call(gate, &call);
	return (int)call.reason;
}

static unsigned units_of(struct gate *gate, uint64_t buyer)
{
	struct sluice_buyer_key key = {.buyer = buyer, .sale = GATE_SALE};
	struct sluice_buyer value = {0};

	return bpf_map_lookup_elem(bpf_map__fd(gate->skel->maps.buyers), &key, &value) ? 0 : value.units;
}

static void a_released_order_gives_its_units_back_and_its_buyer_may_order_again(void **state)
{
	struct gate *gate = *state;
	struct sluice_token first = gate_token(1, 1), again = gate_token(2, 1), other = gate_token(3, 3);

	gate->stock[GATE_SALE].free = 1;
	expect_asked(gate, SLUICE_DOOR_WIRE, &first, SLUICE_REASON_ADMITTED);
	expect_asked(gate, SLUICE_DOOR_WIRE, &other, SLUICE_REASON_SOLD_OUT);
	assert_int_equal(late(gate, SLUICE_CALL_RELEASE, 0, GATE_SALE, 1, 1), SLUICE_REASON_NONE);
	assert_int_equal(gate->stock[GATE_SALE].free, 1);
	assert_int_equal(units_of(gate, 1), 0);
	/* The token is spent all the same. */
	expect_asked(gate, SLUICE_DOOR_WIRE, &first, SLUICE_REASON_ADMITTED_AGAIN);
	expect_asked(gate, SLUICE_DOOR_CALL, &again, SLUICE_REASON_ADMITTED);
	assert_int_equal(gate->stock[GATE_SALE].free, 0);
	assert_int_equal(units_of(gate, 1), 1);
}

static void units_that_are_kept_come_back_to_nobody(void **state)
{
	struct gate *gate = *state;
	struct sluice_token token = gate_token(1, 1);

	expect_asked(gate, SLUICE_DOOR_CALL, &token, SLUICE_REASON_ADMITTED);
	assert_int_equal(late(gate, SLUICE_CALL_RELEASE, SLUICE_CALL_KEEP, GATE_SALE, 1, 1), SLUICE_REASON_NONE);
	assert_int_equal(gate->stock[GATE_SALE].free, STOCK - 1);
	assert_int_equal(units_of(gate, 1), 0);
}

static void a_late_order_is_claimed_whole_or_not_at_all(void **state)
{
	struct gate *gate = *state;

	gate->sales[GATE_SALE].per_buyer = 3;
	gate->stock[GATE_SALE].free = 3;
	assert_int_equal(late(gate, SLUICE_CALL_RECLAIM, 0, GATE_SALE, 1, 2), SLUICE_REASON_NONE);
	assert_int_equal(gate->stock[GATE_SALE].free, 1);
	assert_int_equal(units_of(gate, 1), 2);
	assert_int_equal(late(gate, SLUICE_CALL_RECLAIM, 0, GATE_SALE, 1, 2), SLUICE_REASON_BUYER_LIMIT);
	assert_int_equal(late(gate, SLUICE_CALL_RECLAIM, 0, GATE_SALE, 2, 4), SLUICE_REASON_BUYER_LIMIT);
	assert_int_equal(late(gate, SLUICE_CALL_RECLAIM, 0, GATE_SALE, 2, 2), SLUICE_REASON_SOLD_OUT);
	assert_int_equal(gate->stock[GATE_SALE].free, 1);
	assert_int_equal(units_of(gate, 1), 2);
	assert_int_equal(units_of(gate, 2), 0);
	/* A sale that the slot has no more, or never had. */
	assert_int_equal(
		late(gate, SLUICE_CALL_RECLAIM, 0, GATE_SALE + SLUICE_MAX_SALES, 3, 1), SLUICE_REASON_UNKNOWN_SALE);
	assert_int_equal(late(gate, SLUICE_CALL_RELEASE, 0, GATE_SALE + SLUICE_MAX_SALES, 3, 1), SLUICE_REASON_NONE);
	assert_int_equal(late(gate, SLUICE_CALL_RECLAIM, 0, 0, 3, 1), SLUICE_REASON_UNKNOWN_SALE);
	assert_int_equal(gate->stock[GATE_SALE].free, 1);
}

static void what_the_ledger_says_of_an_order_is_no_verdict(void **state)
{
	struct gate *gate = *state;
	uint64_t before = 0, after = 0;

	for (int reason = 0; reason < SLUICE_REASON_COUNT; reason++)
		before += gate_called(gate, reason);
	late(gate, SLUICE_CALL_RECLAIM, 0, GATE_SALE, 1, 1);
	late(gate, SLUICE_CALL_RELEASE, 0, GATE_SALE, 1, 1);
	for (int reason = 0; reason < SLUICE_REASON_COUNT; reason++)
		after += gate_called(gate, reason);
	assert_int_equal(before, after);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		gate_test(who_is_not_admitted_gives_the_pace_back),
		gate_test(an_admission_is_recorded_once_with_all_that_is_known),
		gate_test(one_token_a_thousand_times_is_one_unit),
		gate_test(the_call_door_gives_the_admission_again),
		gate_test(a_released_order_gives_its_units_back_and_its_buyer_may_order_again),
		gate_test(units_that_are_kept_come_back_to_nobody),
		gate_test(a_late_order_is_claimed_whole_or_not_at_all),
		gate_test(what_the_ledger_says_of_an_order_is_no_verdict),
		gate_test(the_stock_is_sold_to_the_last_unit_and_not_beyond),
		gate_test(an_admitted_token_is_told_so_whatever_has_changed_since),
		gate_test(the_window_opens_and_closes_to_the_call),
		gate_test(a_token_expires_to_the_call),
		gate_test(a_step_of_the_clock_moves_the_window_at_once),
		gate_test(states_of_the_sale_refuse_in_their_order),
		gate_test(orders_close_when_the_heartbeat_is_two_seconds_old),
		gate_test(a_heartbeat_from_the_near_future_is_alive),
		gate_test(orders_close_and_open_with_the_writer),
		gate_test(a_token_with_any_bit_changed_is_refused),
		gate_test(a_character_outside_the_alphabet_is_no_token),
		gate_test(keys_rotate_without_refusing_what_was_issued_before),
		gate_test(quantity_is_one_to_what_a_buyer_may_have),
		gate_test(an_order_for_more_than_is_left_takes_nothing),
		gate_test(a_bound_token_is_good_in_its_network_alone),
		gate_test(a_token_of_another_sale_is_not_for_this_one),
		gate_test(no_sale_is_unknown_while_orders_are_closed),
		gate_test(a_serial_that_another_token_spent_is_not_an_admission),
		gate_test(a_token_that_is_being_judged_elsewhere_waits),
		gate_test(what_is_not_an_order_to_the_letter_goes_up),
		gate_test(a_token_of_another_length_is_no_token),
		gate_test(an_order_cut_before_the_end_of_its_token_is_for_the_call_door),
		gate_test(the_pace_of_a_sale_counts_units),
		gate_test(one_sales_pace_and_stock_are_not_anothers),
		gate_test(orders_close_while_the_backlog_is_full),
		gate_test(a_buyer_has_no_more_units_than_allowed_with_any_number_of_tokens),
		gate_test(a_refused_claim_leaves_the_token_as_it_was),
		gate_test(a_refused_claim_keeps_nobody_from_hearing_of_the_next_admission),
		gate_test(a_full_ring_refuses_and_takes_nothing),
		gate_test(full_maps_refuse_and_take_nothing),
		gate_test(calls_are_counted_under_their_reason_and_not_among_packets),
	};

	return cmocka_run_group_tests_name("judge", tests, setup_small_gate, close_gate);
}
