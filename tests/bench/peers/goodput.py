# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Comparison 4: what is left for the buyers while others flood the shop, with the gate and without it.

200 buyers a second order at a steady rate over kernel sockets, first alone, then beside a flood that the clients' CPU sends as densely as it can.
The buyers' process has real-time priority there, and next to it the receive work of the clients' interface, so that what buyers wait for is the
server and no frame of theirs is lost on their own side. Without the gate the same
daemon serves from the kernel's own TCP (its SYN cookies at the kernel's default) and judges through its call door; the gate hangs on an
idle interface then, as the daemon needs its maps.

One CPU is the server's for everything: receive work, daemon, order writer. They have the priorities of an installed system: the kernel's for a receive thread
(nice 0), the units' for daemon and writer (-10, and SCHED_RR for the threads that an order waits for). The other comparisons put receive work first (lab.py), which
is nothing to who waits for nobody; here it is the question. So one shop more shows what is left where the right to SCHED_RR is not given (LimitRTPRIO=0): the gate
with the nice values alone. The limits are those of the default config.

veth's receive ring has 256 places, and what finds it full is lost before any program sees it, a buyer's frame like the flood's. All that the
generator gives, in bursts, is far more than the ring takes: half of it is lost, whoever stands behind. So SYNs also come paced, at the highest rate of which
the ring loses next to nothing; there the server decides how long a buyer waits. The crowds of forged tokens and of honest retries hold fewer conversations
open than the ring has places: the next begins as soon as the server has answered one, so it is the server that decides on their rate, and nobody's frame is lost.

A flood that was none would make every shop look good. So each generator's own account is read: it must have ended well, lasted as long as it should,
and brought at least FLOOR; anything else fails the comparison.

