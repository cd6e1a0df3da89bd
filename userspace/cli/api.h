/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Client of the control API (docs/control-api.md), over the daemon's Unix socket or TCP with the bearer secret.
 *
 * A request ends with an exit code: CLI_OK with the answer's JSON, or another after the sentence was written to stderr. The
 * secret is read from a file, never from the command line, and is never written anywhere.
 */
#ifndef SLUICE_CLI_API_H
#define SLUICE_CLI_API_H

#include <jansson.h>

#include "cli/cli.h"

struct cli_api;

/* Prepares a client; nothing is sent yet. Returns CLI_OK, or an exit code after saying why. */
int cli_api_open(struct cli_api **api, const struct cli_globals *globals);
void cli_api_close(struct cli_api *api); /* NULL-safe */

/* The path of a request: like asprintf, but only %s, and each argument is percent-encoded (RFC 3986 section 2.1). The
 * caller frees. Never NULL: out of memory ends the program.
 */
char *cli_api_path(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Sends one request. `about` names the thing in a sentence on failure (sale "x"). `path` is freed; `body` (NULL for none) is
 * released. On CLI_OK *answer is the JSON (caller releases), NULL for an answer without a body; `answer` may be NULL.
 */
int cli_api_ask(struct cli_api *api, const char *about, const char *method, char *path, json_t *body, json_t **answer);

/* The same with a body of text of `type`, which stays the caller's. */
int cli_api_send(struct cli_api *api, const char *about, const char *method, char *path, const char *type,
	const char *text, size_t length, json_t **answer);

/* The options of the command that asks: what is refused is named as it was typed. */
void cli_api_use_options(struct cli_api *api, const struct cli_option *options);
/* How long a GET may take until its answer is whole, instead of ten seconds. */
void cli_api_set_patience(struct cli_api *api, unsigned milliseconds);
/* Names the change that the next requests make (header Idempotency-Key): sent twice, it is made once. 1 to CLI_KEY_MAX printable
 * characters.
 */
void cli_api_name_change(struct cli_api *api, const char *key);
/* Whether the last request may have changed something although it failed. */
bool cli_api_is_unclear(const struct cli_api *api);
/* If the last request may have changed something although it failed: says how to repeat it. */
void cli_api_say_key(const struct cli_api *api, const char *key);

/* Walks a list: GETs `path` (with `query` pairs already in it), calls `visit` for each element of member `list` and follows `next`
 * until it is null, holding one page at a time. `after_page` (may be NULL) is called after each page with its cursor, NULL for
 * the last; non-zero ends the walk. Returns CLI_OK or an exit code.
 */
struct cli_api_walk {
	const char *about;
	const char *list;
	int (*visit)(const json_t *element, void *arg);
	int (*after_page)(const json_t *next, void *arg);
	void *arg;
};
int cli_api_walk(struct cli_api *api, char *path, const struct cli_api_walk *walk);

/* GETs a stream of server-sent events and hands each on, until `on_event` returns non-zero, `seconds` (0 = never) are over or the daemon ends
 * it: CLI_OK. Anything else is said and is another exit code. `path` is freed.
 */
struct cli_api_stream {
	const char *about;
	unsigned seconds;
	int (*on_event)(const char *name, const json_t *data, void *arg);
	void *arg;
};
int cli_api_stream(struct cli_api *api, char *path, const struct cli_api_stream *stream);

/* GETs `path` (freed) and writes what comes to `out` as it comes. What breaks off is said to be incomplete, and is no CLI_OK. */
int cli_api_save(struct cli_api *api, const char *about, char *path, FILE *out);

/* The exit code of an HTTP status. */
int cli_api_exit_code(long status);

#endif
