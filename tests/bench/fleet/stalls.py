# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Part 3: how often a gate has no unit while the fleet has some, with Redis near and far.

A stall is a request for an order that a gate answers with `units_elsewhere` (503, Retry-After: 1), as the gates' own counters have it. Steady: the
crowd comes at one rate from the beginning on, and the total lasts, so each stall is one too many. Opening: a part of the stock is wanted at the very
second of the opening, evenly or all at one node, and then it goes on steadily. Whole: to the last unit; counted apart are the stalls of the time in which more
than LAST of the stock was left, and those of the end, when units are where nobody asks and have to be given back.
"""
import re
import time

import lab
import sites

TITLE = "Stalls for lack of units"
NODES = 3
DELAYS_MS = (2, 20, 100)  # there and back, of each byte between a node and Redis
SECONDS = 3.0
OPENING_STOCK, OPENING_RATE = 9000, 500
WHOLE_STOCK, WHOLE_RATE, LAST = 6000, 1500, 0.05
LASTS_S = 30
OPENS_IN_S = 2.5
TARGET_MS = 2
MOVES = re.compile(r'^sluice_lease_(moves|moved_units)_total\{([^}]*)\} (\d+)', re.MULTILINE)


class Scenario:
    def __init__(self, name, rate, stock, burst=0, weights=None, whole=False):
        self.name, self.rate, self.stock, self.burst, self.weights, self.whole = name, rate, stock, burst, weights, whole


STEADY = Scenario("steady, 1,000/s", 1000, 1000 * LASTS_S)
OPENING = Scenario("opening: 1/9 of the stock at once, evenly", OPENING_RATE, OPENING_STOCK, OPENING_STOCK // 9)
WHOLE = Scenario(f"whole sale of {WHOLE_STOCK:,}, {WHOLE_RATE:,}/s", WHOLE_RATE, WHOLE_STOCK, whole=True)
ALWAYS = (STEADY, OPENING, WHOLE)
AT_TARGET = (Scenario("steady, 500/s", 500, 500 * LASTS_S), *ALWAYS,
             Scenario("opening: 1/3 of the stock at once, evenly", OPENING_RATE, OPENING_STOCK, OPENING_STOCK // 3),
             Scenario("opening: 1/9 at once, all at one node", OPENING_RATE, OPENING_STOCK, OPENING_STOCK // 9, (1, 0, 0)))


def moves(site):
    """{(what, kind): count} over all nodes: grants and returns, and their units."""
    total = {}
    for node in site.nodes:
        for what, labels, count in MOVES.findall(node.control("GET", "/metrics").body.decode()):
            kind = re.search(r'kind="([^"]*)"', labels).group(1)
            total[what, kind] = total.get((what, kind), 0) + int(count)
    return total


def stalls_at_end(seen, stock):
    """As the buyers heard them: after the moment when no more than LAST of the stock was left."""
    sold = 0
    for index, orders in enumerate(seen["orders_per_100_ms"]):
        sold += orders
        if sold >= stock * (1 - LAST):
            return sum(seen["again_per_100_ms"][index + 1:])
    return 0


def run(site, scenario, delay_ms, options):
    seconds = 1.0 if options.quick else scenario.stock / scenario.rate + 2 if scenario.whole else SECONDS
    for node in site.nodes:
        site.fleet.hub.weather(node.number, ask_ms=delay_ms / 2, answer_ms=delay_ms / 2)
    sale = site.sale(stock=scenario.stock, opens_in=OPENS_IN_S if scenario.burst else -1)
    before, moved = site.units_elsewhere(), moves(site)
    buyers = scenario.stock if scenario.whole else scenario.burst + int(scenario.rate * seconds) + 100
    crowd = sites.Crowd(site, sale, buyers=buyers, seconds=seconds, rate=scenario.rate, burst=scenario.burst, weights=scenario.weights)
    time.sleep(max(0.0, sale.opens_at + 0.005 - time.time()))
    crowd.go()
    seen = sites.crowd_checked(crowd.result())
    stalls = [after - then for after, then in zip(site.units_elsewhere(), before)]
    now = moves(site)
    site.end(sale)
    if not scenario.whole and seen["orders"] >= scenario.stock:
        raise RuntimeError("the total did not last")
    at_end = stalls_at_end(seen, scenario.stock)
    return {"scenario": scenario.name, "delay_ms": delay_ms, "stalls": sum(stalls) - at_end, "stalls_at_end": at_end, "stalls_of": stalls,
            "buyers": seen["told_to_come_again"], "crowd": seen, "grants": now.get(("moves", "grant"), 0) - moved.get(("moves", "grant"), 0),
            "returns": now.get(("moves", "return"), 0) - moved.get(("moves", "return"), 0)}


def measure(stack, work_dir, options, say):
    del work_dir
    site = sites.fleet_site(stack, NODES, options)
    rows = []
    for delay_ms in (TARGET_MS,) if options.quick else DELAYS_MS:
        for scenario in (STEADY,) if options.quick else AT_TARGET if delay_ms == TARGET_MS else ALWAYS:
            say(f"stalls: {scenario.name}, {delay_ms} ms to Redis")
            rows.append(run(site, scenario, delay_ms, options))
    for node in site.nodes:
        site.fleet.hub.weather(node.number)
    return {"title": TITLE, "nodes": NODES, "rows": rows, "targets": [
        {"text": f"stalls, {row['scenario']}, {row['delay_ms']} ms to Redis", **lab.judged(lab.spread([row["stalls"]]), at_most=0)}
        for row in rows if row["delay_ms"] == TARGET_MS]}


def tables(result):
    return [(f'Stalls for lack of units, {result["nodes"]} nodes (target with 2 ms to Redis: 0)',
             ["sale", "ms to Redis", "orders", "stalls", f"in the last {LAST:.0%}", "buyers told", "by node", "p50 ms", "p99 ms", "grants", "returns"],
             [[row["scenario"], f'{row["delay_ms"]}', f'{row["crowd"]["orders"]:,}', f'{row["stalls"]:,}', f'{row["stalls_at_end"]:,}', f'{row["buyers"]:,}',
               "/".join(map(str, row["stalls_of"])), f'{row["crowd"]["p50_us"] / 1000:.1f}', f'{row["crowd"]["p99_us"] / 1000:.1f}',
               f'{row["grants"]}', f'{row["returns"]}'] for row in result["rows"]])]


def plot(result, plots, out):
    plots["plot_bars"](out / "fleet-stalls.svg", f'{result["title"]}, {result["nodes"]} nodes', "requests told to come again",
                       [(f'{row["scenario"]}, {row["delay_ms"]} ms', row["stalls"] + row["stalls_at_end"], None, None) for row in result["rows"]])
