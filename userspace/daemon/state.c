/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The state directory: lock and control secret. (The key file is common/token.c's.) Called by main.c before privileges are dropped. */
#include "daemon/state.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"

int state_make(const char *dir, char *error, size_t error_size)
{
	int err = mkdir(dir, 0700) && errno != EEXIST ? -errno : 0;

	if (err)
		snprintf(error, error_size, "cannot make the state directory %s: %s", dir, strerror(-err));
	return err;
}

int state_lock(const char *dir, char *error, size_t error_size)
{
	char path[PATH_MAX];
	int fd, err;

	snprintf(path, sizeof(path), "%s/sluiced.lock", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		err = -errno;
		snprintf(error, error_size, "cannot open %s: %s", path, strerror(-err));
		return err;
	}
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		err = -errno;
		snprintf(error, error_size, "cannot lock %s: %s", path,
			err == -EWOULDBLOCK ? "another sluiced is running" : strerror(-err));
		close(fd);
		return err;
	}
	return fd;
}

int state_write_secret(const char *path, const char *secret)
{
	char line[STATE_SECRET_MAX + 2];
	int err;

	if ((size_t)snprintf(line, sizeof(line), "%s\n", secret) >= sizeof(line))
		return -EINVAL;
	err = file_replace(path, line, strlen(line));
	explicit_bzero(line, sizeof(line));
	if (err > 0)
		log_warn("cannot sync the directory of %s: after a crash the secret may be another one", path);
	return err < 0 ? err : 0;
}

static int make_secret(const char *path, char *secret)
{
	unsigned char bytes[DAEMON_SECRET_HEX / 2];

	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		return -EIO;
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(secret + 2 * i, 3, "%02x", bytes[i]);
	return state_write_secret(path, secret);
}

int state_load_secret(const char *dir, char *secret, char *error, size_t error_size)
{
	char path[PATH_MAX], text[DAEMON_SECRET_HEX + 2] = "";
	struct stat info;
	ssize_t n;
	int fd, err = 0;

	snprintf(path, sizeof(path), "%s/control.secret", dir);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && errno == ENOENT) {
		err = make_secret(path, secret);
		if (err)
			snprintf(error, error_size, "cannot make %s: %s", path, strerror(-err));
		return err;
	}
	if (fd < 0) {
		err = -errno;
		snprintf(error, error_size, "cannot open %s: %s", path, strerror(-err));
		return err;
	}
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0 || fstat(fd, &info)) {
		err = -errno;
		snprintf(error, error_size, "cannot read %s: %s", path, strerror(-err));
	} else if (info.st_mode & 077) {
		err = -EPERM;
		snprintf(error, error_size, "%s may be read by others: chmod 600 %s", path, path);
	} else {
		text[strcspn(text, "\r\n")] = '\0';
		if (strlen(text) != DAEMON_SECRET_HEX || strspn(text, "0123456789abcdef") != DAEMON_SECRET_HEX) {
			err = -EINVAL;
			snprintf(error, error_size, "%s must hold %d hex digits; remove it to have a new one made",
				path, DAEMON_SECRET_HEX);
		} else {
			memcpy(secret, text, DAEMON_SECRET_HEX + 1);
		}
	}
	close(fd);
	return err;
}
