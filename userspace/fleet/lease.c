/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The node's side of the lease protocol. What is next is decided in lease_next from top to bottom: what an answer demanded, what is not
 * finished, and then what the sale wants. The scripts are the other side; docs/fleet.md has the protocol.
 */
#include "fleet/lease.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fleet/lease_plant.h"

#define MS 1000000ull
#define RETRY_NS (100 * MS)  /* after a call that failed */
#define ABSENT_NS (500 * MS) /* between looks for a sale that Redis does not have */
#define GATHER_NS (200 * MS) /* between looks while other members have not settled */
#define SCARCE_NS \
	(500 * MS) /* between reports when units are wanted, here or elsewhere, or none is free and some are here */
#define SELLING_NS (3000 * MS) /* of one that sells, and reports with each grant as well */
#define QUIET_NS (1000 * MS)   /* of others: units may lie there when they are wanted */
#define OVER_NS (5000 * MS)    /* of one whose sale is over */
#define REST_NS_MAX \
	(16 * 1000 * \
		MS) /* of one at rest that is not over: another daemon with this node's number waits a little longer (LEASE_SILENT_MS) */
#define TROUBLE_NS (2000 * MS)   /* between looks whether the trouble is over */
#define LOOK_NS (20 * MS)        /* messages make no more reports than one in that time */
#define LOOK_QUIET_NS (200 * MS) /* the same, of a node that neither has nor wants units */
#define IDLE_NS \
	(1100 * MS) /* who has sold nothing for so long gives everything to who wants it: buyers who were refused come again after 1 s */
#define KEEP_MS 500           /* who sells keeps so much of its own sales when others want units */
#define FRESH_NS (700 * MS)   /* what an answer said of the others is true for so long */
#define MISSED_NS (1000 * MS) /* buyers who were refused are counted over so long: after that they come again */
#define ASK_NS (50 * MS)      /* between grants asked in vain; doubles, up to */
#define ASK_DOUBLINGS 3
#define COUNT_NS (50 * MS)  /* the rate is made of spans of at least that length, */
#define RISE_NS (250 * MS)  /* and follows within about this time upwards */
#define FALL_NS (1000 * MS) /* and this downwards */
#define WANT_MAX LEASE_UNITS_MAX

static const char *const op_names[] = {
	[LEASE_OP_NONE] = "none",
	[LEASE_OP_GRANT] = "grant",
	[LEASE_OP_RETURN] = "return",
};

static const char *const answer_names[] = {
	[LEASE_OK] = "ok",
	[LEASE_NOTHING] = "nothing",
	[LEASE_REGEN] = "regen",
	[LEASE_FENCED] = "fenced",
	[LEASE_SETTLING] = "settling",
	[LEASE_UNMET] = "unmet",
	[LEASE_ABSENT] = "absent",
	[LEASE_SHORT] = "short",
	[LEASE_REFUSED] = "refused",
	[LEASE_DOUBLED] = "doubled",
	[LEASE_SET_BACK] = "set_back",
	[LEASE_STALE] = "stale",
};

static const char *const trouble_names[] = {
	[LEASE_TROUBLE_NONE] = "none",
	[LEASE_TROUBLE_DOUBLED] = "doubled",
	[LEASE_TROUBLE_SET_BACK] = "set_back",
};

/* --- calls and replies as texts */

static void call_add(struct lease_call *call, const char *text)
{
	size_t size = strlen(text) + 1;

	call->at[call->count++] = call->used;
	memcpy(call->text + call->used, text, size);
	call->used += (uint16_t)size;
}

static void call_add_number(struct lease_call *call, int64_t number)
{
	char text[24];

	snprintf(text, sizeof(text), "%lld", (long long)number);
	call_add(call, text);
}

/* What every call begins with. `announces`: it names the nodes that are new in the config, and the ledgers of all are to know of these before they hold
 * units. So does who may want units for them, and who makes the sale; not who only looks, nor who has nothing to sell any more: a node that
 * comes when a sale is over may never speak of it. The texts fit: the longest list of members has 1,020 bytes, and the others 64 at the most.
 */
