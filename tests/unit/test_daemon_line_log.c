/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The log of lines: what was acknowledged is read again, and what was not never stands before the next line, whatever fails.
 *
 * The faults of the disk are made here: this program defines the calls that the log makes, and lets them fail.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"
#include "daemon/line_log.h"

static struct {
	bool write_falls_short; /* half of it is written, then the disk is full */
	bool cut, sync, sync_file;
	int sync_directory; /* an errno */
	unsigned directory_syncs;
} fails;

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
	if (!fails.write_falls_short)
		return syscall(SYS_pwrite64, fd, bytes, count, offset);
	if (count > 1)
		return syscall(SYS_pwrite64, fd, bytes, count / 2, offset);
	errno = ENOSPC;
	return -1;
}

int ftruncate(int fd, off_t length)
{
	if (!fails.cut)
		return (int)syscall(SYS_ftruncate, fd, length);
	errno = EIO;
	return -1;
}

int fdatasync(int fd)
{
	if (!fails.sync)
		return (int)syscall(SYS_fdatasync, fd);
	errno = EIO;
	return -1;
}

int fsync(int fd)
{
	struct stat info;
	bool is_directory = !fstat(fd, &info) && S_ISDIR(info.st_mode);

	fails.directory_syncs += is_directory;
	if (!(is_directory ? fails.sync_directory != 0 : fails.sync_file))
		return (int)syscall(SYS_fsync, fd);
	errno = is_directory ? fails.sync_directory : ENOSPC;
	return -1;
}

struct place {
	struct line_log log;
	char dir[64], file[96], fresh[112];
	char read[512]; /* the lines that the reader was given, one after the other */
	char error[256];
};

static int make_place(void **state)
{
	struct place *place = calloc(1, sizeof(*place));

	*state = place;
	if (!place)
		return -1;
	memset(&fails, 0, sizeof(fails));
	log_init("test", LOG_ERROR_LEVEL);
	place->log.fd = -1;
	snprintf(place->dir, sizeof(place->dir), "/tmp/sluice-lines-%ld-XXXXXX", (long)getpid());
	if (!mkdtemp(place->dir))
		return -1;
	snprintf(place->file, sizeof(place->file), "%s/lines", place->dir);
	snprintf(place->fresh, sizeof(place->fresh), "%s.new", place->file);
	return 0;
}

static int remove_place(void **state)
{
	struct place *place = *state;

	memset(&fails, 0, sizeof(fails));
	line_log_close(&place->log);
	unlink(place->file);
	unlink(place->fresh);
	rmdir(place->dir);
	free(place);
	return 0;
}

/* Lines that begin with "over" go, "summed" stands for itself in the rest, "bad" is not understood. */
static int read_line(void *arg, unsigned number, const char *text)
{
	struct place *place = arg;
	size_t used = strlen(place->read);

	snprintf(place->read + used, sizeof(place->read) - used, "%u %s", number, *text ? text : "NUL");
	if (!*text || !strncmp(text, "bad", 3))
		return -EINVAL;
	return strncmp(text, "over", 4) != 0 && strncmp(text, "summed", 6) != 0;
}

static void write_rest(void *arg, FILE *file)
{
	const struct place *place = arg;

	if (strstr(place->read, "summed"))
		fputs("summed\n", file);
}

static int open_path(struct place *place, const char *path)
{
	const struct line_log_reader reader = {.line = read_line, .rest = write_rest, .arg = place};

	line_log_close(&place->log);
	*place->read = '\0';
	return line_log_open(&place->log, path, &reader, place->error, sizeof(place->error));
}

static void reopen(struct place *place, const char *expected)
{
	assert_int_equal(open_path(place, place->file), 0);
	assert_string_equal(place->read, expected);
}

static int append(struct place *place, const char *line)
{
	return line_log_append(&place->log, line, strlen(line));
}

static void put_file(const struct place *place, const char *bytes, size_t length)
{
	FILE *file = fopen(place->file, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, length, file), length);
	assert_int_equal(fclose(file), 0);
}

static void expect_file(const struct place *place, const char *text)
{
	char found[512] = "";
	FILE *file = fopen(place->file, "r");

	assert_non_null(file);
	found[fread(found, 1, sizeof(found) - 1, file)] = '\0';
	fclose(file);
	assert_string_equal(found, text);
}

static void what_was_appended_is_read_again(void **state)
{
	struct place *place = *state;
	struct stat info;

	reopen(place, "");
	assert_int_equal(append(place, "one\n"), 0);
	assert_int_equal(append(place, "two\n"), 0);
	reopen(place, "1 one\n2 two\n");
	assert_int_equal(append(place, "three\n"), 0);
	expect_file(place, "one\ntwo\nthree\n");
	assert_int_equal(stat(place->file, &info), 0);
	assert_int_equal(info.st_mode & 0777, 0600);
	assert_int_equal(access(place->fresh, F_OK), -1);
}

static void what_is_over_goes_and_the_rest_stands_for_the_others(void **state)
{
	struct place *place = *state;

	put_file(place, "over 1\none\nsummed\nsummed\n", 25);
	reopen(place, "1 over 1\n2 one\n3 summed\n4 summed\n");
	expect_file(place, "one\nsummed\n");
	assert_int_equal(append(place, "two\n"), 0);
	expect_file(place, "one\nsummed\ntwo\n");
}

static void a_last_line_without_its_end_goes(void **state)
{
	struct place *place = *state;

	put_file(place, "one\ntw", 6);
	reopen(place, "1 one\n");
	assert_int_equal(append(place, "three\n"), 0);
	expect_file(place, "one\nthree\n");
}

