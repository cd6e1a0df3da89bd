# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Daemon, writer or both are killed at random moments under load, again and again; the checker judges what buyers were told.

Seeds are printed; SLUICE_FAULT_SEED=n makes the same choices again. SOAK_CYCLES=n or SOAK_SECONDS=n make the run as long as wanted (`make soak`).
A cycle is one kill and one recovery. The run ends with their count.
"""
import os
import time

from shop import Shop, seed_of_run

CYCLES = 200  # in `make check`
CYCLES_OF_A_SHOP = 50


def bounds():
    """(cycles, seconds): whichever comes first ends the run; None is no bound."""
    cycles, seconds = os.environ.get("SOAK_CYCLES"), os.environ.get("SOAK_SECONDS")
    return (int(cycles) if cycles else None if seconds else CYCLES), (float(seconds) if seconds else None)


def test_nothing_is_lost_when_parts_are_killed_under_load():
    cycles, seconds = bounds()
    seed, began, done = seed_of_run(), time.monotonic(), 0
    while (cycles is None or done < cycles) and (seconds is None or time.monotonic() - began < seconds):
        count = min(CYCLES_OF_A_SHOP, cycles - done) if cycles is not None else CYCLES_OF_A_SHOP
        with Shop(seed, count) as shop:
            for _ in range(count):
                shop.cycle()
            shop.finish()
        done += count
        seed += 1
        print(f"{done} kill cycles, {time.monotonic() - began:.0f} s")
    print(f"soak: {done} kill cycles in {time.monotonic() - began:.0f} s, no promise broken")
