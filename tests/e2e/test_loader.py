# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""attach, detach, status and reload: what they do, what they say when they cannot, and that nothing is left half done."""
import json
import re
import socket
import threading

import pytest

from netns import run, wait_until
from world import BPFTOOL, DEVICE, PASS_OBJECT, PORT, SHOP, SLUICE, World

OK, FAILED, USAGE, NOT_FOUND, CONFLICT, NOT_ALLOWED = range(6)
ABI_VERSION_OFFSET = 4  # of map "control": u32 magic, u32 abi_version


@pytest.fixture
def bare():
    """Namespaces and a config file; nothing attached."""
    with World(start=()) as world:
        yield world


def attach(world, *args, device=DEVICE):
    return world.sluice("attach", device, "--config", world.config, *args, check=False)


def detach(world, *args):
    return world.sluice("detach", *args, "--pin-dir", world.pin_dir, check=False)


def assert_nothing_left(world, xdp=False):
    assert world.shop.link_has_xdp(DEVICE) == xdp, world.shop.run(["ip", "link", "show", "dev", DEVICE]).stdout
    assert not world.pin_dir.exists(), list(world.pin_dir.iterdir())


def assert_failed(done, code, *words):
    """The right exit code, nothing on stdout, and one clear sentence that has each of `words` (a tuple: any of them)."""
    assert done.returncode == code, done
    assert done.stdout == "", done
    lines = done.stderr.strip().splitlines()
    assert lines and lines[-1].startswith("sluice"), done
    for word in words:
        wanted = word if isinstance(word, tuple) else (word,)
        assert any(one.lower() in done.stderr.lower() for one in wanted), (word, done.stderr)


# --- attach and detach -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["native", "generic"])
def test_attach_and_detach_leave_nothing(bare, mode):
    done = attach(bare, "--mode", mode)
    assert done.returncode == OK, done
    link = bare.shop.run(["ip", "-j", "link", "show", "dev", DEVICE]).stdout
    assert json.loads(link)[0]["xdp"]["mode"] == {"native": 1, "generic": 2}[mode], link
    assert mode in done.stdout + done.stderr
    assert bare.pin_dir.is_dir() and bare.pin_dir.stat().st_mode & 0o777 == 0o700
    done = detach(bare, DEVICE)
    assert done.returncode == OK, done
    assert_nothing_left(bare)


def test_auto_takes_native_where_there_is_native_and_says_so(bare):
    done = attach(bare)
    assert done.returncode == OK and "native" in done.stdout + done.stderr, done
    assert "is a veth, which delivers the gate's answers only to a peer" in done.stderr
    assert '"mode":1' in bare.shop.run(["ip", "-j", "link", "show", "dev", DEVICE]).stdout


def test_detach_all(bare):
    assert attach(bare).returncode == OK
    assert detach(bare, "--all").returncode == OK
    assert_nothing_left(bare)


def test_detach_alone_means_the_only_interface(bare):
    assert attach(bare).returncode == OK
    assert detach(bare).returncode == OK
    assert_nothing_left(bare)


def test_detach_where_nothing_is_attached(bare):
    for args in ([DEVICE], ["--all"]):
        assert_failed(detach(bare, *args), NOT_FOUND)
    assert_failed(detach(bare), USAGE, "which interface")
    assert_nothing_left(bare)


def test_after_detach_the_server_is_served_by_the_kernel_alone(bare, family):
    assert attach(bare).returncode == OK
    assert detach(bare, DEVICE).returncode == OK
    server = bare.shop.start(["/usr/bin/python3", "-m", "http.server", "--bind", "::", "--directory", bare.dir, str(PORT)],
                             bare.dir / "server.log")
    try:
        wait_until(lambda: bare.shop.run(["ss", "-Hltn", f"sport = :{PORT}"]).stdout, "the server listens")
        assert bare.curl("/sluice.conf", family=family).returncode == 0
    finally:
        server.stop()


