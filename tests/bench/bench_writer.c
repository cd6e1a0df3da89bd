/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* How many orders a second sluice-writer makes durable, and how long a batch takes, by size of batch.
 *
 * Runs the sluice-writer of the same build as a process of its own, with a fresh ledger beside the executable (so that
 * fsync is that of a disk, and not of a tmpfs /tmp), sends ADMIT frames one after the other over its socket and waits
 * for each acknowledgement. Prints one line of JSON to stdout. Usage: bench_writer [ORDERS_PER_SIZE]
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/timefmt.h"
#include "common/wire.h"

#define DEFAULT_ORDERS 200000
#define ONE_BY_ONE 2000 /* enough batches of one, which cost an fsync each */
#define START_TIMEOUT_MS 5000
#define REPLY_TIMEOUT_MS 30000

static const unsigned batch_sizes[] = {1, 100, 1000, 4096};

struct bench {
	char directory[PATH_MAX]; /* ledger and config */
	char socket_directory[32];
	char socket[64]; /* short, wherever the build lies */
	pid_t writer;
	int fd;
	uint64_t next_id;
	uint64_t next_serial;
	void *body;
	size_t capacity;
};

static void die(const char *what, int error)
{
	fprintf(stderr, "bench_writer: %s: %s\n", what, strerror(error < 0 ? -error : error));
	exit(1);
}

/* One question, one answer of the same type. */
static uint32_t ask(struct bench *bench, enum wire_type type, const void *body, uint32_t length)
{
	struct wire_header header;
	int error = wire_send(bench->fd, type, ++bench->next_id, body, length, REPLY_TIMEOUT_MS);

	if (!error)
		error = wire_receive(bench->fd, &header, &bench->body, &bench->capacity, REPLY_TIMEOUT_MS);
	if (error)
		die("no answer", error);
	if (header.type != type || header.id != bench->next_id) {
		fprintf(stderr, "bench_writer: the writer answered %.*s\n", (int)header.length, (char *)bench->body);
		exit(1);
	}
	return header.length;
}

static void start_writer(struct bench *bench)
{
	char self[PATH_MAX] = "", writer[PATH_MAX], config[PATH_MAX + 16];
	uint64_t deadline;
	FILE *file;

	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		die("cannot find myself", errno);
	*strrchr(self, '/') = '\0';
	if (snprintf(writer, sizeof(writer), "%s/../../sluice-writer", self) >= (int)sizeof(writer) ||
		snprintf(bench->directory, sizeof(bench->directory), "%s/ledger.XXXXXX", self) >=
			(int)sizeof(bench->directory))
		die("path of the build", ENAMETOOLONG);
	strcpy(bench->socket_directory, "/tmp/sluice-bench.XXXXXX");
	if (!mkdtemp(bench->directory) || !mkdtemp(bench->socket_directory))
		die("cannot make a directory", errno);
	snprintf(bench->socket, sizeof(bench->socket), "%s/writer.sock", bench->socket_directory);
	snprintf(config, sizeof(config), "%s/sluice.conf", bench->directory);
	file = fopen(config, "w");
	if (!file ||
		fprintf(file, "writer: { socket = \"%s\"; ledger = \"%s/ledger.db\"; };\n", bench->socket,
			bench->directory) < 0 ||
		fclose(file))
		die("cannot write the config", errno);
	bench->writer = fork();
	if (bench->writer < 0)
		die("cannot fork", errno);
	if (!bench->writer) {
		execl(writer, writer, "--config", config, (char *)NULL);
		die(writer, errno);
	}
	deadline = time_mono_ns() + START_TIMEOUT_MS * 1000000ULL;
	while ((bench->fd = wire_connect(bench->socket)) < 0) {
		if (waitpid(bench->writer, NULL, WNOHANG) || time_mono_ns() > deadline)
			die("the writer does not start", bench->fd);
		usleep(10000);
	}
}

