/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The daemon's listening sockets. Called by main.c while it is still privileged; each error is a sentence that names the address. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/wire.h"
#include "daemon/http.h"

/* Splits "[::]:8080" or "127.0.0.1:9180". */
static int split_address(const char *address, char *host, size_t host_size, const char **port)
{
	const char *colon = strrchr(address, ':'), *end = colon;
	const char *start = address;

	if (!colon || !colon[1])
		return -EINVAL;
	if (*start == '[') {
		start++;
		end = strchr(start, ']');
		if (!end || end + 1 != colon)
			return -EINVAL;
	}
	if (end == start || (size_t)(end - start) >= host_size)
		return -EINVAL;
	memcpy(host, start, (size_t)(end - start));
	host[end - start] = '\0';
	*port = colon + 1;
	return 0;
}

static int open_listener(const struct addrinfo *info, int backlog)
{
	int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1, off = 0, err;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
		(info->ai_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off))) ||
		bind(fd, info->ai_addr, info->ai_addrlen) || listen(fd, backlog)) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

static int say_listen_failed(const char *address, int err, char *error, size_t error_size)
{
	snprintf(error, error_size, "cannot listen on %s: %s%s", address, strerror(-err),
		err == -EADDRINUSE       ? " (is another sluiced running?)"
			: err == -EACCES ? " (a port below 1024 needs CAP_NET_BIND_SERVICE)"
					 : "");
	return err;
}

/* The address as the kernel has it, to be freed with freeaddrinfo(). A machine without IPv6 can still serve "any address". */
static int resolve(const char *address, struct addrinfo **info, char *error, size_t error_size)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
	char host[64];
	const char *port;
	int fd;

	if (split_address(address, host, sizeof(host), &port) || getaddrinfo(host, port, &hints, info)) {
		snprintf(error, error_size, "%s is not an address and port such as [::]:8080 or 127.0.0.1:9180",
			address);
		return -EINVAL;
	}
	if (strcmp(host, "::"))
		return 0;
	fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0) {
		close(fd);
		return 0;
	}
	freeaddrinfo(*info);
	if (!getaddrinfo("0.0.0.0", port, &hints, info))
		return 0;
	snprintf(error, error_size, "cannot listen on %s: no IPv6 here", address);
	return -EAFNOSUPPORT;
}

int listen_tcp(const char *address, int backlog, char *error, size_t error_size)
{
	struct addrinfo *info;
	int fd = resolve(address, &info, error, error_size);

	if (fd)
		return fd;
	fd = open_listener(info, backlog);
	freeaddrinfo(info);
	return fd < 0 ? say_listen_failed(address, fd, error, error_size) : fd;
}

int listen_public(const char *address, int backlog, char *error, size_t error_size)
{
	struct addrinfo *info;
	int fd = resolve(address, &info, error, error_size);

	if (fd)
		return fd;
	fd = listen_take_kept(info, backlog);
	if (fd >= 0) {
		log_info("listening on %s by the socket that was kept during the restart", address);
	} else {
		fd = open_listener(info, backlog);
		if (fd >= 0)
			listen_keep(fd);
	}
	freeaddrinfo(info);
	return fd < 0 ? say_listen_failed(address, fd, error, error_size) : fd;
}

int listen_unix(const char *path, int backlog, unsigned mode, const char *group, char *error, size_t error_size)
{
	int fd = wire_listen(path, mode, group);

	/* The writer's one client needs a short queue, this socket a long one: who finds it full is refused at once (EAGAIN). */
	if (fd >= 0 && listen(fd, backlog)) {
		int err = -errno;

		close(fd);
		fd = err;
	}
	if (fd == -EADDRINUSE)
		snprintf(error, error_size, "cannot listen on %s: another sluiced is running there", path);
	else if (fd == -EINVAL && *group)
		snprintf(error, error_size, "cannot give %s to the group \"%s\": is there such a group?", path, group);
	else if (fd == -ENOENT)
		snprintf(error, error_size, "cannot listen on %s: its directory does not exist", path);
	else if (fd < 0)
		snprintf(error, error_size, "cannot listen on %s: %s", path, strerror(-fd));
	return fd;
}
