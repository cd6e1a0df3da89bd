# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""What an operator sees and turns on a launch night: shadow mode, explain, events and monitor, top. With real clients: what is shown must be what they got."""
import contextlib
import itertools
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest

from netns import die_with_parent, run, wait_until
from test_privileges import ServicesWorld
from tokens import Token
from world import BPFTOOL, CONTROL_PORT, DEVICE, PORT, SHOP, SLUICE, UnixConnection, World

HERE = os.path.dirname(os.path.abspath(__file__))
OK, FAILED, USAGE, NOT_FOUND, CONFLICT, NOT_ALLOWED, UNREACHABLE = range(7)
WATCHERS_MAX = 16
FLAGS_OFFSET, FLAG_ORDERS_OPEN, FLAG_WATCH = 32, 1, 4  # abi.h, struct sluice_control
ONE = (0.02, 1)  # rate and burst: one, and then none for longer than a test takes
SLOW = (1, 1)  # for what many sources share: one a second, forgotten soon after


def flags(world):
    (_, value), = world.map_dump("control")
    return int.from_bytes(value[FLAGS_OFFSET:FLAGS_OFFSET + 4], "little")


def secret(world):
    return {"Authorization": "Bearer " + (world.state_dir / "control.secret").read_text(encoding="ascii").strip()}


def shadowed(world, reason):
    return world.stats()["shadow"].get(reason, 0)


@contextlib.contextmanager
def shadow(world, **switches):
    """shadow(source=True) or shadow(all=True) for the length of a block."""
    def patch(on):
        return {"shadow" if name == "all" else name: on if name == "all" else {"shadow": on} for name in switches}
    world.ask("PATCH", "/v1/limits", patch(True))
    try:
        yield
    finally:
        world.ask("PATCH", "/v1/limits", patch(False))


@contextlib.contextmanager
def denied(world, prefix, **fields):
    world.ask("PUT", f"/v1/lists/deny/{prefix}", fields or None)
    try:
        yield
    finally:
        world.ask("DELETE", f"/v1/lists/deny/{prefix}", expect=(204, 404))


def can_connect(world, family, source):
    with world.socket(family, source) as sock:
        sock.settimeout(0.4)
        try:
            sock.connect((SHOP[family], PORT))
            return True
        except (TimeoutError, socket.timeout):
            return False


class Events:
    """A watcher: GET /v1/events, read event by event."""

    def __init__(self, world, query="", tcp=False, headers=None):
        if tcp:
            self.sock = world.shop.socket()
            self.sock.connect(("127.0.0.1", CONTROL_PORT))
        else:
            connection = UnixConnection(world.control_socket, 5)
            connection.connect()
            self.sock = connection.sock
        self.sock.settimeout(5)
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self.sock.sendall(f"GET /v1/events{query} HTTP/1.0\r\nHost: x\r\n{lines}\r\n".encode())
        self.stream = self.sock.makefile("rb")
        self.status = int(self.stream.readline().split()[1])
        self.headers = {}
        while (line := self.stream.readline().strip()):
            name, _, value = line.decode().partition(": ")
            self.headers[name.lower()] = value
        if self.status == 200:
            assert self.stream.readline() == b": watching\n" and self.stream.readline() == b"\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.stream.close()
        self.sock.close()

    def next(self, heartbeats=False):
        """(name, data) of the next event; None at the end of the stream. A heartbeat is ("alive", None), or is passed over."""
        name = "message"
        while True:
            line = self.stream.readline()
            if not line:
                return None
            if heartbeats and line.startswith(b":"):
                return "alive", None
            if line.startswith(b"event: "):
                name = line[7:].strip().decode()
            elif line.startswith(b"data: "):
                assert self.stream.readline() == b"\n"
                return name, json.loads(line[6:])
            else:
                assert line == b"\n" or line.startswith(b":"), line

    def rest(self):
        """All events up to a heartbeat, which says that for a second there were no more."""
        events = []
        while (event := self.next(heartbeats=True)) and event[0] != "alive":
            events.append(event)
        return events

    def until(self, wanted, seconds=5.0):
        """Verdicts up to the first that is `wanted`."""
        deadline, seen = time.monotonic() + seconds, []
        while time.monotonic() < deadline:
            name, verdict = self.next()
            assert name == "message", (name, verdict)
            seen.append(verdict)
            if wanted(verdict):
                return seen
        raise AssertionError(f"not within {seconds} s; seen: {seen}")


def wait_for_nobody(world, timeout=5):
    """A watcher that is gone is noticed at the next heartbeat."""
    wait_until(lambda: not flags(world) & FLAG_WATCH, "nobody watches", timeout=timeout)


@contextlib.contextmanager
def monitor(world, name, *args):
    """`sluice monitor` in the background for the length of a block, which begins when it watches."""
    others = flags(world) & FLAG_WATCH
    process = world.shop.start([SLUICE, "monitor", "--socket", world.control_socket, *args], world.dir / f"{name}.log")
    try:
        if others:
            time.sleep(0.5)
        wait_until(lambda: flags(world) & FLAG_WATCH or not process.running(), "somebody watches")
        yield process
    finally:
        process.stop()


def lines_of(process):
    return [line for line in process.log().splitlines() if not line.startswith("sluice: ")]


# --- shadow mode, limit by limit --------------------------------------------------------------------------------------------
def test_a_rate_in_shadow_only_counts(world, family):
    sale, source = world.sale(), world.source(family)
    tokens = [sale.token() for _ in range(4)]
    with world.limits(source=ONE):
        assert world.order(tokens[0], family, source).status == 201
        assert world.order(tokens[1], family, source).code() == "rate_limited"
        counted = shadowed(world, "rate_source")
        with shadow(world, source=True):
            assert world.ask("GET", "/v1/limits")["source"]["shadow"] is True
            assert world.status()["shadow"] == "some"
            assert world.order(tokens[1], family, source).status == 201
            assert world.order(tokens[2], family, source).status == 201
            assert shadowed(world, "rate_source") == counted + 2
        assert world.order(tokens[3], family, source).code() == "rate_limited"
        assert shadowed(world, "rate_source") == counted + 2
    assert world.status()["shadow"] == "off"


