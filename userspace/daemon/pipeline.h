/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* From the gate's ring to the ledger and back: one thread that owns the connection to the order writer. */
#ifndef SLUICE_DAEMON_PIPELINE_H
#define SLUICE_DAEMON_PIPELINE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/daemon.h"

/* The document of the ledger that keeps drain_per_second. */
#define PIPELINE_DRAIN "writer.drain"

/* The code that says that the store has failed: whether it did so before or after it had made a change for good, nobody knows. */
#define PIPELINE_STORE_ERROR "store_error"

/* Answer to a question (docs/writer-protocol.md). */
struct pipeline_answer {
	int error; /* 0; -ENOTCONN: not asked, nothing changed; -ETIMEDOUT: not answered in time, it may still happen; -EREMOTEIO: the
		    * writer refused (code, detail), and nothing changed but perhaps with PIPELINE_STORE_ERROR; what `prepare` returned; -ENOMEM */
	char code[32];
	char detail[256];
	json_t *json; /* if error is 0 */
};

/* What a question does in the gate. The hooks run on the pipeline's thread, so that the gate's words change in the order in which the
 * ledger changed. `prepare` runs just before the question is sent for the first time and may refuse. `complete` runs exactly once,
 * after it was answered or has failed for good, even if the asker has given up waiting; only a pipeline_ask that returns -ENOTCONN without
 * having asked runs no hook but `release`, which frees `arg`. `late` runs at most once, and before `complete`, when no answer has come within the time
 * that pipeline_ask waits: for an asker who does not wait on a thread, and whom `complete` shall not look for any more. A question that `changes` something is asked again, first of all on the next
 * connection, if the store failed at it: the gate must not be told that a change was not made that the ledger then turns out to have.
 */
struct pipeline_hooks {
	bool changes;
	int (*prepare)(struct daemon *d, void *arg);
	void (*late)(struct daemon *d, void *arg);
	void (*complete)(struct daemon *d, void *arg, const struct pipeline_answer *answer);
	void (*release)(void *arg);
};

struct pipeline_status {
	bool connected; /* and answers */
	bool open;
	char failure[256];    /* of the writer's store, which has not stored anything since; "" = none */
	char why_closed[512]; /* "" = orders are open, as far as the writer is concerned */
	char ledger[CONFIG_PATH_MAX];
	char store[32];
	uint64_t backlog; /* admissions not yet durable, as the gate counts them */
	uint64_t durable; /* orders made durable since the start */
	uint64_t refused; /* orders that the ledger refused */
	uint64_t reconnects;
	double drain_per_second; /* orders that the writer can make durable; 0 = not known (drain.h) */
	double commit_s;         /* from sending a batch to its acknowledgement, lately; 0 = none yet */
};

/* Takes the admissions that are in the gate over and starts the thread. Orders must have been closed (pipeline_close_orders) before.
 * Returns 0 or negative errno with a sentence in `error`.
 */
int pipeline_start(struct daemon *d, char *error, size_t error_size);
/* Waits until nothing is pending any more, or the writer is away, or `drain_ms` are over. */
void pipeline_drain(struct daemon *d, unsigned drain_ms);
/* Stops the thread; from then on every question is answered with -ENOTCONN. All three are safe without a pipeline. */
void pipeline_stop(struct daemon *d);
void pipeline_free(struct daemon *d); /* when nobody can ask any more */
void pipeline_close_orders(struct daemon *d);

/* Asks and waits (5 s at the most). Takes `question` over, and `arg`. answer->json is the caller's. Returns answer->error. */
int pipeline_ask(struct pipeline *p, json_t *question, const struct pipeline_hooks *hooks, void *arg,
	struct pipeline_answer *answer);
/* The same in two steps, between which the asker does something else. The first returns NULL with *error (-ENOTCONN, -ENOMEM) if nothing was asked; what it
 * returns must be waited for, once.
 */
struct question;
struct question *pipeline_ask_start(
	struct pipeline *p, json_t *question, const struct pipeline_hooks *hooks, void *arg, int *error);
int pipeline_ask_wait(struct pipeline *p, struct question *question, struct pipeline_answer *answer);
/* Asks and goes on; `complete` tells. Returns 0, or -ENOMEM (then `complete` is not called, and `arg` has been released). */
int pipeline_tell(struct pipeline *p, json_t *question, const struct pipeline_hooks *hooks, void *arg);
/* Something in the gate may differ from what the ledger says: the connection is made anew, and all is compared as at a start. */
void pipeline_compare_anew(struct pipeline *p);
/* An admission that was found in the gate's map and not in the order table. */
void pipeline_submit(struct pipeline *p, uint64_t serial, const struct sluice_admission *admission);
/* Goes through recovery once more, as after a break of the connection: orders close, what is on its way is delivered, the gate's words are set from
 * the ledger, orders open. Waits for it (10 s at most). Returns 0, -ENOTCONN without a writer, or -ETIMEDOUT: it may still come.
 */
int pipeline_compare(struct pipeline *p);
void pipeline_status(struct pipeline *p, struct pipeline_status *status);

#endif
