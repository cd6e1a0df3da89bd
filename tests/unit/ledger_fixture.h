/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A ledger of its own for each test, and short ways to say things about it; for the tests of the writer.
 *
 * Most tests say what every store must do. They are run against the store that SLUICE_TEST_STORE names (one of
 * fixture_backends; "sqlite" if it is not set) and look at it through its operations only: test_writer_store, _orders,
 * _events, _once, _keep and _query. What concerns the file of the SQLite store (test_writer_ledger, _faults, _faults_life, _server) also
 * uses fixture_sql and fixture->path, and always has that store.
 */
#ifndef SLUICE_TESTS_LEDGER_FIXTURE_H
#define SLUICE_TESTS_LEDGER_FIXTURE_H

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "postgres_server.h"
#include "writer/store.h"

#define NOW_NS 1763812800250000000ULL /* 2025-11-22T12:00:00.250Z */

struct ledger_fixture;

/* How a store is had in a test. The functions fail the test if what they need cannot be had. */
struct fixture_backend {
	const char *name;
	/* Makes the place for an empty ledger, and takes it away with all that is in it. */
	void (*create)(struct ledger_fixture *fixture);
	void (*destroy)(struct ledger_fixture *fixture);
	/* Opens what is in the place: fixture->store, or fixture->error and what the store's open gave. */
	int (*open)(struct ledger_fixture *fixture);
	/* The store's audit, likewise. */
	int (*audit)(struct ledger_fixture *fixture);
};

struct ledger_fixture {
	const struct fixture_backend *backend;
	char directory[32];
	char path[64]; /* of the SQLite ledger; other stores keep what names their place here */
	struct store *store;
	char error[STORE_ERROR_MAX];
	struct wire_ack acks[WIRE_BATCH_MAX];
	struct store_refused refused;
};

/* --- the SQLite store */

static inline void fixture_sqlite_create(struct ledger_fixture *fixture)
{
	strcpy(fixture->directory, "/tmp/sluice-ledger.XXXXXX");
	assert_non_null(mkdtemp(fixture->directory));
	snprintf(fixture->path, sizeof(fixture->path), "%s/ledger.db", fixture->directory);
}

static inline void fixture_sqlite_destroy(struct ledger_fixture *fixture)
{
	static const char *const suffixes[] = {"", "-wal", "-shm", ".lock", "-journal", ".away"};
	char path[128];

	for (unsigned i = 0; i < sizeof(suffixes) / sizeof(*suffixes); i++) {
		snprintf(path, sizeof(path), "%s%s", fixture->path, suffixes[i]);
		unlink(path);
	}
	assert_int_equal(rmdir(fixture->directory), 0);
}

static inline int fixture_sqlite_open(struct ledger_fixture *fixture)
{
	return store_sqlite_open(fixture->path, &fixture->store, fixture->error);
}

static inline int fixture_sqlite_audit(struct ledger_fixture *fixture)
{
	return store_sqlite_audit(fixture->path, fixture->error);
}

static const struct fixture_backend fixture_sqlite = {
	.name = "sqlite",
	.create = fixture_sqlite_create,
	.destroy = fixture_sqlite_destroy,
	.open = fixture_sqlite_open,
	.audit = fixture_sqlite_audit,
};

/* --- the PostgreSQL store: one server for the program, an empty database for each test */

static inline void fixture_postgres_create(struct ledger_fixture *fixture)
{
	postgres_server_need();
	snprintf(fixture->path, sizeof(fixture->path), "host=%s user=writer dbname=ledger", postgres_server.directory);
}

static inline void fixture_postgres_destroy(struct ledger_fixture *fixture)
{
	(void)fixture;
	postgres_sql_as("writer", "ledger", "DROP SCHEMA IF EXISTS sluice CASCADE");
}

static inline int fixture_postgres_open(struct ledger_fixture *fixture)
{
	return store_postgres_open(fixture->path, &fixture->store, fixture->error);
}

static inline int fixture_postgres_audit(struct ledger_fixture *fixture)
{
	return store_postgres_audit(fixture->path, fixture->error);
}

