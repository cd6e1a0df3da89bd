/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the PostgreSQL store keeps for the daemon: first answers to questions (idempotency), documents, list entries; and the housekeeping. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "writer/store_postgres.h"

/* Keys that one maintain() removes, and how often it looks when it finds fewer. */
#define PRUNE_MAX 1000
#define PRUNE_EVERY_NS (60ULL * 1000000000)

/* A copy for the caller; NULL for lack of memory, which ends the connection. */
static char *copy_text(struct postgres *pg, const PGresult *result, int row, int column)
{
	char *copy = strdup(link_text(result, row, column));

	if (!copy)
		postgres_fail(pg, "read a text", "out of memory");
	return copy;
}

/* --- first answers ------------------------------------------------------------------------------------------------------- */
int postgres_once_get(struct store *store, const struct store_once *once, char **answer)
{
	struct postgres *pg = postgres_of(store);
	struct link_values values = {.count = 0};
	PGresult *rows = NULL;
	int code = postgres_begin_reading(pg);

	*answer = NULL;
	if (code)
		return code;
	link_put_text(&values, once->key);
	code = postgres_run(pg, POSTGRES_ONCE_GET, &values, "look up a key", &rows);
	if (!code && PQntuples(rows)) {
		if (strcmp(link_text(rows, 0, 0), once->fingerprint))
			code = store_explain(
				pg->base.error, -ENOTUNIQ, "key %s was used for another question before", once->key);
		else if (!(*answer = copy_text(pg, rows, 0, 1)))
			code = -EIO;
	}
	PQclear(rows);
	code = postgres_end(pg, code);
	if (code) {
		free(*answer);
		*answer = NULL;
	}
	return code;
}

int postgres_once_put(struct store *store, const struct store_once *once, const char *answer, uint64_t now_ns)
{
	struct postgres *pg = postgres_of(store);
	struct link_values values = {.count = 0};
	int code = postgres_begin(pg);

	if (code)
		return code;
	link_put_text(&values, once->key);
	link_put_text(&values, once->fingerprint);
	link_put_text(&values, answer);
	link_put_integer(&values, (int64_t)now_ns);
	return postgres_end(pg, postgres_change(pg, POSTGRES_ONCE_PUT, &values, "keep an answer", 1));
}

/* --- documents ----------------------------------------------------------------------------------------------------------- */
int postgres_document_write(struct postgres *pg, const char *name, const char *value, uint64_t now_ns)
{
	struct link_values values = {.count = 0};

	link_put_text(&values, name);
	link_put_text(&values, value);
	link_put_integer(&values, (int64_t)now_ns);
	return postgres_change(pg, POSTGRES_DOCUMENT_PUT, &values, "keep a document", 1);
}

int postgres_document_put(struct store *store, const char *name, const char *value, uint64_t now_ns)
{
	struct postgres *pg = postgres_of(store);
	int code;

	if (strlen(name) > STORE_NAME_MAX || strlen(value) > STORE_DOCUMENT_MAX)
		return store_explain(pg->base.error, -EINVAL,
			"a document has at most %u bytes, and a name of at most %d", STORE_DOCUMENT_MAX,
			STORE_NAME_MAX);
	code = postgres_begin(pg);
	return code ? code : postgres_end(pg, postgres_document_write(pg, name, value, now_ns));
}

int postgres_document_get(struct store *store, const char *name, char **value)
{
	struct postgres *pg = postgres_of(store);
	struct link_values values = {.count = 0};
	PGresult *rows = NULL;
	int code = postgres_begin_reading(pg);

	*value = NULL;
	if (code)
		return code;
	link_put_text(&values, name);
	code = postgres_run(pg, POSTGRES_DOCUMENT_GET, &values, "read a document", &rows);
	if (!code && PQntuples(rows)) {
		*value = copy_text(pg, rows, 0, 0);
		code = *value ? 0 : -EIO;
	}
	PQclear(rows);
	code = postgres_end(pg, code);
	if (code) {
		free(*value);
		*value = NULL;
	}
	return code;
}

int postgres_documents_list(struct store *store, store_document_visit visit, void *arg)
{
	struct postgres *pg = postgres_of(store);
	PGresult *rows = NULL;
	int code = postgres_begin_reading(pg);

	if (code)
		return code;
	code = postgres_end(pg, postgres_run(pg, POSTGRES_DOCUMENTS_LIST, NULL, "list documents", &rows));
	for (int row = 0; !code && row < PQntuples(rows); row++) {
		struct store_document document = {
			.changed_ns = (uint64_t)link_integer(rows, row, 1), .size = (size_t)link_integer(rows, row, 2)};

		link_copy_text(document.name, sizeof(document.name), rows, row, 0);
		if (visit(&document, arg))
			break;
	}
	PQclear(rows);
	return code;
}

/* --- lists --------------------------------------------------------------------------------------------------------------- */
static int too_many(struct postgres *pg)
{
	return store_explain(pg->base.error, -EINVAL, "a question names at most %d entries", STORE_ENTRIES_MAX);
}