What is the machine's part in that wait, a third shop shows: no gate, and a program on its interface (strangers.bpf.c) that drops the spoofed SYNs for a
reason that no gate can have, that it was told where the buyers live. And a fourth what the gate does with a limit on strangers' SYNs (limits.syn_global): a source
that was proved real before does not stand behind it. The buyers were: each has ordered in the calm before.
"""
import json
import os
import random
import re
import time

from lab import (PORT, SERVER, TOOLS, Link, Meter, cpu, frame_clients, go_real_time, judged, on_cpu, paired, pin, run, signed_targets, spread, wait_until,
                 world)

TITLE = "Buyers under a flood"
ROUNDS = 5
# Of the shop with the gate, where p99 hangs on the scheduler's mood and on nothing that is lost: one round of 600 orders has it of six orders.
STEADY_ROUNDS = 14
RATE, BUYERS, PATIENCE_MS = 200, 200, 5000
BUYERS_FROM = "10.72.200.1"
CALM_S = 1.0
CLIENT_NAPI_PRIORITY = 4  # above buyers.c, which has 3: or the answers to the flood fill the ring that the buyers' answers come by
HEAD_START_S = 0.4  # of the flood
OUTLASTS_S = 0.5  # the flood the last order asked
SPOOFED = 65536
OPEN = 64  # conversations of the crowd at a time; all of their frames fit into veth's ring together, see above
STUCK_MS = 10  # what a shop without the gate leaves unanswered makes room for the next; or the crowd would wait for it, and the flood be over
SEED = 20261122
PACED, DENSE = "spoofed SYNs, paced", "spoofed SYNs, dense"
FLOODS = ("alone", PACED, DENSE, "forged tokens", "honest retries")
NAPI_NICE = 0  # of a NAPI thread, as the kernel makes it; that of the services is the units' (lab.SERVER_NICE, scripts/systemd)
CROWDS = {"forged tokens": "forged", "honest retries": "late"}  # floods of whole conversations, and the file of their targets
STEADY = ("alone", *CROWDS)
GATED, NICE, DROPPED, LIMITED, BARE = ("with the gate", "with the gate, nice values alone", "bare drop",
                                            "with the gate, SYNs of strangers limited", "without")
# A second: conversations of a crowd, else frames that came in. Without a gate the server is the slower, and a stalled crowd has a thousand.
FLOOR = {GATED: 20_000, NICE: 20_000, LIMITED: 20_000, DROPPED: 20_000, BARE: 5_000}
MEETS = {GATED: FLOODS, NICE: ("alone", *CROWDS), LIMITED: ("alone", PACED, DENSE), DROPPED: ("alone", PACED, DENSE), BARE: FLOODS}
SYN_LIMIT = {"rate": 50_000, "burst": 5_000}  # limits.syn_global of LIMITED: what an operator sets in such a flood; buyers are known by then
PACES = (1_000_000, 700_000, 500_000, 350_000, 250_000, 175_000, 125_000)  # asked of the generator; what comes is less
LOST_AT_MOST = 0.002  # of the frames, by the ring, in each of TRIALS; the rounds that count must not stand on the line
TRIALS = 3
ROOM = {"gate.max_admissions": 262144, "gate.max_sources": 262144}


def spoofed_addresses():
    """Public addresses all over the place; the shop has a route back for none of them but its default."""
    rng = random.Random(SEED)
    return "".join(f"{rng.randrange(11, 126)}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}\n" for _ in range(SPOOFED))


class Shop:
    """A shop whose veth pair is threaded: with the gate in it, with a program that drops all but the buyers, or with nothing."""

    def __init__(self, stack, work_dir, name):
        gated = name in (GATED, NICE, LIMITED)
        self.name = name
        self.dir = work_dir / name.replace(",", "").replace(" ", "-")
        self.dir.mkdir()
        self.site = stack.enter_context(world.World(settings=ROOM, mode="native" if gated else "generic", start=("writer",)))
        site = self.site
        if gated:
            site.attach()
        else:
            site.shop.run(["ip", "link", "add", "idle", "type", "veth", "peer", "name", "idle-peer"])
            site.shop.run(["ip", "link", "set", "idle", "up"])
            site.sluice("attach", "idle", "--mode", "generic", "--config", site.config)
            site.shop.sysctl("net.ipv4.tcp_syncookies", 1)
            site.shop.sysctl("net.ipv4.tcp_max_syn_backlog", 8192)
            site.shop.sysctl("net.core.somaxconn", 8192)
        site.start_daemon()
        if name == LIMITED:
            site.ask("PATCH", "/v1/limits", {"syn_global": SYN_LIMIT})
        site.shop.run(["ip", "route", "add", "default", "via", world.CROWD["ipv4"]])
        site.link = Link(site.crowd, site.shop)
        if name == DROPPED:
            site.shop.run(["ip", "link", "set", "dev", site.link.device, "xdpdrv", "obj", TOOLS / "strangers.bpf.o", "sec", "xdp"])
        for thread in site.link.client_napi:
            os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(CLIENT_NAPI_PRIORITY))
        for process in (site.daemon, site.writer):
            pin(process.pid, cpu.server)
            if name != NICE:
                go_real_time(process.pid)
        for thread in site.link.napi:
            os.setpriority(os.PRIO_PROCESS, thread, NAPI_NICE)
        self.sale = site.sale(stock=1_000_000)
        self.soldout = site.sale(stock=0)
        self.meter = Meter(site.link.napi, (site.daemon.pid, site.writer.pid))
        self.rounds = {flood: [] for flood in MEETS[name]}
        self.used, self.pace = 0, None
        with open(self.dir / "forged", "w", encoding="ascii") as file, open(self.dir / "late", "w", encoding="ascii") as late:
            for line in open(signed_targets(site, self.soldout, 4096, self.dir / "all"), encoding="ascii"):
                late.write(line)
                file.write(line.rstrip()[:-1] + ("A" if line.rstrip()[-1] != "A" else "B") + "\n")

    def flood(self, kind, seconds):
        """Starts it; returns the process."""
        link = self.site.link
        if kind in (PACED, DENSE):
            argv = ["sh", "-c", 'addresses=$1; shift; exec "$@" <"$addresses"', "flood", self.dir.parent / "spoofed", TOOLS / "flood",
                    TOOLS / "flood.bpf.o", link.device, link.mac, SERVER, PORT, seconds, *([self.pace] if kind == PACED else [])]
        else:
            argv = frame_clients(link, self.dir / CROWDS[kind], OPEN, seconds, 0, "--fire", "--stuck-ms", STUCK_MS)
        log = self.dir / "flood.log"
        log.unlink(missing_ok=True)
        return self.site.crowd.start(on_cpu(cpu.clients, argv), log)

    def account_of(self, flood, kind, seconds):
        """What the generator says of itself, once it is over. Raises if it was not the flood that it should be."""
        code = flood.popen.wait(30)
        try:
            account = json.loads(flood.log())
        except ValueError:
            account = {}
        if code or account.get("seconds", 0) < seconds:
            raise RuntimeError(f"{kind}, {self.name}: the generator ended with {code} before its {seconds:.1f} s were over: {flood.log().strip()}")
        return account

    def check_rate(self, kind, seen):
        what = "conversations_per_second" if kind in CROWDS else "received_per_second"
        if seen[what] < FLOOR[self.name]:
            raise RuntimeError(f"{kind}, {self.name}: no flood: {seen[what]:.0f} {what}, at least {FLOOR[self.name]} are needed: {seen}")

    def measure(self, kind, seconds):
        site, flood, account = self.site, None, {}
        flood_s = round(seconds + HEAD_START_S + OUTLASTS_S, 3)
        count = int(RATE * seconds) + 16
        with open(self.dir / "tokens", "w", encoding="ascii") as file:
            run([TOOLS / "prepare", "tokens", site.state_dir / "keys", self.sale.id, self.used + count], stdout=file)
        lines = open(self.dir / "tokens", encoding="ascii").readlines()[self.used:]
        self.used += count
        (self.dir / "tokens").write_text("".join(lines), encoding="ascii")
        before, lost_before = self.received()
        if kind != "alone":
            flood = self.flood(kind, flood_s)
            time.sleep(HEAD_START_S)
        self.meter.start()
        began = time.monotonic()
        done = site.crowd.run(on_cpu(cpu.clients, [TOOLS / "buyers", "--to", f"{SERVER}:{PORT}", "--from", BUYERS_FROM, "--sources", BUYERS,
                                                   "--targets", self.dir / "tokens", "--rate", RATE, "--seconds", seconds,
                                                   "--patience-ms", PATIENCE_MS]))
        spent, lasted = self.meter.stop(), time.monotonic() - began
        if flood:
            account = self.account_of(flood, kind, flood_s)
        received, lost = self.received()
        received, lost = received - before, lost - lost_before
        seen = {**json.loads(done.stdout), "flood": account, "conversations_per_second": account.get("asked", 0) / flood_s,
                "received_per_second": received / flood_s, "lost": lost / (received + lost),
                **{f"{part}_cpu_share": spent[f"{part}_ns"] / lasted / 1e9 for part in ("server", "softirq", "process")}}
        seen["success"] = seen["good"] / seen["asked"]
        if flood:
            self.check_rate(kind, seen)
        self.rounds[kind].append(seen)
        self.settle()

    def received(self):
        """Frames so far: that came, and that a generator sent and the ring had no room for."""
        link, site = self.site.link, self.site
        stats = json.loads(site.shop.run(["ip", "-s", "-j", "link", "show", "dev", link.device]).stdout)[0]["stats64"]
        found = re.search(r"tx_queue_0_xdp_xmit_errors: (\d+)", site.crowd.run(["ethtool", "-S", link.device]).stdout)
        return stats["rx"]["packets"], int(found.group(1)) if found else 0

    def find_pace(self, seconds):
        """The highest of PACES at which the ring keeps up."""
        for self.pace in PACES:
            for _ in range(TRIALS):
                self.measure(PACED, seconds)
            if max(seen["lost"] for seen in self.rounds[PACED]) <= LOST_AT_MOST:
                break
            self.rounds[PACED].clear()
        self.rounds[PACED].clear()

    def settle(self):
        """What one flood left behind is none of the next one's business."""
        wait_until(lambda: self.site.is_ready(), "the daemon is ready again", timeout=30)
        time.sleep(CALM_S)


