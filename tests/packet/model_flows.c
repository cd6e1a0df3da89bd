/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the model knows of connections: the cookies that the kernel gave, the sockets that it has, and what became of a first segment.
 *
 * A cookie is a keyed hash of the connection, plus the client's sequence number, plus the index of the client's MSS in a table of four
 * (net/ipv4/syncookies.c). So one cookie tells the sum for every other number of the same connection, and the kernel takes
 * a pair of numbers for good if what is left over is an index: 0..3.
 */
#include <string.h>

#include "model_inside.h"

#define MSS_TABLE 4
#define MSS_DEFAULT4 536
#define MSS_DEFAULT6 1220

static const uint16_t mss_table4[MSS_TABLE] = {536, 1300, 1440, 1460};
static const uint16_t mss_table6[MSS_TABLE] = {1280 - 60, 1480 - 60, 1500 - 60, 9000 - 60};

/* The last MSS option (RFC 9293 section 3.2) that is not 0; the rest is skipped by its lengths, as far as they make sense. */
static unsigned mss_of(const uint8_t *options, unsigned length)
{
	unsigned mss = 0, at = 0;

	while (at < length && options[at] != 0) {
		unsigned size;

		if (options[at] == 1) {
			at++;
			continue;
		}
		if (length - at < 2)
			break;
		size = options[at + 1];
		if (size < 2 || size > length - at)
			break;
		if (options[at] == 2 && size == 4 && model_get16(options + at + 2))
			mss = model_get16(options + at + 2);
		at += size;
	}
	return mss;
}

static bool same_flow(const struct model_addr *source, const struct model_addr *destination, uint16_t sport,
	uint16_t dport, const struct model_packet *packet)
{
	return sport == packet->sport && dport == packet->dport && !memcmp(source, &packet->source, sizeof(*source)) &&
		!memcmp(destination, &packet->destination, sizeof(*destination));
}

void model_cookie_learn(struct model *model, const uint8_t *syn, unsigned length, uint32_t cookie)
{
	struct model_packet packet = {.bytes = syn, .length = length};
	const uint16_t *table;
	unsigned mss, index = MSS_TABLE - 1;
	uint32_t base;

	if (model_parse_network(&packet) != GO_ON || model_parse_tcp(&packet) != GO_ON)
		return;
	mss = mss_of(syn + packet.tcp_at + 20, packet.option_bytes);
	if (!mss)
		mss = packet.ip6 ? MSS_DEFAULT6 : MSS_DEFAULT4;
	table = packet.ip6 ? mss_table6 : mss_table4;
	while (index && mss < table[index])
		index--;
	base = cookie - packet.seq - index;
	for (unsigned i = 0; i < model->cookie_count; i++) {
		const struct model_cookie *known = &model->cookies[i];

		if (known->base == base &&
			same_flow(&known->source, &known->destination, known->sport, known->dport, &packet))
			return;
	}
	if (model->cookie_count == MODEL_COOKIES) {
		model->overflow = true;
		return;
	}
	model->cookies[model->cookie_count++] = (struct model_cookie){.source = packet.source,
		.destination = packet.destination,
		.sport = packet.sport,
		.dport = packet.dport,
		.base = base};
}

bool model_cookie_is_good(const struct model *model, const struct model_packet *packet)
{
	for (unsigned i = 0; i < model->cookie_count; i++) {
		const struct model_cookie *known = &model->cookies[i];

		if (same_flow(&known->source, &known->destination, known->sport, known->dport, packet) &&
			(uint32_t)((packet->ack - 1) - (packet->seq - 1) - known->base) < MSS_TABLE)
			return true;
	}
	return false;
}

const struct model_socket *model_socket_of(const struct model *model, const struct model_packet *packet)
{
	for (unsigned i = 0; i < model->socket_count; i++) {
		const struct model_socket *known = &model->sockets[i];

		if (same_flow(&known->source, &known->destination, known->sport, known->dport, packet))
			return known;
	}
	return NULL;
}

bool model_socket_exists(const struct model *model, const struct model_packet *packet)
{
	return model_socket_of(model, packet) != NULL;
}

/* --- what became of a first segment --------------------------------------------------------------------------------------- */
static void name_of(const struct model *model, const struct model_packet *packet, uint64_t *slot, uint64_t *mark)
{
	struct sluice_addr source = model_addr_number(&packet->source),
			   destination = model_addr_number(&packet->destination);
	uint64_t hash = sluice_flow_hash(&source, &destination, packet->sport, packet->dport, model->rate_seed);

	*slot = hash % SLUICE_RECENT_SLOTS;
	*mark = hash >> 41;
}

#define BEHIND_TICKS 32 /* so much the coarse clock may be behind that of the note */

static uint32_t ticks(uint64_t now)
{
	return now / (1u << SLUICE_RECENT_SHIFT) % MODEL_RECENT_TICKS;
}

/* Has the client got something of the answer, to whose request he had acknowledged `before`? */
static bool has_seen_answer(uint32_t acknowledged, uint64_t before)
{
	uint64_t more = (acknowledged + 65536u - before) % 65536u;

	return more >= 1 && more <= SLUICE_ANSWER_MAX + 1; /* and a FIN */
}

enum model_past model_recent_find(struct model *model, const struct model_packet *packet)
{
	uint64_t slot, mark;

	name_of(model, packet, &slot, &mark);
	for (uint64_t i = 0; i < model->recent_count; i++) {
		const struct model_recent *known = &model->recent[i];
		uint32_t age = (ticks(model->clock.coarse) + MODEL_RECENT_TICKS - known->at) % MODEL_RECENT_TICKS;

		if (age >= MODEL_RECENT_TICKS - BEHIND_TICKS)
			age = 0;
		if (known->slot != slot || known->mark != mark)
			continue;
		if (!known->answered)
			return age <= SLUICE_RECENT_PASSED ? PAST_WENT_UP : PAST_UNKNOWN;
		return age <= SLUICE_RECENT_ANSWERED && has_seen_answer(packet->ack, known->acknowledged)
			? PAST_ANSWERED
			: PAST_UNKNOWN;
	}
	return PAST_UNKNOWN;
}

void model_recent_note(struct model *model, const struct model_packet *packet, bool answered, uint64_t now)
{
	struct model_recent *entry = NULL;
	uint64_t slot, mark;

	name_of(model, packet, &slot, &mark);
	for (uint64_t i = 0; i < model->recent_count; i++)
		if (model->recent[i].slot == slot)
			entry = &model->recent[i];
	if (!entry) {
		if (model->recent_count == MODEL_RECENT) {
			model->overflow = true;
			return;
		}
		entry = &model->recent[model->recent_count];
		model_set(model, &model->recent_count, model->recent_count + 1);
	}
	model_set(model, &entry->slot, slot);
	model_set(model, &entry->mark, mark);
	model_set(model, &entry->answered, answered);
	model_set(model, &entry->acknowledged, packet->ack % 65536);
	model_set_steps(model, &entry->at, ticks(now));
}
