/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice node fence`, a verb of the noun `node`. */
#ifndef SLUICE_CLI_NODE_FENCE_H
#define SLUICE_CLI_NODE_FENCE_H

#include "cli/cli.h"

extern const struct cli_option node_fence_options[];
#define NODE_FENCE_VERB \
	{ \
		"fence", "ID", "take a node that is gone out of the fleet's sums; what it has sold stays sold", 1, 1, \
			node_fence_options, node_fence_run \
	}
int node_fence_run(const struct cli_call *call);

#endif
