# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""A sale's life as buyers and the shop see it, and its books: what was put in is free, held or confirmed, at any time."""
import math
import time
from concurrent.futures import ThreadPoolExecutor

from netns import wait_until
from tokens import Token
from world import rfc3339, seconds_of


def assert_order(answer, status, sale, token, quantity=1):
    assert answer.status == status, answer
    order = answer.json()
    assert order["sale"] == sale.slug and order["quantity"] == quantity and order["state"] == "held", order
    assert order["id"] == f"{Token.read(token).serial:016x}"
    assert seconds_of(order["committed_at"]) >= seconds_of(order["admitted_at"]) - 0.001
    return order


def assert_refused(answer, status, code):
    assert (answer.status, answer.code()) == (status, code), answer
    return answer


def test_a_sale_from_scheduled_to_sold_out(world, family):
    sale = world.sale(stock=3, opens_in=600)
    tokens = [sale.token() for _ in range(5)]
    assert sale.show()["state"] == "scheduled"

    before = time.time()
    early = assert_refused(world.order(tokens[0], family), 409, "sale_not_open")
    after = time.time()
    retry = int(early.header("retry-after"))
    assert math.ceil(sale.opens_at - after - 0.02) <= retry <= math.ceil(sale.opens_at - before + 0.02)

    sale.change(opens_at=rfc3339(time.time() + 1))
    wait_until(lambda: sale.show()["state"] == "open", "the sale opens by itself")
    orders = [assert_order(world.order(token, family), 201, sale, token) for token in tokens[:3]]
    assert [order["seq"] for order in orders] == [1, 2, 3]
    for token in tokens[3:]:
        assert_refused(world.order(token, family), 409, "sold_out")
    assert sale.show()["state"] == "sold_out"
    sale.assert_books(put_in=3, free=0, held=3, confirmed=0)


def test_nobody_is_admitted_before_the_opening_however_often_they_ask(world, family):
    sale = world.sale(stock=5, opens_in=600)
    token = sale.token()
    for _ in range(30):
        assert_refused(world.order(token, family), 409, "sale_not_open")
    sale.assert_books(put_in=5, free=5, held=0)


def test_a_sale_is_open_at_its_opening_and_over_at_its_end_without_being_told(world):
    sale = world.sale(stock=5, opens_in=1.5, ends_in=4)
    tokens = [sale.token(), sale.token()]
    first = wait_until(lambda: (answer := world.order(tokens[0])).status == 201 and answer, "an order after the opening",
                       pause=0.1)
    assert seconds_of(first.json()["admitted_at"]) >= sale.opens_at - 0.001
    wait_until(lambda: sale.show()["state"] == "ended", "the sale ends by itself")
    assert_refused(world.order(tokens[1]), 410, "sale_ended")
    sale.assert_books(put_in=5, free=4, held=1)


def test_a_buyer_who_asks_again_gets_the_same_order(world, family):
    sale = world.sale(stock=2)
    token = sale.token()
    first = assert_order(world.order(token, family), 201, sale, token)
    for _ in range(3):
        assert assert_order(world.order(token, family), 200, sale, token) == first
    sale.assert_books(put_in=2, free=1, held=1)


def test_a_buyer_who_asks_again_after_the_end_still_has_the_order(world):
    sale = world.sale(stock=2)
    token, late = sale.token(), sale.token()
    first = assert_order(world.order(token), 201, sale, token)
    sale.act("end")
    assert assert_order(world.order(token), 200, sale, token) == first
    assert_refused(world.order(late), 410, "sale_ended")


def test_the_state_of_an_order_can_be_read(world, family):
    sale = world.sale(stock=2)
    token = sale.token()
    answer = world.public("GET", f"/v1/orders/{token}", family=family)
    assert_refused(answer, 404, "no_order")
    order = assert_order(world.order(token, family), 201, sale, token)
    answer = world.public("GET", f"/v1/orders/{token}", family=family)
    assert answer.status == 200 and answer.json() == order


