# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Real redis-servers in a namespace of their own (the hub), the way of each node to them, and everything that can happen to both.

    shop 1 ─ node1 ┐
    shop 2 ─ node2 ┼ hub: 10.99.0.1:7000… (detour.py, one lane for each node) ─ 10.99.0.1:7100… (redis-server)
    shop 3 ─ node3 ┘

Each redis-server has a number n, listens at port 7100+n and is known as 7000+n to nodes, to replicas (lane "lo") and to its cluster. `Single` is one
server, and at most a replica that can take over its place: nodes go on asking port 7000. `Cluster` is three masters and three replicas.
"""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import sys

from netns import Namespace, unique_name, wait_until

HERE = pathlib.Path(__file__).resolve().parent
PRELUDE = HERE.parents[1] / "userspace/fleet/scripts/prelude.lua"
REDIS_SERVER = shutil.which("redis-server") or "/usr/bin/redis-server"
ADDRESS = "10.99.0.1"
KNOWN_AT, LISTENS_AT, BUS_AT = 7000, 7100, 17100
MASTERS = 3
SLOTS = 16384
CALL_TIMEOUT_S = 10
NODE_TIMEOUT_MS = 1000  # of a cluster: how soon it finds that a master is dead


class RedisError(Exception):
    """An error reply."""


class Connection:
    """RESP2 in its simplest form. Replies are str, int, None or lists of them; an error reply is an exception."""

    def __init__(self, sock, port):
        self.sock = sock
        self.sock.settimeout(CALL_TIMEOUT_S)
        self.sock.connect((ADDRESS, port))
        self.file = self.sock.makefile("rb")

    def close(self):
        self.file.close()
        self.sock.close()

    def send(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.sock.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))

    def receive(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("Redis hung up")
        kind, rest = line[:1], line[1:-2].decode()
        if kind == b"+":
            return rest
        if kind == b"-":
            raise RedisError(rest)
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == "-1" else self.file.read(int(rest) + 2)[:-2].decode("utf-8", "replace")
        return None if rest == "-1" else [self.receive() for _ in range(int(rest))]

    def call(self, *words):
        self.send(*words)
        return self.receive()


class Server:
    """One redis-server, with what it keeps in a directory of its own."""

    def __init__(self, hub, number, options):
        self.hub, self.number = hub, number
        self.port = LISTENS_AT + number
        self.dir = hub.dir / f"redis{number}"
        self.options = {
            "port": self.port, "bind": ADDRESS, "protected-mode": "no", "daemonize": "no", "dir": self.dir, "save": "", "appendonly": "yes",
            "appendfsync": "always", "repl-diskless-sync-delay": 0, "repl-ping-replica-period": 1, **options,
        }
        self.process = self._connection = None

    def start(self, empty=False):
        """With what is in its append-only file, or with nothing (`empty`)."""
        if empty:
            shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.mkdir(exist_ok=True)
        argv = [REDIS_SERVER]
        for name, value in self.options.items():
            argv += [f"--{name}", str(value)]
        self.process = self.hub.ns.start(argv, self.hub.dir / f"redis{self.number}.log")
        def answers():
            assert self.process.running(), self.process.log()
            with contextlib.suppress(OSError, RedisError):
                return self.call("PING") == "PONG"
        wait_until(answers, f"redis-server {self.number} answers")

    def kill(self):
        self._forget()
        self.process.kill()

    def stop(self):
        """SIGTERM: it ends in an orderly way."""
        self._forget()
        self.process.terminate()

    def pause(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def running(self):
        return self.process is not None and self.process.running()

    def _forget(self):
        if self._connection:
            self._connection.close()
            self._connection = None

    def call(self, *words):
        """Past every detour."""
        try:
            if not self._connection:
                self._connection = Connection(self.hub.ns.socket(), self.port)
            return self._connection.call(*words)
        except OSError:
            self._forget()
            raise

    def info(self, section):
        lines = (line.partition(":") for line in self.call("INFO", section).split("\r\n") if line and not line.startswith("#"))
        return {name: value for name, _, value in lines}


class Hub:
    """The namespace, the detour, and the servers of a subclass."""

    def __init__(self, directory):
        self._stack = contextlib.ExitStack()
        self.dir = pathlib.Path(directory)
        self.servers, self.nodes = [], []
        self._control = None
        try:
            self.ns = Namespace(unique_name("hub"))
            self._stack.callback(self.ns.delete)
            self.ns.run(["ip", "addr", "add", f"{ADDRESS}/32", "dev", "lo"])
            self.ns.run(["nft", "add", "table", "inet", "fleet"])
            for chain in ("input", "output"):
                self.ns.run(["nft", f"add chain inet fleet {chain} {{ type filter hook {chain} priority 0; }}"])
            path = self.dir / "detour.sock"
            process = self.ns.start([sys.executable, HERE / "detour.py", path, ADDRESS], self.dir / "detour.log")
            self._stack.callback(process.stop)
            self._control = socket.socket(socket.AF_UNIX)
            self._stack.callback(self._control.close)

            def connected():
                assert process.running(), process.log()
                return self._control.connect_ex(str(path)) == 0
            wait_until(connected, "the detour's socket")
            self._answers = self._control.makefile("rb")
            self._stack.callback(self._answers.close)
        except BaseException:
            self.close()
            raise

    def close(self):
        self._stack.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _add_server(self, options=None):
        server = Server(self, len(self.servers), options or {})
        self.servers.append(server)
        self._stack.callback(self._end, server)
        self.detour("route", port=KNOWN_AT + server.number, to=server.port)
        for lane in ("lo", *(f"node{node}" for node in self.nodes)):
            self.detour("listen", lane=lane, port=KNOWN_AT + server.number)
        return server

    @staticmethod
    def _end(server):
        if server.process:
            server._forget()
            server.process.kill()

    def detour(self, do, **fields):
        self._control.sendall(json.dumps({"do": do, **fields}).encode() + b"\n")
        answer = json.loads(self._answers.readline())
        assert "error" not in answer, (do, fields, answer)
        return answer

    # --- the nodes' ways here -----------------------------------------------------------------------------------------
    def join(self, ns, node):
        """A veth pair from a node's namespace, where the device is called hub0."""
        device = f"node{node}"
        self.ns.run(["ip", "link", "add", device, "type", "veth", "peer", "name", "hub0", "netns", ns.name])
        for where, name, address in ((self.ns, device, f"10.90.{node}.1"), (ns, "hub0", f"10.90.{node}.2")):
            where.run(["ip", "addr", "add", f"{address}/24", "dev", name])
            where.run(["ip", "link", "set", name, "up"])
        ns.run(["ip", "route", "add", f"{ADDRESS}/32", "via", f"10.90.{node}.1"])
        self.nodes.append(node)
        for server in self.servers:
            self.detour("listen", lane=device, port=KNOWN_AT + server.number)

    def partition(self, node, ways=("input", "output")):
        """Packets are dropped: both ways, or only what a node asks ("input"), or only its answers ("output")."""
        for chain in ways:
            self.ns.run(["nft", "add", "rule", "inet", "fleet", chain, "iifname" if chain == "input" else "oifname", f"node{node}", "drop"])

    def heal(self):
        """No partition any more, of any node."""
        self.ns.run(["nft", "flush", "table", "inet", "fleet"])

    def mend(self):
        """Every server runs, every way is open and fair."""
        self.heal()
        for lane in ("lo", *self.nodes):
            self.weather(lane)
        for server in self.servers:
            if server.running():
                server.resume()
            else:
                server.start()

    def weather(self, node, **what):
        """Of the lane of a node ("lo": of the replicas), as detour.py says. Nothing named: fair."""
        self.detour("weather", lane=node if node == "lo" else f"node{node}", **what)

    def cut(self, node):
        self.detour("cut", lane=node if node == "lo" else f"node{node}")

    # --- all servers --------------------------------------------------------------------------------------------------
    @property
    def setting(self):
        """For fleet.redis."""
        return ",".join(f"{ADDRESS}:{KNOWN_AT + server.number}" for server in self.servers)

    def call(self, *words):
        """At the master of the key that stands second."""
        return self.master_of(words[1] if len(words) > 1 else "").call(*words)

    def master_of(self, key):
        raise NotImplementedError

    @staticmethod
    def run_of(server):
        """As the daemons' scripts have it: a process, and since when it is master."""
        return server.call("EVAL", PRELUDE.read_text(encoding="utf-8") + "\nreturn server_run()", 0)

    def masters(self):
        return [server for server in self.servers if server.running() and server.info("replication")["role"] == "master"]

    def flush(self):
        for server in self.masters():
            server.call("FLUSHALL")

    def command_calls(self):
        """{command: how many so far}, over all servers."""
        counts = {}
        for server in self.servers:
            if server.running():
                for name, value in server.info("commandstats").items():
                    calls = int(dict(part.split("=") for part in value.split(","))["calls"])
                    counts[name.removeprefix("cmdstat_")] = counts.get(name.removeprefix("cmdstat_"), 0) + calls
        return counts


