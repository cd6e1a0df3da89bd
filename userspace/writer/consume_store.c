/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* See consume_store.h. The tables stand where the search path of the connection says, so that the operator can give them a schema. */
#include "writer/consume_store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

#define WAIT_MS 15000
/* Two consumers that start at once do not make the tables at once: an arbitrary number of our own. */
#define LOCK_SQL "SELECT pg_advisory_xact_lock(7318349394477056)"

static const char *const schema_sql[] = {
	"CREATE TABLE IF NOT EXISTS sluice_fleet_events("
	" sale text NOT NULL,"
	" node bigint NOT NULL,"
	" position bigint NOT NULL," /* in the ledger of the node */
	" type text NOT NULL,"
	" at timestamptz NOT NULL,"
	" order_id text,"                                /* of an order's event */
	" put_in bigint, held bigint, confirmed bigint," /* units, of a sale's event */
	" PRIMARY KEY (sale, node, position))",
	"CREATE TABLE IF NOT EXISTS sluice_fleet_orders("
	" id text NOT NULL,"
	" sale text NOT NULL,"
	" node bigint NOT NULL,"
	" position bigint NOT NULL," /* of the last change */
	" seq bigint NOT NULL,"
	" state text NOT NULL,"
	" quantity bigint NOT NULL,"
	" buyer text NOT NULL,"
	" source text NOT NULL,"
	" network bigint NOT NULL,"
	" admitted_at timestamptz NOT NULL,"
	" committed_at timestamptz NOT NULL,"
	" expires_at timestamptz,"
	" resolved_at timestamptz,"
	" resolved_by text,"
	" restocked boolean NOT NULL,"
	" PRIMARY KEY (id, node))", /* all nodes make ids with the same keys */
	"CREATE INDEX IF NOT EXISTS sluice_fleet_orders_by_sale ON sluice_fleet_orders(sale, state)",
	"CREATE TABLE IF NOT EXISTS sluice_fleet_rejected("
	" stream text NOT NULL,"
	" entry text NOT NULL,"
	" reason text NOT NULL,"
	" fields text NOT NULL," /* as they came */
	" at timestamptz NOT NULL DEFAULT now(),"
	" PRIMARY KEY (stream, entry))",
};

/* Tables of earlier versions had one row for an id, whichever node came first with it. The key may have been given another name. */
#define OLD_KEY_SQL \
	"SELECT conname::text FROM pg_constraint WHERE conrelid = 'sluice_fleet_orders'::regclass AND contype = 'p' AND " \
	"array_length(conkey, 1) = 1"
static const char new_key_sql[] =
	"DO $$ BEGIN EXECUTE format('ALTER TABLE sluice_fleet_orders DROP CONSTRAINT %I, ADD PRIMARY KEY (id, node)', (" OLD_KEY_SQL
	")); END $$";
/* The index is built anew: some ten million orders. */
#define NEW_KEY_WAIT_MS 600000

#define ORDER "sluice_consume_order"
#define SALE "sluice_consume_sale"
#define REJECT "sluice_consume_reject"

/* An order's state goes only forward in the ledger of its node: what is older than what is here has come late. */
static const char order_sql[] =
	"WITH event AS (INSERT INTO sluice_fleet_events(sale, node, position, type, at, order_id) "
	"VALUES ($1::text, $2::bigint, $3::bigint, $4::text, $5::text::timestamptz, $6::text) ON CONFLICT DO NOTHING) "
	"INSERT INTO sluice_fleet_orders AS o (id, sale, node, position, seq, state, quantity, buyer, source, network, admitted_at, "
	"committed_at, expires_at, resolved_at, resolved_by, restocked) VALUES ($6::text, $1::text, $2::bigint, $3::bigint, $7::bigint, "
	"$8::text, $9::bigint, $10::text, $11::text, $12::bigint, $13::text::timestamptz, $14::text::timestamptz, "
	"nullif($15::text, '')::timestamptz, nullif($16::text, '')::timestamptz, nullif($17::text, ''), $18::bigint = 1) "
	"ON CONFLICT (id, node) DO UPDATE SET position = excluded.position, state = excluded.state, resolved_at = excluded.resolved_at, "
	"resolved_by = excluded.resolved_by, restocked = excluded.restocked "
	"WHERE o.position < excluded.position";
