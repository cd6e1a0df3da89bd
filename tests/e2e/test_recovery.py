# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Programs that are killed, and a ledger that cannot be written: nothing sold is lost, nothing is sold twice, and who must wait is
told so by the gate.
"""
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import sqlite3
import threading
import time

import pytest

import talk
from netns import run, wait_until
from tokens import damaged
from world import PORT, World


class Stream:
    """Buyers who come one after the other, each until it has an answer that is not "come again"; in the background."""

    def __init__(self, world, sale, count, family="ipv4"):
        self.world, self.family = world, family
        self.tokens = [sale.token() for _ in range(count)]
        self.confirmed = {}    # token -> order, of every 200 and 201
        self.waiting = 0       # 503
        self.pending = 0       # 202
        self.lost = 0          # connection broke or timed out: the buyer knows nothing
        self.other = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        for token in self.tokens:
            while not self.stop.is_set():
                try:
                    answer = self.world.order(token, self.family)
                except (OSError, AssertionError):
                    self.lost += 1
                    time.sleep(0.05)
                    continue
                if answer.status in (200, 201):
                    self.confirmed[token] = answer.json()
                    break
                if answer.status == 503:
                    self.waiting += 1
                elif answer.status == 202:
                    self.pending += 1
                else:
                    self.other.append(str(answer))
                time.sleep(0.05)

    def __enter__(self):
        self.thread.start()
        wait_until(lambda: len(self.confirmed) >= 5, "the first orders")
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(60)

    def finish(self):
        wait_until(lambda: not self.thread.is_alive(), "all buyers are served", timeout=60)
        assert self.other == [] and len(self.confirmed) == len(self.tokens), (self.other, self.lost, len(self.confirmed))


def assert_all_in_ledger(world, sale, orders):
    """What buyers were told is what is on disk."""
    wait_until(lambda: sale.books()["in_flight"] == 0, "nothing is in flight")
    rows = dict(world.ledger_query(f"SELECT printf('%016x', serial), seq FROM orders WHERE sale = {sale.id}"))
    assert rows.items() >= {order["id"]: str(order["seq"]) for order in orders}.items()
    return rows


def refusal(world, token, family="ipv4"):
    answer = world.order(token, family)
    return answer.status, answer.code()


def wait_closed(world, sale, reason, family="ipv4"):
    """The gate says unavailable for `reason`. Returns a token that was refused so; one that asked a moment too early is admitted."""
    def refused_token():
        token = sale.token()
        return token if refusal(world, token, family) == (503, "unavailable") else None
    token = wait_until(refused_token, "orders are closed")
    before = world.packets(reason)
    curl = world.curl_order(token, family=family)
    assert curl.returncode == 0 and curl.answer.code() == "unavailable"
    assert int(curl.answer.header("retry-after")) >= 1
    world.assert_no_socket(curl.local_port)
    assert world.packets(reason) > before  # other buyers may have been told so meanwhile
    return token


@pytest.fixture(autouse=True)
def both_programs(world):
    """A test that failed half way leaves no dead program to the next one."""
    if not world.writer.running():
        world.start_writer()
    if not world.daemon.running():
        world.start_daemon(ready=False)
    world.wait_ready()


def test_the_writer_is_killed_during_a_stream_of_orders(world, family):
    sale, other = world.sale(stock=400), world.sale(stock=400)
    with Stream(world, sale, 150, family) as stream:
        world.writer.kill()
        bystander = wait_closed(world, other, "writer_away", family)
        free = other.show()["free"]
        for _ in range(5):
            assert refusal(world, bystander, family) == (503, "unavailable")
        assert other.show()["free"] == free, "a unit was taken while nobody could make the order durable"
        world.start_writer()
        stream.finish()
    assert_all_in_ledger(world, sale, stream.confirmed.values())
    sale.assert_books(put_in=400, held=150)


def test_a_writer_that_is_away_for_long_is_not_taken_for_a_dead_daemon(world):
    sale = world.sale(stock=50)
    world.writer.kill()
    token = wait_closed(world, sale, "writer_away")
    away = world.packets("daemon_away")
    time.sleep(4.5)  # twice the age at which a heartbeat counts as old
    assert refusal(world, token) == (503, "unavailable")
    assert world.packets("daemon_away") == away and "hangs" not in world.daemon.log()
    world.start_writer()
    wait_until(lambda: world.order(token).status == 201, "orders are open again")


def test_admissions_that_wait_for_the_writer_are_delivered_when_it_is_back(world):
    """The writer stands still (a disk that hangs), buyers are admitted, it is killed: each of them has a unit."""
    sale = world.sale(stock=50)
    other = world.sale(stock=50)
    tokens = [sale.token() for _ in range(6)]
    os.kill(world.writer.pid, signal.SIGSTOP)
    answers = []
    threads = [threading.Thread(target=lambda token=token: answers.append(world.order(token))) for token in tokens]
    for thread in threads:
        thread.start()
    wait_until(lambda: sale.books()["in_flight"] == 6, "six units are in flight")
    assert world.ledger_query(f"SELECT count(*) FROM orders WHERE sale = {sale.id}") == [["0"]]
    world.writer.kill()
    wait_closed(world, other, "writer_away")
    assert sale.books()["free"] == 44
    world.start_writer()
    for thread in threads:
        thread.join(60)
    assert {answer.status for answer in answers} <= {201, 202} and len(answers) == 6, list(map(str, answers))
    rows = assert_all_in_ledger(world, sale, [answer.json() for answer in answers if answer.status == 201])
    assert len(rows) == 6
    for token in tokens:
        assert world.order(token).status in (200, 201)
    sale.assert_books(put_in=50, free=44, held=6)


def test_the_daemon_is_killed_and_the_gate_closes_orders_by_itself(world, family):
    sale = world.sale(stock=20)
    buyers = [sale.buyer() for _ in range(4)]
    tokens = [sale.token(buyer) for buyer in buyers]
    first = world.order(tokens[0], family)
    assert first.status == 201
    page = world.connect(family)
    with page:
        world.daemon.kill()
        # The port has no listener now, so no connection begins; those that have begun are answered by the gate. Before
        # the heartbeat is 2 s old an order can still be admitted; it is not lost (the test after this one).
        assert world.daemon.popen.returncode == -signal.SIGKILL
        with pytest.raises(OSError):
            world.order(tokens[1], family)
    world.start_daemon()
    assert [sale.token(buyer) for buyer in buyers[1:]] == tokens[1:]
    assert world.order(tokens[0], family).json() == first.json()
    assert world.order(tokens[1], family).status == 201
    sale.assert_books(put_in=20, free=18, held=2)



@pytest.fixture(name="keeper")
def a_service_manager_that_keeps_descriptors(tmp_path):
    """The end of systemd's protocol at which descriptors are kept: NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(20)
        yield notified


