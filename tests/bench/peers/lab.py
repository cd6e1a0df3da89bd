# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The laboratory of the comparisons: sites (a server's namespace and its clients', joined by a veth pair), and what a site's server side costs.

Used by refusals.py, drops.py and stock.py. Namespaces, processes and Sluice itself come from the end-to-end tests (netns.py, world.py).

How CPU time is attributed. veth runs the receiver's half of the stack in a softirq on the sender's CPU, so that nobody could tell
whose time it was. Here both ends of each pair have threaded NAPI: what the kernel does with a frame that arrives (XDP, GRO, IP, TCP up to
the socket) runs in a kernel thread of that device. The server's NAPI thread and the server's processes are bound to one CPU, the
clients and their NAPI thread to another. The server's side is then the run time of its NAPI thread and of its processes, as the
scheduler counts it in ns (/proc/PID/schedstat). The busy time of the whole server CPU is kept beside it as a check.
"""
import ctypes
import json
import math
import os
import pathlib
import platform
import re
import shutil
import statistics
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "e2e"))
# pylint: disable=wrong-import-position
import netns  # noqa: E402

netns.NAME_PREFIX = "sluice-peers"
import world  # noqa: E402
from netns import Namespace, Process, run, unique_name, wait_until  # noqa: E402,F401

TOOLS = world.BUILD / "tests" / "bench" / "peers"
SERVER = world.SHOP["ipv4"]
PORT = world.PORT
SOURCES = ("10.72.0.1", 4096)
# What else runs on the machine shall not get between. The receiving threads come first, as a softirq would; then servers, then clients.
NAPI_NICE, SERVER_NICE, CLIENT_NICE = -15, -10, -5
# As userspace/common/realtime.c has it by the units' right, which a limited machine's root cannot give: taken from outside. The daemon cannot take it again
# once it has given it up, so a shop that did not rest is without it from then on.
ORDER_THREADS, REALTIME_PRIORITY = {"heartbeat", "pipeline", "MHD-worker", "sluice-writer"}, 1
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
BPF_ENABLE_STATS = 32
SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}.get(platform.machine())


class Skipped(Exception):
    """This peer cannot be measured here; the text says why."""


class cpu:  # pylint: disable=invalid-name
    """Which CPU is whose; set by run.py."""
    clients = 0
    server = 1


def on_cpu(number, argv):
    nice = SERVER_NICE if number == cpu.server else CLIENT_NICE
    return ["nice", "-n", str(nice), "taskset", "-c", str(number), *map(str, argv)]


def need(program, package):
    """The program's path, or a reason to leave the peer out."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/bin")
    if not found:
        raise Skipped(f"{program} is not installed (apt-get install {package})")
    return found


def version_of(argv):
    done = run(argv, check=False)
    text = (done.stdout + done.stderr).strip().splitlines()
    return text[0].strip() if text else "unknown"


# --- processes ------------------------------------------------------------------------------------------------------------
def read(path):
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()


def all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def family_of(root):
    """A process and all that descend from it."""
    parents = {}
    for pid in all_pids():
        try:
            parents[pid] = int(read(f"/proc/{pid}/stat").rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue  # it ended
    found, more = {root}, True
    while more:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
    return found


def pin(root, number):
    """Binds every thread of a server and its descendants, with its priority. Threads made later inherit both."""
    for pid in family_of(root):
        for task in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(task), {number})
            os.setpriority(os.PRIO_PROCESS, int(task), SERVER_NICE)


def go_real_time(pid):
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/comm", encoding="ascii") as file:
            if file.read().strip() in ORDER_THREADS:
                os.sched_setscheduler(int(thread), os.SCHED_RR, os.sched_param(REALTIME_PRIORITY))


def runtime_ns(pid):
    """What the living threads of a process have run, and what its dead children had."""
    total = 0
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            total += int(read(f"/proc/{pid}/task/{task}/schedstat").split()[0])
        fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        total += (int(fields[13]) + int(fields[14])) * TICK_NS  # cutime, cstime
    except OSError:
        pass  # it ended between two looks: its parent has its time
    return total


def named_kernel_threads(prefix):
    found = set()
    for pid in all_pids():
        try:
            if read(f"/proc/{pid}/comm").startswith(prefix):
                found.add(pid)
        except OSError:
            continue
    return found


def cpu_busy_ns(number):
    """Wall time less what the CPU was idle or stolen by the host."""
    for line in read("/proc/stat").splitlines():
        name, *values = line.split()
        if name == f"cpu{number}":
            idle, iowait, steal = (int(values[i]) for i in (3, 4, 7))
            return time.monotonic_ns() - (idle + iowait + steal) * TICK_NS
    raise RuntimeError(f"/proc/stat has no cpu{number}")


