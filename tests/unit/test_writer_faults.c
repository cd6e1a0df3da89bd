/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What is acknowledged is there, whatever fails: write and fsync at every point where they are called, a full disk, a
 * limit on file size, SIGKILL at a random moment, a ledger that is moved away or locked by a stranger. The same for what
 * becomes of orders is in test_writer_faults_life.c.
 */
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "disk_faults.h"

#define SWEEP_BATCHES 8
#define SWEEP_ORDERS 40
#define SWEEP_RESTART 4 /* before this batch the store is closed and opened */

/* Delivers a batch until it is acknowledged, as the daemon does. Returns how many attempts failed. */
static unsigned deliver(struct ledger_fixture *fixture, unsigned batch)
{
	unsigned failed = 0;

	while (fixture_admit_range(fixture, 1, 1 + batch * SWEEP_ORDERS, SWEEP_ORDERS)) {
		assert_non_null(strstr(fixture->store->error, fixture->path));
		if (++failed > 3)
			fail_msg("batch %u is never stored: %s", batch, fixture->store->error);
	}
	for (unsigned i = 0; i < SWEEP_ORDERS; i++) {
		assert_int_not_equal(fixture->acks[i].status, WIRE_ACK_REFUSED);
		assert_int_equal(fixture->acks[i].seq, 1 + batch * SWEEP_ORDERS + i);
	}
	return failed;
}

static void expect_all(struct ledger_fixture *fixture, unsigned orders)
{
	for (unsigned serial = 1; serial <= orders; serial++) {
		struct store_order order;

		assert_int_equal(fixture->store->ops->order_get(fixture->store, serial, &order), 0);
		assert_int_equal(order.seq, serial);
	}
}

/* One life of a ledger with the nth call failing. Returns true if the fault was reached. */
static bool live_with_fault(struct ledger_fixture *fixture, enum fault kind, unsigned nth)
{
	bool reached;

	remove_ledger(fixture);
	assert_int_equal(fixture_open(fixture), 0);
	assert_int_equal(fixture_sale(fixture, 1, 1, SWEEP_BATCHES * SWEEP_ORDERS), 0);
	arm(kind, nth, false);
	for (unsigned batch = 0; batch < SWEEP_BATCHES; batch++) {
		if (batch == SWEEP_RESTART) {
			fixture_close(fixture);
			/* opening may meet the fault, and then succeeds at the next start */
			if (fixture_open(fixture))
				assert_int_equal(fixture_open(fixture), 0);
		}
		deliver(fixture, batch);
		fixture->store->ops->maintain(fixture->store, NOW_NS);
	}
	reached = fault_kind == FAULT_NONE;
	disarm();
	fixture_close(fixture);
	assert_int_equal(fixture_open(fixture), 0);
	expect_all(fixture, SWEEP_BATCHES * SWEEP_ORDERS);
	fixture_audit(fixture);
	return reached;
}

static void sweep(struct ledger_fixture *fixture, enum fault kind, unsigned least)
{
	unsigned nth = 1;

	while (live_with_fault(fixture, kind, nth))
		nth++;
	printf("%u points of failure\n", nth - 1);
	assert_true(nth > least);
}

static void a_write_that_fails_at_any_point_loses_no_order(void **state)
{
	sweep(*state, FAULT_WRITE, 50);
}

static void an_fsync_that_fails_at_any_point_loses_no_order(void **state)
{
	sweep(*state, FAULT_SYNC, SWEEP_BATCHES);
}

static void nothing_is_acknowledged_while_fsync_fails(void **state)
{
	struct ledger_fixture *fixture = *state;

	assert_int_equal(fixture_sale(fixture, 1, 1, 1000), 0);
	deliver(fixture, 0);
	arm(FAULT_SYNC, 1, true);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(fixture_admit_range(fixture, 1, 1 + SWEEP_ORDERS, SWEEP_ORDERS), -EIO);
	assert_true(fault_calls >= 5);
	disarm();
	assert_int_equal(fixture_admit_range(fixture, 1, 1 + SWEEP_ORDERS, SWEEP_ORDERS), 0);
	fixture_expect(fixture, 0, fixture->acks[0].status, 1 + SWEEP_ORDERS);
	expect_all(fixture, 2 * SWEEP_ORDERS);
	fixture_audit(fixture);
}

