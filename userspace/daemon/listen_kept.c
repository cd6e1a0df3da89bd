/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The public listener outlives the daemon: the service manager keeps it while the daemon is started anew. Without a listener the gate makes no
 * SYN cookies, and the kernel refuses connections; with one, buyers hear from the gate meanwhile that orders are closed for a moment, and
 * who asks for a page waits in the accept queue.
 *
 * The protocol is systemd's, which is a few lines on purpose: sd_listen_fds(3), sd_pid_notify_with_fds(3), FileDescriptorStoreMax= in
 * systemd.service(5). Without a service manager nothing here does anything. Called by main.c while it is still privileged and has no threads.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "daemon/http.h"

#define HANDED_FIRST 3 /* SD_LISTEN_FDS_START */
#define HANDED_MAX 64
#define STORE "FDSTORE=1\nFDNAME=public"
#define FORGET "FDSTOREREMOVE=1\nFDNAME=public"

static unsigned number_in(const char *name)
{
	const char *text = getenv(name);
	char *end;
	unsigned long number;

	if (!text || !*text)
		return 0;
	errno = 0;
	number = strtoul(text, &end, 10);
	return errno || *end || number > INT32_MAX ? 0 : (unsigned)number;
}

/* What sluiced's children, and a sluiced that is started from it, must not take for theirs. Returns how many descriptors were handed over. */
static unsigned take_environment(void)
{
	unsigned count = number_in("LISTEN_PID") == (unsigned)getpid() ? number_in("LISTEN_FDS") : 0;

	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	return count > HANDED_MAX ? HANDED_MAX : count;
}

static bool is_listening(int fd)
{
	int is_listener = 0, type = 0;
	socklen_t size = sizeof(int);

	return !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listener, &size) && is_listener &&
		!getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) && type == SOCK_STREAM;
}

static bool same_address(const struct sockaddr_storage *have, const struct sockaddr *wanted)
{
	if (have->ss_family != wanted->sa_family)
		return false;
	if (have->ss_family == AF_INET) {
		const struct sockaddr_in *a = (const void *)have, *b = (const void *)wanted;

		return a->sin_port == b->sin_port && a->sin_addr.s_addr == b->sin_addr.s_addr;
	}
	if (have->ss_family == AF_INET6) {
		const struct sockaddr_in6 *a = (const void *)have, *b = (const void *)wanted;

		return a->sin6_port == b->sin6_port && a->sin6_scope_id == b->sin6_scope_id &&
			!memcmp(&a->sin6_addr, &b->sin6_addr, sizeof(a->sin6_addr));
	}
	return false;
}

/* A descriptor that was handed over is the listener if it listens at this address, as one that a former daemon opened for it does. */
static bool is_listener_at(int fd, const struct addrinfo *wanted)
{
	struct sockaddr_storage have = {0};
	socklen_t size = sizeof(have);

	return is_listening(fd) && !getsockname(fd, (struct sockaddr *)&have, &size) &&
		same_address(&have, wanted->ai_addr);
}

/* The service manager still has it. While it listens nobody else may at its port, so a former address would keep the new one from being listened on. */
static void put_away(int fd)
{
	if (is_listening(fd))
		shutdown(fd, SHUT_RDWR);
	close(fd);
}

/* Keeps the first of the descriptors that is the listener, and puts all others away. Returns it or -1. */
static int choose_handed(unsigned count, const struct addrinfo *wanted)
{
	int chosen = -1;

	for (int fd = HANDED_FIRST; fd < HANDED_FIRST + (int)count; fd++) {
		if (chosen < 0 && is_listener_at(fd, wanted))
			chosen = fd;
		else
			put_away(fd);
	}
	return chosen;
}

/* Says something to the service manager, with a descriptor if `fd` is not negative. Returns 0, also if there is none, or a negative errno. */
static int tell_manager(const char *words, int fd)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct iovec text = {.iov_base = (void *)words, .iov_len = strlen(words)};
	_Alignas(struct cmsghdr) char room[CMSG_SPACE(sizeof(int))] = {0};
	struct msghdr message = {.msg_name = &address, .msg_iov = &text, .msg_iovlen = 1};
	size_t length = path ? strlen(path) : 0;
	int to, err;

	if (!length)
		return 0;
	if (length >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, length);
	if (*path == '@') /* an abstract socket */
		address.sun_path[0] = '\0';
	message.msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (*path == '@' ? 0 : 1));
	if (fd >= 0) {
		struct cmsghdr *header;

		message.msg_control = room;
		message.msg_controllen = sizeof(room);
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	}
	to = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (to < 0)
		return -errno;
	err = sendmsg(to, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
	close(to);
	return err;
}

int listen_take_kept(const struct addrinfo *wanted, int backlog)
{
	unsigned count = take_environment();
	int fd = choose_handed(count, wanted);

	if (fd < 0)
		return -1;
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) || fcntl(fd, F_SETFL, O_NONBLOCK) || listen(fd, backlog)) {
		log_warn("the listener that was kept cannot be used: %s", strerror(errno));
		put_away(fd);
		return -1;
	}
	return fd;
}

void listen_keep(int fd)
{
	/* One of a former address would be handed over each time. */
	int err = tell_manager(FORGET, -1);

	if (!err)
		err = tell_manager(STORE, fd);
	if (err)
		log_warn(
			"the service manager does not keep the listener (%s): during a restart connections are refused",
			strerror(-err));
}
