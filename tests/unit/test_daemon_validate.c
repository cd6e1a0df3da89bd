/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A request body is taken whole or refused with the name of the field that is to blame. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/validate.h"

struct body {
	int64_t units;
	double rate;
	char name[8];
	uint64_t when;
};

static const struct validate_field fields[] = {
	{.name = "units",
		.kind = VALIDATE_INTEGER,
		.required = true,
		.min = 1,
		.max = 100,
		.offset = offsetof(struct body, units)},
	{.name = "rate", .kind = VALIDATE_NUMBER, .low = 0.001, .high = 1e9, .offset = offsetof(struct body, rate)},
	{.name = "name", .kind = VALIDATE_TEXT, .min = 1, .max = 7, .offset = offsetof(struct body, name)},
	{.name = "when", .kind = VALIDATE_TIME, .offset = offsetof(struct body, when)},
};

static int validate(const char *text, struct body *body, uint32_t *present, struct validate_error *error)
{
	json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	int err;

	assert_non_null(json);
	memset(error, 0, sizeof(*error));
	err = validate_object(json, fields, sizeof(fields) / sizeof(fields[0]), body, present, error);
	json_decref(json);
	return err;
}

static void every_kind_of_field_is_read(void **state)
{
	struct validate_error error;
	struct body body = {0};
	uint32_t present;

	(void)state;
	assert_int_equal(validate("{\"units\":100,\"rate\":0.5,\"name\":\"seven77\",\"when\":\"1970-01-01T00:00:01Z\"}",
				 &body, &present, &error),
		0);
	assert_int_equal(body.units, 100);
	assert_true(body.rate == 0.5);
	assert_string_equal(body.name, "seven77");
	assert_int_equal(body.when, 1000000000);
	assert_int_equal(present, 15);
}

static void absent_fields_stay_as_they_are(void **state)
{
	struct validate_error error;
	struct body body = {.rate = 7, .name = "old"};
	uint32_t present;

	(void)state;
	assert_int_equal(validate("{\"units\":1}", &body, &present, &error), 0);
	assert_true(body.rate == 7);
	assert_string_equal(body.name, "old");
	assert_int_equal(present, 1);
}

static void what_is_wrong_is_named(void **state)
{
	static const struct {
		const char *text, *code, *field;
		unsigned status;
	} cases[] = {
		{"{}", "missing_field", "units", 400},
		{"{\"units\":1,\"unist\":2}", "unknown_field", "unist", 400},
		{"{\"units\":\"1\"}", "wrong_type", "units", 400},
		{"{\"units\":1.0}", "wrong_type", "units", 400},
		{"{\"units\":true}", "wrong_type", "units", 400},
		{"{\"units\":null}", "wrong_type", "units", 400},
		{"{\"units\":0}", "out_of_range", "units", 422},
		{"{\"units\":101}", "out_of_range", "units", 422},
		{"{\"units\":-9223372036854775808}", "out_of_range", "units", 422},
		{"{\"units\":1,\"rate\":\"fast\"}", "wrong_type", "rate", 400},
		{"{\"units\":1,\"rate\":0.0001}", "out_of_range", "rate", 422},
		{"{\"units\":1,\"rate\":-1}", "out_of_range", "rate", 422},
		{"{\"units\":1,\"rate\":1e10}", "out_of_range", "rate", 422},
		{"{\"units\":1,\"name\":\"\"}", "out_of_range", "name", 422},
		{"{\"units\":1,\"name\":\"eight888\"}", "out_of_range", "name", 422},
		{"{\"units\":1,\"name\":7}", "wrong_type", "name", 400},
		{"{\"units\":1,\"when\":\"tomorrow\"}", "out_of_range", "when", 422},
		{"{\"units\":1,\"when\":12}", "wrong_type", "when", 400},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct validate_error error;
		struct body body = {0};
		uint32_t present;

		assert_int_equal(validate(cases[i].text, &body, &present, &error), -EINVAL);
		assert_string_equal(error.code, cases[i].code);
		assert_string_equal(error.field, cases[i].field);
		assert_int_equal(error.status, cases[i].status);
		assert_non_null(strstr(error.detail, cases[i].field));
	}
}

static void a_nul_inside_a_text_is_refused(void **state)
{
	json_t *json = json_pack("{s:i, s:o}", "units", 1, "name", json_stringn_nocheck("a\0b", 3));
	struct validate_error error;
	struct body body = {0};
	uint32_t present;

	(void)state;
	assert_int_equal(validate_object(json, fields, 4, &body, &present, &error), -EINVAL);
	assert_string_equal(error.field, "name");
	json_decref(json);
}

static void a_text_of_one_line_has_no_control_characters(void **state)
{
	static const struct validate_field line[] = {
		{.name = "name", .kind = VALIDATE_LINE, .max = 7, .offset = offsetof(struct body, name)}};
	static const char *const dirty[] = {"{\"name\":\"a\\nb\"}", "{\"name\":\"\\u007f\"}", "{\"name\":\"\\t\"}"};
	struct validate_error error;
	struct body body = {0};
	uint32_t present;
	json_t *json;

	(void)state;
	for (size_t i = 0; i < sizeof(dirty) / sizeof(dirty[0]); i++) {
		json = json_loads(dirty[i], 0, NULL);
		assert_int_equal(validate_object(json, line, 1, &body, &present, &error), -EINVAL);
		assert_string_equal(error.code, "out_of_range");
		assert_string_equal(error.field, "name");
		json_decref(json);
	}
	json = json_pack("{s:s}", "name", "a é");
	assert_int_equal(validate_object(json, line, 1, &body, &present, &error), 0);
	assert_string_equal(body.name, "a é");
	json_decref(json);
}

static void an_unknown_name_of_any_length_fits_the_error(void **state)
{
	char name[4096], text[4200];
	struct validate_error error;
	struct body body = {0};
	uint32_t present;

	(void)state;
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	snprintf(text, sizeof(text), "{\"units\":1,\"%s\":1}", name);
	assert_int_equal(validate(text, &body, &present, &error), -EINVAL);
	assert_int_equal(strlen(error.field), sizeof(error.field) - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind_of_field_is_read),
		cmocka_unit_test(absent_fields_stay_as_they_are),
		cmocka_unit_test(what_is_wrong_is_named),
		cmocka_unit_test(a_nul_inside_a_text_is_refused),
		cmocka_unit_test(a_text_of_one_line_has_no_control_characters),
		cmocka_unit_test(an_unknown_name_of_any_length_fits_the_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
