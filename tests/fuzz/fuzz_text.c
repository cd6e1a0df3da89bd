/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Fuzz target: texts that people write for addresses, prefixes, times and durations: userspace/common/addr.c and timefmt.c.
 *
 * The input is one byte (what is read) and a text. Claims: what is read can be written, and what was written reads as the same; nothing
 * that is read is out of its range.
 */
#include "check.h"
#include "common/addr.h"
#include "common/timefmt.h"

#define TEXT_MAX 512
#define YEAR_2262_NS 9223372036854775807ULL

static void try_address(const char *text)
{
	struct sluice_addr addr, again;
	char out[ADDR_TEXT_MAX];

	if (addr_parse(text, &addr))
		return;
	addr_format(&addr, out);
	CHECK(strlen(out) < sizeof(out) && !addr_parse(out, &again), "\"%s\" does not read again", out);
	CHECK(addr.hi == again.hi && addr.lo == again.lo, "\"%s\" became \"%s\"", text, out);
	CHECK(addr_is_ipv4(&addr) == (!addr.hi && addr.lo >> 32 == 0xffff), "family of \"%s\"", out);
}

static void try_prefix(const char *text)
{
	struct sluice_addr addr, again;
	unsigned length = 0, again_length = 0;
	char out[ADDR_TEXT_MAX];
	int err = prefix_parse(text, &addr, &length);

	if (err) {
		CHECK(prefix_strerror(err) && *prefix_strerror(err), "no sentence for %d", err);
		return;
	}
	CHECK(length >= 1 && length <= 128, "length %u", length);
	CHECK(length >= 64 || !(addr.hi << length), "host bits of \"%s\"", text);
	CHECK(length == 128 || !(length > 64 ? addr.lo << (length - 64) : addr.lo), "host bits of \"%s\"", text);
	prefix_format(&addr, length, out);
	CHECK(!prefix_parse(out, &again, &again_length), "\"%s\" does not read again", out);
	CHECK(addr.hi == again.hi && addr.lo == again.lo && length == again_length, "\"%s\" became \"%s\"", text, out);
}

static void try_time(const char *text)
{
	uint64_t wall, again;
	char out[TIME_TEXT_MAX];

	if (time_parse_rfc3339(text, &wall))
		return;
	CHECK(wall <= YEAR_2262_NS, "\"%s\" is %llu", text, (unsigned long long)wall);
	time_format_rfc3339(wall, out);
	CHECK(!time_parse_rfc3339(out, &again), "\"%s\" does not read again", out);
	CHECK(wall / 1000000 == again / 1000000, "\"%s\" became \"%s\"", text, out); /* it writes milliseconds */
	if (strchr("Zz", text[strlen(text) - 1]))
		CHECK(!strncmp(text, out, 10) && !strncmp(text + 11, out + 11, 8), "\"%s\" became \"%s\"", text, out);
}

static void try_duration(const char *text)
{
	static const struct {
		char unit;
		uint64_t seconds;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
	uint64_t seconds, number;
	char *end;

	if (time_parse_duration_s(text, &seconds))
		return;
	number = strtoull(text, &end, 10);
	for (unsigned i = 0; *end && i < 4; i++)
		if (*end == units[i].unit && !end[1])
			CHECK(seconds == number * units[i].seconds && seconds / units[i].seconds == number,
				"\"%s\" is %llu s", text, (unsigned long long)seconds);
	CHECK(*end || seconds == number, "\"%s\"", text);
	CHECK(end > text && (!*end || (strchr("smhd", *end) && !end[1])), "\"%s\" was read", text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct input input = {bytes, size};
	uint8_t choice = input_u8(&input);
	char *text;

	if (input.left > TEXT_MAX)
		return -1;
	text = malloc(input.left + 1);
	CHECK(text, "memory");
	if (input.left)
		memcpy(text, input.at, input.left);
	text[input.left] = '\0';
	switch (choice & 3) {
	case 0:
		try_address(text);
		break;
	case 1:
		try_prefix(text);
		break;
	case 2:
		try_time(text);
		break;
	default:
		try_duration(text);
	}
	free(text);
	return 0;
}
