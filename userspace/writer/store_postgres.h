/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Inside of the PostgreSQL store: the ledger in a database, its prepared statements and its transactions. Used by
 * store_postgres*.c only. What it promises, and what the server must be for that, is in docs/stores.md.
 */
#ifndef SLUICE_WRITER_STORE_POSTGRES_H
#define SLUICE_WRITER_STORE_POSTGRES_H

#include "writer/store.h"
#include "writer/store_postgres_link.h"
#include "writer/tally.h"

/* Arrays of one statement, at most. */
#define POSTGRES_ARRAYS 16

#define POSTGRES_SALE_COLUMNS \
	"s.id, s.slug, s.opens_ns, s.ends_ns, s.per_buyer, s.hold_seconds, s.pace_per_second, s.order_mode, " \
	"s.token_multiplier, s.paused, s.ended, s.put_in, s.held, s.confirmed, s.orders, s.announced_opened, " \
	"s.announced_sold_out, s.announced_ended"
#define POSTGRES_ORDER_COLUMNS \
	"o.serial, o.sale, o.quantity, o.network, o.hold_seconds, o.seq, o.buyer, o.admitted_ns, o.committed_ns, " \
	"o.expires_ns, o.resolved_ns, o.state, o.resolved_by, o.restocked, o.source"
/* Orders and events of positions above $1 as one sequence. */
#define POSTGRES_HISTORY \
	"(SELECT position, 'order.held' AS type, sale, committed_ns AS at_ns, serial, '' AS by, false AS restocked, " \
	"0::bigint AS put_in, 0::bigint AS held, 0::bigint AS confirmed FROM sluice.orders UNION ALL " \
	"SELECT position, type, sale, at_ns, serial, by, restocked, put_in, held, confirmed FROM sluice.events) h " \
	"WHERE h.position > $1::bigint ORDER BY h.position"
/* $3 state or '', $4 of one buyer ($5), $6 and $7 time of commit, $8 limit */
#define POSTGRES_ORDER_FILTER \
	" WHERE ($3::text = '' OR o.state = $3::text) AND ($4::bigint = 0 OR o.buyer = $5::bigint) AND " \
	"o.committed_ns >= $6::bigint AND o.committed_ns < $7::bigint LIMIT $8::bigint"

