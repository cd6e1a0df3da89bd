/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Reads lists of prefixes as text; see list_text.h. Called by the import command and by the daemon's bulk route, with lines from anywhere.
 *
 * Strict: what is not understood is an error with a sentence and never an entry that was guessed. The same holds for what an entry of ours
 * cannot say (an ipset exception, a set of address and port).
 */
#include "common/list_text.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/addr.h"
#include "common/lists.h"
#include "common/timefmt.h"

#define WORDS_MAX 32
#define BLANKS " \t"

typedef unsigned __int128 addr128;

struct call {
	int (*found)(void *arg, const struct list_text_entry *entry);
	void *arg;
	char *error;
	size_t error_size;
};

static __attribute__((format(printf, 2, 3))) int fail(const struct call *call, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(call->error, call->error_size, format, args);
	va_end(args);
	return -EINVAL;
}

int list_format_of(const char *name)
{
	static const char *const names[] = {
		[LIST_FORMAT_AUTO] = "auto",
		[LIST_FORMAT_NETSET] = "netset",
		[LIST_FORMAT_IPSET] = "ipset",
		[LIST_FORMAT_CSV] = "csv",
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(name, names[i]))
			return (int)i;
	return -1;
}

/* Length of the UTF-8 character that begins here (RFC 3629 section 4), 0 if there is none. */
static size_t utf8_length(const unsigned char *at)
{
	size_t length = 0;

	if (at[0] < 0x80)
		length = 1;
	else if (at[0] >= 0xc2 && at[0] < 0xe0)
		length = 2;
	else if ((at[0] & 0xf0) == 0xe0)
		length = 3;
	else if (at[0] >= 0xf0 && at[0] < 0xf5)
		length = 4;
	for (size_t i = 1; i < length; i++)
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) || (at[0] == 0xf0 && at[1] < 0x90) ||
		(at[0] == 0xf4 && at[1] > 0x8f))
		return 0;
	return length;
}

bool list_text_is_clean(const char *text)
{
	const unsigned char *at = (const unsigned char *)text;

	while (*at) {
		size_t length = utf8_length(at);

		if (!length || *at < ' ' || *at == 0x7f)
			return false;
		at += length;
	}
	return true;
}

/* Cuts blanks off both ends, in place. */
static char *trimmed(char *text)
{
	size_t length;

	text += strspn(text, BLANKS);
	length = strlen(text);
	while (length && strchr(BLANKS "\r", text[length - 1]))
		length--;
	text[length] = '\0';
	return text;
}

/* --- one prefix or range ------------------------------------------------------------------------------------------------- */
static addr128 to_number(const struct sluice_addr *addr)
{
	return (addr128)addr->hi << 64 | addr->lo;
}

/* The fewest prefixes that make up `first`..`last`, in order. */
static int emit_range(const struct call *call, struct list_text_entry *entry, const struct sluice_addr *first,
	const struct sluice_addr *last)
{
	unsigned most = addr_is_ipv4(first) ? 32 : 127; /* host bits of the widest prefix */
	addr128 at = to_number(first), end = to_number(last);

	for (;;) {
		unsigned bits = 0;
		int result;

		while (bits < most && !(at >> bits & 1) && end - at >= ((addr128)2 << bits) - 1)
			bits++;
		entry->addr.hi = (uint64_t)(at >> 64);
		entry->addr.lo = (uint64_t)at;
		entry->prefix_len = 128 - bits;
		result = call->found(call->arg, entry);
		if (result)
			return result;
		if (end - at == ((addr128)1 << bits) - 1)
			return 0;
		at += (addr128)1 << bits;
	}
}

static int emit(const struct call *call, struct list_text_entry *entry, char *text)
{
	char *dash = strchr(text, '-');
	struct sluice_addr first, last;
	int err;

	if (!*text)
		return fail(call, "the prefix is missing");
	if (!dash) {
		err = prefix_parse(text, &entry->addr, &entry->prefix_len);
		return err ? fail(call, "%s", prefix_strerror(err)) : call->found(call->arg, entry);
	}
	*dash = '\0';
	if (addr_parse(trimmed(text), &first) || addr_parse(trimmed(dash + 1), &last))
		return fail(call, "not a range of addresses such as 192.0.2.1-192.0.2.9");
	if (addr_is_ipv4(&first) != addr_is_ipv4(&last))
		return fail(call, "a range from one address family to the other");
	if (to_number(&last) < to_number(&first))
		return fail(call, "the range ends before it begins");
	return emit_range(call, entry, &first, &last);
}

