/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* RFC 3339 times and durations: exact where valid, refused where not. The C library's calendar is the independent model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/timefmt.h"

#define S 1000000000ULL

static void valid_times_are_read_to_the_nanosecond(void **state)
{
	static const struct {
		const char *text;
		uint64_t ns;
	} good[] = {
		{"1970-01-01T00:00:00Z", 0},
		{"1970-01-01T00:00:00.000000001Z", 1},
		{"1970-01-01T01:00:00+01:00", 0},
		{"2026-11-22T12:00:00Z", 1795348800 * S},
		{"2026-11-22t12:00:00z", 1795348800 * S},
		{"2026-11-22T12:00:00.25Z", 1795348800 * S + 250000000},
		{"2026-11-22T12:00:00.1234567891Z", 1795348800 * S + 123456789},
		{"2026-11-22T17:30:00+05:30", 1795348800 * S},
		{"2026-11-22T00:15:00-11:45", 1795348800 * S},
		{"2000-02-29T00:00:00Z", 951782400 * S},
		{"2262-04-11T23:47:16.854775807Z", 9223372036 * S + 854775807},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		uint64_t ns = 7;

		assert_int_equal(time_parse_rfc3339(good[i].text, &ns), 0);
		assert_true(ns == good[i].ns);
	}
}

static void invalid_times_are_refused(void **state)
{
	static const char *const bad[] = {"", "2026-11-22", "2026-11-22T12:00:00", "2026-11-22 12:00:00Z",
		"2026-11-22T12:00Z", "2026-11-22T12:00:00.Z", "2026-11-22T12:00:00Z ", " 2026-11-22T12:00:00Z",
		"2026-11-22T24:00:00Z", "2026-11-22T12:60:00Z", "2026-11-22T12:00:60Z", "2026-13-22T12:00:00Z",
		"2026-00-22T12:00:00Z", "2026-11-31T12:00:00Z", "2026-02-29T12:00:00Z", "2100-02-29T12:00:00Z",
		"2026-11-00T12:00:00Z", "1969-12-31T23:59:59Z", "1969-12-31T23:30:00-01:00", "2263-01-01T00:00:00Z",
		"1970-01-01T00:30:00+01:00", "2026-11-22T12:00:00+0100", "2026-11-22T12:00:00+1:00",
		"2026-11-22T12:00:00+24:00", "2026-11-22T12:00:00+01:60", "+026-11-22T12:00:00Z",
		"2026-1 -22T12:00:00Z", "99999-01-01T00:00:00Z", "2026-11-22T12:00:00Zjunk",
		"2262-04-11T23:47:16.854775808Z", "2262-12-31T23:59:59-23:59", "\xff\xff\xff\xff-11-22T12:00:00Z"};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint64_t ns;

		if (time_parse_rfc3339(bad[i], &ns) != -EINVAL)
			fail_msg("\"%s\" was taken", bad[i]);
	}
}

/* Every prefix of a valid time is cut somewhere: none may be read beyond its end. Each copy has its exact size, so a sanitizer sees it. */
static void truncated_times_are_refused(void **state)
{
	static const char whole[] = "2026-11-22T12:00:00.250+02:00";

	(void)state;
	for (size_t length = 0; length < sizeof(whole) - 1; length++) {
		char *cut = malloc(length + 1);
		uint64_t ns;

		assert_non_null(cut);
		memcpy(cut, whole, length);
		cut[length] = '\0';
		assert_int_equal(time_parse_rfc3339(cut, &ns), -EINVAL);
		free(cut);
	}
}

static void every_day_agrees_with_the_c_library(void **state)
{
	(void)state;
	for (int64_t day = 0; day * 86400 < 9223286400; day++) { /* to 2262-04-10, the last whole day */
		time_t seconds = (time_t)(day * 86400 + day % 86400);
		char expected[TIME_TEXT_MAX], text[TIME_TEXT_MAX];
		struct tm tm;
		uint64_t ns;

		gmtime_r(&seconds, &tm);
		strftime(expected, sizeof(expected), "%Y-%m-%dT%H:%M:%SZ", &tm);
		assert_string_equal(time_format_rfc3339((uint64_t)seconds * S, text), expected);
		assert_int_equal(time_parse_rfc3339(text, &ns), 0);
		assert_true(ns == (uint64_t)seconds * S);
	}
}

static void milliseconds_are_shown_only_if_there_are_any(void **state)
{
	char text[TIME_TEXT_MAX];

	(void)state;
	assert_string_equal(time_format_rfc3339(1795348800 * S, text), "2026-11-22T12:00:00Z");
	assert_string_equal(time_format_rfc3339(1795348800 * S + 250000000, text), "2026-11-22T12:00:00.250Z");
	assert_string_equal(time_format_rfc3339(1795348800 * S + 999999, text), "2026-11-22T12:00:00Z");
	assert_true(strlen(time_format_rfc3339(UINT64_MAX, text)) < TIME_TEXT_MAX);
}

static void durations_have_one_unit(void **state)
{
	static const struct {
		const char *text;
		uint64_t seconds;
	} good[] = {{"90", 90}, {"90s", 90}, {"15m", 900}, {"2h", 7200}, {"7d", 604800}, {"0", 0}, {"0d", 0}};
	static const char *const bad[] = {"", "s", "-1", "+1", "1.5h", "1h30m", "1w", "1 h", " 1", "1s ",
		"18446744073709551616", "18446744073709551615m", "\xff"};
	uint64_t seconds;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(time_parse_duration_s(good[i].text, &seconds), 0);
		assert_true(seconds == good[i].seconds);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(time_parse_duration_s(bad[i], &seconds), -EINVAL);
}

static void clocks_are_the_ones_the_gate_means(void **state)
{
	struct timespec wall, mono;

	(void)state;
	clock_gettime(CLOCK_REALTIME, &wall);
	clock_gettime(CLOCK_MONOTONIC, &mono);
	assert_in_range(time_wall_ns() / S, (uint64_t)wall.tv_sec, (uint64_t)wall.tv_sec + 5);
	assert_in_range(time_mono_ns() / S, (uint64_t)mono.tv_sec, (uint64_t)mono.tv_sec + 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(valid_times_are_read_to_the_nanosecond),
		cmocka_unit_test(invalid_times_are_refused),
		cmocka_unit_test(truncated_times_are_refused),
		cmocka_unit_test(every_day_agrees_with_the_c_library),
		cmocka_unit_test(milliseconds_are_shown_only_if_there_are_any),
		cmocka_unit_test(durations_have_one_unit),
		cmocka_unit_test(clocks_are_the_ones_the_gate_means),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
