/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* One run of the simulation: nodes with ledger, gate and lease.c, a network, Redis processes, an operator, and time that is an argument. Everything
 * that happens is an event, and all chance comes from the seed, so a run can be made again.
 *
 * world.c has time, network and nodes; claims.c what must hold; faults.c what goes wrong and when; operator.c who changes totals and fences.
 */
#ifndef SLUICE_SIM_WORLD_H
#define SLUICE_SIM_WORLD_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

#include "coordinator.h"
#include "fleet/lease.h"

#define NODES_MAX 6 /* with 0, which is none */
#define PROCESSES_MAX 12
#define MESSAGES_MAX 512
#define EVENTS_MAX 4096
#define SNAPSHOTS 48
#define CHANGES_MAX 16

#define MS 1000000ull
#define SECOND (1000 * MS)
#define NEVER UINT64_MAX

enum event_kind {
	EVENT_TICK,    /* node: lease_next */
	EVENT_REQUEST, /* message reaches a process */
	EVENT_REPLY,   /* message reaches the node again */
	EVENT_TIMEOUT, /* of the call `number` of a node */
	EVENT_LOOK,    /* node hears the channel */
	EVENT_COMMIT,  /* node's ledger has a move */
	EVENT_MOVED,   /* and the daemon knows */
	EVENT_BUYER,
	EVENT_LIFE,     /* of orders: cancelled, refunded */
	EVENT_FAULT,    /* faults.c, `number` says which */
	EVENT_START,    /* node */
	EVENT_RESUME,   /* node was paused */
	EVENT_CONFIG,   /* node hears of a new member */
	EVENT_OPERATOR, /* operator.c */
};

struct event {
	uint64_t at, order;
	enum event_kind kind;
	unsigned node, life, number;
};

struct message {
	bool used, copy, reply_lost, operators;
	struct lease_call call;
	unsigned node, life, number, process;
	enum lease_outcome outcome;
	struct lease_reply reply;
};

struct node {
	/* ledger */
	bool has_book;
	struct lease_book book;
	int64_t sold, gone; /* units in orders; units refunded without restock */
	uint64_t ordered;   /* orders so far */
	/* daemon and gate */
	bool exists, up, dead, paused, leaving;
	bool committing;
	unsigned life, boots; /* boots: so often was its machine started anew */
	struct lease lease;
	struct lease_options options;
	int64_t unsold;
	int64_t in_move; /* units between gate and ledger */
	uint64_t admitted, wanted;
	bool withheld, more;
	bool must_not_sell; /* fenced with what it had sold, while it was down; has not bowed yet */
	bool held_down;     /* the operator is fencing it, and has said that it is off */
	bool start_waits;
	uint64_t not_before;            /* it starts */
	struct lease_action action;     /* that is under way */
	unsigned calling;               /* number of the call under way; 0 = none */
	unsigned calls;                 /* so far */
	unsigned tick;                  /* number of the tick that counts */
	uint64_t paused_ns, gate_until; /* gate_until: it sells so long without the daemon */
	unsigned process;               /* that it talks to */
	bool cut;                       /* from all of Redis */
	bool lingers;                   /* its next grant will */
	double clock_rate;
	uint64_t clock_ns;
	double buyers, crowd; /* per second; crowd: when they are asked to come again */
};

/* A change of the total that the operator has tried. */
struct change {
	char id[16];
	int64_t delta;
	int64_t version; /* when the command has returned, and not before; else 0 */
	bool known;      /* every node that is not dead has it in its ledger */
};

struct operator_ {
	int job;
	unsigned by, target, step;
	uint64_t give_up, due;
	int64_t sold;
	bool exact, careful, waiting;
	struct lease_row shown;
	struct change *change;
	int64_t version; /* that it made */
	unsigned number; /* of the call under way */
};

