/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The store in memory; see memory_store.h. Conflicts are those of docs/writer-protocol.md. */
#include <errno.h>
#include <string.h>

#include "check.h"
#include "memory_store.h"

#define SALES_MAX 64
#define MOVES_MAX 256
#define ORDERS_MAX 256

static struct {
	struct store base;
	struct store_sale sales[SALES_MAX];
	struct store_move moves[MOVES_MAX];
	struct store_order orders[ORDERS_MAX];
	unsigned sale_count, move_count, order_count;
} memory;

static struct store_sale *find_sale(uint32_t id)
{
	for (unsigned i = 0; i < memory.sale_count; i++)
		if (memory.sales[i].id == id)
			return &memory.sales[i];
	return NULL;
}

/* 1: the same movement was made before; 0: the key is new. */
static int find_move(const struct store_move *move)
{
	for (unsigned i = 0; i < memory.move_count; i++) {
		if (strcmp(memory.moves[i].key, move->key) != 0)
			continue;
		if (memory.moves[i].sale == move->sale && memory.moves[i].delta == move->delta)
			return 1;
		return store_explain(memory.base.error, -EEXIST, "key %s was used for another movement", move->key);
	}
	return 0;
}

static int apply_move(struct store_sale *sale, const struct store_move *move)
{
	int64_t put_in;

	if (memory.move_count == MOVES_MAX)
		return store_explain(memory.base.error, -EEXIST, "no room for another movement");
	if (__builtin_add_overflow(sale->put_in, move->delta, &put_in))
		return store_explain(memory.base.error, -EINVAL, "such a stock cannot be counted");
	if (put_in < sale->held + sale->confirmed)
		return store_explain(memory.base.error, -EEXIST, "more units are ordered");
	memory.moves[memory.move_count++] = *move;
	sale->put_in = put_in;
	return 0;
}

static int sale_put(struct store *store, struct store_sale *sale, const struct store_move *first, uint64_t now_ns)
{
	struct store_sale *stored = find_sale(sale->id), fresh = *sale;
	int code = first ? find_move(first) : 0;

	(void)now_ns;
	if (code < 0)
		return code;
	for (unsigned i = 0; i < memory.sale_count; i++)
		if ((memory.sales[i].id == sale->id) != !strcmp(memory.sales[i].slug, sale->slug))
			return store_explain(store->error, -EEXIST, "slug and id belong to others");
	if (stored && ((stored->ended && !sale->ended) || (first && !code)))
		return store_explain(store->error, -EEXIST, "the sale has ended, or exists");
	if (!stored && (code || memory.sale_count == SALES_MAX))
		return store_explain(store->error, -EEXIST, "the key was used, or there is no room");
	fresh.put_in = stored ? stored->put_in : 0;
	fresh.held = stored ? stored->held : 0;
	fresh.confirmed = stored ? stored->confirmed : 0;
	fresh.orders = stored ? stored->orders : 0;
	if (!stored && first && (code = apply_move(&fresh, first)))
		return code;
	if (!stored)
		stored = &memory.sales[memory.sale_count++];
	*sale = *stored = fresh;
	return 0;
}

static int sales_list(struct store *store, store_sale_visit visit, void *arg)
{
	(void)store;
	for (unsigned i = 0; i < memory.sale_count; i++)
		if (visit(&memory.sales[i], arg))
			break;
	return 0;
}

static int stock_move(struct store *store, const struct store_move *move, uint64_t now_ns, int64_t *put_in)
{
	struct store_sale *sale = find_sale(move->sale);
	int code;

	(void)now_ns;
	if (!sale)
		return store_explain(store->error, -ENOENT, "no sale with id %u", move->sale);
	code = find_move(move);
	if (!code)
		code = apply_move(sale, move);
	if (code < 0)
		return code;
	*put_in = sale->put_in;
	return 0;
}

static int orders_list(
	struct store *store, const struct store_order_filter *filter, store_order_visit visit, void *arg, int64_t *next)
{
	unsigned count = 0;

	(void)store;
	*next = 0;
	for (unsigned i = (unsigned)(filter->after < ORDERS_MAX ? filter->after : ORDERS_MAX); i < memory.order_count;
		i++) {
		const struct store_order *order = &memory.orders[i];

		if ((filter->sale && order->sale != filter->sale) ||
			(*filter->state && strcmp(filter->state, order->state) != 0))
			continue;
		if (count++ == filter->limit) {
			*next = i;
			break;
		}
		if (visit(order, arg))
			break;
	}
	return 0;
}

static int order_get(struct store *store, uint64_t serial, struct store_order *order)
{
	for (unsigned i = 0; i < memory.order_count; i++) {
		if (memory.orders[i].serial != serial)
			continue;
		*order = memory.orders[i];
		return 0;
	}
	return store_explain(store->error, -ENOENT, "no such order");
}

static struct wire_ack admit_one(const struct wire_admit *record, uint64_t now_ns)
{
	struct wire_ack ack = {.serial = record->serial, .status = WIRE_ACK_REFUSED};
	struct store_sale *sale = find_sale(record->sale);
	struct store_order *order = &memory.orders[memory.order_count];

	for (unsigned i = 0; i < memory.order_count; i++) {
		if (memory.orders[i].serial != record->serial)
			continue;
		ack.status = WIRE_ACK_KNOWN;
		ack.seq = (uint64_t)memory.orders[i].seq;
		ack.committed_wall_ns = memory.orders[i].committed_ns;
		return ack;
	}
	CHECK(sale && sale->held + sale->confirmed + record->quantity <= sale->put_in, "an order above the stock");
	CHECK(memory.order_count < ORDERS_MAX, "no room for another order");
	*order = (struct store_order){.serial = record->serial,
		.sale = record->sale,
		.quantity = record->quantity,
		.network = record->network,
		.seq = ++sale->orders,
		.buyer = record->buyer,
		.admitted_ns = record->admitted_wall_ns,
		.committed_ns = now_ns,
		.state = "held",
		.source = "192.0.2.1"};
	memory.order_count++;
	sale->held += record->quantity;
	ack.status = WIRE_ACK_STORED;
	ack.seq = (uint64_t)order->seq;
	ack.committed_wall_ns = now_ns;
	return ack;
}

static int admit(struct store *store, const struct wire_admit *records, unsigned count, uint64_t now_ns,
	struct wire_ack *acks, struct store_refused *refused)
{
	(void)store;
	memset(refused, 0, sizeof(*refused));
	for (unsigned i = 0; i < count; i++)
		acks[i] = admit_one(&records[i], now_ns);
	return 0;
}

static void maintain(struct store *store)
{
	(void)store;
}

static const struct store_ops ops = {
	.name = "memory",
	.admit = admit,
	.sales_list = sales_list,
	.sale_put = sale_put,
	.stock_move = stock_move,
	.orders_list = orders_list,
	.order_get = order_get,
	.maintain = maintain,
	.close = maintain,
};

struct store *memory_store_reset(void)
{
	memory.base.ops = &ops;
	memory.sale_count = memory.move_count = memory.order_count = 0;
	return &memory.base;
}

int64_t memory_store_ordered(uint32_t sale)
{
	const struct store_sale *stored = find_sale(sale);

	return stored ? stored->held + stored->confirmed : 0;
}

const struct store_sale *memory_store_sale(unsigned index)
{
	return index < memory.sale_count ? &memory.sales[index] : NULL;
}
