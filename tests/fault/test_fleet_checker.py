# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The fleet's checker by itself: a sale at two nodes in which all is well, and one small change for each promise, which must be named and nothing else."""
import base64
import json
import struct

import checker
import fleet_checker
import ledger as ledger_module
import pytest
from test_checker import ENDS, OPENS, SALE, SECOND, SLUG, T0, clocks, text

HOMES = {101: 1, 102: 1, 103: 2, 104: 2, 105: 2, 106: 1}


def token(serial, buyer=None, node=None):
    return base64.urlsafe_b64encode(struct.pack("<BBBBIIIQQIIQ", 1, 1, 1, 0, SALE, 0, 0, buyer or serial, serial, 0,
                                                node or HOMES[serial], 0)).decode()


class Node:
    def __init__(self, number):
        self.number = number
        self.records = [{"what": "note", "event": "fleet", "node": number, "at": clocks(-9)}]
        self.orders, self.moves, self.events = [], [], []
        self.sale = ledger_module.Sale(SALE, SLUG, OPENS, ENDS, per_buyer=1, put_in=0, held=0, confirmed=0, orders=0)

    def move(self, delta, at):
        self.moves.append(ledger_module.Move(len(self.moves), f"lease:{len(self.moves)}", SALE, delta, T0 + round(at * SECOND)))

    def order(self, serial, at):
        self.orders.append(ledger_module.Order(len(self.orders) + 1, serial, SALE, len(self.orders) + 1, "held", 1, serial, 60,
                                               T0 + round(at * SECOND), T0 + round(at * SECOND) + 1_000_000))
        self.ask(serial, at - 0.001, 201, id=f"{serial:016x}", seq=len(self.orders), state="held", quantity=1)

    def event(self, serial, kind, at):
        order = next(order for order in self.orders if order.serial == serial)
        self.events.append(ledger_module.Event(100 + len(self.events), kind, SALE, serial, T0 + round(at * SECOND)))
        order.state = kind.partition(".")[2]

    def ask(self, serial, at, status, code=None, with_token=None, **body):
        self.records.append({"what": "order", "method": "POST", "token": with_token or token(serial), "sent": clocks(at), "received": clocks(at + 0.01),
                             "status": status, "code": code, "body": {"code": code} if code else body, "bytes": 100, "complete": True, "error": None})

    def put(self, delta, at, status=200):
        self.records.append({"what": "control", "method": "POST", "path": f"/v1/sales/{SLUG}/stock", "request": {"delta": delta},
                             "sent": clocks(at), "received": clocks(at + 0.1), "status": status, "body": {}})

    def member(self):
        records = json.loads(json.dumps(self.records))
        return fleet_checker.Member(self.number, records, ledger_module.Ledger([self.sale], self.orders, self.moves, self.events))


class Story:
    """Four units. Node 1 leases three, sells two and gives one back, which node 2 sells; then everybody hears "sold out"."""

    def __init__(self):
        self.one, self.two = Node(1), Node(2)
        self.one.records.append({"what": "control", "method": "PUT", "path": f"/v1/sales/{SLUG}", "request": {"stock": 4}, "sent": clocks(-11),
                                 "received": clocks(-9), "status": 201, "body": {"opens_at": text(OPENS), "ends_at": text(ENDS), "per_buyer": 1}})
        self.one.move(3, -8)
        self.two.move(1, -8)
        self.one.order(101, 1)
        self.one.order(102, 2)
        self.two.order(103, 3)
        self.one.move(-1, 4)
        self.two.move(1, 5)
        self.two.order(104, 6)
        self.two.ask(101, 7, 421, "wrong_node")
        self.one.ask(101, 7.1, 200, id=f"{101:016x}", seq=1, state="held", quantity=1)
        self.two.ask(105, 10, 409, "sold_out")
        self.end = {"what": "note", "event": "coordinator", "at": clocks(50), "sale": SLUG, "total": 4, "free": 0, "upto": {"1": 99, "2": 99}}
        self.fleet = [{"what": "note", "event": "sold_out", "at": clocks(49), "sale": SLUG}, self.end]

    def note(self, event, at, **fields):
        self.fleet.append({"what": "note", "event": event, "at": clocks(at), **fields})

    def names(self):
        return fleet_checker.check([self.one.member(), self.two.member()], self.fleet).names()


def test_a_fleet_in_which_all_is_well_has_no_breach():
    assert Story().names() == set()


def sell_a_unit_that_is_leased_to_another(story):
    del story.one.moves[1]
    story.end["total"] = 5
    return {"fleet_overleased", "fleet_change_lost"}


def sell_more_than_was_put_in(story):
    story.one.move(1, 7)
    story.one.order(106, 8)
    story.end["free"] = -1
    return {"fleet_oversold", "fleet_overleased"}


def sell_before_it_was_put_in(story):
    story.one.records[1]["request"]["stock"] = 3
    story.one.put(1, 20)
    return {"fleet_oversold", "fleet_overleased"}


def put_back_what_was_cut(story):
    story.one.put(-1, 5.5)
    story.end.update(total=3, free=-1)
    return {"fleet_oversold", "fleet_overleased"}


def admit_a_token_at_two_nodes(story):
    story.one.order(104, 6.5)
    story.one.move(1, 6.2)
    story.end.update(total=5)
    return {"fleet_id_twice", "fleet_created_twice", "fleet_token_two_orders", "fleet_not_at_home", "fleet_lost_order", "fleet_oversold",
            "fleet_overleased", "fleet_buyer_limit", "fleet_change_lost"}


def say_yes_to_a_stranger(story):
    for record in story.two.records:
        if record.get("token") == token(104):
            record["token"] = token(104, node=1)
    return {"fleet_not_at_home"}


