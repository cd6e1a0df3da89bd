/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A deny list as they are met in the wild, of any length: random IPv4 prefixes, mostly single addresses, some networks. Filled
 * through userspace/common/lists.c, as the daemon does. The seed is fixed, so every run has the same list.
 */
#ifndef SLUICE_BENCH_DENY_H
#define SLUICE_BENCH_DENY_H

#include <stdbool.h>
#include <stdint.h>

struct lists;

struct deny {
	struct lists *lists;
	int lists_fd;
	uint32_t *addr; /* host order */
	uint8_t *len;
	unsigned count;
	uint64_t random;
};

/* What the list is made of, for the report. */
extern const char deny_mix[];

void deny_open(struct deny *deny, int lists_fd, int index_fd, int denials_fd);
void deny_close(struct deny *deny);
/* Adds prefixes until there are `count`. */
void deny_grow(struct deny *deny, unsigned count);
/* An address inside a random entry. */
uint32_t deny_listed(struct deny *deny);
/* A random address that no entry covers. */
uint32_t deny_unlisted(struct deny *deny);

#endif