class Meter:
    """CPU time of a site's server side: meter.start(); ...; meter.stop() -> {"softirq_ns", "process_ns", "server_ns", "busy_ns"}."""

    def __init__(self, napi_threads, roots=()):
        self.napi, self.roots, self.before = napi_threads, roots, None

    def _read(self):
        members = set().union(*(family_of(root) for root in self.roots)) if self.roots else set()
        return (sum(runtime_ns(pid) for pid in self.napi), sum(runtime_ns(pid) for pid in members), cpu_busy_ns(cpu.server))

    def start(self):
        self.before = self._read()

    def stop(self):
        softirq, process, busy = (after - before for after, before in zip(self._read(), self.before))
        return {"softirq_ns": softirq, "process_ns": process, "server_ns": softirq + process, "busy_ns": busy}


# --- sites ----------------------------------------------------------------------------------------------------------------
def thread_napi(namespace, device, number):
    """Gives a device's receive work a kernel thread of its own and binds it. Returns the ids of the threads.

    veth has NAPI with GRO or XDP, and uses it for what a socket sends only if the sender's end does not segment (TSO), which no
    request or answer here is long enough for.
    """
    before = named_kernel_threads("napi/")
    namespace.run(["ethtool", "-K", device, "gro", "on", "tso", "off"])
    # /sys shows the network namespace in which it was mounted.
    namespace.run(["unshare", "--mount", "sh", "-c",
                   f"mount -t sysfs sysfs /sys && echo 1 > /sys/class/net/{device}/threaded"])
    threads = named_kernel_threads("napi/") - before
    if not threads:
        raise Skipped("this kernel has no threaded NAPI for veth (it needs 5.12), so the server's share cannot be told apart")
    for pid in threads:
        os.sched_setaffinity(pid, {number})
        os.setpriority(os.PRIO_PROCESS, pid, NAPI_NICE)
    return threads


def moderate_napi(namespace, device, microseconds):
    """Has a device's receive work done by a timer, as a card does that moderates its interrupts. 0: at once, by who sends, as without this.

    The kernel goes back to the latter when the timer has found nothing so many times in a row: not before 1,000, or a server that is slower than the
    timer would wake its clients nearly each time.
    """
    namespace.run(["unshare", "--mount", "sh", "-c",
                   f"mount -t sysfs sysfs /sys && cd /sys/class/net/{device} && "
                   f"echo {1000 if microseconds else 0} > napi_defer_hard_irqs && echo {microseconds * 1000} > gro_flush_timeout"])


class Link:
    """A veth pair between clients and a server, with threaded NAPI at both ends, and the addresses on it."""

    def __init__(self, crowd, shop, device=world.DEVICE, address=SERVER, sources=SOURCES):
        self.crowd, self.shop, self.device, self.address, self.sources = crowd, shop, device, address, sources
        self.client_napi = thread_napi(crowd, device, cpu.clients)
        self.napi = thread_napi(shop, device, cpu.server)
        self.mac = json.loads(shop.run(["ip", "-j", "link", "show", "dev", device]).stdout)[0]["address"]


class Site:
    """Two namespaces for a peer, and a directory of its own."""

    def __init__(self, stack, work_dir, name):
        self.name = name
        self.dir = pathlib.Path(work_dir, name)
        self.dir.mkdir()
        self.network = world.Network(stack)
        self.shop, self.crowd = self.network.shop, self.network.crowd
        self.shop.sysctl("net.ipv4.tcp_syncookies", 1)  # the kernel's own default; Network sets what the gate needs
        self.shop.sysctl("net.ipv4.tcp_max_syn_backlog", 8192)
        self.shop.sysctl("net.core.somaxconn", 8192)
        self.stack = stack
        self.link = Link(self.crowd, self.shop)

    def start(self, argv, **kwargs):
        process = self.shop.start(on_cpu(cpu.server, argv), self.dir / "log", **kwargs)
        self.stack.callback(process.stop)
        return process

    def wait_listening(self, process, port=PORT):
        def listening():
            if not process.running():
                raise netns.Failed(f"{self.name} ended at once:\n{process.log()}")
            return f":{port} " in self.shop.run(["ss", "-Hltn"]).stdout
        wait_until(listening, f"{self.name} listens on port {port}")


def sluice_site(stack, settings=None, real_time=False, **kwargs):
    """A World whose veth pair is threaded: `.link`. `real_time`: daemon and writer as installed; else with the peers' priority."""
    site = stack.enter_context(world.World(settings=settings, mode="native", **kwargs))
    site.link = Link(site.crowd, site.shop)
    for process in (site.daemon, site.writer):
        if process:
            pin(process.pid, cpu.server)
            if real_time:
                go_real_time(process.pid)
    return site


