# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""TCP at its edges: ports used again, segments that come twice, late or never, clients that say nothing, tagged frames."""
import contextlib

import pytest

import talk
from netns import wait_until
from rawtcp import TCP, RawClient, payload
from test_refusals import sockets_in_use
from world import FAMILIES, PORT, SHOP_TAGGED, VLAN, World, has_vlan_devices


def order_bytes(token):
    return talk.request("POST", f"/v1/orders/{token}", [("Connection", "close")])


def answers_of(raw):
    return [(answer.status, answer.code()) for answer in talk.parse_answers(raw)]


# --- ports -----------------------------------------------------------------------------------------------------------------
def test_a_port_in_time_wait_on_the_server_can_connect_again(world, family):
    """The server closes first, so the connection rests in its TIME-WAIT; the kernel, not the gate, knows how to go on."""
    sale = world.sale(stock=3)
    source, port, token = world.source(family), 40001, sale.token()
    with world.connect(family, source, port) as connection:
        connection.send(order_bytes(token))
        assert connection.receive_only().status == 201
    for _ in range(3):
        wait_until(lambda: any(state == "TIME-WAIT" for state, _, _ in world.shop.tcp_sockets(port)),
                   "the server's side is in TIME-WAIT")
        before = world.packets("socket")
        with world.connect(family, source, port) as connection:
            connection.send(order_bytes(token))
            assert connection.receive_only().status == 200
        assert world.packets("socket") > before
    sale.assert_books(put_in=3, free=2, held=1)


def test_a_port_in_time_wait_is_no_way_around_the_rate(world, family):
    """The daemon ends each of these connections, so the kernel makes the next one of that port without asking the gate for a cookie."""
    source, port = world.source(family), 40004
    with world.limits(source=(0.01, 3)):
        for _ in range(3):
            with world.connect(family, source, port) as connection:
                connection.send(talk.request("GET", "/v1/sales/none"))
                assert connection.receive_only().status == 404
            wait_until(lambda: any(state == "TIME-WAIT" for state, _, _ in world.shop.tcp_sockets(port)),
                       "the server's side is in TIME-WAIT")
        before = world.packets("rate_drop")
        with world.socket(family, source, port) as sock:
            sock.settimeout(0.5)
            with pytest.raises(TimeoutError):
                sock.connect((world.network.address[family], PORT))
        assert world.packets("rate_drop") > before


def test_a_port_whose_connection_was_refused_by_the_gate_can_connect_again_at_once(world, family):
    token = world.sale(opens_in=600).token()
    source, port = world.source(family), 40002
    for _ in range(10):
        with world.connect(family, source, port) as connection:
            connection.send(order_bytes(token))
            assert connection.receive_only().status == 409
        world.assert_no_socket(port)


def test_a_port_goes_from_refused_to_admitted_and_back(world, family):
    sale = world.sale(stock=1)
    winner, loser = sale.token(), sale.token()
    source, port = world.source(family), 40003
    for token, status in ((winner, 201), (loser, 409), (winner, 200), (loser, 409)):
        with world.connect(family, source, port) as connection:
            connection.send(order_bytes(token))
            assert connection.receive_only().status == status
        wait_until(lambda: not world.crowd.tcp_sockets(port), "the client's port is free")


# --- clients that say nothing --------------------------------------------------------------------------------------------------
def test_five_hundred_silent_connections_cost_the_server_no_socket(world, family):
    before, sockets = sockets_in_use(world.shop), world.shop.tcp_sockets(PORT)
    counted = world.packets("syn_cookie")
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(world.connect(family))
        assert world.packets("syn_cookie") >= counted + 500
        assert set(world.shop.tcp_sockets(PORT)) <= set(sockets), "no more than the TIME-WAITs of earlier tests"
        assert sockets_in_use(world.shop) == before
    assert sockets_in_use(world.shop) == before


def test_a_client_that_was_silent_for_a_while_can_still_order(world, family):
    sale = world.sale(stock=1)
    with world.connect(family) as connection:
        token = sale.token()
        assert world.shop.tcp_sockets(connection.port) == []
        connection.send(order_bytes(token))
        assert connection.receive_only().status == 201


# --- segments by hand ------------------------------------------------------------------------------------------------------------
def test_the_same_first_segment_six_times_takes_one_unit(world, family):
    sale = world.sale(stock=6)
    with RawClient(world, family) as client:
        client.handshake()
        data = order_bytes(sale.token())
        for _ in range(6):
            client.send("PA", data)
        client.seq += len(data)
        assert answers_of(client.receive_until_end()) == [(201, None)]
    sale.assert_books(put_in=6, free=5, held=1)


def test_the_same_first_segment_after_its_connection_is_gone_takes_nothing(world, family):
    """A duplicate that lingered in the network. The cookie is still good; the token is spent."""
    sale = world.sale(stock=6)
    with RawClient(world, family) as client:
        client.handshake()
        data = order_bytes(sale.token())
        late = client.segment("PA", data)
        client.send("PA", data)
        client.seq += len(data)
        assert answers_of(client.receive_until_end()) == [(201, None)]
        client.send("FA")
        for _ in range(3):
            client.sock.send(late)
    sale.assert_books(put_in=6, free=5, held=1)


