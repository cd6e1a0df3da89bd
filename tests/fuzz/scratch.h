/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A directory of this process's own, in memory where there is one: under $TMPDIR, else /dev/shm. It goes when the process ends
 * by itself; what a crash leaves, tests/fuzz/run.sh removes with the $TMPDIR that it made.
 */
#ifndef SLUICE_FUZZ_SCRATCH_H
#define SLUICE_FUZZ_SCRATCH_H

#include <unistd.h>

#include "check.h"

#define SCRATCH_MAX 128

static char scratch_directory[SCRATCH_MAX];
static pid_t scratch_owner;

static void scratch_remove(void)
{
	char command[SCRATCH_MAX + 16];

	snprintf(command, sizeof(command), "rm -rf '%s'", scratch_directory);
	if (getpid() == scratch_owner && system(command))
		fprintf(stderr, "cannot remove %s\n", scratch_directory);
}

static const char *scratch_make(void)
{
	const char *parent = getenv("TMPDIR");

	snprintf(scratch_directory, sizeof(scratch_directory), "%s/sluice-fuzz.XXXXXX",
		parent && *parent ? parent : "/dev/shm");
	CHECK(mkdtemp(scratch_directory), "cannot make %s", scratch_directory);
	scratch_owner = getpid();
	atexit(scratch_remove);
	return scratch_directory;
}

#endif
