# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Part 5: as many sales as there can be, on three nodes: what they ask of Redis while nobody buys, when all is sold, and when all are over; and how long
news of one of them are on their way.

Every sale is small, so that each node holds some units and some are free, as between the waves of a sale. They are sold by one order for everything, at
one node in turn: what the two others hold has to be given back first.
"""
import concurrent.futures
import re
import time

import lab
import sites
from netns import wait_until

TITLE = "Many sales"
NODES = 3
SALES, QUICK_SALES = 1024, 48
STOCK = 12            # units of each
PROBES = 5            # times that the way of a change is measured
WINDOW_S = 20.0       # of each state: as long as the longest that a node lets pass between two calls
REST_S = 6.0          # before it: what the change to that state has set going is done
HANDS = 12            # sales that are sold or ended at a time
PAUSE_S = 0.002       # between two looks whether something has come
AGAIN_S = 0.05        # a buyer who was told to come again
ROUNDS = re.compile(r"^sluice_redis_round_seconds_(sum|count) (\S+)", re.MULTILINE)


def at_once(work, items):
    """What `work` returns of each item, HANDS at a time."""
    with concurrent.futures.ThreadPoolExecutor(HANDS) as hands:
        return list(hands.map(work, items))


def until(condition, what):
    """Milliseconds until it is so."""
    began = time.monotonic()
    wait_until(condition, what, timeout=30, pause=PAUSE_S)
    return 1000 * (time.monotonic() - began)


def rounds(site):
    """By node: (seconds, count) of the rounds of calls to Redis so far."""
    return [tuple(float(dict(ROUNDS.findall(node.control("GET", "/metrics").body.decode()))[name]) for name in ("sum", "count")) for node in site.nodes]


# --- the way of a change ----------------------------------------------------------------------------------------------------
def made(site):
    """A sale that is made at one node can be asked for at the two others after so many ms."""
    sale = site.nodes[0].sale(stock=STOCK, slug=f"probe-{site.slugs}", per_buyer=2 * STOCK)
    site.slugs += 1
    return sale, max(until(lambda node=node: node.control("GET", sale.path).status == 200, "a sale that was made is known") for node in site.nodes[1:])


def moved(site, sale):
    """So many ms after one node has added a unit, the others know of it."""
    total = sale.move(1)["fleet"]["total"]
    return max(until(lambda node=node: node.ask("GET", f"{sale.path}/stock")["fleet"]["total"] == total, "a unit that was added is known")
               for node in site.nodes[1:])


def sold(site, sale, number):
    """All its units, by one order at one node: so many ms after the first request. The units have to come from the others, which rest."""
    node = site.nodes[number % NODES]
    units = sale.books()["fleet"]["total"]
    token = node.ask("POST", f"{sale.path}/tokens", {"buyer": f"{sale.slug}-buyer", "quantity": units})["token"]

    def is_sold():
        answer = node.order(token)
        if answer.status not in (200, 201, 503):
            raise RuntimeError(f"{sale.slug}: {answer}")
        return answer.status != 503
    began = time.monotonic()
    wait_until(is_sold, f"{sale.slug} is sold", timeout=60, pause=AGAIN_S)
    return 1000 * (time.monotonic() - began)


# --- states -----------------------------------------------------------------------------------------------------------------
def window(site, state, options):
    """What a state costs a second."""
    time.sleep(1.0 if options.quick else REST_S)
    seconds = 2.0 if options.quick else WINDOW_S
    account, before = sites.Account(site), rounds(site)
    with sites.Monitor(site) as monitor:
        account.start()
        began = time.time()
        time.sleep(seconds)
        spent, redis = account.stop()
        ended = time.time()
    took = [(after[0] - then[0], after[1] - then[1]) for after, then in zip(rounds(site), before)]
    counts = monitor.all_between(began, ended)
    return {"state": state, "calls_of_a_second": {name: count / (ended - began) for name, count in counts.items()},
            "calls_per_second": sum(counts.values()) / (ended - began), "redis_ms": redis / 1e6 / (ended - began),
            "node_ms": {part: ns / 1e6 / (ended - began) / NODES for part, ns in spent.items()},
            "round_ms": 1000 * sum(one[0] for one in took) / max(1.0, sum(one[1] for one in took)),
            "most_in_100_ms": monitor.most_between(began, ended, 0.1)}


def measure(stack, work_dir, options, say):
    del work_dir
    site = sites.fleet_site(stack, NODES, options)
    count = QUICK_SALES if options.quick else SALES
    probes = 1 if options.quick else PROBES
    say(f"{count} sales are made")
    there = site.nodes[0].status()["sales"]
    began = time.monotonic()
    sales = at_once(lambda number: site.nodes[0].sale(stock=STOCK, slug=f"many-{number}", per_buyer=2 * STOCK), range(count - probes))
    making = time.monotonic() - began
    for node in site.nodes:
        wait_until(lambda node=node: node.status()["sales"] == there + len(sales), "all sales are known", timeout=60)
    time.sleep(REST_S)
    pairs = [made(site) for _ in range(probes)]
    sales += [sale for sale, _ in pairs]
    result = {"title": TITLE, "nodes": NODES, "sales": count, "stock": STOCK, "making_s": making,
              "made_ms": lab.spread([ms for _, ms in pairs]), "states": []}
    say("calls while nobody buys")
    result["states"].append(window(site, "open, nobody buys", options))
    result["moved_ms"] = lab.spread([moved(site, sale) for sale in sales[:probes]])
    say("calls when all are sold out")
    result["one_sold_ms"] = lab.spread([sold(site, sale, number) for number, sale in enumerate(sales[:probes])])
    began = time.monotonic()
    result["sold_ms"] = lab.spread(at_once(lambda numbered: sold(site, numbered[1], numbered[0]), list(enumerate(sales))[probes:]))
    result["selling_s"] = time.monotonic() - began
    result["states"].append(window(site, "sold out", options))
    say("calls when all are over")
    at_once(site.end, sales)
    result["states"].append(window(site, "over", options))
    return result


def tables(result):
    names = sorted({name for row in result["states"] for name in row["calls_of_a_second"]},
                   key=lambda name: -sum(row["calls_of_a_second"].get(name, 0) for row in result["states"]))

    def ms(spread):
        return [f'{spread["median"]:,.0f}', f'{spread["min"]:,.0f}..{spread["max"]:,.0f}']
    return [
        (f'{result["sales"]:,} sales on {result["nodes"]} nodes',
         ["all sales are", "calls/s of the fleet", *names, "most calls in 100 ms", "a round, ms", "Redis, ms of CPU a second", "fleet's thread of a node", "all of a node"],
         [[row["state"], f'{row["calls_per_second"]:.0f}', *(f'{row["calls_of_a_second"].get(name, 0):.1f}' for name in names), f'{row["most_in_100_ms"]}',
           f'{row["round_ms"]:.2f}', f'{row["redis_ms"]:.1f}', f'{row["node_ms"]["fleet"]:.1f}', f'{sum(row["node_ms"].values()):.1f}'] for row in result["states"]]),
        ("The way of a change among so many sales",
         ["what", "ms", "min..max"],
         [["a sale is made at one node: known to the others", *ms(result["made_ms"])],
          ["a unit is added at one node: known to the others", *ms(result["moved_ms"])],
          [f'all {result["stock"]} units are ordered at one node, most of them lie at the others: sold', *ms(result["one_sold_ms"])],
          [f"the same, {HANDS} sales at a time", *ms(result["sold_ms"])],
          [f"a sale is made and in a ledger, {HANDS} at a time: each", f'{1000 * result["making_s"] / (result["sales"] - len(result["made_ms"]["rounds"])):.0f}', ""]])]


def plot(result, plots, out):
    plots["plot_bars"](out / "fleet-sales.svg", f'{result["sales"]:,} sales on {result["nodes"]} nodes', "calls to Redis a second",
                       [(row["state"], row["calls_per_second"], None, None) for row in result["states"]])
