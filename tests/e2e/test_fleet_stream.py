# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Orders downstream: what the ledger of a node has comes into the stream of each sale, in its order and at least once, whatever dies or forgets; and
from there into tables of PostgreSQL, which then are the ledger.
"""
import contextlib
import os
import pathlib
import random
import re
import signal
import threading
import time

import pytest

import redisd
from fleet import Fleet
from netns import wait_until
from postgres import Postgres
from streams import (Consumer, Stream, at_least_once, ledger_events, ledger_orders, metric, table_events, table_orders, wait_same,
                     wait_tables)

SEED = int(os.environ.get("SLUICE_SEED") or random.randrange(1 << 32))
DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
STREAM_MD, VERIFY_MD = ((DOCS / name).read_text(encoding="utf-8") for name in ("stream.md", "verify.md"))
KEEP = 50
LONG = "long " * 4000
MANY = 300                # streams; the consumer asks of 256 at a time
CHANGES = {"held": ("confirm", "confirm", "cancel"), "confirmed": ("refund",)}


class Trade:
    """Orders, and what becomes of them, for the length of a block: threads that buy and a shop that confirms, cancels and refunds. What is refused
    while something is dead is refused; nothing is judged here.
    """

    def __init__(self, node, sales, buyers=4, seed=SEED):
        print(f"seed {seed}")
        self.node, self.sales = node, sales
        self.random = random.Random(seed)
        self.orders, self.admitted = [], 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._buy) for _ in range(buyers)] + [threading.Thread(target=self._manage)]

    def _until_stopped(self, work):
        while not self._stop.is_set():
            with contextlib.suppress(OSError, AssertionError, ValueError, KeyError):
                work()
                continue
            self._stop.wait(0.05)

    def _buy(self):
        def buy():
            answer = self.node.order(self.random.choice(self.sales).token())
            if answer.status == 201:
                self.orders.append(answer.json()["id"])
                self.admitted += 1
            else:
                self._stop.wait(0.05)
        self._until_stopped(buy)

    def _manage(self):
        def change():
            if not self.orders:
                self._stop.wait(0.05)
                return
            order = self.orders[self.random.randrange(len(self.orders))]
            state = self.node.ask("GET", f"/v1/orders/{order}")["state"]
            if state in CHANGES:
                self.node.control("POST", f"/v1/orders/{order}/{self.random.choice(CHANGES[state])}",
                                  {"restock": True} if state == "confirmed" else None)
        self._until_stopped(change)

    def wait(self, more):
        """Until so many more orders were admitted."""
        goal = self.admitted + more
        wait_until(lambda: self.admitted >= goal, f"{more} more orders", timeout=60)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(40)


@pytest.fixture(scope="module", name="fleet")
def fleet_of_one():
    with Fleet(count=1, settings={"fleet.stream_keep": KEEP}) as fleet:
        yield fleet


@pytest.fixture(scope="module", name="server")
def postgres_server():
    with Postgres() as postgres:
        yield postgres


@pytest.fixture(autouse=True)
def whole(fleet):
    """A test that failed half way leaves nothing dead to the next one."""
    if not fleet.hub.server.running():
        fleet.hub.server.start()
    if not fleet[1].writer.running():
        fleet[1].start_writer()
    if not fleet[1].daemon.running():
        fleet[1].start_daemon()
    fleet[1].wait_ready()


@pytest.fixture(name="node")
def only_node(fleet):
    return fleet[1]


def stream_of(fleet, sale):
    return Stream(fleet.hub, fleet[1].settings["fleet.prefix"], sale.slug)


def new_sale(node, stock=4000, **fields):
    slug = f"stream-{time.monotonic_ns()}"
    return node.sale(stock=stock, slug=slug, **fields)


def bought(node, sale, count=1):
    """Orders, as soon as the node may sell. Returns the last."""
    for _ in range(count):
        token = sale.token()
        answer = wait_until(lambda token=token: reply if (reply := node.order(token)).status in (200, 201) else None, "an order", pause=0.1)
    return answer.json()


def test_the_stream_has_every_event_of_the_ledger_once_and_in_its_order(fleet, node):
    sales = [new_sale(node) for _ in range(3)]
    with Trade(node, sales) as trade:
        trade.wait(150)
    for sale in sales:
        wait_same(node, stream_of(fleet, sale))
    kinds = {kind for _, kind, _, _ in ledger_events(node)}
    assert kinds >= {"order.held", "order.confirmed", "order.cancelled", "order.refunded", "sale.opened"}
    assert metric(node, "sluice_stream_losses_total") == 0
    wait_until(lambda: metric(node, "sluice_stream_waiting") == 0, "nothing waits")
    assert metric(node, "sluice_stream_lag_seconds") == 0


def test_an_entry_tells_of_the_order_what_the_api_tells(fleet, node):
    sale = new_sale(node, hold_seconds=600)
    order = bought(node, sale)
    node.ask("POST", f"/v1/orders/{order['id']}/confirm")
    wait_same(node, stream_of(fleet, sale))
    told = node.ask("GET", f"/v1/orders/{order['id']}")
    entries = [fields for _, fields in stream_of(fleet, sale).entries() if fields.get("id") == order["id"]]
    assert [fields["type"] for fields in entries] == ["order.held", "order.confirmed"]
    for name in ("id", "sale", "seq", "state", "quantity", "buyer", "source", "network", "admitted_at", "committed_at", "expires_at",
                 "resolved_at", "resolved_by", "restocked"):
        value = told[name]
        assert entries[1][name] == ("" if value is None else str(value).lower() if isinstance(value, bool) else str(value)), name
    assert entries[0]["state"] == "held" and entries[0]["resolved_at"] == "" and entries[0]["node"] == "1"
    assert entries[1]["at"] == told["resolved_at"]
    opened = [fields for _, fields in stream_of(fleet, sale).entries() if fields["type"] == "sale.opened"]
    assert opened and 0 <= int(opened[0]["put_in"]) <= sale.stock  # what was leased to this node by then


def test_a_redis_that_is_killed_and_comes_back_misses_nothing_and_has_nothing_twice(fleet, node):
    """It writes everything down before it answers, so it comes back with what it had."""
    sale = new_sale(node)
    with Trade(node, [sale]) as trade:
        trade.wait(30)
        fleet.hub.server.kill()
        time.sleep(1.5)
        assert node.is_ready(), "the node sells without Redis"
        fleet.hub.server.start()
        trade.wait(30)
    wait_same(node, stream_of(fleet, sale))


def test_a_redis_that_hangs_delays_and_loses_nothing(fleet, node):
    sale = new_sale(node)
    with Trade(node, [sale]) as trade:
        trade.wait(20)
        fleet.hub.server.pause()
        time.sleep(3)
        fleet.hub.server.resume()
        trade.wait(20)
    wait_same(node, stream_of(fleet, sale))


def test_a_redis_that_lost_everything_gets_everything_again(fleet, node):
    quiet, sale = new_sale(node), new_sale(node)
    bought(node, quiet)
    wait_same(node, stream_of(fleet, quiet))
    with Trade(node, [sale]) as trade:
        trade.wait(30)
        fleet.hub.server.kill()
        fleet.hub.server.start(empty=True)
        trade.wait(30)
    for one in (sale, quiet):
        wait_same(node, stream_of(fleet, one), timeout=90)
    assert fleet.hub.call("SISMEMBER", f"{node.settings['fleet.prefix']}:{{fleet}}:streams", quiet.slug) == 1


def test_a_stream_that_lost_its_end_gets_it_again_and_the_others_nothing(fleet, node):
    """As after a failover to a replica that lagged: cursor and entries of a while ago, of one sale."""
    sales = [new_sale(node) for _ in range(2)]
    lost, kept = (stream_of(fleet, sale) for sale in sales)
    with Trade(node, sales) as trade:
        trade.wait(30)
    for stream in (lost, kept):
        wait_same(node, stream)
    before = kept.entries()
    entries = lost.entries()
    end = entries[len(entries) // 2]
    for entry, _ in entries[len(entries) // 2 + 1:]:
        lost.call("XDEL", entry)
    fleet.hub.call("HSET", lost.cursors, 1, end[1]["position"])
    wait_same(node, lost)
    assert kept.entries() == before
    assert metric(node, "sluice_stream_losses_total") > 0


def test_a_daemon_that_is_killed_goes_on_where_it_was(fleet, node):
    sale = new_sale(node)
    chance = random.Random(SEED)
    with Trade(node, [sale]) as trade:
        for _ in range(4):
            trade.wait(20)
            time.sleep(chance.random())
            node.daemon.kill()
            node.start_daemon()
    wait_same(node, stream_of(fleet, sale))
    assert "another or an older" not in node.daemon.log()


def test_what_was_lost_while_the_daemon_was_away_is_appended_again(fleet, node):
    sale = new_sale(node)
    with Trade(node, [sale]) as trade:
        trade.wait(20)
    stream = stream_of(fleet, sale)
    wait_same(node, stream)
    node.daemon.terminate()
    fleet.hub.call("DEL", stream.key, stream.cursors)
    node.start_daemon()
    wait_same(node, stream)


def test_a_daemon_that_ends_in_order_leaves_nothing_behind(fleet, node):
    sale = new_sale(node)
    stream = stream_of(fleet, sale)
    with Trade(node, [sale]) as trade:
        trade.wait(20)
    assert node.daemon.terminate() == 0
    there, here = stream.events(), ledger_events(node, sale.slug)
    node.start_daemon()
    assert there == here


def test_a_ledger_that_is_older_than_the_stream_is_an_alarm(fleet, node):
    sale = new_sale(node)
    stream = stream_of(fleet, sale)
    bought(node, sale)
    wait_same(node, stream)
    cursor = stream.cursor()
    fleet.hub.call("HSET", stream.cursors, 1, cursor + 1000000)
    assert node.daemon.terminate() == 0
    node.start_daemon()
    wait_until(lambda: metric(node, "sluice_stream_ahead") == 1, "the alarm", timeout=20)
    assert f"up to position {cursor + 1000000}" in node.daemon.log()
    fleet.hub.call("HSET", stream.cursors, 1, cursor)
    node.daemon.terminate()
    node.start_daemon()
    wait_until(lambda: metric(node, "sluice_stream_ahead") == 0, "no alarm any more", timeout=20)


def test_the_alarm_of_an_older_ledger_lasts_until_its_cursor_is_taken_away(fleet, node):
    """What was sold up to the cursor stays missing when the ledger has grown beyond it."""
    sale = new_sale(node)
    stream = stream_of(fleet, sale)
    bought(node, sale)
    wait_same(node, stream)
    node.daemon.terminate()
    cursor = stream.cursor()
    fleet.hub.call("HSET", stream.cursors, 1, cursor + 3)
    node.start_daemon()
    wait_until(lambda: metric(node, "sluice_stream_ahead") == 1, "the alarm", timeout=20)
    bought(node, sale, 6)
    wait_until(lambda: stream.cursor() >= cursor + 6, "the stream goes on behind the cursor", timeout=20)
    missing = set(ledger_events(node, sale.slug)) - set(stream.events())
    assert len(missing) == 3 and metric(node, "sluice_stream_ahead") == 1, missing
    fleet.hub.call("HDEL", stream.cursors, 1)
    bought(node, sale)
    wait_until(lambda: metric(node, "sluice_stream_ahead") == 0, "the alarm ends", timeout=20)
    wait_until(lambda: set(stream.events()) == set(ledger_events(node, sale.slug)), "all of it was appended again", timeout=20)


# --- trimming -----------------------------------------------------------------------------------------------------------------
def read(stream, group, count, acknowledge=True):
    """Reads entries as a consumer of a group; returns their ids."""
    reply = stream.hub.call("XREADGROUP", "GROUP", group, "someone", "COUNT", count, "STREAMS", stream.key, ">")
    ids = [entry for entry, _ in reply[0][1]] if reply else []
    if ids and acknowledge:
        stream.call("XACK", group, *ids)
    return ids


def filled(fleet, node, orders=120):
    sale = new_sale(node)
    with Trade(node, [sale]) as trade:
        trade.wait(orders)
    stream = stream_of(fleet, sale)
    wait_same(node, stream)
    return stream


def look(node):
    """Waits until the node has looked at its streams once more, which is when they are trimmed."""
    calls = metric(node, "sluice_stream_calls_total")
    wait_until(lambda: metric(node, "sluice_stream_calls_total") > calls + 1, "the node looks", timeout=70)


def test_a_stream_that_no_group_reads_is_not_trimmed(fleet, node):
    stream = filled(fleet, node)
    length = len(stream.entries())
    assert length > KEEP
    trim(fleet, node, stream)
    assert len(stream.entries()) == length


def trim(fleet, node, stream):
    """The daemon's own script, as often as it takes, without waiting for the daemon's next look."""
    del node
    digest = script(fleet.hub, "stream_trim")
    for _ in range(20):
        fleet.hub.server.call("EVALSHA", digest, 2, stream.key, stream.cursors, 1, KEEP, 10000)


def script(hub, name):
    folder = pathlib.Path(__file__).resolve().parents[2] / "userspace" / "fleet" / "scripts"
    text = (folder / "prelude.lua").read_text(encoding="utf-8") + (folder / f"{name}.lua").read_text(encoding="utf-8")
    return hub.server.call("SCRIPT", "LOAD", text)


def test_trimming_leaves_what_any_group_has_not_read_or_not_acknowledged(fleet, node):
    stream = filled(fleet, node)
    ids = [entry for entry, _ in stream.entries()]
    for group in ("fast", "slow"):
        stream.hub.call("XGROUP", "CREATE", stream.key, group, 0)
    while read(stream, "fast", 1000):
        pass
    slow = read(stream, "slow", 30)
    pending = read(stream, "slow", 30, acknowledge=False)
    trim(fleet, node, stream)
    left = [entry for entry, _ in stream.entries()]
    # What neither group needs went, up to a node of Redis's tree; what is pending, and all behind it, is there.
    assert left == ids[-len(left):] and ids.index(left[0]) <= ids.index(pending[0]) and len(left) < len(ids)
    assert left[0] != slow[0]
    stream.call("XACK", "slow", *pending)
    while read(stream, "slow", 1000):
        pass
    trim(fleet, node, stream)
    left = [entry for entry, _ in stream.entries()]
    assert left == ids[-len(left):] and KEEP <= len(left) < KEEP + 110


def test_the_daemon_trims_by_itself(fleet, node):
    stream = filled(fleet, node)
    stream.hub.call("XGROUP", "CREATE", stream.key, "reader", 0)
    node.daemon.terminate()
    while read(stream, "reader", 1000):
        pass
    node.start_daemon()
    wait_until(lambda: stream.call("XLEN") < KEEP + 110, "the stream is trimmed", timeout=20)
    wait_until(lambda: metric(node, "sluice_stream_trimmed_total") > 0, "it is counted")
    assert stream.call("XLEN") >= KEEP


# --- the script that appends --------------------------------------------------------------------------------------------------
def append(fleet, stream, after, *positions):
    words = [word for position in positions for word in (position, f'["position","{position}"]')]
    return fleet.hub.server.call("EVALSHA", script(fleet.hub, "stream_append"), 2, stream.key, stream.cursors, 9, after, *words)


def test_a_call_that_comes_twice_or_late_appends_nothing_twice_and_one_behind_a_gap_nothing(fleet):
    stream = Stream(fleet.hub, "script", f"append-{time.monotonic_ns()}")

    def positions():
        return [int(fields["position"]) for _, fields in stream.entries()]
    assert append(fleet, stream, 0, 1, 4, 7) == [7, 3]
    assert append(fleet, stream, 0, 1, 4, 7) == [7, 0]
    assert append(fleet, stream, 4, 7, 9) == [9, 1]
    assert append(fleet, stream, 12, 15) == [9, 0], "events behind a gap are refused with the cursor"
    assert positions() == [1, 4, 7, 9]
    fleet.hub.call("DEL", stream.key, stream.cursors)
    assert append(fleet, stream, 9, 12) == [0, 0], "after a loss only the beginning fits"
    assert append(fleet, stream, 0, 1, 4) == [4, 2] and positions() == [1, 4]
    assert append(fleet, stream, 4, 2**53 - 2, 2**53 - 1) == [2**53 - 1, 2] and stream.cursor(9) == 2**53 - 1


def test_cursors_of_a_stream_that_was_deleted_without_them_do_not_count(fleet):
    """Evicted, or deleted by somebody: also where a consumer that makes its group was there first. Not one whose entries were read and removed."""
    stream = Stream(fleet.hub, "script", f"deleted-{time.monotonic_ns()}")

    def looked():
        return fleet.hub.server.call("EVALSHA", script(fleet.hub, "stream_trim"), 2, stream.key, stream.cursors, 9, KEEP, 10000)[0]
    assert append(fleet, stream, 0, 1, 4) == [4, 2] and looked() == 4
    fleet.hub.call("HSET", stream.cursors, 8, 3)
    fleet.hub.call("DEL", stream.key)
    assert append(fleet, stream, 4, 7) == [0, 0] and stream.cursor(8) == 0, "of no node"
    assert append(fleet, stream, 0, 1, 4, 7) == [7, 3]
    fleet.hub.call("DEL", stream.key)
    fleet.hub.call("XGROUP", "CREATE", stream.key, "early", 0, "MKSTREAM")
    assert looked() == 0
    assert append(fleet, stream, 0, 1, 4, 7) == [7, 3]
    stream.call("XDEL", *(entry for entry, _ in stream.entries()))
    assert looked() == 7 and append(fleet, stream, 7, 9) == [9, 1]


# --- the consumer -------------------------------------------------------------------------------------------------------------
@pytest.fixture(name="consumers")
def two_consumers(fleet, node, server):
    """Of one group that is new, over all streams of the fleet; with empty tables."""
    for table in ("events", "orders", "rejected"):
        server.query(f"DROP TABLE IF EXISTS sluice_fleet_{table}")
    group = f"group-{time.monotonic_ns()}"
    consumers = [Consumer(node, server.conninfo, name, group) for name in ("first", "second")]
    yield consumers
    for consumer in consumers:
        if consumer.process.running():
            assert consumer.stop() == 0, consumer.log()
    for sale in fleet.hub.call("SMEMBERS", f"{node.settings['fleet.prefix']}:{{fleet}}:streams"):
        with contextlib.suppress(Exception):
            fleet.hub.call("XGROUP", "DESTROY", f"{node.settings['fleet.prefix']}:{{{sale}}}:orders", group)


@pytest.fixture(name="clean")
def clean_redis(fleet, node):
    """Streams that were not trimmed and not lost: the whole ledger."""
    fleet.hub.flush()
    node.daemon.terminate()
    node.start_daemon()


def test_two_consumers_make_the_ledger_of_the_streams_whatever_is_killed(clean, fleet, node, server, consumers):
    del clean
    chance = random.Random(SEED)
    sales = [new_sale(node) for _ in range(2)]
    with Trade(node, sales) as trade:
        for turn in range(8):
            trade.wait(15)
            time.sleep(chance.random() * 0.5)
            victim = consumers[turn % 2]
            victim.kill()
            victim.start()
        late = new_sale(node)
        bought(node, late)  # a sale that is new while they run
    wait_tables(server, node, consumers)
    for sale in (*sales, late):
        stream = stream_of(fleet, sale)
        wait_until(lambda stream=stream: stream.pending(consumers[0].group) == 0, "all is acknowledged", timeout=30)
    assert server.query("SELECT * FROM sluice_fleet_rejected") == []
    # The question of docs/verify.md, and that it finds a buyer who is at home twice.
    question = re.search(r"^```sql\n(.*?)^```", VERIFY_MD, re.M | re.S).group(1)
    assert server.query(question) == []
    row = server.query("SELECT sale, buyer, quantity FROM sluice_fleet_orders WHERE state = 'held' LIMIT 1")[0]
    server.query("INSERT INTO sluice_fleet_orders SELECT id, sale, 2, position, seq, state, quantity, buyer, source, network, admitted_at, "
                 f"committed_at, expires_at, resolved_at, resolved_by, restocked FROM sluice_fleet_orders WHERE buyer = '{row[1]}' LIMIT 1")
    assert server.query(question) == [[row[0], row[1], "2", str(2 * int(row[2]))]]
    # That of docs/stream.md: orders that have events and no row.
    question = re.search(r"^```sql\n(.*?)^```", STREAM_MD, re.M | re.S).group(1)
    assert server.query(question) == []
    gone = server.query("DELETE FROM sluice_fleet_orders WHERE node = 1 AND id IN (SELECT id FROM sluice_fleet_orders WHERE node = 2) RETURNING sale, node, id")
    assert len(gone) == 1 and server.query(question) == gone


def test_a_consumer_that_dies_after_the_commit_and_before_the_acknowledgement_changes_nothing(clean, fleet, node, server, consumers):
    """Stopped while the database works on what it has sent, and killed when that is committed."""
    del clean
    consumers[1].stop()
    first = consumers[0]
    sale = new_sale(node)
    stream = stream_of(fleet, sale)
    bought(node, sale)
    wait_tables(server, node, consumers)
    with server.held("LOCK TABLE sluice_fleet_events IN EXCLUSIVE MODE"):
        bought(node, sale, 5)
        wait_same(node, stream)
        wait_until(lambda: server.query("SELECT 1 FROM pg_locks WHERE relation = 'sluice_fleet_events'::regclass AND NOT granted"),
                   "the consumer's transaction is there")
        os.kill(first.process.pid, signal.SIGSTOP)
    stored = wait_until(lambda: len(table_events(server)) > 2 and table_events(server), "it is committed")
    first.kill()
    unacknowledged = stream.pending(first.group)
    assert unacknowledged > 0
    first.start()
    wait_tables(server, node, consumers)
    wait_until(lambda: stream.pending(first.group) == 0, "what was stored came again and is acknowledged")
    assert table_events(server)[:len(stored)] == stored


def test_without_its_database_a_consumer_waits_and_acknowledges_nothing(clean, fleet, node, server, consumers):
    del clean
    consumers[1].stop()
    first = consumers[0]
    sale = new_sale(node)
    stream = stream_of(fleet, sale)
    bought(node, sale)
    wait_tables(server, node, consumers)
    server.kill()
    bought(node, sale, 5)
    wait_until(lambda: "nothing is acknowledged" in first.log(), "the consumer says so")
    wait_until(lambda: stream.pending(first.group) >= 1, "it was given some of this sale")
    assert first.process.running()
    server.start()
    wait_tables(server, node, consumers)
    wait_until(lambda: stream.pending(first.group) == 0, "all is acknowledged")


def test_a_redis_that_lost_the_groups_is_read_from_the_beginning(clean, fleet, node, server, consumers):
    del clean
    sale = new_sale(node)
    with Trade(node, [sale]) as trade:
        trade.wait(15)
        wait_until(lambda: server.query("SELECT 1 FROM sluice_fleet_events LIMIT 1"), "a consumer has read of it")
        fleet.hub.server.kill()
        fleet.hub.server.start(empty=True)
        trade.wait(15)
    wait_tables(server, node, consumers)
    assert any("is gone from" in consumer.log() for consumer in consumers)
    assert at_least_once(stream_of(fleet, sale).events(), ledger_events(node, sale.slug))


def test_an_entry_that_is_none_is_put_aside_with_its_reason(clean, fleet, node, server, consumers):
    del clean
    sale = new_sale(node)
    stream = stream_of(fleet, sale)
    bought(node, sale)
    wait_tables(server, node, consumers)
    good = next(fields for _, entry in stream.entries() if (fields := dict(entry))["type"] == "order.held")
    bad = {
        "the field type is missing": {"hello": "world"},
        "sale is another than that of the stream": {**good, "sale": "other"},
        "position is no number from 1": {**good, "position": "12x"},
        "type is none that this program knows": {**good, "type": "order.eaten"},
        "at is no time": {**good, "at": "yesterday"},
        "id is not 16 hex digits": {**good, "id": "'); DROP TABLE sluice_fleet_orders; --"},
        "not printable ASCII": {**good, "source": "\x01"},
        "quantity is no number": {**good, "quantity": "-1"},
        "the field at is missing": {"type": "order.held", "sale": sale.slug, "node": "1", "position": "1", "note": LONG},
    }
    for fields in bad.values():
        stream.call("XADD", "*", *(word for pair in fields.items() for word in pair))
    try:
        wait_until(lambda: len(server.query("SELECT 1 FROM sluice_fleet_rejected")) == len(bad), "all are put aside")
    except AssertionError as error:
        logs = "\n".join(consumer.log()[-2000:] for consumer in consumers)
        raise AssertionError(f"{error}\n{server.query('SELECT entry, reason FROM sluice_fleet_rejected')}\n{logs}") from error
    reasons = [reason for reason, in server.query("SELECT reason FROM sluice_fleet_rejected ORDER BY entry")]
    for expected, reason in zip(bad, reasons):
        assert expected in reason, (expected, reason)
    assert server.query("SELECT fields FROM sluice_fleet_rejected ORDER BY entry DESC LIMIT 1") == [
        [f"type=order.held sale={sale.slug} node=1 position=1 note={LONG}"]]
    wait_until(lambda: stream.pending(consumers[0].group) == 0, "they are acknowledged")
    bought(node, sale)
    wait_tables(server, node, consumers)


def test_an_entry_that_cannot_even_be_put_aside_is_said_once_and_not_acknowledged(clean, fleet, node, server, consumers):
    """The database refuses for a reason of its own, with each attempt."""
    del clean
    consumers[1].stop()
    first = consumers[0]
    sale = new_sale(node)
    stream = stream_of(fleet, sale)
    bought(node, sale)
    wait_tables(server, node, consumers)
    before = first.log().count("is put aside")
    server.query("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not now'; END $$")
    server.query("CREATE TRIGGER refuse BEFORE INSERT ON sluice_fleet_rejected EXECUTE FUNCTION refuse()")
    try:
        stream.call("XADD", "*", "hello", "world")
        wait_until(lambda: "not now" in first.log(), "the consumer says what the database says")
        time.sleep(1.5)
        assert first.log().count("is put aside") == before and first.log().count("not now") == 1
        assert stream.pending(first.group) == 1
    finally:
        server.query("DROP FUNCTION refuse CASCADE")
    wait_until(lambda: stream.pending(first.group) == 0, "it is acknowledged")
    assert first.log().count("is put aside") == before + 1 and len(server.query("SELECT 1 FROM sluice_fleet_rejected")) == 1


def test_a_key_that_is_no_stream_does_not_hold_up_the_other_sales(clean, fleet, node, server, consumers):
    del clean
    sales = [new_sale(node) for _ in range(2)]
    for sale in sales:
        bought(node, sale)
    wait_tables(server, node, consumers)
    # Of a sale that no node has, so that nobody mends it.
    alien = Stream(fleet.hub, node.settings["fleet.prefix"], f"alien-{time.monotonic_ns()}")
    names = f"{node.settings['fleet.prefix']}:{{fleet}}:streams"
    fleet.hub.call("SADD", names, alien.slug)
    try:
        wait_until(lambda: all(f"sale {alien.slug}" in consumer.log() for consumer in consumers), "both read it")
        wait_until(lambda: fleet.hub.call("EXISTS", alien.key), "its group is made")
        fleet.hub.call("SET", alien.key, "no stream")
        wait_until(lambda: all("WRONGTYPE" in consumer.log() for consumer in consumers), "they say so")
        for sale in sales:
            bought(node, sale)
        wait_tables(server, node, consumers, timeout=20)
    finally:
        fleet.hub.call("SREM", names, alien.slug)
        fleet.hub.call("DEL", alien.key)


def test_many_keys_that_are_no_streams_do_not_hold_up_a_sale_that_comes_after_them(clean, fleet, node, server, consumers):
    del clean
    prefix, began = node.settings["fleet.prefix"], time.monotonic_ns()
    aliens = [f"alien-{began}-{n}" for n in range(MANY)]
    for alien in aliens:
        fleet.hub.call("SET", f"{prefix}:{{{alien}}}:orders", "no stream")
    fleet.hub.call("SADD", f"{prefix}:{{fleet}}:streams", *aliens)
    try:
        wait_until(lambda: all(consumer.log().count("reads the stream of sale alien") >= MANY for consumer in consumers), "both know them")
        bought(node, new_sale(node), 3)
        wait_tables(server, node, consumers, timeout=20)
    finally:
        fleet.hub.call("SREM", f"{prefix}:{{fleet}}:streams", *aliens)
        fleet.hub.call("DEL", *(f"{prefix}:{{{alien}}}:orders" for alien in aliens))


def test_a_stream_that_may_not_be_read_does_not_hold_up_the_other_sales(clean, fleet, node, server, consumers):
    """As one whose server in a cluster does not answer."""
    del clean
    for consumer in consumers:
        consumer.stop()
    shut, free = new_sale(node), new_sale(node)
    for sale in (shut, free):
        bought(node, sale)
        wait_same(node, stream_of(fleet, sale))
    prefix, password = node.settings["fleet.prefix"], node.dir / "shut.password"
    password.touch(mode=0o600)
    password.write_text("of-one\n", encoding="ascii")
    fleet.hub.call("ACL", "SETUSER", "one", "on", ">of-one", "resetkeys", f"~{prefix}:{{*}}:orders", f"~{prefix}:{{fleet}}:streams", "-@all", "+info",
                   "+cluster|slots", "+asking",
                   "+client|setname", "+smembers", "+xgroup|create", "+xack", f"(+xreadgroup +xautoclaim ~{prefix}:{{{free.slug}}}:orders)")
    of_one = Consumer(node, server.conninfo, "one", consumers[0].group, **{"fleet.redis_user": "one", "fleet.redis_password_file": password})

    def of_free():
        return [order for order, in server.query(f"SELECT id FROM sluice_fleet_orders WHERE sale = '{free.slug}'")]
    try:
        wait_until(lambda: "NOPERM" in of_one.log(), "it may not read one of them")
        order = bought(node, free)["id"]
        wait_until(lambda: order in of_free(), "an order of the other is stored", timeout=20)
        assert of_one.log().count("NOPERM") <= 3, "it says so again and again"
    finally:
        of_one.stop()
        fleet.hub.call("ACL", "DELUSER", "one")


def test_the_documented_rights_of_a_consumer_suffice(clean, fleet, node, server, consumers):
    del clean
    for consumer in consumers:
        consumer.stop()
    line = re.search(r"^ACL SETUSER sluice-consumer .*$", STREAM_MD, re.M).group(0)
    password = node.dir / "consumer.password"
    password.touch(mode=0o600)
    password.write_text("of-a-consumer\n", encoding="ascii")
    fleet.hub.call(*line.replace("PASSWORD", "of-a-consumer").replace("sluice:", f"{node.settings['fleet.prefix']}:").split())
    fleet.hub.call("ACL", "LOG", "RESET")
    sale = new_sale(node)
    bought(node, sale, 3)
    stream = stream_of(fleet, sale)
    wait_same(node, stream)
    group = consumers[0].group
    fleet.hub.call("XGROUP", "CREATE", stream.key, group, 0)
    given = [entry for entry, _ in fleet.hub.call("XREADGROUP", "GROUP", group, "dead", "COUNT", 2, "STREAMS", stream.key, ">")[0][1]]
    fleet.hub.call("XCLAIM", stream.key, group, "dead", 0, *given, "IDLE", 61000)
    limited = Consumer(node, server.conninfo, "limited", group, **{"fleet.redis_user": "sluice-consumer", "fleet.redis_password_file": password})
    try:
        wait_until(lambda: "reads the stream" in limited.log(), "its tables are there")
        wait_tables(server, node, [limited])
        wait_until(lambda: stream.pending(group) == 0, "all is acknowledged")
        assert "takes over" in limited.log() and "NOPERM" not in limited.log() and "of-a-consumer" not in limited.log()
        assert fleet.hub.call("ACL", "LOG") == []
    finally:
        limited.stop()
        fleet.hub.call("ACL", "DELUSER", "sluice-consumer")


def test_streams_and_consumers_of_a_cluster_outlive_a_master(server):
    for table in ("events", "orders", "rejected"):
        server.query(f"DROP TABLE IF EXISTS sluice_fleet_{table}")
    with Fleet(redis=redisd.Cluster, count=1) as fleet:
        node = fleet[1]
        sales = [new_sale(node) for _ in range(4)]
        consumers = [Consumer(node, server.conninfo, name) for name in ("first", "second")]
        try:
            with Trade(node, sales) as trade:
                trade.wait(40)
                master = fleet.hub.master_of(stream_of(fleet, sales[0]).key)
                master.kill()
                wait_until(lambda: fleet.hub.master_of(stream_of(fleet, sales[0]).key).running(), "its replica has taken over")
                trade.wait(40)
            master.start()
            wait_tables(server, node, consumers)
            for sale in sales:
                assert at_least_once(stream_of(fleet, sale).events(), ledger_events(node, sale.slug))
            assert server.query("SELECT * FROM sluice_fleet_rejected") == []
        finally:
            for consumer in consumers:
                consumer.stop()


def test_entries_of_a_consumer_that_never_comes_back_are_taken_over(clean, fleet, node, server, consumers):
    """It was given them, and acknowledges nothing for a minute."""
    del clean
    for consumer in consumers:
        consumer.stop()
    sale = new_sale(node)
    stream = stream_of(fleet, sale)
    bought(node, sale, 5)
    wait_same(node, stream)
    group = consumers[0].group
    with contextlib.suppress(Exception):
        fleet.hub.call("XGROUP", "CREATE", stream.key, group, 0)
    ids = [entry for entry, _ in fleet.hub.call("XREADGROUP", "GROUP", group, "dead", "STREAMS", stream.key, ">")[0][1]]
    # As if a minute had gone by.
    fleet.hub.call("XCLAIM", stream.key, group, "dead", 0, *ids, "IDLE", 61000)
    consumers[0].start()
    wait_tables(server, node, consumers)
    assert "takes over" in consumers[0].log()


def test_entries_that_were_removed_before_they_were_taken_over_leave_a_row(clean, fleet, node, server, consumers):
    """Redis itself forgets them when somebody takes over what is left (XAUTOCLAIM)."""
    del clean
    for consumer in consumers:
        consumer.stop()
    sale = new_sale(node)
    stream = stream_of(fleet, sale)
    bought(node, sale, 4)
    wait_same(node, stream)
    group = consumers[0].group
    with contextlib.suppress(Exception):
        fleet.hub.call("XGROUP", "CREATE", stream.key, group, 0)
    ids = [entry for entry, _ in fleet.hub.call("XREADGROUP", "GROUP", group, "dead", "STREAMS", stream.key, ">")[0][1]]
    fleet.hub.call("XCLAIM", stream.key, group, "dead", 0, *ids, "IDLE", 61000)
    fleet.hub.call("XDEL", stream.key, *ids[1:3])
    consumers[0].start()
    wait_until(lambda: stream.pending(group) == 0, "all is settled")
    rows = server.query("SELECT entry, reason FROM sluice_fleet_rejected ORDER BY entry")
    assert [entry for entry, _ in rows] == ids[1:3] and all("removed from the stream" in reason for _, reason in rows), rows
    assert all(f"entry {entry} of {stream.key} is put aside" in consumers[0].log() for entry in ids[1:3])


def test_a_group_needs_a_redis_in_the_config(node):
    import netns
    import world
    alone = node.dir / "alone.conf"
    alone.write_text("", encoding="utf-8")
    done = netns.run([world.WRITER, "--consume", "--config", alone], check=False)
    assert done.returncode == 1 and "fleet.redis is empty" in done.stderr
    done = netns.run([world.WRITER, "--group", "g", "--config", alone], check=False)
    assert done.returncode == 2 and "belong to --consume" in done.stderr
