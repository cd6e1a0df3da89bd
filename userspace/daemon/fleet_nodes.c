/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The nodes of the fleet as they report themselves; see fleet_nodes.h. The part runs on the fleet's thread; what was heard is read by HTTP
 * threads under a lock.
 */
#include "daemon/fleet_nodes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/timefmt.h"
#include "daemon/fleet_leases.h"
#include "daemon/fleet_report.h"
#include "daemon/fleet_stream.h"
#include "daemon/pipeline.h"
#include "daemon/sales.h"

#define MS 1000000ULL
#define NS_PER_S 1000000000ULL
#define REPORT_NS (4 * NS_PER_S)
/* Two reports missed and some time on the way. */
#define SILENT_MS 9000
/* A node that nobody has heard of for so long is not listed unless the config has it. */
#define FORGET_MS "604800000"
#define NODE_ID_MAX CONFIG_NODES_MAX
/* A report goes to every node every few seconds: of so many sales it tells the lease. */
#define REPORT_LEASES 64

struct heard {
	json_t *report;   /* NULL: never heard of */
	uint64_t seen_ms; /* by the clock of Redis */
};

#define STAMPS 3
#define STAMP_MAX 256

struct fleet_nodes {
	pthread_mutex_t lock;
	struct heard nodes[NODE_ID_MAX + 1];
	uint64_t now_ms;   /* what Redis said its time was, */
	uint64_t heard_ns; /* and when (mono); 0 = never */
	/* the fleet's thread alone */
	uint64_t next_ns;
	uint64_t durable, counted_ns;
	double per_second;
	char stamps[STAMPS][STAMP_MAX]; /* what the last report brought; "" = none yet */
};

/* --- the report ---------------------------------------------------------------------------------------------------------------------- */
/* Orders per second, since the report before. */
static void count_orders(struct fleet_nodes *nodes, uint64_t durable, uint64_t now)
{
	if (nodes->counted_ns && now > nodes->counted_ns && durable >= nodes->durable)
		nodes->per_second = (double)(durable - nodes->durable) * 1e9 / (double)(now - nodes->counted_ns);
	nodes->durable = durable;
	nodes->counted_ns = now;
}

static char *make_report(struct daemon *d, uint64_t now)
{
	struct fleet_nodes *nodes = d->fleet_nodes;
	const struct config_node *own = config_node(&d->config, d->config.fleet.node);
	json_t *leases = fleet_leases_report(d, REPORT_LEASES);
	struct fleet_stream_status stream = {0};
	struct pipeline_status status = {0};
	char started[TIME_TEXT_MAX], *text;
	json_t *json;

	if (d->pipeline)
		pipeline_status(d->pipeline, &status);
	if (d->config.fleet.stream)
		fleet_stream_status(d, &stream);
	count_orders(nodes, status.durable, now);
	json = json_pack("{s:s, s:s, s:s, s:s, s:i, s:I, s:I, s:o, s:o}", "url", own ? own->url : "", "version",
		SLUICE_VERSION, "started_at", time_format_rfc3339(time_wall_ns() - (now - d->started_mono_ns), started),
		"ledger", status.store, "sales", d->sales ? (int)sales_count(d->sales) : 0, "orders_durable",
		(json_int_t)status.durable, "orders_per_second", (json_int_t)(nodes->per_second + 0.5), "stream_lag",
		d->config.fleet.stream ? json_integer((json_int_t)stream.waiting) : json_null(), "leases",
		leases ? leases : json_null());
	text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	return text;
}

/* --- what was heard -------------------------------------------------------------------------------------------------------------------- */
static void hear_one(struct fleet_nodes *nodes, const char *id, const char *text)
{
	char *end;
	unsigned long number = strtoul(id, &end, 10);
	unsigned long long seen_ms;
	json_t *report;

	if (*end || !number || number > NODE_ID_MAX)
		return;
	seen_ms = strtoull(text, &end, 10);
	report = *end == ' ' ? json_loads(end + 1, 0, NULL) : NULL;
	if (!json_is_object(report)) {
		json_decref(report);
		return;
	}
	json_decref(nodes->nodes[number].report);
	nodes->nodes[number] = (struct heard){report, seen_ms};
}

/* The parts of which a report brings word, in the order of the script's answer. */
static const char *const stamped[STAMPS] = {"settings", "keys", "audit"};

/* A part of which something else stands in Redis than at the last report looks for itself: the message about it may have been lost. */
static void compare_stamps(struct daemon *d, const redisReply *stamps)
{
	struct fleet_nodes *nodes = d->fleet_nodes;

	for (size_t i = 0; i < STAMPS && i < stamps->elements; i++) {
		const char *stamp = stamps->element[i]->str;

		if (!stamp || !strcmp(stamp, nodes->stamps[i]))
			continue;
		snprintf(nodes->stamps[i], sizeof(nodes->stamps[i]), "%s", stamp);
		fleet_hear(d, stamped[i]);
	}
}

