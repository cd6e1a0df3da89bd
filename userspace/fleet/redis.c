/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Rounds of calls to Redis; see redis.h. Called by the fleet's thread of the daemon, and by the writer as a consumer.
 *
 * A call waits until its server is known and ready, is sent, and is done when its answer has come: all servers are polled at once. What was not
 * sent when a connection breaks may go to another server; of what was sent nobody knows. A call counts as sent from its first
 * byte that the kernel took, although Redis needs the last one as well: the doubt costs a question, a wrong certainty a unit.
 */
#include "fleet/redis.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/timefmt.h"
#include "fleet/redis_impl.h"

/* How often one call is sent on elsewhere: two would do while slots move one by one. */
#define REDIRECTS_MAX 5
/* A script's text is sent at most so often for one call: once more if the server was told to forget its scripts meanwhile. */
#define TEXTS_MAX 2
/* How long a round does not look at redis_link_finish_by. */
#define LOOK_MS 100
/* A server that was asked for the slots and is silent for so much of the time-out gives way to the next. */
#define SLOTS_PATIENCE 4

enum flight_state {
	FLIGHT_WAITS, /* for a server, or for its being ready */
	FLIGHT_SENT,
	FLIGHT_DONE
};

struct redis_flight {
	enum flight_state state;
	struct redis_node *ask; /* ASK: this one is asked, once */
	unsigned redirects;
	unsigned texts; /* NOSCRIPT came so often */
	redisReply *reply;
};

/* --- making ------------------------------------------------------------------------------------------------------------------------ */
static int read_seeds(struct redis_link *link, const char *servers)
{
	for (const char *text = servers; *text;) {
		size_t length = strcspn(text, ",");

		if (link->seed_count == REDIS_SEEDS_MAX ||
			redis_address_read(text, length, &link->seeds[link->seed_count++]))
			return -EINVAL;
		text += length + (text[length] == ',');
	}
	return link->seed_count ? 0 : -EINVAL;
}

static const char *keep(char **to, const char *text)
{
	const char *kept = *to;

	*to = stpcpy(*to, text ? text : "") + 1;
	return kept;
}

static int copy_options(struct redis_link *link, const struct redis_options *options)
{
	const char *const texts[] = {options->servers, options->user, options->password_file, options->name};
	size_t size = 0;
	char *to;

	for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		size += texts[i] ? strlen(texts[i]) + 1 : 1;
	link->texts = to = malloc(size);
	if (!to)
		return -ENOMEM;
	link->options.servers = keep(&to, options->servers);
	link->options.user = keep(&to, options->user);
	link->options.password_file = keep(&to, options->password_file);
	link->options.name = keep(&to, options->name);
	link->options.timeout_ms = options->timeout_ms;
	return 0;
}

struct redis_link *redis_link_new(const struct redis_options *options)
{
	struct redis_link *link = calloc(1, sizeof(*link));
	int err;

	if (!link)
		return NULL;
	atomic_init(&link->finish_by_ns, UINT64_MAX);
	err = copy_options(link, options);
	if (!err)
		err = read_seeds(link, link->options.servers);
	for (unsigned i = 0; !err && i < link->seed_count; i++) {
		struct redis_node *node = redis_link_node(link, link->seeds[i].host, link->seeds[i].port);

		if (node)
			node->is_seed = true;
		else
			err = -ENOMEM;
	}
	if (!err)
		return link;
	redis_link_free(link);
	errno = -err;
	return NULL;
}

static void free_replies(struct redis_link *link)
{
	for (unsigned i = 0; i < link->count; i++)
		freeReplyObject(link->flights[i].reply);
	link->count = 0;
}

static void free_node(struct redis_node *node)
{
	redis_connection_close(&node->connection);
	free(node->awaits);
	free(node);
}

void redis_link_free(struct redis_link *link)
{
	if (!link)
		return;
	redis_connection_close(&link->news);
	free_replies(link);
	for (unsigned i = 0; i < link->node_count; i++)
		free_node(link->nodes[i]);
	free(link->flights);
	free(link->texts);
	free(link);
}

