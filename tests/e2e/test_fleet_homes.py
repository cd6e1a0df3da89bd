# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""One buyer has one home in a fleet, however he asks and whatever becomes of Redis; and all nodes change their keys without refusing a token."""
import collections
import concurrent.futures
import threading
import time
import urllib.parse

import pytest

from fleet import Fleet, until
from netns import wait_until
from tokens import Token

NODES = (1, 2)
GIVEN = (200, 201)


@pytest.fixture(name="fleet")
def make_fleet():
    with Fleet(count=len(NODES)) as fleet:
        yield fleet


def ask(fleet, node, sale, buyer):
    return fleet[node].public("POST", f"{sale.path}/tokens", {"buyer": buyer})


def ask_until_said(fleet, node, sale, buyer):
    """As often as it takes to hear where the buyer is at home."""
    return wait_until(lambda: (answer := ask(fleet, node, sale, buyer)).status != 503 and answer, f"node {node} says where {buyer} is at home")


def order(fleet, node, token):
    """As often as it takes for units to come to that node."""
    return wait_until(lambda: (answer := fleet[node].order(token)).status != 503 and answer, f"node {node} has units")


def node_of(fleet, answer):
    """The node that an answer leads to: the token's, or that of Location."""
    if answer.status in GIVEN:
        return Token.read(answer.json()["token"]).node
    assert answer.status == 421 and answer.json()["code"] == "wrong_node", answer
    url = urllib.parse.urlsplit(dict(answer.headers)["Location"])
    return next(node.number for node in fleet.nodes if node.url == f"{url.scheme}://{url.netloc}")


def follow(fleet, method, answer, body=None):
    """What a client does with a 421: the same again, at Location. (No client does so by itself.)"""
    path = urllib.parse.urlsplit(dict(answer.headers)["Location"]).path
    return fleet[node_of(fleet, answer)].public(method, path, body)


def homes_in_redis(fleet, sale):
    flat = fleet.hub.call("HGETALL", fleet.key(sale, "homes"))
    return {field: int(home) for field, home in zip(flat[::2], flat[1::2]) if not field.startswith(".")}


# --- homes --------------------------------------------------------------------------------------------------------------------
def test_a_buyer_who_hammers_all_nodes_at_once_has_one_home(fleet):
    sale = fleet.sale(stock=100)
    buyers = [f"hammer-{n}" for n in range(10)]
    start = threading.Barrier(50)

    def hammer(n):
        heard = []
        start.wait()
        for buyer in buyers[n % 10:] + buyers[:n % 10]:
            answer = ask_until_said(fleet, NODES[n % len(NODES)], sale, buyer)
            heard.append((buyer, node_of(fleet, answer), answer.json().get("token")))
        return heard

    with concurrent.futures.ThreadPoolExecutor(50) as threads:
        heard = [entry for result in threads.map(hammer, range(50)) for entry in result]
    homes, tokens = collections.defaultdict(set), collections.defaultdict(set)
    for buyer, home, token in heard:
        homes[buyer].add(home)
        tokens[buyer] |= {token} - {None}
    assert len(homes) == len(buyers) and all(len(found) == 1 for found in homes.values()), homes
    assert all(len(found) == 1 for found in tokens.values()), "a buyer got two tokens"
    assert sorted(homes_in_redis(fleet, sale).values()) == sorted(home for found in homes.values() for home in found)


