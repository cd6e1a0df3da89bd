/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Many entries at once: POST /v1/lists/{list} with JSON, or with the lines that common/list_text.c reads and options in the query.
 *
 * One request is checked whole before its first entry goes in: every line must be good, and all must fit. Then entries go in, each in force
 * at once; the gate may see some before the others. A body is at most a megabyte and BULK_MAX prefixes, and one request is worked on at a time, so
 * memory stays bounded; what is longer comes in several requests under one label, and the label takes all of them back.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/addr.h"
#include "common/list_text.h"
#include "common/lists.h"
#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/control.h"
#include "daemon/fleet_settings.h"
#include "daemon/http_public.h"
#include "daemon/kept.h"
#include "daemon/problems.h"
#include "daemon/validate.h"

#define NS_PER_S 1000000000ULL
#define TYPE_MAX 128
/* Of one request: more than a megabyte has lines of one prefix, and 20 MB of ours. A line with a range can be two hundred. */
#define BULK_MAX (1u << 18)

struct options {
	char label[LISTS_TEXT_SIZE];
	int64_t ttl_seconds; /* 0 = for ever */
	bool replace, force, dry_run, sweep;
};

struct bulk {
	enum sluice_list list;
	struct options options;
	uint64_t now;
	struct sluice_list_key *keys;
	struct sluice_list_entry *entries;
	unsigned count, size;
	unsigned expired; /* their time had passed before they came */
};

static pthread_mutex_t bulk_lock = PTHREAD_MUTEX_INITIALIZER;

static void bulk_free(struct bulk *bulk)
{
	free(bulk->keys);
	free(bulk->entries);
}

static int bulk_grow(struct bulk *bulk)
{
	unsigned size = bulk->size ? bulk->size * 2 : 1024;
	struct sluice_list_key *keys = realloc(bulk->keys, size * sizeof(*keys));
	struct sluice_list_entry *entries;

	if (!keys)
		return -ENOMEM;
	bulk->keys = keys;
	entries = realloc(bulk->entries, size * sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	bulk->entries = entries;
	bulk->size = size;
	return 0;
}

/* Takes one prefix. Returns 0, -ERANGE for one that is too wide, -E2BIG for one too many, or -ENOMEM. */
static int bulk_add(void *arg, const struct list_text_entry *from)
{
	struct bulk *bulk = arg;
	uint64_t ttl_s = from->ttl_s ? from->ttl_s : (uint64_t)bulk->options.ttl_seconds;
	uint64_t expires = from->expires_wall;
	int err;

	if (!bulk->options.force && lists_is_wide(&from->addr, from->prefix_len))
		return -ERANGE;
	if (!expires && ttl_s)
		expires = bulk->now + ttl_s * NS_PER_S;
	if (expires && expires <= bulk->now) {
		bulk->expired++;
		return 0;
	}
	if (bulk->count == BULK_MAX)
		return -E2BIG;
	if (bulk->count == bulk->size) {
		err = bulk_grow(bulk);
		if (err)
			return err;
	}
	bulk->keys[bulk->count] = (struct sluice_list_key){
		.addr = from->addr, .list = (__u8)bulk->list, .prefix_len = (__u8)from->prefix_len};
	bulk->entries[bulk->count] = (struct sluice_list_entry){.expires_wall = expires};
	lists_make_text(
		bulk->entries[bulk->count].text, *from->label ? from->label : bulk->options.label, from->reason);
	bulk->count++;
	return 0;
}

static enum MHD_Result send_fault(struct http_request *request, const char *field, int err, const char *detail)
{
	if (err == -ENOMEM)
		return http_problem(request, 500, "internal_error", "No memory. Nothing was changed.");
	if (err == -E2BIG)
		return http_problem_field(request, 413, "body_too_long", field,
			"%s: one request may have %u prefixes, those of its ranges counted one by one; send the rest in another. Nothing was changed.",
			field, BULK_MAX);
	if (err == -ERANGE)
		return http_problem_field(request, 422, "too_wide", field,
			"%s: wider than an IPv4 /%d or an IPv6 /%d; \"force\" takes it. Nothing was changed.", field,
			LISTS_WIDE4, LISTS_WIDE6);
	return http_problem_field(request, 422, "bad_entry", field, "%s: %s. Nothing was changed.", field, detail);
}

/* --- lines ---------------------------------------------------------------------------------------------------------------------- */
static enum MHD_Result send_line_fault(
	struct http_request *request, const struct list_text *text, const char *line, int err, const char *detail)
{
	char field[32], said[384];

	snprintf(field, sizeof(field), "line %llu", (unsigned long long)text->line);
	snprintf(said, sizeof(said), "\"%.80s\": %s", line, detail);
	return send_fault(request, field, err, said);
}

/* False after having answered. */
static bool read_lines(
	struct http_request *request, enum list_format format, struct bulk *bulk, enum MHD_Result *result)
{
	struct list_text text = {.format = format};
	char *at = request->body, *end;

	if (!at) /* a request without a body: no lines */
		return true;
	end = at + request->body_length;
	while (at < end) {
		char *newline = memchr(at, '\n', (size_t)(end - at));
		size_t length = newline ? (size_t)(newline - at) : (size_t)(end - at);
		char before[81], error[256] = "";
		int err;

		snprintf(before, sizeof(before), "%.*s", (int)(length < 80 ? length : 80), at);
		before[strcspn(before, "\r\n")] = '\0';
		err = list_text_line(&text, at, length, bulk_add, bulk, error, sizeof(error));
		if (err) {
			*result = send_line_fault(request, &text, before, err, error);
			return false;
		}
		at += length + 1;
	}
	return true;
}

/* --- JSON ----------------------------------------------------------------------------------------------------------------------- */
struct json_entry {
	char prefix[ADDR_TEXT_MAX];
	int64_t ttl_seconds;
	uint64_t expires_wall;
	char label[LISTS_TEXT_SIZE];
	char reason[LIST_REASON_SIZE];
};

#define IN(type, name) offsetof(struct type, name)
static const struct validate_field entry_fields[] = {
	{.name = "prefix",
		.kind = VALIDATE_TEXT,
		.required = true,
		.min = 1,
		.max = ADDR_TEXT_MAX - 1,
		.offset = IN(json_entry, prefix)},
	{.name = "ttl_seconds",
		.kind = VALIDATE_INTEGER,
		.min = 1,
		.max = LIST_TTL_MAX_S,
		.offset = IN(json_entry, ttl_seconds)},
	{.name = "expires_at", .kind = VALIDATE_TIME, .offset = IN(json_entry, expires_wall)},
	{.name = "label", .kind = VALIDATE_LINE, .max = LISTS_LABEL_MAX, .offset = IN(json_entry, label)},
	{.name = "reason", .kind = VALIDATE_LINE, .max = LIST_REASON_SIZE - 1, .offset = IN(json_entry, reason)},
};
static const struct validate_field option_fields[] = {
	{.name = "label", .kind = VALIDATE_LINE, .max = LISTS_LABEL_MAX, .offset = IN(options, label)},
	{.name = "ttl_seconds",
		.kind = VALIDATE_INTEGER,
		.min = 1,
		.max = LIST_TTL_MAX_S,
		.offset = IN(options, ttl_seconds)},
};
#undef IN
#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static bool read_json_entry(
	struct http_request *request, const json_t *json, size_t index, struct bulk *bulk, enum MHD_Result *result)
{
	struct list_text_entry entry = {0};
	struct json_entry body = {0};
	struct validate_error error;
	uint32_t present;
	char field[96];
	int err;

