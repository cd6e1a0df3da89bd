/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What is acknowledged is there, whatever fails: write and fsync at every point where they are called, a full disk, a
 * limit on file size, SIGKILL at a random moment, a ledger that is moved away or locked by a stranger.
 *
 * The faults of the disk are made here: this program defines pwrite64 and fdatasync, which the dynamic linker then
 * also gives to SQLite, and lets the nth call fail with EIO.
 */
#include <fcntl.h>
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
#include "ledger_fixture.h"
#include "ledger_v1.h"
#include "writer/query.h"

enum fault { FAULT_NONE, FAULT_WRITE, FAULT_SYNC };

static enum fault fault_kind;
static unsigned fault_countdown; /* the call that brings it to 0 fails */
static unsigned fault_calls;     /* calls of the kind since arm() */
static bool fault_lasts;         /* until disarm(), not once */

static void arm(enum fault kind, unsigned nth, bool lasts)
{
	fault_kind = kind;
	fault_countdown = nth;
	fault_lasts = lasts;
	fault_calls = 0;
}

/* Goes on counting after disarm(). */
static void arm_again(enum fault kind)
{
	fault_kind = kind;
}

static void disarm(void)
{
	fault_kind = FAULT_NONE;
}

static bool fault_strikes(enum fault kind)
{
	if (fault_kind != kind)
		return false;
	fault_calls++;
	if (fault_countdown > 1) {
		fault_countdown--;
		return false;
	}
	if (!fault_lasts)
		disarm();
	return true;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
	if (fault_strikes(FAULT_WRITE)) {
		errno = EIO;
		return -1;
	}
	return syscall(SYS_pwrite64, fd, bytes, count, offset);
}

