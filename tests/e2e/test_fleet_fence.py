# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""A node is gone with units that it has leased: they come back to the others as far as it is known that it has not sold them, and what it sold counts.

The word comes from the operator (`sluice node fence`) or, where the config says so, from the clock. A node that comes back may not sell from its old lease.
"""
import shutil
import time

import pytest

from fleet import Fleet, sale_at, until
from fleet_load import FleetCrowd
from netns import wait_until

UNITS = 900
BUYERS = 1000            # at the nodes that live
RATE = 400
WELL_S = 40
ALL_SOLD_S = 60
FENCE_AFTER_S = 2
GONE = 3                 # the node
WRITTEN = 14             # in the row of a node: the highest number of an operation that it has said its ledger has
FENCED_AT = 7            # in the row of a node: the generation in which it was fenced (userspace/fleet/scripts/prelude.lua)


@pytest.fixture
def fleet():
    with Fleet() as three:
        for node in three.nodes:
            node.history.note("alone")
        yield three


def kill_in_mid_sale(fleet, sale, crowd):
    """Node 3 dies when it has sold some; its own buyers find nobody."""
    crowd.add_buyers(sale, BUYERS // 4, {GONE: 1})
    crowd.add_buyers(sale, BUYERS, {1: 1, 2: 1})
    wait_until(lambda: crowd.sold[GONE] >= UNITS / 20, "the sale is under way")
    fleet[GONE].die()


def live_units(fleet, sale, number):
    """Units in orders, by the ledger of a node that may be dead."""
    rows = fleet[number].ledger_query(f"SELECT coalesce(sum(quantity), 0) FROM orders WHERE sale = {sale.id} AND state IN ('held', 'confirmed')")
    return int(rows[0][0])


def others_sell(fleet, sale, crowd, units):
    """The nodes that live sell so many units all in all."""
    def sold():
        return live_units(fleet, sale, 1) + live_units(fleet, sale, 2)
    return until(lambda: sold() == units, f"nodes 1 and 2 have sold {units} units", ALL_SOLD_S)


def test_the_units_of_a_dead_node_are_sold_elsewhere_when_it_is_fenced_with_its_ledger(fleet):
    sale = fleet.sale(stock=UNITS)
    with FleetCrowd(fleet, seed=1, rate=RATE) as crowd:
        kill_in_mid_sale(fleet, sale, crowd)
        sold = live_units(fleet, sale, GONE)
        fleet.history.note("fence", sale=sale.slug)
        print(fleet[1].cli("node", "fence", str(GONE), "--ledger", fleet[GONE].ledger, "--force").stdout)
        took = others_sell(fleet, sale, crowd, UNITS - sold)
        print(f"node {GONE} sold {sold} before it died; the others had sold the rest {took:.1f} s after it was fenced")

        fleet[GONE].start(ready=False)
        well = until(lambda: fleet.is_well(sale), "the fenced node has settled", WELL_S)
        print(f"the fenced node has settled {well:.1f} s after its start")
        assert live_units(fleet, sale, GONE) == sold, "it sold from its old lease"
        until(crowd.idle, "every buyer has had a last word", ALL_SOLD_S)
        assert sum(live_units(fleet, sale, number) for number in (1, 2, 3)) == UNITS
    fleet.assert_sold_out(sale, crowd)


def test_a_dead_node_that_nobody_fences_comes_back_and_sells_what_it_had(fleet):
    sale = fleet.sale(stock=UNITS)
    with FleetCrowd(fleet, seed=2, rate=RATE) as crowd:
        kill_in_mid_sale(fleet, sale, crowd)
        held = int(fleet[GONE].ledger_query(f"SELECT put_in FROM sales WHERE id = {sale.id}")[0][0])
        others_sell(fleet, sale, crowd, UNITS - held)
        assert fleet[1].control("GET", sale.path).json()["state"] != "sold_out", "units may still come back"
        fleet[GONE].start(ready=False)
        until(crowd.idle, "every buyer has had a last word", ALL_SOLD_S)
    fleet.assert_sold_out(sale, crowd)


def test_what_a_lost_node_held_counts_as_sold_until_somebody_knows_better(fleet):
    """Fenced without a word about what it sold: nothing is guessed. Its unsold units come back with it."""
    sale = fleet.sale(stock=UNITS)
    with FleetCrowd(fleet, seed=3, rate=RATE) as crowd:
        kill_in_mid_sale(fleet, sale, crowd)
        held = int(fleet[GONE].ledger_query(f"SELECT put_in FROM sales WHERE id = {sale.id}")[0][0])
        sold = live_units(fleet, sale, GONE)
        fleet.history.note("fence", sale=sale.slug)
        fleet[2].cli("node", "fence", str(GONE), "--nothing", "--force")
        others_sell(fleet, sale, crowd, UNITS - held)
        fleet[GONE].start(ready=False)
        until(lambda: fleet.is_well(sale), "it has settled", WELL_S)
        sell_the_rest(sale, crowd)
        print(f"node {GONE} held {held} units, of which it had sold {sold}")
    fleet.assert_sold_out(sale, crowd)


def test_a_node_that_is_cut_off_stops_by_itself_before_the_others_fence_it():
    with Fleet(settings={"fleet.fence_after_seconds": FENCE_AFTER_S, "fleet.timeout_ms": 300}) as fleet:
        for node in fleet.nodes:
            node.history.note("alone")
        sale = fleet.sale(stock=UNITS)
        with FleetCrowd(fleet, seed=4, rate=RATE) as crowd:
            crowd.add_buyers(sale, BUYERS // 4, {GONE: 1})
            crowd.add_buyers(sale, BUYERS, {1: 1, 2: 1})
            wait_until(lambda: crowd.sold[GONE] >= UNITS / 20, "the sale is under way")
            fleet.history.note("fence", sale=sale.slug)
            with fleet.history.harm(f"partition of node {GONE}"):
                fleet.hub.partition(GONE)
                stopped = until(lambda: not fleet[GONE].knows_its_lease(sale), "it sells no more", 15)
                sold = live_units(fleet, sale, GONE)
                fenced = until(lambda: fenced_rows(fleet, sale), "the others have fenced it", 30)
                assert live_units(fleet, sale, GONE) == sold, "it sold after it had stopped"
                print(f"\ncut off: it stopped after {stopped:.1f} s, the others fenced it {fenced:.1f} s later")
                fleet.hub.heal()
                well = until(lambda: fleet.is_well(sale), "it has settled", WELL_S)
                print(f"it sells again {well:.1f} s after the partition was mended")
            until(crowd.idle, "every buyer has had a last word", ALL_SOLD_S)
            sell_the_rest(sale, crowd)
        fleet.assert_sold_out(sale, crowd)


def sell_the_rest(sale, crowd):
    """A fenced node's units that come back with it are for sale again, for buyers who come then."""
    crowd.add_buyers(sale, BUYERS, {1: 1, 2: 1, GONE: 1})
    until(crowd.idle, "every buyer has had a last word", ALL_SOLD_S)


