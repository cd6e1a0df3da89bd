/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Deny and allow lists over the control API: pages, single entries, what a label has put. (Many entries at once: control_lists_bulk.c.)
 * Pages and counts by label read the gate's map without the lock, so they hold up no change; a page may be short, or empty, and still
 * have a next one.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/addr.h"
#include "common/lists.h"
#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/control.h"
#include "daemon/fleet_settings.h"
#include "daemon/http_public.h"
#include "daemon/kept.h"
#include "daemon/validate.h"

#define PAGE_MAX 1000
#define PAGE_LOOK 20000 /* entries looked at for one page */
#define TTL_MAX_S 315360000
#define NS_PER_S 1000000000ULL
#define CURSOR_TEXT 16 /* two words in hex */
#define LABELS_MAX 1000
#define LABEL_SLOTS 4096 /* a power of two, well above LABELS_MAX */

struct entry_body {
	int64_t ttl_seconds;
	char reason[LISTS_TEXT_SIZE];
	char label[LISTS_TEXT_SIZE];
};

static const struct validate_field entry_fields[] = {
	{.name = "ttl_seconds",
		.kind = VALIDATE_INTEGER,
		.min = 1,
		.max = TTL_MAX_S,
		.offset = offsetof(struct entry_body, ttl_seconds)},
	{.name = "reason",
		.kind = VALIDATE_LINE,
		.max = LISTS_LABEL_MAX,
		.offset = offsetof(struct entry_body, reason)},
	{.name = "label", .kind = VALIDATE_LINE, .max = LISTS_LABEL_MAX, .offset = offsetof(struct entry_body, label)},
};

bool control_find_list(struct http_request *request, enum sluice_list *list, enum MHD_Result *result)
{
	if (!strcmp(request->captures[0], "deny")) {
		*list = SLUICE_LIST_DENY;
		return true;
	}
	if (!strcmp(request->captures[0], "allow")) {
		*list = SLUICE_LIST_ALLOW;
		return true;
	}
	*result = http_problem(request, 404, "not_found", "The lists are deny and allow.");
	return false;
}

/* A text of the map is not always ours to trust: bytes that are not UTF-8 become "". */
static json_t *text_json(const char *text)
{
	json_t *json = json_string(text);

	return json ? json : json_string("");
}

static json_t *entry_json(const struct sluice_list_key *key, const struct sluice_list_entry *entry)
{
	char prefix[ADDR_TEXT_MAX], expires[TIME_TEXT_MAX], label[LISTS_TEXT_SIZE], reason[LISTS_TEXT_SIZE];

	lists_read_text(entry, label, reason);
	return json_pack("{s:s, s:I, s:o, s:o, s:o}", "prefix", prefix_format(&key->addr, key->prefix_len, prefix),
		"hits", (json_int_t)entry->hits, "expires_at",
		entry->expires_wall ? json_string(time_format_rfc3339(entry->expires_wall, expires)) : json_null(),
		"label", text_json(label), "reason", text_json(reason));
}

/* --- pages ---------------------------------------------------------------------------------------------------------------------- */
static int cursor_parse(const char *text, struct lists_cursor *cursor)
{
	char word[9] = "";

	if (strlen(text) != CURSOR_TEXT || strspn(text, "0123456789abcdef") != CURSOR_TEXT)
		return -EINVAL;
	memcpy(word, text, 8);
	cursor->bucket = (__u32)strtoul(word, NULL, 16);
	cursor->skip = (__u32)strtoul(text + 8, NULL, 16);
	cursor->started = true;
	/* So that no text from outside can make us reserve much: no bucket of ours holds nearly as many. */
	return cursor->skip > PAGE_LOOK ? -EINVAL : 0;
}

struct page {
	json_t *entries;
	uint64_t now;
	const char *label; /* NULL = any */
};

static int take_entry(const struct sluice_list_key *key, const struct sluice_list_entry *entry, void *arg)
{
	struct page *page = arg;

	if ((entry->expires_wall && entry->expires_wall <= page->now) ||
		(page->label && !lists_has_label(entry, page->label)))
		return 0;
	return !json_array_append_new(page->entries, entry_json(key, entry));
}

