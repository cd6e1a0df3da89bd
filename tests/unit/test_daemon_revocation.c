/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tokens that are taken back while the disk fails, on a real BPF map (needs root) and a state directory of their own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/revocation.h"

#define ADMISSIONS 4096
#define MANY 1000
#define SALE 7
#define BUYER 0xb0b
#define FIRST_SERIAL 0x5e71a100000001ULL

static bool disk_is_full;

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
	if (!disk_is_full)
		return syscall(SYS_pwrite64, fd, bytes, count, offset);
	errno = ENOSPC;
	return -1;
}

struct place {
	struct daemon daemon;
	char dir[64], file[96];
	uint32_t expires_at_s;
};

static int make_admissions(struct place *place)
{
	place->daemon.maps.admissions = bpf_map_create(BPF_MAP_TYPE_HASH, "test_admissions", sizeof(uint64_t),
		sizeof(struct sluice_admission), ADMISSIONS, NULL);
	return place->daemon.maps.admissions;
}

static int make_place(void **state)
{
	struct place *place = calloc(1, sizeof(*place));

	*state = place;
	if (!place)
		return -1;
	disk_is_full = false;
	log_init("test", LOG_ERROR_LEVEL);
	snprintf(place->dir, sizeof(place->dir), "/tmp/sluice-revoked-%ld-XXXXXX", (long)getpid());
	if (!mkdtemp(place->dir))
		return -1;
	snprintf(place->file, sizeof(place->file), "%s/revoked", place->dir);
	snprintf(
		place->daemon.config.daemon.state_dir, sizeof(place->daemon.config.daemon.state_dir), "%s", place->dir);
	place->expires_at_s = (uint32_t)(time_wall_ns() / 1000000000ULL) + 3600;
	make_admissions(place); /* without privilege need_place skips the test */
	return 0;
}

static int remove_place(void **state)
{
	struct place *place = *state;

	revocation_close(place->daemon.revocations);
	if (place->daemon.maps.admissions >= 0)
		close(place->daemon.maps.admissions);
	unlink(place->file);
	rmdir(place->dir);
	free(place);
	return 0;
}

static void start(struct place *place)
{
	char error[256] = "";

	revocation_close(place->daemon.revocations);
	place->daemon.revocations = revocation_open(&place->daemon, error, sizeof(error));
	assert_string_equal(error, "");
	assert_non_null(place->daemon.revocations);
}

static struct place *need_place(void **state)
{
	struct place *place = *state;

	if (place->daemon.maps.admissions < 0) {
		print_message("needs root to create BPF maps\n");
		skip();
	}
	start(place);
	return place;
}

/* Nothing of the gate is left, and the daemon starts. */
static void reboot(struct place *place)
{
	close(place->daemon.maps.admissions);
	assert_true(make_admissions(place) >= 0);
	start(place);
}

static int take_back(struct place *place, uint64_t serial)
{
	return revocation_token(&place->daemon, serial, BUYER, SALE, place->expires_at_s);
}

static unsigned lines(const struct place *place)
{
	FILE *file = fopen(place->file, "r");
	unsigned count = 0;

	assert_non_null(file);
	for (int c; (c = fgetc(file)) != EOF;)
		count += c == '\n';
	fclose(file);
	return count;
}

static void a_revocation_that_could_not_be_written_is_written_when_it_is_repeated(void **state)
{
	struct place *place = need_place(state);

	disk_is_full = true;
	assert_int_equal(take_back(place, FIRST_SERIAL), -EIO);
	assert_true(revocation_has(&place->daemon, FIRST_SERIAL));
	assert_int_equal(take_back(place, FIRST_SERIAL), -EIO);
	disk_is_full = false;
	assert_int_equal(take_back(place, FIRST_SERIAL), 0);
	assert_int_equal(lines(place), 1);
	reboot(place);
	assert_true(revocation_has(&place->daemon, FIRST_SERIAL));
}

/* The gate has it, the file has not, and the daemon that knew is gone. */
static void it_is_also_written_by_the_daemon_of_after(void **state)
{
	struct place *place = need_place(state);

	disk_is_full = true;
	assert_int_equal(take_back(place, FIRST_SERIAL), -EIO);
	disk_is_full = false;
	start(place);
	assert_int_equal(take_back(place, FIRST_SERIAL), 0);
	reboot(place);
	assert_true(revocation_has(&place->daemon, FIRST_SERIAL));
}

static void what_is_in_the_file_is_not_written_again(void **state)
{
	struct place *place = need_place(state);

	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < MANY; i++)
			assert_int_equal(take_back(place, FIRST_SERIAL + i), 0);
		assert_int_equal(lines(place), MANY);
		reboot(place);
		assert_int_equal(lines(place), MANY);
	}
}

static uint32_t expiry_in_gate(const struct place *place)
{
	struct sluice_admission entry;
	uint64_t serial = FIRST_SERIAL;

	assert_int_equal(bpf_map_lookup_elem(place->daemon.maps.admissions, &serial, &entry), 0);
	return entry.expires_at_s;
}

static void a_token_of_the_same_serial_that_lives_longer_is_revoked_for_as_long(void **state)
{
	struct place *place = need_place(state);
	uint32_t first = place->expires_at_s, last = first + 600;
	uint64_t serial = FIRST_SERIAL;

	assert_int_equal(take_back(place, FIRST_SERIAL), 0);
	place->expires_at_s = last;
	disk_is_full = true;
	assert_int_equal(take_back(place, FIRST_SERIAL), -EIO);
	disk_is_full = false;
	assert_int_equal(take_back(place, FIRST_SERIAL), 0);
	assert_int_equal(expiry_in_gate(place), last);
	place->expires_at_s = first;
	assert_int_equal(take_back(place, FIRST_SERIAL), 0);
	assert_int_equal(expiry_in_gate(place), last);
	/* Also where the gate has it already, and the file is read twice. */
	start(place);
	start(place);
	reboot(place);
	assert_int_equal(expiry_in_gate(place), last);
	assert_int_equal(lines(place), 2);
	/* What was swept out is put in, and written, anew. */
	assert_int_equal(bpf_map_delete_elem(place->daemon.maps.admissions, &serial), 0);
	place->expires_at_s = last + 600;
	assert_int_equal(take_back(place, FIRST_SERIAL), 0);
	reboot(place);
	assert_int_equal(expiry_in_gate(place), last + 600);
}

static void what_is_over_is_left_out_of_the_file(void **state)
{
	struct place *place = need_place(state);

	assert_int_equal(take_back(place, FIRST_SERIAL), 0);
	place->expires_at_s -= 3 * 3600;
	assert_int_equal(take_back(place, FIRST_SERIAL + 1), 0);
	reboot(place);
	assert_int_equal(lines(place), 1);
	assert_true(revocation_has(&place->daemon, FIRST_SERIAL));
	assert_false(revocation_has(&place->daemon, FIRST_SERIAL + 1));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_place, remove_place)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_revocation_that_could_not_be_written_is_written_when_it_is_repeated),
		TEST(it_is_also_written_by_the_daemon_of_after),
		TEST(what_is_in_the_file_is_not_written_again),
		TEST(a_token_of_the_same_serial_that_lives_longer_is_revoked_for_as_long),
		TEST(what_is_over_is_left_out_of_the_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
