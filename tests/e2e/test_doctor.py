# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""`sluice doctor`: finds nothing that fails in a shop that is well, names what was really made wrong, and leaves nothing behind."""
import contextlib
import json
import os
import pathlib
import shlex
import threading
import time

import pytest

from netns import run
from world import DEVICE, PORT, SHOP, SLUICE, World, config_text

OK, FAILED, USAGE = range(3)
TIMED_OUT = 124  # of timeout(1)
NOBODY, NOGROUP = 65534, 65534


def doctor(world, *args, measure=False, through=()):
    """(exit code, report). `through`: a command that runs it."""
    argv = [*through, SLUICE, "doctor", "--config", world.config, "-o", "json", *([] if measure else ["--no-measure"]), *args]
    done = world.shop.run(argv, check=False)
    assert done.stdout, done
    report = json.loads(done.stdout)
    assert report["ok"] == (done.returncode == OK) == (not report["failed"]), done
    assert report["failed"] == len(of(report, "fail")) and report["warned"] == len(of(report, "warn"))
    return done.returncode, report


def doctor_of(config):
    """Its report, and a pace that is measured, where there is no shop."""
    return json.loads(run([SLUICE, "doctor", "--config", config, "-o", "json"], check=False).stdout)


def of(report, result, check=None):
    return [entry["what"] + " -> " + entry["todo"] for entry in report["findings"]
            if entry["result"] == result and check in (None, entry["check"])]


def in_a_mount_namespace(*commands):
    """A way to run a command after mounts that nobody else sees."""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", "; ".join(commands) + '; exec "$@"', "sh"]


def left_behind(world):
    return [path.name for path in world.ledger.parent.iterdir() if path.name.startswith(".doctor")]


# --- a shop that is well --------------------------------------------------------------------------------------------------

def test_nothing_fails_in_a_shop_that_is_well_and_the_pace_is_put_down(world):
    code, report = doctor(world, measure=True)
    assert code == OK and of(report, "fail") == []
    checks = {entry["check"] for entry in report["findings"]}
    assert checks >= {"config", "privilege", "kernel", "gate", "xdp", "mtu", "offloads", "tcp_syncookies", "somaxconn", "clock", "files",
                      "disk", "pace", "writer", "daemon"}
    pace = json.loads((world.state_dir / "doctor.json").read_text(encoding="utf-8"))
    assert pace == report["pace"]
    assert 0 < pace["safe_pace_per_second"] <= pace["orders_per_second"] / 2
    assert 0 < pace["fdatasync_p50_ms"] <= pace["fdatasync_p99_ms"] and 0 < pace["commit_p50_ms"] <= pace["commit_p99_ms"]
    assert left_behind(world) == []


def test_it_disturbs_neither_daemon_nor_writer_nor_the_books(world):
    sale = world.sale(stock=5)
    assert world.order(sale.token()).status == 201
    doctor(world, measure=True)
    assert "the daemon is connected" in world.writer.log() and world.writer.log().count("the daemon is connected") == 1
    assert world.order(sale.token()).status == 201
    sale.assert_books(held=2, free=3)
    world.sluice("verify", "--config", world.config)


def test_the_table_has_a_line_for_each_finding(world):
    done = world.sluice("doctor", "--config", world.config, "--no-measure")
    _, report = doctor(world)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["RESULT", "CHECK", "WHAT"] and len(lines) == 1 + len(report["findings"])
    assert "0 fail" in done.stderr


def test_without_measuring_nothing_is_written(world):
    path = world.state_dir / "doctor.json"
    path.unlink(missing_ok=True)
    _, report = doctor(world)
    assert report["pace"] is None and not path.exists() and left_behind(world) == []


# --- what was made wrong -----------------------------------------------------------------------------------------------------

def test_syn_cookies_that_are_off_fail(world):
    world.shop.sysctl("net.ipv4.tcp_syncookies", 0)
    try:
        code, report = doctor(world)
        finding, = of(report, "fail")
        assert code == FAILED and "tcp_syncookies is 0" in finding
    finally:
        world.shop.sysctl("net.ipv4.tcp_syncookies", 2)


