/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Random deny lists; see deny.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

#include "common/lists.h"
#include "deny.h"
#include "runner.h"

#define SEED 20261122
#define MAPPED 0xffff00000000ULL
#define MAPPED_BITS 96

const char deny_mix[] = "80 % /32, 12 % /24, 4 % /22../23, 3 % /16../21, 1 % /25../31; at least one /12";

/* splitmix64 (Vigna, public domain) */
static uint64_t random_next(struct deny *deny)
{
	uint64_t z = deny->random += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

/* A public unicast address; 10/8 is left to the sources of the other paths. */
static uint32_t random_addr(struct deny *deny)
{
	for (;;) {
		uint32_t addr = random_next(deny), top = addr >> 24;

		if (top > 0 && top < 224 && top != 10 && top != 127)
			return addr;
	}
}

static unsigned random_len(struct deny *deny)
{
	uint64_t r = random_next(deny);
	unsigned percent = r % 100, more = r >> 32;

	if (!deny->count)
		return 12;
	if (percent < 80)
		return 32;
	if (percent < 92)
		return 24;
	if (percent < 96)
		return 22 + more % 2;
	if (percent < 99)
		return 16 + more % 6;
	return 25 + more % 7;
}

static uint32_t host_bits(unsigned len)
{
	return len >= 32 ? 0 : ~0u >> len;
}

void deny_open(struct deny *deny, int lists_fd, int index_fd, int denials_fd)
{
	memset(deny, 0, sizeof(*deny));
	deny->random = SEED;
	deny->lists_fd = lists_fd;
	deny->lists = lists_open(lists_fd, index_fd, denials_fd);
	if (!deny->lists)
		bench_die("cannot open the lists: %s", strerror(errno));
}

void deny_close(struct deny *deny)
{
	lists_close(deny->lists);
	free(deny->addr);
	free(deny->len);
}

void deny_grow(struct deny *deny, unsigned count)
{
	if (count <= deny->count)
		return;
	deny->addr = realloc(deny->addr, count * sizeof(*deny->addr));
	deny->len = realloc(deny->len, count);
	if (!deny->addr || !deny->len)
		bench_die("no memory for a list of %u", count);
	while (lists_count(deny->lists, SLUICE_LIST_DENY) < count) {
		unsigned len = random_len(deny), before = deny->count;
		uint32_t addr = random_addr(deny) & ~host_bits(len);
		struct sluice_addr key = {.lo = MAPPED | addr};
		int err = lists_put(deny->lists, SLUICE_LIST_DENY, &key, MAPPED_BITS + len, 0, "bench");

		if (err)
			bench_die("cannot add deny entry %u: %s", before, strerror(-err));
		if (lists_count(deny->lists, SLUICE_LIST_DENY) == before)
			continue; /* was there */
		deny->addr[deny->count] = addr;
		deny->len[deny->count++] = len;
	}
}

uint32_t deny_listed(struct deny *deny)
{
	unsigned index = random_next(deny) % deny->count;

	return deny->addr[index] | ((uint32_t)random_next(deny) & host_bits(deny->len[index]));
}

static bool is_covered(struct deny *deny, uint32_t addr)
{
	struct sluice_list_entry entry;

	for (unsigned len = 8; len <= 32; len++) {
		struct sluice_list_key key = {.addr.lo = MAPPED | (addr & ~host_bits(len)),
			.list = SLUICE_LIST_DENY,
			.prefix_len = MAPPED_BITS + len};

		if (!bpf_map_lookup_elem(deny->lists_fd, &key, &entry))
			return true;
	}
	return false;
}

uint32_t deny_unlisted(struct deny *deny)
{
	for (;;) {
		uint32_t addr = random_addr(deny);

		if (!is_covered(deny, addr))
			return addr;
	}
}
