/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The table of what is set in a fleet; see settings.h.
 *
 * A hash of chains with a few queues through it. An entry of a list costs some 250 bytes, so a million of them a quarter of a gigabyte.
 */
#include "fleet/settings.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS_MIN 1024

struct settings *settings_new(uint32_t node)
{
	struct settings *settings = calloc(1, sizeof(*settings));

	if (!settings)
		return NULL;
	settings->buckets = calloc(BUCKETS_MIN, sizeof(struct setting *));
	if (!settings->buckets) {
		free(settings);
		return NULL;
	}
	settings->bucket_count = BUCKETS_MIN;
	settings->node = node;
	TAILQ_INIT(&settings->all);
	TAILQ_INIT(&settings->dirty);
	TAILQ_INIT(&settings->unsure);
	TAILQ_INIT(&settings->due);
	TAILQ_INIT(&settings->unsaved);
	return settings;
}

void settings_free(struct settings *settings)
{
	struct setting *setting;

	if (!settings)
		return;
	while ((setting = TAILQ_FIRST(&settings->all))) {
		TAILQ_REMOVE(&settings->all, setting, in_all);
		free(setting->value);
		free(setting);
	}
	free(settings->buckets);
	free(settings);
}

/* --- the hash ------------------------------------------------------------------------------------------------------------------- */
static uint64_t hash_of(const char *name)
{
	uint64_t hash = 14695981039346656037ULL; /* FNV-1a, 64 bits */

	for (; *name; name++)
		hash = (hash ^ (unsigned char)*name) * 1099511628211ULL;
	return hash ^ hash >> 32;
}

static struct setting **bucket_of(const struct settings *settings, const char *name)
{
	return &settings->buckets[hash_of(name) & (settings->bucket_count - 1)];
}

struct setting *settings_find(const struct settings *settings, const char *name)
{
	struct setting *setting = *bucket_of(settings, name);

	while (setting && strcmp(setting->name, name) != 0)
		setting = setting->next;
	return setting;
}

/* Without memory the chains stay long. */
static void grow(struct settings *settings)
{
	struct setting **larger, *setting;

	if (settings->count < settings->bucket_count)
		return;
	larger = calloc(settings->bucket_count * 2, sizeof(struct setting *));
	if (!larger)
		return;
	free(settings->buckets);
	settings->buckets = larger;
	settings->bucket_count *= 2;
	TAILQ_FOREACH(setting, &settings->all, in_all)
	{
		struct setting **bucket = bucket_of(settings, setting->name);

		setting->next = *bucket;
		*bucket = setting;
	}
}

/* One that nothing is known of, removed as yet. NULL without memory. */
static struct setting *add(struct settings *settings, const char *name)
{
	size_t length = strlen(name);
	struct setting *setting = calloc(1, sizeof(*setting) + length + 1), **bucket;

	if (!setting)
		return NULL;
	memcpy(setting->name, name, length);
	grow(settings);
	bucket = bucket_of(settings, name);
	setting->next = *bucket;
	*bucket = setting;
	TAILQ_INSERT_TAIL(&settings->all, setting, in_all);
	settings->count++;
	return setting;
}

/* --- the queues ----------------------------------------------------------------------------------------------------------------- */
static void clear_unsent(struct settings *settings, struct setting *setting)
{
	if (setting->flags & SETTING_DIRTY) {
		TAILQ_REMOVE(&settings->dirty, setting, in_unsent);
		settings->dirty_count--;
	} else if (setting->flags & SETTING_UNSURE) {
		TAILQ_REMOVE(&settings->unsure, setting, in_unsent);
		settings->unsure_count--;
	}
	setting->flags &= ~(unsigned)(SETTING_DIRTY | SETTING_UNSURE);
}

static void make_dirty(struct settings *settings, struct setting *setting)
{
	clear_unsent(settings, setting);
	setting->flags |= SETTING_DIRTY;
	setting->op = ++settings->ops;
	TAILQ_INSERT_TAIL(&settings->dirty, setting, in_unsent);
	settings->dirty_count++;
}

