/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The daemon's sign of life and the gate's wall clock. */
#ifndef SLUICE_DAEMON_HEARTBEAT_H
#define SLUICE_DAEMON_HEARTBEAT_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/daemon.h"

/* A part of the daemon that must go on for orders to be taken. A watch says since when it has been busy with one thing
 * (HTTP handlers) or when it last came round (the pipeline); see heartbeat.c.
 */
#define HEARTBEAT_STALL_NS 1000000000ULL

/* Starts the thread: every 5 ms it stores wall offset and, while everything watched is alive, the heartbeat. Returns 0 or negative errno. */
int heartbeat_start(struct daemon *d);
void heartbeat_stop(void);
/* The pipeline came round. */
void heartbeat_pipeline_alive(void);
/* A public HTTP handler starts / is done; called by the thread that runs it. (Control handlers may wait for the writer.) */
void heartbeat_handler_enter(void);
void heartbeat_handler_leave(void);
/* Is everything watched alive at this moment? */
bool heartbeat_is_healthy(uint64_t now_mono_ns);

#endif
