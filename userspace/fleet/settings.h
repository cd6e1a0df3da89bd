/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What is set on the nodes of a fleet, as one node knows it: a table of named values, each with the stamp of the change that made it.
 *
 * Redis passes changes on (scripts/settings.lua); every node has the whole table, so Redis may lose everything and is told it again. Of two
 * values of one name every node and Redis prefer the same, by the stamp alone: so in whatever order, how often, or after what losses they come,
 * all end with the same.
 *
 * Pure: no thread, no clock, no file, no network. Called by daemon/fleet_settings.c, under its lock; fleet/settings_sync.c talks to Redis for it.
 */
#ifndef SLUICE_FLEET_SETTINGS_H
#define SLUICE_FLEET_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

/* "limit/source", "deny/192.0.2.0/24", "sale/drop-11": printable, no spaces. */
#define SETTINGS_NAME_MAX 127
/* A text without line ends; an operator's answer is the longest (1,000 bytes that JSON may write as six each, and headers). */
#define SETTINGS_VALUE_MAX 16384
/* What was removed is remembered for so long, so that a node that was away hears of it. Redis keeps it for a day longer: whoever was in touch within
 * this time has missed nothing.
 */
#define SETTINGS_KEEP_US (7 * 86400 * 1000000ULL)
#define SETTINGS_MARGIN_US (86400 * 1000000ULL)

/* The order of changes: what is final beats what is not, then the version (microseconds since 1970 by Redis's clock, made so that it always grows),
 * then the node. Version 0: what a node had set before it belonged to the fleet.
 */
struct setting_stamp {
	uint64_t version;
	uint32_t node;
	bool is_final; /* no change can take it back: a sale that was ended */
};

enum setting_flag {
	SETTING_DIRTY = 1 << 0,   /* changed here; Redis is to give it a version */
	SETTING_UNSURE = 1 << 1,  /* Redis may have forgotten it */
	SETTING_DUE = 1 << 2,     /* what this node does does not follow it yet */
	SETTING_UNSAVED = 1 << 3, /* not in the file as it is */
	SETTING_ASKED = 1 << 4,   /* Redis is being told; it must not go away meanwhile */
	SETTING_REFUSED = 1 << 5, /* cannot be done here */
};

struct setting {
	TAILQ_ENTRY(setting) in_all, in_unsent, in_due, in_unsaved;
	struct setting *next; /* in the hash chain */
	struct setting_stamp stamp;
	uint64_t op;       /* of the change made here last; DIRTY ones are queued by it */
	uint64_t until_ms; /* wall: of no use to anybody after this; 0 = never */
	unsigned flags;
	char *value; /* NULL: removed */
	char name[];
};
TAILQ_HEAD(setting_queue, setting);

struct settings {
	uint32_t node;
	size_t count, live; /* live: not removed */
	struct setting **buckets;
	size_t bucket_count; /* a power of two */
	struct setting_queue all;
	struct setting_queue dirty, unsure; /* by in_unsent; dirty ones in the order of `op` */
	struct setting_queue due, unsaved;
	size_t dirty_count, unsure_count, due_count, refused_count;
	uint64_t ops; /* given so far */
};

/* Returns NULL without memory. */
struct settings *settings_new(uint32_t node);
void settings_free(struct settings *settings);
/* NULL: nothing is known of it. */
struct setting *settings_find(const struct settings *settings, const char *name);

/* It was changed here, by hand; `value` NULL: removed. Nothing is to be done here any more, but the others are to hear of it. Returns 1, 0 if it was like
 * that, or -ENOMEM.
 */
int settings_set(struct settings *settings, const char *name, const char *value, uint64_t until_ms, bool is_final);
/* It was found here, and may be from before the fleet: taken in if nothing is known of the name. Returns 1, 0 or -ENOMEM. */
int settings_adopt(struct settings *settings, const char *name, const char *value, uint64_t until_ms, bool is_final);
/* Another node's, or what Redis has. A change made here that Redis has not answered yet goes before it, unless only `from` is final. Returns 1 if
 * it is in force now (and to be done here), 0 if not, -ENOMEM.
 */
struct setting_view {
	const char *name, *value; /* value NULL: removed */
	struct setting_stamp stamp;
	uint64_t until_ms;
};
int settings_merge(struct settings *settings, const struct setting_view *from);
/* The same, and it is Redis's answer to the change `op`: a change that was made here since then stays as it is. */
int settings_merge_answer(struct settings *settings, const struct setting_view *from, uint64_t op);
/* Redis has given the change `op` this version. */
void settings_acknowledge(struct settings *settings, struct setting *setting, uint64_t op, uint64_t version);
/* Redis has it, or something later. */
void settings_make_sure(struct settings *settings, struct setting *setting);

/* Redis may have forgotten everything. */
void settings_doubt_all(struct settings *settings);
/* The fleet has removed what Redis has not, and this node was away for too long to hear of it: what can be removed at all goes, but for what was changed
 * here and what is not from the fleet. Returns how many.
 */
size_t settings_drop_unsure(struct settings *settings);
/* Forgets up to `budget` of what has been of no use for a time. Returns how many. */
size_t settings_forget_old(struct settings *settings, uint64_t wall_us, size_t budget);

/* Is everything changed here up to `op` with Redis? */
bool settings_has_sent(const struct settings *settings, uint64_t op);

/* The queues of what is to be done here, and of what is to be written. Take the first, or NULL. */
struct setting *settings_take_due(struct settings *settings);
void settings_put_due(struct settings *settings, struct setting *setting);
/* It cannot be done here, as long as it is not changed or put into the queue again. */
void settings_refuse(struct settings *settings, struct setting *setting);
/* Perhaps it can by now. */
void settings_retry_refused(struct settings *settings);
struct setting *settings_take_unsaved(struct settings *settings);
void settings_put_unsaved(struct settings *settings, struct setting *setting);

/* One as a text, as in Redis and in the file: VERSION NODE FINAL UNTIL-MS x, or with "v" and the value behind. Returns its length, as snprintf. */
int setting_format(const struct setting *setting, char *text, size_t size);
/* Takes such a text apart, in place; the value points into it. Returns 0 or -EINVAL. `view->name` is left alone. */
int setting_parse(char *text, struct setting_view *view);
/* From the file, at the start. Everything is to be done here. Returns 0 or -ENOMEM. */
int settings_load(struct settings *settings, const struct setting_view *view, bool is_dirty);
/* 1 to SETTINGS_NAME_MAX printable characters without spaces, of which the first is no "@". */
bool setting_name_is_valid(const char *name);

#endif