static void after_a_failed_commit_the_wal_is_copied_before_anything_is_known(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct stat status;
	char wal[80];

	snprintf(wal, sizeof(wal), "%s-wal", fixture->path);
	assert_int_equal(fixture_sale(fixture, 1, 1, 1000), 0);
	deliver(fixture, 0);
	assert_int_equal(stat(wal, &status), 0);
	assert_true(status.st_size > 0);
	arm(FAULT_SYNC, 1, false);
	assert_int_equal(fixture_admit_range(fixture, 1, 1 + SWEEP_ORDERS, SWEEP_ORDERS), -EIO);
	/* an empty transaction opens the ledger anew and writes nothing by itself */
	assert_int_equal(fixture_admit(fixture, NULL, 0), 0);
	assert_int_equal(stat(wal, &status), 0);
	assert_int_equal(status.st_size, 0);
	fixture_audit(fixture);
}

static void a_file_size_limit_is_an_error_and_nothing_is_half_stored(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct rlimit before, limited;
	unsigned batch = 0;
	int code;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(fixture_sale(fixture, 1, 1, 1000000), 0);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	limited = before;
	limited.rlim_cur = 300000;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limited), 0);
	while (!(code = fixture_admit_range(fixture, 1, 1 + batch * SWEEP_ORDERS, SWEEP_ORDERS)))
		assert_true(++batch < 1000);
	assert_int_equal(code, -EIO);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(deliver(fixture, batch), 0);
	fixture_expect(fixture, 0, WIRE_ACK_STORED, 1 + batch * SWEEP_ORDERS);
	expect_all(fixture, (batch + 1) * SWEEP_ORDERS);
	fixture_audit(fixture);
}

/* Fills the file system of the ledger to the last byte, again and again. */
static void fill_disk(const char *path)
{
	static const char block[4096];
	int fd = open(path, O_CREAT | O_WRONLY | O_APPEND, 0600);

	assert_true(fd >= 0);
	while (write(fd, block, sizeof(block)) > 0)
		;
	while (write(fd, block, 1) > 0)
		;
	close(fd);
}

static void a_full_disk_stops_orders_until_there_is_room(void **state)
{
	struct ledger_fixture *fixture = *state;
	char filler[80];
	unsigned batch = 0;
	int code;

	fixture_close(fixture);
	/* in a mount namespace of our own: nothing is left behind */
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		mount("sluice-test", fixture->directory, "tmpfs", 0, "size=3m,mode=0700"))
		skip();
	snprintf(filler, sizeof(filler), "%s/filler", fixture->directory);
	assert_int_equal(fixture_open(fixture), 0);
	assert_int_equal(fixture_sale(fixture, 1, 1, 1000000), 0);
	deliver(fixture, batch++);
	fill_disk(filler);
	while (!(code = fixture_admit_range(fixture, 1, 1 + batch * SWEEP_ORDERS, SWEEP_ORDERS)))
		assert_true(++batch < 1000);
	assert_int_equal(code, -EIO);
	for (unsigned i = 0; i < 3; i++) {
		fill_disk(filler); /* closing gave the room of the WAL back */
		assert_int_equal(fixture_admit_range(fixture, 1, 1 + batch * SWEEP_ORDERS, SWEEP_ORDERS), -EIO);
	}
	unlink(filler);
	assert_int_equal(deliver(fixture, batch), 0);
	fixture_expect(fixture, 0, WIRE_ACK_STORED, 1 + batch * SWEEP_ORDERS);
	fixture_close(fixture);
	assert_int_equal(fixture_open(fixture), 0);
	expect_all(fixture, (batch + 1) * SWEEP_ORDERS);
	fixture_audit(fixture);
	fixture_close(fixture);
	assert_int_equal(umount(fixture->directory), 0);
}

