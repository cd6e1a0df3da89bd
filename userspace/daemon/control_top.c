/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* GET /v1/top: what happens now. Looks for the length of an interval: counters at its begin and end give the rates, which are exact; a watch
 * in between gives the busiest sources, which are estimated from a sample that the flood cannot make larger. Keeps nothing from one
 * request to the next.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/addr.h"
#include "common/timefmt.h"
#include "daemon/control.h"
#include "daemon/interfaces.h"
#include "daemon/maintenance.h"
#include "daemon/sales.h"
#include "daemon/shadow.h"
#include "daemon/top_rank.h"

#define INTERVAL_MIN_MS 100
#define INTERVAL_MAX_MS 10000
#define INTERVAL_MS 1000
#define ROWS_MAX 100
#define ROWS 10
#define SAMPLED_PER_S 1000
#define NS_PER_MS 1000000ULL
#define NS_PER_S 1e9
#define COUNTER_ROWS ((SLUICE_MAX_SERVICES + 1) * SLUICE_REASON_ROWS)

/* Packets of connections that the kernel has say little about who wants to get in, and what is not protected nothing. */
#define REASONS_RANKED \
	(WATCH_ALL_REASONS & \
		~(1ULL << SLUICE_REASON_SOCKET | 1ULL << SLUICE_REASON_FOLLOWS | 1ULL << SLUICE_REASON_UNPROTECTED))

struct snapshot {
	struct sluice_counter packets[COUNTER_ROWS];
	__u64 calls[SLUICE_REASON_ROWS], shadow[SLUICE_REASON_ROWS];
	uint64_t durable, mono;
};

struct top {
	struct daemon *d;
	struct snapshot before, after;
	double seconds; /* between them */
	unsigned rows;
	struct watched *sample;
	size_t sampled, room;
};

static int take_snapshot(struct daemon *d, struct snapshot *snapshot)
{
	struct pipeline_status status;
	int err = gate_maps_read_counters(&d->maps, snapshot->packets);

	if (!err)
		err = gate_maps_read_calls(&d->maps, snapshot->calls);
	if (!err)
		err = gate_maps_read_shadow(&d->maps, snapshot->shadow);
	pipeline_status(d->pipeline, &status);
	snapshot->durable = status.durable;
	snapshot->mono = time_mono_ns();
	return err;
}

/* Collects for `interval_ms`. A sample beyond the room is not kept: the watch holds it to about SAMPLED_PER_S. */
static void look(struct top *top, struct watcher *watcher, unsigned interval_ms)
{
	uint64_t until = time_mono_ns() + interval_ms * NS_PER_MS, now;

	while ((now = time_mono_ns()) < until) {
		struct watched watched;
		int got = watch_next(watcher, (unsigned)((until - now + NS_PER_MS - 1) / NS_PER_MS), &watched);

		if (got < 0)
			return;
		if (got && top->sampled < top->room)
			top->sample[top->sampled++] = watched;
	}
}

/* --- JSON ------------------------------------------------------------------------------------------------------------------- */
static json_t *rate_json(const struct top *top, uint64_t before, uint64_t after)
{
	return json_real(after > before ? (double)(after - before) / top->seconds : 0);
}

static json_t *packets_json(const struct top *top)
{
	json_t *packets = json_object();

	for (unsigned service = 0; service <= SLUICE_MAX_SERVICES; service++) {
		json_t *reasons = json_object();
		char name[sizeof(((struct sluice_service *)0)->name)];

		for (unsigned reason = 0; reason < SLUICE_REASON_COUNT; reason++) {
			unsigned row = service * SLUICE_REASON_ROWS + reason;
			uint64_t before = top->before.packets[row].packets, after = top->after.packets[row].packets;

			if (after > before)
				json_object_set_new(reasons, reason_label(reason), rate_json(top, before, after));
		}
		metrics_service_name(top->d, service, name, sizeof(name));
		if (json_object_size(reasons))
			json_object_set(packets, name, reasons);
		json_decref(reasons);
	}
	return packets;
}

static json_t *reasons_json(const struct top *top, const __u64 *before, const __u64 *after)
{
	json_t *reasons = json_object();

	for (unsigned reason = 0; reason < SLUICE_REASON_COUNT; reason++)
		if (after[reason] > before[reason])
			json_object_set_new(
				reasons, reason_label(reason), rate_json(top, before[reason], after[reason]));
	return reasons;
}

static uint64_t admitted(const struct snapshot *snapshot)
{
	uint64_t sum = snapshot->calls[SLUICE_REASON_ADMITTED];

	for (unsigned service = 0; service < SLUICE_MAX_SERVICES; service++)
		sum += snapshot->packets[service * SLUICE_REASON_ROWS + SLUICE_REASON_ADMITTED].packets;
	return sum;
}

static json_t *orders_json(const struct top *top)
{
	struct pipeline_status status;

	pipeline_status(top->d->pipeline, &status);
	return json_pack("{s:o, s:o, s:I, s:b}", "admitted_per_second",
		rate_json(top, admitted(&top->before), admitted(&top->after)), "durable_per_second",
		rate_json(top, top->before.durable, top->after.durable), "in_flight", (json_int_t)status.backlog,
		"open", status.open);
}

