/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What `sluice top` prints of an answer of GET /v1/top. */
#ifndef SLUICE_CLI_TOP_H
#define SLUICE_CLI_TOP_H

#include <jansson.h>
#include <stdio.h>

/* At most `rows` reasons, busiest first. */
void cli_top_print(FILE *out, const json_t *top, unsigned rows);

#endif