	snprintf(field, sizeof(field), "entries[%zu]", index);
	if (!json_is_object(json)) {
		*result = http_problem_field(
			request, 400, "wrong_type", field, "%s must be an object with a prefix.", field);
		return false;
	}
	if (validate_object(json, entry_fields, COUNT(entry_fields), &body, &present, &error)) {
		snprintf(field, sizeof(field), "entries[%zu].%s", index, error.field);
		*result = http_problem_field(
			request, error.status, error.code, field, "entries[%zu]: %s", index, error.detail);
		return false;
	}
	err = prefix_parse(body.prefix, &entry.addr, &entry.prefix_len);
	if (err || (body.ttl_seconds && body.expires_wall)) {
		*result = send_fault(request, field, -EINVAL,
			err ? prefix_strerror(err) : "either ttl_seconds or expires_at, not both");
		return false;
	}
	entry.ttl_s = (uint64_t)body.ttl_seconds;
	entry.expires_wall = body.expires_wall;
	entry.label = body.label;
	entry.reason = body.reason;
	err = bulk_add(bulk, &entry);
	if (err)
		*result = send_fault(request, field, err, "");
	return !err;
}

/* Takes a switch out of the document. */
static bool read_switch(struct http_request *request, json_t *json, const char *name, bool *on, enum MHD_Result *result)
{
	const json_t *value = json_object_get(json, name);

	if (value && !json_is_boolean(value)) {
		*result = http_problem_field(request, 400, "wrong_type", name, "%s must be true or false.", name);
		return false;
	}
	*on = json_is_true(value);
	json_object_del(json, name);
	return true;
}

