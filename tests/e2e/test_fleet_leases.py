# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Units of a fleet on one node and a real redis-server: what is leased is sold, whatever is killed or lost in between, and what an operator can do about it.

Each node's history is judged as ever when its World is closed: conservation, and that no yes was taken back; `sluice verify --fleet` compares ledgers
and Redis.
"""
import contextlib
import json
import random
import shutil
import sqlite3

import pytest

from fleet import HEAD, Fleet, sale_at
from netns import wait_until

STOCK = 60
AGAIN_S = 0.02


@pytest.fixture(scope="module")
def fleet():
    with Fleet(count=1) as one:
        yield one


@pytest.fixture
def sale(fleet):
    return fleet.sale(stock=STOCK)


def lease_of(sale):
    return sale.books()["fleet"]


def settled(sale):
    wait_until(lambda: (lease := lease_of(sale))["settled"] and not lease["withheld"] and lease, "the node may sell")


def token_of(sale):
    """However often it takes: after a start, the buyers of the fleet are counted first."""
    buyer = sale.buyer()

    def issued():
        reply = sale.world.control("POST", f"{sale.path}/tokens", {"buyer": buyer, "quantity": 1})
        assert reply.status in (200, 201, 503), reply
        return reply.json().get("token")
    return wait_until(issued, "a token is issued", pause=AGAIN_S)


def order_one(sale, token=None):
    """One unit, however often it takes. Returns what came in between."""
    token, refusals = token or token_of(sale), []

    def ordered():
        answer = sale.world.order(token)
        if answer.status in (200, 201):
            return True
        assert answer.status == 503, answer
        refusals.append(answer.json()["code"])
        return False
    wait_until(ordered, "a unit is sold", timeout=30, pause=AGAIN_S)
    return refusals


def sell(sale, count):
    return [refusal for _ in range(count) for refusal in order_one(sale)]


def sell_for(sale, tokens):
    """To who has a token already: without Redis there are no new ones."""
    return [refusal for token in tokens for refusal in order_one(sale, token)]


def sold_out(fleet, sale, stock):
    """All of it, and nothing more."""
    def told():
        reply = sale.world.control("POST", f"{sale.path}/tokens", {"buyer": "late"})
        return reply.status == 409 and reply.code() == "sold_out"
    wait_until(told, "it is sold out")
    books = sale.assert_books(put_in=stock, held=stock, free=0)
    assert (books["fleet"]["total"], books["fleet"]["free"], books["fleet"]["balance"]) == (stock, 0, stock)
    verified(fleet)


def verified(fleet, code=0):
    """`sluice verify --fleet` says so; returns its report."""
    done = fleet[1].cli("verify", "--fleet", "-o", "json", check=False)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout)


def test_a_sale_sells_exactly_its_stock(fleet, sale):
    show = sale.show()
    assert (show["stock"], show["fleet"]["total"]) == (STOCK, STOCK)
    sell(sale, STOCK)
    sold_out(fleet, sale, STOCK)


def test_the_gate_is_fed_before_it_is_empty(fleet):
    sale = fleet.sale(stock=400)
    settled(sale)
    assert sell(sale, 400) == []
    sold_out(fleet, sale, 400)


def test_a_node_at_rest_does_not_hold_all_units(fleet):
    sale = fleet.sale(stock=1000)
    settled(sale)
    sell(sale, 3)
    books = sale.books()
    assert books["fleet"]["free"] > books["free"] > 0, books


def test_creating_a_sale_again_is_the_same_creation(fleet, sale):
    body = {"stock": STOCK, **{name: sale.show()[name] for name in ("opens_at", "ends_at")}}
    assert fleet[1].ask("PUT", sale.path, body)["stock"] == STOCK
    refused = fleet[1].control("PUT", sale.path, {**body, "stock": STOCK + 1})
    assert (refused.status, refused.code()) == (409, "stock_is_moved")
    assert lease_of(sale)["total"] == STOCK


def test_stock_is_moved_once_for_each_key(fleet, sale):
    move = f"{sale.path}/stock"
    for _ in range(2):
        reply = fleet[1].control("POST", move, {"delta": 15}, headers={"Idempotency-Key": f"more-{sale.slug}"})
        assert reply.status == 200 and reply.json()["fleet"]["total"] == STOCK + 15, reply
    assert fleet[1].ask("POST", move, {"delta": -5})["fleet"]["total"] == STOCK + 10
    too_many = fleet[1].control("POST", move, {"delta": 10 ** 12})
    assert (too_many.status, too_many.code()) == (422, "out_of_range")
    assert fleet.stock(sale)["total"] == STOCK + 10
    settled(sale)
    sell(sale, 3)
    refused = fleet[1].control("POST", move, {"delta": -STOCK - 8})
    assert (refused.status, refused.code()) == (409, "not_enough_free")
    # All that is not ordered can be taken, also what is leased: the node gives it back.
    assert fleet[1].ask("POST", move, {"delta": -STOCK - 7})["fleet"]["total"] == 3
    sold_out(fleet, sale, 3)


def test_without_redis_a_node_sells_what_it_holds_and_goes_on_when_redis_is_back(fleet, sale):
    settled(sale)
    sell(sale, 2)
    tokens = [token_of(sale) for _ in range(STOCK - 2)]
    fleet.hub.server.kill()
    held = sale.books()["free"]
    sell_for(sale, tokens[:held])
    token = tokens[held]
    assert fleet[1].order(token).json()["code"] == "unavailable"
    assert fleet[1].packets("units_elsewhere") > 0
    for method, path, body in (("POST", f"{sale.path}/stock", {"delta": 1}), ("POST", "/v1/cluster/rebuild", None), ("GET", "/v1/cluster/sales", None)):
        reply = fleet[1].control(method, path, body)
        assert (reply.status, reply.code()) == (503, "fleet_away"), (path, reply)
    fleet.hub.server.start()
    sell_for(sale, tokens[held:])
    sold_out(fleet, sale, STOCK)


def rewrite_head(fleet, sale, **fields):
    """Of what Redis has of a sale: `field` as the function makes it."""
    key = fleet.key(sale, "stock")
    words = fleet.hub.call("HGET", key, "head").split()
    for name, change in fields.items():
        words[HEAD.index(name)] = str(change(words[HEAD.index(name)]))
    fleet.hub.call("HSET", key, "head", " ".join(words))


def test_a_flushed_redis_learns_the_stock_from_the_ledger(fleet, sale):
    settled(sale)
    sell(sale, 10)
    tokens = [token_of(sale) for _ in range(STOCK - 10)]
    fleet.hub.flush()
    sell_for(sale, tokens)
    sold_out(fleet, sale, STOCK)


def test_a_change_of_the_total_that_was_lost_to_another_is_told(fleet, sale):
    """As if Redis had lost what this node made, and another node had made as much; of equals the first by name holds."""
    settled(sale)
    rewrite_head(fleet, sale, operation=lambda _: "another")
    log = fleet[1].dir / "daemon.log"
    wait_until(lambda: "and another, to 60 units" in log.read_text(encoding="utf-8"), "the log tells of the loss")
    verified(fleet)


def trouble_of(sale):
    """None also while the daemon does not answer yet."""
    with contextlib.suppress(OSError, AssertionError):
        return lease_of(sale)["trouble"]
    return None


def written(fleet, sale):
    return int(fleet.stock(sale)["n1"].split()[-1])


def test_a_ledger_that_lacks_but_an_order_is_told_from_the_right_one(fleet, sale):
    """Of a lease that it has: no operation of the lease tells of what was sold since."""
    node, right, older = fleet[1], fleet[1].dir / "right", fleet[1].dir / "older"
    settled(sale)
    sell(sale, 1)
    node.die()
    shutil.copytree(node.state_dir, older)
    node.start()
    settled(sale)
    before = written(fleet, sale), fleet.stock(sale)["n1"].split()[1]
    sell(sale, 1)
    wait_until(lambda: written(fleet, sale) > before[0], "it has told of the order")
    assert fleet.stock(sale)["n1"].split()[1] == before[1], "units were leased: the test shows nothing"
    node.die()
    node.state_dir.rename(right)
    older.rename(node.state_dir)
    with fleet.history.harm("an older ledger at node 1"):
        node.start(ready=False)
        wait_until(lambda: trouble_of(sale) == "set_back", "it is known why the node sells nothing")
        node.die()
    shutil.rmtree(node.state_dir)
    right.rename(node.state_dir)
    node.start()
    settled(sale)
    sell(sale, 1)


def test_a_redis_that_has_forgotten_the_last_operations_is_not_believed(fleet, sale):
    """As a replica that lagged and was made master: what is in it is older than what was answered."""
    settled(sale)
    key = fleet.key(sale, "stock")
    old = fleet.hub.call("HGETALL", key)
    sell(sale, STOCK // 2)
    fleet.hub.call("DEL", key)
    fleet.hub.call("HSET", key, *old)
    rewrite_head(fleet, sale, server=lambda _: "another")
    sell(sale, STOCK - STOCK // 2)
    sold_out(fleet, sale, STOCK)


def test_rebuilding_tells_what_was_free_and_is(fleet, sale):
    settled(sale)
    sell(sale, 5)
    report = json.loads(fleet[1].cli("cluster", "rebuild", "-o", "json").stdout)
    row = next(row for row in report["sales"] if row["sale"] == sale.slug)
    assert (row["state"], row["total"], row["missing"]) == ("open", STOCK, []), row
    # Leases go on meanwhile; that nothing was lost is what is sold in the end.
    assert 0 <= row["free"] <= STOCK - 5 and 0 <= row["free_before"] <= STOCK - 5, row
    sell(sale, STOCK - 5)
    sold_out(fleet, sale, STOCK)


@pytest.mark.parametrize("part", ["daemon", "writer"])
def test_whatever_is_killed_in_between_no_unit_is_lost(fleet, part):
    """Killed at many points of a lease's life: between grant, ledger and gate, and on the way back."""
    sale, chance = fleet.sale(stock=100), random.Random(7)
    node, left = fleet[1], 100
    settled(sale)
    for _ in range(8):
        count = chance.randint(1, 12)
        sell(sale, count)
        left -= count
        getattr(node, part).kill()
        if part == "daemon":
            node.start_daemon()
        else:
            node.start_writer()
            wait_until(lambda: node.status()["orders_open"], "orders are open")
    settled(sale)
    sell(sale, left)
    sold_out(fleet, sale, 100)


