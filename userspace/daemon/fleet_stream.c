/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* From the ledger into the streams: a part of the fleet's rounds; see fleet_stream.h, and docs/stream.md for what it promises.
 *
 * The ledger is asked by pipeline_tell, one page at a time, so nothing here waits: the answer is put down by the pipeline's thread, and taken
 * apart on the fleet's. Which events are wanted is decided in fleet_stream_table.c. Whatever goes wrong with a call of a sale ends in the
 * same: its queue is forgotten, Redis is asked how far it is, and the ledger is read again from there.
 */
#include "daemon/fleet_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/fleet_stream_table.h"
#include "daemon/pipeline.h"
#include "daemon/sales.h"

#define MS 1000000ULL
#define SECOND (1000 * MS)
/* A call goes out when so many events of a sale are waiting, or so long after the first of them. */
#define BATCH_EVENTS 1000
#define BATCH_NS (2 * SECOND)
#define BATCH_MAX 1000 /* events in a call: some 0.4 MB */
/* Between two pages: with more behind it, and without. What the writer and the pipeline do for it they do not do for orders. */
#define READ_BUSY_NS (20 * MS)
#define READ_REST_NS (200 * MS)
#define AWAY_NS (500 * MS)
/* How often Redis is asked how far a stream is, which is also when it is trimmed: one that grows, one that does not, one that could not be asked.
 * It is how a loss is found of which no call has told.
 */
#define LOOK_BUSY_NS (20 * SECOND)
#define LOOK_IDLE_NS (60 * SECOND)
#define LOOKS_MAX 50   /* in a round */
#define TRIM_MAX 10000 /* entries removed by one call: some ms of Redis */
/* Where the walks are is noted so often, for the next start. */
#define NOTE_NS (30 * SECOND)
#define NOTES_MAX 500 /* sales in a call */
#define ANNOUNCED_MAX 100
/* Entries of a stream that nobody reads, beyond which that is worth a line in the log. */
#define UNREAD_MANY 1000000
#define STEP_NS (200 * MS)
#define NOTHING_NS (3600 * SECOND) /* without streams */

/* Names in the notes that no slug can have. */
#define NOTE_END ".end"
#define NOTE_SALES ".sales"

struct streams {
	pthread_mutex_t lock; /* what follows; not held while anything waits */
	struct stream_table table;
	struct pipeline_hooks hooks;
	bool has_notes, is_checked; /* the notes were read; they are of this ledger */
	bool is_asking_notes, is_leaving, is_ended, is_failing;
	uint64_t notes_ns, read_ns, note_ns, noted_end; /* mono: not before; what `end` is in the notes */
	uint64_t reconnects;
	bool is_asked; /* for a page of `walk` */
	enum stream_walk_id walk;
	uint64_t asked_after;
	uint64_t durable; /* orders when the live walk was at the ledger's end */
	uint64_t end_ns;  /* wall: when that was */
	uint64_t appended, calls, failures, trimmed, ahead;

	/* Between the pipeline's thread and the fleet's. */
	pthread_mutex_t page_lock;
	bool is_answered;
	json_t *answer; /* NULL: the writer is away */
};

static struct streams streams = {.lock = PTHREAD_MUTEX_INITIALIZER, .page_lock = PTHREAD_MUTEX_INITIALIZER};

static const char *slug_of(struct daemon *d, const struct stream_sale *sale, struct sale *known)
{
	if (sales_find_id(d->sales, sale->id, known))
		known->slug[0] = '\0';
	return known->slug;
}

static const char *node_text(struct daemon *d, char text[16])
{
	snprintf(text, 16, "%u", d->config.fleet.node);
	return text;
}

static const char *position_text(uint64_t position, char text[24])
{
	snprintf(text, 24, "%llu", (unsigned long long)position);
	return text;
}

