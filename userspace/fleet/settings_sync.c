/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* See settings_sync.h. */
#include "fleet/settings_sync.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIXED_ARGUMENTS 9
/* An answer: "ok", gen, now, place, version, results, place of the last entry, whether it is the end, entries. */
enum {
	ANSWER_WORD,
	ANSWER_GEN,
	ANSWER_NOW,
	ANSWER_PLACE,
	ANSWER_VERSION,
	ANSWER_RESULTS,
	ANSWER_LAST,
	ANSWER_END,
	ANSWER_ENTRIES,
	ANSWER_SIZE
};

void settings_sync_init(struct settings_sync *sync, struct settings *settings, const char *life)
{
	*sync = (struct settings_sync){.settings = settings, .node = settings->node};
	snprintf(sync->life, sizeof(sync->life), "%s", life);
}

bool settings_sync_is_due(const struct settings_sync *sync)
{
	return !sync->complete || sync->place < sync->end || sync->settings->dirty_count ||
		sync->settings->unsure_count;
}

/* --- asking --------------------------------------------------------------------------------------------------------------------- */
static int add_argument(struct settings_question *question, const char *text)
{
	question->arguments[question->count] = strdup(text);
	return question->arguments[question->count++] ? 0 : -ENOMEM;
}

static int add_number(struct settings_question *question, uint64_t number)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, number);
	return add_argument(question, text);
}

/* Returns the bytes that it took, or -ENOMEM. */
static int add_put(
	struct settings_sync *sync, struct settings_question *question, struct setting *setting, bool is_dirty)
{
	char *text;
	int length = asprintf(&text, "%c %" PRIu64 " %" PRIu64 " %" PRIu32 " %d %" PRIu64 " %c %s%s%s",
		is_dirty ? 'n' : 'm', is_dirty ? setting->op : 0, setting->stamp.version, setting->stamp.node,
		setting->stamp.is_final, setting->until_ms, setting->value ? 'v' : 'x', setting->name,
		setting->value ? " " : "", setting->value ? setting->value : "");

	if (length < 0)
		return -ENOMEM;
	question->arguments[question->count++] = text;
	sync->asked[sync->asked_count++] =
		(struct settings_asked){.setting = setting, .op = is_dirty ? setting->op : 0};
	setting->flags |= SETTING_ASKED;
	return length;
}

static int add_puts(struct settings_sync *sync, struct settings_question *question, const struct setting_queue *queue,
	bool is_dirty, size_t *bytes)
{
	struct setting *setting;

	TAILQ_FOREACH(setting, queue, in_unsent)
	{
		int length;

		if (sync->asked_count == SETTINGS_PUTS || *bytes > SETTINGS_BYTES)
			return 0;
		length = add_put(sync, question, setting, is_dirty);
		if (length < 0)
			return length;
		*bytes += (size_t)length;
	}
	return 0;
}

int settings_sync_ask(struct settings_sync *sync, const struct settings_more *more, struct settings_question *question)
{
	size_t bytes = 0;
	int err;

	settings_sync_lost(sync);
	*question = (struct settings_question){.arguments = calloc(FIXED_ARGUMENTS + SETTINGS_PUTS, sizeof(char *))};
	err = question->arguments ? 0 : -ENOMEM;
	if (!err)
		err = add_argument(question, "sync") | add_argument(question, *sync->gen ? sync->gen : "-") |
			add_number(question, sync->node) | add_argument(question, more->channel) |
			add_argument(question, sync->life) | add_number(question, sync->place) |
			add_number(question, SETTINGS_PAGE) | add_number(question, more->highest_sale) |
			add_argument(question, more->busy);
	if (!err)
		err = add_puts(sync, question, &sync->settings->dirty, true, &bytes);
	/* What Redis has is known first: mostly it has it. */
	if (!err && sync->complete)
		err = add_puts(sync, question, &sync->settings->unsure, false, &bytes);
	if (err) {
		settings_sync_lost(sync);
		settings_question_free(question);
		err = -ENOMEM;
	}
	return err;
}

void settings_question_free(struct settings_question *question)
{
	for (unsigned i = 0; i < question->count; i++)
		free(question->arguments[i]);
	free(question->arguments);
	*question = (struct settings_question){0};
}

void settings_sync_lost(struct settings_sync *sync)
{
	for (unsigned i = 0; i < sync->asked_count; i++)
		sync->asked[i].setting->flags &= ~(unsigned)SETTING_ASKED;
	sync->asked_count = 0;
}

/* --- answers -------------------------------------------------------------------------------------------------------------------- */
static bool is_text(const redisReply *reply)
{
	return reply->type == REDIS_REPLY_STRING;
}

/* It becomes a word of a line in the file. */
static bool is_gen(const redisReply *reply)
{
	if (!is_text(reply) || !reply->len || reply->len >= SETTINGS_GEN_SIZE)
		return false;
	for (size_t i = 0; i < reply->len; i++)
		if (reply->str[i] <= ' ' || reply->str[i] > '~')
			return false;
	return true;
}

static int read_number(const redisReply *reply, uint64_t *number)
{
	char *end;

	if (!is_text(reply) || reply->str[0] < '0' || reply->str[0] > '9')
		return -EPROTO;
	errno = 0;
	*number = strtoull(reply->str, &end, 10);
	return errno || *end ? -EPROTO : 0;
}

