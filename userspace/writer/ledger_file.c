/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The ledger as a file. Called by the SQLite store before the database is opened, and before each transaction.
 *
 * The lock is flock(2) on a file of its own beside the ledger, not on the ledger: SQLite holds POSIX locks there, and
 * closing any other descriptor of the same file would silently drop them. For the same reason nothing here opens an
 * existing ledger but with O_PATH, whose closing drops nothing. The lock goes with the process, however it dies. Readers
 * (the sqlite3 shell) are not concerned by it.
 */
#include "writer/ledger_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "writer/store.h"

#define LEDGER_LOCK_SUFFIX ".lock"
#define LEDGER_WAL_SUFFIX "-wal" /* SQLite's */

static bool trusted_owner(uid_t owner)
{
	return owner == 0 || owner == geteuid();
}

/* Directory of `path`, into `directory` (PATH_MAX). */
static int directory_of(const char *path, char *directory)
{
	const char *slash = strrchr(path, '/');
	size_t length = slash ? (size_t)(slash - path) : 0;

	if (length >= PATH_MAX)
		return -ENAMETOOLONG;
	if (!slash)
		strcpy(directory, ".");
	else if (!length)
		strcpy(directory, "/");
	else
		snprintf(directory, PATH_MAX, "%.*s", (int)length, path);
	return 0;
}

int ledger_file_inspect(const char *path, struct ledger_file *file, char *error)
{
	char directory[PATH_MAX];
	struct stat status;

	if (lstat(path, &status)) {
		int code = -errno;

		return store_explain(error, code, "cannot read the ledger %s: %s", path, strerror(-code));
	}
	/* A symbolic link or a second name would be a second lock file for one ledger. */
	if (!S_ISREG(status.st_mode))
		return store_explain(
			error, -EPERM, "the ledger %s is not a regular file: give the path of the file itself", path);
	if (status.st_nlink > 1)
		return store_explain(error, -EPERM, "the ledger %s has %lu names (hard links): leave it one", path,
			(unsigned long)status.st_nlink);
	if (!trusted_owner(status.st_uid))
		return store_explain(error, -EPERM, "the ledger %s belongs to uid %u, the writer is uid %u: chown it",
			path, (unsigned)status.st_uid, (unsigned)geteuid());
	if (status.st_mode & (S_IWGRP | S_IWOTH))
		return store_explain(error, -EPERM, "others can write the ledger %s (mode %04o): chmod 0600 it", path,
			(unsigned)status.st_mode & 07777);
	file->device = status.st_dev;
	file->inode = status.st_ino;
	if (directory_of(path, directory) || stat(directory, &status))
		return store_explain(
			error, -EIO, "cannot read the directory of the ledger %s: %s", path, strerror(errno));
	if ((status.st_mode & S_IWOTH) && !(status.st_mode & S_ISVTX))
		return store_explain(error, -EPERM,
			"everybody can replace files in %s, where the ledger is: chmod o-w it", directory);
	return 0;
}

static int take_lock(const char *path, struct ledger_file *file, char *error)
{
	char lock_path[PATH_MAX];
	int code;

	if (snprintf(lock_path, sizeof(lock_path), "%s" LEDGER_LOCK_SUFFIX, path) >= (int)sizeof(lock_path))
		return store_explain(error, -ENAMETOOLONG, "the path of the ledger is too long: %s", path);
	file->lock_fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (file->lock_fd < 0) {
		code = -errno;
		return store_explain(error, code, "cannot open %s: %s", lock_path, strerror(-code));
	}
	if (flock(file->lock_fd, LOCK_EX | LOCK_NB)) {
		code = errno == EWOULDBLOCK ? -EBUSY : -errno;
		if (code == -EBUSY)
			return store_explain(
				error, code, "another writer has the ledger %s (lock file %s)", path, lock_path);
		return store_explain(error, code, "cannot lock %s: %s", lock_path, strerror(-code));
	}
	return 0;
}

/* An empty file is a ledger whose tables are not made yet. Its name must be as durable as what it will hold. */
int ledger_file_create(const char *path, char *error)
{
	char directory[PATH_MAX];
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	int code = 0;
	int dir_fd;

	if (fd < 0) {
		if (errno == EEXIST)
			return 0;
		code = -errno;
		return store_explain(error, code, "cannot create the ledger %s: %s", path, strerror(-code));
	}
	if (fchmod(fd, 0600) || fsync(fd))
		code = -errno;
	close(fd);
	if (!code)
		code = directory_of(path, directory);
	if (!code) {
		dir_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir_fd < 0 || fsync(dir_fd))
			code = -errno;
		if (dir_fd >= 0)
			close(dir_fd);
	}
	if (code)
		return store_explain(error, code, "cannot create the ledger %s: %s", path, strerror(-code));
	return 0;
}

/* SQLite deletes a WAL that lies beside an empty database. Where the ledger was moved away and its WAL was left behind, that would
 * be orders.
 */
static int refuse_lone_wal(const char *path, char *error)
{
	char wal_path[PATH_MAX];
	struct stat status;

	if (!lstat(path, &status) && status.st_size)
		return 0;
	snprintf(wal_path, sizeof(wal_path), "%s" LEDGER_WAL_SUFFIX, path);
	if (lstat(wal_path, &status) || !status.st_size)
		return 0;
	return store_explain(error, -EPROTO,
		"there is no ledger %s, but orders of one are in %s: put the ledger back beside it; if they are of no use, remove it",
		path, wal_path);
}

/* Closing a descriptor of O_PATH drops no lock. */
static int keep_name(const char *path, struct ledger_file *file, char *error)
{
	int code;

	file->name_fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (file->name_fd >= 0)
		return 0;
	code = -errno;
	return store_explain(error, code, "cannot read the ledger %s: %s", path, strerror(-code));
}

int ledger_file_claim(const char *path, struct ledger_file *file, char *error)
{
	int code = take_lock(path, file, error);

	if (!code)
		code = refuse_lone_wal(path, error);
	if (!code)
		code = ledger_file_create(path, error);
	if (!code)
		code = keep_name(path, file, error);
	if (!code)
		code = ledger_file_inspect(path, file, error);
	if (code)
		ledger_file_release(file);
	return code;
}

bool ledger_file_same(const char *path, const struct ledger_file *file)
{
	struct stat status;

	return !lstat(path, &status) && status.st_dev == file->device && status.st_ino == file->inode;
}

bool ledger_file_has_name(const struct ledger_file *file)
{
	struct stat status;

	return !fstat(file->name_fd, &status) && status.st_nlink > 0;
}

void ledger_file_release(struct ledger_file *file)
{
	if (file->name_fd >= 0)
		close(file->name_fd);
	file->name_fd = -1;
	if (file->lock_fd >= 0)
		close(file->lock_fd);
	file->lock_fd = -1;
}
