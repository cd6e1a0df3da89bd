/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The writer's poll loop. Called by main.c.
 *
 * One thread on purpose: SQLite has one writer, and a frame (up to 4,096 orders) is what is committed as a group, so a
 * second thread would only wait. Reading and writing never block: a daemon that stops in the middle of a frame, or
 * does not read its answers, holds up nobody, and the next daemon's connection takes its place.
 *
 * An acknowledgement is put together after the store has said that the transaction is durable, never before.
 */
#include "writer/server.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/realtime.h"
#include "common/timefmt.h"
#include "common/wire.h"
#include "writer/query.h"

/* How long the last answer may take to leave when the writer stops. */
#define STOP_FLUSH_MS 1000

struct connection {
	int fd; /* -1 = none */
	/* the frame that is being read */
	struct wire_header header;
	size_t have; /* bytes of header and body */
	uint8_t *body;
	size_t capacity;
	/* the answer that is being sent; while there is one, nothing is read */
	uint8_t *out;
	size_t out_capacity;
	size_t out_length;
	size_t out_sent;
};

struct server {
	struct store *store;
	const char *ledger;
	struct connection peer;
	int candidate;         /* a connection that has not said anything yet; -1 = none */
	struct wire_ack *acks; /* WIRE_BATCH_MAX */
};

static void drop_peer(struct connection *peer)
{
	if (peer->fd >= 0)
		close(peer->fd);
	peer->fd = -1;
	peer->have = 0;
	peer->out_length = 0;
	peer->out_sent = 0;
}

static int grow(uint8_t **buffer, size_t *capacity, size_t wanted)
{
	uint8_t *grown;

	if (wanted <= *capacity)
		return 0;
	grown = realloc(*buffer, wanted);
	if (!grown)
		return -ENOMEM;
	*buffer = grown;
	*capacity = wanted;
	return 0;
}

static int put_answer(struct connection *peer, enum wire_type type, const void *body, size_t length)
{
	struct wire_header header = {.magic = WIRE_MAGIC,
		.version = WIRE_VERSION,
		.type = (uint16_t)type,
		.id = peer->header.id,
		.length = (uint32_t)length};

	if (length > WIRE_BODY_MAX)
		return -EMSGSIZE;
	if (grow(&peer->out, &peer->out_capacity, sizeof(header) + length))
		return -ENOMEM;
	memcpy(peer->out, &header, sizeof(header));
	memcpy(peer->out + sizeof(header), body, length);
	peer->out_length = sizeof(header) + length;
	peer->out_sent = 0;
	return 0;
}

/* Takes over `text`. NULL = memory is out; the connection then ends, which tells the daemon to ask again. */
static int put_json(struct connection *peer, enum wire_type type, char *text)
{
	int error = text ? put_answer(peer, type, text, strlen(text)) : -ENOMEM;

	free(text);
	return error;
}

/* One line for a batch, however many were refused: the log must not become the bottleneck of a night that goes wrong. */
static void log_refused(const struct store_refused *refused, unsigned count)
{
	log_error(
		"ALARM: the ledger refused %u of %u admitted records: %u above the stock put in, %u above the buyer's limit, "
		"%u of an unknown sale, %u with the serial of another order, %u without a unit; the first is order %016" PRIx64,
		refused->total, count, refused->count[STORE_REFUSED_PUT_IN], refused->count[STORE_REFUSED_BUYER_LIMIT],
		refused->count[STORE_REFUSED_UNKNOWN_SALE], refused->count[STORE_REFUSED_MISMATCH],
		refused->count[STORE_REFUSED_QUANTITY], refused->first_serial);
}

static int answer_admit(struct server *server)
{
	struct connection *peer = &server->peer;
	unsigned count = peer->header.length / sizeof(struct wire_admit);
	struct store_refused refused;
	/* realloc aligns for every type, and the body begins at the buffer's start */
	int error = server->store->ops->admit(server->store, (const struct wire_admit *)(const void *)peer->body, count,
		time_wall_ns(), server->acks, &refused);

	if (error)
		return put_json(peer, WIRE_ERROR, writer_query_error(error, server->store->error));
	if (refused.total)
		log_refused(&refused, count);
	return put_answer(peer, WIRE_ADMIT, server->acks, count * sizeof(*server->acks));
}

static int answer_frame(struct server *server)
{
	struct connection *peer = &server->peer;
	enum wire_type type;
	char *text;

	switch (peer->header.type) {
	case WIRE_ADMIT:
		return answer_admit(server);
	case WIRE_HELLO:
		type = writer_query_hello(server->store, server->ledger, peer->body, peer->header.length, &text);
		return put_json(peer, type, text);
	default:
		type = writer_query_answer(server->store, peer->body, peer->header.length, time_wall_ns(), &text);
		return put_json(peer, type, text);
	}
}

/* Returns NULL, or what is wrong. Decided on the header alone, before memory is given for the body. */
static const char *malformed(const struct wire_header *header)
{
	if (wire_header_check(header))
		return "magic, version or length";
	switch (header->type) {
	case WIRE_HELLO:
	case WIRE_QUERY:
		return header->length ? NULL : "empty body";
	case WIRE_ADMIT:
		if (!header->length || header->length % sizeof(struct wire_admit))
			return "length of an ADMIT is not that of whole records";
		if (header->length / sizeof(struct wire_admit) > WIRE_BATCH_MAX)
			return "too many records in an ADMIT";
		return NULL;
	default:
		return "type of frame";
	}
}

