/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The way of an order, as a model for spin: judges on two CPUs, the daemon's pipeline, the order writer, and whatever may end them.
 *
 * Every action has the name of the function that it stands for. What survives what is told by where a variable stands: the gate's maps
 * outlive the daemon and not a reboot, the daemon's table and the link outlive nothing, the ledger outlives everything. README.md
 * says what is left out. One token asks for one unit.
 *
 * Sizes and budgets come with -D (run.sh has the configurations), and so does one defect at a time (BUG_…): with it, spin must
 * find a claim broken. REACH_… names a situation that must be possible.
 *
 * Claims. At every moment (proctype claims): I1 what the ledger holds, what is on its way there and what is free are never more than the
 * stock; I3 who was told yes is in the ledger; I4 no buyer holds more than the limit. Where it happens: the ledger's own guard
 * never has anything to refuse (I1, I4), no token gets a second order (I4), and who was told yes is never told sold out or limit (I5). At rest, when nothing
 * can happen any more: every unit is free or in an order (I2), every admission is an order, gate, table and ledger agree.
 */
#ifndef TOKENS
#define TOKENS 3
#endif
#ifndef TOKENS_OF_ONE
#define TOKENS_OF_ONE 2
#endif
#define BUYER_OF(t) ((t) / TOKENS_OF_ONE)
#define BUYERS 2
#ifndef LIMIT
#define LIMIT 1
#endif
#ifndef PUT_IN
#define PUT_IN 1
#endif
#ifndef JUDGES
#define JUDGES 2
#endif
#ifndef RING_SLOTS
#define RING_SLOTS TOKENS
#endif
/* Frames on their way to the writer: batches and questions together. */
#ifndef WINDOW
#define WINDOW 2
#endif
/* How often each may happen. */
#ifndef REQUESTS
#define REQUESTS 3
#endif
#ifndef CHANGES
#define CHANGES 0
#endif
#ifndef DAEMON_CRASHES
#define DAEMON_CRASHES 0
#endif
#ifndef WRITER_CRASHES
#define WRITER_CRASHES 0
#endif
#ifndef LINK_BREAKS
#define LINK_BREAKS 0
#endif
#ifndef REBOOTS
#define REBOOTS 0
#endif

/* --- the gate's maps: until the machine starts anew ---------------------------------------------------------------------------- */
#define ABSENT 0
#define CLAIMED 1
#define DONE 2
byte admissions[TOKENS]; /* enum sluice_admission_state, or no entry */
byte buyers[BUYERS];     /* units */
byte stock = PUT_IN;     /* stock.free */
byte ring[TOKENS];       /* records on their way to the daemon */
byte ring_used;          /* slots, reserved ones too */
bool slot = true;        /* sales[].id is set */
bool orders_open;        /* SLUICE_CONTROL_ORDERS_OPEN */
bool heartbeat_fresh;

/* --- a judge at work on a CPU -------------------------------------------------------------------------------------------------------- */
byte judging; /* judges between their look at the flags and the end */

/* --- the daemon: until it ends ------------------------------------------------------------------------------------------------------- */
#define AWAY 0     /* not running */
#define STARTING 1 /* orders are closed, judges may still be at it */
#define LOST 2     /* no connection */
#define RECOVERY 3 /* connected, orders closed */
#define SERVING 4
byte daemon = AWAY;
/* Of an order: in the table, and (from HELD on) in the ledger. */
#define NONE 0
#define QUEUED 1
#define SENT 2
#define HELD 3
#define CONFIRMED 4
#define CANCELLED 5
#define EXPIRED 6
#define REFUNDED 7
#define LIVE(state) (state == HELD || state == CONFIRMED)
byte table[TOKENS];
bool in_gate[TOKENS]; /* the gate counts the unit of this order as taken */
byte asked[TOKENS];   /* changes of this order that are not answered */
/* Changes that the shop, the buyer or time asked for, in the order in which they were sent. */
#define CONFIRM 1
#define CANCEL 2
#define EXPIRE 3
#define REFUND 4
byte question_of[WINDOW], question_action[WINDOW];
byte questions;      /* not answered */
byte questions_sent; /* the first so many, on this connection; the others are to be asked again */

