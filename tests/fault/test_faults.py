# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Other harm than a kill, under load: parts that stand still, a gate that is replaced, a reboot, a clock that jumps by an hour.

What is demanded is the same every time and is checker.py's to judge; a test only does the harm, and sees to it that the buyers are served in the end.
"""
import pytest

from netns import wait_until
from shop import Shop, seed_of_run
from test_clock import Clock, faketime_library

HOUR_S = 3600
HEARTBEAT_OLD_S = 2.1


@pytest.mark.parametrize("part", ["daemon", "writer"])
def test_a_part_that_stands_still_loses_nothing(part):
    with Shop(seed_of_run(), cycles=8) as shop:
        for longest in (0.05, 0.2, 0.2, 0.5, 0.5, HEARTBEAT_OLD_S):
            shop.trade()
            shop.freeze(part, shop.random.uniform(0.3, 1) * longest if longest < 1 else longest)
        shop.finish()


def test_the_gate_is_replaced_in_the_middle_of_the_sale():
    with Shop(seed_of_run(), cycles=6) as shop:
        generation = shop.world.status()["gate"]["generation"]
        for _ in range(5):
            shop.trade()
            shop.reload()
        wait_until(lambda: shop.world.status()["gate"]["generation"] == generation + 5, "the daemon has the new program")
        shop.finish()


def test_a_reboot_loses_no_order_that_was_acknowledged():
    with Shop(seed_of_run(), cycles=5) as shop:
        for _ in range(4):
            shop.trade(0.05, 0.3)
            shop.reboot()
        shop.finish()


@pytest.mark.skipif(not faketime_library(), reason="libfaketime is not installed (Debian: faketime)")
def test_a_clock_that_jumps_by_an_hour_admits_nobody_outside_the_window():
    """Out of the window and back in again, both ways, with buyers at the door all the time."""
    with Shop(seed_of_run(), cycles=12, sale={"opens_in": -HOUR_S / 2, "ends_in": HOUR_S / 2}, clock=Clock) as shop:
        clock = shop.world.clock
        for offset in (HOUR_S, 0, -HOUR_S, 0, HOUR_S, -HOUR_S, 0):
            shop.trade(0.1, 0.3)
            clock.step(offset)
            clock.wait_followed()
            shop.come()
            if offset:
                refusal = "sale_ended" if offset > 0 else "sale_not_open"
                before = shop.crowd.answers[refusal]
                wait_until(lambda: shop.crowd.answers[refusal] > before, f"a buyer is told {refusal}")
        shop.finish()
