/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The drill's own little internet: two network namespaces joined by a veth pair, in the one a gate, a daemon and an order writer
 * on a config of their own, in the other room for the crowd. The namespaces have no name (they are held by open files), so
 * nothing of them can stay behind, however the drill ends; only --keep gives them names.
 */
#ifndef SLUICE_DRILL_ARENA_H
#define SLUICE_DRILL_ARENA_H

#include <stdbool.h>
#include <sys/types.h>

#include "drill/drill.h"

#define DRILL_PORT 8080
#define DRILL_SERVER_INTERFACE "sluice-srv"
#define DRILL_CLIENT_INTERFACE "sluice-cli"

struct pass_bpf;

struct drill_arena {
	char work_dir[DRILL_PATH_MAX];
	char bin_dir[DRILL_PATH_MAX];
	char pin_dir[64];
	char config[DRILL_PATH_MAX + 32], ledger[DRILL_PATH_MAX + 32], state_dir[DRILL_PATH_MAX + 32];
	char control_socket[108];
	char mode[16]; /* "native" or "generic", as the kernel says */
	bool temporary, keep, attached;
	int host_ns, server_ns, client_ns;
	pid_t writer, daemon;
	struct pass_bpf *pass;
};

/* Builds everything and waits until the daemon takes orders. Says what failed. Returns 0 or negative errno; in both cases
 * drill_arena_close is due.
 */
int drill_arena_open(struct drill_arena *arena, const struct drill_options *options);
/* Moves the calling thread into the client's namespace, and back. Returns 0 or negative errno. */
int drill_arena_enter_client(const struct drill_arena *arena);
int drill_arena_leave_client(const struct drill_arena *arena);
/* Whether daemon and writer live; says it if not. */
bool drill_arena_alive(struct drill_arena *arena);
/* Stops what runs, detaches, removes; or, with --keep, says where everything is and how to remove it. */
void drill_arena_close(struct drill_arena *arena);

extern const unsigned char drill_server_mac[6], drill_client_mac[6];

#endif
