# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Comparison 3: decisions on stock a second, each program by the path that its users take.

Two kinds of decision, and a figure of one kind says nothing about the other:
- durable: when the client hears "yours", a crash of anything takes it from nobody. Sluice's 201, PostgreSQL's COMMIT, Redis with
  appendfsync always.
- decided only: the count has gone down in memory. Redis without a log; Sluice's gate alone, from the SYN to the record in the ring,
  with a daemon that stands still and a kernel that drops what the gate lets through.
Redis and PostgreSQL are asked on connections that stay open; Sluice's figures hold a whole TCP conversation for every decision.
"""
import csv
import io
import os
import pathlib
import pwd
import re
import signal

from lab import (PORT, SERVER, TOOLS, UNLIMITED, Meter, Site, Skipped, cpu, frame_clients, need, on_cpu, paired, run, signed_targets,
                 sluice_site, socket_clients, spent_on, spread, version_of, wait_until)

TITLE = "A decision on stock"
ROUNDS = 5
SOCKETS_OPEN, FRAMES_OPEN = 256, 64
# More tokens than a round can use: each is good for one order.
DURABLE_TOKENS_PER_S, DECIDED_TOKENS = 40_000, 100_000
REDIS_PORT = 6379
REDIS_CLIENTS, REDIS_PIPELINE, PG_CLIENTS = 50, 16, 16
REDIS_SCRIPT = "local left=tonumber(redis.call('GET',KEYS[1])) if left and left>0 then redis.call('DECR',KEYS[1]) return 1 end return 0"
STOCK = 1_000_000_000
PG_BIN = "/usr/lib/postgresql"
PG_TABLES = """CREATE TABLE sale(id int PRIMARY KEY, stock bigint NOT NULL);
INSERT INTO sale VALUES (1, 1000000000);
CREATE TABLE orders(id bigserial PRIMARY KEY, sale int NOT NULL, buyer bigint NOT NULL, at timestamptz NOT NULL DEFAULT now());
"""
# One statement, one round trip, prepared: the unit and the order in one transaction.
PG_DECISION = """\\set buyer random(1, 1000000000)
WITH taken AS (UPDATE sale SET stock = stock - 1 WHERE id = 1 AND stock > 0 RETURNING id)
INSERT INTO orders(sale, buyer) SELECT id, :buyer FROM taken;
"""
KEEP_LARGE = {"gate.max_admissions": 1048576, "gate.ring_bytes": 134217728, "gate.backlog_max": 0}


class Contestant:
    """`decide(seconds)` returns {"decisions", "seconds", server_ns…}."""

    def __init__(self, name, kind, decide):
        self.name, self.kind, self.decide, self.rounds = name, kind, decide, []

    def measure(self, seconds):
        seen = self.decide(seconds)
        if not seen["decisions"]:
            raise RuntimeError(f"{self.name}: not one decision: {seen}")
        self.rounds.append({**seen, "decisions_per_second": seen["decisions"] / seen["seconds"],
                            "server_us": seen["server_ns"] / seen["decisions"] / 1000,
                            "busy_us": seen["busy_ns"] / seen["decisions"] / 1000})


# --- Sluice ---------------------------------------------------------------------------------------------------------------
def check(name, seen):
    wrong = sum(seen.get(kind, 0) for kind in ("unexpected", "failed", "stuck"))
    if wrong > seen["done"] / 1000:
        raise RuntimeError(f"{name}: {wrong} of {seen['done'] + wrong} conversations went wrong: {seen}")


def durable_orders(stack, work_dir):
    """The whole way: handshake, gate, kernel, daemon, writer, fsync, 201."""
    site = sluice_site(stack, settings={**UNLIMITED, **KEEP_LARGE})
    meter = Meter(site.link.napi, (site.daemon.pid, site.writer.pid))

    def by(clients, opened):
        def decide(seconds):
            count = int(DURABLE_TOKENS_PER_S * max(seconds, 0.5))
            sale = site.sale(stock=count)
            targets = signed_targets(site, sale, count, work_dir / "orders")
            seen = spent_on(meter, clients(site.link, targets, opened, seconds, 201, "--once"), site.link)
            check("Sluice, durable orders", seen)
            return {**seen, "decisions": seen["done"]}
        return decide
    return [Contestant(f"Sluice, order, {SOCKETS_OPEN} sockets", "durable", by(socket_clients, SOCKETS_OPEN)),
            Contestant(f"Sluice, order, {FRAMES_OPEN} dense", "durable", by(frame_clients, FRAMES_OPEN))]


def gate_alone(stack, work_dir):
    """From the SYN to the record in the ring. The daemon and the writer are stopped, a helper keeps the daemon's sign of life going, and
    what the gate lets through is dropped behind it."""
    site = sluice_site(stack, settings={**UNLIMITED, **KEEP_LARGE})
    sales = [site.sale(stock=DECIDED_TOKENS) for _ in range(ROUNDS)]
    for number, sale in enumerate(sales):
        signed_targets(site, sale, DECIDED_TOKENS, work_dir / f"decide-{number}")
    nft = need("nft", "nftables")
    site.shop.run([nft, f"table netdev behind {{ chain gate {{ type filter hook ingress device {site.link.device} priority 0; "
                        f"tcp dport {PORT} drop; }}; }}"])
    heart = site.shop.start(on_cpu(cpu.clients, [TOOLS / "prepare", "heartbeat", site.pin_dir, 3600]), work_dir / "heartbeat.log")
    stack.callback(heart.stop)
    for process in (site.daemon, site.writer):
        process.popen.send_signal(signal.SIGSTOP)
        stack.callback(process.kill)
    meter = Meter(site.link.napi)
    turns = iter(enumerate(sales))

    def taken(sale):
        key = (sale.id % 1024).to_bytes(4, "little")
        value = next(value for found, value in site.map_dump("stock") if found == key)
        return int.from_bytes(value[72:80], "little")

    def decide(seconds):
        number, sale = next(turns)
        seen = spent_on(meter, frame_clients(site.link, work_dir / f"decide-{number}", FRAMES_OPEN, seconds, 0, "--once", "--fire"), site.link)
        decisions = taken(sale)
        if abs(decisions - seen["done"]) > seen["done"] / 100:
            raise RuntimeError(f"the gate took {decisions} units for {seen['done']} requests: {seen}")
        return {**seen, "decisions": decisions}
    return [Contestant("Sluice's gate alone, yes", "decided only", decide)]


def refusals(stack, work_dir):
    """A no: a whole conversation, answered and closed by the gate."""
    site = sluice_site(stack, settings=UNLIMITED)
    targets = signed_targets(site, site.sale(stock=0), 4096, work_dir / "sold-out")
    meter = Meter(site.link.napi, (site.daemon.pid, site.writer.pid))

    def decide(seconds):
        seen = spent_on(meter, frame_clients(site.link, targets, FRAMES_OPEN, seconds, 409), site.link)
        check("Sluice, sold out", seen)
        return {**seen, "decisions": seen["done"]}
    return [Contestant("Sluice's gate, no: sold out, answered", "decided only", decide)]


# --- Redis ----------------------------------------------------------------------------------------------------------------
def redis(stack, work_dir, versions, durable):
    server, bench, client = need("redis-server", "redis-server"), need("redis-benchmark", "redis-tools"), need("redis-cli", "redis-tools")
    versions["redis"] = version_of([server, "--version"])
    name = "redis-durable" if durable else "redis"
    site = Site(stack, work_dir, name)
    log = ["--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"] if durable else ["--appendonly", "no"]
    process = site.start([server, "--bind", SERVER, "--port", REDIS_PORT, "--protected-mode", "no", "--save", "", "--dir", site.dir, *log])
    site.wait_listening(process, REDIS_PORT)
    meter = Meter(site.link.napi, (process.pid,))
    base = ["-h", SERVER, "-p", REDIS_PORT]
    script = site.crowd.run([client, *base, "SCRIPT", "LOAD", REDIS_SCRIPT]).stdout.strip()

    def by(pipeline):
        speed = [20_000 if durable else 50_000]

        def decide(seconds):
            site.crowd.run([client, *base, "SET", "stock", STOCK])
            count = max(1000, int(speed[0] * seconds))
            meter.start()
            done = site.crowd.run(on_cpu(cpu.clients, [bench, *base, "-c", REDIS_CLIENTS, "-P", pipeline, "-n", count, "--csv", "EVALSHA", script, 1,
                                                       "stock"]))
            spent = meter.stop()
            left = int(site.crowd.run([client, *base, "GET", "stock"]).stdout)
            rate = float(list(csv.reader(io.StringIO(done.stdout)))[-1][1])
            speed[0] = rate  # so that the next round takes as long as it shall
            return {**spent, "decisions": STOCK - left, "seconds": (STOCK - left) / rate}
        return decide
    log_text = ", appendfsync always" if durable else ", no log"
    kind = "durable" if durable else "decided only"
    return [Contestant(f"Redis{log_text}, {REDIS_CLIENTS} clients", kind, by(1)),
            Contestant(f"Redis{log_text}, {REDIS_CLIENTS} clients, pipelined by {REDIS_PIPELINE}", kind, by(REDIS_PIPELINE))]


# --- PostgreSQL -----------------------------------------------------------------------------------------------------------
def postgres_tools():
    found = sorted(pathlib.Path(PG_BIN).glob("*/bin/initdb"), key=lambda path: int(re.sub(r"\D", "", path.parts[-3]) or 0))
    if not found:
        raise Skipped("postgresql is not installed (apt-get install postgresql)")
    try:
        return found[-1].parent, pwd.getpwnam("postgres")
    except KeyError:
        raise Skipped("there is no user postgres to run the server as") from None


def postgres(stack, work_dir, versions):
    tools, user = postgres_tools()
    versions["postgresql"] = version_of([tools / "postgres", "--version"])
    home = work_dir / "postgres"
    home.mkdir()
    os.chmod(work_dir, 0o711)
    os.chown(home, user.pw_uid, user.pw_gid)
    site = Site(stack, work_dir, "postgres-net")  # for its log and its life; the clients come by a Unix socket
    become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "env", f"HOME={home}"]
    run([*become, tools / "initdb", "-D", home / "data", "-A", "trust", "-U", "postgres", "--no-sync"], timeout=120)
    process = site.start([*become, tools / "postgres", "-D", home / "data", "-k", home, "-c", "listen_addresses="])
    ask = [*become, tools / "psql", "-h", home, "-U", "postgres", "-d", "postgres", "-q", "-v", "ON_ERROR_STOP=1", "-t", "-A"]

    def ready():
        if not process.running():
            raise RuntimeError(f"postgres ended at once:\n{process.log()}")
        return run([*ask, "-c", "SELECT 1"], check=False).returncode == 0
    wait_until(ready, "PostgreSQL answers", timeout=30)
    run([*ask, "-f", "-"], input=PG_TABLES)
    script = home / "decision.sql"
    script.write_text(PG_DECISION, encoding="ascii")
    meter = Meter((), (process.pid,))

    def decide(seconds):
        before = int(run([*ask, "-c", "SELECT stock FROM sale"]).stdout)
        whole = max(2, round(seconds))  # pgbench knows whole seconds; its connections are made in the first
        meter.start()
        run(on_cpu(cpu.clients, [*become, tools / "pgbench", "-h", home, "-U", "postgres", "-n", "-M", "prepared", "-c", PG_CLIENTS, "-j", 1, "-T",
                                 whole, "-f", script, "postgres"]))
        spent = meter.stop()
        after, orders = (int(n) for n in run([*ask, "-F", " ", "-c", "SELECT stock, (SELECT count(*) FROM orders) FROM sale"]).stdout.split())
        if STOCK - after != orders:
            raise RuntimeError(f"PostgreSQL: {STOCK - after} units were taken for {orders} orders")
        return {**spent, "decisions": before - after, "seconds": whole}
    return [Contestant(f"PostgreSQL, UPDATE and INSERT, {PG_CLIENTS} clients", "durable", decide)]


# --- the comparison -------------------------------------------------------------------------------------------------------
def compare(stack, work_dir, seconds, say, versions):
    """Returns the comparison as it goes into peers.json."""
    contestants, skipped = [], []
    for opener, more in ((durable_orders, ()), (redis, (versions, True)), (postgres, (versions,)), (gate_alone, ()), (refusals, ()),
                         (redis, (versions, False))):
        try:
            contestants += opener(stack, work_dir, *more)
        except Skipped as reason:
            skipped.append(str(reason))
    for number in range(ROUNDS):
        say(f"decisions on stock, round {number + 1} of {ROUNDS}")
        for contestant in contestants:
            contestant.measure(seconds)
    rows = [{"name": entry.name, "kind": entry.kind, "raw": entry.rounds,
             **{figure: spread([r[figure] for r in entry.rounds]) for figure in ("decisions_per_second", "server_us", "busy_us")}}
            for entry in contestants]
    first = {}
    for row in rows:
        base = first.setdefault(row["kind"], row)
        row["ratio"] = paired(base["raw"], row["raw"], "decisions_per_second")["median"]
        row["cpu_ratio"] = paired(row["raw"], base["raw"], "server_us")["median"]
    return {"title": TITLE, "rows": rows, "skipped": skipped, "targets": []}


def show(result, table, plots, out):
    """Prints the table and draws the plots."""
    for kind in ("durable", "decided only"):
        rows = [row for row in result["rows"] if row["kind"] == kind]
        if not rows:
            continue
        table(f'{result["title"]}, {kind}', ["", "a second", "min..max", "first / this", "server us", "this / first", "whole CPU"],
              [[row["name"], f'{row["decisions_per_second"]["median"]:,.0f}',
                f'{row["decisions_per_second"]["min"]:,.0f}..{row["decisions_per_second"]["max"]:,.0f}', f'{row["ratio"]:.2f}',
                f'{row["server_us"]["median"]:.2f}', f'{row["cpu_ratio"]:.1f}', f'{row["busy_us"]["median"]:.2f}'] for row in rows])
        plots["plot_bars"](out / f"peers-stock-{kind.split()[0]}.svg", f'{result["title"]}, {kind}', "decisions a second",
                           [(row["name"], *(row["decisions_per_second"][part] for part in ("median", "min", "max"))) for row in rows], log=True)
