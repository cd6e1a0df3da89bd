# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The Debian package: what is in it, and what its maintainer scripts decide. `make check-deb` installs, upgrades and purges it for real."""
import json
import os
import pathlib
import re
import shutil
import time

import pytest

from netns import run
from world import BUILD, SLUICED, rfc3339

TREE = pathlib.Path(__file__).resolve().parents[2]
PACKAGING = TREE / "scripts" / "packaging"
VERSION = "9.8.7"
SCRIPTS = ("postinst", "prerm", "postrm")
PROGRAMS = ("sluice", "sluiced", "sluice-writer")

pytestmark = pytest.mark.skipif(not (shutil.which("dpkg-deb") and shutil.which("dpkg-shlibdeps")),
                                reason="dpkg-deb and dpkg-shlibdeps (package dpkg-dev) are not installed")


def build(directory):
    run([PACKAGING / "build-deb.sh", BUILD, VERSION, directory], cwd=TREE, env={**os.environ, "SOURCE_DATE_EPOCH": "1790000000"})
    return next(directory.glob("*.deb"))


@pytest.fixture(scope="module", name="package")
def package_fixture(tmp_path_factory):
    return build(tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="module", name="unpacked")
def unpacked_fixture(package, tmp_path_factory):
    directory = tmp_path_factory.mktemp("unpacked")
    run(["dpkg-deb", "-R", package, directory])
    return directory


def field(package, name):
    return run(["dpkg-deb", "-f", package, name]).stdout.strip()


def test_every_file_is_in_its_place_with_its_mode(package):
    modes = {}
    for line in run(["dpkg-deb", "-c", package]).stdout.splitlines():
        mode, owner, _, _, _, path = line.split(None, 5)
        assert owner == "root/root", line
        if not mode.startswith("d"):
            modes[path.removeprefix(".")] = mode
    expected = {
        **{f"/usr/sbin/{name}": "-rwxr-xr-x" for name in PROGRAMS},
        "/usr/lib/sluice/gate-up": "-rwxr-xr-x",
        **{f"/lib/systemd/system/{name}.service": "-rw-r--r--" for name in ("sluice-gate@", "sluiced", "sluice-writer")},
        **{f"/usr/share/man/man8/{name}.8.gz": "-rw-r--r--" for name in PROGRAMS},
        "/usr/share/man/man5/sluice.conf.5.gz": "-rw-r--r--",
        "/usr/share/bash-completion/completions/sluice": "-rw-r--r--",
        "/usr/share/doc/sluice/operations.md": "-rw-r--r--",
        "/usr/share/doc/sluice/copyright": "-rw-r--r--",
        "/etc/sluice/sluice.conf": "-rw-r--r--",
    }
    assert {path: modes.get(path) for path in expected} == expected
    assert not [path for path, mode in modes.items() if "s" in mode[1:] or mode[8] == "w"], "set-user-id or writable by all"


def test_the_control_file_names_version_libraries_and_config(package, unpacked):
    assert field(package, "Package") == "sluice" and field(package, "Version") == VERSION
    assert field(package, "Architecture") == run(["dpkg", "--print-architecture"]).stdout.strip()
    depends = field(package, "Depends")
    for library in ("libc6", "libbpf", "libxdp", "libmicrohttpd", "libsqlite3", "libpq5", "libjansson", "libconfig", "libcurl", "libseccomp", "adduser"):
        assert re.search(rf"\b{library}", depends), (library, depends)
    assert (unpacked / "DEBIAN" / "conffiles").read_text(encoding="ascii").split() == ["/etc/sluice/sluice.conf"]
    assert 500 < int(field(package, "Installed-Size")) < 10000


