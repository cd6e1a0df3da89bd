/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* GCRA, the generic cell rate algorithm (ITU-T I.371, virtual scheduling), over one u64 "theoretical arrival time".
 *
 * Time is an argument, so tests are exact. No division on the path that admits. The caller stores the new time itself,
 * because how (plain store, compare-and-swap) depends on who shares the word.
 */
#ifndef SLUICE_GCRA_H
#define SLUICE_GCRA_H

#include "abi.h"

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* Returns the new theoretical arrival time if `cost` cells conform at `now_ns`, 0 if they do not. A limit that is off
 * (interval 0) conforms always and returns `now_ns`; `now_ns` must not be 0.
 */
static __always_inline __u64 gcra_next(const struct sluice_limit *limit, __u64 tat_ns, __u64 now_ns, __u64 cost)
{
	if (!limit->interval_ns)
		return now_ns;
	if (tat_ns < now_ns)
		tat_ns = now_ns;
	if (tat_ns - now_ns > limit->tolerance_ns)
		return 0;
	return tat_ns + cost * limit->interval_ns;
}

/* Whole seconds until a refused caller conforms again, 1..SLUICE_RETRY_MAX_S. */
static __always_inline __u32 gcra_retry_after_s(const struct sluice_limit *limit, __u64 tat_ns, __u64 now_ns)
{
	__u64 wait_ns;

	if (tat_ns < now_ns + limit->tolerance_ns)
		return 1;
	wait_ns = tat_ns - limit->tolerance_ns - now_ns;
	if (wait_ns >= SLUICE_RETRY_MAX_S * 1000000000ULL)
		return SLUICE_RETRY_MAX_S;
	return (__u32)((wait_ns + 999999999ULL) / 1000000000ULL) ?: 1;
}

#endif
