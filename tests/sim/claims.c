/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What must hold: at every moment, and in the end. */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Everything is sold so soon after the last fault, where buyers are, and some round trips (the last units go in shares, half of what is free among who has
 * wanted some in the last seconds): a call is given up (0.7 s) and all settle (0.2 s); and then,
 * twice, units lie where nobody wants them any more until that is seen (1.1 s) and others ask for them (0.5 s).
 */
#define SOLD_BY (4 * SECOND)
#define AGAIN_BY (2 * SECOND) /* and what is cancelled at one node is sold at another */
#define SOLD_TRIPS 20
#define AGAIN_TRIPS 6
#define OPERATED_BY (4 * SECOND) /* the operator fences who is gone, when he has done or given up what he was at */
#define CALM (5 * SECOND / 2)    /* after that nobody hopes any more for buyers who are elsewhere now */
#define CALM_AT_REST \
	(6 * SECOND)          /* and after that Redis has forgotten what was wished for, and who has many sales rests */
#define QUIET_BY (4 * SECOND) /* copies of calls linger no longer */
#define DOUBLED_BY \
	(8 * SECOND) /* a copy that lingered is heard, and after that nothing for a second, which is asked for every two */
#define CANCELLED 3

int64_t sold_by_all(void)
{
	int64_t sum = 0;

	for (unsigned n = 1; n <= world->nodes; n++)
		sum += node_used(&world->node[n]);
	return sum;
}

/* I1: no unit is sold twice. And who was fenced, or does not know whether it was, sells none. */
void claim_sold(const struct node *node, int64_t units)
{
	if (sold_by_all() > world->most)
		claim_fails("oversold: node %u sells %lld, and all have sold %lld of %lld", node->options.node,
			(long long)units, (long long)sold_by_all(), (long long)world->most);
	if (node->must_not_sell)
		claim_fails("node %u sells, and was fenced", node->options.node);
	if (node->withheld)
		claim_fails("node %u sells, and its gate is closed", node->options.node);
}

/* A node asks nothing more of Redis before it has done what the last answer demanded, so it never has two such things to do; lease_moved builds on
 * that. And no ledger is older than its node here, so none may be taken for one that is.
 */
void claim_lease(const struct node *node)
{
	const struct lease *lease = &node->lease;

	if ((*lease->told != '\0') + (lease->told_epoch != 0) + (lease->granted != 0) > 1)
		claim_fails("node %u is to promise itself to \"%s\", to bow to fence %lld and to take %lld units",
			node->options.node, lease->told, (long long)lease->told_epoch, (long long)lease->granted);
	if (lease_trouble(lease) == LEASE_TROUBLE_SET_BACK)
		claim_fails("node %u takes its ledger for an older one", node->options.node);
	if (lease_trouble(lease) == LEASE_TROUBLE_DOUBLED) {
		if (!node->boots)
			claim_fails("node %u takes itself for another", node->options.node);
		world->doubled_at = world->now;
	}
}

/* The total by the latest version of it that anybody has: Redis may have forgotten one that only the ledger of a node that was fenced meanwhile has,
 * and learns it again when that node is back.
 */
static int64_t latest_total(const struct lease_reply *open)
{
	int64_t total = open->total, version = open->version;

	for (unsigned n = 1; n <= world->nodes; n++) {
		const struct lease_book *book = &world->node[n].book;

		if (book->version > version) {
			total = book->total;
			version = book->version;
		}
	}
	return total;
}

/* What Redis counts as free is in no ledger. Asked of the process with the highest generation that is open: others may answer still, but no
 * node listens to them any more, nor to what was open before that generation, when it is over.
 */
