/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The model's judge: one question after another in the order that docs/design.md gives, and at the end the four claims at once,
 * because here nobody else can come between them.
 */
#include <string.h>

#include "model_inside.h"

#define RECORD_BYTES 80 /* of the ring: struct sluice_admitted and the ring's own header */
#define TOKEN_VERSION 1
#define RETRY_CLOSED_S 2
#define RETRY_PAUSED_S 5
#define RETRY_BUSY_S 1

static const char order_path[] = "POST /v1/orders/";

#define PATH_LENGTH (sizeof(order_path) - 1)
#define METHOD_AND_VERSION 8 /* "POST /v1": shorter than this, nothing can be said */

int model_request_read(const uint8_t *data, unsigned length, const char **token)
{
	if (length < METHOD_AND_VERSION || memcmp(data, order_path, METHOD_AND_VERSION) != 0)
		return SLUICE_REASON_REQUEST;
	if (length < PATH_LENGTH + SLUICE_TOKEN_TEXT + 1)
		return SLUICE_REASON_REQUEST_UNREAD;
	if (memcmp(data, order_path, PATH_LENGTH) != 0)
		return SLUICE_REASON_REQUEST;
	*token = (const char *)data + PATH_LENGTH;
	if ((*token)[SLUICE_TOKEN_TEXT] != ' ' && (*token)[SLUICE_TOKEN_TEXT] != '?')
		return SLUICE_REASON_TOKEN_FORM;
	return GO_ON;
}

struct model_sale *model_sale_slot(struct model *model, uint64_t slot)
{
	for (uint64_t i = 0; i < model->sale_count; i++)
		if (model->sales[i].slot == slot)
			return &model->sales[i];
	return NULL;
}

struct model_admission *model_admission_find(struct model *model, uint64_t serial)
{
	for (uint64_t i = 0; i < model->admission_count; i++)
		if (model->admissions[i].serial == serial)
			return &model->admissions[i];
	return NULL;
}

struct model_buyer *model_buyer_find(struct model *model, uint64_t buyer, uint64_t sale)
{
	for (uint64_t i = 0; i < model->buyer_count; i++)
		if (model->buyers[i].buyer == buyer && model->buyers[i].sale == sale)
			return &model->buyers[i];
	return NULL;
}

static int read_token(const struct model *model, const char *text, struct model_token *token)
{
	const struct sluice_key *key;

	if (!model_token_read(text, token) || token->version != TOKEN_VERSION || token->flags)
		return SLUICE_REASON_TOKEN_FORM;
	key = &model->keys[token->key_id & 1];
	if (!key->valid || key->id != token->key_id)
		return SLUICE_REASON_TOKEN_KEY;
	if (model_siphash(token->bytes, 40, key->k0, key->k1) != token->mac)
		return SLUICE_REASON_TOKEN_MAC;
	return GO_ON;
}

/* Whole seconds until `opens`, 1..SLUICE_RETRY_MAX_S. */
static unsigned seconds_until(uint64_t opens, uint64_t wall)
{
	unsigned __int128 seconds = ((unsigned __int128)(opens - wall) + SECOND_NS - 1) / SECOND_NS;

	return seconds > SLUICE_RETRY_MAX_S ? SLUICE_RETRY_MAX_S : (unsigned)seconds;
}

static int ask_window(const struct model_sale *sale, uint64_t wall, unsigned *retry_s)
{
	if (sale->flags & SLUICE_SALE_ENDED || wall >= sale->ends)
		return SLUICE_REASON_ENDED;
	if (sale->flags & (SLUICE_SALE_PAUSED | SLUICE_SALE_CLOSED)) {
		*retry_s = RETRY_PAUSED_S;
		return SLUICE_REASON_PAUSED;
	}
	if (wall < sale->opens) {
		*retry_s = seconds_until(sale->opens, wall);
		return SLUICE_REASON_NOT_OPEN;
	}
	return GO_ON;
}

static int ask_token(
	const struct model_token *token, const struct model_sale *sale, const struct model_addr *source, uint64_t wall)
{
	if (token->issued_at_s < sale->not_before_s)
		return SLUICE_REASON_TOKEN_REVOKED;
	if (wall >= token->expires_at_s * SECOND_NS)
		return SLUICE_REASON_TOKEN_EXPIRED;
	if (token->network && token->network != model_network(source))
		return SLUICE_REASON_WRONG_NETWORK;
	if (!token->quantity || token->quantity > SLUICE_MAX_QUANTITY || token->quantity > sale->per_buyer)
		return SLUICE_REASON_TOKEN_QUANTITY;
	return GO_ON;
}

/* Are there units for this order? If not, the fleet's leases say whether that is the last word. What may be had elsewhere is remembered as
 * wanted, but not by who only looks.
 */
