/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The connections of one listener, as places that may be lost. Called by http_server.c for each accept, request, answer and close.
 *
 * A connection works (its request is whole) or waits: for the rest of a request, for the next one, for its client to take the answer. Who
 * works is never disturbed. Who waits gives way, the longest first: to a newcomer of the same source when that source has its share, to
 * any newcomer when the places run out, and to nobody at all when its patience is over, however often it sends one more byte. A buyer's
 * request comes whole with the connection, so silent and slow clients crowd out each other, and him never.
 *
 * Giving way is a shutdown() under the lock; the event loop that owns the connection sees its end and closes it. http_connection_close() takes
 * the same lock before the fd is closed, so no fd of another connection is ever hit.
 */
#include "daemon/http_connections.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

#include "common/timefmt.h"
#include "sluice/token.h"

#define SOURCE_BUCKETS 4096
/* Places that are kept free: connections that have been told to go leave a little later. */
#define SPARE_DIVISOR 16
#define WATCH_PERIOD_MS 250
#define NS_PER_MS 1000000L
#define NS_PER_S 1000000000ULL

struct link {
	struct link *next, *prev;
};

struct source {
	struct source *next; /* in its bucket */
	uint64_t network;    /* the IPv6 /64, or the IPv4 address in the mapped form */
	unsigned open, leaving;
	struct link waiting; /* longest first */
};

struct http_connection {
	struct link of_all, of_source; /* while it waits */
	struct http_connections *list;
	struct source *source;
	uint64_t since_ns;
	int fd;
	bool waits, leaves, has_asked;
};

struct http_connections {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t watcher;
	bool is_watched, is_ending;
	struct http_connections_options options;
	unsigned room; /* open connections at which the next one costs another its place */
	unsigned open, leaving;
	struct link waiting; /* longest first */
	uint64_t key[2];
	struct source *sources[SOURCE_BUCKETS];
};

#define OF_ALL(link) ((struct http_connection *)(void *)((char *)(link)-offsetof(struct http_connection, of_all)))
#define OF_SOURCE(link) ((struct http_connection *)(void *)((char *)(link)-offsetof(struct http_connection, of_source)))

static void link_init(struct link *head)
{
	head->next = head->prev = head;
}

static void link_append(struct link *head, struct link *entry)
{
	entry->next = head;
	entry->prev = head->prev;
	head->prev->next = entry;
	head->prev = entry;
}

static void link_remove(struct link *entry)
{
	entry->next->prev = entry->prev;
	entry->prev->next = entry->next;
}

struct http_connections *http_connections_new(const struct http_connections_options *options)
{
	struct http_connections *list = calloc(1, sizeof(*list));
	pthread_condattr_t attributes;
	unsigned spare = options->places / SPARE_DIVISOR + 1;

	if (!list)
		return NULL;
	/* Without a key, somebody with many /64s could choose them so that they share a bucket. */
	if (getrandom(list->key, sizeof(list->key), 0) != sizeof(list->key)) {
		free(list);
		return NULL;
	}
	list->options = *options;
	list->room = options->places > spare ? options->places - spare : 1;
	link_init(&list->waiting);
	pthread_mutex_init(&list->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&list->wake, &attributes);
	pthread_condattr_destroy(&attributes);
	return list;
}

void http_connections_free(struct http_connections *list)
{
	if (!list)
		return;
	if (list->is_watched) {
		pthread_mutex_lock(&list->lock);
		list->is_ending = true;
		pthread_cond_signal(&list->wake);
		pthread_mutex_unlock(&list->lock);
		pthread_join(list->watcher, NULL);
	}
	pthread_cond_destroy(&list->wake);
	pthread_mutex_destroy(&list->lock);
	free(list);
}

/* --- with the lock held ------------------------------------------------------------------------------------------------------------------- */
static struct source **source_slot(struct http_connections *list, uint64_t network)
{
	const __u64 word = network;
	uint64_t hash = sluice_siphash_words(&word, 1, list->key[0], list->key[1]);
	struct source **slot = &list->sources[hash % SOURCE_BUCKETS];

	while (*slot && (*slot)->network != network)
		slot = &(*slot)->next;
	return slot;
}

static struct source *source_get(struct http_connections *list, const struct sluice_addr *addr)
{
	uint64_t network = addr->hi ? addr->hi : addr->lo;
	struct source **slot = source_slot(list, network), *source = *slot;

	if (source)
		return source;
	source = calloc(1, sizeof(*source));
	if (!source)
		return NULL;
	source->network = network;
	link_init(&source->waiting);
	*slot = source;
	return source;
}

static void source_put(struct http_connections *list, struct source *source)
{
	struct source **slot;

	if (--source->open)
		return;
	slot = source_slot(list, source->network);
	*slot = source->next;
	free(source);
}

static void stop_waiting(struct http_connection *connection)
{
	if (!connection->waits)
		return;
	connection->waits = false;
	link_remove(&connection->of_all);
	if (connection->source)
		link_remove(&connection->of_source);
}

static void start_waiting(struct http_connection *connection, uint64_t now_ns)
{
	if (connection->waits || connection->leaves)
		return;
	connection->waits = true;
	connection->since_ns = now_ns;
	link_append(&connection->list->waiting, &connection->of_all);
	if (connection->source)
		link_append(&connection->source->waiting, &connection->of_source);
}

