/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Documents in the SQLite store: small texts by name, which the daemon gives and alone understands. */
#include <errno.h>
#include <stdlib.h>

#include "writer/store_sqlite.h"

int ledger_document_write(struct ledger *ledger, const char *name, const char *value, uint64_t now_ns)
{
	sqlite3_stmt *statement = ledger_statement(ledger, LEDGER_DOCUMENT_PUT);

	sqlite3_bind_text(statement, 1, name, -1, SQLITE_STATIC);
	sqlite3_bind_text(statement, 2, value, -1, SQLITE_STATIC);
	sqlite3_bind_int64(statement, 3, (int64_t)now_ns);
	return ledger_step_done(statement) ? ledger_fail(ledger, "write a document") : 0;
}

int ledger_document_put(struct store *store, const char *name, const char *value, uint64_t now_ns)
{
	struct ledger *ledger = ledger_of(store);
	int code = ledger_begin(ledger);

	if (!code)
		code = ledger_document_write(ledger, name, value, now_ns);
	return code ? code : ledger_commit(ledger);
}

int ledger_document_get(struct store *store, const char *name, char **value)
{
	struct ledger *ledger = ledger_of(store);
	sqlite3_stmt *statement;
	int step;
	int code = ledger_begin(ledger);

	*value = NULL;
	if (code)
		return code;
	statement = ledger_statement(ledger, LEDGER_DOCUMENT_GET);
	sqlite3_bind_text(statement, 1, name, -1, SQLITE_STATIC);
	step = sqlite3_step(statement);
	if (step != SQLITE_ROW && step != SQLITE_DONE)
		return ledger_fail(ledger, "read a document");
	if (step == SQLITE_ROW && !(*value = ledger_dup_text(statement, 0)))
		code = store_explain(ledger->base.error, -ENOMEM, "out of memory");
	sqlite3_reset(statement);
	code = ledger_end(ledger, code);
	if (code) {
		free(*value);
		*value = NULL;
	}
	return code;
}

int ledger_documents_list(struct store *store, store_document_visit visit, void *arg)
{
	struct ledger *ledger = ledger_of(store);
	sqlite3_stmt *statement;
	int step;
	int code = ledger_begin(ledger);

	if (code)
		return code;
	statement = ledger_statement(ledger, LEDGER_DOCUMENTS_LIST);
	while ((step = sqlite3_step(statement)) == SQLITE_ROW) {
		struct store_document document = {.changed_ns = (uint64_t)sqlite3_column_int64(statement, 1),
			.size = (size_t)sqlite3_column_int64(statement, 2)};

		ledger_copy_text(document.name, sizeof(document.name), statement, 0);
		if (visit(&document, arg))
			break;
	}
	if (step != SQLITE_ROW && step != SQLITE_DONE)
		return ledger_fail(ledger, "list documents");
	sqlite3_reset(statement);
	return ledger_commit(ledger);
}
