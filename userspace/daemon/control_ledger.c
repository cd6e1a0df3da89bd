/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* GET /v1/events/ledger: what becomes of orders and sales, as server-sent events (WHATWG HTML, section 9.2). The id of each is its position in the
 * ledger, and who comes again with Last-Event-ID goes on exactly behind it.
 *
 * A reader has a cursor and at most one page; it reads the ledger at its own pace, so a slow one loses nothing and holds up nobody.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/timefmt.h"
#include "daemon/control.h"
#include "daemon/http_stream.h"
#include "daemon/ledger_events.h"
#include "daemon/sales.h"

#define READERS_MAX 16
#define PAGE_LIMIT 100
/* All readers together ask no more often: who reads a million events over must not take the writer's and the pipeline's time from orders. A page for
 * which the writer had to look at many rows, because they are of other sales, takes longer turns: ten times what it cost, about.
 */
#define TURN_NS 10000000ULL
#define ROW_NS 5000ULL
#define ROWS_MAX 20000ULL /* as many as the writer looks at; positions have gaps */
#define LIMIT_MAX 1000000000ULL
#define RETRY_READERS_S 5
/* At the end of the ledger: so many looks, and then a word that the connection is alive. */
#define LOOKS 5
#define LOOK_NS 200000000ULL
#define NS_PER_S 1000000000ULL

struct ledger_stream {
	struct http_stream stream; /* first */
	struct daemon *d;
	uint32_t sale;  /* 0: all */
	uint64_t after; /* read up to here */
	uint64_t left;  /* events, and then the stream ends */
	json_t *events; /* the page in hand, and where in it */
	size_t at;
	bool has_greeted;
};

static atomic_uint readers;

static int write_event(struct ledger_stream *ledger, const json_t *json)
{
	struct ledger_event event;
	json_t *message;
	char *text;
	int length = -1;

	if (ledger_event_decode(json, &event))
		return -1;
	message = ledger_event_message(ledger->d, &event);
	text = message ? json_dumps(message, JSON_COMPACT) : NULL;
	if (text)
		length = snprintf(ledger->stream.text, sizeof(ledger->stream.text), "id: %llu\nevent: %s\ndata: %s\n\n",
			(unsigned long long)event.position, event.type, text);
	json_decref(message);
	free(text);
	ledger->left--;
	return length < (int)sizeof(ledger->stream.text) ? length : -1;
}

/* Takes the time from when nobody has it yet. Returns how long it is until then. */
static uint64_t reserve(uint64_t ns)
{
	static atomic_ullong free_ns; /* mono */
	unsigned long long from = atomic_load(&free_ns), start;
	uint64_t now = time_mono_ns();

	do
		start = from > now ? from : now;
	while (!atomic_compare_exchange_weak(&free_ns, &from, start + ns));
	return start - now;
}

static void rest(uint64_t ns)
{
	nanosleep(&(struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)}, NULL);
}

/* True if there is a page with something in it. While the writer is away there is none, and the reader waits. */
static bool read_page(struct ledger_stream *ledger)
{
	struct ledger_page page;
	uint64_t rows;

	rest(reserve(TURN_NS));
	if (ledger_events_read(ledger->d, ledger->sale, ledger->after, PAGE_LIMIT, &page))
		return false;
	rows = page.next > ledger->after ? page.next - ledger->after : 0;
	reserve((rows < ROWS_MAX ? rows : ROWS_MAX) * ROW_NS);
	json_decref(ledger->events);
	ledger->events = page.events;
	ledger->at = 0;
	ledger->after = page.next;
	return json_array_size(page.events);
}

static int fill(struct http_stream *stream)
{
	struct ledger_stream *ledger = (struct ledger_stream *)stream;

	if (!ledger->has_greeted) { /* so that the client sees at once that it is being served */
		ledger->has_greeted = true;
		return snprintf(
			stream->text, sizeof(stream->text), ": after %llu\n\n", (unsigned long long)ledger->after);
	}
	if (!ledger->left)
		return 0;
	for (int look = 0; look < LOOKS && ledger->at == json_array_size(ledger->events); look++) {
		if (atomic_load(&ledger->d->stopping))
			return 0;
		if (!read_page(ledger))
			rest(LOOK_NS);
	}
	if (ledger->at == json_array_size(ledger->events))
		return snprintf(stream->text, sizeof(stream->text), ": alive\n\n");
	return write_event(ledger, json_array_get(ledger->events, ledger->at++));
}

