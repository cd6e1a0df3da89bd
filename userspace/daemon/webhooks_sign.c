/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Secrets and signatures of webhooks; see webhooks_sign.h. Called by webhooks.c. HMAC and base64 are nettle's, which libmicrohttpd brings along
 * anyhow.
 *
 * Promises: a secret is written to its file and nowhere else; what was decoded of it is wiped when it has been copied.
 */
#include "daemon/webhooks_sign.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/base64.h>
#include <nettle/hmac.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "daemon/state.h"

#define PREFIX "whsec_"
#define FRESH_KEY 32
#define BLANKS " \t\r\n"
/* Two secrets of the longest keys, and what may stand around them. */
#define FILE_MAX 512

static int parse_one(const char *text, size_t length, uint8_t *bytes, size_t *key_length)
{
	uint8_t decoded[BASE64_DECODE_LENGTH(FILE_MAX)];
	struct base64_decode_ctx base64;
	size_t count = sizeof(decoded);
	int err = 0;

	if (length <= strlen(PREFIX) || length > FILE_MAX || strncmp(text, PREFIX, strlen(PREFIX)) != 0)
		return -EINVAL;
	base64_decode_init(&base64);
	if (!base64_decode_update(&base64, &count, decoded, length - strlen(PREFIX), text + strlen(PREFIX)) ||
		!base64_decode_final(&base64) || count < WEBHOOK_KEY_MIN || count > WEBHOOK_KEY_MAX)
		err = -EINVAL;
	if (!err) {
		memcpy(bytes, decoded, count);
		*key_length = count;
	}
	explicit_bzero(decoded, sizeof(decoded));
	explicit_bzero(&base64, sizeof(base64));
	return err;
}

int webhook_keys_parse(struct webhook_keys *keys, const char *text)
{
	struct webhook_keys read = {0};
	int err = 0;

	for (text += strspn(text, BLANKS); !err && *text; text += strspn(text, BLANKS)) {
		size_t length = strcspn(text, BLANKS);

		if (read.count == WEBHOOK_SECRETS)
			err = -EINVAL;
		else
			err = parse_one(text, length, read.key[read.count].bytes, &read.key[read.count].length);
		read.count++;
		text += length;
	}
	if (!err && !read.count)
		err = -EINVAL;
	if (!err)
		*keys = read;
	explicit_bzero(&read, sizeof(read));
	return err;
}

void webhook_sign(const struct webhook_keys *keys, const char *id, uint64_t timestamp_s, const char *body,
	size_t length, char signature[WEBHOOK_SIGNATURE_MAX])
{
	char timestamp[32], *to = signature;
	uint8_t digest[SHA256_DIGEST_SIZE];
	struct hmac_sha256_ctx hmac;
	int digits = snprintf(timestamp, sizeof(timestamp), ".%llu.", (unsigned long long)timestamp_s);

	for (unsigned i = 0; i < keys->count; i++) {
		hmac_sha256_set_key(&hmac, keys->key[i].length, keys->key[i].bytes);
		hmac_sha256_update(&hmac, strlen(id), (const uint8_t *)id);
		hmac_sha256_update(&hmac, (size_t)digits, (const uint8_t *)timestamp);
		hmac_sha256_update(&hmac, length, (const uint8_t *)body);
		hmac_sha256_digest(&hmac, sizeof(digest), digest);
		to += sprintf(to, "%sv1,", i ? " " : "");
		base64_encode_raw(to, sizeof(digest), digest);
		to += BASE64_ENCODE_RAW_LENGTH(sizeof(digest));
	}
	*to = '\0';
	explicit_bzero(&hmac, sizeof(hmac));
}

static int make_file(const char *path, char *error, size_t error_size)
{
	char text[sizeof(PREFIX) + BASE64_ENCODE_RAW_LENGTH(FRESH_KEY)] = PREFIX;
	uint8_t key[FRESH_KEY];
	int err;

	if (getrandom(key, sizeof(key), 0) != (ssize_t)sizeof(key)) {
		snprintf(error, error_size, "no random numbers for a webhook secret");
		return -EIO;
	}
	base64_encode_raw(text + strlen(PREFIX), sizeof(key), key);
	text[sizeof(text) - 1] = '\0';
	err = state_write_secret(path, text);
	explicit_bzero(text, sizeof(text));
	explicit_bzero(key, sizeof(key));
	if (err)
		snprintf(error, error_size, "cannot make the webhook secret %s: %s", path, strerror(-err));
	return err;
}

static int read_file(struct webhook_secret *secret, int fd, char *error, size_t error_size)
{
	char text[FILE_MAX + 1];
	ssize_t length;
	int err = 0;

	if (fstat(fd, &secret->seen) || (length = read(fd, text, sizeof(text))) < 0) {
		err = -errno;
		snprintf(error, error_size, "cannot read the webhook secret %s: %s", secret->path, strerror(-err));
	} else if (!S_ISREG(secret->seen.st_mode) || secret->seen.st_mode & 077) {
		err = -EPERM;
		snprintf(error, error_size,
			"the webhook secret %s must be a file that nobody else may read: chmod 600, and change the secret",
			secret->path);
	} else {
		text[(size_t)length < sizeof(text) ? length : 0] = '\0'; /* too long: no secret at all */
		err = webhook_keys_parse(&secret->keys, text);
		if (err)
			snprintf(error, error_size,
				"%s must hold one or two secrets, " PREFIX
				" and base64 of %d to %d bytes; remove it to have a new one made",
				secret->path, WEBHOOK_KEY_MIN, WEBHOOK_KEY_MAX);
	}
	explicit_bzero(text, sizeof(text));
	return err;
}

static int open_file(struct webhook_secret *secret, char *error, size_t error_size)
{
	int fd = open(secret->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), err;

	if (fd < 0) {
		err = -errno;
		if (err != -ENOENT)
			snprintf(error, error_size, "cannot open the webhook secret %s: %s", secret->path,
				strerror(-err));
		return err;
	}
	err = read_file(secret, fd, error, error_size);
	close(fd);
	return err;
}

int webhook_secret_open(struct webhook_secret *secret, const char *path, char *error, size_t error_size)
{
	int err;

	memset(secret, 0, sizeof(*secret));
	if ((size_t)snprintf(secret->path, sizeof(secret->path), "%s", path) >= sizeof(secret->path))
		return -ENAMETOOLONG;
	err = open_file(secret, error, error_size);
	if (err == -ENOENT) {
		err = make_file(path, error, error_size);
		if (!err)
			err = open_file(secret, error, error_size);
	}
	return err;
}

int webhook_secret_refresh(struct webhook_secret *secret, char *error, size_t error_size)
{
	const struct stat *seen = &secret->seen;
	struct stat now;
	int err;

	if (lstat(secret->path, &now))
		memset(&now, 0, sizeof(now));
	if (now.st_ino == seen->st_ino && now.st_size == seen->st_size && now.st_mode == seen->st_mode &&
		now.st_mtim.tv_sec == seen->st_mtim.tv_sec && now.st_mtim.tv_nsec == seen->st_mtim.tv_nsec)
		return 0;
	err = open_file(secret, error, error_size);
	if (err == -ENOENT)
		snprintf(error, error_size, "the webhook secret %s is gone", secret->path);
	if (err)
		secret->seen = now;
	return err ? err : 1;
}