def test_a_buyer_elsewhere_is_sent_home_and_gets_his_token_and_his_order_there(fleet):
    sale = fleet.sale(stock=10)
    body = {"buyer": "walker"}
    at_home = ask_until_said(fleet, 1, sale, "walker")
    assert at_home.status == 201
    token = at_home.json()["token"]
    away = fleet[2].public("POST", f"{sale.path}/tokens", body)
    assert dict(away.headers)["Location"] == f"{fleet[1].url}{sale.path}/tokens"
    again = follow(fleet, "POST", away, body)
    assert (again.status, again.json()["token"]) == (200, token)
    by_shop = fleet[2].control("POST", f"{sale.path}/tokens", body)
    assert (by_shop.status, by_shop.code()) == (421, "wrong_node"), by_shop
    revoked = fleet[2].control("POST", "/v1/tokens/revoke", {"token": token})  # it would stay good where it is judged
    assert (revoked.status, revoked.code()) == (421, "wrong_node"), revoked
    # As long as a browser's request: a short one gets a short answer from the gate, where a frame cannot grow.
    refused = fleet[2].public("POST", f"/v1/orders/{token}", headers=[("User-Agent", "Mozilla/5.0 " * 50)])
    assert dict(refused.headers).get("Location") == f"{fleet[1].url}/v1/orders/{token}", refused
    ordered = wait_until(lambda: (answer := follow(fleet, "POST", refused)).status != 503 and answer, "units have come to node 1")
    assert ordered.status == 201, ordered


def test_a_buyers_limit_holds_over_all_nodes(fleet):
    sale = fleet.sale(stock=20, per_buyer=2)
    for _ in range(2):
        token = ask_until_said(fleet, 1, sale, "greedy").json()["token"]
        assert order(fleet, 1, token).status == 201
    assert ask(fleet, 1, sale, "greedy").json()["code"] == "already_ordered"
    away = ask(fleet, 2, sale, "greedy")
    assert node_of(fleet, away) == 1
    assert follow(fleet, "POST", away, {"buyer": "greedy"}).json()["code"] == "already_ordered"


def test_without_redis_a_buyer_gets_his_token_again_and_nobody_a_new_one(fleet):
    sale = fleet.sale(stock=10)
    token = ask_until_said(fleet, 1, sale, "early").json()["token"]
    with fleet.history.harm("redis"):
        fleet.hub.server.pause()
        try:
            again = ask(fleet, 1, sale, "early")
            assert (again.status, again.json()["token"]) == (200, token)
            for node in NODES:
                late = ask(fleet, node, sale, "late")
                assert (late.status, late.json()["code"]) == (503, "unavailable"), late
                assert int(dict(late.headers)["Retry-After"]) > 0
                by_shop = fleet[node].control("POST", f"{sale.path}/tokens", {"buyer": "late"})
                assert (by_shop.status, by_shop.code()) == (503, "unavailable"), by_shop
            assert "late" not in "".join(node.daemon.log() for node in fleet.nodes)
        finally:
            fleet.hub.server.resume()
        # What Redis was asked before it stopped it may have done afterwards: then the home is where nobody heard of it.
        home = node_of(fleet, ask_until_said(fleet, 2, sale, "late"))
    assert node_of(fleet, ask_until_said(fleet, 1, sale, "late")) == home
    assert ask(fleet, home, sale, "late").status in GIVEN


def test_a_redis_that_has_lost_everything_gives_nobody_a_second_home(fleet):
    sale = fleet.sale(stock=100)
    known = {}
    for n in range(30):
        node = NODES[n % len(NODES)]
        assert ask_until_said(fleet, node, sale, f"kept-{n}").status == 201
        known[f"kept-{n}"] = node
    ordered = ask_until_said(fleet, 1, sale, "ordered").json()["token"]
    assert order(fleet, 1, ordered).status == 201
    stop = threading.Event()
    seen = collections.defaultdict(set)

    def restless(n):
        turn = 0
        while not stop.is_set():
            turn += 1
            buyer, node = f"new-{n}-{turn}", NODES[turn % len(NODES)]
            for where in (node, NODES[(turn + 1) % len(NODES)]):
                answer = ask(fleet, where, sale, buyer)
                if answer.status != 503:
                    seen[buyer].add(node_of(fleet, answer))

    with fleet.history.harm("redis"), concurrent.futures.ThreadPoolExecutor(4) as threads:
        running = [threads.submit(restless, n) for n in range(4)]
        for _ in range(4):
            time.sleep(0.3)
            fleet.hub.flush()
            for buyer, home in known.items():
                other = NODES[home % len(NODES)]
                answer = ask(fleet, other, sale, buyer)
                assert answer.status == 503 or node_of(fleet, answer) == home, (buyer, home, answer)
        stop.set()
        for one in running:
            one.result()
    took = until(lambda: ask(fleet, 2, sale, "afterwards").status in GIVEN, "new buyers get homes again")
    print(f"{took:.2f} s until new buyers got tokens again; {len(seen)} came meanwhile")
    assert seen and all(len(found) == 1 for found in seen.values()), {buyer: found for buyer, found in seen.items() if len(found) > 1}
    for buyer, home in known.items():
        assert node_of(fleet, ask_until_said(fleet, 2, sale, buyer)) == home
    assert node_of(fleet, ask_until_said(fleet, 2, sale, "ordered")) == 1
    assert len(homes_in_redis(fleet, sale)) >= len(known) + 1


