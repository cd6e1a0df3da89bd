/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The ledger of a node that is gone, as `sluice node fence --ledger` reads it: from a disk that is only to be read, and whatever its writer has left there. */
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "cli/cli.h"
#include "cli/verify.h"
#include "common/log.h"
#include "ledger_fixture.h"

#define SAID_MAX 1024

/* What verify_read_file gave; the text is what it said. */
static int read_of_another(const char *path, size_t *orders, char *said)
{
	struct verify_ledger ledger;
	int file = memfd_create("said", MFD_CLOEXEC), real = dup(STDERR_FILENO);
	int code;
	ssize_t got;

	assert_true(file >= 0 && real >= 0);
	fflush(stderr);
	dup2(file, STDERR_FILENO);
	code = verify_read_file(path, VERIFY_OF_ANOTHER, &ledger);
	fflush(stderr);
	dup2(real, STDERR_FILENO);
	close(real);
	got = pread(file, said, SAID_MAX - 1, 0);
	close(file);
	said[got > 0 ? got : 0] = '\0';
	*orders = ledger.order_count;
	if (!code)
		verify_ledger_free(&ledger);
	return code;
}

static void expect_orders(const char *path, size_t orders)
{
	char said[SAID_MAX];
	size_t got;

	if (read_of_another(path, &got, said))
		fail_msg("%s", said);
	assert_int_equal(got, orders);
}

static void expect_no_file(const struct ledger_fixture *fixture, const char *suffix)
{
	char path[80];

	snprintf(path, sizeof(path), "%s%s", fixture->path, suffix);
	assert_int_equal(access(path, F_OK), -1);
}

static void make_orders(struct ledger_fixture *fixture)
{
	assert_int_equal(fixture_sale(fixture, 1, 1, 100), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 10), 0);
}

/* A writer of its own that is killed with `orders` more in its WAL. */
static void be_killed(struct ledger_fixture *fixture, unsigned orders)
{
	int result;
	pid_t child;

	fixture_close(fixture);
	child = fork();
	assert_true(child >= 0);
	if (!child)
		_exit(fixture_open(fixture) || fixture_admit_range(fixture, 1, 1000, orders));
	assert_int_equal(waitpid(child, &result, 0), child);
	assert_int_equal(result, 0);
}

static void nothing_is_written_beside_a_ledger_that_was_closed(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct stat before, after;

	make_orders(fixture);
	fixture_close(fixture);
	expect_no_file(fixture, "-wal");
	assert_int_equal(stat(fixture->directory, &before), 0);
	expect_orders(fixture->path, 10);
	assert_int_equal(stat(fixture->directory, &after), 0);
	assert_true(before.st_mtim.tv_sec == after.st_mtim.tv_sec && before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
}

static void a_name_that_means_something_in_a_uri_is_a_name(void **state)
{
	struct ledger_fixture *fixture = *state;
	char path[80];

	make_orders(fixture);
	fixture_close(fixture);
	snprintf(path, sizeof(path), "/%s/a?b#c%%41 d.db", fixture->directory);
	assert_int_equal(rename(fixture->path, path), 0);
	expect_orders(path, 10);
	assert_int_equal(rename(path, fixture->path), 0);
	assert_int_equal(chdir(fixture->directory), 0);
	expect_orders("ledger.db", 10);
	assert_int_equal(chdir("/"), 0);
}

static void what_is_in_the_wal_of_a_killed_writer_counts(void **state)
{
	struct ledger_fixture *fixture = *state;

	make_orders(fixture);
	be_killed(fixture, 5);
	expect_orders(fixture->path, 15);
}

/* In a mount namespace of our own: nothing is left behind. */
static bool mount_disk(struct ledger_fixture *fixture)
{
	fixture_close(fixture);
	return !unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
		!mount("sluice-test", fixture->directory, "tmpfs", 0, "size=4m,mode=0700") && !fixture_open(fixture);
}

static void write_protect(struct ledger_fixture *fixture)
{
	fixture_close(fixture);
	assert_int_equal(mount(NULL, fixture->directory, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
}

static void a_ledger_that_was_closed_is_read_from_a_disk_that_cannot_be_written(void **state)
{
	struct ledger_fixture *fixture = *state;

	if (!mount_disk(fixture))
		skip();
	make_orders(fixture);
	write_protect(fixture);
	expect_orders(fixture->path, 10);
	assert_int_equal(umount(fixture->directory), 0);
}

/* It was killed just after it had opened the ledger. */
static void an_empty_wal_is_no_hindrance_there(void **state)
{
	struct ledger_fixture *fixture = *state;
	char shm[80];

	if (!mount_disk(fixture))
		skip();
	make_orders(fixture);
	be_killed(fixture, 0);
	snprintf(shm, sizeof(shm), "%s-shm", fixture->path);
	assert_int_equal(unlink(shm), 0);
	write_protect(fixture);
	expect_orders(fixture->path, 10);
	assert_int_equal(umount(fixture->directory), 0);
}

static void orders_in_a_wal_are_never_left_out(void **state)
{
	struct ledger_fixture *fixture = *state;
	char shm[80], said[SAID_MAX];
	size_t orders;

	if (!mount_disk(fixture))
		skip();
	make_orders(fixture);
	be_killed(fixture, 5);
	snprintf(shm, sizeof(shm), "%s-shm", fixture->path);
	assert_int_equal(unlink(shm), 0);
	write_protect(fixture);
	assert_int_equal(read_of_another(fixture->path, &orders, said), CLI_FAILED);
	if (!strstr(said, "mount the disk writable"))
		fail_msg("%s", said);
	assert_int_equal(umount(fixture->directory), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup_sqlite, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(nothing_is_written_beside_a_ledger_that_was_closed),
		TEST(a_name_that_means_something_in_a_uri_is_a_name),
		TEST(what_is_in_the_wal_of_a_killed_writer_counts),
		TEST(a_ledger_that_was_closed_is_read_from_a_disk_that_cannot_be_written),
		TEST(an_empty_wal_is_no_hindrance_there),
		TEST(orders_in_a_wal_are_never_left_out),
	};

	log_init("test_verify_ledger", LOG_ERROR_LEVEL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
