/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What every fuzz target stands on: an input that is read from the front, and claims that end the process when they do not hold.
 *
 * A reader never fails: behind the end everything is zero, so each input means something and a shorter one means less.
 */
#ifndef SLUICE_FUZZ_CHECK_H
#define SLUICE_FUZZ_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libFuzzer reports the input that led here. */
#define CHECK(claim, ...) \
	do { \
		if (!(claim)) { \
			fprintf(stderr, "%s:%d: does not hold: %s: ", __FILE__, __LINE__, #claim); \
			fprintf(stderr, __VA_ARGS__); \
			fputc('\n', stderr); \
			abort(); \
		} \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

struct input {
	const uint8_t *at;
	size_t left;
};

/* The next `count` bytes, fewer at the end; *got tells how many. */
static inline const uint8_t *input_bytes(struct input *input, size_t count, size_t *got)
{
	const uint8_t *bytes = input->at;

	*got = count < input->left ? count : input->left;
	input->at += *got;
	input->left -= *got;
	return bytes;
}

static inline void input_copy(struct input *input, void *to, size_t count)
{
	size_t got;
	const uint8_t *bytes = input_bytes(input, count, &got);

	memset(to, 0, count);
	if (got)
		memcpy(to, bytes, got);
}

static inline uint8_t input_u8(struct input *input)
{
	uint8_t value;

	input_copy(input, &value, sizeof(value));
	return value;
}

static inline uint16_t input_u16(struct input *input)
{
	uint16_t value;

	input_copy(input, &value, sizeof(value));
	return value;
}

#endif
