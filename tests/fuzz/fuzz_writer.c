/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Fuzz target: the order writer behind its socket: userspace/writer/server.c, query.c and the SQLite store, on a real ledger.
 *
 * The input is what the daemon's side does: frames that are built, frames with any body, bytes without a plan, in pieces of any size, and new
 * connections in between. Everything runs in one thread: the server's own poll() is the point at which the other side does its next step,
 * and only when the server has nothing else to do. Claims: every good frame is answered once, in order, with its id; each record has its
 * acknowledgement; no order is stored twice; no order changes its state in a way that it may not; no sum is ever above its limit; a key
 * gets its first answer again; the ledger passes its own audit in the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "check.h"
#include "common/wire.h"
#include "scratch.h"
#include "writer/server.h"
#include "writer/store.h"

#define NOW_NS 1800000000000000000ULL
#define LEDGER_BYTES_MAX (1u << 20)
#define ANSWER_BYTES_MAX (WIRE_BODY_MAX + sizeof(struct wire_header))
#define SENT_MAX 64
#define ONCE_KEYS 4
#define STORED_MAX 4096
#define STEPS_MAX 48
#define BODY_BYTES 4096
#define PER_BUYER 2
#define STOCK 6
#define SALES_KNOWN 8 /* sales whose figures are followed: ids below this */

int __real_poll(struct pollfd *pollers, nfds_t count, int timeout_ms);
int __wrap_poll(struct pollfd *pollers, nfds_t count, int timeout_ms);

/* Must stay in this order: it is the form of the inputs that are kept. */
enum step {
	STEP_BYTES,
	STEP_HELLO,
	STEP_ADMIT,
	STEP_QUERY_TEXT,
	STEP_QUERY,
	STEP_CONNECT,
	STEP_FRAME,
	STEP_RECORDS,
	STEP_COUNT
};

struct sent_frame {
	uint64_t id;
	uint16_t type;
	unsigned count; /* of records */
	bool is_plain;  /* cannot have changed an order that is not told of */
	int once;       /* its idempotency key, -1 = none */
	struct wire_admit records[BODY_BYTES / sizeof(struct wire_admit)];
};

static struct {
	char socket[SCRATCH_MAX + 16], ledger[SCRATCH_MAX + 16];
	int listener, stop;
	char empty[LEDGER_BYTES_MAX]; /* a ledger with two sales and no order */
	size_t empty_bytes;
	struct store *store;
	bool is_used; /* the ledger is not the empty one any more, or may not be */
	/* the other side */
	struct input *script;
	unsigned steps;
	int fd;
	bool is_wild;   /* bytes without a plan were sent: what is answered to what is not known any more */
	bool is_broken; /* a frame that ends the connection was sent */
	bool is_blind; /* an answer was lost, or was to what is not known: what became of orders is not followed any more */
	uint8_t out[2 * BODY_BYTES];
	size_t out_length, out_sent, piece;
	struct sent_frame sent[SENT_MAX];
	unsigned sent_first, sent_count;
	uint64_t next_id;
	uint8_t in[ANSWER_BYTES_MAX];
	size_t in_length;
	struct wire_admit stored[STORED_MAX];
	enum wire_order_state states[STORED_MAX]; /* as it was last told */
	unsigned stored_count;
	char *once[ONCE_KEYS]; /* the first answer to each key */
	unsigned per_buyer[SALES_KNOWN];
} side;

/* --- answers ------------------------------------------------------------------------------------------------------------------------ */
/* A record that the ledger has just stored. */
static void check_stored(const struct wire_admit *record)
{
	uint64_t units = record->quantity;

	CHECK(record->quantity, "an order of nothing");
	for (unsigned i = 0; i < side.stored_count; i++) {
		CHECK(side.stored[i].serial != record->serial, "order %llx was stored twice",
			(unsigned long long)record->serial);
		if (side.stored[i].sale == record->sale && side.stored[i].buyer == record->buyer &&
			store_state_is_live(side.states[i]))
			units += side.stored[i].quantity;
	}
	if (record->sale < SALES_KNOWN && !side.is_blind)
		CHECK(units <= side.per_buyer[record->sale], "buyer %llu has %llu units of sale %u, and may have %u",
			(unsigned long long)record->buyer, (unsigned long long)units, record->sale,
			side.per_buyer[record->sale]);
	if (side.stored_count == STORED_MAX)
		return;
	side.states[side.stored_count] = WIRE_ORDER_HELD;
	side.stored[side.stored_count++] = *record;
}

