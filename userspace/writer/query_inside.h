/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Inside of the questions: query.c finds the operation, the other query_*.c are the operations. */
#ifndef SLUICE_WRITER_QUERY_INSIDE_H
#define SLUICE_WRITER_QUERY_INSIDE_H

#include "writer/query.h"
#include "writer/query_fields.h"

/* An operation reads its fields, asks the store, and gives an answer or a negative errno with store->error set. An
 * answer of NULL without an error means that memory is out.
 */
struct question {
	struct store *store;
	struct fields fields;
	uint64_t now_ns;
	json_t *answer;
	bool passing; /* the answer may be another the next time: nothing to keep under an idempotency key */
};

/* A list as it grows. A list that memory did not suffice for is no answer: `failed`. */
struct listing {
	json_t *array;
	bool failed;
};

/* Takes over `item`. Returns non-zero when memory is out, which stops a listing of the store. */
int listing_append(struct listing *listing, json_t *item);
/* Ends a listing: makes its array the field `name` of an answer, or lets go of it if `error` or if it failed. Returns
 * `error`.
 */
int listing_answer(struct question *question, struct listing *listing, const char *name, int error);
/* Adds a field to an answer, if there is one. Takes over `value`; when memory is out there is no answer any more. */
void answer_add(struct question *question, const char *name, json_t *value);

/* A field that is the name of a document, or the beginning of one; STORE_NAME_MAX + 1 bytes. */
void document_read_name(struct fields *fields, const char *field, char *name);

json_t *order_json(const struct store_order *order);

int ask_sales_list(struct question *question);
int ask_sale_books(struct question *question);
/* Puts down what window and limit of a buyer the sale has, if `sale` changes them. Returns 0 or what a store returns. */
int windows_note(struct store *store, const struct store_sale *sale, uint64_t now_ns);
int ask_sale_put(struct question *question);
int ask_stock_move(struct question *question);
int ask_sale_event(struct question *question);
int ask_orders_list(struct question *question);
int ask_order_get(struct question *question);
int ask_orders_change(struct question *question);
int ask_orders_due(struct question *question);
int ask_events_list(struct question *question);
int ask_document_put(struct question *question);
int ask_document_get(struct question *question);
int ask_documents_list(struct question *question);
int ask_list_put(struct question *question);
int ask_list_remove(struct question *question);
int ask_list_page(struct question *question);
int ask_list_clear(struct question *question);
int ask_once_get(struct question *question);
int ask_once_put(struct question *question);

#endif
