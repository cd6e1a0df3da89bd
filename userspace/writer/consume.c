/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The consumer's loop; see consume.h. One thread: reads what is new, or what this consumer was given before and has not acknowledged, or what a dead
 * consumer left; stores it; acknowledges it; begins again.
 *
 * A call to read that has failed may have been carried out: then Redis counts its entries as given to us. So after every failure, and at the
 * start, a stream is first read from the beginning of what we were given, and new entries of it wait until that is done.
 *
 * A stream that cannot be read rests for a moment, and holds up no other: its server may be one of many, or somebody has put something else under
 * its name.
 */
#include "writer/consume.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/timefmt.h"
#include "fleet/redis.h"
#include "writer/consume_entry.h"
#include "writer/consume_store.h"

#define MS 1000000ULL
#define STREAMS_MAX 4096
#define KEY_MAX 160
#define BATCH 1000 /* entries of one round, over all streams; at least STREAM_LEAST of each */
#define STREAM_LEAST 10
#define CALLS_MAX 256       /* in a round */
#define LIST_NS (2000 * MS) /* how soon a new sale is noticed */
#define CLAIM_NS (15000 * MS)
#define CLAIM_IDLE_MS "60000" /* a consumer that has not acknowledged for so long is dead */
#define CLAIM_COUNT "100"
#define AWAY_MS 500
#define REFUSED_MS 1000 /* of one stream */
#define FIRST_ID "0-0"
#define SAY_NS (10000 * MS)
#define IDLE_MS 200 /* where waiting in Redis is not possible */

struct stream {
	char slug[STORE_SLUG_MAX + 1];
	char key[KEY_MAX];
	bool has_group;
	char given[CONSUME_ID_MAX];      /* our own entries are read behind this id; "": there are none */
	char claim_from[CONSUME_ID_MAX]; /* where the next claim begins */
	uint64_t claim_ns, rest_ns;      /* mono: not before; the latter is of anything */
};

struct consumer {
	const struct config *config;
	const char *group, *name;
	int stop_fd;
	struct redis_link *redis;
	struct consume_store store;
	struct stream *streams;
	unsigned count, turn;
	unsigned groups_from,
		given_from; /* where the next such round begins: streams that fail again and again hold up no other */
	bool is_cluster, is_kind_known, is_away, is_store_away;
	uint64_t list_ns, say_ns; /* mono: not before */
	uint64_t stored;
	struct consume_entry *entries;
	unsigned entry_count, entry_room;
	struct stream **owners; /* owners[i]: stream of entries[i] */
};

static bool is_stopping(const struct consumer *c, int wait_ms)
{
	struct pollfd poller = {.fd = c->stop_fd, .events = POLLIN};

	return poll(&poller, 1, wait_ms) > 0;
}

/* --- Redis ----------------------------------------------------------------------------------------------------------------- */
/* One server of a cluster may be away while the others answer: so that is not said each time. */
static void note_failure(struct consumer *c, const struct redis_call *call)
{
	struct redis_figures figures;
	uint64_t now = time_mono_ns();

	if (now >= c->say_ns) {
		redis_link_figures(c->redis, &figures);
		log_warn("cannot read the streams: %s; nothing is lost, they are tried again",
			call->error == -EREMOTEIO && call->reply ? call->reply->str : figures.failure);
		c->say_ns = now + SAY_NS;
	}
	c->is_away = c->is_away || call->error != -EREMOTEIO;
}

/* The others are asked meanwhile. */
static void put_to_rest(struct consumer *c, struct stream *stream, const struct redis_call *call)
{
	note_failure(c, call);
	stream->rest_ns = time_mono_ns() + (call->error == -EREMOTEIO ? REFUSED_MS : AWAY_MS) * MS;
}

static bool is_error(const struct redis_call *call, const char *word)
{
	return call->error == -EREMOTEIO && call->reply && call->reply->type == REDIS_REPLY_ERROR &&
		!strncmp(call->reply->str, word, strlen(word));
}

/* What we were given may be more than we know. */
static void doubt(struct stream *stream)
{
	snprintf(stream->given, sizeof(stream->given), "%s", FIRST_ID);
}