def test_new_buyers_wait_for_a_node_that_has_not_told_whom_it_knows(fleet):
    sale = fleet.sale(stock=10)
    assert ask_until_said(fleet, 1, sale, "his").status == 201
    assert ask_until_said(fleet, 2, sale, "hers").status == 201
    fleet[1].daemon.terminate()
    fleet.hub.flush()
    for _ in range(10):
        for buyer in ("his", "nobody's"):
            assert ask(fleet, 2, sale, buyer).status == 503
        time.sleep(0.1)
    assert ask(fleet, 2, sale, "hers").status == 200
    wait_until(lambda: "before node 1 has told" in fleet[2].daemon.log(), "node 2 says whom it waits for")
    fleet[1].start_daemon()
    assert node_of(fleet, ask_until_said(fleet, 2, sale, "his")) == 1
    assert ask_until_said(fleet, 2, sale, "nobody's").status == 201


def test_a_sale_made_while_a_node_is_down_does_not_wait_for_it(fleet):
    """It cannot have buyers of a sale that it has never spoken of. When it is back it tells before it gives anybody a home."""
    fleet[2].daemon.terminate()
    sale = fleet.sale(stock=10)
    assert ask_until_said(fleet, 1, sale, "early").status == 201
    fleet[2].start_daemon()
    fleet.wait_known(sale)
    assert node_of(fleet, ask_until_said(fleet, 2, sale, "early")) == 1
    assert node_of(fleet, ask_until_said(fleet, 2, sale, "late")) == 2
    assert sorted(homes_in_redis(fleet, sale).values()) == [1, 2]


def test_new_buyers_do_not_wait_for_a_node_that_is_fenced(fleet):
    sale = fleet.sale(stock=10)
    assert ask_until_said(fleet, 2, sale, "hers").status == 201
    fleet[2].daemon.terminate()
    with fleet.history.harm("redis"):
        fleet.hub.flush()
        wait_until(lambda: fleet.stock(sale).get("state") == "settling", "the stock is settling")
    assert ask(fleet, 1, sale, "nobody's").status == 503
    fleet.history.note("fence", sale=sale.slug)
    fleet[1].cli("node", "fence", "2", "--ledger", fleet[2].ledger, "--force")
    assert node_of(fleet, ask_until_said(fleet, 1, sale, "nobody's")) == 1
    fleet[2].start_daemon()
    assert node_of(fleet, ask_until_said(fleet, 2, sale, "nobody's")) == 1


def test_new_buyers_wait_for_a_node_that_was_taken_out_of_the_config(fleet):
    """Redis has lost everything, the stock's members as well: who had buyers is in the ledgers alone."""
    sale, others = fleet.sale(stock=10), [node for node in fleet.nodes if node.number != 2]
    assert ask_until_said(fleet, 2, sale, "hers").status == 201
    fleet.wait_known(sale)
    nodes = fleet[1].settings["nodes"]
    fleet[2].daemon.terminate()

    def know(listed):
        for node in others:
            node.daemon.terminate()
            node.settings["nodes"] = listed
            node.write_config()
            node.start_daemon()
    know([entry for entry in nodes if entry["id"] != 2])
    try:
        for node in others:
            assert ask_until_said(fleet, node.number, sale, f"of {node.number}").status in (200, 201, 421)
        with fleet.history.harm("redis"):
            fleet.hub.flush()
            for _ in range(40):
                fleet.hub.call("DEL", fleet.key(sale, "stock"))  # as if no node had begun it anew
                assert ask(fleet, 1, sale, "hers").status == 503
                time.sleep(0.05)
    finally:
        know(nodes)
        fleet[2].start_daemon()
    assert node_of(fleet, ask_until_said(fleet, 1, sale, "hers")) == 2


