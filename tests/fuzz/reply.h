/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* An answer of Redis as an input writes it: the protocol's own letters, but texts end with their line, so that a byte more is still an answer.
 *
 *     $TEXT \n   +STATUS \n   -ERROR \n   :NUMBER \n   _   *N and N answers, one byte     =N and N bytes     #N and a byte: N times that, two bytes
 *
 * N of * and = is one byte, less '0' where it is a digit. What is missing at the end is nil, as is any other letter. Each text lies in memory of its own,
 * with one NUL behind it, as hiredis has it.
 */
#ifndef SLUICE_FUZZ_REPLY_H
#define SLUICE_FUZZ_REPLY_H

#include <hiredis/hiredis.h>

#include "check.h"

#define REPLY_DEPTH_MAX 4
#define REPLY_PARTS_MAX 4096 /* of one answer, in all */

static inline void reply_set_text(redisReply *reply, int type, const void *bytes, size_t length)
{
	reply->type = type;
	reply->len = length;
	reply->str = malloc(length + 1);
	CHECK(reply->str, "memory");
	if (length)
		memcpy(reply->str, bytes, length);
	reply->str[length] = '\0';
}

static inline size_t reply_count(struct input *input)
{
	uint8_t count = input_u8(input);

	return count >= '0' && count <= '9' ? (size_t)(count - '0') : count;
}

/* Up to the end of the line. */
static inline const uint8_t *reply_line(struct input *input, size_t *length)
{
	const uint8_t *end = input->left ? memchr(input->at, '\n', input->left) : NULL, *line;

	*length = end ? (size_t)(end - input->at) : input->left;
	line = input_bytes(input, *length, length);
	if (end)
		input_u8(input);
	return line;
}

static inline void reply_read_number(redisReply *reply, struct input *input)
{
	char text[24] = "";
	size_t length;
	const uint8_t *line = reply_line(input, &length);

	if (length)
		memcpy(text, line, length < sizeof(text) ? length : sizeof(text) - 1);
	reply->type = REDIS_REPLY_INTEGER;
	reply->integer = strtoll(text, NULL, 10);
}

static inline void reply_read_repeated(redisReply *reply, struct input *input)
{
	size_t count = input_u16(input);
	uint8_t byte = input_u8(input);

	reply_set_text(reply, REDIS_REPLY_STRING, NULL, 0);
	free(reply->str);
	reply->str = calloc(1, count + 1);
	CHECK(reply->str, "memory");
	memset(reply->str, byte, count);
	reply->len = count;
}

static inline redisReply *reply_read_at(struct input *input, unsigned depth, unsigned *parts)
{
	redisReply *reply = calloc(1, sizeof(*reply));
	const uint8_t *bytes;
	size_t length;
	uint8_t letter;

	CHECK(reply, "memory");
	reply->type = REDIS_REPLY_NIL;
	letter = *parts ? input_u8(input) : '_';
	*parts -= *parts > 0;
	switch (letter) {
	case '$':
	case '+':
	case '-':
		bytes = reply_line(input, &length);
		reply_set_text(reply,
			letter == '$'           ? REDIS_REPLY_STRING
				: letter == '+' ? REDIS_REPLY_STATUS
						: REDIS_REPLY_ERROR,
			bytes, length);
		break;
	case '=':
		bytes = input_bytes(input, reply_count(input), &length);
		reply_set_text(reply, REDIS_REPLY_STRING, bytes, length);
		break;
	case '#':
		reply_read_repeated(reply, input);
		break;
	case ':':
		reply_read_number(reply, input);
		break;
	case '*':
		reply->type = REDIS_REPLY_ARRAY;
		reply->elements = depth < REPLY_DEPTH_MAX ? reply_count(input) : 0;
		reply->element = reply->elements ? calloc(reply->elements, sizeof(*reply->element)) : NULL;
		for (size_t i = 0; i < reply->elements; i++)
			reply->element[i] = reply_read_at(input, depth + 1, parts);
		break;
	default:
		break;
	}
	return reply;
}

/* The caller frees with freeReplyObject. */
static inline redisReply *reply_read(struct input *input)
{
	unsigned parts = REPLY_PARTS_MAX;

	return reply_read_at(input, 0, &parts);
}

#endif