/* X(NAME, sql): prepared once per connection, in this order. */
#define POSTGRES_STATEMENTS(X) \
	X(BEGIN, "BEGIN") \
	X(COMMIT, "COMMIT") \
	X(ROLLBACK, "ROLLBACK") \
	X(FENCE, "SELECT epoch FROM sluice.ledger WHERE epoch = $1::bigint FOR SHARE") \
	X(BEGIN_READING, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") \
	X(FENCE_READING, "SELECT epoch FROM sluice.ledger WHERE epoch = $1::bigint") \
	X(LAST_POSITION, \
		"SELECT greatest((SELECT max(position) FROM sluice.orders), (SELECT max(position) FROM sluice.events), 0)") \
	/* admit */ \
	X(SALES_OF_IDS, "SELECT " POSTGRES_SALE_COLUMNS " FROM sluice.sales s WHERE s.id = ANY($1::bigint[])") \
	X(ORDERS_OF_SERIALS, \
		"SELECT " POSTGRES_ORDER_COLUMNS " FROM sluice.orders o WHERE o.serial = ANY($1::bigint[])") \
	X(UNITS_OF_BUYERS, \
		"SELECT k.i, sum(o.quantity)::bigint FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY k(sale, buyer, i) " \
		"JOIN sluice.orders o ON o.sale = k.sale AND o.buyer = k.buyer WHERE o.state IN ('held', 'confirmed') " \
		"GROUP BY k.i") \
	/* The sums come from the rows that were placed. If they are not those that the caller counted on ($11, $12: sale \
	 * and its orders afterwards), somebody else writes here: NULL then breaks the column's NOT NULL and with it the \
	 * transaction, in the same round trip. */ \
	X(ORDERS_PLACE, \
		"WITH placed AS (INSERT INTO sluice.orders(position, serial, sale, seq, state, quantity, buyer, source, " \
		"network, hold_seconds, admitted_ns, committed_ns, expires_ns, resolved_ns, resolved_by, restocked) " \
		"SELECT $13::bigint + r.i, r.serial, r.sale, r.seq, 'held', r.quantity, r.buyer, r.source, r.network, " \
		"r.hold_seconds, r.admitted_ns, $10::bigint, r.expires_ns, 0, '', false " \
		"FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], " \
		"$7::bigint[], $8::bigint[], $9::bigint[], $14::bigint[]) WITH ORDINALITY " \
		"r(serial, sale, seq, quantity, buyer, source, network, hold_seconds, admitted_ns, expires_ns, i) " \
		"ON CONFLICT (serial) DO NOTHING RETURNING sale, quantity), " \
		"sums AS (SELECT sale, count(*) AS orders, sum(quantity)::bigint AS units FROM placed GROUP BY sale) " \
		"UPDATE sluice.sales s SET held = s.held + sums.units, " \
		"orders = CASE WHEN s.orders + sums.orders = e.orders THEN e.orders END " \
		"FROM unnest($11::bigint[], $12::bigint[]) e(sale, orders) LEFT JOIN sums ON sums.sale = e.sale " \
		"WHERE s.id = e.sale") \
	/* orders */ \
	X(ORDERS_OF_ALL, \
		"SELECT o.position, " POSTGRES_ORDER_COLUMNS \
		" FROM (SELECT * FROM sluice.orders WHERE position > $1::bigint " \
		"ORDER BY position LIMIT $2::bigint) o" POSTGRES_ORDER_FILTER) \
	X(ORDERS_OF_SALE, \
		"SELECT o.seq, " POSTGRES_ORDER_COLUMNS \
		" FROM (SELECT * FROM sluice.orders WHERE sale = $9::bigint AND " \
		"seq > $1::bigint ORDER BY seq LIMIT $2::bigint) o" POSTGRES_ORDER_FILTER) \
	X(BEYOND_OF_ALL, \
		"SELECT position FROM sluice.orders WHERE position > $1::bigint ORDER BY position OFFSET $2::bigint - 1 LIMIT 2") \
	X(BEYOND_OF_SALE, \
		"SELECT seq FROM sluice.orders WHERE sale = $3::bigint AND seq > $1::bigint ORDER BY seq " \
		"OFFSET $2::bigint - 1 LIMIT 2") \
	X(ORDERS_DUE, \
		"SELECT " POSTGRES_ORDER_COLUMNS \
		" FROM sluice.orders o WHERE o.state = 'held' AND o.expires_ns > 0 AND " \
		"o.expires_ns <= $1::bigint ORDER BY o.expires_ns, o.position LIMIT $2::bigint") \
	/* orders_change */ \
	X(SALES_OF_SERIALS, \
		"SELECT " POSTGRES_SALE_COLUMNS \
		" FROM sluice.sales s WHERE s.id IN (SELECT o.sale FROM sluice.orders o " \
		"WHERE o.serial = ANY($1::bigint[]))") \
	X(UNITS_OF_SERIALS, \
		"SELECT o.serial, sum(b.quantity)::bigint FROM sluice.orders o JOIN sluice.orders b ON b.sale = o.sale AND " \
		"b.buyer = o.buyer WHERE o.serial = ANY($1::bigint[]) AND b.state IN ('held', 'confirmed') GROUP BY o.serial") \
	X(ORDERS_RESOLVE, \
		"UPDATE sluice.orders o SET state = k.state, resolved_ns = k.resolved_ns, resolved_by = k.resolved_by, " \
		"restocked = k.restocked <> 0 FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::bigint[]) " \
		"k(serial, state, resolved_ns, resolved_by, restocked) WHERE o.serial = k.serial") \
	X(EVENTS_ADD, \
		"INSERT INTO sluice.events(position, type, sale, at_ns, serial, by, restocked, put_in, held, confirmed) " \
		"SELECT $1::bigint + k.i, k.type, k.sale, $2::bigint, k.serial, k.by, k.restocked <> 0, 0, 0, 0 " \
		"FROM unnest($3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[]) WITH ORDINALITY " \
		"k(type, sale, serial, by, restocked, i)") \
	X(SALES_ADJUST, \
		"UPDATE sluice.sales s SET put_in = s.put_in + k.put_in, held = s.held + k.held, " \
		"confirmed = s.confirmed + k.confirmed FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) " \
		"k(sale, put_in, held, confirmed) WHERE s.id = k.sale") \
	X(MOVES_ADD, \
		"INSERT INTO sluice.stock_moves(key, sale, delta, reason, at_ns) SELECT k.key, k.sale, k.delta, $5::text, " \
		"$4::bigint FROM unnest($1::text[], $2::bigint[], $3::bigint[]) k(key, sale, delta)") \
	/* sales */ \
	X(SALES_LIST, \
		"SELECT " POSTGRES_SALE_COLUMNS \
		" FROM sluice.sales s WHERE s.id > $1::bigint ORDER BY s.id LIMIT $2::bigint") \
	X(SALE_GET, "SELECT " POSTGRES_SALE_COLUMNS " FROM sluice.sales s WHERE s.id = $1::bigint") \
	X(SALE_OF_SLUG, "SELECT id FROM sluice.sales WHERE slug = $1::text") \
	X(SALE_INSERT, \
		"INSERT INTO sluice.sales(id, slug, opens_ns, ends_ns, per_buyer, hold_seconds, pace_per_second, order_mode, " \
		"token_multiplier, paused, ended, put_in, held, confirmed, orders, announced_opened, announced_sold_out, " \
		"announced_ended, created_ns) VALUES($1::bigint, $2::text, $3::bigint, $4::bigint, $5::bigint, $6::bigint, " \
		"$7::bigint, $8::text, $9::bigint, $10::bigint <> 0, $11::bigint <> 0, 0, 0, 0, 0, false, false, false, " \
		"$12::bigint)") \
	X(SALE_CHANGE, \
		"UPDATE sluice.sales SET opens_ns = $3::bigint, ends_ns = $4::bigint, per_buyer = $5::bigint, " \
		"hold_seconds = $6::bigint, pace_per_second = $7::bigint, order_mode = $8::text, token_multiplier = $9::bigint, " \
		"paused = $10::bigint <> 0, ended = $11::bigint <> 0 WHERE id = $1::bigint AND slug = $2::text") \
	X(SALE_SET_PUT_IN, "UPDATE sluice.sales SET put_in = $2::bigint WHERE id = $1::bigint") \
	X(SALE_ANNOUNCE, \
		"UPDATE sluice.sales SET announced_opened = $2::bigint <> 0, announced_sold_out = $3::bigint <> 0, " \
		"announced_ended = $4::bigint <> 0 WHERE id = $1::bigint") \
	X(SALE_EVENT_ADD, \
		"INSERT INTO sluice.events(position, type, sale, at_ns, serial, by, restocked, put_in, held, confirmed) " \
		"SELECT $2::bigint, $3::text, s.id, $4::bigint, NULL, '', false, s.put_in, s.held, s.confirmed " \
		"FROM sluice.sales s WHERE s.id = $1::bigint") \
	X(SALE_BOOKS, \
		"SELECT " POSTGRES_SALE_COLUMNS \
		", (SELECT coalesce(-sum(m.delta), 0)::bigint FROM sluice.stock_moves m " \
		"WHERE m.sale = s.id AND m.key LIKE '" STORE_REFUND_KEY \
		"%'), d.value IS NOT NULL, d.value FROM sluice.sales s " \
		"LEFT JOIN sluice.documents d ON d.name = $1::text || s.id::text WHERE s.id > $2::bigint ORDER BY s.id " \
		"LIMIT $3::bigint") \
	X(MOVE_GET, "SELECT sale, delta FROM sluice.stock_moves WHERE key = $1::text") \
	X(MOVE_INSERT, \
		"INSERT INTO sluice.stock_moves(key, sale, delta, reason, at_ns) VALUES($1::text, $2::bigint, $3::bigint, " \
		"$4::text, $5::bigint)") \
	/* events: $2 rows to look at, $3 sale or 0, $4 limit */ \
	X(EVENTS_LIST, \
		"SELECT e.position, e.type, e.sale, e.at_ns, e.by, e.restocked, e.put_in, e.held, e.confirmed, " \
		"e.serial IS NOT NULL, " POSTGRES_ORDER_COLUMNS \
		" FROM (SELECT * FROM (SELECT * FROM " POSTGRES_HISTORY \
		" LIMIT $2::bigint) w WHERE $3::bigint = 0 OR w.sale = $3::bigint LIMIT $4::bigint) e " \
		"LEFT JOIN sluice.orders o ON o.serial = e.serial ORDER BY e.position") \
	X(EVENTS_BEYOND, "SELECT h.position FROM " POSTGRES_HISTORY " OFFSET $2::bigint - 1 LIMIT 2") \
	/* what is kept for the daemon */ \
	X(ONCE_GET, "SELECT fingerprint, answer FROM sluice.once WHERE key = $1::text") \
	X(ONCE_PUT, \
		"INSERT INTO sluice.once(key, fingerprint, answer, at_ns) VALUES($1::text, $2::text, $3::text, $4::bigint)") \
	X(ONCE_PRUNE, \
		"DELETE FROM sluice.once WHERE key IN (SELECT key FROM sluice.once WHERE at_ns < $1::bigint " \
		"ORDER BY at_ns LIMIT $2::bigint)") \
	X(DOCUMENT_PUT, \
		"INSERT INTO sluice.documents(name, value, changed_ns) VALUES($1::text, $2::text, $3::bigint) " \
		"ON CONFLICT (name) DO UPDATE SET value = excluded.value, changed_ns = excluded.changed_ns") \
	X(DOCUMENT_GET, "SELECT value FROM sluice.documents WHERE name = $1::text") \
	X(DOCUMENTS_LIST, "SELECT name, changed_ns, octet_length(value)::bigint FROM sluice.documents ORDER BY name") \
	X(LIST_PUT, \
		"INSERT INTO sluice.list_entries(list, prefix, expires_ns, label, reason) SELECT DISTINCT ON (k.list, k.prefix) " \
		"k.list, k.prefix, k.expires_ns, k.label, k.reason FROM unnest($1::text[], $2::text[], $3::bigint[], " \
		"$4::text[], $5::text[]) WITH ORDINALITY k(list, prefix, expires_ns, label, reason, i) " \
		"ORDER BY k.list, k.prefix, k.i DESC ON CONFLICT (list, prefix) DO UPDATE SET " \
		"expires_ns = excluded.expires_ns, label = excluded.label, reason = excluded.reason") \
	X(LIST_REMOVE, \
		"DELETE FROM sluice.list_entries e USING unnest($1::text[], $2::text[]) k(list, prefix) " \
		"WHERE e.list = k.list AND e.prefix = k.prefix") \
	X(LIST_PAGE, \
		"SELECT position, list, prefix, expires_ns, label, reason FROM sluice.list_entries " \
		"WHERE position > $1::bigint ORDER BY position LIMIT $2::bigint") \
	X(LIST_CLEAR, \
		"DELETE FROM sluice.list_entries WHERE position IN (SELECT position FROM sluice.list_entries " \
		"WHERE list = $1::text AND ($2::bigint = 0 OR label = $3::text) LIMIT $4::bigint)") \
	X(LIST_LEFT, \
		"SELECT EXISTS (SELECT FROM sluice.list_entries WHERE list = $1::text AND ($2::bigint = 0 OR label = $3::text))")