static void call_begin(const struct lease *l, struct lease_call *call, const char *script, int64_t seq, bool announces)
{
	struct lease_members members = l->book.members;
	char text[LEASE_MEMBERS_TEXT_MAX];

	if (announces)
		lease_members_join(&members, &l->options.members);
	lease_members_add(&members, l->options.node);
	lease_members_encode(&members, text);
	call->script = script;
	call->count = 0;
	call->used = 0;
	call_add(call, l->book.generation);
	call_add_number(call, l->options.node);
	call_add_number(call, l->book.epoch);
	call_add_number(call, seq);
	call_add_number(call, l->book.balance);
	call_add_number(call, l->unsold);
	call_add_number(call, l->book.total);
	call_add_number(call, l->book.version);
	call_add(call, l->book.operation);
	call_add_number(call, (int64_t)(l->rate * 1000));
	call_add(call, text);
	call_add_number(call, l->options.fence_after_ms);
	call_add(call, l->options.channel);
	call_add(call, l->options.origin);
	call_add_number(call, l->book.seq + (int64_t)l->ordered);
}

void lease_total_call(const struct lease *l, const char *operation, int64_t delta, struct lease_call *call)
{
	call_begin(l, call, "total", l->seq, false);
	call_add(call, operation);
	call_add_number(call, delta);
	call_add(call, "");
	call_add(call, "");
}

void lease_create_call(const struct lease *l, const char *operation, int64_t total, const struct lease_reply *absent,
	struct lease_call *call)
{
	call_begin(l, call, "total", l->seq, true);
	call_add(call, operation);
	call_add_number(call, total);
	call_add(call, absent ? absent->run : "any");
	call_add_number(call, absent ? absent->time_ms : 0);
}

void lease_fence_call(const struct lease *l, unsigned target, const struct lease_row *shown, int64_t sold, bool exact,
	struct lease_call *call)
{
	call_begin(l, call, "fence", l->seq, false);
	call_add_number(call, target);
	call_add_number(call, shown->epoch);
	call_add_number(call, shown->heard);
	call_add_number(call, sold);
	call_add(call, exact ? "1" : "0");
}

void lease_rebuild_call(const struct lease *l, struct lease_call *call)
{
	call_begin(l, call, "rebuild", l->seq, false);
}

void lease_show_call(const struct lease *l, unsigned node, struct lease_call *call)
{
	call_begin(l, call, "show", l->seq, false);
	call_add_number(call, node);
}

/* The node counts on from what it is told, and its ledger must be able to say how far: by its own counting it never comes from here to LEASE_COUNT_MAX. */
#define SEQ_TOLD_MAX (LEASE_COUNT_MAX / 2)

static int text_number(const char *text, int64_t min, int64_t max, int64_t *number)
{
	bool negative = *text == '-';
	int64_t value = 0;

	text += negative;
	if (!*text)
		return -EPROTO;
	for (; *text; text++) {
		if (*text < '0' || *text > '9' || value > LEASE_COUNT_MAX)
			return -EPROTO;
		value = value * 10 + (*text - '0');
	}
	value = negative ? -value : value;
	if (value < min || value > max)
		return -EPROTO;
	*number = value;
	return 0;
}

static int text_copy(const char *text, char *to, size_t size)
{
	size_t length = strlen(text);

	if (length >= size)
		return -EPROTO;
	memcpy(to, text, length + 1);
	return 0;
}

static int text_name(const char *text, const char *const *names, unsigned count, unsigned *index)
{
	for (*index = 0; *index < count; (*index)++)
		if (strcmp(text, names[*index]) == 0)
			return 0;
	return -EPROTO;
}

