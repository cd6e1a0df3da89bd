# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Clients that say little, slowly, or never listen: each ends in a stated time, holds a bounded part of the daemon, and keeps no buyer out.

The daemon here has little patience, so that the ends can be seen: a silent connection is closed after a second, one whose request is
not whole after two, and of 200 places one source may hold 40. Tests that wait for an end wait for both families at once.
"""
import contextlib
import signal
import socket
import time

import pytest

import talk
from netns import wait_until
from rawtcp import payload
from strange import Buyers, OddClient, end_of, ended, fds, metric, status_of
from world import FAMILIES, PORT, SHOP, SLUICED, World

IDLE_S, PATIENCE_S = 1, 2
PLACES, SHARE = 200, 40
# Ends come a little later than they are due: the daemon looks four times a second, and the machine has other work.
LATE_S = 3
KERNEL_S = PATIENCE_S + 12  # it counts in probes, whose distance doubles
HALF_HEAD = b"GET / HTTP/1.1\r\nHost: shop.example\r\nX-Slow: "


@pytest.fixture(scope="module")
def world():
    with World({"daemon.idle_seconds": IDLE_S, "daemon.max_connections": PLACES, "daemon.max_connections_per_source": SHARE}) as shop:
        yield shop


@pytest.fixture(autouse=True)
def nothing_is_left_behind(world):
    """After each test the daemon holds what it held before: connections, files, and no more than a little memory."""
    wait_until(lambda: connections(world) == 0, "no connection is left")
    files, memory = fds(world.daemon), status_of(world.daemon, "VmRSS")
    yield
    wait_until(lambda: connections(world) == 0, "no connection is left")
    wait_until(lambda: fds(world.daemon) <= files, f"no more than {files} files are open")
    # 200 places with 16 KiB each for their heads, once they have been used, stay with the allocator.
    assert status_of(world.daemon, "VmRSS") <= memory + 8192


def connections(world):
    return metric(world, "sluice_http_connections", listener="public")


def closed(world, cause):
    return metric(world, "sluice_http_connections_closed_total", listener="public", cause=cause)


def half_sent(world, family, stack, source=None):
    connection = stack.enter_context(world.connect(family, source))
    connection.send(HALF_HEAD)
    return connection


# --- half-sent requests ------------------------------------------------------------------------------------------------------------
def test_half_sent_heads_of_one_source_crowd_out_each_other_only(world, family):
    """Also a buyer at the same address is served, as behind the NAT of a mobile network."""
    source, before = world.source(family), closed(world, "crowded_source")
    neighbour = world.sale(stock=20)
    tokens = [neighbour.token() for _ in range(10)]
    with world.limits(source=(0, 1), prefix=(0, 1)), contextlib.ExitStack() as stack, Buyers(world, family):
        slow = []
        for _ in range(10):
            slow += [half_sent(world, family, stack, source) for _ in range(15)]
            assert world.order(tokens.pop(), family, source).status == 201
        assert connections(world) <= SHARE + 15  # who has just been told to go may still be there
        assert len(ended(slow)) >= len(slow) - SHARE - 15
    assert closed(world, "crowded_source") - before >= len(slow) - SHARE - 15
    neighbour.assert_books(held=10)


def test_half_sent_heads_of_many_sources_crowd_out_each_other_only(world, family):
    """A botnet: no source has more than its share, and there are more of them than places."""
    before = closed(world, "crowded")
    with contextlib.ExitStack() as stack, Buyers(world, family) as buyers:
        slow = []
        for _ in range(10):
            slow += [half_sent(world, family, stack) for _ in range(50)]
            buyers.wait_for(1)
            assert fds(world.daemon) < PLACES + 100
        assert connections(world) <= PLACES
        assert len(ended(slow)) >= len(slow) - PLACES
    assert closed(world, "crowded") - before >= 200


def test_a_half_sent_head_is_closed_when_it_is_idle(world):
    with contextlib.ExitStack() as stack:
        slow = [half_sent(world, family, stack) for family in FAMILIES for _ in range(10)]
        start = time.monotonic()
        for connection in slow:
            assert end_of(connection, IDLE_S + LATE_S)[0] == "fin"
        assert time.monotonic() - start >= IDLE_S / 2


class FewFilesWorld(World):
    """Its daemon may open 800 files, whatever the config says, and has no right to raise that."""

    def start_daemon(self, env=None, ready=True):
        self.daemon = self.shop.start(["setpriv", "--bounding-set", "-sys_resource", "prlimit", "--nofile=800:800", SLUICED, "--config",
                                       self.config], self.dir / "daemon.log", env=env)
        if ready:
            self.wait_ready()


def test_places_run_out_before_the_files_do():
    with FewFilesWorld() as shop, contextlib.ExitStack() as stack, Buyers(shop) as buyers:
        assert "open files are limited to 800: 400 connections fit" in shop.daemon.log()
        for _ in range(9):
            slow = [half_sent(shop, "ipv4", stack) for _ in range(100)]
            buyers.wait_for(1)
            assert connections(shop) <= 400 and fds(shop.daemon) < 500
        assert len(ended(slow)) == 0, "the last to come are still there"


# --- byte by byte ----------------------------------------------------------------------------------------------------------------------
def test_a_byte_every_fifty_milliseconds_is_not_waited_for_for_ever(world):
    """It is never idle; what ends it is that its request is not whole in time."""
    late = closed(world, "late")
    with contextlib.ExitStack() as stack, Buyers(world):
        slow = [half_sent(world, family, stack) for family in FAMILIES for _ in range(10)]
        start = time.monotonic()
        while len(ended(slow)) < len(slow):
            assert time.monotonic() - start < PATIENCE_S + LATE_S, f"{len(slow) - len(ended(slow))} are still open"
            for connection in slow:
                with contextlib.suppress(OSError):
                    connection.sock.send(b"x")
            time.sleep(0.05)
        assert time.monotonic() - start >= PATIENCE_S - 0.3, "closed before its time"
    assert closed(world, "late") > late


def test_an_order_byte_by_byte_within_the_time_is_an_order(world, family):
    sale = world.sale(stock=1)
    data = f"POST /v1/orders/{sale.token()} HTTP/1.1\r\n\r\n".encode()
    with world.connect(family) as connection:
        connection.send_in_pieces(data, [1] * len(data), pause=0.9 * IDLE_S / len(data))
        assert connection.receive().status == 201
    sale.assert_books(held=1, free=0)


def test_an_order_whose_body_never_ends_is_closed_and_takes_no_more_than_its_unit(world):
    """At the wire the gate had said yes before the body was due: the unit is the buyer's, and asking again gives it."""
    with contextlib.ExitStack() as stack, Buyers(world):
        orders = []
        for family in FAMILIES:
            for door in ("wire", "call"):
                sale = world.sale(stock=2)
                token = sale.token()
                head = talk.request("POST", f"/v1/orders/{token}", [("Content-Length", "100000")])
                connection = stack.enter_context(world.connect(family))
                connection.send_in_pieces(head, [len(head)] if door == "wire" else [4, len(head) - 4])
                orders.append((sale, token, family, door, connection))
        start = time.monotonic()
        while len(ended([order[-1] for order in orders])) < len(orders):
            assert time.monotonic() - start < PATIENCE_S + LATE_S, "still open"
            for order in orders:
                with contextlib.suppress(OSError):
                    order[-1].sock.send(b"x" * 10)
            time.sleep(0.05)
    for sale, token, family, door, _ in orders:
        sale.assert_books(held=1 if door == "wire" else 0)
        assert world.order(token, family).status in ((200, 201) if door == "wire" else (201,))
        sale.assert_books(held=1)


