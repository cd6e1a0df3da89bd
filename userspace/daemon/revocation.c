/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tokens that were taken back; see revocation.h.
 *
 * The file is a log of lines, each written and synced before the caller is told: "token SERIAL BUYER SALE EXPIRES", "before SALE SECOND",
 * "key ID UNTIL". A last line without its end is what a crash left of an answer that nobody got. It is opened before privileges are
 * dropped, and kept open.
 */
#include "daemon/revocation.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/sales.h"

#define NS_PER_S 1000000000ULL
#define KEY_IDS 256
#define LINE_MAX_BYTES 96
/* After a token has expired its entry stays for so long, in case the clock is set back. */
#define EXPIRED_KEEP_S 3600
#define CLAIM_TRIES 50
#define CLAIM_WAIT_NS 1000000

struct before {
	uint32_t sale, second;
};

struct revocations {
	pthread_mutex_t lock;
	int fd;
	struct before *befores;
	size_t before_count, before_capacity;
	uint64_t key_until[KEY_IDS];
};

static __attribute__((format(printf, 2, 3))) int append(struct revocations *r, const char *format, ...)
{
	char line[LINE_MAX_BYTES];
	off_t end = lseek(r->fd, 0, SEEK_END);
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (end >= 0 && write(r->fd, line, (size_t)length) == length && !fdatasync(r->fd))
		return 0;
	log_error("cannot write to the file of revoked tokens: %s", strerror(errno));
	/* Half a line must not stand before the next one. */
	if (end >= 0 && ftruncate(r->fd, end))
		log_error("cannot cut the file of revoked tokens: %s", strerror(errno));
	return -EIO;
}

static uint32_t get_before(const struct revocations *r, uint32_t sale)
{
	for (size_t i = 0; i < r->before_count; i++)
		if (r->befores[i].sale == sale)
			return r->befores[i].second;
	return 0;
}

static int set_before(struct revocations *r, uint32_t sale, uint32_t second)
{
	for (size_t i = 0; i < r->before_count; i++)
		if (r->befores[i].sale == sale) {
			r->befores[i].second = second;
			return 0;
		}
	if (r->before_count == r->before_capacity) {
		size_t capacity = r->before_capacity ? r->before_capacity * 2 : 16;
		struct before *all = realloc(r->befores, capacity * sizeof(*all));

		if (!all)
			return -ENOMEM;
		r->befores = all;
		r->before_capacity = capacity;
	}
	r->befores[r->before_count++] = (struct before){.sale = sale, .second = second};
	return 0;
}

/* Returns 0, -EEXIST (admitted), -EBUSY (claimed), or what the map says. */
static int put_entry(struct daemon *d, uint64_t serial, uint64_t buyer, uint32_t sale, uint32_t expires_at_s)
{
	struct sluice_admission entry = {
		.serial = serial,
		.buyer = buyer,
		.sale = sale,
		.state = SLUICE_ADMISSION_REVOKED,
		.expires_at_s = expires_at_s,
	};
	__u64 key = serial;
	int err = bpf_map_update_elem(d->maps.admissions, &key, &entry, BPF_NOEXIST);

	if (err != -EEXIST)
		return err;
	if (bpf_map_lookup_elem(d->maps.admissions, &key, &entry) || entry.serial != serial)
		return -EBUSY; /* it has gone meanwhile, or is being written */
	if (entry.state == SLUICE_ADMISSION_REVOKED)
		return 0;
	return entry.state == SLUICE_ADMISSION_DONE ? -EEXIST : -EBUSY;
}

/* --- reading -------------------------------------------------------------------------------------------------------------------- */
struct reader {
	struct daemon *d;
	struct revocations *r;
	FILE *kept; /* the new file */
	uint64_t now_s;
	unsigned tokens;
};

/* Returns 0, -EINVAL for a line that is none of ours, or what went wrong. */
static int read_line(struct reader *reader, const char *line)
{
	uint64_t serial, buyer, until;
	unsigned id, sale, second;
	int used = 0, err;

	if (sscanf(line, "token %16" SCNx64 " %16" SCNx64 " %u %u\n%n", &serial, &buyer, &sale, &second, &used) == 4 &&
		used && !line[used]) {
		if ((uint64_t)second + EXPIRED_KEEP_S < reader->now_s)
			return 0;
		err = put_entry(reader->d, serial, buyer, sale, second);
		reader->tokens++;
		fputs(line, reader->kept);
		return err == -EEXIST || err == -EBUSY ? 0 : err;
	}
	if (sscanf(line, "before %u %u\n%n", &sale, &second, &used) == 2 && used && !line[used])
		return set_before(reader->r, sale, second);
	if (sscanf(line, "key %u %" SCNu64 "\n%n", &id, &until, &used) == 2 && used && !line[used] && id < KEY_IDS) {
		reader->r->key_until[id] = until;
		return 0;
	}
	return -EINVAL;
}

static int read_file(struct reader *reader, const char *path, char *error, size_t error_size)
{
	FILE *file = fopen(path, "re");
	char line[LINE_MAX_BYTES];
	unsigned number = 0;
	int err = 0;

	if (!file) {
		if (errno == ENOENT)
			return 0;
		err = -errno;
		snprintf(error, error_size, "cannot open %s: %s", path, strerror(-err));
		return err;
	}
	while (!err && fgets(line, sizeof(line), file)) {
		number++;
		if (!strchr(line, '\n') && feof(file))
			break;
		err = read_line(reader, line);
		if (err == -EINVAL)
			snprintf(error, error_size,
				"line %u of %s is not understood: it says which tokens are revoked. Restore the file, or remove it to revoke none",
				number, path);
		else if (err)
			snprintf(error, error_size, "cannot revoke the tokens of %s in the gate: %s%s", path,
				strerror(-err), err == -E2BIG ? " (raise gate.max_admissions and attach again)" : "");
	}
	fclose(file);
	return err;
}

