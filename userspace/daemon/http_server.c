/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* One libmicrohttpd daemon per listener, and the way of a request through it: begin, body, route, handler, end.
 *
 * The public listener has event loops of its own and handlers that never wait; the control listeners have a thread per connection, because their
 * handlers wait for the order writer. So neither can starve the other.
 * Promises: a handler sees the whole body, never more than the listener's limit; every request gets an answer or a closed connection; who is
 * silent or slow keeps nobody out (http_connections.c).
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/addr.h"
#include "common/log.h"
#include "common/timefmt.h"
#include "daemon/fleet_homes.h"
#include "daemon/heartbeat.h"
#include "daemon/http.h"
#include "daemon/problems.h"

#define CONNECTION_MEMORY 16384 /* request line and headers; libmicrohttpd answers 431 or 414 beyond it */
/* A body that is far too long is not read to its end. */
#define BODY_GIVE_UP_FACTOR 16
#define LABEL_NONE "none"
#define MS_PER_S 1000u
/* What a thread may take to be started and to read a request that is there already, on a busy machine. */
#define ACCEPT_GRACE_MS 100

struct http_server {
	struct MHD_Daemon *mhd;
	struct http_connections *connections;
};

static void on_log(void *arg, const char *format, va_list args)
{
	char line[512];
	size_t length;

	(void)arg;
	vsnprintf(line, sizeof(line), format, args);
	length = strcspn(line, "\n");
	log_debug("http: %.*s", (int)length, line);
}

/* False for a Unix socket. */
static bool source_of(struct MHD_Connection *connection, struct sluice_addr *source)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

	return info && info->client_addr && info->client_addr->sa_family != AF_UNIX &&
		!addr_from_sockaddr(info->client_addr, source);
}

static void on_connection(
	void *arg, struct MHD_Connection *connection, void **socket_context, enum MHD_ConnectionNotificationCode code)
{
	struct http_server *server = arg;
	const union MHD_ConnectionInfo *info;
	struct sluice_addr source;

	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
		*socket_context = info ? http_connection_open(server->connections, info->connect_fd,
						 source_of(connection, &source) ? &source : NULL, time_mono_ns())
				       : NULL;
	} else {
		http_connection_close(*socket_context);
		*socket_context = NULL;
	}
}

static void request_free(struct http_request *request)
{
	free(request->method);
	free(request->path);
	free(request->body);
	json_decref(request->later);
	fleet_homes_release(request->d, request->home);
	free(request);
}

static void on_completed(
	void *arg, struct MHD_Connection *connection, void **context, enum MHD_RequestTerminationCode code)
{
	(void)arg;
	(void)connection;
	(void)code;
	if (*context)
		request_free(*context);
	*context = NULL;
}

/* Paths and arguments are decoded by the routes, piece by piece, so that an escaped slash stays inside its piece. */
static size_t keep_escapes(void *arg, struct MHD_Connection *connection, char *text)
{
	(void)arg;
	(void)connection;
	return strlen(text);
}

/* The path of a target in absolute form, which a server must accept too (RFC 9112 section 3.2.2). The host says nothing here. */
static const char *path_of(const char *target)
{
	const char *authority = NULL;

	if (!strncasecmp(target, "http://", 7))
		authority = target + 7;
	else if (!strncasecmp(target, "https://", 8))
		authority = target + 8;
	if (!authority)
		return target;
	target = strchr(authority, '/');
	return target ? target : "/";
}

static struct http_request *request_new(
	struct http_listener *listener, struct MHD_Connection *connection, const char *path, const char *method)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct http_request *request = calloc(1, sizeof(*request));

	if (!request)
		return NULL;
	request->listener = listener;
	request->d = listener->d;
	request->connection = connection;
	request->label = LABEL_NONE;
	request->place = info ? info->socket_context : NULL;
	request->is_first = http_connection_first(request->place);
	request->method = strdup(method);
	request->path = strdup(path_of(path));
	source_of(connection, &request->source);
	if (request->method && request->path)
		return request;
	request_free(request);
	return NULL;
}

static bool ignores_body(const struct http_request *request)
{
	return request->listener->ignores_body && request->listener->ignores_body(request);
}