def give_a_buyer_two_homes(story):
    story.two.ask(0, 12, 409, "sold_out", with_token=token(107, buyer=101, node=2))
    return {"fleet_two_homes"}


def sell_too_much_to_one_buyer(story):
    story.two.orders[0].buyer = 101
    return {"fleet_buyer_limit"}


def lose_an_order_of_a_node(story):
    del story.two.orders[1]
    story.fleet[0]["event"] = "nothing"
    return {"fleet_lost_order", "fleet_sold_out_untrue"}


def say_yes_for_another_node(story):
    story.two.ask(101, 8, 200, id=f"{101:016x}", seq=1, state="held", quantity=1)
    return {"fleet_lost_order", "fleet_not_at_home"}


def deny_at_another_node(story):
    story.two.ask(101, 12, 409, "sold_out")
    return {"fleet_yes_taken_back"}


def say_sold_out_while_another_node_has_units(story):
    story.two.ask(105, 3.5, 409, "sold_out")
    return {"fleet_sold_out_untrue"}


def say_sold_out_long_after_a_return_elsewhere(story):
    story.one.event(102, "order.cancelled", 20)
    story.fleet[0]["event"] = "nothing"
    story.two.ask(105, 24, 409, "sold_out")
    return {"fleet_sold_out_untrue"}


def leave_a_unit_unsold(story):
    story.one.event(102, "order.cancelled", 20)
    return {"fleet_unsold"}


def lose_a_unit_between_nodes(story):
    del story.two.moves[1]
    return {"fleet_units"}


def lose_a_movement(story):
    story.one.put(5, 20)
    return {"fleet_change_lost", "fleet_unsold"}


def give_a_sale_two_ids(story):
    story.two.sale.id = 2
    for part in story.two.orders + story.two.moves:
        part.sale = 2
    return {"fleet_sale_differs", "fleet_sold_out_untrue"}


BREACHES = [sell_a_unit_that_is_leased_to_another, sell_more_than_was_put_in, sell_before_it_was_put_in, put_back_what_was_cut,
            admit_a_token_at_two_nodes, say_yes_to_a_stranger, give_a_buyer_two_homes, sell_too_much_to_one_buyer, lose_an_order_of_a_node,
            say_yes_for_another_node, deny_at_another_node, say_sold_out_while_another_node_has_units, say_sold_out_long_after_a_return_elsewhere,
            leave_a_unit_unsold, lose_a_unit_between_nodes, lose_a_movement, give_a_sale_two_ids]


@pytest.mark.parametrize("harm", BREACHES, ids=lambda harm: harm.__name__)
def test_a_breach_of_the_fleet_is_named(harm):
    story = Story()
    expected = harm(story)
    assert story.names() == expected


# --- what looks like a breach and is none ---------------------------------------------------------------------------------
def test_sold_out_is_believed_while_a_node_is_away_with_its_units():
    story = Story()
    story.one.event(102, "order.cancelled", 20)
    story.fleet[0]["event"] = "nothing"
    story.one.records.append({"what": "note", "event": "down", "part": "daemon", "at": clocks(21)})
    story.two.ask(105, 30, 409, "sold_out")
    assert story.names() == set()


def test_what_a_node_gives_back_when_it_stops_is_not_missing():
    story = Story()
    story.one.event(102, "order.cancelled", 20)
    story.fleet[0]["event"] = "nothing"
    story.end["upto"]["1"] = story.one.moves[-1].position
    story.one.move(-1, 60)
    assert story.names() == set()


def test_two_nodes_that_are_away_at_once_are_two_outages():
    """The one that comes back first does not end the other's."""
    story = Story()
    for node, down, up in ((story.one, 21, 60), (story.two, 22, 23)):
        for event, at in (("down", down), ("up", up)):
            node.records.append({"what": "note", "event": event, "part": "daemon", "at": clocks(at)})
    story.one.event(102, "order.cancelled", 24)
    story.fleet[0]["event"] = "nothing"
    story.two.ask(105, 40, 409, "sold_out")
    assert story.names() == set()


def test_more_is_leased_than_there_is_while_a_fenced_node_is_away():
    story = Story()
    del story.one.moves[1]
    story.note("fence", 4, sale=SLUG)
    story.end["total"] = 5
    assert story.names() == {"fleet_change_lost"}


def test_what_nobody_knows_to_be_put_in_is_no_breach_either_way():
    story = Story()
    story.two.put(1, 7, status=None)
    assert story.names() == set()
    story.end.update(total=5, free=1)
    assert story.names() == set()


def test_a_node_whose_clock_is_apart_is_judged_by_the_crowds_clock():
    story = Story()
    story.two.records.append({"what": "note", "event": "clock_apart", "offset": 60.0, "at": clocks(-9)})
    for order in story.two.orders:
        order.admitted_ns += 60 * SECOND
        order.committed_ns += 60 * SECOND
    for move in story.two.moves:
        move.at_ns += 60 * SECOND
    assert story.names() == set()


def test_units_that_reach_a_node_after_the_last_look_are_not_counted_twice():
    story = Story()
    story.one.put(1, 20)
    story.fleet[0]["event"] = "nothing"
    story.end.update(total=5, free=1, upto={"1": 99, "2": story.two.moves[-1].position})
    story.two.move(1, 49)
    assert story.names() == set()


def test_the_command_tells_by_its_exit_code(tmp_path, capsys):
    history = tmp_path / "history"
    history.write_text("", encoding="utf-8")
    assert fleet_checker.main(["fleet_checker", str(history), f"1={history}={tmp_path / 'no-ledger'}"]) == 2
    assert "cannot judge" in capsys.readouterr().err
    assert checker.History([]).return_ns == checker.RETURN_NS
