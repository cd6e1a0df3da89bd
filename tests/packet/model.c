/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The model's chain, top to bottom as docs/design.md has it, and the trials that can be taken back. */
#include <string.h>

#include "model_inside.h"

/* --- trials --------------------------------------------------------------------------------------------------------------- */
void model_begin(struct model *model)
{
	model->undo_count = 0;
	model->mute_met = false;
	model->stamp_count = 0;
}

void model_take_back(struct model *model)
{
	while (model->undo_count) {
		const struct model_undo *last = &model->undo[--model->undo_count];

		*last->word = last->old;
	}
}

void model_set(struct model *model, uint64_t *word, uint64_t value)
{
	if (model->undo_count == MODEL_UNDO) {
		model->overflow = true;
		return;
	}
	model->undo[model->undo_count++] = (struct model_undo){.word = word, .old = *word};
	*word = value;
}

static void stamp(struct model *model, uint64_t *word, uint64_t value, enum model_clock_of clock)
{
	model_set(model, word, value);
	for (unsigned i = 0; i < model->stamp_count; i++) {
		if (model->stamps[i].word == word) {
			model->stamps[i].value = value;
			return;
		}
	}
	if (model->stamp_count == MODEL_STAMPS) {
		model->overflow = true;
		return;
	}
	model->stamps[model->stamp_count++] = (struct model_stamp){.word = word, .value = value, .clock = clock};
}

void model_set_time(struct model *model, uint64_t *word, uint64_t value)
{
	stamp(model, word, value, CLOCK_OF_NOW);
}

void model_set_coarse_time(struct model *model, uint64_t *word, uint64_t value)
{
	stamp(model, word, value, CLOCK_OF_COARSE);
}

void model_set_steps(struct model *model, uint64_t *word, uint64_t value)
{
	stamp(model, word, value, CLOCK_OF_STEPS);
}

void model_set_checked(struct model *model, uint64_t *word, uint64_t value)
{
	stamp(model, word, value, CLOCK_OF_NONE);
}

bool model_shadow(struct model *model, bool in_shadow, int reason)
{
	if (in_shadow)
		model_set(model, &model->shadowed[reason], model->shadowed[reason] + 1);
	return in_shadow;
}

bool model_shadow_checked(struct model *model, bool over, bool in_shadow, int reason)
{
	if (in_shadow)
		model_set_checked(model, &model->shadowed[reason], model->shadowed[reason] + over);
	return in_shadow;
}

/* --- addresses ------------------------------------------------------------------------------------------------------------ */
struct model_addr model_addr_of(const struct sluice_addr *addr)
{
	struct model_addr out;

	for (int i = 0; i < 8; i++) {
		out.byte[i] = addr->hi >> (56 - 8 * i);
		out.byte[8 + i] = addr->lo >> (56 - 8 * i);
	}
	return out;
}

struct sluice_addr model_addr_number(const struct model_addr *addr)
{
	struct sluice_addr out = {0};

	for (int i = 0; i < 8; i++) {
		out.hi = out.hi << 8 | addr->byte[i];
		out.lo = out.lo << 8 | addr->byte[8 + i];
	}
	return out;
}

bool model_addr_is_ip4(const struct model_addr *addr)
{
	static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

	return !memcmp(addr->byte, mapped, sizeof(mapped));
}

bool model_addr_covers(const struct model_addr *prefix, unsigned bits, const struct model_addr *addr)
{
	for (unsigned bit = 0; bit < bits; bit++) {
		unsigned mask = 0x80 >> bit % 8;

		if ((prefix->byte[bit / 8] & mask) != (addr->byte[bit / 8] & mask))
			return false;
	}
	return true;
}

/* --- the chain ------------------------------------------------------------------------------------------------------------ */
static unsigned find_service(const struct model *model, const struct model_packet *packet)
{
	for (unsigned i = 0; i < model->service_count; i++) {
		const struct model_service *service = &model->services[i];

		if (service->port == packet->dport &&
			(service->any || !memcmp(&service->addr, &packet->destination, sizeof(service->addr))))
			return i;
	}
	return MODEL_UNPROTECTED;
}

static int judge_unprotected(struct model *model, const struct model_packet *packet)
{
	if (model->deny_all && model_list_find(model, &packet->source) == LIST_DENIED)
		return SLUICE_REASON_DENIED;
	return SLUICE_REASON_UNPROTECTED;
}

