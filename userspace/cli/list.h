/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The verbs of `sluice deny` and `sluice allow` that have files of their own. */
#ifndef SLUICE_CLI_LIST_H
#define SLUICE_CLI_LIST_H

#include "cli/cli.h"

/* list_import.c */
extern const struct cli_option cli_list_import_options[];
int cli_list_import(const struct cli_call *call);

#endif