/* A change that the ledger has just made. */
static void check_changed(uint64_t serial, enum wire_order_state state)
{
	static const unsigned may_follow[] = {[WIRE_ORDER_HELD] = 0,
		[WIRE_ORDER_CONFIRMED] = 1u << WIRE_ORDER_HELD | 1u << WIRE_ORDER_EXPIRED,
		[WIRE_ORDER_CANCELLED] = 1u << WIRE_ORDER_HELD,
		[WIRE_ORDER_EXPIRED] = 1u << WIRE_ORDER_HELD,
		[WIRE_ORDER_REFUNDED] = 1u << WIRE_ORDER_CONFIRMED};

	for (unsigned i = 0; i < side.stored_count && !side.is_blind; i++) {
		if (side.stored[i].serial != serial)
			continue;
		CHECK(may_follow[state] & 1u << side.states[i], "order %llx went from %s to %s",
			(unsigned long long)serial, store_state_word(side.states[i]), store_state_word(state));
		side.states[i] = state;
	}
}

static void check_results(const json_t *results)
{
	const json_t *result;
	size_t i;

	json_array_foreach(results, i, result) {
		const char *word = json_string_value(json_object_get(result, "result"));
		const json_t *order = json_object_get(result, "order");

		CHECK(word && json_is_string(json_object_get(result, "id")), "a result without its fields");
		CHECK(json_is_null(order) == !strcmp(word, "not_found"), "an order that is not there");
		if (!strcmp(word, "changed"))
			check_changed(strtoull(json_string_value(json_object_get(result, "id")), NULL, 16),
				store_state_of_word(json_string_value(json_object_get(order, "state"))));
	}
}

/* Whatever was asked with a key gets the answer that the first question with it got, unless that was of an order that is not there: it may come yet.
 * Returns whether this was the first.
 */
static bool check_once(int key, const void *body, size_t length)
{
	static const char passing[] = "\"not_found\"";

	if (key < 0)
		return true;
	if (!side.once[key]) {
		if (memmem(body, length, passing, sizeof(passing) - 1))
			return true;
		side.once[key] = strndup(body, length);
		return true;
	}
	CHECK(strlen(side.once[key]) == length && !memcmp(side.once[key], body, length), "key %d has two answers", key);
	return false;
}

static void check_known(const struct wire_ack *ack)
{
	for (unsigned i = 0; i < side.stored_count && !side.is_blind; i++)
		CHECK(side.stored[i].serial != ack->serial || side.states[i] == ack->order_state,
			"order %llx is said to be %u", (unsigned long long)ack->serial, ack->order_state);
}

static void check_acks(const struct sent_frame *frame, const struct wire_ack *acks, size_t count)
{
	CHECK(count == frame->count, "%zu acknowledgements for %u records", count, frame->count);
	for (size_t i = 0; i < count; i++) {
		CHECK(acks[i].serial == frame->records[i].serial, "an acknowledgement of another record");
		CHECK(acks[i].status >= WIRE_ACK_STORED && acks[i].status <= WIRE_ACK_REFUSED, "status %u",
			acks[i].status);
		CHECK((acks[i].status == WIRE_ACK_REFUSED) == !acks[i].seq, "seq %llu",
			(unsigned long long)acks[i].seq);
		CHECK((acks[i].status == WIRE_ACK_REFUSED) == !acks[i].order_state, "state %u", acks[i].order_state);
		if (acks[i].status == WIRE_ACK_KNOWN)
			check_known(&acks[i]);
		if (acks[i].status == WIRE_ACK_STORED)
			check_stored(&frame->records[i]);
	}
}