int lease_reply_decode(struct lease_reply *reply, const char *const *texts, const size_t *lengths, size_t count)
{
	struct lease_reply r = {0};
	int64_t fenced;
	unsigned answer, op;

	if (count != LEASE_REPLY_TEXTS)
		return -EPROTO;
	for (size_t i = 0; i < count; i++)
		if (!texts[i] || strlen(texts[i]) != lengths[i])
			return -EPROTO;
	if (text_name(texts[0], answer_names, sizeof(answer_names) / sizeof(answer_names[0]), &answer) ||
		text_copy(texts[1], r.generation, sizeof(r.generation)) || lease_generation_number(r.generation) < 0 ||
		(strcmp(texts[2], "open") != 0 && strcmp(texts[2], "settling") != 0) ||
		text_number(texts[3], 0, LEASE_UNITS_MAX, &r.total) ||
		text_number(texts[4], 0, LEASE_COUNT_MAX, &r.version) ||
		text_copy(texts[5], r.operation, sizeof(r.operation)) || !lease_operation_is_valid(r.operation) ||
		text_number(texts[6], -LEASE_UNITS_MAX, LEASE_UNITS_MAX, &r.free) ||
		text_number(texts[7], 0, LEASE_COUNT_MAX, &r.outside) ||
		text_number(texts[8], 0, LEASE_COUNT_MAX, &r.demand) || lease_members_decode(&r.missing, texts[9]) ||
		lease_members_decode(&r.members, texts[10]) ||
		text_number(texts[11], 0, LEASE_COUNT_MAX, &r.row.epoch) ||
		text_number(texts[12], 0, SEQ_TOLD_MAX, &r.row.seq) ||
		text_name(texts[13], op_names, sizeof(op_names) / sizeof(op_names[0]), &op) ||
		text_number(texts[14], 0, LEASE_UNITS_MAX, &r.row.units) ||
		text_number(texts[15], -1, LEASE_UNITS_MAX, &r.row.balance) ||
		text_number(texts[16], 0, LEASE_UNITS_MAX, &r.row.sold) || text_number(texts[17], 0, 1, &fenced) ||
		text_number(texts[18], 0, LEASE_COUNT_MAX, &r.row.heard) ||
		text_copy(texts[19], r.run, sizeof(r.run)) || text_number(texts[20], 0, LEASE_COUNT_MAX, &r.time_ms) ||
		text_number(texts[21], 0, LEASE_COUNT_MAX, &r.row.written))
		return -EPROTO;
	r.answer = (enum lease_answer)answer;
	r.open = strcmp(texts[2], "open") == 0;
	r.row.op = (enum lease_op)op;
	r.row.fenced = fenced;
	*reply = r;
	return 0;
}

/* --- what the node sees of itself */

void lease_init(struct lease *l, const struct lease_options *options, const struct lease_book *book)
{
	*l = (struct lease){0};
	l->options = *options;
	if (book)
		l->book = *book;
	l->strange = !lease_planted(sells_while_strange);
	/* The daemon before this one may have asked for units, and nobody knows what became of it. */
	l->asked = !lease_planted(number_used_twice);
	l->seq = l->book.seq;
}

void lease_set_options(struct lease *l, const struct lease_options *options)
{
	l->options = *options;
	l->look = true;
}

static int64_t grown(uint64_t *last, uint64_t now)
{
	int64_t by = now >= *last ? (int64_t)(now - *last) : 0; /* it began anew: with what, nobody knows */

	*last = now;
	return by;
}

static void count_sales(struct lease *l, const struct lease_view *view)
{
	uint64_t span = view->now_ns - l->counted_ns;
	int64_t sold, wanted;

	if (!l->counting) {
		l->counting = true;
		l->counted_ns = l->active_ns = l->missed_ns = view->now_ns;
		l->admitted = view->admitted;
		l->wanted = view->wanted;
		return;
	}
	sold = grown(&l->admitted, view->admitted);
	wanted = grown(&l->wanted, view->wanted);
	if (sold > 0)
		l->active_ns = view->now_ns;
	if (view->now_ns - l->missed_ns > MISSED_NS) {
		l->missed_before = view->now_ns - l->missed_ns > 2 * MISSED_NS ? 0 : l->missed;
		l->missed = 0;
		l->missed_ns = view->now_ns;
	}
	l->missed += wanted;
	l->counted += sold;
	if (span >= COUNT_NS) {
		double now = (double)l->counted * 1e9 / (double)span;
		double over = (double)(now > l->rate ? RISE_NS : FALL_NS);

		l->rate += (now - l->rate) * (double)span / (over + (double)span);
		l->counted = 0;
		l->counted_ns = view->now_ns;
	}
}

static bool is_idle(const struct lease *l, uint64_t now_ns)
{
	return now_ns - l->active_ns > IDLE_NS;
}

/* Units that buyers wanted in vain, about those of the last second. */
static int64_t missed(const struct lease *l)
{
	return l->missed > l->missed_before ? l->missed : l->missed_before;
}

static int64_t units_of_ms(const struct lease *l, uint32_t ms)
{
	double units = l->rate * ms / 1000;

	return units < (double)WANT_MAX ? (int64_t)(units + 0.999) : WANT_MAX;
}

