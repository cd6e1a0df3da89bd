# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Part 6: a long deny list over fleet settings: it is imported at one node of three, and the others hear of it through Redis.

Measured: when the command is back, when each node has all entries in force, what it takes of memory, and what becomes of orders meanwhile. Orders come at
a steady rate to all nodes, in crowds one after another; of a size that is over sooner than a crowd, one.
"""
import ipaddress
import subprocess
import threading
import time

import lab
import sites
import world
from netns import wait_until

TITLE = "Long lists"
NODES = 3
SIZES, QUICK_SIZES = (10_000, 100_000, 1_000_000), (2_000,)
ROOM = {"gate.max_prefixes": 2_097_152}
RATE = 200            # orders a second, before and meanwhile
CROWD_S = 10.0
LOOK_S = 0.1
FIRST = int(ipaddress.ip_address("100.64.0.0"))  # of the list: nobody's who buys


def resident_mb(pid):
    return next(int(line.split()[1]) for line in lab.read(f"/proc/{pid}/status").splitlines() if line.startswith("VmRSS:")) / 1024


def entries_of(node):
    """Settings that it knows, without those that were removed."""
    has = node.status()["fleet"]["settings"]
    return has["known"] - has["removed"]


class Watch(threading.Thread):
    """Looks at all nodes: when the last of `known` settings was in force at each, in seconds from its making on, and how large each daemon became."""

    def __init__(self, site, known):
        super().__init__(daemon=True)
        self.site, self.known, self.began = site, known, time.monotonic()
        self.in_force, self.most_mb = {}, dict.fromkeys((node.number for node in site.nodes), 0.0)
        self.stopped = threading.Event()
        self.start()

    def run(self):
        while not self.stopped.wait(LOOK_S):
            for node in self.site.nodes:
                self.most_mb[node.number] = max(self.most_mb[node.number], resident_mb(node.daemon.pid))
                has = node.status()["fleet"]["settings"]
                if has["known"] - has["removed"] >= self.known and not has["due"] and not has["behind"] and not has["unsent"]:
                    self.in_force.setdefault(node.number, time.monotonic() - self.began)

    def done(self):
        return len(self.in_force) == len(self.site.nodes)

    def end(self):
        self.stopped.set()
        self.join()


def orders(site, seconds):
    """Of one crowd: how long its orders took."""
    sale = site.sale(stock=int(RATE * seconds * 4))
    crowd = sites.Crowd(site, sale, buyers=int(RATE * seconds) + 100, seconds=seconds, rate=RATE)
    crowd.go()
    seen = sites.crowd_checked(crowd.result())
    site.end(sale)
    return {name: seen[name] for name in ("orders", "p50_us", "p99_us", "max_us", "behind_ms")}


def imported(site, path, count, label, seconds):
    """The list, and orders meanwhile, until it is in force everywhere."""
    node, redis = site.nodes[0], site.fleet.hub.server
    known = entries_of(node) + count
    watch, account = Watch(site, known), sites.Account(site)
    account.start()
    command = subprocess.Popen(node.shop.command([world.SLUICE, "deny", "import", path, "--label", label, "--socket", node.control_socket]),  # pylint: disable=consider-using-with
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    returned = []
    waiting = threading.Thread(target=lambda: returned.append((command.communicate()[1], time.monotonic() - watch.began)), daemon=True)
    waiting.start()
    try:
        crowds = [orders(site, seconds)]
        while not watch.done():
            crowds.append(orders(site, seconds))
        waiting.join(60)
    finally:
        if command.poll() is None:
            command.kill()
        watch.end()
    if command.returncode:
        raise RuntimeError(f"the import: {returned[0][0].strip()}")
    spent, redis_ns = account.stop()
    return {"entries": count, "command_s": returned[0][1], "in_force_s": watch.in_force, "most_mb": watch.most_mb,
            "mb": {one.number: resident_mb(one.daemon.pid) for one in site.nodes}, "redis_mb": int(redis.info("memory")["used_memory"]) / 2**20,
            "crowds": crowds, "redis_s": redis_ns / 1e9, "fleet_s": spent["fleet"] / 1e9 / NODES, "rest_s": spent["daemon's rest"] / 1e9 / NODES}


def restarted(site, known):
    """Seconds until the daemon of a node that was started anew has its orders open, and has all in force."""
    node = site.nodes[-1]
    node.daemon.stop()
    began = time.monotonic()
    node.start_daemon(ready=False)
    node.wait_ready()
    ready = time.monotonic() - began

    def has_all():
        has = node.status()["fleet"]["settings"]
        return has["known"] - has["removed"] >= known and not has["due"] and not has["behind"]
    wait_until(has_all, "all settings are in force", timeout=120)
    return {"ready_s": ready, "in_force_s": time.monotonic() - began}


def measure(stack, work_dir, options, say):
    site = sites.make_fleet_site(stack, NODES, ROOM)
    seconds = 2.0 if options.quick else CROWD_S
    node, redis = site.nodes[0], site.fleet.hub.server
    result = {"title": TITLE, "nodes": NODES, "rate": RATE, "rows": [],
              "before": {"crowds": [orders(site, seconds)], "mb": {one.number: resident_mb(one.daemon.pid) for one in site.nodes},
                         "redis_mb": int(redis.info("memory")["used_memory"]) / 2**20}}
    for count in QUICK_SIZES if options.quick else SIZES:
        say(f"a list of {count:,} entries")
        path = work_dir / f"list-{count}"
        path.write_text("".join(f"{ipaddress.ip_address(FIRST + index)}\n" for index in range(count)), encoding="ascii")
        result["rows"].append(imported(site, path, count, f"of-{count}", seconds))
        if count != (QUICK_SIZES if options.quick else SIZES)[-1]:
            left = entries_of(node) - count
            node.cli("deny", "undo", f"of-{count}")
            wait_until(lambda left=left: all(entries_of(one) == left for one in site.nodes), f"all but {left} settings are removed", timeout=60)
    say("a daemon starts with the longest")
    result["restart"] = restarted(site, entries_of(node))
    return result


def tables(result):
    def crowds(row):
        return [f'{sum(one["orders"] for one in row["crowds"]):,}', f'{max(one["p50_us"] for one in row["crowds"]) / 1000:.1f}',
                f'{max(one["p99_us"] for one in row["crowds"]) / 1000:.1f}', f'{max(one["max_us"] for one in row["crowds"]) / 1000:.0f}']
    before = result["before"]
    rows = [["none", "-", "-", "-", f'{max(before["mb"].values()):.0f}', "-", f'{before["redis_mb"]:.0f}', "-", "-", *crowds(before)]]
    for row in result["rows"]:
        first, *others = [row["in_force_s"][number] for number in sorted(row["in_force_s"], key=int)]
        rows.append([f'{row["entries"]:,}', f'{row["command_s"]:.1f}', f"{first:.1f}", f"{max(others):.1f}", f'{max(row["mb"].values()):.0f}',
                     f'{max(row["most_mb"].values()):.0f}', f'{row["redis_mb"]:.0f}', f'{row["redis_s"]:.1f}', f'{row["fleet_s"] + row["rest_s"]:.1f}', *crowds(row)])
    return [(f'A list is imported at one of {result["nodes"]} nodes, with {result["rate"]} orders a second meanwhile',
             ["entries", "command back after s", "in force there", "at all others", "MB of a daemon", "at the most", "MB of Redis", "s of Redis's CPU",
              "s of a daemon's, without HTTP", "orders", "p50 ms, worst crowd", "p99 ms", "longest ms"], rows),
            ("A daemon that starts with the longest of these", ["orders are open after s", "and all is in force"],
             [[f'{result["restart"]["ready_s"]:.1f}', f'{result["restart"]["in_force_s"]:.1f}']])]


def plot(result, plots, out):
    plots["plot_bars"](out / "fleet-lists.svg", f'A list is in force on {result["nodes"]} nodes', "seconds",
                       [(f'{row["entries"]:,} entries', max(row["in_force_s"].values()), None, None) for row in result["rows"]])
