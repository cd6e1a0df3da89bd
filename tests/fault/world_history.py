# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Writes the history of a tests/e2e/world.py World as its helpers are used, and has it judged when the World is closed.

So every end-to-end and fault test ends with the verdict of checker.py: a World that broke a promise fails its test (or, where a file shares one
World, the last test of the file). The history and the ledger of a breach are kept in build/fault/breach-…, to be looked at and judged again.
"""
import contextlib
import os
import shutil
import time

import checker
import ledger as ledger_module
import recorder

ORDER_PATH = "/v1/orders/"
REST_S = 5.0  # so long a World that nobody uses any more may take to come to rest
IN_FLIGHT_AT, FREE_AT = 64, 0  # include/sluice/abi.h: struct sluice_control, struct sluice_stock


class Broken(AssertionError):
    """A promise was not kept. `names`: of the breaches."""

    def __init__(self, breaches, kept, whose="the"):
        super().__init__(f"{whose} history checker found breaches (kept in {kept}):\n{breaches.text()}")
        self.names, self.kept = breaches.names(), kept


class Asked:
    """One request while it lasts."""

    def __init__(self):
        self.connection = self.answer = self.reply = None


class WorldHistory(recorder.Recorder):
    def __init__(self, world):
        super().__init__(world.dir / "history.jsonl")
        self.world = world
        self.unjudged = None
        self.figures = {}  # of the verdict: how much was judged

    def no_verdict(self, why):
        """For tests that break promises on purpose, or a World that cannot be judged."""
        self.unjudged = why

    # --- writing --------------------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def buyer(self, method, target):
        """Around one request for an order; anything else is not written down."""
        asked, sent = Asked(), recorder.clocks()
        error = None
        try:
            yield asked
        except BaseException as caught:
            error = type(caught).__name__
            raise
        finally:
            token = target.removeprefix(ORDER_PATH)
            if target.startswith(ORDER_PATH) and checker.read_token(token):
                answer = asked.answer
                size = len(answer.raw) if answer else len(asked.connection.buffer) if asked.connection else 0
                self.order(method, token, sent, answer.status if answer else None, recorder.json_or_none(answer.body) if answer else None,
                           size, error)

    @contextlib.contextmanager
    def control(self, method, path, body, headers=None):
        """Around one call of the control API; what only looks is not written down."""
        asked, sent = Asked(), recorder.clocks()
        try:
            yield asked
        finally:
            if method != "GET" and isinstance(body, (dict, type(None))):
                reply = asked.reply
                self._write({"what": "control", "method": method, "path": path.partition("?")[0], "request": body,
                             "key": (headers or {}).get("Idempotency-Key"), "sent": sent, "received": recorder.clocks(),
                             "status": reply.status if reply else None, "body": recorder.json_or_none(reply.body) if reply else None})

    def watched(self, part, process):
        process.on_end = lambda: self.note("down", part=part)
        return process

    # --- at the end -----------------------------------------------------------------------------------------------------------
    def _words(self):
        """What the gate has free, by sale, and what is on its way."""
        ids = [int.from_bytes(value[:4], "little") for _, value in self.world.map_dump("sales")]
        free = [int.from_bytes(value[FREE_AT:FREE_AT + 8], "little") for _, value in self.world.map_dump("stock")]
        (_, control), = self.world.map_dump("control")
        return ({sale: {"free": units} for sale, units in zip(ids, free) if sale},
                int.from_bytes(control[IN_FLIGHT_AT:IN_FLIGHT_AT + 8], "little"))

    def look_at_rest(self):
        """Waits until gate and ledger agree and writes down what the gate has; after a while, what it has all the same."""
        world = self.world
        if self.unjudged or not (world.pin_dir.exists() and all(part and part.running() for part in (world.daemon, world.writer))):
            return
        try:
            deadline = time.monotonic() + REST_S
            while True:
                # The ledger before and after, so that no hold ended and no lease came between the two looks.
                kept, upto = books = self._books()
                sales, in_flight = self._words()
                agreed = in_flight == 0 and books == self._books() and all(
                    sale in kept and kept[sale] == words["free"] for sale, words in sales.items())
                if agreed or time.monotonic() > deadline:
                    break
                time.sleep(0.05)
            refused = world.stats()["orders"]["refused_by_ledger"]
        except (OSError, AssertionError):
            return  # the daemon cannot be asked, as the test has left it: then only the ledger is judged
        self.rest(upto, sales, in_flight, refused)

    def _books(self):
        """What should be free of each sale, and how far the ledger had got then."""
        sales, upto = ledger_module.read(self.where(), ledger_module.read_books)
        return {sale.id: sale.put_in - sale.held - sale.confirmed for sale in sales}, upto

    def where(self):
        """Where ledger.py finds the ledger."""
        settings = self.world.settings
        return settings["writer.postgres"] if settings.get("writer.store") == "postgres" else self.world.ledger

    def has_ledger(self):
        """Not every World has one: the writer may never have been started."""
        where = self.where()
        return where is not self.world.ledger or (where.exists() and where.stat().st_size > 0)

    def judge(self):
        """The verdict. An exception if a promise was broken."""
        self.judge_so_far()
        self.close()

    def judge_so_far(self):
        self.flush()
        if self.unjudged or not self.has_ledger():
            return
        breaches = checker.check_files(self.path, self.where())
        self.figures = breaches.figures
        if breaches.found:
            raise Broken(breaches, self.keep(new_breach(self.world.build_dir)))

    def keep(self, base):
        for path in (self.path, *self.world.ledger.parent.glob(self.world.ledger.name + "*"), *self.world.dir.glob("*.log")):
            shutil.copy(path, base)
        return base


def new_breach(build_dir):
    """An empty directory for what is to be looked at afterwards."""
    base = build_dir / "fault" / f"breach-{os.getpid()}-{time.monotonic_ns() // 1_000_000}"
    base.mkdir(parents=True)
    return base
