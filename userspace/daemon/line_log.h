/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A file of lines that only grows while it is in use: a line is synced before its writer hears that it is there. When it is opened, what is over
 * is left out of it. Used for the tokens that were taken back.
 */
#ifndef SLUICE_DAEMON_LINE_LOG_H
#define SLUICE_DAEMON_LINE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

/* Up to `end` stand the lines that were acknowledged, and nothing else. Torn: behind them may stand more (half of a line, or one that was not
 * synced), and must be cut off before the next line; as long as that fails, every line is refused.
 */
struct line_log {
	int fd; /* -1 = not open */
	off_t end;
	bool torn;
};

/* Who reads the lines when the file is opened. */
struct line_log_reader {
	/* One line with its end, counted from 1. Returns 1: keep it; 0: it is over, or `rest` writes what stands for it; or negative errno, which
	 * ends the reading.
	 */
	int (*line)(void *arg, unsigned number, const char *text);
	/* Writes what stands for the lines that were not kept. Errors of the file are noticed by the caller. */
	void (*rest)(void *arg, FILE *file);
	void *arg;
};

/* Opens the file, makes it (0600) if it is absent, reads it, and replaces it by what is kept; a last line without its end is what a crash left of
 * one that nobody was told of, and goes. Where the file cannot be replaced (the disk is full) it stays as it is, which is said in the log. Returns 0 or
 * negative errno, with a sentence in `error` unless it came from the reader.
 */
int line_log_open(
	struct line_log *log, const char *path, const struct line_log_reader *reader, char *error, size_t error_size);
/* Appends a line (with its end) and syncs it. Returns 0, or negative errno: the line is not there, or is cut off before the next one. */
int line_log_append(struct line_log *log, const char *line, size_t length);
void line_log_close(struct line_log *log);

#endif