static unsigned read_total(struct daemon *d, enum sluice_list list, unsigned *room)
{
	unsigned total;

	pthread_mutex_lock(&d->lists_lock);
	total = lists_count(d->lists, list);
	*room = lists_room(d->lists);
	pthread_mutex_unlock(&d->lists_lock);
	return total;
}

enum MHD_Result control_get_list(struct http_request *request)
{
	char after[CURSOR_TEXT + 1], limit_text[8] = "1000", label[LISTS_TEXT_SIZE], *end;
	struct page page = {.now = time_wall_ns()};
	struct lists_cursor cursor = {0};
	int has_after, has_limit, has_label, taken;
	enum sluice_list list;
	enum MHD_Result result;
	unsigned long limit;
	unsigned total, room;
	bool at_end;

	if (!control_find_list(request, &list, &result))
		return result;
	has_limit = http_argument(request, "limit", limit_text, sizeof(limit_text));
	limit = strtoul(limit_text, &end, 10);
	if (has_limit < 0 || *end || limit < 1 || limit > PAGE_MAX)
		return http_problem_field(
			request, 422, "out_of_range", "limit", "limit must be from 1 to %d.", PAGE_MAX);
	has_label = http_argument(request, "label", label, sizeof(label));
	if (has_label < 0)
		return http_problem_field(
			request, 422, "out_of_range", "label", "label must have up to %zu bytes.", LISTS_LABEL_MAX);
	page.label = has_label ? label : NULL;
	has_after = http_argument(request, "after", after, sizeof(after));
	if (has_after < 0 || (has_after && cursor_parse(after, &cursor)))
		return http_problem_field(
			request, 422, "out_of_range", "after", "after must be the \"next\" of a page before.");
	page.entries = json_array();
	taken = lists_page(
		request->d->maps.lists, list, &cursor, (unsigned)limit, PAGE_LOOK, take_entry, &page, &at_end);
	if (taken < 0) {
		json_decref(page.entries);
		return http_problem(request, 500, "internal_error", "The list cannot be read: %s.", strerror(-taken));
	}
	snprintf(after, sizeof(after), "%08x%08x", cursor.bucket, cursor.skip);
	total = read_total(request->d, list, &room);
	return http_send_json(request, 200,
		json_pack("{s:o, s:o, s:I, s:I}", "entries", page.entries, "next",
			at_end ? json_null() : json_string(after), "total", (json_int_t)total, "room",
			(json_int_t)room));
}

/* --- labels --------------------------------------------------------------------------------------------------------------------- */
struct label_count {
	char label[LISTS_TEXT_SIZE];
	uint64_t entries, hits;
	uint64_t last_expiry; /* UINT64_MAX = one of them never expires */
};

struct label_counts {
	uint64_t now;
	unsigned labels;
	uint64_t others;
	struct label_count slot[LABEL_SLOTS];
};

static int count_label(const struct sluice_list_key *key, const struct sluice_list_entry *entry, void *arg)
{
	struct label_counts *counts = arg;
	char label[LISTS_TEXT_SIZE], reason[LISTS_TEXT_SIZE];
	uint64_t expiry = entry->expires_wall ? entry->expires_wall : UINT64_MAX;
	uint32_t at = 2166136261u; /* FNV-1a */
	struct label_count *count;

	(void)key;
	if (expiry <= counts->now)
		return 0;
	lists_read_text(entry, label, reason);
	for (const char *c = label; *c; c++)
		at = (at ^ (unsigned char)*c) * 16777619u;
	for (at &= LABEL_SLOTS - 1; counts->slot[at].entries; at = (at + 1) & (LABEL_SLOTS - 1))
		if (!strcmp(counts->slot[at].label, label))
			break;
	count = &counts->slot[at];
	if (!count->entries) {
		if (counts->labels == LABELS_MAX) {
			counts->others++;
			return 0;
		}
		counts->labels++;
		memcpy(count->label, label, sizeof(label));
	}
	count->entries++;
	count->hits += entry->hits;
	if (expiry > count->last_expiry)
		count->last_expiry = expiry;
	return 0;
}

static int compare_counts(const void *left, const void *right)
{
	const struct label_count *a = left, *b = right;

	if (a->entries != b->entries)
		return a->entries < b->entries ? 1 : -1;
	return strcmp(a->label, b->label);
}