/* --- what calls answer ------------------------------------------------------------------------------------------------------ */
static bool is_integers(const redisReply *reply, size_t count)
{
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != count)
		return false;
	for (size_t i = 0; i < count; i++)
		if (reply->element[i]->type != REDIS_REPLY_INTEGER || reply->element[i]->integer < 0)
			return false;
	return true;
}

/* Says so once, until it works again. */
static void note_failure(struct daemon *d, const struct stream_sale *sale, int error, const redisReply *reply)
{
	struct sale known;

	streams.failures++;
	if (streams.is_failing)
		return;
	streams.is_failing = true;
	if (error == -EREMOTEIO && reply && reply->type == REDIS_REPLY_ERROR)
		log_error("Redis refuses the stream of sale %s: %s; its events wait in the ledger",
			slug_of(d, sale, &known), reply->str);
	else
		log_warn("the order streams wait: Redis %s; events stay in the ledger until then",
			error == -ETIMEDOUT ? "does not answer in time" : "cannot be reached");
}

static void failed(struct daemon *d, struct stream_sale *sale, int error, const redisReply *reply)
{
	note_failure(d, sale, error ? error : -EPROTO, reply);
	stream_table_drop(&streams.table, sale);
	sale->look_ns = time_mono_ns() + (error == -ENOTCONN ? AWAY_NS : SECOND);
}

static void tell_anew(void)
{
	for (unsigned i = 0; i < streams.table.count; i++)
		streams.table.sales[i]->is_announced = streams.table.sales[i]->is_noted = false;
}

static void told(struct daemon *d, struct stream_sale *sale, uint64_t cursor)
{
	uint64_t before = sale->acked, losses = streams.table.losses;
	struct sale known;

	stream_table_told(&streams.table, sale, cursor);
	if (streams.is_failing)
		log_info("the order streams go on");
	streams.is_failing = false;
	if (streams.table.losses == losses)
		return;
	log_warn(
		"Redis has lost a part of the stream of sale %s: it ends at position %llu of this node's ledger and did at %llu; "
		"what is missing is appended again",
		slug_of(d, sale, &known), (unsigned long long)cursor, (unsigned long long)before);
	tell_anew(); /* other keys may be gone too */
}

static void appended(struct daemon *d, void *arg, int error, const redisReply *reply)
{
	struct stream_sale *sale = arg;
	uint64_t now = time_mono_ns();

	pthread_mutex_lock(&streams.lock);
	streams.calls++;
	if (error || !is_integers(reply, 2)) {
		failed(d, sale, error, reply);
	} else {
		streams.appended += (uint64_t)reply->element[1]->integer;
		told(d, sale, (uint64_t)reply->element[0]->integer);
		if (sale->look_ns > now + LOOK_BUSY_NS)
			sale->look_ns = now + LOOK_BUSY_NS;
	}
	pthread_mutex_unlock(&streams.lock);
}

static void warn_of_no_reader(struct daemon *d, struct stream_sale *sale)
{
	struct sale known;

	if (sale->groups || sale->length < UNREAD_MANY || sale->length <= d->config.fleet.stream_keep) {
		sale->is_warned = false;
	} else if (!sale->is_warned) {
		sale->is_warned = true;
		log_warn(
			"the stream of sale %s has %llu entries and no consumer group, so it is not trimmed: start a consumer, or set fleet.stream = false",
			slug_of(d, sale, &known), (unsigned long long)sale->length);
	}
}

static void looked(struct daemon *d, void *arg, int error, const redisReply *reply)
{
	struct stream_sale *sale = arg;
	uint64_t removed;

	pthread_mutex_lock(&streams.lock);
	streams.calls++;
	if (error || !is_integers(reply, 5)) {
		failed(d, sale, error, reply);
	} else {
		told(d, sale, (uint64_t)reply->element[0]->integer);
		sale->length = (uint64_t)reply->element[1]->integer;
		removed = (uint64_t)reply->element[2]->integer;
		sale->groups = (uint64_t)reply->element[3]->integer;
		sale->waiting = (uint64_t)reply->element[4]->integer;
		streams.trimmed += removed;
		warn_of_no_reader(d, sale);
		if (removed > TRIM_MAX / 2) /* there is probably more */
			sale->look_ns = time_mono_ns() + READ_REST_NS;
	}
	pthread_mutex_unlock(&streams.lock);
}