static int write_rest(struct reader *reader)
{
	const struct revocations *r = reader->r;

	for (size_t i = 0; i < r->before_count; i++)
		if (r->befores[i].second)
			fprintf(reader->kept, "before %u %u\n", r->befores[i].sale, r->befores[i].second);
	for (unsigned id = 0; id < KEY_IDS; id++)
		if (r->key_until[id] > reader->now_s)
			fprintf(reader->kept, "key %u %" PRIu64 "\n", id, r->key_until[id]);
	return fflush(reader->kept) || ferror(reader->kept) || fsync(fileno(reader->kept)) ? -EIO : 0;
}

struct revocations *revocation_open(struct daemon *d, char *error, size_t error_size)
{
	struct revocations *r = calloc(1, sizeof(*r));
	struct reader reader = {.d = d, .r = r, .now_s = time_wall_ns() / NS_PER_S};
	char path[PATH_MAX], fresh[PATH_MAX];
	int err;

	if (!r) {
		snprintf(error, error_size, "no memory");
		return NULL;
	}
	r->fd = -1;
	pthread_mutex_init(&r->lock, NULL);
	snprintf(path, sizeof(path), "%s/revoked", d->config.daemon.state_dir);
	snprintf(fresh, sizeof(fresh), "%s/revoked.new", d->config.daemon.state_dir);
	unlink(fresh);
	reader.kept = fopen(fresh, "wxe"); /* the umask makes it 0600 */
	if (!reader.kept) {
		snprintf(error, error_size, "cannot make %s: %s", fresh, strerror(errno));
		goto fail;
	}
	err = read_file(&reader, path, error, error_size);
	if (!err) {
		err = write_rest(&reader);
		if (err)
			snprintf(error, error_size, "cannot write %s: %s", fresh, strerror(errno));
	}
	fclose(reader.kept);
	if (err)
		goto fail_file;
	if (rename(fresh, path)) {
		snprintf(error, error_size, "cannot rename %s: %s", fresh, strerror(errno));
		goto fail_file;
	}
	r->fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
	if (r->fd < 0) {
		snprintf(error, error_size, "cannot open %s: %s", path, strerror(errno));
		goto fail;
	}
	if (reader.tokens)
		log_info("%u tokens are revoked", reader.tokens);
	return r;

fail_file:
	unlink(fresh);
fail:
	revocation_close(r);
	return NULL;
}

void revocation_close(struct revocations *r)
{
	if (!r)
		return;
	if (r->fd >= 0)
		close(r->fd);
	free(r->befores);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

/* --- use ------------------------------------------------------------------------------------------------------------------------ */
void revocation_apply(struct daemon *d)
{
	struct revocations *r = d->revocations;

	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < r->before_count; i++)
		sales_set_not_before(d->sales, r->befores[i].sale, r->befores[i].second);
	pthread_mutex_unlock(&r->lock);
}

int revocation_token(struct daemon *d, uint64_t serial, uint64_t buyer, uint32_t sale, uint32_t expires_at_s)
{
	const struct timespec wait = {.tv_nsec = CLAIM_WAIT_NS};
	struct revocations *r = d->revocations;
	int err = -EBUSY;

	pthread_mutex_lock(&r->lock);
	if (revocation_has(d, serial)) {
		pthread_mutex_unlock(&r->lock);
		return 0;
	}
	/* A claim is settled within microseconds. */
	for (int i = 0; i < CLAIM_TRIES && err == -EBUSY; i++) {
		err = put_entry(d, serial, buyer, sale, expires_at_s);
		if (err == -EBUSY)
			nanosleep(&wait, NULL);
	}
	if (!err)
		err = append(r, "token %016" PRIx64 " %016" PRIx64 " %u %u\n", serial, buyer, sale, expires_at_s);
	pthread_mutex_unlock(&r->lock);
	return err;
}

int revocation_before(struct daemon *d, uint32_t sale, uint32_t not_before_s)
{
	struct revocations *r = d->revocations;
	uint32_t former;
	int err;

	pthread_mutex_lock(&r->lock);
	former = get_before(r, sale);
	err = set_before(r, sale, not_before_s) ? -EIO : append(r, "before %u %u\n", sale, not_before_s);
	if (err)
		set_before(r, sale, former);
	else
		sales_set_not_before(d->sales, sale, not_before_s);
	pthread_mutex_unlock(&r->lock);
	return err;
}

bool revocation_is_over(const struct sluice_admission *entry, uint64_t wall_ns)
{
	return (uint64_t)entry->expires_at_s + EXPIRED_KEEP_S < wall_ns / NS_PER_S;
}

bool revocation_has(struct daemon *d, uint64_t serial)
{
	struct sluice_admission entry;
	__u64 key = serial;

	return !bpf_map_lookup_elem(d->maps.admissions, &key, &entry) && entry.serial == serial &&
		entry.state == SLUICE_ADMISSION_REVOKED;
}

int revocation_note_key(struct daemon *d, unsigned id, uint64_t until_s)
{
	struct revocations *r = d->revocations;
	int err;

	pthread_mutex_lock(&r->lock);
	err = append(r, "key %u %" PRIu64 "\n", id % KEY_IDS, until_s);
	if (!err)
		r->key_until[id % KEY_IDS] = until_s;
	pthread_mutex_unlock(&r->lock);
	return err;
}

uint64_t revocation_key_until(struct daemon *d, unsigned id)
{
	uint64_t until;

	pthread_mutex_lock(&d->revocations->lock);
	until = d->revocations->key_until[id % KEY_IDS];
	pthread_mutex_unlock(&d->revocations->lock);
	return until;
}
