/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* From a step to bytes: the flows and tokens of the differential test's little world, and how their frames are wrapped and damaged.
 *
 * Flows and tokens are the same in every sequence: number 7 has the same addresses and ports always. What is around a segment
 * (tags, options, extension headers, padding) is drawn from the step's own seed.
 */
#include <stdio.h>
#include <string.h>

#include "common/addr.h"
#include "common/token.h"
#include "model_run.h"

#define REQUEST_MAX 1200
#define FRAME_LONGEST 1514
#define FEW_BUYERS 14
#define TWIN_FLOW 38
#define MANY_BUYERS 37

static const char *const sources4[] = {"192.0.2.10", "192.0.2.11", "192.0.2.200", "192.0.3.10", "198.51.100.7",
	"198.51.100.8", "203.0.113.1", "10.1.2.3", "10.1.2.4", "10.1.3.3"};
static const char *const sources6[] = {"2001:db8:1::10", "2001:db8:1::11", "2001:db8:1:7::1", "2001:db8:2::1",
	"2001:db8:2:1::1", "2001:db8:fffe::5", "fd00::1", "::2", "2001:db8:2:1::2", "2001:db8:1::ffff"};

const char *arena_source(unsigned flow)
{
	if (flow == TWIN_FLOW)
		return "127.0.0.1";
	return flow % 2 ? sources6[flow / 2 % 10] : sources4[flow / 2 % 10];
}

/* Most go to the sale, some to the others. One has the address and port of a connection that the kernel has, but goes elsewhere. */
struct frame arena_frame_of(const struct arena *arena, unsigned flow)
{
	static const uint16_t ports[] = {GATE_PORT, GATE_PORT, GATE_PORT, GATE_PORT, GATE_PORT, GATE_TCP_PORT,
		GATE_PORT, ARENA_NAMED_PORT, GATE_PORT, GATE_DEAD_PORT, GATE_PORT, 22};
	struct frame frame = frame_syn(flow % 2);
	const struct arena_flow *known = &arena->flows[flow];

	frame.source = arena_source(flow);
	frame.sport = 20000 + flow;
	frame.dport = ports[flow % 12];
	if (frame.dport == ARENA_NAMED_PORT && flow < 12)
		frame.dport = GATE_PORT;
	if (frame.dport == ARENA_NAMED_PORT && flow >= 24) {
		frame.ip6 = false;
		frame.source = sources4[flow % 10];
		frame.destination = ARENA_NAMED_ADDRESS;
	}
	if (flow == TWIN_FLOW && arena->model.socket_count) {
		frame.sport = arena->model.sockets[0].sport;
		frame.destination = "127.0.0.2";
	}
	frame.seq = known->isn + 1;
	frame.ack = known->cookie + 1;
	return frame;
}

/* --- tokens --------------------------------------------------------------------------------------------------------------- */
static struct sluice_token token_of(unsigned number)
{
	struct dice dice = dice_of(number * 7919ull + 1);
	struct sluice_token token = {.version = 1,
		.key_id = 1,
		.quantity = 1,
		.sale = GATE_SALE,
		.issued_at_s = ARENA_START_S - dice_below(&dice, 20),
		.expires_at_s = ARENA_START_S + 3600,
		.serial = 1000 + number,
		.node = 1,
		.buyer = 1 + number % (number < SEQUENCE_TOKENS / 2 ? FEW_BUYERS : MANY_BUYERS)};
	struct sluice_addr network;

	if (number % 8 == 0) /* the same serial in other hands, or for another quantity */
		token.serial = 1000 + number / 16;
	if (number < 24 && number % 3)
		return token;
	if (dice_once_in(&dice, 4))
		token.quantity = dice_below(&dice, 5);
	if (dice_once_in(&dice, 4))
		token.sale = (const uint32_t[]){8, GATE_SALE + SLUICE_MAX_SALES, 8, 0, 99, 8}[dice_below(&dice, 6)];
	if (dice_once_in(&dice, 5))
		token.expires_at_s = ARENA_START_S + dice_below(&dice, 40) - 5;
	if (dice_once_in(&dice, 4) && !addr_parse(arena_source(dice_below(&dice, SEQUENCE_FLOWS)), &network))
		token.network = sluice_network_of(&network);
	if (dice_once_in(&dice, 6))
		token.key_id = dice_below(&dice, 4);
	if (dice_once_in(&dice, 5))
		token.node = (const uint32_t[]){0, 2, 2, 3, 255, 256, 258, 0xffffffff}[dice_below(&dice, 8)];
	if (dice_once_in(&dice, 20))
		token.version = 2;
	if (dice_once_in(&dice, 20))
		token.flags = 1;
	return token;
}

