/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* How the settings of the fleet stand on this node, for people and for metrics. Called by fleet_report.c, control_status.c and metrics.c. */
#include <inttypes.h>

#include "daemon/fleet_settings_impl.h"

json_t *fleet_settings_json(struct daemon *d)
{
	struct fleet_settings_status status;

	fleet_settings_status(d, &status);
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "known", (json_int_t)status.settings,
		"removed", (json_int_t)status.removed, "place", (json_int_t)status.place, "behind",
		(json_int_t)status.behind, "unsent", (json_int_t)status.unsent, "due", (json_int_t)status.due,
		"refused", (json_int_t)status.refused, "published", (json_int_t)status.published, "pulled",
		(json_int_t)status.pulled, "losses", (json_int_t)status.losses);
}

static void print(FILE *out, const char *name, const char *type, const char *help, uint64_t value)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n%s %" PRIu64 "\n", name, help, name, type, name, value);
}

void fleet_settings_render(struct daemon *d, FILE *out)
{
	struct fleet_settings_status status;

	if (!d->settings)
		return;
	fleet_settings_status(d, &status);
	print(out, "sluice_fleet_settings", "gauge",
		"Settings of the fleet that this node knows, those that were removed lately included.",
		status.settings);
	print(out, "sluice_fleet_settings_removed", "gauge",
		"Of these, those that were removed and are remembered as such.", status.removed);
	print(out, "sluice_fleet_settings_place", "gauge",
		"Up to where this node has what Redis has, in the order in which it came there.", status.place);
	print(out, "sluice_fleet_settings_behind", "gauge",
		"Changes that Redis had at the last answer and this node has not read yet.", status.behind);
	print(out, "sluice_fleet_settings_unsent", "gauge", "Changes made here that Redis has not got yet.",
		status.unsent);
	print(out, "sluice_fleet_settings_due", "gauge", "Settings that this node knows and has not put in force yet.",
		status.due);
	print(out, "sluice_fleet_settings_refused", "gauge",
		"Settings of other nodes that cannot be in force here; the log says why.", status.refused);
	print(out, "sluice_fleet_settings_published_total", "counter", "Changes that this node has told Redis.",
		status.published);
	print(out, "sluice_fleet_settings_pulled_total", "counter",
		"Changes of other nodes that this node has got from Redis.", status.pulled);
	print(out, "sluice_fleet_settings_losses_total", "counter",
		"How often Redis was another one than before, or had lost settings.", status.losses);
}

void fleet_settings_ready(struct daemon *d, char *text, size_t size)
{
	struct fleet_settings_status status;

	*text = '\0';
	if (!d->settings)
		return;
	fleet_settings_status(d, &status);
	if (status.refused)
		snprintf(text, size,
			"[~] settings: degraded: %" PRIu64 " of other nodes cannot be in force here (see the log)\n",
			status.refused);
	else if (status.unsent || status.behind || status.due)
		snprintf(text, size,
			"[~] settings: degraded: %" PRIu64 " to be told, %" PRIu64 " to be read, %" PRIu64
			" to be done\n",
			status.unsent, status.behind, status.due);
	else
		snprintf(text, size, "[+] settings\n");
}
