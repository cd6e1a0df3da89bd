/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice deny import` and `sluice allow import`: a file of prefixes into a list, a million lines in seconds.
 *
 * The whole file is read and understood before anything is sent: a bad line is named, and nothing is applied. Then it goes to the daemon in
 * pieces of under a megabyte, all of one label, so that `undo LABEL` takes all of them back. What would not fit is found out before
 * the first piece.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/api.h"
#include "cli/list.h"
#include "cli/table.h"
#include "common/addr.h"
#include "common/list_text.h"
#include "common/lists.h"
#include "common/timefmt.h"

#define ABOUT_MAX 128
#define BAD_SHOWN 10
#define SAID_MAX 80          /* of a bad line */
#define ITEMS_MAX (1u << 24) /* gate.max_prefixes cannot be more */
/* The daemon takes a megabyte; a line of a piece is far below the rest. */
#define PIECE_BYTES (960u << 10)
#define LINE_MAX_BYTES 512
#define CSV_NAMES "prefix,ttl_seconds,expires_at,label,reason\n"

enum import_option {
	IMPORT_LABEL,
	IMPORT_TTL,
	IMPORT_FORMAT,
	IMPORT_REPLACE,
	IMPORT_DRY_RUN,
	IMPORT_SKIP_BAD,
	IMPORT_FORCE
};

const struct cli_option cli_list_import_options[] = {
	[IMPORT_LABEL] = {"label", "TEXT", "label of all entries, for undo (those of the file, else the file's name)",
		false},
	[IMPORT_TTL] = {"ttl", "DURATION", "how long entries last that do not say so themselves (for ever)", false},
	[IMPORT_FORMAT] = {"format", "FORMAT", "auto, netset, ipset or csv (auto: by the first line)", false},
	[IMPORT_REPLACE] = {"replace", NULL, "also overwrite live entries of other labels; else they are kept", false},
	[IMPORT_DRY_RUN] = {"dry-run", NULL, "say what would be done, and do nothing", false},
	[IMPORT_SKIP_BAD] = {"skip-bad", NULL, "leave bad lines out instead of refusing the file", false},
	[IMPORT_FORCE] = {"force", NULL, "also take prefixes wider than IPv4 /8 or IPv6 /16", false},
	{NULL, NULL, NULL, false},
};

struct item {
	struct sluice_addr addr;
	uint64_t ttl_s, expires_wall;
	uint32_t line;
	uint32_t label, reason; /* offsets in `texts`; 0 = none */
	uint8_t prefix_len;
};

struct import {
	const struct cli_call *call;
	const char *name; /* of the file, for people */
	bool force;
	bool keep_labels; /* no --label: those of the file */
	struct list_text text;
	struct item *items;
	size_t count, size;
	char *texts;
	size_t texts_used, texts_size;
	uint64_t bad, duplicates;
	bool is_plain; /* no item has anything but a prefix */
	char label[LISTS_TEXT_SIZE];
	uint64_t ttl_s;
};

struct totals {
	json_int_t added, refreshed, replaced, kept, expired, needed, room;
};

static void out_of_memory(void)
{
	cli_say("out of memory");
	exit(CLI_FAILED);
}

/* --- reading -------------------------------------------------------------------------------------------------------------- */
/* Keeps a text once where neighbours have the same. What does not fit an entry is cut here. */
static uint32_t keep_text(struct import *import, const char *text, uint32_t before)
{
	char cut[LISTS_TEXT_SIZE];
	size_t length;

	if (!*text)
		return 0;
	lists_make_text(cut, text, "");
	if (before && !strcmp(import->texts + before, cut))
		return before;
	length = strlen(cut) + 1;
	if (import->texts_used + length > import->texts_size) {
		import->texts_size = import->texts_size ? import->texts_size * 2 : 65536;
		import->texts = realloc(import->texts, import->texts_size);
		if (!import->texts || import->texts_size > UINT32_MAX)
			out_of_memory();
	}
	memcpy(import->texts + import->texts_used, cut, length);
	import->texts_used += length;
	return (uint32_t)(import->texts_used - length);
}

static int on_prefix(void *arg, const struct list_text_entry *entry)
{
	struct import *import = arg;
	struct item *item;

	if (!import->force && lists_is_wide(&entry->addr, entry->prefix_len))
		return -ERANGE;
	if (import->count == ITEMS_MAX)
		return -E2BIG;
	if (import->count == import->size) {
		import->size = import->size ? import->size * 2 : 4096;
		import->items = realloc(import->items, import->size * sizeof(*import->items));
		if (!import->items)
			out_of_memory();
	}
	item = &import->items[import->count];
	*item = (struct item){
		.addr = entry->addr,
		.prefix_len = (uint8_t)entry->prefix_len,
		.ttl_s = entry->ttl_s,
		.expires_wall = entry->expires_wall,
		.line = (uint32_t)import->text.line,
		.label = import->keep_labels ? keep_text(import, entry->label, import->count ? item[-1].label : 0) : 0,
	};
	item->reason = keep_text(import, entry->reason, import->count ? item[-1].reason : 0);
	if (item->ttl_s || item->expires_wall || item->label || item->reason)
		import->is_plain = false;
	import->count++;
	return 0;
}

static void say_bad(struct import *import, const char *line, const char *why)
{
	if (import->bad++ < BAD_SHOWN)
		cli_say("%s:%llu: \"%s\": %s", import->name, (unsigned long long)import->text.line, line, why);
}

/* Returns -E2BIG if no list can hold as many, else 0: bad lines are counted. */
static int read_line(struct import *import, char *line, size_t length)
{
	size_t before = import->count;
	char said[SAID_MAX + 4], error[256] = "";
	int err;

	while (length && (line[length - 1] == '\n' || line[length - 1] == '\r'))
		length--;
	snprintf(said, sizeof(said), "%.*s%s", (int)(length < SAID_MAX ? length : SAID_MAX), line,
		length > SAID_MAX ? "…" : "");
	err = list_text_line(&import->text, line, length, on_prefix, import, error, sizeof(error));
	if (!err || err == -E2BIG)
		return err;
	import->count = before; /* of a range, some may have been taken */
	if (err == -ERANGE)
		snprintf(error, sizeof(error), "wider than an IPv4 /%d or an IPv6 /%d (--force takes it)", LISTS_WIDE4,
			LISTS_WIDE6);
	say_bad(import, said, error);
	return 0;
}

static int read_all(struct import *import, FILE *in)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t length;
	int err = 0;

	while (!err && (length = getline(&line, &size, in)) >= 0)
		err = read_line(import, line, (size_t)length);
	free(line);
	if (err) {
		cli_say("%s:%llu: more than %u prefixes (those of a range are counted one by one): no list holds as many; nothing was applied",
			import->name, (unsigned long long)import->text.line, ITEMS_MAX);
		return CLI_USAGE;
	}
	if (!ferror(in))
		return CLI_OK;
	cli_say("cannot read %s: %s", import->name, strerror(errno));
	return CLI_FAILED;
}

static int read_file(struct import *import, const char *path)
{
	FILE *in;
	int code;

	if (!path || !strcmp(path, "-")) {
		import->name = "standard input";
		return read_all(import, import->call->in);
	}
	import->name = path;
	in = fopen(path, "re");
	if (!in) {
		cli_say("cannot read %s: %s", path, strerror(errno));
		return errno == EACCES ? CLI_NOT_ALLOWED : CLI_FAILED;
	}
	code = read_all(import, in);
	fclose(in);
	return code;
}

static int compare_items(const void *left, const void *right)
{
	const struct item *a = left, *b = right;

	if (a->addr.hi != b->addr.hi)
		return a->addr.hi < b->addr.hi ? -1 : 1;
	if (a->addr.lo != b->addr.lo)
		return a->addr.lo < b->addr.lo ? -1 : 1;
	if (a->prefix_len != b->prefix_len)
		return a->prefix_len < b->prefix_len ? -1 : 1;
	return a->line < b->line ? -1 : a->line > b->line;
}

/* Of a prefix that comes more than once, the last line counts. */
static void drop_duplicates(struct import *import)
{
	size_t kept = 0;

	if (import->count)
		qsort(import->items, import->count, sizeof(*import->items), compare_items);
	for (size_t i = 0; i < import->count; i++) {
		const struct item *item = &import->items[i];

		if (i + 1 < import->count && item[1].addr.hi == item->addr.hi && item[1].addr.lo == item->addr.lo &&
			item[1].prefix_len == item->prefix_len)
			continue;
		import->items[kept++] = *item;
	}
	import->duplicates = import->count - kept;
	import->count = kept;
}

/* --- sending -------------------------------------------------------------------------------------------------------------- */
static size_t add_quoted(char *to, const char *text)
{
	char *at = to;

	*at++ = '"';
	for (; *text; text++) {
		if (*text == '"')
			*at++ = '"';
		*at++ = *text;
	}
	*at++ = '"';
	return (size_t)(at - to);
}

static size_t write_item(const struct import *import, const struct item *item, char *to)
{
	char expires[TIME_TEXT_MAX] = "", ttl[24] = "";
	char *at = to;

	prefix_format(&item->addr, item->prefix_len, at);
	at += strlen(at);
	if (!import->is_plain) {
		if (item->ttl_s)
			snprintf(ttl, sizeof(ttl), "%llu", (unsigned long long)item->ttl_s);
		if (item->expires_wall)
			time_format_rfc3339(item->expires_wall, expires);
		at += sprintf(at, ",%s,%s,", ttl, expires);
		at += add_quoted(at, item->label ? import->texts + item->label : "");
		*at++ = ',';
		at += add_quoted(at, item->reason ? import->texts + item->reason : "");
	}
	*at++ = '\n';
	return (size_t)(at - to);
}

/* Of a dry run, the first piece has what expired swept out: each piece for itself may have room enough, and all of them together need more. */
static char *piece_path(const struct import *import, bool dry, bool sweep)
{
	const char *list = import->call->noun->name, *replace = import->call->value[IMPORT_REPLACE] ? "true" : "false";
	const char *force = import->force ? "true" : "false", *dry_run = dry ? "true" : "false";
	const char *sweep_first = sweep ? "true" : "false";
	char ttl[24];

	if (!import->ttl_s)
		return cli_api_path("/v1/lists/%s?label=%s&replace=%s&force=%s&dry_run=%s&sweep=%s", list,
			import->label, replace, force, dry_run, sweep_first);
	snprintf(ttl, sizeof(ttl), "%llu", (unsigned long long)import->ttl_s);
	return cli_api_path("/v1/lists/%s?label=%s&replace=%s&force=%s&dry_run=%s&sweep=%s&ttl_seconds=%s", list,
		import->label, replace, force, dry_run, sweep_first, ttl);
}

/* Sends all items, piece by piece, and adds up what the daemon says. *sent is how many it has taken. */
static int send_all(const struct import *import, bool dry, struct totals *totals, size_t *sent)
{
	char about[ABOUT_MAX], *piece = malloc(PIECE_BYTES + LINE_MAX_BYTES);
	int code = CLI_OK;

	if (!piece)
		out_of_memory();
	memset(totals, 0, sizeof(*totals));
	snprintf(about, sizeof(about), "%s list", import->call->noun->name);
	for (*sent = 0; *sent < import->count && !code;) {
		size_t used = 0, next = *sent;
		json_t *answer;

		if (!import->is_plain)
			used = (size_t)sprintf(piece, CSV_NAMES);
		while (next < import->count && used < PIECE_BYTES)
			used += write_item(import, &import->items[next++], piece + used);
		code = cli_api_send(import->call->api, about, "POST", piece_path(import, dry, dry && !*sent),
			import->is_plain ? "text/plain" : "text/csv", piece, used, &answer);
		if (code)
			break;
		totals->added += json_integer_value(json_object_get(answer, "added"));
		totals->refreshed += json_integer_value(json_object_get(answer, "refreshed"));
		totals->replaced += json_integer_value(json_object_get(answer, "replaced"));
		totals->kept += json_integer_value(json_object_get(answer, "kept"));
		totals->expired += json_integer_value(json_object_get(answer, "expired"));
		totals->needed += json_integer_value(json_object_get(answer, "needed"));
		totals->room = json_integer_value(json_object_get(answer, "room"));
		json_decref(answer);
		*sent = next;
	}
	free(piece);
	return code;
}

static int read_room(const struct import *import, json_int_t *room)
{
	char about[ABOUT_MAX];
	json_t *answer;
	int code;

	snprintf(about, sizeof(about), "%s list", import->call->noun->name);
	code = cli_api_ask(import->call->api, about, "GET",
		cli_api_path("/v1/lists/%s?limit=1", import->call->noun->name), NULL, &answer);
	if (code)
		return code;
	*room = json_integer_value(json_object_get(answer, "room"));
	json_decref(answer);
	return CLI_OK;
}

/* Whether all of it fits, before the first piece goes in. A list that is there already needs no room. */
static int check_room(const struct import *import, bool dry, struct totals *totals)
{
	json_int_t room = 0;
	size_t sent;
	int code = dry ? CLI_OK : read_room(import, &room);

	if (code || (!dry && room >= (json_int_t)import->count))
		return code;
	code = send_all(import, true, totals, &sent);
	if (code || totals->needed <= totals->room)
		return code;
	cli_say("%s list: %lld %s room and %lld fit%s; nothing was changed (list_full)", import->call->noun->name,
		(long long)totals->needed, totals->needed == 1 ? "entry needs" : "entries need",
		(long long)totals->room, totals->room == 1 ? "s" : "");
	fprintf(stderr, "  gate.max_prefixes in the config file sets the room for entries of both lists\n");
	return CLI_FAILED;
}

static int send_import(const struct import *import, struct totals *totals)
{
	const struct cli_call *call = import->call;
	bool dry = call->value[IMPORT_DRY_RUN];
	size_t sent = 0;
	int code = check_room(import, dry, totals);

	if (code || dry)
		return code;
	code = send_all(import, false, totals, &sent);
	if (code && (sent || cli_api_is_unclear(call->api)))
		cli_say("%zu of %zu entries are in force; the same import again puts in the rest, \"sluice %s undo\" with their label takes them out",
			sent, import->count, call->noun->name);
	return code;
}

/* --- the command ---------------------------------------------------------------------------------------------------------- */
/* What the entries are called that have no label of their own. */
static int choose_label(struct import *import)
{
	const char *label = import->call->value[IMPORT_LABEL], *path = import->call->operand[0], *slash;
	time_t now = time(NULL);
	struct tm utc;

	if (label) {
		if (!*label || strlen(label) > LISTS_LABEL_MAX || !list_text_is_clean(label))
			return cli_usage(import->call, "--label: 1 to %zu bytes of UTF-8 without control characters",
				LISTS_LABEL_MAX);
		snprintf(import->label, sizeof(import->label), "%s", label);
	} else if (import->text.has_label) {
		import->label[0] = '\0'; /* an entry without one had none when it was exported */
	} else if (path && strcmp(path, "-") != 0) {
		slash = strrchr(path, '/');
		lists_make_text(import->label, slash ? slash + 1 : path, "");
		if (!list_text_is_clean(import->label))
			return cli_usage(import->call, "the file's name is no label: give one with --label");
	} else {
		strftime(import->label, sizeof(import->label), "import-%Y%m%dT%H%M%SZ", gmtime_r(&now, &utc));
	}
	return CLI_OK;
}

static int print_totals(const struct import *import, const struct totals *totals)
{
	const struct cli_call *call = import->call;
	bool dry = call->value[IMPORT_DRY_RUN];

	if (totals->kept)
		cli_say(totals->kept == 1
				? "%lld entry is there under another label and was kept (--replace overwrites it)"
				: "%lld entries are there under other labels and were kept (--replace overwrites them)",
			(long long)totals->kept);
	return cli_print_answer(call,
		json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "list", call->noun->name,
			"label", import->label, "lines", (json_int_t)import->text.line, "entries",
			(json_int_t)import->count, "added", totals->added, "refreshed", totals->refreshed, "replaced",
			totals->replaced, "kept", totals->kept, "expired", totals->expired, "duplicates",
			(json_int_t)import->duplicates, "bad_lines", (json_int_t)import->bad, "dry_run", dry));
}

static int check_lines(const struct import *import)
{
	if (import->bad > BAD_SHOWN)
		cli_say("and %llu bad lines more", (unsigned long long)(import->bad - BAD_SHOWN));
	if (import->bad && !import->call->value[IMPORT_SKIP_BAD]) {
		cli_say("%s: nothing was applied: %llu bad line%s of %llu (--skip-bad leaves them out)", import->name,
			(unsigned long long)import->bad, import->bad == 1 ? "" : "s",
			(unsigned long long)import->text.line);
		return CLI_USAGE;
	}
	/* Nothing but comments is hardly what was meant; an export of an empty list has its line of names. */
	if (!import->count && import->text.format == LIST_FORMAT_AUTO) {
		cli_say("%s: there is no prefix in it", import->name);
		return CLI_USAGE;
	}
	return CLI_OK;
}

static int read_options(struct import *import)
{
	const struct cli_call *call = import->call;
	const char *format = call->value[IMPORT_FORMAT];
	int code = cli_option_duration_s(call, IMPORT_TTL, &import->ttl_s), known;

	if (code)
		return code;
	if (call->value[IMPORT_TTL] && (!import->ttl_s || import->ttl_s > LIST_TTL_MAX_S))
		return cli_usage(
			call, "--ttl: an entry lasts from one second to ten years, or, without --ttl, for ever");
	known = format ? list_format_of(format) : LIST_FORMAT_AUTO;
	if (known < 0)
		return cli_usage(call, "--format is auto, netset, ipset or csv, not \"%s\"", format);
	import->text.format = (enum list_format)known;
	import->force = call->value[IMPORT_FORCE];
	import->keep_labels = !call->value[IMPORT_LABEL];
	return CLI_OK;
}

int cli_list_import(const struct cli_call *call)
{
	struct import import = {.call = call, .is_plain = true, .texts_used = 1};
	struct totals totals = {0};
	int code = read_options(&import);

	if (!code)
		code = read_file(&import, call->operands ? call->operand[0] : NULL);
	if (!code)
		code = check_lines(&import);
	if (!code)
		code = choose_label(&import);
	if (!code) {
		drop_duplicates(&import);
		code = send_import(&import, &totals);
	}
	if (!code)
		code = print_totals(&import, &totals);
	free(import.items);
	free(import.texts);
	return code;
}