static int64_t at_least_0(int64_t units)
{
	return units > 0 ? units : 0;
}

/* Units to give back now. */
static int64_t surplus(const struct lease *l, const struct lease_view *view)
{
	int64_t spare;

	if (!l->last.open)
		return 0;
	if (view->over || view->leaving)
		return view->unsold;
	if (view->now_ns - l->granted_ns < IDLE_NS)
		return 0; /* those for whom they came may be on their way */
	spare = view->unsold - (is_idle(l, view->now_ns) ? 0 : units_of_ms(l, KEEP_MS));
	return at_least_0(spare < l->last.demand ? spare : l->last.demand);
}

/* Units to ask for now; `least`: fewer may be of no use. */
static int64_t wish(const struct lease *l, const struct lease_view *view, int64_t *least)
{
	int64_t refused = missed(l), target, first;
	unsigned members = 0;

	*least = 0;
	if (view->over || view->leaving || !l->last.open)
		return 0;
	if (refused > 0) {
		target = units_of_ms(l, l->options.lease_ms);
		target = at_least_0((target > refused ? target : refused) - view->unsold);
		*least = at_least_0((refused < view->order_max ? refused : view->order_max) - view->unsold);
		return target;
	}
	if (!is_idle(l, view->now_ns)) {
		target = units_of_ms(l, l->last.demand > 0 ? KEEP_MS : l->options.lease_ms);
		if (target > 0 && view->unsold < (target + 1) / 2)
			return target - view->unsold;
	}
	/* For the first buyers, who may all come in the same moment: half of what is free, among all. */
	for (unsigned node = 1; node <= LEASE_NODE_MAX; node++)
		members += lease_members_has(&l->last.members, node);
	first = members && !l->last.demand ? at_least_0(l->last.free) / (2 * members) : 0;
	return first > 0 && view->unsold < first / 2 ? first - view->unsold : 0;
}

/* A sale that is over, while other members have not settled: this one has said all that it has to say, and nobody hurries. Some may never come: a node that was
 * taken out of the fleet, or that slept through the sale.
 */
static bool is_over_and_settling(const struct lease *l, const struct lease_view *view)
{
	return view->over && !l->last.open;
}

/* Nobody wants units, and nothing has changed since it was told: a report would say what is known. Whoever comes to want some says so in a message. */
static bool is_at_rest(const struct lease *l, const struct lease_view *view)
{
	if (missed(l) || view->unsold != l->unsold_told)
		return false;
	return is_over_and_settling(l, view) ||
		(l->last.open && !l->last.demand && (view->over ? !view->unsold : is_idle(l, view->now_ns)));
}

static uint64_t report_due(const struct lease *l, const struct lease_view *view)
{
	bool busy = view->unsold > 0 || missed(l) > 0 || l->last.demand > 0;
	bool scarce = missed(l) > 0 || l->last.demand > 0 || (view->unsold > 0 && l->last.free <= 0);
	uint64_t every = view->over        ? OVER_NS
		: !l->last.open            ? GATHER_NS
		: scarce                   ? SCARCE_NS
		: is_idle(l, view->now_ns) ? QUIET_NS
					   : SELLING_NS;
	uint64_t fence_ns = l->options.fence_after_ms * MS / 4;
	uint64_t rest_ns = view->over || view->rest_ns < REST_NS_MAX ? view->rest_ns : REST_NS_MAX;

	if (every < rest_ns && is_at_rest(l, view))
		every = rest_ns;
	if (fence_ns && every > fence_ns)
		every = fence_ns;
	/* Each such report is a message to all that somebody is missing, and would have all of them report. */
	if (l->look && !is_over_and_settling(l, view))
		every = busy || !l->last.open ? LOOK_NS : LOOK_QUIET_NS;
	return l->answered_ns + every;
}

/* --- what is next */

static void move(struct lease *l, struct lease_action *action, int under_way, int64_t units)
{
	l->under_way = under_way;
	l->next.balance += units;
	if (units && l->next.seq <= l->book.seq)
		l->next.seq = l->seq + 1;
	action->kind = LEASE_MOVE;
	action->units = units;
	action->book = l->next;
	if (lease_planted(promise_not_kept))
		memcpy(action->book.generation, l->book.generation, sizeof(action->book.generation));
}

