/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The connection to PostgreSQL; see store_postgres_link.h. Knows libpq and nothing of orders.
 *
 * Why not libpq's own waiting: it waits for ever, for a server that was stopped or a network that swallows packets, and
 * a large batch written by a blocking client can stand against a server that waits for its answers to be read. So the
 * socket is not blocking, and one loop reads, writes and minds the clock.
 */
#include "writer/store_postgres_link.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/timefmt.h"

#define OID_INT8 20
#define OID_TEXT 25
#define FORMAT_TEXT 0
#define FORMAT_BINARY 1
#define NS_PER_MS 1000000
#define ARRAY_BYTES_MIN 4096

/* Header of a one-dimensional array without NULLs (src/backend/utils/adt/arrayfuncs.c, array_recv). */
struct array_header {
	uint32_t dimensions;
	uint32_t has_nulls;
	uint32_t element_oid;
	uint32_t count;
	uint32_t lower_bound;
};

/* --- parameters --------------------------------------------------------------------------------------------------------- */
static void array_append(struct link_array *array, const void *bytes, size_t length)
{
	size_t capacity = array->capacity ? array->capacity : ARRAY_BYTES_MIN;
	uint8_t *grown;

	while (capacity < array->length + length)
		capacity *= 2;
	if (capacity != array->capacity) {
		grown = realloc(array->bytes, capacity);
		if (!grown) {
			array->failed = true;
			return;
		}
		array->bytes = grown;
		array->capacity = capacity;
	}
	memcpy(array->bytes + array->length, bytes, length);
	array->length += length;
}

static void array_begin(struct link_array *array, uint32_t oid)
{
	const struct array_header header = {
		.dimensions = htobe32(1), .element_oid = htobe32(oid), .lower_bound = htobe32(1)};

	array->length = 0;
	array->count = 0;
	array->failed = false;
	array_append(array, &header, sizeof(header));
}

static void array_add(struct link_array *array, const void *value, size_t length)
{
	uint32_t size = htobe32((uint32_t)length);

	array_append(array, &size, sizeof(size));
	array_append(array, value, length);
	if (array->failed)
		return;
	array->count++;
	((struct array_header *)(void *)array->bytes)->count = htobe32(array->count);
}

void link_array_begin_integers(struct link_array *array)
{
	array_begin(array, OID_INT8);
}

void link_array_begin_texts(struct link_array *array)
{
	array_begin(array, OID_TEXT);
}

void link_array_add_integer(struct link_array *array, int64_t value)
{
	uint64_t bytes = htobe64((uint64_t)value);

	array_add(array, &bytes, sizeof(bytes));
}

void link_array_add_text(struct link_array *array, const char *text)
{
	array_add(array, text, strlen(text));
}

void link_array_free(struct link_array *array)
{
	free(array->bytes);
	memset(array, 0, sizeof(*array));
}

static void put(struct link_values *values, const void *data, size_t length, int format)
{
	if (values->count == LINK_VALUES_MAX) {
		values->failed = true;
		return;
	}
	values->data[values->count] = data;
	values->lengths[values->count] = (int)length;
	values->formats[values->count] = format;
	values->count++;
}

void link_put_integer(struct link_values *values, int64_t value)
{
	uint64_t *bytes = &values->integers[values->count % LINK_VALUES_MAX];

	*bytes = htobe64((uint64_t)value);
	put(values, bytes, sizeof(*bytes), FORMAT_BINARY);
}

void link_put_text(struct link_values *values, const char *text)
{
	put(values, text, strlen(text), FORMAT_TEXT);
}

void link_put_array(struct link_values *values, const struct link_array *array)
{
	values->failed |= array->failed;
	put(values, array->bytes, array->length, FORMAT_BINARY);
}

/* --- the connection ------------------------------------------------------------------------------------------------------ */

/* What a person may read of a connection string: everything but what libpq itself marks as a secret ("*"). */
static void name_ledger(struct link *link, const PQconninfoOption *options)
{
	size_t used = (size_t)snprintf(link->name, sizeof(link->name), "postgresql");

	for (; options->keyword; options++) {
		if (!options->val || !options->val[0] || options->dispchar[0] == '*' || used >= sizeof(link->name))
			continue;
		used += (size_t)snprintf(
			link->name + used, sizeof(link->name) - used, " %s=%s", options->keyword, options->val);
	}
}

