# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The checker proved: each bug of include/sluice/plant.h is built in (make planted), and the verdict must name it.

Each scenario is harmless: the same steps with the programs as they are end with a clean verdict, which is tested as well.
"""
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import time

import pytest

import talk
import test_crash_points
import world as world_module
import world_history
from netns import wait_until
from shop import Shop

PLANTED = world_module.BUILD / "planted"
TABLE = pathlib.Path(__file__).resolve().parents[2] / "include" / "sluice" / "plant.h"
SALE = {"stock": 20, "per_buyer": 2, "hold_seconds": 0}
REST_S = 0.7      # these Worlds never come to rest
ON_THE_WIRE_S = 0.05
RING_BYTES = 65536
RING_RECORDS = RING_BYTES // 80  # struct sluice_admitted and its header


def hurry(world, token):
    """An order whose answer nobody waits for."""
    target = f"/v1/orders/{token}"
    with world.history.buyer("POST", target) as record, world.connect() as record.connection:
        record.connection.send(talk.request("POST", target))
        record.connection.wait_acknowledged()
        time.sleep(ON_THE_WIRE_S)


def order_twice(shop):
    token = shop.sale.token()
    for _ in range(3):
        assert shop.world.order(token).status in (200, 201)


def order_more_than_there_is(shop):
    for token in [shop.sale.token() for _ in range(shop.sale.show()["free"] + 1)]:
        hurry(shop.world, token)


def fill_the_ring(shop):
    """More admissions than the smallest ring has room for, while nobody empties it. The gate closes orders when that has lasted for 2 s, so all are
    connected before: what is left to do then takes a slow machine not long either."""
    shop.sale.move(2 * RING_RECORDS)
    template, keys = world_module.Token.read(shop.sale.token()), shop.world.signing_keys()
    tokens = [template.signed(keys, serial=number, buyer=number) for number in range(1, RING_RECORDS + 20)]
    with contextlib.ExitStack() as stack:
        with shop.world.crowd.entered():
            connected = [stack.enter_context(connection_of(number)) for number in range(len(tokens))]
        os.kill(shop.world.daemon.pid, signal.SIGSTOP)
        try:
            for sock, token in zip(connected, tokens):
                stack.enter_context(shop.world.history.buyer("POST", f"/v1/orders/{token}"))
                sock.send(talk.request("POST", f"/v1/orders/{token}"))
        finally:
            os.kill(shop.world.daemon.pid, signal.SIGCONT)
        wait_until(lambda: shop.world.packets("ring_full"), "the ring was full")


def connection_of(number):
    sock = socket.socket()
    sock.bind((f"10.72.{number // 250}.{number % 250 + 1}", 0))
    sock.connect((world_module.SHOP["ipv4"], world_module.PORT))
    return sock


def ask_again_after_the_end(shop):
    token = shop.sale.token()
    assert shop.world.order(token).status == 201
    shop.sale.act("end")
    shop.world.order(token)


def order_after_the_end(shop):
    token = shop.sale.token()
    shop.sale.act("end")
    time.sleep(0.1)
    shop.world.order(token)


def order_a_few(shop):
    for _ in range(12):
        hurry(shop.world, shop.sale.token())


def order_and_restart(shop):
    assert shop.world.order(shop.sale.token()).status == 201
    shop.kill(writer=False)
    shop.start(writer=False)


def order_too_much_after_a_reboot(shop):
    token = shop.sale.token("one", quantity=2)
    assert shop.world.order(token).status == 201
    shop.reboot()
    hurry(shop.world, shop.sale.signed(token, serial=1))


def order_and_kill_the_writer(shop):
    assert shop.world.order(shop.sale.token()).status == 201
    shop.kill(daemon=False)
    shop.start(daemon=False)


def pay_late(shop):
    shop.sale = shop.world.sale(**{**SALE, "hold_seconds": 1})
    token = shop.sale.token()
    order = shop.world.order(token).json()
    wait_until(lambda: shop.world.public("GET", f"/v1/orders/{token}").json()["state"] == "expired", "the hold is over")
    assert shop.world.control("POST", f"/v1/orders/{order['id']}/confirm").status == 200


def cancel_twice(shop):
    order = shop.world.order(shop.sale.token()).json()
    for _ in range(2):
        assert shop.world.control("POST", f"/v1/orders/{order['id']}/cancel").status == 200


# Plant: what to do, and the breaches of which at least one must be named.
SCENARIOS = {
    "take_before_duplicate": (order_twice, {"units"}),
    "off_by_one": (order_more_than_there_is, {"units", "guard_fired"}),
    "ring_full_after_take": (fill_the_ring, {"units"}),
    "window_before_duplicate": (ask_again_after_the_end, {"yes_taken_back"}),
    "end_not_asked": (order_after_the_end, {"outside_window"}),
    "lost_ring_entry": (order_a_few, {"never_at_rest"}),
    "stale_stock_after_restart": (order_and_restart, {"units"}),
    "buyers_not_rebuilt": (order_too_much_after_a_reboot, {"guard_fired"}),
    "late_payment_takes_no_unit": (pay_late, {"units"}),
    "double_release": (cancel_twice, {"units"}),
    "acknowledge_before_commit": (order_and_kill_the_writer, {"lost_order"}),
}
BY_CRASH_POINTS = {"no_sync"}


def names():
    return re.findall(r"^\tX\((\w+),", TABLE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture
def programs(monkeypatch):
    """Use the programs of a plant."""
    def use(plant):
        directory = PLANTED / plant if plant else world_module.BUILD
        for name in ("sluice", "sluiced", "sluice-writer"):
            assert (directory / name).exists(), f"not built: {directory / name} (make planted)"
        monkeypatch.setattr(world_module, "SLUICE", directory / "sluice")
        monkeypatch.setattr(world_module, "SLUICED", directory / "sluiced")
        monkeypatch.setattr(world_module, "WRITER", directory / "sluice-writer")
        monkeypatch.setattr(test_crash_points, "WRITER", directory / "sluice-writer")
    monkeypatch.setattr(world_history, "REST_S", REST_S)
    return use


def shop_without_crowd():
    return Shop(1, cycles=1, crowd=False, sale=SALE, settings={"gate.ring_bytes": RING_BYTES})


def test_every_plant_has_a_scenario():
    assert set(names()) == set(SCENARIOS) | BY_CRASH_POINTS


@pytest.mark.parametrize("plant", SCENARIOS)
def test_the_checker_names_what_is_planted(plant, programs):
    programs(plant)
    scenario, expected = SCENARIOS[plant]
    with pytest.raises(world_history.Broken) as caught, shop_without_crowd() as shop:
        scenario(shop)
    assert caught.value.names & expected, caught.value
    shutil.rmtree(caught.value.kept)


def test_without_a_plant_the_same_steps_break_nothing(programs):
    programs(None)
    with shop_without_crowd() as shop:
        for scenario, _ in SCENARIOS.values():
            shop.sale = shop.world.sale(**SALE)
            scenario(shop)


def test_a_writer_that_does_not_sync_loses_orders_with_the_power(programs, tmp_path):
    programs("no_sync")
    with pytest.raises(AssertionError, match="order [0-9]+ was"):
        for point in range(20, 100, 5):
            directory = tmp_path / str(point)
            directory.mkdir(mode=0o700)
            test_crash_points.one_life(directory, "power", point, 1)