/* The total, if another version of it is told than the book has. */
static bool take_news(struct lease_book *book, const struct lease_reply *told)
{
	if (told->version < book->version ||
		(told->version == book->version && (!told->open || strcmp(told->operation, book->operation) == 0)))
		return false;
	book->total = told->total;
	book->version = told->version;
	memcpy(book->operation, told->operation, sizeof(book->operation));
	return true;
}

static void call(struct lease *l, const struct lease_view *view, struct lease_action *action, int under_way)
{
	static const char *const scripts[] = {
		[LEASE_SETTLING_CALL] = "settle", [LEASE_GRANT_CALL] = "grant", [LEASE_RETURN_CALL] = "return"};
	bool next = under_way == LEASE_GRANT_CALL;

	l->under_way = under_way;
	l->sent_ns = view->now_ns;
	l->unsold_sent = view->unsold;
	action->kind = LEASE_CALL;
	call_begin(l, &action->call, scripts[under_way], under_way == LEASE_RETURN_CALL ? l->book.seq : l->seq + next,
		!view->over);
}

void lease_next(struct lease *l, const struct lease_view *view, struct lease_action *action)
{
	bool returning = l->book.op == LEASE_OP_RETURN && !l->confirmed;
	int64_t units, least;
	uint64_t due, idle;

	count_sales(l, view);
	l->unsold = view->unsold;
	l->ordered = view->ordered;
	/* Others may fence it soon: it must not sell any more, and must hear what became of it before it does. */
	if (l->options.fence_after_ms && l->settled &&
		view->now_ns - l->acknowledged_ns > l->options.fence_after_ms * MS) {
		l->strange = true;
		l->settled = false;
	}
	action->kind = LEASE_WAIT;
	action->until_ns = UINT64_MAX;
	if (l->under_way != LEASE_IDLE)
		return;
	if (view->now_ns < l->quiet_until_ns) {
		action->until_ns = l->quiet_until_ns;
		return;
	}
	l->next = l->book;

	/* Another generation. The promise is durable before the first word in it: never again is anything taken of an earlier one, not even after
	 * a crash. What was under way there is no more: the balance of the book is what counts. Who is strange may have been fenced, and Redis may have
	 * forgotten it: it keeps only what it has sold. The number goes into the ledger with it, although grants of nothing do not: a daemon after this
	 * one must not say its first word with a lower one than this, or a late copy of this one's would look like something that was lost.
	 */
	if (*l->told) {
		memcpy(l->next.generation, l->told, sizeof(l->next.generation));
		lease_members_join(&l->next.members, &l->told_members);
		l->next.seq = l->seq;
		l->next.op = LEASE_OP_NONE;
		l->next.units = 0;
		move(l, action, LEASE_PROMISE_MOVE,
			l->strange && !lease_planted(strange_keeps_units) ? -view->unsold : 0);
		return;
	}
	if (l->told_epoch) {
		l->next.epoch = l->told_epoch;
		l->next.seq = l->seq;
		l->next.op = LEASE_OP_NONE;
		l->next.units = 0;
		move(l, action, LEASE_BOW_MOVE, lease_planted(bows_and_keeps) ? 0 : -view->unsold);
		return;
	}
	if (l->granted) {
		l->next.seq = l->seq;
		l->next.op = LEASE_OP_GRANT;
		l->next.units = l->granted;
		take_news(&l->next, &l->last);
		move(l, action, LEASE_GRANT_MOVE, l->granted);
		return;
	}
	if (returning) {
		call(l, view, action, LEASE_RETURN_CALL);
		call_add_number(&action->call, l->book.units);
		return;
	}
	if (!l->settled) {
		call(l, view, action, LEASE_SETTLING_CALL);
		return;
	}
	units = wish(l, view, &least);
	/* What was asked for and not answered must be known before its number is used for anything else: it is asked again, be it for nothing. */
	if (l->asked && l->last.open) {
		call(l, view, action, LEASE_GRANT_CALL);
		call_add_number(&action->call, units);
		call_add_number(&action->call, least);
		return;
	}
	if (take_news(&l->next, &l->last)) {
		move(l, action, LEASE_NEWS_MOVE, 0);
		return;
	}
	due = report_due(l, view);
	if (l->connected && view->now_ns - l->answered_ns <= FRESH_NS) {
		int64_t spare = surplus(l, view);

		if (spare > 0) {
			/* Units lay here and nobody took them: who was refused before does not come again. */
			if (is_idle(l, view->now_ns))
				l->missed = l->missed_before = 0;
			l->next.op = LEASE_OP_RETURN;
			l->next.units = spare;
			move(l, action, LEASE_RETURN_MOVE, -spare);
			return;
		}
	}
	if (units > 0 && view->now_ns >= l->ask_after_ns) {
		call(l, view, action, LEASE_GRANT_CALL);
		call_add_number(&action->call, units);
		call_add_number(&action->call, least);
		return;
	}
	if (view->now_ns >= due) {
		l->look = false;
		call(l, view, action, LEASE_SETTLING_CALL);
		return;
	}
	action->until_ns = due;
	if (units > 0 && l->ask_after_ns < due)
		action->until_ns = l->ask_after_ns;
	/* Who has sold nothing for a while gives its units to who wants them. */
	idle = (l->active_ns > l->granted_ns ? l->active_ns : l->granted_ns) + IDLE_NS + 1;
	if (l->last.demand > 0 && view->unsold > 0 && idle > view->now_ns && idle < action->until_ns)
		action->until_ns = idle;
}

