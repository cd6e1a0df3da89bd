# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Part 2: what three nodes ask of Redis, by kind of call, at rest, in a steady sale at several rates, and in a whole sale to its last unit.

Counted by MONITOR: a call is a script or a command that a node has sent; what a script calls inside is none. The stock of a steady sale would last
for LASTS_S at that rate, as it would in a sale that is not over in a moment.
"""
import time

import lab
import sites

TITLE = "Calls to Redis"
NODES = 3
RATES, QUICK_RATES = (250, 500, 1000), (500,)
OPENED = 64           # "the highest": so many buyers at a time, each as soon as the one before was served
HIGHEST_MOST = 5000   # orders a second of which that will be less
LASTS_S = 60
LEAD_S, WINDOW_S, WINDOWS = 1.0, 6.0, 3  # seconds before the first window, of each, and how many; of the highest rate one
WHOLE = (6000, 1000)  # units, orders a second
TARGET = 5


def windows(monitor, seen, sale, seconds):
    """A row for each window: orders, calls by name."""
    rows = []
    for number in range(int((seconds - LEAD_S) / WINDOW_S)):
        begin = LEAD_S + number * WINDOW_S
        counts, others = monitor.between(seen["began_at"] + begin, seen["began_at"] + begin + WINDOW_S, sale)
        orders = sites.orders_between(seen, begin, begin + WINDOW_S)
        rows.append({"orders": orders, "calls": counts, "of_other_sales": others,
                     "published": monitor.published_between(seen["began_at"] + begin, seen["began_at"] + begin + WINDOW_S)})
    return rows


def summed(rows, seconds):
    """One row of windows: per 1,000 orders and per second."""
    names = sorted({name for row in rows for name in row["calls"]})
    total, orders = sum(sum(row["calls"].values()) for row in rows), sum(row["orders"] for row in rows)
    return {"orders_per_second": orders / seconds, "calls_per_second": total / seconds,
            "calls_of_a_second": {name: sum(row["calls"].get(name, 0) for row in rows) / seconds for name in names},
            "published_per_second": sum(row["published"] for row in rows) / seconds,
            "per_1000": lab.spread([1000 * sum(row["calls"].values()) / row["orders"] for row in rows]) if orders else None,
            "per_1000_of": {name: 1000 * sum(row["calls"].get(name, 0) for row in rows) / orders for name in names} if orders else None}


def steady(site, rate, before, options):
    seconds = LEAD_S + WINDOW_S * (WINDOWS if rate and not options.quick else 1)
    pace = rate or HIGHEST_MOST
    sale = site.sale(stock=pace * LASTS_S)
    crowd = sites.Crowd(site, sale, buyers=int(pace * seconds) + 100, seconds=seconds, rate=rate, opened=OPENED, before=before)
    with sites.Monitor(site) as monitor:
        crowd.go()
        seen = sites.crowd_checked(crowd.result())
        time.sleep(0.1)
    site.end(sale)
    return {"rate": rate, "tokens": "before" if before else "during", "crowd": seen, **summed(windows(monitor, seen, sale, seconds), seconds - LEAD_S)}


def at_rest(site, options):
    """An open sale that nobody buys of, after its first leases."""
    sale = site.sale(stock=30000)
    time.sleep(1.5)
    seconds = 1.0 if options.quick else 6.0
    with sites.Monitor(site) as monitor:
        began = time.time()
        time.sleep(seconds)
        time.sleep(0.1)
    counts, _ = monitor.between(began, began + seconds, sale)
    site.end(sale)
    return {"rate": 0, "tokens": "-", **summed([{"orders": 0, "calls": counts, "published": monitor.published_between(began, began + seconds)}], seconds)}


def whole(site, options):
    """From the first order to the last unit; the crowd has more buyers than there are units."""
    units, rate = (600, 1000) if options.quick else WHOLE
    sale = site.sale(stock=units)
    crowd = sites.Crowd(site, sale, buyers=units + units // 20, seconds=units / rate + 3, rate=rate)
    with sites.Monitor(site) as monitor:
        crowd.go()
        seen = crowd.result()
        time.sleep(0.1)
    if seen["orders"] != units:
        raise RuntimeError(f"{seen['orders']} of {units} units were sold: {seen}")
    end = seen["began_at"] + seen["seconds"]
    counts, _ = monitor.between(seen["began_at"], end, sale)
    row = summed([{"orders": units, "calls": counts, "published": monitor.published_between(seen["began_at"], end)}], seen["seconds"])
    return {"rate": rate, "tokens": "before", "crowd": seen, "units": units, "seconds": seen["seconds"], **row}


def measure(stack, work_dir, options, say):
    del work_dir
    site = sites.fleet_site(stack, NODES, options)
    say("calls at rest")
    result = {"title": TITLE, "nodes": NODES, "rest": at_rest(site, options), "steady": []}
    for rate in QUICK_RATES if options.quick else (*RATES, 0):
        for before in (True,) if options.quick else (True, False):
            say(f"calls at {rate or 'the highest rate of'} orders a second, tokens {'before' if before else 'meanwhile'}")
            result["steady"].append(steady(site, rate, before, options))
    say("calls of a whole sale")
    result["whole"] = whole(site, options)
    result["targets"] = [{"text": f"calls to Redis per 1,000 orders, {row['orders_per_second']:,.0f} orders a second, tokens {row['tokens']}",
                          **lab.judged(row["per_1000"], at_most=TARGET)} for row in result["steady"]]
    return result


def tables(result):
    rows = [("at rest", result["rest"])] + [("", row) for row in result["steady"]] + [("whole sale", result["whole"])]
    names = sorted({name for _, row in rows for name in row["calls_of_a_second"]},
                   key=lambda name: -sum(row["calls_of_a_second"].get(name, 0) for _, row in rows))
    first, second = [], []
    for label, row in rows:
        label = label or (f'{row["rate"]:,} orders/s' if row["rate"] else f'highest ({row["orders_per_second"]:,.0f} orders/s)')
        spread = row["per_1000"]
        first.append([label, row["tokens"], f'{row["orders_per_second"]:,.0f}', f'{row["calls_per_second"]:.1f}', f'{spread["median"]:.1f}' if spread else "-",
                      f'{spread["min"]:.1f}..{spread["max"]:.1f}' if spread else "-", f'{row["published_per_second"]:.1f}',
                      f'{row["crowd"]["behind_ms"]:.0f}' if "crowd" in row and row["rate"] else "-"])
        second.append([label, row["tokens"], *(f'{row["calls_of_a_second"].get(name, 0):.1f}' for name in names)])
    return [(f'Calls to Redis of {result["nodes"]} nodes (target: {TARGET} per 1,000 orders)',
             ["sale", "tokens", "orders/s", "calls/s", "per 1,000 orders", "min..max", "messages/s", "crowd behind by ms"], first),
            ("The same by kind, calls a second", ["sale", "tokens", *names], second)]


def plot(result, plots, out):
    plots["plot_bars"](out / "fleet-calls.svg", f'Calls to Redis per 1,000 orders, {result["nodes"]} nodes', "calls",
                       [(f'{row["orders_per_second"]:,.0f} orders/s, tokens {row["tokens"]}', *(row["per_1000"][value] for value in ("median", "min", "max")))
                        for row in result["steady"]])
