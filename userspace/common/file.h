/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Files that must be there after a crash of the machine: replaced in one step, or not at all. */
#ifndef SLUICE_COMMON_FILE_H
#define SLUICE_COMMON_FILE_H

#include <stddef.h>

/* Makes `bytes` the content of the file (0600): PATH.new, synced, renamed, and the directory synced. Returns 0 or negative errno, after
 * which the file is as it was. A directory that cannot be synced is only logged: the change is made, and a crash of the machine may take it back.
 */
int file_replace(const char *path, const void *bytes, size_t length);
/* A name that was made or changed in the directory of `path` outlives a crash. Returns 0 or negative errno. */
int file_sync_directory_of(const char *path);

#endif