static bool read_document(struct http_request *request, json_t *json, struct bulk *bulk, enum MHD_Result *result)
{
	json_t *list = json_incref(json_object_get(json, "entries")), *entry;
	struct options *options = &bulk->options;
	struct validate_error error;
	bool good = false;
	uint32_t present;
	size_t i;

	json_object_del(json, "entries");
	if (!json_is_array(list)) {
		*result = http_problem_field(request, 400, list ? "wrong_type" : "missing_field", "entries",
			"entries must be a list such as [{\"prefix\":\"192.0.2.0/24\"}].");
		goto out;
	}
	if (!read_switch(request, json, "replace", &options->replace, result) ||
		!read_switch(request, json, "force", &options->force, result) ||
		!read_switch(request, json, "dry_run", &options->dry_run, result) ||
		!read_switch(request, json, "sweep", &options->sweep, result))
		goto out;
	if (validate_object(json, option_fields, COUNT(option_fields), options, &present, &error)) {
		*result = http_send_invalid(request, &error);
		goto out;
	}
	json_array_foreach(list, i, entry) {
		if (!read_json_entry(request, entry, i, bulk, result))
			goto out;
	}
	good = true;
out:
	json_decref(list);
	return good;
}

static bool read_json(struct http_request *request, struct bulk *bulk, enum MHD_Result *result)
{
	json_t *json = http_read_json(request, result);
	bool good = json && read_document(request, json, bulk, result);

	json_decref(json);
	return good;
}

/* --- the query ------------------------------------------------------------------------------------------------------------------ */
static bool query_switch(struct http_request *request, const char *name, bool *on, enum MHD_Result *result)
{
	char text[8];
	int has = http_argument(request, name, text, sizeof(text));

	if (has < 0 || (has && strcmp(text, "true") != 0 && strcmp(text, "false") != 0)) {
		*result = http_problem_field(request, 422, "out_of_range", name, "%s must be true or false.", name);
		return false;
	}
	*on = has && !strcmp(text, "true");
	return true;
}

static bool read_query(struct http_request *request, struct options *options, enum MHD_Result *result)
{
	char ttl[16], *end;
	int has_label = http_argument(request, "label", options->label, sizeof(options->label));
	int has_ttl = http_argument(request, "ttl_seconds", ttl, sizeof(ttl));

	if (has_label < 0 || !list_text_is_clean(options->label)) {
		*result = http_problem_field(request, 422, "out_of_range", "label",
			"label must be UTF-8 of up to %zu bytes without control characters.", LISTS_LABEL_MAX);
		return false;
	}
	if (has_ttl > 0)
		options->ttl_seconds = strtoll(ttl, &end, 10);
	if (has_ttl < 0 || (has_ttl && (*end || options->ttl_seconds < 1 || options->ttl_seconds > LIST_TTL_MAX_S))) {
		*result = http_problem_field(request, 422, "out_of_range", "ttl_seconds",
			"ttl_seconds must be from 1 to %d.", LIST_TTL_MAX_S);
		return false;
	}
	return query_switch(request, "replace", &options->replace, result) &&
		query_switch(request, "force", &options->force, result) &&
		query_switch(request, "dry_run", &options->dry_run, result) &&
		query_switch(request, "sweep", &options->sweep, result);
}

struct argument_check {
	bool any_known; /* false: the options are in the body */
	char unknown[64];
};

static enum MHD_Result check_argument(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
	static const char *const known[] = {"label", "ttl_seconds", "replace", "force", "dry_run", "sweep"};
	struct argument_check *check = arg;

	(void)kind;
	(void)value;
	for (size_t i = 0; check->any_known && i < COUNT(known); i++)
		if (!strcmp(name, known[i]))
			return MHD_YES;
	snprintf(check->unknown, sizeof(check->unknown), "%s", name);
	return MHD_NO;
}

/* A misspelt option would be one that silently does not apply. */
static bool check_arguments(struct http_request *request, bool any_known, enum MHD_Result *result)
{
	struct argument_check check = {.any_known = any_known};

	MHD_get_connection_values(request->connection, MHD_GET_ARGUMENT_KIND, check_argument, &check);
	if (!*check.unknown)
		return true;
	*result = http_problem_field(request, 400, "unknown_field", check.unknown,
		any_known ? "There is no argument \"%s\" here."
			  : "The argument \"%s\" has no place here: with JSON, options stand in the body.",
		check.unknown);
	return false;
}