int link_init(struct link *link, const char *conninfo, char *error)
{
	PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
	bool with_secret = false;

	/* libpq's own sentence quotes what it does not understand, which may be a part of a password. */
	if (!options)
		return store_explain(error, -EINVAL,
			"writer.postgres is not a connection string of libpq, such as \"host=/run/postgresql dbname=sluice\"");
	for (const PQconninfoOption *option = options; option->keyword; option++)
		with_secret |= option->dispchar[0] == '*' && option->val && option->val[0];
	link->conninfo = conninfo;
	link->error = error;
	name_ledger(link, options);
	PQconninfoFree(options);
	/* The config is read by the daemon's user and by everybody who may run `sluice`. */
	return with_secret
		? store_explain(error, -EINVAL,
			  "writer.postgres must not hold a password: put it into a file of mode 0600 and name that by passfile=")
		: 0;
}

/* Warnings come beside a statement's answer: see postgres_commit for the one that matters. */
static void receive_notice(void *arg, const PGresult *notice)
{
	const char *severity = PQresultErrorField(notice, PG_DIAG_SEVERITY_NONLOCALIZED);
	const char *text = PQresultErrorField(notice, PG_DIAG_MESSAGE_PRIMARY);
	struct link *link = arg;

	if (severity && !strcmp(severity, "WARNING")) {
		link->warned = true;
		log_warn("the server of the ledger %s warns: %s", link->name, text ? text : "?");
	} else {
		log_debug("the server of the ledger %s says: %s", link->name, text ? text : "?");
	}
}

int link_open(struct link *link)
{
	/* Those before dbname give way to what stands in the connection string; those after it do not. A server that the network has swallowed
	 * is noticed within 15 s.
	 */
	static const char *const keywords[] = {"connect_timeout", "target_session_attrs", "keepalives_idle",
		"keepalives_interval", "keepalives_count", "tcp_user_timeout", "application_name", "dbname",
		"client_encoding", NULL};
	const char *values[] = {
		"5", "read-write", "5", "3", "3", "15000", "sluice-writer", link->conninfo, "UTF8", NULL};
	_Static_assert(sizeof(keywords) / sizeof(*keywords) == sizeof(values) / sizeof(*values), "pairs");

	link->queued = 0;
	link->warned = false;
	link->sqlstate[0] = '\0';
	link->conn = PQconnectdbParams(keywords, values, 1);
	if (PQstatus(link->conn) != CONNECTION_OK)
		return link_fail(link, "connect", NULL);
	PQsetNoticeReceiver(link->conn, receive_notice, link);
	if (PQsetnonblocking(link->conn, 1) || !PQenterPipelineMode(link->conn))
		return link_fail(link, "connect", NULL);
	return 0;
}

void link_close(struct link *link)
{
	PQfinish(link->conn);
	link->conn = NULL;
	link->queued = 0;
}

void link_check(struct link *link)
{
	struct pollfd poller = {.fd = PQsocket(link->conn), .events = POLLIN};

	/* Between two questions a server has little to say but farewell. */
	while (link->conn && poll(&poller, 1, 0) > 0) {
		if (!PQconsumeInput(link->conn)) {
			log_warn("the server of the ledger %s has ended the connection", link->name);
			link_close(link);
		} else {
			PQisBusy(link->conn); /* reads the notice, if it is one */
		}
	}
}

int link_fail(struct link *link, const char *doing, const char *why)
{
	const char *text = why ? why : PQerrorMessage(link->conn);
	size_t length = strcspn(text, "\n"); /* the first line says what; hints and positions follow */

	store_explain(link->error, -EIO, "cannot %s in the ledger %s: %.*s", doing, link->name,
		length ? (int)length : 13, length ? text : "out of memory");
	link_close(link);
	return -EIO;
}

/* An error that the server reported. Closes. */
static int server_failed(struct link *link, const char *doing, const PGresult *result)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	char why[STORE_ERROR_MAX];

	if (!text)
		return link_fail(link, doing, *PQresultErrorMessage(result) ? PQresultErrorMessage(result) : NULL);
	snprintf(link->sqlstate, sizeof(link->sqlstate), "%s", state ? state : "");
	snprintf(why, sizeof(why), "%s (SQLSTATE %s)", text, state ? state : "?");
	return link_fail(link, doing, why);
}

int link_queue(struct link *link, const char *prepared, const struct link_values *values)
{
	static const struct link_values none;

	if (!values)
		values = &none;
	if (values->failed)
		return link_fail(link, "put a question", "out of memory");
	if (!PQsendQueryPrepared(
		    link->conn, prepared, values->count, values->data, values->lengths, values->formats, FORMAT_BINARY))
		return link_fail(link, "put a question", NULL);
	link->queued++;
	return 0;
}

