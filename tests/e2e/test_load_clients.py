# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The clients that people have: curl, Python, Node, and the load generators h2load, ab and wrk. Page, token and order, with the connection kept
and without, admitted and refused: each client understands each answer, and the books hold.

The gate ends every connection that it refuses on; a client that keeps connections has to take that for what it is and come again.
"""
import json
import pathlib
import re
import shutil
import sys

import pytest

from world import CROWD, PORT, SHOP, World

HERE = pathlib.Path(__file__).resolve().parent
# Not the limits are what is tried here, and a load generator has one address.
NO_LIMITS = {f"limits.{name}": {"rate": 0.0, "burst": 1} for name in ("source", "prefix", "token", "answer", "syn_prefix")}


@pytest.fixture(scope="module")
def world():
    with World(NO_LIMITS) as shop:
        yield shop


def needs(program):
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    return program


def base(family):
    return f"http://[{SHOP[family]}]:{PORT}" if family == "ipv6" else f"http://{SHOP[family]}:{PORT}"


def both(name):
    return pytest.mark.parametrize(name, ["keep", "close"])


# --- one buyer's way, step by step ------------------------------------------------------------------------------------------------
class Way:
    """What one buyer does, and what he must have heard at its end."""

    def __init__(self, world):
        self.sale, self.closed = world.sale(stock=5), world.sale(opens_in=600)
        self.token, late = self.sale.token(), self.closed.token()
        forged = self.token[:-2] + ("AA" if self.token[-2:] != "AA" else "BB")
        order, page = f"/v1/orders/{self.token}", ["GET", "/", None]
        self.steps = [page, ["GET", self.sale.path, None], ["POST", f"{self.sale.path}/tokens", json.dumps({"buyer": "a buyer"})],
                      ["POST", order, None], ["POST", order, "{}"], ["GET", order, None], ["POST", f"/v1/orders/{late}", None], page,
                      ["POST", f"/v1/orders/{forged}", None], ["POST", order, None]]
        self.expected = [(200, "html"), (200, "json"), (201, "json"), (201, "json"), (200, "json"), (200, "json"), (409, "sale_not_open"),
                         (200, "html"), (401, "token_invalid"), (200, "json")]

    def check(self, answers):
        assert len(answers) == len(self.expected)
        for (method, target, _), (status, kind), answer in zip(self.steps, self.expected, answers):
            headers, what = answer["headers"], (method, target, answer)
            assert answer["status"] == status, what
            assert int(headers["content-length"]) == len(answer["body"].encode()), what
            if kind == "html":
                assert headers["content-type"].startswith("text/html") and answer["body"].startswith("<!"), what
            elif kind == "json":
                assert headers["content-type"] == "application/json" and isinstance(json.loads(answer["body"]), dict), what
            else:
                assert headers["content-type"] == "application/problem+json" and headers["cache-control"] == "no-store", what
                problem = json.loads(answer["body"])
                assert (problem["code"], problem["status"]) == (kind, status), what
                assert int(headers.get("retry-after", "1")) > 0, what
        orders = [json.loads(answer["body"]) for answer, step in zip(answers, self.steps) if self.token in step[1]]
        assert len(orders) == 4 and all(order == orders[0] for order in orders) and orders[0]["state"] == "held", orders
        self.sale.assert_books(held=1)
        self.closed.assert_books(held=0)


def walk(world, way, argv):
    done = json.loads(world.crowd.run(argv, input=json.dumps(way.steps)).stdout)
    way.check(done["answers"])
    return done["connections"]


# The gate refuses what comes first on a connection; what comes later is refused by the daemon with the same bytes. Both end it, and so does what a
# buyer asks for before he orders: sale, token, and what became of his order.
def assert_connections(connections, mode, steps):
    assert connections == (steps if mode == "close" else 6)


@both("mode")
def test_python_http_client(world, family, mode):
    way = Way(world)
    connections = walk(world, way, [sys.executable, HERE / "steps.py", "http.client", base(family), mode])
    assert_connections(connections, mode, len(way.steps))


def test_python_urllib(world, family):
    way = Way(world)
    assert walk(world, way, [sys.executable, HERE / "steps.py", "urllib", base(family), "close"]) == len(way.steps)


@both("mode")
def test_node_http(world, family, mode):
    way = Way(world)
    connections = walk(world, way, [needs("node"), HERE / "steps.js", base(family), mode])
    assert_connections(connections, mode, len(way.steps))


@pytest.mark.parametrize("mode", ["keep", "close", "http1.0", "upgrade"])
def test_curl(world, family, mode):
    """One curl for all the steps. `upgrade`: it offers h2c with the first request, which HTTP/1.1 servers overlook."""
    way, argv = Way(world), ["curl"]
    for n, (method, target, body) in enumerate(way.steps):
        argv += ["--next"] * bool(n) + ["-sS", "--max-time", "20", "-X", method, "-D", world.dir / f"head{n}", "-o", world.dir / f"body{n}",
                                         "-w", "%{http_code} %{num_connects}\\n", base(family) + target]
        argv += ["-H", "Content-Type: application/json", "--data-binary", body] if body is not None else []
        argv += {"keep": ["--http1.1"], "close": ["--http1.1", "-H", "Connection: close"], "http1.0": ["--http1.0"], "upgrade": ["--http2"]}[mode]
    done = [line.split() for line in world.crowd.run(argv).stdout.splitlines()]
    answers = []
    for n, (status, _) in enumerate(done):
        lines = (world.dir / f"head{n}").read_text().splitlines()[1:]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        answers.append({"status": int(status), "headers": headers, "body": (world.dir / f"body{n}").read_text()})
    way.check(answers)
    assert_connections(sum(int(count) for _, count in done), "close" if mode == "http1.0" else "keep" if mode == "upgrade" else mode, len(way.steps))


def test_curl_with_prior_knowledge_of_http_2_is_told_no(world, family):
    done = world.crowd.run(["curl", "-sS", "--http2-prior-knowledge", "--max-time", "10", base(family) + "/"], check=False)
    assert done.returncode in (1, 16, 52, 55, 56), (done.returncode, done.stderr)


# --- load generators ------------------------------------------------------------------------------------------------------------------------
REQUESTS, CLIENTS = 200, 10


def h2load(world, family, target, *args, mode="keep", requests=REQUESTS, clients=CLIENTS):
    """{"2xx": n, …}. Whatever h2load itself calls failed is an error."""
    argv = [needs("h2load"), "--h1", "-t1", f"-n{requests}", f"-c{clients}", *(["-H", "Connection: close"] if mode == "close" else []), *args]
    text = world.crowd.run([*argv, base(family) + target] if target else argv).stdout
    total = {name: int(count) for count, name in re.findall(r"(\d+) (total|done|succeeded|failed|errored|timeout)\b",
                                                            re.search(r"^requests: .*$", text, re.M).group())}
    assert (total["done"], total["errored"], total["timeout"]) == (requests, 0, 0), text
    return {name: int(count) for count, name in re.findall(r"(\d+) (\dxx)", text) if int(count)}


def ab(world, target, *args, mode="keep", requests=REQUESTS):
    """{"Failed requests": n, …}: the figures of ab that are whole numbers."""
    argv = [needs("ab"), "-q", "-l", "-s", "20", f"-n{requests}", f"-c{CLIENTS}", *(["-k"] if mode == "keep" else []), *args]
    text = world.crowd.run([*argv, base("ipv4") + target]).stdout
    found = {name: int(count) for name, count in re.findall(r"^([A-Z][^:\n]*): +(\d+)$", text, re.M)}
    assert (found["Complete requests"], found["Failed requests"]) == (requests, 0), text
    return found


def wrk(world, family, tokens, mode, *args):
    """({status: n}, wrong answers, errors) of one second."""
    path = world.dir / "tokens"
    path.write_text("".join(token + "\n" for token in tokens))
    argv = [needs("wrk"), "-t1", f"-c{CLIENTS}", "-d1s", "-s", HERE / "orders.lua", base(family), "--", path, *(["close"] if mode == "close" else [])]
    text = world.crowd.run([*argv, *args]).stdout
    found = {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", text)}
    errors = {name: found.pop(name) for name in ("connect", "read", "write", "timeout")}
    return {int(name): count for name, count in found.items() if name.isdigit()}, found["wrong"], errors


@pytest.fixture
def one_byte(world):
    """A body for h2load, which makes its request a POST."""
    path = world.dir / "body"
    path.write_text("x")
    return path


@pytest.fixture
def buyer(world):
    path = world.dir / "buyer"
    path.write_text('{"buyer":"one and the same"}')
    return path


@both("mode")
def test_h2load_page_and_token(world, family, mode, buyer):
    sale = world.sale(stock=1)
    assert h2load(world, family, "/", mode=mode) == {"2xx": REQUESTS}
    assert h2load(world, family, f"{sale.path}/tokens", "-d", buyer, mode=mode) == {"2xx": REQUESTS}


@both("mode")
def test_h2load_orders_ten_clients_with_the_same_tokens(world, family, mode, one_byte):
    """Each client sends the same twenty orders, at the same time as the others."""
    sale = world.sale(stock=100)
    path = world.dir / "targets"
    path.write_text("".join(f"{base(family)}/v1/orders/{sale.token()}\n" for _ in range(20)))
    assert h2load(world, family, None, "-d", one_byte, "-i", path, mode=mode) == {"2xx": REQUESTS}
    sale.assert_books(held=20)


@both("mode")
def test_h2load_refused_orders(world, family, mode, one_byte):
    token, before = world.sale(opens_in=600).token(), world.packets("not_open") + world.calls("not_open")
    assert h2load(world, family, f"/v1/orders/{token}", "-d", one_byte, mode=mode) == {"4xx": REQUESTS}
    assert world.packets("not_open") + world.calls("not_open") >= before + REQUESTS


def test_h2load_with_http_2_fails_at_once_and_harms_nobody(world, family):
    done = world.crowd.run([needs("h2load"), "-t1", "-n20", "-c5", base(family) + "/"], check=False, timeout=20)
    assert re.search(r"\b0 succeeded, 20 failed", done.stdout), done.stdout
    sale = world.sale(stock=1)
    assert world.order(sale.token(), family).status == 201


@both("mode")
def test_ab(world, mode, buyer):
    """ab speaks HTTP/1.0, and keeps the connection if the server says so."""
    sale, closed = world.sale(stock=3), world.sale(opens_in=600)
    kept = REQUESTS if mode == "keep" else None
    page = ab(world, "/", mode=mode)
    assert page.get("Keep-Alive requests") == kept and "Non-2xx responses" not in page
    token = ab(world, f"{sale.path}/tokens", "-p", buyer, "-T", "application/json", mode=mode)
    assert not token.get("Keep-Alive requests") and "Non-2xx responses" not in token
    order = ab(world, f"/v1/orders/{sale.token()}", "-m", "POST", mode=mode)
    assert order.get("Keep-Alive requests") == kept and "Non-2xx responses" not in order
    sale.assert_books(held=1)
    refused = ab(world, f"/v1/orders/{closed.token()}", "-m", "POST", mode=mode)
    assert refused["Non-2xx responses"] == REQUESTS and not refused.get("Keep-Alive requests")
    closed.assert_books(held=0)


@both("mode")
def test_wrk_orders_and_refusals(world, family, mode):
    """Twelve tokens for ten units, in turn: ten orders again and again, and two that are sold out."""
    sale = world.sale(stock=10)
    tokens = [sale.token() for _ in range(12)]
    statuses, wrong, errors = wrk(world, family, tokens, mode)
    assert wrong == 0 and not any(errors.values()), (statuses, wrong, errors)
    assert set(statuses) == {200, 201, 409} and 10 <= statuses[201] <= 10 * CLIENTS and statuses[200] > 10 and statuses[409] > 2, statuses
    sale.assert_books(held=10, free=0)
    assert all(order["source"] == CROWD[family] for order in sale.orders())
