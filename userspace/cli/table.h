/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Aligned tables and records for people. Columns are as wide as what they hold; a table that is longer than one page of the API is
 * printed page by page (cli_table_flush), and its columns only ever get wider. Text from elsewhere cannot move the
 * cursor: control characters are shown as '?'.
 */
#ifndef SLUICE_CLI_TABLE_H
#define SLUICE_CLI_TABLE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#define CLI_COLUMNS_MAX 16

struct cli_column {
	const char *title; /* NULL ends the list */
	const char *key;   /* member of the JSON object of a row, for cli_table_add_json */
	bool right;        /* numbers */
};

struct cli_table;

/* Out of memory ends the program. */
struct cli_table *cli_table_new(FILE *out, const struct cli_column *columns);
/* Copies one cell per column; NULL is shown as "-". */
void cli_table_add(struct cli_table *table, const char *const *cells);
void cli_table_add_json(struct cli_table *table, const json_t *object);
/* Prints and forgets the rows held; the first time the titles too, even if there are no rows. */
void cli_table_flush(struct cli_table *table);
/* Frees without printing what is held; NULL-safe. */
void cli_table_free(struct cli_table *table);
/* Flushes and frees. */
void cli_table_end(struct cli_table *table);

/* "member  value" lines in the order of the object; what is nested as one line of JSON. */
void cli_record_print(FILE *out, const json_t *object);
/* A JSON value as a cell. Returns `text`, or the string itself if it is one; never NULL. */
const char *cli_json_text(const json_t *value, char *text, size_t size);
/* The whole value as stable, indented JSON and a newline. */
void cli_json_print(FILE *out, const json_t *value);
/* How many columns of a terminal the text takes: code points, wide ones counted as one. */
size_t cli_text_width(const char *text);

/* Prints the answer of a verb as a record, or as JSON with -o json; releases it. Returns CLI_OK. */
struct cli_call;
int cli_print_answer(const struct cli_call *call, json_t *answer);
/* Elements of a list in one JSON object, {"list": [one element a line], "next": cursor}, written as they come. */
struct cli_json_list {
	FILE *out;
	const char *name;
	size_t count;
};
void cli_json_list_add(struct cli_json_list *list, const json_t *element);
void cli_json_list_end(struct cli_json_list *list, const json_t *next);

#endif