/* Mostly good; `dice` damages some. */
void arena_token_text(struct arena *arena, unsigned number, struct dice *dice, char *text)
{
	struct sluice_token token = token_of(number);
	uint8_t *bytes = (uint8_t *)&token;
	const struct sluice_key *key;

	if (dice_once_in(dice, 30))
		token.network = dice_word(dice);
	if (dice_once_in(dice, 40))
		token.quantity = (const uint8_t[]){0, 101, 200, 255}[dice_below(dice, 4)];
	key = &arena->gate.keys[token.key_id & 1];
	token.mac = sluice_token_mac(&token, key->k0, key->k1);
	if (dice_once_in(dice, 30))
		bytes[dice_below(dice, sizeof(token))] ^= 1 << dice_below(dice, 8);
	base64url_encode(bytes, sizeof(token), text);
	if (dice_once_in(dice, 40))
		text[dice_below(dice, SLUICE_TOKEN_TEXT)] = dice_word(dice);
}

/* --- requests ------------------------------------------------------------------------------------------------------------- */
static unsigned write_request(struct arena *arena, unsigned number, struct dice *dice, char *out)
{
	static const char *const others[] = {"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n",
		"GET /v1/sales/drop-11 HTTP/1.1\r\nHost: shop.example\r\n\r\n", "x", "POST /v1", "POST /v1/ordinary",
		"POST /v1X", "POST /v1/orders", "POST /v1/orders/", "POST /v1/orders/short HTTP/1.1\r\n\r\n",
		"POST /v1/sales/drop-11/tokens HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 2\r\n\r\n{}",
		"post /v1/orders/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA HTTP/1.1\r\n\r\n"};
	char text[SLUICE_TOKEN_TEXT + 1];
	unsigned length;

	if (dice_once_in(dice, 6))
		return snprintf(out, REQUEST_MAX, "%s", others[dice_below(dice, sizeof(others) / sizeof(others[0]))]);
	arena_token_text(arena, number, dice, text);
	length = gate_order_request(text, out, REQUEST_MAX);
	if (dice_once_in(dice, 12))
		out[16 + SLUICE_TOKEN_TEXT] = "?/A# \r"[dice_below(dice, 6)];
	if (dice_once_in(dice, 12))
		length = 1 + dice_below(dice, length - 1);
	if (dice_once_in(dice, 6)) {
		unsigned more = dice_below(dice, REQUEST_MAX - length);

		memset(out + length, 'x', more);
		length += more;
	}
	return length;
}

/* --- around a segment ----------------------------------------------------------------------------------------------------- */
static void wrap(struct frame *frame, struct dice *dice)
{
	if (dice_once_in(dice, 3))
		frame->vlans = dice_once_in(dice, 10) ? 3 : 1 + dice_below(dice, 2);
	if (dice_once_in(dice, 5))
		frame->ip_option_words = dice_below(dice, 11);
	if (dice_once_in(dice, 5))
		frame->ip6_extensions = dice_below(dice, 10);
	if (dice_once_in(dice, 6))
		frame->padding = dice_below(dice, 60);
	if (dice_once_in(dice, 25)) {
		frame->ip6_fragment_header = frame->ip6;
		frame->fragment = dice_once_in(dice, 2)
			? 0
			: (const uint16_t[]){1, 0x2000, 8, 9, 185, 0x2001, 0x4000}[dice_below(dice, 7)];
		frame->ip6_extensions %= 8;
	} else if (dice_once_in(dice, 4)) {
		frame->fragment = frame->ip6 ? 0 : 0x4000; /* DF */
	}
	if (dice_once_in(dice, 60))
		frame->protocol = (const uint8_t[]){17, 1, 58, 51, 43, 132}[dice_below(dice, 6)];
}

/* What the client acknowledges after its first segment: mostly the answer, if there was one; sometimes that was lost; sometimes the edges of what an
 * answer can be.
 */
