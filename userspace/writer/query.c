/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The JSON questions of docs/writer-protocol.md. Called by server.c for each WIRE_QUERY and WIRE_HELLO.
 *
 * Finds the operation, which is in one of the other query_*.c, and makes its answer a text. A question that changes
 * something is one transaction with the making of its answer, so that nothing is stored of what cannot be answered for
 * lack of memory. Where it names an idempotency key, looking that up and keeping the answer belong to it too: the answer
 * that is given again is the text that was sent the first time. That an order is not there is not kept: it may come yet.
 */
#include "writer/query.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "writer/query_inside.h"

int listing_append(struct listing *listing, json_t *item)
{
	listing->failed |= json_array_append_new(listing->array, item) != 0;
	return listing->failed;
}

int listing_answer(struct question *question, struct listing *listing, const char *name, int error)
{
	if (error || listing->failed)
		json_decref(listing->array);
	else
		question->answer = json_pack("{s:o}", name, listing->array);
	return error;
}

void answer_add(struct question *question, const char *name, json_t *value)
{
	if (!json_object_set_new(question->answer, name, value))
		return;
	json_decref(question->answer);
	question->answer = NULL;
}

enum operation_kind {
	OPERATION_ASKS,
	OPERATION_CHANGES,
	OPERATION_ONCE /* changes, and may have an idempotency key */
};

static const struct operation {
	const char *name;
	int (*ask)(struct question *question);
	enum operation_kind kind;
} operations[] = {
	{"sales_list", ask_sales_list, OPERATION_ASKS},
	{"sale_books", ask_sale_books, OPERATION_ASKS},
	{"sale_put", ask_sale_put, OPERATION_ONCE},
	{"stock_move", ask_stock_move, OPERATION_ONCE},
	{"sale_event", ask_sale_event, OPERATION_CHANGES},
	{"orders_list", ask_orders_list, OPERATION_ASKS},
	{"order_get", ask_order_get, OPERATION_ASKS},
	{"orders_change", ask_orders_change, OPERATION_ONCE},
	{"orders_due", ask_orders_due, OPERATION_ASKS},
	{"events_list", ask_events_list, OPERATION_ASKS},
	{"document_put", ask_document_put, OPERATION_CHANGES},
	{"document_get", ask_document_get, OPERATION_ASKS},
	{"documents_list", ask_documents_list, OPERATION_ASKS},
	{"list_put", ask_list_put, OPERATION_CHANGES},
	{"list_remove", ask_list_remove, OPERATION_CHANGES},
	{"list_page", ask_list_page, OPERATION_ASKS},
	{"list_clear", ask_list_clear, OPERATION_CHANGES},
	{"once_get", ask_once_get, OPERATION_ASKS},
	{"once_put", ask_once_put, OPERATION_ONCE},
};

static const struct operation *find_operation(struct fields *fields)
{
	const json_t *name = fields_get(fields, "op", true);

	for (unsigned i = 0; json_is_string(name) && i < sizeof(operations) / sizeof(*operations); i++)
		if (!strcmp(json_string_value(name), operations[i].name))
			return &operations[i];
	fields_fail(fields, "op must be an operation of the protocol");
	return NULL;
}

/* The answer as it is sent. Returns 0 with *text to be freed by the caller, or the operation's error. */
static int ask(struct question *question, const struct operation *operation, char **text)
{
	int error = operation->ask(question);

	if (error)
		return error;
	*text = question->answer ? json_dumps(question->answer, JSON_COMPACT) : NULL;
	/* Only memory can be the cause: what the store gave is UTF-8 and within range. */
	return *text ? 0 : store_explain(question->store->error, -ENOMEM, "out of memory");
}

/* The same in a transaction. With a key (`once` not NULL) again the first answer if there is one. */
static int ask_to_change(
	struct question *question, const struct operation *operation, const struct store_once *once, char **text)
{
	struct store *store = question->store;
	int error = store->ops->begin(store);

	if (error)
		return error;
	if (once)
		error = store->ops->once_get(store, once, text);
	if (!error && !*text) {
		error = ask(question, operation, text);
		if (!error && once && !question->passing)
			error = store->ops->once_put(store, once, *text, question->now_ns);
	}
	error = error ? store->ops->rollback(store, error) : store->ops->commit(store);
	if (error) {
		free(*text);
		*text = NULL;
	}
	return error;
}

static int answer_question(struct question *question, char **text)
{
	struct fields *fields = &question->fields;
	const struct operation *operation = find_operation(fields);
	struct store_once once;
	struct fields inner;

	if (!operation)
		return -EINVAL;
	if (operation->kind == OPERATION_ASKS)
		return ask(question, operation, text);
	if (operation->kind == OPERATION_CHANGES || !fields_has(fields, "once"))
		return ask_to_change(question, operation, NULL, text);
	inner = fields_object(fields, "once", true);
	fields_text(&inner, "key", true, 1, STORE_KEY_MAX, once.key);
	fields_text(&inner, "fingerprint", true, 1, STORE_FINGERPRINT_MAX, once.fingerprint);
	return fields_end(&inner) ? -EINVAL : ask_to_change(question, operation, &once, text);
}

char *writer_query_error(int error, const char *detail)
{
	const char *code = error == -EINVAL ? "bad_request"
		: error == -ENOENT          ? "not_found"
		: error == -EEXIST          ? "conflict"
		: error == -ENOTUNIQ        ? "key_reused"
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
	int error;

	*answer = NULL;
	error = object ? answer_question(&question, answer) : -EINVAL;
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
	reply = json_pack("{s:i, s:s, s:s, s:i}", "version", WIRE_VERSION, "ledger", ledger, "store", store->ops->name,
		"schema", (int)store->schema);
	*answer =
		reply ? json_dumps(reply, JSON_COMPACT) : writer_query_error(-ENOMEM, "the ledger's path is not UTF-8");
	json_decref(reply);
	return reply ? WIRE_HELLO : WIRE_ERROR;
}