/* Sends what the socket takes. Returns 0 or negative errno. */
static int send_some(struct connection *peer)
{
	while (peer->out_sent < peer->out_length) {
		ssize_t sent = send(peer->fd, peer->out + peer->out_sent, peer->out_length - peer->out_sent,
			MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent >= 0)
			peer->out_sent += (size_t)sent;
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			return 0;
		else if (errno != EINTR)
			return -errno;
	}
	peer->out_length = 0;
	peer->out_sent = 0;
	return 0;
}

/* Reads on in the current frame. Returns 1 when it is whole, 0 if there is no more for now, negative errno at the end
 * of the connection.
 */
static int read_some(struct connection *peer)
{
	for (;;) {
		size_t head = sizeof(peer->header);
		bool in_body = peer->have >= head;
		uint8_t *into = in_body ? peer->body + (peer->have - head) : (uint8_t *)&peer->header + peer->have;
		size_t room = (in_body ? head + peer->header.length : head) - peer->have;
		ssize_t got = recv(peer->fd, into, room, MSG_DONTWAIT);
		const char *wrong;

		if (got == 0)
			return peer->have ? -ECONNRESET : -ENOTCONN;
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
		peer->have += (size_t)got;
		if (peer->have == head) {
			wrong = malformed(&peer->header);
			if (wrong) {
				log_error("malformed frame (%s; type %u, %u bytes): the connection is closed", wrong,
					(unsigned)peer->header.type, (unsigned)peer->header.length);
				return -EPROTO;
			}
			if (grow(&peer->body, &peer->capacity, peer->header.length))
				return -ENOMEM;
		} else if (in_body && peer->have == head + peer->header.length) {
			peer->have = 0;
			return 1;
		}
	}
}

static void end_peer(struct connection *peer, int error)
{
	if (error == -ENOTCONN)
		log_info("the daemon closed the connection");
	else if (error != -EPROTO) /* logged where it was found */
		log_warn("the connection to the daemon ended: %s", strerror(-error));
	drop_peer(peer);
}

static void serve_peer(struct server *server)
{
	struct connection *peer = &server->peer;
	int error;

	if (peer->out_length) {
		error = send_some(peer);
	} else {
		error = read_some(peer);
		if (error == 1) {
			error = answer_frame(server);
			if (!error)
				error = send_some(peer);
			server->store->ops->maintain(server->store, time_wall_ns());
		}
	}
	if (error < 0)
		end_peer(peer, error);
}

static void drop_candidate(struct server *server)
{
	if (server->candidate >= 0)
		close(server->candidate);
	server->candidate = -1;
}

static void accept_candidate(struct server *server, int listen_fd)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			log_error("cannot accept a connection: %s", strerror(errno));
		return;
	}
	drop_candidate(server);
	server->candidate = fd;
}

/* The first byte makes a connection the daemon's, in place of the one before. One that ends without a word was only
 * looking if somebody listens (wire_listen of a second writer does so) and must not cost the daemon its connection.
 */
static void promote_candidate(struct server *server)
{
	struct connection *peer = &server->peer;
	struct ucred credentials = {.pid = 0};
	socklen_t length = sizeof(credentials);
	char first;

	if (recv(server->candidate, &first, 1, MSG_PEEK | MSG_DONTWAIT) != 1) {
		drop_candidate(server);
		return;
	}
	if (peer->fd >= 0)
		log_warn("a new connection replaces the one before");
	drop_peer(peer);
	peer->fd = server->candidate;
	server->candidate = -1;
	getsockopt(peer->fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length);
	log_info("the daemon is connected (pid %d, uid %u)", (int)credentials.pid, (unsigned)credentials.uid);
}

/* Gives the answer of the last transaction the chance to leave. What is lost is delivered again and then KNOWN. */
static void flush_peer(struct connection *peer)
{
	struct pollfd poller = {.fd = peer->fd, .events = POLLOUT};

	while (peer->fd >= 0 && peer->out_length && poll(&poller, 1, STOP_FLUSH_MS) > 0)
		if (send_some(peer))
			break;
}

int writer_server_run(struct store *store, const char *ledger, int listen_fd, int stop_fd)
{
	struct server server = {.store = store, .ledger = ledger, .peer = {.fd = -1}, .candidate = -1};
	struct connection *peer = &server.peer;
	int result = 0;

	server.acks = calloc(WIRE_BATCH_MAX, sizeof(*server.acks));
	if (!server.acks)
		return -ENOMEM;
	for (;;) {
		struct pollfd pollers[] = {
			{.fd = stop_fd, .events = POLLIN},
			{.fd = listen_fd, .events = POLLIN},
			{.fd = server.candidate, .events = POLLIN},
			{.fd = peer->fd, .events = peer->out_length ? POLLOUT : POLLIN},
		};

		if (poll(pollers, sizeof(pollers) / sizeof(*pollers), -1) < 0) {
			if (errno == EINTR)
				continue;
			result = -errno;
			break;
		}
		realtime_look(time_mono_ns());
		if (pollers[0].revents)
			break;
		if (pollers[1].revents)
			accept_candidate(&server, listen_fd);
		else if (pollers[2].revents)
			promote_candidate(&server);
		else if (pollers[3].revents)
			serve_peer(&server);
	}
	flush_peer(peer);
	drop_peer(peer);
	drop_candidate(&server);
	free(peer->body);
	free(peer->out);
	free(server.acks);
	return result;
}
