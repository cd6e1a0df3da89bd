/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate's answers as the operator wants them: what he has replaced, kept over restarts, and its way into the gate. */
#ifndef SLUICE_DAEMON_ANSWERS_STATE_H
#define SLUICE_DAEMON_ANSWERS_STATE_H

#include <jansson.h>
#include <stdbool.h>

#include "common/answers.h"
#include "daemon/daemon.h"

/* Why a change was not made. */
struct answers_fault {
	enum sluice_answer code; /* -EMSGSIZE: the answer that is too long */
	size_t size;             /* -EMSGSIZE: how long it would be */
};

/* Reads the file and puts what it says, with the CORS origin, into the gate. What cannot be read is put aside with a word in the log, and the
 * defaults take its place: a spoilt text is no reason to sell nothing.
 */
void answers_start(struct daemon *d);
/* In recovery, once: what the ledger says takes the place of what the file said, unless that was set while the ledger could not be asked. `text` NULL:
 * the ledger has none, and gets the file's. Returns 0, or -EINVAL for a text that is not understood: the file's stays.
 */
int answers_restore(struct daemon *d, const char *text);
void answers_stop(void);

/* The answer in use, whole. Never waits. Returns 0 or negative errno. */
int answers_read(const struct gate_maps *maps, enum sluice_answer code, struct sluice_answer_bytes *out);
/* The answer to a token of that node: with a Location, if the config lists the node. */
int answers_read_home(const struct gate_maps *maps, uint32_t node, struct sluice_answer_bytes *out);
/* The CORS origin in force; `origin` holds ANSWER_ORIGIN_SIZE. */
void answers_origin(char *origin);

/* One change at a time: hold this for the functions below. */
void answers_lock(void);
void answers_unlock(void);
/* {"body","content_type","headers"} as the operator gave it, or NULL for the default. Borrowed. */
const json_t *answers_custom(enum sluice_answer code);
/* Whether the origin is the operator's, not the config file's. */
bool answers_origin_is_set(void);
/* Whether the ledger has what is in force. */
bool answers_are_durable(void);
/* `custom` is taken over; NULL goes back to the default. In force at both doors, and in the file, when it returns 0; in the ledger too, unless
 * answers_are_durable says no. Else nothing has changed:
 * -EMSGSIZE (see `fault`), -EINVAL, or the errno of file or map.
 */
int answers_set(struct daemon *d, enum sluice_answer code, json_t *custom, struct answers_fault *fault);
/* NULL goes back to the config file's. All answers change in one step. */
int answers_set_origin(struct daemon *d, const char *origin, struct answers_fault *fault);

/* Writes what the ledger has not, if there is such. Takes the lock. */
void answers_write_again(struct daemon *d);

/* Reads {"body","content_type"?,"headers"?}; the texts of `custom` are those of `json`. Returns NULL, or what is wrong, in `error`, and
 * the field that is to blame. *status: 400 for the form, 422 for what it says.
 */
const char *answers_read_custom(enum sluice_answer code, const json_t *json, struct answer_custom *custom,
	const char **field, unsigned *status, char *error, size_t error_size);

#endif
