/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Fuzz target: the whole gate (bpf/gate.bpf.c), wire and call door, over a run of events.
 *
 * The input is a list of events: frames as they are, frames that are built (so that a good checksum, a real cookie and a token with
 * a good MAC cost the fuzzer one byte each), calls, time that passes, and everything that the daemon, an operator or another CPU may do
 * in between. Claims: those of world.c, after each event.
 */
#include "check.h"
#include "../packet/frames.h"
#include "world.h"

#define EVENTS_MAX 64
#define NS_PER_S 1000000000ULL

/* Must stay in this order: it is the form of the inputs that are kept. New ones go to the end. */
enum event {
	EVENT_RAW,
	EVENT_BUILT,
	EVENT_CALL,
	EVENT_TIME,
	EVENT_SALE,
	EVENT_LIMIT,
	EVENT_CONTROL,
	EVENT_STOCK,
	EVENT_LIST,
	EVENT_SETTLE,
	EVENT_FAULT,
	EVENT_CLAIM,
	EVENT_KEY,
	EVENT_ANSWER,
	EVENT_WATCH,
	EVENT_FLEET,
	EVENT_COUNT
};

static const char *const sources4[] = {"192.0.2.10", "192.0.2.11", "198.51.100.7", "203.0.113.9"};
static const char *const sources6[] = {"2001:db8:1::10", "2001:db8:1::11", "2001:db8:2::1", "fe80::1"};
static const uint16_t ports[] = {
	WORLD_PORT, WORLD_PORT, WORLD_PORT, WORLD_PORT, WORLD_TCP_PORT, WORLD_ONE_PORT, 22, 80};
static const uint32_t sales[] = {WORLD_SALE, WORLD_SALE, WORLD_OTHER_SALE, WORLD_SHADED_SALE};

static struct sluice_addr source_of(unsigned choice)
{
	struct sluice_addr v4 = {0, 0xffffc000020aULL}, v6 = {0x20010db800010000ULL, 0x10};

	return choice & 4 ? (struct sluice_addr){v6.hi + (choice >> 1 & 1), v6.lo + (choice & 1)}
			  : (struct sluice_addr){0, v4.lo + (choice & 3)};
}

static struct sluice_token last_token;

/* Six bytes. */
static struct sluice_token read_token(struct input *input)
{
	uint8_t serial = input_u8(input), buyer = input_u8(input), quantity = input_u8(input), choice = input_u8(input);
	uint8_t bound = input_u8(input), age = input_u8(input);
	static const uint32_t nodes[] = {1, 2, 3, 300};
	uint32_t now_s = (uint32_t)(world_wall_ns() / NS_PER_S);
	struct sluice_addr network = source_of(bound >> 1);
	struct sluice_token token = {
		.key_id = choice >> 2 & 7 ? 1 : choice >> 5,
		.quantity = quantity & 0x80 ? quantity : quantity & 3,
		.flags = choice == 0xff,
		.sale = sales[choice & 3],
		.issued_at_s = now_s - (age >> 4),
		.expires_at_s = age & 8 ? now_s + (age & 3) - 1 : now_s + 3600,
		.buyer = 1 + (buyer & 7),
		.serial = 1 + (serial & 31),
		.network = bound & 1 ? sluice_network_of(&network) : 0,
		.node = nodes[serial >> 6],
	};

	last_token = token;
	return token;
}

/* What the helpers will say. One byte. */
static void set_scene(uint8_t scene)
{
	static const unsigned sockets[] = {
		0, BPF_TCP_LISTEN, BPF_TCP_LISTEN, BPF_TCP_ESTABLISHED, BPF_TCP_TIME_WAIT, BPF_TCP_NEW_SYN_RECV, 0, 0};

	shim.socket_state = sockets[scene & 7];
	shim.cookie = scene >> 3 & 3 ? scene >> 3 & 1 ? SHIM_COOKIE_GOOD : SHIM_COOKIE_BAD : SHIM_COOKIE_HONEST;
	shim.cookie_error = scene >> 5 == 7 ? -2 : scene >> 5 == 6 ? -22 : 0;
	shim.head_room = scene & 0x20 ? 0 : 256;
	shim.tail_room = scene & 0x40 ? 0 : 512;
}

static void event_raw(struct input *input)
{
	uint8_t scene = input_u8(input);
	uint16_t wanted = input_u16(input);
	struct world_run run;
	size_t length;
	const uint8_t *bytes = input_bytes(input, wanted & 0x7ff, &length);

	set_scene(scene);
	world_frame(bytes, (uint32_t)length, wanted >> 15, &run);
}

