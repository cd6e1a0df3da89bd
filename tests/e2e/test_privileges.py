# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""What daemon, writer and loader may do when they run as their systemd units start them, and that they can do their work with it."""
import json
import os
import re
import shutil
import stat
import types

import pytest

import unit as unit_module
import world as world_module
from netns import Process, run, wait_until
from unit import Unit
from world import DEVICE, SLUICE, SLUICED, WRITER, World

NO_CAPABILITY = 0
CAP_DAC_OVERRIDE = 1 << 1
SECCOMP_FILTER = 2
DAEMON, WRITER_USER = types.SimpleNamespace(name="sluice", id=61001), types.SimpleNamespace(name="sluice-writer", id=61002)


def status_of(pid):
    """/proc/PID/status as a dictionary of text."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def capabilities_of(pid):
    """Every set of capabilities, as one number."""
    status = status_of(pid)
    return {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}


def assert_confined(pid, keep=NO_CAPABILITY):
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            status = status_of(f"{pid}/task/{task}")
        except FileNotFoundError:  # the thread of a connection that has been answered
            continue
        assert (status["NoNewPrivs"], int(status["Seccomp"])) == ("1", SECCOMP_FILTER), (task, status["Name"])
        sets = {name: int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")}
        assert sets == dict.fromkeys(sets, keep), (task, status["Name"])
        assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0


class ServicesWorld(World):
    """The directories, users and settings of the Debian package, in one temporary directory."""

    def __init__(self, settings=None):
        super().__init__(settings={"daemon.user": DAEMON.name, "writer.user": WRITER_USER.name, "daemon.control_group": "", **(settings or {})},
                         start=())
        self.dir.chmod(0o711)
        self.etc = self.dir / "etc"
        self.etc.mkdir(mode=0o755)
        for name, own in (("passwd", f"{DAEMON.name}:x:{DAEMON.id}:{DAEMON.id}::/nonexistent:/usr/sbin/nologin\n"
                                     f"{WRITER_USER.name}:x:{WRITER_USER.id}:{WRITER_USER.id}::/nonexistent:/usr/sbin/nologin\n"),
                          ("group", f"{DAEMON.name}:x:{DAEMON.id}:\n{WRITER_USER.name}:x:{WRITER_USER.id}:{DAEMON.name}\n")):
            with open(f"/etc/{name}", encoding="utf-8") as file:
                kept = [line for line in file if line.split(":")[0] not in (DAEMON.name, WRITER_USER.name)]
            (self.etc / name).write_text("".join(kept) + own, encoding="utf-8")
            (self.etc / name).chmod(0o644)
        self.run_daemon = self.make("run-daemon", 0o755, 0)
        self.run_writer = self.make("run-writer", 0o750, WRITER_USER.id)
        self.state_dir = self.make("lib-daemon", 0o700, 0)
        self.ledger_dir = self.make("lib-writer", 0o700, WRITER_USER.id)
        self.control_socket = self.run_daemon / "control.sock"
        self.ledger = self.ledger_dir / "ledger.db"
        self.settings.update({"daemon.control_socket": self.control_socket, "daemon.state_dir": self.state_dir,
                              "writer.socket": self.run_writer / "writer.sock", "writer.ledger": self.ledger})
        self.write_config()
        self.config.chmod(0o644)

    def make(self, name, mode, owner):
        path = self.dir / name
        path.mkdir()
        path.chmod(mode)
        os.chown(path, owner, owner)
        return path

    def start_writer(self):
        command = Unit("sluice-writer.service").command([WRITER, "--config", self.config], self.etc, [self.run_writer, self.ledger_dir])
        self.writer = Process(self.shop.command(command), self.dir / "writer.log")
        path = self.settings["writer.socket"]
        wait_until(lambda: path.exists() or not self.writer.running(), "the writer's socket")
        assert self.writer.running(), self.writer.log()

    def start_daemon(self, env=None, ready=True):
        command = Unit("sluiced.service").command([SLUICED, "--config", self.config], self.etc,
                                                  [self.run_daemon, self.state_dir, world_module.BPFFS])
        self.daemon = Process(self.shop.command(command), self.dir / "daemon.log", env=env)
        if ready:
            self.wait_ready()


@pytest.fixture(scope="module", name="services")
def services_fixture():
    with ServicesWorld() as services:
        services.attach()
        services.start_writer()
        services.start_daemon()
        yield services


def door_of(services):
    """Id of the program behind the daemon's call door."""
    def door_ids():
        for fd in os.listdir(f"/proc/{services.daemon.pid}/fdinfo"):
            with open(f"/proc/{services.daemon.pid}/fdinfo/{fd}", encoding="utf-8") as file:
                found = re.search(r"^prog_type:\s*31\n(?:.*\n)*?prog_id:\s*(\d+)", file.read(), re.MULTILINE)
                if found:
                    yield int(found.group(1))
    return next(door_ids(), None)