static int take_body(struct http_request *request, const char *bytes, size_t length)
{
	size_t limit = request->body_max;
	char *body;

	request->body_seen += length;
	if (request->body_seen > limit || ignores_body(request))
		return request->body_seen > limit * BODY_GIVE_UP_FACTOR ? -E2BIG : 0;
	body = realloc(request->body, request->body_length + length + 1);
	if (!body)
		return -ENOMEM;
	memcpy(body + request->body_length, bytes, length);
	request->body = body;
	request->body_length += length;
	body[request->body_length] = '\0';
	return 0;
}

static enum MHD_Result send_too_long(struct http_request *request)
{
	return http_problem(request, 413, "body_too_long", "The body of a request may have up to %zu bytes here.",
		request->body_max);
}

static enum MHD_Result on_header(
	void *arg, enum MHD_ValueKind kind, const char *name, size_t name_size, const char *value, size_t value_size)
{
	(void)kind;
	http_framing_add(arg, name, name_size, value, value_size);
	return MHD_YES;
}

/* False after having answered: where this request ends is not certain, so it is the last of its connection and is not acted upon. */
static bool check_framing(struct http_request *request, enum MHD_Result *result)
{
	struct http_framing framing = {0};

	MHD_get_connection_values_n(request->connection, MHD_HEADER_KIND, on_header, &framing);
	request->must_close = framing.is_malformed || (framing.is_chunked && framing.length);
	if (!framing.is_malformed)
		return true;
	*result = http_problem(request, 400, "malformed_headers",
		"The headers do not say clearly where this request ends, or have a name or a byte that headers may not have.");
	return false;
}

static enum MHD_Result send_method_not_allowed(struct http_request *request, const char *allow)
{
	json_t *json = json_pack("{s:s, s:s, s:i, s:s, s:s+}", "type", PROBLEM_TYPE_PREFIX "method_not_allowed",
		"title", "Method Not Allowed", "status", 405, "code", "method_not_allowed", "detail",
		"Allowed here: ", allow);
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	struct MHD_Response *response =
		text ? MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE) : NULL;

	json_decref(json);
	if (response) {
		MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/problem+json");
		MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
		MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, allow);
	}
	return http_send(request, 405, response);
}

/* Finds the route; returns false after having answered. */
static bool find_route(struct http_request *request, enum MHD_Result *result)
{
	const char *method = strcmp(request->method, "HEAD") ? request->method : "GET";
	char allow[96] = "";

	for (const struct http_route *route = request->listener->routes; route->method; route++) {
		int match = http_match(route->pattern, request->path, request->captures);

		if (!match)
			continue;
		request->label = route->label;
		if (match < 0) {
			*result = http_problem(request, 400, "malformed_path",
				"The path has an escape that cannot be read, or a part that is too long.");
			return false;
		}
		if (!strcmp(route->method, method)) {
			request->route = route;
			return true;
		}
		if (!strstr(allow, route->method))
			snprintf(allow + strlen(allow), sizeof(allow) - strlen(allow), "%s%s", *allow ? ", " : "",
				route->method);
	}
	if (*allow)
		*result = send_method_not_allowed(request, allow);
	else
		*result = http_problem(request, 404, "not_found", "There is nothing at this path.");
	return false;
}

/* Once for each request. False after having answered. */
static bool admit(struct http_request *request, enum MHD_Result *result)
{
	if (request->is_admitted || !request->listener->admit)
		return true;
	request->is_admitted = true;
	return request->listener->admit(request, result);
}

static enum MHD_Result dispatch(struct http_request *request)
{
	enum MHD_Result result = MHD_NO;

