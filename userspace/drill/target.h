/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A drill against a server that the operator named: finding it, and asking it for the sale. */
#ifndef SLUICE_DRILL_TARGET_H
#define SLUICE_DRILL_TARGET_H

#include "drill/crowd.h"

struct drill_target_sale {
	uint64_t opens_ns, ends_ns; /* wall */
	uint32_t per_buyer;
	bool over;
};

/* "shop.example:8080", "192.0.2.1:8080", "[2001:db8::1]:8080". Fills the first IPv4 and the first IPv6 address of the host (family 0: none).
 * Returns 0, or -EINVAL after saying why.
 */
int drill_target_resolve(const char *text, union drill_address *v4, union drill_address *v6);
/* GET /v1/sales/{slug} on the target. Returns 0, or negative errno after saying why. */
int drill_target_read_sale(const struct drill_plan *plan, struct drill_target_sale *sale);

#endif
