/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Deny and allow lists: the entries in map "lists" and the index of prefix lengths in map "list_index", kept in step.
 * One writer at a time (the daemon, or a loader without a daemon).
 */
#ifndef SLUICE_COMMON_LISTS_H
#define SLUICE_COMMON_LISTS_H

#include <stddef.h>

#include "sluice/abi.h"

struct lists; /* counts, per index slot and length, the entries that set a bit */

/* Reads what is in the maps (an existing gate). Returns NULL and errno on failure. */
struct lists *lists_open(int lists_fd, int index_fd);
void lists_close(struct lists *lists);
/* Adds or replaces (hits are kept). expires_wall 0 = never. Returns 0, -E2BIG (full), -EINVAL, or negative errno. */
int lists_put(struct lists *lists, enum sluice_list list, const struct sluice_addr *addr, unsigned prefix_len,
	__u64 expires_wall, const char *text);
/* Returns 0 or -ENOENT. */
int lists_remove(struct lists *lists, enum sluice_list list, const struct sluice_addr *addr, unsigned prefix_len);
/* Calls `visit` for every entry of `list` until it returns non-zero; returns that, or 0. Entries may come and go meanwhile. */
int lists_each(struct lists *lists, enum sluice_list list,
	int (*visit)(const struct sluice_list_key *, const struct sluice_list_entry *, void *), void *arg);
/* Removes what expired before `wall_ns`, looking at no more than `budget` entries a call (it goes on where it stopped).
 * Returns how many it removed.
 */
int lists_sweep(struct lists *lists, __u64 wall_ns, unsigned budget);
unsigned lists_count(const struct lists *lists, enum sluice_list list);

#endif
