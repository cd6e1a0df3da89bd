/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Log lines to stderr, used by all programs. One line is one write(2), so lines of threads do not mix and a service manager
 * sees each whole. A text longer than the buffer is cut, never dropped.
 */
#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOG_LINE_MAX 1024

static const char *log_program = "sluice";
static enum log_level log_threshold = LOG_INFO_LEVEL;
static const char *const level_names[] = {
	[LOG_ERROR_LEVEL] = "error",
	[LOG_WARN_LEVEL] = "warning",
	[LOG_INFO_LEVEL] = "info",
	[LOG_DEBUG_LEVEL] = "debug",
};

void log_init(const char *program, enum log_level level)
{
	log_program = program;
	log_threshold = level;
}

static void log_line(enum log_level level, const char *format, va_list args)
{
	int saved_errno = errno;
	char line[LOG_LINE_MAX];
	size_t room = sizeof(line) - 1; /* one byte stays for the newline */
	size_t used;
	int n;

	if (level > log_threshold)
		return;
	n = snprintf(line, room, "%s: %s: ", log_program, level_names[level]);
	used = n < 0 ? 0 : (size_t)n < room ? (size_t)n : room - 1;
	n = vsnprintf(line + used, room - used, format, args);
	if (n > 0)
		used += (size_t)n < room - used ? (size_t)n : room - used - 1;
	line[used++] = '\n';
	if (write(STDERR_FILENO, line, used) < 0) {
		/* Nobody reads stderr; there is no other place to say so. */
	}
	errno = saved_errno;
}

#define LOG_FUNCTION(name, level) \
	void name(const char *format, ...) \
	{ \
		va_list args; \
		va_start(args, format); \
		log_line(level, format, args); \
		va_end(args); \
	}

LOG_FUNCTION(log_error, LOG_ERROR_LEVEL)
LOG_FUNCTION(log_warn, LOG_WARN_LEVEL)
LOG_FUNCTION(log_info, LOG_INFO_LEVEL)
LOG_FUNCTION(log_debug, LOG_DEBUG_LEVEL)