static struct stream *find_stream(struct consumer *c, const char *key)
{
	for (unsigned i = 0; i < c->count; i++)
		if (!strcmp(c->streams[i].key, key))
			return &c->streams[i];
	return NULL;
}

static bool is_slug(const char *text, size_t length)
{
	return length > 0 && length <= STORE_SLUG_MAX &&
		strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == length;
}

static void add_stream(struct consumer *c, const char *slug)
{
	struct stream *stream = &c->streams[c->count];
	char key[KEY_MAX];

	snprintf(key, sizeof(key), "%s:{%s}:orders", c->config->fleet.prefix, slug);
	if (find_stream(c, key))
		return;
	if (c->count == STREAMS_MAX) {
		log_error(
			"more than %u streams: that of sale %s is not read; give finished sales' streams up (docs: stream.md)",
			STREAMS_MAX, slug);
		return;
	}
	*stream = (struct stream){.claim_from = FIRST_ID};
	memcpy(stream->key, key, sizeof(key));
	snprintf(stream->slug, sizeof(stream->slug), "%s", slug);
	doubt(stream);
	c->count++;
	log_info("reads the stream of sale %s", slug);
}

/* Waiting in one call for many streams is possible where they are all on one server. */
static void learn_kind(struct consumer *c)
{
	static const char *const words[] = {"INFO", "cluster"};
	struct redis_call call = {.argc = 2, .argv = words};

	redis_link_round(c->redis, &call, 1);
	if (call.error) {
		note_failure(c, &call);
		return;
	}
	c->is_cluster = call.reply->type == REDIS_REPLY_STRING && strstr(call.reply->str, "cluster_enabled:1");
	c->is_kind_known = true;
}

/* The sales of the fleet: the daemons keep their names in a set. */
static void list_streams(struct consumer *c)
{
	char key[KEY_MAX];
	const char *words[] = {"SMEMBERS", key};
	struct redis_call call = {.key = key, .argc = 2, .argv = words};

	snprintf(key, sizeof(key), "%s:{fleet}:streams", c->config->fleet.prefix);
	redis_link_round(c->redis, &call, 1);
	if (call.error || call.reply->type != REDIS_REPLY_ARRAY) {
		note_failure(c, &call);
		c->list_ns = time_mono_ns() + AWAY_MS * MS;
		return;
	}
	c->list_ns = time_mono_ns() + LIST_NS;
	for (size_t i = 0; i < call.reply->elements; i++) {
		const redisReply *slug = call.reply->element[i];

		if (slug->type == REDIS_REPLY_STRING && is_slug(slug->str, slug->len))
			add_stream(c, slug->str);
		else
			log_warn("the set %s has a member that is no name of a sale", key);
	}
}

/* From the first entry on: a group that is new, or new to a Redis that has lost it, misses nothing. */
static void make_groups(struct consumer *c, uint64_t now)
{
	struct redis_call calls[CALLS_MAX];
	const char *words[CALLS_MAX][6];
	struct stream *asked[CALLS_MAX];
	unsigned count = 0;

	for (unsigned i = 0; i < c->count && count < CALLS_MAX; i++) {
		struct stream *stream = &c->streams[(c->groups_from + i) % c->count];

		if (stream->has_group || now < stream->rest_ns)
			continue;
		memcpy(words[count], (const char *const[]){"XGROUP", "CREATE", stream->key, c->group, "0", "MKSTREAM"},
			sizeof(words[0]));
		calls[count] = (struct redis_call){.key = stream->key, .argc = 6, .argv = words[count]};
		asked[count++] = stream;
	}
	if (count)
		c->groups_from = (unsigned)(asked[count - 1] - c->streams) + 1;
	if (!count)
		return;
	redis_link_round(c->redis, calls, count);
	for (unsigned i = 0; i < count; i++) {
		if (!calls[i].error || is_error(&calls[i], "BUSYGROUP"))
			asked[i]->has_group = true;
		else
			put_to_rest(c, asked[i], &calls[i]);
	}
}