# --- who does not listen ------------------------------------------------------------------------------------------------------------------
def test_clients_that_never_read_are_given_up(world):
    """Each asks for the page's script a hundred times and takes nothing: what does not fit into the socket is not made."""
    asset = talk.request("GET", "/assets/app.js") * 100
    with world.limits(source=(0, 1), prefix=(0, 1)), contextlib.ExitStack() as stack, Buyers(world):
        deaf = []
        for family in [*FAMILIES] * 10:
            sock = world.socket(family)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.append(stack.enter_context(talk.Connection(sock, (SHOP[family], PORT))))
            deaf[-1].send(asset)
        assert connections(world) >= 15
        wait_until(lambda: connections(world) < 5, "the daemon has given them up", timeout=PATIENCE_S + LATE_S)
        ports = {connection.port for connection in deaf}
        # The kernel would probe a closed window for minutes after the close.
        wait_until(lambda: not ports & sockets_of(world), "the kernel has given them up", timeout=KERNEL_S)


def sockets_of(world):
    """Peer ports of the shop's sockets, less those that are TIME-WAIT."""
    found = world.shop.tcp_sockets(PORT)
    return {int(peer.rsplit(":", 1)[1]) for state, _, peer in found if state != "TIME-WAIT"}


def test_a_window_that_opens_late_still_gets_the_answer(world, family):
    """The client had no room when it asked; 600 ms later it has."""
    sale = world.sale(stock=1)
    with OddClient(world, family) as client:
        client.handshake()
        client.window = 0
        data = talk.request("POST", f"/v1/orders/{sale.token()}", [("Connection", "close")])
        client.send("PA", data)
        client.seq += len(data)
        wait_until(lambda: sale.books()["held"] == 1, "the order is durable")
        assert not any(payload(packet) for packet in client.settle(0.6)), "data into a closed window"
        client.window = 65535
        client.send("A")
        answer, = talk.parse_answers(client.receive_until_end())
        assert answer.status == 201 and answer.json()["seq"] == 1
    sale.assert_books(held=1, free=0)