def test_the_config_gives_each_part_its_own_user_and_directory(unpacked):
    config = unpacked / "etc" / "sluice" / "sluice.conf"
    assert run([SLUICED, "--check=syntax", "--config", config]).returncode == 0
    settings = dict(re.findall(r'^\t(\w+) = "([^"]*)";', config.read_text(encoding="utf-8").split("writer:")[1].split("};")[0], re.MULTILINE))
    assert settings == {"socket": "/run/sluice-writer/writer.sock", "store": "sqlite",
                        "ledger": "/var/lib/sluice-writer/ledger.db", "postgres": "dbname=sluice", "group": "",
                        "user": "sluice-writer"}
    assert re.search(r'^\tuser = "sluice";', config.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_units_run_what_the_package_installs(unpacked):
    for unit in (unpacked / "lib" / "systemd" / "system").iterdir():
        for command in re.findall(r"^Exec\w+=(\S+)", unit.read_text(encoding="utf-8"), re.MULTILINE):
            assert os.access(unpacked / command.lstrip("/"), os.X_OK), (unit.name, command)


def test_the_programs_are_stripped_and_start(unpacked):
    for name in PROGRAMS:
        program = unpacked / "usr" / "sbin" / name
        assert run([program, "--version"]).returncode == 0
        assert ".symtab" not in run(["readelf", "-SW", program]).stdout


def test_the_same_sources_give_the_same_package(package, tmp_path):
    assert build(tmp_path).read_bytes() == package.read_bytes()


def test_without_the_package_the_writer_s_user_may_read_the_config_and_all_but_it_can_be_taken_away_again(tmp_path):
    def make(*targets):
        run(["make", "--no-print-directory", "-s", "-o", "all", *(arg for name in PROGRAMS for arg in ("-o", f"{BUILD}/{name}")), f"BUILD={BUILD}",
             f"DESTDIR={tmp_path}", *targets], cwd=TREE)

    def files():
        return {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir()}
    make("install", "install-units")
    config = "etc/sluice/sluice.conf"
    assert files() > {config, "usr/local/sbin/sluice-writer", "usr/local/lib/systemd/system/sluiced.service", "usr/local/share/man/man8/sluice.8"}
    assert (tmp_path / config).stat().st_mode & 0o777 == 0o644, "sluice-writer's unit is not root when it opens it"
    make("uninstall")
    assert files() == {config}


@pytest.mark.skipif(not shutil.which("lintian"), reason="lintian is not installed")
def test_lintian_finds_no_error_and_no_warning(package):
    done = run(["lintian", "--allow-root", "--fail-on", "error,warning", package], check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_maintainer_scripts_are_sound(unpacked, name):
    script = unpacked / "DEBIAN" / name
    assert script.read_text(encoding="utf-8").startswith("#!/bin/sh\n")
    run(["sh", "-n", script])
    if shutil.which("shellcheck"):
        run(["shellcheck", script])
    assert run([script, "nonsense"], check=False).returncode == 1


# --- what they decide, with programs that only write down how they were called --------------------------------------------
class Machine:
    """Runs a maintainer script where /run, /etc and /var/lib are its own, and the programs it calls are stand-ins."""

    def __init__(self, directory, unpacked):
        self.directory, self.scripts = directory, unpacked / "DEBIAN"
        self.bin = directory / "bin"
        self.bin.mkdir()
        self.calls = directory / "calls"
        self.lib = directory / "lib"
        self.lib.mkdir()
        self.etc = directory / "etc"
        self.etc.mkdir()
        for name in ("adduser", "systemctl", "deb-systemd-invoke"):
            self.stand_in(name)
        self.stand_in("sluice")

    def stand_in(self, name, body="exit 0"):
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.calls}\n{body}\n', encoding="utf-8")
        path.chmod(0o755)

    def sluice(self, sales="[]", reload=0, detach=0, asked=0):
        self.stand_in("sluice", f"case $1 in sale) echo '{{\"sales\": {sales}}}'; exit {asked} ;; reload) exit {reload} ;; detach) exit {detach} ;; esac")

    def run(self, script, *args, check=True, then=None):
        """One script, and another after it on the same /run, whatever the first one said."""
        self.calls.write_text("", encoding="ascii")
        mounts = f"mount -t tmpfs none /run && mkdir -p /run/systemd/system && mount --bind {self.lib} /var/lib && mount --bind {self.etc} /etc/systemd"
        after = f"; {self.scripts / then[0]} {then[1]}" if then else ""
        done = run(["unshare", "-m", "sh", "-c", f'{mounts} && "$@"{after}', "sh", self.scripts / script, *args], check=check,
                   env={"PATH": f"{self.bin}:/usr/sbin:/usr/bin:/sbin:/bin"})
        done.calls = self.calls.read_text(encoding="utf-8").splitlines()
        return done


@pytest.fixture(name="machine")
def machine_fixture(tmp_path, unpacked):
    return Machine(tmp_path, unpacked)


def changes(calls):
    """The calls that change what runs."""
    return [call for call in calls if re.match(r"sluice (reload|attach|detach)|deb-systemd-invoke|systemctl (re)?(start|stop)", call)]


def test_a_new_installation_makes_the_users_and_starts_nothing(machine):
    machine.sluice()
    done = machine.run("postinst", "configure", "")
    assert changes(done.calls) == []
    made = [call for call in done.calls if call.startswith("adduser --system")]
    assert [call.split()[-1] for call in made] == ["sluice", "sluice-writer"]
    assert "adduser --quiet sluice sluice-writer" in done.calls


def test_an_upgrade_replaces_the_gate_then_restarts_writer_and_daemon_in_one_transaction(machine):
    machine.sluice(sales='[{"slug": "a", "state": "ended", "opens_at": "2020-01-01T00:00:00Z"}, '
                         f'{{"slug": "b", "state": "scheduled", "opens_at": "{rfc3339(time.time() + 3700)}"}}]')
    done = machine.run("postinst", "configure", "0.0.1")
    assert changes(done.calls) == ["sluice reload", "deb-systemd-invoke restart sluice-writer.service sluiced.service sluice-consumer.service"]


@pytest.mark.parametrize("state, opens_in", [("open", -60), ("paused", -60), ("sold_out", -60), ("scheduled", 3500)])
def test_an_upgrade_during_a_sale_or_just_before_touches_nothing_and_says_what_to_do(machine, state, opens_in):
    sales = [{"slug": "b", "state": "ended", "opens_at": "2020-01-01T00:00:00Z"},
             {"slug": "a", "state": state, "opens_at": rfc3339(time.time() + opens_in)}]
    machine.sluice(sales=json.dumps(sales, indent=2))
    done = machine.run("postinst", "configure", "0.0.1")
    assert changes(done.calls) == []
    assert "a sale is open" in done.stdout and "sluice reload" in done.stdout


@pytest.mark.parametrize("code, restarts", [(6, True), (1, False), (5, False), (124, False)])
def test_an_upgrade_that_cannot_find_out_whether_a_sale_is_open_touches_nothing(machine, code, restarts):
    """But for a daemon that is not there (6): it has no sale that could be disturbed."""
    machine.sluice(asked=code)
    done = machine.run("postinst", "configure", "0.0.1")
    assert bool(changes(done.calls)) == restarts
    assert ("could not be found out" in done.stdout and "sluice reload" in done.stdout) != restarts


@pytest.mark.parametrize("code", [1, 4])
def test_an_upgrade_whose_program_does_not_fit_the_gate_restarts_nothing(machine, code):
    machine.sluice(reload=code)
    done = machine.run("postinst", "configure", "0.0.1")
    assert changes(done.calls) == ["sluice reload"]
    assert "sluice detach --all" in done.stdout


def test_an_upgrade_leaves_services_alone_that_do_not_run(machine):
    machine.sluice(reload=3)
    machine.stand_in("systemctl", "case $* in *is-active*) exit 3 ;; esac")
    assert changes(machine.run("postinst", "configure", "0.0.1").calls) == ["sluice reload"]


def test_the_old_version_stops_nothing_on_an_upgrade(machine):
    assert machine.run("prerm", "upgrade", VERSION).calls == []
    assert changes(machine.run("postrm", "upgrade", VERSION).calls) == []


def test_a_removal_stops_the_services_and_then_takes_the_gate_off(machine):
    machine.sluice()
    calls = [call for call in machine.run("prerm", "remove").calls if not call.startswith("systemctl list-units")]
    assert calls == ["deb-systemd-invoke stop sluiced.service sluice-writer.service sluice-consumer.service sluice-gate@*.service", "sluice detach --all"]


@pytest.mark.parametrize("code, allowed", [(3, True), (5, True), (1, False), (4, False)])
def test_a_gate_that_cannot_be_taken_off_keeps_the_package(machine, code, allowed):
    machine.sluice(detach=code)
    assert (machine.run("prerm", "remove", check=False).returncode == 0) == allowed


def test_a_removal_that_comes_to_nothing_starts_again_what_ran(machine):
    machine.sluice(detach=1)
    machine.stand_in("systemctl", "case $* in *list-units*) printf 'sluiced.service loaded active\\nsluice-gate@eth0.service loaded active\\n' ;; esac")
    done = machine.run("prerm", "remove", then=("postinst", "abort-remove"), check=False)
    assert changes(done.calls)[-1] == "systemctl start sluiced.service sluice-gate@eth0.service", done
    # Nothing ran, so nothing is started.
    machine.stand_in("systemctl")
    done = machine.run("prerm", "remove", then=("postinst", "abort-remove"), check=False)
    assert changes(done.calls)[-1] == "sluice detach --all"


def test_a_purge_deletes_keys_and_links_but_never_a_ledger(machine):
    daemon, writer = machine.lib / "sluice", machine.lib / "sluice-writer"
    daemon.mkdir()
    writer.mkdir()
    for name in ("keys", "control.secret", "webhook.secret", "revoked", "answers.json", "answers.json.new", "answers.json.rejected", "doctor.json",
                 "fleet.keys", "settings", "settings.new", "sluiced.lock"):
        (daemon / name).touch()
    (writer / "ledger.db").touch()
    wants = machine.etc / "system" / "multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "sluiced.service").symlink_to("/lib/systemd/system/sluiced.service")
    (wants / "other.service").symlink_to("/lib/systemd/system/other.service")
    done = machine.run("postrm", "purge")
    assert not daemon.exists(), list(daemon.iterdir())
    assert (writer / "ledger.db").exists() and "sluice-writer is kept" in done.stdout
    assert [path.name for path in wants.iterdir()] == ["other.service"]
    (writer / "ledger.db").unlink()
    daemon.mkdir()
    (daemon / "fleet.secret").touch()
    machine.run("postrm", "purge")
    assert not writer.exists() and (daemon / "fleet.secret").exists()


def test_a_removal_without_a_purge_keeps_the_state(machine):
    daemon = machine.lib / "sluice"
    daemon.mkdir()
    (daemon / "keys").touch()
    machine.run("postrm", "remove")
    assert (daemon / "keys").exists()