def lives(node):
    try:
        return node.control("GET", "/livez").status == 200
    except OSError:
        return False


def test_a_daemon_that_starts_without_redis_sells_nothing_until_redis_has_agreed(fleet, sale):
    settled(sale)
    sell(sale, 4)
    node, tokens = fleet[1], [token_of(sale) for _ in range(STOCK - 4)]
    assert sale.books()["free"] > 0
    node.daemon.kill()
    fleet.hub.server.kill()
    node.start_daemon(ready=False)
    wait_until(lambda: lives(node), "the daemon lives")
    for token in tokens[:5]:
        answer = node.order(token)
        assert (answer.status, answer.json()["code"]) == (503, "unavailable"), answer
    fleet.hub.server.start()
    node.wait_ready()
    sell_for(sale, tokens)
    sold_out(fleet, sale, STOCK)


def test_who_stops_and_what_is_over_give_their_units_back(fleet, sale):
    other = fleet.sale(stock=STOCK)
    node = fleet[1]
    settled(sale)
    settled(other)
    sell(sale, 7)
    sell(other, 2)
    other.act("end")
    wait_until(lambda: fleet.stock(other)["free"] == STOCK - 2, "what was over is free in Redis")
    node.daemon.stop()
    assert fleet.stock(sale)["free"] == STOCK - 7
    node.start_daemon()
    settled(sale)
    sell(sale, STOCK - 7)
    sold_out(fleet, sale, STOCK)


