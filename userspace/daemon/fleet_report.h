/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* How the way to Redis stands, for people and for metrics. Any thread. */
#ifndef SLUICE_DAEMON_FLEET_REPORT_H
#define SLUICE_DAEMON_FLEET_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "daemon/daemon.h"

/* The member `fleet` of GET /v1/status; JSON null where this node is alone. */
json_t *fleet_report_json(struct daemon *d);
/* Lines of /metrics; none where this node is alone. */
void fleet_report_render(struct daemon *d, FILE *out);
/* The line of GET /readyz?verbose with its newline, "" where this node is alone. */
void fleet_report_ready(struct daemon *d, char *text, size_t size);

#endif
