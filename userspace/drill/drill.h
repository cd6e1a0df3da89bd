/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice drill`: a whole flash sale with a made-up crowd, and a verdict on whether the books are right afterwards.
 * docs/drill.md tells what it does and how to read its report.
 */
#ifndef SLUICE_DRILL_H
#define SLUICE_DRILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DRILL_SLUG_MAX 64
#define DRILL_PATH_MAX 256

/* What the operator asked for. */
struct drill_options {
	uint32_t buyers;
	uint32_t bots;    /* attempts */
	uint32_t spoofed; /* SYNs with a made-up source */
	uint32_t stock;
	uint32_t seconds;    /* the crowd is sent home this long after the opening */
	uint32_t ipv6_share; /* percent */
	uint64_t seed;
	char mode[8];                  /* auto, native, generic */
	char work_dir[DRILL_PATH_MAX]; /* absolute; "" = a temporary one that is removed at the end */
	char report[DRILL_PATH_MAX];   /* "" = none */
	char target[128];              /* HOST:PORT; "" = namespaces of our own */
	char sale[DRILL_SLUG_MAX];
	char control_socket[108];
	bool json; /* on stdout */
	bool keep;
	bool yes;
};

/* Runs the command; `argv[0]` is "drill". Returns an exit code of enum cli_exit: CLI_OK, CLI_FAILED, CLI_USAGE or
 * CLI_INVARIANT. */
int cmd_drill(int argc, char **argv);

/* Fills `options` from the command line. Returns 0, CLI_USAGE after a message, or -1 if help was asked for and given. */
int drill_options_parse(int argc, char **argv, struct drill_options *options);

/* Set by SIGINT, SIGTERM and SIGHUP; everything that waits looks at it. */
extern volatile int drill_interrupted;

#endif
