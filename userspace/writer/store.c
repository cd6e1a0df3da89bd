/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What every store and the protocol share: the words for the numbers of store.h, as they stand in answers and in tables,
 * and the few rules about an order that need no database. Called by query*.c and by the stores.
 */
#include "writer/store.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NS_PER_S 1000000000ULL
#define STATE_COUNT (WIRE_ORDER_REFUNDED + 1)

static const char *const state_words[STATE_COUNT] = {[WIRE_ORDER_HELD] = "held",
	[WIRE_ORDER_CONFIRMED] = "confirmed",
	[WIRE_ORDER_CANCELLED] = "cancelled",
	[WIRE_ORDER_EXPIRED] = "expired",
	[WIRE_ORDER_REFUNDED] = "refunded"};
static const char *const by_words[STORE_BY_COUNT] = {
	[STORE_BY_BUYER] = "buyer", [STORE_BY_SHOP] = "shop", [STORE_BY_TIME] = "time"};
static const char *const action_words[STORE_ACTION_COUNT] = {
	[STORE_CONFIRM] = "confirm", [STORE_CANCEL] = "cancel", [STORE_EXPIRE] = "expire", [STORE_REFUND] = "refund"};
static const char *const result_words[STORE_RESULT_COUNT] = {[STORE_CHANGED] = "changed",
	[STORE_SAME] = "same",
	[STORE_CONFLICT] = "conflict",
	[STORE_NO_UNIT] = "no_unit",
	[STORE_NOT_FOUND] = "not_found"};
static const char *const event_words[STORE_EVENT_COUNT] = {[STORE_ORDER_HELD] = "order.held",
	[STORE_ORDER_CONFIRMED] = "order.confirmed",
	[STORE_ORDER_CANCELLED] = "order.cancelled",
	[STORE_ORDER_EXPIRED] = "order.expired",
	[STORE_ORDER_REFUNDED] = "order.refunded",
	[STORE_SALE_OPENED] = "sale.opened",
	[STORE_SALE_SOLD_OUT] = "sale.sold_out",
	[STORE_SALE_RESTOCKED] = "sale.restocked",
	[STORE_SALE_ENDED] = "sale.ended"};
static const char *const list_words[STORE_LIST_COUNT] = {[STORE_LIST_DENY] = "deny", [STORE_LIST_ALLOW] = "allow"};

static const char *word_of(const char *const *words, unsigned count, unsigned number)
{
	return number && number < count ? words[number] : "";
}

static unsigned number_of(const char *const *words, unsigned count, const char *word)
{
	for (unsigned i = 1; i < count; i++)
		if (!strcmp(words[i], word))
			return i;
	return 0;
}

const char *store_state_word(enum wire_order_state state)
{
	return word_of(state_words, STATE_COUNT, state);
}

unsigned store_state_of_word(const char *word)
{
	return number_of(state_words, STATE_COUNT, word);
}

const char *store_by_word(enum store_by by)
{
	return word_of(by_words, STORE_BY_COUNT, by);
}

unsigned store_by_of_word(const char *word)
{
	return number_of(by_words, STORE_BY_COUNT, word);
}

unsigned store_action_of_word(const char *word)
{
	return number_of(action_words, STORE_ACTION_COUNT, word);
}

const char *store_result_word(enum store_result result)
{
	return word_of(result_words, STORE_RESULT_COUNT, result);
}

const char *store_event_word(enum store_event_type type)
{
	return word_of(event_words, STORE_EVENT_COUNT, type);
}

unsigned store_event_of_word(const char *word)
{
	return number_of(event_words, STORE_EVENT_COUNT, word);
}

const char *store_list_word(enum store_list list)
{
	return word_of(list_words, STORE_LIST_COUNT, list);
}

unsigned store_list_of_word(const char *word)
{
	return number_of(list_words, STORE_LIST_COUNT, word);
}

uint64_t store_expires_ns(uint64_t admitted_ns, uint32_t hold_seconds)
{
	uint64_t expires_ns;

	if (!hold_seconds)
		return 0;
	if (__builtin_add_overflow(admitted_ns, hold_seconds * NS_PER_S, &expires_ns) || expires_ns > INT64_MAX)
		return INT64_MAX;
	return expires_ns;
}

enum store_event_type store_event_of_state(enum wire_order_state state)
{
	return (enum store_event_type)state;
}

enum wire_order_state store_event_state(enum store_event_type type)
{
	return (enum wire_order_state)type;
}
_Static_assert((int)STORE_ORDER_HELD == WIRE_ORDER_HELD && (int)STORE_ORDER_CONFIRMED == WIRE_ORDER_CONFIRMED &&
		(int)STORE_ORDER_CANCELLED == WIRE_ORDER_CANCELLED && (int)STORE_ORDER_EXPIRED == WIRE_ORDER_EXPIRED &&
		(int)STORE_ORDER_REFUNDED == WIRE_ORDER_REFUNDED,
	"an order's event has the number of the state that it makes");

/* The one place that knows which state may follow which. */
enum store_result store_change_judge(
	const struct store_order *order, const struct store_change *change, uint64_t now_ns, enum wire_order_state *to)
{
	enum wire_order_state from = order->state;

	switch (change->action) {
	case STORE_CONFIRM:
		*to = WIRE_ORDER_CONFIRMED;
		return from == WIRE_ORDER_CONFIRMED                             ? STORE_SAME
			: from == WIRE_ORDER_HELD || from == WIRE_ORDER_EXPIRED ? STORE_CHANGED
										: STORE_CONFLICT;
	case STORE_CANCEL:
		*to = WIRE_ORDER_CANCELLED;
		return from == WIRE_ORDER_CANCELLED ? STORE_SAME
			: from == WIRE_ORDER_HELD   ? STORE_CHANGED
						    : STORE_CONFLICT;
	case STORE_EXPIRE:
		*to = WIRE_ORDER_EXPIRED;
		if (from == WIRE_ORDER_EXPIRED)
			return STORE_SAME;
		return from == WIRE_ORDER_HELD && order->expires_ns && order->expires_ns <= now_ns ? STORE_CHANGED
												   : STORE_CONFLICT;
	default:
		*to = WIRE_ORDER_REFUNDED;
		if (from == WIRE_ORDER_REFUNDED)
			return order->restocked == change->restock ? STORE_SAME : STORE_CONFLICT;
		return from == WIRE_ORDER_CONFIRMED ? STORE_CHANGED : STORE_CONFLICT;
	}
}

bool store_sale_event_is_news(const struct store_announced *announced, enum store_event_type type)
{
	if (announced->ended)
		return false;
	switch (type) {
	case STORE_SALE_OPENED:
		return !announced->opened;
	case STORE_SALE_SOLD_OUT:
		return announced->opened && !announced->sold_out;
	case STORE_SALE_RESTOCKED:
		return announced->sold_out;
	default:
		return type == STORE_SALE_ENDED;
	}
}

void store_sale_event_apply(struct store_announced *announced, enum store_event_type type)
{
	announced->opened |= type == STORE_SALE_OPENED;
	announced->ended |= type == STORE_SALE_ENDED;
	if (type == STORE_SALE_SOLD_OUT || type == STORE_SALE_RESTOCKED)
		announced->sold_out = type == STORE_SALE_SOLD_OUT;
}

int store_explain(char *error, int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error, STORE_ERROR_MAX, format, args);
	va_end(args);
	return code;
}
