# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""A node and its way to Redis: as the documented user, through stunnel, with Redis gone and back; and what it says of both meanwhile."""
import contextlib
import pathlib
import re
import shutil
import socket

import pytest

import test_openapi
from netns import run, wait_until
from world import World

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLEET_MD = (ROOT / "docs/fleet.md").read_text(encoding="utf-8")
REDIS_PORT, TLS_PORT, TUNNEL_PORT = 6379, 6380, 6390
PASSWORD = "correct horse battery staple"
NODES = [{"id": 1, "url": "http://10.71.0.1:8080"}, {"id": 2, "url": "http://shop2.example"}]


class Redis:
    """One redis-server on the loopback address of the shop's namespace."""

    def __init__(self, world, *options):
        self.world, self.options = world, options
        self.dir = world.dir / "redis"
        self.process = None

    def start(self):
        self.dir.mkdir(exist_ok=True)
        self.process = self.world.shop.start(
            ["redis-server", "--port", REDIS_PORT, "--bind", "127.0.0.1", "--dir", self.dir, "--save", "", "--appendonly", "no", *self.options],
            self.world.dir / "redis.log")
        wait_until(lambda: self.command("PING").startswith(b"+"), "redis-server answers")
        return self

    def command(self, *words, port=REDIS_PORT):
        """The bytes of the answer's beginning; b"" while there is nobody."""
        with contextlib.suppress(OSError), self.world.shop.socket(socket.AF_INET) as sock:
            sock.settimeout(5)
            sock.connect(("127.0.0.1", port))
            data = [word.encode() for word in words]
            sock.sendall(b"*%d\r\n" % len(data) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in data))
            return sock.recv(65536)
        return b""


def password_file(world, text=PASSWORD, mode=0o600):
    path = world.dir / "redis.password"
    path.write_text(text + "\n", encoding="utf-8")
    path.chmod(mode)
    return path


def make_secret(world):
    secret = world.state_dir / "fleet.secret"
    secret.touch(mode=0o600)
    secret.write_text("5c" * 32 + "\n", encoding="ascii")


def is_up(world):
    assert world.daemon.running(), "sluiced ended:\n" + world.daemon.log()
    try:
        return world.control("GET", "/livez").status == 200
    except OSError:
        return False


@contextlib.contextmanager
def node(settings=None, redis=True, options=(), prepare=None):
    """A world whose daemon is node 1 of two."""
    with World(start=("gate", "writer")) as world:
        world.redis = Redis(world, *options)
        world.settings.update({"fleet.redis": f"127.0.0.1:{REDIS_PORT}", "fleet.timeout_ms": 500, "nodes": NODES, **(settings or {})})
        if redis:
            world.redis.start()
        try:
            if prepare:
                prepare(world)
            make_secret(world)
            world.write_config()
            # Orders stay closed until Redis has told which keys the fleet uses, and not every test has a Redis that can be asked.
            world.start_daemon(ready=False)
            wait_until(lambda: is_up(world), "the daemon answers")
            yield world
        finally:
            if world.daemon:
                world.daemon.stop()
            if world.redis.process:
                world.redis.process.stop()


def fleet_of(world):
    return world.status()["fleet"]


def wait_connected(world, is_connected=True):
    wait_until(lambda: fleet_of(world)["connected"] == is_connected, f"connected: {is_connected}")


def metric(world, name):
    text = world.control("GET", "/metrics").body.decode()
    return float(re.search(rf"^{name} (\S+)$", text, re.M).group(1))


def nodes_of(world):
    return {row["id"]: row for row in world.ask("GET", "/v1/nodes")["nodes"]}


# --- who is there ---------------------------------------------------------------------------------------------------------------

def test_a_node_lists_itself_and_one_that_never_was(tmp_path):
    with node() as world:
        wait_until(lambda: nodes_of(world)[1]["ledger"], "a report of a node that has met its writer")
        own, other = nodes_of(world)[1], nodes_of(world)[2]
        assert own["this_node"] and own["state"] == "up" and own["url"] == NODES[0]["url"] and own["ledger"] == "sqlite"
        assert not other["this_node"] and other["state"] == "unknown" and other["seen_seconds_ago"] is None
        table = world.cli("node", "list").stdout.splitlines()
        assert table[0].split() == ["ID", "URL", "STATE", "SEEN", "s", "VERSION", "LEDGER", "SALES", "ORDERS", "PER", "s", "LAG"]
        assert table[1].split()[:3] == ["1", NODES[0]["url"], "up"] and table[2].split()[:3] == ["2", NODES[1]["url"], "unknown"]
        assert '"this_node": true' in world.cli("node", "list", "-o", "json").stdout


