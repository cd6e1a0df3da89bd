# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Comparison 1: what a whole refused HTTP conversation (connect, request, answer, close) costs the server's side.

Who sends into a veth wakes the thread that receives at its other end, if it sleeps: so a server pays for the waking of its clients, which on a wire nobody
does. A server that answers one frame at a time pays it for nearly each, one that answers in batches once for several. So the dense clients come in two
kinds: as veth has it, and with their end of the pair served by a timer, which nobody need wake.

The same client with the same bytes meets Sluice's gate, nginx, HAProxy, and Sluice's own daemon behind a socket. A peer's
configuration stands here as it is used; docs/peers.md says why it is what it is.
"""
import contextlib

from lab import (PORT, SERVER, UNLIMITED, Link, Meter, Namespace, Site, Skipped, bpf_stats, frame_clients, judged, moderate_napi, need, paired,
                 program_runs, run, signed_targets, sluice_site, socket_clients, spent_on, spread, unique_name, version_of, world, xdp_program_of)

TITLE = "A refused HTTP conversation"
OPEN = 64  # up to three frames of each are under way at a time, and a veth ring holds 256
WARM_UP_S = 0.3
TOKENS = 4096
CLIENTS = {"frames": frame_clients, "timer": frame_clients, "sockets": socket_clients}
TIMER_US = 20  # cards come with some 8 to 50
# Rounds, and the length of one in those of run.py. The host gives and takes CPU by the second: many short turns meet it alike, few long ones do not.
ROUNDS = {"frames": (24, 0.4), "timer": (12, 0.4), "sockets": (5, 1)}
FIGURES = ("server_us", "busy_us", "softirq_us", "process_us", "conversations_per_second")
TARGET_RATIO = 20  # nginx may need no less than this many times the CPU time of Sluice
SIDE_SERVER, SIDE_CLIENT, SIDE_NET, SIDE_SOURCES = "10.75.0.1", "10.75.0.2", "10.76.0.0/16", ("10.76.0.1", 4096)
SIDE_DEVICE = "side0"

# As long as what the gate sends for sold_out.
BODY = '{"title":"Sold out","status":409,"code":"sold_out","detail":"Every unit of this sale has been sold."}'

NGINX = """
daemon off;
user root;
pid {dir}/nginx.pid;
error_log {dir}/error.log crit;
worker_processes 1;
worker_rlimit_nofile 20000;
events {{ worker_connections 8192; use epoll; multi_accept on; accept_mutex off; }}
http {{
	access_log off;
	server_tokens off;
	keepalive_timeout 0;
	lingering_close off;
	default_type application/problem+json;
	client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
	uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
	server {{
		listen {server}:{port} backlog=8192 reuseport deferred;
		location / {{ return 409 '{body}'; }}
	}}
}}
"""

HAPROXY = """
global
	nbthread 1
	maxconn 4000
defaults
	mode http
	option httpclose
	timeout connect 5s
	timeout client 5s
	timeout server 5s
	timeout http-request 5s
frontend shop
	bind {server}:{port} backlog 8192 defer-accept
	maxconn 4000
	stick-table type ip size 100k expire 60s store http_req_rate(10s),conn_rate(10s)
	{rules}