static const char sale_sql[] =
	"INSERT INTO sluice_fleet_events(sale, node, position, type, at, put_in, held, confirmed) VALUES ($1::text, $2::bigint, $3::bigint, "
	"$4::text, $5::text::timestamptz, $6::bigint, $7::bigint, $8::bigint) ON CONFLICT DO NOTHING";
static const char reject_sql[] =
	"INSERT INTO sluice_fleet_rejected(stream, entry, reason, fields) VALUES ($1::text, $2::text, $3::text, "
	"$4::text) ON CONFLICT DO NOTHING";

int consume_store_init(struct consume_store *store, const char *conninfo)
{
	memset(store, 0, sizeof(*store));
	store->link.wait_ms = WAIT_MS;
	return link_init(&store->link, conninfo, store->error);
}

void consume_store_close(struct consume_store *store)
{
	if (store->link.conn)
		link_close(&store->link);
}

static int take_all(struct link *link, const char *doing)
{
	int code = link_send(link);

	while (!code && link->queued)
		code = link_take(link, doing, NULL);
	return code ? code : link_finish(link);
}

/* Within the transaction of make_tables. */
static int renew_key(struct consume_store *store)
{
	static const char doing[] = "give sluice_fleet_orders the key (id, node)";
	struct link *link = &store->link;
	int code, wait_ms = link->wait_ms;
	PGresult *result;
	bool is_old;

	code = link_run_sql(link, OLD_KEY_SQL, NULL, doing, &result);
	is_old = !code && PQntuples(result);
	PQclear(result);
	if (!is_old)
		return code;
	if (!store->told_of_key)
		log_info(
			"the table sluice_fleet_orders is of an earlier version: its key becomes (id, node), which takes a while if there are many orders");
	store->told_of_key = true;
	link->wait_ms = NEW_KEY_WAIT_MS;
	code = link_run_sql(link, "SET LOCAL statement_timeout = 0", NULL, doing, NULL);
	if (!code)
		code = link_run_sql(link, new_key_sql, NULL, doing, NULL);
	link->wait_ms = wait_ms;
	return code;
}

/* One transaction: a crash leaves nothing or everything. */
static int make_tables(struct consume_store *store)
{
	static const char doing[] = "make the consumer's tables";
	struct link *link = &store->link;
	int code = link_queue_sql(link, "BEGIN", NULL);

	if (!code)
		code = link_queue_sql(link, LOCK_SQL, NULL);
	for (unsigned i = 0; !code && i < sizeof(schema_sql) / sizeof(*schema_sql); i++)
		code = link_queue_sql(link, schema_sql[i], NULL);
	if (!code)
		code = take_all(link, doing);
	if (!code)
		code = renew_key(store);
	return code ? code : link_run_sql(link, "COMMIT", NULL, doing, NULL);
}

int consume_store_open(struct consume_store *store)
{
	struct link *link = &store->link;
	int code = link_open(link);

	/* What is stored is acknowledged to Redis, and then there is no second copy to read. */
	if (!code)
		code = link_run_sql(link, "SELECT " LINK_DURABLE_SQL, NULL, "set up the session", NULL);
	if (!code)
		code = make_tables(store);
	if (!code)
		code = link_prepare(link, ORDER, order_sql);
	if (!code)
		code = link_prepare(link, SALE, sale_sql);
	if (!code)
		code = link_prepare(link, REJECT, reject_sql);
	return code ? code : take_all(link, "prepare to consume");
}

