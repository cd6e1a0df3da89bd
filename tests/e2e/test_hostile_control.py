# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The control API against hostile callers: who has no secret, who sends what no caller should, and who sends nothing and stays.

Each attack is beside honest buyers and an operator at work. What must hold: every answer says which field or what is wrong and is never a 5xx,
nothing is changed by what was refused, nobody waits, nothing leaks, and the secret is in no log and no answer. Which routes, fields and arguments there
are is what docs/openapi-control.json says (api.py), which a test of its own holds against the daemon's table.
"""
import contextlib
import json
import random
import socket
import threading
import time

import pytest

import talk
from api import body_of, is_stream, needs_fleet, operations, url_of, wrong_arguments, wrong_bodies
from fleet import Fleet
from netns import wait_until
from strange import Buyers, ControlConnection, Operator, end_of, ended, fds, metric, secret, status_of
from world import CONTROL_PORT, SLUICED, World, rfc3339

PLACES = 256  # of each control listener; connections beyond it cost who waits longest its place
KINDS = ["tcp", "unix"]
BODY_MAX, BULK_MAX = 65536, 1 << 20
END_S = 5


class TalkativeWorld(World):
    """Its daemon logs all that it can."""

    def start_daemon(self, env=None, ready=True):
        self.daemon = self.shop.start([SLUICED, "--config", self.config, "--verbose"], self.dir / "daemon.log", env=env)
        if ready:
            self.wait_ready()


@pytest.fixture(scope="module")
def world():
    with TalkativeWorld() as shop:
        yield shop


@pytest.fixture(scope="module")
def fleet_of_one():
    with Fleet(count=1) as fleet:
        yield fleet


@pytest.fixture(autouse=True)
def nothing_leaks(world):
    """After each test: the files and threads of before, and no more memory than connections may leave with the allocator."""
    wait_until(lambda: metric(world, "sluice_http_connections", listener="control") <= 1 + ghosts(world), "nobody is there")
    wait_until(lambda: metric(world, "sluice_http_connections", listener="public") == 0, "nobody is there")
    files, threads = own_size(world)
    memory = status_of(world.daemon, "VmRSS")
    yield
    wait_until(lambda: (lambda now: now[0] <= files and now[1] <= threads)(own_size(world)), f"no more than {files} files and {threads} threads")
    assert status_of(world.daemon, "VmRSS") <= memory + 16384


def own_size(world):
    """Files and threads of the daemon beyond those of the connections that it counts, once three looks have seen the same: while connections come and
    go, the two are counted at different moments."""
    def look():
        control = metric(world, "sluice_http_connections", listener="control")
        public = metric(world, "sluice_http_connections", listener="public")
        time.sleep(0.01)
        return fds(world.daemon) - control - public, status_of(world.daemon, "Threads") - control

    def settled():
        looks = {look() for _ in range(3)}
        return looks.pop() if len(looks) == 1 else None
    return wait_until(settled, "files and threads that stay as they are")


def ghosts(world):
    """Control connections that have no client. With SYN cookies always on, as the gate wants it, the kernel takes a late ACK of a connection that is
    over for the third packet of a new one. Such a one waits, and gives way or ends when it is idle like any other; it is no leak."""
    shop, clients = set(), set()
    for line in world.shop.run(["ss", "-Htan", "state", "established", "state", "close-wait"]).stdout.splitlines():
        local, peer = line.split()[-2:]
        if local.endswith(f":{CONTROL_PORT}"):
            shop.add(peer)
        elif peer.endswith(f":{CONTROL_PORT}"):
            clients.add(local)
    return len(shop - clients)


def request(method, target, *headers, body=b"", auth=None):
    fields = [*headers, ("Authorization", f"Bearer {auth}")] if auth else [*headers]
    return talk.request(method, target, fields, body)


def ask_raw(world, kind, data):
    """One request as bytes; the answer, or None if there was none before the end."""
    with ControlConnection(world, kind) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.send(data)
        _, raw = end_of(connection, END_S)
        return talk.split_head(raw)[0], raw


def assert_refused(reply, *statuses):
    assert 400 <= reply.status < 500 and (not statuses or reply.status in statuses), reply
    problem = reply.json()
    assert reply.headers["Content-Type"] == "application/problem+json" and problem["status"] == reply.status, reply
    assert problem["code"] and problem["detail"], reply
    return problem


# --- who has no secret ----------------------------------------------------------------------------------------------------------------
class Target:
    """A sale with an order, and what the routes of the document are about made to mean them."""
    # What changes although nobody changes anything.
    MOVING = {"status", "sales", "stats", "metrics", "livez", "readyz", "top", "explain", "nodes", "webhooks", "clusterSales", "clusterAudit"}

    def __init__(self, world, **values):
        self.world, self.sale = world, world.sale(stock=3)
        token = self.sale.token()
        wait_until(lambda: world.order(token).status == 201, "units to sell, if they must come from a fleet")
        self.values = {"slug": self.sale.slug, "sale": self.sale.slug, "id": self.sale.orders()[0]["id"], "token": token, "from": None, "to": None, **values}
        self.routes = [(method.upper(), self.url(path, operation), operation) for method, path, operation in operations("control")]

    def url(self, path, operation):
        return url_of(path, operation, {**self.values, "id": 1} if "/nodes/" in path else self.values)

    def with_body(self):
        """(method, path, schema of the body, a body that is taken, operation)"""
        return [(method, url, *body_of(operation), operation) for method, url, operation in self.routes if body_of(operation)[0]]

    def seen(self):
        """All that is told of what can be set."""
        answers = {url: self.world.control(method, url) for method, url, operation in self.routes
                   if method == "GET" and operation["operationId"] not in self.MOVING and not is_stream(operation)}
        return {url: (answer.status, answer.body) for url, answer in answers.items()}

    @contextlib.contextmanager
    def nothing_changes(self):
        before, keys = self.seen(), self.world.signing_keys()
        yield
        assert self.seen() == before and self.world.signing_keys() == keys
        self.sale.assert_books(put_in=3, held=1)


def test_without_the_secret_every_route_says_the_same(world):
    """Also those that do not exist: who is not allowed in does not learn what is there."""
    target = Target(world)
    unknown = [("GET", "/no/such/route"), ("BREW", "/v1/status"), ("HEAD", "/v1/status"), ("DELETE", target.sale.path)]
    heard = set()
    with target.nothing_changes():
        for method, path in [(method, url) for method, url, _ in target.routes] + unknown:
            for headers in ({}, {"Authorization": "Bearer " + "0" * 64}):
                reply = world.control_tcp(method, path, headers=headers)
                if path in ("/livez", "/readyz"):
                    assert reply.status == 200, (path, reply)
                    continue
                assert reply.status == 401 and reply.headers["WWW-Authenticate"].startswith("Bearer"), (method, path, reply)
                if method != "HEAD":
                    heard.add((bool(headers), reply.body))
    assert len(heard) == 2, heard


def test_what_is_no_secret(world):
    good = secret(world)
    spoilt = [good[:-1], good + "0", " " + good[1:], good.upper() if good != good.upper() else good.lower(), "", "0" * 9000, good + " " + good,
              good[:32] + "\t" + good[32:], good[:63] + "\xe4"]
    for value in [f"Bearer {text}" for text in spoilt] + [good, f"Basic {good}", f"Bearer{good}", f"Digest {good}", f"Token {good}", "Bearer"]:
        answer, raw = ask_raw(world, "tcp", f"GET /v1/status HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: {value}\r\n\r\n".encode("latin-1"))
        assert answer.status == 401, (value[:80], raw)
        assert good.encode() not in raw
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert world.control_tcp("GET", "/v1/status", headers={"Authorization": f"{scheme} {good}"}).status == 200
    assert world.control_tcp("GET", "/v1/status", headers={"Proxy-Authorization": f"Bearer {good}", "Cookie": f"secret={good}"}).status == 401
    assert world.control_tcp("GET", f"/v1/status?access_token={good}").status == 401


def test_two_secrets_the_first_counts(world):
    for first, second, status in (("0" * 64, secret(world), 401), (secret(world), "0" * 64, 200)):
        data = request("GET", "/v1/status", ("Authorization", f"Bearer {first}"), ("Connection", "close"), auth=second)
        assert ask_raw(world, "tcp", data)[0].status == status


def test_the_body_of_a_stranger_is_not_read(world):
    """The answer comes before a byte of it, and the connection ends."""
    for headers in ([("Content-Length", "60000")], [("Transfer-Encoding", "chunked")], [("Content-Length", "60000"), ("Expect", "100-continue")]):
        with ControlConnection(world, "tcp") as connection:
            connection.send(request("PUT", "/v1/sales/none", *headers))
            how, raw = end_of(connection, END_S)
            assert (how, talk.split_head(raw)[0].status) == ("fin", 401), raw


def test_many_guesses_do_not_disturb(world):
    with Buyers(world), Operator(world):
        for n in range(300):
            assert world.control_tcp("GET", "/v1/status", headers={"Authorization": f"Bearer {n:064x}"}).status == 401


# --- bodies ------------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_a_body_of_a_gigabyte_is_refused_before_it_is_sent(world, kind):
    """By every route, also by those that read none."""
    target = Target(world)
    with target.nothing_changes(), Buyers(world):
        for method, path, operation in target.routes:
            longest = BULK_MAX if operation["operationId"] == "putEntries" else BODY_MAX
            for length in (1000000000, 2 ** 64 - 1, longest + 1):
                answer, raw = ask_raw(world, kind, request(method, path, ("Content-Length", str(length)), auth=secret(world)) + b'{"')
                assert answer.status == 413, (method, path, raw)


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_without_end_are_not_kept(world, kind):
    """It is closed when it has sent far too much, without an answer; a little too much is a 413."""
    sale, memory = world.sale(stock=3), status_of(world.daemon, "VmRSS")
    chunk = b"8000\r\n" + b"[" * 0x8000 + b"\r\n"
    head = request("POST", f"{sale.path}/stock", ("Transfer-Encoding", "chunked"), ("Connection", "close"), auth=secret(world))
    answer, raw = ask_raw(world, kind, head + chunk * 3 + b"0\r\n\r\n")
    assert answer.status == 413, raw
    with Buyers(world), Operator(world), contextlib.ExitStack() as stack:
        endless = [stack.enter_context(ControlConnection(world, kind)) for _ in range(8)]
        sent = 0
        for connection in endless:
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                connection.send(head)
                for _ in range(1000):
                    connection.send(chunk)
                    sent += len(chunk)
            assert ended([connection])
        assert sent < 8 * 8 * 1024 * 1024, "it took it all"
        assert status_of(world.daemon, "VmRSS") < memory + 16384
    sale.assert_books(put_in=3)


DEEP = [b"[" * 60000, b"[" * 30000 + b"]" * 30000, b'{"a":' * 12000, b'{"a":' * 10000 + b"1" + b"}" * 10000, b'{"delta":' + b"[" * 50000]
NO_JSON = [b"{", b"}", b"[]", b"null", b"true", b"1", b'"x"', b"{}{}", b'{"delta":1}\0', b'{"delta":1,}', b"{'delta':1}", b'{"delta":01}', b'{"delta":+1}',
           b'{"delta":0x1}', b'{"delta":NaN}', b'{"delta":Infinity}', b'{"delta":1e400}', b'{"delta":1,"delta":1}', b'{"delta":1,"delta":2}',
           b'\xef\xbb\xbf{"delta":1}', b'{"delta":1}x', b'{"\xff":1}', b'{"reason":"\xc3"}', b'{"reason":"\xed\xa0\x80"}', b'{"reason":"\xc0\x80"}',
           b'{"reason":"\\ud800"}', b'{"reason":"\\u0000"}', b'{"\\u0000":1}', b'{"reason":"a\nb"}', b'{"reason":"a\0b"}', b"\0" * 100, b"\xff\xfe{\0}\0",
           b"<xml/>", b"delta=1", b"--x\r\n", json.dumps({f"f{n}": n for n in range(3000)}).encode(), b'{"' + b"k" * 60000 + b'":1}']


def assert_refused_or_alone(reply, operation, what):
    """What is of a fleet is refused before it is looked at where there is none."""
    assert reply.status in (400, 422) or needs_fleet(operation) and reply.code() == "no_fleet", (what, reply)
    return assert_refused(reply)


@pytest.mark.parametrize("bodies", [DEEP, NO_JSON], ids=["deep", "no_json"])
def test_a_body_that_is_not_the_json_of_an_object_is_refused(world, bodies):
    target = Target(world)
    with target.nothing_changes(), Buyers(world), Operator(world):
        for raw in bodies:
            for method, path, _, _, operation in target.with_body():
                reply = world.control(method, path, raw=raw, headers={"Content-Type": "application/json"})
                assert_refused_or_alone(reply, operation, (method, path, raw[:60]))


def test_text_that_is_no_list_is_refused(world):
    target = Target(world)
    with target.nothing_changes():
        for raw in (*DEEP, *NO_JSON):
            for media in ("text/plain", "text/csv"):
                assert_refused(world.control("POST", "/v1/lists/deny", raw=raw, headers={"Content-Type": media}), 422)
        for media in ("application/xml", "text/html", "multipart/form-data; boundary=x", "x" * 200, "text", "/"):
            assert_refused(world.control("POST", "/v1/lists/deny", raw=b"192.0.2.55\n", headers={"Content-Type": media}), 415)


def tell_all_that_is_wrong(world, routes):
    """Every field of the bodies of these routes gets every value that it does not take. How many were tried."""
    tried = 0
    for method, path, schema, good, operation in routes:
        for field, body in wrong_bodies("control", schema, good):
            reply = world.control(method, path, body)
            what = (method, path, field, str(body)[:300])
            problem = assert_refused_or_alone(reply, operation, what)
            assert problem["code"] == "no_fleet" or problem.get("field") == field or field in problem["detail"], (what, reply)
            tried += 1
    return tried


def test_wrong_types_and_values_in_every_field_of_every_route(world):
    target = Target(world)
    routes = target.with_body()
    method, path, schema, new_sale, operation = next(route for route in routes if route[4]["operationId"] == "putSale")
    routes.append((method, "/v1/sales/never-made", schema, dict(new_sale), operation))
    del new_sale["stock"]  # of a sale that is there it is not set but moved
    with target.nothing_changes(), Buyers(world, tokens=400), Operator(world):
        assert tell_all_that_is_wrong(world, routes) > 2000
    assert world.control("GET", "/v1/sales/never-made").status == 404


def test_wrong_types_and_values_in_what_is_of_a_fleet(fleet_of_one):
    world = fleet_of_one[1]
    target = Target(world)
    routes = [route for route in target.with_body() if needs_fleet(route[4])]
    keys = world.signing_keys()
    assert tell_all_that_is_wrong(world, routes) > 100
    for raw in (*DEEP, *NO_JSON):
        for method, path, *_ in routes:
            assert_refused(world.control(method, path, raw=raw, headers={"Content-Type": "application/json"}), 400, 422)
    assert fleet_of_one.stock(target.sale)["total"] == 3 and fleet_of_one.is_well(target.sale) and world.signing_keys() == keys
    target.sale.assert_books(held=1)


def test_arguments_that_no_route_takes(world):
    target = Target(world)
    tried = 0
    with target.nothing_changes():
        for method, path, operation in target.routes:
            for argument, text in wrong_arguments("control", operation):
                rest = url_of(path.partition("?")[0], {"parameters": [other for other in operation["parameters"] if other["name"] != argument]}, target.values)
                reply = world.control(method, f"{rest}{'&' if '?' in rest else '?'}{argument}={text}", body_of(operation)[1])
                assert reply.status in (400, 404, 422), (method, path, argument, text[:60], reply)
                problem = assert_refused(reply)
                assert problem.get("field") == argument or argument in problem["detail"] or reply.status == 404, (method, path, argument, text[:60], reply)
                tried += 1
    assert tried > 200


def test_an_idempotency_key_that_is_none_is_refused_by_every_route(world):
    target = Target(world)
    tried = 0
    with target.nothing_changes():
        for method, path, operation in target.routes:
            if not any(parameter["name"] == "Idempotency-Key" for parameter in operation.get("parameters", ())):
                continue
            for key in ("", "x" * 65, "\xe4\xf6", "a\tb"):
                problem = assert_refused(world.control(method, path, body_of(operation)[1], headers={"Idempotency-Key": key}), 400)
                assert problem["field"] == "Idempotency-Key", (method, path, key[:20])
                tried += 1
    assert tried > 60


NUMBERS = ["9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "18446744073709551616", "1" * 400,
           "1e2", "1E400", "0.1e1", "-0", "1.0000000000000001", "9" * 60000]


def test_numbers_at_every_edge_move_no_stock(world):
    """As they stand in JSON text: json.dumps would not write all of them."""
    sale = world.sale(stock=3)
    for number in NUMBERS:
        for text in (f'{{"delta":{number}}}', f'{{"delta":-{number}}}' if number[0] != "-" else f'{{"delta":{number[1:]}}}'):
            reply = world.control("POST", f"{sale.path}/stock", raw=text.encode(), headers={"Content-Type": "application/json"})
            assert reply.status in (400, 409, 422), (text[:80], reply)
    sale.assert_books(put_in=3, free=3)


def test_stock_near_the_largest_number_does_not_overflow(world):
    sale = world.sale(stock=3)
    limit = 2 ** 32 - 1
    for delta in (limit, limit, 2 ** 31, 2 ** 40, 2 ** 53):
        reply = world.control("POST", f"{sale.path}/stock", {"delta": delta, "reason": "test"})
        assert reply.status in (200, 409, 422), (delta, reply)
        books = sale.books()
        assert books["balanced"] and 3 <= books["put_in"] == books["free"] < 2 ** 53, books
    token = sale.token()
    assert world.order(token).status == 201
    sale.assert_books(held=1)


# --- lines, paths, queries -------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_paths_and_methods_that_nobody_knows(world, kind):
    paths = ["/", "//", "/v1", "/v1/", "/v1/sales/", "/v1//sales", "/v1/sales/a/b/c", "/v1/sales/%", "/v1/sales/%0", "/v1/sales/%zz", "/v1/sales/%00",
             "/v1/sales/%ff", "/v1/sales/..", "/v1/sales/%2e%2e%2f", "/v1/sales/" + "a" * 5000, "/v1/sales/" + "%61" * 2000, "/v1/orders/zz",
             "/v1/orders/" + "f" * 17, "/v1/orders/%00", "/v1/lists/none", "/v1/lists/deny/", "/v1/lists/deny/%00", "/v1/tokens", "*", "http://a/v1/none",
             "/v1/sales/a?x=%00&y", "/v1/status/../../etc/passwd", "/" + "/" * 3000, "/v1/sales/\xff\xfe", "/metrics/", "/livez/x"]
    for path in paths:
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "BREW", "get", "CONNECT", "A" * 200):
            data = request(method, path, ("Connection", "close"), auth=secret(world))
            answer, raw = ask_raw(world, kind, data)
            assert answer and 400 <= answer.status < 500, (method, path[:60], raw[:300])


def test_queries_that_cannot_be(world):
    sale = world.sale(stock=1)
    for query in ("limit=0", "limit=-1", "limit=abc", "limit=1e3", "limit=99999999999999999999", "limit=", "limit", "after=zz", "after=-1", "state=none",
                  "state=%00", "sale=none", "sale=%ff", "sale=" + "a" * 3000, "limit=%zz", "limit=1&limit=x", f"sale={sale.slug}%00"):
        for path in ("/v1/orders", "/v1/lists/deny"):
            reply = world.control("GET", f"{path}?{query}")
            assert reply.status in (200, 400, 404, 422), (path, query, reply)
            assert reply.status == 200 or assert_refused(reply)
    for query in ("", "ip=", "ip=x", "ip=%00", "ip=1.2.3.4%00", "ip=1.2.3.4/33", "ip=" + "1" * 3000, "ip=::g", "ip=%ff"):
        assert_refused(world.control("GET", f"/v1/explain?{query}"), 400, 422)
    for query in ("limit=0", "limit=101", "limit=x", "limit=%00", "interval_ms=0", "interval_ms=-1", "interval_ms=99999999999999999999", "interval_ms=1e3"):
        assert_refused(world.control("GET", f"/v1/top?{query}"), 400, 422)
    for query in ("reason=none-such", "action=none-such", "source=x", "sample=x", "reason=%00", "nonsense=1"):
        assert_refused(world.control("GET", f"/v1/events?{query}"), 400, 422)
    for path, query in (("/v1/orders", "limit=-1"), ("/v1/orders", "limit=abc"), ("/v1/orders", "state=none"), ("/v1/lists/deny", "limit=abc")):
        assert_refused(world.control("GET", f"{path}?{query}"), 400, 422)


def test_headers_that_cannot_be(world):
    sale = world.sale(stock=3)
    for key in ("", "x" * 65, "x" * 5000, "\xe4\xf6", "a\tb", "\x7f", "\xff"):
        problem = assert_refused(world.control("POST", f"{sale.path}/stock", {"delta": 1}, headers={"Idempotency-Key": key}), 400)
        assert problem["field"] == "Idempotency-Key", key[:20]
    for lines in (["Content-Length: 5", "Content-Length: 6"], ["Transfer-Encoding: gzip"], ["Content-Length : 5"], ["Content-Length: -1"]):
        for kind in KINDS:
            text = "\r\n".join([f"POST {sale.path}/stock HTTP/1.1", "Host: a", f"Authorization: Bearer {secret(world)}", *lines, "", '{"delta":1}'])
            assert ask_raw(world, kind, text.encode())[0].status == 400, lines
    sale.assert_books(put_in=3)


def test_random_requests_are_answered_or_ended_and_never_a_5xx(world):
    """Pieces of good requests, cut, doubled and spoilt."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    sale = world.sale(stock=3)
    pieces = [b"GET ", b"POST ", b"PUT ", sale.path.encode(), b"/v1/limits", b"/stock", b" HTTP/1.1\r\n", b"Host: a\r\n", b"Content-Length: 12\r\n",
              b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"\r\n", b"\r\n\r\n", b'{"delta":-1}', b'{"source":', b"[", b'"', b"\0", b"%00", b"\xff",
              f"Authorization: Bearer {secret(world)}\r\n".encode()]
    good = request("POST", f"{sale.path}/stock", ("Connection", "close"), auth=secret(world), body=b'{"delta":0}')
    with Buyers(world), Operator(world):
        for _ in range(300):
            if chance.random() < 0.5:
                data = bytearray(good)
                for _ in range(chance.randrange(1, 6)):
                    data[chance.randrange(len(data))] = chance.randrange(256)
            else:
                data = b"".join(chance.choice(pieces) for _ in range(chance.randrange(1, 25)))
            with ControlConnection(world, chance.choice(KINDS)) as connection:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.send(bytes(data))
                    connection.sock.shutdown(socket.SHUT_WR)
                _, raw = end_of(connection, END_S)
            answer, _ = talk.split_head(raw)
            assert answer is None or answer.status < 500 or answer.status == 505, (bytes(data), raw)
    assert sale.assert_books()["put_in"] <= 3