def kept_of(keeper):
    """What the daemon said to it: (words, descriptor), of those with one."""
    while True:
        words, descriptors, _, _ = socket.recv_fds(keeper, 4096, 4)
        if descriptors:
            assert len(descriptors) == 1
            return words.decode(), descriptors[0]


@pytest.mark.parametrize("how", ("killed", "stopped"))
def test_a_listener_that_is_kept_lets_the_gate_answer_while_the_daemon_is_away(world, keeper, how):
    env = {**os.environ, "NOTIFY_SOCKET": keeper.getsockname()}
    world.daemon.stop()
    world.start_daemon(env)
    words, descriptor = kept_of(keeper)
    assert words == "FDSTORE=1\nFDNAME=public"
    sale = world.sale(stock=20)
    token = sale.token()
    try:
        world.daemon.kill() if how == "killed" else world.daemon.terminate()

        time.sleep(2.1)  # the age at which a heartbeat counts as old; not a bound on how fast anything is
        answer = world.order(token)
        assert (answer.status, answer.code()) == (503, "unavailable") and int(answer.header("retry-after")) >= 1
        assert world.order(damaged(token)).code() == "token_invalid"
        with world.connect() as page:  # it waits for the next daemon, and is served
            page.send(talk.request("GET", "/", [("Connection", "close")]))
            world.start_daemon(env, kept=descriptor)
            assert page.receive_only().status == 200
    finally:
        os.close(descriptor)
    assert "kept during the restart" in world.daemon.log()
    assert wait_until(lambda: world.order(token).status in (200, 201), "orders are open again")
    keeper.settimeout(0)
    with pytest.raises(BlockingIOError):
        kept_of(keeper)  # the manager has it already


