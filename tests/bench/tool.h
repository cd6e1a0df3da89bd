/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the load generators of the benches (tests/bench/fleet, tests/bench/peers) share: how they end when something is wrong, and percentiles. Their
 * clock is time_mono_ns of common/timefmt.h.
 */
#ifndef SLUICE_BENCH_TOOL_H
#define SLUICE_BENCH_TOOL_H

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/timefmt.h"

/* Says why, with the program's name before it, and exits with 1. */
static inline __attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "%s: ", program_invocation_short_name);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

static inline int compare_us(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static inline void sort_us(uint32_t *us, size_t count)
{
	qsort(us, count, sizeof(*us), compare_us);
}

/* Of sorted ones; 0 if there are none. */
static inline uint32_t percentile_us(const uint32_t *us, size_t count, unsigned percent)
{
	return count ? us[(count - 1) * percent / 100] : 0;
}

#endif