static void check_range(const json_t *sale, const char *name, json_int_t low, json_int_t high)
{
	const json_t *value = json_object_get(sale, name);

	CHECK(json_is_integer(value) && json_integer_value(value) >= low && json_integer_value(value) <= high,
		"%s of a sale is %lld", name, (long long)json_integer_value(value));
}

static void check_json(const void *body, size_t length, bool is_error)
{
	json_t *answer = json_loadb(body, length, JSON_REJECT_DUPLICATES, NULL), *json = answer;
	json_int_t id;

	CHECK(json_is_object(json), "an answer that is no JSON object: %.*s", (int)length, (const char *)body);
	CHECK(!is_error || (json_string_length(json_object_get(json, "code")) && json_object_get(json, "detail")),
		"an error without a code");
	CHECK(!is_error || strcmp(json_string_value(json_object_get(json, "code")), "store_error") != 0,
		"the store failed: %s", json_string_value(json_object_get(json, "detail")));
	check_results(json_object_get(answer, "results"));
	json = json_object_get(answer, "sale");
	id = json_integer_value(json_object_get(json, "id"));
	if (json && id < SALES_KNOWN)
		side.per_buyer[id] = (unsigned)json_integer_value(json_object_get(json, "per_buyer"));
	if (json) { /* as docs/writer-protocol.md has the ranges */
		check_range(json, "id", 1, UINT32_MAX);
		check_range(json, "opens_ns", 0, INT64_MAX);
		check_range(json, "ends_ns", 1, INT64_MAX);
		check_range(json, "per_buyer", 1, SLUICE_MAX_QUANTITY);
		check_range(json, "hold_seconds", 0, UINT32_MAX);
		check_range(json, "pace_per_second", 0, 1000000000);
		check_range(json, "token_multiplier", 0, 1000000);
		check_range(json, "put_in", 0, INT64_MAX);
		CHECK(json_string_length(json_object_get(json, "slug")) <= STORE_SLUG_MAX, "slug");
	}
	json_decref(answer);
}

static void take_answer(const struct wire_header *header, const void *body)
{
	static const struct sent_frame unknown = {.once = -1};
	const struct sent_frame *frame = &unknown;

	CHECK(!wire_header_check(header), "a malformed answer");
	if (!side.is_wild) {
		CHECK(side.sent_count, "an answer to nothing");
		frame = &side.sent[side.sent_first];
		side.sent_first = (side.sent_first + 1) % SENT_MAX;
		side.sent_count--;
		CHECK(header->id == frame->id, "id %llu, not %llu", (unsigned long long)header->id,
			(unsigned long long)frame->id);
		CHECK(header->type == frame->type || header->type == WIRE_ERROR, "type %u for a %u", header->type,
			frame->type);
	}
	side.is_used |= header->type == WIRE_ADMIT || header->type == WIRE_QUERY;
	side.is_blind |= side.is_wild || (header->type == WIRE_QUERY && !frame->is_plain);
	if (header->type == WIRE_QUERY && !side.is_blind && !check_once(frame->once, body, header->length))
		return;
	if (header->type != WIRE_ADMIT)
		check_json(body, header->length, header->type == WIRE_ERROR);
	else if (!side.is_wild)
		check_acks(frame, body, header->length / sizeof(struct wire_ack));
}

/* Takes what the server has sent. Returns false at the end of the connection. */
static bool read_answers(void)
{
	struct wire_header header;
	ssize_t got;

	while ((got = recv(side.fd, side.in + side.in_length, sizeof(side.in) - side.in_length, MSG_DONTWAIT)) > 0) {
		size_t used = 0;

		side.in_length += (size_t)got;
		while (side.in_length - used >= sizeof(header)) {
			memcpy(&header, side.in + used, sizeof(header));
			CHECK(header.length <= WIRE_BODY_MAX, "an answer of %u bytes", header.length);
			if (side.in_length - used < sizeof(header) + header.length)
				break;
			/* acknowledgements are read as they are, so at an address that fits them */
			memmove(side.in, side.in + used, side.in_length - used);
			side.in_length -= used;
			used = 0;
			take_answer(&header, side.in + sizeof(header));
			used = sizeof(header) + header.length;
		}
		memmove(side.in, side.in + used, side.in_length - used);
		side.in_length -= used;
	}
	return got < 0;
}

