/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Lists of prefixes as text, line by line: netset, ipset save, CSV. Read by `sluice deny import` and by the daemon's bulk route, so both
 * take the same lines and say the same about bad ones.
 *
 * netset  one address, prefix or range a line ("192.0.2.0/24", "192.0.2.1 - 192.0.2.9"); # and ; begin a comment
 * ipset   what `ipset save` prints: "add SET 192.0.2.0/24 timeout 600 comment "why""; create, flush and the like are passed over
 * csv     prefix[,ttl_seconds or expires_at][,reason], fields may be quoted (RFC 4180); a first line of names puts the columns in
 *         another order: prefix, ttl_seconds, expires_at, label, reason; columns of other names are passed over
 */
#ifndef SLUICE_COMMON_LIST_TEXT_H
#define SLUICE_COMMON_LIST_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sluice/abi.h"

#define LIST_TTL_MAX_S 315360000 /* ten years */
#define LIST_COLUMNS_MAX 16
#define LIST_REASON_SIZE 128 /* more than an entry can hold */

enum list_format { LIST_FORMAT_AUTO, LIST_FORMAT_NETSET, LIST_FORMAT_IPSET, LIST_FORMAT_CSV };

enum list_column {
	LIST_COLUMN_OTHER,
	LIST_COLUMN_PREFIX,
	LIST_COLUMN_TTL,
	LIST_COLUMN_EXPIRES,
	LIST_COLUMN_LABEL,
	LIST_COLUMN_REASON,
	LIST_COLUMN_UNTIL /* ttl_seconds or expires_at, whichever it looks like */
};

struct list_text_entry {
	struct sluice_addr addr;
	unsigned prefix_len;
	uint64_t ttl_s;        /* 0 = none given */
	uint64_t expires_wall; /* ns; 0 = none given. Never both. */
	const char *label;     /* "" = none given; valid during the call */
	const char *reason;
};

/* Zeroed but for `format`: at the first line. */
struct list_text {
	enum list_format format; /* AUTO is decided by the first line that is neither empty nor a comment */
	uint64_t line;           /* number of the line in hand, from 1 */
	unsigned columns;        /* CSV; 0 = not known yet */
	enum list_column column[LIST_COLUMNS_MAX];
	bool has_label; /* the CSV has a column of labels */
};

/* "auto", "netset", "ipset", "csv"; -1 if it is none of them. */
int list_format_of(const char *name);
/* Reads the next line (without its end; changed in place, one byte beyond `length` must be writable) and calls `found` for each prefix in
 * it: a range may be many. Returns 0, what `found` returned if that is not 0, or -EINVAL with a sentence in `error`.
 */
int list_text_line(struct list_text *text, char *line, size_t length,
	int (*found)(void *arg, const struct list_text_entry *entry), void *arg, char *error, size_t error_size);
/* Valid UTF-8 without control characters. */
bool list_text_is_clean(const char *text);

#endif
