/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Files that must be there after a crash of the machine: replaced in one step, or not at all. */
#ifndef SLUICE_COMMON_FILE_H
#define SLUICE_COMMON_FILE_H

#include <stddef.h>
#include <sys/types.h>

/* Makes `bytes` the content of the file (0600): PATH.new, synced, renamed, and the directory synced. Returns 0; 1: the file is the new one,
 * but its directory could not be synced, so a crash of the machine may take that back; or negative errno: the file is as it was.
 */
int file_replace(const char *path, const void *bytes, size_t length);
/* The same with another mode, and for another owner ((uid_t)-1 and (gid_t)-1: ourselves), also where the directory is that owner's: whatever he makes of the
 * names in it, no other file is written, and none given to him.
 */
int file_replace_for(const char *path, const void *bytes, size_t length, mode_t mode, uid_t uid, gid_t gid);
/* Reads a secret: a regular file that is ours or root's and that nobody else may read; `what` ("the key file") names it, `advice` says what to do about one that
 * others could read. Returns how many bytes there were (`size` if there may be more; the caller wipes them), or negative errno with a sentence in `error`;
 * -ENOENT comes without one.
 */
ssize_t file_read_secret(const char *path, const char *what, const char *advice, void *bytes, size_t size, char *error,
	size_t error_size);
/* A name that was made or changed in the directory of `path` outlives a crash. Returns 0 or negative errno. */
int file_sync_directory_of(const char *path);

#endif
