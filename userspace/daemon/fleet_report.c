/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The way to Redis as it is shown; see fleet_report.h. Called by control_status.c and metrics.c on their threads.
 *
 * A node without Redis goes on selling what it holds: so it is degraded, and nowhere called dead.
 */
#include "daemon/fleet_report.h"

#include <inttypes.h>

#include "common/timefmt.h"
#include "daemon/fleet.h"
#include "daemon/fleet_keys.h"
#include "daemon/fleet_leases.h"
#include "daemon/fleet_settings.h"

#define NS_PER_S 1e9

static double away_seconds(const struct fleet_status *status)
{
	uint64_t now = time_mono_ns();

	return status->away_ns && now > status->away_ns ? (double)(now - status->away_ns) / NS_PER_S : 0;
}

json_t *fleet_report_json(struct daemon *d)
{
	struct fleet_status status;

	if (!d->fleet)
		return json_null();
	fleet_status(d, &status);
	return json_pack("{s:i, s:i, s:s, s:b, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:b, s:o}", "node",
		(int)d->config.fleet.node, "nodes", (int)d->config.node_count, "redis", d->config.fleet.redis,
		"connected", status.connected, "away_seconds", (json_int_t)away_seconds(&status), "failure",
		*status.redis.failure ? json_string(status.redis.failure) : json_null(), "rounds",
		(json_int_t)status.redis.rounds, "calls", (json_int_t)status.redis.calls, "errors",
		(json_int_t)status.redis.errors, "timeouts", (json_int_t)status.redis.timeouts, "reconnects",
		(json_int_t)status.redis.reconnects, "redirects", (json_int_t)status.redis.redirects, "round_us",
		status.redis.round_ns ? json_integer((json_int_t)(status.redis.round_ns / 1000)) : json_null(),
		"subscribed", status.redis.subscribed, "settings", fleet_settings_json(d));
}

static void counter(FILE *out, const char *name, const char *help, uint64_t value)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s counter\n%s %" PRIu64 "\n", name, help, name, name, value);
}

static void gauge(FILE *out, const char *name, const char *help, double value)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s gauge\n%s %.9g\n", name, help, name, name, value);
}

void fleet_report_render(struct daemon *d, FILE *out)
{
	struct fleet_status status;

	if (!d->fleet)
		return;
	fleet_status(d, &status);
	gauge(out, "sluice_redis_connected", "1 while Redis answers this node, 0 while it goes on with what it holds.",
		status.connected);
	gauge(out, "sluice_redis_away_seconds", "Since when Redis has not answered; 0 while it does.",
		away_seconds(&status));
	counter(out, "sluice_redis_rounds_total", "Rounds of calls to Redis, since the start.", status.redis.rounds);
	counter(out, "sluice_redis_calls_total", "Calls that were sent to Redis.", status.redis.calls);
	counter(out, "sluice_redis_errors_total", "Calls that Redis has answered with an error.", status.redis.errors);
	counter(out, "sluice_redis_timeouts_total", "Rounds in which a server did not answer in time.",
		status.redis.timeouts);
	counter(out, "sluice_redis_reconnects_total", "Connections to servers of Redis made anew.",
		status.redis.reconnects);
	counter(out, "sluice_redis_redirects_total", "Calls that a Redis Cluster has sent on to another server.",
		status.redis.redirects);
	fprintf(out,
		"# HELP sluice_redis_round_seconds From sending the calls of a round to the last answer, of rounds in which all were answered.\n"
		"# TYPE sluice_redis_round_seconds summary\nsluice_redis_round_seconds_sum %.9g\n"
		"sluice_redis_round_seconds_count %" PRIu64 "\n",
		(double)status.redis.whole_ns / NS_PER_S, status.redis.whole);
	gauge(out, "sluice_redis_last_round_seconds", "How long the last of them took.",
		(double)status.redis.round_ns / NS_PER_S);
}

/* Without them orders stay closed. */
static const char *keys_line(const struct daemon *d)
{
	switch (fleet_keys_standing(d)) {
	case FLEET_KEYS_AGREED:
		return "[+] keys of the fleet";
	case FLEET_KEYS_OTHER_SECRET:
		return "[-] keys of the fleet: this node has another secret";
	default:
		return "[-] keys of the fleet: not known yet; orders stay closed until Redis has answered once";
	}
}

static int leases_lines(struct daemon *d, char *text, size_t size)
{
	unsigned doubled = fleet_leases_troubled(d, LEASE_TROUBLE_DOUBLED);
	unsigned set_back = fleet_leases_troubled(d, LEASE_TROUBLE_SET_BACK);
	int used = 0;

	if (doubled)
		used = snprintf(text, size,
			"[~] leases: degraded: another daemon speaks as node %u; %u sale%s not sold here (see the log)\n",
			d->config.fleet.node, doubled, doubled == 1 ? " is" : "s are");
	if (set_back && used >= 0 && (size_t)used < size)
		used += snprintf(text + used, size - (size_t)used,
			"[~] leases: degraded: the ledger is an older one, or another node's; %u sale%s not sold here (see the log)\n",
			set_back, set_back == 1 ? " is" : "s are");
	return used;
}

void fleet_report_ready(struct daemon *d, char *text, size_t size)
{
	struct fleet_status status;
	int used;

	*text = '\0';
	if (!d->fleet)
		return;
	fleet_status(d, &status);
	if (status.connected)
		used = snprintf(text, size, "[+] redis\n");
	else
		used = snprintf(text, size, "[~] redis: degraded: %.200s\n",
			*status.redis.failure ? status.redis.failure : "not asked yet");
	if (used >= 0 && (size_t)used < size)
		used += snprintf(text + used, size - (size_t)used, "%s\n", keys_line(d));
	if (used >= 0 && (size_t)used < size)
		leases_lines(d, text + used, size - (size_t)used);
}