def test_a_kept_socket_of_a_former_address_is_not_listened_on_and_not_in_the_way(world, keeper):
    """The manager still has it, at the port that is wanted: of the one address before, and of any now."""
    world.daemon.stop()
    with world.shop.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", PORT))
        other.listen()
        world.start_daemon({**os.environ, "NOTIFY_SOCKET": keeper.getsockname()}, kept=other.fileno())
    words, descriptor = kept_of(keeper)  # a new one
    os.close(descriptor)
    assert words.startswith("FDSTORE=1")
    assert world.order(world.sale(stock=1).token()).status == 201


def test_a_daemon_that_stands_still_is_noticed_by_the_gate(world, family):
    """Stopped, not dead: its listener is there, so handshakes go on, and the gate answers for it."""
    sale = world.sale(stock=20)
    token = sale.token()
    os.kill(world.daemon.pid, signal.SIGSTOP)
    try:
        def closed():
            with world.connect(family) as connection:
                connection.sock.settimeout(0.5)
                connection.send(talk.request("POST", f"/v1/orders/{token}", [("Connection", "close")]))
                try:
                    return connection.receive_only()
                except TimeoutError:
                    return None  # admitted just before the gate noticed: it waits for the daemon
        time.sleep(2.1)  # the age at which a heartbeat counts as old; not a bound on how fast anything is
        answer = wait_until(closed, "the gate closes orders by itself")
        assert (answer.status, answer.code()) == (503, "unavailable"), answer
        assert int(answer.header("retry-after")) >= 1
        for bad in ("A" * 64, damaged(token)):
            curl = world.curl_order(bad, family=family)
            assert curl.returncode == 0 and curl.answer.code() == "token_invalid", "bots are refused as ever"
            world.assert_no_socket(curl.local_port)
    finally:
        os.kill(world.daemon.pid, signal.SIGCONT)
    wait_until(lambda: world.order(token, family).status == 201, "orders are open again")
    assert world.packets("daemon_away") > 0
    sale.assert_books(put_in=20, free=19, held=1)


def test_admissions_are_not_lost_when_the_daemon_is_killed(world, family):
    sale = world.sale(stock=400)
    for _ in range(2):
        with Stream(world, sale, 60, family) as stream:
            world.daemon.kill()
            world.start_daemon()
            stream.finish()
        assert_all_in_ledger(world, sale, stream.confirmed.values())
    sale.assert_books(put_in=400, held=120)


def test_an_admission_that_the_daemon_never_saw_is_delivered_after_its_restart(world):
    """Admitted by the gate while the daemon stood still; then the daemon is killed."""
    sale = world.sale(stock=10)
    token = sale.token()
    os.kill(world.daemon.pid, signal.SIGSTOP)
    with world.connect() as connection:
        connection.send(talk.request("POST", f"/v1/orders/{token}"))
        connection.wait_acknowledged()
        world.daemon.kill()
    world.start_daemon()
    wait_until(lambda: sale.books()["held"] == 1, "the order is durable")
    assert world.order(token).status in (200, 201)
    sale.assert_books(put_in=10, free=9, held=1)


def test_daemon_and_writer_are_killed_together(world, family):
    sale = world.sale(stock=400)
    with Stream(world, sale, 80, family) as stream:
        world.writer.kill()
        world.daemon.kill()
        world.start_writer()
        world.start_daemon()
        stream.finish()
    assert_all_in_ledger(world, sale, stream.confirmed.values())
    sale.assert_books(put_in=400, held=80)


