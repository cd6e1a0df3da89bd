# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Clients that break the rules, or use rules that nobody else uses: what each hears, that it ends in time, and what became of the units.

Two promises for every one of them: while it is at the door another buyer is served, and the books hold. Where a strange request is
refused although its order had been admitted (the gate reads the first segment and no further), the order stands: asking again gives it.
"""
import contextlib
import dataclasses
import random
import socket
import time

import pytest

import talk
from netns import wait_until
from rawtcp import TCP, payload
from strange import Buyers, OddClient, end_of, ended, fds, metric, reset
from world import World

IDLE_S = 1
END_S = 5  # nobody is at the door for longer: the idle time, twice that for a request that never gets whole, and a busy machine


@pytest.fixture(scope="module")
def world():
    with World({"daemon.idle_seconds": IDLE_S}) as shop:
        yield shop


@pytest.fixture(scope="module")
def bystander(world):
    """A sale for the honest buyers beside the strange ones."""
    sale = world.sale(stock=10000)
    yield sale
    sale.assert_books()


@pytest.fixture(autouse=True)
def honest_buyers_are_served(world, bystander, family):
    """Before and after each test. What is served during it, the test says."""
    assert world.order(bystander.token(), family).status == 201
    yield
    assert world.order(bystander.token(), family).status == 201


def order_bytes(token, *headers, **kwargs):
    return talk.request("POST", f"/v1/orders/{token}", [("Connection", "close"), *headers], **kwargs)


# --- HTTP -------------------------------------------------------------------------------------------------------------------------------
CLOSED = None


@dataclasses.dataclass
class Case:
    """`make(token)`: the bytes. What is heard (CLOSED: nothing) and the units taken, at the wire (all in one write) and at the call door
    (cut, so that XDP cannot read it)."""
    name: str
    make: object
    wire: tuple
    call: tuple


def head(target="/v1/orders/{}", method="POST", version="HTTP/1.1", lines=(), body=b"", eol="\r\n"):
    """A case's `make`."""
    def make(token):
        text = eol.join([f"{method} {target.format(token)} {version}", "Host: shop.example", "Connection: close", *lines]) + eol * 2
        return text.encode("latin-1") + body
    return make


def fixed(data):
    return lambda token: data


def escaped(token, count):
    return "".join(f"%{ord(char):02x}" if at < count else char for at, char in enumerate(token))


