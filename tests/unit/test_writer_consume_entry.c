/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A name is all of its bytes. What is put aside of an entry that is none: all of it as text, and of one that is longer than the room how much is missing. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "writer/consume_entry.h"

#define FIELDS_MAX 200000

static redisReply parts[FIELDS_MAX], *pointers[FIELDS_MAX];

/* The raw text of an entry of `count` parts, which are `text`s. The caller frees. */
static char *raw_of(size_t count, const char *text, size_t length)
{
	redisReply fields = {.type = REDIS_REPLY_ARRAY, .elements = count, .element = pointers};
	const struct consume_entry entry = {.fields = &fields};
	char *raw;

	for (size_t i = 0; i < count; i++) {
		parts[i] = (redisReply){.type = REDIS_REPLY_STRING, .str = (char *)(uintptr_t)text, .len = length};
		pointers[i] = &parts[i];
	}
	raw = consume_entry_raw(&entry);
	assert_non_null(raw);
	return raw;
}

static void every_byte_is_told(void **state)
{
	char *raw = raw_of(4, "a\\\x01z", 4);

	(void)state;
	assert_string_equal(raw, "a\\x5c\\x01z=a\\x5c\\x01z a\\x5c\\x01z=a\\x5c\\x01z");
	free(raw);
}

static void what_has_no_room_is_counted(void **state)
{
	static char text[2 * CONSUME_RAW_MAX];
	char *raw;
	size_t told;

	(void)state;
	memset(text, 'x', sizeof(text));
	raw = raw_of(1, text, sizeof(text));
	told = strspn(raw, "x");
	assert_in_range(strlen(raw), CONSUME_RAW_MAX - 128, CONSUME_RAW_MAX - 1);
	assert_int_equal(atoll(strchr(raw, '(') + 1) + (long long)told, sizeof(text));
	free(raw);
}

static void no_number_of_empty_fields_is_too_many(void **state)
{
	char *raw = raw_of(FIELDS_MAX, "", 0);

	(void)state;
	assert_in_range(strlen(raw), CONSUME_RAW_MAX - 128, CONSUME_RAW_MAX - 1);
	assert_non_null(strstr(raw, "more bytes are in the stream"));
	free(raw);
}

static void a_name_that_goes_on_behind_a_nul_is_another_one(void **state)
{
	redisReply name = {.type = REDIS_REPLY_STRING, .str = (char *)(uintptr_t) "type\0x", .len = 6};
	redisReply value = {.type = REDIS_REPLY_STRING, .str = (char *)(uintptr_t) "sale.ended", .len = 10},
		   *both[] = {&name, &value};
	redisReply fields = {.type = REDIS_REPLY_ARRAY, .elements = 2, .element = both};
	struct consume_entry entry = {.slug = "drop-11", .fields = &fields};

	(void)state;
	assert_int_equal(consume_entry_read(&entry), -EINVAL);
	assert_string_equal(entry.reason, "the field type is missing");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_name_that_goes_on_behind_a_nul_is_another_one),
		cmocka_unit_test(every_byte_is_told),
		cmocka_unit_test(what_has_no_room_is_counted),
		cmocka_unit_test(no_number_of_empty_fields_is_too_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
