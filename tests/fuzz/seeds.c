/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Writes the seeds that are not text: frames, requests, and runs of events for the targets gate, lists and writer. `make fuzz-seeds` writes
 * them into tests/fuzz/corpus; what comes out is the same each time.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../packet/frames.h"
#include "common/token.h"
#include "common/wire.h"

#define SEED_MAX 4096

static const char *corpus;

/* --- a seed as it grows ------------------------------------------------------------------------------------------------------------- */
struct seed {
	uint8_t bytes[SEED_MAX];
	size_t length;
};

static void add(struct seed *seed, const void *bytes, size_t count)
{
	if (seed->length + count > sizeof(seed->bytes))
		abort();
	memcpy(seed->bytes + seed->length, bytes, count);
	seed->length += count;
}

static void add_u8(struct seed *seed, unsigned value)
{
	uint8_t byte = (uint8_t)value;

	add(seed, &byte, 1);
}

static void add_u16(struct seed *seed, unsigned value)
{
	add_u8(seed, value & 0xff);
	add_u8(seed, value >> 8);
}

static void save(const struct seed *seed, const char *target, const char *name)
{
	char path[512];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", corpus, target);
	if (mkdir(path, 0755) && errno != EEXIST) {
		perror(path);
		exit(1);
	}
	snprintf(path, sizeof(path), "%s/%s/%s", corpus, target, name);
	file = fopen(path, "w");
	if (!file || fwrite(seed->bytes, 1, seed->length, file) != seed->length || fclose(file)) {
		perror(path);
		exit(1);
	}
}

/* --- frame ------------------------------------------------------------------------------------------------------------------------------ */
static const char order[] =
	"POST /v1/orders/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA HTTP/1.1\r\nHost: shop.example\r\n\r\n";

static struct frame frame_of(bool ip6)
{
	struct frame frame = frame_syn(ip6);

	frame.destination = ip6 ? "2001:db8::1" : "192.0.2.1";
	return frame;
}

static void save_frame(const struct frame *frame, const char *name)
{
	struct seed seed = {.length = 1};
	uint8_t bytes[FRAME_MAX];

	add(&seed, bytes, frame_write(frame, bytes));
	save(&seed, "frame", name);
}

/* What frame_write does not know: fragments that are not the first, and an authentication header among the extensions. */
static void rare_frames(void)
{
	struct frame frame = frame_of(false);
	struct seed seed = {.length = 1};
	uint8_t bytes[FRAME_MAX];
	unsigned length;

	frame.fragment = 1;
	save_frame(&frame, "overlap4");
	frame.fragment = 2;
	save_frame(&frame, "later4");
	frame = frame_of(true);
	frame.ip6_fragment_header = true;
	frame.fragment = 8;
	save_frame(&frame, "overlap6");
	frame.fragment = 16;
	save_frame(&frame, "later6");
	frame = frame_of(true);
	frame.ip6_extensions = 3;
	length = frame_write(&frame, bytes);
	bytes[frame_ip_offset(&frame) + 40] = 51; /* the second of the three */
	bytes[frame_ip_offset(&frame) + 49] = 2;  /* 16 bytes: it has the third within */
	bytes[frame_ip_offset(&frame) + 48] = 6;
	add(&seed, bytes, length);
	save(&seed, "frame", "authenticated6");
}

static void frames(void)
{
	for (int ip6 = 0; ip6 <= 1; ip6++) {
		const char *const names[2][6] = {
			{"syn4", "order4", "vlan4", "options4", "fragment4", "udp4"},
			{"syn6", "order6", "vlan6", "extensions6", "fragment6", "udp6"},
		};
		struct frame frame = frame_of(ip6);

		save_frame(&frame, names[ip6][0]);
		frame.flags = F_ACK | F_PSH;
		frame.payload = order;
		frame.payload_len = strlen(order);
		frame.padding = 4;
		save_frame(&frame, names[ip6][1]);
		frame.vlans = 2;
		frame.tcp_option_bytes = 12;
		save_frame(&frame, names[ip6][2]);
		frame.vlans = 0;
		frame.ip_option_words = ip6 ? 0 : 3;
		frame.ip6_extensions = ip6 ? 4 : 0;
		save_frame(&frame, names[ip6][3]);
		frame.ip6_fragment_header = ip6;
		frame.fragment = ip6 ? 1 : 0x2000;
		save_frame(&frame, names[ip6][4]);
		frame = frame_of(ip6);
		frame.protocol = 17;
		save_frame(&frame, names[ip6][5]);
	}
}

