#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Judges a fleet: the histories and ledgers of all its nodes together, as if they were one shop. checker.py judges each node by itself.

    fleet_checker.py FLEET_HISTORY NODE=HISTORY=LEDGER…        exit codes as checker.py

Breaches carry "fleet_" before their name. What is demanded of the whole:

    fleet_oversold           units in live orders of all ledgers <= units that the shop had put in, at every moment
    fleet_overleased         units in the ledgers of all nodes (ordered or not) <= the same, unless a node was fenced
    fleet_id_twice           no token is in two ledgers
    fleet_created_twice, fleet_token_two_orders, fleet_yes_taken_back, fleet_order_denied
                             what checker.py says of one gate, across all of them
    fleet_buyer_limit        a buyer's live units at all nodes <= the limit
    fleet_two_homes          the tokens of a buyer name one home
    fleet_not_at_home        nobody is admitted but at the node that the token names
    fleet_lost_order         who was told yes is in one ledger, that of the node that said so
    fleet_sold_out_untrue    "sold out" is only said when nobody in the fleet can have had so many units
    fleet_unsold             where the test says that the demand was there (note "sold_out"), every unit is in an order
    fleet_units              at rest: put in at all nodes + free at the coordinator = total
    fleet_change_lost        the coordinator's total is what the shop was told
    fleet_sale_differs       a sale has one id at all nodes