/* The text is taken apart in a copy: the reply is not ours to change. `copy` is the caller's to free after he has used the view. */
static int read_entry(const redisReply *name, const redisReply *text, struct setting_view *view, char **copy)
{
	*copy = NULL;
	if (!is_text(name) || !is_text(text) || strlen(text->str) != text->len || !setting_name_is_valid(name->str))
		return -EPROTO;
	*copy = strdup(text->str);
	if (!*copy)
		return -ENOMEM;
	view->name = name->str;
	return setting_parse(*copy, view) ? -EPROTO : 0;
}

/* Either the version that Redis gave or took, or what it prefers. */
static int take_result(struct settings_sync *sync, const struct settings_asked *asked, const redisReply *result)
{
	struct setting *setting = asked->setting;
	redisReply name = {.type = REDIS_REPLY_STRING, .str = setting->name, .len = strlen(setting->name)};
	struct setting_view view;
	uint64_t version;
	char *copy;
	int err;

	if (!read_number(result, &version)) {
		if (asked->op)
			settings_acknowledge(sync->settings, setting, asked->op, version);
		else
			settings_make_sure(sync->settings, setting);
		sync->published++;
		return 0;
	}
	err = read_entry(&name, result, &view, &copy);
	if (!err)
		err = asked->op ? settings_merge_answer(sync->settings, &view, asked->op)
				: settings_merge(sync->settings, &view);
	free(copy);
	return err < 0 ? err : 0;
}

static int take_entries(struct settings_sync *sync, const redisReply *entries)
{
	int err = 0;

	for (size_t i = 0; i + 1 < entries->elements && !err; i += 2) {
		struct setting_view view;
		char *copy;

		err = read_entry(entries->element[i], entries->element[i + 1], &view, &copy);
		if (!err)
			err = settings_merge(sync->settings, &view);
		sync->pulled += err > 0;
		err = err > 0 ? 0 : err;
		free(copy);
	}
	return err;
}

/* All of it is to be read again. */
static void begin_anew(struct settings_sync *sync)
{
	sync->place = 0;
	sync->complete = false;
	settings_doubt_all(sync->settings);
}

static void note_contact(struct settings_sync *sync, uint64_t now_us)
{
	if (sync->contact_us && now_us > sync->contact_us + SETTINGS_KEEP_US && !sync->away_since_us) {
		sync->away_since_us = sync->contact_us;
		begin_anew(sync);
	}
	sync->contact_us = now_us;
}

/* Something was set in the fleet since this node was in touch, so the others are there and have told Redis what they have. If nothing was,
 * Redis may have lost its memory while all of the fleet was away, and this node may be the only one that knows.
 */
static void note_end(struct settings_sync *sync, uint64_t version)
{
	sync->complete = true;
	if (sync->away_since_us && version > sync->away_since_us)
		sync->dropped += settings_drop_unsure(sync->settings);
	sync->away_since_us = 0;
}

static int take_ok(struct settings_sync *sync, const redisReply *reply)
{
	const redisReply *results, *entries;
	uint64_t now, place, version, last;
	int err;

	if (reply->elements != ANSWER_SIZE)
		return -EPROTO;
	results = reply->element[ANSWER_RESULTS];
	entries = reply->element[ANSWER_ENTRIES];
	if (results->type != REDIS_REPLY_ARRAY || results->elements != sync->asked_count ||
		entries->type != REDIS_REPLY_ARRAY || entries->elements % 2 ||
		read_number(reply->element[ANSWER_NOW], &now) || read_number(reply->element[ANSWER_PLACE], &place) ||
		read_number(reply->element[ANSWER_VERSION], &version) ||
		read_number(reply->element[ANSWER_LAST], &last))
		return -EPROTO;
	err = 0;
	for (unsigned i = 0; i < sync->asked_count && !err; i++)
		err = take_result(sync, &sync->asked[i], results->element[i]);
	if (!err)
		err = take_entries(sync, entries);
	if (err)
		return err;
	sync->end = place;
	sync->place = last;
	note_contact(sync, now);
	if (sync->place == last && reply->element[ANSWER_END]->integer)
		note_end(sync, version);
	return 0;
}

int settings_sync_take(struct settings_sync *sync, const redisReply *reply)
{
	uint64_t now;
	int err = -EPROTO;

	if (reply && reply->type == REDIS_REPLY_ARRAY && reply->elements > ANSWER_NOW &&
		is_text(reply->element[ANSWER_WORD]) && is_gen(reply->element[ANSWER_GEN])) {
		if (!strcmp(reply->element[ANSWER_WORD]->str, "ok")) {
			err = take_ok(sync, reply);
		} else if (!strcmp(reply->element[ANSWER_WORD]->str, "regen") &&
			!read_number(reply->element[ANSWER_NOW], &now)) {
			sync->losses += *sync->gen != '\0';
			snprintf(sync->gen, sizeof(sync->gen), "%s", reply->element[ANSWER_GEN]->str);
			begin_anew(sync);
			note_contact(sync, now);
			err = 0;
		}
	}
	settings_sync_lost(sync);
	return err;
}
