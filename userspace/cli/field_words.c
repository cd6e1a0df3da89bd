/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* See field_words.h. Fields and options have the same names but for dashes and a unit at the end; a word of English that is also a field ("sale") stays,
 * unless the sentence begins with it.
 */
#include "cli/field_words.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *suffix, *unit;
} suffixes[] = {
	{"", ""},
	{"_at", ""},
	{"_per_second", ""},
	{"_seconds", ", in seconds,"},
	{"_ms", ", in milliseconds,"},
};

static bool is_same(const char *field, size_t length, const char *option)
{
	if (strlen(option) != length)
		return false;
	for (size_t i = 0; i < length; i++)
		if ((field[i] == '_' ? '-' : field[i]) != option[i])
			return false;
	return true;
}

/* NULL: no option is meant. */
static const struct cli_option *option_of(
	const struct cli_option *options, const char *field, size_t length, const char **unit)
{
	for (size_t s = 0; s < sizeof(suffixes) / sizeof(suffixes[0]); s++) {
		size_t tail = strlen(suffixes[s].suffix);

		if (tail >= length || strncmp(field + length - tail, suffixes[s].suffix, tail) != 0)
			continue;
		*unit = suffixes[s].unit;
		for (const struct cli_option *option = options; option && option->name; option++)
			if (is_same(field, length - tail, option->name))
				return option;
	}
	return NULL;
}

static void put_word(
	FILE *out, const struct cli_option *options, const char *field, const char *word, size_t length, bool is_first)
{
	bool is_blamed = field && strlen(field) == length && !strncmp(field, word, length);
	const struct cli_option *option = NULL;
	const char *unit = "";

	if (memchr(word, '_', length) || (is_first && is_blamed))
		option = option_of(options, word, length, &unit);
	if (option)
		fprintf(out, "--%s%s", option->name, is_first ? unit : "");
	else if (is_first && is_blamed && length == strlen("delta") && !strncmp(word, "delta", length))
		fputs("N", out); /* as help calls it */
	else
		fwrite(word, 1, length, out);
}

char *cli_field_words(const struct cli_option *options, const char *field, const char *detail)
{
	size_t size;
	char *text = NULL;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	for (const char *at = detail; *at;) {
		size_t length = 0;

		while (isalnum((unsigned char)at[length]) || at[length] == '_')
			length++;
		if (length)
			put_word(out, options, field, at, length, at == detail);
		else
			fputc(*at, out);
		at += length ? length : 1;
	}
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}
