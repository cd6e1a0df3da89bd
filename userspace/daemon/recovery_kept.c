/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What was set at run time, from the ledger into a gate that was attached anew. Called by recovery.c while orders are closed, when no question is
 * on its way any more: so whoever holds a lock of kept.h does not wait for this thread.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "daemon/answers_state.h"
#include "daemon/kept.h"
#include "daemon/pipeline_impl.h"

#define LIST_PAGE 2000

/* Hands the document to `take`, and puts one that it does not understand aside, before anything can take its place. */
static int restore_document(struct pipeline *p, const char *name, int (*take)(struct daemon *, const char *))
{
	json_t *answer, *aside = NULL;
	const char *text;
	char aside_name[64];
	int err = questions_exchange(p, json_pack("{s:s, s:s}", "op", "document_get", "name", name), &answer);

	if (err)
		return err;
	text = json_string_value(json_object_get(answer, "value"));
	if (take(p->d, text) && text) {
		snprintf(aside_name, sizeof(aside_name), "%s" KEPT_ASIDE, name);
		err = questions_exchange(p,
			json_pack("{s:s, s:s, s:s}", "op", "document_put", "name", aside_name, "value", text), &aside);
	}
	json_decref(aside);
	json_decref(answer);
	return err;
}

static int load_page(struct pipeline *p, int64_t *next, size_t *entries)
{
	const json_t *list;
	json_t *answer;
	int err = questions_exchange(p,
		json_pack("{s:s, s:I, s:i}", "op", "list_page", "after", (json_int_t)kept_lists_place(), "limit",
			LIST_PAGE),
		&answer);

	if (err)
		return err;
	list = json_object_get(answer, "entries");
	*next = json_integer_value(json_object_get(answer, "next"));
	err = json_is_array(list) ? kept_lists_take(p->d, list, *next) : -EPROTO;
	*entries += err ? 0 : json_array_size(list);
	json_decref(answer);
	return err;
}

static int load_lists(struct pipeline *p)
{
	__u64 *marks = &p->d->maps.control->kept;
	size_t entries = 0;
	int64_t next = 0;
	int err;

	if (__atomic_load_n(marks, __ATOMIC_ACQUIRE) & SLUICE_KEPT_LISTS)
		return 0;
	kept_load_lock();
	do
		err = load_page(p, &next, &entries);
	while (!err && next);
	if (!err)
		__atomic_fetch_or(marks, SLUICE_KEPT_LISTS, __ATOMIC_SEQ_CST);
	kept_load_unlock();
	if (!err && entries)
		log_info("lists: %zu entries of the ledger are in the gate, but for those that have expired", entries);
	if (err == -E2BIG) {
		log_error(
			"the ledger's lists do not fit the gate's map; raise gate.max_prefixes and attach again. The first %zu entries are in force",
			entries);
		err = 0;
	}
	return err;
}

int recovery_restore_kept(struct pipeline *p)
{
	int err;

	if (p->kept_is_read)
		return load_lists(p);
	err = restore_document(p, KEPT_LIMITS, kept_restore_limits);
	if (!err)
		err = restore_document(p, KEPT_ANSWERS, answers_restore);
	if (err)
		return err;
	p->kept_is_read = true;
	return load_lists(p);
}
