/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The subscription of a link, and its waiting; see redis.h. The connection is of its own because one that is subscribed takes no other commands.
 *
 * Messages may be lost at any time (Redis does not keep them). So whoever subscribes anew is told to look, and a connection that is silent is asked
 * whether it is still there. A server that has left its cluster is, and carries nothing: only the slots tell that it has, so they are asked for too.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "common/timefmt.h"
#include "fleet/redis_impl.h"

#define PING_AFTER_NS (5000 * REDIS_MS)

int redis_link_subscribe(struct redis_link *link, const char *channel, redis_hear hear, void *arg)
{
	if (strlen(channel) >= sizeof(link->channel))
		return -ENAMETOOLONG;
	strcpy(link->channel, channel);
	link->hear = hear;
	link->hear_arg = arg;
	return 0;
}

static bool is_of_use(const struct redis_link *link, const struct redis_node *node)
{
	return link->kind != REDIS_CLUSTER || node->is_master;
}

/* Is the server that was chosen still one that carries messages? */
static bool is_server_of_use(const struct redis_link *link)
{
	const struct redis_connection *news = &link->news;

	for (unsigned i = 0; i < link->node_count; i++) {
		const struct redis_node *node = link->nodes[i];

		if (node->connection.port == news->port && !strcmp(node->connection.host, news->host))
			return is_of_use(link, node);
	}
	return false;
}

/* The next server in turn; the one after that if it fails. In a cluster any carries the messages of all. */
static void choose_server(struct redis_link *link, uint64_t now)
{
	struct redis_connection *news = &link->news;

	for (unsigned i = 0; i < link->node_count; i++) {
		const struct redis_node *node = link->nodes[link->news_turn++ % link->node_count];
		unsigned failures = news->failures;

		if (!is_of_use(link, node) || redis_connection_is_resting(&node->connection, now))
			continue;
		redis_connection_init(news, node->connection.host, node->connection.port);
		news->failures = failures;
		return;
	}
}

static void open_news(struct redis_link *link, uint64_t now)
{
	link->news_asked = link->news_on = link->news_pinged = false;
	if (redis_connection_is_resting(&link->news, now))
		return;
	choose_server(link, now);
	if (is_server_of_use(link))
		redis_connection_open(&link->news, &link->options, now);
}

static void send_word(struct redis_link *link, int argc, const char *const *argv, uint64_t now)
{
	uint64_t start;

	if (redis_connection_append(&link->news, argc, argv, NULL, &start))
		redis_connection_fail(&link->news, now, "no memory");
	link->news_heard_ns = now;
}

static void talk(struct redis_link *link, uint64_t now)
{
	const char *const subscribe[] = {"SUBSCRIBE", link->channel}, *const ping[] = {"PING"};
	uint64_t silent_ns = now - link->news_heard_ns;

	if (!link->news_asked) {
		link->news_asked = true;
		send_word(link, 2, subscribe, now);
	} else if ((!link->news_on || link->news_pinged) && silent_ns > link->options.timeout_ms * REDIS_MS) {
		redis_connection_fail(&link->news, now, "the subscription is silent");
	} else if (link->news_on && !link->news_pinged && silent_ns > PING_AFTER_NS) {
		link->news_pinged = link->is_stale = true;
		send_word(link, 1, ping, now);
	}
}

static void tell_news(const struct redis_link *link, const char *message)
{
	if (link->hear)
		link->hear(link->hear_arg, message);
}

/* Returns true if it says that there may be news. */
static bool hear(struct redis_link *link, const redisReply *reply, uint64_t now)
{
	const char *kind = reply->type == REDIS_REPLY_ARRAY && reply->elements && reply->element[0]->str
		? reply->element[0]->str
		: "";

	link->news_pinged = false;
	link->news_heard_ns = now;
	if (!strcmp(kind, "message")) {
		tell_news(link, reply->elements == 3 ? reply->element[2]->str : NULL);
		return true;
	}
	if (!strcmp(kind, "subscribe")) {
		link->news_on = true;
		link->news.failures = 0;
		tell_news(link, NULL);
		return true;
	}
	if (reply->type == REDIS_REPLY_ERROR)
		redis_connection_fail(&link->news, now, "it refuses the subscription: %.150s", reply->str);
	return false;
}

