/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The daemon's state directory and its rights. */
#ifndef SLUICE_DAEMON_STATE_H
#define SLUICE_DAEMON_STATE_H

#include <stddef.h>

#include "daemon/daemon.h"

/* Makes the directory (0700) if absent and locks it: one daemon at a time. Returns the lock's fd or negative errno. */
int state_lock(const char *dir, char *error, size_t error_size);
/* Reads the control secret, or makes it (0600). Refuses a file that others may read. */
int state_load_secret(const char *dir, char *secret, char *error, size_t error_size);

/* privileges.c: becomes `user` ("" = stays), keeps CAP_BPF alone, and can never gain anything again. */
int privileges_drop(const struct config *config, char *error, size_t error_size);

#endif
