/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the daemon says about itself and the gate: status, stats, metrics, liveness and readiness. Nothing here waits for the writer. */
#include <bpf/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/addr.h"
#include "common/timefmt.h"
#include "daemon/control.h"
#include "daemon/fleet_report.h"
#include "daemon/fleet_settings.h"
#include "daemon/heartbeat.h"
#include "daemon/interfaces.h"
#include "daemon/issue.h"
#include "daemon/sales.h"
#include "daemon/shadow.h"

#define NS_PER_S 1000000000ULL
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

static json_t *service_json(const struct sluice_service *service)
{
	char address[ADDR_TEXT_MAX] = "any";

	if (service->addr.hi | service->addr.lo)
		addr_format(&service->addr, address);
	return json_pack("{s:s, s:s, s:i, s:s}", "name", service->name, "address", address, "port", service->port,
		"kind", service->kind == SLUICE_SERVICE_SALE ? "sale" : "tcp");
}

static json_t *gate_json(struct daemon *d)
{
	json_t *services = json_array();

	for (__u32 i = 0; i < SLUICE_MAX_SERVICES; i++) {
		struct sluice_service service;

		if (!bpf_map_lookup_elem(d->maps.services, &i, &service) && service.kind != SLUICE_SERVICE_UNUSED)
			json_array_append_new(services, service_json(&service));
	}
	return json_pack("{s:b, s:s, s:I, s:i, s:o, s:o}", "attached", true, "pin_dir", d->config.gate.pin_dir,
		"generation", (json_int_t)__atomic_load_n(&d->maps.control->generation, __ATOMIC_ACQUIRE),
		"abi_version", (int)d->maps.control->abi_version, "services", services, "interfaces",
		interfaces_json(d));
}

enum MHD_Result control_get_status(struct http_request *request)
{
	struct daemon *d = request->d;
	struct pipeline_status status;
	json_t *writer;

	pipeline_status(d->pipeline, &status);
	writer = json_pack("{s:b, s:s, s:s, s:I, s:o, s:o}", "connected", status.connected, "ledger", status.ledger,
		"store", status.store, "backlog", (json_int_t)status.backlog, "drain_per_second",
		status.drain_per_second ? json_integer((json_int_t)status.drain_per_second) : json_null(), "commit_us",
		status.commit_s ? json_integer((json_int_t)(status.commit_s * 1e6)) : json_null());
	return http_send_json(request, 200,
		json_pack("{s:s, s:I, s:o, s:o, s:b, s:s?, s:i, s:s, s:o}", "version", SLUICE_VERSION, "uptime_seconds",
			(json_int_t)((time_mono_ns() - d->started_mono_ns) / NS_PER_S), "gate", gate_json(d), "writer",
			writer, "orders_open", status.open, "orders_closed_because",
			*status.why_closed ? status.why_closed : NULL, "sales", (int)sales_count(d->sales), "shadow",
			shadow_mode(shadow_flags(d)), "fleet", fleet_report_json(d)));
}

static json_t *packets_json(struct daemon *d, const struct sluice_counter *counters)
{
	json_t *packets = json_object();

	for (unsigned service = 0; service <= SLUICE_MAX_SERVICES; service++) {
		json_t *reasons = json_object();
		char name[sizeof(((struct sluice_service *)0)->name)];

		metrics_service_name(d, service, name, sizeof(name));
		for (unsigned reason = 0; reason < SLUICE_REASON_COUNT; reason++) {
			const struct sluice_counter *row = &counters[service * SLUICE_REASON_ROWS + reason];

			if (row->packets)
				json_object_set_new(reasons, reason_label(reason),
					json_pack("{s:I, s:I}", "packets", (json_int_t)row->packets, "bytes",
						(json_int_t)row->bytes));
		}
		if (json_object_size(reasons))
			json_object_set_new(packets, name, reasons);
		else
			json_decref(reasons);
	}
	return packets;
}

static uint64_t live_tokens(struct daemon *d)
{
	uint64_t live = 0;
	struct sale sale;

	for (unsigned i = 0; !sales_at(d->sales, i, &sale); i++)
		live += atomic_load(&sale.counts->live_tokens);
	return live;
}

static uint64_t admitted_units(const __u64 *calls, const struct sluice_counter *counters)
{
	uint64_t admitted = calls[SLUICE_REASON_ADMITTED];

	for (unsigned service = 0; service < SLUICE_MAX_SERVICES; service++)
		admitted += counters[service * SLUICE_REASON_ROWS + SLUICE_REASON_ADMITTED].packets;
	return admitted;
}