/* --- the other side's steps ---------------------------------------------------------------------------------------------------------- */
static void hang_up(void)
{
	if (side.fd >= 0)
		close(side.fd);
	side.fd = -1;
	side.is_blind |= side.is_wild || side.sent_count;
	side.out_length = side.out_sent = side.in_length = 0;
	side.sent_count = 0;
	side.is_wild = side.is_broken = false;
}

static void connect_anew(void)
{
	hang_up();
	side.fd = wire_connect(side.socket);
	CHECK(side.fd >= 0, "cannot connect: %s", strerror(-side.fd));
}

/* `declared` is what the header says of the length. */
static void send_frame(uint16_t type, const void *body, size_t length, size_t declared)
{
	struct wire_header header = {.magic = WIRE_MAGIC,
		.version = WIRE_VERSION,
		.type = type,
		.id = side.next_id++,
		.length = (uint32_t)declared};
	struct sent_frame *frame = &side.sent[(side.sent_first + side.sent_count) % SENT_MAX];

	memcpy(side.out, &header, sizeof(header));
	memcpy(side.out + sizeof(header), body, length);
	side.out_length = sizeof(header) + length;
	if (declared != length)
		side.is_wild = true;
	if (side.is_wild)
		return;
	/* Malformed: it ends the connection, and nothing is answered to it. */
	if (!length || type < WIRE_HELLO || type > WIRE_QUERY ||
		(type == WIRE_ADMIT && length % sizeof(frame->records[0]) != 0)) {
		side.is_broken = true;
		return;
	}
	CHECK(side.sent_count < SENT_MAX, "%u frames without an answer", side.sent_count);
	side.sent_count++;
	frame->id = header.id;
	frame->type = type;
	frame->count = 0;
	frame->is_plain = true;
	frame->once = -1;
	if (type == WIRE_ADMIT) {
		frame->count = (unsigned)(length / sizeof(frame->records[0]));
		memcpy(frame->records, body, length);
	}
}

static void send_records(struct input *input)
{
	struct wire_admit records[8];
	unsigned count = 1 + input_u8(input) % 8;

	for (unsigned i = 0; i < count; i++) {
		uint8_t serial = input_u8(input), choice = input_u8(input);

		records[i] = (struct wire_admit){.serial = serial,
			.buyer = 1 + (choice & 7),
			.source = {.lo = 0xffffc0000201ULL},
			.admitted_wall_ns = serial & 1 ? NOW_NS : 1, /* the time of the others is over */
			.sale = 1 + (choice >> 3 & 3),
			.quantity = choice >> 5 & 3,
			.hold_seconds = 900};
	}
	send_frame(WIRE_ADMIT, records, count * sizeof(records[0]), count * sizeof(records[0]));
}

/* Writes one of the questions about what becomes of orders, and the rest of what the ledger keeps. Returns its length; *once: the
 * idempotency key in it.
 */
