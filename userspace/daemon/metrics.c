/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Counters and histograms of the daemon, and /metrics. Observed from any thread with relaxed atomics; rendered by the control listeners.
 *
 * Labels are names from fixed lists or of sales, services and interfaces; never an address, a token or a buyer, and so the number of series is bounded.
 */
#include "daemon/metrics.h"

#include <bpf/bpf.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/realtime.h"
#include "daemon/fleet_leases.h"
#include "daemon/fleet_report.h"
#include "daemon/fleet_settings.h"
#include "daemon/fleet_stream.h"
#include "daemon/interfaces.h"
#include "daemon/issue.h"
#include "daemon/maintenance.h"
#include "daemon/orders.h"
#include "daemon/pipeline.h"
#include "daemon/sales.h"
#include "daemon/shadow.h"
#include "daemon/webhooks.h"

#define ROUTES_MAX 64
#define BATCH_BOUNDS \
	{ \
		1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096 \
	}
#define COMMIT_BOUNDS \
	{ \
		0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10 \
	}
#define BOUNDS_MAX 16

struct histogram {
	atomic_ullong buckets[BOUNDS_MAX + 1]; /* not cumulative; the last is +Inf */
	atomic_ullong sum;                     /* orders, or ns */
};

/* Status codes that the daemon gives; the last slot is for any other. */
static const unsigned short codes[] = {
	200, 201, 202, 204, 400, 401, 403, 404, 405, 409, 410, 412, 413, 415, 421, 422, 429, 500, 503, 507, 0};
#define CODES (sizeof(codes) / sizeof(codes[0]))

struct route {
	_Atomic(const char *) name;
	atomic_ullong requests[CODES];
};

struct metrics {
	struct histogram batch, commit;
	struct route routes[METRICS_LISTENERS][ROUTES_MAX];
	struct http_connections_counts connections[METRICS_LISTENERS];
};

static const double batch_bounds[] = BATCH_BOUNDS;
static const double commit_bounds[] = COMMIT_BOUNDS;
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
_Static_assert(COUNT(batch_bounds) <= BOUNDS_MAX && COUNT(commit_bounds) <= BOUNDS_MAX, "histogram is too small");

struct metrics *metrics_new(void)
{
	return calloc(1, sizeof(struct metrics));
}

void metrics_free(struct metrics *metrics)
{
	free(metrics);
}

static void observe(struct histogram *histogram, const double *bounds, size_t count, double value, uint64_t sum)
{
	size_t i = 0;

	while (i < count && value > bounds[i])
		i++;
	atomic_fetch_add_explicit(&histogram->buckets[i], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&histogram->sum, sum, memory_order_relaxed);
}

void metrics_observe_batch(struct metrics *metrics, unsigned orders)
{
	observe(&metrics->batch, batch_bounds, COUNT(batch_bounds), orders, orders);
}

void metrics_observe_commit(struct metrics *metrics, uint64_t ns)
{
	observe(&metrics->commit, commit_bounds, COUNT(commit_bounds), (double)ns / 1e9, ns);
}

void metrics_count_request(struct metrics *metrics, enum metrics_listener listener, const char *route, unsigned status)
{
	struct route *routes = metrics->routes[listener];
	size_t code = 0;

	while (code < CODES - 1 && codes[code] != status)
		code++;
	/* Route names are literals, so comparing pointers is enough; a name that lost a race for a slot takes the next. */
	for (unsigned i = 0; i < ROUTES_MAX; i++) {
		const char *none = NULL;

		if (atomic_load(&routes[i].name) != route &&
			!atomic_compare_exchange_strong(&routes[i].name, &none, route) && none != route)
			continue;
		atomic_fetch_add_explicit(&routes[i].requests[code], 1, memory_order_relaxed);
		return;
	}
}

struct http_connections_counts *metrics_connections(struct metrics *metrics, enum metrics_listener listener)
{
	return &metrics->connections[listener];
}