/* --- the link ---------------------------------------------------------------------------------------------------------------------------- */
#define ADMIT TOKENS /* kinds of frames: a change of token 0.., or a batch */
chan to_writer = [WINDOW] of {byte /* kind */, byte /* tokens of the batch, as bits, or the change */};
chan to_daemon = [WINDOW] of {byte, byte, short /* the states of the ledger then, four bits each */};
byte window; /* frames sent and not answered */
bool link;   /* both ends are there */

/* --- the writer: until it ends --------------------------------------------------------------------------------------------------------------- */
bool writer = true;
bool answering; /* committed, and not yet answered */
byte answer_kind, answer_what;
short answer_states;

/* --- the ledger: for ever ---------------------------------------------------------------------------------------------------------------------- */
byte ledger[TOKENS];

/* --- what people know: for ever ------------------------------------------------------------------------------------------------------------------- */
bool yes[TOKENS]; /* somebody has seen 201 */

byte requests = REQUESTS, changes = CHANGES, daemon_crashes = DAEMON_CRASHES, writer_crashes = WRITER_CRASHES,
     link_breaks = LINK_BREAKS, reboots = REBOOTS;

/* --- sums over the tokens, written out: a claim is one expression ------------------------------------------------------------------ */
#if TOKENS == 2
#define SUM(what) (what(0) + what(1))
#elif TOKENS == 3
#define SUM(what) (what(0) + what(1) + what(2))
#else
#define SUM(what) (what(0) + what(1) + what(2) + what(3))
#endif
#define ONE(condition) ((condition) -> 1 : 0)
#define ADMITTED_ONLY(t) (admissions[t] == DONE && ledger[t] == NONE)
#define IS_LIVE(t) ONE(LIVE(ledger[t]))
#define ON_ITS_WAY(t) ONE(ADMITTED_ONLY(t))
#define LIVE_OF_0(t) ONE(BUYER_OF(t) == 0 && LIVE(ledger[t]))
#define LIVE_OF_1(t) ONE(BUYER_OF(t) == 1 && LIVE(ledger[t]))
#define HAS_OF_0(t) ONE(BUYER_OF(t) == 0 && (LIVE(ledger[t]) || ADMITTED_ONLY(t)))
#define HAS_OF_1(t) ONE(BUYER_OF(t) == 1 && (LIVE(ledger[t]) || ADMITTED_ONLY(t)))
#define BROKEN_YES(t) ONE(yes[t] && ledger[t] == NONE)
#define UNSETTLED(t) ONE(table[t] == QUEUED || table[t] == SENT || ring[t] > 0)
#define DISAGREES(t) ONE((admissions[t] == DONE) != (ledger[t] != NONE) || admissions[t] == CLAIMED || table[t] != ledger[t] || in_gate[t] != LIVE(ledger[t]))

#define AT_REST \
	(daemon == SERVING && judging == 0 && writer && !answering && window == 0 && questions == 0 && SUM(UNSETTLED) == 0 && ring_used == 0)

/* So that spin's report names the claim that is broken. */
hidden byte I1 = 1, I2 = 1, I3 = 1, I4 = 1, I5 = 1, rests = 1, possible = 1;

/* What must be possible, or the claims say nothing: found like a defect. */
#if defined(REACH_ADMITTED_WITHOUT_A_DAEMON)
#define REACHED (daemon == AWAY && admissions[0] == DONE && ledger[0] == NONE)
#elif defined(REACH_COMMITTED_AND_NOT_ACKNOWLEDGED)
#define REACHED (ledger[0] == HELD && table[0] == QUEUED && !yes[0])
#elif defined(REACH_RETURNED_AND_SOLD_AGAIN)
#define REACHED (ledger[0] == EXPIRED && ledger[1] == HELD && yes[0] && yes[1])
#elif defined(REACH_LATE_CONFIRMATION)
#define REACHED (ledger[0] == CONFIRMED && table[0] == EXPIRED && in_gate[0] && asked[0] == 1)
#elif defined(REACH_CHANGED_AND_NOT_ANSWERED)
#define REACHED (ledger[0] == CANCELLED && table[0] == HELD && daemon == RECOVERY && questions == 1 && questions_sent == 0)
#elif defined(REACH_REBUILT_AFTER_REBOOT)
#define REACHED (reboots < REBOOTS && AT_REST && ledger[0] == HELD && admissions[0] == DONE && stock == 0)
#else
#define REACHED false
#endif