def test_a_short_accept_queue_is_a_warning(world):
    world.shop.sysctl("net.core.somaxconn", 128)
    try:
        code, report = doctor(world)
        assert code == OK and "is 128" in of(report, "warn", "somaxconn")[0]
    finally:
        world.shop.sysctl("net.core.somaxconn", 4096)


def test_a_driver_that_strips_tags_is_a_warning(world):
    world.shop.run(["ethtool", "-K", DEVICE, "rxvlan", "on"])
    try:
        code, report = doctor(world)
        assert code == OK and f"ethtool -K {DEVICE} rxvlan off" in of(report, "warn", "offloads")[0]
    finally:
        world.shop.run(["ethtool", "-K", DEVICE, "rxvlan", "off"])
    assert of(doctor(world)[1], "warn", "offloads") == []


def test_what_the_host_would_drop_behind_the_gate_is_a_warning(world):
    """And by then the unit is taken."""
    strict, loose = f"net.ipv4.conf.{DEVICE}.rp_filter", "net.netfilter.nf_conntrack_tcp_loose"
    with world.shop.entered():
        conntrack = pathlib.Path("/proc/sys", *loose.split(".")).exists()
    assert of(doctor(world)[1], "warn", "firewall") == []
    try:
        world.shop.sysctl(strict, 1)
        assert f"net.ipv4.conf.{DEVICE}.rp_filter=2" in of(doctor(world)[1], "warn", "firewall")[0]
        world.shop.sysctl(strict, 2)
        world.shop.sysctl("net.ipv4.conf.all.rp_filter", 1)  # the larger one counts
        assert of(doctor(world)[1], "warn", "firewall") == []
        world.shop.sysctl(strict, 0)
        assert f"rp_filter of {DEVICE} is 1" in of(doctor(world)[1], "warn", "firewall")[0]
        world.shop.sysctl("net.ipv4.conf.all.rp_filter", 0)
        if conntrack:
            world.shop.sysctl(loose, 0)
            code, report = doctor(world)
            assert code == OK and f"{loose}=1" in of(report, "warn", "firewall")[0]
    finally:
        for key in ("net.ipv4.conf.all.rp_filter", strict):
            world.shop.sysctl(key, 0)
        if conntrack:
            world.shop.sysctl(loose, 1)


def test_answers_that_the_driver_drops_are_a_warning(world):
    """Attached, native, and no buyer ever gets a SYN-ACK: only a counter of the driver's knows."""
    connect = ["bash", "-c", f"exec 3<>/dev/tcp/{SHOP['ipv4']}/{PORT}"]
    assert of(doctor(world)[1], "warn", "answers") == []
    world.crowd.run(["ip", "link", "set", "dev", DEVICE, "xdp", "off"])
    try:
        assert world.crowd.run(["timeout", "1", *connect], check=False).returncode == TIMED_OUT
        finding, = of(doctor(world)[1], "warn", "answers")
        assert "xdp_tx_errors is" in finding and "give its peer an XDP program" in finding
    finally:
        world.network.let_answers_in()
    world.crowd.run(["timeout", "5", *connect])


def test_an_mtu_that_is_too_large_for_native_mode_fails(world):
    world.shop.run(["ip", "link", "add", "jumbo", "mtu", "9000", "type", "veth", "peer", "name", "jumbo1", "mtu", "9000"])
    try:
        world.shop.run(["ip", "link", "set", "jumbo", "up"])
        code, report = doctor(world, "jumbo")
        assert code == FAILED and "9000" in of(report, "fail", "mtu")[0]
        assert "no XDP program" in of(report, "warn", "xdp")[0]
        world.shop.run(["ip", "link", "set", "jumbo", "down"])
        assert "jumbo" in of(doctor(world, "jumbo")[1], "fail", "interface")[0]
    finally:
        world.shop.run(["ip", "link", "del", "jumbo"])
    assert "nosuch" in of(doctor(world, "nosuch")[1], "fail", "interface")[0]


