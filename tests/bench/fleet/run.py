#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""What many nodes cost: one Redis, calls to it, stalls, CPU of an order, many sales, long lists, and a projection. `make bench-fleet`.

    tests/bench/fleet/run.py --build DIR --out DIR/bench [--only PART]… [--quick] [--write PAGE.md] [--cpus CLIENTS,SERVER]

As root. Prints a table of each part, and writes OUT/fleet.json with every round, an SVG plot of each, and OUT/fleet.md: the same tables as
Markdown, which --write puts into a page between its two marks. With --only the other parts stay in fleet.json as they were measured before (each says
when). Exit code 0: measured, whether or not a target was met; 1: something that had to work did not; 2: usage. Everything lives in
namespaces and a temporary directory of its own, and is gone afterwards.
"""
import argparse
import contextlib
import datetime
import json
import os
import pathlib
import runpy
import signal
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
PEERS = ROOT / "tests" / "bench" / "peers"
PARTS = ("capacity", "calls", "stalls", "cost", "sales", "lists")
BEGIN, END = "<!-- figures: begin (written by make bench-fleet WRITE=docs/fleet-cost.md) -->", "<!-- figures: end -->"


def say(text):
    print(f"  FLEET   {text}", file=sys.stderr, flush=True)


def parse():
    parser = argparse.ArgumentParser(description="What many nodes cost.")
    parser.add_argument("--build", required=True, type=pathlib.Path, help="where make has put the programs")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="where the figures go")
    parser.add_argument("--only", action="append", choices=PARTS, help="one part; may be repeated")
    parser.add_argument("--quick", action="store_true", help="less of everything: whether it works, not what it costs")
    parser.add_argument("--write", type=pathlib.Path, help="a page whose figures are replaced")
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


def markdown(title, head, rows):
    line = "| {} |".format
    return "\n".join([f"**{title}**", "", line(" | ".join(head)), line(" | ".join("---" for _ in head)),
                      *(line(" | ".join(cell or " " for cell in row)) for row in rows), ""])


def targets_of(result):
    for target in result.get("targets", ()):
        yield [target["text"], f'at most {target["at_most"]:g}', f'{target["is"]:,.1f} ({target["min"]:,.1f}..{target["max"]:,.1f})',
               "met" if target["met"] else "MISSED"]


def write_page(path, text):
    """Replaces what stands between the marks."""
    page = path.read_text(encoding="utf-8")
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise RuntimeError(f"{path} has not the lines {BEGIN} and {END}")
    head, rest = page.split(BEGIN)
    path.write_text(f"{head}{BEGIN}\n\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def measure(options, report, lab):
    """The parts that are asked for, into the report. Returns whether all could be measured."""
    good = True
    for name in options.only or PARTS:
        part = __import__(name)
        try:
            with contextlib.ExitStack() as stack:
                work_dir = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-fleet-bench-")))
                result = part.measure(stack, work_dir, options, say)
        except lab.Skipped as reason:
            say(f"{name}: left out: {reason}")
            continue
        except Exception as error:  # the other parts are worth having
            print(f"fleet: {name}: {error}", file=sys.stderr)
            good = False
            continue
        report["parts"][name] = {"when": now(), "quick": options.quick, **result}
    return good


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def show(options, report, print_table, plots):
    """Prints and draws all that the report has. Returns it as Markdown."""
    text = []
    for name in (*PARTS, "projection"):
        result = report["parts"].get(name)
        if not result:
            continue
        part = __import__(name)
        try:
            tables = part.tables(result)
        except KeyError as missing:
            say(f"{name}: its figures of {result['when']} are another version's (no {missing}): left out")
            continue
        for table in tables:
            print_table(*table)
            text.append(markdown(*table))
        targets = list(targets_of(result))
        if targets:
            print_table("Targets", ["", "", "is", ""], targets)
            text.append(markdown("Targets", ["", "limit", "is", ""], targets))
        part.plot(result, plots, options.out)
    machine = report["machine"]
    quick = sorted(name for name, part in report["parts"].items() if part.get("quick"))
    parts = ", ".join(f'{name} {part["when"]}' for name, part in report["parts"].items())
    text.append(f'{machine["cpu"]}, {machine["cpus"]} CPUs, kernel {machine["kernel"]}; {report["versions"]["redis"]}. Measured (UTC): {parts}.'
                + (f' Quick, good for nothing but trying the bench: {", ".join(quick)}.' if quick else "") + "\n")
    return "\n".join(text)


def main():
    options = parse()
    if os.geteuid() != 0:
        print("fleet: namespaces and BPF programs need root", file=sys.stderr)
        return 1
    build = options.build.resolve()
    missing = [name for name in ("sluice", "sluiced", "sluice-writer", "tests/bench/fleet/redis_load", "tests/bench/fleet/crowd")
               if not (build / name).exists()]
    if missing:
        print(f"fleet: not built: {', '.join(missing)} (make bench-fleet)", file=sys.stderr)
        return 1
    os.environ["SLUICE_BUILD"] = str(build)
    sys.path.insert(0, str(PEERS))
    import lab  # what it imports reads SLUICE_BUILD
    peers = runpy.run_path(str(PEERS / "run.py"))
    lab.cpu.clients, lab.cpu.server = options.cpu_numbers
    os.sched_setaffinity(0, {lab.cpu.clients})  # this script, Redis and the way there stay off the servers' CPU
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    peers["sweep"](lab)
    options.out.mkdir(parents=True, exist_ok=True)
    plots = runpy.run_path(str(ROOT / "scripts" / "bench-plot.py"))
    path = options.out / "fleet.json"
    report = {"parts": {}}
    if options.only and path.exists():
        report = json.loads(path.read_text(encoding="utf-8"))
    report |= {"when": now(), "machine": lab.machine(), "versions": {
        "sluice": lab.version_of([build / "sluice", "--version"]), "redis": lab.version_of(["redis-server", "--version"]).partition(" sha")[0]}}
    with contextlib.ExitStack() as options.stack:
        options.kept_sites = {}
        good = measure(options, report, lab)
    if {"capacity", "calls"} <= set(report["parts"]):
        import projection
        measured = [report["parts"][name] for name in ("capacity", "calls")]
        report["parts"]["projection"] = {"when": now(), "quick": any(part["quick"] for part in measured), **projection.project(*measured, projection.lease_ms())}
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    text = show(options, report, peers["print_table"], plots)
    (options.out / "fleet.md").write_text(text, encoding="utf-8")
    if options.write:
        write_page(options.write, text)
    print(f"\nfleet: {path} and {options.out / 'fleet.md'}")
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("fleet: interrupted; everything was put away", file=sys.stderr)
        sys.exit(130)