/* An announcement or the notes came: where not all of it did, all of both is told again, which does no harm. */
static void put_down(struct daemon *d, void *arg, int error, const redisReply *reply)
{
	(void)d;
	(void)arg;
	(void)reply;
	if (!error)
		return;
	pthread_mutex_lock(&streams.lock);
	tell_anew();
	streams.noted_end = 0;
	pthread_mutex_unlock(&streams.lock);
}

/* --- the notes ------------------------------------------------------------------------------------------------------------- */
/* The position in a reply; 0 if it is none. */
static uint64_t position_of(const redisReply *reply)
{
	return reply->type == REDIS_REPLY_STRING ? strtoull(reply->str, NULL, 10) : 0;
}

/* Returns where the live walk begins: 0 if the notes do not name every sale that they once named, or one that this ledger has not. */
static uint64_t take_notes(struct daemon *d, const redisReply *reply)
{
	uint64_t end = 0, sales = 0, found = 0;
	struct stream_sale *sale;
	struct sale known;

	for (size_t i = 0; i + 1 < reply->elements; i += 2) {
		const redisReply *name = reply->element[i], *value = reply->element[i + 1];

		if (!strcmp(name->str, NOTE_END)) {
			end = position_of(value);
		} else if (!strcmp(name->str, NOTE_SALES)) {
			sales = position_of(value);
		} else if (!sales_find(d->sales, name->str, &known)) {
			sale = stream_table_sale(&streams.table, known.id);
			if (!sale)
				return 0;
			sale->last = position_of(value);
			sale->is_noted = true;
			found++;
		}
	}
	return found == sales ? end : 0;
}

static void forget_notes(void)
{
	for (unsigned i = 0; i < streams.table.count; i++) {
		streams.table.sales[i]->last = 0;
		streams.table.sales[i]->is_noted = false;
	}
	stream_table_begin(&streams.table, 0);
	streams.is_checked = true;
}

static void notes_came(struct daemon *d, void *arg, int error, const redisReply *reply)
{
	uint64_t end;

	(void)arg;
	pthread_mutex_lock(&streams.lock);
	streams.is_asking_notes = false;
	streams.calls++;
	if (error || reply->type != REDIS_REPLY_ARRAY) {
		streams.notes_ns = time_mono_ns() + AWAY_NS;
	} else {
		end = take_notes(d, reply);
		streams.has_notes = true;
		streams.noted_end = end;
		/* The last position that was looked at must be there: else this is not the ledger that the notes are of. */
		if (end)
			stream_table_begin(&streams.table, end - 1);
		else
			forget_notes();
	}
	pthread_mutex_unlock(&streams.lock);
}

static const char *notes_key(struct daemon *d, char *key)
{
	char name[32];

	snprintf(name, sizeof(name), "stream.%u", d->config.fleet.node);
	return fleet_key(d, name, key);
}

static bool ask_notes(struct daemon *d, struct fleet_round *round, uint64_t now)
{
	char key[FLEET_KEY_MAX];
	const char *words[] = {"HGETALL", notes_key(d, key)};

	if (streams.has_notes || streams.is_asking_notes || now < streams.notes_ns)
		return true;
	streams.is_asking_notes = fleet_command(round, words[1], words, 2, notes_came, NULL);
	return streams.is_asking_notes;
}

