/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the gate costs before the first packet: instructions that the verifier looks at, stack, code size, and the memory of all maps at
 * the default config. These do not depend on the moment, so a value over its limit fails the bench.
 */
#ifndef SLUICE_BENCH_COST_H
#define SLUICE_BENCH_COST_H

#include <jansson.h>
#include <stdbool.h>

/* Loads a gate of its own, measures and frees it. Adds "programs", "maps", "maps_bytes" and their limits to `report`.
 * Returns true if everything is within its limit. Exits with a sentence if it cannot be measured.
 */
bool cost_measure(json_t *report);

#endif
