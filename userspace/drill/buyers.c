/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Honest buyers. Each fetches a token before the opening, comes back at the opening with everybody else, and asks until there is a
 * final word. Some behave as people do: they click twice, lose the answer and try again, or want a second one.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "common/timefmt.h"
#include "drill/crowd_internal.h"

#define BUYER_LOSES_ANSWER 1u
#define BUYER_DOUBLE_CLICKS 2u
#define BUYER_GREEDY 4u
#define BUYER_SHARED 8u /* behind an address that many use */
#define BUYER_DONE 16u
#define BUYER_SECOND 32u /* holds another token than the first */

/* Shares in per cent. */
#define LOSING_SHARE 5
#define DOUBLE_SHARE 5
#define GREEDY_SHARE 2
#define SHARED_SHARE 3

#define TOKEN_TIMEOUT_MS 10000
#define ORDER_TIMEOUT_MS 10000
#define TOKEN_DESK_CLOSES_NS (1500 * NS_PER_MS) /* before the opening: nobody plans to be later */
#define LEAVE_AFTER_MAX_MS 30
#define FIRST_HALF 20 /* half of the buyers click within rush / 20 of the opening, the others within rush / 2 */
#define AGENT "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36"

static void ask_token(void *context, void *actor, uint32_t index);
static void ask_order(void *context, void *actor, uint32_t index);

static void later(struct drill_crowd *crowd, uint32_t index, uint64_t due_ns, drill_timer_fn fn)
{
	drill_engine_at(crowd->engine, due_ns, fn, NULL, index);
}

static void done_with(struct drill_crowd *crowd, uint32_t index)
{
	struct drill_buyer *buyer = &crowd->buyers[index];

	if (buyer->flags & BUYER_DONE)
		return;
	buyer->flags |= BUYER_DONE;
	crowd->buyers_done++;
}

/* What this buyer saw with the token that he holds now. */
static uint32_t slot(const struct drill_crowd *crowd, uint32_t index)
{
	return crowd->buyers[index].flags & BUYER_SECOND ? crowd->second_seen + index : index;
}

static void route(
	struct drill_crowd *crowd, uint32_t index, union drill_address *source, struct drill_exchange *exchange)
{
	enum drill_place place = crowd->buyers[index].flags & BUYER_SHARED ? DRILL_AT_SHARED : DRILL_AT_HOME;

	drill_crowd_route(crowd, place, index, drill_crowd_ipv6(crowd, index), source, exchange);
}

/* --- the token desk ---------------------------------------------------------------------------------------------------- */

/* The moment at which this buyer clicks. */
static uint64_t arrival(struct drill_crowd *crowd)
{
	uint64_t rush_ns = crowd->plan->rush_ms * NS_PER_MS;
	uint64_t within_ns = drill_random_below(crowd, 2) ? rush_ns / FIRST_HALF : rush_ns / 2;

	return crowd->opens_ns + drill_random(crowd) % (within_ns + 1);
}

static bool read_token(const struct drill_result *result, char *token)
{
	json_t *body = json_loadb(result->body, result->http.body_length, 0, NULL);
	const char *text = json_string_value(json_object_get(body, "token"));
	bool good = text && strlen(text) == SLUICE_TOKEN_TEXT;

	if (good)
		memcpy(token, text, SLUICE_TOKEN_TEXT + 1);
	json_decref(body);
	return good;
}

