/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* From a fresh connection to the writer to the point where orders may be open. Runs on the pipeline's thread at start and after
 * every break of the connection, while orders are closed in the gate.
 *
 * In this order: who is there, the ledger's sales, every admission that is not known to be durable, questions that were cut off. Then nothing is in
 * flight; limits, answers and lists are put into a gate that has not had them (recovery_kept.c); and gate and ledger can be compared sale by sale: a sale that the gate has not (a reboot, or a crash between the two), or has ended
 * by a clock that was wrong, is rebuilt from the ledger, and a stock that differs (a crash in the middle of a change) is set to put in - held - confirmed; then buyers are counted anew
 * (recovery_buyers.c).
 * Promise: when it returns 0, the conservation equation holds for every sale with a slot.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/addr.h"
#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/issue.h"
#include "daemon/maintenance.h"
#include "daemon/order_facts.h"
#include "daemon/pipeline_impl.h"
#include "daemon/revocation.h"
#include "sluice/plant.h"

#define PAGE_LIMIT 1000
#define NS_PER_S 1000000000ULL

static int hello(struct pipeline *p)
{
	json_t *greeting = json_pack("{s:i, s:i}", "version", WIRE_VERSION, "node", (int)config_home(&p->d->config)),
	       *answer;
	char *text = greeting ? json_dumps(greeting, JSON_COMPACT) : NULL;
	struct wire_header header;
	const void *body;
	const char *ledger, *store;
	int version, err;

	json_decref(greeting);
	if (!text)
		return -ENOMEM;
	err = pipeline_exchange(p, WIRE_HELLO, text, (uint32_t)strlen(text), &header, &body);
	free(text);
	if (err)
		return err;
	if (header.type != WIRE_HELLO)
		return -EPROTO;
	answer = json_loadb(body, header.length, 0, NULL);
	if (json_unpack(answer, "{s:i, s:s, s:s}", "version", &version, "ledger", &ledger, "store", &store) < 0 ||
		version != WIRE_VERSION) {
		json_decref(answer);
		return -EPROTO;
	}
	pthread_mutex_lock(&p->lock);
	snprintf(p->ledger, sizeof(p->ledger), "%s", ledger);
	snprintf(p->store, sizeof(p->store), "%s", store);
	pthread_mutex_unlock(&p->lock);
	json_decref(answer);
	return 0;
}

static int read_sales_page(struct pipeline *p, json_int_t *after, int (*each)(struct pipeline *, const struct sale *))
{
	json_t *answer, *list, *item;
	size_t i;
	int err = questions_exchange(p, json_pack("{s:s, s:I}", "op", "sales_list", "after", *after), &answer);

	if (err)
		return err;
	*after = json_integer_value(json_object_get(answer, "next"));
	list = json_object_get(answer, "sales");
	if (!json_is_array(list))
		err = -EPROTO;
	json_array_foreach(list, i, item) {
		struct sale sale;

		if (!err)
			err = sales_learn(p->d->sales, item, &sale);
		if (!err && each)
			err = each(p, &sale);
	}
	json_decref(answer);
	return err;
}

/* Learns every sale of the ledger and, if asked, calls `each` for it. */
static int read_sales(struct pipeline *p, int (*each)(struct pipeline *, const struct sale *))
{
	json_int_t after = 0;
	int err;

	sales_begin_reading(p->d->sales);
	do
		err = read_sales_page(p, &after, each);
	while (!err && after);
	return err;
}