static bool hear_all(struct redis_link *link, uint64_t now)
{
	bool is_news = false;
	redisReply *reply;

	while (link->news.state == REDIS_READY) {
		if (redis_connection_reply(&link->news, &reply)) {
			redis_connection_fail(&link->news, now, "what it tells is not the protocol of Redis");
			break;
		}
		if (!reply)
			break;
		/* The bounds are those of one message: one that never ends must not begin anew with each piece of it. */
		redis_connection_begin_round(&link->news);
		is_news = hear(link, reply, now) || is_news;
		freeReplyObject(reply);
	}
	return is_news;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* When something of the subscription is due. */
static uint64_t news_due(const struct redis_link *link, uint64_t now)
{
	const struct redis_connection *news = &link->news;

	if (!*link->channel)
		return UINT64_MAX;
	if (news->state == REDIS_CLOSED)
		return redis_connection_is_resting(news, now) ? news->resting_until_ns : now + 10 * REDIS_MS;
	if (news->state != REDIS_READY)
		return news->deadline_ns;
	if (link->news_on && !link->news_pinged)
		return link->news_heard_ns + PING_AFTER_NS;
	return link->news_heard_ns + link->options.timeout_ms * REDIS_MS;
}

/* Connections that were begun in a round and not finished go on meanwhile. Returns true when one has become ready. */
static bool work_nodes(struct redis_link *link, const struct pollfd *fds, struct redis_node *const *nodes,
	unsigned count, uint64_t now)
{
	bool is_ready = false;

	for (unsigned i = 0; i < count; i++) {
		struct redis_connection *connection = &nodes[i]->connection;

		if (redis_connection_work(connection, &link->options, fds[i].revents, now))
			continue;
		is_ready = is_ready || connection->state == REDIS_READY;
		redis_link_note_ready(link, nodes[i]);
	}
	return is_ready;
}

bool redis_link_wait(struct redis_link *link, int wake_fd, uint64_t until_mono_ns)
{
	struct pollfd fds[2 + REDIS_NODES_MAX];
	struct redis_node *nodes[REDIS_NODES_MAX];
	bool is_news = false;

	for (;;) {
		uint64_t now = time_mono_ns(), due = until_mono_ns;
		unsigned count = 0;

		if (link->news.state != REDIS_CLOSED && !is_server_of_use(link))
			redis_connection_close(&link->news);
		if (*link->channel && link->news.state == REDIS_CLOSED)
			open_news(link, now);
		if (link->news.state == REDIS_READY)
			talk(link, now);
		due = earlier(due, news_due(link, now));
		for (unsigned i = 0; i < link->node_count; i++) {
			struct redis_connection *connection = &link->nodes[i]->connection;

			if (connection->state == REDIS_CLOSED || connection->state == REDIS_READY)
				continue;
			due = earlier(due, connection->deadline_ns);
			nodes[count] = link->nodes[i];
			fds[2 + count++] = (struct pollfd){
				.fd = redis_connection_fd(connection), .events = redis_connection_events(connection)};
		}
		fds[0] = (struct pollfd){.fd = wake_fd, .events = POLLIN};
		fds[1] = (struct pollfd){
			.fd = redis_connection_fd(&link->news), .events = redis_connection_events(&link->news)};
		if (poll(fds, 2 + count, due > now ? (int)earlier((due - now) / REDIS_MS + 1, 60000) : 0) < 0)
			return false;
		now = time_mono_ns();
		if (link->news.state != REDIS_CLOSED) {
			redis_connection_work(&link->news, &link->options, fds[1].revents, now);
			is_news = hear_all(link, now);
		}
		if (work_nodes(link, fds + 2, nodes, count, now) || is_news || fds[0].revents || now >= until_mono_ns)
			return is_news;
	}
}
