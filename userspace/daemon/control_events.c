/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* GET /v1/events: verdicts as they fall, as server-sent events (WHATWG HTML, section 9.2). The filter is read here; what of it the gate can
 * apply, watch.c has it apply.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/addr.h"
#include "common/timefmt.h"
#include "daemon/control.h"
#include "daemon/http_stream.h"
#include "daemon/sales.h"
#include "daemon/watch.h"

#define HEARTBEAT_MS 1000
#define LIMIT_MAX 1000000000ULL
#define REASONS_TEXT 1024
#define RETRY_WATCHERS_S 5

/* Every packet of a connection that the kernel has, and what is not protected: shown only to who names them. */
#define REASONS_ON_DEMAND \
	(1ULL << SLUICE_REASON_SOCKET | 1ULL << SLUICE_REASON_FOLLOWS | 1ULL << SLUICE_REASON_UNPROTECTED)

struct event_stream {
	struct http_stream stream; /* first */
	struct daemon *d;
	struct watcher *watcher;
	uint64_t left; /* verdicts */
	bool is_held;  /* a verdict waits behind the word of those that were lost */
	struct watched held;
	bool has_greeted;
};

json_t *control_verdict_json(struct daemon *d, const struct watched *watched)
{
	static const char *const verdicts[] = {
		[SLUICE_ACTION_PASS] = "pass",
		[SLUICE_ACTION_DROP] = "drop",
		[SLUICE_ACTION_TX] = "reply",
		[SLUICE_ACTION_ANSWER] = "answer",
	};
	const struct sluice_event *event = &watched->event;
	char source[ADDR_TEXT_MAX], time_text[TIME_TEXT_MAX], service[sizeof(((struct sluice_service *)0)->name)];
	uint64_t offset = __atomic_load_n(&d->maps.control->wall_offset_ns, __ATOMIC_RELAXED);
	bool at_wire = event->door == SLUICE_DOOR_WIRE;
	struct sale sale;
	json_t *json;

	metrics_service_name(d, event->service, service, sizeof(service));
	json = json_pack("{s:s, s:s, s:s, s:s, s:s}", "time", time_format_rfc3339(event->mono + offset, time_text),
		"reason", reason_label(event->reason), "action", watch_action_name(watch_action_of(event->reason)),
		"verdict", verdicts[reason_action(event->reason)], "source", addr_format(&event->source, source));
	/* The call door knows neither ports nor a service, only who asks. */
	json_object_set_new(json, "source_port", at_wire ? json_integer(event->sport) : json_null());
	json_object_set_new(json, "service", at_wire ? json_string(service) : json_null());
	json_object_set_new(json, "sale",
		event->sale && !sales_find_id(d->sales, event->sale, &sale) ? json_string(sale.slug) : json_null());
	json_object_set_new(json, "door", json_string(at_wire ? "wire" : "call"));
	json_object_set_new(json, "bytes", at_wire ? json_integer(event->bytes) : json_null());
	json_object_set_new(json, "shadow", json_boolean(event->shadow));
	json_object_set_new(json, "stands_for", json_real(watched->stands_for));
	return json;
}

/* --- the stream -------------------------------------------------------------------------------------------------------------- */
static int write_verdict(struct event_stream *events, const struct watched *watched)
{
	json_t *json = control_verdict_json(events->d, watched);
	char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
	int length = -1;

	if (text)
		length = snprintf(events->stream.text, sizeof(events->stream.text), "data: %s\n\n", text);
	json_decref(json);
	free(text);
	if (length >= (int)sizeof(events->stream.text))
		return -1;
	events->left--;
	return length;
}