/* What stands behind the TCP header. */
enum payload { PAYLOAD_ORDER, PAYLOAD_CUT, PAYLOAD_OTHER, PAYLOAD_BYTES };

static unsigned write_payload(struct input *input, uint8_t choice, char *out, unsigned size)
{
	char text[SLUICE_TOKEN_TEXT + 1];
	struct sluice_token token;
	unsigned length, cut = choice >> 2;
	size_t got;

	switch ((enum payload)(choice & 3)) {
	case PAYLOAD_OTHER:
		return (unsigned)snprintf(out, size, "GET /v1/sales/drop-11 HTTP/1.1\r\nHost: shop.example\r\n\r\n");
	case PAYLOAD_BYTES:
		memcpy(out, input_bytes(input, cut * 4, &got), got);
		return (unsigned)got;
	default:
		break;
	}
	token = read_token(input);
	world_seal(&token, text);
	length = (unsigned)snprintf(out, size,
		"POST /v1/orders/%s HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
		"Accept: */*\r\nContent-Length: 0\r\n\r\n",
		text);
	if (choice >> 2 & 1) /* another end of the request line's first part */
		out[16 + SLUICE_TOKEN_TEXT] = (char)input_u8(input);
	return (choice & 3) == PAYLOAD_CUT ? length * cut / 64 : length;
}

/* Up to three bytes changed, or the frame cut. */
static uint32_t spoil(struct input *input, uint8_t how, uint8_t *bytes, uint32_t length)
{
	for (unsigned i = how & 3; i && length; i--) {
		uint16_t at = input_u16(input);

		bytes[(at & 0x8000 ? at : at & 0x7f) % length] ^= input_u8(input);
	}
	if (how & 4)
		length -= length * input_u8(input) / 256;
	return length;
}

static void event_built(struct input *input)
{
	uint8_t shape = input_u8(input), scene = input_u8(input), options = input_u8(input), where = input_u8(input);
	uint8_t flags = input_u8(input), how = input_u8(input), bytes[FRAME_MAX];
	struct frame frame = frame_syn(shape & 1);
	struct world_run run;
	char payload[512];
	bool shakes_hands = how & 8;

	set_scene(scene);
	frame.vlans = shape >> 1 & 3;
	frame.ip6_extensions = shape & 8 ? options & 15 : 0;
	frame.ip_option_words = shape & 8 ? options % 11 : 0;
	frame.ip6_fragment_header = shape & 16;
	frame.fragment = shape & 32 ? (uint16_t)(options << 8 | 1) : 0;
	frame.tcp_option_bytes = 4 * (options >> 4) % 44;
	frame.source = (shape & 1 ? sources6 : sources4)[where & 3];
	frame.destination = shape & 1 ? "2001:db8::1" : "192.0.2.2";
	frame.dport = ports[where >> 2 & 7];
	frame.sport = (uint16_t)(40000 + (where >> 5));
	frame.padding = shape & 64 ? 18 : 0;
	frame.protocol = shape & 128 && options == 17 ? 17 : 0;
	if (shakes_hands) { /* the cookie is taken out of the gate's own SYN-ACK */
		world_frame(bytes, frame_write(&frame, bytes), how & 16, &run);
		if (run.action == XDP_TX)
			frame.ack = frame_parse(run.bytes, run.length).seq + 1;
		frame.seq++;
		shim.socket_state = 0;
		frame.flags = F_ACK | F_PSH;
	}
	if (flags)
		frame.flags = flags;
	if (how & 32) {
		frame.payload_len = write_payload(input, input_u8(input), payload, sizeof(payload));
		frame.payload = payload;
	}
	world_frame(bytes, spoil(input, how, bytes, frame_write(&frame, bytes)), how & 16, &run);
	if (how & 64) /* a retransmission */
		world_frame(bytes, frame_write(&frame, bytes), how & 16, &run);
}

/* An op that nobody knows. Not those that give an order's units back or take them again: they are the daemon's, after the ledger's word, and an
 * order that was never admitted has none to give (tests/packet plays them against the reference model).
 */
static uint32_t unknown_op(uint8_t byte)
{
	return byte == SLUICE_CALL_RELEASE || byte == SLUICE_CALL_RECLAIM ? 0 : byte;
}