/* Those that are not over, in the order in which they were made. */
static json_t *sales_json(const struct top *top, unsigned *more)
{
	json_t *sales = json_array();
	struct daemon *d = top->d;
	struct sale sale;

	*more = 0;
	for (unsigned i = 0; !sales_at(d->sales, i, &sale); i++) {
		struct stock_view stock;
		enum sale_state state;

		if (!sales_in_gate(d->sales, &sale))
			continue;
		maintenance_read_stock(d, &sale, &stock);
		state = sales_state(&sale, stock.free, time_wall_ns());
		if (state == SALE_ENDED)
			continue;
		if (json_array_size(sales) >= top->rows) {
			(*more)++;
			continue;
		}
		json_array_append_new(sales,
			json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "slug", sale.slug, "state", sales_state_name(state),
				"put_in", (json_int_t)stock.put_in, "free", (json_int_t)stock.free, "held",
				(json_int_t)stock.held, "confirmed", (json_int_t)stock.confirmed));
	}
	return sales;
}

static json_t *ranking_json(struct top *top, bool by_prefix, unsigned *different)
{
	struct top_row rows[ROWS_MAX];
	unsigned count = top_rank(top->sample, top->sampled, by_prefix, rows, top->rows, different);
	json_t *ranking = json_array();

	for (unsigned i = 0; i < count; i++) {
		char name[ADDR_TEXT_MAX];

		json_array_append_new(ranking,
			json_pack("{s:s, s:f, s:f, s:s}", by_prefix ? "prefix" : "source",
				rows[i].len == 128 ? addr_format(&rows[i].addr, name)
						   : prefix_format(&rows[i].addr, rows[i].len, name),
				"per_second", rows[i].verdicts / top->seconds, "refused_per_second",
				rows[i].refused / top->seconds, "reason", reason_label(rows[i].reason)));
	}
	return ranking;
}

static json_t *top_json(struct top *top)
{
	unsigned sources = 0, prefixes = 0, more_sales;
	uint32_t shadow = shadow_flags(top->d);
	char time_text[TIME_TEXT_MAX];
	double stands_for = 0;
	json_t *json;

	for (size_t i = 0; i < top->sampled; i++)
		stands_for += top->sample[i].stands_for;
	json = json_pack("{s:s, s:I, s:s, s:o}", "time", time_format_rfc3339(time_wall_ns(), time_text), "interval_ms",
		(json_int_t)(top->seconds * 1e3 + 0.5), "shadow_mode", shadow_mode(shadow), "interfaces",
		interfaces_json(top->d));
	json_object_set_new(json, "packets", packets_json(top));
	json_object_set_new(json, "calls", reasons_json(top, top->before.calls, top->after.calls));
	json_object_set_new(json, "shadow", reasons_json(top, top->before.shadow, top->after.shadow));
	json_object_set_new(json, "orders", orders_json(top));
	json_object_set_new(json, "sales", sales_json(top, &more_sales));
	json_object_set_new(json, "more_sales", json_integer(more_sales));
	json_object_set_new(json, "sources", ranking_json(top, false, &sources));
	json_object_set_new(json, "prefixes", ranking_json(top, true, &prefixes));
	json_object_set_new(json, "sample",
		json_pack("{s:I, s:f, s:I, s:I}", "verdicts", (json_int_t)top->sampled, "stands_for", stands_for,
			"sources", (json_int_t)sources, "prefixes", (json_int_t)prefixes));
	return json;
}

/* --- the route -------------------------------------------------------------------------------------------------------------- */
static bool read_number(struct http_request *request, const char *name, unsigned min, unsigned max, unsigned *value,
	enum MHD_Result *result)
{
	char text[8];
	int given = http_argument(request, name, text, sizeof(text));
	unsigned long number = 0;

	if (!given)
		return true;
	if (given > 0 && *text && text[strspn(text, "0123456789")] == '\0')
		number = strtoul(text, NULL, 10);
	if (number >= min && number <= max) {
		*value = (unsigned)number;
		return true;
	}
	*result = http_problem_field(request, 422, "out_of_range", name, "%s must be from %u to %u.", name, min, max);
	return false;
}

enum MHD_Result control_get_top(struct http_request *request)
{
	const struct watch_filter filter = {
		.reasons = REASONS_RANKED, .threshold = WATCH_EVERY, .per_second = SAMPLED_PER_S};
	unsigned interval_ms = INTERVAL_MS;
	struct watcher *watcher = NULL;
	enum MHD_Result result;
	struct top *top = calloc(1, sizeof(*top));
	int err;

	if (!top)
		return http_problem(request, 500, "internal_error", "No memory.");
	top->d = request->d;
	top->rows = ROWS;
	if (!read_number(request, "interval_ms", INTERVAL_MIN_MS, INTERVAL_MAX_MS, &interval_ms, &result) ||
		!read_number(request, "limit", 1, ROWS_MAX, &top->rows, &result))
		goto out_free;
	/* A burst at the begin is shown whole until the watch has thinned it out. */
	top->room = (size_t)SAMPLED_PER_S * (interval_ms / 1000 + 4);
	top->sample = calloc(top->room, sizeof(*top->sample));
	err = top->sample ? take_snapshot(top->d, &top->before) : -ENOMEM;
	if (!err) {
		watcher = control_open_watcher(request, &filter, &result);
		if (!watcher)
			goto out_free;
		look(top, watcher, interval_ms);
		watch_close(watcher);
		err = take_snapshot(top->d, &top->after);
	}
	if (err) {
		result = http_problem(
			request, 500, "internal_error", "The gate's counters cannot be read: %s.", strerror(-err));
		goto out_free;
	}
	top->seconds = (double)(top->after.mono - top->before.mono) / NS_PER_S;
	result = http_send_json(request, 200, top_json(top));
out_free:
	free(top->sample);
	free(top);
	return result;
}