static void stop_writer(struct bench *bench)
{
	static const char *const files[] = {"ledger.db", "ledger.db.lock", "sluice.conf"};
	char path[PATH_MAX + 32];
	int status = 1;

	close(bench->fd);
	kill(bench->writer, SIGTERM);
	if (waitpid(bench->writer, &status, 0) < 0 || status)
		die("the writer did not end well", ECHILD);
	for (unsigned i = 0; i < sizeof(files) / sizeof(*files); i++) {
		snprintf(path, sizeof(path), "%s/%s", bench->directory, files[i]);
		unlink(path);
	}
	if (rmdir(bench->directory) || rmdir(bench->socket_directory))
		die("the writer left files behind", errno);
	free(bench->body);
}

static void create_sale(struct bench *bench, unsigned id, unsigned stock)
{
	char body[512];
	int length = snprintf(body, sizeof(body),
		"{\"op\":\"sale_put\",\"sale\":{\"id\":%u,\"slug\":\"bench-%u\",\"opens_ns\":0,\"ends_ns\":4000000000000000000,"
		"\"per_buyer\":1,\"hold_seconds\":900,\"pace_per_second\":0,\"order_mode\":\"confirm\",\"token_multiplier\":0,"
		"\"paused\":false,\"ended\":false},\"stock\":%u,\"key\":\"create-%u\"}",
		id, id, stock, id);

	ask(bench, WIRE_QUERY, body, (uint32_t)length);
}

/* Serials and buyers are keyed hashes in life: spread over all 64 bits (splitmix64). */
static uint64_t spread(uint64_t value)
{
	value += 0x9e3779b97f4a7c15ULL;
	value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9ULL;
	value = (value ^ value >> 27) * 0x94d049bb133111ebULL;
	return value ^ value >> 31;
}

static int compare_times(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

static void measure(struct bench *bench, unsigned sale, unsigned size, unsigned orders)
{
	static struct wire_admit records[WIRE_BATCH_MAX];
	unsigned batches = orders / size;
	uint64_t *took = calloc(batches, sizeof(*took));
	uint64_t total = 0;

	if (!took)
		die("times", ENOMEM);
	create_sale(bench, sale, batches * size);
	for (unsigned i = 0; i < batches; i++) {
		const struct wire_ack *acks;
		uint64_t began;

		for (unsigned j = 0; j < size; j++) {
			uint64_t serial = bench->next_serial++;

			records[j] = (struct wire_admit){.serial = spread(serial),
				.buyer = spread(~serial),
				.source = {.lo = 0xffffULL << 32 | 0x0a000000 | (serial & 0xffffff)},
				.admitted_wall_ns = time_wall_ns(),
				.sale = sale,
				.quantity = 1,
				.hold_seconds = 900};
		}
		began = time_mono_ns();
		ask(bench, WIRE_ADMIT, records, size * (uint32_t)sizeof(*records));
		took[i] = time_mono_ns() - began;
		total += took[i];
		acks = bench->body;
		for (unsigned j = 0; j < size; j++) {
			if (acks[j].status != WIRE_ACK_STORED) {
				fprintf(stderr, "bench_writer: order %u of batch %u has status %u\n", j, i,
					acks[j].status);
				exit(1);
			}
		}
	}
	qsort(took, batches, sizeof(*took), compare_times);
	printf("%s{\"batch\":%u,\"orders\":%u,\"orders_per_second\":%.0f,\"batch_us\":{\"p50\":%.1f,\"p99\":%.1f,\"max\":%.1f}}",
		sale > 1 ? "," : "", size, batches * size, (double)batches * size * 1e9 / (double)total,
		(double)took[batches / 2] / 1e3, (double)took[batches * 99 / 100] / 1e3,
		(double)took[batches - 1] / 1e3);
	free(took);
}

int main(int argc, char **argv)
{
	static struct bench bench;
	unsigned orders = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : DEFAULT_ORDERS;

	if (orders < WIRE_BATCH_MAX) {
		fprintf(stderr, "Usage: bench_writer [ORDERS_PER_SIZE], at least %d\n", WIRE_BATCH_MAX);
		return 2;
	}
	start_writer(&bench);
	printf("{\"bench\":\"writer\",\"store\":\"sqlite\",\"results\":[");
	for (unsigned i = 0; i < sizeof(batch_sizes) / sizeof(*batch_sizes); i++)
		measure(&bench, i + 1, batch_sizes[i], batch_sizes[i] == 1 ? ONE_BY_ONE : orders);
	printf("]}\n");
	stop_writer(&bench);
	return 0;
}
