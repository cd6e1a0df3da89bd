/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Fuzz target: an entry of an order stream, as whoever can write to Redis may leave it there (userspace/writer/consume_entry.c).
 *
 * The input is one answer (reply.h): the entry's fields. Claims: a second reader, of docs/stream.md alone, says the same of each entry; what is taken
 * has the values that stand there; what is refused has a sentence; and what is put aside is told byte by byte, or says how many bytes it does not tell.
 */
#include "check.h"
#include "common/addr.h"
#include "common/timefmt.h"
#include "reply.h"
#include "writer/consume_entry.h"

#define SLUG "drop-11"

enum kind { TEXT, NUMBER, TIME, TIME_OR_NONE, HEX, WORD };

struct field {
	const char *name;
	enum kind kind;
	uint64_t least, most;
	const char *words; /* between spaces; two spaces: the empty one too */
};

#define SALE_TYPES " sale.opened sale.sold_out sale.restocked sale.ended "
#define ORDER_TYPES " order.held order.confirmed order.cancelled order.expired order.refunded "

static const struct field common_fields[] = {
	{.name = "type", .kind = TEXT},
	{.name = "sale", .kind = WORD, .words = " " SLUG " "},
	{.name = "node", .kind = NUMBER, .least = 1, .most = UINT32_MAX},
	{.name = "position", .kind = NUMBER, .least = 1, .most = INT64_MAX},
	{.name = "at", .kind = TIME},
};
static const struct field order_fields[] = {
	{.name = "id", .kind = HEX},
	{.name = "buyer", .kind = HEX},
	{.name = "seq", .kind = NUMBER, .least = 1, .most = INT64_MAX},
	{.name = "quantity", .kind = NUMBER, .least = 1, .most = UINT32_MAX},
	{.name = "network", .kind = NUMBER, .least = 0, .most = UINT32_MAX},
	{.name = "admitted_at", .kind = TIME},
	{.name = "committed_at", .kind = TIME},
	{.name = "expires_at", .kind = TIME_OR_NONE},
	{.name = "resolved_at", .kind = TIME_OR_NONE},
	{.name = "state", .kind = WORD, .words = " held confirmed cancelled expired refunded "},
	{.name = "resolved_by", .kind = WORD, .words = "  buyer shop time "},
	{.name = "restocked", .kind = WORD, .words = " true false "},
	{.name = "source", .kind = TEXT, .most = ADDR_TEXT_MAX - 1},
};
static const struct field sale_fields[] = {
	{.name = "put_in", .kind = NUMBER, .least = 0, .most = INT64_MAX},
	{.name = "held", .kind = NUMBER, .least = 0, .most = INT64_MAX},
	{.name = "confirmed", .kind = NUMBER, .least = 0, .most = INT64_MAX},
};

/* The first of that name, or NULL. */
static const redisReply *find(const redisReply *fields, const char *name)
{
	for (size_t i = 0; i + 1 < fields->elements; i += 2) {
		const redisReply *key = fields->element[i], *value = fields->element[i + 1];

		if (key->type == REDIS_REPLY_STRING && value->type == REDIS_REPLY_STRING && key->len == strlen(name) &&
			!memcmp(key->str, name, key->len))
			return value;
	}
	return NULL;
}

static bool is_number(const redisReply *value, uint64_t least, uint64_t most)
{
	unsigned __int128 number = 0;

	for (size_t i = 0; i < value->len; i++) {
		if (value->str[i] < '0' || value->str[i] > '9')
			return false;
		number = number * 10 + (unsigned)(value->str[i] - '0');
		if (number > most)
			return false;
	}
	return value->len && number >= least;
}

static bool is_one_of(const redisReply *value, const char *words)
{
	char *word = malloc(value->len + 3);
	bool is_there;

	CHECK(word, "memory");
	snprintf(word, value->len + 3, " %s ", value->str);
	is_there = !strchr(value->str, ' ') && strstr(words, word);
	free(word);
	return is_there;
}

static bool is_right(const redisReply *fields, const struct field *field)
{
	const redisReply *value = find(fields, field->name);
	uint64_t ns;

	if (!value)
		return false;
	for (size_t i = 0; i < value->len; i++)
		if (value->str[i] < 0x20 || value->str[i] > 0x7e)
			return false;
	switch (field->kind) {
	case NUMBER:
		return is_number(value, field->least, field->most);
	case TIME:
		return !time_parse_rfc3339(value->str, &ns);
	case TIME_OR_NONE:
		return !value->len || !time_parse_rfc3339(value->str, &ns);
	case HEX:
		for (size_t i = 0; i < value->len; i++)
			if (!strchr("0123456789abcdef", value->str[i]))
				return false;
		return value->len == 16;
	case WORD:
		return is_one_of(value, field->words);
	default:
		return !field->most || value->len <= field->most;
	}
}