static void event_call(struct input *input)
{
	uint8_t choice = input_u8(input), how = input_u8(input);
	struct sluice_token token = read_token(input);
	struct sluice_call call = {
		.op = choice & 8      ? SLUICE_CALL_RATE
			: choice & 16 ? unknown_op(how)
				      : SLUICE_CALL_ORDER,
		.flags = choice >> 5,
		.source = source_of(choice & 7),
	};
	char text[SLUICE_TOKEN_TEXT + 1];

	world_seal(&token, text);
	memcpy(call.token, text, SLUICE_TOKEN_TEXT);
	for (; how & 3; how--)
		call.token[input_u8(input) % SLUICE_TOKEN_TEXT] ^= (char)input_u8(input);
	world_call(&call);
}

static void event_sale(struct input *input)
{
	struct sluice_sale *sale = world_sale(sales[input_u8(input) & 2]);
	uint8_t what = input_u8(input), value = input_u8(input);
	uint64_t wall = world_wall_ns();

	switch (what & 7) {
	case 0:
		sale->flags = value &
			(SLUICE_SALE_PAUSED | SLUICE_SALE_ENDED | SLUICE_SALE_CLOSED | SLUICE_SALE_MORE |
				SLUICE_SALE_WITHHELD);
		break;
	case 1:
		sale->opens_wall = wall + (uint64_t)((int8_t)value * (int64_t)NS_PER_S);
		break;
	case 2:
		sale->ends_wall = wall + (uint64_t)((int8_t)value * (int64_t)NS_PER_S);
		break;
	case 3:
		sale->per_buyer = value % (SLUICE_MAX_QUANTITY + 1);
		break;
	case 4:
		sale->pace.interval_ns = value ? NS_PER_S / value : 0;
		break;
	case 5:
		sale->pace.tolerance_ns = value * (NS_PER_S / 16);
		break;
	case 6:
		sale->opens_wall = value & 1 ? 0 : ~0ULL;
		break;
	default:
		sale->not_before_s = value ? (__u32)(wall / NS_PER_S) - value % 16 : 0;
		break;
	}
}

static void event_control(struct input *input)
{
	struct sluice_control *control = world_control();
	uint8_t what = input_u8(input);
	uint16_t value = input_u16(input);

	switch (what & 7) {
	case 0:
		control->flags = value;
		break;
	case 1:
		control->heartbeat_mono = shim.now_ns + (uint64_t)((int16_t)value * (int64_t)(NS_PER_S / 256));
		break;
	case 2:
		control->backlog_max = value & 15;
		break;
	case 3:
		control->grow = value & (SLUICE_GROW_HEAD | SLUICE_GROW_TAIL);
		break;
	case 4:
		control->mss4 = value;
		control->mss6 = (__u16)~value;
		break;
	case 5:
		control->rate_mask = (1u << (value & 7)) - 1;
		break;
	case 6:
		control->wall_offset_ns += (uint64_t)((int16_t)value * (int64_t)NS_PER_S);
		break;
	default:
		control->rate_seed = value;
		break;
	}
}

static void event_limit(struct input *input)
{
	uint8_t id = input_u8(input), interval = input_u8(input), burst = input_u8(input);
	struct sluice_limit *limit = &world_limits()->limit[id % SLUICE_LIMIT_COUNT];

	limit->interval_ns = interval ? 1ULL << (interval & 63) : 0;
	limit->tolerance_ns = limit->interval_ns * (burst & 15);
}

static void event_list(struct input *input)
{
	uint8_t choice = input_u8(input), length = input_u8(input), expires = input_u8(input);
	struct sluice_addr addr = source_of(choice & 7);

	world_list(choice & 8 ? SLUICE_LIST_ALLOW : SLUICE_LIST_DENY, addr,
		addr.hi ? 1 + length % 128 : 112 + length % 17, expires ? world_wall_ns() + expires : 0);
}

/* What another CPU, or the daemon, may do while a judge is at work. */
static void take_all_units(void)
{
	world_move_stock(WORLD_SALE, -WORLD_STOCK);
	world_move_stock(WORLD_OTHER_SALE, -WORLD_STOCK);
}

static void claim_last_token(void)
{
	world_claim(&last_token, SLUICE_ADMISSION_CLAIMED);
}

