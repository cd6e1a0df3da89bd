/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Where the crowd of the drill lives: addresses of buyers and bots inside the drill's own namespaces, and made-up ones. */
#ifndef SLUICE_DRILL_PLACES_H
#define SLUICE_DRILL_PLACES_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#define DRILL_SERVER4 "10.51.0.1"
#define DRILL_SERVER6 "fd51::1"
#define DRILL_CLIENT4 "10.51.0.2"
#define DRILL_CLIENT6 "fd51::2"
#define DRILL_CROWD4 "10.128.0.0/9"  /* buyers with an address of their own */
#define DRILL_OTHERS4 "10.60.0.0/14" /* shared addresses, bots, denied networks */
#define DRILL_CROWD6 "fd60::/12"
#define DRILL_DENIED4 "10.60.0.0/16"
#define DRILL_DENIED6 "fd60::/32"

#define DRILL_BUYERS_MAX 200000u
#define DRILL_SHARED_ADDRESSES 8u /* carrier NATs */
#define DRILL_BOT_ADDRESSES 400u
#define DRILL_HAMMER_ADDRESSES 4u

enum drill_place { DRILL_AT_HOME, DRILL_AT_SHARED, DRILL_AT_BOT, DRILL_AT_HAMMER, DRILL_AT_DENIED, DRILL_AT_NOWHERE };

union drill_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* The address of the nth inhabitant of `place`, port 0. The same question gives the same address. Homes are all different, 16 to
 * an IPv4 /24 or IPv6 /48 (each with a /64 of its own); DRILL_AT_NOWHERE (TEST-NETs of RFC 2544 and RFC 3849) never
 * gets an answer back.
 */
void drill_place_address(enum drill_place place, uint32_t n, bool ipv6, union drill_address *out);
/* Whether the nth of the crowd uses IPv6, so that of any 100 in a row exactly `percent` do. */
bool drill_place_is_ipv6(uint32_t n, uint32_t percent);
socklen_t drill_address_length(const union drill_address *address);

#endif
