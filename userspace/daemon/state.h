/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The daemon's state directory and its rights. */
#ifndef SLUICE_DAEMON_STATE_H
#define SLUICE_DAEMON_STATE_H

#include <stddef.h>

#include "daemon/daemon.h"

/* Makes the directory (0700) if absent. */
int state_make(const char *dir, char *error, size_t error_size);
/* Locks it: one daemon at a time. Returns the lock's fd or negative errno. */
int state_lock(const char *dir, char *error, size_t error_size);
/* Reads the control secret, or makes it (0600). Refuses a file that others may read. */
int state_load_secret(const char *dir, char *secret, char *error, size_t error_size);
#define STATE_SECRET_MAX 255
/* Writes one line, of at most STATE_SECRET_MAX bytes, into a file (0600) that is there whole or not at all. Returns 0 or negative errno. */
int state_write_secret(const char *path, const char *secret);

/* --- privileges.c: the user of config.daemon.user ------------------------------------------------------------------------ */
/* Where there is none, the first two do nothing. Gives him what root made in the state directory before. */
int privileges_own_state(const struct config *config, char *error, size_t error_size);
/* Works on files as he would, and no longer (`on` false). Returns 0, -ENOENT if there is no such user, or negative errno. */
int privileges_borrow_user(const struct config *config, bool on);
/* Becomes him for good; keeps no capability (also without a user), and can never gain anything again (common/sandbox.h). Once. */
int privileges_drop(const struct config *config, char *error, size_t error_size);

#endif
