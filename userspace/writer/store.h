/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the order writer wants of a store: the narrow waist between the protocol (server.c, query.c) and a database.
 *
 * Each call is one transaction: when it returns 0, all of it is durable; when it returns an error, none of it is
 * stored. Between `begin` and `commit` the calls are part of one transaction instead (see there). Nothing here names a
 * database. One thread, one store.
 *
 * Errors, for every call: -EINVAL the request can never be right, -ENOENT no such thing, -EEXIST conflict with what is
 * stored, -ENOTUNIQ an idempotency key that was used for another question, -ENOMEM, -EIO the store failed. `store->error` is then
 * one sentence that says what and why. After -EIO the store does not go on as if nothing had happened: it closes the
 * database and reads it anew from disk before the next call is served, and answers -EIO for as long as that does not
 * succeed.
 *
 * Positions. Orders and events share one sequence of positions: each new row of either takes the next one, so one cursor
 * walks all that happened in the order in which it was committed. Gaps are allowed, two rows of one position are not.
 */
#ifndef SLUICE_WRITER_STORE_H
#define SLUICE_WRITER_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/wire.h"

#define STORE_ERROR_MAX 512
#define STORE_SLUG_MAX 63
#define STORE_KEY_MAX 128
#define STORE_FINGERPRINT_MAX 128
#define STORE_REASON_MAX 256
#define STORE_MODE_MAX 15
#define STORE_STATE_MAX 15 /* of a state as a word */
#define STORE_NAME_MAX 64  /* of a document */
#define STORE_LABEL_MAX 63
#define STORE_WINDOWS_NAME "windows."   /* and a sale's id: a document of the writer's own (query_windows.c) */
#define STORE_DOCUMENT_MAX (256u << 10) /* bytes */
#define STORE_LIST_MAX 1000             /* orders, or events, on one page */
#define STORE_SALES_MAX 1000            /* sales on one page: a ledger forgets none, and a frame has an end */
#define STORE_BOOKS_MAX 200             /* sales on one page with their documents */
#define STORE_CHANGES_MAX 1000          /* in one orders_change */
#define STORE_ENTRIES_MAX 2000          /* in one list_put, list_remove or list_page */
/* Rows one page looks at: bounds how long a search holds up admissions (some 10 ms). */
#define STORE_LIST_SCAN_MAX 20000
/* Entries one list_clear takes away, for the same reason. */
#define STORE_CLEAR_MAX 20000
/* How long an idempotency key is kept at least. */
#define STORE_ONCE_NS (7ULL * 24 * 3600 * 1000000000)
/* Prefix of the keys of the stock movements that orders_change makes; no question may use it for its own. */
#define STORE_REFUND_KEY "refund:"

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
	/* A document that is written with the movement, or NULL: both are stored, or neither. With a key that moved before it is left as
	 * it is, for it may have been written again since.
	 */
	const char *document;
	const char *value;
};

/* A sale with what else a node of a fleet must know of it at one moment. */
struct store_book {
	struct store_sale sale;
	int64_t refunded;     /* units that refunds without restock took out of put_in */
	const char *document; /* of the name that was asked for; NULL = there is none */
};

/* Who brought an order into its state. */
enum store_by { STORE_BY_NOBODY, STORE_BY_BUYER, STORE_BY_SHOP, STORE_BY_TIME, STORE_BY_COUNT };

/* The states are those of enum wire_order_state. held -> confirmed | cancelled | expired; confirmed -> refunded;
 * expired -> confirmed (a late payment). Units of held and confirmed orders count, for the sale and for the buyer.
 */
struct store_order {
	uint64_t serial;
	uint32_t sale;
	uint32_t quantity;
	uint32_t network;
	uint32_t hold_seconds; /* 0 = for ever */
	int64_t seq;
	uint64_t buyer;
	uint64_t admitted_ns;
	uint64_t committed_ns;
	uint64_t expires_ns;  /* store_expires_ns of the two above; 0 = never */
	uint64_t resolved_ns; /* when it came into its state; 0 while it is held */
	enum wire_order_state state;
	enum store_by resolved_by; /* STORE_BY_NOBODY while it is held */
	bool restocked;            /* refunded, and its units were put back into the sale */
	char source[ADDR_TEXT_MAX];
};

