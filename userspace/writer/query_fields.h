/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Strict reading of the fields of one JSON object. */
#ifndef SLUICE_WRITER_QUERY_FIELDS_H
#define SLUICE_WRITER_QUERY_FIELDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "writer/store.h"

#define FIELDS_MAX 16

/* The first thing that is wrong stays in `error`; the reading functions then do no more. */
struct fields {
	const json_t *object;
	size_t used; /* fields that were asked for and are there */
	const char *known[FIELDS_MAX];
	unsigned known_count;
	char *error; /* STORE_ERROR_MAX, "" = none */
};

void fields_fail(struct fields *fields, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool fields_has(const struct fields *fields, const char *name);
/* The value, NULL if there is none. */
const json_t *fields_get(struct fields *fields, const char *name, bool required);
int64_t fields_integer(struct fields *fields, const char *name, int64_t low, int64_t high);
bool fields_bool(struct fields *fields, const char *name);
/* Copies a text of low..high bytes; an absent one that is not required is "". */
void fields_text(struct fields *fields, const char *name, bool required, size_t low, size_t high, char *text);
/* A text of 0..high bytes as it stands in the object, "" if there is none. */
const char *fields_long_text(struct fields *fields, const char *name, size_t high);
/* A u64 of 16 hex digits in lower case. */
uint64_t fields_hex(struct fields *fields, const char *name);
/* A word that `of_word` knows; `choices` is said if it does not. */
unsigned fields_word(
	struct fields *fields, const char *name, unsigned (*of_word)(const char *word), const char *choices);
/* An object in its own right, whose error is the same. Its `object` is NULL if it is absent or none. */
struct fields fields_object(struct fields *fields, const char *name, bool required);
/* An array of 1..high objects. NULL, and an error, if it is none. */
const json_t *fields_array(struct fields *fields, const char *name, size_t high);
/* One element of such an array. */
struct fields fields_element(struct fields *fields, const json_t *array, size_t index, const char *name);
/* Every field that is there must have been asked for. Returns 0 or -EINVAL. */
int fields_end(struct fields *fields);

#endif