static void family(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void render_histogram(FILE *out, const char *name, const char *help, struct histogram *histogram,
	const double *bounds, size_t count, double unit)
{
	uint64_t total = 0;

	family(out, name, "histogram", help);
	for (size_t i = 0; i < count; i++) {
		total += atomic_load(&histogram->buckets[i]);
		fprintf(out, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", name, bounds[i], total);
	}
	total += atomic_load(&histogram->buckets[count]);
	fprintf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum %.9g\n%s_count %" PRIu64 "\n", name, total, name,
		(double)atomic_load(&histogram->sum) / unit, name, total);
}

void metrics_service_name(struct daemon *d, unsigned service, char *name, size_t size)
{
	struct sluice_service entry;
	__u32 key = service;

	if (service >= SLUICE_MAX_SERVICES)
		snprintf(name, size, "unprotected");
	else if (!bpf_map_lookup_elem(d->maps.services, &key, &entry) && entry.name[0])
		snprintf(name, size, "%.*s", (int)sizeof(entry.name), entry.name);
	else
		snprintf(name, size, "%u", service);
}

static void render_packets(FILE *out, struct daemon *d, const struct sluice_counter *counters, bool bytes)
{
	static const char *const verdicts[] = {
		[SLUICE_ACTION_PASS] = "pass",
		[SLUICE_ACTION_DROP] = "drop",
		[SLUICE_ACTION_TX] = "reply",
		[SLUICE_ACTION_ANSWER] = "answer",
	};

	for (unsigned service = 0; service <= SLUICE_MAX_SERVICES; service++) {
		char name[sizeof(((struct sluice_service *)0)->name)];

		metrics_service_name(d, service, name, sizeof(name));
		for (unsigned reason = 0; reason < SLUICE_REASON_COUNT; reason++) {
			const struct sluice_counter *row = &counters[service * SLUICE_REASON_ROWS + reason];

			if (row->packets)
				fprintf(out, "sluice_%s_total{service=\"%s\",verdict=\"%s\",reason=\"%s\"} %llu\n",
					bytes ? "bytes" : "packets", name, verdicts[reason_action(reason)],
					reason_label(reason), bytes ? row->bytes : row->packets);
		}
	}
}

static int render_gate(FILE *out, struct daemon *d)
{
	struct sluice_counter *counters = calloc((SLUICE_MAX_SERVICES + 1) * SLUICE_REASON_ROWS, sizeof(*counters));
	__u64 calls[SLUICE_REASON_ROWS];
	int err;

	if (!counters)
		return -1;
	err = gate_maps_read_counters(&d->maps, counters);
	if (!err)
		err = gate_maps_read_calls(&d->maps, calls);
	if (!err) {
		family(out, "sluice_packets_total", "counter", "Packets by service, verdict and reason.");
		render_packets(out, d, counters, false);
		family(out, "sluice_bytes_total", "counter", "Bytes by service, verdict and reason.");
		render_packets(out, d, counters, true);
		family(out, "sluice_calls_total", "counter", "Verdicts of the call door by reason.");
		for (unsigned reason = 0; reason < SLUICE_REASON_COUNT; reason++)
			if (calls[reason])
				fprintf(out, "sluice_calls_total{reason=\"%s\"} %llu\n", reason_label(reason),
					calls[reason]);
	}
	free(counters);
	return err;
}

static void render_interfaces(FILE *out, struct daemon *d)
{
	struct interface_view views[INTERFACES_MAX];
	unsigned count = interfaces_view(d, views);

	family(out, "sluice_gate_interface_attached", "gauge",
		"1 while the gate is on the interface, 0 when the interface is gone or the gate was taken off it by other means than sluice detach.");
	for (unsigned i = 0; i < count; i++)
		fprintf(out, "sluice_gate_interface_attached{interface=\"%s\"} %d\n", views[i].name,
			views[i].is_attached);
}

static int render_shadow(FILE *out, struct daemon *d)
{
	uint32_t flags = shadow_flags(d);
	__u64 counts[SLUICE_REASON_ROWS];
	int err = gate_maps_read_shadow(&d->maps, counts);

	if (err)
		return err;
	family(out, "sluice_shadow_total", "counter", "What a limit in shadow mode would have refused, by reason.");
	for (unsigned reason = 0; reason < SLUICE_REASON_COUNT; reason++)
		if (counts[reason])
			fprintf(out, "sluice_shadow_total{reason=\"%s\"} %llu\n", reason_label(reason), counts[reason]);
	family(out, "sluice_shadow_mode", "gauge",
		"1 while the limit only counts; limit=\"all\" is the whole gate, which then refuses nobody.");
	for (unsigned which = 0; which < SHADOW_SWITCHES; which++)
		fprintf(out, "sluice_shadow_mode{limit=\"%s\"} %d\n", shadow_name(which),
			!!(flags & shadow_flag(which)));
	return 0;
}

static void render_sales(FILE *out, struct daemon *d)
{
	struct sale sale;

	family(out, "sluice_stock_units", "gauge",
		"Units of a sale by state: put_in = free + held + confirmed when nothing is in flight.");
	for (unsigned i = 0; !sales_at(d->sales, i, &sale); i++) {
		struct stock_view stock;

		if (!sales_in_gate(d->sales, &sale))
			continue;
		maintenance_read_stock(d, &sale, &stock);
		fprintf(out,
			"sluice_stock_units{sale=\"%s\",state=\"put_in\"} %" PRIu64
			"\nsluice_stock_units{sale=\"%s\",state=\"free\"} %" PRIu64
			"\nsluice_stock_units{sale=\"%s\",state=\"held\"} %" PRIu64
			"\nsluice_stock_units{sale=\"%s\",state=\"confirmed\"} %" PRIu64 "\n",
			sale.slug, stock.put_in, sale.slug, stock.free, sale.slug, stock.held, sale.slug,
			stock.confirmed);
	}
	family(out, "sluice_orders", "gauge",
		"Orders of a sale by state, as long as the gate knows them: until ten minutes after the sale's end.");
	for (unsigned i = 0; !sales_at(d->sales, i, &sale); i++)
		for (unsigned state = ORDER_REFUSED; sales_in_gate(d->sales, &sale) && state < ORDER_STATE_COUNT;
			state++)
			fprintf(out, "sluice_orders{sale=\"%s\",state=\"%s\"} %llu\n", sale.slug,
				order_state_name(state), atomic_load(&sale.counts->orders[state]));
	family(out, "sluice_conservation_ok", "gauge",
		"1 while put_in = free + held + confirmed holds for the sale, 0 after a breach.");
	for (unsigned i = 0; !sales_at(d->sales, i, &sale); i++)
		if (sales_in_gate(d->sales, &sale))
			fprintf(out, "sluice_conservation_ok{sale=\"%s\"} %d\n", sale.slug,
				atomic_load(&sale.counts->balance) != SALE_UNBALANCED);
	family(out, "sluice_tokens_live", "gauge", "Tokens of a sale that have been issued and have not expired.");
	for (unsigned i = 0; !sales_at(d->sales, i, &sale); i++)
		if (sales_in_gate(d->sales, &sale))
			fprintf(out, "sluice_tokens_live{sale=\"%s\"} %llu\n", sale.slug,
				atomic_load(&sale.counts->live_tokens));
}

static void render_orders(FILE *out, struct daemon *d)
{
	struct pipeline_status status;

	pipeline_status(d->pipeline, &status);
	family(out, "sluice_orders_durable_total", "counter",
		"Orders that the writer has acknowledged as durable, since the start.");
	fprintf(out, "sluice_orders_durable_total %" PRIu64 "\n", status.durable);
	family(out, "sluice_orders_in_flight", "gauge", "Admissions that are not durable yet.");
	fprintf(out, "sluice_orders_in_flight %" PRIu64 "\n", status.backlog);
	family(out, "sluice_orders_open", "gauge",
		"1 while the gate admits orders, as far as the writer is concerned.");
	fprintf(out, "sluice_orders_open %d\n", status.open);
	family(out, "sluice_ledger_refusals_total", "counter",
		"Admissions that the ledger's own guard refused. Any is an alarm.");
	fprintf(out, "sluice_ledger_refusals_total %" PRIu64 "\n", status.refused);
	family(out, "sluice_writer_up", "gauge", "1 while the order writer is connected and answers.");
	fprintf(out, "sluice_writer_up %d\n", status.connected);
	family(out, "sluice_writer_reconnects_total", "counter",
		"Connections to the writer that broke, since the start.");
	fprintf(out, "sluice_writer_reconnects_total %" PRIu64 "\n", status.reconnects);
	family(out, "sluice_realtime_pauses_total", "counter",
		"How often a thread of the daemon computed for 50 ms without a rest, and all of them had the usual priority for a second.");
	fprintf(out, "sluice_realtime_pauses_total %" PRIu64 "\n", realtime_pauses());
	family(out, "sluice_writer_drain_orders_per_second", "gauge",
		"Orders that the writer can make durable in a second, by the batches it has had. Absent while none was large enough to tell.");
	if (status.drain_per_second)
		fprintf(out, "sluice_writer_drain_orders_per_second %.0f\n", status.drain_per_second);
	family(out, "sluice_writer_commit_seconds", "gauge",
		"From sending a batch to its durable acknowledgement, mean of the last ones. Absent before the first.");
	if (status.commit_s)
		fprintf(out, "sluice_writer_commit_seconds %.9g\n", status.commit_s);
	family(out, "sluice_tokens_issued_total", "counter", "Tokens made, since the start.");
	fprintf(out, "sluice_tokens_issued_total %" PRIu64 "\n", issue_total(d));
	render_histogram(out, "sluice_writer_batch_orders", "Orders in one batch to the writer.", &d->metrics->batch,
		batch_bounds, COUNT(batch_bounds), 1);
	render_histogram(out, "sluice_order_commit_seconds", "From the judge's yes to the durable acknowledgement.",
		&d->metrics->commit, commit_bounds, COUNT(commit_bounds), 1e9);
}

static const char *const listener_names[] = {[METRICS_PUBLIC] = "public", [METRICS_CONTROL] = "control"};

static void render_connections(FILE *out, struct metrics *metrics)
{
	family(out, "sluice_http_connections", "gauge", "HTTP connections to the daemon.");
	for (unsigned i = 0; i < METRICS_LISTENERS; i++)
		fprintf(out, "sluice_http_connections{listener=\"%s\"} %u\n", listener_names[i],
			atomic_load(&metrics->connections[i].open));
	family(out, "sluice_http_connections_closed_total", "counter",
		"Waiting HTTP connections that the daemon closed: crowded (places ran out), crowded_source (its source has its share), late (no whole "
		"request in time).");
	for (unsigned i = 0; i < METRICS_LISTENERS; i++)
		fprintf(out,
			"sluice_http_connections_closed_total{listener=\"%s\",cause=\"crowded\"} %llu\n"
			"sluice_http_connections_closed_total{listener=\"%s\",cause=\"crowded_source\"} %llu\n"
			"sluice_http_connections_closed_total{listener=\"%s\",cause=\"late\"} %llu\n",
			listener_names[i], atomic_load(&metrics->connections[i].crowded), listener_names[i],
			atomic_load(&metrics->connections[i].crowded_source), listener_names[i],
			atomic_load(&metrics->connections[i].late));
}

static void render_http(FILE *out, struct metrics *metrics)
{
	family(out, "sluice_http_requests_total", "counter", "HTTP requests that reached the daemon.");
	for (unsigned listener = 0; listener < METRICS_LISTENERS; listener++)
		for (unsigned i = 0; i < ROUTES_MAX && atomic_load(&metrics->routes[listener][i].name); i++) {
			struct route *route = &metrics->routes[listener][i];

			for (size_t code = 0; code < CODES; code++) {
				uint64_t requests = atomic_load(&route->requests[code]);
				char status[8] = "other";

				if (!requests)
					continue;
				if (codes[code])
					snprintf(status, sizeof(status), "%u", codes[code]);
				fprintf(out,
					"sluice_http_requests_total{listener=\"%s\",route=\"%s\",code=\"%s\"} %" PRIu64
					"\n",
					listener_names[listener], atomic_load(&route->name), status, requests);
			}
		}
}

char *metrics_render(struct daemon *d, size_t *length)
{
	char *text = NULL;
	FILE *out = open_memstream(&text, length);
	int err;

	if (!out)
		return NULL;
	family(out, "sluice_build_info", "gauge", "Always 1; the labels tell the version.");
	fprintf(out, "sluice_build_info{version=\"%s\",abi=\"%d\"} 1\n", SLUICE_VERSION, SLUICE_ABI_VERSION);
	err = render_gate(out, d);
	if (!err)
		err = render_shadow(out, d);
	render_interfaces(out, d);
	render_orders(out, d);
	render_sales(out, d);
	render_http(out, d->metrics);
	render_connections(out, d->metrics);
	webhooks_render(d, out);
	fleet_report_render(d, out);
	fleet_leases_render(d, out);
	fleet_settings_render(d, out);
	fleet_stream_render(d, out);
	if (fclose(out) || err) {
		free(text);
		return NULL;
	}
	return text;
}
