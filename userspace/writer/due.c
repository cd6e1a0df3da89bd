/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The ends of holds in memory: a binary heap, filled from the ledger when it is opened. Called by the SQLite store.
 *
 * Why not an index in the ledger: it would be written for each order that is admitted, and most orders are confirmed
 * long before their time. Here an admission appends 16 bytes; times come in almost in order, so nothing moves. An order
 * that is resolved stays in the heap until its time comes, and is then found to be resolved and dropped: to take it out
 * at once would need to know where in the heap it is.
 */
#include "writer/due.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define DUE_CAPACITY_MIN 4096

static bool before(struct due_entry a, struct due_entry b)
{
	return a.at_ns != b.at_ns ? a.at_ns < b.at_ns : a.position < b.position;
}

int due_reserve(struct due *due, size_t orders)
{
	size_t capacity = due->capacity ? due->capacity : DUE_CAPACITY_MIN;
	struct due_entry *grown;

	while (capacity < due->count + orders)
		capacity *= 2;
	if (capacity == due->capacity)
		return 0;
	grown = realloc(due->heap, capacity * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	due->heap = grown;
	due->capacity = capacity;
	return 0;
}

void due_add(struct due *due, struct due_entry entry)
{
	size_t i = due->count++;

	for (; i && before(entry, due->heap[(i - 1) / 2]); i = (i - 1) / 2)
		due->heap[i] = due->heap[(i - 1) / 2];
	due->heap[i] = entry;
}

const struct due_entry *due_first(const struct due *due)
{
	return due->count ? &due->heap[0] : NULL;
}

struct due_entry due_take(struct due *due)
{
	struct due_entry first = due->heap[0], last = due->heap[--due->count];
	size_t i = 0;

	for (;;) {
		size_t child = 2 * i + 1;

		if (child + 1 < due->count && before(due->heap[child + 1], due->heap[child]))
			child++;
		if (child >= due->count || !before(due->heap[child], last))
			break;
		due->heap[i] = due->heap[child];
		i = child;
	}
	due->heap[i] = last;
	return first;
}

void due_clear(struct due *due)
{
	free(due->heap);
	memset(due, 0, sizeof(*due));
}
