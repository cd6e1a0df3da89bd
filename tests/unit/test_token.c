/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tokens: the hash is the published SipHash-2-4, the encoding is RFC 4648's, and no changed bit goes unseen. The key file keeps its promises. */
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

#include "common/token.h"

/* vectors_sip64 of the reference implementation (Aumasson, Bernstein; CC0): key 00..0f, message i = 00..(i-1), little-endian bytes. */
static const uint8_t siphash_vectors[64][8] = {
	{0x31, 0x0e, 0x0e, 0xdd, 0x47, 0xdb, 0x6f, 0x72},
	{0xfd, 0x67, 0xdc, 0x93, 0xc5, 0x39, 0xf8, 0x74},
	{0x5a, 0x4f, 0xa9, 0xd9, 0x09, 0x80, 0x6c, 0x0d},
	{0x2d, 0x7e, 0xfb, 0xd7, 0x96, 0x66, 0x67, 0x85},
	{0xb7, 0x87, 0x71, 0x27, 0xe0, 0x94, 0x27, 0xcf},
	{0x8d, 0xa6, 0x99, 0xcd, 0x64, 0x55, 0x76, 0x18},
	{0xce, 0xe3, 0xfe, 0x58, 0x6e, 0x46, 0xc9, 0xcb},
	{0x37, 0xd1, 0x01, 0x8b, 0xf5, 0x00, 0x02, 0xab},
	{0x62, 0x24, 0x93, 0x9a, 0x79, 0xf5, 0xf5, 0x93},
	{0xb0, 0xe4, 0xa9, 0x0b, 0xdf, 0x82, 0x00, 0x9e},
	{0xf3, 0xb9, 0xdd, 0x94, 0xc5, 0xbb, 0x5d, 0x7a},
	{0xa7, 0xad, 0x6b, 0x22, 0x46, 0x2f, 0xb3, 0xf4},
	{0xfb, 0xe5, 0x0e, 0x86, 0xbc, 0x8f, 0x1e, 0x75},
	{0x90, 0x3d, 0x84, 0xc0, 0x27, 0x56, 0xea, 0x14},
	{0xee, 0xf2, 0x7a, 0x8e, 0x90, 0xca, 0x23, 0xf7},
	{0xe5, 0x45, 0xbe, 0x49, 0x61, 0xca, 0x29, 0xa1},
	{0xdb, 0x9b, 0xc2, 0x57, 0x7f, 0xcc, 0x2a, 0x3f},
	{0x94, 0x47, 0xbe, 0x2c, 0xf5, 0xe9, 0x9a, 0x69},
	{0x9c, 0xd3, 0x8d, 0x96, 0xf0, 0xb3, 0xc1, 0x4b},
	{0xbd, 0x61, 0x79, 0xa7, 0x1d, 0xc9, 0x6d, 0xbb},
	{0x98, 0xee, 0xa2, 0x1a, 0xf2, 0x5c, 0xd6, 0xbe},
	{0xc7, 0x67, 0x3b, 0x2e, 0xb0, 0xcb, 0xf2, 0xd0},
	{0x88, 0x3e, 0xa3, 0xe3, 0x95, 0x67, 0x53, 0x93},
	{0xc8, 0xce, 0x5c, 0xcd, 0x8c, 0x03, 0x0c, 0xa8},
	{0x94, 0xaf, 0x49, 0xf6, 0xc6, 0x50, 0xad, 0xb8},
	{0xea, 0xb8, 0x85, 0x8a, 0xde, 0x92, 0xe1, 0xbc},
	{0xf3, 0x15, 0xbb, 0x5b, 0xb8, 0x35, 0xd8, 0x17},
	{0xad, 0xcf, 0x6b, 0x07, 0x63, 0x61, 0x2e, 0x2f},
	{0xa5, 0xc9, 0x1d, 0xa7, 0xac, 0xaa, 0x4d, 0xde},
	{0x71, 0x65, 0x95, 0x87, 0x66, 0x50, 0xa2, 0xa6},
	{0x28, 0xef, 0x49, 0x5c, 0x53, 0xa3, 0x87, 0xad},
	{0x42, 0xc3, 0x41, 0xd8, 0xfa, 0x92, 0xd8, 0x32},
	{0xce, 0x7c, 0xf2, 0x72, 0x2f, 0x51, 0x27, 0x71},
	{0xe3, 0x78, 0x59, 0xf9, 0x46, 0x23, 0xf3, 0xa7},
	{0x38, 0x12, 0x05, 0xbb, 0x1a, 0xb0, 0xe0, 0x12},
	{0xae, 0x97, 0xa1, 0x0f, 0xd4, 0x34, 0xe0, 0x15},
	{0xb4, 0xa3, 0x15, 0x08, 0xbe, 0xff, 0x4d, 0x31},
	{0x81, 0x39, 0x62, 0x29, 0xf0, 0x90, 0x79, 0x02},
	{0x4d, 0x0c, 0xf4, 0x9e, 0xe5, 0xd4, 0xdc, 0xca},
	{0x5c, 0x73, 0x33, 0x6a, 0x76, 0xd8, 0xbf, 0x9a},
	{0xd0, 0xa7, 0x04, 0x53, 0x6b, 0xa9, 0x3e, 0x0e},
	{0x92, 0x59, 0x58, 0xfc, 0xd6, 0x42, 0x0c, 0xad},
	{0xa9, 0x15, 0xc2, 0x9b, 0xc8, 0x06, 0x73, 0x18},
	{0x95, 0x2b, 0x79, 0xf3, 0xbc, 0x0a, 0xa6, 0xd4},
	{0xf2, 0x1d, 0xf2, 0xe4, 0x1d, 0x45, 0x35, 0xf9},
	{0x87, 0x57, 0x75, 0x19, 0x04, 0x8f, 0x53, 0xa9},
	{0x10, 0xa5, 0x6c, 0xf5, 0xdf, 0xcd, 0x9a, 0xdb},
	{0xeb, 0x75, 0x09, 0x5c, 0xcd, 0x98, 0x6c, 0xd0},
	{0x51, 0xa9, 0xcb, 0x9e, 0xcb, 0xa3, 0x12, 0xe6},
	{0x96, 0xaf, 0xad, 0xfc, 0x2c, 0xe6, 0x66, 0xc7},
	{0x72, 0xfe, 0x52, 0x97, 0x5a, 0x43, 0x64, 0xee},
	{0x5a, 0x16, 0x45, 0xb2, 0x76, 0xd5, 0x92, 0xa1},
	{0xb2, 0x74, 0xcb, 0x8e, 0xbf, 0x87, 0x87, 0x0a},
	{0x6f, 0x9b, 0xb4, 0x20, 0x3d, 0xe7, 0xb3, 0x81},
	{0xea, 0xec, 0xb2, 0xa3, 0x0b, 0x22, 0xa8, 0x7f},
	{0x99, 0x24, 0xa4, 0x3c, 0xc1, 0x31, 0x57, 0x24},
	{0xbd, 0x83, 0x8d, 0x3a, 0xaf, 0xbf, 0x8d, 0xb7},
	{0x0b, 0x1a, 0x2a, 0x32, 0x65, 0xd5, 0x1a, 0xea},
	{0x13, 0x50, 0x79, 0xa3, 0x23, 0x1c, 0xe6, 0x60},
	{0x93, 0x2b, 0x28, 0x46, 0xe4, 0xd7, 0x06, 0x66},
	{0xe1, 0x91, 0x5f, 0x5c, 0xb1, 0xec, 0xa4, 0x6c},
	{0xf3, 0x25, 0x96, 0x5c, 0xa1, 0x6d, 0x62, 0x9f},
	{0x57, 0x5f, 0xf2, 0x8e, 0x60, 0x38, 0x1b, 0xe5},
	{0x72, 0x45, 0x06, 0xeb, 0x4c, 0x32, 0x8a, 0x95},
};

