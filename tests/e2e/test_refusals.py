# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Every refusal as a buyer's program sees it: complete HTTP from the network card, a clean close, and no socket anywhere.

And the same refusal through the call door (the request in one-byte segments, which XDP cannot read): the same answer.
"""
import dataclasses
import secrets
import typing

import pytest

import talk
from tokens import Token, damaged


@dataclasses.dataclass
class Case:
    """One refusal. `token`: makes the world such that the token it returns is refused for `reason`."""
    reason: str
    status: int
    title: str
    code: str
    token: typing.Callable
    retry: bool = False

    def __str__(self):
        return self.reason


def expired(world):
    sale = world.sale()
    return sale.signed(issued_at=1_000_000_000, expires_at=1_000_003_600)


def from_another_network(world):
    return world.sale().token(network="192.0.2.7")


def unknown_sale(world):
    return world.sale().signed(sale=4_000_000_001)


def not_open(world):
    return world.sale(opens_in=600).token()


def sold_out(world):
    sale = world.sale(stock=1)
    winner, loser = sale.token(), sale.token()
    assert world.order(winner).status == 201
    return loser


def already_ordered(world):
    sale = world.sale()
    token = sale.token()
    assert world.order(token).status == 201
    return sale.signed(token, serial=Token.read(token).serial ^ 1)


def ended(world):
    sale = world.sale()
    token = sale.token()
    sale.act("end")
    return token


def paused(world):
    sale = world.sale()
    token = sale.token()
    sale.act("pause")
    return token


def over_the_pace(world):
    """One unit in a long while: the first order is it."""
    sale = world.sale(stock=100, pace_per_second=1)
    tokens = [sale.token() for _ in range(40)]
    for token in tokens:
        answer = world.order(token)
        if answer.status == 429:
            return tokens[-1]
        assert answer.status == 201, answer
    raise AssertionError("40 orders at once are not over a pace of one per second")


def wrong_key(world):
    """Signed with a key id that is in no slot."""
    token = Token.read(world.sale().token())
    keys = world.signing_keys()
    unused = next(n for n in range(256) if n not in keys)
    token.key_id = unused
    return token.signed({unused: (1, 2)})


CASES = [
    Case("token_form", 401, "Unauthorized", "token_invalid", lambda world: "!" * 64),
    Case("token_key", 401, "Unauthorized", "token_invalid", wrong_key),
    Case("token_mac", 401, "Unauthorized", "token_invalid", lambda world: damaged(world.sale().token())),
    Case("token_quantity", 401, "Unauthorized", "token_invalid", lambda world: world.sale().signed(quantity=2)),
    Case("token_expired", 401, "Unauthorized", "token_expired", expired),
    Case("wrong_network", 403, "Forbidden", "wrong_network", from_another_network),
    Case("unknown_sale", 404, "Not Found", "unknown_sale", unknown_sale),
    Case("not_open", 409, "Conflict", "sale_not_open", not_open, retry=True),
    Case("sold_out", 409, "Conflict", "sold_out", sold_out),
    Case("buyer_limit", 409, "Conflict", "already_ordered", already_ordered),
    Case("ended", 410, "Gone", "sale_ended", ended),
    Case("pace", 429, "Too Many Requests", "rate_limited", over_the_pace, retry=True),
    Case("paused", 503, "Service Unavailable", "paused", paused, retry=True),
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def assert_complete(answer, status, title, code, retry):
    """A complete problem document, as RFC 9112 and RFC 9457 want it and docs/control-api.md promises it."""
    assert (answer.version, answer.status, answer.title) == ("HTTP/1.1", status, title), answer
    assert answer.header("content-type") == "application/problem+json"
    assert int(answer.header("content-length")) == len(answer.body)
    assert answer.header("connection").lower() == "close"
    assert answer.header("cache-control") == "no-store"
    problem = answer.json()
    assert (problem["status"], problem["title"], problem["code"]) == (status, title, code)
    assert problem["detail"]
    if retry:
        assert 1 <= int(answer.header("retry-after")) <= 9999
    else:
        assert answer.header("retry-after") is None


@every_case
def test_refused_by_the_gate_with_a_complete_answer_and_no_socket(world, family, case):
    token = case.token(world)
    before = world.packets(case.reason)
    curl = world.curl_order(token, family=family)
    assert curl.returncode == 0, curl.stderr
    assert_complete(curl.answer, case.status, case.title, case.code, case.retry)
    # Not the daemon's work: no socket was ever made, so not even TIME-WAIT is left of it on either side.
    assert world.packets(case.reason) == before + 1
    world.assert_no_socket(curl.local_port)


@every_case
def test_the_call_door_gives_the_same_answer(world, family, case):
    token = case.token(world)
    by_gate = world.order(token, family)
    before = world.calls(case.reason)
    by_door = world.order_by_call_door(token, family)
    assert world.calls(case.reason) == before + 1, "the call door did not judge it"
    assert_complete(by_door, case.status, case.title, case.code, case.retry)
    assert by_door.body == by_gate.body
    mine, others = dict(by_gate.headers), {name: value for name, value in by_door.headers if name.lower() != "date"}
    if case.retry:
        assert abs(int(mine.pop("Retry-After")) - int(others.pop("Retry-After"))) <= 10
    assert {name.lower(): value.lower() for name, value in others.items()} == \
        {name.lower(): value.lower() for name, value in mine.items()}


def test_nobody_can_wait_longer_for_an_answer_than_the_opening_takes(world, family):
    """Retry-After has four digits: an opening that is further away than 9,999 s is capped, not wrapped round."""
    token = world.sale(opens_in=86400, ends_in=90000).token()
    assert world.order(token, family).header("retry-after") == "9999"
    assert world.order_by_call_door(token, family).header("retry-after") == "9999"


@pytest.mark.parametrize("text", [
    "A" * 64,
    "A" * 65,
    "A" * 200,
    secrets.token_urlsafe(48),
    "A" * 63 + "=",
    "%41" * 21 + "A",
], ids=["zeros", "too_long_by_one", "far_too_long", "random", "padding", "percent"])
def test_what_is_no_token_is_refused_by_the_gate(world, family, text):
    curl = world.curl_order(text, family=family)
    assert curl.returncode == 0, curl.stderr
    assert_complete(curl.answer, 401, "Unauthorized", "token_invalid", False)
    world.assert_no_socket(curl.local_port)


@pytest.mark.parametrize("text", ["", "A", "A" * 63], ids=["none", "one_character", "too_short_by_one"])
def test_what_is_too_short_for_a_token_is_refused_too(world, family, text):
    curl = world.curl_order(text, family=family)
    assert curl.returncode == 0, curl.stderr
    assert curl.answer.status in (401, 404, 405), curl.answer
    assert curl.answer.header("content-type") == "application/problem+json"


def test_a_bound_token_is_good_in_its_network(world, family):
    source = world.source(family)
    sale = world.sale()
    token = sale.token(network=source)
    assert world.order(token, family, source).status == 201


def test_over_the_rate_of_its_source_is_429_and_its_neighbour_is_served(world, family):
    sale = world.sale(opens_in=600)
    token, source = sale.token(), world.source(family)
    before = world.packets("rate_source")
    with world.limits(source=(0.05, 3)):
        for _ in range(3):
            assert world.order(token, family, source).status == 409
        curl = world.curl_order(token, family=family, source=source)
        assert curl.returncode == 0, curl.stderr
        assert_complete(curl.answer, 429, "Too Many Requests", "rate_limited", True)
        assert 1 <= int(curl.answer.header("retry-after")) <= 20
        world.assert_no_socket(curl.local_port)
        assert world.packets("rate_source") == before + 1
        assert world.order(token, family).status == 409, "another source pays for it"


def test_over_the_rate_on_a_connection_that_is_kept_alive_is_429_too(world, family):
    with world.limits(source=(0.05, 3)), world.connect(family) as connection:
        for _ in range(3):
            assert connection.ask(talk.request("GET", "/")).status == 200
        connection.send(talk.request("GET", "/"))
        answer = connection.receive()
        assert (answer.status, answer.code()) == (429, "rate_limited"), answer
        assert 1 <= int(answer.header("retry-after")) <= 20


def test_over_the_rate_of_one_token_is_429(world, family):
    token = already_ordered(world)
    with world.limits(token=(0.05, 2)):
        for _ in range(2):
            assert world.order(token, family).code() == "already_ordered"
        before = world.packets("rate_token")
        curl = world.curl_order(token, family=family)
        assert curl.returncode == 0, curl.stderr
        assert_complete(curl.answer, 429, "Too Many Requests", "rate_limited", True)
        assert world.packets("rate_token") == before + 1


def test_a_refused_request_with_a_body_and_long_headers_is_closed_cleanly(world, family):
    """What does not fit into the first segment arrives after the answer: it is acknowledged, so that curl can finish."""
    token = not_open(world)
    for arguments in (["-H", "Cookie: " + "c" * 6000], ["--data-binary", "x" * 20000]):
        curl = world.curl_order(token, *arguments, family=family)
        assert curl.returncode == 0, curl.stderr
        assert_complete(curl.answer, 409, "Conflict", "sale_not_open", True)
        world.assert_no_socket(curl.local_port)


def test_a_hundred_refusals_leave_no_socket(world, family):
    token = not_open(world)
    before = {ns.name: sockets_in_use(ns) for ns in (world.shop, world.crowd)}
    for _ in range(100):
        assert world.order(token, family).status == 409
    assert {ns.name: sockets_in_use(ns) for ns in (world.shop, world.crowd)} == before


def sockets_in_use(ns):
    """TCP sockets and TIME-WAIT of both families, as the kernel counts them."""
    fields = {}
    for path in ("/proc/net/sockstat", "/proc/net/sockstat6"):
        for line in ns.read(path).splitlines():
            name, *words = line.replace(":", "").split()
            fields.update({f"{name}.{key}": int(value) for key, value in zip(words[::2], words[1::2])})
    return fields["TCP.inuse"], fields["TCP6.inuse"], fields["TCP.tw"]
