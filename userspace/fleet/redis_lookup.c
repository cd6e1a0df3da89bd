/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Names asked of the resolver by a thread each; see redis_lookup.h. Once for each connection that is made to a name, so seldom. */
#include "fleet/redis_lookup.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define HOST_MAX 256
#define PORT_MAX 8

struct redis_lookup {
	char host[HOST_MAX];
	char port[PORT_MAX];
	int fd; /* eventfd */
	int error;
	struct addrinfo *addresses;
	atomic_bool done;   /* error and addresses are the asker's from then on */
	atomic_uint owners; /* the asker and the thread */
};

static void let_go(struct redis_lookup *lookup)
{
	if (atomic_fetch_sub(&lookup->owners, 1) != 1)
		return;
	if (lookup->addresses)
		freeaddrinfo(lookup->addresses);
	close(lookup->fd);
	free(lookup);
}

static void *ask(void *arg)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	struct redis_lookup *lookup = arg;

	lookup->error = getaddrinfo(lookup->host, lookup->port, &hints, &lookup->addresses);
	atomic_store(&lookup->done, true);
	eventfd_write(lookup->fd, 1);
	let_go(lookup);
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

struct redis_lookup *redis_lookup_start(const char *host, unsigned port, struct addrinfo **known)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
	struct redis_lookup *lookup;
	char text[PORT_MAX];
	int err;

	*known = NULL;
	snprintf(text, sizeof(text), "%u", port);
	if (!getaddrinfo(host, text, &hints, known))
		return NULL;
	if (strlen(host) >= sizeof(lookup->host)) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	lookup = calloc(1, sizeof(*lookup));
	if (!lookup)
		return NULL;
	strcpy(lookup->host, host);
	strcpy(lookup->port, text);
	atomic_init(&lookup->owners, 2);
	err = start(lookup);
	if (err) {
		free(lookup);
		errno = err;
		return NULL;
	}
	return lookup;
}

int redis_lookup_fd(const struct redis_lookup *lookup)
{
	return lookup->fd;
}

int redis_lookup_take(struct redis_lookup *lookup, struct addrinfo **addresses)
{
	if (!atomic_load(&lookup->done))
		return -EAGAIN;
	*addresses = lookup->addresses;
	lookup->addresses = NULL;
	return lookup->error;
}

void redis_lookup_drop(struct redis_lookup *lookup)
{
	if (lookup)
		let_go(lookup);
}