UNLIMITED = {f"limits.{name}": {"rate": 1e6, "burst": 1000000} for name in ("source", "prefix", "token", "answer", "syn_prefix",
                                                                         "syn_global")}


def signed_targets(site, sale, count, path):
    """Writes order targets with tokens signed by the site's own keys."""
    with open(path, "w", encoding="ascii") as file:
        run([TOOLS / "prepare", "tokens", site.state_dir / "keys", sale.id, count], stdout=file)
    return path


# --- clients --------------------------------------------------------------------------------------------------------------
def spent_on(meter, argv, link):
    """Runs a client, pinned; returns what it printed and what the server's side spent meanwhile, in one dict."""
    meter.start()
    done = link.crowd.run(on_cpu(cpu.clients, argv))
    spent = meter.stop()
    return {**json.loads(done.stdout), **spent}


def socket_clients(link, targets, opened, seconds, expect, *more):
    """conversations.c: clients on kernel sockets."""
    return [TOOLS / "conversations", "--to", f"{link.address}:{PORT}", "--from", link.sources[0], "--sources", link.sources[1],
            "--targets", targets, "--open", opened, "--seconds", seconds, "--expect", expect, *more]


def frame_clients(link, targets, opened, seconds, expect, *more):
    """crowd.c: clients without sockets, in XDP."""
    return [TOOLS / "crowd", "--object", TOOLS / "crowd.bpf.o", "--device", link.device, "--mac", link.mac, "--to",
            f"{link.address}:{PORT}", "--from", link.sources[0], "--sources", link.sources[1], "--targets", targets, "--open", opened,
            "--seconds", seconds, "--expect", expect, *more]


# --- BPF run-time statistics ----------------------------------------------------------------------------------------------
class bpf_stats:  # pylint: disable=invalid-name
    """The kernel counts runs and time of BPF programs for the length of the block."""

    def __enter__(self):
        attributes = ctypes.create_string_buffer(128)  # type 0: BPF_STATS_RUN_TIME
        self.fd = netns.libc.syscall(SYS_BPF, BPF_ENABLE_STATS, attributes, 128) if SYS_BPF else -1
        self.on = self.fd >= 0
        return self

    def __exit__(self, *_):
        if self.on:
            os.close(self.fd)


def xdp_program_of(namespace, device=world.DEVICE):
    text = namespace.run(["ip", "-d", "link", "show", "dev", device]).stdout
    found = re.search(r"prog/xdp id (\d+)", text)
    return int(found.group(1)) if found else None


def program_runs(program_id):
    """(runs, ns) so far."""
    info = json.loads(run([world.BPFTOOL, "-j", "prog", "show", "id", program_id]).stdout)
    return info.get("run_cnt", 0), info.get("run_time_ns", 0)


# --- figures --------------------------------------------------------------------------------------------------------------
def median_interval(values):
    """Between which two of the values lies, with 95 %, the median that endlessly many rounds would have (sign test). None: too few rounds."""
    below, ranked = 0.0, sorted(values)
    for rank in range(len(ranked) // 2):
        below += math.comb(len(ranked), rank) / 2 ** len(ranked)
        if below > 0.025:
            return [ranked[rank - 1], ranked[-rank]] if rank else None
    return None


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "median_95": median_interval(values),
            "rounds": list(values)}


def paired(above, below, figure):
    """above / below of each round: what two had to bear at the same time cancels out."""
    return spread([a[figure] / b[figure] for a, b in zip(above, below)])


def judged(ratio, at_least=None, at_most=None):
    """Fields of a target: the median of the rounds decides. `on_the_line`: another run of as many rounds may well decide otherwise."""
    limit = {"at_least": at_least} if at_most is None else {"at_most": at_most}
    met = ratio["median"] >= at_least if at_most is None else ratio["median"] <= at_most
    low, high = ratio["median_95"] or (ratio["median"], ratio["median"])
    on_the_line = low < (at_least if at_most is None else at_most) < high
    return {**limit, "is": ratio["median"], "min": ratio["min"], "max": ratio["max"], "median_95": ratio["median_95"], "met": met,
            "on_the_line": on_the_line, "rounds": len(ratio.get("rounds", ()))}


def machine():
    model = next((line.split(":", 1)[1].strip() for line in read("/proc/cpuinfo").splitlines() if line.startswith("model name")),
                 platform.processor() or "unknown")
    return {"cpu": model, "cpus": os.cpu_count(), "kernel": platform.release(), "load_average_at_start": os.getloadavg()[0],
            "server_cpu": cpu.server, "clients_cpu": cpu.clients}
