/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What goes wrong, and when: chosen by the seed. Each run has some kinds of faults and not others, so that each is also seen alone. At the end all is
 * healed, but for copies of calls that linger, and for nodes that are gone for ever.
 */
#include "world.h"

#include <string.h>

#define MADE_BEFORE \
	(3 * SECOND) /* Redis loses nothing so soon after the sale was made (a create that lingers is good for so long) */

enum fault {
	FAULT_BREAK,    /* a connection */
	FAULT_CRASH,    /* of a node */
	FAULT_CUT,      /* a node from Redis */
	FAULT_PAUSE,    /* a daemon */
	FAULT_LEAVE,    /* a daemon is stopped in order */
	FAULT_FLUSH,    /* Redis is emptied */
	FAULT_RESTART,  /* of Redis, from a snapshot or from nothing */
	FAULT_FAILOVER, /* to a replica that lags; the old master is gone */
	FAULT_SPLIT,    /* the old master answers some for a while */
	FAULT_BACK,     /* the master follows a replica that lags, and is master again: same process, older data */
	FAULT_REPLICA,  /* a first replica, or none for long: another replid, and nothing is lost */
	FAULT_STALL,    /* Redis answers nobody for a while */
	FAULT_CLOCK,    /* of Redis jumps */
	FAULT_DEATH,    /* of a node, for ever */
	FAULT_CROWD,    /* buyers go elsewhere */
	FAULT_OVER,     /* the sale is closed for a while */
	FAULT_LINGER,   /* a node's grant waits somewhere, and the node crashes or its connection breaks */
	FAULT_FENCE,    /* a node is fenced, and Redis forgets the fence, or what came after it */
	FAULTS,
	FAULT_NEXT,      /* chooses one of the above */
	FAULT_JOIN,      /* a new node */
	FAULT_MERGE,     /* the split is over */
	FAULT_OPEN,      /* the sale goes on */
	FAULT_LINGERS,   /* the grant */
	FAULT_FORGOTTEN, /* the new node */
	FAULT_FORGET,    /* the fence, or what came after it */
	FAULT_HEAL,
	FAULT_GONE,          /* a daemon that was stopped in order */
	FAULT_WHOLE = 1000,  /* + node: it is no longer cut off */
	FAULT_SWITCH = 2000, /* + node: it finds the new master */
};

static unsigned any_node(void)
{
	return (unsigned)random_between(1, world->nodes);
}

static void crowd(void)
{
	bool one = chance(0.4);
	unsigned where = any_node();

	for (unsigned n = 1; n <= world->nodes; n++)
		world->node[n].buyers = one && n != where ? 0 : (double)random_between(1, 40);
}

void faults_choose(void)
{
	struct world *w = world;
	struct lease_members members = {0};
	bool join;

	w->nodes = (unsigned)random_between(2, NODES_MAX - 1);
	w->round_trip = random_between(MS / 5, chance(0.2) ? 100 * MS : 4 * MS);
	w->timeout = random_between(200, 600) * MS;
	w->created = (int64_t)random_between(1, chance(0.3) ? 400 : 60);
	w->most = w->created;
	w->order_max = (unsigned)random_between(1, 3);
	w->faults = chance(0.1) ? 0 : (uint32_t)(random_below(1u << FAULTS) & random_below(1u << FAULTS));
	w->lose = chance(0.5) ? 0 : 0.08;
	w->copy = chance(0.4) ? 0 : 0.15;
	w->slow = chance(0.5) ? 0 : 0.08;
	w->refuse = chance(0.8) ? 0 : 0.05;
	w->heal_at = random_between(3, 9) * SECOND;
	w->reboots = w->seed % 5 == 2;
	w->rest_ns = w->seed % 3 ? 0 : (1 + w->seed / 3 % 16) * SECOND;
	w->master = process_new(NULL);
	join = w->nodes > 2 && chance(0.25);
	for (unsigned n = 1; n <= w->nodes - join; n++)
		lease_members_add(&members, n);
	for (unsigned n = 1; n <= w->nodes - join; n++) {
		node_create(n, &members);
		w->node[n].options.fence_after_ms = w->seed % 4 == 0 ? 2000 : 0;
		event_add(random_below(100 * MS), EVENT_START, n, 0);
	}
	crowd();
	if (join)
		event_add(random_between(SECOND, w->heal_at), EVENT_FAULT, 0, FAULT_JOIN);
	event_add(300 * MS, EVENT_OPERATOR, 0, 0);
	event_add(random_gap(1), EVENT_FAULT, 0, FAULT_NEXT);
	event_add(w->heal_at, EVENT_FAULT, 0, FAULT_HEAL);
}