/* --- SIGKILL
 * -----------------------------------------------------------------------------------------------------------
 */

#define KILL_ROUNDS 15
#define KILL_BATCH_MAX 120 /* acks of one batch fit in one atomic write to a pipe */
#define KILL_MAX 400000

struct acked {
	uint64_t serial;
	uint64_t seq;
};
_Static_assert(KILL_BATCH_MAX * sizeof(struct acked) <= 4096, "PIPE_BUF");

static uint64_t random_state;

static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* The child: a writer that reports what it acknowledges, until it is killed. Begins before the end of what was
 * reported, as a daemon that did not get its last acknowledgements. Leaves by _exit: the parent's test must not go on
 * in it.
 */
static void write_until_killed(struct ledger_fixture *fixture, uint64_t serial, int pipe_fd)
{
	static struct wire_admit records[KILL_BATCH_MAX];
	struct acked report[KILL_BATCH_MAX];

	if (fixture_open(fixture))
		_exit(2);
	for (;;) {
		unsigned count = 1 + (unsigned)(next_random() % KILL_BATCH_MAX);

		for (unsigned i = 0; i < count; i++)
			records[i] = fixture_record(1, serial + i);
		if (fixture_admit(fixture, records, count))
			_exit(3);
		for (unsigned i = 0; i < count; i++) {
			if (fixture->acks[i].status == WIRE_ACK_REFUSED)
				_exit(4);
			report[i] = (struct acked){fixture->acks[i].serial, fixture->acks[i].seq};
		}
		if (write(pipe_fd, report, count * sizeof(*report)) != (ssize_t)(count * sizeof(*report)))
			_exit(5);
		fixture->store->ops->maintain(fixture->store, NOW_NS);
		serial += count;
	}
}

/* Reads reports into acked[seq] for `ms`, or to the end of the pipe if negative. */
static uint64_t read_reports(int fd, int ms, uint64_t *acked)
{
	uint64_t deadline = time_mono_ns() + (uint64_t)(ms < 0 ? 0 : ms) * 1000000, last = 0;

	for (;;) {
		struct acked reports[KILL_BATCH_MAX];
		struct pollfd poller = {.fd = fd, .events = POLLIN};
		ssize_t got;

		if (ms >= 0 && time_mono_ns() >= deadline)
			return last;
		if (poll(&poller, 1, 1) == 0 && ms >= 0)
			continue;
		got = read(fd, reports, sizeof(reports));
		if (got <= 0)
			return last;
		assert_int_equal(got % (ssize_t)sizeof(*reports), 0);
		for (unsigned i = 0; i < (size_t)got / sizeof(*reports); i++) {
			assert_true(reports[i].seq < KILL_MAX);
			assert_true(!acked[reports[i].seq] || acked[reports[i].seq] == reports[i].serial);
			acked[reports[i].seq] = reports[i].serial;
			last = reports[i].serial;
		}
	}
}

