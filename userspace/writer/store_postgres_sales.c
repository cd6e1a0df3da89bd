/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Sales, their stock and what is announced of them in the PostgreSQL store. A sale's put_in is the sum of its movements, kept in
 * the sale's row by the same transaction that records the movement; a movement is done once per key, whatever is
 * repeated.
 */
#include <errno.h>
#include <string.h>

#include "writer/store_postgres.h"

/* Columns as in POSTGRES_SALE_COLUMNS. */
void postgres_read_sale(const PGresult *result, int row, struct postgres_sale *entry)
{
	struct store_sale *sale = &entry->sale;

	*entry = (struct postgres_sale){.put_in = 0};
	sale->id = (uint32_t)link_integer(result, row, 0);
	link_copy_text(sale->slug, sizeof(sale->slug), result, row, 1);
	sale->opens_ns = (uint64_t)link_integer(result, row, 2);
	sale->ends_ns = (uint64_t)link_integer(result, row, 3);
	sale->per_buyer = (uint32_t)link_integer(result, row, 4);
	sale->hold_seconds = (uint32_t)link_integer(result, row, 5);
	sale->pace_per_second = (uint32_t)link_integer(result, row, 6);
	link_copy_text(sale->order_mode, sizeof(sale->order_mode), result, row, 7);
	sale->token_multiplier = (uint32_t)link_integer(result, row, 8);
	sale->paused = link_bool(result, row, 9);
	sale->ended = link_bool(result, row, 10);
	sale->put_in = link_integer(result, row, 11);
	sale->held = link_integer(result, row, 12);
	sale->confirmed = link_integer(result, row, 13);
	sale->orders = link_integer(result, row, 14);
	entry->announced.opened = link_bool(result, row, 15);
	entry->announced.sold_out = link_bool(result, row, 16);
	entry->announced.ended = link_bool(result, row, 17);
}

void postgres_read_sales(struct postgres *pg, const PGresult *result)
{
	for (int row = 0; row < PQntuples(result); row++) {
		struct postgres_sale *entry = &pg->sales[pg->sale_count++];

		postgres_read_sale(result, row, entry);
		*tally_value(&pg->tally, TALLY_SALE, 0, entry->sale.id) = pg->sale_count;
	}
}

/* Returns 0, -ENOENT with a sentence, or -EIO. */
static int get_sale(struct postgres *pg, uint32_t id, struct postgres_sale *entry)
{
	struct link_values values = {.count = 0};
	PGresult *rows;
	int code;

	link_put_integer(&values, id);
	code = postgres_run(pg, POSTGRES_SALE_GET, &values, "look up a sale", &rows);
	if (!code && PQntuples(rows))
		postgres_read_sale(rows, 0, entry);
	else if (!code)
		code = store_explain(pg->base.error, -ENOENT, "no sale with id %u", (unsigned)id);
	PQclear(rows);
	return code;
}

int postgres_sales_list(struct store *store, uint32_t after, unsigned limit, store_sale_visit visit, void *arg)
{
	struct postgres *pg = postgres_of(store);
	struct link_values values = {.count = 0};
	PGresult *rows = NULL;
	int code = postgres_begin_reading(pg);

	if (code)
		return code;
	link_put_integer(&values, after);
	link_put_integer(&values, limit);
	code = postgres_end(pg, postgres_run(pg, POSTGRES_SALES_LIST, &values, "list sales", &rows));
	for (int row = 0; !code && row < PQntuples(rows); row++) {
		struct postgres_sale entry;

		postgres_read_sale(rows, row, &entry);
		if (visit(&entry.sale, arg))
			break;
	}
	PQclear(rows);
	return code;
}

int postgres_sale_books(
	struct store *store, const char *prefix, uint32_t after, unsigned limit, store_book_visit visit, void *arg)
{
	struct postgres *pg = postgres_of(store);
	struct link_values values = {.count = 0};
	PGresult *rows = NULL;
	int code = postgres_begin_reading(pg);

