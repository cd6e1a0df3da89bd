# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""What becomes of orders after the admission: confirmed, cancelled, expired, refunded; each is resolved once, whoever asks, however often, and
whatever is killed meanwhile. Units come back to the gate once, and the books balance after each of it.
"""
import contextlib
import csv
import io
import json
import os
import shutil
import signal
import socket
import struct
import threading
import time
import urllib.parse

import pytest

import talk
from netns import run, wait_until
from world import rfc3339, seconds_of


def bought(world, sale, buyer=None, quantity=1, family="ipv4"):
    """A token and its order."""
    token = sale.token(buyer, quantity)
    answer = world.order(token, family)
    assert answer.status == 201, answer
    return token, answer.json()


def act(world, order, verb, body=None, key=None):
    headers = {"Idempotency-Key": key} if key else None
    return world.control("POST", f"/v1/orders/{order['id']}/{verb}", body, headers=headers)


def done(world, order, verb, body=None, key=None):
    reply = act(world, order, verb, body, key)
    assert reply.status == 200, reply
    return reply.json()


def refused(reply, status, code):
    assert (reply.status, reply.code()) == (status, code), reply
    return reply.json()


def state_of(world, order):
    return world.ask("GET", f"/v1/orders/{order['id']}")["state"]


def wait_state(world, order, state):
    wait_until(lambda: state_of(world, order) == state, f"the order is {state}")


def units_of_buyers(world, sale):
    """{buyer: units} as the gate counts them, of those that have any."""
    counts = {}
    for key, value in world.map_dump("buyers"):
        units = int.from_bytes(value[:4], "little")
        if int.from_bytes(key[8:12], "little") == sale.id and units:
            counts[f"{int.from_bytes(key[:8], 'little'):016x}"] = units
    return counts


def assert_buyers(world, sale):
    """The gate counts for each buyer what the ledger's live orders say."""
    wanted = {}
    for order in sale.orders():
        if order["state"] in ("held", "confirmed"):
            wanted[order["buyer"]] = wanted.get(order["buyer"], 0) + order["quantity"]
    assert units_of_buyers(world, sale) == wanted


def assert_whole(world, sale, **books):
    assert_buyers(world, sale)
    return sale.assert_books(**books)


@pytest.fixture(autouse=True)
def both_programs(world):
    """A test that failed half way leaves no dead program to the next one."""
    if not world.writer.running():
        world.start_writer()
    if not world.daemon.running():
        world.start_daemon(ready=False)
    world.wait_ready()


# --- each step ------------------------------------------------------------------------------------------------------------------
def test_a_held_order_is_confirmed_once_and_can_be_refunded(world, family):
    sale = world.sale(stock=3, hold_seconds=600)
    token, order = bought(world, sale, family=family)
    assert seconds_of(order["expires_at"]) == pytest.approx(seconds_of(order["admitted_at"]) + 600, abs=0.002)
    assert order["resolved_at"] is None
    confirmed = done(world, order, "confirm")
    assert (confirmed["state"], confirmed["resolved_by"], confirmed["seq"]) == ("confirmed", "shop", order["seq"])
    assert seconds_of(confirmed["resolved_at"]) >= seconds_of(confirmed["committed_at"]) - 0.001
    assert done(world, order, "confirm") == confirmed
    assert "confirmed" in refused(act(world, order, "cancel"), 409, "order_state")["detail"]
    assert_whole(world, sale, put_in=3, free=2, held=0, confirmed=1)
    told = world.public("GET", f"/v1/orders/{token}", family=family)
    assert (told.status, told.json()["state"]) == (200, "confirmed")

    refunded = done(world, order, "refund")
    assert (refunded["state"], refunded["restocked"]) == ("refunded", True)
    assert done(world, order, "refund", {"restock": True}) == refunded
    for verb, body in (("refund", {"restock": False}), ("confirm", None), ("cancel", None)):
        assert "refunded" in refused(act(world, order, verb, body), 409, "order_state")["detail"]
    assert_whole(world, sale, put_in=3, free=3, held=0, confirmed=0)


def test_a_refund_without_restock_takes_the_unit_out_of_the_sale(world):
    sale = world.sale(stock=2)
    (_, order), (_, other) = bought(world, sale), bought(world, sale)
    done(world, order, "confirm")
    refunded = done(world, order, "refund", {"restock": False})
    assert (refunded["state"], refunded["restocked"]) == ("refunded", False)
    assert done(world, order, "refund", {"restock": False}) == refunded
    assert sale.show()["state"] == "sold_out"
    assert_whole(world, sale, put_in=1, free=0, held=1, confirmed=0)
    assert state_of(world, other) == "held"


def test_the_shop_cancels_and_nothing_follows_a_cancellation(world):
    sale = world.sale(stock=2)
    token, order = bought(world, sale)
    cancelled = done(world, order, "cancel")
    assert (cancelled["state"], cancelled["resolved_by"]) == ("cancelled", "shop")
    assert done(world, order, "cancel") == cancelled
    for verb in ("confirm", "refund"):
        assert "cancelled" in refused(act(world, order, verb), 409, "order_state")["detail"]
    answer = world.order(token)
    assert (answer.status, answer.json()["state"]) == (200, "cancelled"), "the token is spent"
    assert_whole(world, sale, put_in=2, free=2, held=0)