static void hear(struct daemon *d, void *arg, int error, const redisReply *reply)
{
	struct fleet_nodes *nodes = d->fleet_nodes;
	const redisReply *all;

	(void)arg;
	if (error || reply->type != REDIS_REPLY_ARRAY || reply->elements != 3 ||
		reply->element[0]->type != REDIS_REPLY_INTEGER || reply->element[1]->type != REDIS_REPLY_ARRAY ||
		reply->element[2]->type != REDIS_REPLY_ARRAY)
		return;
	all = reply->element[1];
	pthread_mutex_lock(&nodes->lock);
	nodes->now_ms = (uint64_t)reply->element[0]->integer;
	nodes->heard_ns = time_mono_ns();
	for (size_t i = 0; i + 1 < all->elements; i += 2)
		if (all->element[i]->str && all->element[i + 1]->str)
			hear_one(nodes, all->element[i]->str, all->element[i + 1]->str);
	pthread_mutex_unlock(&nodes->lock);
	compare_stamps(d, reply->element[2]);
}

static uint64_t nodes_step(struct daemon *d, struct fleet_round *round, uint64_t now_mono_ns)
{
	struct fleet_nodes *nodes = d->fleet_nodes;
	char key[1 + STAMPS][FLEET_KEY_MAX], id[16], *report;
	const char *keys[] = {fleet_key(d, "nodes", key[0]), fleet_key(d, "settings", key[1]),
		fleet_key(d, "keys", key[2]), fleet_key(d, "audit", key[3])};
	const char *arguments[] = {id, NULL, FORGET_MS};

	if (now_mono_ns < nodes->next_ns)
		return nodes->next_ns;
	report = make_report(d, now_mono_ns);
	if (!report)
		return now_mono_ns + REPORT_NS;
	snprintf(id, sizeof(id), "%u", d->config.fleet.node);
	arguments[1] = report;
	if (fleet_script(round, "node_report", keys, 1 + STAMPS, arguments, 3, hear, NULL))
		nodes->next_ns = now_mono_ns + REPORT_NS;
	free(report);
	return nodes->next_ns;
}

const struct fleet_part fleet_nodes_part = {.name = "nodes", .step = nodes_step};

/* --- for people -------------------------------------------------------------------------------------------------------------------------- */
static const json_t *told(const struct heard *heard, const char *name)
{
	return heard->report ? json_object_get(heard->report, name) : NULL;
}

static json_t *told_or_null(const struct heard *heard, const char *name)
{
	json_t *value = json_incref((json_t *)(uintptr_t)told(heard, name));

	return value ? value : json_null();
}

/* Milliseconds since it was heard of; negative: never, or Redis is away and nobody knows. The lock is held. */
static int64_t silent_ms(const struct fleet_nodes *nodes, const struct heard *heard, uint64_t now)
{
	uint64_t since_ms = (now - nodes->heard_ns) / MS;

	if (!heard->report)
		return -1;
	return (int64_t)(since_ms + (nodes->now_ms > heard->seen_ms ? nodes->now_ms - heard->seen_ms : 0));
}

static json_t *node_json(struct daemon *d, uint32_t id, uint64_t now)
{
	struct fleet_nodes *nodes = d->fleet_nodes;
	const struct heard *heard = &nodes->nodes[id];
	const struct config_node *known = config_node(&d->config, id);
	const char *url = known ? known->url : json_string_value(told(heard, "url"));
	bool is_own = id == d->config.fleet.node, is_fresh = nodes->heard_ns && now - nodes->heard_ns < SILENT_MS * MS;
	int64_t ms = silent_ms(nodes, heard, now);
	const char *state = is_own                        ? "up"
		: ms < 0 || (!is_fresh && ms > SILENT_MS) ? "unknown"
		: ms > SILENT_MS                          ? "silent"
							  : "up";
	json_t *leases = is_own ? fleet_leases_report(d, SLUICE_MAX_SALES) : told_or_null(heard, "leases");

	return json_pack("{s:i, s:s, s:b, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "id", (int)id, "url",
		url ? url : "", "this_node", is_own, "state", state, "seen_seconds_ago",
		ms < 0 ? json_null() : json_real((double)(ms / 100) / 10), "version", told_or_null(heard, "version"),
		"started_at", told_or_null(heard, "started_at"), "ledger", told_or_null(heard, "ledger"), "sales",
		told_or_null(heard, "sales"), "orders_durable", told_or_null(heard, "orders_durable"),
		"orders_per_second", told_or_null(heard, "orders_per_second"), "stream_lag",
		told_or_null(heard, "stream_lag"), "leases", leases ? leases : json_null());
}

json_t *fleet_nodes_json(struct daemon *d)
{
	struct fleet_nodes *nodes = d->fleet_nodes;
	uint64_t now = time_mono_ns();
	json_t *list = json_array();

	pthread_mutex_lock(&nodes->lock);
	for (uint32_t id = 1; id <= NODE_ID_MAX; id++)
		if (config_node(&d->config, id) || nodes->nodes[id].report)
			json_array_append_new(list, node_json(d, id, now));
	pthread_mutex_unlock(&nodes->lock);
	return json_pack("{s:o, s:o}", "nodes", list, "redis", fleet_report_json(d));
}

int fleet_nodes_open(struct daemon *d)
{
	struct fleet_nodes *nodes = calloc(1, sizeof(*nodes));

	if (!nodes)
		return -ENOMEM;
	pthread_mutex_init(&nodes->lock, NULL);
	d->fleet_nodes = nodes;
	return 0;
}

void fleet_nodes_free(struct daemon *d)
{
	struct fleet_nodes *nodes = d->fleet_nodes;

	if (!nodes)
		return;
	for (unsigned id = 0; id <= NODE_ID_MAX; id++)
		json_decref(nodes->nodes[id].report);
	pthread_mutex_destroy(&nodes->lock);
	free(nodes);
	d->fleet_nodes = NULL;
}