struct store_order_filter {
	uint32_t sale;  /* 0 = all */
	unsigned state; /* enum wire_order_state; 0 = any */
	bool of_buyer;  /* only those of `buyer` */
	uint64_t buyer;
	uint64_t from_ns; /* committed at or after; 0 = from the beginning */
	uint64_t to_ns;   /* committed before; 0 = to the end */
	int64_t after;    /* cursor that an earlier page of the same filter gave; 0 = from the beginning */
	unsigned limit;   /* 1..STORE_LIST_MAX */
};

enum store_action { STORE_CONFIRM = 1, STORE_CANCEL, STORE_EXPIRE, STORE_REFUND, STORE_ACTION_COUNT };

struct store_change {
	uint64_t serial;
	enum store_action action;
	enum store_by by; /* not STORE_BY_NOBODY */
	bool restock;     /* STORE_REFUND: the units are for sale again; else they leave the stock */
};

enum store_result {
	STORE_CHANGED = 1, /* by this change */
	STORE_SAME,        /* it is so already */
	STORE_CONFLICT,    /* the order's state does not allow it */
	STORE_NO_UNIT,     /* a late confirmation: no unit is free, or the buyer has what he may have */
	STORE_NOT_FOUND,
	STORE_RESULT_COUNT
};

struct store_changed {
	enum store_result result;
	struct store_order order; /* as it is now; all zero for STORE_NOT_FOUND */
};

enum store_event_type {
	STORE_ORDER_HELD = 1, /* the order itself, at its own position: not an event of its own */
	STORE_ORDER_CONFIRMED,
	STORE_ORDER_CANCELLED,
	STORE_ORDER_EXPIRED,
	STORE_ORDER_REFUNDED,
	STORE_SALE_OPENED,
	STORE_SALE_SOLD_OUT,
	STORE_SALE_RESTOCKED,
	STORE_SALE_ENDED,
	STORE_EVENT_COUNT
};

struct store_event {
	int64_t position;
	enum store_event_type type;
	uint32_t sale;
	uint64_t at_ns;
	bool has_order;
	/* The order as this event made it: its state, resolved_ns and resolved_by are those of the event, whatever became of
	 * it since.
	 */
	struct store_order order;
	/* the sale's sums when the event was recorded; 0 for the events of orders */
	int64_t put_in, held, confirmed;
};

struct store_event_filter {
	uint32_t sale;  /* 0 = all */
	int64_t after;  /* position; 0 = from the beginning */
	unsigned limit; /* 1..STORE_LIST_MAX */
};

struct store_once {
	char key[STORE_KEY_MAX + 1];
	char fingerprint[STORE_FINGERPRINT_MAX + 1]; /* of the question: the same key may not name another */
};

struct store_document {
	char name[STORE_NAME_MAX + 1];
	uint64_t changed_ns;
	size_t size; /* bytes */
};

enum store_list { STORE_LIST_DENY = 1, STORE_LIST_ALLOW, STORE_LIST_COUNT };

struct store_entry {
	enum store_list list;
	uint64_t expires_ns; /* 0 = never; the store keeps it and does not look at it */
	char prefix[ADDR_TEXT_MAX];
	char label[STORE_LABEL_MAX + 1];
	char reason[STORE_REASON_MAX + 1];
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
typedef int (*store_book_visit)(const struct store_book *book, void *arg);
typedef int (*store_order_visit)(const struct store_order *order, void *arg);
typedef int (*store_event_visit)(const struct store_event *event, void *arg);
typedef int (*store_document_visit)(const struct store_document *document, void *arg);
typedef int (*store_entry_visit)(const struct store_entry *entry, void *arg);

struct store_ops {
	const char *name; /* "sqlite", "postgres" */

	/* --- the bracket: what is called in between is one transaction. A call that fails in it leaves it to be ended by
	 * `rollback`; after -EIO the transaction is gone already, every further call gives -EIO, and `rollback` must still
	 * be called. Brackets do not nest, and `maintain` and `close` have no place in one.
	 */

	/* Returns 0, or -EIO; then there is no bracket. */
	int (*begin)(struct store *store);
	/* Returns 0 when everything since `begin` is durable, or -EIO. Ends the bracket in either case. */
	int (*commit)(struct store *store);
	/* Takes everything since `begin` back and ends the bracket. Returns `code` with store->error as it is, or -EIO. */
	int (*rollback)(struct store *store, int code);

	/* --- orders */

