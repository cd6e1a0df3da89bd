/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A ledger in a directory of its own, and short ways to say things about it; for the tests of the writer. */
#ifndef SLUICE_TESTS_LEDGER_FIXTURE_H
#define SLUICE_TESTS_LEDGER_FIXTURE_H

#include <errno.h>
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

#include "writer/store.h"

#define NOW_NS 1763812800250000000ULL /* 2025-11-22T12:00:00.250Z */

struct ledger_fixture {
	char directory[32];
	char path[64];
	struct store *store;
	char error[STORE_ERROR_MAX];
	struct wire_ack acks[WIRE_BATCH_MAX];
	struct store_refused refused;
};

static inline int fixture_open(struct ledger_fixture *fixture)
{
	return store_sqlite_open(fixture->path, &fixture->store, fixture->error);
}

static inline void fixture_close(struct ledger_fixture *fixture)
{
	if (fixture->store)
		fixture->store->ops->close(fixture->store);
	fixture->store = NULL;
}

static inline int fixture_setup(void **state)
{
	struct ledger_fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	strcpy(fixture->directory, "/tmp/sluice-ledger.XXXXXX");
	assert_non_null(mkdtemp(fixture->directory));
	snprintf(fixture->path, sizeof(fixture->path), "%s/ledger.db", fixture->directory);
	if (fixture_open(fixture))
		fail_msg("%s", fixture->error);
	*state = fixture;
	return 0;
}

static inline int fixture_teardown(void **state)
{
	static const char *const suffixes[] = {"", "-wal", "-shm", ".lock", "-journal", ".away"};
	struct ledger_fixture *fixture = *state;
	char path[128];

	fixture_close(fixture);
	for (unsigned i = 0; i < sizeof(suffixes) / sizeof(*suffixes); i++) {
		snprintf(path, sizeof(path), "%s%s", fixture->path, suffixes[i]);
		unlink(path);
	}
	assert_int_equal(rmdir(fixture->directory), 0);
	free(fixture);
	return 0;
}

/* Every test ends with books that balance. */
static inline void fixture_audit(struct ledger_fixture *fixture)
{
	if (store_sqlite_audit(fixture->path, fixture->error))
		fail_msg("audit: %s", fixture->error);
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

static inline void fixture_expect(
	const struct ledger_fixture *fixture, unsigned index, enum wire_ack_status status, uint64_t seq)
{
	const struct wire_ack *ack = &fixture->acks[index];

	if (ack->status != status || ack->seq != seq)
		fail_msg("ack %u: status %u seq %llu, expected %u and %llu", index, ack->status,
			(unsigned long long)ack->seq, (unsigned)status, (unsigned long long)seq);
}

/* Runs SQL on a connection of its own, as a person with the sqlite3 shell would, and gives the first value as text. */
static inline const char *fixture_sql(const struct ledger_fixture *fixture, const char *sql)
{
	static char text[256];
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
