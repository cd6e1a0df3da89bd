/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Signatures of webhooks: those of the Standard Webhooks test vector, with one secret and with two, and no secret from a file that is not
 * a secret's.
 */
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

#include "daemon/webhooks_sign.h"

/* The vector that the libraries of Standard Webhooks are tested with. */
#define SECRET "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
#define ID "msg_p5jXN8AQM9LWM0D4loKWxJek"
#define TIMESTAMP 1614265330
#define BODY "{\"test\": 2432232314}"
#define SIGNATURE "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
/* Another secret, and what it gives for the same message, by Python's hmac. */
#define OTHER "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define OTHER_SIGNATURE "v1,O4Gjv1HqPqsMrjmczoggs/sWA8gZD0VyHG+fLh4+ktI="

static char dir[64], path[96];

static void write_file(const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static void the_vector_of_the_standard_is_met(void **state)
{
	char signature[WEBHOOK_SIGNATURE_MAX];
	struct webhook_keys keys;

	(void)state;
	assert_int_equal(webhook_keys_parse(&keys, SECRET), 0);
	assert_int_equal(keys.key[0].length, 24);
	webhook_sign(&keys, ID, TIMESTAMP, BODY, strlen(BODY), signature);
	assert_string_equal(signature, SIGNATURE);
}

static void two_secrets_give_two_signatures_with_a_blank_between(void **state)
{
	char signature[WEBHOOK_SIGNATURE_MAX];
	struct webhook_keys keys;

	(void)state;
	assert_int_equal(webhook_keys_parse(&keys, OTHER "  " SECRET "\n"), 0);
	assert_int_equal(keys.count, 2);
	webhook_sign(&keys, ID, TIMESTAMP, BODY, strlen(BODY), signature);
	assert_string_equal(signature, OTHER_SIGNATURE " " SIGNATURE);
}

static void every_part_of_the_message_is_signed(void **state)
{
	char signature[WEBHOOK_SIGNATURE_MAX];
	struct webhook_keys keys;

	(void)state;
	assert_int_equal(webhook_keys_parse(&keys, SECRET), 0);
	webhook_sign(&keys, ID "x", TIMESTAMP, BODY, strlen(BODY), signature);
	assert_string_not_equal(signature, SIGNATURE);
	webhook_sign(&keys, ID, TIMESTAMP + 1, BODY, strlen(BODY), signature);
	assert_string_not_equal(signature, SIGNATURE);
	webhook_sign(&keys, ID, TIMESTAMP, BODY, strlen(BODY) - 1, signature);
	assert_string_not_equal(signature, SIGNATURE);
}

static void what_is_no_secret_is_refused_and_changes_nothing(void **state)
{
	static const char *const bad[] = {"", " \n", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa==", /* 22 bytes */
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa!w", SECRET " x",
		SECRET " " OTHER " " SECRET};
	struct webhook_keys keys = {.count = 7};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(webhook_keys_parse(&keys, bad[i]), -EINVAL);
		assert_int_equal(keys.count, 7);
	}
}

static void keys_of_24_to_64_bytes_are_taken(void **state)
{
	char text[256] = "whsec_";
	struct webhook_keys keys;

	(void)state;
	for (size_t bytes = 3; bytes <= 96; bytes += 3) {
		strcat(text, "QUJD"); /* three bytes */
		assert_int_equal(webhook_keys_parse(&keys, text), bytes >= 24 && bytes <= 64 ? 0 : -EINVAL);
	}
}

static void an_absent_file_is_made_for_its_owner_alone_and_read_the_same_again(void **state)
{
	struct webhook_secret first, second;
	struct stat info;
	char error[512];

	(void)state;
	unlink(path);
	assert_int_equal(webhook_secret_open(&first, path, error, sizeof(error)), 0);
	assert_int_equal(stat(path, &info), 0);
	assert_int_equal(info.st_mode & 07777, 0600);
	assert_int_equal(first.keys.count, 1);
	assert_int_equal(first.keys.key[0].length, 32);
	assert_int_equal(webhook_secret_open(&second, path, error, sizeof(error)), 0);
	assert_memory_equal(&first.keys, &second.keys, sizeof(first.keys));
	unlink(path);
	assert_int_equal(webhook_secret_open(&second, path, error, sizeof(error)), 0);
	assert_memory_not_equal(&first.keys, &second.keys, sizeof(first.keys)); /* random */
}

