/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Fuzz target: lists of prefixes as text (userspace/common/list_text.c), as the import command and the bulk route read them.
 *
 * The input is a letter for the format ("a" auto, "n" netset, "i" ipset, "c" csv) and lines. Claims: nothing beside a line is touched; a bad line
 * gives a sentence and no entry; an entry is a prefix without host bits, with one time within its range and clean texts; what a range gives
 * are its addresses, each once and in order, in as few prefixes as can be.
 */
#include <errno.h>
#include <jansson.h>

#include "check.h"
#include "common/addr.h"
#include "common/list_text.h"

#define LINES_MAX 64
#define ERROR_MAX 256
#define STOPPED 77

typedef unsigned __int128 addr128;

struct seen {
	unsigned count, stop_after;
	addr128 first, next;  /* of this line: the first address, and the one behind the last prefix */
	bool is_full;         /* the last prefix ends with the last address that there is */
	unsigned widths[129]; /* prefixes by host bits */
};

/* jansson has a UTF-8 decoder of its own, and refuses what is none. */
static void check_text(const char *text)
{
	json_t *json = json_string(text);

	CHECK(json, "a text that is not UTF-8");
	for (const char *at = text; *at; at++)
		CHECK((unsigned char)*at >= ' ' && *at != 0x7f, "a control character");
	json_decref(json);
}

static int take(void *arg, const struct list_text_entry *entry)
{
	addr128 at = (addr128)entry->addr.hi << 64 | entry->addr.lo, size;
	struct seen *seen = arg;
	unsigned bits;

	CHECK(entry->prefix_len >= 1 && entry->prefix_len <= 128, "length %u", entry->prefix_len);
	bits = 128 - entry->prefix_len;
	size = (addr128)1 << bits;
	CHECK(!(at & (size - 1)), "host bits");
	CHECK(!seen->is_full && (!seen->count || at == seen->next), "a gap or an overlap");
	CHECK(!entry->ttl_s || !entry->expires_wall, "two times");
	CHECK(entry->ttl_s <= LIST_TTL_MAX_S, "%llu s", (unsigned long long)entry->ttl_s);
	check_text(entry->label);
	check_text(entry->reason);
	if (!seen->count++)
		seen->first = at;
	seen->next = at + size;
	seen->is_full = !seen->next;
	/* The fewest: of each width two at the most, one going up and one going down; the widest of an IPv6 range may be three halves. */
	CHECK(++seen->widths[bits] <= 2 || bits == 127, "more prefixes than needed");
	return seen->count == seen->stop_after ? STOPPED : 0;
}

/* What a line of a netset says, if it is a range of two addresses that read. */
static bool range_of(const char *line, addr128 *first, addr128 *last)
{
	char copy[128], *dash;
	struct sluice_addr from, to;

	snprintf(copy, sizeof(copy), "%s", line);
	dash = strchr(copy, '-');
	if (!dash)
		return false;
	*dash = '\0';
	if (addr_parse(copy, &from) || addr_parse(dash + 1, &to))
		return false;
	*first = (addr128)from.hi << 64 | from.lo;
	*last = (addr128)to.hi << 64 | to.lo;
	return true;
}

static void read_line(struct list_text *text, const char *line, size_t length, unsigned stop_after)
{
	char *copy = malloc(length + 1), error[ERROR_MAX] = "";
	struct seen seen = {.stop_after = stop_after};
	addr128 first, last;
	bool is_range;
	int err;

	CHECK(copy, "memory");
	if (length)
		memcpy(copy, line, length);
	copy[length] = '\0';
	is_range = text->format == LIST_FORMAT_NETSET && strlen(copy) == length && range_of(copy, &first, &last);
	err = list_text_line(text, copy, length, take, &seen, error, sizeof(error));
	CHECK(!err || err == -EINVAL || (err == STOPPED && stop_after), "error %d", err);
	CHECK(text->columns <= LIST_COLUMNS_MAX, "%u columns", text->columns);
	CHECK((err == -EINVAL) == (*error != '\0'), "error %d, sentence \"%s\"", err, error);
	CHECK(err != -EINVAL || !seen.count, "%u entries of a bad line", seen.count);
	if (!err && is_range)
		CHECK(seen.count && seen.first == first && seen.next == last + 1, "another range");
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static const char letters[] = "anic";
	struct input input = {bytes, size};
	char letter = (char)input_u8(&input);
	const char *at = (const char *)input.at, *end = at + input.left, *known = strchr(letters, letter);
	struct list_text text = {.format = letter && known ? (enum list_format)(known - letters) : LIST_FORMAT_AUTO};

	for (unsigned i = 0; at < end && i < LINES_MAX; i++) {
		const char *stop = memchr(at, '\n', (size_t)(end - at));

		if (!stop)
			stop = end;
		/* A caller that has heard enough, now and then. */
		read_line(&text, at, (size_t)(stop - at), i % 8 == 7 ? 2 : 0);
		at = stop + (stop < end);
	}
	return 0;
}