def test_the_buyer_cancels_with_the_token(world, family):
    sale = world.sale(stock=2)
    token, order = bought(world, sale, family=family)
    first = world.public("DELETE", f"/v1/orders/{token}", family=family)
    assert first.status == 200 and first.json()["state"] == "cancelled" and first.json()["id"] == order["id"], first
    again = world.public("DELETE", f"/v1/orders/{token}", family=family)
    assert (again.status, again.body) == (200, first.body)
    assert world.ask("GET", f"/v1/orders/{order['id']}")["resolved_by"] == "buyer"
    assert_whole(world, sale, put_in=2, free=2)

    token, order = bought(world, sale, family=family)
    done(world, order, "confirm")
    refused(world.public("DELETE", f"/v1/orders/{token}", family=family), 409, "order_state")
    refused(world.public("DELETE", f"/v1/orders/{sale.token()}", family=family), 404, "no_order")
    refused(world.public("DELETE", f"/v1/orders/{'A' * 64}", family=family), 401, "token_invalid")
    assert_whole(world, sale, put_in=2, free=1, confirmed=1)


@pytest.mark.parametrize("verb", ["confirm", "cancel", "refund"])
def test_an_order_that_is_not_there(world, verb):
    for name in ("0123456789abcdef", "0123456789ABCDEF", "17"):
        refused(world.control("POST", f"/v1/orders/{name}/{verb}"), 404, "no_order")
    reply = world.control("POST", f"/v1/orders/0123456789abcdef/{verb}", {"colour": "red"})
    assert refused(reply, 400, "unknown_field")["field"] == "colour"


