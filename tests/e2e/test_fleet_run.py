# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""A Redis that goes back under the run_id of before: it was replaced by a replica that lagged, followed that one, and is master again before anybody
has called the other. The daemons' scripts, called as daemons do, on two real servers: each finds that this is another run (server_run in prelude.lua).
"""
import contextlib
import itertools
import tempfile

import pytest

import redisd
from netns import wait_until

TOTAL = 100
MOST = 60                # one node's lease: two of them are more than there is
BACKLOG_S = 1            # repl-backlog-ttl, where it is to be over soon
REPLY = ("answer", "gen", "state", "total", "version", "operation", "free", "outside", "demand", "missing", "members", "epoch", "seq", "op", "units",
         "balance", "sold", "fenced", "heard", "run", "now")  # lease_answer in prelude.lua
names = itertools.count(1)


class Pair(redisd.Single):
    """A master and its replica."""

    def __init__(self, directory):
        super().__init__(directory)
        try:
            self.replica = self.add_replica()
        except BaseException:
            self.close()
            raise

    @property
    def run(self):
        return self.run_of(self.server)

    def script(self, name, keys, *arguments):
        text = "\n".join(path.read_text(encoding="utf-8") for path in (redisd.PRELUDE, redisd.PRELUDE.with_name(f"{name}.lua")))
        return self.server.call("EVAL", text, len(keys), *keys, *arguments)

    def follow(self, server, master_at):
        server.call("REPLICAOF", redisd.ADDRESS, master_at)
        self.wait_replica(server)

    def wait_back(self):
        """The replica's link has broken, and it is there again."""
        wait_until(lambda: self.server.info("replication")["connected_slaves"] == "1", "the replica is back")
        self.wait_replica(self.replica)

    def hand_over(self, leads, follows):
        wait_until(lambda: "state=online" in leads.info("replication").get("slave0", ""), "it may be handed over")
        leads.call("FAILOVER", "TO", redisd.ADDRESS, follows.port)
        wait_until(lambda: follows.info("replication")["role"] == "master", "the other one leads")
        self.wait_replica(leads)

    @contextlib.contextmanager
    def lost(self):
        """What is done in the block is lost: the replica that takes over has not got it, and the master of before has it from there."""
        wait_until(lambda: self.replica.info("replication")["slave_repl_offset"] == self.server.info("replication")["master_repl_offset"],
                   "the replica has all of before")
        process = self.server.info("server")["run_id"]
        self.weather("lo", hold=True)
        yield
        self.go_back(self.replica)
        self.cut("lo")
        self.weather("lo")
        assert self.server.info("server")["run_id"] == process
        self.follow(self.replica, redisd.KNOWN_AT)


@pytest.fixture(scope="module", name="pair")
def pair_of_servers():
    with tempfile.TemporaryDirectory(prefix="sluice-run-") as directory, Pair(directory) as pair:
        yield pair


@pytest.fixture(autouse=True)
def whole(pair):
    """A test that failed half way leaves the pair as it should be to the next one."""
    pair.weather("lo")
    if not pair.server.running():
        pair.server.start()
    pair.server.call("REPLICAOF", "NO", "ONE")
    pair.server.call("CONFIG", "SET", "repl-backlog-ttl", 0)
    pair.follow(pair.replica, redisd.KNOWN_AT)


# --- what a run is ------------------------------------------------------------------------------------------------------------
def test_a_run_outlives_replicas_that_go_and_come_and_ends_when_the_server_has_followed_another(pair):
    server, replica = pair.server, pair.replica
    run = pair.run
    server.call("CLIENT", "KILL", "TYPE", "replica")
    pair.wait_back()
    replica.call("REPLICAOF", "NO", "ONE")
    assert pair.run == run and pair.run_of(replica) != run
    pair.follow(replica, redisd.KNOWN_AT)
    assert pair.run == run
    # There and back without a loss: nobody can tell that from one with a loss.
    pair.hand_over(server, replica)
    pair.hand_over(replica, server)
    assert pair.run != run
    with pair.lost():
        run = pair.run
    assert pair.run != run


def test_a_run_ends_with_the_process_and_with_a_backlog_that_nobody_needed(pair):
    """The latter is why docs/fleet.md has repl-backlog-ttl 0: nothing is lost, and everything is told again."""
    run = pair.run
    pair.server.stop()
    pair.server.start()
    assert pair.run != run
    pair.wait_back()
    run = pair.run
    pair.replica.call("REPLICAOF", "NO", "ONE")
    pair.server.call("CONFIG", "SET", "repl-backlog-ttl", BACKLOG_S)
    wait_until(lambda: pair.run != run, "the backlog is gone")
    pair.server.call("CONFIG", "SET", "repl-backlog-ttl", 0)
    pair.follow(pair.replica, redisd.KNOWN_AT)
    run = pair.run
    pair.replica.call("REPLICAOF", "NO", "ONE")
    wait_until(lambda: pair.server.info("replication")["connected_slaves"] == "0", "the replica is gone")
    pair.follow(pair.replica, redisd.KNOWN_AT)
    assert pair.run == run


# --- units --------------------------------------------------------------------------------------------------------------------
class Lessee:
    """A node, as far as it leases: what its ledger says."""

    def __init__(self, pair, node, slug):
        self.pair, self.node, self.key = pair, node, f"t:{{{slug}}}:stock"
        self.generation, self.seq, self.balance, self.total, self.version, self.operation = "", 0, 0, 0, 0, ""

    def call(self, script, *arguments):
        written = self.seq - (script == "grant")
        return dict(zip(REPLY, self.pair.script(script, [self.key], self.generation, self.node, 0, self.seq, self.balance, 0, self.total, self.version,
                                                self.operation, 0, "1,2", 0, "t", "here", written, *arguments)))

    def settle(self):
        """As often as it takes to agree on the generation."""
        reply = self.call("settle")
        if reply["answer"] == "regen":
            self.generation = reply["gen"]
            reply = self.call("settle")
        assert reply["answer"] == "ok", reply
        self.generation, self.total, self.version, self.operation = reply["gen"], reply["total"], reply["version"], reply["operation"]
        return reply

    def grant(self):
        self.seq += 1
        reply = self.call("grant", MOST, MOST)
        if reply["answer"] == "ok":
            self.balance = int(reply["balance"])
        else:
            self.seq -= 1
        return reply["answer"]


