/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* How many orders a second sluice-writer makes durable, how long a batch takes by its size, how long a lone order waits
 * beside what the disk itself takes, and how many orders a second are confirmed.
 *
 * Runs the sluice-writer of the same build as a process of its own, with a fresh ledger beside the executable (so that
 * fsync is that of a disk, and not of a tmpfs /tmp), sends frames one after the other over its socket and waits for each
 * answer. Prints one line of JSON to stdout and a table to stderr. Usage: bench_writer [ORDERS_PER_SIZE]
 *
 * The disk's own time is that of a write and an fdatasync of as many bytes as the writer writes for a lone order, on a
 * file in the ledger's directory that grows and begins anew as a write-ahead log does. Both take turns, order by order:
 * what the disk does to the one it does to the other, so their ratio holds where their times do not.
 */
#include <errno.h>
#include <fcntl.h>
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
#define LONE_ORDERS 3000
#define LONE_WARM_UP 200 /* orders by which the bytes of one are counted */
#define PROBE_BYTES \
	(16u << 20)  /* at which the log of the disk's own time begins anew: as the ledger's is checkpointed */
#define CHANGES 1000 /* orders that one question confirms */
#define START_TIMEOUT_MS 5000
#define REPLY_TIMEOUT_MS 30000

static const unsigned batch_sizes[] = {1, 100, 1000, 4096};
#define SIZES (sizeof(batch_sizes) / sizeof(*batch_sizes))

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

struct spread {
	double p50, p99, max; /* us */
};

/* Sorts the times. */
static struct spread spread_of(uint64_t *took, unsigned count)
{
	qsort(took, count, sizeof(*took), compare_times);
	return (struct spread){
		(double)took[count / 2] / 1e3, (double)took[count * 99ULL / 100] / 1e3, (double)took[count - 1] / 1e3};
}

static uint64_t *times(unsigned count)
{
	uint64_t *took = calloc(count, sizeof(*took));

	if (!took)
		die("times", ENOMEM);
	return took;
}

/* One batch of new orders. Returns how long it took until it was acknowledged, ns. */
static uint64_t admit(struct bench *bench, unsigned sale, unsigned size)
{
	static struct wire_admit records[WIRE_BATCH_MAX];
	const struct wire_ack *acks;
	uint64_t began, took;

	for (unsigned i = 0; i < size; i++) {
		uint64_t serial = bench->next_serial++;

		records[i] = (struct wire_admit){.serial = spread(serial),
			.buyer = spread(~serial),
			.source = {.lo = 0xffffULL << 32 | 0x0a000000 | (serial & 0xffffff)},
			.admitted_wall_ns = time_wall_ns(),
			.sale = sale,
			.quantity = 1,
			.hold_seconds = 900};
	}
	began = time_mono_ns();
	ask(bench, WIRE_ADMIT, records, size * (uint32_t)sizeof(*records));
	took = time_mono_ns() - began;
	acks = bench->body;
	for (unsigned i = 0; i < size; i++) {
		if (acks[i].status != WIRE_ACK_STORED) {
			fprintf(stderr, "bench_writer: order %u of a batch has status %u\n", i, acks[i].status);
			exit(1);
		}
	}
	return took;
}

static void measure(struct bench *bench, unsigned sale, unsigned size, unsigned orders)
{
	unsigned batches = orders / size;
	uint64_t *took = times(batches);
	uint64_t total = 0;
	struct spread batch;
	double per_second;

	create_sale(bench, sale, batches * size);
	for (unsigned i = 0; i < batches; i++) {
		took[i] = admit(bench, sale, size);
		total += took[i];
	}
	batch = spread_of(took, batches);
	per_second = (double)batches * size * 1e9 / (double)total;
	printf("%s{\"batch\":%u,\"orders\":%u,\"orders_per_second\":%.0f,\"batch_us\":{\"p50\":%.1f,\"p99\":%.1f,\"max\":%.1f}}",
		sale > 1 ? "," : "", size, batches * size, per_second, batch.p50, batch.p99, batch.max);
	fprintf(stderr, "%9u %12.0f %12.1f %12.1f %12.1f\n", size, per_second, batch.p50, batch.p99, batch.max);
	free(took);
}

/* Bytes that the writer has given to write calls. The socket's are not among them. */
static uint64_t bytes_written(const struct bench *bench)
{
	unsigned long long bytes;
	char path[64], line[128];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/io", (int)bench->writer);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "wchar: %llu", &bytes) != 1)
			continue;
		fclose(file);
		return bytes;
	}
	die(path, errno);
	return 0;
}

static uint64_t write_and_sync(int fd, const void *bytes, size_t size, off_t at)
{
	uint64_t began = time_mono_ns();

	if (pwrite(fd, bytes, size, at) != (ssize_t)size || fdatasync(fd))
		die("cannot write beside the ledger", errno);
	return time_mono_ns() - began;
}

