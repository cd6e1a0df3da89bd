/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What webhooks.c and webhooks_report.c share; nobody else includes this.
 *
 * Only the thread of webhooks.c changes the table; it does so under the lock, because requests look at it. It asks the writer without the lock.
 */
#ifndef SLUICE_DAEMON_WEBHOOKS_IMPL_H
#define SLUICE_DAEMON_WEBHOOKS_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "daemon/webhooks.h"
#include "daemon/webhooks_post.h"

#define WEBHOOK_SLOTS 16

/* One sale at work. */
struct webhook_slot {
	struct webhook_post post;
	uint32_t sale; /* 0: free */
	json_t *events;
	size_t at;
};

struct webhooks {
	struct daemon *d;
	char shown_url[CONFIG_URL_MAX];
	char fingerprint[WEBHOOK_SIGNATURE_MAX]; /* of the URL, keyed: another one is another receiver */
	uint64_t since_ns;                       /* wall: where a ledger begins that has never had webhooks */
	pthread_t thread;
	bool is_started;
	atomic_bool stop;
	CURLM *multi;
	struct webhook_slot slots[WEBHOOK_SLOTS];
	uint64_t scan_ns, away_ns, save_ns, secret_ns; /* mono: not before */

	pthread_mutex_t lock; /* what follows */
	struct webhook_secret secret;
	struct webhook_table table;
	bool is_loaded, is_dirty;

	atomic_bool is_gone; /* the receiver said 410 */
	atomic_ullong delivered, failed[WEBHOOK_FAILURES];
};

#endif