static int write_life_query(char *text, size_t size, uint8_t op, uint8_t a, uint8_t b, int *once)
{
	static const char *const actions[] = {"confirm", "cancel", "expire", "refund\",\"restock\":true,\"by\":\"shop",
		"refund\",\"restock\":false,\"by\":\"shop"};
	static const char *const events[] = {"opened", "sold_out", "restocked", "ended"};
	int length;

	switch (op % 9) {
	case 0:
	case 1:
		length = snprintf(text, size,
			"{\"op\":\"orders_change\",\"changes\":[{\"id\":\"%016x\",\"action\":\"%s\"%s},", a,
			actions[b % 5], b % 5 < 3 ? ",\"by\":\"buyer\"" : "");
		length += snprintf(text + length, size - (size_t)length, "{\"id\":\"%016x\",\"action\":\"%s\"%s}]",
			a ^ (b >> 6), actions[(b >> 3) % 5], (b >> 3) % 5 < 3 ? ",\"by\":\"time\"" : "");
		if (op % 9)
			length += snprintf(text + length, size - (size_t)length,
				",\"once\":{\"key\":\"%u\",\"fingerprint\":\"f\"}", (unsigned)(*once = b % ONCE_KEYS));
		return length + snprintf(text + length, size - (size_t)length, "}");
	case 2:
		return snprintf(text, size, "{\"op\":\"orders_due\",\"limit\":%u}", 1 + a);
	case 3:
		return snprintf(text, size, "{\"op\":\"events_list\",\"sale\":%u,\"after\":%u,\"limit\":%u}", a & 3, b,
			1 + (a >> 2));
	case 4:
		return snprintf(text, size, "{\"op\":\"sale_event\",\"sale\":%u,\"type\":\"sale.%s\"}", 1 + (a & 3),
			events[b & 3]);
	case 5:
		return a & 1
			? snprintf(text, size, "{\"op\":\"document_put\",\"name\":\"d%u\",\"value\":\"%u\"}", a >> 6, b)
			: snprintf(text, size, "{\"op\":\"document_get\",\"name\":\"d%u\"}", a >> 6);
	case 6:
		return snprintf(text, size,
			"{\"op\":\"list_put\",\"entries\":[{\"list\":\"%s\",\"prefix\":\"192.0.2.%u\",\"expires_ns\":%u,\"label\":\"l%u\","
			"\"reason\":\"\"}]}",
			a & 1 ? "deny" : "allow", a >> 4, b, b & 1);
	case 7:
		return snprintf(text, size, "{\"op\":\"list_page\",\"after\":%u,\"limit\":%u}", a & 15, 1 + b);
	default:
		return a & 1
			? snprintf(text, size,
				  "{\"op\":\"list_remove\",\"entries\":[{\"list\":\"deny\",\"prefix\":\"192.0.2.%u\"}]}",
				  b & 15)
			: snprintf(text, size, "{\"op\":\"list_clear\",\"list\":\"deny\",\"label\":\"l%u\"}", b & 1);
	}
}

static void send_query(struct input *input)
{
	static const char *const states[] = {"", "held", "confirmed", "expired"};
	uint8_t op = input_u8(input), a = input_u8(input), b = input_u8(input);
	struct sent_frame *frame = &side.sent[(side.sent_first + side.sent_count) % SENT_MAX];
	char text[512];
	int once = -1;
	int length;

	/* Inputs that are kept have the operations that there were at first, with small numbers. */
	if (op >= 128) {
		length = write_life_query(text, sizeof(text), op - 128, a, b, &once);
		goto send;
	}
	switch (op % 5) {
	case 0:
		length = snprintf(text, sizeof(text), "{\"op\":\"sales_list\"}");
		break;
	case 1:
		length = snprintf(text, sizeof(text),
			"{\"op\":\"sale_put\",\"sale\":{\"id\":%u,\"slug\":\"drop-%u\",\"opens_ns\":%u,\"ends_ns\":2000,"
			"\"per_buyer\":%u,\"hold_seconds\":900,\"pace_per_second\":%u,\"order_mode\":\"confirm\","
			"\"token_multiplier\":0,\"paused\":%s,\"ended\":%s}",
			1 + (a & 3), 1 + (a >> 2 & 3), a * 8u, b & 3, b, b & 4 ? "true" : "false",
			b & 8 ? "true" : "false");
		if (b & 16)
			length += snprintf(text + length, sizeof(text) - (size_t)length,
				",\"stock\":%u,\"key\":\"create:%u\"", b >> 5, 1 + (a & 3));
		length += snprintf(text + length, sizeof(text) - (size_t)length, "}");
		break;
	case 2:
		length =
			snprintf(text, sizeof(text), "{\"op\":\"stock_move\",\"sale\":%u,\"delta\":%d,\"key\":\"k%u\"}",
				1 + (a & 3), (int8_t)b, a >> 2);
		break;
	case 3:
		length = snprintf(text, sizeof(text),
			"{\"op\":\"orders_list\",\"sale\":%u,\"state\":\"%s\",\"after\":%u,\"limit\":%u}", a & 3,
			states[a >> 2 & 3], a >> 4, b);
		break;
	default:
		length = snprintf(text, sizeof(text), "{\"op\":\"order_get\",\"id\":\"%016x\"}", a);
		break;
	}
send:
	send_frame(WIRE_QUERY, text, (size_t)length, (size_t)length);
	if (!side.is_wild)
		frame->once = once;
}