static void got_token(void *context, void *actor, uint32_t index, const struct drill_result *result)
{
	struct drill_crowd *crowd = context;
	struct drill_buyer *buyer = &crowd->buyers[index];
	struct drill_record *record = crowd->record;
	uint64_t now_ns = result->ended_ns;
	char code[DRILL_CODE_MAX], name[DRILL_CODE_MAX];
	uint64_t due_ns, id;

	(void)actor;
	if (result->outcome != DRILL_ANSWERED) {
		drill_tally_add(&record->token_answers, drill_outcome_name(result->outcome), 1);
		later(crowd, index, drill_crowd_patience(crowd, result), ask_token);
		return;
	}
	crowd->answers++;
	if (result->http.status == 201 || result->http.status == 200) {
		char token[SLUICE_TOKEN_TEXT + 1];

		drill_tally_add(&record->token_answers, result->http.status == 201 ? "issued" : "same_again", 1);
		if (!read_token(result, token)) {
			drill_tally_add(&record->token_answers, "without_token", 1);
			done_with(crowd, index);
			return;
		}
		if (buyer->token[0]) {
			/* a second round: the same token gives the same order again; another one has a story of its own */
			if (strcmp(buyer->token, token)) {
				drill_tally_add(&record->token_answers, "second_token", 1);
				buyer->flags |= BUYER_SECOND;
				memcpy(buyer->token, token, sizeof(token));
				drill_seen_token(&record->seen[slot(crowd, index)], token);
			}
			ask_order(context, NULL, index);
			return;
		}
		memcpy(buyer->token, token, sizeof(token));
		drill_seen_token(&record->seen[index], token);
		record->buyers_with_token++;
		due_ns = arrival(crowd);
		later(crowd, index, due_ns > now_ns ? due_ns : now_ns, ask_order);
		return;
	}
	drill_read_body(result, code, &id);
	drill_tally_add(&record->token_answers, drill_answer_name(result->http.status, code, name), 1);
	if (result->http.status == 429 || result->http.status == 503) {
		later(crowd, index, drill_crowd_patience(crowd, result), ask_token);
		return;
	}
	/* told at the desk: sold out, over, already ordered */
	if (drill_answer_is_final(drill_answer_of(result->http.status, code)) && !record->seen[index].answered) {
		record->seen[index].answered = true;
		record->buyers_answered++;
	}
	done_with(crowd, index);
}

