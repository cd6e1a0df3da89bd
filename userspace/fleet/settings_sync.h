/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* One node's talk with Redis about the settings of the fleet (scripts/settings.lua): what to ask next, and what an answer means.
 *
 * One question at a time. It tells what was changed here and asks what has come since; the answer may be lost, and then the next question tells it
 * again. When Redis has lost its memory, or may have (another "gen"), all of it is read anew, and then what it lacks is told to it again.
 */
#ifndef SLUICE_FLEET_SETTINGS_SYNC_H
#define SLUICE_FLEET_SETTINGS_SYNC_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fleet/settings.h"

#define SETTINGS_GEN_SIZE 64
#define SETTINGS_LIFE_SIZE 32
/* Of one question, and of one answer: some milliseconds of Redis's time. */
#define SETTINGS_PUTS 500
#define SETTINGS_PAGE 500
#define SETTINGS_BYTES (1u << 19)

struct settings_asked {
	struct setting *setting;
	uint64_t op; /* 0: it was told as it is, with its stamp */
};

struct settings_sync {
	struct settings *settings;
	uint32_t node;
	char life[SETTINGS_LIFE_SIZE]; /* numbers of changes begin anew with each */
	char gen[SETTINGS_GEN_SIZE];   /* "" = none yet */
	uint64_t place;                /* up to here everything of `gen` is known */
	uint64_t end;                  /* the last place of Redis, as it said */
	bool complete;                 /* the end of `gen` has been seen */
	uint64_t contact_us;           /* by Redis's clock: its last answer; 0 = none ever */
	uint64_t away_since_us; /* not 0: this node was away too long to have heard of everything that was removed */
	struct settings_asked asked[SETTINGS_PUTS];
	unsigned asked_count;
	/* counts for the metrics */
	uint64_t published, pulled, losses, dropped;
};

/* What else is told: the highest id of a sale that this node knows, and which slots of its gate are in use (a hex digit for four slots), "" = as last told. */
struct settings_more {
	const char *channel;
	uint64_t highest_sale;
	const char *busy;
};

struct settings_question {
	char **arguments;
	unsigned count;
};

/* `life`: a word that no other life of this node had. */
void settings_sync_init(struct settings_sync *sync, struct settings *settings, const char *life);
/* Is there something to tell, or to be read, whatever Redis may have to tell? */
bool settings_sync_is_due(const struct settings_sync *sync);
/* ARGV of the next question. Returns 0 or -ENOMEM. settings_sync_take, or _lost, must follow; `question` is the caller's to free, at once if he likes. */
int settings_sync_ask(struct settings_sync *sync, const struct settings_more *more, struct settings_question *question);
void settings_question_free(struct settings_question *question);
/* The answer. Returns 0, -EPROTO for one that is none (the next question tells all of it again), -ENOMEM. */
int settings_sync_take(struct settings_sync *sync, const redisReply *reply);
/* No answer came. */
void settings_sync_lost(struct settings_sync *sync);

#endif
