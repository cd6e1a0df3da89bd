/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Idempotency keys in the SQLite store: the first answer to a question, kept with it by one transaction (query.c). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "writer/store_sqlite.h"

/* How often keys are looked at that may be too old, and while there are more of them than one look removes. */
#define PRUNE_EVERY_NS 60000000000ULL
#define PRUNE_MORE_NS 1000000000ULL
/* Removed in one transaction: some milliseconds. */
#define PRUNE_MAX 1000

int ledger_once_get(struct store *store, const struct store_once *once, char **answer)
{
	struct ledger *ledger = ledger_of(store);
	sqlite3_stmt *statement;
	char fingerprint[STORE_FINGERPRINT_MAX + 1];
	int step;
	int code = ledger_begin(ledger);

	*answer = NULL;
	if (code)
		return code;
	statement = ledger_statement(ledger, LEDGER_ONCE_GET);
	sqlite3_bind_text(statement, 1, once->key, -1, SQLITE_STATIC);
	step = sqlite3_step(statement);
	if (step != SQLITE_ROW && step != SQLITE_DONE)
		return ledger_fail(ledger, "look up an idempotency key");
	if (step == SQLITE_ROW) {
		ledger_copy_text(fingerprint, sizeof(fingerprint), statement, 0);
		if (strcmp(fingerprint, once->fingerprint))
			code = store_explain(ledger->base.error, -ENOTUNIQ,
				"the idempotency key %s was used for another question", once->key);
		else if (!(*answer = ledger_dup_text(statement, 1)))
			code = store_explain(ledger->base.error, -ENOMEM, "out of memory");
	}
	sqlite3_reset(statement);
	code = ledger_end(ledger, code);
	if (code) {
		free(*answer);
		*answer = NULL;
	}
	return code;
}

int ledger_once_put(struct store *store, const struct store_once *once, const char *answer, uint64_t now_ns)
{
	struct ledger *ledger = ledger_of(store);
	sqlite3_stmt *statement;
	int code = ledger_begin(ledger);

	if (code)
		return code;
	statement = ledger_statement(ledger, LEDGER_ONCE_INSERT);
	sqlite3_bind_text(statement, 1, once->key, -1, SQLITE_STATIC);
	sqlite3_bind_text(statement, 2, once->fingerprint, -1, SQLITE_STATIC);
	sqlite3_bind_text(statement, 3, answer, -1, SQLITE_STATIC);
	sqlite3_bind_int64(statement, 4, (int64_t)now_ns);
	if (ledger_step_done(statement))
		return ledger_fail(ledger, "keep an answer");
	return ledger_commit(ledger);
}

/* Whether there is a key from before `limit`. Returns 0 or 1, or -EIO. */
static int has_old(struct ledger *ledger, int64_t limit)
{
	sqlite3_stmt *statement = ledger_statement(ledger, LEDGER_ONCE_OLDEST);
	int old;

	if (sqlite3_step(statement) != SQLITE_ROW)
		return ledger_fail(ledger, "look for old idempotency keys");
	old = sqlite3_column_type(statement, 0) != SQLITE_NULL && sqlite3_column_int64(statement, 0) < limit;
	sqlite3_reset(statement);
	return old;
}

void ledger_once_prune(struct ledger *ledger, uint64_t now_ns)
{
	uint64_t since = now_ns - ledger->pruned_ns; /* very long if the clock was put back */
	int64_t limit = (int64_t)(now_ns - STORE_ONCE_NS);
	sqlite3_stmt *statement;

	if (since < (ledger->prune_more ? PRUNE_MORE_NS : PRUNE_EVERY_NS) || now_ns < STORE_ONCE_NS)
		return;
	ledger->pruned_ns = now_ns;
	ledger->prune_more = false;
	if (has_old(ledger, limit) <= 0 || ledger_begin(ledger))
		return;
	statement = ledger_statement(ledger, LEDGER_ONCE_PRUNE);
	sqlite3_bind_int64(statement, 1, limit);
	sqlite3_bind_int64(statement, 2, PRUNE_MAX);
	if (ledger_step_done(statement)) {
		ledger_fail(ledger, "remove old idempotency keys");
		return;
	}
	ledger->prune_more = sqlite3_changes(ledger->db) == PRUNE_MAX;
	ledger_commit(ledger);
}