/* The end only with the last sale that is not noted, so that the notes are never ahead of themselves. */
static bool write_notes(struct daemon *d, struct fleet_round *round, uint64_t now)
{
	static const char *words[2 + 2 * (NOTES_MAX + 2)];
	static char slugs[NOTES_MAX][SALE_SLUG_MAX + 1], values[NOTES_MAX + 2][24];
	char key[FLEET_KEY_MAX];
	unsigned count = 2, of_sales = 0, notes = 0, left = 0;
	struct sale known;

	if (!streams.is_checked || (now < streams.note_ns && !streams.is_leaving))
		return true;
	for (unsigned i = 0; i < streams.table.count; i++) {
		struct stream_sale *sale = streams.table.sales[i];

		of_sales += sale->last > 0;
		if (sale->is_noted || !sale->last)
			continue;
		if (notes == NOTES_MAX) {
			left++;
			continue;
		}
		snprintf(slugs[notes], sizeof(slugs[0]), "%s", slug_of(d, sale, &known));
		words[count++] = slugs[notes];
		words[count++] = position_text(sale->last, values[notes++]);
		sale->is_noted = true;
	}
	if (!left && (notes || streams.noted_end != streams.table.end)) {
		words[count++] = NOTE_END;
		words[count++] = position_text(streams.table.end, values[notes]);
		words[count++] = NOTE_SALES;
		words[count++] = position_text(of_sales, values[notes + 1]);
	}
	streams.note_ns = left ? now : now + NOTE_NS;
	if (count == 2)
		return true;
	words[0] = "HSET";
	words[1] = notes_key(d, key);
	if (!left)
		streams.noted_end = streams.table.end;
	if (fleet_command(round, words[1], words, count, put_down, NULL))
		return true;
	for (unsigned i = 0; i < streams.table.count; i++)
		streams.table.sales[i]->is_noted = false;
	streams.noted_end = 0;
	streams.note_ns = now;
	return false;
}

/* --- reading the ledger ------------------------------------------------------------------------------------------------------ */
static void page_came(struct daemon *d, void *arg, const struct pipeline_answer *answer)
{
	(void)arg;
	pthread_mutex_lock(&streams.page_lock);
	streams.is_answered = true;
	streams.answer = answer->error ? NULL : json_incref(answer->json);
	pthread_mutex_unlock(&streams.page_lock);
	fleet_wake(d);
}

static struct stream_event *make_event(struct daemon *d, const struct ledger_event *from)
{
	char *text = fleet_stream_entry_text(d, from);
	size_t length = text ? strlen(text) + 1 : 0;
	struct stream_event *event = text ? malloc(sizeof(*event) + length) : NULL;

	if (event) {
		*event = (struct stream_event){
			.position = from->position, .at_ns = from->at_ns, .got_ns = time_mono_ns()};
		memcpy(event->fields, text, length);
	}
	free(text);
	return event;
}

/* Returns 0 or -ENOMEM. */
static int meet(struct daemon *d, const struct ledger_event *event)
{
	struct stream_sale *sale = stream_table_sale(&streams.table, event->sale);
	struct stream_event *made;

	if (!sale)
		return -ENOMEM;
	if (!stream_table_meet(&streams.table, streams.walk, sale, event->position, event->at_ns))
		return 0;
	made = make_event(d, event);
	if (!made)
		return -ENOMEM;
	stream_table_put(&streams.table, sale, made);
	return 0;
}

/* The first page begins with the event up to which the notes go, if they are of this ledger. */
static bool check_notes(const struct ledger_page *page)
{
	struct ledger_event first = {.position = 0};

	if (json_array_size(page->events))
		ledger_event_decode(json_array_get(page->events, 0), &first);
	if (first.position == streams.asked_after + 1)
		return true;
	log_warn(
		"this node's ledger is not the one that its streams were made of so far: it is read from its beginning");
	forget_notes();
	return false;
}