#if TOKENS == 2
#define select_token(t) select (t : 0 .. 1)
#elif TOKENS == 3
#define select_token(t) select (t : 0 .. 2)
#else
#define select_token(t) select (t : 0 .. 3)
#endif
#define select_action(a) select (a : CONFIRM .. REFUND)

/* judge_take_units; `undo` is where to go if there are none. */
#ifdef BUG_TAKE_IN_TWO_STEPS
#define judge_take_units(undo) \
	atomic { \
		if \
		:: stock < 1 -> goto undo \
		:: else -> old = stock \
		fi \
	} \
	stock = old - 1
#elif defined(BUG_OFF_BY_ONE)
#define judge_take_units(undo) stock--
#else
#define judge_take_units(undo) \
	atomic { \
		if \
		:: stock < 1 -> goto undo \
		:: else -> stock-- \
		fi \
	}
#endif

/* === the gate ====================================================================================================================== */

/* judge_decide, again and again. A reboot would end it without a trace, all that it changes being in the maps: so it waits for it. */
proctype judge()
{
	byte t;
#ifdef BUG_TAKE_IN_TWO_STEPS
	byte old;
#endif

end:
	do
	:: atomic {
		requests > 0 -> requests--;
		select_token(t);
		if
		:: !slot || !heartbeat_fresh -> goto refused /* unknown_sale, unavailable */
		:: else
		fi;
#ifdef BUG_SOLD_OUT_BEFORE_ADMITTED
		if
		:: stock < 1 -> assert(I5 && !yes[t]); goto refused
		:: else
		fi;
#endif
		/* judge_check_admitted: the same answer again, or in_progress; nothing is taken */
		if
		:: admissions[t] != ABSENT -> goto refused
		:: else
		fi;
		assert(I5 && !yes[t]); /* whatever follows can refuse */
		if
		:: stock < 1 || !orders_open -> goto refused /* sold_out, unavailable */
		:: else
		fi;
		judging++ }
	   /* judge_admit */
#ifndef BUG_RING_FULL_AFTER_TAKE
	   atomic { /* bpf_ringbuf_reserve */
		if
		:: ring_used >= RING_SLOTS -> goto out
		:: else -> ring_used++
		fi }
#endif
#ifdef BUG_TAKE_BEFORE_DUPLICATE_CHECK
	   judge_take_units(discard);
#endif
	   /* judge_claim_token */
#ifdef BUG_CLAIM_IN_TWO_STEPS
	   if
	   :: admissions[t] != ABSENT -> goto discard
	   :: else
	   fi;
	   admissions[t] = CLAIMED;
#else
	   atomic {
		if
		:: admissions[t] != ABSENT -> goto discard
		:: else -> admissions[t] = CLAIMED
		fi }
#endif
	   atomic { /* judge_count_buyer */
		if
		:: buyers[BUYER_OF(t)] >= LIMIT -> goto unclaim
		:: else -> buyers[BUYER_OF(t)]++
		fi }
#ifndef BUG_TAKE_BEFORE_DUPLICATE_CHECK
	   judge_take_units(uncount);
#endif
#ifdef BUG_RING_FULL_AFTER_TAKE
	   atomic {
		if
		:: ring_used >= RING_SLOTS -> buyers[BUYER_OF(t)]--; admissions[t] = ABSENT; goto out
		:: else -> ring_used++
		fi }
#endif
	   admissions[t] = DONE;               /* judge_record_done */
	   atomic { ring[t]++; goto out } /* bpf_ringbuf_submit */
uncount:
#ifdef BUG_UNDO_FORGETS_BUYER
	   skip;
#else
	   buyers[BUYER_OF(t)]--; /* judge_uncount_buyer */
#endif
unclaim:
	   admissions[t] = ABSENT;
discard:
#ifdef BUG_RING_FULL_AFTER_TAKE
	   skip;
#else
	   ring_used--; /* bpf_ringbuf_discard */
#endif
out:
	   atomic { judging--;
refused:
		t = 0 }
	od
}