/* --- servers ------------------------------------------------------------------------------------------------------------------------- */
struct redis_node *redis_link_node(struct redis_link *link, const char *host, unsigned port)
{
	struct redis_node *node;

	for (unsigned i = 0; i < link->node_count; i++)
		if (link->nodes[i]->connection.port == port && !strcmp(link->nodes[i]->connection.host, host))
			return link->nodes[i];
	if (link->node_count == REDIS_NODES_MAX)
		return NULL;
	node = calloc(1, sizeof(*node));
	if (!node)
		return NULL;
	redis_connection_init(&node->connection, host, port);
	link->nodes[link->node_count++] = node;
	return node;
}

void redis_link_note_ready(struct redis_link *link, struct redis_node *node)
{
	if (node->connection.state != REDIS_READY) {
		node->is_counted = false;
	} else if (!node->is_counted) {
		link->figures.reconnects += node->was_ready;
		node->was_ready = node->is_counted = true;
	}
}

/* What the slots do not name any more, and nobody has named in the config, is a master that is dead or has become a replica. Of the config's, those
 * that are no masters are not talked to.
 */
static void sweep_nodes(struct redis_link *link)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < link->node_count; i++) {
		struct redis_node *node = link->nodes[i];

		if (node->is_master || node->await_count) {
			link->nodes[kept++] = node;
		} else if (node->is_seed) {
			redis_connection_close(&node->connection);
			redis_link_note_ready(link, node);
			link->nodes[kept++] = node;
		} else {
			free_node(node);
		}
	}
	link->node_count = kept;
}

static bool await(struct redis_node *node, int call, uint64_t start)
{
	if (node->await_first + node->await_count == node->await_size) {
		unsigned size = node->await_size ? 2 * node->await_size : 64;
		struct redis_await *awaits = realloc(node->awaits, size * sizeof(*awaits));

		if (!awaits)
			return false;
		node->awaits = awaits;
		node->await_size = size;
	}
	node->awaits[node->await_first + node->await_count++] = (struct redis_await){call, start};
	return true;
}

/* --- the end of a call ----------------------------------------------------------------------------------------------------------------- */
static void finish(struct redis_link *link, unsigned call, int error, redisReply *reply)
{
	link->calls[call].error = error;
	link->calls[call].reply = link->flights[call].reply = reply;
	link->flights[call].state = FLIGHT_DONE;
	link->left--;
	if (error == -EREMOTEIO)
		link->figures.errors++;
}

static void note_failure(struct redis_link *link, const char *failure)
{
	if (*failure)
		snprintf(link->figures.failure, sizeof(link->figures.failure), "%s", failure);
}

/* The connection is closed. What of it was awaited: not sent at all, and may go elsewhere; or unknown for ever. */
static void drop_awaits(struct redis_link *link, struct redis_node *node)
{
	for (unsigned i = 0; i < node->await_count; i++) {
		const struct redis_await *awaited = &node->awaits[node->await_first + i];

		if (awaited->call < 0)
			continue;
		if (awaited->start < node->connection.handed)
			finish(link, (unsigned)awaited->call, -ETIMEDOUT, NULL);
		else
			link->flights[awaited->call].state = FLIGHT_WAITS;
	}
	node->await_first = node->await_count = node->text_count = 0;
}

static void node_failed(struct redis_link *link, struct redis_node *node)
{
	note_failure(link, node->connection.failure);
	redis_link_note_ready(link, node);
	drop_awaits(link, node);
	link->is_stale = true;
}

/* --- slots ------------------------------------------------------------------------------------------------------------------------------ */
struct telling {
	struct redis_link *link;
	const struct redis_node *by;
};

static void tell_range(void *arg, unsigned first, unsigned last, const struct redis_address *master)
{
	struct telling *telling = arg;
	const char *host = *master->host ? master->host : telling->by->connection.host;
	struct redis_node *node = redis_link_node(telling->link, host, master->port);

	if (!node)
		return;
	node->is_master = true;
	for (unsigned slot = first; slot <= last; slot++)
		telling->link->owners[slot] = node;
}