enum postgres_statement {
#define X(name, sql) POSTGRES_##name,
	POSTGRES_STATEMENTS(X)
#undef X
		POSTGRES_STATEMENT_COUNT
};

/* A sale as one call sees it: read once, written back once at the end. */
struct postgres_sale {
	struct store_sale sale;
	struct store_announced announced;
	int64_t put_in, held, confirmed, orders; /* added by the call */
};

struct postgres {
	struct store base;
	struct link link;
	char *conninfo;
	int64_t epoch; /* of this connection; another writer's turn makes it another */
	bool begun;    /* BEGIN and the fence are queued, their answers not taken */
	bool bracket;
	bool pruned_all;    /* no key was left that is too old */
	uint64_t pruned_ns; /* when that was looked for */
	struct link_array arrays[POSTGRES_ARRAYS];
	struct tally tally;          /* of one call */
	struct postgres_sale *sales; /* of one call, WIRE_BATCH_MAX */
	unsigned sale_count;
};

static inline struct postgres *postgres_of(struct store *store)
{
	return (struct postgres *)store;
}

/* --- store_postgres.c: transactions. Outside a bracket each operation is one of its own: postgres_begin … postgres_end. */

/* Connects anew if need be and queues BEGIN and the fence: they travel with the operation's first statements. Returns 0 or -EIO. */
int postgres_begin(struct postgres *pg);
/* The same for an operation that changes nothing: it sees one state of the ledger and costs no write to a disk. */
int postgres_begin_reading(struct postgres *pg);
/* Ends the operation with its `code`: commits after 0, takes back after a refusal; in a bracket leaves both to it. Returns `code`, or -EIO. */
int postgres_end(struct postgres *pg, int code);
/* As link_queue, link_send, link_take, link_finish and link_run, for the prepared statements; logs what fails. A refused
 * fence is a failure.
 */
