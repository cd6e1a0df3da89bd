/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The bots: each kind of attempt comes at an even pace from its own addresses over its own span of time. None of them learns
 * anything from an answer, which is the worst case for the server: they never slow down.
 */
#include <stdio.h>
#include <string.h>

#include "common/timefmt.h"
#include "common/token.h"
#include "drill/crowd_internal.h"
#include "drill/spoof.h"

#define PACE_NS (5 * NS_PER_MS)
#define BURST_MAX 64 /* attempts of one kind at once, after a pause of this thread */
#define ANSWER_TIMEOUT_MS 3000
#define DENIED_TIMEOUT_MS 1500
#define SILENT_MIN_MS 500
#define SILENT_SPAN_MS 2000
#define QUIET_BEFORE_OPENING_NS (300 * NS_PER_MS) /* the early ones stop here, so that none of them is late */
#define HAMMER_BEFORE_NS (1000 * NS_PER_MS)
#define TOKEN_BITS (SLUICE_TOKEN_BYTES * 8)
#define AGENT "python-requests/2.31.0"

static const struct {
	const char *label, *text;
	uint32_t share;
} kinds[DRILL_BOT_KIND_COUNT] = {
#define X(name, label, share, text) [DRILL_BOT_##name] = {label, text, share},
	DRILL_BOT_KINDS(X)
#undef X
};

const char *drill_bot_label(enum drill_bot_kind kind)
{
	return kinds[kind].label;
}

const char *drill_bot_text(enum drill_bot_kind kind)
{
	return kinds[kind].text;
}

void drill_bot_shares(uint32_t total, uint32_t usable, uint32_t count[DRILL_BOT_KIND_COUNT])
{
	static const enum drill_bot_kind rest[] = {DRILL_BOT_FORGED, DRILL_BOT_MALFORMED, DRILL_BOT_NO_TOKEN};
	uint32_t given = 0;

	for (int kind = 0; kind < DRILL_BOT_KIND_COUNT; kind++) {
		count[kind] = usable & 1u << kind ? (uint32_t)((uint64_t)total * kinds[kind].share / 100) : 0;
		given += count[kind];
	}
	for (size_t i = 0; i < sizeof(rest) / sizeof(rest[0]); i++) {
		if (usable & 1u << rest[i]) {
			count[rest[i]] += total - given;
			return;
		}
	}
}

/* --- what they send --------------------------------------------------------------------------------------------------------- */

static void random_text(struct drill_crowd *crowd, const char *alphabet, size_t length, char *out)
{
	uint32_t size = (uint32_t)strlen(alphabet);

	for (size_t i = 0; i < length; i++)
		out[i] = alphabet[drill_random_below(crowd, size)];
	out[length] = '\0';
}

/* Wrong in a different way each time. `out` holds 128 bytes. */
static void malformed_token(struct drill_crowd *crowd, char *out)
{
	static const char base64url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

	switch (drill_random_below(crowd, 4)) {
	case 0:
		random_text(crowd, base64url, 1 + drill_random_below(crowd, SLUICE_TOKEN_TEXT - 1), out);
		break;
	case 1:
		random_text(crowd, base64url, SLUICE_TOKEN_TEXT + 1 + drill_random_below(crowd, 40), out);
		break;
	case 2:
		random_text(crowd, "!$&'()*+,;=:@~.0aZ", SLUICE_TOKEN_TEXT, out);
		break;
	default:
		random_text(crowd, base64url, SLUICE_TOKEN_TEXT, out);
		break;
	}
}

/* Some good token with one bit flipped. Returns false if nobody has one yet. */
static bool forged_token(struct drill_crowd *crowd, char *out)
{
	const struct drill_plan *plan = crowd->plan;
	const char *base = NULL;
	struct sluice_token token;
	uint32_t bit = drill_random_below(crowd, TOKEN_BITS);

	if (plan->account_count)
		base = plan->account_tokens[drill_random_below(crowd, plan->account_count)];
	else if (plan->buyers)
		base = crowd->buyers[drill_random_below(crowd, plan->buyers)].token;
	if (!base || !base[0] || sluice_token_decode(base, &token))
		return false;
	((uint8_t *)&token)[bit / 8] ^= (uint8_t)(1u << bit % 8);
	base64url_encode((const __u8 *)&token, sizeof(token), out);
	out[SLUICE_TOKEN_TEXT] = '\0';
	return true;
}

static size_t request_without_token(const struct drill_crowd *crowd, uint32_t n, char *out)
{
	static const char *const lines[] = {
		"POST /v1/orders/", "POST /v1/orders", "POST /v1/orders/?buy=1", "POST /v1/orders//"};

	return (size_t)snprintf(out, DRILL_REQUEST_MAX,
		"%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: " AGENT "\r\nAccept: */*\r\n\r\n", lines[n % 4],
		crowd->plan->host);
}

/* --- what they get ----------------------------------------------------------------------------------------------------------- */

