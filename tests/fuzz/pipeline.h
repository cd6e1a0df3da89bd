/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The daemon's pipeline without threads and sockets: questions go through the writer's own parser into the store in memory, and each
 * admission is durable at the next step. Linked in place of pipeline.c, batches.c, questions.c, recovery.c and writer_link.c.
 */
#ifndef SLUICE_FUZZ_PIPELINE_H
#define SLUICE_FUZZ_PIPELINE_H

#include "daemon/daemon.h"

enum pipeline_mood { PIPELINE_WELL, PIPELINE_AWAY, PIPELINE_SILENT, PIPELINE_MOODS };

/* With an empty ledger. */
void pipeline_begin(struct daemon *d);
/* What the writer is like from now on. */
void pipeline_set_mood(struct daemon *d, enum pipeline_mood mood);
/* Takes what is on the ring to the ledger. */
void pipeline_step(struct daemon *d);

#endif