/* --- values -------------------------------------------------------------------------------------------------------------- */
static int read_ttl(const struct call *call, const char *text, uint64_t *ttl_s)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 10);

	if (!isdigit((unsigned char)*text) || *end || value < 1 || value > LIST_TTL_MAX_S)
		return fail(call, "ttl \"%.40s\": not a number of seconds from 1 to %d", text, LIST_TTL_MAX_S);
	*ttl_s = value;
	return 0;
}

static int read_expiry(const struct call *call, const char *text, uint64_t *expires_wall)
{
	if (time_parse_rfc3339(text, expires_wall) || !*expires_wall)
		return fail(call, "expires_at \"%.40s\": not a time such as 2026-11-22T12:00:00Z", text);
	return 0;
}

static int check_text(const struct call *call, const char *name, const char *text)
{
	return list_text_is_clean(text) ? 0 : fail(call, "the %s is not UTF-8, or has control characters", name);
}

/* --- netset -------------------------------------------------------------------------------------------------------------- */
static int read_netset(const struct call *call, char *line)
{
	struct list_text_entry entry = {.label = "", .reason = ""};

	line[strcspn(line, "#;")] = '\0';
	return emit(call, &entry, trimmed(line));
}

/* --- ipset save ---------------------------------------------------------------------------------------------------------- */
/* Cuts a line into words; a word in double quotes may have blanks (ipset has no escapes in it). Returns their number or -EINVAL. */
static int cut_words(const struct call *call, char *line, char *words[WORDS_MAX])
{
	int count = 0;

	for (line += strspn(line, BLANKS); *line; line += strspn(line, BLANKS)) {
		if (count == WORDS_MAX)
			return fail(call, "more than %d words", WORDS_MAX);
		if (*line == '"') {
			words[count++] = ++line;
			line = strchr(line, '"');
			if (!line)
				return fail(call, "a quote is not closed");
		} else {
			words[count++] = line;
			line += strcspn(line, BLANKS);
		}
		if (*line)
			*line++ = '\0';
	}
	return count;
}

/* Options of an entry that say nothing which we would have to keep. */
static bool is_idle_option(const char *word, bool *takes_value)
{
	static const char *const with_value[] = {"packets", "bytes", "skbmark", "skbprio", "skbqueue"};

	for (size_t i = 0; i < sizeof(with_value) / sizeof(with_value[0]); i++)
		if (!strcmp(word, with_value[i])) {
			*takes_value = true;
			return true;
		}
	*takes_value = false;
	return !strcmp(word, "-exist") || !strcmp(word, "-!");
}

static int read_ipset(const struct call *call, char *line)
{
	static const char *const passed_over[] = {"create", "-N", "flush", "-F", "COMMIT", "quit"};
	struct list_text_entry entry = {.label = "", .reason = ""};
	char *words[WORDS_MAX];
	int count = cut_words(call, line, words), at = 1;

	if (count < 0)
		return count;
	for (size_t i = 0; i < sizeof(passed_over) / sizeof(passed_over[0]); i++)
		if (!strcmp(words[0], passed_over[i]))
			return 0;
	if (strcmp(words[0], "add") != 0 && strcmp(words[0], "-A") != 0)
		return fail(call, "not a line of \"ipset save\" (add SET PREFIX …)");
	while (at < count && (!strcmp(words[at], "-exist") || !strcmp(words[at], "-!")))
		at++;
	if (at + 2 > count)
		return fail(call, "add needs a set and a prefix");
	if (strchr(words[at + 1], ','))
		return fail(
			call, "an entry of more than an address: only sets of addresses and networks can be imported");
	for (int i = at + 2; i < count; i++) {
		bool takes_value, idle = is_idle_option(words[i], &takes_value);
		const char *value = i + 1 < count ? words[i + 1] : NULL;
		int err = 0;

		if (idle) {
			i += takes_value;
			continue;
		}
		if (!strcmp(words[i], "nomatch"))
			return fail(call, "an exception (nomatch): put it on the other list");
		if (!value || (strcmp(words[i], "timeout") != 0 && strcmp(words[i], "comment") != 0))
			return fail(call, "option \"%.20s\" is not understood, or lacks its value", words[i]);
		if (!strcmp(words[i], "comment"))
			err = check_text(call, "comment", entry.reason = value);
		else if (strcmp(value, "0") != 0) /* 0: for ever */
			err = read_ttl(call, value, &entry.ttl_s);
		if (err)
			return err;
		i++;
	}
	return emit(call, &entry, words[at + 1]);
}

