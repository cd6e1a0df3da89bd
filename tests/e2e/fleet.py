# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Three shops, one crowd, one Redis: a sale on many nodes.

    crowd ─┬─ shop 1 (gate, daemon, writer) ─┐
           ├─ shop 2                         ├─ hub (redisd.py)
           └─ shop 3                        ─┘

    with Fleet() as fleet:                    # or Fleet(redis=Cluster)
        sale = fleet.sale(stock=100)          # made at node 1, known to all when this returns
        fleet[2].public("POST", f"{sale.path}/tokens", {"buyer": "b"})
        fleet.hub.partition(3)

Each node is a World (world.py), with all that a World can do; its number is its place in the fleet. Nodes are reached by the crowd at
10.71.N.1:8080 and fd71:0:0:N::1; the URLs of the config are the former. Everything is gone after close(), whatever happened before; what the buyers
of all nodes were told is judged there (tests/fault/fleet_checker.py), and each node by itself as ever (checker.py).
"""
import contextlib
import copy
import http.client
import pathlib
import shutil
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "fault"))
import fleet_history
import redisd
import test_clock
from netns import wait_until
from world import DEVICE, PORT, Network, World

NODES = 3
KNOWN_WITHIN_S = 10
HEAD = ("server", "gen", "state", "total", "version", "operation", "free", "cut", "cut_at", "said")  # userspace/fleet/scripts/prelude.lua
ROW_FENCED, ROW_SEEN = 7, 8  # there, of a node's row: the generation in which it was fenced; when it was heard last, in ms
UNLIMITED = {f"limits.{name}": {"rate": 0.0, "burst": 1} for name in ("source", "prefix", "token", "syn_prefix")}


class Node(World):
    def __init__(self, fleet, number, settings):
        self.number, self.fleet = number, fleet
        self.clock = self.environment = None
        super().__init__(settings, start=(), crowd=fleet.crowd, number=number)
        self.history.note("fleet", node=number)

    @property
    def url(self):
        return f"http://{self.network.address['ipv4']}:{PORT}"

    def set_clock(self, offset):
        """Daemon and writer live `offset` seconds away from everybody else, from their next start on."""
        self.clock = test_clock.Clock(self)
        self.clock.step(offset)
        self.environment = self.clock.environment()
        self.history.note("clock_apart", offset=offset)

    def start_writer(self, env=None):
        super().start_writer(env or self.environment)

    def start_daemon(self, env=None, ready=True):
        super().start_daemon(env or self.environment, ready)

    def start(self, ready=True):
        if not self.pin_dir.exists():
            self.attach()
        self.start_writer()
        self.start_daemon(ready=ready)

    def knows_its_lease(self, sale):
        """Whether it sells: it has settled with the coordinator since it was started."""
        try:
            lease = self.ask("GET", sale.path)["fleet"]
        except (OSError, http.client.HTTPException, AssertionError):
            return False
        return lease["settled"] and not lease["withheld"]

    def kill(self):
        """Daemon and writer at once. The gate stays, as it does."""
        self.daemon.kill()
        self.writer.kill()

    def die(self):
        """The machine is gone: programs, gate, and whatever was in the kernel. What is on the disk is there for start()."""
        self.kill()
        self.history.note("gate_gone")
        shutil.rmtree(self.pin_dir)
        wait_until(lambda: not self.shop.link_has_xdp(DEVICE), "the gate is gone")


class Fleet:
    """`redis`: which hub (redisd.Single, redisd.Cluster). `settings`: of all nodes; `of_node`: {number: settings} of one. `start`: whether all are started."""

    def __init__(self, redis=redisd.Single, settings=None, of_node=None, count=NODES, start=True, clocks=None):
        self._stack = contextlib.ExitStack()
        self.nodes = []
        self._slugs = 0
        try:
            self.dir = pathlib.Path(tempfile.mkdtemp(prefix="sluice-fleet-"))
            self._stack.callback(shutil.rmtree, self.dir, ignore_errors=True)
            self.history = fleet_history.FleetHistory(self)
            self.hub = self._stack.enter_context(redis(self.dir))
            self.crowd = Network.new_crowd(self._stack)
            self.secret_file = self.dir / "fleet.secret"
            self.secret_file.touch(mode=0o600)
            self.secret_file.write_text("3f" * 32 + "\n", encoding="ascii")
            urls = [{"id": number, "url": f"http://10.71.{number}.1:{PORT}"} for number in range(1, count + 1)]
            for number in range(1, count + 1):
                node = Node(self, number, {
                    **UNLIMITED, "gate.max_admissions": 32768, "gate.max_tokens": 32768,
                    "fleet.redis": self.hub.setting, "fleet.node": number, "fleet.secret_file": self.secret_file,
                    "fleet.prefix": f"e2e-{self.dir.name[-8:]}", "nodes": urls, **(settings or {}), **(of_node or {}).get(number, {})})
                self._stack.callback(node.close)
                self.nodes.append(node)
                self.hub.join(node.shop, number)
            self._stack.callback(self.history.judge)
            self._stack.callback(self._come_to_rest)
            for number, offset in (clocks or {}).items():
                self[number].set_clock(offset)
            if start:
                self.start()
        except BaseException:
            self.close()
            raise

    def start(self):
        """All nodes at once, as they would be in the morning."""
        for node in self.nodes:
            node.start(ready=False)
        for node in self.nodes:
            node.wait_ready()

    def __getitem__(self, number):
        return self.nodes[number - 1]

    def close(self):
        self._stack.close()

    def _come_to_rest(self):
        """All are looked at before the first is stopped: who stops gives its units back."""
        for node in self.nodes:
            node.history.look_at_rest()
        self.history.look_at_rest()
        for node in self.nodes:
            node.stop_programs()

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        if error:
            for node in self.nodes:
                node.history.no_verdict("the test failed")
        self.close()

    # --- sales --------------------------------------------------------------------------------------------------------
    def sale(self, stock=10, at=1, **fields):
        """Made at one node, opened a second ago; returns when every living node has it."""
        self._slugs += 1
        sale = self[at].sale(stock=stock, slug=fields.pop("slug", f"fleet-{self._slugs}"), **fields)
        self.wait_known(sale)
        return sale

    def wait_known(self, sale, nodes=None):
        for node in nodes or self.living():
            wait_until(lambda node=node: node.control("GET", sale.path).status == 200, f"node {node.number} knows {sale.slug}", timeout=KNOWN_WITHIN_S)

    def living(self):
        return [node for node in self.nodes if node.daemon and node.daemon.running()]

    def key(self, sale, name):
        """Of a sale, in Redis."""
        slug = sale if isinstance(sale, str) else sale.slug
        return f"{self.nodes[0].settings['fleet.prefix']}:{{{slug}}}:{name}"

    def stock(self, sale):
        """What the coordinator has of a sale: a hash, with what its `head` says beside it, and numbers as numbers."""
        key = self.key(sale, "stock")
        flat = self.hub.call("HGETALL", key)
        for name, value in zip(HEAD, dict(zip(flat[::2], flat[1::2])).get("head", "").split()):
            flat += [name, value]
        return {name: int(value) if value.lstrip("-").isdigit() else value for name, value in zip(flat[::2], flat[1::2])}

    def is_well(self, sale, since=0.0):
        """Every unit can be sold: the coordinator leases, and every node has settled with it and been heard `since` then (wall time)."""
        try:
            stock = self.stock(sale)
            server = self.hub.run_of(self.hub.master_of(self.key(sale, "stock")))
        except (OSError, redisd.RedisError):
            return False
        if stock.get("state") != "open" or stock["server"] != server:
            return False
        rows = [stock.get(f"n{node.number}", "").split() for node in self.nodes]
        return all(row and int(row[ROW_SEEN]) >= since * 1000 for row in rows) and all(node.knows_its_lease(sale) for node in self.nodes)

    def mend(self):
        """Whatever a test has broken and left so. What was judged by then stays so."""
        self.hub.mend()
        for node in self.nodes:
            if not node.pin_dir.exists() or not node.daemon.running() or not node.writer.running():
                node.kill()
                node.start(ready=False)
        for node in self.nodes:
            node.wait_ready()

    # --- the verdict --------------------------------------------------------------------------------------------------
    def verify(self, at=1):
        """`sluice verify --fleet`, and of each node by itself: nothing differs."""
        for node in self.nodes:
            node.cli("verify", "--config", node.config)
        return self[at].cli("verify", "--fleet")

    def audit(self):
        """What is judged at the end, now: each node and the whole, by all that was written down so far."""
        for node in self.nodes:
            node.history.look_at_rest()
        self.history.look_at_rest()
        for node in self.nodes:
            node.history.judge_so_far()
        self.history.judge_so_far()

    def assert_sold_out(self, sale, crowd):
        """Every unit is in an order, everybody has had a last word, and all books agree."""
        assert crowd.units() == sale.stock, (crowd.units(), crowd.summary())
        self.history.note("sold_out", sale=sale.slug)
        self.audit()
        self.verify()
        for node in self.nodes:
            show = node.ask("GET", sale.path)
            assert show["state"] == "sold_out", (node.number, show)


def sale_at(sale, node):
    """A world.py Sale as another node has it."""
    other = copy.copy(sale)
    other.world = node
    return other


def until(condition, what, timeout=30.0):
    """As wait_until; returns how long it took, to be printed."""
    began = time.monotonic()
    wait_until(condition, what, timeout=timeout)
    return time.monotonic() - began
