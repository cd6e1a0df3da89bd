/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Time, chance, the network, and the nodes: what the daemon does around lease.c, with a ledger that commits after a while and a gate that sells in the
 * meantime.
 */
#include "world.h"

#include <errno.h>
#include <stdarg.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK (40 * MS)         /* the daemon looks at its gate at least so often */
#define HEARTBEAT (2 * SECOND) /* the gate closes when the daemon has stood still for so long */
#define BUYER_STEP (100 * MS)
#define LINGER_MAX (4 * SECOND) /* of copies, in buffers of connections that broke */

struct world *world;

/* --- chance */

uint64_t random_below(uint64_t bound) /* splitmix64, Steele 2014 */
{
	uint64_t z = world->random += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	z ^= z >> 31;
	return bound ? z % bound : 0;
}

bool chance(double probability)
{
	return (double)random_below(1u << 30) < probability * (1u << 30);
}

uint64_t random_between(uint64_t low, uint64_t high)
{
	return low + random_below(high - low + 1);
}

uint64_t random_gap(double per_second)
{
	double u = ((double)random_below(1u << 30) + 1) / (1u << 30);

	return (uint64_t)(-log(u) / per_second * 1e9) + 1;
}

/* --- what is told */

void claim_fails(const char *format, ...)
{
	va_list args;
	int used = snprintf(world->failure, sizeof(world->failure), "at %.3f s: ", (double)world->now / 1e9);

	va_start(args, format);
	vsnprintf(world->failure + used, sizeof(world->failure) - (size_t)used, format, args);
	va_end(args);
	longjmp(world->failed, 1);
}

