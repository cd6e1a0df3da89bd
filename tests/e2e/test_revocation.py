# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Taking tokens back: one, or all that were issued before a time; what that leaves alone; and that it outlives crash and reboot."""
import contextlib
import fcntl
import glob
import json
import signal
import struct
import subprocess
import termios
import time

import pytest

from netns import wait_until
from tokens import Token
from world import SLUICE, World, rfc3339


@pytest.fixture(scope="module")
def world():
    with World() as shop:
        yield shop


@pytest.fixture(params=["ipv4", "ipv6"])
def family(request):
    return request.param


def refused(answer):
    return (answer.status, answer.code()) == (401, "token_invalid")


def test_a_revoked_token_is_refused_at_both_doors_and_takes_no_unit(world, family):
    sale = world.sale(stock=3)
    token, other = sale.token(), sale.token()
    before = world.packets("token_revoked")
    answer = world.ask("POST", "/v1/tokens/revoke", {"token": token})
    assert answer == {"id": f"{Token.read(token).serial:016x}", "sale": sale.slug, "revoked": True}
    assert world.ask("POST", "/v1/tokens/inspect", {"token": token})["revoked"] is True
    assert world.ask("POST", "/v1/tokens/inspect", {"token": other})["revoked"] is False
    assert refused(world.order(token, family))
    assert world.packets("token_revoked") == before + 1, "the refusal came from the gate"
    assert refused(world.order_by_call_door(token, family))
    assert world.ask("POST", "/v1/tokens/revoke", {"token": token})["revoked"], "twice is no error"
    assert world.order(other, family).status == 201
    sale.assert_books(free=2)


def test_an_order_is_not_taken_back_with_its_token(world):
    sale = world.sale(stock=3)
    token = sale.token()
    assert world.order(token).status == 201
    answer = world.control("POST", "/v1/tokens/revoke", {"token": token})
    assert (answer.status, answer.code()) == (409, "already_ordered")
    assert world.order(token).status == 200


def test_a_buyer_whose_token_was_revoked_gets_another_from_the_shop_only(world, family):
    sale = world.sale(stock=3)
    buyer = sale.buyer()
    first = sale.token(buyer)
    world.ask("POST", "/v1/tokens/revoke", {"sale": sale.slug, "buyer": buyer})
    assert refused(world.order(first, family))
    answer = world.public("POST", f"{sale.path}/tokens", {"buyer": buyer}, family=family)
    assert (answer.status, answer.code()) == (403, "token_revoked"), answer
    second = sale.token(buyer)
    assert Token.read(second).serial != Token.read(first).serial
    assert refused(world.order(first, family))
    assert world.order(second, family).status == 201


def test_all_tokens_before_a_time_are_revoked(world, family):
    sale = world.sale(stock=5)
    buyer = sale.buyer()
    bought, old = sale.token(), sale.token(buyer)
    assert world.order(bought, family).status == 201
    told = world.ask("POST", f"{sale.path}/tokens/revoke", {"issued_before": rfc3339(time.time())})
    assert told["live_tokens"] == 2, "the spent one is live, too"
    assert refused(world.order(old, family)) and refused(world.order_by_call_door(old, family))
    assert world.order(bought, family).status == 200, "a yes is never taken back"
    assert world.ask("POST", "/v1/tokens/inspect", {"token": old})["revoked"] is True
    time.sleep(1.1)  # into the next second: tokens know no less
    new = sale.token(buyer)
    assert new != old and Token.read(new).serial == Token.read(old).serial
    assert world.order(new, family).status == 201
    # An earlier time takes it back.
    third = sale.signed(issued_at=int(time.time()) - 30)
    assert refused(world.order(third, family))
    told = world.ask("POST", f"{sale.path}/tokens/revoke", {"issued_before": rfc3339(time.time() - 3600)})
    assert told["live_tokens"] is None, "of those of an earlier time there is no count"
    assert world.order(third, family).status == 201


