/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The settings of the fleet on this node; see fleet_settings.h.
 *
 * The fleet's thread asks Redis (one script call in a round) and puts what comes into the table: that is memory, and quick. A thread of this part writes the
 * file and puts in force what came, which may wait for a disk or for the order writer. Routes put what they have changed into the table.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/fleet_settings_impl.h"

#define SCRIPT "settings"
#define MS 1000000ULL
#define S 1000000000ULL
/* Redis is asked so often, whatever messages and the reports of fleet_nodes.c say. */
#define POLL_NS (30 * S)
#define POLL_AWAY_NS (250 * MS)
/* Messages are about everything in the fleet. Those that bring nothing here are heeded less and less, up to this. */
#define GAP_NS (20 * MS)
#define GAP_MAX_NS (500 * MS)
#define REST_NS (200 * MS)
#define TRY_AGAIN_NS (1 * S)
#define AWAIT_NS (1 * S)
/* What cannot be done here is tried again; what is old is looked for so often, and in so many settings. */
#define RETRY_REFUSED_NS (3600 * S)
#define FORGET_NS (1 * S)
#define FORGET_BUDGET 2000
#define KEY_COUNT 4

/* --- talk ----------------------------------------------------------------------------------------------------------------------- */
struct keys {
	char text[KEY_COUNT][FLEET_KEY_MAX];
	const char *key[KEY_COUNT];
};

static const char *const *make_keys(const struct daemon *d, struct keys *keys)
{
	static const char *const names[KEY_COUNT] = {"settings", "settings:values", "settings:index", "settings:due"};

	for (unsigned i = 0; i < KEY_COUNT; i++)
		keys->key[i] = fleet_key(d, names[i], keys->text[i]);
	return keys->key;
}

static void on_answer(struct daemon *d, void *arg, int error, const redisReply *reply)
{
	struct fleet_settings *s = arg;
	uint64_t now = time_mono_ns(), losses, dropped, pulled;
	bool was_away;
	int err = error;

	(void)d;
	settings_lock(s);
	was_away = s->is_away;
	losses = s->sync.losses;
	dropped = s->sync.dropped;
	pulled = s->sync.pulled;
	if (error) {
		settings_sync_lost(&s->sync);
	} else {
		err = settings_sync_take(&s->sync, reply);
		if (!err && *s->slots_asked) {
			memcpy(s->slots_told, s->slots_asked, sizeof(s->slots_told));
			memcpy(s->slots_gen, s->sync.gen, sizeof(s->slots_gen));
		}
	}
	if (s->sync.pulled != pulled)
		s->gap_ns = GAP_NS;
	else if (s->gap_ns < GAP_MAX_NS)
		s->gap_ns *= 2;
	s->is_away = err != 0;
	s->next_ns = now + (err ? POLL_AWAY_NS : POLL_NS);
	losses = s->sync.losses - losses;
	dropped = s->sync.dropped - dropped;
	pthread_cond_broadcast(&s->told);
	pthread_cond_signal(&s->work);
	settings_unlock(s);
	if ((err == -EPROTO || err == -ENOMEM) && !was_away)
		log_error("fleet: the answer of Redis about settings cannot be used: %s",
			err == -ENOMEM ? "no memory" : "it has another form");
	if (losses)
		log_warn(
			"fleet: Redis is not the one of before, or has lost settings; what it lacks is told to it again");
	if (dropped)
		log_info("fleet: %" PRIu64 " entries were removed by other nodes while this one was away", dropped);
}

/* The lock is held. A round that is full comes again at once, and with it this. */
static void ask(struct fleet_settings *s, struct fleet_round *round)
{
	char channel[FLEET_CHANNEL_MAX], slots[SETTINGS_SLOTS_TEXT];
	struct settings_more more = {.channel = fleet_channel(s->d, channel), .busy = ""};
	struct settings_question question;
	struct keys keys;

	sales_used_slots(s->d->sales, time_wall_ns(), slots);
	more.highest_sale = sales_highest_id(s->d->sales);
	s->slots_asked[0] = '\0';
	/* Not before the ledger's are known. */
	if (atomic_load(&s->d->sales_known) &&
		(strcmp(slots, s->slots_told) != 0 || strcmp(s->slots_gen, s->sync.gen) != 0)) {
		memcpy(s->slots_asked, slots, sizeof(slots));
		more.busy = s->slots_asked;
	}
	if (settings_sync_ask(&s->sync, &more, &question))
		return;
	if (!fleet_script(round, SCRIPT, make_keys(s->d, &keys), KEY_COUNT, (const char *const *)question.arguments,
		    question.count, on_answer, s)) {
		settings_sync_lost(&s->sync);
		s->next_ns = 0;
	}
	settings_question_free(&question);
}

