/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Rates of token issue in the daemon: GCRA buckets in a table of fixed size. */
#ifndef SLUICE_DAEMON_RATE_TABLE_H
#define SLUICE_DAEMON_RATE_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "sluice/abi.h"

struct rate_table;

/* `buckets` is rounded up to a power of two. NULL if there is no memory. */
struct rate_table *rate_table_new(unsigned buckets);
void rate_table_free(struct rate_table *table);
/* Takes one cell of `key` (any 64-bit hash, not 0). Returns 0, or the whole seconds to wait (1..SLUICE_RETRY_MAX_S). Thread-safe. */
unsigned rate_table_take(
	struct rate_table *table, const struct sluice_limit *limit, uint64_t key, uint64_t now_mono_ns);
/* The theoretical arrival time of `key`, 0 if it is not remembered; charges nothing. */
uint64_t rate_table_peek(struct rate_table *table, uint64_t key);

#endif
