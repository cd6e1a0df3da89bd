/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The consumer's tables in PostgreSQL: sluice_fleet_events, sluice_fleet_orders, sluice_fleet_rejected. Called by consume.c. */
#ifndef SLUICE_WRITER_CONSUME_STORE_H
#define SLUICE_WRITER_CONSUME_STORE_H

#include "writer/consume_entry.h"
#include "writer/store_postgres_link.h"

struct consume_store {
	struct link link;
	char error[STORE_ERROR_MAX];
	bool told_of_key; /* that the tables are of an earlier version: once, not at each attempt */
};

/* `conninfo` is kept. Connects to nobody yet. Returns 0 or -EINVAL with a sentence in store->error. */
int consume_store_init(struct consume_store *store, const char *conninfo);
/* Makes the tables if they are not there, and brings those of an earlier version up to date. Returns 0 or -EIO with a sentence in store->error. */
int consume_store_open(struct consume_store *store);
void consume_store_close(struct consume_store *store);
/* Stores the entries in one transaction, those with a reason among the rejected. Twice the same changes nothing. An entry that the database cannot
 * take for what is in it gets a reason, and is put aside. Returns 0 when all is durable, or -EIO with a sentence: then nothing is.
 */
int consume_store_write(struct consume_store *store, struct consume_entry *entries, unsigned count);

#endif