static uint32_t seen(const struct arena_flow *flow, struct dice *dice)
{
	static const uint32_t edges[] = {
		0, 1, SLUICE_ANSWER_MAX + 1, SLUICE_ANSWER_MAX + 2, 0x8000, 0xffff, 0x10000, 0x10001};

	if (dice_once_in(dice, 8))
		return edges[dice_below(dice, sizeof(edges) / sizeof(*edges))];
	return dice_once_in(dice, 4) ? 0 : flow->answer_len;
}

/* Any flags and numbers: near what was said before, or far from it. */
static void stray(struct arena *arena, const struct step *step, struct dice *dice, struct frame *frame)
{
	static const uint8_t flags[] = {F_ACK, F_ACK | F_FIN, F_ACK | F_PSH, F_ACK | F_PSH | F_FIN, F_RST,
		F_RST | F_ACK, F_SYN | F_ACK, F_SYN, 0, F_FIN, F_ACK | 32, F_SYN | F_FIN, F_SYN | F_RST};

	frame->flags = dice_once_in(dice, 8) ? dice_below(dice, 256) : flags[dice_below(dice, sizeof(flags))];
	if (dice_once_in(dice, 2)) { /* around what the cookie proves */
		frame->seq += dice_below(dice, 11) - 5;
		frame->ack += dice_below(dice, 11) - 5;
	} else if (dice_once_in(dice, 2)) {
		frame->seq += arena->flows[step->flow].first_len + dice_below(dice, 3000);
	} else {
		frame->seq = dice_word(dice);
		frame->ack = dice_word(dice);
	}
}

static void describe(
	struct arena *arena, const struct step *step, struct dice *dice, struct frame *frame, char *request)
{
	struct arena_flow *flow = &arena->flows[step->flow];

	*frame = arena_frame_of(arena, step->flow);
	frame->payload = request;
	frame->tcp_option_bytes = dice_once_in(dice, 3) ? 4 * dice_below(dice, 11) : 0;
	frame->flags = F_ACK;
	switch (step->kind) {
	case STEP_SYN:
	case STEP_EDGE_SYN:
		frame->flags = F_SYN;
		frame->tcp_option_bytes = dice_once_in(dice, 8) ? 0 : 4 * dice_below(dice, 11);
		frame->seq = dice_once_in(dice, 8) ? 0xfffffffe + dice_below(dice, 4) : dice_word(dice);
		frame->ack = dice_once_in(dice, 4) ? dice_word(dice) : 0;
		if (dice_once_in(dice, 12))
			frame->flags |= dice_below(dice, 256) & ~(F_ACK | F_RST | F_FIN);
		frame->payload_len = dice_once_in(dice, 25);
		*request = 'x';
		flow->isn = frame->seq;
		break;
	case STEP_FIRST:
	case STEP_EDGE:
		frame->flags |= F_PSH | (dice_once_in(dice, 6) ? F_FIN : 0);
		frame->payload_len = write_request(arena, step->token, dice, request);
		if (frame->payload_len == 1 && dice_once_in(dice, 2))
			frame->flags &= ~F_PSH;
		flow->first_len = frame->payload_len;
		if (dice_once_in(dice, 20))
			frame->seq += dice_below(dice, 9) - 4;
		if (dice_once_in(dice, 20))
			frame->ack += dice_below(dice, 9) - 4;
		break;
	case STEP_NEXT:
		frame->flags |= F_PSH | (dice_once_in(dice, 4) ? F_FIN : 0);
		frame->seq += flow->first_len;
		frame->ack += seen(flow, dice);
		frame->payload_len = 1 + dice_below(dice, 200);
		memset(request, 'y', frame->payload_len);
		break;
	case STEP_FIN:
		frame->flags |= F_FIN;
		frame->seq += flow->first_len;
		frame->ack += seen(flow, dice);
		break;
	case STEP_SILENT_FIN:
		frame->flags |= F_FIN;
		break;
	case STEP_RST:
		frame->flags = F_RST | (dice_once_in(dice, 2) ? F_ACK : 0);
		frame->seq += flow->first_len;
		break;
	case STEP_STRAY:
		stray(arena, step, dice, frame);
		frame->payload_len = dice_once_in(dice, 2) ? 0 : write_request(arena, step->token, dice, request);
		break;
	case STEP_SOCKET: {
		const struct model_socket *socket = &arena->model.sockets[dice_below(dice, arena->model.socket_count)];
		static char source[ADDR_TEXT_MAX], destination[ADDR_TEXT_MAX];
		struct sluice_addr from = model_addr_number(&socket->source),
				   to = model_addr_number(&socket->destination);

		frame->ip6 = !model_addr_is_ip4(&socket->source);
		frame->source = addr_format(&from, source);
		frame->destination = addr_format(&to, destination);
		frame->sport = socket->sport;
		frame->dport = socket->dport;
		stray(arena, step, dice, frame);
		frame->payload_len = dice_once_in(dice, 2) ? 0 : write_request(arena, step->token, dice, request);
		break;
	}
	default: /* STEP_ACK */
		break;
	}
}