int postgres_list_put(struct store *store, const struct store_entry *entries, unsigned count)
{
	struct postgres *pg = postgres_of(store);
	struct link_array *arrays = pg->arrays;
	struct link_values values = {.count = 0};
	int code;

	if (count > STORE_ENTRIES_MAX)
		return too_many(pg);
	code = postgres_begin(pg);
	if (code)
		return code;
	postgres_begin_arrays(pg, 5, 1u << 0 | 1u << 1 | 1u << 3 | 1u << 4);
	for (unsigned i = 0; i < count; i++) {
		link_array_add_text(&arrays[0], store_list_word(entries[i].list));
		link_array_add_text(&arrays[1], entries[i].prefix);
		link_array_add_integer(&arrays[2], (int64_t)entries[i].expires_ns);
		link_array_add_text(&arrays[3], entries[i].label);
		link_array_add_text(&arrays[4], entries[i].reason);
	}
	for (unsigned i = 0; i < 5; i++)
		link_put_array(&values, &arrays[i]);
	return postgres_end(pg, postgres_run(pg, POSTGRES_LIST_PUT, &values, "keep list entries", NULL));
}

int postgres_list_remove(struct store *store, const struct store_entry *entries, unsigned count, unsigned *removed)
{
	struct postgres *pg = postgres_of(store);
	struct link_values values = {.count = 0};
	PGresult *result = NULL;
	int code;

	if (count > STORE_ENTRIES_MAX)
		return too_many(pg);
	code = postgres_begin(pg);
	if (code)
		return code;
	postgres_begin_arrays(pg, 2, 3);
	for (unsigned i = 0; i < count; i++) {
		link_array_add_text(&pg->arrays[0], store_list_word(entries[i].list));
		link_array_add_text(&pg->arrays[1], entries[i].prefix);
	}
	link_put_array(&values, &pg->arrays[0]);
	link_put_array(&values, &pg->arrays[1]);
	code = postgres_end(pg, postgres_run(pg, POSTGRES_LIST_REMOVE, &values, "remove list entries", &result));
	if (!code)
		*removed = (unsigned)strtoul(PQcmdTuples(result), NULL, 10);
	PQclear(result);
	return code;
}

int postgres_list_page(
	struct store *store, int64_t after, unsigned limit, store_entry_visit visit, void *arg, int64_t *next)
{
	struct postgres *pg = postgres_of(store);
	struct link_values values = {.count = 0};
	PGresult *rows = NULL;
	int code = postgres_begin_reading(pg);

	*next = 0;
	if (code)
		return code;
	link_put_integer(&values, after);
	link_put_integer(&values, (int64_t)limit + 1);
	code = postgres_end(pg, postgres_run(pg, POSTGRES_LIST_PAGE, &values, "read list entries", &rows));
	for (int row = 0; !code && row < PQntuples(rows); row++) {
		struct store_entry entry = {.list = (enum store_list)store_list_of_word(link_text(rows, row, 1)),
			.expires_ns = (uint64_t)link_integer(rows, row, 3)};

		if (row == (int)limit) {
			*next = link_integer(rows, row - 1, 0);
			break;
		}
		link_copy_text(entry.prefix, sizeof(entry.prefix), rows, row, 2);
		link_copy_text(entry.label, sizeof(entry.label), rows, row, 4);
		link_copy_text(entry.reason, sizeof(entry.reason), rows, row, 5);
		if (visit(&entry, arg))
			break;
	}
	PQclear(rows);
	return code;
}

static void put_label(struct link_values *values, enum store_list list, const char *label)
{
	link_put_text(values, store_list_word(list));
	link_put_integer(values, label != NULL);
	link_put_text(values, label ? label : "");
}

int postgres_list_clear(struct store *store, enum store_list list, const char *label, unsigned *removed, bool *more)
{
	struct postgres *pg = postgres_of(store);
	struct link_values values = {.count = 0}, left = {.count = 0};
	PGresult *result = NULL, *others = NULL;
	int code = postgres_begin(pg);

	if (code)
		return code;
	put_label(&values, list, label);
	link_put_integer(&values, STORE_CLEAR_MAX);
	put_label(&left, list, label);
	code = postgres_run(pg, POSTGRES_LIST_CLEAR, &values, "clear a list", &result);
	if (!code)
		code = postgres_run(pg, POSTGRES_LIST_LEFT, &left, "clear a list", &others);
	code = postgres_end(pg, code);
	if (!code) {
		*removed = (unsigned)strtoul(PQcmdTuples(result), NULL, 10);
		*more = link_bool(others, 0, 0);
	}
	PQclear(result);
	PQclear(others);
	return code;
}

/* --- housekeeping -------------------------------------------------------------------------------------------------------- */

/* The rest (vacuum, statistics) is the server's own. */
void postgres_maintain(struct store *store, uint64_t now_ns)
{
	struct postgres *pg = postgres_of(store);
	struct link_values values = {.count = 0};
	PGresult *result = NULL;

	if (!pg->link.conn || now_ns < STORE_ONCE_NS || (pg->pruned_all && now_ns - pg->pruned_ns < PRUNE_EVERY_NS))
		return;
	if (postgres_begin(pg))
		return;
	link_put_integer(&values, (int64_t)(now_ns - STORE_ONCE_NS));
	link_put_integer(&values, PRUNE_MAX);
	if (!postgres_end(pg, postgres_run(pg, POSTGRES_ONCE_PRUNE, &values, "remove old keys", &result))) {
		pg->pruned_ns = now_ns;
		pg->pruned_all = strtoul(PQcmdTuples(result), NULL, 10) < PRUNE_MAX;
	}
	PQclear(result);
}