def fenced_rows(fleet, sale):
    stock = fleet.stock(sale)
    generation = int(stock["gen"].partition("-")[0])
    return any(int(row.split()[FENCED_AT]) == generation for name, row in stock.items() if name[0] == "n" and name[1:].isdigit())


def test_a_returned_node_knows_the_orders_that_it_took_before(fleet):
    """What it sold before it was fenced is its buyers' for good."""
    sale = fleet.sale(stock=30)
    with FleetCrowd(fleet, seed=5) as crowd:
        crowd.add_buyers(sale, 5, {GONE: 1})
        until(crowd.idle, "five have ordered")
    fleet[GONE].die()
    fleet.history.note("fence", sale=sale.slug)
    fleet[1].cli("node", "fence", str(GONE), "--ledger", fleet[GONE].ledger, "--force")
    fleet[GONE].start(ready=False)
    until(lambda: fleet.is_well(sale), "it has settled", WELL_S)
    for buyer in crowd.buyers:
        answer = fleet[GONE].order(buyer.tokens[0])
        assert answer.status == 200 and answer.json()["id"] == buyer.order["id"], answer
    assert len(sale_at(sale, fleet[GONE]).orders()) == 5
    began = time.monotonic()
    with FleetCrowd(fleet, seed=6) as crowd:
        crowd.add_buyers(sale, 40)
        until(crowd.idle, "the rest is sold")
        print(f"the rest was sold in {time.monotonic() - began:.1f} s")
        assert crowd.units() == 25
    fleet.audit()
    fleet.verify()


def trouble_of(fleet, sale, number):
    """As any node is told of it: why that one does not sell."""
    node = next(node for node in fleet[1].ask("GET", "/v1/nodes")["nodes"] if node["id"] == number)
    return next((lease["trouble"] for lease in node["leases"] or [] if lease["sale"] == sale.slug), None)


def test_a_ledger_of_before_sells_nothing_and_the_right_one_only_at_one_place(fleet):
    """As from a backup: Redis knows of units that it does not have. Sold again, they would be sold twice. The same of a copy that is not older."""
    node = fleet[GONE]
    sale = fleet.sale(stock=60)
    backup, right = node.dir / "backup", node.dir / "right"
    shutil.copytree(node.state_dir, backup, symlinks=True)
    with FleetCrowd(fleet, seed=7) as crowd:
        crowd.add_buyers(sale, 5, {GONE: 1})
        until(crowd.idle, "five have ordered")
    wait_until(lambda: int(fleet.stock(sale)[f"n{GONE}"].split()[WRITTEN]) > 0, "the node has told what its ledger has")

    # At another place, as on another machine: it waits until nobody else speaks as this node.
    node.die()
    node.state_dir.rename(node.dir / "old place")
    shutil.copytree(node.dir / "old place", node.state_dir, symlinks=True)
    node.start(ready=False)
    until(lambda: trouble_of(fleet, sale, GONE) == "doubled", "it may be another node with that number")
    assert "another daemon speaks as node 3" in node.control("GET", "/readyz?verbose").body.decode()
    assert "speaks to Redis as node 3: this one sells nothing" in node.daemon.log()
    until(lambda: fleet.is_well(sale), "it is the only one, and sells", WELL_S)
    until(lambda: trouble_of(fleet, sale, GONE) is None, "that is told too")

    node.die()
    node.state_dir.rename(right)
    shutil.copytree(backup, node.state_dir, symlinks=True)
    with fleet.history.harm(f"an older ledger at node {GONE}"):
        node.start(ready=False)
        until(lambda: trouble_of(fleet, sale, GONE) == "set_back", "it is known why the node sells nothing")
        assert "the ledger is an older one" in node.control("GET", "/readyz?verbose").body.decode()
        assert "an older copy of the ledger of node 3 or a new one" in node.daemon.log()
        assert node.ask("GET", sale.path)["fleet"]["withheld"]
        with FleetCrowd(fleet, seed=8) as crowd:
            crowd.add_buyers(sale, 5, {GONE: 1})
            time.sleep(1)
            assert crowd.units() == 0
        node.die()
    shutil.rmtree(node.state_dir)
    right.rename(node.state_dir)
    node.start(ready=False)
    until(lambda: fleet.is_well(sale), "the right ledger sells", WELL_S)
    with FleetCrowd(fleet, seed=9) as crowd:
        crowd.add_buyers(sale, 80)
        until(crowd.idle, "the rest is sold")
        assert crowd.units() == 55
    fleet.audit()
    fleet.verify()
