/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A batch of admissions in the PostgreSQL store: one transaction, two round trips, whatever its size.
 *
 * The first asks for all that the guard must know: the batch's sales, which of its serials are in the ledger, what its buyers
 * have. The guard then judges record by record, in their order, as if each were alone (the batch's own records are in the
 * tally). The second places what is left with one INSERT, which also adds the sums to the sales, each row once, and
 * commits. The server judges again by its own constraints: a serial is unique, held + confirmed ≤ put_in.
 *
 * A refusal is an alarm and not a way of doing business: the gate keeps the same rules. It concerns its one record; the
 * others are stored.
 */
#include <errno.h>
#include <string.h>

#include "writer/store_postgres.h"

enum {
	SERIALS,
	SALES,
	SEQS,
	QUANTITIES,
	BUYERS,
	SOURCES,
	NETWORKS,
	HOLDS,
	ADMITTED,
	EXPIRES,
	SUM_SALES,
	SUM_ORDERS,
	ARRAYS
};
_Static_assert(ARRAYS <= POSTGRES_ARRAYS, "arrays of a batch");

struct batch {
	struct postgres *pg;
	const struct wire_admit *records;
	unsigned count;
	uint64_t now_ns;
	int64_t position; /* of the last row in the ledger */
	PGresult *known;  /* orders whose serial is in the batch */
	unsigned placed;
};

/* --- first round trip ---------------------------------------------------------------------------------------------------- */
static int ask(struct batch *batch)
{
	struct postgres *pg = batch->pg;
	struct link_values sales = {.count = 0}, serials = {.count = 0}, buyers = {.count = 0};

	postgres_begin_arrays(pg, 4, 0);
	for (unsigned i = 0; i < batch->count; i++) {
		const struct wire_admit *record = &batch->records[i];

		link_array_add_integer(&pg->arrays[0], (int64_t)record->serial);
		link_array_add_integer(&pg->arrays[1], record->sale);
		link_array_add_integer(&pg->arrays[2], (int64_t)record->buyer);
		if (!i || record->sale != record[-1].sale)
			link_array_add_integer(&pg->arrays[3], record->sale);
	}
	link_put_array(&serials, &pg->arrays[0]);
	link_put_array(&buyers, &pg->arrays[1]);
	link_put_array(&buyers, &pg->arrays[2]);
	link_put_array(&sales, &pg->arrays[3]);
	if (postgres_queue(pg, POSTGRES_LAST_POSITION, NULL) || postgres_queue(pg, POSTGRES_SALES_OF_IDS, &sales) ||
		postgres_queue(pg, POSTGRES_ORDERS_OF_SERIALS, &serials) ||
		postgres_queue(pg, POSTGRES_UNITS_OF_BUYERS, &buyers))
		return -EIO;
	return postgres_send(pg);
}

/* Orders and units become values of the tally: of a serial the row in `known` plus 1, of a buyer his units. */
static int hear(struct batch *batch)
{
	static const char doing[] = "look up a batch";
	struct postgres *pg = batch->pg;
	PGresult *position = NULL, *sales = NULL, *units = NULL;
	int code = postgres_take(pg, doing, &position);

	if (!code)
		code = postgres_take(pg, doing, &sales);
	if (!code)
		code = postgres_take(pg, doing, &batch->known);
	if (!code)
		code = postgres_take(pg, doing, &units);
	if (!code)
		code = postgres_finish(pg);
	if (code)
		goto out;
	batch->position = link_integer(position, 0, 0);
	postgres_read_sales(pg, sales);
	for (int row = 0; row < PQntuples(batch->known); row++)
		*tally_value(&pg->tally, TALLY_SERIAL, 0, (uint64_t)link_integer(batch->known, row, 0)) = row + 1;
	for (int row = 0; row < PQntuples(units); row++) {
		const struct wire_admit *record = &batch->records[link_integer(units, row, 0) - 1];

		*tally_value(&pg->tally, TALLY_BUYER, record->sale, record->buyer) = link_integer(units, row, 1);
	}
out:
	PQclear(position);
	PQclear(sales);
	PQclear(units);
	return code;
}

/* --- the guard ----------------------------------------------------------------------------------------------------------- */

/* Answers a record whose serial was delivered before: an earlier batch's (a row of `known`) or this batch's (`ordinal` < 0: a record). */
static enum store_refusal recall(const struct batch *batch, int64_t ordinal, const struct wire_admit *record,
	const struct wire_ack *acks, struct wire_ack *ack)
{
	struct store_order order;

	if (ordinal < 0) {
		const struct wire_admit *first = &batch->records[-ordinal - 1];

		order = (struct store_order){.sale = first->sale,
			.buyer = first->buyer,
			.quantity = first->quantity,
			.seq = (int64_t)acks[-ordinal - 1].seq,
			.committed_ns = batch->now_ns,
			.state = WIRE_ORDER_HELD};
	} else {
		postgres_read_order(batch->known, (int)ordinal - 1, 0, &order);
	}
	if (order.sale != record->sale || order.buyer != record->buyer || order.quantity != record->quantity)
		return STORE_REFUSED_MISMATCH;
	ack->status = WIRE_ACK_KNOWN;
	ack->seq = (uint64_t)order.seq;
	ack->committed_wall_ns = order.committed_ns;
	ack->order_state = order.state;
	return STORE_REFUSED_NOT;
}

static enum store_refusal judge(const struct postgres_sale *entry, int64_t units, const struct wire_admit *record)
{
	const struct store_sale *sale = &entry->sale;

