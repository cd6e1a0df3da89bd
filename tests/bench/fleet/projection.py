# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Part 7: what 10 and 100 nodes would ask of one Redis, from what was measured: an estimate, with its assumptions in words (ASSUMPTIONS).

Nothing is measured here. How often a node calls is what three nodes did in the steady sale of part 2; what a call costs Redis is part 1's figure for
that many rows. Beside it stands how often a node should call by the intervals in the code.
"""
import re

import capacity
import sites

TITLE = "Projection"
NODES = (3, 10, 100)
RATES = (1000, 10000, 100000)
FULL = 0.7  # share of a core that Redis's one thread may be busy
TREE = sites.HERE.parents[2]
UNITS = {"MS": 1e6, "NS_PER_MS": 1e6, "REDIS_MS": 1e6, "S": 1e9, "SECOND": 1e9, "NS_PER_S": 1e9}
# Which interval of the code brings which call, of a node in a steady sale. settle: also its report when nothing else was asked.
INTERVALS = {
    "settle": ("userspace/fleet/lease.c", "SELLING_NS"), "stream_append": ("userspace/daemon/fleet_stream.c", "BATCH_NS"),
    "stream_trim": ("userspace/daemon/fleet_stream.c", "LOOK_BUSY_NS"), "node_report": ("userspace/daemon/fleet_nodes.c", "REPORT_NS"),
    "settings": ("userspace/daemon/fleet_settings.c", "POLL_NS"), "keys": ("userspace/daemon/fleet_keys.c", "TELL_EVERY_NS"),
    "home": ("userspace/daemon/fleet_homes.c", "LOOK_EVERY_NS"), "ping": ("userspace/fleet/redis_news.c", "PING_AFTER_NS"),
}
# Part 1's name of a script.
LOADS = {"settle": "settle", "grant": "grant", "return": "grant", "stream_append": "append", "node_report": "report", "home": "home"}
ASSUMPTIONS = (
    "Each node calls as often as each of the three did at the highest steady rate of part 2 that the crowd kept up with; more orders make its calls larger "
    "(events of an append), not more, up to 1,000 events a call.",
    "Orders come evenly to all nodes of one sale, from tokens that were issued before; homes are in the last column of their own.",
    "A call costs Redis what part 1 says for the nearest number of rows: reading and writing the hash of a sale grows with the nodes, and so does "
    "the report, whose answer has all of them. Calls that part 1 does not have (keys, settings, trim, ping) are counted like a report of three nodes.",
    f"Redis is full when its one thread is busy for {FULL:.0%} of a core like this machine's. Replicas, TLS, slow disks and what a consumer reads are not in it.",
    "Nodes share nothing else: gates, daemons, writers and ledgers are each node's own, so their cost an order is that of one node with Redis (part 4).",
)


def interval_s(path, name):
    """Of a #define, or None if the code has it no more."""
    found = re.search(rf"^#define\s+{name}\s+(?:\\\n\s*)?\(?([0-9 A-Z_*/]+)\)?", (TREE / path).read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        return None
    value = 1.0
    for operator, word in re.findall(r"([*/]?)\s*([0-9A-Z_]+)", found.group(1)):
        digits = re.fullmatch(r"(\d+)U*L*", word)
        if word not in UNITS and not digits:
            return None
        number = UNITS.get(word) or float(digits.group(1))
        value = value / number if operator == "/" else value * number
    return value / 1e9


def call_us(result, name, nodes, size=None):
    row = capacity.find(result, LOADS.get(name, "report"), nodes if name in LOADS else 3, size)
    return row["us_per_call"]["median"] if row else float("nan")


def append_us(result, events):
    """Of a call with so many events: a line through the measured sizes."""
    rows = sorted((row["size"], row["us_per_call"]["median"]) for row in result["rows"] if row["script"] == "append")
    (small, small_us), (large, large_us) = rows[0], rows[-1]
    each = (large_us - small_us) / (large - small) if large > small else small_us / small
    return max(small_us + (events - small) * each, 0), each


def project(redis, calls, lease_ms):
    kept_up = [row for row in calls["steady"] if row["tokens"] == "before"]
    by = max(kept_up, key=lambda row: row["orders_per_second"])
    per_node = {name: count / calls["nodes"] for name, count in by["calls_of_a_second"].items()}
    rows = []
    for nodes in NODES:
        fixed = {name: nodes * count * call_us(redis, name, nodes) for name, count in per_node.items() if name != "stream_append"}
        appends = per_node.get("stream_append", 2)
        event_us = append_us(redis, 1)[1]
        home = capacity.find(redis, "home", nodes, 20)
        for rate in RATES:
            events = rate / nodes / appends
            sent = nodes * appends * max(1.0, events / 1000)
            stream = sent * append_us(redis, min(events, 1000))[0]
            total_calls = nodes * sum(count for name, count in per_node.items() if name != "stream_append") + sent
            busy = (sum(fixed.values()) + stream) / 1e6
            most = (FULL * 1e6 - sum(fixed.values()) - nodes * appends * append_us(redis, 0)[0]) / event_us
            share = sorted({**fixed, "stream_append": stream}.items(), key=lambda item: -item[1])
            rows.append({"nodes": nodes, "rate": rate, "calls_per_second": total_calls, "per_1000": 1000 * total_calls / rate, "busy": busy, "most": max(most, 0),
                         "shares": {name: us / 1e6 for name, us in share},
                         "home_share": rate * home["us_per_unit"]["median"] / 1e6 if home else float("nan"),
                         "grants": min(nodes * 2000 / lease_ms, rate), "units_a_grant": max(1.0, rate / nodes * lease_ms / 2000),
                         "grants_possible": FULL * 1e6 / call_us(redis, "grant", nodes)})
    return {"title": TITLE, "from_orders_per_second": by["orders_per_second"], "lease_ms": lease_ms, "per_node": per_node, "rows": rows, "assumptions": ASSUMPTIONS,
            "intervals": {name: interval_s(*where) for name, where in INTERVALS.items()}}


def lease_ms():
    """The default, of the config."""
    found = re.search(r"\.lease_ms = (\d+)", (TREE / "userspace/common/config.c").read_text(encoding="utf-8"))
    return int(found.group(1)) if found else 2000


def tables(result):
    first = [[f'{row["nodes"]}', f'{row["rate"]:,}', f'{row["calls_per_second"]:,.0f}', f'{row["per_1000"]:,.1f}', f'{row["busy"]:.1%}',
              ", ".join(f"{name} {share:.1%}" for name, share in list(row["shares"].items())[:2] if share >= 0.001), f'{row["most"]:,.0f}', f'{row["home_share"]:.1%}'] for row in result["rows"]]
    second = [[f'{row["nodes"]}', f'{row["rate"]:,}', f'{row["grants"]:,.0f}', f'{row["units_a_grant"]:,.0f}', f'{row["grants_possible"]:,.0f}'] for row in result["rows"]]
    names = sorted({*result["per_node"], *result["intervals"]})
    third = [[name, f'{result["per_node"].get(name, 0):.2f}', f'{1 / result["intervals"][name]:.2f}' if result["intervals"].get(name) else "-",
              "{1} in {0}".format(*INTERVALS[name]) if name in INTERVALS else ""] for name in names]
    return [("Calls of one node a second in a steady sale", ["call", "measured", "by the code", "interval"], third),
            ("Projection: one sale on many nodes, one Redis (estimates)",
             ["nodes", "orders/s", "calls/s", "per 1,000 orders", "Redis busy", "of that most", f"orders/s at {FULL:.0%}", "and homes"], first),
            (f'Projection: grants, leases of {result["lease_ms"]} ms', ["nodes", "orders/s", "grants/s needed", "units each", f"grants/s possible at {FULL:.0%}"], second)]


def plot(result, plots, out):
    series = {}
    for row in result["rows"]:
        series.setdefault(f'{row["nodes"]} nodes', []).append((row["rate"], max(100 * row["busy"], 0.01)))
    plots["plot_lines"](out / "fleet-projection.svg", "One Redis: estimated load of its thread", "orders a second, all nodes", "percent of a core", series,
                        logx=True, logy=True)
