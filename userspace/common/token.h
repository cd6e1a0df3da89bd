/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Making and reading tokens in userspace; the key file. */
#ifndef SLUICE_COMMON_TOKEN_H
#define SLUICE_COMMON_TOKEN_H

#include <stdbool.h>
#include <stddef.h>

#include "sluice/token.h"

/* Two signing keys (slots as in map "keys") and the keys that never sign tokens: `buyer` hashes the shop's references,
 * `serial` derives serials.
 */
struct token_keys {
	struct sluice_key slot[2];
	unsigned current; /* slot that signs */
	__u64 buyer[2];
	__u64 serial[2];
};

/* Reads the key file, or makes it (0600, fsynced, renamed into place) if absent. Refuses a file that others may read.
 * Returns 0 or negative errno with a sentence in `error`.
 */
int token_keys_load(struct token_keys *keys, const char *path, char *error, size_t error_size);
/* Puts a fresh key into the other slot and makes it current; the former one stays valid. Saves. */
int token_keys_rotate(struct token_keys *keys, const char *path, char *error, size_t error_size);

/* 64-bit keyed hash (SipHash-2-4) of the shop's reference, any length. */
__u64 token_buyer_hash(const struct token_keys *keys, const char *reference, size_t length);
/* The serial of a buyer's nth token for a sale: a keyed hash, so the same question gives the same token after a restart. */
__u64 token_serial(const struct token_keys *keys, __u32 sale, __u64 buyer, unsigned round);
/* Sets version, key id and MAC, and encodes. `text` holds SLUICE_TOKEN_TEXT + 1. */
void token_seal(const struct sluice_key *key, struct sluice_token *token, char *text);
/* Decodes and checks form and MAC. Returns 0, -EINVAL (form), -ENOKEY, -EBADMSG (MAC). */
int token_open(const struct token_keys *keys, const char *text, size_t length, struct sluice_token *token);
void base64url_encode(const __u8 *bytes, size_t count, char *text); /* count must be a multiple of 3; no padding */
__u64 siphash24(const void *bytes, size_t count, __u64 k0, __u64 k1);

#endif
