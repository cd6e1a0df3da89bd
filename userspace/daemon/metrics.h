/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The daemon's own figures, and the Prometheus text of all. */
#ifndef SLUICE_DAEMON_METRICS_H
#define SLUICE_DAEMON_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/daemon.h"
#include "daemon/http_connections.h"

enum metrics_listener { METRICS_PUBLIC, METRICS_CONTROL, METRICS_LISTENERS };

struct metrics *metrics_new(void);
void metrics_free(struct metrics *metrics);
void metrics_observe_batch(struct metrics *metrics, unsigned orders);
void metrics_observe_commit(struct metrics *metrics, uint64_t ns); /* from the judge's yes to the acknowledgement */
/* `route` must be a string that lives as long as the program. */
void metrics_count_request(struct metrics *metrics, enum metrics_listener listener, const char *route, unsigned status);
/* Where the connections of a listener are counted. */
struct http_connections_counts *metrics_connections(struct metrics *metrics, enum metrics_listener listener);
/* The name of a service in the gate (`service` = SLUICE_MAX_SERVICES: "unprotected"); its number if it has none. */
void metrics_service_name(struct daemon *d, unsigned service, char *name, size_t size);
/* Text exposition format 0.0.4. The caller frees. NULL if there is no memory or the gate's counters cannot be read. */
char *metrics_render(struct daemon *d, size_t *length);

#endif
