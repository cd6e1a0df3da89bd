/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Fuzz target: the token, as text and as bytes: include/sluice/token.h, userspace/common/token.c, and the judge through the call door.
 *
 * The input is one byte (what is done) and the rest. Claims: both sides decode alike, and like a table made from the RFC; text and
 * bytes are one to one; both SipHashes agree; a token opens if and only if its MAC was made with a key that is in use; the judge and
 * token_open() think the same of it; the key file is taken whole or not at all.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "check.h"
#include "common/token.h"
#include "scratch.h"
#include "world.h"

static const char alphabet[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"; /* RFC 4648 section 5 */
static struct token_keys signing;
static char key_path[SCRATCH_MAX + 8];

static bool reference_decode(const uint8_t *text, uint8_t *out)
{
	uint64_t bits = 0;

	for (unsigned i = 0; i < SLUICE_TOKEN_TEXT; i++) {
		const char *at = memchr(alphabet, text[i], 64);

		if (!at)
			return false;
		bits = bits << 6 | (uint64_t)(at - alphabet);
		if (i % 4 == 3)
			for (unsigned k = 0; k < 3; k++)
				out[i / 4 * 3 + k] = (uint8_t)(bits >> (16 - 8 * k));
	}
	return true;
}

/* The call door on this text, and what it must say of it. */
static void ask_judge(const uint8_t *text, int opened, const struct sluice_token *token)
{
	struct sluice_call call = {.op = SLUICE_CALL_ORDER, .source = {0, 0xffffc000020aULL}};

	memcpy(call.token, text, SLUICE_TOKEN_TEXT);
	world_call(&call);
	switch (opened) {
	case -EINVAL:
		CHECK(call.reason == SLUICE_REASON_TOKEN_FORM, "reason %u for what is no token", call.reason);
		break;
	case -ENOKEY:
		CHECK(call.reason == (token->flags ? SLUICE_REASON_TOKEN_FORM : SLUICE_REASON_TOKEN_KEY), "reason %u",
			call.reason);
		break;
	case -EBADMSG:
		CHECK(call.reason == (token->flags ? SLUICE_REASON_TOKEN_FORM : SLUICE_REASON_TOKEN_MAC), "reason %u",
			call.reason);
		break;
	default:
		CHECK(call.reason != SLUICE_REASON_TOKEN_KEY && call.reason != SLUICE_REASON_TOKEN_MAC, "reason %u",
			call.reason);
		CHECK(token->flags || call.serial == token->serial, "another serial");
	}
	CHECK(opened == 0 || !call.serial, "a serial of a token that is not good");
}

static void try_text(const uint8_t *text)
{
	uint8_t wanted[SLUICE_TOKEN_BYTES];
	char again[SLUICE_TOKEN_TEXT + 1];
	struct sluice_token token, opened;
	bool good = reference_decode(text, wanted);
	int err;

	CHECK((sluice_token_decode((const char *)text, &token) == 0) == good, "decoding");
	err = token_open(&signing, (const char *)text, SLUICE_TOKEN_TEXT, &opened);
	CHECK(good || err == -EINVAL, "error %d", err);
	if (good) {
		CHECK(!memcmp(&token, wanted, sizeof(token)), "other bytes");
		base64url_encode(wanted, sizeof(wanted), again);
		CHECK(!memcmp(again, text, SLUICE_TOKEN_TEXT) && !again[SLUICE_TOKEN_TEXT], "another text");
		CHECK(err != -EINVAL || token.version != SLUICE_TOKEN_VERSION, "form");
	}
	if (!err)
		world_know(&token);
	ask_judge(text, err, &token);
}

/* A token of these fields is good; with one bit changed it is not. */
static void try_sealed(struct input *input)
{
	char text[SLUICE_TOKEN_TEXT + 1];
	struct sluice_token token, opened;
	uint16_t bit;

	input_copy(input, &token, sizeof(token));
	token.key_id = 1;
	world_seal(&token, text);
	CHECK(strlen(text) == SLUICE_TOKEN_TEXT, "length %zu", strlen(text));
	CHECK(!token_open(&signing, text, SLUICE_TOKEN_TEXT, &opened), "a good token");
	CHECK(!memcmp(&token, &opened, sizeof(token)), "another token");
	CHECK(token_open(&signing, text, SLUICE_TOKEN_TEXT - 1, &opened) == -EINVAL, "a short token");
	try_text((const uint8_t *)text);

	bit = input_u16(input) % (8 * sizeof(token));
	((uint8_t *)&token)[bit / 8] ^= (uint8_t)(1u << bit % 8);
	base64url_encode((const uint8_t *)&token, sizeof(token), text);
	CHECK(token_open(&signing, text, SLUICE_TOKEN_TEXT, &opened) != 0, "a token with bit %u changed opens", bit);
	try_text((const uint8_t *)text);
}

static void try_siphash(struct input *input)
{
	uint64_t words[31], k0, k1;
	unsigned count = input_u8(input) % 31;

	input_copy(input, &k0, sizeof(k0));
	input_copy(input, &k1, sizeof(k1));
	input_copy(input, words, sizeof(words));
	CHECK(siphash24(words, count * 8, k0, k1) == sluice_siphash_words((const __u64 *)words, count, k0, k1),
		"SipHash of %u words", count);
}

/* The key file. One that is taken has a key to sign with, and what is written after a rotation reads as the same. */
static void try_key_file(struct input *input)
{
	char error[512] = "";
	struct token_keys keys, again;
	int fd = open(key_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && write(fd, input->at, input->left) == (ssize_t)input->left, "cannot write %s", key_path);
	close(fd);
	if (token_keys_load(&keys, key_path, error, sizeof(error))) {
		CHECK(*error, "no sentence");
		return;
	}
	for (unsigned i = 0; i < 2; i++) {
		CHECK(keys.current < 2 && keys.slot[keys.current].valid, "no key signs");
		CHECK(keys.slot[i].valid <= 1 && (!keys.slot[i].valid || (keys.slot[i].id & 1) == i), "slot %u", i);
		CHECK(!token_keys_rotate(&keys, key_path, error, sizeof(error)), "%s", error);
		CHECK(!token_keys_load(&again, key_path, error, sizeof(error)), "%s", error);
		CHECK(!memcmp(&keys, &again, sizeof(keys)), "other keys");
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	world_open();
	snprintf(key_path, sizeof(key_path), "%s/keys", scratch_make());
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	uint8_t text[SLUICE_TOKEN_TEXT];
	struct input input = {bytes, size};

	world_reset();
	signing.slot[1] = *world_key(1);
	signing.current = 1;
	switch (input_u8(&input) & 3) {
	case 0:
		input_copy(&input, text, sizeof(text));
		try_text(text);
		break;
	case 1:
		try_sealed(&input);
		break;
	case 2:
		try_siphash(&input);
		break;
	default:
		try_key_file(&input);
	}
	return 0;
}