static int judge_syn(struct model *model, const struct model_packet *packet, bool allowed, uint64_t now)
{
	const struct model_socket *socket = model_socket_of(model, packet);
	unsigned wait_s;
	int reason;

	if (!allowed) {
		reason = model_rate_syn(model, &packet->source);
		if (reason != GO_ON)
			return reason;
	}
	/* Behind a connection that is over the kernel makes the next by itself: no first segment of it will be seen here. */
	if (socket && socket->waits && !allowed && !model->shadow_all) {
		if (model_rate_muted(model, &packet->source, now))
			return SLUICE_REASON_RATE_DROP;
		reason = model_rate_source(model, &packet->source, false, now, &wait_s);
		if (reason != GO_ON) {
			model_rate_remember(model, &packet->source, reason);
			return reason;
		}
	}
	if (socket)
		return SLUICE_REASON_SOCKET;
	if (!model->services[packet->service].listened)
		return SLUICE_REASON_NO_LISTENER;
	if (model->shadow_all)
		return SLUICE_REASON_SYN_COOKIE; /* nobody asks for one */
	if (!model->cookies_made || (model->queue_full && packet->service == 0))
		return SLUICE_REASON_ACCEPT_FULL;
	return SLUICE_REASON_SYN_COOKIE;
}

/* The first data of a connection whose cookie is good. */
static int judge_first(struct model *model, const struct model_packet *packet, bool allowed, uint64_t now,
	struct model_verdict *verdict)
{
	bool tcp = model->services[packet->service].tcp;
	struct model_order order = {.source = packet->source,
		.door = SLUICE_DOOR_WIRE,
		.service = packet->service,
		.dry = model->shadow_all};
	int reason;

	if (!allowed) {
		reason = model_rate_source(model, &packet->source, !tcp, now, &verdict->retry_after_s);
		if (reason != GO_ON)
			return reason;
	}
	if (tcp)
		return SLUICE_REASON_TCP_FIRST;
	reason = model_request_read(packet->bytes + packet->data_at, packet->data_len, &order.text);
	if (reason != GO_ON)
		return reason;
	model_judge(model, &order, now);
	verdict->retry_after_s = order.retry_after_s;
	verdict->home = order.home;
	return order.reason;
}

bool model_reason_is(int reason, enum sluice_action wanted)
{
	switch (reason) {
#define X(name, label, action, answer, text) \
	case SLUICE_REASON_##name: \
		return SLUICE_ACTION_##action == wanted;
		SLUICE_REASONS(X)
#undef X
	}
	return false;
}

static bool is_answer(int reason)
{
	return model_reason_is(reason, SLUICE_ACTION_ANSWER);
}

static bool goes_up(int reason)
{
	return reason == SLUICE_REASON_REQUEST || reason == SLUICE_REASON_REQUEST_UNREAD ||
		reason == SLUICE_REASON_TCP_FIRST || reason == SLUICE_REASON_ADMITTED ||
		reason == SLUICE_REASON_ADMITTED_AGAIN;
}

/* Data or FIN, and no good cookie with data: of a connection that the gate has dealt with, or of one that the kernel has. What was answered
 * has no socket, so none is looked for.
 */
static int judge_later(struct model *model, const struct model_packet *packet)
{
	enum model_past past = model_recent_find(model, packet);

	if (past == PAST_ANSWERED)
		return SLUICE_REASON_LEFTOVER;
	if (model_socket_exists(model, packet))
		return SLUICE_REASON_SOCKET;
	if (past == PAST_WENT_UP)
		return SLUICE_REASON_FOLLOWS;
	/* A client that said nothing, and closes. */
	if (!packet->data_len && model_cookie_is_good(model, packet))
		return SLUICE_REASON_LEFTOVER;
	return SLUICE_REASON_LEFTOVER_UNKNOWN;
}

static int judge_segment(struct model *model, const struct model_packet *packet, bool allowed, uint64_t now,
	struct model_verdict *verdict)
{
	bool syn = packet->flags & F_SYN, fin = packet->flags & F_FIN, rst = packet->flags & F_RST,
	     ack = packet->flags & F_ACK;
	int reason;

	if (syn && fin)
		return SLUICE_REASON_SYN_FIN;
	if (syn && rst)
		return SLUICE_REASON_SYN_RST;
	if (!syn && !rst && !ack)
		return SLUICE_REASON_TCP_FLAGS;
	if (syn && !ack)
		return packet->data_len ? SLUICE_REASON_SYN_DATA : judge_syn(model, packet, allowed, now);
	if (syn)
		return model_socket_exists(model, packet) ? SLUICE_REASON_SOCKET : SLUICE_REASON_TCP_FLAGS;
	if (rst)
		return model_socket_exists(model, packet) ? SLUICE_REASON_SOCKET : SLUICE_REASON_RST_STRAY;
	if (!packet->data_len && !fin)
		return model_socket_exists(model, packet) ? SLUICE_REASON_SOCKET : SLUICE_REASON_BARE_ACK;
	/* A single byte that nobody wrote is a probe. */
	if (!packet->data_len || (packet->data_len == 1 && !(packet->flags & F_PSH)) ||
		!model_cookie_is_good(model, packet))
		return judge_later(model, packet);
	if (!allowed && model_rate_muted(model, &packet->source, now))
		return SLUICE_REASON_RATE_DROP;
	/* In shadow mode every connection has a socket by now: its first segments are judged all the same. */
	if (!model->shadow_all && model_socket_exists(model, packet)) {
		model_recent_note(model, packet, false, now);
		return SLUICE_REASON_SOCKET;
	}
	reason = judge_first(model, packet, allowed, now, verdict);
	if (!allowed)
		model_rate_remember(model, &packet->source, reason);
	if (is_answer(reason) || goes_up(reason))
		model_recent_note(model, packet, is_answer(reason) && !model->shadow_all, now);
	return reason;
}