int fdatasync(int fd)
{
	if (fault_strikes(FAULT_SYNC)) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

#define SWEEP_BATCHES 8
#define SWEEP_ORDERS 40
#define SWEEP_RESTART 4 /* before this batch the store is closed and opened */

static void remove_ledger(struct ledger_fixture *fixture)
{
	static const char *const suffixes[] = {"", "-wal", "-shm", ".lock"};
	char path[128];

	fixture_close(fixture);
	for (unsigned i = 0; i < sizeof(suffixes) / sizeof(*suffixes); i++) {
		snprintf(path, sizeof(path), "%s%s", fixture->path, suffixes[i]);
		unlink(path);
	}
}

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

/* --- the life of orders: each step is a question of its own, asked again until it is answered, as the daemon does */

#define LIFE_ORDERS 12
#define LATER_NS (NOW_NS + 1000000000000ULL)

/* A question with a key, so that its repetition after a lost answer is known from one that was never heard. */
static unsigned ask_until_answered(struct ledger_fixture *fixture, const char *question, char **answer)
{
	unsigned failed = 0;

	for (;; failed++) {
		enum wire_type type = writer_query_answer(fixture->store, question, strlen(question), LATER_NS, answer);

		assert_non_null(*answer);
		if (type == WIRE_QUERY)
			return failed;
		if (!strstr(*answer, "store_error") || failed > 3)
			fail_msg("%s: %s", question, *answer);
		free(*answer);
	}
}

static const struct {
	const char *question;
	const char *part; /* of the answer, however often it was asked */
} life[] = {
	{"{\"op\":\"orders_change\",\"changes\":[{\"id\":\"0000000000000001\",\"action\":\"confirm\",\"by\":\"shop\"},"
	 "{\"id\":\"0000000000000002\",\"action\":\"confirm\",\"by\":\"shop\"},"
	 "{\"id\":\"0000000000000003\",\"action\":\"cancel\",\"by\":\"buyer\"}],\"once\":{\"key\":\"a\",\"fingerprint\":\"1\"}}",
		"\"changed\""},
	{"{\"op\":\"orders_change\",\"changes\":[{\"id\":\"0000000000000004\",\"action\":\"expire\",\"by\":\"time\"}],"
	 "\"once\":{\"key\":\"b\",\"fingerprint\":\"2\"}}",
		"\"changed\""},
	{"{\"op\":\"orders_change\",\"changes\":[{\"id\":\"0000000000000001\",\"action\":\"refund\",\"by\":\"shop\","
	 "\"restock\":false}],\"once\":{\"key\":\"c\",\"fingerprint\":\"3\"}}",
		"\"changed\""},
	{"{\"op\":\"orders_change\",\"changes\":[{\"id\":\"0000000000000002\",\"action\":\"refund\",\"by\":\"shop\","
	 "\"restock\":true}],\"once\":{\"key\":\"d\",\"fingerprint\":\"4\"}}",
		"\"changed\""},
	{"{\"op\":\"orders_change\",\"changes\":[{\"id\":\"0000000000000004\",\"action\":\"confirm\",\"by\":\"shop\"}],"
	 "\"once\":{\"key\":\"e\",\"fingerprint\":\"5\"}}",
		"\"changed\""},
	{"{\"op\":\"stock_move\",\"sale\":1,\"delta\":4,\"key\":\"m\",\"once\":{\"key\":\"f\",\"fingerprint\":\"6\"}}",
		"{\"put_in\":15}"},
	{"{\"op\":\"sale_event\",\"sale\":1,\"type\":\"sale.opened\"}", "recorded"},
	{"{\"op\":\"document_put\",\"name\":\"limits\",\"value\":\"{}\"}", "{}"},
	{"{\"op\":\"list_put\",\"entries\":[{\"list\":\"deny\",\"prefix\":\"192.0.2.1/32\",\"expires_ns\":0,\"label\":\"\","
	 "\"reason\":\"\"}]}",
		"{\"count\":1}"},
	{"{\"op\":\"orders_due\",\"limit\":100}", "\"more\":false"},
};
#define LIFE_STEPS (sizeof(life) / sizeof(*life))

/* All of a transaction or nothing of it, at every step: the books balance, and the sums are those of some step's beginning
 * or end.
 */
static bool live_on_with_fault(struct ledger_fixture *fixture, enum fault kind, unsigned nth, unsigned *failures)
{
	static const int64_t sums[LIFE_STEPS + 1][3] = {{12, 12, 0}, {12, 9, 2}, {12, 8, 2}, {11, 8, 1}, {11, 8, 0},
		{11, 8, 1}, {15, 8, 1}, {15, 8, 1}, {15, 8, 1}, {15, 8, 1}, {15, 8, 1}};
	bool reached;

	remove_ledger(fixture);
	assert_int_equal(fixture_open(fixture), 0);
	assert_int_equal(fixture_sale(fixture, 1, 1, LIFE_ORDERS), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, LIFE_ORDERS), 0);
	arm(kind, nth, false);
	for (unsigned step = 0; step < LIFE_STEPS; step++) {
		char *first = NULL, *second = NULL;

		*failures += ask_until_answered(fixture, life[step].question, &first);
		if (!strstr(first, life[step].part))
			fail_msg("%s: %s", life[step].question, first);
		fixture->store->ops->maintain(fixture->store, LATER_NS + step * 100000000000ULL);
		if (step == LIFE_STEPS / 2) {
			fixture_close(fixture);
			if (fixture_open(fixture))
				assert_int_equal(fixture_open(fixture), 0);
		}
		if (strstr(life[step].question, "once")) {
			ask_until_answered(fixture, life[step].question, &second);
			assert_string_equal(first, second);
			free(second);
		}
		free(first);
		reached = fault_kind == FAULT_NONE;
		disarm();
		fixture_expect_sums(fixture, 1, sums[step + 1][0], sums[step + 1][1], sums[step + 1][2], LIFE_ORDERS);
		fixture_audit(fixture);
		if (!reached)
			arm_again(kind);
	}
	disarm();
	fixture_reopen(fixture);
	fixture_expect_sums(fixture, 1, sums[LIFE_STEPS][0], sums[LIFE_STEPS][1], sums[LIFE_STEPS][2], LIFE_ORDERS);
	fixture_audit(fixture);
	return reached;
}

static void sweep_life(struct ledger_fixture *fixture, enum fault kind, unsigned least)
{
	unsigned nth = 1, failures = 0;

	while (live_on_with_fault(fixture, kind, nth, &failures))
		nth++;
	printf("%u points of failure, %u questions failed\n", nth - 1, failures);
	assert_true(nth > least && failures > least / 2);
}

static void a_write_that_fails_at_any_point_changes_all_or_nothing(void **state)
{
	sweep_life(*state, FAULT_WRITE, 30);
}

static void an_fsync_that_fails_at_any_point_changes_all_or_nothing(void **state)
{
	sweep_life(*state, FAULT_SYNC, LIFE_STEPS);
}

static void the_guard_follows_what_is_on_the_disk_after_a_failed_change(void **state)
{
	struct ledger_fixture *fixture = *state;
	struct store_change cancel = {.serial = 1, .action = STORE_CANCEL, .by = STORE_BY_BUYER};
	struct wire_admit again = fixture_record(1, 100);
	struct store_changed changed;

	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	assert_int_equal(fixture_admit_range(fixture, 1, 1, 2), 0);
	again.buyer = 1;
	arm(FAULT_WRITE, 1, true);
	assert_int_equal(fixture->store->ops->orders_change(fixture->store, &cancel, 1, NOW_NS, &changed), -EIO);
	disarm();
	/* the order is held still, so the buyer may not have another */
	assert_int_equal(fixture_admit(fixture, &again, 1), 0);
	fixture_expect(fixture, 0, WIRE_ACK_REFUSED, 0);
	assert_int_equal(fixture->store->ops->orders_change(fixture->store, &cancel, 1, NOW_NS, &changed), 0);
	assert_int_equal(changed.result, STORE_CHANGED);
	assert_int_equal(fixture_admit(fixture, &again, 1), 0);
	fixture_expect(fixture, 0, WIRE_ACK_STORED, 3);
	fixture_audit(fixture);
}