static void make_unsure(struct settings *settings, struct setting *setting)
{
	if (setting->flags & (SETTING_DIRTY | SETTING_UNSURE))
		return;
	setting->flags |= SETTING_UNSURE;
	TAILQ_INSERT_TAIL(&settings->unsure, setting, in_unsent);
	settings->unsure_count++;
}

void settings_make_sure(struct settings *settings, struct setting *setting)
{
	if (setting->flags & SETTING_UNSURE)
		clear_unsent(settings, setting);
}

static void clear_refused(struct settings *settings, struct setting *setting)
{
	settings->refused_count -= (setting->flags & SETTING_REFUSED) != 0;
	setting->flags &= ~(unsigned)SETTING_REFUSED;
}

void settings_refuse(struct settings *settings, struct setting *setting)
{
	settings->refused_count += !(setting->flags & SETTING_REFUSED);
	setting->flags |= SETTING_REFUSED;
}

void settings_put_due(struct settings *settings, struct setting *setting)
{
	clear_refused(settings, setting);
	if (setting->flags & SETTING_DUE)
		return;
	setting->flags |= SETTING_DUE;
	TAILQ_INSERT_TAIL(&settings->due, setting, in_due);
	settings->due_count++;
}

static void clear_due(struct settings *settings, struct setting *setting)
{
	if (!(setting->flags & SETTING_DUE))
		return;
	setting->flags &= ~(unsigned)SETTING_DUE;
	TAILQ_REMOVE(&settings->due, setting, in_due);
	settings->due_count--;
}

struct setting *settings_take_due(struct settings *settings)
{
	struct setting *setting = TAILQ_FIRST(&settings->due);

	if (!setting)
		return NULL;
	clear_due(settings, setting);
	clear_refused(settings, setting);
	return setting;
}

void settings_put_unsaved(struct settings *settings, struct setting *setting)
{
	if (setting->flags & SETTING_UNSAVED)
		return;
	setting->flags |= SETTING_UNSAVED;
	TAILQ_INSERT_TAIL(&settings->unsaved, setting, in_unsaved);
}

struct setting *settings_take_unsaved(struct settings *settings)
{
	struct setting *setting = TAILQ_FIRST(&settings->unsaved);

	if (!setting)
		return NULL;
	setting->flags &= ~(unsigned)SETTING_UNSAVED;
	TAILQ_REMOVE(&settings->unsaved, setting, in_unsaved);
	return setting;
}

bool settings_has_sent(const struct settings *settings, uint64_t op)
{
	const struct setting *first = TAILQ_FIRST(&settings->dirty);

	return !first || first->op > op;
}

/* --- changes -------------------------------------------------------------------------------------------------------------------- */
static bool is_same(const char *left, const char *right)
{
	return left && right ? !strcmp(left, right) : left == right;
}

static int give_value(struct settings *settings, struct setting *setting, const char *value, uint64_t until_ms)
{
	char *copy = value ? strdup(value) : NULL;

	if (value && !copy)
		return -ENOMEM;
	settings->live += (value != NULL);
	settings->live -= (setting->value != NULL);
	free(setting->value);
	setting->value = copy;
	setting->until_ms = until_ms;
	return 0;
}

int settings_set(struct settings *settings, const char *name, const char *value, uint64_t until_ms, bool is_final)
{
	struct setting *setting = settings_find(settings, name);

	if (setting && is_same(setting->value, value) && setting->stamp.is_final == is_final)
		return 0;
	if (!setting)
		setting = add(settings, name);
	if (!setting || give_value(settings, setting, value, until_ms))
		return -ENOMEM;
	setting->stamp.is_final |= is_final;
	clear_due(settings, setting);
	clear_refused(settings, setting);
	make_dirty(settings, setting);
	settings_put_unsaved(settings, setting);
	return 1;
}