/* --- entries ---------------------------------------------------------------------------------------------------------------- */
static bool make_room(struct consumer *c)
{
	unsigned room = c->entry_room ? 2 * c->entry_room : BATCH;
	struct consume_entry *entries;
	struct stream **owners;

	if (c->entry_count < c->entry_room)
		return true;
	entries = realloc(c->entries, room * sizeof(*entries));
	if (entries)
		c->entries = entries;
	owners = realloc(c->owners, room * sizeof(struct stream *));
	if (owners)
		c->owners = owners;
	if (!entries || !owners)
		return false;
	c->entry_room = room;
	return true;
}

static void note_id(char to[CONSUME_ID_MAX], const char *id)
{
	snprintf(to, CONSUME_ID_MAX, "%s", id ? id : "");
}

/* NULL without memory. */
static struct consume_entry *add_entry(struct consumer *c, struct stream *stream)
{
	struct consume_entry *entry;

	if (!make_room(c))
		return NULL;
	c->owners[c->entry_count] = stream;
	entry = &c->entries[c->entry_count++];
	*entry = (struct consume_entry){.stream = stream->key, .slug = stream->slug};
	return entry;
}

static void note_removed(struct consume_entry *entry)
{
	snprintf(entry->reason, sizeof(entry->reason), "it was removed from the stream before it was read");
}

/* [id, …] of what somebody was given, and somebody removed from the stream: Redis forgets them as it tells of them. */
static void take_removed(struct consumer *c, struct stream *stream, const redisReply *list)
{
	for (size_t i = 0; list->type == REDIS_REPLY_ARRAY && i < list->elements; i++) {
		struct consume_entry *entry =
			list->element[i]->type == REDIS_REPLY_STRING ? add_entry(c, stream) : NULL;

		if (!entry) {
			log_error("no memory to put aside what was removed from %s before it was read", stream->key);
			return;
		}
		note_id(entry->entry, list->element[i]->str);
		note_removed(entry);
	}
}

/* [[id, fields], …]. Returns the last id, or NULL. */
static const char *take_entries(struct consumer *c, struct stream *stream, const redisReply *list)
{
	const char *last = NULL;

	for (size_t i = 0; list && list->type == REDIS_REPLY_ARRAY && i < list->elements; i++) {
		const redisReply *pair = list->element[i];
		struct consume_entry *entry;

		if (pair->type != REDIS_REPLY_ARRAY || pair->elements != 2 ||
			pair->element[0]->type != REDIS_REPLY_STRING)
			continue;
		entry = add_entry(c, stream);
		if (!entry) { /* they are read again */
			doubt(stream);
			return last;
		}
		last = pair->element[0]->str;
		entry->fields = pair->element[1]->type == REDIS_REPLY_ARRAY ? pair->element[1] : NULL;
		note_id(entry->entry, last);
		if (!entry->fields) /* given to us before, and since then removed from the stream by somebody */
			note_removed(entry);
		else
			consume_entry_read(entry);
	}
	return last;
}

/* --- storing and acknowledging ---------------------------------------------------------------------------------------------- */
/* Until it is stored, or the consumer is to end: then false. */
static bool store_entries(struct consumer *c)
{
	while (consume_store_write(&c->store, c->entries, c->entry_count)) {
		if (!c->is_store_away)
			log_error("%s; nothing is acknowledged until it can be stored", c->store.error);
		c->is_store_away = true;
		if (is_stopping(c, AWAY_MS))
			return false;
	}
	if (c->is_store_away)
		log_info("entries are stored again");
	c->is_store_away = false;
	c->stored += c->entry_count;
	return true;
}

struct ack {
	struct stream *stream;
	const char **words;
	int count;
};

static int add_id(struct consumer *c, struct ack *ack, const char *id)
{
	if (!ack->words) {
		/* As many as there can be of one stream. */
		ack->words = calloc(c->entry_count + 3, sizeof(char *));
		if (!ack->words)
			return -ENOMEM;
		ack->words[0] = "XACK";
		ack->words[1] = ack->stream->key;
		ack->words[2] = c->group;
		ack->count = 3;
	}
	ack->words[ack->count++] = id;
	return 0;
}

