/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The writer's socket side: one daemon, one frame at a time, each answered before the next is read. */
#ifndef SLUICE_WRITER_SERVER_H
#define SLUICE_WRITER_SERVER_H

#include "writer/store.h"

/* Serves on `listen_fd` until `stop_fd` becomes readable; a transaction that runs is finished and its answer sent
 * first. `ledger` is the path told to the daemon. Returns 0 or negative errno.
 */
int writer_server_run(struct store *store, const char *ledger, int listen_fd, int stop_fd);

#endif