static void queue_common(struct link_values *values, const struct consume_entry *entry)
{
	link_put_text(values, entry->slug);
	link_put_integer(values, entry->node);
	link_put_integer(values, entry->position);
	link_put_text(values, entry->type);
	link_put_text(values, entry->at);
}

static int queue_order(struct link *link, const struct consume_entry *entry)
{
	struct link_values values = {.count = 0};

	queue_common(&values, entry);
	link_put_text(&values, entry->id);
	link_put_integer(&values, entry->seq);
	link_put_text(&values, entry->state);
	link_put_integer(&values, entry->quantity);
	link_put_text(&values, entry->buyer);
	link_put_text(&values, entry->source);
	link_put_integer(&values, entry->network);
	link_put_text(&values, entry->admitted_at);
	link_put_text(&values, entry->committed_at);
	link_put_text(&values, entry->expires_at);
	link_put_text(&values, entry->resolved_at);
	link_put_text(&values, entry->resolved_by);
	link_put_integer(&values, entry->restocked);
	return link_queue(link, ORDER, &values);
}

static int queue_sale(struct link *link, const struct consume_entry *entry)
{
	struct link_values values = {.count = 0};

	queue_common(&values, entry);
	link_put_integer(&values, entry->put_in);
	link_put_integer(&values, entry->held);
	link_put_integer(&values, entry->confirmed);
	return link_queue(link, SALE, &values);
}

static int queue_rejected(struct link *link, const struct consume_entry *entry)
{
	struct link_values values = {.count = 0};
	char *raw = consume_entry_raw(entry);
	int code;

	if (!raw)
		return link_fail(link, "store entries", "no memory");
	link_put_text(&values, entry->stream);
	link_put_text(&values, entry->entry);
	link_put_text(&values, entry->reason);
	link_put_text(&values, raw);
	code = link_queue(link, REJECT, &values);
	free(raw);
	return code;
}

static int write_all(struct consume_store *store, const struct consume_entry *entries, unsigned count)
{
	struct link *link = &store->link;
	int code = 0;

	if (link->conn)
		link_check(link);
	if (!link->conn)
		code = consume_store_open(store);
	if (!code)
		code = link_queue_sql(link, "BEGIN", NULL);
	for (unsigned i = 0; !code && i < count; i++)
		code = *entries[i].reason     ? queue_rejected(link, &entries[i])
			: entries[i].is_order ? queue_order(link, &entries[i])
					      : queue_sale(link, &entries[i]);
	if (!code)
		code = link_queue_sql(link, "COMMIT", NULL);
	if (!code)
		code = take_all(link, "store entries");
	/* Committed here, perhaps not on the standby that it should wait for. Once more does no harm. */
	if (!code && link->warned)
		code = link_fail(link, "store entries", "the server warned (see above)");
	/* Only now, not with each attempt. */
	for (unsigned i = 0; !code && i < count; i++)
		if (*entries[i].reason)
			log_warn("entry %s of %s is put aside: %s", entries[i].entry, entries[i].stream,
				entries[i].reason);
	return code;
}

/* Classes 22 and 23: data that no repetition makes right. */
static bool is_of_data(const struct link *link)
{
	return !strncmp(link->sqlstate, "22", 2) || !strncmp(link->sqlstate, "23", 2);
}

int consume_store_write(struct consume_store *store, struct consume_entry *entries, unsigned count)
{
	int code = write_all(store, entries, count);

	if (!code || !is_of_data(&store->link))
		return code;
	/* One of them is to blame; which one, each by itself tells. */
	code = 0;
	for (unsigned i = 0; !code && i < count; i++) {
		code = write_all(store, &entries[i], 1);
		if (!code || !is_of_data(&store->link) || *entries[i].reason)
			continue;
		snprintf(entries[i].reason, sizeof(entries[i].reason), "%s", store->error);
		code = write_all(store, &entries[i], 1);
	}
	return code;
}
