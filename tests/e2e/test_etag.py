# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Two operators at one sale: with ETag and If-Match exactly one of them wins, and the other is told."""
import threading
import time

import pytest

from world import World, rfc3339


@pytest.fixture(scope="module")
def world():
    with World(start=("gate", "writer", "daemon")) as shop:
        yield shop


def tag_of(world, sale):
    reply = world.control("GET", sale.path)
    return reply.headers["ETag"]


def put(world, sale, fields, **headers):
    return world.control("PUT", sale.path, fields, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_a_tag_changes_with_the_settings_and_with_nothing_else(world):
    sale = world.sale(stock=5)
    first = tag_of(world, sale)
    assert first == tag_of(world, sale) and len(first) == 18 and first[0] == first[-1] == '"'
    assert world.order(sale.token()).status == 201
    sale.move(3)
    assert tag_of(world, sale) == first, "orders and stock are no settings"
    sale.change(hold_seconds=60)
    second = tag_of(world, sale)
    assert second != first
    sale.act("pause")
    assert tag_of(world, sale) not in (first, second)
    sale.act("resume")
    assert tag_of(world, sale) == second


def test_a_change_on_stale_knowledge_is_refused_and_changes_nothing(world):
    sale = world.sale(stock=5)
    stale = tag_of(world, sale)
    reply = put(world, sale, {"hold_seconds": 61}, If_Match=stale)
    assert reply.status == 200 and reply.headers["ETag"] == tag_of(world, sale) != stale
    for refused in (put(world, sale, {"hold_seconds": 62}, If_Match=stale), put(world, sale, {"hold_seconds": 62}, If_None_Match="*"),
                    world.control("POST", f"{sale.path}/pause", headers={"If-Match": stale}),
                    world.control("POST", f"{sale.path}/end", headers={"If-Match": '"0000000000000000"'})):
        assert (refused.status, refused.code()) == (412, "precondition_failed"), refused
        assert refused.headers["ETag"] == tag_of(world, sale)
    assert sale.show()["hold_seconds"] == 61 and sale.show()["state"] == "open"
    for good in (f'"x", {tag_of(world, sale)}', "*"):
        assert put(world, sale, {"hold_seconds": 61}, If_Match=good).status == 200


def test_creating_and_changing_can_be_told_apart(world):
    fields = {"stock": 1, "opens_at": rfc3339(time.time()), "ends_at": rfc3339(time.time() + 600)}
    assert world.control("PUT", "/v1/sales/made-once", fields, headers={"If-Match": "*"}).status == 412
    assert world.control("PUT", "/v1/sales/made-once", fields, headers={"If-None-Match": "*"}).status == 201
    assert world.control("PUT", "/v1/sales/made-once", fields, headers={"If-None-Match": "*"}).status == 412


def test_of_many_writers_with_one_tag_one_wins(world):
    sale = world.sale(stock=5)
    for _ in range(5):
        tag, answers = tag_of(world, sale), []

        def change(hold):
            answers.append((put(world, sale, {"hold_seconds": hold}, If_Match=tag).status, hold))

        base = sale.show()["hold_seconds"]
        threads = [threading.Thread(target=change, args=(base + 1 + n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(status for status, _ in answers) == [200] + [412] * 7
        assert sale.show()["hold_seconds"] == next(hold for status, hold in answers if status == 200)