void claim_sums(void)
{
	struct world *w = world;
	const struct lease_reply *open = NULL;
	char server[48], generation[LEASE_GENERATION_MAX], state[16];
	int64_t sum = 0;

	for (unsigned p = 1; p < w->processes; p++) {
		const char *head = store_get(&w->process[p].store, "head");

		if (!w->state[p].up || !head || sscanf(head, "%47s %63s %15s", server, generation, state) != 3 ||
			strcmp(server, w->state[p].last.run) != 0 || strcmp(state, "open") != 0 ||
			strcmp(w->state[p].last.generation, generation) != 0 ||
			lease_generation_number(generation) < w->opened)
			continue;
		if (!open || lease_generation_number(generation) > lease_generation_number(open->generation))
			open = &w->state[p].last;
	}
	if (open)
		w->opened = lease_generation_number(open->generation);
	for (unsigned n = 1; n <= w->nodes; n++)
		sum += w->node[n].must_not_sell ? node_used(&w->node[n]) : w->node[n].book.balance;
	if (open && sum + (open->free > 0 ? open->free : 0) > latest_total(open))
		claim_fails("leased twice: the ledgers hold %lld, and %lld are free of %lld", (long long)sum,
			(long long)open->free, (long long)latest_total(open));
	for (unsigned i = 0; i < w->change_count; i++) {
		struct change *change = &w->changes[i];
		bool known = change->version > 0 && !change->known;

		for (unsigned n = 1; n <= w->nodes && known; n++)
			known = w->node[n].dead || w->node[n].book.version >= change->version;
		if (known) {
			change->known = true;
			if (change->delta < 0)
				w->most += change->delta;
			say("all know of %s", change->id);
		}
	}
}

/* May a new generation begin with this call? Nothing is granted in one until every node has told what it holds, so a bug that costs no more than that
 * meets none of the claims above. Needed it is where Redis or the caller cannot know what the other was told (lease_enter in prelude.lua,
 * settle.lua). A number or a balance that is not the row's has one begin as well: that is a second line, which nothing gets to as long as the first
 * one holds, so it is no need.
 */
void claim_before(const struct message *message, struct before *before)
{
	const struct lease_call *call = &message->call;
	const struct store *store = &world->process[message->process].store;
	const char *head = store_get(store, "head"), *quoted = lease_call_argument(call, 0), *row;
	struct lease_members members, told;
	long long version, balance, settled, fenced;
	char server[48], state[16], name[8];
	int64_t number;

	*before = (struct before){.need = true};
	/* Redis has lost the sale, or it is made just now. */
	if (!head || sscanf(head, "%47s %63s %15s %*s %lld", server, before->generation, state, &version) != 4)
		return;
	/* Another process wrote it, or this one has not answered since: a restart, or a replica that may lag. */
	if (strcmp(server, world->state[message->process].last.run) != 0)
		return;
	/* The caller has promised itself to another generation, which is not over. */
	number = lease_generation_number(before->generation);
	if (strcmp(quoted, before->generation) != 0) {
		before->need = lease_generation_number(quoted) >= number;
		return;
	}
	/* There is a new member, or the operator wants it. */
	if (lease_members_decode(&told, lease_call_argument(call, 10)) ||
		lease_members_decode(&members, store_get(store, "members")))
		claim_fails("a list of members that is none");
	if (!lease_members_cover(&members, &told) || strcmp(call->script, "rebuild") == 0)
		return;
	/* The state is open, and this is the first word of a node that it was opened without: it was fenced, and brings a later total; or the sale was
	 * just made, and it knows one of before.
	 */
	snprintf(name, sizeof(name), "n%s", lease_call_argument(call, 1));
	row = store_get(store, name);
	before->need = row && strcmp(call->script, "settle") == 0 && strcmp(state, "open") == 0 &&
		sscanf(row, "%*s %*s %*s %*s %lld %*s %lld %lld", &balance, &settled, &fenced) == 3 &&
		(fenced == number || settled != number) &&
		(atoll(lease_call_argument(call, 7)) > version ||
			(fenced != number && atoll(lease_call_argument(call, 4)) != balance));
}

void claim_after(const struct message *message, const struct before *before)
{
	const char *head = store_get(&world->process[message->process].store, "head");
	char generation[LEASE_GENERATION_MAX];

	if (!before->need &&
		(!head || sscanf(head, "%*s %63s", generation) != 1 || strcmp(generation, before->generation) != 0))
		claim_fails("a generation without need: %s of node %u with number %s and balance %s ends %s",
			message->call.script, message->node, lease_call_argument(&message->call, 3),
			lease_call_argument(&message->call, 4), before->generation);
}