/* When Redis is to be asked next. */
static uint64_t due_at(const struct fleet_settings *s)
{
	uint64_t news = s->asked_ns + s->gap_ns;

	if (s->is_away)
		return s->next_ns;
	if (settings_sync_is_due(&s->sync))
		return 0;
	return s->has_news && news < s->next_ns ? news : s->next_ns;
}

/* --- numbers of sales ----------------------------------------------------------------------------------------------------------- */
static void unlink_new_sale(struct fleet_settings *s, struct new_sale *sale)
{
	struct new_sale **at = &s->new_sales;

	while (*at != sale)
		at = &(*at)->next;
	*at = sale->next;
}

static int read_id(const redisReply *reply, uint32_t *id)
{
	unsigned long number = reply->type == REDIS_REPLY_STRING ? strtoul(reply->str, NULL, 10) : 0;

	*id = (uint32_t)number;
	return number >= 1 && number <= UINT32_MAX ? 0 : -EPROTO;
}

/* What the fleet has of that name is taken in, so that it comes into force here; a sale that is over never does. */
static int take_existing(struct fleet_settings *s, const struct new_sale *sale, const redisReply *reply)
{
	char name[SETTINGS_NAME_MAX + 1], *copy = reply->type == REDIS_REPLY_STRING ? strdup(reply->str) : NULL;
	struct setting_view view = {.name = name};
	int err = copy ? setting_parse(copy, &view) : -EPROTO;
	bool is_over = false;
	struct sale known;

	snprintf(name, sizeof(name), "sale/%s", sale->slug);
	if (!err) {
		is_over = !settings_sale_of_text(view.value, sale->slug, &known) &&
			sales_state(&known, 1, time_wall_ns()) == SALE_ENDED;
		settings_merge(s->table, &view);
	}
	free(copy);
	return err ? err : is_over ? -ESTALE : -EEXIST;
}

/* 1: to be asked again. */
static int take_number(struct fleet_settings *s, struct new_sale *sale, const redisReply *reply)
{
	const char *word;

	if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 3 || reply->element[0]->type != REDIS_REPLY_STRING)
		return -EPROTO;
	word = reply->element[0]->str;
	if (!strcmp(word, "full"))
		return -ENOSPC;
	if (!strcmp(word, "regen")) {
		s->sync.complete = false; /* the next question finds out the rest */
		return 1;
	}
	if (reply->elements != 4)
		return -EPROTO;
	if (!strcmp(word, "exists"))
		return take_existing(s, sale, reply->element[3]);
	sale->is_again = !strcmp(word, "again");
	return !sale->is_again && strcmp(word, "ok") != 0 ? -EPROTO : read_id(reply->element[3], &sale->id);
}

static void on_new_sale(struct daemon *d, void *arg, int error, const redisReply *reply)
{
	struct new_sale *sale = arg;
	struct fleet_settings *s = sale->settings;
	int err;

	(void)d;
	settings_lock(s);
	err = error ? error : take_number(s, sale, reply);
	if (err > 0) {
		sale->state = NEW_SALE_WAITS;
	} else {
		sale->state = NEW_SALE_ANSWERED;
		sale->error = err == -ENOSPC || err == -EEXIST || err == -ESTALE || !err ? err : -ENOTCONN;
	}
	if (sale->is_abandoned) {
		unlink_new_sale(s, sale);
		free(sale);
	}
	pthread_cond_broadcast(&s->told);
	settings_unlock(s);
}

/* Not before all of Redis has been seen: then a sale that is there is known, and its gen. */
static void ask_new_sales(struct fleet_settings *s, struct fleet_round *round)
{
	char slots[SETTINGS_SLOTS_TEXT], node[16], highest[16], channel[FLEET_CHANNEL_MAX];

	for (struct new_sale *sale = s->new_sales; sale && s->sync.complete; sale = sale->next) {
		const char *arguments[] = {
			"sale", s->sync.gen, node, fleet_channel(s->d, channel), sale->slug, highest, slots};
		struct keys keys;

		if (sale->state != NEW_SALE_WAITS || sale->is_abandoned)
			continue;
		sales_used_slots(s->d->sales, time_wall_ns(), slots);
		snprintf(node, sizeof(node), "%" PRIu32, s->sync.node);
		snprintf(highest, sizeof(highest), "%" PRIu32, sales_highest_id(s->d->sales));
		if (fleet_script(round, SCRIPT, make_keys(s->d, &keys), KEY_COUNT, arguments,
			    sizeof(arguments) / sizeof(arguments[0]), on_new_sale, sale))
			sale->state = NEW_SALE_ASKED;
	}
}

