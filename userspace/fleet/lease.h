/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* One node's lease in one sale: which call to Redis or which move of stock is next, and what an answer means. A pure state machine: it does no
 * input or output, reads no clock and allocates nothing, so the daemon and the simulation (tests/sim) run the same source. docs/fleet.md has the
 * protocol and the reasons.
 *
 * The daemon, for each sale, on the fleet's thread:
 *
 *     lease_init(l, &options, &book of the ledger, or NULL)
 *     at every round, and when the gate's counter `wanted` grew, a message came (lease_look first) or `until_ns` is over:
 *         lease_next(l, &view, &action)
 *         set the gate's flags as lease_flags says (before anything else: WITHHELD must never come late)
 *         LEASE_WAIT: nothing to do
 *         LEASE_CALL: the script action.call with KEYS[1] = PREFIX:{SLUG}:stock; then lease_called with its outcome
 *         LEASE_MOVE: as below; then lease_moved with its outcome
 *
 * One thing at a time: between LEASE_CALL and lease_called, LEASE_MOVE and lease_moved, lease_next says LEASE_WAIT.
 *
 * A move of `units` with `book` (which replaces the document lease.<sale id>, in one transaction with the move of stock; book.seq is new with each
 * move of units, and so is a key for a move that must not happen twice):
 *   units < 0   take -units out of the gate, all or nothing; is there less, lease_moved(-EAGAIN) and nothing else. Then the ledger. Does the
 *               ledger surely refuse, put them back into the gate.
 *   units > 0   the ledger, and when that is durable, into the gate.
 *   units == 0  only the document.
 * lease_moved is called when it is known whether the ledger has it. While it is not known (writer away), go on asking: the move is idempotent by its key.
 * After a restart the book of the ledger is the truth, whatever was under way.
 *
 * Who changes the total asks with lease_total_call and tells the operator "done" only when lease_book(l)->version has reached the answer's (the node
 * writes it into its ledger by itself; lease_look makes that soon): before that a Redis that loses its data could lose the change.
 */
#ifndef SLUICE_FLEET_LEASE_H
#define SLUICE_FLEET_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fleet/lease_book.h"

#define LEASE_CHANNEL_MAX 64
#define LEASE_ORIGIN_MAX 24

struct lease_options {
	unsigned node;                   /* this one */
	struct lease_members members;    /* nodes of the config */
	uint32_t lease_ms;               /* a lease covers so much of the node's own sales */
	uint32_t fence_after_ms;         /* 0 = never */
	char channel[LEASE_CHANNEL_MAX]; /* where the scripts say "look" */
	/* Where the daemon runs, a word: the same after its restart, another on another machine or with another state directory. */
	char origin[LEASE_ORIGIN_MAX];
};

/* What the daemon sees of gate and sale, all of one moment. */
struct lease_view {
	uint64_t now_ns;   /* monotonic */
	int64_t unsold;    /* units free in the gate */
	uint64_t admitted; /* units that the gate has admitted so far: counts up; may begin anew */
	/* Orders that the ledger has for certain, of all that it ever had of the sale: counts up, and never begins anew. */
	uint64_t ordered;
	uint64_t
		wanted; /* units that buyers asked for and did not get although they may be elsewhere: counts up; may begin anew */
	unsigned order_max; /* units that one order may have at the most: 1.. */
	bool over;          /* the sale has ended: nothing is sold any more */
	bool leaving;       /* the daemon stops: everything unsold goes back */
	/* A sale at rest is told of no more often than that. For who has many sales: in each of few, reports are cheap and make up for lost messages. */
	uint64_t rest_ns;
};

enum lease_action_kind {
	LEASE_WAIT,
	LEASE_CALL,
	LEASE_MOVE,
};

#define LEASE_ARGUMENTS_MAX 24
struct lease_call {
	const char *script; /* "settle", "grant", "return", ... */
	unsigned count;
	uint16_t at[LEASE_ARGUMENTS_MAX]; /* where each argument begins in text */
	uint16_t used;
	char text[2048];
};

static inline const char *lease_call_argument(const struct lease_call *call, unsigned index)
{
	return call->text + call->at[index];
}

struct lease_action {
	enum lease_action_kind kind;
	uint64_t until_ns;      /* WAIT: nothing is due before that if nothing changes; UINT64_MAX = never */
	struct lease_call call; /* CALL */
	int64_t units;          /* MOVE */
	struct lease_book book; /* MOVE */
};