def test_a_token_asked_for_twice_is_the_same_byte_for_byte(world, family):
    sale = world.sale(stock=2)
    ask = {"buyer": sale.buyer(), "quantity": 1}
    first = world.public("POST", f"{sale.path}/tokens", ask, family=family)
    again = world.public("POST", f"{sale.path}/tokens", ask, family=family)
    assert (first.status, again.status) == (201, 200)
    assert first.json()["token"] == again.json()["token"]
    assert sale.token(ask["buyer"]) == first.json()["token"], "the shop's own issue gives the same"
    assert first.json()["order_url"].endswith(f"/v1/orders/{first.json()['token']}")
    assert sale.token() != first.json()["token"]


def test_a_token_says_what_the_format_says(world):
    sale = world.sale(stock=2, per_buyer=3)
    text = sale.token(quantity=2)
    token = Token.read(text)
    assert (token.version, token.flags, token.quantity, token.sale) == (1, 0, 2, sale.id)
    assert token.mac_is_good(world.signing_keys())
    assert token.network == 0 and token.expires_at > token.issued_at
    assert abs(token.issued_at - time.time()) < 60


def test_tokens_are_the_same_after_a_restart_of_the_daemon(world):
    sale = world.sale(stock=2)
    buyers = [sale.buyer() for _ in range(5)]
    tokens = [sale.token(buyer) for buyer in buyers]
    assert world.daemon.terminate() == 0
    world.start_daemon()
    assert [sale.token(buyer) for buyer in buyers] == tokens
    assert_order(world.order(tokens[0]), 201, sale, tokens[0])


def test_a_buyer_with_two_tokens_gets_one_unit(world, family):
    sale = world.sale(stock=5)
    token = sale.token()
    twin = sale.signed(token, serial=Token.read(token).serial ^ 1)
    assert_order(world.order(token, family), 201, sale, token)
    assert_refused(world.order(twin, family), 409, "already_ordered")
    sale.assert_books(put_in=5, free=4, held=1)


def test_a_buyer_who_has_ordered_gets_no_second_token(world):
    sale = world.sale(stock=5)
    buyer = sale.buyer()
    token = sale.token(buyer)
    assert_order(world.order(token), 201, sale, token)
    reply = world.control("POST", f"{sale.path}/tokens", {"buyer": buyer})
    assert reply.status in (200, 409), reply
    assert reply.json()["token"] == token if reply.status == 200 else reply.code() == "already_ordered"


def test_per_buyer_2_is_two_units_in_one_order_or_in_two(world, family):
    sale = world.sale(stock=10, per_buyer=2)
    both = sale.token(quantity=2)
    assert_order(world.order(both, family), 201, sale, both, quantity=2)
    one = sale.token()
    assert_order(world.order(one, family), 201, sale, one)
    second = sale.signed(one, serial=Token.read(one).serial ^ 1)
    third = sale.signed(one, serial=Token.read(one).serial ^ 2)
    assert_order(world.order(second, family), 201, sale, second)
    assert_refused(world.order(third, family), 409, "already_ordered")
    sale.assert_books(put_in=10, free=6, held=4)


def test_the_last_unit_is_not_split(world):
    sale = world.sale(stock=3, per_buyer=2)
    tokens = [sale.token(quantity=2), sale.token(quantity=2), sale.token(quantity=1)]
    assert_order(world.order(tokens[0]), 201, sale, tokens[0], quantity=2)
    assert_refused(world.order(tokens[1]), 409, "sold_out")
    assert_order(world.order(tokens[2]), 201, sale, tokens[2])
    sale.assert_books(put_in=3, free=0, held=3)


def test_units_added_reopen_a_sale_that_was_sold_out(world):
    sale = world.sale(stock=1)
    tokens = [sale.token() for _ in range(3)]
    assert_order(world.order(tokens[0]), 201, sale, tokens[0])
    assert_refused(world.order(tokens[1]), 409, "sold_out")
    books = sale.move(1)
    assert (books["put_in"], books["free"]) == (2, 1)
    assert sale.show()["state"] == "open"
    assert_order(world.order(tokens[1]), 201, sale, tokens[1])
    assert_refused(world.order(tokens[2]), 409, "sold_out")
    sale.assert_books(put_in=2, free=0, held=2)