/* One order of the ledger, back into the map of admissions and the order table. */
static int rebuild_order(struct pipeline *p, const struct sale *sale, const json_t *json)
{
	struct sluice_admission admission = {.sale = sale->id,
		.state = SLUICE_ADMISSION_DONE,
		.door = SLUICE_DOOR_CALL,
		.service = SLUICE_MAX_SERVICES};
	uint64_t ends_s = (sale->ends_ns + NS_PER_S - 1) / NS_PER_S;
	struct told_order order;
	int err = order_facts_read(json, &order);

	if (err || addr_parse(order.source, &admission.source))
		return -EPROTO;
	admission.serial = order.serial;
	admission.buyer = order.buyer;
	admission.admitted_wall = order.admitted_ns;
	admission.expires_at_s = ends_s > UINT32_MAX ? UINT32_MAX : (uint32_t)ends_s; /* no token lives longer */
	admission.network = order.network;
	admission.quantity = order.quantity;
	err = bpf_map_update_elem(p->d->maps.admissions, &order.serial, &admission, BPF_ANY);
	return err ? err : orders_put_durable(p->d->orders, order.serial, &admission, &order.facts, sale->counts);
}

static int rebuild_page(struct pipeline *p, const struct sale *sale, json_t **cursor, size_t *orders)
{
	json_t *answer, *list, *item;
	size_t i;
	int err = questions_exchange(p,
		json_pack("{s:s, s:I, s:s, s:O, s:i}", "op", "orders_list", "sale", (json_int_t)sale->id, "state", "",
			"after", *cursor, "limit", PAGE_LIMIT),
		&answer);

	if (err)
		return err;
	list = json_object_get(answer, "orders");
	if (!json_is_array(list))
		err = -EPROTO;
	json_array_foreach(list, i, item)
		if (!err)
			err = rebuild_order(p, sale, item);
	*orders += json_array_size(list);
	json_decref(*cursor);
	*cursor = json_incref(json_object_get(answer, "next"));
	if (!*cursor)
		*cursor = json_null();
	json_decref(answer);
	return err;
}

/* Admissions first, then the stock, then the id: a crash in between leaves a sale that the gate has not, and the next start begins
 * again. Buyers are counted when all sales are there.
 */
static int rebuild_sale(struct pipeline *p, const struct sale *sale, uint64_t free_units)
{
	json_t *cursor = json_integer(0);
	size_t orders = 0;
	int err = 0;

	while (!err && cursor && !json_is_null(cursor))
		err = rebuild_page(p, sale, &cursor, &orders);
	json_decref(cursor);
	if (err)
		return err;
	atomic_store(&p->compare, true);
	sales_fill_slot(p->d->sales, sale, free_units);
	log_info("sale %s: rebuilt in the gate from the ledger, %zu orders, %" PRIu64 " units free", sale->slug, orders,
		free_units);
	return 0;
}

static void correct_stock(struct pipeline *p, const struct sale *sale, uint64_t free_units)
{
	uint64_t now = sales_free_units(p->d->sales, sale);

	if (now == free_units)
		return;
	atomic_store(&p->compare, true);
	log_warn("sale %s: the gate had %" PRIu64 " units free and the ledger says %" PRIu64
		 " (a change was cut off); the ledger counts",
		sale->slug, now, free_units);
	if (now < free_units)
		sales_give_units(p->d->sales, sale, free_units - now);
	else
		sales_take_units(p->d->sales, sale, now - free_units);
}

/* A daemon of before, whose clock was wrong, or whose ledger, has ended what is not over, and may have taken admissions and buyers out of the gate. */
static bool was_ended_wrongly(const struct pipeline *p, const struct sale *sale)
{
	return (__atomic_load_n(&p->d->maps.sales[sale->id % SLUICE_MAX_SALES].flags, __ATOMIC_ACQUIRE) &
		       SLUICE_SALE_ENDED) &&
		!sale->ended && !maintenance_is_forgotten(sale, time_wall_ns());
}

