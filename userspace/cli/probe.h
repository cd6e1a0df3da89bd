/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The self-test of an interface: can a program grow frames at the head and at the tail? `sluice attach` runs it before the gate. */
#ifndef SLUICE_CLI_PROBE_H
#define SLUICE_CLI_PROBE_H

#include <stdbool.h>

#include "cli/preflight.h"

struct probe;

struct probe_result {
	unsigned frames; /* tried; 0 = nothing came in, and the other two mean nothing */
	bool head_grows;
	bool tail_grows; /* behind every short frame by as much as the longest answer, or by a little where the head cannot */
};

/* Loads the probe program. NULL after a message. */
struct probe *probe_open(void);
void probe_close(struct probe *probe); /* NULL-safe */
int probe_program_fd(const struct probe *probe);
/* With the probe program on the interface: makes neighbours send something and waits for a frame, half a second at most. */
void probe_run(struct probe *probe, const struct interface *interface, struct probe_result *result);

#endif