int postgres_queue(struct postgres *pg, enum postgres_statement name, const struct link_values *values);
int postgres_send(struct postgres *pg);
int postgres_take(struct postgres *pg, const char *doing, PGresult **result);
int postgres_finish(struct postgres *pg);
int postgres_run(struct postgres *pg, enum postgres_statement name, const struct link_values *values, const char *doing,
	PGresult **result);
/* postgres_run for a statement that must change `rows` rows. */
int postgres_change(struct postgres *pg, enum postgres_statement name, const struct link_values *values,
	const char *doing, unsigned rows);
/* For what the server would not call an error, but is: gives the connection up. Returns -EIO. */
int postgres_fail(struct postgres *pg, const char *doing, const char *why);
/* Queues COMMIT to travel with what was queued before; then postgres_send, a postgres_take for each of those, and postgres_take_commit. */
int postgres_queue_commit(struct postgres *pg);
int postgres_take_commit(struct postgres *pg);
/* Starts the arrays of a statement anew; `texts` is a bit for each that holds texts. */
void postgres_begin_arrays(struct postgres *pg, unsigned count, unsigned texts);

/* --- store_postgres_schema.c */

/* Makes the tables if there are none, or checks that they are a ledger's of a version that this program knows; `make` false: only checks.
 * Returns 0, -ENOENT, -EPROTO, -EPERM or -EIO with a sentence in link->error.
 */
