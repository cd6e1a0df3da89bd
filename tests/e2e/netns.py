# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Network namespaces, and programs and sockets inside them.

Used by world.py and by tests that build their own network. `ip netns exec` is not used anywhere: it remounts /sys, which
hides the pins of the gate. Programs enter with nsenter; sockets of this process are made while the calling thread is
inside and stay there.
"""
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
NAME_PREFIX = "sluice-e2e"
COMMAND_TIMEOUT_S = 60

libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A command that had to succeed did not."""


def wait_until(condition, what, timeout=15.0, pause=0.02):
    """Asks until the answer is true and returns it. A time-out says what was waited for and what the last answer was."""
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:.0f} s for: {what} (last answer: {answer!r})")
        time.sleep(pause)


def run(argv, check=True, timeout=COMMAND_TIMEOUT_S, **kwargs):
    """Runs a command to its end, with its output as text. `check`: an exit code other than 0 is an exception with all of it."""
    kwargs.setdefault("stdout", subprocess.PIPE)
    kwargs.setdefault("stderr", subprocess.PIPE)
    if "input" not in kwargs:
        kwargs.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run([str(arg) for arg in argv], text=True, timeout=timeout, check=False, **kwargs)
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(map(str, argv))}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def die_with_parent():
    """Runs in the child: a killed pytest leaves no program behind."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A program that runs beside the test, with its output in a file. It is only ever stopped by its own id."""

    def __init__(self, argv, log_path, env=None, **kwargs):
        self.argv = [str(arg) for arg in argv]
        self.log_path = log_path
        self.on_end = lambda: None  # called before it is ended from here
        with open(log_path, "ab") as log:
            self.popen = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          env=env, preexec_fn=die_with_parent, **kwargs)
        self.pid = self.popen.pid

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def running(self):
        return self.popen.poll() is None

    def terminate(self, timeout=20):
        """SIGTERM, and the exit code."""
        self.on_end()
        if self.running():
            self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(timeout)

    def kill(self):
        """SIGKILL: what a crash looks like."""
        self.on_end()
        if self.running():
            self.popen.kill()
        return self.popen.wait(20)

    def stop(self):
        """For cleaning up: politely, then not."""
        try:
            self.terminate()
        except subprocess.TimeoutExpired:
            self.kill()


class Namespace:
    def __init__(self, name):
        self.name = name
        self.path = f"/run/netns/{name}"
        run(["ip", "netns", "add", name])
        try:
            self.run(["ip", "link", "set", "lo", "up"])
        except BaseException:
            self.delete()
            raise

    def delete(self):
        run(["ip", "netns", "del", self.name], check=False)

    def command(self, argv):
        return ["nsenter", f"--net={self.path}", *map(str, argv)]

    def run(self, argv, **kwargs):
        return run(self.command(argv), **kwargs)

    def start(self, argv, log_path, **kwargs):
        """nsenter executes the program in its own place, so the process id is the program's."""
        return Process(self.command(argv), log_path, **kwargs)

    @contextlib.contextmanager
    def entered(self):
        """The calling thread is inside for the length of the block."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._set(there)
            try:
                yield
            finally:
                self._set(home)
        finally:
            os.close(home)
            os.close(there)

    @staticmethod
    def _set(fd):
        if libc.setns(fd, CLONE_NEWNET):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM, protocol=0):
        with self.entered():
            return socket.socket(family, kind, protocol)

    def sysctl(self, key, value):
        with self.entered(), open("/proc/sys/" + key.replace(".", "/"), "w", encoding="ascii") as file:
            file.write(str(value))

    def read(self, path):
        """A file under /proc/net as this namespace has it."""
        with self.entered(), open(path.replace("/proc/net/", "/proc/thread-self/net/"), encoding="ascii") as file:
            return file.read()

    def tcp_sockets(self, port):
        """All TCP sockets but listeners that have `port` at either end: [(state, local, peer)], as ss tells it."""
        lines = self.run(["ss", "-Htan"]).stdout.splitlines()
        found = []
        for line in lines:
            state, _, _, local, peer = line.split()[:5]
            if state != "LISTEN" and str(port) in (local.rsplit(":", 1)[1], peer.rsplit(":", 1)[1]):
                found.append((state, local, peer))
        return found

    def link_has_xdp(self, device):
        return "xdp" in self.run(["ip", "link", "show", "dev", device]).stdout


_serial = 0


def unique_name(what):
    """Carries our process id, so that two runs never meet and a later run can tell whose leftovers are nobody's."""
    global _serial
    _serial += 1
    return f"{NAME_PREFIX}-{os.getpid()}-{_serial}-{what}"


def owner_of(name):
    """Process id in a name made by unique_name, or None."""
    parts = name.removeprefix(NAME_PREFIX + "-").split("-")
    return int(parts[0]) if name.startswith(NAME_PREFIX + "-") and parts[0].isdigit() else None
