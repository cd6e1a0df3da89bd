/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The questions about what the ledger only keeps for the daemon: documents and list entries, as docs/writer-protocol.md
 * has them. Called by query.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "writer/query_inside.h"

#define NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyz0123456789._-"
#define LIST_CHOICES "deny or allow"

void document_read_name(struct fields *fields, const char *field, char *name)
{
	fields_text(fields, field, true, 1, STORE_NAME_MAX, name);
	if (name[strspn(name, NAME_CHARACTERS)])
		fields_fail(fields, "%s may have a-z, 0-9, '.', '_' and '-'", field);
}

int ask_document_put(struct question *question)
{
	struct fields *fields = &question->fields;
	char name[STORE_NAME_MAX + 1];
	const char *value;
	int error;

	document_read_name(fields, "name", name);
	value = fields_long_text(fields, "value", STORE_DOCUMENT_MAX);
	error = fields_end(fields);
	if (!error)
		error = question->store->ops->document_put(question->store, name, value, question->now_ns);
	if (!error)
		question->answer = json_object();
	return error;
}

int ask_document_get(struct question *question)
{
	struct fields *fields = &question->fields;
	char name[STORE_NAME_MAX + 1];
	char *value = NULL;
	int error;

	document_read_name(fields, "name", name);
	error = fields_end(fields);
	if (!error)
		error = question->store->ops->document_get(question->store, name, &value);
	if (!error)
		question->answer = json_pack("{s:s?}", "value", value);
	free(value);
	return error;
}

static int append_document(const struct store_document *document, void *arg)
{
	return listing_append(arg,
		json_pack("{s:s, s:I, s:I}", "name", document->name, "changed_ns", (json_int_t)document->changed_ns,
			"size", (json_int_t)document->size));
}

int ask_documents_list(struct question *question)
{
	struct listing documents = {.failed = false};
	int error = fields_end(&question->fields);

	if (error)
		return error;
	documents.array = json_array();
	error = question->store->ops->documents_list(question->store, append_document, &documents);
	return listing_answer(question, &documents, "documents", error);
}

static void read_place(struct fields *fields, struct store_entry *entry)
{
	entry->list = fields_word(fields, "list", store_list_of_word, LIST_CHOICES);
	fields_text(fields, "prefix", true, 1, sizeof(entry->prefix) - 1, entry->prefix);
}

static void read_entry(struct fields *fields, struct store_entry *entry)
{
	read_place(fields, entry);
	entry->expires_ns = (uint64_t)fields_integer(fields, "expires_ns", 0, INT64_MAX);
	fields_text(fields, "label", true, 0, STORE_LABEL_MAX, entry->label);
	fields_text(fields, "reason", true, 0, STORE_REASON_MAX, entry->reason);
}

/* Reads the entries of a question by `read`. Returns 0 with *entries to be freed by the caller, or an error. */
static int read_entries(struct question *question, void (*read)(struct fields *fields, struct store_entry *entry),
	struct store_entry **entries, unsigned *count)
{
	struct fields *fields = &question->fields;
	const json_t *array = fields_array(fields, "entries", STORE_ENTRIES_MAX);
	int error;

	*count = (unsigned)json_array_size(array);
	*entries = calloc(*count + 1, sizeof(**entries));
	if (!*entries)
		return store_explain(fields->error, -ENOMEM, "out of memory");
	for (unsigned i = 0; i < *count && !fields->error[0]; i++) {
		struct fields element = fields_element(fields, array, i, "entries");

		read(&element, &(*entries)[i]);
		fields_end(&element);
	}
	error = fields_end(fields);
	if (error)
		free(*entries);
	return error;
}

int ask_list_put(struct question *question)
{
	struct store_entry *entries;
	unsigned count;
	int error = read_entries(question, read_entry, &entries, &count);

	if (error)
		return error;
	error = question->store->ops->list_put(question->store, entries, count);
	if (!error)
		question->answer = json_pack("{s:I}", "count", (json_int_t)count);
	free(entries);
	return error;
}

int ask_list_remove(struct question *question)
{
	struct store_entry *entries;
	unsigned count, removed = 0;
	int error = read_entries(question, read_place, &entries, &count);

	if (error)
		return error;
	error = question->store->ops->list_remove(question->store, entries, count, &removed);
	if (!error)
		question->answer = json_pack("{s:I}", "count", (json_int_t)removed);
	free(entries);
	return error;
}

static int append_entry(const struct store_entry *entry, void *arg)
{
	return listing_append(arg,
		json_pack("{s:s, s:s, s:I, s:s, s:s}", "list", store_list_word(entry->list), "prefix", entry->prefix,
			"expires_ns", (json_int_t)entry->expires_ns, "label", entry->label, "reason", entry->reason));
}

int ask_list_page(struct question *question)
{
	struct fields *fields = &question->fields;
	int64_t after = fields_integer(fields, "after", 0, INT64_MAX), next = 0;
	unsigned limit = (unsigned)fields_integer(fields, "limit", 1, STORE_ENTRIES_MAX);
	struct listing entries = {.failed = false};
	int error = fields_end(fields);

	if (error)
		return error;
	entries.array = json_array();
	error = question->store->ops->list_page(question->store, after, limit, append_entry, &entries, &next);
	error = listing_answer(question, &entries, "entries", error);
	answer_add(question, "next", next ? json_integer(next) : json_null());
	return error;
}

/* An empty label is that of entries without one; only with "all" it stands for the whole list, so that a name that was
 * lost on the way does not empty a list.
 */
int ask_list_clear(struct question *question)
{
	struct fields *fields = &question->fields;
	enum store_list list = fields_word(fields, "list", store_list_of_word, LIST_CHOICES);
	char label[STORE_LABEL_MAX + 1];
	unsigned removed = 0;
	bool all, more = false;
	int error;

	fields_text(fields, "label", true, 0, STORE_LABEL_MAX, label);
	all = fields_has(fields, "all") && fields_bool(fields, "all");
	if (all && label[0])
		fields_fail(fields, "label must be empty with \"all\":true");
	error = fields_end(fields);
	if (!error)
		error = question->store->ops->list_clear(question->store, list, all ? NULL : label, &removed, &more);
	if (!error)
		question->answer = json_pack("{s:I, s:b}", "count", (json_int_t)removed, "more", more);
	return error;
}
