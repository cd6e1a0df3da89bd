# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Comparison 5: what a durable order costs the server, and where; and what 100,000 live tokens cost the daemon in memory.

Clients on kernel sockets buy: handshake, gate, kernel, daemon, writer, fsync, 201, one order for each connection, with 16, 64 and 256
connections open at a time. The server has one CPU for all of it; the scheduler's own account of each thread (schedstat, ns) says who
had it: the interface's NAPI thread (gate, IP, TCP up to the socket), the daemon's threads by their names, the writer. How many orders
a commit had is the daemon's own histogram; a commit is one fsync of the ledger's log.

What the pieces are made of, and why they are as they are: docs/orders-cost.md.
"""
import json
import os
import re
import socket

import profile_cpu
from lab import UNLIMITED, Skipped, Meter, judged, read, signed_targets, sluice_site, socket_clients, spent_on, spread, wait_until

TITLE = "Durable orders"
ROUNDS = 5
OPENED = (16, 64, 256)
TOKENS_PER_S = 40_000  # more than a round can use: each is good for one order
KEEP_LARGE = {"gate.max_admissions": 1048576, "gate.ring_bytes": 67108864, "gate.backlog_max": 0}
PARTS = ("gate and TCP", "HTTP", "pipeline", "daemon's rest", "writer")
LIVE_TOKENS, ISSUED_AT_ONCE = 100_000, 50
# The daemon maps the ring, twice over, and the kernel counts that as resident: this is the default config's ring.
TOKEN_ROOM = {"gate.max_tokens": 131072, "gate.ring_bytes": 4194304}
RSS_MAX_MIB = 64
PROFILE_OPENED, PROFILE_SECONDS = 64, 5.0
# What a sample was spent on: the first whose thread and function (anywhere in the stack) both fit.
KINDS = (
    ("switching threads (the HTTP threads, NAPI, the writer)", "HTTP|napi|writer.*", r"__schedule|asm_sysvec_reschedule_ipi"),
    ("the writer: fdatasync", "writer.*", r".*fdatasync.*|.*fsync.*"),
    ("the writer: SQLite and the rest", "writer.*", None),
    ("maintenance: sweeps of the gate's maps", "maintenance", None),
    ("heartbeat", "heartbeat", None),
    ("the pipeline", "pipeline", None),
    ("the gate's BPF programs", "napi", r"bpf .*"),
    ("IP and TCP up to the socket", "napi", r"netif_receive_skb.*|ip_.*rcv.*|__netif_receive_skb.*|napi_gro_.*"),
    ("veth and XDP frames", "napi", r"veth_.*|xdp_.*|bpf_xdp_.*"),
    ("the NAPI thread otherwise", "napi", None),
    ("the call door (BPF_PROG_TEST_RUN)", "HTTP", r"__sys_bpf"),
    ("the answer (sendmsg)", "HTTP", r"__sys_sendmsg|__x64_sys_sendmsg|__sys_sendto"),
    ("accept4", "HTTP", r"__sys_accept4|__x64_sys_accept4"),
    ("recv", "HTTP", r"__sys_recvfrom|__x64_sys_recvfrom|__sys_recvmsg"),
    ("shutdown (the FIN)", "HTTP", r"__sys_shutdown|__x64_sys_shutdown"),
    ("close", "HTTP", r"__x64_sys_close|__fput.*|task_work_run"),
    ("epoll", "HTTP", r".*epoll.*"),
    ("other kernel work of the HTTP threads", "HTTP", r"do_syscall_64|asm_.*|entry_SYSCALL_64.*|ret_from_fork.*"),
    ("malloc and free in the HTTP threads", "HTTP", r"_int_.*|.*malloc.*|cfree.*|free|calloc|.*realloc.*|unlink_chunk.*|sysmalloc.*"),
    ("the HTTP threads' own code, libmicrohttpd, libc", "HTTP", None),
    ("the daemon's other threads", "daemon's rest", None),
)
KIB_PER_MIB = 1024


def threads_of(pid):
    """{id: (name, ns on a CPU, times it gave the CPU up by itself)} of the threads that live."""
    found = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            base = f"/proc/{pid}/task/{task}/"
            switches = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", read(base + "status"), re.MULTILINE)
            found[task] = (read(base + "comm").strip(), int(read(base + "schedstat").split()[0]), int(switches.group(1)))
        except OSError:
            continue  # it ended
    return found


def part_of(name):
    """Of the daemon. libmicrohttpd names its own threads."""
    if name.startswith("MHD-worker") or name.startswith("MHD-single"):
        return "HTTP"
    return "pipeline" if name == "pipeline" else "daemon's rest"


class Account:
    """Who had the server's CPU: start(); ...; stop() -> ({part: ns}, {part: sleeps})."""

    def __init__(self, site):
        self.site, self.before = site, None

    def _read(self):
        ns, sleeps = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0)
        whose = [("gate and TCP", pid) for pid in self.site.link.napi]
        whose += [(None, self.site.daemon.pid), ("writer", self.site.writer.pid)]
        for part, pid in whose:
            for name, run_ns, slept in threads_of(pid).values():
                ns[part or part_of(name)] += run_ns
                sleeps[part or part_of(name)] += slept
        return ns, sleeps

    def start(self):
        self.before = self._read()

    def stop(self):
        return tuple({part: after[part] - before[part] for part in PARTS} for after, before in zip(self._read(), self.before))


