/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the disk under the ledger and the order writer bear; see doctor.h.
 *
 * Measured with the real writer on a ledger of its own, in a directory beside the real ledger: the same file system, the same transactions, the same socket,
 * and not one row in the real books. First the disk alone (append 4 KiB, fdatasync), then orders one at a time, then whole batches with two on their
 * way, as the daemon sends them under load. The directory is removed again.
 *
 * Whoever may rename that directory could put another in its place and have root write there. So root does all of it as the user to whom the
 * ledger's directory belongs; and where that is root, nobody else may have a hand in the directories above.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/doctor.h"
#include "common/timefmt.h"
#include "common/wire.h"
#include "drill/proc.h"
#include "drill/workdir.h"

#define SYNCS_MAX 200
#define LONE_MAX 200
#define EACH_NS 1000000000ULL /* of the three parts */
#define BLOCK_BYTES 4096
#define BATCHES_ON_THEIR_WAY 2
#define ORDERS_MAX 400000 /* some 40 MB of ledger and log */
#define ANSWER_MS 10000
#define START_NS 5000000000ULL
#define STOP_MS 5000
#define POLL_US 5000
#define SALE 1
#define NS_PER_MS 1e6

struct bench {
	char directory[CONFIG_PATH_MAX];
	char socket_directory[32]; /* "": the socket is in the other one */
	char socket[CONFIG_PATH_MAX + 32];
	pid_t writer;
	int fd;
	void *answer;
	size_t answer_capacity;
	uint64_t next_id, next_serial;
	struct wire_admit records[WIRE_BATCH_MAX];
};

uint64_t doctor_safe_pace(uint64_t orders_per_second)
{
	uint64_t safe = orders_per_second * DOCTOR_SAFE_PERCENT / 100, unit = 1;

	while (safe / unit >= 100)
		unit *= 10;
	return safe / unit * unit;
}

double doctor_percentile(const double *sorted, size_t count, unsigned percent)
{
	size_t rank = (count * percent + 99) / 100;

	return count ? sorted[rank ? rank - 1 : 0] : 0;
}

static int by_value(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return left < right ? -1 : left > right;
}

static void percentiles(double *values, size_t count, double *p50, double *p99)
{
	qsort(values, count, sizeof(*values), by_value);
	*p50 = doctor_percentile(values, count, 50);
	*p99 = doctor_percentile(values, count, 99);
}

static double ms_since(uint64_t then)
{
	return (double)(time_mono_ns() - then) / NS_PER_MS;
}

/* --- the disk --------------------------------------------------------------------------------------------------------------- */
static int measure_sync(struct bench *bench, struct doctor_pace *pace)
{
	static const char block[BLOCK_BYTES];
	char path[CONFIG_PATH_MAX + 32];
	double took[SYNCS_MAX];
	uint64_t began = time_mono_ns();
	size_t count = 0;
	int fd, err = 0;

	snprintf(path, sizeof(path), "%s/sync", bench->directory);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	while (!err && count < SYNCS_MAX && (!count || time_mono_ns() - began < EACH_NS)) {
		uint64_t then = time_mono_ns();

		if (write(fd, block, sizeof(block)) != (ssize_t)sizeof(block) || fdatasync(fd))
			err = errno ? -errno : -EIO;
		else
			took[count++] = ms_since(then);
	}
	close(fd);
	if (!err)
		percentiles(took, count, &pace->sync_p50_ms, &pace->sync_p99_ms);
	return err;
}

