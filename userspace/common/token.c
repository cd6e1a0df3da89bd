/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tokens in userspace: SipHash, base64url, sealing, opening, and the key file. Called by the daemon (issue, rotation, inspection)
 * and by tests and the drill (to make tokens that are forged on purpose).
 *
 * Keys come from getrandom(2) and live in one file of mode 0600 that is replaced as a whole: written under another name,
 * synced, renamed, and the directory synced, so that a crash leaves either the old or the new keys and never none.
 */
#include "common/token.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/file.h"

#define KEY_FILE_MAX 1024 /* bytes; what we write has under 300 */
#define KEY_FILE_TITLE "sluice-keys 1"
#define FIRST_KEY_ID 1

_Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "token fields are little-endian on the wire and used as they are");

/* --- SipHash-2-4, Aumasson and Bernstein 2012, for any length ------------------------------------------------------------ */
__u64 siphash24(const void *bytes, size_t count, __u64 k0, __u64 k1)
{
	__u64 v0 = k0 ^ 0x736f6d6570736575ULL;
	__u64 v1 = k1 ^ 0x646f72616e646f6dULL;
	__u64 v2 = k0 ^ 0x6c7967656e657261ULL;
	__u64 v3 = k1 ^ 0x7465646279746573ULL;
	__u64 last = (__u64)count << 56;
	const __u8 *in = bytes;
	__u64 word;

	for (; count >= sizeof(word); in += sizeof(word), count -= sizeof(word)) {
		memcpy(&word, in, sizeof(word));
		v3 ^= word;
		SLUICE_SIPROUND(v0, v1, v2, v3);
		SLUICE_SIPROUND(v0, v1, v2, v3);
		v0 ^= word;
	}
	for (size_t i = 0; i < count; i++)
		last |= (__u64)in[i] << (8 * i);
	v3 ^= last;
	SLUICE_SIPROUND(v0, v1, v2, v3);
	SLUICE_SIPROUND(v0, v1, v2, v3);
	v0 ^= last;
	v2 ^= 0xff;
	for (int i = 0; i < 4; i++)
		SLUICE_SIPROUND(v0, v1, v2, v3);
	return v0 ^ v1 ^ v2 ^ v3;
}

void base64url_encode(const __u8 *bytes, size_t count, char *text)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

	for (size_t i = 0; i + 2 < count; i += 3, text += 4) {
		__u32 group = (__u32)bytes[i] << 16 | (__u32)bytes[i + 1] << 8 | bytes[i + 2];

		text[0] = alphabet[group >> 18];
		text[1] = alphabet[group >> 12 & 63];
		text[2] = alphabet[group >> 6 & 63];
		text[3] = alphabet[group & 63];
	}
	*text = '\0';
}

/* --- tokens ---------------------------------------------------------------------------------------------------------------- */
__u64 token_buyer_hash(const struct token_keys *keys, const char *reference, size_t length)
{
	return siphash24(reference, length, keys->buyer[0], keys->buyer[1]);
}

__u64 token_serial(const struct token_keys *keys, __u32 sale, __u64 buyer, unsigned round)
{
	const __u64 words[2] = {buyer, (__u64)round << 32 | sale};
	__u64 serial = sluice_siphash_words(words, 2, keys->serial[0], keys->serial[1]);

	return serial ? serial : 1; /* 0 means "no serial" in struct sluice_call */
}

void token_seal(const struct sluice_key *key, struct sluice_token *token, char *text)
{
	token->version = SLUICE_TOKEN_VERSION;
	token->key_id = (__u8)key->id;
	token->mac = sluice_token_mac(token, key->k0, key->k1);
	base64url_encode((const __u8 *)token, sizeof(*token), text);
}

int token_open(const struct token_keys *keys, const char *text, size_t length, struct sluice_token *token)
{
	const struct sluice_key *key;

	if (length != SLUICE_TOKEN_TEXT || sluice_token_decode(text, token) < 0 ||
		token->version != SLUICE_TOKEN_VERSION)
		return -EINVAL;
	key = &keys->slot[token->key_id & 1];
	if (!key->valid || key->id != token->key_id)
		return -ENOKEY;
	return sluice_token_mac(token, key->k0, key->k1) == token->mac ? 0 : -EBADMSG;
}

/* --- the key file ------------------------------------------------------------------------------------------------------------ */
static __attribute__((format(printf, 4, 5))) int fail(int err, char *error, size_t error_size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error, error_size, format, args);
	va_end(args);
	return err;
}

static int random_words(__u64 *words, size_t count)
{
	size_t wanted = count * sizeof(*words);

	/* Reads of up to 256 bytes are never interrupted or short once the pool is ready. */
	for (;;) {
		ssize_t got = getrandom(words, wanted, 0);

		if (got == (ssize_t)wanted)
			return 0;
		if (got < 0 && errno != EINTR)
			return -errno;
	}
}

