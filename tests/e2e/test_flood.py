# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Floods: what is not protected is untouched, buyers get through, and memory is only spent on sources that were proved real.

The floods are bounded in number, not in time, so that a slow machine does the same as a fast one.
"""
import pathlib
import sys
import threading

import pytest

import talk
from netns import wait_until
from world import DEVICE, PORT, SHOP, World

HERE = pathlib.Path(__file__).resolve().parent
OTHER_PORT = 2222
FLOOD = 60000


@pytest.fixture(scope="module")
def echo(world):
    server = world.shop.start([sys.executable, HERE / "echo.py", OTHER_PORT], world.dir / "echo.log")
    try:
        def answers():
            try:
                with world.connect(to_port=OTHER_PORT) as connection:
                    connection.send(b"hello\n")
                    return connection.sock.recv(100) == b"hello\n"
            except OSError:
                return False
        wait_until(answers, "the other server answers")
        yield server
    finally:
        server.stop()


def flood_command(world, family, count=FLOOD):
    return [sys.executable, HERE / "flood.py", DEVICE, world.network.mac(world.crowd), world.network.mac(world.shop),
            family, SHOP[family], PORT, count]


def rate_names(world):
    """What the gate remembers a rate of: the names in its sets of four buckets (abi.h, struct sluice_rate_set)."""
    words = [int.from_bytes(value[i:i + 8], "little") for _, value in world.map_dump("rates") for i in range(0, 128, 32)]
    return {word for word in words if word}


def rate_name(net, kind, seed):
    """sluice_rate_name() of abi.h."""
    full = (1 << 64) - 1
    name = net ^ ((kind << 32 | seed) * 0x9E3779B97F4A7C15 & full)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        name ^= name >> 33
        name = name * factor & full
    return (name ^ name >> 33) or 1


def spoofed_names(world, family):
    """The names of every address that flood.py makes up, and of their prefixes."""
    (_, control), = world.map_dump("control")
    seed = int.from_bytes(control[60:64], "little")
    if family == "ipv4":
        base = 0xFFFF0A490000
        keys = [(base | n, 1) for n in range(1 << 16)] + [(base >> 8 | n, 3) for n in range(1 << 8)]
    else:
        keys = [(0xFD7300000000 << 16 | n, 2) for n in range(1 << 16)] + [(0xFD7300000000, 4)]
    return {rate_name(net, kind, seed) for net, kind in keys}


class Flood:
    """Runs flood.py again and again in the background until the block ends."""

    def __init__(self, world, family):
        self.world, self.command = world, flood_command(world, family)
        self.stop = threading.Event()
        self.rounds = 0
        self.process = None
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        while not self.stop.is_set() and self.rounds < 50:
            self.process = self.world.crowd.start(self.command, self.world.dir / "flood.log")
            self.process.popen.wait(120)
            self.rounds += 1

    def __enter__(self):
        seen = self.world.packets("syn_cookie") + self.world.packets("syn_prefix")
        self.thread.start()
        wait_until(lambda: self.world.packets("syn_cookie") + self.world.packets("syn_prefix") > seen + 1000,
                   "the flood has begun")
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(180)


def test_during_a_flood_other_ports_are_untouched_and_orders_go_on(world, echo, family):
    del echo
    sale = world.sale(stock=60)
    tokens = [sale.token() for _ in range(60)]
    with Flood(world, family):
        with world.connect(family, to_port=OTHER_PORT) as kept:
            for n, token in enumerate(tokens):
                assert world.order(token, ("ipv4", "ipv6")[n % 2]).status == 201
                kept.send(b"kept alive\n")
                assert kept.sock.recv(100) == b"kept alive\n"
                if n % 5 == 0:
                    with world.connect(family, to_port=OTHER_PORT) as fresh:
                        fresh.send(b"new\n")
                        assert fresh.sock.recv(100) == b"new\n"
    sale.assert_books(put_in=60, free=0, held=60)


def test_spoofed_sources_make_no_socket_and_no_entry(world, family):
    before, sockets = world.packets("syn_cookie") + world.packets("syn_prefix"), world.shop.tcp_sockets(PORT)
    done = world.crowd.run(flood_command(world, family), timeout=120)
    assert int(done.stdout) == FLOOD
    wait_until(lambda: world.packets("syn_cookie") + world.packets("syn_prefix") >= before + FLOOD * 0.9,
               "the gate has seen the flood")
    assert set(world.shop.tcp_sockets(PORT)) <= set(sockets), "no more than the TIME-WAITs of earlier tests"
    assert not rate_names(world) & spoofed_names(world, family)
    known = len(rate_names(world))
    assert world.public("GET", "/v1/sales/none", family=family).status == 404
    assert len(rate_names(world)) > known, "a source that was proved real has an entry"


def test_a_flood_of_one_prefix_spends_its_own_syn_budget_only(world, family):
    sale = world.sale(stock=20)
    tokens = [sale.token() for _ in range(20)]
    with world.limits(syn_prefix=(50, 100)):
        before = world.packets("syn_prefix")
        with Flood(world, family):
            for token in tokens:
                assert world.order(token, family).status == 201
        # 65,536 slots are shared by hash: ours could meet one of the flood's, then the client's own retransmission gets through.
        assert world.packets("syn_prefix") > before


def test_the_global_syn_budget_bounds_the_answers(world, family):
    with world.limits(syn_global=(100, 200), syn_prefix=(0, 1)):
        answered, refused = world.packets("syn_cookie"), world.packets("syn_global")
        done = world.crowd.run(flood_command(world, family, count=20000), timeout=120)
        sent = int(done.stdout)
        wait_until(lambda: world.packets("syn_cookie") - answered + world.packets("syn_global") - refused >= sent * 0.9,
                   "the gate has seen the flood")
        assert world.packets("syn_global") - refused > sent / 2


def test_who_is_known_does_not_stand_behind_strangers(world, family):
    sale = world.sale()
    known = world.source(family)
    assert world.public("GET", "/v1/sales/none", family=family, source=known).status == 404
    with world.limits(syn_global=(0.001, 1), syn_prefix=(0, 1)):
        refused = world.packets("syn_global")
        world.crowd.run(flood_command(world, family, count=100), timeout=120)
        wait_until(lambda: world.packets("syn_global") > refused, "strangers' SYNs are refused")
        with world.socket(family) as stranger:
            stranger.settimeout(0.5)
            with pytest.raises(TimeoutError):
                stranger.connect((SHOP[family], PORT))
        assert world.order(sale.token(), family, known).status == 201
        assert world.ask("GET", f"/v1/explain?ip={known}")["now"]["passes"]


def test_over_the_rate_a_source_gets_429_and_then_silence(world, family):
    sale = world.sale(opens_in=600)
    token, source = sale.token(), world.source(family)
    with world.limits(source=(0.02, 3), answer=(0.02, 2)):
        statuses = [world.order(token, family, source).status for _ in range(5)]
        assert statuses == [409, 409, 409, 429, 429]
        before = world.packets("rate_drop")
        with world.connect(family, source) as connection:
            connection.sock.settimeout(1.5)
            connection.send(talk.request("POST", f"/v1/orders/{token}"))
            with pytest.raises(TimeoutError):
                connection.sock.recv(100)
        assert world.packets("rate_drop") > before
        assert world.order(token, family).status == 409, "somebody else pays for it"


def test_over_the_rate_of_a_prefix(world, family):
    token = world.sale(opens_in=600).token()
    subnet = [f"10.72.251.{n}" if family == "ipv4" else f"fd72:0:1:{n}::1" for n in range(1, 8)]
    with world.limits(prefix=(0.02, 5)):
        assert [world.order(token, family, source).status for source in subnet] == [409] * 5 + [429] * 2
        before = world.packets("rate_prefix")
        assert before >= 2


def test_who_is_allowed_is_beyond_rates(world, family):
    token, source = world.sale(opens_in=600).token(), world.source(family)
    world.ask("PUT", f"/v1/lists/allow/{source}")
    try:
        with world.limits(source=(0.02, 2), prefix=(0.02, 2)):
            assert [world.order(token, family, source).status for _ in range(8)] == [409] * 8
    finally:
        world.ask("DELETE", f"/v1/lists/allow/{source}")


def test_forged_tokens_from_one_source_do_not_spend_anothers_budget(world, family):
    sale = world.sale(stock=3)
    attacker = world.source(family)
    for _ in range(150):
        answer = world.order("A" * 64, family, attacker)
        if answer.status == 429:
            break
        assert answer.status == 401
    else:
        raise AssertionError("150 requests of one source are within 50/s and a burst of 100?")
    assert world.order(sale.token(), family).status == 201


def test_a_deny_list_for_everything_covers_other_ports_too(family):
    with World({"gate.deny_scope": "all"}) as shop:
        server = shop.shop.start([sys.executable, HERE / "echo.py", OTHER_PORT], shop.dir / "echo.log")
        try:
            banned, free = shop.source(family), shop.source(family)

            def reaches(source):
                sock = shop.socket(family, source)
                sock.settimeout(1.0)
                try:
                    with sock:
                        sock.connect((SHOP[family], OTHER_PORT))
                        return True
                except (TimeoutError, ConnectionRefusedError):
                    return False
            wait_until(lambda: reaches(free), "the other server answers")
            shop.ask("PUT", f"/v1/lists/deny/{banned}")
            assert reaches(free) and not reaches(banned)
            shop.ask("DELETE", f"/v1/lists/deny/{banned}")
            assert reaches(banned)
        finally:
            server.stop()


def test_a_service_of_kind_tcp_gets_cookies_and_rates_without_http(family):
    services = [{"name": "shop", "port": PORT, "kind": "sale"}, {"name": "echo", "port": OTHER_PORT, "kind": "tcp"}]
    with World({"services": services}) as shop:
        server = shop.shop.start([sys.executable, HERE / "echo.py", OTHER_PORT], shop.dir / "echo.log")
        try:
            wait_until(lambda: shop.shop.run(["ss", "-Hltn", f"sport = :{OTHER_PORT}"]).stdout, "the server listens")
            with shop.connect(family, to_port=OTHER_PORT) as silent, \
                    shop.connect(family, to_port=OTHER_PORT) as connection:
                connection.send(b"POST /v1/orders/ is just a line here\n")
                assert connection.sock.recv(100) == b"POST /v1/orders/ is just a line here\n"
                assert not [s for s in shop.shop.tcp_sockets(silent.port) if s[0] != "TIME-WAIT"]
            assert shop.packets("tcp_first", "echo") == 1
            source = shop.source(family)
            with shop.limits(source=(0.02, 1)):
                with shop.connect(family, source, to_port=OTHER_PORT) as connection:
                    connection.send(b"one\n")
                    assert connection.sock.recv(100) == b"one\n"
                with shop.connect(family, source, to_port=OTHER_PORT) as connection:
                    connection.sock.settimeout(1.0)
                    connection.send(b"two\n")
                    with pytest.raises(TimeoutError):
                        connection.sock.recv(100)
                assert shop.packets("rate_drop", "echo") >= 1
        finally:
            server.stop()