static bool are_right(const redisReply *fields, const struct field *table, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!is_right(fields, &table[i]))
			return false;
	return true;
}

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static bool is_entry(const redisReply *fields, bool *is_order)
{
	const redisReply *type;

	if (!are_right(fields, common_fields, COUNT(common_fields)))
		return false;
	type = find(fields, "type");
	*is_order = is_one_of(type, ORDER_TYPES);
	if (*is_order)
		return are_right(fields, order_fields, COUNT(order_fields));
	return is_one_of(type, SALE_TYPES) && are_right(fields, sale_fields, COUNT(sale_fields));
}

static void check_number(const redisReply *fields, const char *name, int64_t number)
{
	CHECK(strtoll(find(fields, name)->str, NULL, 10) == number, "%s is %lld", name, (long long)number);
}

static void check_text(const redisReply *fields, const char *name, const char *text)
{
	CHECK(text == find(fields, name)->str, "%s is another", name);
}

static void check_values(const struct consume_entry *entry)
{
	const redisReply *fields = entry->fields;

	check_text(fields, "type", entry->type);
	check_text(fields, "at", entry->at);
	check_number(fields, "node", entry->node);
	check_number(fields, "position", entry->position);
	if (!entry->is_order) {
		check_number(fields, "put_in", entry->put_in);
		check_number(fields, "held", entry->held);
		check_number(fields, "confirmed", entry->confirmed);
		return;
	}
	check_text(fields, "id", entry->id);
	check_text(fields, "state", entry->state);
	check_text(fields, "buyer", entry->buyer);
	check_text(fields, "source", entry->source);
	check_text(fields, "admitted_at", entry->admitted_at);
	check_text(fields, "committed_at", entry->committed_at);
	check_text(fields, "expires_at", entry->expires_at);
	check_text(fields, "resolved_at", entry->resolved_at);
	check_text(fields, "resolved_by", entry->resolved_by);
	check_number(fields, "seq", entry->seq);
	check_number(fields, "quantity", entry->quantity);
	check_number(fields, "network", entry->network);
	CHECK(entry->restocked == !strcmp(find(fields, "restocked")->str, "true"), "restocked");
}

static void check_printable(const char *text)
{
	for (const char *at = text; *at; at++)
		CHECK(*at >= ' ' && *at <= '~', "byte %d", *at);
}

/* Where the note of what is missing begins; the text's end if nothing is. */
static const char *find_note(const char *raw)
{
	static const char words[] = " more bytes are in the stream)";
	size_t length = strlen(raw);

	if (length < CONSUME_RAW_MAX - 128 || strcmp(raw + length - strlen(words), words) != 0)
		return raw + length;
	return strrchr(raw, '(') - 1;
}

/* Byte by byte what is told, and what is not. */
static void check_raw(const redisReply *fields, const char *raw)
{
	static const char digits[] = "0123456789abcdef";
	unsigned long long missing = 0, told_missing = 0;
	const char *at = raw, *note = find_note(raw);

	check_printable(raw);
	CHECK(strlen(raw) < CONSUME_RAW_MAX, "%zu bytes", strlen(raw));
	for (size_t i = 0; i < fields->elements; i++) {
		const redisReply *part = fields->element[i];
		size_t length = part->type == REDIS_REPLY_STRING ? part->len : 0;

		for (size_t j = 0; j < length + (i + 1 < fields->elements); j++) {
			unsigned char byte = j < length ? (unsigned char)part->str[j] : i % 2 ? ' ' : '=';
			bool is_plain = j == length || (byte >= ' ' && byte <= '~' && byte != '\\');
			char told[] = {'\\', 'x', digits[byte >> 4], digits[byte & 15], '\0'};

			if (*note && at == note) {
				missing++;
				continue;
			}
			if (is_plain)
				memcpy(told, (char[]){(char)byte, '\0'}, 2);
			CHECK(!strncmp(at, told, strlen(told)), "part %zu, byte %zu: \"%.8s\", not \"%s\"", i, j, at,
				told);
			at += strlen(told);
		}
	}
	CHECK(at == note, "more than there is: \"%.20s\"", at);
	if (*note)
		CHECK(sscanf(note, " (%llu", &told_missing) == 1 && told_missing == missing,
			"%llu bytes are missing: \"%s\"", missing, note);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct consume_entry entry = {.stream = "sluice:{" SLUG "}:orders", .slug = SLUG, .entry = "1-1"};
	struct input input = {bytes, size};
	redisReply *fields = reply_read(&input);
	bool is_order = false, is_good;
	char *raw;
	int err;

	/* Anything else is known to be removed before it is read. */
	if (fields->type != REDIS_REPLY_ARRAY)
		goto out;
	entry.fields = fields;
	err = consume_entry_read(&entry);
	is_good = is_entry(fields, &is_order);
	CHECK(is_good == !err, "%s: \"%s\"", is_good ? "refused" : "taken", entry.reason);
	CHECK(!err || err == -22, "%d", err);
	CHECK(!err == !*entry.reason, "a sentence: \"%s\"", entry.reason);
	check_printable(entry.reason);
	if (!err) {
		CHECK(entry.is_order == is_order, "kind");
		check_values(&entry);
	}
	raw = consume_entry_raw(&entry);
	CHECK(raw, "memory");
	check_raw(fields, raw);
	free(raw);
out:
	freeReplyObject(fields);
	return 0;
}