def test_a_lost_answer_of_the_gate_is_given_again(world, family):
    token = world.sale(opens_in=600).token()
    with RawClient(world, family) as client:
        client.handshake()
        data = order_bytes(token)
        answers = []
        for _ in range(3):
            client.send("PA", data)
            answers.append(client.receive())
        assert all(answer[TCP].flags == "FPA" and client.checksums_are_good(answer) for answer in answers)
        assert len({(answer[TCP].seq, answer[TCP].ack, payload(answer)) for answer in answers}) == 1
        assert answers[0][TCP].ack == (client.seq + len(data)) % (1 << 32)
        assert answers_of(payload(answers[0])) == [(409, "sale_not_open")]


@pytest.mark.parametrize("rest", ["PA", "FA"])
def test_an_answer_that_was_lost_is_given_again_though_more_was_on_its_way(world, family, rest):
    """An acknowledgement of what follows would cover the request, too, and the client would wait for an answer that nobody has."""
    token = world.sale(opens_in=600).token()
    with RawClient(world, family) as client:
        client.handshake()
        data, more = order_bytes(token), b"" if rest == "FA" else b"Cookie: more\r\n\r\n"
        client.send("PA", data)
        assert client.receive()[TCP].flags == "FPA"  # and it is lost
        client.send(rest, more, seq=client.seq + len(data))
        assert client.receive(timeout=0.5) is None
        client.send("PA", data)
        answer = client.receive()
        assert answers_of(payload(answer)) == [(409, "sale_not_open")]
        client.take(answer)
        client.send(rest, more, seq=client.seq + len(data))
        acknowledged = client.receive()
        assert acknowledged[TCP].flags == "A"
        assert acknowledged[TCP].ack == (client.seq + len(data) + len(more) + (rest == "FA")) % (1 << 32)


def test_the_end_of_a_refused_connection_is_acknowledged_and_nothing_more_is_said(world, family):
    token = world.sale(opens_in=600).token()
    with RawClient(world, family) as client:
        client.handshake()
        data = order_bytes(token)
        client.send("PA", data)
        client.seq += len(data)
        client.receive_until_end()
        for _ in range(2):  # the client's FIN, and the same again because the acknowledgement was lost
            client.send("FA")
            answer = client.receive()
            assert answer[TCP].flags == "A" and payload(answer) == b""
            assert (answer[TCP].seq, answer[TCP].ack) == (client.ack, (client.seq + 1) % (1 << 32))
            assert client.checksums_are_good(answer)
        client.seq += 1
        client.send("A")
        client.send("R")
        assert client.receive(timeout=0.5) is None
    assert world.shop.tcp_sockets(client.port) == []


def test_a_lost_syn_ack_is_given_again(world, family):
    sale = world.sale(stock=1)
    with RawClient(world, family) as client:
        client.send("S", options=[("MSS", 1400)])
        assert client.receive()[TCP].flags == "SA"
        client.handshake(options=[("MSS", 1400)])
        data = order_bytes(sale.token())
        client.send("PA", data)
        client.seq += len(data)
        assert answers_of(client.receive_until_end()) == [(201, None)]


def test_a_lost_ack_of_the_handshake_does_no_harm(world, family):
    sale = world.sale(stock=1)
    with RawClient(world, family) as client:
        client.handshake(bare_ack=False)
        data = order_bytes(sale.token())
        client.send("PA", data)
        client.seq += len(data)
        assert answers_of(client.receive_until_end()) == [(201, None)]


