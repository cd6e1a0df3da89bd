/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The JSON questions of docs/writer-protocol.md. Called by server.c for each WIRE_QUERY and WIRE_HELLO.
 *
 * A question is read strictly: each field has one type and a range, and a field that nobody asked for is an error that
 * names it. A daemon of another version then hears of a misunderstanding instead of having half of what it said
 * ignored.
 */
#include "writer/query.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PACE_MAX 1000000000
#define TOKEN_MULTIPLIER_MAX 1000000
#define SERIAL_HEX_DIGITS 16
#define SLUG_CHARACTERS "abcdefghijklmnopqrstuvwxyz0123456789-"

/* Reads the fields of one object. The first thing that is wrong stays in `error`; the reading functions then do no
 * more.
 */
struct fields {
	const json_t *object;
	size_t used; /* fields that were asked for and are there */
	const char *known[16];
	unsigned known_count;
	char *error; /* STORE_ERROR_MAX, "" = none */
};

static void fields_fail(struct fields *fields, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void fields_fail(struct fields *fields, const char *format, ...)
{
	va_list args;

	if (fields->error[0])
		return;
	va_start(args, format);
	vsnprintf(fields->error, STORE_ERROR_MAX, format, args);
	va_end(args);
}

static const json_t *fields_get(struct fields *fields, const char *name, bool required)
{
	const json_t *value = json_object_get(fields->object, name);

	fields->known[fields->known_count++] = name;
	if (value)
		fields->used++;
	else if (required)
		fields_fail(fields, "%s is missing", name);
	return value;
}

static int64_t fields_integer(struct fields *fields, const char *name, int64_t low, int64_t high)
{
	const json_t *value = fields_get(fields, name, true);

	if (!value)
		return 0;
	if (!json_is_integer(value) || json_integer_value(value) < low || json_integer_value(value) > high) {
		fields_fail(fields, "%s must be an integer from %" PRId64 " to %" PRId64, name, low, high);
		return 0;
	}
	return json_integer_value(value);
}

static bool fields_bool(struct fields *fields, const char *name)
{
	const json_t *value = fields_get(fields, name, true);

	if (value && !json_is_boolean(value))
		fields_fail(fields, "%s must be true or false", name);
	return json_is_true(value);
}

/* Copies a text of low..high bytes; an absent one that is not required is "". */
static void fields_text(struct fields *fields, const char *name, bool required, size_t low, size_t high, char *text)
{
	const json_t *value = fields_get(fields, name, required);

	text[0] = '\0';
	if (!value)
		return;
	/* A NUL inside would cut it short: two keys could then be one. */
	if (!json_is_string(value) || json_string_length(value) < low || json_string_length(value) > high ||
		strlen(json_string_value(value)) != json_string_length(value)) {
		fields_fail(fields, "%s must be a text of %zu to %zu bytes", name, low, high);
		return;
	}
	strcpy(text, json_string_value(value));
}

/* Every field that is there must have been asked for. Returns 0 or -EINVAL. */
static int fields_end(struct fields *fields)
{
	const char *name;
	json_t *value;

	if (fields->error[0])
		return -EINVAL;
	if (fields->used == json_object_size(fields->object))
		return 0;
	json_object_foreach((json_t *)(uintptr_t)fields->object, name, value) {
		bool known = false;

		for (unsigned i = 0; i < fields->known_count; i++)
			known |= !strcmp(name, fields->known[i]);
		if (!known)
			fields_fail(fields, "unknown field %s", name);
	}
	return -EINVAL;
}

static void read_sale(struct fields *fields, struct store_sale *sale)
{
	sale->id = (uint32_t)fields_integer(fields, "id", 1, UINT32_MAX);
	fields_text(fields, "slug", true, 1, STORE_SLUG_MAX, sale->slug);
	if (sale->slug[strspn(sale->slug, SLUG_CHARACTERS)] || sale->slug[0] == '-' ||
		(sale->slug[0] && sale->slug[strlen(sale->slug) - 1] == '-'))
		fields_fail(fields, "slug may have a-z, 0-9 and '-', and neither begins nor ends with '-'");
	sale->opens_ns = (uint64_t)fields_integer(fields, "opens_ns", 0, INT64_MAX);
	sale->ends_ns = (uint64_t)fields_integer(fields, "ends_ns", 0, INT64_MAX);
	if (sale->opens_ns >= sale->ends_ns)
		fields_fail(fields, "ends_ns must be later than opens_ns");
	sale->per_buyer = (uint32_t)fields_integer(fields, "per_buyer", 1, SLUICE_MAX_QUANTITY);
	sale->hold_seconds = (uint32_t)fields_integer(fields, "hold_seconds", 0, UINT32_MAX);
	sale->pace_per_second = (uint32_t)fields_integer(fields, "pace_per_second", 0, PACE_MAX);
	fields_text(fields, "order_mode", true, 1, STORE_MODE_MAX, sale->order_mode);
	if (strcmp(sale->order_mode, "confirm"))
		fields_fail(fields, "order_mode must be \"confirm\"");
	sale->token_multiplier = (uint32_t)fields_integer(fields, "token_multiplier", 0, TOKEN_MULTIPLIER_MAX);
	sale->paused = fields_bool(fields, "paused");
	sale->ended = fields_bool(fields, "ended");
}

static json_t *sale_json(const struct store_sale *sale)
{
	return json_pack("{s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:b, s:b, s:I, s:I, s:I, s:I}", "id",
		(json_int_t)sale->id, "slug", sale->slug, "opens_ns", (json_int_t)sale->opens_ns, "ends_ns",
		(json_int_t)sale->ends_ns, "per_buyer", (json_int_t)sale->per_buyer, "hold_seconds",
		(json_int_t)sale->hold_seconds, "pace_per_second", (json_int_t)sale->pace_per_second, "order_mode",
		sale->order_mode, "token_multiplier", (json_int_t)sale->token_multiplier, "paused", sale->paused,
		"ended", sale->ended, "put_in", (json_int_t)sale->put_in, "held", (json_int_t)sale->held, "confirmed",
		(json_int_t)sale->confirmed, "orders", (json_int_t)sale->orders);
}

static json_t *order_json(const struct store_order *order)
{
	char id[SERIAL_HEX_DIGITS + 1], buyer[SERIAL_HEX_DIGITS + 1];

	snprintf(id, sizeof(id), "%016" PRIx64, order->serial);
	snprintf(buyer, sizeof(buyer), "%016" PRIx64, order->buyer);
	return json_pack("{s:s, s:I, s:I, s:s, s:I, s:s, s:s, s:I, s:I, s:I}", "id", id, "sale",
		(json_int_t)order->sale, "seq", (json_int_t)order->seq, "state", order->state, "quantity",
		(json_int_t)order->quantity, "buyer", buyer, "source", order->source, "network",
		(json_int_t)order->network, "admitted_ns", (json_int_t)order->admitted_ns, "committed_ns",
		(json_int_t)order->committed_ns);
}

/* An operation reads its fields, asks the store, and gives an answer or a negative errno with store->error set. */
struct question {
	struct store *store;
	struct fields fields;
	uint64_t now_ns;
	json_t *answer;
};

/* A list as it grows. A list that memory did not suffice for is no answer: `failed`. */
struct listing {
	json_t *array;
	bool failed;
};

static int append_sale(const struct store_sale *sale, void *arg)
{
	struct listing *listing = arg;

	listing->failed = json_array_append_new(listing->array, sale_json(sale));
	return listing->failed;
}

static int ask_sales_list(struct question *question)
{
	struct listing sales = {.failed = false};
	int error = fields_end(&question->fields);

	if (error)
		return error;
	sales.array = json_array();
	error = question->store->ops->sales_list(question->store, append_sale, &sales);
	if (error || sales.failed)
		json_decref(sales.array);
	else
		question->answer = json_pack("{s:o}", "sales", sales.array);
	return error;
}

static int ask_sale_put(struct question *question)
{
	struct fields *fields = &question->fields;
	struct fields inner = {.error = fields->error};
	struct store_move first = {.reason = "created"};
	struct store_sale sale = {.id = 0};
	bool with_stock;
	int error;

	inner.object = fields_get(fields, "sale", true);
	if (inner.object && !json_is_object(inner.object))
		fields_fail(fields, "sale must be an object");
	if (fields->error[0])
		return -EINVAL;
	read_sale(&inner, &sale);
	with_stock = json_object_get(fields->object, "stock");
	if (with_stock) {
		first.sale = sale.id;
		first.delta = fields_integer(fields, "stock", 0, INT64_MAX);
		fields_text(fields, "key", true, 1, STORE_KEY_MAX, first.key);
	}
	if (fields_end(&inner) || fields_end(fields))
		return -EINVAL;
	error = question->store->ops->sale_put(question->store, &sale, with_stock ? &first : NULL, question->now_ns);
	if (!error)
		question->answer = json_pack("{s:o}", "sale", sale_json(&sale));
	return error;
}

static int ask_stock_move(struct question *question)
{
	struct fields *fields = &question->fields;
	struct store_move move = {.sale = (uint32_t)fields_integer(fields, "sale", 1, UINT32_MAX)};
	int64_t put_in;
	int error;

	move.delta = fields_integer(fields, "delta", -INT64_MAX, INT64_MAX);
	if (!move.delta)
		fields_fail(fields, "delta must not be 0");
	fields_text(fields, "key", true, 1, STORE_KEY_MAX, move.key);
	fields_text(fields, "reason", false, 0, STORE_REASON_MAX, move.reason);
	error = fields_end(fields);
	if (!error)
		error = question->store->ops->stock_move(question->store, &move, question->now_ns, &put_in);
	if (!error)
		question->answer = json_pack("{s:I}", "put_in", (json_int_t)put_in);
	return error;
}

static bool known_state(const char *state)
{
	static const char *const states[] = {"", "held", "confirmed", "cancelled", "expired", "refunded"};

	for (unsigned i = 0; i < sizeof(states) / sizeof(*states); i++)
		if (!strcmp(state, states[i]))
			return true;
	return false;
}

static int append_order(const struct store_order *order, void *arg)
{
	struct listing *listing = arg;

	listing->failed = json_array_append_new(listing->array, order_json(order));
	return listing->failed;
}

static int ask_orders_list(struct question *question)
{
	struct fields *fields = &question->fields;
	struct store_order_filter filter = {.sale = (uint32_t)fields_integer(fields, "sale", 0, UINT32_MAX)};
	struct listing orders = {.failed = false};
	int64_t next = 0;
	int error;

	fields_text(fields, "state", true, 0, STORE_STATE_MAX, filter.state);
	if (!known_state(filter.state))
		fields_fail(fields, "state must be held, confirmed, cancelled, expired, refunded, or empty for any");
	filter.after = fields_integer(fields, "after", 0, INT64_MAX);
	filter.limit = (unsigned)fields_integer(fields, "limit", 1, STORE_LIST_MAX);
	error = fields_end(fields);
	if (error)
		return error;
	orders.array = json_array();
	error = question->store->ops->orders_list(question->store, &filter, append_order, &orders, &next);
	if (error || orders.failed)
		json_decref(orders.array);
	else
		question->answer = json_pack(
			"{s:o, s:o}", "orders", orders.array, "next", next ? json_integer(next) : json_null());
	return error;
}

static int ask_order_get(struct question *question)
{
	struct fields *fields = &question->fields;
	char hex[SERIAL_HEX_DIGITS + 1];
	struct store_order order;
	int error;

	fields_text(fields, "id", true, 0, SERIAL_HEX_DIGITS, hex);
	if (strlen(hex) != SERIAL_HEX_DIGITS || hex[strspn(hex, "0123456789abcdef")])
		fields_fail(fields, "id must be %d hex digits in lower case", SERIAL_HEX_DIGITS);
	error = fields_end(fields);
	if (!error)
		error = question->store->ops->order_get(question->store, strtoull(hex, NULL, 16), &order);
	if (!error)
		question->answer = json_pack("{s:o}", "order", order_json(&order));
	return error;
}

static const struct operation {
	const char *name;
	int (*ask)(struct question *question);
} operations[] = {
	{"sales_list", ask_sales_list},
	{"sale_put", ask_sale_put},
	{"stock_move", ask_stock_move},
	{"orders_list", ask_orders_list},
	{"order_get", ask_order_get},
};

static int ask(struct question *question)
{
	const json_t *name = fields_get(&question->fields, "op", true);

	for (unsigned i = 0; json_is_string(name) && i < sizeof(operations) / sizeof(*operations); i++)
		if (!strcmp(json_string_value(name), operations[i].name))
			return operations[i].ask(question);
	fields_fail(&question->fields, "op must be sales_list, sale_put, stock_move, orders_list or order_get");
	return -EINVAL;
}

char *writer_query_error(int error, const char *detail)
{
	const char *code = error == -EINVAL ? "bad_request"
		: error == -ENOENT          ? "not_found"
		: error == -EEXIST          ? "conflict"
					    : "store_error";
	json_t *object = json_pack("{s:s, s:s}", "code", code, "detail", detail);
	char *text;

	if (!object) /* a path or a name in it is not UTF-8, or was cut within a character */
		object = json_pack("{s:s, s:s}", "code", code, "detail", "see the writer's log");
	text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	json_decref(object);
	return text;
}

/* Parses the object that a body must be. NULL with a sentence in `error` (STORE_ERROR_MAX) if it is none. */
static json_t *parse(const void *body, size_t length, char *error)
{
	json_error_t where;
	json_t *object = json_loadb(body, length, JSON_REJECT_DUPLICATES, &where);

	error[0] = '\0';
	if (json_is_object(object))
		return object;
	if (object)
		store_explain(error, -EINVAL, "the body must be a JSON object");
	else
		store_explain(error, -EINVAL, "the body is not JSON: %s (byte %d)", where.text, where.position);
	json_decref(object);
	return NULL;
}

enum wire_type writer_query_answer(struct store *store, const void *body, size_t length, uint64_t now_ns, char **answer)
{
	json_t *object = parse(body, length, store->error);
	struct question question = {
		.store = store, .fields = {.object = object, .error = store->error}, .now_ns = now_ns};
	int error = object ? ask(&question) : -EINVAL;

	*answer = NULL;
	if (!error) {
		*answer = question.answer ? json_dumps(question.answer, JSON_COMPACT) : NULL;
		if (!*answer) {
			/* Only memory can be the cause: what the store gave is UTF-8 and within range. */
			error = -ENOMEM;
			store_explain(store->error, error, "out of memory");
		}
	}
	if (error)
		*answer = writer_query_error(error, store->error);
	json_decref(question.answer);
	json_decref(object);
	return error ? WIRE_ERROR : WIRE_QUERY;
}

enum wire_type writer_query_hello(
	const struct store *store, const char *ledger, const void *body, size_t length, char **answer)
{
	char error[STORE_ERROR_MAX];
	json_t *object = parse(body, length, error);
	struct fields fields = {.object = object, .error = error};
	json_t *reply;

	if (object) {
		fields_integer(&fields, "version", WIRE_VERSION, WIRE_VERSION);
		fields_integer(&fields, "node", 0, UINT32_MAX);
		fields_end(&fields);
		json_decref(object);
	}
	if (error[0]) {
		*answer = writer_query_error(-EINVAL, error);
		return WIRE_ERROR;
	}
	reply = json_pack("{s:i, s:s, s:s}", "version", WIRE_VERSION, "ledger", ledger, "store", store->ops->name);
	*answer =
		reply ? json_dumps(reply, JSON_COMPACT) : writer_query_error(-ENOMEM, "the ledger's path is not UTF-8");
	json_decref(reply);
	return reply ? WIRE_HELLO : WIRE_ERROR;
}
