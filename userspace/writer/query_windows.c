/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What a sale's window and limit of a buyer were before they were changed: an order is right if it was so when it was admitted. Kept as a document
 * of the ledger, so that any store has it. Called by query_sales.c before a sale is put.
 *
 * {"windows":[{"opens_ns","ends_ns","per_buyer","until_ns"}]}, oldest first. It is written in the transaction of the change.
 */
#include <errno.h>
#include <stdlib.h>

#include "writer/query_inside.h"

#define WINDOWS_MAX 500 /* some 100 bytes each; beyond that the oldest goes */

static int take_sale(const struct store_sale *sale, void *arg)
{
	*(struct store_sale *)arg = *sale;
	return 1;
}

/* *found has id 0 if there is none. */
static int find_sale(struct store *store, uint32_t id, struct store_sale *found)
{
	int error;

	*found = (struct store_sale){.id = 0};
	error = store->ops->sales_list(store, id - 1, 1, take_sale, found);
	if (found->id != id)
		found->id = 0;
	return error;
}

/* The document's array, empty if there is none yet, or none that is understood. */
static json_t *read_windows(const char *value)
{
	json_t *document = value ? json_loads(value, 0, NULL) : NULL;
	json_t *windows = json_incref(json_object_get(document, "windows"));

	json_decref(document);
	if (json_is_array(windows))
		return windows;
	json_decref(windows);
	return json_array();
}

/* Returns the new text, or NULL without memory. */
static char *add_window(const char *value, const struct store_sale *sale, uint64_t until_ns)
{
	json_t *windows = read_windows(value), *document;
	char *text;

	if (json_array_size(windows) >= WINDOWS_MAX)
		json_array_remove(windows, 0);
	json_array_append_new(windows,
		json_pack("{s:I, s:I, s:I, s:I}", "opens_ns", (json_int_t)sale->opens_ns, "ends_ns",
			(json_int_t)sale->ends_ns, "per_buyer", (json_int_t)sale->per_buyer, "until_ns",
			(json_int_t)until_ns));
	document = json_pack("{s:o}", "windows", windows);
	text = json_dumps(document, JSON_COMPACT);
	json_decref(document);
	return text;
}

int windows_note(struct store *store, const struct store_sale *sale, uint64_t now_ns)
{
	char name[STORE_NAME_MAX + 1], *value = NULL, *text;
	struct store_sale stored;
	int error = find_sale(store, sale->id, &stored);

	if (error || !stored.id ||
		(stored.opens_ns == sale->opens_ns && stored.ends_ns == sale->ends_ns &&
			stored.per_buyer == sale->per_buyer))
		return error;
	snprintf(name, sizeof(name), STORE_WINDOWS_NAME "%u", (unsigned)sale->id);
	error = store->ops->document_get(store, name, &value);
	if (error)
		return error;
	text = add_window(value, &stored, now_ns);
	error = text ? store->ops->document_put(store, name, text, now_ns)
		     : store_explain(store->error, -ENOMEM, "out of memory");
	free(text);
	free(value);
	return error;
}