static void take_events(struct daemon *d, const struct ledger_page *page)
{
	uint64_t done = streams.asked_after;
	struct pipeline_status status;
	struct ledger_event event;
	json_t *json;
	size_t i;

	json_array_foreach(page->events, i, json) {
		if (ledger_event_decode(json, &event) || meet(d, &event)) {
			/* No memory: from here once more, later. */
			stream_table_walked(&streams.table, streams.walk, done, true);
			streams.read_ns = time_mono_ns() + AWAY_NS;
			return;
		}
		done = event.position;
	}
	stream_table_walked(&streams.table, streams.walk, page->next, page->more);
	if (streams.walk != STREAM_LIVE || page->more)
		return;
	pipeline_status(d->pipeline, &status);
	streams.durable = status.durable;
	streams.end_ns = time_wall_ns();
}

static void take_page(struct daemon *d, uint64_t now)
{
	struct ledger_page page;
	json_t *answer;

	pthread_mutex_lock(&streams.page_lock);
	if (!streams.is_answered) {
		pthread_mutex_unlock(&streams.page_lock);
		return;
	}
	answer = streams.answer;
	streams.answer = NULL;
	streams.is_answered = false;
	pthread_mutex_unlock(&streams.page_lock);
	streams.is_asked = false;
	streams.read_ns = now + AWAY_NS;
	if (answer && !ledger_events_take(answer, streams.asked_after, &page)) {
		streams.read_ns = now + (page.more ? READ_BUSY_NS : READ_REST_NS);
		if (streams.is_checked || check_notes(&page)) {
			streams.is_checked = true;
			take_events(d, &page);
		}
		json_decref(page.events);
	}
	json_decref(answer);
}

/* By turns, if both walks have something to read. */
static bool choose_walk(void)
{
	enum stream_walk_id other = streams.walk == STREAM_LIVE ? STREAM_BEHIND : STREAM_LIVE;

	stream_table_lead(&streams.table);
	if (stream_table_has_room(&streams.table, other))
		streams.walk = other;
	return stream_table_has_room(&streams.table, streams.walk);
}

static void read_on(struct daemon *d, uint64_t now)
{
	json_t *question;

	if (streams.is_asked || now < streams.read_ns || !streams.has_notes)
		return;
	if (streams.is_checked && !choose_walk())
		return;
	streams.asked_after = streams.table.walks[streams.walk].position;
	question = ledger_events_question(0, streams.asked_after, STREAM_PAGE);
	if (!question)
		return;
	streams.is_asked = true;
	streams.hooks.complete = page_came;
	/* Without memory nobody will call; asked again later. */
	if (pipeline_tell(d->pipeline, question, &streams.hooks, NULL)) {
		streams.is_asked = false;
		streams.read_ns = now + AWAY_NS;
	}
}

/* --- calls ---------------------------------------------------------------------------------------------------------------- */
static bool append(struct daemon *d, struct fleet_round *round, struct stream_sale *sale)
{
	static const char *arguments[2 + 2 * BATCH_MAX];
	static char positions[BATCH_MAX][24];
	char stream[FLEET_KEY_MAX], cursors[FLEET_KEY_MAX], node[16], after[24];
	struct sale known;
	const char *slug = slug_of(d, sale, &known);
	const char *keys[] = {fleet_sale_key(d, slug, "orders", stream), fleet_sale_key(d, slug, "cursors", cursors)};
	unsigned count = 2, events = 0;

	arguments[0] = node_text(d, node);
	arguments[1] = position_text(sale->acked, after);
	for (struct stream_event *event = sale->head; event && events < BATCH_MAX; event = event->next) {
		arguments[count++] = position_text(event->position, positions[events++]);
		arguments[count++] = event->fields;
	}
	return fleet_script(round, "stream_append", keys, 2, arguments, count, appended, sale);
}

static bool look(struct daemon *d, struct fleet_round *round, struct stream_sale *sale)
{
	char stream[FLEET_KEY_MAX], cursors[FLEET_KEY_MAX], node[16], keep[24], most[24];
	struct sale known;
	const char *slug = slug_of(d, sale, &known);
	const char *keys[] = {fleet_sale_key(d, slug, "orders", stream), fleet_sale_key(d, slug, "cursors", cursors)};
	const char *arguments[] = {
		node_text(d, node), position_text(d->config.fleet.stream_keep, keep), position_text(TRIM_MAX, most)};

	return fleet_script(round, "stream_trim", keys, 2, arguments, 3, looked, sale);
}

