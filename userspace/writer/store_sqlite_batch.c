/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A batch of admissions or changes in the SQLite store: the next position, and the sums of the sales it touches. They
 * are kept in memory for the length of the batch and written once per batch and sale. Called by store_sqlite_orders.c
 * and _changes.c inside their transactions.
 */
#include <errno.h>
#include <string.h>

#include "writer/store_sqlite.h"

int ledger_batch_begin(struct ledger_batch *batch, struct ledger *ledger, uint64_t now_ns)
{
	sqlite3_stmt *statement = ledger_statement(ledger, LEDGER_LAST_POSITION);

	*batch = (struct ledger_batch){.ledger = ledger, .now_ns = now_ns};
	if (sqlite3_step(statement) != SQLITE_ROW)
		return ledger_fail(ledger, "find the last position");
	batch->position = sqlite3_column_int64(statement, 0);
	sqlite3_reset(statement);
	return 0;
}

int ledger_batch_sale(struct ledger_batch *batch, uint32_t id, struct ledger_batch_sale **found)
{
	struct ledger_batch_sale *entry = batch->last, *sales = batch->ledger->batch_sales;
	int code;

	if (entry && entry->sale.id == id)
		goto out;
	for (entry = sales; entry < sales + batch->sale_count; entry++)
		if (entry->sale.id == id)
			goto out;
	memset(entry, 0, sizeof(*entry));
	code = ledger_sale_get(batch->ledger, id, &entry->sale);
	if (code && code != -ENOENT)
		return code;
	entry->known = !code;
	entry->sale.id = id;
	batch->sale_count++;
out:
	batch->last = entry;
	*found = entry;
	return 0;
}

int ledger_batch_write_sums(struct ledger_batch *batch)
{
	for (unsigned i = 0; i < batch->sale_count; i++) {
		const struct ledger_batch_sale *entry = &batch->ledger->batch_sales[i];
		sqlite3_stmt *statement;

		if (!entry->changed)
			continue;
		statement = ledger_statement(batch->ledger, LEDGER_SALE_SET_SUMS);
		sqlite3_bind_int64(statement, 1, entry->sale.id);
		sqlite3_bind_int64(statement, 2, entry->sale.put_in);
		sqlite3_bind_int64(statement, 3, entry->sale.held);
		sqlite3_bind_int64(statement, 4, entry->sale.confirmed);
		sqlite3_bind_int64(statement, 5, entry->sale.orders);
		if (ledger_step_done(statement))
			return ledger_fail(batch->ledger, "write the sums of a sale");
	}
	return 0;
}