def test_the_daemon_starts_before_the_writer_and_closes_orders_until_it_is_there(world):
    sale = world.sale(stock=10)
    token = sale.token()
    assert world.daemon.terminate() == 0
    assert world.writer.terminate() == 0
    world.start_daemon(ready=False)
    wait_until(lambda: refused(lambda: world.control("GET", "/livez").status == 200), "the control API answers")
    assert world.control("GET", "/readyz").status == 503
    reply = world.control("PUT", "/v1/sales/not-now", {"stock": 1, "opens_at": "2026-01-01T00:00:00Z",
                                                        "ends_at": "2036-01-01T00:00:00Z"})
    assert (reply.status, reply.code()) == (503, "writer_away"), reply
    assert refusal(world, token) == (503, "unavailable")
    world.start_writer()
    world.wait_ready()
    assert world.order(token).status == 201
    assert world.control("GET", "/v1/sales/not-now").status == 404
    sale.assert_books(put_in=10, free=9, held=1)


def refused(question):
    try:
        return question()
    except OSError:
        return False


def test_sigterm_ends_both_programs_cleanly_and_loses_nothing(world):
    sale = world.sale(stock=200)
    with Stream(world, sale, 60) as stream:
        assert world.daemon.terminate() == 0
        assert world.writer.terminate() == 0
        assert not pathlib.Path(world.settings["writer.socket"]).exists()
        world.start_writer()
        world.start_daemon()
        stream.finish()
    assert_all_in_ledger(world, sale, stream.confirmed.values())
    sale.assert_books(put_in=200, held=60)
    assert world.shop.link_has_xdp("veth0"), "the gate stays"


def test_a_sale_can_be_kept_closed_while_the_writer_is_away():
    """A pause needs the ledger, a deny list does not (docs/operations.md, "The night")."""
    everybody = ("0.0.0.0/0", "::/1", "8000::/1")
    with World() as world:
        sale = world.sale(stock=5)
        token = sale.token()
        world.writer.kill()
        for prefix in everybody:
            assert "in force, but the order writer is away" in world.cli("deny", "add", prefix, "--force").stderr
        world.start_writer()
        wait_until(lambda: world.status()["orders_open"], "orders are open again")
        for family in ("ipv4", "ipv6"):
            with world.socket(family, world.source(family), 0) as sock:
                sock.settimeout(0.6)
                with pytest.raises(TimeoutError):
                    sock.connect((world.network.address[family], PORT))
        world.cli("sale", "pause", sale.slug)
        for prefix in everybody:
            world.cli("deny", "rm", prefix)
        assert refusal(world, token) == (503, "paused")
        world.cli("sale", "resume", sale.slug)
        assert world.order(token).status == 201


def test_both_programs_outlive_the_terminal_that_they_were_started_from(world):
    sale = world.sale(stock=2)
    for program in (world.daemon, world.writer):
        os.kill(program.pid, signal.SIGHUP)
    assert world.order(sale.token()).status == 201
    assert world.daemon.running() and world.writer.running()


def test_a_second_daemon_does_not_disturb_the_first(world):
    sale = world.sale(stock=2)
    first = world.daemon
    world.start_daemon(ready=False)
    second, world.daemon = world.daemon, first
    assert second.popen.wait(20) != 0
    assert first.running() and world.order(sale.token()).status == 201


def test_without_a_gate_the_daemon_says_what_to_do():
    with World(start=("writer",)) as world:
        world.start_daemon(ready=False)
        assert world.daemon.popen.wait(20) == 1
        assert "sluice attach" in world.daemon.log()


def test_a_disk_that_is_full_closes_orders_and_space_opens_them_again():
    box = pathlib.Path("/tmp") / f"sluice-e2e-disk-{os.getpid()}"
    box.mkdir(mode=0o700)
    try:
        run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", box])
        try:
            with World({"writer.ledger": box / "ledger.db"}) as world:
                run_full_disk(world, box)
        finally:
            run(["umount", "-l", box])
    finally:
        shutil.rmtree(box, ignore_errors=True)


