/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The file "settings" in the state directory: what this node knows of the fleet's settings, so that a restart neither forgets what Redis has not
 * got yet nor has to read all of it again.
 *
 * A log of lines (line_log.h): "NAME FLAG VERSION NODE FINAL UNTIL-MS v…", FLAG "d" for what Redis is to be told as a change; and "@ GEN PLACE CONTACT",
 * up to where all of Redis is in the lines before it. The last line of a name counts. Written by the part's thread alone; when it is mostly what is over, it
 * is written anew.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "daemon/fleet_settings_impl.h"

#define HEAD "sluice-settings 1\n"
#define PIECE 500 /* settings that are written, or copied, with the lock held */
#define SPARE_LINES 10000
/* The time of the last contact matters by days. */
#define CONTACT_US 60000000ULL

/* --- reading -------------------------------------------------------------------------------------------------------------------- */
struct reader {
	struct fleet_settings *s;
	bool is_first_time; /* else the file is only written anew */
	char *error;
	size_t error_size;
};

static int say_spoilt(struct reader *reader, unsigned number)
{
	snprintf(reader->error, reader->error_size,
		"%s:%u is no line of ours; move the file away to take the fleet's settings as they are in Redis",
		reader->s->path, number);
	return -EINVAL;
}

static int read_place(struct settings_sync *sync, char *text)
{
	uint64_t place, contact;
	char gen[SETTINGS_GEN_SIZE];

	if (sscanf(text, "@ %63s %" SCNu64 " %" SCNu64, gen, &place, &contact) != 3)
		return -EINVAL;
	snprintf(sync->gen, sizeof(sync->gen), "%s", strcmp(gen, "-") != 0 ? gen : "");
	sync->place = place;
	sync->contact_us = contact;
	return 0;
}

static int read_setting(struct fleet_settings *s, char *text)
{
	char *flag = strchr(text, ' ');
	struct setting_view view = {.name = text};

	if (!flag || (flag[1] != 'd' && flag[1] != '-') || flag[2] != ' ')
		return -EINVAL;
	*flag = '\0';
	if (!setting_name_is_valid(text) || setting_parse(flag + 3, &view))
		return -EINVAL;
	return settings_load(s->table, &view, flag[1] == 'd');
}

static int read_line(void *arg, unsigned number, const char *line)
{
	struct reader *reader = arg;
	char *text;
	int err;

	if (!reader->is_first_time)
		return 0;
	if (number == 1)
		return strcmp(line, HEAD) != 0 ? say_spoilt(reader, number) : 0;
	text = strdup(line);
	if (!text) {
		snprintf(reader->error, reader->error_size, "no memory for %s", reader->s->path);
		return -ENOMEM;
	}
	text[strcspn(text, "\n")] = '\0';
	err = *text == '@' ? read_place(&reader->s->sync, text) : read_setting(reader->s, text);
	free(text);
	return err == -EINVAL ? say_spoilt(reader, number) : err;
}

/* --- writing -------------------------------------------------------------------------------------------------------------------- */
static void print_setting(FILE *out, const struct setting *setting)
{
	fprintf(out, "%s %c %" PRIu64 " %" PRIu32 " %d %" PRIu64 " %c%s\n", setting->name,
		setting->flags & SETTING_DIRTY ? 'd' : '-', setting->stamp.version, setting->stamp.node,
		setting->stamp.is_final, setting->until_ms, setting->value ? 'v' : 'x',
		setting->value ? setting->value : "");
}

/* Where something may be missing in Redis, a restart has to look again. And who was away for too long is so until he has seen all. */
static void print_place(FILE *out, struct fleet_settings *s)
{
	const struct settings_sync *sync = &s->sync;

	snprintf(s->saved_gen, sizeof(s->saved_gen), "%s", *sync->gen && !s->table->unsure_count ? sync->gen : "-");
	s->saved_place = sync->place;
	s->saved_contact_us = sync->away_since_us ? sync->away_since_us : sync->contact_us;
	fprintf(out, "@ %s %" PRIu64 " %" PRIu64 "\n", s->saved_gen, s->saved_place, s->saved_contact_us);
}

