/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What a gate that is attached runs with, read from its pins: `sluice status` shows it, `sluice doctor` judges it. */
#ifndef SLUICE_CLI_GATE_LOOK_H
#define SLUICE_CLI_GATE_LOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/pins.h"
#include "sluice/abi.h"

/* "off", "some" limits, or "all" the gate, of the flags in the control word; GET /v1/status uses the same words. */
const char *gate_shadow_mode(uint32_t flags);
/* A daemon has beaten its heart lately. */
bool gate_daemon_is_alive(const struct sluice_control *control);
/* The services that the gate protects. Returns how many, or a negative errno. */
int gate_services(const struct pins *pins, struct sluice_service services[SLUICE_MAX_SERVICES]);
/* The kernel's name of the gate's program: one that has it is a gate, if not always the one whose pins were asked for. */
#define GATE_PROGRAM_NAME "sluice_gate"
/* The name of the BPF program with this id; "?" if it cannot be told. */
void gate_program_name(uint32_t id, char *name, size_t size);

#endif