class Single(Hub):
    """One server, always asked at port 7000; after fail_over() another one is."""

    def __init__(self, directory):
        super().__init__(directory)
        try:
            self.server = self._add_server()
            self.server.start()
        except BaseException:
            self.close()
            raise

    @property
    def setting(self):
        return f"{ADDRESS}:{KNOWN_AT}"

    def master_of(self, key):
        return self.server

    def add_replica(self):
        """Follows the server by the detour's lane "lo": hub.weather("lo", hold=True) lets it lag."""
        replica = self._add_server()
        replica.start()
        replica.call("REPLICAOF", ADDRESS, KNOWN_AT)
        self.wait_replica(replica)
        return replica

    @staticmethod
    def wait_replica(replica):
        wait_until(lambda: replica.info("replication")["master_link_status"] == "up", "the replica is in step")

    def go_back(self, replica):
        """The replica takes the server's place with what it has got; the server follows it, and is master again before anybody has called the other: the
        process of before, with older data."""
        replica.call("REPLICAOF", "NO", "ONE")
        self.server.call("REPLICAOF", ADDRESS, replica.port)
        self.wait_replica(self.server)
        self.server.call("REPLICAOF", "NO", "ONE")

    def fail_over(self, replica):
        """The server dies and the replica takes its place, with what it has got."""
        self.server.kill()
        replica.call("REPLICAOF", "NO", "ONE")
        self.server = replica
        self.detour("route", port=KNOWN_AT, to=replica.port)
        for lane in ("lo", *(f"node{node}" for node in self.nodes)):
            self.detour("cut", lane=lane)