/* === the daemon ==================================================================================================================== */

/* An order has ceased to hold its unit: it is free again, and its buyer may buy again. Here and nowhere else. */
inline orders_release(o)
{
	stock++;
#ifndef BUG_RELEASE_FORGETS_BUYER
	buyers[BUYER_OF(o)]--;
#endif
	in_gate[o] = false
}

/* orders_change_end: the ledger has told what an order is now, `state`. A repeated or late answer releases nothing any more, and as long as
 * another change of the order is not answered it is uncertain what it will be.
 */
inline orders_change_end(o, state)
{
	table[o] = state;
	asked[o]--;
	if
#ifdef BUG_DOUBLE_RELEASE
	:: asked[o] == 0 && !LIVE(state) -> orders_release(o)
#elif defined(BUG_RELEASE_BEFORE_LAST_ANSWER)
	:: in_gate[o] && !LIVE(state) -> orders_release(o)
#else
	:: asked[o] == 0 && in_gate[o] && !LIVE(state) -> orders_release(o)
#endif
	:: else
	fi
}

/* What was on its way is kept: orders are sent again, changes asked again. */
inline take_back_all()
{
	for (i : 0 .. TOKENS - 1) {
		if
#ifdef BUG_TAKE_BACK_LOSES
		:: table[i] == SENT -> table[i] = NONE
#else
		:: table[i] == SENT -> table[i] = QUEUED
#endif
		:: else
		fi;
	}
#ifdef BUG_RELEASE_WHILE_UNCERTAIN
	if
	:: questions > 0 && question_action[0] == CANCEL && LIVE(table[question_of[0]]) ->
		orders_release(question_of[0]);
		table[question_of[0]] = CANCELLED
	:: else
	fi;
#endif
	questions_sent = 0;
	window = 0;
	drain_to_daemon()
}

inline drain_to_daemon()
{
	do
	:: nempty(to_daemon) -> to_daemon?_, _, _
	:: empty(to_daemon) -> break
	od
}

inline drain_to_writer()
{
	do
	:: nempty(to_writer) -> to_writer?_, _
	:: empty(to_writer) -> break
	od
}

/* ring -> table (batches_enqueue). What is known is not queued twice. */
inline pipeline_pump()
{
	for (i : 0 .. TOKENS - 1) {
		if
		:: ring[i] > 0 ->
			ring_used = ring_used - ring[i];
			ring[i] = 0;
			if
			:: table[i] == NONE -> table[i] = QUEUED
			:: else
			fi
		:: else
		fi
	}
}

/* All that is queued, as one batch. */
inline batches_send()
{
	mask = 0;
	for (i : 0 .. TOKENS - 1) {
		if
		:: table[i] == QUEUED ->
			table[i] = SENT;
			mask = mask | (1 << i);
#ifdef BUG_YES_BEFORE_DURABLE
			yes[i] = true
#endif
		:: else
		fi
	}
	to_writer!ADMIT, mask;
	mask = 0;
	window++
}

/* The next that is not on its way: asked just now, or asked again. */
inline questions_send()
{
	to_writer!question_of[questions_sent], question_action[questions_sent];
	questions_sent++;
	window++
}

