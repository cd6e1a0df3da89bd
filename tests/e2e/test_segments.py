# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""One order, however the request is cut, joined, dressed or ended: one unit, and the right answer."""
import socket
import struct

import pytest

import talk
from netns import wait_until

ORDER_HEAD = len("POST /v1/orders/")


@pytest.fixture
def sale(world):
    return world.sale(stock=3)


def order_bytes(token, *headers, **kwargs):
    return talk.request("POST", f"/v1/orders/{token}", headers, **kwargs)


def assert_one_unit(sale):
    sale.assert_books(put_in=3, free=2, held=1)


def test_in_one_segment_the_gate_admits(world, sale, family):
    before = world.packets("admitted")
    with world.connect(family) as connection:
        assert connection.ask(order_bytes(sale.token())).status == 201
    assert world.packets("admitted") == before + 1
    assert_one_unit(sale)


def test_in_one_byte_segments_the_call_door_admits(world, sale, family):
    before = world.calls("admitted")
    answer = world.order_by_call_door(sale.token(), family)
    assert answer.status == 201, answer
    assert world.calls("admitted") == before + 1
    assert_one_unit(sale)


@pytest.mark.parametrize("cut", [4, 8, ORDER_HEAD, ORDER_HEAD + 1, ORDER_HEAD + 32, ORDER_HEAD + 63, ORDER_HEAD + 64])
def test_cut_before_the_end_of_the_token_the_call_door_admits(world, sale, family, cut):
    before = world.calls("admitted")
    data = order_bytes(sale.token())
    with world.connect(family) as connection:
        connection.send_in_pieces(data, [cut, len(data) - cut])
        assert connection.receive().status == 201
    assert world.calls("admitted") == before + 1
    assert_one_unit(sale)


@pytest.mark.parametrize("cut", [ORDER_HEAD + 65, ORDER_HEAD + 70, -1])
def test_cut_behind_the_token_the_gate_has_admitted_already(world, sale, family, cut):
    before = world.packets("admitted")
    data = order_bytes(sale.token())
    cut %= len(data)
    with world.connect(family) as connection:
        connection.send_in_pieces(data, [cut, len(data) - cut])
        assert connection.receive().status == 201
    assert world.packets("admitted") == before + 1
    assert_one_unit(sale)


def test_two_orders_pipelined_in_one_segment_are_both_answered_in_order(world, sale, family):
    tokens = [sale.token(), sale.token()]
    with world.connect(family) as connection:
        connection.send(b"".join(order_bytes(token) for token in tokens))
        first, second = connection.receive(), connection.receive()
    assert (first.status, second.status) == (201, 201)
    orders = {order["id"]: order["seq"] for order in sale.orders()}
    assert [orders[answer.json()["id"]] for answer in (first, second)] == [1, 2]
    sale.assert_books(put_in=3, free=1, held=2)


def test_the_same_order_pipelined_twice_takes_one_unit(world, sale, family):
    token = sale.token()
    with world.connect(family) as connection:
        connection.send(order_bytes(token) * 2)
        assert sorted((connection.receive().status, connection.receive().status)) == [200, 201]
    assert_one_unit(sale)


def test_a_refused_order_ends_the_connection_and_what_was_pipelined_behind_it_takes_nothing(world, sale, family):
    refused, other = world.sale(opens_in=600).token(), sale.token()
    with world.connect(family) as connection:
        connection.send(order_bytes(refused) + order_bytes(other))
        assert connection.receive_only().code() == "sale_not_open"
        port = connection.port
    world.assert_no_socket(port)
    sale.assert_books(put_in=3, free=3, held=0)


def test_page_order_and_repeat_on_one_connection_that_is_kept_alive(world, sale, family):
    token = sale.token()
    with world.connect(family) as connection:
        assert connection.ask(talk.request("GET", "/")).status == 200
        first = connection.ask(order_bytes(token))
        again = connection.ask(order_bytes(token))
        assert (first.status, again.status) == (201, 200) and first.body == again.body
        assert connection.ask(talk.request("GET", f"/v1/orders/{token}")).body == first.body
    assert_one_unit(sale)


@pytest.mark.parametrize("what", ["sale", "unknown sale", "token", "order", "cancel"])
def test_what_a_buyer_asks_before_he_orders_ends_the_connection(world, sale, family, what):
    """Else his order would be the second request of that connection, which the gate cannot read."""
    token, body = sale.token(), b'{"buyer":"somebody else"}'
    method, path, status = {"sale": ("GET", sale.path, 200), "unknown sale": ("GET", "/v1/sales/nosuch", 404),
                            "token": ("POST", f"{sale.path}/tokens", 201), "order": ("GET", f"/v1/orders/{token}", 404),
                            "cancel": ("DELETE", f"/v1/orders/{token}", 404)}[what]
    with world.connect(family) as connection:
        connection.send(talk.request(method, path, body=body if what == "token" else b""))
        answer = connection.receive_only()
    assert (answer.status, answer.header("connection")) == (status, "close"), answer
    assert world.order(token, family).status == 201
    assert_one_unit(sale)


