#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Judges a history (recorder.py) against a ledger (ledger.py): was every promise of docs/promises.md kept?

    checker.py HISTORY LEDGER      exit code 0: kept; 1: each breach by name, with its evidence; 2: cannot read

Independent on purpose: nothing here asks the product, and nothing is taken from its code but the layout of a token and the tables of the
ledger. Where the outside cannot know (an answer that never came, a request that was on its way), everything is allowed that may have been so; a
breach is only what cannot be explained by any order of events within the times that were written down.
"""
import base64
import bisect
import collections
import datetime
import itertools
import json
import struct
import sys

import ledger as ledger_module

SECOND = 1_000_000_000
RETURN_NS = SECOND               # promised: a returned unit is for sale again within this
CLOCK_SLACK_NS = 20_000_000      # the gate's wall clock is set every 5 ms; the rest is for a machine that is busy
EVIDENCE_SHOWN = 4

TOKEN = struct.Struct("<BBBBIIIQQII")
# What may not be said to who has an order. Not in it: "come again" (429, 503 unavailable).
DENIALS = {"sold_out", "sale_ended", "sale_not_open", "already_ordered", "token_expired", "token_invalid", "wrong_network", "unknown_sale",
           "no_order", "paused"}
STEPS = {("held", "confirmed"), ("held", "cancelled"), ("held", "expired"), ("confirmed", "refunded"), ("expired", "confirmed")}
VERBS = {"confirm": "confirmed", "cancel": "cancelled", "refund": "refunded"}

Token = collections.namedtuple("Token", "quantity sale buyer serial node")


def read_token(text):
    """Of 64 characters of base64url, or None: clients also send what is no token."""
    try:
        fields = TOKEN.unpack(base64.urlsafe_b64decode(text)[:TOKEN.size])
    except (ValueError, struct.error):
        return None
    return Token(quantity=fields[2], sale=fields[4], buyer=fields[7], serial=fields[8], node=fields[10])


def milliseconds(text):
    when = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return round((when - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) / datetime.timedelta(milliseconds=1))


def in_the_shops_time(records):
    """Records with the wall times of a shop whose clock is apart from ours for good, as its ledger has them."""
    offset = sum(record["offset"] for record in records if record["what"] == "note" and record["event"] == "clock_apart")
    if offset:
        for record in records:
            for name in ("at", "sent", "received"):
                if name in record:
                    record[name] = [record[name][0], record[name][1] + round(offset * SECOND)]
    return records


class Attempt:
    """One request of a buyer and what came of it."""
    __slots__ = ("method", "token", "text", "asked", "sent", "sent_wall", "received", "received_wall", "status", "code", "body", "bytes", "error")

    def __init__(self, record):
        self.method, self.text = record["method"], record["token"]
        self.token = read_token(self.text)
        self.sent, self.sent_wall = record["sent"]
        self.received, self.received_wall = record["received"]
        self.asked = record.get("node", 0)  # of a fleet, which one
        self.status, self.code, self.bytes, self.error = record["status"], record["code"], record["bytes"], record["error"]
        self.body = record["body"] if isinstance(record["body"], dict) else {}

    @property
    def is_yes(self):
        """"pending" is no yes yet, whatever the status: 202 to a POST; to a GET also from a daemon that has just been started and has not
        compared gate and ledger yet.
        """
        return self.status in (200, 201) and self.body.get("state") != "pending"

    def __str__(self):
        got = f"{self.status} {self.code or self.body.get('state') or ''}".strip() if self.status else \
            f"no answer ({self.error}, {self.bytes} bytes)"
        return f"{self.method} {self.text[:12]}… sent {self.sent_wall / SECOND:.6f} +{(self.received - self.sent) / 1e6:.1f} ms: {got}"


class History:
    """`records`: lines, or what they say. `return_ns`: within what time a returned unit is for sale again."""

    def __init__(self, records, return_ns=RETURN_NS):
        self.attempts, self.controls, self.notes, self.rests = [], [], [], []
        self.return_ns = return_ns
        for record in in_the_shops_time([json.loads(record) if isinstance(record, str) else record for record in records]):
            if record["what"] == "order":
                self.attempts.append(Attempt(record))
            else:
                {"control": self.controls, "note": self.notes, "rest": self.rests}[record["what"]].append(record)
        self.attempts.sort(key=lambda attempt: attempt.sent)
        self.of_serial = {}
        for attempt in self.attempts:
            if attempt.token:
                self.of_serial.setdefault(attempt.token.serial, []).append(attempt)
        self.outages = self._outages()
        self._told = None
        self.clock_was_moved = self.has_note("clock") and not self.has_note("clock_apart")
        self.gate_gone = [note["at"][1] for note in self.notes if note["event"] == "gate_gone"]
        self.keys_changed = any(control["path"].startswith("/v1/keys") and control["method"] != "GET" for control in self.controls)

    def has_note(self, event):
        return any(note["event"] == event for note in self.notes)

    def _outages(self):
        """[(from, to)] in wall ns during which a part was away, in order, not overlapping."""
        open_since, found = {}, []
        for note in sorted(self.notes, key=lambda note: note["at"][0]):
            if note["event"] == "down":
                open_since.setdefault(note["part"], note["at"][1])
            elif note["event"] == "up" and note["part"] in open_since:
                found.append((open_since.pop(note["part"]), note["at"][1]))
        found += [(since, 1 << 62) for since in open_since.values()]
        merged = []
        for begin, end in sorted(found):
            if merged and begin <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((begin, end))
        return merged

    def away(self, begin, end):
        """Whether a part was away at a moment of this time."""
        at = bisect.bisect_right(self.outages, (end, 1 << 63)) - 1
        return at >= 0 and self.outages[at][1] >= begin

    def returned_by(self, at):
        """When a unit that the ledger gave back at `at` must be for sale at the latest: the time promised, and none of it in an outage."""
        latest = at + self.return_ns
        for begin, end in self.outages:
            if begin <= latest and end >= at:
                latest = end + self.return_ns
        return latest

    def told_of(self, serial, state):
        """When somebody first heard that an order is in a state, in wall ns."""
        if self._told is None:
            self._told = {}
            heard = [(attempt.token.serial, attempt.body.get("state"), attempt.received_wall) for attempt in self.attempts
                     if attempt.token and attempt.is_yes]
            for control in self.controls:
                parts = control["path"].strip("/").split("/")
                if control["status"] == 200 and len(parts) == 4 and parts[1] == "orders" and parts[3] in VERBS:
                    heard.append((int(parts[2], 16), VERBS[parts[3]], control["received"][1]))
            for order, told, at in heard:
                self._told[order, told] = min(at, self._told.get((order, told), at))
        return self._told.get((serial, state), 1 << 62)

    def sale_calls(self, slug):
        """Control calls about a sale, by the time they were sent: [(what follows the slug, record)]."""
        prefix = f"/v1/sales/{slug}"
        found = [(control["path"][len(prefix):], control) for control in self.controls
                 if control["path"] == prefix or control["path"].startswith(prefix + "/")]
        return sorted(found, key=lambda item: item[1]["sent"][0])


class Breaches:
    def __init__(self):
        self.found = []
        self.figures = collections.Counter()

    def add(self, name, text, *evidence):
        self.found.append((name, text, [str(item) for item in evidence]))

    def names(self):
        return {name for name, _, _ in self.found}

    def text(self):
        lines = []
        for name, group in itertools.groupby(sorted(self.found, key=lambda breach: breach[0]), key=lambda breach: breach[0]):
            group = list(group)
            lines.append(f"{name}: {len(group)}")
            for _, text, evidence in group[:EVIDENCE_SHOWN]:
                lines.append(f"    {text}")
                lines += [f"        {item}" for item in evidence[:EVIDENCE_SHOWN]]
            if len(group) > EVIDENCE_SHOWN:
                lines.append(f"    … and {len(group) - EVIDENCE_SHOWN} more")
        return "\n".join(lines)


# --- the ledger by itself ---------------------------------------------------------------------------------------------------
def check_serials(ledger, breaches):
    for serial, count in collections.Counter(order.serial for order in ledger.orders).items():
        if count > 1:
            breaches.add("id_twice", f"order {serial:016x} is in the ledger {count} times")


def check_seq(ledger, breaches):
    last = collections.Counter()
    for order in ledger.orders:
        last[order.sale] += 1
        if order.seq != last[order.sale]:
            breaches.add("seq_gap", f"order {order.id} of sale {order.sale} has seq {order.seq}, {last[order.sale]} was due")
            last[order.sale] = order.seq


def check_books(ledger, breaches):
    """The sums that a sale keeps are those of its rows."""
    units, counts, moved = collections.Counter(), collections.Counter(), collections.Counter()
    for order in ledger.orders:
        units[order.sale, order.state] += order.quantity
        counts[order.sale] += 1
    for move in ledger.moves:
        moved[move.sale] += move.delta
    for sale in ledger.sales.values():
        kept = {"put_in": sale.put_in, "held": sale.held, "confirmed": sale.confirmed, "orders": sale.orders}
        made = {"put_in": moved[sale.id], "held": units[sale.id, "held"], "confirmed": units[sale.id, "confirmed"], "orders": counts[sale.id]}
        if kept != made:
            breaches.add("books", f"sale {sale.slug} says {kept}, its rows say {made}")
    for order in ledger.orders:
        if order.sale not in ledger.sales:
            breaches.add("books", f"order {order.id} is of sale {order.sale}, which there is not")


def check_lives(ledger, history, breaches):
    """Each order takes steps that there are, ends where its row says, and no hold is cut short."""
    for order in ledger.orders:
        state = "held"
        for event in ledger.events_of.get(order.serial, ()):
            if (state, event.state) not in STEPS:
                breaches.add("order_life", f"order {order.id} went from {state} to {event.state}", event)
            if event.state == "expired" and not history.clock_was_moved and (
                    not order.hold_seconds or event.at_ns < order.admitted_ns + order.hold_seconds * SECOND - CLOCK_SLACK_NS):
                breaches.add("hold_cut_short", f"order {order.id} was held for less than its {order.hold_seconds} s", event)
            state = event.state
        if state != order.state:
            breaches.add("order_life", f"order {order.id} is {order.state}, its events end with {state}")
    for event in ledger.events:
        if event.serial not in ledger.by_serial:
            breaches.add("order_life", f"an event of order {event.serial:016x}, which there is not", event)


def replayed(ledger):
    """Orders, their events and movements of stock in the order in which the ledger took them: (rank within its moment, item).

    Orders and events share one row of positions; movements have only their time. Those of one moment are put where they do the least harm. If
    the writer's clock went backward, time says nothing: then what was put in comes first and what was taken out last.
    """
    steps = sorted([(order.position, order.committed_ns, order) for order in ledger.orders] +
                   [(event.position, event.at_ns, event) for event in ledger.events], key=lambda step: step[0])
    monotone = all(a[1] <= b[1] for a, b in itertools.pairwise(steps))
    entries = [((at if monotone else 0), 1, position, item) for position, at, item in steps]
    for move in ledger.moves:
        rank = 0 if move.delta > 0 else 2
        entries.append(((move.at_ns if monotone else 0), rank, move.position, move))
    entries.sort(key=lambda entry: entry[:3])
    return [entry[3] for entry in entries]


def check_replay(ledger, history, breaches):
    """Never oversold and no buyer above the limit, at any moment of the ledger's life."""
    put_in, live, buyers, state = collections.Counter(), collections.Counter(), collections.Counter(), {}
    limits = {sale.id: max([sale.per_buyer] + [version.per_buyer for version in versions_of(history, sale)]) for sale in ledger.sales.values()}
    told = set()

    def count(order, sign):
        live[order.sale] += sign * order.quantity
        buyers[order.sale, order.buyer] += sign * order.quantity
        if sign > 0 and buyers[order.sale, order.buyer] > limits.get(order.sale, 0):
            breaches.add("buyer_limit", f"buyer {order.buyer:016x} of sale {order.sale} has {buyers[order.sale, order.buyer]} units with order "
                         f"{order.id}, the limit is {limits.get(order.sale)}")

    for item in replayed(ledger):
        if isinstance(item, ledger_module.Move):
            put_in[item.sale] += item.delta
        elif isinstance(item, ledger_module.Order):
            state[item.serial] = "held"
            count(item, 1)
        else:
            order = ledger.by_serial.get(item.serial)
            if not order:
                continue
            before, state[item.serial] = state.get(item.serial), item.state
            was, is_live = before in ledger_module.LIVE, item.state in ledger_module.LIVE
            if was != is_live:
                count(order, 1 if is_live else -1)
        if live[item.sale] > put_in[item.sale] and item.sale not in told:
            told.add(item.sale)
            breaches.add("oversold", f"sale {item.sale}: {live[item.sale]} units ordered, {put_in[item.sale]} put in", item)