static void requests(void)
{
	static const struct {
		const char *name, *text;
		size_t length;
	} payloads[] = {
		{"order", order, sizeof(order) - 1},
		{"cut", order, 40},
		{"just", order, 81},
		{"other", "GET /v1/sales/drop-11 HTTP/1.1\r\n\r\n", 34},
	};

	for (unsigned i = 0; i < sizeof(payloads) / sizeof(payloads[0]); i++) {
		struct seed seed = {.length = 1};

		add(&seed, payloads[i].text, payloads[i].length);
		save(&seed, "request", payloads[i].name);
	}
}

/* --- gate: the events of fuzz_gate.c ---------------------------------------------------------------------------------------------------- */
enum { RAW, BUILT, CALL, TIME, SALE, LIMIT, CONTROL, STOCK, LIST, SETTLE, FAULT, CLAIM, KEY, ANSWER, WATCH, FLEET };
enum { SCENE_NONE = 0, SCENE_LISTEN = 1, SCENE_SOCKET = 3, SCENE_GOOD = 8, SCENE_BAD = 16 };
enum { HOW_HANDSHAKE = 8, HOW_PAYLOAD = 32, HOW_AGAIN = 64 };
enum { PAY_ORDER = 0, PAY_CUT = 1, PAY_OTHER = 2 };

static void add_token(struct seed *seed, unsigned serial, unsigned buyer, unsigned quantity)
{
	const uint8_t fields[6] = {(uint8_t)serial, (uint8_t)buyer, (uint8_t)quantity, 4, 0, 0};

	add(seed, fields, sizeof(fields));
}

/* A connection and its order; `shape` 0 is IPv4, 1 IPv6. */
static void add_order(struct seed *seed, unsigned shape, unsigned where, unsigned serial, unsigned quantity)
{
	const uint8_t built[] = {
		BUILT, (uint8_t)shape, SCENE_LISTEN, 0x50, (uint8_t)where, 0, HOW_HANDSHAKE | HOW_PAYLOAD, PAY_ORDER};

	add(seed, built, sizeof(built));
	add_token(seed, serial, serial, quantity);
}

static void add_call(struct seed *seed, unsigned serial, unsigned quantity)
{
	const uint8_t call[] = {CALL, 0, 0};

	add(seed, call, sizeof(call));
	add_token(seed, serial, serial, quantity);
}

static void add_three(struct seed *seed, unsigned event, unsigned a, unsigned b, unsigned c)
{
	const uint8_t bytes[] = {(uint8_t)event, (uint8_t)a, (uint8_t)b, (uint8_t)c};

	add(seed, bytes, sizeof(bytes));
}

static void gate_orders(void)
{
	struct seed seed = {.length = 0};

	for (unsigned serial = 1; serial <= 5; serial++)
		add_order(&seed, serial & 1, serial, serial, 3); /* the fourth finds too few */
	add_order(&seed, 0, 1, 1, 3);                            /* again */
	add_call(&seed, 2, 3);
	add_call(&seed, 6, 1);
	add_u8(&seed, SETTLE);
	add_u8(&seed, 3);
	save(&seed, "gate", "orders");
}

static void gate_shapes(void)
{
	struct seed seed = {.length = 0};

	for (unsigned shape = 0; shape < 16; shape++)
		add_order(&seed, shape, 0, shape, 1);
	save(&seed, "gate", "shapes");
}

