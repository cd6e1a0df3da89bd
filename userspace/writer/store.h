/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the order writer wants of a store: the narrow waist between the protocol (server.c, query.c) and a database.
 *
 * Each call is one transaction: when it returns 0, all of it is durable; when it returns an error, none of it is
 * stored. Nothing here names a database. One thread, one store.
 *
 * Errors, for every call: -EINVAL the request can never be right, -ENOENT no such thing, -EEXIST conflict with what is
 * stored, -EIO the store failed. `store->error` is then one sentence that says what and why. After -EIO the store does
 * not go on as if nothing had happened: it closes the database and reads it anew from disk before the next call is
 * served, and answers -EIO for as long as that does not succeed.
 */
#ifndef SLUICE_WRITER_STORE_H
#define SLUICE_WRITER_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/wire.h"

#define STORE_ERROR_MAX 512
#define STORE_SLUG_MAX 63
#define STORE_KEY_MAX 128
#define STORE_REASON_MAX 256
#define STORE_MODE_MAX 15
#define STORE_STATE_MAX 15
#define STORE_LIST_MAX 1000 /* orders on one page */
#define STORE_LIST_SCAN_MAX \
	20000 /* rows one page looks at: bounds how long a search holds up admissions (some 10 ms) */

struct store_sale {
	uint32_t id; /* not 0 */
	char slug[STORE_SLUG_MAX + 1];
	uint64_t opens_ns;
	uint64_t ends_ns;
	uint32_t per_buyer;
	uint32_t hold_seconds;
	uint32_t pace_per_second;
	uint32_t token_multiplier;
	char order_mode[STORE_MODE_MAX + 1];
	bool paused;
	bool ended;
	/* kept by the store; ignored by sale_put */
	int64_t put_in;    /* units: sum of the stock movements */
	int64_t held;      /* units */
	int64_t confirmed; /* units */
	int64_t orders;    /* number of orders, and the last seq */
};

/* A stock movement. `key` makes it idempotent: the same key moves once. */
struct store_move {
	uint32_t sale;
	int64_t delta; /* units, either sign */
	char key[STORE_KEY_MAX + 1];
	char reason[STORE_REASON_MAX + 1];
};

struct store_order {
	uint64_t serial;
	uint32_t sale;
	uint32_t quantity;
	uint32_t network;
	int64_t seq;
	uint64_t buyer;
	uint64_t admitted_ns;
	uint64_t committed_ns;
	char state[STORE_STATE_MAX + 1];
	char source[ADDR_TEXT_MAX];
};

struct store_order_filter {
	uint32_t sale;                   /* 0 = all */
	char state[STORE_STATE_MAX + 1]; /* "" = any */
	int64_t after;  /* cursor that an earlier page of the same filter gave; 0 = from the beginning */
	unsigned limit; /* 1..STORE_LIST_MAX */
};

/* Why the guard refused a record. Each is an alarm: the gate admitted what the ledger must not hold. */
enum store_refusal {
	STORE_REFUSED_NOT, /* not refused */
	STORE_REFUSED_UNKNOWN_SALE,
	STORE_REFUSED_QUANTITY,    /* no unit at all */
	STORE_REFUSED_PUT_IN,      /* more units than were put in: an oversell */
	STORE_REFUSED_BUYER_LIMIT, /* more units than one buyer may have */
	STORE_REFUSED_MISMATCH,    /* the serial of another order: other sale, buyer or quantity */
	STORE_REFUSAL_COUNT
};

struct store_refused {
	unsigned count[STORE_REFUSAL_COUNT];
	unsigned total;
	uint64_t first_serial; /* of the first refused record, for the log */
};

struct store;
/* Return non-zero to stop the listing. */
typedef int (*store_sale_visit)(const struct store_sale *sale, void *arg);
typedef int (*store_order_visit)(const struct store_order *order, void *arg);

struct store_ops {
	const char *name; /* "sqlite" */
	/* Stores all records (at most WIRE_BATCH_MAX) but those that the guard refuses. acks[i] belongs to records[i]
	 * and must not be used unless 0 is returned. `now_ns` becomes committed_ns.
	 */
	int (*admit)(struct store *store, const struct wire_admit *records, unsigned count, uint64_t now_ns,
		struct wire_ack *acks, struct store_refused *refused);
	/* By id. */
	int (*sales_list)(struct store *store, store_sale_visit visit, void *arg);
	/* Creates or changes; `first` (or NULL) is the stock it is created with. Fills in what the store keeps. */
	int (*sale_put)(struct store *store, struct store_sale *sale, const struct store_move *first, uint64_t now_ns);
	int (*stock_move)(struct store *store, const struct store_move *move, uint64_t now_ns, int64_t *put_in);
	/* In the order of commit. *next: cursor to go on with, 0 at the end. */
	int (*orders_list)(struct store *store, const struct store_order_filter *filter, store_order_visit visit,
		void *arg, int64_t *next);
	int (*order_get)(struct store *store, uint64_t serial, struct store_order *order);
	/* Housekeeping that would only delay an acknowledgement; call it after each answer. */
	void (*maintain)(struct store *store);
	void (*close)(struct store *store);
};

struct store {
	const struct store_ops *ops;
	char error[STORE_ERROR_MAX];
};

/* Opens the ledger at `path`, or makes it (0600). Takes the ledger's lock for the life of the store. Returns 0 or
 * negative errno with a sentence in `error` (>= STORE_ERROR_MAX): -EBUSY another writer has it, -EPERM others could
 * write it, -EPROTO it is not a ledger, or one of a newer version, or its books do not balance, -EIO.
 */
int store_sqlite_open(const char *path, struct store **store, char *error);
/* Reads the whole ledger without changing it and checks structure and books: every sum against the orders it is made
 * of. The writer may be running. Returns 0 or as above; -ENOENT if there is no ledger.
 */
int store_sqlite_audit(const char *path, char *error);

/* Writes the sentence (cut to STORE_ERROR_MAX) and returns `code`: `return store_explain(error, -EPERM, "…", …)`. */
int store_explain(char *error, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
