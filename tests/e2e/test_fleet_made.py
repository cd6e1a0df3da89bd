# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""A sale whose making was cut short: somebody asked and never heard, or Redis lost it before a ledger had it. It can be made again, and nothing is leased of it
before every node has told what it holds."""
import concurrent.futures
import contextlib
import datetime
import os
import signal

import pytest

from fleet import Fleet
from netns import wait_until

STOCK = 40
AT_ONCE = 5


@pytest.fixture(scope="module")
def fleet():
    with Fleet(count=2, start=False) as two:
        yield two


def body(stock=STOCK):
    now = datetime.datetime.now(datetime.timezone.utc)
    return {"stock": stock, "opens_at": (now - datetime.timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "ends_at": (now + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")}


@contextlib.contextmanager
def no_ledger_writes(*nodes):
    with contextlib.ExitStack() as going_on:
        for node in nodes:
            os.kill(node.writer.pid, signal.SIGSTOP)
            going_on.callback(os.kill, node.writer.pid, signal.SIGCONT)
        yield


def only(fleet, number):
    """That node runs, and the other one does not."""
    for node in fleet.nodes:
        if node in fleet.living() and node.number != number:
            node.kill()
        elif node not in fleet.living() and node.number == number:
            node.start()


def test_what_somebody_else_began_to_make_is_leased_when_all_nodes_have_told(fleet):
    only(fleet, 1)
    path = "/v1/sales/begun"
    # Its number was given, and what became of it then nobody here knows.
    fleet.hub.call("HSET", f"{fleet[1].settings['fleet.prefix']}:{{fleet}}:settings", "sale:begun", "16777300")
    reply = fleet[1].control("PUT", path, body())
    assert reply.status == 201, reply
    made = reply.json()["fleet"]
    assert (made["total"], made["state"], made["missing"]) == (STOCK, "settling", [2])
    fleet[2].start()
    for node in fleet.nodes:
        wait_until(lambda node=node: node.control("GET", path).status == 200 and node.ask("GET", path)["fleet"]["state"] == "open", "it is leased", pause=0.05)
    fleet.verify()


def test_a_sale_that_redis_lost_before_a_ledger_knew_its_stock_is_made_again(fleet):
    path, words = "/v1/sales/lost", body()
    only(fleet, 1)
    fleet[1].ask("PUT", path, words)
    fleet[1].kill()
    fleet.hub.call("DEL", fleet.key("lost", "stock"))
    # Node 2 hears of the sale, and has never heard of its units. The only ledger that has is away, as if it had not had the time.
    fleet[2].start()
    wait_until(lambda: fleet[2].control("GET", path).status == 200, "node 2 knows the sale")
    refused = fleet[2].control("POST", f"{path}/stock", {"delta": 1})
    assert (refused.status, refused.code()) == (503, "fleet_away")
    assert "make it again" in refused.json()["detail"]
    again = fleet[2].control("PUT", path, words)
    assert again.status == 200, again
    made = again.json()["fleet"]
    assert (made["total"], made["state"], made["missing"]) == (STOCK, "settling", [1])
    fleet[1].start()
    for node in fleet.nodes:
        wait_until(lambda node=node: node.ask("GET", path)["fleet"]["state"] == "open", "it is leased", pause=0.05)
    # Two creations of as many units are one sale. Who is told that one was lost might make it again, on top.
    assert [node.number for node in fleet.nodes if "made apart" in node.daemon.log()] == []
    assert fleet[2].ask("POST", f"{path}/stock", {"delta": 1})["fleet"]["total"] == STOCK + 1
    fleet.verify()


def all_run(fleet):
    for node in fleet.nodes:
        if node not in fleet.living():
            node.start()


def test_the_same_creation_at_another_node_at_once_is_not_called_another_one(fleet):
    """However little that node has heard yet: it may ask for patience, and says never that the stock was moved."""
    all_run(fleet)
    words, answers = body(), []

    def made():
        answers.append(fleet[2].control("PUT", path, words))
        return answers[-1].status in (200, 201)
    for number in range(AT_ONCE):
        path = f"/v1/sales/at-once-{number}"
        fleet[1].ask("PUT", path, words)
        wait_until(made, "node 2 has it too", pause=0)
        assert answers[-1].json()["stock"] == STOCK
    assert {answer.status for answer in answers} <= {200, 201, 503}, answers


def assert_is_in_no_ledger(reply):
    assert (reply.status, reply.code(), reply.headers["Retry-After"]) == (503, "fleet_away", "1"), reply
    assert "in no ledger yet" in reply.json()["detail"]


def test_a_sale_is_not_called_made_before_a_ledger_has_its_stock(fleet):
    """Neither when it is made nor when it is made again: what Redis alone has may be gone in the next moment."""
    path, words, key = "/v1/sales/unkept", body(), fleet.key("unkept", "stock")
    all_run(fleet)
    with concurrent.futures.ThreadPoolExecutor(1) as caller:
        with no_ledger_writes(fleet[1]):
            making = caller.submit(fleet[1].control, "PUT", path, words)
            wait_until(lambda: fleet.hub.call("EXISTS", key), "Redis has it")
            fleet.hub.call("DEL", key)
        assert_is_in_no_ledger(making.result())
    for node in fleet.nodes:
        wait_until(lambda node=node: node.control("GET", path).status == 200, "it is known, without stock")
        assert node.ask("GET", path)["fleet"]["total"] == 0
    with no_ledger_writes(*fleet.nodes):
        assert_is_in_no_ledger(fleet[1].control("PUT", path, words))
        assert fleet.stock("unkept")["total"] == STOCK
    assert fleet[1].ask("PUT", path, words)["fleet"]["total"] == STOCK
    # Now it outlasts what Redis loses.
    fleet.hub.call("DEL", key)
    wait_until(lambda: fleet.stock("unkept").get("state") == "open", "all nodes have told")
    assert fleet.stock("unkept")["total"] == STOCK
    for node in fleet.nodes:
        wait_until(lambda node=node: node.ask("GET", path)["fleet"]["state"] == "open", "it is leased", pause=0.05)
    fleet.verify()


def test_what_a_ledger_makes_when_nobody_waits_for_it_any_more_reaches_all(fleet):
    """A request waits five seconds for its ledger. That is no reason for the other node never to hear of the sale."""
    path, words = "/v1/sales/late", body()
    all_run(fleet)
    with no_ledger_writes(fleet[1]):
        late = fleet[1].control("PUT", path, words)
        assert (late.status, late.code()) == (503, "writer_away") and "may still take effect" in late.json()["detail"], late
        other = fleet[1].control("POST", "/v1/sales/lost/pause")
        assert (other.status, other.code()) == (503, "writer_away") and "an earlier change" in other.json()["detail"], other
    for node in fleet.nodes:
        wait_until(lambda node=node: node.control("GET", path).status == 200 and node.ask("GET", path)["fleet"]["state"] == "open", "it is leased", pause=0.05)
        assert node.ask("GET", path)["fleet"]["total"] == STOCK
    assert "not_replicated" not in fleet[1].ask("PUT", path, words)
    fleet.verify()
