/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Deny and allow lists: the entries in map "lists" and the index of prefix lengths in map "list_index", kept in step.
 * One writer at a time (the daemon, or a loader without a daemon). The gate reads entry by entry: of a change of many entries it sees some
 * before the others.
 *
 * The 32 bytes of text of an entry are its label, a NUL, and as much of its reason as fits. What has no reason of its own has its label
 * for one. Who reads the text as a string gets the label.
 */
#ifndef SLUICE_COMMON_LISTS_H
#define SLUICE_COMMON_LISTS_H

#include <stdbool.h>
#include <stddef.h>

#include "sluice/abi.h"

#define LISTS_TEXT_SIZE sizeof(((struct sluice_list_entry *)0)->text)
#define LISTS_LABEL_MAX (LISTS_TEXT_SIZE - 1)

struct lists; /* counts, per index slot and length, the entries that set a bit */

/* Reads what is in the maps (an existing gate). `denials_fd`: what the gate remembers of the deny list, and is told to forget after each change
 * that may end a denial. Returns NULL and errno on failure.
 */
struct lists *lists_open(int lists_fd, int index_fd, int denials_fd);
void lists_close(struct lists *lists);

/* Writes the text of an entry: label and reason are cut at the end of a character. `label` "" takes `reason` for one; `reason` may be "". */
void lists_make_text(char text[LISTS_TEXT_SIZE], const char *label, const char *reason);
/* Each holds LISTS_TEXT_SIZE; `reason` is the label where the entry has none of its own. */
void lists_read_text(const struct sluice_list_entry *entry, char *label, char *reason);
bool lists_has_label(const struct sluice_list_entry *entry, const char *label);
/* Shorter than IPv4 /8 or IPv6 /16: more than anybody means to list. */
bool lists_is_wide(const struct sluice_addr *addr, unsigned prefix_len);
#define LISTS_WIDE4 8
#define LISTS_WIDE6 16

/* Adds or replaces (hits are kept). expires_wall 0 = never. Returns 0, -E2BIG (full), -EINVAL, or negative errno. */
int lists_put(struct lists *lists, enum sluice_list list, const struct sluice_addr *addr, unsigned prefix_len,
	__u64 expires_wall, const char *text);
/* Returns 0 or -ENOENT. */
int lists_remove(struct lists *lists, enum sluice_list list, const struct sluice_addr *addr, unsigned prefix_len);

#define LISTS_OVERWRITE 1u /* also live entries that have another label; else they are kept as they are */
#define LISTS_DRY_RUN 2u   /* only count */
#define LISTS_SWEEP 4u     /* sweep out what expired, though this call has room enough: it is one of several */

struct lists_result {
	unsigned added;      /* were not there, or had expired */
	unsigned refreshed;  /* were there under the same label; hits are kept */
	unsigned replaced;   /* were there under another label, LISTS_OVERWRITE; hits are kept */
	unsigned kept;       /* are there under another label, and stay */
	unsigned duplicates; /* come again later in the same call: the last one counts */
	unsigned needed;     /* room that it takes */
	unsigned room;       /* entries that fit: after it, or before it if it was not done */
};

/* Puts `count` entries, any order, of one list or both; `entries[i].hits` is overwritten. Everything is checked before the first entry
 * goes in, and what expired before `wall_ns` is swept out if the room is short. Returns 0, -E2BIG (they do not all fit: nothing was
 * done), -EINVAL (a key that the gate could not match: nothing was done), -ENOMEM (nothing was done), or another negative errno of a
 * system call, after which some entries are in; the index fits them in any case.
 */
int lists_put_many(struct lists *lists, const struct sluice_list_key *keys, struct sluice_list_entry *entries,
	unsigned count, __u64 wall_ns, unsigned flags, struct lists_result *result);
/* Removes the entries of `list` that have this label. Returns how many (0 is possible), or negative errno. */
int lists_remove_label(struct lists *lists, enum sluice_list list, const char *label);

/* Calls `visit` for every entry of `list` until it returns non-zero; returns that, or 0. Entries may come and go meanwhile. */
int lists_each(struct lists *lists, enum sluice_list list,
	int (*visit)(const struct sluice_list_key *, const struct sluice_list_entry *, void *), void *arg);

/* A place in the map, for reading it page by page. Zeroed: the beginning. It is a bucket, not a key, so entries that go meanwhile do
 * not lose the place.
 */
struct lists_cursor {
	__u32 bucket; /* opaque position of the kernel's batch lookup */
	__u32 skip;   /* entries of that bucket that were visited before */
	bool started;
};

/* Goes on from `cursor`, calling `visit` for entries of `list`: non-zero means that it took the entry. Stops after `limit` taken ones, or
 * about `look` looked at. Returns how many were taken, or negative errno; *end tells that the map is through. Needs no lock.
 */
int lists_page(int lists_fd, enum sluice_list list, struct lists_cursor *cursor, unsigned limit, unsigned look,
	int (*visit)(const struct sluice_list_key *, const struct sluice_list_entry *, void *), void *arg, bool *end);

/* Removes what expired before `wall_ns`, looking at no more than `budget` entries a call (it goes on where it stopped).
 * Returns how many it removed.
 */
int lists_sweep(struct lists *lists, __u64 wall_ns, unsigned budget);
/* Expired entries count until they are swept out. */
unsigned lists_count(const struct lists *lists, enum sluice_list list);
/* Entries that still fit, in both lists together. */
unsigned lists_room(const struct lists *lists);

#endif
