/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* One verdict of GET /v1/events as a line for people. */
#ifndef SLUICE_CLI_VERDICT_LINE_H
#define SLUICE_CLI_VERDICT_LINE_H

#include <jansson.h>
#include <stdio.h>

void cli_verdict_header(FILE *out);
void cli_verdict_line(FILE *out, const json_t *verdict);

#endif
