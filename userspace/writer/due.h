/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* When the holds of orders end, earliest first. */
#ifndef SLUICE_WRITER_DUE_H
#define SLUICE_WRITER_DUE_H

#include <stddef.h>
#include <stdint.h>

struct due_entry {
	uint64_t at_ns;
	int64_t position; /* of the order in the ledger */
};

/* All zero is empty. */
struct due {
	struct due_entry *heap;
	size_t count;
	size_t capacity;
};

/* Makes room for `orders` more, so that due_add cannot fail. Returns 0 or -ENOMEM (nothing is lost then). */
int due_reserve(struct due *due, size_t orders);
void due_add(struct due *due, struct due_entry entry);
/* The earliest, of two at one time that of the lower position; NULL if there is none. */
const struct due_entry *due_first(const struct due *due);
/* Takes the earliest out; its room stays reserved. There must be one. */
struct due_entry due_take(struct due *due);
/* Forgets everything and gives the memory back. */
void due_clear(struct due *due);

#endif