The fleet's own history has notes: {"event":"down"|"up", "part":"redis"|"partition 2"|…}, {"event":"fence", "sale"}, {"event":"sold_out", "sale"}, and of the
end {"event":"coordinator", "sale", "total", "free", "upto":{node: its ledger's last movement then}}.
"""
import collections
import dataclasses
import json
import sys

import checker
import ledger as ledger_module
from checker import SECOND

RETURN_NS = 3 * SECOND  # promised: 2 s until another node's gate knows of a unit; and the second in which its own node does


class Member:
    """A node: its history's records as they were read, its ledger (ledger.py), and how far its clock is ahead for good, in ns."""

    def __init__(self, number, records, ledger):
        self.number, self.records, self.ledger = number, records, ledger
        self.offset = round(SECOND * sum(record["offset"] for record in records
                                         if record["what"] == "note" and record["event"] == "clock_apart"))


def merged_history(members, fleet_records):
    """One history of all nodes, by the crowd's clock. Parts have their node's number, and orders who was asked."""
    records = list(fleet_records)
    for member in members:
        for record in member.records:
            if record["what"] == "rest" or record["what"] == "note" and record["event"] in ("clock", "clock_apart"):
                continue
            if record["what"] == "note" and "part" in record:
                record = {**record, "part": f"{record['part']} {member.number}"}
            records.append({**record, "node": member.number})
    return checker.History(records, return_ns=RETURN_NS)


class Put:
    """What the shop put into a sale, or took out, by a control call at any node. `sure`: it was told that it is done."""

    def __init__(self, control, slug, delta):
        self.slug, self.delta = slug, delta
        self.sent, self.received = control["sent"][1], control["received"][1]
        self.sure = control["status"] in (200, 201)


def puts_of(history):
    puts, keys = [], set()
    for control in sorted(history.controls, key=lambda control: control["sent"][0]):
        parts = control["path"].strip("/").split("/")
        request, status = control["request"] or {}, control["status"]
        refused = status is not None and 400 <= status < 500
        key = (control["path"], control.get("key"))
        if parts[:2] != ["v1", "sales"] or refused or (control.get("key") and key in keys):
            continue
        if status is not None:
            keys.add(key)
        if len(parts) == 3 and control["method"] == "PUT" and request.get("stock") and status != 200:
            puts.append(Put(control, parts[2], request["stock"]))
        elif len(parts) == 4 and parts[3] == "stock" and control["method"] == "POST" and request.get("delta"):
            puts.append(Put(control, parts[2], request["delta"]))
    return puts


class Whole:
    """The ledgers as one: times by the crowd's clock, positions in the order of time."""

    def __init__(self, members, history):
        self.members, self.puts = members, puts_of(history)
        self.orders, self.events, self.spoiled, self.sales, self.ids = [], [], [], {}, {}
        steps = []
        for member in members:
            offset = member.offset
            for sale in member.ledger.sales.values():
                known = self.sales.setdefault(sale.id, dataclasses.replace(sale))
                known.per_buyer = max(known.per_buyer, sale.per_buyer)
                self.ids.setdefault(sale.slug, set()).add(sale.id)
            for order in member.ledger.orders:
                order = dataclasses.replace(order, admitted_ns=order.admitted_ns - offset, committed_ns=order.committed_ns - offset)
                self.orders.append(order)
                steps.append((order.committed_ns, member.number, order.position, order))
            for event in member.ledger.events:
                event = dataclasses.replace(event, at_ns=event.at_ns - offset)
                self.events.append(event)
                steps.append((event.at_ns, member.number, event.position, event))
            # A refunded order whose units are not for sale again.
            self.spoiled += [dataclasses.replace(move, at_ns=move.at_ns - offset) for move in member.ledger.moves if move.key.startswith("refund:")]
        for position, (_, _, _, item) in enumerate(sorted(steps, key=lambda step: step[:3]), 1):
            item.position = position

    def ledger(self, most):
        """With what was put in as early and as much as may be (`most`), or as late and as little."""
        moves = list(self.spoiled)
        for number, put in enumerate(self.puts):
            for sale in self.ids.get(put.slug, ()):
                if put.sure or (put.delta > 0) == most:
                    early = (put.delta > 0) == most
                    moves.append(ledger_module.Move(number, "put", sale, put.delta, put.sent if early else put.received))
        return ledger_module.Ledger(self.sales.values(), self.orders, moves, self.events)

    def put_in(self, slug):
        """(at least, at most) units that the shop put in."""
        sure = sum(put.delta for put in self.puts if put.slug == slug and put.sure)
        unsure = [put.delta for put in self.puts if put.slug == slug and not put.sure]
        return sure + sum(delta for delta in unsure if delta < 0), sure + sum(delta for delta in unsure if delta > 0)


def check_sales(whole, breaches):
    for slug, ids in whole.ids.items():
        if len(ids) > 1:
            breaches.add("sale_differs", f"sale {slug} has the ids {sorted(ids)}")


def check_leased(whole, history, breaches):
    """What the nodes have, sold or not, is never more than there is."""
    fenced = {note["sale"] for note in history.notes if note["event"] == "fence"}
    steps = [(put.sent if put.delta > 0 else put.received, 0, put.slug, put.delta, 0) for put in whole.puts if put.sure or put.delta > 0]
    for member in whole.members:
        offset = member.offset
        for move in member.ledger.moves:
            sale = member.ledger.sales.get(move.sale)
            if sale and not move.key.startswith("refund:"):
                steps.append((move.at_ns - offset, 1, sale.slug, 0, move.delta))
    total, leased, told = collections.Counter(), collections.Counter(), set()
    for at, _, slug, put, lease in sorted(steps):
        total[slug] += put
        leased[slug] += lease
        if leased[slug] > total[slug] and slug not in told | fenced:
            told.add(slug)
            breaches.add("overleased", f"sale {slug}: {leased[slug]} units at the nodes at {at / SECOND:.6f}, {total[slug]} put in")


def check_homes(whole, history, breaches):
    homes = {}
    tokens = {attempt.token.serial: attempt.token for attempt in history.attempts if attempt.token}
    for attempt in history.attempts:
        if attempt.token and attempt.code != "token_invalid":
            homes.setdefault((attempt.token.sale, attempt.token.buyer), set()).add(attempt.token.node)
        if attempt.token and attempt.is_yes and attempt.token.node != attempt.asked:
            breaches.add("not_at_home", f"node {attempt.asked} said yes to a token of node {attempt.token.node}", attempt)
    for (sale, buyer), nodes in homes.items():
        if len(nodes) > 1:
            breaches.add("two_homes", f"buyer {buyer:016x} of sale {sale} has tokens of the nodes {sorted(nodes)}")
    for member in whole.members:
        for order in member.ledger.orders:
            token = tokens.get(order.serial)
            if token and token.node != member.number:
                breaches.add("not_at_home", f"order {order.id} is in the ledger of node {member.number}, its token names node {token.node}")


def check_yes(whole, history, breaches):
    where = collections.defaultdict(set)
    for member in whole.members:
        for order in member.ledger.orders:
            where[order.serial].add(member.number)
    for attempt in history.attempts:
        if attempt.token and attempt.is_yes and "id" in attempt.body:
            breaches.figures["acknowledged"] += 1
            if where.get(attempt.token.serial) != {attempt.asked}:
                breaches.add("lost_order", f"order {attempt.token.serial:016x} was acknowledged by node {attempt.asked}, and is in the ledgers of "
                             f"{sorted(where.get(attempt.token.serial, ()))}", attempt)


def check_sold_out(whole, history, breaches):
    """Not judged while a part is away, nor until the others can know that it is back: nobody can tell what an absent node has left."""
    told = [attempt for attempt in history.attempts if attempt.code == "sold_out" and not history.away(attempt.sent_wall - RETURN_NS, attempt.received_wall)]
    history.attempts, everything = told, history.attempts
    checker.check_sold_out(history, whole.ledger(most=False), breaches)
    history.attempts = everything


def check_all_sold(whole, history, breaches):
    live = collections.Counter()
    for order in whole.orders:
        live[order.sale] += order.quantity * (order.state in ledger_module.LIVE)
    spoiled = collections.Counter()
    for move in whole.spoiled:
        spoiled[move.sale] += move.delta
    for note in history.notes:
        if note["event"] == "sold_out":
            least, _ = whole.put_in(note["sale"])
            units = sum(live[sale] - spoiled[sale] for sale in whole.ids.get(note["sale"], ()))
            breaches.figures["units_sold"] += units
            if units < least:
                breaches.add("unsold", f"sale {note['sale']}: {least} units put in, buyers enough, and {units} in orders")


def check_coordinator(whole, history, breaches):
    for note in history.notes:
        if note["event"] != "coordinator":
            continue
        slug, total = note["sale"], note["total"]
        # As they were then: a node that has been stopped since has given its units back.
        at_nodes = sum(move.delta for member in whole.members for move in member.ledger.moves
                       if not move.key.startswith("refund:") and move.position <= note["upto"].get(str(member.number), 0)
                       and getattr(member.ledger.sales.get(move.sale), "slug", "") == slug)
        if at_nodes + note["free"] != total:
            breaches.add("units", f"sale {slug}: {at_nodes} units at the nodes and {note['free']} free, the total is {total}")
        least, most = whole.put_in(slug)
        if not least <= total <= most:
            breaches.add("change_lost", f"sale {slug}: the coordinator's total is {total}, the shop put in {least if least == most else (least, most)}")


def check(members, fleet_records):
    history = merged_history(members, fleet_records)
    whole = Whole(members, history)
    found = checker.Breaches()
    check_sales(whole, found)
    check_leased(whole, history, found)
    check_homes(whole, history, found)
    check_yes(whole, history, found)
    check_all_sold(whole, history, found)
    check_coordinator(whole, history, found)
    most = whole.ledger(most=True)
    checker.check_serials(most, found)
    checker.check_replay(most, history, found)
    checker.check_once(history, found)
    checker.check_never_taken_back(history, most, found)
    check_sold_out(whole, history, found)
    breaches = checker.Breaches()
    breaches.figures = found.figures
    breaches.figures["orders"] = len(whole.orders)
    breaches.figures["requests"] = len(history.attempts)
    for name, text, evidence in found.found:
        breaches.add(f"fleet_{name}", text, *evidence)
    return breaches


def read_records(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def main(argv):
    if len(argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        members = []
        for argument in argv[2:]:
            number, history, where = argument.split("=", 2)
            members.append(Member(int(number), read_records(history), ledger_module.read(where)))
        breaches = check(members, read_records(argv[1]))
    except Exception as error:  # whatever it is: no verdict is not a good one
        print(f"fleet_checker: cannot judge: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(", ".join(f"{name} {count}" for name, count in sorted(breaches.figures.items())))
    if breaches.found:
        print(breaches.text())
    return 1 if breaches.found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