static void become_single(struct redis_link *link, struct redis_node *node)
{
	char name[REDIS_HOST_MAX + 16];

	if (link->seed_count == 1) {
		link->kind = REDIS_SINGLE;
		link->slots_told = true;
		link->is_stale = false;
		return;
	}
	/* Two servers that know nothing of each other would each lease the same units. */
	redis_connection_fail(&node->connection, time_mono_ns(),
		"it is no node of a Redis Cluster: fleet.redis must then name one server only (%s)",
		redis_connection_name(&node->connection, name));
	node_failed(link, node);
}

/* It has left its cluster, or is in none yet. That it knows of no slots is no word about those of others; its own are to be asked for again. */
static void leave_node(struct redis_link *link, struct redis_node *node)
{
	redis_connection_rest(&node->connection, time_mono_ns(), "it is in no Redis Cluster that has slots");
	note_failure(link, node->connection.failure);
	node->is_master = false;
	for (unsigned slot = 0; slot < REDIS_SLOTS; slot++)
		if (link->owners[slot] == node)
			link->owners[slot] = NULL;
	link->is_stale = true;
	link->slots_asked_ns = 0; /* the next is asked at once */
}

static void read_slots(struct redis_link *link, struct redis_node *node, const redisReply *reply)
{
	struct telling telling = {link, node};

	if (reply->type == REDIS_REPLY_ERROR && strstr(reply->str, "cluster support disabled")) {
		become_single(link, node);
		return;
	}
	if (reply->type != REDIS_REPLY_ARRAY) {
		redis_connection_rest(&node->connection, time_mono_ns(),
			reply->type == REDIS_REPLY_ERROR ? reply->str : "no answer to CLUSTER SLOTS");
		note_failure(link, node->connection.failure);
		return;
	}
	if (!reply->elements) {
		leave_node(link, node);
		return;
	}
	for (unsigned i = 0; i < link->node_count; i++)
		link->nodes[i]->is_master = false;
	memset(link->owners, 0, sizeof(link->owners));
	redis_slots_read(reply, tell_range, &telling);
	link->kind = REDIS_CLUSTER;
	link->slots_told = true;
	link->is_stale = false;
}

static void ask_slots(struct redis_link *link, struct redis_node *node, uint64_t now)
{
	static const char *const argv[] = {"CLUSTER", "SLOTS"};
	uint64_t start;

	if (redis_connection_append(&node->connection, 2, argv, NULL, &start) || !await(node, REDIS_AWAIT_SLOTS, start))
		return;
	node->told_slots = true;
	node->slots_asked_ns = link->slots_asked_ns = now;
}

static void open_node(struct redis_link *link, struct redis_node *node, uint64_t now)
{
	if (redis_connection_open(&node->connection, &link->options, now))
		node_failed(link, node);
}

/* Who needs the slots in this round waits for whoever tells them first. Returns false if nobody is left who could. */
static bool want_slots(struct redis_link *link, uint64_t now)
{
	bool is_hopeful = false;

	if (link->slots_asked_ns && now < link->slots_asked_ns + link->options.timeout_ms * REDIS_MS / SLOTS_PATIENCE)
		for (unsigned i = 0; i < link->node_count; i++)
			if (link->nodes[i]->told_slots && link->nodes[i]->await_count)
				return true;
	for (unsigned i = 0; i < link->node_count; i++) {
		struct redis_node *node = link->nodes[i];

		if (redis_connection_is_resting(&node->connection, now))
			continue;
		if (node->connection.state == REDIS_READY && !node->told_slots) {
			ask_slots(link, node, now);
			return true;
		}
		if (node->connection.state == REDIS_CLOSED && !node->told_slots)
			open_node(link, node, now);
		is_hopeful = is_hopeful ||
			(node->connection.state != REDIS_CLOSED && (!node->told_slots || node->await_count));
	}
	return is_hopeful;
}

/* --- sending ------------------------------------------------------------------------------------------------------------------------------ */
static bool has_text(const struct redis_node *node, const struct redis_script *script)
{
	for (unsigned i = 0; i < node->text_count; i++)
		if (node->texts[i] == script)
			return true;
	return false;
}