def test_one_limit_in_shadow_leaves_the_others_in_force(world, family):
    sale, source = world.sale(), world.source(family)
    tokens = [sale.token() for _ in range(2)]
    with world.limits(source=ONE, prefix=SLOW), shadow(world, source=True):
        assert world.order(tokens[0], family, source).status in (201, 429)  # the prefix may have been used before
        refused = world.packets("rate_prefix")
        assert world.order(tokens[1], family, source).code() == "rate_limited"
        assert world.packets("rate_prefix") > refused


def test_a_deny_list_in_shadow_lets_in_and_counts(world, family):
    source = world.source(family)
    with denied(world, source):
        assert not can_connect(world, family, source)
        counted = shadowed(world, "denied")
        with shadow(world, deny=True):
            assert can_connect(world, family, source)
            assert shadowed(world, "denied") > counted
        assert not can_connect(world, family, source)


def test_a_pace_in_shadow_lets_pass(world, family):
    sale = world.sale(pace_per_second=1, per_buyer=1)
    tokens = [sale.token() for _ in range(6)]
    statuses = [world.order(token, family).status for token in tokens[:3]]
    assert 429 in statuses
    with shadow(world, pace=True):
        counted = shadowed(world, "pace")
        assert [world.order(token, family).status for token in tokens[3:]] == [201] * 3
        assert shadowed(world, "pace") >= counted + 2


def test_a_syn_budget_in_shadow_lets_connect(world, family):
    source = world.source(family)
    with world.limits(syn_prefix=SLOW):
        wait_until(lambda: not can_connect(world, family, source), "the budget is spent", timeout=10)
        with shadow(world, syn_prefix=True):
            assert can_connect(world, family, source)
        assert not can_connect(world, family, source)


def test_a_token_rate_in_shadow_only_counts(world, family):
    """Tried again and again by a buyer who has had all that a buyer may have: what is refused before the units are asked for charges no token."""
    sale = world.sale(stock=5)
    had = sale.token()
    assert world.order(had, family).status == 201

    def tries():
        token = sale.signed(had, serial=Token.read(had).serial ^ next(numbers))
        return [world.order(token, family).code() for _ in range(3)]
    numbers = itertools.count(1)
    with world.limits(token=ONE):
        counted = shadowed(world, "rate_token")
        assert tries() == ["already_ordered", "rate_limited", "rate_limited"]
        assert shadowed(world, "rate_token") == counted
        with shadow(world, token=True):
            assert tries() == ["already_ordered"] * 3
            assert shadowed(world, "rate_token") == counted + 2
        assert tries() == ["already_ordered", "rate_limited", "rate_limited"]
        assert shadowed(world, "rate_token") == counted + 2


def test_the_budget_of_answers_has_a_shadow(world, family):
    sale, source = world.sale(stock=5), world.source(family)
    token = sale.token()
    with world.limits(source=ONE, answer=ONE), shadow(world, answer=True):
        counted = shadowed(world, "rate_drop")
        codes = [world.order(token, family, source).code() for _ in range(4)]
        # The third and the fourth would be dropped without the shadow, and the client would wait for ever.
        assert codes == [None, "rate_limited", "rate_limited", "rate_limited"] and shadowed(world, "rate_drop") == counted + 2, codes


@pytest.mark.parametrize("body", [{"shadow": "yes"}, {"source": {"shadow": 1}}, {"pace": {"rate": 1}}, {"pace": True}, {"deny": {"burst": 2}},
                                  {"all": {"shadow": True}}, {"pace": {"shadow": None}}])
def test_a_shadow_that_cannot_be_changes_nothing(world, body):
    before = world.ask("GET", "/v1/limits")
    reply = world.control("PATCH", "/v1/limits", {"deny": {"shadow": True}, "prefix": {"rate": 7, "burst": 7}, **body})
    assert reply.status == 400, reply
    assert world.ask("GET", "/v1/limits") == before and world.status()["shadow"] == "off"


def test_of_two_operators_the_second_is_told(world):
    reply = world.control("GET", "/v1/limits")
    tag = reply.headers["ETag"]
    changed = world.control("PATCH", "/v1/limits", {"pace": {"shadow": True}}, headers={"If-Match": tag})
    assert changed.status == 200 and changed.headers["ETag"] != tag
    late = world.control("PATCH", "/v1/limits", {"deny": {"shadow": True}}, headers={"If-Match": tag})
    assert (late.status, late.code()) == (412, "precondition_failed") and late.headers["ETag"] == changed.headers["ETag"]
    assert world.ask("GET", "/v1/limits")["deny"]["shadow"] is False
    back = world.control("PATCH", "/v1/limits", {"pace": {"shadow": False}}, headers={"If-Match": changed.headers["ETag"]})
    assert back.status == 200 and back.headers["ETag"] == tag


def test_switching_disturbs_no_other_flag(world):
    """Orders stay open and watchers come and go while shadows are switched as fast as the API can."""
    with Events(world, "?reason=none"):
        for n in range(60):
            world.ask("PATCH", "/v1/limits", {"source": {"shadow": n % 2 == 0}, "pace": {"shadow": n % 3 == 0}})
            assert flags(world) & (FLAG_ORDERS_OPEN | FLAG_WATCH) == FLAG_ORDERS_OPEN | FLAG_WATCH
    world.ask("PATCH", "/v1/limits", {"source": {"shadow": False}, "pace": {"shadow": False}})
    assert world.status()["orders_open"] is True


def test_shadow_is_in_the_metrics(world):
    with shadow(world, pace=True):
        text = world.control("GET", "/metrics").body.decode()
        assert 'sluice_shadow_mode{limit="pace"} 1' in text and 'sluice_shadow_mode{limit="all"} 0' in text
        assert 'sluice_shadow_total{reason="rate_source"}' in text
    assert 'sluice_shadow_mode{limit="pace"} 0' in world.control("GET", "/metrics").body.decode()


