/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Orders in the SQLite store: a batch of admissions as one transaction with the ledger's own guard, and reading them
 * back.
 *
 * The guard does not trust the gate: unique serial, a buyer's units ≤ per_buyer, units ordered ≤ put_in. The gate
 * keeps the same rules, so a refusal here is an alarm and not a way of doing business. It concerns its one record; the
 * others are stored.
 *
 * Cost of a record: two look-ups in memory (guard.c), and one row appended to orders and its index. The sums of a sale
 * are written once per batch and sale.
 */
#include <errno.h>
#include <string.h>

#include "writer/store_sqlite.h"

/* Returns 0 or -EIO. */
static int append_order(struct ledger_batch *batch, const struct wire_admit *record, int64_t seq)
{
	sqlite3_stmt *statement = ledger_statement(batch->ledger, LEDGER_ORDER_INSERT);
	char source[ADDR_TEXT_MAX];

	addr_format(&record->source, source);
	sqlite3_bind_int64(statement, 1, batch->position + 1);
	sqlite3_bind_int64(statement, 2, (int64_t)record->serial);
	sqlite3_bind_int64(statement, 3, record->sale);
	sqlite3_bind_int64(statement, 4, seq);
	sqlite3_bind_int64(statement, 5, record->quantity);
	sqlite3_bind_int64(statement, 6, (int64_t)record->buyer);
	sqlite3_bind_text(statement, 7, source, -1, SQLITE_STATIC); /* stepped before it goes out of scope */
	sqlite3_bind_int64(statement, 8, record->network);
	sqlite3_bind_int64(statement, 9, record->hold_seconds);
	sqlite3_bind_int64(statement, 10, (int64_t)record->admitted_wall_ns);
	sqlite3_bind_int64(statement, 11, (int64_t)batch->now_ns);
	return ledger_step_done(statement) ? ledger_fail(batch->ledger, "append an order") : 0;
}

void ledger_order_read(sqlite3_stmt *row, struct store_order *order)
{
	char word[16];

	*order = (struct store_order){.serial = (uint64_t)sqlite3_column_int64(row, 1),
		.sale = (uint32_t)sqlite3_column_int64(row, 2),
		.seq = sqlite3_column_int64(row, 3),
		.quantity = (uint32_t)sqlite3_column_int64(row, 5),
		.buyer = (uint64_t)sqlite3_column_int64(row, 6),
		.network = (uint32_t)sqlite3_column_int64(row, 8),
		.admitted_ns = (uint64_t)sqlite3_column_int64(row, 9),
		.committed_ns = (uint64_t)sqlite3_column_int64(row, 10),
		.hold_seconds = (uint32_t)sqlite3_column_int64(row, 11),
		.resolved_ns = (uint64_t)sqlite3_column_int64(row, 12),
		.restocked = sqlite3_column_int(row, 14)};
	order->expires_ns = store_expires_ns(order->admitted_ns, order->hold_seconds);
	ledger_copy_text(word, sizeof(word), row, 4);
	order->state = store_state_of_word(word);
	ledger_copy_text(order->source, sizeof(order->source), row, 7);
	ledger_copy_text(word, sizeof(word), row, 13);
	order->resolved_by = store_by_of_word(word);
}

int ledger_order_at(struct ledger *ledger, int64_t position, struct store_order *order)
{
	sqlite3_stmt *statement = ledger_statement(ledger, LEDGER_ORDER_GET);

	sqlite3_bind_int64(statement, 1, position);
	if (sqlite3_step(statement) != SQLITE_ROW)
		return ledger_fail(ledger, "look up an order");
	ledger_order_read(statement, order);
	sqlite3_reset(statement);
	return 0;
}

static enum store_refusal judge(
	const struct guard *guard, const struct ledger_batch_sale *entry, const struct wire_admit *record)
{
	const struct store_sale *sale = &entry->sale;

	if (!entry->known)
		return STORE_REFUSED_UNKNOWN_SALE;
	if (!record->quantity)
		return STORE_REFUSED_QUANTITY;
	if (record->quantity > sale->put_in - sale->held - sale->confirmed)
		return STORE_REFUSED_PUT_IN;
	if ((uint64_t)guard_units(guard, record->sale, record->buyer) + record->quantity > sale->per_buyer)
		return STORE_REFUSED_BUYER_LIMIT;
	return STORE_REFUSED_NOT;
}

