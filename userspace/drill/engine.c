/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The engine of the crowd; see engine.h. Economy matters, since server and crowd share the machine's CPUs: one edge-triggered
 * registration per socket, answers parsed in one shared buffer (nearly all arrive in one piece), timers in a binary heap
 * whose stale entries are recognised by a generation number instead of being searched for.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/timefmt.h"
#include "drill/engine.h"

#define EVENTS_MAX 256
#define READ_BUFFER ((size_t)64 << 10)
#define ANSWER_MAX ((size_t)64 << 10)
#define SPARE_FDS 64 /* for everything that is not a connection */
#define WAIT_MAX_MS 100
#define NS_PER_MS 1000000ULL
#define NO_CONNECTION UINT32_MAX

struct connection {
	int fd;    /* -1: none, or could not be opened */
	bool busy; /* the slot is taken */
	uint32_t generation;
	uint32_t next_free;
	bool connected, sent, leave;
	uint32_t leave_after_ms;
	int error; /* of a failed connect(), reported from the loop */
	uint64_t started_ns;
	drill_done_fn done;
	void *actor;
	uint32_t tag;
	uint32_t request_length;
	char *part; /* an answer that came in pieces */
	size_t part_length;
	char request[DRILL_REQUEST_MAX];
};

struct timer {
	uint64_t due_ns;
	drill_timer_fn fn; /* NULL: a deadline of connection `tag` in generation `generation` */
	void *actor;
	uint32_t tag;
	uint32_t generation;
};

struct drill_engine {
	void *context;
	int epoll;
	struct connection *connections;
	uint32_t connections_max, first_free;
	struct timer *heap;
	size_t timers, timers_max;
	size_t callbacks; /* timers that are not deadlines of connections */
	char *buffer;
	struct drill_engine_stats stats;
};

static uint32_t raise_file_limit(uint32_t wanted)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return wanted;
	if (limit.rlim_cur < wanted + SPARE_FDS) {
		struct rlimit more = {wanted + SPARE_FDS, limit.rlim_max};

		if (more.rlim_max < more.rlim_cur)
			more.rlim_max = more.rlim_cur;
		if (!setrlimit(RLIMIT_NOFILE, &more))
			return wanted;
		limit.rlim_cur = limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &limit) || getrlimit(RLIMIT_NOFILE, &limit))
			return wanted / 4;
	}
	if (limit.rlim_cur >= wanted + SPARE_FDS)
		return wanted;
	return limit.rlim_cur > 2 * SPARE_FDS ? (uint32_t)limit.rlim_cur - SPARE_FDS : SPARE_FDS;
}

struct drill_engine *drill_engine_new(void *context, uint32_t connections_max)
{
	struct drill_engine *engine = calloc(1, sizeof(*engine));

	if (!engine)
		return NULL;
	engine->context = context;
	engine->connections_max = raise_file_limit(connections_max);
	engine->epoll = epoll_create1(EPOLL_CLOEXEC);
	engine->connections = calloc(engine->connections_max, sizeof(*engine->connections));
	engine->buffer = malloc(READ_BUFFER);
	if (engine->epoll < 0 || !engine->connections || !engine->buffer) {
		drill_engine_free(engine);
		errno = ENOMEM;
		return NULL;
	}
	for (uint32_t i = 0; i < engine->connections_max; i++) {
		engine->connections[i].fd = -1;
		engine->connections[i].next_free = i + 1 < engine->connections_max ? i + 1 : NO_CONNECTION;
	}
	return engine;
}

void drill_engine_free(struct drill_engine *engine)
{
	if (!engine)
		return;
	for (uint32_t i = 0; engine->connections && i < engine->connections_max; i++) {
		if (engine->connections[i].fd >= 0)
			close(engine->connections[i].fd);
		free(engine->connections[i].part);
	}
	if (engine->epoll >= 0)
		close(engine->epoll);
	free(engine->connections);
	free(engine->heap);
	free(engine->buffer);
	free(engine);
}

const struct drill_engine_stats *drill_engine_stats(const struct drill_engine *engine)
{
	return &engine->stats;
}

