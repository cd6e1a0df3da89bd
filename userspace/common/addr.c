/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Addresses and prefixes: text, sockaddr and struct sluice_addr.
 *
 * Called by all programs wherever an address crosses a boundary (config, API, command line, accept). IPv4 is always held in
 * the mapped form ::ffff:a.b.c.d, so that one key and one comparison serve both families.
 */
#include "common/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MAPPED_PREFIX_BITS 96
#define MAPPED_MARK 0xffffULL /* bits 32..63 of `lo` of a mapped address */

static uint64_t load_be64(const uint8_t *bytes)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < 8; i++)
		value = value << 8 | bytes[i];
	return value;
}

static void store_be64(uint64_t value, uint8_t *bytes)
{
	for (unsigned i = 8; i-- > 0; value >>= 8)
		bytes[i] = (uint8_t)value;
}

static void from_ipv4(uint32_t host_order, struct sluice_addr *addr)
{
	addr->hi = 0;
	addr->lo = MAPPED_MARK << 32 | host_order;
}

static void from_ipv6(const uint8_t bytes[16], struct sluice_addr *addr)
{
	addr->hi = load_be64(bytes);
	addr->lo = load_be64(bytes + 8);
}

bool addr_is_ipv4(const struct sluice_addr *addr)
{
	return addr->hi == 0 && addr->lo >> 32 == MAPPED_MARK;
}

int addr_parse(const char *text, struct sluice_addr *addr)
{
	struct in_addr v4;
	struct in6_addr v6;

	if (inet_pton(AF_INET, text, &v4) == 1) {
		from_ipv4(ntohl(v4.s_addr), addr);
		return 0;
	}
	if (inet_pton(AF_INET6, text, &v6) == 1) {
		from_ipv6(v6.s6_addr, addr);
		return 0;
	}
	return -EINVAL;
}

char *addr_format(const struct sluice_addr *addr, char *text)
{
	uint8_t bytes[16];

	store_be64(addr->hi, bytes);
	store_be64(addr->lo, bytes + 8);
	if (addr_is_ipv4(addr))
		inet_ntop(AF_INET, bytes + 12, text, ADDR_TEXT_MAX);
	else
		inet_ntop(AF_INET6, bytes, text, ADDR_TEXT_MAX);
	return text;
}

int addr_from_sockaddr(const struct sockaddr *sa, struct sluice_addr *addr)
{
	switch (sa->sa_family) {
	case AF_INET:
		from_ipv4(ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr), addr);
		return 0;
	case AF_INET6:
		from_ipv6(((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr.s6_addr, addr);
		return 0;
	default:
		return -EAFNOSUPPORT;
	}
}

/* The bits of a 128-bit address that lie beyond its first `len` bits. */
static bool has_host_bits(const struct sluice_addr *addr, unsigned len)
{
	uint64_t hi = len >= 64 ? 0 : ~0ULL >> len;
	uint64_t lo = len >= 128 ? 0 : len <= 64 ? ~0ULL : ~0ULL >> (len - 64);

	return (addr->hi & hi) || (addr->lo & lo);
}

/* Decimal, no sign, no leading zero, at most three digits: "024" is more likely a slip than a length. */
static int parse_length(const char *text, unsigned *value)
{
	size_t digits = strspn(text, "0123456789");

	if (digits == 0 || digits > 3 || text[digits] != '\0' || (digits > 1 && text[0] == '0'))
		return -EINVAL;
	*value = 0;
	for (size_t i = 0; i < digits; i++)
		*value = *value * 10 + (unsigned)(text[i] - '0');
	return 0;
}

int prefix_parse(const char *text, struct sluice_addr *addr, unsigned *len)
{
	const char *slash = strchr(text, '/');
	size_t addr_len = slash ? (size_t)(slash - text) : strlen(text);
	char addr_text[ADDR_TEXT_MAX];
	bool dotted;
	unsigned bits;

	if (addr_len == 0 || addr_len >= sizeof(addr_text))
		return -EINVAL;
	memcpy(addr_text, text, addr_len);
	addr_text[addr_len] = '\0';
	if (addr_parse(addr_text, addr) < 0)
		return -EINVAL;
	dotted = !strchr(addr_text, ':');
	bits = dotted ? 32 : 128;
	if (slash) {
		if (parse_length(slash + 1, &bits) < 0)
			return -EINVAL;
		if (dotted ? bits > 32 : bits < 1 || bits > 128)
			return -ERANGE;
	}
	if (dotted)
		bits += MAPPED_PREFIX_BITS;
	if (has_host_bits(addr, bits))
		return -EDOM;
	*len = bits;
	return 0;
}

char *prefix_format(const struct sluice_addr *addr, unsigned len, char *text)
{
	unsigned shown = addr_is_ipv4(addr) && len >= MAPPED_PREFIX_BITS ? len - MAPPED_PREFIX_BITS : len;
	size_t end;

	if (addr_is_ipv4(addr) && shown == len) {
		/* An IPv6 prefix that covers mapped addresses: dotted form with such a length would read as nonsense. */
		snprintf(text, ADDR_TEXT_MAX, "::ffff:%x:%x/%u", (unsigned)(addr->lo >> 16 & 0xffff),
			(unsigned)(addr->lo & 0xffff), len);
		return text;
	}
	addr_format(addr, text);
	end = strlen(text);
	snprintf(text + end, ADDR_TEXT_MAX - end, "/%u", shown);
	return text;
}

const char *prefix_strerror(int error)
{
	switch (error) {
	case -EINVAL:
		return "not an address or prefix such as 192.0.2.0/24 or 2001:db8::/32";
	case -ERANGE:
		return "prefix length out of range: IPv4 /0../32, IPv6 /1../128 (for all of IPv6 use ::/1 and "
		       "8000::/1)";
	case -EDOM:
		return "bits beyond the prefix length are set: write the network's first address";
	default:
		return strerror(-error);
	}
}
