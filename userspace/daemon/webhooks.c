/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The thread that delivers webhooks. Started by main.c; see webhooks.h and docs/webhooks.md.
 *
 * The ledger is the queue. One reader walks over all events and notes which sales have something to tell (webhooks_table.h); up to WEBHOOK_SLOTS
 * sales at a time are then read, a short page each, and their events posted one after the other. Who fails gives its slot back and waits, and its events
 * with it: so memory does not depend on how much is outstanding, and one sale does not hold up another. How far it has come is written into the
 * ledger about once a second and at the end; after a crash what was delivered since then is delivered again under the same id.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/ledger_events.h"
#include "daemon/pipeline.h"
#include "daemon/webhooks_impl.h"

#define PAGE_LIMIT 16  /* events of a sale in a slot; then others have their turn */
#define SCAN_LIMIT 250 /* events that the reader looks at in one question */
#define DOCUMENT "webhook.cursors"

#define MS 1000000ULL
#define STEP_MS 100
/* The reader: when there was nothing more, when there was, when the table is full, when the writer is away. A pause even when there is more: what the writer
 * and the pipeline do for it they do not do for orders.
 */
#define SCAN_REST_NS (200 * MS)
#define SCAN_BUSY_NS (50 * MS)
#define SCAN_FULL_NS (1000 * MS)
#define AWAY_NS (500 * MS)
/* A page of a sale for which the writer had to look at so many rows, most of them of others: the next one waits for SCAN_BUSY_NS. */
#define ROWS_DEAR 1000
#define SAVE_NS (1000 * MS)
#define SECRET_NS (1000 * MS)

/* --- what is kept in the ledger ------------------------------------------------------------------------------------------------- */
static json_t *ask(struct webhooks *w, json_t *question)
{
	struct pipeline_answer answer;

	return pipeline_ask(w->d->pipeline, question, NULL, NULL, &answer) ? NULL : answer.json;
}

/* The lock is held. */
static char *document_text(struct webhooks *w)
{
	json_t *json = webhook_table_save(&w->table);
	char *text;

	if (atomic_load(&w->is_gone))
		json_object_set_new(json, "gone", json_string(w->fingerprint));
	text = json_dumps(json, JSON_COMPACT);
	json_decref(json);
	return text;
}

/* Returns false if there is something that could not be written. */
static bool save(struct webhooks *w)
{
	char *text = NULL;
	bool is_dirty, is_written;
	json_t *answer;

	pthread_mutex_lock(&w->lock);
	is_dirty = w->is_loaded && w->is_dirty;
	if (is_dirty) {
		text = document_text(w);
		w->is_dirty = !text;
	}
	pthread_mutex_unlock(&w->lock);
	if (!text)
		return !is_dirty; /* no memory: later */
	answer = ask(w, json_pack("{s:s, s:s, s:s}", "op", "document_put", "name", DOCUMENT, "value", text));
	is_written = answer;
	if (!is_written) { /* later; until then it is only that more is sent twice after a crash */
		pthread_mutex_lock(&w->lock);
		w->is_dirty = true;
		pthread_mutex_unlock(&w->lock);
	}
	json_decref(answer);
	free(text);
	return is_written;
}

/* A ledger that never had webhooks: what happens from this daemon's start on is delivered, not what its sales have seen in the years before. */
static int begin(struct webhooks *w)
{
	uint64_t position;
	int err = ledger_events_find_end(w->d, w->since_ns, &position);

	if (err)
		return err;
	w->table.position = position;
	w->is_dirty = true;
	log_info("webhooks: events are posted to %s, from position %llu of the ledger on", w->shown_url,
		(unsigned long long)position);
	return 0;
}

static int read_document(struct webhooks *w, const char *text)
{
	json_t *json = json_loads(text, 0, NULL);
	const char *gone = json_string_value(json_object_get(json, "gone"));
	int err = webhook_table_load(&w->table, json);

	atomic_store(&w->is_gone, gone && !strcmp(gone, w->fingerprint));
	json_decref(json);
	if (err) {
		log_error("webhooks: the ledger's document " DOCUMENT
			  " cannot be read; events are posted from now on, those before are not");
		return begin(w);
	}
	if (atomic_load(&w->is_gone))
		log_warn("webhooks: %s answered 410 (gone) before, so nothing is posted: sluice webhook resume",
			w->shown_url);
	else
		log_info(
			"webhooks: events are posted to %s, from position %llu of the ledger on; %u sale%s some from before",
			w->shown_url, (unsigned long long)w->table.position, w->table.count,
			w->table.count == 1 ? " has" : "s have");
	return 0;
}

