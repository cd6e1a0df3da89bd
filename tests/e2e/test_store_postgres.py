# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The writer with its ledger in PostgreSQL: the same promises as with a file, whatever is killed."""
from concurrent.futures import ThreadPoolExecutor

import pytest

from netns import wait_until
from postgres import Postgres
from test_recovery import Stream, refusal
from world import World

ORDERS = "SELECT lpad(to_hex(serial), 16, '0'), seq FROM sluice.orders WHERE sale = {} ORDER BY seq"


@pytest.fixture(scope="module")
def server():
    with Postgres() as postgres:
        yield postgres


@pytest.fixture(scope="module", name="shop")
def shop_on_postgres(server):
    with World({"writer.store": "postgres", "writer.postgres": server.conninfo}) as shop:
        yield shop


@pytest.fixture(autouse=True)
def whole(server, shop):
    """A test that failed half way leaves nothing dead to the next one."""
    if not server.process.running():
        server.start()
    if not shop.writer.running():
        shop.start_writer()
    shop.wait_ready()


def assert_all_in_ledger(server, sale, orders):
    """What buyers were told is what the server has, and seq has no gaps."""
    wait_until(lambda: sale.books()["in_flight"] == 0, "nothing is in flight")
    rows = server.query(ORDERS.format(sale.id))
    assert [int(seq) for _, seq in rows] == list(range(1, len(rows) + 1))
    assert dict(rows).items() >= {order["id"]: str(order["seq"]) for order in orders}.items()
    return rows


def closed(shop, sale):
    """Waits until the gate refuses because orders cannot be made durable. Returns a token that was refused."""
    def refused_token():
        token = sale.token()
        return token if refusal(shop, token) == (503, "unavailable") else None
    return wait_until(refused_token, "orders are closed", timeout=30)


def test_a_sale_is_sold_exactly(server, shop):
    sale = shop.sale(stock=40)
    tokens = [sale.token() for _ in range(60)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(shop.order, tokens))
    told = [answer.json() for answer in answers if answer.status == 201]
    assert len(told) == 40 and sorted(order["seq"] for order in told) == list(range(1, 41))
    assert {answer.code() for answer in answers if answer.status != 201} == {"sold_out"}
    assert len(assert_all_in_ledger(server, sale, told)) == 40
    sale.assert_books(put_in=40, free=0, held=40)


def test_the_writer_is_killed_during_a_stream_of_orders(server, shop):
    sale, other = shop.sale(stock=400), shop.sale(stock=400)
    with Stream(shop, sale, 80) as stream:
        shop.writer.kill()
        closed(shop, other)
        shop.start_writer()
        stream.finish()
    assert_all_in_ledger(server, sale, stream.confirmed.values())
    sale.assert_books(put_in=400, held=80)


def test_the_server_is_killed_during_a_stream_of_orders(server, shop):
    sale, other = shop.sale(stock=400), shop.sale(stock=400)
    writer = shop.writer.pid
    with Stream(shop, sale, 80) as stream:
        server.kill()
        token = closed(shop, other)
        free = other.show()["free"]
        for _ in range(5):
            assert refusal(shop, token) == (503, "unavailable")
        assert other.show()["free"] == free, "a unit was taken while nobody could make the order durable"
        server.start()
        stream.finish()
    assert shop.writer.running() and shop.writer.pid == writer, "the writer waits for its server"
    assert_all_in_ledger(server, sale, stream.confirmed.values())
    sale.assert_books(put_in=400, held=80)
    wait_until(lambda: shop.order(token).status in (200, 201), "orders are open again")


def test_writer_and_server_are_killed_together(server, shop):
    sale = shop.sale(stock=400)
    with Stream(shop, sale, 60) as stream:
        server.kill()
        shop.writer.kill()
        server.start()
        shop.start_writer()
        stream.finish()
    assert_all_in_ledger(server, sale, stream.confirmed.values())
    sale.assert_books(put_in=400, held=60)


def test_the_log_names_the_ledger_and_status_is_as_ever(server, shop):
    assert f"ledger postgresql user=writer dbname=ledger host={server.dir}" in shop.writer.log()
    assert shop.status()["orders_open"]