def test_a_config_that_was_changed_since_the_gate_was_attached_is_a_warning(world):
    config = world.dir / "changed.conf"
    services = [{"name": "shop", "address": "192.0.2.99", "port": PORT + 1}]
    config.write_text(config_text({**world.settings, "services": services, "gate.max_admissions": 4096}), encoding="utf-8")
    assert of(doctor(world)[1], "warn", "services") == of(doctor(world)[1], "warn", "sizes") == []
    code, report = doctor(world, "--config", config)
    assert code == OK and "other services than the config" in of(report, "warn", "services")[0]
    size, = of(report, "warn", "sizes")
    assert "gate.max_admissions than 4096" in size and "detach --all" in size


def test_without_privileges_it_says_so_and_looks_at_the_rest(world):
    code, report = doctor(world, through=["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"])
    assert code == FAILED and "CAP_" in of(report, "fail", "privilege")[0]
    assert of(report, "warn", "kernel") and of(report, "ok", "daemon")


@pytest.mark.parametrize("mode", [0o644, 0o620])
def test_a_key_that_others_can_reach_fails(world, mode):
    keys = world.state_dir / "keys"
    keys.chmod(mode)
    try:
        code, report = doctor(world)
        assert code == FAILED and f"chmod 0600 {keys}" in of(report, "fail", "files")[0]
    finally:
        keys.chmod(0o600)


def test_secrets_of_webhooks_and_of_a_fleet_are_looked_at_where_the_config_has_them(world):
    config = world.dir / "secrets.conf"
    secret, password = world.dir / "fleet.secret", world.dir / "redis.password"
    more = {"daemon.webhook_url": "http://shop.example/", "fleet.redis": "127.0.0.1:1", "fleet.node": 1, "fleet.secret_file": secret,
            "fleet.redis_password_file": password, "nodes": [{"id": 1, "url": "http://shop.example"}]}
    config.write_text(config_text({**world.settings, **more}), encoding="utf-8")
    for path in (world.state_dir / "webhook.secret", secret, password):
        path.write_text("x", encoding="utf-8")
        path.chmod(0o644)
        _, report = doctor(world, "--config", config)
        assert any(f"chmod 0600 {path}" in text for text in of(report, "fail", "files")), path
        path.unlink()


def test_a_ledger_in_a_server_is_not_looked_for_in_a_file(world):
    config = world.dir / "server.conf"
    more = {"writer.store": "postgres", "writer.postgres": "host=/nowhere dbname=sluice", "writer.ledger": world.dir / "nosuch" / "ledger.db",
            "writer.socket": world.dir / "nosuch.sock", "daemon.control_socket": world.dir / "nosuch-control.sock"}
    config.write_text(config_text({**world.settings, **more}), encoding="utf-8")
    _, report = doctor(world, "--config", config, measure=True)
    assert not [text for text in of(report, "warn") + of(report, "fail") if "nosuch/" in text]
    assert "in a database of its own" in of(report, "warn", "pace")[0]


@pytest.mark.parametrize("name", ["doctor.json", "doctor.json.new"])
def test_what_another_user_put_in_the_way_of_the_pace_is_not_followed(world, name):
    """The directory is the daemon's, and doctor is root."""
    theirs, place = world.dir / "theirs", world.state_dir / name
    theirs.write_text("as it was", encoding="utf-8")
    theirs.chmod(0o600)
    place.unlink(missing_ok=True)
    place.symlink_to(theirs)
    doctor(world, measure=True)
    assert (theirs.read_text(encoding="utf-8"), theirs.stat().st_mode & 0o777) == ("as it was", 0o600)
    pace = world.state_dir / "doctor.json"
    assert not pace.is_symlink() and pace.stat().st_mode & 0o777 == 0o644 and json.loads(pace.read_text(encoding="utf-8"))