/* Everybody of the config starts to know the new node at another moment, perhaps after Redis has forgotten it. */
static void join(void)
{
	struct world *w = world;
	struct lease_members members = {0};
	uint64_t late = chance(0.5) ? SECOND : 6 * SECOND;

	for (unsigned n = 1; n <= w->nodes; n++)
		lease_members_add(&members, n);
	say("node %u is new", w->nodes);
	node_create(w->nodes, &members);
	w->node[w->nodes].options.fence_after_ms = w->node[1].options.fence_after_ms;
	w->node[w->nodes].buyers = (double)random_between(1, 40);
	for (unsigned n = 1; n <= w->nodes; n++)
		event_add(w->now + (n == w->nodes ? random_below(SECOND) : random_below(late)),
			n == w->nodes ? EVENT_START : EVENT_CONFIG, n, 0);
	if (late > SECOND)
		event_add(w->now + random_between(1000, 3000) * MS, EVENT_FAULT, w->nodes, FAULT_FORGOTTEN);
}

/* All nodes go to process p, each after a while; or some, as long as there is a split. */
static void switch_to(unsigned p, double share, uint64_t within)
{
	for (unsigned n = 1; n <= world->nodes; n++)
		if (world->node[n].process != p && chance(share))
			event_add(world->now + random_below(within), EVENT_FAULT, 0, FAULT_SWITCH + n);
}

/* What a replica has that lags; NULL: nothing. */
static const struct store *older_copy(void)
{
	const struct world *w = world;
	unsigned lag;

	if (!w->snapshot_count || chance(0.05))
		return NULL;
	lag = (unsigned)random_below(chance(0.5) ? 3 : w->snapshot_count) % w->snapshot_count;
	return &w->snapshots[(w->snapshot_next + SNAPSHOTS - 1 - lag) % SNAPSHOTS].store;
}

static void promote(bool split, const struct store *store)
{
	struct world *w = world;
	unsigned old = w->master;

	if (w->processes >= PROCESSES_MAX - 1)
		return;
	w->master = process_new(store);
	say("redis: process %u (%.8s) follows %u%s", w->master, w->process[w->master].run, old,
		split ? ", which lives on" : "");
	snapshots_forget();
	if (split) {
		w->old_master = old;
		event_add(w->now + random_between(500, 3000) * MS, EVENT_FAULT, 0, FAULT_MERGE);
		switch_to(w->master, 0.7, SECOND);
	} else {
		w->state[old].up = false;
		switch_to(w->master, 1, SECOND / 2);
	}
}

static void go_back(const struct store *store)
{
	struct world *w = world;
	struct process *process = &w->process[w->master];

	say("redis %u: it followed a replica that lagged, and is master again", w->master);
	if (store)
		process->store = *store;
	else
		process->store.count = 0;
	process_promote(w->master);
	snapshots_forget();
}

static void merge(void)
{
	struct world *w = world;

	if (!w->old_master)
		return;
	say("redis: process %u ends", w->old_master);
	w->state[w->old_master].up = false;
	w->old_master = 0;
	switch_to(w->master, 1, SECOND / 2);
}

static bool may_lose(void)
{
	return world->made && world->now - world->made_at >= MADE_BEFORE && !world->old_master;
}

/* A node is off and is fenced with what it has sold. */
static void fence(unsigned n)
{
	struct node *node = &world->node[n];

	if (world->kept.at || !world->made || world->old_master || !node->exists || node->dead || !operator_fences(n))
		return;
	world->kept.target = n;
	node_crash(n);
	node->gate_until = world->now;
	event_add(world->now, EVENT_START, n, 0);
}