# --- what clients were told -------------------------------------------------------------------------------------------------
def check_acknowledged(history, ledger, breaches):
    """Who was told yes is in the ledger, with the very same order."""
    for attempt in history.attempts:
        if not attempt.is_yes or not attempt.token or "id" not in attempt.body:
            continue
        breaches.figures["acknowledged"] += 1
        body, order = attempt.body, ledger.by_serial.get(attempt.token.serial)
        if not order:
            breaches.add("lost_order", f"order {body['id']} was acknowledged and is not in the ledger", attempt)
            continue
        sale = ledger.sales.get(order.sale)
        told = {"id": body.get("id"), "seq": body.get("seq"), "quantity": body.get("quantity"), "sale": body.get("sale"),
                "admitted_at": milliseconds(body["admitted_at"]) if "admitted_at" in body else None,
                "committed_at": milliseconds(body["committed_at"]) if "committed_at" in body else None}
        there = {"id": order.id, "seq": order.seq, "quantity": order.quantity, "sale": sale.slug if sale else None,
                 "admitted_at": order.admitted_ns // 1_000_000, "committed_at": order.committed_ns // 1_000_000}
        if told != there or order.sale != attempt.token.sale or order.buyer != attempt.token.buyer or order.quantity != attempt.token.quantity:
            wrong = {name: (told[name], there[name]) for name in told if told[name] != there[name]} or attempt.token
            breaches.add("answer_differs", f"order {order.id}: told and stored differ: {wrong}", attempt)
        check_state_told(attempt, order, history, ledger, breaches)


def check_state_told(attempt, order, history, ledger, breaches):
    """The state in an answer was the order's state at some moment between question and answer.

    A step that is in the ledger and that nobody has been told of yet (the writer was killed before it could say so) may not be known to the daemon
    for as long as a unit may be on its way back.
    """
    states = ledger.states(order)
    possible = set()
    for (at, name), (until, after) in zip(states, states[1:] + [(1 << 62, "")]):
        if after:
            until = max(until, min(history.returned_by(until), history.told_of(order.serial, after)))
        if at - CLOCK_SLACK_NS <= attempt.received_wall and until + CLOCK_SLACK_NS >= attempt.sent_wall:
            possible.add(name)
    if attempt.body.get("state") not in possible:
        breaches.add("state_untrue", f"order {order.id} was said to be {attempt.body.get('state')}, and was {sorted(possible)}", attempt)


def check_pending(history, ledger, breaches):
    """Who was told "pending" has an order when all is at rest, unless the gate itself was lost meanwhile (a reboot)."""
    if not history.rests:
        return
    for attempt in history.attempts:
        if attempt.body.get("state") == "pending" and attempt.token and attempt.token.serial not in ledger.by_serial and not any(
                at > attempt.sent_wall for at in history.gate_gone):
            breaches.add("pending_lost", f"token of order {attempt.token.serial:016x} was admitted (pending) and never became durable", attempt)


def check_once(history, breaches):
    """One token, one order, one 201."""
    for serial, attempts in history.of_serial.items():
        created = [attempt for attempt in attempts if attempt.status == 201]
        if len(created) > 1:
            breaches.add("created_twice", f"order {serial:016x} was answered 201 {len(created)} times", *created)
        told = {(attempt.body.get("id"), attempt.body.get("seq")) for attempt in attempts if attempt.is_yes and "id" in attempt.body}
        if len(told) > 1:
            breaches.add("token_two_orders", f"one token was told of {sorted(map(str, told))}", *attempts)
        for attempt in attempts:
            if attempt.is_yes and attempt.body.get("id", f"{serial:016x}") != f"{serial:016x}":
                breaches.add("token_two_orders", f"token of {serial:016x} was given order {attempt.body['id']}", attempt)


def check_never_taken_back(history, ledger, breaches):
    """After a yes, and after the order is in the ledger, nobody is told no."""
    for serial, attempts in history.of_serial.items():
        order = ledger.by_serial.get(serial)
        since = order.committed_ns if order and not history.clock_was_moved else 1 << 62
        yes = None
        for attempt in attempts:
            denied = attempt.code in DENIALS and not (attempt.code == "token_invalid" and history.keys_changed)
            if denied and yes and attempt.sent > yes.received:
                breaches.add("yes_taken_back", f"order {serial:016x} was acknowledged, then the buyer was told {attempt.code}", yes, attempt)
            elif denied and attempt.sent_wall > since:
                breaches.add("order_denied", f"order {serial:016x} is in the ledger since {since / SECOND:.6f}, and the buyer was told "
                             f"{attempt.code}", attempt)
            if attempt.is_yes and "id" in attempt.body and (not yes or attempt.received < yes.received):
                yes = attempt


def check_whole(history, breaches):
    """Every answer is a whole one: part of an answer is only to be had from a program that was killed in the middle of it."""
    for attempt in history.attempts:
        breaches.figures["requests"] += 1
        breaches.figures["unanswered"] += attempt.status is None
        if attempt.status is None and attempt.bytes and not history.away(attempt.sent_wall, attempt.received_wall):
            breaches.add("answer_cut", "part of an answer, and nobody was killed", attempt)


def check_origin(history, ledger, breaches):
    """Every order was asked for."""
    if not history.has_note("alone"):
        return
    asked = {attempt.token.serial for attempt in history.attempts if attempt.token and attempt.method == "POST"}
    for order in ledger.orders:
        if order.serial not in asked:
            breaches.add("order_from_nowhere", f"order {order.id} is in the ledger and nobody asked for it")


def check_honest(history, breaches):
    """Where all clients are honest and write here (`alone`), nobody's token is called bad."""
    if not history.has_note("alone"):
        return
    for attempt in history.attempts:
        if attempt.code in ("token_invalid", "wrong_network", "unknown_sale", "token_expired"):
            breaches.add("honest_refused", f"a good token was called {attempt.code}", attempt)


def check_shop_told(history, ledger, breaches):
    """What the shop was told about an order, and about stock, is in the ledger."""
    moves = collections.Counter((move.sale, move.delta) for move in ledger.moves)
    by_slug = {sale.slug: sale for sale in ledger.sales.values()}
    keys = set()
    for control in history.controls:
        parts = control["path"].strip("/").split("/")
        if control["status"] != 200 or control["method"] != "POST":
            continue
        if len(parts) == 4 and parts[1] == "orders" and parts[3] in VERBS:
            order = ledger.by_serial.get(int(parts[2], 16))
            if not order or VERBS[parts[3]] not in {state for _, state in ledger.states(order)}:
                breaches.add("change_lost", f"{parts[3]} of order {parts[2]} was acknowledged and is not in the ledger", control)
        elif len(parts) == 4 and parts[1] == "sales" and parts[3] == "stock" and not history.has_note("fleet"):
            sale = by_slug.get(parts[2])
            delta, key = control["request"].get("delta", 0), control.get("key")
            if not delta or (key and key in keys):
                continue
            keys.add(key)
            if not sale or not moves[sale.id, delta]:
                breaches.add("change_lost", f"a movement of {delta} units of sale {parts[2]} was acknowledged and is not in the ledger", control)
            else:
                moves[sale.id, delta] -= 1


def check_once_answered(history, breaches):
    """A call with an idempotency key that has been answered gives the same answer again, whatever died in between."""
    first = {}
    for control in sorted(history.controls, key=lambda control: control["received"][0]):
        if not control.get("key") or control["status"] != 200:
            continue
        before = first.setdefault((control["path"], control["key"]), control)
        if before["body"] != control["body"]:
            breaches.add("answer_not_repeated", f"{control['path']} with key {control['key']} was answered twice, and differently", before, control)


# --- the window -------------------------------------------------------------------------------------------------------------
Version = collections.namedtuple("Version", "since until opens_ns ends_ns per_buyer")


def versions_of(history, sale):
    """What the sale was by the control API, each with the time (wall ns) in which it may have held. Without any call: what the ledger says."""
    calls = [control for rest, control in history.sale_calls(sale.slug)
             if rest == "" and control["method"] == "PUT" and control["status"] in (200, 201)]
    unsure = [control for rest, control in history.sale_calls(sale.slug)
              if rest == "" and control["method"] == "PUT" and control["status"] not in (200, 201)]
    last = Version(0, 1 << 62, sale.opens_ns, sale.ends_ns, sale.per_buyer)
    if not calls or unsure:
        return [last]
    versions = []
    for call, after in zip(calls, calls[1:] + [None]):
        body = call["body"]
        versions.append(Version(call["sent"][1], after["received"][1] if after else 1 << 62, milliseconds(body["opens_at"]) * 1_000_000,
                                (milliseconds(body["ends_at"]) + 1) * 1_000_000, body["per_buyer"]))
    # Changed by the operator's command, which writes no history: nobody knows when.
    now = versions[-1]
    if (now.opens_ns // 1_000_000, now.ends_ns // 1_000_000 - 1, now.per_buyer) != (
            sale.opens_ns // 1_000_000, sale.ends_ns // 1_000_000, sale.per_buyer):
        versions.append(last)
    return versions


def check_window(history, ledger, breaches):
    """Admitted between opening and end, by the clock that the gate itself went by, whatever that clock did."""
    for sale in ledger.sales.values():
        versions = versions_of(history, sale)
        closed = closed_times(history, sale)
        for order in ledger.orders:
            if order.sale != sale.id:
                continue
            fits = [version for version in versions if version.opens_ns <= order.admitted_ns < version.ends_ns and (
                history.clock_was_moved or version.since - CLOCK_SLACK_NS <= order.admitted_ns <= version.until + CLOCK_SLACK_NS)]
            if not fits:
                breaches.add("outside_window", f"order {order.id} of sale {sale.slug} was admitted at {order.admitted_ns / SECOND:.6f}",
                             *[f"window {version.opens_ns / SECOND:.3f} to {version.ends_ns / SECOND:.3f}" for version in versions])
            for begin, end, why in closed:
                if not history.clock_was_moved and begin + CLOCK_SLACK_NS < order.admitted_ns < end - CLOCK_SLACK_NS:
                    breaches.add("outside_window", f"order {order.id} of sale {sale.slug} was admitted at {order.admitted_ns / SECOND:.6f}, "
                                 f"the sale was {why} since {begin / SECOND:.6f}")


def closed_times(history, sale):
    """[(from, to, why)] in wall ns: paused or ended by the operator, for sure."""
    found, paused = [], None
    for rest, control in history.sale_calls(sale.slug):
        sure = control["status"] == 200
        if rest == "/end" and sure:
            found.append((control["received"][1], 1 << 62, "ended"))
        elif rest == "/pause" and sure:
            paused = paused or control["received"][1]
        elif rest in ("/resume", "") and control["method"] != "GET" and paused:
            found.append((paused, control["sent"][1], "paused"))
            paused = None
    if paused:
        found.append((paused, 1 << 62, "paused"))
    return found


# --- units ------------------------------------------------------------------------------------------------------------------
class LeastFree:
    """The fewest units of a sale that may have been free in the gate, at every moment.

    What takes is counted as early as it can have been, what gives as late as it must have been. An order was not taken before its
    admission (nor, if the gate's clock was moved, before somebody first asked for it), and a unit given back or put in is there when
    the promised time is over. What was asked and whose outcome is not known may have taken for a while.
    """

    def __init__(self, history, ledger, sale):
        changes = []
        for order in ledger.orders:
            if order.sale == sale.id:
                first = history.of_serial.get(order.serial)
                if not history.clock_was_moved:
                    taken = order.admitted_ns - CLOCK_SLACK_NS
                else:
                    taken = first[0].sent_wall if first else 0
                changes.append((taken, -order.quantity))
                changes += self._of_events(history, ledger, order)
        for move in ledger.moves:
            if move.sale == sale.id:
                changes.append((history.returned_by(move.at_ns) if move.delta > 0 else move.at_ns - RETURN_NS, move.delta))
        changes += self._may_have_taken(history, ledger, sale)
        changes.sort()
        self.times = [at for at, _ in changes]
        self.free = list(itertools.accumulate(delta for _, delta in changes))

    @staticmethod
    def _of_events(history, ledger, order):
        state = "held"
        for event in ledger.events_of.get(order.serial, ()):
            was, is_live = state in ledger_module.LIVE, event.state in ledger_module.LIVE
            state = event.state
            if was and not is_live:
                yield history.returned_by(event.at_ns), order.quantity
            elif is_live and not was:
                yield event.at_ns - RETURN_NS, -order.quantity

    @staticmethod
    def _may_have_taken(history, ledger, sale):
        for rest, control in history.sale_calls(sale.slug):
            # A movement that was refused or not answered was out of the gate while it was tried.
            if rest == "/stock" and control["method"] == "POST" and (control["request"] or {}).get("delta", 0) < 0 and control["status"] != 200:
                yield control["sent"][1], control["request"]["delta"]
                yield history.returned_by(control["received"][1]), -control["request"]["delta"]
        for control in history.controls:
            parts = control["path"].strip("/").split("/")
            # So was the unit of a late payment that was refused.
            if len(parts) == 4 and parts[1] == "orders" and parts[3] == "confirm" and control["status"] != 200:
                order = ledger.by_serial.get(int(parts[2], 16))
                if order and order.sale == sale.id:
                    yield control["sent"][1], -order.quantity
                    yield history.returned_by(control["received"][1]), order.quantity
        for gone in history.gate_gone:
            # Admitted, and lost with the gate before it was durable: nobody was told yes.
            for serial, attempts in history.of_serial.items():
                before = [attempt for attempt in attempts if attempt.sent_wall < gone]
                if before and before[0].token.sale == sale.id and serial not in ledger.by_serial and any(
                        attempt.status in (None, 202) for attempt in before):
                    yield before[0].sent_wall, -before[0].token.quantity
                    yield history.returned_by(gone), before[0].token.quantity

    def between(self, begin, end):
        at = bisect.bisect_right(self.times, begin)
        least = self.free[at - 1] if at else 0
        while at < len(self.times) and self.times[at] <= end:
            least = min(least, self.free[at])
            at += 1
        return least


def check_sold_out(history, ledger, breaches):
    """"Sold out" was only said when it can have been so."""
    least = {}
    for attempt in history.attempts:
        if attempt.code != "sold_out" or not attempt.token:
            continue
        sale = ledger.sales.get(attempt.token.sale)
        if not sale:
            continue
        breaches.figures["sold_out"] += 1
        if sale.id not in least:
            least[sale.id] = LeastFree(history, ledger, sale)
        free = least[sale.id].between(attempt.sent_wall - CLOCK_SLACK_NS, attempt.received_wall)
        if free >= attempt.token.quantity:
            breaches.add("sold_out_untrue", f"sale {sale.slug}: at least {free} units were free, {attempt.token.quantity} asked for", attempt)


def check_already_ordered(history, ledger, breaches):
    """"Already ordered" was only said to a buyer who may have had so many units that the limit left too few."""
    orders, attempts = {}, {}
    for order in ledger.orders:
        orders.setdefault((order.sale, order.buyer), []).append(order)
    for attempt in history.attempts:
        if attempt.token and attempt.method == "POST":
            attempts.setdefault((attempt.token.sale, attempt.token.buyer), []).append(attempt)
    for key, of_buyer in attempts.items():
        for attempt in of_buyer:
            if attempt.code != "already_ordered" or key[0] not in ledger.sales:
                continue
            sale = ledger.sales[key[0]]
            limit = min([sale.per_buyer] + [version.per_buyer for version in versions_of(history, sale)])
            units = sum(order.quantity for order in orders.get(key, ()) if may_have_counted(history, ledger, order, attempt))
            # Another token of the same buyer may have been counted for the moment in which it was judged, or was lost with the gate.
            others = {other.token.serial: other.token.quantity for other in of_buyer
                      if other.token.serial != attempt.token.serial and other.token.serial not in ledger.by_serial and other.sent < attempt.received
                      and (other.received > attempt.sent or history.gate_gone and other.status in (None, 202))}
            if units + sum(others.values()) + attempt.token.quantity <= limit:
                breaches.add("already_ordered_untrue", f"buyer {key[1]:016x} of sale {sale.slug} had at most {units} units, the limit is {limit}",
                             attempt)


def may_have_counted(history, ledger, order, attempt):
    """Whether an order may have stood on its buyer's account at a moment of this attempt."""
    first = history.of_serial.get(order.serial)
    taken = first[0].sent_wall if history.clock_was_moved and first else 0 if history.clock_was_moved else order.admitted_ns - CLOCK_SLACK_NS
    if taken > attempt.received_wall:
        return False
    states = ledger.states(order)
    return any(state in ledger_module.LIVE and history.returned_by(until) >= attempt.sent_wall
               for (_, state), (until, _) in zip(states, states[1:] + [(1 << 62, "")]))


def check_rest(history, ledger, breaches):
    """At rest every unit is free or in an order, and nothing is on its way. The last look counts."""
    if not history.rests:
        return
    rest = history.rests[-1]
    breaches.figures["looks_at_rest"] += len(history.rests)
    if rest["in_flight"]:
        breaches.add("never_at_rest", f"{rest['in_flight']} admissions are still on their way")
    if rest["refused"]:
        breaches.add("guard_fired", f"the ledger refused {rest['refused']} orders that the gate had admitted")
    for number, words in rest["sales"].items():
        sale = ledger.sales.get(int(number))
        if not sale:
            breaches.add("units", f"the gate has a sale {number} that the ledger has not")
            continue
        put_in, ordered = books_upto(ledger, sale, rest["upto"])
        missing = put_in - words["free"] - ordered
        if missing:
            breaches.add("units", f"sale {sale.slug}: {put_in} put in, {words['free']} free, {ordered} in orders: "
                         + (f"{missing} missing" if missing > 0 else f"{-missing} too many"))


def books_upto(ledger, sale, upto):
    """Units put in and units in live orders when the ledger had got so far: a hold may have ended since, units may have come or gone."""
    put_in = sum(move.delta for move in ledger.moves if move.sale == sale.id and move.position <= upto["moves"])
    ordered = 0
    for order in ledger.orders:
        if order.sale == sale.id and order.position <= upto["steps"]:
            states = ["held"] + [event.state for event in ledger.events_of.get(order.serial, ()) if event.position <= upto["steps"]]
            ordered += order.quantity * (states[-1] in ledger_module.LIVE)
    return put_in, ordered


def check(history, ledger):
    breaches = Breaches()
    check_serials(ledger, breaches)
    check_seq(ledger, breaches)
    check_books(ledger, breaches)
    check_lives(ledger, history, breaches)
    check_replay(ledger, history, breaches)
    check_acknowledged(history, ledger, breaches)
    check_pending(history, ledger, breaches)
    check_once(history, breaches)
    check_never_taken_back(history, ledger, breaches)
    check_whole(history, breaches)
    check_origin(history, ledger, breaches)
    check_honest(history, breaches)
    check_shop_told(history, ledger, breaches)
    check_once_answered(history, breaches)
    check_window(history, ledger, breaches)
    check_sold_out(history, ledger, breaches)
    check_already_ordered(history, ledger, breaches)
    check_rest(history, ledger, breaches)
    breaches.figures["orders"] = len(ledger.orders)
    breaches.figures["events"] = len(ledger.events)
    return breaches


def check_files(history_path, ledger_path):
    with open(history_path, encoding="utf-8") as lines:
        history = History(lines)
    return check(history, ledger_module.read(ledger_path))


def main(argv):
    if len(argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        breaches = check_files(argv[1], argv[2])
    except Exception as error:  # whatever it is: no verdict is not a good one
        print(f"checker: cannot judge: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(", ".join(f"{name} {count}" for name, count in sorted(breaches.figures.items())))
    if breaches.found:
        print(breaches.text())
    return 1 if breaches.found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
