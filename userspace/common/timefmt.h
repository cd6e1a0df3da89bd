/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* RFC 3339 UTC times and durations as text; clocks as ns. */
#ifndef SLUICE_COMMON_TIMEFMT_H
#define SLUICE_COMMON_TIMEFMT_H

#include <stdint.h>

#define TIME_TEXT_MAX 32

uint64_t time_wall_ns(void); /* CLOCK_REALTIME, ns since 1970 */
uint64_t time_mono_ns(void); /* CLOCK_MONOTONIC, what bpf_ktime_get_ns returns */
/* "2026-11-22T12:00:00Z", with optional fraction (ns) and offset ("+02:00"). Returns 0 or -EINVAL; from 1970 to
 * 2262-04-11T23:47:16.854775807Z, the last that 63 bits of ns hold.
 */
int time_parse_rfc3339(const char *text, uint64_t *wall_ns);
/* With milliseconds if they are not 0: "2026-11-22T12:00:00.250Z". Returns `text` (TIME_TEXT_MAX). */
char *time_format_rfc3339(uint64_t wall_ns, char *text);
/* "90", "90s", "15m", "2h", "7d". Returns 0 or -EINVAL. */
int time_parse_duration_s(const char *text, uint64_t *seconds);

#endif
