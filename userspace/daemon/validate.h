/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Reads a JSON object by a table of its fields. */
#ifndef SLUICE_DAEMON_VALIDATE_H
#define SLUICE_DAEMON_VALIDATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum validate_kind {
	VALIDATE_INTEGER, /* int64_t, min..max */
	VALIDATE_NUMBER,  /* double, 0 or low..high */
	VALIDATE_TEXT,    /* char[max + 1], min..max bytes, no NUL */
	VALIDATE_LINE,    /* the same, and no control characters */
	VALIDATE_TIME,    /* uint64_t, ns since 1970, from RFC 3339 */
	VALIDATE_BOOLEAN, /* bool */
};

struct validate_field {
	const char *name;
	enum validate_kind kind;
	bool required;
	int64_t min, max;
	double low, high;
	size_t offset; /* in the caller's struct */
};

struct validate_error {
	unsigned status; /* 400: form, 422: range */
	char code[24];   /* unknown_field, missing_field, wrong_type, out_of_range */
	char field[64];
	char detail[192];
};

/* Fills `out` by `fields` (at most 32). Bit n of *present tells whether field n was there; what was not there is left as it is. Returns 0, or
 * -EINVAL with `error`; the first field that is wrong is named, unknown ones first.
 */
int validate_object(const json_t *object, const struct validate_field *fields, unsigned count, void *out,
	uint32_t *present, struct validate_error *error);

#endif
