/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What a Redis Cluster says about where keys are (Redis Cluster Specification, "Key distribution model", "Redirection and resharding"). Pure:
 * nothing here is sent.
 */
#ifndef SLUICE_FLEET_REDIS_SLOTS_H
#define SLUICE_FLEET_REDIS_SLOTS_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>

#define REDIS_SLOTS 16384
#define REDIS_ADDRESS_HOST_MAX 256

struct redis_address {
	char host[REDIS_ADDRESS_HOST_MAX]; /* "" = that of the server which says so */
	unsigned port;
};

/* CRC16 (XMODEM) of the key, or of what stands between its first "{" and the next "}" if that is not empty. */
unsigned redis_slot_of(const char *key, size_t length);
/* The answer to CLUSTER SLOTS, range by range, masters only. Returns 0 or -EPROTO if it is no such answer: then nothing was told. */
typedef void (*redis_range_fn)(void *arg, unsigned first, unsigned last, const struct redis_address *master);
int redis_slots_read(const redisReply *reply, redis_range_fn tell, void *arg);
/* "MOVED 3999 127.0.0.1:6381" or "ASK …"; the host may be an IPv6 address. Returns 0 or -EPROTO. */
int redis_redirect_read(const char *text, unsigned *slot, struct redis_address *address);
/* "redis.example:6379", "[2001:db8::1]:6379". Returns 0 or -EINVAL. */
int redis_address_read(const char *text, size_t length, struct redis_address *address);

#endif