void fault_fenced(unsigned n)
{
	struct world *w = world;
	unsigned lag;
	uint64_t at;

	if (w->healed || w->kept.target != n || w->kept.at || w->snapshot_count < 2)
		return;
	/* The fence itself: soon, and before the node has heard of it. Or what the node did after it: when it has done something. */
	w->kept.before = chance(0.5);
	lag = w->kept.before ? 2 : 1;
	w->kept.store = w->snapshots[(w->snapshot_next + SNAPSHOTS - lag) % SNAPSHOTS].store;
	at = w->now + (w->kept.before ? random_between(20, 2500) : random_between(500, 3000)) * MS;
	w->kept.at = at;
	if (w->kept.before)
		w->node[n].not_before = at + random_below(500 * MS);
	event_add(at, EVENT_FAULT, n, FAULT_FORGET);
}

void fault_lingers(unsigned n)
{
	event_add(world->now + random_between(1, 50) * MS, EVENT_FAULT, n, FAULT_LINGERS);
}

static void forget(unsigned n)
{
	struct world *w = world;

	if (!w->healed && may_lose()) {
		if (w->kept.before && chance(0.3)) {
			w->process[w->master].store.count = 0;
			say("redis %u is emptied", w->master);
		} else {
			promote(false, &w->kept.store);
		}
		if (!w->kept.before && w->node[n].up) {
			node_crash(n);
			event_add(w->now + random_between(500, 3000) * MS, EVENT_START, n, 0);
		}
	}
	w->kept.target = 0;
	w->kept.at = 0;
}

static void reboot_perhaps(unsigned n)
{
	if (world->reboots && chance(0.5))
		node_reboot(n);
}

static void node_fault(enum fault fault, unsigned n)
{
	struct world *w = world;
	struct node *node = &w->node[n];

	switch (fault) {
	case FAULT_BREAK:
		if (node->up && !node->paused) {
			node_break(n);
			node_tick_at(n, w->now + MS);
		}
		break;
	case FAULT_CRASH:
		if (!node->up)
			break;
		node_crash(n);
		reboot_perhaps(n);
		event_add(w->now + random_between(50, 3000) * MS, EVENT_START, n, 0);
		break;
	case FAULT_LEAVE:
		if (!node->up)
			break;
		node->leaving = true;
		event_add(w->now + random_between(100, 2000) * MS, EVENT_FAULT, n, FAULT_GONE);
		break;
	case FAULT_CUT:
		if (node->cut)
			break;
		say("node %u is cut off", n);
		node->cut = true;
		event_add(w->now + random_between(100, 5000) * MS, EVENT_FAULT, 0, FAULT_WHOLE + n);
		break;
	case FAULT_PAUSE:
		if (!node->up || node->paused)
			break;
		say("node %u stands still", n);
		node->paused = true;
		node->paused_ns = w->now;
		event_add(w->now + random_between(50, 4000) * MS, EVENT_RESUME, n, 0);
		break;
	case FAULT_LINGER:
		node->lingers = true;
		break;
	case FAULT_FENCE:
		fence(n);
		break;
	case FAULT_DEATH: {
		/* Not the last one, nor the only one that knows of a change that was promised. */
		bool known = false;

		for (unsigned other = 1; other <= w->nodes; other++) {
			if (w->node[other].dead || !w->node[other].exists)
				return;
			known |= other != n && w->node[other].book.version >= node->book.version;
		}
		if (!known || !w->made || n == w->nodes)
			break;
		node_crash(n);
		node->dead = true;
		say("node %u is gone for ever", n);
		break;
	}
	default:
		break;
	}
}