static void measure_lone(struct bench *bench, unsigned sale)
{
	uint64_t *order = times(LONE_ORDERS), *disk = times(LONE_ORDERS);
	char path[PATH_MAX + 16];
	struct spread orders, disks;
	size_t size;
	off_t at = 0;
	void *bytes;
	int fd;

	create_sale(bench, sale, LONE_WARM_UP + LONE_ORDERS);
	for (unsigned i = 0; i < LONE_WARM_UP; i++) {
		uint64_t before = bytes_written(bench);

		admit(bench, sale, 1);
		order[i] = bytes_written(bench) - before;
	}
	qsort(order, LONE_WARM_UP, sizeof(*order), compare_times);
	size = (size_t)order[LONE_WARM_UP / 2]; /* the median: a checkpoint may be among them */
	bytes = calloc(1, size);
	snprintf(path, sizeof(path), "%s/probe", bench->directory);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (!bytes || fd < 0)
		die(path, errno);
	for (unsigned i = 0; i < LONE_ORDERS; i++) {
		if (at + size > PROBE_BYTES)
			at = 0;
		disk[i] = write_and_sync(fd, bytes, size, at);
		at += (off_t)size;
		order[i] = admit(bench, sale, 1);
	}
	close(fd);
	unlink(path);
	orders = spread_of(order, LONE_ORDERS);
	disks = spread_of(disk, LONE_ORDERS);
	printf("\"lone\":{\"orders\":%u,\"bytes\":%zu,\"order_us\":{\"p50\":%.1f,\"p99\":%.1f,\"max\":%.1f},"
	       "\"disk_us\":{\"p50\":%.1f,\"p99\":%.1f,\"max\":%.1f},\"p50_ratio\":%.2f,\"p99_ratio\":%.2f}",
		LONE_ORDERS, size, orders.p50, orders.p99, orders.max, disks.p50, disks.p99, disks.max,
		orders.p50 / disks.p50, orders.p99 / disks.p99);
	fprintf(stderr,
		"\na lone order, and the disk's write and fdatasync of the same %zu bytes\n%9s %12s %12s %12s\n", size,
		"", "p50 us", "p99 us", "max us");
	fprintf(stderr, "%9s %12.1f %12.1f %12.1f\n%9s %12.1f %12.1f %12.1f\n%9s %12.2f %12.2f\n", "order", orders.p50,
		orders.p99, orders.max, "disk", disks.p50, disks.p99, disks.max, "ratio", orders.p50 / disks.p50,
		orders.p99 / disks.p99);
	free(order);
	free(disk);
	free(bytes);
}

/* Confirms orders, as many in one question as it may have. */
static void measure_changes(struct bench *bench, unsigned sale, unsigned orders)
{
	unsigned questions = orders / CHANGES;
	uint64_t *took = times(questions), total = 0, first = bench->next_serial;
	char *body = malloc(CHANGES * 80 + 128);
	struct spread batch;
	double per_second;

	if (!body)
		die("a question", ENOMEM);
	create_sale(bench, sale, questions * CHANGES);
	for (unsigned i = 0; i < questions; i++)
		admit(bench, sale, CHANGES);
	for (unsigned i = 0; i < questions; i++) {
		char *end = body + sprintf(body, "{\"op\":\"orders_change\",\"changes\":[");
		uint64_t began;

		for (unsigned j = 0; j < CHANGES; j++)
			end += sprintf(end, "%s{\"id\":\"%016llx\",\"action\":\"confirm\",\"by\":\"shop\"}",
				j ? "," : "", (unsigned long long)spread(first + i * CHANGES + j));
		end += sprintf(end, "]}");
		began = time_mono_ns();
		ask(bench, WIRE_QUERY, body, (uint32_t)(end - body));
		took[i] = time_mono_ns() - began;
		total += took[i];
	}
	batch = spread_of(took, questions);
	per_second = (double)questions * CHANGES * 1e9 / (double)total;
	printf("\"changes\":{\"batch\":%u,\"orders\":%u,\"orders_per_second\":%.0f,\"batch_us\":{\"p50\":%.1f,\"p99\":%.1f,\"max\":%.1f}}",
		CHANGES, questions * CHANGES, per_second, batch.p50, batch.p99, batch.max);
	fprintf(stderr, "\nconfirmed, %u in a question: %.0f orders a second\n", CHANGES, per_second);
	free(took);
	free(body);
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
	fprintf(stderr, "%9s %12s %12s %12s %12s\n", "batch", "orders/s", "p50 us", "p99 us", "max us");
	printf("{\"bench\":\"writer\",\"store\":\"sqlite\",\"results\":[");
	for (unsigned i = 0; i < SIZES; i++)
		measure(&bench, i + 1, batch_sizes[i], batch_sizes[i] == 1 ? ONE_BY_ONE : orders);
	printf("],");
	measure_lone(&bench, SIZES + 1);
	printf(",");
	measure_changes(&bench, SIZES + 2, orders / 2);
	printf("}\n");
	stop_writer(&bench);
	return 0;
}