def test_a_syn_ack_is_no_longer_than_its_syn(world, family):
    """So that the gate amplifies nothing: without options in the SYN there are none in the answer."""
    with RawClient(world, family) as client:
        bare = client.handshake(options=[])
        assert bare[TCP].dataofs == 5 and bare[TCP].window > 0 and client.checksums_are_good(bare)
    with RawClient(world, family) as client:
        answer = client.handshake(options=[("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("WScale", 7)])
        assert [name for name, _ in answer[TCP].options] == ["MSS"]
        assert client.checksums_are_good(answer)


def test_data_and_fin_in_one_segment(world, family):
    sale = world.sale(stock=1)
    winner, loser = sale.token(), sale.token()
    for token, expected in ((winner, (201, None)), (loser, (409, "sold_out"))):
        with RawClient(world, family) as client:
            client.handshake()
            data = order_bytes(token)
            client.send("FPA", data)
            client.seq += len(data) + 1
            assert answers_of(client.receive_until_end()) == [expected]


def test_a_segment_that_was_lost_and_comes_after_the_next_one(world, family):
    sale = world.sale(stock=1)
    with RawClient(world, family) as client:
        client.handshake()
        data = order_bytes(sale.token())
        first, second, third = data[:40], data[40:90], data[90:]
        start = client.seq
        client.send("PA", first)
        wait_until(lambda: client.receive(0.2) is not None, "the first piece is acknowledged")
        client.send("PA", third, seq=start + 90)
        client.send("PA", second, seq=start + 40)
        client.seq = start + len(data)
        assert answers_of(client.receive_until_end()) == [(201, None)]
    sale.assert_books(put_in=1, free=0, held=1)


def test_the_second_segment_before_the_first(world, family):
    """Data behind a hole, from a connection without a socket: it is only acknowledged when it is all there."""
    sale = world.sale(stock=1)
    with RawClient(world, family) as client:
        client.handshake()
        data = order_bytes(sale.token()) + b"x" * 0
        start, cut = client.seq, 90
        client.send("PA", data[cut:], seq=start + cut)
        client.receive(timeout=0.5)
        for _ in range(2):  # as a client does that hears nothing of the first one
            client.send("PA", data[:cut], seq=start)
            client.send("PA", data[cut:], seq=start + cut)
        client.seq = start + len(data)
        assert answers_of(client.receive_until_end()) == [(201, None)]
    sale.assert_books(put_in=1, free=0, held=1)


@pytest.mark.parametrize("flags, reason", [("SF", "syn_fin"), ("SR", "syn_rst"), ("", "tcp_flags"), ("FPU", "tcp_flags"),
                                           ("SA", "tcp_flags"), ("A", "bare_ack"), ("R", "rst_stray"), ("RA", "rst_stray")])
def test_a_segment_out_of_the_blue_gets_no_answer(world, family, flags, reason):
    before = world.packets(reason)
    with RawClient(world, family) as client:
        client.send(flags)
        assert client.receive(timeout=0.2) is None
    assert world.packets(reason) == before + 1


def test_a_syn_with_data_gets_no_answer(world, family):
    before = world.packets("syn_data")
    with RawClient(world, family) as client:
        client.send("S", b"POST /v1/orders/")
        assert client.receive(timeout=0.2) is None
    assert world.packets("syn_data") == before + 1


def test_data_with_a_wrong_cookie_makes_no_socket_and_takes_nothing(world, family):
    sale = world.sale(stock=1)
    with RawClient(world, family) as client:
        client.handshake()
        data = order_bytes(sale.token())
        # Far off: the lowest bits of a cookie are an index of MSS values, so a neighbour can be a cookie as well.
        client.send("PA", data, ack=client.ack ^ 0x40000000)
        answer = client.receive(timeout=1)
        assert answer is None or answer[TCP].flags == "A", "a bare acknowledgement at most"
    assert world.shop.tcp_sockets(client.port) == []
    sale.assert_books(put_in=1, free=1, held=0)


# --- tagged -------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tags", [[VLAN], [VLAN, 7]], ids=["one_tag", "two_tags"])
def test_tagged_frames_are_judged_and_answered_in_their_vlan(world, family, tags):
    """Handshake, answer and end, all from the gate: the frames carry their tags both ways."""
    token = world.sale(opens_in=600).token()
    before = world.packets("not_open")
    with RawClient(world, family, tagged=tags) as client:
        client.handshake()
        assert client.tags == tags
        data = order_bytes(token)
        client.send("PA", data)
        client.seq += len(data)
        answer = client.receive()
        assert client.tags == tags and client.checksums_are_good(answer)
        assert answers_of(payload(answer)) == [(409, "sale_not_open")]
        client.take(answer)
        client.send("FA")
        assert client.receive()[TCP].flags == "A" and client.tags == tags
    assert world.packets("not_open") == before + 1


def test_three_tags_are_one_too_many(world, family):
    before = world.stats()["packets"]
    with RawClient(world, family, tagged=[1, 2, 3]) as client:
        client.send("S")
        assert client.receive(timeout=0.2) is None
    after = world.stats()["packets"]
    counted = [service for service in after if after[service].get("vlan_depth", {}).get("packets", 0) >
               before.get(service, {}).get("vlan_depth", {}).get("packets", 0)]
    assert len(counted) == 1


@pytest.fixture(scope="module")
def tagged_world():
    if not has_vlan_devices():
        pytest.skip("this kernel has no VLAN devices (8021q): tagged frames cannot reach a socket here")
    with World(tagged=True) as shop:
        yield shop


def test_tagged_orders_through_a_vlan_device(tagged_world, family):
    world = tagged_world
    sale = world.sale(stock=1)
    winner, loser = sale.token(), sale.token()
    admitted, sold_out = world.packets("admitted"), world.packets("sold_out")
    for token, status in ((winner, 201), (loser, 409)):
        sock = world.crowd.socket(FAMILIES[family])
        with talk.Connection(sock, (SHOP_TAGGED[family], PORT)) as connection:
            connection.send(order_bytes(token))
            assert connection.receive_only().status == status
            port = connection.port
    world.assert_no_socket(port)
    assert (world.packets("admitted"), world.packets("sold_out")) == (admitted + 1, sold_out + 1)
    assert world.order(sale.signed(winner, serial=1), family).code() == "sold_out", "untagged frames beside tagged ones"