# --- who stays ---------------------------------------------------------------------------------------------------------------------------------------
def crowded(world):
    return metric(world, "sluice_http_connections_closed_total", listener="control", cause="crowded")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("said", ["nothing", "half_a_head", "half_a_body"])
def test_a_thousand_connections_that_stay_lock_nobody_out(world, kind, said):
    sale, before = world.sale(stock=3), crowded(world)
    data = {"nothing": b"", "half_a_head": b"GET /v1/status HTTP/1.1\r\nX: ",
            "half_a_body": request("POST", f"{sale.path}/stock", ("Content-Length", "100"), auth=secret(world)) + b'{"delta":1'}[said]
    with Buyers(world) as buyers, Operator(world) as operator, contextlib.ExitStack() as stack:
        watcher = stack.enter_context(ControlConnection(world, kind))
        watcher.send(request("GET", "/v1/events", auth=secret(world)))
        assert b" 200 " in watcher.sock.recv(100)
        idle = []
        for n in range(1000):
            idle.append(stack.enter_context(ControlConnection(world, kind)))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                idle[-1].send(data)
            if n % 250 == 249:
                operator.wait_for(1)
                buyers.wait_for(1)
                assert fds(world.daemon) < 2 * PLACES + 100 and status_of(world.daemon, "Threads") < 2 * PLACES + 50
        assert metric(world, "sluice_http_connections", listener="control") <= 2 * PLACES
        wait_until(lambda: len(ended(idle)) >= 1000 - PLACES, "all but the last have been told to go")
        assert not ended([watcher]), "a stream is at work for as long as it lasts"
    assert crowded(world) - before >= 1000 - PLACES
    sale.assert_books(put_in=3)


