/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Reads the fields of a question. Called by query*.c.
 *
 * Strictly: each field has one type and a range, and a field that nobody asked for is an error that names it. A daemon
 * of another version then hears of a misunderstanding instead of having half of what it said ignored.
 */
#include "writer/query_fields.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEX_DIGITS 16
#define WORD_MAX 31

void fields_fail(struct fields *fields, const char *format, ...)
{
	va_list args;

	if (fields->error[0])
		return;
	va_start(args, format);
	vsnprintf(fields->error, STORE_ERROR_MAX, format, args);
	va_end(args);
}

bool fields_has(const struct fields *fields, const char *name)
{
	return json_object_get(fields->object, name);
}

const json_t *fields_get(struct fields *fields, const char *name, bool required)
{
	const json_t *value = json_object_get(fields->object, name);

	fields->known[fields->known_count++] = name;
	if (value)
		fields->used++;
	else if (required)
		fields_fail(fields, "%s is missing", name);
	return value;
}

int64_t fields_integer(struct fields *fields, const char *name, int64_t low, int64_t high)
{
	const json_t *value = fields_get(fields, name, true);

	if (!value)
		return 0;
	if (!json_is_integer(value) || json_integer_value(value) < low || json_integer_value(value) > high) {
		fields_fail(fields, "%s must be an integer from %" PRId64 " to %" PRId64, name, low, high);
		return 0;
	}
	return json_integer_value(value);
}

bool fields_bool(struct fields *fields, const char *name)
{
	const json_t *value = fields_get(fields, name, true);

	if (value && !json_is_boolean(value))
		fields_fail(fields, "%s must be true or false", name);
	return json_is_true(value);
}

/* NULL if it is absent or no such text. */
static const char *get_text(struct fields *fields, const char *name, bool required, size_t low, size_t high)
{
	const json_t *value = fields_get(fields, name, required);

	if (!value)
		return NULL;
	/* A NUL inside would cut it short: two keys could then be one. */
	if (!json_is_string(value) || json_string_length(value) < low || json_string_length(value) > high ||
		strlen(json_string_value(value)) != json_string_length(value)) {
		fields_fail(fields, "%s must be a text of %zu to %zu bytes", name, low, high);
		return NULL;
	}
	return json_string_value(value);
}

void fields_text(struct fields *fields, const char *name, bool required, size_t low, size_t high, char *text)
{
	const char *value = get_text(fields, name, required, low, high);

	strcpy(text, value ? value : "");
}

const char *fields_long_text(struct fields *fields, const char *name, size_t high)
{
	const char *value = get_text(fields, name, true, 0, high);

	return value ? value : "";
}

uint64_t fields_hex(struct fields *fields, const char *name)
{
	const char *value = get_text(fields, name, true, 0, HEX_DIGITS);

	if (value && (strlen(value) != HEX_DIGITS || value[strspn(value, "0123456789abcdef")])) {
		fields_fail(fields, "%s must be %d hex digits in lower case", name, HEX_DIGITS);
		return 0;
	}
	return value ? strtoull(value, NULL, 16) : 0;
}

unsigned fields_word(
	struct fields *fields, const char *name, unsigned (*of_word)(const char *word), const char *choices)
{
	const char *value = get_text(fields, name, true, 0, WORD_MAX);
	unsigned number = value ? of_word(value) : 0;

	if (value && !number)
		fields_fail(fields, "%s must be %s", name, choices);
	return number;
}

struct fields fields_object(struct fields *fields, const char *name, bool required)
{
	struct fields inner = {.object = fields_get(fields, name, required), .error = fields->error};

	if (inner.object && !json_is_object(inner.object)) {
		fields_fail(fields, "%s must be an object", name);
		inner.object = NULL;
	}
	return inner;
}

const json_t *fields_array(struct fields *fields, const char *name, size_t high)
{
	const json_t *value = fields_get(fields, name, true);

	if (!value)
		return NULL;
	if (!json_is_array(value) || !json_array_size(value) || json_array_size(value) > high) {
		fields_fail(fields, "%s must be an array of 1 to %zu objects", name, high);
		return NULL;
	}
	return value;
}

struct fields fields_element(struct fields *fields, const json_t *array, size_t index, const char *name)
{
	struct fields element = {.object = json_array_get(array, index), .error = fields->error};

	if (!json_is_object(element.object))
		fields_fail(fields, "each of %s must be an object", name);
	return element;
}

int fields_end(struct fields *fields)
{
	const char *name;
	json_t *value;

	if (fields->error[0])
		return -EINVAL;
	if (fields->used == json_object_size(fields->object))
		return 0;
	json_object_foreach((json_t *)(uintptr_t)fields->object, name, value) {
		bool known = false;

		for (unsigned i = 0; i < fields->known_count; i++)
			known |= !strcmp(name, fields->known[i]);
		if (!known)
			fields_fail(fields, "unknown field %s", name);
	}
	return -EINVAL;
}