/* EVAL where the server has said that it does not know the script; of several such calls the first carries the text. */
static int append_script(struct redis_node *node, const struct redis_call *call, unsigned texts, uint64_t *start)
{
	const struct redis_script *script = call->script;
	bool with_text = texts > 1 || (texts && !has_text(node, script));
	const char **argv = malloc(((size_t)call->argc + 2) * sizeof(*argv));
	size_t *lengths = malloc(((size_t)call->argc + 2) * sizeof(*lengths));
	int err = -ENOMEM;

	if (argv && lengths) {
		argv[0] = with_text ? "EVAL" : "EVALSHA";
		argv[1] = with_text ? script->text : script->digest;
		lengths[0] = strlen(argv[0]);
		lengths[1] = with_text ? script->length : REDIS_DIGEST_HEX;
		for (int i = 0; i < call->argc; i++) {
			argv[i + 2] = call->argv[i];
			lengths[i + 2] = call->lengths ? call->lengths[i] : strlen(call->argv[i]);
		}
		err = redis_connection_append(&node->connection, call->argc + 2, argv, lengths, start);
	}
	if (!err && with_text && node->text_count < REDIS_TEXTS_MAX)
		node->texts[node->text_count++] = script;
	free(argv);
	free(lengths);
	return err;
}

static int append_call(
	struct redis_node *node, const struct redis_call *call, const struct redis_flight *flight, uint64_t *start)
{
	if (call->script)
		return append_script(node, call, flight->texts, start);
	return redis_connection_append(&node->connection, call->argc, call->argv, call->lengths, start);
}

static void send_call(struct redis_link *link, unsigned i, struct redis_node *node)
{
	static const char *const asking[] = {"ASKING"};
	struct redis_flight *flight = &link->flights[i];
	uint64_t start;

	flight->state = FLIGHT_SENT;
	if ((flight->ask &&
		    (redis_connection_append(&node->connection, 1, asking, NULL, &start) ||
			    !await(node, REDIS_AWAIT_ASKING, start))) ||
		append_call(node, &link->calls[i], flight, &start) || !await(node, (int)i, start)) {
		/* No memory: the connection may hold half of it. */
		flight->state = FLIGHT_WAITS;
		redis_connection_fail(&node->connection, time_mono_ns(), "no memory");
		node_failed(link, node);
		if (flight->state == FLIGHT_WAITS)
			finish(link, i, -ENOTCONN, NULL);
	}
	flight->ask = NULL;
}

/* Any server will do: one that is ready rather than one that has to be connected to. */
static struct redis_node *any_node(struct redis_link *link, uint64_t now)
{
	struct redis_node *closed = NULL, *resting = NULL;

	for (unsigned i = 0; i < link->node_count; i++) {
		struct redis_node *node = link->nodes[i];

		if (link->kind == REDIS_CLUSTER && !node->is_master)
			continue;
		if (redis_connection_is_resting(&node->connection, now))
			resting = node;
		else if (node->connection.state == REDIS_READY)
			return node;
		else
			closed = node;
	}
	return closed ? closed : resting;
}

static struct redis_node *node_of(struct redis_link *link, unsigned i, uint64_t now)
{
	const struct redis_call *call = &link->calls[i];

	if (link->flights[i].ask)
		return link->flights[i].ask;
	if (link->kind == REDIS_SINGLE)
		return link->nodes[0];
	if (link->kind == REDIS_UNKNOWN)
		return NULL;
	return call->key ? link->owners[redis_slot_of(call->key, strlen(call->key))] : any_node(link, now);
}

/* Sends the call, has it wait, or finds that nobody can do it now. Returns true while it waits for a server that failed before: for it alone the
 * round does not go on.
 */
