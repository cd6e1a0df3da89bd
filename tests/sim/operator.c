/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The operator: makes the sale, changes its total, fences nodes that are gone, has Redis rebuilt. One job at a time, through one of the nodes; a
 * call without an answer is asked again with the same operation id, until he has had enough.
 */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEP (60 * MS)
#define PATIENCE (3 * SECOND)
#define SETTLED_AFTER (3 * SECOND) /* Redis is left alone for so long after the sale was made */

enum job { JOB_NONE, JOB_CREATE, JOB_TOTAL, JOB_FENCE, JOB_REBUILD };

static struct operator_ *job(void)
{
	return &world->operator_;
}

bool operator_sees(unsigned n, int64_t *balance, bool *fenced, bool *settled)
{
	const struct store *store = &world->process[world->master].store;
	const char *head = store_get(store, "head"), *row;
	long long words[9] = {0};
	char name[8], generation[LEASE_GENERATION_MAX];

	snprintf(name, sizeof(name), "n%u", n);
	row = store_get(store, name);
	if (!row || !head || sscanf(head, "%*s %63s", generation) != 1)
		return false;
	sscanf(row, "%lld %lld %*s %lld %lld %lld %lld %lld", &words[0], &words[1], &words[3], &words[4], &words[5],
		&words[6], &words[7]);
	*balance = words[4];
	*settled = words[6] == lease_generation_number(generation);
	*fenced = words[7] == lease_generation_number(generation);
	return true;
}

/* A node that he can talk to; 0 = none. */
static unsigned someone(void)
{
	unsigned first = (unsigned)random_between(1, world->nodes);

	for (unsigned i = 0; i < world->nodes; i++) {
		unsigned n = (first + i - 1) % world->nodes + 1;
		const struct node *node = &world->node[n];

		if (node->up && !node->paused && !node->leaving && node->lease.known)
			return n;
	}
	return 0;
}

static void begin(enum job what, unsigned by)
{
	*job() = (struct operator_){.job = what, .by = by, .give_up = world->now + PATIENCE, .number = job()->number};
}

static void end(void)
{
	struct operator_ *o = job();

	if (o->job == JOB_FENCE) {
		struct node *node = &world->node[o->target];

		node->held_down = false;
		if (node->start_waits)
			event_add(world->now + random_below(200 * MS), EVENT_START, o->target, 0);
	}
	o->job = JOB_NONE;
}

void operator_forget(void)
{
	if (job()->job)
		end();
}

static bool fence(unsigned target, bool exact)
{
	unsigned by = someone();

	if (!by || by == target)
		return false;
	begin(JOB_FENCE, by);
	job()->target = target;
	job()->exact = exact;
	world->node[target].held_down = exact;
	say("operator: fence node %u%s", target, exact ? " with what it has sold" : "");
	return true;
}

bool operator_fences(unsigned n)
{
	return !job()->job && fence(n, true);
}

/* A node that is gone for ever, and whose units Redis still counts as leased or as not told. */
static bool is_to_be_fenced(unsigned n)
{
	int64_t balance;
	bool fenced, settled;

	return world->node[n].dead && operator_sees(n, &balance, &fenced, &settled) &&
		(!fenced || balance != node_used(&world->node[n]));
}

bool operator_is_awaited(void)
{
	for (unsigned n = 1; n <= world->nodes; n++)
		if (is_to_be_fenced(n))
			return true;
	return !world->made;
}

