/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the parts of sluiced share: the one struct that main.c fills and passes around.
 *
 * Who may write what: shared words of sales and stock, and counts of buyers, are changed by the pipeline's thread alone (in the order in which the
 * ledger said yes), with three exceptions that are single stores: the maintenance thread marks a sale that is over as ended, the
 * heartbeat thread writes heartbeat and wall offset, and revocation.c writes the second before which tokens are revoked. HTTP threads read, and ask the pipeline for changes.
 */
#ifndef SLUICE_DAEMON_DAEMON_H
#define SLUICE_DAEMON_DAEMON_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/lists.h"
#include "common/maps.h"
#include "common/token.h"

#define DAEMON_SECRET_HEX 64 /* 32 random bytes as hex digits */

struct fleet;
struct fleet_homes;
struct fleet_keys;
struct fleet_leases;
struct fleet_nodes;
struct fleet_settings;
struct interfaces;
struct issuer;
struct metrics;
struct orders;
struct pipeline;
struct revocations;
struct sales;
struct watch;
struct webhooks;

struct daemon {
	struct config config;
	struct gate_maps maps;
	struct token_keys keys;
	pthread_rwlock_t keys_lock; /* keys change when they are rotated */
	char keys_path[CONFIG_PATH_MAX + 16];
	char secret[DAEMON_SECRET_HEX + 1];
	struct lists *lists;
	pthread_mutex_t lists_lock;
	pthread_mutex_t change_lock; /* one change of a sale or its stock at a time */
	atomic_uint sales_changing;  /* changes of sales that the ledger has not answered (sale_change.c) */
	struct sales *sales;
	struct orders *orders;
	struct pipeline *pipeline;
	struct interfaces *interfaces; /* NULL: nothing is known of them */
	struct issuer *issuer;
	struct revocations *revocations;
	struct metrics *metrics;
	struct watch *watch;
	struct webhooks *webhooks;       /* NULL: none */
	struct fleet *fleet;             /* NULL: this node is alone */
	struct fleet_keys *fleet_keys;   /* likewise */
	struct fleet_homes *fleet_homes; /* likewise */
	struct fleet_leases *leases;     /* likewise */
	struct fleet_nodes *fleet_nodes;
	struct fleet_settings *settings;
	uint64_t started_mono_ns;
	atomic_bool stopping;
	atomic_bool gate_is_gone; /* detached under the running daemon, which ends then */
	atomic_bool sales_known;  /* the ledger's sales have been read at least once */
};

#endif