static int judge_packet(struct model *model, struct model_packet *packet, uint64_t now, struct model_verdict *verdict)
{
	enum model_list listed;
	int reason;

	packet->service = MODEL_UNPROTECTED;
	reason = model_parse_network(packet);
	if (reason != GO_ON)
		return reason;
	if (packet->protocol == 6)
		packet->service = find_service(model, packet);
	if (packet->service == MODEL_UNPROTECTED)
		return judge_unprotected(model, packet);
	listed = model_list_find(model, &packet->source);
	if (listed == LIST_DENIED)
		return SLUICE_REASON_DENIED;
	if (packet->fragment)
		return SLUICE_REASON_FRAGMENT;
	reason = model_parse_tcp(packet);
	if (reason != GO_ON)
		return reason;
	return judge_segment(model, packet, listed == LIST_ALLOWED, now, verdict);
}

struct model_verdict model_packet_judge(
	struct model *model, const uint8_t *bytes, unsigned length, struct model_clock clock)
{
	struct model_packet packet = {.bytes = bytes, .length = length};
	struct model_verdict verdict = {0};

	model->clock = clock;
	verdict.reason = verdict.said = judge_packet(model, &packet, clock.now, &verdict);
	verdict.service = packet.service;
	if (model->shadow_all &&
		(!model_reason_is(verdict.said, SLUICE_ACTION_PASS) || verdict.said == SLUICE_REASON_ADMITTED)) {
		model_shadow_checked(model, true, true, verdict.said);
		verdict.reason = SLUICE_REASON_SHADOWED;
	} else if (is_answer(verdict.said) && !model_reply_fits(model, &packet, &verdict)) {
		verdict.reason = SLUICE_REASON_ANSWER_FAILED;
	}
	return verdict;
}

/* At this door there is no way around the verdict, so with the whole gate in shadow every single limit is. */
static void shadow_limits(struct model *model)
{
	model->shadow_deny = model->shadow_pace = true;
	for (int id = 0; id < SLUICE_LIMIT_COUNT; id++)
		model->shadow_limit[id] = true;
}

static int judge_call(struct model *model, struct sluice_call *call, struct model_order *order, uint64_t now)
{
	enum model_list listed = model_list_find(model, &order->source);
	int reason = GO_ON;

	if (listed == LIST_DENIED)
		return SLUICE_REASON_DENIED;
	if (listed == LIST_NONE && (call->op == SLUICE_CALL_RATE || call->flags & SLUICE_CALL_CHARGE))
		reason = model_rate_source(model, &order->source, true, now, &order->retry_after_s);
	if (reason == GO_ON && call->op == SLUICE_CALL_ORDER) {
		model_judge(model, order, now);
		reason = order->reason;
	}
	if (reason == GO_ON)
		reason = SLUICE_REASON_REQUEST;
	if (listed == LIST_NONE)
		model_rate_remember(model, &order->source, reason);
	return reason;
}

void model_call_judge(struct model *model, struct sluice_call *call, struct model_clock clock)
{
	struct model_order order = {.text = call->token,
		.source = model_addr_of(&call->source),
		.door = SLUICE_DOOR_CALL,
		.service = MODEL_UNPROTECTED};
	bool deny = model->shadow_deny, pace = model->shadow_pace, limits[SLUICE_LIMIT_COUNT];

	model->clock = clock;
	if (call->op == SLUICE_CALL_RELEASE || call->op == SLUICE_CALL_RECLAIM) {
		call->reason = call->op == SLUICE_CALL_RELEASE
			? model_release(model, &call->admission, call->flags & SLUICE_CALL_KEEP)
			: model_reclaim(model, &call->admission);
		return;
	}
	memcpy(limits, model->shadow_limit, sizeof(limits));
	if (model->shadow_all)
		shadow_limits(model);
	call->reason = judge_call(model, call, &order, clock.now);
	model->shadow_deny = deny;
	model->shadow_pace = pace;
	memcpy(model->shadow_limit, limits, sizeof(limits));
	call->retry_after_s = order.retry_after_s;
	call->serial = order.serial;
	if (order.admission) {
		const struct model_admission *from = order.admission;

		call->admission = (struct sluice_admission){.serial = from->inner_serial,
			.buyer = from->buyer,
			.source = {.hi = from->source_hi, .lo = from->source_lo},
			.admitted_wall = from->admitted_wall,
			.sale = from->sale,
			.state = from->state,
			.expires_at_s = from->expires_at_s,
			.network = from->network,
			.quantity = from->quantity,
			.door = from->door,
			.service = from->service};
	}
}
