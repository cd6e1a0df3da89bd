# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""`sluice verify`: silent about books that agree, also while they change; every difference that was planted by hand in the maps or in the
ledger is named; --repair mends what it says, and nothing else.
"""
import contextlib
import json
import signal
import struct
import threading
import time

import pytest

from netns import run, wait_until
from world import BPFTOOL, World, seconds_of

OK, FAILED, USAGE, NOT_FOUND, CONFLICT, NOT_ALLOWED, UNREACHABLE, BROKEN = range(8)


class Maps:
    """The gate's maps, written from outside with bpftool."""

    def __init__(self, world):
        self.world = world

    def _do(self, *args):
        return run([BPFTOOL, "map", *args])

    def get(self, name, key):
        return dict(self.world.map_dump(name)).get(key)

    def put(self, name, key, value):
        self._do("update", "pinned", self.world.pin_dir / name, "key", "hex", *[f"{x:02x}" for x in key], "value", "hex",
                 *[f"{x:02x}" for x in value])

    def remove(self, name, key):
        self._do("delete", "pinned", self.world.pin_dir / name, "key", "hex", *[f"{x:02x}" for x in key])

    def everything(self):
        """What must not change by itself while nobody orders."""
        return {name: sorted(self.world.map_dump(name)) for name in ("admissions", "buyers", "stock", "sales")}

    @contextlib.contextmanager
    def changed(self, name, key, change):
        """An entry as `change` makes it of the old bytes (None: taken out) for the length of a block, unless somebody mends it."""
        before = self.get(name, key)
        after = change(before)
        if after is None:
            self.remove(name, key)
        else:
            self.put(name, key, after)
        try:
            yield
        finally:
            if self.get(name, key) == after:
                if before is None:
                    self.remove(name, key)
                else:
                    self.put(name, key, before)


def stock_key(sale):
    return struct.pack("<I", sale.id % 1024)


def buyer_key(sale, buyer):
    return struct.pack("<QII", buyer, sale.id, 0)


def word(offset, size, change):
    """A change of one little-endian number within the bytes of a value."""
    def apply(value):
        old = int.from_bytes(value[offset:offset + size], "little")
        return value[:offset] + change(old).to_bytes(size, "little") + value[offset + size:]
    return apply


def verify(world, *args, expect=None):
    """(exit code, report)"""
    done = world.sluice("verify", "--config", world.config, "-o", "json", *args, check=False)
    assert expect is None or done.returncode == expect, (done.returncode, done.stdout, done.stderr)
    return done.returncode, json.loads(done.stdout) if done.stdout else None


def named(report, sale=None):
    """{(difference, found, expected)}"""
    return {(entry["difference"], entry["found"], entry["expected"]) for entry in report["differences"]
            if sale is None or entry["sale"] == sale.slug}


def broken(report):
    return {entry["invariant"] for entry in report["invariants"] if entry["result"] == "broken"}


@contextlib.contextmanager
def ledger_changed(world, do, undo):
    """A change of the ledger that no writer makes, by the sqlite3 shell. The daemon reads the sums every few seconds."""
    def sql(text):
        run(["sqlite3", "-cmd", ".timeout 5000", world.ledger, "PRAGMA ignore_check_constraints = 1; " + text])

    def known():
        if not world.daemon.running():
            return True
        told = {sale["id"]: (sale["stock"], sale["held"], sale["confirmed"]) for sale in world.ask("GET", "/v1/sales")["sales"]}
        rows = world.ledger_query("SELECT id, put_in, held, confirmed FROM sales")
        return told == {int(row[0]): tuple(map(int, row[1:])) for row in rows}

    sql(do)
    try:
        wait_until(known, "the daemon has read the ledger's sums")
        yield
    finally:
        sql(undo)
        wait_until(known, "the daemon has read the ledger's sums")


def sold(world, count=3, stock=5, **fields):
    """A sale with `count` orders of as many buyers, at rest."""
    sale = world.sale(stock=stock, **fields)
    for i in range(count):
        door = world.order if i % 2 else world.order_by_call_door
        assert door(sale.token()).status == 201
    sale.assert_books(held=count)
    return sale, [(int(order["id"], 16), int(order["buyer"], 16)) for order in sale.orders()]


