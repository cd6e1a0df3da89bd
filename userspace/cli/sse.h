/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Reads a stream of server-sent events (WHATWG HTML, section 9.2.6) from bytes that come in whatever pieces. */
#ifndef SLUICE_CLI_SSE_H
#define SLUICE_CLI_SSE_H

#include <stddef.h>

#define CLI_SSE_LINE_MAX 8192

struct cli_sse {
	/* Called for each event: its name ("message" if it has none) and its data. Non-zero ends the reading. */
	int (*on_event)(const char *name, const char *data, void *arg);
	void *arg;
	size_t line_length, data_length;
	char line[CLI_SSE_LINE_MAX];
	char name[32];
	char data[CLI_SSE_LINE_MAX];
};

/* Zero the struct, set on_event and arg, then feed. Returns 0, what on_event returned, or -EMSGSIZE for a line or an event that is too long. */
int cli_sse_feed(struct cli_sse *sse, const char *bytes, size_t length);

#endif