/* The total as the last reply has it is one that the operator can have meant. */
static void claim_total(int64_t total)
{
	const struct world *w = world;
	int64_t low = w->created, high = w->created;

	for (unsigned i = 0; i < w->change_count; i++) {
		const struct change *change = &w->changes[i];

		if (change->known || change->delta > 0)
			high += change->delta;
		if (change->known || change->delta < 0)
			low += change->delta;
	}
	if (total < low || total > high)
		claim_fails("the total is %lld, and what the operator did makes %lld to %lld", (long long)total,
			(long long)low, (long long)high);
}

static void cancel_some(void)
{
	struct world *w = world;
	int cancelled = 0;

	for (unsigned tries = 0; tries < 20 && cancelled < CANCELLED; tries++) {
		struct node *node = &w->node[random_between(1, w->nodes)];

		if (node->up && node->sold > 0) {
			node->sold--;
			node->unsold++;
			cancelled++;
			say("an order is cancelled at node %u", node->options.node);
		}
	}
}

static void crowd_goes(void)
{
	for (unsigned n = 1; n <= world->nodes; n++) {
		world->node[n].crowd = world->node[n].buyers;
		world->node[n].buyers = 0;
	}
}

static void crowd_comes(void)
{
	for (unsigned n = 1; n <= world->nodes; n++)
		world->node[n].buyers = world->node[n].crowd;
}

static bool known_to_a_ledger(void)
{
	for (unsigned n = 1; n <= world->nodes; n++)
		if (world->node[n].book.version)
			return true;
	return false;
}

/* When the last thing was done: all was healed; a machine that was started anew was taken for the node that it is; the operator has made the sale, changed its total, fenced who is gone; more units came in. */
static uint64_t sale_since(void)
{
	const struct world *w = world;
	uint64_t since = w->operated_at > w->heal_at ? w->operated_at : w->heal_at;

	since = w->doubled_at > since ? w->doubled_at : since;
	return w->unsold_since > since ? w->unsold_since : since;
}

/* I2: after the last fault every unit is sold, where buyers are, in a bounded time; and again when orders are cancelled. */
void claim_end(void)
{
	struct world *w = world;
	const struct lease_reply *last = &w->state[w->master].last;
	uint64_t since, by;
	int64_t total, sold;

	if (!w->healed)
		return;
	if (w->doubled_at > w->heal_at + DOUBLED_BY)
		claim_fails("a node that was started anew still waits for itself to be silent");
	/* Redis lost the sale in the moment in which it was made, before any ledger had it: there is nothing to sell until it is made again. */
	if (!last->version && !known_to_a_ledger() && w->now - w->heal_at > QUIET_BY) {
		w->done_at = w->now;
		return;
	}
	total = last->total;
	sold = sold_by_all();
	if (sold == total && last->open && w->made) {
		if (!w->again && !w->calm_since) {
			w->calm_since = w->now;
			w->sold_ns = w->now - sale_since();
			crowd_goes();
		}
		if (!w->again && w->now - w->calm_since >= (w->rest_ns ? CALM_AT_REST : CALM)) {
			w->again = true;
			w->cancelled_at = w->now;
			crowd_comes();
			cancel_some();
		} else if (w->again && !w->again_ns) {
			w->again_ns = w->now - w->cancelled_at + 1;
		}
		if (!w->again_ns || w->now - w->heal_at < QUIET_BY)
			return;
		claim_total(total);
		if (last->free != 0)
			claim_fails("%lld of %lld are free, and everything is sold", (long long)last->free,
				(long long)total);
		w->done_at = w->now;
		return;
	}
	if (w->calm_since && !w->again) {
		/* The operator has just put more in. */
		w->calm_since = 0;
		w->unsold_since = w->now;
		crowd_comes();
	}
	since = w->again ? w->cancelled_at : sale_since();
	by = w->again ? AGAIN_BY + AGAIN_TRIPS * w->round_trip : SOLD_BY + SOLD_TRIPS * w->round_trip;
	if (!w->again && operator_is_awaited())
		by += OPERATED_BY;
	if (w->now - since > by && !w->again_ns)
		claim_fails("%lld of %lld are sold %.1f s after the last %s; %lld are free", (long long)sold,
			(long long)total, (double)by / 1e9, w->again ? "cancellation" : "fault", (long long)last->free);
}