enum MHD_Result control_get_labels(struct http_request *request)
{
	struct label_counts *counts;
	enum sluice_list list;
	enum MHD_Result result;
	json_t *labels;
	uint64_t others;
	int err;

	if (!control_find_list(request, &list, &result))
		return result;
	counts = calloc(1, sizeof(*counts));
	if (!counts)
		return http_problem(request, 500, "internal_error", "No memory.");
	counts->now = time_wall_ns();
	err = lists_each(request->d->lists, list, count_label, counts);
	if (err) {
		free(counts);
		return http_problem(request, 500, "internal_error", "The list cannot be read: %s.", strerror(-err));
	}
	qsort(counts->slot, LABEL_SLOTS, sizeof(counts->slot[0]), compare_counts);
	labels = json_array();
	for (unsigned i = 0; i < counts->labels; i++) {
		const struct label_count *count = &counts->slot[i];
		char expires[TIME_TEXT_MAX];

		json_array_append_new(labels,
			json_pack("{s:o, s:I, s:I, s:o}", "label", text_json(count->label), "entries",
				(json_int_t)count->entries, "hits", (json_int_t)count->hits, "last_expires_at",
				count->last_expiry == UINT64_MAX
					? json_null()
					: json_string(time_format_rfc3339(count->last_expiry, expires))));
	}
	others = counts->others;
	free(counts);
	return http_send_json(request, 200, json_pack("{s:o, s:I}", "labels", labels, "others", (json_int_t)others));
}

/* The keys of all entries of a label: the other nodes of a fleet are told of each. */
struct label_keys {
	const char *label;
	struct sluice_list_key *keys;
	unsigned count, room;
};

static int add_labelled(const struct sluice_list_key *key, const struct sluice_list_entry *entry, void *arg)
{
	struct label_keys *found = arg;

	if (!lists_has_label(entry, found->label))
		return 0;
	if (found->count == found->room) {
		unsigned room = found->room ? found->room * 2 : 1024;
		struct sluice_list_key *keys = realloc(found->keys, room * sizeof(*keys));

		if (!keys)
			return -ENOMEM;
		found->keys = keys;
		found->room = room;
	}
	found->keys[found->count++] = *key;
	return 0;
}

/* Returns how many, or negative errno. */
static int remove_label(struct daemon *d, enum sluice_list list, const char *label, uint64_t *told)
{
	struct label_keys found = {.label = label};
	int removed = d->settings ? lists_each(d->lists, list, add_labelled, &found) : 0;

	if (!removed) {
		pthread_mutex_lock(&d->lists_lock);
		removed = lists_remove_label(d->lists, list, label);
		pthread_mutex_unlock(&d->lists_lock);
		if (found.count)
			*told = fleet_settings_note_entries(d, found.keys, found.count);
	}
	free(found.keys);
	return removed;
}

enum MHD_Result control_delete_label(struct http_request *request)
{
	struct daemon *d = request->d;
	uint64_t told = 0;
	char label[LISTS_TEXT_SIZE];
	enum sluice_list list;
	enum MHD_Result result;
	bool is_durable;
	int found, removed;

	if (!control_find_list(request, &list, &result))
		return result;
	found = http_argument(request, "label", label, sizeof(label));
	if (!found)
		return http_problem_field(request, 400, "missing_field", "label",
			"label is missing: what is removed from a list is one entry, or all of one label.");
	if (found < 0 || !*label)
		return http_problem_field(
			request, 422, "out_of_range", "label", "label must have from 1 to %zu bytes.", LISTS_LABEL_MAX);
	kept_load_lock();
	kept_lists_lock();
	removed = remove_label(d, list, label, &told);
	if (removed < 0)
		kept_lists_differ();
	is_durable = removed <= 0 || kept_clear_label(d, list, label);
	kept_lists_unlock();
	kept_load_unlock();
	if (removed < 0)
		return http_problem(
			request, 500, "internal_error", "Not all entries could be removed: %s.", strerror(-removed));
	if (!removed)
		return http_problem(
			request, 404, "no_entry", "No entry of the %s list has this label.", request->captures[0]);
	log_info("%s list: %d entries of a label removed", request->captures[0], removed);
	return http_send_json(request, 200,
		fleet_settings_mark(
			kept_note(json_pack("{s:i}", "removed", removed), is_durable), fleet_settings_await(d, told)));
}

