#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Sluice beside other programs on this machine: refused conversations, drops of denied sources, decisions on stock, buyers under a flood;
and what an order and the import of a list cost.

    tests/bench/peers/run.py --build DIR --out DIR/bench [--only refusals|drops|stock|goodput|orders|imports] [--seconds N] [--cpus CLIENTS,SERVER]

Called by scripts/bench.sh, as root. Prints a table for each comparison, and writes OUT/peers.json with every round and an SVG plot each.
A peer that is not installed is left out, with a note. Exit code 0: measured, whether or not a target was met; 1: something that had
to work did not; 2: usage. Everything lives in namespaces and a temporary directory of its own, and is gone afterwards.
"""
import argparse
import contextlib
import datetime
import json
import os
import pathlib
import runpy
import shutil
import signal
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
NAMES = ("refusals", "drops", "stock", "goodput", "orders", "imports")


def say(text):
    print(f"  PEERS   {text}", file=sys.stderr, flush=True)


def print_table(title, head, rows):
    print(f"\n{title}")
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        print("  " + "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))))


def parse():
    parser = argparse.ArgumentParser(description="Sluice beside other programs on this machine.")
    parser.add_argument("--build", required=True, type=pathlib.Path, help="where make has put the programs")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="where the figures go")
    parser.add_argument("--only", action="append", choices=NAMES, help="one comparison (may be repeated)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one round of load (1.0)")
    parser.add_argument("--cpus", default="", help="CLIENTS,SERVER: two CPU numbers (the first two that are allowed)")
    options = parser.parse_args()
    allowed = sorted(os.sched_getaffinity(0))
    try:
        options.cpu_numbers = [int(part) for part in options.cpus.split(",")] if options.cpus else allowed[:2]
    except ValueError:
        parser.error("--cpus: two numbers with a comma between them")
    if len(set(options.cpu_numbers)) != 2 or not set(options.cpu_numbers) <= set(allowed):
        parser.error(f"two different CPUs are needed, one for the clients and one for the server; allowed here: {allowed}")
    return options


def sweep(lab):
    """Removes what a run left that was killed outright: things of ours whose process is gone."""
    def orphaned(name):
        owner = lab.netns.owner_of(name)
        return owner is not None and not os.path.exists(f"/proc/{owner}")

    for path in lab.world.BPFFS.glob(f"{lab.netns.NAME_PREFIX}-*") if lab.world.BPFFS.exists() else ():
        if orphaned(path.name):
            shutil.rmtree(path, ignore_errors=True)
    for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else ():
        if orphaned(name):
            lab.run(["ip", "netns", "del", name], check=False)


def main():
    options = parse()
    if os.geteuid() != 0:
        print("peers: namespaces and BPF programs need root", file=sys.stderr)
        return 1
    build = options.build.resolve()
    missing = [name for name in ("sluice", "sluiced", "sluice-writer", "tests/bench/peers/conversations", "tests/bench/peers/prepare",
                                 "tests/bench/peers/flood") if not (build / name).exists()]
    if missing:
        print(f"peers: not built: {', '.join(missing)} (make all peers)", file=sys.stderr)
        return 1
    os.environ["SLUICE_BUILD"] = str(build)
    import lab  # what it imports reads SLUICE_BUILD
    lab.cpu.clients, lab.cpu.server = options.cpu_numbers
    os.sched_setaffinity(0, {lab.cpu.clients})  # this script, too, stays off the server's CPU
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sweep(lab)
    options.out.mkdir(parents=True, exist_ok=True)
    plots = runpy.run_path(str(ROOT / "scripts" / "bench-plot.py"))
    report = {"when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "machine": lab.machine(),
              "versions": {"sluice": lab.version_of([build / "sluice", "--version"])}, "seconds_per_round": options.seconds,
              "comparisons": {}}
    failed = False
    for name in options.only or NAMES:
        comparison = __import__(name)
        try:
            with contextlib.ExitStack() as stack:
                work_dir = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-peers-")))
                result = comparison.compare(stack, work_dir, options.seconds, say, report["versions"])
        except lab.Skipped as reason:
            say(f"{name}: left out: {reason}")
            report["comparisons"][name] = {"skipped": [str(reason)]}
            continue
        except Exception as error:  # the other comparisons are worth having
            print(f"peers: {name}: {error}", file=sys.stderr)
            report["comparisons"][name] = {"failed": str(error)}
            failed = True
            continue
        report["comparisons"][name] = result
        comparison.show(result, print_table, plots, options.out)
        for target in result["targets"]:
            limit = f'at least {target["at_least"]}' if "at_least" in target else f'at most {target["at_most"]}'
            sure = target.get("median_95")
            print(f'  target: {target["text"]}: {limit}; is {target["is"]:.2f} ({target["min"]:.2f}..{target["max"]:.2f}'
                  f'{f"; the median with 95 % {sure[0]:.2f}..{sure[1]:.2f}" if sure else ""}): {"met" if target["met"] else "MISSED"}'
                  f'{", on the line" if target["on_the_line"] else ""}, {target["rounds"]} rounds')
        for note in dict.fromkeys(result["skipped"]):
            print(f"  left out: {note}")
    path = options.out / "peers.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"\npeers: {path}")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("peers: interrupted; everything was put away", file=sys.stderr)
        sys.exit(130)