/* --- timers ---------------------------------------------------------------------------------------------------------- */

static int timer_add(struct drill_engine *engine, const struct timer *timer)
{
	size_t at = engine->timers;

	if (at == engine->timers_max) {
		size_t more = engine->timers_max ? engine->timers_max * 2 : 1024;
		struct timer *heap = realloc(engine->heap, more * sizeof(*heap));

		if (!heap)
			return -ENOMEM;
		engine->heap = heap;
		engine->timers_max = more;
	}
	engine->timers++;
	while (at && engine->heap[(at - 1) / 2].due_ns > timer->due_ns) {
		engine->heap[at] = engine->heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	engine->heap[at] = *timer;
	return 0;
}

static struct timer timer_take(struct drill_engine *engine)
{
	struct timer first = engine->heap[0];
	struct timer last = engine->heap[--engine->timers];
	size_t at = 0;

	for (;;) {
		size_t child = at * 2 + 1;

		if (child >= engine->timers)
			break;
		if (child + 1 < engine->timers && engine->heap[child + 1].due_ns < engine->heap[child].due_ns)
			child++;
		if (engine->heap[child].due_ns >= last.due_ns)
			break;
		engine->heap[at] = engine->heap[child];
		at = child;
	}
	if (engine->timers)
		engine->heap[at] = last;
	return first;
}

int drill_engine_at(struct drill_engine *engine, uint64_t due_ns, drill_timer_fn fn, void *actor, uint32_t tag)
{
	const struct timer timer = {.due_ns = due_ns, .fn = fn, .actor = actor, .tag = tag};
	int err = timer_add(engine, &timer);

	if (!err)
		engine->callbacks++;
	return err;
}

static int deadline_add(struct drill_engine *engine, uint32_t index, uint64_t due_ns)
{
	const struct timer timer = {
		.due_ns = due_ns, .tag = index, .generation = engine->connections[index].generation};

	return timer_add(engine, &timer);
}

/* --- connections ------------------------------------------------------------------------------------------------------ */

/* Frees the slot before it calls back, so that the callback can use it again. */
static void finish(struct drill_engine *engine, uint32_t index, struct drill_result *result)
{
	struct connection *connection = &engine->connections[index];
	drill_done_fn done = connection->done;
	void *actor = connection->actor;
	uint32_t tag = connection->tag;
	char *part = connection->part;

	result->started_ns = connection->started_ns;
	result->ended_ns = time_mono_ns();
	result->connected = connection->connected;
	if (connection->fd >= 0)
		close(connection->fd);
	connection->fd = -1;
	connection->busy = false;
	connection->part = NULL;
	connection->part_length = 0;
	connection->generation++;
	connection->next_free = engine->first_free;
	engine->first_free = index;
	engine->stats.open--;
	engine->stats.outcomes[result->outcome]++;
	done(engine->context, actor, tag, result);
	free(part);
}

static void finish_plain(struct drill_engine *engine, uint32_t index, enum drill_outcome outcome, int error)
{
	struct drill_result result = {.outcome = outcome, .error = error};

	finish(engine, index, &result);
}

static void hang_up(struct drill_engine *engine, uint32_t index)
{
	const struct linger now = {.l_onoff = 1, .l_linger = 0};

	setsockopt(engine->connections[index].fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	finish_plain(engine, index, DRILL_LEFT, 0);
}

static enum drill_outcome outcome_of(int error)
{
	switch (error) {
	case ECONNRESET:
	case EPIPE:
		return DRILL_RESET;
	case ETIMEDOUT:
		return DRILL_TIMED_OUT;
	case ECONNREFUSED:
	case EHOSTUNREACH:
	case ENETUNREACH:
		return DRILL_REFUSED;
	default:
		return DRILL_LOCAL;
	}
}

static int open_socket(const struct drill_exchange *exchange)
{
	int one = 1, err;
	int fd = socket(exchange->target->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (exchange->source) {
		/* the port is chosen at connect(), when the 4-tuple is known: else 64k ports are all there is */
		setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
		if (exchange->source->any.sa_family == AF_INET6)
			setsockopt(fd, IPPROTO_IPV6, IPV6_FREEBIND, &one, sizeof(one));
		else
			setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &one, sizeof(one));
		if (bind(fd, &exchange->source->any, drill_address_length(exchange->source)))
			goto failed;
	}
	if (connect(fd, &exchange->target->any, drill_address_length(exchange->target)) && errno != EINPROGRESS)
		goto failed;
	return fd;
failed:
	err = -errno;
	close(fd);
	return err;
}

int drill_engine_start(struct drill_engine *engine, const struct drill_exchange *exchange)
{
	uint32_t index = engine->first_free;
	struct connection *connection;
	struct epoll_event event;
	uint64_t due_ns;

	if (exchange->length > DRILL_REQUEST_MAX)
		return -EMSGSIZE;
	if (index == NO_CONNECTION)
		return -EAGAIN;
	connection = &engine->connections[index];
	engine->first_free = connection->next_free;
	engine->stats.connections++;
	if (++engine->stats.open > engine->stats.open_peak)
		engine->stats.open_peak = engine->stats.open;
	connection->busy = true;
	connection->connected = connection->sent = false;
	connection->leave = exchange->leave;
	connection->leave_after_ms = exchange->leave_after_ms;
	connection->done = exchange->done;
	connection->actor = exchange->actor;
	connection->tag = exchange->tag;
	connection->request_length = (uint32_t)exchange->length;
	if (exchange->length)
		memcpy(connection->request, exchange->request, exchange->length);
	connection->started_ns = time_mono_ns();
	due_ns = connection->started_ns + exchange->timeout_ms * NS_PER_MS;
	connection->fd = open_socket(exchange);
	connection->error = connection->fd < 0 ? -connection->fd : 0;
	if (!connection->error) {
		event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
		event.data.u64 = (uint64_t)connection->generation << 32 | index;
		if (epoll_ctl(engine->epoll, EPOLL_CTL_ADD, connection->fd, &event))
			connection->error = errno;
	}
	if (connection->error)
		due_ns = connection->started_ns; /* the loop reports it at once */
	if (deadline_add(engine, index, due_ns)) {
		if (connection->fd >= 0)
			close(connection->fd);
		connection->fd = -1;
		connection->busy = false;
		connection->generation++;
		connection->next_free = engine->first_free;
		engine->first_free = index;
		engine->stats.open--;
		return -ENOMEM;
	}
	return 0;
}

/* The connection stands, or has failed: send the request. Returns false if the connection is finished. */
static bool send_request(struct drill_engine *engine, uint32_t index)
{
	struct connection *connection = &engine->connections[index];
	ssize_t sent;

	connection->sent = true;
	if (!connection->request_length) {
		int error = 0;
		socklen_t length = sizeof(error);

		getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &length);
		if (error) {
			finish_plain(engine, index, outcome_of(error), error);
			return false;
		}
		connection->connected = true;
		return true;
	}
	sent = send(connection->fd, connection->request, connection->request_length, MSG_NOSIGNAL);
	if (sent < 0 && (errno == EAGAIN || errno == ENOTCONN)) {
		connection->sent = false;
		return true;
	}
	if (sent != (ssize_t)connection->request_length) {
		/* a fresh socket's buffer takes a request of a few hundred bytes whole */
		int error = sent < 0 ? errno : EIO;

		finish_plain(engine, index, outcome_of(error), error);
		return false;
	}
	connection->connected = true;
	if (!connection->leave)
		return true;
	if (!connection->leave_after_ms) {
		hang_up(engine, index);
		return false;
	}
	deadline_add(engine, index, time_mono_ns() + connection->leave_after_ms * NS_PER_MS);
	return true;
}

/* Adds what is in the shared buffer to the connection's own. Returns 0 or an errno. */
static int keep_part(struct connection *connection, const char *bytes, size_t length)
{
	char *part;

	if (connection->part_length + length > ANSWER_MAX)
		return EMSGSIZE;
	part = realloc(connection->part, connection->part_length + length);
	if (!part)
		return ENOMEM;
	memcpy(part + connection->part_length, bytes, length);
	connection->part = part;
	connection->part_length += length;
	return 0;
}

static void read_answer(struct drill_engine *engine, uint32_t index)
{
	struct connection *connection = &engine->connections[index];
	struct drill_result result = {0};

	for (;;) {
		ssize_t got = recv(connection->fd, engine->buffer, READ_BUFFER, 0);
		const char *bytes = engine->buffer;
		size_t length = got > 0 ? (size_t)got : 0;
		int state, err;

		if (got < 0) {
			if (errno != EAGAIN && errno != EINTR)
				finish_plain(engine, index, outcome_of(errno), errno);
			return;
		}
		if (connection->leave) {
			if (got)
				continue; /* an answer to somebody who does not look */
			hang_up(engine, index);
			return;
		}
		if (connection->part || !length) {
			err = length ? keep_part(connection, bytes, length) : 0;
			if (err) {
				finish_plain(engine, index, err == ENOMEM ? DRILL_LOCAL : DRILL_NOT_HTTP, err);
				return;
			}
			bytes = connection->part;
			length = connection->part_length;
		}
		if (!got && !length) {
			finish_plain(engine, index, DRILL_CUT_OFF, 0);
			return;
		}
		state = drill_http_parse(bytes, length, !got, &result.http);
		if (state > 0) {
			result.outcome = DRILL_ANSWERED;
			result.body = bytes + result.http.head_length;
			finish(engine, index, &result);
			return;
		}
		if (state < 0) {
			finish_plain(engine, index, got ? DRILL_NOT_HTTP : DRILL_CUT_OFF, -state);
			return;
		}
		if (!connection->part) {
			err = keep_part(connection, bytes, length);
			if (err) {
				finish_plain(engine, index, DRILL_LOCAL, err);
				return;
			}
		}
	}
}

static void deadline_passed(struct drill_engine *engine, uint32_t index)
{
	struct connection *connection = &engine->connections[index];

	if (connection->error)
		finish_plain(engine, index, outcome_of(connection->error), connection->error);
	else if (connection->connected && (connection->leave || !connection->request_length))
		hang_up(engine, index);
	else
		finish_plain(engine, index, DRILL_TIMED_OUT, 0);
}

static void run_timers(struct drill_engine *engine, uint64_t now_ns)
{
	while (engine->timers && engine->heap[0].due_ns <= now_ns) {
		struct timer timer = timer_take(engine);

		if (timer.fn) {
			engine->callbacks--;
			timer.fn(engine->context, timer.actor, timer.tag);
			continue;
		}
		if (engine->connections[timer.tag].busy &&
			engine->connections[timer.tag].generation == timer.generation)
			deadline_passed(engine, timer.tag);
	}
}

static int wait_ms(const struct drill_engine *engine, uint64_t now_ns, uint64_t until_ns)
{
	uint64_t due_ns = until_ns;

	if (engine->timers && engine->heap[0].due_ns < due_ns)
		due_ns = engine->heap[0].due_ns;
	if (due_ns <= now_ns)
		return 0;
	due_ns = (due_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS;
	return due_ns > WAIT_MAX_MS ? WAIT_MAX_MS : (int)due_ns;
}

int drill_engine_run(struct drill_engine *engine, uint64_t until_ns, const volatile int *stop)
{
	struct epoll_event events[EVENTS_MAX];

	while (!*stop) {
		uint64_t now_ns = time_mono_ns();
		int count;

		if (now_ns >= until_ns || (!engine->callbacks && !engine->stats.open))
			return 0;
		count = epoll_wait(engine->epoll, events, EVENTS_MAX, wait_ms(engine, now_ns, until_ns));
		if (count < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < count; i++) {
			uint32_t index = (uint32_t)events[i].data.u64;
			struct connection *connection = &engine->connections[index];

			/* finished by an earlier event of this batch */
			if (!connection->busy || connection->generation != (uint32_t)(events[i].data.u64 >> 32))
				continue;
			if (!connection->sent && !send_request(engine, index))
				continue;
			if (events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
				read_answer(engine, index);
		}
		run_timers(engine, time_mono_ns());
	}
	return 0;
}
