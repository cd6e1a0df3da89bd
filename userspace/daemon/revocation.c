/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tokens that were taken back; see revocation.h.
 *
 * The file is a log of lines (line_log.h): "token SERIAL BUYER SALE EXPIRES", "before SALE SECOND", "key ID UNTIL". A token goes into the gate first
 * and into the file after it, so the gate may hold one that the file does not: its line could not be written, or the daemon died between the two.
 * Hence the file is not asked of the gate: which tokens it has is known here.
 */
#include "daemon/revocation.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/line_log.h"

#define NS_PER_S 1000000000ULL
#define KEY_IDS 256
#define LINE_MAX_BYTES 96
/* After a token has expired its entry stays for so long, in case the clock is set back. */
#define EXPIRED_KEEP_S 3600
#define CLAIM_TRIES 50
#define CLAIM_WAIT_NS 1000000
#define SERIALS_MIN 64 /* a power of two */

struct before {
	uint32_t sale, second;
};

struct serial {
	uint64_t serial;
	uint32_t expires_at_s; /* 0 = an empty place */
};

/* Serials are keyed hashes, so each lies where its low bits say, or behind. */
struct serials {
	struct serial *place;
	size_t count, size; /* size: a power of two, or 0 */
};

struct revocations {
	pthread_mutex_t lock;
	struct line_log log;
	struct serials written; /* those that have a line in the file, and until when by it */
	struct before *befores;
	size_t before_count, before_capacity;
	uint64_t key_until[KEY_IDS];
};

static __attribute__((format(printf, 2, 3))) int append(struct revocations *r, const char *format, ...)
{
	char line[LINE_MAX_BYTES];
	va_list args;
	int length, err;

	va_start(args, format);
	length = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	err = line_log_append(&r->log, line, (size_t)length);
	if (!err)
		return 0;
	log_error("cannot write to the file of revoked tokens: %s", strerror(-err));
	return -EIO;
}

/* --- serials -------------------------------------------------------------------------------------------------------------------- */
static struct serial *serials_place(const struct serials *serials, uint64_t serial)
{
	size_t at = (size_t)serial & (serials->size - 1);

	while (serials->place[at].expires_at_s && serials->place[at].serial != serial)
		at = (at + 1) & (serials->size - 1);
	return &serials->place[at];
}

/* 0: it is not there. */
static uint32_t serials_expiry(const struct serials *serials, uint64_t serial)
{
	return serials->size ? serials_place(serials, serial)->expires_at_s : 0;
}

/* At most half full, so that a search ends soon. */
static bool serials_grow(struct serials *serials)
{
	struct serials larger = {.size = serials->size ? serials->size * 2 : SERIALS_MIN, .count = serials->count};

	if (serials->count < serials->size / 2)
		return true;
	larger.place = calloc(larger.size, sizeof(*larger.place));
	if (!larger.place)
		return false;
	for (size_t i = 0; i < serials->size; i++)
		if (serials->place[i].expires_at_s)
			*serials_place(&larger, serials->place[i].serial) = serials->place[i];
	free(serials->place);
	*serials = larger;
	return true;
}

/* One that finds no place is written again when it is revoked again, which does no harm. */
static void serials_put(struct serials *serials, uint64_t serial, uint32_t expires_at_s)
{
	struct serial *place;

	if (!serials_grow(serials))
		return;
	place = serials_place(serials, serial);
	serials->count += !place->expires_at_s;
	*place = (struct serial){.serial = serial, .expires_at_s = expires_at_s};
}

/* --- the words ------------------------------------------------------------------------------------------------------------------ */
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

/* Returns 0, also if it was there; -EEXIST (admitted), -EBUSY (claimed), or what the map says. */
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
	if (entry.state == SLUICE_ADMISSION_REVOKED) {
		if (entry.expires_at_s >= expires_at_s)
			return 0;
		/* Tokens of one serial may live longer, if their sale does. */
		entry.expires_at_s = expires_at_s;
		return bpf_map_update_elem(d->maps.admissions, &key, &entry, BPF_ANY);
	}
	return entry.state == SLUICE_ADMISSION_DONE ? -EEXIST : -EBUSY;
}

/* --- reading -------------------------------------------------------------------------------------------------------------------- */
struct reader {
	struct daemon *d;
	struct revocations *r;
	const char *path;
	char *error;
	size_t error_size;
	uint64_t now_s;
	unsigned tokens;
};

