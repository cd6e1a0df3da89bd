/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the files of this part share: fleet_settings.c (rounds, thread), _file.c (what a restart finds), _note.c (what is in force here, as texts),
 * _apply.c (what others have set, put in force).
 *
 * The lock is a leaf: who holds it takes no other. It is taken under the locks of what is set (change_lock, answers_lock, kept_lists_lock), so that
 * table and gate change in the same order.
 */
#ifndef SLUICE_DAEMON_FLEET_SETTINGS_IMPL_H
#define SLUICE_DAEMON_FLEET_SETTINGS_IMPL_H

#include <limits.h>
#include <pthread.h>

#include "daemon/fleet_settings.h"
#include "daemon/line_log.h"
#include "fleet/settings_sync.h"

#define SETTINGS_FILE "settings"
#define SETTINGS_SLOTS_TEXT (SLUICE_MAX_SALES / 4 + 1)
/* An entry of a list is of no use after its expiry, whatever the clocks of nodes say within this time. */
#define SETTINGS_EXPIRED_KEEP_MS 3600000ULL

/* Somebody waits for the number of a new sale. */
struct new_sale {
	struct new_sale *next;
	struct fleet_settings *settings;
	char slug[SALE_SLUG_MAX + 1];
	enum { NEW_SALE_WAITS, NEW_SALE_ASKED, NEW_SALE_ANSWERED } state;
	bool is_abandoned; /* nobody waits any more: who gets the answer frees it */
	int error;
	uint32_t id;
	bool is_again; /* it had that number */
};

struct fleet_settings {
	struct daemon *d;
	pthread_mutex_t lock;
	pthread_cond_t told; /* something came from Redis, or was saved: monotonic clock */
	pthread_cond_t work; /* for the thread */
	struct settings *table;
	struct settings_sync sync;
	bool has_news; /* Redis may have something */
	bool is_away;  /* the last question had no answer */
	uint64_t asked_ns, next_ns,
		gap_ns; /* when Redis was asked last, and is asked at the latest; least time between messages' effects */
	struct new_sale *new_sales;
	char slots_told[SETTINGS_SLOTS_TEXT], slots_asked[SETTINGS_SLOTS_TEXT];
	char slots_gen[SETTINGS_GEN_SIZE]; /* to which Redis they were told */
	/* the thread's own, but for saved_ops and saved_failed */
	pthread_t thread;
	atomic_bool is_running;
	bool is_adopted; /* what was found here has been taken in */
	struct line_log file;
	char path[PATH_MAX];
	size_t lines; /* in the file, since it was written anew */
	char saved_gen[SETTINGS_GEN_SIZE];
	uint64_t saved_place, saved_contact_us;
	uint64_t saved_ops; /* changes up to this one are in the file */
	bool save_failed;
};

static inline void settings_lock(struct fleet_settings *s)
{
	pthread_mutex_lock(&s->lock);
}

static inline void settings_unlock(struct fleet_settings *s)
{
	pthread_mutex_unlock(&s->lock);
}

/* --- fleet_settings_file.c ---------------------------------------------------------------------------------------------------- */
int settings_file_open(struct fleet_settings *s, char *error, size_t error_size);
/* Writes what is not in the file. Returns whether all of it is there now. */
bool settings_file_save(struct fleet_settings *s);

/* --- fleet_settings_note.c ---------------------------------------------------------------------------------------------------- */
/* Takes in what was set here and nothing is known of. */
void settings_adopt_all(struct fleet_settings *s);
/* Of it, sales of the fleet that were made here, when this node died before it had noted them. What a node has sold alone is its own, and what is over is of no
 * use to others.
 */
void settings_adopt_sales(struct fleet_settings *s);
/* What is in force here, as the table says it; NULL: nothing that was set by hand. The caller frees it. */
char *settings_text_of_limit(struct daemon *d, unsigned which);
char *settings_text_of_shadow(struct daemon *d, unsigned which);
char *settings_text_of_answer(enum sluice_answer code);
char *settings_text_of_origin(void);
char *settings_text_of_entry(const struct sluice_list_entry *entry);
char *settings_text_of_sale(const struct sale *sale);
void settings_name_of_entry(const struct sluice_list_key *key, char name[SETTINGS_NAME_MAX + 1]);

/* --- fleet_settings_apply.c --------------------------------------------------------------------------------------------------- */
/* Reads the text of a sale of that name. Returns 0 or -EINVAL. */
int settings_sale_of_text(const char *value, const char *slug, struct sale *sale);
/* Puts in force what is due. Takes locks, and may wait for the order writer. Returns false if something has to be tried again later. */
bool settings_apply_due(struct fleet_settings *s);

#endif
