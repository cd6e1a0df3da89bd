/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Reads a GCRA word back. Pure; called by control_explain.c, tested against sluice/gcra.h. */
#include "daemon/rate_state.h"

#include <string.h>

void rate_state_read(const struct sluice_limit *limit, uint64_t tat_ns, uint64_t now_ns, struct rate_state *state)
{
	uint64_t ahead = tat_ns > now_ns ? tat_ns - now_ns : 0;

	memset(state, 0, sizeof(*state));
	if (!limit->interval_ns)
		return;
	state->is_limited = true;
	state->full_after_ns = ahead;
	if (ahead > limit->tolerance_ns)
		state->next_allowed_ns = ahead - limit->tolerance_ns;
	else
		state->left = (limit->tolerance_ns - ahead) / limit->interval_ns + 1;
	/* A charge moves the word beyond its own time. */
	if (tat_ns && tat_ns < now_ns)
		state->idle_ns = now_ns - tat_ns;
}