/* What was not acknowledged comes again. Entries of one stream stand together. */
static void acknowledge(struct consumer *c)
{
	unsigned at = 0;

	while (at < c->entry_count) {
		struct redis_call calls[CALLS_MAX];
		struct ack acks[CALLS_MAX];
		unsigned count = 0;

		for (; at < c->entry_count; at++) {
			if (!count || acks[count - 1].stream != c->owners[at]) {
				if (count == CALLS_MAX)
					break;
				acks[count++] = (struct ack){.stream = c->owners[at]};
			}
			if (add_id(c, &acks[count - 1], c->entries[at].entry))
				doubt(c->owners[at]);
		}
		for (unsigned i = 0; i < count; i++)
			calls[i] = (struct redis_call){
				.key = acks[i].stream->key, .argc = acks[i].count, .argv = acks[i].words};
		redis_link_round(c->redis, calls, count);
		for (unsigned i = 0; i < count; i++) {
			if (calls[i].error) {
				doubt(acks[i].stream);
				put_to_rest(c, acks[i].stream, &calls[i]);
			}
			free(acks[i].words);
		}
	}
}

/* Returns false when the consumer is to end. */
static bool settle_entries(struct consumer *c)
{
	if (c->entry_count) {
		if (!store_entries(c))
			return false;
		acknowledge(c);
		c->entry_count = 0;
	}
	return true;
}

/* --- reading ---------------------------------------------------------------------------------------------------------------- */
/* A call that read, or claimed, of these streams has failed. */
static void read_failed(
	struct consumer *c, struct stream *const *streams, unsigned count, const struct redis_call *call)
{
	/* A call for many fails with one of them: read one by one, as all are that are in doubt, that one alone does. With the wrong type of a key
	 * the groups of all the others are there.
	 */
	bool is_gone = is_error(call, "NOGROUP"), is_lost = is_gone || is_error(call, "WRONGTYPE");

	for (unsigned i = 0; i < count; i++) {
		if (is_lost)
			streams[i]->has_group = false;
		doubt(streams[i]);
	}
	if (!is_gone && count == 1)
		put_to_rest(c, streams[0], call);
	else if (!is_lost) {
		note_failure(c, call);
		c->is_away = true; /* an error that single reads may not have: not again at once */
	}
	if (is_gone)
		log_warn(
			"the group %s is gone from %u streams (Redis has lost data, or somebody destroyed it): it is made again and reads "
			"from their first entry",
			c->group, count);
}

#define READING_WORDS 9 /* of XREADGROUP, beside two for each stream */

/* XREADGROUP of one stream or of several that are on one server. */
struct reading {
	const char **words;
	struct stream **streams;
	char least[16], wait[16];
	unsigned count;
};

/* Returns the number of words. */
static int build_reading(struct consumer *c, struct reading *reading, unsigned limit, unsigned wait_ms, bool of_given)
{
	const char **word = reading->words;

	snprintf(reading->least, sizeof(reading->least), "%u", limit);
	snprintf(reading->wait, sizeof(reading->wait), "%u", wait_ms);
	*word++ = "XREADGROUP";
	*word++ = "GROUP";
	*word++ = c->group;
	*word++ = c->name;
	*word++ = "COUNT";
	*word++ = reading->least;
	if (wait_ms) {
		*word++ = "BLOCK";
		*word++ = reading->wait;
	}
	*word++ = "STREAMS";
	for (unsigned i = 0; i < reading->count; i++)
		*word++ = reading->streams[i]->key;
	for (unsigned i = 0; i < reading->count; i++)
		*word++ = of_given ? reading->streams[i]->given : ">";
	return (int)(word - reading->words);
}

/* [[key, entries], …], or nil: nothing came. */
static void take_reading(struct consumer *c, const redisReply *reply, bool of_given)
{
	for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++) {
		const redisReply *pair = reply->element[i];
		struct stream *stream;

		if (pair->type != REDIS_REPLY_ARRAY || pair->elements != 2 ||
			pair->element[0]->type != REDIS_REPLY_STRING)
			continue;
		stream = find_stream(c, pair->element[0]->str);
		if (!stream)
			continue;
		if (take_entries(c, stream, pair->element[1]) && of_given)
			doubt(stream); /* there may be more; what is acknowledged does not come again */
	}
}

