/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The frames that the model sends back: written from nothing, field by field, with checksums summed word by word (RFC 1071). */
#include <stdio.h>
#include <string.h>

#include "model_inside.h"

#define HEAD_ROOM 216 /* XDP_PACKET_HEADROOM less what the kernel keeps of it for itself */
#define TTL 64
#define WINDOW 65535

int model_answer_of(int reason)
{
	switch (reason) {
#define X(name, label, action, answer, text) \
	case SLUICE_REASON_##name: \
		return SLUICE_ANSWER_##answer;
		SLUICE_REASONS(X)
#undef X
	}
	return SLUICE_ANSWER_NONE;
}

bool model_answer_waits(int code)
{
	static const bool waits[] = {
#define X(name, label, status, title, retry, detail) [SLUICE_ANSWER_##name] = retry,
		SLUICE_ANSWERS(X)
#undef X
	};

	return waits[code];
}

static const struct sluice_answer_bytes *answer_in_use(const struct model *model, const struct model_verdict *verdict)
{
	int code = model_answer_of(verdict->said), bank = model->banks >> code & 1;

	if (code == SLUICE_ANSWER_WRONG_NODE && !verdict->homeless)
		return &model->homes[bank][verdict->home];
	return &model->answers[bank][code];
}

static unsigned headers(const struct model_packet *packet)
{
	return packet->ip_at + (packet->ip6 ? 40 : 20) + 20;
}

static bool has_room(const struct model *model, const struct model_packet *packet, unsigned payload)
{
	unsigned needed = headers(packet) + payload;

	if (needed <= packet->length || model->grows_tail)
		return true;
	return model->grows_head && needed - packet->length <= HEAD_ROOM;
}

static bool form_fits(const struct model *model, const struct model_packet *packet, struct model_verdict *verdict)
{
	const struct sluice_answer_bytes *answer = answer_in_use(model, verdict);

	if (!answer->len || answer->len > SLUICE_ANSWER_MAX)
		return false;
	verdict->short_form = !has_room(model, packet, answer->len);
	if (!verdict->short_form)
		return true;
	return answer->short_len && answer->short_len <= SLUICE_ANSWER_SHORT_MAX &&
		has_room(model, packet, answer->short_len);
}

bool model_reply_fits(const struct model *model, const struct model_packet *packet, struct model_verdict *verdict)
{
	verdict->homeless = verdict->home >= MODEL_HOMES;
	if (form_fits(model, packet, verdict))
		return true;
	/* What cannot carry the address goes without it. */
	if (verdict->homeless || model_answer_of(verdict->said) != SLUICE_ANSWER_WRONG_NODE)
		return false;
	verdict->homeless = true;
	return form_fits(model, packet, verdict);
}

static void put16(uint8_t *at, unsigned value)
{
	at[0] = value / 256;
	at[1] = value % 256;
}

static void put32(uint8_t *at, uint32_t value)
{
	put16(at, value / 65536);
	put16(at + 2, value % 65536);
}

static unsigned checksum(const uint8_t *at, unsigned length, unsigned long sum)
{
	for (unsigned i = 0; i < length; i++)
		sum += i % 2 ? at[i] : at[i] * 256ul;
	while (sum > 0xffff)
		sum = sum % 65536 + sum / 65536;
	return 0xffff - sum;
}

static void write_ip(const struct model_packet *packet, uint8_t *ip, unsigned payload)
{
	const uint8_t *from = packet->bytes + packet->ip_at;

	if (packet->ip6) {
		memset(ip, 0, 40);
		ip[0] = 0x60;
		put16(ip + 4, payload);
		ip[6] = 6;
		ip[7] = TTL;
		memcpy(ip + 8, from + 24, 16);
		memcpy(ip + 24, from + 8, 16);
		return;
	}
	memset(ip, 0, 20);
	ip[0] = 0x45;
	put16(ip + 2, 20 + payload);
	put16(ip + 6, 0x4000);
	ip[8] = TTL;
	ip[9] = 6;
	memcpy(ip + 12, from + 16, 4);
	memcpy(ip + 16, from + 12, 4);
	put16(ip + 10, checksum(ip, 20, 0));
}

static unsigned payload_of(const struct model *model, const struct model_packet *packet,
	const struct model_verdict *verdict, uint8_t *payload)
{
	const struct sluice_answer_bytes *answer = answer_in_use(model, verdict);
	unsigned length = verdict->short_form ? answer->short_len : answer->len;
	const char *token;
	char digits[5];

	memcpy(payload, verdict->short_form ? answer->short_bytes : answer->bytes, length);
	if (answer->retry_at && !verdict->short_form) {
		snprintf(digits, sizeof(digits), "%04u", verdict->retry_after_s % 10000);
		memcpy(payload + answer->retry_at, digits, 4);
	}
	if (answer->token_at && model_request_read(packet->bytes + packet->data_at, packet->data_len, &token) == GO_ON)
		memcpy(payload + answer->token_at, token, SLUICE_TOKEN_TEXT);
	return length;
}

unsigned model_reply(const struct model *model, const uint8_t *bytes, unsigned length,
	const struct model_verdict *verdict, uint32_t cookie, uint8_t *out)
{
	struct model_packet packet = {.bytes = bytes, .length = length};
	unsigned header, options = 0, data = 0;
	uint8_t *tcp;

	if (model_parse_network(&packet) != GO_ON || model_parse_tcp(&packet) != GO_ON)
		return 0;
	memcpy(out, bytes + 6, 6);
	memcpy(out + 6, bytes, 6);
	memcpy(out + 12, bytes + 12, packet.ip_at - 12);
	header = packet.ip6 ? 40 : 20;
	tcp = out + packet.ip_at + header;
	memset(tcp, 0, 24);
	put16(tcp, packet.dport);
	put16(tcp + 2, packet.sport);
	put32(tcp + 8, packet.seq + packet.data_len + !!(packet.flags & F_FIN) + !!(packet.flags & F_SYN));
	put16(tcp + 14, WINDOW);
	if (verdict->reason == SLUICE_REASON_SYN_COOKIE) {
		put32(tcp + 4, cookie);
		tcp[13] = F_SYN | F_ACK;
		if (packet.option_bytes) { /* else it would be longer than its SYN */
			options = 4;
			tcp[20] = 2;
			tcp[21] = 4;
			put16(tcp + 22, packet.ip6 ? model->mss6 : model->mss4);
		}
	} else {
		put32(tcp + 4, packet.ack);
		tcp[13] = F_ACK;
		if (verdict->reason != SLUICE_REASON_LEFTOVER) {
			tcp[13] |= F_PSH | F_FIN;
			data = payload_of(model, &packet, verdict, tcp + 20);
		}
	}
	tcp[12] = (20 + options) / 4 * 16;
	write_ip(&packet, out + packet.ip_at, 20 + options + data);
	{
		const uint8_t *ip = out + packet.ip_at;
		unsigned long pseudo = 6 + 20 + options + data;

		for (unsigned i = packet.ip6 ? 8 : 12; i < header; i += 2)
			pseudo += model_get16(ip + i);
		put16(tcp + 16, checksum(tcp, 20 + options + data, pseudo));
	}
	return packet.ip_at + header + 20 + options + data;
}
