/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What differs between ledger and gate; see verify.h. Called by the command for each look, and by the unit tests with views they made up.
 *
 * A look is not one instant: the gate's tables, then the ledger, then the gate's words once more. So a single look may find what was only on its way;
 * figures are compared for sales whose words did not change meanwhile, and the command keeps what two looks agree on.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/verify.h"

const char *const verify_invariants[VERIFY_INVARIANTS] = {
	"no unit is sold twice",
	"no unit is lost",
	"every yes is in the ledger",
	"one token one order, no buyer above the limit",
	"no yes is taken back",
	"no order outside the window",
};

#define NS_PER_MS 1000000
#define ON_ITS_WAY_MAX_NS 30000000000ULL
#define CHANGE_NS \
	10000000000ULL /* from the ledger's word of a change to the gate's; twice as long as the daemon lets anybody wait */

#define SALE VERIFY_OF_SALE
#define ORDER VERIFY_OF_ORDER
#define BUYER VERIFY_OF_BUYER
#define NUMBERS VERIFY_NUMBERS
#define NONE VERIFY_NO_FIGURES

const struct verify_kind_info verify_kinds[VERIFY_KINDS] = {
	[VERIFY_OVERSOLD] = {"oversold", "I1", SALE, NUMBERS, false, "units held and confirmed, and units put in"},
	[VERIFY_PUT_IN_SUM] = {"put_in_sum", "I2", SALE, NUMBERS, false,
		"the ledger's put_in is not the sum of its movements"},
	[VERIFY_HELD_SUM] = {"held_sum", "I2", SALE, NUMBERS, false, "the ledger's held is not the sum of its orders"},
	[VERIFY_CONFIRMED_SUM] = {"confirmed_sum", "I2", SALE, NUMBERS, false,
		"the ledger's confirmed is not the sum of its orders"},
	[VERIFY_ORDER_COUNT] = {"order_count", "I3", SALE, NUMBERS, false,
		"the ledger has counted another number of orders than it has"},
	[VERIFY_SEQ_GAP] = {"seq_gap", "I3", ORDER, NUMBERS, false,
		"orders are missing before this one: its number, and the next that was due"},
	[VERIFY_SEQ_TWICE] = {"seq_twice", "I4", ORDER, NUMBERS, false, "two orders of the sale have this number"},
	[VERIFY_SERIAL_TWICE] = {"serial_twice", "I4", ORDER, NUMBERS, false, "orders of one token"},
	[VERIFY_BUYER_ABOVE_LIMIT] = {"buyer_above_limit", "I4", BUYER, NUMBERS, false,
		"units of the buyer, and how many one may have (was the limit lowered since?)"},
	[VERIFY_OUTSIDE_WINDOW] = {"outside_window", "I6", ORDER, VERIFY_TIMES, false,
		"admitted outside the window that the sale had then (as far as the ledger has kept it: earlier versions kept no changes)"},
	[VERIFY_ORDER_OF_NO_SALE] = {"order_of_no_sale", "I4", ORDER, NONE, false, "the ledger has no such sale"},
	[VERIFY_ADMISSION_WITHOUT_ORDER] = {"admission_without_order", "I3", ORDER, NONE, false,
		"the gate has admitted it, and the ledger has no order"},
	[VERIFY_ORDER_WITHOUT_ADMISSION] = {"order_without_admission", "I4", ORDER, NONE, false,
		"the ledger has it, and the gate would admit its token again"},
	[VERIFY_ADMISSION_DIFFERS] = {"admission_differs", "I4", ORDER, NONE, false,
		"sale, buyer or quantity are others in the gate than in the ledger"},
	[VERIFY_ADMISSION_REVOKED] = {"admission_revoked", "I5", ORDER, NONE, false,
		"the ledger has it, and the gate calls its token revoked"},
	[VERIFY_CLAIM_LEFT] = {"claim_left", "I2", ORDER, NONE, false, "a judge has claimed the token and never ended"},
	[VERIFY_STOCK_TOO_HIGH] = {"stock_too_high", "I1", SALE, NUMBERS, true,
		"more units are free in the gate than the ledger leaves"},
	[VERIFY_STOCK_TOO_LOW] = {"stock_too_low", "I2", SALE, NUMBERS, true,
		"fewer units are free in the gate than the ledger leaves"},
	[VERIFY_BUYER_TOO_HIGH] = {"buyer_too_high", "I2", BUYER, NUMBERS, true,
		"the gate counts more units of the buyer than the orders have"},
	[VERIFY_BUYER_TOO_LOW] = {"buyer_too_low", "I4", BUYER, NUMBERS, true,
		"the gate counts fewer units of the buyer than the orders have"},
	[VERIFY_WINDOW_DIFFERS] = {"window_differs", "I6", SALE, VERIFY_TIMES, false,
		"the gate opens or ends the sale at another time than the ledger says"},
	[VERIFY_LIMIT_DIFFERS] = {"limit_differs", "I4", SALE, NUMBERS, false,
		"the gate has another limit for one buyer than the ledger"},
	[VERIFY_FLAGS_DIFFER] = {"flags_differ", "I6", SALE, NUMBERS, false,
		"paused (1) and ended (2) in the gate, and in the ledger"},
	[VERIFY_SALE_NOT_IN_GATE] = {"sale_not_in_gate", "I2", SALE, NONE, false,
		"the sale is not over, and the gate does not know it"},
	[VERIFY_SALE_NOT_IN_LEDGER] = {"sale_not_in_ledger", "I1", SALE, NONE, false,
		"the gate sells it, and the ledger does not know it (another ledger than before?)"},
	[VERIFY_IN_FLIGHT] = {"in_flight", "I2", SALE, NUMBERS, true,
		"the gate counts admissions on their way that are not there; orders close when they are too many"},
	[VERIFY_DAEMON_PUT_IN] = {"daemon_put_in", "I2", SALE, NUMBERS, false,
		"put_in as the daemon has it in mind, and the ledger's"},
	[VERIFY_DAEMON_HELD] = {"daemon_held", "I2", SALE, NUMBERS, false,
		"held as the daemon has it in mind, and the ledger's"},
	[VERIFY_DAEMON_CONFIRMED] = {"daemon_confirmed", "I2", SALE, NUMBERS, false,
		"confirmed as the daemon has it in mind, and the ledger's"},
};