	if (!record->quantity)
		return STORE_REFUSED_QUANTITY;
	if (record->quantity > sale->put_in - sale->held - sale->confirmed)
		return STORE_REFUSED_PUT_IN;
	if (units + record->quantity > sale->per_buyer)
		return STORE_REFUSED_BUYER_LIMIT;
	return STORE_REFUSED_NOT;
}

static void place(
	struct batch *batch, struct postgres_sale *entry, const struct wire_admit *record, struct wire_ack *ack)
{
	struct link_array *arrays = batch->pg->arrays;
	char source[ADDR_TEXT_MAX];

	entry->sale.orders++;
	entry->sale.held += record->quantity;
	entry->orders++;
	addr_format(&record->source, source);
	link_array_add_integer(&arrays[SERIALS], (int64_t)record->serial);
	link_array_add_integer(&arrays[SALES], record->sale);
	link_array_add_integer(&arrays[SEQS], entry->sale.orders);
	link_array_add_integer(&arrays[QUANTITIES], record->quantity);
	link_array_add_integer(&arrays[BUYERS], (int64_t)record->buyer);
	link_array_add_text(&arrays[SOURCES], source);
	link_array_add_integer(&arrays[NETWORKS], record->network);
	link_array_add_integer(&arrays[HOLDS], record->hold_seconds);
	link_array_add_integer(&arrays[ADMITTED], (int64_t)record->admitted_wall_ns);
	link_array_add_integer(
		&arrays[EXPIRES], (int64_t)store_expires_ns(record->admitted_wall_ns, record->hold_seconds));
	batch->placed++;
	ack->status = WIRE_ACK_STORED;
	ack->seq = (uint64_t)entry->sale.orders;
	ack->committed_wall_ns = batch->now_ns;
	ack->order_state = WIRE_ORDER_HELD;
}

/* What was delivered before is known whatever the guard would say to it now: a sold-out sale refuses no order that is in it. */
static enum store_refusal admit_record(struct batch *batch, unsigned i, struct wire_ack *acks)
{
	struct tally *tally = &batch->pg->tally;
	const struct wire_admit *record = &batch->records[i];
	int64_t *ordinal = tally_value(tally, TALLY_SERIAL, 0, record->serial);
	int64_t *entry, *units;
	enum store_refusal refusal;

	acks[i] = (struct wire_ack){.serial = record->serial, .status = WIRE_ACK_REFUSED};
	if (*ordinal)
		return recall(batch, *ordinal, record, acks, &acks[i]);
	entry = tally_value(tally, TALLY_SALE, 0, record->sale);
	if (!*entry)
		return STORE_REFUSED_UNKNOWN_SALE;
	units = tally_value(tally, TALLY_BUYER, record->sale, record->buyer);
	refusal = judge(&batch->pg->sales[*entry - 1], *units, record);
	if (refusal == STORE_REFUSED_NOT) {
		place(batch, &batch->pg->sales[*entry - 1], record, &acks[i]);
		*units += record->quantity;
		*ordinal = -(int64_t)i - 1;
	}
	return refusal;
}

/* --- second round trip --------------------------------------------------------------------------------------------------- */
static int store_placed(struct batch *batch)
{
	struct postgres *pg = batch->pg;
	struct link_values values = {.count = 0};
	int code;

	for (unsigned i = 0; i < pg->sale_count; i++) {
		if (!pg->sales[i].orders)
			continue;
		link_array_add_integer(&pg->arrays[SUM_SALES], pg->sales[i].sale.id);
		link_array_add_integer(&pg->arrays[SUM_ORDERS], pg->sales[i].sale.orders);
	}
	for (unsigned i = SERIALS; i <= ADMITTED; i++)
		link_put_array(&values, &pg->arrays[i]);
	link_put_integer(&values, (int64_t)batch->now_ns);
	link_put_array(&values, &pg->arrays[SUM_SALES]);
	link_put_array(&values, &pg->arrays[SUM_ORDERS]);
	link_put_integer(&values, batch->position);
	link_put_array(&values, &pg->arrays[EXPIRES]);
	if (postgres_queue(pg, POSTGRES_ORDERS_PLACE, &values) || postgres_queue_commit(pg) || postgres_send(pg))
		return -EIO;
	code = postgres_take(pg, "place a batch", NULL);
	return code ? code : postgres_take_commit(pg);
}

int postgres_admit(struct store *store, const struct wire_admit *records, unsigned count, uint64_t now_ns,
	struct wire_ack *acks, struct store_refused *refused)
{
	struct postgres *pg = postgres_of(store);
	struct batch batch = {.pg = pg, .records = records, .count = count, .now_ns = now_ns};
	int code;

	memset(refused, 0, sizeof(*refused));
	if (count > WIRE_BATCH_MAX)
		return store_explain(pg->base.error, -EINVAL, "a batch has at most %d records", WIRE_BATCH_MAX);
	code = postgres_begin(pg);
	if (!code)
		code = ask(&batch);
	if (!code)
		code = hear(&batch);
	if (code)
		goto out;
	postgres_begin_arrays(pg, ARRAYS, 1u << SOURCES);
	for (unsigned i = 0; i < count; i++) {
		enum store_refusal refusal = admit_record(&batch, i, acks);

		if (refusal == STORE_REFUSED_NOT)
			continue;
		if (!refused->total++)
			refused->first_serial = records[i].serial;
		refused->count[refusal]++;
	}
	/* The end of a batch that brought nothing new says the same as its commit: what it found is durable. */
	code = batch.placed ? store_placed(&batch) : postgres_end(pg, 0);
out:
	PQclear(batch.known);
	return code;
}