static bool announce(struct daemon *d, struct fleet_round *round)
{
	static const char *words[2 + ANNOUNCED_MAX];
	static char slugs[ANNOUNCED_MAX][SALE_SLUG_MAX + 1];
	struct stream_sale *sales[ANNOUNCED_MAX];
	char key[FLEET_KEY_MAX];
	unsigned count = 0;
	struct sale known;

	for (unsigned i = 0; i < streams.table.count && count < ANNOUNCED_MAX; i++) {
		struct stream_sale *sale = streams.table.sales[i];

		if (sale->is_announced || sale->is_away || !sale->last)
			continue;
		snprintf(slugs[count], sizeof(slugs[0]), "%s", slug_of(d, sale, &known));
		words[2 + count] = slugs[count];
		sales[count++] = sale;
	}
	if (!count)
		return true;
	words[0] = "SADD";
	words[1] = fleet_key(d, "streams", key);
	if (!fleet_command(round, words[1], words, 2 + count, put_down, NULL))
		return false;
	while (count--)
		sales[count]->is_announced = true;
	return true;
}

static bool is_due(const struct stream_sale *sale, uint64_t now)
{
	return sale->head &&
		(streams.is_leaving || sale->count >= BATCH_EVENTS || now >= sale->head->got_ns + BATCH_NS);
}

/* False: the round is full. */
static bool add_calls(struct daemon *d, struct fleet_round *round, uint64_t now)
{
	unsigned looks = 0;
	bool has_room = ask_notes(d, round, now) && announce(d, round) && write_notes(d, round, now);

	for (unsigned i = 0; has_room && i < streams.table.count; i++)
		if (is_due(streams.table.sales[i], now))
			has_room = append(d, round, streams.table.sales[i]);
	for (unsigned i = 0; has_room && i < streams.table.count && looks < LOOKS_MAX; i++) {
		struct stream_sale *sale = streams.table.sales[i];

		if (now < sale->look_ns)
			continue;
		has_room = look(d, round, sale);
		if (has_room)
			sale->look_ns = now + LOOK_IDLE_NS;
		looks++;
	}
	return has_room && looks < LOOKS_MAX;
}

/* Sales that the registry has learned of, the newest first: it is those that sell. */
static void learn_sales(struct daemon *d)
{
	struct sale known;

	for (unsigned i = sales_count(d->sales); i-- > 0 && streams.table.count < sales_count(d->sales);)
		if (!sales_at(d->sales, i, &known))
			stream_table_sale(&streams.table, known.id);
}

/* A Redis that was away may have come back with less. */
static void look_after_reconnect(struct daemon *d, uint64_t now)
{
	struct fleet_status status;

	fleet_status(d, &status);
	if (status.redis.reconnects == streams.reconnects)
		return;
	streams.reconnects = status.redis.reconnects;
	for (unsigned i = 0; i < streams.table.count; i++) {
		streams.table.sales[i]->look_ns = now;
		streams.table.sales[i]->is_announced = streams.table.sales[i]->is_noted = false;
	}
}

/* A cursor beyond the ledger's end: what this node sells up to there never comes into the stream. That stays true when the ledger has grown beyond it, so the alarm
 * ends only with the cursor.
 */