def pinned_door(services):
    return json.loads(run([world_module.BPFTOOL, "-j", "prog", "show", "pinned", services.pin_dir / "door"]).stdout)["id"]


def test_the_daemon_is_its_own_user_and_has_no_capability(services):
    pid = services.daemon.pid
    status = status_of(pid)
    assert status["Uid"].split() == [str(DAEMON.id)] * 4
    assert status["Gid"].split() == [str(DAEMON.id)] * 4
    assert sorted(map(int, status["Groups"].split())) == [DAEMON.id, WRITER_USER.id]
    assert_confined(pid)


def test_the_writer_is_its_own_user_without_capability_and_without_network(services):
    pid = services.writer.pid
    status = status_of(pid)
    assert status["Uid"].split() == [str(WRITER_USER.id)] * 4
    assert status["Gid"].split() == [str(WRITER_USER.id)] * 4
    assert status["Groups"].split() == [str(WRITER_USER.id)]
    assert_confined(pid)
    assert os.stat(f"/proc/{pid}/ns/net").st_ino != os.stat(f"/proc/{services.daemon.pid}/ns/net").st_ino


def test_a_whole_sale_works_with_those_rights(services, family):
    sale = services.sale(stock=4)
    tokens = [sale.token() for _ in range(5)]
    by_wire, by_call = services.order(tokens[0], family), services.order_by_call_door(tokens[1], family)
    assert (by_wire.status, by_call.status) == (201, 201), (by_wire, by_call)
    assert services.order(tokens[0], family).status == 200
    assert services.public("GET", f"/v1/orders/{tokens[1]}").json()["state"] == "held"
    assert [services.order(token, family).status for token in tokens[2:]] == [201, 201, 409]
    assert services.control("PUT", "/v1/lists/deny/203.0.113.0/24", {"ttl_seconds": 60}).status in (200, 201)
    assert services.control("GET", "/metrics").status == 200
    sale.assert_books(put_in=4, free=0, held=4)


def test_what_the_daemon_keeps_on_disk_it_can_still_change(services):
    sale = services.sale(stock=3)
    before, revoked = sale.token(), sale.token()
    key = services.ask("POST", "/v1/keys/rotate")["key_id"]
    services.ask("POST", "/v1/tokens/revoke", {"token": revoked})
    after = sale.token()
    assert services.ask("POST", "/v1/tokens/inspect", {"token": after})["key_id"] == key
    assert [services.order(token).status for token in (before, revoked, after)] == [201, 401, 201]
    for name in ("keys", "revoked", "control.secret"):
        info = (services.state_dir / name).stat()
        assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (DAEMON.id, DAEMON.id, 0o600), name


def test_the_new_call_door_is_opened_after_a_reload_without_root(services):
    before = door_of(services)
    assert before == pinned_door(services)
    services.sluice("reload", "--config", services.config)
    wait_until(lambda: door_of(services) == pinned_door(services) != before, "the daemon has the new call door")
    sale = services.sale(stock=1)
    assert services.order_by_call_door(sale.token()).status == 201
    assert "cannot be opened" not in services.daemon.log()