/* Nobody sees the table before is_loaded, so the lock is taken for that alone. */
static bool load(struct webhooks *w)
{
	json_t *answer, *value;
	int err = -ENOTCONN;

	if (!atomic_load(&w->d->sales_known))
		return false;
	answer = ask(w, json_pack("{s:s, s:s}", "op", "document_get", "name", DOCUMENT));
	value = json_object_get(answer, "value");
	if (value)
		err = json_is_string(value) ? read_document(w, json_string_value(value)) : begin(w);
	json_decref(answer);
	if (err)
		return false;
	pthread_mutex_lock(&w->lock);
	w->is_loaded = true;
	pthread_mutex_unlock(&w->lock);
	return true;
}

/* --- the reader ------------------------------------------------------------------------------------------------------------------- */
/* Returns false when the table is full: the rest of the page waits. */
static bool note_all(struct webhooks *w, const struct ledger_page *page)
{
	struct ledger_event event;
	bool has_room = true;
	json_t *json;
	size_t i;

	pthread_mutex_lock(&w->lock);
	json_array_foreach(page->events, i, json) {
		if (has_room && !ledger_event_decode(json, &event))
			has_room = webhook_table_note(&w->table, event.sale, event.position, event.at_ns);
	}
	webhook_table_sweep(&w->table, has_room ? page->next : 0);
	w->is_dirty = w->is_dirty || i;
	pthread_mutex_unlock(&w->lock);
	return has_room;
}

static void scan(struct webhooks *w, uint64_t now)
{
	struct ledger_page page;
	bool has_room;

	if (now < w->scan_ns)
		return;
	w->scan_ns = now + AWAY_NS;
	if (ledger_events_read(w->d, 0, w->table.position, SCAN_LIMIT, &page))
		return;
	has_room = note_all(w, &page);
	w->scan_ns = now + (!has_room ? SCAN_FULL_NS : page.more ? SCAN_BUSY_NS : SCAN_REST_NS);
	json_decref(page.events);
}

/* --- a sale at work ------------------------------------------------------------------------------------------------------------------ */
static void release(struct webhook_slot *slot)
{
	json_decref(slot->events);
	slot->events = NULL;
	slot->sale = 0;
}

/* The lock is held. */
static void put_back(struct webhooks *w, struct webhook_slot *slot)
{
	webhook_table_put_back(&w->table, webhook_table_find(&w->table, slot->sale));
	w->is_dirty = true;
	release(slot);
}

/* The event in hand; every one of a page was looked at when it was read. */
static struct ledger_event event_of(const struct webhook_slot *slot)
{
	struct ledger_event event = {0};

	ledger_event_decode(json_array_get(slot->events, slot->at), &event);
	return event;
}

static void give_up(struct webhooks *w, struct webhook_slot *slot, const struct webhook_outcome *outcome)
{
	struct webhook_sale *sale;
	uint32_t random = 0;

	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		random = UINT32_MAX;
	pthread_mutex_lock(&w->lock);
	sale = webhook_table_find(&w->table, slot->sale);
	webhook_table_failed(sale, event_of(slot).position, outcome->failure, outcome->status,
		time_mono_ns() + webhook_backoff_ns(sale->attempts + 1, outcome->retry_after_s, random));
	if (outcome->failure == WEBHOOK_GONE && !atomic_load(&w->is_gone)) {
		atomic_store(&w->is_gone, true);
		log_warn(
			"webhooks: %s answered 410 (gone): nothing is posted until the URL changes, or sluice webhook resume",
			w->shown_url);
	}
	put_back(w, slot);
	pthread_mutex_unlock(&w->lock);
	atomic_fetch_add(&w->failed[outcome->failure], 1);
}

/* Posts the event in hand. Returns 0 or negative errno. */
static int send_event(struct webhooks *w, struct webhook_slot *slot)
{
	struct ledger_event event = event_of(slot);
	char id[LEDGER_EVENT_ID_MAX];
	json_t *message;
	int err;

	ledger_event_id(w->d, &event, id);
	message = ledger_event_message(w->d, &event);
	pthread_mutex_lock(&w->lock);
	webhook_table_find(&w->table, slot->sale)->oldest_ns = event.at_ns;
	err = webhook_post_prepare(&slot->post, &w->secret.keys, id, time_wall_ns() / 1000000000ULL,
		message ? json_dumps(message, JSON_COMPACT) : NULL);
	pthread_mutex_unlock(&w->lock);
	json_decref(message);
	if (!err && curl_multi_add_handle(w->multi, slot->post.easy))
		err = -ENOMEM;
	return err;
}

