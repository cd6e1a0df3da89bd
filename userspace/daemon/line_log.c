/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A log of lines, each synced; see line_log.h.
 *
 * It is opened before privileges are dropped, and kept open. Lines are written at a place, not at the end of the file: where the last good line
 * ends is known, and is not asked of a file that may have half a line behind it.
 */
#include "daemon/line_log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"

static __attribute__((format(printf, 4, 5))) int fail(int err, char *error, size_t error_size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error, error_size, format, args);
	va_end(args);
	return err;
}

/* --- writing -------------------------------------------------------------------------------------------------------------- */
/* A write that falls short is followed by one that says why. */
static int write_at(int fd, const char *bytes, size_t length, off_t at)
{
	while (length) {
		ssize_t n = pwrite(fd, bytes, length, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		bytes += n;
		length -= (size_t)n;
		at += n;
	}
	return 0;
}

/* Cuts off what stands behind the last good line. */
static int mend(struct line_log *log)
{
	if (ftruncate(log->fd, log->end) || fdatasync(log->fd))
		return -errno;
	log->torn = false;
	return 0;
}

int line_log_append(struct line_log *log, const char *line, size_t length)
{
	int err = log->torn ? mend(log) : 0;

	if (err)
		return err;
	log->torn = true;
	err = write_at(log->fd, line, length, log->end);
	if (!err && fdatasync(log->fd))
		err = -errno;
	if (err) {
		mend(log); /* if not now, then before the next line */
		return err;
	}
	log->end += (off_t)length;
	log->torn = false;
	return 0;
}

/* --- opening -------------------------------------------------------------------------------------------------------------- */
/* Reads every whole line, and copies to `kept` (unless NULL) what the reader keeps. */
static int read_lines(struct line_log *log, FILE *in, FILE *kept, const char *path,
	const struct line_log_reader *reader, char *error, size_t error_size)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t length;
	unsigned number = 0;
	int err = 0;

	while (err >= 0 && (length = getline(&line, &size, in)) > 0 && line[length - 1] == '\n') {
		/* A line with a NUL in it is none of ours; cut off there it would look like one without its end. */
		err = reader->line(reader->arg, ++number, strlen(line) == (size_t)length ? line : "");
		if (err > 0 && kept)
			fputs(line, kept);
		log->end += length;
	}
	/* What could not be read must not pass for the end of the file. */
	if (err >= 0 && (ferror(in) || !feof(in)))
		err = fail(-EIO, error, error_size, "cannot read %s: %s", path, strerror(errno));
	free(line);
	return err < 0 ? err : 0;
}

static FILE *make_fresh(const char *path)
{
	int fd;
	FILE *file;

	unlink(path);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return NULL;
	file = fdopen(fd, "r+");
	if (!file)
		close(fd);
	return file;
}

/* Makes the fresh file the one in use. On an error the one before is. */
static int replace(struct line_log *log, FILE *kept, const char *fresh, const char *path)
{
	int fd;
	off_t end;

	if (fflush(kept) || fsync(fileno(kept)))
		return -errno;
	if (ferror(kept)) /* of a flush before */
		return -EIO;
	end = ftello(kept);
	fd = fcntl(fileno(kept), F_DUPFD_CLOEXEC, 0);
	if (end < 0 || fd < 0 || rename(fresh, path)) {
		int err = -errno;

		if (fd >= 0)
			close(fd);
		return err;
	}
	close(log->fd);
	*log = (struct line_log){.fd = fd, .end = end};
	return 0;
}

static int read_and_replace(struct line_log *log, FILE *in, const char *path, const struct line_log_reader *reader,
	char *error, size_t error_size)
{
	char fresh[PATH_MAX];
	FILE *kept = NULL;
	int err, unkept = 0;

	if ((size_t)snprintf(fresh, sizeof(fresh), "%s.new", path) >= sizeof(fresh))
		return fail(-ENAMETOOLONG, error, error_size, "the name %s is too long", path);
	kept = make_fresh(fresh);
	if (!kept)
		unkept = -errno;
	err = read_lines(log, in, kept, path, reader, error, error_size);
	if (!err && kept) {
		reader->rest(reader->arg, kept);
		unkept = replace(log, kept, fresh, path);
	}
	if (kept)
		fclose(kept);
	if (err || unkept)
		unlink(fresh);
	if (!err && unkept)
		log_warn("cannot rewrite %s without what is over: %s; it stays as it is, and grows", path,
			strerror(-unkept));
	return err;
}

int line_log_open(
	struct line_log *log, const char *path, const struct line_log_reader *reader, char *error, size_t error_size)
{
	struct stat info;
	int copy, err;
	FILE *in;

	*log = (struct line_log){.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600)};
	if (log->fd < 0)
		return fail(-errno, error, error_size, "cannot open %s: %s", path, strerror(errno));
	copy = fcntl(log->fd, F_DUPFD_CLOEXEC, 0);
	in = copy < 0 ? NULL : fdopen(copy, "r");
	if (!in) {
		err = fail(-errno, error, error_size, "cannot read %s: %s", path, strerror(errno));
		if (copy >= 0)
			close(copy);
		goto fail_close;
	}
	err = read_and_replace(log, in, path, reader, error, error_size);
	fclose(in);
	if (!err) {
		/* Else a crash could bring the file of before back, or none, and what was appended to this one would be gone. Where it cannot be done
		 * at all (a directory that we may write and not read, a file system without it), to refuse the start would help nobody.
		 */
		err = file_sync_directory_of(path);
		if (err == -EACCES || err == -EINVAL) {
			log_warn("cannot sync the directory of %s: %s", path, strerror(-err));
			err = 0;
		} else if (err) {
			fail(err, error, error_size, "cannot sync the directory of %s: %s", path, strerror(-err));
		}
	}
	if (err)
		goto fail_close;
	log->torn = fstat(log->fd, &info) || info.st_size != log->end;
	err = log->torn ? mend(log) : 0;
	if (err)
		log_warn(
			"cannot cut off the half line at the end of %s: %s; until that can be done, nothing is added to it",
			path, strerror(-err));
	return 0;

fail_close:
	line_log_close(log);
	return err;
}

void line_log_close(struct line_log *log)
{
	if (log->fd >= 0)
		close(log->fd);
	log->fd = -1;
}