def test_a_gate_without_a_daemon_refuses_no_port_to_the_kernel(bare, family):
    """Nobody listens: the kernel refuses the connection, as it would without us."""
    assert attach(bare).returncode == OK
    sock = bare.socket(family)
    with sock, pytest.raises(ConnectionRefusedError):
        sock.connect((SHOP[family], PORT))


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_a_sale_works_in_this_mode(family, mode):
    with World(mode=mode) as world:
        sale = world.sale(stock=1)
        winner, loser = sale.token(), sale.token()
        assert world.order(winner, family).status == 201
        curl = world.curl_order(loser, family=family)
        assert curl.returncode == 0 and curl.answer.code() == "sold_out", curl
        # A long request leaves room for the whole answer in any mode.
        curl = world.curl_order(loser, "-H", "Cookie: " + "x" * 600, family=family)
        assert curl.returncode == 0 and curl.answer.code() == "sold_out", curl
        world.assert_no_socket(curl.local_port)
        assert world.packets("sold_out") == 2


def test_a_few_frames_with_room_at_the_tail_are_not_a_driver_that_grows_there(bare):
    """On veth one frame in six or so is the last in its page and has the rest of it. The gate would then try the tail first with a long answer, and
    send most buyers the status line alone."""
    over = threading.Event()

    def send(sock):
        while not over.is_set():
            sock.sendto(b"x" * 56, (SHOP["ipv4"], PORT))

    with bare.crowd.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sender = threading.Thread(target=send, args=(sock,))
        sender.start()
        try:
            for _ in range(3):
                done = attach(bare)
                assert done.returncode == OK and "frames can grow at the head and cannot at the tail" in done.stderr, done
                assert detach(bare).returncode == OK
        finally:
            over.set()
            sender.join()


# --- errors ------------------------------------------------------------------------------------------------------------------
def test_attached_twice(bare):
    assert attach(bare).returncode == OK
    pins = sorted(path.name for path in bare.pin_dir.iterdir())
    assert_failed(attach(bare), CONFLICT, DEVICE, ("already", "attached"))
    assert bare.shop.link_has_xdp(DEVICE), "the first one was not disturbed"
    assert sorted(path.name for path in bare.pin_dir.iterdir()) == pins


def test_no_such_interface(bare):
    assert_failed(attach(bare, device="nosuch0"), NOT_FOUND, "nosuch0")
    assert_nothing_left(bare)


def test_interface_is_down(bare):
    bare.shop.run(["ip", "link", "set", DEVICE, "down"])
    assert_failed(attach(bare), FAILED, DEVICE, "down")
    assert_nothing_left(bare)


@pytest.mark.parametrize("through", [["attach"], ["doctor", "--no-measure"]], ids=["attach", "doctor"])
def test_an_interface_without_ethernet_headers_is_refused(bare, through):
    """The gate would read an IP header as Ethernet, and protect nothing."""
    bare.shop.run(["ip", "tuntap", "add", "dev", "tun0", "mode", "tun"])
    bare.shop.run(["ip", "link", "set", "tun0", "up"])
    done = bare.sluice(*through, "tun0", "--config", bare.config, check=False)
    assert done.returncode == FAILED and "tun0 carries no Ethernet frames" in done.stdout + done.stderr, done
    assert "is attached" not in done.stderr and not bare.shop.link_has_xdp("tun0")


def test_no_privilege(bare):
    bare.dir.chmod(0o755)
    bare.config.chmod(0o644)
    done = run(bare.shop.command(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all",
                                  "--bounding-set=-all", SLUICE, "attach", DEVICE, "--config", bare.config]),
               check=False)
    assert_failed(done, NOT_ALLOWED, ("root", "CAP_", "privilege", "permitted"))
    assert_nothing_left(bare)


def test_frames_that_are_too_large_for_native_mode(bare):
    bare.crowd.run(["ip", "link", "set", "dev", DEVICE, "xdp", "off"])
    for ns in (bare.shop, bare.crowd):
        ns.run(["ip", "link", "set", DEVICE, "mtu", "9000"])
    assert_failed(attach(bare, "--mode", "native"), FAILED, DEVICE, "mtu", "generic")
    assert_nothing_left(bare)
    done = attach(bare)
    assert done.returncode == OK and "generic" in done.stdout + done.stderr, done


def test_the_hook_is_busy(bare):
    bare.shop.run(["ip", "link", "set", "dev", DEVICE, "xdp", "obj", PASS_OBJECT, "sec", "xdp"])
    program = json.loads(bare.shop.run(["ip", "-j", "link", "show", "dev", DEVICE]).stdout)[0]["xdp"]
    assert_failed(attach(bare), CONFLICT, DEVICE, ("another", "other"))
    assert_nothing_left(bare, xdp=True)
    now = json.loads(bare.shop.run(["ip", "-j", "link", "show", "dev", DEVICE]).stdout)[0]["xdp"]
    assert now == program, "the other program was not touched"
    seen = bare.sluice("doctor", DEVICE, "--no-measure", "--config", bare.config, check=False).stdout
    assert "runs another XDP program" in seen and "runs the gate" not in seen, seen


