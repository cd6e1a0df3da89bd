# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""A shop and a crowd: two namespaces joined by a veth pair, the gate on the shop's end, writer and daemon behind it.

    crowd namespace                            shop namespace
      curl, wrk, sockets, raw frames  veth0 ──── veth0 ─ XDP gate ─ sluiced ─ sluice-writer
      10.71.0.2   fd71::2                        10.71.0.1  fd71::1
      10.72.0.0/16, fd72::/32: many sources, all of them the crowd's own
      10.73.0.0/16, fd73::/32: sources without a kernel behind them, for raw clients and spoofers
      10.74.0.x,    fd74::x: the same veth pair, tagged (VLAN 42), if asked for

Everything has a name with our process id in it, and everything is gone after close(), whatever happened before.
"""
import contextlib
import datetime
import http.client
import itertools
import json
import os
import pathlib
import shutil
import socket
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "fault"))
import world_history
import talk
from netns import Failed, Namespace, run, unique_name, wait_until
from tokens import Token

BUILD = pathlib.Path(os.environ.get("SLUICE_BUILD") or pathlib.Path(__file__).resolve().parents[2] / "build")
SLUICE, SLUICED, WRITER = BUILD / "sluice", BUILD / "sluiced", BUILD / "sluice-writer"
PASS_OBJECT = BUILD / "bpf" / "pass.bpf.o"
BPFTOOL = shutil.which("bpftool") or "/usr/sbin/bpftool"
BPFFS = pathlib.Path("/sys/fs/bpf")

DEVICE = "veth0"
PORT = 8080
CONTROL_PORT = 9180
VLAN = 42
FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
SHOP = {"ipv4": "10.71.0.1", "ipv6": "fd71::1"}
CROWD = {"ipv4": "10.71.0.2", "ipv6": "fd71::2"}
SHOP_TAGGED = {"ipv4": "10.74.0.1", "ipv6": "fd74::1"}
LOADER_TURN_S = 120

# Small maps: dozens of gates are attached in a run. Token issue is not what most tests are about, so it is not limited.
DEFAULTS = {
    "gate.max_prefixes": 4096, "gate.max_admissions": 16384, "gate.max_tokens": 16384, "gate.max_sources": 8192,
    "gate.ring_bytes": 262144,
    "daemon.issue_source": {"rate": 0.0, "burst": 1}, "daemon.issue_buyer": {"rate": 0.0, "burst": 1},
}


def libconfig(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, dict):
        return "{ " + " ".join(f"{key} = {libconfig(item)};" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "( " + ", ".join(libconfig(item) for item in value) + " )"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def config_text(settings):
    """{"gate.pin_dir": …, "services": […]} as a config file."""
    sections, lines = {}, []
    for key, value in settings.items():
        section, dot, name = key.partition(".")
        if dot:
            sections.setdefault(section, {})[name] = value
        else:
            lines.append(f"{key} = {libconfig(value)};")
    lines += [f"{name}: {libconfig(values)};" for name, values in sections.items()]
    return "\n".join(lines) + "\n"


def rfc3339(when):
    """Seconds since 1970 as the API writes times."""
    text = datetime.datetime.fromtimestamp(when, datetime.timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def seconds_of(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class Network:
    """A shop's namespace, and its veth pair to the crowd's. Several shops can stand before one crowd (`crowd`): each has a number, a device in the
    crowd's namespace and subnets that tell it.
    """

    def __init__(self, stack, tagged=False, crowd=None, number=0):
        self.shop = Namespace(unique_name("shop"))
        stack.callback(self.shop.delete)
        self.crowd, self.number = crowd, number
        self.crowd_device = f"{DEVICE}n{number}" if number else DEVICE
        self.address = {"ipv4": f"10.71.{number}.1", "ipv6": f"fd71:0:0:{number:x}::1"} if number else SHOP
        self.crowd_address = {"ipv4": f"10.71.{number}.2", "ipv6": f"fd71:0:0:{number:x}::2"} if number else CROWD
        if not crowd:
            self.crowd = self.new_crowd(stack)
        # Born inside: in no other namespace is there ever a device of that name to collide with.
        run(["ip", "link", "add", DEVICE, "netns", self.shop.name, "type", "veth", "peer", "name", self.crowd_device, "netns",
             self.crowd.name])
        for ns, device, address in ((self.shop, DEVICE, self.address), (self.crowd, self.crowd_device, self.crowd_address)):
            ns.sysctl("net.ipv6.conf.default.accept_dad", 0)
            ns.sysctl(f"net.ipv6.conf.{device}.accept_dad", 0)
            ns.sysctl(f"net.ipv6.conf.{device}.accept_ra", 0)
            ns.run(["ethtool", "-K", device, "rxvlan", "off", "txvlan", "off"])
            ns.run(["ip", "addr", "add", f"{address['ipv4']}/24", "dev", device])
            ns.run(["ip", "addr", "add", f"{address['ipv6']}/64", "dev", device, "nodad"])
            ns.run(["ip", "link", "set", device, "up"])
        self.shop.sysctl("net.ipv4.tcp_syncookies", 2)
        for net in ("10.72.0.0/16", "10.73.0.0/16"):
            self.shop.run(["ip", "route", "add", net, "via", self.crowd_address["ipv4"]])
        for net in ("fd72::/32", "fd73::/32"):
            self.shop.run(["ip", "-6", "route", "add", net, "via", self.crowd_address["ipv6"]])
        if tagged:
            self._add_tagged()
        self.let_answers_in()

    @staticmethod
    def new_crowd(stack):
        """The namespace of a crowd with all its sources, before it is joined to a shop."""
        crowd = Namespace(unique_name("crowd"))
        stack.callback(crowd.delete)
        crowd.sysctl("net.ipv6.ip_nonlocal_bind", 1)
        crowd.run(["ip", "route", "add", "local", "10.72.0.0/16", "dev", "lo"])
        crowd.run(["ip", "-6", "route", "add", "local", "fd72::/32", "dev", "lo"])
        return crowd

    def _add_tagged(self):
        for ns, host in ((self.shop, 1), (self.crowd, 2)):
            ns.run(["ip", "link", "add", "link", DEVICE, "name", "tagged", "type", "vlan", "id", VLAN])
            ns.run(["ip", "addr", "add", f"10.74.0.{host}/24", "dev", "tagged"])
            ns.run(["ip", "addr", "add", f"fd74::{host}/64", "dev", "tagged", "nodad"])
            ns.run(["ip", "link", "set", "tagged", "up"])

    def let_answers_in(self):
        """veth delivers XDP_TX frames only to a peer with an XDP program of its own."""
        self.crowd.run(["ip", "link", "set", "dev", self.crowd_device, "xdp", "obj", PASS_OBJECT, "sec", "xdp"])

    def mac(self, ns):
        device = self.crowd_device if ns is self.crowd else DEVICE
        return json.loads(ns.run(["ip", "-j", "link", "show", "dev", device]).stdout)[0]["address"]


def has_vlan_devices():
    """Whether this kernel can make the device that Network(tagged=True) needs."""
    ns = Namespace(unique_name("probe"))
    try:
        return ns.run(["ip", "link", "add", "link", "lo", "name", "tagged", "type", "vlan", "id", VLAN],
                      check=False).returncode == 0
    finally:
        ns.delete()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Reply:
    """Answer of the control API."""

    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    def json(self):
        return json.loads(self.body)

    def code(self):
        return self.json().get("code")

    def __repr__(self):
        return f"{self.status} {self.body[:600]!r}"


class Refused(AssertionError):
    def __init__(self, question, reply):
        super().__init__(f"{question}: {reply!r}")
        self.reply = reply


class World:
    """The whole of it. `settings` are keys of the config file over DEFAULTS; `start`: what to start beyond the network; `crowd` and `number`: of a
    Network that shares its crowd with others.
    """

    def __init__(self, settings=None, start=("gate", "writer", "daemon"), tagged=False, mode="auto", crowd=None, number=0):
        self._stack = contextlib.ExitStack()
        self._sources = itertools.count(1)
        self._slugs = itertools.count(1)
        self.mode = mode
        self.build_dir = BUILD
        self.writer = self.daemon = None
        try:
            self.dir = pathlib.Path(tempfile.mkdtemp(prefix="sluice-e2e-"))
            self._stack.callback(shutil.rmtree, self.dir, ignore_errors=True)
            self.state_dir = self.dir / "state"
            self.state_dir.mkdir(mode=0o700)
            self.pin_dir = BPFFS / unique_name("pins")
            self.network = Network(self._stack, tagged=tagged, crowd=crowd, number=number)
            self.shop, self.crowd = self.network.shop, self.network.crowd
            self.control_socket = self.dir / "control.sock"
            self.history = world_history.WorldHistory(self)
            self.ledger = self.state_dir / "ledger.db"
            self.settings = {
                **DEFAULTS,
                "gate.pin_dir": self.pin_dir,
                "daemon.control_socket": self.control_socket,
                "daemon.state_dir": self.state_dir,
                "writer.socket": self.dir / "writer.sock",
                "writer.ledger": self.ledger,
                **(settings or {}),
            }
            self.ledger = pathlib.Path(self.settings["writer.ledger"])
            self.config = self.dir / "sluice.conf"
            self.write_config()
            self._stack.callback(self._remove_pins)
            self._stack.callback(self.history.judge)
            self._stack.callback(self.stop_programs)
            self._stack.callback(self.history.look_at_rest)
            if "gate" in start:
                self.attach()
            if "writer" in start:
                self.start_writer()
            if "daemon" in start:
                self.start_daemon()
        except BaseException:
            self.close()
            raise

    # --- life ---------------------------------------------------------------------------------------------------------
    def close(self):
        self._stack.close()

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        if error:
            self.history.no_verdict("the test failed")
        self.close()

    def write_config(self):
        self.config.write_text(config_text(self.settings), encoding="utf-8")

    def _remove_pins(self):
        """Also where detach would fail: when the last pin is gone, so is the gate."""
        if self.pin_dir.exists():
            shutil.rmtree(self.pin_dir, ignore_errors=True)

    def stop_programs(self):
        for process in (self.daemon, self.writer):
            if process:
                process.stop()

    def sluice(self, *args, check=True, **kwargs):
        """The operator's command, in the shop's namespace. Loaders take turns on a machine: if another run's is at work, ours waits."""
        deadline = time.monotonic() + LOADER_TURN_S
        while True:
            done = self.shop.run([SLUICE, *args], check=False, **kwargs)
            if "is at work on" not in done.stderr or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        if check and done.returncode != 0:
            raise Failed(f"sluice {' '.join(map(str, args))}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def cli(self, *args, **kwargs):
        """A command that talks to the daemon."""
        return self.sluice(*args, "--socket", self.control_socket, **kwargs)

    def attach(self, *args):
        return self.sluice("attach", DEVICE, "--mode", self.mode, "--config", self.config, *args)

    def start_writer(self, env=None):
        self.writer = self.history.watched("writer", self.shop.start([WRITER, "--config", self.config], self.dir / "writer.log", env=env))
        path = pathlib.Path(self.settings["writer.socket"])
        wait_until(lambda: path.exists() or not self.writer.running(), "the writer's socket")
        assert self.writer.running(), self.writer.log()
        self.history.note("up", part="writer")

    def start_daemon(self, env=None, ready=True, kept=None):
        """`kept`: a descriptor that it is handed as a service manager hands over one that it has kept."""
        argv, more = [SLUICED, "--config", self.config], {}
        if kept is not None:
            argv = ["bash", "-c", f'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&{kept}', "bash", *argv]
            more["pass_fds"] = (kept,)
        self.daemon = self.history.watched("daemon", self.shop.start(argv, self.dir / "daemon.log", env=env, **more))
        if "FAKETIME_TIMESTAMP_FILE" in (env or {}):
            self.history.note("clock")
        if ready:
            self.wait_ready()

    def is_ready(self):
        try:
            return self.control("GET", "/readyz").status == 200
        except OSError:
            return False

    def wait_ready(self):
        def ready():
            assert self.daemon.running(), "sluiced ended:\n" + self.daemon.log()
            return self.is_ready()
        try:
            wait_until(ready, "the daemon is ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n--- sluiced\n{self.daemon.log()}") from error
        wait_until(lambda: self.status()["orders_open"], "orders are open")
        self.history.note("up", part="daemon")

    # --- control API --------------------------------------------------------------------------------------------------
    def control(self, method, path, body=None, raw=None, headers=None, timeout=20):
        """One request over the Unix socket. `body` is sent as JSON, `raw` as it is."""
        connection = UnixConnection(self.control_socket, timeout)
        try:
            return self._exchange(connection, method, path, body, raw, headers)
        finally:
            connection.close()

    def control_tcp(self, method, path, body=None, headers=None, timeout=20):
        connection = http.client.HTTPConnection("127.0.0.1", CONTROL_PORT, timeout=timeout)
        connection.sock = self.shop.socket()
        try:
            connection.sock.settimeout(timeout)
            connection.sock.connect(("127.0.0.1", CONTROL_PORT))
            return self._exchange(connection, method, path, body, None, headers)
        finally:
            connection.close()

    def _exchange(self, connection, method, path, body, raw, headers):
        data = json.dumps(body).encode() if body is not None else raw
        headers = dict(headers or {})
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        with self.history.control(method, path, body, headers) as record:
            with contextlib.suppress(BrokenPipeError):  # a body that is refused before it is sent: the answer is there
                connection.request(method, path, body=data, headers=headers)
            record.reply = Reply(connection.getresponse())
        return record.reply

    def ask(self, method, path, body=None, expect=(200, 201, 204)):
        """As control(), but anything else than success is an exception. Returns the JSON."""
        reply = self.control(method, path, body)
        if reply.status not in expect:
            raise Refused(f"{method} {path} {body}", reply)
        return reply.json() if reply.body else None

    def status(self):
        return self.ask("GET", "/v1/status")

    def stats(self):
        return self.ask("GET", "/v1/stats")

    def packets(self, reason, service="shop"):
        """How many packets of a service ended with `reason` so far."""
        return self.stats()["packets"].get(service, {}).get(reason, {}).get("packets", 0)

    def calls(self, reason):
        return self.stats()["calls"].get(reason, 0)

    @contextlib.contextmanager
    def limits(self, **limits):
        """Limits for the length of a block: limits(source=(5, 5)) is rate and burst."""
        before = self.ask("GET", "/v1/limits")
        self.ask("PATCH", "/v1/limits", {name: {"rate": rate, "burst": burst} for name, (rate, burst) in limits.items()})
        try:
            yield
        finally:
            self.ask("PATCH", "/v1/limits", {name: before[name] for name in limits})

    # --- maps, from outside -------------------------------------------------------------------------------------------
    def map_dump(self, name):
        """[(key, value)] of a pinned map as bytes."""
        entries = json.loads(run([BPFTOOL, "-j", "map", "dump", "pinned", self.pin_dir / name]).stdout)
        return [(bytes(int(x, 16) for x in entry["key"]), bytes(int(x, 16) for x in entry["value"])) for entry in entries]

    def map_write(self, name, key, value):
        """One entry of a pinned map, as bytes."""
        run([BPFTOOL, "map", "update", "pinned", self.pin_dir / name, "key", "hex", *(f"{byte:02x}" for byte in key),
             "value", "hex", *(f"{byte:02x}" for byte in value)])

    def signing_keys(self):
        """{key id: (k0, k1)} of the slots in use."""
        keys = {}
        for _, value in self.map_dump("keys"):
            words = [int.from_bytes(value[i:i + 8], "little") for i in (0, 8)]
            if int.from_bytes(value[20:24], "little"):
                keys[int.from_bytes(value[16:20], "little")] = tuple(words)
        return keys

    # --- sales --------------------------------------------------------------------------------------------------------
    def sale(self, stock=10, opens_in=-1.0, ends_in=3600.0, slug=None, **fields):
        """A new sale that opened a second ago."""
        return Sale(self, slug or f"sale-{next(self._slugs)}", stock, opens_in, ends_in, fields)

    # --- the crowd ----------------------------------------------------------------------------------------------------
    def source(self, family="ipv4"):
        """An address of the crowd that nobody has used yet; each has its own /64, so each has its own rate."""
        n = next(self._sources)
        return f"10.72.{n // 250 % 250}.{n % 250 + 1}" if family == "ipv4" else f"fd72:0:0:{n:x}::1"

    def socket(self, family="ipv4", source=None, port=0):
        """A TCP socket of the crowd, bound to a fresh source (or to the one given)."""
        sock = self.crowd.socket(FAMILIES[family])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((source or self.source(family), port))
        return sock

    def connect(self, family="ipv4", source=None, port=0, to=None, to_port=PORT):
        sock = self.socket(family, source, port)
        try:
            return talk.Connection(sock, (to or self.network.address[family], to_port))
        except BaseException:
            sock.close()
            raise

    def public(self, method, target, body=None, family="ipv4", source=None, headers=()):
        """One request of a buyer on a connection of its own."""
        data = json.dumps(body).encode() if body is not None else b""
        headers = [*headers, ("Connection", "close")]
        if data:
            headers.append(("Content-Type", "application/json"))
        with self.history.buyer(method, target) as record, self.connect(family, source) as record.connection:
            record.connection.send(talk.request(method, target, headers, data))
            record.answer = record.connection.receive_only()
        return record.answer

    def order(self, token, family="ipv4", source=None):
        return self.public("POST", f"/v1/orders/{token}", family=family, source=source)

    def order_by_call_door(self, token, family="ipv4", source=None):
        """The same in one-byte segments, which XDP cannot read."""
        target = f"/v1/orders/{token}"
        with self.history.buyer("POST", target) as record, self.connect(family, source) as record.connection:
            data = talk.request("POST", target, [("Connection", "close")])
            record.connection.send_in_pieces(data, [1] * len(data), pause=0)
            record.answer = record.connection.receive_only()
        return record.answer

    def curl(self, target, *args, method="GET", family="ipv4", source=None, to=None, timeout=20):
        """Real curl. The result has exit code, the answer in parts, and the local port."""
        host = to or self.network.address[family]
        url = f"http://{'[' + host + ']' if ':' in host else host}:{PORT}{target}"
        with tempfile.TemporaryDirectory(dir=self.dir) as box, self.history.buyer(method, target) as record:
            head, body = pathlib.Path(box, "head"), pathlib.Path(box, "body")
            done = self.crowd.run(["curl", "-sS", "--http1.1", "--max-time", timeout, "-X", method, "--interface",
                                   source or self.source(family), "-D", head, "-o", body, "-w",
                                   "%{local_port} %{num_connects} %{size_download}", *args, url], check=False)
            done.answer = None
            if head.exists() and head.stat().st_size:
                done.answer, _ = talk.split_head(head.read_bytes())
                done.answer.body = body.read_bytes() if body.exists() else b""
            record.answer = done.answer if done.returncode == 0 else None
            done.local_port = int(done.stdout.split()[0]) if done.stdout.split() else 0
            return done

    def curl_order(self, token, *args, **kwargs):
        return self.curl(f"/v1/orders/{token}", *args, method="POST", **kwargs)

    def assert_no_socket(self, port, also_time_wait=True):
        """Nothing is left of a connection of the crowd's `port` on either side (`also_time_wait`: not even that)."""
        def left():
            found = [*self.crowd.tcp_sockets(port), *self.shop.tcp_sockets(port)]
            return [entry for entry in found if also_time_wait or entry[0] != "TIME-WAIT"]
        wait_until(lambda: not left(), f"no socket of port {port} on either side", timeout=5)

    # --- the ledger ---------------------------------------------------------------------------------------------------
    def ledger_query(self, sql):
        """Rows of a question that the sqlite3 shell asks of the ledger, as lists of text."""
        text = run(["sqlite3", "-readonly", "-separator", "\t", self.ledger, sql]).stdout
        return [line.split("\t") for line in text.splitlines()]


class Sale:
    def __init__(self, world, slug, stock, opens_in, ends_in, fields):
        self.world = world
        self.slug = slug
        now = time.time()
        self.opens_at, self.ends_at = now + opens_in, now + ends_in
        self.stock = stock
        self._buyers = itertools.count(1)
        self.id = world.ask("PUT", self.path, {"stock": stock, "opens_at": rfc3339(self.opens_at),
                                               "ends_at": rfc3339(self.ends_at), **fields}, expect=(201,))["id"]

    @property
    def path(self):
        return f"/v1/sales/{self.slug}"

    def show(self):
        return self.world.ask("GET", self.path)

    def change(self, **fields):
        return self.world.ask("PUT", self.path, fields, expect=(200,))

    def act(self, verb):
        return self.world.ask("POST", f"{self.path}/{verb}")

    def books(self):
        return self.world.ask("GET", f"{self.path}/stock")

    def move(self, delta):
        return self.world.ask("POST", f"{self.path}/stock", {"delta": delta, "reason": "test"})

    def buyer(self):
        return f"{self.slug}-buyer-{next(self._buyers)}"

    def token(self, buyer=None, quantity=1, **fields):
        """Issued as the shop's backend does it."""
        body = {"buyer": buyer or self.buyer(), "quantity": quantity, **fields}
        return self.world.ask("POST", f"{self.path}/tokens", body)["token"]

    def signed(self, template=None, **changes):
        """A token of this sale that no API would issue, signed with the real key."""
        token = Token.read(template or self.token())
        return token.signed(self.world.signing_keys(), **changes)

    def orders(self):
        """All orders as the control API tells them, oldest first."""
        found, after = [], ""
        while True:
            page = self.world.ask("GET", f"/v1/orders?sale={self.slug}&limit=1000{after}")
            found += page["orders"]
            if page["next"] is None:
                return found
            after = f"&after={page['next']}"

    def assert_books(self, **expected):
        """Conservation, from the gate, the daemon and the ledger. `expected`: some of the figures."""
        def settled():
            books = self.books()
            return books if books["in_flight"] == 0 else None
        books = wait_until(settled, "nothing is in flight")
        assert books["balanced"] is True, books
        assert books["put_in"] == books["free"] + books["held"] + books["confirmed"], books
        orders = self.orders()
        units = sum(order["quantity"] for order in orders if order["state"] in ("held", "confirmed"))
        assert units == books["held"] + books["confirmed"], (books, len(orders))
        assert [order["seq"] for order in orders] == list(range(1, len(orders) + 1)), "seq has gaps"
        assert len({order["id"] for order in orders}) == len(orders), "an order is there twice"
        for name, value in expected.items():
            assert books[name] == value, (name, books)
        return books