static void what_was_acknowledged_survives_sigkill(void **state)
{
	struct ledger_fixture *fixture = *state;
	uint64_t *acked = calloc(KILL_MAX, sizeof(*acked));
	uint64_t seed = (uint64_t)time(NULL) * 2 + 1, last = 0, checked = 0;
	unsigned wals = 0;

	printf("seed %llu\n", (unsigned long long)seed);
	random_state = seed;
	assert_non_null(acked);
	assert_int_equal(fixture_sale(fixture, 1, 1, KILL_MAX), 0);
	for (unsigned round = 0; round < KILL_ROUNDS; round++) {
		uint64_t from = last > 50 ? last - 50 : 1, got;
		int ms = 1 + (int)(next_random() % 60);
		struct stat status;
		char wal[80];
		int ends[2], result;
		pid_t child;

		fixture_close(fixture);
		assert_int_equal(pipe(ends), 0);
		fflush(stdout);
		child = fork();
		assert_true(child >= 0);
		if (!child) {
			close(ends[0]);
			write_until_killed(fixture, from, ends[1]);
		}
		close(ends[1]);
		got = read_reports(ends[0], ms, acked);
		kill(child, SIGKILL);
		assert_int_equal(waitpid(child, &result, 0), child);
		if (!WIFSIGNALED(result))
			fail_msg("the child ended by itself with %d", WEXITSTATUS(result));
		last = got > last ? got : last;
		got = read_reports(ends[0], -1, acked);
		last = got > last ? got : last;
		close(ends[0]);
		snprintf(wal, sizeof(wal), "%s-wal", fixture->path);
		wals += !stat(wal, &status) && status.st_size > 0;
		if (fixture_open(fixture))
			fail_msg("after the kill: %s", fixture->error);
		for (uint64_t seq = 1; seq < KILL_MAX && acked[seq]; seq++, checked++) {
			struct store_order order;

			if (fixture->store->ops->order_get(fixture->store, acked[seq], &order))
				fail_msg("order %llu was acknowledged and is lost", (unsigned long long)acked[seq]);
			assert_int_equal(order.seq, seq);
		}
		fixture_audit(fixture);
	}
	printf("%llu orders acknowledged, %u rounds left a WAL behind\n", (unsigned long long)last, wals);
	assert_true(checked > 0 && wals > 0);
	free(acked);
}

/* --- other programs
 * ----------------------------------------------------------------------------------------------------
 */

static void a_ledger_that_is_moved_away_gets_no_more_orders(void **state)
{
	struct ledger_fixture *fixture = *state;
	char away[80];
	int fd;

	snprintf(away, sizeof(away), "%s.away", fixture->path);
	assert_int_equal(fixture_sale(fixture, 1, 1, 1000), 0);
	deliver(fixture, 0);
	assert_int_equal(rename(fixture->path, away), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1 + SWEEP_ORDERS, 1), -EIO);
	assert_non_null(strstr(fixture->store->error, "moved or replaced"));
	assert_int_equal(access(fixture->path, F_OK), -1); /* and no new one is made in its place */
	fd = open(fixture->path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	assert_int_equal(fixture_admit_range(fixture, 1, 1 + SWEEP_ORDERS, 1), -EIO);
	assert_int_equal(rename(away, fixture->path), 0);
	assert_int_equal(deliver(fixture, 1), 0);
	expect_all(fixture, 2 * SWEEP_ORDERS);
	fixture_audit(fixture);
}

/* Orders in the file at `path`, as a program finds them that has only this file. */
static unsigned orders_in(const char *path)
{
	struct ledger_fixture other = {.backend = &fixture_sqlite};

	snprintf(other.path, sizeof(other.path), "%s", path);
	return (unsigned)atoi(fixture_sql(&other, "SELECT count(*) FROM orders"));
}

static off_t size_of(const struct ledger_fixture *fixture, const char *suffix)
{
	struct stat status;
	char path[80];

	snprintf(path, sizeof(path), "%s%s", fixture->path, suffix);
	return stat(path, &status) ? -1 : status.st_size;
}

/* The only file that the store has put aside: its number of orders. Removes it. */
static unsigned orders_put_aside(const struct ledger_fixture *fixture)
{
	struct stat status;
	unsigned orders;
	char pattern[80];
	glob_t found;

	snprintf(pattern, sizeof(pattern), "%s.rescued-*", fixture->path);
	assert_int_equal(glob(pattern, 0, NULL, &found), 0);
	assert_int_equal(found.gl_pathc, 1);
	assert_int_equal(stat(found.gl_pathv[0], &status), 0);
	assert_int_equal(status.st_mode & 07777, 0600);
	orders = orders_in(found.gl_pathv[0]);
	assert_int_equal(unlink(found.gl_pathv[0]), 0);
	globfree(&found);
	return orders;
}