static void redis_fault(enum fault fault)
{
	struct world *w = world;
	struct process_state *state = &w->state[w->master];

	if (fault != FAULT_STALL && (!w->made || w->now - w->made_at < MADE_BEFORE))
		return;
	switch (fault) {
	case FAULT_FLUSH:
		say("redis %u is emptied", w->master);
		w->process[w->master].store.count = 0;
		break;
	case FAULT_RESTART:
	case FAULT_FAILOVER:
		if (!w->old_master)
			promote(false, older_copy());
		break;
	case FAULT_SPLIT:
		if (!w->old_master)
			promote(true, older_copy());
		break;
	case FAULT_BACK:
		go_back(older_copy());
		break;
	case FAULT_REPLICA:
		say("redis %u: another replid", w->master);
		process_promote(w->master);
		break;
	case FAULT_STALL:
		say("redis %u stands still", w->master);
		state->paused_until = w->now + random_between(50, 2500) * MS;
		break;
	case FAULT_CLOCK:
		w->process[w->master].clock_us += (int64_t)random_below(120000000) - 60000000;
		say("redis %u: its clock jumps", w->master);
		break;
	default:
		break;
	}
}

static void heal(void)
{
	struct world *w = world;
	bool one = chance(0.6);
	unsigned where;

	merge();
	w->healed = true;
	w->over = false;
	say("all is healed");
	for (unsigned p = 1; p < w->processes; p++)
		w->state[p].paused_until = 0;
	do
		where = any_node();
	while (w->node[where].dead);
	for (unsigned n = 1; n <= w->nodes; n++) {
		struct node *node = &w->node[n];

		node->cut = false;
		node->leaving = false;
		node->lingers = false;
		node->not_before = 0;
		if (node->process != w->master) {
			node_break(n);
			node->process = w->master;
		}
		node_resume(n);
		if (!node->up)
			event_add(w->now + random_below(200 * MS), EVENT_START, n, 0);
		if (node->exists)
			event_add(w->now, EVENT_CONFIG, n, 0);
		node->buyers = one && n != where ? 0 : 400;
	}
}

void fault_happens(unsigned number, unsigned n)
{
	struct world *w = world;

	if (number >= FAULT_SWITCH) {
		struct node *node = &w->node[number - FAULT_SWITCH];

		/* In a split it may also go back. */
		if (node->up && !node->paused)
			node_break(number - FAULT_SWITCH);
		node->process = w->old_master && chance(0.3) ? w->old_master : w->master;
		if (w->old_master && chance(0.6))
			event_add(w->now + random_below(SECOND), EVENT_FAULT, 0, number);
		if (node->up && !node->paused)
			node_tick_at(number - FAULT_SWITCH, w->now + MS);
		return;
	}
	if (number >= FAULT_WHOLE) {
		w->node[number - FAULT_WHOLE].cut = false;
		return;
	}
	switch (number) {
	case FAULT_NEXT: {
		enum fault fault = (enum fault)random_below(FAULTS);

		if (w->healed)
			return;
		event_add(w->now + random_gap(4), EVENT_FAULT, 0, FAULT_NEXT);
		if (!(w->faults >> fault & 1))
			return;
		if (fault == FAULT_CROWD)
			crowd();
		else if (fault == FAULT_OVER) {
			w->over = true;
			event_add(w->now + random_between(200, 1500) * MS, EVENT_FAULT, 0, FAULT_OPEN);
		} else if (fault >= FAULT_FLUSH && fault <= FAULT_CLOCK)
			redis_fault(fault);
		else
			node_fault(fault, any_node());
		break;
	}
	case FAULT_JOIN:
		if (!w->healed)
			join();
		break;
	case FAULT_LINGERS:
		if (!w->healed)
			node_fault(chance(0.5) ? FAULT_CRASH : FAULT_BREAK, n);
		break;
	case FAULT_FORGOTTEN:
		if (!w->healed && may_lose()) {
			node_fault(FAULT_CRASH, n);
			redis_fault(FAULT_FLUSH);
		}
		break;
	case FAULT_FORGET:
		forget(n);
		break;
	case FAULT_MERGE:
		merge();
		break;
	case FAULT_OPEN:
		w->over = false;
		break;
	case FAULT_GONE:
		if (!w->node[n].leaving)
			break;
		node_crash(n);
		w->node[n].gate_until = w->now;
		reboot_perhaps(n);
		event_add(w->now + random_between(50, 3000) * MS, EVENT_START, n, 0);
		break;
	case FAULT_HEAL:
		heal();
		break;
	default:
		break;
	}
}
