/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* sluice-writer --consume: the streams of a fleet, read as a consumer group into tables of PostgreSQL (docs/stream.md).
 *
 * An entry is acknowledged when it is committed, so a crash in between brings it again, and what comes again changes nothing. Needs neither a gate
 * nor a daemon.
 */
#ifndef SLUICE_WRITER_CONSUME_H
#define SLUICE_WRITER_CONSUME_H

#include "common/config.h"

#define CONSUME_NAME_MAX 64 /* bytes of a group's or a consumer's name */
#define CONSUME_GROUP "sluice"

/* Runs until `stop_fd` can be read. `name`: of the consumer in its group; no two may run under one. Returns 0, or negative errno after having said
 * why in the log.
 */
int consume_run(const struct config *config, const char *group, const char *name, int stop_fd);

#endif
