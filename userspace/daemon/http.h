/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the routes of both listeners stand on: requests, routes, answers. */
#ifndef SLUICE_DAEMON_HTTP_H
#define SLUICE_DAEMON_HTTP_H

#include <jansson.h>
#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>

#include "daemon/daemon.h"
#include "daemon/http_connections.h"
#include "daemon/metrics.h"
#include "daemon/orders.h"

#define HTTP_CAPTURES 3
#define HTTP_CAPTURE_MAX 256
#define HTTP_LOCATION_MAX 256
#define HTTP_ETAG_MAX 20 /* sixteen hex digits in quotes */

#define HTTP_ONCE_KEY "Idempotency-Key"
#define HTTP_ONCE_KEY_MAX 64
#define HTTP_FINGERPRINT_DIGITS 32

struct http_request;
struct home_question;

/* An answer as text. */
struct http_text {
	unsigned status;
	const char *type; /* NULL: none */
	const char *text;
	size_t length;
};

/* `pattern`: segments; "{}" captures one, "{*}" the rest of the path. Captures are percent-decoded. */
struct http_route {
	const char *method;
	const char *pattern;
	enum MHD_Result (*handle)(struct http_request *request);
	const char *label; /* the metric label `route` */
};

struct http_listener {
	struct daemon *d;
	enum metrics_listener kind;
	const struct http_route *routes; /* ends with an entry without a method */
	size_t body_max;
	/* Called before the route; MHD_YES: go on. Else it has answered, and its result is in *result. May be NULL. */
	bool (*admit)(struct http_request *request, enum MHD_Result *result);
	/* True for a request whose body nobody reads: it is not kept, and is not refused for its length. May be NULL. */
	bool (*ignores_body)(const struct http_request *request);
	/* The longest body of this request, where it is not body_max. Called with the headers, before any of the body. May be NULL. */
	size_t (*body_max_of)(const struct http_request *request);
	/* Called in place of the route's handler, which it calls. May be NULL. */
	enum MHD_Result (*handle)(struct http_request *request);
	bool needs_secret; /* control over TCP */
	bool is_watched;   /* handlers never wait; the heartbeat watches them */
};

struct http_request {
	struct http_listener *listener;
	struct daemon *d;
	struct MHD_Connection *connection;
	struct http_connection *place;
	const struct http_route *route;
	const char *label;
	char *method;
	char *path; /* as sent, not decoded */
	char captures[HTTP_CAPTURES][HTTP_CAPTURE_MAX + 1];
	char *body; /* NUL-terminated, NULL if empty */
	size_t body_length;
	size_t body_seen; /* also what was too long to keep */
	size_t body_max;
	bool is_first;    /* of its connection: the gate has charged it (or its SYN) */
	bool is_admitted; /* `admit` has been asked */
	bool must_close;  /* no other request is read from this connection */
	bool is_stream;   /* set before http_send: the answer has no end, and its connection keeps its place */
	unsigned status;
	char etag[HTTP_ETAG_MAX];         /* of the answer, if it has one */
	char location[HTTP_LOCATION_MAX]; /* likewise */
	struct sluice_addr source;
	struct order_waiter waiter; /* http_order.c */
	uint64_t serial;            /* what it waits for */
	bool has_waited;
	bool has_asked; /* http_order.c: the ledger, and what it said: */
	json_t *later;
	int later_error;
	struct home_question *home; /* http_token.c: released with the request at the latest */
	/* control_once.c: names the change that this request makes. Empty: none was given. */
	char once_key[HTTP_ONCE_KEY_MAX + 1], once_fingerprint[HTTP_FINGERPRINT_DIGITS + 1];
	/* Sees each answer before it is sent (text NULL: an empty one). False after having answered in its place. May be NULL. */
	bool (*keep)(struct http_request *request, const struct http_text *answer, enum MHD_Result *result);
};

/* --- http.c: answers. Each returns what the handler returns. ------------------------------------------------------------------------ */
enum MHD_Result http_send(struct http_request *request, unsigned status, struct MHD_Response *response);
/* Takes `json` over. */
enum MHD_Result http_send_json(struct http_request *request, unsigned status, json_t *json);
enum MHD_Result http_send_json_retry(
	struct http_request *request, unsigned status, json_t *json, unsigned retry_after_s);
enum MHD_Result http_send_empty(struct http_request *request, unsigned status);
enum MHD_Result http_send_text(
	struct http_request *request, unsigned status, const char *type, const char *text, size_t length);
/* Sends an answer that was sent before. */
enum MHD_Result http_send_again(struct http_request *request, const struct http_text *answer);

