/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Sets the crowd up, runs it, shows progress on stderr, and counts; buyers.c and bots.c say who does what. See crowd.h. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/timefmt.h"
#include "drill/crowd_internal.h"
#include "drill/drill.h"
#include "drill/spoof.h"

#define CONNECTIONS_MAX 16384u
#define TIMES_PER_BUYER 8u /* kept; more than that is no typical buyer */
#define TICK_NS (100 * NS_PER_MS)
#define PLAIN_LINE_NS (2 * NS_PER_S)
#define IMPATIENCE 4 /* the crowd waits a quarter of what Retry-After asks for, so that a drill takes seconds */
#define PATIENCE_MIN_MS 250u
#define PATIENCE_JITTER_MS 250u
#define NO_ANSWER_WAIT_MS 400u

uint64_t drill_random(struct drill_crowd *crowd)
{
	uint64_t z = crowd->random += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

uint32_t drill_random_below(struct drill_crowd *crowd, uint32_t below)
{
	return (uint32_t)((drill_random(crowd) >> 32) * below >> 32);
}

bool drill_crowd_ipv6(const struct drill_crowd *crowd, uint32_t n)
{
	if (!crowd->plan->target4.any.sa_family)
		return true;
	return crowd->plan->target6.any.sa_family && drill_place_is_ipv6(n, crowd->plan->ipv6_share);
}

void drill_crowd_route(const struct drill_crowd *crowd, enum drill_place place, uint32_t n, bool ipv6,
	union drill_address *source, struct drill_exchange *exchange)
{
	exchange->target = ipv6 ? &crowd->plan->target6 : &crowd->plan->target4;
	exchange->source = NULL;
	if (!crowd->plan->own_network)
		return;
	drill_place_address(place, n, ipv6, source);
	exchange->source = source;
}

size_t drill_order_request(const struct drill_crowd *crowd, const char *agent, const char *token, char *out)
{
	int length = snprintf(out, DRILL_REQUEST_MAX,
		"POST /v1/orders/%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s\r\nAccept: */*\r\n\r\n", token,
		crowd->plan->host, agent);

	return length < DRILL_REQUEST_MAX ? (size_t)length : DRILL_REQUEST_MAX;
}

void drill_read_body(const struct drill_result *result, char *code, uint64_t *id)
{
	json_t *body = json_loadb(result->body, result->http.body_length, 0, NULL);
	const char *text = json_string_value(json_object_get(body, "code"));

	snprintf(code, DRILL_CODE_MAX, "%s", text ? text : "");
	text = json_string_value(json_object_get(body, "id"));
	*id = text ? strtoull(text, NULL, 16) : 0;
	json_decref(body);
}

const char *drill_outcome_name(enum drill_outcome outcome)
{
	static const char *const names[DRILL_OUTCOMES] = {
		[DRILL_ANSWERED] = "answered",
		[DRILL_TIMED_OUT] = "no_answer",
		[DRILL_RESET] = "reset",
		[DRILL_REFUSED] = "connection_refused",
		[DRILL_CUT_OFF] = "cut_off",
		[DRILL_NOT_HTTP] = "not_http",
		[DRILL_LEFT] = "left",
		[DRILL_LOCAL] = "local_error",
	};

	return names[outcome];
}

uint64_t drill_token_serial(const char *text)
{
	struct sluice_token token;

	return sluice_token_decode(text, &token) ? 0 : token.serial;
}

void drill_seen_token(struct drill_seen *seen, const char *token)
{
	seen->serial = drill_token_serial(token);
}

enum drill_answer drill_crowd_note(
	struct drill_crowd *crowd, uint32_t index, const struct drill_result *result, struct drill_tally *tally)
{
	struct drill_word word = {
		.started_mono_ns = result->started_ns,
		.ended_mono_ns = result->ended_ns,
		.ended_wall_ns = time_wall_ns(),
	};
	char code[DRILL_CODE_MAX], name[DRILL_CODE_MAX];

	drill_read_body(result, code, &word.order_id);
	word.answer = drill_answer_of(result->http.status, code);
	drill_tally_add(tally, drill_answer_name(result->http.status, code, name), 1);
	drill_seen_note(&crowd->record->seen[index], &word);
	crowd->answers++;
	return word.answer;
}

uint64_t drill_crowd_patience(struct drill_crowd *crowd, const struct drill_result *result)
{
	uint64_t wait_ms = NO_ANSWER_WAIT_MS;

	if (result->outcome == DRILL_ANSWERED && result->http.has_retry_after)
		wait_ms = (uint64_t)result->http.retry_after_s * 1000 / IMPATIENCE;
	if (wait_ms < PATIENCE_MIN_MS)
		wait_ms = PATIENCE_MIN_MS;
	return result->ended_ns + (wait_ms + drill_random_below(crowd, PATIENCE_JITTER_MS)) * NS_PER_MS;
}

/* --- progress ---------------------------------------------------------------------------------------------------------------- */

static void show_progress(struct drill_crowd *crowd, uint64_t now_ns)
{
	const struct drill_record *record = crowd->record;
	double at = ((double)now_ns - (double)crowd->opens_ns) / 1e9;

	fprintf(stderr,
		"%s%+6.1f s  %s  tokens %" PRIu32 "/%" PRIu32 "  answered %" PRIu32 "  ordered %" PRIu32
		"  bots %" PRIu32 "/%" PRIu32 "  open connections %" PRIu32 "%s",
		crowd->tty ? "\r\033[K" : "", at, at < 0 ? "before the opening" : "open", record->buyers_with_token,
		crowd->plan->buyers, record->buyers_answered, record->buyers_ordered, record->bot_attempts,
		crowd->plan->bots, drill_engine_stats(crowd->engine)->open, crowd->tty ? "" : "\n");
	fflush(stderr);
	crowd->shown = true;
}

static bool all_done(const struct drill_crowd *crowd, uint64_t now_ns)
{
	return now_ns >= crowd->opens_ns && crowd->buyers_done == crowd->plan->buyers && !crowd->bots_left &&
		!crowd->spoofed_due;
}

/* The rate of answers since the last call; the largest is kept. */
static void close_second(struct drill_crowd *crowd, uint64_t now_ns)
{
	double rate =
		(double)(crowd->answers - crowd->second_answers) * 1e9 / (double)(now_ns - crowd->second_start_ns);

	if (rate > crowd->record->peak_per_s)
		crowd->record->peak_per_s = rate;
	crowd->second_answers = crowd->answers;
	crowd->second_start_ns = now_ns;
}

static void tick(void *context, void *actor, uint32_t count)
{
	struct drill_crowd *crowd = context;
	uint64_t now_ns = time_mono_ns();
	uint64_t per_line = crowd->tty ? 2 : PLAIN_LINE_NS / TICK_NS;

	(void)actor;
	if (now_ns - crowd->second_start_ns >= NS_PER_S)
		close_second(crowd, now_ns);
	if (count % per_line == 0)
		show_progress(crowd, now_ns);
	if (drill_interrupted || all_done(crowd, now_ns)) {
		crowd->stop = 1;
		return;
	}
	drill_engine_at(crowd->engine, now_ns + TICK_NS, tick, NULL, count + 1);
}

/* --- the run -------------------------------------------------------------------------------------------------------------------- */

static uint32_t usable_kinds(const struct drill_plan *plan)
{
	uint32_t usable = (1u << DRILL_BOT_KIND_COUNT) - 1;

	if (!plan->account_count)
		usable &= ~(1u << DRILL_BOT_EARLY);
	if (!plan->account_count && !plan->buyers)
		usable &= ~(1u << DRILL_BOT_FORGED | 1u << DRILL_BOT_HAMMER);
	if (!plan->expired_count)
		usable &= ~(1u << DRILL_BOT_EXPIRED);
	if (!plan->ended_count)
		usable &= ~(1u << DRILL_BOT_ENDED);
	if (!plan->buyers)
		usable &= ~(1u << DRILL_BOT_REPEATED);
	if (!plan->denied)
		usable &= ~(1u << DRILL_BOT_DENIED);
	return usable;
}

static int times_new(struct drill_times *times, uint32_t capacity)
{
	times->ms = malloc((size_t)capacity * sizeof(*times->ms) + 1);
	times->capacity = times->ms ? capacity : 0;
	return times->ms ? 0 : -ENOMEM;
}

static int prepare(struct drill_crowd *crowd)
{
	const struct drill_plan *plan = crowd->plan;
	struct drill_record *record = crowd->record;
	uint32_t times = plan->buyers * TIMES_PER_BUYER;

	crowd->second_seen = plan->buyers + plan->account_count;
	record->seen_count = crowd->second_seen + plan->buyers;
	record->seen = calloc(record->seen_count + 1, sizeof(*record->seen));
	crowd->buyers = calloc(plan->buyers + 1, sizeof(*crowd->buyers));
	crowd->winners = calloc(plan->buyers + 1, sizeof(*crowd->winners));
	if (!record->seen || !crowd->buyers || !crowd->winners || times_new(&record->admitted, times) ||
		times_new(&record->refused, times)) {
		cli_say("not enough memory for a crowd of %" PRIu32 " buyers", plan->buyers);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < plan->account_count; i++)
		drill_seen_token(&record->seen[plan->buyers + i], plan->account_tokens[i]);
	crowd->engine = drill_engine_new(crowd, CONNECTIONS_MAX);
	if (!crowd->engine) {
		cli_say("cannot set up the crowd's sockets: %s", strerror(errno));
		return -errno;
	}
	if (plan->own_network && plan->spoofed) {
		crowd->spoof_fd = drill_spoof_open(plan->client_interface);
		if (crowd->spoof_fd < 0) {
			cli_say("cannot open a packet socket on %s for spoofed SYNs: %s", plan->client_interface,
				strerror(-crowd->spoof_fd));
			return crowd->spoof_fd;
		}
	}
	return 0;
}

static void set_clock(struct drill_crowd *crowd)
{
	uint64_t wall_ns = time_wall_ns();

	crowd->begins_ns = time_mono_ns();
	crowd->second_start_ns = crowd->begins_ns;
	/* a sale that is open already begins now */
	crowd->opens_ns = crowd->begins_ns;
	if (crowd->plan->opens_wall_ns > wall_ns)
		crowd->opens_ns += crowd->plan->opens_wall_ns - wall_ns;
	crowd->ends_ns = crowd->opens_ns + crowd->plan->seconds * NS_PER_S;
}

int drill_crowd_run(const struct drill_plan *plan, struct drill_record *record)
{
	struct drill_crowd crowd = {.plan = plan, .record = record, .random = plan->seed, .spoof_fd = -1};
	uint32_t shares[DRILL_BOT_KIND_COUNT];
	uint64_t now_ns;
	int err;

	memset(record, 0, sizeof(*record));
	crowd.tty = isatty(STDERR_FILENO);
	err = prepare(&crowd);
	if (err)
		goto out;
	set_clock(&crowd);
	drill_bot_shares(plan->bots, usable_kinds(plan), shares);
	drill_buyers_start(&crowd);
	drill_bots_start(&crowd, shares);
	drill_engine_at(crowd.engine, crowd.begins_ns, tick, NULL, 0);
	err = drill_engine_run(crowd.engine, crowd.ends_ns, &crowd.stop);
	now_ns = time_mono_ns();
	record->seconds = (double)(now_ns - crowd.begins_ns) / 1e9;
	record->interrupted = drill_interrupted;
	record->timed_out = !err && !record->interrupted && !all_done(&crowd, now_ns);
	record->net = *drill_engine_stats(crowd.engine);
	if (crowd.shown) {
		show_progress(&crowd, now_ns);
		if (crowd.tty)
			fputc('\n', stderr);
	}
	if (err)
		cli_say("the crowd could not go on: %s", strerror(-err));
out:
	if (crowd.spoof_fd >= 0)
		close(crowd.spoof_fd);
	drill_engine_free(crowd.engine);
	free(crowd.winners);
	free(crowd.buyers);
	return err;
}

void drill_record_free(struct drill_record *record)
{
	free(record->seen);
	free(record->admitted.ms);
	free(record->refused.ms);
	memset(record, 0, sizeof(*record));
}