static void send_text(struct input *input, uint16_t type)
{
	struct sent_frame *frame = &side.sent[(side.sent_first + side.sent_count) % SENT_MAX];
	size_t length;
	const uint8_t *text = input_bytes(input, input_u16(input) % BODY_BYTES, &length);

	send_frame(type, text, length, length);
	if (!side.is_wild) /* it may say anything, and change an order */
		frame->is_plain = false;
}

static void send_any(struct input *input)
{
	struct sent_frame *frame = &side.sent[(side.sent_first + side.sent_count) % SENT_MAX];
	uint8_t type = input_u8(input), more = input_u8(input);
	uint8_t body[256];
	size_t length;
	const uint8_t *bytes = input_bytes(input, input_u8(input), &length);

	if (length)
		memcpy(body, bytes, length);
	send_frame(type == 0xff ? 0x1ff : type, body, length, more == 0xff ? UINT32_MAX : length + (more & 3));
	if (!side.is_wild)
		frame->is_plain = false;
}

static void send_raw_records(struct input *input)
{
	static uint8_t body[BODY_BYTES];
	size_t length = (1 + input_u8(input) % 16) * sizeof(struct wire_admit);

	input_copy(input, body, length);
	send_frame(WIRE_ADMIT, body, length, length);
}

static void send_bytes(struct input *input)
{
	size_t length;
	const uint8_t *bytes = input_bytes(input, input_u8(input), &length);

	if (length)
		memcpy(side.out, bytes, length);
	side.out_length = length;
	side.is_wild = true;
}

/* The next step of the script. Returns false when it is over. */
static bool do_step(void)
{
	struct input *input = side.script;
	uint8_t choice;

	if (!input->left || side.steps++ == STEPS_MAX)
		return false;
	choice = input_u8(input);
	side.out_length = side.out_sent = 0;
	side.piece = choice & 0x80 ? 1 + input_u8(input) % 64 : sizeof(side.out);
	if (side.fd < 0 || choice % STEP_COUNT == STEP_CONNECT || side.sent_count == SENT_MAX)
		connect_anew();
	switch ((enum step)(choice % STEP_COUNT)) {
	case STEP_BYTES:
		send_bytes(input);
		break;
	case STEP_HELLO:
		send_text(input, WIRE_HELLO);
		break;
	case STEP_ADMIT:
		send_records(input);
		break;
	case STEP_QUERY_TEXT:
		send_text(input, WIRE_QUERY);
		break;
	case STEP_QUERY:
		send_query(input);
		break;
	case STEP_FRAME:
		send_any(input);
		break;
	case STEP_RECORDS:
		send_raw_records(input);
		break;
	case STEP_CONNECT:
	case STEP_COUNT:
		break;
	}
	return true;
}