/* A chain of extension headers of any kind and length (RFC 8200 section 4, RFC 4302 section 2.2) in front of what the IPv6
 * header leads to now. Returns the new length.
 */
static unsigned insert_chain(struct dice *dice, const struct frame *frame, uint8_t *bytes, unsigned length)
{
	static const uint8_t types[] = {0, 43, 44, 51, 60, 44, 60};
	static uint8_t rest[FRAME_MAX];
	unsigned ip = frame_ip_offset(frame), rest_length = length - ip - 40, payload;
	uint8_t *next = bytes + ip + 6, *at = bytes + ip + 40, first = *next;

	memcpy(rest, at, rest_length);
	for (unsigned i = 1 + dice_below(dice, 4); i > 0; i--) {
		uint8_t type = types[dice_below(dice, sizeof(types))];
		unsigned words = dice_below(dice, 5),
			 size = type == 44 ? 8
			: type == 51       ? 8 + 4 * words
					   : 8 + 8 * words;

		if (at - bytes + size + rest_length > FRAME_LONGEST)
			break;
		*next = type;
		memset(at, 0, size);
		at[1] = type == 44 ? 0 : words;
		if (type == 44)
			at[3] = dice_once_in(dice, 6); /* more to come */
		if (type == 44 && dice_once_in(dice, 12))
			at[3] |= 8; /* not the first */
		next = at;
		at += size;
	}
	*next = first;
	memcpy(at, rest, rest_length);
	payload = at + rest_length - (bytes + ip + 40);
	bytes[ip + 4] = payload >> 8;
	bytes[ip + 5] = payload & 0xff;
	return at + rest_length - bytes;
}

/* --- damage --------------------------------------------------------------------------------------------------------------- */
static unsigned random_frame(struct dice *dice, uint8_t *bytes)
{
	static const uint16_t types[] = {0x0800, 0x86dd, 0x8100, 0x88a8};
	unsigned length = 14 + dice_below(dice, dice_once_in(dice, 2) ? FRAME_LONGEST - 14 : 100), off = 12;

	for (unsigned i = 0; i < length; i++)
		bytes[i] = dice_word(dice);
	for (unsigned i = 0; i < 4 && off + 2 <= length && !dice_once_in(dice, 8); i++) {
		uint16_t type = types[dice_below(dice, 4)];

		bytes[off] = type >> 8;
		bytes[off + 1] = type & 0xff;
		if (type == 0x0800 && off + 26 < length) {
			bytes[off + 2] = 0x40 | (dice_once_in(dice, 4) ? dice_below(dice, 16) : 5);
			bytes[off + 4] = 0;
			bytes[off + 5] = dice_below(dice, 256);
			bytes[off + 8] = bytes[off + 9] = 0;
			bytes[off + 11] = dice_once_in(dice, 4) ? dice_below(dice, 256) : 6;
			break;
		}
		if (type == 0x86dd && off + 10 < length) {
			bytes[off + 2] = 0x60;
			bytes[off + 6] = 0;
			bytes[off + 7] = dice_below(dice, 256);
			bytes[off + 8] = (const uint8_t[]){6, 6, 0, 43, 44, 51, 60, 59}[dice_below(dice, 8)];
			break;
		}
		off += 4;
	}
	return length;
}