static bool place_is_saved(const struct fleet_settings *s)
{
	const char *gen = *s->sync.gen && !s->table->unsure_count ? s->sync.gen : "-";

	return !strcmp(gen, s->saved_gen) && s->sync.place == s->saved_place &&
		(s->sync.away_since_us || s->sync.contact_us < s->saved_contact_us + CONTACT_US);
}

/* All of the table, piece by piece; the file takes the place of the one before as a whole. Nothing is taken out of it meanwhile (that is this thread's work), and what is changed is written again. */
static void write_all(void *arg, FILE *file)
{
	struct fleet_settings *s = ((struct reader *)arg)->s;
	struct setting *setting;

	fputs(HEAD, file);
	settings_lock(s);
	print_place(file, s); /* as of now: what comes meanwhile is written again behind it */
	s->lines = 2;
	setting = TAILQ_FIRST(&s->table->all);
	while (setting) {
		for (unsigned i = 0; setting && i < PIECE; i++) {
			print_setting(file, setting);
			s->lines++;
			setting = TAILQ_NEXT(setting, in_all);
		}
		settings_unlock(s);
		settings_lock(s);
	}
	settings_unlock(s);
}

static int open_file(struct fleet_settings *s, bool is_first_time, char *error, size_t error_size)
{
	struct reader reader = {.s = s, .is_first_time = is_first_time, .error = error, .error_size = error_size};
	const struct line_log_reader log_reader = {.line = read_line, .rest = write_all, .arg = &reader};

	return line_log_open(&s->file, s->path, &log_reader, error, error_size);
}

int settings_file_open(struct fleet_settings *s, char *error, size_t error_size)
{
	int err;

	snprintf(s->path, sizeof(s->path), "%s/" SETTINGS_FILE, s->d->config.daemon.state_dir);
	err = open_file(s, true, error, error_size);
	/* One that could not be written anew may be empty. */
	if (!err && !s->file.end)
		err = line_log_append(&s->file, HEAD, strlen(HEAD));
	if (err && !*error)
		snprintf(error, error_size, "cannot write to %s: %s", s->path, strerror(-err));
	return err;
}

/* What was taken comes back if it could not be written. Returns 1: there may be more, 0, or negative errno. */
static int save_piece(struct fleet_settings *s)
{
	struct setting *taken[PIECE];
	unsigned count = 0;
	char *text = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);
	uint64_t ops;
	int err;

	if (!out)
		return -ENOMEM;
	settings_lock(s);
	while (count < PIECE && (taken[count] = settings_take_unsaved(s->table)))
		print_setting(out, taken[count++]);
	ops = s->table->ops;
	if (count < PIECE && !place_is_saved(s))
		print_place(out, s);
	settings_unlock(s);
	err = fclose(out) ? -ENOMEM : 0;
	if (!err && length)
		err = line_log_append(&s->file, text, length);
	free(text);
	settings_lock(s);
	for (unsigned i = 0; err && i < count; i++)
		settings_put_unsaved(s->table, taken[i]);
	if (err)
		s->saved_gen[0] = '\0';
	else if (count < PIECE)
		s->saved_ops = ops;
	pthread_cond_broadcast(&s->told);
	settings_unlock(s);
	s->lines += err ? 0 : count + 1;
	return err ? err : count == PIECE;
}

static void write_anew(struct fleet_settings *s)
{
	char error[512] = "";
	int err;

	line_log_close(&s->file);
	err = open_file(s, false, error, sizeof(error));
	if (err && !s->save_failed)
		log_error("cannot go on with the settings of the fleet: %s", *error ? error : strerror(-err));
}

bool settings_file_save(struct fleet_settings *s)
{
	int err = 0;

	if (s->file.fd < 0 || s->lines > 2 * s->table->count + SPARE_LINES)
		write_anew(s);
	if (s->file.fd < 0)
		err = -EBADF;
	while (!err) {
		err = save_piece(s);
		if (err <= 0)
			break;
		err = 0;
	}
	if (err && !s->save_failed)
		log_error(
			"cannot write to %s: %s; what is set is in force, and a restart may forget that it was not told to Redis yet",
			s->path, strerror(-err));
	s->save_failed = err != 0;
	return !err;
}