def test_of_the_pins_the_daemon_s_group_reaches_the_call_door_alone(services):
    directory = os.stat(services.pin_dir)
    assert (directory.st_uid, directory.st_gid, stat.S_IMODE(directory.st_mode)) == (0, DAEMON.id, 0o710)
    for pin in services.pin_dir.iterdir():
        info = pin.stat()
        expected = (0, DAEMON.id, 0o660) if pin.name == "door" else (0, 0, 0o600)
        assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == expected, pin.name


def as_user(user, *argv, groups=()):
    ids = ",".join(str(group) for group in (user.id, *groups))
    return run(["setpriv", "--reuid", user.id, "--regid", user.id, "--groups", ids, "--inh-caps=-all", "--bounding-set=-all", "--",
                *argv], check=False)


def test_neither_of_the_two_reads_what_is_the_other_s(services):
    keys, ledger = services.state_dir / "keys", services.ledger
    for path, owner in ((keys, DAEMON), (ledger, WRITER_USER)):
        info = path.stat()
        assert (info.st_uid, stat.S_IMODE(info.st_mode)) == (owner.id, 0o600), path
    assert as_user(DAEMON, "cat", ledger, groups=[WRITER_USER.id]).returncode != 0
    assert as_user(WRITER_USER, "cat", keys).returncode != 0
    assert as_user(WRITER_USER, "ls", services.pin_dir).returncode != 0
    assert as_user(DAEMON, "ls", services.pin_dir).returncode != 0


def test_daemon_and_writer_start_again_on_what_they_left(services):
    sale = services.sale(stock=3)
    assert services.order(sale.token()).status == 201
    services.daemon.terminate()
    services.writer.terminate()
    services.start_writer()
    services.start_daemon()
    wait_until(lambda: sale.show()["state"] == "open", "the sale goes on")
    assert services.order(sale.token()).status == 201
    assert services.order_by_call_door(sale.token()).status == 201
    sale.assert_books(put_in=3, free=0, held=3)
    assert_confined(services.daemon.pid)
    assert_confined(services.writer.pid)


def test_started_by_root_without_systemd_they_become_their_users_and_find_each_other():
    with ServicesWorld() as services:
        def start(program, log):
            mounts = " && ".join(f"mount --bind {services.etc / name} /etc/{name}" for name in ("passwd", "group"))
            return Process(services.shop.command(["unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh", program, "--config",
                                                  services.config]), services.dir / log)
        services.attach()
        services.writer = start(WRITER, "writer.log")
        services.daemon = start(SLUICED, "daemon.log")
        services.wait_ready()
        for process, user in ((services.daemon, DAEMON), (services.writer, WRITER_USER)):
            assert status_of(process.pid)["Uid"].split() == [str(user.id)] * 4
            assert_confined(process.pid)
        sale = services.sale(stock=1)
        assert services.order(sale.token()).status == 201


def test_what_root_put_into_the_state_directory_is_the_daemon_s():
    """As an operator makes a fleet's secret, and as a node leaves its files that ran as root until today."""
    with ServicesWorld({"fleet.redis": "127.0.0.1:1", "fleet.node": 1, "nodes": [{"id": 1, "url": "http://shop.example"}]}) as services:
        services.history.no_verdict("there is no Redis, so orders stay closed")
        kept = {services.state_dir / "fleet.secret": "5a" * 32 + "\n",
                services.state_dir / "fleet.keys": "sluice-fleet-keys 1\ncurrent 1\naccepted 1\nover_at 0\nagreed -\nend\n",
                services.state_dir / "settings": "sluice-settings 1\n"}
        services.attach()
        for path, text in kept.items():
            path.write_text(text, encoding="utf-8")
            path.chmod(0o600)
        services.start_daemon(ready=False)

        def answers():
            assert services.daemon.running(), services.daemon.log()
            return services.control_socket.exists() and services.control("GET", "/livez").status == 200
        wait_until(answers, "the daemon answers")
        for path in kept:
            info = path.stat()
            assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (DAEMON.id, DAEMON.id, 0o600), path