def compare(stack, work_dir, seconds, say, versions):
    del versions
    seconds = max(seconds * 3, 2)
    (work_dir / "spoofed").write_text(spoofed_addresses(), encoding="ascii")
    shops = [Shop(stack, work_dir, name) for name in MEETS]
    for shop in shops:
        shop.measure("alone", 1)
        shop.rounds["alone"].clear()
    shops[0].find_pace(seconds)
    for shop in shops:
        shop.pace = shops[0].pace
    for number in range(STEADY_ROUNDS):
        kinds = FLOODS if number < ROUNDS else STEADY
        for kind in kinds if number % 2 == 0 else reversed(kinds):
            say(f"goodput, {kind}, round {number + 1} of {STEADY_ROUNDS if kind in STEADY else ROUNDS}")
            for shop in shops if number < ROUNDS else shops[:1]:
                if kind in shop.rounds:
                    shop.measure(kind, seconds)
    rows = [row_of(shop, kind) for kind in FLOODS for shop in shops if kind in shop.rounds]
    calm = next(row for row in rows if row["flood"] == "alone" and row["shop"] == shops[0].name)
    targets = []
    for row in rows:
        if row["shop"] == shops[0].name and row["flood"] != "alone":
            targets.append({"text": f'buyers\' success, {row["flood"]}', **judged(row["success"], at_least=0.99)})
            targets.append({"text": f'buyers\' p99, {row["flood"]} / alone', **judged(paired(row["raw"], calm["raw"], "p99_us"), at_most=2)})
    return {"title": TITLE, "rows": rows, "buyers": BUYERS, "orders_per_second": RATE, "seconds": seconds, "skipped": [], "targets": targets}