static void a_bracket_whose_store_fails_is_over_when_it_is_rolled_back(void **state)
{
	struct ledger_fixture *fixture = *state;
	const struct store_ops *ops = fixture->store->ops;
	struct store_move first = {.sale = 1, .delta = 1, .key = "a"}, second = {.sale = 1, .delta = 2, .key = "b"};
	struct store_once once = {.key = "k", .fingerprint = "f"};
	int64_t put_in;

	assert_int_equal(fixture_sale(fixture, 1, 1, 10), 0);
	assert_int_equal(ops->begin(fixture->store), 0);
	assert_int_equal(ops->stock_move(fixture->store, &first, NOW_NS, &put_in), 0);
	arm(FAULT_SYNC, 1, true);
	assert_int_equal(ops->commit(fixture->store), -EIO);
	disarm();
	/* the store goes on by itself, from what is on the disk */
	assert_int_equal(ops->begin(fixture->store), 0);
	assert_int_equal(ops->stock_move(fixture->store, &second, NOW_NS, &put_in), 0);
	assert_int_equal(ops->once_put(fixture->store, &once, "{}", NOW_NS), 0);
	assert_int_equal(ops->rollback(fixture->store, -EINVAL), -EINVAL);
	assert_int_equal(ops->stock_move(fixture->store, &first, NOW_NS, &put_in), 0);
	assert_int_equal(put_in, 11);
	fixture_audit(fixture);
}

/* --- an older ledger */

static void a_ledger_of_version_1_survives_any_failure_of_being_brought_up_to_date(void **state)
{
	struct ledger_fixture *fixture = *state;
	static const enum fault kinds[] = {FAULT_WRITE, FAULT_SYNC};
	unsigned points = 0;

	for (unsigned kind = 0; kind < 2; kind++) {
		bool reached = true;

		for (unsigned nth = 1; reached; nth++) {
			remove_ledger(fixture);
			fixture_sql(fixture, "PRAGMA journal_mode = WAL");
			fixture_sql(fixture, ledger_v1_schema);
			fixture_sql(fixture, ledger_v1_rows);
			chmod(fixture->path, 0600);
			arm(kinds[kind], nth, false);
			if (fixture_open(fixture)) {
				fixture_audit(fixture); /* whichever version it has, it is whole */
				points++;
				assert_int_equal(fixture_open(fixture), 0);
			}
			reached = fault_kind == FAULT_NONE;
			disarm();
			fixture_expect_sums(fixture, 1, 5, 3, 0, 2);
			fixture_close(fixture);
			fixture_audit(fixture);
			assert_string_equal(fixture_sql(fixture, "PRAGMA user_version"), "2");
		}
	}
	printf("%u points of failure\n", points);
	assert_true(points > 10);
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

/* The faults are wanted: what the store logs about them would bury the result. (cmocka keeps its messages until after
 * the teardown.)
 */
static int real_stderr;

static int quiet_setup(void **state)
{
	int null = open("/dev/null", O_WRONLY);

	real_stderr = dup(STDERR_FILENO);
	dup2(null, STDERR_FILENO);
	close(null);
	return fixture_setup_sqlite(state);
}

static int quiet_teardown(void **state)
{
	disarm();
	dup2(real_stderr, STDERR_FILENO);
	close(real_stderr);
	return fixture_teardown(state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, quiet_setup, quiet_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_write_that_fails_at_any_point_loses_no_order),
		TEST(an_fsync_that_fails_at_any_point_loses_no_order),
		TEST(a_write_that_fails_at_any_point_changes_all_or_nothing),
		TEST(an_fsync_that_fails_at_any_point_changes_all_or_nothing),
		TEST(the_guard_follows_what_is_on_the_disk_after_a_failed_change),
		TEST(a_bracket_whose_store_fails_is_over_when_it_is_rolled_back),
		TEST(a_ledger_of_version_1_survives_any_failure_of_being_brought_up_to_date),
		TEST(nothing_is_acknowledged_while_fsync_fails),
		TEST(after_a_failed_commit_the_wal_is_copied_before_anything_is_known),
		TEST(a_file_size_limit_is_an_error_and_nothing_is_half_stored),
		TEST(what_was_acknowledged_survives_sigkill),
		TEST(a_ledger_that_is_moved_away_gets_no_more_orders),
		TEST(a_stranger_that_writes_to_the_ledger_only_delays),
		TEST(the_wal_stays_bounded),
		TEST(a_full_disk_stops_orders_until_there_is_room),
	};

	log_init("test_writer_faults", LOG_ERROR_LEVEL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