# --- keys ---------------------------------------------------------------------------------------------------------------------
def keys_of(fleet, node):
    return fleet[node].ask("GET", "/v1/keys")


def wait_signing(fleet, number):
    wait_until(lambda: all(keys_of(fleet, node)["key_number"] == number and keys_of(fleet, node)["phase"] == "signing" and
                           max(fleet[node].signing_keys()) == number for node in NODES), f"all sign with key {number}")


def test_no_valid_token_is_refused_while_keys_rotate():
    ttl = 3
    with Fleet(count=len(NODES), settings={"daemon.token_ttl_seconds": ttl}) as fleet:
        sale = fleet.sale(stock=20000)
        stop, counts, wrong = threading.Event(), collections.Counter(), []

        def buy(n):
            turn = 0
            while not stop.is_set():
                turn += 1
                given = ask(fleet, NODES[turn % len(NODES)], sale, f"rotating-{n}-{turn}")
                if given.status == 503:
                    continue
                assert given.status in GIVEN, given
                token = given.json()["token"]
                counts[f"key {Token.read(token).key_id}"] += 1
                for node in (NODES[n % len(NODES)], *NODES):
                    answer = fleet[node].order(token)
                    counts[answer.status] += 1
                    if answer.status not in (200, 201, 202, 421, 503):
                        wrong.append((node, token, answer))
                time.sleep(0.02)  # more tokens than this are no better test

        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            running = [threads.submit(buy, n) for n in range(4)]
            try:
                for number in (2, 3, 4):
                    def rotate():
                        reply = fleet[NODES[number % len(NODES)]].control("POST", "/v1/keys/rotate")
                        assert reply.status in (200, 202) or reply.code() == "key_in_use", reply
                        return reply.status in (200, 202)
                    wait_until(rotate, f"the rotation to key {number} may begin", timeout=20, pause=0.3)
                    wait_signing(fleet, number)
                    time.sleep(0.5)
            finally:
                stop.set()
            for one in running:
                one.result()
        print(dict(counts))
        assert not wrong, wrong[:3]
        assert counts[201] and counts[421] and all(counts[f"key {number}"] for number in (1, 2, 3, 4)), counts


def test_a_rotation_is_refused_while_any_node_has_tokens_that_it_would_make_invalid(fleet):
    sale = fleet.sale(stock=10)
    assert ask_until_said(fleet, 2, sale, "long").status == 201
    assert fleet[1].control("POST", "/v1/keys/rotate").status in (200, 202)
    wait_signing(fleet, 2)

    def refused():
        reply = fleet[1].control("POST", "/v1/keys/rotate")
        assert (reply.status, reply.code()) == (409, "key_in_use"), reply
        return "may be valid until 20" in reply.json()["detail"]
    wait_until(refused, "it is said until when")
    assert fleet[1].control("POST", "/v1/keys/rotate", {"force": True}).status in (200, 202)
    wait_signing(fleet, 3)


def test_a_rotation_waits_for_a_node_that_is_down_and_goes_on_when_it_is_back(fleet):
    sale = fleet.sale(stock=10)
    fleet[2].daemon.terminate()
    reply = fleet[1].control("POST", "/v1/keys/rotate")
    assert (reply.status, reply.json()["phase"], reply.json()["waiting_for"]) == (202, "accepting", [2]), reply
    said = fleet[1].cli("key", "rotate", "--wait", "1", check=False)
    assert said.returncode == 1 and "waiting until nodes [2]" in said.stderr, said
    fleet[2].start_daemon()
    wait_signing(fleet, 2)
    token = ask_until_said(fleet, 1, sale, "after").json()["token"]
    assert Token.read(token).key_id == 2
    assert fleet[2].order(token).status == 421