int settings_adopt(struct settings *settings, const char *name, const char *value, uint64_t until_ms, bool is_final)
{
	struct setting *setting;

	if (settings_find(settings, name))
		return 0;
	setting = add(settings, name);
	if (!setting || give_value(settings, setting, value, until_ms))
		return -ENOMEM;
	setting->stamp = (struct setting_stamp){.node = settings->node, .is_final = is_final};
	make_unsure(settings, setting);
	settings_put_unsaved(settings, setting);
	return 1;
}

/* <0, 0, >0: `left` is earlier, the same, later. */
static int compare(const struct setting_stamp *left, const struct setting_stamp *right)
{
	if (left->is_final != right->is_final)
		return left->is_final ? 1 : -1;
	if (left->version != right->version)
		return left->version > right->version ? 1 : -1;
	return (left->node > right->node) - (left->node < right->node);
}

/* Two values with one stamp cannot be, but if clocks and memory fail together; then Redis's is the one, and all come to have it. */
static int take(struct settings *settings, struct setting *setting, const struct setting_view *from)
{
	int order = setting ? compare(&from->stamp, &setting->stamp) : 1;
	bool is_known = setting && is_same(setting->value, from->value) && setting->until_ms == from->until_ms;

	if (order < 0)
		return 0;
	if (!setting)
		setting = add(settings, from->name);
	if (!setting)
		return -ENOMEM;
	settings_make_sure(settings, setting);
	if (order || !is_known)
		settings_put_unsaved(settings, setting);
	if (!is_known && give_value(settings, setting, from->value, from->until_ms))
		return -ENOMEM;
	setting->stamp = from->stamp;
	if (is_known)
		return 0;
	settings_put_due(settings, setting);
	return 1;
}

int settings_merge(struct settings *settings, const struct setting_view *from)
{
	struct setting *setting = settings_find(settings, from->name);

	if (setting && setting->flags & SETTING_DIRTY) {
		if (!from->stamp.is_final || setting->stamp.is_final)
			return 0;
		clear_unsent(settings, setting);
	}
	return take(settings, setting, from);
}

int settings_merge_answer(struct settings *settings, const struct setting_view *from, uint64_t op)
{
	struct setting *setting = settings_find(settings, from->name);

	if (setting && setting->flags & SETTING_DIRTY && setting->op == op) {
		clear_unsent(settings, setting);
		/* What is here has no stamp of its own, so it is not to be compared: Redis has seen both. */
		setting->stamp = (struct setting_stamp){0};
		settings_put_unsaved(settings, setting);
	}
	return settings_merge(settings, from);
}

void settings_acknowledge(struct settings *settings, struct setting *setting, uint64_t op, uint64_t version)
{
	if (!(setting->flags & SETTING_DIRTY))
		return;
	setting->stamp.version = version;
	setting->stamp.node = settings->node;
	settings_put_unsaved(settings, setting);
	if (setting->op == op)
		clear_unsent(settings, setting);
}

void settings_doubt_all(struct settings *settings)
{
	struct setting *setting;

	TAILQ_FOREACH(setting, &settings->all, in_all)
	make_unsure(settings, setting);
}

/* Limits and switches have always a value, and sales stay. */
static bool can_be_removed(const struct setting *setting)
{
	return strncmp(setting->name, "limit/", 6) != 0 && strncmp(setting->name, "shadow/", 7) != 0 &&
		strncmp(setting->name, "sale/", 5) != 0;
}

void settings_retry_refused(struct settings *settings)
{
	struct setting *setting;

	if (settings->refused_count)
		TAILQ_FOREACH(setting, &settings->all, in_all)
	if (setting->flags & SETTING_REFUSED)
		settings_put_due(settings, setting);
}

size_t settings_drop_unsure(struct settings *settings)
{
	struct setting *setting, *next;
	size_t dropped = 0;

	for (setting = TAILQ_FIRST(&settings->unsure); setting; setting = next) {
		next = TAILQ_NEXT(setting, in_unsent);
		if (!setting->stamp.version || !can_be_removed(setting))
			continue;
		settings_make_sure(settings, setting);
		dropped += setting->value != NULL;
		if (!setting->value)
			continue;
		give_value(settings, setting, NULL, 0);
		settings_put_due(settings, setting);
		settings_put_unsaved(settings, setting);
	}
	return dropped;
}