def test_the_command_switches_and_shows_it(world):
    done = world.cli("limit", "shadow", "syn_global", "on")
    row, = [line for line in done.stdout.splitlines() if line.startswith("syn_global ")]
    assert " on " in row
    assert json.loads(world.cli("limit", "list", "-o", "json").stdout)["syn_global"]["shadow"] is True
    world.cli("limit", "shadow", "syn_global", "off")
    assert world.cli("limit", "shadow", "syn_global", "perhaps", check=False).returncode == USAGE
    assert world.cli("limit", "shadow", "nonsense", "on", check=False).returncode == USAGE
    done = world.cli("limit", "shadow", "all", "on")
    shown = world.sluice("status", "--config", world.config, "-o", "json")
    assert json.loads(shown.stdout)["shadow"] == "all" and "whole gate is in shadow mode" in shown.stderr
    assert "THE WHOLE GATE IS IN SHADOW MODE" in world.sluice("doctor", "--no-measure", "--config", world.config).stdout
    assert "whole gate" in done.stderr and " ALL " in done.stdout
    assert "whole gate" not in world.cli("limit", "shadow", "all", "off").stderr


# --- the whole gate -----------------------------------------------------------------------------------------------------------
def test_the_whole_gate_in_shadow_refuses_nobody_and_sells_no_unit_twice(world, family):
    sale, source, banned = world.sale(stock=2), world.source(family), world.source(family)
    tokens = [sale.token() for _ in range(4)]
    with world.limits(source=ONE), denied(world, banned), shadow(world, all=True):
        assert world.status()["shadow"] == "all"
        assert "THE WHOLE GATE IS IN SHADOW MODE" in world.daemon.log()
        before = world.packets("shadowed"), shadowed(world, "denied")
        assert world.order(tokens[0], family, banned).status == 201
        assert world.packets("shadowed") > before[0] and shadowed(world, "denied") > before[1]
        assert world.order(tokens[1], family, source).status == 201
        assert world.order(tokens[2], family, source).code() == "sold_out", "stock is no limit"
        assert world.order(tokens[1], family, source).status == 200
    sale.assert_books(put_in=2, free=0, held=2)
    assert "left shadow mode" in world.daemon.log()
    with world.limits(source=ONE), denied(world, banned):
        assert not can_connect(world, family, banned)


def test_shadow_outlives_daemon_and_reload():
    with World() as world:
        world.ask("PATCH", "/v1/limits", {"shadow": True, "deny": {"shadow": True}})
        world.daemon.kill()
        world.start_daemon()
        assert world.status()["shadow"] == "all"
        said = world.daemon.log().split("orders are open")[-2]
        assert "THE WHOLE GATE IS IN SHADOW MODE" in said and 'limit "deny" is in shadow mode' in said
        world.sluice("reload", "--config", world.config)
        limits = world.ask("GET", "/v1/limits")
        assert limits["shadow"] is True and limits["deny"] == {"shadow": True} and limits["pace"] == {"shadow": False}


# --- explain --------------------------------------------------------------------------------------------------------------------
def explain(world, ip):
    return world.ask("GET", f"/v1/explain?ip={ip}")


def test_an_honest_source_is_explained(world, family):
    sale, source = world.sale(), world.source(family)
    before = explain(world, source)
    assert before["now"] == {"passes": True, "reason": None, "text": before["now"]["text"], "shadowed": []}
    assert before["entries"] == [] and before["verdicts"] == [] and before["last_refusal"] is None
    assert before["rates"]["source"]["kept"] is False and before["rates"]["source"]["left"] == 100
    assert world.order(sale.token(), family, source).status == 201
    after = explain(world, source)
    assert after["now"]["passes"] is True and after["last_refusal"] is None
    assert [verdict["reason"] for verdict in after["verdicts"]][-1] == "admitted"
    assert all(verdict["text"] and verdict["action"] == "passed" for verdict in after["verdicts"])
    assert after["rates"]["source"]["kept"] is True and after["rates"]["source"]["next_allowed_ms"] == 0
    assert after["rates"]["source"]["left"] in (99, 100)
    assert after["rates"]["syn_global"]["left"] is None and after["not_kept"]
    assert after["source"] == (source if family == "ipv4" else source.rsplit("::", 1)[0] + "::/64")


def test_a_denied_source_is_explained_with_the_entry_that_decides(world, family):
    source = world.source(family)
    wide = "10.72.0.0/16" if family == "ipv4" else "fd72::/32"
    with denied(world, wide, reason="wide"), denied(world, source, reason="narrow", ttl_seconds=1):
        assert not can_connect(world, family, source)
        told = explain(world, source)
        assert (told["now"]["passes"], told["now"]["reason"]) == (False, "denied")
        assert [(entry["list"], entry["reason"], entry["live"], entry["decides"]) for entry in told["entries"]] == \
            [("deny", "narrow", True, True), ("deny", "wide", True, False)]
        assert told["entries"][0]["label"] == "narrow" and told["entries"][0]["hits"] >= 1 and told["entries"][0]["expires_at"] and told["entries"][1]["expires_at"] is None
        time.sleep(1.1)
        told = explain(world, source)
        decides, = [entry for entry in told["entries"] if entry["decides"]]
        assert decides["reason"] == "wide" and wide in told["now"]["text"], "the narrow one has expired"
        assert not can_connect(world, family, source)
        with shadow(world, deny=True):
            told = explain(world, source)
            assert told["now"]["passes"] is True and told["now"]["shadowed"] == ["denied"] and told["shadow"] == "some"
            assert can_connect(world, family, source)
        world.ask("PUT", f"/v1/lists/allow/{source}", {"reason": "office"})
        told = explain(world, source)
        assert told["now"]["passes"] is True and "allow" in told["now"]["text"]
        decides, = [entry for entry in told["entries"] if entry["decides"]]
        assert (decides["list"], decides["reason"]) == ("allow", "office")
        assert can_connect(world, family, source)
        world.ask("DELETE", f"/v1/lists/allow/{source}")


def test_a_source_over_its_rate_is_explained(world, family):
    sale, source = world.sale(), world.source(family)
    tokens = [sale.token() for _ in range(2)]
    with world.limits(source=(0.5, 1)):
        assert world.order(tokens[0], family, source).status == 201
        refused = world.order(tokens[1], family, source)
        assert refused.code() == "rate_limited"
        told = explain(world, source)
        assert (told["now"]["passes"], told["now"]["reason"]) == (False, "rate_source")
        assert told["last_refusal"]["reason"] == "rate_source" and "source" in told["last_refusal"]["text"]
        assert told["verdicts"][0]["reason"] == "rate_source"
        rate = told["rates"]["source"]
        assert rate["left"] == 0 and 0 < rate["next_allowed_ms"] <= 2000
        assert int(refused.header("retry-after")) * 1000 >= rate["next_allowed_ms"]
        with shadow(world, source=True):
            told = explain(world, source)
            assert told["now"]["passes"] is True and told["now"]["shadowed"] == ["rate_source"]
            assert told["rates"]["source"]["shadow"] is True
        # What is said is so: not sooner, but then.
        with world.limits(source=(1, 1)):
            told = explain(world, source)
            time.sleep(told["rates"]["source"]["next_allowed_ms"] / 1000 + 0.01)
            assert explain(world, source)["now"]["passes"] is True
            assert world.order(tokens[1], family, source).status == 201