static struct timespec from_now(uint64_t ns)
{
	uint64_t at = time_mono_ns() + ns;

	return (struct timespec){.tv_sec = (time_t)(at / S), .tv_nsec = (long)(at % S)};
}

int fleet_settings_new_sale(struct daemon *d, const char *slug, uint32_t *id, bool *is_again)
{
	struct fleet_settings *s = d->settings;
	struct new_sale *sale = calloc(1, sizeof(*sale));
	struct timespec until = from_now(2 * S + 2 * d->config.fleet.timeout_ms * MS);
	bool in_time = true;
	int err = -ENOTCONN;

	if (!sale)
		return -ENOMEM;
	sale->settings = s;
	snprintf(sale->slug, sizeof(sale->slug), "%s", slug);
	settings_lock(s);
	sale->next = s->new_sales;
	s->new_sales = sale;
	fleet_wake(d);
	while (in_time && sale->state != NEW_SALE_ANSWERED && !s->is_away && !atomic_load(&d->stopping))
		in_time = !pthread_cond_timedwait(&s->told, &s->lock, &until);
	if (sale->state == NEW_SALE_ANSWERED) {
		err = sale->error;
		*id = sale->id;
		*is_again = sale->is_again;
	}
	sale->is_abandoned = true;
	if (sale->state != NEW_SALE_ASKED) {
		unlink_new_sale(s, sale);
		free(sale);
	}
	settings_unlock(s);
	return err;
}

/* --- the part ------------------------------------------------------------------------------------------------------------------- */
static uint64_t settings_step(struct daemon *d, struct fleet_round *round, uint64_t now)
{
	struct fleet_settings *s = d->settings;
	uint64_t due;

	settings_lock(s);
	if (now >= due_at(s)) {
		s->has_news = false;
		s->asked_ns = now;
		s->next_ns = now + POLL_AWAY_NS;
		ask(s, round);
	}
	ask_new_sales(s, round);
	due = due_at(s);
	settings_unlock(s);
	return due > now ? due : now;
}

static void settings_news(struct daemon *d, const char *about)
{
	(void)about;
	settings_lock(d->settings);
	d->settings->has_news = true;
	settings_unlock(d->settings);
}

/* What was set in the last moment goes out. */
static bool settings_leave(struct daemon *d, struct fleet_round *round, uint64_t now)
{
	struct fleet_settings *s = d->settings;
	bool is_done;

	(void)now;
	settings_lock(s);
	is_done = !s->table->dirty_count || s->is_away;
	if (!is_done)
		ask(s, round);
	settings_unlock(s);
	return is_done;
}

const struct fleet_part fleet_settings_part = {
	.name = "settings", .topic = "settings", .step = settings_step, .news = settings_news, .leave = settings_leave};

bool fleet_settings_await(struct daemon *d, uint64_t change)
{
	struct fleet_settings *s = d->settings;
	struct timespec until = from_now(AWAIT_NS);
	bool in_time = true, is_sent;

	if (!s || !change)
		return true;
	settings_lock(s);
	/* With Redis away it is the file that makes it outlive this daemon. */
	while (in_time && !atomic_load(&d->stopping) &&
		(s->saved_ops < change || !(settings_has_sent(s->table, change) || s->is_away)))
		in_time = !pthread_cond_timedwait(&s->told, &s->lock, &until);
	is_sent = settings_has_sent(s->table, change);
	settings_unlock(s);
	return is_sent;
}

json_t *fleet_settings_mark(json_t *answer, bool is_replicated)
{
	if (answer && !is_replicated)
		json_object_set_new(answer, "not_replicated", json_true());
	return answer;
}

/* --- the thread ----------------------------------------------------------------------------------------------------------------- */
static void forget_old(struct fleet_settings *s)
{
	settings_lock(s);
	settings_forget_old(s->table, time_wall_ns() / 1000, FORGET_BUDGET);
	settings_unlock(s);
}