/* One call for each stream, CALLS_MAX at the most. */
static void read_each(struct consumer *c, struct stream **streams, unsigned count, unsigned limit, bool of_given)
{
	struct redis_call calls[CALLS_MAX];
	struct reading readings[CALLS_MAX];
	const char *words[CALLS_MAX][READING_WORDS + 2];

	for (unsigned i = 0; i < count; i++) {
		readings[i] = (struct reading){.words = words[i], .streams = &streams[i], .count = 1};
		calls[i] = (struct redis_call){.key = streams[i]->key,
			.argc = build_reading(c, &readings[i], limit, 0, of_given),
			.argv = words[i]};
	}
	redis_link_round(c->redis, calls, count);
	for (unsigned i = 0; i < count; i++) {
		if (calls[i].error) {
			read_failed(c, &streams[i], 1, &calls[i]);
			continue;
		}
		if (of_given)
			streams[i]->given[0] = '\0';
		take_reading(c, calls[i].reply, of_given);
	}
}

static unsigned share(unsigned streams)
{
	return BATCH / streams > STREAM_LEAST ? BATCH / streams : STREAM_LEAST;
}

/* What this consumer was given before. Returns true if there are more streams with such than were asked. */
static bool read_given(struct consumer *c, uint64_t now)
{
	struct stream *streams[CALLS_MAX];
	unsigned count = 0;

	for (unsigned i = 0; i < c->count && count < CALLS_MAX; i++) {
		struct stream *stream = &c->streams[(c->given_from + i) % c->count];

		if (stream->has_group && *stream->given && now >= stream->rest_ns)
			streams[count++] = stream;
	}
	if (count)
		c->given_from = (unsigned)(streams[count - 1] - c->streams) + 1;
	if (count)
		read_each(c, streams, count, share(count), true);
	return count == CALLS_MAX;
}

/* What a consumer was given that has not been heard of since. */
static void claim(struct consumer *c, uint64_t now)
{
	struct redis_call calls[CALLS_MAX];
	struct stream *streams[CALLS_MAX];
	const char *words[CALLS_MAX][8];
	unsigned count = 0;

	for (unsigned i = 0; i < c->count && count < CALLS_MAX; i++) {
		struct stream *stream = &c->streams[i];

		if (!stream->has_group || now < stream->claim_ns || now < stream->rest_ns)
			continue;
		stream->claim_ns = now + CLAIM_NS;
		memcpy(words[count],
			(const char *const[]){"XAUTOCLAIM", stream->key, c->group, c->name, CLAIM_IDLE_MS,
				stream->claim_from, "COUNT", CLAIM_COUNT},
			sizeof(words[0]));
		calls[count] = (struct redis_call){.key = stream->key, .argc = 8, .argv = words[count]};
		streams[count++] = stream;
	}
	if (!count)
		return;
	redis_link_round(c->redis, calls, count);
	for (unsigned i = 0; i < count; i++) {
		const redisReply *reply = calls[i].reply;

		if (calls[i].error) {
			read_failed(c, &streams[i], 1, &calls[i]);
		} else if (reply->type == REDIS_REPLY_ARRAY && reply->elements >= 2 &&
			reply->element[0]->type == REDIS_REPLY_STRING) {
			if (reply->element[1]->elements)
				log_info("takes over %zu entries of %s from a consumer that is gone",
					reply->element[1]->elements, streams[i]->key);
			note_id(streams[i]->claim_from, reply->element[0]->str);
			if (strcmp(streams[i]->claim_from, FIRST_ID) != 0)
				streams[i]->claim_ns = now; /* there is more */
			take_entries(c, streams[i], reply->element[1]);
			if (reply->elements >= 3)
				take_removed(c, streams[i], reply->element[2]);
		}
	}
}

static bool may_read_new(const struct stream *stream)
{
	return stream->has_group && !*stream->given;
}

