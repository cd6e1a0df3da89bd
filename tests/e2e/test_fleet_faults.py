# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""A sale on three nodes while the coordinator, the way to it, a node or a clock fails: no unit too many, none too few, nobody's order lost.

Each test does its harm when a part of the units is sold, heals it, and demands that the rest is sold; fleet_checker.py and `sluice verify --fleet` judge
what came of it. The time from the healing until every unit can be sold again is printed (pytest -s), not asserted.

`make soak-fleet` does the same kinds of harm again and again, chosen and timed by a seed.
"""
import contextlib
import os
import random
import time

import pytest

import redisd
from fleet import Fleet, until
from fleet_load import FleetCrowd
from netns import wait_until
from test_clock import faketime_library

UNITS = 1200
TOO_MANY = 1.04
RATE = 500               # buyers a second: the sale lasts as long as the harm
SOLD_BEFORE = 0.25       # of the units
HARM_S = 2.0
WITH_TOKENS = 60
WELL_S = 40
ALL_SOLD_S = 60
TIMEOUT_MS = 300         # fleet.timeout_ms: slower is late
MINUTE_S = 60


def new_fleet(**kwargs):
    fleet = Fleet(**{**kwargs, "settings": {"fleet.timeout_ms": TIMEOUT_MS, **kwargs.get("settings", {})}})
    for node in fleet.nodes:
        node.history.note("alone")
    return fleet



@pytest.fixture(scope="module")
def fleet():
    with new_fleet() as three:
        yield three


@contextlib.contextmanager
def a_sale(fleet, harm, stock=UNITS, entries=None, buyers=None):
    """A sale at its busiest: in the block something is broken, and mended. Afterwards everything is to be sold."""
    with contextlib.ExitStack() as failed:
        failed.callback(fleet.mend)  # a test that fails in its block leaves the next one a fleet that is whole
        with _a_sale(fleet, harm, stock, entries, buyers) as both:
            yield both
        failed.pop_all()


@contextlib.contextmanager
def _a_sale(fleet, harm, stock, entries, buyers):
    sale = fleet.sale(stock=stock)
    with FleetCrowd(fleet, random.getrandbits(32), rate=RATE) as crowd:
        crowd.add_buyers(sale, buyers or round(stock * TOO_MANY), entries)
        wait_until(lambda: crowd.units() >= stock * SOLD_BEFORE, "the sale is under way")
        with fleet.history.harm(harm):
            yield sale, crowd
            mended = time.time()
            well = until(lambda: fleet.is_well(sale, since=mended), "every unit can be sold again", WELL_S)
        rest = until(crowd.idle, "every buyer has had a last word", ALL_SOLD_S)
        print(f"\n{harm}: every unit can be sold {well:.1f} s after it was mended, all were sold {rest:.1f} s later; {crowd.summary()}")
    fleet.assert_sold_out(sale, crowd)


def some_wait_with_tokens(crowd):
    """They order when crowd.reluctant is taken back."""
    crowd.reluctant = True
    wait_until(lambda: len(crowd.kept_back) >= WITH_TOKENS, "some buyers have a token, and wait")


# --- Redis ------------------------------------------------------------------------------------------------------------
def test_redis_is_killed_and_comes_back_with_what_it_had_written(fleet):
    with a_sale(fleet, "redis killed"):
        fleet.hub.server.kill()
        time.sleep(HARM_S)
        fleet.hub.server.start()


def test_redis_is_killed_and_comes_back_empty(fleet):
    with a_sale(fleet, "redis killed, and empty"):
        fleet.hub.server.kill()
        time.sleep(HARM_S)
        fleet.hub.server.start(empty=True)


def test_nodes_sell_what_they_hold_while_redis_is_away(fleet):
    """To whom has a token: who is new has no home without Redis, and waits for it."""
    with a_sale(fleet, "redis away") as (_, crowd):
        some_wait_with_tokens(crowd)
        fleet.hub.server.kill()
        before = crowd.units()
        crowd.reluctant = False
        wait_until(lambda: crowd.units() > before, "units are sold without Redis")
        fleet.hub.server.start()


def test_redis_stands_still_for_longer_than_the_nodes_wait(fleet):
    with a_sale(fleet, "redis paused"):
        fleet.hub.server.pause()
        time.sleep(HARM_S)
        fleet.hub.server.resume()


def test_redis_is_flushed_and_finds_everything_in_the_ledgers(fleet):
    with a_sale(fleet, "redis flushed"):
        fleet.hub.flush()


def test_redis_is_flushed_and_rebuilt_by_the_operator(fleet):
    with a_sale(fleet, "redis flushed, cluster rebuild") as (sale, _):
        fleet.hub.flush()
        fleet[2].cli("cluster", "rebuild")
        assert fleet.stock(sale)["state"] == "open"


def test_a_rebuild_without_need_changes_nothing(fleet):
    with a_sale(fleet, "cluster rebuild"):
        for node in fleet.nodes:
            node.cli("cluster", "rebuild")


def test_redis_fails_over_to_a_replica_that_lags(fleet):
    """What the nodes did since the replica fell behind is unknown to it: the same operations would be granted again."""
    replica = fleet.hub.add_replica()
    with a_sale(fleet, "failed over to a lagging replica") as (sale, crowd):
        fleet.hub.weather("lo", hold=True)
        before = crowd.units()
        wait_until(lambda: crowd.units() > before + UNITS // 4, "the replica lags")
        behind = fleet.stock(sale)["free"]
        fleet.hub.fail_over(replica)
        fleet.hub.weather("lo")
        assert behind >= 0


def test_redis_follows_a_replica_that_lags_and_is_master_again(fleet):
    """Under the run_id of before, and before the node whose lease it has forgotten can say so: the others find it out, and lease nothing until then."""
    replica = fleet.hub.add_replica()
    with a_sale(fleet, "gone back under the same run_id", entries={3: 1}, buyers=UNITS * 3 // 4) as (sale, crowd):
        fleet.hub.weather("lo", hold=True)
        before = crowd.units()
        wait_until(lambda: crowd.units() > before + UNITS // 4, "the replica lags")
        generation = fleet.stock(sale)["gen"]
        fleet.hub.partition(3)
        fleet.hub.go_back(replica)
        fleet.hub.weather("lo")
        crowd.add_buyers(sale, UNITS // 2, {1: 1, 2: 1})
        wait_until(lambda: fleet.stock(sale)["gen"] != generation, "a new generation begins")
        assert fleet.stock(sale)["state"] == "settling"
        fleet.hub.heal()


# --- the way there ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ways", [("input", "output"), ("input",), ("output",)], ids=["both ways", "asking", "answers"])
def test_a_node_is_cut_off_from_redis(fleet, ways):
    with a_sale(fleet, f"partition of node 3 ({' and '.join(ways)})"):
        fleet.hub.partition(3, ways)
        time.sleep(HARM_S)
        fleet.hub.heal()


def test_every_node_is_cut_off_from_redis(fleet):
    with a_sale(fleet, "partition of all nodes"):
        for node in fleet.nodes:
            fleet.hub.partition(node.number)
        time.sleep(HARM_S)
        fleet.hub.heal()


def test_answers_of_redis_are_lost(fleet):
    """Whatever is asked is done, and nobody hears of it."""
    with a_sale(fleet, "answers lost"):
        for node in fleet.nodes:
            fleet.hub.weather(node.number, mute=True)
        time.sleep(HARM_S)
        for node in fleet.nodes:
            fleet.hub.weather(node.number)


def test_redis_answers_after_the_time_out(fleet):
    """By half a second; every question arrives and is done, late for who asked."""
    with a_sale(fleet, "slow by 500 ms") as (_, crowd):
        some_wait_with_tokens(crowd)
        for node in fleet.nodes:
            fleet.hub.weather(node.number, ask_ms=250, answer_ms=250)
        before = crowd.units()
        crowd.reluctant = False
        time.sleep(2 * HARM_S)
        wait_until(lambda: crowd.units() > before, "units are sold meanwhile")
        for node in fleet.nodes:
            fleet.hub.weather(node.number)


def test_a_sale_is_sold_while_redis_is_slow_by_half_a_second_within_the_time_out():
    with new_fleet(settings={"fleet.timeout_ms": 2000}) as fleet:
        for node in fleet.nodes:
            fleet.hub.weather(node.number, ask_ms=250, answer_ms=250)
        sale = fleet.sale(stock=UNITS // 3)
        with FleetCrowd(fleet, 1, rate=RATE) as crowd:
            crowd.add_buyers(sale, round(sale.stock * TOO_MANY))
            took = until(crowd.idle, "every buyer has had a last word", ALL_SOLD_S)
            print(f"\nslow by 500 ms all the time: sold in {took:.1f} s; {crowd.summary()}")
        fleet.assert_sold_out(sale, crowd)


# --- clocks -----------------------------------------------------------------------------------------------------------
@pytest.mark.skipif(not faketime_library(), reason="libfaketime is not installed (Debian: faketime)")
def test_clocks_are_a_minute_apart():
    """Before and behind the third's, and Redis's."""
    with new_fleet(clocks={1: MINUTE_S, 2: -MINUTE_S}) as fleet:
        sale = fleet.sale(stock=UNITS, at=3, opens_in=-2 * MINUTE_S)
        with FleetCrowd(fleet, 2, rate=RATE) as crowd:
            crowd.add_buyers(sale, round(UNITS * TOO_MANY))
            wait_until(lambda: crowd.units() >= UNITS * SOLD_BEFORE, "the sale is under way")
            fleet.hub.server.kill()
            fleet.hub.server.start(empty=True)
            until(crowd.idle, "every buyer has had a last word", ALL_SOLD_S)
        fleet.assert_sold_out(sale, crowd)


# --- Redis Cluster ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def clustered():
    with new_fleet(redis=redisd.Cluster) as three:
        yield three


def test_a_master_of_the_cluster_is_killed(clustered):
    hub = clustered.hub
    with a_sale(clustered, "cluster: master killed") as (sale, _):
        master = hub.master_of(clustered.key(sale, "stock"))
        master.kill()
        wait_until(lambda: hub.master_of(clustered.key(sale, "stock")).running(), "its replica has taken over")
    master.start()


def test_a_replica_of_the_cluster_that_lags_takes_over(clustered):
    hub = clustered.hub
    with a_sale(clustered, "cluster: lagging replica takes over") as (sale, crowd):
        replica = hub.replica_of(hub.master_of(clustered.key(sale, "stock")))
        hub.weather("lo", hold=True)
        before = crowd.units()
        wait_until(lambda: crowd.units() > before + UNITS // 4, "the replica lags")
        hub.take_over(replica)
        hub.weather("lo")


# --- the long run -----------------------------------------------------------------------------------------------------
def harms(hub, node, rng):
    """{name: (break, mend)} of what can befall a fleet with one Redis server."""
    lane = rng.choice(hub.nodes)

    def everywhere(**weather):
        for number in hub.nodes:
            hub.weather(number, **weather)

    return {
        "redis killed": (hub.server.kill, hub.server.start),
        "redis killed, and empty": (hub.server.kill, lambda: hub.server.start(empty=True)),
        "redis paused": (hub.server.pause, hub.server.resume),
        "redis flushed": (hub.flush, lambda: None),
        "partition": (lambda: hub.partition(lane, rng.choice((("input",), ("output",), ("input", "output")))), hub.heal),
        "answers lost": (lambda: hub.weather(lane, mute=True), lambda: hub.weather(lane)),
        "slow": (lambda: everywhere(ask_ms=rng.choice((2, 100, 250)), answer_ms=rng.choice((2, 100, 250))), everywhere),
        "connections cut": (lambda: hub.cut(lane), lambda: None),
        "programs of a node killed": (node.kill, lambda: node.start(ready=False)),
        "a node dies": (node.die, lambda: node.start(ready=False)),
    }


@pytest.mark.skipif("SOAK_SECONDS" not in os.environ, reason="make soak-fleet")
def test_harm_of_every_kind_again_and_again():
    seed = int(os.environ.get("SLUICE_FAULT_SEED") or random.SystemRandom().getrandbits(32))
    rng = random.Random(seed)
    print(f"seed {seed}")
    began, done = time.monotonic(), 0
    while time.monotonic() - began < float(os.environ["SOAK_SECONDS"]):
        with new_fleet() as fleet:
            for _ in range(5):
                node = rng.choice(fleet.nodes)
                first, second = rng.sample(sorted(harms(fleet.hub, node, rng)), 2)
                with a_sale(fleet, f"{first}, {second}", stock=rng.randint(UNITS // 4, UNITS)):
                    for name in (first, second):
                        hurt, mend = harms(fleet.hub, node, rng)[name]
                        hurt()
                        time.sleep(rng.uniform(0, HARM_S))
                        mend()
                        time.sleep(rng.uniform(0, HARM_S / 4))
                done += 1
    print(f"soak: {done} sales in {time.monotonic() - began:.0f} s, no promise broken")
