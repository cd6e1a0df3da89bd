/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Orders in the SQLite store: a batch of admissions as one transaction with the ledger's own guard, and reading them back.
 *
 * The guard does not trust the gate: unique serial, a buyer's units ≤ per_buyer, units ordered ≤ put_in. The gate keeps the same rules, so a
 * refusal here is an alarm and not a way of doing business. It concerns its one record; the others are stored.
 *
 * Cost of a record: one insert into orders (row, index of serials, index of seq) and one into buyers. The sums of a sale are kept in
 * memory for the length of the batch and written once per batch and sale.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "writer/store_sqlite.h"

struct batch {
	struct ledger *ledger;
	struct ledger_batch_sale *sales;
	unsigned sale_count;
	struct ledger_batch_sale *last; /* nearly always the next record's too */
	uint64_t now_ns;
};

/* The sale of a record, read from the ledger at its first record in the batch. Returns 0 or -EIO. */
static int batch_sale(struct batch *batch, uint32_t id, struct ledger_batch_sale **found)
{
	struct ledger_batch_sale *entry = batch->last;
	int code;

	if (entry && entry->sale.id == id)
		goto out;
	for (entry = batch->sales; entry < batch->sales + batch->sale_count; entry++)
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

/* Returns 1 if inserted, 0 if the serial is there already, -EIO. */
static int insert_order(struct batch *batch, const struct wire_admit *record, int64_t seq)
{
	sqlite3_stmt *statement = ledger_statement(batch->ledger, LEDGER_ORDER_INSERT);
	char source[ADDR_TEXT_MAX];

	addr_format(&record->source, source);
	sqlite3_bind_int64(statement, 1, (int64_t)record->serial);
	sqlite3_bind_int64(statement, 2, record->sale);
	sqlite3_bind_int64(statement, 3, seq);
	sqlite3_bind_int64(statement, 4, record->quantity);
	sqlite3_bind_int64(statement, 5, (int64_t)record->buyer);
	sqlite3_bind_text(statement, 6, source, -1, SQLITE_STATIC); /* stepped before it goes out of scope */
	sqlite3_bind_int64(statement, 7, record->network);
	sqlite3_bind_int64(statement, 8, record->hold_seconds);
	sqlite3_bind_int64(statement, 9, (int64_t)record->admitted_wall_ns);
	sqlite3_bind_int64(statement, 10, (int64_t)batch->now_ns);
	if (ledger_step_done(statement))
		return ledger_fail(batch->ledger, "insert an order");
	return sqlite3_changes(batch->ledger->db);
}

/* Returns 1 if the buyer may have these units and has them now, 0 if not, -EIO. */
static int count_buyer(struct batch *batch, const struct wire_admit *record, uint32_t per_buyer)
{
	sqlite3_stmt *statement = ledger_statement(batch->ledger, LEDGER_BUYER_COUNT);

	if (record->quantity > per_buyer)
		return 0; /* the statement's limit is for buyers that have a row */
	sqlite3_bind_int64(statement, 1, record->sale);
	sqlite3_bind_int64(statement, 2, (int64_t)record->buyer);
	sqlite3_bind_int64(statement, 3, record->quantity);
	sqlite3_bind_int64(statement, 4, per_buyer);
	if (ledger_step_done(statement))
		return ledger_fail(batch->ledger, "count a buyer's units");
	return sqlite3_changes(batch->ledger->db);
}

static int delete_order(struct batch *batch, uint64_t serial)
{
	sqlite3_stmt *statement = ledger_statement(batch->ledger, LEDGER_ORDER_DELETE);

	sqlite3_bind_int64(statement, 1, (int64_t)serial);
	return ledger_step_done(statement) ? ledger_fail(batch->ledger, "take an order back") : 0;
}

static void copy_text(char *to, size_t size, sqlite3_stmt *statement, int column)
{
	const char *text = (const char *)sqlite3_column_text(statement, column);

	snprintf(to, size, "%s", text ? text : "");
}

static void read_order(sqlite3_stmt *row, struct store_order *order)
{
	order->serial = (uint64_t)sqlite3_column_int64(row, 1);
	order->sale = (uint32_t)sqlite3_column_int64(row, 2);
	order->seq = sqlite3_column_int64(row, 3);
	copy_text(order->state, sizeof(order->state), row, 4);
	order->quantity = (uint32_t)sqlite3_column_int64(row, 5);
	order->buyer = (uint64_t)sqlite3_column_int64(row, 6);
	copy_text(order->source, sizeof(order->source), row, 7);
	order->network = (uint32_t)sqlite3_column_int64(row, 8);
	order->admitted_ns = (uint64_t)sqlite3_column_int64(row, 9);
	order->committed_ns = (uint64_t)sqlite3_column_int64(row, 10);
}

/* Inside a transaction. Returns 0, -ENOENT or -EIO. */
static int find_order(struct ledger *ledger, uint64_t serial, struct store_order *order)
{
	sqlite3_stmt *statement = ledger_statement(ledger, LEDGER_ORDER_GET);
	int code;

	sqlite3_bind_int64(statement, 1, (int64_t)serial);
	code = sqlite3_step(statement);
	if (code == SQLITE_ROW)
		read_order(statement, order);
	else if (code != SQLITE_DONE)
		return ledger_fail(ledger, "look up an order");
	sqlite3_reset(statement);
	return code == SQLITE_ROW ? 0 : -ENOENT;
}

static enum store_refusal guard(const struct ledger_batch_sale *entry, const struct wire_admit *record)
{
	const struct store_sale *sale = &entry->sale;

	if (!entry->known)
		return STORE_REFUSED_UNKNOWN_SALE;
	if (!record->quantity)
		return STORE_REFUSED_QUANTITY;
	if (record->quantity > sale->put_in - sale->held - sale->confirmed)
		return STORE_REFUSED_PUT_IN;
	return STORE_REFUSED_NOT;
}

/* Returns 0 with the acknowledgement, or -EIO. What was delivered before is known whatever the guard would say to it now: a
 * sold-out sale refuses no order that is in it.
 */
static int admit_record(
	struct batch *batch, const struct wire_admit *record, struct wire_ack *ack, enum store_refusal *refusal)
{
	struct ledger_batch_sale *entry;
	struct store_order order;
	int code = batch_sale(batch, record->sale, &entry);

	if (code)
		return code;
	*ack = (struct wire_ack){.serial = record->serial, .status = WIRE_ACK_REFUSED};
	*refusal = guard(entry, record);
	if (*refusal == STORE_REFUSED_NOT) {
		code = insert_order(batch, record, entry->sale.orders + 1);
		if (code > 0) {
			code = count_buyer(batch, record, entry->sale.per_buyer);
			if (code > 0)
				goto stored;
			if (!code)
				code = delete_order(batch, record->serial);
			*refusal = STORE_REFUSED_BUYER_LIMIT;
			return code;
		}
		if (code < 0)
			return code;
	}
	code = find_order(batch->ledger, record->serial, &order);
	if (code)
		return code == -ENOENT ? 0 : code;
	if (order.sale != record->sale || order.buyer != record->buyer || order.quantity != record->quantity) {
		*refusal = STORE_REFUSED_MISMATCH;
		return 0;
	}
	*refusal = STORE_REFUSED_NOT;
	ack->status = WIRE_ACK_KNOWN;
	ack->seq = (uint64_t)order.seq;
	ack->committed_wall_ns = order.committed_ns;
	return 0;
stored:
	entry->sale.orders++;
	entry->sale.held += record->quantity;
	entry->added_units += record->quantity;
	ack->status = WIRE_ACK_STORED;
	ack->seq = (uint64_t)entry->sale.orders;
	ack->committed_wall_ns = batch->now_ns;
	return 0;
}

static int write_sums(struct batch *batch)
{
	for (unsigned i = 0; i < batch->sale_count; i++) {
		const struct ledger_batch_sale *entry = &batch->sales[i];
		sqlite3_stmt *statement;

		if (!entry->added_units)
			continue;
		statement = ledger_statement(batch->ledger, LEDGER_SALE_ADD_ORDERS);
		sqlite3_bind_int64(statement, 1, entry->sale.id);
		sqlite3_bind_int64(statement, 2, entry->added_units);
		sqlite3_bind_int64(statement, 3, entry->sale.orders);
		if (ledger_step_done(statement))
			return ledger_fail(batch->ledger, "write the sums of a sale");
	}
	return 0;
}

int ledger_admit(struct store *store, const struct wire_admit *records, unsigned count, uint64_t now_ns,
	struct wire_ack *acks, struct store_refused *refused)
{
	struct ledger *ledger = ledger_of(store);
	struct batch batch = {.ledger = ledger, .sales = ledger->batch_sales, .now_ns = now_ns};
	int code;

	memset(refused, 0, sizeof(*refused));
	if (count > WIRE_BATCH_MAX)
		return store_explain(ledger->base.error, -EINVAL, "a batch has at most %d records", WIRE_BATCH_MAX);
	code = ledger_begin(ledger);
	for (unsigned i = 0; !code && i < count; i++) {
		enum store_refusal refusal;

		code = admit_record(&batch, &records[i], &acks[i], &refusal);
		if (code || refusal == STORE_REFUSED_NOT)
			continue;
		if (!refused->total++)
			refused->first_serial = records[i].serial;
		refused->count[refusal]++;
	}
	if (!code)
		code = write_sums(&batch);
	return code ? code : ledger_commit(ledger);
}

/* One page. Filters by state while it reads, because a cursor must also be given for a page of few finds; no more than
 * STORE_LIST_SCAN_MAX rows are looked at.
 */
int ledger_orders_list(
	struct store *store, const struct store_order_filter *filter, store_order_visit visit, void *arg, int64_t *next)
{
	struct ledger *ledger = ledger_of(store);
	sqlite3_stmt *statement;
	unsigned found = 0;
	int64_t cursor = 0;
	int step = SQLITE_DONE;
	int code = ledger_begin(ledger);

	if (code)
		return code;
	*next = 0;
	statement = ledger_statement(ledger, filter->sale ? LEDGER_ORDERS_OF_SALE : LEDGER_ORDERS_OF_ALL);
	sqlite3_bind_int64(statement, 1, filter->after);
	if (filter->sale)
		sqlite3_bind_int64(statement, 2, filter->sale);
	for (unsigned scanned = 0; (step = sqlite3_step(statement)) == SQLITE_ROW; scanned++) {
		struct store_order order;

		if (found == filter->limit || scanned == STORE_LIST_SCAN_MAX) {
			*next = cursor; /* there is at least this row to go on with */
			break;
		}
		cursor = sqlite3_column_int64(statement, 0);
		read_order(statement, &order);
		if (filter->state[0] && strcmp(filter->state, order.state))
			continue;
		found++;
		if (visit(&order, arg))
			break;
	}
	if (step != SQLITE_ROW && step != SQLITE_DONE)
		return ledger_fail(ledger, "list orders");
	sqlite3_reset(statement);
	return ledger_commit(ledger);
}

int ledger_order_get(struct store *store, uint64_t serial, struct store_order *order)
{
	struct ledger *ledger = ledger_of(store);
	int code = ledger_begin(ledger);

	if (code)
		return code;
	code = find_order(ledger, serial, order);
	if (code == -ENOENT)
		return ledger_rollback(ledger,
			store_explain(ledger->base.error, -ENOENT, "no order %016llx", (unsigned long long)serial));
	return code ? code : ledger_commit(ledger);
}