static void bot_done(void *context, void *actor, uint32_t who, const struct drill_result *result)
{
	struct drill_crowd *crowd = context;
	struct drill_bot_line *line = actor;
	struct drill_record *record = crowd->record;
	struct drill_bots_seen *seen = &record->bots[line->kind];
	char code[DRILL_CODE_MAX], name[DRILL_CODE_MAX];
	uint64_t id;

	crowd->bots_left--;
	if (result->outcome != DRILL_ANSWERED) {
		seen->unanswered++;
		return;
	}
	if (line->kind == DRILL_BOT_EARLY || line->kind == DRILL_BOT_REPEATED) {
		/* good tokens: what these are told is part of the token's story */
		drill_crowd_note(crowd, who, result, &seen->answers);
		return;
	}
	crowd->answers++;
	drill_read_body(result, code, &id);
	drill_tally_add(&seen->answers, drill_answer_name(result->http.status, code, name), 1);
	if (result->http.status < 300)
		record->intruders.admitted++;
	if (line->kind == DRILL_BOT_DENIED)
		record->intruders.denied_answered++;
}

/* Prepares the nth attempt. Returns false if what it needs is not there yet. `who` is the place of the token in record->seen. */
static bool prepare(struct drill_crowd *crowd, const struct drill_bot_line *line, uint32_t n,
	struct drill_exchange *exchange, char *request, uint32_t *who)
{
	const struct drill_plan *plan = crowd->plan;
	char token[128];
	uint32_t pick;

	*who = 0;
	switch (line->kind) {
	case DRILL_BOT_EARLY:
		pick = n % plan->account_count;
		*who = plan->buyers + pick;
		memcpy(token, plan->account_tokens[pick], SLUICE_TOKEN_TEXT + 1);
		break;
	case DRILL_BOT_EXPIRED:
		memcpy(token, plan->expired_tokens[n % plan->expired_count], SLUICE_TOKEN_TEXT + 1);
		break;
	case DRILL_BOT_ENDED:
		memcpy(token, plan->ended_tokens[n % plan->ended_count], SLUICE_TOKEN_TEXT + 1);
		break;
	case DRILL_BOT_REPEATED:
		if (!crowd->winner_count)
			return false;
		*who = crowd->winners[drill_random_below(crowd, crowd->winner_count)];
		memcpy(token, crowd->buyers[*who].token, SLUICE_TOKEN_TEXT + 1);
		if (crowd->record->seen[*who].serial != drill_token_serial(token))
			return false; /* has a second token by now; another one is drawn next time */
		break;
	case DRILL_BOT_FORGED:
	case DRILL_BOT_HAMMER:
		if (!forged_token(crowd, token))
			return false;
		break;
	case DRILL_BOT_SILENT:
		exchange->timeout_ms = SILENT_MIN_MS + drill_random_below(crowd, SILENT_SPAN_MS);
		return true;
	case DRILL_BOT_NO_TOKEN:
		exchange->length = request_without_token(crowd, n, request);
		return true;
	default:
		malformed_token(crowd, token);
		break;
	}
	exchange->length = drill_order_request(crowd, AGENT, token, request);
	return true;
}

static enum drill_place place_of(enum drill_bot_kind kind)
{
	switch (kind) {
	case DRILL_BOT_HAMMER:
		return DRILL_AT_HAMMER;
	case DRILL_BOT_DENIED:
		return DRILL_AT_DENIED;
	default:
		return DRILL_AT_BOT;
	}
}

static bool attempt(struct drill_crowd *crowd, struct drill_bot_line *line)
{
	uint32_t n = line->next, who, home;
	char request[DRILL_REQUEST_MAX];
	union drill_address source;
	struct drill_exchange exchange = {
		.request = request,
		.timeout_ms = line->kind == DRILL_BOT_DENIED ? DENIED_TIMEOUT_MS : ANSWER_TIMEOUT_MS,
		.done = bot_done,
		.actor = line,
	};

	if (!prepare(crowd, line, n, &exchange, request, &who))
		return false;
	exchange.tag = who;
	home = line->kind == DRILL_BOT_HAMMER ? n : drill_random_below(crowd, UINT32_MAX);
	drill_crowd_route(crowd, place_of(line->kind), home, drill_crowd_ipv6(crowd, n), &source, &exchange);
	if (drill_engine_start(crowd->engine, &exchange))
		return false;
	line->next++;
	crowd->record->bots[line->kind].attempts++;
	crowd->record->bot_attempts++;
	return true;
}

/* What has not been tried before the opening never will be; and a sale without an order has no token to repeat. */
static bool hopeless(const struct drill_crowd *crowd, const struct drill_bot_line *line, uint64_t now_ns)
{
	if (line->kind == DRILL_BOT_EARLY)
		return now_ns >= line->to_ns;
	return line->kind == DRILL_BOT_REPEATED && !crowd->winner_count && crowd->buyers_done == crowd->plan->buyers;
}