/* As `cp` does it. */
static void copy_file(const char *from, const char *to)
{
	int in = open(from, O_RDONLY), out = open(to, O_CREAT | O_TRUNC | O_WRONLY, 0600);
	char bytes[4096];
	ssize_t got;

	assert_true(in >= 0 && out >= 0);
	while ((got = read(in, bytes, sizeof(bytes))) > 0)
		assert_int_equal(write(out, bytes, (size_t)got), got);
	assert_int_equal(got, 0);
	close(in);
	close(out);
}

/* A writer of its own that stores a batch and is killed: what it stored last is in the WAL alone. */
static void store_and_be_killed(struct ledger_fixture *fixture, unsigned batch)
{
	int result;
	pid_t child;

	fixture_close(fixture);
	fflush(stdout);
	child = fork();
	assert_true(child >= 0);
	if (!child)
		_exit(fixture_open(fixture) || fixture_admit_range(fixture, 1, 1 + batch * SWEEP_ORDERS, SWEEP_ORDERS));
	assert_int_equal(waitpid(child, &result, 0), child);
	assert_int_equal(result, 0);
	assert_true(size_of(fixture, "-wal") > 0);
}

static void a_ledger_that_is_moved_away_takes_its_orders_along(void **state)
{
	struct ledger_fixture *fixture = *state;
	char away[80];

	snprintf(away, sizeof(away), "%s.away", fixture->path);
	assert_int_equal(fixture_sale(fixture, 1, 1, 1000), 0);
	deliver(fixture, 0);
	assert_int_equal(rename(fixture->path, away), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1 + SWEEP_ORDERS, 1), -EIO);
	assert_int_equal(orders_in(away), SWEEP_ORDERS);
	assert_int_equal(size_of(fixture, "-wal"), 0);
	/* and so it is if the writer is stopped before it has seen it */
	assert_int_equal(rename(away, fixture->path), 0);
	deliver(fixture, 1);
	assert_int_equal(rename(fixture->path, away), 0);
	fixture_close(fixture);
	assert_int_equal(orders_in(away), 2 * SWEEP_ORDERS);
	assert_int_equal(rename(away, fixture->path), 0);
	fixture_reopen(fixture);
	expect_all(fixture, 2 * SWEEP_ORDERS);
	fixture_audit(fixture);
}

/* To another file system a file is moved by a copy of it, which lacks what is in the WAL; the file itself has no name any more. */
static void a_ledger_that_has_lost_its_name_is_put_aside_whole(void **state)
{
	struct ledger_fixture *fixture = *state;
	char away[80];

	snprintf(away, sizeof(away), "%s.away", fixture->path);
	assert_int_equal(fixture_sale(fixture, 1, 1, 1000), 0);
	deliver(fixture, 0);
	for (unsigned stopped = 0; stopped < 2; stopped++) {
		copy_file(fixture->path, away);
		assert_int_equal(unlink(fixture->path), 0);
		if (!stopped) {
			assert_int_equal(fixture_admit_range(fixture, 1, 1 + SWEEP_ORDERS, 1), -EIO);
			assert_non_null(strstr(fixture->store->error, "moved or replaced"));
		}
		fixture_close(fixture);
		assert_int_equal(orders_put_aside(fixture), (1 + stopped) * SWEEP_ORDERS);
		if (!stopped) {
			assert_int_equal(unlink(away), 0);
			assert_int_equal(fixture_open(fixture), 0);
			assert_int_equal(fixture_sale(fixture, 1, 1, 1000), 0);
			deliver(fixture, 0);
			deliver(fixture, 1);
		}
	}
}

static void a_ledger_that_is_replaced_leaves_nothing_to_its_successor(void **state)
{
	struct ledger_fixture *fixture = *state;
	char away[80], sql[128];

	snprintf(away, sizeof(away), "%s.away", fixture->path);
	snprintf(sql, sizeof(sql), "VACUUM INTO '%s'", away);
	assert_int_equal(fixture_sale(fixture, 1, 1, 1000), 0);
	deliver(fixture, 0);
	fixture_sql(fixture, sql);
	assert_int_equal(chmod(away, 0600), 0);
	deliver(fixture, 1);
	assert_int_equal(rename(away, fixture->path), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1 + 2 * SWEEP_ORDERS, 1), -EIO);
	assert_int_equal(size_of(fixture, "-wal"), 0);
	assert_int_equal(orders_put_aside(fixture), 2 * SWEEP_ORDERS);
	fixture_reopen(fixture);
	fixture_expect_sums(fixture, 1, 1000, SWEEP_ORDERS, 0, SWEEP_ORDERS);
	fixture_audit(fixture);
}