def test_an_explanation_is_of_what_the_gate_counts_together(world):
    told = explain(world, "fd72:0:0:77::1")
    other = explain(world, "fd72:0:0:77:ffff::2")
    assert told["source"] == other["source"] == "fd72:0:0:77::/64" and told["prefix"] == "fd72::/48"
    source = world.source("ipv4")
    assert world.order(world.sale().token(), "ipv4", source).status == 201
    mapped = explain(world, f"::ffff:{source}")
    plain = explain(world, source)
    assert mapped["ip"] == source and mapped["verdicts"] == plain["verdicts"] != []
    assert plain["prefix"].endswith(".0/24")


@pytest.mark.parametrize("ip", ["nonsense", "10.0.0.0/8", "300.1.1.1", "10.0.0.1%00", "", "fe80::1%25eth0", "1" * 300])
def test_nonsense_cannot_be_explained(world, ip):
    reply = world.control("GET", f"/v1/explain?ip={ip}")
    assert reply.status == 422 and reply.json()["field"] == "ip", reply
    assert world.control("GET", "/v1/explain").status == 400


def test_the_issue_of_tokens_is_explained_too():
    with World({"daemon.issue_source": {"rate": 0.02, "burst": 2}}) as world:
        sale, source = world.sale(), world.source()
        assert explain(world, source)["issue"]["left"] == 2
        for n in range(3):
            answer = world.public("POST", f"{sale.path}/tokens", {"buyer": f"b{n}"}, source=source)
        assert answer.status == 429
        told = explain(world, source)
        assert told["issue"]["left"] == 0 and told["issue"]["next_allowed_ms"] > 0
        assert told["now"]["passes"] is True, "the gate is not what refused"


def test_explain_command_and_its_watch(world, family):
    sale, source = world.sale(), world.source(family)
    with world.limits(source=ONE):
        tokens = [sale.token() for _ in range(3)]
        assert [world.order(token, family, source).status for token in tokens[:2]] == [201, 429]
        text = world.cli("explain", source).stdout
        assert "is refused (rate_source)" in text and "Last refusal: rate_source" in text and "It is on no list." in text
        wait_for_nobody(world)
        process = world.shop.start([SLUICE, "explain", source, "--watch", "2", "--socket", world.control_socket],
                                   world.dir / f"explain-{family}.log")
        wait_until(lambda: flags(world) & FLAG_WATCH, "it watches")
        assert world.order(tokens[2], family, source).status == 429
        assert world.order(sale.token(), family).status == 201  # another source
        wait_until(lambda: not process.running(), "it ends by itself", timeout=5)
        assert process.popen.returncode == OK
        watched = process.log().split("Watching ")[1]
        assert "rate_source" in watched and "admitted" not in watched, watched
        assert "rate_source" in [event["reason"] for event in explain(world, source)["events"]], "it is kept a while"
    told = json.loads(world.cli("explain", source, "-o", "json", "--watch", "1").stdout)
    assert told["ip"] == source and told["watched"] == []
    done = world.cli("explain", "nonsense", check=False)
    assert done.returncode == USAGE and done.stdout == "" and "address" in done.stderr


# --- events -----------------------------------------------------------------------------------------------------------------------
def test_a_refusal_is_shown_within_a_second_with_all_that_is_known(world, family):
    sale, source = world.sale(stock=1), world.source(family)
    winner, loser = sale.token(), sale.token()
    assert world.order(winner, family).status == 201
    with Events(world) as events:
        assert events.headers["content-type"] == "text/event-stream" and events.headers["cache-control"] == "no-store"
        begin = time.time()
        assert world.order(loser, family, source).code() == "sold_out"
        verdict = events.until(lambda verdict: verdict["reason"] == "sold_out")[-1]
        assert time.time() - begin < 1
        assert verdict.pop("time").endswith("Z") and verdict.pop("bytes") > 54 and 0 < verdict.pop("source_port") < 65536
        assert verdict == {"reason": "sold_out", "action": "refused", "verdict": "answer", "source": source, "service": "shop",
                           "sale": sale.slug, "door": "wire", "shadow": False, "stands_for": 1.0}
        assert world.order_by_call_door(loser, family, source).code() == "sold_out"
        seen = events.until(lambda verdict: verdict["door"] == "call")
        assert seen[-1]["source"] == source and seen[-1]["sale"] == sale.slug and seen[-1]["service"] is None
        assert "socket" not in {verdict["reason"] for verdict in seen}


@pytest.mark.parametrize("query, shown", [
    ("?reason=sold_out", {"sold_out"}), ("?reason=sold_out,admitted", {"sold_out", "admitted"}), ("?action=refused", {"sold_out"}),
    ("?action=passed&door=wire", {"admitted"}), ("?action=handshake&reason=syn_cookie", {"syn_cookie"}),
    ("?sale={sale}&door=wire", {"sold_out", "admitted"}), ("?source={loser}&action=refused", {"sold_out"}),
    ("?source={winner}&reason=sold_out,admitted", {"admitted"}), ("?source={net}&action=refused", {"sold_out"}),
    ("?door=call&action=refused", set()), ("?reason=socket", {"socket"}), ("?source=192.0.2.0/24", set()),
])
def test_filters(world, family, query, shown):
    sale, other = world.sale(stock=1), world.sale(stock=5)
    winner, loser = world.source(family), world.source(family)
    tokens = [sale.token(), sale.token()]
    query = query.format(sale=sale.slug, winner=winner, loser=loser, net="10.72.0.0/16" if family == "ipv4" else "fd72::/32")
    with Events(world, query) as events, Events(world, "?reason=admitted") as marks:
        assert world.order(tokens[0], family, winner).status == 201
        assert world.order(tokens[1], family, loser).code() == "sold_out"
        assert world.order(other.token(), family, winner).status == 201  # not of the first sale
        marks.until(lambda verdict: verdict["sale"] == other.slug)
        seen = [verdict for _, verdict in events.rest()]
        assert {verdict["reason"] for verdict in seen} == shown, seen
        if "sale=" in query:
            assert {verdict["sale"] for verdict in seen} == {sale.slug}


