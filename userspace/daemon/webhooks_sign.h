/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Signatures of webhooks, as Standard Webhooks has them (https://www.standardwebhooks.com, "Signature scheme", symmetric), and the file that
 * the secrets stand in.
 */
#ifndef SLUICE_DAEMON_WEBHOOKS_SIGN_H
#define SLUICE_DAEMON_WEBHOOKS_SIGN_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define WEBHOOK_SECRETS 2 /* the one in use and, during a rotation, the one before or after it */
#define WEBHOOK_KEY_MIN 24
#define WEBHOOK_KEY_MAX 64
/* "v1,", 44 characters of base64 and a blank or the NUL, for each secret */
#define WEBHOOK_SIGNATURE_MAX (WEBHOOK_SECRETS * 48)

struct webhook_keys {
	unsigned count; /* 1..WEBHOOK_SECRETS */
	struct {
		size_t length; /* WEBHOOK_KEY_MIN..WEBHOOK_KEY_MAX */
		uint8_t bytes[WEBHOOK_KEY_MAX];
	} key[WEBHOOK_SECRETS];
};

/* Reads "whsec_BASE64", or two of them with a blank between. Returns 0, or -EINVAL and leaves *keys as it was. */
int webhook_keys_parse(struct webhook_keys *keys, const char *text);

/* The value of the header webhook-signature: HMAC-SHA-256 of "ID.TIMESTAMP.BODY" with each key, base64, in the order of the file. */
void webhook_sign(const struct webhook_keys *keys, const char *id, uint64_t timestamp_s, const char *body,
	size_t length, char signature[WEBHOOK_SIGNATURE_MAX]);

/* The file, and what it held when it was read last. */
struct webhook_secret {
	char path[PATH_MAX];
	struct webhook_keys keys;
	struct stat seen;
};

/* Reads the file, or makes it (0600) with one random secret. Refuses one that others may read. Returns 0 or negative errno with a sentence
 * that never holds a secret.
 */
int webhook_secret_open(struct webhook_secret *secret, const char *path, char *error, size_t error_size);
/* Reads it again if it has changed, so that secrets rotate without a restart. Returns 1 if it has, 0 if not, or negative errno with a sentence: then the keys
 * are as before, and the file is not read again until it changes once more.
 */
int webhook_secret_refresh(struct webhook_secret *secret, char *error, size_t error_size);

#endif