static bool move_call(struct redis_link *link, unsigned i, uint64_t now)
{
	struct redis_node *node = node_of(link, i, now);
	bool is_usable = node && !redis_connection_is_resting(&node->connection, now);

	if (is_usable && node->connection.state == REDIS_CLOSED) {
		open_node(link, node, now);
		is_usable = !redis_connection_is_resting(&node->connection, now);
	}
	if (is_usable && node->connection.state == REDIS_READY) {
		send_call(link, i, node);
		return false;
	}
	if (is_usable)
		return node->connection.failures;
	link->flights[i].ask = NULL;
	/* A single server has no other in its place. */
	if (link->kind != REDIS_SINGLE && !link->slots_told && want_slots(link, now))
		return false;
	if (!node && link->kind == REDIS_CLUSTER && link->slots_told)
		note_failure(link, "no server of the Redis Cluster has the slot of a key that is needed");
	else if (node)
		note_failure(link, node->connection.failure);
	finish(link, i, -ENOTCONN, NULL);
	return false;
}

/* --- answers ------------------------------------------------------------------------------------------------------------------------------ */
static bool begins_with(const redisReply *reply, const char *code)
{
	size_t length = strlen(code);

	return reply->type == REDIS_REPLY_ERROR && !strncmp(reply->str, code, length) &&
		(reply->str[length] == ' ' || !reply->str[length]);
}

/* Returns false if it leads nowhere: then it is an error like others. */
static bool follow(struct redis_link *link, unsigned i, struct redis_node *by, const redisReply *reply, bool is_ask)
{
	struct redis_flight *flight = &link->flights[i];
	struct redis_address address;
	struct redis_node *node;
	unsigned slot;

	if (flight->redirects == REDIRECTS_MAX || redis_redirect_read(reply->str, &slot, &address))
		return false;
	node = redis_link_node(link, *address.host ? address.host : by->connection.host, address.port);
	if (!node)
		return false;
	flight->redirects++;
	flight->state = FLIGHT_WAITS;
	link->figures.redirects++;
	if (is_ask) {
		flight->ask = node;
		return true;
	}
	/* A server that was single before has become a cluster's. */
	link->kind = REDIS_CLUSTER;
	node->is_master = true;
	link->owners[slot] = node;
	link->is_stale = true;
	return true;
}