/* Returns 0 with the acknowledgement, or -EIO. */
static int store_record(struct ledger_batch *batch, struct ledger_batch_sale *entry, const struct wire_admit *record,
	struct wire_ack *ack)
{
	struct ledger *ledger = batch->ledger;
	uint64_t expires_ns = store_expires_ns(record->admitted_wall_ns, record->hold_seconds);
	int code = append_order(batch, record, entry->sale.orders + 1);

	if (code)
		return code;
	batch->position++;
	guard_add(&ledger->guard, record->serial, batch->position, record->sale, record->buyer, record->quantity);
	if (expires_ns)
		due_add(&ledger->due, (struct due_entry){.at_ns = expires_ns, .position = batch->position});
	entry->sale.orders++;
	entry->sale.held += record->quantity;
	entry->changed = true;
	ack->status = WIRE_ACK_STORED;
	ack->order_state = WIRE_ORDER_HELD;
	ack->seq = (uint64_t)entry->sale.orders;
	ack->committed_wall_ns = batch->now_ns;
	return 0;
}

/* Answers a record whose serial has been delivered before. Returns 0 with the acknowledgement or the refusal, or -EIO. */
static int recall_record(struct ledger_batch *batch, int64_t position, const struct wire_admit *record,
	struct wire_ack *ack, enum store_refusal *refusal)
{
	struct store_order order;
	int code = ledger_order_at(batch->ledger, position, &order);

	if (code)
		return code;
	if (order.sale != record->sale || order.buyer != record->buyer || order.quantity != record->quantity) {
		*refusal = STORE_REFUSED_MISMATCH;
		return 0;
	}
	ack->status = WIRE_ACK_KNOWN;
	ack->order_state = order.state;
	ack->seq = (uint64_t)order.seq;
	ack->committed_wall_ns = order.committed_ns;
	return 0;
}

/* Returns 0 or -EIO. What was delivered before is known whatever the guard would say to it now: a sold-out sale
 * refuses no order that is in it.
 */
static int admit_record(
	struct ledger_batch *batch, const struct wire_admit *record, struct wire_ack *ack, enum store_refusal *refusal)
{
	int64_t position = guard_find(&batch->ledger->guard, record->serial);
	struct ledger_batch_sale *entry;
	int code;

	*ack = (struct wire_ack){.serial = record->serial, .status = WIRE_ACK_REFUSED};
	*refusal = STORE_REFUSED_NOT;
	if (position)
		return recall_record(batch, position, record, ack, refusal);
	code = ledger_batch_sale(batch, record->sale, &entry);
	if (code)
		return code;
	*refusal = judge(&batch->ledger->guard, entry, record);
	return *refusal == STORE_REFUSED_NOT ? store_record(batch, entry, record, ack) : 0;
}

int ledger_admit(struct store *store, const struct wire_admit *records, unsigned count, uint64_t now_ns,
	struct wire_ack *acks, struct store_refused *refused)
{
	struct ledger *ledger = ledger_of(store);
	struct ledger_batch batch;
	int code;

	memset(refused, 0, sizeof(*refused));
	if (ledger->in_bracket)
		return store_explain(ledger->base.error, -EINVAL, "a batch is a transaction of its own");
	if (count > WIRE_BATCH_MAX)
		return store_explain(ledger->base.error, -EINVAL, "a batch has at most %d records", WIRE_BATCH_MAX);
	code = ledger_begin(ledger);
	if (!code && (guard_reserve(&ledger->guard, count) || due_reserve(&ledger->due, count)))
		return ledger_rollback(
			ledger, store_explain(ledger->base.error, -EIO, "no memory for %u more orders", count));
	if (!code)
		code = ledger_batch_begin(&batch, ledger, now_ns);
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
		code = ledger_batch_write_sums(&batch);
	return code ? code : ledger_commit(ledger);
}

static bool wanted(const struct store_order_filter *filter, const struct store_order *order)
{
	return (!filter->state || filter->state == order->state) &&
		(!filter->of_buyer || filter->buyer == order->buyer) && order->committed_ns >= filter->from_ns &&
		(!filter->to_ns || order->committed_ns < filter->to_ns);
}

/* One page. Filters while it reads, because a cursor must also be given for a page of few finds; no more than
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
		ledger_order_read(statement, &order);
		if (!wanted(filter, &order))
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
	int64_t position;

	if (code)
		return code;
	position = guard_find(&ledger->guard, serial);
	if (!position)
		return ledger_rollback(ledger,
			store_explain(ledger->base.error, -ENOENT, "no order %016llx", (unsigned long long)serial));
	code = ledger_order_at(ledger, position, order);
	return code ? code : ledger_commit(ledger);
}