static void a_file_that_others_may_read_is_refused(void **state)
{
	struct webhook_secret secret;
	char error[512];

	(void)state;
	write_file(SECRET "\n", 0640);
	assert_int_equal(webhook_secret_open(&secret, path, error, sizeof(error)), -EPERM);
	assert_non_null(strstr(error, path));
	assert_null(strstr(error, "MfKQ"));
}

static void a_file_that_is_none_is_refused_without_being_quoted(void **state)
{
	struct webhook_secret secret;
	char error[512], long_text[1024];

	(void)state;
	write_file("hunter2-hunter2-hunter2-hunter2\n", 0600);
	assert_int_equal(webhook_secret_open(&secret, path, error, sizeof(error)), -EINVAL);
	assert_null(strstr(error, "hunter2"));
	memset(long_text, ' ', sizeof(long_text));
	memcpy(long_text, SECRET, strlen(SECRET));
	long_text[sizeof(long_text) - 1] = '\0';
	write_file(long_text, 0600);
	assert_int_equal(webhook_secret_open(&secret, path, error, sizeof(error)), -EINVAL);
}

static void a_change_of_the_file_is_seen_once(void **state)
{
	struct webhook_secret secret;
	char error[512] = "", changed[] = OTHER " " SECRET;

	(void)state;
	write_file(SECRET "\n", 0600);
	assert_int_equal(webhook_secret_open(&secret, path, error, sizeof(error)), 0);
	assert_int_equal(webhook_secret_refresh(&secret, error, sizeof(error)), 0);
	write_file(changed, 0600);
	assert_int_equal(webhook_secret_refresh(&secret, error, sizeof(error)), 1);
	assert_int_equal(secret.keys.count, 2);
	assert_int_equal(webhook_secret_refresh(&secret, error, sizeof(error)), 0);
}

static void a_change_for_the_worse_leaves_the_keys_and_is_told_once(void **state)
{
	struct webhook_secret secret;
	char error[512] = "";

	(void)state;
	write_file(SECRET "\n", 0600);
	assert_int_equal(webhook_secret_open(&secret, path, error, sizeof(error)), 0);
	write_file("nonsense", 0600);
	assert_int_equal(webhook_secret_refresh(&secret, error, sizeof(error)), -EINVAL);
	assert_int_equal(secret.keys.count, 1);
	assert_int_equal(webhook_secret_refresh(&secret, error, sizeof(error)), 0);
	unlink(path);
	assert_int_equal(webhook_secret_refresh(&secret, error, sizeof(error)), -ENOENT);
	assert_non_null(strstr(error, "is gone"));
	assert_int_equal(webhook_secret_refresh(&secret, error, sizeof(error)), 0);
	write_file(OTHER "\n", 0600);
	assert_int_equal(webhook_secret_refresh(&secret, error, sizeof(error)), 1);
}

static int make_dir(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/sluice-test-webhooks-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/webhook.secret", dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_vector_of_the_standard_is_met),
		cmocka_unit_test(two_secrets_give_two_signatures_with_a_blank_between),
		cmocka_unit_test(every_part_of_the_message_is_signed),
		cmocka_unit_test(what_is_no_secret_is_refused_and_changes_nothing),
		cmocka_unit_test(keys_of_24_to_64_bytes_are_taken),
		cmocka_unit_test(an_absent_file_is_made_for_its_owner_alone_and_read_the_same_again),
		cmocka_unit_test(a_file_that_others_may_read_is_refused),
		cmocka_unit_test(a_file_that_is_none_is_refused_without_being_quoted),
		cmocka_unit_test(a_change_of_the_file_is_seen_once),
		cmocka_unit_test(a_change_for_the_worse_leaves_the_keys_and_is_told_once),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