	if (code)
		return code;
	link_put_text(&values, prefix);
	link_put_integer(&values, after);
	link_put_integer(&values, limit);
	code = postgres_end(
		pg, postgres_run(pg, POSTGRES_SALE_BOOKS, &values, "list sales with their documents", &rows));
	for (int row = 0; !code && row < PQntuples(rows); row++) {
		struct postgres_sale entry;
		struct store_book book;

		postgres_read_sale(rows, row, &entry);
		book.sale = entry.sale;
		book.refunded = link_integer(rows, row, 18);
		book.document = link_bool(rows, row, 19) ? link_text(rows, row, 20) : NULL;
		if (visit(&book, arg))
			break;
	}
	PQclear(rows);
	return code;
}

/* 0 if nothing was moved under the key yet, 1 if just this was, -EEXIST if something else was, -EIO. */
static int find_move(struct postgres *pg, const struct store_move *move)
{
	struct link_values values = {.count = 0};
	int64_t sale, delta;
	PGresult *rows;
	int code;

	link_put_text(&values, move->key);
	code = postgres_run(pg, POSTGRES_MOVE_GET, &values, "look up a stock movement", &rows);
	if (!code && PQntuples(rows)) {
		sale = link_integer(rows, 0, 0);
		delta = link_integer(rows, 0, 1);
		code = sale == move->sale && delta == move->delta
			? 1
			: store_explain(pg->base.error, -EEXIST, "key %s moved %+lld units of sale %lld before",
				  move->key, (long long)delta, (long long)sale);
	}
	PQclear(rows);
	return code;
}

/* Records a movement that find_move does not know and keeps the sale's sum. */
static int apply_move(struct postgres *pg, struct store_sale *sale, const struct store_move *move, uint64_t now_ns)
{
	int64_t ordered = sale->held + sale->confirmed;
	struct link_values row = {.count = 0}, sum = {.count = 0};
	int64_t put_in;
	int code;

	if (__builtin_add_overflow(sale->put_in, move->delta, &put_in))
		return store_explain(pg->base.error, -EINVAL, "a stock of %lld%+lld units cannot be counted",
			(long long)sale->put_in, (long long)move->delta);
	if (put_in < ordered)
		return store_explain(pg->base.error, -EEXIST,
			"a stock of %lld units is less than the %lld that are ordered", (long long)put_in,
			(long long)ordered);
	link_put_text(&row, move->key);
	link_put_integer(&row, sale->id);
	link_put_integer(&row, move->delta);
	link_put_text(&row, move->reason);
	link_put_integer(&row, (int64_t)now_ns);
	link_put_integer(&sum, sale->id);
	link_put_integer(&sum, put_in);
	code = postgres_change(pg, POSTGRES_MOVE_INSERT, &row, "record a stock movement", 1);
	if (!code)
		code = postgres_change(pg, POSTGRES_SALE_SET_PUT_IN, &sum, "write the stock of a sale", 1);
	if (!code)
		sale->put_in = put_in;
	return code;
}

/* 1 (the key has moved before) leaves all as it is, the document too. */
int postgres_stock_move(struct store *store, const struct store_move *move, uint64_t now_ns, int64_t *put_in)
{
	struct postgres *pg = postgres_of(store);
	struct postgres_sale entry;
	int code = postgres_begin(pg);

	if (!code)
		code = get_sale(pg, move->sale, &entry);
	if (!code)
		code = find_move(pg, move);
	if (!code)
		code = apply_move(pg, &entry.sale, move, now_ns);
	if (!code && move->document)
		code = postgres_document_write(pg, move->document, move->value, now_ns);
	code = postgres_end(pg, code == 1 ? 0 : code);
	if (!code)
		*put_in = entry.sale.put_in;
	return code;
}

static int write_sale(
	struct postgres *pg, enum postgres_statement name, const struct store_sale *sale, const uint64_t *created_ns)
{
	struct link_values values = {.count = 0};

	link_put_integer(&values, sale->id);
	link_put_text(&values, sale->slug);
	link_put_integer(&values, (int64_t)sale->opens_ns);
	link_put_integer(&values, (int64_t)sale->ends_ns);
	link_put_integer(&values, sale->per_buyer);
	link_put_integer(&values, sale->hold_seconds);
	link_put_integer(&values, sale->pace_per_second);
	link_put_text(&values, sale->order_mode);
	link_put_integer(&values, sale->token_multiplier);
	link_put_integer(&values, sale->paused);
	link_put_integer(&values, sale->ended);
	if (created_ns)
		link_put_integer(&values, (int64_t)*created_ns);
	return postgres_change(pg, name, &values, "write a sale", 1);
}

