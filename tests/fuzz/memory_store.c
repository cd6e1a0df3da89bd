/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The store in memory; see memory_store.h. Conflicts are those of docs/writer-protocol.md. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "memory_store.h"

#define SALES_MAX 64
#define MOVES_MAX 256
#define ORDERS_MAX 256
#define EVENTS_MAX 512
#define ONCE_MAX 256
#define DOCUMENTS_MAX 16
#define ENTRIES_MAX 4096
#define TEXTS_MAX 1024

static struct memory {
	struct store base;
	struct store_sale sales[SALES_MAX];
	struct store_announced announced[SALES_MAX];
	struct store_move moves[MOVES_MAX];
	struct store_order orders[ORDERS_MAX];
	int64_t order_positions[ORDERS_MAX];
	struct store_event events[EVENTS_MAX];
	struct {
		struct store_once once;
		const char *answer;
	} once[ONCE_MAX];
	struct {
		struct store_document document;
		const char *value;
	} documents[DOCUMENTS_MAX];
	struct {
		struct store_entry entry;
		int64_t position;
	} entries[ENTRIES_MAX];
	int64_t entry_position;
	unsigned sale_count, move_count, order_count, event_count, once_count, document_count, entry_count;
} memory, before; /* `before`: as it was at the beginning of the bracket */

/* Texts live until the store is reset, whatever is rolled back. */
static char *texts[TEXTS_MAX];
static unsigned text_count;

static const char *keep_text(const char *text)
{
	if (text_count == TEXTS_MAX)
		return NULL;
	texts[text_count] = strdup(text);
	CHECK(texts[text_count], "memory");
	return texts[text_count++];
}

static int bracket_begin(struct store *store)
{
	(void)store;
	before = memory;
	return 0;
}

static int bracket_commit(struct store *store)
{
	(void)store;
	return 0;
}

static int bracket_rollback(struct store *store, int code)
{
	char error[STORE_ERROR_MAX];

	memcpy(error, store->error, sizeof(error));
	memory = before;
	memcpy(store->error, error, sizeof(error));
	return code;
}

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
	if (!stored) {
		memory.announced[memory.sale_count] = (struct store_announced){.opened = false};
		stored = &memory.sales[memory.sale_count++];
	}
	*sale = *stored = fresh;
	return 0;
}

static int sales_list(struct store *store, uint32_t after, unsigned limit, store_sale_visit visit, void *arg)
{
	(void)store;
	for (unsigned i = 0; i < memory.sale_count && limit; i++) {
		if (memory.sales[i].id <= after)
			continue;
		limit--;
		if (visit(&memory.sales[i], arg))
			break;
	}
	return 0;
}

static unsigned find_document(const char *name)
{
	unsigned i = 0;

	while (i < memory.document_count && strcmp(memory.documents[i].document.name, name) != 0)
		i++;
	return i;
}

static int document_put(struct store *store, const char *name, const char *value, uint64_t now_ns)
{
	unsigned i = find_document(name);
	const char *kept = i < DOCUMENTS_MAX ? keep_text(value) : NULL;

	if (!kept)
		return store_explain(store->error, -EEXIST, "no room for another document");
	memory.documents[i].document = (struct store_document){.changed_ns = now_ns, .size = strlen(value)};
	strcpy(memory.documents[i].document.name, name);
	memory.documents[i].value = kept;
	memory.document_count += i == memory.document_count;
	return 0;
}

/* Refunds without restock leave a movement, as in a ledger. */
static int64_t refunded_units(uint32_t sale)
{
	int64_t units = 0;

	for (unsigned i = 0; i < memory.move_count; i++)
		if (memory.moves[i].sale == sale &&
			!strncmp(memory.moves[i].key, STORE_REFUND_KEY, strlen(STORE_REFUND_KEY)))
			units -= memory.moves[i].delta;
	return units;
}

/* In the order in which they were made, which nobody who fuzzes asks about. */
static int sale_books(
	struct store *store, const char *prefix, uint32_t after, unsigned limit, store_book_visit visit, void *arg)
{
	(void)store;
	for (unsigned i = 0; i < memory.sale_count && limit; i++) {
		struct store_book book = {.sale = memory.sales[i]};
		char name[2 * STORE_NAME_MAX];
		unsigned document;

		if (book.sale.id <= after)
			continue;
		snprintf(name, sizeof(name), "%s%u", prefix, (unsigned)book.sale.id);
		document = find_document(name);
		book.document = document < memory.document_count ? memory.documents[document].value : NULL;
		book.refunded = refunded_units(book.sale.id);
		limit--;
		if (visit(&book, arg))
			break;
	}
	return 0;
}

