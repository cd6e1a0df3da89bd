# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""One stock, three nodes, one Redis: everything is sold, once, wherever the buyers are.

What buyers were told is judged by tests/fault/fleet_checker.py after each test, and by `sluice verify --fleet`. Times are printed (pytest -s), not asserted.
"""
import concurrent.futures
import itertools
import time

import pytest

from fleet import Fleet, sale_at, until
from fleet_load import FleetCrowd
from netns import wait_until

UNITS = 10_000
TOO_MANY = 1.03          # buyers for each unit
ALL_SOLD_S = 90
FEW = 60
REST_S = 6
AT_REST_MOST = 9         # calls a second of three nodes with an open sale
BUYERS = 900
ASKERS = 6


@pytest.fixture(scope="module")
def fleet():
    with Fleet() as three:
        for node in three.nodes:
            node.history.note("alone")
        yield three


def sell_out(fleet, sale, seed, entries=None, count=None):
    """As many buyers as there are units, and some more. Returns the crowd after the last word."""
    with FleetCrowd(fleet, seed) as crowd:
        crowd.add_buyers(sale, count or round(sale.stock * TOO_MANY), entries)
        took = until(crowd.idle, "every buyer has had a last word", ALL_SOLD_S)
        print(f"\n{sale.stock} units in {took:.1f} s: {crowd.summary()}")
    fleet.assert_sold_out(sale, crowd)
    return crowd


def test_all_who_ask_for_the_books_at_once_hear_every_node(fleet):
    """As when `sluice verify --fleet` runs on each node at the full minute. What was answered vanishes from Redis by itself."""
    sale = fleet.sale(stock=FEW)
    until(lambda: fleet.is_well(sale), "every node has settled")
    with concurrent.futures.ThreadPoolExecutor(ASKERS) as threads:
        answers = list(threads.map(lambda n: fleet[n % 3 + 1].ask("GET", "/v1/cluster/audit"), range(ASKERS)))
    silent = [[node for node, said in answer["nodes"].items() if said is None] for answer in answers]
    assert silent == [[]] * ASKERS
    assert all(sale.slug in [account["slug"] for account in said["sales"]] for answer in answers for said in answer["nodes"].values())
    kept = fleet.hub.call("KEYS", "*:audit:*")
    assert len(kept) == ASKERS and all(fleet.hub.call("TTL", key) > 0 for key in kept), kept


def test_ten_thousand_units_are_sold_exactly_over_three_nodes(fleet):
    crowd = sell_out(fleet, fleet.sale(stock=UNITS), seed=1)
    assert min(crowd.sold[node.number] for node in fleet.nodes) > UNITS / 10, "not all nodes took part"


def test_every_unit_is_sold_where_all_buyers_are(fleet):
    """The other two have leased units before, for a few buyers, and give back what is left."""
    sale = fleet.sale(stock=UNITS // 2)
    with FleetCrowd(fleet, seed=2) as crowd:
        crowd.add_buyers(sale, FEW, {2: 1, 3: 1})
        until(crowd.idle, "the few have ordered")
        elsewhere = crowd.sold[2] + crowd.sold[3]
        assert crowd.units() == elsewhere == FEW, crowd.summary()
        crowd.add_buyers(sale, round(sale.stock * TOO_MANY), {1: 1})
        took = until(crowd.idle, "every buyer has had a last word", ALL_SOLD_S)
        print(f"\n{sale.stock} units in {took:.1f} s: {crowd.summary()}")
    fleet.assert_sold_out(sale, crowd)
    for node in (fleet[2], fleet[3]):
        books = node.ask("GET", f"{sale.path}/stock")
        assert books["free"] == 0, (node.number, books)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_the_last_unit_is_sold_wherever_its_buyer_is(fleet, at):
    sale = fleet.sale(stock=1)
    crowd = sell_out(fleet, sale, seed=10 + at, entries={at: 1}, count=1)
    assert crowd.sold[at] == 1


def test_the_last_units_go_from_node_to_node(fleet):
    """One buyer after the other, each at another node than the one before."""
    sale = fleet.sale(stock=9)
    with FleetCrowd(fleet, seed=3) as crowd:
        for number, node in zip(range(sale.stock), itertools.cycle((3, 1, 2))):
            crowd.add_buyers(sale, 1, {node: 1})
            took = until(lambda number=number: crowd.units() == number + 1, f"unit {number + 1} is sold")
            print(f"\nunit {number + 1} was sold at node {node} {took:.1f} s after its buyer came", end="")
        crowd.add_buyers(sale, 3)
        until(crowd.idle, "three have come too late")
    fleet.assert_sold_out(sale, crowd)


def test_a_unit_that_comes_back_at_one_node_is_sold_at_another(fleet):
    sale = fleet.sale(stock=20)
    crowd = sell_out(fleet, sale, seed=4, entries={1: 1})
    order = next(buyer.order for buyer in crowd.buyers if buyer.order)
    # Until the units that came back are known everywhere a late buyer may be told "sold out"; so she is no part of the crowd.
    fleet[1].ask("POST", f"/v1/orders/{order['id']}/cancel")
    began = time.monotonic()
    token = wait_until(lambda: issued(fleet[3], sale), "a token is to be had again", timeout=10)
    answer = wait_until(lambda: (got := fleet[3].order(token)).status == 201 and got, "she has it", timeout=10, pause=0.1)
    print(f"\na returned unit was sold at another node after {time.monotonic() - began:.1f} s: {answer.json()['id']}")
    fleet.audit()
    fleet.verify()


def issued(node, sale, buyer="late"):
    answer = node.public("POST", f"{sale.path}/tokens", {"buyer": buyer})
    return answer.json()["token"] if answer.status in (200, 201) else None


def test_a_buyer_who_asks_everywhere_has_one_home_and_one_limit(fleet):
    sale = fleet.sale(stock=100, per_buyer=2)
    with FleetCrowd(fleet, seed=5) as crowd:
        for name in range(12):
            crowd.add_buyers(sale, 5)
            for buyer in crowd.buyers[-5:]:
                buyer.name = f"greedy-{name}"
        until(crowd.idle, "all have asked")
    by_buyer = {}
    for node in fleet.nodes:
        for order in sale_at(sale, node).orders():
            by_buyer.setdefault(order["buyer"], []).append((node.number, order["quantity"]))
    assert len(by_buyer) == 12
    for buyer, orders in by_buyer.items():
        assert len({node for node, _ in orders}) == 1 and sum(units for _, units in orders) <= 2, (buyer, orders)
    fleet.audit()


def test_every_node_tells_of_every_nodes_lease(fleet):
    sale = fleet.sale(stock=60)
    with FleetCrowd(fleet, seed=6) as crowd:
        crowd.add_buyers(sale, 60, {1: 1, 2: 1, 3: 1})
        until(crowd.idle, "all have asked")
        for node in fleet.nodes:
            def told():
                listed = node.ask("GET", "/v1/nodes")["nodes"]
                leases = {one["id"]: lease for one in listed for lease in one["leases"] or () if lease["sale"] == sale.slug}
                return (len(leases) == 3 and sum(lease["sold"] for lease in leases.values()) == 60 and not any(lease["fenced"] for lease in leases.values())
                        and all(one["state"] == "up" and one["stream_lag"] == 0 for one in listed))
            until(told, f"node {node.number} knows what each node has sold, and that nothing waits for a stream")
        table = fleet[2].cli("node", "list").stdout
        assert sum(sale.slug in line for line in table.splitlines()) == 3, table
    fleet.assert_sold_out(sale, crowd)


def calls(fleet):
    """Of nodes to Redis so far. What a script calls inside is counted by Redis as well, so only what no script calls is looked at."""
    counts = fleet.hub.command_calls()
    return sum(counts.get(name, 0) for name in ("evalsha", "eval", "ping"))


def test_redis_is_asked_seldom_for_nothing_and_once_for_many():
    with Fleet() as fleet:
        sale = fleet.sale(stock=3000)
        until(lambda: fleet.is_well(sale), "all lease")
        before, began = calls(fleet), time.monotonic()
        time.sleep(REST_S)
        at_rest = (calls(fleet) - before) / (time.monotonic() - began)
        with FleetCrowd(fleet, seed=7) as crowd:
            crowd.add_buyers(sale, BUYERS)
            before = calls(fleet)
            took = until(crowd.idle, "all have ordered")
            busy = calls(fleet) - before
        print(f"\n{at_rest:.1f} calls a second at rest; {1000 * busy / BUYERS:.0f} for 1,000 buyers who ask for tokens and order as fast as they can")
        # A machine that is busy takes longer, and what is asked at rest is asked meanwhile too.
        assert at_rest <= AT_REST_MOST and busy <= BUYERS / 3 + AT_REST_MOST * took
