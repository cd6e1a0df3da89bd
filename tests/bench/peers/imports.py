# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Comparison 6: a million addresses into the deny list of gate and ledger with `sluice deny import`.

The command's whole run is measured: it reads the file, the daemon puts the entries into the gate, the order writer makes them durable, and the
command returns when all of it is done. Daemon, writer and command have both CPUs. Each round has a new gate and a new ledger, and looks
into the ledger's file afterwards: an import that left entries out is a failure, not a fast one.
"""
import random
import time

from lab import cpu, run, spread, world

TITLE = "Import of a list"
ROUNDS = 3
ENTRIES = 1_000_000
PREFIXES_MAX = 1 << 20  # gate.max_prefixes, its default
BITS_OF_HOST = 24
IMPORT_WAIT_S = 300


def write_list(path, count):
    """Addresses all over IPv4 but for 0/8, 10/8 (where the bench's own are) and 127/8."""
    networks = [number for number in range(1, 224) if number not in (10, 127)]
    places = random.Random(1).sample(range(len(networks) << BITS_OF_HOST), count)
    with open(path, "w", encoding="ascii") as file:
        file.writelines(f"{networks[at >> 24]}.{at >> 16 & 255}.{at >> 8 & 255}.{at & 255}\n" for at in places)
    return path


def use_both(pid):
    run(["taskset", "-a", "-p", "-c", f"{cpu.clients},{cpu.server}", pid])


def one_round(path):
    """Seconds of one import."""
    with world.World(settings={"gate.max_prefixes": PREFIXES_MAX}) as site:
        use_both(site.daemon.pid)
        use_both(site.writer.pid)
        begin = time.monotonic()
        run(["taskset", "-c", f"{cpu.clients},{cpu.server}", world.BUILD / "sluice", "deny", "import", path, "--label", "bench", "--socket",
             site.control_socket], timeout=IMPORT_WAIT_S)
        seconds = time.monotonic() - begin
        kept = int(site.ledger_query("SELECT count(*) FROM list_entries WHERE list = 'deny'")[0][0])
        if kept != ENTRIES:
            raise RuntimeError(f"{ENTRIES} addresses were imported and the ledger has {kept}")
        return seconds


def compare(stack, work_dir, seconds, say, versions):
    """Returns the comparison as it goes into peers.json."""
    del stack, seconds, versions
    path, rounds = write_list(work_dir / "list.netset", ENTRIES), []
    for number in range(ROUNDS):
        say(f"import of {ENTRIES:,} addresses, round {number + 1} of {ROUNDS}")
        rounds.append(one_round(path))
    return {"title": TITLE, "rows": [{"entries": ENTRIES, "seconds": spread(rounds), "rows_per_second": spread([ENTRIES / s for s in rounds])}],
            "skipped": [], "targets": []}


def show(result, table, plots, out):
    """Prints the table."""
    del plots, out
    table("sluice deny import, into the gate and the ledger (SQLite)", ["entries", "s", "min..max", "rows/s", "min..max"],
          [[f'{row["entries"]:,}', f'{row["seconds"]["median"]:.1f}', f'{row["seconds"]["min"]:.1f}..{row["seconds"]["max"]:.1f}',
            f'{row["rows_per_second"]["median"]:,.0f}', f'{row["rows_per_second"]["min"]:,.0f}..{row["rows_per_second"]["max"]:,.0f}']
           for row in result["rows"]])