static bool is_old(const struct setting *setting, uint64_t wall_us)
{
	if (setting->flags & ~(unsigned)SETTING_REFUSED || !can_be_removed(setting))
		return false;
	if (setting->value)
		return setting->until_ms && setting->until_ms * 1000 < wall_us;
	return setting->stamp.version + SETTINGS_KEEP_US + SETTINGS_MARGIN_US < wall_us;
}

static void forget(struct settings *settings, struct setting *setting)
{
	struct setting **at = bucket_of(settings, setting->name);

	clear_refused(settings, setting);
	while (*at != setting)
		at = &(*at)->next;
	*at = setting->next;
	TAILQ_REMOVE(&settings->all, setting, in_all);
	settings->count--;
	settings->live -= (setting->value != NULL);
	free(setting->value);
	free(setting);
}

/* What was looked at goes to the end, so that the next call goes on behind it. */
size_t settings_forget_old(struct settings *settings, uint64_t wall_us, size_t budget)
{
	size_t forgotten = 0;

	for (size_t i = 0; i < budget && i <= settings->count; i++) {
		struct setting *setting = TAILQ_FIRST(&settings->all);

		if (!setting)
			break;
		if (is_old(setting, wall_us)) {
			forget(settings, setting);
			forgotten++;
			continue;
		}
		TAILQ_REMOVE(&settings->all, setting, in_all);
		TAILQ_INSERT_TAIL(&settings->all, setting, in_all);
	}
	return forgotten;
}

/* --- texts ---------------------------------------------------------------------------------------------------------------------- */
int setting_format(const struct setting *setting, char *text, size_t size)
{
	return snprintf(text, size, "%" PRIu64 " %" PRIu32 " %d %" PRIu64 " %c%s", setting->stamp.version,
		setting->stamp.node, setting->stamp.is_final, setting->until_ms, setting->value ? 'v' : 'x',
		setting->value ? setting->value : "");
}

static int read_number(char **at, uint64_t max, uint64_t *number)
{
	char *end;

	if (**at < '0' || **at > '9')
		return -EINVAL;
	errno = 0;
	*number = strtoull(*at, &end, 10);
	if (errno || *end != ' ' || *number > max)
		return -EINVAL;
	*at = end + 1;
	return 0;
}

int setting_parse(char *text, struct setting_view *view)
{
	uint64_t version, node, is_final, until_ms;

	if (read_number(&text, UINT64_MAX, &version) || read_number(&text, UINT32_MAX, &node) ||
		read_number(&text, 1, &is_final) || read_number(&text, UINT64_MAX, &until_ms))
		return -EINVAL;
	/* With a line end it would be two lines of the file. */
	if (strlen(text) > SETTINGS_VALUE_MAX || strpbrk(text, "\r\n") ||
		!(text[0] == 'v' || (text[0] == 'x' && !text[1])))
		return -EINVAL;
	view->stamp = (struct setting_stamp){.version = version, .node = (uint32_t)node, .is_final = is_final};
	view->until_ms = until_ms;
	view->value = text[0] == 'v' ? text + 1 : NULL;
	return 0;
}

bool setting_name_is_valid(const char *name)
{
	size_t length = strlen(name);

	for (size_t i = 0; i < length; i++)
		if (name[i] <= ' ' || name[i] > '~')
			return false;
	return length && length <= SETTINGS_NAME_MAX && *name != '@'; /* in the file that is a place */
}

int settings_load(struct settings *settings, const struct setting_view *view, bool is_dirty)
{
	struct setting *setting = settings_find(settings, view->name);

	if (!setting)
		setting = add(settings, view->name);
	if (!setting || give_value(settings, setting, view->value, view->until_ms))
		return -ENOMEM;
	setting->stamp = view->stamp;
	clear_unsent(settings, setting);
	if (is_dirty)
		make_dirty(settings, setting);
	settings_put_due(settings, setting);
	return 0;
}
