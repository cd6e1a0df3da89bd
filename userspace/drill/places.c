/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Addresses of the crowd as plain arithmetic; see places.h. */
#include <arpa/inet.h>
#include <string.h>

#include "drill/places.h"

#define HOMES_PER_NETWORK 16u
#define BOTS_PER_NETWORK 8u
#define DENIED_ADDRESSES 4096u
#define STRIDE 37u /* coprime to 100 */

#define IP4(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d))

static uint32_t address4(enum drill_place place, uint32_t n)
{
	switch (place) {
	case DRILL_AT_HOME:
		return IP4(10, 128, 0, 0) + (n / HOMES_PER_NETWORK) * 256 + 1 + n % HOMES_PER_NETWORK * 15;
	case DRILL_AT_SHARED:
		return IP4(10, 62, 0, 1) + n % DRILL_SHARED_ADDRESSES;
	case DRILL_AT_BOT:
		n %= DRILL_BOT_ADDRESSES;
		return IP4(10, 63, 0, 1) + (n / BOTS_PER_NETWORK) * 256 + n % BOTS_PER_NETWORK * 30;
	case DRILL_AT_HAMMER:
		return IP4(10, 61, 0, 1) + n % DRILL_HAMMER_ADDRESSES * 256;
	case DRILL_AT_DENIED:
		return IP4(10, 60, 0, 1) + n % DENIED_ADDRESSES;
	case DRILL_AT_NOWHERE:
		break;
	}
	return IP4(198, 18, 0, 0) + n % (1u << 17);
}

/* The first four words; the host part follows from `n`. */
static void network6(enum drill_place place, uint32_t n, uint16_t word[4])
{
	memset(word, 0, 4 * sizeof(*word));
	switch (place) {
	case DRILL_AT_HOME:
		word[0] = 0xfd64;
		word[1] = (uint16_t)(n / HOMES_PER_NETWORK >> 16);
		word[2] = (uint16_t)(n / HOMES_PER_NETWORK);
		word[3] = (uint16_t)(n % HOMES_PER_NETWORK);
		return;
	case DRILL_AT_SHARED:
		word[0] = 0xfd62;
		word[2] = (uint16_t)(n % DRILL_SHARED_ADDRESSES);
		return;
	case DRILL_AT_BOT:
		word[0] = 0xfd63;
		word[2] = (uint16_t)(n % DRILL_BOT_ADDRESSES / BOTS_PER_NETWORK);
		word[3] = (uint16_t)(n % BOTS_PER_NETWORK);
		return;
	case DRILL_AT_HAMMER:
		word[0] = 0xfd61;
		word[2] = (uint16_t)(n % DRILL_HAMMER_ADDRESSES);
		return;
	case DRILL_AT_DENIED:
		word[0] = 0xfd60;
		word[3] = (uint16_t)(n % DENIED_ADDRESSES);
		return;
	case DRILL_AT_NOWHERE:
		break;
	}
	word[0] = 0x2001;
	word[1] = 0x0db8;
	word[2] = (uint16_t)(n >> 16);
	word[3] = (uint16_t)n;
}

void drill_place_address(enum drill_place place, uint32_t n, bool ipv6, union drill_address *out)
{
	uint16_t word[4];

	memset(out, 0, sizeof(*out));
	if (!ipv6) {
		out->v4.sin_family = AF_INET;
		out->v4.sin_addr.s_addr = htonl(address4(place, n));
		return;
	}
	network6(place, n, word);
	out->v6.sin6_family = AF_INET6;
	for (int i = 0; i < 4; i++)
		out->v6.sin6_addr.s6_addr16[i] = htons(word[i]);
	/* behind a shared network everybody has a host part of his own, as in a household */
	out->v6.sin6_addr.s6_addr16[6] = place == DRILL_AT_SHARED ? htons((uint16_t)(n >> 16)) : 0;
	out->v6.sin6_addr.s6_addr16[7] = htons(place == DRILL_AT_SHARED ? (uint16_t)(n | 1) : 1);
}

bool drill_place_is_ipv6(uint32_t n, uint32_t percent)
{
	return n % 100 * STRIDE % 100 < percent;
}

socklen_t drill_address_length(const union drill_address *address)
{
	return address->any.sa_family == AF_INET6 ? sizeof(address->v6) : sizeof(address->v4);
}