static void gate_refusals(void)
{
	struct seed seed = {.length = 0};

	for (unsigned what = 0; what < 8; what++) {
		add_three(&seed, SALE, 0, what, 1);
		add_order(&seed, what & 1, what, what, 1);
		add_call(&seed, what, 1);
	}
	save(&seed, "gate", "windows");
	seed.length = 0;
	for (unsigned id = 0; id < 6; id++) {
		add_three(&seed, LIMIT, id, 30, 0);
		add_order(&seed, 0, id, id, 1);
		add_order(&seed, 0, id, id, 1);
		add_u8(&seed, TIME);
		add_u8(&seed, 200);
		add_u8(&seed, 22);
	}
	save(&seed, "gate", "rates");
	seed.length = 0;
	for (unsigned what = 0; what < 8; what++) {
		add_three(&seed, CONTROL, what, 9, 0);
		add_order(&seed, 0, what, what, 1);
		add_call(&seed, what + 8, 1);
	}
	save(&seed, "gate", "control");
	seed.length = 0;
	for (unsigned what = 0; what < 6; what++) {
		add_u8(&seed, FAULT);
		add_u16(&seed, what | 0x100);
		add_order(&seed, 0, what, what, 1);
	}
	add_u8(&seed, CLAIM);
	add_token(&seed, 20, 20, 1);
	add_u8(&seed, 1);
	add_call(&seed, 20, 1);
	add_u8(&seed, CLAIM);
	add_token(&seed, 21, 21, 1);
	add_u8(&seed, 2);
	add_call(&seed, 21, 1);
	save(&seed, "gate", "faults");
	seed.length = 0;
	for (unsigned update = 1; update < 4; update++) { /* all units go while a judge is at work */
		add_u8(&seed, FAULT);
		add_u16(&seed, 0x80 | update << 8);
		add_order(&seed, 0, update, update, 2);
		add_u8(&seed, STOCK);
		add_u8(&seed, 0);
		add_u8(&seed, 5);
	}
	add_u8(&seed, FAULT);
	add_u16(&seed, 0x80 | 9 << 8); /* or the token is claimed at that moment */
	add_call(&seed, 9, 1);
	save(&seed, "gate", "meanwhile");
}

static void gate_lists_and_answers(void)
{
	struct seed seed = {.length = 0};

	add_three(&seed, LIST, 0, 8, 0);
	add_order(&seed, 0, 0, 1, 1);
	add_three(&seed, LIST, 8, 16, 0);
	add_order(&seed, 0, 0, 1, 1);
	add_three(&seed, LIST, 4, 47, 1);
	add_order(&seed, 1, 0, 2, 1);
	save(&seed, "gate", "lists");
	seed.length = 0;
	for (unsigned code = 0; code < 12; code++) {
		add_three(&seed, ANSWER, code, 'a' + code, 0);
		add_u8(&seed, 2);
	}
	add_three(&seed, SALE, 0, 0, 1); /* paused */
	add_order(&seed, 0, 0, 1, 1);
	add_three(&seed, CONTROL, 3, 0, 0); /* cannot grow */
	add_order(&seed, 1, 0, 2, 1);
	save(&seed, "gate", "answers");
}

/* What one buyer may have, and at the edge of what a token is good for. */
static void gate_rights(void)
{
	/* serial, buyer, quantity, key and sale, bound to a network, age: the bytes of read_token() */
	static const uint8_t tokens[][6] = {
		{1, 1, 3, 4, 0, 0}, {2, 1, 1, 4, 0, 0}, /* three, and one more */
		{3, 2, 1, 4, 0, 8}, {4, 2, 1, 4, 0, 9},
		{5, 2, 1, 4, 0, 10},                       /* expired a second ago, now, in a second */
		{6, 3, 1, 4, 1, 0}, {7, 3, 1, 4, 7, 0},    /* of this network, of another */
		{8, 4, 0, 4, 0, 0}, {9, 4, 0x84, 4, 0, 0}, /* no unit, too many */
		{6, 5, 1, 4, 0, 0},                        /* somebody else's serial */
		{10, 5, 1, 6, 0, 0}, {11, 5, 1, 7, 0, 0}, {12, 5, 1, 0x40, 0, 0}, /* other sales, another key */
	};
	struct seed seed = {.length = 0};

	for (unsigned i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++) {
		const uint8_t call[] = {CALL, 0, 0};

		add(&seed, call, sizeof(call));
		add(&seed, tokens[i], sizeof(tokens[i]));
	}
	save(&seed, "gate", "rights");
}