class Cluster(Hub):
    """A Redis Cluster of three masters and three replicas: server n+3 follows server n."""

    def __init__(self, directory):
        super().__init__(directory)
        try:
            for number in range(2 * MASTERS):
                self._add_server({
                    "cluster-enabled": "yes", "cluster-config-file": "nodes.conf", "cluster-node-timeout": NODE_TIMEOUT_MS,
                    "cluster-replica-validity-factor": 0, "cluster-require-full-coverage": "no", "cluster-announce-ip": ADDRESS,
                    "cluster-announce-port": KNOWN_AT + number, "cluster-announce-bus-port": BUS_AT + number, "cluster-port": BUS_AT + number,
                }).start()
            self._form()
        except BaseException:
            self.close()
            raise

    def _form(self):
        first = self.servers[0]
        for number, server in enumerate(self.servers):
            server.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in self.servers[1:]:
            server.call("CLUSTER", "MEET", ADDRESS, LISTENS_AT, BUS_AT)
        for number, server in enumerate(self.servers[:MASTERS]):
            begin, end = SLOTS * number // MASTERS, SLOTS * (number + 1) // MASTERS - 1
            server.call("CLUSTER", "ADDSLOTSRANGE", begin, end)
        wait_until(lambda: all(server.call("CLUSTER", "NODES").count("connected") == len(self.servers) and
                               "handshake" not in server.call("CLUSTER", "NODES") for server in self.servers), "all have met")
        for number, server in enumerate(self.servers[MASTERS:]):
            server.call("CLUSTER", "REPLICATE", self.servers[number].call("CLUSTER", "MYID"))
        wait_until(lambda: all("cluster_state:ok" in server.call("CLUSTER", "INFO") for server in self.servers), "the cluster is up")
        wait_until(lambda: all(server.info("replication").get("master_link_status") == "up" for server in self.servers[MASTERS:]),
                   "the replicas are in step")
        wait_until(lambda: len(first.call("CLUSTER", "SLOTS")) == MASTERS, "every slot is known")

    def master_of(self, key):
        """The living master of a key's slot, as the cluster itself has it."""
        asked = next(server for server in self.servers if server.running())
        slot = asked.call("CLUSTER", "KEYSLOT", key)
        for entry in asked.call("CLUSTER", "SLOTS"):
            if entry[0] <= slot <= entry[1]:
                return self.servers[entry[2][1] - KNOWN_AT]
        raise AssertionError(f"no master has slot {slot}")

    def take_over(self, replica):
        """The replica becomes master with what it has got, whether its master lives or not."""
        replica.call("CLUSTER", "FAILOVER", "TAKEOVER")
        wait_until(lambda: replica.info("replication")["role"] == "master", "the replica has taken over")

    def replica_of(self, server):
        """Of a master, which one follows it."""
        myself = server.call("CLUSTER", "MYID")
        for other in self.servers:
            if other is not server and other.running():
                line = next(line for line in other.call("CLUSTER", "NODES").splitlines() if "myself" in line)
                if line.split()[3] == myself:
                    return other
        raise AssertionError("no replica follows it")
