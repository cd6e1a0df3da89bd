/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What becomes of orders after their admission: confirmed, cancelled, expired, refunded. The ledger decides; table and gate follow. */
#ifndef SLUICE_DAEMON_ORDER_CHANGES_H
#define SLUICE_DAEMON_ORDER_CHANGES_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/daemon.h"
#include "daemon/pipeline.h"

enum order_action { ORDER_CONFIRM, ORDER_CANCEL, ORDER_EXPIRE, ORDER_REFUND };

struct order_change {
	uint64_t serial;
	enum order_action action;
	bool restock; /* ORDER_REFUND: the units are for sale again */
};

/* Names one change, so that it is made once and its first answer given again (docs/writer-protocol.md). */
struct order_once {
	const char *key, *fingerprint;
};

/* Changes an order for the shop, and waits as pipeline_ask does. answer->json is the writer's {"results":[…]} of one result. Besides
 * pipeline_ask's errors: -EAGAIN the order is not durable yet, -ENOSPC a late confirmation that can have no unit, -EBUSY one
 * whose units may still come from another node of the fleet. After each of them nothing was asked. `once` may be NULL.
 */
int order_change_ask(struct daemon *d, const struct order_change *change, const struct order_once *once,
	struct pipeline_answer *answer);
/* Cancels an order for its buyer; `done` is told once, on the pipeline's thread, what order_change_ask would have answered, and when. Returns 0, or
 * -ENOMEM: then it is not called.
 */
int order_cancel_tell(struct daemon *d, uint64_t serial,
	void (*done)(struct daemon *d, void *arg, const struct pipeline_answer *answer), void *arg);

/* Asks for the holds whose time is over, and has them expire. Called by maintenance.c now and then; does nothing while it is at it. */
void order_expiry_step(struct daemon *d);

#endif
