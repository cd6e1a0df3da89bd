# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""`sluice verify` beside the whole life of orders: books agree after every way of ending one; buyers' counts are mended through the daemon."""
from test_verify import BROKEN, OK, Maps, buyer_key, named, sold, verify, word


def test_books_agree_after_every_end_of_an_order(world):
    sale, _ = sold(world, count=5, stock=5)
    ids = [order["id"] for order in sale.orders()]
    world.ask("POST", f"/v1/orders/{ids[0]}/confirm")
    world.ask("POST", f"/v1/orders/{ids[1]}/cancel")
    for order, restock in ((ids[2], True), (ids[3], False)):
        world.ask("POST", f"/v1/orders/{order}/confirm")
        world.ask("POST", f"/v1/orders/{order}/refund", {"restock": restock})
    _, report = verify(world, expect=OK)
    line, = [line for line in report["sales"] if line["sale"] == sale.slug]
    assert (line["put_in"], line["free"], line["held"], line["confirmed"], line["equation"]) == (4, 2, 1, 1, "holds")
    verify(world, "--from", "daemon", expect=OK)


def test_the_daemon_sets_a_buyers_count_right(world):
    sale, orders = sold(world)
    with Maps(world).changed("buyers", buyer_key(sale, orders[1][1]), word(0, 4, lambda _: 7)):
        _, report = verify(world, "--repair", expect=OK)
        assert [entry["difference"] for entry in report["repaired"]] == ["buyer_too_high"]