/* Every script answers with this, as a flat array of LEASE_REPLY_TEXTS texts. */
enum lease_answer {
	LEASE_OK,
	LEASE_NOTHING,  /* grant: nothing is free; the wish is noted */
	LEASE_REGEN,    /* the data is of another generation: promise, then settle */
	LEASE_FENCED,   /* the caller was fenced: take everything unsold out, then settle with the epoch that is told */
	LEASE_SETTLING, /* not now: some members have not settled yet */
	LEASE_UNMET,    /* settle first */
	LEASE_ABSENT,   /* no such sale, and the caller knows nothing of it either */
	LEASE_SHORT, /* total: fewer units are free than are to be taken; the nodes were asked to give back: try again */
	/* fence: no such member, or `sold` is less than it has reported (row.sold) or more than it holds (row.balance); create: too late; total: there would
	 * be more than LEASE_UNITS_MAX
	 */
	LEASE_REFUSED,
	LEASE_DOUBLED,  /* another daemon with this node's number was heard of moments ago */
	LEASE_SET_BACK, /* Redis was told of operations or orders that the caller's ledger does not have */
	LEASE_STALE,    /* fence: done already, or the target was heard of since it was shown: look again */
};

struct lease_row {
	int64_t epoch, seq, units, balance, sold;
	int64_t heard; /* counts what the node has said */
	/* What tells its ledger from an older copy: the number of the last operation and that of the last order that it has said its ledger has, which both
	 * only grow, in one sum.
	 */
	int64_t written;
	enum lease_op op;
	bool fenced;
};

#define LEASE_REPLY_TEXTS 22
#define LEASE_RUN_MAX 48
struct lease_reply {
	enum lease_answer answer;
	char generation[LEASE_GENERATION_MAX];
	bool open; /* false: settling */
	int64_t total, version;
	char operation[LEASE_OPERATION_MAX]; /* that made this version */
	int64_t free;                 /* not leased; below zero: so much more is leased than there is, an alarm */
	int64_t outside;              /* units that the other nodes hold and have not sold */
	int64_t demand;               /* units that others want and that are not free */
	struct lease_members missing; /* have not settled: nothing is granted until they do, or are fenced */
	struct lease_members members;
	struct lease_row row;    /* the caller's; of fence the target's */
	char run[LEASE_RUN_MAX]; /* of the server */
	int64_t time_ms;         /* by the server's clock */
};

enum lease_outcome {
	LEASE_ANSWERED,
	LEASE_NOT_DONE, /* surely not, and it never will be */
	LEASE_UNKNOWN,  /* nobody knows; an error reply too */
};

/* Why a node may not sell until somebody does something. */
enum lease_trouble {
	LEASE_TROUBLE_NONE,
	/* Another daemon has this node's number. When that one is not heard of any more, this one goes on by itself. */
	LEASE_TROUBLE_DOUBLED,
	/* The ledger lacks operations that Redis has done for this node, or orders that it was told of: it is an older copy, or a new one under an old
	 * number, and knows too little of what was sold. With the right ledger the node goes on; else it needs a number that no node has had, and the old one is to be fenced with
	 * what it has sold.
	 */
	LEASE_TROUBLE_SET_BACK,
};

struct lease_flags {
	bool withheld; /* the gate sells nothing */
	bool more;     /* units may still come to this node: "not now" instead of "sold out" */
};

