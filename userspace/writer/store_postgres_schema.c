/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The ledger's tables in PostgreSQL, and the checks that a schema is a ledger, that its books balance and that nobody else
 * may write it. Called when the store connects and by the audit. The tables are meant to be read by people with psql;
 * the views put times and ids into words.
 *
 * A serial or buyer is a u64; a bigint is signed, so the same 64 bits are stored and show as negative numbers from 2^63
 * on. The views show them in hex, as the API does. A u32 is a bigint too: an integer would not hold it.
 */
#include <errno.h>

#include "writer/store_postgres.h"

/* The same number stands for the same tables in either store; PostgreSQL came with the second. */
#define POSTGRES_SCHEMA_VERSION 2
#define STRING_OF(x) #x
#define NUMBER_TEXT(x) STRING_OF(x)
/* How long reading the books may take: some 50 million orders. */
#define BOOKS_WAIT_MS 600000

/* RFC 3339 with milliseconds, from ns; NULL for 0. */
#define TIME_SQL(column, name) \
	" to_char(timestamp 'epoch' + nullif(" column \
	", 0) / 1000000 * interval '1 millisecond', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') AS " name
#define HEX_SQL(column) " lpad(to_hex(" column "), 16, '0')"
#define STATES "('held', 'confirmed', 'cancelled', 'expired', 'refunded')"

/* The CHECKs and UNIQUEs repeat what the transactions see to: a defect there ends in an error, not in an oversell.
 * orders.sale is no foreign key: the check of each row would look up, and lock, the sale's row once more; the store
 * looks before it inserts, and the audit afterwards.
 */
