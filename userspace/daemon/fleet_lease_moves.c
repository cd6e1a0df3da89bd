/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Leases and the ledger: units that were granted are put in, units that go back are taken out, each with the book of the sale in the same
 * transaction; and the books as they are read at the start. Begun on the fleet's thread, done on the pipeline's.
 *
 * The pipeline asks again after a break of its connection, and the key of a movement makes it happen once: so what becomes of a move is always known in
 * the end, unless the daemon stops first. Then the next start reads the book.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "daemon/fleet_leases_impl.h"
#include "daemon/pipeline.h"
#include "daemon/stock_change.h"

#define BOOKS_PAGE 200 /* STORE_BOOKS_MAX */

struct move {
	struct stock_change change;
	struct leased_sale *sale; /* which live longer than the pipeline */
	int64_t units;
};

static int prepare(struct daemon *d, void *arg)
{
	struct move *move = arg;

	return stock_change_prepare(d, &move->change);
}

static void count(struct fleet_leases *leases, int64_t units)
{
	if (units > 0) {
		atomic_fetch_add(&leases->grants, 1);
		atomic_fetch_add(&leases->granted, (unsigned long long)units);
	} else if (units < 0) {
		atomic_fetch_add(&leases->returns, 1);
		atomic_fetch_add(&leases->returned, (unsigned long long)-units);
	}
}

static void complete(struct daemon *d, void *arg, const struct pipeline_answer *answer)
{
	struct move *move = arg;

	if (move->units)
		stock_change_complete(d, &move->change, answer);
	if (answer->error == -ETIMEDOUT)
		return; /* the daemon stops, and nobody knows */
	if (answer->error == -EREMOTEIO)
		log_warn("sale %s: the ledger has not taken %" PRId64 " units of a lease (%s: %s); asked again later",
			move->sale->sale.slug, move->units, answer->code, answer->detail);
	if (!answer->error)
		count(d->leases, move->units);
	move->sale->move_error = answer->error == -ENOSPC ? -EAGAIN : answer->error;
	atomic_store(&move->sale->is_moved, true);
	fleet_wake(d);
}

static const struct pipeline_hooks move_hooks = {
	.changes = true, .prepare = prepare, .complete = complete, .release = free};

static json_t *question(const struct leased_sale *sale, const struct lease_action *action)
{
	char name[32], key[96], value[LEASE_BOOK_TEXT_MAX];

	snprintf(name, sizeof(name), FLEET_BOOK_PREFIX "%u", sale->sale.id);
	lease_book_encode(&action->book, value);
	if (!action->units)
		return json_pack("{s:s, s:s, s:s}", "op", "document_put", "name", name, "value", value);
	/* The number of a lease's operation grows with each that moves units; one that was refused may come again with other units. */
	snprintf(
		key, sizeof(key), "lease:%u:%" PRId64 ":%" PRId64, sale->sale.id, action->book.epoch, action->book.seq);
	return json_pack("{s:s, s:I, s:I, s:s, s:s, s:{s:s, s:s}}", "op", "stock_move", "sale",
		(json_int_t)sale->sale.id, "delta", (json_int_t)action->units, "key", key, "reason", "lease",
		"document", "name", name, "value", value);
}

void leases_move(struct daemon *d, struct leased_sale *sale, const struct lease_action *action)
{
	struct move *move = calloc(1, sizeof(*move));

	if (move) {
		move->change.sale = sale->sale;
		move->change.wanted = action->units < 0 ? (uint64_t)-action->units : 0;
		move->sale = sale;
		move->units = action->units;
	}
	if (move && !pipeline_tell(d->pipeline, question(sale, action), &move_hooks, move))
		return;
	log_warn("no memory to move units of sale %s", sale->sale.slug);
	sale->move_error = -ENOMEM;
	atomic_store(&sale->is_moved, true);
}

/* --- books ---------------------------------------------------------------------------------------------------------------------- */
json_t *fleet_leases_question(uint32_t after)
{
	return json_pack("{s:s, s:s, s:I, s:i}", "op", "sale_books", "documents", FLEET_BOOK_PREFIX, "after",
		(json_int_t)after, "limit", BOOKS_PAGE);
}

static void on_books(struct daemon *d, void *arg, const struct pipeline_answer *answer)
{
	struct fleet_leases *leases = d->leases;

	(void)arg;
	if (!answer->error) {
		pthread_mutex_lock(&leases->lock);
		json_array_extend(leases->books, json_object_get(answer->json, "books"));
		pthread_mutex_unlock(&leases->lock);
	} else if (answer->error == -EREMOTEIO) {
		log_error(
			"the order writer does not tell what is leased to this node (%s: %s), which therefore sells nothing",
			answer->code, answer->detail);
	}
	atomic_store(&leases->is_reading, false);
	fleet_wake(d);
}

static const struct pipeline_hooks books_hooks = {.complete = on_books};

void leases_read_books(struct daemon *d, uint32_t after)
{
	atomic_store(&d->leases->is_reading, true);
	if (pipeline_tell(d->pipeline, fleet_leases_question(after), &books_hooks, NULL))
		atomic_store(&d->leases->is_reading, false);
}
