/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The limits and shadow switches that were set by hand, as the text that the ledger keeps. Pure: neither gate nor ledger is touched here. */
#ifndef SLUICE_DAEMON_LIMITS_KEPT_H
#define SLUICE_DAEMON_LIMITS_KEPT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "daemon/validate.h"

/* A limit as the API and the document have it; what of it was given, as bits of `present`. */
enum limit_field { LIMIT_FIELD_RATE, LIMIT_FIELD_BURST, LIMIT_FIELD_SHADOW, LIMIT_FIELDS };

struct limit_body {
	double rate;
	int64_t burst;
	bool shadow;
};

extern const struct validate_field limit_fields[LIMIT_FIELDS];

/* What is in force: rates, the switches of the control word's flags, and SLUICE_KEPT_*. */
struct limits_state {
	struct sluice_limits limits;
	uint32_t shadow;
	uint64_t kept;
};

/* {"version":1, "source":{"rate","burst","shadow"}, …, "all":{"shadow"}} of what `kept` says was set by hand, each member with what was set of
 * it. The caller frees it; NULL without memory.
 */
char *limits_kept_text(const struct limits_state *state);
/* Puts what `text` says into `state`, but for what was set by hand on this gate already, and marks it as set. Returns 0, or -EINVAL with a
 * sentence: then nothing of it was taken.
 */
int limits_kept_read(const char *text, struct limits_state *state, char *error, size_t size);

#endif
