/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Shadow mode: a limit that only counts what it would have refused. */
#ifndef SLUICE_BPF_SHADOW_H
#define SLUICE_BPF_SHADOW_H

#include "maps.h"

static __always_inline void shadow_count(__u32 reason)
{
	__u64 *count = bpf_map_lookup_elem(&shadow, &reason);

	if (count)
		__sync_fetch_and_add(count, 1); /* the call door may be interrupted by the wire */
}

/* A limit has refused. True if it is in shadow mode by `flag`: then it is counted, and the caller goes on as if it had not. With the
 * whole gate in shadow mode a single limit still refuses, and the exit counts it; the call door has no such exit.
 */
static __always_inline int shadow_lets_pass(__u32 control, __u32 flag, __u32 reason)
{
	if (!(control & flag))
		return 0;
	shadow_count(reason);
	return 1;
}

#endif