ORDER, REFUSED_LATE = (201, 1), (400, 1)  # refused for what the gate had not read
CASES = [
    # versions
    Case("http_1_0", head(version="HTTP/1.0"), ORDER, ORDER),
    Case("http_1_0_without_host", lambda t: f"POST /v1/orders/{t} HTTP/1.0\r\n\r\n".encode(), ORDER, ORDER),
    Case("http_1_2", head(version="HTTP/1.2"), ORDER, ORDER),
    Case("http_0_9", fixed(b"GET /\r\n"), (400, 0), (400, 0)),
    Case("http_0_9_order", lambda t: f"POST /v1/orders/{t}\r\n\r\n".encode(), (401, 0), (400, 0)),
    Case("http_2_preface", fixed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"), (505, 0), (505, 0)),
    Case("http_2_upgrade", head(lines=["Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"]), ORDER, ORDER),
    Case("http_9_9", head(version="HTTP/9.9"), (505, 1), (505, 0)),
    Case("no_version_at_all", head(version="HTCPCP/1.0"), REFUSED_LATE, (400, 0)),
    # methods
    Case("lower_case_method", head(method="post"), (405, 0), (405, 0)),
    Case("connect", head(target="shop.example:443", method="CONNECT"), (404, 0), (404, 0)),
    Case("trace", head(method="TRACE"), (405, 0), (405, 0)),
    Case("options_asterisk", head(target="*", method="OPTIONS"), (404, 0), (404, 0)),
    Case("long_method", head(method="A" * 3000), (405, 0), (405, 0)),
    # targets
    Case("absolute_form", head(target="http://shop.example/v1/orders/{}"), ORDER, ORDER),
    Case("absolute_form_https", head(target="HTTPS://shop.example:8080/v1/orders/{}?a=b"), ORDER, ORDER),
    Case("query", head(target="/v1/orders/{}?utm_source=mail&x=%00"), ORDER, ORDER),
    Case("token_and_a_character", head(target="/v1/orders/{}A"), (401, 0), (401, 0)),
    Case("token_and_a_slash", head(target="/v1/orders/{}/"), (401, 0), (404, 0)),
    Case("token_and_a_fragment", head(target="/v1/orders/{}#x"), (401, 0), (401, 0)),
    Case("token_percent_encoded", lambda t: head(target=f"/v1/orders/{escaped(t, 64)}")(t), (401, 0), (401, 0)),
    Case("one_character_percent_encoded", lambda t: head(target=f"/v1/orders/{escaped(t, 1)}")(t), (401, 0), (401, 0)),
    Case("two_slashes", head(target="//v1/orders/{}"), (404, 0), (404, 0)),
    Case("dots", head(target="/v1/../v1/orders/{}"), (404, 0), (404, 0)),
    Case("target_of_8000_bytes", head(target="/" + "a" * 8000), (404, 0), (404, 0)),
    Case("target_of_30000_bytes", head(target="/" + "a" * 30000), (414, 0), (414, 0)),
    Case("bytes_above_127_in_the_target", head(target="/v1/orders/\xff\xfe{}"), (401, 0), (401, 0)),
    # heads
    Case("header_of_9000_bytes", head(lines=["X-Long: " + "a" * 9000]), ORDER, ORDER),
    Case("header_of_20000_bytes", head(lines=["X-Long: " + "a" * 20000]), (431, 1), (431, 0)),
    Case("a_thousand_headers", head(lines=[f"X-{n}: y" for n in range(1000)]), (431, 1), (431, 0)),
    Case("bare_line_feeds", head(eol="\n"), ORDER, ORDER),
    Case("empty_lines_before", lambda t: b"\r\n" * 5 + head()(t), ORDER, ORDER),
    Case("folded_header", head(lines=["X-Fold: a", " b"]), ORDER, ORDER),
    Case("two_hosts", head(lines=["Host: other.example"]), ORDER, ORDER),
    Case("no_colon", head(lines=["no colon here"]), REFUSED_LATE, (400, 0)),
    Case("blank_before_the_colon", head(lines=["Content-Length : 5"], body=b"hello"), REFUSED_LATE, (400, 0)),
    Case("header_name_above_127", head(lines=["X-\xe4: y"]), REFUSED_LATE, (400, 0)),
    Case("expectation_nobody_knows", head(lines=["Expect: wonders"]), ORDER, ORDER),
    # bodies
    Case("chunked", head(lines=["Transfer-Encoding: chunked"], body=b"5;x=y\r\nhello\r\n0\r\nX-Trailer: z\r\n\r\n"), ORDER, ORDER),
    Case("chunk_size_no_number", head(lines=["Transfer-Encoding: chunked"], body=b"zz\r\nhello\r\n0\r\n\r\n"), REFUSED_LATE, (400, 0)),
    Case("chunked_and_a_length", head(lines=["Transfer-Encoding: chunked", "Content-Length: 3"], body=b"5\r\nhello\r\n0\r\n\r\n"),
         ORDER, ORDER),
    Case("coding_gzip", head(lines=["Transfer-Encoding: gzip"], body=b"hello"), REFUSED_LATE, (400, 0)),
    Case("length_shorter_than_the_body", head(lines=["Content-Length: 2"], body=b"hello"), ORDER, ORDER),
    Case("two_lengths", head(lines=["Content-Length: 5", "Content-Length: 6"], body=b"hello!"), REFUSED_LATE, (400, 0)),
    Case("the_same_length_twice", head(lines=["Content-Length: 5", "Content-Length: 5"], body=b"hello"), ORDER, ORDER),
    Case("list_of_lengths", head(lines=["Content-Length: 5, 5"], body=b"hello"), REFUSED_LATE, (400, 0)),
    Case("length_below_zero", head(lines=["Content-Length: -5"], body=b"hello"), REFUSED_LATE, (400, 0)),
    Case("length_beyond_64_bits", head(lines=["Content-Length: 99999999999999999999"], body=b"hello"), (413, 1), (413, 0)),
    Case("body_of_a_token_request_of_1_gb", head("/v1/sales/none/tokens", lines=["Content-Length: 1000000000"], body=b"{"),
         (413, 0), (413, 0)),
    # what is no HTTP
    Case("smtp", fixed(b"EHLO shop.example\r\n"), (400, 0), (400, 0)),
    Case("redis", fixed(b"*1\r\n$4\r\nPING\r\n"), (CLOSED, 0), (CLOSED, 0)),
    Case("ssh", fixed(b"SSH-2.0-OpenSSH_9.2\r\n"), (CLOSED, 0), (CLOSED, 0)),
    Case("tabs", lambda t: head()(t).replace(b" ", b"\t"), (CLOSED, 0), (CLOSED, 0)),
    Case("ones", fixed(b"\xff" * 20000), (414, 0), (414, 0)),
]


def status_of_first(raw):
    answer, _ = talk.split_head(raw)
    return answer.status if answer else CLOSED


def send_to(door, connection, data):
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # who is refused early is not read to the end
        if door == "call":
            connection.send(data[:4])
            wait_until(lambda: ended([connection]) or connection.is_acknowledged(), "the first piece is taken", pause=0.0005)
            data = data[4:]
        connection.send(data)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("door", ["wire", "call"])
def test_strange_request(world, bystander, family, case, door):
    sale = world.sale(stock=2)
    token = sale.token()
    data = case.make(token)
    expected, units = case.wire if door == "wire" else case.call
    with world.connect(family) as connection:
        send_to(door, connection, data)
        during = world.order(bystander.token(), family)
        _, raw = end_of(connection, END_S)
    assert during.status == 201
    assert status_of_first(raw) == expected, raw[:300]
    sale.assert_books(held=units)
    if units:
        assert world.order(token, family).status in (200, 201), "the order stands"
        sale.assert_books(held=units)


def test_who_sends_and_stops_is_closed_in_time(world, family):
    """None of these ever becomes a request, and none is told more than the end. All of them at once, and buyers beside them."""
    sale = world.sale(stock=20)
    hello = bytes.fromhex("16030101000100" "01fc0303") + b"\x55" * 300
    tokens = [sale.token() for _ in range(3)]
    stalled = [hello, b"\0" * 600, b"\0", b"\x80" * 1400, b"P", b"POST", b"POST /v1/orders/", b"GET / HTTP/1.1\r\n", b"\r\n\r\n", b"\r",
               b"GET /" + b"a" * 4000, f"POST /v1/orders/{tokens[0][:40]}".encode(),
               # The gate has read the tokens of these.
               order_bytes(tokens[0])[:-2],
               order_bytes(tokens[1], ("Content-Length", "10")) + b"hello",
               order_bytes(tokens[2], ("Content-Length", "1000000000")) + b"hello"]
    with contextlib.ExitStack() as stack, Buyers(world, family):
        start = time.monotonic()
        connections = [stack.enter_context(world.connect(family)) for _ in stalled]
        for connection, data in zip(connections, stalled):
            connection.send(data)
        ends = [end_of(connection, END_S) for connection in connections]
        assert time.monotonic() - start < END_S
    assert ends == [("fin", b"")] * len(stalled)
    sale.assert_books(held=3)
    for token in tokens:
        assert world.order(token, family).status in (200, 201)
    sale.assert_books(held=3)


def test_binary_junk_of_any_kind(world, family):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with contextlib.ExitStack() as stack, Buyers(world, family):
        connections = []
        for _ in range(60):
            # Not an end of line first: behind a request line that is the empty line, and the request whole. libmicrohttpd takes a NUL for one, too.
            data = chance.choice([b"", b"POST /v1/orders/", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01"]) + \
                chance.randbytes(chance.randrange(2, 3000)).lstrip(b"\r\n\0")
            connections.append(stack.enter_context(world.connect(family)))
            with contextlib.suppress(OSError):
                connections[-1].send(data)
        for connection in connections:
            _, raw = end_of(connection, END_S)
            assert status_of_first(raw) in (CLOSED, 400, 401, 404, 405, 413, 414, 431, 505), raw[:200]


def test_expect_100_continue_is_told_to_go_on_and_answered(world, family):
    sale = world.sale(stock=2)
    for door in ("wire", "call"):
        data = order_bytes(sale.token(), ("Expect", "100-continue"), ("Content-Length", "5"))
        with world.connect(family) as connection:
            connection.send_in_pieces(data, [len(data)] if door == "wire" else [4, len(data) - 4])
            go_on = b""
            while not go_on.endswith(b"\r\n\r\n"):
                go_on += connection.sock.recv(1024)
            assert go_on == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.send(b"hello")
            assert connection.receive_only().status == 201
    sale.assert_books(held=2, free=0)


def test_expect_100_continue_of_an_order_that_is_refused(world, family):
    """The refusal comes at once, in place of the 100."""
    token = world.sale(opens_in=600).token()
    with world.connect(family) as connection:
        connection.send(order_bytes(token, ("Expect", "100-continue"), ("Content-Length", "5")))
        assert connection.receive_only().code() == "sale_not_open"


def test_pipelined_orders_and_what_is_behind_them(world, family):
    sale = world.sale(stock=5)
    tokens = [sale.token() for _ in range(5)]
    orders = [talk.request("POST", f"/v1/orders/{token}") for token in tokens]
    with world.connect(family) as connection:
        connection.send(b"".join(order * 2 for order in orders) + b"junk\r\n\r\n")
        assert sorted(connection.receive().status for _ in range(10)) == [200] * 5 + [201] * 5
        _, raw = end_of(connection, END_S)
        assert status_of_first(raw) in (400, CLOSED)
    sale.assert_books(held=5, free=0)


def test_what_follows_a_request_without_a_certain_end_is_not_a_request(world, family):
    """Else one reader's body is another reader's order."""
    for lines in (["Content-Length: 0", "Content-Length: 200"], ["Transfer-Encoding: gzip"], ["Content-Length : 200"],
                  ["Transfer-Encoding: chunked", "Content-Length: 0"]):
        sale = world.sale(stock=2)
        hidden = order_bytes(sale.token())
        with world.connect(family) as connection:
            connection.send("\r\n".join(["GET / HTTP/1.1", "Host: a", *lines, "", ""]).encode() + b"0\r\n\r\n" * (len(lines) == 2) + hidden)
            _, raw = end_of(connection, END_S)
            assert raw.count(b"HTTP/1.1 ") == 1, raw
        sale.assert_books(held=0)


def test_half_close_at_every_point(world, family):
    """Who shuts the sending side behind a whole request gets the answer; before, the end."""
    sale = world.sale(stock=20)
    token = sale.token()
    data = order_bytes(token, body=b"hello")
    for door in ("wire", "call"):
        for cut in (1, 4, 40, 90, len(data) - 6, len(data) - 1, len(data)):
            with world.connect(family) as connection:
                if cut:
                    connection.send_in_pieces(data[:cut], [min(4, cut), cut - min(4, cut)] if door == "call" else [cut])
                connection.sock.shutdown(socket.SHUT_WR)
                _, raw = end_of(connection, END_S)
                assert status_of_first(raw) in ((200, 201) if cut == len(data) else (CLOSED,)), (cut, raw)
                port = connection.port
            world.assert_no_socket(port, also_time_wait=False)
    sale.assert_books(held=1)


def test_half_close_without_a_word(world, family):
    """The gate acknowledges it and keeps nothing; so the client's kernel does not repeat it."""
    source = world.source(family)

    def states(namespace, port):
        return [state for state, *ends in namespace.tcp_sockets(port) if any(source in end for end in ends)]

    with world.connect(family, source) as connection:
        connection.sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: states(world.crowd, connection.port) == ["FIN-WAIT-2"], "the FIN is acknowledged")
        assert states(world.shop, connection.port) == []


# --- resets ---------------------------------------------------------------------------------------------------------------------------------
def reset_after_syn(client, data):
    del data
    client.send("S", options=[("MSS", 1400)])
    client.send("R", seq=client.seq + 1)


def reset_after_syn_ack(client, data):
    del data
    client.handshake(bare_ack=False)
    client.send("R")


def reset_after_handshake(client, data):
    del data
    client.handshake()
    client.send("R")


def reset_after(part, then="R"):
    """Behind `part` (a slice) of the request, in one segment."""
    def act(client, data):
        client.handshake()
        client.send("PA", data[part])
        client.seq += len(data[part])
        client.send(then)
    return act


def reset_in_the_second_segment(client, data):
    client.handshake()
    client.send("PA", data[:4])
    client.seq += 4
    assert client.receive() is not None, "the first piece is acknowledged"
    client.send("PA", data[4:])
    client.seq += len(data) - 4
    client.send("RA")


def reset_after_the_answer(client, data):
    client.handshake()
    client.send("PA", data)
    client.seq += len(data)
    while not client.received:
        client.take(client.receive())
    client.send("RA")


def reset_after_the_end(client, data):
    client.handshake()
    client.send("PA", data)
    client.seq += len(data)
    client.receive_until_end()
    client.send("R")


def reset_beside_the_window(client, data):
    """Its number is not the next one: the kernel asks back (RFC 5961), and the connection lives."""
    client.handshake()
    client.send("PA", data)
    client.seq += len(data)
    client.send("R", seq=client.seq + 1000)
    while not client.received:
        client.take(client.receive())
    client.send("RA")


BODY = 50
RESETS = {
    "after_syn": (reset_after_syn, {0}), "after_syn_ack": (reset_after_syn_ack, {0}), "after_handshake": (reset_after_handshake, {0}),
    "after_a_part_of_the_token": (reset_after(slice(0, 40)), {0}), "after_the_token": (reset_after(slice(0, 90)), {1}),
    "in_the_body": (reset_after(slice(0, -BODY // 2)), {1}), "after_the_request": (reset_after(slice(None)), {1}),
    "after_the_request_with_ack": (reset_after(slice(None), "RA"), {1}),
    # What has not been read by the daemon is thrown away by a reset.
    "after_the_second_segment": (reset_in_the_second_segment, {0, 1}),
    "after_the_answer": (reset_after_the_answer, {1}), "after_the_end": (reset_after_the_end, {1}),
    "beside_the_window": (reset_beside_the_window, {1}),
}


@pytest.mark.parametrize("name", RESETS)
def test_reset(world, bystander, family, name):
    """Nothing is left of the connection, no unit is lost with it, and the same port can order again at once."""
    act, units = RESETS[name]
    sale = world.sale(stock=3)
    token = sale.token()
    with OddClient(world, family) as client:
        act(client, order_bytes(token, body=b"x" * BODY))
        assert world.order(bystander.token(), family).status == 201
        wait_until(lambda: all(state == "TIME-WAIT" for state, _, _ in world.shop.tcp_sockets(client.port)), "no socket is left")
        client.settle(0.05)
        held = sale.assert_books()["held"]
        assert held in units
        client.seq, client.received = random.randrange(1 << 32), b""
        client.handshake()
        data = order_bytes(token)
        client.send("PA", data)
        client.seq += len(data)
        answer, = talk.parse_answers(client.receive_until_end())
        assert answer.status in ((200, 201) if held else (201,))
    sale.assert_books(held=1)


def test_resets_of_sockets_in_great_number(world, family):
    """Ordinary clients that give up: at every point, and all at once. Every order that came through is there once."""
    sale = world.sale(stock=200)
    tokens = [sale.token() for _ in range(100)]
    with Buyers(world, family):
        for n, token in enumerate(tokens):
            connection = world.connect(family)
            connection.send(order_bytes(token, body=b"hello")[:1 + 3 * n])
            reset(connection)
    before = sale.assert_books()["held"]
    assert 0 < before < 100
    for token in tokens:
        assert world.order(token, family).status in (200, 201)
    sale.assert_books(held=100)


# --- segments and options by hand ---------------------------------------------------------------------------------------------------------------
def test_segments_that_overlap_with_the_same_content(world, family):
    sale = world.sale(stock=2)
    with OddClient(world, family) as client:
        client.handshake()
        data = order_bytes(sale.token(), body=b"hello")
        start = client.seq
        for at, length in ((0, 60), (30, 60), (0, 100), (95, 30), (90, len(data) - 90), (0, len(data))):
            client.send("PA", data[at:at + length], seq=(start + at) % (1 << 32))
        client.seq = start + len(data)
        answer, = talk.parse_answers(client.receive_until_end())
        assert answer.status == 201
    sale.assert_books(held=1)


@pytest.mark.parametrize("cut", [40, 100], ids=["in_the_token", "behind_the_token"])
def test_segments_that_overlap_with_other_content_the_first_counts(world, family, cut):
    """Bytes that the kernel has already taken are not replaced, neither by junk nor by another token."""
    sale = world.sale(stock=3)
    mine, other = sale.token(), sale.token()
    with OddClient(world, family) as client:
        client.handshake()
        data, forged = order_bytes(mine), order_bytes(other)
        start = client.seq
        client.send("PA", data[:cut])
        assert client.receive() is not None, "the first piece is acknowledged"
        client.send("PA", forged[:cut], seq=start)
        client.send("PA", b"X" * 20 + data[cut:], seq=start + cut - 20)
        client.seq = start + len(data)
        answer, = talk.parse_answers(client.receive_until_end())
        assert answer.status == 201
    sale.assert_books(held=1)
    assert world.public("GET", f"/v1/orders/{other}", family=family).code() == "no_order"
    assert world.public("GET", f"/v1/orders/{mine}", family=family).json()["id"] == answer.json()["id"]


def test_another_order_in_the_place_of_an_answered_one_takes_nothing(world, family):
    sale = world.sale(stock=3)
    mine, other = sale.token(), sale.token()
    with OddClient(world, family) as client:
        client.handshake()
        data = talk.request("POST", f"/v1/orders/{mine}")
        client.send("PA", data)
        while not client.received:
            client.take(client.receive())
        client.send("PA", talk.request("POST", f"/v1/orders/{other}"))
        client.seq += len(data)
        client.send("A")
        client.settle(0.1)
        client.send("RA")
    assert len(talk.parse_answers(client.received)) == 1
    sale.assert_books(held=1)


def test_an_order_in_the_place_of_a_refused_one_is_judged_by_itself(world, family):
    """After a refusal the gate has forgotten the client, and the cookie is still good."""
    sale = world.sale(stock=2)
    closed, good = world.sale(opens_in=600).token(), sale.token()
    with OddClient(world, family) as client:
        client.handshake()
        client.send("PA", order_bytes(closed))
        refusal, = talk.parse_answers(payload(client.receive()))
        assert refusal.code() == "sale_not_open"
        data = order_bytes(good)
        client.send("PA", data)
        client.seq += len(data)
        answer, = talk.parse_answers(client.receive_until_end())
        assert answer.status == 201
    sale.assert_books(held=1)


OPTIONS = {
    "none": b"", "forty_nops": b"\1" * 40, "end_and_junk": b"\0" + b"\xff" * 39,
    "timestamps_sack_wscale": b"\2\4\5\xb4\4\2\x08\x0a\0\0\0\1\0\0\0\0\1\3\3\x0e", "wscale_255": b"\3\3\xff\1",
    "md5": b"\x13\x12" + b"\xaa" * 16 + b"\1\1", "md5_of_wrong_length": b"\x13\x05abc\1\1\1", "authentication": b"\x1d\x10" + b"z" * 14,
    "fast_open": b"\x22\x0acccccccc\1\1", "multipath": b"\x1e\x0c\0\1kkkkkkkk", "unknown": b"\xfd\x08abcdef", "length_0": b"\xfd\0\1\1",
    "length_1": b"\2\1\1\1", "beyond_the_end": b"\2\x28\5\xb4", "mss_0": b"\2\4\0\0", "mss_1": b"\2\4\0\1", "mss_65535": b"\2\4\xff\xff",
    "mss_twice": b"\2\4\5\xb4\2\4\2\x18", "sack_of_nothing": b"\1\1\5\x0a\0\0\0\1\0\0\0\2",
    "all_of_them": b"\2\4\5\xb4\3\3\7\4\2\x08\x0a\0\0\0\1\0\0\0\0\xfd\4ab\x22\2" + b"\1" * 15,
}


@pytest.mark.parametrize("name", OPTIONS)
def test_tcp_options_galore(world, family, name):
    """In the SYN, and in the segment with the order. A signature (MD5) where none was agreed makes the kernel drop the segment (RFC 2385):
    such a client hears nothing, and its order stands."""
    sale = world.sale(stock=2)
    for where in ("syn", "order"):
        token = sale.token()
        with OddClient(world, family) as client:
            client.raw_options = OPTIONS[name] if where == "syn" else b""
            client.handshake(options=[])
            client.raw_options = OPTIONS[name] if where == "order" else b""
            data = order_bytes(token)
            client.send("PA", data)
            client.raw_options = b""
            if (name, where) == ("md5", "order"):
                assert client.receive(0.3) is None
                assert world.order(token, family).status in (200, 201)
                continue
            client.seq += len(data)
            answer, = talk.parse_answers(client.receive_until_end())
            assert answer.status == 201
    sale.assert_books(held=2, free=0)


@pytest.mark.parametrize("pointer", [0, 1, 60, 60000])
def test_urgent_data_ends_the_connection_and_the_order_stands(world, family, pointer):
    """The daemon reads no urgent data. Beyond the segment it is urgent no more."""
    sale = world.sale(stock=1)
    token = sale.token()
    with OddClient(world, family) as client:
        client.handshake()
        client.urgent = pointer
        data = order_bytes(token)
        client.send("PAU", data)
        client.urgent = 0
        client.seq += len(data)
        heard = client.settle(0.3)
        assert heard and (heard[-1][TCP].flags.F or heard[-1][TCP].flags.R), "it is not ended"
        assert not client.received or talk.parse_answers(client.received)[0].status == 201
    assert world.order(token, family).status in (200, 201)
    sale.assert_books(held=1, free=0)


def test_out_of_band_bytes_of_an_ordinary_client(world, family):
    sale = world.sale(stock=3)
    data = order_bytes(sale.token())
    for cut in (0, 20, len(data)):
        with world.connect(family) as connection:
            connection.send(data[:cut])
            if cut:
                connection.wait_acknowledged()
            connection.sock.send(b"!", socket.MSG_OOB)
            with contextlib.suppress(OSError):
                connection.send(data[cut:])
            _, raw = end_of(connection, END_S)
            assert status_of_first(raw) in (CLOSED, 200, 201, 400, 405)
    assert sale.assert_books()["held"] <= 1


def test_the_daemon_keeps_nothing_of_all_this(world):
    """What is here runs after the rest of this file."""
    wait_until(lambda: metric(world, "sluice_http_connections", listener="public") == 0, "no connection is left")
    assert fds(world.daemon) < 100
    assert world.stats()["orders"]["refused_by_ledger"] == 0 and world.stats()["orders"]["in_flight"] == 0
