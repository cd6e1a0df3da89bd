# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Part 1: what one Redis can do. A redis-server of its own, on a CPU of its own; redis_load.c calls the daemons' scripts as fast as they are answered."""
import contextlib
import json
import socket

import lab
import sites

TITLE = "One Redis"
LOGS = {"everysec": ["--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"], "none": ["--appendonly", "no"]}
UNDER_WAY = 32      # calls at a time, over all connections
CONNECTIONS_MAX = 32
# what, script, rows (nodes), size, logs
GRANTS = [("grant", nodes, size) for nodes in (1, 3, 10, 100) for size in (1, 100)]
OTHERS = [("settle", 3, 1), ("settle", 10, 1), ("settle", 100, 1), ("append", 3, 1), ("append", 3, 20), ("append", 3, 500),
          ("home", 3, 1), ("home", 3, 20), ("home", 100, 20), ("report", 3, 400), ("report", 10, 400), ("report", 100, 400)]
UNITS = {"grant": "units", "settle": "reports", "append": "events", "home": "homes", "report": "reports"}


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Server:
    def __init__(self, stack, directory, log):
        self.port = free_port()
        directory.mkdir()
        argv = [lab.need("redis-server", "redis-server"), "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--dir", directory, *LOGS[log]]
        self.process = lab.netns.Process(lab.on_cpu(lab.cpu.server, argv), directory / "log")
        stack.callback(self.process.stop)

        def answers():
            if not self.process.running():
                raise lab.netns.Failed(f"redis-server ended at once:\n{self.process.log()}")
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", self.port)) == 0
        lab.wait_until(answers, "redis-server listens")

    def load(self, script, nodes, size, seconds):
        connections = min(nodes, CONNECTIONS_MAX)
        done = lab.run(lab.on_cpu(lab.cpu.clients, [
            sites.TOOLS / "redis_load", "--port", self.port, "--script", script, "--nodes", nodes, "--size", size, "--connections", connections,
            "--depth", max(1, UNDER_WAY // connections // (8 if script == "append" and size > 100 else 1)), "--seconds", seconds]))
        seen = json.loads(done.stdout)
        return {**seen, "calls_per_second": seen["calls"] / seen["seconds"], "units_per_second": seen["units"] / seen["seconds"],
                "us_per_call": seen["cpu_us"] / seen["calls"], "main_us_per_call": seen["main_thread_us"] / seen["calls"],
                "us_per_unit": seen["cpu_us"] / seen["units"], "busy": seen["main_thread_us"] / seen["seconds"] / 1e6}


def measure(stack, work_dir, options, say):
    plan = [(what, log) for what in GRANTS for log in LOGS] + [(what, "everysec") for what in OTHERS]
    if options.quick:
        plan = [(("grant", 3, 100), "everysec"), (("grant", 100, 100), "everysec"), (("settle", 3, 1), "everysec"), (("append", 3, 20), "everysec"),
                (("home", 3, 20), "everysec"), (("report", 3, 400), "everysec")]
    rows = {what: [] for what in plan}
    with contextlib.ExitStack() as servers:
        running = {log: Server(servers, work_dir / f"redis-{log}", log) for log in sorted({log for _, log in plan})}
        for number in range(1 if options.quick else 3):
            say(f"one Redis, round {number + 1}")
            for (script, nodes, size), log in plan:
                rows[(script, nodes, size), log].append(running[log].load(script, nodes, size, 0.2 if options.quick else 0.4))
    del stack
    return {"title": TITLE, "redis": lab.version_of([lab.need("redis-server", "redis-server"), "--version"]), "rows": [
        {"script": script, "nodes": nodes, "size": size, "log": log, "raw": seen,
         **{figure: lab.spread([one[figure] for one in seen])
            for figure in ("calls_per_second", "units_per_second", "us_per_call", "main_us_per_call", "us_per_unit", "busy")}}
        for ((script, nodes, size), log), seen in rows.items()]}


def find(result, script, nodes, size=None, log="everysec"):
    """The row, or the one whose number of nodes is nearest; None if there is none of that script."""
    rows = [row for row in result["rows"] if row["script"] == script and row["log"] == log and size in (None, row["size"])]
    return min(rows, key=lambda row: abs(row["nodes"] - nodes), default=None)


def tables(result):
    """[(title, head, rows)]."""
    def cells(row):
        calls, units = row["calls_per_second"], row["units_per_second"]
        return [f'{row["nodes"]}', f'{row["size"]}', {"everysec": "every second", "none": "none"}[row["log"]],
                f'{calls["median"]:,.0f}', f'{calls["min"]:,.0f}..{calls["max"]:,.0f}', f'{units["median"]:,.0f}',
                f'{row["us_per_call"]["median"]:.0f}', f'{row["us_per_call"]["min"]:.0f}..{row["us_per_call"]["max"]:.0f}', f'{row["us_per_unit"]["median"]:.2f}']
    grants = [cells(row) for row in result["rows"] if row["script"] == "grant"]
    others = [[row["script"], *cells(row)[:2], *cells(row)[3:]] for row in result["rows"] if row["script"] != "grant"]
    return [("One Redis: grants", ["rows (nodes)", "units a grant", "log synced", "grants/s", "min..max", "units/s", "us of Redis a grant", "min..max", "us a unit"], grants),
            ("One Redis: the other calls of a sale, log synced every second",
             ["script", "nodes", "size", "calls/s", "min..max", "units/s", "us of Redis a call", "min..max", "us a unit"], others)]


def plot(result, plots, out):
    plots["plot_bars"](out / "fleet-redis.svg", "One Redis: CPU of a call", "microseconds of Redis's CPU",
                       [(f'{row["script"]} of {row["size"]}, {row["nodes"]} nodes', *(row["us_per_call"][value] for value in ("median", "min", "max")))
                        for row in result["rows"] if row["log"] == "everysec"], log=True)
