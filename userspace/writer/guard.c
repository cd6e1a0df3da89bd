/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The guard's memory: two hash tables, filled from the ledger when it is opened. Called by the SQLite store.
 *
 * Why not indexes in the ledger: serials and buyers are keyed hashes, so an index on either rewrites a page at a
 * random place for each order. Measured with both, orders per second at 1,000 a batch were a third of those without.
 * The tables hold nothing that the orders do not say, and one process alone writes the ledger (it holds the lock).
 * After any failure of the store, and after a rollback of what had changed them, the tables are thrown away and read anew
 * with the ledger, so they cannot know of what was rolled back.
 *
 * Open addressing with linear probing, never more than half full, nothing is ever removed (a buyer's units may fall to
 * none): 64 to 128 bytes an order.
 */
#include "writer/guard.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define GUARD_SLOTS_MIN 16384

/* MurmurHash3's 64-bit finalizer (Appleby, public domain). What comes in is a keyed hash already; tests count upwards. */
static size_t mix(uint64_t value)
{
	value ^= value >> 33;
	value *= 0xff51afd7ed558ccdULL;
	value ^= value >> 33;
	value *= 0xc4ceb9fe1a85ec53ULL;
	value ^= value >> 33;
	return (size_t)value;
}

static struct guard_serial *serial_slot(struct guard_serial *table, size_t slots, uint64_t serial)
{
	size_t i = mix(serial) & (slots - 1);

	while (table[i].position && table[i].serial != serial)
		i = (i + 1) & (slots - 1);
	return &table[i];
}

static struct guard_buyer *buyer_slot(struct guard_buyer *table, size_t slots, uint32_t sale, uint64_t buyer)
{
	size_t i = mix(buyer + sale) & (slots - 1);

	while (table[i].sale && (table[i].buyer != buyer || table[i].sale != sale))
		i = (i + 1) & (slots - 1);
	return &table[i];
}

int guard_reserve(struct guard *guard, size_t orders)
{
	size_t slots = guard->slots ? guard->slots : GUARD_SLOTS_MIN;
	struct guard_serial *serials;
	struct guard_buyer *buyers;

	while (slots < (guard->orders + orders) * 2)
		slots *= 2;
	if (slots == guard->slots)
		return 0;
	serials = calloc(slots, sizeof(*serials));
	buyers = calloc(slots, sizeof(*buyers));
	if (!serials || !buyers) {
		free(serials);
		free(buyers);
		return -ENOMEM;
	}
	for (size_t i = 0; i < guard->slots; i++) {
		const struct guard_serial *serial = &guard->serials[i];
		const struct guard_buyer *buyer = &guard->buyers[i];

		if (serial->position)
			*serial_slot(serials, slots, serial->serial) = *serial;
		if (buyer->sale)
			*buyer_slot(buyers, slots, buyer->sale, buyer->buyer) = *buyer;
	}
	free(guard->serials);
	free(guard->buyers);
	guard->serials = serials;
	guard->buyers = buyers;
	guard->slots = slots;
	return 0;
}

int64_t guard_find(const struct guard *guard, uint64_t serial)
{
	return guard->slots ? serial_slot(guard->serials, guard->slots, serial)->position : 0;
}

uint32_t guard_units(const struct guard *guard, uint32_t sale, uint64_t buyer)
{
	const struct guard_buyer *slot;

	if (!guard->slots)
		return 0;
	slot = buyer_slot(guard->buyers, guard->slots, sale, buyer);
	return slot->sale ? slot->units : 0;
}

void guard_add(struct guard *guard, uint64_t serial, int64_t position, uint32_t sale, uint64_t buyer, uint32_t units)
{
	struct guard_buyer *slot = buyer_slot(guard->buyers, guard->slots, sale, buyer);

	*serial_slot(guard->serials, guard->slots, serial) =
		(struct guard_serial){.serial = serial, .position = position};
	slot->sale = sale;
	slot->buyer = buyer;
	slot->units += units;
	guard->orders++;
}

void guard_change(struct guard *guard, uint32_t sale, uint64_t buyer, int64_t units)
{
	struct guard_buyer *slot = buyer_slot(guard->buyers, guard->slots, sale, buyer);

	slot->units = (uint32_t)(slot->units + units);
}

void guard_clear(struct guard *guard)
{
	free(guard->serials);
	free(guard->buyers);
	memset(guard, 0, sizeof(*guard));
}
