/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Fuzz target: bpf/request.h on any payload of a first segment.
 *
 * The input is one byte (where the frame lies and how much of it is behind the payload, as Ethernet pads) and the payload. Claims: nothing
 * beside the frame is read; what is taken for an order is one, and its 64 characters are those that stand there, or are spoilt when the
 * token goes on behind them.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "check.h"
#include "request.h"

#define HEADERS 54 /* Ethernet, IPv4 and TCP without options: nobody reads them here */
#define ORDER "POST /v1/orders/"

static enum request_kind wanted_kind(const uint8_t *payload, size_t length)
{
	if (length >= strlen(ORDER) + SLUICE_TOKEN_TEXT + 1)
		return memcmp(payload, ORDER, strlen(ORDER)) ? REQUEST_OTHER : REQUEST_ORDER;
	return length >= 8 && !memcmp(payload, ORDER, 8) ? REQUEST_ORDER_CUT : REQUEST_OTHER;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static uint8_t frame[SHIM_FRAME_MAX];
	char token[SLUICE_TOKEN_TEXT] __attribute__((aligned(8))), text[SLUICE_TOKEN_TEXT];
	struct input input = {bytes, size};
	uint8_t choice = input_u8(&input);
	unsigned padding = choice >> 1 & 63;
	struct packet pkt = {.l4_off = HEADERS - 20, .header_len = 20, .payload_len = (__u32)input.left};
	enum request_kind kind, wanted = wanted_kind(input.at, input.left);
	struct xdp_md *ctx;
	uint8_t behind;

	if (HEADERS + input.left + padding > sizeof(frame))
		return -1;
	memset(frame, 0, HEADERS);
	if (input.left)
		memcpy(frame + HEADERS, input.at, input.left);
	memset(frame + HEADERS + input.left, 'A', padding); /* would make a short order whole */
	ctx = shim_frame_put(frame, (uint32_t)(HEADERS + input.left + padding), choice & 1);
	memset(token, '?', sizeof(token));
	kind = request_read(&pkt, (void *)(long)ctx->data, (void *)(long)ctx->data_end, token);
	CHECK(kind == wanted, "kind %d, not %d", (int)kind, (int)wanted);
	if (kind != REQUEST_ORDER) {
		for (unsigned i = 0; i < sizeof(token); i++)
			CHECK(token[i] == '?', "a token was written");
		return 0;
	}
	memcpy(text, input.at + strlen(ORDER), sizeof(text));
	behind = input.at[strlen(ORDER) + SLUICE_TOKEN_TEXT];
	if (behind != ' ' && behind != '?')
		text[0] = '\0'; /* no character of the alphabet, so this is no token */
	CHECK(!memcmp(token, text, sizeof(text)), "another token than the one that stands there");
	return 0;
}