static const char *const schema_sql[] = {
	"CREATE TABLE sluice.ledger("
	" one boolean PRIMARY KEY CHECK(one)," /* there is one row */
	" version bigint NOT NULL,"
	" epoch bigint NOT NULL," /* of the writer whose turn it is: store_postgres.c */
	" created_at timestamptz NOT NULL)",
	"CREATE TABLE sluice.sales("
	" id bigint PRIMARY KEY CHECK(id BETWEEN 1 AND 4294967295),"
	" slug text NOT NULL UNIQUE,"
	" opens_ns bigint NOT NULL,"
	" ends_ns bigint NOT NULL,"
	" per_buyer bigint NOT NULL CHECK(per_buyer > 0),"
	" hold_seconds bigint NOT NULL CHECK(hold_seconds >= 0),"
	" pace_per_second bigint NOT NULL CHECK(pace_per_second >= 0),"
	" order_mode text NOT NULL,"
	" token_multiplier bigint NOT NULL CHECK(token_multiplier >= 0),"
	" paused boolean NOT NULL,"
	" ended boolean NOT NULL,"
	" put_in bigint NOT NULL,"                /* units: sum of stock_moves.delta */
	" held bigint NOT NULL CHECK(held >= 0)," /* units of orders in state held */
	" confirmed bigint NOT NULL CHECK(confirmed >= 0),"
	" orders bigint NOT NULL CHECK(orders >= 0)," /* number of orders = the last seq */
	" announced_opened boolean NOT NULL,"         /* what the sale's events have said */
	" announced_sold_out boolean NOT NULL,"
	" announced_ended boolean NOT NULL,"
	" created_ns bigint NOT NULL,"
	" CHECK(opens_ns < ends_ns),"
	" CHECK(held + confirmed <= put_in)" /* no oversell */
	/* Room for new versions of a row on its page: the row of a sale changes with each batch, its indexed columns do not. */
	") WITH (fillfactor = 20)",
	"CREATE TABLE sluice.stock_moves("
	" position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
	" key text NOT NULL UNIQUE,"
	" sale bigint NOT NULL REFERENCES sluice.sales(id),"
	" delta bigint NOT NULL,"
	" reason text NOT NULL,"
	" at_ns bigint NOT NULL)",
	"CREATE INDEX stock_moves_by_sale ON sluice.stock_moves(sale)",
	"CREATE TABLE sluice.orders("
	" position bigint PRIMARY KEY,"
	" serial bigint NOT NULL UNIQUE,"
	" sale bigint NOT NULL,"
	" seq bigint NOT NULL CHECK(seq > 0),"
	" state text NOT NULL CHECK(state IN " STATES "),"
	" quantity bigint NOT NULL CHECK(quantity > 0),"
	" buyer bigint NOT NULL,"
	" source text NOT NULL,"
	" network bigint NOT NULL,"
	" hold_seconds bigint NOT NULL,"
	" admitted_ns bigint NOT NULL,"
	" committed_ns bigint NOT NULL,"
	" expires_ns bigint NOT NULL,"  /* 0 = never */
	" resolved_ns bigint NOT NULL," /* 0 = not */
	" resolved_by text NOT NULL CHECK(resolved_by IN ('', 'buyer', 'shop', 'time')),"
	" restocked boolean NOT NULL,"
	" CHECK((state = 'held') = (resolved_by = '')),"
	" CHECK(NOT restocked OR state = 'refunded'),"
	" UNIQUE(sale, seq))",
	"CREATE INDEX orders_by_buyer ON sluice.orders(sale, buyer)",
	"CREATE INDEX orders_by_expiry ON sluice.orders(expires_ns, position) WHERE state = 'held' AND expires_ns > 0",
	"CREATE TABLE sluice.events("
	" position bigint PRIMARY KEY,"
	" type text NOT NULL,"
	" sale bigint NOT NULL,"
	" at_ns bigint NOT NULL,"
	" serial bigint," /* of an order's event */
	" by text NOT NULL,"
	" restocked boolean NOT NULL,"
	" put_in bigint NOT NULL," /* the sale's sums, of a sale's event */
	" held bigint NOT NULL,"
	" confirmed bigint NOT NULL,"
	" CHECK((serial IS NULL) = (type LIKE 'sale.%')))",
	"CREATE TABLE sluice.once("
	" key text PRIMARY KEY,"
	" fingerprint text NOT NULL,"
	" answer text NOT NULL,"
	" at_ns bigint NOT NULL)",
	"CREATE INDEX once_by_age ON sluice.once(at_ns)",
	"CREATE TABLE sluice.documents("
	" name text COLLATE \"C\" PRIMARY KEY,"
	" value text NOT NULL,"
	" changed_ns bigint NOT NULL)",
	"CREATE TABLE sluice.list_entries("
	" position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
	" list text COLLATE \"C\" NOT NULL CHECK(list IN ('deny', 'allow')),"
	" prefix text COLLATE \"C\" NOT NULL,"
	" expires_ns bigint NOT NULL,"
	" label text COLLATE \"C\" NOT NULL,"
	" reason text NOT NULL,"
	" UNIQUE(list, prefix))",
	"CREATE INDEX list_entries_by_label ON sluice.list_entries(list, label)",
	"CREATE VIEW sluice.orders_view AS SELECT" HEX_SQL("o.serial") " AS id, s.slug AS sale, o.seq, o.state, o.quantity," HEX_SQL(
		"o.buyer") " AS buyer, o.source," TIME_SQL("o.admitted_ns",
		"admitted_at") "," TIME_SQL("o.committed_ns", "committed_at") "," TIME_SQL("o.expires_ns",
		"expires_at") "," TIME_SQL("o.resolved_ns",
		"resolved_at") ", o.resolved_by, o.restocked FROM sluice.orders o JOIN sluice.sales s ON s.id = o.sale",
	"CREATE VIEW sluice.sales_view AS SELECT id, slug," TIME_SQL("opens_ns", "opens_at") "," TIME_SQL("ends_ns",
		"ends_at") ", per_buyer, put_in, held, confirmed, put_in - held - confirmed AS unsold, orders, paused, ended"
			   " FROM sluice.sales",
	"CREATE VIEW sluice.stock_moves_view AS SELECT s.slug AS sale, m.delta, m.reason," TIME_SQL(
		"m.at_ns", "at") ", m.key FROM sluice.stock_moves m JOIN sluice.sales s ON s.id = m.sale",
	"CREATE VIEW sluice.events_view AS SELECT e.position, e.type, s.slug AS sale," TIME_SQL("e.at_ns",
		"at") "," HEX_SQL("e.serial") " AS id, e.by FROM sluice.events e JOIN sluice.sales s ON s.id = e.sale",
	"INSERT INTO sluice.ledger(one, version, epoch, created_at) VALUES(true, " NUMBER_TEXT(
		POSTGRES_SCHEMA_VERSION) ", 0, now())",
};

/* The first integer that `sql` gives. */
static int read_integer(struct link *link, const char *sql, int64_t *value)
{
	PGresult *result;
	int code = link_run_sql(link, sql, NULL, "read the tables", &result);

	if (!code)
		*value = link_integer(result, 0, 0);
	PQclear(result);
	return code;
}

/* One transaction, version number included: a crash leaves nothing or everything. A schema that was made for us beforehand is used. */
static int create(struct link *link, bool with_schema)
{
	static const char doing[] = "make the tables";
	unsigned count = sizeof(schema_sql) / sizeof(*schema_sql);
	int code = link_queue_sql(link, "BEGIN", NULL);

	if (!code && !with_schema)
		code = link_queue_sql(link, "CREATE SCHEMA sluice", NULL);
	for (unsigned i = 0; !code && i < count; i++)
		code = link_queue_sql(link, schema_sql[i], NULL);
	if (!code)
		code = link_queue_sql(link, "COMMIT", NULL);
	if (!code)
		code = link_send(link);
	while (!code && link->queued)
		code = link_take(link, doing, NULL);
	return code ? code : link_finish(link);
}

