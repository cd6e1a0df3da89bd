/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate's pinned maps, opened and mapped. The loader makes the pins; daemon and commands open them through here. */
#ifndef SLUICE_COMMON_MAPS_H
#define SLUICE_COMMON_MAPS_H

#include <stdbool.h>
#include <stddef.h>

#include "sluice/abi.h"

struct gate_maps {
	int services, ports, limits, control_fd, sales_fd, stock_fd, keys_fd, admissions, ring, buyers, issued, rates,
		recent, syn_budget, lists, list_index, denials, answers, homes, counters, calls, shadow, watch, events;
	int door; /* fd of the call door program; see gate_maps_call */
	/* mapped shared, for the whole array */
	struct sluice_control *control;
	struct sluice_sale *sales;
	struct sluice_stock *stock;
	struct sluice_key *keys;
	__u64 door_generation;
	char pin_dir[256];
	int dir;           /* the pin directory, O_PATH; -1 = not open */
	__u64 control_pin; /* inode of the pin "control"; 0 = not known */
};

/* Opens every pin under `pin_dir`. Returns 0 or negative errno with a sentence in `error` (>= 512 bytes):
 * -ENOENT nothing is attached, -EPERM, -EPROTO another ABI version.
 */
int gate_maps_open(struct gate_maps *maps, const char *pin_dir, char *error, size_t error_size);
void gate_maps_close(struct gate_maps *maps); /* safe on a zeroed struct */

/* Runs the call door once. Reopens the program if the gate was replaced since. Returns 0 or negative errno. Thread-safe as long
 * as gate_maps_refresh is called from one thread only.
 */
int gate_maps_call(struct gate_maps *maps, struct sluice_call *call);
/* Reopens the door if control->generation changed. */
int gate_maps_refresh(struct gate_maps *maps);
/* Was the gate detached, so that these maps are nobody's any more? (Another one may be attached by now.) False also where that cannot be told. */
bool gate_maps_are_orphans(const struct gate_maps *maps);

/* Sums the per-CPU counters. `out` has (SLUICE_MAX_SERVICES + 1) * SLUICE_REASON_ROWS entries / SLUICE_REASON_ROWS entries. */
int gate_maps_read_counters(const struct gate_maps *maps, struct sluice_counter *out);
int gate_maps_read_calls(const struct gate_maps *maps, __u64 *out);
int gate_maps_read_shadow(const struct gate_maps *maps, __u64 *out); /* SLUICE_REASON_ROWS entries */

/* Names and texts of reasons and answers, from sluice/reasons.h. Out of range: "?" / NULL. */
const char *reason_label(unsigned reason);
const char *reason_text(unsigned reason);
enum sluice_action reason_action(unsigned reason);
enum sluice_answer reason_answer(unsigned reason);
const char *answer_code(unsigned answer);
int answer_status(unsigned answer);

#endif