/* --- CSV ----------------------------------------------------------------------------------------------------------------- */
/* Cuts a line into fields, in place (RFC 4180, but for line ends inside of quotes). Returns their number or -EINVAL. */
static int cut_fields(const struct call *call, char *line, char *fields[LIST_COLUMNS_MAX])
{
	int count = 0;

	for (;;) {
		char *to, *from = line + strspn(line, BLANKS);

		if (count == LIST_COLUMNS_MAX)
			return fail(call, "more than %d fields", LIST_COLUMNS_MAX);
		if (*from != '"') {
			size_t length = strcspn(line, ",");
			bool last = !line[length];

			line[length] = '\0';
			fields[count++] = trimmed(line);
			if (last)
				return count;
			line += length + 1;
			continue;
		}
		fields[count++] = to = ++from;
		while (*from && (*from != '"' || from[1] == '"')) {
			from += *from == '"';
			*to++ = *from++;
		}
		if (!*from)
			return fail(call, "a quote is not closed");
		from++;
		*to = '\0';
		from += strspn(from, BLANKS "\r");
		if (!*from)
			return count;
		if (*from != ',')
			return fail(call, "something stands behind a quoted field");
		line = from + 1;
	}
}

static enum list_column column_of(const char *name)
{
	static const struct {
		const char *name;
		enum list_column column;
	} names[] = {
		{"prefix", LIST_COLUMN_PREFIX},
		{"cidr", LIST_COLUMN_PREFIX},
		{"network", LIST_COLUMN_PREFIX},
		{"address", LIST_COLUMN_PREFIX},
		{"ip", LIST_COLUMN_PREFIX},
		{"ttl_seconds", LIST_COLUMN_TTL},
		{"ttl", LIST_COLUMN_TTL},
		{"timeout", LIST_COLUMN_TTL},
		{"expires_at", LIST_COLUMN_EXPIRES},
		{"expires", LIST_COLUMN_EXPIRES},
		{"label", LIST_COLUMN_LABEL},
		{"reason", LIST_COLUMN_REASON},
		{"comment", LIST_COLUMN_REASON},
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcasecmp(name, names[i].name))
			return names[i].column;
	return LIST_COLUMN_OTHER;
}

/* Takes the first line for names if it has one that means the prefix. Returns 1 if it did, 0, or -EINVAL. */
static int read_names(struct list_text *text, const struct call *call, char *const *fields, int count)
{
	unsigned seen = 0;

	for (int i = 0; i < count; i++)
		seen |= 1u << column_of(fields[i]);
	if (!(seen & 1u << LIST_COLUMN_PREFIX))
		return 0;
	seen = 0;
	for (int i = 0; i < count; i++) {
		text->column[i] = column_of(fields[i]);
		if (text->column[i] != LIST_COLUMN_OTHER && seen & 1u << text->column[i])
			return fail(call, "two columns mean the same: \"%.40s\"", fields[i]);
		seen |= 1u << text->column[i];
	}
	text->columns = (unsigned)count;
	text->has_label = seen & 1u << LIST_COLUMN_LABEL;
	return 1;
}

/* Without names: prefix, how long, why. The second may be left out if the third does not look like it. */
static void use_default_columns(struct list_text *text)
{
	text->columns = 3;
	text->column[0] = LIST_COLUMN_PREFIX;
	text->column[1] = LIST_COLUMN_UNTIL;
	text->column[2] = LIST_COLUMN_REASON;
}