int postgres_schema_open(struct link *link, bool make, unsigned *version)
{
	int64_t schema, ledger, objects, found = 0;

	/* sluice.ledger cannot be named before it is known to be there */
	if (read_integer(link, "SELECT count(*) FROM pg_namespace WHERE nspname = 'sluice'", &schema) ||
		read_integer(link,
			"SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE "
			"n.nspname = 'sluice' AND c.relname = 'ledger' AND c.relkind = 'r'",
			&ledger) ||
		read_integer(link,
			"SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE "
			"n.nspname = 'sluice'",
			&objects))
		return -EIO;
	*version = POSTGRES_SCHEMA_VERSION;
	if (!objects)
		return make ? create(link, schema)
			    : store_explain(link->error, -ENOENT, "there is no ledger in the database %s", link->name);
	if (!ledger)
		return store_explain(link->error, -EPROTO,
			"the schema sluice of the database %s is another program's: it has no table sluice.ledger",
			link->name);
	if (read_integer(link, "SELECT coalesce(max(version), 0) FROM sluice.ledger", &found))
		return -EIO;
	if (found > POSTGRES_SCHEMA_VERSION)
		return store_explain(link->error, -EPROTO,
			"the ledger %s has schema version %lld, this program knows up to %d: use the newer program",
			link->name, (long long)found, POSTGRES_SCHEMA_VERSION);
	if (found < POSTGRES_SCHEMA_VERSION)
		return store_explain(link->error, -EPROTO,
			"the ledger %s has no valid schema version (%lld): it is damaged", link->name,
			(long long)found);
	return 0;
}

/* Each counts what must not be; 0 is well. */
static const struct {
	const char *sql;
	const char *meaning;
} books_checks[] = {
	{"SELECT count(*) FROM sluice.sales s WHERE put_in <> (SELECT coalesce(sum(delta), 0) FROM sluice.stock_moves "
	 "WHERE sale = s.id)",
		"sales whose stock is not the sum of its movements"},
	{"SELECT count(*) FROM sluice.sales s LEFT JOIN (SELECT sale, count(*) AS orders, max(seq) AS last, "
	 "coalesce(sum(quantity) FILTER (WHERE state = 'held'), 0) AS held, "
	 "coalesce(sum(quantity) FILTER (WHERE state = 'confirmed'), 0) AS confirmed FROM sluice.orders GROUP BY sale) o "
	 "ON o.sale = s.id WHERE s.orders <> coalesce(o.orders, 0) OR s.orders <> coalesce(o.last, 0) "
	 "OR s.held <> coalesce(o.held, 0) OR s.confirmed <> coalesce(o.confirmed, 0)",
		"sales whose sums are not those of their orders, or with gaps in seq"},
	{"SELECT count(*) FROM sluice.orders o WHERE NOT EXISTS (SELECT FROM sluice.sales s WHERE s.id = o.sale)",
		"orders that belong to no sale"},
	{"SELECT count(*) FROM sluice.events e LEFT JOIN sluice.orders o ON o.position = e.position WHERE "
	 "o.position IS NOT NULL OR NOT EXISTS (SELECT FROM sluice.sales s WHERE s.id = e.sale) OR (e.serial IS NOT NULL "
	 "AND NOT EXISTS (SELECT FROM sluice.orders t WHERE t.serial = e.serial AND t.sale = e.sale))",
		"events without an order or a sale, or at the position of an order"},
};

/* In one snapshot: the writer may be at work when the audit looks. */
int postgres_books_check(struct link *link)
{
	int wait_ms = link->wait_ms;
	int code;

	link->wait_ms = BOOKS_WAIT_MS;
	code = link_run_sql(link, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", NULL, "read the books", NULL);
	if (!code)
		code = link_run_sql(link, "SET LOCAL statement_timeout = 0", NULL, "read the books", NULL);
	for (unsigned i = 0; !code && i < sizeof(books_checks) / sizeof(*books_checks); i++) {
		int64_t wrong;

		code = read_integer(link, books_checks[i].sql, &wrong);
		if (!code && wrong)
			code = store_explain(link->error, -EPROTO,
				"the books of the ledger %s do not balance: %lld %s; stop, keep a copy, restore a backup or repair it",
				link->name, (long long)wrong, books_checks[i].meaning);
	}
	if (!code)
		code = link_run_sql(link, "COMMIT", NULL, "read the books", NULL);
	link->wait_ms = wait_ms;
	return code;
}

int postgres_rights_check(struct link *link)
{
	static const char sql[] =
		"SELECT c.relname::text, coalesce(r.rolname::text, 'everybody') FROM pg_class c "
		"JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN LATERAL (SELECT grantee, privilege_type FROM aclexplode(c.relacl) "
		"UNION ALL SELECT x.grantee, x.privilege_type FROM pg_attribute t CROSS JOIN aclexplode(t.attacl) x "
		"WHERE t.attrelid = c.oid) a "
		"LEFT JOIN pg_roles r ON r.oid = a.grantee WHERE n.nspname = 'sluice' AND c.relkind = 'r' AND "
		"a.grantee <> c.relowner AND a.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER') LIMIT 1";
	PGresult *result;
	int code = link_run_sql(link, sql, NULL, "look at the rights", &result);

	if (!code && PQntuples(result))
		code = store_explain(link->error, -EPERM,
			"others can write the ledger %s: %s may change sluice.%s; revoke that", link->name,
			link_text(result, 0, 1), link_text(result, 0, 0));
	PQclear(result);
	return code;
}
