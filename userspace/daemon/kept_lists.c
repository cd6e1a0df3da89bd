/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Deny and allow lists in the ledger, see kept.h. Called by the routes of the lists, by kept.c's thread and by recovery.
 *
 * There is one way of writing: for some keys, make the ledger say what the gate says at this moment, with kept_lists_lock held. So it does not matter
 * why a key was looked at, or how long ago: what is written is never older than the gate.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/addr.h"
#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/kept.h"

/* Entries of one question: what an order may have to wait for at the writer is one of them. */
#define PAGE 1000
/* Between two pages of a comparison: it is not urgent, and the writer has orders to store. */
#define REST_NS 5000000L

static struct {
	pthread_mutex_t lock, loading;
	atomic_bool differ;
	int64_t place; /* recovery reads on from here, also after a break: what was removed by hand since then does not come back */
} state = {.lock = PTHREAD_MUTEX_INITIALIZER, .loading = PTHREAD_MUTEX_INITIALIZER, .differ = true};

struct keys {
	struct sluice_list_key *key;
	size_t count, room;
	bool failed; /* no memory */
};

static void keys_add(struct keys *keys, const struct sluice_list_key *key)
{
	if (keys->count == keys->room) {
		size_t room = keys->room ? keys->room * 2 : PAGE;
		struct sluice_list_key *grown = realloc(keys->key, room * sizeof(*grown));

		keys->failed |= !grown;
		if (!grown)
			return;
		keys->key = grown;
		keys->room = room;
	}
	keys->key[keys->count++] = *key;
}

void kept_lists_lock(void)
{
	pthread_mutex_lock(&state.lock);
}

void kept_lists_unlock(void)
{
	pthread_mutex_unlock(&state.lock);
}

void kept_load_lock(void)
{
	pthread_mutex_lock(&state.loading);
}

void kept_load_unlock(void)
{
	pthread_mutex_unlock(&state.loading);
}

void kept_lists_differ(void)
{
	atomic_store(&state.differ, true);
}

/* --- the gate's entries as the ledger has them ---------------------------------------------------------------------------------- */
static const char *list_word(unsigned list)
{
	return list == SLUICE_LIST_DENY ? "deny" : "allow";
}

static json_t *place_json(const struct sluice_list_key *key)
{
	char prefix[ADDR_TEXT_MAX];

	return json_pack("{s:s, s:s}", "list", list_word(key->list), "prefix",
		prefix_format(&key->addr, key->prefix_len, prefix));
}

/* Bytes of the map that are not UTF-8 become "". A reason is kept only where the entry has one of its own. */
static json_t *entry_json(const struct sluice_list_key *key, const struct sluice_list_entry *entry)
{
	char label[LISTS_TEXT_SIZE], reason[LISTS_TEXT_SIZE];
	json_t *json = place_json(key), *label_json, *reason_json;

	lists_read_text(entry, label, reason);
	label_json = json_string(label);
	reason_json = strcmp(label, reason) ? json_string(reason) : NULL;
	json_object_set_new(json, "label", label_json ? label_json : json_string(""));
	json_object_set_new(json, "reason", reason_json ? reason_json : json_string(""));
	json_object_set_new(json, "expires_ns", json_integer((json_int_t)entry->expires_wall));
	return json;
}

static bool has_expired(const struct sluice_list_entry *entry, uint64_t now)
{
	return entry->expires_wall && entry->expires_wall <= now;
}

static bool gate_has(const struct daemon *d, const struct sluice_list_key *key, struct sluice_list_entry *entry)
{
	return !bpf_map_lookup_elem(d->maps.lists, key, entry) && !has_expired(entry, time_wall_ns());
}

/* Returns 0, or -EINVAL: nothing that a gate could match. */
static int read_key(const json_t *json, struct sluice_list_key *key)
{
	const char *list = json_string_value(json_object_get(json, "list"));
	const char *prefix = json_string_value(json_object_get(json, "prefix"));
	unsigned len;

	memset(key, 0, sizeof(*key));
	if (!list || !prefix || (strcmp(list, "deny") != 0 && strcmp(list, "allow") != 0) ||
		prefix_parse(prefix, &key->addr, &len))
		return -EINVAL;
	key->list = !strcmp(list, "deny") ? SLUICE_LIST_DENY : SLUICE_LIST_ALLOW;
	key->prefix_len = (__u8)len;
	return 0;
}

