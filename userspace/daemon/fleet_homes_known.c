/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Which buyers this node knows, read from the gate's maps for fleet_homes.c when Redis has lost the homes. The maps hold all sales and may have millions of
 * entries, so they are walked once for all sales that are to be told of.
 */
#include "daemon/fleet_homes_known.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "sluice/abi.h"

#define WALK_BATCH 4096

static int compare_sales(const void *left, const void *right)
{
	uint32_t a = ((const struct homes_known *)left)->sale, b = ((const struct homes_known *)right)->sale;

	return (a > b) - (a < b);
}

void homes_known_sort(struct homes_known *all, size_t count)
{
	if (count)
		qsort(all, count, sizeof(*all), compare_sales);
}

struct homes_known *homes_known_find(struct homes_known *all, size_t count, uint32_t sale)
{
	const struct homes_known key = {.sale = sale};

	return count ? bsearch(&key, all, count, sizeof(*all), compare_sales) : NULL;
}

int homes_known_add(struct homes_known *known, uint64_t buyer)
{
	if (known->count == known->capacity) {
		size_t capacity = known->capacity ? 2 * known->capacity : 64;
		uint64_t *buyers = realloc(known->buyers, capacity * sizeof(*buyers));

		if (!buyers)
			return -ENOMEM;
		known->buyers = buyers;
		known->capacity = capacity;
	}
	known->buyers[known->count++] = buyer;
	return 0;
}

struct owner {
	uint32_t sale;
	uint64_t buyer;
};

static struct owner owner_of_issued(const void *key, const void *value)
{
	const struct sluice_buyer_key *who = key;

	(void)value;
	return (struct owner){who->sale, who->buyer};
}

static struct owner owner_of_admission(const void *key, const void *value)
{
	const struct sluice_admission *admission = value;

	(void)key;
	return (struct owner){admission->sale, admission->buyer};
}

/* All entries of a hash map, in pieces: a large one costs milliseconds. An entry that is there all the time is met. */
static int walk(int fd, size_t key_size, size_t value_size,
	struct owner (*owner_of)(const void *key, const void *value), struct homes_known *all, size_t all_count)
{
	char *keys = malloc(WALK_BATCH * key_size), *values = malloc(WALK_BATCH * value_size);
	__u32 cursor = 0, count;
	bool is_first = true;
	int err = keys && values ? 0 : -ENOMEM, end = 0;

	while (!err && !end) {
		count = WALK_BATCH;
		end = bpf_map_lookup_batch(fd, is_first ? NULL : &cursor, &cursor, keys, values, &count, NULL);
		if (end && end != -ENOENT)
			err = end;
		for (__u32 i = 0; i < count && !err; i++) {
			struct owner owner = owner_of(keys + i * key_size, values + i * value_size);
			struct homes_known *known = homes_known_find(all, all_count, owner.sale);

			err = known ? homes_known_add(known, owner.buyer) : 0;
		}
		is_first = false;
	}
	free(keys);
	free(values);
	return err;
}

int homes_known_read(int issued_fd, int admissions_fd, struct homes_known *all, size_t count)
{
	int err = walk(
		issued_fd, sizeof(struct sluice_buyer_key), sizeof(struct sluice_issued), owner_of_issued, all, count);

	/* Cancelled orders too: an expired one can still be confirmed. The map has all orders of a sale that is not over. */
	return err
		? err
		: walk(admissions_fd, sizeof(__u64), sizeof(struct sluice_admission), owner_of_admission, all, count);
}