/* The upper two bits of a serial choose the token's node: 1, 2, 3, or one that no fleet has. */
static void gate_fleet(void)
{
	struct seed seed = {.length = 0};

	add_three(&seed, FLEET, 2, 'h', 100); /* where node 2 is, with room for a token */
	add_u8(&seed, 0x06);
	add_call(&seed, 5, 1);
	add_three(&seed, FLEET, 4 | 1, 0, 0); /* this is node 1 */
	add_u8(&seed, 0);
	for (unsigned node = 0; node < 4; node++) {
		add_order(&seed, node & 1, 0, node << 6 | (1 + 2 * node), 1);
		add_call(&seed, node << 6 | (2 + 2 * node), 1);
	}
	add_three(&seed, FLEET, 4 | 2, 0, 0); /* and now 2: what it has in its books stays */
	add_u8(&seed, 0);
	add_call(&seed, 1, 1);
	add_call(&seed, 20, 1);
	save(&seed, "gate", "fleet");
	seed.length = 0;
	for (unsigned flags = 8; flags <= 24; flags += 8) { /* more may come, nothing may be sold, both */
		add_three(&seed, SALE, 0, 0, flags);
		add_call(&seed, flags, 1);
		add_order(&seed, 0, 0, flags + 1, 1);
		add_u8(&seed, STOCK);
		add_u8(&seed, 0);
		add_u8(&seed, 0x80); /* all units go */
		add_call(&seed, flags + 2, 2);
		add_order(&seed, 1, 0, flags + 3, 1);
		add_u8(&seed, STOCK);
		add_u8(&seed, 0);
		add_u8(&seed, 5);
	}
	save(&seed, "gate", "leases");
}

static void gate_watched(void)
{
	struct seed seed = {.length = 0};

	for (unsigned choice = 0; choice < 256; choice += 32) {
		add_u8(&seed, WATCH);
		add_u8(&seed, choice);
		add_u8(&seed, 1);
		add_order(&seed, choice >> 5 & 1, 0, choice >> 5, 1);
		add_call(&seed, choice >> 5, 1);
	}
	save(&seed, "gate", "watched");
	seed.length = 0;
	for (unsigned flag = 0; flag < 16; flag++) { /* each part of shadow mode, over rates that refuse at once */
		add_three(&seed, CONTROL, 0, 1 | (1u << flag & 0xff), 1u << flag >> 8);
		add_three(&seed, LIMIT, flag, 62, 0);
		add_order(&seed, flag & 1, 0, flag, 1);
		add_order(&seed, flag & 1, 0, flag, 1);
	}
	save(&seed, "gate", "shadow");
}

/* Segments that are no order: leftovers, resets, strange flags, each with and without a socket. */
static void gate_segments(void)
{
	static const uint8_t flags[] = {
		F_ACK, F_ACK | F_FIN, F_RST, F_SYN | F_ACK, F_SYN | F_FIN, F_SYN | F_RST, F_FIN, 0x20};
	struct seed seed = {.length = 0};
	struct frame frame = frame_syn(false);
	uint8_t bytes[FRAME_MAX];
	unsigned length;

	for (unsigned i = 0; i < sizeof(flags); i++) {
		const uint8_t built[] = {BUILT, (uint8_t)(i & 1), i & 2 ? SCENE_SOCKET : SCENE_NONE, 0, 0, flags[i],
			i & 4 ? HOW_PAYLOAD : 0, PAY_OTHER};

		add(&seed, built, i & 4 ? 8 : 7);
	}
	save(&seed, "gate", "segments");
	seed.length = 0;
	frame.destination = "192.0.2.2";
	length = frame_write(&frame, bytes);
	add_u8(&seed, RAW);
	add_u8(&seed, SCENE_LISTEN);
	add_u16(&seed, length);
	add(&seed, bytes, length);
	frame.flags = F_ACK | F_PSH;
	frame.payload = order;
	frame.payload_len = strlen(order);
	length = frame_write(&frame, bytes);
	add_u8(&seed, RAW);
	add_u8(&seed, SCENE_GOOD);
	add_u16(&seed, length);
	add(&seed, bytes, length);
	save(&seed, "gate", "raw");
}