static int read_entry(const json_t *json, struct sluice_list_key *key, struct sluice_list_entry *entry)
{
	const char *label = json_string_value(json_object_get(json, "label"));
	const char *reason = json_string_value(json_object_get(json, "reason"));
	const json_t *expires = json_object_get(json, "expires_ns");

	if (read_key(json, key) || !label || !reason || !json_is_integer(expires) || json_integer_value(expires) < 0)
		return -EINVAL;
	*entry = (struct sluice_list_entry){.expires_wall = (uint64_t)json_integer_value(expires)};
	lists_make_text(entry->text, label, reason);
	return 0;
}

/* --- writing -------------------------------------------------------------------------------------------------------------------- */
static bool is_done(json_t *answer)
{
	bool is_there = answer;

	json_decref(answer);
	return is_there;
}

static bool ask_entries(struct daemon *d, const char *op, json_t *entries)
{
	if (json_array_size(entries))
		return is_done(kept_ask(d, json_pack("{s:s, s:o}", "op", op, "entries", entries)));
	json_decref(entries);
	return true;
}

/* What the gate has of some keys, and what it has not. */
struct page {
	json_t *put, *gone;
};

static struct page read_page(struct daemon *d, const struct sluice_list_key *keys, unsigned count)
{
	struct page page = {.put = json_array(), .gone = json_array()};

	for (unsigned i = 0; i < count && i < PAGE; i++) {
		struct sluice_list_entry entry;

		if (gate_has(d, &keys[i], &entry))
			json_array_append_new(page.put, entry_json(&keys[i], &entry));
		else
			json_array_append_new(page.gone, place_json(&keys[i]));
	}
	return page;
}

static struct question *start_put(struct daemon *d, json_t *entries)
{
	return kept_ask_start(d, json_pack("{s:s, s:O}", "op", "list_put", "entries", entries));
}

/* One page is at the writer while the next is read from the gate. Not more: what an order may have to wait for there is one. */
bool kept_write_entries(struct daemon *d, const struct sluice_list_key *keys, unsigned count)
{
	struct page page = read_page(d, keys, count), next;
	bool is_written = true;

	for (unsigned at = 0; at < count && is_written; at += PAGE) {
		bool has_put = json_array_size(page.put);
		struct question *put = has_put ? start_put(d, page.put) : NULL;

		next = at + PAGE < count ? read_page(d, keys + at + PAGE, count - at - PAGE) : (struct page){0};
		is_written = !has_put || is_done(kept_ask_wait(d, put));
		/* Not the second after the first has failed: the writer is away, or stands still. */
		if (is_written)
			is_written = ask_entries(d, "list_remove", json_incref(page.gone));
		json_decref(page.put);
		json_decref(page.gone);
		page = next;
	}
	json_decref(page.put);
	json_decref(page.gone);
	if (!is_written)
		kept_lists_differ();
	return is_written;
}

bool kept_clear_label(struct daemon *d, enum sluice_list list, const char *label)
{
	bool more = true;

	while (more) {
		json_t *answer = kept_ask(
			d, json_pack("{s:s, s:s, s:s}", "op", "list_clear", "list", list_word(list), "label", label));

		if (!answer) {
			kept_lists_differ();
			return false;
		}
		more = json_is_true(json_object_get(answer, "more"));
		json_decref(answer);
	}
	return true;
}

/* --- comparing ------------------------------------------------------------------------------------------------------------------ */
struct comparison {
	struct daemon *d;
	bool is_loaded;   /* the gate has had all that the ledger has; else what it has not may still come */
	struct keys same; /* of the ledger, and in the gate like that */
	struct keys different;
	size_t written;
};

static void rest(void)
{
	nanosleep(&(struct timespec){.tv_nsec = REST_NS}, NULL);
}

/* The lock is held for a page: who puts an entry does not wait for all of them. */
static bool write_different(struct comparison *c)
{
	struct keys *keys = &c->different;
	bool is_written = !keys->failed && !c->same.failed;

	for (size_t at = 0; at < keys->count && is_written; at += PAGE) {
		size_t count = keys->count - at < PAGE ? keys->count - at : PAGE;

		kept_lists_lock();
		is_written = !atomic_load(&c->d->stopping) && kept_write_entries(c->d, keys->key + at, (unsigned)count);
		kept_lists_unlock();
		c->written += count;
		rest();
	}
	keys->count = 0;
	return is_written;
}