def test_two_watchers_each_get_their_own(world):
    sale, mine, theirs = world.sale(), world.source(), world.source()
    with Events(world, f"?source={mine}&reason=admitted") as one, Events(world, f"?source={theirs}&reason=admitted") as two:
        for source in (mine, theirs):
            assert world.order(sale.token(), source=source).status == 201
        assert one.next()[1]["source"] == mine and two.next()[1]["source"] == theirs


def test_a_limit_ends_the_stream(world):
    with Events(world, "?limit=3") as events:
        assert world.order(world.sale().token()).status == 201
        assert [name for name, _ in (events.next() for _ in range(3))] == ["message"] * 3
        assert events.next() is None
    assert world.control("HEAD", "/v1/events").status == 200, "of which there is no end to wait for"
    wait_for_nobody(world)


@pytest.mark.parametrize("query, status, field", [
    ("reason=nonsense", 422, "reason"), ("reason=", 422, "reason"), ("reason=,", 422, "reason"), ("action=lost", 422, "action"),
    ("reason=sold_out&action=passed", 422, "action"), ("source=10.0.0.1/8", 422, "source"), ("source=here", 422, "source"),
    ("sale=no-such-sale", 404, "sale"), ("door=back", 422, "door"), ("sample=0", 422, "sample"), ("sample=2", 422, "sample"),
    ("sample=nan", 422, "sample"), ("sample=-1", 422, "sample"), ("limit=0", 422, "limit"), ("limit=many", 422, "limit"),
    ("resaon=sold_out", 400, "resaon"),
])
def test_a_filter_that_cannot_be(world, query, status, field):
    wait_for_nobody(world)
    reply = world.control("GET", f"/v1/events?{query}")
    assert (reply.status, reply.json()["field"]) == (status, field), reply
    assert not flags(world) & FLAG_WATCH


def test_over_tcp_watching_needs_the_secret(world):
    with Events(world, tcp=True) as events:
        assert events.status == 401
    with Events(world, "?reason=admitted", tcp=True, headers=secret(world)) as events:
        assert events.status == 200
        assert world.order(world.sale().token()).status == 201
        assert events.next()[1]["reason"] == "admitted"


def test_a_seventeenth_watcher_is_refused_until_one_leaves(world):
    with contextlib.ExitStack() as stack:
        watchers = [stack.enter_context(Events(world, "?reason=none")) for _ in range(WATCHERS_MAX)]
        reply = world.control("GET", "/v1/events")
        assert reply.status == 503 and reply.code() == "too_many_watchers" and int(reply.headers["Retry-After"]) > 0
        assert world.control("GET", "/v1/top?interval_ms=100").code() == "too_many_watchers"
        assert world.control("GET", "/v1/status").status == 200, "the rest of the API goes on"
        watchers[7].close()
        def admitted():
            with Events(world, "?reason=none") as again:
                return again.status == 200
        wait_until(admitted, "there is room again", timeout=5)
    wait_for_nobody(world)


def test_a_killed_watcher_leaves_the_gate_unwatched(world):
    wait_for_nobody(world)
    with monitor(world, "killed") as process:
        process.kill()
        wait_for_nobody(world)


def test_a_watcher_that_vanishes_without_a_word_is_noticed(world):
    """Its end is cut off: no FIN, no RST, no acknowledgement."""
    wait_for_nobody(world)
    watcher = Events(world, tcp=True, headers=secret(world))
    assert watcher.status == 200 and flags(world) & FLAG_WATCH
    try:
        world.shop.run(["ip", "link", "set", "lo", "down"])
        watcher.close()
        wait_for_nobody(world, timeout=20)
    finally:
        world.shop.run(["ip", "link", "set", "lo", "up"])


def test_a_daemon_that_stops_ends_its_watchers_and_a_killed_one_is_tidied_up_after():
    with World() as world:
        with monitor(world, "stopped") as process:
            begin = time.monotonic()
            assert world.daemon.terminate() == 0 and time.monotonic() - begin < 8
            wait_until(lambda: not process.running(), "the monitor ends too", timeout=5)
            assert process.popen.returncode == UNREACHABLE and "ended the stream" in process.log()
        assert not flags(world) & FLAG_WATCH
        world.start_daemon()
        with monitor(world, "orphaned"):
            world.daemon.kill()
            assert flags(world) & FLAG_WATCH
            world.start_daemon()
            assert not flags(world) & FLAG_WATCH


def test_all_of_it_works_in_a_daemon_without_root():
    with ServicesWorld() as world:
        world.attach()
        world.start_writer()
        world.start_daemon()
        source, sale = world.source(), world.sale()
        with Events(world, "?reason=admitted") as events:
            assert world.order(sale.token(), source=source).status == 201
            assert events.next()[1]["source"] == source
            assert world.ask("GET", "/v1/top?interval_ms=100")["orders"]["open"] is True
        told = world.ask("GET", f"/v1/explain?ip={source}")
        assert told["verdicts"] and told["events"][0]["reason"] == "admitted"
        with shadow(world, all=True):
            assert world.status()["shadow"] == "all"
        wait_for_nobody(world)
        assert world.daemon.running() and world.daemon.terminate() == 0


def flood(world, count):
    """SYNs from made-up sources of 10.73.0.0/16; returns when all are sent."""
    done = world.crowd.run([sys.executable, f"{HERE}/flood.py", DEVICE, world.network.mac(world.crowd),
                            world.network.mac(world.shop), "ipv4", SHOP["ipv4"], PORT, count], timeout=60)
    assert int(done.stdout) == count


def test_a_slow_reader_is_told_what_it_lost(world):
    with Events(world, "?source=10.73.0.0/16") as events:
        flood(world, 30000)
        seen = events.rest()
        shown = [verdict for name, verdict in seen if name == "message"]
        lost = sum(data["lost"] for name, data in seen if name == "lost")
        assert lost > 0 and len(shown) > 1000, (len(shown), lost)
        assert len(shown) + lost <= 30000
        assert world.order(world.sale().token(), source="10.72.0.1").status == 201