/* Confirm, cancel, expire or refund, as people and time ask for it. What the prepare hook refuses is not asked. */
inline order_change_ask(o, action)
{
	if
	:: action == CONFIRM && table[o] == EXPIRED && !in_gate[o] && (stock < 1 || buyers[BUYER_OF(o)] >= LIMIT) ->
		skip /* hold_expired */
	:: else ->
		if
#ifndef BUG_LATE_CONFIRM_TAKES_NOTHING
		:: action == CONFIRM && table[o] == EXPIRED && !in_gate[o] -> /* judge_reclaim */
			stock--;
			buyers[BUYER_OF(o)]++;
			in_gate[o] = true
#endif
		:: else
		fi;
		asked[o]++;
		question_of[questions] = o;
		question_action[questions] = action;
		questions++;
		questions_send()
	fi
}

/* Answers come in the order of the questions. */
inline questions_finish(o, state)
{
	orders_change_end(o, state);
	questions--;
	questions_sent--;
	for (i : 0 .. WINDOW - 2) {
		question_of[i] = question_of[i + 1];
		question_action[i] = question_action[i + 1]
	}
	question_of[WINDOW - 1] = 0;
	question_action[WINDOW - 1] = 0
}

inline batches_acknowledge()
{
	for (i : 0 .. TOKENS - 1) {
		if
		:: what & (1 << i) ->
			table[i] = (states >> (4 * i)) & 15;
			in_gate[i] = true;
			yes[i] = true /* orders_settle wakes whoever waits */
		:: else
		fi
	}
}

/* Gate, table and ledger are compared with orders closed and nothing on its way; then orders open. */
inline recovery_reconcile()
{
#ifndef BUG_STALE_STOCK_AFTER_RESTART
	stock = PUT_IN - SUM(IS_LIVE);
#endif
#ifdef BUG_STOCK_REBUILT_WITHOUT_ORDERS
	if
	:: !slot -> stock = PUT_IN
	:: else
	fi;
#endif
	buyers[0] = SUM(LIVE_OF_0);
	buyers[1] = SUM(LIVE_OF_1);
	for (i : 0 .. TOKENS - 1) { in_gate[i] = LIVE(table[i]) }
	i = 0;
	slot = true;
	orders_open = true;
	daemon = SERVING
}

inline end_daemon()
{
	for (i : 0 .. TOKENS - 1) {
		table[i] = NONE;
		in_gate[i] = false;
		asked[i] = 0
	}
	for (i : 0 .. WINDOW - 1) {
		question_of[i] = 0;
		question_action[i] = 0
	}
	i = 0;
	questions = 0;
	questions_sent = 0;
	window = 0;
	link = false;
	drain_to_daemon();
	daemon = AWAY
}

#define NOTHING_ON_ITS_WAY (window == 0 && questions == 0 && SUM(UNSETTLED) == 0)
#define SOME_QUEUED(t) ONE(table[t] == QUEUED)
#define SOME_RING(t) ONE(ring[t] > 0)
#define NOT_REBUILT(t) ONE(!slot && ledger[t] != NONE && admissions[t] == ABSENT)
#ifdef BUG_NO_SETTLE
#define SETTLED true
#else
#define SETTLED (judging == 0) /* CLOSE_SETTLE_US, BACKOFF_MIN_MS: judges that saw orders open have ended */
#endif

