/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Frames between daemon and order writer, and the Unix socket under them (see wire.h for the protocol).
 *
 * Called by the daemon (connect, send, receive) and by the writer (listen; its poll loop reads frames by itself,
 * because a daemon that stops in the middle of a frame must not keep the next one waiting) and by tests and benches.
 * Promises: a frame is sent whole or the caller hears of it; nothing is allocated for a header that is not to be
 * believed.
 */
#include "common/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

/* A daemon that reconnects in a loop needs no queue; a few are kept so that none is refused while the writer commits. */
#define WIRE_LISTEN_BACKLOG 8

/* Waits for `events`, through signals. Returns 0, -ETIMEDOUT or negative errno. An error or a hang-up counts as ready:
 * the call that follows reports it.
 */
static int wire_wait(int fd, short events, int timeout_ms)
{
	struct pollfd poller = {.fd = fd, .events = events};
	int ready;

	do
		ready = poll(&poller, 1, timeout_ms);
	while (ready < 0 && errno == EINTR);
	if (ready < 0)
		return -errno;
	return ready ? 0 : -ETIMEDOUT;
}

int wire_send(int fd, enum wire_type type, uint64_t id, const void *body, uint32_t length, int timeout_ms)
{
	struct wire_header header = {
		.magic = WIRE_MAGIC, .version = WIRE_VERSION, .type = (uint16_t)type, .id = id, .length = length};
	struct iovec parts[2] = {{&header, sizeof(header)}, {(void *)(uintptr_t)body, length}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = length ? 2 : 1};

	if (length > WIRE_BODY_MAX)
		return -EMSGSIZE;
	while (message.msg_iovlen) {
		ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			int error = wire_wait(fd, POLLOUT, timeout_ms);

			if (error)
				return error;
			continue;
		}
		if (sent < 0)
			return -errno;
		while (message.msg_iovlen && (size_t)sent >= message.msg_iov->iov_len) {
			sent -= (ssize_t)message.msg_iov->iov_len;
			message.msg_iov++;
			message.msg_iovlen--;
		}
		if (message.msg_iovlen) {
			message.msg_iov->iov_base = (char *)message.msg_iov->iov_base + sent;
			message.msg_iov->iov_len -= (size_t)sent;
		}
	}
	return 0;
}

/* Fills `bytes`. Returns 0, -ENOTCONN if the peer closed before the first byte, -ECONNRESET if it closed after it. */
static int wire_read(int fd, void *bytes, size_t count, int timeout_ms)
{
	size_t have = 0;

	while (have < count) {
		ssize_t got = recv(fd, (char *)bytes + have, count - have, MSG_DONTWAIT);

		if (got > 0) {
			have += (size_t)got;
			continue;
		}
		if (got == 0)
			return have ? -ECONNRESET : -ENOTCONN;
		if (errno == EAGAIN || errno == EWOULDBLOCK) {
			int error = wire_wait(fd, POLLIN, timeout_ms);

			if (error)
				return error;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

int wire_header_check(const struct wire_header *header)
{
	if (header->magic != WIRE_MAGIC || header->version != WIRE_VERSION || header->reserved ||
		header->length > WIRE_BODY_MAX)
		return -EPROTO;
	return 0;
}

int wire_receive(int fd, struct wire_header *header, void **body, size_t *capacity, int timeout_ms)
{
	int error = wire_read(fd, header, sizeof(*header), timeout_ms);

	if (error)
		return error;
	error = wire_header_check(header);
	if (error)
		return error;
	if (header->length > *capacity) {
		void *grown = realloc(*body, header->length);

		if (!grown)
			return -ENOMEM;
		*body = grown;
		*capacity = header->length;
	}
	if (!header->length)
		return 0;
	error = wire_read(fd, *body, header->length, timeout_ms);
	return error == -ENOTCONN ? -ECONNRESET : error;
}

static int wire_address(const char *path, struct sockaddr_un *address)
{
	size_t length = strlen(path);

	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	if (!length)
		return -EINVAL;
	if (length >= sizeof(address->sun_path))
		return -ENAMETOOLONG;
	memcpy(address->sun_path, path, length);
	return 0;
}

int wire_connect(const char *path)
{
	struct sockaddr_un address;
	int error = wire_address(path, &address);
	int fd;

	if (error)
		return error;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		error = -errno;
		close(fd);
		return error;
	}
	return fd;
}

/* Makes way at `path`: removes a socket on which nobody listens. Whatever is not a socket stays (-EEXIST). */
static int wire_remove_stale(const char *path)
{
	struct stat status;
	int fd;

	if (lstat(path, &status))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(status.st_mode))
		return -EEXIST;
	fd = wire_connect(path);
	if (fd >= 0) {
		close(fd);
		return -EADDRINUSE;
	}
	if (fd != -ECONNREFUSED)
		return fd;
	return unlink(path) && errno != ENOENT ? -errno : 0;
}

int wire_listen(const char *path, unsigned mode, const char *group)
{
	struct sockaddr_un address;
	struct group *entry = NULL;
	int error = wire_address(path, &address);
	mode_t others;
	int fd;

	if (error)
		return error;
	if (group && *group) {
		entry = getgrnam(group);
		if (!entry)
			return -EINVAL;
	}
	error = wire_remove_stale(path);
	if (error)
		return error;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* The directory may be another user's, and we root: so the mode comes with the socket, and the group does not follow its name. Until listen() every connect
	 * is refused.
	 */
	others = umask(~mode & 0777);
	error = bind(fd, (struct sockaddr *)&address, sizeof(address)) ? -errno : 0;
	umask(others);
	if (error)
		goto fail;
	if ((entry && lchown(path, (uid_t)-1, entry->gr_gid)) || listen(fd, WIRE_LISTEN_BACKLOG)) {
		error = -errno;
		unlink(path);
		goto fail;
	}
	return fd;
fail:
	close(fd);
	return error;
}