/* --- what came of it */

/* Redis has agreed, and cannot have meant this daemon, or this ledger: it sells nothing, and goes on asking. */
static void in_trouble(struct lease *l, enum lease_trouble trouble, uint64_t now_ns)
{
	l->trouble = trouble;
	l->settled = false;
	l->strange = true;
	l->quiet_until_ns = now_ns + TROUBLE_NS;
}

/* What Redis knows of this node's operations. Redis gives a number to what it did; the ledger has all that came before, because one thing is done
 * at a time, and returns before they are told.
 */
static bool take_row(struct lease *l, const struct lease_row *row)
{
	bool grant = row->op == LEASE_OP_GRANT && row->units > 0;

	if (row->seq > l->seq &&
		(row->op == LEASE_OP_RETURN || row->balance != l->book.balance + (grant ? row->units : 0)))
		return false;
	if (row->seq > l->seq || (lease_planted(grant_taken_twice) && grant && row->seq == l->seq)) {
		/* That was what was asked for; but not in the first word of a daemon: the one before it may have gone on from that number, because
		 * grants of nothing are in no ledger.
		 */
		if (l->settled)
			l->asked = false;
		l->seq = row->seq;
		if (grant)
			l->granted = row->units;
	}
	if (l->book.op == LEASE_OP_RETURN && row->seq >= l->book.seq)
		l->confirmed = true;
	return true;
}

static void take_grant(struct lease *l, const struct lease_reply *reply, uint64_t now_ns)
{
	if (l->granted) {
		l->missed = at_least_0(l->missed - l->granted);
		l->missed_before = at_least_0(l->missed_before - l->granted);
		l->empty_asks = 0;
		l->ask_after_ns = 0;
	} else if (reply->answer == LEASE_NOTHING) {
		l->ask_after_ns = now_ns + (ASK_NS << l->empty_asks);
		l->empty_asks += l->empty_asks < ASK_DOUBLINGS;
	}
}