"""
HAPROXY_DENY = """http-request track-sc0 src
	http-request deny status 429 if { sc_http_req_rate(0) gt 0 }"""
HAPROXY_REJECT = """tcp-request connection track-sc0 src
	tcp-request connection reject if { sc_conn_rate(0) gt 0 }"""


class Contestant:
    """Somebody who refuses: on which link, with what answer, and whose CPU time counts. `rounds`: by kind of client."""

    def __init__(self, name, link, meter, expect, targets):
        self.name, self.link, self.meter, self.expect, self.targets = name, link, meter, expect, targets
        self.rounds = {kind: [] for kind in CLIENTS}

    def measure(self, clients, seconds):
        seen = spent_on(self.meter, clients(self.link, self.targets, OPEN, seconds, self.expect), self.link)
        wrong = sum(seen.get(kind, 0) for kind in ("unexpected", "failed", "stuck"))
        if not seen["done"] or wrong > seen["done"] / 1000:
            raise RuntimeError(f"{self.name}: {seen['done']} conversations went as they should and {wrong} did not: {seen}")
        per_us = 1 / (seen["done"] * 1000)
        return {**seen, "conversations_per_second": seen["done"] / seen["seconds"], "server_us": seen["server_ns"] * per_us,
                "busy_us": seen["busy_ns"] * per_us, "softirq_us": seen["softirq_ns"] * per_us,
                "process_us": seen["process_ns"] * per_us}


def add_side_door(stack, site):
    """A second way to the daemon, past the gate: what arrives there is judged at the call door."""
    crowd = Namespace(unique_name("side"))
    stack.callback(crowd.delete)
    run(["ip", "link", "add", SIDE_DEVICE, "netns", site.shop.name, "type", "veth", "peer", "name", SIDE_DEVICE, "netns", crowd.name])
    for namespace, address in ((site.shop, SIDE_SERVER), (crowd, SIDE_CLIENT)):
        namespace.run(["ip", "addr", "add", f"{address}/24", "dev", SIDE_DEVICE])
        namespace.run(["ip", "link", "set", SIDE_DEVICE, "up"])
    crowd.run(["ip", "route", "add", "local", SIDE_NET, "dev", "lo"])
    site.shop.run(["ip", "route", "add", SIDE_NET, "via", SIDE_CLIENT])
    crowd.run(["ip", "link", "set", "dev", SIDE_DEVICE, "xdp", "obj", world.PASS_OBJECT, "sec", "xdp"])
    return Link(crowd, site.shop, SIDE_DEVICE, SIDE_SERVER, SIDE_SOURCES)


def open_sluice(stack, work_dir):
    site = sluice_site(stack, settings=UNLIMITED)
    sale = site.sale(stock=0)
    sold_out = signed_targets(site, sale, TOKENS, work_dir / "sold-out")
    forged = work_dir / "forged"
    with open(sold_out, encoding="ascii") as good, open(forged, "w", encoding="ascii") as bad:
        # One of the first characters of the MAC is another one.
        bad.writelines(f"{line[:-5]}{'A' if line[-5] != 'A' else 'B'}{line[-4:]}" for line in good)
    roots = (site.daemon.pid, site.writer.pid)
    side = add_side_door(stack, site)
    return [
        Contestant("Sluice, sold out", site.link, Meter(site.link.napi, roots), 409, sold_out),
        Contestant("Sluice, forged token", site.link, Meter(site.link.napi, roots), 401, forged),
        Contestant("Sluice's daemon (call door)", side, Meter(side.napi, roots), 409, sold_out),
    ]


def open_nginx(stack, work_dir, targets, versions):
    program = need("nginx", "nginx-light")
    versions["nginx"] = version_of([program, "-v"])
    site = Site(stack, work_dir, "nginx")
    config = site.dir / "nginx.conf"
    config.write_text(NGINX.format(dir=site.dir, server=SERVER, port=PORT, body=BODY), encoding="ascii")
    process = site.start([program, "-c", config, "-p", site.dir])
    site.wait_listening(process)
    return Contestant("nginx, return 409", site.link, Meter(site.link.napi, (process.pid,)), 409, targets)


def open_haproxy(stack, work_dir, targets, versions, how):
    program = need("haproxy", "haproxy")
    versions["haproxy"] = version_of([program, "-v"])
    rules, expect, name = {"deny": (HAPROXY_DENY, 429, "HAProxy, deny 429"),
                           "reject": (HAPROXY_REJECT, 0, "HAProxy, connection reject (no answer)")}[how]
    site = Site(stack, work_dir, f"haproxy-{how}")
    config = site.dir / "haproxy.cfg"
    config.write_text(HAPROXY.format(server=SERVER, port=PORT, rules=rules), encoding="ascii")
    process = site.start([program, "-db", "-f", config])
    site.wait_listening(process)
    return Contestant(name, site.link, Meter(site.link.napi, (process.pid,)), expect, targets)


def compare(stack, work_dir, seconds, say, versions):
    """Returns the comparison as it goes into peers.json."""
    contestants = open_sluice(stack, work_dir)
    targets, skipped = contestants[0].targets, []
    for opener, more in ((open_nginx, ()), (open_haproxy, ("deny",)), (open_haproxy, ("reject",))):
        try:
            contestants.append(opener(stack, work_dir, targets, versions, *more))
        except Skipped as reason:
            skipped.append(str(reason))
    for contestant in contestants:
        for clients in (frame_clients, socket_clients):
            contestant.measure(clients, WARM_UP_S)
    for kind, (rounds, share) in ROUNDS.items():
        say(f"refused conversations, clients of {kind}, {rounds} rounds")
        with clients_of(kind, contestants):
            for number in range(rounds):
                for contestant in contestants if number % 2 == 0 else reversed(contestants):
                    contestant.rounds[kind].append(contestant.measure(CLIENTS[kind], seconds * share))
    rows = [row_of(contestant) for contestant in contestants]
    for row in rows:
        for kind in CLIENTS:
            row[kind]["ratio"] = paired(row[kind]["raw"], rows[0][kind]["raw"], "server_us")
    rows[0]["gate"] = gate_share(contestants[0])
    nginx = next((row for row in rows if row["name"].startswith("nginx")), None)
    return {"title": TITLE, "rows": rows, "skipped": skipped, "open_connections": OPEN, "targets": [] if not nginx else [
        {"text": "server CPU of a refused conversation, nginx / Sluice, dense load",
         **judged(nginx["frames"]["ratio"], at_least=TARGET_RATIO)},
        {"text": f"the same, clients served each {TIMER_US} us", **judged(nginx["timer"]["ratio"], at_least=TARGET_RATIO)}]}


@contextlib.contextmanager
def clients_of(kind, contestants):
    """The clients' ends of all pairs as this kind has them."""
    if kind != "timer":
        yield
        return
    try:
        for contestant in contestants:
            moderate_napi(contestant.link.crowd, contestant.link.device, TIMER_US)
        yield
    finally:
        for contestant in contestants:
            moderate_napi(contestant.link.crowd, contestant.link.device, 0)


