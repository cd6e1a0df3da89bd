# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""What the tests of strange, slow and hostile clients share: honest buyers beside them, the ends of connections, the daemon's size,
and a raw client that sets its window, its urgent pointer and any bytes as TCP options."""
import os
import select
import socket
import statistics
import threading
import time

import talk
from rawtcp import TCP, RawClient
from world import CONTROL_PORT

# What honest people may wait while somebody is at the daemon. Both bounds grow with the machine: a test's is often slow and busy, and what it does to
# everybody is nobody's attack. Below the floors nobody notices.
TIMES_CALM = 10        # a typical wait may be so many times that of a calm phase of the same run
TIMES_MACHINE = 10     # and no wait longer than so many times what the machine itself has kept anybody waiting meanwhile
STALL_FLOOR_S = 1.0
CALM_STEPS = 15
GIVE_UP_S = 30


class Pulse:
    """How long the machine itself keeps people waiting: somebody who has nothing to do with the daemon sleeps, wakes and puts a byte on the disk that the
    ledger is on. `late`: by how much each time."""
    EVERY_S = 0.01

    def __init__(self, path):
        self.path, self.late = path, []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat)

    def _beat(self):
        with open(self.path, "wb", buffering=0) as file:
            while not self._stop.is_set():
                start = time.monotonic()
                time.sleep(self.EVERY_S)
                file.write(b".")
                os.fsync(file.fileno())
                self.late.append(time.monotonic() - start - self.EVERY_S)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


class Beside:
    """Somebody honest at work for the length of a block: step() again and again, in a thread. At the block's end no step may have failed,
    there must have been some, they must have been about as quick as with nobody else there, and none may have stood still."""
    who = None
    typical_floor_s = 0.1

    def __init__(self, world, pause=0.03, at_least=5):
        self.world, self.pause, self.at_least = world, pause, at_least
        self.waits, self.trouble, self.calm = [], None, None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._pulse = Pulse(world.dir / f"pulse-{type(self).__name__}")

    def step(self):
        """False when there is nothing more to do."""
        raise NotImplementedError

    def check(self):
        """What else must hold at the end."""

    def _measured_step(self):
        start = time.monotonic()
        went_on = self.step()
        return time.monotonic() - start if went_on is not False else None

    def _calm(self):
        """The typical wait with nobody else there; measured once for each shop."""
        known = self.world.__dict__.setdefault("calm_waits", {})
        if type(self) not in known:
            known[type(self)] = statistics.median(self._measured_step() for _ in range(CALM_STEPS))
        return known[type(self)]

    def _work(self):
        try:
            while not self._stop.is_set():
                wait = self._measured_step()
                if wait is None:
                    return
                self.waits.append(wait)
                self._stop.wait(self.pause)
        except BaseException as error:  # pylint: disable=broad-except
            self.trouble = error

    def __enter__(self):
        self.calm = self._calm()
        self._pulse.__enter__()
        self._thread.start()
        self.wait_for(1)
        return self

    def wait_for(self, more):
        """Until so many more steps have been done."""
        target, deadline = len(self.waits) + more, time.monotonic() + GIVE_UP_S
        while len(self.waits) < target and self._thread.is_alive():
            assert time.monotonic() < deadline, f"{self.who} waits for more than {GIVE_UP_S} s"
            time.sleep(0.002)

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.wait_for(max(0, self.at_least - len(self.waits)))
        finally:
            self._stop.set()
            self._thread.join()
            self._pulse.__exit__()
        if kind is not None:
            return
        if self.trouble:
            raise AssertionError(f"{self.who}, time {len(self.waits) + 1}: {self.trouble!r}") from self.trouble
        assert len(self.waits) >= self.at_least, f"{self.who} was at work {len(self.waits)} times only"
        self._check_waits()
        self.check()

    def _check_waits(self):
        late = self._pulse.late or [0.0]
        typical, worst = statistics.median(self.waits), max(self.waits)
        allowed = max(self.typical_floor_s, TIMES_CALM * self.calm, TIMES_MACHINE * statistics.median(late))
        assert typical <= allowed, f"{self.who} typically waited {typical:.3f} s, {self.calm:.3f} s when it was calm; {allowed:.3f} s are allowed"
        allowed = max(STALL_FLOOR_S, TIMES_CALM * self.calm, TIMES_MACHINE * max(late))
        assert worst <= allowed, f"{self.who} waited {worst:.2f} s, the machine kept nobody else for more than {max(late):.3f} s"


class Buyers(Beside):
    """Buyers, one after another on fresh connections: each gets a 201, and the books have them all. Tokens are made before, so only the
    shop's door is used meanwhile."""
    who = "an honest buyer"

    def __init__(self, world, family="ipv4", tokens=150, **kwargs):
        super().__init__(world, **kwargs)
        self.family = family
        self.sale = world.sale(stock=tokens)
        self.tokens = [self.sale.token() for _ in range(tokens)]
        self.ordered = 0

    def step(self):
        if not self.tokens:
            return False
        answer = self.world.order(self.tokens.pop(), self.family)
        assert answer.status == 201, answer
        self.ordered += 1
        return True

    def check(self):
        self.sale.assert_books(held=self.ordered)