static int read_token(struct reader *reader, uint64_t serial, uint64_t buyer, uint32_t sale, uint32_t expires_at_s)
{
	uint32_t written;
	int err;

	if ((uint64_t)expires_at_s + EXPIRED_KEEP_S < reader->now_s)
		return 0;
	err = put_entry(reader->d, serial, buyer, sale, expires_at_s);
	if (err && err != -EEXIST && err != -EBUSY) {
		snprintf(reader->error, reader->error_size, "cannot revoke the tokens of %s in the gate: %s%s",
			reader->path, strerror(-err),
			err == -E2BIG ? " (raise gate.max_admissions and attach again)" : "");
		return err;
	}
	written = serials_expiry(&reader->r->written, serial);
	if (written >= expires_at_s)
		return 0;
	serials_put(&reader->r->written, serial, expires_at_s);
	reader->tokens += !written;
	return 1;
}

static int read_line(void *arg, unsigned number, const char *line)
{
	struct reader *reader = arg;
	uint64_t serial, buyer, until;
	unsigned id, sale, second;
	int used = 0, err;

	if (sscanf(line, "token %16" SCNx64 " %16" SCNx64 " %u %u\n%n", &serial, &buyer, &sale, &second, &used) == 4 &&
		used && !line[used])
		return read_token(reader, serial, buyer, sale, second);
	if (sscanf(line, "before %u %u\n%n", &sale, &second, &used) == 2 && used && !line[used]) {
		err = set_before(reader->r, sale, second);
		if (err)
			snprintf(reader->error, reader->error_size, "no memory");
		return err;
	}
	if (sscanf(line, "key %u %" SCNu64 "\n%n", &id, &until, &used) == 2 && used && !line[used] && id < KEY_IDS) {
		reader->r->key_until[id] = until;
		return 0;
	}
	snprintf(reader->error, reader->error_size,
		"line %u of %s is not understood: it says which tokens are revoked. Restore the file, or remove it to revoke none",
		number, reader->path);
	return -EINVAL;
}

static void write_rest(void *arg, FILE *file)
{
	const struct reader *reader = arg;
	const struct revocations *r = reader->r;

	for (size_t i = 0; i < r->before_count; i++)
		if (r->befores[i].second)
			fprintf(file, "before %u %u\n", r->befores[i].sale, r->befores[i].second);
	for (unsigned id = 0; id < KEY_IDS; id++)
		if (r->key_until[id] > reader->now_s)
			fprintf(file, "key %u %" PRIu64 "\n", id, r->key_until[id]);
}

struct revocations *revocation_open(struct daemon *d, char *error, size_t error_size)
{
	struct revocations *r = calloc(1, sizeof(*r));
	char path[PATH_MAX];
	struct reader reader = {.d = d,
		.r = r,
		.path = path,
		.error = error,
		.error_size = error_size,
		.now_s = time_wall_ns() / NS_PER_S};
	const struct line_log_reader lines = {.line = read_line, .rest = write_rest, .arg = &reader};

	if (!r) {
		snprintf(error, error_size, "no memory");
		return NULL;
	}
	pthread_mutex_init(&r->lock, NULL);
	snprintf(path, sizeof(path), "%s/revoked", d->config.daemon.state_dir);
	if (line_log_open(&r->log, path, &lines, error, error_size)) {
		revocation_close(r);
		return NULL;
	}
	if (reader.tokens)
		log_info("%u tokens are revoked", reader.tokens);
	return r;
}

void revocation_close(struct revocations *r)
{
	if (!r)
		return;
	line_log_close(&r->log);
	free(r->written.place);
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

uint32_t revocation_until(const struct sale *sale)
{
	uint64_t end_s = (sale->ends_ns + NS_PER_S - 1) / NS_PER_S;

	return end_s > UINT32_MAX ? UINT32_MAX : (uint32_t)end_s;
}

int revocation_token(struct daemon *d, uint64_t serial, uint64_t buyer, uint32_t sale, uint32_t expires_at_s)
{
	const struct timespec wait = {.tv_nsec = CLAIM_WAIT_NS};
	struct revocations *r = d->revocations;
	int err = -EBUSY;

	pthread_mutex_lock(&r->lock);
	/* A claim is settled within microseconds. */
	for (int i = 0; i < CLAIM_TRIES && err == -EBUSY; i++) {
		err = put_entry(d, serial, buyer, sale, expires_at_s);
		if (err == -EBUSY)
			nanosleep(&wait, NULL);
	}
	if (!err && serials_expiry(&r->written, serial) < expires_at_s) {
		err = append(r, "token %016" PRIx64 " %016" PRIx64 " %u %u\n", serial, buyer, sale, expires_at_s);
		if (!err)
			serials_put(&r->written, serial, expires_at_s);
	}
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

bool revocation_is_over(struct daemon *d, const struct sluice_admission *entry, uint64_t wall_ns)
{
	struct sale sale;

	/* Maintenance asks every few seconds, so this is found long before the entry is over. */
	if (!sales_find_id(d->sales, entry->sale, &sale) && revocation_until(&sale) > entry->expires_at_s) {
		revocation_token(d, entry->serial, entry->buyer, entry->sale, revocation_until(&sale));
		return false;
	}
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