def test_a_gate_of_other_pins_is_called_one_and_not_to_be_taken_off_by_force(bare):
    assert attach(bare).returncode == OK
    other = f"{bare.pin_dir}-other"
    done = attach(bare, "--pin-dir", other)
    assert_failed(done, CONFLICT, "a gate is on", "--pin-dir")
    assert "xdp off" not in done.stderr
    seen = bare.sluice("doctor", DEVICE, "--no-measure", "--config", bare.config, "--pin-dir", other, check=False).stdout
    assert f"not the one of {other}" in seen and "native mode" not in seen, seen


def test_coexist_works_or_says_why_not(bare):
    bare.shop.run(["ip", "link", "set", "dev", DEVICE, "xdp", "off"])
    done = attach(bare, "--coexist")
    if done.returncode == OK:
        assert "dispatcher" in bare.sluice("status", "--config", bare.config).stdout
        assert detach(bare, DEVICE).returncode == OK
    else:
        assert_failed(done, FAILED, ("dispatcher", "libxdp"))
    assert_nothing_left(bare)


def test_syn_cookies_that_are_off_are_an_error_that_names_the_cure(bare):
    bare.shop.sysctl("net.ipv4.tcp_syncookies", 1)
    assert_failed(attach(bare), FAILED, "net.ipv4.tcp_syncookies", "--sysctl", "2")
    assert_nothing_left(bare)
    assert bare.shop.run(["sysctl", "-n", "net.ipv4.tcp_syncookies"]).stdout.strip() == "1", "changed without being told"
    done = attach(bare, "--sysctl")
    assert done.returncode == OK, done
    assert bare.shop.run(["sysctl", "-n", "net.ipv4.tcp_syncookies"]).stdout.strip() == "2"


def test_a_config_file_with_an_error_attaches_nothing(bare):
    bare.config.write_text(bare.config.read_text() + "\nnonsense = 1;\n")
    line = len(bare.config.read_text().splitlines())
    assert_failed(attach(bare), FAILED, f"{bare.config}:{line}", "nonsense")
    assert_nothing_left(bare)


def test_pins_that_vanish_with_their_mount_namespace_are_warned_of(bare):
    """"ip netns exec" makes one, with a /sys of its own that has no bpf file system."""
    done = run(["ip", "netns", "exec", bare.shop.name, SLUICE, "attach", DEVICE, "--config", bare.config], check=False)
    assert done.returncode == OK and "mounted a bpf file system" in done.stderr, done
    assert "mount namespace of its own" in done.stderr and "nsenter --net=" in done.stderr
    assert bare.sluice("status", "--config", bare.config, check=False).returncode == NOT_FOUND


def test_a_pin_directory_that_is_not_on_bpffs(bare):
    done = attach(bare, "--pin-dir", bare.dir / "pins")
    assert_failed(done, FAILED, str(bare.dir), "not on a bpf file system")
    assert_nothing_left(bare)
    assert not (bare.dir / "pins").exists()


@pytest.mark.parametrize("args", [["attach"], ["attach", DEVICE, "--mode", "fast"], ["attach", DEVICE, "--nonsense"],
                                  ["detach", "--mode", "native"], ["attach", DEVICE, "more"], ["nonsense"]], ids=" ".join)
def test_usage(bare, args):
    done = bare.sluice(*args, check=False)
    assert done.returncode == USAGE and done.stdout == "" and done.stderr, done
    assert_nothing_left(bare)


def test_a_disabled_interface_leaves_with_its_gate(bare):
    """The interface disappears under the gate: detach still cleans up."""
    assert attach(bare).returncode == OK
    bare.shop.run(["ip", "link", "del", DEVICE])
    assert detach(bare, "--all").returncode == OK
    assert not bare.pin_dir.exists()


