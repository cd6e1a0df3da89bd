#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Merges DIR/gate.json and, if they are there, DIR/growth.json and DIR/writer.json into DIR/report.json, prints the tables, draws the growth, and
computes from the lanes what more CPUs would do ("projection" in the report).

Called by scripts/bench.sh. Exit code 1 if gate.json cannot be read.
"""
import json
import os
import runpy
import statistics
import sys


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


# Below this, two CPUs are threads of one core. A host that moves the CPUs of its guests makes them so for a while.
SIBLINGS_NS = 30


def spread_of(values):
    values = sorted(values)
    return {"median": statistics.median(values), "p10": values[len(values) // 10], "p90": values[-1 - len(values) // 10]}


def sum_up_lanes(growth):
    """Adds to each row of the lanes what its rounds say: of the rounds on CPUs of cores of their own, unless there was none."""
    for row in growth["cpus"]:
        rounds = [one for one in row["rounds"] if one["handover_ns"] >= SIBLINGS_NS or row["cpus"] == 1] or row["rounds"]
        row["rounds_used"] = len(rounds)
        for figure in ("alone_ns", "together_ns", "handover_ns"):
            row[figure] = spread_of([one[figure] for one in rounds])
        row["speedup"] = spread_of([row["cpus"] * one["alone_ns"] / one["together_ns"] for one in rounds])


def mark(figure, target):
    """ok: the median is within the target. noisy: only the quietest tenth of the rounds was. over: none of it."""
    if not figure or not target:
        return ""
    if figure["median_ns"] <= target:
        return "ok"
    return "noisy" if figure["p10_ns"] <= target else "over"


def cell(figure, target):
    if not figure:
        return "-"
    text = f'{figure["median_ns"]:.0f} ({figure["p10_ns"]:.0f}..{figure["p90_ns"]:.0f})'
    return f"{text} {mark(figure, target):5}" if target else f"{text}      "


def print_paths(gate):
    print(f'\nns per packet less an empty program: median (10th..90th percentile) of {gate["rounds"]} rounds')
    print("hot: one frame again and again. 256, many: from as many sources in turn, each with its own token and cookie.")
    print("The frame is restored on both sides of the difference; a resize that the gate did costs one more to undo, and is in it.")
    print("noisy: only the quietest rounds were within the target.\n")
    print(f'{"path":<48} {"target":>6} {"hot":>22} {"256":>22} {"many":>24} {"sources":>7}')
    for row in gate["paths"]:
        target = row.get("target_ns")
        print(f'{row["text"]:<48} {f"{target:.0f}" if target else "":>6} {cell(row["hot"], target):>22} '
              f'{cell(row["warm"], target):>22} {cell(row["many"], target):>24} {row["sources"]:>7}')


def print_steps(gate):
    for path in gate["steps"]:
        print(f'\nwhere the time goes: {path["text"]}')
        print(f'  {"":<44} {"hot":>6} {"sum":>6}   {"many":>6} {"sum":>6}')
        for step in path["steps"]:
            cells = [f'{step[kind]["step_ns"]:6.0f} {step[kind]["sum_ns"]:6.0f}' if kind in step else f'{"":13}'
                     for kind in ("hot", "many")]
            print(f'  {step["text"]:<44} {cells[0]}   {cells[1]}')


def print_operations(gate):
    print("\nsingle operations, ns")
    print(f'  {"":<54} {"hot":>6} {"many":>6}')
    for row in gate.get("operations", []):
        print(f'  {row["text"]:<54} {row["hot"]["median_ns"]:6.0f} {row["many"]["median_ns"]:6.0f}')


def print_cost(gate):
    print("\nloading")
    for row in gate["programs"]:
        print(f'  {row["name"]:<14} verified instructions {row["verified_insns"]:>7} (limit {gate["verified_insns_limit"]}), '
              f'stack {row["stack_bytes"]} of {gate["stack_bytes_limit"]} bytes, machine code {row["jited_bytes"]} bytes'
              f'{"" if row["ok"] else "  OVER"}')
    print("\nmaps at the default config, MiB")
    for row in sorted(gate["maps"], key=lambda row: -row["bytes"]):
        if row["bytes"] >= 1 << 20:
            print(f'  {row["name"]:<14} {row["bytes"] / (1 << 20):7.1f}  {row["entries"]} entries')
    over = gate["maps_bytes"] > gate["maps_bytes_limit"]
    print(f'  {"all":<14} {gate["maps_bytes"] / (1 << 20):7.1f}  limit {gate["maps_bytes_limit"] / (1 << 20):.0f}{"  OVER" if over else ""}')


def print_writer(writer):
    print("\norder writer:", writer.get("store", ""))
    for row in writer.get("results", []):
        print(f'  batch of {row["batch"]:>5}: {row["orders_per_second"]:>9.0f} orders/s, a batch {row["batch_us"]["p50"]:.0f} us '
              f'(p99 {row["batch_us"]["p99"]:.0f})')


def print_growth(growth):
    print("\nhow cost grows, ns per packet (median)")
    for series in growth["series"]:
        points = "  ".join(f'{point["x"]:,}: {point["median_ns"]:.0f}' for point in series["points"])
        print(f'  {series["text"]:<62} {points}')
    print("\nCPUs: ns per packet of one lane alone, and while all run the same path; a cache line from one CPU to the other in the same rounds")
    for row in growth["cpus"]:
        print(f'  {row["text"]:<44} alone {row["alone_ns"]["median"]:6.0f}   {row["cpus"]} together {row["together_ns"]["median"]:6.0f}   '
              f'{spread(row["speedup"])} times the throughput   hand-over {row["handover_ns"]["median"]:4.0f} ns   '
              f'{row["rounds_used"]} rounds')
    print(f"  Of {len(growth['cpus'][0]['rounds'])} rounds, without those in which a line took less than {SIBLINGS_NS} ns: there the two CPUs were threads of one core.")


def spread(figure):
    return f'{figure["median"]:.2f} ({figure["p10"]:.2f}..{figure["p90"]:.2f})'


# --- projection ---------------------------------------------------------------------------------------------------------------
CPUS = (1, 2, 16, 64)
FAR_NS = 200  # a hand-over between CPUs that share no cache
NS_PER_S = 1e9
# What an admission writes and other CPUs' admissions write, too: each is a cache line of its own. Those of the ring change hands under its lock.
ADMISSION_WORDS = ("stock.free", "stock.taken", "control.in_flight")
RING_WORDS = ("the ring's lock", "the ring's position", "the line in which a record of the ring ends and the next begins")
SHARED = {
    "denied_1m": "nothing; the hits of an entry, one packet in 32, where sources of that entry come to several CPUs",
    "syn": "the bucket of the prefix, where its packets come to several CPUs",
    "over_rate": "the bucket of the source, where its packets come to several CPUs",
    "forged": "the buckets of source and prefix, where their packets come to several CPUs",
    "sold_out": "the same; the sale's words and stock.free are read, and nobody writes them any more",
    "admitted": ", ".join(ADMISSION_WORDS + RING_WORDS),
}
ASSUMPTIONS = (
    "the gate's program alone, as the bench times it: no card, no driver, no writer behind it; frames and tables in the second-level cache",
    "the card spreads flows evenly over the CPUs, all packets of a flow to one; CPUs are cores, each with caches of its own, and equally fast",
    "refusals: at best nothing is shared; at worst all that was lost on the measured CPUs is serial (Amdahl)",
    "admissions, all of one sale: a shared line was last with each of the CPUs equally often, and nobody waits for it until the ring's lock is busy "
    "all the time: upper bounds",
    f"admissions: at best a hand-over takes what it was measured to take, at worst {FAR_NS} ns",
)


def admissions_per_s(cpus, alone_ns, handover_ns, ring_ns):
    """Returns (orders a second, what bounds them)."""
    each = alone_ns + len(ADMISSION_WORDS + RING_WORDS) * handover_ns * (cpus - 1) / cpus
    lock = len(RING_WORDS) * handover_ns + ring_ns if cpus > 1 else 0
    by_cpus = cpus * NS_PER_S / each
    if lock and NS_PER_S / lock < by_cpus:
        return NS_PER_S / lock, "the ring's lock"
    return by_cpus, "CPUs"


def project_refusals(row, cpus):
    measured, speedup = row["cpus"], row["speedup"]["median"]
    serial = max(0, (measured / speedup - 1) / (measured - 1)) if measured > 1 else 0
    one = NS_PER_S / row["alone_ns"]["median"]
    return {"low_per_s": one * cpus / (1 + serial * (cpus - 1)), "high_per_s": one * cpus}


def project_admissions(row, cpus, ring_ns):
    alone, handover = row["alone_ns"]["median"], row["handover_ns"]["median"]
    far, by_far = admissions_per_s(cpus, alone, max(FAR_NS, handover), ring_ns)
    near, by_near = admissions_per_s(cpus, alone, handover, ring_ns)
    return {"low_per_s": far, "high_per_s": near, "low_bound": by_far, "high_bound": by_near}


def project(gate, growth):
    """None where the lanes had one CPU: then no hand-over was measured."""
    if any(row["cpus"] < 2 for row in growth["cpus"]):
        return None
    ring_ns = next((row["hot"]["median_ns"] for row in gate.get("operations", []) if row["id"] == "op_ring"), 0)
    rows = []
    for row in growth["cpus"]:
        points = []
        for cpus in CPUS:
            if cpus in (1, row["cpus"]):
                figure = row["alone_ns" if cpus == 1 else "together_ns"]["median"]
                points.append({"cpus": cpus, "measured": True, "low_per_s": cpus * NS_PER_S / figure, "high_per_s": cpus * NS_PER_S / figure})
            else:
                points.append({"cpus": cpus, "measured": False, **(project_admissions(row, cpus, ring_ns) if row["id"] == "admitted" else
                                                                   project_refusals(row, cpus))})
        rows.append({"id": row["id"], "text": row["text"], "shared": SHARED[row["id"]], "points": points})
        if row["id"] == "admitted":
            computed, _ = admissions_per_s(row["cpus"], row["alone_ns"]["median"], row["handover_ns"]["median"], ring_ns)
            rows[-1]["check"] = {"cpus": row["cpus"], "computed_per_s": computed, "measured_per_s": row["cpus"] * NS_PER_S / row["together_ns"]["median"]}
    return {"assumptions": list(ASSUMPTIONS), "far_handover_ns": FAR_NS, "ring_ns": ring_ns, "rows": rows}


def print_projection(projection):
    def text_of(point):
        low, high = (f"{point[end] / 1e6:.{1 if point[end] >= 1e7 else 2}f}" for end in ("low_per_s", "high_per_s"))
        return low if low == high else f"{low}..{high}"

    heads = [f'{point["cpus"]} {"measured" if point["measured"] else "projected"}' for point in projection["rows"][0]["points"]]
    print("\nprojection: million packets/s of that many CPUs")
    print(f'  {"":<44}' + "".join(f"{head:>16}" for head in heads))
    for row in projection["rows"]:
        print(f'  {row["text"]:<44}' + "".join(f"{text_of(point):>16}" for point in row["points"]))
    for row in projection["rows"]:
        if "check" in row:
            check = row["check"]
            print(f'  the same computation for {check["cpus"]} CPUs, {row["text"]}: {check["computed_per_s"] / 1e6:.2f}; measured {check["measured_per_s"] / 1e6:.2f}')
            for bound in dict.fromkeys((point["cpus"], end, point[f"{end}_bound"]) for point in row["points"] for end in ("low", "high") if not point["measured"]):
                print(f"  {row['text']}, {bound[0]} CPUs, {bound[1]} end: bounded by {bound[2]}")
    print("  shared words that are written")
    for row in projection["rows"]:
        print(f'    {row["text"]}: {row["shared"]}')
    print("  assumptions")
    for line in projection["assumptions"]:
        print(f"    - {line}")


def plot_growth(growth, directory):
    plots = runpy.run_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench-plot.py"))
    plots["plot_lines"](os.path.join(directory, "growth.svg"), "How cost grows", "sales, entries, sources", "ns per packet",
                        {series["id"]: [(point["x"], max(point["median_ns"], 1)) for point in series["points"]]
                         for series in growth["series"]}, logx=True, logy=True)
    plots["plot_bars"](os.path.join(directory, "growth-cpus.svg"), "Throughput of all CPUs over that of one", "times",
                       [(row["text"], row["speedup"]["median"], row["speedup"]["p10"], row["speedup"]["p90"]) for row in growth["cpus"]])


def main():
    directory = sys.argv[1]
    try:
        report = {"gate": load(os.path.join(directory, "gate.json"))}
    except (OSError, ValueError) as error:
        print(f"bench: the gate's bench left no figures: {error}", file=sys.stderr)
        return 1
    try:
        report["growth"] = load(os.path.join(directory, "growth.json"))
    except (OSError, ValueError):
        pass  # not built, or it said why it failed
    try:
        report["writer"] = load(os.path.join(directory, "writer.json"))
    except (OSError, ValueError):
        pass  # not built, or it said why it failed
    projection = None
    if "growth" in report:
        sum_up_lanes(report["growth"])
        projection = project(report["gate"], report["growth"])
    if projection:
        report["projection"] = projection
    path = os.path.join(directory, "report.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    machine = report["gate"]["machine"]
    print(f'{machine["cpu"]}, {machine["cpus"]} CPUs, kernel {machine["kernel"]}')
    print_paths(report["gate"])
    print_steps(report["gate"])
    print_operations(report["gate"])
    print_cost(report["gate"])
    if "writer" in report:
        print_writer(report["writer"])
    if "growth" in report:
        print_growth(report["growth"])
        if projection:
            print_projection(projection)
        plot_growth(report["growth"], directory)
    print(f"\nreport: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
