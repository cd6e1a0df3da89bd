/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Addresses and prefixes as text and as struct sluice_addr (host order, IPv4 mapped). */
#ifndef SLUICE_COMMON_ADDR_H
#define SLUICE_COMMON_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

#include "sluice/abi.h"

#define ADDR_TEXT_MAX 64 /* longest address or prefix with its length, and the NUL */

/* "192.0.2.1" or "2001:db8::1". Returns 0 or -EINVAL. */
int addr_parse(const char *text, struct sluice_addr *addr);
/* IPv4 as dotted quad, IPv6 as RFC 5952. `text` holds ADDR_TEXT_MAX. Returns `text`. */
char *addr_format(const struct sluice_addr *addr, char *text);
bool addr_is_ipv4(const struct sluice_addr *addr);
/* From AF_INET or AF_INET6 (a mapped IPv4 address counts as IPv4). Returns 0 or -EAFNOSUPPORT. */
int addr_from_sockaddr(const struct sockaddr *sa, struct sluice_addr *addr);

/* "192.0.2.0/24", "2001:db8::/32" or a lone address (/32, /128). *len is in the mapped form (IPv4 /24 = 120).
 * Host bits that are set are an error, so that a typing slip does not ban a neighbour. IPv6 /0 is an error (use ::/1 and
 * 8000::/1). Returns 0, -EINVAL (not a prefix), -ERANGE (length), -EDOM (host bits set).
 */
int prefix_parse(const char *text, struct sluice_addr *addr, unsigned *len);
char *prefix_format(const struct sluice_addr *addr, unsigned len, char *text);
/* Sentence for a negative return of prefix_parse. */
const char *prefix_strerror(int error);

#endif
