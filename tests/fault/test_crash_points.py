# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The order writer, harmed at each of its calls that write, one after the other: killed before and after it, by a loss of power that takes what was
not synced, by EIO, by a full disk, by a short write.

The whole program, with its sandbox, over its socket (tests/unit/test_writer_faults.c harms the store from inside). strike.c counts the calls and
does the harm. After each death the writer is started again, every second time with another death on the way up, and all is delivered
once more, as the daemon does it. What was acknowledged at any time must be in the ledger as it was told, and the books must balance.

`make check` kills before each call; the other kinds of harm strike at every third, from one that the seed chooses (a death after a call leaves
what a death before the next one does). SOAK_POINTS=1 is all of them (`make soak-points`).
"""
import os
import random
import signal
import subprocess
import time

import pytest

import checker
import ledger as ledger_module
import wire
from netns import die_with_parent
from shop import seed_of_run
from world import BUILD, WRITER, config_text

LIBRARY = BUILD / "tests" / "fault" / "strike.so"
DEADLY = ("before", "after", "power", "torn")
HARMFUL = ("eio", "enospc", "short")
ALWAYS = ("before",)  # at every call; the others at every third
STRIDE = 3
START_S = 10
TRIES = 20
LEAST_POINTS = 60    # fewer calls than this: then strike.so does not see them
POINTS_ON_THE_WAY_UP = 25
SECOND = 1_000_000_000
SALE, OTHER = 1, 2
HOUR_NS = 3600 * SECOND


class Dead(Exception):
    """The writer is no more."""


class Life:
    """A ledger, the writers that it has seen, and what they acknowledged."""

    def __init__(self, directory):
        self.socket, self.ledger, self.config = directory / "w.sock", directory / "ledger.db", directory / "conf"
        self.config.write_text(config_text({"writer.socket": self.socket, "writer.ledger": self.ledger}), encoding="utf-8")
        self.log = open(directory / "log", "ab")
        self.process = self.connection = None
        self.acknowledged = {}  # serial -> (seq, committed_ns)
        self.answered = {}      # name of a question -> answer
        self.changed = {}       # serial -> states

    def close(self):
        self.hang_up()
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def start(self, strike=None):
        """`strike`: (kind, n, seed). Dead if the writer does not live to take a connection."""
        env = {**os.environ, "LD_PRELOAD": str(LIBRARY), "SLUICE_STRIKE": "%s %d %d" % strike} if strike else None
        self.process = subprocess.Popen([WRITER, "--config", self.config], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                        env=env, preexec_fn=die_with_parent)
        self.connect()

    def connect(self):
        deadline = time.monotonic() + START_S
        while True:
            try:
                self.hang_up()
                self.connection = wire.Connection(self.socket)
                self.connection.hello()
                return
            except (OSError, wire.Refused):
                if self.process.poll() is not None:
                    raise Dead from None
                assert time.monotonic() < deadline, "the writer takes no connection"
                time.sleep(0.001)

    def hang_up(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def until_done(self, question):
        """Asks until it is answered, as the daemon does: again after an error, and on a new connection after a broken one."""
        for _ in range(TRIES):
            try:
                return question(self.connection)
            except wire.Refused as refused:
                assert refused.code == "store_error", refused
            except OSError:
                if self.process.poll() is not None:
                    raise Dead from None
                self.connect()
        raise AssertionError(f"not answered in {TRIES} tries")

    def admit(self, records):
        for serial, seq, committed, status in self.until_done(lambda connection: connection.admit(records)):
            assert status != wire.REFUSED, f"order {serial} was refused"
            before = self.acknowledged.setdefault(serial, (seq, committed))
            assert before == (seq, committed), f"order {serial} was {before} and is {(seq, committed)}"

    def ask(self, label, **question):
        answer = self.until_done(lambda connection: connection.ask(**question))
        if "once" in question:
            assert self.answered.setdefault(label, answer) == answer, f"{label}: another answer than the first"
        return answer

    def stop(self):
        self.hang_up()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(START_S)

    # --- the work -------------------------------------------------------------------------------------------------------------
    def work(self):
        """Always the same, and as often as wanted."""
        now = 1_700_000_000 * SECOND
        for sale, stock in ((SALE, 60), (OTHER, 10)):
            self.ask(f"sale {sale}", op="sale_put", stock=stock, key=f"first {sale}", sale={
                "id": sale, "slug": f"sale-{sale}", "opens_ns": now, "ends_ns": now + 10 * HOUR_NS, "per_buyer": 2, "hold_seconds": 0,
                "pace_per_second": 0, "order_mode": "confirm", "token_multiplier": 0, "paused": False, "ended": False})
        self.admit([self.record(SALE, 1, now)])
        self.admit([self.record(SALE if number % 3 else OTHER, number, now) for number in range(2, 14)])
        self.ask("stock", op="stock_move", sale=SALE, delta=5, key="more", reason="test")
        self.change("first", ("confirm", 1), ("cancel", 4), ("expire", 5), ("confirm", 10))
        self.admit([self.record(SALE, number, now) for number in range(10, 40) if number >= 14 or number % 3])
        self.change("then", ("refund", 1, False), ("refund", 10, True), ("confirm", 5), ("cancel", 20))
        self.ask("event", op="sale_event", sale=SALE, type="sale.opened")
        self.ask("document", op="document_put", name="limits", value="some")
        self.ask("list", op="list_put", entries=[{"list": "deny", "prefix": "203.0.113.0/24", "expires_ns": 0, "label": "", "reason": ""}])
        assert self.ask("document", op="document_get", name="limits")["value"] == "some"
        assert len(self.ask("list", op="list_page", after=0, limit=10)["entries"]) == 1

    def change(self, key, *changes):
        """Changes of orders, once: every answer to it is the first one."""
        wanted = [{"id": f"{1000 + number:016x}", "action": action, "by": {"expire": "time"}.get(action, "shop"),
                   **({"restock": restock[0]} if restock else {})} for action, number, *restock in changes]
        answer = self.ask(key, op="orders_change", changes=wanted, once={"key": key, "fingerprint": key})
        for result in answer["results"]:
            assert result["result"] == "changed", result
            self.changed.setdefault(int(result["id"], 16), []).append(result["order"]["state"])

    @staticmethod
    def record(sale, number, now):
        """Two orders of each buyer, held for a second long ago."""
        return (1000 + number, number // 2 + 1, sale, 1, 1, now + number)

    # --- the verdict ----------------------------------------------------------------------------------------------------------
    def judge(self):
        kept = ledger_module.read(self.ledger)
        breaches = checker.check(checker.History([]), kept)
        for serial, (seq, committed) in self.acknowledged.items():
            order = kept.by_serial.get(serial)
            if not order or (order.seq, order.committed_ns) != (seq, committed):
                breaches.add("lost_order", f"order {serial} was acknowledged with seq {seq}, the ledger has {order}")
        for serial, states in self.changed.items():
            seen = [state for _, state in kept.states(kept.by_serial[serial])]
            if not set(states) <= set(seen):
                breaches.add("change_lost", f"order {serial} was said to become {states}, the ledger has {seen}")
        assert not breaches.found, breaches.text()
        return kept


def one_life(directory, kind, point, seed):
    """Returns whether the point was reached."""
    life = Life(directory)
    chance = random.Random(seed * 1000 + point)
    reached = kind not in DEADLY
    try:
        try:
            life.start((kind, point, chance.getrandbits(31)))
            life.work()
            reached = life.stop() == -signal.SIGKILL or reached
        except Dead:
            # An error while it starts may end it as well; then it says so and the next start goes on.
            assert life.process.wait() == (-signal.SIGKILL if kind in DEADLY else 1)
            reached = True
        if kind in DEADLY and reached and point % 2:
            life.hang_up()
            try:
                life.start((kind, chance.randint(1, POINTS_ON_THE_WAY_UP), chance.getrandbits(31)))
            except Dead:
                pass
        if life.process.poll() is None:
            life.process.kill()
            life.process.wait()
        life.start()
        life.work()
        assert life.stop() == 0
        kept = life.judge()
        assert len(kept.orders) == len(life.acknowledged)
    finally:
        life.close()
    return reached


def count_calls(tmp_path):
    """How many calls there are to strike at, found as the first point that is never reached."""
    low, high = 1, 1024
    while low < high:
        middle = (low + high) // 2
        directory = tmp_path / f"count-{middle}"
        directory.mkdir()
        if one_life(directory, "before", middle, 0):
            low = middle + 1
        else:
            high = middle
    return low - 1


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    count = count_calls(tmp_path_factory.mktemp("count"))
    print(f"{count} calls that write")
    assert count >= LEAST_POINTS
    return count


@pytest.mark.parametrize("kind", DEADLY + HARMFUL)
def test_no_acknowledged_order_is_lost_at_any_point(kind, points, tmp_path):
    seed = seed_of_run()
    stride = 1 if kind in ALWAYS or os.environ.get("SOAK_POINTS") else STRIDE
    struck = range(1 + seed % stride, points + 1, stride)
    print(f"{kind}: {len(struck)} of {points} calls")
    for point in struck:
        directory = tmp_path / f"{kind}-{point}"
        directory.mkdir(mode=0o700)
        try:
            assert one_life(directory, kind, point, seed), f"call {point} was never reached"
        except AssertionError as error:
            raise AssertionError(f"{kind} at call {point} of {points}, seed {seed}: {error}\n"
                                 f"{(directory / 'log').read_text(encoding='utf-8')}") from error