static const struct fixture_backend fixture_postgres = {
	.name = "postgres",
	.create = fixture_postgres_create,
	.destroy = fixture_postgres_destroy,
	.open = fixture_postgres_open,
	.audit = fixture_postgres_audit,
};

static const struct fixture_backend *const fixture_backends[] = {&fixture_sqlite, &fixture_postgres};

/* --- any store */

static inline const struct fixture_backend *fixture_backend_wanted(void)
{
	const char *name = getenv("SLUICE_TEST_STORE");

	for (unsigned i = 0; i < sizeof(fixture_backends) / sizeof(*fixture_backends); i++)
		if (!name || !strcmp(name, fixture_backends[i]->name))
			return fixture_backends[i];
	fail_msg("SLUICE_TEST_STORE=%s: no such store", name);
	return NULL;
}

static inline int fixture_open(struct ledger_fixture *fixture)
{
	return fixture->backend->open(fixture);
}

static inline void fixture_close(struct ledger_fixture *fixture)
{
	if (fixture->store)
		fixture->store->ops->close(fixture->store);
	fixture->store = NULL;
}

/* As after a restart of the writer. */
static inline void fixture_reopen(struct ledger_fixture *fixture)
{
	fixture_close(fixture);
	if (fixture_open(fixture))
		fail_msg("%s", fixture->error);
}

static inline int fixture_setup_with(void **state, const struct fixture_backend *backend)
{
	struct ledger_fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	fixture->backend = backend;
	backend->create(fixture);
	fixture_reopen(fixture);
	*state = fixture;
	return 0;
}

static inline int fixture_setup(void **state)
{
	return fixture_setup_with(state, fixture_backend_wanted());
}

static inline int fixture_setup_sqlite(void **state)
{
	return fixture_setup_with(state, &fixture_sqlite);
}

static inline int fixture_teardown(void **state)
{
	struct ledger_fixture *fixture = *state;

	fixture_close(fixture);
	fixture->backend->destroy(fixture);
	free(fixture);
	return 0;
}

/* Every test ends with books that balance. */
static inline void fixture_audit(struct ledger_fixture *fixture)
{
	if (fixture->backend->audit(fixture))
		fail_msg("audit: %s", fixture->error);
}

static inline int fixture_find_sale(const struct store_sale *sale, void *arg)
{
	struct store_sale *wanted = arg;

	if (sale->id == wanted->id)
		*wanted = *sale;
	return sale->id == wanted->id;
}

/* The sums of a sale, as the store lists it. */
static inline void fixture_expect_sums(
	struct ledger_fixture *fixture, uint32_t id, int64_t put_in, int64_t held, int64_t confirmed, int64_t orders)
{
	struct store_sale sale = {.id = id, .put_in = -1};

	assert_int_equal(fixture->store->ops->sales_list(fixture->store, 0, UINT_MAX, fixture_find_sale, &sale), 0);
	if (sale.put_in != put_in || sale.held != held || sale.confirmed != confirmed || sale.orders != orders)
		fail_msg("sale %u: put_in %lld held %lld confirmed %lld orders %lld, expected %lld %lld %lld %lld", id,
			(long long)sale.put_in, (long long)sale.held, (long long)sale.confirmed, (long long)sale.orders,
			(long long)put_in, (long long)held, (long long)confirmed, (long long)orders);
}

static inline int fixture_sale(struct ledger_fixture *fixture, uint32_t id, uint32_t per_buyer, int64_t stock)
{
	struct store_sale sale = {.id = id,
		.opens_ns = NOW_NS,
		.ends_ns = NOW_NS + 3600000000000ULL,
		.per_buyer = per_buyer,
		.hold_seconds = 900,
		.order_mode = "confirm"};
	struct store_move first = {.sale = id, .delta = stock, .reason = "created"};

	snprintf(sale.slug, sizeof(sale.slug), "drop-%u", id);
	snprintf(first.key, sizeof(first.key), "create-%u", id);
	return fixture->store->ops->sale_put(fixture->store, &sale, &first, NOW_NS);
}