static void wait_for_work(struct fleet_settings *s, bool has_failed)
{
	struct timespec until = from_now(has_failed ? TRY_AGAIN_NS : REST_NS);

	settings_lock(s);
	if (has_failed)
		pthread_cond_timedwait(&s->told, &s->lock, &until);
	else if (TAILQ_EMPTY(&s->table->unsaved) && TAILQ_EMPTY(&s->table->due))
		pthread_cond_timedwait(&s->work, &s->lock, &until);
	settings_unlock(s);
}

static void *settings_run(void *arg)
{
	struct fleet_settings *s = arg;
	uint64_t forgot_ns = 0, retried_ns = time_mono_ns();

	pthread_setname_np(pthread_self(), "settings");
	while (atomic_load(&s->is_running)) {
		bool is_good = settings_file_save(s);
		uint64_t now = time_mono_ns();

		if (atomic_load(&s->d->sales_known)) {
			if (!s->is_adopted)
				settings_adopt_all(s);
			s->is_adopted = true;
			is_good = settings_apply_due(s) && is_good;
		}
		if (now - forgot_ns > FORGET_NS) {
			forget_old(s);
			forgot_ns = now;
		}
		if (now - retried_ns > RETRY_REFUSED_NS) {
			settings_lock(s);
			settings_retry_refused(s->table);
			settings_unlock(s);
			retried_ns = now;
		}
		wait_for_work(s, !is_good);
	}
	return NULL;
}

/* --- start and stop ------------------------------------------------------------------------------------------------------------- */
int fleet_settings_open(struct daemon *d, char *error, size_t error_size)
{
	struct fleet_settings *s;
	pthread_condattr_t attributes;
	struct timespec now;
	char life[SETTINGS_LIFE_SIZE];
	int err;

	if (!config_is_fleet(&d->config))
		return 0;
	s = calloc(1, sizeof(*s));
	if (s)
		s->table = settings_new(d->config.fleet.node);
	if (!s || !s->table) {
		free(s);
		snprintf(error, error_size, "no memory for the settings of the fleet");
		return -ENOMEM;
	}
	s->d = d;
	s->gap_ns = GAP_NS;
	s->file.fd = -1;
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&s->told, &attributes);
	pthread_cond_init(&s->work, &attributes);
	pthread_condattr_destroy(&attributes);
	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(life, sizeof(life), "%llx.%lx", (unsigned long long)now.tv_sec, (unsigned long)now.tv_nsec);
	settings_sync_init(&s->sync, s->table, life);
	d->settings = s;
	err = settings_file_open(s, error, error_size);
	/* What the last life had not told is numbered anew, and is in the file. */
	s->saved_ops = s->table->ops;
	return err;
}

int fleet_settings_start(struct daemon *d)
{
	struct fleet_settings *s = d->settings;
	int err;

	if (!s)
		return 0;
	atomic_store(&s->is_running, true);
	err = pthread_create(&s->thread, NULL, settings_run, s);
	if (err)
		atomic_store(&s->is_running, false);
	return -err;
}

void fleet_settings_stop(struct daemon *d)
{
	struct fleet_settings *s = d->settings;

	if (!s || !atomic_exchange(&s->is_running, false))
		return;
	settings_lock(s);
	pthread_cond_broadcast(&s->work);
	pthread_cond_broadcast(&s->told);
	settings_unlock(s);
	pthread_join(s->thread, NULL);
}

void fleet_settings_free(struct daemon *d)
{
	struct fleet_settings *s = d->settings;

	if (!s)
		return;
	d->settings = NULL;
	if (s->file.fd >= 0)
		settings_file_save(s);
	line_log_close(&s->file);
	while (s->new_sales) {
		struct new_sale *sale = s->new_sales;

		s->new_sales = sale->next;
		free(sale);
	}
	settings_free(s->table);
	pthread_cond_destroy(&s->told);
	pthread_cond_destroy(&s->work);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void fleet_settings_status(struct daemon *d, struct fleet_settings_status *status)
{
	struct fleet_settings *s = d->settings;

	settings_lock(s);
	*status = (struct fleet_settings_status){.settings = s->table->count,
		.removed = s->table->count - s->table->live,
		.place = s->sync.place,
		.behind = s->sync.end > s->sync.place ? s->sync.end - s->sync.place : 0,
		.unsent = s->table->dirty_count,
		.due = s->table->due_count,
		.refused = s->table->refused_count,
		.published = s->sync.published,
		.pulled = s->sync.pulled,
		.losses = s->sync.losses};
	settings_unlock(s);
}
