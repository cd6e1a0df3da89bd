# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Comparison 2: what it costs to drop a packet from a source on a deny list of 1, 10,000, 100,000 and 1,000,000 addresses.

The same flood of SYNs to the protected port (flood.c) meets Sluice's gate, xdp-filter, nftables (prerouting at raw priority, and the
netdev ingress hook), and a program that drops everything, which is the floor. Every entry is a single IPv4 address, because
xdp-filter knows nothing else.
"""
import json
import random
import re
from statistics import median

from lab import (PORT, SERVER, TOOLS, Meter, Site, Skipped, bpf_stats, cpu, judged, need, on_cpu, paired, program_runs, run, sluice_site, spread,
                 version_of, wait_until, world, xdp_program_of)

TITLE = "A packet from a denied source"
SIZES = (1, 10_000, 100_000, 1_000_000)
FILTER_MAX = 10_000  # entries of xdp-filter's map
SOURCES = (1, 1024, 65_536)
WIDE = SOURCES[-1]
# Of each source of a list entry, the gate looks up the first packets in the list, then it may remember the source (SLUICE_LIST_EXACT_HITS).
FIRST_PACKETS = 64
SETTLED_PACKETS = 80
FIRST = "Sluice, first packets"
ROUNDS = 5
SECONDS_SHARE = 0.4  # of a round's length: a flood needs no longer
STATS_S = 0.2
SEED = 20261122
MOST_OF_FILTER = 1.3
LEAST_OF_NFTABLES = 3
FLAT = 1.5  # the dearest list may cost this many times the cheapest

NFT = {
    "nftables, ingress": """table netdev sluice {{
	set denied {{ type ipv4_addr; size {size}; }}
	chain first {{ type filter hook ingress device {device} priority 0; policy accept; ip saddr @denied drop; }}
}}
""",
    "nftables, raw": """table ip sluice {{
	set denied {{ type ipv4_addr; size {size}; }}
	chain first {{ type filter hook prerouting priority raw; policy accept; ip saddr @denied drop; }}
}}
""",
}
NFT_TABLE = {"nftables, ingress": "netdev", "nftables, raw": "ip"}


def addresses(count):
    """Public unicast addresses, each once. The first is the same for every count."""
    rng, found = random.Random(SEED), {}
    while len(found) < count:
        number = rng.getrandbits(32)
        top = number >> 24
        if 0 < top < 224 and top not in (10, 127):
            found[number] = None
    return [f"{n >> 24}.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in found]


class Filter:
    """Somebody who drops: on which link, with how many entries."""

    def __init__(self, name, size, link, xdp):
        self.name, self.size, self.link, self.xdp = name, size, link, xdp
        self.meter = Meter(link.napi)
        self.rounds = {}
        self.first = []  # rounds of the widest flood in which no source was remembered yet

    def counters(self):
        text = self.link.shop.run(["ethtool", "-S", self.link.device]).stdout
        packets, drops = (sum(int(n) for n in re.findall(rf"rx_queue_\d+_{what}: (\d+)", text)) for what in ("xdp_packets", "xdp_drops"))
        tcp = [line.split() for line in self.link.shop.read("/proc/net/snmp").splitlines() if line.startswith("Tcp:")]
        return packets, drops, int(tcp[1][tcp[0].index("InSegs")])

    def flood(self, sources, seconds):
        before = self.counters()
        self.meter.start()
        done = self.link.crowd.run(on_cpu(cpu.clients, [TOOLS / "flood", TOOLS / "flood.bpf.o", self.link.device, self.link.mac, SERVER,
                                                        PORT, seconds]), input="".join(f"{a}\n" for a in sources))
        spent = self.meter.stop()
        packets, drops, delivered = (after - b for after, b in zip(self.counters(), before))
        seen = json.loads(done.stdout)
        if not packets or delivered > packets / 1000 or (self.xdp and drops < packets * 0.999):
            raise RuntimeError(f"{self.name}, {self.size} entries: of {packets} packets {delivered} reached TCP"
                               f"{f' and {drops} were dropped by XDP' if self.xdp else ''}: the list does not hold")
        return {**seen, **spent, "packets": packets, "packets_per_second": packets / seen["seconds"],
                "ns_per_packet": spent["softirq_ns"] / packets, "busy_ns_per_packet": spent["busy_ns"] / packets}

    def settle(self, sources, seconds):
        """Floods until every source has sent so much that it may be remembered."""
        packets = 0
        while packets < SETTLED_PACKETS * len(sources):
            seen = self.flood(sources, seconds)
            packets += seen["packets"]
            if packets <= FIRST_PACKETS * len(sources):
                self.first.append(seen)

    def program_ns(self, sources):
        """One run of the XDP program, by the kernel's own statistics (which cost some 30 ns themselves, also of the floor)."""
        program = xdp_program_of(self.link.shop)
        with bpf_stats() as stats:
            if not stats.on:
                return None
            before = program_runs(program)
            self.flood(sources, STATS_S)
            runs, ns = (after - b for after, b in zip(program_runs(program), before))
        return ns / runs if runs else None


