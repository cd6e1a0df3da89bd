/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* See limits_kept.h. Called by kept.c, and by control_limits.c for the table of fields. */
#include "daemon/limits_kept.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/shadow.h"

#define DOCUMENT_VERSION 1
#define RATE_MIN 0.001
#define RATE_MAX 1e9
#define BURST_MAX 1000000

const struct validate_field limit_fields[LIMIT_FIELDS] = {
	[LIMIT_FIELD_RATE] = {.name = "rate",
		.kind = VALIDATE_NUMBER,
		.low = RATE_MIN,
		.high = RATE_MAX,
		.offset = offsetof(struct limit_body, rate)},
	[LIMIT_FIELD_BURST] = {.name = "burst",
		.kind = VALIDATE_INTEGER,
		.min = 1,
		.max = BURST_MAX,
		.offset = offsetof(struct limit_body, burst)},
	[LIMIT_FIELD_SHADOW] = {.name = "shadow",
		.kind = VALIDATE_BOOLEAN,
		.offset = offsetof(struct limit_body, shadow)},
};

char *limits_kept_text(const struct limits_state *state)
{
	json_t *json = json_pack("{s:i}", "version", DOCUMENT_VERSION);
	char *text;

	for (unsigned which = 0; json && which < SHADOW_SWITCHES; which++) {
		json_t *member = json_object();

		if (which < SLUICE_LIMIT_COUNT && state->kept & SLUICE_KEPT_RATE(which)) {
			struct config_limit limit;

			config_limit_from_gate(&state->limits.limit[which], &limit);
			json_object_set_new(member, "rate", json_real(limit.rate));
			json_object_set_new(member, "burst", json_integer(limit.burst));
		}
		if (state->kept & SLUICE_KEPT_SHADOW(which))
			json_object_set_new(member, "shadow", json_boolean(state->shadow & shadow_flag(which)));
		if (json_object_size(member))
			json_object_set(json, shadow_name(which), member);
		json_decref(member);
	}
	text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	return text;
}

static unsigned switch_of(const char *name)
{
	unsigned which = 0;

	while (which < SHADOW_SWITCHES && strcmp(shadow_name(which), name) != 0)
		which++;
	return which;
}

static void take(struct limits_state *state, unsigned which, uint32_t present, const struct limit_body *body)
{
	if (present & 1u << LIMIT_FIELD_RATE && !(state->kept & SLUICE_KEPT_RATE(which))) {
		struct config_limit limit = {.rate = body->rate, .burst = (uint32_t)body->burst};

		config_limit_to_gate(&limit, &state->limits.limit[which]);
		state->kept |= SLUICE_KEPT_RATE(which);
	}
	if (present & 1u << LIMIT_FIELD_SHADOW && !(state->kept & SLUICE_KEPT_SHADOW(which))) {
		state->shadow &= ~shadow_flag(which);
		state->shadow |= body->shadow ? shadow_flag(which) : 0;
		state->kept |= SLUICE_KEPT_SHADOW(which);
	}
}

static int read_members(const json_t *json, struct limits_state *state, char *error, size_t size)
{
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)json, name, value) {
		unsigned which = switch_of(name), first;
		struct limit_body body = {0};
		struct validate_error wrong;
		uint32_t present;

		if (!strcmp(name, "version"))
			continue;
		if (which == SHADOW_SWITCHES || !json_is_object(value)) {
			snprintf(error, size, "%.40s: %s", name,
				which == SHADOW_SWITCHES ? "there is no limit of this name" : "it must be an object");
			return -EINVAL;
		}
		first = which < SLUICE_LIMIT_COUNT ? 0 : LIMIT_FIELD_SHADOW;
		if (validate_object(value, limit_fields + first, LIMIT_FIELDS - first, &body, &present, &wrong)) {
			snprintf(error, size, "%.40s: %s", name, wrong.detail);
			return -EINVAL;
		}
		present <<= first;
		if (!(present & 1u << LIMIT_FIELD_RATE) != !(present & 1u << LIMIT_FIELD_BURST)) {
			snprintf(error, size, "%.40s: rate and burst go together", name);
			return -EINVAL;
		}
		take(state, which, present, &body);
	}
	return 0;
}

int limits_kept_read(const char *text, struct limits_state *state, char *error, size_t size)
{
	struct limits_state wanted = *state;
	json_error_t at;
	json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &at);
	int err = 0;

	if (!json_is_object(json)) {
		snprintf(error, size, "%s", json ? "it is not an object" : at.text);
		err = -EINVAL;
	} else if (json_integer_value(json_object_get(json, "version")) != DOCUMENT_VERSION) {
		snprintf(error, size, "it is not of this version");
		err = -EINVAL;
	}
	if (!err)
		err = read_members(json, &wanted, error, size);
	if (!err)
		*state = wanted;
	json_decref(json);
	return err;
}