/* Sends the next of the page, or gives the sale back. */
static void go_on(struct webhooks *w, struct webhook_slot *slot)
{
	static const struct webhook_outcome no_memory = {.failure = WEBHOOK_BROKEN};

	if (slot->at < json_array_size(slot->events) && !atomic_load(&w->is_gone)) {
		if (send_event(w, slot))
			give_up(w, slot, &no_memory);
		return;
	}
	pthread_mutex_lock(&w->lock);
	if (slot->at < json_array_size(slot->events)) /* another sale was told that the receiver is gone */
		webhook_table_drop(webhook_table_find(&w->table, slot->sale));
	put_back(w, slot);
	pthread_mutex_unlock(&w->lock);
}

static void finish(struct webhooks *w, struct webhook_slot *slot, CURLcode code)
{
	struct webhook_outcome outcome;
	struct webhook_sale *sale;

	webhook_post_read(&slot->post, code, &outcome);
	if (outcome.failure) {
		give_up(w, slot, &outcome);
		return;
	}
	atomic_fetch_add(&w->delivered, 1);
	pthread_mutex_lock(&w->lock);
	sale = webhook_table_find(&w->table, slot->sale);
	webhook_table_delivered(sale, event_of(slot).position);
	sale->status = outcome.status;
	w->is_dirty = true;
	pthread_mutex_unlock(&w->lock);
	slot->at++;
	go_on(w, slot);
}

static void finish_all(struct webhooks *w)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(w->multi, &left))) {
		CURLcode code = message->data.result;
		CURL *easy = message->easy_handle; /* the message is gone with the next call */

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_multi_remove_handle(w->multi, easy);
		for (unsigned i = 0; i < WEBHOOK_SLOTS; i++)
			if (w->slots[i].post.easy == easy)
				finish(w, &w->slots[i], code);
	}
}

/* Gives a free slot the next sale whose time has come. False if there is none, or if its events cannot be read now. */
static bool fill_slot(struct webhooks *w, struct webhook_slot *slot, uint64_t now)
{
	struct webhook_sale *sale;
	struct ledger_page page;
	unsigned limit = 0;
	uint64_t cursor = 0;
	int err;

	pthread_mutex_lock(&w->lock);
	sale = atomic_load(&w->is_gone) ? NULL : webhook_table_take(&w->table, now);
	if (sale) {
		slot->sale = sale->id;
		cursor = sale->cursor;
		limit = webhook_table_limit(sale, PAGE_LIMIT);
	}
	pthread_mutex_unlock(&w->lock);
	if (!sale)
		return false;
	err = ledger_events_read(w->d, slot->sale, cursor, limit, &page);
	pthread_mutex_lock(&w->lock);
	sale = webhook_table_find(&w->table, slot->sale);
	if (err) {
		w->away_ns = now + AWAY_NS;
		put_back(w, slot);
	} else {
		slot->events = page.events;
		slot->at = 0;
		if (page.next > cursor + ROWS_DEAR)
			w->away_ns = now + SCAN_BUSY_NS;
		webhook_table_read(&w->table, sale, (unsigned)json_array_size(page.events), page.last, page.next);
	}
	pthread_mutex_unlock(&w->lock);
	if (err)
		return false;
	go_on(w, slot);
	return now >= w->away_ns;
}

static void fill_slots(struct webhooks *w, uint64_t now)
{
	if (now < w->away_ns)
		return;
	for (unsigned i = 0; i < WEBHOOK_SLOTS; i++)
		if (!w->slots[i].sale && !fill_slot(w, &w->slots[i], now))
			return;
}

/* --- the thread ---------------------------------------------------------------------------------------------------------------------- */
static void refresh_secret(struct webhooks *w, uint64_t now)
{
	char error[512] = "";
	int changed;

	if (now < w->secret_ns)
		return;
	w->secret_ns = now + SECRET_NS;
	pthread_mutex_lock(&w->lock);
	changed = webhook_secret_refresh(&w->secret, error, sizeof(error));
	pthread_mutex_unlock(&w->lock);
	if (changed < 0)
		log_error("webhooks: %s; they are signed as before", error);
	else if (changed)
		log_info("webhooks: the secret has changed");
}

static void step(struct webhooks *w)
{
	uint64_t now = time_mono_ns();
	int running;

	refresh_secret(w, now);
	if (!atomic_load(&w->is_gone))
		scan(w, now);
	fill_slots(w, now);
	curl_multi_perform(w->multi, &running);
	finish_all(w);
	if (now >= w->save_ns) {
		w->save_ns = now + SAVE_NS;
		save(w);
	}
}

