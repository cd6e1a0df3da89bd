/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The token: 48 bytes, base64url without padding = 64 characters, and the inline functions that both sides need to read it.
 *
 * The MAC is SipHash-2-4 (Aumasson, Bernstein 2012) of the first 40 bytes under a 128-bit key. The layout has no gaps and no
 * variable parts, so no two tokens serialise to the same bytes. Making tokens is userspace's business (common/token.c).
 */
#ifndef SLUICE_TOKEN_H
#define SLUICE_TOKEN_H

#include "abi.h"

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#define SLUICE_TOKEN_VERSION 1
#define SLUICE_TOKEN_BYTES 48

struct sluice_token { /* little-endian, as on the wire */
	__u8 version;
	__u8 key_id;
	__u8 quantity; /* units it asks for, 1..SLUICE_MAX_QUANTITY */
	__u8 flags;    /* 0 */
	__u32 sale;
	__u32 issued_at_s;
	__u32 expires_at_s;
	__u64 buyer;   /* keyed hash of the shop's reference */
	__u64 serial;  /* unique; the identity of the token */
	__u32 network; /* sluice_network_of() of the buyer's address; 0 = not bound */
	__u32 node;
	__u64 mac;
};
_Static_assert(sizeof(struct sluice_token) == SLUICE_TOKEN_BYTES, "the token has no gaps");

#define SLUICE_ROTL64(x, b) (((x) << (b)) | ((x) >> (64 - (b))))
#define SLUICE_SIPROUND(v0, v1, v2, v3) \
	do { \
		v0 += v1; \
		v1 = SLUICE_ROTL64(v1, 13); \
		v1 ^= v0; \
		v0 = SLUICE_ROTL64(v0, 32); \
		v2 += v3; \
		v3 = SLUICE_ROTL64(v3, 16); \
		v3 ^= v2; \
		v0 += v3; \
		v3 = SLUICE_ROTL64(v3, 21); \
		v3 ^= v0; \
		v2 += v1; \
		v1 = SLUICE_ROTL64(v1, 17); \
		v1 ^= v2; \
		v2 = SLUICE_ROTL64(v2, 32); \
	} while (0)

/* SipHash-2-4 of `count` little-endian 64-bit words (a message of 8 * count bytes, count < 32). */
static __always_inline __u64 sluice_siphash_words(const __u64 *words, __u32 count, __u64 k0, __u64 k1)
{
	__u64 v0 = k0 ^ 0x736f6d6570736575ULL;
	__u64 v1 = k1 ^ 0x646f72616e646f6dULL;
	__u64 v2 = k0 ^ 0x6c7967656e657261ULL;
	__u64 v3 = k1 ^ 0x7465646279746573ULL;
	__u64 last = (__u64)(count * 8) << 56;

	for (__u32 i = 0; i < count; i++) {
		v3 ^= words[i];
		SLUICE_SIPROUND(v0, v1, v2, v3);
		SLUICE_SIPROUND(v0, v1, v2, v3);
		v0 ^= words[i];
	}
	v3 ^= last;
	SLUICE_SIPROUND(v0, v1, v2, v3);
	SLUICE_SIPROUND(v0, v1, v2, v3);
	v0 ^= last;
	v2 ^= 0xff;
	SLUICE_SIPROUND(v0, v1, v2, v3);
	SLUICE_SIPROUND(v0, v1, v2, v3);
	SLUICE_SIPROUND(v0, v1, v2, v3);
	SLUICE_SIPROUND(v0, v1, v2, v3);
	return v0 ^ v1 ^ v2 ^ v3;
}

static __always_inline __u64 sluice_token_mac(const struct sluice_token *token, __u64 k0, __u64 k1)
{
	return sluice_siphash_words((const __u64 *)token, 5, k0, k1);
}

/* 0..63 for a character of the base64url alphabet (RFC 4648 section 5), 255 for any other. */
/* clang-format off */
#define XX 255
static const __u8 sluice_base64url_value[256] = {
	XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, /* 0x00 */
	XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, /* 0x10 */
	XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, 62, XX, XX, /* 0x20: '-' */
	52, 53, 54, 55, 56, 57, 58, 59, 60, 61, XX, XX, XX, XX, XX, XX, /* 0x30: digits */
	XX, 0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, /* 0x40: upper case */
	15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, XX, XX, XX, XX, 63, /* 0x50: '_' */
	XX, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, /* 0x60: lower case */
	41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, XX, XX, XX, XX, XX, /* 0x70 */
	XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, /* 0x80 */
	XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, /* 0x90 */
	XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, /* 0xa0 */
	XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, /* 0xb0 */
	XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, /* 0xc0 */
	XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, /* 0xd0 */
	XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, /* 0xe0 */
	XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, XX, /* 0xf0 */
};
/* clang-format on */
#undef XX

/* Decodes SLUICE_TOKEN_TEXT characters. Returns 0, or -1 if one is not of the alphabet. Constant work: what a character is
 * does not branch, which also keeps the verifier's work at one pass.
 */
static __always_inline int sluice_token_decode(const char *text, struct sluice_token *token)
{
	__u8 *out = (__u8 *)token;
	__u32 bad = 0;

#pragma GCC unroll 1
	for (__u32 i = 0; i < SLUICE_TOKEN_TEXT / 4; i++) {
		__u32 a = sluice_base64url_value[(__u8)text[i * 4]];
		__u32 b = sluice_base64url_value[(__u8)text[i * 4 + 1]];
		__u32 c = sluice_base64url_value[(__u8)text[i * 4 + 2]];
		__u32 d = sluice_base64url_value[(__u8)text[i * 4 + 3]];
		__u32 group = a << 18 | b << 12 | c << 6 | d;

		bad |= (a | b | c | d) & 0x80;
		out[i * 3] = group >> 16;
		out[i * 3 + 1] = group >> 8;
		out[i * 3 + 2] = group;
	}
	return bad ? -1 : 0;
}

/* The 32-bit name of an address's network (IPv4 /24, IPv6 /64), never 0. Not secret: the token's MAC protects it.
 * Mixer: MurmurHash3's 64-bit finalizer (Appleby, public domain).
 */
static __always_inline __u32 sluice_network_of(const struct sluice_addr *addr)
{
	__u64 net = addr->hi ? addr->hi : addr->lo >> 8;

	net ^= net >> 33;
	net *= 0xff51afd7ed558ccdULL;
	net ^= net >> 33;
	net *= 0xc4ceb9fe1a85ec53ULL;
	net ^= net >> 33;
	return (__u32)net ?: 1;
}

#endif
