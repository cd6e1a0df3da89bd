/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The request line of the first segment: is it an order, and does this segment show its token?
 *
 * "POST /v1/orders/" and 64 characters stand at fixed offsets. What does not match to the letter is not refused here: it goes
 * up, and the daemon asks the same judge through the call door.
 */
#ifndef SLUICE_BPF_REQUEST_H
#define SLUICE_BPF_REQUEST_H

#include "packet.h"

#define REQUEST_PREFIX_LEN 16                                          /* "POST /v1/orders/" */
#define REQUEST_ORDER_LEN (REQUEST_PREFIX_LEN + SLUICE_TOKEN_TEXT + 1) /* and the character behind the token */

enum request_kind { REQUEST_OTHER, REQUEST_ORDER, REQUEST_ORDER_CUT };

static __always_inline __u64 request_word(const char *text)
{
	__u64 word;

	__builtin_memcpy(&word, text, 8);
	return word;
}

/* On REQUEST_ORDER, `token` (8-byte aligned) has the 64 characters. If the one behind them does not end a request target's
 * segment (so the token is longer than a token can be), they are spoilt, and the judge finds no token.
 */
static __always_inline enum request_kind request_read(
	const struct packet *pkt, const void *data, const void *data_end, char *token)
{
	__u32 payload_len = pkt->payload_len, off = pkt->l4_off + pkt->header_len;
	const __u8 *payload;
	const __u64 *words;

	if (off > L4_OFF_MAX)
		return REQUEST_OTHER;
	payload = data + off;
	words = (const void *)payload;
	if (payload_len < REQUEST_ORDER_LEN || (const void *)(payload + REQUEST_ORDER_LEN) > data_end) {
		/* Short: an order only if what there is begins like one. */
		if (payload_len >= 8 && (const void *)(payload + 8) <= data_end)
			return words[0] == request_word("POST /v1") ? REQUEST_ORDER_CUT : REQUEST_OTHER;
		return REQUEST_OTHER;
	}
	if (words[0] != request_word("POST /v1") || words[1] != request_word("/orders/"))
		return REQUEST_OTHER;
#pragma GCC unroll 8
	for (int i = 0; i < SLUICE_TOKEN_TEXT / 8; i++)
		((__u64 *)token)[i] = words[2 + i];
	switch (payload[REQUEST_ORDER_LEN - 1]) {
	case ' ':
	case '?':
		break;
	default:
		token[0] = 0;
	}
	return REQUEST_ORDER;
}

#endif
