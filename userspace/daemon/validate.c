/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Validation of request bodies against a table. Pure; called by the control routes, the token routes and unit tests.
 *
 * Strict on purpose: a field that is misspelt would otherwise be a setting that silently does not apply, on the night when it matters.
 */
#include "daemon/validate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/list_text.h"
#include "common/timefmt.h"

static __attribute__((format(printf, 5, 6))) int fail(
	struct validate_error *error, unsigned status, const char *code, const char *field, const char *format, ...)
{
	va_list args;

	error->status = status;
	snprintf(error->code, sizeof(error->code), "%s", code);
	snprintf(error->field, sizeof(error->field), "%s", field);
	va_start(args, format);
	vsnprintf(error->detail, sizeof(error->detail), format, args);
	va_end(args);
	return -EINVAL;
}

static int read_integer(
	const struct validate_field *field, const json_t *value, int64_t *out, struct validate_error *error)
{
	if (!json_is_integer(value))
		return fail(error, 400, "wrong_type", field->name, "%s must be an integer.", field->name);
	*out = json_integer_value(value);
	if (*out < field->min || *out > field->max)
		return fail(error, 422, "out_of_range", field->name, "%s must be from %" PRId64 " to %" PRId64 ".",
			field->name, field->min, field->max);
	return 0;
}

static int read_number(
	const struct validate_field *field, const json_t *value, double *out, struct validate_error *error)
{
	if (!json_is_number(value))
		return fail(error, 400, "wrong_type", field->name, "%s must be a number.", field->name);
	*out = json_number_value(value);
	if (*out != 0 && !(*out >= field->low && *out <= field->high))
		return fail(error, 422, "out_of_range", field->name, "%s must be 0, or from %g to %.0f.", field->name,
			field->low, field->high);
	return 0;
}

static int read_text(const struct validate_field *field, const json_t *value, char *out, struct validate_error *error)
{
	size_t length = json_string_length(value);

	if (!json_is_string(value))
		return fail(error, 400, "wrong_type", field->name, "%s must be a text.", field->name);
	if (length < (size_t)field->min || length > (size_t)field->max)
		return fail(error, 422, "out_of_range", field->name,
			"%s must have from %" PRId64 " to %" PRId64 " bytes.", field->name, field->min, field->max);
	if (strlen(json_string_value(value)) != length)
		return fail(
			error, 422, "out_of_range", field->name, "%s must not contain a NUL character.", field->name);
	if (field->kind == VALIDATE_LINE && !list_text_is_clean(json_string_value(value)))
		return fail(error, 422, "out_of_range", field->name, "%s must not contain control characters.",
			field->name);
	memcpy(out, json_string_value(value), length + 1);
	return 0;
}

static int read_time(
	const struct validate_field *field, const json_t *value, uint64_t *out, struct validate_error *error)
{
	if (!json_is_string(value))
		return fail(error, 400, "wrong_type", field->name,
			"%s must be a text such as \"2026-11-22T12:00:00Z\".", field->name);
	if (strlen(json_string_value(value)) != json_string_length(value) ||
		time_parse_rfc3339(json_string_value(value), out))
		return fail(error, 422, "out_of_range", field->name,
			"%s must be an RFC 3339 time such as \"2026-11-22T12:00:00Z\".", field->name);
	return 0;
}

static int read_boolean(
	const struct validate_field *field, const json_t *value, bool *out, struct validate_error *error)
{
	if (!json_is_boolean(value))
		return fail(error, 400, "wrong_type", field->name, "%s must be true or false.", field->name);
	*out = json_is_true(value);
	return 0;
}

static int read_field(const struct validate_field *field, const json_t *value, void *out, struct validate_error *error)
{
	void *at = (char *)out + field->offset;

	switch (field->kind) {
	case VALIDATE_INTEGER:
		return read_integer(field, value, at, error);
	case VALIDATE_NUMBER:
		return read_number(field, value, at, error);
	case VALIDATE_TEXT:
	case VALIDATE_LINE:
		return read_text(field, value, at, error);
	case VALIDATE_TIME:
		return read_time(field, value, at, error);
	case VALIDATE_BOOLEAN:
		return read_boolean(field, value, at, error);
	}
	return -EINVAL;
}

int validate_object(const json_t *object, const struct validate_field *fields, unsigned count, void *out,
	uint32_t *present, struct validate_error *error)
{
	const char *name;
	json_t *value;

	*present = 0;
	json_object_foreach((json_t *)(uintptr_t)object, name, value) {
		unsigned i = 0;

		while (i < count && strcmp(fields[i].name, name) != 0)
			i++;
		if (i == count)
			return fail(error, 400, "unknown_field", name, "There is no field \"%.64s\" here.", name);
	}
	for (unsigned i = 0; i < count; i++) {
		value = json_object_get(object, fields[i].name);
		if (!value && fields[i].required)
			return fail(error, 400, "missing_field", fields[i].name, "%s is missing.", fields[i].name);
		if (!value)
			continue;
		if (read_field(&fields[i], value, out, error))
			return -EINVAL;
		*present |= 1u << i;
	}
	return 0;
}
