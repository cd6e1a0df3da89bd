/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The API names fields of JSON; who types a command knows its options. */
#ifndef SLUICE_CLI_FIELD_WORDS_H
#define SLUICE_CLI_FIELD_WORDS_H

#include "cli/cli.h"

/* `detail` with the names of fields that are options of the command replaced by them: "per_buyer must be …" becomes "--per-buyer must be …". `field`: the
 * one to blame, or NULL. `options` may be NULL. The caller frees; NULL without memory.
 */
char *cli_field_words(const struct cli_option *options, const char *field, const char *detail);

#endif
