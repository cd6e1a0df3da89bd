/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The questions about sales and their stock, as docs/writer-protocol.md has them. Called by query.c. */
#include <errno.h>
#include <string.h>

#include "writer/query_inside.h"

#define PACE_MAX 1000000000
#define TOKEN_MULTIPLIER_MAX 1000000
#define SLUG_CHARACTERS "abcdefghijklmnopqrstuvwxyz0123456789-"

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

/* One more than it has room for is asked for, to know whether there are more. */
struct sales_page {
	struct listing sales;
	unsigned left; /* until the page is full */
	uint32_t last;
	bool more;
};

/* False if it is full. */
static bool has_room(struct sales_page *page, uint32_t id)
{
	page->more = !page->left;
	if (page->more)
		return false;
	page->left--;
	page->last = id;
	return true;
}

static int answer_page(struct question *question, struct sales_page *page, const char *name, int error)
{
	error = listing_answer(question, &page->sales, name, error);
	answer_add(question, "next", page->more ? json_integer(page->last) : json_null());
	return error;
}

static int append_sale(const struct store_sale *sale, void *arg)
{
	struct sales_page *page = arg;

	return has_room(page, sale->id) ? listing_append(&page->sales, sale_json(sale)) : 1;
}

int ask_sales_list(struct question *question)
{
	struct fields *fields = &question->fields;
	struct sales_page page = {.left = STORE_SALES_MAX};
	uint32_t after = fields_has(fields, "after") ? (uint32_t)fields_integer(fields, "after", 0, UINT32_MAX) : 0;
	int error = fields_end(fields);

	if (error)
		return error;
	page.sales.array = json_array();
	error = question->store->ops->sales_list(question->store, after, page.left + 1, append_sale, &page);
	return answer_page(question, &page, "sales", error);
}

static int append_book(const struct store_book *book, void *arg)
{
	struct sales_page *page = arg;

	if (!has_room(page, book->sale.id))
		return 1;
	return listing_append(&page->sales,
		json_pack("{s:I, s:s, s:I, s:I, s:I, s:I, s:s?}", "id", (json_int_t)book->sale.id, "slug",
			book->sale.slug, "put_in", (json_int_t)book->sale.put_in, "held", (json_int_t)book->sale.held,
			"confirmed", (json_int_t)book->sale.confirmed, "refunded", (json_int_t)book->refunded,
			"document", book->document));
}

int ask_sale_books(struct question *question)
{
	struct fields *fields = &question->fields;
	struct sales_page page = {.more = false};
	char prefix[STORE_NAME_MAX + 1];
	uint32_t after = (uint32_t)fields_integer(fields, "after", 0, UINT32_MAX);
	int error;

	page.left = (unsigned)fields_integer(fields, "limit", 1, STORE_BOOKS_MAX);
	document_read_name(fields, "documents", prefix);
	error = fields_end(fields);
	if (error)
		return error;
	page.sales.array = json_array();
	error = question->store->ops->sale_books(question->store, prefix, after, page.left + 1, append_book, &page);
	return answer_page(question, &page, "books", error);
}

/* The key of a stock movement. The ledger makes some by itself, which nobody else may name: a movement under such a key
 * would stand where that of a refund belongs.
 */
static int check_key(struct question *question, const struct store_move *move)
{
	if (strncmp(move->key, STORE_REFUND_KEY, strlen(STORE_REFUND_KEY)))
		return 0;
	return store_explain(question->store->error, -EEXIST,
		"key %s: those that begin with " STORE_REFUND_KEY " are the ledger's own", move->key);
}

int ask_sale_put(struct question *question)
{
	struct fields *fields = &question->fields;
	struct fields inner = fields_object(fields, "sale", true);
	struct store_move first = {.reason = "created"};
	struct store_sale sale = {.id = 0};
	bool with_stock;
	int error;

	if (fields->error[0])
		return -EINVAL;
	read_sale(&inner, &sale);
	with_stock = fields_has(fields, "stock");
	if (with_stock) {
		first.sale = sale.id;
		first.delta = fields_integer(fields, "stock", 0, INT64_MAX);
		fields_text(fields, "key", true, 1, STORE_KEY_MAX, first.key);
	}
	if (fields_end(&inner) || fields_end(fields))
		return -EINVAL;
	error = check_key(question, &first);
	if (!error)
		error = windows_note(question->store, &sale, question->now_ns);
	if (!error)
		error = question->store->ops->sale_put(
			question->store, &sale, with_stock ? &first : NULL, question->now_ns);
	if (!error)
		question->answer = json_pack("{s:o}", "sale", sale_json(&sale));
	return error;
}

/* A document that is to say what the movement was for, at no moment without it. */
static void read_document(struct fields *fields, struct store_move *move, char *name)
{
	struct fields inner = fields_object(fields, "document", true);

	if (!inner.object)
		return;
	document_read_name(&inner, "name", name);
	move->document = name;
	move->value = fields_long_text(&inner, "value", STORE_DOCUMENT_MAX);
	fields_end(&inner);
}

int ask_stock_move(struct question *question)
{
	struct fields *fields = &question->fields;
	struct store_move move = {.sale = (uint32_t)fields_integer(fields, "sale", 1, UINT32_MAX)};
	char document[STORE_NAME_MAX + 1];
	int64_t put_in;
	int error;

	move.delta = fields_integer(fields, "delta", -INT64_MAX, INT64_MAX);
	if (!move.delta)
		fields_fail(fields, "delta must not be 0");
	fields_text(fields, "key", true, 1, STORE_KEY_MAX, move.key);
	fields_text(fields, "reason", false, 0, STORE_REASON_MAX, move.reason);
	if (fields_has(fields, "document"))
		read_document(fields, &move, document);
	error = fields_end(fields);
	if (!error)
		error = check_key(question, &move);
	if (!error)
		error = question->store->ops->stock_move(question->store, &move, question->now_ns, &put_in);
	if (!error)
		question->answer = json_pack("{s:I}", "put_in", (json_int_t)put_in);
	return error;
}

static unsigned sale_event_of_word(const char *word)
{
	unsigned type = store_event_of_word(word);

	return type >= STORE_SALE_OPENED ? type : 0;
}

int ask_sale_event(struct question *question)
{
	struct fields *fields = &question->fields;
	uint32_t sale = (uint32_t)fields_integer(fields, "sale", 1, UINT32_MAX);
	enum store_event_type type = fields_word(
		fields, "type", sale_event_of_word, "sale.opened, sale.sold_out, sale.restocked or sale.ended");
	bool recorded = false;
	int error = fields_end(fields);

	if (!error)
		error = question->store->ops->sale_event(question->store, sale, type, question->now_ns, &recorded);
	if (!error)
		question->answer = json_pack("{s:b}", "recorded", recorded);
	return error;
}