static void event_fault(struct input *input)
{
	uint8_t what = input_u8(input), value = input_u8(input);
	static const char *const full[] = {"admissions", "buyers", "ring"};

	if (what & 0x80) {
		shim.meanwhile_update = value & 3;
		shim.meanwhile = value & 8 ? claim_last_token : take_all_units;
		shim.has_short_errors = value & 4;
	} else if (what & 1) {
		shim.failing_update = value & 3;
		shim.update_error = value & 4 ? -16 : value & 8 ? -12 : -7; /* EBUSY, ENOMEM, E2BIG */
	} else {
		shim_map_limit(shim_map_find(full[what / 2 % 3]), 1 + value);
	}
}

static void event_key(struct input *input)
{
	uint8_t choice = input_u8(input);
	struct sluice_key *key = world_key(choice);

	key->valid = choice >> 1 & 1;
	key->id = choice >> 2 & 7;
	key->k0 += choice >> 5;
}

static void event_claim(struct input *input)
{
	static const uint32_t states[] = {
		0, SLUICE_ADMISSION_CLAIMED, SLUICE_ADMISSION_REVOKED, SLUICE_ADMISSION_CLAIMED};
	struct sluice_token token = read_token(input);

	world_claim(&token, states[input_u8(input) & 3]);
}

static void event_answer(struct input *input)
{
	uint8_t code = input_u8(input), fill = input_u8(input);
	uint16_t sizes = input_u16(input);
	unsigned length =
		34 + (sizes & 0x1ff) % ((SLUICE_ANSWER_MAX - 34) / 2 + 1) * 2; /* longer than the short form */

	world_answer(1 + code % (SLUICE_ANSWER_COUNT - 1), fill, length,
		sizes >> 9 & 1 ? 2 * (sizes >> 10) % (length - 4) : 0);
}

static void event_watch(struct input *input)
{
	uint8_t choice = input_u8(input), reason = input_u8(input);
	struct sluice_addr source = source_of(choice & 7);
	struct sluice_watch watch = {
		.reasons = choice & 8 ? 1ULL << (reason & 63)
			: reason      ? ~0ULL
				      : 0,
		.until_mono = shim.now_ns + (choice & 16 ? 0 : NS_PER_S),
		.threshold = choice & 32 ? 0 : ~0u,
	};

	if (choice & 64)
		watch.addr = watch.mask = source;
	world_watch(&watch);
	shim_map_limit(shim_map_find("events"), choice & 128 ? 64 : 0); /* room for one, or for all */
}

/* Which node this is; or where another one is. */
static void event_fleet(struct input *input)
{
	uint8_t choice = input_u8(input), fill = input_u8(input);
	uint16_t sizes = input_u16(input);
	unsigned length = 2 * (SLUICE_TOKEN_TEXT + (sizes & 0x1ff) % (SLUICE_ANSWER_MAX / 2 - SLUICE_TOKEN_TEXT + 1));

	if (choice & 4)
		world_control()->node = choice & 3;
	else
		world_home(choice & 3, fill, choice & 8 ? 0 : length,
			sizes >> 9 & 1 ? 2 + 2 * (sizes >> 10) % (length - SLUICE_TOKEN_TEXT - 2) : 0);
}

static void run_event(enum event event, struct input *input)
{
	switch (event) {
	case EVENT_RAW:
		return event_raw(input);
	case EVENT_BUILT:
		return event_built(input);
	case EVENT_CALL:
		return event_call(input);
	case EVENT_TIME:
		shim.now_ns += (uint64_t)input_u8(input) << (input_u8(input) & 31);
		shim.random = (uint32_t)shim.now_ns;
		return;
	case EVENT_SALE:
		return event_sale(input);
	case EVENT_LIMIT:
		return event_limit(input);
	case EVENT_CONTROL:
		return event_control(input);
	case EVENT_STOCK:
		return world_move_stock(sales[input_u8(input) & 2], (int8_t)input_u8(input));
	case EVENT_LIST:
		return event_list(input);
	case EVENT_SETTLE:
		return world_settle(input_u8(input));
	case EVENT_FAULT:
		return event_fault(input);
	case EVENT_CLAIM:
		return event_claim(input);
	case EVENT_KEY:
		return event_key(input);
	case EVENT_ANSWER:
		return event_answer(input);
	case EVENT_WATCH:
		return event_watch(input);
	case EVENT_FLEET:
		return event_fleet(input);
	case EVENT_COUNT:
		break;
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	world_open();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct input input = {bytes, size};

	world_reset();
	for (unsigned i = 0; input.left && i < EVENTS_MAX; i++)
		run_event(input_u8(&input) % EVENT_COUNT, &input);
	return 0;
}