active proctype sluiced()
{
	byte i, t, mask, kind, what, action;
	short states;

end:
	do
	/* main, pipeline_start: the former daemon's orders are closed first of all */
	:: d_step { daemon == AWAY -> orders_open = false; daemon = STARTING }
	:: d_step {
		daemon == STARTING && SETTLED ->
		/* adopt_admissions */
		for (i : 0 .. TOKENS - 1) {
			if
#ifndef BUG_LOST_RING_ENTRY
			:: admissions[i] == DONE -> table[i] = QUEUED
#endif
			:: else
			fi
		}
		pipeline_pump();
		heartbeat_fresh = true;
		daemon = LOST;
		i = 0 }
	/* writer_link_open: a new connection takes the place of the old one, and what was in that is gone */
	:: d_step {
		daemon == LOST && writer && SETTLED ->
		drain_to_writer();
		answering = false;
		link = true;
#ifdef BUG_OPEN_BEFORE_RECOVERY
		orders_open = slot;
#endif
		daemon = RECOVERY }
	:: d_step { daemon >= LOST && SUM(SOME_RING) > 0 -> pipeline_pump(); i = 0 }
	/* batches_send; in recovery batches_exchange_all */
	:: d_step {
		link && SUM(SOME_QUEUED) > 0 && ((daemon == SERVING && window < WINDOW) || (daemon == RECOVERY && window == 0)) ->
		batches_send();
		i = 0 }
	/* questions_exchange_again */
	:: d_step {
		daemon == RECOVERY && link && window == 0 && SUM(SOME_QUEUED) == 0 && questions_sent < questions ->
		questions_send() }
	/* rebuild_order */
	:: d_step {
		daemon == RECOVERY && link && NOTHING_ON_ITS_WAY && SUM(NOT_REBUILT) > 0 ->
		for (i : 0 .. TOKENS - 1) {
			if
			:: NOT_REBUILT(i) == 1 -> admissions[i] = DONE; table[i] = ledger[i]; break
			:: else
			fi
		}
		i = 0 }
	:: d_step { daemon == RECOVERY && link && NOTHING_ON_ITS_WAY && SUM(NOT_REBUILT) == 0 -> recovery_reconcile() }
	/* control_orders, http_order, the expiry */
	:: atomic {
		daemon == SERVING && link && changes > 0 && window < WINDOW && questions < WINDOW ->
		changes--;
		select_token(t);
		select_action(action);
		if
		:: table[t] >= HELD -> order_change_ask(t, action)
		:: else /* not durable yet: come again */
		fi;
		t = 0;
		action = 0 }
	/* handle_frame */
	:: d_step {
		nempty(to_daemon) && link -> to_daemon?kind, what, states;
		window--;
		if
		:: kind == ADMIT -> batches_acknowledge()
		:: else -> questions_finish(kind, ((states >> (4 * kind)) & 15))
		fi;
		i = 0;
		kind = 0;
		what = 0;
		states = 0 }
	/* serve, recovery_run: the connection is gone; so it is after WRITER_DEAD_NS without an answer */
	:: d_step {
		daemon >= RECOVERY && !link -> orders_open = false;
		take_back_all();
		daemon = LOST;
		i = 0 }
	:: d_step {
		daemon >= RECOVERY && link && link_breaks > 0 -> link_breaks--;
		link = false;
		orders_open = false;
		take_back_all();
		daemon = LOST;
		i = 0 }
	/* SIGKILL. What it had sent may still be read; its flags and its heartbeat stay where they are. */
	:: d_step { daemon_crashes > 0 && daemon != AWAY -> daemon_crashes--; end_daemon() }
	:: d_step { daemon == AWAY && heartbeat_fresh -> heartbeat_fresh = false }
	/* The maps are gone, and all programs with them. */
	:: d_step {
		reboots > 0 && judging == 0 && daemon != AWAY -> reboots--;
		end_daemon();
		for (i : 0 .. TOKENS - 1) {
			admissions[i] = ABSENT;
			ring[i] = 0
		}
		i = 0;
		buyers[0] = 0;
		buyers[1] = 0;
		stock = 0;
		ring_used = 0;
		slot = false;
		orders_open = false;
		heartbeat_fresh = false;
		drain_to_writer();
		answering = false }
	od
}

/* === the writer ==================================================================================================================== */

/* The guard of the ledger: it must never have anything to refuse. */
inline ledger_admit()
{
	for (n : 0 .. TOKENS - 1) {
		if
		:: (what & (1 << n)) && ledger[n] == NONE ->
			assert(I1 && SUM(IS_LIVE) < PUT_IN);
			assert(I4 && (BUYER_OF(n) == 0 -> SUM(LIVE_OF_0) : SUM(LIVE_OF_1)) < LIMIT);
			ledger[n] = HELD
		:: else /* stored before */
		fi
	}
}