/* --- single entries ------------------------------------------------------------------------------------------------------------- */
static bool read_prefix(struct http_request *request, struct sluice_addr *addr, unsigned *len, enum MHD_Result *result)
{
	int err = prefix_parse(request->captures[1], addr, len);

	if (!err)
		return true;
	*result = http_problem_field(
		request, 422, "out_of_range", "prefix", "%.64s: %s", request->captures[1], prefix_strerror(err));
	return false;
}

static enum MHD_Result send_entry(
	struct http_request *request, const struct sluice_list_key *key, bool is_durable, bool is_replicated)
{
	struct sluice_list_entry entry;

	if (bpf_map_lookup_elem(request->d->maps.lists, key, &entry))
		return http_problem(request, 404, "no_entry", "The entry is gone already.");
	return http_send_json(
		request, 200, fleet_settings_mark(kept_note(entry_json(key, &entry), is_durable), is_replicated));
}

enum MHD_Result control_put_entry(struct http_request *request)
{
	struct daemon *d = request->d;
	struct entry_body body = {0};
	struct validate_error error;
	enum MHD_Result result;
	enum sluice_list list;
	struct sluice_list_entry entry = {0};
	struct sluice_list_key key;
	struct lists_result put;
	struct sluice_addr addr;
	uint64_t now = time_wall_ns(), told = 0;
	uint32_t present;
	bool is_durable;
	unsigned len;
	json_t *json;
	int err;

	if (!control_find_list(request, &list, &result) || !read_prefix(request, &addr, &len, &result))
		return result;
	json = http_read_json(request, &result);
	if (!json)
		return result;
	err = validate_object(
		json, entry_fields, sizeof(entry_fields) / sizeof(entry_fields[0]), &body, &present, &error);
	json_decref(json);
	if (err)
		return http_send_invalid(request, &error);
	key = (struct sluice_list_key){.addr = addr, .list = (__u8)list, .prefix_len = (__u8)len};
	entry.expires_wall = body.ttl_seconds ? now + (uint64_t)body.ttl_seconds * NS_PER_S : 0;
	lists_make_text(entry.text, body.label, body.reason);
	kept_lists_lock();
	pthread_mutex_lock(&d->lists_lock);
	err = lists_put_many(d->lists, &key, &entry, 1, now, LISTS_OVERWRITE, &put);
	pthread_mutex_unlock(&d->lists_lock);
	if (!err)
		told = fleet_settings_note_entries(d, &key, 1);
	is_durable = err || kept_write_entries(d, &key, 1);
	kept_lists_unlock();
	if (err == -E2BIG)
		return http_problem(
			request, 507, "list_full", "The lists hold as many entries as they can (gate.max_prefixes).");
	if (err)
		return http_problem(request, 500, "internal_error", "The entry could not be made: %s.", strerror(-err));
	return send_entry(request, &key, is_durable, fleet_settings_await(d, told));
}

enum MHD_Result control_delete_entry(struct http_request *request)
{
	struct daemon *d = request->d;
	enum MHD_Result result;
	enum sluice_list list;
	struct sluice_list_key key = {0};
	bool is_durable, is_replicated;
	uint64_t told = 0;
	unsigned len;
	int err;

	if (!control_find_list(request, &list, &result) || !read_prefix(request, &key.addr, &len, &result))
		return result;
	key.list = (__u8)list;
	key.prefix_len = (__u8)len;
	kept_lists_lock();
	pthread_mutex_lock(&d->lists_lock);
	err = lists_remove(d->lists, list, &key.addr, len);
	pthread_mutex_unlock(&d->lists_lock);
	if (!err)
		told = fleet_settings_note_entries(d, &key, 1);
	is_durable = err || kept_write_entries(d, &key, 1);
	kept_lists_unlock();
	if (err == -ENOENT)
		return http_problem(request, 404, "no_entry", "There is no entry for exactly this prefix.");
	if (err)
		return http_problem(
			request, 500, "internal_error", "The entry could not be removed: %s.", strerror(-err));
	is_replicated = fleet_settings_await(d, told);
	if (!is_durable || !is_replicated)
		return http_send_json(
			request, 200, fleet_settings_mark(kept_note(json_object(), is_durable), is_replicated));
	return http_send_empty(request, 204);
}