def test_a_window_that_never_opens_is_given_up_and_the_order_stands(world):
    with contextlib.ExitStack() as stack, Buyers(world):
        orders = []
        for family in FAMILIES:
            sale = world.sale(stock=1)
            client, token = stack.enter_context(OddClient(world, family)), sale.token()
            client.handshake()
            client.window = 0
            data = talk.request("POST", f"/v1/orders/{token}")
            client.send("PA", data)
            client.seq += len(data)
            orders.append((sale, token, family, client))
        deadline = time.monotonic() + KERNEL_S
        while {client.port for *_, client in orders} & sockets_of(world):
            assert time.monotonic() < deadline, "the shop still waits for the window"
            for *_, client in orders:
                if client.receive(0.05) is not None:
                    client.send("A")  # it lives, and answers each probe
        assert not any(client.received for *_, client in orders)
    for sale, token, family, _ in orders:
        assert world.order(token, family).status in (200, 201)
        sale.assert_books(held=1, free=0)


def test_a_refusal_needs_no_window(world, family):
    """The gate's answer is one segment, sent and forgotten; a closed window is the client's own loss."""
    token = world.sale(opens_in=600).token()
    with OddClient(world, family) as client:
        client.handshake()
        client.window = 0
        client.send("PA", talk.request("POST", f"/v1/orders/{token}"))
        assert b"sale_not_open" in payload(client.receive())
    assert client.port not in sockets_of(world)


# --- who is slow and honest -----------------------------------------------------------------------------------------------------------------
def test_a_connection_in_use_is_kept_however_old_it_is(world):
    """It rests for less than the idle time between two requests, and outlives what a whole request may take."""
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(world.connect(family)) for family in FAMILIES]
        while time.monotonic() - start < PATIENCE_S + 0.7:
            for connection in busy:
                assert connection.ask(talk.request("GET", "/")).status == 200
            time.sleep(0.3 * IDLE_S)
        for connection in busy:
            assert end_of(connection, IDLE_S + LATE_S) == ("fin", b"")


def test_a_buyer_who_waits_for_a_slow_writer_keeps_the_place(world):
    """The order's connection waits longer than patience lasts, in a crowd that takes every place: it works, so it is not told to go."""
    sale = world.sale(stock=2)
    with contextlib.ExitStack() as stack:
        buyers = [stack.enter_context(world.connect(family)) for family in FAMILIES]
        tokens = [sale.token() for _ in buyers]
        world.writer.popen.send_signal(signal.SIGSTOP)
        try:
            for buyer, token in zip(buyers, tokens):
                buyer.send(talk.request("POST", f"/v1/orders/{token}", [("Connection", "close")]))
            start = time.monotonic()
            while time.monotonic() - start < PATIENCE_S + 0.7:
                for family in [*FAMILIES] * 30:
                    half_sent(world, family, stack)
                time.sleep(0.2)
        finally:
            world.writer.popen.send_signal(signal.SIGCONT)
        assert [buyer.receive_only().status for buyer in buyers] == [201, 201]
    wait_until(lambda: world.status()["orders_open"], "orders are open")
    sale.assert_books(held=2, free=0)