def test_curl_keeps_its_connection_from_page_to_order(world, sale, family):
    token = sale.token()
    base = f"http://[{'fd71::1'}]:8080" if family == "ipv6" else "http://10.71.0.1:8080"
    done = world.crowd.run(["curl", "-sS", "--max-time", "20", "-w", "%{http_code} %{num_connects}\n", "-o", "/dev/null",
                            f"{base}/sales/{sale.slug}", "--next", "-sS", "--max-time", "20", "-X", "POST", "-w",
                            "%{http_code} %{num_connects}\n", "-o", "/dev/null", f"{base}/v1/orders/{token}"])
    assert done.stdout.split("\n")[:2] == ["200 1", "201 0"], done.stdout
    assert_one_unit(sale)


def test_a_client_that_shuts_its_side_after_the_request_still_gets_the_answer(world, sale, family):
    refused = world.sale(opens_in=600).token()
    for token, status in ((sale.token(), 201), (refused, 409)):
        with world.connect(family) as connection:
            connection.send(order_bytes(token, ("Connection", "close")))
            connection.sock.shutdown(socket.SHUT_WR)
            assert connection.receive_only().status == status
    assert_one_unit(sale)


def test_an_order_whose_client_resets_the_connection_is_still_an_order(world, sale, family):
    token = sale.token()
    with world.connect(family) as connection:
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.send(order_bytes(token))
    wait_until(lambda: sale.books()["held"] == 1, "the order is durable")
    answer = world.order(token, family)
    assert answer.status in (200, 201) and answer.json()["seq"] == 1, answer
    assert_one_unit(sale)


def test_headers_longer_than_a_segment(world, sale, family):
    cookies = [("Cookie", f"c{n}=" + "x" * 1000) for n in range(6)]
    with world.connect(family) as connection:
        assert connection.ask(order_bytes(sale.token(), *cookies)).status == 201
    assert_one_unit(sale)


def test_an_order_with_a_body(world, sale, family):
    with world.connect(family) as connection:
        data = order_bytes(sale.token(), ("Content-Type", "application/json"), body=b'{"note":"' + b"x" * 5000 + b'"}')
        assert connection.ask(data).status == 201
    assert_one_unit(sale)


def test_an_order_with_a_chunked_body(world, sale, family):
    with world.connect(family) as connection:
        head = order_bytes(sale.token(), ("Transfer-Encoding", "chunked"))
        assert connection.ask(head + b"5\r\nhello\r\n0\r\n\r\n").status == 201
    assert_one_unit(sale)


def test_curl_with_expect_100_continue(world, sale, family):
    curl = world.curl_order(sale.token(), "-H", "Expect: 100-continue", "--data-binary", "hello", family=family)
    assert curl.returncode == 0, curl.stderr
    assert b" 201 " in curl.answer.raw or curl.answer.status == 201, curl.answer
    assert_one_unit(sale)


def test_http_1_0_is_answered_and_closed(world, sale, family):
    with world.connect(family) as connection:
        connection.send(order_bytes(sale.token(), version="HTTP/1.0"))
        assert connection.receive_only().status == 201
    assert_one_unit(sale)


def test_absolute_form_is_an_order_too(world, sale, family):
    """RFC 9112 section 3.2.2: a server must accept it."""
    with world.connect(family) as connection:
        connection.send(talk.request("POST", f"http://shop.example/v1/orders/{sale.token()}", [("Connection", "close")]))
        assert connection.receive_only().status == 201
    assert_one_unit(sale)


def test_an_empty_line_before_the_request_is_overlooked(world, sale, family):
    """RFC 9112 section 2.2."""
    with world.connect(family) as connection:
        assert connection.ask(b"\r\n" + order_bytes(sale.token())).status == 201
    assert_one_unit(sale)


def test_a_query_behind_the_token_changes_nothing(world, sale, family):
    assert world.order(sale.token() + "?utm_source=mail", family).status == 201
    assert_one_unit(sale)


@pytest.mark.parametrize("method", ["post", "Post", "PUT", "PATCH", "HEAD"])
def test_another_method_takes_nothing(world, sale, family, method):
    with world.connect(family) as connection:
        connection.send(talk.request(method, f"/v1/orders/{sale.token()}", [("Connection", "close")]))
        raw = connection.receive_end()
        answer, _ = talk.split_head(raw)
        assert answer and 400 <= answer.status < 600 and answer.status != 500, raw
    sale.assert_books(put_in=3, free=3, held=0)


@pytest.mark.parametrize("data", [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,
    b"\0" * 300,
    b"POST /v1/orders/",
    b"POST  /v1/orders/" + b"A" * 64 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
], ids=["tls", "zeros", "cut_off", "two_blanks", "version"])
def test_what_is_no_request_takes_nothing_and_harms_nobody(world, sale, family, data):
    with world.connect(family) as connection:
        connection.sock.settimeout(0.3)
        connection.send(data)
        connection.sock.shutdown(socket.SHUT_WR)
        try:
            connection.receive_end()
        except (ConnectionResetError, TimeoutError):
            pass  # the server may wait for the rest of a head until its own time is up
    assert world.order(sale.token(), family).status == 201
    assert_one_unit(sale)