/* --- lists: the steps of fuzz_lists.c ------------------------------------------------------------------------------------------------------ */
static void list_steps(void)
{
	struct seed seed = {.length = 0};

	for (unsigned base = 0; base < 8; base++) {
		const uint8_t put[] = {0, (uint8_t)base, 0, 1, 2, (uint8_t)(base * 16 + (base & 1)), 0, 0};
		const uint8_t ask[] = {128, (uint8_t)base, 5, 1, 2};

		add(&seed, put, sizeof(put));
		add(&seed, ask, sizeof(ask));
	}
	add_u8(&seed, 96); /* take one out */
	add_u8(&seed, 1);
	add_u8(&seed, 250); /* sweep */
	save(&seed, "lists", "every_base");
	seed.length = 0;
	for (unsigned flags = 0; flags < 16; flags += 3) {
		add_u8(&seed, 64); /* several at once */
		add_u8(&seed, 3);
		add_u8(&seed, flags);
		for (unsigned base = 0; base < 4; base++) {
			const uint8_t one[] = {(uint8_t)(flags & 4), (uint8_t)base, 0, 1, 2, (uint8_t)(base * 16)};

			add(&seed, one, sizeof(one));
		}
	}
	add_u8(&seed, 64);
	add_u8(&seed, 3);
	add_u8(&seed, 1);
	for (unsigned until = 1; until < 5; until++) { /* one key four times */
		const uint8_t one[] = {(uint8_t)until, 2, 0, 1, 2, 64};

		add(&seed, one, sizeof(one));
	}
	save(&seed, "lists", "twice");
	add_u8(&seed, 120); /* a label */
	add_u8(&seed, 2);
	save(&seed, "lists", "many");
}

/* --- writer: the steps of fuzz_writer.c ------------------------------------------------------------------------------------------------------ */
enum { W_BYTES, W_HELLO, W_ADMIT, W_TEXT, W_QUERY, W_CONNECT, W_FRAME, W_RECORDS };

static void add_text(struct seed *seed, unsigned step, const char *text)
{
	add_u8(seed, step);
	add_u16(seed, (unsigned)strlen(text));
	add(seed, text, strlen(text));
}

/* Every text and every number as long and as large as it may be. */
static const char *longest_question(void)
{
	static char text[1024];
	char slug[64], key[129];

	memset(slug, 's', sizeof(slug) - 1);
	slug[sizeof(slug) - 1] = '\0';
	memset(key, 'k', sizeof(key) - 1);
	key[sizeof(key) - 1] = '\0';
	snprintf(text, sizeof(text),
		"{\"op\":\"sale_put\",\"sale\":{\"id\":4294967295,\"slug\":\"%s\",\"opens_ns\":0,"
		"\"ends_ns\":9223372036854775807,\"per_buyer\":100,\"hold_seconds\":4294967295,\"pace_per_second\":1000000000,"
		"\"order_mode\":\"confirm\",\"token_multiplier\":1000000,\"paused\":true,\"ended\":true},"
		"\"stock\":9223372036854775807,\"key\":\"%s\"}",
		slug, key);
	return text;
}