struct world {
	uint64_t seed, random;
	uint64_t now, order;
	jmp_buf failed;
	char failure[512];
	bool trace;
	unsigned nodes; /* 1..nodes */
	struct node node[NODES_MAX];
	struct process_state {
		bool up;
		uint64_t paused_until;
		struct lease_reply last; /* of the last script: what it counts as free */
	} state[PROCESSES_MAX];
	unsigned processes;
	unsigned master, old_master; /* the latter 0 = none that still answers */
	unsigned snapshot_next, snapshot_count;
	/* what this run is like */
	uint64_t round_trip, timeout, heal_at;
	uint64_t rest_ns; /* of the nodes: who has many sales looks seldom at one where nothing happens */
	double lose, copy, slow, refuse; /* chances */
	unsigned order_max;
	uint32_t faults;
	bool reboots; /* a daemon that is gone may come back on a machine that was started anew */
	bool healed, over;
	uint64_t doubled_at; /* a node waited for its own silence, the last time */
	struct {
		unsigned target; /* 0 = none */
		bool before;     /* the fence is forgotten; else what came after it */
		uint64_t at;     /* 0 = it is not fenced yet */
		struct store store;
	} kept; /* of FAULT_FENCE */
	/* operator */
	struct operator_ operator_;
	bool made, asked_to_make;
	uint64_t made_at;
	int64_t opened;        /* number of the latest generation that was open */
	int64_t created, most; /* total at first; units that may be sold at the most, as far as anybody was told */
	struct change changes[CHANGES_MAX];
	unsigned change_count;
	/* the end */
	uint64_t done_at;
	uint64_t operated_at;              /* the operator has changed something, the last time */
	uint64_t calm_since, unsold_since; /* everything is sold, and no buyer comes; something is for sale again */
	bool again;                        /* orders were cancelled after everything was sold */
	uint64_t cancelled_at;
	/* figures */
	unsigned calls, grants, generations, orders;
	uint64_t sold_ns,
		again_ns; /* from the end of the faults until everything was sold; from cancellations until it was again */
	unsigned events;
	/* Large; made new only where it is used. */
	struct event heap[EVENTS_MAX];
	struct message messages[MESSAGES_MAX];
	struct process process[PROCESSES_MAX];
	struct snapshot {
		uint64_t at;
		struct store store;
	} snapshots[SNAPSHOTS];
};

/* world.c */
extern struct world *world;
void claim_fails(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t random_below(uint64_t bound);
bool chance(double probability);
uint64_t random_between(uint64_t low, uint64_t high);
uint64_t random_gap(double per_second); /* between events of a Poisson process */
void event_add(uint64_t at, enum event_kind kind, unsigned node, unsigned number);
void node_create(unsigned n, const struct lease_members *members);
void node_start(unsigned n);
void node_crash(unsigned n);
void node_reboot(unsigned n); /* while it is down */
void node_resume(unsigned n);
void node_tick_at(unsigned n, uint64_t at);
void node_break(unsigned n); /* its connection: the call under way has no answer */
int64_t node_used(const struct node *node);
unsigned process_new(const struct store *store);
void process_promote(unsigned p); /* it has another replid */
void snapshots_forget(void);
/* Sends a call of the operator's from node n. */
void operator_send(unsigned n, const struct lease_call *call);
/* Runs seed; returns NULL or the failure. */
const char *world_run(struct world *w, uint64_t seed, bool trace);

/* claims.c */
void claim_sold(const struct node *node, int64_t units); /* after each order */
void claim_lease(const struct node *node);               /* after each step */
void claim_sums(void);
struct before {
	bool need; /* of a new generation */
	char generation[LEASE_GENERATION_MAX];
};
void claim_before(const struct message *message, struct before *before);
void claim_after(const struct message *message, const struct before *before);
void claim_end(void);
int64_t sold_by_all(void);

/* faults.c */
void faults_choose(void);
void fault_happens(unsigned number, unsigned node);
void fault_fenced(unsigned node);  /* by the operator */
void fault_lingers(unsigned node); /* its grant does */

/* operator.c */
void operator_step(void);
void operator_answer(enum lease_outcome outcome, const struct lease_reply *reply);
/* Node n goes off now, and is to be fenced. False: he has no time, or nobody to ask. */
bool operator_fences(unsigned n);
/* Nothing can be sold, or not everything, before he has done what he is to do. */
bool operator_is_awaited(void);
void operator_forget(void); /* the node that asked for him is gone */
/* Row of a node, as the master has it; false: none. */
bool operator_sees(unsigned n, int64_t *balance, bool *fenced, bool *settled);

#endif
