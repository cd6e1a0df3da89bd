# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Steps of the wall clock: the window follows the clock that the daemon sees, both ways, without a restart.

Only the daemon's clock is moved, by libfaketime; the gate takes the wall time from the daemon and from nowhere else. That the
window is exact to a few milliseconds follows from `admitted_at`, which the gate writes down, and is not measured with a stop-watch.
"""
import glob
import math
import os
import time

import pytest

from netns import wait_until
from world import World, rfc3339, seconds_of

EXACT_S = 0.010
WALL_OFFSET_AT = 24


def faketime_library():
    found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1") + glob.glob("/usr/lib/faketime/libfaketimeMT.so.1")
    return found[0] if found else None


class Clock:
    """The daemon's wall clock, as an offset to the real one."""

    def __init__(self, world):
        self.world, self.path, self.offset = world, world.dir / "clock", 0.0
        self.step(0.0)

    def environment(self):
        # The last one: without it the library lets every wait on a condition with a monotonic deadline time out at once.
        return {**os.environ, "LD_PRELOAD": faketime_library(), "FAKETIME_TIMESTAMP_FILE": str(self.path), "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1", "FAKETIME_FORCE_MONOTONIC_FIX": "0"}

    def now(self):
        return time.time() + self.offset

    def step(self, offset):
        """Replaces the file whole, so that the daemon never reads half of it."""
        self.offset = offset
        fresh = self.path.with_suffix(".new")
        fresh.write_text(f"{offset:+.6f}s\n", encoding="ascii")
        fresh.rename(self.path)

    def wait_followed(self):
        """Until the gate has the new offset from the daemon's heartbeat (map "control": the fourth 64-bit word)."""
        def followed():
            (_, control), = self.world.map_dump("control")
            offset = int.from_bytes(control[WALL_OFFSET_AT:WALL_OFFSET_AT + 8], "little", signed=True) / 1e9
            return abs(offset + time.monotonic() - self.now()) < 0.5
        wait_until(followed, "the gate follows the step")


@pytest.fixture
def clocked():
    if not faketime_library():
        pytest.skip("libfaketime is not installed (Debian: faketime), and nothing else can move the clock of one process")
    with World(start=("gate", "writer")) as world:
        world.clock = Clock(world)
        world.start_daemon(env=world.clock.environment())
        yield world


def test_a_step_forward_opens_a_sale_and_a_step_back_closes_it_again(clocked, family):
    world = clocked
    sale = world.sale(stock=20, opens_in=600, ends_in=3600)
    tokens = [sale.token() for _ in range(4)]
    assert world.order(tokens[0], family).code() == "sale_not_open"

    world.clock.step(700)
    world.clock.wait_followed()
    answer = wait_until(lambda: (got := world.order(tokens[0], family)).status == 201 and got, "the sale is open")
    assert seconds_of(answer.json()["admitted_at"]) >= sale.opens_at

    world.clock.step(0)
    world.clock.wait_followed()
    before = world.clock.now()
    early = world.order(tokens[1], family)
    assert early.code() == "sale_not_open"
    assert abs(int(early.header("retry-after")) - math.ceil(sale.opens_at - before)) <= 1
    assert world.order(tokens[0], family).status == 200, "a yes is never taken back"

    world.clock.step(3700)
    world.clock.wait_followed()
    wait_until(lambda: world.order(tokens[2], family).code() == "sale_ended", "the sale is over")
    sale.assert_books(put_in=20, free=19, held=1)


def test_the_opening_is_exact_after_a_step(clocked, family):
    """Hammers over the opening: the first admission is not before it, and the last refusal not after it, but for 10 ms."""
    world = clocked
    world.clock.step(12345.678)
    opens = world.clock.now() + 2.5
    slug = "exact"
    world.ask("PUT", f"/v1/sales/{slug}", {"stock": 100, "opens_at": rfc3339(opens), "ends_at": rfc3339(opens + 600)})
    opens = seconds_of(world.ask("GET", f"/v1/sales/{slug}")["opens_at"])
    world.clock.wait_followed()
    token = world.ask("POST", f"/v1/sales/{slug}/tokens", {"buyer": "b"})["token"]
    refused_at = None
    with world.limits(source=(0, 1), prefix=(0, 1)):
        while True:
            asked = world.clock.now()
            answer = world.order(token, family)
            if answer.status == 201:
                break
            assert answer.code() == "sale_not_open", answer
            refused_at = asked
    assert refused_at is not None, "nobody asked before the opening"
    admitted = seconds_of(answer.json()["admitted_at"])
    assert admitted >= math.floor(opens * 1000) / 1000
    assert refused_at < opens + EXACT_S, "refused after the opening"
    assert asked < world.clock.now()


def test_a_clock_that_was_wrong_for_a_moment_has_ended_nothing(clocked):
    world = clocked
    sale = world.sale(stock=5, opens_in=-10, ends_in=100)
    token = sale.token()
    world.clock.step(200)
    world.clock.wait_followed()
    wait_until(lambda: world.order(token).code() == "sale_ended", "the sale is over")
    world.clock.step(0)
    world.clock.wait_followed()
    wait_until(lambda: world.order(token).status == 201, "the sale is open again")
    sale.assert_books(put_in=5, free=4, held=1)


def test_what_a_wrong_clock_has_swept_out_comes_back_from_the_ledger(clocked):
    """The gate has forgotten who has ordered, so the sale must stay ended until it knows them again."""
    world = clocked
    sale = world.sale(stock=5, opens_in=-10, ends_in=100)
    first, second = sale.token("first"), sale.token("second")
    assert world.order(first).status == 201
    world.clock.step(100 + 700)
    world.clock.wait_followed()
    wait_until(lambda: not world.map_dump("admissions") and not world.map_dump("buyers"), "the gate has forgotten the order")
    world.clock.step(0)
    world.clock.wait_followed()
    for change in ({"pace_per_second": 7}, {"ends_at": rfc3339(world.clock.now() + 3600)}):
        assert world.control("PUT", sale.path, change).code() == "sale_ended"
    world.ask("POST", "/v1/reconcile")
    assert world.ask("GET", sale.path)["state"] == "ended"
    assert world.order(second).code() == "sale_ended"

    world.daemon.stop()
    world.start_daemon(env=world.clock.environment())
    again = world.order(first)
    assert again.status == 200, again
    assert world.order(sale.signed(first, serial=1)).code() == "already_ordered"
    assert world.order(second).status == 201
    sale.assert_books(put_in=5, free=3, held=2)
