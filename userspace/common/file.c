/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Replacing small files so that a crash leaves either the old or the new one; see file.h. Used for what the daemon keeps in its state directory. */
#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODE_OURS 0600

int file_sync_directory_of(const char *path)
{
	char copy[PATH_MAX];
	int fd, err = 0;

	if ((size_t)snprintf(copy, sizeof(copy), "%s", path) >= sizeof(copy))
		return -ENAMETOOLONG;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fsync(fd))
		err = -errno;
	close(fd);
	return err;
}

struct rights {
	mode_t mode;
	uid_t uid;
	gid_t gid;
};

static int write_new(const char *path, const char *bytes, size_t length, const struct rights *rights)
{
	int fd, err = 0;

	unlink(path); /* left by a crash; O_EXCL below refuses anything that another user could have put there */
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, MODE_OURS);
	if (fd < 0)
		return -errno;
	while (length && !err) {
		ssize_t n = write(fd, bytes, length);

		if (n >= 0) {
			bytes += n;
			length -= (size_t)n;
		} else if (errno != EINTR) {
			err = -errno;
		}
	}
	if (!err && rights->mode != MODE_OURS && fchmod(fd, rights->mode))
		err = -errno;
	if (!err && (rights->uid != (uid_t)-1 || rights->gid != (gid_t)-1) && fchown(fd, rights->uid, rights->gid))
		err = -errno;
	if (!err && fsync(fd))
		err = -errno;
	if (close(fd) && !err)
		err = -errno;
	return err;
}

static int replace(const char *path, const void *bytes, size_t length, const struct rights *rights)
{
	char fresh[PATH_MAX];
	int err;

	if ((size_t)snprintf(fresh, sizeof(fresh), "%s.new", path) >= sizeof(fresh))
		return -ENAMETOOLONG;
	err = write_new(fresh, bytes, length, rights);
	if (!err && rename(fresh, path))
		err = -errno;
	if (err) {
		unlink(fresh);
		return err;
	}
	return file_sync_directory_of(path) ? 1 : 0;
}

int file_replace(const char *path, const void *bytes, size_t length)
{
	return replace(path, bytes, length, &(struct rights){.mode = MODE_OURS, .uid = (uid_t)-1, .gid = (gid_t)-1});
}

int file_replace_for(const char *path, const void *bytes, size_t length, mode_t mode, uid_t uid, gid_t gid)
{
	return replace(path, bytes, length, &(struct rights){.mode = mode, .uid = uid, .gid = gid});
}

/* Returns 0, or negative errno with a sentence. */
static int check_secret(int fd, const char *path, const char *what, const char *advice, char *error, size_t error_size)
{
	struct stat st;
	int err = 0;

	if (fstat(fd, &st)) {
		err = -errno;
		snprintf(error, error_size, "cannot read %s %s: %s", what, path, strerror(-err));
	} else if (!S_ISREG(st.st_mode)) {
		err = -EINVAL;
		snprintf(error, error_size, "%s %s is not a regular file", what, path);
	} else if (st.st_mode & 077) {
		err = -EPERM;
		snprintf(error, error_size, "others may read %s %s (mode %04o): %s", what, path,
			(unsigned)(st.st_mode & 07777), advice);
	} else if (st.st_uid != geteuid() && st.st_uid != 0) {
		err = -EPERM;
		snprintf(error, error_size, "%s %s belongs to uid %u, not to this process's user: chown it", what, path,
			(unsigned)st.st_uid);
	}
	return err;
}

ssize_t file_read_secret(const char *path, const char *what, const char *advice, void *bytes, size_t size, char *error,
	size_t error_size)
{
	/* Not blocking: what is in the way may be a pipe. */
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	ssize_t n;

	if (fd < 0) {
		n = -errno;
		if (n != -ENOENT)
			snprintf(error, error_size, "cannot open %s %s: %s", what, path,
				n == -ELOOP ? "it must not be a symbolic link" : strerror((int)-n));
		return n;
	}
	n = check_secret(fd, path, what, advice, error, error_size);
	if (!n) {
		n = read(fd, bytes, size);
		if (n < 0) {
			n = -errno;
			snprintf(error, error_size, "cannot read %s %s: %s", what, path, strerror((int)-n));
		}
	}
	close(fd);
	return n;
}