/* RFC 9457. `detail` may be a format. */
enum MHD_Result http_problem(struct http_request *request, unsigned status, const char *code, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
enum MHD_Result http_problem_field(struct http_request *request, unsigned status, const char *code, const char *field,
	const char *format, ...) __attribute__((format(printf, 5, 6)));
enum MHD_Result http_problem_retry(struct http_request *request, unsigned status, const char *code,
	unsigned retry_after_s, const char *format, ...) __attribute__((format(printf, 5, 6)));
/* One of the gate's refusals: the same status, headers and body as at the wire door. */
enum MHD_Result http_send_refusal(struct http_request *request, enum sluice_answer answer, unsigned retry_after_s);
/* The refusal wrong_node: `token` (SLUICE_TOKEN_TEXT characters) belongs to `node`, and Location says where that is, if the config knows. */
enum MHD_Result http_send_home(struct http_request *request, uint32_t node, const char *token);

/* --- http.c: questions to a request -------------------------------------------------------------------------------------------------- */
/* The body as a JSON object (an empty body is {}), or NULL after having answered (*result). The caller releases it. */
json_t *http_read_json(struct http_request *request, enum MHD_Result *result);
/* A query argument, decoded. Returns 1, 0 if there is none, -EINVAL if it cannot be read or does not fit. */
int http_argument(struct http_request *request, const char *name, char *out, size_t size);
/* Are all query arguments among `known` (ends with NULL)? If not, answers 400 (*result) and returns false: a filter that is misspelt would be one that
 * lets everything through.
 */
bool http_check_arguments(struct http_request *request, const char *const *known, enum MHD_Result *result);
const char *http_header(const struct http_request *request, const char *name);

/* --- http_openapi.c ---------------------------------------------------------------------------------------------------------------------- */
enum MHD_Result http_openapi(struct http_request *request);

/* --- http_problems.c: the pages of the codes ------------------------------------------------------------------------------------------- */
enum MHD_Result http_problems_index(struct http_request *request);
enum MHD_Result http_problems_page(struct http_request *request);

/* --- http_etag.c ----------------------------------------------------------------------------------------------------------------------- */
uint64_t http_etag_of(const void *bytes, size_t length);
uint64_t http_etag_of_json(const json_t *json);
/* The answer that follows carries this tag. */
void http_set_etag(struct http_request *request, uint64_t tag);
/* Do If-Match and If-None-Match let the change happen? If not, answers 412 (*result) and returns false. Call it under the lock that the change
 * is made under.
 */
bool http_check_etag(struct http_request *request, bool exists, uint64_t tag, enum MHD_Result *result);

/* --- http_text.c ------------------------------------------------------------------------------------------------------------------------ */
/* Decodes into `out` (size bytes). Returns 0, or -EINVAL for a bad escape, a NUL or a text that is too long. */
int http_percent_decode(const char *text, size_t length, char *out, size_t size);
/* Does `path` match? Fills `captures`. Returns 1, 0, or -EINVAL if it matches with a capture that cannot be decoded. */
int http_match(const char *pattern, const char *path, char captures[HTTP_CAPTURES][HTTP_CAPTURE_MAX + 1]);
/* Takes a complete answer apart: *status, the headers (a list of "Name: value" lines, each NUL-terminated in place), the body. */
struct http_parsed {
	unsigned status;
	unsigned header_count;
	struct {
		const char *name, *value;
	} headers[16];
	const char *body;
	size_t body_length;
};
int http_parse_answer(char *bytes, size_t length, struct http_parsed *parsed);
/* Where a request ends, as its headers say it. Two readers that see two ends can be played against each other (RFC 9112 section 11.2). */
struct http_framing {
	const char *length; /* Content-Length, if there is one */
	size_t length_size;
	bool is_chunked;
	bool is_malformed;
};
/* Looks at one header, of the given sizes, and keeps in *framing what it says. `framing` begins as zeros. */
void http_framing_add(
	struct http_framing *framing, const char *name, size_t name_size, const char *value, size_t value_size);
/* Compares in a time that does not depend on where they differ. */
bool http_secret_equals(const char *given, const char *secret);

/* --- http_server.c ------------------------------------------------------------------------------------------------------------------------ */
struct http_server;
struct http_server_options {
	int listen_fd; /* taken over */
	unsigned threads, max_connections;
	unsigned per_source;        /* connections of one IPv4 address or IPv6 /64; 0 = no limit */
	unsigned idle_s;            /* a connection that says nothing is closed */
	unsigned patience_s;        /* so is one whose request is not whole by then */
	bool thread_per_connection; /* handlers may block: the control side */
};
struct http_server *http_server_start(struct http_listener *listener, const struct http_server_options *options);
void http_server_stop(struct http_server *server);

/* --- listen.c ------------------------------------------------------------------------------------------------------------------------------- */
/* "[::]:8080", "127.0.0.1:9180": a listening TCP socket; [::] takes IPv4 too. Returns the fd or negative errno with a sentence. */
int listen_tcp(const char *address, int backlog, char *error, size_t error_size);
/* The same for the public address, which the service manager keeps during a restart if there is one. Once in a process's life. */
int listen_public(const char *address, int backlog, char *error, size_t error_size);
int listen_unix(const char *path, int backlog, unsigned mode, const char *group, char *error, size_t error_size);

/* --- listen_kept.c -------------------------------------------------------------------------------------------------------------------------- */
/* The listener at that address that a former daemon left with the service manager: the fd, which is the caller's, or -1. */
struct addrinfo;
int listen_take_kept(const struct addrinfo *wanted, int backlog);
/* Leaves a copy with the service manager, in the place of any other. A failure is logged, and costs only that a restart refuses connections. */
void listen_keep(int fd);

#endif
