/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice verify --fleet`: what all nodes hold, and what Redis says of it. verify_fleet_compare.c compares, and knows no daemon; verify_fleet.c asks. */
#ifndef SLUICE_CLI_VERIFY_FLEET_H
#define SLUICE_CLI_VERIFY_FLEET_H

#include <jansson.h>
#include <stdbool.h>

/* One look: the answer of GET /v1/cluster/audit (docs/openapi-control.json), compared. */
struct fleet_look {
	json_t *differences; /* [{"invariant","difference","sale","node","found","expected","detail"}] */
	json_t *sales;       /* [{"sale","state","total","free","outside","held","confirmed","refunded","equation"}] */
	json_t *silent;      /* [node]: have not answered */
	json_t *seen;        /* [looks in a row]: how often each of the differences was found */
};

/* Returns 0, or -EPROTO if the audit is not understood, or -ENOMEM. */
int fleet_look_compare(const json_t *audit, struct fleet_look *look);
void fleet_look_free(struct fleet_look *look);
/* Counts on: what `before`, the look before this one, had too, with the same figures. */
void fleet_look_follow(struct fleet_look *look, const struct fleet_look *before);
/* Is there a difference that fewer than `looks` have found? The next look may tell. */
bool fleet_look_is_unsure(const struct fleet_look *look, unsigned looks);
/* Leaves those differences that so many looks have found, and lets the sales say what is left. */
void fleet_look_judge(struct fleet_look *look, unsigned looks);

/* Returns an exit code. */
struct cli_api;
int verify_fleet(struct cli_api *api, bool as_json);

#endif
