/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the ledger's guard must know of every order to judge the next: its serial, and its buyer's units. */
#ifndef SLUICE_WRITER_GUARD_H
#define SLUICE_WRITER_GUARD_H

#include <stddef.h>
#include <stdint.h>

struct guard_serial {
	uint64_t serial;
	int64_t position; /* in the ledger; 0 = slot is free */
};

struct guard_buyer {
	uint64_t buyer;
	uint32_t sale;  /* 0 = slot is free */
	uint32_t units; /* held and confirmed */
};

/* All zero is an empty guard. */
struct guard {
	struct guard_serial *serials;
	struct guard_buyer *buyers;
	size_t slots; /* of each table, a power of two */
	size_t orders;
};

/* Makes room for `orders` more, so that guard_add cannot fail. Returns 0 or -ENOMEM (nothing is lost then). */
int guard_reserve(struct guard *guard, size_t orders);
/* Position of the order with this serial, 0 if there is none. */
int64_t guard_find(const struct guard *guard, uint64_t serial);
uint32_t guard_units(const struct guard *guard, uint32_t sale, uint64_t buyer);
/* Adds an order; `units` 0 if it does not count for the buyer. Its serial must not be known, its room reserved. */
void guard_add(struct guard *guard, uint64_t serial, int64_t position, uint32_t sale, uint64_t buyer, uint32_t units);
/* Adds to the units of a buyer, or takes from them, when an order of his that was added changes its state. */
void guard_change(struct guard *guard, uint32_t sale, uint64_t buyer, int64_t units);
/* Forgets everything and gives the memory back. */
void guard_clear(struct guard *guard);

#endif
