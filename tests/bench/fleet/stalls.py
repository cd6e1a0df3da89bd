# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Part 3: how often a gate has no unit while the fleet has some, with Redis near and far.

A stall is a request for an order that a gate answers with `units_elsewhere` (503, Retry-After: 1), as the gates' own counters have it. The total lasts
in every run, so each is one too many. Steady: the crowd comes at one rate from the beginning on. Opening: a part of the stock is wanted at the very
second of the opening, evenly or all at one node, and then it goes on steadily.
"""
import re
import time

import lab
import sites

TITLE = "Stalls for lack of units"
NODES = 3
DELAYS_MS = (0, 2, 20, 100)  # there and back, of each byte between a node and Redis
STEADY = (500, 1000)
SECONDS = 4.0
OPENING_STOCK, OPENING_RATE = 9000, 500
LASTS_S = 30
OPENS_IN_S = 3.0
MOVES = re.compile(r'^sluice_lease_(moves|moved_units)_total\{([^}]*)\} (\d+)', re.MULTILINE)


def scenarios(options):
    """(name, orders a second, burst, weights of the nodes, stock)."""
    if options.quick:
        return [("steady, 500/s", 500, 0, None, 500 * LASTS_S)]
    return [*((f"steady, {rate:,}/s", rate, 0, None, rate * LASTS_S) for rate in STEADY),
            ("opening: 1/9 of the stock at once, evenly", OPENING_RATE, OPENING_STOCK // 9, None, OPENING_STOCK),
            ("opening: 1/3 of the stock at once, evenly", OPENING_RATE, OPENING_STOCK // 3, None, OPENING_STOCK),
            ("opening: 1/9 at once, all at one node", OPENING_RATE, OPENING_STOCK // 9, (1, 0, 0), OPENING_STOCK)]


def moves(site):
    """{(what, kind): count} over all nodes: grants and returns, and their units."""
    total = {}
    for node in site.nodes:
        for what, labels, count in MOVES.findall(node.control("GET", "/metrics").body.decode()):
            kind = re.search(r'kind="([^"]*)"', labels).group(1)
            total[what, kind] = total.get((what, kind), 0) + int(count)
    return total


def run(site, scenario, delay_ms, options):
    name, rate, burst, weights, stock = scenario
    seconds = 1.5 if options.quick else SECONDS
    for node in site.nodes:
        site.fleet.hub.weather(node.number, ask_ms=delay_ms / 2, answer_ms=delay_ms / 2)
    sale = site.sale(stock=stock, opens_in=OPENS_IN_S if burst else -1)
    before, moved = site.units_elsewhere(), moves(site)
    crowd = sites.Crowd(site, sale, buyers=burst + int(rate * seconds) + 100, seconds=seconds, rate=rate, burst=burst, weights=weights)
    time.sleep(max(0.0, sale.opens_at + 0.005 - time.time()))
    crowd.go()
    seen = sites.crowd_checked(crowd.result())
    stalls = [after - then for after, then in zip(site.units_elsewhere(), before)]
    now = moves(site)
    site.end(sale)
    if seen["orders"] >= stock:
        raise RuntimeError("the total did not last")
    waits = [index / 10 for index, _ in enumerate(seen["orders_per_100_ms"])]
    return {"scenario": name, "delay_ms": delay_ms, "stalls": sum(stalls), "stalls_of": stalls, "buyers": seen["told_to_come_again"], "crowd": seen,
            "lasted_s": waits[-1] if waits else 0, "grants": now.get(("moves", "grant"), 0) - moved.get(("moves", "grant"), 0),
            "returns": now.get(("moves", "return"), 0) - moved.get(("moves", "return"), 0)}


def measure(stack, work_dir, options, say):
    del work_dir
    site = sites.fleet_site(stack, NODES, options)
    rows = []
    for delay_ms in (2,) if options.quick else DELAYS_MS:
        for scenario in scenarios(options):
            say(f"stalls: {scenario[0]}, {delay_ms} ms to Redis")
            rows.append(run(site, scenario, delay_ms, options))
    return {"title": TITLE, "nodes": NODES, "rows": rows, "targets": [
        {"text": f"stalls, {row['scenario']}, {row['delay_ms']} ms to Redis", **lab.judged(lab.spread([row["stalls"]]), at_most=0)}
        for row in rows if row["delay_ms"] <= 2]}


def tables(result):
    return [(f'Stalls for lack of units, {result["nodes"]} nodes (target with 2 ms to Redis: 0)',
             ["sale", "ms to Redis", "orders", "stalls", "buyers told", "by node", "p50 ms", "p99 ms", "grants", "returns"],
             [[row["scenario"], f'{row["delay_ms"]}', f'{row["crowd"]["orders"]:,}', f'{row["stalls"]:,}', f'{row["buyers"]:,}',
               "/".join(map(str, row["stalls_of"])), f'{row["crowd"]["p50_us"] / 1000:.1f}', f'{row["crowd"]["p99_us"] / 1000:.1f}',
               f'{row["grants"]}', f'{row["returns"]}'] for row in result["rows"]])]


def plot(result, plots, out):
    plots["plot_bars"](out / "fleet-stalls.svg", f'{result["title"]}, {result["nodes"]} nodes', "requests told to come again",
                       [(f'{row["scenario"]}, {row["delay_ms"]} ms', row["stalls"], None, None) for row in result["rows"]])