void lease_called(struct lease *l, enum lease_outcome outcome, const struct lease_reply *reply, uint64_t now_ns)
{
	int script = l->under_way;
	bool same;

	l->under_way = LEASE_IDLE;
	l->connected = outcome == LEASE_ANSWERED;
	if (outcome != LEASE_ANSWERED) {
		if (outcome == LEASE_UNKNOWN && script == LEASE_GRANT_CALL && !lease_planted(forgotten_grant))
			l->asked = true;
		l->quiet_until_ns = now_ns + RETRY_NS;
		return;
	}
	l->answered_ns = now_ns;
	l->unsold_told = l->unsold_sent;
	same = strcmp(reply->generation, l->book.generation) == 0;
	switch (reply->answer) {
	case LEASE_REGEN:
		l->settled = false;
		if (lease_generation_number(reply->generation) > lease_generation_number(l->book.generation)) {
			memcpy(l->told, reply->generation, sizeof(l->told));
			l->told_members = reply->members;
		} else {
			/* It will have one with a higher number next time: this node has quoted its own. */
			l->quiet_until_ns = now_ns + RETRY_NS;
		}
		return;
	case LEASE_DOUBLED:
		in_trouble(l, LEASE_TROUBLE_DOUBLED, now_ns);
		return;
	case LEASE_SET_BACK:
		in_trouble(l, LEASE_TROUBLE_SET_BACK, now_ns);
		return;
	case LEASE_FENCED:
		l->trouble = LEASE_TROUBLE_NONE;
		l->settled = false;
		l->strange = true;
		if (same && reply->row.epoch > l->book.epoch)
			l->told_epoch = reply->row.epoch;
		return;
	case LEASE_ABSENT:
		l->last = *reply;
		l->settled = false;
		l->quiet_until_ns = now_ns + ABSENT_NS;
		return;
	case LEASE_UNMET:
		l->settled = false;
		/* A return comes before settling, and would be asked again at once. */
		if (script != LEASE_GRANT_CALL)
			l->quiet_until_ns = now_ns + RETRY_NS;
		return;
	case LEASE_OK:
	case LEASE_NOTHING:
	case LEASE_SETTLING:
		break;
	default:
		l->quiet_until_ns = now_ns + RETRY_NS;
		return;
	}
	if (!same) {
		/* No script gives such an answer; one that did would be asked without a pause. */
		l->settled = false;
		l->quiet_until_ns = now_ns + RETRY_NS;
		return;
	}
	l->known = true;
	l->last = *reply;
	if (reply->answer == LEASE_SETTLING) {
		if (script == LEASE_RETURN_CALL)
			l->quiet_until_ns = now_ns + GATHER_NS;
		return;
	}
	if (!take_row(l, &reply->row)) {
		in_trouble(l, LEASE_TROUBLE_SET_BACK, now_ns);
		return;
	}
	l->trouble = LEASE_TROUBLE_NONE;
	l->acknowledged_ns = l->sent_ns;
	if (script == LEASE_SETTLING_CALL) {
		l->settled = true;
		l->strange = false;
	}
	if (script == LEASE_GRANT_CALL)
		take_grant(l, reply, now_ns);
}

void lease_moved(struct lease *l, int error, uint64_t now_ns)
{
	int what = l->under_way;

	l->under_way = LEASE_IDLE;
	if (error && !(lease_planted(return_before_gate) && what == LEASE_RETURN_MOVE)) {
		/* A buyer was faster than a return: look again at once. The ledger's other refusals want a moment. */
		if (error != -EAGAIN)
			l->quiet_until_ns = now_ns + RETRY_NS;
		return;
	}
	l->book = l->next;
	if (l->seq < l->book.seq)
		l->seq = l->book.seq;
	switch (what) {
	case LEASE_PROMISE_MOVE:
	case LEASE_BOW_MOVE:
		/* Calls that were sent before quote another generation or epoch, and do nothing any more. Of what was granted before nothing is left to
		 * take: no call is made with a grant that the ledger does not have, so no answer demands this beside one.
		 */
		*l->told = '\0';
		l->told_epoch = 0;
		l->asked = false;
		l->settled = false;
		l->confirmed = true;
		break;
	case LEASE_GRANT_MOVE:
		l->granted = 0;
		l->granted_ns = now_ns;
		break;
	case LEASE_RETURN_MOVE:
		l->confirmed = lease_planted(return_not_repeated);
		break;
	default:
		break;
	}
}

void lease_look(struct lease *l)
{
	l->look = true;
	l->ask_after_ns = 0;
}

void lease_settle_now(struct lease *l)
{
	lease_look(l);
	l->answered_ns = 0;
}

void lease_flags(const struct lease *l, struct lease_flags *flags)
{
	bool on_its_way = l->granted > 0 || (l->book.op == LEASE_OP_RETURN && !l->confirmed);

	flags->withheld = l->strange;
	flags->more =
		!l->known || !l->settled || !l->last.open || l->last.free > 0 || l->last.outside > 0 || on_its_way;
}

enum lease_trouble lease_trouble(const struct lease *l)
{
	return l->trouble;
}

const char *lease_trouble_name(enum lease_trouble trouble)
{
	return trouble_names[trouble];
}

bool lease_is_left(const struct lease *l, const struct lease_view *view)
{
	return l->under_way == LEASE_IDLE && view->unsold == 0 && l->granted == 0 && (!l->asked || !l->known) &&
		(l->book.op != LEASE_OP_RETURN || l->confirmed);
}
