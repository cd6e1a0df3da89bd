/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Shadow mode: the switches of the gate's control word by the names that operators know. */
#ifndef SLUICE_DAEMON_SHADOW_H
#define SLUICE_DAEMON_SHADOW_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/daemon.h"

/* The limits by enum sluice_limit_id, then what is no rate in map "limits", then everything. */
enum shadow_switch { SHADOW_PACE = SLUICE_LIMIT_COUNT, SHADOW_DENY, SHADOW_ALL, SHADOW_SWITCHES };

const char *shadow_name(unsigned which); /* "source" … "pace", "deny", "all" */
uint32_t shadow_flag(unsigned which);    /* SLUICE_CONTROL_SHADOW_* */
uint32_t shadow_flags(const struct daemon *d);
/* "all", "some" or "off". */
const char *shadow_mode(uint32_t flags);
/* Sets the switches of `on` and clears those of `off` (masks of flags), and logs each that changed. */
void shadow_change(struct daemon *d, uint32_t on, uint32_t off);
/* Says at a start what is in shadow: the switches outlive the daemon. */
void shadow_log(struct daemon *d);
/* {"reason": count} of what would have been refused. NULL if the gate cannot be read. */
json_t *shadow_counts(const struct daemon *d);

#endif
