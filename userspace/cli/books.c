/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Orders as the books have them; see books.h. */
#include "cli/books.h"

#include <string.h>

bool books_set_state(struct books_order *order, const char *name)
{
	static const char *const names[] = {"held", "confirmed", "cancelled", "expired", "refunded"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(names[i], name) != 0)
			continue;
		order->live = i < 2;
		order->confirmed = i == 1;
		return true;
	}
	return false;
}

static int compare(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

int books_by_id(const void *a, const void *b)
{
	return compare(((const struct books_order *)a)->id, ((const struct books_order *)b)->id);
}

int books_by_buyer(const void *a, const void *b)
{
	const struct books_order *left = a, *right = b;
	int order = compare(left->sale, right->sale);

	return order ? order : compare(left->buyer, right->buyer);
}

int books_by_seq(const void *a, const void *b)
{
	const struct books_order *left = a, *right = b;
	int order = compare(left->sale, right->sale);

	return order ? order : compare(left->seq, right->seq);
}

uint64_t books_buyer_units(const struct books_order *orders, size_t count, size_t *next)
{
	size_t i = 0;

	while (i < count && orders[i].sale == orders[0].sale && orders[i].buyer == orders[0].buyer)
		i++;
	*next = i;
	return books_units(orders, i);
}

int books_outside(const struct books_order *order, uint64_t opens_ns, uint64_t ends_ns)
{
	return order->admitted_ns < opens_ns ? -1 : order->admitted_ns >= ends_ns;
}

uint64_t books_units(const struct books_order *orders, size_t count)
{
	uint64_t units = 0;

	for (size_t i = 0; i < count; i++)
		units += orders[i].live ? orders[i].quantity : 0;
	return units;
}