def row_of(shop, kind):
    figures = ("success", "p50_us", "p99_us", "max_us", "once_p99_us", "syn_again", "conversations_per_second", "received_per_second", "lost",
               "server_cpu_share", "softirq_cpu_share", "process_cpu_share")
    return {"shop": shop.name, "flood": kind, "raw": shop.rounds[kind],
            **{figure: spread([seen[figure] for seen in shop.rounds[kind]]) for figure in figures}}


def show(result, table, plots, out):
    head = ["", "shop", "success", "min", "p50 ms", "p99 ms", "min..max", "SYNs again", "p99 ms of the others", "conversations/s", "frames/s", "lost",
            "server CPU", "softirq", "processes"]
    rows = []
    for row in result["rows"]:
        p99 = row["p99_us"]
        rows.append([row["flood"], row["shop"], f'{row["success"]["median"] * 100:.1f} %', f'{row["success"]["min"] * 100:.1f} %',
                     f'{row["p50_us"]["median"] / 1000:.2f}', f'{p99["median"] / 1000:.2f}', f'{p99["min"] / 1000:.2f}..{p99["max"] / 1000:.2f}',
                     f'{row["syn_again"]["median"]:.0f} of {row["raw"][0]["asked"]}', f'{row["once_p99_us"]["median"] / 1000:.2f}',
                     f'{row["conversations_per_second"]["median"]:.0f}' if row["flood"] in CROWDS else "",
                     f'{row["received_per_second"]["median"]:.0f}', f'{row["lost"]["median"] * 100:.1f} %',
                     *(f'{row[f"{part}_cpu_share"]["median"] * 100:.0f} %' for part in ("server", "softirq", "process"))])
    table(f'{result["title"]}: {result["orders_per_second"]} orders a second by {result["buyers"]} buyers', head, rows)
    # An order that got no answer has no time: what became of all of them stands beside the name. No order at all: nothing to draw.
    plots["plot_bars"](out / "peers-goodput.svg", f'{result["title"]}: p99 of an order, and how many succeeded', "ms",
                       [(f'{row["flood"]}, {row["shop"]}, {row["success"]["median"] * 100:.4g} %',
                         *(row["p99_us"][figure] / 1000 for figure in ("median", "min", "max")))
                        for row in result["rows"] if row["p99_us"]["min"] > 0], log=True)
