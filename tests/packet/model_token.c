/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The model's reading of a token: base64url (RFC 4648 section 5) bit by bit, SipHash-2-4 as the paper has it (Aumasson and Bernstein 2012,
 * section 2), and the fields at the offsets that docs/design.md lists.
 */
#include <string.h>

#include "model_inside.h"

static int value_of(char c)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	const char *at = c ? strchr(alphabet, c) : NULL;

	return at ? (int)(at - alphabet) : -1;
}

static uint64_t little_endian(const uint8_t *at, unsigned size)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value += (uint64_t)at[i] << 8 * i;
	return value;
}

bool model_token_read(const char *text, struct model_token *token)
{
	const uint8_t *at = token->bytes;

	memset(token, 0, sizeof(*token));
	for (unsigned i = 0; i < SLUICE_TOKEN_TEXT; i++) {
		int value = value_of(text[i]);

		if (value < 0)
			return false;
		for (unsigned bit = 0; bit < 6; bit++) {
			unsigned to = 6 * i + bit;

			if (value >> (5 - bit) & 1)
				token->bytes[to / 8] |= 0x80 >> to % 8;
		}
	}
	token->version = at[0];
	token->key_id = at[1];
	token->quantity = at[2];
	token->flags = at[3];
	token->sale = little_endian(at + 4, 4);
	token->issued_at_s = little_endian(at + 8, 4);
	token->expires_at_s = little_endian(at + 12, 4);
	token->buyer = little_endian(at + 16, 8);
	token->serial = little_endian(at + 24, 8);
	token->network = little_endian(at + 32, 4);
	token->node = little_endian(at + 36, 4);
	token->mac = little_endian(at + 40, 8);
	return true;
}

static uint64_t rotated(uint64_t word, unsigned by)
{
	return word << by | word >> (64 - by);
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = rotated(v[1], 13);
	v[3] = rotated(v[3], 16);
	v[1] ^= v[0];
	v[3] ^= v[2];
	v[0] = rotated(v[0], 32);
	v[2] += v[1];
	v[0] += v[3];
	v[1] = rotated(v[1], 17);
	v[3] = rotated(v[3], 21);
	v[1] ^= v[2];
	v[3] ^= v[0];
	v[2] = rotated(v[2], 32);
}

uint64_t model_siphash(const uint8_t *bytes, unsigned length, uint64_t k0, uint64_t k1)
{
	static const char initial[] = "somepseudorandomlygeneratedbytes"; /* the paper's constants, big-endian */
	uint64_t v[4] = {0};

	for (unsigned i = 0; i < 32; i++)
		v[i / 8] = v[i / 8] << 8 | (uint8_t)initial[i];
	v[0] ^= k0;
	v[1] ^= k1;
	v[2] ^= k0;
	v[3] ^= k1;
	/* The last word carries what is left and the length. */
	for (unsigned word = 0; word <= length / 8; word++) {
		unsigned left = length - 8 * word;
		uint64_t m = little_endian(bytes + 8 * word, left < 8 ? left : 8);

		if (left < 8)
			m |= (uint64_t)length << 56;
		v[3] ^= m;
		sip_round(v);
		sip_round(v);
		v[0] ^= m;
	}
	v[2] ^= 0xff;
	for (int i = 0; i < 4; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* The name of a /24 or a /64, by the mixer that include/sluice/token.h names. */
uint32_t model_network(const struct model_addr *addr)
{
	struct sluice_addr number = model_addr_number(addr);
	uint64_t net = number.hi != 0 ? number.hi : number.lo / 256;

	net = (net ^ net >> 33) * 0xff51afd7ed558ccdULL;
	net = (net ^ net >> 33) * 0xc4ceb9fe1a85ec53ULL;
	net = net ^ net >> 33;
	return (uint32_t)net == 0 ? 1 : (uint32_t)net;
}
