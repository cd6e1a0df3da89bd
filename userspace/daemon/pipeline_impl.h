/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What pipeline.c, batches.c, questions.c, recovery.c, recovery_buyers.c and recovery_kept.c share; nobody else includes this.
 *
 * Everything but the members under `lock` and the atomics belongs to the pipeline's thread.
 */
#ifndef SLUICE_DAEMON_PIPELINE_IMPL_H
#define SLUICE_DAEMON_PIPELINE_IMPL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "daemon/drain.h"
#include "daemon/orders.h"
#include "daemon/pipeline.h"
#include "daemon/sales.h"
#include "daemon/writer_link.h"

struct ring_buffer;

#define BATCHES_IN_FLIGHT 2
#define WRITER_DEAD_NS 30000000000ULL /* unanswered for so long: connect anew */
#define POLL_MS 100

struct batch {
	unsigned count; /* 0: not in use */
	uint64_t sent_ns;
	struct order *orders[WIRE_BATCH_MAX];
};

struct question {
	STAILQ_ENTRY(question) next;
	char *text;
	const struct pipeline_hooks *hooks;
	void *arg;
	struct pipeline_answer answer;
	uint64_t
		late_ns; /* mono: from then on the asker is told that it takes too long; 0 = he was told, or does not ask to be */
	unsigned failed; /* how often the store has failed at it */
	unsigned refs;   /* under lock */
	bool done;       /* under lock */
};
STAILQ_HEAD(question_list, question);

/* A frame that waits for its answer. */
struct sent {
	TAILQ_ENTRY(sent) next;
	uint64_t id, sent_ns;
	struct batch *batch;       /* either this */
	struct question *question; /* or this */
};

struct submission {
	STAILQ_ENTRY(submission) next;
	uint64_t serial;
	struct sluice_admission admission;
};

struct pipeline {
	struct daemon *d;
	pthread_t thread;
	struct ring_buffer *ring;
	int wake_fd; /* eventfd: questions or submissions, or stop */
	struct writer_link link;
	STAILQ_HEAD(, order) pending; /* admitted, not sent */
	unsigned pending_count;
	TAILQ_HEAD(sent_queue, sent) sent; /* answers come in this order */
	struct batch batches[BATCHES_IN_FLIGHT];
	struct wire_admit *records; /* WIRE_BATCH_MAX: the batch that is being built */
	struct order_ack *acks;     /* WIRE_BATCH_MAX */
	struct question_list
		again; /* sent, and the connection broke or the store failed before the answer: asked once more first of all */
	uint64_t late_look_ns; /* when to look next who has waited too long */
	atomic_bool slow;
	bool kept_is_read; /* the ledger's limits and answers, once in a daemon's life: from then on it knows better */

	pthread_mutex_t lock;
	pthread_cond_t done;
	struct question_list asked;
	STAILQ_HEAD(, submission) submitted;
	char ledger[CONFIG_PATH_MAX];
	char store[32];
	bool is_realtime;
	char failure[256];   /* of the store at the last change; "" = none */
	bool asking_allowed; /* connected and recovered */
	struct drain drain;

	atomic_bool stop, connected, open;
	atomic_bool answers; /* the writer: not while it has been silent for DRAIN_SLOW_NS */
	/* Gate and ledger are to be compared anew, buyers' counts with them: at the start, when something went wrong, when somebody asks */
	atomic_bool compare;
	atomic_ullong durable, refused, reconnects, unsettled; /* unsettled: pending or sent */
	atomic_ullong recoveries;                              /* that came to their end */
};

/* pipeline.c */
/* What the writer's store says of a change that it could not make; NULL: it could make one. */
void pipeline_note_failure(struct pipeline *p, const char *detail);
void pipeline_open_orders(struct pipeline *p);
/* Takes what is in the ring, tells the heartbeat that the pipeline is alive, and askers that an answer takes too long. */
void pipeline_pump(struct pipeline *p);
/* Sends one frame and waits for its answer; only while nothing else is on its way. Returns 0, -ECANCELED (stop), or negative errno: the
 * connection is broken.
 */
int pipeline_exchange(struct pipeline *p, enum wire_type type, const void *body, uint32_t length,
	struct wire_header *header, const void **answer);

/* batches.c */
void batches_enqueue(struct pipeline *p, uint64_t serial, const struct sluice_admission *admission, bool answered);
int batches_send(struct pipeline *p);         /* as many as may be on their way */
int batches_exchange_all(struct pipeline *p); /* until nothing is pending */
int batches_acknowledge(struct pipeline *p, struct batch *batch, const struct wire_header *header, const void *body);
void batches_take_back(struct pipeline *p, struct batch *batch);

/* questions.c */
int questions_send(struct pipeline *p);
int questions_exchange_again(struct pipeline *p);
/* Tells those that have waited too long, whether or not there is a writer. */
void questions_tell_late(struct pipeline *p, uint64_t now_ns);
/* The writer's frame for a question: finishes it and returns 0, or -EREMOTEIO: the store has failed at a change, so the connection is to end, and the
 * question, which stays the caller's, to be asked again.
 */
int questions_answer(struct pipeline *p, struct question *question, const struct wire_header *header, const void *body);
void questions_finish(
	struct pipeline *p, struct question *question, int error, const struct wire_header *header, const void *body);
void questions_fail_unsent(struct pipeline *p, int error);
/* Sends a question in recovery. Returns 0 with a new reference in *answer, or negative errno. Takes `question` over. */
int questions_exchange(struct pipeline *p, json_t *question, json_t **answer);
/* "code: detail" of a WIRE_ERROR. */
void questions_read_error(const struct wire_header *header, const void *body, struct pipeline_answer *answer);

/* recovery.c: from a fresh connection to the point where orders may be open. Returns 0 or negative errno. */
int recovery_run(struct pipeline *p);

/* recovery_kept.c: limits, answers and lists. Returns 0 or negative errno. */
int recovery_restore_kept(struct pipeline *p);

/* recovery_buyers.c: if p->compare is set. Returns 0 or negative errno. */
int recovery_recount_buyers(struct pipeline *p);

#endif
