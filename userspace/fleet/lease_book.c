/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The book of a lease as text, and the sets of nodes in it. */
#include "fleet/lease_book.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const char *const op_names[] = {
	[LEASE_OP_NONE] = "none",
	[LEASE_OP_GRANT] = "grant",
	[LEASE_OP_RETURN] = "return",
};

bool lease_members_has(const struct lease_members *members, unsigned node)
{
	return node <= LEASE_NODE_MAX && (members->bits[node / 64] >> (node % 64) & 1);
}

void lease_members_add(struct lease_members *members, unsigned node)
{
	if (node >= 1 && node <= LEASE_NODE_MAX)
		members->bits[node / 64] |= (uint64_t)1 << (node % 64);
}

void lease_members_join(struct lease_members *members, const struct lease_members *more)
{
	for (size_t i = 0; i < sizeof(members->bits) / sizeof(members->bits[0]); i++)
		members->bits[i] |= more->bits[i];
}

bool lease_members_cover(const struct lease_members *members, const struct lease_members *all)
{
	for (size_t i = 0; i < sizeof(members->bits) / sizeof(members->bits[0]); i++)
		if (all->bits[i] & ~members->bits[i])
			return false;
	return true;
}

size_t lease_members_encode(const struct lease_members *members, char *text)
{
	size_t used = 0;

	*text = '\0';
	for (unsigned node = 1; node <= LEASE_NODE_MAX; node++)
		if (lease_members_has(members, node))
			used += (size_t)snprintf(text + used, LEASE_MEMBERS_TEXT_MAX - used, used ? ",%u" : "%u", node);
	return used;
}

int lease_members_decode(struct lease_members *members, const char *text)
{
	struct lease_members read = {0};

	while (*text) {
		unsigned node = 0;

		if (*text < '1' || *text > '9')
			return -EINVAL;
		while (*text >= '0' && *text <= '9' && node <= LEASE_NODE_MAX)
			node = node * 10 + (unsigned)(*text++ - '0');
		if (node > LEASE_NODE_MAX || (*text && *text != ',') || (*text == ',' && !text[1]))
			return -EINVAL;
		lease_members_add(&read, node);
		text += *text == ',';
	}
	*members = read;
	return 0;
}

/* Of words that scripts may have to split: no spaces, nothing that JSON would have to escape. */
static bool is_word(const char *text, size_t size)
{
	size_t length = strnlen(text, size);

	if (length == size)
		return false;
	for (size_t i = 0; i < length; i++) {
		char c = text[i];

		if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !strchr("._:-", c))
			return false;
	}
	return true;
}

bool lease_operation_is_valid(const char *operation)
{
	return is_word(operation, LEASE_OPERATION_MAX);
}

int64_t lease_generation_number(const char *generation)
{
	int64_t number = 0;
	const char *at = generation;

	if (!*generation)
		return 0;
	if (!is_word(generation, LEASE_GENERATION_MAX))
		return -1;
	while (*at >= '0' && *at <= '9') {
		number = number * 10 + (*at++ - '0');
		if (number > LEASE_COUNT_MAX)
			return -1;
	}
	return at > generation && *at == '-' && at[1] && number > 0 ? number : -1;
}

void lease_book_encode(const struct lease_book *book, char *text)
{
	char members[LEASE_MEMBERS_TEXT_MAX];

	lease_members_encode(&book->members, members);
	snprintf(text, LEASE_BOOK_TEXT_MAX,
		"{\"generation\":\"%s\",\"epoch\":%lld,\"seq\":%lld,\"op\":\"%s\",\"units\":%lld,\"balance\":%lld,\"total\":%lld,\"version\":%lld,"
		"\"operation\":\"%s\",\"members\":[%s]}",
		book->generation, (long long)book->epoch, (long long)book->seq, op_names[book->op],
		(long long)book->units, (long long)book->balance, (long long)book->total, (long long)book->version,
		book->operation, members);
}

static int number_read(const json_t *root, const char *name, int64_t max, int64_t *number)
{
	const json_t *value = json_object_get(root, name);

	if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > max)
		return -EINVAL;
	*number = json_integer_value(value);
	return 0;
}

static int word_read(const json_t *root, const char *name, char *text, size_t size)
{
	const json_t *value = json_object_get(root, name);

	/* A text with a NUL in it is shorter than it says, and is none of ours. */
	if (!json_is_string(value) || json_string_length(value) >= size ||
		json_string_length(value) != strlen(json_string_value(value)) ||
		!is_word(json_string_value(value), size))
		return -EINVAL;
	memcpy(text, json_string_value(value), json_string_length(value) + 1);
	return 0;
}

int lease_book_decode(struct lease_book *book, const char *text)
{
	struct lease_book read = {0};
	json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	const json_t *members = json_object_get(root, "members");
	const char *op = json_string_value(json_object_get(root, "op"));
	int err = -EINVAL;

	if (!json_is_object(root) || json_object_size(root) != 10 || !op || !json_is_array(members))
		goto out;
	if (number_read(root, "epoch", LEASE_COUNT_MAX, &read.epoch) ||
		number_read(root, "seq", LEASE_COUNT_MAX, &read.seq) ||
		number_read(root, "units", LEASE_UNITS_MAX, &read.units) ||
		number_read(root, "balance", LEASE_UNITS_MAX, &read.balance) ||
		number_read(root, "total", LEASE_UNITS_MAX, &read.total) ||
		number_read(root, "version", LEASE_COUNT_MAX, &read.version) ||
		word_read(root, "generation", read.generation, sizeof(read.generation)) ||
		word_read(root, "operation", read.operation, sizeof(read.operation)))
		goto out;
	if (lease_generation_number(read.generation) < 0)
		goto out;
	for (read.op = LEASE_OP_NONE; read.op <= LEASE_OP_RETURN && strcmp(op, op_names[read.op]) != 0; read.op++)
		;
	if (read.op > LEASE_OP_RETURN)
		goto out;
	for (size_t i = 0; i < json_array_size(members); i++) {
		const json_t *member = json_array_get(members, i);

		if (!json_is_integer(member) || json_integer_value(member) < 1 ||
			json_integer_value(member) > LEASE_NODE_MAX)
			goto out;
		lease_members_add(&read.members, (unsigned)json_integer_value(member));
	}
	*book = read;
	err = 0;
out:
	json_decref(root);
	return err;
}
