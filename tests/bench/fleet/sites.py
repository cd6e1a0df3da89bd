# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""What the parts of the fleet's bench stand on: fleets that are measured, their crowd (crowd.c), and who asks Redis for what.

Nodes, Redis and the way between them are those of the end-to-end tests (tests/e2e/fleet.py, redisd.py); how CPU time is attributed is
tests/bench/peers/lab.py's: every node's device has a kernel thread of its own, bound with the node's programs to the server's CPU; the crowd, the
detour to Redis and Redis itself are on the clients'.
"""
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "peers"))
# pylint: disable=wrong-import-position
import lab  # noqa: E402
import fleet as fleets  # noqa: E402
import redisd  # noqa: E402
import world  # noqa: E402
from netns import die_with_parent, wait_until  # noqa: E402

TOOLS = world.BUILD / "tests" / "bench" / "fleet"
SCRIPTS = HERE.parents[2] / "userspace" / "fleet" / "scripts"
SOURCES = ("10.72.0.1", 4096)
REDIS_NICE = -12  # a server of its own in a real fleet: the crowd on the same CPU shall not keep it waiting
# Room for every order of a run, and no limit before the stock.
ROOM = {"gate.max_admissions": 524288, "gate.max_tokens": 524288, "gate.ring_bytes": 16777216, "gate.backlog_max": 0}
PARTS = ("gate and TCP", "HTTP", "pipeline", "fleet", "daemon's rest", "writer")


# --- fleets ---------------------------------------------------------------------------------------------------------------
class Redis(redisd.Single):
    """One server as docs/fleet.md says it should be: a log that is synced every second."""

    def _add_server(self, options=None):
        return super()._add_server({**(options or {}), "appendfsync": "everysec"})


def settle_priorities(process):
    for pid in lab.family_of(process.pid):
        for task in os.listdir(f"/proc/{pid}/task"):
            os.setpriority(os.PRIO_PROCESS, int(task), REDIS_NICE)


def pin_node(node):
    """The device's threads and the programs of a node of a fleet; the ids of the former."""
    lab.thread_napi(node.crowd, node.network.crowd_device, lab.cpu.clients)
    node.napi = lab.thread_napi(node.shop, world.DEVICE, lab.cpu.server)
    for process in (node.daemon, node.writer):
        lab.pin(process.pid, lab.cpu.server)


class Site:
    """Nodes before one crowd; `redis` is the process of their Redis, or None."""

    def __init__(self, nodes, crowd, redis=None, fleet=None):
        self.nodes, self.crowd, self.redis, self.fleet = nodes, crowd, redis, fleet
        self.slugs = 0

    def sale(self, stock, **fields):
        self.slugs += 1
        if self.fleet:
            return self.fleet.sale(stock=stock, slug=f"bench-{self.slugs}", **fields)
        return self.nodes[0].sale(stock=stock, slug=f"bench-{self.slugs}", **fields)

    @staticmethod
    def end(sale):
        sale.act("end")

    def units_elsewhere(self):
        """By node: how often a gate has said that units are elsewhere, at both doors."""
        return [node.packets("units_elsewhere") + node.calls("units_elsewhere") for node in self.nodes]


def fleet_site(stack, count, options):
    """A fleet whose nodes are pinned and whose verdicts are not wanted: the buyers write no history. A quick run has one of each size for all parts."""
    if not options.quick:
        return make_fleet_site(stack, count)
    if count not in options.kept_sites:
        options.kept_sites[count] = make_fleet_site(options.stack, count)
    return options.kept_sites[count]


def make_fleet_site(stack, count, settings=None):
    fleet = stack.enter_context(fleets.Fleet(redis=Redis, count=count, settings={**ROOM, **(settings or {})}))
    for node in fleet.nodes:
        node.history.no_verdict("the buyers of the bench write down nothing")
        pin_node(node)
    settle_priorities(fleet.hub.server.process)
    for pid in lab.family_of(os.getpid()):
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"detour.py" in words and str(fleet.dir).encode() in words:
            os.setpriority(os.PRIO_PROCESS, pid, REDIS_NICE)
    return Site(fleet.nodes, fleet.crowd, fleet.hub.server.process, fleet)