/* --- the writer ----------------------------------------------------------------------------------------------------------------- */
static int start_writer(struct bench *bench)
{
	char program[CONFIG_PATH_MAX + 32], config[CONFIG_PATH_MAX + 32], log[CONFIG_PATH_MAX + 32],
		self[CONFIG_PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	uint64_t give_up = time_mono_ns() + START_NS;
	FILE *file;
	int status;

	if (length < 0)
		return -errno;
	self[length] = '\0';
	snprintf(program, sizeof(program), "%s/sluice-writer", dirname(self));
	snprintf(config, sizeof(config), "%s/sluice.conf", bench->directory);
	snprintf(log, sizeof(log), "%s/log", bench->directory);
	file = fopen(config, "we");
	if (!file)
		return -errno;
	fprintf(file, "writer: { socket = \"%s\"; ledger = \"%s/ledger.db\"; };\n", bench->socket, bench->directory);
	if (fclose(file))
		return -errno;
	bench->writer = drill_proc_start(-1, log, true, (char *[]){program, (char[]){"--config"}, config, NULL});
	if (bench->writer < 0)
		return bench->writer;
	while ((bench->fd = wire_connect(bench->socket)) < 0) {
		if (time_mono_ns() > give_up)
			return -ETIMEDOUT;
		if (!drill_proc_alive(bench->writer, &status)) {
			bench->writer = 0;
			return -ECHILD;
		}
		usleep(POLL_US);
	}
	return 0;
}

static int receive(struct bench *bench)
{
	struct wire_header header;
	int err = wire_receive(bench->fd, &header, &bench->answer, &bench->answer_capacity, ANSWER_MS);

	return err ? err : header.type == WIRE_ERROR ? -EREMOTEIO : 0;
}

static int ask(struct bench *bench, enum wire_type type, const char *text)
{
	int err = wire_send(bench->fd, type, ++bench->next_id, text, (uint32_t)strlen(text), ANSWER_MS);

	return err ? err : receive(bench);
}

static int open_sale(struct bench *bench)
{
	char hello[64], sale[512];
	int err;

	snprintf(hello, sizeof(hello), "{\"version\":%d,\"node\":1}", WIRE_VERSION);
	snprintf(sale, sizeof(sale),
		"{\"op\":\"sale_put\",\"sale\":{\"id\":%d,\"slug\":\"doctor\",\"opens_ns\":1,\"ends_ns\":%" PRIu64
		",\"per_buyer\":1,\"hold_seconds\":0,\"pace_per_second\":0,\"order_mode\":\"confirm\",\"token_multiplier\":0,\"paused\":false,"
		"\"ended\":false},\"stock\":1000000000,\"key\":\"doctor\"}",
		SALE, (uint64_t)INT64_MAX);
	err = ask(bench, WIRE_HELLO, hello);
	return err ? err : ask(bench, WIRE_QUERY, sale);
}

/* Serials and buyers as they come: keyed hashes, so all over the place. */
static int send_batch(struct bench *bench, unsigned count)
{
	uint64_t now = time_wall_ns();

	for (unsigned i = 0; i < count; i++) {
		uint64_t serial = ++bench->next_serial * 0x9e3779b97f4a7c15ULL;

		bench->records[i] = (struct wire_admit){
			.serial = serial, .buyer = ~serial, .admitted_wall_ns = now, .sale = SALE, .quantity = 1};
	}
	return wire_send(bench->fd, WIRE_ADMIT, ++bench->next_id, bench->records,
		count * (uint32_t)sizeof(*bench->records), ANSWER_MS);
}

static int measure_lone(struct bench *bench, struct doctor_pace *pace)
{
	uint64_t began = time_mono_ns();
	double took[LONE_MAX];
	size_t count = 0;
	int err = 0;

	while (!err && count < LONE_MAX && (!count || time_mono_ns() - began < EACH_NS)) {
		uint64_t then = time_mono_ns();

		err = send_batch(bench, 1);
		if (!err)
			err = receive(bench);
		took[count++] = ms_since(then);
	}
	if (!err)
		percentiles(took, count, &pace->commit_p50_ms, &pace->commit_p99_ms);
	return err;
}

static int measure_batches(struct bench *bench, struct doctor_pace *pace)
{
	uint64_t began = time_mono_ns(), orders = 0, sent = 0, took;
	unsigned on_their_way = 0;
	int err = 0;

	do {
		while (!err && on_their_way < BATCHES_ON_THEIR_WAY && sent < ORDERS_MAX &&
			time_mono_ns() - began < EACH_NS) {
			err = send_batch(bench, WIRE_BATCH_MAX);
			sent += WIRE_BATCH_MAX;
			on_their_way++;
		}
		if (!err)
			err = receive(bench);
		on_their_way--;
		orders += WIRE_BATCH_MAX;
	} while (!err && on_their_way);
	took = time_mono_ns() - began;
	if (!err)
		pace->orders_per_second = (uint64_t)((double)orders * 1e9 / (double)took);
	return err;
}

/* --- the whole ------------------------------------------------------------------------------------------------------------------- */
static int make_directory(const struct doctor *doctor, const char *beside, struct bench *bench)
{
	if ((size_t)snprintf(bench->directory, sizeof(bench->directory), "%s/.doctor-XXXXXX", beside) >=
		sizeof(bench->directory)) {
		bench->directory[0] = '\0';
		return -ENAMETOOLONG;
	}
	if (!mkdtemp(bench->directory)) {
		bench->directory[0] = '\0';
		return -errno;
	}
	/* A socket's name holds less than a directory's. */
	snprintf(bench->socket, sizeof(bench->socket), "%s/writer.sock", bench->directory);
	if (strlen(bench->socket) < sizeof(doctor->config->writer.socket))
		return 0;
	strcpy(bench->socket_directory, "/tmp/sluice-doctor-XXXXXX");
	if (!mkdtemp(bench->socket_directory)) {
		bench->socket_directory[0] = '\0';
		return -errno;
	}
	snprintf(bench->socket, sizeof(bench->socket), "%s/writer.sock", bench->socket_directory);
	return 0;
}

static void clean_up(struct bench *bench)
{
	if (bench->fd >= 0)
		close(bench->fd);
	drill_proc_stop(bench->writer, STOP_MS);
	if (bench->socket_directory[0])
		drill_remove_tree(bench->socket_directory);
	if (bench->directory[0])
		drill_remove_tree(bench->directory);
	free(bench->answer);
	free(bench);
}

/* --- as whom ------------------------------------------------------------------------------------------------------------------------ */
#define GROUPS_MAX 1024

struct identity {
	bool is_other; /* we are somebody else for a while */
	gid_t groups[GROUPS_MAX];
	int group_count;
	char directory[PATH_MAX]; /* of the ledger, without links: the one that was looked at */
};

/* Whether nobody but root can put something else in the place of the directory, or of one above it. */
static bool is_roots_alone(char *path)
{
	struct stat status;
	char *slash;

	do {
		slash = strrchr(path, '/');
		if (stat(*path ? path : "/", &status) || status.st_uid ||
			(status.st_mode & (S_IWGRP | S_IWOTH) && !(status.st_mode & S_ISVTX)))
			return false;
		if (slash)
			*slash = '\0';
	} while (slash);
	return true;
}

/* Back to root; that cannot fail, because the saved ids are still root's. */
static void become_root(struct identity *identity)
{
	if (!identity->is_other)
		return;
	if (setresuid(0, 0, 0) || setresgid(0, 0, 0) || setgroups((size_t)identity->group_count, identity->groups))
		abort();
	identity->is_other = false;
}

/* Returns 0, or -EPERM after it was noted. */
static int become_owner(struct doctor *doctor, struct identity *identity)
{
	char ledger[CONFIG_PATH_MAX], path[PATH_MAX];
	struct stat status;
	int err;

	identity->is_other = false;
	snprintf(ledger, sizeof(ledger), "%s", doctor->config->writer.ledger);
	if (!realpath(dirname(ledger), identity->directory) || stat(identity->directory, &status)) {
		doctor_note(doctor, DOCTOR_WARN, "pace", NULL, "not measured: the ledger has no directory yet");
		return -EPERM;
	}
	if (geteuid())
		return 0;
	strcpy(path, identity->directory);
	if (!status.st_uid && !is_roots_alone(path)) {
		doctor_note(doctor, DOCTOR_WARN, "pace",
			"give the directory and those above it to root alone, or the directory to the order writer's user",
			"not measured: the directory of the ledger %s is root's, and others can change it or one above it",
			doctor->config->writer.ledger);
		return -EPERM;
	}
	if (!status.st_uid)
		return 0;
	identity->group_count = getgroups(GROUPS_MAX, identity->groups);
	if (identity->group_count < 0 || setgroups(1, &status.st_gid))
		goto failed;
	identity->is_other = true;
	if (!setresgid(status.st_gid, status.st_gid, 0) && !setresuid(status.st_uid, status.st_uid, 0))
		return 0;
failed:
	err = errno;
	become_root(identity);
	doctor_note(doctor, DOCTOR_WARN, "pace", NULL,
		"not measured: cannot become the user %u, who owns its directory: %s", (unsigned)status.st_uid,
		strerror(err));
	return -EPERM;
}

void doctor_measure_pace(struct doctor *doctor)
{
	struct bench *bench = calloc(1, sizeof(*bench));
	struct doctor_pace *pace = &doctor->pace;
	struct identity identity;
	int err;

	if (doctor->other_store) {
		doctor_note(doctor, DOCTOR_WARN, "pace", "watch drain and backlog in a drill",
			"not measured: the ledger is in a database of its own, not in a file on this machine's disk");
		free(bench);
		return;
	}
	if (!bench) {
		doctor_note(doctor, DOCTOR_WARN, "pace", NULL, "no memory to measure it");
		return;
	}
	bench->fd = -1;
	if (become_owner(doctor, &identity)) {
		free(bench);
		return;
	}
	err = make_directory(doctor, identity.directory, bench);
	if (!err)
		err = measure_sync(bench, pace);
	if (err) {
		doctor_note(doctor, DOCTOR_FAIL, "disk", "make its directory writable for the order writer",
			"cannot write beside the ledger %s: %s", doctor->config->writer.ledger, strerror(-err));
		goto out;
	}
	doctor_note(doctor, DOCTOR_OK, "disk", NULL,
		"4 KiB and fdatasync beside the ledger: %.2f ms, 99 of 100 within %.2f ms", pace->sync_p50_ms,
		pace->sync_p99_ms);
	err = start_writer(bench);
	if (!err)
		err = open_sale(bench);
	if (!err)
		err = measure_lone(bench, pace);
	if (!err)
		err = measure_batches(bench, pace);
	if (err) {
		doctor_note(doctor, DOCTOR_WARN, "pace", "is sluice-writer beside this program?",
			"an order writer could not be measured: %s", strerror(-err));
		goto out;
	}
	pace->safe_per_second = doctor_safe_pace(pace->orders_per_second);
	doctor_note(doctor, DOCTOR_OK, "pace", NULL, "one order is durable in %.2f ms, 99 of 100 within %.2f ms",
		pace->commit_p50_ms, pace->commit_p99_ms);
	doctor_note(doctor, DOCTOR_OK, "pace", NULL,
		"safe: %" PRIu64 " orders a second; the writer alone makes %" PRIu64
		" durable (whole batches, two on their way)",
		pace->safe_per_second, pace->orders_per_second);
out:
	clean_up(bench);
	become_root(&identity);
}