static int ask_units(struct model *model, struct model_sale *sale, uint64_t quantity, bool dry, unsigned *retry_s)
{
	bool withheld = sale->flags & SLUICE_SALE_WITHHELD, enough = sale->free >= quantity;

	if (enough && !withheld)
		return GO_ON;
	if (!withheld && !(sale->flags & SLUICE_SALE_MORE))
		return SLUICE_REASON_SOLD_OUT;
	if (!dry)
		model_set(model, &sale->wanted, sale->wanted + quantity);
	*retry_s = RETRY_BUSY_S;
	return SLUICE_REASON_UNITS_ELSEWHERE;
}

static void admit(struct model *model, struct model_order *order, const struct model_token *token,
	struct model_sale *sale, struct model_buyer *buyer, uint64_t now)
{
	struct model_admission *entry = &model->admissions[model->admission_count];
	struct sluice_addr source = model_addr_number(&order->source);
	const struct {
		uint64_t *word, value;
	} words[] = {{&entry->serial, token->serial}, {&entry->inner_serial, token->serial},
		{&entry->buyer, token->buyer}, {&entry->sale, token->sale}, {&entry->state, SLUICE_ADMISSION_DONE},
		{&entry->expires_at_s, token->expires_at_s}, {&entry->network, token->network},
		{&entry->quantity, token->quantity}, {&entry->door, order->door}, {&entry->service, order->service},
		{&entry->source_hi, source.hi}, {&entry->source_lo, source.lo},
		{&model->admission_count, model->admission_count + 1}, {&model->in_flight, model->in_flight + 1},
		{&sale->free, sale->free - token->quantity}, {&sale->taken, sale->taken + token->quantity},
		{&buyer->units, buyer->units + token->quantity}};

	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		model_set(model, words[i].word, words[i].value);
	model_set_time(model, &entry->admitted_wall, now + model->wall_offset);
	order->admission = entry;
}

/* Ring slot, token, buyer, units. The record of a refused order keeps its place on the ring until the reader has passed it. */
static int claim(struct model *model, struct model_order *order, const struct model_token *token,
	struct model_sale *sale, uint64_t now)
{
	struct model_buyer *buyer = model_buyer_find(model, token->buyer, token->sale);

	order->retry_after_s = RETRY_BUSY_S;
	if (model->ring_used + RECORD_BYTES > model->ring_bytes - 1)
		return SLUICE_REASON_RING_FULL;
	model_set(model, &model->ring_used, model->ring_used + RECORD_BYTES);
	if (model->admission_count == model->admissions_max)
		return SLUICE_REASON_ADMISSIONS_FULL;
	if (!buyer) {
		if (model->buyer_count == model->buyers_max)
			return SLUICE_REASON_BUYERS_FULL;
		buyer = &model->buyers[model->buyer_count];
		model_set(model, &model->buyer_count, model->buyer_count + 1);
		model_set(model, &buyer->buyer, token->buyer);
		model_set(model, &buyer->sale, token->sale);
		model_set(model, &buyer->units, 0);
	}
	order->retry_after_s = 0;
	if (buyer->units + token->quantity > sale->per_buyer)
		return SLUICE_REASON_BUYER_LIMIT;
	admit(model, order, token, sale, buyer, now);
	return SLUICE_REASON_ADMITTED;
}

/* Who only looks makes no claims, but knows the buyer's. */
static bool is_over_limit(struct model *model, const struct model_token *token, const struct model_sale *sale)
{
	const struct model_buyer *buyer = model_buyer_find(model, token->buyer, token->sale);

	return (buyer ? buyer->units : 0) + token->quantity > sale->per_buyer;
}

/* From the rate of the token on, a refusal is an attempt that is charged to it. */
static int attempt(struct model *model, struct model_order *order, const struct model_token *token,
	struct model_sale *sale, uint64_t now)
{
	struct sluice_limit pace = {.interval_ns = sale->pace_interval, .tolerance_ns = sale->pace_tolerance};
	bool over = !model_limit_allows(&pace, sale->pace_tat, now);
	int reason;

	if (model->backlog_max && model->in_flight >= model->backlog_max) {
		order->retry_after_s = RETRY_BUSY_S;
		return SLUICE_REASON_BACKLOG;
	}
	if (over)
		model_set_time(model, &sale->pace_tat, sale->pace_tat);
	if (!model_shadow_checked(model, over, model->shadow_pace, SLUICE_REASON_PACE) && over) {
		order->retry_after_s = model_limit_wait_s(&pace, sale->pace_tat, now);
		return SLUICE_REASON_PACE;
	}
	if (order->dry)
		return is_over_limit(model, token, sale) ? SLUICE_REASON_BUYER_LIMIT : SLUICE_REASON_ADMITTED;
	reason = claim(model, order, token, sale, now);
	/* Who gets nothing has not used the pace either. */
	if (pace.interval_ns && !over)
		model_set_time(model, &sale->pace_tat,
			model_limit_after(
				&pace, sale->pace_tat, now, reason == SLUICE_REASON_ADMITTED ? token->quantity : 0));
	return reason;
}