def test_a_node_that_was_left_out_of_a_rotation_takes_part_before_it_opens_orders(fleet):
    sale = fleet.sale(stock=10)
    fleet[2].daemon.terminate()
    assert fleet[1].control("POST", "/v1/keys/rotate", {"without": [2, 2]}).status == 422
    reply = fleet[1].control("POST", "/v1/keys/rotate", {"without": [2]})
    assert (reply.status, reply.json()["key_number"]) == (200, 2), reply
    token = ask_until_said(fleet, 1, sale, "meanwhile").json()["token"]
    with fleet.history.harm("redis"):
        fleet.hub.server.pause()
        fleet[2].start_daemon(ready=False)
        try:
            wait_until(lambda: "orders stay closed until this node knows which keys" in fleet[2].daemon.log(), "orders stay closed")
            wait_until(fleet[2].control_socket.exists, "the control socket")
            ready = fleet[2].control("GET", "/readyz?verbose")
            assert ready.status == 503 and b"keys of the fleet: not known yet" in ready.body, ready
        finally:
            fleet.hub.server.resume()
        fleet[2].wait_ready()
    assert sorted(fleet[2].signing_keys()) == [1, 2]
    assert fleet[2].order(token).status == 421
    assert Token.read(ask_until_said(fleet, 2, sale, "afterwards").json()["token"]).key_id == 2


def test_a_redis_that_has_forgotten_the_keys_learns_them_from_the_nodes(fleet):
    assert fleet[1].control("POST", "/v1/keys/rotate").status in (200, 202)
    wait_signing(fleet, 2)
    with fleet.history.harm("redis"):
        fleet.hub.flush()
        wait_until(lambda: all(node["signs_with"] == 2 for node in keys_of(fleet, 1)["nodes"]), "both have told")
    wait_signing(fleet, 2)


def test_a_node_with_another_secret_says_so_and_sells_nothing(tmp_path):
    other = tmp_path / "other.secret"
    other.touch(mode=0o600)
    other.write_text("a7" * 32 + "\n", encoding="ascii")
    with Fleet(count=len(NODES), of_node={2: {"fleet.secret_file": other}}, start=False) as fleet:
        fleet[1].start()
        fleet[2].start(ready=False)
        wait_until(lambda: "this node's secret is not that of its fleet" in fleet[2].daemon.log(), "it says so")
        ready = fleet[2].control("GET", "/readyz?verbose")
        assert ready.status == 503 and b"[-] keys of the fleet: this node has another secret" in ready.body, ready
        assert not fleet[2].status()["orders_open"] and fleet[1].status()["orders_open"]
        keys = fleet[2].control("GET", "/v1/keys")
        assert (keys.status, keys.code()) == (409, "other_secret"), keys
        assert "a7a7" not in fleet[2].daemon.log()
        fleet[2].daemon.terminate()
        # Redis forgets, and the wrong one is there first: those who have agreed before are not put off.
        fleet[1].daemon.terminate()
        fleet.hub.flush()
        fleet[2].start_daemon(ready=False)
        wait_until(lambda: fleet[2].is_ready(), "alone in an empty Redis it is the fleet")
        fleet[1].start_daemon()
        wait_until(lambda: fleet[1].is_ready(), "node 1 is not put off")
        wait_until(lambda: "another node of this fleet has another secret" in fleet[1].daemon.log(), "and says what it sees")


def test_a_node_without_the_secret_does_not_start_and_says_how_to_make_it(tmp_path):
    with Fleet(count=1, settings={"fleet.secret_file": tmp_path / "none"}, start=False) as fleet:
        node = fleet[1]
        node.attach()
        node.start_writer()
        node.start_daemon(ready=False)
        wait_until(lambda: not node.daemon.running(), "it ends")
        assert "openssl rand -hex 32" in node.daemon.log()
        assert not (tmp_path / "none").exists()
        node.history.no_verdict("the daemon never ran")