def test_a_node_that_was_there_and_is_not_is_silent():
    with node() as world:
        report = '{"url":"http://shop2.example","version":"0.0.9","started_at":"2026-01-01T00:00:00Z","ledger":"postgres","sales":3,' \
                 '"orders_durable":7,"orders_per_second":0,"stream_lag":null}'
        now = int(re.match(rb"\*2\r\n\$\d+\r\n(\d+)", world.redis.command("TIME")).group(1)) * 1000
        world.redis.command("HSET", "sluice:{fleet}:nodes", "2", f"{now - 60000} {report}")
        wait_until(lambda: nodes_of(world)[2]["state"] == "silent", "node 2 is silent")
        silent = nodes_of(world)[2]
        assert 60 <= silent["seen_seconds_ago"] < 90 and silent["version"] == "0.0.9" and silent["orders_durable"] == 7
        world.redis.command("HSET", "sluice:{fleet}:nodes", "2", f"{now + 3600000} {report}")
        wait_until(lambda: nodes_of(world)[2]["state"] == "up", "node 2 is up")


@pytest.mark.parametrize("method, path, operation", [one for one in test_openapi.CONTROL if test_openapi.needs_fleet(one[2]) and one[0] == "get"],
                         ids=lambda value: value["operationId"] if isinstance(value, dict) else "")
def test_what_is_of_a_fleet_answers_as_described(method, path, operation):
    with node() as world:
        wait_until(lambda: nodes_of(world)[1]["version"], "the first report")
        reply = world.control(method.upper(), test_openapi.url_of(path, operation, {}))
        test_openapi.check_answer("control", path, operation, reply.status, reply.headers, reply.body)
        assert reply.status < 300
        status = world.control("GET", "/v1/status")
        described = test_openapi.DOCUMENTS["control"]["paths"]["/v1/status"]["get"]
        test_openapi.check_answer("control", "/v1/status", described, status.status, status.headers, status.body)


# --- Redis comes and goes -------------------------------------------------------------------------------------------------------

def test_without_redis_a_node_is_degraded_and_not_dead():
    with node() as world:
        wait_connected(world)
        world.wait_ready()
        sale = world.sale(stock=2)
        world.redis.process.kill()
        wait_connected(world, False)
        wait_until(lambda: "refused" in (fleet_of(world)["failure"] or ""), "a failure")
        ready = world.control("GET", "/readyz?verbose")
        assert ready.status == 200 and b"redis: degraded: 127.0.0.1:6379: Connection refused" in ready.body
        assert world.control("GET", "/readyz").body == b"ok\n"
        assert metric(world, "sluice_redis_connected") == 0
        assert world.control("GET", sale.path).status == 200
        world.redis.start()
        wait_connected(world)
        assert b"[+] redis\n" in world.control("GET", "/readyz?verbose").body
        assert metric(world, "sluice_redis_connected") == 1 and metric(world, "sluice_redis_reconnects_total") >= 1
        assert metric(world, "sluice_redis_rounds_total") >= 1 and metric(world, "sluice_redis_round_seconds_count") >= 1
        log = world.daemon.log()
        assert log.count("redis is away") >= 1 and log.count("redis: connected") == 2


def test_a_node_that_never_met_its_fleet_takes_no_orders():
    with node(redis=False) as world:
        wait_until(lambda: fleet_of(world)["failure"], "a failure")
        ready = world.control("GET", "/readyz?verbose")
        assert ready.status == 503 and b"[-] keys of the fleet: not known yet" in ready.body
        world.redis.start()
        wait_connected(world)
        world.wait_ready()


def test_a_daemon_without_redis_stops_as_soon_as_one_with():
    with node(redis=False) as world:
        wait_until(lambda: fleet_of(world)["failure"], "a failure")
        assert world.daemon.terminate() == 0


def test_a_node_that_is_alone_says_nothing_of_redis():
    with World() as world:
        assert world.status()["fleet"] is None
        assert b"redis" not in world.control("GET", "/readyz?verbose").body and b"sluice_redis" not in world.control("GET", "/metrics").body
        reply = world.control("GET", "/v1/nodes")
        assert (reply.status, reply.code()) == (409, "no_fleet")
        done = world.cli("node", "list", check=False)
        assert done.returncode == 4 and "alone" in done.stderr


# --- who may do what ------------------------------------------------------------------------------------------------------------

def acl_line():
    line = re.search(r"^ACL SETUSER sluice .*$", FLEET_MD, re.M).group(0)
    return line.replace(">PASSWORD", ">" + PASSWORD.replace(" ", "_")).split()


def make_user(world):
    assert world.redis.command(*acl_line()) == b"+OK\r\n"
    assert world.redis.command("ACL", "SETUSER", "default", "off") == b"+OK\r\n"
    world.settings["fleet.redis_password_file"] = password_file(world, PASSWORD.replace(" ", "_"))