static int create_sale(
	struct postgres *pg, const struct store_sale *sale, const struct store_move *first, uint64_t now_ns)
{
	struct link_values values = {.count = 0};
	struct store_sale fresh = {.id = sale->id};
	PGresult *other;
	int code;

	link_put_text(&values, sale->slug);
	code = postgres_run(pg, POSTGRES_SALE_OF_SLUG, &values, "look up a sale", &other);
	if (!code && PQntuples(other))
		code = store_explain(pg->base.error, -EEXIST, "%s is the slug of the sale with id %lld", sale->slug,
			(long long)link_integer(other, 0, 0));
	PQclear(other);
	if (!code && first)
		code = find_move(pg, first);
	if (code > 0) /* a movement of a sale that is not there cannot be */
		code = store_explain(pg->base.error, -EEXIST, "key %s was used before", first->key);
	if (!code)
		code = write_sale(pg, POSTGRES_SALE_INSERT, sale, &now_ns);
	return !code && first ? apply_move(pg, &fresh, first, now_ns) : code;
}

static int change_sale(struct postgres *pg, const struct store_sale *stored, const struct store_sale *sale,
	const struct store_move *first)
{
	if (strcmp(stored->slug, sale->slug))
		return store_explain(pg->base.error, -EEXIST, "the sale with id %u has the slug %s", (unsigned)sale->id,
			stored->slug);
	if (stored->ended && !sale->ended)
		return store_explain(pg->base.error, -EEXIST, "the sale %s has been ended", sale->slug);
	if (first) {
		/* A repetition of the question that created the sale brings its stock along; anything else must not. */
		int code = find_move(pg, first);

		if (code <= 0)
			return code ? code
				    : store_explain(pg->base.error, -EEXIST,
					      "the sale %s exists: change its stock by a movement", sale->slug);
	}
	return write_sale(pg, POSTGRES_SALE_CHANGE, sale, NULL);
}

int postgres_sale_put(struct store *store, struct store_sale *sale, const struct store_move *first, uint64_t now_ns)
{
	struct postgres *pg = postgres_of(store);
	struct postgres_sale stored;
	int code = postgres_begin(pg);

	if (!code)
		code = get_sale(pg, sale->id, &stored);
	if (code == -ENOENT)
		code = create_sale(pg, sale, first, now_ns);
	else if (!code)
		code = change_sale(pg, &stored.sale, sale, first);
	if (!code)
		code = get_sale(pg, sale->id, &stored);
	code = postgres_end(pg, code);
	if (!code)
		*sale = stored.sale;
	return code;
}

static int announce(struct postgres *pg, struct postgres_sale *entry, enum store_event_type type, uint64_t now_ns)
{
	struct link_values event = {.count = 0}, sale = {.count = 0};
	PGresult *last;
	int code = postgres_run(pg, POSTGRES_LAST_POSITION, NULL, "find the last position", &last);

	if (code)
		return code;
	store_sale_event_apply(&entry->announced, type);
	link_put_integer(&event, entry->sale.id);
	link_put_integer(&event, link_integer(last, 0, 0) + 1);
	link_put_text(&event, store_event_word(type));
	link_put_integer(&event, (int64_t)now_ns);
	link_put_integer(&sale, entry->sale.id);
	link_put_integer(&sale, entry->announced.opened);
	link_put_integer(&sale, entry->announced.sold_out);
	link_put_integer(&sale, entry->announced.ended);
	PQclear(last);
	code = postgres_change(pg, POSTGRES_SALE_EVENT_ADD, &event, "record an event", 1);
	return code ? code : postgres_change(pg, POSTGRES_SALE_ANNOUNCE, &sale, "record an event", 1);
}

int postgres_sale_event(struct store *store, uint32_t sale, enum store_event_type type, uint64_t now_ns, bool *recorded)
{
	struct postgres *pg = postgres_of(store);
	struct postgres_sale entry;
	bool news = false;
	int code = postgres_begin(pg);

	if (!code)
		code = get_sale(pg, sale, &entry);
	if (!code) {
		news = store_sale_event_is_news(&entry.announced, type);
		code = news ? announce(pg, &entry, type, now_ns) : 0;
	}
	code = postgres_end(pg, code);
	if (!code)
		*recorded = news;
	return code;
}
