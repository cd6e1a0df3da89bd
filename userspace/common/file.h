/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Files that must be there after a crash of the machine: replaced in one step, or not at all. */
#ifndef SLUICE_COMMON_FILE_H
#define SLUICE_COMMON_FILE_H

#include <stddef.h>

/* Makes `bytes` the content of the file (0600): PATH.new, synced, renamed, and the directory synced. Returns 0; 1: the file is the new one,
 * but its directory could not be synced, so a crash of the machine may take that back; or negative errno: the file is as it was.
 */
int file_replace(const char *path, const void *bytes, size_t length);
/* A name that was made or changed in the directory of `path` outlives a crash. Returns 0 or negative errno. */
int file_sync_directory_of(const char *path);

#endif
