# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""One of many nodes, and buyers with another one's tokens: the gate sends them home, with an address, and the other door says the same.

The fleet here is a list of nodes in the config, without a coordinator: that is all that the gate needs. The nodes that tokens are sent to do not exist.
"""
import signal

import pytest

import talk
from netns import wait_until
from test_refusals import assert_complete
from tokens import Token, damaged
from world import SHOP, World

OWN, OTHER, THIRD, UNLISTED = 1, 2, 3, 77
URLS = {OWN: f"http://{SHOP['ipv4']}:8080", OTHER: "https://shop2.example", THIRD: "http://[fd71::9]:8080"}
NODES = [{"id": node, "url": url} for node, url in URLS.items()]
NODE_AT = 88  # include/sluice/abi.h: struct sluice_control


@pytest.fixture(scope="module")
def node():
    with World(settings={"fleet.node": OWN, "nodes": NODES}) as world:
        yield world


def number_in_gate(world):
    (_, control), = world.map_dump("control")
    return int.from_bytes(control[NODE_AT:NODE_AT + 4], "little")


def order_at_gate(world, token, family="ipv4"):
    """By curl, whose request is long enough for the whole answer: on this link a frame grows by no more than its head room."""
    curl = world.curl_order(token, family=family)
    assert curl.returncode == 0, curl.stderr
    return curl.answer


def assert_sent_home(answer, token, to):
    assert_complete(answer, 421, "Misdirected Request", "wrong_node", False)
    assert answer.header("location") == (f"{URLS[to]}/v1/orders/{token}" if to else None)


@pytest.mark.parametrize("to", [OTHER, THIRD])
def test_a_token_of_another_node_is_sent_home_by_the_gate(node, family, to):
    sale = node.sale()
    token = sale.signed(node=to)
    before, judged = node.packets("wrong_node"), node.calls("wrong_node")
    curl = node.curl_order(token, family=family)
    assert curl.returncode == 0, curl.stderr
    assert_sent_home(curl.answer, token, to)
    # No socket was made of it on either side, so the daemon has never heard of it.
    assert (node.packets("wrong_node"), node.calls("wrong_node")) == (before + 1, judged)
    node.assert_no_socket(curl.local_port)
    sale.assert_books(free=10, held=0)


def test_a_token_of_this_node_is_admitted_here(node, family):
    sale = node.sale()
    token = sale.token()
    assert Token.read(token).node == OWN
    assert node.order(token, family).status == 201
    assert node.order(token, family).status == 200
    sale.assert_books(free=9, held=1)


@pytest.mark.parametrize("to", [OTHER, UNLISTED])
def test_the_call_door_says_the_same(node, family, to):
    token = node.sale().signed(node=to)
    by_gate = order_at_gate(node, token, family)
    judged = node.calls("wrong_node")
    by_door = node.order_by_call_door(token, family)
    assert node.calls("wrong_node") == judged + 1, "the call door did not judge it"
    assert_sent_home(by_door, token, to if to in URLS else None)
    assert by_door.body == by_gate.body
    others = {name.lower(): value.lower() for name, value in by_door.headers if name.lower() != "date"}
    assert others == {name.lower(): value.lower() for name, value in by_gate.headers}


def test_a_request_in_two_parts_is_sent_home_too(node, family):
    """The token is cut in the middle: XDP cannot read it, the daemon can."""
    token = node.sale().signed(node=OTHER)
    data = talk.request("POST", f"/v1/orders/{token}", [("Connection", "close")])
    before = node.packets("request_unread")
    with node.history.buyer("POST", f"/v1/orders/{token}") as record, node.connect(family) as record.connection:
        record.connection.send_in_pieces(data, [50, len(data) - 50], pause=0.05)
        record.answer = record.connection.receive_only()
    assert node.packets("request_unread") == before + 1
    assert_sent_home(record.answer, token, OTHER)


@pytest.mark.parametrize("to", [OTHER, UNLISTED])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_who_asks_for_an_order_at_the_wrong_node_is_sent_home(node, family, method, to):
    token = node.sale().signed(node=to)
    assert_sent_home(node.public(method, f"/v1/orders/{token}", family=family), token, to if to in URLS else None)


@pytest.mark.parametrize("to", [0, UNLISTED, 255, 256, 0xffffffff])
def test_a_node_that_the_config_does_not_list_has_no_address(node, family, to):
    token = node.sale().signed(node=to)
    assert_sent_home(order_at_gate(node, token, family), token, None)


def test_a_short_request_hears_the_address_all_the_same(node, family):
    """Its frame has no room for a body."""
    token = node.sale().signed(node=OTHER)

    def from_gate():
        answer = node.order(token, family)
        assert (answer.status, answer.title) == (421, "Misdirected Request")
        return not answer.body and answer
    # One that was sent twice, on a machine that is busy, is judged behind a socket, which has room.
    answer = wait_until(from_gate, "one is answered by the gate")
    assert answer.header("location") == f"{URLS[OTHER]}/v1/orders/{token}"


def test_nothing_but_the_signature_of_such_a_token_is_looked_at(node, family):
    sale = node.sale()
    token = Token.read(sale.token())
    keys = node.signing_keys()
    for changes in ({"sale": 4_000_000_001}, {"issued_at": 1_000_000_000, "expires_at": 1_000_003_600}, {"quantity": 100}):
        text = token.signed(keys, node=OTHER, **changes)
        assert_sent_home(order_at_gate(node, text, family), text, OTHER)
    forged = damaged(token.signed(keys, node=OTHER))
    assert node.order(forged, family).code() == "token_invalid"
    sale.act("end")
    text = token.signed(keys, node=OTHER)
    assert_sent_home(order_at_gate(node, text, family), text, OTHER)


def test_the_operators_answer_carries_the_address(node, family):
    token = node.sale().signed(node=OTHER)
    node.ask("PUT", "/v1/answers/wrong_node", {"body": "<p>The other counter, please.</p>", "content_type": "text/html"})
    node.ask("PUT", "/v1/answers", {"cors_origin": "https://page.example"})
    try:
        for answer in (order_at_gate(node, token, family), node.order_by_call_door(token, family)):
            assert (answer.status, answer.body) == (421, b"<p>The other counter, please.</p>")
            assert answer.header("location") == f"{URLS[OTHER]}/v1/orders/{token}"
            assert answer.header("access-control-allow-origin") == "https://page.example"
            assert answer.header("access-control-expose-headers") == "Location"
        shown = node.ask("GET", "/v1/answers/wrong_node")
        assert shown["source"] == "operator" and "Location" not in shown["http"]
        # One that fits by itself, and not with the address, changes nothing.
        long = node.control("PUT", "/v1/answers/wrong_node", {"body": "x" * 780, "content_type": "text/plain"})
        assert (long.status, long.code()) == (422, "answer_too_long")
        assert long.json()["answer"] == "wrong_node" and long.json()["size"] > 1000
        own = node.control("PUT", "/v1/answers/wrong_node", {"body": "", "headers": {"Location": "https://evil.example/"}})
        assert own.status == 422, own
        assert node.order(token, family).header("location") == f"{URLS[OTHER]}/v1/orders/{token}"
    finally:
        node.ask("DELETE", "/v1/answers/wrong_node")
        node.ask("PUT", "/v1/answers", {"cors_origin": None})
    assert_sent_home(order_at_gate(node, token, family), token, OTHER)


def test_the_gate_sends_them_home_while_its_daemon_hangs(node, family):
    sale = node.sale(opens_in=600)  # so that no order waits for the daemon
    token, own = sale.signed(node=OTHER), sale.token()
    node.daemon.popen.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: order_at_gate(node, own, family).code() == "unavailable", "the gate takes the daemon for dead")
        assert_sent_home(order_at_gate(node, token, family), token, OTHER)
    finally:
        node.daemon.popen.send_signal(signal.SIGCONT)
    wait_until(lambda: order_at_gate(node, own, family).code() == "sale_not_open", "the daemon is back")


def restart(world, **settings):
    """The daemon, with another config. A setting of None is one that is left out."""
    world.daemon.stop()
    for key, value in settings.items():
        name = key.replace("__", ".")
        world.settings.pop(name, None)
        if value is not None:
            world.settings[name] = value
    world.write_config()
    world.start_daemon()


def test_a_restart_of_the_daemon_is_enough_for_another_config():
    with World() as world:
        sale = world.sale(per_buyer=2)
        assert number_in_gate(world) == 0
        first = sale.token()
        assert Token.read(first).node == 1, "a shop that is alone is node 1"
        foreign = sale.signed(sale.token(), node=OTHER)
        assert world.order(foreign).status == 201, "it belongs to no fleet, so tokens of every node are its own"
        # It joins a fleet as its second node.
        restart(world, fleet__node=OTHER, nodes=NODES)
        assert number_in_gate(world) == OTHER
        assert Token.read(sale.token()).node == OTHER
        assert_sent_home(order_at_gate(world, first), first, OWN)
        assert world.order(foreign).status == 200
        # Its number changes, and the others move: what it has in its books stays here.
        moved = {**URLS, OWN: "https://shop-one.example"}
        restart(world, fleet__node=THIRD, nodes=[{"id": number, "url": url} for number, url in moved.items()])
        assert number_in_gate(world) == THIRD
        assert world.order(foreign).status == 200, "a yes is never taken back"
        assert world.public("GET", f"/v1/orders/{foreign}").status == 200
        assert world.order(first).header("location") == f"https://shop-one.example/v1/orders/{first}"
        # A number that is in no list is none; and without a list there is no fleet.
        restart(world, fleet__node=99)
        assert number_in_gate(world) == 0
        restart(world, fleet__node=None, nodes=None)
        assert number_in_gate(world) == 0
        assert world.order(first).status == 201
        sale.assert_books(held=2)