static void ask_token(void *context, void *actor, uint32_t index)
{
	struct drill_crowd *crowd = context;
	const struct drill_plan *plan = crowd->plan;
	char body[128], request[DRILL_REQUEST_MAX];
	union drill_address source;
	struct drill_exchange exchange = {
		.request = request, .timeout_ms = TOKEN_TIMEOUT_MS, .done = got_token, .tag = index};
	int length;

	(void)actor;
	length =
		snprintf(body, sizeof(body), "{\"buyer\":\"drill-%016llx-%u\"}", (unsigned long long)plan->seed, index);
	length = snprintf(request, sizeof(request),
		"POST /v1/sales/%s/tokens HTTP/1.1\r\nHost: %s\r\nUser-Agent: " AGENT "\r\nAccept: application/json\r\n"
		"Content-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		plan->slug, plan->host, length, body);
	exchange.length = (size_t)length;
	route(crowd, index, &source, &exchange);
	if (drill_engine_start(crowd->engine, &exchange))
		later(crowd, index, time_mono_ns() + 20 * NS_PER_MS, ask_token);
}

/* --- the order ------------------------------------------------------------------------------------------------------------ */

static void keep_time(struct drill_times *times, const struct drill_result *result)
{
	if (times->count < times->capacity)
		times->ms[times->count++] = (float)((double)(result->ended_ns - result->started_ns) / 1e6);
}

static void note_times(struct drill_record *record, enum drill_answer answer, const struct drill_result *result)
{
	keep_time(answer == DRILL_CREATED || answer == DRILL_REPEATED || answer == DRILL_PENDING ? &record->admitted
												 : &record->refused,
		result);
}

/* Greedy people who have their order go to the desk again. */
static bool wants_more(struct drill_crowd *crowd, uint32_t index, const struct drill_seen *seen)
{
	struct drill_buyer *buyer = &crowd->buyers[index];

	if (!(buyer->flags & BUYER_GREEDY) || !seen->first_yes_mono_ns)
		return false;
	buyer->flags &= (uint8_t)~BUYER_GREEDY;
	crowd->record->second_tries++;
	later(crowd, index, time_mono_ns() + (100 + drill_random_below(crowd, 400)) * NS_PER_MS, ask_token);
	return true;
}

static void got_order(void *context, void *actor, uint32_t index, const struct drill_result *result)
{
	struct drill_crowd *crowd = context;
	struct drill_buyer *buyer = &crowd->buyers[index];
	struct drill_seen *seen = &crowd->record->seen[slot(crowd, index)];
	bool first = !(buyer->flags & BUYER_SECOND);
	bool was_answered = seen->answered, had_order = seen->created + seen->repeated != 0;
	enum drill_answer answer;

	(void)actor;
	buyer->in_flight--;
	if (result->outcome == DRILL_LEFT) {
		crowd->record->lost_answers++;
	} else if (result->outcome != DRILL_ANSWERED) {
		drill_tally_add(&crowd->record->buyer_answers, drill_outcome_name(result->outcome), 1);
	} else {
		answer = drill_crowd_note(crowd, slot(crowd, index), result, &crowd->record->buyer_answers);
		note_times(crowd->record, answer, result);
		if (first && !was_answered && seen->answered)
			crowd->record->buyers_answered++;
		if (first && !had_order && seen->created + seen->repeated) {
			crowd->record->buyers_ordered++;
			crowd->winners[crowd->winner_count++] = index;
		}
	}
	if (buyer->in_flight)
		return; /* the other click goes on from here */
	if (!seen->answered)
		later(crowd, index, drill_crowd_patience(crowd, result), ask_order);
	else if (!wants_more(crowd, index, seen))
		done_with(crowd, index);
}

static int start_order(struct drill_crowd *crowd, uint32_t index, bool leave)
{
	char request[DRILL_REQUEST_MAX];
	union drill_address source;
	struct drill_exchange exchange = {
		.request = request,
		.timeout_ms = ORDER_TIMEOUT_MS,
		.leave = leave,
		.leave_after_ms = leave ? drill_random_below(crowd, LEAVE_AFTER_MAX_MS) : 0,
		.done = got_order,
		.tag = index,
	};
	int err;

	exchange.length = drill_order_request(crowd, AGENT, crowd->buyers[index].token, request);
	route(crowd, index, &source, &exchange);
	err = drill_engine_start(crowd->engine, &exchange);
	if (!err) {
		if (!crowd->buyers[index].tries++)
			crowd->record->buyers_asked++;
		crowd->buyers[index].in_flight++;
	}
	return err;
}

static void ask_order(void *context, void *actor, uint32_t index)
{
	struct drill_crowd *crowd = context;
	struct drill_buyer *buyer = &crowd->buyers[index];
	bool loses = buyer->flags & BUYER_LOSES_ANSWER;

	(void)actor;
	if (start_order(crowd, index, loses)) {
		later(crowd, index, time_mono_ns() + 20 * NS_PER_MS, ask_order);
		return;
	}
	buyer->flags &= (uint8_t)~BUYER_LOSES_ANSWER;
	if (buyer->flags & BUYER_DOUBLE_CLICKS) {
		buyer->flags &= (uint8_t)~BUYER_DOUBLE_CLICKS;
		if (!start_order(crowd, index, false))
			crowd->record->double_clicks++;
	}
}

void drill_buyers_start(struct drill_crowd *crowd)
{
	const struct drill_plan *plan = crowd->plan;
	uint64_t desk_ns = crowd->opens_ns > crowd->begins_ns + TOKEN_DESK_CLOSES_NS + NS_PER_S
		? crowd->opens_ns - crowd->begins_ns - TOKEN_DESK_CLOSES_NS
		: NS_PER_S;

	for (uint32_t i = 0; i < plan->buyers; i++) {
		struct drill_buyer *buyer = &crowd->buyers[i];
		uint32_t habit = drill_random_below(crowd, 100);

		if (habit < LOSING_SHARE)
			buyer->flags |= BUYER_LOSES_ANSWER;
		else if (habit < LOSING_SHARE + DOUBLE_SHARE)
			buyer->flags |= BUYER_DOUBLE_CLICKS;
		else if (habit < LOSING_SHARE + DOUBLE_SHARE + GREEDY_SHARE)
			buyer->flags |= BUYER_GREEDY;
		if (drill_random_below(crowd, 100) < SHARED_SHARE)
			buyer->flags |= BUYER_SHARED;
		later(crowd, i, crowd->begins_ns + drill_random(crowd) % desk_ns, ask_token);
	}
}