/* A full disk: then the WAL is all that is left, and stays. */
static void a_ledger_that_cannot_be_put_aside_keeps_its_wal(void **state)
{
	struct ledger_fixture *fixture = *state;
	char away[80];

	snprintf(away, sizeof(away), "%s.away", fixture->path);
	assert_int_equal(fixture_sale(fixture, 1, 1, 1000), 0);
	deliver(fixture, 0);
	copy_file(fixture->path, away);
	assert_int_equal(unlink(fixture->path), 0);
	arm(FAULT_WRITE, 1, true);
	assert_int_equal(fixture_admit_range(fixture, 1, 1 + SWEEP_ORDERS, 1), -EIO);
	disarm();
	fixture_close(fixture);
	assert_int_equal(rename(away, fixture->path), 0);
	fixture_reopen(fixture);
	expect_all(fixture, SWEEP_ORDERS);
	fixture_audit(fixture);
}

static void no_empty_ledger_is_made_beside_the_wal_of_another(void **state)
{
	struct ledger_fixture *fixture = *state;
	char away[80];
	int fd;

	snprintf(away, sizeof(away), "%s.away", fixture->path);
	assert_int_equal(fixture_sale(fixture, 1, 1, 1000), 0);
	deliver(fixture, 0);
	store_and_be_killed(fixture, 1);
	assert_int_equal(rename(fixture->path, away), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(fixture_open(fixture), -EPROTO);
		assert_non_null(strstr(fixture->error, "-wal"));
		assert_true(size_of(fixture, "-wal") > 0);
		/* an empty file in its place is none either */
		fd = open(fixture->path, O_CREAT | O_WRONLY, 0600);
		close(fd);
	}
	assert_int_equal(rename(away, fixture->path), 0);
	assert_int_equal(fixture_open(fixture), 0);
	expect_all(fixture, 2 * SWEEP_ORDERS);
	fixture_audit(fixture);
}

/* A backup was put back and the old ledger's WAL was forgotten: SQLite takes it for the backup's. */
static void a_ledger_whose_books_object_is_left_as_it_was(void **state)
{
	struct ledger_fixture *fixture = *state;
	char away[80], copy[80], command[192], sql[128];

	snprintf(away, sizeof(away), "%s.away", fixture->path);
	snprintf(copy, sizeof(copy), "%s.copy", fixture->path);
	snprintf(sql, sizeof(sql), "VACUUM INTO '%s'", away);
	assert_int_equal(fixture_sale(fixture, 1, 1, 100000), 0);
	deliver(fixture, 0);
	fixture_sql(fixture, sql);
	for (unsigned batch = 1; batch < 20; batch++)
		deliver(fixture, batch);
	fixture_close(fixture); /* the WAL that is left has only the last batch */
	store_and_be_killed(fixture, 20);
	assert_int_equal(rename(away, fixture->path), 0);
	assert_int_equal(chmod(fixture->path, 0600), 0);
	copy_file(fixture->path, copy);
	for (unsigned i = 0; i < 2; i++)
		assert_int_not_equal(fixture_open(fixture), 0);
	snprintf(command, sizeof(command), "cmp %s %s", fixture->path, copy);
	assert_int_equal(system(command), 0);
	assert_int_equal(unlink(copy), 0);
	/* without it the backup is what it was */
	snprintf(copy, sizeof(copy), "%s-wal", fixture->path);
	assert_int_equal(unlink(copy), 0);
	fixture_reopen(fixture);
	expect_all(fixture, SWEEP_ORDERS);
	fixture_audit(fixture);
}