static void watch_for_old_ledger(struct daemon *d)
{
	const struct stream_walk *live = &streams.table.walks[STREAM_LIVE];
	uint64_t ahead = 0;
	struct sale known;

	if (!live->is_on || live->more || !streams.is_checked)
		return;
	for (unsigned i = 0; i < streams.table.count; i++) {
		struct stream_sale *sale = streams.table.sales[i];

		if (sale->is_known && sale->acked > streams.table.end && !sale->foreign) {
			sale->foreign = sale->acked;
			if (!streams.ahead && !ahead)
				log_error(
					"the stream of sale %s has events of node %u up to position %llu, this node's ledger ends at %llu: it is another or an older "
					"one, and its events below that are taken for known. Give the node another fleet.node, or delete the field %u of the sale's cursors in Redis",
					slug_of(d, sale, &known), d->config.fleet.node, (unsigned long long)sale->acked,
					(unsigned long long)streams.table.end, d->config.fleet.node);
		}
		ahead += sale->foreign != 0;
	}
	streams.ahead = ahead;
}

static uint64_t next_step(uint64_t now, bool has_room)
{
	uint64_t next = now + STEP_NS;

	if (!has_room)
		return now;
	if (!streams.is_asked && streams.read_ns < next)
		next = streams.read_ns;
	for (unsigned i = 0; i < streams.table.count; i++) {
		const struct stream_sale *sale = streams.table.sales[i];

		if (sale->head && sale->head->got_ns + BATCH_NS < next)
			next = sale->head->got_ns + BATCH_NS;
		if (sale->look_ns < next)
			next = sale->look_ns;
	}
	return next;
}

static uint64_t step(struct daemon *d, struct fleet_round *round, uint64_t now)
{
	uint64_t next;

	if (!d->config.fleet.stream)
		return now + NOTHING_NS;
	if (!atomic_load(&d->sales_known))
		return now + STEP_NS;
	pthread_mutex_lock(&streams.lock);
	take_page(d, now);
	learn_sales(d);
	look_after_reconnect(d, now);
	read_on(d, now);
	watch_for_old_ledger(d);
	next = next_step(now, add_calls(d, round, now));
	pthread_mutex_unlock(&streams.lock);
	return next;
}

/* Everything that is in the ledger goes out, if Redis is there; what does not waits there for the next start. */
static bool leave(struct daemon *d, struct fleet_round *round, uint64_t now)
{
	bool is_done;

	if (!d->config.fleet.stream || !atomic_load(&d->sales_known))
		return true;
	pthread_mutex_lock(&streams.lock);
	/* One more look at the ledger: what was made durable since the last one. */
	if (!streams.is_leaving) {
		streams.is_leaving = true;
		streams.table.walks[STREAM_LIVE].more = true;
		streams.read_ns = 0;
	}
	take_page(d, now);
	read_on(d, now);
	add_calls(d, round, now);
	is_done = stream_table_is_done(&streams.table) && streams.noted_end == streams.table.end;
	pthread_mutex_unlock(&streams.lock);
	return is_done;
}

const struct fleet_part fleet_stream_part = {.name = "stream", .step = step, .leave = leave};

/* --- figures ---------------------------------------------------------------------------------------------------------------- */
/* The lock is held. */
static void read_status(struct daemon *d, struct fleet_stream_status *status)
{
	uint64_t since = UINT64_MAX, wall = time_wall_ns(), unread;
	struct pipeline_status pipeline;

	*status = (struct fleet_stream_status){.appended = streams.appended, .waiting = streams.table.events};
	for (unsigned i = 0; i < streams.table.count; i++)
		if (streams.table.sales[i]->since_ns && streams.table.sales[i]->since_ns < since)
			since = streams.table.sales[i]->since_ns;
	pipeline_status(d->pipeline, &pipeline);
	unread = pipeline.durable > streams.durable ? pipeline.durable - streams.durable : 0;
	status->waiting += unread;
	/* Those that were not read yet have come since the walk was at the end. */
	if (unread && streams.end_ns && streams.end_ns < since)
		since = streams.end_ns;
	status->lag_s = since < wall ? (double)(wall - since) / 1e9 : 0.0;
}

