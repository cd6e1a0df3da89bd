/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* An order as the writer's JSON tells it (docs/writer-protocol.md), and as the API tells it. */
#ifndef SLUICE_DAEMON_ORDER_FACTS_H
#define SLUICE_DAEMON_ORDER_FACTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/daemon.h"
#include "daemon/orders.h"

#define ORDER_ID_DIGITS 16

struct told_order {
	uint64_t serial, buyer, admitted_ns;
	struct order_facts facts;
	uint32_t sale, network;
	uint8_t quantity;
	const char *source, *resolved_by; /* texts of the JSON; resolved_by "" = nobody yet */
};

/* Returns 0, or -EPROTO for JSON that is no order. */
int order_facts_read(const json_t *json, struct told_order *order);
/* "9f86d081884c7d65". Returns `id`. */
const char *order_id_text(uint64_t serial, char id[ORDER_ID_DIGITS + 1]);
/* Returns 0 or -EINVAL. */
int order_id_parse(const char *text, uint64_t *serial);
/* What a buyer is told. New reference. */
json_t *order_facts_public_json(struct daemon *d, const struct told_order *order);
/* What the shop is told. New reference; NULL if `json` is no order. */
json_t *order_facts_control_json(struct daemon *d, const json_t *json);

#endif