enum MHD_Result control_get_stats(struct http_request *request)
{
	struct sluice_counter *counters = calloc((SLUICE_MAX_SERVICES + 1) * SLUICE_REASON_ROWS, sizeof(*counters));
	struct daemon *d = request->d;
	struct pipeline_status status;
	__u64 calls[SLUICE_REASON_ROWS];
	json_t *call_counts, *json, *shadow = shadow_counts(d);

	if (!counters || !shadow || gate_maps_read_counters(&d->maps, counters) ||
		gate_maps_read_calls(&d->maps, calls)) {
		free(counters);
		json_decref(shadow);
		return http_problem(request, 500, "internal_error", "The gate's counters cannot be read.");
	}
	call_counts = json_object();
	for (unsigned reason = 0; reason < SLUICE_REASON_COUNT; reason++)
		if (calls[reason])
			json_object_set_new(call_counts, reason_label(reason), json_integer((json_int_t)calls[reason]));
	pipeline_status(d->pipeline, &status);
	json = json_pack("{s:o, s:o, s:o, s:{s:I, s:I, s:I, s:I}, s:{s:I, s:I}}", "packets", packets_json(d, counters),
		"calls", call_counts, "shadow", shadow, "orders", "admitted",
		(json_int_t)admitted_units(calls, counters), "durable", (json_int_t)status.durable, "in_flight",
		(json_int_t)status.backlog, "refused_by_ledger", (json_int_t)status.refused, "tokens", "live",
		(json_int_t)live_tokens(d), "issued", (json_int_t)issue_total(d));
	free(counters);
	return http_send_json(request, 200, json);
}

enum MHD_Result control_get_metrics(struct http_request *request)
{
	size_t length;
	char *text = metrics_render(request->d, &length);
	enum MHD_Result result;

	if (!text)
		return http_problem(request, 500, "internal_error", "The gate's counters cannot be read.");
	result = http_send_text(request, 200, METRICS_TYPE, text, length);
	free(text);
	return result;
}

static enum MHD_Result send_health(struct http_request *request, bool is_ok, const char *text)
{
	return http_send_text(request, is_ok ? 200 : 503, "text/plain; charset=utf-8", text, strlen(text));
}

/* Alive: a restart would not help. */
enum MHD_Result control_get_livez(struct http_request *request)
{
	bool healthy = heartbeat_is_healthy(time_mono_ns());

	return send_health(request, healthy, healthy ? "ok\n" : "a part of the daemon hangs\n");
}

/* Returns whether the gate guards anything. One interface of several that is missing is no reason to send nobody here any more. */
static bool gate_lines(struct daemon *d, char *text, size_t size)
{
	struct interfaces_summary interfaces;

	interfaces_summarize(d, &interfaces);
	if (atomic_load(&d->gate_is_gone)) {
		snprintf(text, size, "[-] gate: it was detached\n");
		return false;
	}
	if (interfaces.is_known && !interfaces.attached) {
		snprintf(text, size, "[-] gate: it is on no interface%s%s%s\n", interfaces.pinned ? " any more (" : "",
			interfaces.missing, interfaces.pinned ? ")" : "");
		return false;
	}
	if (interfaces.attached < interfaces.pinned)
		snprintf(text, size, "[+] gate\n[~] interfaces: degraded: the gate is not on %s any more\n",
			interfaces.missing);
	else
		snprintf(text, size, "[+] gate\n");
	return true;
}

/* Ready: an order that comes now can be taken. */
enum MHD_Result control_get_readyz(struct http_request *request)
{
	struct daemon *d = request->d;
	struct pipeline_status status;
	char text[2048], gate[384], redis[576], settings[192];
	bool alive = heartbeat_is_healthy(time_mono_ns()), known = atomic_load(&d->sales_known), ready;
	bool attached = gate_lines(d, gate, sizeof(gate));

	pipeline_status(d->pipeline, &status);
	ready = alive && known && status.open && attached;
	if (ready && !MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, "verbose") &&
		MHD_get_connection_values(request->connection, MHD_GET_ARGUMENT_KIND, NULL, NULL) == 0)
		return send_health(request, true, "ok\n");
	fleet_report_ready(d, redis, sizeof(redis));
	fleet_settings_ready(d, settings, sizeof(settings));
	snprintf(text, sizeof(text),
		"%s[%c] heartbeat\n[%c] order writer\n[%c] sales of the ledger\n[%c] orders open%s%s\n%s%s%s\n", gate,
		alive ? '+' : '-', status.connected && !*status.failure ? '+' : '-', known ? '+' : '-',
		status.open ? '+' : '-', *status.why_closed ? ": closed because " : "", status.why_closed, redis,
		settings, ready ? "ready" : "not ready");
	return send_health(request, ready, text);
}