def test_an_order_that_is_taken_back_is_sold_again_and_a_refund_leaves_the_sale(fleet):
    sale = fleet.sale(stock=3)
    settled(sale)
    sell(sale, 3)
    orders = sale.orders()
    fleet[1].ask("POST", f"/v1/orders/{orders[0]['id']}/cancel")
    for verb, body in (("confirm", None), ("refund", {"restock": False})):
        fleet[1].ask("POST", f"/v1/orders/{orders[1]['id']}/{verb}", body)
    order_one(sale)
    sale.assert_books(put_in=2, held=2)
    report = verified(fleet)
    row = next(row for row in report["sales"] if row["sale"] == sale.slug)
    assert (row["total"], row["held"], row["refunded"], row["equation"]) == (3, 2, 1, "holds")


def test_a_unit_too_many_in_redis_is_found(fleet, sale):
    settled(sale)
    sell(sale, 2)
    wait_until(lambda: lease_of(sale)["free"] > 0, "some are free")
    rewrite_head(fleet, sale, free=lambda free: int(free) + 1)
    report = verified(fleet, 7)
    assert [(found["difference"], found["sale"], found["found"] - found["expected"]) for found in report["differences"]] == [
        ("total_sum", sale.slug, 1)]
    fleet[1].cli("cluster", "rebuild")
    verified(fleet)