def open_floor(stack, work_dir, _entries, _versions):
    site = Site(stack, work_dir, "floor")
    site.shop.run(["ip", "link", "set", "dev", site.link.device, "xdp", "obj", TOOLS / "drop.bpf.o", "sec", "xdp"])
    return Filter("floor: drop everything", 0, site.link, True)


def open_sluice(stack, _work_dir, entries, _versions):
    site = sluice_site(stack, settings={"gate.max_prefixes": 1048576}, start=("gate",))
    run([TOOLS / "prepare", "deny", site.pin_dir], input="".join(f"{a}\n" for a in entries))
    return Filter("Sluice", len(entries), site.link, True)


def open_xdp_filter(stack, work_dir, entries, versions):
    program = need("xdp-filter", "xdp-tools")
    versions["xdp-filter"] = "xdp-tools " + version_of(["dpkg-query", "-W", "-f", "${Version}", "xdp-tools"])
    site = Site(stack, work_dir, f"xdp-filter-{len(entries)}")
    # It pins under one fixed path: a bpffs of its own keeps it apart from one that the machine may be using.
    private = site.shop.start(["unshare", "--mount", "sh", "-c", "mount -t bpf bpf /sys/fs/bpf && echo ready && exec sleep infinity"],
                              site.dir / "mounts")
    stack.callback(private.stop)
    wait_until(lambda: "ready" in private.log(), "a bpffs for xdp-filter")
    done = run(["nsenter", f"--mount=/proc/{private.pid}/ns/mnt", f"--net={site.shop.path}", program, "load", site.link.device, "-m",
                "native", "-p", "allow", "-f", "ipv4"], check=False)
    loaded = xdp_program_of(site.shop)
    if done.returncode or not loaded:
        raise Skipped(f"xdp-filter cannot be loaded here: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    maps = json.loads(run([world.BPFTOOL, "-j", "prog", "show", "id", loaded]).stdout)["map_ids"]
    ours = [n for n in maps if json.loads(run([world.BPFTOOL, "-j", "map", "show", "id", n]).stdout).get("name") == "filter_ipv4"]
    run([TOOLS / "prepare", "filter", ours[0]], input="".join(f"{a}\n" for a in entries))
    return Filter("xdp-filter", len(entries), site.link, True)


def open_nftables(stack, work_dir, entries, versions, name):
    program = need("nft", "nftables")
    versions["nftables"] = version_of([program, "-v"])
    site = Site(stack, work_dir, f"{NFT_TABLE[name]}-{len(entries)}")
    rules = site.dir / "rules.nft"
    with open(rules, "w", encoding="ascii") as file:
        file.write(NFT[name].format(size=len(entries), device=site.link.device))
        for start in range(0, len(entries), 10000):
            file.write(f"add element {NFT_TABLE[name]} sluice denied {{ {', '.join(entries[start:start + 10000])} }}\n")
    done = site.shop.run([program, "-f", rules], check=False)
    if done.returncode:
        raise Skipped(f"{name}, {len(entries)} entries: {done.stderr.strip().splitlines()[:1]}")
    return Filter(name, len(entries), site.link, False)


def open_all(stack, work_dir, say, versions, skipped):
    entries = addresses(SIZES[-1])
    plan = [(open_floor, 0, ())]
    plan += [(open_sluice, size, ()) for size in SIZES]
    plan += [(open_xdp_filter, size, ()) for size in SIZES if size <= FILTER_MAX]
    plan += [(open_nftables, size, (name,)) for name in NFT for size in SIZES]
    filters = []
    for opener, size, more in plan:
        try:
            filters.append(opener(stack, work_dir, entries[:size], versions, *more))
        except Skipped as reason:
            skipped.append(str(reason))
    say(f"deny lists filled: {len(filters)}")
    return entries, filters


def compare(stack, work_dir, seconds, say, versions):
    """Returns the comparison as it goes into peers.json."""
    skipped = [f"xdp-filter with {SIZES[-1]} entries: its map holds {FILTER_MAX}"]
    entries, filters = open_all(stack, work_dir, say, versions, skipped)
    # Those that are compared come right after one another.
    cases = [(entry, count) for entry in filters for count in SOURCES if count <= entry.size or entry.size == 0]
    cases.sort(key=lambda case: (case[1], case[0].size))
    floods = {count: random.Random(SEED).sample(entries[:next(size for size in SIZES if size >= count)], count) for count in SOURCES}
    for entry in filters:
        if entry.name == "Sluice" and entry.size >= WIDE:
            say(f"denied sources, {WIDE:,} of them, until a list of {entry.size:,} knows them")
            entry.settle(floods[WIDE], seconds * SECONDS_SHARE)
    for number in range(ROUNDS):
        say(f"denied sources, round {number + 1} of {ROUNDS}")
        for entry, count in cases:
            entry.rounds.setdefault(count, []).append(entry.flood(floods[count], seconds * SECONDS_SHARE))
    rows = [row_of(entry.name, entry, count, entry.rounds[count], entry.program_ns(floods[count]) if entry.xdp else None) for entry, count in cases]
    rows += [row_of(FIRST, entry, WIDE, entry.first, None) for entry in filters if entry.first]
    floor = {row["sources"]: row["ns_per_packet"]["median"] for row in rows if not row["entries"]}
    for row in rows:
        row["ns_less_floor"] = row["ns_per_packet"]["median"] - floor[row["sources"]]
    return {"title": TITLE, "rows": rows, "skipped": skipped, "targets": targets_of(rows)}


def row_of(name, entry, sources, rounds, program_ns):
    return {"name": name, "entries": entry.size, "sources": sources,
            **{figure: spread([r[figure] for r in rounds]) for figure in ("ns_per_packet", "busy_ns_per_packet", "packets_per_second")},
            "program_ns": program_ns, "raw": rounds}


def targets_of(rows):
    raw = {(row["name"], row["entries"], row["sources"]): row["raw"] for row in rows}
    ours = {key[1:]: rounds for key, rounds in raw.items() if key[0] == "Sluice"}
    found = []
    for where, rounds in ours.items():
        if ("xdp-filter", *where) in raw:
            found.append({"text": f"Sluice / xdp-filter, {where[0]:,} entries, {where[1]:,} sources",
                          **judged(paired(rounds, raw["xdp-filter", *where], "ns_per_packet"), at_most=MOST_OF_FILTER)})
    for name in NFT:
        for who, sources in [*(("Sluice", count) for count in SOURCES), (FIRST, WIDE)]:
            ratios = [paired(raw[name, *where], rounds, "ns_per_packet") for (other, *where), rounds in raw.items()
                      if other == who and where[1] == sources and (name, *where) in raw]
            if ratios:
                found.append({"text": f"{name} / {who}, {sources:,} source{'s' if sources > 1 else ''}, where it is least",
                              **judged(min(ratios, key=lambda ratio: ratio["median"]), at_least=LEAST_OF_NFTABLES)})
    for sources in SOURCES:
        lists = sorted((rounds for where, rounds in ours.items() if where[1] == sources), key=lambda rounds: median(r["ns_per_packet"] for r in rounds))
        found.append({"text": f"dearest / cheapest list of Sluice, {sources:,} source{'s' if sources > 1 else ''}",
                      **judged(paired(lists[-1], lists[0], "ns_per_packet"), at_most=FLAT)})
    return found


def show(result, table, plots, out):
    """Prints the table and draws the plots."""
    table(result["title"] + ": CPU time of the server's side to drop it",
          ["", "entries", "sources", "ns", "min..max", "less floor", "whole CPU", "program ns", "packets/s"],
          [[row["name"], f'{row["entries"]:,}', f'{row["sources"]:,}', f'{row["ns_per_packet"]["median"]:.0f}',
            f'{row["ns_per_packet"]["min"]:.0f}..{row["ns_per_packet"]["max"]:.0f}', f'{row["ns_less_floor"]:.0f}', f'{row["busy_ns_per_packet"]["median"]:.0f}',
            f'{row["program_ns"]:.0f}' if row["program_ns"] else "-", f'{row["packets_per_second"]["median"]:,.0f}'] for row in sorted(result["rows"], key=lambda row: (row["name"], row["entries"]))])
    series = {}
    for row in sorted(result["rows"], key=lambda row: row["name"]):
        if row["entries"]:
            series.setdefault(f'{row["name"]}, {row["sources"]:,} source{"s" if row["sources"] > 1 else ""}', []).append(
                (row["entries"], row["ns_per_packet"]["median"]))
    plots["plot_lines"](out / "peers-drops.svg", "Dropping a packet from a denied source", "entries on the list",
                        "ns of CPU on the server's side for a packet", series, logx=True)
