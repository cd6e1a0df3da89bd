/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Deny and allow lists over the control API. A page of a list is a walk over the map by its keys; the cursor is the last key looked at, in hex, so a page
 * may be short, or empty, and still have a next one.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/addr.h"
#include "common/lists.h"
#include "common/timefmt.h"
#include "daemon/control.h"
#include "daemon/http_public.h"
#include "daemon/validate.h"

#define PAGE_MAX 1000
#define PAGE_LOOK 20000 /* keys looked at for one page */
#define TTL_MAX_S 315360000
#define NS_PER_S 1000000000ULL
#define CURSOR_TEXT (2 * sizeof(struct sluice_list_key))

struct entry_body {
	int64_t ttl_seconds;
	char reason[sizeof(((struct sluice_list_entry *)0)->text)];
};

static const struct validate_field entry_fields[] = {
	{.name = "ttl_seconds",
		.kind = VALIDATE_INTEGER,
		.min = 1,
		.max = TTL_MAX_S,
		.offset = offsetof(struct entry_body, ttl_seconds)},
	{.name = "reason",
		.kind = VALIDATE_TEXT,
		.max = sizeof(((struct entry_body *)0)->reason) - 1,
		.offset = offsetof(struct entry_body, reason)},
};

static bool find_list(struct http_request *request, enum sluice_list *list, enum MHD_Result *result)
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

static json_t *entry_json(const struct sluice_list_key *key, const struct sluice_list_entry *entry)
{
	char prefix[ADDR_TEXT_MAX], expires[TIME_TEXT_MAX], reason[sizeof(entry->text) + 1];
	json_t *json = json_pack("{s:s, s:I}", "prefix", prefix_format(&key->addr, key->prefix_len, prefix), "hits",
		(json_int_t)entry->hits);

	snprintf(reason, sizeof(reason), "%.*s", (int)sizeof(entry->text), entry->text);
	json_object_set_new(json, "expires_at",
		entry->expires_wall ? json_string(time_format_rfc3339(entry->expires_wall, expires)) : json_null());
	/* The field is cut at 31 bytes, perhaps in the middle of a character. */
	if (json_object_set_new(json, "reason", json_string(reason)))
		json_object_set_new(json, "reason", json_string(""));
	return json;
}

static void cursor_format(const struct sluice_list_key *key, char *text)
{
	const unsigned char *bytes = (const unsigned char *)key;

	for (size_t i = 0; i < sizeof(*key); i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

static int cursor_parse(const char *text, struct sluice_list_key *key)
{
	unsigned char *bytes = (unsigned char *)key;

	if (strlen(text) != CURSOR_TEXT || strspn(text, "0123456789abcdef") != CURSOR_TEXT)
		return -EINVAL;
	for (size_t i = 0; i < sizeof(*key); i++) {
		char digits[3] = {text[2 * i], text[2 * i + 1], '\0'};

		bytes[i] = (unsigned char)strtoul(digits, NULL, 16);
	}
	return 0;
}

enum MHD_Result control_get_list(struct http_request *request)
{
	int fd = request->d->maps.lists, has_after, has_limit, looked = 0;
	char after[CURSOR_TEXT + 1], limit_text[8] = "1000", *end;
	struct sluice_list_key key, next;
	uint64_t now = time_wall_ns();
	enum sluice_list list;
	enum MHD_Result result;
	json_t *entries, *cursor;
	unsigned long limit;
	bool at_end = false;

	if (!find_list(request, &list, &result))
		return result;
	has_limit = http_argument(request, "limit", limit_text, sizeof(limit_text));
	limit = strtoul(limit_text, &end, 10);
	if (has_limit < 0 || *end || limit < 1 || limit > PAGE_MAX)
		return http_problem_field(
			request, 422, "out_of_range", "limit", "limit must be from 1 to %d.", PAGE_MAX);
	has_after = http_argument(request, "after", after, sizeof(after));
	if (has_after < 0 || (has_after && cursor_parse(after, &key)))
		return http_problem_field(
			request, 422, "out_of_range", "after", "after must be the \"next\" of a page before.");
	entries = json_array();
	while (json_array_size(entries) < limit && looked++ < PAGE_LOOK) {
		struct sluice_list_entry entry;

		at_end = bpf_map_get_next_key(fd, has_after ? &key : NULL, &next) != 0;
		if (at_end)
			break;
		key = next;
		has_after = 1;
		if (key.list == list && !bpf_map_lookup_elem(fd, &key, &entry) &&
			(!entry.expires_wall || entry.expires_wall > now))
			json_array_append_new(entries, entry_json(&key, &entry));
	}
	if (!at_end)
		cursor_format(&key, after);
	cursor = at_end ? json_null() : json_string(after);
	return http_send_json(request, 200, json_pack("{s:o, s:o}", "entries", entries, "next", cursor));
}

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
	struct http_request *request, enum sluice_list list, const struct sluice_addr *addr, unsigned len)
{
	struct sluice_list_key key = {.addr = *addr, .list = (__u8)list, .prefix_len = (__u8)len};
	struct sluice_list_entry entry;

	if (bpf_map_lookup_elem(request->d->maps.lists, &key, &entry))
		return http_problem(request, 404, "no_entry", "The entry is gone already.");
	return http_send_json(request, 200, entry_json(&key, &entry));
}

enum MHD_Result control_put_entry(struct http_request *request)
{
	struct daemon *d = request->d;
	struct entry_body body = {0};
	struct validate_error error;
	enum MHD_Result result;
	enum sluice_list list;
	struct sluice_addr addr;
	uint64_t expires;
	uint32_t present;
	unsigned len;
	json_t *json;
	int err;

	if (!find_list(request, &list, &result) || !read_prefix(request, &addr, &len, &result))
		return result;
	json = http_read_json(request, &result);
	if (!json)
		return result;
	err = validate_object(
		json, entry_fields, sizeof(entry_fields) / sizeof(entry_fields[0]), &body, &present, &error);
	json_decref(json);
	if (err)
		return http_send_invalid(request, &error);
	expires = body.ttl_seconds ? time_wall_ns() + (uint64_t)body.ttl_seconds * NS_PER_S : 0;
	pthread_mutex_lock(&d->lists_lock);
	err = lists_put(d->lists, list, &addr, len, expires, body.reason);
	pthread_mutex_unlock(&d->lists_lock);
	if (err == -E2BIG)
		return http_problem(
			request, 507, "list_full", "The lists hold as many entries as they can (gate.max_prefixes).");
	if (err)
		return http_problem(request, 500, "internal_error", "The entry could not be made: %s.", strerror(-err));
	return send_entry(request, list, &addr, len);
}

enum MHD_Result control_delete_entry(struct http_request *request)
{
	struct daemon *d = request->d;
	enum MHD_Result result;
	enum sluice_list list;
	struct sluice_addr addr;
	unsigned len;
	int err;

	if (!find_list(request, &list, &result) || !read_prefix(request, &addr, &len, &result))
		return result;
	pthread_mutex_lock(&d->lists_lock);
	err = lists_remove(d->lists, list, &addr, len);
	pthread_mutex_unlock(&d->lists_lock);
	if (err == -ENOENT)
		return http_problem(request, 404, "no_entry", "There is no entry for exactly this prefix.");
	if (err)
		return http_problem(
			request, 500, "internal_error", "The entry could not be removed: %s.", strerror(-err));
	return http_send_empty(request, 204);
}