# --- status --------------------------------------------------------------------------------------------------------------------
def test_status(bare):
    done = bare.sluice("status", "--config", bare.config, check=False)
    assert done.returncode in (OK, NOT_FOUND), done
    assert attach(bare).returncode == OK
    table = bare.sluice("status", "--config", bare.config).stdout
    assert DEVICE in table and "native" in table
    status = json.loads(bare.sluice("status", "-o", "json", "--config", bare.config).stdout)
    text = json.dumps(status)
    assert DEVICE in text and "native" in text and '"generation"' in text, text
    assert str(PORT) in text and "shop" in text


# --- reload ----------------------------------------------------------------------------------------------------------------------
def generation(world):
    return world.status()["gate"]["generation"]


def test_reload_under_load_without_one_failed_request(family):
    with World() as world, world.limits(source=(0, 1), prefix=(0, 1), syn_prefix=(0, 1)):
        sale = world.sale(stock=1000)
        tokens = [sale.token() for _ in range(400)]
        before = generation(world)
        url = f"http://[{SHOP[family]}]:{PORT}{sale.path}" if family == "ipv6" else f"http://{SHOP[family]}:{PORT}{sale.path}"
        wrk = world.crowd.start(["wrk", "-t1", "-c8", "-d6s", url], world.dir / "wrk.log")
        answers, done = [], threading.Event()

        def buy():
            for token in tokens:
                if done.is_set():
                    return
                answers.append(world.order(token, family))
        buyer = threading.Thread(target=buy)
        try:
            wait_until(lambda: world.packets("socket") > 200, "wrk is at work")
            buyer.start()
            for _ in range(8):
                world.sluice("reload", "--config", world.config)
            wrk.popen.wait(60)
        finally:
            done.set()
            buyer.join(60)
            wrk.stop()
        assert generation(world) == before + 8
        assert "Socket errors" not in wrk.log() and "Non-2xx" not in wrk.log(), wrk.log()
        assert int(re.search(r"(\d+) requests in", wrk.log()).group(1)) > 100, wrk.log()
        assert len(answers) > 20 and {answer.status for answer in answers} == {201}
        sale.assert_books(put_in=1000, held=len(answers))


def test_reload_keeps_lists_stock_and_tokens(family):
    with World() as world:
        sale = world.sale(stock=3)
        tokens = [sale.token() for _ in range(2)]
        assert world.order(tokens[0], family).status == 201
        world.ask("PUT", "/v1/lists/deny/192.0.2.0/24")
        counted = world.packets("admitted")
        world.sluice("reload", "--config", world.config)
        assert world.packets("admitted") == counted
        assert [entry["prefix"] for entry in world.ask("GET", "/v1/lists/deny")["entries"]] == ["192.0.2.0/24"]
        assert world.order(tokens[0], family).status == 200
        assert world.order(tokens[1], family).status == 201
        assert world.order_by_call_door(tokens[1], family).status == 200, "the call door is that of the new program"
        sale.assert_books(put_in=3, free=1, held=2)


def test_reload_where_nothing_is_attached(bare):
    assert_failed(bare.sluice("reload", "--config", bare.config, check=False), NOT_FOUND)
    assert_nothing_left(bare)


def set_abi_version(world, version):
    """Writes another ABI version into the pinned map, as a newer release would have."""
    (key, value), = world.map_dump("control")
    value = value[:ABI_VERSION_OFFSET] + version.to_bytes(4, "little") + value[ABI_VERSION_OFFSET + 4:]
    run([BPFTOOL, "map", "update", "pinned", world.pin_dir / "control", "key", "hex", *(f"{b:02x}" for b in key), "value",
         "hex", *(f"{b:02x}" for b in value)])
    return int.from_bytes(value[8:16], "little")


@pytest.mark.parametrize("version", [3, 77], ids=["the_one_before", "a_later_one"])
def test_reload_and_daemon_refuse_pins_of_another_abi(bare, version):
    assert attach(bare).returncode == OK
    set_abi_version(bare, version)
    before = bare.map_dump("control")
    assert_failed(bare.sluice("reload", "--config", bare.config, check=False), CONFLICT, "ABI", str(version))
    assert bare.map_dump("control") == before and bare.shop.link_has_xdp(DEVICE), "the old one goes on"
    bare.start_daemon(ready=False)
    assert bare.daemon.popen.wait(20) != 0
    assert f"ABI version {version} " in bare.daemon.log()
    assert detach(bare, DEVICE).returncode == OK
    assert_nothing_left(bare)