	/* Stores all records (at most WIRE_BATCH_MAX) but those that the guard refuses. acks[i] belongs to records[i]
	 * and must not be used unless 0 is returned. `now_ns` becomes committed_ns. Not in a bracket.
	 */
	int (*admit)(struct store *store, const struct wire_admit *records, unsigned count, uint64_t now_ns,
		struct wire_ack *acks, struct store_refused *refused);
	/* Applies the changes (at most STORE_CHANGES_MAX) in their order; results[i] belongs to changes[i] and must not be
	 * used unless 0 is returned. A change that is refused does not stop the others. Each that changes an order records
	 * an event. A refund without restock also records a stock movement of minus the quantity, with the key
	 * STORE_REFUND_KEY and the order's id in hex: put_in falls together with confirmed.
	 */
	int (*orders_change)(struct store *store, const struct store_change *changes, unsigned count, uint64_t now_ns,
		struct store_changed *results);
	/* Held orders whose time is over (expires_ns <= now_ns), earliest first, at most `limit` (1..STORE_LIST_MAX).
	 * Changes nothing: the same orders come again until they are resolved. *more: there may be others.
	 */
	int (*orders_due)(
		struct store *store, uint64_t now_ns, unsigned limit, store_order_visit visit, void *arg, bool *more);
	/* In the order of commit. *next: cursor to go on with, 0 at the end. */
	int (*orders_list)(struct store *store, const struct store_order_filter *filter, store_order_visit visit,
		void *arg, int64_t *next);
	int (*order_get)(struct store *store, uint64_t serial, struct store_order *order);

	/* --- sales */

	/* Sales of ids above `after` by id, at most `limit`. */
	int (*sales_list)(struct store *store, uint32_t after, unsigned limit, store_sale_visit visit, void *arg);
	/* Sales of ids above `after` by id, at most `limit`, each with its document: `prefix` and the id as digits. */
	int (*sale_books)(struct store *store, const char *prefix, uint32_t after, unsigned limit,
		store_book_visit visit, void *arg);
	/* Creates or changes; `first` (or NULL) is the stock it is created with. Fills in what the store keeps. */
	int (*sale_put)(struct store *store, struct store_sale *sale, const struct store_move *first, uint64_t now_ns);
	int (*stock_move)(struct store *store, const struct store_move *move, uint64_t now_ns, int64_t *put_in);
	/* Records a STORE_SALE_* event if it is news (*recorded): opened and ended once each, nothing after ended, sold_out
	 * only between opened and ended and not twice without restocked in between, restocked only after sold_out.
	 */
	int (*sale_event)(
		struct store *store, uint32_t sale, enum store_event_type type, uint64_t now_ns, bool *recorded);

	/* --- events: orders and events of positions above filter->after, by position. *next: the last position that was
	 * looked at (filter->after if there was none), even if fewer or none were of the sale; *more: there are others behind
	 * it.
	 */
	int (*events_list)(struct store *store, const struct store_event_filter *filter, store_event_visit visit,
		void *arg, int64_t *next, bool *more);

	/* --- idempotency: the first answer to a question, for STORE_ONCE_NS at least */

	/* *answer: what was stored under the key, to be freed by the caller, or NULL if the key is new. -ENOTUNIQ if it was
	 * stored with another fingerprint.
	 */
	int (*once_get)(struct store *store, const struct store_once *once, char **answer);
	/* The key must be new. */
	int (*once_put)(struct store *store, const struct store_once *once, const char *answer, uint64_t now_ns);

	/* --- documents: small texts by name */

	/* Creates or replaces. `value` has at most STORE_DOCUMENT_MAX bytes. */
	int (*document_put)(struct store *store, const char *name, const char *value, uint64_t now_ns);
	/* *value: to be freed by the caller, NULL if there is no such document (which is no error). */
	int (*document_get)(struct store *store, const char *name, char **value);
	/* By name, in the order of bytes. */
	int (*documents_list)(struct store *store, store_document_visit visit, void *arg);

	/* --- lists: entries by list and prefix, which is compared as text */