inline ledger_orders_change(o, action)
{
	if
	:: action == CONFIRM && ledger[o] == HELD -> ledger[o] = CONFIRMED
	:: action == CONFIRM && ledger[o] == EXPIRED && SUM(IS_LIVE) < PUT_IN &&
		(BUYER_OF(o) == 0 -> SUM(LIVE_OF_0) : SUM(LIVE_OF_1)) < LIMIT -> ledger[o] = CONFIRMED
	:: action == CANCEL && ledger[o] == HELD -> ledger[o] = CANCELLED
	:: action == EXPIRE && ledger[o] == HELD -> ledger[o] = EXPIRED
	:: action == REFUND && ledger[o] == CONFIRMED -> ledger[o] = REFUNDED
	:: else /* same, conflict, no_unit */
	fi
}

inline transaction()
{
	if
	:: kind == ADMIT -> ledger_admit()
	:: else -> ledger_orders_change(kind, what)
	fi;
	n = 0
}

active proctype sluice_writer()
{
	byte kind, what, n;
#ifdef BUG_ACKNOWLEDGE_BEFORE_COMMIT
	byte before[TOKENS];
#endif

end:
	do
	/* One frame is one transaction. A crash before its COMMIT leaves nothing of it, as if it had not been read. */
	:: d_step {
		writer && !answering && nempty(to_writer) -> to_writer?kind, what;
#ifdef BUG_ACKNOWLEDGE_BEFORE_COMMIT
		for (n : 0 .. TOKENS - 1) { before[n] = ledger[n] }
#endif
		transaction();
		answer_kind = kind;
		answer_what = what;
		answer_states = 0;
		for (n : 0 .. TOKENS - 1) { answer_states = answer_states | (ledger[n] << (4 * n)) }
		n = 0;
#ifdef BUG_ACKNOWLEDGE_BEFORE_COMMIT
		for (n : 0 .. TOKENS - 1) { ledger[n] = before[n]; before[n] = 0 }
		n = 0;
		if
		:: link -> to_daemon!answer_kind, answer_what, answer_states
		:: else
		fi;
#else
		kind = 0;
		what = 0;
#endif
		answering = true }
	/* Committed. To a connection that is no more the answer is lost. */
	:: d_step {
		answering ->
#ifdef BUG_ACKNOWLEDGE_BEFORE_COMMIT
		transaction();
		kind = 0;
		what = 0;
#else
		if
		:: link -> to_daemon!answer_kind, answer_what, answer_states
		:: else
		fi;
#endif
		answer_kind = 0;
		answer_what = 0;
		answer_states = 0;
		answering = false }
	/* SIGKILL, or a store that failed: what was not committed is gone */
	:: d_step {
		writer_crashes > 0 && writer -> writer_crashes--;
		writer = false;
		link = false;
		drain_to_writer();
		drain_to_daemon();
		answer_kind = 0;
		answer_what = 0;
		answer_states = 0;
		answering = false }
	:: d_step { !writer -> writer = true }
	od
}

/* === what must hold ================================================================================================================ */

active proctype claims()
{
end:
	do
	:: atomic { SUM(IS_LIVE) + SUM(ON_ITS_WAY) + stock > PUT_IN -> assert(I1 && false) }
	:: atomic { SUM(BROKEN_YES) > 0 -> assert(I3 && false) }
	:: atomic { SUM(HAS_OF_0) > LIMIT || SUM(HAS_OF_1) > LIMIT -> assert(I4 && false) }
	:: atomic { AT_REST && SUM(IS_LIVE) + stock != PUT_IN -> assert(I2 && false) }
	:: atomic { AT_REST && (buyers[0] != SUM(LIVE_OF_0) || buyers[1] != SUM(LIVE_OF_1)) -> assert(I2 && false) }
	:: atomic { AT_REST && SUM(DISAGREES) > 0 -> assert(I2 && false) }
	:: atomic { REACHED -> assert(possible && false) }
	:: atomic { timeout -> assert(rests && AT_REST); break }
	od
}

init
{
	atomic {
		run judge();
#if JUDGES > 1
		run judge()
#endif
	}
}