void say(const char *format, ...)
{
	va_list args;

	if (!world->trace)
		return;
	printf("%9.4f  ", (double)world->now / 1e9);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

/* --- time */

static bool is_before(const struct event *a, const struct event *b)
{
	return a->at < b->at || (a->at == b->at && a->order < b->order);
}

void event_add(uint64_t at, enum event_kind kind, unsigned node, unsigned number)
{
	struct world *w = world;
	unsigned i = w->events++;
	struct event event = {.at = at,
		.order = w->order++,
		.kind = kind,
		.node = node,
		.number = number,
		.life = w->node[node].life};

	if (i == EVENTS_MAX)
		claim_fails("the simulation has no room for another event");
	for (; i > 0 && is_before(&event, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
		w->heap[i] = w->heap[(i - 1) / 2];
	w->heap[i] = event;
}

static struct event event_take(void)
{
	struct world *w = world;
	struct event first = w->heap[0], last = w->heap[--w->events];
	unsigned i = 0, child;

	while ((child = 2 * i + 1) < w->events) {
		if (child + 1 < w->events && is_before(&w->heap[child + 1], &w->heap[child]))
			child++;
		if (!is_before(&w->heap[child], &last))
			break;
		w->heap[i] = w->heap[child];
		i = child;
	}
	w->heap[i] = last;
	return first;
}

/* --- Redis */

static void random_hex(char digits[41])
{
	for (unsigned i = 0; i < 40; i++)
		digits[i] = "0123456789abcdef"[random_below(16)];
	digits[40] = '\0';
}

void process_promote(unsigned p)
{
	random_hex(world->process[p].replid);
	world->state[p].last = (struct lease_reply){0};
}

unsigned process_new(const struct store *store)
{
	struct world *w = world;
	unsigned p = w->processes++;
	struct process *process = &w->process[p];

	if (p == PROCESSES_MAX)
		claim_fails("the simulation has no room for another process");
	memset(process, 0, sizeof(*process));
	random_hex(process->run);
	process_promote(p);
	process->clock_us = 1700000000000000 + (chance(0.3) ? (int64_t)random_below(120000000) - 60000000 : 0);
	if (store)
		process->store = *store;
	w->state[p] = (struct process_state){.up = true};
	return p;
}

static void snapshot(void)
{
	struct world *w = world;
	struct snapshot *to = &w->snapshots[w->snapshot_next];

	to->at = w->now;
	to->store = w->process[w->master].store;
	w->snapshot_next = (w->snapshot_next + 1) % SNAPSHOTS;
	if (w->snapshot_count < SNAPSHOTS)
		w->snapshot_count++;
}

void snapshots_forget(void)
{
	world->snapshot_count = 0;
	world->snapshot_next = 0;
}

/* --- network */

static unsigned message_new(void)
{
	for (unsigned i = 0; i < MESSAGES_MAX; i++) {
		if (!world->messages[i].used) {
			world->messages[i].used = true;
			return i;
		}
	}
	claim_fails("the simulation has no room for another message");
}

static uint64_t one_way(void)
{
	struct world *w = world;

	if (!w->healed && chance(w->slow))
		return random_between(w->round_trip, w->timeout * 3 / 2);
	return random_between(w->round_trip / 4 + 1, w->round_trip * 3 / 4 + 1);
}

static void message_send(unsigned n, const struct lease_call *call, unsigned number, bool operators)
{
	struct world *w = world;
	struct node *node = &w->node[n];
	unsigned i = message_new();
	struct message *message = &w->messages[i];
	uint64_t at = w->now + one_way();
	bool lost = !w->healed && chance(w->lose);

	w->calls++;
	message->call = *call;
	message->node = n;
	message->life = node->life;
	message->number = number;
	message->process = node->process;
	message->operators = operators;
	message->copy = false;
	message->reply_lost = !w->healed && chance(w->lose);
	event_add(w->now + w->timeout, EVENT_TIMEOUT, n, number);
	if (!w->healed && chance(w->copy)) {
		unsigned c = message_new();

		w->messages[c] = *message;
		w->messages[c].copy = true;
		event_add(at + random_between(0, LINGER_MAX), EVENT_REQUEST, n, c);
	}
	if (node->lingers && !operators && strcmp(call->script, "grant") == 0) {
		node->lingers = lost = false;
		message->copy = true;
		at = w->now + random_between(200 * MS, LINGER_MAX);
		fault_lingers(n);
	}
	if (node->cut) {
		/* Into a buffer that is never emptied, or one that is, later. */
		lost = chance(0.5);
		message->copy = true;
		at = w->now + random_between(w->timeout, LINGER_MAX);
	}
	if (lost)
		message->used = false;
	else
		event_add(at, EVENT_REQUEST, n, i);
}

void operator_send(unsigned n, const struct lease_call *call)
{
	struct node *node = &world->node[n];

	world->operator_.number = ++node->calls;
	message_send(n, call, node->calls, true);
}

static void request_arrives(unsigned i)
{
	struct world *w = world;
	struct message *message = &w->messages[i];
	struct process *process = &w->process[message->process];
	struct process_state *state = &w->state[message->process];
	struct answer answer;
	struct before before;

	if (!state->up) {
		message->used = false;
		return;
	}
	if (state->paused_until > w->now) {
		event_add(state->paused_until + random_between(0, MS), EVENT_REQUEST, message->node, i);
		return;
	}
	claim_before(message, &before);
	coordinator_run(process, w->now, &message->call, &answer);
	if (answer.error)
		claim_fails("%s of node %u: %s", message->call.script, message->node, answer.message);
	if (lease_reply_decode(&message->reply, answer.texts, answer.lengths, answer.count))
		claim_fails("%s of node %u: an answer that is none", message->call.script, message->node);
	message->outcome = LEASE_ANSWERED;
	state->last = message->reply;
	say("redis %u: %s%s of node %u seq %s gen %s: %s gen %s %s free %lld total %lld v%lld row epoch %lld seq %lld %d %lld balance %lld sold %lld outside %lld demand %lld",
		message->process, message->copy ? "COPY " : "", message->call.script, message->node,
		lease_call_argument(&message->call, 3), lease_call_argument(&message->call, 0), answer.texts[0],
		message->reply.generation, answer.texts[2], (long long)message->reply.free,
		(long long)message->reply.total, (long long)message->reply.version, (long long)message->reply.row.epoch,
		(long long)message->reply.row.seq, (int)message->reply.row.op, (long long)message->reply.row.units,
		(long long)message->reply.row.balance, (long long)message->reply.row.sold,
		(long long)message->reply.outside, (long long)message->reply.demand);
	if (strcmp(before.generation, message->reply.generation) != 0)
		w->generations++;
	claim_after(message, &before);
	if (message->process == w->master)
		snapshot();
	if (message->operators && strcmp(message->call.script, "show") != 0 &&
		(message->reply.answer == LEASE_OK || message->reply.answer == LEASE_REGEN))
		w->operated_at = w->now;
	if (message->operators && strcmp(message->call.script, "fence") == 0 && message->reply.answer == LEASE_OK) {
		unsigned target = (unsigned)atoi(lease_call_argument(&message->call, 15));

		/* Not if it has moved on to another process, where this fence means nothing. */
		if (atoll(lease_call_argument(&message->call, 18)) >= 0 &&
			lease_generation_number(w->node[target].book.generation) <=
				lease_generation_number(message->reply.generation))
			w->node[target].must_not_sell = true;
		if (message->process == w->master)
			fault_fenced(target);
	}
	claim_sums();
	if (answer.said)
		for (unsigned n = 1; n <= w->nodes; n++)
			if (w->node[n].process == message->process && !w->node[n].cut && (w->healed || chance(0.9)))
				event_add(w->now + one_way(), EVENT_LOOK, n, 0);
	if (message->copy || message->reply_lost)
		message->used = false;
	else
		event_add(w->now + one_way(), EVENT_REPLY, message->node, i);
}

/* --- nodes */

int64_t node_used(const struct node *node)
{
	return node->sold + node->gone;
}

static uint64_t node_clock(const struct node *node)
{
	return node->clock_ns + (uint64_t)((double)world->now * node->clock_rate);
}

void node_tick_at(unsigned n, uint64_t at)
{
	event_add(at, EVENT_TICK, n, ++world->node[n].tick);
}

static void node_move(unsigned n)
{
	struct world *w = world;
	struct node *node = &w->node[n];
	int64_t units = node->action.units;

	/* Between lease_next and this the gate has gone on selling. */
	if (units < 0) {
		if (node->unsold < -units) {
			lease_moved(&node->lease, -EAGAIN, node_clock(node));
			node_tick_at(n, w->now + MS);
			return;
		}
		node->unsold += units;
		node->in_move = -units;
	}
	node->committing = true;
	event_add(w->now + random_between(MS / 5, chance(0.05) ? 300 * MS : 4 * MS), EVENT_COMMIT, n, 0);
}

static void node_tick(unsigned n)
{
	struct world *w = world;
	struct node *node = &w->node[n];
	struct lease_view view;
	struct lease_flags flags;

	if (!node->up || node->paused)
		return;
	view = (struct lease_view){
		.now_ns = node_clock(node),
		.unsold = node->unsold,
		.admitted = node->admitted,
		.wanted = node->wanted,
		.ordered = node->ordered,
		.order_max = w->order_max,
		.over = w->over,
		.leaving = node->leaving,
		.rest_ns = w->rest_ns,
	};
	claim_lease(node);
	lease_next(&node->lease, &view, &node->action);
	lease_flags(&node->lease, &flags);
	node->withheld = flags.withheld;
	node->more = flags.more;
	switch (node->action.kind) {
	case LEASE_WAIT: {
		uint64_t wait = node->action.until_ns <= view.now_ns ? 0 : node->action.until_ns - view.now_ns;

		if (!wait)
			claim_fails("node %u is to wait for a time that is over", n);
		node_tick_at(n, w->now + (wait < TICK ? wait + 1 : TICK));
		break;
	}
	case LEASE_CALL:
		node->calling = ++node->calls;
		message_send(n, &node->action.call, node->calling, false);
		node_tick_at(n, w->now + TICK);
		break;
	case LEASE_MOVE:
		say("node %u: move %lld seq %lld gen %s", n, (long long)node->action.units,
			(long long)node->action.book.seq, node->action.book.generation);
		node_tick_at(n, w->now + TICK);
		node_move(n);
		break;
	}
}

/* The transaction of the move that is under way. */
static void ledger_writes(unsigned n)
{
	struct node *node = &world->node[n];
	int64_t units = node->action.units;

	if (units && node->has_book && node->action.book.seq <= node->book.seq)
		claim_fails("node %u moves units twice with number %lld", n, (long long)node->action.book.seq);
	if (node->action.book.epoch != node->book.epoch ||
		strcmp(node->action.book.generation, node->book.generation) != 0)
		node->must_not_sell = false;
	if (node->action.book.balance != node->book.balance + units || node->action.book.balance < node_used(node))
		claim_fails("node %u: a move of %lld, and the book goes from %lld to %lld with %lld sold", n,
			(long long)units, (long long)node->book.balance, (long long)node->action.book.balance,
			(long long)node_used(node));
	node->committing = false;
	node->book = node->action.book;
	node->has_book = true;
	node->in_move = units > 0 ? units : 0;
	if (units > 0)
		world->grants++;
	claim_sums();
}

static void ledger_commits(unsigned n)
{
	struct world *w = world;
	struct node *node = &w->node[n];
	int64_t units = node->action.units;

	if (!w->healed && !node->paused && chance(w->refuse)) {
		say("node %u: its ledger refuses", n);
		if (units < 0) {
			node->unsold -= units;
			node->in_move = 0;
		}
		node->committing = false;
		lease_moved(&node->lease, -EIO, node_clock(node));
		node_tick_at(n, w->now + MS);
		return;
	}
	ledger_writes(n);
	event_add(w->now + random_between(MS / 10, MS), EVENT_MOVED, n, 0);
}

static void ledger_answered(unsigned n)
{
	struct node *node = &world->node[n];

	if (node->action.units > 0)
		node->unsold += node->action.units;
	node->in_move = 0;
	lease_moved(&node->lease, 0, node_clock(node));
	if (node->unsold + node->in_move + node_used(node) != node->book.balance)
		claim_fails("node %u has %lld in its gate and %lld sold, and a balance of %lld", n,
			(long long)node->unsold, (long long)node_used(node), (long long)node->book.balance);
	node_tick(n);
}

static void name_origin(struct node *node)
{
	snprintf(node->options.origin, sizeof(node->options.origin), "place-%u-%u", node->options.node, node->boots);
}

void node_create(unsigned n, const struct lease_members *members)
{
	struct node *node = &world->node[n];

	node->exists = true;
	node->options.node = n;
	node->options.members = *members;
	node->options.lease_ms = 2000;
	strcpy(node->options.channel, "sluice:{fleet}:look");
	name_origin(node);
	node->clock_ns = random_between(SECOND, 100000 * SECOND);
	node->clock_rate = 0.99 + 0.02 * (double)random_below(1000) / 1000;
	event_add(world->now + random_gap(20), EVENT_BUYER, n, 0);
	event_add(world->now + random_gap(4), EVENT_LIFE, n, 0);
}

void node_start(unsigned n)
{
	struct world *w = world;
	struct node *node = &w->node[n];

	if (node->up || node->dead || !node->exists)
		return;
	if (node->held_down) {
		node->start_waits = true;
		return;
	}
	if (node->not_before > w->now) {
		event_add(node->not_before, EVENT_START, n, 0);
		return;
	}
	say("node %u starts", n);
	node->up = true;
	node->paused = false;
	node->start_waits = false;
	node->calling = 0;
	node->in_move = 0;
	node->unsold = node->book.balance - node_used(node);
	node->admitted = node->wanted = 0;
	node->withheld = true;
	node->more = true;
	node->process = w->master;
	lease_init(&node->lease, &node->options, node->has_book ? &node->book : NULL);
	/* The gate is closed until the daemon has told it. */
	node_tick(n);
}

void node_crash(unsigned n)
{
	struct node *node = &world->node[n];

	if (!node->up)
		return;
	say("node %u crashes", n);
	/* The writer has the transaction, or it does not. */
	if (node->committing && chance(0.5))
		ledger_writes(n);
	node->committing = false;
	node->up = false;
	node->leaving = false;
	node->life++;
	/* Without the daemon the gate sells on for a moment, unless the machine is gone. Nothing that is between gate and ledger is in the gate. */
	node->gate_until = chance(0.5) ? world->now + HEARTBEAT : world->now;
	if (node->paused)
		node->gate_until = world->now;
	if (world->operator_.by == n)
		operator_forget();
}

void node_reboot(unsigned n)
{
	struct node *node = &world->node[n];

	say("the machine of node %u starts anew", n);
	node->boots++;
	node->gate_until = world->now;
	name_origin(node);
}

void node_break(unsigned n)
{
	struct node *node = &world->node[n];

	if (node->calling) {
		node->calling = 0;
		lease_called(&node->lease, LEASE_UNKNOWN, NULL, node_clock(node));
	}
}

void node_resume(unsigned n)
{
	struct node *node = &world->node[n];

	if (!node->up || !node->paused)
		return;
	say("node %u goes on", n);
	node->paused = false;
	node_tick(n);
}

/* Time goes in steps: the gap to the next buyer has no memory, and so a crowd that comes is there at once. */
static void buyer_comes(unsigned n, bool comes)
{
	struct world *w = world;
	struct node *node = &w->node[n];
	int64_t units = w->healed ? 1 : (int64_t)random_between(1, w->order_max);
	bool open = node->up ? !node->paused || w->now - node->paused_ns < HEARTBEAT : w->now < node->gate_until;
	uint64_t gap = node->buyers > 0 ? random_gap(node->buyers) : NEVER;

	event_add(w->now + (gap < BUYER_STEP ? gap : BUYER_STEP), EVENT_BUYER, n, gap < BUYER_STEP);
	if (!comes || !open || w->over || node->buyers <= 0)
		return;
	if (!node->withheld && node->unsold >= units) {
		node->unsold -= units;
		node->sold += units;
		node->admitted += (uint64_t)units;
		node->ordered++;
		w->orders++;
		claim_sold(node, units);
	} else if (node->withheld || node->more) {
		node->wanted += (uint64_t)units;
		if (node->up && node->lease.under_way == LEASE_IDLE)
			node_tick_at(n, w->now + MS);
	}
}

/* Orders are cancelled and refunded. */
static void orders_live(unsigned n)
{
	struct node *node = &world->node[n];

	event_add(world->now + random_gap(4), EVENT_LIFE, n, 0);
	if (!node->up || world->healed || node->sold == 0)
		return;
	node->sold--;
	if (chance(0.2))
		node->gone++;
	else
		node->unsold++;
}

static void reply_arrives(unsigned i)
{
	struct message *message = &world->messages[i];
	struct node *node = &world->node[message->node];
	bool mine = node->up && node->life == message->life;

	if (mine && node->paused) {
		/* It waits in the socket, and the daemon finds it when it goes on, if it does not find first that its time is over. */
		event_add(world->now + 50 * MS, EVENT_REPLY, message->node, i);
		return;
	}
	message->used = false;
	if (!mine || node->cut)
		return;
	if (message->operators) {
		if (world->operator_.waiting && world->operator_.by == message->node &&
			world->operator_.number == message->number) {
			world->operator_.waiting = false;
			operator_answer(message->outcome, &message->reply);
		}
		return;
	}
	if (node->calling != message->number)
		return;
	node->calling = 0;
	lease_called(&node->lease, message->outcome, &message->reply, node_clock(node));
	node_tick(message->node);
}

static void call_is_late(unsigned n, unsigned number)
{
	struct node *node = &world->node[n];

	if (node->paused) {
		event_add(world->now + random_between(10, 100) * MS, EVENT_TIMEOUT, n, number);
		return;
	}
	if (world->operator_.waiting && world->operator_.by == n && world->operator_.number == number) {
		world->operator_.waiting = false;
		operator_answer(LEASE_UNKNOWN, NULL);
	}
	if (node->up && node->calling == number) {
		say("node %u: no answer", n);
		node_break(n);
		node_tick(n);
	}
}

static void happens(const struct event *event)
{
	struct world *w = world;
	struct node *node = &w->node[event->node];
	bool now = event->life == node->life && node->up; /* not of a daemon that is gone */

	switch (event->kind) {
	case EVENT_TICK:
		if (now && event->number == node->tick)
			node_tick(event->node);
		break;
	case EVENT_REQUEST:
		request_arrives(event->number);
		break;
	case EVENT_REPLY:
		reply_arrives(event->number);
		break;
	case EVENT_TIMEOUT:
		if (now)
			call_is_late(event->node, event->number);
		break;
	case EVENT_LOOK:
		if (now && !node->paused) {
			lease_look(&node->lease);
			node_tick(event->node);
		}
		break;
	case EVENT_COMMIT:
	case EVENT_MOVED:
		if (!now)
			break;
		if (event->kind == EVENT_COMMIT)
			ledger_commits(event->node);
		else if (node->paused)
			event_add(w->now + 20 * MS, event->kind, event->node, 0);
		else
			ledger_answered(event->node);
		break;
	case EVENT_BUYER:
		buyer_comes(event->node, event->number);
		break;
	case EVENT_LIFE:
		orders_live(event->node);
		break;
	case EVENT_FAULT:
		fault_happens(event->number, event->node);
		break;
	case EVENT_START:
		node_start(event->node);
		break;
	case EVENT_RESUME:
		node_resume(event->node);
		break;
	case EVENT_CONFIG:
		for (unsigned n = 1; n <= w->nodes; n++)
			lease_members_add(&node->options.members, n);
		if (node->up)
			lease_set_options(&node->lease, &node->options);
		break;
	case EVENT_OPERATOR:
		operator_step();
		break;
	}
}

const char *world_run(struct world *w, uint64_t seed, bool trace)
{
	memset(w, 0, offsetof(struct world, heap));
	for (unsigned i = 0; i < MESSAGES_MAX; i++)
		w->messages[i].used = false;
	world = w;
	w->seed = w->random = seed;
	w->trace = trace;
	if (setjmp(w->failed))
		return w->failure;
	w->processes = 1; /* 0 is none */
	faults_choose();
	while (w->events && !w->done_at) {
		struct event event = event_take();

		w->now = event.at;
		happens(&event);
		claim_end();
	}
	return NULL;
}
