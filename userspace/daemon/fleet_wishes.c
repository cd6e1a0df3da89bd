/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* See fleet_wishes.h. The list belongs to the lock; the items of a wish that is listed belong to the fleet's thread until it is over.
 */
#include "daemon/fleet_wishes.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/timefmt.h"

struct fleet_wishes {
	pthread_mutex_t lock;
	pthread_cond_t over;
	struct fleet_wish *first;
};

struct fleet_wishes *fleet_wishes_new(void)
{
	struct fleet_wishes *wishes = calloc(1, sizeof(*wishes));
	pthread_condattr_t attr;

	if (!wishes)
		return NULL;
	pthread_mutex_init(&wishes->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&wishes->over, &attr);
	pthread_condattr_destroy(&attr);
	return wishes;
}

/* When nobody waits any more, and the fleet's thread has ended. */
void fleet_wishes_free(struct fleet_wishes *wishes)
{
	struct fleet_wish *wish;

	if (!wishes)
		return;
	while ((wish = wishes->first)) {
		wishes->first = wish->next;
		fleet_wish_free(wish);
	}
	free(wishes);
}

struct fleet_wish *fleet_wish_new(const struct fleet_wish_kind *kind, unsigned count, json_t *wanted)
{
	struct fleet_wish *wish = calloc(1, sizeof(*wish));

	if (wish)
		wish->items = calloc(count ? count : 1, sizeof(*wish->items));
	if (!wish || !wish->items) {
		json_decref(wanted);
		free(wish);
		return NULL;
	}
	wish->kind = kind;
	wish->count = count;
	wish->wanted = wanted;
	for (unsigned i = 0; i < count; i++)
		wish->items[i].wish = wish;
	return wish;
}

void fleet_wish_free(struct fleet_wish *wish)
{
	if (!wish)
		return;
	for (unsigned i = 0; i < wish->count; i++)
		json_decref(wish->items[i].known);
	json_decref(wish->wanted);
	free(wish->items);
	free(wish);
}

int fleet_wish_wait(struct daemon *d, struct fleet_wishes *wishes, struct fleet_wish *wish, unsigned timeout_ms)
{
	uint64_t until = time_mono_ns() + timeout_ms * 1000000ULL;
	struct timespec deadline = {
		.tv_sec = (time_t)(until / 1000000000ULL), .tv_nsec = (long)(until % 1000000000ULL)};
	bool over;

	pthread_mutex_lock(&wishes->lock);
	wish->next = wishes->first;
	wishes->first = wish;
	pthread_mutex_unlock(&wishes->lock);
	fleet_wake(d);
	pthread_mutex_lock(&wishes->lock);
	while (!wish->over && !atomic_load(&d->stopping) &&
		pthread_cond_timedwait(&wishes->over, &wishes->lock, &deadline) != ETIMEDOUT)
		;
	over = wish->over;
	wish->left = true;
	pthread_mutex_unlock(&wishes->lock);
	return over ? 0 : -ETIMEDOUT;
}

int fleet_wish_error(const struct fleet_wish *wish, char *failure, size_t failure_size)
{
	bool some_done = false;
	int err = 0;

	*failure = '\0';
	for (unsigned i = 0; i < wish->count; i++) {
		const struct fleet_wish_item *item = &wish->items[i];

		some_done = some_done || !item->error;
		/* Nobody knows whether what timed out was done. */
		if (item->error && (!err || (item->error == -ETIMEDOUT && err != -ETIMEDOUT))) {
			err = item->error;
			snprintf(failure, failure_size, "%s", item->failure);
		}
	}
	return err && some_done && err != -ETIMEDOUT ? -EINPROGRESS : err;
}

static bool is_finished(const struct fleet_wish *wish)
{
	for (unsigned i = 0; i < wish->count; i++)
		if (!wish->items[i].finished)
			return false;
	return true;
}

/* Takes out of the list what is over, or what nobody waits for and nothing is on its way of. */
static void settle(struct fleet_wishes *wishes)
{
	struct fleet_wish **link = &wishes->first, *wish;

	pthread_mutex_lock(&wishes->lock);
	while ((wish = *link)) {
		bool over = is_finished(wish);

		if (!over && !(wish->left && !wish->on_way)) {
			link = &wish->next;
			continue;
		}
		*link = wish->next;
		if (wish->left) {
			fleet_wish_free(wish);
		} else {
			wish->over = true;
			pthread_cond_broadcast(&wishes->over);
		}
	}
	pthread_mutex_unlock(&wishes->lock);
}

static bool ask_items(struct daemon *d, struct fleet_wish *wish, struct fleet_round *round)
{
	for (unsigned i = 0; i < wish->count; i++) {
		struct fleet_wish_item *item = &wish->items[i];

		if (item->finished || item->asked)
			continue;
		if (!wish->kind->ask(d, round, item))
			return false;
		item->asked = true;
		wish->on_way++;
	}
	return true;
}

bool fleet_wishes_step(struct daemon *d, struct fleet_wishes *wishes, struct fleet_round *round)
{
	struct fleet_wish *wish;
	bool all = true;

	settle(wishes);
	/* Others only add at the front, and only this thread takes away: what is behind the first stays as it is. */
	pthread_mutex_lock(&wishes->lock);
	wish = wishes->first;
	pthread_mutex_unlock(&wishes->lock);
	for (; wish && all; wish = wish->next)
		all = ask_items(d, wish, round);
	return all;
}

void fleet_wish_done(struct daemon *d, void *arg, int error, const redisReply *reply)
{
	struct fleet_wish_item *item = arg;

	item->asked = false;
	item->wish->on_way--;
	if (error) {
		item->error = error;
		snprintf(item->failure, sizeof(item->failure), "%.*s", (int)sizeof(item->failure) - 1,
			error == -EREMOTEIO && reply && reply->str ? reply->str : "");
		item->finished = true;
	} else {
		item->finished = item->wish->kind->take(d, item, reply);
	}
}