@pytest.fixture(name="lessees")
def two_lessees(pair):
    slug = f"run-{next(names)}"
    lessees = [Lessee(pair, node, slug) for node in (1, 2)]
    reply = lessees[0].call("settle")
    assert reply["answer"] == "absent"
    reply = lessees[0].call("total", "made", TOTAL, reply["run"], reply["now"])
    assert reply["answer"] == "ok"
    for lessee in lessees:
        lessee.generation = reply["gen"]
        lessee.settle()
    return lessees


def test_units_that_a_redis_has_forgotten_under_the_same_run_id_are_not_leased_again(pair, lessees):
    first, second = lessees
    with pair.lost():
        assert first.grant() == "ok" and first.balance == MOST
    second.grant()
    assert first.balance + second.balance <= TOTAL, "leased twice"
    for lessee in (second, first):
        lessee.settle()
    assert second.settle()["state"] == "open" and second.grant() == "ok"
    assert (first.balance, second.balance) == (MOST, TOTAL - MOST)


# --- homes, settings, keys, reports, streams ----------------------------------------------------------------------------------------
def test_a_home_that_was_forgotten_so_is_not_given_again(pair):
    slug, buyer = f"run-{next(names)}", "0123456789abcdef"

    def home(op, node, gen, *arguments):
        return pair.script("home", [f"t:{{{slug}}}:homes", f"t:{{{slug}}}:stock"], op, node, "1,2", "t", 4102444800, gen, *arguments)
    gen = home("ask", 1, "")[0]
    for node in (1, 2):
        assert home("tell", node, gen, 1) == ["told"]
    with pair.lost():
        assert home("ask", 1, gen, buyer) == [gen, "open", "", "1"]
    later, state, missing, where = home("ask", 2, gen, buyer)
    assert where == "0", "the buyer has two homes"
    assert later != gen and state == "settling" and missing == "1,2"
    assert home("tell", 1, later, 1, buyer) == ["told"] and home("tell", 2, later, 1) == ["told"]
    assert home("ask", 2, later, buyer) == [later, "open", "", "1"]


def settings_keys():
    name = f"t{next(names)}:{{fleet}}:settings"
    return [name, f"{name}:values", f"{name}:index", f"{name}:due"]


def test_settings_that_were_forgotten_so_are_asked_for_again(pair):
    """Though others have come meanwhile, so that the place that a node has read to is there again."""
    keys = settings_keys()

    def sync(node, gen, place, *puts):
        return pair.script("settings", keys, "sync", gen, node, "t", "life", place, 100, 0, "", *puts)
    gen = sync(1, "", 0)[1]
    with pair.lost():
        word, _, _, place = sync(1, gen, 0, "n 1 0 0 0 0 v deny/10.0.0.1/32 one")[:4]
        assert (word, place) == ("ok", "1")
    word, later = sync(2, gen, 0, "n 1 0 0 0 0 v deny/10.0.0.2/32 two")[:2]
    assert word == "regen" and later != gen
    assert sync(2, later, 0, "n 1 0 0 0 0 v deny/10.0.0.2/32 two")[0] == "ok"
    assert sync(1, gen, 1)[0] == "regen", "node 1 goes on from a place that is another's"


def test_a_report_says_that_it_is_another_run_and_a_rotation_of_keys_is_told_again(pair):
    keys, settings = f"t{next(names)}:{{fleet}}:keys", settings_keys()[0]

    def report():
        return pair.script("node_report", ["t:{fleet}:nodes", settings, keys, "t:{fleet}:audit"], 1, "{}", 60000)[2][:2]

    def sync(node, key):
        return pair.script("keys", [keys], "sync", node, "print", 1, "1,2", "t", key, key, key - 1, 0)[:3]

    for node in (1, 2):
        assert sync(node, 1) == ["ok", "1", "0"]
    before = report()
    with pair.lost():
        assert pair.script("keys", [keys], "rotate", 1, "print", 1, "1,2", "t", 1, "")[1:3] == ["1", "2"]
        for node in (1, 2):
            pair.script("keys", [keys], "sync", node, "print", 1, "1,2", "t", 2, 1, 0, 0)
        assert sync(1, 2) == ["ok", "2", "0"]
    assert all(now != then for now, then in zip(report(), before)), "nobody would look before the next message"
    assert sync(1, 2) == ["ok", "2", "0"], "the highest number that a node signs with holds"


def test_events_that_were_forgotten_so_are_appended_again(pair):
    """The cursor is one node's own, and goes back with the stream: runs have no part in it."""
    keys = [f"t:{{run-{next(names)}}}:{name}" for name in ("orders", "cursors")]

    def append(after, *positions):
        words = [word for position in positions for word in (position, f'["position","{position}"]')]
        return pair.script("stream_append", keys, 1, after, *words)
    assert append(0, 1) == [1, 1]
    with pair.lost():
        assert append(1, 2, 3) == [3, 2]
    assert append(3, 4) == [1, 0]
    assert append(1, 2, 3, 4) == [4, 3]
    assert [fields[1] for _, fields in pair.server.call("XRANGE", keys[0], "-", "+")] == ["1", "2", "3", "4"]