static unsigned damage(struct dice *dice, uint8_t *bytes, unsigned length)
{
	unsigned at = dice_below(dice, dice_once_in(dice, 4) || length < 90 ? length : 90);

	switch (dice_below(dice, 8)) {
	case 0:
		bytes[at] = dice_word(dice);
		break;
	case 1:
	case 2:
		bytes[at] ^= 1 << dice_below(dice, 8);
		break;
	case 3:
		bytes[at] = (const uint8_t[]){0, 1, 0x7f, 0x80, 0xff, 5, 6, 40}[dice_below(dice, 8)];
		break;
	case 4:
		return 14 + dice_below(dice, length - 13);
	case 5:
		if (length + 64 < FRAME_LONGEST)
			return length + dice_below(dice, 64);
		break;
	case 6:
		memmove(bytes + at, bytes + dice_below(dice, length > 16 ? length - 16 : 1),
			dice_below(dice, length - at < 16 ? length - at : 16));
		break;
	case 7: /* the ends of the headers, as their lengths tell it */
		at = 14 + 4 * dice_below(dice, 3) +
			(const uint8_t[]){2, 3, 4, 5, 6, 7, 9, 32, 41, 46}[dice_below(dice, 10)];
		if (at < length)
			bytes[at] += dice_below(dice, 9) - 4;
		break;
	}
	return length;
}

unsigned arena_write(struct arena *arena, const struct step *step, uint8_t *bytes)
{
	struct dice dice = dice_of(step->seed);
	static char request[REQUEST_MAX + 1];
	struct frame frame;
	unsigned length;

	memset(bytes, 0, FRAME_MAX);
	if (step->kind == STEP_NOISE) {
		length = random_frame(&dice, bytes);
	} else {
		describe(arena, step, &dice, &frame, request);
		if (step->kind != STEP_EDGE)
			wrap(&frame, &dice);
		if (frame.payload_len > 1000)
			frame.payload_len = 1000;
		length = frame_write(&frame, bytes);
		if (frame.ip6 && frame.vlans < 3 && step->kind != STEP_EDGE && dice_once_in(&dice, 8))
			length = insert_chain(&dice, &frame, bytes, length);
	}
	for (unsigned i = 0; i < step->mutations; i++)
		length = damage(&dice, bytes, length);
	return length;
}

/* One of the admissions that there are. What its buyer has not, it cannot give back: the daemon does that once for each order. */
static void choose_admission(struct arena *arena, struct dice *dice, struct sluice_call *call)
{
	const struct model *model = &arena->model;
	const struct model_admission *entry;
	const struct model_buyer *buyer;

	call->op = SLUICE_CALL_RECLAIM;
	if (!model->admission_count)
		return;
	entry = &model->admissions[dice_below(dice, model->admission_count)];
	call->admission.sale = entry->sale;
	call->admission.buyer = entry->buyer;
	call->admission.quantity = entry->quantity;
	buyer = model_buyer_find(&arena->model, entry->buyer, entry->sale);
	if (!buyer || buyer->units < entry->quantity || dice_once_in(dice, 3))
		return;
	call->op = SLUICE_CALL_RELEASE;
	call->flags = dice_once_in(dice, 4) ? SLUICE_CALL_KEEP : 0;
}

struct sluice_call arena_ask(struct arena *arena, const struct step *step)
{
	struct dice dice = dice_of(step->seed);
	struct sluice_call call = {.op = step->kind == STEP_CALL_RATE ? SLUICE_CALL_RATE : SLUICE_CALL_ORDER};
	char text[SLUICE_TOKEN_TEXT + 1];

	if (addr_parse(arena_source(step->flow), &call.source))
		return call;
	arena_token_text(arena, step->token, &dice, text);
	memcpy(call.token, text, SLUICE_TOKEN_TEXT);
	call.flags = dice_once_in(&dice, 3) ? SLUICE_CALL_CHARGE : 0;
	if (step->kind == STEP_CALL_LATE)
		choose_admission(arena, &dice, &call);
	if (step->kind == STEP_CALL_ODD) {
		call.op = dice_below(&dice, 5);
		call.flags = dice_word(&dice);
		if (dice_once_in(&dice, 2))
			call.source.hi = dice_word(&dice) & dice_word(&dice) & dice_word(&dice);
		for (unsigned i = dice_below(&dice, 3); i > 0; i--)
			call.token[dice_below(&dice, SLUICE_TOKEN_TEXT)] = dice_word(&dice);
		call.reason = dice_word(&dice); /* what was in the answer's place before does not matter */
		call.serial = dice_word(&dice);
	}
	return call;
}
