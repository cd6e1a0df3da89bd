/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The nodes of a fleet over the control API. Nothing here waits for Redis: it tells what was heard last. */
#include "daemon/control.h"
#include "daemon/fleet_nodes.h"

bool control_needs_fleet(struct http_request *request, enum MHD_Result *result)
{
	if (request->d->fleet)
		return true;
	*result = http_problem(request, 409, "no_fleet", "This node is alone: its config names no fleet.redis.");
	return false;
}

enum MHD_Result control_get_nodes(struct http_request *request)
{
	enum MHD_Result result;
	json_t *nodes;

	if (!control_needs_fleet(request, &result))
		return result;
	nodes = fleet_nodes_json(request->d);
	return nodes ? http_send_json(request, 200, nodes) : http_problem(request, 500, "internal_error", "No memory.");
}