int link_queue_sql(struct link *link, const char *sql, const struct link_values *values)
{
	static const struct link_values none;

	if (!values)
		values = &none;
	if (!PQsendQueryParams(link->conn, sql, values->count, NULL, values->data, values->lengths, values->formats,
		    FORMAT_BINARY))
		return link_fail(link, "put a question", NULL);
	link->queued++;
	return 0;
}

int link_prepare(struct link *link, const char *name, const char *sql)
{
	if (!PQsendPrepare(link->conn, name, sql, 0, NULL))
		return link_fail(link, "prepare a statement", NULL);
	link->queued++;
	return 0;
}

int link_send(struct link *link)
{
	link->warned = false;
	if (!PQpipelineSync(link->conn) || PQflush(link->conn) < 0)
		return link_fail(link, "put a question", NULL);
	return 0;
}

/* Reads and writes until the next answer is here. Returns 0, or -EIO after link_fail. */
static int wait_for_answer(struct link *link, const char *doing)
{
	uint64_t deadline = time_mono_ns() + (uint64_t)link->wait_ms * NS_PER_MS;

	for (;;) {
		struct pollfd poller = {.fd = PQsocket(link->conn), .events = POLLIN};
		uint64_t now = time_mono_ns();
		int unsent = PQflush(link->conn);

		if (unsent < 0)
			return link_fail(link, doing, NULL);
		if (!PQisBusy(link->conn))
			return 0;
		if (now >= deadline)
			return link_fail(link, doing, "the server does not answer");
		if (unsent)
			poller.events |= POLLOUT;
		if (poll(&poller, 1, (int)((deadline - now) / NS_PER_MS) + 1) < 0 && errno != EINTR)
			return link_fail(link, doing, strerror(errno));
		if (poller.revents & ~POLLOUT && !PQconsumeInput(link->conn))
			return link_fail(link, doing, NULL);
	}
}

int link_take(struct link *link, const char *doing, PGresult **result)
{
	PGresult *taken, *end;
	int code = wait_for_answer(link, doing);

	if (code)
		return code;
	taken = PQgetResult(link->conn);
	if (PQresultStatus(taken) != PGRES_COMMAND_OK && PQresultStatus(taken) != PGRES_TUPLES_OK) {
		code = server_failed(link, doing, taken);
		PQclear(taken);
		return code;
	}
	/* each answer is followed by the word that there is no more of it */
	code = wait_for_answer(link, doing);
	end = code ? NULL : PQgetResult(link->conn);
	if (end)
		code = server_failed(link, doing, end);
	PQclear(end);
	if (code || !result) {
		PQclear(taken);
		taken = NULL;
	}
	if (result)
		*result = taken;
	if (!code)
		link->queued--;
	return code;
}

int link_finish(struct link *link)
{
	static const char doing[] = "end a group of statements";
	PGresult *result;
	int code = wait_for_answer(link, doing);

	if (code)
		return code;
	result = PQgetResult(link->conn);
	if (PQresultStatus(result) != PGRES_PIPELINE_SYNC)
		code = server_failed(link, doing, result);
	PQclear(result);
	return code;
}

static int run_queued(struct link *link, int code, const char *doing, PGresult **result)
{
	if (result)
		*result = NULL;
	if (!code)
		code = link_send(link);
	while (!code && link->queued > 1) /* what was queued before */
		code = link_take(link, doing, NULL);
	if (!code)
		code = link_take(link, doing, result);
	if (!code)
		code = link_finish(link);
	if (code && result) {
		PQclear(*result);
		*result = NULL;
	}
	return code;
}

int link_run(
	struct link *link, const char *prepared, const struct link_values *values, const char *doing, PGresult **result)
{
	return run_queued(link, link_queue(link, prepared, values), doing, result);
}

int link_run_sql(
	struct link *link, const char *sql, const struct link_values *values, const char *doing, PGresult **result)
{
	return run_queued(link, link_queue_sql(link, sql, values), doing, result);
}

/* --- answers ------------------------------------------------------------------------------------------------------------- */
int64_t link_integer(const PGresult *result, int row, int column)
{
	uint64_t bytes;

	if (PQgetlength(result, row, column) != sizeof(bytes))
		return 0;
	memcpy(&bytes, PQgetvalue(result, row, column), sizeof(bytes));
	return (int64_t)be64toh(bytes);
}

bool link_bool(const PGresult *result, int row, int column)
{
	return PQgetlength(result, row, column) == 1 && *PQgetvalue(result, row, column);
}

const char *link_text(const PGresult *result, int row, int column)
{
	return PQgetvalue(result, row, column);
}

void link_copy_text(char *to, size_t size, const PGresult *result, int row, int column)
{
	snprintf(to, size, "%s", PQgetvalue(result, row, column));
}
