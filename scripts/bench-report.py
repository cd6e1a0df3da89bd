#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Merges DIR/gate.json and, if they are there, DIR/growth.json and DIR/writer.json into DIR/report.json, prints the tables, and draws the growth.

Called by scripts/bench.sh. Exit code 1 if gate.json cannot be read.
"""
import json
import os
import runpy
import sys


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


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
    print("\nCPUs: ns per packet of one lane alone, and while all run the same path")
    for row in growth["cpus"]:
        print(f'  {row["text"]:<44} alone {row["alone_ns"]:6.0f}   {row["cpus"]} together {row["together_ns"]:6.0f}   {row["speedup"]:.2f} times the throughput')


def plot_growth(growth, directory):
    plots = runpy.run_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench-plot.py"))
    plots["plot_lines"](os.path.join(directory, "growth.svg"), "How cost grows", "sales, entries, sources", "ns per packet",
                        {series["id"]: [(point["x"], max(point["median_ns"], 1)) for point in series["points"]]
                         for series in growth["series"]}, logx=True, logy=True)
    plots["plot_bars"](os.path.join(directory, "growth-cpus.svg"), "Throughput of all CPUs over that of one", "times",
                       [(row["text"], row["speedup"], None, None) for row in growth["cpus"]])


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
        plot_growth(report["growth"], directory)
    print(f"\nreport: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
