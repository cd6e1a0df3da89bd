/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What an order is to those who check the books from outside (`sluice verify`, the drill), and the rules that orders alone can break. Pure:
 * values in, values out.
 */
#ifndef SLUICE_CLI_BOOKS_H
#define SLUICE_CLI_BOOKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One order as the ledger has it. */
struct books_order {
	uint64_t id; /* the serial of its token */
	uint64_t buyer;
	uint64_t seq; /* in its sale */
	uint64_t admitted_ns;
	uint32_t sale;
	uint32_t quantity;
	bool live;      /* held or confirmed: it holds units */
	bool confirmed; /* which of the two */
};

/* Sets `live` and `confirmed` by the name of the order's state; false if an order can have no such state. */
bool books_set_state(struct books_order *order, const char *name);

/* For qsort and bsearch. By sale first, but for the id, of which there is one in all sales. */
int books_by_id(const void *a, const void *b);
int books_by_buyer(const void *a, const void *b);
int books_by_seq(const void *a, const void *b);

/* Units that the buyer of the first of `orders` holds; *next is where the next buyer's begin. Sorted by buyer, `count` > 0. */
uint64_t books_buyer_units(const struct books_order *orders, size_t count, size_t *next);
/* Before `opens_ns` -1, from `ends_ns` on 1, else 0. */
int books_outside(const struct books_order *order, uint64_t opens_ns, uint64_t ends_ns);
/* Units of all that are live. */
uint64_t books_units(const struct books_order *orders, size_t count);

#endif