/* Nobody but lease.c writes here. */
struct lease {
	struct lease_options options;
	struct lease_book book;  /* as the ledger has it */
	struct lease_reply last; /* the last answer; what is shown of the fleet */
	bool known;              /* there was one, of this sale, in this life */
	bool connected;          /* the last call was answered */
	bool strange;            /* may have been fenced: sells nothing until it has settled */
	bool settled;            /* in book.generation */
	enum lease_trouble trouble;
	bool asked;     /* a grant with the next seq may have been sent, and may still be done */
	bool confirmed; /* the return of the book was */
	bool look;
	char told[LEASE_GENERATION_MAX]; /* generation to promise next; "" = none */
	struct lease_members told_members;
	int64_t told_epoch; /* the fence to bow to; 0 = none */
	int64_t seq;        /* of the last operation that Redis did for this node, as far as is known; >= book.seq */
	int64_t granted;    /* units of operation `seq` that are not in the ledger yet */
	enum {
		LEASE_IDLE,
		LEASE_SETTLING_CALL,
		LEASE_GRANT_CALL,
		LEASE_RETURN_CALL,
		LEASE_PROMISE_MOVE,
		LEASE_BOW_MOVE,
		LEASE_GRANT_MOVE,
		LEASE_RETURN_MOVE,
		LEASE_NEWS_MOVE,
	} under_way;
	struct lease_book next; /* of a move: what the ledger will have */
	uint64_t sent_ns, answered_ns, acknowledged_ns;
	uint64_t quiet_until_ns; /* no call before that: the last one failed */
	uint64_t ask_after_ns;   /* no grant before that: there was nothing */
	unsigned empty_asks;     /* in a row */
	uint64_t ordered;        /* of the last view; */
	int64_t unsold;          /* as well; */
	int64_t unsold_sent;     /* of the call that is under way, or was last; */
	int64_t unsold_told;     /* of the last one that was answered */
	/* the node's own sales */
	bool counting;
	uint64_t counted_ns, active_ns,
		granted_ns; /* active_ns: of the last admission; granted_ns: when units came last */
	uint64_t admitted, wanted;
	int64_t counted;               /* units since counted_ns */
	double rate;                   /* units per second */
	int64_t missed, missed_before; /* units that buyers wanted in vain, in this second and in the one before */
	uint64_t missed_ns;            /* when this one began */
};

/* `book` NULL: the ledger has none. */
void lease_init(struct lease *l, const struct lease_options *options, const struct lease_book *book);
/* The config has changed. */
void lease_set_options(struct lease *l, const struct lease_options *options);
void lease_next(struct lease *l, const struct lease_view *view, struct lease_action *action);
/* `reply` only with LEASE_ANSWERED. */
void lease_called(struct lease *l, enum lease_outcome outcome, const struct lease_reply *reply, uint64_t now_ns);
/* 0: the ledger has it, and the gate. Else nothing has happened. */
void lease_moved(struct lease *l, int error, uint64_t now_ns);
/* Something may have changed in Redis: settle at once. */
void lease_look(struct lease *l);
/* Redis is in a generation that this node has not promised itself to: settle at the next turn, also if the sale is over, of which nothing else is urgent. */
void lease_settle_now(struct lease *l);
void lease_flags(const struct lease *l, struct lease_flags *flags);
enum lease_trouble lease_trouble(const struct lease *l);
/* "doubled", "set_back"; "none". */
const char *lease_trouble_name(enum lease_trouble trouble);
/* Leaving: is everything given back and acknowledged? */
bool lease_is_left(const struct lease *l, const struct lease_view *view);

/* The operator's calls. Not part of the state machine: any time, beside what is under way. Idempotent. lease_reply_decode reads their answers;
 * then lease_look.
 */

/* `delta` units more or fewer, by operation id (1..63 of A-Z a-z 0-9 . _ : -). LEASE_SETTLING, LEASE_REGEN and LEASE_SHORT: later again.
 * LEASE_REFUSED: there would be more than LEASE_UNITS_MAX.
 */
void lease_total_call(const struct lease *l, const char *operation, int64_t delta, struct lease_call *call);
/* Makes the sale with `total` units, before other nodes know of it. Quotes server and time of an answer (LEASE_ABSENT, in l->last) that is at most 3 s
 * old: then the sale is open at once. After LEASE_UNKNOWN ask again with the same operation and `absent` NULL: the sale may have been made, and sold
 * from, and lost, so then all members settle before anything is granted.
 */
void lease_create_call(const struct lease *l, const char *operation, int64_t total, const struct lease_reply *absent,
	struct lease_call *call);
/* Node `target`, which was shown (lease_show_call) before its ledger was read, surely sells nothing any more and has sold `sold` units; -1: nobody
 * knows, so count all that it may hold (then it may be alive, too). `exact`: `sold` was read from its ledger, so it may be less than it last reported.
 */
void lease_fence_call(const struct lease *l, unsigned target, const struct lease_row *shown, int64_t sold, bool exact,
	struct lease_call *call);
/* Begins a new generation: every node tells anew what it holds. */
void lease_rebuild_call(const struct lease *l, struct lease_call *call);
/* The row of `node`, in reply.row; changes nothing. */
void lease_show_call(const struct lease *l, unsigned node, struct lease_call *call);

/* `texts` as Redis gave them (flat array of strings). 0 or -EPROTO: then nothing is known (LEASE_UNKNOWN). */
int lease_reply_decode(struct lease_reply *reply, const char *const *texts, const size_t *lengths, size_t count);

#endif