def batches(site):
    """(batches that went to the writer, orders in them) so far."""
    text = site.control("GET", "/metrics").body.decode()
    return tuple(int(float(re.search(rf"^sluice_writer_batch_orders_{part} (\S+)", text, re.MULTILINE).group(1)))
                 for part in ("count", "sum"))


def resident_mib(pid):
    return int(re.search(r"^VmRSS:\s*(\d+) kB", read(f"/proc/{pid}/status"), re.MULTILINE).group(1)) / KIB_PER_MIB


# --- orders ---------------------------------------------------------------------------------------------------------------
def buy(site, work_dir, opened, seconds):
    """One round. Each order comes from a token of its own, signed with the site's keys."""
    count = int(TOKENS_PER_S * max(seconds, 0.5))
    sale = site.sale(stock=count)
    targets = signed_targets(site, sale, count, work_dir / "orders")
    account, meter = Account(site), Meter(site.link.napi, (site.daemon.pid, site.writer.pid))
    commits, in_commits = batches(site)
    account.start()
    seen = spent_on(meter, socket_clients(site.link, targets, opened, seconds, 201, "--once"), site.link)
    spent, sleeps = account.stop()
    # What clients had asked for and did not wait for is an order too, and it must be in the books.
    books = wait_until(lambda: (lambda now: now if now["in_flight"] == 0 else None)(sale.books()), "nothing is in flight")
    after_commits, after_in_commits = batches(site)
    if not (books["balanced"] and seen["done"] <= books["held"] == after_in_commits - in_commits):
        raise RuntimeError(f"{seen['done']} orders were answered, {after_in_commits - in_commits} sent to the writer, the books say {books}")
    wrong = sum(seen[kind] for kind in ("unexpected", "failed", "stuck"))
    if not seen["done"] or wrong > seen["done"] / 1000:
        raise RuntimeError(f"{wrong} of {seen['done'] + wrong} orders went wrong: {seen}")
    return {"orders": seen["done"], "seconds": seen["seconds"], "orders_per_second": seen["done"] / seen["seconds"],
            "p50_us": seen["p50_us"], "p99_us": seen["p99_us"],
            "server_us": sum(spent.values()) / seen["done"] / 1000, "busy_us": seen["busy_ns"] / seen["done"] / 1000,
            "commits_per_second": (after_commits - commits) / seen["seconds"],
            "orders_per_commit": (after_in_commits - in_commits) / (after_commits - commits),
            "us": {part: ns / seen["done"] / 1000 for part, ns in spent.items()},
            "sleeps": {part: number / seen["done"] for part, number in sleeps.items()}}


# --- where the time goes --------------------------------------------------------------------------------------------------
def server_threads(site):
    """{id: what it is called in KINDS}."""
    named = {str(pid): "napi" for pid in site.link.napi}
    named.update((task, f"writer {name}") for task, (name, _, _) in threads_of(site.writer.pid).items())
    for task, (name, _, _) in threads_of(site.daemon.pid).items():
        named[task] = name if name in ("maintenance", "heartbeat") else part_of(name)
    return named


def profile(site, work_dir):
    """Stacks of the server's threads in one more round, which is none of the figures: sampling costs the server time too."""
    recorder = profile_cpu.Recorder(work_dir)
    threads = server_threads(site)
    with recorder:
        seen = buy(site, work_dir, PROFILE_OPENED, PROFILE_SECONDS)
    stacks = recorder.samples(threads)
    return {"opened": PROFILE_OPENED, "orders": seen["orders"], "samples": sum(stacks.values()), "server_us": seen["server_us"],
            "shares": profile_cpu.shares(stacks, KINDS), "stacks": stacks}


