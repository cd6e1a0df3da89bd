/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Ranks a sample of verdicts. Pure; called by control_top.c. Sorting brings the verdicts of one source together, so no table is needed and memory is
 * that of the sample.
 */
#include "daemon/top_rank.h"

#include <stdlib.h>
#include <string.h>

#define IP4_SOURCE_BITS 128
#define IP6_SOURCE_BITS 64
#define IP4_PREFIX_BITS 120
#define IP6_PREFIX_BITS 48

static unsigned length_of(const struct sluice_addr *source, bool by_prefix)
{
	if (source->hi)
		return by_prefix ? IP6_PREFIX_BITS : IP6_SOURCE_BITS;
	return by_prefix ? IP4_PREFIX_BITS : IP4_SOURCE_BITS;
}

static struct sluice_addr key_of(const struct watched *watched, bool by_prefix)
{
	const struct sluice_addr *source = &watched->event.source;
	struct sluice_addr mask = watch_mask(length_of(source, by_prefix));

	return (struct sluice_addr){.hi = source->hi & mask.hi, .lo = source->lo & mask.lo};
}

static int compare(const struct watched *a, const struct watched *b)
{
	const struct sluice_addr *x = &a->event.source, *y = &b->event.source;

	if (x->hi != y->hi)
		return x->hi < y->hi ? -1 : 1;
	return x->lo < y->lo ? -1 : x->lo > y->lo;
}

static int compare_any(const void *a, const void *b)
{
	return compare(a, b);
}

/* Keeps the `max` busiest, in order. */
static unsigned insert(struct top_row *rows, unsigned used, unsigned max, const struct top_row *row)
{
	unsigned at = used;

	while (at && rows[at - 1].verdicts < row->verdicts)
		at--;
	if (at == max)
		return used;
	if (used < max)
		used++;
	memmove(&rows[at + 1], &rows[at], (used - at - 1) * sizeof(*rows));
	rows[at] = *row;
	return used;
}

/* Of a source that is refused, why: each of its connections begins with a SYN cookie, which would always be as frequent. */
static void name_reason(struct top_row *row, const double *reasons)
{
	for (unsigned reason = 0; reason < SLUICE_REASON_COUNT; reason++) {
		if (reasons[reason] <= row->reason_most ||
			(row->refused > 0 && watch_action_of(reason) != WATCH_REFUSED))
			continue;
		row->reason_most = reasons[reason];
		row->reason = reason;
	}
}

unsigned top_rank(
	struct watched *sample, size_t count, bool by_prefix, struct top_row *rows, unsigned max, unsigned *all)
{
	unsigned used = 0, different = 0;

	/* Sorted by address, the verdicts of one prefix are neighbours too. */
	qsort(sample, count, sizeof(*sample), compare_any);
	for (size_t i = 0; i < count;) {
		struct sluice_addr key = key_of(&sample[i], by_prefix);
		struct top_row row = {.addr = key, .len = length_of(&sample[i].event.source, by_prefix)};
		double reasons[SLUICE_REASON_ROWS] = {0};

		for (; i < count; i++) {
			struct sluice_addr next = key_of(&sample[i], by_prefix);
			unsigned reason = sample[i].event.reason & (SLUICE_REASON_ROWS - 1);

			if (next.hi != key.hi || next.lo != key.lo)
				break;
			row.verdicts += sample[i].stands_for;
			reasons[reason] += sample[i].stands_for;
			if (watch_action_of(reason) == WATCH_REFUSED)
				row.refused += sample[i].stands_for;
		}
		name_reason(&row, reasons);
		different++;
		used = insert(rows, used, max, &row);
	}
	if (all)
		*all = different;
	return used;
}
