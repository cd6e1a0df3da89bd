/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate's rates and their shadow mode over the control API. In force from the next packet on, and kept in the ledger (kept.h): over restarts
 * of the daemon, the next attach and a reboot.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/config.h"
#include "daemon/control.h"
#include "daemon/fleet_settings.h"
#include "daemon/http_public.h"
#include "daemon/kept.h"
#include "daemon/limits_kept.h"
#include "daemon/shadow.h"
#include "daemon/validate.h"

/* What a document asks for, whole. */
struct change {
	struct sluice_limits limits;
	bool moves_limits;
	uint32_t shadow_on, shadow_off;
	uint64_t set; /* SLUICE_KEPT_RATE, SLUICE_KEPT_SHADOW */
};

static int read_limits(struct daemon *d, struct sluice_limits *limits)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(d->maps.limits, &zero, limits);
}

/* All that can be set here; NULL if the gate cannot be read. */
static json_t *limits_json(struct daemon *d)
{
	uint32_t shadow = shadow_flags(d);
	struct sluice_limits limits;
	json_t *json;

	if (read_limits(d, &limits))
		return NULL;
	json = json_object();
	for (unsigned id = 0; id < SLUICE_LIMIT_COUNT; id++) {
		struct config_limit limit;

		config_limit_from_gate(&limits.limit[id], &limit);
		json_object_set_new(json, shadow_name(id),
			json_pack("{s:f, s:I, s:b}", "rate", limit.rate, "burst", (json_int_t)limit.burst, "shadow",
				!!(shadow & shadow_flag(id))));
	}
	for (unsigned which = SHADOW_PACE; which <= SHADOW_DENY; which++)
		json_object_set_new(
			json, shadow_name(which), json_pack("{s:b}", "shadow", !!(shadow & shadow_flag(which))));
	json_object_set_new(json, "shadow", json_boolean(shadow & shadow_flag(SHADOW_ALL)));
	return json;
}

static enum MHD_Result send_limits(struct http_request *request, bool is_durable, bool is_replicated)
{
	json_t *json = limits_json(request->d);

	if (!json)
		return http_problem(request, 500, "internal_error", "The gate's limits cannot be read.");
	http_set_etag(request, http_etag_of_json(json));
	return http_send_json(request, 200, fleet_settings_mark(kept_note(json, is_durable), is_replicated));
}

/* Do the headers If-Match and If-None-Match allow a change of what is in force now? */
static bool check_tag(struct http_request *request, enum MHD_Result *result)
{
	json_t *json = limits_json(request->d);
	uint64_t tag = json ? http_etag_of_json(json) : 0;

	json_decref(json);
	return http_check_etag(request, true, tag, result);
}

enum MHD_Result control_get_limits(struct http_request *request)
{
	return send_limits(request, true, true);
}

/* The switch of that name in the document; SHADOW_ALL for none. */
static unsigned switch_of(const char *name)
{
	unsigned which = 0;

	while (which < SHADOW_ALL && strcmp(shadow_name(which), name) != 0)
		which++;
	return which;
}

static void want_shadow(struct change *change, unsigned which, bool on)
{
	*(on ? &change->shadow_on : &change->shadow_off) |= shadow_flag(which);
	change->set |= SLUICE_KEPT_SHADOW(which);
}

/* One member that is an object: a limit, or what has only a shadow. */
static bool read_member(struct http_request *request, const char *name, unsigned which, const json_t *value,
	struct change *change, enum MHD_Result *result)
{
	bool is_limit = which < SLUICE_LIMIT_COUNT;
	unsigned first = is_limit ? 0 : LIMIT_FIELD_SHADOW;
	struct limit_body body = {0};
	struct config_limit limit;
	struct validate_error error;
	uint32_t present;

	if (!json_is_object(value)) {
		*result = http_problem_field(request, 400, "wrong_type", name, "%s must be an object such as %s.", name,
			is_limit ? "{\"rate\":50.0,\"burst\":100}" : "{\"shadow\":true}");
		return false;
	}
	if (is_limit) {
		config_limit_from_gate(&change->limits.limit[which], &limit);
		body.rate = limit.rate;
		body.burst = limit.burst;
	}
	if (validate_object(value, limit_fields + first, LIMIT_FIELDS - first, &body, &present, &error)) {
		char field[sizeof(error.field) + 32];

		snprintf(field, sizeof(field), "%s.%s", name, error.field);
		*result = http_problem_field(request, error.status, error.code, field, "%s: %s", name, error.detail);
		return false;
	}
	present <<= first;
	if (present & 1u << LIMIT_FIELD_SHADOW)
		want_shadow(change, which, body.shadow);
	if (present & (1u << LIMIT_FIELD_RATE | 1u << LIMIT_FIELD_BURST)) {
		limit.rate = body.rate;
		limit.burst = body.burst < 1 ? 1 : (uint32_t)body.burst;
		config_limit_to_gate(&limit, &change->limits.limit[which]);
		change->moves_limits = true;
		change->set |= SLUICE_KEPT_RATE(which);
	}
	return true;
}

/* Reads the whole document into `change`; false after having answered. */
static bool read_change(
	struct http_request *request, const json_t *json, struct change *change, enum MHD_Result *result)
{
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)json, name, value) {
		unsigned which = switch_of(name);

		if (which < SHADOW_ALL) {
			if (!read_member(request, name, which, value, change, result))
				return false;
		} else if (strcmp(name, "shadow") != 0) {
			*result = http_problem_field(
				request, 400, "unknown_field", name, "There is no limit \"%.64s\".", name);
			return false;
		} else if (!json_is_boolean(value)) {
			*result = http_problem_field(request, 400, "wrong_type", name, "shadow must be true or false.");
			return false;
		} else {
			want_shadow(change, SHADOW_ALL, json_is_true(value));
		}
	}
	return true;
}

enum MHD_Result control_patch_limits(struct http_request *request)
{
	struct daemon *d = request->d;
	struct change change = {0};
	enum MHD_Result result;
	__u32 zero = 0;
	json_t *json = http_read_json(request, &result);
	bool applied, is_durable;
	uint64_t told = 0;
	int err;

	if (!json)
		return result;
	pthread_mutex_lock(&d->change_lock);
	err = read_limits(d, &change.limits);
	applied = !err && check_tag(request, &result) && read_change(request, json, &change, &result);
	if (applied && change.moves_limits)
		err = bpf_map_update_elem(d->maps.limits, &zero, &change.limits, BPF_ANY);
	if (applied && !err) {
		shadow_change(d, change.shadow_on, change.shadow_off);
		kept_mark_limits(d, change.set);
		told = fleet_settings_note_limits(d, change.set);
	}
	pthread_mutex_unlock(&d->change_lock);
	json_decref(json);
	if (err)
		return http_problem(
			request, 500, "internal_error", "The gate's limits cannot be changed: %s.", strerror(-err));
	if (!applied)
		return result;
	is_durable = kept_write_limits(d);
	return send_limits(request, is_durable, fleet_settings_await(d, told));
}
