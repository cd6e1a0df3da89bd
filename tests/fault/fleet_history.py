# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Writes what befell a fleet (tests/e2e/fleet.py) as a whole, and has all its nodes judged together when it is closed: fleet_checker.py.

Each node writes its own history (world_history.py), which is judged by itself as well. What a breach is to be seen by is kept in build/fault/breach-…,
a directory for each node.
"""
import contextlib
import time

import fleet_checker
import ledger as ledger_module
import recorder
import redisd
import world_history
from world_history import REST_S


class FleetHistory(recorder.Recorder):
    def __init__(self, fleet):
        super().__init__(fleet.dir / "history.jsonl")
        self.fleet = fleet
        self.figures = {}

    @contextlib.contextmanager
    def harm(self, part):
        """Around the time in which a part is away or slow, until everything is well again. Nodes note their own programs' deaths."""
        self.note("down", part=part)
        yield
        self.note("up", part=part)

    def look_at_rest(self):
        """Waits until the nodes' ledgers and the coordinator agree, and writes down what the latter has; after a while, what it has all the same."""
        nodes = [node for node in self.fleet.nodes if node.history.has_ledger()]
        if self._unjudged() or len(self.fleet.living()) < len(nodes) or not all(node.writer.running() for node in nodes):
            return
        deadline = time.monotonic() + REST_S
        while True:
            # The ledgers before and after, so that no units were on their way between the two looks.
            at_nodes, upto = books = self._books(nodes)
            stocks = self._stocks(at_nodes)
            if books == self._books(nodes) and all(agreed for agreed, _ in stocks.values()) or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        for slug, (_, stock) in stocks.items():
            self.note("coordinator", sale=slug, total=stock.get("total", 0), free=stock.get("free", 0), upto=upto)

    def _books(self, nodes):
        """{slug: units put in at all nodes}, and {number: the last movement of stock that the node's ledger had then}."""
        at_nodes, upto = {}, {}
        for node in nodes:
            sales, place = ledger_module.read(node.history.where(), ledger_module.read_books)
            upto[str(node.number)] = place["moves"]
            for sale in sales:
                at_nodes[sale.slug] = at_nodes.get(sale.slug, 0) + sale.put_in
        return at_nodes, upto

    def _stocks(self, at_nodes):
        """{slug: (whether the books agree, what the coordinator has)}."""
        stocks = {}
        for slug, units in at_nodes.items():
            try:
                stock = self.fleet.stock(slug)
            except (OSError, redisd.RedisError):
                continue  # as the test has left it: then only the ledgers are judged
            if stock:
                stocks[slug] = (stock.get("state") == "open" and units + stock.get("free", 0) == stock.get("total"), stock)
        return stocks

    def _unjudged(self):
        return any(node.history.unjudged for node in self.fleet.nodes)

    def judge(self):
        """The verdict on the whole. An exception if a promise was broken."""
        self.judge_so_far()
        self.close()

    def judge_so_far(self):
        self.flush()
        nodes = [node for node in self.fleet.nodes if node.history.has_ledger()]
        if self._unjudged() or not nodes:
            return
        members = []
        for node in nodes:
            node.history.flush()
            members.append(fleet_checker.Member(node.number, fleet_checker.read_records(node.history.path), ledger_module.read(node.history.where())))
        breaches = fleet_checker.check(members, fleet_checker.read_records(self.path))
        self.figures = breaches.figures
        if breaches.found:
            base = world_history.new_breach(nodes[0].build_dir)
            for node in nodes:
                place = base / f"node{node.number}"
                place.mkdir()
                node.history.keep(place)
            for path in (self.path, *self.fleet.dir.glob("*.log")):
                world_history.shutil.copy(path, base)
            raise world_history.Broken(breaches, base, whose="the fleet's")