static int stock_move(struct store *store, const struct store_move *move, uint64_t now_ns, int64_t *put_in)
{
	struct store_sale *sale = find_sale(move->sale);
	int code;

	if (!sale)
		return store_explain(store->error, -ENOENT, "no sale with id %u", move->sale);
	code = find_move(move);
	if (!code) {
		code = apply_move(sale, move);
		if (!code && move->document)
			code = document_put(store, move->document, move->value, now_ns);
	}
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

		if ((filter->sale && order->sale != filter->sale) || (filter->state && filter->state != order->state) ||
			(filter->of_buyer && filter->buyer != order->buyer) || order->committed_ns < filter->from_ns ||
			(filter->to_ns && order->committed_ns >= filter->to_ns))
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

static struct store_order *find_order(uint64_t serial)
{
	for (unsigned i = 0; i < memory.order_count; i++)
		if (memory.orders[i].serial == serial)
			return &memory.orders[i];
	return NULL;
}

static int order_get(struct store *store, uint64_t serial, struct store_order *order)
{
	const struct store_order *stored = find_order(serial);

	if (!stored)
		return store_explain(store->error, -ENOENT, "no such order");
	*order = *stored;
	return 0;
}

static uint64_t buyer_units(uint32_t sale, uint64_t buyer)
{
	uint64_t units = 0;

	for (unsigned i = 0; i < memory.order_count; i++)
		if (memory.orders[i].sale == sale && memory.orders[i].buyer == buyer &&
			store_state_is_live(memory.orders[i].state))
			units += memory.orders[i].quantity;
	return units;
}

static int64_t next_position(void)
{
	return memory.order_count + memory.event_count + 1;
}

static void apply_change(
	struct store_order *order, const struct store_change *change, uint64_t now_ns, enum wire_order_state to)
{
	struct store_sale *sale = find_sale(order->sale);

	sale->held -= order->state == WIRE_ORDER_HELD ? order->quantity : 0;
	sale->confirmed -= order->state == WIRE_ORDER_CONFIRMED ? order->quantity : 0;
	sale->confirmed += to == WIRE_ORDER_CONFIRMED ? order->quantity : 0;
	order->state = to;
	order->resolved_ns = now_ns;
	order->resolved_by = change->by;
	order->restocked = to == WIRE_ORDER_REFUNDED && change->restock;
	if (to == WIRE_ORDER_REFUNDED && !change->restock)
		sale->put_in -= order->quantity;
	memory.events[memory.event_count] = (struct store_event){.position = next_position(),
		.type = store_event_of_state(to),
		.sale = order->sale,
		.at_ns = now_ns,
		.has_order = true,
		.order = *order};
	memory.event_count++;
	CHECK(sale->held >= 0 && sale->confirmed >= 0 && sale->held + sale->confirmed <= sale->put_in, "the sums");
}

static int orders_change(struct store *store, const struct store_change *changes, unsigned count, uint64_t now_ns,
	struct store_changed *results)
{
	if (memory.event_count + count > EVENTS_MAX)
		return store_explain(store->error, -EEXIST, "no room for another event");
	for (unsigned i = 0; i < count; i++) {
		struct store_order *order = find_order(changes[i].serial);
		const struct store_sale *sale = order ? find_sale(order->sale) : NULL;
		enum wire_order_state to;

		results[i] = (struct store_changed){.result = STORE_NOT_FOUND};
		if (!order)
			continue;
		results[i].result = store_change_judge(order, &changes[i], now_ns, &to);
		if (results[i].result == STORE_CHANGED && order->state == WIRE_ORDER_EXPIRED &&
			(order->quantity > sale->put_in - sale->held - sale->confirmed ||
				buyer_units(order->sale, order->buyer) + order->quantity > sale->per_buyer))
			results[i].result = STORE_NO_UNIT;
		if (results[i].result == STORE_CHANGED)
			apply_change(order, &changes[i], now_ns, to);
		results[i].order = *order;
	}
	return 0;
}

static int orders_due(
	struct store *store, uint64_t now_ns, unsigned limit, store_order_visit visit, void *arg, bool *more)
{
	uint64_t after_ns = 0;
	unsigned after = 0, found = 0;

	(void)store;
	*more = false;
	/* The least that is greater than the one before, again and again. */
	for (;;) {
		const struct store_order *least = NULL;

		for (unsigned i = 0; i < memory.order_count; i++) {
			const struct store_order *order = &memory.orders[i];

			if (order->state != WIRE_ORDER_HELD || !order->expires_ns || order->expires_ns > now_ns ||
				order->expires_ns < after_ns || (order->expires_ns == after_ns && i < after))
				continue;
			if (!least || order->expires_ns < least->expires_ns)
				least = order;
		}
		*more = least && found == limit;
		if (!least || *more || visit(least, arg))
			return 0;
		found++;
		after_ns = least->expires_ns;
		after = (unsigned)(least - memory.orders) + 1;
	}
}

static int sale_event(struct store *store, uint32_t id, enum store_event_type type, uint64_t now_ns, bool *recorded)
{
	const struct store_sale *sale = find_sale(id);
	struct store_announced *announced;

	if (!sale)
		return store_explain(store->error, -ENOENT, "no sale with id %u", id);
	announced = &memory.announced[sale - memory.sales];
	*recorded = store_sale_event_is_news(announced, type);
	if (!*recorded)
		return 0;
	if (memory.event_count == EVENTS_MAX)
		return store_explain(store->error, -EEXIST, "no room for another event");
	store_sale_event_apply(announced, type);
	memory.events[memory.event_count] = (struct store_event){.position = next_position(),
		.type = type,
		.sale = id,
		.at_ns = now_ns,
		.put_in = sale->put_in,
		.held = sale->held,
		.confirmed = sale->confirmed};
	memory.event_count++;
	return 0;
}

static int events_list(struct store *store, const struct store_event_filter *filter, store_event_visit visit, void *arg,
	int64_t *next, bool *more)
{
	unsigned order = 0, event = 0, found = 0;

	(void)store;
	*next = filter->after;
	*more = false;
	while (order < memory.order_count || event < memory.event_count) {
		struct store_event held = {.position = INT64_MAX};
		const struct store_event *row;

		if (order < memory.order_count)
			held = (struct store_event){.position = memory.order_positions[order],
				.type = STORE_ORDER_HELD,
				.sale = memory.orders[order].sale,
				.at_ns = memory.orders[order].committed_ns,
				.has_order = true,
				.order = memory.orders[order]};
		row = event < memory.event_count && memory.events[event].position < held.position
			? &memory.events[event++]
			: (order++, &held);
		if (row->position <= filter->after)
			continue;
		*more = found == filter->limit;
		if (*more)
			return 0;
		*next = row->position;
		if (filter->sale && filter->sale != row->sale)
			continue;
		found++;
		held.order.state = WIRE_ORDER_HELD;
		held.order.resolved_ns = 0;
		held.order.resolved_by = STORE_BY_NOBODY;
		held.order.restocked = false;
		if (visit(row, arg))
			return 0;
	}
	return 0;
}

static int once_get(struct store *store, const struct store_once *once, char **answer)
{
	*answer = NULL;
	for (unsigned i = 0; i < memory.once_count; i++) {
		if (strcmp(memory.once[i].once.key, once->key) != 0)
			continue;
		if (strcmp(memory.once[i].once.fingerprint, once->fingerprint) != 0)
			return store_explain(store->error, -ENOTUNIQ, "the key was used for another question");
		*answer = strdup(memory.once[i].answer);
		CHECK(*answer, "memory");
	}
	return 0;
}

static int once_put(struct store *store, const struct store_once *once, const char *answer, uint64_t now_ns)
{
	const char *kept = memory.once_count < ONCE_MAX ? keep_text(answer) : NULL;

	(void)now_ns;
	if (!kept)
		return store_explain(store->error, -EEXIST, "no room for another answer");
	memory.once[memory.once_count].once = *once;
	memory.once[memory.once_count++].answer = kept;
	return 0;
}

static int document_get(struct store *store, const char *name, char **value)
{
	unsigned i = find_document(name);

	(void)store;
	*value = i < memory.document_count ? strdup(memory.documents[i].value) : NULL;
	return 0;
}

/* In the order of their first writing, which nobody who fuzzes asks about. */
static int documents_list(struct store *store, store_document_visit visit, void *arg)
{
	(void)store;
	for (unsigned i = 0; i < memory.document_count; i++)
		if (visit(&memory.documents[i].document, arg))
			break;
	return 0;
}

static unsigned find_entry(const struct store_entry *entry)
{
	unsigned i = 0;

	while (i < memory.entry_count &&
		(memory.entries[i].entry.list != entry->list ||
			strcmp(memory.entries[i].entry.prefix, entry->prefix) != 0))
		i++;
	return i;
}

static void remove_entry(unsigned i)
{
	memory.entry_count--;
	memmove(&memory.entries[i], &memory.entries[i + 1], (memory.entry_count - i) * sizeof(memory.entries[0]));
}

static int list_put(struct store *store, const struct store_entry *entries, unsigned count)
{
	if (memory.entry_count + count > ENTRIES_MAX)
		return store_explain(store->error, -EEXIST, "no room for the entries");
	for (unsigned i = 0; i < count; i++) {
		unsigned place = find_entry(&entries[i]);

		if (place == memory.entry_count) {
			memory.entry_count++;
			memory.entries[place].position = ++memory.entry_position;
		}
		memory.entries[place].entry = entries[i];
	}
	return 0;
}

static int list_remove(struct store *store, const struct store_entry *entries, unsigned count, unsigned *removed)
{
	(void)store;
	*removed = 0;
	for (unsigned i = 0; i < count; i++) {
		unsigned place = find_entry(&entries[i]);

		if (place == memory.entry_count)
			continue;
		remove_entry(place);
		++*removed;
	}
	return 0;
}

static int list_page(
	struct store *store, int64_t after, unsigned limit, store_entry_visit visit, void *arg, int64_t *next)
{
	unsigned found = 0;

	(void)store;
	*next = 0;
	for (unsigned i = 0; i < memory.entry_count; i++) {
		if (memory.entries[i].position <= after)
			continue;
		if (found++ == limit) {
			*next = memory.entries[i - 1].position;
			break;
		}
		if (visit(&memory.entries[i].entry, arg))
			break;
	}
	return 0;
}

static int list_clear(struct store *store, enum store_list list, const char *label, unsigned *removed, bool *more)
{
	(void)store;
	*removed = 0;
	*more = false;
	for (unsigned i = memory.entry_count; i--;) {
		const struct store_entry *entry = &memory.entries[i].entry;

		if (entry->list != list || (label && strcmp(entry->label, label) != 0))
			continue;
		remove_entry(i);
		++*removed;
	}
	return 0;
}

static struct wire_ack admit_one(const struct wire_admit *record, uint64_t now_ns)
{
	struct wire_ack ack = {.serial = record->serial, .status = WIRE_ACK_REFUSED};
	struct store_sale *sale = find_sale(record->sale);
	struct store_order *order = find_order(record->serial);

	if (order) {
		ack.status = WIRE_ACK_KNOWN;
		ack.order_state = order->state;
		ack.seq = (uint64_t)order->seq;
		ack.committed_wall_ns = order->committed_ns;
		return ack;
	}
	CHECK(sale && sale->held + sale->confirmed + record->quantity <= sale->put_in, "an order above the stock");
	CHECK(memory.order_count < ORDERS_MAX, "no room for another order");
	order = &memory.orders[memory.order_count];
	memory.order_positions[memory.order_count] = next_position();
	*order = (struct store_order){.serial = record->serial,
		.sale = record->sale,
		.quantity = record->quantity,
		.network = record->network,
		.seq = ++sale->orders,
		.buyer = record->buyer,
		.admitted_ns = record->admitted_wall_ns,
		.committed_ns = now_ns,
		.hold_seconds = record->hold_seconds,
		.expires_ns = store_expires_ns(record->admitted_wall_ns, record->hold_seconds),
		.state = WIRE_ORDER_HELD,
		.source = "192.0.2.1"};
	memory.order_count++;
	sale->held += record->quantity;
	ack.status = WIRE_ACK_STORED;
	ack.order_state = WIRE_ORDER_HELD;
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

static void maintain(struct store *store, uint64_t now_ns)
{
	(void)store;
	(void)now_ns;
}

static void close_store(struct store *store)
{
	(void)store;
}

static const struct store_ops ops = {
	.name = "memory",
	.begin = bracket_begin,
	.commit = bracket_commit,
	.rollback = bracket_rollback,
	.admit = admit,
	.orders_change = orders_change,
	.orders_due = orders_due,
	.orders_list = orders_list,
	.order_get = order_get,
	.sales_list = sales_list,
	.sale_put = sale_put,
	.sale_books = sale_books,
	.stock_move = stock_move,
	.sale_event = sale_event,
	.events_list = events_list,
	.once_get = once_get,
	.once_put = once_put,
	.document_put = document_put,
	.document_get = document_get,
	.documents_list = documents_list,
	.list_put = list_put,
	.list_remove = list_remove,
	.list_page = list_page,
	.list_clear = list_clear,
	.maintain = maintain,
	.close = close_store,
};

struct store *memory_store_reset(void)
{
	while (text_count)
		free(texts[--text_count]);
	memory.base.ops = &ops;
	memory.sale_count = memory.move_count = memory.order_count = memory.event_count = 0;
	memory.once_count = memory.document_count = memory.entry_count = 0;
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