@pytest.mark.parametrize("body, code", [
    ({}, "missing_field"), ({"token": "x"}, "out_of_range"), ({"token": "A" * 64}, "out_of_range"),
    ({"sale": "none", "buyer": "b"}, "unknown_sale"), ({"sale": "none"}, "missing_field"), ({"token": 5}, "wrong_type"),
    ({"serial": "0"}, "unknown_field"),
])
def test_what_cannot_be_revoked_is_said(world, body, code):
    answer = world.control("POST", "/v1/tokens/revoke", body)
    assert answer.status in (400, 404, 422) and answer.code() == code, answer


def test_a_time_in_the_future_or_none_is_refused(world):
    sale = world.sale()
    for body in ({}, {"issued_before": "soon"}, {"issued_before": rfc3339(time.time() + 3600)}):
        assert world.control("POST", f"{sale.path}/tokens/revoke", body).status in (400, 422), body
    answer = world.control("POST", f"{sale.path}/tokens/revoke", {"issued_before": rfc3339(time.time() + 3600)})
    assert answer.status == 422
    assert world.order(sale.token()).status == 201


def command_lines():
    """{pid: arguments} of all that runs, as everybody may read them."""
    found = {}
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            found[int(path.split("/")[2])] = file.read()
    return found


def unread(pipe):
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0]


@pytest.mark.parametrize("verb", ["revoke", "inspect"])
def test_the_command_keeps_tokens_out_of_the_process_list(world, verb):
    """Looked at while it has read the token and waits for a daemon that stands still."""
    sale = world.sale(stock=3)
    token = sale.token()
    world.daemon.popen.send_signal(signal.SIGSTOP)
    try:
        command = subprocess.Popen(list(map(str, world.shop.command([SLUICE, "token", verb, "-o", "json", "--socket", world.control_socket]))), text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        command.stdin.write(token + "\n")
        command.stdin.flush()
        wait_until(lambda: unread(command.stdin) == 0, "the token is read")
        lines = command_lines()
    finally:
        world.daemon.popen.send_signal(signal.SIGCONT)
    said, _ = command.communicate(timeout=20)
    assert verb.encode() in lines[command.pid], "it was looked at too late or too early"
    assert not [line for line in lines.values() if token.encode() in line]
    assert command.returncode == 0 and json.loads(said)["sale"] == sale.slug
    assert refused(world.order(token)) == (verb == "revoke")


def test_the_command_revokes_all_tokens_of_a_time(world):
    sale = world.sale(stock=3)
    token = sale.token()
    done = world.cli("token", "revoke-all", sale.slug, "--issued-before", "now")
    assert "1 token was out at this node, and now refused" in done.stderr, done
    assert refused(world.order(token))


def test_what_is_revoked_stays_so_through_a_crash_and_a_reboot():
    with World() as shop:
        sale, all_of = shop.sale(stock=5), shop.sale(stock=5)
        token, old, good = sale.token(), all_of.token(), sale.token()
        shop.ask("POST", "/v1/tokens/revoke", {"token": token})
        shop.ask("POST", f"{all_of.path}/tokens/revoke", {"issued_before": rfc3339(time.time())})
        shop.daemon.kill()
        shop.start_daemon()
        assert refused(shop.order(token)) and refused(shop.order(old))
        # As after a reboot: nothing of the gate is left.
        shop.daemon.kill()
        shop.sluice("detach", "--all", "--pin-dir", shop.pin_dir)
        shop.attach()
        shop.start_daemon()
        assert refused(shop.order(token)) and refused(shop.order(old))
        assert shop.order(good).status == 201


def test_a_damaged_file_of_revoked_tokens_stops_the_start():
    with World(start=("gate", "writer")) as shop:
        (shop.state_dir / "revoked").write_text("before 1 0\nnonsense\n", encoding="ascii")
        shop.start_daemon(ready=False)
        wait_until(lambda: not shop.daemon.running(), "the daemon ends")
        assert shop.daemon.terminate() == 1
        assert "line 2 of" in shop.daemon.log() and "revoked" in shop.daemon.log()


def test_a_last_line_that_a_crash_cut_off_is_no_damage():
    with World(start=("gate", "writer")) as shop:
        (shop.state_dir / "revoked").write_text("before 4711 5\ntoken 00", encoding="ascii")
        shop.start_daemon()
        assert (shop.state_dir / "revoked").read_text(encoding="ascii") == "before 4711 5\n"