def lone_site(stack):
    """One node without Redis."""
    node = stack.enter_context(world.World(settings={**fleets.UNLIMITED, **ROOM}))
    node.history.no_verdict("the buyers of the bench write down nothing")
    pin_node(node)
    return Site([node], node.crowd)


# --- buyers ---------------------------------------------------------------------------------------------------------------
class Crowd:
    """crowd.c; with tokens before, made() returns when all buyers have theirs. Then: go(), and what it printed is result()."""

    def __init__(self, site, sale, buyers, seconds, rate=0, opened=64, before=True, burst=0, weights=None):
        nodes = []
        for number, node in enumerate(site.nodes):
            weight = weights[number] if weights else 1
            nodes += ["--node", f"{node.network.address['ipv4']}:{world.PORT}*{weight}"]
        pace = ["--rate", rate, "--burst", burst] if rate else ["--open", opened]
        argv = [TOOLS / "crowd", *nodes, "--sale", sale.slug, "--from", SOURCES[0], "--sources", SOURCES[1], "--buyers", buyers,
                "--tokens", "before" if before else "during", *pace, "--seconds", seconds, "--wait"]
        self.process = subprocess.Popen(site.crowd.command(lab.on_cpu(lab.cpu.clients, argv)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent)  # pylint: disable=subprocess-popen-preexec-fn
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the crowd: {self._end()}")

    def _end(self):
        self.process.kill()
        return self.process.communicate()[1].strip()

    def go(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def result(self, timeout=120):
        try:
            out, err = self.process.communicate(timeout=timeout)
        except BaseException:
            self._end()
            raise
        if self.process.returncode:
            raise RuntimeError(f"the crowd: {err.strip()}")
        return json.loads(out)


def crowd_checked(seen):
    """A run in which orders went wrong measures nothing."""
    wrong = seen["no_answer"] + sum(count for status, count in {**seen["answers"]}.items() if status not in ("200", "201", "503", "409", "421"))
    if not seen["orders"] or wrong > seen["orders"] / 1000:
        raise RuntimeError(f"{wrong} of {seen['orders'] + wrong} orders went wrong: {seen['answers']}, {seen['no_answer']} without an answer ({seen['last_error']})")
    return seen


def orders_between(seen, begin, end):
    """Of a crowd, from `begin` to `end` seconds (tenths of one) after it began."""
    bins = seen["orders_per_100_ms"]
    return sum(bins[round(begin * 10):round(end * 10)])


# --- who asks Redis for what ------------------------------------------------------------------------------------------------
MONITORED = re.compile(rb'^\+?(\d+\.\d+) \[\d+ ([^\]]+)\] "([^"]*)"(?: "([^"]*)")?(?: "([^"]*)")?(?: "([^"]*)")?')


def script_names():
    """{digest: name}, as the daemons make them: from the same table, by redis_load."""
    names = sorted(path.stem for path in SCRIPTS.glob("*.lua") if path.stem != "prelude")
    return dict(line.split() for line in lab.run([TOOLS / "redis_load", "--digests", *names]).stdout.splitlines())


class Monitor:
    """MONITOR of the server, for the length of the block. What scripts call inside is marked there, so a call is what a node has sent: a script, or a
    command. The answers are read over: counting them at the end costs the measurement nothing.
    """

    def __init__(self, site):
        self.site, self.names = site, script_names()
        self.text, self.calls, self.published = [], [], []

    def __enter__(self):
        server = self.site.fleet.hub.server
        self.ours = redisd.Connection(server.hub.ns.socket(), server.port)
        self.ours.call("CLIENT", "SETNAME", "bench")
        self.ours.send("MONITOR")
        self.ours.sock.settimeout(None)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        return self

    def _read(self):
        try:
            while data := self.ours.sock.recv(1 << 20):
                self.text.append(data)
        except OSError:
            pass  # closed: the block is over

    def __exit__(self, *_):
        server = self.site.fleet.hub.server
        server.call("PING")  # so that there is a connection whose name can be told
        bench = {"%s:%d" % ends.getsockname()[:2] for ends in (self.ours.sock, server._connection.sock)}  # pylint: disable=protected-access
        time.sleep(0.05)
        self.ours.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.ours.close()
        for line in b"".join(self.text).split(b"\r\n"):
            self._take(line, bench)
        self.text = []

    def _take(self, line, bench):
        found = MONITORED.match(line)
        if not found:
            return  # +OK, and a last line that is cut
        at, who, command = float(found[1]), found[2].decode(), found[3].decode().lower()
        if who == "lua":
            if command == "publish":
                self.published.append(at)
            return
        if who in bench:
            return
        name, key = command, found[4] or b""
        if command in ("evalsha", "eval"):
            name = self.names.get((found[4] or b"").decode(), "another script")
            key = found[6] or b""
        tag = re.search(rb"\{([^}]*)\}", key)
        self.calls.append((at, name, tag.group(1).decode() if tag else ""))

    def between(self, begin, end, sale):
        """{name: calls} for this sale or for the whole fleet, and how many of other sales there were beside them."""
        counts, others = {}, 0
        for at, name, tag in self.calls:
            if begin <= at < end:
                if tag in ("", "fleet", sale.slug):
                    counts[name] = counts.get(name, 0) + 1
                else:
                    others += 1
        return counts, others

    def all_between(self, begin, end):
        """{name: calls}, whatever sale they are of."""
        counts = {}
        for at, name, _ in self.calls:
            if begin <= at < end:
                counts[name] = counts.get(name, 0) + 1
        return counts

    def most_between(self, begin, end, width):
        """The most calls in one span of `width` seconds."""
        counts = {}
        for at, _, _ in self.calls:
            if begin <= at < end:
                counts[int((at - begin) / width)] = counts.get(int((at - begin) / width), 0) + 1
        return max(counts.values(), default=0)

    def published_between(self, begin, end):
        return sum(begin <= at < end for at in self.published)


# --- whose time it is -------------------------------------------------------------------------------------------------------
def part_of(name):
    """Of the daemon's threads. libmicrohttpd names its own."""
    if name.startswith("MHD-worker") or name.startswith("MHD-single"):
        return "HTTP"
    return name if name in ("pipeline", "fleet") else "daemon's rest"


def threads_of(pid):
    """{id: (name, ns on a CPU)} of the threads that live."""
    found = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            found[task] = (lab.read(f"/proc/{pid}/task/{task}/comm").strip(), int(lab.read(f"/proc/{pid}/task/{task}/schedstat").split()[0]))
        except OSError:
            continue  # it ended
    return found


class Account:
    """CPU time of a site: start(); …; stop() -> ({part: ns}, ns of its Redis)."""

    def __init__(self, site):
        self.site, self.before = site, None

    def _read(self):
        spent = dict.fromkeys(PARTS, 0)
        for node in self.site.nodes:
            for pid in node.napi:
                spent["gate and TCP"] += lab.runtime_ns(pid)
            for name, ns in threads_of(node.daemon.pid).values():
                spent[part_of(name)] += ns
            spent["writer"] += lab.runtime_ns(node.writer.pid)
        return spent, lab.runtime_ns(self.site.redis.pid) if self.site.redis else 0

    def start(self):
        self.before = self._read()

    def stop(self):
        (before, redis_before), (after, redis_after) = self.before, self._read()
        return {part: after[part] - before[part] for part in PARTS}, redis_after - redis_before


def rest(site, sale):
    """Waits until nothing of a sale is under way at any node."""
    for node in site.nodes:
        mine = fleets.sale_at(sale, node)
        wait_until(lambda mine=mine: mine.books()["in_flight"] == 0, "nothing is in flight")