static void line_tick(void *context, void *actor, uint32_t tag)
{
	struct drill_crowd *crowd = context;
	struct drill_bot_line *line = actor;
	uint64_t now_ns = time_mono_ns();
	uint64_t due = line->count;

	if (now_ns < line->to_ns)
		due = (uint64_t)((double)line->count * (double)(now_ns - line->from_ns) /
			(double)(line->to_ns - line->from_ns));
	for (int i = 0; i < BURST_MAX && line->next < due; i++) {
		if (!attempt(crowd, line))
			break;
	}
	if (line->next < line->count && hopeless(crowd, line, now_ns)) {
		crowd->bots_left -= line->count - line->next;
		line->count = line->next;
	}
	if (line->next < line->count)
		drill_engine_at(crowd->engine, now_ns + PACE_NS, line_tick, line, tag);
}

/* --- spoofed SYNs -------------------------------------------------------------------------------------------------------------- */

static void spoof_one(struct drill_crowd *crowd)
{
	const struct drill_plan *plan = crowd->plan;
	bool ipv6 = drill_crowd_ipv6(crowd, (uint32_t)crowd->record->spoofed_sent);
	const union drill_address *to = ipv6 ? &plan->target6 : &plan->target4;
	uint8_t frame[DRILL_FRAME_MAX];
	union drill_address from;
	uint64_t random = drill_random(crowd);
	in_port_t port = (in_port_t)(random >> 48 | 0x0400);
	size_t length;

	drill_place_address(DRILL_AT_NOWHERE, (uint32_t)random, ipv6, &from);
	if (ipv6)
		from.v6.sin6_port = port;
	else
		from.v4.sin_port = port;
	length = drill_spoof_frame(frame, plan->server_mac, plan->client_mac, &from, to, (uint32_t)(random >> 16));
	if (!drill_spoof_send(crowd->spoof_fd, frame, length))
		crowd->record->spoofed_sent++;
	crowd->spoofed_due--;
}

static void spoof_tick(void *context, void *actor, uint32_t tag)
{
	struct drill_crowd *crowd = context;
	uint64_t now_ns = time_mono_ns(), left = 0;

	(void)actor;
	if (now_ns < crowd->spoof_to_ns)
		left = (uint64_t)((double)crowd->plan->spoofed * (double)(crowd->spoof_to_ns - now_ns) /
			(double)(crowd->spoof_to_ns - crowd->spoof_from_ns));
	for (int i = 0; i < BURST_MAX && crowd->spoofed_due > left; i++)
		spoof_one(crowd);
	if (crowd->spoofed_due)
		drill_engine_at(crowd->engine, now_ns + PACE_NS, spoof_tick, NULL, tag);
}

void drill_bots_start(struct drill_crowd *crowd, const uint32_t count[DRILL_BOT_KIND_COUNT])
{
	uint64_t lead_ns = crowd->opens_ns - crowd->begins_ns, rush_ns = crowd->plan->rush_ms * NS_PER_MS;

	for (int kind = 0; kind < DRILL_BOT_KIND_COUNT; kind++) {
		struct drill_bot_line *line = &crowd->line[kind];

		line->kind = (enum drill_bot_kind)kind;
		line->count = crowd->record->bots[kind].planned = count[kind];
		line->from_ns = crowd->begins_ns + lead_ns / 2;
		line->to_ns = crowd->opens_ns + rush_ns;
		if (kind == DRILL_BOT_EARLY) {
			line->from_ns = crowd->begins_ns + lead_ns / 10;
			line->to_ns = crowd->opens_ns > line->from_ns + 2 * QUIET_BEFORE_OPENING_NS
				? crowd->opens_ns - QUIET_BEFORE_OPENING_NS
				: line->from_ns + 1;
		} else if (kind == DRILL_BOT_REPEATED || kind == DRILL_BOT_EXPIRED) {
			line->from_ns = crowd->opens_ns; /* earlier, every good token is told the same: not open yet */
		} else if (kind == DRILL_BOT_HAMMER) {
			line->from_ns = crowd->opens_ns > crowd->begins_ns + HAMMER_BEFORE_NS
				? crowd->opens_ns - HAMMER_BEFORE_NS
				: crowd->begins_ns;
			line->to_ns = crowd->opens_ns + rush_ns / 2;
		}
		if (!line->count)
			continue;
		crowd->bots_left += line->count;
		drill_engine_at(crowd->engine, line->from_ns, line_tick, line, 0);
	}
	if (crowd->spoof_fd >= 0 && crowd->plan->spoofed) {
		crowd->spoofed_due = crowd->plan->spoofed;
		crowd->spoof_from_ns = crowd->begins_ns + lead_ns / 2;
		crowd->spoof_to_ns = crowd->opens_ns + rush_ns;
		drill_engine_at(crowd->engine, crowd->spoof_from_ns, spoof_tick, NULL, 0);
	}
}
