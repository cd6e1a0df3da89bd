# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Part 4: what an order costs the servers: three nodes beside one with Redis beside one alone, in turns, at the same orders a second.

The servers' side is the run time of the devices' kernel threads (gate, IP, TCP up to the socket), of the daemons and of the writers, as the scheduler
counts it. All nodes share one CPU here, so what is compared is the CPU time of an order. A node costs something at rest as well, which more
nodes pay more often: it is measured by itself, and `beyond rest` is an order without it. Redis is counted beside the servers.
"""
import time

import lab
import sites

TITLE = "What an order costs"
NODES = 3
RATE = 1200      # orders a second at each of the three sites, and a third of it at the one that is alone
OPENED = 96
HIGHEST_MOST = 7000
LASTS_S = 30
SECONDS, ROUNDS = 1.0, 5
REST_S = 3.0
NAMES = ("one node alone", "one node with Redis", "three nodes with Redis")
NS_PER_US = 1000


def steady(site, rate, seconds):
    pace = rate or HIGHEST_MOST
    sale = site.sale(stock=pace * LASTS_S)
    buyers = int(pace * seconds) + 100
    crowd = sites.Crowd(site, sale, buyers=buyers, seconds=seconds, rate=rate, opened=OPENED)
    time.sleep(0.3)  # the tokens are paid for
    account = sites.Account(site)
    account.start()
    crowd.go()
    seen = sites.crowd_checked(crowd.result())
    sites.rest(site, sale)
    spent, redis = account.stop()
    site.end(sale)
    orders = seen["orders"]
    return {"orders": orders, "orders_per_second": orders / seen["seconds"], "seconds": seen["seconds"], "p50_us": seen["p50_us"], "p99_us": seen["p99_us"],
            "stalls": seen["told_to_come_again"], "us": {part: ns / orders / NS_PER_US for part, ns in spent.items()},
            "server_us": sum(spent.values()) / orders / NS_PER_US, "redis_us": redis / orders / NS_PER_US}


def at_rest(site, seconds):
    """ms of CPU a second with an open sale that nobody buys of."""
    sale = site.sale(stock=30000)
    time.sleep(1.0)
    account = sites.Account(site)
    account.start()
    began = time.monotonic()
    time.sleep(seconds)
    spent, redis = account.stop()
    took = time.monotonic() - began
    site.end(sale)
    return {"ms_per_second": {part: ns / took / 1e6 for part, ns in spent.items()}, "server_ms": sum(spent.values()) / took / 1e6,
            "redis_ms": redis / took / 1e6}


def beyond_rest(row, rest):
    """us of an order without what the nodes would have cost anyhow."""
    return row["server_us"] - rest["server_ms"] * 1000 / row["orders_per_second"]


def measure(stack, work_dir, options, say):
    del work_dir
    places = dict(zip(NAMES, (sites.lone_site(stack), sites.fleet_site(stack, 1, options), sites.fleet_site(stack, NODES, options))))
    seconds, rounds = (0.5, 1) if options.quick else (SECONDS, ROUNDS)
    rest = {}
    for name, site in places.items():
        say(f"cost at rest: {name}")
        rest[name] = at_rest(site, 1.0 if options.quick else REST_S)
    plan = [(name, RATE) for name in NAMES]
    if not options.quick:
        plan += [(NAMES[0], RATE // NODES)] + [(name, 0) for name in NAMES]
    seen = {what: [] for what in plan}
    for number in range(rounds):
        for name, rate in plan:
            say(f"cost of an order, round {number + 1} of {rounds}: {name}, {f'{rate:,} orders a second' if rate else 'as many as it can'}")
            seen[name, rate].append(steady(places[name], rate, seconds))
    for (name, _), rows in seen.items():
        for row in rows:
            row["beyond_rest_us"] = beyond_rest(row, rest[name])
    figures = ("orders_per_second", "server_us", "beyond_rest_us", "redis_us", "p99_us")
    ratios = {}
    for rate in sorted({rate for _, rate in plan}):
        for name in NAMES[1:]:
            if (name, rate) in seen:
                ratios[f"{name} / {NAMES[0]}, {f'{rate:,} orders/s' if rate else 'highest'}"] = {
                    figure: lab.paired(seen[name, rate], seen[NAMES[0], rate], figure) for figure in ("server_us", "beyond_rest_us")}
    if (NAMES[0], RATE // NODES) in seen:
        ratios[f"{NAMES[2]} at {RATE:,} / {NAMES[0]} at {RATE // NODES:,}"] = {
            figure: lab.paired(seen[NAMES[2], RATE], seen[NAMES[0], RATE // NODES], figure) for figure in ("server_us", "beyond_rest_us")}
    return {"title": TITLE, "nodes": NODES, "rest": rest, "ratios": ratios, "rows": [
        {"site": name, "rate": rate, "raw": rows, "us": {part: lab.spread([row["us"][part] for row in rows]) for part in sites.PARTS},
         **{figure: lab.spread([row[figure] for row in rows]) for figure in figures}} for (name, rate), rows in seen.items()]}


def span(spread, digits=1):
    return f'{spread["median"]:,.{digits}f} ({spread["min"]:,.{digits}f}..{spread["max"]:,.{digits}f})'


def tables(result):
    first = [[row["site"], f'{row["rate"]:,}' if row["rate"] else "highest", span(row["orders_per_second"], 0), span(row["server_us"]), span(row["beyond_rest_us"]),
              span(row["redis_us"]), f'{row["p99_us"]["median"] / 1000:.1f}'] for row in result["rows"]]
    second = [[row["site"], f'{row["rate"]:,}' if row["rate"] else "highest", *(f'{row["us"][part]["median"]:.1f}' for part in sites.PARTS)] for row in result["rows"]]
    third = [[name, span(ratio["server_us"], 2), span(ratio["beyond_rest_us"], 2)] for name, ratio in result["ratios"].items()]
    fourth = [[name, *(f'{rest["ms_per_second"][part]:.2f}' for part in sites.PARTS), f'{rest["server_ms"]:.2f}', f'{rest["redis_ms"]:.2f}']
              for name, rest in result["rest"].items()]
    return [("What an order costs, us of CPU", ["site", "asked a second", "orders/s", "servers", "beyond rest", "Redis", "p99 ms"], first),
            ("Ratios, round by round", ["", "servers", "beyond rest"], third),
            ("Whose time it is, us an order", ["site", "asked a second", *sites.PARTS], second),
            ("At rest with an open sale, ms of CPU a second", ["site", *sites.PARTS, "servers", "Redis"], fourth)]


def plot(result, plots, out):
    rows = []
    for row in result["rows"]:
        pace = f'{row["rate"]:,}' if row["rate"] else "highest"
        rows.append((f'{row["site"]}, {pace} orders/s', *(row["server_us"][value] for value in ("median", "min", "max"))))
    plots["plot_bars"](out / "fleet-cost.svg", "CPU of the servers an order", "microseconds", rows)