def test_a_flood_that_no_filter_wants_is_thinned_out_in_the_gate(world):
    """These two have so few bits in common that the gate shows nearly every source."""
    command = [sys.executable, f"{HERE}/flood.py", DEVICE, world.network.mac(world.crowd), world.network.mac(world.shop), "ipv4",
               SHOP["ipv4"], PORT, 10**7]

    def threshold():
        (_, value), = world.map_dump("watch")
        return int.from_bytes(value[48:52], "little")

    with Events(world, "?source=0.0.0.0/1&sale=" + world.sale().slug), Events(world, "?source=128.0.0.0/1"):
        assert threshold() == 0xFFFFFFFF
        floods = [world.crowd.start(command, world.dir / f"unwanted-{n}.log") for n in range(2)]
        try:
            begun, start = world.packets("syn_cookie") + world.packets("accept_full"), time.monotonic()
            with contextlib.suppress(AssertionError):  # said below, with the rate of the flood
                wait_until(lambda: threshold() < 0xFFFFFFFF, "verdicts are thinned out", timeout=5)
            rate = (world.packets("syn_cookie") + world.packets("accept_full") - begun) / (time.monotonic() - start)
            assert threshold() < 0xFFFFFFFF, f"every verdict of {rate:.0f} a second was taken to the daemon, and nobody wants one"
        finally:
            for flooding in floods:
                flooding.kill()
        wait_until(lambda: threshold() == 0xFFFFFFFF, "everything is shown again", timeout=5)


def test_a_sample_is_about_the_part_asked_for(world):
    with Events(world, "?sample=0.1&source=10.73.0.0/16") as events:
        flood(world, 4000)
        seen = [verdict for _, verdict in events.rest()]
    assert 200 < len(seen) < 800, len(seen)
    assert all(verdict["stands_for"] == pytest.approx(10) for verdict in seen)


def test_verdicts_are_the_same_with_and_without_a_watcher(world, family):
    def one_round():
        sale = world.sale(stock=2)
        tokens = [sale.token() for _ in range(4)]
        source = world.source(family)
        before = world.stats()
        answers = [world.order(token, family, source) for token in tokens]
        answers += [world.order_by_call_door(tokens[0], family, source), world.order("x" * 64, family, source)]
        answers += [world.public("GET", sale.path, family=family, source=source)]
        after = world.stats()
        counted = {reason: entry["packets"] - before["packets"]["shop"].get(reason, {}).get("packets", 0)
                   for reason, entry in after["packets"]["shop"].items()}
        wanted = ("admitted", "sold_out", "token_form", "request", "request_unread", "denied", "rate_source")
        calls = {reason: count - before["calls"].get(reason, 0) for reason, count in after["calls"].items()}
        return ([(answer.status, answer.code()) for answer in answers], {key: counted.get(key, 0) for key in wanted},
                {key: value for key, value in calls.items() if value})
    alone = one_round()
    with Events(world), Events(world, "?sample=0.5"), Events(world, "?reason=sold_out"):
        watched = one_round()
    assert alone == watched


# --- monitor --------------------------------------------------------------------------------------------------------------------
def test_monitor_prints_lines_and_json(world, family):
    sale, source = world.sale(stock=1), world.source(family)
    winner, loser = sale.token(), sale.token()
    assert world.order(winner, family).status == 201
    with monitor(world, f"plain-{family}", "--reason", "sold_out", "--source", source) as plain, \
            monitor(world, f"json-{family}", "--sale", sale.slug, "--action", "refused", "-o", "json", "--count", "2") as lines:
        for _ in range(2):
            assert world.order(loser, family, source).code() == "sold_out"
        wait_until(lambda: len(lines_of(plain)) == 2, "two lines", timeout=1)
        wait_until(lambda: not lines.running(), "it ends after two", timeout=3)
        assert lines.popen.returncode == OK
        for line in lines_of(plain):
            assert line.split()[1:] == ["sold_out", source, "shop", sale.slug, "wire"], line
        verdicts = [json.loads(line) for line in lines_of(lines)]
        assert [(verdict["reason"], verdict["sale"], verdict["source"]) for verdict in verdicts] == \
            [("sold_out", sale.slug, source)] * 2


def test_monitor_refuses_what_the_daemon_refuses(world):
    wait_for_nobody(world)
    for args, code in ((("--reason", "nonsense"), USAGE), (("--sale", "no-such-sale"), NOT_FOUND), (("--sample", "7"), USAGE),
                       (("--source", "here"), USAGE), (("--count", "0"), USAGE)):
        done = world.cli("monitor", *args, check=False, timeout=10)
        assert done.returncode == code and done.stdout == "" and done.stderr, done
    assert not flags(world) & FLAG_WATCH


def test_monitor_over_tcp_with_the_secret_from_a_file(world):
    wait_for_nobody(world)
    process = world.shop.start([SLUICE, "monitor", "--url", f"http://127.0.0.1:{CONTROL_PORT}", "--secret-file",
                                world.state_dir / "control.secret", "--count", "1", "-o", "json"], world.dir / "tcp.log")
    wait_until(lambda: flags(world) & FLAG_WATCH, "it watches")
    assert world.order(world.sale().token()).status == 201
    wait_until(lambda: not process.running(), "it ends after one", timeout=3)
    assert process.popen.returncode == OK and json.loads(lines_of(process)[0])["reason"] == "syn_cookie"