def test_the_metrics_tell_of_leases(fleet, sale):
    settled(sale)
    sell(sale, 1)
    text = fleet[1].control("GET", "/metrics").body.decode()
    figures = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line and not line.startswith("#")}
    label = f'sale="{sale.slug}"'
    assert figures[f'sluice_fleet_units{{{label},state="total"}}'] == STOCK
    assert figures[f'sluice_fleet_units{{{label},state="balance"}}'] == sale.books()["put_in"]
    assert figures['sluice_lease_moves_total{kind="grant"}'] > 0
    assert figures[f'sluice_lease_withheld{{{label}}}'] == 0
    assert f"sluice_lease_units_wanted_total{{{label}}}" in figures


# --- a node that is not there ---------------------------------------------------------------------------------------------------
@pytest.fixture
def half():
    """Two nodes of which one can be done without."""
    with Fleet(count=2) as two:
        yield two


def seen(fleet, node):
    """Seconds since node 1 has heard of another, -1 = never."""
    nodes = fleet[1].ask("GET", "/v1/nodes")["nodes"]
    ago = next(row["seen_seconds_ago"] for row in nodes if row["id"] == node)
    return -1 if ago is None else ago


def test_a_node_that_is_away_holds_up_a_rebuild_until_it_is_fenced(half):
    sale = half.sale(stock=STOCK)
    at_two = sale_at(sale, half[2])
    for at in (sale, at_two):
        settled(at)
    sell(at_two, 3)
    sell(sale, 5)
    tokens = [token_of(sale) for _ in range(STOCK - 8)]
    half[2].kill()
    half.hub.flush()
    wait_until(lambda: lease_of(sale)["state"] == "settling", "it waits for the other node")
    done = half[1].cli("cluster", "rebuild", "--wait", "1", "-o", "json", check=False)
    assert done.returncode == 1 and "fence" in done.stderr, done
    assert json.loads(done.stdout)["sales"][0]["missing"] == [2]
    assert [found["difference"] for found in verified(half, 7)["differences"]] == ["settling"]
    half.history.note("fence", sale=sale.slug)
    done = half[1].cli("node", "fence", "2", "--ledger", half[2].ledger, "--force", "-o", "json")
    row = json.loads(done.stdout)["sales"][0]
    assert (row["sale"], row["result"], row["sold"]) == (sale.slug, "fenced", 3), row
    wait_until(lambda: lease_of(sale)["state"] == "open", "it is open again")
    sell_for(sale, tokens)
    sale.assert_books(put_in=STOCK - 3, held=STOCK - 3)
    report = verified(half, 1)
    assert (report["silent"], report["differences"]) == ([2], [])
    # And it comes back: what it has sold counts, and what it had not was sold by the other.
    half[2].start()
    settled(at_two)
    at_two.assert_books(put_in=3, held=3, free=0)
    verified(half)