/* An order whose buyer is its serial: nobody orders twice. */
static inline struct wire_admit fixture_record(uint32_t sale, uint64_t serial)
{
	return (struct wire_admit){.serial = serial,
		.buyer = serial,
		.source = {.lo = 0xffffULL << 32 | 0xc0000201}, /* 192.0.2.1 */
		.admitted_wall_ns = NOW_NS - 1000000,
		.sale = sale,
		.network = 5,
		.quantity = 1,
		.hold_seconds = 900};
}

static inline int fixture_admit(struct ledger_fixture *fixture, const struct wire_admit *records, unsigned count)
{
	memset(fixture->acks, 0xee, sizeof(fixture->acks));
	return fixture->store->ops->admit(fixture->store, records, count, NOW_NS, fixture->acks, &fixture->refused);
}

/* `count` orders with the serials first, first + 1, … */
static inline int fixture_admit_range(struct ledger_fixture *fixture, uint32_t sale, uint64_t first, unsigned count)
{
	static struct wire_admit records[WIRE_BATCH_MAX];

	for (unsigned i = 0; i < count; i++)
		records[i] = fixture_record(sale, first + i);
	return fixture_admit(fixture, records, count);
}

static inline struct store_order fixture_order(struct ledger_fixture *fixture, uint64_t serial)
{
	struct store_order order = {.serial = 0};

	if (fixture->store->ops->order_get(fixture->store, serial, &order))
		fail_msg("%s", fixture->store->error);
	return order;
}

/* One change of one order at `now_ns`. Gives what the store said of it. */
static inline enum store_result fixture_change_at(
	struct ledger_fixture *fixture, uint64_t serial, enum store_action action, bool restock, uint64_t now_ns)
{
	struct store_change change = {.serial = serial,
		.action = action,
		.by = action == STORE_EXPIRE     ? STORE_BY_TIME
			: action == STORE_CANCEL ? STORE_BY_BUYER
						 : STORE_BY_SHOP,
		.restock = restock};
	struct store_changed changed;

	if (fixture->store->ops->orders_change(fixture->store, &change, 1, now_ns, &changed))
		fail_msg("%s", fixture->store->error);
	return changed.result;
}

static inline enum store_result fixture_change(
	struct ledger_fixture *fixture, uint64_t serial, enum store_action action)
{
	return fixture_change_at(fixture, serial, action, true, NOW_NS);
}

static inline void fixture_expect(
	const struct ledger_fixture *fixture, unsigned index, enum wire_ack_status status, uint64_t seq)
{
	const struct wire_ack *ack = &fixture->acks[index];

	if (ack->status != status || ack->seq != seq ||
		(status == WIRE_ACK_REFUSED && (ack->order_state || ack->committed_wall_ns)))
		fail_msg("ack %u: status %u seq %llu, expected %u and %llu", index, ack->status,
			(unsigned long long)ack->seq, (unsigned)status, (unsigned long long)seq);
}

/* SQLite only: runs SQL on a connection of its own, as a person with the sqlite3 shell would, and gives the first value as text. */
static inline const char *fixture_sql(const struct ledger_fixture *fixture, const char *sql)
{
	static char text[8192];
	sqlite3_stmt *statement = NULL;
	sqlite3 *db = NULL;

	text[0] = '\0';
	assert_int_equal(sqlite3_open(fixture->path, &db), SQLITE_OK);
	while (*sql) {
		int step;

		if (sqlite3_prepare_v2(db, sql, -1, &statement, &sql))
			fail_msg("%s", sqlite3_errmsg(db));
		step = sqlite3_step(statement);
		if (step == SQLITE_ROW && sqlite3_column_text(statement, 0))
			snprintf(text, sizeof(text), "%s", (const char *)sqlite3_column_text(statement, 0));
		else if (step != SQLITE_DONE && step != SQLITE_ROW)
			fail_msg("%s", sqlite3_errmsg(db));
		sqlite3_finalize(statement);
	}
	sqlite3_close(db);
	return text;
}

#endif
