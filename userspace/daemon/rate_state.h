/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What a GCRA word says about its past and its future, for who has to explain a refusal. */
#ifndef SLUICE_DAEMON_RATE_STATE_H
#define SLUICE_DAEMON_RATE_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "sluice/abi.h"

struct rate_state {
	bool is_limited;          /* false: the limit is off, and the rest is 0 */
	uint64_t left;            /* requests that would conform now, one after the other */
	uint64_t next_allowed_ns; /* 0 = the next one conforms now */
	uint64_t full_after_ns;   /* until the whole burst is there again */
	uint64_t idle_ns;         /* nothing was charged for at least so long; 0 = not known */
};

/* `tat_ns`: the theoretical arrival time that is stored, 0 for a bucket that was never used. Exactly what gcra_next would do. */
void rate_state_read(const struct sluice_limit *limit, uint64_t tat_ns, uint64_t now_ns, struct rate_state *state);

#endif