static void send_piece(void)
{
	size_t left = side.out_length - side.out_sent;
	ssize_t sent = send(
		side.fd, side.out + side.out_sent, left < side.piece ? left : side.piece, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (sent > 0)
		side.out_sent += (size_t)sent;
	else if (errno != EAGAIN)
		hang_up();
}

/* The server has nothing to do: the other side goes on. */
static void go_on(void)
{
	if (side.fd >= 0 && !read_answers()) {
		CHECK(side.is_wild || side.is_broken, "the connection was ended without a cause");
		hang_up();
	}
	if (side.fd >= 0 && side.out_sent < side.out_length) {
		send_piece();
		return;
	}
	CHECK(side.fd < 0 || side.is_wild || side.is_broken || !side.sent_count, "%u frames without an answer",
		side.sent_count);
	if (do_step())
		return;
	hang_up();
	CHECK(!eventfd_write(side.stop, 1), "eventfd");
}

int __wrap_poll(struct pollfd *pollers, nfds_t count, int timeout_ms)
{
	int ready;

	if (!side.script)
		return __real_poll(pollers, count, timeout_ms);
	while (!(ready = __real_poll(pollers, count, 0))) {
		/* Its last answer may still be in the socket when there is no room for the next. */
		if (count == 1 && side.fd < 0)
			return 0;
		go_on();
	}
	return ready;
}

/* --- the ledger ---------------------------------------------------------------------------------------------------------------------- */
static void write_ledger(const void *bytes, size_t count)
{
	int fd = open(side.ledger, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && write(fd, bytes, count) == (ssize_t)count, "cannot write %s", side.ledger);
	close(fd);
}

static struct store *open_ledger(void)
{
	char error[STORE_ERROR_MAX] = "";
	struct store *store = NULL;

	CHECK(!store_sqlite_open(side.ledger, &store, error), "%s", error);
	return store;
}

static void make_empty_ledger(void)
{
	struct store *store = open_ledger();
	int fd;

	for (uint32_t id = 1; id <= 2; id++) {
		struct store_sale sale = {.id = id, .ends_ns = NOW_NS, .per_buyer = PER_BUYER, .order_mode = "confirm"};
		struct store_move first = {.sale = id, .delta = STOCK};

		snprintf(sale.slug, sizeof(sale.slug), "drop-%u", id);
		snprintf(first.key, sizeof(first.key), "create:%u", id);
		CHECK(!store->ops->sale_put(store, &sale, &first, NOW_NS), "%s", store->error);
	}
	store->ops->close(store);
	fd = open(side.ledger, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0, "cannot read %s", side.ledger);
	side.empty_bytes = (size_t)read(fd, side.empty, sizeof(side.empty));
	CHECK(side.empty_bytes && side.empty_bytes < sizeof(side.empty), "a ledger of %zu bytes", side.empty_bytes);
	close(fd);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *directory = scratch_make();

	(void)argc;
	(void)argv;
	snprintf(side.socket, sizeof(side.socket), "%s/socket", directory);
	snprintf(side.ledger, sizeof(side.ledger), "%s/ledger.db", directory);
	side.listener = wire_listen(side.socket, 0600, NULL);
	side.stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK(side.listener >= 0 && side.stop >= 0, "no socket");
	make_empty_ledger();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct input input = {bytes, size};
	char error[STORE_ERROR_MAX] = "";
	eventfd_t ignored;

	/* Opening and auditing take milliseconds; an input that no question of was answered leaves the ledger as it is. */
	if (!side.store) {
		write_ledger(side.empty, side.empty_bytes);
		side.store = open_ledger();
		side.is_used = false;
	}
	side.script = &input;
	side.steps = side.stored_count = 0;
	for (unsigned i = 0; i < ONCE_KEYS; i++) {
		free(side.once[i]);
		side.once[i] = NULL;
	}
	for (unsigned id = 0; id < SALES_KNOWN; id++)
		side.per_buyer[id] = PER_BUYER;
	side.fd = -1;
	hang_up();
	side.is_blind = false;
	CHECK(!writer_server_run(side.store, side.ledger, side.listener, side.stop), "the server");
	eventfd_read(side.stop, &ignored);
	side.script = NULL;
	if (side.is_used) {
		side.store->ops->close(side.store);
		side.store = NULL;
		CHECK(!store_sqlite_audit(side.ledger, error), "%s", error);
	}
	return 0;
}