# --- top --------------------------------------------------------------------------------------------------------------------------
def test_top_tells_rates_stock_and_the_busiest(world, family):
    sale, busy, quiet = world.sale(stock=3), world.source(family), world.source(family)
    token, loser = sale.token(), sale.token()
    wait_for_nobody(world)
    process = world.shop.start([SLUICE, "top", "--interval", "2", "-o", "json", "--socket", world.control_socket],
                               world.dir / f"top-{family}.log")
    wait_until(lambda: flags(world) & FLAG_WATCH, "it looks")
    sale.move(-2)
    assert world.order(token, family, quiet).status == 201
    for _ in range(20):
        world.order(loser, family, busy)
    wait_until(lambda: not process.running(), "one look, as the output is no terminal", timeout=5)
    top = json.loads(process.log())
    assert process.popen.returncode == OK and abs(top["interval_ms"] - 2000) < 500, top
    seconds = top["interval_ms"] / 1000
    assert abs(top["packets"]["shop"]["admitted"] * seconds - 1) < 0.01
    refused = sum(top["packets"]["shop"].get(reason, 0) for reason in ("sold_out", "rate_token")) * seconds
    assert abs(refused - 20) < 0.01
    assert abs(top["orders"]["admitted_per_second"] * seconds - 1) < 0.01
    assert top["orders"]["in_flight"] == 0 and top["orders"]["open"] is True and top["shadow_mode"] == "off"
    first = top["sources"][0]
    assert first["source"] == (busy if family == "ipv4" else busy.rsplit("::", 1)[0] + "::/64")
    assert first["per_second"] * seconds >= 60 and abs(first["refused_per_second"] * seconds - 20) < 0.01
    assert top["prefixes"][0]["prefix"].endswith("/24" if family == "ipv4" else "/48")
    assert top["sample"]["verdicts"] == pytest.approx(top["sample"]["stands_for"])
    shown = {entry["slug"]: entry for entry in world.ask("GET", "/v1/top?interval_ms=100&limit=100")["sales"]}
    assert shown[sale.slug] == {"slug": sale.slug, "state": "sold_out", "put_in": 1, "free": 0, "held": 1, "confirmed": 0}


def test_top_of_a_flood_samples_and_still_knows_how_much(world):
    command = [sys.executable, f"{HERE}/flood.py", DEVICE, world.network.mac(world.crowd), world.network.mac(world.shop), "ipv4",
               SHOP["ipv4"], PORT, 10**7]
    begun = world.packets("syn_cookie") + world.packets("accept_full")
    flooding = world.crowd.start(command, world.dir / "flood.log")
    try:
        wait_until(lambda: world.packets("syn_cookie") + world.packets("accept_full") > begun + 5000, "the flood has begun")
        top = world.ask("GET", "/v1/top?interval_ms=1000")
    finally:
        flooding.kill()
    counted = sum(top["packets"]["shop"].values()) * top["interval_ms"] / 1000
    sample = top["sample"]
    assert counted > 5000, top
    assert sample["verdicts"] < 4000 and sample["verdicts"] < counted / 2, (counted, sample)
    assert 0.3 * counted < sample["stands_for"] < 1.7 * counted, (counted, sample)


@pytest.mark.parametrize("query, field", [("interval_ms=99", "interval_ms"), ("interval_ms=10001", "interval_ms"), ("interval_ms=x", "interval_ms"),
                                          ("limit=0", "limit"), ("limit=101", "limit")])
def test_top_that_cannot_be(world, query, field):
    reply = world.control("GET", f"/v1/top?{query}")
    assert (reply.status, reply.json()["field"]) == (422, field)


def test_top_on_a_pipe_prints_as_many_blocks_as_asked(world):
    world.sale(slug="top-pipe")
    one = world.cli("top", "--rows", "100").stdout
    assert one.count(" in flight, ") == 1 and "top-pipe" in one and "sampled:" in one and "\033" not in one
    two = world.cli("top", "--count", "2").stdout
    assert two.count(" in flight, ") == 2
    with shadow(world, all=True):
        assert "THE WHOLE GATE IS IN SHADOW MODE" in world.cli("top").stdout


@pytest.mark.parametrize("key", [b"q", b"\x03", None], ids=["q", "ctrl-c", "sigterm"])
def test_top_gives_the_terminal_back(world, key):
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)

    def own_terminal():
        die_with_parent()
        os.setsid()
        import fcntl
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    process = subprocess.Popen(list(map(str, world.shop.command([SLUICE, "top", "--interval", "3", "--socket", world.control_socket]))),
                               stdin=slave, stdout=slave, stderr=slave, preexec_fn=own_terminal)
    screen = b""

    def read(seconds):
        nonlocal screen
        while select.select([master], [], [], seconds)[0]:
            screen += os.read(master, 65536)
            seconds = 0.2
    try:
        read(6)
        assert b"\033[?1049h" in screen and b"in flight" in screen and b"\033[?1049l" not in screen
        assert not termios.tcgetattr(slave)[3] & termios.ECHO
        begin = time.monotonic()
        if key:
            os.write(master, key)
        else:
            process.send_signal(signal.SIGTERM)
        code = process.wait(5)
        assert time.monotonic() - begin < 1, "at once, not at the next look"
        assert code == (0 if key else -signal.SIGTERM)
        read(0.2)
        assert screen.endswith(b"\033[?25h\033[?1049l")
        assert termios.tcgetattr(slave) == before
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)
        os.close(slave)


# --- an interface of the gate that goes away ---------------------------------------------------------------------------------------
def on_interfaces(world):
    """{name: 0 or 1} of the metric."""
    text = world.control("GET", "/metrics").body.decode()
    return {name: int(value) for name, value in re.findall(r'^sluice_gate_interface_attached{interface="([^"]+)"} ([01])$', text, re.M)}


def readiness(world):
    reply = world.control("GET", "/readyz?verbose")
    return reply.status, reply.body.decode().splitlines()