#define REFERENCE_K0 0x0706050403020100ULL
#define REFERENCE_K1 0x0f0e0d0c0b0a0908ULL

static uint64_t vector(unsigned length)
{
	uint64_t value = 0;

	for (unsigned i = 8; i-- > 0;)
		value = value << 8 | siphash_vectors[length][i];
	return value;
}

static void siphash_gives_the_published_vectors(void **state)
{
	uint8_t message[64];

	(void)state;
	for (unsigned i = 0; i < sizeof(message); i++)
		message[i] = (uint8_t)i;
	for (unsigned length = 0; length < 64; length++)
		assert_true(siphash24(message, length, REFERENCE_K0, REFERENCE_K1) == vector(length));
}

static void the_gates_siphash_gives_the_published_vectors(void **state)
{
	uint64_t words[8];

	(void)state;
	for (unsigned i = 0; i < sizeof(words); i++)
		((uint8_t *)words)[i] = (uint8_t)i;
	for (unsigned count = 0; count < 8; count++)
		assert_true(sluice_siphash_words((const __u64 *)words, count, REFERENCE_K0, REFERENCE_K1) ==
			vector(count * 8));
}

static void base64url_agrees_with_rfc_4648(void **state)
{
	/* Section 10, those without padding; the last two have the characters that differ from plain base64. */
	static const struct {
		const char *bytes, *text;
	} vectors[] = {
		{"", ""}, {"foo", "Zm9v"}, {"foobar", "Zm9vYmFy"}, {"\xff\xef\xfe", "_-_-"}, {"\xfb\xff\xbf", "-_-_"}};
	char text[16];

	(void)state;
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		base64url_encode((const __u8 *)vectors[i].bytes, strlen(vectors[i].bytes), text);
		assert_string_equal(text, vectors[i].text);
	}
}

