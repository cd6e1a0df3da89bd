/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Idempotency keys of what is not done by the ledger: the daemon keeps its own first answers under them. See query_inside.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "writer/query_inside.h"

int ask_once_get(struct question *question)
{
	struct fields *fields = &question->fields;
	struct store_once once;
	char *text = NULL;
	int error;

	fields_text(fields, "key", true, 1, STORE_KEY_MAX, once.key);
	fields_text(fields, "fingerprint", true, 1, STORE_FINGERPRINT_MAX, once.fingerprint);
	error = fields_end(fields);
	if (!error)
		error = question->store->ops->once_get(question->store, &once, &text);
	if (!error)
		question->answer = json_pack("{s:o?}", "answer", text ? json_loads(text, 0, NULL) : NULL);
	free(text);
	return error;
}

/* Gives back what it was given: query.c keeps it with the key, or gives what was kept before. */
int ask_once_put(struct question *question)
{
	struct fields *fields = &question->fields;
	const json_t *answer = fields_get(fields, "answer", true);

	if (!fields_has(fields, "once"))
		fields_fail(fields, "once is missing");
	if (answer && !json_is_object(answer))
		fields_fail(fields, "answer must be an object");
	if (fields_end(fields))
		return -EINVAL;
	question->answer = json_incref((json_t *)(uintptr_t)answer);
	return 0;
}