	if (request->has_waited)
		return request->route->handle(request);
	if (!admit(request, &result))
		return result;
	if (request->body_seen > request->body_max && !ignores_body(request))
		return send_too_long(request);
	if (!find_route(request, &result))
		return result;
	return request->listener->handle ? request->listener->handle(request) : request->route->handle(request);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
	const char *version, const char *upload, size_t *upload_size, void **context)
{
	struct http_listener *listener = arg;
	struct http_request *request = *context;
	enum MHD_Result result = MHD_NO;

	(void)version;
	if (!request) {
		const char *length;

		*context = request = request_new(listener, connection, url, method);
		if (!request)
			return MHD_NO;
		if (!check_framing(request, &result))
			return result;
		/* The body of somebody without the secret is not read. */
		if (listener->needs_secret && !admit(request, &result))
			return result;
		request->body_max = listener->body_max_of ? listener->body_max_of(request) : listener->body_max;
		/* A body that says in advance that it is too long is refused before it is sent. */
		length = http_header(request, MHD_HTTP_HEADER_CONTENT_LENGTH);
		if (length && strtoull(length, NULL, 10) > request->body_max && !ignores_body(request))
			return send_too_long(request);
		return MHD_YES;
	}
	if (*upload_size) {
		int err = take_body(request, upload, *upload_size);

		*upload_size = 0;
		return err ? MHD_NO : MHD_YES;
	}
	http_connection_work(request->place);
	if (listener->is_watched)
		heartbeat_handler_enter();
	result = dispatch(request);
	if (listener->is_watched)
		heartbeat_handler_leave();
	return result;
}

/* A peer that acknowledges nothing, or never opens its window again, is given up by the kernel too, also after the close. Connections have it
 * from their listener. A Unix socket has no such option, and no such peer.
 */
static void give_up_on_the_dead(const struct http_server_options *options)
{
	unsigned timeout_ms = options->patience_s * MS_PER_S;

	if (setsockopt(options->listen_fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms)))
		log_debug("http: no time-out for peers that acknowledge nothing: %s", strerror(errno));
}

struct http_server *http_server_start(struct http_listener *listener, const struct http_server_options *options)
{
	struct http_connections_options places = {
		.places = options->max_connections,
		.per_source = options->per_source,
		.patience_s = options->patience_s,
		.grace_ms = options->thread_per_connection ? ACCEPT_GRACE_MS : 0,
		.counts = metrics_connections(listener->d->metrics, listener->kind),
	};
	struct http_server *server = calloc(1, sizeof(*server));
	/* With a thread per connection, libmicrohttpd does not stop accepting at its limit, it closes: those that have been told to go must fit. */
	unsigned connection_limit = options->max_connections * (options->thread_per_connection ? 2 : 1);
	unsigned flags = MHD_USE_ERROR_LOG | MHD_USE_SUPPRESS_DATE_NO_CLOCK | MHD_USE_ITC;
	struct MHD_OptionItem more[] = {
		{options->threads > 1 && !options->thread_per_connection ? MHD_OPTION_THREAD_POOL_SIZE : MHD_OPTION_END,
			(intptr_t)options->threads, NULL},
		{MHD_OPTION_END, 0, NULL},
	};

	if (server)
		server->connections = http_connections_new(&places);
	if (!server || !server->connections || http_connections_watch(server->connections))
		goto out_failed;
	give_up_on_the_dead(options);
	if (options->thread_per_connection)
		flags |= MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL;
	else
		flags |= MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME;
	server->mhd = MHD_start_daemon(flags, 0, NULL, NULL, on_request, listener, MHD_OPTION_EXTERNAL_LOGGER, on_log,
		NULL, MHD_OPTION_LISTEN_SOCKET, options->listen_fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
		MHD_OPTION_NOTIFY_CONNECTION, on_connection, server, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL,
		MHD_OPTION_CONNECTION_LIMIT, connection_limit, MHD_OPTION_CONNECTION_TIMEOUT, options->idle_s,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY, MHD_OPTION_ARRAY, more, MHD_OPTION_END);
	if (server->mhd)
		return server;
out_failed:
	close(options->listen_fd);
	if (server)
		http_connections_free(server->connections);
	free(server);
	return NULL;
}

void http_server_stop(struct http_server *server)
{
	MHD_socket listener;

	if (!server)
		return;
	/* MHD_stop_daemon() would shut the socket down, and with it the one that is kept for the next daemon: they are the same. */
	listener = MHD_quiesce_daemon(server->mhd);
	MHD_stop_daemon(server->mhd);
	if (listener != MHD_INVALID_SOCKET)
		close(listener);
	http_connections_free(server->connections);
	free(server);
}
