/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* See consume_entry.h. Called by consume.c.
 *
 * Whatever passes here can be stored: what a database would refuse (a number out of range, a text that is no time, a byte that is no UTF-8)
 * is found here, with a reason that names the field.
 */
#include "writer/consume_entry.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/timefmt.h"
#include "common/wire.h"
#include "writer/store.h"

#define HEX_DIGITS 16

static int refuse(struct consume_entry *entry, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int refuse(struct consume_entry *entry, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(entry->reason, sizeof(entry->reason), format, args);
	va_end(args);
	return -EINVAL;
}

/* A text of printable ASCII, which all of ours are; NULL with a reason if it is missing or none. */
static const char *read_text(struct consume_entry *entry, const char *name)
{
	const redisReply *fields = entry->fields;
	size_t length = strlen(name);

	for (size_t i = 0; i + 1 < fields->elements; i += 2) {
		const redisReply *key = fields->element[i], *value = fields->element[i + 1];

		if (key->type != REDIS_REPLY_STRING || value->type != REDIS_REPLY_STRING || key->len != length ||
			memcmp(key->str, name, length) != 0)
			continue;
		for (size_t at = 0; at < value->len; at++)
			if (value->str[at] < ' ' || value->str[at] > '~')
				return refuse(entry, "%s has bytes that are not printable ASCII", name), NULL;
		return value->str;
	}
	return refuse(entry, "the field %s is missing", name), NULL;
}

static int read_number(struct consume_entry *entry, const char *name, int64_t least, int64_t most, int64_t *number)
{
	const char *text = read_text(entry, name);
	char *end;
	long long value;

	if (!text)
		return -EINVAL;
	errno = 0;
	value = strtoll(text, &end, 10);
	if (errno || !*text || *end || value < least || value > most || text[strspn(text, "0123456789")])
		return refuse(entry, "%s is no number from %lld to %lld", name, (long long)least, (long long)most);
	*number = value;
	return 0;
}

/* `may_be_none`: an empty text, for a time that has not come or never does. */
static int read_time(struct consume_entry *entry, const char *name, bool may_be_none, const char **text)
{
	uint64_t ns;

	*text = read_text(entry, name);
	if (!*text)
		return -EINVAL;
	if ((may_be_none && !**text) || !time_parse_rfc3339(*text, &ns))
		return 0;
	return refuse(entry, "%s is no time as RFC 3339 has it", name);
}

static int read_hex(struct consume_entry *entry, const char *name, const char **text)
{
	*text = read_text(entry, name);
	if (!*text)
		return -EINVAL;
	if (strlen(*text) == HEX_DIGITS && strspn(*text, "0123456789abcdef") == HEX_DIGITS)
		return 0;
	return refuse(entry, "%s is not 16 hex digits", name);
}

static int read_order(struct consume_entry *entry)
{
	const char *restocked;

	if (read_hex(entry, "id", &entry->id) || read_hex(entry, "buyer", &entry->buyer) ||
		read_number(entry, "seq", 1, INT64_MAX, &entry->seq) ||
		read_number(entry, "quantity", 1, UINT32_MAX, &entry->quantity) ||
		read_number(entry, "network", 0, UINT32_MAX, &entry->network) ||
		read_time(entry, "admitted_at", false, &entry->admitted_at) ||
		read_time(entry, "committed_at", false, &entry->committed_at) ||
		read_time(entry, "expires_at", true, &entry->expires_at) ||
		read_time(entry, "resolved_at", true, &entry->resolved_at) ||
		!(entry->state = read_text(entry, "state")) || !(entry->source = read_text(entry, "source")) ||
		!(entry->resolved_by = read_text(entry, "resolved_by")) || !(restocked = read_text(entry, "restocked")))
		return -EINVAL;
	if (!store_state_of_word(entry->state))
		return refuse(entry, "state is none that an order can have");
	if (*entry->resolved_by && !store_by_of_word(entry->resolved_by))
		return refuse(entry, "resolved_by is not buyer, shop or time");
	if (strlen(entry->source) >= ADDR_TEXT_MAX)
		return refuse(entry, "source is no address");
	entry->restocked = !strcmp(restocked, "true");
	return entry->restocked || !strcmp(restocked, "false") ? 0 : refuse(entry, "restocked is not true or false");
}

static int read_sale(struct consume_entry *entry)
{
	if (read_number(entry, "put_in", 0, INT64_MAX, &entry->put_in) ||
		read_number(entry, "held", 0, INT64_MAX, &entry->held) ||
		read_number(entry, "confirmed", 0, INT64_MAX, &entry->confirmed))
		return -EINVAL;
	return 0;
}

int consume_entry_read(struct consume_entry *entry)
{
	const char *sale;
	unsigned type;

	entry->reason[0] = '\0';
	if (!(entry->type = read_text(entry, "type")) || !(sale = read_text(entry, "sale")) ||
		read_number(entry, "node", 1, UINT32_MAX, &entry->node) ||
		read_number(entry, "position", 1, INT64_MAX, &entry->position) ||
		read_time(entry, "at", false, &entry->at))
		return -EINVAL;
	if (strcmp(sale, entry->slug) != 0)
		return refuse(entry, "sale is another than that of the stream");
	type = store_event_of_word(entry->type);
	if (!type)
		return refuse(entry, "type is none that this program knows");
	entry->is_order = type < STORE_SALE_OPENED;
	return entry->is_order ? read_order(entry) : read_sale(entry);
}

/* A byte of the raw text is escaped to four at most, and its end needs room for the sentence. */
#define RAW_ROOM 64

char *consume_entry_raw(const struct consume_entry *entry)
{
	size_t used = 0, missing = 0, size = RAW_ROOM;
	char *text;

	for (size_t i = 0; entry->fields && i < entry->fields->elements; i++)
		size += 4 * entry->fields->element[i]->len + 1;
	if (size > CONSUME_RAW_MAX)
		size = CONSUME_RAW_MAX;
	text = malloc(size);
	if (!text)
		return NULL;
	text[0] = '\0';
	for (size_t i = 0; entry->fields && i < entry->fields->elements; i++) {
		const redisReply *part = entry->fields->element[i];

		for (size_t at = 0; part->type == REDIS_REPLY_STRING && at < part->len; at++) {
			unsigned char byte = (unsigned char)part->str[at];

			if (missing || used + RAW_ROOM > size)
				missing++;
			else
				used += (size_t)snprintf(text + used, size - used,
					byte < ' ' || byte > '~' || byte == '\\' ? "\\x%02x" : "%c", byte);
		}
		if (i + 1 == entry->fields->elements)
			break;
		if (missing || used + RAW_ROOM > size)
			missing++;
		else
			used += (size_t)snprintf(text + used, size - used, "%c", i % 2 ? ' ' : '=');
	}
	if (missing)
		snprintf(text + used, size - used, " (%zu more bytes are in the stream)", missing);
	return text;
}
