/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* An entry of a stream, taken apart. Pure. */
#ifndef SLUICE_WRITER_CONSUME_ENTRY_H
#define SLUICE_WRITER_CONSUME_ENTRY_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONSUME_REASON_MAX 512
#define CONSUME_RAW_MAX 65536 /* 1,000 of a batch stand in memory at once */
#define CONSUME_ID_MAX 48

/* Texts belong to the reply, and are gone with the next question to Redis; the id is kept, because it is what is acknowledged. */
struct consume_entry {
	const char *stream, *slug;  /* of the stream it came from */
	char entry[CONSUME_ID_MAX]; /* its id there */
	const redisReply *fields;
	bool is_order;
	int64_t node, position;
	const char *type, *at;
	/* of an order */
	const char *id, *state, *buyer, *source, *admitted_at, *committed_at, *expires_at, *resolved_at, *resolved_by;
	int64_t seq, quantity, network;
	bool restocked;
	/* of a sale */
	int64_t put_in, held, confirmed;
	char reason[CONSUME_REASON_MAX]; /* why it cannot be taken; "": it can */
};

/* Reads entry->fields. Returns 0, or -EINVAL with a sentence in entry->reason. */
int consume_entry_read(struct consume_entry *entry);
/* The fields as they came, as one text of printable ASCII; for people. If they are longer than CONSUME_RAW_MAX its end says how many bytes are
 * missing. The caller frees; NULL without memory.
 */
char *consume_entry_raw(const struct consume_entry *entry);

#endif