static void exactly_the_64_characters_are_read(void **state)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

	(void)state;
	for (int c = 0; c < 256; c++) {
		const char *at = c ? strchr(alphabet, c) : NULL;

		assert_int_equal(sluice_base64url_value[c], at ? at - alphabet : 255);
	}
}

static struct token_keys some_keys(void)
{
	struct token_keys keys = {
		.slot = {{.k0 = 0x1111, .k1 = 0x2222, .id = 2, .valid = 1},
			{.k0 = 0x3333, .k1 = 0x4444, .id = 3, .valid = 1}},
		.current = 1,
		.buyer = {5, 6},
		.serial = {7, 8},
	};

	return keys;
}

static struct sluice_token some_token(void)
{
	struct sluice_token token = {.quantity = 2,
		.sale = 17,
		.issued_at_s = 1795348800,
		.expires_at_s = 1795356000,
		.buyer = 0x0123456789abcdefULL,
		.serial = 0xfedcba9876543210ULL,
		.network = 0xcafe,
		.node = 1};

	return token;
}

static void a_sealed_token_opens_to_itself(void **state)
{
	struct token_keys keys = some_keys();
	struct sluice_token token = some_token(), back;
	char text[SLUICE_TOKEN_TEXT + 1];

	(void)state;
	token_seal(&keys.slot[1], &token, text);
	assert_int_equal(strlen(text), SLUICE_TOKEN_TEXT);
	assert_int_equal(token_open(&keys, text, SLUICE_TOKEN_TEXT, &back), 0);
	assert_memory_equal(&token, &back, sizeof(token));
	assert_int_equal(back.version, SLUICE_TOKEN_VERSION);
	assert_int_equal(back.key_id, 3);
}

static void no_changed_bit_goes_unseen(void **state)
{
	struct token_keys keys = some_keys();
	struct sluice_token token = some_token(), back;
	char text[SLUICE_TOKEN_TEXT + 1], forged[SLUICE_TOKEN_TEXT + 1];

	(void)state;
	token_seal(&keys.slot[1], &token, text);
	for (unsigned bit = 0; bit < sizeof(token) * 8; bit++) {
		uint8_t bytes[sizeof(token)];
		int expected = bit / 8 == 0 ? -EINVAL : bit / 8 == 1 && bit % 8 != 0 ? -ENOKEY : -EBADMSG;

		memcpy(bytes, &token, sizeof(bytes));
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		base64url_encode(bytes, sizeof(bytes), forged);
		/* Version: form. Key id: no such key, but bit 0 leads to the other key, whose MAC then fails. All else: MAC. */
		assert_int_equal(token_open(&keys, forged, SLUICE_TOKEN_TEXT, &back), expected);
	}
}

