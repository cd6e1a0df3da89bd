# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""A firewall on the shop's machine. The gate stands before it: netfilter sees neither SYN nor SYN-ACK of a protected port, only the first segment that
the gate let up, and by then the unit is taken. What docs/operations.md says under "Firewall" is tried here, with the rules that stand there.
"""
import pathlib
import re
import shutil

import pytest

import talk
from netns import wait_until

OPERATIONS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "operations.md"
LOOSE = "net.netfilter.nf_conntrack_tcp_loose"

pytestmark = pytest.mark.skipif(not shutil.which("nft"), reason="nft (package nftables) is not installed")


@pytest.fixture
def firewall(world):
    """Rules of the shop's machine, in front of its policy to drop: firewall("tcp dport 22 accept", …)."""
    def load(*rules):
        lines = ["table inet filter {", "chain input {", "type filter hook input priority filter; policy drop;", "iif lo accept",
                 "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept", *rules, "}", "}"]
        world.shop.run(["nft", "-f", "-"], input="flush ruleset\n" + "\n".join(lines) + "\n")
    yield load
    world.shop.run(["nft", "flush", "ruleset"])
    world.shop.sysctl(LOOSE, 1)


def documented_rules():
    return re.search(r"```\n(table inet sluice \{.*?\n\})\n```", OPERATIONS.read_text(encoding="utf-8"), re.DOTALL).group(1)


def assert_held_without_an_answer(world, sale, family):
    """The token of that order."""
    token, again = sale.token(), world.packets("admitted_again")
    with world.connect(family) as connection:
        connection.send(talk.request("POST", f"/v1/orders/{token}"))
        wait_until(lambda: world.packets("admitted_again") > again, "he sends it again, and it is let up again")
        connection.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.sock.recv(1)
    wait_until(lambda: sale.books()["held"] == 1, "the unit is taken all the same")
    return token


def test_a_firewall_that_wants_a_syn_makes_orders_whose_buyers_hear_nothing_until_the_port_is_accepted_before(world, firewall, family):
    wants_a_syn = ["ct state established,related accept", "tcp dport 8080 tcp flags & (syn | ack) == syn ct state new accept"]
    sale = world.sale(stock=3)
    firewall(*wants_a_syn)
    token = assert_held_without_an_answer(world, sale, family)
    firewall("tcp dport 8080 accept", *wants_a_syn)
    assert world.order(sale.token(), family).status == 201
    assert world.order(token, family).json()["seq"] == 1, "the order of before is still his"
    sale.assert_books(put_in=3, free=1, held=2)


def test_what_conntrack_takes_for_invalid_passes_by_the_rules_that_do_not_track_it(world, firewall, family):
    sale = world.sale(stock=3)
    world.shop.sysctl(LOOSE, 0)
    firewall("ct state invalid drop", "tcp dport 8080 accept")
    token = assert_held_without_an_answer(world, sale, family)
    world.shop.run(["nft", "-f", "-"], input=documented_rules())
    assert world.order(sale.token(), family).status == 201
    assert world.order(token, family).json()["seq"] == 1
    sale.assert_books(put_in=3, free=1, held=2)