# --- memory ---------------------------------------------------------------------------------------------------------------
def read_answer(file):
    """The status of the next answer; its body is read over."""
    status, length = int(file.readline().split()[1]), 0
    for line in iter(file.readline, b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    file.read(length)
    return status


def issue_tokens(site, sale, count):
    """As a shop's backend does it ahead of the opening: over one connection that stays open, some requests sent ahead."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(site.control_socket))
        file = connection.makefile("rb")
        for begin in range(0, count, ISSUED_AT_ONCE):
            bodies = [json.dumps({"buyer": f"customer-{begin + i}"}) for i in range(min(ISSUED_AT_ONCE, count - begin))]
            connection.sendall("".join(f"POST {sale.path}/tokens HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                                       f"Content-Length: {len(body)}\r\n\r\n{body}" for body in bodies).encode())
            for body in bodies:
                status = read_answer(file)
                if status not in (200, 201):
                    raise RuntimeError(f"a token for {body} was answered with {status}")


def memory(stack):
    """Resident MiB of the daemon with and without live tokens."""
    site = sluice_site(stack, settings=TOKEN_ROOM, real_time=True)
    sale = site.sale(stock=LIVE_TOKENS)
    before = resident_mib(site.daemon.pid)
    issue_tokens(site, sale, LIVE_TOKENS)
    text = site.control("GET", "/metrics").body.decode()
    live = sum(int(count) for count in re.findall(r"^sluice_tokens_live{.*} (\d+)$", text, re.MULTILINE))
    if live != LIVE_TOKENS:
        raise RuntimeError(f"{LIVE_TOKENS} tokens were issued and {live} are live")
    return {"tokens": LIVE_TOKENS, "resident_mib_before": before, "resident_mib": resident_mib(site.daemon.pid)}


# --- the comparison -------------------------------------------------------------------------------------------------------
def compare(stack, work_dir, seconds, say, versions):
    """Returns the comparison as it goes into peers.json."""
    del versions
    site = sluice_site(stack, settings={**UNLIMITED, **KEEP_LARGE}, real_time=True)
    before_orders = resident_mib(site.daemon.pid)
    buy(site, work_dir, OPENED[0], seconds / 2)  # the first round finds cold caches and an empty ledger
    rounds = {opened: [] for opened in OPENED}
    for number in range(ROUNDS):
        say(f"durable orders, round {number + 1} of {ROUNDS}")
        for opened in OPENED:
            rounds[opened].append(buy(site, work_dir, opened, seconds))
    after_orders = {"orders": batches(site)[1], "more_mib": resident_mib(site.daemon.pid) - before_orders}
    skipped, profiled = [], None
    say("durable orders, sampled")
    try:
        profiled = profile(site, work_dir)
    except Skipped as reason:
        skipped.append(f"where the time of an order goes: {reason}")
    say(f"{LIVE_TOKENS:,} live tokens")
    tokens = memory(stack)
    rows = []
    for opened, seen in rounds.items():
        rows.append({"opened": opened, "raw": seen, "us": {part: spread([r["us"][part] for r in seen]) for part in PARTS},
                     "sleeps": {part: spread([r["sleeps"][part] for r in seen]) for part in PARTS},
                     **{figure: spread([r[figure] for r in seen])
                        for figure in ("orders_per_second", "p50_us", "p99_us", "server_us", "busy_us", "commits_per_second", "orders_per_commit")}})
    return {"title": TITLE, "rows": rows, "memory": {"after_orders": after_orders, "tokens": tokens}, "skipped": skipped, "profile": profiled,
            "targets": [{"text": f"resident MiB of the daemon with {LIVE_TOKENS:,} live tokens",
                         **judged(spread([tokens["resident_mib"]]), at_most=RSS_MAX_MIB)}]}


def show(result, table, plots, out):
    """Prints the tables and draws the plot."""
    table(f'{result["title"]} over kernel sockets, one CPU for gate, daemon and writer',
          ["open", "a second", "min..max", "p50 ms", "p99 ms", "server us", "whole CPU us", "commits/s", "orders a commit"],
          [[f'{row["opened"]}', f'{row["orders_per_second"]["median"]:,.0f}',
            f'{row["orders_per_second"]["min"]:,.0f}..{row["orders_per_second"]["max"]:,.0f}', f'{row["p50_us"]["median"] / 1000:.2f}',
            f'{row["p99_us"]["median"] / 1000:.2f}', f'{row["server_us"]["median"]:.1f}', f'{row["busy_us"]["median"]:.1f}',
            f'{row["commits_per_second"]["median"]:,.0f}', f'{row["orders_per_commit"]["median"]:.1f}'] for row in result["rows"]])
    table("Whose time it is, us an order (in brackets: sleeps an order)", ["open", *PARTS],
          [[f'{row["opened"]}', *(f'{row["us"][part]["median"]:.1f} ({row["sleeps"][part]["median"]:.2f})' for part in PARTS)]
           for row in result["rows"]])
    if result["profile"]:
        # Files of their own: too long for peers.json.
        sampled, stacks = result["profile"], result["profile"].pop("stacks")
        title = f'Where the time of an order goes, {sampled["opened"]} open: {sampled["samples"]:,} samples of the server, {sampled["orders"]:,} orders'
        table(title, ["", "share", "us an order"],
              [[name, f"{100 * share:.1f} %", f'{share * sampled["server_us"]:.1f}'] for name, share in sampled["shares"]])
        profile_cpu.write_folded(out / "peers-orders.folded", stacks)
        profile_cpu.write_flame(out / "peers-orders-flame.svg", title, stacks)
    tokens, after = result["memory"]["tokens"], result["memory"]["after_orders"]
    table("The daemon's memory, resident MiB", ["", "MiB"],
          [["before the first token", f'{tokens["resident_mib_before"]:.1f}'],
           [f'{tokens["tokens"]:,} live tokens', f'{tokens["resident_mib"]:.1f}'],
           [f'for {after["orders"]:,} orders on top', f'{after["more_mib"]:.1f}']])
    plots["plot_bars"](out / "peers-orders.svg", f'{result["title"]}: whose time it is', "microseconds of the server's CPU an order",
                       [(f'{part}, {row["opened"]} open', *(row["us"][part][value] for value in ("median", "min", "max")))
                        for row in result["rows"] for part in PARTS])
