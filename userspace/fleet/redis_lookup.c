/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Names asked of the resolver by a thread each; see redis_lookup.h. Once for each connection that is made to a name, so seldom.
 *
 * A thread that nobody waits for any more goes on, because getaddrinfo() cannot be broken off. Who asks for its name next is given that one, so a
 * resolver that is silent for minutes has one thread for each name and asker, and not one for each attempt.
 */
#include "fleet/redis_lookup.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define HOST_MAX 256
#define PORT_MAX 8

struct redis_lookup {
	struct redis_lookup *next; /* of those under way */
	char host[HOST_MAX];
	char port[PORT_MAX];
	int fd; /* eventfd */
	int error;
	struct addrinfo *addresses;
	bool is_asked, done; /* somebody waits; error and addresses are his from then on */
};

/* Under lock: those whose threads have not ended. */
static struct {
	pthread_mutex_t lock;
	struct redis_lookup *first;
	unsigned count;
} under_way = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void release(struct redis_lookup *lookup)
{
	if (lookup->addresses)
		freeaddrinfo(lookup->addresses);
	close(lookup->fd);
	free(lookup);
}

static void take_out(struct redis_lookup *lookup)
{
	struct redis_lookup **link = &under_way.first;

	while (*link != lookup)
		link = &(*link)->next;
	*link = lookup->next;
	under_way.count--;
}

static void *ask(void *arg)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	struct redis_lookup *lookup = arg;
	bool is_asked;

	lookup->error = getaddrinfo(lookup->host, lookup->port, &hints, &lookup->addresses);
	pthread_mutex_lock(&under_way.lock);
	take_out(lookup);
	lookup->done = true;
	is_asked = lookup->is_asked;
	if (is_asked)
		eventfd_write(lookup->fd, 1);
	pthread_mutex_unlock(&under_way.lock);
	if (!is_asked)
		release(lookup);
	return NULL;
}

static int start(struct redis_lookup *lookup)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int err;

	lookup->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (lookup->fd < 0)
		return errno;
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	err = pthread_create(&thread, &attributes, ask, lookup);
	pthread_attr_destroy(&attributes);
	if (err)
		close(lookup->fd);
	return err;
}

/* One that was given up. The lock is held. */
static struct redis_lookup *find_given_up(const char *host, const char *port)
{
	struct redis_lookup *lookup = under_way.first;

	while (lookup && (lookup->is_asked || strcmp(lookup->host, host) != 0 || strcmp(lookup->port, port) != 0))
		lookup = lookup->next;
	return lookup;
}

/* The lock is held. Returns NULL with errno. */
static struct redis_lookup *begin(const char *host, const char *port)
{
	struct redis_lookup *lookup;
	int err;

	if (under_way.count == REDIS_LOOKUPS_MAX) {
		errno = EAGAIN;
		return NULL;
	}
	lookup = calloc(1, sizeof(*lookup));
	if (!lookup)
		return NULL;
	strcpy(lookup->host, host);
	strcpy(lookup->port, port);
	err = start(lookup);
	if (err) {
		free(lookup);
		errno = err;
		return NULL;
	}
	lookup->next = under_way.first;
	under_way.first = lookup;
	under_way.count++;
	return lookup;
}

struct redis_lookup *redis_lookup_start(const char *host, unsigned port, struct addrinfo **known)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
	struct redis_lookup *lookup;
	char text[PORT_MAX];

	*known = NULL;
	snprintf(text, sizeof(text), "%u", port);
	if (!getaddrinfo(host, text, &hints, known))
		return NULL;
	if (strlen(host) >= sizeof(lookup->host)) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	pthread_mutex_lock(&under_way.lock);
	lookup = find_given_up(host, text);
	if (!lookup)
		lookup = begin(host, text);
	if (lookup)
		lookup->is_asked = true;
	pthread_mutex_unlock(&under_way.lock);
	return lookup;
}

int redis_lookup_fd(const struct redis_lookup *lookup)
{
	return lookup->fd;
}

int redis_lookup_take(struct redis_lookup *lookup, struct addrinfo **addresses)
{
	bool done;

	pthread_mutex_lock(&under_way.lock);
	done = lookup->done;
	pthread_mutex_unlock(&under_way.lock);
	if (!done)
		return -EINPROGRESS;
	*addresses = lookup->addresses;
	lookup->addresses = NULL;
	return lookup->error;
}

void redis_lookup_drop(struct redis_lookup *lookup)
{
	bool done;

	if (!lookup)
		return;
	pthread_mutex_lock(&under_way.lock);
	done = lookup->done;
	lookup->is_asked = false;
	pthread_mutex_unlock(&under_way.lock);
	if (done)
		release(lookup);
}
