/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Server-sent events, see sse.h. Called by api.c. Knows "event" and "data"; comments and other fields are passed over. */
#include "cli/sse.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int dispatch(struct cli_sse *sse)
{
	int result = 0;

	if (sse->data_length) {
		sse->data[sse->data_length - 1] = '\0'; /* the newline after the last line */
		result = sse->on_event(*sse->name ? sse->name : "message", sse->data, sse->arg);
	}
	sse->data_length = 0;
	*sse->name = '\0';
	return result;
}

/* The value of `line` if it is a field of that name, else NULL. One space after the colon is not part of it. */
static const char *value_of(const char *line, const char *field)
{
	size_t length = strlen(field);

	if (strncmp(line, field, length) != 0 || line[length] != ':')
		return NULL;
	line += length + 1;
	return *line == ' ' ? line + 1 : line;
}

static int take_line(struct cli_sse *sse)
{
	const char *value;
	size_t length;

	if (sse->line_length && sse->line[sse->line_length - 1] == '\r')
		sse->line_length--;
	sse->line[sse->line_length] = '\0';
	if (!sse->line_length)
		return dispatch(sse);
	value = value_of(sse->line, "event");
	if (value)
		snprintf(sse->name, sizeof(sse->name), "%s", value);
	value = value_of(sse->line, "data");
	if (!value)
		return 0;
	length = strlen(value);
	if (sse->data_length + length + 1 > sizeof(sse->data))
		return -EMSGSIZE;
	memcpy(sse->data + sse->data_length, value, length);
	sse->data_length += length;
	sse->data[sse->data_length++] = '\n';
	return 0;
}

int cli_sse_feed(struct cli_sse *sse, const char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		int result;

		if (bytes[i] != '\n') {
			if (sse->line_length + 1 >= sizeof(sse->line))
				return -EMSGSIZE;
			sse->line[sse->line_length++] = bytes[i];
			continue;
		}
		result = take_line(sse);
		sse->line_length = 0;
		if (result)
			return result;
	}
	return 0;
}
