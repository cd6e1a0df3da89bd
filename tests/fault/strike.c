/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Preloaded into sluice-writer by the crash tests: the nth call that writes is where the harm is done. Never installed.
 *
 * SLUICE_STRIKE="KIND N SEED" in the environment. Counted are the calls that change a file or tell somebody something: open with O_CREAT, write and
 * pwrite64 (but to stderr), ftruncate64, fsync, fdatasync, unlink, send, sendmsg. KIND:
 *   before, after    SIGKILL right before or after the call
 *   power            before the call, and all that was written since its file's last sync is taken back: the machine lost its power
 *   torn             the same, but some of it, cut at sectors, has reached the disk: which, SEED tells
 *   eio, enospc      the call fails, and so do 0 to 3 after it
 *   short            a write or send does half of its work, the next write fails with ENOSPC
 *
 * Threads: the writer has one. What was written through a shared mapping (the WAL's index) is not taken back; nobody trusts it after a crash.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SECTOR 512
#define UNSYNCED_MAX 65536
#define FILES_MAX 64
#define FAILURES_MAX 4

enum kind { NONE, BEFORE, AFTER, POWER, TORN, FAIL_EIO, FAIL_ENOSPC, SHORT };

static const char *const kind_names[] = {
	[BEFORE] = "before",
	[AFTER] = "after",
	[POWER] = "power",
	[TORN] = "torn",
	[FAIL_EIO] = "eio",
	[FAIL_ENOSPC] = "enospc",
	[SHORT] = "short",
};

/* What a piece of a file was before it was written to. */
struct unsynced {
	int fd; /* ours: a duplicate that is never closed, for closing it would drop SQLite's locks */
	ino_t inode;
	off64_t offset, size_before;
	size_t length; /* of `bytes`, which were there */
	char *bytes;
};

static enum kind kind;
static unsigned long strike_at, calls;
static uint64_t random_state;
static unsigned failures_left; /* calls that fail after the first */
static bool full;              /* the rest of a short write: no room */
static struct unsynced unsynced[UNSYNCED_MAX];
static unsigned unsynced_count;
static struct {
	ino_t inode;
	int fd;
} files[FILES_MAX];
static unsigned file_count;

static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

__attribute__((constructor)) static void strike_begin(void)
{
	const char *text = getenv("SLUICE_STRIKE");
	char name[16];
	unsigned long long seed;

	if (!text || sscanf(text, "%15s %lu %llu", name, &strike_at, &seed) != 3)
		return;
	for (unsigned i = BEFORE; i < sizeof(kind_names) / sizeof(*kind_names); i++)
		if (!strcmp(name, kind_names[i]))
			kind = i;
	random_state = seed * 2 + 1;
	for (unsigned i = 0; i < 8; i++)
		next_random();
	failures_left = (unsigned)(next_random() % FAILURES_MAX);
}

static void die(void)
{
	syscall(SYS_kill, getpid(), SIGKILL);
	for (;;)
		pause();
}

/* --- power ---------------------------------------------------------------------------------------------------------------- */
static int own_descriptor(int fd, ino_t inode)
{
	for (unsigned i = 0; i < file_count; i++)
		if (files[i].inode == inode)
			return files[i].fd;
	if (file_count == FILES_MAX)
		abort();
	files[file_count].inode = inode;
	files[file_count].fd = fcntl(fd, F_DUPFD_CLOEXEC, 100);
	return files[file_count++].fd;
}

/* Before `length` bytes at `offset` of a file are changed, or all behind it is cut off (length 0). */
static void remember(int fd, off64_t offset, size_t length)
{
	struct unsynced *piece = &unsynced[unsynced_count];
	struct stat status;
	size_t there;
	ssize_t got;

	if ((kind != POWER && kind != TORN) || fstat(fd, &status) || !S_ISREG(status.st_mode))
		return;
	if (unsynced_count == UNSYNCED_MAX)
		abort();
	there = offset < status.st_size ? (size_t)(status.st_size - offset) : 0;
	if (length && there > length)
		there = length;
	*piece = (struct unsynced){.inode = status.st_ino, .offset = offset, .size_before = status.st_size};
	piece->fd = own_descriptor(fd, status.st_ino);
	piece->bytes = malloc(there + 1);
	/* The descriptor may be for writing alone. */
	got = there ? syscall(SYS_pread64, fd, piece->bytes, there, offset) : 0;
	if (!piece->bytes || got < 0)
		abort();
	piece->length = (size_t)got;
	unsynced_count++;
}

static void forget(int fd)
{
	struct stat status;
	unsigned kept = 0;

	if (!unsynced_count || fstat(fd, &status))
		return;
	for (unsigned i = 0; i < unsynced_count; i++) {
		if (unsynced[i].inode == status.st_ino)
			free(unsynced[i].bytes);
		else
			unsynced[kept++] = unsynced[i];
	}
	unsynced_count = kept;
}

static void lose_unsynced(void)
{
	while (unsynced_count) {
		const struct unsynced *piece = &unsynced[--unsynced_count];
		size_t from = 0;

		if (kind == TORN && next_random() % 2) {
			/* Some of it reached the disk: all of it, or its first sectors. */
			if (next_random() % 2)
				continue;
			from = (size_t)(next_random() % (piece->length / SECTOR + 1)) * SECTOR;
		}
		if (from < piece->length &&
			syscall(SYS_pwrite64, piece->fd, piece->bytes + from, piece->length - from,
				piece->offset + (off64_t)from) < 0)
			abort();
		if (!from && syscall(SYS_ftruncate, piece->fd, piece->size_before))
			abort();
	}
}

/* --- the calls ------------------------------------------------------------------------------------------------------------ */
static bool is_due(void)
{
	calls++;
	if (kind == NONE || calls != strike_at)
		return false;
	if (kind == POWER || kind == TORN)
		lose_unsynced();
	if (kind == BEFORE || kind == POWER || kind == TORN)
		die();
	return true;
}

/* Whether this call must fail; errno then says why. */
static bool fails(bool due)
{
	bool again = !due && calls > strike_at && failures_left && (kind == FAIL_EIO || kind == FAIL_ENOSPC);

	if (again)
		failures_left--;
	if (!again && !(due && (kind == FAIL_EIO || kind == FAIL_ENOSPC)))
		return false;
	errno = kind == FAIL_EIO ? EIO : ENOSPC;
	return true;
}

static long finish(long result, bool due)
{
	if (due && kind == AFTER)
		die();
	return result;
}

static size_t shortened(size_t count, bool due)
{
	if (!due || kind != SHORT || count < 2)
		return count;
	full = true;
	return count / 2;
}

static bool has_no_room(void)
{
	if (!full)
		return false;
	full = false;
	errno = ENOSPC;
	return true;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
	bool due = is_due();

	if (fails(due) || has_no_room())
		return -1;
	count = shortened(count, due);
	remember(fd, offset, count);
	return finish(syscall(SYS_pwrite64, fd, bytes, count, offset), due);
}

ssize_t write(int fd, const void *bytes, size_t count)
{
	bool due;

	if (fd == STDERR_FILENO)
		return syscall(SYS_write, fd, bytes, count);
	due = is_due();
	if (fails(due) || has_no_room())
		return -1;
	count = shortened(count, due);
	remember(fd, lseek(fd, 0, SEEK_CUR), count);
	return finish(syscall(SYS_write, fd, bytes, count), due);
}

int ftruncate64(int fd, off64_t size)
{
	bool due = is_due();

	if (fails(due))
		return -1;
	remember(fd, size, 0);
	return (int)finish(syscall(SYS_ftruncate, fd, size), due);
}

int fdatasync(int fd)
{
	bool due = is_due();
	int result;

	if (fails(due))
		return -1;
	result = (int)syscall(SYS_fdatasync, fd);
	if (!result)
		forget(fd);
	return (int)finish(result, due);
}

int fsync(int fd)
{
	bool due = is_due();
	int result;

	if (fails(due))
		return -1;
	result = (int)syscall(SYS_fsync, fd);
	if (!result)
		forget(fd);
	return (int)finish(result, due);
}

int unlink(const char *path)
{
	bool due = is_due();

	return fails(due) ? -1 : (int)finish(syscall(SYS_unlink, path), due);
}

static int open_file(const char *path, int flags, mode_t mode)
{
	bool due;

	if (!(flags & O_CREAT))
		return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
	due = is_due();
	return fails(due) ? -1 : (int)finish(syscall(SYS_openat, AT_FDCWD, path, flags, mode), due);
}

int open(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
	va_end(args);
	return open_file(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
	va_end(args);
	return open_file(path, flags | O_LARGEFILE, mode);
}

ssize_t send(int fd, const void *bytes, size_t count, int flags)
{
	bool due = is_due();

	if (fails(due))
		return -1;
	if (due && kind == SHORT && count > 1)
		count /= 2;
	return finish(syscall(SYS_sendto, fd, bytes, count, flags, NULL, 0), due);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	bool due = is_due();

	return fails(due) ? -1 : finish(syscall(SYS_sendmsg, fd, message, flags), due);
}