static void what_is_no_token_is_refused_for_its_form(void **state)
{
	struct token_keys keys = some_keys();
	struct sluice_token token = some_token(), back;
	char text[SLUICE_TOKEN_TEXT + 2];

	(void)state;
	token_seal(&keys.slot[1], &token, text);
	text[SLUICE_TOKEN_TEXT] = 'A';
	assert_int_equal(token_open(&keys, text, 0, &back), -EINVAL);
	assert_int_equal(token_open(&keys, text, SLUICE_TOKEN_TEXT - 1, &back), -EINVAL);
	assert_int_equal(token_open(&keys, text, SLUICE_TOKEN_TEXT + 1, &back), -EINVAL);
	for (unsigned at = 0; at < SLUICE_TOKEN_TEXT; at++) {
		for (int c = 0; c < 256; c++) {
			char kept = text[at];

			if (sluice_base64url_value[c] != 255)
				continue;
			text[at] = (char)c;
			assert_int_equal(token_open(&keys, text, SLUICE_TOKEN_TEXT, &back), -EINVAL);
			text[at] = kept;
		}
	}
}

static void a_key_that_is_not_valid_opens_nothing(void **state)
{
	struct token_keys keys = some_keys();
	struct sluice_token token = some_token(), back;
	char text[SLUICE_TOKEN_TEXT + 1];

	(void)state;
	token_seal(&keys.slot[0], &token, text);
	assert_int_equal(token_open(&keys, text, SLUICE_TOKEN_TEXT, &back), 0);
	keys.slot[0].valid = 0;
	assert_int_equal(token_open(&keys, text, SLUICE_TOKEN_TEXT, &back), -ENOKEY);
	keys.slot[0].valid = 1;
	keys.slot[0].id = 4; /* the slot went to another key */
	assert_int_equal(token_open(&keys, text, SLUICE_TOKEN_TEXT, &back), -ENOKEY);
}

static void serials_and_buyers_are_keyed_and_stable(void **state)
{
	struct token_keys keys = some_keys(), other = some_keys();
	uint64_t buyer = token_buyer_hash(&keys, "session-42", 10);

	(void)state;
	other.buyer[0]++;
	other.serial[0]++;
	assert_true(buyer == token_buyer_hash(&keys, "session-42", 10));
	assert_true(buyer != token_buyer_hash(&keys, "session-43", 10));
	assert_true(buyer != token_buyer_hash(&other, "session-42", 10));
	assert_true(token_serial(&keys, 1, buyer, 0) == token_serial(&keys, 1, buyer, 0));
	assert_true(token_serial(&keys, 1, buyer, 0) != token_serial(&keys, 2, buyer, 0));
	assert_true(token_serial(&keys, 1, buyer, 0) != token_serial(&keys, 1, buyer, 1));
	assert_true(token_serial(&keys, 1, buyer, 0) != token_serial(&other, 1, buyer, 0));
}

/* --- the key file ------------------------------------------------------------------------------------------------------------ */
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
	strcpy(place->dir, "/tmp/sluice-test-token-XXXXXX");
	if (!mkdtemp(place->dir))
		return -1;
	snprintf(place->path, sizeof(place->path), "%s/keys", place->dir);
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