def test_the_command_line_does_the_same(world):
    sale = world.sale(stock=5)
    (_, first), (_, second), (_, third) = (bought(world, sale) for _ in range(3))

    def cli(*args):
        return world.cli("order", *args, check=False)

    shown = cli("confirm", first["id"], "-o", "json")
    assert shown.returncode == 0 and json.loads(shown.stdout)["state"] == "confirmed", shown.stderr
    assert "confirmed" in cli("confirm", first["id"]).stdout
    assert json.loads(cli("cancel", second["id"], "-o", "json").stdout)["resolved_by"] == "shop"
    conflict = cli("confirm", second["id"])
    assert conflict.returncode == 4 and "order_state" in conflict.stderr
    assert cli("confirm", "0123456789abcdef").returncode == 3
    assert cli("refund", third["id"]).returncode == 4, "it was never paid"
    assert json.loads(cli("refund", first["id"], "--no-restock", "-o", "json").stdout)["restocked"] is False
    assert state_of(world, first) == "refunded"
    assert cli("show", first["id"]).stdout.count("refunded") == 1
    listed = json.loads(cli("list", "--sale", sale.slug, "--state", "cancelled", "-o", "json").stdout)
    assert [order["id"] for order in listed["orders"]] == [second["id"]]
    exported = cli("export", "--sale", sale.slug)
    assert exported.returncode == 0
    assert [row["id"] for row in csv.DictReader(io.StringIO(exported.stdout))] == [order["id"] for order in sale.orders()]
    lines = cli("export", "--sale", sale.slug, "--format", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == sale.orders()
    assert cli("export", "--format", "xml").returncode == 2
    assert_whole(world, sale, put_in=4, free=3, held=1, confirmed=0)


def test_the_command_line_names_a_change_that_is_made_once(world):
    sale = world.sale(stock=2)
    (_, first), (_, second) = bought(world, sale), bought(world, sale)
    one = world.cli("order", "confirm", first["id"], "--key", "payment-1", "-o", "json")
    again = world.cli("order", "confirm", first["id"], "--key", "payment-1", "-o", "json")
    assert one.stdout == again.stdout
    other = world.cli("order", "confirm", second["id"], "--key", "payment-1", check=False)
    assert other.returncode == 2 and "key_reused" in other.stderr
    assert state_of(world, second) == "held"


# --- units come back once ---------------------------------------------------------------------------------------------------------
def test_two_cancellations_release_one_unit(world):
    sale = world.sale(stock=40)
    pairs = [bought(world, sale) for _ in range(12)]
    answers = []

    def cancel(job):
        token, order = pairs[job // 3]
        if job % 3:
            answers.append(act(world, order, "cancel").status)
        else:
            answers.append(world.public("DELETE", f"/v1/orders/{token}").status)
    threads = [threading.Thread(target=cancel, args=(job,)) for job in range(36)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 36
    assert_whole(world, sale, put_in=40, free=40, held=0)


def test_a_cancellation_reopens_a_sale_that_was_sold_out_at_the_wire(world, family):
    sale = world.sale(stock=1)
    late = [sale.token(), sale.token()]
    _, order = bought(world, sale, family=family)
    assert sale.show()["state"] == "sold_out"
    curl = world.curl_order(late[0], family=family)
    assert curl.answer.code() == "sold_out"
    world.assert_no_socket(curl.local_port)
    done(world, order, "cancel")
    assert sale.show()["state"] == "open"
    before = world.packets("admitted")
    assert world.order(late[0], family).status == 201
    assert world.packets("admitted") == before + 1, "judged in the driver's path"
    assert world.order(late[1], family).code() == "sold_out"
    assert_whole(world, sale, put_in=1, free=0, held=1)


def test_a_buyer_may_order_again_after_a_cancellation_with_a_new_token(world):
    sale = world.sale(stock=3)
    buyer = sale.buyer()
    tokens = []
    for n in range(4):
        token, order = bought(world, sale, buyer)
        assert token not in tokens
        refused(world.control("POST", f"{sale.path}/tokens", {"buyer": buyer}), 409, "already_ordered")
        tokens.append(token)
        if n < 3:
            done(world, order, "cancel")
    answers = [world.order(token).json() for token in tokens]
    assert [answer["state"] for answer in answers] == ["cancelled"] * 3 + ["held"]
    assert [answer["seq"] for answer in answers] == [1, 2, 3, 4]
    assert_whole(world, sale, put_in=3, free=2, held=1)


def test_a_buyer_cannot_order_and_cancel_for_ever(world):
    """Each order keeps its place among the admissions, whatever becomes of it."""
    sale = world.sale(stock=2)
    buyer = sale.buyer()
    for _ in range(256):
        _, order = bought(world, sale, buyer)
        done(world, order, "cancel")
    problem = refused(world.control("POST", f"{sale.path}/tokens", {"buyer": buyer}), 409, "already_ordered")
    assert "as often" in problem["detail"]
    bought(world, sale)
    assert_whole(world, sale, put_in=2, free=1, held=1)


def test_an_order_of_several_units_comes_back_whole(world):
    sale = world.sale(stock=10, per_buyer=5)
    buyer = sale.buyer()
    _, three = bought(world, sale, buyer, quantity=3)
    _, two = bought(world, sale, buyer, quantity=2)
    assert_whole(world, sale, free=5, held=5)
    done(world, three, "cancel")
    assert_whole(world, sale, free=8, held=2)
    _, again = bought(world, sale, buyer, quantity=3)
    done(world, two, "confirm")
    done(world, two, "refund", {"restock": False})
    done(world, again, "cancel")
    assert_whole(world, sale, put_in=8, free=8, held=0, confirmed=0)


def test_after_the_end_units_stay_in_the_books(world):
    sale = world.sale(stock=2)
    token, order = bought(world, sale)
    other = sale.token()
    sale.act("end")
    done(world, order, "cancel")
    assert_whole(world, sale, put_in=2, free=2, held=0)
    assert world.order(other).code() == "sale_ended"
    assert world.order(token).json()["state"] == "cancelled"
    assert sale.show()["state"] == "ended"


# --- time ---------------------------------------------------------------------------------------------------------------------------
def test_a_hold_that_is_over_gives_its_unit_back(world, family):
    sale = world.sale(stock=1, hold_seconds=1)
    waiting = sale.token()
    token, order = bought(world, sale, family=family)
    assert world.order(waiting, family).code() == "sold_out"
    wait_state(world, order, "expired")
    found = world.ask("GET", f"/v1/orders/{order['id']}")
    assert found["resolved_by"] == "time"
    assert seconds_of(found["resolved_at"]) >= seconds_of(order["expires_at"])
    # Not a bound on how fast this machine is, but on how often is looked: twice a second.
    assert seconds_of(found["resolved_at"]) - seconds_of(order["expires_at"]) < 5
    told = world.public("GET", f"/v1/orders/{token}", family=family).json()
    assert (told["state"], told["resolved_at"]) == ("expired", found["resolved_at"])
    assert world.order(waiting, family).status == 201, "the sale is open again"
    refused(act(world, order, "cancel"), 409, "order_state")
    refused(world.public("DELETE", f"/v1/orders/{token}", family=family), 409, "order_state")


def test_orders_without_a_time_are_held_for_ever_and_confirmed_ones_too(world):
    sale, quick = world.sale(stock=2, hold_seconds=0), world.sale(stock=2, hold_seconds=1)
    _, forever = bought(world, sale)
    _, paid = bought(world, quick)
    done(world, paid, "confirm")
    _, unpaid = bought(world, quick)
    assert forever["expires_at"] is None
    wait_state(world, unpaid, "expired")
    assert [state_of(world, order) for order in (forever, paid)] == ["held", "confirmed"]
    assert_whole(world, sale, free=1, held=1)
    assert_whole(world, quick, free=1, held=0, confirmed=1)


def test_a_change_of_the_hold_is_for_later_orders(world):
    sale = world.sale(stock=3, hold_seconds=600)
    _, long = bought(world, sale)
    sale.change(hold_seconds=1)
    _, short = bought(world, sale)
    wait_state(world, short, "expired")
    assert state_of(world, long) == "held"
    assert world.ask("GET", f"/v1/orders/{long['id']}")["expires_at"] == long["expires_at"]


def test_a_late_payment_gets_a_free_unit_again(world):
    sale = world.sale(stock=1, hold_seconds=1)
    buyer = sale.buyer()
    token, order = bought(world, sale, buyer)
    wait_state(world, order, "expired")
    confirmed = done(world, order, "confirm")
    assert (confirmed["state"], confirmed["resolved_by"]) == ("confirmed", "shop")
    assert sale.show()["state"] == "sold_out"
    refused(world.control("POST", f"{sale.path}/tokens", {"buyer": buyer}), 409, "already_ordered")
    assert world.order(token).json()["state"] == "confirmed"
    assert_whole(world, sale, put_in=1, free=0, held=0, confirmed=1)


def test_a_late_payment_without_a_unit_is_told_so_and_takes_nobody_elses(world):
    sale = world.sale(stock=1, hold_seconds=1)
    _, late = bought(world, sale)
    wait_state(world, late, "expired")
    sale.change(hold_seconds=600)
    _, winner = bought(world, sale)
    refused(act(world, late, "confirm"), 409, "hold_expired")
    first = act(world, late, "confirm", key="late-payment")
    refused(first, 409, "hold_expired")
    assert_whole(world, sale, put_in=1, free=0, held=1)
    done(world, winner, "cancel")
    again = act(world, late, "confirm", key="late-payment")
    assert (again.status, again.body) == (409, first.body), "the payment may have been given back by now"
    assert_whole(world, sale, put_in=1, free=1)
    assert done(world, late, "confirm", key="another payment")["state"] == "confirmed"
    assert_whole(world, sale, put_in=1, free=0, confirmed=1)


def test_a_late_payment_does_not_lift_the_limit_of_its_buyer(world):
    sale = world.sale(stock=5, hold_seconds=1)
    buyer = sale.buyer()
    _, late = bought(world, sale, buyer)
    wait_state(world, late, "expired")
    sale.change(hold_seconds=600)
    _, second = bought(world, sale, buyer)
    refused(act(world, late, "confirm"), 409, "hold_expired")
    assert_whole(world, sale, free=4, held=1)
    done(world, second, "cancel")
    assert done(world, late, "confirm")["state"] == "confirmed"
    assert_whole(world, sale, free=4, confirmed=1)


def test_late_payments_and_new_buyers_race_for_the_same_units(world):
    """Confirmed at the very moment at which the holds end, while others want the units: each unit is sold once."""
    sale = world.sale(stock=24, hold_seconds=2)
    late = [bought(world, sale)[1] for _ in range(24)]
    sale.change(hold_seconds=600)
    stop, winners, told = threading.Event(), [], {}

    def pay(n):
        wait = seconds_of(late[n]["expires_at"]) + (n % 8 - 3) * 0.15 - time.time()
        time.sleep(max(0.0, wait))
        told[n] = act(world, late[n], "confirm")

    def buy(n):
        buyer = sale.buyer()
        while not stop.is_set():
            reply = world.control("POST", f"{sale.path}/tokens", {"buyer": f"{buyer}-{n}"})
            if reply.status not in (200, 201):
                continue  # sold out, as far as the daemon can see
            answer = world.order(reply.json()["token"])
            if answer.status in (200, 201):
                winners.append(answer.json()["id"])
                return
            assert answer.code() == "sold_out", answer
    buyers = [threading.Thread(target=buy, args=(n,)) for n in range(4)]
    payers = [threading.Thread(target=pay, args=(n,)) for n in range(24)]
    for thread in buyers + payers:
        thread.start()
    for thread in payers:
        thread.join()
    wait_until(lambda: all(state_of(world, order) != "held" for order in late), "every hold has ended")
    stop.set()
    for thread in buyers:
        thread.join()
    assert {(reply.status, reply.code() if reply.status != 200 else None) for reply in told.values()} <= \
        {(200, None), (409, "hold_expired")}
    states = {order["id"]: order["state"] for order in sale.orders()}
    for n, reply in told.items():
        assert states[late[n]["id"]] == ("confirmed" if reply.status == 200 else "expired")
    confirmed = sum(reply.status == 200 for reply in told.values())
    assert_whole(world, sale, put_in=24, held=len(winners), confirmed=confirmed)
    assert "sluice_ledger_refusals_total 0" in world.control("GET", "/metrics").body.decode()


# --- the same change again ------------------------------------------------------------------------------------------------------
def restart_daemon(world):
    world.daemon.kill()
    world.start_daemon()


def restart_writer(world):
    world.writer.kill()
    world.start_writer()
    world.wait_ready()


@pytest.mark.parametrize("restart", [restart_daemon, restart_writer], ids=["daemon", "writer"])
@pytest.mark.parametrize("verb, body", [("confirm", None), ("cancel", None), ("cancel", {})], ids=["confirm", "cancel", "cancel{}"])
def test_a_key_gives_the_same_bytes_after_a_restart(world, restart, verb, body):
    sale = world.sale(stock=3)
    _, order = bought(world, sale)
    key = f"{sale.slug}-{verb}"
    first = act(world, order, verb, body, key)
    assert first.status == 200
    restart(world)
    again = act(world, order, verb, body, key)
    assert (again.status, again.body) == (200, first.body)
    assert_whole(world, sale, put_in=3)


def test_a_first_answer_is_given_again_though_the_order_has_gone_on(world):
    sale = world.sale(stock=2)
    _, order = bought(world, sale)
    first = act(world, order, "confirm", key=f"{sale.slug}-pay")
    done(world, order, "refund")
    assert act(world, order, "confirm", key=f"{sale.slug}-pay").body == first.body
    assert state_of(world, order) == "refunded"
    assert_whole(world, sale, put_in=2, free=2, confirmed=0)
    restart_daemon(world)
    assert act(world, order, "confirm", key=f"{sale.slug}-pay").body == first.body
    assert_whole(world, sale, put_in=2, free=2, confirmed=0)


def test_a_key_names_one_request(world):
    sale = world.sale(stock=2)
    (_, one), (_, two) = bought(world, sale), bought(world, sale)
    key = f"{sale.slug}-key"
    done(world, one, "confirm", key=key)
    refused(act(world, two, "confirm", key=key), 422, "key_reused")
    refused(act(world, one, "refund", key=key), 422, "key_reused")
    refused(act(world, one, "confirm", {}, key), 422, "key_reused")
    headers = {"Idempotency-Key": key}
    refused(world.control("POST", f"{sale.path}/stock", {"delta": 1}, headers=headers), 422, "key_reused")
    assert state_of(world, one) == "confirmed" and state_of(world, two) == "held"
    assert_whole(world, sale, put_in=2, free=0, held=1, confirmed=1)


@pytest.mark.parametrize("restart", [lambda world: None, restart_daemon, restart_writer], ids=["at once", "daemon", "writer"])
def test_every_change_of_a_sale_is_made_once_for_a_key(world, restart):
    sale = world.sale(stock=5)

    def send(method, path, body, key):
        return world.control(method, path, body, headers={"Idempotency-Key": f"{sale.slug}-{key}"})
    requests = [("POST", f"{sale.path}/stock", {"delta": 3}, "in"), ("POST", f"{sale.path}/stock", {"delta": -9}, "out"),
                ("POST", f"{sale.path}/pause", None, "pause"), ("PUT", sale.path, {"per_buyer": 2}, "change"),
                ("PUT", "/v1/lists/deny/198.51.100.77", {"reason": "once"}, "deny"),
                ("DELETE", "/v1/lists/deny/198.51.100.77", None, "allow")]
    first = [send(*request) for request in requests]
    assert [reply.status for reply in first] == [200, 409, 200, 200, 200, 204], list(map(str, first))
    sale.move(4)
    sale.act("resume")
    sale.change(per_buyer=7)
    restart(world)
    again = [send(*request) for request in requests]
    assert [(reply.status, reply.body, reply.headers.get("ETag")) for reply in again] == \
        [(reply.status, reply.body, reply.headers.get("ETag")) for reply in first]
    shown = sale.show()
    assert (shown["stock"], shown["state"], shown["per_buyer"]) == (12, "open", 7)
    assert "198.51.100.77/32" not in str(world.ask("GET", "/v1/lists/deny"))
    sale.assert_books(put_in=12, free=12)


def test_one_key_at_once_from_many_moves_stock_once(world):
    sale = world.sale(stock=5)
    replies = []
    threads = [threading.Thread(target=lambda: replies.append(world.control(
        "POST", f"{sale.path}/stock", {"delta": 3}, headers={"Idempotency-Key": f"{sale.slug}-many"}))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {reply.body for reply in replies} == {replies[0].body} and replies[0].status == 200
    sale.assert_books(put_in=8, free=8)


# --- killed ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("victim", ["daemon", "writer"])
def test_holds_expire_once_though_a_program_is_killed_in_the_middle(world, victim):
    sale = world.sale(stock=200, hold_seconds=2, per_buyer=2)
    tokens = [sale.token(quantity=1 + n % 2) for n in range(60)]
    for token in tokens:
        assert world.order(token).status == 201

    def expired():
        return sum(order["state"] == "expired" for order in sale.orders())
    wait_until(lambda: expired() > 0, "the first holds expire", pause=0.02)
    if victim == "daemon":
        restart_daemon(world)
    else:
        restart_writer(world)
    wait_until(lambda: expired() == 60, "all holds have expired")
    assert units_of_buyers(world, sale) == {}
    assert_whole(world, sale, put_in=200, free=200, held=0)
    assert {world.order(token).json()["state"] for token in tokens} == {"expired"}


def test_changes_are_whole_though_both_programs_are_killed_again_and_again(world):
    """Confirmations, cancellations and refunds under keys, each sent until it has an answer; what was told is so."""
    sale = world.sale(stock=100)
    orders = [bought(world, sale)[1] for _ in range(48)]
    told, stop = {}, threading.Event()

    def change(first):
        for n in range(first, len(orders), 4):
            verb = ("confirm", "cancel")[n % 2]
            while not stop.is_set():
                try:
                    reply = act(world, orders[n], verb, key=f"{sale.slug}-{n}")
                except OSError:
                    time.sleep(0.05)
                    continue
                if reply.status != 503:
                    told[n] = reply
                    break
                time.sleep(0.05)
    threads = [threading.Thread(target=change, args=(first,)) for first in range(4)]
    try:
        for thread in threads:
            thread.start()
        for n in range(4):
            count = len(told)
            wait_until(lambda count=count: len(told) > count or not any(thread.is_alive() for thread in threads),
                       "an answer")
            if n % 2:
                world.daemon.kill()
                world.start_daemon()
            else:
                world.writer.kill()
                world.start_writer()
        for thread in threads:
            thread.join(60)
    finally:
        stop.set()
    assert {reply.status for reply in told.values()} == {200} and len(told) == len(orders)
    world.wait_ready()
    for n, reply in told.items():
        assert act(world, orders[n], ("confirm", "cancel")[n % 2], key=f"{sale.slug}-{n}").body == reply.body
        assert state_of(world, orders[n]) == ("confirmed", "cancelled")[n % 2]
    assert_whole(world, sale, put_in=100, free=76, held=0, confirmed=24)


class FailingStore:
    """Stands between daemon and writer. The first answers (`times`) to questions that have `word` in them never arrive: instead of them comes what a writer
    says whose store has failed in a COMMIT that was made nevertheless. All else goes through.
    """
    HEADER = struct.Struct("<IHHQII")  # userspace/common/wire.h
    ERROR = 255

    def __init__(self, world, word, times=1):
        self.world, self.word, self.times, self.lost = world, word.encode(), times, 0
        self.path = world.dir / "writer.sock"
        self.behind = world.dir / "writer.behind"

    def __enter__(self):
        self.path.rename(self.behind)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        restart_daemon(self.world)
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.path.unlink()
        self.behind.rename(self.path)
        restart_daemon(self.world)

    def _accept(self):
        while True:
            try:
                daemon, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(daemon,), daemon=True).start()

    def _serve(self, daemon):
        with contextlib.suppress(OSError), daemon, socket.socket(socket.AF_UNIX) as writer:
            writer.connect(str(self.behind))
            while question := self._frame(daemon):
                writer.sendall(b"".join(question))
                answer = self._frame(writer)
                if not answer:
                    return
                if self.word in question[1] and self.lost < self.times:
                    self.lost += 1
                    body = b'{"code":"store_error","detail":"cannot commit: the connection was lost"}'
                    header = list(self.HEADER.unpack(answer[0]))
                    header[2], header[4] = self.ERROR, len(body)
                    answer = self.HEADER.pack(*header), body
                daemon.sendall(b"".join(answer))

    def _frame(self, peer):
        head = peer.recv(self.HEADER.size, socket.MSG_WAITALL)
        if len(head) < self.HEADER.size:
            return None
        length = self.HEADER.unpack(head)[4]
        return head, peer.recv(length, socket.MSG_WAITALL) if length else b""


def test_a_change_that_the_store_made_and_did_not_tell_of_is_made_in_the_gate_too(world):
    """Else the unit of the late payment would be for sale, and that of the cancelled order for nobody."""
    late, left = world.sale(stock=1, hold_seconds=1), world.sale(stock=1)
    (_, paid), (_, cancelled) = bought(world, late), bought(world, left)
    wait_state(world, paid, "expired")
    with FailingStore(world, '"confirm"') as store:
        assert done(world, paid, "confirm")["state"] == "confirmed"
        assert store.lost == 1
        world.wait_ready()
        assert_whole(world, late, put_in=1, free=0, held=0, confirmed=1)
    with FailingStore(world, '"cancel"') as store:
        assert done(world, cancelled, "cancel")["state"] == "cancelled"
        assert store.lost == 1
        world.wait_ready()
        assert_whole(world, left, put_in=1, free=1, held=0)


def test_stock_that_the_store_moved_and_did_not_tell_of_is_moved_in_the_gate_once(world):
    sale = world.sale(stock=10)
    with FailingStore(world, '"stock_move"') as store:
        assert sale.move(-4)["put_in"] == 6
        assert store.lost == 1
        world.wait_ready()
        assert_whole(world, sale, put_in=6, free=6)


def test_a_sale_that_the_store_fails_at_keeps_no_other_from_being_announced(world):
    def announced(sale):
        return world.ledger_query(f"SELECT type FROM events WHERE sale = {sale.id} AND type = 'sale.opened'")

    failing, fine = world.sale(opens_in=3600, ends_in=7200), world.sale(opens_in=3600, ends_in=7200)
    with FailingStore(world, f'"sale_event","sale":{failing.id},', times=10**9) as store:
        for sale in (failing, fine):
            sale.change(opens_at=rfc3339(time.time() - 1))
        wait_until(lambda: store.lost and announced(fine), "the other sale is announced")
    wait_until(lambda: announced(failing), "it is, too")


def test_the_times_of_an_order_are_told_after_a_restart(world, family):
    sale = world.sale(stock=5, hold_seconds=300)
    (held, order), (gone, other) = bought(world, sale, family=family), bought(world, sale, family=family)
    done(world, other, "cancel")
    before = [world.order(token, family).json() for token in (held, gone)]
    sale.change(hold_seconds=77)
    restart_daemon(world)
    for ask in (world.order, lambda token, family: world.public("GET", f"/v1/orders/{token}", family=family)):
        answers = [ask(token, family) for token in (held, gone)]
        assert [answer.status for answer in answers] == [200, 200]
        assert [answer.json() for answer in answers] == before
    assert before[0] == order and before[1]["resolved_at"]


def test_a_reboot_brings_live_and_dead_orders_back(world):
    sale = world.sale(stock=20, hold_seconds=1, per_buyer=1)
    buyers = {state: sale.buyer() for state in ("expired", "held", "confirmed", "cancelled", "refunded", "left")}
    pairs = {"expired": bought(world, sale, buyers["expired"])}
    wait_state(world, pairs["expired"][1], "expired")
    sale.change(hold_seconds=600)
    for state in ("held", "confirmed", "cancelled", "refunded", "left"):
        pairs[state] = bought(world, sale, buyers[state])
    done(world, pairs["cancelled"][1], "cancel")
    for state in ("confirmed", "refunded", "left"):
        done(world, pairs[state][1], "confirm")
    done(world, pairs["refunded"][1], "refund")
    done(world, pairs["left"][1], "refund", {"restock": False})
    before = assert_whole(world, sale, put_in=19, free=17, held=1, confirmed=1)

    world.daemon.kill()
    world.writer.kill()
    world.sluice("detach", "veth0", check=False)
    shutil.rmtree(world.pin_dir, ignore_errors=True)
    world.attach()
    world.start_writer()
    world.start_daemon()
    assert assert_whole(world, sale) == before
    for state, (token, order) in pairs.items():
        answer = world.order(token)
        assert answer.status == 200 and answer.json()["id"] == order["id"], answer
        assert answer.json()["state"] == ("refunded" if state == "left" else state)
    for state in ("held", "confirmed"):
        refused(world.control("POST", f"{sale.path}/tokens", {"buyer": buyers[state]}), 409, "already_ordered")
    for state in ("expired", "cancelled", "refunded", "left"):
        bought(world, sale, buyers[state])
    done(world, pairs["held"][1], "confirm")
    refused(act(world, pairs["expired"][1], "confirm"), 409, "hold_expired")
    assert_whole(world, sale, put_in=19, free=13, held=4, confirmed=2)


def test_a_buyers_count_that_a_crash_left_too_high_is_put_right(world):
    """As if the daemon had been killed between the ledger's answer and the gate's word of it."""
    sale = world.sale(stock=5)
    buyer = sale.buyer()
    _, order = bought(world, sale, buyer)
    gone = sale.buyer()
    _, cancelled = bought(world, sale, gone)
    done(world, cancelled, "cancel")
    world.daemon.kill()
    for map_key, value in world.map_dump("buyers"):
        if int.from_bytes(map_key[8:12], "little") == sale.id:
            world.map_write("buyers", map_key, (9).to_bytes(4, "little") + value[4:])
    world.start_daemon()
    assert_whole(world, sale, free=4, held=1)
    done(world, order, "cancel")
    assert units_of_buyers(world, sale) == {}
    for who in (buyer, gone):
        bought(world, sale, who)
    assert_whole(world, sale, free=3, held=2)


# --- lists ------------------------------------------------------------------------------------------------------------------------
def walk(world, query, limit=3):
    found, after = [], ""
    while True:
        page = world.ask("GET", f"/v1/orders?limit={limit}&{query}{after}")
        assert len(page["orders"]) <= limit
        found += page["orders"]
        if page["next"] is None:
            return found
        after = f"&after={page['next']}"


def test_orders_are_found_by_sale_state_buyer_and_time(world):
    sale = world.sale(stock=20, per_buyer=3)
    buyer = sale.buyer()
    orders = [bought(world, sale, buyer if n % 3 == 0 else None)[1] for n in range(9)]
    for order in orders[::2]:
        done(world, order, "confirm")
    every = walk(world, f"sale={sale.slug}")
    assert [order["id"] for order in every] == [order["id"] for order in orders]
    assert [order["id"] for order in walk(world, f"sale={sale.slug}&state=held")] == [order["id"] for order in orders[1::2]]
    mine = walk(world, f"sale={sale.slug}&buyer={every[0]['buyer']}")
    assert [order["id"] for order in mine] == [order["id"] for order in orders[::3]]
    assert walk(world, "buyer_reference=" + urllib.parse.quote(buyer)) == mine
    assert walk(world, f"sale={sale.slug}&buyer={'0' * 16}") == []
    cut = every[4]["committed_at"]
    early = walk(world, f"sale={sale.slug}&to={cut}")
    late = walk(world, f"sale={sale.slug}&from={cut}")
    assert early + late == every and all(order["committed_at"] < cut for order in early)
    for query, field in (("state=lost", "state"), ("buyer=7", "buyer"), ("from=yesterday", "from"), ("limit=0", "limit"),
                         ("buyer=" + "0" * 16 + "&buyer_reference=a", "buyer_reference")):
        assert refused(world.control("GET", f"/v1/orders?{query}"), 422, "out_of_range")["field"] == field
    assert refused(world.control("GET", "/v1/orders?sate=held"), 400, "unknown_field")["field"] == "sate"
    refused(world.control("GET", "/v1/orders?sale=none"), 404, "unknown_sale")


def test_an_export_has_every_order_in_both_forms(world):
    sale = world.sale(stock=2000)
    orders = [bought(world, sale)[1] for _ in range(25)]
    done(world, orders[3], "cancel")
    listed = sale.orders()
    reply = world.control("GET", f"/v1/orders/export?sale={sale.slug}")
    assert reply.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(reply.body.decode(), newline="")))
    assert len(rows) == 25 and reply.body.count(b"\r\n") == 26
    for row, order in zip(rows, listed):
        assert set(row) == set(order)
        for name, value in order.items():
            text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            assert row[name] == text, name
    reply = world.control("GET", f"/v1/orders/export?sale={sale.slug}&format=jsonl")
    assert [json.loads(line) for line in reply.body.splitlines()] == listed
    reply = world.control("GET", f"/v1/orders/export?sale={sale.slug}&state=cancelled&format=jsonl")
    assert [json.loads(line)["id"] for line in reply.body.splitlines()] == [orders[3]["id"]]
    assert refused(world.control("GET", "/v1/orders/export?format=xml"), 422, "out_of_range")["field"] == "format"
    assert refused(world.control("GET", "/v1/orders/export?after=3"), 400, "unknown_field")["field"] == "after"


def test_the_metrics_count_orders_by_state(world):
    sale = world.sale(stock=9)
    orders = [bought(world, sale)[1] for _ in range(4)]
    done(world, orders[0], "confirm")
    done(world, orders[1], "confirm")
    done(world, orders[1], "refund")
    done(world, orders[2], "cancel")
    wanted = {"refused": 0, "held": 1, "expired": 0, "confirmed": 1, "cancelled": 1, "refunded": 1}

    def counted():
        text = world.control("GET", "/metrics").body.decode()
        lines = [line for line in text.splitlines() if line.startswith(f'sluice_orders{{sale="{sale.slug}"')]
        return {line.split('state="')[1].split('"')[0]: int(line.split()[-1]) for line in lines}
    assert counted() == wanted
    restart_daemon(world)
    assert counted() == wanted


# --- the writer's pace ---------------------------------------------------------------------------------------------------------------
def test_a_pace_above_what_the_writer_drains_is_warned_of(world):
    sale = world.sale(stock=300)
    tokens = [sale.token() for _ in range(100)]
    # A writer that stands still for a moment gets what has gathered as one batch.
    os.kill(world.writer.pid, signal.SIGSTOP)
    connections = []
    try:
        for token in tokens:
            connections.append(world.connect())
            connections[-1].send(talk.request("POST", f"/v1/orders/{token}", [("Connection", "close")]))
    finally:
        os.kill(world.writer.pid, signal.SIGCONT)
    answers = [connection.receive() for connection in connections]
    for connection in connections:
        connection.close()
    assert {answer.status for answer in answers} <= {201, 202, 503}
    for token in tokens:
        wait_until(lambda token=token: world.order(token).status in (200, 201), "every order is durable")
    writer = world.status()["writer"]
    assert writer["drain_per_second"] > 0 and writer["commit_us"] > 0
    assert "sluice_writer_drain_orders_per_second" in world.control("GET", "/metrics").body.decode()
    assert "warning" not in sale.change(pace_per_second=1)
    assert "warning" not in sale.show()
    assert "drains" in sale.change(pace_per_second=1000000000)["warning"]
    sale.act("pause")
    assert "drains" in sale.act("resume")["warning"]
    assert "warning" not in sale.change(pace_per_second=0), "no pace is no promise"


def test_what_the_writer_drains_is_known_before_there_is_a_load(world):
    """An earlier daemon found it out and kept it in the ledger."""
    sale = world.sale(stock=3)
    assert world.daemon.terminate() == 0 and world.writer.terminate() == 0
    run(["sqlite3", world.ledger, "INSERT OR REPLACE INTO documents VALUES ('writer.drain', '4321', 1)"])
    world.start_writer()
    world.start_daemon()
    assert world.status()["writer"]["drain_per_second"] == 4321
    assert "4321" in sale.change(pace_per_second=4322)["warning"]
    assert "warning" not in sale.change(pace_per_second=4321)
    shown = world.cli("sale", "set", sale.slug, "--pace", "5000")
    assert "drains" in shown.stderr