def test_started_by_root_without_a_user_they_keep_next_to_nothing():
    with World() as world:
        assert status_of(world.daemon.pid)["Uid"].split() == ["0"] * 4
        assert_confined(world.daemon.pid)
        assert_confined(world.writer.pid, keep=CAP_DAC_OVERRIDE)  # the ledger may lie in the daemon's directory
        sale = world.sale(stock=2)
        assert world.order(sale.token()).status == 201
        assert world.order_by_call_door(sale.token()).status == 201


def test_the_gate_s_unit_attaches_with_four_capabilities_and_leaves_a_gate_that_is_there():
    with ServicesWorld() as services:
        helper = unit_module.UNITS / "gate-up"
        wrapper = services.dir / "sluice"
        wrapper.write_text(f"#!/bin/sh\ncommand=$1; shift\nexec {SLUICE} $command --config {services.config} \"$@\"\n", encoding="utf-8")
        wrapper.chmod(0o755)
        unit = Unit("sluice-gate@.service")
        assert unit.bounding_set() == ["CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON", "CAP_CHOWN"]
        services.shop.sysctl("net.ipv4.tcp_syncookies", 1)

        def start(*argv):
            command = unit.command(["/usr/bin/env", f"SLUICE={wrapper}", *argv], services.etc, [world_module.BPFFS])
            return services.shop.run(command, check=False)

        def gate():
            status = json.loads(services.sluice("status", "-o", "json", "--config", services.config).stdout)
            return status["interfaces"][0]["link_id"], status["program"]["id"]

        options = unit.last("Environment").strip('"').partition("=")[2].split()
        first = start(helper, DEVICE, *options)
        assert first.returncode == 0, first.stderr
        attached = gate()
        again = start(helper, DEVICE, *options)
        assert again.returncode == 0 and "stays as it is" in again.stdout, again
        assert gate() == attached
        assert start(helper, "nosuch0", *options).returncode == 3
        services.start_writer()
        services.start_daemon()
        reload = start(wrapper, "reload")  # what the unit's ExecReload= does
        assert reload.returncode == 0, reload.stderr
        link, program = gate()
        assert link == attached[0] and program != attached[1]
        wait_until(lambda: door_of(services) == pinned_door(services), "the daemon has the new call door")


def installed_units(directory):
    """The unit files with the paths of this build, so that systemd finds the programs."""
    for path in unit_module.UNITS.glob("*.service"):
        text = path.read_text(encoding="utf-8").replace("/usr/sbin/", f"{world_module.BUILD}/")
        text = text.replace("/usr/lib/sluice/", f"{unit_module.UNITS}/")
        text = re.sub(r"^Documentation=.*\n", "", text, flags=re.MULTILINE)
        (directory / path.name).write_text(text, encoding="utf-8")
    (directory / "sluice-gate@.service").rename(directory / "sluice-gate@eth0.service")
    return sorted(directory.glob("*.service"))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze (package systemd) is not installed")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path):
    for unit in installed_units(tmp_path):
        done = run(["systemd-analyze", "--no-pager", "verify", unit], check=False)
        complaints = [line for line in (done.stdout + done.stderr).splitlines() if "sluice" in line]
        assert done.returncode == 0 and not complaints, complaints


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze (package systemd) is not installed")
@pytest.mark.parametrize("name, limit", [("sluice-writer.service", 1.0), ("sluice-consumer.service", 2.0), ("sluiced.service", 3.0),
                                         ("sluice-gate@eth0.service", 3.0)])
def test_systemd_rates_the_exposure_of_the_units_as_low(tmp_path, name, limit):
    installed_units(tmp_path)
    done = run(["systemd-analyze", "--no-pager", "security", "--offline=true", tmp_path / name])
    rating = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert rating and float(rating.group(1)) <= limit, done.stdout