def test_no_more_units_can_be_taken_away_than_are_free(world):
    sale = world.sale(stock=5)
    token, late = sale.token(), sale.token()
    assert_order(world.order(token), 201, sale, token)
    reply = world.control("POST", f"{sale.path}/stock", {"delta": -5})
    assert (reply.status, reply.code(), reply.json()["free"]) == (409, "not_enough_free", 4)
    sale.assert_books(put_in=5, free=4, held=1)
    sale.move(-4)
    sale.assert_books(put_in=1, free=0, held=1)
    assert_refused(world.order(late), 409, "sold_out")


def test_pause_refuses_and_resume_admits(world, family):
    sale = world.sale(stock=2)
    token = sale.token()
    assert sale.act("pause")["state"] == "paused"
    answer = assert_refused(world.order(token, family), 503, "paused")
    assert int(answer.header("retry-after")) > 0
    assert sale.act("resume")["state"] == "open"
    assert_order(world.order(token, family), 201, sale, token)


def test_an_end_is_final(world, family):
    sale = world.sale(stock=2)
    token = sale.token()
    assert sale.act("end")["state"] == "ended"
    assert_refused(world.order(token, family), 410, "sale_ended")
    for method, path, body in (("POST", f"{sale.path}/resume", None),
                               ("PUT", sale.path, {"ends_at": rfc3339(time.time() + 7200)})):
        reply = world.control(method, path, body)
        assert (reply.status, reply.code()) == (409, "sale_ended"), reply
    assert_refused(world.order(token, family), 410, "sale_ended")


def test_two_sales_share_nothing(world):
    one, two = world.sale(stock=1), world.sale(stock=1)
    buyer = "a buyer of both"
    for sale in (one, two):
        token = sale.token(buyer)
        assert_order(world.order(token), 201, sale, token)
    one.assert_books(free=0, held=1)
    two.assert_books(free=0, held=1)


def test_a_crowd_at_once_gets_exactly_the_stock(world):
    sale = world.sale(stock=40)
    tokens = [sale.token() for _ in range(120)]
    families = ("ipv4", "ipv6")
    with ThreadPoolExecutor(16) as pool:
        # Every token twice, at about the same time: a double click.
        answers = list(pool.map(lambda job: (job[1], world.order(job[1], families[job[0] % 2])),
                                enumerate(token for token in tokens for _ in range(2))))
    winners = {token for token, answer in answers if answer.status in (200, 201)}
    assert len(winners) == 40
    for token, answer in answers:
        if token in winners:
            # The first click may have come before, at the same time, or after the sale was sold out to others.
            assert answer.status in (200, 201) or answer.code() == "sold_out", answer
        else:
            assert_refused(answer, 409, "sold_out")
    ids = [answer.json()["id"] for _, answer in answers if answer.status == 201]
    assert len(ids) == len(set(ids)), "an order was called new twice"
    sale.assert_books(put_in=40, free=0, held=40)


def test_the_ledger_tells_the_same_story(world):
    sale = world.sale(stock=7)
    tokens = [sale.token() for _ in range(4)]
    orders = [assert_order(world.order(token), 201, sale, token) for token in tokens]
    sale.move(3)
    sale.assert_books(put_in=10, free=6, held=4)
    tables = {row[0] for row in world.ledger_query("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"orders", "sales"} <= tables, tables
    rows = world.ledger_query(f"SELECT seq, quantity, state FROM orders WHERE sale = {sale.id} ORDER BY seq")
    assert rows == [[str(order["seq"]), "1", "held"] for order in orders]
    assert world.ledger_query("PRAGMA integrity_check") == [["ok"]]


def test_the_public_view_tells_no_exact_stock(world, family):
    sale = world.sale(stock=12345)
    answer = world.public("GET", sale.path, family=family)
    view = answer.json()
    assert answer.status == 200 and view["slug"] == sale.slug and view["state"] == "open"
    assert abs(seconds_of(view["server_time"]) - time.time()) < 60
    assert view["availability"] == "many" and view["per_buyer"] == 1
    assert b"12345" not in answer.body
    few = world.sale(stock=6)
    shown = lambda: world.public("GET", few.path, family=family).json()["availability"]
    assert shown() == "many"
    few.move(-1)
    assert shown() == "few", "of five units nobody says that there are plenty"
    few.move(-5)
    assert shown() == "sold_out"
    assert_refused(world.public("GET", "/v1/sales/no-such-sale", family=family), 404, "unknown_sale")