static void a_stranger_that_writes_to_the_ledger_only_delays(void **state)
{
	struct ledger_fixture *fixture = *state;
	sqlite3 *stranger;

	assert_int_equal(fixture_sale(fixture, 1, 1, 1000), 0);
	assert_int_equal(sqlite3_open(fixture->path, &stranger), SQLITE_OK);
	assert_int_equal(sqlite3_exec(stranger, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, SWEEP_ORDERS), -EIO);
	assert_int_equal(sqlite3_exec(stranger, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(stranger);
	assert_int_equal(deliver(fixture, 0), 0);
	fixture_audit(fixture);
}

/* The checkpoint that an opening needs cannot copy what the reader's snapshot is older than. */
static void a_reader_of_an_old_snapshot_keeps_the_ledger_shut_until_it_ends(void **state)
{
	struct ledger_fixture *fixture = *state;
	char shm[80];
	sqlite3 *reader;

	snprintf(shm, sizeof(shm), "fuser %s-shm", fixture->path);
	assert_int_equal(fixture_sale(fixture, 1, 1, 1000), 0);
	assert_int_equal(sqlite3_open_v2(fixture->path, &reader, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(reader, "BEGIN; SELECT count(*) FROM orders", NULL, NULL, NULL), SQLITE_OK);
	deliver(fixture, 0);
	fixture_close(fixture);
	assert_int_equal(fixture_open(fixture), -EBUSY);
	/* the log must say who it is */
	if (!strstr(fixture->error, shm))
		fail_msg("%s", fixture->error);
	assert_int_equal(sqlite3_exec(reader, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(reader);
	fixture_reopen(fixture);
	expect_all(fixture, SWEEP_ORDERS);
	fixture_audit(fixture);
}

static void the_wal_stays_bounded(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct stat status;
	off_t largest = 0;
	char wal[80];

	snprintf(wal, sizeof(wal), "%s-wal", fixture->path);
	assert_int_equal(fixture_sale(fixture, 1, 1, 1000000), 0);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(fixture_admit_range(fixture, 1, 1 + i * WIRE_BATCH_MAX, WIRE_BATCH_MAX), 0);
		fixture->store->ops->maintain(fixture->store, NOW_NS);
		assert_int_equal(stat(wal, &status), 0);
		largest = status.st_size > largest ? status.st_size : largest;
	}
	printf("largest WAL %lld KiB\n", (long long)largest / 1024);
	assert_true(largest > 16 << 20); /* else no checkpoint was due, and this proves nothing */
	assert_true(largest < 32 << 20);
	fixture_audit(fixture);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, quiet_setup, quiet_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_write_that_fails_at_any_point_loses_no_order),
		TEST(an_fsync_that_fails_at_any_point_loses_no_order),
		TEST(nothing_is_acknowledged_while_fsync_fails),
		TEST(after_a_failed_commit_the_wal_is_copied_before_anything_is_known),
		TEST(a_file_size_limit_is_an_error_and_nothing_is_half_stored),
		TEST(what_was_acknowledged_survives_sigkill),
		TEST(a_ledger_that_is_moved_away_gets_no_more_orders),
		TEST(a_ledger_that_is_moved_away_takes_its_orders_along),
		TEST(a_ledger_that_has_lost_its_name_is_put_aside_whole),
		TEST(a_ledger_that_is_replaced_leaves_nothing_to_its_successor),
		TEST(a_ledger_that_cannot_be_put_aside_keeps_its_wal),
		TEST(no_empty_ledger_is_made_beside_the_wal_of_another),
		TEST(a_ledger_whose_books_object_is_left_as_it_was),
		TEST(a_stranger_that_writes_to_the_ledger_only_delays),
		TEST(a_reader_of_an_old_snapshot_keeps_the_ledger_shut_until_it_ends),
		TEST(the_wal_stays_bounded),
		TEST(a_full_disk_stops_orders_until_there_is_room),
	};

	log_init("test_writer_faults", LOG_ERROR_LEVEL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