def row_of(contestant):
    row = {"name": contestant.name}
    for kind, rounds in contestant.rounds.items():
        row[kind] = {figure: spread([entry[figure] for entry in rounds]) for figure in FIGURES}
        row[kind]["raw"] = rounds
    row["sockets"]["p50_us"] = spread([entry["p50_us"] for entry in contestant.rounds["sockets"]])
    row["sockets"]["p99_us"] = spread([entry["p99_us"] for entry in contestant.rounds["sockets"]])
    return row


def gate_share(contestant):
    """How much of it is the gate's program itself, as the kernel's own statistics of BPF programs have it; they cost time, too."""
    program = xdp_program_of(contestant.link.shop)
    with bpf_stats() as stats:
        if not stats.on:
            return None
        runs, ns = program_runs(program)
        seen = contestant.measure(frame_clients, WARM_UP_S)
        runs, ns = (after - before for after, before in zip(program_runs(program), (runs, ns)))
    return {"runs_per_conversation": runs / seen["done"], "us_per_conversation": ns / seen["done"] / 1000}


def show(result, table, plots, out):
    """Prints the tables and draws the plot."""
    for kind, text in (("frames", "dense load (clients without sockets)"), ("timer", f"dense load, clients served each {TIMER_US} us"),
                       ("sockets", "clients on kernel sockets")):
        head = ["", "us", "min..max", "x Sluice", "softirq", "process", "whole CPU", "per second"]
        rows = []
        for row in result["rows"]:
            part = row[kind]
            rows.append([row["name"], f'{part["server_us"]["median"]:.2f}', f'{part["server_us"]["min"]:.2f}..{part["server_us"]["max"]:.2f}',
                         f'{part["ratio"]["median"]:.1f}', *(f'{part[figure]["median"]:.2f}' for figure in ("softirq_us", "process_us", "busy_us")),
                         f'{part["conversations_per_second"]["median"]:.0f}'])
            if kind == "sockets":
                rows[-1] += [f'{part["p50_us"]["median"]:.0f}', f'{part["p99_us"]["median"]:.0f}']
        table(f'{result["title"]}: CPU time of the server\'s side, {text}', head + (["p50 us", "p99 us"] if kind == "sockets" else []), rows)
        plots["plot_bars"](out / f"peers-refusals-{kind}.svg", f'{result["title"]}, {text}', "microseconds of CPU on the server's side",
                           [(row["name"], row[kind]["server_us"]["median"], row[kind]["server_us"]["min"], row[kind]["server_us"]["max"])
                            for row in result["rows"]], log=True)
    gate = result["rows"][0]["gate"]
    if gate:
        print(f'  of Sluice\'s, the gate\'s program: {gate["us_per_conversation"]:.2f} us in {gate["runs_per_conversation"]:.1f} runs '
              "(measured apart, with the kernel's statistics on)")