/* One field of a good question at a time, one above its limit. */
static void writer_limits(void)
{
	static const char *const fields[][2] = {
		{"\"id\":3", "\"id\":4294967296"},
		{"\"opens_ns\":1", "\"opens_ns\":-1"},
		{"\"per_buyer\":1", "\"per_buyer\":101"},
		{"\"hold_seconds\":9", "\"hold_seconds\":4294967296"},
		{"\"pace_per_second\":0", "\"pace_per_second\":1000000001"},
		{"\"token_multiplier\":0", "\"token_multiplier\":1000001"},
	};
	struct seed seed = {.length = 0};
	char text[1024], word[300];

	for (unsigned bad = 0; bad < 6; bad++) {
		int n = snprintf(text, sizeof(text),
			"{\"op\":\"sale_put\",\"sale\":{\"slug\":\"drop-3\",\"ends_ns\":2,\"order_mode\":\"confirm\","
			"\"paused\":false,\"ended\":false");

		for (unsigned i = 0; i < 6; i++)
			n += snprintf(text + n, sizeof(text) - (size_t)n, ",%s", fields[i][i == bad]);
		snprintf(text + n, sizeof(text) - (size_t)n, "}}");
		add_text(&seed, W_TEXT, text);
	}
	memset(word, 'w', sizeof(word));
	snprintf(text, sizeof(text), "{\"op\":\"stock_move\",\"sale\":1,\"delta\":1,\"key\":\"%.129s\"}", word);
	add_text(&seed, W_TEXT, text);
	snprintf(text, sizeof(text),
		"{\"op\":\"stock_move\",\"sale\":1,\"delta\":1,\"key\":\"k\",\"reason\":\"%.257s\"}", word);
	add_text(&seed, W_TEXT, text);
	snprintf(text, sizeof(text), "{\"op\":\"orders_list\",\"sale\":0,\"state\":\"%.16s\",\"after\":0,\"limit\":1}",
		word);
	add_text(&seed, W_TEXT, text);
	snprintf(text, sizeof(text), "{\"op\":\"order_get\",\"id\":\"%.17s\"}", word);
	add_text(&seed, W_TEXT, text);
	save(&seed, "writer", "limits");
}

/* Four orders and what becomes of them, each change tried twice: as fuzz_writer.c's write_life_query has the numbers. */
static void writer_life(void)
{
	static const uint8_t orders[] = {2, 0x21, 4, 0x22, 5, 0x23, 6, 0x24};
	static const uint8_t questions[][3] = {
		{128, 2, 10},                                          /* confirm, then cancel it */
		{128, 2, 34},                                          /* refund without restock, twice */
		{128, 4, 1},                                           /* cancel, then confirm it */
		{128, 6, 2},                                           /* expire, and a late payment */
		{129, 5, 0}, {129, 5, 0},                              /* with a key, and again */
		{129, 5, 3 << 3},                                      /* the key names another question */
		{130, 16, 0},                                          /* what is over */
		{131, 0xfc, 0},                                        /* events */
		{132, 0, 0}, {132, 0, 1}, {132, 0, 2}, {132, 0, 3},    /* a sale opens, is sold out, restocked, ended */
		{133, 1, 5}, {133, 0, 0},                              /* a document */
		{134, 0x11, 1}, {135, 0, 5}, {136, 1, 1}, {136, 0, 1}, /* an entry of a list */
	};
	struct seed seed = {.length = 0};

	for (unsigned round = 0; round < 2; round++) {
		add_u8(&seed, W_ADMIT);
		add_u8(&seed, 3);
		add(&seed, orders, sizeof(orders));
		for (unsigned i = 0; !round && i < sizeof(questions) / sizeof(*questions); i++) {
			add_u8(&seed, W_QUERY);
			add(&seed, questions[i], sizeof(questions[i]));
		}
	}
	save(&seed, "writer", "life");
}