class Operator(Beside):
    """The operator, who looks at the state over both control listeners."""
    who = "the operator"
    typical_floor_s = 0.5  # the listeners are those that the callers are at

    def __init__(self, world, **kwargs):
        super().__init__(world, **kwargs)
        self.headers = {"Authorization": f"Bearer {secret(world)}"}

    def step(self):
        for reply in (self.world.control("GET", "/v1/status"), self.world.control_tcp("GET", "/v1/status", headers=self.headers)):
            assert reply.status == 200 and reply.json()["orders_open"], reply
        return True


def secret(world):
    """Of the control API."""
    return (world.state_dir / "control.secret").read_text(encoding="ascii").strip()


class ControlConnection(talk.Connection):
    """A connection to a control listener, `kind` "tcp" or "unix", for whoever wants to say what no HTTP client says."""

    def __init__(self, world, kind, timeout=talk.RECEIVE_TIMEOUT_S):  # pylint: disable=super-init-not-called
        self.buffer = b""
        self.sock = world.shop.socket() if kind == "tcp" else socket.socket(socket.AF_UNIX)
        try:
            self.sock.settimeout(timeout)
            self.sock.connect(("127.0.0.1", CONTROL_PORT) if kind == "tcp" else str(world.control_socket))
        except BaseException:
            self.sock.close()
            raise


def end_of(connection, within):
    """Reads to the end. ("fin" or "reset", what came), or an exception if the connection is still open after `within` seconds."""
    deadline = time.monotonic() + within
    raw = connection.buffer
    while True:
        connection.sock.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            data = connection.sock.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            return "reset", raw
        except TimeoutError as error:
            raise AssertionError(f"still open after {within:.1f} s; so far: {raw[:200]!r}") from error
        if not data:
            return "fin", raw
        raw += data


def ended(connections):
    """Those of `connections` whose peer has ended them (unread data does not count)."""
    poller = select.poll()
    by_fd = {connection.sock.fileno(): connection for connection in connections}
    for fd in by_fd:
        poller.register(fd, select.POLLRDHUP)
    return [by_fd[fd] for fd, events in poller.poll(0) if events & (select.POLLRDHUP | select.POLLHUP | select.POLLERR)]


def fds(process):
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def status_of(process, key):
    """A number from /proc/PID/status: VmRSS (KiB), Threads."""
    with open(f"/proc/{process.pid}/status", encoding="ascii") as file:
        return int(next(line for line in file if line.startswith(key + ":")).split()[1])


def metric(world, name, **labels):
    """The value of a sample of /metrics; 0 if there is none."""
    wanted = {f'{key}="{value}"' for key, value in labels.items()}
    for line in world.control("GET", "/metrics").body.decode().splitlines():
        sample, _, value = line.rpartition(" ")
        found, _, rest = sample.partition("{")
        if found == name and set(filter(None, rest.rstrip("}").split(","))) == wanted:
            return float(value)
    return 0.0


class OddClient(RawClient):
    """RawClient with `window`, `urgent` and `raw_options` for the segments to come."""
    window = 65535
    urgent = 0
    raw_options = b""

    def segment(self, flags, data=b"", seq=None, ack=None, options=()):
        tcp = TCP(sport=self.port, dport=self.to_port, flags=flags, seq=self.seq if seq is None else seq,
                  ack=(self.ack if ack is None else ack) if "A" in flags else 0, window=self.window, urgptr=self.urgent)
        if not self.raw_options:
            tcp.options = list(options)
            return bytes(self.base / tcp / data if data else self.base / tcp)
        assert len(self.raw_options) % 4 == 0 and len(self.raw_options) <= 40
        tcp.dataofs = 5 + len(self.raw_options) // 4
        # As payload behind a longer data offset the options stay the bytes that they are.
        return bytes(self.base / tcp / (self.raw_options + data))

    def settle(self, quiet=0.3):
        """Takes and acknowledges what comes until nothing comes for `quiet` seconds. Returns the segments."""
        packets = []
        while True:
            packet = self.receive(quiet)
            if packet is None:
                return packets
            packets.append(packet)
            if not packet[TCP].flags.R:
                before = self.ack
                self.take(packet)
                if self.ack != before:
                    self.send("A")


def reset(connection):
    """Closes with a RST."""
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    connection.close()