static int fill(struct http_stream *stream)
{
	struct event_stream *events = (struct event_stream *)stream;
	uint64_t lost;
	int got;

	if (!events->has_greeted) { /* so that the client sees at once that it is being served */
		events->has_greeted = true;
		return snprintf(stream->text, sizeof(stream->text), ": watching\n\n");
	}
	if (events->is_held) {
		events->is_held = false;
		return write_verdict(events, &events->held);
	}
	if (!events->left)
		return 0;
	got = watch_next(events->watcher, HEARTBEAT_MS, &events->held);
	if (got < 0)
		return 0;
	lost = watch_take_lost(events->watcher);
	if (lost) {
		events->is_held = got;
		return snprintf(stream->text, sizeof(stream->text), "event: lost\ndata: {\"lost\":%llu}\n\n",
			(unsigned long long)lost);
	}
	if (!got)
		return snprintf(stream->text, sizeof(stream->text), ": alive\n\n");
	return write_verdict(events, &events->held);
}

static void end(struct http_stream *stream)
{
	struct event_stream *events = (struct event_stream *)stream;

	watch_close(events->watcher);
	free(events);
}

/* --- the filter -------------------------------------------------------------------------------------------------------------- */
static int reason_of(const char *label)
{
	for (unsigned reason = 0; reason < SLUICE_REASON_COUNT; reason++)
		if (!strcmp(reason_label(reason), label))
			return (int)reason;
	return -1;
}

static enum MHD_Result refuse(struct http_request *request, const char *name, const char *what)
{
	return http_problem_field(request, 422, "out_of_range", name, "%s must be %s.", name, what);
}

static bool read_reasons(struct http_request *request, uint64_t *reasons, enum MHD_Result *result)
{
	char text[REASONS_TEXT], *rest = NULL;
	int given = http_argument(request, "reason", text, sizeof(text));

	*reasons = WATCH_ALL_REASONS & ~REASONS_ON_DEMAND;
	if (!given)
		return true;
	*reasons = 0;
	for (char *label = given > 0 ? strtok_r(text, ",", &rest) : NULL; label; label = strtok_r(NULL, ",", &rest)) {
		int reason = reason_of(label);

		if (reason < 0) {
			*result = http_problem_field(request, 422, "out_of_range", "reason",
				"There is no reason \"%.64s\": docs/reasons.md lists them.", label);
			return false;
		}
		*reasons |= 1ULL << reason;
	}
	if (*reasons)
		return true;
	*result = refuse(request, "reason", "reasons, separated by commas");
	return false;
}

static bool read_action(struct http_request *request, uint64_t *reasons, enum MHD_Result *result)
{
	char text[16];
	int given = http_argument(request, "action", text, sizeof(text));
	uint64_t wanted = 0;
	bool known = false;

	if (!given)
		return true;
	for (unsigned reason = 0; given > 0 && reason < SLUICE_REASON_COUNT; reason++) {
		if (strcmp(text, watch_action_name(watch_action_of(reason))) != 0)
			continue;
		known = true;
		wanted |= 1ULL << reason;
	}
	*reasons &= wanted;
	if (*reasons)
		return true;
	*result = refuse(request, "action",
		known ? "one that a reason asked for can have" : "\"refused\", \"passed\" or \"handshake\"");
	return false;
}

static bool read_source(struct http_request *request, struct watch_filter *filter, enum MHD_Result *result)
{
	char text[ADDR_TEXT_MAX];
	int given = http_argument(request, "source", text, sizeof(text)), err;
	unsigned len = 0;

	if (!given)
		return true;
	err = given > 0 ? prefix_parse(text, &filter->addr, &len) : -EINVAL;
	if (!err) {
		filter->mask = watch_mask(len);
		return true;
	}
	*result = http_problem_field(
		request, 422, "out_of_range", "source", "%.64s: %s", given > 0 ? text : "source", prefix_strerror(err));
	return false;
}

static bool read_sale(struct http_request *request, struct watch_filter *filter, enum MHD_Result *result)
{
	char slug[SALE_SLUG_MAX + 1];
	int given = http_argument(request, "sale", slug, sizeof(slug));
	struct sale sale;

	if (!given)
		return true;
	if (given > 0 && !sales_find(request->d->sales, slug, &sale)) {
		filter->sale = sale.id;
		return true;
	}
	*result = http_problem_field(request, 404, "unknown_sale", "sale", "There is no such sale.");
	return false;
}