def test_root_measures_as_the_user_who_owns_the_ledgers_directory(tmp_path):
    """Who owns the directory could put another in the place of the one that is measured in."""
    os.chmod(tmp_path.parent.parent, 0o755)
    os.chmod(tmp_path.parent, 0o755)
    place, config, seen, ended = tmp_path / "books", tmp_path / "doctor.conf", set(), threading.Event()
    os.chmod(tmp_path, 0o755)
    place.mkdir(mode=0o700)
    os.chown(place, NOBODY, NOGROUP)
    config.write_text(f'writer: {{ ledger = "{place}/ledger.db"; }};\ndaemon: {{ state_dir = "{tmp_path}"; }};\n', encoding="utf-8")

    def look():
        while not ended.is_set():
            for path in [*place.glob(".doctor-*"), *place.glob(".doctor-*/ledger.db")]:
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    seen.add((path.name.split("-")[0], status.st_uid, status.st_gid))
            time.sleep(0.01)
    looker = threading.Thread(target=look)
    looker.start()
    try:
        report = doctor_of(config)
    finally:
        ended.set()
        looker.join()
    assert report["pace"]["orders_per_second"] > 0
    assert seen == {(".doctor", NOBODY, NOGROUP), ("ledger.db", NOBODY, NOGROUP)} and list(place.iterdir()) == []
    assert (tmp_path / "doctor.json").stat().st_uid == 0  # it is root again
    # A directory of root's that the other owns the place of.
    (place / "below").mkdir(mode=0o700)
    config.write_text(config.read_text(encoding="utf-8").replace("books/", "books/below/"), encoding="utf-8")
    report = doctor_of(config)
    assert "others can change it" in of(report, "warn", "pace")[0] and list((place / "below").iterdir()) == []


def test_a_ledger_that_others_can_write_fails(world):
    world.ledger.chmod(0o666)
    try:
        assert f"chmod 0640 {world.ledger}" in of(doctor(world)[1], "fail", "files")[0]
    finally:
        world.ledger.chmod(0o600)


def test_a_read_only_ledger_directory_fails(world):
    place = shlex.quote(str(world.state_dir))
    through = in_a_mount_namespace(f"mount --bind {place} {place}", f"mount -o remount,bind,ro {place}")
    code, report = doctor(world, measure=True, through=through)
    assert code == FAILED and any("read-only" in text for text in of(report, "fail", "disk"))
    assert report["pace"] is None


def test_a_ledger_in_memory_and_a_full_disk_fail(world):
    place = shlex.quote(str(world.state_dir))
    code, report = doctor(world, through=in_a_mount_namespace(f"mount -t tmpfs -o size=32m none {place}"))
    assert code == FAILED and any("in memory" in text for text in of(report, "fail", "disk"))
    assert any("make room" in text for text in of(report, "fail", "disk"))


def test_a_config_that_is_wrong_fails_and_the_rest_is_looked_at(world):
    bad = world.dir / "bad.conf"
    bad.write_text("gate: { colour = 3; };\n", encoding="utf-8")
    done = world.sluice("doctor", "--config", bad, "--no-measure", "-o", "json", check=False)
    report = json.loads(done.stdout)
    assert done.returncode == FAILED and "colour" in of(report, "fail", "config")[0]
    assert of(report, "ok", "kernel")


def test_a_sale_that_is_armed_above_the_safe_pace_is_a_warning(world):
    sale = world.sale(stock=1, opens_in=3600, ends_in=7200, pace_per_second=900_000_000)
    modest = world.sale(stock=1, opens_in=3600, ends_in=7200, pace_per_second=1)
    _, report = doctor(world, measure=True)
    warned = of(report, "warn", "pace")
    assert any(f"sale {sale.slug} is armed" in text for text in warned)
    assert not any(f"sale {modest.slug} " in text for text in warned)
    sale.act("end")


def test_a_daemon_or_a_writer_that_is_away_fails_while_a_gate_is_attached():
    with World() as world:
        world.daemon.terminate()
        code, report = doctor(world)
        assert code == FAILED and of(report, "fail", "daemon") and of(report, "ok", "writer")
        world.writer.terminate()
        assert of(doctor(world)[1], "fail", "writer")
        world.sluice("detach", "--all", "--config", world.config)
        code, report = doctor(world)
        assert code == OK and of(report, "warn", "gate") and of(report, "warn", "daemon") and of(report, "warn", "writer")


def test_generic_mode_is_a_warning():
    with World(start=("gate",), mode="generic") as world:
        _, report = doctor(world)
        assert "generic mode" in of(report, "warn", "xdp")[0]


@pytest.mark.parametrize("args", [("--repair",), ("one", "two"), ("-o", "xml")])
def test_a_command_line_that_is_wrong_is_a_usage_error(args):
    done = run([SLUICE, "doctor", *args], check=False)
    assert done.returncode == USAGE and done.stdout == "" and "doctor" in done.stderr
