/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The files of a drill in namespaces of its own; see workdir.c. */
#ifndef SLUICE_DRILL_WORKDIR_H
#define SLUICE_DRILL_WORKDIR_H

#include "drill/arena.h"

/* Makes the directory (or a temporary one), clears what an earlier drill left in it, and fills the paths in `arena`. Says what
 * failed. Returns 0 or negative errno; -EEXIST if a ledger lies there that is not a drill's.
 */
int drill_workdir_make(struct drill_arena *arena, const struct drill_options *options);
/* Writes arena->config: the product's defaults, but for paths, sizes that follow from the size of the drill, and the limits that
 * honest people behind one shared address would run into. Returns 0 or negative errno.
 */
int drill_workdir_write_config(const struct drill_arena *arena, const struct drill_options *options);
/* Removes a directory and all that is in it, staying on its file system. */
void drill_remove_tree(const char *path);

#endif
