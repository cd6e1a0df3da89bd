# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""A World with a sale that buyers stand in line for, and parts that die. What the fault tests do their harm to."""
import contextlib
import http.client
import os
import random
import shutil
import signal
import time

import load
import till
from netns import wait_until
from world import DEVICE, World

BUYERS_AT_ONCE = 30
HOLD_S = 1                   # short, so that holds expire and payments come late
UNITS_OF_A_CYCLE = (25, 55)  # fewer than those buyers ask for, or more
ROOM = 65536                 # for every order of a shop's life
UNLIMITED = {f"limits.{name}": {"rate": 0.0, "burst": 1} for name in ("source", "prefix", "token", "syn_prefix")}


def seed_of_run():
    seed = int(os.environ.get("SLUICE_FAULT_SEED") or random.SystemRandom().getrandbits(32))
    print(f"seed {seed}")
    return seed


class Shop:
    """`cycles`: how many times it is going to be harmed, for which there should be units. `sale`: fields of the sale. `crowd`: whether buyers
    come by themselves.
    """

    def __init__(self, seed, cycles, sale=None, settings=None, clock=None, crowd=True):
        self.random = random.Random(seed)
        self.cycles = cycles
        self.world = World({**UNLIMITED, "gate.max_admissions": ROOM, **(settings or {})}, start=("gate", "writer"))
        try:
            self.environment = None
            if clock:
                self.world.clock = clock(self.world)
                self.environment = self.world.clock.environment()
            self.world.start_daemon(env=self.environment)
            self.world.history.note("alone")
            self.sale = self.world.sale(**{"stock": self.random.randint(*UNITS_OF_A_CYCLE) * cycles, "per_buyer": 2,
                                         "hold_seconds": HOLD_S, **(sale or {})})
            self.crowd = load.Crowd(self.world, seed) if crowd else None
            self.till = till.Till(self.world, self.crowd, seed) if crowd else None
        except BaseException as error:
            self.world.__exit__(error)
            raise

    def __enter__(self):
        if self.crowd:
            self.come()
            self.crowd.__enter__()
            self.till.__enter__()
        return self

    def __exit__(self, error, *_):
        if self.crowd:
            self.till.__exit__()
            self.crowd.__exit__()
            print(f"{len(self.crowd.ordered)} orders, {self.till.calls} changes, answers {dict(self.crowd.answers)}")
        self.world.__exit__(error)
        print(f"judged: {dict(self.world.history.figures)}")

    # --- life ------------------------------------------------------------------------------------------------------------------
    def come(self):
        """Buyers, if the line is short."""
        if self.crowd.waiting() < BUYERS_AT_ONCE:
            self.crowd.add_buyers(self.sale, BUYERS_AT_ONCE, per_buyer=2)

    def change_stock(self):
        """As an operator does it, at the worst of times. The answer may never come."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            self.world.control("POST", f"{self.sale.path}/stock", {"delta": self.random.choice((5, 10, 20, -3)), "reason": "test"}, timeout=3)

    def trade(self, least=0.0, most=0.12):
        """Business for a while of random length."""
        self.come()
        if self.random.random() < 0.3:
            self.change_stock()
        time.sleep(self.random.uniform(least, most))

    def finish(self):
        """Until every buyer has an answer that is not "come again"."""
        wait_until(self.crowd.idle, "every buyer has been answered", timeout=60)
        assert self.till.failed is None, self.till.failed

    # --- harm ------------------------------------------------------------------------------------------------------------------
    def cycle(self):
        """Business, a kill, a recovery."""
        daemon, writer = self.random.choice(((True, False), (False, True), (True, True)))
        self.trade()
        self.kill(daemon, writer)
        if self.random.random() < 0.3:
            time.sleep(self.random.uniform(0, 0.1))
        self.start(daemon, writer)

    def kill(self, daemon=True, writer=True):
        victims = [self.world.daemon] * daemon + [self.world.writer] * writer
        self.random.shuffle(victims)
        for process in victims:
            process.kill()

    def start(self, daemon=True, writer=True):
        if writer:
            self.world.start_writer()
        if daemon:
            self.world.start_daemon(env=self.environment, ready=False)
        self.wait_open()

    def wait_open(self):
        """As World.wait_ready, but without losing a moment: there are hundreds of these."""
        def is_open():
            assert self.world.daemon.running() and self.world.writer.running(), self.world.daemon.log() + self.world.writer.log()
            try:
                return self.world.control("GET", "/v1/status").json()["orders_open"]
            except (OSError, http.client.HTTPException):
                return False
        wait_until(is_open, "orders are open", timeout=30, pause=0.003)
        self.world.history.note("up", part="daemon")

    def freeze(self, part, seconds):
        """SIGSTOP, and SIGCONT after a while."""
        process = getattr(self.world, part)
        self.world.history.note("down", part=part)
        os.kill(process.pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        self.wait_open()
        self.world.history.note("up", part=part)

    def reload(self):
        """The gate's program is replaced; its maps stay."""
        self.world.sluice("reload", "--config", self.world.config)

    def reboot(self):
        """Programs and gate are gone at once; what is left is what is on the disk."""
        self.kill()
        self.world.history.note("gate_gone")
        shutil.rmtree(self.world.pin_dir)
        wait_until(lambda: not self.world.shop.link_has_xdp(DEVICE), "the gate is gone")
        self.world.attach()
        self.start()
