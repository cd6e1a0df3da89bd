/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The deny and allow lists in the SQLite store: what the daemon puts back into the gate after a reboot. Up to a million
 * entries come by imports, so every operation has a bound on what it does in one transaction.
 */
#include <errno.h>

#include "writer/store_sqlite.h"

int ledger_list_put(struct store *store, const struct store_entry *entries, unsigned count)
{
	struct ledger *ledger = ledger_of(store);
	int code = ledger_begin(ledger);

	if (code)
		return code;
	for (unsigned i = 0; i < count; i++) {
		sqlite3_stmt *statement = ledger_statement(ledger, LEDGER_ENTRY_PUT);

		sqlite3_bind_text(statement, 1, store_list_word(entries[i].list), -1, SQLITE_STATIC);
		sqlite3_bind_text(statement, 2, entries[i].prefix, -1, SQLITE_STATIC);
		sqlite3_bind_int64(statement, 3, (int64_t)entries[i].expires_ns);
		sqlite3_bind_text(statement, 4, entries[i].label, -1, SQLITE_STATIC);
		sqlite3_bind_text(statement, 5, entries[i].reason, -1, SQLITE_STATIC);
		if (ledger_step_done(statement))
			return ledger_fail(ledger, "write an entry of a list");
	}
	return ledger_commit(ledger);
}

int ledger_list_remove(struct store *store, const struct store_entry *entries, unsigned count, unsigned *removed)
{
	struct ledger *ledger = ledger_of(store);
	int code = ledger_begin(ledger);

	*removed = 0;
	if (code)
		return code;
	for (unsigned i = 0; i < count; i++) {
		sqlite3_stmt *statement = ledger_statement(ledger, LEDGER_ENTRY_REMOVE);

		sqlite3_bind_text(statement, 1, store_list_word(entries[i].list), -1, SQLITE_STATIC);
		sqlite3_bind_text(statement, 2, entries[i].prefix, -1, SQLITE_STATIC);
		if (ledger_step_done(statement))
			return ledger_fail(ledger, "remove an entry of a list");
		*removed += (unsigned)sqlite3_changes(ledger->db);
	}
	return ledger_commit(ledger);
}

int ledger_list_page(
	struct store *store, int64_t after, unsigned limit, store_entry_visit visit, void *arg, int64_t *next)
{
	struct ledger *ledger = ledger_of(store);
	sqlite3_stmt *statement;
	unsigned found = 0;
	int64_t cursor = 0;
	int step;
	int code = ledger_begin(ledger);

	*next = 0;
	if (code)
		return code;
	statement = ledger_statement(ledger, LEDGER_ENTRIES_PAGE);
	sqlite3_bind_int64(statement, 1, after);
	while ((step = sqlite3_step(statement)) == SQLITE_ROW) {
		struct store_entry entry = {.expires_ns = (uint64_t)sqlite3_column_int64(statement, 3)};
		char word[16];

		if (found++ == limit) {
			*next = cursor; /* there is at least this row to go on with */
			break;
		}
		cursor = sqlite3_column_int64(statement, 0);
		ledger_copy_text(word, sizeof(word), statement, 1);
		entry.list = store_list_of_word(word);
		ledger_copy_text(entry.prefix, sizeof(entry.prefix), statement, 2);
		ledger_copy_text(entry.label, sizeof(entry.label), statement, 4);
		ledger_copy_text(entry.reason, sizeof(entry.reason), statement, 5);
		if (visit(&entry, arg))
			break;
	}
	if (step != SQLITE_ROW && step != SQLITE_DONE)
		return ledger_fail(ledger, "list the entries of the lists");
	sqlite3_reset(statement);
	return ledger_commit(ledger);
}

/* Binds list, STORE_CLEAR_MAX and label where they stand. */
static sqlite3_stmt *clear_statement(
	struct ledger *ledger, enum ledger_statement name, enum store_list list, const char *label)
{
	sqlite3_stmt *statement = ledger_statement(ledger, name);

	sqlite3_bind_text(statement, 1, store_list_word(list), -1, SQLITE_STATIC);
	if (name == LEDGER_LIST_CLEAR || name == LEDGER_LABEL_CLEAR)
		sqlite3_bind_int(statement, 2, STORE_CLEAR_MAX);
	if (label)
		sqlite3_bind_text(statement, 3, label, -1, SQLITE_STATIC);
	return statement;
}

int ledger_list_clear(struct store *store, enum store_list list, const char *label, unsigned *removed, bool *more)
{
	struct ledger *ledger = ledger_of(store);
	sqlite3_stmt *statement;
	int step;
	int code = ledger_begin(ledger);

	*removed = 0;
	*more = false;
	if (code)
		return code;
	statement = clear_statement(ledger, label ? LEDGER_LABEL_CLEAR : LEDGER_LIST_CLEAR, list, label);
	if (ledger_step_done(statement))
		return ledger_fail(ledger, "clear a list");
	*removed = (unsigned)sqlite3_changes(ledger->db);
	statement = clear_statement(ledger, label ? LEDGER_LABEL_HAS : LEDGER_LIST_HAS, list, label);
	step = sqlite3_step(statement);
	if (step != SQLITE_ROW && step != SQLITE_DONE)
		return ledger_fail(ledger, "look for what is left of a list");
	*more = step == SQLITE_ROW;
	sqlite3_reset(statement);
	return ledger_commit(ledger);
}
