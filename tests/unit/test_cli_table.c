/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What `sluice` prints: columns that line up, pages that join, text that cannot take over a terminal, JSON that parses. Run by
 * check-unit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cli/table.h"

static const struct cli_column columns[] = {
	{"NAME", "name", false},
	{"UNITS", "units", true},
	{"NOTE", "note", false},
	{NULL, NULL, false},
};

static char *text;
static size_t text_size;

static FILE *start(void)
{
	free(text);
	return open_memstream(&text, &text_size);
}

static void columns_are_as_wide_as_what_they_hold(void **state)
{
	FILE *out = start();
	struct cli_table *table = cli_table_new(out, columns);

	(void)state;
	cli_table_add(table, (const char *const[]){"a", "1", "first"});
	cli_table_add(table, (const char *const[]){"long-name", "1000000", NULL});
	cli_table_end(table);
	fclose(out);
	assert_string_equal(text,
		"NAME         UNITS  NOTE\n"
		"a                1  first\n"
		"long-name  1000000  -\n");
}

static void a_table_without_rows_has_its_titles(void **state)
{
	FILE *out = start();

	(void)state;
	cli_table_end(cli_table_new(out, columns));
	cli_table_free(NULL);
	fclose(out);
	assert_string_equal(text, "NAME  UNITS  NOTE\n");
}

static void pages_share_titles_and_columns_only_get_wider(void **state)
{
	FILE *out = start();
	struct cli_table *table = cli_table_new(out, columns);

	(void)state;
	cli_table_add(table, (const char *const[]){"abcdef", "1", "x"});
	cli_table_flush(table);
	cli_table_add(table, (const char *const[]){"a", "2", "y"});
	cli_table_flush(table);
	cli_table_add(table, (const char *const[]){"abcdefgh", "3", "z"});
	cli_table_end(table);
	fclose(out);
	assert_string_equal(text,
		"NAME    UNITS  NOTE\n"
		"abcdef      1  x\n"
		"a           2  y\n"
		"abcdefgh      3  z\n");
}

static void control_characters_do_not_reach_the_terminal(void **state)
{
	FILE *out = start();
	struct cli_table *table = cli_table_new(out, columns);

	(void)state;
	cli_table_add(table, (const char *const[]){"\x1b[2J", "\n", "caf\xc3\xa9 \xc2\x9b\x7f"});
	cli_table_end(table);
	fclose(out);
	assert_string_equal(text,
		"NAME  UNITS  NOTE\n"
		"?[2J      ?  caf\xc3\xa9 ??\n");
	assert_int_equal(cli_text_width("caf\xc3\xa9"), 4);
}

static void members_of_an_object_become_cells(void **state)
{
	FILE *out = start();
	struct cli_table *table = cli_table_new(out, columns);
	json_t *row = json_pack("{sssIsn}", "name", "a", "units", (json_int_t)9007199254740991LL, "note");

	(void)state;
	cli_table_add_json(table, row);
	json_object_del(row, "name");
	json_object_set_new(row, "units", json_real(0.1));
	json_object_set_new(row, "note", json_true());
	cli_table_add_json(table, row);
	cli_table_end(table);
	json_decref(row);
	fclose(out);
	assert_string_equal(text,
		"NAME             UNITS  NOTE\n"
		"a     9007199254740991  -\n"
		"-                  0.1  yes\n");
}

static void a_record_shows_every_member(void **state)
{
	FILE *out = start();
	json_t *record = json_loads(
		"{\"id\":1,\"opens_at\":\"2026-11-22T12:00:00Z\",\"gate\":{\"attached\":true},\"bad\":\"a\\u001bb\"}",
		0, NULL);

	(void)state;
	cli_record_print(out, record);
	json_decref(record);
	fclose(out);
	assert_string_equal(text,
		"id        1\n"
		"opens_at  2026-11-22T12:00:00Z\n"
		"gate      {\"attached\":true}\n"
		"bad       a?b\n");
}

static void a_value_too_long_for_a_cell_says_so(void **state)
{
	json_t *list = json_array();
	char cell[64];

	(void)state;
	for (int i = 0; i < 100; i++)
		json_array_append_new(list, json_integer(i));
	assert_string_equal(cli_json_text(list, cell, sizeof(cell)), "(too long to show; see -o json)");
	json_decref(list);
}

static void a_list_written_piece_by_piece_is_one_json_value(void **state)
{
	static const size_t counts[] = {0, 1, 3};

	(void)state;
	for (size_t n = 0; n < 3; n++) {
		FILE *out = start();
		struct cli_json_list list = {.out = out, .name = "orders"};
		json_t *order = json_pack("{sisf}", "seq", 1, "rate", 0.1), *next = json_integer(17), *whole;

		for (size_t i = 0; i < counts[n]; i++)
			cli_json_list_add(&list, order);
		cli_json_list_end(&list, n == 2 ? next : NULL);
		fclose(out);
		whole = json_loads(text, 0, NULL);
		assert_non_null(whole);
		assert_int_equal(json_array_size(json_object_get(whole, "orders")), counts[n]);
		if (n == 2)
			assert_int_equal(json_integer_value(json_object_get(whole, "next")), 17);
		else
			assert_true(json_is_null(json_object_get(whole, "next")));
		json_decref(whole);
		json_decref(order);
		json_decref(next);
	}
	assert_non_null(strstr(text, "\"rate\": 0.1}"));
}

static int release(void **state)
{
	(void)state;
	free(text);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(columns_are_as_wide_as_what_they_hold),
		cmocka_unit_test(a_table_without_rows_has_its_titles),
		cmocka_unit_test(pages_share_titles_and_columns_only_get_wider),
		cmocka_unit_test(control_characters_do_not_reach_the_terminal),
		cmocka_unit_test(members_of_an_object_become_cells),
		cmocka_unit_test(a_record_shows_every_member),
		cmocka_unit_test(a_value_too_long_for_a_cell_says_so),
		cmocka_unit_test(a_list_written_piece_by_piece_is_one_json_value),
	};

	return cmocka_run_group_tests(tests, NULL, release);
}
