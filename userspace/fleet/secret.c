/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The fleet's secret and what is derived from it: HMAC-SHA256 (RFC 2104) of a text that names the purpose, cut to what is needed. A key that became
 * known tells nothing of the secret or of another key. See secret.h; called by daemon/fleet_keys.c.
 */
#include "fleet/secret.h"

#include <errno.h>
#include <nettle/hmac.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/file.h"

#define SECRET_DIGITS (2 * FLEET_SECRET_BYTES)
#define HOW_TO "it is made once, with: openssl rand -hex 32, and copied to every node of the fleet with mode 0600"
#define LABEL_MAX 64
#define SLOTS 2

static __attribute__((format(printf, 4, 5))) int fail(int err, char *error, size_t error_size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error, error_size, format, args);
	va_end(args);
	return err;
}

/* --- the file ------------------------------------------------------------------------------------------------------------------ */
static int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool read_digits(struct fleet_secret *secret, const char *text, size_t length)
{
	if (length && text[length - 1] == '\n')
		length--;
	if (length != SECRET_DIGITS)
		return false;
	for (size_t i = 0; i < FLEET_SECRET_BYTES; i++) {
		int high = digit_of(text[2 * i]), low = digit_of(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		secret->bytes[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

int fleet_secret_load(struct fleet_secret *secret, const char *path, char *error, size_t error_size)
{
	char text[SECRET_DIGITS + 2]; /* one more than a newline, to see that there is more */
	ssize_t n = file_read_secret(path, "the fleet's secret", "make another, or chmod 0600 it if nobody has", text,
		sizeof(text), error, error_size);
	bool ok;

	if (n == -ENOENT)
		return fail(-ENOENT, error, error_size, "there is no secret of the fleet at %s: " HOW_TO, path);
	if (n < 0)
		return (int)n;
	ok = read_digits(secret, text, (size_t)n);
	explicit_bzero(text, sizeof(text));
	if (!ok)
		return fail(-EINVAL, error, error_size, "the fleet's secret %s must be %d hex digits; " HOW_TO, path,
			SECRET_DIGITS);
	return 0;
}

/* --- derivation ---------------------------------------------------------------------------------------------------------------- */
/* The first two words of HMAC-SHA256(secret, label), little-endian. */
static void derive(const struct fleet_secret *secret, const char *label, __u64 words[2])
{
	uint8_t digest[SHA256_DIGEST_SIZE];
	struct hmac_sha256_ctx context;

	hmac_sha256_set_key(&context, sizeof(secret->bytes), secret->bytes);
	hmac_sha256_update(&context, strlen(label), (const uint8_t *)label);
	hmac_sha256_digest(&context, sizeof(digest), digest);
	memcpy(words, digest, 2 * sizeof(words[0]));
	explicit_bzero(digest, sizeof(digest));
	explicit_bzero(&context, sizeof(context));
}

static void derive_signing(const struct fleet_secret *secret, uint32_t number, struct sluice_key *key)
{
	char label[LABEL_MAX];
	__u64 words[2];

	snprintf(label, sizeof(label), "sluice signing key %u", number);
	derive(secret, label, words);
	*key = (struct sluice_key){.k0 = words[0], .k1 = words[1], .id = number & UINT8_MAX, .valid = 1};
	explicit_bzero(words, sizeof(words));
}

void fleet_secret_fingerprint(const struct fleet_secret *secret, char *text)
{
	__u64 words[2];

	derive(secret, "sluice fingerprint", words);
	snprintf(text, FLEET_FINGERPRINT_DIGITS + 1, "%016llx", words[0]);
}

void fleet_keys_derive(
	const struct fleet_secret *secret, const struct fleet_key_numbers *numbers, struct token_keys *keys)
{
	uint32_t current = numbers->current, other = numbers->accepted > current ? numbers->accepted : current - 1;

	memset(keys, 0, sizeof(*keys));
	keys->current = current % SLOTS;
	derive_signing(secret, current, &keys->slot[current % SLOTS]);
	if (other)
		derive_signing(secret, other, &keys->slot[other % SLOTS]);
	derive(secret, "sluice buyer key", keys->buyer);
	derive(secret, "sluice serial key", keys->serial);
}

/* --- numbers ------------------------------------------------------------------------------------------------------------------- */
bool fleet_keys_follow(struct fleet_key_numbers *numbers, uint32_t current, uint32_t next, uint64_t latest_s)
{
	bool changed = false;

	if (current > numbers->current) {
		if (latest_s > numbers->over_at_s)
			numbers->over_at_s = latest_s;
		numbers->current = current;
		if (numbers->accepted < current)
			numbers->accepted = current;
		changed = true;
	}
	if (next == numbers->current + 1 && numbers->accepted < next) {
		numbers->accepted = next;
		changed = true;
	}
	return changed;
}

uint32_t fleet_keys_over(const struct fleet_key_numbers *numbers, uint64_t now_s)
{
	return now_s > numbers->over_at_s ? numbers->current - 1 : 0;
}
