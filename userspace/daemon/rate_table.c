/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A four-way set-associative table of GCRA buckets. Called by issue.c, from any HTTP thread.
 *
 * Memory is fixed at start. When a set is full, the bucket whose time lies furthest back gives way: that one has the most of its burst
 * back already, so forgetting it gives away the least.
 */
#include "daemon/rate_table.h"

#include <pthread.h>
#include <stdlib.h>

#include "sluice/gcra.h"

#define WAYS 4
#define LOCKS 64

struct bucket {
	uint64_t key; /* 0: free */
	uint64_t tat_ns;
};

struct rate_table {
	pthread_mutex_t locks[LOCKS];
	unsigned set_mask;
	struct bucket sets[][WAYS];
};

struct rate_table *rate_table_new(unsigned buckets)
{
	struct rate_table *table;
	unsigned sets = LOCKS;

	while (sets * WAYS < buckets)
		sets *= 2;
	table = calloc(1, sizeof(*table) + (size_t)sets * sizeof(table->sets[0]));
	if (!table)
		return NULL;
	table->set_mask = sets - 1;
	for (unsigned i = 0; i < LOCKS; i++)
		pthread_mutex_init(&table->locks[i], NULL);
	return table;
}

void rate_table_free(struct rate_table *table)
{
	if (!table)
		return;
	for (unsigned i = 0; i < LOCKS; i++)
		pthread_mutex_destroy(&table->locks[i]);
	free(table);
}

static struct bucket *bucket_for(struct bucket *set, uint64_t key)
{
	struct bucket *oldest = &set[0];

	for (unsigned i = 0; i < WAYS; i++)
		if (set[i].key == key)
			return &set[i];
	for (unsigned i = 1; i < WAYS; i++)
		if (set[i].tat_ns < oldest->tat_ns)
			oldest = &set[i];
	oldest->key = key;
	oldest->tat_ns = 0;
	return oldest;
}

unsigned rate_table_take(struct rate_table *table, const struct sluice_limit *limit, uint64_t key, uint64_t now)
{
	unsigned index = (unsigned)(key ^ key >> 32) & table->set_mask, wait_s = 0;
	pthread_mutex_t *lock = &table->locks[index % LOCKS];
	struct bucket *bucket;
	uint64_t next;

	if (!limit->interval_ns)
		return 0;
	pthread_mutex_lock(lock);
	bucket = bucket_for(table->sets[index], key);
	next = gcra_next(limit, bucket->tat_ns, now, 1);
	if (next)
		bucket->tat_ns = next;
	else
		wait_s = gcra_retry_after_s(limit, bucket->tat_ns, now);
	pthread_mutex_unlock(lock);
	return wait_s;
}

uint64_t rate_table_peek(struct rate_table *table, uint64_t key)
{
	unsigned index = (unsigned)(key ^ key >> 32) & table->set_mask;
	pthread_mutex_t *lock = &table->locks[index % LOCKS];
	uint64_t tat_ns = 0;

	pthread_mutex_lock(lock);
	for (unsigned i = 0; i < WAYS; i++)
		if (table->sets[index][i].key == key)
			tat_ns = table->sets[index][i].tat_ns;
	pthread_mutex_unlock(lock);
	return tat_ns;
}