def run_full_disk(world, box):
    sale = world.sale(stock=2000)
    told = [world.order(sale.token()).json() for _ in range(5)]
    with open(box / "ballast", "wb", buffering=0) as ballast:
        try:
            while ballast.write(b"x" * 4096):
                pass
        except OSError:
            pass
    # SQLite has a few pages left in its log, and finds some again when it opens the ledger anew: orders until it has none.
    waiting = []

    def closed():
        token = sale.token()
        answer = world.order(token)
        if answer.status == 201:
            told.append(answer.json())
            return False
        waiting.append(token)
        assert answer.status == 202 or (answer.status, answer.code()) == (503, "unavailable"), answer
        return answer.status == 503
    wait_until(closed, "orders are closed because the disk is full", timeout=90, pause=0)
    token = sale.token()
    (box / "ballast").unlink()
    wait_until(lambda: world.order(token).status in (200, 201), "orders are open again", timeout=30, pause=0.2)
    rows = assert_all_in_ledger(world, sale, told)
    books = sale.assert_books(put_in=2000)
    assert books["held"] == len(rows)
    for token in waiting:
        assert world.order(token).status in (200, 201)
    sale.assert_books(put_in=2000)


def test_a_sale_that_another_ledger_does_not_know_admits_nobody_until_its_own_is_back():
    """The daemon runs on: what it knows is not what the ledger knows."""
    with World() as world:
        sale = world.sale(stock=5)
        assert world.order(sale.token()).status == 201
        token = sale.token()
        world.writer.terminate()
        away = world.ledger.with_name("away.db")
        world.ledger.rename(away)
        world.start_writer()
        wait_until(lambda: "the ledger does not know" in world.daemon.log(), "the sale is found to be nobody's")
        wait_until(lambda: world.ask("GET", "/v1/status")["orders_open"], "orders are open, for who has a sale")
        assert refusal(world, token) == (410, "sale_ended")
        world.writer.terminate()
        world.ledger.unlink()
        away.rename(world.ledger)
        world.start_writer()
        wait_until(lambda: world.order(token).status == 201, "the sale is open again")
        sale.assert_books(put_in=5, free=3, held=2)


def test_a_ledger_of_all_the_sales_of_years_is_read():
    """It forgets none; together they are more than a frame between daemon and writer holds."""
    count = 20_000
    with World(start=("gate", "writer")) as world:
        world.writer.terminate()
        with contextlib.closing(sqlite3.connect(world.ledger)) as ledger, ledger:
            ledger.execute(
                f"WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < {count}) INSERT INTO sales(id, slug, opens_ns, ends_ns,"
                " per_buyer, hold_seconds, pace_per_second, order_mode, token_multiplier, paused, ended, put_in, held, confirmed, orders, created_ns,"
                " announced_opened, announced_ended) SELECT id, 'old-' || id, 1600000000000000000, 1600000001000000000, 1, 900, 0, 'confirm', 0, 0, 1,"
                " 0, 0, 0, 0, 1600000000000000000, 1, 1 FROM n")
        world.start_writer()
        world.start_daemon()
        sale = world.sale(stock=1)
        token = sale.token()
        assert sale.id > count and world.order(token).status == 201
        world.daemon.kill()
        world.start_daemon()
        assert world.order(token).status == 200
        sale.assert_books(held=1, free=0)


# --- the gate goes away ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("again", [False, True], ids=["detached", "detached and attached again"])
def test_a_daemon_whose_gate_was_detached_ends_and_the_next_one_works_with_the_new_gate(again):
    with World() as shop:
        sale = shop.sale(stock=3)
        first, second = sale.token(), sale.token()
        assert shop.order(first).status == 201
        shop.sluice("detach", "--all", "--pin-dir", shop.pin_dir)
        if again:
            shop.attach()
        wait_until(lambda: not shop.daemon.running(), "the daemon ends")
        assert shop.daemon.terminate() == 1 and "the gate was detached from under this daemon" in shop.daemon.log()
        if not again:
            shop.attach()
        shop.start_daemon()
        assert shop.order(second).status == 201 and shop.order(first).status == 200
        sale.assert_books(free=1)


def test_a_reload_is_no_detach():
    with World() as shop:
        sale = shop.sale(stock=3)
        shop.sluice("reload", "--config", shop.config)
        time.sleep(1)  # ten looks of the daemon at its pins
        assert shop.daemon.running() and shop.control("GET", "/readyz").status == 200
        assert shop.order(sale.token()).status == 201