static void writer_steps(void)
{
	struct wire_admit record = {.serial = 7, .buyer = 7, .sale = 1, .quantity = 1, .hold_seconds = 900};
	struct wire_header header = {
		.magic = WIRE_MAGIC, .version = WIRE_VERSION, .type = WIRE_QUERY, .id = 1, .length = 19};
	struct seed seed = {.length = 0};

	add_text(&seed, W_HELLO, "{\"version\":2,\"node\":1}");
	add_u8(&seed, W_ADMIT);
	add_u8(&seed, 3); /* four records: three buyers, one of them twice */
	for (unsigned i = 0; i < 4; i++) {
		add_u8(&seed, i + 1);
		add_u8(&seed, 0x20 | (i & 3));
	}
	for (unsigned op = 0; op < 5; op++) {
		add_u8(&seed, W_QUERY);
		add_u8(&seed, op);
		add_u8(&seed, 1);
		add_u8(&seed, 3);
	}
	add_u8(&seed, W_CONNECT);
	add_u8(&seed, W_RECORDS);
	add_u8(&seed, 0);
	add(&seed, &record, sizeof(record));
	add(&seed, &record, sizeof(record)); /* what is behind the records is the next step */
	save(&seed, "writer", "orders");
	seed.length = 0;
	for (unsigned i = 0; i < 4; i++) { /* three buyers take all six units, the fourth comes too late for one */
		add_u8(&seed, W_ADMIT);
		add_u8(&seed, 0);
		add_u8(&seed, i + 1);
		add_u8(&seed, (i < 3 ? 0x40 : 0x20) | i);
	}
	save(&seed, "writer", "sold_out");
	seed.length = 0;
	add_text(&seed, W_TEXT, longest_question());
	save(&seed, "writer", "longest");
	seed.length = 0;
	add_text(&seed, W_TEXT,
		"{\"op\":\"sale_put\",\"sale\":{\"id\":3,\"slug\":\"drop-3\",\"opens_ns\":1,\"ends_ns\":2,"
		"\"per_buyer\":1,\"hold_seconds\":900,\"pace_per_second\":0,\"order_mode\":\"confirm\",\"token_multiplier\":0,"
		"\"paused\":false,\"ended\":false},\"stock\":5,\"key\":\"create:3\"}");
	add_text(&seed, W_TEXT, "{\"op\":\"stock_move\",\"sale\":3,\"delta\":-2,\"key\":\"k\",\"reason\":\"r\"}");
	add_text(&seed, W_TEXT, "{\"op\":\"orders_list\",\"sale\":0,\"state\":\"held\",\"after\":0,\"limit\":10}");
	add_text(&seed, W_TEXT, "{\"op\":\"order_get\",\"id\":\"0000000000000007\"}");
	save(&seed, "writer", "questions");
	seed.length = 0;
	add_u8(&seed, W_BYTES | 0x80);
	add_u8(&seed, 4); /* five bytes at a time */
	add_u8(&seed, sizeof(header) + 19);
	add(&seed, &header, sizeof(header));
	add(&seed, "{\"op\":\"sales_list\"}", 19);
	add_u8(&seed, W_FRAME);
	add_u8(&seed, WIRE_QUERY);
	add_u8(&seed, 0xff); /* says that it is 4 GiB long */
	add_u8(&seed, 4);
	add(&seed, "abcd", 4);
	save(&seed, "writer", "bytes");
	seed.length = 0;
	add_u8(&seed, W_FRAME);
	add_u8(&seed, WIRE_ADMIT);
	add_u8(&seed, 0);
	add_u8(&seed, sizeof(record) + 1); /* a record and a byte */
	add(&seed, &record, sizeof(record));
	add_u8(&seed, 0);
	save(&seed, "writer", "not_whole_records");
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fputs("usage: seeds DIRECTORY\n", stderr);
		return 2;
	}
	corpus = argv[1];
	if (mkdir(corpus, 0755) && errno != EEXIST) {
		perror(corpus);
		return 1;
	}
	frames();
	rare_frames();
	requests();
	gate_orders();
	gate_shapes();
	gate_refusals();
	gate_lists_and_answers();
	gate_rights();
	gate_fleet();
	gate_watched();
	gate_segments();
	list_steps();
	writer_steps();
	writer_life();
	writer_limits();
	return 0;
}