/* Of one server: one call that waits until something comes in any of the streams. Returns false if there was none to wait for. */
static bool read_new_waiting(struct consumer *c)
{
	const char **words = calloc(READING_WORDS + 2 * (size_t)c->count, sizeof(char *));
	struct stream **streams = calloc(c->count, sizeof(struct stream *));
	struct reading reading = {.words = words, .streams = streams};
	unsigned wait_ms = c->config->fleet.timeout_ms / 2;
	struct redis_call call;

	for (unsigned i = 0; words && streams && i < c->count; i++)
		if (may_read_new(&c->streams[i]))
			streams[reading.count++] = &c->streams[i];
	if (reading.count) {
		call = (struct redis_call){.key = streams[0]->key,
			.argc = build_reading(c, &reading, share(reading.count), wait_ms ? wait_ms : 1, false),
			.argv = words};
		redis_link_round(c->redis, &call, 1);
		if (call.error)
			read_failed(c, streams, reading.count, &call);
		else
			take_reading(c, call.reply, false);
	}
	free(words);
	free(streams);
	return reading.count;
}

/* Of a cluster: a call for each stream, none of which waits, because the others would wait with it. */
static void read_new_by_turns(struct consumer *c)
{
	struct stream *streams[CALLS_MAX];
	unsigned count = 0;

	for (unsigned i = 0; i < c->count && count < CALLS_MAX; i++) {
		struct stream *stream = &c->streams[(c->turn + i) % c->count];

		if (may_read_new(stream))
			streams[count++] = stream;
	}
	c->turn = c->count ? (c->turn + CALLS_MAX) % c->count : 0;
	if (count)
		read_each(c, streams, count, share(count), false);
}

/* --- the loop ---------------------------------------------------------------------------------------------------------------- */
/* Returns how long to wait before the next, ms. */
static int step(struct consumer *c)
{
	uint64_t now = time_mono_ns();

	bool is_more;

	c->is_away = false;
	if (!c->is_kind_known)
		learn_kind(c);
	if (!c->is_kind_known)
		return AWAY_MS;
	if (now >= c->list_ns)
		list_streams(c);
	make_groups(c, now);
	is_more = read_given(c, now);
	if (c->entry_count || (is_more && !c->is_away))
		return 0;
	claim(c, now);
	if (c->entry_count)
		return 0;
	if (!c->is_cluster)
		return read_new_waiting(c) ? 0 : IDLE_MS;
	read_new_by_turns(c);
	return c->entry_count || c->count > CALLS_MAX ? 0 : IDLE_MS;
}

static int run(struct consumer *c)
{
	int wait_ms = 0;

	while (!is_stopping(c, wait_ms)) {
		wait_ms = step(c);
		if (c->is_away && !c->entry_count)
			wait_ms = AWAY_MS;
		if (!settle_entries(c))
			break;
	}
	log_info("stopped; %llu entries were stored", (unsigned long long)c->stored);
	return 0;
}

int consume_run(const struct config *config, const char *group, const char *name, int stop_fd)
{
	const struct redis_options options = {.servers = config->fleet.redis,
		.user = config->fleet.redis_user,
		.password_file = config->fleet.redis_password_file,
		.timeout_ms = config->fleet.timeout_ms};
	struct consumer c = {.config = config, .group = group, .name = name, .stop_fd = stop_fd};
	int err = -ENOMEM;

	c.redis = redis_link_new(&options);
	c.streams = calloc(STREAMS_MAX, sizeof(*c.streams));
	if (!c.redis || !c.streams) {
		log_error("no memory for the consumer");
		goto out;
	}
	err = consume_store_init(&c.store, config->writer.postgres);
	if (err) {
		log_error("%s", c.store.error);
		goto out;
	}
	log_info("version %s, consumer %s of group %s, streams %s:{…}:orders, into %s", SLUICE_VERSION, name, group,
		config->fleet.prefix, c.store.link.name);
	/* At once, and not with the first entry: what is wrong with the database is better known now. */
	if (consume_store_open(&c.store)) {
		log_error("%s; tried again with the first entries", c.store.error);
		c.is_store_away = true;
	}
	err = run(&c);
out:
	consume_store_close(&c.store);
	free(c.entries);
	free(c.owners);
	free(c.streams);
	redis_link_free(c.redis);
	return err;
}
