/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The fleet's secret: every node derives the same keys from it, a file that is not right is refused, and the numbers of keys only grow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fleet/secret.h"

struct place {
	char dir[64];
	char path[96];
	char error[512];
};

static int make_place(void **state)
{
	struct place *place = calloc(1, sizeof(*place));

	if (!place)
		return -1;
	strcpy(place->dir, "/tmp/sluice-test-secret-XXXXXX");
	if (!mkdtemp(place->dir))
		return -1;
	snprintf(place->path, sizeof(place->path), "%s/fleet.secret", place->dir);
	*state = place;
	return 0;
}

static int remove_place(void **state)
{
	struct place *place = *state;

	unlink(place->path);
	rmdir(place->dir);
	free(place);
	return 0;
}

static void write_file(const struct place *place, const char *text, mode_t mode)
{
	int fd;

	unlink(place->path);
	fd = open(place->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	assert_true(fd >= 0);
	assert_int_equal(fchmod(fd, mode), 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

/* 00 01 02 … 1f */
static const char counting[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

static struct fleet_secret counting_secret(void)
{
	struct fleet_secret secret;

	for (unsigned i = 0; i < FLEET_SECRET_BYTES; i++)
		secret.bytes[i] = (uint8_t)i;
	return secret;
}

/* --- derivation ---------------------------------------------------------------------------------------------------------------- */
/* The expected words are Python's: hmac.new(bytes(range(32)), b"sluice signing key 1", "sha256").digest(), and so on. */
static void keys_are_hmac_sha256_of_the_secret_and_their_purpose(void **state)
{
	struct fleet_secret secret = counting_secret();
	struct fleet_key_numbers numbers = {.current = 2, .accepted = 2};
	struct token_keys keys;
	char fingerprint[FLEET_FINGERPRINT_DIGITS + 1];

	(void)state;
	fleet_keys_derive(&secret, &numbers, &keys);
	assert_int_equal(keys.current, 0);
	assert_true(keys.slot[1].valid && keys.slot[1].id == 1);
	assert_true(keys.slot[1].k0 == 0x40deaff7a7cc5851 && keys.slot[1].k1 == 0xa0d86400a5733b63);
	assert_true(keys.slot[0].valid && keys.slot[0].id == 2);
	assert_true(keys.slot[0].k0 == 0xd60027fea6a6e62b && keys.slot[0].k1 == 0xafa924fe2a7a026f);
	assert_true(keys.buyer[0] == 0x7055fe0ed7bd32e1 && keys.buyer[1] == 0xa46e7c5cf2f110ce);
	assert_true(keys.serial[0] == 0x71e34a7851c21d39 && keys.serial[1] == 0x4254b1cd436cbc45);
	fleet_secret_fingerprint(&secret, fingerprint);
	assert_string_equal(fingerprint, "c47d7f4c55cb1b43");
}

static void the_id_of_a_key_wraps_and_the_key_does_not(void **state)
{
	struct fleet_secret secret = counting_secret();
	struct fleet_key_numbers numbers = {.current = 256, .accepted = 257};
	struct token_keys keys;

	(void)state;
	fleet_keys_derive(&secret, &numbers, &keys);
	assert_int_equal(keys.current, 0);
	assert_int_equal(keys.slot[0].id, 0);
	assert_true(keys.slot[0].k0 == 0x1441ab9d72953b2d && keys.slot[0].k1 == 0xef6616d4aebbd82d);
	assert_int_equal(keys.slot[1].id, 1);
	assert_true(keys.slot[1].k0 != 0x40deaff7a7cc5851); /* number 1 had this id, too */
}

static void the_slot_beside_the_current_key_has_the_next_one_or_the_one_before(void **state)
{
	struct fleet_secret secret = counting_secret();
	struct token_keys keys;

	(void)state;
	fleet_keys_derive(&secret, &(struct fleet_key_numbers){.current = 1, .accepted = 1}, &keys);
	assert_true(keys.current == 1 && keys.slot[1].id == 1 && !keys.slot[0].valid);
	fleet_keys_derive(&secret, &(struct fleet_key_numbers){.current = 1, .accepted = 2}, &keys);
	assert_true(keys.current == 1 && keys.slot[1].id == 1 && keys.slot[0].valid && keys.slot[0].id == 2);
	fleet_keys_derive(&secret, &(struct fleet_key_numbers){.current = 2, .accepted = 2}, &keys);
	assert_true(keys.current == 0 && keys.slot[0].id == 2 && keys.slot[1].valid && keys.slot[1].id == 1);
	fleet_keys_derive(&secret, &(struct fleet_key_numbers){.current = 2, .accepted = 3}, &keys);
	assert_true(keys.current == 0 && keys.slot[0].id == 2 && keys.slot[1].valid && keys.slot[1].id == 3);
}

/* --- numbers ------------------------------------------------------------------------------------------------------------------- */
static void a_node_accepts_a_key_before_it_signs_with_it(void **state)
{
	struct fleet_key_numbers numbers = {.current = 1, .accepted = 1};

	(void)state;
	assert_false(fleet_keys_follow(&numbers, 1, 0, 1000));
	assert_true(fleet_keys_follow(&numbers, 1, 2, 1000));
	assert_true(numbers.current == 1 && numbers.accepted == 2 && numbers.over_at_s == 0);
	assert_false(fleet_keys_follow(&numbers, 1, 2, 1000));
	assert_true(fleet_keys_follow(&numbers, 2, 0, 1000));
	assert_true(numbers.current == 2 && numbers.accepted == 2 && numbers.over_at_s == 1000);
}

static void numbers_never_go_back(void **state)
{
	struct fleet_key_numbers numbers = {.current = 5, .accepted = 6, .over_at_s = 900}, before = numbers;

	(void)state;
	assert_false(fleet_keys_follow(&numbers, 4, 5, 1000)); /* a Redis that has forgotten */
	assert_false(fleet_keys_follow(&numbers, 1, 0, 1000));
	assert_false(fleet_keys_follow(&numbers, 5, 0, 1000));
	assert_false(fleet_keys_follow(&numbers, 5, 8, 1000)); /* two ahead: no slot for it */
	assert_memory_equal(&numbers, &before, sizeof(numbers));
}

static void a_node_that_was_away_takes_part_at_once(void **state)
{
	struct fleet_key_numbers numbers = {.current = 2, .accepted = 2, .over_at_s = 5000};

	(void)state;
	assert_true(fleet_keys_follow(&numbers, 4, 5, 1000));
	assert_true(numbers.current == 4 && numbers.accepted == 5);
	assert_true(numbers.over_at_s == 5000); /* the later of the two */
}

static void older_keys_are_over_when_their_last_token_is(void **state)
{
	struct fleet_key_numbers numbers = {.current = 3, .accepted = 3};

	(void)state;
	assert_int_equal(fleet_keys_over(&numbers, 1), 2); /* has never signed with an older one */
	fleet_keys_follow(&numbers, 4, 0, 1000);
	assert_int_equal(fleet_keys_over(&numbers, 999), 0);
	assert_int_equal(fleet_keys_over(&numbers, 1000), 0);
	assert_int_equal(fleet_keys_over(&numbers, 1001), 3);
}

/* A rotation as scripts/keys.lua makes it, over nodes of which some are slow: whatever any of them signs with, all accept. */
static void no_node_signs_with_a_key_that_another_does_not_accept(void **state)
{
	enum { NODES = 3, STEPS = 20000 };
	struct fleet_secret secret = counting_secret();
	struct fleet_key_numbers nodes[NODES];
	struct token_keys keys[NODES];
	uint32_t current = 1, next = 0, accepted[NODES], rotations = 0;
	unsigned seed = (unsigned)getpid();

	(void)state;
	print_message("seed %u\n", seed);
	for (unsigned i = 0; i < NODES; i++) {
		nodes[i] = (struct fleet_key_numbers){.current = 1, .accepted = 1};
		accepted[i] = 1;
	}
	for (unsigned step = 0; step < STEPS; step++) {
		unsigned i = (unsigned)rand_r(&seed) % NODES;
		bool all = true, begun = next;

		/* Node i tells what it does, and hears what the fleet does. */
		accepted[i] = nodes[i].accepted;
		for (unsigned n = 0; n < NODES; n++)
			all &= accepted[n] >= next;
		if (begun && all) {
			current = next;
			next = 0;
			rotations++;
		}
		fleet_keys_follow(&nodes[i], current, next, 0);
		/* The next rotation begins when nobody needs the older keys: here, when all sign with the current one. */
		all = true;
		for (unsigned n = 0; n < NODES; n++)
			all &= nodes[n].current == current;
		if (!next && all && rand_r(&seed) % 8 == 0)
			next = current + 1;
		for (unsigned n = 0; n < NODES; n++)
			fleet_keys_derive(&secret, &nodes[n], &keys[n]);
		for (unsigned from = 0; from < NODES; from++)
			for (unsigned to = 0; to < NODES; to++) {
				const struct sluice_key *used = &keys[from].slot[keys[from].current];

				assert_memory_equal(used, &keys[to].slot[keys[from].current], sizeof(*used));
			}
	}
	assert_true(rotations > 100);
}

/* --- the file ------------------------------------------------------------------------------------------------------------------ */
static void a_secret_is_64_hex_digits(void **state)
{
	struct place *place = *state;
	struct fleet_secret secret, expected = counting_secret();
	char text[96];

	write_file(place, counting, 0600);
	assert_int_equal(fleet_secret_load(&secret, place->path, place->error, sizeof(place->error)), 0);
	assert_memory_equal(&secret, &expected, sizeof(secret));
	snprintf(text, sizeof(text), "%s\n", counting); /* as openssl rand writes it */
	text[21] = 'A';
	write_file(place, text, 0400);
	assert_int_equal(fleet_secret_load(&secret, place->path, place->error, sizeof(place->error)), 0);
	assert_memory_equal(&secret, &expected, sizeof(secret));
}

static void a_file_that_is_no_secret_is_refused_with_what_to_do(void **state)
{
	struct place *place = *state;
	struct fleet_secret secret;
	char texts[][80] = {"", "\n", "0123", "", "", "", ""};

	snprintf(texts[3], sizeof(texts[3]), "%.63s", counting);
	snprintf(texts[4], sizeof(texts[4]), "%s0", counting);
	snprintf(texts[5], sizeof(texts[5]), "%s\n\n", counting);
	snprintf(texts[6], sizeof(texts[6]), "%.63sg", counting);
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		write_file(place, texts[i], 0600);
		assert_int_equal(fleet_secret_load(&secret, place->path, place->error, sizeof(place->error)), -EINVAL);
		assert_non_null(strstr(place->error, "openssl rand -hex 32"));
		assert_null(strstr(place->error, "00010203"));
	}
}

static void a_secret_that_others_may_read_is_refused(void **state)
{
	static const mode_t modes[] = {0640, 0604, 0620, 0666};
	struct place *place = *state;
	struct fleet_secret secret;

	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		write_file(place, counting, modes[i]);
		assert_int_equal(fleet_secret_load(&secret, place->path, place->error, sizeof(place->error)), -EPERM);
		assert_non_null(strstr(place->error, place->path));
	}
}

static void a_secret_that_is_not_there_is_not_made(void **state)
{
	struct place *place = *state;
	struct fleet_secret secret;

	assert_int_equal(fleet_secret_load(&secret, place->path, place->error, sizeof(place->error)), -ENOENT);
	assert_non_null(strstr(place->error, "openssl rand -hex 32"));
	assert_true(access(place->path, F_OK) < 0);
	assert_int_equal(fleet_secret_load(&secret, place->dir, place->error, sizeof(place->error)), -EINVAL);
	assert_int_equal(symlink("/dev/null", place->path), 0);
	assert_int_equal(fleet_secret_load(&secret, place->path, place->error, sizeof(place->error)), -ELOOP);
}

/* Without a word, if it waited for somebody who writes. */
static void a_pipe_is_no_secret(void **state)
{
	struct place *place = *state;
	struct fleet_secret secret;

	assert_int_equal(mkfifo(place->path, 0600), 0);
	alarm(10);
	assert_int_equal(fleet_secret_load(&secret, place->path, place->error, sizeof(place->error)), -EINVAL);
	alarm(0);
	assert_non_null(strstr(place->error, "not a regular file"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_are_hmac_sha256_of_the_secret_and_their_purpose),
		cmocka_unit_test(the_id_of_a_key_wraps_and_the_key_does_not),
		cmocka_unit_test(the_slot_beside_the_current_key_has_the_next_one_or_the_one_before),
		cmocka_unit_test(a_node_accepts_a_key_before_it_signs_with_it),
		cmocka_unit_test(numbers_never_go_back),
		cmocka_unit_test(a_node_that_was_away_takes_part_at_once),
		cmocka_unit_test(older_keys_are_over_when_their_last_token_is),
		cmocka_unit_test(no_node_signs_with_a_key_that_another_does_not_accept),
		cmocka_unit_test_setup_teardown(a_secret_is_64_hex_digits, make_place, remove_place),
		cmocka_unit_test_setup_teardown(
			a_file_that_is_no_secret_is_refused_with_what_to_do, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_secret_that_others_may_read_is_refused, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_secret_that_is_not_there_is_not_made, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_pipe_is_no_secret, make_place, remove_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