static void keys_are_made_once_and_read_back(void **state)
{
	struct place *place = *state;
	struct token_keys made, read;
	struct stat st;

	assert_int_equal(token_keys_load(&made, place->path, place->error, sizeof(place->error)), 0);
	assert_int_equal(stat(place->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_true(made.slot[made.current].valid && made.slot[made.current].k0 && made.slot[made.current].k1);
	assert_true(!made.slot[!made.current].valid);
	assert_int_equal(made.slot[made.current].id & 1, made.current);
	assert_int_equal(token_keys_load(&read, place->path, place->error, sizeof(place->error)), 0);
	assert_memory_equal(&made, &read, sizeof(made));
}

static void tokens_survive_one_rotation_and_not_two(void **state)
{
	struct place *place = *state;
	struct sluice_token token = some_token(), back;
	struct token_keys keys, read;
	char text[SLUICE_TOKEN_TEXT + 1];
	unsigned before;

	assert_int_equal(token_keys_load(&keys, place->path, place->error, sizeof(place->error)), 0);
	for (int i = 0; i < 600; i++) { /* the id wraps twice */
		before = keys.current;
		token_seal(&keys.slot[keys.current], &token, text);
		assert_int_equal(token_keys_rotate(&keys, place->path, place->error, sizeof(place->error)), 0);
		assert_true(keys.current != before && keys.slot[keys.current].valid);
		assert_int_equal(keys.slot[keys.current].id & 1, keys.current);
		assert_int_equal(token_open(&keys, text, SLUICE_TOKEN_TEXT, &back), 0);
	}
	assert_int_equal(token_keys_load(&read, place->path, place->error, sizeof(place->error)), 0);
	assert_memory_equal(&keys, &read, sizeof(keys));
	assert_int_equal(token_keys_rotate(&keys, place->path, place->error, sizeof(place->error)), 0);
	assert_true(token_open(&keys, text, SLUICE_TOKEN_TEXT, &back) < 0);
}

static void a_file_that_others_may_read_is_refused(void **state)
{
	struct place *place = *state;
	struct token_keys keys;
	static const mode_t modes[] = {0640, 0604, 0620, 0666};

	assert_int_equal(token_keys_load(&keys, place->path, place->error, sizeof(place->error)), 0);
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		assert_int_equal(chmod(place->path, modes[i]), 0);
		assert_int_equal(token_keys_load(&keys, place->path, place->error, sizeof(place->error)), -EPERM);
		assert_non_null(strstr(place->error, place->path));
	}
}

static void a_damaged_file_is_refused_and_left_alone(void **state)
{
	struct place *place = *state;
	struct token_keys keys;
	char text[1024];
	struct stat st;
	ssize_t length;
	int fd;

	assert_int_equal(token_keys_load(&keys, place->path, place->error, sizeof(place->error)), 0);
	fd = open(place->path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	length = read(fd, text, sizeof(text));
	assert_true(length > 100);
	for (off_t cut = 0; cut < length - 1; cut++) { /* all but the last newline */
		assert_int_equal(ftruncate(fd, cut), 0);
		assert_int_equal(token_keys_load(&keys, place->path, place->error, sizeof(place->error)), -EINVAL);
		assert_int_equal(fstat(fd, &st), 0);
		assert_true(st.st_size == cut);
		assert_int_equal(pwrite(fd, text, (size_t)length, 0), length);
	}
	assert_int_equal(pwrite(fd, "trailing", 8, length), 8);
	assert_int_equal(token_keys_load(&keys, place->path, place->error, sizeof(place->error)), -EINVAL);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(siphash_gives_the_published_vectors),
		cmocka_unit_test(the_gates_siphash_gives_the_published_vectors),
		cmocka_unit_test(base64url_agrees_with_rfc_4648),
		cmocka_unit_test(exactly_the_64_characters_are_read),
		cmocka_unit_test(a_sealed_token_opens_to_itself),
		cmocka_unit_test(no_changed_bit_goes_unseen),
		cmocka_unit_test(what_is_no_token_is_refused_for_its_form),
		cmocka_unit_test(a_key_that_is_not_valid_opens_nothing),
		cmocka_unit_test(serials_and_buyers_are_keyed_and_stable),
		cmocka_unit_test_setup_teardown(keys_are_made_once_and_read_back, make_place, remove_place),
		cmocka_unit_test_setup_teardown(tokens_survive_one_rotation_and_not_two, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_file_that_others_may_read_is_refused, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_damaged_file_is_refused_and_left_alone, make_place, remove_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