/* --- views --------------------------------------------------------------------------------------------------------------------- */
void *verify_append(void *array, size_t *count, size_t *capacity, size_t size)
{
	void **first = array;

	if (*count == *capacity) {
		size_t more = *capacity ? *capacity * 2 : 256;
		void *grown = realloc(*first, more * size);

		if (!grown)
			return NULL;
		*first = grown;
		*capacity = more;
	}
	return memset((char *)*first + (*count)++ * size, 0, size);
}

void verify_ledger_free(struct verify_ledger *ledger)
{
	for (size_t i = 0; i < ledger->sale_count; i++) {
		json_decref(ledger->sales[i].lease);
		free(ledger->sales[i].former);
	}
	free(ledger->sales);
	free(ledger->orders);
	memset(ledger, 0, sizeof(*ledger));
}

void verify_gate_free(struct verify_gate *gate)
{
	free(gate->admissions);
	free(gate->buyers);
	gate->admissions = NULL;
	gate->buyers = NULL;
	gate->admission_count = gate->admission_capacity = gate->buyer_count = gate->buyer_capacity = 0;
}

void verify_result_free(struct verify_result *result)
{
	free(result->differences);
	free(result->lines);
	memset(result, 0, sizeof(*result));
}

static int compare_numbers(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

static int sales_by_id(const void *a, const void *b)
{
	return compare_numbers(((const struct verify_sale *)a)->id, ((const struct verify_sale *)b)->id);
}

static int admissions_by_serial(const void *a, const void *b)
{
	return compare_numbers(
		((const struct verify_admission *)a)->serial, ((const struct verify_admission *)b)->serial);
}

static int buyers_by_key(const void *a, const void *b)
{
	const struct verify_buyer *left = a, *right = b;
	int order = compare_numbers(left->sale, right->sale);

	return order ? order : compare_numbers(left->buyer, right->buyer);
}

static int differences_by_key(const void *a, const void *b)
{
	const struct verify_difference *left = a, *right = b;
	int order = compare_numbers(left->sale, right->sale);

	if (!order)
		order = compare_numbers(left->kind, right->kind);
	return order ? order : compare_numbers(left->subject, right->subject);
}

/* `array` may be NULL if there is nothing in it, which qsort and bsearch may not be given. */
static void sort(void *array, size_t count, size_t size, int (*by)(const void *, const void *))
{
	if (count)
		qsort(array, count, size, by);
}

static void *find(const void *key, const void *array, size_t count, size_t size, int (*by)(const void *, const void *))
{
	return count ? bsearch(key, array, count, size, by) : NULL;
}

/* --- one look ------------------------------------------------------------------------------------------------------------------ */
/* What the orders of a sale add up to. */
struct sums {
	int64_t held, confirmed, orders; /* units, units, rows */
	int64_t on_its_way;              /* units of admissions without an order */
	uint64_t odd; /* admissions without an order that should have one, and claims that were left */
};

struct look {
	struct verify_ledger *ledger;
	struct verify_gate *gate;
	struct verify_result *result;
	struct sums *sums; /* of each sale, by its place in the ledger's view */
	struct books_order *holders;
	size_t holder_count,
		holder_capacity; /* whoever should be counted as holding units: orders, and admissions on their way */
	uint64_t now_ns, on_their_way, lost; /* admissions without an order; those of them that should have one */
	int err;
};

static void add(
	struct look *look, enum verify_kind kind, uint32_t sale, uint64_t subject, int64_t found, int64_t expected)
{
	struct verify_result *result = look->result;
	struct verify_difference *difference =
		verify_append(&result->differences, &result->count, &result->capacity, sizeof(*difference));

	if (!difference) {
		look->err = -ENOMEM;
		return;
	}
	difference->kind = kind;
	difference->sale = sale;
	difference->subject = subject;
	difference->found = found;
	difference->expected = expected;
}

/* The sale's place in the ledger's view, or -1. */
static ptrdiff_t place_of(const struct look *look, uint32_t id)
{
	const struct verify_sale key = {.id = id};
	const struct verify_sale *sale =
		find(&key, look->ledger->sales, look->ledger->sale_count, sizeof(key), sales_by_id);

	return sale ? sale - look->ledger->sales : -1;
}

static const struct verify_slot *slot_of(const struct look *look, uint32_t id)
{
	const struct verify_slot *slot = &look->gate->slots[id % SLUICE_MAX_SALES];

	return look->gate->attached && slot->id == id ? slot : NULL;
}

/* Whether the gate must still know who bought. */
static bool is_remembered(const struct look *look, const struct verify_sale *sale)
{
	return slot_of(look, sale->id) &&
		(look->now_ns < sale->ends_ns || look->now_ns - sale->ends_ns < SLUICE_KEEP_NS);
}

/* --- the ledger alone */
/* Former windows, and the one of now as the last: a change is in force at the gate a moment after the ledger has it, so what it has changed counts a
 * little longer.
 */
static struct verify_window window_at(const struct verify_sale *sale, size_t i)
{
	if (i < sale->former_count)
		return sale->former[i];
	return (struct verify_window){.opens_ns = sale->opens_ns,
		.ends_ns = sale->ends_ns,
		.until_ns = UINT64_MAX,
		.per_buyer = sale->per_buyer};
}

static bool in_force(const struct verify_sale *sale, size_t i, uint64_t at_ns)
{
	uint64_t since_ns = i ? sale->former[i - 1].until_ns : 0, until_ns = window_at(sale, i).until_ns;

	return at_ns >= since_ns && (until_ns == UINT64_MAX || at_ns < until_ns + CHANGE_NS);
}

/* As books_outside, by the window of the order's time; *window: by which of them. */
static int outside_its_window(
	const struct verify_sale *sale, const struct books_order *order, struct verify_window *window)
{
	int outside = 0;

	for (size_t i = 0; i <= sale->former_count; i++) {
		if (!in_force(sale, i, order->admitted_ns))
			continue;
		*window = window_at(sale, i);
		outside = books_outside(order, window->opens_ns, window->ends_ns);
		if (!outside)
			break;
	}
	return outside;
}

/* The most that a buyer could have at the time of one of these orders. */
static uint32_t limit_of(const struct verify_sale *sale, const struct books_order *orders, size_t count)
{
	uint32_t limit = 0;

	for (size_t i = 0; i <= sale->former_count; i++) {
		uint32_t per_buyer = window_at(sale, i).per_buyer;

		for (size_t j = 0; per_buyer > limit && j < count; j++)
			if (orders[j].live && in_force(sale, i, orders[j].admitted_ns))
				limit = per_buyer;
	}
	return limit;
}

static void look_at_orders(struct look *look)
{
	const struct verify_ledger *ledger = look->ledger;
	const struct books_order *orders = ledger->orders;

	for (size_t i = 0; i < ledger->order_count; i++) {
		const struct books_order *order = &orders[i];
		ptrdiff_t place = place_of(look, order->sale);
		const struct verify_sale *sale;
		struct verify_window window;
		int outside;

		if (i && orders[i - 1].id == order->id)
			add(look, VERIFY_SERIAL_TWICE, order->sale, order->id, 2, 1);
		if (place < 0) {
			add(look, VERIFY_ORDER_OF_NO_SALE, order->sale, order->id, 0, 0);
			continue;
		}
		sale = &ledger->sales[place];
		look->sums[place].orders++;
		if (order->live)
			*(order->confirmed ? &look->sums[place].confirmed : &look->sums[place].held) += order->quantity;
		outside = outside_its_window(sale, order, &window);
		if (outside)
			add(look, VERIFY_OUTSIDE_WINDOW, order->sale, order->id, (int64_t)order->admitted_ns,
				(int64_t)(outside < 0 ? window.opens_ns : window.ends_ns));
	}
}

/* Sorts the orders by seq. */
static void look_at_seqs(struct look *look)
{
	struct verify_ledger *ledger = look->ledger;
	uint64_t due = 1;

	sort(ledger->orders, ledger->order_count, sizeof(*ledger->orders), books_by_seq);
	for (size_t i = 0; i < ledger->order_count; i++) {
		const struct books_order *order = &ledger->orders[i];

		if (!i || ledger->orders[i - 1].sale != order->sale)
			due = 1;
		if (order->seq < due)
			add(look, VERIFY_SEQ_TWICE, order->sale, order->id, (int64_t)order->seq, (int64_t)due);
		else if (order->seq > due)
			add(look, VERIFY_SEQ_GAP, order->sale, order->id, (int64_t)order->seq, (int64_t)due);
		if (order->seq >= due)
			due = order->seq + 1;
	}
}

static void look_at_sums(struct look *look)
{
	for (size_t i = 0; i < look->ledger->sale_count; i++) {
		const struct verify_sale *sale = &look->ledger->sales[i];
		const struct sums *sums = &look->sums[i];

		if (sale->held + sale->confirmed > sale->put_in)
			add(look, VERIFY_OVERSOLD, sale->id, 0, sale->held + sale->confirmed, sale->put_in);
		else if (sums->held + sums->confirmed > sale->put_in)
			add(look, VERIFY_OVERSOLD, sale->id, 0, sums->held + sums->confirmed, sale->put_in);
		if (sale->held != sums->held)
			add(look, VERIFY_HELD_SUM, sale->id, 0, sale->held, sums->held);
		if (sale->confirmed != sums->confirmed)
			add(look, VERIFY_CONFIRMED_SUM, sale->id, 0, sale->confirmed, sums->confirmed);
		if (!sale->has_sums)
			continue;
		if (sale->put_in != sale->moved)
			add(look, VERIFY_PUT_IN_SUM, sale->id, 0, sale->put_in, sale->moved);
		if (sale->orders != sums->orders)
			add(look, VERIFY_ORDER_COUNT, sale->id, 0, sale->orders, sums->orders);
	}
}

/* Sorts the orders by buyer. */
static void look_at_limits(struct look *look)
{
	struct verify_ledger *ledger = look->ledger;

	sort(ledger->orders, ledger->order_count, sizeof(*ledger->orders), books_by_buyer);
	for (size_t i = 0, next; i < ledger->order_count; i += next) {
		const struct books_order *order = &ledger->orders[i];
		uint64_t units = books_buyer_units(order, ledger->order_count - i, &next);
		ptrdiff_t place = place_of(look, order->sale);

		uint32_t limit;

		if (place < 0)
			continue;
		limit = limit_of(&ledger->sales[place], order, next);
		if (units > limit)
			add(look, VERIFY_BUYER_ABOVE_LIMIT, order->sale, order->buyer, (int64_t)units, limit);
	}
}

/* --- ledger and gate */
static void add_holder(struct look *look, const struct books_order *holder)
{
	struct books_order *held =
		verify_append(&look->holders, &look->holder_count, &look->holder_capacity, sizeof(*held));

	if (held)
		*held = *holder;
	else
		look->err = -ENOMEM;
}

static void look_at_lost_admission(struct look *look, const struct verify_admission *admission)
{
	const struct books_order holder = {.id = admission->serial,
		.buyer = admission->buyer,
		.sale = admission->sale,
		.quantity = admission->quantity,
		.live = true};
	ptrdiff_t place = place_of(look, admission->sale);

	look->on_their_way++;
	if (place >= 0)
		look->sums[place].on_its_way += admission->quantity;
	add_holder(look, &holder);
	/* Without daemon or writer it waits for them; nobody has been told yes. With them it takes moments, and seconds if it did not come through
	 * the ring.
	 */
	if (look->gate->alive && look->gate->orders_open && look->now_ns > admission->admitted_ns &&
		look->now_ns - admission->admitted_ns > ON_ITS_WAY_MAX_NS) {
		add(look, VERIFY_ADMISSION_WITHOUT_ORDER, admission->sale, admission->serial, 0, 0);
		look->lost++;
	} else {
		look->result->on_their_way++;
	}
	if (place >= 0)
		look->sums[place].odd++;
}

/* The orders are sorted by id. */
static void look_at_admissions(struct look *look)
{
	const struct verify_ledger *ledger = look->ledger;

	for (size_t i = 0; i < look->gate->admission_count; i++) {
		const struct verify_admission *admission = &look->gate->admissions[i];
		const struct books_order key = {.id = admission->serial};
		const struct books_order *order =
			find(&key, ledger->orders, ledger->order_count, sizeof(key), books_by_id);
		ptrdiff_t place = place_of(look, admission->sale);

		if (admission->state == SLUICE_ADMISSION_REVOKED) {
			if (order)
				add(look, VERIFY_ADMISSION_REVOKED, order->sale, order->id, 0, 0);
		} else if (admission->state != SLUICE_ADMISSION_DONE) {
			add(look, VERIFY_CLAIM_LEFT, admission->sale, admission->serial, 0, 0);
			if (place >= 0)
				look->sums[place].odd++;
		} else if (!order) {
			look_at_lost_admission(look, admission);
		} else if (order->sale != admission->sale || order->buyer != admission->buyer ||
			order->quantity != admission->quantity) {
			add(look, VERIFY_ADMISSION_DIFFERS, order->sale, order->id, 0, 0);
		}
	}
}

/* The admissions are sorted by serial. */
static void look_for_admissions(struct look *look)
{
	const struct verify_ledger *ledger = look->ledger;

	for (size_t i = 0; i < ledger->order_count; i++) {
		const struct books_order *order = &ledger->orders[i];
		const struct verify_admission key = {.serial = order->id};
		ptrdiff_t place = place_of(look, order->sale);

		if (place < 0 || !is_remembered(look, &ledger->sales[place]))
			continue;
		if (!find(&key, look->gate->admissions, look->gate->admission_count, sizeof(key), admissions_by_serial))
			add(look, VERIFY_ORDER_WITHOUT_ADMISSION, order->sale, order->id, 0, 0);
		add_holder(look, order);
	}
}

static void compare_buyer(struct look *look, uint32_t sale_id, uint64_t buyer, uint64_t counted, uint64_t units)
{
	ptrdiff_t place = place_of(look, sale_id);

	if (counted == units || place < 0 || !is_remembered(look, &look->ledger->sales[place]) ||
		slot_of(look, sale_id)->moving)
		return;
	add(look, counted > units ? VERIFY_BUYER_TOO_HIGH : VERIFY_BUYER_TOO_LOW, sale_id, buyer, (int64_t)counted,
		(int64_t)units);
}

/* The gate's counts beside the holders', both by sale and buyer. */
static void look_at_buyers(struct look *look)
{
	const struct verify_gate *gate = look->gate;
	size_t i = 0, j = 0, next;

	sort(look->holders, look->holder_count, sizeof(*look->holders), books_by_buyer);
	while (i < gate->buyer_count || j < look->holder_count) {
		const struct books_order *holder = j < look->holder_count ? &look->holders[j] : NULL;
		const struct verify_buyer *counted = i < gate->buyer_count ? &gate->buyers[i] : NULL;
		int order = !holder ? -1 : 1;

		if (holder && counted) {
			order = compare_numbers(counted->sale, holder->sale);
			if (!order)
				order = compare_numbers(counted->buyer, holder->buyer);
		}
		if (order < 0) {
			compare_buyer(look, counted->sale, counted->buyer, counted->units, 0);
			i++;
			continue;
		}
		compare_buyer(look, holder->sale, holder->buyer, order ? 0 : counted->units,
			books_buyer_units(holder, look->holder_count - j, &next));
		j += next;
		i += !order;
	}
}

static void compare_words(struct look *look, const struct verify_sale *sale, const struct verify_slot *slot)
{
	uint32_t flags = (sale->paused ? SLUICE_SALE_PAUSED : 0) | (sale->ended ? SLUICE_SALE_ENDED : 0);

	if (slot->flags & SLUICE_SALE_CLOSED) /* being changed */
		return;
	/* To the millisecond: that is how the daemon tells times. */
	if (slot->opens_ns / NS_PER_MS != sale->opens_ns / NS_PER_MS)
		add(look, VERIFY_WINDOW_DIFFERS, sale->id, 0, (int64_t)slot->opens_ns, (int64_t)sale->opens_ns);
	else if (slot->ends_ns / NS_PER_MS != sale->ends_ns / NS_PER_MS)
		add(look, VERIFY_WINDOW_DIFFERS, sale->id, 0, (int64_t)slot->ends_ns, (int64_t)sale->ends_ns);
	if (slot->per_buyer != sale->per_buyer)
		add(look, VERIFY_LIMIT_DIFFERS, sale->id, 0, slot->per_buyer, sale->per_buyer);
	/* The other flags are those of a fleet's lease, of which the ledger says nothing. */
	if ((slot->flags & (SLUICE_SALE_PAUSED | SLUICE_SALE_ENDED)) != flags)
		add(look, VERIFY_FLAGS_DIFFER, sale->id, 0, slot->flags & (SLUICE_SALE_PAUSED | SLUICE_SALE_ENDED),
			flags);
}

static void compare_stock(struct look *look, const struct verify_line *line)
{
	int64_t left = line->put_in - line->held - line->confirmed - line->on_its_way;

	if (left < 0) /* what is oversold has been told */
		left = 0;
	if (line->free > left)
		add(look, VERIFY_STOCK_TOO_HIGH, line->sale, 0, line->free, left);
	else if (line->free < left)
		add(look, VERIFY_STOCK_TOO_LOW, line->sale, 0, line->free, left);
}

static void look_at_sales(struct look *look)
{
	const struct verify_gate *gate = look->gate;

	for (size_t i = 0; i < look->ledger->sale_count; i++) {
		const struct verify_sale *sale = &look->ledger->sales[i];
		const struct verify_slot *slot = slot_of(look, sale->id);
		struct verify_line *line = &look->result->lines[i];

		line->sale = sale->id;
		line->slug = sale->slug;
		line->put_in = sale->put_in;
		line->held = sale->held;
		line->confirmed = sale->confirmed;
		line->on_its_way = look->sums[i].on_its_way;
		line->in_gate = slot != NULL;
		if (!slot) {
			line->free = sale->put_in - sale->held - sale->confirmed;
			if (gate->attached && gate->alive && gate->orders_open && look->now_ns < sale->ends_ns &&
				!sale->ended)
				add(look, VERIFY_SALE_NOT_IN_GATE, sale->id, 0, 0, 0);
			continue;
		}
		line->free = (int64_t)slot->free;
		line->moving = slot->moving;
		look->result->moving += line->moving;
		if (is_remembered(look, sale))
			compare_words(look, sale, slot);
		if (!line->moving)
			compare_stock(look, line);
	}
}

static void look_at_gate(struct look *look)
{
	const struct verify_gate *gate = look->gate;
	uint64_t taken = 0;

	for (size_t i = 0; i < SLUICE_MAX_SALES; i++) {
		const struct verify_slot *slot = &gate->slots[i];

		taken += slot->taken;
		if (slot->id && !(slot->flags & SLUICE_SALE_ENDED) && place_of(look, slot->id) < 0)
			add(look, VERIFY_SALE_NOT_IN_LEDGER, slot->id, 0, 0, 0);
	}
	/* A daemon that starts counts them anew; of one that was lost nobody knows if it is still counted. The subject: if anything was admitted
	 * between two looks, they do not agree.
	 */
	if (gate->alive && !gate->in_flight_moves && !look->lost && gate->in_flight != look->on_their_way)
		add(look, VERIFY_IN_FLIGHT, 0, taken, (int64_t)gate->in_flight, (int64_t)look->on_their_way);
}

static void look_at_accounts(struct look *look, const struct verify_accounts *accounts)
{
	for (size_t i = 0; i < accounts->count; i++) {
		const struct verify_account *account = &accounts->all[i];
		const struct verify_slot *slot = slot_of(look, account->sale);
		ptrdiff_t place = place_of(look, account->sale);
		const struct verify_sale *sale;

		if (!slot || slot->moving || account->in_flight || place < 0)
			continue;
		sale = &look->ledger->sales[place];
		if (account->put_in != sale->put_in)
			add(look, VERIFY_DAEMON_PUT_IN, sale->id, 0, account->put_in, sale->put_in);
		if (account->held != sale->held)
			add(look, VERIFY_DAEMON_HELD, sale->id, 0, account->held, sale->held);
		if (account->confirmed != sale->confirmed)
			add(look, VERIFY_DAEMON_CONFIRMED, sale->id, 0, account->confirmed, sale->confirmed);
	}
}

/* A word can be mended where the ledger says what is right and nothing of the sale is on its way. */
static void look_what_is_certain(struct look *look)
{
	for (size_t i = 0; i < look->result->count; i++) {
		struct verify_difference *difference = &look->result->differences[i];
		ptrdiff_t place = place_of(look, difference->sale);

		if (!verify_kinds[difference->kind].mendable)
			continue;
		difference->certain = difference->kind == VERIFY_IN_FLIGHT ? !look->on_their_way
									   : place >= 0 && !look->sums[place].odd;
	}
}

int verify_compare(struct verify_ledger *ledger, struct verify_gate *gate, const struct verify_accounts *accounts,
	uint64_t now_ns, struct verify_result *result)
{
	struct look look = {.ledger = ledger, .gate = gate, .result = result, .now_ns = now_ns};

	memset(result, 0, sizeof(*result));
	look.sums = calloc(ledger->sale_count + 1, sizeof(*look.sums));
	result->lines = calloc(ledger->sale_count + 1, sizeof(*result->lines));
	result->line_count = ledger->sale_count;
	if (!look.sums || !result->lines) {
		look.err = -ENOMEM;
		goto out;
	}
	sort(ledger->sales, ledger->sale_count, sizeof(*ledger->sales), sales_by_id);
	look_at_seqs(&look);
	look_at_limits(&look);
	sort(ledger->orders, ledger->order_count, sizeof(*ledger->orders), books_by_id);
	look_at_orders(&look);
	look_at_sums(&look);
	if (gate->attached) {
		sort(gate->admissions, gate->admission_count, sizeof(*gate->admissions), admissions_by_serial);
		sort(gate->buyers, gate->buyer_count, sizeof(*gate->buyers), buyers_by_key);
		look_at_admissions(&look);
		look_for_admissions(&look);
		look_at_buyers(&look);
		look_at_gate(&look);
	}
	look_at_sales(&look);
	if (accounts)
		look_at_accounts(&look, accounts);
	look_what_is_certain(&look);
	sort(result->differences, result->count, sizeof(*result->differences), differences_by_key);
out:
	free(look.sums);
	free(look.holders);
	if (look.err)
		verify_result_free(result);
	return look.err;
}

void verify_persisting(struct verify_result *result, const struct verify_result *before)
{
	size_t kept = 0;

	for (size_t i = 0; i < result->count; i++) {
		const struct verify_difference *now = &result->differences[i];
		const struct verify_difference *then =
			find(now, before->differences, before->count, sizeof(*now), differences_by_key);

		if (then && then->found == now->found && then->expected == now->expected)
			result->differences[kept++] = *now;
	}
	result->count = kept;
}