static void *webhooks_run(void *arg)
{
	struct webhooks *w = arg;

	pthread_setname_np(pthread_self(), "webhooks");
	while (!atomic_load(&w->stop) && !load(w))
		curl_multi_poll(w->multi, NULL, 0, STEP_MS, NULL);
	/* Where it begins must be known before anything goes out: a crash must not make it begin later. */
	while (!save(w) && !atomic_load(&w->stop))
		curl_multi_poll(w->multi, NULL, 0, STEP_MS, NULL);
	while (!atomic_load(&w->stop)) {
		step(w);
		curl_multi_poll(w->multi, NULL, 0, STEP_MS, NULL);
	}
	save(w);
	return NULL;
}

static int open_secret(struct webhooks *w, const struct config *config, char *error, size_t error_size)
{
	char path[PATH_MAX];

	if (*config->daemon.webhook_secret_file)
		snprintf(path, sizeof(path), "%s", config->daemon.webhook_secret_file);
	else
		snprintf(path, sizeof(path), "%s/webhook.secret", config->daemon.state_dir);
	if (webhook_secret_open(&w->secret, path, error, error_size))
		return -EINVAL;
	webhook_sign(&w->secret.keys, "url", 0, config->daemon.webhook_url, strlen(config->daemon.webhook_url),
		w->fingerprint);
	return 0;
}

static int open_curl(struct webhooks *w, const struct config *config, char *error, size_t error_size)
{
	int err = 0;

	if (*config->daemon.webhook_ca_file && faccessat(AT_FDCWD, config->daemon.webhook_ca_file, R_OK, AT_EACCESS)) {
		err = -errno;
		snprintf(error, error_size, "cannot read %s (daemon.webhook_ca_file): %s",
			config->daemon.webhook_ca_file, strerror(-err));
		return err;
	}
	if (webhook_post_show_url(config->daemon.webhook_url, w->shown_url, sizeof(w->shown_url))) {
		snprintf(error, error_size, "daemon.webhook_url is not a URL that can be posted to");
		return -EINVAL;
	}
	w->multi = curl_multi_init();
	if (!w->multi)
		err = -ENOMEM;
	for (unsigned i = 0; !err && i < WEBHOOK_SLOTS; i++)
		err = webhook_post_open(&w->slots[i].post, config);
	if (err) {
		snprintf(error, error_size, "no memory for webhooks");
		return err;
	}
	curl_multi_setopt(w->multi, CURLMOPT_MAXCONNECTS, (long)WEBHOOK_SLOTS);
	return 0;
}

int webhooks_open(struct daemon *d, char *error, size_t error_size)
{
	struct webhooks *w;
	int err;

	if (!*d->config.daemon.webhook_url)
		return 0;
	w = calloc(1, sizeof(*w));
	if (!w || curl_global_init(CURL_GLOBAL_DEFAULT)) {
		free(w);
		snprintf(error, error_size, "no memory for webhooks");
		return -ENOMEM;
	}
	w->d = d;
	w->since_ns = time_wall_ns();
	pthread_mutex_init(&w->lock, NULL);
	d->webhooks = w;
	err = open_secret(w, &d->config, error, error_size);
	return err ? err : open_curl(w, &d->config, error, error_size);
}

int webhooks_start(struct daemon *d)
{
	struct webhooks *w = d->webhooks;
	int err;

	if (!w)
		return 0;
	err = -pthread_create(&w->thread, NULL, webhooks_run, w);
	w->is_started = !err;
	return err;
}

void webhooks_stop(struct daemon *d)
{
	struct webhooks *w = d->webhooks;

	if (!w || !w->is_started || atomic_exchange(&w->stop, true))
		return;
	curl_multi_wakeup(w->multi);
	pthread_join(w->thread, NULL);
}

void webhooks_free(struct daemon *d)
{
	struct webhooks *w = d->webhooks;

	if (!w)
		return;
	for (unsigned i = 0; i < WEBHOOK_SLOTS; i++) {
		if (w->slots[i].sale)
			curl_multi_remove_handle(w->multi, w->slots[i].post.easy);
		webhook_post_close(&w->slots[i].post);
		release(&w->slots[i]);
	}
	curl_multi_cleanup(w->multi);
	curl_global_cleanup();
	explicit_bzero(&w->secret, sizeof(w->secret));
	pthread_mutex_destroy(&w->lock);
	free(w);
	d->webhooks = NULL;
}