int postgres_schema_open(struct link *link, bool make, unsigned *version);
/* Compares the sums with the orders and movements they are made of. Returns as above. */
int postgres_books_check(struct link *link);
/* Whether anybody but the owner may write the tables. Returns 0, -EPERM or -EIO. */
int postgres_rights_check(struct link *link);

/* --- the operations: store_postgres_admit.c, _change.c, _orders.c, _sales.c, _keep.c */
int postgres_admit(struct store *store, const struct wire_admit *records, unsigned count, uint64_t now_ns,
	struct wire_ack *acks, struct store_refused *refused);
int postgres_orders_change(struct store *store, const struct store_change *changes, unsigned count, uint64_t now_ns,
	struct store_changed *results);
int postgres_orders_due(
	struct store *store, uint64_t now_ns, unsigned limit, store_order_visit visit, void *arg, bool *more);
int postgres_orders_list(struct store *store, const struct store_order_filter *filter, store_order_visit visit,
	void *arg, int64_t *next);
int postgres_order_get(struct store *store, uint64_t serial, struct store_order *order);
int postgres_sales_list(struct store *store, uint32_t after, unsigned limit, store_sale_visit visit, void *arg);
int postgres_sale_books(
	struct store *store, const char *prefix, uint32_t after, unsigned limit, store_book_visit visit, void *arg);
int postgres_sale_put(struct store *store, struct store_sale *sale, const struct store_move *first, uint64_t now_ns);
int postgres_stock_move(struct store *store, const struct store_move *move, uint64_t now_ns, int64_t *put_in);
int postgres_sale_event(
	struct store *store, uint32_t sale, enum store_event_type type, uint64_t now_ns, bool *recorded);
int postgres_events_list(struct store *store, const struct store_event_filter *filter, store_event_visit visit,
	void *arg, int64_t *next, bool *more);
int postgres_once_get(struct store *store, const struct store_once *once, char **answer);
int postgres_once_put(struct store *store, const struct store_once *once, const char *answer, uint64_t now_ns);
/* Within a transaction. Returns 0 or -EIO. */
int postgres_document_write(struct postgres *pg, const char *name, const char *value, uint64_t now_ns);
int postgres_document_put(struct store *store, const char *name, const char *value, uint64_t now_ns);
int postgres_document_get(struct store *store, const char *name, char **value);
int postgres_documents_list(struct store *store, store_document_visit visit, void *arg);
int postgres_list_put(struct store *store, const struct store_entry *entries, unsigned count);
int postgres_list_remove(struct store *store, const struct store_entry *entries, unsigned count, unsigned *removed);
int postgres_list_page(
	struct store *store, int64_t after, unsigned limit, store_entry_visit visit, void *arg, int64_t *next);
int postgres_list_clear(struct store *store, enum store_list list, const char *label, unsigned *removed, bool *more);
/* Removes a bounded number of old keys now and then. */
void postgres_maintain(struct store *store, uint64_t now_ns);

/* Rows as the statements give them: the order's or sale's columns begin at `column`. */
void postgres_read_order(const PGresult *result, int row, int column, struct store_order *order);
void postgres_read_sale(const PGresult *result, int row, struct postgres_sale *sale);
/* The sales of an answer become those of the call; the tally finds them. */
void postgres_read_sales(struct postgres *pg, const PGresult *result);

#endif
