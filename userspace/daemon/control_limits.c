/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate's rates over the control API. In force from the next packet on; after the next attach the config file's are. */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/config.h"
#include "daemon/control.h"
#include "daemon/http_public.h"
#include "daemon/validate.h"

#define RATE_MIN 0.001
#define RATE_MAX 1e9
#define BURST_MAX 1000000

struct limit_body {
	double rate;
	int64_t burst;
};

static const struct validate_field limit_fields[] = {
	{.name = "rate",
		.kind = VALIDATE_NUMBER,
		.low = RATE_MIN,
		.high = RATE_MAX,
		.offset = offsetof(struct limit_body, rate)},
	{.name = "burst",
		.kind = VALIDATE_INTEGER,
		.min = 1,
		.max = BURST_MAX,
		.offset = offsetof(struct limit_body, burst)},
};

static int read_limits(struct daemon *d, struct sluice_limits *limits)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(d->maps.limits, &zero, limits);
}

static enum MHD_Result send_limits(struct http_request *request)
{
	struct sluice_limits limits;
	json_t *json;

	if (read_limits(request->d, &limits))
		return http_problem(request, 500, "internal_error", "The gate's limits cannot be read.");
	json = json_object();
	for (unsigned id = 0; id < SLUICE_LIMIT_COUNT; id++) {
		struct config_limit limit;

		config_limit_from_gate(&limits.limit[id], &limit);
		json_object_set_new(json, config_limit_name(id),
			json_pack("{s:f, s:I}", "rate", limit.rate, "burst", (json_int_t)limit.burst));
	}
	return http_send_json(request, 200, json);
}

enum MHD_Result control_get_limits(struct http_request *request)
{
	return send_limits(request);
}

/* Applies the whole document to `limits`, or nothing. */
static bool apply(
	struct http_request *request, const json_t *json, struct sluice_limits *limits, enum MHD_Result *result)
{
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)json, name, value) {
		int id = config_limit_id(name);
		struct config_limit limit;
		struct validate_error error;
		struct limit_body body;
		uint32_t present;

		if (id < 0) {
			*result = http_problem_field(
				request, 400, "unknown_field", name, "There is no limit \"%.64s\".", name);
			return false;
		}
		if (!json_is_object(value)) {
			*result = http_problem_field(request, 400, "wrong_type", name,
				"%s must be an object such as {\"rate\":50.0,\"burst\":100}.", name);
			return false;
		}
		config_limit_from_gate(&limits->limit[id], &limit);
		body = (struct limit_body){.rate = limit.rate, .burst = limit.burst};
		if (validate_object(value, limit_fields, sizeof(limit_fields) / sizeof(limit_fields[0]), &body,
			    &present, &error)) {
			char field[sizeof(error.field) + 32];

			snprintf(field, sizeof(field), "%s.%s", name, error.field);
			*result = http_problem_field(
				request, error.status, error.code, field, "%s: %s", name, error.detail);
			return false;
		}
		limit.rate = body.rate;
		limit.burst = body.burst < 1 ? 1 : (uint32_t)body.burst;
		config_limit_to_gate(&limit, &limits->limit[id]);
	}
	return true;
}

enum MHD_Result control_patch_limits(struct http_request *request)
{
	struct daemon *d = request->d;
	struct sluice_limits limits;
	enum MHD_Result result;
	__u32 zero = 0;
	json_t *json = http_read_json(request, &result);
	bool applied;
	int err;

	if (!json)
		return result;
	pthread_mutex_lock(&d->change_lock);
	err = read_limits(d, &limits);
	applied = !err && apply(request, json, &limits, &result);
	if (applied)
		err = bpf_map_update_elem(d->maps.limits, &zero, &limits, BPF_ANY);
	pthread_mutex_unlock(&d->change_lock);
	json_decref(json);
	if (err)
		return http_problem(
			request, 500, "internal_error", "The gate's limits cannot be changed: %s.", strerror(-err));
	return applied ? send_limits(request) : result;
}