static void end(struct http_stream *stream)
{
	struct ledger_stream *ledger = (struct ledger_stream *)stream;

	json_decref(ledger->events);
	free(ledger);
	atomic_fetch_sub(&readers, 1);
}

static enum MHD_Result find_unknown(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
	const char **unknown = arg;

	(void)kind;
	(void)value;
	if (!strcmp(name, "sale") || !strcmp(name, "after") || !strcmp(name, "limit"))
		return MHD_YES;
	*unknown = name;
	return MHD_NO;
}

/* Digits, 0..max. */
static bool parse_position(const char *text, uint64_t max, uint64_t *value)
{
	size_t length = strlen(text);

	if (!length || length > 19 || strspn(text, "0123456789") != length)
		return false;
	*value = strtoull(text, NULL, 10);
	return *value <= max;
}

static bool read_number(struct http_request *request, const char *name, uint64_t min, uint64_t max, uint64_t *value,
	bool *given, enum MHD_Result *result)
{
	char text[24];
	int has = http_argument(request, name, text, sizeof(text));

	*given = has;
	if (!has || (has > 0 && parse_position(text, max, value) && *value >= min))
		return true;
	*result = http_problem_field(request, 422, "out_of_range", name, "%s must be a number from %llu to %llu.", name,
		(unsigned long long)min, (unsigned long long)max);
	return false;
}

/* Where to begin: behind the event that the client had last, or where it says, or with what happens from now on. */
static bool read_start(struct http_request *request, struct ledger_stream *ledger, enum MHD_Result *result)
{
	const char *last = http_header(request, "Last-Event-ID");
	struct pipeline_answer answer = {.code = "store_error", .detail = "its log says why"};
	bool given;

	if (!read_number(request, "after", 0, INT64_MAX, &ledger->after, &given, result))
		return false;
	if (last && *last) {
		if (parse_position(last, INT64_MAX, &ledger->after))
			return true;
		*result = http_problem(
			request, 400, "malformed_header", "Last-Event-ID must be the id of an event of this stream.");
		return false;
	}
	if (given)
		return true;
	answer.error = ledger_events_find_end(request->d, UINT64_MAX, &ledger->after);
	if (!answer.error)
		return true;
	*result = control_send_writer_error(request, &answer);
	return false;
}

static bool read_arguments(struct http_request *request, struct ledger_stream *ledger, enum MHD_Result *result)
{
	char slug[SALE_SLUG_MAX + 1];
	const char *unknown = NULL;
	struct sale sale;
	int has_sale;
	bool given;

	MHD_get_connection_values(request->connection, MHD_GET_ARGUMENT_KIND, find_unknown, &unknown);
	if (unknown) {
		*result = http_problem_field(
			request, 400, "unknown_field", unknown, "There is no argument \"%.64s\" here.", unknown);
		return false;
	}
	has_sale = http_argument(request, "sale", slug, sizeof(slug));
	if (has_sale && (has_sale < 0 || sales_find(request->d->sales, slug, &sale))) {
		*result = http_problem_field(request, 404, "unknown_sale", "sale", "There is no such sale.");
		return false;
	}
	ledger->sale = has_sale ? sale.id : 0;
	ledger->left = UINT64_MAX;
	return read_number(request, "limit", 1, LIMIT_MAX, &ledger->left, &given, result) &&
		read_start(request, ledger, result);
}

enum MHD_Result control_get_ledger_events(struct http_request *request)
{
	struct ledger_stream *ledger = calloc(1, sizeof(*ledger));
	enum MHD_Result result;

	if (!ledger)
		return http_problem(request, 500, "internal_error", "No memory.");
	if (atomic_fetch_add(&readers, 1) >= READERS_MAX) {
		end(&ledger->stream);
		return http_problem_retry(request, 503, "too_many_watchers", RETRY_READERS_S,
			"%d read the ledger's events already.", READERS_MAX);
	}
	ledger->d = request->d;
	if (!read_arguments(request, ledger, &result)) {
		end(&ledger->stream);
		return result;
	}
	ledger->stream.fill = fill;
	ledger->stream.end = end;
	return http_send_stream(request, "text/event-stream", &ledger->stream);
}
