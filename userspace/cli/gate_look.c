/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What a gate that is attached runs with, read from its pins; see gate_look.h. */
#include "cli/gate_look.h"

const char *gate_shadow_mode(uint32_t flags)
{
	uint32_t some = SLUICE_CONTROL_SHADOW_DENY | SLUICE_CONTROL_SHADOW_PACE;

	for (int id = 0; id < SLUICE_LIMIT_COUNT; id++)
		some |= SLUICE_CONTROL_SHADOW_LIMIT(id);
	return flags & SLUICE_CONTROL_SHADOW_ALL ? "all" : flags & some ? "some" : "off";
}
