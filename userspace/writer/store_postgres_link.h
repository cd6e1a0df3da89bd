/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The PostgreSQL store's connection: libpq in pipeline mode, with a bound on every wait. Used by store_postgres*.c only.
 *
 * Statements are queued, sent as a group, and their answers taken in the same order. After any error the connection is
 * dropped: nothing is guessed about what the server did.
 */
#ifndef SLUICE_WRITER_STORE_POSTGRES_LINK_H
#define SLUICE_WRITER_STORE_POSTGRES_LINK_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "writer/store.h"

#define LINK_VALUES_MAX 20
#define LINK_NAME_MAX 256

/* An array as the server takes it in binary form, built element by element. All zero is an empty one without memory. */
struct link_array {
	uint8_t *bytes;
	size_t length;
	size_t capacity;
	uint32_t count;
	bool failed; /* for lack of memory; link_put_array says so */
};

void link_array_begin_integers(struct link_array *array);
void link_array_begin_texts(struct link_array *array);
void link_array_add_integer(struct link_array *array, int64_t value);
void link_array_add_text(struct link_array *array, const char *text);
void link_array_free(struct link_array *array);

/* The parameters $1, $2, … of a statement. Texts and arrays must outlive link_queue. All zero is none. */
struct link_values {
	int count;
	bool failed;
	const char *data[LINK_VALUES_MAX];
	int lengths[LINK_VALUES_MAX];
	int formats[LINK_VALUES_MAX];
	uint64_t integers[LINK_VALUES_MAX]; /* in network order */
};

void link_put_integer(struct link_values *values, int64_t value);
void link_put_text(struct link_values *values, const char *text);
void link_put_array(struct link_values *values, const struct link_array *array);

struct link {
	PGconn *conn; /* NULL = none */
	const char *conninfo;
	char name[LINK_NAME_MAX]; /* of the ledger, for people; without a password */
	int wait_ms;              /* bound on the wait for an answer */
	unsigned queued;          /* statements whose answer has not been taken */
	bool warned;              /* the server gave a warning since link_send */
	char *error;              /* STORE_ERROR_MAX: where sentences go */
	char sqlstate[6];         /* of the error that ended the connection, "" = it was none of the server's */
};

/* Checks `conninfo` (kept, not copied) and names the ledger after it. Returns 0 or -EINVAL with a sentence. */
int link_init(struct link *link, const char *conninfo, char *error);
/* Connects. Returns 0, or -EIO with a sentence. */
int link_open(struct link *link);
void link_close(struct link *link);
/* Closes a connection that has ended while nobody was looking, so that no question is lost on it. */
void link_check(struct link *link);
/* Notes that `doing` met `why` and closes. Returns -EIO. */
int link_fail(struct link *link, const char *doing, const char *why);

/* Queues a prepared statement, or plain SQL. Returns 0, or -EIO after link_fail. */
int link_queue(struct link *link, const char *prepared, const struct link_values *values);
int link_queue_sql(struct link *link, const char *sql, const struct link_values *values);
int link_prepare(struct link *link, const char *name, const char *sql);
/* Sends what is queued as a group: an error in one statement skips those after it. */
int link_send(struct link *link);
/* The answer of the next statement; `result` may be NULL. The caller clears it. Returns 0, or -EIO after link_fail. */
int link_take(struct link *link, const char *doing, PGresult **result);
/* The end of the group, when every answer was taken. */
int link_finish(struct link *link);
/* One statement as a group of its own. */
int link_run(struct link *link, const char *prepared, const struct link_values *values, const char *doing,
	PGresult **result);
int link_run_sql(
	struct link *link, const char *sql, const struct link_values *values, const char *doing, PGresult **result);

/* A column of a SELECT that sets it: a COMMIT that returns before it is on a disk promises nothing. Which standbys are waited for is the operator's. */
#define LINK_DURABLE_SQL \
	"set_config('synchronous_commit', " \
	"CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)"

/* Values of an answer in binary form; NULL gives 0 and "". */
int64_t link_integer(const PGresult *result, int row, int column);
bool link_bool(const PGresult *result, int row, int column);
const char *link_text(const PGresult *result, int row, int column);
/* Cut to `size`. */
void link_copy_text(char *to, size_t size, const PGresult *result, int row, int column);

#endif
