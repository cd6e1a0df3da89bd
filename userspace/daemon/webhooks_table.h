/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* How far webhooks have come: one position of the ledger, and the sales that are not there yet. No network, no clock, no ledger in here.
 *
 * Whatever was not delivered is in the ledger and nowhere else, so a receiver that is away for a week costs a cursor for each sale that has
 * something to tell it. There is room for WEBHOOK_SALES_MAX of them; while that is used up, the position stays where it is.
 */
#ifndef SLUICE_DAEMON_WEBHOOKS_TABLE_H
#define SLUICE_DAEMON_WEBHOOKS_TABLE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define WEBHOOK_SALES_MAX 1024

enum webhook_failure {
	WEBHOOK_DELIVERED,
	WEBHOOK_RESOLVE, /* no such host */
	WEBHOOK_CONNECT,
	WEBHOOK_TLS, /* also: not the host that it should be */
	WEBHOOK_TIMEOUT,
	WEBHOOK_BROKEN, /* what came back was no answer */
	WEBHOOK_REDIRECT,
	WEBHOOK_REFUSED,  /* 4xx */
	WEBHOOK_SERVER,   /* 5xx */
	WEBHOOK_GONE,     /* 410: the receiver wants none any more */
	WEBHOOK_FAILURES, /* how many there are */
};

struct webhook_sale {
	uint32_t id;
	uint64_t cursor;  /* all of its events up to this position are delivered */
	uint64_t read_to; /* its events up to here are in hand or delivered */
	uint64_t
		oldest_ns; /* wall: when the first event happened that is not delivered; about, after a restart 0 until it is read */
	uint64_t next_ns;  /* mono: not before */
	unsigned attempts; /* of the event in hand that failed */
	int status;        /* of the last attempt: HTTP status, 0 if there was no answer */
	enum webhook_failure failure;
	unsigned known; /* if is_counted: how many events there are behind read_to, as far as the table's position */
	bool is_counted;
	bool has_news;   /* has events behind read_to */
	bool is_sending; /* taken */
};

struct webhook_table {
	uint64_t position; /* events up to here are delivered, but for those of the sales below behind their cursors */
	unsigned count;
	unsigned turn; /* who is asked first */
	struct webhook_sale sales[WEBHOOK_SALES_MAX];
};

/* "3xx", "timeout": label of metrics and word of the API; "" for WEBHOOK_DELIVERED. */
const char *webhook_failure_name(enum webhook_failure failure);

/* How long to wait after `attempts` failures in a row: 1 s doubled with each up to 5 minutes, half of it by chance (`random`: any 32 bits), so that
 * many sales do not come again at once. Not shorter than what the receiver asked for, unless that is more than an hour.
 */
uint64_t webhook_backoff_ns(unsigned attempts, uint64_t retry_after_s, uint32_t random);

/* NULL if the sale has nothing outstanding. Pointers are good until something is taken out of the table: put_back or sweep. */
struct webhook_sale *webhook_table_find(struct webhook_table *table, uint32_t id);
/* The event at `position`, the next one of the ledger, is of this sale. False: there is no room to remember that, and nothing has changed. */
bool webhook_table_note(struct webhook_table *table, uint32_t id, uint64_t position, uint64_t at_ns);
/* There is no other event up to `position`. Forgets the sales that have nothing outstanding. */
void webhook_table_sweep(struct webhook_table *table, uint64_t position);
/* A sale whose time has come; each in its turn. It is taken (is_sending) until it is put back. NULL if there is none. */
struct webhook_sale *webhook_table_take(struct webhook_table *table, uint64_t now_ns);
/* How many events to read of a sale that was taken. To look for one more than there is would cost the writer a look at everything behind it, so it is
 * as many as were counted, and one where one has failed; else `most`.
 */
unsigned webhook_table_limit(const struct webhook_sale *sale, unsigned most);
/* That many were read with webhook_table_limit, the last one at `last`; the writer has looked at everything up to `next`. */
void webhook_table_read(
	const struct webhook_table *table, struct webhook_sale *sale, unsigned count, uint64_t last, uint64_t next);
/* The event at `position` is delivered. */
void webhook_table_delivered(struct webhook_sale *sale, uint64_t position);
/* The event at `position`, the first that is not delivered, is not delivered now either. It and what was in hand behind it will be read again, not before
 * `next_ns`.
 */
void webhook_table_failed(
	struct webhook_sale *sale, uint64_t position, enum webhook_failure failure, int status, uint64_t next_ns);
/* What was in hand of the sale is not in hand any more. */
void webhook_table_drop(struct webhook_sale *sale);
/* Gives a sale back, of which all that was read is delivered (after a failure nothing is in hand any more). Without news it is forgotten, as soon
 * as the table's position says the same.
 */
void webhook_table_put_back(struct webhook_table *table, struct webhook_sale *sale);
/* Nobody waits any longer. */
void webhook_table_hurry(struct webhook_table *table);

/* What is kept: {"position":n,"sales":{"7":n}}. New reference, NULL without memory. */
json_t *webhook_table_save(const struct webhook_table *table);
/* The other way: every sale of it may have something outstanding. Returns 0 or -EPROTO, and then the table is empty. */
int webhook_table_load(struct webhook_table *table, const json_t *json);

#endif
