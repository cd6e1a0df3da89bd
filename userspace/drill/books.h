/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The drill as an operator: sets up the sale, the deny list and the bots' tokens over the control API, and reads the books at the end. */
#ifndef SLUICE_DRILL_BOOKS_H
#define SLUICE_DRILL_BOOKS_H

#include <stdint.h>

#include "drill/checks.h"
#include "drill/crowd.h"
#include "drill/seen.h"

struct cli_api;

/* All functions say what failed and return 0 or negative errno. */

/* Opens the control API over a Unix socket. */
int drill_books_open(struct cli_api **api, const char *control_socket);

struct drill_sale {
	const char *slug;
	uint32_t stock, per_buyer;
	uint64_t opens_ns, ends_ns;
};
int drill_books_create_sale(struct cli_api *api, const struct drill_sale *sale);
int drill_books_end_sale(struct cli_api *api, const char *slug);
int drill_books_deny(struct cli_api *api, const char *prefix);
/* Issues tokens for `count` buyers called "NAME-0", "NAME-1", … */
int drill_books_issue(
	struct cli_api *api, const char *slug, const char *name, uint32_t count, char (*tokens)[SLUICE_TOKEN_TEXT + 1]);
/* Turns good tokens into ones that expired an hour ago, signed with the daemon's own key: what a token looks like to the gate that
 * was issued for yesterday's sale.
 */
int drill_books_expire(const char *key_file, const char (*good)[SLUICE_TOKEN_TEXT + 1], uint32_t count,
	char (*expired)[SLUICE_TOKEN_TEXT + 1]);

/* Reads sale, stock and orders, after waiting until no unit is in flight (10 s at most). The caller frees ledger->orders. */
int drill_books_read(struct cli_api *api, const char *slug, struct drill_ledger *ledger);

/* The gate's counters by reason, over all services and both doors. */
struct drill_gate_counts {
	struct drill_tally all, refused;
	int64_t refused_by_ledger; /* admissions; since the daemon's start */
};
int drill_books_read_stats(struct cli_api *api, struct drill_gate_counts *counts);

#endif