@pytest.mark.parametrize("kind", KINDS)
def test_callers_that_never_read_lock_nobody_out(world, kind):
    """Allowed to ask, and asking for the metrics for ever without reading one answer."""
    with Buyers(world) as buyers, Operator(world) as operator, contextlib.ExitStack() as stack:
        deaf = []
        for _ in range(100):
            deaf.append(stack.enter_context(ControlConnection(world, kind)))
            deaf[-1].sock.setblocking(False)
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                deaf[-1].sock.send(request("GET", "/metrics", auth=secret(world)) * 200)
        operator.wait_for(3)
        buyers.wait_for(3)
        assert status_of(world.daemon, "Threads") < 2 * PLACES + 50


@pytest.mark.parametrize("kind", KINDS)
def test_coming_and_going_disturbs_nobody(world, kind):
    with Buyers(world), Operator(world):
        for n in range(1500):
            with ControlConnection(world, kind) as connection:
                if n % 3 == 0:
                    connection.send(b"GET")
                if n % 5 == 0:
                    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


# --- many at once -------------------------------------------------------------------------------------------------------------------------------------
def in_threads(count, work):
    trouble = []

    def run(n):
        try:
            work(n)
        except BaseException as error:  # pylint: disable=broad-except
            trouble.append(error)
    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if trouble:
        raise trouble[0]