void fleet_stream_status(struct daemon *d, struct fleet_stream_status *status)
{
	*status = (struct fleet_stream_status){.appended = 0};
	if (!d->fleet || !d->config.fleet.stream)
		return;
	pthread_mutex_lock(&streams.lock);
	read_status(d, status);
	pthread_mutex_unlock(&streams.lock);
}

static void render_sales(struct daemon *d, FILE *out)
{
	static const struct {
		const char *name, *help;
		size_t offset;
	} gauges[] = {
		{"sluice_stream_entries", "Entries of the sale's stream, as of the last look.",
			offsetof(struct stream_sale, length)},
		{"sluice_stream_groups", "Consumer groups of the sale's stream. Without one it is not trimmed.",
			offsetof(struct stream_sale, groups)},
		{"sluice_stream_unread",
			"Entries that the slowest group of the sale's stream has not read or not acknowledged.",
			offsetof(struct stream_sale, waiting)},
	};
	struct sale known;

	for (unsigned i = 0; i < sizeof(gauges) / sizeof(*gauges); i++) {
		fprintf(out, "# HELP %s %s\n# TYPE %s gauge\n", gauges[i].name, gauges[i].help, gauges[i].name);
		for (unsigned s = 0; s < streams.table.count; s++) {
			const struct stream_sale *sale = streams.table.sales[s];

			if (sale->length)
				fprintf(out, "%s{sale=\"%s\"} %llu\n", gauges[i].name, slug_of(d, sale, &known),
					(unsigned long long)*(
						const uint64_t *)(const void *)((const char *)sale + gauges[i].offset));
		}
	}
}

void fleet_stream_render(struct daemon *d, FILE *out)
{
	struct fleet_stream_status status;

	if (!d->fleet || !d->config.fleet.stream)
		return;
	pthread_mutex_lock(&streams.lock);
	read_status(d, &status);
	fprintf(out,
		"# HELP sluice_stream_appended_total Events that this node has appended to the streams of orders.\n"
		"# TYPE sluice_stream_appended_total counter\nsluice_stream_appended_total %llu\n"
		"# HELP sluice_stream_calls_total Calls to Redis for the streams.\n"
		"# TYPE sluice_stream_calls_total counter\nsluice_stream_calls_total %llu\n"
		"# HELP sluice_stream_failures_total Calls that failed; their events stay in the ledger and go out later.\n"
		"# TYPE sluice_stream_failures_total counter\nsluice_stream_failures_total %llu\n"
		"# HELP sluice_stream_losses_total Times that Redis knew less of a stream than before, and was told again.\n"
		"# TYPE sluice_stream_losses_total counter\nsluice_stream_losses_total %llu\n"
		"# HELP sluice_stream_trimmed_total Entries that this node has removed, read and acknowledged by every group.\n"
		"# TYPE sluice_stream_trimmed_total counter\nsluice_stream_trimmed_total %llu\n"
		"# HELP sluice_stream_ahead Sales whose stream is beyond this node's ledger, which is not the one it was made of: an alarm.\n"
		"# TYPE sluice_stream_ahead gauge\nsluice_stream_ahead %llu\n"
		"# HELP sluice_stream_waiting Events that are durable and not in a stream yet.\n"
		"# TYPE sluice_stream_waiting gauge\nsluice_stream_waiting %llu\n"
		"# HELP sluice_stream_lag_seconds Age of the oldest of them.\n"
		"# TYPE sluice_stream_lag_seconds gauge\nsluice_stream_lag_seconds %.3f\n",
		(unsigned long long)status.appended, (unsigned long long)streams.calls,
		(unsigned long long)streams.failures, (unsigned long long)streams.table.losses,
		(unsigned long long)streams.trimmed, (unsigned long long)streams.ahead,
		(unsigned long long)status.waiting, status.lag_s);
	render_sales(d, out);
	pthread_mutex_unlock(&streams.lock);
}

void fleet_stream_free(void)
{
	stream_table_free(&streams.table);
	json_decref(streams.answer);
	streams.answer = NULL;
}