/* Those that are gone for ever, and, as long as there are faults, anybody. */
static void choose(void)
{
	struct world *w = world;
	unsigned target;

	if (!w->made) {
		if (w->node[1].up && !w->node[1].paused) {
			begin(JOB_CREATE, 1);
			job()->give_up = NEVER;
			job()->careful = w->asked_to_make;
		}
		return;
	}
	for (target = 1; target <= w->nodes; target++) {
		if (w->node[target].dead && w->node[target].gate_until <= w->now && !w->old_master &&
			(w->healed || chance(0.05)) && is_to_be_fenced(target)) {
			fence(target, true);
			return;
		}
	}
	if (w->healed || !chance(0.04))
		return;
	target = (unsigned)random_between(1, w->nodes);
	switch (random_below(4)) {
	case 0:
		fence(target, false);
		break;
	case 1:
		/* With what its ledger says only if it is off, and no old master is about to which it could come back. */
		if (!w->node[target].up && w->node[target].exists && w->node[target].gate_until <= w->now &&
			!w->old_master)
			fence(target, true);
		break;
	case 2:
		if (w->change_count < CHANGES_MAX && someone()) {
			struct change *change = &w->changes[w->change_count++];

			begin(JOB_TOTAL, someone());
			change->delta = (int64_t)random_between(1, 12) * (chance(0.5) ? 1 : -1);
			snprintf(change->id, sizeof(change->id), "op%u", w->change_count);
			job()->change = change;
			if (change->delta > 0)
				w->most += change->delta;
			say("operator: %s, %lld", change->id, (long long)change->delta);
		}
		break;
	default:
		if (chance(0.3) && someone()) {
			begin(JOB_REBUILD, someone());
			say("operator: rebuild");
		}
		break;
	}
}

void operator_step(void)
{
	struct world *w = world;
	struct operator_ *o = job();
	const struct lease *l;
	struct lease_call call;

	event_add(w->now + STEP, EVENT_OPERATOR, 0, 0);
	if (o->job == JOB_NONE)
		choose();
	if (o->job == JOB_NONE || o->waiting || w->now < o->due)
		return;
	if (w->now > o->give_up || (w->healed && o->job != JOB_CREATE && o->give_up > w->heal_at + PATIENCE / 2)) {
		if (w->now > o->give_up) {
			say("operator: has had enough");
			end();
			return;
		}
	}
	l = &w->node[o->by].lease;
	switch (o->job) {
	case JOB_CREATE:
		if (!l->known && l->last.answer != LEASE_ABSENT)
			return;
		lease_create_call(l, "create", w->created, o->careful ? NULL : &l->last, &call);
		w->asked_to_make = true;
		break;
	case JOB_TOTAL:
		/* Answered; done when the ledger of the node that he talks to has it. */
		if (o->step == 1) {
			if (l->book.version >= o->version) {
				o->change->version = o->version;
				end();
			}
			return;
		}
		lease_total_call(l, o->change->id, o->change->delta, &call);
		break;
	case JOB_FENCE:
		if (o->step == 0) {
			lease_show_call(l, o->target, &call);
		} else {
			o->sold = o->exact ? node_used(&w->node[o->target]) : -1;
			lease_fence_call(l, o->target, &o->shown, o->sold, o->exact, &call);
		}
		break;
	default:
		lease_rebuild_call(l, &call);
		break;
	}
	o->waiting = true;
	operator_send(o->by, &call);
}

void operator_answer(enum lease_outcome outcome, const struct lease_reply *reply)
{
	struct world *w = world;
	struct operator_ *o = job();

	o->due = w->now + STEP;
	if (o->job == JOB_CREATE && outcome == LEASE_UNKNOWN)
		o->careful = true;
	if (outcome != LEASE_ANSWERED)
		return;
	if (reply->answer != LEASE_OK) {
		if (o->job == JOB_FENCE && (reply->answer == LEASE_STALE || reply->answer == LEASE_REFUSED))
			end();
		if (o->job == JOB_REBUILD && reply->answer == LEASE_REGEN)
			end();
		return;
	}
	if (o->job == JOB_CREATE) {
		say("operator: the sale is there");
		w->made = true;
		w->made_at = w->now;
		lease_look(&w->node[o->by].lease);
		end();
	} else if (o->job == JOB_TOTAL) {
		o->step = 1;
		o->version = reply->version;
		lease_look(&w->node[o->by].lease);
	} else if (o->step == 0) {
		o->step = 1;
		o->shown = reply->row;
	} else {
		end();
	}
}