def test_writers_at_the_same_time_lose_no_unit(world):
    """Eight callers move stock up and down while it is being bought."""
    sale = world.sale(stock=500)
    tokens = [sale.token() for _ in range(40)]

    def work(n):
        for turn in range(10):
            delta = (n + 1) * (1 if turn % 2 == 0 else -1)
            assert sale.move(delta)["balanced"]
        for token in tokens[n * 5:n * 5 + 5]:
            assert world.order(token).status == 201
    with Buyers(world):
        in_threads(8, work)
    sale.assert_books(put_in=500, held=40, free=460)


def test_one_change_with_one_key_from_many_callers_is_made_once(world):
    sale = world.sale(stock=3)
    in_threads(8, lambda n: [world.control("POST", f"{sale.path}/stock", {"delta": 5}, headers={"Idempotency-Key": "the-same"}) for _ in range(5)])
    sale.assert_books(put_in=8)


def test_one_sale_made_by_many_callers_is_made_once(world):
    body = {"stock": 7, "opens_at": rfc3339(time.time() - 5), "ends_at": rfc3339(time.time() + 3600)}
    statuses = []
    in_threads(8, lambda n: statuses.append(world.control("PUT", "/v1/sales/made-once", body).status))
    assert statuses.count(201) == 1 and set(statuses) <= {200, 201, 409}, statuses
    assert world.ask("GET", "/v1/sales/made-once/stock")["put_in"] == 7


# --- at the end ------------------------------------------------------------------------------------------------------------------------------------------
def test_the_secret_is_in_no_log(world):
    """After all of the above, with a daemon that logs what it can. Runs last."""
    token = world.sale().token()
    with contextlib.suppress(OSError):
        ask_raw(world, "tcp", request("GET", f"/v1/sales/{token}", ("Connection", "close"), auth=secret(world)))
    log = world.daemon.log() + world.writer.log()
    assert "debug" in log, "it does not log what it can"
    assert secret(world) not in log and "0" * 64 not in log
    keys = [f"{word:016x}" for pair in world.signing_keys().values() for word in pair]
    assert not any(key in log for key in keys)
    assert world.daemon.running() and world.stats()["orders"]["refused_by_ledger"] == 0
