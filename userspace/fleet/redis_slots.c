/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Slots and addresses of a Redis Cluster; see redis_slots.h. */
#include "fleet/redis_slots.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CRC16_POLYNOMIAL 0x1021
#define PORT_MAX 65535

static uint16_t crc16(const char *bytes, size_t length)
{
	uint16_t crc = 0;

	for (size_t i = 0; i < length; i++) {
		crc = (uint16_t)(crc ^ (uint16_t)((uint8_t)bytes[i] << 8));
		for (unsigned bit = 0; bit < 8; bit++)
			crc = (uint16_t)(crc & 0x8000 ? crc << 1 ^ CRC16_POLYNOMIAL : crc << 1);
	}
	return crc;
}

unsigned redis_slot_of(const char *key, size_t length)
{
	const char *open = memchr(key, '{', length);
	const char *close = open ? memchr(open, '}', length - (size_t)(open - key)) : NULL;

	if (close && close > open + 1)
		return crc16(open + 1, (size_t)(close - open - 1)) % REDIS_SLOTS;
	return crc16(key, length) % REDIS_SLOTS;
}

static int read_port(const char *text, size_t length, unsigned *port)
{
	unsigned value = 0;

	if (!length || length > 5)
		return -EINVAL;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EINVAL;
		value = value * 10 + (unsigned)(text[i] - '0');
	}
	if (!value || value > PORT_MAX)
		return -EINVAL;
	*port = value;
	return 0;
}

static int copy_host(const char *text, size_t length, struct redis_address *address)
{
	if (length >= sizeof(address->host) || memchr(text, '\0', length))
		return -EINVAL;
	memcpy(address->host, text, length);
	address->host[length] = '\0';
	return 0;
}

int redis_address_read(const char *text, size_t length, struct redis_address *address)
{
	const char *colon = memrchr(text, ':', length);
	size_t host = colon ? (size_t)(colon - text) : 0;

	if (!colon || !host || read_port(colon + 1, length - host - 1, &address->port))
		return -EINVAL;
	if (text[0] == '[') {
		if (host < 3 || text[host - 1] != ']')
			return -EINVAL;
		return copy_host(text + 1, host - 2, address);
	}
	return copy_host(text, host, address);
}

int redis_redirect_read(const char *text, unsigned *slot, struct redis_address *address)
{
	const char *number = strchr(text, ' '), *where = number ? strchr(number + 1, ' ') : NULL;
	const char *colon = where ? strrchr(where, ':') : NULL;
	char *end;
	unsigned long value;

	if (!colon)
		return -EPROTO;
	value = strtoul(number + 1, &end, 10);
	if (end != where || end == number + 1 || value >= REDIS_SLOTS ||
		read_port(colon + 1, strlen(colon + 1), &address->port) ||
		copy_host(where + 1, (size_t)(colon - where - 1), address))
		return -EPROTO;
	*slot = (unsigned)value;
	return 0;
}

/* [first, last, [host, port, id, …], replica…] */
static int read_range(const redisReply *range, unsigned *first, unsigned *last, struct redis_address *master)
{
	const redisReply *node;

	if (range->type != REDIS_REPLY_ARRAY || range->elements < 3 || range->element[0]->type != REDIS_REPLY_INTEGER ||
		range->element[1]->type != REDIS_REPLY_INTEGER || range->element[2]->type != REDIS_REPLY_ARRAY)
		return -EPROTO;
	node = range->element[2];
	if (range->element[0]->integer < 0 || range->element[1]->integer >= REDIS_SLOTS ||
		range->element[0]->integer > range->element[1]->integer || node->elements < 2 ||
		node->element[1]->type != REDIS_REPLY_INTEGER || node->element[1]->integer < 1 ||
		node->element[1]->integer > PORT_MAX)
		return -EPROTO;
	*first = (unsigned)range->element[0]->integer;
	*last = (unsigned)range->element[1]->integer;
	master->port = (unsigned)node->element[1]->integer;
	master->host[0] = '\0'; /* nil: it does not know by what name it is reached */
	if (node->element[0]->type == REDIS_REPLY_NIL)
		return 0;
	if (node->element[0]->type != REDIS_REPLY_STRING ||
		copy_host(node->element[0]->str, node->element[0]->len, master))
		return -EPROTO;
	/* "?" is a host name that was announced to be unknown. */
	if (!strcmp(master->host, "?"))
		master->host[0] = '\0';
	return 0;
}

int redis_slots_read(const redisReply *reply, redis_range_fn tell, void *arg)
{
	struct redis_address master;
	unsigned first, last;

	if (reply->type != REDIS_REPLY_ARRAY)
		return -EPROTO;
	for (size_t i = 0; i < reply->elements; i++)
		if (read_range(reply->element[i], &first, &last, &master))
			return -EPROTO;
	for (size_t i = 0; i < reply->elements; i++)
		if (!read_range(reply->element[i], &first, &last, &master))
			tell(arg, first, last, &master);
	return 0;
}