static bool compare_entry(struct comparison *c, const json_t *json)
{
	struct sluice_list_entry kept, entry;
	struct sluice_list_key key;
	bool is_there;

	/* It can have no effect; and it is not in the words in which we would find it again. */
	if (read_entry(json, &key, &kept)) {
		json_t *gone = json_array();

		json_array_append_new(gone,
			json_pack("{s:O, s:O}", "list", json_object_get(json, "list"), "prefix",
				json_object_get(json, "prefix")));
		return ask_entries(c->d, "list_remove", gone);
	}
	is_there = gate_has(c->d, &key, &entry);
	if (is_there && entry.expires_wall == kept.expires_wall && !memcmp(entry.text, kept.text, sizeof(kept.text)))
		keys_add(&c->same, &key);
	else if (is_there || c->is_loaded || has_expired(&kept, time_wall_ns()))
		keys_add(&c->different, &key);
	return true;
}

static bool compare_page(struct comparison *c, int64_t *place)
{
	json_t *answer = kept_ask(
		c->d, json_pack("{s:s, s:I, s:i}", "op", "list_page", "after", (json_int_t)*place, "limit", PAGE));
	const json_t *next = json_object_get(answer, "next");
	bool is_good = answer;
	json_t *json;
	size_t i;

	json_array_foreach(json_object_get(answer, "entries"), i, json)
		is_good = is_good && compare_entry(c, json);
	*place = json_integer_value(next);
	json_decref(answer);
	return is_good && write_different(c);
}

static int compare_keys(const void *left, const void *right)
{
	return memcmp(left, right, sizeof(struct sluice_list_key));
}

/* An entry of the gate that the ledger has not, or not like that. */
static int find_unkept(const struct sluice_list_key *key, const struct sluice_list_entry *entry, void *arg)
{
	struct comparison *c = arg;

	if (!has_expired(entry, time_wall_ns()) &&
		(!c->same.count || !bsearch(key, c->same.key, c->same.count, sizeof(*key), compare_keys)))
		keys_add(&c->different, key);
	return c->different.failed;
}

static bool compare(struct comparison *c)
{
	int64_t place = 0;

	do {
		if (atomic_load(&c->d->stopping) || !compare_page(c, &place))
			return false;
		rest();
	} while (place);
	if (c->same.count)
		qsort(c->same.key, c->same.count, sizeof(*c->same.key), compare_keys);
	return !lists_each(c->d->lists, SLUICE_LIST_DENY, find_unkept, c) &&
		!lists_each(c->d->lists, SLUICE_LIST_ALLOW, find_unkept, c) && write_different(c);
}

void kept_lists_settle(struct daemon *d)
{
	uint64_t marks = __atomic_load_n(&d->maps.control->kept, __ATOMIC_ACQUIRE);
	struct comparison c = {.d = d, .is_loaded = marks & SLUICE_KEPT_LISTS};

	if (!atomic_exchange(&state.differ, false))
		return;
	if (!compare(&c))
		kept_lists_differ(); /* again */
	else if (c.written)
		log_info("lists: %zu entries of the ledger were not as in the gate, and are now", c.written);
	free(c.same.key);
	free(c.different.key);
}

/* --- loading -------------------------------------------------------------------------------------------------------------------- */
int64_t kept_lists_place(void)
{
	return state.place;
}

int kept_lists_take(struct daemon *d, const json_t *list, int64_t next)
{
	size_t size = json_array_size(list), i;
	struct sluice_list_key *keys = calloc(size + 1, sizeof(*keys));
	struct sluice_list_entry *entries = calloc(size + 1, sizeof(*entries)), present;
	uint64_t now = time_wall_ns();
	struct lists_result result;
	unsigned count = 0;
	json_t *json;
	int err = keys && entries ? 0 : -ENOMEM;

	kept_lists_lock();
	json_array_foreach(list, i, json) {
		if (err)
			break;
		if (read_entry(json, &keys[count], &entries[count]))
			log_error("an entry of the ledger's lists is passed over: it is none that a gate could match");
		else if (!has_expired(&entries[count], now) && !gate_has(d, &keys[count], &present))
			count++;
	}
	if (!err) {
		pthread_mutex_lock(&d->lists_lock);
		err = lists_put_many(d->lists, keys, entries, count, now, 0, &result);
		pthread_mutex_unlock(&d->lists_lock);
	}
	if (!err)
		state.place = next;
	kept_lists_unlock();
	free(keys);
	free(entries);
	return err;
}
