/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Clocks, RFC 3339 times and durations. Used by config, API and command line. Parsing is strict (section 5.6 of the RFC, no
 * leap second) and independent of locale and time zone; calendar arithmetic is proleptic Gregorian.
 */
#include "common/timefmt.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define NS_PER_S 1000000000ULL
#define NS_PER_MS 1000000ULL
#define DAY_S 86400LL
#define YEAR_MIN 1970
#define YEAR_MAX 2262                     /* the last year of which a signed 64-bit count of ns has a part */
#define WALL_NS_MAX ((uint64_t)INT64_MAX) /* the ledger and JSON have signed integers */

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t time_wall_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}

uint64_t time_mono_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

/* Days since 1970-01-01, and back: the era arithmetic of Howard Hinnant's "chrono-compatible low-level date algorithms". */
static int64_t days_from_civil(int64_t year, unsigned month, unsigned day)
{
	int64_t era, year_of_era, day_of_year;

	year -= month <= 2;
	era = year / 400;
	year_of_era = year - era * 400;
	day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
	return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

static void civil_from_days(int64_t days, int64_t *year, unsigned *month, unsigned *day)
{
	int64_t era, day_of_era, year_of_era, day_of_year, shifted_month;

	days += 719468;
	era = days / 146097;
	day_of_era = days - era * 146097;
	year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	shifted_month = (5 * day_of_year + 2) / 153;
	*day = (unsigned)(day_of_year - (153 * shifted_month + 2) / 5 + 1);
	*month = (unsigned)(shifted_month < 10 ? shifted_month + 3 : shifted_month - 9);
	*year = year_of_era + era * 400 + (*month <= 2);
}

static unsigned days_in_month(unsigned year, unsigned month)
{
	static const unsigned char days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return days[month - 1] + (month == 2 && leap);
}

/* Reads exactly `digits` digits and moves *text past them. */
static bool take_number(const char **text, unsigned digits, unsigned *value)
{
	*value = 0;
	for (unsigned i = 0; i < digits; i++) {
		char c = (*text)[i];

		if (c < '0' || c > '9')
			return false;
		*value = *value * 10 + (unsigned)(c - '0');
	}
	*text += digits;
	return true;
}

static bool take_char(const char **text, char wanted)
{
	if (**text != wanted)
		return false;
	(*text)++;
	return true;
}

/* ".25" as ns; nothing is 0 ns. */
static bool take_fraction(const char **text, uint64_t *ns)
{
	uint64_t unit = NS_PER_S / 10;
	unsigned digits = 0;

	*ns = 0;
	if (!take_char(text, '.'))
		return true;
	for (; **text >= '0' && **text <= '9'; (*text)++, digits++) {
		*ns += (uint64_t)(**text - '0') * unit;
		unit /= 10; /* digits beyond ns add 0 */
	}
	return digits > 0;
}

/* "Z", "+02:00" or "-00:30" as seconds east of UTC. */
static bool take_offset(const char **text, int64_t *seconds)
{
	unsigned hours, minutes;
	bool east;

	*seconds = 0;
	if (take_char(text, 'Z') || take_char(text, 'z'))
		return true;
	east = **text == '+';
	if (!take_char(text, '+') && !take_char(text, '-'))
		return false;
	if (!take_number(text, 2, &hours) || !take_char(text, ':') || !take_number(text, 2, &minutes))
		return false;
	if (hours > 23 || minutes > 59)
		return false;
	*seconds = (int64_t)hours * 3600 + minutes * 60;
	if (!east)
		*seconds = -*seconds;
	return true;
}

int time_parse_rfc3339(const char *text, uint64_t *wall_ns)
{
	unsigned year, month, day, hour, minute, second;
	int64_t offset_s, total_s;
	uint64_t fraction_ns;

	if (!take_number(&text, 4, &year) || !take_char(&text, '-') || !take_number(&text, 2, &month) ||
		!take_char(&text, '-') || !take_number(&text, 2, &day))
		return -EINVAL;
	if (!take_char(&text, 'T') && !take_char(&text, 't'))
		return -EINVAL;
	if (!take_number(&text, 2, &hour) || !take_char(&text, ':') || !take_number(&text, 2, &minute) ||
		!take_char(&text, ':') || !take_number(&text, 2, &second))
		return -EINVAL;
	if (!take_fraction(&text, &fraction_ns) || !take_offset(&text, &offset_s) || *text != '\0')
		return -EINVAL;
	if (year < YEAR_MIN || year > YEAR_MAX || month < 1 || month > 12 || day < 1 ||
		day > days_in_month(year, month))
		return -EINVAL;
	if (hour > 23 || minute > 59 || second > 59)
		return -EINVAL;
	total_s = days_from_civil(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second - offset_s;
	if (total_s < 0)
		return -EINVAL;
	if ((uint64_t)total_s * NS_PER_S + fraction_ns > WALL_NS_MAX) /* no wrap: the year is 2263 at most */
		return -EINVAL;
	*wall_ns = (uint64_t)total_s * NS_PER_S + fraction_ns;
	return 0;
}

char *time_format_rfc3339(uint64_t wall_ns, char *text)
{
	uint64_t total_s = wall_ns / NS_PER_S;
	unsigned ms = (unsigned)(wall_ns % NS_PER_S / NS_PER_MS);
	unsigned second_of_day = (unsigned)(total_s % DAY_S);
	unsigned month, day;
	int64_t year;
	int n;

	civil_from_days((int64_t)(total_s / DAY_S), &year, &month, &day);
	n = snprintf(text, TIME_TEXT_MAX, "%04d-%02u-%02uT%02u:%02u:%02u", (int)year, month % 100, day % 100,
		second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
	if (ms)
		snprintf(text + n, TIME_TEXT_MAX - (size_t)n, ".%03uZ", ms);
	else
		snprintf(text + n, TIME_TEXT_MAX - (size_t)n, "Z");
	return text;
}

int time_parse_duration_s(const char *text, uint64_t *seconds)
{
	uint64_t value = 0, unit;
	size_t digits = strspn(text, "0123456789");

	if (digits == 0)
		return -EINVAL;
	for (size_t i = 0; i < digits; i++) {
		if (__builtin_mul_overflow(value, 10, &value) ||
			__builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value))
			return -EINVAL;
	}
	text += digits;
	switch (*text) {
	case '\0':
	case 's':
		unit = 1;
		break;
	case 'm':
		unit = 60;
		break;
	case 'h':
		unit = 3600;
		break;
	case 'd':
		unit = (uint64_t)DAY_S;
		break;
	default:
		return -EINVAL;
	}
	if (*text && text[1] != '\0')
		return -EINVAL;
	if (__builtin_mul_overflow(value, unit, &value))
		return -EINVAL;
	*seconds = value;
	return 0;
}
