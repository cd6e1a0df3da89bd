/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tables, records and JSON on stdout; see table.h. Rows are kept as NUL-terminated cells one behind the other in one buffer, so a
 * page of a thousand rows costs two allocations, and a flush starts it again.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/table.h"

#define GAP 2                /* spaces between columns */
#define NUMBER_TEXT_MAX 4096 /* a nested value as one line of JSON */
#define JSON_FLAGS (JSON_REAL_PRECISION(15) | JSON_ENCODE_ANY)

struct cli_table {
	FILE *out;
	const struct cli_column *columns;
	unsigned count;
	size_t width[CLI_COLUMNS_MAX];
	bool titled;
	char *cells;
	size_t length, capacity;
};

static void *must(void *memory)
{
	if (!memory) {
		cli_say("out of memory");
		exit(CLI_FAILED);
	}
	return memory;
}

size_t cli_text_width(const char *text)
{
	size_t width = 0;

	for (; *text; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80; /* not a continuation byte of UTF-8 */
	return width;
}

struct cli_table *cli_table_new(FILE *out, const struct cli_column *columns)
{
	struct cli_table *table = must(calloc(1, sizeof(*table)));

	table->out = out;
	table->columns = columns;
	while (table->count < CLI_COLUMNS_MAX && columns[table->count].title) {
		table->width[table->count] = cli_text_width(columns[table->count].title);
		table->count++;
	}
	return table;
}

/* Copies with control characters (C0, DEL, and C1 as UTF-8 writes them) replaced. `to` holds strlen(text) + 1. */
static void copy_printable(char *to, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < ' ' || c == 0x7f) {
			*to++ = '?';
		} else if (c == 0xc2 && (unsigned char)text[1] >= 0x80 && (unsigned char)text[1] < 0xa0) {
			*to++ = '?';
			text++;
		} else {
			*to++ = (char)c;
		}
	}
	*to = '\0';
}

void cli_table_add(struct cli_table *table, const char *const *cells)
{
	for (unsigned i = 0; i < table->count; i++) {
		const char *cell = cells[i] ? cells[i] : "-";
		size_t size = strlen(cell) + 1, width;

		if (table->length + size > table->capacity) {
			table->capacity = (table->length + size) * 2;
			table->cells = must(realloc(table->cells, table->capacity));
		}
		copy_printable(table->cells + table->length, cell);
		width = cli_text_width(table->cells + table->length);
		if (width > table->width[i])
			table->width[i] = width;
		table->length += strlen(table->cells + table->length) + 1;
	}
}

void cli_table_add_json(struct cli_table *table, const json_t *object)
{
	char text[CLI_COLUMNS_MAX][NUMBER_TEXT_MAX];
	const char *cells[CLI_COLUMNS_MAX];

	for (unsigned i = 0; i < table->count; i++)
		cells[i] = cli_json_text(json_object_get(object, table->columns[i].key), text[i], sizeof(text[i]));
	cli_table_add(table, cells);
}

static void print_cell(struct cli_table *table, unsigned column, const char *cell)
{
	int pad = (int)(table->width[column] - cli_text_width(cell));
	bool last = column + 1 == table->count;

	if (table->columns[column].right)
		fprintf(table->out, "%*s%s", pad, "", cell);
	else
		fprintf(table->out, "%s%*s", cell, last ? 0 : pad, "");
	fprintf(table->out, "%*s", last ? 0 : GAP, "");
	if (last)
		fputc('\n', table->out);
}

void cli_table_flush(struct cli_table *table)
{
	const char *cell = table->cells;

	if (!table->titled)
		for (unsigned i = 0; i < table->count; i++)
			print_cell(table, i, table->columns[i].title);
	table->titled = true;
	while (cell && cell < table->cells + table->length) {
		for (unsigned i = 0; i < table->count; i++) {
			print_cell(table, i, cell);
			cell += strlen(cell) + 1;
		}
	}
	table->length = 0;
}

void cli_table_free(struct cli_table *table)
{
	if (table)
		free(table->cells);
	free(table);
}

void cli_table_end(struct cli_table *table)
{
	cli_table_flush(table);
	cli_table_free(table);
}

const char *cli_json_text(const json_t *value, char *text, size_t size)
{
	size_t length;

	switch (value ? json_typeof(value) : JSON_NULL) {
	case JSON_NULL:
		return "-";
	case JSON_TRUE:
		return "yes";
	case JSON_FALSE:
		return "no";
	case JSON_STRING:
		return json_string_length(value) ? json_string_value(value) : "-";
	case JSON_REAL:
		snprintf(text, size, "%.15g", json_real_value(value));
		return text;
	default:
		length = json_dumpb(value, text, size - 1, JSON_COMPACT | JSON_FLAGS);
		if (length >= size)
			return "(too long to show; see -o json)";
		text[length] = '\0';
		return text;
	}
}

void cli_record_print(FILE *out, const json_t *object)
{
	char text[NUMBER_TEXT_MAX];
	const char *key;
	json_t *value;
	int width = 0;

	json_object_foreach((json_t *)object, key, value) {
		if ((int)strlen(key) > width)
			width = (int)strlen(key);
	}
	json_object_foreach((json_t *)object, key, value) {
		const char *cell = cli_json_text(value, text, sizeof(text));
		char *shown = must(malloc(strlen(cell) + 1));

		copy_printable(shown, cell);
		fprintf(out, "%-*s  %s\n", width, key, shown);
		free(shown);
	}
}

void cli_json_print(FILE *out, const json_t *value)
{
	json_dumpf(value, out, JSON_INDENT(2) | JSON_FLAGS);
	fputc('\n', out);
}

int cli_print_answer(const struct cli_call *call, json_t *answer)
{
	if (answer && call->globals->json)
		cli_json_print(call->out, answer);
	else if (answer)
		cli_record_print(call->out, answer);
	json_decref(answer);
	return CLI_OK;
}

void cli_json_list_add(struct cli_json_list *list, const json_t *element)
{
	if (!list->count++)
		fprintf(list->out, "{\n  \"%s\": [\n    ", list->name);
	else
		fputs(",\n    ", list->out);
	json_dumpf(element, list->out, JSON_FLAGS);
}

void cli_json_list_end(struct cli_json_list *list, const json_t *next)
{
	if (!list->count)
		fprintf(list->out, "{\n  \"%s\": [", list->name);
	fprintf(list->out, "%s],\n  \"next\": ", list->count ? "\n  " : "");
	if (next)
		json_dumpf(next, list->out, JSON_FLAGS);
	else
		fputs("null", list->out);
	fputs("\n}\n", list->out);
}