def test_the_documented_rights_suffice():
    with node({"fleet.redis_user": "sluice"}, prepare=make_user) as world:
        wait_connected(world)
        world.wait_ready()
        sale = world.sale(stock=3)
        sale.show()
        wait_until(lambda: nodes_of(world)[1]["version"], "the first report")
        assert "redis answers" not in world.daemon.log() and fleet_of(world)["errors"] == 0


def test_every_command_of_the_scripts_is_in_the_documented_rights():
    allowed = {word.lower().lstrip("+").split("|")[0] for word in acl_line() if word.startswith("+")}
    used = set()
    for script in (ROOT / "userspace/fleet/scripts").glob("*.lua"):
        used |= {name.lower() for name in re.findall(r"call\(\s*['\"](\w+)['\"]", script.read_text(encoding="utf-8"))}
    assert used and used <= allowed, used - allowed


def test_a_wrong_password_is_said_and_never_shown():
    def prepare(world):
        make_user(world)
        password_file(world, "a-wrong-one")

    with node({"fleet.redis_user": "sluice"}, prepare=prepare) as world:
        wait_until(lambda: fleet_of(world)["failure"], "a failure")
        assert "the log-in is refused: WRONGPASS" in fleet_of(world)["failure"]
        # The right one is taken without a restart.
        password_file(world, PASSWORD.replace(" ", "_"))
        wait_connected(world)
        assert "a-wrong-one" not in world.daemon.log() and PASSWORD.replace(" ", "_") not in world.daemon.log()


def test_a_password_that_others_may_read_is_refused_at_the_start():
    with World(start=("gate", "writer")) as world:
        path = password_file(world, mode=0o644)
        world.settings.update({"fleet.redis": "127.0.0.1:1", "fleet.redis_password_file": path, "nodes": NODES})
        make_secret(world)
        world.write_config()
        world.start_daemon(ready=False)
        wait_until(lambda: not world.daemon.running(), "sluiced ends")
        assert "nobody else may read" in world.daemon.log() and PASSWORD not in world.daemon.log()


# --- TLS ------------------------------------------------------------------------------------------------------------------------

def stunnel_config(number, **values):
    """The documented file, with this machine's ports and paths."""
    text = re.findall(r"^\[redis\]\n(?:\w.*\n)+", FLEET_MD, re.M)[number]
    for name, value in values.items():
        text, count = re.subn(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.M)
        assert count == 1, name
    return "foreground = yes\npid =\n" + text


def make_certificates(directory):
    """A CA, and a certificate of redis.example by it."""
    def openssl(*args):
        run(["openssl", *args], cwd=directory)

    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj",
            "/CN=ca", "-days", "2")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "redis.key", "-out", "redis.csr", "-subj",
            "/CN=redis.example", "-addext", "subjectAltName=DNS:redis.example")
    openssl("x509", "-req", "-in", "redis.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-copy_extensions", "copy", "-days", "2",
            "-out", "redis.pem")


class Tunnel:
    def __init__(self, world, name, host="redis.example"):
        self.world = world
        self.processes = []
        make_certificates(world.dir)
        self.start("server", stunnel_config(1, accept=f"127.0.0.1:{TLS_PORT}", connect=f"127.0.0.1:{REDIS_PORT}",
                                            cert=world.dir / "redis.pem", key=world.dir / "redis.key"))
        self.start("client", stunnel_config(0, accept=f"127.0.0.1:{TUNNEL_PORT}", connect=f"127.0.0.1:{TLS_PORT}",
                                            CAfile=world.dir / "ca.pem", checkHost=host))

    def start(self, name, text):
        path = self.world.dir / f"stunnel-{name}.conf"
        path.write_text(text, encoding="utf-8")
        self.processes.append(self.world.shop.start([shutil.which("stunnel4") or "stunnel", path], self.world.dir / f"stunnel-{name}.log"))
        wait_until(lambda: "Configuration successful" in self.processes[-1].log(), f"stunnel, {name}")

    def stop(self):
        for process in self.processes:
            process.stop()


@pytest.mark.parametrize("host, works", [("redis.example", True), ("another.example", False)])
def test_the_documented_stunnel_carries_a_node_and_wants_the_right_server(host, works):
    with contextlib.ExitStack() as stack:
        def prepare(world):
            stack.callback(Tunnel(world, "tunnel", host).stop)

        world = stack.enter_context(node({"fleet.redis": f"127.0.0.1:{TUNNEL_PORT}"}, prepare=prepare))
        if not works:
            wait_until(lambda: fleet_of(world)["failure"], "a failure")
            assert "127.0.0.1:6390" in fleet_of(world)["failure"]
            return
        wait_connected(world)
        wait_until(lambda: nodes_of(world)[1]["version"], "the first report")
        assert b"SSL" not in world.redis.command("CLIENT", "LIST") and b"name=sluiced-1" in world.redis.command("CLIENT", "LIST")
        world.redis.process.kill()
        wait_connected(world, False)
        world.redis.start()
        wait_connected(world)