static int reconcile_sale(struct pipeline *p, const struct sale *sale)
{
	uint64_t put_in = atomic_load(&sale->counts->put_in);
	uint64_t gone = atomic_load(&sale->counts->held) + atomic_load(&sale->counts->confirmed);
	uint32_t owner = p->d->maps.sales[sale->id % SLUICE_MAX_SALES].id;
	int err;

	if (atomic_load(&p->refused)) {
		uint64_t refused = orders_refused_units(p->d->orders, sale->id);

		atomic_store(&sale->counts->refused, refused);
		gone += refused;
	}
	if (planted(stale_stock_after_restart))
		gone = 0;
	if (put_in < gone) {
		log_error("sale %s: the ledger has %" PRIu64 " units put in and %" PRIu64
			  " ordered or refused: nothing is free",
			sale->slug, put_in, gone);
		gone = put_in;
	}
	if (owner == sale->id && !was_ended_wrongly(p, sale)) {
		correct_stock(p, sale, put_in - gone);
		sales_write_words(p->d->sales, sale);
		return 0;
	}
	/* A slot goes from an older sale to a younger one, never back. */
	if (owner > sale->id)
		return 0;
	if (maintenance_is_forgotten(sale, time_wall_ns())) {
		sales_fill_slot(p->d->sales, sale, put_in - gone);
		return 0;
	}
	err = rebuild_sale(p, sale, put_in - gone);
	if (err == -E2BIG) {
		sales_leave_gate(p->d->sales, sale);
		log_error(
			"sale %s: its orders do not fit the gate's maps; raise gate.max_admissions and attach again. The sale stays closed",
			sale->slug);
		err = 0;
	}
	return err;
}

/* A sale of the gate that the ledger does not know (another ledger than before?) must not admit anybody. */
static void close_orphans(struct daemon *d)
{
	for (unsigned slot = 0; slot < SLUICE_MAX_SALES; slot++) {
		struct sluice_sale *words = &d->maps.sales[slot];
		uint32_t id = __atomic_load_n(&words->id, __ATOMIC_ACQUIRE);

		if (!id || sales_was_read(d->sales, id) || (words->flags & SLUICE_SALE_ENDED))
			continue;
		__atomic_fetch_or(&words->flags, SLUICE_SALE_ENDED, __ATOMIC_SEQ_CST);
		log_error(
			"the gate has a sale with id %u that the ledger does not know: it is ended. Is this the right ledger?",
			id);
	}
}

/* What an earlier daemon found out about this writer: a sale is armed before there is a load to measure. */
static int read_drain(struct pipeline *p)
{
	json_t *answer;
	const char *text;
	char *end;
	double per_second;
	int err = questions_exchange(p, json_pack("{s:s, s:s}", "op", "document_get", "name", PIPELINE_DRAIN), &answer);

	if (err)
		return err;
	text = json_string_value(json_object_get(answer, "value"));
	per_second = text ? strtod(text, &end) : 0;
	if (text && end != text && per_second > 0) {
		pthread_mutex_lock(&p->lock);
		drain_start_with(&p->drain, per_second);
		pthread_mutex_unlock(&p->lock);
	}
	json_decref(answer);
	return 0;
}

int recovery_run(struct pipeline *p)
{
	int err = hello(p);

	/* The first reading tells how long each order is held, before any is delivered. */
	if (!err)
		err = read_sales(p, NULL);
	if (!err)
		err = read_drain(p);
	if (!err)
		revocation_apply(p->d);
	do {
		if (!err)
			err = batches_exchange_all(p);
		if (!err)
			err = questions_exchange_again(p);
		pipeline_pump(p);
	} while (!err && p->pending_count);
	if (!err)
		err = recovery_restore_kept(p);
	if (err)
		return err;

	__atomic_store_n(&p->d->maps.control->in_flight, 0, __ATOMIC_SEQ_CST);
	err = read_sales(p, reconcile_sale);
	if (!err)
		err = recovery_recount_buyers(p);
	if (err)
		return err;
	close_orphans(p->d);
	/* Tokens are issued once sales are known, so nobody else counts meanwhile. */
	if (!atomic_load(&p->d->sales_known))
		issue_count_live(p->d);
	atomic_store(&p->d->sales_known, true);
	return 0;
}
