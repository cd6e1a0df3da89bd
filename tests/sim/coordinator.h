/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Redis, as far as the lease protocol sees it: processes with a run_id, the replid of a master, a clock and one hash, that run the scripts of
 * userspace/fleet/scripts themselves, in liblua5.1. Copies of a hash are replicas that lag, and snapshots on a disk.
 */
#ifndef SLUICE_SIM_COORDINATOR_H
#define SLUICE_SIM_COORDINATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fleet/lease.h"

#define STORE_FIELDS 24
#define STORE_VALUE_MAX 256

struct store {
	unsigned count; /* 0: there is no such key */
	struct store_field {
		char name[16];
		char value[STORE_VALUE_MAX];
	} fields[STORE_FIELDS];
};

struct process {
	char run[41];
	char replid[41];  /* another each time that it is made master */
	int64_t clock_us; /* ahead of the simulation's */
	struct store store;
};

/* What a script answered; texts live until the next call. */
struct answer {
	bool error;
	char message[512]; /* of the error */
	unsigned count;
	const char *texts[LEASE_REPLY_TEXTS + 4];
	size_t lengths[LEASE_REPLY_TEXTS + 4];
	bool said; /* it published "look" */
};

/* A bug of the scripts: in `script`, `from` (which must be there, once) is replaced. */
struct script_plant {
	const char *name;
	const char *what;
	const char *harm; /* what the claim says that it breaks, of several the one that its name tells of */
	struct {
		const char *script, *from, *to;
	} edits[3];
};
extern const struct script_plant script_plants[];
extern const unsigned script_plant_count;

/* Compiles the scripts, with a bug or (NULL) without, and with another LEASE_SILENT_MS than theirs if `silent_ms` is not NULL. Ends the program with a
 * sentence if that cannot be done.
 */
void coordinator_open(const struct script_plant *plant, const char *silent_ms);
void coordinator_close(void);
void coordinator_run(struct process *process, uint64_t now_ns, const struct lease_call *call, struct answer *answer);
/* NULL: no such field. */
const char *store_get(const struct store *store, const char *name);

#endif