def test_a_rebuild_is_not_held_up_by_a_node_that_only_a_sale_that_is_over_misses(half):
    sale = half.sale(stock=STOCK)
    for at in (sale, sale_at(sale, half[2])):
        settled(at)
    half[2].kill()
    half[1].ask("POST", f"{sale.path}/end")
    half.hub.flush()
    wait_until(lambda: lease_of(sale)["missing"] == [2], "it waits for the other node", timeout=15)
    for flushed in (False, True, True):
        if flushed:
            half.hub.flush()
        done = half[1].cli("cluster", "rebuild", "--wait", "5", "-o", "json", check=False)
        assert done.returncode == 0, (flushed, done)
        row = json.loads(done.stdout)["sales"][0]
        assert (row["sale"], row["over"], row["missing"]) == (sale.slug, True, [2]), row
    half[2].start()


def test_a_node_that_was_taken_out_of_the_config_can_still_be_fenced(half):
    sale = half.sale(stock=STOCK)
    at_two, nodes = sale_at(sale, half[2]), half[1].settings["nodes"]
    for at in (sale, at_two):
        settled(at)
    sell(at_two, 3)
    half[2].kill()
    half[1].daemon.stop()
    half[1].settings["nodes"] = nodes[:1]
    half[1].write_config()
    half[1].start_daemon()
    half.hub.flush()
    wait_until(lambda: lease_of(sale)["missing"] == [2], "the ledger remembers the other node")
    half.history.note("fence", sale=sale.slug)
    done = half[1].cli("node", "fence", "2", "--ledger", half[2].ledger, "--force", "-o", "json")
    row = json.loads(done.stdout)["sales"][0]
    assert (row["sale"], row["result"], row["sold"]) == (sale.slug, "fenced", 3), row
    wait_until(lambda: lease_of(sale)["state"] == "open", "it is open again")
    half[1].settings["nodes"] = nodes
    half[1].write_config()
    half[1].daemon.stop()
    half[1].start_daemon()
    half[2].start()
    settled(at_two)
    verified(half)


def test_a_sale_that_is_over_waits_for_no_node(half):
    sale, nodes = half.sale(stock=STOCK), half[1].settings["nodes"]
    for at in (sale, sale_at(sale, half[2])):
        settled(at)
    sell(sale, 3)
    sale.act("end")
    wait_until(lambda: half.stock(sale)["free"] == STOCK - 3, "what was over is free in Redis")
    generation = half.stock(sale)["gen"]
    # A node that comes later never makes the sale. That it is in the config changes nothing in it.
    half[1].daemon.stop()
    half[1].settings["nodes"] = nodes + [{"id": 3, "url": "http://10.71.3.1:8080"}]
    half[1].write_config()
    half[1].start_daemon()
    settled(sale)
    assert (half.stock(sale)["gen"], half.stock(sale)["members"]) == (generation, "1,2")
    half[1].daemon.stop()
    half[1].settings["nodes"] = nodes
    half[1].write_config()
    half[1].start_daemon()
    verified(half)