static void a_line_that_is_not_understood_stops_the_opening_and_changes_nothing(void **state)
{
	struct place *place = *state;

	put_file(place, "over 1\nbad\n", 11);
	assert_int_equal(open_path(place, place->file), -EINVAL);
	expect_file(place, "over 1\nbad\n");
	assert_int_equal(access(place->fresh, F_OK), -1);
	assert_int_equal(place->log.fd, -1);
	/* A NUL must not make the rest of a line invisible. */
	put_file(place, "on\0e\ntwo\n", 9);
	assert_int_equal(open_path(place, place->file), -EINVAL);
	assert_string_equal(place->read, "1 NUL");
}

static void half_a_line_is_cut_off_at_once(void **state)
{
	struct place *place = *state;

	reopen(place, "");
	assert_int_equal(append(place, "one\n"), 0);
	fails.write_falls_short = true;
	assert_int_equal(append(place, "lost\n"), -ENOSPC);
	expect_file(place, "one\n");
	fails.write_falls_short = false;
	assert_int_equal(append(place, "two\n"), 0);
	expect_file(place, "one\ntwo\n");
}

static void behind_half_a_line_nothing_is_written_until_it_is_cut_off(void **state)
{
	struct place *place = *state;

	reopen(place, "");
	assert_int_equal(append(place, "one\n"), 0);
	fails.write_falls_short = fails.cut = true;
	assert_int_equal(append(place, "long line\n"), -ENOSPC);
	fails.write_falls_short = false;
	assert_int_equal(append(place, "two\n"), -EIO);
	assert_int_equal(append(place, "two\n"), -EIO);
	fails.cut = false;
	assert_int_equal(append(place, "two\n"), 0);
	expect_file(place, "one\ntwo\n");
	reopen(place, "1 one\n2 two\n");
}

static void a_line_that_was_not_synced_is_taken_back(void **state)
{
	struct place *place = *state;

	reopen(place, "");
	assert_int_equal(append(place, "one\n"), 0);
	fails.sync = true;
	assert_int_equal(append(place, "lost\n"), -EIO);
	expect_file(place, "one\n");
	/* That it was cut off is not known to be on the disk either. */
	assert_int_equal(append(place, "lost\n"), -EIO);
	fails.sync = false;
	assert_int_equal(append(place, "two\n"), 0);
	expect_file(place, "one\ntwo\n");
}

static void a_disk_that_is_full_at_the_start_leaves_the_file_as_it_is(void **state)
{
	struct place *place = *state;

	put_file(place, "over 1\none\ntw", 13);
	fails.sync_file = true;
	reopen(place, "1 over 1\n2 one\n");
	expect_file(place, "over 1\none\n");
	assert_int_equal(access(place->fresh, F_OK), -1);
	assert_int_equal(append(place, "two\n"), 0);
	fails.sync_file = false;
	reopen(place, "1 over 1\n2 one\n3 two\n");
	expect_file(place, "one\ntwo\n");
}

static void without_a_fresh_file_the_one_before_is_used(void **state)
{
	struct place *place = *state;

	put_file(place, "one\ntw", 6);
	assert_int_equal(mkdir(place->fresh, 0700), 0);
	reopen(place, "1 one\n");
	assert_int_equal(append(place, "two\n"), 0);
	expect_file(place, "one\ntwo\n");
	assert_int_equal(rmdir(place->fresh), 0);
}

static void a_half_line_that_cannot_be_cut_off_at_the_start_refuses_lines(void **state)
{
	struct place *place = *state;

	put_file(place, "one\ntw", 6);
	fails.sync_file = fails.cut = true;
	reopen(place, "1 one\n");
	assert_int_equal(append(place, "two\n"), -EIO);
	fails.cut = false;
	assert_int_equal(append(place, "two\n"), 0);
	expect_file(place, "one\ntwo\n");
}

static void what_cannot_be_read_is_not_the_end_of_the_file(void **state)
{
	struct place *place = *state;

	/* There is nothing at address 0, and reading it is EIO. */
	assert_int_equal(open_path(place, "/proc/self/mem"), -EIO);
	assert_non_null(strstr(place->error, "cannot read /proc/self/mem"));
}

static void the_name_is_synced_too(void **state)
{
	struct place *place = *state;

	reopen(place, "");
	assert_int_equal(fails.directory_syncs, 1);
	fails.sync_directory = EIO;
	assert_int_equal(open_path(place, place->file), -EIO);
	assert_non_null(strstr(place->error, "cannot sync the directory"));
	/* A file system that cannot do it. */
	fails.sync_directory = EINVAL;
	reopen(place, "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_place, remove_place)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_was_appended_is_read_again),
		TEST(what_is_over_goes_and_the_rest_stands_for_the_others),
		TEST(a_last_line_without_its_end_goes),
		TEST(a_line_that_is_not_understood_stops_the_opening_and_changes_nothing),
		TEST(half_a_line_is_cut_off_at_once),
		TEST(behind_half_a_line_nothing_is_written_until_it_is_cut_off),
		TEST(a_line_that_was_not_synced_is_taken_back),
		TEST(a_disk_that_is_full_at_the_start_leaves_the_file_as_it_is),
		TEST(without_a_fresh_file_the_one_before_is_used),
		TEST(a_half_line_that_cannot_be_cut_off_at_the_start_refuses_lines),
		TEST(what_cannot_be_read_is_not_the_end_of_the_file),
		TEST(the_name_is_synced_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