/* --- putting -------------------------------------------------------------------------------------------------------------------- */
/* How a body is to be read: 0 JSON, else an enum list_format; -1 after having answered. */
static int body_format(struct http_request *request, enum MHD_Result *result)
{
	const char *type = http_header(request, MHD_HTTP_HEADER_CONTENT_TYPE);
	char name[TYPE_MAX];

	snprintf(name, sizeof(name), "%s", type ? type : "application/json");
	name[strcspn(name, "; \t")] = '\0';
	if (!strcasecmp(name, "application/json"))
		return LIST_FORMAT_AUTO;
	if (!strcasecmp(name, "text/plain"))
		return LIST_FORMAT_NETSET;
	if (!strcasecmp(name, "text/csv"))
		return LIST_FORMAT_CSV;
	*result = http_problem(request, 415, "unsupported_type",
		"The body must be application/json, text/plain (a prefix a line) or text/csv.");
	return -1;
}

static enum MHD_Result send_full(struct http_request *request, const struct lists_result *put)
{
	char detail[256], *text;
	json_t *problem;
	enum MHD_Result result;

	snprintf(detail, sizeof(detail),
		"%u entries need room and %u fit (gate.max_prefixes, both lists together). Nothing was changed.",
		put->needed, put->room);
	problem = json_pack("{s:s, s:s, s:i, s:s, s:s, s:I, s:I}", "type", PROBLEM_TYPE_PREFIX "list_full", "title",
		"Insufficient Storage", "status", 507, "code", "list_full", "detail", detail, "needed",
		(json_int_t)put->needed, "room", (json_int_t)put->room);
	text = json_dumps(problem, JSON_COMPACT);
	result = text ? http_send_text(request, 507, "application/problem+json", text, strlen(text)) : MHD_NO;
	json_decref(problem);
	free(text);
	return result;
}

static enum MHD_Result put(struct http_request *request, struct bulk *bulk)
{
	const struct options *options = &bulk->options;
	struct daemon *d = request->d;
	struct lists_result done;
	unsigned flags = (options->replace ? LISTS_OVERWRITE : 0) | (options->dry_run ? LISTS_DRY_RUN : 0) |
		(options->sweep ? LISTS_SWEEP : 0);
	bool is_durable = true;
	uint64_t told = 0;
	int err;

	kept_lists_lock();
	pthread_mutex_lock(&d->lists_lock);
	err = lists_put_many(d->lists, bulk->keys, bulk->entries, bulk->count, bulk->now, flags, &done);
	pthread_mutex_unlock(&d->lists_lock);
	if (!options->dry_run && err != -E2BIG && err != -ENOMEM)
		told = fleet_settings_note_entries(d, bulk->keys, bulk->count);
	if (err && err != -E2BIG && err != -ENOMEM) /* some may be in */
		kept_lists_differ();
	else if (!err && !options->dry_run)
		is_durable = kept_write_entries(d, bulk->keys, bulk->count);
	kept_lists_unlock();
	if (err == -E2BIG && !options->dry_run)
		return send_full(request, &done);
	if (err == -ENOMEM)
		return http_problem(request, 500, "internal_error", "No memory. Nothing was changed.");
	if (err && err != -E2BIG)
		return http_problem(request, 500, "internal_error",
			"The entries could not be written: %s. Some of them may be in force.", strerror(-err));
	if (!options->dry_run)
		log_info("%s list: %u entries added, %u refreshed, %u replaced, %u kept", request->captures[0],
			done.added, done.refreshed, done.replaced, done.kept);
	return http_send_json(request, 200,
		fleet_settings_mark(
			kept_note(
				json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "entries",
					(json_int_t)bulk->count + bulk->expired, "added", (json_int_t)done.added,
					"refreshed", (json_int_t)done.refreshed, "replaced", (json_int_t)done.replaced,
					"kept", (json_int_t)done.kept, "duplicates", (json_int_t)done.duplicates,
					"expired", (json_int_t)bulk->expired, "needed", (json_int_t)done.needed, "room",
					(json_int_t)done.room, "dry_run", options->dry_run),
				is_durable),
			fleet_settings_await(d, told)));
}

enum MHD_Result control_post_list(struct http_request *request)
{
	struct bulk bulk = {.now = time_wall_ns()};
	enum MHD_Result result;
	bool good;
	int format;

	if (!control_find_list(request, &bulk.list, &result))
		return result;
	format = body_format(request, &result);
	if (format < 0 || !check_arguments(request, format != LIST_FORMAT_AUTO, &result))
		return result;
	pthread_mutex_lock(&bulk_lock);
	if (format == LIST_FORMAT_AUTO)
		good = read_json(request, &bulk, &result);
	else
		good = read_query(request, &bulk.options, &result) && read_lines(request, format, &bulk, &result);
	if (good)
		result = put(request, &bulk);
	bulk_free(&bulk);
	pthread_mutex_unlock(&bulk_lock);
	return result;
}