static int read_field(
	const struct call *call, enum list_column column, char *field, struct list_text_entry *entry, char **prefix)
{
	switch (column) {
	case LIST_COLUMN_PREFIX:
		*prefix = field;
		return 0;
	case LIST_COLUMN_TTL:
		return *field ? read_ttl(call, field, &entry->ttl_s) : 0;
	case LIST_COLUMN_EXPIRES:
		return *field ? read_expiry(call, field, &entry->expires_wall) : 0;
	case LIST_COLUMN_UNTIL:
		if (!*field)
			return 0;
		return strchr(field, '-') ? read_expiry(call, field, &entry->expires_wall)
					  : read_ttl(call, field, &entry->ttl_s);
	case LIST_COLUMN_LABEL:
		entry->label = field;
		if (strlen(field) > LISTS_LABEL_MAX)
			return fail(call, "the label \"%.40s\" has more than %zu bytes", field, LISTS_LABEL_MAX);
		return check_text(call, "label", field);
	case LIST_COLUMN_REASON:
		entry->reason = field;
		return check_text(call, "reason", field);
	case LIST_COLUMN_OTHER:
		break;
	}
	return 0;
}

static int read_csv(struct list_text *text, const struct call *call, char *line)
{
	struct list_text_entry entry = {.label = "", .reason = ""};
	char *fields[LIST_COLUMNS_MAX], *prefix = NULL;
	int count = cut_fields(call, line, fields), err;

	if (count < 0)
		return count;
	if (!text->columns) {
		err = read_names(text, call, fields, count);
		if (err)
			return err < 0 ? err : 0;
		use_default_columns(text);
	}
	if ((unsigned)count > text->columns)
		return fail(call, "%d fields where %u are known", count, text->columns);
	for (int i = 0; i < count; i++) {
		enum list_column column = text->column[i];

		/* "192.0.2.1,scanner": the time was left out. What begins with a digit is meant to be one. */
		if (column == LIST_COLUMN_UNTIL && count == 2 && *fields[i] && !isdigit((unsigned char)*fields[i]))
			column = LIST_COLUMN_REASON;
		err = read_field(call, column, fields[i], &entry, &prefix);
		if (err)
			return err;
	}
	if (!prefix)
		return fail(call, "the prefix is missing");
	if (entry.ttl_s && entry.expires_wall)
		return fail(call, "both ttl_seconds and expires_at");
	return emit(call, &entry, prefix);
}

/* --- a line -------------------------------------------------------------------------------------------------------------- */
static enum list_format guess_format(const char *line)
{
	if (!strncmp(line, "add ", 4) || !strncmp(line, "create ", 7) || !strncmp(line, "-A ", 3) ||
		!strncmp(line, "-N ", 3))
		return LIST_FORMAT_IPSET;
	/* "prefix" alone is a line of names, too. */
	if (strcspn(line, ",") < strcspn(line, "#;") || column_of(line) == LIST_COLUMN_PREFIX)
		return LIST_FORMAT_CSV;
	return LIST_FORMAT_NETSET;
}

int list_text_line(struct list_text *text, char *line, size_t length,
	int (*found)(void *arg, const struct list_text_entry *entry), void *arg, char *error, size_t error_size)
{
	struct call call = {found, arg, error, error_size};

	line[length] = '\0';
	text->line++;
	if (strlen(line) != length)
		return fail(&call, "a NUL byte: is this text?");
	if (text->line == 1 && !strncmp(line, "\xef\xbb\xbf", 3))
		line += 3; /* a byte order mark */
	line = trimmed(line);
	if (!*line || *line == '#' || *line == ';')
		return 0;
	if (text->format == LIST_FORMAT_AUTO)
		text->format = guess_format(line);
	switch (text->format) {
	case LIST_FORMAT_IPSET:
		return read_ipset(&call, line);
	case LIST_FORMAT_CSV:
		return read_csv(text, &call, line);
	default:
		return read_netset(&call, line);
	}
}