	/* Creates or replaces (at most STORE_ENTRIES_MAX; of two for one prefix the later stays). */
	int (*list_put)(struct store *store, const struct store_entry *entries, unsigned count);
	/* Looks at list and prefix only. *removed: how many were there. */
	int (*list_remove)(struct store *store, const struct store_entry *entries, unsigned count, unsigned *removed);
	/* Every entry once, as long as none is put or removed meanwhile; `after` 0 = from the beginning, `limit`
	 * 1..STORE_ENTRIES_MAX. *next: cursor to go on with, 0 at the end.
	 */
	int (*list_page)(
		struct store *store, int64_t after, unsigned limit, store_entry_visit visit, void *arg, int64_t *next);
	/* Removes the entries of a list that have the label, or all of it (`label` NULL); at most STORE_CLEAR_MAX in one
	 * call. *removed: how many; *more: there are others to remove.
	 */
	int (*list_clear)(struct store *store, enum store_list list, const char *label, unsigned *removed, bool *more);

	/* Housekeeping that would only delay an acknowledgement; call it after each answer. A bounded piece of it per call:
	 * also removes idempotency keys that are older than STORE_ONCE_NS.
	 */
	void (*maintain)(struct store *store, uint64_t now_ns);
	void (*close)(struct store *store);
};

struct store {
	const struct store_ops *ops;
	unsigned schema; /* version of the tables */
	char error[STORE_ERROR_MAX];
};

/* Opens the ledger at `path`, or makes it (0600); one of an older schema is brought to the present one. Takes the
 * ledger's lock for the life of the store. Returns 0 or negative errno with a sentence in `error` (>= STORE_ERROR_MAX):
 * -EBUSY another writer has it, -EPERM others could write it, -EPROTO it is not a ledger, or one of a newer version, or
 * its books do not balance, -EIO.
 */
int store_sqlite_open(const char *path, struct store **store, char *error);
/* Reads the whole ledger without changing it and checks structure and books: every sum against the orders it is made
 * of. The writer may be running. Returns 0 or as above; -ENOENT if there is no ledger.
 */
int store_sqlite_audit(const char *path, char *error);

/* The same for a database of PostgreSQL, named by a connection string of libpq without a password in it. */
int store_postgres_open(const char *conninfo, struct store **store, char *error);
int store_postgres_audit(const char *conninfo, char *error);
/* Names the ledger for people and logs: the connection string without its secrets. Returns 0, or -EINVAL with a sentence. */
int store_postgres_describe(const char *conninfo, char *name, size_t size, char *error);

/* --- store.c: what the numbers are called in answers and tables ("held", "shop", "order.confirmed", …). The *_word
 * functions know every number of their enum, and give "" for 0 and for what is none. The *_of_word functions give 0 for
 * what is no such word.
 */
const char *store_state_word(enum wire_order_state state);
unsigned store_state_of_word(const char *word);
const char *store_by_word(enum store_by by);
unsigned store_by_of_word(const char *word);
unsigned store_action_of_word(const char *word);
const char *store_result_word(enum store_result result);
const char *store_event_word(enum store_event_type type);
unsigned store_event_of_word(const char *word);
const char *store_list_word(enum store_list list);
unsigned store_list_of_word(const char *word);

/* When a hold of `hold_seconds` ends: 0 = never; INT64_MAX if it is later than any store can tell. */
uint64_t store_expires_ns(uint64_t admitted_ns, uint32_t hold_seconds);
/* The state that an event of an order made, and the other way round. */
enum wire_order_state store_event_state(enum store_event_type type);
enum store_event_type store_event_of_state(enum wire_order_state state);
/* What becomes of a change by the order's own state: STORE_CHANGED (then *to is the state it comes to), STORE_SAME or
 * STORE_CONFLICT. Whether an expired order that is confirmed can have its units again is for the store to say.
 */
enum store_result store_change_judge(
	const struct store_order *order, const struct store_change *change, uint64_t now_ns, enum wire_order_state *to);
/* What the events of a sale have said so far; all false at first. */
struct store_announced {
	bool opened;
	bool sold_out; /* by the last of sold_out and restocked */
	bool ended;
};
/* Whether an event of type STORE_SALE_* is to be recorded (see sale_event), and what is so after it. */
bool store_sale_event_is_news(const struct store_announced *announced, enum store_event_type type);
void store_sale_event_apply(struct store_announced *announced, enum store_event_type type);
/* Whether units of an order in this state count. */
static inline bool store_state_is_live(enum wire_order_state state)
{
	return state == WIRE_ORDER_HELD || state == WIRE_ORDER_CONFIRMED;
}

/* Writes the sentence (cut to STORE_ERROR_MAX) and returns `code`: `return store_explain(error, -EPERM, "…", …)`. */
int store_explain(char *error, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
