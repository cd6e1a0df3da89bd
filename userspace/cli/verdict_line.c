/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Verdicts as lines: time, reason, source, service, sale, door, and what is unusual. Called by `sluice monitor` and `sluice explain`. Lines come one
 * by one, so columns have fixed widths; a field that is longer pushes the rest.
 */
#include "cli/verdict_line.h"

#include <string.h>

#include "cli/table.h"

#define LINE "%-24s  %-16s  %-26s  %-12s  %-16s  %-4s"
#define FIELD_MAX 128

void cli_verdict_header(FILE *out)
{
	fprintf(out, LINE "\n", "TIME", "REASON", "SOURCE", "SERVICE", "SALE", "DOOR");
}

/* A member as text that cannot move the cursor; "-" for null. */
static const char *field(const json_t *verdict, const char *name, char *text)
{
	const json_t *value = json_object_get(verdict, name);
	char number[32];

	snprintf(text, FIELD_MAX, "%s",
		!value || json_is_null(value) ? "-" : cli_json_text(value, number, sizeof(number)));
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	return text;
}

void cli_verdict_line(FILE *out, const json_t *verdict)
{
	double stands_for = json_number_value(json_object_get(verdict, "stands_for"));
	char time[FIELD_MAX], reason[FIELD_MAX], source[FIELD_MAX], service[FIELD_MAX], sale[FIELD_MAX],
		door[FIELD_MAX];

	fprintf(out, LINE, field(verdict, "time", time), field(verdict, "reason", reason),
		field(verdict, "source", source), field(verdict, "service", service), field(verdict, "sale", sale),
		field(verdict, "door", door));
	if (stands_for > 1.0001)
		fprintf(out, "  x%.4g", stands_for);
	if (json_is_true(json_object_get(verdict, "shadow")))
		fputs("  (shadow: it passed)", out);
	fputc('\n', out);
}
