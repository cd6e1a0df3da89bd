/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Faults of the disk, for the tests of the SQLite store: the program that includes this defines pwrite64 and fdatasync, which
 * the dynamic linker then also gives to SQLite, and lets the nth call fail with EIO.
 */
#ifndef SLUICE_TESTS_DISK_FAULTS_H
#define SLUICE_TESTS_DISK_FAULTS_H

#include <fcntl.h>
#include <stdbool.h>
#include <sys/syscall.h>

#include "ledger_fixture.h"

enum fault { FAULT_NONE, FAULT_WRITE, FAULT_SYNC };

static enum fault fault_kind;
static unsigned fault_countdown; /* the call that brings it to 0 fails */
static unsigned fault_calls;     /* calls of the kind since arm() */
static bool fault_lasts;         /* until disarm(), not once */

static inline void arm(enum fault kind, unsigned nth, bool lasts)
{
	fault_kind = kind;
	fault_countdown = nth;
	fault_lasts = lasts;
	fault_calls = 0;
}

/* Goes on counting after disarm(). */
static inline void arm_again(enum fault kind)
{
	fault_kind = kind;
}

static inline void disarm(void)
{
	fault_kind = FAULT_NONE;
}

static inline bool fault_strikes(enum fault kind)
{
	if (fault_kind != kind)
		return false;
	fault_calls++;
	if (fault_countdown > 1) {
		fault_countdown--;
		return false;
	}
	if (!fault_lasts)
		disarm();
	return true;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
	if (fault_strikes(FAULT_WRITE)) {
		errno = EIO;
		return -1;
	}
	return syscall(SYS_pwrite64, fd, bytes, count, offset);
}

int fdatasync(int fd)
{
	if (fault_strikes(FAULT_SYNC)) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

static inline void remove_ledger(struct ledger_fixture *fixture)
{
	static const char *const suffixes[] = {"", "-wal", "-shm", ".lock"};
	char path[128];

	fixture_close(fixture);
	for (unsigned i = 0; i < sizeof(suffixes) / sizeof(*suffixes); i++) {
		snprintf(path, sizeof(path), "%s%s", fixture->path, suffixes[i]);
		unlink(path);
	}
}

/* The faults are wanted: what the store logs about them would bury the result. (cmocka keeps its messages until after
 * the teardown.)
 */
static int real_stderr;

static inline int quiet_setup(void **state)
{
	int null = open("/dev/null", O_WRONLY);

	real_stderr = dup(STDERR_FILENO);
	dup2(null, STDERR_FILENO);
	close(null);
	return fixture_setup_sqlite(state);
}

static inline int quiet_teardown(void **state)
{
	disarm();
	dup2(real_stderr, STDERR_FILENO);
	close(real_stderr);
	return fixture_teardown(state);
}

#endif