static bool read_door(struct http_request *request, struct watch_filter *filter, enum MHD_Result *result)
{
	char text[8];
	int given = http_argument(request, "door", text, sizeof(text));

	if (!given)
		return true;
	if (given > 0 && !strcmp(text, "wire"))
		filter->door = SLUICE_DOOR_WIRE;
	else if (given > 0 && !strcmp(text, "call"))
		filter->door = SLUICE_DOOR_CALL;
	if (!filter->door)
		*result = refuse(request, "door", "\"wire\" or \"call\"");
	return filter->door;
}

static bool read_sample(struct http_request *request, struct watch_filter *filter, enum MHD_Result *result)
{
	char text[32], *stop = text;
	int given = http_argument(request, "sample", text, sizeof(text));
	double share = 0;

	if (!given)
		return true;
	if (given > 0 && *text && text[strspn(text, "0123456789.")] == '\0')
		share = strtod(text, &stop);
	if (share > 0 && share <= 1 && !*stop) {
		filter->threshold = watch_threshold(share);
		return true;
	}
	*result = refuse(request, "sample", "above 0 and at most 1");
	return false;
}

static bool read_limit(struct http_request *request, uint64_t *limit, enum MHD_Result *result)
{
	char text[16];
	int given = http_argument(request, "limit", text, sizeof(text));

	*limit = UINT64_MAX;
	if (!given)
		return true;
	*limit = given > 0 && *text && text[strspn(text, "0123456789")] == '\0' ? strtoull(text, NULL, 10) : 0;
	if (*limit >= 1 && *limit <= LIMIT_MAX)
		return true;
	*result = refuse(request, "limit", "from 1 to 1000000000");
	return false;
}

static enum MHD_Result find_unknown(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
	static const char *const known[] = {"reason", "action", "source", "sale", "door", "sample", "limit"};
	const char **unknown = arg;

	(void)kind;
	(void)value;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (!strcmp(known[i], name))
			return MHD_YES;
	*unknown = name;
	return MHD_NO;
}

static bool read_filter(
	struct http_request *request, struct watch_filter *filter, uint64_t *limit, enum MHD_Result *result)
{
	const char *unknown = NULL;

	/* A filter that is misspelt would be one that lets everything through. */
	MHD_get_connection_values(request->connection, MHD_GET_ARGUMENT_KIND, find_unknown, &unknown);
	if (unknown) {
		*result = http_problem_field(
			request, 400, "unknown_field", unknown, "There is no argument \"%.64s\" here.", unknown);
		return false;
	}
	*filter = (struct watch_filter){.threshold = WATCH_EVERY, .per_second = WATCH_PER_SECOND};
	return read_reasons(request, &filter->reasons, result) && read_action(request, &filter->reasons, result) &&
		read_source(request, filter, result) && read_sale(request, filter, result) &&
		read_door(request, filter, result) && read_sample(request, filter, result) &&
		read_limit(request, limit, result);
}

struct watcher *control_open_watcher(
	struct http_request *request, const struct watch_filter *filter, enum MHD_Result *result)
{
	struct watcher *watcher = watch_open(request->d, filter);

	if (watcher)
		return watcher;
	if (errno == EUSERS)
		*result = http_problem_retry(request, 503, "too_many_watchers", RETRY_WATCHERS_S,
			"%d watchers are there already.", WATCH_MAX);
	else
		*result = http_problem_retry(request, 503, "unavailable", RETRY_WATCHERS_S,
			"Nobody can watch at this moment: %s.", strerror(errno));
	return NULL;
}

enum MHD_Result control_get_events(struct http_request *request)
{
	struct watch_filter filter;
	struct event_stream *events;
	enum MHD_Result result;
	uint64_t limit;

	if (!read_filter(request, &filter, &limit, &result))
		return result;
	events = calloc(1, sizeof(*events));
	if (!events)
		return http_problem(request, 500, "internal_error", "No memory.");
	events->watcher = control_open_watcher(request, &filter, &result);
	if (!events->watcher) {
		free(events);
		return result;
	}
	events->d = request->d;
	events->left = limit;
	events->stream.fill = fill;
	events->stream.end = end;
	return http_send_stream(request, "text/event-stream", &events->stream);
}