static void give_way(struct http_connection *connection)
{
	stop_waiting(connection);
	connection->leaves = true;
	connection->list->leaving++;
	if (connection->source)
		connection->source->leaving++;
	shutdown(connection->fd, SHUT_RDWR);
}

static bool is_crowded(const struct http_connections *list)
{
	return list->open - list->leaving > list->room && list->waiting.next->next != &list->waiting;
}

/* A burst of newcomers is faster than the thread that reads the request of the one before them. Lets go of the lock meanwhile; ends when the
 * newcomer itself would be next, so after the grace at the latest.
 */
static void wait_for_grace(struct http_connections *list)
{
	uint64_t grace_ns = list->options.grace_ms * (uint64_t)NS_PER_MS;

	while (grace_ns && is_crowded(list)) {
		uint64_t due = OF_ALL(list->waiting.next)->since_ns + grace_ns;
		struct timespec until = {.tv_sec = (time_t)(due / NS_PER_S), .tv_nsec = (long)(due % NS_PER_S)};

		if (time_mono_ns() >= due)
			return;
		pthread_mutex_unlock(&list->lock);
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
		pthread_mutex_lock(&list->lock);
	}
}

/* The newcomer is on the lists already, as the last: it never gives way to itself. */
static void make_room(struct http_connections *list, struct source *source)
{
	unsigned share = list->options.per_source;

	wait_for_grace(list);

	if (source && share && source->open - source->leaving > share &&
		source->waiting.next->next != &source->waiting) {
		atomic_fetch_add(&list->options.counts->crowded_source, 1);
		give_way(OF_SOURCE(source->waiting.next));
	}
	if (is_crowded(list)) {
		atomic_fetch_add(&list->options.counts->crowded, 1);
		give_way(OF_ALL(list->waiting.next));
	}
}

/* --- from outside --------------------------------------------------------------------------------------------------------------------------- */
struct http_connection *http_connection_open(
	struct http_connections *list, int fd, const struct sluice_addr *source, uint64_t now_ns)
{
	struct http_connection *connection = calloc(1, sizeof(*connection));

	if (!connection)
		return NULL;
	connection->list = list;
	connection->fd = fd;
	pthread_mutex_lock(&list->lock);
	if (source)
		connection->source = source_get(list, source);
	if (connection->source)
		connection->source->open++;
	list->open++;
	atomic_fetch_add(&list->options.counts->open, 1);
	start_waiting(connection, now_ns);
	make_room(list, connection->source);
	pthread_mutex_unlock(&list->lock);
	return connection;
}

void http_connection_work(struct http_connection *connection)
{
	if (!connection)
		return;
	pthread_mutex_lock(&connection->list->lock);
	stop_waiting(connection);
	pthread_mutex_unlock(&connection->list->lock);
}

void http_connection_rest(struct http_connection *connection, uint64_t now_ns)
{
	if (!connection)
		return;
	pthread_mutex_lock(&connection->list->lock);
	start_waiting(connection, now_ns);
	pthread_mutex_unlock(&connection->list->lock);
}

void http_connection_close(struct http_connection *connection)
{
	struct http_connections *list;

	if (!connection)
		return;
	list = connection->list;
	pthread_mutex_lock(&list->lock);
	stop_waiting(connection);
	list->open--;
	atomic_fetch_sub(&list->options.counts->open, 1);
	list->leaving -= connection->leaves;
	if (connection->source) {
		connection->source->leaving -= connection->leaves;
		source_put(list, connection->source);
	}
	pthread_mutex_unlock(&list->lock);
	free(connection);
}

bool http_connection_first(struct http_connection *connection)
{
	bool is_first = connection && !connection->has_asked;

	if (is_first)
		connection->has_asked = true;
	return is_first;
}

void http_connections_expire(struct http_connections *list, uint64_t now_ns)
{
	uint64_t patience_ns = list->options.patience_s * NS_PER_S;

	pthread_mutex_lock(&list->lock);
	while (list->waiting.next != &list->waiting) {
		struct http_connection *longest = OF_ALL(list->waiting.next);

		if (longest->since_ns + patience_ns > now_ns)
			break;
		atomic_fetch_add(&list->options.counts->late, 1);
		give_way(longest);
	}
	pthread_mutex_unlock(&list->lock);
}

static void *watch(void *arg)
{
	struct http_connections *list = arg;
	struct timespec until;

	pthread_mutex_lock(&list->lock);
	while (!list->is_ending) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += WATCH_PERIOD_MS * NS_PER_MS;
		until.tv_sec += until.tv_nsec / (long)NS_PER_S;
		until.tv_nsec %= (long)NS_PER_S;
		pthread_cond_timedwait(&list->wake, &list->lock, &until);
		pthread_mutex_unlock(&list->lock);
		http_connections_expire(list, time_mono_ns());
		pthread_mutex_lock(&list->lock);
	}
	pthread_mutex_unlock(&list->lock);
	return NULL;
}

int http_connections_watch(struct http_connections *list)
{
	int err = pthread_create(&list->watcher, NULL, watch, list);

	list->is_watched = !err;
	return -err;
}