def test_a_fence_says_what_it_was_not_told(half):
    sale, node = half.sale(stock=STOCK), half[1]
    half[2].daemon.stop()
    wait_until(lambda: seen(half, 2) > 5, "the other has been silent for so long", timeout=20)
    path = "/v1/nodes/2/fence"
    for body, status, code in (({}, 400, "missing_field"), ({"sold": 1}, 400, "missing_field"), ({"nothing": True, "sold": 1, "sale": sale.slug}, 400, "missing_field"),
                               ({"sale": "no-such", "nothing": True}, 404, "unknown_sale"), ({"sale": sale.slug, "sold": 1}, 422, "out_of_range"),
                               ({"sold": -1, "sale": sale.slug}, 422, "out_of_range"), ({"nothing": 1}, 400, "wrong_type")):
        reply = node.control("POST", path, body)
        assert (reply.status, reply.code()) == (status, code), (body, reply)
    for other, status, code in (("1", 409, "node_is_alive"), ("7", 404, "no_node"), ("0", 404, "no_node"), ("x", 404, "no_node")):
        reply = node.control("POST", f"/v1/nodes/{other}/fence", {"nothing": True})
        assert (reply.status, reply.code()) == (status, code), (other, reply)
    for arguments in ((), ("--sold", "1"), ("--nothing", "--sold", "1", "--sale", sale.slug)):
        assert node.cli("node", "fence", "2", *arguments, check=False).returncode == 2, arguments


def test_a_node_that_was_heard_of_is_not_fenced_without_force(half):
    sale = half.sale(stock=STOCK)
    at_two = sale_at(sale, half[2])
    settled(at_two)
    wait_until(lambda: 0 <= seen(half, 2) < 4, "the other was heard of")
    refused = half[1].cli("node", "fence", "2", "--nothing", check=False)
    assert refused.returncode == 4 and "node_is_alive" in refused.stderr, refused
    sell(at_two, 3)
    half.history.note("fence", sale=sale.slug)
    half[1].cli("node", "fence", "2", "--nothing", "--force")
    # It comes back by itself: what it has sold counts, and what it has not goes back first.
    settled(at_two)
    sell(at_two, 2)
    sell(sale, STOCK - 5)
    for at in (sale, at_two):
        wait_until(lambda at=at: at.show()["state"] == "sold_out", "it is sold out")
    assert sale.books()["held"] + at_two.books()["held"] == STOCK
    verified(half)


# --- a node that was alone ------------------------------------------------------------------------------------------------------
def test_a_sale_from_before_the_fleet_stays_the_nodes_own():
    with Fleet(count=1, start=False) as fleet:
        node = fleet[1]
        redis = node.settings["fleet.redis"]
        node.settings["fleet.redis"] = ""
        node.write_config()
        node.start()
        own = node.sale(stock=10)
        assert "fleet" not in own.books()
        sell(own, 2)
        node.daemon.stop()
        node.settings["fleet.redis"] = redis
        node.write_config()
        node.start_daemon()
        sell(own, 2)
        assert own.move(5)["put_in"] == 15
        assert own.books()["fleet"] is None and own.show()["fleet"] is None
        own.assert_books(put_in=15, held=4, free=11)
        sale = fleet.sale(stock=5)
        sell(sale, 5)
        sold_out(fleet, sale, 5)
        # Out of the fleet, and back: what it makes meanwhile is its own as well. So is what an earlier version made then, with a number of the fleet's.
        node.daemon.stop()
        node.settings["fleet.redis"] = ""
        node.write_config()
        node.start_daemon()
        between = [node.sale(stock=10), node.sale(stock=10)]
        assert all(one.id < 1 << 24 for one in between)
        node.daemon.stop()
        node.die()  # its gate would not know the number
        with contextlib.closing(sqlite3.connect(node.ledger)) as ledger:
            number, between[1].id = between[1].id, sale.id + 100
            ledger.executescript("".join(f"UPDATE {table} SET {column} = {between[1].id} WHERE {column} = {number};"
                                         for table, column in (("sales", "id"), ("stock_moves", "sale"), ("events", "sale"))))
        node.settings["fleet.redis"] = redis
        node.write_config()
        node.start()
        for one in between:
            sell(one, 2)
            assert one.move(5)["put_in"] == 15 and one.show()["fleet"] is None
            one.assert_books(put_in=15, held=2, free=13)