static int fresh_key(struct sluice_key *key, __u32 id)
{
	__u64 words[2];
	int err = random_words(words, 2);

	if (err)
		return err;
	*key = (struct sluice_key){.k0 = words[0], .k1 = words[1], .id = id, .valid = 1};
	return 0;
}

static int keys_save(const struct token_keys *keys, const char *path, char *error, size_t error_size)
{
	char text[KEY_FILE_MAX];
	int n, err;

	n = snprintf(text, sizeof(text), KEY_FILE_TITLE "\ncurrent %u\n", keys->current);
	for (unsigned i = 0; i < 2; i++)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "slot %u %u %u %016" PRIx64 " %016" PRIx64 "\n", i,
			keys->slot[i].id, keys->slot[i].valid, (uint64_t)keys->slot[i].k0, (uint64_t)keys->slot[i].k1);
	n += snprintf(text + n, sizeof(text) - (size_t)n,
		"buyer %016" PRIx64 " %016" PRIx64 "\nserial %016" PRIx64 " %016" PRIx64 "\nend\n",
		(uint64_t)keys->buyer[0], (uint64_t)keys->buyer[1], (uint64_t)keys->serial[0],
		(uint64_t)keys->serial[1]);

	err = file_replace(path, text, (size_t)n);
	explicit_bzero(text, sizeof(text));
	if (!err)
		return 0;
	if (err > 0) /* keys that a crash may take back must not sign */
		err = -EIO;
	return fail(err, error, error_size, "cannot write the key file %s: %s", path, strerror(-err));
}

static bool keys_scan(const char *text, struct token_keys *keys)
{
	unsigned slot[2];
	int end = -1;

	/* clang-format off */
	if (sscanf(text,
		KEY_FILE_TITLE " current %u"
		" slot %u %u %u %llx %llx"
		" slot %u %u %u %llx %llx"
		" buyer %llx %llx serial %llx %llx end %n",
		&keys->current,
		&slot[0], &keys->slot[0].id, &keys->slot[0].valid, &keys->slot[0].k0, &keys->slot[0].k1,
		&slot[1], &keys->slot[1].id, &keys->slot[1].valid, &keys->slot[1].k0, &keys->slot[1].k1,
		&keys->buyer[0], &keys->buyer[1], &keys->serial[0], &keys->serial[1], &end) != 15)
		return false;
	/* clang-format on */
	if (end < 0 || text[end] != '\0' || keys->current > 1 || !keys->slot[keys->current].valid)
		return false;
	for (unsigned i = 0; i < 2; i++) {
		const struct sluice_key *key = &keys->slot[i];

		if (slot[i] != i || key->valid > 1 || key->id > UINT8_MAX || (key->valid && (key->id & 1) != i))
			return false;
	}
	return true;
}

/* Returns 0, or negative errno with a sentence; -ENOENT without one. */
static int keys_read(struct token_keys *keys, const char *path, char *error, size_t error_size)
{
	char text[KEY_FILE_MAX];
	ssize_t n = file_read_secret(
		path, "the key file", "chmod 0600 it, and rotate the keys", text, sizeof(text) - 1, error, error_size);
	bool ok;

	if (n < 0)
		return (int)n;
	text[n] = '\0';
	ok = (size_t)n == strlen(text) && keys_scan(text, keys);
	explicit_bzero(text, sizeof(text));
	if (!ok)
		return fail(-EINVAL, error, error_size,
			"the key file %s is damaged: restore it, or remove it to make new keys (all tokens become "
			"invalid)",
			path);
	return 0;
}

int token_keys_load(struct token_keys *keys, const char *path, char *error, size_t error_size)
{
	int err;

	memset(keys, 0, sizeof(*keys));
	err = keys_read(keys, path, error, error_size);
	if (err != -ENOENT)
		return err;
	keys->current = FIRST_KEY_ID & 1;
	err = fresh_key(&keys->slot[keys->current], FIRST_KEY_ID);
	if (!err)
		err = random_words(keys->buyer, 2);
	if (!err)
		err = random_words(keys->serial, 2);
	if (err)
		return fail(err, error, error_size, "no random numbers for keys: %s", strerror(-err));
	return keys_save(keys, path, error, error_size);
}

int token_keys_rotate(struct token_keys *keys, const char *path, char *error, size_t error_size)
{
	struct token_keys next = *keys;
	__u32 id = (keys->slot[keys->current].id + 1) &
		UINT8_MAX; /* ids alternate in parity, so the other slot is theirs */
	int err;

	next.current = id & 1;
	err = fresh_key(&next.slot[next.current], id);
	if (err)
		return fail(err, error, error_size, "no random numbers for a new key: %s", strerror(-err));
	err = keys_save(&next, path, error, error_size);
	if (!err)
		*keys = next;
	explicit_bzero(&next, sizeof(next));
	return err;
}