# --- agreement ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("source", ["file", "daemon"])
def test_books_that_agree_give_nothing(world, source):
    sale, _ = sold(world)
    _, report = verify(world, "--from", source, expect=OK)
    assert report["clean"] is True and report["differences"] == [] and broken(report) == set()
    line, = [line for line in report["sales"] if line["sale"] == sale.slug]
    assert (line["put_in"], line["free"], line["held"], line["equation"]) == (5, 2, 3, "holds")
    assert report["compared"]["orders"] >= 3 and report["compared"]["admissions"] >= 3
    table = world.sluice("verify", "--config", world.config, "--from", source).stdout
    assert "I6" in table and sale.slug in table and "differences" not in table


def test_the_last_unit_and_a_refusal_are_no_difference(world):
    sale = world.sale(stock=2)
    tokens = [sale.token() for _ in range(3)]
    assert [world.order(token).status for token in tokens] == [201, 201, 409]
    sale.assert_books(held=2, free=0)
    verify(world, expect=OK)


def test_a_sale_in_full_run_is_not_called_broken(world):
    sale = world.sale(stock=9000)
    stop = threading.Event()
    answers = []

    def buy():
        while not stop.is_set():
            answers.append(world.order(sale.token()).status)
            time.sleep(0.005)

    threads = [threading.Thread(target=buy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(answers) > 20, "orders flow")
        meanwhile = 0
        for _ in range(10):  # some looks are quicker than an order on a disk that is busy
            before = len(answers)
            _, report = verify(world, expect=OK)
            assert report["differences"] == []
            meanwhile += len(answers) > before
            if meanwhile == 3:
                break
        assert meanwhile == 3, "nothing was ordered meanwhile"
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(answers) == {201}
    verify(world, expect=OK)


# --- what was planted in the gate -----------------------------------------------------------------------------------------

def test_a_unit_too_many_is_named(world):
    sale, _ = sold(world)
    with Maps(world).changed("stock", stock_key(sale), word(0, 8, lambda free: free + 1)):
        _, report = verify(world, expect=BROKEN)
        assert named(report) == {("stock_too_high", 3, 2)} and broken(report) == {"I1"}
        line, = [line for line in report["sales"] if line["sale"] == sale.slug]
        assert line["equation"] == "broken"
        table = world.sluice("verify", "--config", world.config, check=False)
        assert table.returncode == BROKEN and "stock_too_high" in table.stdout
    verify(world, expect=OK)


def test_a_unit_too_few_is_named(world):
    sale, _ = sold(world)
    with Maps(world).changed("stock", stock_key(sale), word(0, 8, lambda free: free - 2)):
        _, report = verify(world, expect=BROKEN)
        assert named(report) == {("stock_too_low", 0, 2)} and broken(report) == {"I2"}


@pytest.mark.parametrize("units, name, invariant", [(2, "buyer_too_high", "I2"), (0, "buyer_too_low", "I4")])
def test_a_buyers_count_that_is_off_is_named(world, units, name, invariant):
    sale, orders = sold(world)
    with Maps(world).changed("buyers", buyer_key(sale, orders[1][1]), word(0, 4, lambda _: units)):
        _, report = verify(world, expect=BROKEN)
        assert named(report) == {(name, units, 1)} and broken(report) == {invariant}
        assert report["differences"][0]["buyer"] == f"{orders[1][1]:016x}"


def test_an_order_that_the_gate_has_forgotten_is_named(world):
    _, orders = sold(world)
    with Maps(world).changed("admissions", struct.pack("<Q", orders[2][0]), lambda _: None):
        _, report = verify(world, expect=BROKEN)
        assert named(report) == {("order_without_admission", None, None)} and broken(report) == {"I4"}
        assert report["differences"][0]["order"] == f"{orders[2][0]:016x}"


def test_an_admission_of_somebody_else_is_named(world):
    _, orders = sold(world)
    with Maps(world).changed("admissions", struct.pack("<Q", orders[0][0]), word(8, 8, lambda buyer: buyer ^ 1)):
        _, report = verify(world, expect=BROKEN)
        assert named(report) == {("admission_differs", None, None)}


def test_an_admission_that_never_became_an_order_is_named():
    """One that the ledger refuses whenever it is delivered: it knows no such sale."""
    with World() as world:
        world.history.no_verdict("the guard fires if the daemon finds what was planted before the test is over")
        _, orders = sold(world)
        maps = Maps(world)
        value = maps.get("admissions", struct.pack("<Q", orders[0][0]))
        value = word(0, 8, lambda _: 0x1234567890)(value)
        value = word(32, 8, lambda admitted: admitted - 3600 * 10**9)(value)
        maps.put("admissions", struct.pack("<Q", 0x1234567890), word(40, 4, lambda _: 4000000000)(value))
        _, report = verify(world, expect=BROKEN)
        assert named(report) == {("admission_without_order", None, None)} and broken(report) == {"I3"}
        assert report["differences"][0]["order"] == "0000001234567890"


def test_a_window_and_a_limit_that_differ_are_named(world):
    sale, _ = sold(world, count=1)
    key = stock_key(sale)
    with Maps(world).changed("sales", key, word(16, 8, lambda ends: ends + 60 * 10**9)):
        assert {entry[0] for entry in named(verify(world, expect=BROKEN)[1])} == {"window_differs"}
    with Maps(world).changed("sales", key, word(40, 4, lambda limit: limit + 4)):
        assert named(verify(world, expect=BROKEN)[1]) == {("limit_differs", 5, 1)}
    with Maps(world).changed("sales", key, word(4, 4, lambda flags: flags | 1)):
        assert named(verify(world, expect=BROKEN)[1]) == {("flags_differ", 1, 0)}


# --- what was planted in the ledger -----------------------------------------------------------------------------------------

def test_a_sum_that_is_off_is_named(world):
    sale, _ = sold(world)
    with ledger_changed(world, f"UPDATE sales SET held = held + 1 WHERE id = {sale.id}",
                        f"UPDATE sales SET held = held - 1 WHERE id = {sale.id}"):
        names = {entry[0] for entry in named(verify(world, expect=BROKEN)[1])}
        assert "held_sum" in names and "stock_too_high" in names
    verify(world, expect=OK)


def test_a_missing_number_is_named(world):
    sale, orders = sold(world)
    with ledger_changed(world, f"UPDATE orders SET seq = 9 WHERE sale = {sale.id} AND seq = 3",
                        f"UPDATE orders SET seq = 3 WHERE sale = {sale.id} AND seq = 9"):
        _, report = verify(world, expect=BROKEN)
        assert named(report) == {("seq_gap", 9, 3)} and broken(report) == {"I3"}
        assert report["differences"][0]["order"] == f"{orders[2][0]:016x}"


def test_an_order_before_the_opening_is_named(world):
    sale, _ = sold(world)
    with ledger_changed(world, f"UPDATE orders SET admitted_ns = admitted_ns - 7200000000000 WHERE sale = {sale.id} AND seq = 1",
                        f"UPDATE orders SET admitted_ns = admitted_ns + 7200000000000 WHERE sale = {sale.id} AND seq = 1"):
        _, report = verify(world, expect=BROKEN)
        assert {entry[0] for entry in named(report)} == {"outside_window"} and broken(report) == {"I6"}


@pytest.mark.parametrize("source", ["file", "daemon"])
def test_orders_are_judged_by_the_window_and_the_limit_of_their_time(source):
    with World() as world:
        sale = world.sale(stock=5, per_buyer=2)
        assert world.order(sale.token(quantity=2)).status == 201
        wait_until(lambda: sale.books()["in_flight"] == 0, "the order is in the ledger")
        verify(world, "--from", source, expect=OK)
        world.cli("sale", "set", sale.slug, "--opens", "+10m", "--per-buyer", "1")
        _, report = verify(world, "--from", source, expect=OK)
        assert report["differences"] == []
        told = world.ask("GET", f"{sale.path}/windows")["windows"]
        assert len(told) == 1 and told[0]["per_buyer"] == 2 and abs(seconds_of(told[0]["opens_at"]) - sale.opens_at) < 0.002


def test_a_buyer_above_the_limit_is_named(world):
    sale, orders = sold(world)

    def move(from_buyer, to_buyer):
        return f"UPDATE orders SET buyer = {to_buyer} WHERE sale = {sale.id} AND seq = 2 AND buyer = {from_buyer}"

    first, second = (struct.unpack("<q", struct.pack("<Q", orders[i][1]))[0] for i in (0, 1))
    with ledger_changed(world, move(second, first), move(first, second)):
        names = {entry[0] for entry in named(verify(world, expect=BROKEN)[1])}
        assert names == {"buyer_above_limit", "admission_differs", "buyer_too_high", "buyer_too_low"}


def test_a_unit_that_came_back_is_free_and_not_its_buyers_any_more(world):
    """An order that was cancelled, with all that goes with it, and then without one part of that."""
    sale, orders = sold(world)
    maps = Maps(world)
    order = f"sale = {sale.id} AND seq = 2"
    with ledger_changed(world, f"UPDATE orders SET state = 'cancelled' WHERE {order}; UPDATE sales SET held = held - 1 WHERE id = {sale.id}",
                        f"UPDATE orders SET state = 'held' WHERE {order}; UPDATE sales SET held = held + 1 WHERE id = {sale.id}"), \
            maps.changed("stock", stock_key(sale), word(0, 8, lambda free: free + 1)):
        _, report = verify(world, expect=BROKEN)
        assert named(report) == {("buyer_too_high", 1, 0)}
        with maps.changed("buyers", buyer_key(sale, orders[1][1]), word(0, 4, lambda _: 0)):
            verify(world, expect=OK)
    verify(world, expect=OK)


# --- repair -----------------------------------------------------------------------------------------------------------------

def test_a_dry_run_says_it_and_does_nothing(world):
    sale, _ = sold(world)
    maps = Maps(world)
    with maps.changed("stock", stock_key(sale), word(0, 8, lambda free: free + 1)):
        before = maps.everything()
        _, report = verify(world, "--repair", "--dry-run", expect=BROKEN)
        assert [entry["difference"] for entry in report["would_repair"]] == ["stock_too_high"]
        assert report["repaired"] == [] and maps.everything() == before


def test_the_daemon_sets_the_stock_right_and_the_sale_goes_on(world):
    sale, _ = sold(world)
    maps = Maps(world)
    whole = maps.everything()
    with maps.changed("stock", stock_key(sale), word(0, 8, lambda free: free + 7)):
        _, report = verify(world, "--repair", expect=OK)
        assert [(entry["difference"], entry["found"], entry["expected"]) for entry in report["repaired"]] == [("stock_too_high", 9, 2)]
        assert maps.everything() == whole
    assert world.order(sale.token()).status == 201
    sale.assert_books(held=4, free=1)
    verify(world, expect=OK)


def test_a_reconciliation_in_full_run_loses_nobody(world):
    sale = world.sale(stock=5000)
    stop = threading.Event()
    served, others = [], []

    def buy():
        token = sale.token()
        while not stop.is_set():
            answer = world.order(token)
            if answer.status in (200, 201):
                served.append(answer.json()["id"])
                token = sale.token()
            elif answer.status not in (202, 503):
                others.append(str(answer))

    threads = [threading.Thread(target=buy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            before = len(served)
            assert world.ask("POST", "/v1/reconcile")["reconciled"] is True
            wait_until(lambda: len(served) > before + 5, "orders flow again")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert others == []
    sale.assert_books()
    assert set(served) <= {order["id"] for order in sale.orders()} and len(set(served)) == len(served)
    verify(world, expect=OK)


def test_what_is_not_certain_is_left_alone(world):
    sale, _ = sold(world)
    maps = Maps(world)
    with ledger_changed(world, f"UPDATE orders SET seq = 9 WHERE sale = {sale.id} AND seq = 3",
                        f"UPDATE orders SET seq = 3 WHERE sale = {sale.id} AND seq = 9"):
        before = maps.everything()
        _, report = verify(world, "--repair", expect=BROKEN)
        assert report["repaired"] == [] and named(report) == {("seq_gap", 9, 3)}
        assert maps.everything() == before


# --- without a daemon -----------------------------------------------------------------------------------------------------------

def test_without_a_daemon_the_books_are_compared_and_mended_in_the_maps():
    with World() as world:
        sale, orders = sold(world, count=4, stock=9)
        maps = Maps(world)
        world.daemon.terminate()
        verify(world, expect=OK)
        whole = maps.everything()
        with maps.changed("stock", stock_key(sale), word(0, 8, lambda free: free - 3)), \
                maps.changed("buyers", buyer_key(sale, orders[3][1]), word(0, 4, lambda _: 3)), \
                maps.changed("admissions", struct.pack("<Q", orders[0][0]), word(56, 1, lambda _: 2)):
            _, report = verify(world, expect=BROKEN)
            assert named(report) == {("stock_too_low", 2, 5), ("buyer_too_high", 3, 1), ("admission_differs", None, None)}
            _, report = verify(world, "--repair", expect=BROKEN)
            assert {entry["difference"] for entry in report["repaired"]} == {"stock_too_low", "buyer_too_high"}
            assert named(report) == {("admission_differs", None, None)}
            after = maps.everything()
            assert {name: after[name] for name in ("stock", "buyers", "sales")} == \
                {name: whole[name] for name in ("stock", "buyers", "sales")}
        world.start_daemon()
        verify(world, expect=OK)


def ask_in_vain(world, token):
    with contextlib.suppress(OSError, AssertionError):
        world.order(token)


def test_admissions_that_wait_for_a_daemon_are_told_and_are_no_difference():
    with World() as world:
        sale, _ = sold(world, count=1)
        world.writer.popen.send_signal(signal.SIGSTOP)
        try:
            thread = threading.Thread(target=ask_in_vain, args=(world, sale.token()))
            thread.start()
            wait_until(lambda: len(world.map_dump("admissions")) == 2, "the gate has admitted it")
            world.daemon.kill()
        finally:
            world.writer.popen.send_signal(signal.SIGCONT)
        thread.join()
        world.writer.terminate()
        done = world.sluice("verify", "--config", world.config, "-o", "json", check=False)
        report = json.loads(done.stdout)
        assert done.returncode == OK and report["clean"], done
        line, = report["sales"]
        assert line["on_its_way"] + line["held"] == 2 and line["equation"] == "holds"
        assert bool(report["waiting"]) == ("in the gate wait" in done.stderr) == (line["on_its_way"] == 1)
        world.start_writer()
        world.start_daemon()
        sale.assert_books(held=2)
        verify(world, expect=OK)


def test_without_a_gate_the_ledger_is_looked_at_alone():
    with World() as world:
        sale, _ = sold(world)
        world.daemon.terminate()
        world.sluice("detach", "--all", "--config", world.config)
        done = world.sluice("verify", "--config", world.config, "-o", "json")
        report = json.loads(done.stdout)
        assert report["clean"] and "only the ledger" in done.stderr
        assert {entry["invariant"]: entry["result"] for entry in report["invariants"]}["I5"] == "unchecked"
        with ledger_changed(world, f"UPDATE sales SET confirmed = 1 WHERE id = {sale.id}",
                            f"UPDATE sales SET confirmed = 0 WHERE id = {sale.id}"):
            assert "confirmed_sum" in {entry[0] for entry in named(verify(world, expect=BROKEN)[1])}
        world.writer.terminate()
        verify(world, expect=OK)
        run(["sqlite3", world.ledger, "PRAGMA user_version = 99"])
        done = world.sluice("verify", "--config", world.config, check=False)
        assert done.returncode == FAILED and "schema version 99" in done.stderr
        world.ledger.unlink()
        done = world.sluice("verify", "--config", world.config, check=False)
        assert done.returncode == NOT_FOUND and str(world.ledger) in done.stderr and done.stdout == ""
        world.history.no_verdict("its ledger is thrown away and forged")
        world.ledger.write_bytes(b"no database" * 200)
        assert world.sluice("verify", "--config", world.config, check=False).returncode == FAILED


@pytest.mark.parametrize("args", [("--dry-run",), ("--from", "hearsay"), ("veth0",), ("--mode", "native")])
def test_a_command_line_that_is_wrong_is_a_usage_error(world, args):
    done = world.sluice("verify", *args, check=False)
    assert done.returncode == USAGE and done.stdout == "" and "verify" in done.stderr
