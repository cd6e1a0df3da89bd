/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What is set at run time, kept in the ledger: limits and shadow switches, answers, deny and allow lists.
 *
 * A change is in force at once, and its route waits until the ledger has it. If the ledger cannot be asked the change stays in force, its answer
 * says "not_durable", and the thread of kept.c writes it when the writer is back: who defends a sale must not wait for a disk.
 *
 * Which side counts: the gate, once it has been filled. Into a gate that was attached anew (control.kept says so) recovery puts what the ledger
 * has, but for what was set by hand since; from then on the ledger follows the gate. (Answers: their file, see answers_state.h.)
 */
#ifndef SLUICE_DAEMON_KEPT_H
#define SLUICE_DAEMON_KEPT_H

#include <jansson.h>
#include <stdbool.h>

#include "daemon/daemon.h"

/* Documents of the ledger. One that is not understood is put aside under its name and KEPT_ASIDE. */
#define KEPT_LIMITS "limits"
#define KEPT_ANSWERS "answers"
#define KEPT_ASIDE ".rejected"

/* The thread that writes what could not be written. Returns 0 or negative errno. */
int kept_start(struct daemon *d);
void kept_stop(void);

/* Asks the writer; returns the answer, or NULL. From the first question that was not answered in time until the thread hears of the writer
 * again it answers NULL at once: only one change waits for a writer that stands still.
 */
json_t *kept_ask(struct daemon *d, json_t *question);
/* The same in two steps, see pipeline_ask_start(). NULL: nothing was asked; it may be waited for all the same. */
struct question;
struct question *kept_ask_start(struct daemon *d, json_t *question);
json_t *kept_ask_wait(struct daemon *d, struct question *question);
/* All of these return whether the ledger has it now; what it has not the thread writes later. */
bool kept_write_document(struct daemon *d, const char *name, const char *text);
bool kept_write_limits(struct daemon *d);
/* Adds "not_durable":true to an answer if it is not. */
json_t *kept_note(json_t *answer, bool is_durable);

/* Limits and switches were set by hand: masks of SLUICE_KEPT_*. What is back at the config's values is the config's again. */
void kept_mark_limits(struct daemon *d, uint64_t set);
/* In recovery, once for each gate; `text` NULL: the ledger has none. Returns 0, or -EINVAL for one that is to be put aside. */
int kept_restore_limits(struct daemon *d, const char *text);

/* --- kept_lists.c --------------------------------------------------------------------------------------------------------------- */
/* Held over a change of the lists in the gate and the writing of it, so that both change in the same order. (d->lists_lock is for the gate
 * alone, and never held while the ledger is waited for.)
 */
void kept_lists_lock(void);
void kept_lists_unlock(void);
/* Held while the ledger's lists are put into a new gate, and by who must not see half of them; taken before the lock above. */
void kept_load_lock(void);
void kept_load_unlock(void);
/* Makes the ledger say of these keys what the gate says. */
bool kept_write_entries(struct daemon *d, const struct sluice_list_key *keys, unsigned count);
bool kept_clear_label(struct daemon *d, enum sluice_list list, const char *label);
/* Gate and ledger may differ; the thread compares them whole. */
void kept_lists_differ(void);
/* Compares, if they may differ, and makes the ledger follow the gate. In small steps; nothing waits for it. */
void kept_lists_settle(struct daemon *d);
/* In recovery: where the next page of the ledger is read from, and what it says. `next` 0: that was the last one. Entries that have expired, or that the
 * gate has, are passed over. Returns 0, -E2BIG (they do not fit), -EPROTO or another negative errno.
 */
int64_t kept_lists_place(void);
int kept_lists_take(struct daemon *d, const json_t *entries, int64_t next);

#endif