def test_an_interface_that_loses_the_gate_is_told_of_everywhere():
    """By a daemon without root, which can open neither the pin of an interface that comes back nor one that joins later."""
    with ServicesWorld() as world:
        def add(device):
            world.shop.run(["ip", "link", "add", device, "type", "veth", "peer", "name", f"peer-{device}"])
            world.shop.run(["ip", "link", "set", device, "up"])
            world.sluice("attach", device, "--mode", "generic", "--config", world.config)

        def told(**interfaces):
            expected = {DEVICE: 1, **interfaces}
            wait_until(lambda: on_interfaces(world) == expected, f"interfaces are {expected}", timeout=8)
            shown = [{"name": name, "attached": bool(value)} for name, value in expected.items()]
            in_order = {"key": lambda entry: entry["name"]}
            assert sorted(world.status()["gate"]["interfaces"], **in_order) == sorted(shown, **in_order)
            assert sorted(world.ask("GET", "/v1/top?interval_ms=100")["interfaces"], **in_order) == sorted(shown, **in_order)
        world.attach()
        add("spare")
        world.start_writer()
        world.start_daemon()
        told(spare=1)
        for round_ in (1, 2):  # the first link was opened at the start, the second is known by the interface's index alone
            world.shop.run(["ip", "link", "del", "spare"])
            told(spare=0)
            assert world.control("GET", "/readyz").status == 200, "the other one is guarded"
            status, lines = readiness(world)
            assert status == 200 and "[~] interfaces: degraded: the gate is not on spare any more" in lines, lines
            assert "THE GATE IS NOT ON spare ANY MORE" in world.cli("top").stdout
            assert world.daemon.log().count("the gate is not on spare any more") == round_
            add("spare")
            told(spare=1)
            assert readiness(world)[1][0] == "[+] gate" and not any("interfaces" in line for line in readiness(world)[1])
        assert "THE GATE IS NOT ON" not in world.cli("top").stdout
        add("later")
        told(spare=1, later=1)
        for device in ("spare", "later"):
            world.sluice("detach", device, "--config", world.config)
        told()
        assert world.daemon.log().count("any more") == 2, "what was detached is missed by nobody"
        run([BPFTOOL, "link", "detach", "pinned", world.pin_dir / f"link-{DEVICE}"])
        wait_until(lambda: world.control("GET", "/readyz").status == 503, "a gate that guards nothing is not ready", timeout=8)
        status, lines = readiness(world)
        assert lines[0] == f"[-] gate: it is on no interface any more ({DEVICE})" and lines[-1] == "not ready", lines
        assert on_interfaces(world) == {DEVICE: 0} and "IT GUARDS NOTHING NOW" in world.daemon.log()


# --- an order writer that is away --------------------------------------------------------------------------------------------------
CHANGE_WORDS = ("Nothing was changed", "may still take effect", "changed all the same")


def told_closed(world, words, timeout=10):
    """Readiness, the API and `sluice status` say that orders are closed, and why."""
    wait_until(lambda: any(words in line for line in readiness(world)[1]), f"readyz says: {words}", timeout=timeout)
    status, lines = readiness(world)
    assert status == 503 and "[-] order writer" in lines, lines
    assert any(line.startswith("[-] orders open: closed because ") and words in line for line in lines), lines
    assert words in world.status()["orders_closed_because"]
    shown = json.loads(world.sluice("status", "-o", "json", "--config", world.config).stdout)
    assert shown["orders_open"] is False and words in shown["orders_closed_because"], shown
    assert words in world.sluice("status", "--config", world.config).stdout


def test_a_writer_that_is_stopped_or_gone_is_shown_as_down_and_reads_have_no_words_of_changes():
    with World() as world:
        sale = world.sale(stock=5)
        assert "orders_closed_because" not in world.sluice("status", "--config", world.config).stdout
        assert world.status()["orders_closed_because"] is None
        os.kill(world.writer.pid, signal.SIGSTOP)
        try:
            told_closed(world, "does not answer")
            assert world.status()["writer"]["connected"] is False
            assert "sluice_writer_up 0" in world.control("GET", "/metrics").body.decode().splitlines()
            late = world.control("GET", f"/v1/orders?sale={sale.slug}")
            assert late.status == 503 and not any(words in late.json()["detail"] for words in CHANGE_WORDS), late
            early = world.control("POST", f"{sale.path}/pause", headers={"Idempotency-Key": "stopped"})
            assert early.status == 503 and "Nothing was changed" in early.json()["detail"], "the key is looked for before the change is begun"
        finally:
            os.kill(world.writer.pid, signal.SIGCONT)
        wait_until(lambda: world.control("GET", "/readyz").status == 200, "orders are open again")
        assert world.status()["orders_closed_because"] is None and "[+] order writer" in readiness(world)[1]
        world.writer.kill()
        told_closed(world, f"no order writer is at {world.settings['writer.socket']}")
        gone = world.control("GET", f"/v1/orders?sale={sale.slug}")
        assert gone.json()["detail"] == "The order writer is not there.", gone
        assert world.control("POST", f"{sale.path}/pause").json()["detail"] == "The order writer is not there. Nothing was changed."
        world.daemon.kill()
        wait_until(lambda: "no sign of life" in world.sluice("status", "--config", world.config).stdout, "status says that the daemon is gone")


@contextlib.contextmanager
def kept_full(disk):
    """The file system stays full for the length of a block, also when the writer makes a little room, as it does when it opens its ledger anew."""
    over = threading.Event()

    def fill():
        with open(disk / "filler", "ab", buffering=0) as filler:
            while not over.is_set():
                try:
                    filler.write(bytes(512))
                except OSError:
                    over.wait(0.002)
    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        (disk / "filler").unlink()


def test_a_full_disk_is_named_to_who_is_kept_waiting_for_it():
    with contextlib.ExitStack() as stack:
        world = stack.enter_context(World(start=("gate",)))
        disk = world.dir / "disk"
        disk.mkdir(mode=0o700)
        run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", disk])
        stack.callback(run, ["umount", "-l", disk])
        stack.callback(world.stop_programs)
        world.ledger = disk / "ledger.db"
        world.settings["writer.ledger"] = world.ledger
        world.write_config()
        world.start_writer()
        world.start_daemon()
        sale = world.sale(stock=100)
        with kept_full(disk):
            for _ in range(64):  # what is left of the last page is taken first
                done = world.cli("stock", "add", sale.slug, "1", "--reason", "x" * 64, check=False)
                if done.returncode != OK:
                    break
            assert done.returncode == FAILED and "full" in done.stderr, done
            for _ in range(64):
                if world.order(sale.token()).status != 201:
                    break
            told_closed(world, "full")
            reading = world.control("GET", f"/v1/orders?sale={sale.slug}")
            if reading.status == 503:
                assert "full" in reading.json()["detail"] and not any(words in reading.json()["detail"] for words in CHANGE_WORDS), reading
        wait_until(lambda: world.control("GET", "/readyz").status == 200, "orders are open again", timeout=20)
        assert world.status()["orders_closed_because"] is None
        world.history.no_verdict("the disk was full")


def test_nobody_has_disturbed_the_gate(world):
    """After all this: nobody watches, nothing is in shadow, orders are open."""
    wait_for_nobody(world)
    assert world.status()["shadow"] == "off" and world.status()["orders_open"] is True
    assert struct.pack("<I", flags(world) & 0xff38) == bytes(4)