static int judge(struct model *model, struct model_order *order, uint64_t now)
{
	const struct model_admission *known;
	struct model_token token;
	struct model_sale *sale;
	uint64_t wall = now + model->wall_offset;
	int reason = read_token(model, order->text, &token);

	if (reason != GO_ON)
		return reason;
	order->serial = token.serial;
	order->home = token.node;
	known = model_admission_find(model, token.serial);
	if (model->node && token.node != model->node && !known)
		return SLUICE_REASON_WRONG_NODE;
	sale = model_sale_slot(model, token.sale % SLUICE_MAX_SALES);
	if (!token.sale || !sale || sale->id != token.sale) {
		if (model->orders_open)
			return SLUICE_REASON_UNKNOWN_SALE;
		order->retry_after_s = RETRY_CLOSED_S;
		return SLUICE_REASON_WRITER_AWAY;
	}
	if (now > model->heartbeat && now - model->heartbeat > SLUICE_HEARTBEAT_MAX_NS) {
		order->retry_after_s = RETRY_CLOSED_S;
		return SLUICE_REASON_DAEMON_AWAY;
	}
	if (known) {
		if (known->state == SLUICE_ADMISSION_CLAIMED || known->inner_serial != token.serial)
			return SLUICE_REASON_IN_PROGRESS;
		if (known->buyer != token.buyer || known->sale != token.sale)
			return SLUICE_REASON_TOKEN_MAC;
		if (known->state == SLUICE_ADMISSION_REVOKED)
			return SLUICE_REASON_TOKEN_REVOKED;
		order->admission = known;
		return SLUICE_REASON_ADMITTED_AGAIN;
	}
	reason = ask_window(sale, wall, &order->retry_after_s);
	if (reason == GO_ON)
		reason = ask_token(&token, sale, &order->source, wall);
	if (reason != GO_ON)
		return reason;
	reason = ask_units(model, sale, token.quantity, order->dry, &order->retry_after_s);
	if (reason != GO_ON)
		return reason;
	if (!model->orders_open) {
		order->retry_after_s = RETRY_CLOSED_S;
		return SLUICE_REASON_WRITER_AWAY;
	}
	if (model_rate_token_over(model, token.serial, now, &order->retry_after_s))
		return SLUICE_REASON_RATE_TOKEN;
	reason = attempt(model, order, &token, sale, now);
	if (reason != SLUICE_REASON_ADMITTED && !order->dry)
		model_rate_token_charge(model, token.serial, now);
	return reason;
}

void model_judge(struct model *model, struct model_order *order, uint64_t now)
{
	order->reason = judge(model, order, now);
}

/* --- what becomes of an admission -------------------------------------------------------------------------------------------- */
static struct model_sale *sale_of(struct model *model, uint64_t id)
{
	struct model_sale *sale = id ? model_sale_slot(model, id % SLUICE_MAX_SALES) : NULL;

	return sale && sale->id == id ? sale : NULL;
}

int model_release(struct model *model, const struct sluice_admission *admission, bool keep_units)
{
	struct model_buyer *buyer = model_buyer_find(model, admission->buyer, admission->sale);
	struct model_sale *sale = sale_of(model, admission->sale);

	if (sale && !keep_units)
		model_set(model, &sale->free, sale->free + admission->quantity);
	if (buyer)
		model_set(model, &buyer->units, buyer->units - admission->quantity);
	return SLUICE_REASON_NONE;
}

int model_reclaim(struct model *model, const struct sluice_admission *admission)
{
	struct model_buyer *buyer = model_buyer_find(model, admission->buyer, admission->sale);
	struct model_sale *sale = sale_of(model, admission->sale);
	unsigned nobody_waits;
	int reason;

	if (!sale)
		return SLUICE_REASON_UNKNOWN_SALE;
	if ((buyer ? buyer->units : 0) + admission->quantity > sale->per_buyer)
		return SLUICE_REASON_BUYER_LIMIT;
	if (!buyer) {
		if (model->buyer_count == model->buyers_max)
			return SLUICE_REASON_BUYERS_FULL;
		buyer = &model->buyers[model->buyer_count];
		model_set(model, &model->buyer_count, model->buyer_count + 1);
		model_set(model, &buyer->buyer, admission->buyer);
		model_set(model, &buyer->sale, admission->sale);
		model_set(model, &buyer->units, 0);
	}
	reason = ask_units(model, sale, admission->quantity, false, &nobody_waits);
	if (reason != GO_ON)
		return reason;
	model_set(model, &buyer->units, buyer->units + admission->quantity);
	model_set(model, &sale->free, sale->free - admission->quantity);
	return SLUICE_REASON_NONE;
}
