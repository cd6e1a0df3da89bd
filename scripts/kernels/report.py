#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The table of `make kernels` and its report.json, from what the guests wrote to their second serial port (the lines are described in
guest/init). Called by run.sh. Exit codes: 0 nothing failed, 1 something did, or nothing was tested.
"""
import argparse
import datetime
import json
import subprocess
import sys

# Suites as the guest names them, in the order and the words of the table.
MODES = {
    "guest": "boot",
    "load": "load",
    "packet-all": "packet tests",
    "packet-quick": "packet tests (quick)",
    "sale-native": "whole sale, veth, native",
    "sale-generic": "whole sale, veth, generic",
    "nic-native": "virtio-net, native, one queue",
    "nic-generic": "virtio-net, generic",
    "nic-offload": "virtio-net, native, queues and offloads",
    "refusals": "refusals in one sentence",
    "coexist-native": "libxdp dispatcher, native",
    "coexist-generic": "libxdp dispatcher, generic",
    "coexist-quick": "libxdp dispatcher (quick)",
}
PROGRAMS = ("sluice_gate", "sluice_door")


def number(text):
    return int(text) if text.isdigit() else text


def read_results(path):
    """One kernel's file as {"release", "facts", "modes": {mode: [test, …]}}. Lines that a dying guest cut off are passed over."""
    kernel = {"release": "?", "facts": {}, "modes": {}}
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.rstrip("\r\n").split("\t")
            if fields[0] == "kernel" and len(fields) == 2:
                kernel["release"] = fields[1]
            elif fields[0] == "fact" and len(fields) == 4:
                kernel["facts"].setdefault(fields[1], {})[fields[2]] = number(fields[3])
            elif fields[0] == "test" and len(fields) == 6:
                kernel["modes"].setdefault(fields[1], []).append(
                    {"name": fields[4], "result": fields[2], "milliseconds": number(fields[3]), "reason": fields[5]})
    return kernel


def result_of(kernel, mode):
    """The mode's result: failed if a test failed; cannot if what was tested is that this kernel says so; else passed or skipped."""
    results = {test["result"] for test in kernel["modes"][mode]}
    if "failed" in results:
        return "FAILED"
    if "cannot" in kernel["facts"].get(mode, {}):
        return "cannot"
    return "passed" if "passed" in results else "skipped"


def print_table(rows):
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [str(cell).rjust(width) if i >= 3 else str(cell).ljust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())


def summary(tests, facts):
    """"12 of 12"; for the packet tests also how many cases their programs have."""
    text = f'{sum(test["result"] == "passed" for test in tests)} of {len(tests)}'
    cases = sum(count for name, count in facts.items() if name.endswith(".passed"))
    return f"{text} ({cases} cases)" if cases else text


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--report", required=True)
    parser.add_argument("--accel", required=True)
    parser.add_argument("--counts", action="store_true", help="end with lines as cmocka writes them")
    parser.add_argument("kernels", nargs="+", metavar="SERIES=FILE")
    args = parser.parse_args()

    kernels = []
    for argument in args.kernels:
        series, _, path = argument.partition("=")
        kernels.append({"series": series, **read_results(path)})

    rows, remarks = [("KERNEL", "MODE", "RESULT", "TESTS", "SECONDS")], []
    for kernel in kernels:
        for mode in sorted(kernel["modes"], key=list(MODES).index):
            tests, facts, result = kernel["modes"][mode], kernel["facts"].get(mode, {}), result_of(kernel, mode)
            seconds = sum(test["milliseconds"] for test in tests) / 1000
            rows.append((kernel["release"], MODES[mode], result, summary(tests, facts), f"{seconds:.1f}"))
            if result == "cannot":
                remarks.append(f'{kernel["release"]}, {MODES[mode]}: cannot: {facts["cannot"]}')
            for test in tests:
                if test["result"] != "passed":
                    remarks.append(f'{kernel["release"]}, {MODES[mode]}: {test["result"]}: {test["name"]}: {test["reason"]}')
    print()
    print_table(rows)
    loads = [("KERNEL", "PROGRAM", "", "VERIFIED INSTRUCTIONS", "VERIFICATION MS", "WHOLE LOAD MS")]
    for kernel in kernels:
        facts = kernel["facts"].get("load", {})
        for program in PROGRAMS:
            if f"{program}.verify_us" in facts:
                loads.append((kernel["release"], program, "", facts[f"{program}.verified_instructions"],
                              f'{facts[f"{program}.verify_us"] / 1000:.0f}', f'{facts["load_us"] / 1000:.0f}'))
    if len(loads) > 1:
        print()
        print_table(loads)
    if remarks:
        print()
        print("\n".join(remarks))

    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for kernel in kernels:
        for tests in kernel["modes"].values():
            for test in tests:
                counts[test["result"]] += 1
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=False).stdout.splitlines()
    report = {
        "made_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "qemu": qemu[0] if qemu else "?",
        "accel": args.accel,
        **counts,
        "kernels": [{"series": kernel["series"], "release": kernel["release"], "facts": kernel["facts"],
                     "modes": [{"mode": mode, "title": MODES[mode], "result": result_of(kernel, mode).lower(), "tests": tests}
                               for mode, tests in kernel["modes"].items()]} for kernel in kernels],
    }
    with open(args.report, "w", encoding="utf-8") as file:
        json.dump(report, file, indent=2)
        file.write("\n")
    print(f"\nreport: {args.report}")
    if args.counts:
        for what in ("passed", "skipped", "failed"):
            if counts[what] or what == "passed":
                print(f"[  {what.upper():<8}] {counts[what]} test(s).")
    else:
        print(", ".join(f"{count} {what}" for what, count in counts.items()))
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