/* Is it a server that cannot serve now? */
static bool is_unfit(const redisReply *reply)
{
	static const char *const codes[] = {
		"LOADING", "MASTERDOWN", "CLUSTERDOWN", "READONLY", "NOREPLICAS", "MISCONF", "BUSY"};

	for (unsigned i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (begins_with(reply, codes[i]))
			return true;
	return false;
}

static void answer_call(struct redis_link *link, unsigned i, struct redis_node *node, redisReply *reply)
{
	bool is_ask = begins_with(reply, "ASK");

	if (begins_with(reply, "NOSCRIPT") && link->calls[i].script && link->flights[i].texts < TEXTS_MAX) {
		link->flights[i].texts++;
		link->flights[i].state = FLIGHT_WAITS;
		freeReplyObject(reply);
		return;
	}
	if ((is_ask || begins_with(reply, "MOVED")) && follow(link, i, node, reply, is_ask)) {
		freeReplyObject(reply);
		return;
	}
	if (is_unfit(reply)) {
		if (!redis_connection_is_resting(&node->connection, time_mono_ns()))
			redis_connection_rest(&node->connection, time_mono_ns(), reply->str);
		note_failure(link, node->connection.failure);
		/* A replica stays one; but its name may lead to the master when it is looked up anew. */
		node->is_replica = begins_with(reply, "READONLY");
		link->was_unfit = link->is_stale = true;
	} else {
		node->connection.failures = 0;
	}
	finish(link, i, reply->type == REDIS_REPLY_ERROR ? -EREMOTEIO : 0, reply);
}

static void broke(struct redis_link *link, struct redis_node *node, const char *why)
{
	redis_connection_fail(&node->connection, time_mono_ns(), "%s", why);
	node_failed(link, node);
}

static void read_answers(struct redis_link *link, struct redis_node *node)
{
	redisReply *reply;

	while (node->connection.state == REDIS_READY) {
		int call;

		if (redis_connection_reply(&node->connection, &reply)) {
			broke(link, node, "what it answers is not the protocol of Redis, or too large");
			return;
		}
		if (!reply)
			return;
		if (!node->await_count) {
			freeReplyObject(reply);
			broke(link, node, "it answers what it was not asked");
			return;
		}
		call = node->awaits[node->await_first++].call;
		node->await_count--;
		if (call >= 0) {
			answer_call(link, (unsigned)call, node, reply);
			continue;
		}
		if (call == REDIS_AWAIT_SLOTS)
			read_slots(link, node, reply);
		freeReplyObject(reply);
	}
}

/* --- the round ---------------------------------------------------------------------------------------------------------------------------- */
static void begin_node(struct redis_link *link, struct redis_node *node)
{
	redis_connection_begin_round(&node->connection);
	node->text_count = 0;
	node->told_slots = node->await_count; /* the slots, of the round before */
	if (node->await_count) {
		memmove(node->awaits, node->awaits + node->await_first, node->await_count * sizeof(*node->awaits));
		node->await_first = 0;
		return;
	}
	node->await_first = 0;
	/* Closed by a server that was stopped or restarted, say: better known now than by a call that nobody can tell what became of. */
	if (node->connection.state == REDIS_READY && redis_connection_is_stale(&node->connection)) {
		redis_connection_close(&node->connection);
		redis_link_note_ready(link, node);
		link->is_stale = true;
	}
}

static bool begin_round(struct redis_link *link, struct redis_call *calls, unsigned count, uint64_t now)
{
	free_replies(link);
	for (unsigned i = 0; i < count; i++) {
		calls[i].error = -ENOTCONN;
		calls[i].reply = NULL;
	}
	if (count > link->size) {
		struct redis_flight *flights = realloc(link->flights, count * sizeof(*flights));

		if (!flights)
			return false;
		link->flights = flights;
		link->size = count;
	}
	if (!count)
		return false;
	memset(link->flights, 0, count * sizeof(*link->flights));
	link->calls = calls;
	link->count = link->left = count;
	link->deadline_ns = now + link->options.timeout_ms * REDIS_MS;
	link->slots_asked_ns = 0;
	link->slots_told = link->was_late = link->was_unfit = false;
	for (unsigned i = 0; i < link->node_count; i++)
		begin_node(link, link->nodes[i]);
	return true;
}

/* Returns true if the round has to go on: for a server that failed before it does not, unless there is nothing else. */
static bool move_calls(struct redis_link *link, uint64_t now)
{
	unsigned hopeless = 0;

	for (unsigned i = 0; i < link->count; i++)
		if (link->flights[i].state == FLIGHT_WAITS)
			hopeless += move_call(link, i, now);
	/* Changed slots are asked for beside the calls. Who does not need them does not wait for the answer: it may come in the next round. */
	if (link->is_stale && link->kind == REDIS_CLUSTER && !link->slots_told && !link->slots_asked_ns)
		want_slots(link, now);
	return link->left > hopeless || (hopeless && hopeless == link->count);
}

static void poll_nodes(struct redis_link *link, uint64_t until, uint64_t now)
{
	struct pollfd fds[REDIS_NODES_MAX];
	struct redis_node *polled[REDIS_NODES_MAX];
	unsigned count = 0;
	uint64_t ms = until > now ? (until - now) / REDIS_MS + 1 : 0;

	for (unsigned i = 0; i < link->node_count; i++) {
		struct redis_node *node = link->nodes[i];

		if (node->connection.state == REDIS_CLOSED)
			continue;
		polled[count] = node;
		fds[count++] = (struct pollfd){.fd = redis_connection_fd(&node->connection),
			.events = redis_connection_events(&node->connection)};
		if (node->connection.state != REDIS_READY && node->connection.deadline_ns < now + ms * REDIS_MS)
			ms = node->connection.deadline_ns > now ? (node->connection.deadline_ns - now) / REDIS_MS + 1
								: 0;
	}
	if (poll(fds, count, (int)(ms < LOOK_MS ? ms : LOOK_MS)) < 0)
		return;
	now = time_mono_ns();
	for (unsigned i = 0; i < count; i++) {
		if (redis_connection_work(&polled[i]->connection, &link->options, fds[i].revents, now))
			node_failed(link, polled[i]);
		else
			read_answers(link, polled[i]);
		redis_link_note_ready(link, polled[i]);
	}
}

static uint64_t deadline_of(struct redis_link *link)
{
	uint64_t finish_by = atomic_load(&link->finish_by_ns);

	return finish_by < link->deadline_ns ? finish_by : link->deadline_ns;
}

/* What has not been answered. Its connection is closed: an answer that comes later must not be taken for that of a later call. The slots alone may be
 * late for the round, if they are not for themselves.
 */
static void end_node(struct redis_link *link, struct redis_node *node, uint64_t now)
{
	bool is_late = node->await_count && now >= node->slots_asked_ns + link->options.timeout_ms * REDIS_MS;

	for (unsigned i = 0; i < node->await_count; i++)
		is_late = is_late || node->awaits[node->await_first + i].call != REDIS_AWAIT_SLOTS;
	if (is_late) {
		link->was_late = true;
		broke(link, node, "it has not answered in time");
	} else if (node->is_replica) {
		redis_connection_close(&node->connection);
		drop_awaits(link, node);
		redis_link_note_ready(link, node);
	}
	node->is_replica = false;
}

static void end_round(struct redis_link *link, uint64_t now)
{
	for (unsigned i = 0; i < link->node_count; i++)
		end_node(link, link->nodes[i], now);
	for (unsigned i = 0; i < link->count; i++) {
		struct redis_node *node;

		if (link->flights[i].state == FLIGHT_DONE)
			continue;
		node = node_of(link, i, now);
		if (node)
			note_failure(link, node->connection.failure);
		finish(link, i, -ENOTCONN, NULL);
	}
}

/* Of a round of calls of which each is done. */
static void count_round(struct redis_link *link, uint64_t ns)
{
	struct redis_figures *figures = &link->figures;
	unsigned sent = 0;

	figures->connected = !link->was_unfit;
	for (unsigned i = 0; i < link->count; i++) {
		int error = link->calls[i].error;

		sent += error != -ENOTCONN;
		figures->connected = figures->connected && error != -ENOTCONN && error != -ETIMEDOUT;
	}
	figures->calls += sent;
	figures->rounds += !!sent;
	figures->timeouts += link->was_late;
	if (!figures->connected)
		return;
	figures->round_ns = ns;
	figures->whole++;
	figures->whole_ns += ns;
	figures->failure[0] = '\0';
}

void redis_link_round(struct redis_link *link, struct redis_call *calls, unsigned count)
{
	uint64_t began = time_mono_ns(), now = began;

	if (!begin_round(link, calls, count, now))
		return;
	while (move_calls(link, now) && now < deadline_of(link)) {
		poll_nodes(link, deadline_of(link), now);
		now = time_mono_ns();
	}
	end_round(link, now);
	count_round(link, now - began);
	if (link->kind == REDIS_CLUSTER && link->slots_told)
		sweep_nodes(link);
}

void redis_link_finish_by(struct redis_link *link, uint64_t mono_ns)
{
	atomic_store(&link->finish_by_ns, mono_ns);
}

void redis_link_figures(const struct redis_link *link, struct redis_figures *figures)
{
	*figures = link->figures;
	figures->subscribed = link->news_on && link->news.state == REDIS_READY;
	if (!figures->subscribed)
		snprintf(figures->deaf, sizeof(figures->deaf), "%s", link->news.failure);
}

uint64_t redis_link_resting_until(const struct redis_link *link)
{
	uint64_t now = time_mono_ns(), until = UINT64_MAX;

	for (unsigned i = 0; i < link->node_count; i++) {
		const struct redis_node *node = link->nodes[i];

		if (link->kind == REDIS_CLUSTER && !node->is_master && !node->is_seed)
			continue;
		if (!redis_connection_is_resting(&node->connection, now))
			return 0;
		if (node->connection.resting_until_ns < until)
			until = node->connection.resting_until_ns;
	}
	return until == UINT64_MAX ? 0 : until;
}
